//! Figures of a comparison: for each figure and shape of zone the mixes, and in each the servers.

use super::capacity::capital;
use super::figure::Figure;
use crate::report::model::{Compare, Report, Row};
use crate::report::svg::{Axis, Bar, Bars, Group, Plot};
use crate::report::{tables, units};

/// All figures of a report's comparison.
pub fn figures(report: &Report) -> Vec<Figure> {
    let Some(compare) = &report.compare else { return Vec::new() };
    let mut kinds: Vec<(&str, &str, &str)> = Vec::new();
    for row in &compare.rows {
        let kind = kind(row);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds
        .into_iter()
        .filter_map(|wanted| {
            let rows: Vec<&Row> = compare.rows.iter().filter(|row| kind(row) == wanted).collect();
            figure(compare, &rows)
        })
        .collect()
}

/// What can stand on one axis: figure, unit, shape.
fn kind(row: &Row) -> (&str, &str, &str) {
    (&row.figure, &row.unit, &row.shape)
}

fn figure(compare: &Compare, rows: &[&Row]) -> Option<Figure> {
    let first = rows.first()?;
    let groups: Vec<Group> = rows.iter().map(|row| group(compare, row)).collect();
    if groups.iter().all(|group| group.bars.is_empty()) {
        return None;
    }
    let values = rows.iter().flat_map(|row| row.values.values());
    let highest = values.map(|value| value.high.max(value.median)).fold(0.0, f64::max);
    let direction = if first.less_is_better { "Less is better." } else { "More is better." };
    let title = match (first.figure.as_str(), first.shape.as_str()) {
        (figure, "") => capital(figure),
        (figure, shape) => format!("{}: {shape}", capital(figure)),
    };
    let axis = match first.unit.as_str() {
        "us" => format!("{}, µs", first.figure),
        "1/s" => format!("{}, in a second", first.figure),
        "" => first.figure.clone(),
        unit => format!("{}, {unit}", first.figure),
    };
    Some(Figure {
        title,
        words: format!("{direction} {}", winners(compare, rows)),
        plot: Plot::Bars(Bars {
            x: Axis::linear(&axis, highest, units::tick),
            groups,
            legend: Vec::new(),
        }),
        table: tables::comparison(compare, rows.iter().copied()),
    })
}

fn group(compare: &Compare, row: &Row) -> Group {
    let best = tables::best(row);
    let bar = |(index, contender): (usize, &crate::report::model::Contender)| {
        let value = row.values.get(&contender.name)?;
        let figure = units::figure(value.median, &row.unit);
        let is_best = best == Some(contender.name.as_str());
        Some(Bar {
            name: contender.name.clone(),
            parts: vec![(index, value.median)],
            range: (value.each.len() > 1).then_some((value.low, value.high)),
            label: match (is_best, row.void.contains_key(&contender.name)) {
                (_, true) => format!("{figure}, void"),
                (true, _) => format!("{figure}, best"),
                _ => figure,
            },
        })
    };
    let bars = compare.contenders.iter().enumerate().filter_map(bar).collect();
    Group { name: row.mix.clone(), bars }
}

/// Who is best how often.
fn winners(compare: &Compare, rows: &[&Row]) -> String {
    let wins = compare.contenders.iter().filter_map(|contender| {
        let wins = rows.iter().filter(|row| tables::best(row) == Some(contender.name.as_str()));
        match wins.count() {
            0 => None,
            count => Some(format!("{} {count}", contender.name)),
        }
    });
    let wins: Vec<String> = wins.collect();
    match (wins.is_empty(), rows.len()) {
        (true, _) => "Nobody is best alone.".into(),
        (false, 1) => format!("Best: {}.", wins[0].trim_end_matches(" 1")),
        (false, all) => format!("Best of {all} mixes: {}.", wins.join(", ")),
    }
}
