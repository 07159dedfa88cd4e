//! A table of octets by hash, in memory of a fixed size: many readers that never wait, one writer.
//!
//! ```text
//!   buckets   | word word word word word word word word |    one cache line
//!   word      | tag 16 | used | claimed | kept | place 45 |   0: empty; places count 8 octets
//!   segments  | entry | entry | entry ....... free |         the log: filled one after the other
//!   entry     | hash 46 | len 18 | octets ... |
//! ```
//!
//! An entry is written once and never changed: another one takes its place in the table. Readers
//! are announced ([`Epochs`]); a segment is filled again when nobody can read what it had.
//!
//! ```text
//!   new ──> active ──> young, by age ──┬── nearly all was used ──────> settled, in turn (CLOCK)
//!             ^                        └── what was used of it ──┐       │ not used any more
//!             └──────────────────────────────────────────────────┴───────┘
//! ```
//!
//! Room is made by taking the oldest young segment. What was used since it was written is written
//! again at the end of the log, the rest is dropped; if nearly all was used, it stays where it is,
//! and is settled. Settled ones give way only where a tenth of all is young. So nothing is
//! fragmented, whatever the lengths, and there is no list of entries to keep in order.
//!
//! A hash has two buckets; the first has nearly everything. When both are full, one who is in its
//! first goes to its second; if nobody can, a word gives way: of an entry that was never used, then
//! of one that was kept and not used since; if all were used, the new one does, but for one of
//! sixteen. A flood of what nobody asks for twice takes the room of its own kind.

mod room;

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::epoch::{Epochs, Online};
use super::{HUGE_PAGE_LEN, Region, prefetch_address};
use room::Visit;

/// Words of a bucket: one cache line.
const WORDS: usize = 8;
const BUCKET_LEN: usize = WORDS * size_of::<u64>();
/// Octets that places count.
const UNIT: usize = 8;
/// What stands before an entry's octets.
const ENTRY_HEADER_LEN: usize = size_of::<u64>();
const _: () = assert!(ENTRY_HEADER_LEN == UNIT);
/// Buckets of one step through the table.
const STEP_BUCKETS: usize = 4096;
/// Octets of an entry at most.
pub const ENTRY_LEN_MAX: usize = 96 << 10;
/// Bits of an entry's header that are its length; the others are its hash's.
const LEN_BITS: u32 = 18;
const LEN: u64 = (1 << LEN_BITS) - 1;
const _: () = assert!(ENTRY_LEN_MAX < 1 << LEN_BITS && LEN_BITS >= 64 - TAG_SHIFT);
/// Memory for one word of the table. Short entries run out of words before they run out of room: an
/// address of a short name takes 64 octets, an answer of several records, or that there is none,
/// twice that.
const MEMORY_PER_WORD: usize = 96;
/// Segments there are at most, and their least length: two entries of the greatest length.
const SEGMENTS_MAX: usize = 256;
const SEGMENT_LEN_MIN: usize = 256 << 10;
const _: () = assert!(SEGMENT_LEN_MIN >= 2 * (ENTRY_LEN_MAX + ENTRY_HEADER_LEN));
/// Octets past the segment being filled that are to be ready, and the table: some hundred
/// milliseconds of the busiest hours.
const CLEARED_AHEAD: usize = 1 << 20;
/// Segments that are kept free, or wait for readers to end, until another one is begun: writing
/// never waits for one.
const SPARE: usize = 3;
/// Of so many segments one is young at least.
const YOUNG_PART: usize = 10;
/// Of so many entries that come where all others are popular one comes in.
const NEW_ONES: usize = 16;
/// Of 32 words of the table, those in use from which on there is hardly one to move to.
const MOVING_MAX: u64 = 31;
/// The least memory a store can have.
pub const MEMORY_MIN: usize = 4 << 20;
const _: () = assert!(MEMORY_MIN / SEGMENT_LEN_MIN >= 3 * SPARE);

