//! TCP: the same answers behind a length prefix (RFC 7766), bounded in every direction.
//!
//! ```text
//!   listener ──> admit ──> received: | len | query | len | query | len | que    one buffer for all
//!                             │ every whole query, in batches: answer_batch           │
//!                             └─> replies: | len | reply | len | reply | ──> peer     │
//!                                    │ what the peer does not take yet                │
//!   of each connection:              └─> queued               partial: the rest <─────┘
//! ```
//!
//! Threads beside the cores take turns with their connections. Between turns a connection owns what
//! it was left with, a part of a query or replies that its peer does not take, and no more: an idle
//! one has no buffers. `places.rs` says who may wait for what and how long, and who gives its place
//! up when all are taken.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::ready;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::task::{LocalSet, yield_now};
use tokio::time::sleep;

use crate::answer::{
    CoreState, Exchange, Misses as Mode, Ticket, Transport, Verdict, answer_batch,
};
use crate::limits::{BATCH_COUNT_MAX, MESSAGE_SIZE_MAX};
use crate::memory::epoch::Reader;
use crate::policy::{mapped, subscriber};
use crate::snapshot::Snapshot;
use crate::transfer::outgoing::{self, Outgoing};

use super::forwarding::misses::{Back, Miss, Misses};
use super::report::say;
use super::worker::ask_anew;
use super::zones::transfers::Told;
use deferred::{Request, Response, Updating, respond, wall_clock};
use places::{Number, Places, Refused, Wait};

pub mod deferred;
pub mod places;

/// How long to rest when no descriptor is left, and between looks at the stop flag and at who is
/// Queries of a connection that wait for answers from elsewhere, before the next are looked at.
const WAITING_MAX: usize = 16;
/// late.
const PAUSE: Duration = Duration::from_millis(100);
/// Without anything to do for so long after the stop, all that was received is answered.
const QUIET: Duration = Duration::from_millis(10);
/// How long connections that are being answered may go on after the stop.
const DRAIN: Duration = Duration::from_millis(500);
/// Octets of a message with its length.
const FRAME_LEN_MAX: usize = 2 + MESSAGE_SIZE_MAX;
/// Octets received at once from one connection, unless its query is longer.
const RECEIVE_LEN: usize = 16 << 10;
const _: () = assert!(RECEIVE_LEN <= FRAME_LEN_MAX);
/// Octets of replies collected before they are written.
const WRITE_LEN: usize = 64 << 10;
/// From one exchange's buffer to the next: the largest reply, and an odd number of cache lines, so
/// that the first ones of all do not share a set.
const SLOT_LEN: usize = MESSAGE_SIZE_MAX.next_multiple_of(64) + 17 * 64;

//----------- Counters -------------------------------------------------------

/// What happened to connections: one writer, any number of readers.
#[derive(Default)]
pub struct StreamCounters {
    accepted: AtomicU64,
    queries: AtomicU64,
    idle_closed: AtomicU64,
    slow_closed: AtomicU64,
    replaced_idle: AtomicU64,
    replaced_slow: AtomicU64,
    refused_full: AtomicU64,
    refused_peer: AtomicU64,
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
            ("slow_closed", &self.slow_closed),
            ("replaced_idle", &self.replaced_idle),
            ("replaced_slow", &self.replaced_slow),
            ("refused_full", &self.refused_full),
            ("refused_peer", &self.refused_peer),
            ("accept_failed", &self.accept_failed),
            ("transfers", &self.transfers),
        ]
        .into_iter()
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

//----------- Serving --------------------------------------------------------

/// What the thread's connections share: they take turns.
struct Shared {
    snapshot: RefCell<Reader<Snapshot>>,
    core: RefCell<CoreState>,
    /// What was received in this turn.
    received: RefCell<Box<[u8]>>,
    /// Queries, then their replies, each in a slot of its own.
    slots: RefCell<Box<[u8]>>,
    /// Replies of this turn.
    replies: RefCell<Vec<u8>>,
    places: Arc<Places>,
    counters: Arc<StreamCounters>,
    started: Instant,
    told: UnboundedSender<Told>,
    misses: Option<Arc<Misses>>,
    stopping: Cell<bool>,
}

