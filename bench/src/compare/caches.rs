//! What a comparison of caches is to show: ring53's figures over those of others, and the bounds
//! that are wanted of them.
//!
//! ```text
//!   rows ──> ring53-cache / the best of its peers, the echo, its own authority ──> bound: met?
//! ```

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::contenders::{Contender, Role};
use super::raw::Line;
use super::settings::Settings;
use super::shapes::Shape;
use super::table::{LATENCY_NOISE, thousands};
use crate::report::model::{Compare, Row};

/// Whose figures are held against those of others.
const OURS: &str = "ring53-cache";
/// Its authority.
const AUTHORITY: &str = "ring53";
/// A cache that has more than this share of its memory before the first answer shows nothing by
/// what it has more afterwards.
const PREPARED_MAX: f64 = 0.5;

/// Figures that caches alone have: name, key of the value, unit.
pub const FILLED: [(&str, &str, &str); 2] = [
    ("memory with all names", "memory_mib", "MiB"),
    ("memory of an answer", "answer_octets", "octets"),
];

/// Why the memory of an answer, of what was measured, does not count.
pub fn prepared(line: &Line) -> Option<String> {
    let value = |key: &str| line.values.get(key).copied().filter(|_| line.step == "filled");
    let (before, after) = (value("memory_before_mib")?, value("memory_mib")?);
    (before > PREPARED_MAX * after).then(|| {
        format!("it has {before:.0} MiB before the first answer, {after:.0} MiB with all of them")
    })
}

//----------- Ratio ----------------------------------------------------------

/// What a ratio has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// One figure over another.
#[derive(Clone, Debug, PartialEq)]
pub struct Ratio {
    /// Of what: shape, mix, figure.
    what: String,
    own: f64,
    other: f64,
    unit: String,
    /// Whose the other is.
    whose: String,
    bound: Bound,
}

impl Ratio {
    fn value(&self) -> f64 {
        // Nothing over nothing: of two that lose no query none loses more.
        if self.own == self.other { 1.0 } else { self.own / self.other }
    }

    /// Whether it is what is wanted.
    pub fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtMost(most) => self.value() <= most,
            Bound::AtLeast(least) => self.value() >= least,
        }
    }

    fn wanted(&self) -> String {
        match self.bound {
            Bound::AtMost(most) => format!("at most {most:.2}"),
            Bound::AtLeast(least) => format!("at least {least:.2}"),
        }
    }

    fn text_of(&self, value: f64) -> String {
        match self.unit.as_str() {
            "1/s" => format!("{}/s", thousands(value)),
            unit => format!("{value:.2} {unit}"),
        }
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (own, other) = (self.text_of(self.own), self.text_of(self.other));
        let verdict = if self.is_met() { "met" } else { "not met" };
        let (value, wanted) = (self.value(), self.wanted());
        write!(f, "{}: {own}, {} {other}: {value:.2}, {wanted}: {verdict}", self.what, self.whose)
    }
}

//----------- Ratios ---------------------------------------------------------

/// With what a figure is compared.
#[derive(Clone, Copy)]
enum With {
    /// The best of the other caches.
    Caches,
    /// The better of these.
    Of(&'static [&'static str]),
}

/// All that the rows show.
pub fn ratios(compare: &Compare, settings: &Settings) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    let all = Rows { rows: &compare.rows, settings };
    let hits = all.of(Shape::Cached, "uniform");
    let at = format!("at {}/s", thousands(settings.rate as f64));
    let core = format!("core time of an answer {at}");
    for (figure, with, bound) in [
        (core.as_str(), With::Caches, Bound::AtMost(0.7)),
        (&format!("latency {at}, p50"), With::Caches, Bound::AtMost(LATENCY_NOISE)),
        (&format!("latency {at}, p99"), With::Caches, Bound::AtMost(LATENCY_NOISE)),
        (&core, With::Of(&[AUTHORITY]), Bound::AtMost(1.15)),
        ("peak", With::Caches, Bound::AtLeast(1.2)),
        ("peak", With::Of(&["echo"]), Bound::AtLeast(0.8)),
    ] {
        ratios.extend(hits.ratio(figure, with, bound));
    }
    let filled = all.of(Shape::Cached, "");
    ratios.extend(filled.ratio(FILLED[1].0, With::Caches, Bound::AtMost(0.7)));
    ratios.extend(all.beside_misses());
    let misses = all.of(Shape::Cached, "random");
    ratios.extend(misses.ratio("peak", With::Of(&["unbound"]), Bound::AtLeast(1.5)));
    ratios.extend(misses.ratio("peak", With::Of(&["dnsdist"]), Bound::AtLeast(1.0)));
    for shape in [Shape::CachedTls, Shape::CachedHttps] {
        let with = With::Of(&["unbound", "dnsdist"]);
        ratios.extend(all.of(shape, "random").ratio("peak", with, Bound::AtLeast(0.8)));
    }
    ratios
}

