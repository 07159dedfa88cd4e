//! Wiring: configuration, start-up, workers, control. The only layer that speaks.
//!
//! ```text
//!   cli ──> config ──> startup: bind ── drop privileges ── load zones ── workers ── ready
//!                                                                            │
//!   control thread  <── SIGHUP, SIGUSR1, SIGTERM          one pinned thread per core: worker
//!        └── loads, publishes, prints, stops              threads for TCP: stream
//! ```

mod check;
mod cli;
mod commands;
mod config;
mod control;
mod cores;
mod disk;
mod explain;
mod export;
mod forwarding;
mod interfaces;
mod key;
mod keys;
mod report;
mod startup;
mod stream;
mod tune;
mod worker;
mod zones;

use std::process::ExitCode;

/// Runs the program: its arguments, its exit code.
pub fn main() -> ExitCode {
    cli::run()
}
