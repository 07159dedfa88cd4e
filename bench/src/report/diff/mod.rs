//! What changed between two results, beyond noise.

pub mod figures;
pub mod noise;

use std::fmt::Write;
use std::io;
use std::path::PathBuf;

use serde::Serialize;

use super::model::Report;
use super::table::Table;
use super::{tables, units};

use figures::Figure;
use noise::{Interval, LEVEL};

/// Compares two results.
#[derive(clap::Args)]
pub struct Options {
    /// The result before, as written with --json.
    #[arg(value_name = "A.json")]
    pub a: PathBuf,
    /// The result after.
    #[arg(value_name = "B.json")]
    pub b: PathBuf,
    /// Print the comparison as JSON.
    #[arg(long)]
    pub json: bool,
    /// Exit with 1 if a figure is worse or missing in B, or B is void.
    #[arg(long)]
    pub fail_on_worse: bool,
}

/// Reads both, prints what changed.
pub fn run(options: &Options) -> io::Result<()> {
    let diff = diff(&super::read(&options.a)?, &super::read(&options.b)?);
    if options.json {
        println!("{}", serde_json::to_string_pretty(&diff)?);
    } else {
        println!("A: {}", options.a.display());
        println!("B: {}", options.b.display());
        print!("{}", diff.text());
    }
    match diff.worse() {
        Some(worse) if options.fail_on_worse => {
            Err(io::Error::other(format!("{worse} (--fail-on-worse)")))
        }
        _ => Ok(()),
    }
}

//----------- Diff -----------------------------------------------------------

/// Two results beside each other.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diff {
    /// How often equal figures are judged different, each.
    pub level: f64,
    /// Why the results may not be comparable.
    pub warnings: Vec<String>,
    /// Figures of A that B has not, or that do not count in B.
    pub missing: Vec<String>,
    /// Why nothing of B counts.
    pub void: Vec<String>,
    /// Figure by figure, in the order of A.
    pub lines: Vec<Line>,
}

/// One figure in both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// Its name.
    pub figure: String,
    /// Its unit.
    pub unit: String,
    /// In A.
    pub a: f64,
    /// In B.
    pub b: f64,
    /// B / A.
    pub ratio: Option<f64>,
    /// With what it was judged.
    pub interval: Option<Interval>,
    /// `repeats`, `seconds`, `binomial`, `order statistics`; `repeats of A` or `repeats of B` if
    /// only that side was measured several times; `once` if nothing is known about noise.
    pub method: &'static str,
    /// What it means.
    pub verdict: Verdict,
}

/// What a change means.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum Verdict {
    /// B is better.
    #[serde(rename = "better")]
    Better,
    /// B is worse.
    #[serde(rename = "worse")]
    Worse,
    /// The interval includes no change.
    #[serde(rename = "within noise")]
    WithinNoise,
    /// Measured too few times, or too shortly, to know its noise.
    #[serde(rename = "not judged")]
    NotJudged,
}

impl Verdict {
    fn text(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::WithinNoise => "within noise",
            Verdict::NotJudged => "not judged",
        }
    }
}

/// Compares two results.
pub fn diff(a: &Report, b: &Report) -> Diff {
    let mut warnings = conditions(a, b);
    let (before, after) = (figures::of(a), figures::of(b));
    let (mut lines, mut missing) = (Vec::new(), Vec::new());
    for figure in &before {
        match after.iter().find(|other| other.name == figure.name) {
            Some(other) => lines.push(line(figure, other)),
            None => missing.push(figure.name.clone()),
        }
    }
    for figure in &after {
        if !before.iter().any(|other| other.name == figure.name) {
            warnings.push(format!("only in B: {}", figure.name));
        }
    }
    warnings.extend(missing.iter().map(|name| format!("only in A: {name}")));
    Diff { level: LEVEL, warnings, missing, void: void(b), lines }
}

fn line(a: &Figure, b: &Figure) -> Line {
    let judged = noise::change((a.value, &a.sample), (b.value, &b.sample));
    let verdict = match &judged {
        None => Verdict::NotJudged,
        Some((interval, _)) => match (interval.side(), a.less_is_better) {
            (0, _) => Verdict::WithinNoise,
            (1, false) | (-1, true) => Verdict::Better,
            _ => Verdict::Worse,
        },
    };
    Line {
        figure: a.name.clone(),
        unit: a.unit.clone(),
        a: a.value,
        b: b.value,
        ratio: (a.value != 0.0).then(|| b.value / a.value),
        interval: judged.map(|(interval, _)| interval),
        method: judged.map_or("once", |(_, method)| method),
        verdict,
    }
}

