//! The TCP connections that are open: who has how many, what each waits for, since when.
//!
//! ```text
//!   for a query      Query:   | longest idle    | ... | ... | answered just now |
//!   for its rest     Rest:    | began first     | ... | began just now |
//!   for the reader   Reader:  | blocked longest | ... |
//!                               ^ closed first: when its time is over, or its place needed
//!   for us           Answer:  | ... |            never closed: a zone is being changed
//! ```
//!
//! There are no timers: each list is in the order of time, so that only its first has to be looked
//! at, and a time that gets shorter counts at once for those that wait already.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;

//----------- Limits ---------------------------------------------------------

/// Limits of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Threads that share the connections.
    pub threads: usize,
    /// Connections at once.
    pub connections: usize,
    /// Of them, of one client: an IPv4 address, or a /64.
    pub connections_per_client: usize,
    /// How long a connection may be idle while there is room.
    pub idle: Duration,
    /// How long a query that has begun may take to arrive, while there is room.
    pub read: Duration,
    /// How long a peer may take to accept the replies that wait for it, while there is room.
    pub write: Duration,
    /// Octets of replies that wait for one peer; with so many no further query of it is answered.
    pub queued: usize,
    /// Queries of one connection; then it is closed.
    pub queries: u64,
}

impl StreamLimits {
    /// How long of `time` is left to each of `open` connections: from half of the places on less
    /// and less, down to a quarter (RFC 7766, 6.2.3 lets a server that is short of places do so).
    fn shortened(&self, time: Duration, open: usize) -> Duration {
        let half = self.connections / 2;
        let over = open.saturating_sub(half) as u32;
        let of = (self.connections - half).max(1) as u32;
        time - time * over.min(of) / of * 3 / 4
    }

    /// How long each of `open` connections may wait for what it waits for.
    fn time(&self, wait: Wait, open: usize) -> Duration {
        let time = match wait {
            Wait::Query => self.idle,
            Wait::Rest => self.read,
            Wait::Reader => self.write,
            Wait::Answer => return Duration::MAX,
        };
        self.shortened(time, open)
    }

    /// What `open` connections are told of how long they may be idle, in units of 100 ms.
    ///
    //= RFC 7828, 3.3.2
    //# The DNS server SHOULD send an edns-tcp-keepalive option with a timeout of 0 if it deems
    //# its local resources are too low to service more TCP keepalive sessions or if it wants
    //# clients to close currently open connections.
    pub fn keepalive(&self, open: usize) -> u16 {
        if open >= self.connections {
            return 0;
        }
        let tenths = self.shortened(self.idle, open).as_millis() / 100;
        u16::try_from(tenths).unwrap_or(u16::MAX)
    }
}

//----------- Places ---------------------------------------------------------

/// What a connection waits for, in the order in which places are taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A query: it is idle.
    Query = 0,
    /// The rest of a query that has begun.
    Rest = 1,
    /// That its peer takes what was written.
    Reader = 2,
    /// An answer that others make for us: its place is not taken away.
    Answer = 3,
}

const WAITS: [Wait; 4] = [Wait::Query, Wait::Rest, Wait::Reader, Wait::Answer];

/// A place that was given; it names no other after it was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    index: usize,
    turn: u64,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its client has as many as it may have.
    Peer,
    /// All are taken by those that wait for an answer of ours.
    Full,
}

/// The connections of all threads.
pub struct Places {
    limits: StreamLimits,
    open: AtomicUsize,
    table: Mutex<Table>,
}

