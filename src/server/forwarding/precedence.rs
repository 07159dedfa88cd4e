//! Who goes first on a core: the thread that answers, and after it the one that resolves.
//!
//! ```text
//!   core's thread   answers ──> rests ........ queries come ──> answers ──> rests
//!                                 │ wakes          ^               ^          │ wakes
//!   resolving       waits ........└──> a piece ──> is it wanted? ──┘ waits ...└──> a piece
//! ```
//!
//! The kernel shares a core by weights, and looks whether somebody else should run when a tick
//! comes, 4 ms later: whoever has waited long enough is not interrupted before. So the thread that
//! resolves looks itself, before each piece of its work, whether the core that it happens to run on
//! has queries, and lets them be answered first. Where hits alone fill the core, it gets a piece
//! after each wait, once the kernel lets it run: that leaves little to misses.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crossbeam::utils::CachePadded;
use nix::sched::sched_getcpu;

use crate::net::Replier;

/// How long the thread that resolves waits for one that never rests: it gets a piece in between.
const WAIT_MAX: Duration = Duration::from_millis(1);

/// What the threads of the cores and the one that resolves tell each other.
pub struct Precedence {
    cores: Box<[CachePadded<Core>]>,
    resolving: Thread,
    wait_max: Duration,
}

struct Core {
    /// Its number in the system.
    number: usize,
    /// Its thread has taken queries and not yet answered all.
    is_busy: AtomicBool,
    /// The other thread waits for it to rest.
    is_awaited: AtomicBool,
}

impl Precedence {
    /// On these cores. Call it on the thread that resolves.
    pub fn new(cores: &[usize]) -> Precedence {
        let core = |&number: &usize| {
            CachePadded::new(Core {
                number,
                is_busy: AtomicBool::new(false),
                is_awaited: AtomicBool::new(false),
            })
        };
        let cores = cores.iter().map(core).collect();
        Precedence { cores, resolving: thread::current(), wait_max: WAIT_MAX }
    }

    /// The thread of core `index` has work from now on.
    #[inline]
    pub fn works(&self, index: usize) {
        self.cores[index].is_busy.store(true, Ordering::Relaxed);
    }

    /// The thread of core `index` has answered all there was.
    #[inline]
    pub fn rests(&self, index: usize) {
        let core = &self.cores[index];
        core.is_busy.store(false, Ordering::SeqCst);
        if core.is_awaited.load(Ordering::SeqCst) && core.is_awaited.swap(false, Ordering::SeqCst) {
            self.resolving.unpark();
        }
    }

    /// Has the thread of this core answer what has come, if anything has; returns whether it had
    /// to. `repliers` have the sockets of the cores. For the thread that resolves.
    pub fn let_pass(&self, repliers: &[Replier]) -> bool {
        let here = sched_getcpu().unwrap_or(usize::MAX);
        let Some(index) = self.cores.iter().position(|core| core.number == here) else {
            return false;
        };
        let core = &self.cores[index];
        let is_wanted = || core.is_busy.load(Ordering::SeqCst) || repliers[index].has_arrivals();
        if !is_wanted() {
            return false;
        }
        core.is_awaited.store(true, Ordering::SeqCst);
        // It may have come to rest before it was told that somebody waits.
        if is_wanted() {
            let begun = Instant::now();
            while core.is_awaited.load(Ordering::SeqCst)
                && let Some(left) = self.wait_max.checked_sub(begun.elapsed())
            {
                thread::park_timeout(left);
            }
        }
        core.is_awaited.store(false, Ordering::SeqCst);
        true
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::server::cores;

    /// A core that this thread is on until the test ends, its socket, and who replies from it.
    fn here() -> (Precedence, UdpSocket, Vec<Replier>) {
        let core = cores::allowed()[0];
        cores::pin(core).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let replier = Replier::new(&[socket.try_clone().unwrap()]).unwrap();
        (Precedence::new(&[core]), socket, vec![replier])
    }

    #[test]
    fn nobody_waits_for_a_core_that_rests_or_is_another() {
        let (precedence, _socket, repliers) = here();
        assert!(!precedence.let_pass(&repliers));
        precedence.works(0);
        assert!(precedence.let_pass(&repliers), "it works, and does not rest for a millisecond");
        precedence.rests(0);
        assert!(!precedence.let_pass(&repliers));
        let elsewhere = Precedence::new(&[usize::MAX - 1]);
        elsewhere.works(0);
        assert!(!elsewhere.let_pass(&repliers));
    }

    #[test]
    fn a_query_that_has_come_goes_first() {
        let (precedence, socket, repliers) = here();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"query", socket.local_addr().unwrap()).unwrap();
        assert!(precedence.let_pass(&repliers), "its core has not taken it yet");
        socket.recv_from(&mut [0; 16]).unwrap();
        assert!(!precedence.let_pass(&repliers));
    }

    /// A rest ends a wait that would be long otherwise.
    #[test]
    fn who_rests_is_no_longer_waited_for() {
        const ROUNDS: u32 = 50;
        let (mut precedence, _socket, repliers) = here();
        precedence.wait_max = Duration::from_secs(5);
        let begun = Instant::now();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    precedence.works(0);
                    while !precedence.cores[0].is_awaited.load(Ordering::SeqCst) {
                        if is_over.load(Ordering::SeqCst) {
                            return;
                        }
                        thread::yield_now();
                    }
                    precedence.rests(0);
                }
            });
            for _ in 0..ROUNDS {
                while !precedence.cores[0].is_busy.load(Ordering::SeqCst) {
                    thread::yield_now();
                }
                precedence.let_pass(&repliers);
            }
            is_over.store(true, Ordering::SeqCst);
        });
        assert!(begun.elapsed() < precedence.wait_max * ROUNDS / 2, "nobody has been woken");
    }
}
