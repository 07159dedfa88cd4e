//! The plan itself: measures, fits, predicts, and says what was assumed.

use std::io;

use crate::report::model::{Check, Class, Estimate, Limit, Machines, Memory, Plan, Run, Scaling};

use super::campaign::{Measured, Mix, Settings, measure, reload_share};
use super::fit::{cores_known, cores_text};
use super::lab::Lab;
use super::limits::{self, ClassWire, Surroundings};
use super::predict::{Model, Predicted, random_shares};

//----------- What is asked --------------------------------------------------

/// One class that the traffic has.
#[derive(Clone, Debug)]
pub struct ClassTask {
    /// Its name.
    pub name: String,
    /// Its share of the traffic.
    pub share: f64,
    /// Whether the server asks others for its answers, which is the work of other threads.
    pub asks_others: bool,
    /// Its octets, as far as they are known before, and its transport.
    pub wire: ClassWire,
}

/// What a plan is made for.
#[derive(Clone, Debug)]
pub struct Task {
    /// The traffic.
    pub classes: Vec<ClassTask>,
    /// How it is measured.
    pub settings: Settings,
    /// The machine around its cores.
    pub surroundings: Surroundings,
    /// Memory of the machine.
    pub machine_mib: f64,
    /// Records of the zone that is served.
    pub records: u64,
    /// Whether memory and reloads are measured.
    pub reloads: bool,
    /// Whether the server has a zone: without one there is nothing of both.
    pub serves: bool,
    /// The server cores of the machine to buy; `None`: as many as were measured.
    pub machine_cores: Option<u32>,
    /// What machines are bought for.
    pub wanted: Option<Wanted>,
}

impl Task {
    /// Whether there is memory of zones, and a reload, to be measured.
    fn measures_zones(&self) -> bool {
        self.reloads && self.serves
    }

    /// What is carried through a reload as far as that is known before: who has no zone reads none
    /// again, and loses nothing.
    fn reload_share(&self) -> Option<f64> {
        (!self.serves).then_some(1.0)
    }
}

/// What machines are bought for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Answers a second.
    pub target: f64,
    /// How many times that comes in when attacked, the wanted traffic included; 1 or more.
    pub attack: f64,
    /// The shares of the classes in what an attack adds; `None`: it is more of the same mix.
    pub attack_shares: Option<Vec<f64>>,
    /// Machines that may be down.
    pub down: u32,
    /// What makes their number a bound only.
    pub caveat: Option<String>,
}

/// What a plan came to.
#[derive(Clone, Debug)]
pub struct Made {
    /// The plan.
    pub plan: Plan,
    /// All loads.
    pub runs: Vec<Run>,
    /// What was assumed, and what went wrong.
    pub notes: Vec<String>,
    /// Why this is not all that was asked for; what was measured is here all the same.
    pub fault: Option<String>,
}

fn named(task: &Task, title: &str, shares: Vec<f64>) -> Mix {
    let parts = task.classes.iter().zip(&shares).filter(|(_, share)| **share > 0.0);
    let parts: Vec<String> =
        parts.map(|(class, share)| format!("{} {:.1} %", class.name, share * 100.0)).collect();
    Mix { name: format!("{title}: {}", parts.join(", ")), shares }
}

/// The traffic's own mix.
pub fn own(task: &Task) -> Mix {
    named(task, "own", task.classes.iter().map(|class| class.share).collect())
}

/// What comes in when attacked: the traffic and what the attack adds to it.
fn attacked(task: &Task) -> Option<Mix> {
    let wanted = task.wanted.as_ref()?;
    let added = wanted.attack_shares.as_ref()?;
    let part = 1.0 / wanted.attack.max(1.0);
    let both = task.classes.iter().zip(added);
    let shares = both.map(|(class, added)| class.share * part + added * (1.0 - part)).collect();
    Some(named(task, "attacked", shares))
}

