//! One attempt to bring a zone up to date: ask a primary for its SOA, then for the zone.
//!
//! ```text
//!   SOA over UDP ──current──> done
//!        └──newer, or no answer──> IXFR over TCP ──does not apply──> AXFR ──> build ──> check
//! ```

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::limits::{
    MESSAGE_SIZE_MAX, TRANSFER_CONNECT_MAX, TRANSFER_GRACE_SECONDS, TRANSFER_MESSAGE_MAX,
    TRANSFER_RATE_MIN, TRANSFER_TIME_MAX,
};
use crate::policy::Remote;
use crate::transfer::incoming::{self, Brought, Fault, Incoming};
use crate::tsig::{Key, Keys, Session};
use crate::wire::message::{CLASS_IN, Message, RecordAt, Section, Writer, header, opcode};
use crate::wire::{rcode, rtype};
use crate::zone::change::{Change, diff};
use crate::zone::intake::{expanded, soa_numbers};
use crate::zone::records::expand;
use crate::zone::{HashKey, LoadOptions, Loaded, Zone, changed};

use super::connections::{self, Connection, Connections};
use super::is_wanted;
use crate::server::config::ZoneConfig;
use crate::server::report::say;
use crate::server::stream::deferred::wall_clock;

/// How long each try over UDP waits for an answer.
const UDP_TRIES: [Duration; 3] =
    [Duration::from_millis(700), Duration::from_millis(1500), Duration::from_secs(3)];
/// Diagnostics of one zone that go to the log.
const LOGGED_MAX: usize = 20;

/// What an attempt found.
pub enum Found {
    /// The zone is what the primary has.
    Current,
    /// The primary has an older one.
    Older,
    /// A newer version, which may be served.
    Newer(Newer),
}

/// A newer version of a zone.
pub struct Newer {
    /// The version.
    pub zone: Arc<Zone>,
    /// What led to it from the version there was.
    pub changes: Vec<Arc<Change>>,
    /// Whether the changes were sent, and not found by comparing.
    pub in_steps: bool,
}

/// What an attempt needs to know.
#[derive(Clone)]
pub struct Wanted {
    /// The zone's configuration.
    pub config: Arc<ZoneConfig>,
    /// The version there is.
    pub zone: Option<Arc<Zone>>,
    /// All keys.
    pub keys: Arc<Keys>,
    /// The secret that names are hashed with.
    pub hash_key: HashKey,
    /// Threads that build.
    pub threads: usize,
    /// Where candidates are written for the command that checks them.
    pub state: PathBuf,
}

impl Wanted {
    fn options(&self) -> LoadOptions {
        LoadOptions {
            key: self.hash_key,
            threads: self.threads,
            nsec3_iterations_max: self.config.nsec3_iterations_max,
        }
    }

    fn key_of(&self, remote: &Remote) -> Result<Option<Key>, String> {
        let Some(name) = &remote.key else { return Ok(None) };
        let key = self.keys.named(name).cloned();
        key.map(Some).ok_or_else(|| format!("cannot be asked: no [[key]] is named {name}"))
    }
}

/// A random ID: whoever does not see the question must guess it.
pub fn random_id() -> Result<u16, String> {
    let mut octets = [0; 2];
    SystemRandom::new()
        .fill(&mut octets)
        .map_err(|_| "the system has no random numbers".to_string())?;
    Ok(u16::from_be_bytes(octets))
}

/// Asks `remote`; the error says what it did wrong.
pub async fn attempt(
    wanted: &Wanted,
    remote: &Remote,
    connections: &Connections,
) -> Result<Found, String> {
    if let Some(zone) = &wanted.zone {
        // Without an answer over UDP, TCP is tried all the same.
        if let Some(serial) = serial_at(wanted, remote).await? {
            let ahead = serial.wrapping_sub(zone.serial()) as i32;
            match ahead {
                0 => return Ok(Found::Current),
                ..0 => return Ok(Found::Older),
                1.. => {}
            }
        }
        match transfer(wanted, remote, connections, true).await {
            Ok(found) => return Ok(found),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::NotInSteps(reason)) => {
                say!("zone {}: {remote} {reason}: asking for the whole zone", wanted.config.name);
            }
        }
    }
    transfer(wanted, remote, connections, false).await.map_err(|failure| match failure {
        Failure::Final(error) | Failure::NotInSteps(error) => error,
    })
}

