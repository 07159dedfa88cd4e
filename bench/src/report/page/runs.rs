//! Figures of runs: latency and good answers against load, percentiles, losses, seconds.

use super::figure::Figure;
use crate::report::model::{Estimate, Find, Latency, Report, Run, Second};
use crate::report::svg::{Axis, Bar, Bars, Group, Lines, Mark, Plot, Series, Style};
use crate::report::{tables, units};

/// Runs that are shown each by itself.
const WHOLE_MAX: usize = 3;
/// Runs whose losses are shown.
const LOSSY_MAX: usize = 24;
/// Runs whose rates differ by less are one point.
const SAME_RATE: f64 = 0.02;
/// How far beyond the knee latency is shown.
const BEYOND_KNEE_MAX: f64 = 1.6;

/// All figures of a report's runs.
pub fn figures(report: &Report) -> Vec<Figure> {
    let mut figures = Vec::new();
    let measured: Vec<&Run> = measured(report);
    if report.plan.is_none() && report.compare.is_none() {
        figures.extend(latency_against_load(&measured, report.find.as_ref()));
        figures.extend(good_against_load(&measured, report.find.as_ref()));
    }
    let shown = of_interest(report);
    figures.extend(percentiles(&shown));
    figures.extend(losses(&measured));
    for run in shown {
        let one = if measured.len() > 1 { format!(": {}", name(run)) } else { String::new() };
        figures.extend(answers_over_time(run, &one));
        figures.extend(latency_over_time(run, &one));
    }
    figures
}

/// Runs that were not only for warming up.
fn measured(report: &Report) -> Vec<&Run> {
    report.runs.iter().filter(|run| !run.label.starts_with("warm-up")).collect()
}

/// The runs to look at one by one: all if they are few, the one below the knee if it was searched.
pub fn of_interest(report: &Report) -> Vec<&Run> {
    let measured = measured(report);
    if measured.len() <= WHOLE_MAX {
        return measured;
    }
    let Some((_, knee)) = report.find.as_ref().and_then(knee) else { return Vec::new() };
    let below = measured.into_iter().filter(|run| run.rate <= knee.median * (1.0 + SAME_RATE));
    below.max_by(|left, right| left.rate.total_cmp(&right.rate)).into_iter().collect()
}

/// The rate at which a server stops being good, by the strictest bound there is.
fn knee(find: &Find) -> Option<(&'static str, &Estimate)> {
    let named = [("R-SLO", &find.r_slo), ("R", &find.r), ("R0", &find.r0)];
    named.into_iter().find_map(|(name, value)| Some((name, value.as_ref()?)))
}

fn mark(find: Option<&Find>) -> Option<Mark> {
    let (name, value) = find.and_then(knee)?;
    Some(Mark {
        at: value.median,
        range: (value.low, value.high),
        label: format!("{name} {}", units::rate(value.median)),
    })
}

fn name(run: &Run) -> String {
    format!("{}, {}", run.label, units::rate(run.rate))
}

//----------- Against load ---------------------------------------------------

/// Runs in the order of their rates, those with the same rate together.
fn by_rate<'a>(runs: &[&'a Run]) -> Vec<Vec<&'a Run>> {
    let mut sorted = runs.to_vec();
    sorted.sort_by(|left, right| left.rate.total_cmp(&right.rate));
    let mut groups: Vec<Vec<&Run>> = Vec::new();
    for run in sorted {
        match groups.last_mut() {
            Some(group) if run.rate <= group[0].rate * (1.0 + SAME_RATE) => group.push(run),
            _ => groups.push(vec![run]),
        }
    }
    groups
}

/// For each group of runs the mean rate and the median, lowest and highest of a figure.
fn spread(groups: &[Vec<&Run>], figure: impl Fn(&Run) -> f64) -> Vec<(f64, Estimate)> {
    groups
        .iter()
        .map(|group| {
            let rate = group.iter().map(|run| run.rate).sum::<f64>() / group.len() as f64;
            let each: Vec<f64> = group.iter().map(|run| figure(run)).collect();
            (rate, Estimate::of(&each))
        })
        .collect()
}

fn medians(spread: &[(f64, Estimate)]) -> Vec<(f64, f64)> {
    spread.iter().map(|(rate, estimate)| (*rate, estimate.median)).collect()
}

