//! The search itself: loads in, rates out. It knows no network.
//!
//! ```text
//!   climb     1x 1.5x 2.3x ...  until no aim is reached any more, or the generator ends
//!   bisect    for each aim: between the highest rate that held and the lowest that did not
//!   again     all of it, with other seeds: medians and ranges
//!   beyond    2 and 4 times the peak
//! ```
//!
//! One bad second of a shared machine must not decide: a rate is asked twice, and a third time if
//! the two disagree. A run that the generator has spoilt (queries late or never sent, replies
//! dropped at its own sockets, time taken by the hypervisor) is void and sent again.

use std::io;

use crate::report::model::{Estimate, Find, Overload, Run};

use super::bounds::Bounds;

/// What is looked for.
#[derive(Clone, Debug)]
pub struct Search {
    /// The agreed bounds.
    pub bounds: Bounds,
    /// The rate to begin with.
    pub low: f64,
    /// No more than this, 0 for no bound of one's own.
    pub high: f64,
    /// How many times all of it is done.
    pub repeats: u32,
    /// A bracket this narrow, as a share of its rate, is a result.
    pub precision: f64,
    /// Multiples of the peak that are offered at the end.
    pub factors: Vec<f64>,
    /// What the generator can do at most.
    pub ceiling: Option<f64>,
}

impl Default for Search {
    fn default() -> Search {
        Search {
            bounds: Bounds::default(),
            low: 1000.0,
            high: 0.0,
            repeats: 3,
            precision: 0.02,
            factors: vec![2.0, 4.0],
            ceiling: None,
        }
    }
}

/// Who sends a load at a rate. The same `seed` makes the same load.
pub trait Probe {
    /// Sends it and says what became of it.
    fn run(&mut self, label: &str, rate: f64, seed: u64) -> io::Result<Run>;
}

/// A share of the generator's ceiling above which a result is void.
pub const CEILING_SHARE_MAX: f64 = 0.8;
/// Each step of the climb.
const STEP: f64 = 1.5;
/// The hypervisor may take this share of the machine before a run is void.
const STOLEN_MAX: f64 = 0.01;
/// The share of queries that may be answered after the end.
const LEFT_OVER_MAX: f64 = 0.02;
/// A void run is sent again so many times.
const AGAIN_MAX: u32 = 3;
/// Ends the label of a void run.
const VOID: &str = " (void)";
/// Steps of one bisection.
const BISECTIONS_MAX: u32 = 40;

//----------- Aims -----------------------------------------------------------

/// What a rate is measured against.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Aim {
    /// Nothing lost.
    Nothing,
    /// At most one of a thousand.
    Thousandth,
    /// The agreed bounds.
    Agreed,
}

impl Aim {
    fn is_reached(self, run: &Run, bounds: &Bounds) -> bool {
        match self {
            // What the generator has lost says nothing of the server.
            Aim::Nothing => {
                let counts = &run.counts;
                counts.good > 0
                    && counts.good + run.losses.own() >= counts.scheduled
                    && keeps_up(run)
            }
            Aim::Thousandth => run.loss() <= 1e-3 && keeps_up(run),
            Aim::Agreed => bounds.hold(run),
        }
    }
}

/// Whether no queue was left at the end that had grown all the time: a server that answers it
/// afterwards does not sustain the rate.
fn keeps_up(run: &Run) -> bool {
    run.left_over() <= LEFT_OVER_MAX + run.latency.min / 1e6 / run.seconds.max(1e-9)
}

const AIMS: [Aim; 3] = [Aim::Nothing, Aim::Thousandth, Aim::Agreed];

/// Why a run says nothing about the server.
pub fn spoilt(run: &Run, bounds: &Bounds) -> Option<String> {
    let scheduled = run.counts.scheduled.max(1) as f64;
    let own = run.losses.own() as f64 / scheduled;
    if own > bounds.loss.min(1e-3) / 2.0 {
        return Some(format!("{:.3} % of the queries were lost by the generator", own * 100.0));
    }
    let late = run.counts.late as f64 / scheduled;
    if late > (1.0 - bounds.percentile / 100.0) / 2.0 {
        return Some(format!("{:.2} % of the queries were sent late", late * 100.0));
    }
    if run.stolen > STOLEN_MAX {
        return Some(format!("the hypervisor took {:.1} % of the machine", run.stolen * 100.0));
    }
    None
}

//----------- Searcher -------------------------------------------------------

struct Searcher<'a> {
    search: &'a Search,
    probe: &'a mut dyn Probe,
    runs: Vec<Run>,
    seed: u64,
    /// Why the last run was void.
    void: Option<String>,
    /// Why a bisection ended.
    refused: Option<String>,
}

