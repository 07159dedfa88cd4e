//! Verdicts counted per core: one writer, any number of readers, no shared cache line.

use std::sync::atomic::{AtomicU64, Ordering};

//----------- DropReason -----------------------------------------------------

/// Why a datagram gets no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DropReason {
    /// Less than a header: nobody could match a reply to it.
    TooShort,
    /// A response (QR set): answering it could make two servers answer each other for ever.
    Response,
}

impl DropReason {
    const ALL: [DropReason; 2] = [DropReason::TooShort, DropReason::Response];

    /// The name used in metrics.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::TooShort => "too_short",
            DropReason::Response => "response",
        }
    }
}

//----------- Counters -------------------------------------------------------

/// One core's counts. The core adds, everybody may read.
#[derive(Default)]
pub struct Counters {
    rcodes: [AtomicU64; 24],
    truncated: AtomicU64,
    deferred: AtomicU64,
    cached: AtomicU64,
    drops: [AtomicU64; DropReason::ALL.len()],
}

/// Names of the response codes (RFC 6895, 2.3) as they are counted.
const RCODE_NAMES: [&str; 24] = [
    "noerror",
    "formerr",
    "servfail",
    "nxdomain",
    "notimp",
    "refused",
    "yxdomain",
    "yxrrset",
    "nxrrset",
    "notauth",
    "notzone",
    "dsotypeni",
    "rcode12",
    "rcode13",
    "rcode14",
    "rcode15",
    "badvers",
    "badkey",
    "badtime",
    "badmode",
    "badname",
    "badalg",
    "badtrunc",
    "badcookie",
];

/// Adds to a counter that only this thread writes: no locked instruction.
#[inline(always)]
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
}

impl Counters {
    /// Counts one reply.
    #[inline(always)]
    pub fn count_reply(&self, rcode: u16, truncated: bool) {
        add(&self.rcodes[usize::from(rcode).min(RCODE_NAMES.len() - 1)], 1);
        if truncated {
            add(&self.truncated, 1);
        }
    }

    /// Counts one query whose reply comes later.
    pub fn count_deferred(&self) {
        add(&self.deferred, 1);
    }

    /// Counts replies, which are counted otherwise too, that have something of the cache.
    #[inline(always)]
    pub fn count_cached(&self, count: u64) {
        add(&self.cached, count);
    }

    /// Replies that had something of the cache.
    pub fn cached(&self) -> u64 {
        self.cached.load(Ordering::Relaxed)
    }

    /// Counts one query without a reply.
    #[inline(always)]
    pub fn count_drop(&self, reason: DropReason) {
        add(&self.drops[reason as usize], 1);
    }

    /// Everything counted, as `(kind, name, count)`, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let replies = RCODE_NAMES.iter().zip(&self.rcodes);
        let drops = DropReason::ALL.iter().zip(&self.drops);
        replies
            .map(move |(name, counter)| ("reply", *name, load(counter)))
            .chain(std::iter::once(("reply", "truncated", load(&self.truncated))))
            .chain(std::iter::once(("reply", "deferred", load(&self.deferred))))
            .chain(std::iter::once(("reply", "cached", load(&self.cached))))
            .chain(drops.map(move |(reason, counter)| ("drop", reason.name(), load(counter))))
    }
}
