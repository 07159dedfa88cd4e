//! From measurements to rows, and from rows to Markdown for the README.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::contenders::Contender;
use super::peaks::{Of, median};
use super::raw::Line;
use super::settings::Settings;
use crate::report::model::{self, Compare, Estimate, Row};

/// A result above this share of what the generator can do is void.
const CEILING_SHARE: f64 = 0.8;

/// Figures of a server alone: name, key of the value, unit.
const ALONE: [(&str, &str, &str); 4] = [
    ("load time", "load_ms", "ms"),
    ("memory", "memory_mib", "MiB"),
    ("memory while reloading", "reload_memory_mib", "MiB"),
    ("reload time", "reload_ms", "ms"),
];

/// How much is offered, as multiples of the peak.
pub const FACTORS: [u32; 2] = [2, 4];

//----------- Rows -----------------------------------------------------------

/// All rows; `versions` says who took part.
pub fn compare(lines: &[Line], settings: &Settings, versions: &[(&Contender, String)]) -> Compare {
    let contenders = versions.iter().map(|(contender, version)| model::Contender {
        name: contender.name.to_string(),
        version: format!("{version}; {}", contender.settings),
    });
    let mut rows = Vec::new();
    for shape in &settings.shapes {
        for (figure, key, unit) in ALONE {
            let of = Of { lines, shape, mix: "" };
            let each = |name: &str| of.each("alone", 0, name, key);
            rows.extend(row(of, settings, figure.into(), unit, each));
        }
        for mix in mixes(lines, shape) {
            of_mix(Of { lines, shape, mix: &mix }, settings, &mut rows);
        }
    }
    Compare { contenders: contenders.collect(), rows }
}

/// The mixes of a shape, in the order in which they were measured.
fn mixes(lines: &[Line], shape: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let of = lines.iter().filter(|line| line.shape == shape && !line.mix.is_empty());
    of.filter(|line| seen.insert(line.mix.clone())).map(|line| line.mix.clone()).collect()
}

fn of_mix(of: Of<'_>, settings: &Settings, rows: &mut Vec<Row>) {
    let mut add = |figure: String, unit, each: &dyn Fn(&str) -> Vec<f64>| {
        rows.extend(row(of, settings, figure, unit, each));
    };
    let mut rates = of.rates("cost");
    rates.extend(of.rates("latency"));
    rates.sort_unstable_by(|a, b| b.cmp(a));
    rates.dedup();
    for rate in rates {
        let at = thousands(rate as f64);
        let answers = if of.mix.contains("spoofed") { "of a query" } else { "of an answer" };
        add(format!("core time {answers} at {at}/s"), "us", &|name| {
            of.each("cost", rate, name, "core_us")
        });
        for (figure, key) in [("p50", "p50"), ("p99", "p99")] {
            add(format!("latency at {at}/s, {figure}"), "us", &|name| {
                of.each("latency", rate, name, key)
            });
        }
        for key in ["lost", "wrong"] {
            add(format!("{key} at {at}/s"), "%", &|name| {
                let counts = of.each("latency", rate, name, key);
                let all = of.each("latency", rate, name, "probes");
                counts.iter().zip(&all).map(|(count, all)| 100.0 * count / all.max(1.0)).collect()
            });
        }
        add(format!("versions served at {at}/s"), "1/s", &|name| {
            of.each("cost", rate, name, "versions")
        });
    }
    add("peak".into(), "1/s", &|name| of.peak(name).each);
    for factor in FACTORS {
        add(format!("good answers when {factor}x the peak is offered"), "1/s", &|name| {
            let step = format!("overload {factor}");
            let rates = of.rates(&step);
            rates.iter().flat_map(|&rate| of.each(&step, rate, name, "good")).collect()
        });
    }
}

/// A row, if anybody has a value in it.
fn row(
    of: Of<'_>,
    settings: &Settings,
    figure: String,
    unit: &str,
    each: impl Fn(&str) -> Vec<f64>,
) -> Option<Row> {
    let mut values = BTreeMap::new();
    for name in &settings.contenders {
        let each = each(name);
        if !each.is_empty() {
            values.insert(name.clone(), Estimate::of(&each));
        }
    }
    (!values.is_empty()).then(|| Row {
        shape: of.shape.into(),
        mix: of.mix.into(),
        figure,
        unit: unit.into(),
        less_is_better: unit != "1/s",
        values,
    })
}

//----------- Notes ----------------------------------------------------------

