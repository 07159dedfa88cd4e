//! What nobody may guess: numbers from the system's generator, stretched by ChaCha.

use std::io;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Numbers drawn from one seed; then there is a new one.
const DRAWS_OF_A_SEED: u32 = 1 << 16;

/// Draws numbers that cannot be foretold from those drawn before.
pub struct Draw {
    generator: ChaCha20Rng,
    /// Until the next seed; `None` with a fixed one.
    left: Option<u32>,
}

impl Draw {
    /// Seeded by the system, again and again.
    pub fn new() -> io::Result<Draw> {
        Ok(Draw { generator: seeded()?, left: Some(DRAWS_OF_A_SEED) })
    }

    /// Always the same numbers: for tests, which print their seed.
    pub fn from_seed(seed: u64) -> Draw {
        Draw { generator: ChaCha20Rng::seed_from_u64(seed), left: None }
    }

    /// 64 bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        match &mut self.left {
            None => {}
            Some(0) => {
                // Without a new seed the old one goes on: what it draws is no worse than before.
                if let Ok(generator) = seeded() {
                    self.generator = generator;
                }
                self.left = Some(DRAWS_OF_A_SEED);
            }
            Some(left) => *left -= 1,
        }
        self.generator.next_u64()
    }

    /// A number below `count`, each equally likely; 0 if that is 0.
    #[inline]
    pub fn below(&mut self, count: u32) -> u32 {
        if count == 0 {
            return 0;
        }
        // 2^64 is hardly ever a multiple of `count`: what is left over at the end is drawn again.
        let count = u64::from(count);
        let end = u64::MAX - u64::MAX % count;
        loop {
            let bits = self.bits();
            if bits < end {
                return (bits % count) as u32;
            }
        }
    }
}

fn seeded() -> io::Result<ChaCha20Rng> {
    ChaCha20Rng::try_from_os_rng().map_err(io::Error::other)
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_renewed_and_fixed_ones_stay() {
        let mut draw = Draw::new().unwrap();
        draw.left = Some(1);
        draw.bits();
        let before = draw.generator.clone();
        let next = draw.bits();
        assert_ne!(before.clone().next_u64(), next, "a new seed");
        assert_eq!(draw.left, Some(DRAWS_OF_A_SEED));
        let (mut one, mut other) = (Draw::from_seed(7), Draw::from_seed(7));
        assert!((0..100).all(|_| one.bits() == other.bits()));
        assert_eq!((one.below(0), one.below(1)), (0, 0));
        assert!((0..1000).all(|_| one.below(3) < 3));
    }
}
