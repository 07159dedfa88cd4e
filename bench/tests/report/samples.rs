//! Reports as measurements would give them, from a seed: a server that queues, drops, and varies
//! from second to second.

use std::collections::BTreeMap;

use ring53_bench::report::model::*;
use ring53_bench::zones::queries::Random;

const TIMEOUT_US: f64 = 1_000_000.0;

/// What is drawn.
pub struct Dice(Random);

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Dice {
        let mut random = Random::new(seed.wrapping_add(1));
        for _ in 0..16 {
            random.below(2);
        }
        Dice(random)
    }

    /// Between 0 and 1.
    pub fn uniform(&mut self) -> f64 {
        (self.0.below(1 << 53) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Mean 0, deviation 1.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// `value`, off by a share that varies with `noise`.
    pub fn around(&mut self, value: f64, noise: f64) -> f64 {
        value * (noise * self.normal()).exp()
    }

    /// Measured so often.
    pub fn estimate(&mut self, value: f64, noise: f64, repeats: usize) -> Estimate {
        let each: Vec<f64> = (0..repeats).map(|_| self.around(value, noise)).collect();
        Estimate::of(&each)
    }
}

//----------- Runs -----------------------------------------------------------

/// A distribution of these times, each standing for `weight` queries.
fn distribution(values: &[f64], weight: u64) -> Latency {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at =
        |q: f64| sorted[((sorted.len() as f64 * q).ceil() as usize).clamp(1, sorted.len()) - 1];
    let mut buckets: BTreeMap<u64, (f64, u64)> = BTreeMap::new();
    for value in &sorted {
        // As fine as two digits of an HDR histogram.
        let step = 2f64.powf(value.log2().floor() - 7.0);
        let kept = (value / step).round() * step;
        buckets.entry((kept * 1e6).round() as u64).or_insert((kept, 0)).1 += weight;
    }
    Latency {
        count: sorted.len() as u64 * weight,
        min: sorted[0],
        mean: sorted.iter().sum::<f64>() / sorted.len() as f64,
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p99_9: at(0.999),
        p99_99: at(0.9999),
        max: at(1.0),
        buckets: buckets.into_values().collect(),
    }
}

/// A load on a server that answers `capacity` queries a second at most and whose latency is
/// `base_us` when it is idle.
pub fn run(
    label: &str,
    rate: f64,
    seconds: u32,
    (capacity, base_us): (f64, f64),
    dice: &mut Dice,
) -> Run {
    let used = rate / capacity;
    let mut series = Vec::new();
    let mut counts = Counts::default();
    let mut times = Vec::new();
    // Each second stands for so many queries with these times.
    const DRAWN: usize = 2000;
    let weight = ((rate / DRAWN as f64).round() as u64).max(1);
    for _ in 0..seconds {
        let second_used = dice.around(used, 0.02);
        let lost_share = (1.0 - 1.0 / second_used).max(if used > 0.85 { 2e-4 * used } else { 0.0 });
        let queue = 1.0 / (1.0 - second_used.min(0.985));
        let mut drawn: Vec<f64> = (0..DRAWN)
            .map(|_| {
                if dice.uniform() < lost_share {
                    TIMEOUT_US
                } else {
                    let wait = -dice.uniform().ln() * (queue - 1.0) * base_us;
                    dice.around(base_us, 0.25) + wait
                }
            })
            .collect();
        drawn.sort_by(f64::total_cmp);
        let sent = DRAWN as u64 * weight;
        let lost = drawn.iter().filter(|time| **time >= TIMEOUT_US).count() as u64 * weight;
        series.push(Second { sent, good: sent - lost, lost, p99: drawn[DRAWN * 99 / 100] });
        counts.scheduled += sent;
        counts.lost += lost;
        times.extend(drawn);
    }
    counts.sent = counts.scheduled;
    counts.answered = counts.scheduled - counts.lost;
    counts.good = counts.answered;
    counts.good_in_time = counts.good;
    counts.late = counts.scheduled / 5000;
    let answered: Vec<f64> = times.iter().copied().filter(|time| *time < TIMEOUT_US).collect();
    let late: Vec<f64> = (0..5000).map(|_| dice.around(1.2, 0.9)).collect();
    let socket = counts.lost * 7 / 10;
    Run {
        label: label.into(),
        schedule: "poisson".into(),
        rate,
        seconds: f64::from(seconds),
        losses: Losses {
            generator: 0,
            generator_socket: counts.lost / 50,
            server_socket: Some(socket),
            server: counts.lost - socket - counts.lost / 50,
        },
        rcodes: BTreeMap::from([
            ("NOERROR".into(), counts.good * 9 / 10),
            ("NXDOMAIN".into(), counts.good - counts.good * 9 / 10),
        ]),
        counts,
        answer_octets: 132.5,
        latency: distribution(&times, weight),
        service: distribution(&answered, weight),
        lateness: distribution(&late, weight),
        series,
        server: Some(ServerUse {
            busy: used.min(1.0),
            core_us: dice.around(1e6 / capacity, 0.01),
            memory_mib: 412.0,
        }),
        stolen: 0.004,
    }
}

//----------- Reports --------------------------------------------------------

/// Without anything measured.
fn conditions(command: &str) -> Report {
    Report {
        schema: SCHEMA,
        command: command.into(),
        arguments: [command, "--server", "192.0.2.53:53"].map(String::from).to_vec(),
        began: "2026-11-26T06:12:09Z".into(),
        seconds: 412.0,
        machine: Machine {
            kernel: "6.18.44".into(),
            cpu: "AMD EPYC 7B13 <64-Core>".into(),
            cores: 2,
            memory_mib: 7946,
        },
        generator: Generator {
            version: "0.1.0".into(),
            path: "uring".into(),
            cores: vec![1],
            ports: 64,
            timestamps: "kernel".into(),
            ceiling: Some(Ceiling { rate: 1_240_000.0, against: "xdp".into() }),
        },
        target: Some(Target { address: "192.0.2.53:53".into(), version: Some("NSD 4.6.1".into()) }),
        mix: Some(MixNote {
            text: "uniform over 1,000,000 names of hosts, 10 % NXDOMAIN".into(),
            distinct: 1_000_000,
            query_octets: 41.2,
            verified: true,
        }),
        ..Report::default()
    }
}

/// One load of half a minute.
pub fn load(rate: f64, capacity: f64, seed: u64) -> Report {
    let mut dice = Dice::new(seed);
    let mut report = conditions("load");
    report.runs = vec![run("load", rate, 30, (capacity, 84.0), &mut dice)];
    report
}

/// A search, with every rate found.
pub fn find(capacity: f64, seed: u64) -> Report {
    let mut dice = Dice::new(seed);
    let mut report = conditions("find");
    report.runs.push(run("warm-up", 20_000.0, 3, (capacity, 84.0), &mut dice));
    for repeat in 0..3 {
        for (step, share) in
            [0.1, 0.3, 0.5, 0.7, 0.85, 0.92, 0.97, 1.02, 1.15].into_iter().enumerate()
        {
            let label = format!("bisect {}", repeat * 9 + step + 1);
            report.runs.push(run(&label, capacity * share, 5, (capacity, 84.0), &mut dice));
        }
    }
    for factor in [2.0, 4.0] {
        let label = format!("overload {factor}x");
        report.runs.push(run(&label, capacity * factor, 5, (capacity, 84.0), &mut dice));
    }
    let mut overload = |factor: f64, share: f64| Overload {
        factor,
        rate: capacity * factor,
        goodput: dice.estimate(capacity * share, 0.02, 3),
    };
    let overload = vec![overload(2.0, 0.96), overload(4.0, 0.81)];
    report.find = Some(Find {
        slo: "p99.9 < 1000 us, loss < 0.01 %".into(),
        r0: Some(dice.estimate(capacity * 0.72, 0.02, 3)),
        r: Some(dice.estimate(capacity * 0.93, 0.01, 3)),
        r_slo: Some(dice.estimate(capacity * 0.82, 0.015, 3)),
        peak: Some(dice.estimate(capacity, 0.01, 3)),
        overload,
        refused: None,
    });
    report.notes.push("R0 and R are of intervals of 5 s each.".into());
    report
}

/// Four cores of a server.
fn scaling(lambda: f64) -> Scaling {
    let scaling = Scaling { lambda, sigma: 0.036, kappa: 0.0014, ..Default::default() };
    let points = (1..=4).map(|cores| (cores, scaling.rate(f64::from(cores)))).collect();
    Scaling { points, note: Some("beyond 4 cores nothing was measured".into()), ..scaling }
}

/// A plan.
pub fn plan(seed: u64) -> Report {
    let mut dice = Dice::new(seed);
    let mut report = conditions("plan");
    for (name, rate) in [("class hit", 240_000.0), ("class nxdomain", 210_000.0)] {
        report.runs.push(run(name, rate * 0.8, 5, (rate, 84.0), &mut dice));
    }
    let mut class = |name: &str, share: f64, core_us: f64, answer_octets: f64| Class {
        name: name.into(),
        share,
        core_us: dice.estimate(core_us, 0.02, 3),
        rate: dice.estimate(0.85e6 / core_us, 0.02, 3),
        rate_at_least: None,
        query_octets: 41.0,
        answer_octets,
        full_us: Some(core_us * 0.9),
        waking_us: Some(core_us * 0.6),
        knee_busy: Some(0.86),
        scaling: Some(scaling(1e6 / core_us)),
        per_second: (name == "transfer").then_some(0.5),
        octet_ns: (name == "transfer").then_some(0.4),
    };
    let classes = vec![
        class("hit", 0.71, 3.4, 118.0),
        class("nxdomain", 0.17, 3.7, 133.0),
        class("signed", 0.10, 3.9, 734.0),
        class("tcp", 0.02, 6.2, 118.0),
    ];
    let limit = |what: &str, rate: Option<f64>, note: &str| Limit {
        what: what.into(),
        rate,
        note: note.into(),
    };
    let check = Check {
        mix: "60 % hit, 30 % nxdomain, 10 % signed".into(),
        predicted: 251_000.0,
        measured: dice.estimate(239_000.0, 0.015, 3),
        error: 0.05,
    };
    report.plan = Some(Plan {
        classes,
        scaling: Some(scaling(243_000.0)),
        limits: vec![
            limit("core", Some(482_000.0), "fit of cost by class"),
            limit("line rate of the answers", Some(760_000.0), "1 Gbit/s, 164 octets a frame"),
            limit("socket buffers", Some(1_900_000.0), "208 KiB, 1 ms of a pause"),
            limit("NIC packets", None, "a veth has no NIC: measure on the machine itself"),
        ],
        memory: Some(Memory {
            points: vec![(10_000, 9.1), (100_000, 41.0), (1_000_000, 352.0)],
            base_mib: 5.8,
            record_octets: 363.0,
            reload_factor: 2.1,
            records_max: 10_300_000.0,
        }),
        machines: Some(Machines {
            target: 900_000.0,
            attack_factor: 3.0,
            down: 1,
            each: 385_000.0,
            count: 9,
            reload_share: Some(0.8),
            words: "900 k/s x 3 / 385 k/s = 7.01, rounded up: 8; one may be down: 9".into(),
        }),
        check: Some(check.clone()),
        checks: vec![check],
        cores: 2,
        core_range: None,
        knee_busy: Some(0.88),
        deviation: Some(0.03),
        switching_us: Some(2.4),
        cached_answer_octets: Some(118.0),
    });
    report
}

/// A comparison of five servers.
pub fn compare(seed: u64) -> Report {
    let mut dice = Dice::new(seed);
    let mut report = conditions("compare");
    report.target = None;
    let contenders = [
        ("ring53", "0.1.0", 1.0),
        ("NSD", "4.6.1", 1.62),
        ("Knot", "3.2.6", 1.48),
        ("BIND", "9.18.41", 3.9),
        ("PowerDNS", "4.7.4", 3.1),
    ];
    let figures = [
        ("core time", "us", true, 3.4),
        ("peak", "1/s", false, 262_000.0),
        ("p99", "us", true, 312.0),
        ("memory", "MiB", true, 352.0),
    ];
    let mut rows = Vec::new();
    for (figure, unit, less_is_better, base) in figures {
        let mixes: &[&str] = match figure {
            "memory" => &[""],
            _ => &["one hot name", "Zipf over 100 k names", "uniform", "random subdomains, signed"],
        };
        for mix in mixes {
            let mut values = BTreeMap::new();
            for (name, _, cost) in contenders {
                // Somebody always loses somewhere.
                let cost = if name == "ring53" && *mix == "one hot name" { 1.7 } else { cost };
                let value = if less_is_better { base * cost } else { base / cost };
                values.insert(name.to_string(), dice.estimate(value, 0.03, 5));
            }
            rows.push(Row {
                shape: "hosts".into(),
                mix: mix.to_string(),
                figure: figure.into(),
                unit: unit.into(),
                less_is_better,
                values,
                void: BTreeMap::new(),
            });
        }
    }
    let contenders = contenders
        .map(|(name, version, _)| Contender { name: name.into(), version: version.into() })
        .to_vec();
    report.compare = Some(Compare { contenders, rows });
    report
}

/// A report in which no field is empty.
pub fn full() -> Report {
    let mut report = find(240_000.0, 1);
    report.plan = plan(1).plan;
    report.compare = compare(1).compare;
    for row in report.compare.iter_mut().flat_map(|compare| &mut compare.rows) {
        row.void.insert("bind".into(), "the generator offered 80 k/s of 100 k/s".into());
    }
    for limit in report.plan.iter_mut().flat_map(|plan| &mut plan.limits) {
        limit.rate = limit.rate.or(Some(2_500_000.0));
    }
    if let Some(plan) = &mut report.plan {
        plan.core_range = Some([470_000.0, 490_000.0]);
        for class in &mut plan.classes {
            class.rate_at_least = Some(class.rate.low);
            class.per_second = Some(0.5);
            class.octet_ns = Some(0.4);
        }
    }
    if let Some(find) = &mut report.find {
        find.refused = Some("the generator was at 91 % of its ceiling".into());
    }
    report
}
