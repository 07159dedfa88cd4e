//! The summary in a terminal.

use ring53_bench::report::text::summary;

use crate::samples;

fn assert_says(text: &str, expected: &[&str]) {
    for part in expected {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    for line in text.lines() {
        assert_eq!(line, line.trim_end(), "space at the end of a line");
    }
}

#[test]
fn a_load() {
    let mut report = samples::load(200_000.0, 240_000.0, 1);
    let text = summary(&report);
    assert_says(
        &text,
        &[
            "server       192.0.2.53:53 (NSD 4.6.1)",
            "1.24 M/s against xdp, 16.1 % of it used",
            "answers verified",
            "load: poisson 200 k/s for 30.0 s",
            "p99.99",
            "latency, from the intended time",
            "sent late",
            "rcodes: NOERROR",
            "stolen time 0.400 %",
            "of core time an answer",
        ],
    );
    assert!(!text.contains("lost at:") && !text.contains("warning"), "{text}");

    report.runs[0].losses.server_socket = None;
    report.runs[0].losses.server = 70;
    report.runs[0].counts.late = 100_000;
    report.generator.ceiling.as_mut().unwrap().rate = 210_000.0;
    report.mix.as_mut().unwrap().verified = false;
    assert_says(
        &summary(&report),
        &[
            "server's sockets unknown, server or network 70",
            "warning: 95.2 % of the generator's ceiling were used",
            "of the queries were sent late: that is the generator's fault",
            "warning: answers were not verified",
        ],
    );
}

#[test]
fn a_search() {
    let mut report = samples::find(240_000.0, 1);
    let text = summary(&report);
    assert_says(
        &text,
        &[
            "R-SLO: p99.9 < 1000 us, loss < 0.01 %",
            "30 runs",
            "lost queries by place",
            "4.00 x peak",
        ],
    );
    report.find.as_mut().unwrap().refused = Some("the generator is the limit".into());
    assert_says(&summary(&report), &["NO RESULT: the generator is the limit"]);
}

#[test]
fn a_plan() {
    assert_says(
        &summary(&samples::plan(1)),
        &[
            "machines: 9 (900 k/s wanted, times 3.00 for attacks, 385 k/s each, 1 may be down)",
            "Universal Scalability Law: 243 k/s on one core",
            "a veth has no NIC",
            "error +5.0 %",
            "10,300,000 records",
        ],
    );
}

#[test]
fn a_comparison() {
    let text = summary(&samples::compare(1));
    assert_says(&text, &["PowerDNS: 4.7.4", "* best median", "random subdomains, signed"]);
    let stars = text.lines().filter(|line| line.starts_with("  hosts") && line.contains('*'));
    assert_eq!(stars.count(), 13, "each row has its best\n{text}");
}
