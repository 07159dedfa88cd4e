//! What is a change, and what is noise.
//!
//! ```text
//!   repeats      Welch's t on logarithms
//!   seconds      of one run, in batches; then as repeats
//!   share        Newcombe's interval of two shares, n divided by the dispersion between seconds
//!   percentile   order statistics, widened by how the seconds of the run varied
//! ```
//!
//! Few repeats decide what can be used. With three on each side a rank test cannot fall below
//! p = 0.1, so it would never find anything; a bootstrap of three values knows three values.
//! Welch's t is calibrated for few, does not assume that both sides vary alike, and an outlier
//! widens its interval, so it errs towards noise. Logarithms, because noise of rates and times is a
//! share of them.

use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

use crate::report::model::{Latency, Run, Second};

/// How often two measurements of the same are judged different, for one figure.
pub const LEVEL: f64 = 0.01;
/// Standard deviation that is assumed at least: repeats that are equal to the last digit do not
/// prove that the next one will be.
const DEVIATION_MIN: f64 = 0.001;
/// Seconds of a run, without the first, from which on they tell its noise.
const SECONDS_MIN: usize = 6;
/// Batches of seconds, at least: up to twice as many are made.
const BATCHES: usize = 10;
/// HDR histograms keep two digits: a value may be off by one of a hundred.
const BUCKET: f64 = 0.01;

/// What is known of how a figure varies.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    /// Measured several times.
    Repeats(Vec<f64>),
    /// In each batch of seconds of one run.
    Seconds(Vec<f64>),
    /// So many of so many, and how much more they vary from second to second than if they were
    /// independent.
    Share {
        /// How many.
        events: f64,
        /// Of how many.
        of: f64,
        /// 1 if they are independent.
        dispersion: f64,
    },
    /// A percentile, between these bounds.
    Bounds(f64, f64),
    /// Measured once: its noise is not known.
    Once,
}

/// An interval with which a change was judged.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Interval {
    /// `ratio` (B / A) or `difference` (B - A).
    pub of: &'static str,
    /// From here.
    pub low: f64,
    /// To here.
    pub high: f64,
}

impl Interval {
    /// -1 if all of it is below no change, 1 if all of it is above, 0 otherwise.
    pub fn side(&self) -> i8 {
        let same = if self.of == "ratio" { 1.0 } else { 0.0 };
        i8::from(self.low > same) - i8::from(self.high < same)
    }
}

/// The interval of the change from `a` to `b`, and by what it was found; `None` if nothing is known
/// about noise. A value is what stands for a sample that has another form than the other side's.
pub fn change(a: (f64, &Sample), b: (f64, &Sample)) -> Option<(Interval, &'static str)> {
    match (a.1, b.1) {
        (Sample::Repeats(a), Sample::Repeats(b)) => Some((welch(a, b)?, "repeats")),
        (Sample::Repeats(each), _) => Some((welch(each, &[b.0])?, "repeats of A")),
        (_, Sample::Repeats(each)) => Some((welch(&[a.0], each)?, "repeats of B")),
        (Sample::Seconds(a), Sample::Seconds(b)) => Some((welch(a, b)?, "seconds")),
        (
            Sample::Share { events: k1, of: n1, dispersion: d1 },
            Sample::Share { events: k2, of: n2, dispersion: d2 },
        ) => {
            // Which side had the bursts is chance: both may have had those of the other.
            let d = d1.max(*d2);
            Some((newcombe((k1 / d, n1 / d), (k2 / d, n2 / d), normal())?, "binomial"))
        }
        (Sample::Bounds(low1, high1), Sample::Bounds(low2, high2)) => {
            Some((ratio((*low1, a.0, *high1), (*low2, b.0, *high2))?, "order statistics"))
        }
        _ => None,
    }
}

//----------- Repeats --------------------------------------------------------

