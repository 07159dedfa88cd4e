//! Hashed denial of existence (RFC 5155): hashing names, and the chain of hashes in order.
//!
//! ```text
//!   hash          | directory bits | key 32 bits | rest ...                          |  160 bits
//!
//!   directory     high bits of a hash ──> its first entry           u32 each, 4 entries a bucket
//!   entry         | key u32 | block u32 |                            ascending, 8 a cache line
//!   block         | body_len u32 | sig_len u32 | count u16 | sig_count u16 | 0 0 0 0 |
//!                 | NSEC3 with its whole owner | RRSIGs |                 in the zone's pool
//! ```
//!
//! Hashes are spread evenly, so the directory leads to the right cache line at once: finding the
//! record that matches or covers a hash takes three accesses in a zone of any size, and each can be
//! asked for ahead. The owner stands in the record as it is sent; only the pointer to the apex
//! behind its one label moves with the question.

use std::io;

use sha1::block_api::compress;

use crate::limits::{LABEL_LEN_MAX, NAME_LEN_MAX};
use crate::memory::{Region, Shared, prefetch};

use super::node::{owner_len, read_u32};

/// Octets of a hash: SHA-1 is the only algorithm there is (RFC 5155, 11).
pub const HASH_LEN: usize = 20;
/// Octets of a hash in base32hex, which is the owner's first label.
pub const LABEL_LEN: usize = HASH_LEN * 8 / 5;
const _: () = assert!(LABEL_LEN <= LABEL_LEN_MAX);
/// Octets before a block's body.
pub(super) const BLOCK_HEADER_LEN: usize = 16;
const ENTRY_LEN: usize = 8;
/// Entries per directory bucket, as a power of two: at most half a cache line of them.
const FILL_BITS: u32 = 2;

//----------- Hash -----------------------------------------------------------

/// The hash of a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hash(pub [u8; HASH_LEN]);

impl Hash {
    #[inline(always)]
    fn high(self) -> u64 {
        u64::from_be_bytes(self.0[..8].try_into().expect("eight octets"))
    }

    /// The label that names this hash (RFC 4648, 7, in lower case).
    #[inline]
    pub fn label(self) -> [u8; LABEL_LEN] {
        const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
        let mut label = [0; LABEL_LEN];
        for (five, eight) in self.0.chunks_exact(5).zip(label.chunks_exact_mut(8)) {
            let word = five.iter().fold(0u64, |word, &octet| word << 8 | u64::from(octet));
            for (i, digit) in eight.iter_mut().enumerate() {
                *digit = DIGITS[(word >> (35 - 5 * i)) as usize & 31];
            }
        }
        label
    }

    /// Reads a label, in either case.
    pub fn from_label(label: &[u8]) -> Option<Hash> {
        let mut hash = [0; HASH_LEN];
        if label.len() != LABEL_LEN {
            return None;
        }
        for (five, eight) in hash.chunks_exact_mut(5).zip(label.chunks_exact(8)) {
            let mut word = 0u64;
            for &digit in eight {
                let value = match digit.to_ascii_lowercase() {
                    digit @ b'0'..=b'9' => digit - b'0',
                    digit @ b'a'..=b'v' => digit - b'a' + 10,
                    _ => return None,
                };
                word = word << 5 | u64::from(value);
            }
            five.copy_from_slice(&word.to_be_bytes()[3..]);
        }
        Some(Hash(hash))
    }
}

//----------- Params ---------------------------------------------------------

/// How the names of one chain are hashed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params {
    /// Additional iterations.
    pub iterations: u16,
    /// The salt.
    pub salt: Box<[u8]>,
}

impl Params {
    /// Reads what NSEC3 and NSEC3PARAM start with, and the flags. `None` if it is cut short or of
    /// another algorithm than SHA-1.
    pub fn read(rdata: &[u8]) -> Option<(Params, u8)> {
        let (&[algorithm, flags, high, low, salt_len], rest) = rdata.split_first_chunk()?;
        if algorithm != 1 {
            return None;
        }
        let salt = rest.get(..usize::from(salt_len))?;
        let iterations = u16::from_be_bytes([high, low]);
        Some((Params { iterations, salt: salt.into() }, flags))
    }