/// Their table.
pub fn markdown(ratios: &[Ratio]) -> String {
    let mut text = String::new();
    if ratios.is_empty() {
        return text;
    }
    text.push_str("\n| ring53's cache | its figure | against | ratio | wanted | |\n");
    text.push_str("| --- | ---: | --- | ---: | --- | --- |\n");
    for ratio in ratios {
        let (own, other) = (ratio.text_of(ratio.own), ratio.text_of(ratio.other));
        let verdict = if ratio.is_met() { "met" } else { "not met" };
        let _ = writeln!(
            text,
            "| {} | {own} | {}, {other} | {:.2} | {} | {verdict} |",
            ratio.what,
            ratio.whose,
            ratio.value(),
            ratio.wanted()
        );
    }
    text
}

struct Rows<'a> {
    rows: &'a [Row],
    settings: &'a Settings,
}

impl<'a> Rows<'a> {
    fn of(&self, shape: Shape, mix: &'static str) -> OfMix<'a> {
        let of = |row: &&Row| row.shape == shape.name() && row.mix == mix;
        let rows = self.rows.iter().filter(of).map(|row| (row.figure.as_str(), row)).collect();
        OfMix { rows, place: [shape.name(), mix], contenders: &self.settings.contenders }
    }

    /// What hits of ring53's cache see beside misses, against what they see without.
    fn beside_misses(&self) -> Vec<Ratio> {
        let (with, without) =
            (self.of(Shape::Cached, "uniform+misses"), self.of(Shape::Cached, "uniform"));
        let of = |figure: &str, bound| {
            let (row, own) = with.value(figure, OURS)?;
            let (_, other) = without.value(figure, OURS)?;
            let whose = "without misses".into();
            let what = with.what(figure);
            Some(Ratio { what, own, other, unit: row.unit.clone(), whose, bound })
        };
        let lost = with.value(HALF_LOST, OURS).map(|(row, own)| Ratio {
            what: with.what(HALF_LOST),
            own,
            other: 0.0,
            unit: row.unit.clone(),
            whose: "wanted".into(),
            bound: Bound::AtMost(1.0),
        });
        of(HALF_P99, Bound::AtMost(1.5)).into_iter().chain(lost).collect()
    }
}

/// The rows of what hits see at half the peak of hits: medians of slices, and over all of them.
pub const HALF_P50: &str = "latency of hits at half the peak, p50";
pub const HALF_P99: &str = "latency of hits at half the peak, p99";
pub const HALF_P99_ALL: &str = "latency of hits at half the peak, p99 of all slices";
pub const HALF_LOST: &str = "hits lost at half the peak";

/// The rows of one mix, by figure.
struct OfMix<'a> {
    rows: BTreeMap<&'a str, &'a Row>,
    place: [&'static str; 2],
    contenders: &'a [String],
}

impl<'a> OfMix<'a> {
    fn what(&self, figure: &str) -> String {
        let words = self.place.into_iter().chain([figure]).filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join(", ")
    }

    /// What counts of `contender`.
    fn value(&self, figure: &str, contender: &str) -> Option<(&'a Row, f64)> {
        let row = *self.rows.get(figure)?;
        let counts = !row.void.contains_key(contender);
        row.values.get(contender).filter(|_| counts).map(|value| (row, value.median))
    }

