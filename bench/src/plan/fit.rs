//! What the runs say: costs by class, and how rates grow with cores. Pure.
//!
//! ```text
//!   busy = sum of (rate of a class x its core time)     core time = full + waking x (1 - busy)
//!   a mix of several groups costs more: + switching x alternation x busy
//! ```
//!
//! A server that takes what has arrived in one turn pays for waking up only when it was idle: at
//! low load once an answer, near saturation never. So the core time of an answer falls on a
//! straight line from `full + waking` on an idle core to `full` on a busy one, and all runs, of one
//! class or of several, are linear in the same few unknowns.
//!
//! Classes of one group are answered by the same threads. Threads of several groups take turns on a
//! busy core, have smaller batches for it, and find their data out of its caches: by the chance
//! that two moments of the core's time belong to different groups.

use crate::report::model::Scaling;

//----------- Least squares --------------------------------------------------

/// The `x` with the least weighted sum of squares of `rows x - values`; `None` if the rows do not
/// determine it.
pub fn least_squares(rows: &[Vec<f64>], values: &[f64], weights: &[f64]) -> Option<Vec<f64>> {
    let columns = rows.first()?.len();
    // Columns of one length each: what is tiny beside its column is nothing.
    let norm = |column: usize| {
        let sum: f64 = rows.iter().zip(weights).map(|(row, w)| w * row[column] * row[column]).sum();
        sum.sqrt()
    };
    let norms: Vec<f64> = (0..columns).map(norm).collect();
    if norms.iter().any(|norm| !norm.is_finite() || *norm <= 0.0) {
        return None;
    }
    let mut system = vec![vec![0.0; columns + 1]; columns];
    for ((row, value), weight) in rows.iter().zip(values).zip(weights) {
        for a in 0..columns {
            let scaled = weight * row[a] / norms[a];
            for b in 0..columns {
                system[a][b] += scaled * row[b] / norms[b];
            }
            system[a][columns] += scaled * value;
        }
    }
    let solved = eliminate(system)?;
    Some(solved.iter().zip(&norms).map(|(x, norm)| x / norm).collect())
}

/// Gaussian elimination with pivoting of a square system with its values behind each row.
fn eliminate(mut system: Vec<Vec<f64>>) -> Option<Vec<f64>> {
    /// Below this share of a column's length, what is left of it is rounding.
    const PIVOT_MIN: f64 = 1e-9;
    let size = system.len();
    for column in 0..size {
        let size_at = |row: &usize| system[*row][column].abs();
        let pivot = (column..size).max_by(|a, b| size_at(a).total_cmp(&size_at(b)))?;
        if system[pivot][column].abs() < PIVOT_MIN {
            return None;
        }
        system.swap(column, pivot);
        let lead = system[column].clone();
        for (row, entries) in system.iter_mut().enumerate() {
            if row != column {
                let factor = entries[column] / lead[column];
                entries.iter_mut().zip(&lead).for_each(|(entry, lead)| *entry -= factor * lead);
            }
        }
    }
    Some((0..size).map(|row| system[row][size] / system[row][row]).collect())
}

/// The solution with no negative value: unknowns that would be negative are left out (zero), the
/// most negative first. The first `kept` unknowns are never left out.
fn not_negative(
    rows: &[Vec<f64>],
    values: &[f64],
    weights: &[f64],
    kept: usize,
    dropped: &mut Vec<usize>,
) -> Option<Vec<f64>> {
    let columns = rows.first()?.len();
    loop {
        let used: Vec<usize> = (0..columns).filter(|at| !dropped.contains(at)).collect();
        let part: Vec<Vec<f64>> =
            rows.iter().map(|row| used.iter().map(|&at| row[at]).collect()).collect();
        let solved = least_squares(&part, values, weights)?;
        let worst = (0..used.len())
            .filter(|&at| used[at] >= kept && solved[at] < 0.0)
            .min_by(|&a, &b| solved[a].total_cmp(&solved[b]));
        let Some(worst) = worst else {
            let mut whole = vec![0.0; columns];
            used.iter().zip(solved).for_each(|(&at, value)| whole[at] = value);
            return Some(whole);
        };
        dropped.push(used[worst]);
    }
}

//----------- Costs ----------------------------------------------------------

