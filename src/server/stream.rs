//! TCP: the same answers behind a length prefix (RFC 7766), bounded in every direction.
//!
//! ```text
//!   listener ──> admit ──> received: | len | query | len | que    (grows to one whole query)
//!                             │ every whole query, in order: answer_batch in the shared scratch
//!                             └─> replies: | len | reply | len | reply | ──> peer
//! ```
//!
//! One thread for all connections, beside the cores: fallback for truncated answers, not the way
//! to ask a million questions. A connection without a query costs its first kilobyte and no more.
//! When all places are taken, the connection that has been idle longest gives its place up
//! (RFC 7766, 6.2.3 allows closing idle ones at will); one that is being answered never does.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::{AbortHandle, LocalSet};
use tokio::time::{sleep, timeout};

use crate::answer::{CoreState, Exchange, Transport, Verdict, answer_batch};
use crate::limits::MESSAGE_SIZE_MAX;
use crate::memory::epoch::Reader;
use crate::policy::subscriber;
use crate::snapshot::Snapshot;
use crate::transfer::outgoing::{self, Outgoing};

use super::deferred::{Request, Response, Updating, respond, wall_clock};
use super::report::say;
use super::transfers::Told;

/// How long a peer may take to accept replies or to finish a query it has begun.
const PROGRESS: Duration = Duration::from_secs(5);
/// How long to rest when no descriptor is left, and between looks at the stop flag.
const PAUSE: Duration = Duration::from_millis(100);
/// How long connections that are being answered may go on after the stop.
const DRAIN: Duration = Duration::from_millis(500);
/// Octets a connection starts with: nearly every query is shorter.
const RECEIVE_LEN: usize = 1024;
/// Octets of replies collected before they are sent.
const REPLIES_LEN: usize = 64 << 10;

//----------- Limits and counters --------------------------------------------

/// Limits of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Connections at once.
    pub connections: usize,
    /// Of them, of one client: an IPv4 address, or a /64.
    pub connections_per_client: usize,
    /// How long a connection may be idle while there is room.
    pub idle: Duration,
    /// Queries of one connection; then it is closed.
    pub queries: u64,
}

impl StreamLimits {
    /// How long one of `open` connections may be idle: from half of the places on less and less,
    /// down to a quarter (RFC 7766, 6.2.3 lets a server that is short of places do so).
    fn idle_among(&self, open: usize) -> Duration {
        let half = self.connections / 2;
        let over = open.saturating_sub(half) as u32;
        let of = (self.connections - half).max(1) as u32;
        self.idle - self.idle * over.min(of) / of * 3 / 4
    }
}

/// What happened to connections: one writer, any number of readers.
#[derive(Default)]
pub struct StreamCounters {
    accepted: AtomicU64,
    queries: AtomicU64,
    idle_closed: AtomicU64,
    replaced: AtomicU64,
    refused_full: AtomicU64,
    refused_peer: AtomicU64,
    slow_closed: AtomicU64,
    accept_failed: AtomicU64,
    transfers: AtomicU64,
}

impl StreamCounters {
    /// Everything counted, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        [
            ("accepted", &self.accepted),
            ("queries", &self.queries),
            ("idle_closed", &self.idle_closed),
            ("replaced", &self.replaced),
            ("refused_full", &self.refused_full),
            ("refused_peer", &self.refused_peer),
            ("slow_closed", &self.slow_closed),
            ("accept_failed", &self.accept_failed),
            ("transfers", &self.transfers),
        ]
        .into_iter()
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

//----------- Places ---------------------------------------------------------

/// The connections that are open: how many each peer has, and which have been idle since when.
#[derive(Default)]
struct Places {
    open: HashMap<u64, Place>,
    peers: HashMap<IpAddr, usize>,
    /// From when a connection became idle, in turns, to its number: the first is the oldest.
    idle: BTreeMap<u64, u64>,
    turns: u64,
}

struct Place {
    peer: IpAddr,
    /// Its key in `idle`; `None` while a query of it is received or answered.
    idle: Option<u64>,
    task: Option<AbortHandle>,
}