/// A rate, and which aims it reached.
type Point = (f64, [bool; 3]);

/// The verdicts on one rate.
struct Verdict {
    reached: [bool; 3],
    goodput: f64,
}

/// Looks for the rates; returns them and all runs that were made.
pub fn search(search: &Search, probe: &mut dyn Probe) -> io::Result<(Find, Vec<Run>)> {
    let mut searcher =
        Searcher { search, probe, runs: Vec::new(), seed: 0, void: None, refused: None };
    let find = searcher.find()?;
    Ok((find, searcher.runs))
}

impl Searcher<'_> {
    fn find(&mut self) -> io::Result<Find> {
        let mut found: [Vec<f64>; 3] = Default::default();
        let mut peaks = Vec::new();
        let mut refused = None;
        for repeat in 0..self.search.repeats.max(1) {
            let first = self.runs.len();
            // Once a first pass knows where, the next begin nearby.
            let low = found
                .iter()
                .flatten()
                .copied()
                .reduce(f64::min)
                .map_or(self.search.low, |low| low / STEP);
            let (points, refusal) = self.climb(repeat, low)?;
            refused = refusal.or(refused);
            for (index, _) in AIMS.iter().enumerate() {
                if let Some(rate) = self.bisect(repeat, index, &points)? {
                    found[index].push(rate);
                }
            }
            let counted = self.runs[first..].iter().filter(|run| !run.label.ends_with(VOID));
            let goodput = counted.map(Run::goodput).reduce(f64::max);
            peaks.push(goodput.unwrap_or(0.0));
        }
        let estimate = |each: &Vec<f64>| (!each.is_empty()).then(|| Estimate::of(each));
        let peak = Estimate::of(&peaks);
        let mut find = Find {
            slo: self.search.bounds.to_string(),
            r0: estimate(&found[0]),
            r: estimate(&found[1]),
            r_slo: estimate(&found[2]),
            overload: Vec::new(),
            refused: refused.or_else(|| self.refused.take()),
            peak: Some(peak),
        };
        self.beyond(&mut find)?;
        Ok(find)
    }

    /// The highest rate that may be offered at all, for a result to count.
    fn rate_max(&self) -> f64 {
        let own = if self.search.high > 0.0 { self.search.high } else { f64::INFINITY };
        self.search.ceiling.map_or(own, |ceiling| own.min(ceiling * CEILING_SHARE_MAX))
    }

    /// Raises the rate until no aim is reached.
    fn climb(&mut self, repeat: u32, low: f64) -> io::Result<(Vec<Point>, Option<String>)> {
        let mut points = Vec::new();
        let mut rate = low.min(self.rate_max());
        loop {
            let Some(verdict) = self.judge(&format!("climb {}", repeat + 1), rate)? else {
                return Ok((points, Some(self.refusal(rate))));
            };
            points.push((rate, verdict.reached));
            let over = !verdict.reached.contains(&true) && verdict.goodput < rate * 0.95;
            if over {
                return Ok((points, None));
            }
            if rate >= self.rate_max() {
                let reason = match self.search.ceiling {
                    Some(ceiling) if rate >= ceiling * CEILING_SHARE_MAX => Some(format!(
                        "the generator is the limit: its ceiling is {ceiling:.0}/s, and above {:.0} % of it nothing counts: send queries of a port in a row (--run 32), add cores (--cores) or another machine",
                        CEILING_SHARE_MAX * 100.0
                    )),
                    _ => None,
                };
                return Ok((points, reason));
            }
            rate = (rate * STEP).min(self.rate_max());
        }
    }

    fn refusal(&self, rate: f64) -> String {
        let why = self.void.as_deref().unwrap_or("its runs were void");
        format!(
            "the runs at {rate:.0}/s were void: {why}, {AGAIN_MAX} times in turn: wait for a quieter machine, pin the generator to a core of its own (--cores), send queries of a port in a row (--run 32), add cores, or use another machine"
        )
    }

    /// The highest rate that reaches an aim; `None` if none does.
    fn bisect(&mut self, repeat: u32, aim: usize, points: &[Point]) -> io::Result<Option<f64>> {
        let missed = points.iter().find(|(_, reached)| !reached[aim]).map(|point| point.0);
        let below = missed.unwrap_or(f64::INFINITY);
        let held = points.iter().filter(|(rate, reached)| reached[aim] && *rate < below);
        let mut low = held.map(|point| point.0).fold(0.0, f64::max);
        // The generator ended before the server did: what is known is a lower bound, and no result.
        let Some(mut high) = missed else {
            return Ok(
                (low > 0.0 && self.search.high > 0.0 && low >= self.search.high).then_some(low)
            );
        };
        if low == 0.0 {
            low = high / 16.0;
        }
        for step in 0..BISECTIONS_MAX {
            if high / low <= 1.0 + self.search.precision {
                break;
            }
            let rate = (low * high).sqrt();
            let label = format!("bisect {} {}", repeat + 1, step + 1);
            match self.judge(&label, rate)? {
                Some(verdict) if verdict.reached[aim] => low = rate,
                Some(_) => high = rate,
                None => {
                    self.refused = Some(self.refusal(rate));
                    return Ok(None);
                }
            }
        }
        Ok((low > points[0].0 / 16.0 * 1.001).then_some(low))
    }

    /// Asks twice, and a third time if the two disagree; `None` if the generator could not.
    fn judge(&mut self, label: &str, rate: f64) -> io::Result<Option<Verdict>> {
        let mut verdicts = Vec::new();
        let mut goodput: f64 = 0.0;
        while verdicts.len() < 2 || (verdicts.len() < 3 && verdicts[0] != verdicts[1]) {
            let Some(run) = self.run(label, rate)? else { return Ok(None) };
            goodput = goodput.max(run.goodput());
            verdicts.push(AIMS.map(|aim| aim.is_reached(&run, &self.search.bounds)));
        }
        let most = |index: usize| {
            verdicts.iter().filter(|reached| reached[index]).count() * 2 > verdicts.len()
        };
        Ok(Some(Verdict { reached: [most(0), most(1), most(2)], goodput }))
    }

    /// One run that counts; `None` if it stays void.
    fn run(&mut self, label: &str, rate: f64) -> io::Result<Option<Run>> {
        for _ in 0..AGAIN_MAX {
            self.seed += 1;
            let mut run = self.probe.run(label, rate, self.seed)?;
            let Some(why) = spoilt(&run, &self.search.bounds) else {
                self.runs.push(run.clone());
                return Ok(Some(run));
            };
            run.label += VOID;
            self.runs.push(run);
            self.void = Some(why);
        }
        Ok(None)
    }

    /// What is answered of more than can be.
    fn beyond(&mut self, find: &mut Find) -> io::Result<()> {
        let Some(peak) = find.peak.as_ref().map(|peak| peak.median) else { return Ok(()) };
        for &factor in &self.search.factors {
            let rate = peak * factor;
            if rate > self.rate_max() || peak <= 0.0 {
                continue;
            }
            let mut each = Vec::new();
            for _ in 0..self.search.repeats.max(1) {
                let run = self.run(&format!("beyond {factor}x"), rate)?;
                each.extend(run.map(|run| run.goodput()));
            }
            if !each.is_empty() {
                find.overload.push(Overload { factor, rate, goodput: Estimate::of(&each) });
            }
        }
        Ok(())
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zones::queries::Random;

    /// A server that answers `capacity` a second, whose p99.9 doubles towards it, asked by a
    /// generator that can send `generator` a second; every `glitch`th run is hit by something else.
    struct Simulated {
        capacity: f64,
        generator: f64,
        glitch: u64,
        runs: u64,
        highest: f64,
    }

    impl Simulated {
        fn new(capacity: f64) -> Simulated {
            Simulated { capacity, generator: f64::INFINITY, glitch: 0, runs: 0, highest: 0.0 }
        }
    }

    impl Probe for Simulated {
        fn run(&mut self, label: &str, rate: f64, seed: u64) -> io::Result<Run> {
            self.runs += 1;
            self.highest = self.highest.max(rate);
            let mut random = Random::new(seed);
            let noise = 0.99 + random.below(1000) as f64 / 50_000.0;
            let sent = rate.min(self.generator);
            let use_of = sent / (self.capacity * noise);
            let mut run = Run { label: label.into(), rate, seconds: 1.0, ..Run::default() };
            run.counts.scheduled = rate as u64;
            run.counts.sent = sent as u64;
            let good = if use_of > 1.0 { self.capacity * 0.9 } else { sent };
            run.counts.good = (good as u64).min(run.counts.sent);
            run.counts.good_in_time = run.counts.good;
            run.counts.lost = run.counts.sent - run.counts.good;
            run.losses.generator = run.counts.scheduled - run.counts.sent;
            run.losses.server = run.counts.lost;
            // 1 ms at nine tenths of the capacity.
            run.latency.p99_9 = 100.0 / (1.0 - use_of.min(0.9999)).max(1e-6);
            if self.glitch > 0 && self.runs.is_multiple_of(self.glitch) {
                run.counts.good = run.counts.good.saturating_sub(run.counts.good / 50);
                run.counts.good_in_time = run.counts.good;
                run.latency.p99_9 = 5000.0;
            }
            Ok(run)
        }
    }

    fn find(server: &mut Simulated, change: impl FnOnce(&mut Search)) -> Find {
        let mut options = Search::default();
        change(&mut options);
        search(&options, server).unwrap().0
    }

    fn near(found: &Option<Estimate>, expected: f64) {
        let median = found.as_ref().expect("a rate was found").median;
        assert!((median / expected - 1.0).abs() < 0.04, "{median} is not {expected}");
    }

    #[test]
    fn the_rates_of_a_simulated_server_are_found() {
        for capacity in [5_000.0, 123_456.0, 2_000_000.0] {
            let mut server = Simulated::new(capacity);
            let find = find(&mut server, |_| ());
            near(&find.r0, capacity);
            near(&find.r, capacity);
            near(&find.r_slo, capacity * 0.9);
            near(&find.peak, capacity);
            assert_eq!(find.refused, None);
            assert_eq!(find.overload.len(), 2);
            assert!((find.overload[1].goodput.median / capacity - 0.9).abs() < 0.01);
            assert_eq!(find.r_slo.unwrap().each.len(), 3);
            assert!(server.runs < 250, "{}", server.runs);
        }
    }

    /// One of eleven runs is disturbed: the verdicts are those of the others.
    #[test]
    fn what_disturbs_single_runs_does_not_decide() {
        let mut server = Simulated { glitch: 11, ..Simulated::new(100_000.0) };
        let find = find(&mut server, |_| ());
        near(&find.r_slo, 90_000.0);
        near(&find.r, 100_000.0);
    }

    #[test]
    fn a_generator_that_is_the_limit_gives_no_result() {
        // Known before: its ceiling.
        let mut server = Simulated::new(1_000_000.0);
        let found = find(&mut server, |options| options.ceiling = Some(500_000.0));
        assert!(found.refused.unwrap().contains("add cores"));
        assert_eq!((found.r0, found.r_slo), (None, None));
        assert!(server.highest <= 400_000.0);
        // Seen only while sending.
        let mut server = Simulated { generator: 300_000.0, ..Simulated::new(1_000_000.0) };
        let found = find(&mut server, |_| ());
        assert!(found.refused.unwrap().contains("lost by the generator"));
        assert_eq!((found.r0, found.r_slo), (None, None));
        // Overload that cannot be offered is left out.
        let mut server = Simulated::new(100_000.0);
        let found = find(&mut server, |options| options.ceiling = Some(300_000.0));
        near(&found.r_slo, 90_000.0);
        let factors: Vec<f64> = found.overload.iter().map(|overload| overload.factor).collect();
        assert_eq!(factors, [2.0]);
    }

    /// A server behind a long queue answers all of it, afterwards: that is no rate it sustains.
    #[test]
    fn what_a_queue_holds_is_no_rate() {
        struct Queue;
        impl Probe for Queue {
            fn run(&mut self, label: &str, rate: f64, _: u64) -> io::Result<Run> {
                let mut run = Run { label: label.into(), rate, seconds: 2.0, ..Run::default() };
                run.counts.scheduled = (rate * 2.0) as u64;
                run.counts.sent = run.counts.scheduled;
                run.counts.good_in_time = run.counts.scheduled.min(100_000);
                run.counts.good = run.counts.scheduled.min(150_000);
                run.counts.lost = run.counts.sent - run.counts.good;
                run.latency.p99_9 = if rate > 50_000.0 { 100_000.0 } else { 100.0 };
                Ok(run)
            }
        }
        let found = search(&Search::default(), &mut Queue).unwrap().0;
        for rate in [&found.r0, &found.r, &found.r_slo, &found.peak] {
            near(rate, 50_000.0);
        }
    }

    #[test]
    fn a_bound_of_ones_own_is_a_result() {
        let mut server = Simulated::new(1_000_000.0);
        let found = find(&mut server, |options| options.high = 50_000.0);
        assert_eq!(found.r_slo.unwrap().median, 50_000.0);
        assert_eq!(found.refused, None);
    }

    #[test]
    fn a_server_that_never_holds_the_bounds_has_no_rate() {
        let mut server = Simulated { glitch: 1, ..Simulated::new(1000.0) };
        let found = find(&mut server, |_| ());
        assert_eq!((found.r_slo, found.r), (None, None));
    }
}
