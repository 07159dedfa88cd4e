//! Queries to upstreams from ports that nobody can guess: bytes in, bytes out.
//!
//! ```text
//!   queue(upstream, exchange, octets)                      one of the upstream's ports and an ID,
//!        │                                                 both drawn for this query
//!        v
//!   stratum   |  0   |  1   |  2   | ...  | n-1  |         1024 ..= 65535, cut into n equal parts
//!   port        1031   1047   1060   ...   65530           one in each, drawn; connected
//!                        │
//!                        └─ after its queries or its time: another port of the stratum takes its
//!                           place; it closes when the last of its queries has ended
//!
//!   receive ──> (exchange, octets)                         of the right socket, with the right ID
//! ```
//!
//! A port is drawn in a part of the range of its own, so that those in use lie evenly over all of
//! it: drawn without that, chance would leave them in clusters that last as long as they do, and
//! the queries with them. Of a single query nothing is known that would not be otherwise. A query
//! is identified by its address, its port and its ID; what else comes is counted and reaches
//! nobody.

mod draw;
mod open;
mod polled;
mod records;
#[cfg(test)]
mod tests;
mod uring;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use self::open::Opener;
use self::polled::PolledPorts;
use self::records::Records;
use self::uring::UringPorts;
use super::{QUERY_LEN_MAX, QUEUE_COUNT_MAX, Waker, now_ns};

pub use self::draw::Draw;

/// The ports of all upstreams, unless configured.
pub const PORTS_DEFAULT: usize = 4096;
/// The ports of one upstream, however many upstreams there are.
pub const PORTS_PER_UPSTREAM_MIN: usize = 256;
/// Queries on one port at once: its replies are told apart by a walk over them.
const PORT_QUERIES_MAX: u32 = 256;
/// Draws for one query before it is said that there is no room.
const DRAWS_MAX: usize = 16;
/// Ports replaced in one turn without queries: there are five a second then, in which ports grow
/// old all the same.
const TURN_REPLACED_MAX: usize = 8;
/// And in one with queries, of which a port has many more than a turn: each takes a dozen system
/// calls' time from those who wait.
const BUSY_TURN_REPLACED_MAX: usize = 1;
/// Ports opened in one turn where there are none.
const TURN_FILLED_MAX: usize = 64;
/// Ports whose age is looked at in one turn.
const TURN_SWEPT_MAX: usize = 16;
/// How long to rest when a port could not be opened.
const RETRY_NS: u64 = 1_000_000_000;
/// Queries that are remembered after they have been abandoned.
const LATE_COUNT: usize = 4096;
const NONE: u32 = u32::MAX;

/// A place for a socket.
type Slot = u32;

//----------- Seam -----------------------------------------------------------

/// What happens on the sockets.
enum Event<'a> {
    /// A datagram of the connected peer.
    Datagram { slot: Slot, octets: &'a [u8] },
    /// One that is longer than a reply may be.
    Oversized,
    /// The peer, or somebody on the way to it, does not want an earlier datagram.
    Refused { slot: Slot },
    /// The kernel did not take a query.
    Unsent { slot: Slot, id: u16 },
    /// The slot is free again.
    Closed { slot: Slot },
}

