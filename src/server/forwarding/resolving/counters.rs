//! What happened to questions.

use std::sync::atomic::{AtomicU64, Ordering};

/// What happened to questions: one writer, any number of readers.
#[derive(Default)]
pub struct ResolveCounters {
    /// Questions that came.
    pub misses: AtomicU64,
    /// Those that were answered by the time they came.
    pub answered_meanwhile: AtomicU64,
    /// Those that waited for one in flight.
    pub joined: AtomicU64,
    /// Those that were asked of upstreams.
    pub asked: AtomicU64,
    /// Those that nobody waited for.
    pub prefetched: AtomicU64,
    /// Answers put into the cache.
    pub kept: AtomicU64,
    /// Answers that were not kept: they hold for no time, or there is no room.
    pub not_kept: AtomicU64,
    /// Questions that were answered with what is stale.
    pub stale: AtomicU64,
    /// Questions without an answer.
    pub failed: AtomicU64,
    /// Questions that were not asked, because too much was in flight.
    pub refused: AtomicU64,
    /// Answers that would have led inside.
    pub blocked: AtomicU64,
    /// Pieces of work that waited for queries to be answered first.
    pub gave_way: AtomicU64,
    /// Questions in flight.
    pub in_flight: AtomicU64,
    /// Datagrams from upstreams with an ID that no question on their port has; those that come
    /// after their question has ended are left out, as far as it is remembered.
    pub unmatched: AtomicU64,
    /// Datagrams from upstreams, with the right ID, that were not believed.
    pub declined: AtomicU64,
    /// Datagrams from upstreams that were longer than a reply may be.
    pub oversized: AtomicU64,
}

impl ResolveCounters {
    /// Everything counted, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        [
            ("misses", &self.misses),
            ("answered_meanwhile", &self.answered_meanwhile),
            ("joined", &self.joined),
            ("asked", &self.asked),
            ("prefetched", &self.prefetched),
            ("kept", &self.kept),
            ("not_kept", &self.not_kept),
            ("stale", &self.stale),
            ("failed", &self.failed),
            ("refused", &self.refused),
            ("blocked", &self.blocked),
            ("gave_way", &self.gave_way),
            ("in_flight", &self.in_flight),
            ("unmatched", &self.unmatched),
            ("declined", &self.declined),
            ("oversized", &self.oversized),
        ]
        .into_iter()
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
    }
}

/// One more.
#[inline]
pub(super) fn count(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}