/// Welch's t. Of ratios if all values are positive, else of differences. If one side was measured
/// once, its noise is taken to be that of the other.
fn welch(a: &[f64], b: &[f64]) -> Option<Interval> {
    let positive = a.iter().chain(b).all(|value| *value > 0.0);
    let prepared = |values: &[f64]| -> Vec<f64> {
        values.iter().map(|value| if positive { value.ln() } else { *value }).collect()
    };
    let (a, b) = (prepared(a), prepared(b));
    let size = a.iter().chain(&b).map(|value| value.abs()).fold(0.0, f64::max);
    let least = if positive { DEVIATION_MIN } else { DEVIATION_MIN * size };
    let (n1, n2) = (a.len() as f64, b.len() as f64);
    let (error, freedom) = match (variance(&a), variance(&b)) {
        (Some(v1), Some(v2)) => {
            let (s1, s2) = (v1.max(least * least) / n1, v2.max(least * least) / n2);
            let freedom = (s1 + s2).powi(2) / (s1 * s1 / (n1 - 1.0) + s2 * s2 / (n2 - 1.0));
            ((s1 + s2).sqrt(), freedom)
        }
        (Some(v), None) if a.len() >= 3 => {
            ((v.max(least * least) * (1.0 / n1 + 1.0)).sqrt(), n1 - 1.0)
        }
        (None, Some(v)) if b.len() >= 3 => {
            ((v.max(least * least) * (1.0 / n2 + 1.0)).sqrt(), n2 - 1.0)
        }
        _ => return None,
    };
    let change = mean(&b)? - mean(&a)?;
    if error == 0.0 {
        // Nothing but zeros on both sides.
        return Some(Interval { of: "difference", low: change, high: change });
    }
    let reach = student(freedom)? * error;
    let (low, high) = (change - reach, change + reach);
    Some(match positive {
        true => Interval { of: "ratio", low: low.exp(), high: high.exp() },
        false => Interval { of: "difference", low, high },
    })
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn variance(values: &[f64]) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() >= 2)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some(squares / (values.len() - 1) as f64)
}

/// Student's t that `LEVEL` of all exceed, on both sides together.
fn student(freedom: f64) -> Option<f64> {
    let distribution = StudentsT::new(0.0, 1.0, freedom).ok()?;
    Some(distribution.inverse_cdf(1.0 - LEVEL / 2.0))
}

fn normal() -> f64 {
    Normal::standard().inverse_cdf(1.0 - LEVEL / 2.0)
}

//----------- Seconds of one run ---------------------------------------------

/// The mean of each batch of whole seconds, without the first: neighbouring seconds are alike, and
/// what is alike counts once.
pub fn batches(run: &Run, figure: impl Fn(&Second) -> f64) -> Option<Vec<f64>> {
    let whole = (run.seconds.floor() as usize).min(run.series.len());
    let seconds = run.series.get(1..whole)?;
    if seconds.len() < SECONDS_MIN {
        return None;
    }
    let size = (seconds.len() / BATCHES).max(1);
    let means = seconds
        .chunks_exact(size)
        .map(|batch| batch.iter().map(&figure).sum::<f64>() / size as f64);
    Some(means.collect())
}

/// How much more losses vary from second to second than if each query was lost by itself: the
/// variance over the mean, at least 1.
fn dispersion(run: &Run) -> f64 {
    let lost: Vec<f64> = run.series.iter().map(|second| second.lost as f64).collect();
    match (mean(&lost), variance(&lost)) {
        (Some(mean), Some(variance)) if mean > 0.0 => (variance / mean).max(1.0),
        _ => 1.0,
    }
}

/// The same, if the run is long enough to tell it.
pub fn dispersion_known(run: &Run) -> Option<f64> {
    batches(run, |second| second.lost as f64).map(|_| dispersion(run))
}

/// The interval of `p2 - p1` (Newcombe 1998, method 10): good for shares near zero, and for none.
fn newcombe((k1, n1): (f64, f64), (k2, n2): (f64, f64), z: f64) -> Option<Interval> {
    if n1 <= 0.0 || n2 <= 0.0 {
        return None;
    }
    let (p1, p2) = (k1 / n1, k2 / n2);
    let ((low1, high1), (low2, high2)) = (wilson(p1, n1, z), wilson(p2, n2, z));
    let reach = |one: f64, other: f64| (one * one + other * other).sqrt();
    let low = p2 - p1 - reach(p2 - low2, high1 - p1);
    let high = p2 - p1 + reach(high2 - p2, p1 - low1);
    Some(Interval { of: "difference", low, high })
}

/// Wilson's interval of a share `p` of `n`, for the quantile `z` of the normal distribution.
fn wilson(p: f64, n: f64, z: f64) -> (f64, f64) {
    let middle = p + z * z / (2.0 * n);
    let reach = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    (((middle - reach) / scale).max(0.0), ((middle + reach) / scale).min(1.0))
}

/// The interval of a ratio from those of its sides, each `(low, value, high)`: the reaches are
/// independent, so their squares are added, as in Newcombe's interval.
fn ratio(one: (f64, f64, f64), other: (f64, f64, f64)) -> Option<Interval> {
    let ((low1, value1, high1), (low2, value2, high2)) = (one, other);
    if low1 <= 0.0 || low2 <= 0.0 {
        return None;
    }
    let reach = |above: f64, below: f64| above.ln().max(0.0).hypot(below.ln().max(0.0)).exp();
    let change = value2 / value1;
    let low = change / reach(value2 / low2, high1 / value1);
    let high = change * reach(high2 / value2, value1 / low1);
    Some(Interval { of: "ratio", low, high })
}