//----------- SOA ------------------------------------------------------------

/// The serial that `remote` has; `None` if it does not say so over UDP.
async fn serial_at(wanted: &Wanted, remote: &Remote) -> Result<Option<u32>, String> {
    let id = random_id()?;
    let mut writer = Writer::new(id, Writer::flags_of(opcode::QUERY));
    writer.question(wanted.config.name.as_wire(), rtype::SOA, CLASS_IN);
    let mut query = writer.into_octets();
    let key = wanted.key_of(remote)?;
    let mut session = key.map(|key| Session::request(&key, &mut query, wall_clock()));
    let Some(reply) = exchange(remote.address, &query, &UDP_TRIES).await? else { return Ok(None) };
    let Some(message) = Message::new(&reply) else { return Ok(None) };
    if let Some(session) = &mut session {
        match session.check(message, wall_clock()) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(fault) => return Err(format!("answered for the SOA, but {fault}")),
        }
    }
    // Who gives a catalog need not answer questions about it: a transfer will tell.
    if message.rcode() == rcode::REFUSED {
        return Ok(None);
    }
    if message.rcode() != rcode::NOERROR {
        return Err(format!("answered {} for the SOA", rcode::name(message.rcode())));
    }
    if message.flags() & header::TC != 0 {
        return Ok(None);
    }
    if message.flags() & header::AA == 0 {
        return Err("is not authoritative for the zone".into());
    }
    let records = message.records().map_err(|_| "sent an answer that cannot be read")?;
    let mut owner = Vec::new();
    let mut is_ours = |record: &RecordAt| {
        owner.clear();
        record.section == Section::Answer
            && (record.rtype, record.class) == (rtype::SOA, CLASS_IN)
            && message.expand(record.at, &mut owner).is_ok()
            && owner.eq_ignore_ascii_case(wanted.config.name.as_wire())
    };
    let soa = records.map_while(Result::ok).find(|record| is_ours(record));
    let rdata = soa.and_then(|soa| expanded(rtype::SOA, message.octets(), soa.rdata));
    let numbers = rdata.and_then(|rdata| soa_numbers(&rdata));
    numbers.map(|numbers| Some(numbers[0])).ok_or_else(|| "has no SOA for the zone".into())
}

/// Sends `query` until an answer with its ID comes; `None` if none does.
pub async fn exchange(
    address: SocketAddr,
    query: &[u8],
    tries: &[Duration],
) -> Result<Option<Vec<u8>>, String> {
    let failed = |error: std::io::Error| format!("cannot be reached over UDP: {error}");
    let any: SocketAddr = if address.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    // A socket of its own: its port is as hard to guess as the ID.
    let socket = UdpSocket::bind(any).await.map_err(failed)?;
    socket.connect(address).await.map_err(failed)?;
    let mut reply = vec![0; MESSAGE_SIZE_MAX];
    for &wait in tries {
        // Refused by the peer's kernel, perhaps: it may be up for the next try.
        if socket.send(query).await.is_err() {
            tokio::time::sleep(wait).await;
            continue;
        }
        let answered = timeout(wait, async {
            loop {
                let len = match socket.recv(&mut reply).await {
                    Ok(len) => len,
                    Err(_) => {
                        tokio::time::sleep(wait).await;
                        continue;
                    }
                };
                let is_ours = len >= 12 && reply[..2] == query[..2] && reply[2] & 0x80 != 0;
                if is_ours {
                    return len;
                }
            }
        });
        if let Ok(len) = answered.await {
            reply.truncate(len);
            return Ok(Some(reply));
        }
    }
    Ok(None)
}

//----------- Transfer -------------------------------------------------------

enum Failure {
    /// The primary is no good.
    Final(String),
    /// Changes cannot be had, or do not apply: the whole zone may still be.
    NotInSteps(String),
}

impl From<String> for Failure {
    fn from(error: String) -> Failure {
        Failure::Final(error)
    }
}

