//! A server whose answers are late, lost and wrong as a script says, and that remembers which.
//!
//! ```text
//!   UDP, TCP ──arrival (kernel's time)──> script ──> due, earliest first ──departure──> peer
//!                                            └────────────> log <──────────┘
//! ```
//!
//! One thread does all of it. It waits in the kernel until shortly before the next reply is due,
//! and spins from there on, so it should have its core for itself. Where it is late all the same,
//! the log says so: it has the times at which replies left.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::prctl::set_timerslack;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

use crate::zones::queries::Random;

use super::arrivals::{self, Datagrams};
use super::log::{ENTRIES_MAX, Entry, Log};
use super::reply::{Reply, reply};
use super::script::{Act, Script};
use super::streams::{Streams, Token};

/// Replies sent before arrivals are looked at again.
const SENT_AT_ONCE_MAX: usize = 32;
/// From so long before a reply is due the server does not sleep.
const SPIN_NS: u64 = 100_000;
/// The longest sleep: whether it is to end is asked as often.
const SLEEP_NS_MAX: u64 = 20_000_000;

/// CLOCK_REALTIME, which the kernel's timestamps are of, in nanoseconds.
pub(super) fn now_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_REALTIME)
        .map_or(0, |now| now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

//----------- Server ---------------------------------------------------------

/// A server that has not begun.
pub struct Server {
    socket: UdpSocket,
    streams: Streams,
    replies: Replies,
    address: SocketAddr,
}

/// A server on its thread.
struct Serving {
    datagrams: Datagrams,
    streams: Streams,
    replies: Replies,
}

/// What comes after an arrival.
struct Replies {
    script: Script,
    random: Random,
    log: Log,
    /// Times, entries of the log, places in `waiting`: the earliest first, of those the first.
    due: BinaryHeap<Reverse<(u64, usize, u32)>>,
    waiting: Vec<Option<Waiting>>,
    vacant: Vec<u32>,
    elsewhere: UdpSocket,
}

/// A reply that is not due yet.
struct Waiting {
    to: Peer,
    reply: Reply,
    entry: usize,
}

/// Who asked.
#[derive(Clone, Copy)]
pub(super) enum Peer {
    /// Over UDP.
    Datagram(SocketAddr),
    /// On this connection.
    Stream(Token, u16),
}

/// Whether a reply has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// It has.
    Now,
    /// There is no room for it.
    NotYet,
    /// There is nobody to take it.
    Never,
}

