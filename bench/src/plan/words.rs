//! The plan in words, for whoever reads it on a terminal.

use std::fmt::Write;

use crate::report::model::{Class, Plan};

/// The whole plan.
pub fn plan(plan: &Plan, notes: &[String]) -> String {
    let mut out = String::new();
    classes(&plan.classes, &mut out);
    if let Some(scaling) = &plan.scaling {
        let points: Vec<String> =
            scaling.points.iter().map(|(cores, rate)| format!("{cores}: {rate:.0}/s")).collect();
        let _ = writeln!(
            out,
            "\nthis mix by cores: {}; contention {:.4}, coherence {:.6}",
            points.join(", "),
            scaling.sigma,
            scaling.kappa
        );
    }
    let cores = plan.cores;
    let _ = writeln!(out, "\nlimits with {}, lowest first", super::fit::cores_text(cores));
    for limit in &plan.limits {
        let rate = limit.rate.map_or("-".into(), |rate| format!("{rate:.0}/s"));
        let _ = writeln!(out, "  {:<24} {rate:>12}  {}", limit.what, limit.note);
    }
    if !plan.checks.is_empty() {
        let _ = writeln!(out, "\n{:>12} {:>12} {:>8}  mix", "predicted/s", "measured/s", "error");
    }
    for check in &plan.checks {
        let (predicted, measured) = (check.predicted, check.measured.median);
        let error = check.error * 100.0;
        let _ = writeln!(out, "{predicted:>12.0} {measured:>12.0} {error:>+7.1}%  {}", check.mix);
    }
    if let Some(machines) = &plan.machines {
        let _ = writeln!(out, "\nmachines: {}", machines.words);
    }
    let _ = writeln!(out, "\nassumed");
    for note in notes {
        let _ = writeln!(out, "  {note}");
    }
    out
}

fn classes(classes: &[Class], out: &mut String) {
    let _ = writeln!(
        out,
        "{:<16} {:>7} {:>24} {:>12} {:>12} {:>8} {:>8}",
        "class", "share", "core time, us", "full+waking", "knee/s", "busy", "octets"
    );
    for class in classes {
        let share = match class.per_second {
            Some(rate) => format!("{rate}/s"),
            None => format!("{:.1} %", class.share * 100.0),
        };
        let core = &class.core_us;
        let us = format!("{:.2} ({:.2} to {:.2})", core.median, core.low, core.high);
        let fitted = match (class.full_us, class.waking_us, class.octet_ns) {
            (Some(full), Some(waking), _) => format!("{full:.2}+{waking:.2}"),
            (_, _, Some(ns)) => format!("{ns:.2} ns/oct"),
            _ => "-".into(),
        };
        let knee = match class.rate.median {
            0.0 => "-".into(),
            rate => format!("{rate:.0}"),
        };
        let busy = class.knee_busy.map_or("-".into(), |busy| format!("{busy:.2}"));
        let octets = class.answer_octets;
        let _ = writeln!(
            out,
            "{:<16} {share:>7} {us:>24} {fitted:>12} {knee:>12} {busy:>8} {octets:>8.0}",
            class.name
        );
    }
}