/// The mixes that are predicted and compared: the traffic's own, a random one, and what comes in
/// when attacked. A mix of one class was measured as that class, and shows nothing unless transfers
/// go on beside it.
pub fn mixes(task: &Task) -> Vec<Mix> {
    let random = random_shares(task.classes.len(), task.settings.seed);
    let all = [Some(own(task)), Some(named(task, "random", random)), attacked(task)];
    let unseen = |mix: &Mix| {
        task.settings.transfers > 0.0 || mix.shares.iter().filter(|share| **share > 0.0).count() > 1
    };
    let mut mixes: Vec<Mix> = Vec::new();
    for mix in all.into_iter().flatten().filter(unseen) {
        if mixes.iter().all(|known| known.shares != mix.shares) {
            mixes.push(mix);
        }
    }
    mixes
}

//----------- Making it ------------------------------------------------------

/// Measures and plans. What goes wrong after the first load is in the notes and in `Made::fault`,
/// beside what was measured.
pub fn make(lab: &mut dyn Lab, task: &Task, say: &mut dyn FnMut(&str)) -> io::Result<Made> {
    let settings = &task.settings;
    let mixes = mixes(task);
    let mut measured = measure(lab, &groups(task), &mixes, settings, say)?;
    let mut fault = measured.fault.take();
    let model = match fitted(&measured) {
        Ok(model) => model,
        Err(why) => return Ok(unfitted(task, measured, fault.take(), why)),
    };
    let own = own(task);
    let measured_cores = settings.cores.last().copied().unwrap_or(1);
    let cores = task.machine_cores.unwrap_or(measured_cores);
    let mut keep = |found: Result<Predicted, String>| match found {
        Ok(found) => Some(found),
        Err(why) => {
            fault.get_or_insert(why);
            None
        }
    };
    // A cost that was asked for and is not known must not count as none.
    let known = settings.transfers == 0.0 || model.transfers.is_some();
    let carried = known.then_some(&own.shares);
    let predicted = carried.and_then(|shares| keep(model.predict(shares, cores)));
    let on = carried.and_then(|shares| keep(model.predict(shares, measured_cores)));
    let checks = if known { checks(&model, &mixes, &measured, measured_cores) } else { Vec::new() };
    let memory = task.measures_zones().then(|| memory(lab, task, &mut measured)).flatten();
    let mut reload = task.reload_share();
    if let (true, Some(on)) = (task.measures_zones(), on) {
        match reload_share(lab, &own, measured_cores, on.rate, settings, &mut measured, say) {
            Ok(share) => reload = Some(share),
            Err(why) => measured.notes.push(format!("a reload was not measured: {why}")),
        }
    }
    let wires = wires(task, &measured);
    let around = |shares: &[f64]| {
        let mut limits = task.surroundings.limits(shares, &wires, measured.transfers);
        limits.push(memory_limit(task, memory.as_ref()));
        limits
    };
    let mut limits = around(&own.shares);
    limits.push(core_limit(&model, &own, predicted.as_ref(), cores));
    limits::sort(&mut limits);
    let mut plan = Plan {
        classes: classes(task, Some(&model), &measured, &wires),
        scaling: model.scaling(&own.shares).ok(),
        limits,
        memory: memory.clone(),
        check: checks.first().cloned(),
        checks,
        cores,
        core_range: predicted.and_then(|_| model.range(&own.shares, cores)).map(Into::into),
        knee_busy: model.knee_busy(&own.shares).ok(),
        deviation: Some(model.costs.deviation),
        switching_us: model.costs.switching,
        ..Plan::default()
    };
    let mut notes = notes(&model, &measured, plan.scaling.as_ref(), task, plan.checks.is_empty());
    if let (Some(wanted), Some(_)) = (&task.wanted, predicted) {
        let mix = attacked(task).unwrap_or_else(|| own.clone());
        let margin = Margin { model: &model, measured: &measured, plan: &plan, measured_cores };
        let lowest = around(&mix.shares).iter().filter_map(|limit| limit.rate).reduce(f64::min);
        match margin.buy(wanted, &mix, cores, lowest, reload) {
            Ok(machines) => plan.machines = Some(machines),
            Err(why) => fault = fault.or(Some(why)),
        }
    }
    notes.extend(fault.clone());
    Ok(Made { plan, runs: measured.runs, notes, fault })
}