impl Shared {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

/// What one thread needs.
pub struct Service {
    /// Where its connections come from; other threads may accept from them as well.
    pub listeners: Vec<std::net::TcpListener>,
    /// What it answers from.
    pub snapshot: Reader<Snapshot>,
    /// What it answers with.
    pub core: CoreState,
    /// The connections of all threads.
    pub places: Arc<Places>,
    /// When time began for them.
    pub started: Instant,
    /// What happened to its own connections.
    pub counters: Arc<StreamCounters>,
    /// Who is told of changes of zones.
    pub told: UnboundedSender<Told>,
    /// For what is asked elsewhere, if anything is.
    pub misses: Option<Arc<Misses>>,
}

/// Serves until `stop` is set, then answers what was received.
pub fn run(service: Service, stop: &AtomicBool) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let Service { listeners, snapshot, core, places, started, counters, told, misses } = service;
    let shared = Rc::new(Shared {
        snapshot: RefCell::new(snapshot),
        core: RefCell::new(core),
        received: RefCell::new(vec![0; FRAME_LEN_MAX].into()),
        slots: RefCell::new(vec![0; SLOT_LEN * BATCH_COUNT_MAX].into()),
        replies: RefCell::new(Vec::with_capacity(WRITE_LEN + FRAME_LEN_MAX)),
        places,
        counters,
        started,
        told,
        misses,
        stopping: Cell::new(false),
    });
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let mut accepting = Vec::new();
        for listener in listeners {
            prepare(&listener, shared.places.limits().queued)?;
            let listener = TcpListener::from_std(listener)?;
            accepting.push(tokio::task::spawn_local(accept(listener, Rc::clone(&shared))));
        }
        while !stop.load(Ordering::Relaxed) {
            sleep(PAUSE).await;
            close_late(&shared);
        }
        shared.stopping.set(true);
        let end = shared.now() + DRAIN;
        let done = || {
            let counts = [&shared.counters.accepted, &shared.counters.queries];
            counts.map(|count| count.load(Ordering::Relaxed))
        };
        loop {
            let before = done();
            sleep(QUIET).await;
            let is_quiet = done() == before && !shared.places.is_owing();
            if is_quiet || shared.now() >= end {
                return Ok(());
            }
        }
    })
}

/// Sets what connections inherit: replies leave at once, and the kernel takes no more of them ahead
/// of the peer's window than may wait here.
fn prepare(listener: &std::net::TcpListener, queued: usize) -> io::Result<()> {
    let socket = SockRef::from(listener);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(u32::try_from(queued).unwrap_or(u32::MAX))
}

/// Closes whose time is over.
fn close_late(shared: &Shared) {
    let [idle, rest, reader, _] = shared.places.close_late(shared.now());
    add(&shared.counters.idle_closed, idle);
    add(&shared.counters.slow_closed, rest + reader);
}

async fn accept(listener: TcpListener, shared: Rc<Shared>) {
    loop {
        let Ok((stream, address)) = listener.accept().await else {
            // Out of descriptors or memory: what is open goes on, the rest waits in the backlog.
            add(&shared.counters.accept_failed, 1);
            sleep(PAUSE).await;
            continue;
        };
        let admitted = shared.places.admit(subscriber(address.ip()), shared.now());
        let (number, replaced) = match admitted {
            Ok(admitted) => admitted,
            Err(Refused::Peer) => {
                add(&shared.counters.refused_peer, 1);
                continue;
            }
            Err(Refused::Full) => {
                add(&shared.counters.refused_full, 1);
                continue;
            }
        };
        add(&shared.counters.accepted, 1);
        match replaced {
            Some(Wait::Query) => add(&shared.counters.replaced_idle, 1),
            Some(Wait::Rest | Wait::Reader) => add(&shared.counters.replaced_slow, 1),
            Some(Wait::Answer) | None => {}
        }
        let connection = Connection::new(stream, address.ip(), number, Rc::clone(&shared));
        let task = tokio::task::spawn_local(async move {
            let shared = Rc::clone(&connection.shared);
            // Whatever ends a connection concerns only its peer.
            let _ = connection.converse().await;
            shared.places.leave(number);
        });
        shared.places.set_task(number, task.abort_handle());
    }
}

//----------- Connection -----------------------------------------------------

struct Connection {
    stream: TcpStream,
    peer: IpAddr,
    number: Number,
    shared: Rc<Shared>,
    /// The beginning of a query; whole queries too while replies are queued.
    partial: Vec<u8>,
    /// Replies that the peer has not taken.
    queued: Vec<u8>,
    /// Replies that come from elsewhere, in the order of their queries.
    waiting: Vec<oneshot::Receiver<Vec<u8>>>,
    /// Whether it has the place of one that waits for the rest of a query.
    is_begun: bool,
    /// Queries that it may still ask.
    left: u64,
    /// Queries answered at once: fewer for who does not take so many replies.
    batch_count: usize,
}

