//! The generator's report held against the log of what was really done.
//!
//! ```text
//!   schedule: when each query was to be sent; the n-th of them is the n-th to arrive
//!   log:      departure - arrival of each query, and what was dropped or falsified
//!   report:   latency from the intended time of sending, lost queries at the time-out; from the
//!             actual one, of what was answered; counts
//!   script:   due - arrival: what the log would say of a server that is never late
//! ```
//!
//! The two sides are measured apart: what lies between them, the sending itself and both ways
//! through the kernel, is in the bounds. A generator that was kept from its core sends late; its
//! queries have waited since they were to be sent, and the truth counts from there, too: the
//! schedule's times, placed so that the query that took the least to arrive took nothing.

use std::fmt;
use std::time::Duration;

use crate::report::model::{Latency, Run};

use super::log::{Entry, Log};
use super::script::{Act, Stall};

//----------- Figure ---------------------------------------------------------

/// One figure as both sides have it.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What it is.
    pub name: &'static str,
    /// By the script, where that is a side of its own.
    pub script: Option<f64>,
    /// By the log.
    pub truth: f64,
    /// By the generator.
    pub report: f64,
    /// How far they may lie apart; 0: not at all.
    pub bound: f64,
}

impl Figure {
    /// Whether both sides agree.
    pub fn holds(&self) -> bool {
        (self.report - self.truth).abs() <= self.bound
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = if self.name.ends_with("us") { 1 } else { 0 };
        let script = self.script.map_or("-".into(), |script| format!("{script:.places$}"));
        write!(
            f,
            "{:<26} {script:>12} {:>12.places$} {:>12.places$} {:>10.places$}  {}",
            self.name,
            self.truth,
            self.report,
            self.bound,
            if self.holds() { "holds" } else { "DIFFERS" }
        )
    }
}

/// The heading of a table of figures.
pub fn heading() -> String {
    format!("{:<26} {:>12} {:>12} {:>12} {:>10}", "", "script", "truth", "report", "bound")
}

/// How far percentiles may lie apart: the greater of a share and a time.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// As a share of the truth.
    pub share: f64,
    /// Of p50 and p99, microseconds.
    pub body_us: f64,
    /// Of p99.9, microseconds.
    pub tail_us: f64,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { share: 0.02, body_us: 50.0, tail_us: 200.0 }
    }
}

//----------- Truth ----------------------------------------------------------

/// What the log says of one query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// An answer left after so many nanoseconds.
    Answered(u64),
    /// None left that could be taken for one.
    Lost,
    /// One left when nobody waited for it any more.
    Late,
}

fn fate(entry: &Entry, timeout_ns: u64) -> Fate {
    let is_answer = matches!(entry.act, Act::Answer | Act::OtherRcode | Act::Truncate | Act::Twice);
    if !is_answer || entry.departed_ns == 0 {
        return Fate::Lost;
    }
    match entry.departed_ns.saturating_sub(entry.arrival_ns) {
        ns if ns < timeout_ns => Fate::Answered(ns),
        _ => Fate::Late,
    }
}

/// All figures of a run against a server that has the same log. Each query must be in the log, so
/// the run is the only one that the server has seen. `schedule`: when each query was to be sent, in
/// nanoseconds, if they arrive in the order of sending.
pub fn compare(
    run: &Run,
    log: &Log,
    schedule: Option<&[u64]>,
    timeout: Duration,
    bounds: &Bounds,
) -> Vec<Figure> {
    let timeout_ns = timeout.as_nanos() as u64;
    let mut figures = counts(run, log, timeout_ns);
    let queries: Vec<&Entry> = log.entries.iter().filter(|entry| entry.act != Act::Again).collect();
    // Nanoseconds of each query by the log and by the script; `None`: it was lost.
    let fates = queries.iter().map(|entry| match fate(entry, timeout_ns) {
        Fate::Answered(ns) => Some((ns, entry.due_ns - entry.arrival_ns)),
        Fate::Lost | Fate::Late => None,
    });
    let waits = waits_ns(&queries, schedule);
    let all = Sides::new(fates.clone().zip(waits).map(|(fate, wait_ns)| {
        let (truth, script) = fate.unwrap_or((timeout_ns, timeout_ns));
        (truth + wait_ns, script + wait_ns)
    }));
    let answered = Sides::new(fates.flatten());
    figures.extend(all.against(&run.latency, ["p50, us", "p99, us", "p99.9, us"], bounds));
    let names = ["p50 from sending, us", "p99 from sending, us", "p99.9 from sending, us"];
    figures.extend(answered.against(&run.service, names, bounds));
    if let Some(stall) = log.script.stall {
        figures.extend(stalled(run, &stall, &all, bounds));
    }
    figures
}

