//! What a thread of the generator has counted.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::report::model::{Counts, Latency, Second};

/// Digits that are kept of each time.
const DIGITS: u8 = 3;
/// The longest time that is told apart.
const TIME_NS_MAX: u64 = 600_000_000_000;
/// RFC 1035 and 2136 mnemonics by number.
const RCODES: [&str; 16] = [
    "NOERROR",
    "FORMERR",
    "SERVFAIL",
    "NXDOMAIN",
    "NOTIMP",
    "REFUSED",
    "YXDOMAIN",
    "YXRRSET",
    "NXRRSET",
    "NOTAUTH",
    "NOTZONE",
    "DSOTYPENI",
    "RCODE12",
    "RCODE13",
    "RCODE14",
    "RCODE15",
];

//----------- Tally ----------------------------------------------------------

/// Counts and times of one thread, or of all.
pub struct Tally {
    /// What became of the queries.
    pub counts: Counts,
    /// Scheduled and never sent: too far behind, or no ID was free.
    pub never_sent: u64,
    /// Refused by the kernel when they were sent; they are lost at the time-out.
    pub unsent: u64,
    /// Dropped at the generator's sockets.
    pub drops: u64,
    /// Replies by rcode.
    pub rcodes: [u64; 16],
    /// Octets of all replies.
    pub answer_octets: u64,
    /// From the intended time.
    pub latency: Histogram<u64>,
    /// From the time of sending.
    pub service: Histogram<u64>,
    /// From the intended time to that of sending.
    pub lateness: Histogram<u64>,
    /// What each second looked like.
    pub seconds: Vec<SecondTally>,
}

impl Default for Tally {
    fn default() -> Tally {
        let times =
            || Histogram::new_with_bounds(1, TIME_NS_MAX, DIGITS).expect("bounds that are right");
        Tally {
            counts: Counts::default(),
            never_sent: 0,
            unsent: 0,
            drops: 0,
            rcodes: [0; 16],
            answer_octets: 0,
            latency: times(),
            service: times(),
            lateness: times(),
            seconds: Vec::new(),
        }
    }
}

impl Tally {
    /// The counts of second `second`.
    pub fn second(&mut self, second: usize) -> &mut SecondTally {
        if self.seconds.len() <= second {
            self.seconds.resize_with(second + 1, SecondTally::default);
        }
        &mut self.seconds[second]
    }

    /// Adds what another thread has counted.
    pub fn add(&mut self, other: &Tally) {
        let (counts, more) = (&mut self.counts, &other.counts);
        counts.scheduled += more.scheduled;
        counts.sent += more.sent;
        counts.late += more.late;
        counts.answered += more.answered;
        counts.good += more.good;
        counts.good_in_time += more.good_in_time;
        counts.lost += more.lost;
        counts.wrong += more.wrong;
        counts.truncated += more.truncated;
        counts.stray += more.stray;
        counts.unmatched += more.unmatched;
        counts.connections += more.connections;
        counts.broken += more.broken;
        self.never_sent += other.never_sent;
        self.unsent += other.unsent;
        self.drops += other.drops;
        for (sum, more) in self.rcodes.iter_mut().zip(other.rcodes) {
            *sum += more;
        }
        self.answer_octets += other.answer_octets;
        for (sum, more) in [
            (&mut self.latency, &other.latency),
            (&mut self.service, &other.service),
            (&mut self.lateness, &other.lateness),
        ] {
            sum.add(more).expect("histograms of the same bounds");
        }
        for (second, more) in other.seconds.iter().enumerate() {
            self.second(second).add(more);
        }
    }

    /// Counts a query as lost; whoever asked it knows that after `ns`.
    pub fn lose(&mut self, second: usize, ns: u64) {
        self.counts.lost += 1;
        self.latency.saturating_record(ns);
        let second = self.second(second);
        second.lost += 1;
        second.record(ns);
    }

    /// Replies by mnemonic.
    pub fn rcodes_named(&self) -> BTreeMap<String, u64> {
        let named = RCODES.iter().zip(self.rcodes).filter(|(_, count)| *count > 0);
        named.map(|(name, count)| (name.to_string(), count)).collect()
    }
}

