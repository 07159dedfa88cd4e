//! The loop of one core.
//!
//! ```text
//!   receive ──> pin the snapshot ──> answer the batch ──> unpin ──> send ──> receive ...
//!      └── nothing there: wait (offline: the publisher need not wait for this core)
//! ```

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;

use crate::answer;
use crate::answer::{
    CoreState, Exchange, Misses as Mode, Ticket, Transport, Verdict, answer_batch,
};
use crate::limits::BATCH_COUNT_MAX;
use crate::memory::epoch::Reader;
use crate::net::{Origin, PacketPath};
use crate::snapshot::Snapshot;

use super::forwarding::misses::{Back, Miss, Misses};

/// How long a core without work sleeps before it looks whether it should stop.
const WAIT: Duration = Duration::from_millis(200);
/// How long a stopping core goes on answering what is there. Under load more is always there.
const DRAIN: Duration = Duration::from_millis(500);

/// A datagram that is answered later, by another thread.
pub struct Deferral {
    /// Which of the cores received it.
    pub core: usize,
    /// The message.
    pub octets: Box<[u8]>,
    /// Where its reply goes.
    pub origin: Origin,
}

/// Where a core puts what it defers; what there is no room for is dropped.
pub struct Deferrals {
    /// The number of the core.
    pub core: usize,
    /// Bounded, so that nobody can fill the memory.
    pub queue: tokio::sync::mpsc::Sender<Deferral>,
    /// For what is asked elsewhere, if anything is.
    pub misses: Option<Arc<Misses>>,
}

impl Deferrals {
    /// The deferred messages of a batch, as many as there is room for.
    #[cold]
    fn keep(&self, lengths: &[usize], exchanges: &[Exchange<'_>]) -> Vec<(usize, Box<[u8]>)> {
        let deferred = lengths.iter().zip(exchanges).enumerate();
        deferred
            .filter(|(_, (len, _))| **len == DEFERRED)
            .map(|(i, (_, exchange))| (i, exchange.buffer[..exchange.query_len].into()))
            .take(self.queue.capacity())
            .collect()
    }

    /// Waits; whoever resolves may work meanwhile.
    fn rest(&self, wait: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let precedence = self.misses.as_ref().map(|misses| &misses.precedence);
        precedence.inspect(|precedence| precedence.rests(self.core));
        wait()?;
        precedence.inspect(|precedence| precedence.works(self.core));
        Ok(())
    }

    fn push(&self, octets: Box<[u8]>, origin: Origin) {
        // Somebody else may have taken the room: the peer asks again.
        let _ = self.queue.try_send(Deferral { core: self.core, octets, origin });
    }
}

/// In place of the length of a reply that comes later: from the control side, or from who resolves.
const DEFERRED: usize = usize::MAX;
const MISSED: usize = usize::MAX - 1;

/// Answers on `path` until `stop` is set, then what was received before. Time counts from
/// `started`, for all cores.
pub fn run<P: PacketPath>(
    mut path: P,
    mut snapshot: Reader<Snapshot>,
    mut core: CoreState,
    deferrals: &Deferrals,
    started: Instant,
    stop: &AtomicBool,
) -> io::Result<()> {
    while !stop.load(Ordering::Relaxed) {
        if turn(&mut path, &mut snapshot, &mut core, deferrals, started.elapsed())? == 0 {
            deferrals.rest(|| path.wait(WAIT))?;
        }
    }
    let end = started.elapsed() + DRAIN;
    while turn(&mut path, &mut snapshot, &mut core, deferrals, started.elapsed())? > 0 {
        if started.elapsed() >= end {
            break;
        }
    }
    Ok(())
}

/// One turn of the loop; returns how many datagrams it took.
#[inline]
pub fn turn<P: PacketPath>(
    path: &mut P,
    snapshot: &mut Reader<Snapshot>,
    core: &mut CoreState,
    deferrals: &Deferrals,
    now: Duration,
) -> io::Result<usize> {
    let mut batch = path.receive()?;
    let count = batch.len();
    if count == 0 {
        return Ok(0);
    }
    let mut lengths = ArrayVec::<usize, BATCH_COUNT_MAX>::new();
    let mut deferred = Vec::new();
    let mut missed = ArrayVec::<(usize, Miss), BATCH_COUNT_MAX>::new();
    {
        let mut exchanges = ArrayVec::<Exchange<'_>, BATCH_COUNT_MAX>::new();
        exchanges.extend(batch.datagrams_mut().map(|datagram| Exchange {
            buffer: datagram.buffer,
            query_len: datagram.received_len,
            transport: Transport::Datagram,
            client: datagram.client,
            verdict: Verdict::Reply(0),
        }));
        let snapshot = snapshot.pin();
        answer_batch(&snapshot, now, core, &mut exchanges);
        if let Some(misses) = &deferrals.misses {
            ask_anew(misses, core, &exchanges);
            let is_missed = |exchange: &Exchange<'_>| {
                matches!(exchange.verdict, Verdict::Defer(Ticket::Resolve))
            };
            if exchanges.iter().any(is_missed) {
                let mut room = misses.room();
                let mut own_names = core.missed.take().into_iter().peekable();
                for (index, exchange) in exchanges.iter_mut().enumerate() {
                    if !is_missed(exchange) {
                        continue;
                    }
                    let query = &exchange.buffer[..exchange.query_len];
                    let own = own_names.next_if(|(missed, _)| usize::from(*missed) == index);
                    match Miss::new(query, Back::Nobody).filter(|_| room > 0) {
                        Some(mut miss) => {
                            miss.name_hash = own.map(|(_, hash)| hash);
                            missed.push((index, miss));
                        }
                        None => settle(&snapshot, now, core, exchange),
                    }
                    room = room.saturating_sub(1);
                }
            }
        }
        lengths.extend(exchanges.iter().map(|exchange| match exchange.verdict {
            Verdict::Reply(len) => len,
            Verdict::Drop(_) => 0,
            Verdict::Defer(Ticket::Resolve) => MISSED,
            Verdict::Defer(_) => DEFERRED,
        }));
        if lengths.contains(&DEFERRED) {
            deferred = deferrals.keep(&lengths, &exchanges);
        }
    }
    for (index, len) in lengths.into_iter().enumerate() {
        batch.settle(index, if len >= MISSED { 0 } else { len });
    }
    for (index, octets) in deferred {
        deferrals.push(octets, path.origin(index));
    }
    if let (Some(misses), false) = (&deferrals.misses, missed.is_empty()) {
        for (index, mut miss) in missed {
            miss.back = Back::Datagram { core: deferrals.core, origin: path.origin(index) };
            // Another core may have taken the room: the client asks again.
            misses.push(miss);
        }
        misses.wake();
    }
    path.send()?;
    Ok(count)
}

