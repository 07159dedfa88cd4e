//! Wiring: configuration, start-up, workers, control. The only layer that speaks.
//!
//! ```text
//!   cli ──> config ──> startup: bind ── drop privileges ── load zones ── workers ── ready
//!                                                                            │
//!   control thread  <── SIGHUP, SIGUSR1, SIGTERM          one pinned thread per core: worker
//!        └── loads, publishes, prints, stops              one thread for TCP: stream
//! ```

mod candidate;
mod check;
mod cli;
mod commands;
mod config;
mod control;
mod cores;
mod deferred;
mod disk;
mod explain;
mod export;
mod journal;
mod key;
mod keys;
mod loader;
mod notify;
mod report;
mod secondary;
mod startup;
mod state;
mod stream;
mod transfers;
mod worker;
mod zones;

use std::process::ExitCode;

/// Runs the program: its arguments, its exit code.
pub fn main() -> ExitCode {
    cli::run()
}
