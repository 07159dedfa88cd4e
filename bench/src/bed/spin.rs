//! How busy a core is: a spinner of the lowest class counts what nobody else wanted.

use std::io;
use std::time::{Duration, Instant};

use ring53::net::give_way;

use crate::bed::echo::pin;

/// A gap longer than this between two readings of the clock was somebody else's.
const GAP: Duration = Duration::from_nanos(300);

/// Spins on `core` for `duration` and prints the share of the time it did not get.
pub fn run(core: usize, duration: Duration) -> io::Result<()> {
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
    println!("busy {:.4}", busy.as_secs_f64() / (last - start).as_secs_f64());
    Ok(())
}