impl Places {
    fn turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    fn take(&mut self, peer: IpAddr) -> u64 {
        let number = self.turn();
        *self.peers.entry(peer).or_default() += 1;
        self.open.insert(number, Place { peer, idle: None, task: None });
        self.set_idle(number, true);
        number
    }

    fn set_idle(&mut self, number: u64, idle: bool) {
        let turn = self.turn();
        let Some(place) = self.open.get_mut(&number) else { return };
        if let Some(since) = place.idle.take() {
            self.idle.remove(&since);
        }
        if idle {
            place.idle = Some(turn);
            self.idle.insert(turn, number);
        }
    }

    fn leave(&mut self, number: u64) -> Option<Place> {
        let place = self.open.remove(&number)?;
        if let Some(since) = place.idle {
            self.idle.remove(&since);
        }
        let count = self.peers.get_mut(&place.peer)?;
        *count -= 1;
        if *count == 0 {
            self.peers.remove(&place.peer);
        }
        Some(place)
    }

    /// Closes the connection that has been idle longest. `false` if none is idle.
    fn close_oldest_idle(&mut self) -> bool {
        let Some((_, &number)) = self.idle.first_key_value() else { return false };
        if let Some(task) = self.leave(number).and_then(|place| place.task) {
            task.abort();
        }
        true
    }
}

//----------- Serving --------------------------------------------------------

/// What all connections share: they take turns on one thread.
struct Shared {
    snapshot: RefCell<Reader<Snapshot>>,
    core: RefCell<CoreState>,
    scratch: RefCell<Box<[u8]>>,
    places: RefCell<Places>,
    counters: Arc<StreamCounters>,
    started: Instant,
    limits: StreamLimits,
    told: UnboundedSender<Told>,
}

/// Serves `listeners` until `stop` is set, then finishes what it has begun to answer.
pub fn run(
    listeners: Vec<std::net::TcpListener>,
    snapshot: Reader<Snapshot>,
    core: CoreState,
    limits: StreamLimits,
    counters: Arc<StreamCounters>,
    told: UnboundedSender<Told>,
    stop: &AtomicBool,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shared = Rc::new(Shared {
        snapshot: RefCell::new(snapshot),
        core: RefCell::new(core),
        scratch: RefCell::new(vec![0; MESSAGE_SIZE_MAX].into()),
        places: RefCell::default(),
        counters,
        started: Instant::now(),
        limits,
        told,
    });
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let mut accepting = Vec::new();
        for listener in listeners {
            let listener = TcpListener::from_std(listener)?;
            accepting.push(tokio::task::spawn_local(accept(listener, Rc::clone(&shared))));
        }
        while !stop.load(Ordering::Relaxed) {
            sleep(PAUSE).await;
        }
        accepting.iter().for_each(tokio::task::JoinHandle::abort);
        let end = Instant::now() + DRAIN;
        let answering = || {
            let places = shared.places.borrow();
            places.open.len() > places.idle.len()
        };
        while answering() && Instant::now() < end {
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    })
}

async fn accept(listener: TcpListener, shared: Rc<Shared>) {
    loop {
        let Ok((stream, address)) = listener.accept().await else {
            // Out of descriptors or memory: what is open goes on, the rest waits in the backlog.
            add(&shared.counters.accept_failed);
            sleep(PAUSE).await;
            continue;
        };
        let Some(number) = admit(&shared, subscriber(address.ip())) else { continue };
        add(&shared.counters.accepted);
        let of_task = Rc::clone(&shared);
        let task = tokio::task::spawn_local(async move {
            // Whatever ends a connection concerns only its peer.
            let _ = converse(stream, address.ip(), number, &of_task).await;
            of_task.places.borrow_mut().leave(number);
        });
        if let Some(place) = shared.places.borrow_mut().open.get_mut(&number) {
            place.task = Some(task.abort_handle());
        }
    }
}

/// A place for a connection of `peer`, if it may have one.
fn admit(shared: &Shared, peer: IpAddr) -> Option<u64> {
    let mut places = shared.places.borrow_mut();
    if places.peers.get(&peer).is_some_and(|&open| open >= shared.limits.connections_per_client) {
        add(&shared.counters.refused_peer);
        return None;
    }
    if places.open.len() >= shared.limits.connections {
        if !places.close_oldest_idle() {
            add(&shared.counters.refused_full);
            return None;
        }
        add(&shared.counters.replaced);
    }
    Some(places.take(peer))
}

