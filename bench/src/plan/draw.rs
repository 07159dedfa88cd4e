//! The plan itself: measures, fits, predicts, and says what was assumed.

use std::io;

use crate::report::model::{Check, Class, Estimate, Limit, Memory, Plan, Run, Scaling};

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
    /// The server cores of the machine to buy; `None`: as many as were measured.
    pub machine_cores: Option<u32>,
    /// Answers a second that are wanted, how many times that when attacked, machines down.
    pub target: Option<(f64, f64, u32)>,
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
}

/// The mixes that are predicted and compared: the traffic's own and a random one.
pub fn mixes(task: &Task) -> Vec<Mix> {
    let own: Vec<f64> = task.classes.iter().map(|class| class.share).collect();
    let random = random_shares(own.len(), task.settings.seed);
    let named = |title: &str, shares: Vec<f64>| {
        let parts = task.classes.iter().zip(&shares);
        let parts: Vec<String> =
            parts.map(|(class, share)| format!("{} {:.1} %", class.name, share * 100.0)).collect();
        Mix { name: format!("{title}: {}", parts.join(", ")), shares }
    };
    vec![named("own", own), named("random", random)]
}

//----------- Making it ------------------------------------------------------

/// Measures and plans.
pub fn make(lab: &mut dyn Lab, task: &Task, say: &mut dyn FnMut(&str)) -> io::Result<Made> {
    let settings = &task.settings;
    let mixes = mixes(task);
    let groups = groups(task);
    let mut measured = measure(lab, &groups, &mixes, settings, say)?;
    let model = Model::fit(&measured.classes, &measured.points, measured.transfers)
        .map_err(io::Error::other)?;
    let own = &mixes[0];
    let measured_cores = settings.cores.last().copied().unwrap_or(1);
    let cores = task.machine_cores.unwrap_or(measured_cores);
    let predicted = model.predict(&own.shares, cores).map_err(io::Error::other)?;
    let checks = checks(&model, &mixes, &measured, measured_cores)?;
    let (mut memory, mut reload) = (None, None);
    if task.reloads {
        let points = lab.memory()?;
        match limits::memory(&points, task.machine_mib) {
            Ok(fitted) => memory = Some(fitted),
            Err(why) => measured.notes.push(why),
        }
        let on = model.predict(&own.shares, measured_cores).map_err(io::Error::other)?;
        let share = reload_share(lab, own, measured_cores, on.rate, settings, &mut measured, say)?;
        reload = Some(share);
    }
    let wires = wires(task, &measured);
    let mut limits = task.surroundings.limits(&own.shares, &wires, measured.transfers);
    limits.push(core_limit(&model, &predicted, cores));
    limits.push(memory_limit(task, memory.as_ref()));
    limits::sort(&mut limits);
    let each = limits.first().and_then(|limit| limit.rate).unwrap_or_default();
    let mut plan = Plan {
        classes: classes(task, &model, &measured, &wires),
        scaling: model.scaling(&own.shares).ok(),
        limits,
        memory,
        check: checks.first().cloned(),
        checks,
        cores,
        knee_busy: model.knee_busy(&own.shares).ok(),
        deviation: Some(model.costs.deviation),
        ..Plan::default()
    };
    let mut notes = notes(&model, &measured, plan.scaling.as_ref(), settings);
    if let Some((target, attack, down)) = task.target {
        match limits::machines(target, attack, down, each, reload) {
            Ok(machines) => plan.machines = Some(machines),
            Err(why) => notes.push(why),
        }
    }
    Ok(Made { plan, runs: measured.runs, notes })
}

/// Names of the classes with the group of each: its transport.
fn groups(task: &Task) -> Vec<(String, usize)> {
    let mut seen = Vec::new();
    let group = |transport| match seen.iter().position(|known| *known == transport) {
        Some(at) => at,
        None => {
            seen.push(transport);
            seen.len() - 1
        }
    };
    let groups: Vec<usize> =
        task.classes.iter().map(|class| class.wire.transport).map(group).collect();
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

fn checks(model: &Model, mixes: &[Mix], measured: &Measured, cores: u32) -> io::Result<Vec<Check>> {
    let mut checks = Vec::new();
    for (mix, knees) in mixes.iter().zip(&measured.mixes) {
        let predicted = model.predict(&mix.shares, cores).map_err(io::Error::other)?.rate;
        if knees.is_empty() {
            continue;
        }
        let measured = Estimate::of(knees);
        let error = (predicted - measured.median) / measured.median;
        checks.push(Check { mix: mix.name.clone(), predicted, measured, error });
    }
    Ok(checks)
}

fn core_limit(model: &Model, predicted: &Predicted, cores: u32) -> Limit {
    let Predicted { rate, core_us, busy } = *predicted;
    let taken = model.transfers.map_or(String::new(), |transfers| {
        format!(
            " after {:.3} of one core for {} transfers/s",
            transfers.busy(),
            transfers.per_second
        )
    });
    let note = format!(
        "{} x {busy:.2} busy at the knee{taken} / {core_us:.2} us of core time an answer",
        cores_text(cores)
    );
    Limit { what: "core".into(), rate: Some(rate), note }
}

fn memory_limit(task: &Task, memory: Option<&Memory>) -> Limit {
    match memory {
        Some(memory) => limits::memory_limit(memory, task.records, task.machine_mib),
        None => Limit {
            what: "memory".into(),
            rate: None,
            note: "not known: it was not measured (--no-reloads), or does not grow with zones"
                .into(),
        },
    }
}

fn classes(task: &Task, model: &Model, measured: &Measured, wires: &[ClassWire]) -> Vec<Class> {
    let mut classes: Vec<Class> = Vec::new();
    for (at, class) in task.classes.iter().enumerate() {
        let fit = &model.classes[at];
        let rate = fit.knee.clone().unwrap_or_default();
        classes.push(Class {
            name: class.name.clone(),
            share: class.share,
            core_us: Estimate::of(&measured.core_us[at]),
            rate,
            query_octets: wires[at].query_octets,
            answer_octets: wires[at].answer_octets,
            full_us: Some(model.costs.full[at]),
            waking_us: Some(model.costs.waking[at]),
            knee_busy: fit.knee_busy,
            scaling: fit.scaling.clone(),
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
    settings: &Settings,
) -> Vec<String> {
    let mut notes = vec![
        format!(
            "bounds: {}; each class and mix was measured {} times in turn",
            settings.bounds, settings.rounds
        ),
        format!(
            "core time of an answer = full + waking x idle share of its core, by class and by \
             transport, fitted to {} runs by least squares of relative deviations (Huber's \
             weights); they deviate by {:.1} % (root mean square)",
            model.costs.runs,
            model.costs.deviation * 100.0
        ),
        "the busy share at the knee of a mix is the mean of its classes', weighted by their core \
         time; the mixes of the checks were not fitted"
            .into(),
    ];
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
    notes.push("an attack is counted as more of the same mix".into());
    notes
}