const USED: u64 = 1 << 47;
const CLAIMED: u64 = 1 << 46;
/// Was used before it was written again, settled or renewed.
const KEPT: u64 = 1 << 45;
const PLACE: u64 = KEPT - 1;
const TAG_SHIFT: u32 = 48;

//----------- Store ----------------------------------------------------------

/// The table and its memory.
pub struct Store {
    memory: Memory,
    buckets: usize,
    segments_at: usize,
    segment_len: usize,
    segments: usize,
    /// Octets of the memory up to the end of the furthest segment that was begun,
    reached: AtomicUsize,
    /// and up to where it is cleared.
    cleared: AtomicUsize,
    epochs: Epochs,
    readers_made: AtomicUsize,
    readers_max: usize,
    writing: Mutex<Log>,
}

/// Memory that is shared octet by octet by the rules of this file.
struct Memory {
    start: *mut u8,
    len: usize,
    /// Its octets are never looked at again: a reference to all of them would cover what is being
    /// written.
    region: Region,
}

// SAFETY:
// - The memory is reached through the functions of this file only. Words are atomics. An entry's
//   octets are written by the one writer before its word is published (Release) and not again
//   before every reader that could have seen that word has ended (`Epochs`).
unsafe impl Send for Memory {}
// SAFETY:
// - As above.
unsafe impl Sync for Memory {}

/// An entry that is looked at.
struct Entry<'a> {
    /// Without its tag, which is in the word that points here.
    hash: u64,
    octets: &'a [u8],
}

impl Entry<'_> {
    fn has_hash(&self, hash: u64) -> bool {
        self.hash == hash & !LEN
    }
}

/// Where the log is written.
struct Log {
    /// The segment being filled, and how far it is.
    active: usize,
    filled: usize,
    /// Full ones, the oldest first, each with its octets.
    young: VecDeque<(usize, usize)>,
    /// Those of which nearly all was used, the longest settled first.
    settled: VecDeque<(usize, usize)>,
    /// Whether the oldest of the young was looked at, and is not to be settled.
    oldest_gives_up: bool,
    /// The segment that is gone through, and in no list meanwhile.
    visit: Option<Visit>,
    /// Segments visited since one was given up.
    visited: u32,
    /// Entries that were visited.
    #[cfg(test)]
    looked_at: usize,
    free: Vec<usize>,
    /// Taken out of the table in this epoch.
    waiting: VecDeque<(usize, u64)>,
    counts: Counts,
    turn: usize,
    /// Walks through the table that are under way.
    walks: u32,
}

/// What a store holds and what it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Entries in the table.
    pub entries: u64,
    /// Octets of them, headers included.
    pub octets: u64,
    /// Entries that gave way because there was no room.
    pub evicted: u64,
    /// Entries that gave way because there was no word.
    pub crowded: u64,
    /// Entries that were written again because they had been used.
    pub kept: u64,
    /// Entries that were not taken: no segment was free.
    pub refused: u64,
}

impl Store {
    /// A store in `memory` octets, all of it included, for at most `readers_max` readers.
    pub fn new(memory: usize, readers_max: usize) -> io::Result<Arc<Store>> {
        let memory_len = memory.max(MEMORY_MIN);
        let buckets = (memory_len / MEMORY_PER_WORD / WORDS).max(1);
        let segments_at = (buckets * BUCKET_LEN).next_multiple_of(4096);
        let left = memory_len - segments_at;
        let segment_len = (left / SEGMENTS_MAX).max(SEGMENT_LEN_MIN) / 4096 * 4096;
        let segments = left / segment_len;
        let len = (segments_at + segments * segment_len).next_multiple_of(4096);
        let mut region = Region::new(if len >= HUGE_PAGE_LEN { len } else { HUGE_PAGE_LEN })?;
        let memory = Memory { start: region.as_mut_ptr(), len, region };
        let log = Log {
            active: 0,
            filled: 0,
            young: VecDeque::with_capacity(segments),
            settled: VecDeque::with_capacity(segments),
            oldest_gives_up: false,
            visit: None,
            visited: 0,
            #[cfg(test)]
            looked_at: 0,
            free: (1..segments).rev().collect(),
            waiting: VecDeque::with_capacity(segments),
            counts: Counts::default(),
            turn: 0,
            walks: 0,
        };
        Ok(Arc::new(Store {
            memory,
            buckets,
            segments_at,
            segment_len,
            segments,
            reached: AtomicUsize::new(0),
            cleared: AtomicUsize::new(0),
            epochs: Epochs::new(readers_max),
            readers_made: AtomicUsize::new(0),
            readers_max,
            writing: Mutex::new(log),
        }))
    }

