//! What a rate has to hold: a percentile under a latency, a loss under a share.

use std::fmt;
use std::str::FromStr;

use crate::report::model::Run;

/// Agreed bounds, written `p99.9<1ms,loss<0.01%`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Which percentile, of 100.
    pub percentile: f64,
    /// It is below this, in microseconds.
    pub latency_us: f64,
    /// The share of queries without a good answer is below this.
    pub loss: f64,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { percentile: 99.9, latency_us: 1000.0, loss: 1e-4 }
    }
}

impl Bounds {
    /// Whether a run held them. Lost queries are in its latencies, at the time-out.
    pub fn hold(&self, run: &Run) -> bool {
        run.loss() < self.loss && self.latency_of(run) < self.latency_us
    }

    /// The percentile that counts, of a run.
    pub fn latency_of(&self, run: &Run) -> f64 {
        let latency = &run.latency;
        match self.percentile {
            p if p <= 50.0 => latency.p50,
            p if p <= 90.0 => latency.p90,
            p if p <= 99.0 => latency.p99,
            p if p <= 99.9 => latency.p99_9,
            p if p <= 99.99 => latency.p99_99,
            _ => latency.max,
        }
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bounds { percentile, latency_us, loss } = self;
        if *latency_us >= 1000.0 {
            write!(f, "p{percentile}<{}ms,loss<{}%", latency_us / 1000.0, loss * 100.0)
        } else {
            write!(f, "p{percentile}<{latency_us}us,loss<{}%", loss * 100.0)
        }
    }
}

impl FromStr for Bounds {
    type Err = String;

    fn from_str(text: &str) -> Result<Bounds, String> {
        let wrong = || {
            format!(
                "{text:?} are no bounds: p50, p90, p99, p99.9, p99.99 or p100 under a time, a loss under a share: p99.9<1ms,loss<0.01%"
            )
        };
        let mut bounds = Bounds::default();
        for part in text.split(',') {
            let (what, below) = part.trim().split_once('<').ok_or_else(wrong)?;
            if what == "loss" {
                let percent = below.strip_suffix('%').ok_or_else(wrong)?;
                bounds.loss = percent.parse::<f64>().map_err(|_| wrong())? / 100.0;
            } else {
                bounds.percentile = match what {
                    "p50" | "p90" | "p99" | "p99.9" | "p99.99" | "p100" => {
                        what[1..].parse().map_err(|_| wrong())?
                    }
                    _ => return Err(wrong()),
                };
                let (number, unit) = match below.strip_suffix("us") {
                    Some(number) => (number, 1.0),
                    None => (below.strip_suffix("ms").ok_or_else(wrong)?, 1000.0),
                };
                bounds.latency_us = number.parse::<f64>().map_err(|_| wrong())? * unit;
            }
        }
        let sane = bounds.loss > 0.0 && bounds.loss <= 1.0 && bounds.latency_us > 0.0;
        if sane { Ok(bounds) } else { Err(wrong()) }
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_as_they_are_written() {
        for text in ["p99.9<1ms,loss<0.01%", "p50<250us,loss<5%", "p100<20ms,loss<0.1%"] {
            assert_eq!(text.parse::<Bounds>().unwrap().to_string(), text);
        }
        assert_eq!("loss<1%".parse::<Bounds>().unwrap().percentile, 99.9);
        for text in ["", "p99", "p98<1ms", "p99<1s", "loss<0%", "loss<1", "p99<-1ms", "fast"] {
            assert!(text.parse::<Bounds>().unwrap_err().contains("p99.9<1ms"), "{text}");
        }
    }

    #[test]
    fn a_run_holds_them_or_not() {
        let bounds: Bounds = "p99<1ms,loss<1%".parse().unwrap();
        let mut run = Run::default();
        (run.counts.scheduled, run.counts.good, run.latency.p99) = (1000, 999, 900.0);
        assert!(bounds.hold(&run));
        run.latency.p99 = 1000.0;
        assert!(!bounds.hold(&run));
        (run.latency.p99, run.counts.good) = (900.0, 990);
        assert!(!bounds.hold(&run));
    }
}
