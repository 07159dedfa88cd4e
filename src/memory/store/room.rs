//! How the log makes room: which segments give way, and what of them stays.
//!
//! ```text
//!   every new entry ──> go_on: some entries of the segment that is visited
//!   visit   count what was used ──┬── nearly all ──> settle, where it lies
//!                                 └── else ────────> give up: written again, or dropped
//! ```
//!
//! A segment has thousands of entries, and looking at one means a cache line from anywhere: it is
//! visited some entries at a time while another one fills, so that no new entry waits for all of
//! it. Only where that was not enough is a visit ended at once.

use std::sync::atomic::{AtomicU64, Ordering};

use arrayvec::ArrayVec;

use super::{
    BUCKET_LEN, Entry, Item, KEPT, Log, PLACE, SPARE, StoreWriter, UNIT, USED, YOUNG_PART,
    entry_len,
};
use crate::memory::prefetch_address;

/// Entries that are visited for a new one,
const VISITED_ENTRIES: usize = 16;
/// unless fewer have so many octets.
const VISITED_LEN: usize = 32 << 10;
/// Segments visited for one before half of each has to go: that ends, whatever is read.
const VISITED_MAX: u32 = 8;
/// Where less than this part of all segments is free, the young are settled ahead.
const FREE_PART: usize = 8;

/// A segment that is gone through.
pub(super) struct Visit {
    segment: usize,
    filled: usize,
    /// Octets that are done.
    at: usize,
    from: From,
    does: Does,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Young,
    /// Its room is not needed yet: it is only settled, if it can be.
    YoungAhead,
    Settled,
}

#[derive(Clone, Copy)]
enum Does {
    /// Octets of entries that were used.
    Count(usize),
    Settle,
    /// Octets that are written again, and may be.
    GiveUp {
        kept: usize,
        kept_max: usize,
    },
}

impl<'a> StoreWriter<'a> {
    /// Begins to fill another segment, which has room for `needed` octets. `false` if there is
    /// none: readers hold what was given up.
    pub(super) fn next_segment(&mut self, needed: usize, is_over: &dyn Fn(&[u8]) -> bool) -> bool {
        self.reclaim();
        // What is written again may have taken the last one, and gives up one for it.
        while self.spare() == 0 && self.go_on(true, is_over) {
            self.reclaim();
        }
        if !self.begin_segment() {
            return false;
        }
        loop {
            // Another one is made free while this one fills.
            if self.spare() + 1 < SPARE {
                if !self.go_on(true, is_over) {
                    return true;
                }
                self.reclaim();
            } else if self.log.filled + needed <= self.store.segment_len || !self.begin_segment() {
                return true;
            }
        }
    }

    /// Makes some of the room that will be needed.
    #[inline]
    pub(super) fn make_room_ahead(&mut self, is_over: &dyn Fn(&[u8]) -> bool) {
        // Most of the time there is nothing to do.
        let enough = (self.store.segments / FREE_PART).max(SPARE);
        if self.log.visit.is_some() || self.log.free.len() < enough {
            self.go_on(false, is_over);
        }
    }

    fn spare(&self) -> usize {
        self.log.free.len() + self.log.waiting.len()
    }

    /// Begins to fill a free segment, if there is one.
    fn begin_segment(&mut self) -> bool {
        if self.log.free.is_empty() {
            self.reclaim();
        }
        let Some(next) = self.log.free.pop() else { return false };
        let (active, filled) = (self.log.active, self.log.filled);
        self.log.young.push_back((active, filled));
        (self.log.active, self.log.filled) = (next, 0);
        self.reach();
        true
    }

    /// The active segment has been begun.
    pub(super) fn reach(&self) {
        self.store.reached.fetch_max(self.store.segment(self.log.active).end, Ordering::Relaxed);
    }

    /// Whether there are more young ones than new entries need to show that they are used.
    fn has_enough_young(&self) -> bool {
        self.log.young.len() > (self.store.segments / YOUNG_PART).max(2)
    }

    /// Goes on with a visit, or begins one, for some entries of a segment or all it has left;
    /// `false` if there is nothing to visit.
    fn go_on(&mut self, all: bool, is_over: &dyn Fn(&[u8]) -> bool) -> bool {
        let Some(mut visit) = self.log.visit.take().or_else(|| self.next_visit()) else {
            return false;
        };
        if self.pass(&mut visit, all, is_over) {
            self.log.visit = self.conclude(visit);
        } else {
            self.log.visit = Some(visit);
        }
        true
    }

    /// The next segment to be visited: the oldest young one if there are enough of those.
    fn next_visit(&mut self) -> Option<Visit> {
        let is_young = self.has_enough_young();
        let from = if self.spare() < SPARE {
            self.log.visited += 1;
            if is_young || self.log.settled.is_empty() { From::Young } else { From::Settled }
        } else if is_young && !self.log.oldest_gives_up {
            From::YoungAhead
        } else {
            return None;
        };
        let list = if from == From::Settled { &mut self.log.settled } else { &mut self.log.young };
        let (segment, filled) = list.pop_front()?;
        Some(Visit { segment, filled, at: 0, from, does: Does::Count(0) })
    }