async fn transfer(
    wanted: &Wanted,
    remote: &Remote,
    connections: &Connections,
    in_steps: bool,
) -> Result<Found, Failure> {
    let closed = |_| Failure::Final("is not asked: the server ends".into());
    let slot = connections.slots.acquire().await.map_err(closed)?;
    let within = timeout(TRANSFER_TIME_MAX, receive(wanted, remote, connections, in_steps));
    let brought = within.await.map_err(|_| {
        format!("took longer than {} minutes for a transfer", TRANSFER_TIME_MAX.as_secs() / 60)
    })??;
    let source = format!("{remote}");
    let found = if is_small(wanted, &brought) {
        finish(wanted, brought, &source)?
    } else {
        let wanted = wanted.clone();
        let built = spawn_blocking(move || finish(&wanted, brought, &source)).await;
        built.map_err(|_| Failure::Final("sent something that could not be built".into()))??
    };
    drop(slot);
    let Some(check) = wanted.config.check.clone() else { return Ok(found) };
    if let Found::Newer(newer) = &found {
        let _place = connections.checks.acquire().await.map_err(closed)?;
        let (zone, state) = (Arc::clone(&newer.zone), wanted.state.clone());
        let answer = spawn_blocking(move || check.ask(&state, &zone)).await;
        let answer = answer.unwrap_or_else(|_| Err("the check ended without an answer".into()));
        answer.map_err(|reason| {
            let reason = format!("sent serial {}, refused: {reason}", newer.zone.serial());
            // If changes have led astray the whole zone may be good.
            if newer.in_steps { Failure::NotInSteps(reason) } else { Failure::Final(reason) }
        })?;
    }
    Ok(found)
}

/// Whether it is built before another thread would have begun.
fn is_small(wanted: &Wanted, brought: &Brought) -> bool {
    const RECORDS_MAX: usize = 200;
    let before = wanted.zone.as_ref().map_or(0, |zone| zone.record_count());
    let more = match brought {
        Brought::Nothing => 0,
        Brought::Whole(intake) => intake.record_count() as usize,
        Brought::Changes(changes) => {
            changes.iter().map(|change| change.deleted.len() + change.added.len()).sum()
        }
    };
    before + more <= RECORDS_MAX
}

async fn receive(
    wanted: &Wanted,
    remote: &Remote,
    connections: &Connections,
    in_steps: bool,
) -> Result<Brought, Failure> {
    let id = random_id()?;
    let base = wanted.zone.as_ref().filter(|_| in_steps);
    let soa = base.and_then(|zone| soa_of(zone));
    let mut request = incoming::request(id, &wanted.config.name, soa.as_deref());
    let key = wanted.key_of(remote)?;
    let session = key.map(|key| Session::request(&key, &mut request, wall_clock()));
    let serial = base.map(|zone| zone.serial());
    let options = wanted.options();
    let octets_max = wanted.config.transfer_size_max;
    let asked = incoming::Request { id, serial, octets_max };
    let mut incoming = Incoming::new(&wanted.config.name, asked, session, &options);
    let mut framed = (request.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(&request);
    let (mut message, started) = (Vec::new(), Instant::now());
    let mut connection = begin(remote, connections, &framed, &mut message).await?;
    let mut octets = message.len() as u64;
    loop {
        let seconds = started.elapsed().as_secs();
        if seconds >= TRANSFER_GRACE_SECONDS && octets < seconds * TRANSFER_RATE_MIN {
            return Err(format!("sends less than {TRANSFER_RATE_MIN} octets a second").into());
        }
        match incoming.message(&message, wall_clock()) {
            Ok(true) => {
                connections.keep(remote.address, connection);
                return Ok(incoming.finish());
            }
            Ok(false) => {}
            Err(fault) => return Err(failure(&fault, in_steps)),
        }
        next_message(&mut connection, &mut message).await?;
        octets += message.len() as u64;
    }
}

/// Sends a request and reads the first message that answers it. A connection that has served
/// another transfer may have been closed since: then there is a new one.
async fn begin(
    remote: &Remote,
    connections: &Connections,
    framed: &[u8],
    message: &mut Vec<u8>,
) -> Result<Connection, String> {
    if let Some(mut used) = connections.take(remote.address)
        && used.get_mut().write_all(framed).await.is_ok()
        && next_message(&mut used, message).await.is_ok()
    {
        return Ok(used);
    }
    let connect = timeout(TRANSFER_CONNECT_MAX, TcpStream::connect(remote.address)).await;
    let stream = match connect {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(format!("cannot be reached over TCP: {error}")),
        Err(_) => return Err("does not answer over TCP".to_string()),
    };
    // Without it a request on a used connection waits for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let mut fresh = connections::fresh(stream);
    fresh.get_mut().write_all(framed).await.map_err(lost)?;
    next_message(&mut fresh, message).await?;
    Ok(fresh)
}

async fn next_message(connection: &mut Connection, message: &mut Vec<u8>) -> Result<(), String> {
    let read = async {
        let len = usize::from(connection.read_u16().await?);
        message.resize(len, 0);
        connection.read_exact(message).await
    };
    match timeout(TRANSFER_MESSAGE_MAX, read).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(lost(error)),
        Err(_) => Err(format!("sent no whole message for {} s", TRANSFER_MESSAGE_MAX.as_secs())),
    }
}

