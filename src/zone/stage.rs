//! Records between reading and building: appended in the order of the text, sorted by hash later.
//!
//! ```text
//!   entry   | hash of the name u64 | place u64 |
//!   place   bit 63: only says that the name exists (an ancestor) | part 4 bits | where 43 bits |
//!           size 16 bits
//!   record  | ttl u32 | type u16 | rdlen u16 | line u32 | file u16 | owner_len u8 | depth u8 |
//!           | owner, relative, lower case | rdata |
//! ```
//!
//! Sorting entries sorts by name and then by the order of the text, because places grow with the
//! text. The part is filled in when the entries of all parts come together. Records stay where they
//! were written; they live in chunks of mapped memory that go back to the kernel when the zone is
//! built.

use crate::limits::{DIAGNOSTICS_MAX, NAME_LABELS_MAX, RDATA_LEN_MAX};
use crate::memory::{Pages, Region, prefetch};
use crate::wire::{LowerName, rtype};

use super::hash::{HashKey, SuffixHashes};
use super::text::{Record, Sink};

const HEADER_LEN: usize = 16;
const CHUNK_LEN: usize = 2 << 20;
/// The first chunk: a small zone needs no more, and clearing a huge page for each of ten thousand
/// takes longer than reading them.
const FIRST_CHUNK_LEN: usize = 32 << 10;
const _: () = assert!(HEADER_LEN + 255 + RDATA_LEN_MAX < CHUNK_LEN);
/// Bits of a place's offset in its chunk.
const CHUNK_BITS: u32 = CHUNK_LEN.trailing_zeros();
const SIZE_BITS: u32 = 16;
const ANCESTOR: u64 = 1 << 63;
const PART_AT: u32 = 59;
const PART_MASK: u64 = (PARTS_MAX as u64 - 1) << PART_AT;
/// Parts that a text is staged in at most.
pub const PARTS_MAX: usize = 16;

/// Octets a record may need in the pool beyond its owner and RDATA: node header, NSEC3 blocks,
/// directory entry, block header, record header, fixes and a link for two names, and rounding.
const OVERHEAD: usize = 8 + 8 + 12 + 12 + 12 + 16 + 16 + 8;

/// The class of the internet (RFC 1035, 3.2.4).
const CLASS_IN: u16 = 1;

//----------- Entry ----------------------------------------------------------

/// One record, or one name that must exist because something is below it.
#[derive(Clone, Copy)]
pub struct Entry {
    pub hash: u64,
    place: u64,
}

impl Entry {
    /// Whether this only says that the name exists.
    pub fn is_ancestor(self) -> bool {
        self.place & ANCESTOR != 0
    }

    /// Labels of the ancestor.
    fn ancestor_depth(self) -> usize {
        self.place as usize & NAME_LABELS_MAX
    }

    /// Octets of pool memory this entry may need at most.
    pub fn size_max(self) -> usize {
        if self.is_ancestor() { 256 + OVERHEAD } else { (self.place as usize & 0xFFFF) * 8 }
    }

    fn at(self) -> usize {
        ((self.place & !ANCESTOR & !PART_MASK) >> SIZE_BITS) as usize
    }

    /// The same entry, told to be of `part`.
    pub fn in_part(self, part: usize) -> Entry {
        debug_assert!(part < PARTS_MAX);
        Entry { place: self.place | (part as u64) << PART_AT, ..self }
    }

    /// The part it was told to be of.
    pub fn part(self) -> usize {
        ((self.place & PART_MASK) >> PART_AT) as usize
    }

    /// Orders by name, then as the text, ancestors last.
    pub fn order(self) -> u128 {
        u128::from(self.hash) << 64 | u128::from(self.place)
    }
}

//----------- Staged ---------------------------------------------------------

/// A record as staged.
#[derive(Clone, Copy)]
pub struct Staged<'a> {
    pub ttl: u32,
    pub rtype: u16,
    pub line: u32,
    pub file: u16,
    pub depth: usize,
    /// Relative to the apex, lower case, no root octet.
    pub owner: &'a [u8],
    pub rdata: &'a [u8],
}

impl Staged<'_> {
    /// The type a record belongs to: an RRSIG to what it covers.
    pub fn covered(&self) -> u16 {
        match self.rtype {
            rtype::RRSIG if self.rdata.len() >= 2 => {
                u16::from_be_bytes([self.rdata[0], self.rdata[1]])
            }
            rtype => rtype,
        }
    }
}

