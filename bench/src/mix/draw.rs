//! What is drawn, and with which weights: one name of many, one variant of some.
//!
//! ```text
//!   weights   4 1 1        columns  | 0 0 | 1 0 | 2 0 |     each column as high as the others:
//!   alias     uniform column, then below or above its line  one draw, two accesses, any weights
//! ```
//!
//! An alias table is exact for any distribution, so that Zipf over millions of names and the
//! measured popularity of a profile need one sampler, not two.

use std::fmt;
use std::str::FromStr;

use crate::zones::queries::Random;

//----------- Alias ----------------------------------------------------------

/// Draws an index with the weight that it was given.
#[derive(Clone, Debug)]
pub struct Alias {
    /// Of 2^32: how much of the column is its own; and whose the rest is.
    columns: Box<[(u32, u32)]>,
}

impl Alias {
    /// Of weights, none negative and not all zero; at most `u32::MAX` of them.
    pub fn new(weights: impl Iterator<Item = f64>) -> Alias {
        let mut weights: Vec<f64> = weights.collect();
        let scale = weights.len() as f64 / weights.iter().sum::<f64>();
        weights.iter_mut().for_each(|weight| *weight *= scale);
        let mut columns: Box<[(u32, u32)]> =
            (0..weights.len() as u32).map(|index| (u32::MAX, index)).collect();
        let indices = 0..weights.len() as u32;
        let (mut small, mut large): (Vec<u32>, Vec<u32>) =
            indices.partition(|&index| weights[index as usize] < 1.0);
        while let (Some(&low), Some(&high)) = (small.last(), large.last()) {
            small.pop();
            let own = weights[low as usize];
            columns[low as usize] = ((own * (1u64 << 32) as f64) as u32, high);
            weights[high as usize] -= 1.0 - own;
            if weights[high as usize] < 1.0 {
                large.pop();
                small.push(high);
            }
        }
        Alias { columns }
    }

    /// The next index.
    #[inline]
    pub fn draw(&self, random: &mut Random) -> usize {
        let word = random.below((self.columns.len() as u64) << 32);
        let index = (word >> 32) as usize;
        let (own, other) = self.columns[index];
        if (word as u32) <= own { index } else { other as usize }
    }
}

//----------- Popularity -----------------------------------------------------

/// How often each of many names is asked for, by rank.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Popularity {
    /// All alike: it defeats the caches of processors.
    #[default]
    Uniform,
    /// Rank to the power of minus this.
    Zipf(f64),
    /// Only one.
    Hot,
}

impl Popularity {
    /// Draws of `count` names.
    pub fn over(self, count: usize) -> Draws {
        match self {
            Popularity::Uniform => Draws::Uniform(count as u64),
            Popularity::Hot => Draws::Uniform(1),
            Popularity::Zipf(exponent) => {
                Draws::Alias(Alias::new((1..=count).map(|rank| (rank as f64).powf(-exponent))))
            }
        }
    }
}

impl FromStr for Popularity {
    type Err = String;

    fn from_str(text: &str) -> Result<Popularity, String> {
        let exponent = || -> Option<f64> {
            let exponent = text.strip_prefix("zipf:")?.parse().ok()?;
            (0.0..=10.0).contains(&exponent).then_some(exponent)
        };
        match text {
            "uniform" => Ok(Popularity::Uniform),
            "hot" => Ok(Popularity::Hot),
            _ => exponent().map(Popularity::Zipf).ok_or_else(|| {
                format!(
                    "{text:?} is no popularity: uniform, hot or zipf:EXPONENT (0 to 10), for \
                     example zipf:1.0"
                )
            }),
        }
    }
}

impl fmt::Display for Popularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Popularity::Uniform => f.write_str("uniform"),
            Popularity::Zipf(exponent) => write!(f, "Zipf {exponent}"),
            Popularity::Hot => f.write_str("one hot name"),
        }
    }
}

/// Draws ranks, from 0 on.
pub enum Draws {
    /// Below this count, all alike.
    Uniform(u64),
    /// With weights.
    Alias(Alias),
}

impl Draws {
    /// The next rank.
    #[inline]
    pub fn draw(&self, random: &mut Random) -> usize {
        match self {
            Draws::Uniform(count) => random.below(*count) as usize,
            Draws::Alias(alias) => alias.draw(random),
        }
    }
}

//----------- Shares ---------------------------------------------------------

/// A share of all queries: `0.2` or `20%`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share(pub f64);