impl Server {
    /// Binds UDP and TCP of one address, whose port may be 0.
    pub fn bind(listen: SocketAddr, script: Script, seed: u64) -> io::Result<Server> {
        if listen.ip().is_unspecified() {
            let message = format!("{listen}: name one address: replies leave from it");
            return Err(io::Error::other(message));
        }
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{listen}: {error}"));
        let socket = arrivals::bind(listen).map_err(named)?;
        let address = socket.local_addr()?;
        let streams = Streams::bind(address).map_err(named)?;
        let elsewhere = UdpSocket::bind(SocketAddr::new(address.ip(), 0))?;
        elsewhere.set_nonblocking(true)?;
        let log =
            Log { script: script.clone(), seed, start_ns: 0, unreadable: 0, entries: Vec::new() };
        let replies = Replies {
            random: Random::new(seed),
            script,
            log,
            due: BinaryHeap::new(),
            waiting: Vec::new(),
            vacant: Vec::new(),
            elsewhere,
        };
        Ok(Server { socket, streams, replies, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves on this thread until `is_over`, which is asked often; returns the log. What is not
    /// sent then is never sent.
    pub fn run(self, is_over: &mut dyn FnMut() -> bool) -> io::Result<Log> {
        // Without it a sleep ends 50 us late.
        set_timerslack(1)?;
        let mut serving = Serving {
            datagrams: Datagrams::new(self.socket),
            streams: self.streams,
            replies: self.replies,
        };
        while !is_over() && serving.replies.log.entries.len() < ENTRIES_MAX {
            if serving.turn()? == 0 {
                serving.sleep()?;
            }
        }
        Ok(serving.replies.log)
    }
}

impl Serving {
    /// Sends and receives what there is; returns how much that was.
    fn turn(&mut self) -> io::Result<usize> {
        let sent = self.send_due()?;
        let replies = &mut self.replies;
        let datagrams = self.datagrams.receive(&mut |peer, query, at_ns| {
            replies.take(Peer::Datagram(peer), query, at_ns);
        })?;
        let streams = self.streams.receive(&mut |token, port, query, at_ns| {
            replies.take(Peer::Stream(token, port), query, at_ns);
        })?;
        Ok(sent + datagrams + streams)
    }

    /// Sends what is due, some of it if it is much.
    fn send_due(&mut self) -> io::Result<usize> {
        let replies = &mut self.replies;
        let mut sent = 0;
        while sent < SENT_AT_ONCE_MAX
            && let Some(&Reverse((due_ns, _, place))) = replies.due.peek()
        {
            let now = now_ns();
            if due_ns > now {
                break;
            }
            let Some(waiting) = &replies.waiting[place as usize] else { break };
            let entry = &mut replies.log.entries[waiting.entry];
            let octets = waiting.reply.octets();
            let left = match waiting.to {
                Peer::Datagram(peer) if entry.act == Act::Elsewhere => {
                    send(&replies.elsewhere, octets, peer)?
                }
                Peer::Datagram(peer) => send(self.datagrams.socket(), octets, peer)?,
                Peer::Stream(token, _) => self.streams.send(token, octets)?,
            };
            match left {
                Left::Now => entry.departed_ns = now,
                Left::Never => {}
                // It is tried again after arrivals.
                Left::NotYet => break,
            }
            replies.due.pop();
            replies.free(place);
            sent += 1;
        }
        Ok(sent)
    }

    /// Waits for an arrival, or until shortly before a reply is due.
    fn sleep(&self) -> io::Result<()> {
        let next = self.replies.due.peek().map_or(u64::MAX, |Reverse((due_ns, ..))| *due_ns);
        let ns = next.saturating_sub(now_ns());
        if ns <= SPIN_NS {
            return Ok(());
        }
        let timeout =
            TimeSpec::from_duration(Duration::from_nanos((ns - SPIN_NS / 2).min(SLEEP_NS_MAX)));
        let datagrams = PollFd::new(self.datagrams.socket().as_fd(), PollFlags::POLLIN);
        let streams = PollFd::new(self.streams.as_fd(), PollFlags::POLLIN);
        match ppoll(&mut [datagrams, streams], Some(timeout), None) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Sends a datagram.
fn send(socket: &UdpSocket, octets: &[u8], peer: SocketAddr) -> io::Result<Left> {
    match socket.send_to(octets, peer) {
        Ok(_) => Ok(Left::Now),
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR) => Ok(Left::NotYet),
            // The peer is gone, and said so after an earlier reply; this one has left.
            Some(Errno::ECONNREFUSED) => Ok(Left::Now),
            _ => Err(io::Error::new(error.kind(), format!("a reply to {peer}: {error}"))),
        },
    }
}

impl Replies {
    /// Decides about a query and notes it.
    fn take(&mut self, to: Peer, query: &[u8], arrival_ns: u64) {
        if reply(query, Act::Answer).is_none() {
            self.log.unreadable += 1;
            return;
        }
        if self.log.entries.is_empty() {
            self.log.start_ns = arrival_ns;
        }
        let (act, delay_ns) = self.script.draw(&mut self.random);
        let start = self.log.start_ns;
        // Another socket's first arrival may be a little earlier.
        let since = arrival_ns.saturating_sub(start);
        let due_ns = start + self.script.due_ns(since, delay_ns);
        let (stream, port) = match to {
            Peer::Datagram(peer) => (false, peer.port()),
            Peer::Stream(_, port) => (true, port),
        };
        let id = u16::from_be_bytes([query[0], query[1]]);
        let entry = Entry { arrival_ns, due_ns, departed_ns: 0, id, act, stream, port };
        self.note(entry, to, query);
        if act == Act::Twice {
            self.note(Entry { act: Act::Again, ..entry }, to, query);
        }
    }

    /// Writes an entry, and keeps its reply until it is due.
    fn note(&mut self, entry: Entry, to: Peer, query: &[u8]) {
        let index = self.log.entries.len();
        self.log.entries.push(entry);
        if entry.act == Act::Drop || entry.act == Act::Elsewhere && entry.stream {
            return;
        }
        let Some(reply) = reply(query, entry.act) else { return };
        let waiting = Some(Waiting { to, reply, entry: index });
        let place = match self.vacant.pop() {
            Some(place) => {
                self.waiting[place as usize] = waiting;
                place
            }
            None => {
                self.waiting.push(waiting);
                self.waiting.len() as u32 - 1
            }
        };
        self.due.push(Reverse((entry.due_ns, index, place)));
    }

    fn free(&mut self, place: u32) {
        self.waiting[place as usize] = None;
        self.vacant.push(place);
    }
}
