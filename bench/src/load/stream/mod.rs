//! Queries over TCP: lanes of connections that stay open, or one connection for each query.
//!
//! ```text
//!   queries_per_connection
//!     0   lane ── current connection, for ever
//!     n   lane ── current ──(n queries)──> draining: closed when all are answered, or too late
//!                 next: opened when half of them are asked, so that no query waits for it
//!     1   lane ── each query opens one, and its latency has the handshake in it
//! ```
//!
//! A connection that this side closes is reset (SO_LINGER 0), once its replies have been read: no
//! port stays in TIME_WAIT, so that a load of many connections does not run out of them; the server
//! is spared the two segments of an orderly end. Ports are chosen when connecting, for each pair
//! of addresses (IP_BIND_ADDRESS_NO_PORT): each source address has all of them.
//!
//! A server that refuses, or closes before it has answered anything, is asked again after
//! [`BACK_OFF_MIN`], then after twice that, up to [`BACK_OFF_MAX`]; meanwhile its lane takes no
//! queries.

pub(crate) mod connection;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, Socket, Type};

use ring53::net::client::now_ns;

use super::LoadOptions;
use super::carrier::{Arrival, Carrier};
use connection::{Incoming, OUTGOING_OCTETS_MAX, Outgoing, Received, SCRATCH_OCTETS, Written};

/// Connections of one thread at the same time: what a server that does not answer can cost.
pub const CONNECTIONS_MAX: usize = 16_384;
/// The first wait before a lane connects again.
pub const BACK_OFF_MIN: Duration = Duration::from_millis(10);
/// The longest.
pub const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// Events of one call.
const EVENTS_MAX: usize = 256;
/// Descriptors that are left for everything else.
const DESCRIPTORS_KEPT: u64 = 64;
/// Octets of memory that a connection keeps when it is closed and its place is used again.
const KEPT_OCTETS_MAX: usize = 4096;

const _: () = assert!(KEPT_OCTETS_MAX < OUTGOING_OCTETS_MAX);

/// Opens the lanes of thread `thread`: see [`Streams::open`].
pub fn open(options: &LoadOptions, thread: usize) -> io::Result<Box<dyn Carrier>> {
    Ok(Box::new(Streams::open(options, thread)?))
}

//----------- Streams --------------------------------------------------------

/// A [`Carrier`] over TCP.
pub struct Streams {
    server: SocketAddr,
    sources: Vec<IpAddr>,
    source_next: usize,
    queries_per_connection: u32,
    timeout: Duration,
    epoll: Epoll,
    events: Vec<EpollEvent>,
    scratch: Box<[u8]>,
    places: Vec<Place>,
    vacant: Vec<usize>,
    lanes: Vec<Lane>,
    /// Connections with something to write, or to be watched anew.
    stirred: Vec<usize>,
    /// Connections that are closed at these times, answered or not, in order.
    draining: VecDeque<(Token, Instant)>,
    open_max: usize,
    opened: u64,
    broken: u64,
    unsent: usize,
    /// This side had no descriptor, port or memory left for the last connection.
    lacks_means: bool,
}

/// A lane of queries.
#[derive(Default)]
struct Lane {
    /// The connection that takes queries.
    current: Option<usize>,
    /// The one that is opened ahead.
    next: Option<usize>,
    /// Times in a row that connecting brought no answer, and when it is tried again.
    failures: u32,
    again_at: Option<Instant>,
}

/// A connection's place, used again when it is closed.
#[derive(Default)]
struct Place {
    /// How often it has been used: an event of an earlier connection is recognised.
    generation: u32,
    stream: Option<TcpStream>,
    lane: usize,
    connected: bool,
    watched: Option<EpollFlags>,
    stirred: bool,
    outgoing: Outgoing,
    incoming: Incoming,
    /// Queries it was given.
    asked: u32,
    /// Replies it brought.
    answered: u64,
    /// Those sent and not answered: how many, and, if it is closed after a number of them, their
    /// IDs.
    outstanding: u64,
    awaited: Vec<u16>,
    is_draining: bool,
}