/// A run as the fit sees it: what one server core did.
#[derive(Clone, Debug, PartialEq)]
pub struct CostPoint {
    /// The shares of the classes; their sum is 1.
    pub shares: Vec<f64>,
    /// Answers a second of one core.
    pub rate: f64,
    /// Share of that core's time that was used, from 0 to 1.
    pub busy: f64,
}

/// Core time by class, in microseconds per answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Costs {
    /// On a core that is never idle.
    pub full: Vec<f64>,
    /// How much more on a core that is always idle.
    pub waking: Vec<f64>,
    /// The group of each class.
    pub groups: Vec<usize>,
    /// How much more of any class on a busy core that goes from group to group all the time; `None`
    /// if no mix of several groups says so.
    pub switching: Option<f64>,
    /// Root mean square of the runs' relative deviations from the fit.
    pub deviation: f64,
    /// Runs that were fitted.
    pub runs: usize,
    /// What could not be known, or was assumed.
    pub notes: Vec<String>,
}

impl Costs {
    /// Microseconds of core time of a mean answer of a mix, on a core that is so busy.
    pub fn core_us(&self, shares: &[f64], busy: f64) -> f64 {
        let idle = 1.0 - busy;
        let each = shares.iter().zip(self.full.iter().zip(&self.waking));
        let alone: f64 = each.map(|(share, (full, waking))| share * (full + waking * idle)).sum();
        alone + self.switching.unwrap_or(0.0) * self.alternation(shares) * busy
    }

    /// The chance that two moments of a busy core's time belong to different groups.
    pub fn alternation(&self, shares: &[f64]) -> f64 {
        let mut of_groups = vec![0.0; self.groups.iter().max().map_or(0, |most| most + 1)];
        for ((share, full), &group) in shares.iter().zip(&self.full).zip(&self.groups) {
            of_groups[group] += share * full;
        }
        let whole: f64 = of_groups.iter().sum();
        if whole <= 0.0 {
            return 0.0;
        }
        1.0 - of_groups.iter().map(|part| (part / whole).powi(2)).sum::<f64>()
    }

    /// The rate of a mix at which a core is so busy.
    pub fn rate(&self, shares: &[f64], busy: f64) -> f64 {
        busy * 1e6 / self.core_us(shares, busy)
    }

    /// How busy a mix makes a core at a rate; past 1 it is more than the core has.
    pub fn busy(&self, shares: &[f64], rate: f64) -> f64 {
        let falls = rate * (self.core_us(shares, 0.0) - self.core_us(shares, 1.0)) / 1e6;
        rate * self.core_us(shares, 0.0) / 1e6 / (1.0 + falls)
    }
}