/// How long each query has waited to arrive, if the schedule is known: nanoseconds from the time at
/// which it was to be sent.
fn waits_ns(queries: &[&Entry], schedule: Option<&[u64]>) -> Vec<u64> {
    let Some(times) = schedule.filter(|times| times.len() == queries.len()) else {
        return vec![0; queries.len()];
    };
    let since_start = |(entry, at): (&&Entry, &u64)| entry.arrival_ns.saturating_sub(*at);
    let start_ns = queries.iter().zip(times).map(since_start).min().unwrap_or_default();
    queries.iter().zip(times).map(|pair| since_start(pair) - start_ns).collect()
}

/// Times by the log and by the script, each in order.
struct Sides {
    truth_us: Vec<f64>,
    script_us: Vec<f64>,
}

impl Sides {
    fn new(pairs: impl Iterator<Item = (u64, u64)>) -> Sides {
        let (mut truth_us, mut script_us): (Vec<f64>, Vec<f64>) =
            pairs.map(|(truth, script)| (truth as f64 / 1000.0, script as f64 / 1000.0)).unzip();
        truth_us.sort_by(f64::total_cmp);
        script_us.sort_by(f64::total_cmp);
        Sides { truth_us, script_us }
    }

    /// Three percentiles beside those of the report.
    fn against(&self, report: &Latency, names: [&'static str; 3], bounds: &Bounds) -> [Figure; 3] {
        let [p50, p99, p99_9] = names;
        [
            (p50, 0.5, report.p50, bounds.body_us),
            (p99, 0.99, report.p99, bounds.body_us),
            (p99_9, 0.999, report.p99_9, bounds.tail_us),
        ]
        .map(|(name, quantile, report, bound_us)| {
            let truth = at_quantile(&self.truth_us, quantile);
            let script = Some(at_quantile(&self.script_us, quantile));
            Figure { name, script, truth, report, bound: bound_us.max(truth * bounds.share) }
        })
    }
}

/// What must agree to the last query.
fn counts(run: &Run, log: &Log, timeout_ns: u64) -> Vec<Figure> {
    let count = |is: &dyn Fn(&Entry) -> bool| log.entries.iter().filter(|it| is(it)).count() as f64;
    let has_left = |entry: &Entry, acts: &[Act]| entry.departed_ns > 0 && acts.contains(&entry.act);
    let answered_by =
        |act: Act| count(&|it| it.act == act && matches!(fate(it, timeout_ns), Fate::Answered(_)));
    let is_query = |entry: &Entry| entry.act != Act::Again;
    let late = count(&|it| is_query(it) && fate(it, timeout_ns) == Fate::Late);
    let lost = count(&|it| is_query(it) && fate(it, timeout_ns) == Fate::Lost) + late;
    let queries = count(&is_query);
    let wrong = answered_by(Act::OtherRcode);
    let run = &run.counts;
    [
        ("sent", queries, run.sent),
        ("scheduled", queries, run.scheduled),
        ("answered", queries - lost, run.answered),
        ("good", queries - lost - wrong, run.good),
        ("lost", lost, run.lost),
        ("wrong", wrong, run.wrong),
        ("truncated", answered_by(Act::Truncate), run.truncated),
        ("stray", late + count(&|it| has_left(it, &[Act::Again])), run.stray),
        // What comes from another port does not reach a connected socket.
        (
            "unmatched",
            count(&|it| has_left(it, &[Act::OtherId, Act::OtherQuestion])),
            run.unmatched,
        ),
    ]
    .map(|(name, truth, report)| Figure {
        name,
        script: None,
        truth,
        report: report as f64,
        bound: 0.0,
    })
    .into()
}

/// No query is left out because the server did nothing: those that were to be sent during a stall
/// have waited for its end.
fn stalled(run: &Run, stall: &Stall, sides: &Sides, bounds: &Bounds) -> [Figure; 2] {
    // Those that arrive in the first half of a stall wait for at least the other half.
    let wait_us = (stall.length_ns / 2) as f64 / 1000.0;
    let waited = |us: &[f64]| us.iter().filter(|&&us| us >= wait_us).count() as f64;
    let by_script = waited(&sides.script_us);
    let truth_us = &sides.truth_us;
    let waited = waited(truth_us);
    // Those that may be on either side.
    let between = |us: f64| (us - wait_us).abs() <= bounds.body_us;
    let between = truth_us.iter().filter(|&&us| between(us)).count() as f64;
    let report = at_least(&run.latency, wait_us);
    let half_s = (stall.length_ns - stall.length_ns / 2) as f64 / 1e9;
    let period_s = stall.period_ns as f64 / 1e9;
    let halves_s: f64 = (1..)
        .map(|number| run.seconds - f64::from(number) * period_s)
        .take_while(|&rest_s| rest_s > 0.0)
        .map(|rest_s| rest_s.min(half_s))
        .sum();
    // What waited though no stall was due, because the server was kept from its core, is no fault
    // of the generator.
    let unscripted = (waited - by_script).max(0.0);
    let expected = run.rate * halves_s + run.counts.lost as f64 + unscripted;
    [
        Figure {
            name: "waited for half a stall",
            script: Some(by_script),
            truth: waited,
            report,
            // The report's distribution has two digits.
            bound: between + 1.0 + waited * 0.02,
        },
        Figure {
            name: "the same, by the schedule",
            script: None,
            truth: expected,
            report,
            // Four deviations of a Poisson schedule, and as much again for where it begins.
            bound: 4.0 * expected.sqrt() + expected * 0.02,
        },
    ]
}

fn at_least(latency: &Latency, us: f64) -> f64 {
    let buckets = latency.buckets.iter().filter(|(value, _)| *value >= us);
    buckets.map(|(_, count)| *count as f64).sum()
}

/// The least value that this share of `sorted` does not exceed.
fn at_quantile(sorted: &[f64], quantile: f64) -> f64 {
    let rank = (quantile * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied().unwrap_or_default()
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1);

    fn entry(number: u64, act: Act) -> Entry {
        let arrival_ns = 1_000_000_000 + number * 1_000_000;
        let due_ns = arrival_ns + 100_000 + number * 1000;
        let departed_ns = if matches!(act, Act::Drop) { 0 } else { due_ns + 5000 };
        Entry { arrival_ns, due_ns, departed_ns, id: 1, act, stream: false, port: 1 }
    }

    /// A hundred queries: five of each kind that is not simply answered.
    fn both() -> (Run, Log) {
        let acts = [
            Act::Drop,
            Act::OtherRcode,
            Act::OtherQuestion,
            Act::OtherId,
            Act::Truncate,
            Act::Twice,
            Act::Elsewhere,
        ];
        let mut entries = Vec::new();
        for number in 0..100 {
            let act = acts.get(number as usize / 5).copied().unwrap_or(Act::Answer);
            entries.push(entry(number, act));
            if act == Act::Twice {
                entries.push(entry(number, Act::Again));
            }
        }
        let mut run = Run { rate: 1000.0, seconds: 0.1, ..Run::default() };
        let counts = &mut run.counts;
        (counts.scheduled, counts.sent) = (100, 100);
        (counts.lost, counts.answered) = (20, 80);
        (counts.wrong, counts.good) = (5, 75);
        (counts.truncated, counts.stray, counts.unmatched) = (5, 5, 10);
        // The 50th of those that were answered or lost, in order of time; 20 are at the time-out.
        (run.latency.p50, run.latency.p99, run.latency.p99_9) = (170.0, 1e6, 1e6);
        (run.service.p50, run.service.p99, run.service.p99_9) = (170.0, 205.0, 205.0);
        let script = "delay uniform 100us 200us".parse().unwrap();
        (run, Log { script, seed: 1, start_ns: 1_000_000_000, unreadable: 0, entries })
    }

    fn failures(run: &Run, log: &Log) -> Vec<&'static str> {
        let figures = compare(run, log, None, TIMEOUT, &Bounds::default());
        figures.iter().filter(|it| !it.holds()).map(|it| it.name).collect()
    }

