//! The tables of a report, for the terminal and for the page alike.

use super::model::{
    Check, Class, Compare, Counts, Estimate, Find, Latency, Memory, Plan, Report, Row, Run,
    Scaling, Second,
};
use super::table::Table;
use super::units;

/// From this share of its ceiling on a generator measures itself.
pub const CEILING_SHARE_MAX: f64 = 0.8;
/// Late or lost by the generator: more than one of a thousand is said.
const LATE_SHARE_MAX: f64 = 0.001;
/// Stolen time from which on it is said.
const STOLEN_SHARE_MAX: f64 = 0.02;

//----------- Conditions -----------------------------------------------------

/// Under what conditions a report was made, in pairs of name and value.
pub fn conditions(report: &Report) -> Vec<(&'static str, String)> {
    let mut pairs = Vec::new();
    if let Some(target) = &report.target {
        let version = target.version.as_ref().map(|version| format!(" ({version})"));
        pairs.push(("server", format!("{}{}", target.address, version.unwrap_or_default())));
    }
    if let Some(mix) = &report.mix {
        let verified = if mix.verified { "answers verified" } else { "answers not verified" };
        pairs.push((
            "queries",
            format!(
                "{}; {} different, {} octets on average, {verified}",
                mix.text,
                units::count(mix.distinct),
                units::digits(mix.query_octets)
            ),
        ));
    }
    let generator = &report.generator;
    if !generator.path.is_empty() {
        let cores: Vec<String> = generator.cores.iter().map(u32::to_string).collect();
        let pinned = if cores.is_empty() { "not pinned".into() } else { cores.join(",") };
        pairs.push((
            "generator",
            format!(
                "{}, cores: {pinned}, {} source ports, {} time stamps",
                generator.path, generator.ports, generator.timestamps
            ),
        ));
    }
    if let Some(ceiling) = &generator.ceiling {
        let used = ceiling_used(report).map(|used| format!(", {} of it used", units::share(used)));
        pairs.push((
            "its ceiling",
            format!(
                "{} against {}{}",
                units::rate(ceiling.rate),
                ceiling.against,
                used.unwrap_or_default()
            ),
        ));
    }
    place_and_time(report, &mut pairs);
    pairs
}

fn place_and_time(report: &Report, pairs: &mut Vec<(&'static str, String)>) {
    let machine = &report.machine;
    pairs.push((
        "machine",
        format!(
            "{}, {} cores, {}, Linux {}",
            machine.cpu,
            machine.cores,
            units::mib(machine.memory_mib as f64),
            machine.kernel
        ),
    ));
    let stolen = report.runs.iter().map(|run| run.stolen).fold(0.0, f64::max);
    if !report.runs.is_empty() {
        pairs.push(("stolen time", format!("{} at most", units::share(stolen))));
    }
    if !report.began.is_empty() {
        pairs.push(("began", format!("{}, took {}", report.began, units::seconds(report.seconds))));
    }
    if !report.arguments.is_empty() {
        pairs.push(("arguments", report.arguments.join(" ")));
    }
}

/// The share of the generator's ceiling that what counts in a report used: the highest rate that
/// was found, or without one the highest that was sent.
pub fn ceiling_used(report: &Report) -> Option<f64> {
    let ceiling = report.generator.ceiling.as_ref().filter(|ceiling| ceiling.rate > 0.0)?;
    let found = report.find.iter().flat_map(estimates).map(|(_, estimate)| estimate.high);
    let highest = found.fold(0.0, f64::max);
    let sent = report.runs.iter().map(|run| run.rate).fold(0.0, f64::max);
    let rate = if highest > 0.0 { highest } else { sent };
    (rate > 0.0).then_some(rate / ceiling.rate)
}

/// What makes the figures of a report doubtful.
pub fn warnings(report: &Report) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(used) = ceiling_used(report).filter(|used| *used > CEILING_SHARE_MAX) {
        warnings.push(format!(
            "{} of the generator's ceiling were used: above {} the result is void; give the \
             generator more cores",
            units::share(used),
            units::share(CEILING_SHARE_MAX)
        ));
    }
    let counted = |of: fn(&Run) -> u64| report.runs.iter().map(of).sum::<u64>() as f64;
    let sent = counted(|run| run.counts.sent).max(1.0);
    let late = counted(|run| run.counts.late) / sent;
    if late > LATE_SHARE_MAX {
        warnings.push(format!(
            "{} of the queries were sent late: that is the generator's fault, and latencies \
             include it",
            units::share(late)
        ));
    }
    let own = counted(|run| run.losses.generator + run.losses.generator_socket) / sent;
    if own > LATE_SHARE_MAX {
        warnings.push(format!("{} of the queries were lost by the generator", units::share(own)));
    }
    let stolen = report.runs.iter().map(|run| run.stolen).fold(0.0, f64::max);
    if stolen > STOLEN_SHARE_MAX {
        warnings.push(format!(
            "the hypervisor took {} of the cores' time in one run: measure again in a quiet hour",
            units::share(stolen)
        ));
    }
    if report.mix.as_ref().is_some_and(|mix| !mix.verified) {
        warnings.push("answers were not verified: wrong ones count as good".into());
    }
    warnings
}

