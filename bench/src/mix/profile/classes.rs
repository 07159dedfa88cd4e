//! Questions put into classes by how often and for how long they come, and what is kept of each.
//!
//! ```text
//!   count   1 | 2 | 3 | 4.. | 6.. | 8.. | 12.. | 16.. | x 1.41 ...
//!   life    all of the capture, a half, a quarter ... of it
//!
//!   a question   |....x..x.......x.....x..........|     start, life, the gaps in it
//! ```
//!
//! Of a question nothing is kept by itself, only distributions over a class. The gaps between two
//! times of the same question decide what a cache finds: how far they reach decides what has been
//! pushed out (with the number of other questions in between, which follows from all gaps), how
//! long they are decides what has expired. A replay that has each class's gaps has both.

use std::collections::BTreeMap;

use super::learn::Question;
use super::model::{Class, GAP_BINS, TypeShare, rounded};

/// From so many times on the gaps of a class are kept as they are.
pub const GAPS_KEPT_FROM: usize = 6;
const COUNT_STEPS: usize = 9;
const LIFE_STEPS: usize = 5;
const START_STEPS: usize = 9;
/// Halvings of the capture that lives are told apart by.
const HALVINGS_MAX: u32 = 20;

/// The bucket of a count.
fn count_bucket(count: usize) -> u32 {
    match count {
        0..=3 => count as u32,
        4..=5 => 4,
        6..=7 => 5,
        8..=11 => 6,
        12..=15 => 7,
        _ => (2.0 * (count as f64).log2()) as u32,
    }
}

#[derive(Default)]
struct Members {
    counts: Vec<f64>,
    lives: Vec<f64>,
    starts: Vec<f64>,
    gaps: Vec<f32>,
    /// Of the shares that gaps have of their lives: the sum of squares about the mean, and the
    /// counts of gaps it is over.
    spread: f64,
    spread_over: Vec<u16>,
    /// By place among the types that are kept: questions, of these NXDOMAIN, NODATA.
    types: Vec<[u64; 3]>,
}

/// The classes of `asked`, an order of numbers of `questions` that come `counts` times each. Types
/// are those of `kept`, the commonest first.
pub(super) fn of(
    asked: &[u32],
    counts: &[u32],
    questions: &[Question],
    kept: &[(u16, u64)],
) -> Vec<Class> {
    let mut classes: BTreeMap<(u32, u32), Members> = BTreeMap::new();
    let (positions, ends) = positions(asked, counts);
    let all = asked.len() as f64;
    let mut from = 0;
    for (question, &end) in questions.iter().zip(&ends) {
        let times = &positions[from..end];
        from = end;
        let [first, .., last] = *times else {
            let members = classes.entry((1, 0)).or_default();
            members.starts.push(f64::from(times[0]) / (all - 1.0).max(1.0));
            members.counts.push(1.0);
            members.lives.push(0.0);
            members.kind(question, kept);
            continue;
        };
        let life = f64::from(last - first);
        let halvings = ((all / life).log2() as u32).min(HALVINGS_MAX);
        let members = classes.entry((count_bucket(times.len()), halvings)).or_default();
        members.counts.push(times.len() as f64);
        members.lives.push(life / all);
        members.starts.push(f64::from(first) / (all - 1.0 - life).max(1.0));
        members.take_gaps(times, life);
        members.kind(question, kept);
    }
    classes.into_values().rev().map(|members| members.class(kept)).collect()
}

/// The positions of each question in turn, and where each one's end.
fn positions(asked: &[u32], counts: &[u32]) -> (Vec<u32>, Vec<usize>) {
    let mut ends = Vec::with_capacity(counts.len());
    let mut sum = 0;
    for &count in counts {
        ends.push(sum);
        sum += count as usize;
    }
    let mut positions = vec![0; asked.len()];
    for (position, &number) in asked.iter().enumerate() {
        let end = &mut ends[number as usize];
        positions[*end] = position as u32;
        *end += 1;
    }
    (positions, ends)
}

impl Members {
    fn take_gaps(&mut self, times: &[u32], life: f64) {
        let gaps = times.windows(2).map(|pair| f64::from(pair[1] - pair[0]));
        let count = (times.len() - 1) as f64;
        if times.len() >= GAPS_KEPT_FROM {
            self.gaps.extend(gaps.map(|gap| (gap * count / life) as f32));
        } else if times.len() > 2 {
            self.spread += gaps.map(|gap| (gap / life - 1.0 / count).powi(2)).sum::<f64>();
            self.spread_over.push(times.len() as u16 - 1);
        }
    }