impl Share {
    /// Whether this query is one of them.
    #[inline]
    pub fn draw(self, random: &mut Random) -> bool {
        self.0 > 0.0 && uniform(random) < self.0
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Share, String> {
        let (number, scale) = match text.strip_suffix('%') {
            Some(number) => (number, 0.01),
            None => (text, 1.0),
        };
        let share = number.parse::<f64>().ok().map(|number| number * scale);
        share.filter(|share| (0.0..=1.0).contains(share)).map(Share).ok_or_else(|| {
            format!("{text:?} is no share: a number from 0 to 1, or 0% to 100%, for example 20%")
        })
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", (self.0 * 1e6).round() / 1e4)
    }
}

/// Values and their weights, as in `A=70,AAAA=20,MX=1`.
#[derive(Clone, Debug, PartialEq)]
pub struct Shares<T>(pub Vec<(T, f64)>);

impl<T> Shares<T> {
    /// Reads them, each value with `value`. A value without a weight has 1.
    pub fn read(
        text: &str,
        value: impl Fn(&str) -> Option<T>,
        example: &str,
    ) -> Result<Shares<T>, String> {
        let read = |part: &str| {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let weight = weight.trim().parse::<f64>().ok();
            let weight = weight.filter(|weight| weight.is_finite() && *weight >= 0.0);
            value(name.trim())
                .zip(weight)
                .ok_or_else(|| format!("{part:?}: a value and its weight, for example {example}"))
        };
        let shares = text.split(',').map(read).collect::<Result<Vec<_>, _>>()?;
        if shares.iter().map(|(_, weight)| weight).sum::<f64>() <= 0.0 {
            return Err(format!("{text:?}: weights that are not all zero, for example {example}"));
        }
        Ok(Shares(shares))
    }

    /// A sampler of their indices.
    pub fn alias(&self) -> Alias {
        Alias::new(self.0.iter().map(|(_, weight)| *weight))
    }
}

//----------- Numbers --------------------------------------------------------

/// From 0 to 1, neither of them.
#[inline]
pub fn uniform(random: &mut Random) -> f64 {
    (random.below(1 << 53) as f64 + 0.5) / (1u64 << 53) as f64
}

/// Puts `items` in a random order.
pub fn shuffle<T>(items: &mut [T], random: &mut Random) {
    for last in (1..items.len()).rev() {
        items.swap(last, random.below(last as u64 + 1) as usize);
    }
}

/// From the gamma distribution with this shape and scale 1 (Marsaglia and Tsang, 2000).
pub fn gamma(shape: f64, random: &mut Random) -> f64 {
    if shape < 1.0 {
        return gamma(shape + 1.0, random) * uniform(random).powf(1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let normal =
            (-2.0 * uniform(random).ln()).sqrt() * (std::f64::consts::TAU * uniform(random)).cos();
        let v = (1.0 + c * normal).powi(3);
        if v > 0.0 && uniform(random).ln() < 0.5 * normal * normal + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    /// Draws are within five standard deviations of what the weights say.
    fn assert_exact(weights: &[f64], mut draw: impl FnMut() -> usize) {
        const COUNT: usize = 1_000_000;
        let mut counts = vec![0u32; weights.len()];
        (0..COUNT).for_each(|_| counts[draw()] += 1);
        let sum: f64 = weights.iter().sum();
        for (index, (&count, weight)) in counts.iter().zip(weights).enumerate() {
            let expected = weight / sum * COUNT as f64;
            let off = (f64::from(count) - expected).abs();
            assert!(off <= 5.0 * expected.sqrt() + 1e-9, "{index}: {count}, {expected} expected");
        }
    }

    #[test]
    fn an_alias_table_draws_with_the_weights_it_was_given() {
        let mut random = Random::new(1);
        for weights in [&[1.0][..], &[0.0, 3.0, 0.0], &[5.0, 1.0, 1.0, 1e-3], &[1.0; 77]] {
            let alias = Alias::new(weights.iter().copied());
            assert_exact(weights, || alias.draw(&mut random));
        }
        for exponent in [0.8, 1.0, 1.2] {
            let weights: Vec<f64> =
                (1..=1000).map(|rank| f64::from(rank).powf(-exponent)).collect();
            let draws = Popularity::Zipf(exponent).over(1000);
            assert_exact(&weights, || draws.draw(&mut random));
        }
    }

    #[test]
    fn shares_are_read_and_refused() {
        assert_eq!("20%".parse(), Ok(Share(0.2)));
        assert_eq!("1".parse(), Ok(Share(1.0)));
        for text in ["", "-1", "101%", "often"] {
            assert!(text.parse::<Share>().unwrap_err().contains("for example"), "{text}");
        }
        let number = |text: &str| text.parse::<u16>().ok();
        let shares = Shares::read("1=70, 2=20,3", number, "1=2").unwrap();
        assert_eq!(shares.0, [(1, 70.0), (2, 20.0), (3, 1.0)]);
        for text in ["", "x=1", "1=-1", "1=x", "1=0,2=0"] {
            assert!(Shares::read(text, number, "1=2").is_err(), "{text}");
        }
        for text in ["", "zipf", "zipf:x", "zipf:11", "some"] {
            assert!(text.parse::<Popularity>().unwrap_err().contains("zipf:1.0"), "{text}");
        }
    }

    #[test]
    fn gamma_has_its_mean_and_variance() {
        let mut random = Random::new(5);
        for shape in [0.2, 1.0, 4.5] {
            let draws: Vec<f64> = (0..200_000).map(|_| gamma(shape, &mut random)).collect();
            let mean = draws.iter().sum::<f64>() / draws.len() as f64;
            let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>();
            let variance = variance / draws.len() as f64;
            assert!((mean / shape - 1.0).abs() < 0.03, "{shape}: {mean}");
            assert!((variance / shape - 1.0).abs() < 0.08, "{shape}: {variance}");
        }
    }
}
