//! How busy a core is: a spinner of the lowest class counts what nobody else wanted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ring53::net::give_way;

use crate::bed::echo::pin;

/// A gap longer than this between two readings of the clock was somebody else's.
const GAP: Duration = Duration::from_nanos(300);
/// The same with a system call between the two.
const GAP_YIELDING: Duration = Duration::from_nanos(1500);
/// Readings between two system calls. A kernel that preempts lazily (6.13 and later) does not
/// interrupt a thread for another that a different core has woken: it waits for the next system
/// call, or for the tick, which comes every 4 ms.
const READINGS: usize = 50;

/// Spins on `core` for `duration` and returns the share of the time it did not get.
pub fn busy(core: usize, duration: Duration) -> io::Result<f64> {
    // Its class is the thread's: whoever calls keeps their own.
    let spinner = thread::Builder::new().name("spinner".into()).spawn(move || {
        pin(core)?;
        give_way();
        let start = Instant::now();
        let mut last = start;
        let mut busy = Duration::ZERO;
        while last - start < duration {
            for gap in [GAP; READINGS].into_iter().chain([GAP_YIELDING]) {
                if gap == GAP_YIELDING {
                    thread::yield_now();
                }
                let now = Instant::now();
                if now - last > gap {
                    busy += now - last;
                }
                last = now;
            }
        }
        io::Result::Ok(busy.as_secs_f64() / (last - start).as_secs_f64())
    })?;
    spinner.join().map_err(|_| io::Error::other("the spinner has ended early"))?
}

/// Keeps cores from halting until it is dropped: a virtual core that halts may take milliseconds to
/// come back. Whoever else wants the core gets it at once.
pub struct Awake {
    ends: Arc<AtomicBool>,
    spinners: Vec<JoinHandle<()>>,
}

impl Awake {
    /// Of these cores.
    pub fn new(cores: &[usize]) -> io::Result<Awake> {
        let mut awake = Awake { ends: Arc::default(), spinners: Vec::new() };
        for &core in cores {
            let ends = awake.ends.clone();
            awake.spinners.push(thread::Builder::new().name("awake".into()).spawn(move || {
                give_way();
                // A core that is not there is the generator's to complain about.
                let is_there = pin(core).is_ok();
                while is_there && !ends.load(Ordering::Relaxed) {
                    thread::yield_now();
                }
            })?);
        }
        Ok(awake)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for spinner in self.spinners.drain(..) {
            // It cannot fail.
            let _ = spinner.join();
        }
    }
}

/// Spins on `core` for `duration` and prints the share of the time it did not get.
pub fn run(core: usize, duration: Duration) -> io::Result<()> {
    println!("busy {:.4}", busy(core, duration)?);
    Ok(())
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_kept_awake_until_nobody_wants_them_so() {
        let awake = Awake::new(&[0, 0]).unwrap();
        thread::sleep(Duration::from_millis(5));
        assert!(awake.spinners.iter().all(|spinner| !spinner.is_finished()));
        let ends = awake.ends.clone();
        drop(awake);
        assert_eq!(Arc::strong_count(&ends), 1);
    }

    #[test]
    fn a_share_is_one_of_the_whole() {
        let share = busy(0, Duration::from_millis(20)).unwrap();
        assert!((0.0..=1.0).contains(&share), "{share}");
        assert!(busy(1 << 20, Duration::from_millis(1)).is_err());
    }
}