/// Why no figure of a result counts.
fn void(report: &Report) -> Vec<String> {
    let refused = report.find.iter().filter_map(|find| find.refused.clone());
    let used = tables::ceiling_used(report).filter(|used| *used > tables::CEILING_SHARE_MAX);
    let used =
        used.map(|used| format!("{} of the generator's ceiling were used", units::share(used)));
    refused.chain(used).collect()
}

impl Diff {
    /// What makes B worse than A, in words: figures that are worse or missing, or that B is void.
    pub fn worse(&self) -> Option<String> {
        let mut words = Vec::new();
        match self.count(Verdict::Worse) {
            0 => {}
            worse => words.push(format!("{worse} figures are worse in B")),
        }
        if !self.missing.is_empty() {
            words.push(format!("missing in B: {}", self.missing.join("; ")));
        }
        if !self.void.is_empty() {
            words.push(format!("B is void: {}", self.void.join("; ")));
        }
        (!words.is_empty()).then(|| words.join(", "))
    }

    /// How many figures have this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.lines.iter().filter(|line| line.verdict == verdict).count()
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for warning in &self.warnings {
            let _ = writeln!(text, "warning: {warning}");
        }
        if self.lines.is_empty() {
            text.push_str("the two results have no figure in common\n");
            return text;
        }
        let head = ["figure", "A", "B", "B/A", "99 % interval", "from", "verdict"];
        let mut table = Table::new(&head).words(5).words(6);
        for line in &self.lines {
            table.row([
                line.figure.clone(),
                units::figure(line.a, &line.unit),
                units::figure(line.b, &line.unit),
                units::ratio(line.a, line.b),
                line.interval.map_or(String::new(), |interval| shown(&interval, &line.unit)),
                line.method.into(),
                line.verdict.text().into(),
            ]);
        }
        let _ = write!(text, "\n{}\n", table.text());
        let _ = writeln!(
            text,
            "{} better, {} worse, {} within noise, {} not judged. Of figures that did not change, \
             one of {:.0} is judged changed by chance.",
            self.count(Verdict::Better),
            self.count(Verdict::Worse),
            self.count(Verdict::WithinNoise),
            self.count(Verdict::NotJudged),
            1.0 / self.level
        );
        let single =
            |line: &Line| ["seconds", "binomial", "order statistics"].contains(&line.method);
        if self.lines.iter().any(single) {
            text.push_str(
                "Single runs are judged by what varied within them; between runs more varies. \
                 Repeat both (three times at least) before believing a small change.\n",
            );
        }
        text
    }
}

fn shown(interval: &Interval, unit: &str) -> String {
    if interval.of == "ratio" {
        return format!("{:.3} to {:.3}", interval.low, interval.high);
    }
    let signed = |value: f64| {
        let sign = if value < 0.0 { "-" } else { "+" };
        format!("{sign}{}", units::figure(value.abs(), unit))
    };
    format!("{} to {}", signed(interval.low), signed(interval.high))
}

//----------- Conditions -----------------------------------------------------

/// What differs in the conditions, and what makes either result doubtful.
fn conditions(a: &Report, b: &Report) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut compare = |what: &str, a: String, b: String| {
        if a != b {
            let or_none = |text: String| if text.is_empty() { "none".into() } else { text };
            warnings.push(format!("{what} differ: {} and {}", or_none(a), or_none(b)));
        }
    };
    compare("commands", a.command.clone(), b.command.clone());
    compare("kernels", a.machine.kernel.clone(), b.machine.kernel.clone());
    let machine = |report: &Report| {
        let machine = &report.machine;
        format!("{}, {} cores, {} MiB", machine.cpu, machine.cores, machine.memory_mib)
    };
    compare("machines", machine(a), machine(b));
    let target = |report: &Report| {
        report.target.as_ref().map_or(String::new(), |target| {
            format!("{} {}", target.address, target.version.as_deref().unwrap_or("")).trim().into()
        })
    };
    compare("servers", target(a), target(b));
    let contenders = |report: &Report| {
        let contenders = report.compare.iter().flat_map(|compare| &compare.contenders);
        let named = contenders.map(|one| format!("{} {}", one.name, one.version));
        named.collect::<Vec<String>>().join(", ")
    };
    compare("servers", contenders(a), contenders(b));
    let mix = |report: &Report| {
        report.mix.as_ref().map_or(String::new(), |mix| {
            let verified = if mix.verified { "verified" } else { "not verified" };
            format!("{} ({} different, {verified})", mix.text, mix.distinct)
        })
    };
    compare("queries", mix(a), mix(b));
    let generator = |report: &Report| {
        let generator = &report.generator;
        format!(
            "{} {}, {} cores, {} ports, {} time stamps",
            generator.version,
            generator.path,
            generator.cores.len(),
            generator.ports,
            generator.timestamps
        )
    };
    compare("generators", generator(a), generator(b));
    let bounds =
        |report: &Report| report.find.as_ref().map_or(String::new(), |find| find.slo.clone());
    compare("agreed bounds", bounds(a), bounds(b));
    compare("loads", loads(a), loads(b));
    for (name, report) in [("A", a), ("B", b)] {
        if let Some(reason) = report.find.as_ref().and_then(|find| find.refused.as_ref()) {
            warnings.push(format!("{name} is void: {reason}"));
        }
        warnings.extend(tables::warnings(report).into_iter().map(|text| format!("{name}: {text}")));
    }
    warnings
}