/// What follows a turn.
enum Next {
    /// More queries.
    Receive,
    /// Those that are there already, once the peer has taken what is queued and others had a turn.
    Send,
    /// A transfer.
    Transfer(Box<Outgoing>),
    /// The reply to an update, which comes when the zone has been changed.
    Update(Box<Updating>),
    /// An orderly end: replies are still on their way.
    End,
    /// Such a peer is not talked to further.
    Close,
}

impl Connection {
    fn new(stream: TcpStream, peer: IpAddr, number: Number, shared: Rc<Shared>) -> Connection {
        let left = shared.places.limits().queries;
        let (partial, queued) = (Vec::new(), Vec::new());
        let (is_begun, batch_count) = (false, BATCH_COUNT_MAX);
        let waiting = Vec::new();
        Connection {
            stream,
            peer,
            number,
            shared,
            partial,
            queued,
            waiting,
            is_begun,
            left,
            batch_count,
        }
    }

    fn wait_for(&mut self, wait: Wait) {
        self.is_begun = wait == Wait::Rest;
        self.shared.places.set(self.number, wait, self.shared.now());
    }

    /// Answers until it ends.
    async fn converse(mut self) -> io::Result<()> {
        loop {
            let len = if whole_query(&self.partial).is_some() {
                self.take_partial()
            } else {
                match self.receive().await? {
                    0 => return Ok(()),
                    len => len,
                }
            };
            let next = self.answer_all(len)?;
            self.flush().await?;
            self.await_replies().await?;
            match next {
                Next::Receive if self.shared.stopping.get() && self.partial.is_empty() => {
                    return self.end().await;
                }
                Next::Receive => {}
                Next::Send => yield_now().await,
                Next::Transfer(outgoing) => self.transfer(*outgoing).await?,
                Next::Update(updating) => self.update(*updating).await?,
                Next::End => return self.end().await,
                Next::Close => return Ok(()),
            }
            if self.partial.is_empty() {
                // Idle, it has no buffers.
                self.partial = Vec::new();
                self.wait_for(Wait::Query);
            } else if !self.is_begun {
                self.wait_for(Wait::Rest);
            }
        }
    }

    /// Moves what is there into the shared buffer.
    fn take_partial(&mut self) -> usize {
        let len = self.partial.len();
        self.shared.received.borrow_mut()[..len].copy_from_slice(&self.partial);
        self.partial.clear();
        len
    }

    /// Receives what is there, or waits for it; what came before precedes it in the shared buffer.
    /// 0 at the end.
    async fn receive(&mut self) -> io::Result<usize> {
        let held = self.partial.len();
        let needed = match self.partial.first_chunk::<2>() {
            Some(prefix) => 2 + usize::from(u16::from_be_bytes(*prefix)),
            None => 2,
        };
        let (stream, shared) = (&mut self.stream, &self.shared);
        let read = poll_fn(|context| {
            let mut received = shared.received.borrow_mut();
            let mut buffer = ReadBuf::new(&mut received[held..needed.max(RECEIVE_LEN)]);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
            std::task::Poll::Ready(io::Result::Ok(buffer.filled().len()))
        })
        .await?;
        if read == 0 {
            return Ok(0);
        }
        Ok(self.take_partial() + read)
    }

    /// Answers the whole queries of the `len` octets received, and keeps the rest.
    fn answer_all(&mut self, len: usize) -> io::Result<Next> {
        let shared = Rc::clone(&self.shared);
        let received = &shared.received.borrow()[..len];
        let mut replies = shared.replies.borrow_mut();
        replies.clear();
        let mut at = 0;
        let next = loop {
            let count_max = self.batch_count.min(usize::try_from(self.left).unwrap_or(usize::MAX));
            let queries = whole_queries(received, at, count_max);
            if queries.is_empty() {
                break if self.left == 0 { Next::End } else { Next::Receive };
            }
            let (answered, next) = self.answer_batch(received, &queries, &mut replies)?;
            at = queries[answered - 1].end;
            self.left -= answered as u64;
            add(&shared.counters.queries, answered as u64);
            if let Some(next) = next {
                break next;
            }
        };
        self.write(&mut replies)?;
        self.queued.extend_from_slice(&replies);
        self.partial.extend_from_slice(&received[at..]);
        // Octet by octet a query takes no longer: it began once.
        self.is_begun &= at == 0;
        Ok(next)
    }

