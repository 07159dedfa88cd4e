//! From measurements to rows, and from rows to Markdown for the README.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::caches;
use super::contenders::{Contender, Role};
use super::measure::{late_share, was_late};
use super::peaks::{LOSS_MAX, Of, median};
use super::raw::Line;
use super::settings::Settings;
use super::slices;
use crate::report::model::{self, Compare, Estimate, Row};

/// A result above this share of what the generator can do is void.
const CEILING_SHARE: f64 = 0.8;
/// And one of a load that was offered less than this share of its rate.
const OFFERED_MIN: f64 = 0.9;
/// And one of answers whose share of NXDOMAIN is this far from that of the queries.
const RCODES_OFF: f64 = 0.03;
/// From this share of the generator's core on upstreams and generator get in each other's way.
const UPSTREAM_BUSY_MAX: f64 = 0.7;
/// By so much latencies of one server vary between two measurements at least.
pub const LATENCY_NOISE: f64 = 1.02;

/// Figures of a server alone: name, key of the value, unit.
const ALONE: [(&str, &str, &str); 4] = [
    ("load time", "load_ms", "ms"),
    ("memory", "memory_mib", "MiB"),
    ("memory while reloading", "reload_memory_mib", "MiB"),
    ("reload time", "reload_ms", "ms"),
];

/// How much is offered, as multiples of the peak.
pub const FACTORS: [u32; 2] = [2, 4];

//----------- Void -----------------------------------------------------------

/// Why a measurement does not count.
fn void(line: &Line, ceiling: f64) -> Option<String> {
    let value = |key: &str| line.values.get(key).copied();
    if ceiling > 0.0 && value("answers").is_some_and(|rate| rate > CEILING_SHARE * ceiling) {
        return Some(format!("above {CEILING_SHARE} of the generator's ceiling"));
    }
    let wanted = line.rate as f64;
    if let Some(offered) = value("offered").filter(|&offered| offered < OFFERED_MIN * wanted) {
        let (offered, wanted) = (thousands(offered), thousands(wanted));
        return Some(format!("the generator offered {offered}/s of {wanted}/s"));
    }
    if was_late(&line.values) {
        let late = 100.0 * late_share(&line.values);
        return Some(format!("the prober sent {late:.1} % of its queries late"));
    }
    if let Some(reason) = slices::are_too_few(&line.values) {
        return Some(reason);
    }
    // What is asked upstream is no hit, and what is not, no miss.
    if let Some(asked) = value("upstream") {
        if value("upstream_max").is_some_and(|most| asked > most) {
            let asked = 100.0 * asked;
            return Some(format!("for {asked:.1} % of its answers it asks: it does not hold all"));
        }
        if value("upstream_min").is_some_and(|least| asked < least) {
            let asked = 100.0 * asked;
            return Some(format!(
                "it asks for {asked:.0} % of its answers only: they are no misses"
            ));
        }
    }
    let (share, expected) = (value("nxdomain")?, value("nxdomain_expected")?);
    ((share - expected).abs() > RCODES_OFF).then(|| {
        let (share, expected) = (100.0 * share, 100.0 * expected);
        format!("{share:.0} % of its answers are NXDOMAIN, of the queries {expected:.0} %")
    })
}

/// All lines, and those that count.
#[derive(Clone, Copy)]
struct Measured<'a> {
    all: Of<'a>,
    good: Of<'a>,
    ceiling: f64,
}

