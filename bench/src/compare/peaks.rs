//! What follows from measurements while others are still to be made: who sustains a rate, where
//! the peaks are, which rate all sustain.

use super::raw::Line;

/// Who loses more than this share does not sustain a rate.
pub const LOSS_MAX: f64 = 0.001;
/// Far from its peak a server need not be asked: below this share of what it was seen to answer
/// it answers everything, ...
const LOW: f64 = 0.6;
/// ... and when this multiple of it is offered, no more.
const HIGH: f64 = 2.0;
/// The same where only the peak is looked for.
const HIGH_OF_PEAK: f64 = 1.6;

/// The measurements of one shape and mix.
#[derive(Clone, Copy)]
pub struct Of<'a> {
    /// All lines.
    pub lines: &'a [Line],
    /// The shape.
    pub shape: &'a str,
    /// The mix.
    pub mix: &'a str,
}

/// Good answers a second at the rate that gives the most.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Peak {
    /// The rate that was offered.
    pub offered: u64,
    /// What was answered, in each round.
    pub each: Vec<f64>,
    /// Their median.
    pub median: f64,
}

impl Of<'_> {
    /// `figure` of all rounds of a step.
    pub fn each(self, step: &str, rate: u64, contender: &str, figure: &str) -> Vec<f64> {
        let of = self.lines.iter().filter(|line| {
            line.step == step
                && line.rate == rate
                && line.contender == contender
                && line.shape == self.shape
                && line.mix == self.mix
        });
        of.filter_map(|line| line.values.get(figure).copied()).collect()
    }

    /// The rates at which a step was measured, rising.
    pub fn rates(self, step: &str) -> Vec<u64> {
        let of = self
            .lines
            .iter()
            .filter(|line| line.step == step && line.shape == self.shape && line.mix == self.mix);
        let mut rates: Vec<u64> = of.map(|line| line.rate).collect();
        rates.sort_unstable();
        rates.dedup();
        rates
    }

    /// The best of the medians, of the rates that were offered in all rounds: one lucky round
    /// makes no peak.
    pub fn peak(self, contender: &str) -> Peak {
        let rounds = self.rounds(contender);
        best(self.offered(contender).filter(|peak| peak.each.len() >= rounds))
    }

    /// The rate whose median is better than the peak, although it was not offered in all rounds.
    pub fn promising(self, contender: &str) -> Option<u64> {
        let best = best(self.offered(contender));
        (best.each.len() < self.rounds(contender)).then_some(best.offered)
    }

    /// In how many rounds the rate that was offered most often was offered.
    fn rounds(self, contender: &str) -> usize {
        self.offered(contender).map(|peak| peak.each.len()).max().unwrap_or(0)
    }

    fn offered(self, contender: &str) -> impl Iterator<Item = Peak> {
        self.rates("offer").into_iter().map(move |offered| {
            let each = self.each("offer", offered, contender, "good");
            let median = median(&each);
            Peak { offered, each, median }
        })
    }

    /// Whether `contender` answers `rate`, as far as was measured.
    pub fn sustains(self, contender: &str, rate: u64) -> bool {
        let losses = self.each("offer", rate, contender, "loss");
        !losses.is_empty() && median(&losses) <= LOSS_MAX
    }

    /// A rate that all of `contenders` sustain: seven tenths of the lowest peak, round.
    pub fn common_rate<'b>(self, contenders: impl Iterator<Item = &'b str>) -> Option<u64> {
        let peaks = contenders.map(|name| self.peak(name).median).filter(|&peak| peak > 0.0);
        let least = peaks.reduce(f64::min)? * 0.7;
        let step = if least >= 10_000.0 { 5000.0 } else { 500.0 };
        Some(((least / step).floor() * step).max(500.0) as u64)
    }

    /// Whether offering `rate` may tell more of the peak than was seen already in `round`.
    pub fn is_worth(self, contender: &str, rate: u64, round: u32) -> bool {
        let seen = self.seen(contender, round);
        seen == 0.0 || (LOW * seen..=HIGH * seen).contains(&(rate as f64))
    }

    /// The same, where nobody asks who sustains a lower rate.
    pub fn may_be_peak(self, contender: &str, rate: u64, round: u32) -> bool {
        let (seen, rate) = (self.seen(contender, round), rate as f64);
        seen == 0.0 || rate > seen && rate <= HIGH_OF_PEAK * seen
    }

    /// The most good answers a second in `round`.
    fn seen(self, contender: &str, round: u32) -> f64 {
        let of = self.lines.iter().filter(|line| {
            line.step == "offer"
                && line.round == round
                && line.contender == contender
                && line.shape == self.shape
                && line.mix == self.mix
        });
        of.filter_map(|line| line.values.get("good").copied()).fold(0.0, f64::max)
    }
}

