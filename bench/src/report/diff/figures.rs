//! The figures of a report, with names that are the same in another report.

use super::noise::{self, Sample};
use crate::report::model::{Compare, Estimate, Find, Plan, Report, Run};
use crate::report::{tables, units};

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What pairs it.
    pub name: String,
    /// As [`units::figure`] knows it.
    pub unit: String,
    /// Whether less is better.
    pub less_is_better: bool,
    /// Its value; of repeats the median.
    pub value: f64,
    /// How it varies.
    pub sample: Sample,
}

/// Runs of one label whose rates differ by less are repeats.
const SAME_RATE: f64 = 0.02;

/// All figures of a report. The runs of a search, a plan or a comparison are steps to its result:
/// only those of a load count by themselves.
pub fn of(report: &Report) -> Vec<Figure> {
    let mut figures = Vec::new();
    if let Some(find) = &report.find {
        of_find(find, &mut figures);
    }
    if let Some(plan) = &report.plan {
        of_plan(plan, &mut figures);
    }
    if let Some(compare) = &report.compare {
        of_compare(compare, &mut figures);
    }
    if report.find.is_none() && report.plan.is_none() && report.compare.is_none() {
        of_runs(&report.runs, &mut figures);
    }
    figures
}

fn estimate(name: String, unit: &str, less_is_better: bool, value: &Estimate) -> Figure {
    let sample = match value.each.len() {
        0 | 1 => Sample::Once,
        _ => Sample::Repeats(value.each.clone()),
    };
    Figure { name, unit: unit.into(), less_is_better, value: value.median, sample }
}

fn once(name: String, unit: &str, less_is_better: bool, value: f64) -> Figure {
    Figure { name, unit: unit.into(), less_is_better, value, sample: Sample::Once }
}

fn of_find(find: &Find, figures: &mut Vec<Figure>) {
    for (name, value) in tables::estimates(find) {
        figures.push(estimate(name, "1/s", false, value));
    }
    for overload in &find.overload {
        let name = format!("answered at {} x peak", units::short(&units::digits(overload.factor)));
        figures.push(estimate(name, "1/s", false, &overload.goodput));
    }
}

fn of_plan(plan: &Plan, figures: &mut Vec<Figure>) {
    for class in &plan.classes {
        // What was not measured is no figure.
        if !class.core_us.each.is_empty() {
            let name = format!("{}: core time", class.name);
            figures.push(estimate(name, "us", true, &class.core_us));
        }
        if !class.rate.each.is_empty() {
            figures.push(estimate(format!("{}: one core", class.name), "1/s", false, &class.rate));
        }
    }
    if let Some(scaling) = &plan.scaling {
        for (cores, rate) in &scaling.points {
            figures.push(once(format!("answers on {cores} cores"), "1/s", false, *rate));
        }
    }
    for limit in &plan.limits {
        if let Some(rate) = limit.rate {
            figures.push(once(format!("limit: {}", limit.what), "1/s", false, rate));
        }
    }
    if let Some(memory) = &plan.memory {
        figures.push(once("octets of a record".into(), "octets", true, memory.record_octets));
    }
    if let Some(machines) = &plan.machines {
        figures.push(once("machines".into(), "", true, f64::from(machines.count)));
    }
    if let Some(check) = &plan.check {
        figures.push(estimate(format!("measured: {}", check.mix), "1/s", false, &check.measured));
    }
}

fn of_compare(compare: &Compare, figures: &mut Vec<Figure>) {
    for row in &compare.rows {
        for (contender, value) in
            row.values.iter().filter(|(name, _)| !row.void.contains_key(*name))
        {
            let parts = [contender, &row.shape, &row.mix, &row.figure];
            let parts: Vec<&str> =
                parts.into_iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
            figures.push(estimate(parts.join(", "), &row.unit, row.less_is_better, value));
        }
    }
}

//----------- Runs -----------------------------------------------------------