impl Measured<'_> {
    /// Why half or more of the rounds of a step do not count.
    fn void(self, step: &str, rate: u64, contender: &str) -> Option<String> {
        let of = self.all.lines.iter().filter(|line| {
            line.step == step
                && line.rate == rate
                && line.contender == contender
                && line.shape == self.all.shape
                && line.mix == self.all.mix
        });
        let voids: Vec<Option<String>> = of.map(|line| void(line, self.ceiling)).collect();
        let count = voids.iter().flatten().count();
        (2 * count >= voids.len()).then(|| voids.into_iter().flatten().next())?
    }

    /// Why the core time of `contender` at `rate` does not count, although it was measured: it
    /// loses queries, or lets them wait longer than its best peer does, beyond what rounds vary.
    fn doubt(self, rate: u64, contender: &str, all: &[String]) -> Option<String> {
        let find = |name: &str| {
            Contender::find(name).ok().filter(|contender| contender.role != Role::Echo)
        };
        let of = |key: &str, name: &str| {
            let each = self.good.each("latency", rate, name, key);
            (!each.is_empty()).then(|| Estimate::of(&each))
        };
        let loss = median(&self.good.each("cost", rate, contender, "loss"));
        if loss > LOSS_MAX && !self.all.mix.contains("spoofed") {
            return Some(format!("it does not sustain the rate, {:.2} % are lost", 100.0 * loss));
        }
        let own = find(contender)?;
        ["p50", "p99"].into_iter().find_map(|key| {
            // Paths of one server are no peers, nor are authorities and caches.
            let is_peer = |peer: &Contender| peer.programs != own.programs && peer.role == own.role;
            let peers = all.iter().filter(|name| find(name.as_str()).is_some_and(is_peer));
            let peers = peers.filter_map(|name| Some((name, of(key, name)?)));
            let (peer, best) = peers.min_by(|a, b| a.1.median.total_cmp(&b.1.median))?;
            let own = of(key, contender)?;
            (own.low > LATENCY_NOISE * best.high).then(|| {
                let (own, best) = (own.median, best.median);
                format!("its {key} is {own:.0} us, that of {peer} {best:.0} us")
            })
        })
    }
}

fn ceiling_of(lines: &[Line]) -> f64 {
    median(&of_step(lines, "ceiling", "replies"))
}

//----------- Rows -----------------------------------------------------------

/// All rows; `versions` says who took part.
pub fn compare(lines: &[Line], settings: &Settings, versions: &[(&Contender, String)]) -> Compare {
    let contenders = versions.iter().map(|(contender, version)| model::Contender {
        name: contender.name.to_string(),
        version: format!("{version}; {}", contender.settings),
    });
    let ceiling = ceiling_of(lines);
    let good: Vec<Line> =
        lines.iter().filter(|line| void(line, ceiling).is_none()).cloned().collect();
    let mut rows = Vec::new();
    for shape in &settings.shapes {
        for (figure, key, unit) in ALONE {
            let of = Of { lines, shape, mix: "" };
            let each = |name: &str| Cell::of(of.each("alone", 0, name, key));
            rows.extend(row(of, settings, figure.into(), unit, each));
        }
        for (figure, key, unit) in caches::FILLED {
            let of = Of { lines, shape, mix: "" };
            let each = |name: &str| {
                let mut filled = lines.iter().filter(|line| line.contender == name);
                let void = filled.find_map(caches::prepared).filter(|_| unit == "octets");
                Cell { each: of.each("filled", 0, name, key), void }
            };
            rows.extend(row(of, settings, figure.into(), unit, each));
        }
        for mix in mixes(lines, shape) {
            let all = Of { lines, shape, mix: &mix };
            let measured = Measured { all, good: Of { lines: &good, ..all }, ceiling };
            of_mix(measured, settings, &mut rows);
        }
    }
    Compare { contenders: contenders.collect(), rows }
}

/// What stands in a cell.
struct Cell {
    each: Vec<f64>,
    void: Option<String>,
}

impl Cell {
    fn of(each: Vec<f64>) -> Cell {
        Cell { each, void: None }
    }

    /// Nothing but the reason, if the measurement was spoilt.
    fn unless(void: Option<String>, each: impl FnOnce() -> Vec<f64>) -> Cell {
        let each = if void.is_some() { Vec::new() } else { each() };
        Cell { each, void }
    }
}

/// The mixes of a shape, in the order in which they were measured.
fn mixes(lines: &[Line], shape: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let of = lines.iter().filter(|line| line.shape == shape && !line.mix.is_empty());
    of.filter(|line| seen.insert(line.mix.clone())).map(|line| line.mix.clone()).collect()
}