/// What a reader has to know: what was noted, what is void, whose core did the work.
pub fn notes(lines: &[Line]) -> Vec<String> {
    let mut notes = Vec::new();
    let mut add = |note: String| {
        if !notes.contains(&note) {
            notes.push(note);
        }
    };
    let ceilings: Vec<f64> = of_step(lines, "ceiling", "replies");
    let ceiling = median(&ceilings);
    if ceiling > 0.0 {
        let text = thousands(ceiling);
        add(format!("kxdpgun's ceiling against an XDP reflector: {text} replies/s"));
    }
    let (mine, others) = (of_step(lines, "received", "mine"), of_step(lines, "received", "others"));
    if !mine.is_empty() {
        let (mine, others) = (mine.iter().sum::<f64>(), others.iter().sum::<f64>());
        add(format!(
            "packets taken by the server's core: {mine}, by others (the replies): {others}"
        ));
    }
    for line in lines.iter().filter(|line| !line.note.is_empty()) {
        let place = [line.shape.as_str(), &line.mix, &line.contender];
        let place: Vec<_> = place.into_iter().filter(|word| !word.is_empty()).collect();
        add(format!("{}: {}", place.join(", "), line.note));
    }
    for line in lines {
        let value = |key: &str| line.values.get(key).copied().unwrap_or(0.0);
        let place = format!("{}, {}, {}", line.shape, line.mix, line.contender);
        if line.step == "offer" && ceiling > 0.0 && value("answers") > CEILING_SHARE * ceiling {
            add(format!("{place}: void, above {CEILING_SHARE} of the generator's ceiling"));
        }
        if line.step.starts_with("overload") && value("offered") < 0.9 * line.rate as f64 {
            let (sent, wanted) = (thousands(value("offered")), thousands(line.rate as f64));
            add(format!("{place}: the generator offered {sent}/s of {wanted}/s"));
        }
    }
    notes
}

fn of_step(lines: &[Line], step: &str, figure: &str) -> Vec<f64> {
    let of = lines.iter().filter(|line| line.step == step);
    of.filter_map(|line| line.values.get(figure).copied()).collect()
}

//----------- Markdown -------------------------------------------------------

/// A table a shape, for the README; medians.
pub fn markdown(compare: &Compare, settings: &Settings, notes: &[String]) -> String {
    let mut text = String::new();
    let contenders: Vec<_> = compare
        .contenders
        .iter()
        .map(|contender| (contender, Contender::find(&contender.name).map_or("", |one| one.title)))
        .collect();
    for shape in &settings.shapes {
        let rows: Vec<_> = compare.rows.iter().filter(|row| row.shape == *shape).collect();
        if rows.is_empty() {
            continue;
        }
        let names = grouped(settings.names);
        let _ = write!(text, "**{shape}**, {names} names\n\n| questions | figure |");
        for (_, title) in &contenders {
            let _ = write!(text, " {title} |");
        }
        let _ = writeln!(text, "\n| --- | --- |{}", " ---: |".repeat(contenders.len()));
        let mut last = "";
        for row in rows {
            let mix = if row.mix == last { "" } else { row.mix.as_str() };
            last = &row.mix;
            let unit = if row.unit == "1/s" { String::new() } else { format!(", {}", row.unit) };
            let _ = write!(text, "| {mix} | {}{unit} |", row.figure);
            for (contender, _) in &contenders {
                let value = row.values.get(&contender.name);
                let cell = value.map_or(String::new(), |value| cell(value.median, &row.unit));
                let _ = write!(text, " {cell} |");
            }
            text.push('\n');
        }
        text.push('\n');
    }
    for (contender, title) in &contenders {
        let _ = writeln!(text, "- {title}: {}", contender.version);
    }
    for note in notes {
        let _ = writeln!(text, "- {note}");
    }
    text
}

fn cell(value: f64, unit: &str) -> String {
    match unit {
        "1/s" if value >= 100.0 => thousands(value),
        "1/s" => format!("{value:.1}"),
        "%" if value == 0.0 => "0".into(),
        "%" => format!("{value:.2}"),
        "us" if value < 20.0 => format!("{value:.2}"),
        _ => format!("{value:.0}"),
    }
}

/// `335 k`, `1.2 M`.
pub fn thousands(value: f64) -> String {
    match value {
        1_000_000.0.. => format!("{:.2} M", value / 1e6),
        10_000.0.. => format!("{:.0} k", value / 1e3),
        1000.0.. => format!("{:.1} k", value / 1e3),
        _ => format!("{value:.0}"),
    }
}