fn of_runs(runs: &[Run], figures: &mut Vec<Figure>) {
    let mut groups: Vec<Vec<&Run>> = Vec::new();
    for run in runs.iter().filter(|run| !run.label.starts_with("warm-up")) {
        let same = |group: &&mut Vec<&Run>| {
            let first = group[0];
            first.label == run.label && (run.rate / first.rate - 1.0).abs() <= SAME_RATE
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(run),
            None => groups.push(vec![run]),
        }
    }
    for group in &groups {
        let label = &group[0].label;
        let alike = groups.iter().filter(|other| other[0].label == *label).count();
        let name = match alike {
            1 => label.clone(),
            _ => format!("{label} at {}", units::rate(group[0].rate)),
        };
        match group.as_slice() {
            [run] => figures.extend(one_run(&name, run)),
            repeats => figures.extend(repeated(&name, repeats)),
        }
    }
}

/// A figure of a run: name, unit, whether less is better, value.
type OfRun = (&'static str, &'static str, bool, fn(&Run) -> f64);

const FIGURES: [OfRun; 7] = [
    ("good answers", "1/s", false, Run::goodput),
    ("loss", "share", true, Run::loss),
    ("wrong answers", "share", true, |run| {
        run.counts.wrong as f64 / run.counts.scheduled.max(1) as f64
    }),
    ("latency p50", "us", true, |run| run.latency.p50),
    ("latency p90", "us", true, |run| run.latency.p90),
    ("latency p99", "us", true, |run| run.latency.p99),
    ("latency p99.9", "us", true, |run| run.latency.p99_9),
];

fn one_run(name: &str, run: &Run) -> Vec<Figure> {
    let share = |events: u64| match noise::dispersion_known(run) {
        Some(dispersion) => {
            Sample::Share { events: events as f64, of: run.counts.scheduled as f64, dispersion }
        }
        None => Sample::Once,
    };
    let bounds = |q| match noise::percentile(run, &run.latency, q) {
        Some((low, high)) => Sample::Bounds(low, high),
        None => Sample::Once,
    };
    let mut figures: Vec<Figure> = FIGURES
        .into_iter()
        .map(|(figure, unit, less_is_better, value)| {
            let sample = match figure {
                "good answers" => noise::batches(run, |second| second.good as f64)
                    .map_or(Sample::Once, Sample::Seconds),
                "loss" => share(run.counts.scheduled.saturating_sub(run.counts.good)),
                "wrong answers" => share(run.counts.wrong),
                "latency p50" => bounds(0.5),
                "latency p90" => bounds(0.9),
                "latency p99" => bounds(0.99),
                _ => bounds(0.999),
            };
            let name = format!("{name}: {figure}");
            Figure { name, unit: unit.into(), less_is_better, value: value(run), sample }
        })
        .collect();
    if let Some(server) = &run.server {
        figures.push(once(format!("{name}: core time"), "us", true, server.core_us));
        figures.push(once(format!("{name}: memory"), "MiB", true, server.memory_mib));
    }
    figures
}

fn repeated(name: &str, runs: &[&Run]) -> Vec<Figure> {
    let each =
        |value: &dyn Fn(&Run) -> f64| -> Vec<f64> { runs.iter().map(|run| value(run)).collect() };
    let mut figures: Vec<Figure> = FIGURES
        .into_iter()
        .map(|(figure, unit, less_is_better, value)| {
            let measured = Estimate::of(&each(&value));
            estimate(format!("{name}: {figure}"), unit, less_is_better, &measured)
        })
        .collect();
    if runs.iter().all(|run| run.server.is_some()) {
        let used = |value: fn(&crate::report::model::ServerUse) -> f64| {
            Estimate::of(&each(&|run| run.server.as_ref().map_or(0.0, value)))
        };
        let (core, memory) = (used(|server| server.core_us), used(|server| server.memory_mib));
        figures.push(estimate(format!("{name}: core time"), "us", true, &core));
        figures.push(estimate(format!("{name}: memory"), "MiB", true, &memory));
    }
    figures
}
