//! The generator of this program, as a prober beside kxdpgun and as a load by itself: it matches,
//! times and verifies every answer.

use std::io;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::gettid;

use crate::bed::Bed;
use crate::load::{self, Load, LoadOptions, Schedule};
use crate::mix::Questions;
use crate::report::model::Run;

/// Queries a second of a prober: few beside the load.
pub const RATE: f64 = 1000.0;
/// Before the generator on the same core, after the thread that polls the veth: what a prober sees
/// is the server's latency.
const PRIORITY: &str = "40";
/// From then on an answer is lost.
pub const TIMEOUT: Duration = Duration::from_millis(500);

/// How much is asked, for how long, and the seed of what and when.
#[derive(Clone, Copy)]
pub struct Rate {
    /// A second.
    pub rate: f64,
    /// How long.
    pub seconds: f64,
    /// Of the schedule and the questions.
    pub seed: u64,
}

impl Rate {
    /// With the usual seed.
    pub const fn new(rate: f64, seconds: f64) -> Rate {
        Rate { rate, seconds, seed: 53 }
    }
}

/// Asks `server` for `questions`, like clients that know nothing of each other.
pub fn ask(
    bed: &Bed,
    server: SocketAddr,
    questions: &Arc<Questions>,
    rate: Rate,
    is_beside: bool,
) -> io::Result<Run> {
    let mut runs = ask_each(bed, server, questions, &[rate], is_beside)?;
    runs.pop().ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Asks at one rate after the other.
pub fn ask_each(
    bed: &Bed,
    server: SocketAddr,
    questions: &Arc<Questions>,
    rates: &[Rate],
    is_beside: bool,
) -> io::Result<Vec<Run>> {
    bed.pin_polling()?;
    let options = LoadOptions {
        cores: vec![bed.client_core()],
        ports: if is_beside { 16 } else { 64 },
        run: 1,
        connections: 20,
        timeout: TIMEOUT,
        late: Duration::from_micros(500),
        // Not before: the generator beside it would stand still, and send in a burst what it owes.
        on_ready: if is_beside { go_first } else { || Ok(()) },
        ..LoadOptions::to(server)
    };
    let load = |&Rate { rate, seconds, seed }: &Rate| {
        let label = if is_beside { "probe".into() } else { "load".into() };
        let load = Load { label, schedule: Schedule::Poisson, rate, seconds, seed };
        load::run(&options, questions, &load, &mut |_| ())
    };
    bed.with_client(|| rates.iter().map(load).collect())
}

/// Puts this thread before others on its core.
fn go_first() -> io::Result<()> {
    let thread = gettid().to_string();
    let status =
        Command::new("chrt").args(["-f", "-p", PRIORITY, &thread]).stdin(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("chrt fails: is this root?")) }
}