//----------- One connection -------------------------------------------------

/// Answers one connection until it ends.
async fn converse(
    mut stream: TcpStream,
    peer: IpAddr,
    number: u64,
    shared: &Shared,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut received = vec![0; RECEIVE_LEN];
    let mut replies = Vec::new();
    let (mut len, mut left) = (0, shared.limits.queries);
    loop {
        // Idle is who owes nothing; who has begun a query has only so long to finish it.
        let began = len > 0;
        if began {
            timeout(PROGRESS, fill(&mut stream, &mut received, &mut len))
                .await
                .inspect_err(|_| add(&shared.counters.slow_closed))??;
        } else {
            let idle = shared.limits.idle_among(shared.places.borrow().open.len());
            let read = timeout(idle, stream.read(&mut received))
                .await
                .inspect_err(|_| add(&shared.counters.idle_closed))??;
            if read == 0 {
                return Ok(());
            }
            len = read;
            shared.places.borrow_mut().set_idle(number, false);
        }
        let mut at = 0;
        while let Some(query) = whole_query(&received[at..len]) {
            at += 2 + query.len();
            let Some(fewer) = left.checked_sub(1) else {
                return send(&mut stream, &mut replies, shared).await;
            };
            left = fewer;
            match answer(shared, query, peer, &mut replies) {
                Answered::Reply if replies.len() < REPLIES_LEN => {}
                Answered::Reply => send(&mut stream, &mut replies, shared).await?,
                Answered::Silence => return send(&mut stream, &mut replies, shared).await,
                Answered::Transfer(outgoing) => {
                    transfer(&mut stream, &mut replies, shared, *outgoing).await?;
                }
                Answered::Update(updating) => match updating.reply().await {
                    Some(reply) => append(&mut replies, &reply),
                    None => return Ok(()),
                },
            }
        }
        send(&mut stream, &mut replies, shared).await?;
        received.copy_within(at..len, 0);
        len -= at;
        if len == 0 {
            received.truncate(RECEIVE_LEN);
            received.shrink_to_fit();
            replies.shrink_to(RECEIVE_LEN);
            shared.places.borrow_mut().set_idle(number, true);
        }
    }
}

/// The first query of `octets`, if all of it is there.
fn whole_query(octets: &[u8]) -> Option<&[u8]> {
    let (prefix, rest) = octets.split_first_chunk::<2>()?;
    rest.get(..usize::from(u16::from_be_bytes(*prefix)))
}