    #[test]
    fn sides_that_agree_hold() {
        let (run, log) = both();
        let none: [&str; 0] = [];
        assert_eq!(failures(&run, &log), none);
    }

    #[test]
    fn one_query_that_only_one_side_has_is_found() {
        let (run, mut log) = both();
        log.entries.push(entry(100, Act::Answer));
        assert_eq!(failures(&run, &log), ["sent", "scheduled", "answered", "good"]);
        log.entries.pop();
        log.entries[99].departed_ns = 0;
        assert_eq!(failures(&run, &log), ["answered", "good", "lost"]);
    }

    #[test]
    fn what_is_answered_past_the_time_out_is_lost_and_stray() {
        let (mut run, mut log) = both();
        let last = log.entries.last_mut().unwrap();
        last.departed_ns = last.arrival_ns + 1_000_000_000;
        assert_eq!(failures(&run, &log), ["answered", "good", "lost", "stray"]);
        run.counts.answered -= 1;
        run.counts.good -= 1;
        run.counts.lost += 1;
        run.counts.stray += 1;
        assert!(failures(&run, &log).is_empty());
    }

    #[test]
    fn percentiles_outside_of_their_bounds_are_found() {
        let (mut run, log) = both();
        let truth = |figures: &[Figure]| {
            figures.iter().find(|it| it.name == "p50, us").map(|it| (it.truth, it.script)).unwrap()
        };
        let (p50, script) = truth(&compare(&run, &log, None, TIMEOUT, &Bounds::default()));
        assert_eq!(p50, script.unwrap() + 5.0);
        run.latency.p50 = p50 + 51.0;
        run.latency.p99 = 1e6 * 1.021;
        assert_eq!(failures(&run, &log), ["p50, us", "p99, us"]);
    }

