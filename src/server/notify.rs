//! NOTIFY out (RFC 1996): who is to hear of a new serial, until they have.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_local;

use crate::policy::Remote;
use crate::tsig::Session;
use crate::wire::message::{CLASS_IN, Message, Section, Writer, header, opcode};
use crate::wire::{LowerName, Name, rcode, rtype};
use crate::zone::records::expand;
use crate::zone::{Rrset, Zone};

use super::deferred::wall_clock;
use super::report::say;
use super::secondary::{exchange, random_id, soa_of};
use super::transfers::{Keeper, Kept};

/// How long each try of a NOTIFY waits (RFC 1996, 3.6).
const NOTIFY_TRIES: [Duration; 6] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(32),
];

impl Keeper {
    /// Tells everybody who is to be told; how many they are.
    pub fn notify_all(self: &Rc<Keeper>, kept: &Kept, zone: &Arc<Zone>) -> usize {
        let config = kept.config.borrow();
        let mut remotes = config.notify.clone();
        if config.notify_servers {
            let is_known = |address| remotes.iter().any(|remote| remote.address == address);
            let more: Vec<_> =
                self.servers_of(zone).into_iter().filter(|address| !is_known(*address)).collect();
            remotes.extend(more.into_iter().map(|address| Remote { address, key: None }));
        }
        let Some(soa) = soa_of(zone) else { return 0 };
        let (name, serial) = (zone.apex(), zone.serial());
        for remote in &remotes {
            let news = News { name: name.clone(), serial, soa: soa.clone() };
            let task = spawn_local(notify(Rc::clone(self), remote.clone(), news));
            // Who has not heard of the version before need not hear of it any more.
            let pending = (name.clone(), remote.clone());
            let before = self.telling.borrow_mut().insert(pending, task.abort_handle());
            if let Some(before) = before {
                before.abort();
            }
        }
        self.telling.borrow_mut().retain(|_, task| !task.is_finished());
        remotes.len()
    }

    /// The addresses of a zone's name servers, but for its primary (RFC 1996, 2.1), that are in
    /// zones served here.
    fn servers_of(&self, zone: &Zone) -> BTreeSet<SocketAddr> {
        const PORT: u16 = 53;
        let mut addresses = BTreeSet::new();
        let apex = zone.node(zone.apex_at());
        let Some(servers) = apex.rrset(rtype::NS) else { return addresses };
        let read = |rdata: &[u8]| {
            let mut name = LowerName::new();
            name.read(rdata).map(|_| name)
        };
        let primary = soa_of(zone).and_then(|soa| read(&soa));
        let zones = self.zones.borrow();
        for server in expand(servers, zone.lower_apex()) {
            let Some(name) = read(&server.rdata) else { continue };
            if primary.as_ref().is_some_and(|primary| primary.as_wire() == name.as_wire()) {
                continue;
            }
            for kept in zones.values() {
                let Some(zone) = kept.zone.borrow().clone() else { continue };
                let apex = zone.lower_apex();
                if name.depth() < apex.depth() || name.suffix(apex.depth()) != apex.as_wire() {
                    continue;
                }
                let found = zone.find(&name, name.depth(), self.hash_key.name(&name));
                let Some(node) = found.map(|at| zone.node(at)) else { continue };
                for rdata in node.rrset(rtype::A).into_iter().flat_map(Rrset::rdatas) {
                    let octets: Option<[u8; 4]> = rdata.try_into().ok();
                    addresses.extend(octets.map(|octets| SocketAddr::from((octets, PORT))));
                }
                for rdata in node.rrset(rtype::AAAA).into_iter().flat_map(Rrset::rdatas) {
                    let octets: Option<[u8; 16]> = rdata.try_into().ok();
                    addresses.extend(octets.map(|octets| SocketAddr::from((octets, PORT))));
                }
            }
        }
        addresses
    }
}

/// What is told. It does not hold the zone, which may be large and soon out of date.
struct News {
    name: Name,
    serial: u32,
    /// RDATA.
    soa: Vec<u8>,
}

/// Tells `remote` that a zone has changed, until it has heard.
async fn notify(keeper: Rc<Keeper>, remote: Remote, news: News) {
    let Ok(id) = random_id() else { return };
    let News { name, serial, soa } = news;
    let mut writer = Writer::new(id, Writer::flags_of(opcode::NOTIFY) | header::AA);
    writer.question(name.as_wire(), rtype::SOA, CLASS_IN);
    writer.record(Section::Answer, name.as_wire(), rtype::SOA, 0, &soa);
    let mut octets = writer.into_octets();
    let key = remote.key.as_ref().and_then(|key| keeper.keys.borrow().named(key).cloned());
    let session = key.map(|key| Session::request(&key, &mut octets, wall_clock()));
    let what = format!("zone {name}: NOTIFY of serial {serial} to {remote}");
    match exchange(remote.address, &octets, &NOTIFY_TRIES).await {
        Ok(Some(reply)) => {
            let Some(message) = Message::new(&reply) else { return };
            let checked = session.map(|mut session| session.check(message, wall_clock()));
            if let Some(Err(fault)) = checked {
                say!("{what}: the answer: {fault}");
            } else if message.rcode() != rcode::NOERROR {
                say!("{what}: it answered {}", rcode::name(message.rcode()));
            }
        }
        Ok(None) => say!("{what}: no answer"),
        Err(error) => say!("{what}: it {error}"),
    }
}