//----------- Runs -----------------------------------------------------------

/// Each run in one row.
pub fn runs(runs: &[Run]) -> Table {
    let head = ["run", "offered", "good", "loss", "p50", "p99", "p99.9", "max"];
    let mut table = Table::new(&head);
    for run in runs {
        let latency = &run.latency;
        table.row([
            run.label.clone(),
            units::rate(run.rate),
            units::rate(run.goodput()),
            units::share(run.loss()),
            units::micros(latency.p50),
            units::micros(latency.p99),
            units::micros(latency.p99_9),
            units::micros(latency.max),
        ]);
    }
    table
}

/// The three distributions of a run.
pub fn latency(run: &Run) -> Table {
    let head = ["time", "min", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"];
    let mut table = Table::new(&head);
    for (name, latency) in distributions(run) {
        table.row(std::iter::once(name.to_string()).chain(percentiles(latency)));
    }
    table
}

/// The distributions of a run that have values, with what they are.
pub fn distributions(run: &Run) -> Vec<(&'static str, &Latency)> {
    [
        ("latency, from the intended time", &run.latency),
        ("service, from the actual time", &run.service),
        ("lateness of the generator", &run.lateness),
    ]
    .into_iter()
    .filter(|(_, latency)| latency.count > 0)
    .collect()
}

fn percentiles(latency: &Latency) -> impl Iterator<Item = String> {
    [
        latency.min,
        latency.mean,
        latency.p50,
        latency.p90,
        latency.p99,
        latency.p99_9,
        latency.p99_99,
        latency.max,
    ]
    .into_iter()
    .map(units::micros)
}

/// The highest time of each of several shares of all, for several distributions.
pub fn quantiles(distributions: &[(String, &Latency)]) -> Table {
    let mut table = Table::new(&["", "min", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"]);
    for (name, latency) in distributions {
        table.row(std::iter::once(name.clone()).chain(percentiles(latency)));
    }
    table
}

/// What became of the queries.
pub fn counts(counts: &Counts) -> Table {
    let mut table = Table::new(&["queries", "count", "share"]);
    let scheduled = counts.scheduled.max(1) as f64;
    for (name, count, always) in [
        ("scheduled", counts.scheduled, true),
        ("sent", counts.sent, true),
        ("sent late", counts.late, true),
        ("answered", counts.answered, true),
        ("good", counts.good, true),
        ("lost", counts.lost, true),
        ("wrong", counts.wrong, false),
        ("truncated", counts.truncated, false),
        ("stray", counts.stray, false),
        ("unmatched", counts.unmatched, false),
    ] {
        if always || count > 0 {
            table.row([name.into(), units::count(count), units::share(count as f64 / scheduled)]);
        }
    }
    if counts.connections > 0 {
        table.row(["connections".into(), units::count(counts.connections)]);
        table.row(["broken connections".into(), units::count(counts.broken)]);
    }
    table
}

/// Names of the places where queries are lost, and how many were there.
pub fn places(run: &Run) -> [(&'static str, Option<u64>); 4] {
    [
        ("generator: not sent", Some(run.losses.generator)),
        ("generator's sockets", Some(run.losses.generator_socket)),
        ("server's sockets", run.losses.server_socket),
        ("server or network", Some(run.losses.server)),
    ]
}

/// Losses by place, of several runs.
pub fn losses<'a>(runs: impl IntoIterator<Item = &'a Run>) -> Table {
    let runs: Vec<&Run> = runs.into_iter().collect();
    let names = Run::default();
    let mut head = vec!["run", "offered"];
    head.extend(places(&names).map(|(name, _)| name));
    head.push("all, share");
    let mut table = Table::new(&head);
    for run in runs {
        let known: u64 = places(run).iter().filter_map(|(_, count)| *count).sum();
        let share = known as f64 / run.counts.scheduled.max(1) as f64;
        let counts = places(run).map(|(_, count)| count.map_or("unknown".into(), units::count));
        table.row(
            [run.label.clone(), units::rate(run.rate)]
                .into_iter()
                .chain(counts)
                .chain([units::share(share)]),
        );
    }
    table
}

/// Replies by rcode.
pub fn rcodes(run: &Run) -> Table {
    let mut table = Table::new(&["rcode", "replies"]);
    for (rcode, count) in &run.rcodes {
        table.row([rcode.clone(), units::count(*count)]);
    }
    table
}

/// Second by second.
pub fn series(seconds: &[Second]) -> Table {
    let mut table = Table::new(&["second", "sent", "good", "lost", "p99"]);
    for (index, second) in seconds.iter().enumerate() {
        table.row([
            (index + 1).to_string(),
            units::count(second.sent),
            units::count(second.good),
            units::count(second.lost),
            units::micros(second.p99),
        ]);
    }
    table
}

//----------- Find -----------------------------------------------------------

/// The rates that were found, with what they mean.
pub fn estimates(find: &Find) -> Vec<(String, &Estimate)> {
    let slo = format!("R-SLO: {}", find.slo);
    let named = [
        ("R0: nothing lost".to_string(), &find.r0),
        ("R: at most 0.1 % lost".to_string(), &find.r),
        (slo, &find.r_slo),
        ("peak: most good answers".to_string(), &find.peak),
    ];
    named.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))).collect()
}

