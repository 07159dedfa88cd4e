//! What becomes of each query, drawn from a seed: which answer, how late.
//!
//! ```text
//!   delay log-normal 300us 0.5, drop 0.1%, stall 50ms every 2s, rcode 1%
//!
//!   arrival ──delay──> due                      due in a stall ──> its end
//!   start ........ |stall|............ |stall|............ |stall|
//!                  period              period              period
//! ```

use std::fmt;
use std::str::FromStr;

use crate::zones::queries::Random;

/// No answer is later than this.
const DELAY_NS_MAX: u64 = 60_000_000_000;

//----------- Act ------------------------------------------------------------

/// What is done with a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// It is answered.
    Answer,
    /// It is not answered.
    Drop,
    /// It is answered with another rcode, REFUSED.
    OtherRcode,
    /// What it gets answers another question.
    OtherQuestion,
    /// What it gets has another ID.
    OtherId,
    /// It is answered with TC and no record.
    Truncate,
    /// It is answered twice. This is the first answer.
    Twice,
    /// This is the second answer to a query that has another entry.
    Again,
    /// It is answered from another port; over a stream, where there is none, not at all.
    Elsewhere,
}

impl Act {
    /// All, by their number in a log.
    pub const ALL: [Act; 9] = [
        Act::Answer,
        Act::Drop,
        Act::OtherRcode,
        Act::OtherQuestion,
        Act::OtherId,
        Act::Truncate,
        Act::Twice,
        Act::Again,
        Act::Elsewhere,
    ];
}

/// The clauses of a script that name a share, and what they do.
const SHARES: [(&str, Act); 7] = [
    ("drop", Act::Drop),
    ("rcode", Act::OtherRcode),
    ("question", Act::OtherQuestion),
    ("id", Act::OtherId),
    ("truncate", Act::Truncate),
    ("duplicate", Act::Twice),
    ("elsewhere", Act::Elsewhere),
];

//----------- Script ---------------------------------------------------------

/// A distribution of delays, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Delay {
    /// Always the same.
    Fixed(u64),
    /// Anything between two.
    Uniform(u64, u64),
    /// With this mean.
    Exponential(u64),
    /// With this median, and this deviation of the logarithm.
    LogNormal(u64, f64),
    /// One, or with this share the other.
    Bimodal(u64, u64, f64),
}

/// Times at which nothing is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// How long one is.
    pub length_ns: u64,
    /// From the beginning of one to that of the next; the first is that long after the start.
    pub period_ns: u64,
}

impl Stall {
    /// The end of the stall that `at_ns` after the start is in.
    pub fn end_ns(&self, at_ns: u64) -> Option<u64> {
        let phase = at_ns % self.period_ns;
        (at_ns >= self.period_ns && phase < self.length_ns).then(|| at_ns - phase + self.length_ns)
    }
}

/// What a server does.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// How late answers are.
    pub delay: Delay,
    /// When none is sent.
    pub stall: Option<Stall>,
    /// Shares of the queries that are not simply answered.
    pub shares: Vec<(Act, f64)>,
    text: String,
}

impl Script {
    /// What to do with the next query, and after how many nanoseconds.
    pub fn draw(&self, random: &mut Random) -> (Act, u64) {
        // Each query takes as many numbers, so that another share leaves the delays as they were.
        let (which, one, two) = (uniform(random), uniform(random), uniform(random));
        let mut below = 0.0;
        let act = self.shares.iter().find(|(_, share)| {
            below += share;
            which < below
        });
        let ns = match self.delay {
            Delay::Fixed(ns) => ns as f64,
            Delay::Uniform(low, high) => low as f64 + one * (high - low) as f64,
            Delay::Exponential(mean) => -one.ln() * mean as f64,
            Delay::LogNormal(median, sigma) => {
                // Box and Muller.
                let normal = (-2.0 * one.ln()).sqrt() * (std::f64::consts::TAU * two).cos();
                median as f64 * (sigma * normal).exp()
            }
            Delay::Bimodal(low, high, share) => (if one < share { high } else { low }) as f64,
        };
        (act.map_or(Act::Answer, |(act, _)| *act), (ns as u64).min(DELAY_NS_MAX))
    }

    /// When an answer is due to a query that arrived at `arrival_ns` after the start.
    pub fn due_ns(&self, arrival_ns: u64, delay_ns: u64) -> u64 {
        let due = arrival_ns + delay_ns;
        self.stall.and_then(|stall| stall.end_ns(due)).unwrap_or(due)
    }
}

