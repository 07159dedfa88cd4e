//! Figures of a plan: scaling, cost by class, limits, memory, the check.

use super::figure::Figure;
use crate::report::model::{Check, Memory, Plan, Report, Scaling};
use crate::report::svg::{Axis, Bar, Bars, Group, Lines, Plot, Series, Style};
use crate::report::{tables, text, units};

/// All figures of a report's plan.
pub fn figures(report: &Report) -> Vec<Figure> {
    let Some(plan) = &report.plan else { return Vec::new() };
    let mut figures = Vec::new();
    figures.extend(limits(plan));
    figures.extend(plan.scaling.as_ref().and_then(scaling));
    figures.extend(classes(plan));
    figures.extend(plan.memory.as_ref().and_then(memory));
    figures.extend(plan.check.as_ref().map(check));
    figures
}

fn bars(title: &str, highest: f64, tick: fn(f64) -> String, bars: Vec<Bar>) -> Plot {
    let groups = vec![Group { name: String::new(), bars }];
    Plot::Bars(Bars { x: Axis::linear(title, highest, tick), groups, legend: Vec::new() })
}

fn limits(plan: &Plan) -> Option<Figure> {
    let known: Vec<(&str, f64)> =
        plan.limits.iter().filter_map(|limit| Some((limit.what.as_str(), limit.rate?))).collect();
    let (what, rate) = *known.first()?;
    let highest = known.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    let each = |(index, (what, rate)): (usize, &(&str, f64))| Bar {
        name: what.to_string(),
        parts: vec![(usize::from(index == 0), *rate)],
        range: None,
        label: units::rate(*rate),
    };
    let unknown = plan.limits.len() - known.len();
    let mut words = format!("The lowest limit is {}: {}.", what, units::rate(rate));
    if unknown > 0 {
        words.push_str(&format!(" {unknown} could not be known here; the table says why."));
    }
    Some(Figure {
        title: "What limits this machine".into(),
        words,
        plot: bars("answers/s", highest, units::tick, known.iter().enumerate().map(each).collect()),
        table: tables::limits(plan),
    })
}

fn scaling(scaling: &Scaling) -> Option<Figure> {
    let measured: Vec<(f64, f64)> =
        scaling.points.iter().map(|(cores, rate)| (f64::from(*cores), *rate)).collect();
    let most = measured.iter().map(|(cores, _)| *cores).fold(0.0, f64::max);
    if most < 1.0 {
        return None;
    }
    // Twice as far as was measured: farther no fit is worth a line.
    let to = (most * 2.0).max(4.0);
    let steps =
        |from: f64, to: f64| (0..=40).map(move |step| from + (to - from) * f64::from(step) / 40.0);
    let fitted = |from, to| steps(from, to).map(|cores| (cores, scaling.rate(cores))).collect();
    let ideal = vec![(1.0, scaling.lambda), (to, scaling.lambda * to)];
    let fit: Vec<(f64, f64)> = fitted(1.0, most);
    let beyond: Vec<(f64, f64)> = fitted(most, to);
    let high = measured.iter().chain(&fit).chain(&beyond).map(|(_, y)| *y).fold(0.0, f64::max);
    let ideal: Vec<(f64, f64)> = ideal_within(&ideal, high * 1.15);
    Some(Figure {
        title: "Answers by cores".into(),
        words: format!("{}.", text::law(scaling)),
        plot: Plot::Lines(Lines {
            x: Axis::whole("cores of the server", to, units::tick),
            y: Axis::linear("answers/s", high * 1.15, units::tick),
            series: vec![
                Series::new("one core, times the cores", 6, Style::Dashed, ideal),
                Series::new("the fit, beyond what was measured", 0, Style::Dashed, beyond),
                Series::new("", 0, Style::Filled, fit),
                Series::new("measured, and the fit", 0, Style::Dots, measured),
            ],
            mark: None,
        }),
        table: tables::scaling(scaling),
    })
}

/// The straight line, cut where it leaves the plot.
fn ideal_within(line: &[(f64, f64)], high: f64) -> Vec<(f64, f64)> {
    let [(x1, y1), (x2, y2)] = line else { return line.to_vec() };
    if *y2 <= high || y2 <= y1 {
        return line.to_vec();
    }
    let share = ((high - y1) / (y2 - y1)).clamp(0.0, 1.0);
    vec![(*x1, *y1), (x1 + (x2 - x1) * share, y1 + (y2 - y1) * share)]
}

fn classes(plan: &Plan) -> Option<Figure> {
    let dearest = plan
        .classes
        .iter()
        .max_by(|left, right| left.core_us.median.total_cmp(&right.core_us.median))?;
    let highest = plan.classes.iter().map(|class| class.core_us.high).fold(0.0, f64::max);
    let each = |class: &crate::report::model::Class| Bar {
        name: class.name.clone(),
        parts: vec![(0, class.core_us.median)],
        range: Some((class.core_us.low, class.core_us.high)),
        label: units::micros(class.core_us.median),
    };
    Some(Figure {
        title: "Cost by class of traffic".into(),
        words: format!(
            "Core time of the server for one answer; {} costs most, {}.",
            dearest.name,
            units::micros(dearest.core_us.median)
        ),
        plot: bars(
            "core time per answer, µs",
            highest,
            units::tick,
            plan.classes.iter().map(each).collect(),
        ),
        table: tables::classes(plan),
    })
}

fn memory(memory: &Memory) -> Option<Figure> {
    let measured: Vec<(f64, f64)> =
        memory.points.iter().map(|(records, mib)| (*records as f64, *mib)).collect();
    let most = measured.iter().map(|(records, _)| *records).fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    let fit = [0.0, most].map(|records| (records, tables::fitted_mib(memory, records)));
    let reload = [0.0, most]
        .map(|records| (records, tables::fitted_mib(memory, records) * memory.reload_factor));
    let high = measured.iter().chain(&reload).map(|(_, mib)| *mib).fold(0.0, f64::max);
    Some(Figure {
        title: "Memory by records".into(),
        words: format!("{}.", text::memory_in_words(memory)),
        plot: Plot::Lines(Lines {
            x: Axis::whole("records", most, units::tick),
            y: Axis::linear("MiB", high, units::tick),
            series: vec![
                Series::new("at most during a reload", 1, Style::Dashed, reload.to_vec()),
                Series::new("", 0, Style::Filled, fit.to_vec()),
                Series::new("resident, and the fit", 0, Style::Dots, measured),
            ],
            mark: None,
        }),
        table: tables::memory(memory),
    })
}

fn check(check: &Check) -> Figure {
    let measured = &check.measured;
    let highest = check.predicted.max(measured.high);
    let bar = |name: &str, colour, value: f64, range| Bar {
        name: name.into(),
        parts: vec![(colour, value)],
        range,
        label: units::rate(value),
    };
    Figure {
        title: "The prediction, checked".into(),
        words: format!("{}.", capital(&text::check_in_words(check))),
        plot: bars(
            "answers/s",
            highest,
            units::tick,
            vec![
                bar("predicted", 6, check.predicted, None),
                bar("measured", 0, measured.median, Some((measured.low, measured.high))),
            ],
        ),
        table: tables::check(check),
    }
}

/// With a capital at its start.
pub fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}