/// A histogram as the report has it.
pub fn latency(times: &Histogram<u64>) -> Latency {
    let us = |ns: u64| ns as f64 / 1000.0;
    let at = |quantile: f64| us(times.value_at_quantile(quantile));
    if times.is_empty() {
        return Latency::default();
    }
    // Two digits: what a plot needs.
    let mut buckets: Vec<(f64, u64)> = Vec::new();
    for step in times.iter_recorded() {
        let ns = step.value_iterated_to();
        let unit = 10u64.pow(ns.max(10).ilog10() - 1);
        let value = us(ns / unit * unit);
        match buckets.last_mut() {
            Some(last) if last.0 == value => last.1 += step.count_at_value(),
            _ => buckets.push((value, step.count_at_value())),
        }
    }
    Latency {
        count: times.len(),
        min: us(times.min()),
        mean: times.mean() / 1000.0,
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p99_9: at(0.999),
        p99_99: at(0.9999),
        max: us(times.max()),
        buckets,
    }
}

//----------- SecondTally ----------------------------------------------------

/// Buckets for each doubling.
const STEPS: u32 = 8;
const BUCKETS: usize = 40 * STEPS as usize;

/// Counts of one second, and a coarse histogram: eight buckets for each doubling.
#[derive(Clone)]
pub struct SecondTally {
    /// Queries sent.
    pub sent: u64,
    /// Good answers.
    pub good: u64,
    /// Lost or wrong.
    pub lost: u64,
    times: Box<[u32; BUCKETS]>,
}

impl Default for SecondTally {
    fn default() -> SecondTally {
        SecondTally { sent: 0, good: 0, lost: 0, times: Box::new([0; BUCKETS]) }
    }
}

impl SecondTally {
    /// Records a time.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.times[bucket(ns)] += 1;
    }

    /// Adds the same second of another thread.
    pub fn add(&mut self, other: &SecondTally) {
        self.sent += other.sent;
        self.good += other.good;
        self.lost += other.lost;
        for (sum, more) in self.times.iter_mut().zip(other.times.iter()) {
            *sum += more;
        }
    }

    /// The 99th percentile in microseconds.
    pub fn p99(&self) -> f64 {
        let all: u64 = self.times.iter().map(|&count| u64::from(count)).sum();
        let mut above = all - all * 99 / 100;
        for (index, &count) in self.times.iter().enumerate().rev() {
            above = above.saturating_sub(u64::from(count));
            if above == 0 && count > 0 {
                return upper(index) / 1000.0;
            }
        }
        0.0
    }

    /// As the report has it.
    pub fn second(&self) -> Second {
        Second { sent: self.sent, good: self.good, lost: self.lost, p99: self.p99() }
    }
}

fn bucket(ns: u64) -> usize {
    let ns = ns.max(u64::from(STEPS));
    let doubling = ns.ilog2();
    let step = (ns >> (doubling - STEPS.ilog2())) as u32 & (STEPS - 1);
    (((doubling - STEPS.ilog2()) * STEPS + step) as usize).min(BUCKETS - 1)
}

/// The end of a bucket, in nanoseconds.
fn upper(index: usize) -> f64 {
    let (doubling, step) = (index as u32 / STEPS, index as u32 % STEPS);
    f64::from(STEPS + step + 1) * f64::from(doubling).exp2()
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coarse_percentile_is_within_an_eighth() {
        let mut second = SecondTally::default();
        for us in 1..=1000u64 {
            second.record(us * 1000);
        }
        let p99 = second.p99();
        assert!((980.0..990.0 * 1.125).contains(&p99), "{p99}");
        assert_eq!(SecondTally::default().p99(), 0.0);
        for ns in [0, 1, 7, 8, 9, 1000, u64::MAX] {
            assert!(
                bucket(ns) < BUCKETS && (ns > 1 << 40 || upper(bucket(ns)) > ns as f64),
                "{ns}"
            );
        }
    }

    #[test]
    fn buckets_hold_every_value_once() {
        let mut tally = Tally::default();
        for ns in (1..2_000_000u64).step_by(997) {
            tally.latency.record(ns).unwrap();
        }
        let latency = latency(&tally.latency);
        assert_eq!(latency.buckets.iter().map(|bucket| bucket.1).sum::<u64>(), latency.count);
        assert!(latency.buckets.is_sorted_by(|a, b| a.0 < b.0));
        assert!((latency.p50 - 1000.0).abs() < 3.0);
        assert!(latency.buckets.len() < 600);
    }
}
