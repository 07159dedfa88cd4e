//! How the log makes room: which segments give way, and what of them stays.
//!
//! ```text
//!   next_segment ──> settle_ahead: some of the young, before their room is needed
//!        └──> make_room, again and again ──> settle, where it lies ── or give_up: written again
//! ```

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Entry, Item, KEPT, Log, PLACE, SPARE, StoreWriter, UNIT, USED, YOUNG_PART, entry_len};

impl<'a> StoreWriter<'a> {
    /// Begins to fill another segment, which has room for `needed` octets, and sees to it that
    /// there are spare ones. `false` if there is none: readers hold what was given up.
    pub(super) fn next_segment(&mut self, needed: usize, is_over: &dyn Fn(&[u8]) -> bool) -> bool {
        self.reclaim();
        if !self.begin_segment() {
            return false;
        }
        self.settle_ahead(is_over);
        let mut visited = 0;
        loop {
            if self.log.free.len() + self.log.waiting.len() < SPARE {
                visited += 1;
                if !self.make_room(visited, is_over) {
                    return true;
                }
                self.reclaim();
            } else if self.log.filled + needed <= self.store.segment_len || !self.begin_segment() {
                return true;
            }
        }
    }

    /// Begins to fill a free segment, if there is one.
    fn begin_segment(&mut self) -> bool {
        let Some(next) = self.log.free.pop() else { return false };
        let (active, filled) = (self.log.active, self.log.filled);
        self.log.young.push_back((active, filled));
        (self.log.active, self.log.filled) = (next, 0);
        true
    }

    /// Settles the oldest of the young before their room is needed, some at a time: writing never
    /// waits for all of them.
    fn settle_ahead(&mut self, is_over: &dyn Fn(&[u8]) -> bool) {
        const FREE_PART: usize = 8;
        const COUNT_MAX: usize = 8;
        if self.log.free.len() >= self.store.segments / FREE_PART {
            return;
        }
        for _ in 0..COUNT_MAX {
            let oldest = self.log.young.front().copied();
            let Some((segment, filled)) = oldest.filter(|_| self.has_enough_young()) else {
                return;
            };
            if self.log.oldest_gives_up || !self.is_used(segment, filled, is_over) {
                self.log.oldest_gives_up = true;
                return;
            }
            self.log.young.pop_front();
            self.settle(segment, filled);
        }
    }

    /// Whether there are more young ones than new entries need to show that they are used.
    fn has_enough_young(&self) -> bool {
        self.log.young.len() > (self.store.segments / YOUNG_PART).max(2)
    }

    /// Gives up the oldest segment, or settles it; `false` if there is none. After so many that
    /// were `visited` for one new entry half of each has to go: writing ends, whatever is read.
    fn make_room(&mut self, visited: u32, is_over: &dyn Fn(&[u8]) -> bool) -> bool {
        const VISITED_MAX: u32 = 8;
        let from_young = self.has_enough_young() || self.log.settled.is_empty();
        let list = if from_young { &mut self.log.young } else { &mut self.log.settled };
        let Some((segment, filled)) = list.pop_front() else { return false };
        let is_used = self.is_used(segment, filled, is_over);
        if from_young {
            self.log.oldest_gives_up = false;
        }
        if is_used && visited <= VISITED_MAX {
            self.settle(segment, filled);
        } else {
            let part = if is_used || visited > VISITED_MAX { 2 } else { 1 };
            self.give_up(segment, filled, self.store.segment_len / part, is_over);
        }
        true
    }

    /// The entries of a filled segment that are in the table, with their words.
    fn entries_of(
        &self,
        segment: usize,
        filled: usize,
    ) -> impl Iterator<Item = (Entry<'a>, &'a AtomicU64, u64)> + use<'a> {
        let (store, start) = (self.store, self.store.segment(segment).start);
        let mut at = start;
        std::iter::from_fn(move || {
            while at < start + filled {
                let place = (at / UNIT) as u64;
                // SAFETY:
                // - `at` is where an entry of a filled segment starts; this writer has written it
                //   and makes the segment free only later.
                let entry = unsafe { store.entry(place) };
                at += entry_len(entry.octets.len());
                if let Some((word, seen)) = store.word_of(entry.hash, place) {
                    return Some((entry, word, seen));
                }
            }
            None
        })
    }

    /// Whether nearly all of a segment was used since it was written, or since it was settled.
    fn is_used(&self, segment: usize, filled: usize, is_over: &dyn Fn(&[u8]) -> bool) -> bool {
        let worth = self
            .entries_of(segment, filled)
            .filter(|(entry, _, seen)| seen & USED != 0 && !is_over(entry.octets));
        let used: usize = worth.map(|(entry, ..)| entry_len(entry.octets.len())).sum();
        used >= self.store.segment_len / 4 * 3
    }

    /// Leaves a segment where it is, behind all others: what is used from now on counts.
    fn settle(&mut self, segment: usize, filled: usize) {
        for (_, word, seen) in self.entries_of(segment, filled) {
            if seen & USED != 0 {
                word.fetch_or(KEPT, Ordering::Relaxed);
                word.fetch_and(!USED, Ordering::Relaxed);
            }
        }
        self.log.settled.push_back((segment, filled));
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

    /// Takes a segment's entries out of the table; what was used is written again, `kept_max`
    /// octets of it, as far as there is room.
    fn give_up(
        &mut self,
        segment: usize,
        filled: usize,
        kept_max: usize,
        is_over: &dyn Fn(&[u8]) -> bool,
    ) {
        let mut kept = 0;
        for (entry, word, seen) in self.entries_of(segment, filled) {
            let Entry { hash, octets } = entry;
            let len = entry_len(octets.len());
            let worth = seen & USED != 0 && kept + len <= kept_max && !is_over(octets);
            let has_room = |log: &Log| log.filled + len <= self.store.segment_len;
            if worth && (has_room(&self.log) || self.begin_segment()) {
                kept += len;
                let item = Item { hash, len: octets.len(), insists: false };
                let place = self.append(item, |copy| copy.copy_from_slice(octets));
                // What is claimed stays so.
                word.store(seen & !(USED | PLACE) | KEPT | place, Ordering::Release);
                self.log.counts.kept += 1;
            } else {
                self.drop_entry(word, seen);
                self.log.counts.evicted += 1;
            }
        }
        self.log.waiting.push_back((segment, self.store.epochs.advance()));
    }
}