fn ranges(spread: &[(f64, Estimate)]) -> Vec<(f64, f64, f64)> {
    let varied = spread.iter().filter(|(_, estimate)| estimate.high > estimate.low);
    varied.map(|(rate, estimate)| (*rate, estimate.low, estimate.high)).collect()
}

fn latency_against_load(runs: &[&Run], find: Option<&Find>) -> Option<Figure> {
    // Far beyond the knee there is nothing but the time-out: it would leave the knee no room.
    let most = find.and_then(knee).map_or(f64::MAX, |(_, knee)| knee.high * BEYOND_KNEE_MAX);
    let shown = |run: &&&Run| run.latency.count > 0 && run.rate <= most;
    let timed: Vec<&Run> = runs.iter().filter(shown).copied().collect();
    let groups = by_rate(&timed);
    if groups.len() < 3 {
        return None;
    }
    type Percentile = (&'static str, usize, fn(&Run) -> f64);
    let figures: [Percentile; 3] = [
        ("p50", 0, |run| run.latency.p50),
        ("p99", 1, |run| run.latency.p99),
        ("p99.9", 2, |run| run.latency.p99_9),
    ];
    let series: Vec<Series> = figures
        .into_iter()
        .map(|(name, colour, figure)| {
            Series::new(name, colour, Style::Line, medians(&spread(&groups, figure)))
        })
        .collect();
    let all = || series.iter().flat_map(|series| &series.points).map(|(_, y)| *y);
    let (low, high) = (all().fold(f64::MAX, f64::min), all().fold(0.0, f64::max));
    let p99 = &series[1].points;
    let (first, last) = (p99[0], p99[p99.len() - 1]);
    let mut words = format!(
        "p99 goes from {} at {} to {} at {}.",
        units::micros(first.1),
        units::rate(first.0),
        units::micros(last.1),
        units::rate(last.0)
    );
    let mark = mark(find);
    if let Some(mark) = &mark {
        words.push_str(&format!(" The knee: {}.", mark.label));
    }
    let to = last.0.max(mark.as_ref().map_or(0.0, |mark| mark.range.1));
    Some(Figure {
        title: "Latency against load".into(),
        words,
        plot: Plot::Lines(Lines {
            x: Axis::linear("offered, queries/s", to, units::tick),
            y: Axis::log("latency", low, high, units::tick_micros),
            series,
            mark,
        }),
        table: tables::runs(&groups.concat().into_iter().cloned().collect::<Vec<Run>>()),
    })
}

fn good_against_load(runs: &[&Run], find: Option<&Find>) -> Option<Figure> {
    let groups = by_rate(runs);
    let overload = find.map(|find| find.overload.as_slice()).unwrap_or_default();
    if groups.len() < 3 && overload.is_empty() {
        return None;
    }
    let measured = spread(&groups, Run::goodput);
    let mut loaded = Series::new("good answers", 0, Style::Line, medians(&measured));
    loaded.ranges = ranges(&measured);
    let peak = find.and_then(|find| find.peak.as_ref());
    let points = overload.iter().map(|point| (point.rate, point.goodput.median)).collect();
    let mut over = Series::new("more offered than the peak", 1, Style::Dots, points);
    over.ranges =
        overload.iter().map(|point| (point.rate, point.goodput.low, point.goodput.high)).collect();
    let every = || loaded.points.iter().chain(&over.points);
    let to = every().map(|(x, _)| *x).fold(0.0, f64::max);
    let ranged = loaded.ranges.iter().chain(&over.ranges).map(|(_, _, high)| *high);
    let high = every().map(|(_, y)| *y).chain(ranged).fold(0.0, f64::max);
    let ideal = Series::new("all answered", 6, Style::Dashed, vec![(0.0, 0.0), (high, high)]);
    let mut words = match peak {
        Some(peak) => format!("At most {} good answers.", units::rate(peak.median)),
        None => format!("At most {} good answers.", units::rate(high)),
    };
    for point in overload {
        words.push_str(&format!(
            " At {} times the peak {} are answered.",
            units::short(&units::digits(point.factor)),
            units::rate(point.goodput.median)
        ));
    }
    let table = match find.map(tables::overload) {
        Some(table) if !table.is_empty() => table,
        _ => tables::runs(&groups.concat().into_iter().cloned().collect::<Vec<Run>>()),
    };
    let series = [ideal, loaded, over].into_iter().filter(|series| !series.points.is_empty());
    Some(Figure {
        title: "Good answers under overload".into(),
        words,
        plot: Plot::Lines(Lines {
            x: Axis::linear("offered, queries/s", to, units::tick),
            y: Axis::linear("good answers/s", high, units::tick),
            series: series.collect(),
            mark: None,
        }),
        table,
    })
}

//----------- Percentiles ----------------------------------------------------

fn percentiles(runs: &[&Run]) -> Option<Figure> {
    let named: Vec<(String, &Latency)> = match runs {
        [] => return None,
        [run] => tables::distributions(run)
            .into_iter()
            .map(|(name, latency)| (name.to_string(), latency))
            .collect(),
        runs => runs.iter().map(|run| (name(run), &run.latency)).collect(),
    };
    let named: Vec<(String, &Latency)> =
        named.into_iter().filter(|(_, latency)| !latency.buckets.is_empty()).collect();
    let most = named.iter().map(|(_, latency)| latency.count).max()?;
    let nines = (most.max(10) as f64).log10().ceil().min(6.0);
    let x = Axis::nines("share of all, no slower", nines);
    let series: Vec<Series> = named
        .iter()
        .enumerate()
        .map(|(index, (name, latency))| {
            let points = cumulative(latency, &x);
            // Where service times are latencies, both are seen.
            let over = runs.len() == 1 && index == 1;
            let style = if over { Style::Dashed } else { Style::Line };
            Series::new(name, index, style, points)
        })
        .collect();
    let all = || series.iter().flat_map(|series| &series.points).map(|(_, y)| *y);
    let positive = all().filter(|y| *y > 0.0).fold(f64::MAX, f64::min);
    let y = Axis::log("time", positive.max(0.1), all().fold(0.0, f64::max), units::tick_micros);
    let (_, first) = named.first()?;
    let words = format!(
        "Half are answered within {}, 99 % within {}, 99.9 % within {}; the slowest took {}.",
        units::micros(first.p50),
        units::micros(first.p99),
        units::micros(first.p99_9),
        units::micros(first.max)
    );
    let title = match runs {
        [run] => format!("Percentiles at {}", units::rate(run.rate)),
        _ => "Percentiles".into(),
    };
    let table = tables::quantiles(&named);
    Some(Figure { title, words, plot: Plot::Lines(Lines { x, y, series, mark: None }), table })
}

/// Shares and the times they are not slower than; points that would stand at one place are one.
fn cumulative(latency: &Latency, x: &Axis) -> Vec<(f64, f64)> {
    let all: u64 = latency.buckets.iter().map(|(_, count)| count).sum();
    let mut points: Vec<(f64, f64)> = Vec::new();
    let (mut passed, mut drawn) = (0, f64::MIN);
    let floor = latency.buckets.iter().map(|(time, _)| *time).filter(|time| *time > 0.0);
    let floor = floor.fold(f64::MAX, f64::min);
    for (time, count) in &latency.buckets {
        passed += count;
        // The last one would stand at infinity: half of it is taken as slower.
        let share = (passed as f64).min(all as f64 - 0.5) / all.max(1) as f64;
        let place = x.place(share);
        let time = time.max(floor);
        if points.is_empty() {
            points.push((0.0, time));
        }
        if place - drawn >= 0.003 || passed == all {
            points.push((share, time));
            drawn = place;
        }
    }
    points
}

//----------- Losses ---------------------------------------------------------

fn losses(runs: &[&Run]) -> Option<Figure> {
    let lost = |run: &Run| tables::places(run).map(|(_, count)| count.unwrap_or_default());
    let mut lossy: Vec<&Run> =
        runs.iter().filter(|run| lost(run).iter().any(|count| *count > 0)).copied().collect();
    if lossy.is_empty() {
        return None;
    }
    let share = |run: &Run, count: u64| count as f64 / run.counts.scheduled.max(1) as f64 * 100.0;
    let total = |run: &Run| share(run, lost(run).iter().sum());
    lossy.sort_by(|left, right| total(right).total_cmp(&total(left)));
    lossy.truncate(LOSSY_MAX);
    lossy.sort_by(|left, right| left.rate.total_cmp(&right.rate));
    let highest = lossy.iter().map(|run| total(run)).fold(0.0, f64::max);
    let label = |value: f64| units::share(value / 100.0);
    let bars: Vec<Bar> = match lossy.as_slice() {
        [run] => tables::places(run)
            .into_iter()
            .enumerate()
            .map(|(colour, (place, count))| Bar {
                name: place.into(),
                parts: vec![(colour, share(run, count.unwrap_or_default()))],
                range: None,
                label: count.map_or("unknown".into(), |count| label(share(run, count))),
            })
            .collect(),
        runs => runs
            .iter()
            .map(|run| {
                let parts = lost(run).map(|count| share(run, count));
                let (name, label) = (name(run), label(total(run)));
                Bar { name, parts: parts.into_iter().enumerate().collect(), range: None, label }
            })
            .collect(),
    };
    let names = Run::default();
    let legend = match lossy.len() {
        1 => Vec::new(),
        _ => (0..)
            .zip(tables::places(&names))
            .map(|(colour, (name, _))| (name.into(), colour))
            .collect(),
    };
    Some(Figure {
        title: "Losses by place".into(),
        words: format!("At most {} of the scheduled queries were lost.", label(highest)),
        plot: Plot::Bars(Bars {
            x: Axis::linear("lost, % of the scheduled queries", highest, |value| {
                units::short(&units::digits(value))
            }),
            groups: vec![Group { name: String::new(), bars }],
            legend,
        }),
        table: tables::losses(lossy),
    })
}

//----------- Over time ------------------------------------------------------

fn over_time(run: &Run, figure: fn(&Second) -> f64) -> Vec<(f64, f64)> {
    (1..).map(f64::from).zip(run.series.iter().map(figure)).collect()
}

fn answers_over_time(run: &Run, one: &str) -> Option<Figure> {
    if run.series.len() < 2 {
        return None;
    }
    let sent = over_time(run, |second| second.sent as f64);
    let good = over_time(run, |second| second.good as f64);
    let lost = over_time(run, |second| second.lost as f64);
    let any_lost = lost.iter().any(|(_, count)| *count > 0.0);
    let high = sent.iter().chain(&good).chain(&lost).map(|(_, y)| *y).fold(0.0, f64::max);
    let least = good.iter().map(|(_, y)| *y).fold(f64::MAX, f64::min);
    let most = good.iter().map(|(_, y)| *y).fold(0.0, f64::max);
    let mut series = vec![
        Series::new("sent", 6, Style::Dashed, sent),
        Series::new("good answers", 0, Style::Line, good),
    ];
    if any_lost {
        series.push(Series::new("lost or wrong", 1, Style::Line, lost));
    }
    Some(Figure {
        title: format!("Answers, second by second{one}"),
        words: format!(
            "Between {} and {} good answers in each second.",
            units::figure(least, ""),
            units::figure(most, "")
        ),
        plot: Plot::Lines(Lines {
            x: Axis::whole("seconds", run.series.len() as f64, units::tick),
            y: Axis::linear("in each second", high, units::tick),
            series,
            mark: None,
        }),
        table: tables::series(&run.series),
    })
}

fn latency_over_time(run: &Run, one: &str) -> Option<Figure> {
    let timed: Vec<(f64, f64)> =
        over_time(run, |second| second.p99).into_iter().filter(|(_, p99)| *p99 > 0.0).collect();
    if timed.len() < 2 {
        return None;
    }
    let low = timed.iter().map(|(_, y)| *y).fold(f64::MAX, f64::min);
    let (worst, high) = timed.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1))?;
    Some(Figure {
        title: format!("p99 latency, second by second{one}"),
        words: format!(
            "Between {} and {}; the worst second is number {worst:.0}.",
            units::micros(low),
            units::micros(high)
        ),
        plot: Plot::Lines(Lines {
            x: Axis::whole("seconds", run.series.len() as f64, units::tick),
            y: Axis::log("p99 of each second", low, high, units::tick_micros),
            series: vec![Series::new("p99", 1, Style::Line, timed)],
            mark: None,
        }),
        table: tables::series(&run.series),
    })
}
