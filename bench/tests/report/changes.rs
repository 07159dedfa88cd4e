//! `diff`: noise is rarely called a change, and a change of a tenth is found.

use std::process::{Command, Output};

use ring53_bench::report::diff::{Diff, Verdict, diff};
use ring53_bench::report::model::Report;
use ring53_bench::report::{Outputs, model};

use crate::samples;

const PAIRS: u64 = 200;
/// Single runs take longer to make.
const PAIRS_OF_RUNS: u64 = 60;

fn verdict(diff: &Diff, figure: &str) -> Verdict {
    let line = diff.lines.iter().find(|line| line.figure.starts_with(figure));
    line.unwrap_or_else(|| panic!("no {figure} in {:?}", diff.lines)).verdict
}

/// Counts judged figures and those called changed, over pairs of the same.
fn false_alarms(pairs: u64, make: impl Fn(u64) -> Report) -> (usize, usize) {
    let (mut judged, mut alarms) = (0, 0);
    for pair in 0..pairs {
        let diff = diff(&make(pair * 2), &make(pair * 2 + 1));
        judged += diff.lines.len() - diff.count(Verdict::NotJudged);
        let wrong = |verdict| matches!(verdict, Verdict::Better | Verdict::Worse);
        for line in diff.lines.iter().filter(|line| wrong(line.verdict)) {
            println!("pair {pair}: {line:?}");
            alarms += 1;
        }
    }
    (judged, alarms)
}

/// Only estimates, without runs: what is compared of a search.
fn search(capacity: f64, seed: u64) -> Report {
    let mut dice = samples::Dice::new(seed);
    let mut find = model::Find::default();
    for (rate, share) in
        [(&mut find.r0, 0.7), (&mut find.r, 0.9), (&mut find.r_slo, 0.8), (&mut find.peak, 1.0)]
    {
        *rate = Some(dice.estimate(capacity * share, 0.015, 3));
    }
    Report { schema: model::SCHEMA, find: Some(find), ..Report::default() }
}

#[test]
fn repeats_of_the_same_are_rarely_different() {
    let (judged, alarms) = false_alarms(PAIRS, |seed| search(240_000.0, seed));
    assert_eq!(judged, 4 * PAIRS as usize);
    // 1 of 100 is what is promised: 8 of 800, give or take three deviations.
    assert!(alarms <= 17, "{alarms} of {judged}");
}

#[test]
fn single_runs_of_the_same_are_rarely_different() {
    for rate in [120_000.0, 236_000.0] {
        let (judged, alarms) =
            false_alarms(PAIRS_OF_RUNS, |seed| samples::load(rate, 240_000.0, seed));
        assert!(judged >= 6 * PAIRS_OF_RUNS as usize, "{judged}");
        let most = judged as f64 * 0.01;
        assert!((alarms as f64) < most + 3.0 * most.sqrt(), "{rate}: {alarms} of {judged}");
    }
}

#[test]
fn a_tenth_is_found_in_repeats() {
    let found = (0..PAIRS).filter(|pair| {
        let diff = diff(&search(240_000.0, pair * 2), &search(264_000.0, pair * 2 + 1));
        verdict(&diff, "R-SLO") == Verdict::Better
    });
    let found = found.count();
    assert!(found as u64 > PAIRS * 3 / 4, "{found} of {PAIRS}");
    let worse = diff(&search(264_000.0, 1), &search(240_000.0, 2));
    assert!(worse.count(Verdict::Better) == 0 && worse.count(Verdict::Worse) > 0);
}