/// Fits costs to runs. Classes of one entry in `groups` share what waking costs: it is paid by the
/// batch, and a batch has its threads, not its class. Runs of one group say what its classes cost,
/// runs of several what switching between them does.
///
/// Deviations count relative to the core time of the run, and those far from the others less
/// (Huber's weights): a neighbour on the machine spoils runs, not the fit.
pub fn costs(points: &[CostPoint], groups: &[usize]) -> Result<Costs, String> {
    const ROUNDS: usize = 20;
    let classes = groups.len();
    let usable = |point: &&CostPoint| point.rate > 0.0 && point.busy > 0.0;
    let (mixed, points): (Vec<&CostPoint>, Vec<&CostPoint>) =
        points.iter().filter(usable).partition(|point| is_mixed(&point.shares, groups));
    let group_count = groups.iter().max().map_or(0, |most| most + 1);
    let mut notes = Vec::new();
    let mut dropped = Vec::new();
    for group in (0..group_count).filter(|&group| !says_waking(&points, group, groups)) {
        dropped.push(classes + group);
        notes.push(format!(
            "core time at other loads than those measured is not known for {}: the loads were too \
             close to each other, and it is taken as constant",
            names_of(group, groups)
        ));
    }
    let unknown_before = dropped.len();
    let row = |point: &&CostPoint| {
        let mut row = vec![0.0; classes + group_count];
        for (class, &share) in point.shares.iter().enumerate() {
            row[class] = share;
            row[classes + groups[class]] += share * (1.0 - point.busy);
        }
        row
    };
    let rows: Vec<Vec<f64>> = points.iter().map(row).collect();
    let values: Vec<f64> = points.iter().map(|point| point.busy * 1e6 / point.rate).collect();
    let plain: Vec<f64> = values.iter().map(|value| value.powi(-2)).collect();
    let fit_error = || {
        let missing = (0..classes).find(|&class| rows.iter().all(|row| row[class] == 0.0));
        match missing {
            Some(class) => format!("class {class} has no run: its cost cannot be known"),
            None => "the runs do not tell the classes apart: run each by itself".to_string(),
        }
    };
    let (mut weights, mut solved) = (plain.clone(), None);
    let mut deviations = Vec::new();
    for _ in 0..ROUNDS {
        let x =
            not_negative(&rows, &values, &weights, classes, &mut dropped).ok_or_else(fit_error)?;
        let fitted = |row: &Vec<f64>| -> f64 { row.iter().zip(&x).map(|(a, b)| a * b).sum() };
        deviations =
            rows.iter().zip(&values).map(|(row, value)| fitted(row) / value - 1.0).collect();
        weights = plain.iter().zip(huber(&deviations)).map(|(a, b)| a * b).collect();
        solved = Some(x);
    }
    let x = solved.ok_or_else(fit_error)?;
    if let Some(class) = (0..classes).find(|&class| x[class] <= 0.0) {
        return Err(format!("class {class} would cost nothing: the runs contradict each other"));
    }
    for &at in &dropped[unknown_before..] {
        let group = names_of(at - classes, groups);
        notes.push(format!("an answer was no cheaper under load for {group}: taken as constant"));
    }
    let mut costs = Costs {
        full: x[..classes].to_vec(),
        waking: groups.iter().map(|&group| x[classes + group]).collect(),
        groups: groups.to_vec(),
        runs: points.len() + mixed.len(),
        notes,
        ..Costs::default()
    };
    costs.switching = switching(&costs, &mixed);
    deviations.extend(mixed.iter().map(|point| {
        costs.core_us(&point.shares, point.busy) * point.rate / (point.busy * 1e6) - 1.0
    }));
    let square: f64 = deviations.iter().map(|deviation| deviation * deviation).sum();
    costs.deviation = (square / deviations.len().max(1) as f64).sqrt();
    Ok(costs)
}

/// Whether classes of more than one group have a share.
pub fn is_mixed(shares: &[f64], groups: &[usize]) -> bool {
    let mut used = groups.iter().zip(shares).filter(|(_, share)| **share > 0.0);
    let first = used.next().map(|(group, _)| group);
    used.any(|(group, _)| Some(group) != first)
}

/// What mixes cost beyond what their classes do, for each part of alternation and busy share; never
/// less than nothing.
fn switching(costs: &Costs, mixed: &[&CostPoint]) -> Option<f64> {
    /// On a core that is idle half of the time nobody takes turns.
    const BUSY_MIN: f64 = 0.5;
    let of = |point: &&CostPoint| {
        let more = point.busy * 1e6 / point.rate - costs.core_us(&point.shares, point.busy);
        more / (costs.alternation(&point.shares) * point.busy)
    };
    let busy = mixed.iter().filter(|point| point.busy >= BUSY_MIN);
    let mut each: Vec<f64> = busy.map(of).filter(|more| more.is_finite()).collect();
    each.sort_by(f64::total_cmp);
    // The median: a spoiled run moves nothing.
    each.get(each.len() / 2).map(|more| more.max(0.0))
}

/// Whether the loads of a group differ enough to tell waking from answering.
fn says_waking(points: &[&CostPoint], group: usize, groups: &[usize]) -> bool {
    const BUSY_SPREAD_MIN: f64 = 0.15;
    let mine = |point: &&&CostPoint| {
        groups.iter().zip(&point.shares).any(|(&of, &share)| of == group && share > 0.5)
    };
    let busy = points.iter().filter(mine).map(|point| point.busy);
    let (low, high) = busy.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), busy| {
        (low.min(busy), high.max(busy))
    });
    high - low >= BUSY_SPREAD_MIN
}

/// The classes of a group, by number; whoever knows their names replaces `class N`.
fn names_of(group: usize, groups: &[usize]) -> String {
    let classes = groups.iter().enumerate().filter(|(_, of)| **of == group);
    classes.map(|(class, _)| format!("class {class}")).collect::<Vec<_>>().join(", ")
}

