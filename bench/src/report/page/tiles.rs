//! The figures one came for, large.

use std::fmt::Write;

use super::{escape, runs};
use crate::report::model::{Compare, Estimate, Find, Plan, Report, Run};
use crate::report::{tables, units};

struct Tile {
    name: String,
    value: String,
    note: String,
}

fn tile(name: &str, value: String, note: String) -> Tile {
    Tile { name: name.into(), value, note }
}

/// Adds them to a page.
pub fn write(html: &mut String, report: &Report) {
    let tiles = match report {
        Report { plan: Some(plan), .. } => of_plan(plan),
        Report { compare: Some(compare), .. } => of_compare(compare),
        Report { find: Some(find), .. } => of_find(find),
        _ => runs::of_interest(report).into_iter().take(1).flat_map(of_run).collect(),
    };
    if tiles.is_empty() {
        return;
    }
    html.push_str("<div class=\"tiles\">\n");
    for Tile { name, value, note } in tiles {
        let _ = writeln!(
            html,
            "<div class=\"tile\"><span>{}</span><b>{}</b><small>{}</small></div>",
            escape(&name),
            escape(&value),
            escape(&note)
        );
    }
    html.push_str("</div>\n");
}

fn of_run(run: &Run) -> Vec<Tile> {
    let offered = format!("of {} offered", units::rate(run.rate));
    let lost = run.counts.scheduled.saturating_sub(run.counts.good);
    let lost = format!("{} of {}", units::count(lost), units::count(run.counts.scheduled));
    let late = format!("{} of the queries sent late", units::count(run.counts.late));
    vec![
        tile("good answers", units::rate(run.goodput()), offered),
        tile("loss", units::share(run.loss()), lost),
        tile("median latency", units::micros(run.latency.p50), "half are faster".into()),
        tile("p99", units::micros(run.latency.p99), "1 of 100 is slower".into()),
        tile("p99.9", units::micros(run.latency.p99_9), "1 of 1000 is slower".into()),
        tile("generator's lateness", units::micros(run.lateness.p99_9), late),
    ]
}

fn range(estimate: &Estimate, format: fn(f64) -> String) -> String {
    match estimate.each.len() {
        0 | 1 => "measured once".into(),
        repeats => {
            format!("{} to {}, {repeats} repeats", format(estimate.low), format(estimate.high))
        }
    }
}

fn of_find(find: &Find) -> Vec<Tile> {
    let named = [
        ("R-SLO", &find.r_slo, find.slo.as_str()),
        ("R, 0.1 % lost at most", &find.r, ""),
        ("R0, nothing lost", &find.r0, ""),
        ("peak of good answers", &find.peak, ""),
    ];
    let mut tiles: Vec<Tile> = named
        .into_iter()
        .filter_map(|(name, value, note)| {
            let value = value.as_ref()?;
            let mut range = range(value, units::rate);
            if !note.is_empty() {
                range = format!("{note}; {range}");
            }
            Some(tile(name, units::rate(value.median), range))
        })
        .collect();
    let peak = find.peak.as_ref().map_or(0.0, |peak| peak.median);
    for overload in find.overload.iter().filter(|_| peak > 0.0) {
        let name = format!("answered at {} x peak", units::short(&units::digits(overload.factor)));
        let share = units::share(overload.goodput.median / peak);
        let note = format!("of the peak: {}", units::rate(overload.goodput.median));
        tiles.push(tile(&name, share, note));
    }
    tiles
}

fn of_plan(plan: &Plan) -> Vec<Tile> {
    let mut tiles = Vec::new();
    if let Some(machines) = &plan.machines {
        let note = format!(
            "for {}, times {} for attacks, {} down",
            units::rate(machines.target),
            units::short(&units::digits(machines.attack_factor)),
            machines.down
        );
        tiles.push(tile("machines", units::count(u64::from(machines.count)), note));
        let note = "what one machine is planned to carry".into();
        tiles.push(tile("each carries", units::rate(machines.each), note));
    }
    let lowest = plan.limits.iter().find_map(|limit| Some((limit, limit.rate?)));
    if let Some((limit, rate)) = lowest {
        tiles.push(tile("one machine's limit", units::rate(rate), limit.what.clone()));
    }
    if let Some(memory) = &plan.memory {
        let records = units::figure(memory.records_max, "");
        let note = format!("{} octets each, reload included", units::digits(memory.record_octets));
        tiles.push(tile("records that fit", records, note));
    }
    if let Some(check) = &plan.check {
        let note = format!(
            "{} predicted, {} measured",
            units::rate(check.predicted),
            units::rate(check.measured.median)
        );
        tiles.push(tile("error of the prediction", format!("{:+.1} %", check.error * 100.0), note));
    }
    tiles
}

fn of_compare(compare: &Compare) -> Vec<Tile> {
    let contested = compare.rows.iter().filter(|row| row.values.len() > 1).count();
    compare
        .contenders
        .iter()
        .map(|contender| {
            let is_best = |row: &&_| tables::best(row) == Some(contender.name.as_str());
            let best = compare.rows.iter().filter(is_best).count();
            let note = format!("figures; {}", contender.version);
            tile(&format!("{}: best in", contender.name), format!("{best} of {contested}"), note)
        })
        .collect()
}