fn of_mix(of: Measured<'_>, settings: &Settings, rows: &mut Vec<Row>) {
    let mut rates = of.all.rates("cost");
    rates.extend(of.all.rates("latency"));
    rates.sort_unstable_by(|a, b| b.cmp(a));
    rates.dedup();
    for rate in rates {
        at_rate(of, settings, rate, rows);
    }
    let mut add = |figure: String, cell: &dyn Fn(&str) -> Cell| {
        rows.extend(row(of.all, settings, figure, "1/s", cell));
    };
    add("peak".into(), &|name| {
        // Its rate is that of all measurements: what the generator could not offer is no peak of
        // the server's.
        let offered = of.all.peak(name).offered;
        let void = of.void("offer", offered, name);
        Cell::unless(void, || of.good.each("offer", offered, name, "good"))
    });
    let half = of.all.rates("half");
    let each = |name: &str, key: &str| -> Vec<f64> {
        half.iter().flat_map(|&rate| of.good.each("half", rate, name, key)).collect()
    };
    for factor in FACTORS {
        add(format!("good answers when {factor}x the peak is offered"), &|name| {
            let step = format!("overload {factor}");
            let rates = of.all.rates(&step);
            let void = rates.iter().find_map(|&rate| of.void(&step, rate, name));
            let each = |&rate: &u64| of.good.each(&step, rate, name, "good");
            Cell::unless(void, || rates.iter().flat_map(each).collect())
        });
    }
    let mut add = |figure: &str, unit, cell: &dyn Fn(&str) -> Cell| {
        rows.extend(row(of.all, settings, figure.into(), unit, cell));
    };
    // Each at half of its own peak.
    let void = |name: &str| half.iter().find_map(|&rate| of.void("half", rate, name));
    for (figure, key) in
        [(caches::HALF_P50, "p50"), (caches::HALF_P99, "p99"), (caches::HALF_P99_ALL, "p99_all")]
    {
        add(figure, "us", &|name| Cell { each: each(name, key), void: void(name) });
    }
    add(caches::HALF_LOST, "%", &|name| {
        let (lost, all) = (each(name, "lost"), each(name, "probes"));
        let shares = lost.iter().zip(&all).map(|(lost, all)| 100.0 * lost / all.max(1.0));
        Cell { each: shares.collect(), void: void(name) }
    });
}

/// The rows of one rate that everybody was offered.
fn at_rate(of: Measured<'_>, settings: &Settings, rate: u64, rows: &mut Vec<Row>) {
    let mut add = |figure: String, unit, cell: &dyn Fn(&str) -> Cell| {
        rows.extend(row(of.all, settings, figure, unit, cell));
    };
    let at = thousands(rate as f64);
    let answers = if of.all.mix.contains("spoofed") { "of a query" } else { "of an answer" };
    let cost = |name: &str, key: &str| {
        Cell::unless(of.void("cost", rate, name), || of.good.each("cost", rate, name, key))
    };
    let latency = |name: &str, key: &str| {
        Cell::unless(of.void("latency", rate, name), || of.good.each("latency", rate, name, key))
    };
    add(format!("core time {answers} at {at}/s"), "us", &|name| {
        let cell = cost(name, "core_us");
        let doubt = || of.doubt(rate, name, &settings.contenders);
        let void = cell.void.or_else(|| (!cell.each.is_empty()).then(doubt)?);
        Cell { void, ..cell }
    });
    for (figure, key) in [("p50", "p50"), ("p99", "p99")] {
        add(format!("latency at {at}/s, {figure}"), "us", &|name| latency(name, key));
    }
    for key in ["lost", "wrong"] {
        add(format!("{key} at {at}/s"), "%", &|name| {
            let (counts, all) = (latency(name, key), latency(name, "probes").each);
            let shares = counts.each.iter().zip(&all);
            let each = shares.map(|(count, all)| 100.0 * count / all.max(1.0)).collect();
            Cell { each, ..counts }
        });
    }
    add(format!("an answer at {at}/s"), "octets", &|name| {
        let octets = cost(name, "octets");
        Cell { each: octets.each.into_iter().filter(|&octets| octets > 0.0).collect(), void: None }
    });
    add(format!("versions served at {at}/s"), "1/s", &|name| {
        Cell::of(of.good.each("cost", rate, name, "versions"))
    });
}

/// A row, if anybody has a value in it, or should have one.
fn row(
    of: Of<'_>,
    settings: &Settings,
    figure: String,
    unit: &str,
    cell: impl Fn(&str) -> Cell,
) -> Option<Row> {
    let (mut values, mut void) = (BTreeMap::new(), BTreeMap::new());
    for name in &settings.contenders {
        let cell = cell(name);
        if !cell.each.is_empty() {
            values.insert(name.clone(), Estimate::of(&cell.each));
        }
        if let Some(reason) = cell.void {
            void.insert(name.clone(), reason);
        }
    }
    (!values.is_empty() || !void.is_empty()).then(|| Row {
        shape: of.shape.into(),
        mix: of.mix.into(),
        figure,
        unit: unit.into(),
        less_is_better: unit != "1/s",
        values,
        void,
    })
}