    #[test]
    fn what_was_sent_late_has_waited() {
        let (mut run, mut log) = both();
        let mut schedule: Vec<u64> = (0..100).map(|number| number * 1_000_000).collect();
        let differing = |run: &Run, log: &Log, schedule: &[u64]| {
            let figures = compare(run, log, Some(schedule), TIMEOUT, &Bounds::default());
            figures.into_iter().filter(|it| !it.holds()).map(|it| it.name).collect::<Vec<_>>()
        };
        assert!(differing(&run, &log, &schedule).is_empty());
        // All but one were to be sent 300 us earlier than they were.
        schedule.iter_mut().skip(1).for_each(|at| *at -= 300_000);
        assert_eq!(differing(&run, &log, &schedule), ["p50, us"]);
        run.latency.p50 += 300.0;
        assert!(differing(&run, &log, &schedule).is_empty());
        // A schedule of other queries says nothing.
        log.entries.pop();
        assert!(differing(&run, &log, &schedule).contains(&"p50, us"));
    }

    #[test]
    fn a_generator_that_waits_for_a_stall_is_found() {
        let script = "delay fixed 0us, stall 50ms every 500ms";
        // One query a millisecond for a second.
        let entries = (0..1000u64).map(|number| {
            let arrival_ns = 1_000_000_000 + number * 1_000_000;
            let log: super::super::script::Script = script.parse().unwrap();
            let due_ns = 1_000_000_000 + log.due_ns(number * 1_000_000, 0);
            Entry { arrival_ns, due_ns, departed_ns: due_ns, ..entry(0, Act::Answer) }
        });
        let mut log =
            Log { script: script.parse().unwrap(), entries: entries.collect(), ..both().1 };
        let mut run = Run { rate: 1000.0, seconds: 1.0, ..Run::default() };
        let counts = &mut run.counts;
        (counts.scheduled, counts.sent, counts.answered, counts.good) = (1000, 1000, 1000, 1000);
        (run.latency.p50, run.latency.p99, run.latency.p99_9) = (0.0, 40_000.0, 49_000.0);
        run.service = run.latency.clone();
        run.latency.buckets = vec![(0.1, 950), (10_000.0, 24), (30_000.0, 26)];
        assert!(failures(&run, &log).is_empty(), "{:?}", failures(&run, &log));
        // It asks nothing while nothing is answered: one query a stall waits.
        log.entries.retain(|entry| {
            let waited = entry.departed_ns - entry.arrival_ns;
            waited == 0 || waited == 50_000_000
        });
        run.latency.buckets = vec![(0.1, 950), (50_000.0, 1)];
        assert!(failures(&run, &log).contains(&"the same, by the schedule"));
    }
}