    /// The hash of a name in wire form and lower case (RFC 5155, 5).
    #[inline]
    pub fn hash(&self, name: &[u8]) -> Hash {
        let mut hash = digest(name, &self.salt);
        for _ in 0..self.iterations {
            hash = digest(&hash.0, &self.salt);
        }
        hash
    }
}

/// SHA-1 of `data` and then `salt`, both at most 255 octets.
#[inline]
fn digest(data: &[u8], salt: &[u8]) -> Hash {
    const BLOCK: usize = 64;
    /// The two inputs, the bit that ends them, and their length.
    const BLOCKS_MAX: usize = (NAME_LEN_MAX + 255 + 1 + 8).div_ceil(BLOCK);
    let mut blocks = [[0u8; BLOCK]; BLOCKS_MAX];
    let len = data.len() + salt.len();
    let count = (len + 1 + 8).div_ceil(BLOCK);
    let octets = blocks.as_flattened_mut();
    octets[..data.len()].copy_from_slice(data);
    octets[data.len()..len].copy_from_slice(salt);
    octets[len] = 0x80;
    let end = count * BLOCK;
    octets[end - 8..end].copy_from_slice(&(len as u64 * 8).to_be_bytes());
    let mut state = [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476, 0xC3D2_E1F0u32];
    compress(&mut state, &blocks[..count]);
    let mut hash = Hash::default();
    for (octets, word) in hash.0.chunks_exact_mut(4).zip(state) {
        octets.copy_from_slice(&word.to_be_bytes());
    }
    hash
}

//----------- Block ----------------------------------------------------------

/// A view of one NSEC3 RRset in its zone's pool.
#[derive(Clone, Copy)]
pub struct Block<'a> {
    octets: &'a [u8],
}

impl<'a> Block<'a> {
    /// The block at `position` of `pool`.
    #[inline(always)]
    pub fn at(pool: &'a [u8], position: usize) -> Block<'a> {
        Block { octets: &pool[position..] }
    }

    /// Writes a block from `(count, records)` and `(count, RRSIGs)`.
    pub(super) fn write(
        out: &mut Vec<u8>,
        (count, body): (u16, &[u8]),
        (sig_count, signatures): (u16, &[u8]),
    ) {
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        out.extend_from_slice(&(signatures.len() as u32).to_le_bytes());
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&sig_count.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(body);
        out.extend_from_slice(signatures);
    }

    /// Records, and signatures over them.
    #[inline(always)]
    pub fn counts(self) -> (u16, u16) {
        let half = |at: usize| u16::from_le_bytes([self.octets[at], self.octets[at + 1]]);
        (half(8), half(10))
    }

    /// The records, each with its whole owner: the label, then a pointer or the root.
    #[inline(always)]
    pub fn body(self) -> &'a [u8] {
        &self.octets[BLOCK_HEADER_LEN..][..read_u32(self.octets, 0) as usize]
    }

    /// The RRSIGs, each with a pointer for an owner.
    #[inline(always)]
    pub fn signatures(self) -> &'a [u8] {
        let start = BLOCK_HEADER_LEN + read_u32(self.octets, 0) as usize;
        &self.octets[start..start + read_u32(self.octets, 4) as usize]
    }

    /// The owner's first label.
    #[inline(always)]
    pub fn label(self) -> &'a [u8] {
        &self.octets[BLOCK_HEADER_LEN + 1..][..LABEL_LEN]
    }

    /// The RDATA of the first record.
    pub fn rdata(self) -> &'a [u8] {
        let rest = &self.body()[1 + LABEL_LEN..];
        let start = owner_len(rest) + 10;
        let len = u16::from_be_bytes([rest[start - 2], rest[start - 1]]) as usize;
        &rest[start..start + len]
    }
}

/// One NSEC3 RRset as the builder placed it.
#[derive(Clone, Copy)]
pub(super) struct Hashed {
    pub hash: Hash,
    /// Which of the builder's parameters it has.
    pub params: u32,
    pub position: usize,
}

