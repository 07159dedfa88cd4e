//! Which loads are sent, in which order.
//!
//! ```text
//!   round ──> cores ──> each class: knee, then parts of it        ─┐ fitted
//!                  ├──> all groups of classes together: knee       ─┘
//!                  └──> each mix that is to be predicted: knee        compared, never fitted
//! ```
//!
//! Classes and mixes are measured in turn, round by round: a machine that drifts drifts for both.

use std::io;

use crate::find::Bounds;
use crate::report::model::Run;

use super::fit::{CostPoint, cores_text, is_mixed};
use super::lab::{Lab, Offer, Verdict, judge};
use super::predict::{ClassMeasured, Together, TransferCost};

/// How it is measured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Numbers of server cores, 1 among them, in ascending order.
    pub cores: Vec<u32>,
    /// How many times each is measured.
    pub rounds: u32,
    /// How long one load is.
    pub seconds: f64,
    /// The rate that the first search begins with.
    pub rate_start: f64,
    /// The highest rate that is tried.
    pub rate_max: f64,
    /// A knee is known when the rates that held and broke differ by this share.
    pub resolution: f64,
    /// What has to hold.
    pub bounds: Bounds,
    /// Transfers a second beside each mix.
    pub transfers: f64,
    /// Seed.
    pub seed: u64,
}

/// The loads at which core time is measured beside the search, as parts of the knee.
const LOADS: [f64; 3] = [0.25, 0.5, 0.75];

/// What the label of the mix of all groups begins with.
const TOGETHER: &str = "together";

/// A mix that is predicted and compared, not fitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    /// What it is.
    pub name: String,
    /// The shares of the classes; their sum is 1.
    pub shares: Vec<f64>,
}

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// By class.
    pub classes: Vec<ClassMeasured>,
    /// By class: microseconds of core time at half the knee, of each round.
    pub core_us: Vec<Vec<f64>>,
    /// By class: mean octets of an answer.
    pub answer_octets: Vec<f64>,
    /// For the fit of costs.
    pub points: Vec<CostPoint>,
    /// The mix of all groups of classes, of each round; none if there is one group.
    pub together: Vec<Together>,
    /// By mix: the knees of each round on the most cores.
    pub mixes: Vec<Vec<f64>>,
    /// What transfers cost.
    pub transfers: Option<TransferCost>,
    /// All loads, in order.
    pub runs: Vec<Run>,
    /// What went wrong on the way.
    pub notes: Vec<String>,
    /// What ended the measuring early; all else here was measured before.
    pub fault: Option<String>,
}

//----------- Search ---------------------------------------------------------

/// Where a search ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Knee {
    /// The highest rate that held.
    pub rate: f64,
    /// Whether a higher one broke; if not, the generator or the highest rate to be tried ended it.
    pub broke: bool,
}

/// Searches the highest rate that holds: up by `step`, then by halves. Most of two or three loads
/// decide about each rate, as in `find`.
pub fn search(
    mut probe: impl FnMut(f64) -> io::Result<Verdict>,
    start: f64,
    step: f64,
    settings: &Settings,
) -> io::Result<Option<Knee>> {
    const PROBES_MAX: usize = 30;
    const RATE_MIN: f64 = 10.0;
    let (mut held, mut broke) = (0.0_f64, f64::INFINITY);
    // Whether what ends the search is the server.
    let mut server = true;
    let mut rate = start.min(settings.rate_max);
    for _ in 0..PROBES_MAX {
        let verdict = decide(&mut probe, rate)?;
        match verdict {
            Verdict::Held => held = rate,
            ended => {
                broke = rate;
                server = ended == Verdict::Broke;
            }
        }
        if held >= settings.rate_max {
            return Ok(Some(Knee { rate: held, broke: false }));
        }
        if broke / held <= 1.0 + settings.resolution || broke < RATE_MIN {
            break;
        }
        rate = match (held > 0.0, broke.is_finite()) {
            (true, true) => (held * broke).sqrt(),
            (true, false) => (held * step).min(settings.rate_max),
            _ => broke / step.max(1.5),
        };
    }
    Ok((held > 0.0).then_some(Knee { rate: held, broke: server && broke.is_finite() }))
}