    /// Answers `queries` and appends the replies, as long as the peer takes them. Returns how many
    /// were answered, at least one, and what follows if it is not the next batch.
    fn answer_batch(
        &mut self,
        received: &[u8],
        queries: &[Range<usize>],
        replies: &mut Vec<u8>,
    ) -> io::Result<(usize, Option<Next>)> {
        let shared = Rc::clone(&self.shared);
        let limits = shared.places.limits();
        let idle = if shared.stopping.get() { 0 } else { limits.keepalive(shared.places.open()) };
        let transport = Transport::Stream { idle };
        let client = mapped(self.peer);
        let mut slots = shared.slots.borrow_mut();
        let mut exchanges = ArrayVec::<Exchange<'_>, BATCH_COUNT_MAX>::new();
        for (query, slot) in queries.iter().zip(slots.chunks_exact_mut(SLOT_LEN)) {
            let query = &received[query.clone()];
            slot[..query.len()].copy_from_slice(query);
            let (buffer, verdict) = (&mut slot[..MESSAGE_SIZE_MAX], Verdict::Reply(0));
            let query_len = query.len();
            exchanges.push(Exchange { buffer, query_len, transport, client, verdict });
        }
        let mut snapshot = shared.snapshot.borrow_mut();
        let mut core = shared.core.borrow_mut();
        let (snapshot, now) = (snapshot.pin(), shared.now());
        answer_batch(&snapshot, now, &mut core, &mut exchanges);
        if let Some(misses) = &shared.misses {
            ask_anew(misses, &mut core, &exchanges);
        }
        let mut next = None;
        for (i, exchange) in exchanges.iter_mut().enumerate() {
            if matches!(exchange.verdict, Verdict::Defer(Ticket::Resolve))
                && !self.resolve(exchange, (idle, client))
            {
                // There is no room for one more question.
                core.misses = Mode::Settle;
                answer_batch(&snapshot, now, &mut core, std::slice::from_mut(exchange));
                core.misses = Mode::Defer;
            }
            match exchange.verdict {
                Verdict::Reply(len) => append(replies, &exchange.buffer[..len]),
                Verdict::Drop(_) => return Ok((i + 1, Some(Next::Close))),
                Verdict::Defer(Ticket::Resolve) if self.waiting.len() >= WAITING_MAX => {
                    // Those that wait come first; the rest of the batch is answered again.
                    self.batch_count = i + 1;
                    return Ok((i + 1, Some(Next::Send)));
                }
                Verdict::Defer(Ticket::Resolve) => {}
                Verdict::Defer(_) => {
                    let octets = &received[queries[i].clone()];
                    let request = Request { octets, peer: self.peer, transport };
                    match respond(&snapshot, &mut core, now, &request) {
                        Response::Reply(reply) => append(replies, &reply),
                        Response::Transfer(outgoing) => {
                            return Ok((i + 1, Some(Next::Transfer(outgoing))));
                        }
                        Response::Notified(name, reply) => {
                            let _ = shared.told.send(Told::Notified(name, self.peer));
                            append(replies, &reply);
                        }
                        Response::Update(name, asked, updating) => {
                            let _ = shared.told.send(Told::Update(name, asked));
                            return Ok((i + 1, Some(Next::Update(updating))));
                        }
                        Response::Silence => return Ok((i + 1, Some(Next::Close))),
                    }
                }
            }
            if replies.len() >= limits.queued.min(WRITE_LEN) {
                // So large a batch is the last of its turn: others want theirs.
                next = Some(Next::Send);
                self.write(replies)?;
                if replies.len() >= limits.queued {
                    // What is left of the batch is answered again, from the queries.
                    self.batch_count = i + 1;
                    return Ok((i + 1, next));
                }
            }
        }
        self.batch_count = (self.batch_count * 2).min(BATCH_COUNT_MAX);
        Ok((queries.len(), next))
    }

    /// Hands over what is to be asked elsewhere; `false` if there is no room for it.
    fn resolve(&mut self, exchange: &Exchange<'_>, (idle, client): (u16, u128)) -> bool {
        let Some(misses) = self.shared.misses.as_ref().filter(|misses| misses.room() > 0) else {
            return false;
        };
        let (reply, receiver) = oneshot::channel();
        let back = Back::Stream { idle, client, reply };
        let miss = Miss::new(&exchange.buffer[..exchange.query_len], back);
        let is_taken = miss.is_some_and(|miss| misses.push(miss));
        if is_taken {
            misses.wake();
            self.waiting.push(receiver);
        }
        is_taken
    }