//----------- Notes ----------------------------------------------------------

/// What a reader has to know: what was noted, what is void, whose core did the work.
pub fn notes(lines: &[Line], compare: &Compare) -> Vec<String> {
    let mut notes = Vec::new();
    let mut add = |note: String| {
        if !notes.contains(&note) {
            notes.push(note);
        }
    };
    let ceiling = ceiling_of(lines);
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
    let stolen: Vec<f64> =
        lines.iter().filter_map(|line| line.values.get("stolen").copied()).collect();
    if !stolen.is_empty() {
        let (usual, most) = (median(&stolen), stolen.iter().copied().fold(0.0, f64::max));
        let (usual, most) = (100.0 * usual, 100.0 * most);
        add(format!(
            "taken from a core by the hypervisor: {usual:.1} % in most loads, {most:.1} % at most"
        ));
    }
    let busy = lines.iter().filter_map(|line| line.values.get("upstream_busy").copied());
    if let Some(most) = busy.reduce(f64::max) {
        let limit = if most > UPSTREAM_BUSY_MAX { ", and may be the limit of misses" } else { "" };
        add(format!("upstreams took at most {:.0} % of the generator's core{limit}", 100.0 * most));
    }
    for line in lines.iter().filter(|line| !line.note.is_empty()) {
        let place = [line.shape.as_str(), &line.mix, &line.contender];
        let place: Vec<_> = place.into_iter().filter(|word| !word.is_empty()).collect();
        add(format!("{}: {}", place.join(", "), line.note));
    }
    for buffers in receive_buffers(lines) {
        add(buffers);
    }
    for row in &compare.rows {
        for (name, reason) in &row.void {
            let place = [row.shape.as_str(), &row.mix, name, &row.figure];
            let place: Vec<_> = place.into_iter().filter(|word| !word.is_empty()).collect();
            add(format!("{}: void: {reason}", place.join(", ")));
        }
    }
    notes
}