/// Huber's weights: 1 up to one and a half times the usual deviation, less beyond.
fn huber(deviations: &[f64]) -> Vec<f64> {
    let mut sizes: Vec<f64> = deviations.iter().map(|deviation| deviation.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    let median = sizes.get(sizes.len() / 2).copied().unwrap_or_default();
    // 1.4826 medians of a normal distribution's deviations are its standard deviation.
    let bound = (1.5 * 1.4826 * median).max(1e-12);
    deviations.iter().map(|deviation| (bound / deviation.abs().max(bound)).min(1.0)).collect()
}

//----------- The Universal Scalability Law ----------------------------------

/// Fits the law to cores and rates, by linear regression of `n / rate` over `n - 1` and `n (n - 1)`
/// with relative weights; contention and coherence are never negative.
pub fn scaling(points: &[(u32, f64)]) -> Result<Scaling, String> {
    let usable = |point: &&(u32, f64)| point.0 > 0 && point.1 > 0.0 && point.1.is_finite();
    let points: Vec<(u32, f64)> = points.iter().filter(usable).copied().collect();
    let mut distinct: Vec<u32> = points.iter().map(|point| point.0).collect();
    distinct.sort_unstable();
    distinct.dedup();
    let note = match distinct.len() {
        0 => return Err("no rate was measured: nothing can be said about cores".into()),
        1 => Some(format!(
            "measured with {} only: what more cores carry is not known, and not assumed",
            cores_text(distinct[0])
        )),
        2 => Some(format!(
            "measured with {} and {}: contention is fitted, coherence cannot be told from it and \
             is not known; nothing is said about more cores",
            distinct[0],
            cores_text(distinct[1])
        )),
        _ => None,
    };
    let row = |&(cores, _): &(u32, f64)| {
        let n = f64::from(cores);
        let mut row = vec![1.0, n - 1.0, n * (n - 1.0)];
        row.truncate(distinct.len().min(3));
        row
    };
    let mut rows: Vec<Vec<f64>> = points.iter().map(row).collect();
    let values: Vec<f64> = points.iter().map(|&(n, rate)| f64::from(n) / rate).collect();
    let weights: Vec<f64> = values.iter().map(|value| value.powi(-2)).collect();
    if distinct.len() == 1 {
        // Without a second number of cores the law is a straight line through what was measured.
        rows = vec![vec![1.0]; points.len()];
    }
    let mut dropped = Vec::new();
    let x = not_negative(&rows, &values, &weights, 1, &mut dropped)
        .filter(|x| x[0] > 0.0)
        .ok_or("the rates over cores contradict each other: measure longer")?;
    let of = |at: usize| x.get(at).map_or(0.0, |value| value / x[0]);
    Ok(Scaling { points, lambda: 1.0 / x[0], sigma: of(1), kappa: of(2), note })
}

/// `1 core`, `4 cores`.
pub fn cores_text(cores: u32) -> String {
    if cores == 1 { "1 core".into() } else { format!("{cores} cores") }
}

/// The most cores about which a scaling says something: what was measured, or four times that once
/// all of the law is fitted.
pub fn cores_known(scaling: &Scaling) -> u32 {
    let most = scaling.points.iter().map(|point| point.0).max().unwrap_or_default();
    if scaling.note.is_some() { most } else { most * 4 }
}

/// The standard error of what `cores` make of core time (1: nothing), by the jackknife: the law is
/// fitted again without each of its points.
pub fn stretch_error(whole: &Scaling, cores: u32) -> f64 {
    let n = f64::from(cores);
    let stretch = |scaling: &Scaling| n * scaling.lambda / scaling.rate(n);
    let known = stretch(whole);
    let without = |at: usize| {
        let mut points = whole.points.clone();
        points.remove(at);
        scaling(&points).ok().map(|scaling| stretch(&scaling) - known)
    };
    let count = whole.points.len() as f64;
    let square: f64 = (0..whole.points.len()).filter_map(without).map(|off| off * off).sum();
    (square * (count - 1.0).max(0.0) / count.max(1.0)).sqrt()
}

//----------- Lines ----------------------------------------------------------

/// A straight line through points: what is there at zero, and how much more for each.
pub fn line(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let rows: Vec<Vec<f64>> = points.iter().map(|point| vec![1.0, point.0]).collect();
    let values: Vec<f64> = points.iter().map(|point| point.1).collect();
    let solved = least_squares(&rows, &values, &vec![1.0; points.len()])?;
    Some((solved[0], solved[1]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zones::queries::Random;

    /// From -1 to 1.
    fn noise(random: &mut Random) -> f64 {
        random.below(1 << 40) as f64 / f64::from(1 << 20) / f64::from(1 << 19) - 1.0
    }

    /// Runs of classes with these costs, five at each of four loads, busy shares off by up to
    /// `share_of_noise`.
    fn runs(full: &[f64], waking: &[f64], share_of_noise: f64) -> Vec<CostPoint> {
        let mut random = Random::new(53);
        let truth = Costs { full: full.to_vec(), waking: waking.to_vec(), ..Costs::default() };
        let mut points = Vec::new();
        for class in 0..full.len() {
            for busy in [0.2, 0.5, 0.8, 0.95].repeat(5) {
                let mut shares = vec![0.0; full.len()];
                shares[class] = 1.0;
                let rate = truth.rate(&shares, busy);
                let busy = busy * (1.0 + share_of_noise * noise(&mut random));
                points.push(CostPoint { shares, rate, busy });
            }
        }
        points
    }

    #[test]
    fn costs_are_found_again() {
        let (full, waking) = ([3.0, 4.5, 12.0], [2.0, 2.0, 9.0]);
        let exact = costs(&runs(&full, &waking, 0.0), &[0, 0, 1]).unwrap();
        let off = |found: &[f64], known: &[f64]| -> f64 {
            found
                .iter()
                .zip(known)
                .map(|(found, known)| (found / known - 1.0).abs())
                .fold(0.0, f64::max)
        };
        assert!(off(&exact.full, &full) < 1e-6 && off(&exact.waking, &waking) < 1e-6, "{exact:?}");
        assert!(exact.notes.is_empty() && exact.deviation < 1e-6);
        let noisy = costs(&runs(&full, &waking, 0.05), &[0, 0, 1]).unwrap();
        assert!(off(&noisy.full, &full) < 0.06, "{noisy:?}");
        // Rate and busy share are each other's inverse.
        let shares = [0.5, 0.3, 0.2];
        for busy in [0.1, 0.5, 0.9, 1.0] {
            let rate = exact.rate(&shares, busy);
            assert!((exact.busy(&shares, rate) - busy).abs() < 1e-9);
        }
        // More load is never less busy, and never dearer.
        let busy: Vec<f64> = (1..50).map(|at| exact.busy(&shares, f64::from(at) * 5e3)).collect();
        assert!(busy.is_sorted());
        assert!(exact.core_us(&shares, 0.9) < exact.core_us(&shares, 0.1));
    }

    #[test]
    fn a_spoiled_run_moves_little() {
        let mut points = runs(&[3.0, 6.0], &[2.0, 2.0], 0.01);
        points[1].busy = (points[1].busy * 1.8).min(1.0);
        let found = costs(&points, &[0, 0]).unwrap();
        assert!((found.full[0] / 3.0 - 1.0).abs() < 0.06, "{found:?}");
        assert!((found.full[1] / 6.0 - 1.0).abs() < 0.04, "{found:?}");
    }

    #[test]
    fn what_runs_do_not_say_is_not_made_up() {
        // One load only: waking cannot be told from answering.
        let mut points = runs(&[3.0], &[2.0], 0.0);
        points.truncate(1);
        let found = costs(&points, &[0]).unwrap();
        assert_eq!(found.waking, [0.0]);
        assert!((found.full[0] - 4.6).abs() < 1e-9 && found.notes[0].contains("class 0"));
        // Dearer under load: constant, and said.
        let point = |rate: f64, busy: f64| CostPoint { shares: vec![1.0], rate, busy };
        let found = costs(&[point(1e5, 0.3), point(2e5, 0.9)], &[0]).unwrap();
        assert_eq!(found.waking, [0.0]);
        assert!(found.notes[0].contains("no cheaper"), "{found:?}");
        // Nothing at all, a class without a run, two classes always in one ratio.
        assert!(costs(&[], &[0]).is_err());
        let one = CostPoint { shares: vec![1.0, 0.0], rate: 1e5, busy: 0.4 };
        assert!(costs(&[one], &[0, 0]).unwrap_err().contains("class 1 has no run"));
        let both = |rate: f64| CostPoint { shares: vec![0.5, 0.5], rate, busy: rate / 2e5 };
        assert!(costs(&[both(5e4), both(1e5)], &[0, 0]).unwrap_err().contains("by itself"));
    }

    fn law(lambda: f64, sigma: f64, kappa: f64, cores: &[u32]) -> Vec<(u32, f64)> {
        let scaling = Scaling { lambda, sigma, kappa, ..Scaling::default() };
        cores.iter().map(|&n| (n, scaling.rate(f64::from(n)))).collect()
    }

    #[test]
    fn the_law_is_found_again() {
        let points = law(2e5, 0.04, 0.001, &[1, 2, 4, 8, 16]);
        let found = scaling(&points).unwrap();
        assert!((found.lambda / 2e5 - 1.0).abs() < 1e-9);
        assert!((found.sigma - 0.04).abs() < 1e-9 && (found.kappa - 0.001).abs() < 1e-9);
        assert_eq!((found.note.as_deref(), cores_known(&found)), (None, 64));

        let mut random = Random::new(7);
        let noisy: Vec<(u32, f64)> = [points.clone(), points.clone(), points]
            .concat()
            .into_iter()
            .map(|(n, rate)| (n, rate * (1.0 + 0.03 * noise(&mut random))))
            .collect();
        let found = scaling(&noisy).unwrap();
        let truth = law(2e5, 0.04, 0.001, &[12])[0].1;
        assert!((found.rate(12.0) / truth - 1.0).abs() < 0.04, "{found:?}");
    }

    #[test]
    fn the_error_of_more_cores_covers_the_truth() {
        assert!(stretch_error(&scaling(&law(2e5, 0.04, 0.001, &[1, 2, 4])).unwrap(), 4) < 0.3);
        let (truth, mut covered, mut wide) = (1.0 + 0.04 * 15.0 + 0.001 * 240.0, 0, 0);
        let mut random = Random::new(11);
        for _ in 0..100 {
            let points = law(2e5, 0.04, 0.001, &[1, 1, 1, 2, 2, 2, 4, 4, 4]);
            let noisy: Vec<(u32, f64)> = points
                .into_iter()
                .map(|(n, rate)| (n, rate * (1.0 + 0.01 * noise(&mut random))))
                .collect();
            let found = scaling(&noisy).unwrap();
            let (off, error) =
                (16.0 * found.lambda / found.rate(16.0) - truth, stretch_error(&found, 16));
            covered += u32::from(off.abs() <= 2.0 * error);
            wide += u32::from(error > truth);
        }
        assert!(covered >= 80 && wide < 10, "{covered} {wide}");
    }

    #[test]
    fn few_points_say_what_they_cannot() {
        assert!(scaling(&[]).is_err());
        assert!(scaling(&[(0, 5.0), (2, f64::NAN)]).is_err());
        let one = scaling(&[(1, 1e5), (1, 1.1e5)]).unwrap();
        assert!((one.lambda / 1.045e5 - 1.0).abs() < 0.01, "{one:?}");
        assert!(one.note.as_ref().unwrap().contains("1 core only") && cores_known(&one) == 1);
        let two = scaling(&law(1e5, 0.1, 0.0, &[1, 2])).unwrap();
        assert!((two.sigma - 0.1).abs() < 1e-9 && two.kappa == 0.0 && cores_known(&two) == 2);
        assert!(two.note.unwrap().contains("coherence"));
        // Better than linear: no contention rather than a negative one.
        let better = scaling(&[(1, 1e5), (2, 2.1e5), (4, 4.4e5)]).unwrap();
        assert!(better.sigma == 0.0 && better.kappa == 0.0, "{better:?}");
        assert!(better.lambda > 1e5 && better.lambda < 1.1e5);
    }

    #[test]
    fn a_line_is_found_or_not() {
        let (base, slope) = line(&[(0.0, 5.0), (10.0, 25.0), (20.0, 45.0)]).unwrap();
        assert!((base - 5.0).abs() < 1e-9 && (slope - 2.0).abs() < 1e-9);
        assert_eq!(line(&[(3.0, 5.0), (3.0, 6.0)]), None);
        assert_eq!(line(&[]), None);
    }
}
