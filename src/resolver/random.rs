//! Randomness that is handed in, and hashing that is keyed with it.

use std::hash::{BuildHasher, Hasher};

/// Octets asked of the source at a time: some fifty questions' worth.
const BUFFER_LEN: usize = 512;

//----------- Random ---------------------------------------------------------

type Source = dyn FnMut(&mut [u8]) + Send;

/// Random numbers from whoever makes the engine: the system's generator, or in tests a sequence
/// that can be repeated. Letter case (0x20) and cookies come from here, so in production the source
/// must be one that cannot be predicted.
pub struct Random {
    source: Box<Source>,
    buffer: [u8; BUFFER_LEN],
    at: usize,
}

impl Random {
    /// Numbers from `source`, which fills what it is given.
    pub fn new(source: impl FnMut(&mut [u8]) + Send + 'static) -> Random {
        Random { source: Box::new(source), buffer: [0; BUFFER_LEN], at: BUFFER_LEN }
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        if self.at == BUFFER_LEN {
            (self.source)(&mut self.buffer);
            self.at = 0;
        }
        let octets = self.buffer[self.at..].first_chunk().expect("eight divides the buffer");
        self.at += 8;
        u64::from_ne_bytes(*octets)
    }

    /// One of the numbers from 0 up to `bound`, which is not among them.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }
}

//----------- Keyed ----------------------------------------------------------

/// A cheap hash with a secret key: a multiplication for each eight octets, folded.
#[derive(Clone, Copy)]
pub struct Keyed(pub u64);

/// What [`Keyed`] hashes with.
pub struct Folding {
    state: u64,
    key: u64,
}

impl BuildHasher for Keyed {
    type Hasher = Folding;

    fn build_hasher(&self) -> Folding {
        Folding { state: self.0, key: self.0.rotate_left(32) | 1 }
    }
}

impl Hasher for Folding {
    fn write(&mut self, octets: &[u8]) {
        for chunk in octets.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.key ^ 0x9E37_79B9_7F4A_7C15);
        self.state = (product as u64 ^ (product >> 64) as u64).wrapping_add(word);
    }

    fn finish(&self) -> u64 {
        let product = u128::from(self.state) * 0xD6E8_FEB8_6659_FD93;
        product as u64 ^ (product >> 64) as u64
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A sequence that can be repeated (SplitMix64).
    pub(in crate::resolver) fn sequence(seed: u64) -> Random {
        let mut state = seed;
        Random::new(move |octets| {
            for chunk in octets.chunks_mut(8) {
                state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let mut word = state;
                word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
                let word = (word ^ word >> 31).to_ne_bytes();
                chunk.copy_from_slice(&word[..chunk.len()]);
            }
        })
    }

    #[test]
    fn keys_make_other_hashes_that_spread() {
        let of = |key: u64, word: u64| Keyed(key).hash_one(word);
        assert_ne!(of(1, 7), of(2, 7));
        let mut low_bits = vec![0; 1024];
        (0..65_536).for_each(|word| low_bits[of(0x1234_5678, word) as usize % 1024] += 1);
        assert!(low_bits.iter().all(|&count| count < 130), "{low_bits:?}");
    }
}
