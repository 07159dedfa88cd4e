//! What carries queries: the seam between the generator's loop and datagrams or streams.

use std::io;
use std::time::Duration;

/// Queries to one server over several lanes: sockets, or connections.
///
/// A lane has 65,536 IDs of its own; replies are matched by lane, ID and question.
pub trait Carrier {
    /// How many lanes there are.
    fn lanes(&self) -> usize;

    /// Takes a query for `lane`, whose ID is set. `false` if there is no room now: after
    /// [`Carrier::flush`] there may be.
    fn queue(&mut self, lane: usize, message: &[u8]) -> bool;

    /// Sends what is queued, as far as it goes without waiting; returns how many of the queued
    /// queries could not be sent and never will.
    fn flush(&mut self) -> io::Result<usize>;

    /// Hands out what has arrived, without waiting; returns how much that was.
    fn receive(&mut self, take: &mut dyn FnMut(Arrival<'_>)) -> io::Result<usize>;

    /// Waits until something may have arrived, or until `timeout` has passed.
    fn wait(&mut self, timeout: Duration) -> io::Result<()>;

    /// What the kernel dropped at the sockets because they were full.
    fn drops(&self) -> u64;

    /// Whether the last query was not taken because this side has no descriptor, port or memory
    /// left.
    fn lacks_means(&self) -> bool {
        false
    }

    /// Connections opened, and those that failed or were closed with queries outstanding.
    fn connections(&self) -> (u64, u64) {
        (0, 0)
    }
}

/// A message that has arrived.
pub struct Arrival<'a> {
    /// On which lane.
    pub lane: usize,
    /// The message.
    pub message: &'a [u8],
    /// When, in nanoseconds of the monotonic clock, if the kernel said so.
    pub at_ns: Option<u64>,
}