    /// Sends the replies that come from elsewhere.
    async fn await_replies(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.wait_for(Wait::Answer);
        for receiver in std::mem::take(&mut self.waiting) {
            // Whoever was to answer is gone.
            let reply = receiver.await.map_err(|_| io::ErrorKind::BrokenPipe)?;
            append(&mut self.queued, &reply);
            if self.queued.len() >= self.shared.places.limits().queued {
                self.flush().await?;
            }
        }
        self.flush().await
    }

    /// Writes as much of `replies` as the peer takes now; the rest stays.
    fn write(&self, replies: &mut Vec<u8>) -> io::Result<()> {
        let mut at = 0;
        while at < replies.len() {
            match self.stream.try_write(&replies[at..]) {
                Ok(written) => at += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        replies.drain(..at);
        Ok(())
    }

    /// Waits until the peer has taken what is queued.
    async fn flush(&mut self) -> io::Result<()> {
        if self.queued.is_empty() {
            return Ok(());
        }
        self.wait_for(Wait::Reader);
        self.stream.write_all(&self.queued).await?;
        self.queued = Vec::new();
        Ok(())
    }

    /// Sends the reply to an update when it is known.
    async fn update(&mut self, updating: Updating) -> io::Result<()> {
        self.wait_for(Wait::Answer);
        let reply = updating.reply().await.ok_or(io::ErrorKind::InvalidData)?;
        append(&mut self.queued, &reply);
        self.flush().await
    }

    /// Sends all messages of a transfer; the connection may ask for more afterwards.
    async fn transfer(&mut self, mut outgoing: Outgoing) -> io::Result<()> {
        let shared = Rc::clone(&self.shared);
        add(&shared.counters.transfers, 1);
        let started = Instant::now();
        let mut message = Vec::new();
        loop {
            match outgoing.next(&mut message, wall_clock()) {
                Ok(true) => append(&mut self.queued, &message),
                Ok(false) => break,
                Err(outgoing::TooLarge) => {
                    say!(
                        "zone {}: not transferred: a record of it is longer than a message",
                        outgoing.zone().apex()
                    );
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
            if self.queued.len() >= shared.places.limits().queued {
                self.wait_for(Wait::Reader);
                self.stream.write_all(&self.queued).await?;
                self.queued.clear();
            }
        }
        self.flush().await?;
        say!(
            "zone {}: serial {} sent to {}, {}: {} records in {} ms",
            outgoing.zone().apex(),
            outgoing.zone().serial(),
            self.stream.peer_addr()?,
            outgoing.way(),
            outgoing.record_count,
            started.elapsed().as_millis(),
        );
        Ok(())
    }

    /// Ends the connection so that the peer gets all replies: what it still sends is taken, for a
    /// reset would overtake them.
    async fn end(mut self) -> io::Result<()> {
        self.wait_for(Wait::Rest);
        self.stream.shutdown().await?;
        loop {
            self.partial.clear();
            if self.receive().await? == 0 {
                return Ok(());
            }
        }
    }
}

/// The first query of `octets`, if all of it is there.
fn whole_query(octets: &[u8]) -> Option<&[u8]> {
    let (prefix, rest) = octets.split_first_chunk::<2>()?;
    rest.get(..usize::from(u16::from_be_bytes(*prefix)))
}

/// Where the first whole queries of `octets` from `at` on lie, at most `count_max`.
fn whole_queries(
    octets: &[u8],
    mut at: usize,
    count_max: usize,
) -> ArrayVec<Range<usize>, BATCH_COUNT_MAX> {
    let mut queries = ArrayVec::new();
    while queries.len() < count_max
        && let Some(query) = whole_query(&octets[at..])
    {
        let start = at + 2;
        at = start + query.len();
        queries.push(start..at);
    }
    queries
}

fn append(replies: &mut Vec<u8>, message: &[u8]) {
    replies.extend((message.len() as u16).to_be_bytes());
    replies.extend_from_slice(message);
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_cut_at_their_lengths() {
        assert_eq!(whole_query(&[]), None);
        assert_eq!(whole_query(&[0]), None);
        assert_eq!(whole_query(&[0, 2, 7]), None);
        assert_eq!(whole_query(&[0, 2, 7, 8, 0]), Some(&[7, 8][..]));
        assert_eq!(whole_query(&[0, 0, 9]), Some(&[][..]));
        let octets = [9, 0, 1, 7, 0, 0, 0, 2, 8, 9, 0, 1];
        assert_eq!(whole_queries(&octets, 1, 64).as_slice(), [3..4, 6..6, 8..10]);
        assert_eq!(whole_queries(&octets, 1, 2).as_slice(), [3..4, 6..6]);
        assert!(whole_queries(&octets, 10, 64).is_empty());
    }
}