    /// Octets of memory.
    pub fn memory(&self) -> usize {
        self.memory.len
    }

    /// Has the kernel clear some of the memory that is written to next; `false` if there is enough.
    /// One thread does so.
    pub fn clear_ahead(&self) -> bool {
        if !self.is_cleared_too_little() {
            return false;
        }
        let from = self.cleared.load(Ordering::Relaxed);
        let address = self.memory.start as usize;
        // As huge pages lie.
        let to = (address + from + 1).next_multiple_of(HUGE_PAGE_LEN) - address;
        let to = to.min(self.memory.len);
        let is_done = self.memory.region.populate(from..to).is_ok();
        // Where that cannot be had, writing has it cleared.
        self.cleared.store(if is_done { to } else { self.memory.len }, Ordering::Relaxed);
        is_done
    }

    /// Whether [`Store::clear_ahead`] has something to do.
    #[inline]
    pub fn is_cleared_too_little(&self) -> bool {
        let reached = self.reached.load(Ordering::Relaxed);
        let wanted = (reached + CLEARED_AHEAD).min(self.memory.len);
        // As long as nothing is written there is no need of memory.
        reached > 0 && self.cleared.load(Ordering::Relaxed) < wanted
    }

    /// Makes the next reader; `None` past the number that was given to [`Store::new`].
    pub fn reader(self: &Arc<Store>) -> Option<StoreReader> {
        let index = self.readers_made.fetch_add(1, Ordering::Relaxed);
        let store = || Arc::clone(self);
        (index < self.readers_max).then(|| StoreReader { store: store(), index, mark: USED })
    }

