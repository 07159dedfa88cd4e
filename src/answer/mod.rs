//! The one function that answers.

mod counters;

pub use counters::{Counters, DropReason};

use std::sync::Arc;

use crate::snapshot::Snapshot;

/// How a query came, which decides how long its answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One message in one datagram: the EDNS size decides.
    Datagram,
    /// A stream with length prefixes: 65,535 octets.
    Stream,
}

/// What becomes of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The first `n` octets of the buffer are the reply.
    Reply(usize),
    /// There is no reply.
    Drop(DropReason),
    /// The reply comes later.
    Defer(Ticket),
}

/// Deferred work. There is none yet: authority answers at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub u32);

/// A request and its reply slot.
pub struct Exchange<'a> {
    /// Holds the query, then the reply; its length bounds the reply.
    pub buffer: &'a mut [u8],
    /// Octets of the query.
    pub query_len: usize,
    /// How it came.
    pub transport: Transport,
    /// What became of it; any value before.
    pub verdict: Verdict,
}

/// What one core keeps between batches.
pub struct CoreState {
    /// Verdicts and drop reasons.
    pub counters: Arc<Counters>,
}

impl CoreState {
    /// A core's state, counting into `counters`.
    pub fn new(counters: Arc<Counters>) -> CoreState {
        CoreState { counters }
    }
}

/// Settles every exchange; at most `BATCH_COUNT_MAX` of them.
pub fn answer_batch(
    snapshot: &Snapshot,
    now: std::time::Duration,
    core: &mut CoreState,
    exchanges: &mut [Exchange<'_>],
) {
    let _ = (snapshot, now, core, exchanges);
}