/// What is wrong with a record by itself.
pub enum Misplaced {
    /// Not at or below the apex.
    OutOfZone,
    /// Not class IN.
    Class,
}

/// A record that cannot be staged: `(what, its file, its line, its owner)`.
pub type Refused = (Misplaced, u32, u32, Vec<u8>);

//----------- Stage ----------------------------------------------------------

/// The records of one part of a zone's text.
pub struct Stage {
    key: HashKey,
    apex: LowerName,
    chunks: Vec<Region>,
    chunk_used: usize,
    pub entries: Pages<Entry>,
    /// Records that were left out.
    pub refused: Vec<Refused>,
    pub refused_count: usize,
    /// Whether a record is NSEC3 or NSEC3PARAM: all nodes then have room for what that needs.
    pub has_nsec3: bool,
    /// The first failure to get memory.
    pub failed: Option<std::io::Error>,
    /// The last owner, as it came.
    wire: Vec<u8>,
    owner: LowerName,
    before: LowerName,
    owner_in_zone: bool,
    /// Whether the last record was taken, and its ancestors with it.
    announced: bool,
    hashes: Box<SuffixHashes>,
}

impl Stage {
    /// An empty stage for the zone `apex`.
    pub fn new(key: HashKey, apex: &LowerName) -> Stage {
        Stage {
            key,
            apex: apex.clone(),
            chunks: Vec::new(),
            chunk_used: 0,
            entries: Pages::default(),
            refused: Vec::new(),
            refused_count: 0,
            has_nsec3: false,
            failed: None,
            wire: Vec::new(),
            owner: LowerName::new(),
            before: LowerName::new(),
            owner_in_zone: false,
            announced: false,
            hashes: Box::new([0; NAME_LABELS_MAX + 1]),
        }
    }

    /// Asks for the memory of an entry's record.
    pub fn prefetch(&self, entry: Entry) {
        let at = entry.at();
        if let Some(chunk) = self.chunks.get(at >> CHUNK_BITS) {
            prefetch(chunk, at & (CHUNK_LEN - 1));
            prefetch(chunk, (at & (CHUNK_LEN - 1)) + 63);
        }
    }