/// The rates that were found.
pub fn found(find: &Find) -> Table {
    let mut table = Table::new(&["rate", "median", "lowest", "highest", "repeats"]);
    for (name, estimate) in estimates(find) {
        table.row(std::iter::once(name).chain(spread(estimate, "1/s")));
    }
    table
}

/// Good answers at multiples of the peak.
pub fn overload(find: &Find) -> Table {
    let head = ["offered", "rate", "good, median", "lowest", "highest", "repeats", "of the peak"];
    let mut table = Table::new(&head);
    let peak = find.peak.as_ref().map(|peak| peak.median).filter(|peak| *peak > 0.0);
    for overload in &find.overload {
        let share = peak.map_or("-".into(), |peak| units::share(overload.goodput.median / peak));
        table.row(
            [format!("{} x peak", units::digits(overload.factor)), units::rate(overload.rate)]
                .into_iter()
                .chain(spread(&overload.goodput, "1/s"))
                .chain([share]),
        );
    }
    table
}

/// Median, lowest, highest and the number of repeats.
fn spread(estimate: &Estimate, unit: &str) -> [String; 4] {
    [
        units::figure(estimate.median, unit),
        units::figure(estimate.low, unit),
        units::figure(estimate.high, unit),
        estimate.each.len().to_string(),
    ]
}

//----------- Plan -----------------------------------------------------------

/// Classes of traffic.
pub fn classes(plan: &Plan) -> Table {
    let head = [
        "class",
        "share",
        "core time",
        "lowest",
        "highest",
        "fitted, full + waking",
        "one core",
        "busy then",
        "query octets",
        "answer octets",
    ];
    let mut table = Table::new(&head);
    for class in &plan.classes {
        let is_known = !class.core_us.each.is_empty();
        let core_time = |us| if is_known { units::micros(us) } else { "unknown".into() };
        table.row([
            class.name.clone(),
            match class.per_second {
                Some(rate) => format!("{}/s", units::digits(rate)),
                None => units::share(class.share),
            },
            core_time(class.core_us.median),
            core_time(class.core_us.low),
            core_time(class.core_us.high),
            match (class.full_us, class.waking_us, class.octet_ns) {
                (Some(full), Some(waking), _) => {
                    format!("{} + {}", units::digits(full), units::digits(waking))
                }
                (_, _, Some(ns)) => format!("{} ns an octet", units::digits(ns)),
                _ => "-".into(),
            },
            one_core(class),
            class.knee_busy.map_or("-".into(), units::share),
            units::digits(class.query_octets),
            units::digits(class.answer_octets),
        ]);
    }
    table
}

/// What one core carries of a class, as far as it is known.
fn one_core(class: &Class) -> String {
    match (class.rate.each.is_empty(), class.rate_at_least) {
        (false, _) => units::rate(class.rate.median),
        (true, Some(least)) => format!("at least {}", units::rate(least)),
        (true, None) if class.per_second.is_some() => "-".into(),
        (true, None) => "unknown".into(),
    }
}

/// Cores, measured and fitted rates.
pub fn scaling(scaling: &Scaling) -> Table {
    let mut table = Table::new(&["cores", "measured", "fitted", "of one core's, each"]);
    for (cores, rate) in &scaling.points {
        let cores_f = f64::from(*cores).max(1.0);
        let single = if scaling.lambda > 0.0 { rate / cores_f / scaling.lambda } else { f64::NAN };
        table.row([
            cores.to_string(),
            units::rate(*rate),
            units::rate(scaling.rate(cores_f)),
            units::share(single),
        ]);
    }
    table
}