/// Which connection in which place.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Token {
    place: usize,
    generation: u32,
}

impl Token {
    fn to_event(self) -> u64 {
        u64::from(self.generation) << 32 | self.place as u64
    }

    fn from_event(event: u64) -> Token {
        Token { place: event as u32 as usize, generation: (event >> 32) as u32 }
    }
}

impl Streams {
    /// The lanes of thread `thread`: `options.connections` of them. Connections that stay open are
    /// opened here, and the server has until the time-out of a query, at least a second, to take
    /// them. It is an error if it takes none.
    pub fn open(options: &LoadOptions, thread: usize) -> io::Result<Streams> {
        let mismatched = options.sources.iter().find(|it| it.is_ipv4() != options.server.is_ipv4());
        if let Some(source) = mismatched {
            let message = format!("{source} cannot ask {}: use one family", options.server);
            return Err(io::Error::other(message));
        }
        let lanes = options.connections.max(1);
        let mut streams = Streams {
            server: options.server,
            sources: options.sources.clone(),
            source_next: thread * lanes,
            queries_per_connection: options.queries_per_connection,
            timeout: options.timeout,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            events: vec![EpollEvent::empty(); EVENTS_MAX],
            scratch: vec![0; SCRATCH_OCTETS].into(),
            places: Vec::new(),
            vacant: Vec::new(),
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            stirred: Vec::new(),
            draining: VecDeque::new(),
            // Threads share the descriptors, and their ports have some.
            open_max: (descriptors_max() / options.cores.len().max(1))
                .saturating_sub(options.ports)
                .clamp(1, CONNECTIONS_MAX),
            opened: 0,
            broken: 0,
            unsent: 0,
            lacks_means: false,
        };
        if lanes > streams.open_max {
            let message = format!(
                "{lanes} connections, and {} descriptors a process: ask on fewer, or raise \
                 `ulimit -n`",
                streams.open_max
            );
            return Err(io::Error::other(message));
        }
        if options.queries_per_connection != 1 {
            streams.connect_all(options.timeout.max(Duration::from_secs(1)))?;
        }
        Ok(streams)
    }

    /// Opens a connection for each lane and waits for them.
    fn connect_all(&mut self, within: Duration) -> io::Result<()> {
        let end = Instant::now() + within;
        let mut failed = None;
        for lane in 0..self.lanes.len() {
            match self.connect(lane) {
                Ok(place) => self.lanes[lane].current = Some(place),
                Err(error) => failed = Some(error),
            }
        }
        loop {
            self.watch()?;
            self.receive(&mut |_| {})?;
            let current = || self.lanes.iter().filter_map(|lane| lane.current);
            let connected = current().filter(|&place| self.places[place].connected).count();
            if connected == self.lanes.len() || Instant::now() >= end {
                return Ok(());
            }
            if current().count() == 0 {
                let reason = failed.map_or("it refuses".into(), |error| error.to_string());
                let message = format!("{}: {reason}: does it listen on TCP?", self.server);
                return Err(io::Error::other(message));
            }
            self.wait(Duration::from_millis(10))?;
        }
    }

    //--- Opening and closing