    fn ratio(&self, figure: &str, with: With, bound: Bound) -> Option<Ratio> {
        let (row, own) = self.value(figure, OURS)?;
        let is_peer = |name: &str| match with {
            With::Of(names) => names.contains(&name),
            With::Caches => {
                name != OURS && Contender::find(name).is_ok_and(|one| one.role == Role::Cache)
            }
        };
        let peers = self.contenders.iter().filter(|name| is_peer(name));
        let figures = peers.filter_map(|name| Some((name, self.value(figure, name)?.1)));
        let (whose, other) = figures.reduce(|best, next| {
            let is_better = if row.less_is_better { next.1 < best.1 } else { next.1 > best.1 };
            if is_better { next } else { best }
        })?;
        let (what, unit) = (self.what(figure), row.unit.clone());
        Some(Ratio { what, own, other, unit, whose: whose.clone(), bound })
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::Estimate;

    fn row(mix: &str, figure: &str, unit: &str, values: &[(&str, f64)]) -> Row {
        let values = values.iter().map(|&(name, value)| (name.into(), Estimate::of(&[value])));
        Row {
            shape: "cached".into(),
            mix: mix.into(),
            figure: figure.into(),
            unit: unit.into(),
            less_is_better: unit != "1/s",
            values: values.collect(),
            void: BTreeMap::new(),
        }
    }

    fn settings() -> Settings {
        let contenders = ["ring53", "ring53-cache", "unbound", "dnsdist", "echo"];
        let contenders = contenders.map(String::from).to_vec();
        Settings { contenders, rate: 100_000, ..Settings::default() }
    }

    #[test]
    fn the_best_of_the_peers_counts() {
        let core = [("ring53", 2.5), ("ring53-cache", 2.8), ("unbound", 3.7), ("dnsdist", 3.9)];
        let peaks = [
            ("ring53-cache", 280_000.0),
            ("unbound", 246_000.0),
            ("dnsdist", 235_000.0),
            ("echo", 340_000.0),
        ];
        let mut rows = vec![
            row("uniform", "core time of an answer at 100 k/s", "us", &core),
            row("uniform", "peak", "1/s", &peaks),
            row("random", "peak", "1/s", &[("ring53-cache", 50_000.0), ("unbound", 30_000.0)]),
        ];
        let of = |rows: &[Row]| {
            let compare = Compare { contenders: Vec::new(), rows: rows.to_vec() };
            let all = ratios(&compare, &settings());
            all.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let texts = of(&rows);
        assert_eq!(
            texts[0],
            "cached, uniform, core time of an answer at 100 k/s: 2.80 us, unbound 3.70 us: 0.76, \
             at most 0.70: not met"
        );
        assert!(texts[1].contains("ring53 2.50 us: 1.12, at most 1.15: met"), "{texts:?}");
        assert!(texts[2].contains("unbound 246 k/s: 1.14, at least 1.20: not met"), "{texts:?}");
        assert!(texts[3].contains("echo 340 k/s: 0.82, at least 0.80: met"), "{texts:?}");
        assert!(texts[4].contains("cached, random, peak: 50 k/s, unbound 30 k/s: 1.67"));
        assert_eq!(texts.len(), 5, "nobody else was measured");
        // What is void is no peer's best.
        rows[0].void.insert("unbound".into(), "it does not hold the names".into());
        assert!(of(&rows)[0].contains("dnsdist 3.90 us: 0.72"));
        rows[0].void.insert(OURS.into(), "it loses".into());
        assert_eq!(of(&rows).len(), 3);
    }

    #[test]
    fn hits_beside_misses_are_held_against_hits() {
        let of = |mix, p99, lost| {
            [
                row(mix, HALF_P99, "us", &[(OURS, p99), ("unbound", 1.0)]),
                row(mix, HALF_LOST, "%", &[(OURS, lost)]),
            ]
        };
        let verdicts = |p99, lost| {
            let rows = [of("uniform", 100.0, 0.0), of("uniform+misses", p99, lost)].concat();
            let all = ratios(&Compare { contenders: Vec::new(), rows }, &settings());
            assert!(markdown(&all).contains("| without misses, 100.00 us |"));
            all.iter().map(Ratio::is_met).collect::<Vec<_>>()
        };
        assert_eq!(verdicts(149.0, 0.0), [true, true]);
        assert_eq!(verdicts(151.0, 0.1), [false, false]);
    }

    #[test]
    fn memory_that_was_there_before_is_no_answers() {
        let line = |before: f64| Line {
            step: "filled".into(),
            values: [("memory_before_mib".to_string(), before), ("memory_mib".into(), 100.0)]
                .into(),
            ..Line::default()
        };
        assert_eq!(prepared(&line(40.0)), None);
        assert!(prepared(&line(90.0)).unwrap().contains("90 MiB before the first answer"));
        assert_eq!(prepared(&Line { step: "alone".into(), ..line(90.0) }), None);
        assert_eq!(markdown(&[]), "");
    }
}
