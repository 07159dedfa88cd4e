//! Datagram paths and stream transports: bytes in, bytes out, no DNS type.
//!
//! ```text
//!   socket ──receive──> Batch of datagrams ──(the caller writes replies in place)──send──> socket
//! ```

mod batch;

pub use batch::{Batch, Datagram};

use std::io;
use std::time::Duration;

/// The seam between datagrams and whoever answers them. One path per core, owned by its thread.
pub trait PacketPath {
    /// Fills the empty `batch` with what has already arrived; never waits.
    fn receive(&mut self, batch: &mut Batch) -> io::Result<()>;

    /// Sends every reply settled in `batch`, gives its buffers back, and leaves it empty.
    fn send(&mut self, batch: &mut Batch) -> io::Result<()>;

    /// Waits until a datagram may have arrived, a signal came, or `timeout` has passed.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()>;

    /// What happened on this path so far.
    fn counters(&self) -> &std::sync::Arc<PathCounters>;
}

/// Counted by one path, read by anybody.
#[derive(Default)]
pub struct PathCounters {}