    /// The writer; whoever has it keeps others waiting.
    pub fn write(&self) -> StoreWriter<'_> {
        let log = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        StoreWriter { store: self, log }
    }

    /// Entries stay in their buckets until what is returned is dropped: who goes through the table
    /// step by step sees each that was there.
    pub fn walk(&self) -> Walk<'_> {
        self.write().log.walks += 1;
        Walk(self)
    }

    fn bucket_of(&self, hash: u64) -> [usize; 2] {
        let scale = |word: u64| ((u128::from(word) * self.buckets as u128) >> 64) as usize;
        // What an entry's header has of it says the buckets too.
        let hash = hash & !LEN;
        let first = scale(hash);
        let second = scale(hash.rotate_left(29).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        [first, second]
    }

    fn words(&self, bucket: usize) -> &[AtomicU64; WORDS] {
        debug_assert!(bucket < self.buckets);
        // SAFETY:
        // - The buckets lie at the page-aligned start of the memory, zeroed at first, and are only
        //   ever reached as atomics.
        unsafe { &*self.memory.start.add(bucket * BUCKET_LEN).cast() }
    }

    /// The entry at `place`.
    ///
    /// # Safety
    ///
    /// - `place` was read (Acquire) from a word of this store, by the writer or while announced,
    ///   and what is returned is dropped before that ends.
    unsafe fn entry<'a>(&self, place: u64) -> Entry<'a> {
        let at = place as usize * UNIT;
        debug_assert!(at >= self.segments_at && at + ENTRY_HEADER_LEN <= self.memory.len);
        // SAFETY:
        // - The entry at `at` was written whole before its word was published, its length included,
        //   and its segment is not written before the caller has ended.
        unsafe {
            let start = self.memory.start.add(at);
            let header = start.cast::<u64>().read();
            let len = (header & LEN) as usize;
            let octets = std::slice::from_raw_parts(start.add(ENTRY_HEADER_LEN), len);
            Entry { hash: header & !LEN, octets }
        }
    }

    /// The word of the entry that `is_it` says, and what it was. The writer's.
    fn find(&self, hash: u64, is_it: impl Fn(&[u8]) -> bool) -> Option<(&AtomicU64, u64)> {
        let words = self.bucket_of(hash).into_iter().flat_map(|bucket| self.words(bucket));
        let seen = words.map(|word| (word, word.load(Ordering::Relaxed)));
        seen.filter(|(_, seen)| has_tag(*seen, hash)).find(|(_, seen)| {
            // SAFETY:
            // - The word is in the table, and only the writer, whose this is, changes it.
            let entry = unsafe { self.entry(seen & PLACE) };
            entry.has_hash(hash) && is_it(entry.octets)
        })
    }

    /// The word that points to `place`.
    fn word_of(&self, hash: u64, place: u64) -> Option<(&AtomicU64, u64)> {
        let words = self.bucket_of(hash).into_iter().flat_map(|bucket| self.words(bucket));
        let mut seen = words.map(|word| (word, word.load(Ordering::Relaxed)));
        seen.find(|(_, seen)| seen & PLACE == place)
    }

    /// The octets of a segment.
    fn segment(&self, segment: usize) -> Range<usize> {
        debug_assert!(segment < self.segments);
        let start = self.segments_at + segment * self.segment_len;
        start..start + self.segment_len
    }
}

const fn tag(hash: u64) -> u64 {
    // Bits that an entry's header does not have.
    (hash & 0xFFFF) << TAG_SHIFT
}

fn has_tag(word: u64, hash: u64) -> bool {
    word & PLACE != 0 && word & (0xFFFF << TAG_SHIFT) == tag(hash)
}

fn entry_len(len: usize) -> usize {
    (ENTRY_HEADER_LEN + len).next_multiple_of(UNIT)
}

//----------- StoreReader ----------------------------------------------------

/// One thread's side: reads without waiting.
pub struct StoreReader {
    store: Arc<Store>,
    index: usize,
    /// What is set at an entry that was found.
    mark: u64,
}

impl StoreReader {
    /// The store.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Announces that this thread reads, until what is returned is dropped. Never held across a
    /// wait.
    #[inline(always)]
    pub fn pin(&mut self) -> StorePin<'_> {
        let online = self.store.epochs.announce(self.index);
        StorePin { online, store: &self.store, mark: self.mark }
    }

    /// Finds without using: what it looks at is not kept for that.
    #[must_use]
    pub fn unnoticed(self) -> StoreReader {
        StoreReader { mark: 0, ..self }
    }
}

/// Reading.
pub struct StorePin<'a> {
    store: &'a Store,
    mark: u64,
    #[expect(dead_code, reason = "it is held, not looked at")]
    online: Online<'a>,
}

/// An entry that was found.
pub struct Found<'a> {
    /// What was stored.
    pub octets: &'a [u8],
    word: &'a AtomicU64,
    seen: u64,
}