#[test]
fn a_tenth_is_found_in_single_runs() {
    // Latency a tenth higher, at a rate that both sustain.
    let load = |base_us: f64, seed| {
        let mut report = samples::load(1.0, 1.0, 1);
        let mut dice = samples::Dice::new(seed);
        report.runs = vec![samples::run("load", 120_000.0, 30, (240_000.0, base_us), &mut dice)];
        report
    };
    // Capacity a tenth lower, at a rate that neither sustains.
    let over = |capacity: f64, seed| samples::load(300_000.0, capacity, seed);
    for pair in 0..10 {
        let slower = diff(&load(84.0, pair * 2), &load(92.4, pair * 2 + 1));
        for figure in ["load: latency p50", "load: latency p90", "load: latency p99"] {
            assert_eq!(verdict(&slower, figure), Verdict::Worse, "{figure} {}", slower.text());
        }
        let less = diff(&over(240_000.0, pair * 2), &over(216_000.0, pair * 2 + 1));
        assert_eq!(verdict(&less, "load: good answers"), Verdict::Worse, "{}", less.text());
        assert_eq!(verdict(&less, "load: loss"), Verdict::Worse, "{}", less.text());
    }
}

#[test]
fn losses_in_bursts_are_not_taken_for_many_losses() {
    let burst = |seed: u64| {
        let mut report = samples::load(120_000.0, 240_000.0, seed);
        let run = &mut report.runs[0];
        let second = (seed * 7 % 30) as usize;
        let lost = 2000 + seed * 997 % 3000;
        run.series[second].lost += lost;
        run.series[second].good -= lost;
        run.counts.lost += lost;
        run.counts.good -= lost;
        report
    };
    let diff = diff(&burst(1), &burst(2));
    assert_eq!(verdict(&diff, "load: loss"), Verdict::WithinNoise, "{}", diff.text());
}

#[test]
fn short_runs_are_not_judged() {
    let short = |seed| {
        let mut report = samples::load(120_000.0, 240_000.0, seed);
        let mut dice = samples::Dice::new(seed);
        report.runs = vec![samples::run("load", 120_000.0, 3, (240_000.0, 84.0), &mut dice)];
        report
    };
    let diff = diff(&short(1), &short(2));
    assert_eq!(verdict(&diff, "load: latency p99"), Verdict::NotJudged);
    assert_eq!(verdict(&diff, "load: good answers"), Verdict::NotJudged);
    assert_eq!(verdict(&diff, "load: loss"), Verdict::NotJudged);
    assert_eq!(verdict(&diff, "load: wrong answers"), Verdict::NotJudged);
}

#[test]
fn runs_of_one_load_are_repeats() {
    let repeated = |base_us: f64, seed| {
        let mut report = samples::load(1.0, 1.0, 1);
        let mut dice = samples::Dice::new(seed);
        let one = |_| samples::run("load", 120_000.0, 3, (240_000.0, base_us), &mut dice);
        report.runs = (0..4).map(one).collect();
        report
    };
    let diff = diff(&repeated(84.0, 1), &repeated(100.0, 2));
    let line = diff.lines.iter().find(|line| line.figure == "load: latency p50").unwrap();
    assert_eq!((line.method, line.verdict), ("repeats", Verdict::Worse));
    assert_eq!(verdict(&diff, "load: memory"), Verdict::WithinNoise);
}

//----------- The command ----------------------------------------------------

fn command(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ring53-bench")).args(arguments).output().unwrap()
}

#[test]
fn the_command_says_what_changed() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, report: &Report| {
        let path = directory.path().join(name);
        Outputs { json: Some(path.clone()), ..Outputs::default() }.write(report).unwrap();
        path.to_str().unwrap().to_string()
    };
    let (a, b) = (write("a.json", &search(240_000.0, 1)), write("b.json", &search(190_000.0, 2)));
    let output = command(&["diff", &a, &b]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("worse") && text.contains("R-SLO"), "{text}");

    let failed = command(&["diff", &a, &b, "--fail-on-worse"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("4 figures are worse in B"));
    assert!(command(&["diff", &b, &a, "--fail-on-worse"]).status.success());

    let json = command(&["diff", &a, &b, "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(value["lines"][0]["verdict"], "worse");
}