/// Sockets that come and go, by slot.
trait Ports {
    /// Puts a socket into a free slot.
    fn open(&mut self, slot: Slot, socket: UdpSocket) -> io::Result<()>;
    /// Frees a slot: [`Event::Closed`] says when.
    fn close(&mut self, slot: Slot, take: &mut dyn FnMut(Event<'_>)) -> io::Result<()>;
    /// Takes a query to be sent with `id`; there is room, and it is no longer than it may be.
    fn queue(&mut self, slot: Slot, id: u16, octets: &[u8]);
    /// Queries that wait to be sent.
    fn queued(&self) -> usize;
    /// Sends them, without waiting.
    fn flush(&mut self, take: &mut dyn FnMut(Event<'_>)) -> io::Result<()>;
    /// Hands out what has happened, without waiting.
    fn receive(&mut self, take: &mut dyn FnMut(Event<'_>)) -> io::Result<()>;
    /// Waits until something may have happened, the waker was called, or `timeout` has passed.
    fn wait(&mut self, timeout: Duration) -> io::Result<()>;
    /// Datagrams that the kernel dropped because a socket was full.
    fn drops(&self) -> u64;
}

//----------- Options --------------------------------------------------------

/// What carries the datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// io_uring.
    Uring,
    /// epoll, for machines that forbid io_uring.
    Polled,
}

/// How a pool is to be.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Ports of all upstreams, shared evenly.
    pub ports: usize,
    /// Queries of a port before another takes its place; each port has its own number around this.
    pub port_queries: u32,
    /// How long a port is used, as above.
    pub port_age: Duration,
    /// Queries in flight at once.
    pub in_flight_max: usize,
    /// Where queries come from, if that matters; upstreams of the other family are not concerned.
    pub sources: Vec<IpAddr>,
    /// Ports that are never used.
    pub avoid: Vec<u16>,
    /// Descriptors that are left to the rest of the process.
    pub descriptors_spared: usize,
    /// What ends its wait, if there is one already: of a pool whose place it takes.
    pub waker: Option<Waker>,
}

impl Default for PoolOptions {
    fn default() -> PoolOptions {
        PoolOptions {
            ports: PORTS_DEFAULT,
            port_queries: 256,
            port_age: Duration::from_secs(120),
            in_flight_max: 1 << 16,
            sources: Vec::new(),
            avoid: Vec::new(),
            descriptors_spared: 1024,
            waker: None,
        }
    }
}

/// There are fewer ports than were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// That were asked for, by the options and the number of upstreams.
    pub wanted: usize,
    /// That there are.
    pub opened: usize,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shortage { wanted, opened } = self;
        write!(
            f,
            "queries to upstreams leave from {opened} ports instead of {wanted}, which makes forging \
             replies easier: the limit of open files is too low (raise LimitNOFILE= or ulimit -n)"
        )
    }
}

/// Why a query was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unqueued {
    /// The batch is full: flush, then try again.
    BatchFull,
    /// No port of this upstream is free, or too much is in flight.
    NoRoom,
    /// Longer than [`QUERY_LEN_MAX`], or no message.
    Length,
}

/// How a query ends, or what comes for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival<'a> {
    /// From the address, on the port and with the ID that it has; whether it is its reply, the
    /// caller says. The ID is the one drawn.
    Reply(&'a [u8]),
    /// The peer, or somebody on the way to it, does not want it.
    Refused,
    /// The kernel did not take it.
    Unsent,
}

/// What has happened, each since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolCounters {
    /// Queries queued.
    pub queued: u64,
    /// Replies that were taken.
    pub replies: u64,
    /// Datagrams that belong to no query,
    pub unmatched: u64,
    /// and to one that was abandoned, as far as it is remembered.
    pub late: u64,
    /// Datagrams that the caller did not take as replies.
    pub declined: u64,
    /// Datagrams that were longer than a reply may be.
    pub oversized: u64,
    /// Queries that were refused.
    pub refused: u64,
    /// Queries that the kernel did not take.
    pub unsent: u64,
    /// Sockets opened.
    pub opened: u64,
    /// Sockets closed.
    pub closed: u64,
    /// Sockets that could not be opened.
    pub unopened: u64,
}

//----------- PortPool -------------------------------------------------------

/// The ports of all upstreams. Made, used and dropped on one thread.
pub struct PortPool {
    ports: Box<dyn Ports>,
    state: State,
    opener: Opener,
    waker: Waker,
    shortage: Option<Shortage>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Free,
    /// Takes queries.
    Live,
    /// Waits for the last of its queries.
    Leaving,
    /// Closes.
    Closing,
}

struct Place {
    phase: Phase,
    upstream: u32,
    stratum: u32,
    port: u16,
    /// The first of its queries in flight.
    first: u32,
    in_flight: u32,
    queries_left: u32,
    until_ns: u64,
    is_due: bool,
}

/// What is known of places and queries.
struct State {
    places: Vec<Place>,
    free: Vec<Slot>,
    /// For each upstream, the live place of each stratum, or none.
    live: Vec<Vec<Slot>>,
    records: Records,
    /// Live places to be replaced.
    due: VecDeque<Slot>,
    /// Places to be closed.
    ending: Vec<Slot>,
    /// Queries that have ended without a reply.
    failed: VecDeque<(u64, bool)>,
    late: Box<[u64]>,
    counters: PoolCounters,
    holes: usize,
    swept: usize,
    /// When a port of each upstream may be opened again, after it could not.
    retry_ns: Vec<u64>,
}

impl PortPool {
    /// Opens the ports of `upstreams`. Call it on the thread that will use them.
    pub fn new(upstreams: &[SocketAddr], options: PoolOptions, way: Way) -> io::Result<PortPool> {
        PortPool::with_draw(upstreams, options, way, Draw::new()?)
    }