    /// Begins a connection for `lane`.
    fn connect(&mut self, lane: usize) -> io::Result<usize> {
        if self.places.len() - self.vacant.len() >= self.open_max {
            return Err(Errno::EMFILE.into());
        }
        let source = match self.sources.len() {
            0 => None,
            count => Some(self.sources[self.source_next % count]),
        };
        self.source_next += 1;
        let stream = connect(self.server, source)?;
        self.opened += 1;
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            self.places.len() - 1
        });
        let place = &mut self.places[index];
        place.stream = Some(stream);
        place.lane = lane;
        self.stir(index);
        Ok(index)
    }

    /// Closes a connection and gives its place back. Whoever refers to it forgets it first.
    fn close(&mut self, index: usize) {
        let place = &mut self.places[index];
        place.generation = place.generation.wrapping_add(1);
        // The descriptor leaves the epoll set as it is closed.
        place.stream = None;
        place.connected = false;
        place.watched = None;
        place.outgoing.clear(KEPT_OCTETS_MAX);
        place.incoming.clear(KEPT_OCTETS_MAX);
        place.asked = 0;
        place.answered = 0;
        place.outstanding = 0;
        place.awaited.clear();
        place.is_draining = false;
        self.vacant.push(index);
    }

    /// The server, or the way to it, has ended a connection.
    fn end(&mut self, index: usize, now: Instant) {
        let place = &self.places[index];
        let lane = place.lane;
        let unsent: Vec<Vec<u8>> = place.outgoing.unsent().map(<[u8]>::to_vec).collect();
        if !place.connected || place.outstanding > 0 || !unsent.is_empty() {
            self.broken += 1;
        }
        let is_useless = place.answered == 0;
        let is_current = self.lanes[lane].current == Some(index);
        if is_current {
            self.lanes[lane].current = self.lanes[lane].next.take();
        } else if self.lanes[lane].next == Some(index) {
            self.lanes[lane].next = None;
        }
        self.close(index);
        if is_useless {
            self.back_off(lane, now);
        }
        // What was not sent goes with the next connection of the lane, if there is one at once.
        let mut rest = unsent.into_iter();
        if is_current && self.queries_per_connection != 1 {
            if self.lanes[lane].current.is_none() && self.lanes[lane].again_at.is_none() {
                self.renew(lane, now);
            }
            if let Some(current) = self.lanes[lane].current {
                for message in rest.by_ref() {
                    if !self.ask(current, &message) {
                        self.unsent += 1;
                        break;
                    }
                }
                self.rotate(lane, current);
            }
        }
        self.unsent += rest.count();
    }

    /// Opens the current connection of `lane`, which has none.
    fn renew(&mut self, lane: usize, now: Instant) {
        match self.connect(lane) {
            Ok(place) => self.lanes[lane].current = Some(place),
            Err(error) => {
                self.lacks_means |= is_passing(&error);
                self.back_off(lane, now);
            }
        }
    }

    /// Leaves `lane` alone for a while, longer each time.
    fn back_off(&mut self, lane: usize, now: Instant) {
        let lane = &mut self.lanes[lane];
        // Several connections that fail together are one failure.
        if lane.again_at.is_none() {
            let wait = BACK_OFF_MIN * 2u32.saturating_pow(lane.failures.min(16));
            lane.again_at = Some(now + wait.min(BACK_OFF_MAX));
            lane.failures += 1;
        }
    }

    /// Whether `lane` is left alone still.
    fn backs_off(&mut self, lane: usize) -> bool {
        let lane = &mut self.lanes[lane];
        if lane.again_at.is_some_and(|at| at <= Instant::now()) {
            lane.again_at = None;
        }
        lane.again_at.is_some()
    }

    //--- Asking

    /// Gives a connection a query.
    fn ask(&mut self, index: usize, message: &[u8]) -> bool {
        let place = &mut self.places[index];
        if !place.outgoing.push(message) {
            return false;
        }
        place.asked += 1;
        self.stir(index);
        true
    }

    /// The connection of `lane` that takes the next query.
    fn current(&mut self, lane: usize) -> Option<usize> {
        if self.lanes[lane].current.is_none() && !self.backs_off(lane) {
            self.renew(lane, Instant::now());
        }
        self.lanes[lane].current
    }

    /// After a query: the connection may have had its last one, or be near it.
    fn rotate(&mut self, lane: usize, index: usize) {
        let (limit, asked) = (self.queries_per_connection, self.places[index].asked);
        if limit == 0 {
            return;
        }
        if limit > 1 && self.lanes[lane].next.is_none() && asked >= limit.div_ceil(2) {
            // Without a next one, the query after the last opens it.
            self.lanes[lane].next = self.connect(lane).ok();
        }
        if asked >= limit {
            self.places[index].is_draining = true;
            let token = Token { place: index, generation: self.places[index].generation };
            self.draining.push_back((token, Instant::now() + self.timeout));
            if self.lanes[lane].current == Some(index) {
                self.lanes[lane].current = self.lanes[lane].next.take();
            }
        }
    }

    /// Notes that a connection has something to write, or is to be watched anew.
    fn stir(&mut self, index: usize) {
        let place = &mut self.places[index];
        if !place.stirred {
            place.stirred = true;
            self.stirred.push(index);
        }
    }

    /// Writes what waits and watches for what comes next.
    fn watch(&mut self) -> io::Result<()> {
        if self.stirred.is_empty() {
            return Ok(());
        }
        let mut ended = Vec::new();
        for at in 0..self.stirred.len() {
            let index = self.stirred[at];
            let place = &mut self.places[index];
            place.stirred = false;
            let Some(stream) = &mut place.stream else { continue };
            let (outstanding, awaited) = (&mut place.outstanding, &mut place.awaited);
            let remembers = self.queries_per_connection > 0;
            let written = place.outgoing.write_to(stream, |message| {
                *outstanding += 1;
                if remembers && let [high, low, ..] = *message {
                    awaited.push(u16::from_be_bytes([high, low]));
                }
            });
            // A connection that is not established yet takes nothing.
            place.connected |= place.outstanding > 0;
            let wanted = match written {
                Ok(Written::All) if place.connected => EpollFlags::EPOLLIN,
                Ok(_) => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
                Err(_) => {
                    ended.push(index);
                    continue;
                }
            };
            if place.watched != Some(wanted) {
                let token = Token { place: index, generation: place.generation };
                let mut event = EpollEvent::new(wanted, token.to_event());
                match place.watched {
                    None => self.epoll.add(stream.as_fd(), event)?,
                    Some(_) => self.epoll.modify(stream.as_fd(), &mut event)?,
                }
                place.watched = Some(wanted);
            }
        }
        self.stirred.clear();
        let now = Instant::now();
        for index in ended {
            self.end(index, now);
        }
        Ok(())
    }

    //--- Answers

    /// Reads once from a connection that has something.
    fn read(&mut self, index: usize, take: &mut dyn FnMut(Arrival<'_>)) -> usize {
        let place = &mut self.places[index];
        let Some(stream) = &mut place.stream else { return 0 };
        let (lane, mut count, mut read_ns) = (place.lane, 0, 0);
        let (outstanding, awaited) = (&mut place.outstanding, &mut place.awaited);
        let received = place.incoming.read_from(stream, &mut self.scratch, |message| {
            // All of one read were there when it returned.
            if count == 0 {
                read_ns = now_ns();
            }
            count += 1;
            *outstanding = outstanding.saturating_sub(1);
            if let [high, low, ..] = *message
                && let Some(at) =
                    awaited.iter().position(|&id| id == u16::from_be_bytes([high, low]))
            {
                awaited.swap_remove(at);
            }
            take(Arrival { lane, message, at_ns: Some(read_ns) });
        });
        if count > 0 {
            place.answered += count as u64;
            self.lanes[lane].failures = 0;
            self.lanes[lane].again_at = None;
        }
        let is_done = place.is_draining && place.awaited.is_empty() && place.outgoing.is_empty();
        match received {
            Ok(Received::Open) if is_done => self.close(index),
            Ok(Received::Open) => {}
            Ok(Received::Garbage) => {
                // The garbage stands for an answer that will not come.
                place.outstanding += 1;
                self.end(index, Instant::now());
            }
            Ok(Received::Closed) | Err(_) => self.end(index, Instant::now()),
        }
        count
    }

    /// Closes what was not answered in time, and connects again where it is time to.
    fn turn_over(&mut self) {
        let now = Instant::now();
        while let Some(&(token, at)) = self.draining.front() {
            let place = &self.places[token.place];
            let is_open = place.generation == token.generation;
            if is_open && at > now {
                break;
            }
            self.draining.pop_front();
            if is_open {
                self.unsent += place.outgoing.unsent().count();
                self.close(token.place);
            }
        }
        if self.queries_per_connection != 1 {
            for lane in 0..self.lanes.len() {
                if self.lanes[lane].current.is_none() && !self.backs_off(lane) {
                    self.renew(lane, now);
                }
            }
        }
    }
}

