//! The zones of a generation: found by name as fast as in one table, changed one at a time.
//!
//! ```text
//!   slots    [ 512 words ] [ 512 words ] ...     word   | tag: half of the hash | number + 1 |
//!   entries  [ 64 entries ] [ 64 entries ] ...   entry  | zone | rules | journal | name |
//! ```
//!
//! An entry is one cache line. Words are found by the low bits of the hash of the zone's name, by
//! open addressing, at most half of them used. Both tables are pages that generations share: who
//! changes an entry copies its page if a generation still has it, and no other. The directories of
//! pages are short enough to stay near: 100,000 zones have 1,563 pages of entries and 512 of words.

use std::sync::{Arc, LazyLock};

use crate::limits::NAME_LABELS_MAX;
use crate::memory::prefetch;
use crate::policy::Rules;
use crate::wire::{LowerName, Name};
use crate::zone::change::Journal;
use crate::zone::{HashKey, SuffixHashes, Zone};

/// Words of a page.
const SLOTS: usize = 512;
/// Entries of a page.
const ENTRIES: usize = 64;
const EMPTY: u64 = 0;
/// Was used; a search goes on behind it. No entry has this number.
const GONE: u64 = u32::MAX as u64;

//----------- ZoneState ------------------------------------------------------

/// What there is of a zone.
#[derive(Clone, Default)]
pub enum ZoneState {
    /// Loaded.
    Serving(Arc<Zone>),
    /// Loaded; only who may transfer it is answered.
    Private(Arc<Zone>),
    /// Configured but never loaded: SERVFAIL.
    #[default]
    Failed,
}

impl ZoneState {
    /// The zone.
    #[inline(always)]
    pub fn zone(&self) -> Option<&Arc<Zone>> {
        match self {
            ZoneState::Serving(zone) | ZoneState::Private(zone) => Some(zone),
            ZoneState::Failed => None,
        }
    }
}

//----------- Entry ----------------------------------------------------------

/// Octets of a name that is kept in the entry itself.
const NEAR_LEN_MAX: usize = 30;

/// A zone's name, wire form, lower case.
#[derive(Clone)]
enum Stored {
    Near(u8, [u8; NEAR_LEN_MAX]),
    Far(Box<[u8]>),
}

impl Stored {
    fn new(wire: &[u8]) -> Stored {
        if wire.len() > NEAR_LEN_MAX {
            return Stored::Far(wire.into());
        }
        let mut octets = [0; NEAR_LEN_MAX];
        octets[..wire.len()].copy_from_slice(wire);
        Stored::Near(wire.len() as u8, octets)
    }

    #[inline(always)]
    fn as_wire(&self) -> &[u8] {
        match self {
            Stored::Near(len, octets) => &octets[..usize::from(*len)],
            Stored::Far(wire) => wire,
        }
    }
}

/// What a generation knows of one zone.
#[derive(Clone)]
#[repr(align(64))]
pub struct Entry {
    /// What is served.
    pub state: ZoneState,
    /// What peers may do with it.
    pub rules: Arc<Rules>,
    /// What changed in it of late.
    pub journal: Option<Arc<Journal>>,
    name: Stored,
}

const _: () = assert!(size_of::<Entry>() == 64);

/// The rules of a zone that has none.
static NOBODY: LazyLock<Arc<Rules>> = LazyLock::new(Arc::default);

impl Entry {
    fn vacant() -> Entry {
        Entry {
            state: ZoneState::Failed,
            rules: Arc::clone(&NOBODY),
            journal: None,
            // No name: every name has its root's octet.
            name: Stored::Near(0, [0; NEAR_LEN_MAX]),
        }
    }

    /// The zone's name, wire form, lower case.
    #[inline(always)]
    pub fn name(&self) -> &[u8] {
        self.name.as_wire()
    }
}

type EntryPage = Arc<[Entry; ENTRIES]>;
type SlotPage = Arc<[u64; SLOTS]>;

//----------- Zones ----------------------------------------------------------

/// The zones of one generation.
#[derive(Clone)]
pub struct Zones {
    entries: Vec<EntryPage>,
    /// A power of two.
    slots: Vec<SlotPage>,
    /// Bit `d`: some zone's apex has `d` labels.
    depths: u128,
    count: usize,
}

impl Zones {
    /// How many there are.
    #[inline(always)]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The entry with this number, which a search gave.
    #[inline(always)]
    pub fn entry(&self, number: usize) -> &Entry {
        &self.entries[number / ENTRIES][number % ENTRIES]
    }

    #[inline(always)]
    fn word(&self, slot: usize) -> u64 {
        self.slots[slot / SLOTS][slot % SLOTS]
    }

    #[inline(always)]
    fn slot_of(&self, hash: u64) -> usize {
        hash as usize & (self.slots.len() * SLOTS - 1)
    }