/// The loads of a report that has nothing but loads.
fn loads(report: &Report) -> String {
    if report.find.is_some() || report.plan.is_some() || report.compare.is_some() {
        return String::new();
    }
    let loads = report.runs.iter().map(|run| {
        format!("{} {} for {}", run.schedule, units::rate(run.rate), units::seconds(run.seconds))
    });
    let mut loads: Vec<String> = loads.collect();
    loads.dedup();
    loads.join(", ")
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::{Ceiling, Compare, Estimate, Find, Row};

    fn found(each: &[f64]) -> Report {
        let find = Find { r_slo: Some(Estimate::of(each)), ..Find::default() };
        Report { find: Some(find), command: "find".into(), ..Report::default() }
    }

    #[test]
    fn more_is_better_for_rates() {
        let verdict = |b: &[f64]| diff(&found(&[100.0, 101.0, 99.0]), &found(b)).lines[0].verdict;
        assert_eq!(verdict(&[111.0, 110.0, 109.0]), Verdict::Better);
        assert_eq!(verdict(&[89.0, 90.0, 91.0]), Verdict::Worse);
        assert_eq!(verdict(&[100.0, 102.0, 98.0]), Verdict::WithinNoise);
        assert_eq!(diff(&found(&[100.0]), &found(&[200.0])).lines[0].verdict, Verdict::NotJudged);
    }

    #[test]
    fn what_is_not_the_same_is_said() {
        let a = found(&[1.0, 1.1]);
        let mut b = a.clone();
        b.machine.kernel = "6.18".into();
        b.machine.cores = 4;
        b.command = "load".into();
        b.generator.path = "mmsg".into();
        b.find = Some(Find { refused: Some("the ceiling".into()), ..Find::default() });
        let text = diff(&a, &b).text();
        for expected in [
            "commands differ: find and load",
            "kernels differ: none and 6.18",
            "machines differ",
            "generators differ",
            "B is void: the ceiling",
            "only in A: R-SLO",
            "no figure in common",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
        assert_eq!(diff(&a, &a).warnings, Vec::<String>::new());
    }

    /// What B cannot show is no better than what is worse in it.
    #[test]
    fn what_is_missing_or_void_is_worse() {
        let a = found(&[100.0, 101.0, 99.0]);
        assert_eq!(diff(&a, &a).worse(), None);
        let empty = Report { find: Some(Find::default()), ..a.clone() };
        assert_eq!(diff(&a, &empty).worse().unwrap(), "missing in B: R-SLO: ");
        assert_eq!(diff(&empty, &a).worse(), None, "B has more");
        let mut b = a.clone();
        b.find.as_mut().unwrap().refused = Some("the ceiling".into());
        assert_eq!(diff(&a, &b).worse().unwrap(), "B is void: the ceiling");
        assert_eq!(diff(&b, &a).worse(), None);
        let mut near = a.clone();
        let ceiling = Ceiling { rate: 110.0, ..Ceiling::default() };
        near.generator.ceiling = Some(ceiling);
        assert!(diff(&a, &near).worse().unwrap().contains("ceiling"));
        let row = Row {
            figure: "peak".into(),
            values: [("nsd".to_string(), Estimate::of(&[1.0]))].into(),
            ..Row::default()
        };
        let compared = |row: Row| {
            let compare = Compare { rows: vec![row], ..Compare::default() };
            Report { compare: Some(compare), ..Report::default() }
        };
        let void = [("nsd".to_string(), "offered too little".to_string())].into();
        let diff = diff(&compared(row.clone()), &compared(Row { void, ..row }));
        assert_eq!(diff.worse().unwrap(), "missing in B: nsd, peak");
    }

    #[test]
    fn a_change_of_nothing_is_shown_as_a_difference() {
        let interval = Interval { of: "difference", low: -0.0001, high: 0.002 };
        assert_eq!(shown(&interval, "share"), "-0.0100 % to +0.200 %");
    }
}
