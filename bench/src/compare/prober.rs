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
const TIMEOUT: Duration = Duration::from_millis(500);

/// Asks `server` for `questions`, `rate` a second on average, like clients that know nothing of
/// each other.
pub fn ask(
    bed: &Bed,
    server: SocketAddr,
    questions: &Arc<Questions>,
    rate: f64,
    seconds: f64,
    is_beside: bool,
) -> io::Result<Run> {
    bed.pin_polling()?;
    let options = LoadOptions {
        cores: vec![bed.client_core()],
        ports: if is_beside { 16 } else { 64 },
        run: 1,
        connections: 20,
        timeout: TIMEOUT,
        late: Duration::from_micros(500),
        ..LoadOptions::to(server)
    };
    let load = Load {
        label: if is_beside { "probe".into() } else { "load".into() },
        schedule: Schedule::Poisson,
        rate,
        seconds,
        seed: 53,
    };
    bed.with_client(|| {
        if is_beside {
            go_first()?;
        }
        load::run(&options, questions, &load, &mut |_| ())
    })
}

/// Puts this thread, and those it starts, before others on their core.
fn go_first() -> io::Result<()> {
    let thread = gettid().to_string();
    let status =
        Command::new("chrt").args(["-f", "-p", PRIORITY, &thread]).stdin(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("chrt fails: is this root?")) }
}