/// Asks twice, and a third time if the two disagree: one bad moment does not decide, nor does one
/// good one. What the generator spoils says nothing and is sent again, three times in turn.
fn decide(probe: &mut impl FnMut(f64) -> io::Result<Verdict>, rate: f64) -> io::Result<Verdict> {
    let (mut held, mut broke, mut spoilt) = (0, 0, 0);
    loop {
        match probe(rate)? {
            Verdict::Held => (held, spoilt) = (held + 1, 0),
            Verdict::Broke => (broke, spoilt) = (broke + 1, 0),
            Verdict::Generator => spoilt += 1,
        }
        match (held, broke, spoilt) {
            (2, _, _) => return Ok(Verdict::Held),
            (_, 2, _) => return Ok(Verdict::Broke),
            (_, _, 3) => return Ok(Verdict::Generator),
            _ => (),
        }
    }
}

//----------- Campaign -------------------------------------------------------

/// Measures; holds what every load has in common.
struct Campaign<'a> {
    lab: &'a mut dyn Lab,
    settings: &'a Settings,
    say: &'a mut dyn FnMut(&str),
    measured: Measured,
    seed: u64,
}

impl Campaign<'_> {
    fn send(&mut self, offer: &Offer) -> io::Result<Verdict> {
        let run = self.lab.run(offer)?;
        let verdict = judge(&self.settings.bounds, &run);
        let server = run.server.clone().unwrap_or_default();
        (self.say)(&format!(
            "{}: {:.0}/s on {}: {verdict:?}, p99 {:.0} us, p99.9 {:.0} us, loss {:.3} %, busy {:.2}",
            offer.label,
            offer.rate,
            cores_text(offer.cores),
            run.latency.p99,
            run.latency.p99_9,
            run.loss() * 100.0,
            server.busy,
        ));
        // What is lost costs time too, and nobody knows how much; so does a transfer. What is still
        // on its way at the end makes a queue, whose answers are others.
        const LOSS_MAX: f64 = 0.01;
        const QUEUED_MAX: f64 = 0.03;
        let fitted = offer.label.starts_with("class ") || offer.label.starts_with(TOGETHER);
        let plain = offer.transfers == 0.0 && !offer.reload && fitted;
        let queued = run.left_over() - run.latency.min / 1e6 / run.seconds.max(1e-9);
        let keeps_up = run.loss() <= LOSS_MAX && queued <= QUEUED_MAX;
        if plain && offer.cores == 1 && verdict != Verdict::Generator && keeps_up {
            let (shares, rate) = (offer.shares.clone(), run.goodput());
            self.measured.points.push(CostPoint { shares, rate, busy: server.busy });
        }
        self.measured.runs.push(run);
        Ok(verdict)
    }

    fn offer(&mut self, label: &str, shares: &[f64], cores: u32) -> Offer {
        self.seed += 1;
        Offer {
            label: label.into(),
            shares: shares.to_vec(),
            cores,
            rate: 0.0,
            seconds: self.settings.seconds,
            transfers: 0.0,
            reload: false,
            seed: self.settings.seed.wrapping_add(self.seed),
        }
    }

    /// The knee of a mix; `near` is what an earlier round found.
    fn knee(&mut self, base: &Offer, near: Option<f64>) -> io::Result<Option<Knee>> {
        let (start, step) = match near {
            Some(rate) => (rate * 0.9, 1.12),
            None => (self.settings.rate_start, 2.0),
        };
        let settings = self.settings;
        let mut offer = base.clone();
        let probe = |rate: f64| {
            offer.rate = rate;
            offer.seed = offer.seed.wrapping_add(0x1000);
            self.send(&offer)
        };
        search(probe, start, step, settings)
    }

    fn class(&mut self, class: usize, cores: u32) -> io::Result<()> {
        let mut shares = vec![0.0; self.measured.classes.len()];
        shares[class] = 1.0;
        let ClassMeasured { name, knees, .. } = &self.measured.classes[class];
        let label = format!("class {name}");
        // An earlier round knows better than fewer cores do.
        let same = knees.iter().rev().find(|knee| knee.0 == cores);
        let near = same.or(knees.last()).map(|knee| knee.1);
        let base = self.offer(&label, &shares, cores);
        let Some(knee) = self.knee(&base, near)? else {
            self.measured.notes.push(format!(
                "{label}: the bounds ({}) hold at no rate on {}: loosen --slo, or give the machine \
                 some rest",
                self.settings.bounds,
                cores_text(cores)
            ));
            return Ok(());
        };
        let list = &mut self.measured.classes[class];
        let list = if knee.broke { &mut list.knees } else { &mut list.at_least };
        list.push((cores, knee.rate));
        if cores > 1 {
            return Ok(());
        }
        for part in LOADS {
            let mut offer = self.offer(&label, &shares, 1);
            offer.rate = knee.rate * part;
            self.send(&offer)?;
            let run = self.measured.runs.last().cloned().unwrap_or_default();
            if part == 0.5 {
                self.measured.answer_octets[class] = run.answer_octets;
                self.measured.core_us[class].extend(run.server.map(|server| server.core_us));
            }
        }
        Ok(())
    }

    /// All groups of classes, each with an equal part of the core by what its classes carry alone.
    fn together(&mut self) -> io::Result<()> {
        let classes = &self.measured.classes;
        let carried = |class: &ClassMeasured| {
            let rates = class.knees.iter().chain(&class.at_least);
            rates.filter(|rate| rate.0 == 1).map(|rate| rate.1).next_back()
        };
        let Some(carried) = classes.iter().map(carried).collect::<Option<Vec<f64>>>() else {
            return Ok(());
        };
        let groups: Vec<usize> = classes.iter().map(|class| class.group).collect();
        let part = |at: usize| {
            let beside = groups.iter().filter(|group| **group == groups[at]).count();
            carried[at] / beside as f64
        };
        let weights: Vec<f64> = (0..classes.len()).map(part).collect();
        let sum: f64 = weights.iter().sum();
        let shares: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
        if !is_mixed(&shares, &groups) {
            return Ok(());
        }
        let count = groups.iter().max().map_or(1, |most| most + 1);
        let near = match self.measured.together.last() {
            Some(Together { knee: Some(knee), .. }) => *knee,
            // As much as if nothing was lost by taking turns, less what may be.
            _ => sum / count as f64 * 0.85,
        };
        let base = self.offer(TOGETHER, &shares, 1);
        let knee = self.knee(&base, Some(near))?.filter(|knee| knee.broke);
        self.measured.together.push(Together { shares, knee: knee.map(|knee| knee.rate) });
        Ok(())
    }

    /// Everything, round by round.
    fn all(&mut self, mixes: &[Mix]) -> io::Result<()> {
        let settings = self.settings;
        let most = settings.cores.last().copied().unwrap_or(1);
        for _ in 0..settings.rounds {
            for &cores in &settings.cores {
                for class in 0..self.measured.classes.len() {
                    self.class(class, cores)?;
                }
                if cores == 1 {
                    self.together()?;
                }
                if cores == most {
                    for (at, mix) in mixes.iter().enumerate() {
                        self.mix(at, mix, cores)?;
                    }
                }
            }
        }
        if settings.transfers > 0.0 {
            let cost = self.lab.transfers(settings.seconds)?;
            let per_second = settings.transfers;
            self.measured.transfers = Some(TransferCost { per_second, ..cost });
        }
        Ok(())
    }

    fn mix(&mut self, at: usize, mix: &Mix, cores: u32) -> io::Result<()> {
        let mut base = self.offer(&format!("mix {}", mix.name), &mix.shares, cores);
        base.transfers = self.settings.transfers;
        let near = self.measured.mixes[at].last().copied();
        match self.knee(&base, near)? {
            Some(knee) if knee.broke => self.measured.mixes[at].push(knee.rate),
            Some(knee) => self.measured.notes.push(format!(
                "mix {}: at least {:.0}/s; the generator can do no more, so that the prediction is \
                 not checked",
                mix.name, knee.rate
            )),
            None => {
                self.measured.notes.push(format!("mix {}: the bounds hold at no rate", mix.name));
            }
        }
        Ok(())
    }
}