fn lost(error: std::io::Error) -> String {
    format!("closed the connection: {error}")
}

fn failure(fault: &Fault, in_steps: bool) -> Failure {
    let known = [rcode::FORMERR, rcode::SERVFAIL, rcode::NOTIMP, rcode::REFUSED];
    match fault {
        // RFC 1995, 4: whoever does not know IXFR says so, and is asked for AXFR.
        Fault::Refused(code) if in_steps && known.contains(code) => {
            Failure::NotInSteps(fault.to_string())
        }
        Fault::Serials | Fault::Record(..) | Fault::Malformed if in_steps => {
            Failure::NotInSteps(fault.to_string())
        }
        _ => Failure::Final(fault.to_string()),
    }
}

/// The RDATA of the zone's SOA.
pub fn soa_of(zone: &Zone) -> Option<Vec<u8>> {
    let soa = zone.node(zone.apex_at()).rrset(rtype::SOA)?;
    expand(soa, &zone.lower_apex()).into_iter().next().map(|record| record.rdata)
}

/// Builds and checks what a transfer brought.
fn finish(wanted: &Wanted, brought: Brought, source: &str) -> Result<Found, Failure> {
    let options = wanted.options();
    let misfit = |misfit| Failure::NotInSteps(format!("sent changes that do not fit: {misfit}"));
    let (loaded, mut changes): (Loaded, Vec<Change>) = match (brought, &wanted.zone) {
        (Brought::Nothing, _) => return Ok(Found::Current),
        (Brought::Whole(intake), _) => (intake.finish(source, &options), Vec::new()),
        (Brought::Changes(changes), Some(zone)) => {
            (changed(zone, &changes, source, &options).map_err(misfit)?, changes)
        }
        (Brought::Changes(_), None) => {
            return Err(Failure::Final("sent changes to a zone that is not there".into()));
        }
    };
    let in_steps = !changes.is_empty();
    // If changes lead astray the whole zone may be good.
    let bad = |reason: String| {
        if in_steps { Failure::NotInSteps(reason) } else { Failure::Final(reason) }
    };
    let name = &wanted.config.name;
    for found in loaded.diagnostics.iter().take(LOGGED_MAX) {
        say!("zone {name}: {found}");
    }
    let Some(zone) = loaded.zone else { return Err(bad("sent a zone with errors".into())) };
    if let Some(before) = &wanted.zone {
        let ahead = zone.serial().wrapping_sub(before.serial()) as i32;
        if ahead < 0 {
            return Err(bad(format!(
                "sent serial {}, which is older than {}",
                zone.serial(),
                before.serial()
            )));
        }
        if ahead == 0 {
            return Ok(Found::Current);
        }
    }
    if !is_wanted(&zone, wanted.zone.as_deref(), &wanted.config, wanted.threads) {
        return Err(bad("sent a zone that the configuration does not let serve".into()));
    }
    if let (Some(before), false) = (&wanted.zone, in_steps) {
        changes.push(diff(before, &zone, wanted.hash_key));
    }
    let changes = changes.into_iter().map(Arc::new).collect();
    Ok(Found::Newer(Newer { zone: Arc::new(zone), changes, in_steps }))
}