    fn kind(&mut self, question: &Question, kept: &[(u16, u64)]) {
        self.types.resize(kept.len(), [0; 3]);
        if let Some(place) = kept.iter().position(|&(qtype, _)| qtype == question.qtype) {
            self.types[place][0] += 1;
            self.types[place][1] += u64::from(question.is_nxdomain());
            self.types[place][2] += u64::from(question.is_nodata());
        }
    }

    fn class(mut self, kept: &[(u16, u64)]) -> Class {
        let typed = self.types.iter().map(|[count, ..]| count).sum::<u64>();
        let share = |(&(qtype, _), &[count, nxdomain, nodata]): (&(u16, u64), &[u64; 3])| {
            (count > 0).then(|| TypeShare {
                r#type: qtype,
                share: rounded(count as f64 / typed as f64),
                nxdomain: rounded(nxdomain as f64 / count as f64),
                nodata: rounded(nodata as f64 / count as f64),
            })
        };
        let mut types: Vec<TypeShare> = kept.iter().zip(&self.types).filter_map(share).collect();
        if types.is_empty() {
            // Only types that are not kept: the commonest stands for them.
            types.push(TypeShare { r#type: kept[0].0, share: 1.0, nxdomain: 0.0, nodata: 0.0 });
        }
        Class {
            questions: self.counts.len() as u64,
            counts: steps(&mut self.counts, COUNT_STEPS),
            lives: quantiles(&mut self.lives, LIFE_STEPS),
            starts: quantiles(&mut self.starts, START_STEPS),
            gaps: gap_quantiles(&mut self.gaps),
            gap_shape: rounded(shape(self.spread, &self.spread_over)),
            types,
        }
    }
}

/// Means over even steps of numbers in their order; one if all are alike.
fn steps(numbers: &mut [f64], steps: usize) -> Vec<f64> {
    numbers.sort_unstable_by(f64::total_cmp);
    let count = if numbers[0] == numbers[numbers.len() - 1] { 1 } else { steps.min(numbers.len()) };
    let mean = |step: usize| {
        let part = &numbers[step * numbers.len() / count..(step + 1) * numbers.len() / count];
        rounded(part.iter().sum::<f64>() / part.len() as f64)
    };
    (0..count).map(mean).collect()
}

/// Quantiles in even steps, both ends included; one if all are alike.
fn quantiles(numbers: &mut [f64], steps: usize) -> Vec<f64> {
    numbers.sort_unstable_by(f64::total_cmp);
    let last = numbers.len() - 1;
    if numbers[0] == numbers[last] {
        return vec![rounded(numbers[0])];
    }
    let at = |step: usize| {
        let place = (step * last) as f64 / (steps - 1) as f64;
        let (low, high) = (numbers[place as usize], numbers[(place as usize + 1).min(last)]);
        rounded(low + (high - low) * place.fract())
    };
    (0..steps).map(at).collect()
}

/// The quantiles at 0 and at the ends of [`GAP_BINS`]; none without gaps.
fn gap_quantiles(gaps: &mut [f32]) -> Vec<f64> {
    let Some(last) = gaps.len().checked_sub(1) else { return Vec::new() };
    gaps.sort_unstable_by(f32::total_cmp);
    let at = |share: &f64| rounded(gaps[(share * last as f64) as usize].into());
    std::iter::once(&0.0).chain(GAP_BINS).map(at).collect()
}

/// The shape of the gamma distribution whose draws, as shares of their sum, spread like this.
///
/// Shares of k gaps with shape a have (Dirichlet) the sum of squares (1 - 1/k) / (ka + 1) about
/// their mean; the sum of these over all questions falls with a, so a is found by halving.
fn shape(spread: f64, over: &[u16]) -> f64 {
    if over.is_empty() {
        return 0.0;
    }
    let (mut low, mut high) = (1e-3f64, 1e3f64);
    for _ in 0..50 {
        let middle = (low * high).sqrt();
        let sum: f64 = over
            .iter()
            .map(|&count| {
                let count = f64::from(count);
                (1.0 - 1.0 / count) / (count * middle + 1.0)
            })
            .sum();
        *(if sum > spread { &mut low } else { &mut high }) = middle;
    }
    (low * high).sqrt()
}