/// What the loads that are for fitting say.
fn fitted(measured: &Measured) -> Result<Model, String> {
    let Measured { classes, points, together, transfers, .. } = measured;
    Model::fit(classes, points, together, *transfers)
}

/// Measures memory; what stands in the way is a note.
fn memory(lab: &mut dyn Lab, task: &Task, measured: &mut Measured) -> Option<Memory> {
    let points = match lab.memory() {
        Ok(points) => points,
        Err(error) => {
            measured.notes.push(format!("memory was not measured: {error}"));
            return None;
        }
    };
    limits::memory(&points, task.machine_mib).map_err(|why| measured.notes.push(why)).ok()
}

/// What there is without a fit: the classes as they were measured.
fn unfitted(task: &Task, mut measured: Measured, fault: Option<String>, why: String) -> Made {
    let fault = fault.into_iter().chain([why]).collect::<Vec<_>>().join("; ");
    let wires = wires(task, &measured);
    let classes = classes(task, None, &measured, &wires);
    let mut notes = std::mem::take(&mut measured.notes);
    notes.push(fault.clone());
    let plan = Plan { classes, ..Plan::default() };
    Made { plan, runs: measured.runs, notes, fault: Some(fault) }
}

//----------- Margin ---------------------------------------------------------

/// What the plan is counted on for, given how far its predictions were off.
struct Margin<'a> {
    model: &'a Model,
    measured: &'a Measured,
    plan: &'a Plan,
    measured_cores: u32,
}

impl Margin<'_> {
    /// What the cores of one machine are counted on to carry of a mix, and why.
    fn each(&self, mix: &Mix, cores: u32) -> Result<(f64, Vec<String>), String> {
        let predicted = self.model.predict(&mix.shares, cores)?.rate;
        let mut why = vec![format!("Counted for the mix {}", mix.name)];
        if let Some(measured) = self.measured(mix, cores) {
            why.push(format!(
                "Its cores carry {predicted:.0}/s by the prediction and {measured:.0}/s as \
                 measured: the lesser counts"
            ));
            return Ok((predicted.min(measured), why));
        }
        let (rate, of) = match self.model.range(&mix.shares, cores) {
            Some((low, high)) => {
                why.push(format!(
                    "{} were not measured: {predicted:.0}/s by the law, {low:.0} to {high:.0}/s \
                     within two standard errors; the lowest counts",
                    cores_text(cores)
                ));
                (low, "that")
            }
            None => (predicted, "the prediction"),
        };
        let checks = &self.plan.checks;
        let worst = checks.iter().map(|check| check.error).reduce(f64::max);
        why.push(match worst {
            Some(worst) if worst > 0.0 => format!(
                "Predictions were up to {:.1} % too high when checked: {of}, {rate:.0}/s, is taken \
                 as {:.0}/s",
                worst * 100.0,
                rate / (1.0 + worst)
            ),
            Some(_) => "No prediction was too high when checked: no margin is taken".into(),
            None => "No prediction could be checked: the margin is not known, none is taken".into(),
        });
        Ok((rate / (1.0 + worst.unwrap_or(0.0).max(0.0)), why))
    }

    /// The machines for what is wanted, of which each carries no more than `lowest`.
    fn buy(
        &self,
        wanted: &Wanted,
        mix: &Mix,
        cores: u32,
        lowest: Option<f64>,
        reload_share: Option<f64>,
    ) -> Result<Machines, String> {
        let (rate, mut why) = self.each(mix, cores)?;
        why.extend(wanted.caveat.clone());
        limits::machines(&limits::Counted {
            target: wanted.target,
            attack: wanted.attack,
            down: wanted.down,
            each: lowest.map_or(rate, |lowest| lowest.min(rate)),
            reload_share,
            why,
        })
    }

    /// The median of what was measured of a mix on so many cores: as itself, or as its only class.
    fn measured(&self, mix: &Mix, cores: u32) -> Option<f64> {
        if let Some(check) = self.plan.checks.iter().find(|check| check.mix == mix.name) {
            return (cores == self.measured_cores).then_some(check.measured.median);
        }
        let class = mix.shares.iter().position(|share| *share >= 1.0)?;
        let knees = self.measured.classes[class].knees.iter().filter(|knee| knee.0 == cores);
        let knees: Vec<f64> = knees.map(|knee| knee.1).collect();
        let alone = self.model.transfers.is_none() && !knees.is_empty();
        alone.then(|| Estimate::of(&knees).median)
    }
}