fn best(peaks: impl Iterator<Item = Peak>) -> Peak {
    peaks.fold(Peak::default(), |best, peak| if peak.median > best.median { peak } else { best })
}

/// The middle one, or the mean of the two in the middle; 0 of none.
pub fn median(each: &[f64]) -> f64 {
    crate::report::model::Estimate::of(each).median
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn offer(contender: &str, rate: u64, round: u32, good: f64) -> Line {
        let loss = 1.0 - good / rate as f64;
        Line {
            shape: "hosts".into(),
            mix: "hot".into(),
            step: "offer".into(),
            rate,
            round,
            contender: contender.into(),
            values: BTreeMap::from([("good".into(), good), ("loss".into(), loss)]),
            ..Line::default()
        }
    }

    fn of(lines: &[Line]) -> Of<'_> {
        Of { lines, shape: "hosts", mix: "hot" }
    }

    #[test]
    fn one_lucky_round_makes_no_peak() {
        let lines = [
            offer("nsd", 200, 0, 190.0),
            offer("nsd", 300, 0, 290.0),
            offer("nsd", 200, 1, 195.0),
            offer("nsd", 300, 1, 120.0),
            offer("nsd", 200, 2, 192.0),
            offer("nsd", 300, 2, 130.0),
            offer("knot", 300, 0, 300.0),
        ];
        let peak = of(&lines).peak("nsd");
        assert_eq!((peak.offered, peak.median), (200, 192.0));
        assert_eq!(peak.each, [190.0, 195.0, 192.0]);
        assert_eq!(of(&lines).peak("bind"), Peak::default());
        assert_eq!(of(&lines).promising("nsd"), None);
        let other = Of { mix: "zipf", ..of(&lines) };
        assert_eq!(other.peak("nsd"), Peak::default());
    }

    /// What was offered in one round of three is offered in the others before it counts.
    #[test]
    fn a_peak_is_of_all_rounds() {
        let mut lines: Vec<Line> = (0..3).map(|round| offer("nsd", 200, round, 190.0)).collect();
        lines.push(offer("nsd", 300, 1, 290.0));
        assert_eq!(of(&lines).peak("nsd").offered, 200);
        assert_eq!(of(&lines).promising("nsd"), Some(300));
        lines.extend([offer("nsd", 300, 0, 120.0), offer("nsd", 300, 2, 130.0)]);
        assert_eq!(of(&lines).peak("nsd").offered, 200);
        assert_eq!(of(&lines).promising("nsd"), None);
    }

    #[test]
    fn a_rate_is_sustained_without_loss() {
        let lines = [
            offer("nsd", 100_000, 0, 99_950.0),
            offer("powerdns", 100_000, 0, 99_800.0),
            offer("bind", 100_000, 0, 61_000.0),
            offer("bind", 60_000, 0, 60_000.0),
        ];
        assert!(of(&lines).sustains("nsd", 100_000));
        assert!(!of(&lines).sustains("bind", 100_000));
        assert!(!of(&lines).sustains("powerdns", 100_000), "two of a thousand are lost");
        assert!(!of(&lines).sustains("knot", 100_000), "it was not asked");
        let all = ["nsd", "bind", "knot"];
        assert_eq!(of(&lines).common_rate(all.into_iter()), Some(40_000));
        assert_eq!(of(&lines).common_rate(["knot"].into_iter()), None);
    }

    #[test]
    fn far_from_the_peak_nobody_is_asked() {
        let lines = [offer("nsd", 100_000, 1, 99_000.0)];
        let of = of(&lines);
        assert!(of.is_worth("nsd", 150_000, 1) && of.is_worth("nsd", 80_000, 1));
        assert!(!of.is_worth("nsd", 40_000, 1), "it answers that");
        assert!(!of.is_worth("nsd", 250_000, 1), "first less");
        assert!(of.may_be_peak("nsd", 100_000, 1) && of.may_be_peak("nsd", 150_000, 1));
        assert!(!of.may_be_peak("nsd", 80_000, 1) && !of.may_be_peak("nsd", 175_000, 1));
        assert!(of.may_be_peak("nsd", 20_000, 0), "nothing is known of that round");
        assert!(of.is_worth("nsd", 20_000, 0) && of.is_worth("bind", 1, 1), "nothing is known");
    }
}