impl Carrier for Streams {
    fn lanes(&self) -> usize {
        self.lanes.len()
    }

    fn queue(&mut self, lane: usize, message: &[u8]) -> bool {
        let index = if self.queries_per_connection == 1 {
            if self.backs_off(lane) {
                return false;
            }
            match self.connect(lane) {
                Ok(index) => index,
                Err(error) if is_passing(&error) => {
                    self.lacks_means = true;
                    return false;
                }
                Err(_) => {
                    self.broken += 1;
                    self.back_off(lane, Instant::now());
                    return false;
                }
            }
        } else {
            match self.current(lane) {
                Some(index) => index,
                None => return false,
            }
        };
        if !self.ask(index, message) {
            return false;
        }
        self.lacks_means = false;
        self.rotate(lane, index);
        true
    }

    fn lacks_means(&self) -> bool {
        self.lacks_means
    }

    fn flush(&mut self) -> io::Result<usize> {
        self.watch()?;
        Ok(std::mem::take(&mut self.unsent))
    }

    fn receive(&mut self, take: &mut dyn FnMut(Arrival<'_>)) -> io::Result<usize> {
        let found = match self.epoll.wait(&mut self.events, EpollTimeout::ZERO) {
            Ok(found) => found,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        let mut count = 0;
        for at in 0..found {
            let (token, flags) =
                (Token::from_event(self.events[at].data()), self.events[at].events());
            let place = &mut self.places[token.place];
            if place.generation != token.generation {
                continue;
            }
            if flags.contains(EpollFlags::EPOLLOUT) {
                place.connected |= !flags.contains(EpollFlags::EPOLLERR);
                self.stir(token.place);
            }
            if flags.intersects(!EpollFlags::EPOLLOUT) {
                count += self.read(token.place, take);
            }
        }
        self.turn_over();
        // What has room again, or a connection again, is not kept waiting.
        self.watch()?;
        Ok(count)
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let mut polled = [PollFd::new(self.epoll.0.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut polled, Some(TimeSpec::from_duration(timeout)), None) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn drops(&self) -> u64 {
        0
    }

    fn connections(&self) -> (u64, u64) {
        (self.opened, self.broken)
    }
}

//----------- Sockets --------------------------------------------------------

/// Begins a connection from `source`, which goes on by itself.
fn connect(server: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    if let Some(source) = source {
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&server.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}

/// Whether there is merely no descriptor, port or memory now.
fn is_passing(error: &io::Error) -> bool {
    let passing = [Errno::EMFILE, Errno::ENFILE, Errno::EADDRNOTAVAIL, Errno::ENOBUFS];
    error.raw_os_error().is_some_and(|code| passing.contains(&Errno::from_raw(code)))
}

/// Descriptors this process may open for connections; raises the limit as far as it may.
pub(crate) fn descriptors_max() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return CONNECTIONS_MAX };
    let wanted = hard.min(4 * CONNECTIONS_MAX as u64);
    let limit = match soft < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() {
        true => wanted,
        false => soft,
    };
    limit.saturating_sub(DESCRIPTORS_KEPT) as usize
}

#[cfg(test)]
mod tests;
