//! Pages in a real browser: at the width of a phone and of a screen, light and dark, and printed.
//! `RING53_PAGES=DIRECTORY` keeps them, to look at.

use std::path::Path;
use std::process::Command;

use ring53_bench::report::model::Report;
use ring53_bench::report::{Outputs, page, svg};

use crate::browser::{Page, Scheme};
use crate::samples;

fn assert_good(name: &str, report: &Report, figures: &[&str]) {
    let html = page::html(report);
    for figure in figures {
        assert!(html.contains(&format!("<h3>{figure}")), "{name}: no figure {figure:?}");
    }
    assert_eq!(html.matches("<figure").count(), figures.len(), "{name}: figures");
    if let Some(directory) = std::env::var_os("RING53_PAGES") {
        std::fs::write(Path::new(&directory).join(format!("{name}.html")), &html).unwrap();
    }
    let page = Page::new(&html);
    assert_eq!(page.console(), Vec::<String>::new(), "{name}: the console");
    for scheme in [Scheme::Light, Scheme::Dark] {
        assert_eq!(page.faults(scheme), Vec::<String>::new(), "{name}, {scheme:?}");
    }
    let pdf = page.print();
    assert!(pdf.starts_with(b"%PDF-") && pdf.len() > 10_000, "{name}: {} octets", pdf.len());
}

#[test]
fn a_load_is_a_page() {
    let figures = ["Percentiles", "Answers, second by second", "p99 latency, second by second"];
    assert_good("load", &samples::load(180_000.0, 240_000.0, 1), &figures);
}

#[test]
fn a_load_with_losses_is_a_page() {
    let figures = [
        "Percentiles",
        "Losses by place",
        "Answers, second by second",
        "p99 latency, second by second",
    ];
    assert_good("overload", &samples::load(310_000.0, 240_000.0, 1), &figures);
}

#[test]
fn a_search_is_a_page() {
    let figures = [
        "Latency against load",
        "Good answers under overload",
        "Percentiles at",
        "Losses by place",
        "Answers, second by second",
        "p99 latency, second by second",
    ];
    assert_good("find", &samples::find(240_000.0, 1), &figures);
}

#[test]
fn a_plan_is_a_page() {
    let figures = [
        "What limits this machine",
        "Answers by cores",
        "Cost by class of traffic",
        "Memory by records",
        "The prediction, checked",
        "Percentiles",
        "Answers, second by second: class hit",
        "p99 latency, second by second: class hit",
        "Answers, second by second: class nxdomain",
        "p99 latency, second by second: class nxdomain",
    ];
    assert_good("plan", &samples::plan(1), &figures);
}

#[test]
fn a_comparison_is_a_page() {
    let figures = ["Core time: hosts", "Peak: hosts", "P99: hosts", "Memory: hosts"];
    assert_good("compare", &samples::compare(1), &figures);
}

/// Names of any length and any letters, times and rates of any size.
#[test]
fn nothing_in_a_report_breaks_its_page() {
    let hostile =
        "</title><script>document.title='x'</script><img src=http://192.0.2.1/ onerror=a()>";
    let mut report = samples::compare(1);
    let compare = report.compare.as_mut().unwrap();
    for row in &mut compare.rows {
        row.mix = format!("{hostile}{}", row.mix);
        let values =
            row.values.iter().map(|(name, value)| (format!("{name}{hostile}"), value.clone()));
        row.values = values.collect();
    }
    for contender in &mut compare.contenders {
        contender.name.push_str(hostile);
        contender.version = "x".repeat(300);
    }
    report.notes = vec![hostile.repeat(3), "y".repeat(500)];
    report.machine.cpu = hostile.into();
    report.arguments = vec!["z".repeat(400)];
    let html = page::html(&report);
    assert!(!html.contains("<script") && !html.contains("<img"));
    assert_good(
        "hostile",
        &report,
        &["Core time: hosts", "Peak: hosts", "P99: hosts", "Memory: hosts"],
    );

    for scale in [1e-4, 1.0, 1e5] {
        let mut report = samples::find(240_000.0, 1);
        for run in &mut report.runs {
            run.rate *= scale;
            run.counts.good = (run.counts.good as f64 * scale) as u64;
            let latency = &mut run.latency;
            for time in [&mut latency.p50, &mut latency.p99, &mut latency.p99_9, &mut latency.max] {
                *time *= scale;
            }
            latency.buckets.iter_mut().for_each(|(time, _)| *time *= scale);
            run.series.iter_mut().for_each(|second| second.p99 *= scale);
        }
        report.find.as_mut().unwrap().r_slo = None;
        let page = Page::new(&page::html(&report));
        assert_eq!(page.faults(Scheme::Light), Vec::<String>::new(), "times {scale}");
    }
}

