//! What follows from the fits: rates of mixes that were never sent. Pure.
//!
//! ```text
//!   busy share at the knee (learned from the classes, weighted by core time) - transfers
//!   ------------------------------------------------------------------------------------- x cores
//!   sum of share x core time at that load x what more cores cost (its class's scaling)
//!   + switching between groups
//!
//!   a mix of several groups: both lines by its alternation, as one such mix was measured
//! ```

use crate::report::model::{Estimate, Scaling};

use super::fit::{self, CostPoint, Costs, cores_known, cores_text};

//----------- What was measured ----------------------------------------------

/// One class as it was measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassMeasured {
    /// Its name.
    pub name: String,
    /// Classes of one group are answered by the same threads, and share what waking costs.
    pub group: usize,
    /// Cores and the highest rates within the bounds, of each round.
    pub knees: Vec<(u32, f64)>,
    /// Rates that held, where the generator could do no more.
    pub at_least: Vec<(u32, f64)>,
}

/// A mix of all groups that was measured to see what they do to each other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Together {
    /// The shares of the classes; their sum is 1.
    pub shares: Vec<f64>,
    /// The highest rate of one core within the bounds; `None` if the generator could do no more.
    pub knee: Option<f64>,
}

/// The highest rate that held on so many cores, where the generator could do no more.
fn at_least(class: &ClassMeasured, cores: u32) -> Option<f64> {
    let rates = class.at_least.iter().filter(|knee| knee.0 == cores).map(|knee| knee.1);
    rates.reduce(f64::max)
}

/// What transfers cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TransferCost {
    /// How many are given in a second.
    pub per_second: f64,
    /// Core time of one, in microseconds.
    pub core_us: f64,
    /// Octets of one, length fields included.
    pub octets: f64,
}

impl TransferCost {
    /// Share of one core that they use.
    pub fn busy(&self) -> f64 {
        self.per_second * self.core_us / 1e6
    }
}

//----------- Model ----------------------------------------------------------

/// One class as it was fitted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassFit {
    /// Its name.
    pub name: String,
    /// The rate of one core within the bounds; `None` if the generator could not reach it.
    pub knee: Option<Estimate>,
    /// How busy a core is at that rate, by the fit. Past 1 where answers get cheaper still.
    pub knee_busy: Option<f64>,
    /// A rate of one core that held, where the generator could do no more.
    pub at_least: Option<f64>,
    /// How its rate grows with cores.
    pub scaling: Option<Scaling>,
}

impl ClassFit {
    /// Whether the bounds held at no rate.
    fn never_holds(&self) -> bool {
        self.knee.is_none() && self.at_least.is_none()
    }
}

/// The fits, ready to predict.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    /// By class.
    pub classes: Vec<ClassFit>,
    /// By class.
    pub costs: Costs,
    /// What transfers take from every mix.
    pub transfers: Option<TransferCost>,
    /// How much less busy a core is at the knee of a mix than at those of its classes, for each
    /// part of its alternation.
    pub earlier: f64,
    /// What could not be known, or was assumed.
    pub notes: Vec<String>,
}

/// A rate that was predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Predicted {
    /// Answers a second.
    pub rate: f64,
    /// Core time of a mean answer at that rate, in microseconds, the cost of more cores included.
    pub core_us: f64,
    /// How busy the cores may be.
    pub busy: f64,
}

impl Model {
    /// Fits all that was measured.
    pub fn fit(
        classes: &[ClassMeasured],
        points: &[CostPoint],
        together: &[Together],
        transfers: Option<TransferCost>,
    ) -> Result<Model, String> {
        let groups: Vec<usize> = classes.iter().map(|class| class.group).collect();
        let named = |text: String| {
            // From the last on, for `class 1` begins `class 10`.
            (0..classes.len())
                .rev()
                .fold(text, |text, at| text.replace(&format!("class {at}"), &classes[at].name))
        };
        let mut costs = fit::costs(points, &groups).map_err(named)?;
        costs.notes = costs.notes.drain(..).map(named).collect();
        let mut model = Model { costs, transfers, ..Model::default() };
        for (at, class) in classes.iter().enumerate() {
            let mut alone = vec![0.0; classes.len()];
            alone[at] = 1.0;
            let single: Vec<f64> =
                class.knees.iter().filter(|knee| knee.0 == 1).map(|knee| knee.1).collect();
            let knee = (!single.is_empty()).then(|| Estimate::of(&single));
            let at_least = at_least(class, 1);
            if let (None, Some(least)) = (&knee, at_least) {
                model.notes.push(format!(
                    "{}: one core carries at least {least:.0}/s within the bounds; the generator \
                     can do no more, so that the busy share at the knee is taken from the other \
                     classes",
                    class.name
                ));
            }
            let knee_busy = knee.as_ref().map(|knee| model.costs.busy(&alone, knee.median));
            let scaling = fit::scaling(&class.knees).ok();
            let name = class.name.clone();
            model.classes.push(ClassFit { name, knee, knee_busy, at_least, scaling });
        }
        model.earlier = model.earlier(together);
        Ok(model)
    }