impl StorePin<'_> {
    /// Asks for the bucket that will be looked into first.
    #[inline(always)]
    pub fn prefetch_bucket(&self, hash: u64) {
        let [first, _] = self.store.bucket_of(hash);
        prefetch_address(self.store.memory.start.wrapping_add(first * BUCKET_LEN));
    }

    /// Asks for the first octets of the entry that is most likely the one.
    #[inline(always)]
    pub fn prefetch_entry(&self, hash: u64) {
        let [first, _] = self.store.bucket_of(hash);
        for word in self.store.words(first) {
            let word = word.load(Ordering::Relaxed);
            if has_tag(word, hash) {
                let start = self.store.memory.start.wrapping_add((word & PLACE) as usize * UNIT);
                prefetch_address(start);
                prefetch_address(start.wrapping_add(64));
                return;
            }
        }
    }

    /// The entry with this hash that `is_it` says is the one; it counts as used, unless it is
    /// looked at unnoticed.
    #[inline]
    pub fn find(&self, hash: u64, is_it: impl Fn(&[u8]) -> bool) -> Option<Found<'_>> {
        for bucket in self.store.bucket_of(hash) {
            for word in self.store.words(bucket) {
                let seen = word.load(Ordering::Acquire);
                if !has_tag(seen, hash) {
                    continue;
                }
                // SAFETY:
                // - The word was read while this thread is announced, which `self` is.
                let entry = unsafe { self.store.entry(seen & PLACE) };
                if entry.has_hash(hash) && is_it(entry.octets) {
                    let found = Found { octets: entry.octets, word, seen };
                    found.mark(self.mark);
                    return Some(found);
                }
            }
        }
        None
    }
}

impl Found<'_> {
    /// Sets a mark unless it is there, or the word is another entry's by now.
    #[inline(always)]
    fn mark(&self, mark: u64) -> bool {
        self.seen & mark != mark
            && self
                .word
                .compare_exchange(self.seen, self.seen | mark, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Claims the entry for something that one reader does, once: `true` for that one. A new entry
    /// is unclaimed.
    pub fn claim(&self) -> bool {
        let seen = self.word.load(Ordering::Relaxed);
        (seen ^ self.seen) & (PLACE | 0xFFFF << TAG_SHIFT) == 0
            && Found { octets: self.octets, word: self.word, seen }.mark(CLAIMED)
    }
}

//----------- StoreWriter ----------------------------------------------------

/// What becomes of an entry that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It stays.
    Yes,
    /// It leaves the table.
    No,
}

/// What is to be stored.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    /// Of its key.
    pub hash: u64,
    /// Octets, at most [`ENTRY_LEN_MAX`].
    pub len: usize,
    /// Whether it comes in although all others are popular.
    pub insists: bool,
}

/// A walk through the table.
pub struct Walk<'a>(&'a Store);

impl Drop for Walk<'_> {
    fn drop(&mut self) {
        self.0.write().log.walks -= 1;
    }
}

/// The one who writes.
pub struct StoreWriter<'a> {
    store: &'a Store,
    log: MutexGuard<'a, Log>,
}

impl<'a> StoreWriter<'a> {
    /// Stores what `fill` writes in the place of the entry that `is_same` says is the same; what
    /// `is_over` says is worth nothing any more gives way first. Where all others are popular, what
    /// is new gives way at once. `false` if there is no room: then nothing has changed.
    pub fn insert(
        &mut self,
        item: Item,
        fill: impl FnOnce(&mut [u8]),
        is_same: impl Fn(&[u8]) -> bool,
        is_over: &dyn Fn(&[u8]) -> bool,
    ) -> bool {
        let needed = entry_len(item.len);
        let fits = self.log.filled + needed <= self.store.segment_len;
        if item.len > ENTRY_LEN_MAX || !(fits || self.next_segment(needed, is_over)) {
            self.log.counts.refused += 1;
            return false;
        }
        if self.log.filled + needed > self.store.segment_len {
            // What was kept has filled it, and readers hold the others.
            self.log.counts.refused += 1;
            return false;
        }
        let place = self.append(item, fill);
        if self.publish(item, place, is_same, is_over) {
            self.log.counts.entries += 1;
            self.log.counts.octets += needed as u64;
        }
        if self.log.counts.entries == 1 {
            self.reach();
        }
        self.make_room_ahead(is_over);
        true
    }