//----------- Chain ----------------------------------------------------------

/// The NSEC3 records of one set of parameters, in the order of their hashes. A clone shares them.
#[derive(Clone)]
pub struct Chain {
    params: Params,
    bits: u32,
    count: usize,
    directory: Shared,
    entries: Shared,
}

impl Chain {
    /// Builds the chain of `records`, `(hash, position in the pool)` in ascending order; at least
    /// one.
    pub fn build(params: Params, records: &[(Hash, usize)]) -> io::Result<Chain> {
        debug_assert!(records.is_sorted_by_key(|record| record.0));
        let bits = records.len().max(1).ilog2().saturating_sub(FILL_BITS);
        let mut directory = Region::new(((1 << bits) + 1) * 4)?;
        let mut entries = Region::new(records.len() * ENTRY_LEN)?;
        let chain = |hash: Hash| (bucket_of(hash, bits), key_of(hash, bits));
        let mut next = 0;
        let mut starts = directory.chunks_exact_mut(4);
        let octets = entries.chunks_exact_mut(ENTRY_LEN);
        for (i, ((hash, position), entry)) in records.iter().zip(octets).enumerate() {
            let (bucket, key) = chain(*hash);
            while next <= bucket {
                let start = starts.next().expect("a start for each bucket");
                start.copy_from_slice(&(i as u32).to_le_bytes());
                next += 1;
            }
            entry[..4].copy_from_slice(&key.to_le_bytes());
            entry[4..].copy_from_slice(&((position / 8) as u32).to_le_bytes());
        }
        starts.for_each(|start| start.copy_from_slice(&(records.len() as u32).to_le_bytes()));
        let (directory, entries) = (directory.into(), entries.into());
        Ok(Chain { params, bits, count: records.len(), directory, entries })
    }

    /// How its names are hashed.
    #[inline(always)]
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Records.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Octets of memory beside the blocks.
    pub fn memory_len(&self) -> usize {
        self.directory.len() + self.entries.len()
    }

    /// The position of the block number `i` in the order of the hashes.
    pub fn nth(&self, i: usize) -> Option<usize> {
        (i < self.count).then(|| self.position(i))
    }

    /// All blocks' positions in the order of the hashes.
    pub fn positions(&self) -> impl Iterator<Item = usize> {
        (0..self.count).map(|i| self.position(i))
    }

    /// First step: asks for the directory's entry.
    #[inline]
    pub fn prefetch_directory(&self, hash: Hash) {
        prefetch(&self.directory, bucket_of(hash, self.bits) * 4);
    }

    /// Second step: asks for the entries.
    #[inline]
    pub fn prefetch_entries(&self, hash: Hash) {
        let start = self.start(bucket_of(hash, self.bits));
        prefetch(&self.entries, start.saturating_sub(1) * ENTRY_LEN);
        prefetch(&self.entries, (start + 3) * ENTRY_LEN);
    }

    /// The block whose hash is `hash`, or else the one that covers it, and which it is.
    #[inline]
    pub(super) fn find(&self, pool: &[u8], hash: Hash) -> (usize, bool) {
        let (i, matches) = self.find_number(pool, hash);
        (self.position(i), matches)
    }

    /// As [`Chain::find`], but the block's number in the order of the hashes.
    #[inline]
    pub(super) fn find_number(&self, pool: &[u8], hash: Hash) -> (usize, bool) {
        let bucket = bucket_of(hash, self.bits);
        let key = key_of(hash, self.bits);
        let (start, end) = (self.start(bucket), self.start(bucket + 1));
        let mut i = start;
        while i < end && self.key(i) < key {
            i += 1;
        }
        // Equal keys are nearly always the hash itself.
        if i < end && self.key(i) == key {
            let label = hash.label();
            while i < end && self.key(i) == key {
                match Block::at(pool, self.position(i)).label().cmp(&label) {
                    std::cmp::Ordering::Equal => return (i, true),
                    std::cmp::Ordering::Less => i += 1,
                    std::cmp::Ordering::Greater => break,
                }
            }
        }
        // The last one covers what is before the first (RFC 5155, 1.3).
        (if i == 0 { self.count } else { i } - 1, false)
    }