    /// What comes after all of a segment was gone through; `None`: it is done with.
    fn conclude(&mut self, visit: Visit) -> Option<Visit> {
        let Visit { segment, filled, from, does, .. } = visit;
        let is_used = match does {
            Does::Count(used) => self.is_nearly_all(used),
            Does::Settle => {
                self.log.settled.push_back((segment, filled));
                return None;
            }
            Does::GiveUp { kept, .. } => {
                if kept <= self.store.segment_len / 2 {
                    self.log.visited = 0;
                }
                self.log.waiting.push_back((segment, self.store.epochs.advance()));
                return None;
            }
        };
        if from == From::YoungAhead && !is_used {
            self.log.oldest_gives_up = true;
            self.log.young.push_front((segment, filled));
            return None;
        }
        if from != From::Settled {
            self.log.oldest_gives_up = false;
        }
        let is_long = self.log.visited > VISITED_MAX;
        let does = if is_used && !is_long {
            Does::Settle
        } else {
            let part = if is_used || is_long { 2 } else { 1 };
            Does::GiveUp { kept: 0, kept_max: self.store.segment_len / part }
        };
        Some(Visit { at: 0, does, ..visit })
    }

    /// Whether so many octets are nearly all of a segment.
    fn is_nearly_all(&self, octets: usize) -> bool {
        octets >= self.store.segment_len / 4 * 3
    }

    /// Does with some entries of a segment, or with all that are left, what its visit is for;
    /// whether it is through.
    fn pass(&mut self, visit: &mut Visit, all: bool, is_over: &dyn Fn(&[u8]) -> bool) -> bool {
        while visit.at < visit.filled {
            let some = self.entries_of(visit);
            #[cfg(test)]
            {
                self.log.looked_at += some.len();
            }
            for (entry, place) in some {
                let Some((word, seen)) = self.store.word_of(entry.hash, place) else { continue };
                match &mut visit.does {
                    Does::Count(used) if seen & USED != 0 && !is_over(entry.octets) => {
                        *used += entry_len(entry.octets.len());
                    }
                    Does::Count(_) => {}
                    // Behind all others, where it lies: what is used from now on counts.
                    Does::Settle if seen & USED != 0 => {
                        word.fetch_or(KEPT, Ordering::Relaxed);
                        word.fetch_and(!USED, Ordering::Relaxed);
                    }
                    Does::Settle => {}
                    Does::GiveUp { kept, kept_max } => {
                        let len = entry_len(entry.octets.len());
                        let is_worth = seen & USED != 0 && *kept + len <= *kept_max;
                        if is_worth && !is_over(entry.octets) && self.write_again(&entry, word) {
                            *kept += len;
                        } else {
                            self.drop_entry(word, seen);
                            self.log.counts.evicted += 1;
                        }
                    }
                }
            }
            if let Does::Count(used) = visit.does
                && !self.is_nearly_all(used + visit.filled - visit.at)
            {
                // The rest cannot change that.
                visit.at = visit.filled;
            }
            if !all {
                break;
            }
        }
        visit.at >= visit.filled
    }

    /// Some of the next entries of a segment with their places; where their words may be is on its
    /// way from memory.
    fn entries_of(&self, visit: &mut Visit) -> ArrayVec<(Entry<'a>, u64), VISITED_ENTRIES> {
        let (store, start) = (self.store, self.store.segment(visit.segment).start);
        let end = visit.filled.min(visit.at + VISITED_LEN);
        let mut some = ArrayVec::new();
        while !some.is_full() && visit.at < end {
            let place = ((start + visit.at) / UNIT) as u64;
            // SAFETY:
            // - An entry of a filled segment starts there; this writer has written it and makes the
            //   segment free only later.
            let entry = unsafe { store.entry(place) };
            visit.at += entry_len(entry.octets.len());
            let [first, _] = store.bucket_of(entry.hash);
            prefetch_address(store.memory.start.wrapping_add(first * BUCKET_LEN));
            some.push((entry, place));
        }
        some
    }

    /// Writes an entry again at the end of the log; `false` if there is no room.
    fn write_again(&mut self, entry: &Entry<'_>, word: &AtomicU64) -> bool {
        let Entry { hash, octets } = *entry;
        let has_room = |log: &Log| log.filled + entry_len(octets.len()) <= self.store.segment_len;
        if !has_room(&self.log) && !self.begin_segment() {
            return false;
        }
        let item = Item { hash, len: octets.len(), insists: false };
        let place = self.append(item, |copy| copy.copy_from_slice(octets));
        // What is claimed stays so.
        let seen = word.load(Ordering::Relaxed);
        word.store(seen & !(USED | PLACE) | KEPT | place, Ordering::Release);
        self.log.counts.kept += 1;
        true
    }

    /// Makes segments free whose readers have ended.
    fn reclaim(&mut self) {
        while let Some(&(segment, epoch)) = self.log.waiting.front()
            && self.store.epochs.is_past(epoch)
        {
            self.log.waiting.pop_front();
            self.log.free.push(segment);
        }
    }
}