    /// Takes the entry that `is_it` says out of the table; whether there was one.
    pub fn remove(&mut self, hash: u64, is_it: impl Fn(&[u8]) -> bool) -> bool {
        let found = self.store.find(hash, is_it);
        if let Some((word, seen)) = found {
            self.drop_entry(word, seen);
        }
        found.is_some()
    }

    /// The octets of the entry that `is_it` says is the one.
    pub fn get(&self, hash: u64, is_it: impl Fn(&[u8]) -> bool) -> Option<&[u8]> {
        let (_, seen) = self.store.find(hash, is_it)?;
        // SAFETY:
        // - The word is in the table, and only this writer, who is borrowed, changes it.
        Some(unsafe { self.store.entry(seen & PLACE) }.octets)
    }

    /// Shows every entry to `look`, in no order; returns how many left.
    pub fn for_each(&mut self, mut look: impl FnMut(&[u8]) -> Keep) -> u64 {
        (0..self.steps()).map(|step| self.for_each_of(step, &mut look)).sum()
    }

    /// How many steps all of the table has, for who lets others write between.
    pub fn steps(&self) -> usize {
        self.store.buckets.div_ceil(STEP_BUCKETS)
    }

    /// The same as [`StoreWriter::for_each`] for one step of the table.
    pub fn for_each_of(&mut self, step: usize, mut look: impl FnMut(&[u8]) -> Keep) -> u64 {
        let end = ((step + 1) * STEP_BUCKETS).min(self.store.buckets);
        let mut gone = 0;
        for bucket in step * STEP_BUCKETS..end {
            for word in self.store.words(bucket) {
                let seen = word.load(Ordering::Relaxed);
                if seen & PLACE == 0 {
                    continue;
                }
                // SAFETY:
                // - The word is in the table, and only this writer changes it.
                let entry = unsafe { self.store.entry(seen & PLACE) };
                if look(entry.octets) == Keep::No {
                    self.drop_entry(word, seen);
                    gone += 1;
                }
            }
        }
        gone
    }

    /// What the store holds and what it did.
    pub fn counts(&self) -> Counts {
        self.log.counts
    }

    /// Writes an entry at the end of the log, which has room for it; returns its place.
    fn append(&mut self, item: Item, fill: impl FnOnce(&mut [u8])) -> u64 {
        let at = self.store.segment(self.log.active).start + self.log.filled;
        self.log.filled += entry_len(item.len);
        // SAFETY:
        // - The caller has seen that the segment has room for it.
        // - The segment is this writer's: no word points to what lies behind `filled`, and readers
        //   of what it had before have ended (`reclaim`).
        // - The memory is initialised: zeroed at first, octets since.
        let octets = unsafe {
            let start = self.store.memory.start.add(at);
            start.cast::<u64>().write(item.hash & !LEN | item.len as u64);
            std::slice::from_raw_parts_mut(start.add(ENTRY_HEADER_LEN), item.len)
        };
        fill(octets);
        (at / UNIT) as u64
    }

    /// Points a word to a new entry, unless it gives way to others at once.
    fn publish(
        &mut self,
        Item { hash, insists, .. }: Item,
        place: u64,
        is_same: impl Fn(&[u8]) -> bool,
        is_over: &dyn Fn(&[u8]) -> bool,
    ) -> bool {
        let (word, kept) = match self.store.find(hash, is_same) {
            Some((word, seen)) => {
                self.drop_entry(word, seen);
                // Who was popular is.
                (word, if seen & (USED | KEPT) == 0 { 0 } else { KEPT })
            }
            None => match self.vacant(hash, insists, is_over) {
                Some(word) => (word, 0),
                None => return false,
            },
        };
        // Whoever sees the word sees the entry.
        word.store(tag(hash) | kept | place, Ordering::Release);
        true
    }