//----------- Parts of it ----------------------------------------------------

/// Names of the classes with the group of each: its transport, and whether others are asked.
fn groups(task: &Task) -> Vec<(String, usize)> {
    let mut seen = Vec::new();
    let group = |class: &ClassTask| {
        let threads = (class.wire.transport, class.asks_others);
        match seen.iter().position(|known| *known == threads) {
            Some(at) => at,
            None => {
                seen.push(threads);
                seen.len() - 1
            }
        }
    };
    let groups: Vec<usize> = task.classes.iter().map(group).collect();
    task.classes.iter().map(|class| class.name.clone()).zip(groups).collect()
}

fn wires(task: &Task, measured: &Measured) -> Vec<ClassWire> {
    let classes = task.classes.iter().zip(&measured.answer_octets);
    classes
        .map(|(class, &octets)| {
            let answer_octets = if octets > 0.0 { octets } else { class.wire.answer_octets };
            ClassWire { answer_octets, ..class.wire }
        })
        .collect()
}

fn checks(model: &Model, mixes: &[Mix], measured: &Measured, cores: u32) -> Vec<Check> {
    let mut checks = Vec::new();
    for (mix, knees) in mixes.iter().zip(&measured.mixes).filter(|(_, knees)| !knees.is_empty()) {
        let Ok(Predicted { rate: predicted, .. }) = model.predict(&mix.shares, cores) else {
            continue;
        };
        let measured = Estimate::of(knees);
        let error = (predicted - measured.median) / measured.median;
        checks.push(Check { mix: mix.name.clone(), predicted, measured, error });
    }
    checks
}

fn core_limit(model: &Model, own: &Mix, predicted: Option<&Predicted>, cores: u32) -> Limit {
    let what = "core".to_string();
    let Some(&Predicted { rate, core_us, busy }) = predicted else {
        let note = "not known: nothing could be predicted; the notes say why".into();
        return Limit { what, rate: None, note };
    };
    let taken = model.transfers.map_or(String::new(), |transfers| {
        format!(
            " after {:.3} of one core for {} transfers/s",
            transfers.busy(),
            transfers.per_second
        )
    });
    let range = model.range(&own.shares, cores).map_or(String::new(), |(low, high)| {
        format!("; so many were not measured: {low:.0} to {high:.0}/s within two standard errors")
    });
    let note = format!(
        "{} x {busy:.2} busy at the knee{taken} / {core_us:.2} us of core time an answer{range}",
        cores_text(cores)
    );
    Limit { what, rate: Some(rate), note }
}

fn memory_limit(task: &Task, memory: Option<&Memory>) -> Limit {
    match memory {
        Some(memory) => limits::memory_limit(memory, task.records, task.machine_mib),
        None if !task.serves => Limit {
            what: "memory".into(),
            rate: None,
            note: "a cache has what it is given; the notes say what an answer takes".into(),
        },
        None => Limit {
            what: "memory".into(),
            rate: None,
            note: "not known: it was not measured (--no-reloads), or does not grow with zones"
                .into(),
        },
    }
}