    /// As [`PortPool::new`], with a generator of the caller's.
    pub fn with_draw(
        upstreams: &[SocketAddr],
        mut options: PoolOptions,
        way: Way,
        draw: Draw,
    ) -> io::Result<PortPool> {
        let each = options.ports / upstreams.len().max(1);
        // Where half of the range is taken, drawing goes on well.
        let each_max = open::RANGE_COUNT / 2 / upstreams.len().max(1);
        let each = each.max(PORTS_PER_UPSTREAM_MIN).min(each_max);
        let wanted = if upstreams.is_empty() { 0 } else { each };
        let in_flight_max = options.in_flight_max;
        let waker = options.waker.take().map_or_else(Waker::new, Ok)?;
        let mut opener = Opener::new(upstreams, options, draw);
        let (each, opened) = opener.open_all(wanted)?;
        let count = each * upstreams.len();
        // Those that wait for their last query have successors already.
        let slots = count + (count / 4).max(64);
        let ports: Box<dyn Ports> = match way {
            Way::Uring => Box::new(UringPorts::new(slots, waker.clone())?),
            Way::Polled => Box::new(PolledPorts::new(slots, waker.clone())?),
        };
        let shortage = (each < wanted)
            .then_some(Shortage { wanted: wanted * upstreams.len(), opened: opened.len() });
        let state = State::new(upstreams.len(), each, slots, in_flight_max);
        let mut pool = PortPool { ports, state, opener, waker, shortage };
        for (upstream, stratum, socket) in opened {
            pool.put(upstream, stratum, socket)?;
        }
        pool.flush()?;
        Ok(pool)
    }

    /// Whether, and by how much, there are fewer ports than were wanted.
    pub fn shortage(&self) -> Option<Shortage> {
        self.shortage
    }

    /// What ends [`PortPool::wait`] from other threads.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// What has happened.
    pub fn counters(&self) -> PoolCounters {
        self.state.counters
    }

    /// Datagrams that the kernel dropped because a port's buffer was full, on those that are open.
    pub fn drops(&self) -> u64 {
        self.ports.drops()
    }

    /// Queries in flight.
    pub fn in_flight(&self) -> usize {
        self.state.records.len()
    }

    /// Takes a query for [`PortPool::flush`] to send to `upstream`, from a port and with an ID that
    /// are drawn for it; what comes back comes under `exchange`, a number that is in flight once.
    #[inline]
    pub fn queue(&mut self, upstream: usize, exchange: u64, octets: &[u8]) -> Result<(), Unqueued> {
        if !(2..=QUERY_LEN_MAX).contains(&octets.len()) {
            return Err(Unqueued::Length);
        }
        if self.ports.queued() == QUEUE_COUNT_MAX {
            return Err(Unqueued::BatchFull);
        }
        let (slot, id) = self.draw(upstream).ok_or(Unqueued::NoRoom)?;
        let state = &mut self.state;
        if !state.records.add(exchange, slot, id, &mut state.places[slot as usize].first) {
            return Err(Unqueued::NoRoom);
        }
        let place = &mut state.places[slot as usize];
        place.in_flight += 1;
        place.queries_left = place.queries_left.saturating_sub(1);
        if place.queries_left == 0 {
            state.make_due(slot);
        }
        state.counters.queued += 1;
        self.ports.queue(slot, id, octets);
        Ok(())
    }

    /// A port and an ID that are not in flight together.
    #[inline]
    fn draw(&mut self, upstream: usize) -> Option<(Slot, u16)> {
        let live = self.state.live.get(upstream)?;
        for _ in 0..DRAWS_MAX {
            let draw = &mut self.opener.draw;
            let slot = *live.get(draw.below(live.len() as u32) as usize)?;
            let id = draw.bits() as u16;
            if slot == NONE {
                continue;
            }
            let place = &self.state.places[slot as usize];
            let is_free = place.in_flight < PORT_QUERIES_MAX
                && self.state.records.find(place.first, id).is_none();
            if is_free {
                return Some((slot, id));
            }
        }
        None
    }

    /// Sends what is queued without waiting, and replaces a few of the ports whose time is over.
    /// Call it now and then even if nothing is queued.
    pub fn flush(&mut self) -> io::Result<()> {
        let PortPool { ports, state, .. } = self;
        let is_busy = ports.queued() > 0;
        ports.flush(&mut |event| state.note(&event))?;
        let now_ns = now_ns();
        self.state.sweep(now_ns);
        self.replace(now_ns, if is_busy { BUSY_TURN_REPLACED_MAX } else { TURN_REPLACED_MAX });
        self.fill(now_ns);
        let PortPool { ports, state, .. } = self;
        while let Some(slot) = state.ending.pop() {
            ports.close(slot, &mut |event| state.note(&event))?;
        }
        Ok(())
    }