/// Measures `classes` (names and groups) and, in turn with them, `mixes`. An error is one before
/// the first load; later ones are in `Measured::fault`, beside what was measured until then.
pub fn measure(
    lab: &mut dyn Lab,
    classes: &[(String, usize)],
    mixes: &[Mix],
    settings: &Settings,
    say: &mut dyn FnMut(&str),
) -> io::Result<Measured> {
    let named = |(name, group): &(String, usize)| ClassMeasured {
        name: name.clone(),
        group: *group,
        ..ClassMeasured::default()
    };
    let measured = Measured {
        classes: classes.iter().map(named).collect(),
        core_us: vec![Vec::new(); classes.len()],
        answer_octets: vec![0.0; classes.len()],
        mixes: vec![Vec::new(); mixes.len()],
        ..Measured::default()
    };
    let mut campaign = Campaign { lab, settings, say, measured, seed: 0 };
    if let Err(error) = campaign.all(mixes) {
        if campaign.measured.runs.is_empty() {
            return Err(error);
        }
        campaign.measured.fault = Some(format!("the measuring ended early: {error}"));
    }
    Ok(campaign.measured)
}

/// The share of `rate` at which the bounds hold while the server reads its zones again, in steps of
/// 15 of 100; 0 if they hold at none of them. The loads are added to `measured`.
pub fn reload_share(
    lab: &mut dyn Lab,
    mix: &Mix,
    cores: u32,
    rate: f64,
    settings: &Settings,
    measured: &mut Measured,
    say: &mut dyn FnMut(&str),
) -> io::Result<f64> {
    const SHARES: [f64; 6] = [1.0, 0.85, 0.7, 0.55, 0.4, 0.25];
    let mut campaign =
        Campaign { lab, settings, say, measured: std::mem::take(measured), seed: 1 << 20 };
    let mut offer = campaign.offer(&format!("reload {}", mix.name), &mix.shares, cores);
    offer.reload = true;
    offer.transfers = settings.transfers;
    let mut probe = |rate: f64| {
        offer.rate = rate;
        offer.seed = offer.seed.wrapping_add(0x1000);
        campaign.send(&offer)
    };
    let mut found = Ok(0.0);
    for share in SHARES {
        match decide(&mut probe, rate * share) {
            Ok(Verdict::Held) => found = Ok(share),
            Ok(_) => continue,
            Err(error) => found = Err(error),
        }
        break;
    }
    *measured = campaign.measured;
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            cores: vec![1],
            rounds: 1,
            seconds: 1.0,
            rate_start: 1000.0,
            rate_max: 1e6,
            resolution: 0.02,
            bounds: "p99<1ms,loss<1%".parse().unwrap(),
            transfers: 0.0,
            seed: 1,
        }
    }

    fn found(
        start: f64,
        step: f64,
        mut judge: impl FnMut(f64) -> Verdict,
    ) -> (Option<Knee>, usize) {
        let mut probes = 0;
        let probe = |rate: f64| {
            probes += 1;
            Ok(judge(rate))
        };
        let knee = search(probe, start, step, &settings()).unwrap();
        (knee, probes)
    }

    #[test]
    fn a_knee_is_found_from_below_and_from_above() {
        let at =
            |knee: f64| move |rate: f64| if rate <= knee { Verdict::Held } else { Verdict::Broke };
        for (start, step) in [(1000.0, 2.0), (110_000.0, 1.12), (900_000.0, 2.0)] {
            let (knee, probes) = found(start, step, at(123_456.0));
            let knee = knee.unwrap();
            assert!(knee.broke && knee.rate <= 123_456.0 && knee.rate > 123_456.0 / 1.021);
            assert!(probes < 40);
        }
        assert_eq!(found(1000.0, 2.0, |_| Verdict::Broke).0, None);
        let all = found(1000.0, 2.0, |_| Verdict::Held).0.unwrap();
        assert_eq!(all, Knee { rate: 1e6, broke: false });
    }

    #[test]
    fn two_of_three_loads_decide() {
        // Each third load is disturbed: the verdicts are those of the others.
        let mut loads = 0;
        let (knee, _) = found(50_000.0, 1.5, |rate| {
            loads += 1;
            if loads % 3 == 0 || rate > 80_000.0 { Verdict::Broke } else { Verdict::Held }
        });
        assert!((knee.unwrap().rate / 80_000.0 - 1.0).abs() < 0.021);
        // A rate that holds once in a while does not hold.
        let mut above = 0;
        let (knee, _) = found(50_000.0, 1.5, |rate| {
            above += usize::from(rate > 80_000.0);
            if rate > 80_000.0 && above % 3 != 2 { Verdict::Broke } else { Verdict::Held }
        });
        assert!((knee.unwrap().rate / 80_000.0 - 1.0).abs() < 0.021, "{knee:?}");
    }

    #[test]
    fn what_the_generator_spoils_is_sent_again_and_named() {
        let above = |rate: f64| if rate > 90_000.0 { Verdict::Generator } else { Verdict::Held };
        let (knee, _) = found(50_000.0, 1.5, above);
        assert!(!knee.unwrap().broke);
        let mut loads = 0;
        let (knee, _) = found(50_000.0, 1.5, |rate| {
            loads += 1;
            match rate {
                _ if loads % 2 == 0 => Verdict::Generator,
                rate if rate > 80_000.0 => Verdict::Broke,
                _ => Verdict::Held,
            }
        });
        assert!(knee.is_some_and(|knee| knee.broke), "{knee:?}");
    }
}
