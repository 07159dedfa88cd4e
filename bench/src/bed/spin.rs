//! How busy a core is: a spinner of the lowest class counts what nobody else wanted.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use ring53::net::give_way;

use crate::bed::echo::pin;

/// A gap longer than this between two readings of the clock was somebody else's.
const GAP: Duration = Duration::from_nanos(300);

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
            let now = Instant::now();
            if now - last > GAP {
                busy += now - last;
            }
            last = now;
        }
        io::Result::Ok(busy.as_secs_f64() / (last - start).as_secs_f64())
    })?;
    spinner.join().map_err(|_| io::Error::other("the spinner has ended early"))?
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
    fn a_share_is_one_of_the_whole() {
        let share = busy(0, Duration::from_millis(20)).unwrap();
        assert!((0.0..=1.0).contains(&share), "{share}");
        assert!(busy(1 << 20, Duration::from_millis(1)).is_err());
    }
}
