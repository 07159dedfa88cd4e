//! Wiring: configuration, start-up, workers, control. The only layer that speaks.
//!
//! ```text
//!   cli ──> config ──> startup: bind ── drop privileges ── load zones ── workers ── ready
//!                                                                            │
//!   control thread  <── SIGHUP, SIGUSR1, SIGTERM          one pinned thread per core: worker
//!        └── loads, publishes, prints, stops              threads for TCP: stream
//! ```

mod cache_control;
mod candidate;
mod catalogs;
mod check;
mod cli;
mod commands;
mod config;
mod connections;
mod control;
mod cores;
mod deferred;
mod disk;
mod dynamic;
mod explain;
mod export;
mod files;
mod forwarding;
mod inspection;
mod interfaces;
mod journal;
mod key;
mod keys;
mod lanes;
mod loader;
mod members;
mod misses;
mod notify;
mod places;
mod ports;
mod precedence;
mod renewal;
mod report;
mod resolving;
mod secondary;
mod special;
mod startup;
mod state;
mod stream;
mod transfers;
mod tune;
mod updates;
pub mod upstream;
mod worker;
mod writer;
mod zones;

use std::process::ExitCode;

/// Runs the program: its arguments, its exit code.
pub fn main() -> ExitCode {
    cli::run()
}