    /// Hands out what has come, without waiting: `take` says of a reply whether it is one. If not,
    /// its query is still in flight. Returns how often it was called.
    pub fn receive(&mut self, take: &mut dyn FnMut(u64, Arrival<'_>) -> bool) -> io::Result<usize> {
        let PortPool { ports, state, .. } = self;
        let mut count = 0;
        ports.receive(&mut |event| match event {
            Event::Datagram { slot, octets } => count += state.datagram(slot, octets, take),
            event => state.note(&event),
        })?;
        while let Some((exchange, is_refused)) = self.state.failed.pop_front() {
            take(exchange, if is_refused { Arrival::Refused } else { Arrival::Unsent });
            count += 1;
        }
        Ok(count)
    }

    /// Waits until something may have come, [`Waker::wake`] was called, or `timeout` has passed.
    /// Then comes [`PortPool::receive`], and then whatever the waker was called for.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        if !self.state.failed.is_empty() { Ok(()) } else { self.ports.wait(timeout) }
    }

    /// Its reply is not waited for any more; returns whether it was.
    pub fn abandon(&mut self, exchange: u64) -> bool {
        let Some(index) = self.state.records.of(exchange) else { return false };
        let key = self.state.records.key(index);
        self.state.late[late_at(key)] = key;
        self.state.end(index);
        true
    }

    //--- Ports

    /// Makes a socket the live one of its stratum; returns its place.
    fn put(&mut self, upstream: u32, stratum: u32, socket: UdpSocket) -> io::Result<()> {
        let port = socket.local_addr()?.port();
        let Some(slot) = self.state.free.pop() else {
            return Err(io::ErrorKind::QuotaExceeded.into());
        };
        if let Err(error) = self.ports.open(slot, socket) {
            self.state.free.push(slot);
            return Err(error);
        }
        let (queries_left, until_ns) = self.opener.lifetime(now_ns());
        self.state.places[slot as usize] = Place {
            phase: Phase::Live,
            upstream,
            stratum,
            port,
            first: NONE,
            in_flight: 0,
            queries_left,
            until_ns,
            is_due: false,
        };
        let live = &mut self.state.live[upstream as usize][stratum as usize];
        let before = std::mem::replace(live, slot);
        self.state.counters.opened += 1;
        if before == NONE {
            self.state.holes -= 1;
        } else {
            self.state.leave(before);
        }
        Ok(())
    }

    /// Opens a port in a stratum; the one that is there makes room for it.
    fn renew(&mut self, upstream: u32, stratum: u32, now_ns: u64) -> bool {
        let strata = self.state.live[upstream as usize].len();
        let opened = self.opener.open(upstream as usize, stratum as usize, strata);
        let is_put = opened.and_then(|socket| self.put(upstream, stratum, socket)).is_ok();
        if !is_put {
            self.state.counters.unopened += 1;
            self.state.retry_ns[upstream as usize] = now_ns + RETRY_NS;
        }
        is_put
    }

    fn replace(&mut self, now_ns: u64, count_max: usize) {
        let mut left = count_max;
        for _ in 0..TURN_REPLACED_MAX {
            // Without a free place, those that leave have to go first.
            if left == 0 || self.state.free.is_empty() {
                return;
            }
            let Some(slot) = self.state.due.pop_front() else { return };
            let Place { phase, upstream, stratum, .. } = self.state.places[slot as usize];
            let may = now_ns >= self.state.retry_ns[upstream as usize];
            if phase == Phase::Live && may && self.renew(upstream, stratum, now_ns) {
                left -= 1;
            } else if phase == Phase::Live {
                // It goes on, until another can be opened.
                self.state.due.push_back(slot);
            }
        }
    }

    fn fill(&mut self, now_ns: u64) {
        let mut left = TURN_FILLED_MAX;
        if self.state.holes == 0 {
            return;
        }
        for upstream in 0..self.state.live.len() {
            for stratum in 0..self.state.live[upstream].len() {
                // One upstream that cannot be reached is no reason to leave out others.
                if left == 0 || now_ns < self.state.retry_ns[upstream] {
                    break;
                }
                if self.state.live[upstream][stratum] == NONE {
                    left -= 1;
                    self.renew(upstream as u32, stratum as u32, now_ns);
                }
            }
        }
    }

