//! The summary of a report that a person reads in a terminal.

use std::fmt::Write;

use super::model::{Compare, Find, Plan, Report, Run};
use super::{tables, units};

/// Runs that are listed each by itself; more are listed in one table.
const RUNS_WHOLE_MAX: usize = 3;

/// All of it: conditions, what was found, what a reader has to know.
pub fn summary(report: &Report) -> String {
    let mut text = String::new();
    let pairs = tables::conditions(report);
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    for (name, value) in pairs {
        let _ = writeln!(text, "{name:<width$}  {value}");
    }
    match report.runs.as_slice() {
        [] => {}
        runs if runs.len() <= RUNS_WHOLE_MAX => runs.iter().for_each(|each| run(&mut text, each)),
        runs => many(&mut text, runs),
    }
    if let Some(found) = &report.find {
        find(&mut text, found);
    }
    if let Some(made) = &report.plan {
        plan(&mut text, made);
    }
    if let Some(compared) = &report.compare {
        compare(&mut text, compared);
    }
    let warnings = tables::warnings(report);
    if !report.notes.is_empty() || !warnings.is_empty() {
        text.push('\n');
    }
    for warning in warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    for note in &report.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

//----------- Sections -------------------------------------------------------

fn run(text: &mut String, run: &Run) {
    let _ = writeln!(
        text,
        "\n{}: {} {} for {}",
        run.label,
        run.schedule,
        units::rate(run.rate),
        units::seconds(run.seconds)
    );
    let _ = writeln!(
        text,
        "  {} good answers, {} lost, {} octets each",
        units::rate(run.goodput()),
        units::share(run.loss()),
        units::digits(run.answer_octets)
    );
    text.push('\n');
    text.push_str(&tables::latency(run).text());
    text.push('\n');
    text.push_str(&tables::counts(&run.counts).text());
    if !run.rcodes.is_empty() {
        let rcodes = run.rcodes.iter();
        let rcodes: Vec<String> =
            rcodes.map(|(rcode, count)| format!("{rcode} {}", units::count(*count))).collect();
        let _ = writeln!(text, "\n  rcodes: {}", rcodes.join(", "));
    }
    if tables::places(run).iter().any(|(_, count)| count.is_some_and(|count| count > 0)) {
        let places = tables::places(run).map(|(place, count)| {
            format!("{place} {}", count.map_or("unknown".into(), units::count))
        });
        let _ = writeln!(text, "\n  lost at: {}", places.join(", "));
    }
    let late = run.counts.late as f64 / run.counts.sent.max(1) as f64;
    let _ = writeln!(
        text,
        "\n  generator: {} of the queries sent late, lateness p99.9 {}; stolen time {}",
        units::share(late),
        units::micros(run.lateness.p99_9),
        units::share(run.stolen)
    );
    if let Some(server) = &run.server {
        let _ = writeln!(
            text,
            "  server: busy for {} of its cores' time, {} of core time an answer, {} resident",
            units::share(server.busy),
            units::micros(server.core_us),
            units::mib(server.memory_mib)
        );
    }
}

fn many(text: &mut String, runs: &[Run]) {
    let _ = writeln!(text, "\n{} runs", runs.len());
    text.push_str(&tables::runs(runs).text());
    let lossy: Vec<&Run> = runs.iter().filter(|run| run.loss() > 0.0).collect();
    if !lossy.is_empty() {
        text.push_str("\nlost queries by place\n");
        text.push_str(&tables::losses(lossy).text());
    }
    let lateness = runs.iter().map(|run| run.lateness.p99_9).fold(0.0, f64::max);
    let late = runs.iter().map(|run| run.counts.late).sum::<u64>() as f64;
    let sent = runs.iter().map(|run| run.counts.sent).sum::<u64>().max(1) as f64;
    let _ = writeln!(
        text,
        "\ngenerator: {} of the queries sent late, lateness p99.9 at most {}",
        units::share(late / sent),
        units::micros(lateness)
    );
}

fn find(text: &mut String, find: &Find) {
    if let Some(reason) = &find.refused {
        let _ = writeln!(text, "\nNO RESULT: {reason}");
    }
    if !tables::found(find).is_empty() {
        text.push_str("\nfound\n");
        text.push_str(&tables::found(find).text());
    }
    if !find.overload.is_empty() {
        text.push_str("\nmore offered than can be answered\n");
        text.push_str(&tables::overload(find).text());
    }
}

fn plan(text: &mut String, plan: &Plan) {
    if !plan.classes.is_empty() {
        text.push_str("\ncost by class\n");
        text.push_str(&tables::classes(plan).text());
    }
    if let Some(scaling) = &plan.scaling {
        text.push_str("\nscaling\n");
        text.push_str(&tables::scaling(scaling).text());
        let _ = writeln!(text, "  {}", law(scaling));
        if let Some(note) = &scaling.note {
            let _ = writeln!(text, "  {note}");
        }
    }
    if !plan.limits.is_empty() {
        text.push_str("\nwhat limits this machine, the lowest first\n");
        text.push_str(&tables::limits(plan).text());
    }
    if let Some(memory) = &plan.memory {
        text.push_str("\nmemory\n");
        text.push_str(&tables::memory(memory).text());
        let _ = writeln!(text, "  {}", memory_in_words(memory));
    }
    if let Some(machines) = &plan.machines {
        let _ = writeln!(text, "\n{}", machines_in_words(machines));
        if !machines.words.is_empty() {
            let _ = writeln!(text, "  {}", machines.words);
        }
    }
    let checks = if plan.checks.is_empty() { plan.check.as_slice() } else { &plan.checks };
    text.push('\n');
    for check in checks {
        let _ = writeln!(text, "{}", check_in_words(check));
    }
}

fn compare(text: &mut String, compare: &Compare) {
    text.push('\n');
    for contender in &compare.contenders {
        let _ = writeln!(text, "{}: {}", contender.name, contender.version);
    }
    text.push('\n');
    text.push_str(&tables::comparison(compare, &compare.rows).text());
    text.push_str("  * best median\n");
}

//----------- Sentences ------------------------------------------------------

/// The fit in words.
pub fn law(scaling: &super::model::Scaling) -> String {
    format!(
        "Universal Scalability Law: {} on one core, contention {}, coherence {}",
        units::rate(scaling.lambda),
        units::digits(scaling.sigma),
        units::digits(scaling.kappa)
    )
}

/// Memory in words.
pub fn memory_in_words(memory: &super::model::Memory) -> String {
    format!(
        "{} without zones, {} octets a record, {} times as much during a reload: \
         enough for {} records here",
        units::mib(memory.base_mib),
        units::digits(memory.record_octets),
        units::digits(memory.reload_factor),
        units::count(memory.records_max.max(0.0) as u64)
    )
}

/// Machines in words.
pub fn machines_in_words(machines: &super::model::Machines) -> String {
    format!(
        "machines: {} ({} wanted, times {} for attacks, {} each, {} may be down)",
        machines.count,
        units::rate(machines.target),
        units::digits(machines.attack_factor),
        units::rate(machines.each),
        machines.down
    )
}

/// The check of a plan in words.
pub fn check_in_words(check: &super::model::Check) -> String {
    format!(
        "check on {}: predicted {}, measured {} ({} to {}), error {:+.1} %",
        check.mix,
        units::rate(check.predicted),
        units::rate(check.measured.median),
        units::rate(check.measured.low),
        units::rate(check.measured.high),
        check.error * 100.0
    )
}