    /// Asks for the word at which the search for a zone will start.
    #[inline]
    pub fn prefetch_slot(&self, hashes: &SuffixHashes, depth_max: usize) {
        let depths = self.depths & (u128::MAX >> (127 - depth_max));
        if depths != 0 {
            let slot = self.slot_of(hashes[127 - depths.leading_zeros() as usize]);
            prefetch(&self.slots[slot / SLOTS][..], slot % SLOTS);
        }
    }

    /// Asks for the entry of the zone that will most likely be found; returns its number.
    #[inline]
    pub fn prefetch_entry(&self, hashes: &SuffixHashes, depth_max: usize) -> Option<usize> {
        let (number, _) = self.find(hashes, depth_max, |_, _| true)?;
        prefetch(&self.entries[number / ENTRIES][..], number % ENTRIES);
        Some(number)
    }

    /// The zone with the longest apex that `name` is at or below, among apexes of at most
    /// `depth_max` labels: its number and its depth.
    #[inline]
    pub fn find_zone(
        &self,
        name: &LowerName,
        hashes: &SuffixHashes,
        depth_max: usize,
    ) -> Option<(usize, usize)> {
        self.find(hashes, depth_max, |number, depth| {
            self.entry(number).name() == name.suffix(depth)
        })
    }

    /// The zone whose depth is the greatest among those whose tags are those of `hashes` and that
    /// `is` it.
    #[inline(always)]
    fn find(
        &self,
        hashes: &SuffixHashes,
        depth_max: usize,
        is: impl Fn(usize, usize) -> bool,
    ) -> Option<(usize, usize)> {
        let mut depths = self.depths & (u128::MAX >> (127 - depth_max));
        while depths != 0 {
            let depth = 127 - depths.leading_zeros() as usize;
            depths &= !(1 << depth);
            let hash = hashes[depth];
            if let Some((_, number)) = self.find_word(hash, |number| is(number, depth)) {
                return Some((number, depth));
            }
        }
        None
    }

    /// The slot with the tag of `hash` whose entry `is` it, and the entry's number.
    #[inline(always)]
    fn find_word(&self, hash: u64, is: impl Fn(usize) -> bool) -> Option<(usize, usize)> {
        let mut slot = self.slot_of(hash);
        loop {
            let word = self.word(slot);
            if word == EMPTY {
                return None;
            }
            let number = (word as u32).wrapping_sub(1) as usize;
            if word >> 32 == hash >> 32 && word != GONE && is(number) {
                return Some((slot, number));
            }
            slot = (slot + 1) & (self.slots.len() * SLOTS - 1);
        }
    }
}

//----------- ZoneTable ------------------------------------------------------

/// The zones as the next generation will have them: who publishes changes them here.
pub struct ZoneTable {
    key: HashKey,
    zones: Zones,
    /// Entries of no zone.
    free: Vec<u32>,
    /// Words that are not empty.
    used: usize,
    /// Zones whose apex has so many labels.
    depths: [u32; NAME_LABELS_MAX + 1],
}

impl ZoneTable {
    /// No zones yet; their names are hashed with `key`.
    pub fn new(key: HashKey) -> ZoneTable {
        let slots = vec![Arc::new([EMPTY; SLOTS])];
        let zones = Zones { entries: Vec::new(), slots, depths: 0, count: 0 };
        ZoneTable { key, zones, free: Vec::new(), used: 0, depths: [0; _] }
    }

    /// The secret that names are hashed with.
    pub fn key(&self) -> HashKey {
        self.key
    }

    /// The zones as they are now.
    pub fn zones(&self) -> &Zones {
        &self.zones
    }

    /// The number of the zone `name`.
    pub fn find(&self, name: &Name) -> Option<usize> {
        let lower = lower(name);
        self.zones
            .find_word(self.key.name(&lower), |number| {
                self.zones.entry(number).name() == lower.as_wire()
            })
            .map(|(_, number)| number)
    }

    /// The entry of a zone, to be changed: generations that were published keep theirs.
    pub fn entry_mut(&mut self, number: usize) -> &mut Entry {
        &mut Arc::make_mut(&mut self.zones.entries[number / ENTRIES])[number % ENTRIES]
    }

    /// The number of the zone `name`, which is added if it is not there.
    pub fn insert(&mut self, name: &Name) -> usize {
        if let Some(number) = self.find(name) {
            return number;
        }
        let lower = lower(name);
        let number = self.take_free();
        self.entry_mut(number).name = Stored::new(lower.as_wire());
        self.zones.count += 1;
        self.depths[lower.depth()] += 1;
        self.zones.depths |= 1 << lower.depth();
        if (self.used + 1) * 2 > self.zones.slots.len() * SLOTS {
            self.spread();
        } else {
            self.place(self.key.name(&lower), number);
        }
        number
    }