    #[inline(always)]
    fn start(&self, bucket: usize) -> usize {
        read_u32(&self.directory, bucket * 4) as usize
    }

    #[inline(always)]
    fn key(&self, i: usize) -> u32 {
        read_u32(&self.entries, i * ENTRY_LEN)
    }

    /// The position of the block number `i` in the order of the hashes.
    #[inline(always)]
    pub(super) fn position(&self, i: usize) -> usize {
        read_u32(&self.entries, i * ENTRY_LEN + 4) as usize * 8
    }
}

#[inline(always)]
fn bucket_of(hash: Hash, bits: u32) -> usize {
    // Two shifts: one by 64 would be none.
    (hash.high() >> 1 >> (63 - bits)) as usize
}

#[inline(always)]
fn key_of(hash: Hash, bits: u32) -> u32 {
    ((hash.high() << bits) >> 32) as u32
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Name;

    fn params(iterations: u16, salt: &[u8]) -> Params {
        Params { iterations, salt: salt.into() }
    }

    /// RFC 5155, appendix A.
    #[test]
    fn hashes_of_the_rfc() {
        let params = params(12, &[0xaa, 0xbb, 0xcc, 0xdd]);
        for (name, label) in [
            ("example.", "0p9mhaveqvm6t7vbl5lop2u3t2rp3tom"),
            ("a.example.", "35mthgpgcu1qg68fab165klnsnk3dpvl"),
            ("ai.example.", "gjeqe526plbf1g8mklp59enfd789njgi"),
            ("x.y.w.example.", "2vptu5timamqttgl4luu9kg21e0aor3s"),
        ] {
            let hash = params.hash(name.parse::<Name>().unwrap().as_wire());
            assert_eq!(hash.label(), *label.as_bytes());
            assert_eq!(Hash::from_label(label.to_uppercase().as_bytes()), Some(hash));
        }
        assert_eq!(Hash::from_label(b"0p9mhaveqvm6t7vbl5lop2u3t2rp3to"), None);
        assert_eq!(Hash::from_label(b"wp9mhaveqvm6t7vbl5lop2u3t2rp3tom"), None);
    }

    #[test]
    fn long_names_and_salts_take_several_blocks() {
        for len in [0, 1, 54, 55, 56, 63, 64, 119, 120, 255] {
            use sha1::Digest;
            let (name, salt) = (vec![b'x'; len], vec![b'y'; 255 - len]);
            let mut whole = sha1::Sha1::new();
            whole.update(&name);
            whole.update(&salt);
            assert_eq!(digest(&name, &salt).0[..], whole.finalize()[..]);
        }
    }

    #[test]
    fn every_hash_is_found_and_what_is_between_is_covered() {
        for count in [1usize, 2, 7, 8, 9, 1000] {
            let mut hashes: Vec<Hash> =
                (0..count).map(|i| params(0, b"salt").hash(&i.to_be_bytes())).collect();
            hashes.sort_unstable();
            let (mut pool, mut records) = (vec![0; 8], Vec::new());
            for &hash in &hashes {
                records.push((hash, pool.len()));
                let body = [&[LABEL_LEN as u8][..], &hash.label(), b"\0"].concat();
                Block::write(&mut pool, (1, &body), (0, b""));
                pool.resize(pool.len().next_multiple_of(8), 0);
            }
            let chain = Chain::build(params(0, b"salt"), &records).unwrap();
            for i in 0..count {
                assert_eq!(chain.find(&pool, hashes[i]), (records[i].1, true));
                let mut after = hashes[i];
                after.0[HASH_LEN - 1] ^= 1;
                let covering = if after > hashes[i] { i } else { (i + count - 1) % count };
                assert_eq!(chain.find(&pool, after), (records[covering].1, false));
            }
            assert_eq!(chain.find(&pool, Hash([0; 20])), (records[count - 1].1, false));
            assert_eq!(chain.find(&pool, Hash([255; 20])), (records[count - 1].1, false));
        }
    }
}
