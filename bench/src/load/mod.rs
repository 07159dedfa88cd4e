//! Open-loop load: the times of sending are fixed before the first query, and no answer, late or
//! missing, changes them.
//!
//! ```text
//!   Times ──> due? ──> Questions ──> Flight (lane, ID, question, intended time) ──> Carrier
//!   Carrier ──> reply ──> Flight: whose? ──> latency from the intended time ──> histogram
//!   time-out ──> Flight ──> lost, at the time-out's value ──> histogram
//! ```

pub mod carrier;
pub mod cli;
pub mod schedule;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::mix::Questions;
use crate::report::model::Run;

pub use schedule::Schedule;

/// Whom to ask and how.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The server.
    pub server: SocketAddr,
    /// Addresses to ask from, in turn; empty: what the routes say.
    pub sources: Vec<IpAddr>,
    /// Cores to pin threads to, one thread each; empty: one thread, not pinned.
    pub cores: Vec<usize>,
    /// Source ports of each thread.
    pub ports: usize,
    /// Connections of each thread, for queries over TCP.
    pub connections: usize,
    /// Queries on one connection before it is closed and another opened; 0: no limit.
    pub queries_per_connection: u32,
    /// When an unanswered query is lost.
    pub timeout: Duration,
    /// From when on a query is sent late.
    pub late: Duration,
    /// `uring`, `mmsg` or `auto`.
    pub path: String,
    /// The process of the server, if it is on this machine: for its counters.
    pub server_pid: Option<u32>,
}

/// One load.
#[derive(Clone, Debug)]
pub struct Load {
    /// What it is for.
    pub label: String,
    /// When queries are sent.
    pub schedule: Schedule,
    /// How many a second.
    pub rate: f64,
    /// For how long.
    pub seconds: f64,
    /// Seed of the schedule and of what is drawn.
    pub seed: u64,
}

/// What a load looks like while it runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Live {
    /// Seconds since the start.
    pub seconds: f64,
    /// Queries sent so far.
    pub sent: u64,
    /// Good answers so far.
    pub good: u64,
    /// Lost or wrong so far.
    pub lost: u64,
    /// 99th percentile of the latest second's latencies, microseconds.
    pub p99: f64,
}

/// Sends one load and waits for its last answer or time-out. `live` is called several times a
/// second, on the calling thread.
pub fn run(
    _options: &LoadOptions,
    _questions: &Arc<Questions>,
    _load: &Load,
    _live: &mut dyn FnMut(&Live),
) -> io::Result<Run> {
    Err(io::Error::other("not yet"))
}