    /// The median of what the knees of `together` say of `Model::earlier`.
    fn earlier(&self, together: &[Together]) -> f64 {
        let of = |Together { shares, knee }: &Together| {
            let busy = self.costs.busy(shares, (*knee)?);
            Some((self.classes_knee_busy(shares).ok()? - busy) / self.costs.alternation(shares))
        };
        let each: Vec<f64> = together.iter().filter_map(of).filter(|it| it.is_finite()).collect();
        if each.is_empty() { 0.0 } else { Estimate::of(&each).median }
    }

    /// How busy a core may be for the bounds to hold under a mix.
    pub fn knee_busy(&self, shares: &[f64]) -> Result<f64, String> {
        let classes = self.classes_knee_busy(shares)?;
        // Never nothing: so far from what was measured the line is only a line.
        Ok((classes - self.earlier * self.costs.alternation(shares)).max(0.1 * classes))
    }

    /// The classes' own busy shares, weighted by the core time that each has in the mix.
    fn classes_knee_busy(&self, shares: &[f64]) -> Result<f64, String> {
        let known: Vec<f64> = self.classes.iter().filter_map(|class| class.knee_busy).collect();
        if known.is_empty() {
            return Err(
                "no class was driven to its knee: the generator is the limit; give it more \
                        cores, or the server fewer"
                    .into(),
            );
        }
        let mean = known.iter().sum::<f64>() / known.len() as f64;
        let (mut sum, mut weight) = (0.0, 0.0);
        for (class, (share, full)) in self.classes.iter().zip(shares.iter().zip(&self.costs.full)) {
            sum += share * full * class.knee_busy.unwrap_or(mean);
            weight += share * full;
        }
        if weight > 0.0 { Ok(sum / weight) } else { Err("the mix has no query".into()) }
    }

    /// What more cores make of a class's core time: 1 for one core.
    fn stretch(&self, class: usize, cores: u32) -> Result<f64, String> {
        if cores == 1 {
            return Ok(1.0);
        }
        let ClassFit { name, scaling, .. } = &self.classes[class];
        let Some(scaling) = scaling.as_ref().filter(|scaling| cores <= cores_known(scaling)) else {
            return Err(format!(
                "{name}: nothing is known about {}: measure with more (--cores-max)",
                cores_text(cores)
            ));
        };
        Ok(f64::from(cores) * scaling.lambda / scaling.rate(f64::from(cores)))
    }

    /// The highest rate of a mix within the bounds, as far as cores are the limit.
    pub fn predict(&self, shares: &[f64], cores: u32) -> Result<Predicted, String> {
        let stretch = |class: usize| self.stretch(class, cores);
        self.predict_stretched(shares, cores, &stretch)
    }

    /// The rates between which that of a mix is on more cores than were measured, if the law holds:
    /// two standard errors of each class's scaling; `None` where cores were measured.
    pub fn range(&self, shares: &[f64], cores: u32) -> Option<(f64, f64)> {
        let rate = |sign: f64| {
            let stretch = |class: usize| {
                let known = self.stretch(class, cores)?;
                let scaling = self.classes[class].scaling.as_ref();
                let error = scaling.map_or(0.0, |scaling| fit::stretch_error(scaling, cores));
                // More cores never make an answer cheaper than one does.
                Ok((known + sign * 2.0 * error).max(1.0))
            };
            self.predict_stretched(shares, cores, &stretch).ok().map(|found| found.rate)
        };
        let used = self.classes.iter().zip(shares).filter(|(_, share)| **share > 0.0);
        let beyond = used.filter_map(|(class, _)| class.scaling.as_ref()).any(|scaling| {
            scaling.points.iter().map(|point| point.0).max().is_some_and(|most| cores > most)
        });
        if beyond { Some((rate(1.0)?, rate(-1.0)?)) } else { None }
    }

    fn predict_stretched(
        &self,
        shares: &[f64],
        cores: u32,
        stretch: &dyn Fn(usize) -> Result<f64, String>,
    ) -> Result<Predicted, String> {
        let used = self.classes.iter().zip(shares).filter(|(_, share)| **share > 0.0);
        if let Some((class, _)) = used.into_iter().find(|(class, _)| class.never_holds()) {
            return Err(format!(
                "class {} has no rate on 1 core (the bounds hold at no rate, or it was not \
                 measured), so that nothing can be said of a mix with it: loosen --slo, or give \
                 the machine some rest",
                class.name
            ));
        }
        let knee_busy = self.knee_busy(shares)?;
        let taken = self.transfers.map_or(0.0, |transfers| transfers.busy()) / f64::from(cores);
        let busy = knee_busy - taken;
        if busy <= 0.0 {
            return Err(format!(
                "the transfers alone use {taken:.2} of each core: no time is left for answers"
            ));
        }
        let (mut core_us, mut on_one) = (0.0, 0.0);
        for (class, &share) in shares.iter().enumerate() {
            if share > 0.0 {
                let idle = 1.0 - knee_busy;
                let alone = self.costs.full[class] + self.costs.waking[class] * idle;
                core_us += share * alone * stretch(class)?;
                on_one += share * alone;
            }
        }
        // More cores make switching as much dearer as the rest.
        core_us *= self.costs.core_us(shares, knee_busy) / on_one;
        Ok(Predicted { rate: f64::from(cores) * busy * 1e6 / core_us, core_us, busy })
    }

