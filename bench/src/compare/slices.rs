//! A prober's sight in slices: percentiles of a server, not of what stops its core now and then.
//!
//! ```text
//!   load    |---------------------------------------------------------|
//!   prober     |p50 p99|p50 p99|p50 p99| ...   twelve slices           -> the median of each
//!                          ^ a thread of the kernel took the core for milliseconds
//! ```
//!
//! A core that stands still for ten milliseconds in a second is the p99 of that second, whoever is
//! measured. It is in one slice or in two; the median does not see it, and sees what happens all
//! the time. The percentile over all slices is kept beside it.

use super::kxdpgun;
use super::measure::{Values, values};
use super::prober::{self, Rate};
use crate::report::model::{Estimate, Latency, Run};

/// Slices of a load.
pub const COUNT: u64 = 12;
/// Each takes so much of the seconds that other loads take.
pub const PART: f64 = 0.15;
/// Queries a second: a slice has some hundreds.
const RATE: f64 = 2.0 * prober::RATE;
/// Seconds before and after them.
const AROUND: f64 = 1.5;
/// The share of a slice's queries that the prober may send late: its own core was taken then.
const LATE_MAX: f64 = 0.005;

/// What a prober is to ask, slice by slice.
pub fn of(seconds: f64) -> Vec<Rate> {
    (0..COUNT).map(|seed| Rate { rate: RATE, seconds: PART * seconds, seed }).collect()
}

/// How long a load at `rate` has to last for them: a slice whose last answer does not come waits
/// for it. No longer than the generator has names that nobody has asked for.
pub fn load_seconds(seconds: f64, rate: u64) -> f64 {
    const BETWEEN: f64 = 0.1;
    let each = |more: f64| COUNT as f64 * (PART * seconds + more) + AROUND;
    let of_names = kxdpgun::LINES_MAX as f64 / (1.1 * rate.max(1) as f64);
    each(prober::TIMEOUT.as_secs_f64() + BETWEEN).min(of_names).max(each(BETWEEN))
}

/// What it has seen.
pub fn of_runs(runs: &[Run]) -> Values {
    let is_on_time =
        |run: &&Run| run.counts.late as f64 <= LATE_MAX * run.counts.scheduled.max(1) as f64;
    let on_time: Vec<&Run> = runs.iter().filter(is_on_time).collect();
    let sum = |of: fn(&Run) -> u64| runs.iter().map(of).sum::<u64>() as f64;
    let median = |of: fn(&Latency) -> f64| {
        let each: Vec<f64> = on_time.iter().map(|run| of(&run.latency)).collect();
        if each.is_empty() { 0.0 } else { Estimate::of(&each).median }
    };
    values([
        ("good", runs.iter().map(Run::goodput).sum::<f64>() / runs.len().max(1) as f64),
        ("probes", sum(|run| run.counts.scheduled)),
        // By the server and on the way to it.
        ("lost", sum(|run| run.losses.server + run.losses.server_socket.unwrap_or(0))),
        ("wrong", sum(|run| run.counts.wrong)),
        // Not the server's doing.
        ("lost_here", sum(|run| run.losses.own())),
        ("slices", runs.len() as f64),
        ("slices_on_time", on_time.len() as f64),
        ("p50", median(|latency| latency.p50)),
        ("p99", median(|latency| latency.p99)),
        ("p99_all", quantile(runs, 0.99)),
    ])
}

/// A quantile over all of them, in microseconds, to two digits.
fn quantile(runs: &[Run], quantile: f64) -> f64 {
    let mut buckets: Vec<(f64, u64)> =
        runs.iter().flat_map(|run| run.latency.buckets.iter().copied()).collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let all: u64 = buckets.iter().map(|(_, count)| count).sum();
    let mut left = (all as f64 * quantile).ceil() as u64;
    for (us, count) in buckets {
        if count >= left {
            return us;
        }
        left -= count;
    }
    0.0
}

/// What the machine did and not the server: packets that reached no socket, slices of which the
/// prober was late.
pub fn trouble(values: &Values) -> f64 {
    let of = |key: &str| values.get(key).copied().unwrap_or(0.0);
    // Which would be void.
    let too_few = if are_too_few(values).is_some() { 1e12 } else { 0.0 };
    of("refused") + too_few
}

/// Whether too few of them count.
pub fn are_too_few(values: &Values) -> Option<String> {
    let (all, on_time) = (values.get("slices")?, values.get("slices_on_time")?);
    (2.0 * on_time < *all)
        .then(|| format!("the prober was on time in {on_time} of {all} slices only"))
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::{Counts, Losses};

    /// A slice of a hundred queries, all answered within `us`, the last `slow` of them in 9 ms.
    fn slice(us: f64, slow: u64, late: u64) -> Run {
        let p99 = if slow > 1 { 9000.0 } else { us };
        let buckets = vec![(us, 100 - slow), (9000.0, slow)];
        Run {
            seconds: 0.1,
            counts: Counts { scheduled: 100, good_in_time: 100, late, ..Counts::default() },
            latency: Latency { count: 100, p50: us, p99, buckets, ..Latency::default() },
            ..Run::default()
        }
    }

    #[test]
    fn a_core_that_stood_still_is_in_all_of_it_and_not_in_the_median() {
        let mut runs: Vec<Run> = (0..12).map(|_| slice(200.0, 0, 0)).collect();
        runs[3] = slice(200.0, 20, 0);
        let values = of_runs(&runs);
        let of = |key: &str| values[key];
        assert_eq!((of("p50"), of("p99"), of("p99_all")), (200.0, 200.0, 9000.0));
        assert_eq!((of("probes"), of("good")), (1200.0, 1000.0));
        // What happens in most of them is seen.
        runs.iter_mut().take(7).for_each(|run| *run = slice(200.0, 2, 0));
        assert_eq!(of_runs(&runs)["p99"], 9000.0);
    }

    #[test]
    fn what_the_prober_lost_is_not_the_servers() {
        let mut runs = vec![slice(200.0, 0, 0); 3];
        runs[0].losses =
            Losses { generator: 4, generator_socket: 2, server_socket: Some(1), server: 1 };
        runs[1].losses = Losses { generator: 1, server: 2, ..Losses::default() };
        let values = of_runs(&runs);
        assert_eq!((values["lost"], values["lost_here"]), (4.0, 7.0));
    }

    #[test]
    fn a_slice_of_which_the_prober_was_late_does_not_count() {
        let mut runs: Vec<Run> = (0..12).map(|_| slice(200.0, 0, 0)).collect();
        runs.iter_mut().take(6).for_each(|run| *run = slice(500.0, 9, 1));
        let values = of_runs(&runs);
        assert_eq!((values["p99"], values["slices_on_time"]), (200.0, 6.0));
        assert_eq!(are_too_few(&values), None);
        runs[6] = slice(200.0, 0, 1);
        let said = are_too_few(&of_runs(&runs)).unwrap();
        assert!(said.contains("5 of 12"), "{said}");
    }
}