impl Places {
    /// No connections yet.
    pub fn new(limits: StreamLimits) -> Places {
        Places { limits, open: AtomicUsize::new(0), table: Mutex::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The limits.
    pub fn limits(&self) -> &StreamLimits {
        &self.limits
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether a query is being received or answered, or replies wait for their reader.
    pub fn is_owing(&self) -> bool {
        let table = self.table();
        WAITS[1..].iter().any(|wait| table.lists[*wait as usize].first.is_some())
    }

    /// A place for a connection of `peer`, and what another waited for that gave up its own: of
    /// all that wait for a query the one that has waited longest, then for the rest, then for a
    /// reader.
    pub fn admit(&self, peer: IpAddr, now: Duration) -> Result<(Number, Option<Wait>), Refused> {
        let mut table = self.table();
        if table.peers.get(&peer).is_some_and(|&open| open >= self.limits.connections_per_client) {
            return Err(Refused::Peer);
        }
        let mut replaced = None;
        if table.open >= self.limits.connections {
            let first = |wait: &Wait| Some((*wait, table.lists[*wait as usize].first?));
            let (wait, index) = WAITS[..3].iter().find_map(first).ok_or(Refused::Full)?;
            replaced = Some(wait);
            table.close(index);
        }
        let number = table.take(peer, now);
        self.open.store(table.open, Ordering::Relaxed);
        Ok((number, replaced))
    }

    /// What ends the connection, if its place is needed; at once if it was taken away already.
    pub fn set_task(&self, number: Number, task: AbortHandle) {
        let mut table = self.table();
        match table.place(number) {
            Some(place) => place.task = Some(task),
            None => task.abort(),
        }
    }

    /// From now on the connection waits for this.
    pub fn set(&self, number: Number, wait: Wait, now: Duration) {
        let mut table = self.table();
        if table.place(number).is_some() {
            table.unlink(number.index);
            table.places[number.index].wait = wait;
            table.places[number.index].since = now;
            table.link(number.index);
        }
    }

    /// The connection has ended.
    pub fn leave(&self, number: Number) {
        let mut table = self.table();
        if table.place(number).is_some() {
            table.remove(number.index);
            self.open.store(table.open, Ordering::Relaxed);
        }
    }

    /// Closes the connections whose time is over; returns how many waited for what.
    pub fn close_late(&self, now: Duration) -> [u64; WAITS.len()] {
        let mut closed = [0; WAITS.len()];
        let mut table = self.table();
        for wait in WAITS {
            while let Some(index) = table.lists[wait as usize].first {
                let waited = now.saturating_sub(table.places[index].since);
                if waited < self.limits.time(wait, table.open) {
                    break;
                }
                table.close(index);
                closed[wait as usize] += 1;
            }
        }
        self.open.store(table.open, Ordering::Relaxed);
        closed
    }
}

//----------- Table ----------------------------------------------------------

#[derive(Default)]
struct Table {
    places: Vec<Place>,
    free: Vec<usize>,
    open: usize,
    turns: u64,
    peers: HashMap<IpAddr, usize>,
    lists: [List; WAITS.len()],
}

#[derive(Clone, Copy, Default)]
struct List {
    first: Option<usize>,
    last: Option<usize>,
}

struct Place {
    peer: IpAddr,
    /// When it was given, in turns; 0 while it is free.
    turn: u64,
    task: Option<AbortHandle>,
    wait: Wait,
    since: Duration,
    before: Option<usize>,
    after: Option<usize>,
}

impl Table {
    fn place(&mut self, number: Number) -> Option<&mut Place> {
        self.places.get_mut(number.index).filter(|place| place.turn == number.turn)
    }

    fn take(&mut self, peer: IpAddr, since: Duration) -> Number {
        *self.peers.entry(peer).or_default() += 1;
        self.turns += 1;
        self.open += 1;
        let (turn, wait) = (self.turns, Wait::Query);
        let place = Place { peer, turn, task: None, wait, since, before: None, after: None };
        let index = match self.free.pop() {
            Some(index) => {
                self.places[index] = place;
                index
            }
            None => {
                self.places.push(place);
                self.places.len() - 1
            }
        };
        self.link(index);
        Number { index, turn }
    }

    /// Takes the place away from whoever has it.
    fn close(&mut self, index: usize) {
        if let Some(task) = self.remove(index) {
            task.abort();
        }
    }

    fn remove(&mut self, index: usize) -> Option<AbortHandle> {
        self.unlink(index);
        self.open -= 1;
        self.free.push(index);
        let place = &mut self.places[index];
        place.turn = 0;
        if let Some(count) = self.peers.get_mut(&place.peer) {
            *count -= 1;
            if *count == 0 {
                self.peers.remove(&place.peer);
            }
        }
        place.task.take()
    }

    /// Puts it last among those that wait for the same.
    fn link(&mut self, index: usize) {
        let list = &mut self.lists[self.places[index].wait as usize];
        let before = list.last.replace(index);
        match before {
            Some(before) => self.places[before].after = Some(index),
            None => list.first = Some(index),
        }
        let place = &mut self.places[index];
        (place.before, place.after) = (before, None);
    }

    fn unlink(&mut self, index: usize) {
        let Place { wait, before, after, .. } = self.places[index];
        let list = &mut self.lists[wait as usize];
        match before {
            Some(before) => self.places[before].after = after,
            None => list.first = after,
        }
        match after {
            Some(after) => self.places[after].before = before,
            None => list.last = before,
        }
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn limits(connections: usize) -> StreamLimits {
        StreamLimits {
            threads: 1,
            connections,
            connections_per_client: connections + 1,
            idle: 8 * SECOND,
            read: 4 * SECOND,
            write: 2 * SECOND,
            queued: 1 << 16,
            queries: 1,
        }
    }

    fn is_open(places: &Places, number: Number) -> bool {
        places.table().place(number).is_some()
    }

    #[test]
    fn who_has_been_idle_longest_gives_its_place_up() {
        let places = Places::new(limits(3));
        let admit = |at: u32| places.admit(PEER, SECOND * at).unwrap();
        let [first, second, third] = [1, 2, 3].map(|at| admit(at).0);
        places.set(first, Wait::Reader, SECOND * 4);
        places.set(second, Wait::Query, SECOND * 5);
        let (fourth, replaced) = admit(6);
        assert_eq!((replaced, is_open(&places, third)), (Some(Wait::Query), false));
        let (fifth, _) = admit(7);
        assert!(!is_open(&places, second), "idle before the fourth");
        places.set(fourth, Wait::Rest, SECOND * 8);
        places.set(fifth, Wait::Rest, SECOND * 9);
        assert!(places.is_owing());
        let (sixth, replaced) = admit(10);
        assert_eq!((replaced, is_open(&places, fourth)), (Some(Wait::Rest), false));
        places.set(sixth, Wait::Reader, SECOND * 11);
        places.set(fifth, Wait::Reader, SECOND * 12);
        let (seventh, replaced) = admit(13);
        assert_eq!((replaced, is_open(&places, first)), (Some(Wait::Reader), false));
        // Nobody takes the place of who waits for us.
        [fifth, sixth, seventh].into_iter().for_each(|n| places.set(n, Wait::Answer, SECOND));
        assert_eq!(places.admit(PEER, SECOND * 99).err(), Some(Refused::Full));
        assert_eq!((places.close_late(SECOND * 99), places.open()), ([0; 4], 3));
        // Who has left can neither wait nor leave again, even if another has its place.
        places.set(first, Wait::Query, SECOND * 14);
        places.leave(first);
        assert_eq!(places.open(), 3);
        [fifth, sixth, seventh].into_iter().for_each(|number| places.leave(number));
        let table = places.table();
        assert!(table.peers.is_empty() && table.open == 0);
        assert!(table.lists.iter().all(|list| list.first.is_none() && list.last.is_none()));
    }

    #[test]
    fn one_client_does_not_have_all() {
        let places = Places::new(StreamLimits { connections_per_client: 1, ..limits(3) });
        let (number, _) = places.admit(PEER, SECOND).unwrap();
        assert_eq!(places.admit(PEER, SECOND).err(), Some(Refused::Peer));
        assert!(places.admit(IpAddr::from([192, 0, 2, 2]), SECOND).is_ok());
        places.leave(number);
        assert!(places.admit(PEER, SECOND).is_ok());
    }

    #[test]
    fn late_is_who_waited_longer_than_there_is_room_for() {
        let places = Places::new(limits(4));
        let [idle, slow, silent] = [(); 3].map(|()| places.admit(PEER, SECOND).unwrap().0);
        places.set(slow, Wait::Rest, SECOND);
        places.set(silent, Wait::Reader, SECOND);
        // Three of four: 5/8 of the time that each has while there is room.
        assert_eq!(places.close_late(SECOND * 2), [0; 4]);
        assert_eq!(places.close_late(Duration::from_millis(2250)), [0, 0, 1, 0]);
        assert!(!is_open(&places, silent));
        assert_eq!(places.close_late(SECOND * 4), [0; 4]);
        assert_eq!(places.close_late(SECOND * 5), [0, 1, 0, 0]);
        assert_eq!(places.close_late(SECOND * 8), [0; 4]);
        // Then it gets full, and the time that was left is over.
        let [_, _, _] = [(); 3].map(|()| places.admit(PEER, SECOND * 8).unwrap());
        assert_eq!(places.close_late(SECOND * 8), [1, 0, 0, 0]);
        assert!(!is_open(&places, idle));
    }

    #[test]
    fn the_fuller_the_shorter() {
        let limits = limits(10);
        let among = |open: usize| limits.time(Wait::Query, open).as_secs();
        assert_eq!([among(1), among(5), among(10), among(11)], [8, 8, 2, 2]);
        assert!(limits.time(Wait::Query, 7) < limits.time(Wait::Query, 6));
        let one = StreamLimits { connections: 1, ..limits };
        assert_eq!(one.time(Wait::Rest, 1), SECOND);
        assert_eq!([5, 7, 9, 10].map(|open| limits.keepalive(open)), [80, 56, 32, 0]);
        let long = StreamLimits { idle: SECOND * 86400, ..limits };
        assert_eq!(long.keepalive(1), u16::MAX);
    }
}
