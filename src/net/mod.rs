//! Datagram paths and the sockets under them: bytes in, bytes out, no DNS type.
//!
//! ```text
//!   socket ──receive──> Batch of datagrams ──(the caller writes replies in place)──send──> socket
//! ```
//!
//! [`PacketPath`] is the seam. [`UringPath`] is the main path; [`MmsgPath`] is for machines that
//! forbid io_uring and for measuring the one against the other; [`SimPath`] is for tests.

mod batch;
pub mod client;
mod counters;
mod ethtool;
mod mmsg;
mod peer;
mod ring;
mod ring_buffers;
mod sched;
mod sim;
pub mod socket;
mod sys;
mod uring;

pub use batch::{Batch, Datagram};
pub use counters::PathCounters;
pub use ethtool::{ETHTOOL_WORDS, ethtool};
pub use mmsg::MmsgPath;
pub use peer::{Origin, Replier};
pub use sched::{come_first, give_way, stand_back, take_long_slices, take_short_slices};
pub use sim::{Faults, SimPath};
pub use uring::{UringPath, uring_available};

use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The seam between datagrams and whoever answers them. One path per core, owned by its thread.
pub trait PacketPath {
    /// Takes what has already arrived, at most `BATCH_COUNT_MAX` datagrams; never waits.
    ///
    /// What the last batch did not answer is forgotten, so [`PacketPath::send`] comes first.
    fn receive(&mut self) -> io::Result<Batch<'_>>;

    /// Where datagram `index` of the last batch came from; before [`PacketPath::send`].
    fn origin(&self, index: usize) -> Origin;

    /// Sends every reply settled in the last batch and gives its buffers back.
    fn send(&mut self) -> io::Result<()>;

    /// Waits until a datagram may have arrived, a signal came, or `timeout` has passed.
    fn wait(&mut self, timeout: Duration) -> io::Result<()>;

    /// What happened on this path so far.
    fn counters(&self) -> &Arc<PathCounters>;
}