/// Hands over what is to be asked for before it expires.
#[inline]
pub(super) fn ask_anew(misses: &Misses, core: &mut CoreState, exchanges: &[Exchange<'_>]) {
    if core.due.is_empty() {
        return;
    }
    for (index, flags) in core.due.take() {
        let query = answer::query_again(&*exchanges[usize::from(index)].buffer, flags);
        if let Some(miss) = query.and_then(|query| Miss::new(&query, Back::Nobody)) {
            misses.push(miss);
        }
    }
    misses.wake();
}

/// Answers without asking anybody: there is no room for one more question.
#[cold]
fn settle(snapshot: &Snapshot, now: Duration, core: &mut CoreState, exchange: &mut Exchange<'_>) {
    core.misses = Mode::Settle;
    answer_batch(snapshot, now, core, std::slice::from_mut(exchange));
    core.misses = Mode::Defer;
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Counters;
    use crate::memory::epoch::Published;
    use crate::net::{Batch, Faults, PathCounters, SimPath};
    use crate::snapshot::Identity;
    use crate::zone::HashKey;

    /// A question for the root's A.
    const QUERY: &[u8] = b"\x12\x34\0\0\0\x01\0\0\0\0\0\0\0\0\x01\0\x01";

    /// A network that always has one datagram more.
    struct Endless(SimPath);

    impl PacketPath for Endless {
        fn receive(&mut self) -> io::Result<Batch<'_>> {
            self.0.push(0, QUERY);
            self.0.receive()
        }
        fn origin(&self, index: usize) -> Origin {
            self.0.origin(index)
        }
        fn send(&mut self) -> io::Result<()> {
            self.0.send()?;
            self.0.take_replies();
            Ok(())
        }
        fn wait(&mut self, timeout: Duration) -> io::Result<()> {
            self.0.wait(timeout)
        }
        fn counters(&self) -> &Arc<PathCounters> {
            self.0.counters()
        }
    }

    fn nowhere() -> Deferrals {
        Deferrals { core: 0, queue: tokio::sync::mpsc::channel(1).0, misses: None }
    }

    fn nothing_served() -> Reader<Snapshot> {
        let key = HashKey::new(*b"a secret of test");
        let snapshot = Snapshot::new(1, key, Identity::default(), Vec::new());
        Published::new(Box::new(snapshot), 1).reader()
    }

    #[test]
    fn what_was_received_is_answered_after_the_stop() {
        let mut path = SimPath::new(1, Faults::default()).unwrap();
        let waiting = 3 * BATCH_COUNT_MAX as u64 + 1;
        (0..waiting).for_each(|tag| path.push(tag, QUERY));
        let counters = Arc::clone(path.counters());
        let core = CoreState::new(Arc::new(Counters::default()));
        run(path, nothing_served(), core, &nowhere(), Instant::now(), &AtomicBool::new(true))
            .unwrap();
        let sent = counters.iter().find(|(name, _)| *name == "sent").unwrap().1;
        assert_eq!(sent, waiting);
    }

    #[test]
    fn a_core_that_never_rests_stops_all_the_same() {
        let path = Endless(SimPath::new(1, Faults::default()).unwrap());
        let core = CoreState::new(Arc::new(Counters::default()));
        let stop = AtomicBool::new(false);
        let started = Instant::now();
        std::thread::scope(|scope| {
            let running =
                scope.spawn(|| run(path, nothing_served(), core, &nowhere(), started, &stop));
            std::thread::sleep(Duration::from_millis(50));
            stop.store(true, Ordering::Relaxed);
            running.join().unwrap().unwrap();
        });
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
}