    /// A word for `hash` that is empty; whatever had it has given way. `None`: who comes gives way.
    fn vacant(
        &mut self,
        hash: u64,
        insists: bool,
        is_over: &dyn Fn(&[u8]) -> bool,
    ) -> Option<&'a AtomicU64> {
        let buckets = self.store.bucket_of(hash).map(|bucket| self.store.words(bucket));
        let words = || buckets.iter().copied().flatten();
        if let Some(word) = words().find(|word| word.load(Ordering::Relaxed) & PLACE == 0) {
            return Some(word);
        }
        let words_in_all = (self.store.buckets * WORDS) as u64;
        if self.log.walks == 0
            && self.log.counts.entries * 32 < words_in_all * MOVING_MAX
            && let Some(word) = self.move_one(self.store.bucket_of(hash), |_| false)
        {
            return Some(word);
        }
        self.log.counts.crowded += 1;
        self.log.turn = self.log.turn.wrapping_add(1);
        let first = self.log.turn / NEW_ONES % (2 * WORDS);
        let is_over = |word: &&AtomicU64| {
            // SAFETY:
            // - The word is in the table, and only this writer changes it.
            is_over(unsafe { self.store.entry(word.load(Ordering::Relaxed) & PLACE) }.octets)
        };
        let in_turn = || words().cycle().skip(first).take(2 * WORDS);
        let without = |marks: u64| {
            in_turn().find(|word: &&AtomicU64| word.load(Ordering::Relaxed) & marks == 0)
        };
        let mut word = in_turn().find(is_over).or_else(|| without(USED | KEPT));
        if word.is_none() && self.log.walks == 0 {
            word = self.move_one(self.store.bucket_of(hash), |seen| seen & (USED | KEPT) == 0);
        }
        let word = word.or_else(|| without(USED)).or_else(|| {
            // All of these are popular. One in so many comes in all the same, and another one has
            // to show that it still is.
            if !insists && !self.log.turn.is_multiple_of(NEW_ONES) {
                return None;
            }
            let mut others = in_turn();
            let first = others.next();
            if let Some(second) = others.next() {
                second.fetch_or(KEPT, Ordering::Relaxed);
                second.fetch_and(!USED, Ordering::Relaxed);
            }
            first
        })?;
        let seen = word.load(Ordering::Relaxed);
        if seen & PLACE != 0 {
            self.drop_entry(word, seen);
        }
        Some(word)
    }

    /// Moves an entry of these full buckets from its first one to its second, to a word that is
    /// empty or `gives_way`, and returns the word that it had. Whoever looks for it looks there
    /// afterwards.
    #[cold]
    fn move_one(
        &mut self,
        buckets: [usize; 2],
        gives_way: impl Fn(u64) -> bool,
    ) -> Option<&'a AtomicU64> {
        for bucket in buckets {
            for word in self.store.words(bucket) {
                let seen = word.load(Ordering::Relaxed);
                // SAFETY:
                // - The word is in the table, and only this writer changes it.
                let entry = unsafe { self.store.entry(seen & PLACE) };
                let [first, second] = self.store.bucket_of(entry.hash);
                let mut others = self.store.words(second).iter();
                if first != bucket || second == bucket {
                    continue;
                }
                let other = others.find(|it| {
                    let seen = it.load(Ordering::Relaxed);
                    seen & PLACE == 0 || gives_way(seen)
                });
                if let Some(other) = other {
                    let gone = other.load(Ordering::Relaxed);
                    if gone & PLACE != 0 {
                        self.drop_entry(other, gone);
                    }
                    other.store(seen, Ordering::Release);
                    word.store(0, Ordering::Release);
                    return Some(word);
                }
            }
        }
        None
    }

    /// Empties a word that has an entry.
    fn drop_entry(&mut self, word: &AtomicU64, seen: u64) {
        // SAFETY:
        // - The word is in the table, and only this writer changes it.
        let entry = unsafe { self.store.entry(seen & PLACE) };
        self.log.counts.entries -= 1;
        self.log.counts.octets -= entry_len(entry.octets.len()) as u64;
        word.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