fn classes(
    task: &Task,
    model: Option<&Model>,
    measured: &Measured,
    wires: &[ClassWire],
) -> Vec<Class> {
    let mut classes: Vec<Class> = Vec::new();
    for (at, class) in task.classes.iter().enumerate() {
        let fit = model.map(|model| &model.classes[at]);
        let one_core = |rates: &[(u32, f64)]| -> Vec<f64> {
            rates.iter().filter(|rate| rate.0 == 1).map(|rate| rate.1).collect()
        };
        let rate = Estimate::of(&one_core(&measured.classes[at].knees));
        let held = one_core(&measured.classes[at].at_least).into_iter().reduce(f64::max);
        let rate_at_least = held.filter(|_| rate.each.is_empty());
        classes.push(Class {
            name: class.name.clone(),
            share: class.share,
            core_us: Estimate::of(&measured.core_us[at]),
            rate,
            query_octets: wires[at].query_octets,
            answer_octets: wires[at].answer_octets,
            rate_at_least,
            full_us: model.map(|model| model.costs.full[at]),
            waking_us: model.map(|model| model.costs.waking[at]),
            knee_busy: fit.and_then(|fit| fit.knee_busy),
            scaling: fit.and_then(|fit| fit.scaling.clone()),
            ..Class::default()
        });
    }
    if let Some(transfers) = measured.transfers {
        classes.push(Class {
            name: "transfer".into(),
            core_us: Estimate::of(&[transfers.core_us]),
            answer_octets: transfers.octets,
            per_second: Some(transfers.per_second),
            octet_ns: Some(transfers.core_us * 1e3 / transfers.octets.max(1.0)),
            ..Class::default()
        });
    }
    classes
}

fn notes(
    model: &Model,
    measured: &Measured,
    scaling: Option<&Scaling>,
    task: &Task,
    unchecked: bool,
) -> Vec<String> {
    let settings = &task.settings;
    let mut notes = vec![
        format!(
            "bounds: {}; each class and mix was measured {} times in turn",
            settings.bounds, settings.rounds
        ),
        format!(
            "core time of an answer = full + waking x idle share of its core, by class and by the \
             threads that answer, fitted to {} runs by least squares of relative deviations \
             (Huber's weights); they deviate by {:.1} % (root mean square)",
            model.costs.runs,
            model.costs.deviation * 100.0
        ),
        "the busy share at the knee of a mix is the mean of its classes', weighted by their core \
         time; the mixes of the checks were not fitted"
            .into(),
    ];
    if let (Some(together), Some(us)) = (measured.together.last(), model.costs.switching) {
        let alternation = model.costs.alternation(&together.shares);
        notes.push(format!(
            "classes that other threads answer take turns on a core: one mix, in which each of \
             these groups has an equal part of it, was measured for that ({}); an answer of it \
             costs {:.2} us more than by its classes on a busy core, which is {:.3} less busy at the knee",
            named(task, "together", together.shares.clone()).name,
            us * alternation,
            model.earlier * alternation,
        ));
    } else if groups(task).iter().any(|(_, group)| *group > 0) {
        notes.push(
            "what threads that take turns on a core cost each other is not known: no mix of all \
             classes could be measured, and predictions of mixes are too high by that"
                .into(),
        );
    }
    notes.extend(model.costs.notes.iter().cloned());
    notes.extend(model.notes.iter().cloned());
    notes.extend(measured.notes.iter().cloned());
    if let Some(scaling) = scaling {
        notes.push(match &scaling.note {
            Some(note) => format!("cores: {note}"),
            None => format!(
                "cores: Universal Scalability Law with contention {:.4} and coherence {:.6}; said \
                 of up to {}, four times what was measured",
                scaling.sigma,
                scaling.kappa,
                cores_text(cores_known(scaling))
            ),
        });
    }
    if settings.transfers > 0.0 {
        notes.push(
            "transfers go to the same cores, one after another; their core time is taken from each \
             core in equal parts"
                .into(),
        );
    }
    if mixes(task).is_empty() {
        notes.push(
            "one class makes no mix that was not measured: the prediction is not checked".into(),
        );
    } else if unchecked {
        notes.push("no mix could be measured and predicted: nothing is checked".into());
    }
    notes.push(match attacked(task) {
        Some(mix) => format!("what comes in when attacked, {}", mix.name),
        None => "an attack is counted as more of the same mix".into(),
    });
    notes
}