/// Receives until the first query is whole.
async fn fill(stream: &mut TcpStream, received: &mut Vec<u8>, len: &mut usize) -> io::Result<()> {
    while whole_query(&received[..*len]).is_none() {
        if let Some(prefix) = received[..*len].first_chunk::<2>() {
            let needed = 2 + usize::from(u16::from_be_bytes(*prefix));
            if received.len() < needed {
                received.resize(needed, 0);
            }
        }
        let read = stream.read(&mut received[*len..]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        *len += read;
    }
    Ok(())
}

/// What became of one query.
enum Answered {
    /// The reply was appended.
    Reply,
    /// There is none: such a peer is not talked to further.
    Silence,
    /// The replies are still to be written.
    Transfer(Box<Outgoing>),
    /// The reply comes when the zone has been changed.
    Update(Box<Updating>),
}

/// Appends the reply to `query`.
fn answer(shared: &Shared, query: &[u8], peer: IpAddr, replies: &mut Vec<u8>) -> Answered {
    add(&shared.counters.queries);
    let mut scratch = shared.scratch.borrow_mut();
    scratch[..query.len()].copy_from_slice(query);
    let mut exchange = [Exchange {
        buffer: &mut scratch[..],
        query_len: query.len(),
        transport: Transport::Stream,
        verdict: Verdict::Reply(0),
    }];
    let mut snapshot = shared.snapshot.borrow_mut();
    let mut core = shared.core.borrow_mut();
    let (snapshot, elapsed) = (snapshot.pin(), shared.started.elapsed());
    answer_batch(&snapshot, elapsed, &mut core, &mut exchange);
    match exchange[0].verdict {
        Verdict::Reply(len) => append(replies, &scratch[..len]),
        Verdict::Drop(_) => return Answered::Silence,
        Verdict::Defer(_) => {
            let request = Request { octets: query, peer, transport: Transport::Stream };
            match respond(&snapshot, &mut core, elapsed, &request) {
                Response::Reply(reply) => append(replies, &reply),
                Response::Transfer(outgoing) => return Answered::Transfer(outgoing),
                Response::Notified(name, reply) => {
                    let _ = shared.told.send(Told::Notified(name, peer));
                    append(replies, &reply);
                }
                Response::Update(name, asked, updating) => {
                    let _ = shared.told.send(Told::Update(name, asked));
                    return Answered::Update(updating);
                }
                Response::Silence => return Answered::Silence,
            }
        }
    }
    Answered::Reply
}

fn append(replies: &mut Vec<u8>, message: &[u8]) {
    replies.extend((message.len() as u16).to_be_bytes());
    replies.extend(message);
}

/// Sends all messages of a transfer; the connection may ask for more afterwards.
async fn transfer(
    stream: &mut TcpStream,
    replies: &mut Vec<u8>,
    shared: &Shared,
    mut outgoing: Outgoing,
) -> io::Result<()> {
    add(&shared.counters.transfers);
    let started = Instant::now();
    let mut message = Vec::new();
    loop {
        match outgoing.next(&mut message, wall_clock()) {
            Ok(true) => {}
            Ok(false) => {
                send(stream, replies, shared).await?;
                say!(
                    "zone {}: serial {} sent to {}, {}: {} records in {} ms",
                    outgoing.zone().apex(),
                    outgoing.zone().serial(),
                    stream.peer_addr()?,
                    outgoing.way(),
                    outgoing.record_count,
                    started.elapsed().as_millis(),
                );
                return Ok(());
            }
            Err(outgoing::TooLarge) => {
                say!(
                    "zone {}: not transferred: a record of it is longer than a message",
                    outgoing.zone().apex()
                );
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        append(replies, &message);
        if replies.len() >= REPLIES_LEN {
            send(stream, replies, shared).await?;
        }
    }
}

async fn send(stream: &mut TcpStream, replies: &mut Vec<u8>, shared: &Shared) -> io::Result<()> {
    if !replies.is_empty() {
        timeout(PROGRESS, stream.write_all(replies))
            .await
            .inspect_err(|_| add(&shared.counters.slow_closed))??;
        replies.clear();
    }
    Ok(())
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_idle_place_is_given_up() {
        let mut places = Places::default();
        let peer = IpAddr::from([192, 0, 2, 1]);
        let [first, second, third] = [(); 3].map(|()| places.take(peer));
        places.set_idle(first, false);
        places.set_idle(second, false);
        places.set_idle(second, true);
        assert!(places.close_oldest_idle());
        assert!(!places.open.contains_key(&third), "idle since it came");
        assert!(places.close_oldest_idle());
        assert!(!places.open.contains_key(&second));
        assert!(!places.close_oldest_idle(), "the first is being answered");
        assert_eq!(places.peers[&peer], 1);
        places.leave(first);
        assert!(places.peers.is_empty() && places.idle.is_empty() && places.open.is_empty());
    }

    #[test]
    fn the_fuller_the_shorter() {
        let idle = Duration::from_secs(8);
        let limits = StreamLimits { connections: 10, connections_per_client: 10, idle, queries: 1 };
        let among = |open: usize| limits.idle_among(open).as_secs();
        assert_eq!([among(1), among(5), among(10), among(11)], [8, 8, 2, 2]);
        assert!(limits.idle_among(7) < limits.idle_among(6));
        let one = StreamLimits { connections: 1, ..limits };
        assert_eq!(one.idle_among(1), idle / 4);
    }

    #[test]
    fn queries_are_cut_at_their_lengths() {
        assert_eq!(whole_query(&[]), None);
        assert_eq!(whole_query(&[0]), None);
        assert_eq!(whole_query(&[0, 2, 7]), None);
        assert_eq!(whole_query(&[0, 2, 7, 8, 0]), Some(&[7, 8][..]));
        assert_eq!(whole_query(&[0, 0, 9]), Some(&[][..]));
    }
}