/// A number from 0 to 1, neither of them.
fn uniform(random: &mut Random) -> f64 {
    (random.below(1 << 53) as f64 + 0.5) / (1u64 << 53) as f64
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Script {
    type Err = String;

    fn from_str(text: &str) -> Result<Script, String> {
        let mut script = Script {
            delay: Delay::Fixed(0),
            stall: None,
            shares: Vec::new(),
            text: text.split_whitespace().collect::<Vec<_>>().join(" "),
        };
        for clause in text.split(',').map(str::trim).filter(|clause| !clause.is_empty()) {
            let unknown = || {
                format!(
                    "{clause:?} is no clause of a script: delay fixed|uniform|exponential|log-normal|\
                     bimodal, stall, drop, rcode, question, id, truncate, duplicate, elsewhere; \
                     for example \"delay uniform 100us 1ms, drop 0.1%, stall 50ms every 2s\""
                )
            };
            let words: Vec<&str> = clause.split_whitespace().collect();
            match words[..] {
                ["delay", kind, ref values @ ..] => {
                    script.delay = delay(kind, values).ok_or_else(unknown)?;
                }
                ["stall", length, "every", period] => {
                    let (Some(length_ns), Some(period_ns)) = (time(length), time(period)) else {
                        return Err(unknown());
                    };
                    if period_ns <= length_ns {
                        return Err(format!("{clause:?}: the period has to be the longer one"));
                    }
                    script.stall = Some(Stall { length_ns, period_ns });
                }
                [name, value] => {
                    let act = SHARES.iter().find(|(it, _)| *it == name).ok_or_else(unknown)?.1;
                    script.shares.push((act, share(value).ok_or_else(unknown)?));
                }
                _ => return Err(unknown()),
            }
        }
        let sum: f64 = script.shares.iter().map(|(_, share)| share).sum();
        match sum > 1.0 {
            true => Err(format!("the shares of {text:?} are more than 100 % together")),
            false => Ok(script),
        }
    }
}

fn delay(kind: &str, values: &[&str]) -> Option<Delay> {
    Some(match (kind, values) {
        ("fixed", [at]) => Delay::Fixed(time(at)?),
        ("uniform", [low, high]) => {
            let (low, high) = (time(low)?, time(high)?);
            if high < low {
                return None;
            }
            Delay::Uniform(low, high)
        }
        ("exponential", [mean]) => Delay::Exponential(time(mean)?),
        ("log-normal", [median, sigma]) => {
            let sigma: f64 = sigma.parse().ok()?;
            Delay::LogNormal(time(median)?, (0.0..=10.0).contains(&sigma).then_some(sigma)?)
        }
        ("bimodal", [low, high, high_share]) => {
            Delay::Bimodal(time(low)?, time(high)?, share(high_share)?)
        }
        _ => return None,
    })
}

/// `300us`, `1.5ms` or `2s`, in nanoseconds; no more than [`DELAY_NS_MAX`].
fn time(text: &str) -> Option<u64> {
    let split = text.find(|letter: char| letter.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(split);
    let unit_ns = match unit {
        "ns" => 1.0,
        "us" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        _ => return None,
    };
    let ns = number.parse::<f64>().ok()? * unit_ns;
    (0.0..=DELAY_NS_MAX as f64).contains(&ns).then_some(ns as u64)
}

/// `0.1%` or `0.001`.
fn share(text: &str) -> Option<f64> {
    let value = match text.strip_suffix('%') {
        Some(number) => number.parse::<f64>().ok()? / 100.0,
        None => text.parse().ok()?,
    };
    (0.0..=1.0).contains(&value).then_some(value)
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(script: &str) -> Vec<u64> {
        let script: Script = script.parse().unwrap();
        let mut random = Random::new(5);
        let mut delays: Vec<u64> = (0..100_000).map(|_| script.draw(&mut random).1).collect();
        delays.sort_unstable();
        delays
    }

    #[test]
    fn delays_have_the_distribution_they_are_said_to_have() {
        for (script, quantile, expected) in [
            ("delay fixed 200us", 0.5, 200_000.0),
            ("delay uniform 100us 1ms", 0.5, 550_000.0),
            ("delay uniform 100us 1ms", 0.99, 991_000.0),
            ("delay exponential 300us", 0.5, 300_000.0 * 2f64.ln()),
            ("delay exponential 300us", 0.99, 300_000.0 * 100f64.ln()),
            ("delay log-normal 300us 0.5", 0.5, 300_000.0),
            // 2.3263 is the normal distribution's.
            ("delay log-normal 300us 0.5", 0.99, 300_000.0 * (0.5f64 * 2.3263).exp()),
            ("delay bimodal 100us 5ms 2%", 0.975, 100_000.0),
            ("delay bimodal 100us 5ms 2%", 0.985, 5_000_000.0),
        ] {
            let delays = delays(script);
            let found = delays[(quantile * delays.len() as f64) as usize] as f64;
            assert!((found / expected - 1.0).abs() < 0.02, "{script}: {found}, not {expected}");
        }
    }

    #[test]
    fn shares_are_those_of_the_script_and_repeat() {
        let script: Script = "drop 10%, id 0.05, duplicate 5%".parse().unwrap();
        let acts = || {
            let mut random = Random::new(9);
            (0..100_000).map(|_| script.draw(&mut random).0).collect::<Vec<_>>()
        };
        let count = |act| acts().iter().filter(|&&it| it == act).count() as f64 / 1000.0;
        for (act, percent) in
            [(Act::Drop, 10.0), (Act::OtherId, 5.0), (Act::Twice, 5.0), (Act::Answer, 80.0)]
        {
            assert!((count(act) - percent).abs() < 0.5, "{act:?}: {}", count(act));
        }
        assert_eq!(acts(), acts());
    }

    #[test]
    fn what_is_due_in_a_stall_leaves_at_its_end() {
        let script: Script = "delay fixed 1ms, stall 50ms every 2s".parse().unwrap();
        let ms = |ms: u64| ms * 1_000_000;
        for (arrival, due) in [
            (0, 1),
            (1998, 1999),
            (1999, 2050),
            (2030, 2050),
            (2049, 2050),
            (2050, 2051),
            (4020, 4050),
        ] {
            assert_eq!(script.due_ns(ms(arrival), ms(1)), ms(due), "{arrival}");
        }
    }

    #[test]
    fn what_is_no_script_says_what_is() {
        for text in [
            "sleep 1s",
            "delay 1ms",
            "delay uniform 2ms 1ms",
            "delay log-normal 1ms",
            "drop 101%",
            "drop lots",
            "stall 50ms",
            "delay fixed 1 ms",
            "delay fixed 2h",
        ] {
            let error = text.parse::<Script>().unwrap_err();
            assert!(error.contains("for example"), "{error}");
        }
        assert!("stall 2s every 1s".parse::<Script>().unwrap_err().contains("the longer one"));
        assert!("drop 60%, id 60%".parse::<Script>().unwrap_err().contains("100 %"));
    }
}
