//! When queries are sent: fixed before the first one.
//!
//! ```text
//!   constant   |   |   |   |   |        poisson   || |     |  | ||   |
//!   bursts     ||||        ||||         ramp      |    |   |  | | ||||
//!   gaps       drawn from measured ones, relative to their mean
//! ```

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::zones::queries::Random;

/// The pattern of the times of sending.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Schedule {
    /// Independent clients: exponential gaps.
    #[default]
    Poisson,
    /// Equal gaps.
    Constant,
    /// So many at once, then nothing.
    Bursts(u32),
    /// From this share of the rate to all of it, evenly in time; Poisson.
    Ramp(f64),
    /// Gaps with this distribution: its quantiles in even steps, relative to their mean.
    Gaps(Arc<[f32]>),
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Schedule::Poisson => f.write_str("poisson"),
            Schedule::Constant => f.write_str("constant"),
            Schedule::Bursts(count) => write!(f, "bursts:{count}"),
            Schedule::Ramp(from) => write!(f, "ramp:{from}"),
            Schedule::Gaps(_) => f.write_str("gaps of the profile"),
        }
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Schedule, String> {
        let unknown = || {
            format!(
                "{text:?} is no schedule: poisson, constant, bursts:N or ramp:SHARE, for example bursts:32"
            )
        };
        match text.split_once(':') {
            None if text == "poisson" => Ok(Schedule::Poisson),
            None if text == "constant" => Ok(Schedule::Constant),
            Some(("bursts", count)) => match count.parse() {
                Ok(count) if count > 0 => Ok(Schedule::Bursts(count)),
                _ => Err(unknown()),
            },
            Some(("ramp", from)) => match from.parse() {
                Ok(from) if (0.0..=1.0).contains(&from) => Ok(Schedule::Ramp(from)),
                _ => Err(unknown()),
            },
            _ => Err(unknown()),
        }
    }
}

//----------- Times ----------------------------------------------------------

/// The times of sending of one thread, in nanoseconds from the start, in order.
pub struct Times {
    schedule: Schedule,
    random: Random,
    gap_ns: f64,
    end_ns: f64,
    at_ns: f64,
    count: u64,
}

impl Times {
    /// `rate` a second for `seconds`; another `seed` gives other times of the same schedule.
    pub fn new(schedule: &Schedule, rate: f64, seconds: f64, seed: u64) -> Times {
        let mut times = Times {
            schedule: schedule.clone(),
            random: Random::new(seed),
            gap_ns: 1e9 / rate.max(1e-3),
            end_ns: seconds * 1e9,
            at_ns: 0.0,
            count: 0,
        };
        times.at_ns = match times.schedule {
            Schedule::Constant | Schedule::Bursts(_) => times.uniform() * times.gap_ns,
            _ => 0.0,
        };
        times
    }

    /// The part of one of several threads: those that begin together do not send together.
    pub fn part(mut self, index: usize, of: usize) -> Times {
        let period = match self.schedule {
            Schedule::Constant => self.gap_ns,
            Schedule::Bursts(size) => self.gap_ns * f64::from(size),
            _ => return self,
        };
        self.at_ns = period * (index as f64 + 0.5) / of.max(1) as f64;
        self
    }

    /// When the schedule ends.
    pub fn end_ns(&self) -> u64 {
        self.end_ns as u64
    }

    /// A number from 0 to 1, neither of them.
    fn uniform(&mut self) -> f64 {
        (self.random.below(1 << 53) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn exponential(&mut self) -> f64 {
        -self.uniform().ln()
    }

    fn next_gap(&mut self) -> f64 {
        match &self.schedule {
            Schedule::Poisson => self.gap_ns * self.exponential(),
            Schedule::Constant => self.gap_ns,
            Schedule::Bursts(size) => {
                let size = u64::from(*size);
                if self.count.is_multiple_of(size) { self.gap_ns * size as f64 } else { 0.0 }
            }
            Schedule::Ramp(from) => {
                let share = from + (1.0 - from) * (self.at_ns / self.end_ns).min(1.0);
                // The rate is zero at the start of a ramp from zero: gaps are bounded by its end.
                (self.gap_ns * self.exponential() / share.max(1e-4)).min(self.end_ns / 16.0)
            }
            Schedule::Gaps(quantiles) => {
                let index = self.random.below(quantiles.len() as u64) as usize;
                self.gap_ns * f64::from(quantiles[index])
            }
        }
    }
}

impl Iterator for Times {
    type Item = u64;

    #[inline]
    fn next(&mut self) -> Option<u64> {
        if self.count > 0 {
            self.at_ns += self.next_gap();
        } else if !matches!(self.schedule, Schedule::Constant | Schedule::Bursts(_)) {
            self.at_ns = self.next_gap();
        }
        if self.at_ns >= self.end_ns {
            return None;
        }
        self.count += 1;
        Some(self.at_ns as u64)
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    fn times(schedule: &str, rate: f64, seconds: f64) -> Vec<u64> {
        Times::new(&schedule.parse().unwrap(), rate, seconds, 7).collect()
    }

    #[test]
    fn the_mean_rate_is_the_one_asked_for() {
        for (schedule, share) in
            [("poisson", 1.0), ("constant", 1.0), ("bursts:32", 1.0), ("ramp:0.5", 0.75)]
        {
            let count = times(schedule, 10_000.0, 10.0).len() as f64;
            let expected = 100_000.0 * share;
            assert!((count - expected).abs() < 4.0 * expected.sqrt(), "{schedule}: {count}");
        }
        let gaps = Schedule::Gaps([0.5f32, 0.5, 2.0].into());
        let count = Times::new(&gaps, 1000.0, 10.0, 1).count() as f64;
        assert!((count - 10_000.0).abs() < 400.0, "{count}");
    }

    #[test]
    fn times_are_in_order_and_repeat() {
        for schedule in ["poisson", "constant", "bursts:5", "ramp:0"] {
            let once = times(schedule, 1000.0, 3.0);
            assert!(once.is_sorted(), "{schedule}");
            assert_eq!(once, times(schedule, 1000.0, 3.0));
            assert!(*once.last().unwrap() < 3_000_000_000);
        }
        assert!(times("bursts:4", 1000.0, 1.0).chunk_by(|a, b| a == b).all(|run| run.len() <= 4));
    }

    #[test]
    fn threads_together_keep_the_schedule() {
        for (schedule, gap) in [("constant", 250_000), ("bursts:10", 2_500_000)] {
            let schedule: Schedule = schedule.parse().unwrap();
            let part = |index| Times::new(&schedule, 1000.0, 1.0, index).part(index as usize, 4);
            let mut all: Vec<u64> = (0..4).flat_map(part).collect();
            all.sort_unstable();
            all.dedup();
            let gaps = all.windows(2).map(|pair| (pair[1] - pair[0]) as i64 - gap);
            assert!(gaps.max().unwrap() <= 1, "{schedule}");
        }
    }

    #[test]
    fn gaps_of_independent_clients_vary_as_much_as_their_mean() {
        let times = times("poisson", 10_000.0, 10.0);
        let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        let variation = variance.sqrt() / mean;
        assert!((variation - 1.0).abs() < 0.02, "{variation}");
    }

    #[test]
    fn what_is_no_schedule_says_what_is() {
        for text in ["", "often", "bursts", "bursts:0", "ramp:2"] {
            let error = text.parse::<Schedule>().unwrap_err();
            assert!(error.contains("bursts:32"), "{error}");
        }
    }
}