    /// The record of `entry`; for an ancestor, the record below it that made it exist.
    fn open(&self, entry: Entry) -> Staged<'_> {
        let at = entry.at();
        let octets = &self.chunks[at >> CHUNK_BITS][at & (CHUNK_LEN - 1)..];
        let word = |at: usize| u32::from_le_bytes(octets[at..at + 4].try_into().expect("four"));
        let half = |at: usize| u16::from_le_bytes([octets[at], octets[at + 1]]);
        let owner_end = HEADER_LEN + octets[14] as usize;
        Staged {
            ttl: word(0),
            rtype: half(4),
            line: word(8),
            file: half(12),
            depth: octets[15] as usize,
            owner: &octets[HEADER_LEN..owner_end],
            rdata: &octets[owner_end..owner_end + half(6) as usize],
        }
    }

    /// What `entry` names: the record, with the owner and depth of the ancestor if it is one.
    pub fn get(&self, entry: Entry) -> Staged<'_> {
        let mut staged = self.open(entry);
        if entry.is_ancestor() {
            while staged.depth > entry.ancestor_depth() {
                staged.owner = &staged.owner[staged.owner[0] as usize + 1..];
                staged.depth -= 1;
            }
        }
        staged
    }

    /// Reads the owner if it differs from the last; returns the labels it shares with the last.
    fn take_owner(&mut self, wire: &[u8]) -> usize {
        if wire == self.wire {
            return self.owner.depth();
        }
        self.wire.clear();
        self.wire.extend_from_slice(wire);
        std::mem::swap(&mut self.owner, &mut self.before);
        let read = self.owner.read(wire).is_some();
        debug_assert!(read, "the reader of zone text makes whole names");
        let (next, last) = (&self.owner, &self.before);
        let shared = (1..=next.depth().min(last.depth()))
            .take_while(|&depth| {
                let (a, b) = (next.suffix_at(depth), last.suffix_at(depth));
                let (a_end, b_end) = (next.suffix_at(depth - 1), last.suffix_at(depth - 1));
                next.as_wire()[a..a_end] == last.as_wire()[b..b_end]
            })
            .count();
        self.key.suffixes(&self.owner, &mut self.hashes);
        let depth = self.apex.depth();
        self.owner_in_zone =
            self.owner.depth() >= depth && self.owner.suffix(depth) == self.apex.as_wire();
        shared
    }

    fn refuse(&mut self, what: Misplaced, record: Record<'_>) {
        self.announced = false;
        self.refused_count += 1;
        if self.refused.len() < DIAGNOSTICS_MAX {
            self.refused.push((what, record.file, record.line, record.owner.to_vec()));
        }
    }

    fn push(&mut self, entry: Entry) {
        if let Err(error) = self.entries.push(entry) {
            self.failed.get_or_insert(error);
        }
    }

    fn append(&mut self, record: Record<'_>) -> std::io::Result<u64> {
        let owner_len = self.owner.len() - self.apex.len();
        let len = HEADER_LEN + owner_len + record.rdata.len();
        if self.chunk_used + len > self.chunks.last().map_or(0, |chunk| chunk.len()) {
            let is_first = self.chunks.is_empty() && len <= FIRST_CHUNK_LEN;
            let chunk_len = if is_first { FIRST_CHUNK_LEN } else { CHUNK_LEN };
            self.chunks.push(Region::new(chunk_len)?);
            self.chunk_used = 0;
        }
        let at = self.chunk_used;
        let chunk = self.chunks.len() - 1;
        let octets = &mut self.chunks[chunk][at..at + len];
        octets[0..4].copy_from_slice(&record.ttl.to_le_bytes());
        octets[4..6].copy_from_slice(&record.rtype.to_le_bytes());
        octets[6..8].copy_from_slice(&(record.rdata.len() as u16).to_le_bytes());
        octets[8..12].copy_from_slice(&record.line.to_le_bytes());
        octets[12..14].copy_from_slice(&(record.file as u16).to_le_bytes());
        octets[14] = owner_len as u8;
        octets[15] = self.owner.depth() as u8;
        octets[HEADER_LEN..HEADER_LEN + owner_len]
            .copy_from_slice(&self.owner.as_wire()[..owner_len]);
        octets[HEADER_LEN + owner_len..].copy_from_slice(record.rdata);
        self.chunk_used += len.next_multiple_of(4);
        Ok((((chunk as u64) << CHUNK_BITS) | at as u64) << SIZE_BITS)
    }
}

impl Stage {
    /// Takes a name that exists without records.
    pub fn ancestor(&mut self, owner: &[u8]) {
        self.take_owner(owner);
        let record =
            Record { owner, rtype: 0, class: CLASS_IN, ttl: 0, rdata: &[], line: 0, file: 0 };
        match self.append(record) {
            Ok(place) => {
                let depth = self.owner.depth();
                let place = place | ANCESTOR | depth as u64;
                self.push(Entry { hash: self.hashes[depth], place });
            }
            Err(error) => drop(self.failed.get_or_insert(error)),
        }
        self.announced = false;
    }
}

impl Sink for Stage {
    fn record(&mut self, record: Record<'_>) {
        let shared_with_last = self.take_owner(record.owner);
        if record.class != CLASS_IN {
            return self.refuse(Misplaced::Class, record);
        }
        if !self.owner_in_zone {
            return self.refuse(Misplaced::OutOfZone, record);
        }
        let place = match self.append(record) {
            Ok(place) => place,
            Err(error) => {
                self.announced = false;
                self.failed.get_or_insert(error);
                return;
            }
        };
        self.has_nsec3 |= matches!(record.rtype, rtype::NSEC3 | rtype::NSEC3PARAM);
        let depth = self.owner.depth();
        let size = (OVERHEAD + self.owner.len() + record.rdata.len()).div_ceil(8) as u64;
        self.push(Entry { hash: self.hashes[depth], place: place | size });
        let shared = if self.announced { shared_with_last } else { 0 };
        self.announced = true;
        // Ancestors shared with the record before were announced with it.
        for ancestor in self.apex.depth().max(shared) + 1..depth {
            let place = place | ANCESTOR | ancestor as u64;
            self.push(Entry { hash: self.hashes[ancestor], place });
        }
    }
}