    /// How the rate of a mix grows with cores, by the measured ones of its classes.
    pub fn scaling(&self, shares: &[f64]) -> Result<Scaling, String> {
        let measured = |class: &ClassFit| -> Vec<u32> {
            let points = class.scaling.iter().flat_map(|scaling| &scaling.points);
            points.map(|point| point.0).collect()
        };
        let mut cores: Vec<u32> = self.classes.iter().flat_map(measured).collect();
        cores.sort_unstable();
        cores.dedup();
        let points: Vec<(u32, f64)> = cores
            .into_iter()
            .filter_map(|n| self.predict(shares, n).ok().map(|predicted| (n, predicted.rate)))
            .collect();
        fit::scaling(&points)
    }
}

/// A mix of classes drawn at random, evenly over all that there are: exponential weights.
pub fn random_shares(classes: usize, seed: u64) -> Vec<f64> {
    let mut random = crate::zones::queries::Random::new(seed);
    // The first values of this generator are close to its seed.
    for _ in 0..8 {
        random.below(2);
    }
    let mut uniform = || (random.below(1 << 53) as f64 + 0.5) / (1u64 << 53) as f64;
    let weights: Vec<f64> = (0..classes).map(|_| -uniform().ln()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two classes of 4 and 8 us without waking, which hold up to 0.9 and 0.8 of a core.
    fn model(transfers: Option<TransferCost>) -> Model {
        let class = |name: &str, knee: f64| ClassMeasured {
            name: name.into(),
            knees: vec![(1, knee), (2, knee * 2.0 / 1.1), (4, knee * 4.0 / 1.3)],
            ..ClassMeasured::default()
        };
        let point = |class: usize, us: f64, busy: f64| CostPoint {
            shares: vec![f64::from(class == 0), f64::from(class == 1)],
            rate: busy * 1e6 / us,
            busy,
        };
        let points =
            [point(0, 4.0, 0.2), point(0, 4.0, 0.8), point(1, 8.0, 0.2), point(1, 8.0, 0.8)];
        let classes = [class("a", 225_000.0), class("b", 100_000.0)];
        Model::fit(&classes, &points, &[], transfers).unwrap()
    }

    #[test]
    fn a_mix_costs_what_its_classes_cost() {
        let model = model(None);
        for (shares, busy) in [([1.0, 0.0], 0.9), ([0.0, 1.0], 0.8), ([0.5, 0.5], 0.8 + 0.1 / 3.0)]
        {
            let predicted = model.predict(&shares, 1).unwrap();
            let us = 4.0 * shares[0] + 8.0 * shares[1];
            assert!((predicted.busy - busy).abs() < 1e-9, "{predicted:?}");
            assert!((predicted.rate - busy * 1e6 / us).abs() < 1e-3, "{predicted:?}");
            let four = model.predict(&shares, 4).unwrap();
            assert!((four.rate / predicted.rate - 4.0 / 1.3).abs() < 1e-6, "{four:?}");
        }
        // The dearer the mix, the lower the rate.
        let rate = |share: f64| model.predict(&[1.0 - share, share], 1).unwrap().rate;
        let rates: Vec<f64> = (0..=20).map(|at| -rate(f64::from(at) / 20.0)).collect();
        assert!(rates.is_sorted());
        assert!(model.predict(&[1.0, 0.0], 17).unwrap_err().contains("17 cores"));
        let scaling = model.scaling(&[0.5, 0.5]).unwrap();
        assert!((scaling.sigma - 0.1).abs() < 1e-6 && scaling.kappa.abs() < 1e-6, "{scaling:?}");
    }

    #[test]
    fn transfers_come_first() {
        let cost = TransferCost { per_second: 9.0, core_us: 1e5, octets: 1e6 };
        let half = model(Some(TransferCost { per_second: 4.5, ..cost }));
        assert!((half.predict(&[1.0, 0.0], 1).unwrap().rate - 112_500.0).abs() < 1e-3);
        let error = model(Some(cost)).predict(&[1.0, 0.0], 1).unwrap_err();
        assert!(error.contains("transfers alone"), "{error}");
    }

    #[test]
    fn random_mixes_are_convex_and_differ() {
        let one = random_shares(4, 1);
        assert!((one.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(one.iter().all(|share| *share > 0.0));
        assert_eq!(one, random_shares(4, 1));
        assert_ne!(one, random_shares(4, 2));
        // Even over all mixes: each class has its part in the mean.
        let mean: f64 = (0..2000).map(|seed| random_shares(4, seed)[2]).sum::<f64>() / 2000.0;
        assert!((mean - 0.25).abs() < 0.02, "{mean}");
    }
}
