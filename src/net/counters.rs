//! What happened on a path: one writer, any number of readers.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counted by one path, read by anybody.
#[derive(Default)]
pub struct PathCounters {
    received: AtomicU64,
    batches: AtomicU64,
    sent: AtomicU64,
    send_full: AtomicU64,
    send_unreachable: AtomicU64,
    send_too_large: AtomicU64,
    send_other: AtomicU64,
    oversized: AtomicU64,
    buffers_exhausted: AtomicU64,
    socket_drops: AtomicU64,
    /// Waits until the sockets are asked for their drops again.
    waits_left: AtomicU64,
}

/// Asking a socket costs a system call: under load it is done once in this many waits.
const WAITS_PER_DROP_COUNT: u64 = 256;

/// Adds to a counter that only this thread writes: no locked instruction.
#[inline(always)]
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
}

impl PathCounters {
    #[inline(always)]
    pub(super) fn count_batch(&self, datagrams: usize) {
        add(&self.received, datagrams as u64);
        add(&self.batches, 1);
    }

    #[inline(always)]
    pub(super) fn count_sent(&self, replies: usize) {
        add(&self.sent, replies as u64);
    }

    /// A datagram longer than a buffer: no query, and not answered.
    pub(super) fn count_oversized(&self) {
        add(&self.oversized, 1);
    }

    /// The kernel had a datagram and no buffer for it: it stays in the socket.
    pub(super) fn count_exhausted(&self) {
        add(&self.buffers_exhausted, 1);
    }

    /// Whether the sockets should be asked for their drops before this wait.
    pub(super) fn is_drop_count_due(&self) -> bool {
        let left = self.waits_left.load(Ordering::Relaxed);
        let next = left.checked_sub(1).unwrap_or(WAITS_PER_DROP_COUNT);
        self.waits_left.store(next, Ordering::Relaxed);
        left == 0
    }

    /// Nothing arrives: there is time to ask before the next wait.
    pub(super) fn make_drop_count_due(&self) {
        self.waits_left.store(0, Ordering::Relaxed);
    }

    /// Takes the kernel's count of what did not fit into the socket.
    pub(super) fn set_socket_drops(&self, drops: u64) {
        self.socket_drops.store(drops, Ordering::Relaxed);
    }

    /// A reply that the kernel did not take.
    #[cold]
    pub(super) fn count_send_error(&self, error: &io::Error) {
        let counter = match error.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => &self.send_full,
            Some(
                libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::ECONNREFUSED
                | libc::EPERM
                | libc::EACCES
                | libc::EINVAL
                | libc::EADDRNOTAVAIL,
            ) => &self.send_unreachable,
            Some(libc::EMSGSIZE) => &self.send_too_large,
            _ => &self.send_other,
        };
        add(counter, 1);
    }

    /// Datagrams received.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Everything counted, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        [
            ("received", &self.received),
            ("batches", &self.batches),
            ("sent", &self.sent),
            ("send_full", &self.send_full),
            ("send_unreachable", &self.send_unreachable),
            ("send_too_large", &self.send_too_large),
            ("send_other", &self.send_other),
            ("oversized", &self.oversized),
            ("buffers_exhausted", &self.buffers_exhausted),
            ("socket_drops", &self.socket_drops),
        ]
        .into_iter()
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
    }
}