    /// Takes a zone out.
    pub fn remove(&mut self, name: &Name) {
        let lower = lower(name);
        let is_it = |number: usize| self.zones.entry(number).name() == lower.as_wire();
        let Some((slot, number)) = self.zones.find_word(self.key.name(&lower), is_it) else {
            return;
        };
        let after = (slot + 1) & (self.zones.slots.len() * SLOTS - 1);
        let is_last = self.zones.word(after) == EMPTY;
        *self.word_mut(slot) = if is_last { EMPTY } else { GONE };
        self.used -= usize::from(is_last);
        *self.entry_mut(number) = Entry::vacant();
        self.free.push(number as u32);
        self.zones.count -= 1;
        self.depths[lower.depth()] -= 1;
        if self.depths[lower.depth()] == 0 {
            self.zones.depths &= !(1 << lower.depth());
        }
    }

    fn take_free(&mut self) -> usize {
        if let Some(number) = self.free.pop() {
            return number as usize;
        }
        let first = self.zones.entries.len() * ENTRIES;
        self.zones.entries.push(Arc::new(std::array::from_fn(|_| Entry::vacant())));
        self.free.extend((first as u32 + 1..(first + ENTRIES) as u32).rev());
        first
    }

    fn word_mut(&mut self, slot: usize) -> &mut u64 {
        &mut Arc::make_mut(&mut self.zones.slots[slot / SLOTS])[slot % SLOTS]
    }

    /// Writes the word of a zone that has none.
    fn place(&mut self, hash: u64, number: usize) {
        let mask = self.zones.slots.len() * SLOTS - 1;
        let mut slot = self.zones.slot_of(hash);
        while self.zones.word(slot) != EMPTY {
            slot = (slot + 1) & mask;
        }
        *self.word_mut(slot) = hash >> 32 << 32 | (number as u64 + 1);
        self.used += 1;
    }

    /// Writes all words anew, with room for half as many more zones at least.
    fn spread(&mut self) {
        let pages = ((self.zones.count + 1) * 3).next_power_of_two().div_ceil(SLOTS);
        self.zones.slots = (0..pages).map(|_| Arc::new([EMPTY; SLOTS])).collect();
        self.used = 0;
        let mut lower = LowerName::new();
        for number in 0..self.zones.entries.len() * ENTRIES {
            if lower.read(self.zones.entry(number).name()).is_some() {
                self.place(self.key.name(&lower), number);
            }
        }
    }
}

fn lower(name: &Name) -> LowerName {
    let mut lower = LowerName::new();
    lower.read(name.as_wire()).expect("a name is a name");
    let wire = lower.as_wire().to_ascii_lowercase();
    lower.read(&wire).expect("still a name");
    lower
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn what_was_put_in_is_found_and_no_more() {
        let mut table = ZoneTable::new(HashKey::new(*b"a secret of test"));
        let name = |number: u32| -> Name {
            let tail =
                if number.is_multiple_of(5) { "a-name-that-is-too-long-to-be-near." } else { "" };
            format!("z{number}.{tail}{}test.", "x.".repeat(number as usize % 4)).parse().unwrap()
        };
        let (mut there, mut random) = (BTreeSet::new(), 7u64);
        for step in 0..60_000u32 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let number = (random >> 33) as u32 % 3000;
            // More come at first, more go at the end.
            if (random >> 20) as u32 % 60_000 > step {
                table.insert(&name(number));
                there.insert(number);
            } else {
                table.remove(&name(number));
                there.remove(&number);
            }
            assert!(table.used * 2 <= table.zones.slots.len() * SLOTS);
        }
        assert_eq!(table.zones.count(), there.len());
        let mut numbers = BTreeSet::new();
        for number in 0..3000 {
            let found = table.find(&name(number));
            assert_eq!(found.is_some(), there.contains(&number), "{number}");
            numbers.extend(found);
        }
        assert_eq!(numbers.len(), there.len(), "each has an entry of its own");
        assert!(numbers.len() > 10 && *numbers.last().unwrap() < 3000 + ENTRIES);
    }

    #[test]
    fn a_generation_keeps_what_it_had() {
        let mut table = ZoneTable::new(HashKey::new(*b"a secret of test"));
        let names: Vec<Name> = (0..200).map(|n| format!("z{n}.test.").parse().unwrap()).collect();
        for name in &names {
            table.insert(name);
        }
        let before = table.zones().clone();
        let number = table.find(&names[70]).unwrap();
        table.entry_mut(number).journal = Some(Arc::default());
        table.remove(&names[71]);
        let shared = |page: &EntryPage| before.entries.iter().any(|it| Arc::ptr_eq(it, page));
        let copied = table.zones.entries.iter().filter(|page| !shared(page)).count();
        assert_eq!((copied, before.entries.len()), (1, 4), "one page was copied");
        assert!(before.entry(number).journal.is_none());
        assert_eq!((before.count(), table.zones.count()), (200, 199));
    }
}