#[test]
fn the_command_makes_the_same_page() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let report = samples::find(240_000.0, 2);
    let (json, html) = (Some(at("result.json")), Some(at("first.html")));
    Outputs { json, html, quiet: true }.write(&report).unwrap();
    let page = |result: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ring53-bench"));
        command.arg("page").arg(at(result)).arg("--out").arg(at("second.html"));
        command.output().unwrap()
    };
    assert!(page("result.json").status.success());
    let read = |name: &str| std::fs::read_to_string(at(name)).unwrap();
    assert_eq!(read("first.html"), read("second.html"));

    std::fs::write(at("other.json"), "{\"schema\": 99}").unwrap();
    let refused = page("other.json");
    assert!(!refused.status.success());
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(error.contains("other.json: schema 99 is newer"), "{error}");
}

/// Each of the checks can fail.
#[test]
fn the_browser_sees_what_is_wrong() {
    let plot = |inner: &str| {
        let (wide, narrow) = (svg::WIDE, svg::NARROW);
        let svg = |class: &str, width: f64| {
            format!(
                "<svg class=\"plot {class}\" viewBox=\"0 0 {width} 100\" width=\"{width}\">\
                 <title>t</title><desc>d</desc>{inner}</svg>"
            )
        };
        let plots = format!("{}{}", svg("wide", wide), svg("narrow", narrow));
        let table = "<details><table><tbody><tr><td>1</td></tr></tbody></table></details>";
        let html = page::html(&Report::default());
        html.replace("<footer>", &format!("<figure><h3>x</h3>{plots}{table}</figure><footer>"))
    };
    let bar = "<rect class=\"bar c0\" x=\"10\" y=\"10\" width=\"20\" height=\"20\"/>";
    let text = |x: u32, y: u32| format!("<text x=\"{x}\" y=\"{y}\">text</text>");
    let faults = |html: &str| Page::new(html).faults(Scheme::Light).join("\n");
    assert_eq!(faults(&plot(&format!("{bar}{}", text(50, 50)))), "");
    for (inner, fault) in [
        ("<path class=\"line c0\" d=\"\"/>".to_string(), "no visible marks"),
        (bar.replace("x=\"10\"", "x=\"-9\""), "outside of the view: bar c0"),
        (format!("{bar}{}", text(0, 200)), "text outside of the view"),
        (format!("{bar}{}{}", text(50, 50), text(60, 52)), "texts overlap"),
        (format!("{bar}{}", text(12, 24)), "text over bar c0"),
        (format!("<g style=\"--ink:#999\">{bar}{}</g>", text(50, 50)), "contrast of text"),
        (bar.replace("c0\"", "\" style=\"fill:#eee\""), "contrast of a mark"),
    ] {
        let found = faults(&plot(&inner));
        assert!(
            found.contains(&format!("360 px: x: {fault}")) || found.contains(fault),
            "{fault}: {found}"
        );
    }
    let wide = plot(bar).replace("<footer>", "<div style=\"width:1300px\">w</div><footer>");
    let found = faults(&wide);
    assert!(found.contains("360 px: scrolls sideways") && found.contains("1280 px: "), "{found}");
    let both = plot(bar).replace(".plot.narrow { display: none; }", "");
    assert!(faults(&both).contains("1280 px: x: 2 plots are shown"));

    let loads =
        page::html(&Report::default()).replace("<footer>", "<script src=\"x.js\"></script>");
    assert!(!Page::new(&loads).console().is_empty(), "a blocked script is reported");
}
