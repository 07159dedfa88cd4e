//! The plan against a server whose costs are known: a queueing model in virtual time.

use std::io;

use ring53_bench::plan::campaign::Settings;
use ring53_bench::plan::draw::{ClassTask, Made, Task, Wanted, make};
use ring53_bench::plan::lab::{Lab, Offer};
use ring53_bench::plan::limits::{
    ClassWire, Counted, MemoryPoint, Surroundings, Transport, machines,
};
use ring53_bench::plan::predict::TransferCost;
use ring53_bench::report::model::{Run, ServerUse};
use ring53_bench::zones::queries::Random;

//----------- The model of a server ------------------------------------------

/// Cores with a queue each. An answer costs its class's time, more if its core was idle, and on
/// more cores all of it costs more by the Universal Scalability Law.
struct ModelServer {
    random: Random,
    /// Microseconds by class.
    full_us: Vec<f64>,
    /// Microseconds by class, for waking an idle core.
    waking_us: Vec<f64>,
    /// Microseconds more on a busy core, if another moment of its time belongs to another group.
    switching_us: f64,
    sigma: f64,
    kappa: f64,
    /// Share of each core that reading zones takes.
    reload_busy: f64,
    transfer_us: f64,
    /// What the measurement of core time is off by at most, as a share.
    noise: f64,
    /// The rate that the generator cannot exceed.
    ceiling: f64,
    /// Loads after which nothing works any more.
    loads_max: u32,
    /// Whether memory cannot be measured.
    no_memory: bool,
}

impl ModelServer {
    fn new() -> ModelServer {
        ModelServer {
            random: Random::new(5),
            full_us: vec![4.0, 5.0, 9.0, 14.0],
            waking_us: vec![3.0, 3.0, 3.0, 8.0],
            switching_us: 0.0,
            sigma: 0.05,
            kappa: 0.002,
            reload_busy: 0.4,
            transfer_us: 20_000.0,
            noise: 0.03,
            ceiling: 1e9,
            loads_max: u32::MAX,
            no_memory: false,
        }
    }

