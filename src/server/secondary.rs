//! One attempt to bring a zone up to date: ask a primary for its SOA, then for the zone.
//!
//! ```text
//!   SOA over UDP ──current──> done
//!        └──newer, or no answer──> IXFR over TCP ──does not apply──> AXFR ──> build ──> check
//! ```

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::limits::{
    CHECKS_MAX, MESSAGE_SIZE_MAX, TRANSFER_CONNECT_MAX, TRANSFER_GRACE_SECONDS,
    TRANSFER_MESSAGE_MAX, TRANSFER_RATE_MIN, TRANSFER_TIME_MAX, TRANSFERS_FROM_ONE_MAX,
    TRANSFERS_IN_MAX,
};
use crate::policy::Remote;
use crate::transfer::incoming::{self, Brought, Fault, Incoming};
use crate::tsig::{Key, Keys, Session};
use crate::wire::message::{CLASS_IN, Message, RecordAt, Section, Writer, header, opcode};
use crate::wire::{rcode, rtype};
use crate::zone::change::{Change, apply, diff};
use crate::zone::intake::{Intake, expanded, soa_numbers};
use crate::zone::records::expand;
use crate::zone::{HashKey, LoadOptions, Zone};

use super::config::ZoneConfig;
use super::deferred::wall_clock;
use super::report::say;
use super::zones::is_wanted;

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

/// How many attempts may be in each of their phases at once.
pub struct Slots {
    transfers: Semaphore,
    checks: Semaphore,
    /// Those primaries that zones come from now.
    primaries: RefCell<HashMap<IpAddr, Rc<Semaphore>>>,
}

impl Default for Slots {
    fn default() -> Slots {
        Slots {
            transfers: Semaphore::new(TRANSFERS_IN_MAX),
            checks: Semaphore::new(CHECKS_MAX),
            primaries: RefCell::default(),
        }
    }
}

impl Slots {
    /// The places of one primary, which are dropped when nobody has or wants one.
    fn of(&self, primary: IpAddr) -> Rc<Semaphore> {
        let mut primaries = self.primaries.borrow_mut();
        primaries.retain(|_, places| Rc::strong_count(places) > 1);
        let places = || Rc::new(Semaphore::new(TRANSFERS_FROM_ONE_MAX));
        Rc::clone(primaries.entry(primary).or_insert_with(places))
    }
}

async fn place(places: &Semaphore) -> Result<SemaphorePermit<'_>, String> {
    places.acquire().await.map_err(|_| "is not asked: the server ends".into())
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
pub async fn attempt(wanted: &Wanted, remote: &Remote, slots: &Slots) -> Result<Found, String> {
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
        match transfer(wanted, remote, slots, true).await {
            Ok(found) => return Ok(found),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::NotInSteps(reason)) => {
                say!("zone {}: {remote} {reason}: asking for the whole zone", wanted.config.name);
            }
        }
    }
    transfer(wanted, remote, slots, false).await.map_err(|failure| match failure {
        Failure::Final(error) | Failure::NotInSteps(error) => error,
    })
}

//----------- SOA ------------------------------------------------------------

/// The serial that `remote` has; `None` if it does not answer over UDP.
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
    slots: &Slots,
    in_steps: bool,
) -> Result<Found, Failure> {
    // Whoever waits for a slow primary takes no place from others.
    let places = slots.of(remote.address.ip());
    let from_primary = place(&places).await?;
    let of_all = place(&slots.transfers).await?;
    let within = timeout(TRANSFER_TIME_MAX, receive(wanted, remote, in_steps));
    let brought = within.await.map_err(|_| {
        format!("took longer than {} minutes for a transfer", TRANSFER_TIME_MAX.as_secs() / 60)
    })??;
    drop(from_primary);
    let (of_finish, source) = (wanted.clone(), format!("{remote}"));
    let built = spawn_blocking(move || finish(&of_finish, brought, &source)).await;
    let found =
        built.map_err(|_| Failure::Final("sent something that could not be built".into()))??;
    drop(of_all);
    if let (Found::Newer(newer), Some(check)) = (&found, &wanted.config.check) {
        let _place = place(&slots.checks).await?;
        let (check, zone, state) =
            (Arc::clone(check), Arc::clone(&newer.zone), wanted.state.clone());
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

async fn receive(wanted: &Wanted, remote: &Remote, in_steps: bool) -> Result<Brought, Failure> {
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
    let connect = timeout(TRANSFER_CONNECT_MAX, TcpStream::connect(remote.address)).await;
    let mut stream = match connect {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(format!("cannot be reached over TCP: {error}").into()),
        Err(_) => return Err("does not answer over TCP".to_string().into()),
    };
    let mut framed = (request.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(&request);
    let lost = |error: std::io::Error| format!("closed the connection: {error}");
    stream.write_all(&framed).await.map_err(lost)?;
    let mut buffered = tokio::io::BufReader::with_capacity(1 << 16, stream);
    let (mut message, mut octets, started) = (Vec::new(), 0, Instant::now());
    loop {
        let read = async {
            let len = usize::from(buffered.read_u16().await?);
            message.resize(len, 0);
            buffered.read_exact(&mut message).await
        };
        match timeout(TRANSFER_MESSAGE_MAX, read).await {
            Ok(Ok(len)) => octets += len as u64,
            Ok(Err(error)) => return Err(lost(error).into()),
            Err(_) => {
                let seconds = TRANSFER_MESSAGE_MAX.as_secs();
                return Err(format!("sent no whole message for {seconds} s").into());
            }
        }
        let seconds = started.elapsed().as_secs();
        if seconds >= TRANSFER_GRACE_SECONDS && octets < seconds * TRANSFER_RATE_MIN {
            return Err(format!("sends less than {TRANSFER_RATE_MIN} octets a second").into());
        }
        match incoming.message(&message, wall_clock()) {
            Ok(true) => return Ok(incoming.finish()),
            Ok(false) => {}
            Err(fault) => return Err(failure(&fault, in_steps)),
        }
    }
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
    expand(soa, zone.lower_apex()).into_iter().next().map(|record| record.rdata)
}

/// Builds and checks what a transfer brought.
fn finish(wanted: &Wanted, brought: Brought, source: &str) -> Result<Found, Failure> {
    let options = wanted.options();
    let misfit = |misfit| Failure::NotInSteps(format!("sent changes that do not fit: {misfit}"));
    let (intake, mut changes): (Intake, Vec<Change>) = match (brought, &wanted.zone) {
        (Brought::Nothing, _) => return Ok(Found::Current),
        (Brought::Whole(intake), _) => (*intake, Vec::new()),
        (Brought::Changes(changes), Some(zone)) => {
            (apply(zone, &changes, &options).map_err(misfit)?, changes)
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
    let loaded = intake.finish(source, &options);
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
    if !is_wanted(&zone, &wanted.config, wanted.threads) {
        return Err(bad("sent a zone that the configuration does not let serve".into()));
    }
    if let (Some(before), false) = (&wanted.zone, in_steps) {
        changes.push(diff(before, &zone, wanted.hash_key));
    }
    let changes = changes.into_iter().map(Arc::new).collect();
    Ok(Found::Newer(Newer { zone: Arc::new(zone), changes, in_steps }))
}
