//! The keyed hash of names: one multiplication per eight octets, all suffixes in one pass.
//!
//! ```text
//!   hash(.) = key[0]      hash(org.) = mix(hash(.), "\3org")      hash(www.org.) = mix(hash(org.), "\3www")
//! ```
//!
//! The hash of a name starts from the hash of its parent: hashing a query's name from the root
//! down gives the hash of every suffix on the way, which is what finding the zone and the closest
//! encloser ask for. The key is drawn when the process starts; collisions cost a comparison and
//! never a wrong answer, and nobody outside can construct them.

use crate::limits::NAME_LABELS_MAX;
use crate::wire::LowerName;

/// The secret of this process. Every zone of a snapshot has the same.
#[derive(Clone, Copy)]
pub struct HashKey([u64; 2]);

/// The hashes of all suffixes of a name, by depth.
pub type SuffixHashes = [u64; NAME_LABELS_MAX + 1];

impl HashKey {
    /// A key from sixteen secret octets.
    pub fn new(secret: [u8; 16]) -> HashKey {
        let (low, high) = secret.split_at(8);
        let word = |octets: &[u8]| u64::from_le_bytes(octets.try_into().expect("eight octets"));
        // An even factor would lose a bit with every multiplication, and a factor of few or
        // regular bits would spread badly: whatever the secret, the key looks random.
        HashKey([scramble(word(low)), scramble(word(low) ^ scramble(word(high))) | 1])
    }

    /// Fills `hashes[depth]` for every suffix of `name`.
    #[inline]
    pub fn suffixes(self, name: &LowerName, hashes: &mut SuffixHashes) {
        let mut hash = self.0[0];
        hashes[0] = hash;
        for (depth, slot) in hashes.iter_mut().enumerate().take(name.depth() + 1).skip(1) {
            hash = self.extend(hash, name.padded(), name.suffix_at(depth));
            *slot = hash;
        }
    }

    /// The hash of `name`.
    pub fn name(self, name: &LowerName) -> u64 {
        (1..=name.depth())
            .fold(self.0[0], |hash, depth| self.extend(hash, name.padded(), name.suffix_at(depth)))
    }

    /// The hash of the wildcard below a name, from that name's hash.
    #[inline]
    pub fn wildcard_child(self, parent: u64) -> u64 {
        self.extend(parent, b"\x01*\0\0\0\0\0\0", 0)
    }

    /// Takes the label at `at`, its length octet included. Octets past the label are not taken;
    /// the buffer must allow eight to be read from any of them.
    #[inline(always)]
    fn extend(self, mut hash: u64, padded: &[u8], at: usize) -> u64 {
        let mut rest = padded[at] as usize + 1;
        let mut at = at;
        loop {
            let word = u64::from_le_bytes(padded[at..at + 8].try_into().expect("eight octets"));
            if rest <= 8 {
                let tail = word & (u64::MAX >> ((8 - rest) * 8));
                return self.mix(hash ^ tail);
            }
            hash = self.mix(hash ^ word);
            rest -= 8;
            at += 8;
        }
    }

    #[inline(always)]
    fn mix(self, word: u64) -> u64 {
        let product = u128::from(word ^ 0x9E37_79B9_7F4A_7C15) * u128::from(self.0[1]);
        (product as u64) ^ ((product >> 64) as u64)
    }
}

/// A bijection that leaves no pattern (the finalizer of splitmix64).
fn scramble(word: u64) -> u64 {
    let word = word.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    fn lower(wire: &[u8]) -> LowerName {
        let mut name = LowerName::new();
        name.read(wire).unwrap();
        name
    }

    #[test]
    fn suffixes_are_names_of_their_own() {
        let key = HashKey::new(*b"0123456789abcdef");
        let mut hashes = [0; NAME_LABELS_MAX + 1];
        key.suffixes(&lower(b"\x03www\x0Fa-longer-label-\x03org\0"), &mut hashes);
        assert_eq!(hashes[0], key.name(&lower(b"\0")));
        assert_eq!(hashes[1], key.name(&lower(b"\x03ORG\0")));
        assert_eq!(hashes[2], key.name(&lower(b"\x0Fa-longer-label-\x03org\0")));
        assert_eq!(key.wildcard_child(hashes[1]), key.name(&lower(b"\x01*\x03org\0")));
    }

    #[test]
    fn a_million_names_spread() {
        let key = HashKey::new(*b"fedcba9876543210");
        let mut hashes: Vec<u64> = (0..1_000_000u32)
            .map(|i| {
                let label = format!("h{i}");
                let mut wire = vec![label.len() as u8];
                wire.extend(label.as_bytes());
                wire.extend(b"\x07example\0");
                key.name(&lower(&wire))
            })
            .collect();
        hashes.sort_unstable();
        assert!(hashes.windows(2).all(|pair| pair[0] != pair[1]));
        // Poisson: with a mean of 6, more than 20 in a bucket has a chance of 1e-6 per bucket.
        const BUCKETS: usize = 1_000_000 / 6;
        let mut fill = vec![0u32; BUCKETS];
        for hash in hashes {
            fill[((u128::from(hash) * BUCKETS as u128) >> 64) as usize] += 1;
        }
        assert!(fill.iter().max().unwrap() < &26, "{:?}", fill.iter().max());
    }
}
