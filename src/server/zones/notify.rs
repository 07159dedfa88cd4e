//! NOTIFY out (RFC 1996): who is to hear of a new serial, until they have.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_local;

use crate::limits::NOTIFY_PER_PEER_MAX;
use crate::policy::Remote;
use crate::tsig::Session;
use crate::wire::message::{CLASS_IN, Message, Section, Writer, header, opcode};
use crate::wire::{LowerName, Name, rcode, rtype};
use crate::zone::records::expand;
use crate::zone::{Rrset, Zone};

use super::lanes::Lanes;
use super::secondary::{exchange, random_id, soa_of};
use super::transfers::{Keeper, Kept};
use crate::server::report::say;
use crate::server::stream::deferred::wall_clock;

/// How long each try of a NOTIFY waits (RFC 1996, 3.6).
const NOTIFY_TRIES: [Duration; 6] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(32),
];

/// Which peers are to be told of which zones: each peer of some at once, the rest in turn.
pub struct Telling {
    /// The newest that there is to tell.
    news: RefCell<HashMap<(Name, Remote), Rc<News>>>,
    lanes: RefCell<Lanes<SocketAddr, (Name, Remote)>>,
}

impl Default for Telling {
    fn default() -> Telling {
        let lanes = RefCell::new(Lanes::new(NOTIFY_PER_PEER_MAX));
        Telling { news: RefCell::default(), lanes }
    }
}

impl Telling {
    /// Nobody need hear of these zones any more.
    pub fn forget(&self, names: &HashSet<Name>) {
        let mut news = self.news.borrow_mut();
        if !news.is_empty() && !names.is_empty() {
            news.retain(|(told, _), _| !names.contains(told));
        }
    }
}

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
        if remotes.is_empty() {
            return 0;
        }
        let Some(soa) = soa_of(zone) else { return 0 };
        let (name, serial) = (zone.apex(), zone.serial());
        let news = Rc::new(News { name: name.clone(), serial, soa });
        for remote in &remotes {
            let (address, whom) = (remote.address, (name.clone(), remote.clone()));
            // Who is being told of the version before hears of this one next.
            let before = self.telling.news.borrow_mut().insert(whom.clone(), Rc::clone(&news));
            if before.is_none()
                && let Some(whom) = self.telling.lanes.borrow_mut().enter(address, whom)
            {
                spawn_local(tell(Rc::clone(self), whom));
            }
        }
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
        for server in expand(servers, &zone.lower_apex()) {
            let Some(name) = read(&server.rdata) else { continue };
            if primary.as_ref().is_some_and(|primary| primary.as_wire() == name.as_wire()) {
                continue;
            }
            // The zone with the longest apex.
            let above = (0..=name.depth()).rev().map(|depth| name.suffix(depth));
            let zone = above
                .filter_map(|apex| zones.get(&Name::from_wire(apex).ok()?))
                .find_map(|kept| kept.zone.borrow().clone());
            let Some(zone) = zone else { continue };
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

/// Tells a peer of a zone, then has it told of the next.
async fn tell(keeper: Rc<Keeper>, whom: (Name, Remote)) {
    let address = whom.1.address;
    loop {
        let Some(news) = keeper.telling.news.borrow().get(&whom).cloned() else { break };
        notify(&keeper, &whom, &news).await;
        let mut all = keeper.telling.news.borrow_mut();
        if all.get(&whom).is_none_or(|newest| Rc::ptr_eq(newest, &news)) {
            all.remove(&whom);
            break;
        }
    }
    if let Some(next) = keeper.telling.lanes.borrow_mut().leave(address) {
        spawn_local(tell(Rc::clone(&keeper), next));
    }
}

/// Tells a peer that a zone has changed, until it has heard or there is newer to tell.
async fn notify(keeper: &Rc<Keeper>, whom: &(Name, Remote), news: &Rc<News>) {
    let Ok(id) = random_id() else { return };
    let (News { name, serial, soa }, remote) = (&**news, &whom.1);
    let mut writer = Writer::new(id, Writer::flags_of(opcode::NOTIFY) | header::AA);
    writer.question(name.as_wire(), rtype::SOA, CLASS_IN);
    writer.record(Section::Answer, name.as_wire(), rtype::SOA, 0, soa);
    let mut octets = writer.into_octets();
    let key = remote.key.as_ref().and_then(|key| keeper.keys.borrow().named(key).cloned());
    let session = key.map(|key| Session::request(&key, &mut octets, wall_clock()));
    let what = format!("zone {name}: NOTIFY of serial {serial} to {remote}");
    let is_newest = || {
        let all = keeper.telling.news.borrow();
        all.get(whom).is_some_and(|newest| Rc::ptr_eq(newest, news))
    };
    for wait in NOTIFY_TRIES {
        match exchange(remote.address, &octets, &[wait]).await {
            Ok(Some(reply)) => {
                let Some(message) = Message::new(&reply) else { return };
                let checked = session.map(|mut session| session.check(message, wall_clock()));
                if let Some(Err(fault)) = checked {
                    say!("{what}: the answer: {fault}");
                } else if message.rcode() != rcode::NOERROR {
                    say!("{what}: it answered {}", rcode::name(message.rcode()));
                }
                return;
            }
            Ok(None) if !is_newest() => return,
            Ok(None) => {}
            Err(error) => {
                say!("{what}: it {error}");
                return;
            }
        }
    }
    say!("{what}: no answer");
}