    fn uniform(&mut self) -> f64 {
        (self.random.below(1 << 53) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn stretch(&self, cores: u32) -> f64 {
        let n = f64::from(cores);
        1.0 + self.sigma * (n - 1.0) + self.kappa * n * (n - 1.0)
    }

    /// The share of the last class in a busy core's time; it has threads of its own.
    fn last_part(&self, shares: &[f64]) -> f64 {
        let parts: Vec<f64> = shares.iter().zip(&self.full_us).map(|(a, b)| a * b).collect();
        parts.last().unwrap() / parts.iter().sum::<f64>()
    }

    /// What the cores can do at most, from the parameters alone.
    fn capacity(&self, shares: &[f64], cores: u32, taken: f64) -> f64 {
        let last = self.last_part(shares);
        let mean: f64 = shares.iter().zip(&self.full_us).map(|(share, us)| share * us).sum();
        let mean = mean + self.switching_us * 2.0 * last * (1.0 - last);
        (f64::from(cores) - taken) * 1e6 / mean / self.stretch(cores)
    }
}

impl Lab for ModelServer {
    fn run(&mut self, offer: &Offer) -> io::Result<Run> {
        /// Past this an arriving query finds the buffer full.
        const QUEUE_US_MAX: f64 = 50_000.0;
        let left = self.loads_max.checked_sub(1);
        self.loads_max = left.ok_or_else(|| io::Error::other("the server has ended"))?;
        let cores = offer.cores as usize;
        let taken = offer.transfers * self.transfer_us / 1e6 / cores as f64
            + if offer.reload { self.reload_busy } else { 0.0 };
        let slow = self.stretch(offer.cores) / (1.0 - taken);
        let last = self.last_part(&offer.shares);
        let (mut free_at, mut used) = (vec![0.0; cores], 0.0);
        let (mut at, mut latencies, mut lost) = (0.0, Vec::new(), 0u64);
        while at < offer.seconds * 1e6 {
            at -= self.uniform().ln() * 1e6 / offer.rate;
            let core = self.random.below(cores as u64) as usize;
            let mut pick = self.uniform();
            let class = offer.shares.iter().position(|share| {
                pick -= share;
                pick <= 0.0
            });
            let class = class.unwrap_or(0);
            if free_at[core] - at > QUEUE_US_MAX {
                lost += 1;
                continue;
            }
            let more = if free_at[core] <= at {
                self.waking_us[class]
            } else {
                let moments = [self.uniform(), self.uniform()].map(|moment| moment < last);
                self.switching_us * f64::from(moments[0] != moments[1])
            };
            let us = (self.full_us[class] + more) * slow * (0.5 + self.uniform());
            used += us * (1.0 - taken);
            free_at[core] = free_at[core].max(at) + us;
            latencies.push(free_at[core] - at);
        }
        latencies.sort_by(f64::total_cmp);
        let quantile = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize];
        let mut run = Run { label: offer.label.clone(), ..Run::default() };
        run.rate = offer.rate;
        run.seconds = offer.seconds;
        run.counts.good = latencies.len() as u64;
        run.counts.good_in_time = run.counts.good;
        run.counts.lost = lost;
        run.counts.scheduled = run.counts.good + lost;
        if offer.rate > self.ceiling {
            run.counts.late = run.counts.scheduled / 2;
        }
        run.answer_octets = 100.0;
        run.latency.p99 = quantile(0.99);
        run.latency.p99_9 = if lost > 0 { 1e6 } else { quantile(0.999) };
        let noise = 1.0 + self.noise * (2.0 * self.uniform() - 1.0);
        let busy = (used * noise / (at.max(1.0) * cores as f64)).min(1.0);
        let core_us = busy * cores as f64 * 1e6 / run.goodput();
        run.server = Some(ServerUse { busy, core_us, memory_mib: 100.0 });
        Ok(run)
    }

    fn transfers(&mut self, _seconds: f64) -> io::Result<TransferCost> {
        Ok(TransferCost { per_second: 0.0, core_us: self.transfer_us, octets: 1e7 })
    }

    fn memory(&mut self) -> io::Result<Vec<MemoryPoint>> {
        if self.no_memory {
            return Err(io::Error::other("no such file"));
        }
        let mib = |records: u64| 20.0 + records as f64 * 64.0 / f64::from(1 << 20);
        let point =
            |records, reload_mib| MemoryPoint { records, resident_mib: mib(records), reload_mib };
        let most = 1 << 20;
        Ok(vec![point(1 << 18, None), point(1 << 19, None), point(most, Some(2.5 * mib(most)))])
    }
}

fn task(cores: &[u32]) -> Task {
    let class = |(name, share): (&str, f64)| ClassTask {
        name: name.into(),
        share,
        asks_others: false,
        wire: ClassWire {
            query_octets: 40.0,
            answer_octets: 0.0,
            transport: if name == "tcp" { Transport::Tcp } else { Transport::Udp },
        },
    };
    let shares = [("hit", 0.7), ("nxdomain", 0.2), ("signed", 0.08), ("tcp", 0.02)];
    Task {
        classes: shares.map(class).to_vec(),
        settings: Settings {
            cores: cores.to_vec(),
            rounds: 2,
            seconds: 0.2,
            rate_start: 20_000.0,
            rate_max: 1e8,
            resolution: 0.02,
            bounds: "p99.9<1000us,loss<0.01%".parse().unwrap(),
            transfers: 0.0,
            seed: 53,
        },
        surroundings: Surroundings { mtu: 1500.0, stall_s: 0.01, ..Surroundings::default() },
        machine_mib: 1000.0,
        records: 1 << 20,
        reloads: true,
        serves: true,
        machine_cores: None,
        wanted: Some(Wanted { target: 900_000.0, attack: 3.0, down: 2, ..Wanted::default() }),
    }
}

/// The classes of a task in other shares; those without a share are left out.
fn with_shares(task: Task, shares: &[(&str, f64)]) -> Task {
    let of = |class: &ClassTask| shares.iter().find(|(name, _)| *name == class.name);
    let classes = task.classes.iter().filter_map(|class| {
        of(class).map(|(_, share)| ClassTask { share: *share, ..class.clone() })
    });
    Task { classes: classes.collect(), ..task }
}

fn planned(server: &mut ModelServer, task: &Task) -> Made {
    let made = make(server, task, &mut |_| ()).unwrap();
    assert_eq!(made.fault, None);
    made
}

/// What is made of it although something went wrong, and what went wrong.
fn faulty(server: &mut ModelServer, task: &Task) -> (Made, String) {
    let made = make(server, task, &mut |_| ()).unwrap();
    let fault = made.fault.clone().expect("a fault");
    assert!(made.notes.contains(&fault) && made.plan.machines.is_none(), "{:?}", made.notes);
    assert!(!made.runs.is_empty() && made.plan.classes.len() >= task.classes.len());
    (made, fault)
}

//----------- Tests ----------------------------------------------------------

#[test]
fn the_prediction_meets_a_server_whose_costs_are_known() {
    let mut server = ModelServer::new();
    let task = task(&[1, 2, 4]);
    let Made { plan, runs, notes, .. } = planned(&mut server, &task);
    let own: Vec<f64> = task.classes.iter().map(|class| class.share).collect();

    // Costs of the classes, and what waking up costs.
    for (class, (full, waking)) in
        plan.classes.iter().zip(server.full_us.iter().zip(&server.waking_us))
    {
        let off = class.full_us.unwrap() / full - 1.0;
        assert!(off.abs() < 0.05, "{}: {off}", class.name);
        let off = class.waking_us.unwrap() / waking - 1.0;
        assert!(off.abs() < 0.25, "{}: waking {off}", class.name);
    }
    // Cores.
    let scaling = plan.scaling.as_ref().unwrap();
    assert_eq!(scaling.note, None);
    let known = server.capacity(&own, 4, 0.0) / server.capacity(&own, 1, 0.0);
    let fitted = scaling.rate(4.0) / scaling.rate(1.0);
    assert!((fitted / known - 1.0).abs() < 0.05, "{fitted} {known}");
    // The rate, against the parameters and against what was then measured.
    let limit = &plan.limits[0];
    assert_eq!(limit.what, "core");
    let capacity = server.capacity(&own, 4, 0.0);
    let off = limit.rate.unwrap() / capacity - 1.0;
    assert!((-0.05..0.02).contains(&off), "{limit:?} of {capacity}");
    assert_eq!(plan.checks.len(), 2);
    for check in &plan.checks {
        assert!(check.error.abs() < 0.05, "{check:?}");
    }
    // Machines, exactly: what the parameters and the true share while reloading lead to.
    let bought = plan.machines.as_ref().unwrap();
    assert_eq!(bought.reload_share, Some(0.55), "of 1 - {}", server.reload_busy);
    let counted = |each, reload_share| Counted {
        target: 900_000.0,
        attack: 3.0,
        down: 2,
        each,
        reload_share,
        why: Vec::new(),
    };
    let known = machines(&counted(capacity, Some(0.55))).unwrap();
    assert_eq!(bought.count, known.count, "{}", bought.words);
    // 2.7 M/s at 710 k/s each: (4 - 1 + 0.55) do not suffice, (5 - 1 + 0.55) do; 2 are down.
    assert_eq!(bought.count, 7, "{}", bought.words);
    // So many cores were measured: the lesser of prediction and measurement counts, and is said.
    let lesser = limit.rate.unwrap().min(plan.checks[0].measured.median);
    assert_eq!(bought.each, lesser, "{}", bought.words);
    assert!(bought.words.contains("the lesser counts"), "{}", bought.words);
    assert_eq!(plan.core_range, None);
    // Memory.
    let memory = plan.memory.as_ref().unwrap();
    assert!((memory.base_mib - 20.0).abs() < 0.1, "{memory:?}");
    assert!((memory.record_octets - 64.0).abs() < 0.1, "{memory:?}");
    assert!((memory.reload_factor - 2.5).abs() < 0.01, "{memory:?}");
    assert!(runs.len() > 100 && notes.len() > 3);
}

#[test]
fn threads_that_take_turns_cost_more() {
    // Half and half a third more than its classes: without that, predictions would be too high.
    let mut server = ModelServer { switching_us: 6.0, ..ModelServer::new() };
    server.full_us = vec![4.0, 14.0];
    server.waking_us = vec![3.0, 8.0];
    let mut task = with_shares(task(&[1]), &[("hit", 0.9), ("tcp", 0.1)]);
    task.reloads = false;
    let Made { plan, runs, notes, .. } = planned(&mut server, &task);
    assert!(runs.iter().any(|run| run.label.starts_with("together")));
    assert!((plan.switching_us.unwrap() / 6.0 - 1.0).abs() < 0.1, "{:?}", plan.switching_us);
    let capacity = server.capacity(&[0.9, 0.1], 1, 0.0);
    assert!((plan.limits[0].rate.unwrap() / capacity - 1.0).abs() < 0.05, "{:?}", plan.limits[0]);
    for check in &plan.checks {
        assert!(check.error.abs() < 0.05, "{check:?}");
    }
    assert!(notes.iter().any(|note| note.contains("take turns")), "{notes:?}");
    // Those of one group are answered by the same threads.
    let task = with_shares(task, &[("hit", 1.0)]);
    let Made { plan, runs, .. } = planned(&mut server, &task);
    assert!(plan.switching_us.is_none() && runs.iter().all(|run| run.label.starts_with("class ")));
}

#[test]
fn transfers_take_their_part() {
    let mut server = ModelServer::new();
    let mut task = task(&[1]);
    task.settings.transfers = 10.0;
    task.reloads = false;
    let Made { plan, notes, .. } = planned(&mut server, &task);
    let own: Vec<f64> = task.classes.iter().map(|class| class.share).collect();
    let capacity = server.capacity(&own, 1, 0.2);
    let core = plan.limits.iter().find(|limit| limit.what == "core").unwrap();
    assert!((core.rate.unwrap() / capacity - 1.0).abs() < 0.05, "{core:?} of {capacity}");
    for check in &plan.checks {
        assert!(check.error.abs() < 0.05, "{check:?}");
    }
    let transfer = plan.classes.last().unwrap();
    assert_eq!((transfer.per_second, transfer.octet_ns), (Some(10.0), Some(2.0)));
    // One number of cores: nothing is assumed about more.
    assert!(notes.iter().any(|note| note.contains("1 core only")), "{notes:?}");
    let more = Task { machine_cores: Some(8), ..task };
    let (made, error) = faulty(&mut server, &more);
    assert!(error.contains("8 cores") && error.contains("--cores-max"), "{error}");
    assert_eq!(made.plan.checks.len(), 2);
}

#[test]
fn a_generator_that_is_the_limit_is_not_taken_for_the_server() {
    let mut server = ModelServer::new();
    // Below what the two cheap classes reach, above the dear ones.
    server.ceiling = 150_000.0;
    let mut task = task(&[1]);
    task.reloads = false;
    let Made { plan, notes, .. } = planned(&mut server, &task);
    assert_eq!(plan.classes[0].knee_busy, None);
    assert!(plan.classes[2].knee_busy.is_some());
    // No rate is not a rate of zero.
    let cheap = &plan.classes[0];
    assert!(cheap.rate.each.is_empty(), "{cheap:?}");
    assert!(cheap.rate_at_least.is_some_and(|rate| rate > 100_000.0 && rate <= 150_000.0));
    assert_eq!(plan.classes[2].rate_at_least, None);
    let table = ring53_bench::report::tables::classes(&plan).text();
    assert!(table.contains("at least 1") && !table.contains(" 0/s"), "{table}");
    assert!(notes.iter().any(|note| note.contains("hit: one core carries at least")), "{notes:?}");
    let own: Vec<f64> = task.classes.iter().map(|class| class.share).collect();
    let capacity = server.capacity(&own, 1, 0.0);
    let core = plan.limits.iter().find(|limit| limit.what == "core").unwrap();
    assert!((core.rate.unwrap() / capacity - 1.0).abs() < 0.08, "{core:?} of {capacity}");

    server.ceiling = 30_000.0;
    let (_, error) = faulty(&mut server, &task);
    assert!(error.contains("the generator is the limit"), "{error}");
}

#[test]
fn what_never_holds_the_bounds_is_said_beside_what_was_measured() {
    let mut server = ModelServer::new();
    server.full_us = vec![5000.0; 4];
    let (made, error) = faulty(&mut server, &task(&[1]));
    assert!(error.contains("--slo"), "{error}");
    assert!(made.notes.iter().any(|note| note.contains("hold at no rate")), "{:?}", made.notes);
    // One class only: the others are measured and known.
    let mut server = ModelServer::new();
    server.full_us[3] = 5000.0;
    let (made, error) = faulty(&mut server, &Task { reloads: false, ..task(&[1]) });
    assert!(error.contains("class tcp"), "{error}");
    let known = |at: usize| !made.plan.classes[at].rate.each.is_empty();
    assert_eq!([0, 1, 2, 3].map(known), [true, true, true, false]);
    let core = made.plan.limits.iter().find(|limit| limit.what == "core").unwrap();
    assert_eq!(core.rate, None);
    let table = ring53_bench::report::tables::classes(&made.plan).text();
    assert!(table.contains("unknown") && !table.contains(" 0/s"), "{table}");
}

#[test]
fn what_goes_wrong_late_loses_nothing() {
    // Memory cannot be measured: the rest is there.
    let mut server = ModelServer { no_memory: true, ..ModelServer::new() };
    let Made { plan, notes, .. } = planned(&mut server, &task(&[1]));
    assert!(plan.memory.is_none() && plan.machines.is_some());
    assert!(notes.iter().any(|note| note.contains("memory was not measured: no such file")));
    // The server ends in the last reload: it counts as not measured.
    let loads = planned(&mut ModelServer::new(), &task(&[1])).runs.len() as u32;
    let mut server = ModelServer { loads_max: loads - 1, ..ModelServer::new() };
    let Made { plan, runs, notes, .. } = planned(&mut server, &task(&[1]));
    assert_eq!(runs.len() as u32, loads - 1);
    assert_eq!(plan.machines.unwrap().reload_share, None);
    assert!(notes.iter().any(|note| note.contains("a reload was not measured")), "{notes:?}");
    // It ends in the second round, or in the first load of the second class, or before all.
    let mut server = ModelServer { loads_max: loads * 2 / 3, ..ModelServer::new() };
    let made = make(&mut server, &task(&[1]), &mut |_| ()).unwrap();
    assert!(made.fault.unwrap().contains("ended early: the server has ended"));
    assert!(made.plan.machines.is_some() && made.plan.checks.len() == 2);
    let mut server = ModelServer { loads_max: 5, ..ModelServer::new() };
    let (made, error) = faulty(&mut server, &task(&[1]));
    assert!(error.contains("ended early") && made.runs.len() == 5, "{error}");
    let mut server = ModelServer { loads_max: 0, ..ModelServer::new() };
    assert!(make(&mut server, &task(&[1]), &mut |_| ()).is_err());
}

#[test]
fn one_class_is_no_mix_and_is_not_checked() {
    let mut server = ModelServer::new();
    let task = Task { reloads: false, ..with_shares(task(&[1]), &[("signed", 1.0)]) };
    let Made { plan, runs, notes, .. } = planned(&mut server, &task);
    assert!(plan.check.is_none() && plan.checks.is_empty());
    assert!(notes.iter().any(|note| note.contains("is not checked")), "{notes:?}");
    assert!(runs.iter().all(|run| run.label.starts_with("class ")));
    // What was measured of the class is the measurement of the mix.
    let bought = plan.machines.unwrap();
    let core = plan.limits.iter().find(|limit| limit.what == "core").unwrap();
    assert_eq!(bought.each, core.rate.unwrap().min(plan.classes[0].rate.median));
}

#[test]
fn more_cores_than_were_measured_have_a_range_and_a_margin() {
    let mut server = ModelServer::new();
    let task = Task { machine_cores: Some(8), reloads: false, ..task(&[1, 2, 4]) };
    let Made { plan, .. } = planned(&mut server, &task);
    let own: Vec<f64> = task.classes.iter().map(|class| class.share).collect();
    let capacity = server.capacity(&own, 8, 0.0);
    let [low, high] = plan.core_range.unwrap();
    assert!(low < high && low < capacity && capacity * 0.95 < high, "{low} {high} {capacity}");
    let core = plan.limits.iter().find(|limit| limit.what == "core").unwrap();
    assert!((low..=high).contains(&core.rate.unwrap()) && core.note.contains("standard errors"));
    let worst = plan.checks.iter().map(|check| check.error).fold(0.0, f64::max);
    let bought = plan.machines.unwrap();
    assert!((bought.each / (low / (1.0 + worst)) - 1.0).abs() < 1e-9, "{bought:?}");
    assert!(bought.each < capacity && bought.words.contains("when checked"), "{}", bought.words);
}

#[test]
fn an_attack_has_its_own_mix() {
    let plain = with_shares(task(&[1]), &[("hit", 1.0), ("signed", 0.0)]);
    let plain = Task { reloads: false, ..plain };
    let same = planned(&mut ModelServer::new(), &plain).plan;
    let mut task = plain.clone();
    let wanted = task.wanted.as_mut().unwrap();
    (wanted.attack_shares, wanted.caveat) = (Some(vec![0.0, 1.0]), Some("A bound only".into()));
    let Made { plan, notes, .. } = planned(&mut ModelServer::new(), &task);
    // One of three is the traffic's, two are the attack's.
    let mut server = ModelServer::new();
    let capacity = server.capacity(&[1.0 / 3.0, 2.0 / 3.0], 1, 0.0);
    let (bought, more) = (plan.machines.unwrap(), same.machines.unwrap());
    assert!((bought.each / capacity - 1.0).abs() < 0.08, "{} of {capacity}", bought.each);
    assert!(bought.count > more.count && more.each > bought.each * 1.1, "{bought:?} {more:?}");
    let mix = "attacked: hit 33.3 %, signed 66.7 %";
    assert!(bought.words.contains(mix) && bought.words.ends_with("A bound only."), "{bought:?}");
    assert!(notes.iter().any(|note| note.contains(mix)), "{notes:?}");
    assert!(plan.checks.iter().any(|check| check.mix == mix), "{:?}", plan.checks);
    // Without an attack there is only the traffic.
    task.wanted.as_mut().unwrap().attack = 1.0;
    let alone = planned(&mut server, &task).plan.machines.unwrap();
    assert!((alone.each / more.each - 1.0).abs() < 0.05, "{alone:?} {more:?}");
}
