//! Where loads are run: the seam between the plan and a machine, or a model of one.

use std::io;
use std::str::FromStr;

use crate::report::model::Run;

use super::limits::MemoryPoint;
use super::predict::TransferCost;

/// One load that the plan wants to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// What it is for.
    pub label: String,
    /// The shares of the classes; their sum is 1.
    pub shares: Vec<f64>,
    /// On how many cores the server runs.
    pub cores: u32,
    /// Queries a second.
    pub rate: f64,
    /// For how long.
    pub seconds: f64,
    /// Transfers a second beside them.
    pub transfers: f64,
    /// Whether the server reads its zones again meanwhile.
    pub reload: bool,
    /// Seed of the schedule and of what is drawn.
    pub seed: u64,
}

/// A server that loads can be sent to.
pub trait Lab {
    /// Sends a load. `Run::server` says how busy the server's cores were beyond what they are
    /// without a load.
    fn run(&mut self, offer: &Offer) -> io::Result<Run>;

    /// What one transfer of the zone costs; `per_second` of the result is left zero.
    fn transfers(&mut self, seconds: f64) -> io::Result<TransferCost>;

    /// Loads zones of several sizes, the largest twice.
    fn memory(&mut self) -> io::Result<Vec<MemoryPoint>>;
}

//----------- Bounds ---------------------------------------------------------

/// What a server has to hold for a rate to count.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds {
    /// Which quantile: `0.999` for p99.9.
    pub quantile: f64,
    /// Its bound in microseconds.
    pub latency_us: f64,
    /// The bound of the share that is lost or answered wrong.
    pub loss: f64,
}

/// What a run says about its rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The bounds held.
    Held,
    /// They did not.
    Broke,
    /// The generator did not send as it should: the run says nothing about the server.
    Generator,
}

impl Bounds {
    /// Judges a run.
    pub fn judge(&self, run: &Run) -> Verdict {
        /// The share of a run that may be late, or not sent.
        const LATE_MAX: f64 = 0.01;
        const UNSENT_MAX: f64 = 0.001;
        let scheduled = run.counts.scheduled.max(1) as f64;
        let late = run.counts.late as f64 / scheduled;
        if late > LATE_MAX || run.losses.generator as f64 / scheduled > UNSENT_MAX {
            return Verdict::Generator;
        }
        let latency = &run.latency;
        let at = match self.quantile {
            0.5 => latency.p50,
            0.9 => latency.p90,
            0.99 => latency.p99,
            0.999 => latency.p99_9,
            _ => latency.p99_99,
        };
        let held = at <= self.latency_us && run.loss() <= self.loss;
        if held { Verdict::Held } else { Verdict::Broke }
    }
}

/// The quantiles that a run knows.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

impl std::fmt::Display for Bounds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = QUANTILES.iter().find(|(_, quantile)| *quantile == self.quantile);
        let name = known.map_or("p99.99", |(name, _)| name);
        write!(f, "{name} < {} us, loss < {} %", self.latency_us, self.loss * 100.0)
    }
}

impl FromStr for Bounds {
    type Err = String;

    fn from_str(text: &str) -> Result<Bounds, String> {
        let unknown = || {
            format!(
                "{text:?} says no bounds: for example p99.9<1000us,loss<0.01% or p99<5ms,loss<1%"
            )
        };
        let plain: String = text.chars().filter(|letter| !letter.is_whitespace()).collect();
        let (latency, loss) = plain.split_once(",loss<").ok_or_else(unknown)?;
        let (name, time) = latency.split_once('<').ok_or_else(unknown)?;
        let &(_, quantile) =
            QUANTILES.iter().find(|(known, _)| *known == name).ok_or_else(unknown)?;
        let (time, factor) = match (time.strip_suffix("us"), time.strip_suffix("ms")) {
            (Some(us), _) => (us, 1.0),
            (_, Some(ms)) => (ms, 1000.0),
            _ => return Err(unknown()),
        };
        let number = |text: &str| {
            let number: Option<f64> = text.parse().ok().filter(|number| *number >= 0.0);
            number.ok_or_else(unknown)
        };
        let latency_us = number(time)? * factor;
        let loss = number(loss.strip_suffix('%').ok_or_else(unknown)?)? / 100.0;
        Ok(Bounds { quantile, latency_us, loss })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_and_judge() {
        let bounds: Bounds = "p99.9 < 1ms, loss < 0.01%".parse().unwrap();
        assert_eq!(bounds.to_string(), "p99.9 < 1000 us, loss < 0.01 %");
        assert_eq!(bounds.to_string().parse::<Bounds>().unwrap(), bounds);
        for wrong in ["", "p99.9<1ms", "p97<1ms,loss<1%", "p99<1,loss<1%", "p99<1ms,loss<x%"] {
            assert!(wrong.parse::<Bounds>().unwrap_err().contains("for example"), "{wrong}");
        }
        let mut run = Run::default();
        run.counts.scheduled = 100_000;
        run.counts.good = 99_990;
        run.latency.p99_9 = 999.0;
        assert_eq!(bounds.judge(&run), Verdict::Held);
        run.latency.p99_9 = 1001.0;
        assert_eq!(bounds.judge(&run), Verdict::Broke);
        run.latency.p99_9 = 10.0;
        run.counts.good = 99_980;
        assert_eq!(bounds.judge(&run), Verdict::Broke);
        run.counts.late = 2000;
        assert_eq!(bounds.judge(&run), Verdict::Generator);
    }
}
