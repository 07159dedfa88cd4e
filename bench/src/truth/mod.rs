//! Known truth: a server that delays, drops and falsifies by a seeded script and logs what it did,
//! and the generator held against that log.
//!
//! ```text
//!   script, seed ──> server ──> log ──────┐
//!                      ^                  ├──> check: do both sides say the same?
//!            load ─────┘ ──> report::Run ─┘
//! ```

mod arrivals;
pub mod check;
pub mod known;
pub mod log;
pub mod reply;
pub mod script;
pub mod server;
mod streams;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::bed::echo::pin;

use log::ENTRIES_MAX;
use script::{Act, Script};
use server::Server;

/// Where to answer, how, and where to say what was done.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Address and port, for UDP and TCP; port 0 for any.
    #[arg(long)]
    listen: SocketAddr,
    /// What becomes of queries, for example "delay log-normal 300us 0.5, drop 0.1%, stall 50ms
    /// every 2s": delay fixed T | uniform T T | exponential T | log-normal MEDIAN SIGMA | bimodal T
    /// T SHARE; stall T every T; and shares of: drop, rcode, question, id (wrong ones), truncate,
    /// duplicate, elsewhere (from another port).
    #[arg(long, default_value = "")]
    script: Script,
    /// Seed of everything that is drawn.
    #[arg(long, default_value_t = 53)]
    seed: u64,
    /// The log, written at the end.
    #[arg(long, value_name = "FILE")]
    log: PathBuf,
    /// Core to pin to.
    #[arg(long)]
    core: Option<usize>,
    /// End after so many seconds; without, on SIGTERM or SIGINT.
    #[arg(long)]
    seconds: Option<f64>,
}

/// Serves, then writes the log.
pub fn run(options: &Options) -> io::Result<()> {
    if let Some(core) = options.core {
        pin(core)?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, stop.clone())?;
    }
    let server = Server::bind(options.listen, options.script.clone(), options.seed)?;
    println!("listening on {}", server.address());
    io::stdout().flush()?;
    let end = options.seconds.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds));
    let log = server.run(&mut || {
        stop.load(Ordering::Relaxed) || end.is_some_and(|end| Instant::now() >= end)
    })?;
    log.write(&options.log)?;
    let queries = log.entries.iter().filter(|entry| entry.act != Act::Again).count();
    let sent = log.entries.iter().filter(|entry| entry.departed_ns > 0).count();
    // Whoever read the address may be gone: the log is what counts.
    let unreadable = log.unreadable;
    let _ = writeln!(io::stdout(), "{queries} queries, {sent} replies, {unreadable} unreadable");
    match log.entries.len() {
        ENTRIES_MAX.. => Err(io::Error::other("the log is full: ask less, or for less long")),
        _ => Ok(()),
    }
}
