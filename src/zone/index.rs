//! From a name's hash to its node: one cache line, nearly always.
//!
//! ```text
//!   bucket (64 octets)  | tag 0 .. tag 9 (u16) | node 0 .. node 9 (u32) | count | overflow | 0 0 |
//! ```
//!
//! A hash chooses its bucket by its high bits and is told apart inside it by a tag of its low
//! bits. A bucket has room for ten and is filled with six on average; what does not fit goes into
//! the next bucket, and the overflow octet says that a search must go on there. Nodes are named by
//! their position in the zone's pool in units of eight octets: 30 GiB for one zone; what is above
//! is for [`overlay`]s.

use std::io;

use crate::memory::{Region, Shared, prefetch};

use super::overlay;

const BUCKET_LEN: usize = 64;
const SLOTS: usize = 10;
const NODES_AT: usize = SLOTS * 2;
const COUNT_AT: usize = NODES_AT + SLOTS * 4;
const OVERFLOW_AT: usize = COUNT_AT + 1;
const _: () = assert!(OVERFLOW_AT < BUCKET_LEN);
/// Names per bucket on average: with 6 of 10, one bucket in 23 spills.
const FILL: usize = 6;

//----------- Index ----------------------------------------------------------

/// The names of one zone. A clone shares the buckets.
#[derive(Clone)]
pub struct Index {
    buckets: Shared,
    /// Buckets that a hash may choose; those past it take what the last ones spill.
    bucket_count: u64,
}

/// A search that found a tag: where to go on if the name turns out to be another.
#[derive(Clone, Copy)]
pub struct Probe {
    bucket: u32,
    slot: u8,
    tag: u16,
    /// The candidate's position in the pool, in octets.
    pub node: usize,
}

impl Index {
    /// Builds the index from hashes in ascending order, each with its node's position in octets.
    pub fn build(count: usize, names: impl Iterator<Item = (u64, usize)>) -> io::Result<Index> {
        let bucket_count = count.div_ceil(FILL).max(1);
        // Spilled names need room past the last bucket: in the worst case all of them.
        let spare = (count / SLOTS + 1).min(1024);
        let mut buckets = Region::new((bucket_count + spare) * BUCKET_LEN)?;
        let mut free = 0;
        for (hash, node) in names {
            let home = bucket_of(hash, bucket_count as u64);
            if free < home {
                free = home;
            }
            while buckets[free * BUCKET_LEN + COUNT_AT] as usize == SLOTS {
                free += 1;
            }
            for full in home..free {
                buckets[full * BUCKET_LEN + OVERFLOW_AT] = 1;
            }
            let bucket = &mut buckets[free * BUCKET_LEN..(free + 1) * BUCKET_LEN];
            let slot = bucket[COUNT_AT] as usize;
            bucket[COUNT_AT] += 1;
            bucket[slot * 2..slot * 2 + 2].copy_from_slice(&(hash as u16).to_le_bytes());
            assert!(node < overlay::START, "a pool of at most 30 GiB");
            let unit = (node / 8) as u32;
            bucket[NODES_AT + slot * 4..NODES_AT + slot * 4 + 4]
                .copy_from_slice(&unit.to_le_bytes());
        }
        Ok(Index { buckets: buckets.into(), bucket_count: bucket_count as u64 })
    }

    /// Octets of memory.
    pub fn memory_len(&self) -> usize {
        self.buckets.len()
    }

    /// All nodes' positions, in no order.
    pub fn positions(&self) -> impl Iterator<Item = usize> {
        self.buckets.chunks_exact(BUCKET_LEN).flat_map(|bucket| {
            let units = bucket[NODES_AT..COUNT_AT].chunks_exact(4);
            units
                .take(usize::from(bucket[COUNT_AT]))
                .map(|unit| u32::from_le_bytes(unit.try_into().expect("four octets")) as usize * 8)
        })
    }

    /// The first node's position from slot `cursor` on, which is then past it.
    pub fn next_position(&self, cursor: &mut usize) -> Option<usize> {
        loop {
            let (bucket, slot) = (*cursor / SLOTS * BUCKET_LEN, *cursor % SLOTS);
            let line = self.buckets.get(bucket..bucket + BUCKET_LEN)?;
            if slot < usize::from(line[COUNT_AT]) {
                *cursor += 1;
                let at = NODES_AT + slot * 4;
                let unit = u32::from_le_bytes(line[at..at + 4].try_into().expect("four octets"));
                return Some(unit as usize * 8);
            }
            *cursor += SLOTS - slot;
        }
    }

    /// Asks for the bucket of `hash`.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        prefetch(&self.buckets, bucket_of(hash, self.bucket_count) * BUCKET_LEN);
    }

    /// The first candidate for `hash`.
    #[inline(always)]
    pub fn probe(&self, hash: u64) -> Option<Probe> {
        self.scan(bucket_of(hash, self.bucket_count), 0, hash as u16)
    }

    /// The next candidate after `probe`.
    #[cold]
    pub fn probe_on(&self, probe: Probe) -> Option<Probe> {
        self.scan(probe.bucket as usize, probe.slot as usize + 1, probe.tag)
    }

    #[inline(always)]
    fn scan(&self, mut bucket: usize, mut slot_min: usize, tag: u16) -> Option<Probe> {
        loop {
            let line: &[u8; BUCKET_LEN] = self.buckets[bucket * BUCKET_LEN..]
                .first_chunk()
                .expect("buckets past the last take its overflow");
            let mut found = 0u32;
            for slot in 0..SLOTS {
                let equal = u16::from_le_bytes([line[slot * 2], line[slot * 2 + 1]]) == tag;
                found |= u32::from(equal) << slot;
            }
            found &= (1 << line[COUNT_AT]) - 1;
            found &= u32::MAX << slot_min;
            if found != 0 {
                let slot = found.trailing_zeros() as usize;
                let at = NODES_AT + slot * 4;
                let unit = u32::from_le_bytes(line[at..at + 4].try_into().expect("four octets"));
                return Some(Probe {
                    bucket: bucket as u32,
                    slot: slot as u8,
                    tag,
                    node: unit as usize * 8,
                });
            }
            if line[OVERFLOW_AT] == 0 {
                return None;
            }
            bucket += 1;
            slot_min = 0;
        }
    }
}

#[inline(always)]
fn bucket_of(hash: u64, bucket_count: u64) -> usize {
    ((u128::from(hash) * u128::from(bucket_count)) >> 64) as usize
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    fn find(index: &Index, hash: u64, node: usize) -> bool {
        let mut probe = index.probe(hash);
        while let Some(candidate) = probe {
            if candidate.node == node {
                return true;
            }
            probe = index.probe_on(candidate);
        }
        false
    }

    #[test]
    fn every_name_is_found_and_no_other() {
        let mut hashes: Vec<u64> =
            (1..10_000u64).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
        hashes.sort_unstable();
        let names = hashes.iter().enumerate().map(|(i, &hash)| (hash, i * 8));
        let index = Index::build(hashes.len(), names).unwrap();
        for (i, &hash) in hashes.iter().enumerate() {
            assert!(find(&index, hash, i * 8));
            assert!(!find(&index, hash, usize::MAX));
        }
    }

    #[test]
    fn equal_hashes_spill_past_the_end() {
        for count in [0, 1, 10, 11, 200] {
            let index = Index::build(count, (0..count).map(|i| (u64::MAX, i * 8))).unwrap();
            assert!((0..count).all(|i| find(&index, u64::MAX, i * 8)));
            assert!(!find(&index, u64::MAX, count * 8));
        }
    }
}