/// Bounds of the percentile `q` of a run. Order statistics alone would take each query for
/// independent; queries of the same busy moment are not, so the bounds are widened by the interval
/// of the mean of the seconds' p99, and the ranks by the dispersion of losses. `None` if the run is
/// too short to know.
pub fn percentile(run: &Run, latency: &Latency, q: f64) -> Option<(f64, f64)> {
    let seconds: Vec<f64> = batches(run, |second| second.p99.max(f64::MIN_POSITIVE).ln())?;
    let count = seconds.len() as f64;
    let wobble = student(count - 1.0)? * (variance(&seconds)? / count).sqrt();
    let (low, high) = order_statistics(latency, q, dispersion(run))?;
    Some((low * (1.0 - BUCKET) / wobble.exp(), high * (1.0 + BUCKET) * wobble.exp()))
}

/// The values whose ranks enclose the percentile `q`, whatever the distribution; `None` if there
/// are too few values above it. `dispersion` is how much more the number above it varies than if
/// values were independent: losses, which stand at the top, come in bursts.
fn order_statistics(latency: &Latency, q: f64, dispersion: f64) -> Option<(f64, f64)> {
    let count: u64 = latency.buckets.iter().map(|(_, count)| count).sum();
    let n = count as f64;
    let reach = normal() * (n * q * (1.0 - q) * dispersion).sqrt();
    let low = (n * q - reach).floor();
    let high = (n * q + reach).ceil() + 1.0;
    if low < 1.0 || high > n {
        return None;
    }
    Some((at_rank(latency, low as u64)?, at_rank(latency, high as u64)?))
}

fn at_rank(latency: &Latency, rank: u64) -> Option<f64> {
    let mut passed = 0;
    latency.buckets.iter().find_map(|(value, count)| {
        passed += count;
        (passed >= rank).then_some(*value)
    })
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (freedom, t) in [(1.0, 63.657), (2.0, 9.925), (4.0, 4.604), (10.0, 3.169)] {
            assert!((student(freedom).unwrap() - t).abs() < 0.001, "{freedom}");
        }
        assert!((normal() - 2.5758).abs() < 0.0001);
    }

    #[test]
    fn shares_are_compared_as_published() {
        // 56 of 70 and 48 of 80, at 95 %: Newcombe's own example, 0.0524 to 0.3339.
        let interval = newcombe((48.0, 80.0), (56.0, 70.0), 1.959_964).unwrap();
        assert!((interval.low - 0.0524).abs() < 0.0001, "{interval:?}");
        assert!((interval.high - 0.3339).abs() < 0.0001, "{interval:?}");
        let side = |k1, k2| newcombe((k1, 1e6), (k2, 1e6), normal()).unwrap().side();
        assert_eq!([side(0.0, 0.0), side(0.0, 3.0)], [0, 0]);
        assert_eq!([side(0.0, 30.0), side(30.0, 0.0)], [1, -1]);
    }

    #[test]
    fn few_repeats_say_what_they_can() {
        let side = |a: &[f64], b: &[f64]| welch(a, b).map(|interval| interval.side());
        assert_eq!(side(&[100.0], &[110.0]), None);
        assert_eq!(side(&[100.0, 101.0], &[110.0]), None);
        assert_eq!(side(&[99.0, 100.0, 101.0], &[115.0]), Some(1));
        assert_eq!(side(&[99.0, 100.0, 101.0], &[102.0]), Some(0));
        assert_eq!(side(&[99.0, 100.0, 101.0], &[90.0, 91.0, 89.5]), Some(-1));
        // An outlier makes it doubtful, not certain.
        assert_eq!(side(&[99.0, 100.0, 101.0], &[110.0, 111.0, 160.0]), Some(0));
        // Equal to the last digit: a tenth of a percent is still noise.
        assert_eq!(side(&[100.0; 3], &[100.1; 3]), Some(0));
        assert_eq!(side(&[100.0; 3], &[102.0; 3]), Some(1));
        assert_eq!(side(&[0.0; 3], &[0.0; 3]), Some(0));
        assert_eq!(side(&[0.0; 3], &[5.0, 5.1, 4.9]), Some(1));
    }

    #[test]
    fn ranks_enclose_a_percentile() {
        let buckets = (1..=10_000).map(|value| (f64::from(value), 1)).collect();
        let latency = Latency { count: 10_000, buckets, ..Latency::default() };
        let (low, high) = order_statistics(&latency, 0.5, 1.0).unwrap();
        assert!((4871.0..=4872.0).contains(&low) && (5129.0..=5131.0).contains(&high));
        assert!(order_statistics(&latency, 0.9999, 1.0).is_none(), "one value above is too few");
    }
}