/// Limits of one machine.
pub fn limits(plan: &Plan) -> Table {
    let mut table = Table::new(&["limit", "answers", "how it was found"]).words(2);
    for limit in &plan.limits {
        let rate = limit.rate.map_or("unknown".into(), units::rate);
        table.row([limit.what.clone(), rate, limit.note.clone()]);
    }
    table
}

/// Records and memory.
pub fn memory(memory: &Memory) -> Table {
    let mut table = Table::new(&["records", "measured", "fitted"]);
    for (records, mib) in &memory.points {
        table.row([
            units::count(*records),
            units::mib(*mib),
            units::mib(fitted_mib(memory, *records as f64)),
        ]);
    }
    table
}

/// What was predicted and what was measured.
pub fn check(check: &Check) -> Table {
    let mut table = Table::new(&["answers", "median", "lowest", "highest", "repeats"]);
    table.row(["predicted".into(), units::rate(check.predicted)]);
    table.row(std::iter::once("measured".to_string()).chain(spread(&check.measured, "1/s")));
    table
}

/// Resident memory for so many records, by the fit.
pub fn fitted_mib(memory: &Memory, records: f64) -> f64 {
    memory.base_mib + records * memory.record_octets / (1024.0 * 1024.0)
}

//----------- Compare --------------------------------------------------------

/// Rows of a comparison, one column for each contender.
pub fn comparison<'a>(compare: &Compare, rows: impl IntoIterator<Item = &'a Row>) -> Table {
    let mut head = vec!["shape", "mix", "figure"];
    head.extend(compare.contenders.iter().map(|contender| contender.name.as_str()));
    let mut table = Table::new(&head).words(1).words(2);
    for row in rows {
        let best = best(row);
        let values = compare.contenders.iter().map(|contender| {
            let is_void = row.void.contains_key(&contender.name);
            let Some(value) = row.values.get(&contender.name) else {
                return if is_void { "void".into() } else { "-".into() };
            };
            let is_best = best == Some(contender.name.as_str());
            let mark = if is_void {
                " (void)"
            } else if is_best {
                "*"
            } else {
                ""
            };
            format!("{}{mark}", units::figure(value.median, &row.unit))
        });
        table.row(
            [row.shape.clone(), row.mix.clone(), row.figure.clone()].into_iter().chain(values),
        );
    }
    table
}

/// It takes part in comparisons, and answers nothing: what it does best is not to be a server.
const ECHO: &str = "echo";

/// Who has the best median of a row: `None` if it is one contender's alone, or shared. Neither an
/// echo nor a figure that does not count is it; sizes of answers are no contest.
pub fn best(row: &Row) -> Option<&str> {
    if row.unit == "octets" {
        return None;
    }
    let counts = |name: &str| name != ECHO && !row.void.contains_key(name);
    let values = row.values.iter().filter(|(name, _)| counts(name));
    let mut values: Vec<(&str, f64)> =
        values.map(|(name, value)| (name.as_str(), value.median)).collect();
    values.sort_by(|left, right| left.1.total_cmp(&right.1));
    if !row.less_is_better {
        values.reverse();
    }
    match values.as_slice() {
        [first, second, ..] if first.1 != second.1 => Some(first.0),
        _ => None,
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::Contender;

    #[test]
    fn neither_an_echo_nor_a_void_figure_is_best() {
        let of = |name: &str, value| (name.to_string(), Estimate::of(&[value]));
        let values = [of("echo", 1.0), of("nsd", 2.0), of("knot", 3.0), of("bind", 4.0)];
        let mut row = Row {
            unit: "us".into(),
            less_is_better: true,
            values: values.into(),
            ..Row::default()
        };
        assert_eq!(best(&row), Some("nsd"));
        row.void.insert("nsd".into(), "the generator offered half of it".into());
        assert_eq!(best(&row), Some("knot"));
        assert_eq!(best(&Row { unit: "octets".into(), ..row.clone() }), None);
        row.values.remove("bind");
        assert_eq!(best(&row), None, "knot is alone");
        let contender = |name: &str| Contender { name: name.into(), version: String::new() };
        let compare = Compare {
            contenders: ["nsd", "bind", "knot"].map(contender).into(),
            ..Compare::default()
        };
        let text = comparison(&compare, [&row]).text();
        assert!(text.contains("(void)") && text.contains('-'), "{text}");
    }
}