    /// The ports that take queries of `upstream`.
    pub fn live_ports(&self, upstream: usize) -> Vec<u16> {
        let live = self.state.live[upstream].iter().filter(|slot| **slot != NONE);
        live.map(|slot| self.state.places[*slot as usize].port).collect()
    }
}

//----------- State ----------------------------------------------------------

fn late_at(key: u64) -> usize {
    (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 52) as usize % LATE_COUNT
}

impl State {
    fn new(upstreams: usize, strata: usize, slots: usize, in_flight_max: usize) -> State {
        let place = || Place {
            phase: Phase::Free,
            upstream: 0,
            stratum: 0,
            port: 0,
            first: NONE,
            in_flight: 0,
            queries_left: 0,
            until_ns: 0,
            is_due: false,
        };
        State {
            places: (0..slots).map(|_| place()).collect(),
            free: (0..slots as Slot).rev().collect(),
            live: vec![vec![NONE; strata]; upstreams],
            records: Records::new(in_flight_max),
            due: VecDeque::with_capacity(slots),
            ending: Vec::with_capacity(slots),
            failed: VecDeque::with_capacity(1024),
            late: vec![0; LATE_COUNT].into(),
            counters: PoolCounters::default(),
            holes: upstreams * strata,
            swept: 0,
            retry_ns: vec![0; upstreams],
        }
    }

    fn make_due(&mut self, slot: Slot) {
        let place = &mut self.places[slot as usize];
        if place.phase == Phase::Live && !place.is_due {
            place.is_due = true;
            self.due.push_back(slot);
        }
    }

    /// A place gets no more queries; without any it closes.
    fn leave(&mut self, slot: Slot) {
        let place = &mut self.places[slot as usize];
        place.phase = Phase::Leaving;
        self.close_if_done(slot);
    }

    fn close_if_done(&mut self, slot: Slot) {
        let place = &mut self.places[slot as usize];
        if place.phase == Phase::Leaving && place.in_flight == 0 {
            place.phase = Phase::Closing;
            self.ending.push(slot);
        }
    }

    /// Looks at the age of a few places.
    fn sweep(&mut self, now_ns: u64) {
        for _ in 0..TURN_SWEPT_MAX.min(self.places.len()) {
            self.swept = (self.swept + 1) % self.places.len();
            if self.places[self.swept].until_ns <= now_ns {
                self.make_due(self.swept as Slot);
            }
        }
    }

    /// A query has ended.
    fn end(&mut self, index: u32) -> u64 {
        let slot = self.records.slot(index);
        let place = &mut self.places[slot as usize];
        let exchange = self.records.remove(index, &mut place.first);
        place.in_flight -= 1;
        self.close_if_done(slot);
        exchange
    }

    fn datagram(
        &mut self,
        slot: Slot,
        octets: &[u8],
        take: &mut dyn FnMut(u64, Arrival<'_>) -> bool,
    ) -> usize {
        let Some(id) = octets.first_chunk::<2>().map(|id| u16::from_be_bytes(*id)) else {
            self.counters.unmatched += 1;
            return 0;
        };
        let Some(index) = self.records.find(self.places[slot as usize].first, id) else {
            let key = records::key(slot, id);
            if self.late[late_at(key)] == key {
                self.counters.late += 1;
            } else {
                self.counters.unmatched += 1;
            }
            return 0;
        };
        if take(self.records.exchange(index), Arrival::Reply(octets)) {
            self.counters.replies += 1;
            self.end(index);
        } else {
            self.counters.declined += 1;
        }
        1
    }

    /// What is no reply.
    fn note(&mut self, event: &Event<'_>) {
        match *event {
            Event::Datagram { .. } => self.counters.unmatched += 1,
            Event::Oversized => self.counters.oversized += 1,
            // The kernel says which socket, not which of its queries: nobody listens for any.
            Event::Refused { slot } => {
                while self.places[slot as usize].first != NONE {
                    let exchange = self.end(self.places[slot as usize].first);
                    self.counters.refused += 1;
                    self.failed.push_back((exchange, true));
                }
            }
            Event::Unsent { slot, id } => {
                // An address that is not this machine's any more ends like this: away with it.
                self.make_due(slot);
                if let Some(index) = self.records.find(self.places[slot as usize].first, id) {
                    let exchange = self.end(index);
                    self.counters.unsent += 1;
                    self.failed.push_back((exchange, false));
                }
            }
            Event::Closed { slot } => {
                self.places[slot as usize].phase = Phase::Free;
                self.counters.closed += 1;
                self.free.push(slot);
            }
        }
    }
}