/// What the kernel gave the sockets of each; a second sentence, if some have less than others.
fn receive_buffers(lines: &[Line]) -> Vec<String> {
    let mut least: BTreeMap<&str, f64> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.step == "buffer") {
        let octets = line.values.get("receive_octets").copied().unwrap_or(0.0);
        let before = least.entry(&line.contender).or_insert(octets);
        *before = before.min(octets);
    }
    let mib = |(name, octets): (&&str, &f64)| format!("{name} {:.1}", octets / f64::from(1 << 20));
    let each: Vec<String> = least.iter().map(mib).collect();
    if each.is_empty() {
        return Vec::new();
    }
    let mut notes = vec![format!("receive buffers, MiB: {}", each.join(", "))];
    let highest = least.values().copied().fold(0.0, f64::max);
    if least.values().any(|&octets| octets < highest) {
        notes.push("receive buffers differ: who has less loses sooner to a burst".into());
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
        let is_in = |name: &String| {
            rows.iter().any(|row| row.values.contains_key(name) || row.void.contains_key(name))
        };
        let contenders: Vec<_> =
            contenders.iter().filter(|(contender, _)| is_in(&contender.name)).collect();
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
                let cell = value.map(|value| cell(value.median, &row.unit));
                let cell = match (cell, row.void.contains_key(&contender.name)) {
                    (Some(cell), true) => format!("{cell} (void)"),
                    (None, true) => "void".into(),
                    (cell, false) => cell.unwrap_or_default(),
                };
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
    fn what_the_generator_could_not_do_is_void() {
        let mut lines = lines();
        lines.push(line("ceiling", 0, 0, "", &[("replies", 110_000.0)]));
        lines.push(Line { note: "it has ended".into(), ..line("note", 0, 0, "nsd", &[]) });
        for round in 0..4 {
            let offered = if round < 2 { 70_000.0 } else { 100_000.0 };
            let cost = [("core_us", 2.0), ("offered", offered)];
            lines.push(line("cost", 100_000, round, "nsd", &cost));
            let late = if round < 1 { 70_000.0 } else { 100_000.0 };
            let probes = [("p50", 50.0 + f64::from(round)), ("offered", late), ("probes", 100.0)];
            lines.push(line("latency", 100_000, round, "nsd", &probes));
        }
        let compare = compare(&lines, &settings(), &[]);
        let row = |figure: &str| compare.rows.iter().find(|row| row.figure == figure).unwrap();
        for (figure, name) in [
            ("peak", "ring53"),
            ("good answers when 2x the peak is offered", "ring53"),
            ("core time of an answer at 100 k/s", "nsd"),
        ] {
            let row = row(figure);
            assert!(!row.values.contains_key(name) && row.void.contains_key(name), "{row:?}");
        }
        let p50 = row("latency at 100 k/s, p50");
        assert_eq!(p50.values["nsd"].each, [51.0, 52.0, 53.0], "one round of four is left out");
        let text = notes(&lines, &compare).join("\n");
        assert!(text.contains("ring53, peak: void: above 0.8"), "{text}");
        assert!(text.contains("offered 150 k/s of 198 k/s"), "{text}");
        assert!(text.contains("hosts, uniform, nsd: it has ended"), "{text}");
        let nsd = (Contender::find("nsd").unwrap(), String::new());
        let compare = Compare {
            contenders: super::compare(&lines, &settings(), &[nsd]).contenders,
            ..compare
        };
        let table = markdown(&compare, &settings(), &[]);
        assert!(table.contains("core time of an answer at 100 k/s, us | void |"), "{table}");
    }

    /// Who lets queries wait to answer many at once is not fast.
    #[test]
    fn core_time_counts_only_with_latency_and_without_loss() {
        let mut lines = Vec::new();
        for round in 0..4 {
            let drift = f64::from(round);
            for (name, p99, loss) in [
                ("ring53", 400.0, 0.0),
                ("mmsg", 101.0, 0.0),
                ("nsd", 100.0, 0.0),
                ("knot", 90.0, 0.01),
            ] {
                let cost = [("core_us", 2.0), ("loss", loss), ("octets", 60.0)];
                lines.push(line("cost", 100_000, round, name, &cost));
                let probes = [("p50", 50.0), ("p99", p99 + drift), ("probes", 100.0)];
                lines.push(line("latency", 100_000, round, name, &probes));
            }
        }
        let all = ["ring53", "mmsg", "nsd"].map(String::from).to_vec();
        let row = |contenders: Vec<String>| {
            let compare = compare(&lines, &Settings { contenders, ..settings() }, &[]);
            assert!(compare.rows.iter().any(|row| row.unit == "octets"));
            compare.rows.into_iter().find(|row| row.figure.starts_with("core time")).unwrap()
        };
        let core = row(all.clone());
        assert_eq!(core.void.keys().collect::<Vec<_>>(), ["ring53"], "{core:?}");
        assert_eq!(core.void["ring53"], "its p99 is 402 us, that of nsd 102 us");
        assert!(core.values.contains_key("ring53"), "what was measured is shown");
        let core = row([all, vec!["knot".into()]].concat());
        assert!(core.void["knot"].contains("1.00 % are lost"), "{core:?}");
    }

    #[test]
    fn answers_to_other_questions_are_void() {
        let of = |share| {
            void(
                &line("offer", 1, 0, "nsd", &[("nxdomain", share), ("nxdomain_expected", 0.09)]),
                0.0,
            )
        };
        assert_eq!((of(0.1), of(0.07)), (None, None));
        assert!(of(0.9).unwrap().contains("90 % of its answers are NXDOMAIN, of the queries 9 %"));
        assert!(void(&line("offer", 1, 0, "echo", &[("nxdomain", 0.0)]), 0.0).is_none());
    }

    #[test]
    fn unequal_buffers_are_said() {
        let of = |name, octets| line("buffer", 0, 0, name, &[("receive_octets", octets)]);
        let (large, small) = (of("nsd", 16_777_216.0), of("knot", 212_992.0));
        let same =
            receive_buffers(&[large.clone(), Line { contender: "knot".into(), ..large.clone() }]);
        assert_eq!(same, ["receive buffers, MiB: knot 16.0, nsd 16.0"]);
        assert!(receive_buffers(&[large, small]).join("; ").contains("differ"));
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