/// `1,000,000`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    fn line(step: &str, rate: u64, round: u32, contender: &str, values: &[(&str, f64)]) -> Line {
        Line {
            shape: "hosts".into(),
            mix: if step == "alone" { String::new() } else { "uniform".into() },
            step: step.into(),
            rate,
            round,
            contender: contender.into(),
            values: values.iter().map(|&(name, value)| (name.to_string(), value)).collect(),
            ..Line::default()
        }
    }

    fn lines() -> Vec<Line> {
        let mut lines = Vec::new();
        for (round, us) in [(0, 2.9), (1, 3.1), (2, 2.8)] {
            lines.push(line("alone", 0, round, "ring53", &[("load_ms", 261.0)]));
            lines.push(line("cost", 100_000, round, "ring53", &[("core_us", us)]));
            let good = [("good", 99_000.0), ("answers", 99_000.0), ("loss", 0.01)];
            lines.push(line("offer", 100_000, round, "ring53", &good));
            let probes = [("p50", 80.0), ("lost", 1.0), ("wrong", 0.0), ("probes", 200.0)];
            lines.push(line("latency", 100_000, round, "ring53", &probes));
        }
        let over = [("good", 80_000.0), ("offered", 150_000.0)];
        lines.push(line("overload 2", 198_000, 0, "ring53", &over));
        lines.push(line("alone", 0, 0, "nsd", &[("load_ms", 1503.0)]));
        lines
    }

    fn settings() -> Settings {
        Settings {
            shapes: vec!["hosts".into()],
            contenders: vec!["ring53".into(), "nsd".into()],
            names: 1_000_000,
            ..Settings::default()
        }
    }

    #[test]
    fn rows_have_all_repeats_and_their_median() {
        let compare = compare(&lines(), &settings(), &[]);
        let row = |figure: &str| compare.rows.iter().find(|row| row.figure == figure).unwrap();
        let core = &row("core time of an answer at 100 k/s").values["ring53"];
        assert_eq!((core.median, core.each.len(), core.low), (2.9, 3, 2.8));
        assert!(row("load time").less_is_better && !row("peak").less_is_better);
        assert_eq!(row("lost at 100 k/s").values["ring53"].median, 0.5);
        assert_eq!(row("load time").values["nsd"].median, 1503.0);
        assert!(!row("peak").values.contains_key("nsd"), "it was not asked");
        assert!(compare.rows.iter().all(|row| row.figure != "memory"), "nothing was measured");
    }

    #[test]
    fn a_table_names_figures_and_units() {
        let versions = [(Contender::find("ring53").unwrap(), "ring53 0.1.0".to_string())];
        let compare = compare(&lines(), &settings(), &versions);
        let text = markdown(&compare, &settings(), &["a note".into()]);
        assert!(text.contains("**hosts**, 1,000,000 names"), "{text}");
        assert!(
            text.contains("| uniform | core time of an answer at 100 k/s, us | 2.90 |"),
            "{text}"
        );
        assert!(text.contains("|  | load time, ms | 261 |"), "{text}");
        assert!(text.contains("- ring53: ring53 0.1.0; one core"), "{text}");
        assert!(text.ends_with("- a note\n"), "{text}");
    }

    #[test]
    fn what_the_generator_could_not_do_is_noted() {
        let mut lines = lines();
        lines.push(line("ceiling", 0, 0, "", &[("replies", 110_000.0)]));
        lines.push(Line { note: "it has ended".into(), ..line("note", 0, 0, "nsd", &[]) });
        let notes = notes(&lines).join("\n");
        assert!(notes.contains("ring53: void"), "{notes}");
        assert!(notes.contains("offered 150 k/s of 198 k/s"), "{notes}");
        assert!(notes.contains("hosts, uniform, nsd: it has ended"), "{notes}");
    }

    #[test]
    fn numbers_are_as_long_as_they_say_something() {
        for (value, text) in
            [(950.0, "950"), (9_400.0, "9.4 k"), (335_123.0, "335 k"), (1_234_567.0, "1.23 M")]
        {
            assert_eq!(thousands(value), text);
        }
        assert_eq!(cell(0.9, "1/s"), "0.9");
        assert_eq!(cell(0.0, "%"), "0");
        assert_eq!(grouped(999), "999");
    }
}
