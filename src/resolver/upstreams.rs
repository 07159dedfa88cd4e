//! What is known of the upstreams, and which of them is asked.
//!
//! ```text
//!            UPSTREAM_FAILURES_MAX or UPSTREAM_LIES_MAX in a row
//!   healthy ────────────────────────────────────────────────────> backing off
//!      ^                                                              │ probes: 0.25 s ... 4 s
//!      └───────────── any reply that is true ─────────────────────────┘
//! ```
//!
//! A healthy upstream is judged by how long it takes: the fastest, and those about as fast, share
//! the questions; now and then another one gets one, so that it is known when it has become faster.

use std::time::Duration;

use arrayvec::ArrayVec;

use crate::limits::{
    COOKIE_LIFE, EXCHANGE_TIME_MAX, EXCHANGE_TIME_MIN, FORWARD_UPSTREAMS_MAX, HEDGE_TIME_MAX,
    HEDGE_TIME_MIN, PROBE_CALM, PROBE_TIME_MAX, PROBE_TIME_MIN, UPSTREAM_EXCHANGES_MAX,
    UPSTREAM_FAILURES_MAX, UPSTREAM_LIES_MAX, UPSTREAM_STRIKES_MAX, UPSTREAM_TRIALS_MAX,
};

use super::random::Random;
use super::{Carrier, Upstream};

/// One question in so many goes to an upstream that is not the best, to know it.
const EXPLORE_SHARE: u64 = 64;
/// What an upstream is taken for that has never answered.
const RTT_UNKNOWN: Duration = Duration::from_millis(100);
/// How far behind the best an upstream may be and still have its share of the questions.
const BAND_MIN_US: u64 = 1000;
/// What each failure in a row makes an upstream worse by.
const FAILURE_COST_US: u64 = 50_000;

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX).min(1 << 28)
}

//----------- Estimate -------------------------------------------------------

/// Smoothed round-trip time and its variance, as RFC 6298 has them, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Estimate {
    srtt_us: u32,
    variance_us: u32,
    known: bool,
}

impl Estimate {
    pub(super) fn add(&mut self, rtt: Duration) {
        let rtt_us = micros(rtt);
        if !self.known {
            *self = Estimate { srtt_us: rtt_us, variance_us: rtt_us / 2, known: true };
            return;
        }
        let off_us = rtt_us.abs_diff(self.srtt_us);
        self.variance_us = self.variance_us - self.variance_us / 4 + off_us / 4;
        self.srtt_us = self.srtt_us - self.srtt_us / 8 + rtt_us / 8;
    }

    /// It takes longer than `waited`, by how much is not known.
    fn add_at_least(&mut self, waited: Duration) {
        if micros(waited) > self.srtt_us {
            self.add(waited);
        }
    }

    pub(super) fn srtt(&self) -> Option<Duration> {
        self.known.then(|| Duration::from_micros(self.srtt_us.into()))
    }

    pub(super) fn variance(&self) -> Option<Duration> {
        self.known.then(|| Duration::from_micros(self.variance_us.into()))
    }

    /// What all but few replies stay below.
    fn late(&self) -> Duration {
        if !self.known {
            return RTT_UNKNOWN * 3;
        }
        Duration::from_micros(u64::from(self.srtt_us) + 4 * u64::from(self.variance_us))
    }
}

//----------- State ----------------------------------------------------------

/// Whether an upstream is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It is.
    Healthy,
    /// It has failed too often in a row: only probes go to it.
    BackingOff {
        /// Since when.
        since: Duration,
        /// When the next probe goes to it; none as long as nobody asks.
        until: Option<Duration>,
    },
}

/// What went wrong with an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No reply in time.
    TimedOut,
    /// Others were faster, several times in a row.
    Outrun,
    /// What it said was not true.
    Lied,
    /// The driver could not carry it.
    Fault(super::Fault),
}

/// What is counted of an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages to it.
    pub sent: u64,
    /// Replies that were taken.
    pub answers: u64,
    /// Of these, those with a code that leads to the next upstream.
    pub refusals: u64,
    /// Exchanges without a reply.
    pub timeouts: u64,
    /// Exchanges that the driver could not carry.
    pub faults: u64,
    /// Replies that were not taken.
    pub lies: u64,
    /// Exchanges that lost a race.
    pub outrun: u64,
}

/// An upstream and all that is known of it.
pub(super) struct State {
    pub(super) config: Upstream,
    /// Over its own carrier.
    pub(super) estimate: Estimate,
    /// Over TCP, of an upstream that is asked over UDP.
    pub(super) tcp_estimate: Estimate,
    pub(super) health: Health,
    pub(super) tally: Tally,
    pub(super) trouble: Option<(Duration, Trouble)>,
    pub(super) in_flight: u32,
    /// Of these, questions that go to it although it is backing off.
    pub(super) trials: u32,
    /// When it has said something true.
    heard: Option<Duration>,
    pub(super) failures_in_row: u32,
    faulty_since: Duration,
    lies_in_row: u32,
    strikes_in_row: u32,
    outrun_in_row: u32,
    well_since: Duration,
    pub(super) probe_interval: Duration,
    /// When somebody has last asked for it while it was backing off.
    pub(super) wanted: Duration,
    /// The exchange that probes it.
    pub(super) probe: Option<u32>,
    pub(super) plain_until: Duration,
    pub(super) lower_until: Duration,
    pub(super) cookie: [u8; 8],
    cookie_until: Duration,
    /// What it gave us last; empty as long as it has given nothing.
    pub(super) server_cookie: ArrayVec<u8, 32>,
}

impl State {
    pub(super) fn new(config: Upstream, random: &mut Random) -> State {
        State {
            config,
            estimate: Estimate::default(),
            tcp_estimate: Estimate::default(),
            health: Health::Healthy,
            tally: Tally::default(),
            trouble: None,
            in_flight: 0,
            trials: 0,
            heard: None,
            failures_in_row: 0,
            faulty_since: Duration::ZERO,
            lies_in_row: 0,
            strikes_in_row: 0,
            outrun_in_row: 0,
            well_since: Duration::ZERO,
            probe_interval: PROBE_TIME_MIN,
            wanted: Duration::ZERO,
            probe: None,
            plain_until: Duration::ZERO,
            lower_until: Duration::ZERO,
            cookie: random.draw().to_ne_bytes(),
            cookie_until: COOKIE_LIFE,
            server_cookie: ArrayVec::new(),
        }
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.health == Health::Healthy
    }

    fn estimate_of(&mut self, carrier: Carrier) -> &mut Estimate {
        if carrier == self.config.carrier { &mut self.estimate } else { &mut self.tcp_estimate }
    }

    /// How long to wait for `carrier` before somebody else is asked as well, and in all.
    pub(super) fn patience(&mut self, carrier: Carrier) -> (Duration, Duration) {
        let failures = self.failures_in_row.min(3);
        let late = self.estimate_of(carrier).late();
        //= RFC 6298, 5.5: the host MUST set RTO <- RTO * 2 ("back off the timer").
        let over = (late * 2).clamp(EXCHANGE_TIME_MIN, EXCHANGE_TIME_MAX) * (1 << failures);
        (late.clamp(HEDGE_TIME_MIN, HEDGE_TIME_MAX), over.min(EXCHANGE_TIME_MAX))
    }

    /// Another client cookie, when the old one has been used for long.
    pub(super) fn renew_cookie(&mut self, now: Duration, random: &mut Random) {
        if now >= self.cookie_until {
            self.cookie = random.draw().to_ne_bytes();
            self.cookie_until = now + COOKIE_LIFE;
            self.server_cookie.clear();
        }
    }

    //----------- What happens -----------------------------------------------

    /// It has said something true to what was sent at `sent`.
    pub(super) fn answered(&mut self, now: Duration, carrier: Carrier, sent: Duration) {
        self.estimate_of(carrier).add(now.saturating_sub(sent));
        self.tally.answers += 1;
        self.heard = Some(now);
        (self.failures_in_row, self.outrun_in_row) = (0, 0);
        if self.is_healthy() {
            self.lies_in_row = 0;
            return;
        }
        self.health = Health::Healthy;
        self.well_since = now;
        // Who lied must do better than that: the next lies count as if they followed the last.
        self.lies_in_row = self.lies_in_row.min(UPSTREAM_LIES_MAX - 2);
    }

    /// It has not replied to what was sent at `sent`. Returns whether it is to be left alone.
    pub(super) fn timed_out(&mut self, now: Duration, carrier: Carrier, sent: Duration) -> bool {
        self.tally.timeouts += 1;
        self.trouble = Some((now, Trouble::TimedOut));
        self.estimate_of(carrier).add_at_least(now.saturating_sub(sent));
        // One that says something else meanwhile is there; it is the question that is hard.
        carrier == self.config.carrier
            && self.heard.is_none_or(|heard| heard < sent)
            && self.failed(now)
    }

    /// The driver could not carry what was sent at `sent`; likewise.
    pub(super) fn fault(
        &mut self,
        now: Duration,
        carrier: Carrier,
        sent: Duration,
        fault: super::Fault,
    ) -> bool {
        let counts = fault != super::Fault::NoRoom && carrier == self.config.carrier;
        self.tally.faults += 1;
        self.trouble = Some((now, Trouble::Fault(fault)));
        // A connection that breaks takes all that it carries with it: that is one failure.
        if !counts || self.failures_in_row > 0 && sent < self.faulty_since {
            return false;
        }
        self.faulty_since = now;
        self.failed(now)
    }

    /// It has said something that is not true; likewise.
    pub(super) fn lied(&mut self, now: Duration) -> bool {
        self.tally.lies += 1;
        self.trouble = Some((now, Trouble::Lied));
        self.lies_in_row += 1;
        self.lies_in_row >= UPSTREAM_LIES_MAX && self.back_off(now)
    }

    /// Another one has answered what was sent to it at `sent` and is overdue; likewise.
    pub(super) fn outrun(&mut self, now: Duration, carrier: Carrier, sent: Duration) -> bool {
        self.tally.outrun += 1;
        if self.heard.is_some_and(|heard| heard >= sent) {
            return false;
        }
        self.estimate_of(carrier).add_at_least(now.saturating_sub(sent));
        self.outrun_in_row += 1;
        if self.outrun_in_row < 2 * UPSTREAM_FAILURES_MAX || carrier != self.config.carrier {
            return false;
        }
        self.trouble = Some((now, Trouble::Outrun));
        self.back_off(now)
    }

    /// A reply came in another letter case or without the cookie. Whether it does so always.
    pub(super) fn strike(&mut self) -> bool {
        self.strikes_in_row += 1;
        self.strikes_in_row >= UPSTREAM_STRIKES_MAX
    }

    pub(super) fn no_strike(&mut self) {
        self.strikes_in_row = 0;
    }

    fn failed(&mut self, now: Duration) -> bool {
        self.failures_in_row += 1;
        self.failures_in_row >= UPSTREAM_FAILURES_MAX && self.back_off(now)
    }

    /// Returns whether it was healthy until now.
    fn back_off(&mut self, now: Duration) -> bool {
        if !self.is_healthy() {
            return false;
        }
        let calm = self.tally.answers > 0 && now.saturating_sub(self.well_since) >= PROBE_CALM;
        self.probe_interval =
            if calm { PROBE_TIME_MIN } else { (self.probe_interval * 2).min(PROBE_TIME_MAX) };
        (self.wanted, self.outrun_in_row) = (now, 0);
        self.health = Health::BackingOff { since: now, until: None };
        true
    }
}

//----------- Choice ---------------------------------------------------------

/// The place in `route` of the upstream to ask, of those that are neither in `done` nor in `asked`;
/// if there is none, of those not in `done`. Both are sets of places.
pub(super) fn choose(
    upstreams: &mut [State],
    route: &[u32],
    now: Duration,
    done: u32,
    asked: u32,
    random: &mut Random,
) -> Option<usize> {
    let healthy = route.iter().any(|&index| upstreams[index as usize].is_healthy());
    let mut candidates = ArrayVec::<(usize, u64, u32), FORWARD_UPSTREAMS_MAX>::new();
    for (place, &index) in route.iter().enumerate() {
        let state = &mut upstreams[index as usize];
        if !state.is_healthy() {
            state.wanted = now;
        }
        let room = state.in_flight < UPSTREAM_EXCHANGES_MAX
            && (state.is_healthy() || !healthy && state.trials < UPSTREAM_TRIALS_MAX);
        if room && done >> place & 1 == 0 {
            candidates.push((place, cost(state), state.in_flight));
        }
    }
    if candidates.iter().any(|(place, ..)| asked >> place & 1 == 0) {
        candidates.retain(|(place, ..)| asked >> *place & 1 == 0);
    }
    let (_, best, _) = *candidates.iter().min_by_key(|(_, cost, _)| *cost)?;
    if candidates.len() > 1 {
        if random.below(EXPLORE_SHARE) == 0 {
            return Some(candidates[random.below(candidates.len() as u64) as usize].0);
        }
        candidates.retain(|(_, cost, _)| *cost <= band(best));
    }
    let idlest = candidates.iter().map(|(_, _, in_flight)| *in_flight).min()?;
    candidates.retain(|(_, _, in_flight)| *in_flight == idlest);
    let pick = if candidates.len() > 1 { random.below(candidates.len() as u64) } else { 0 };
    Some(candidates[pick as usize].0)
}

/// What asking may cost where the best costs so much.
fn band(best: u64) -> u64 {
    best + (best / 4).max(BAND_MIN_US)
}

/// The places in `route` of those that share the next questions, all others that have been asked
/// now and then left out: a set.
pub(super) fn preferred(upstreams: &[State], route: &[u32]) -> u32 {
    let of = |index: u32| &upstreams[index as usize];
    let healthy = route.iter().any(|&index| of(index).is_healthy());
    let able = |index: u32| of(index).is_healthy() || !healthy;
    let costs = route.iter().filter(|index| able(**index)).map(|&index| cost(of(index)));
    let Some(best) = costs.min() else { return 0 };
    let places = route.iter().enumerate().filter(|(_, index)| able(**index));
    let shares = places.filter(|(_, index)| cost(of(**index)) <= band(best));
    shares.fold(0, |set, (place, _)| set | 1 << place)
}

/// What asking costs, in microseconds of waiting.
fn cost(state: &State) -> u64 {
    let failures = u64::from(state.failures_in_row) * FAILURE_COST_US;
    match state.estimate {
        // Nothing is known: one question finds out.
        Estimate { known: false, .. } if state.in_flight == 0 => failures,
        Estimate { known: false, .. } => RTT_UNKNOWN.as_micros() as u64 + failures,
        Estimate { srtt_us, .. } => u64::from(srtt_us) + failures,
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolver::random::tests::sequence;

    const MS: Duration = Duration::from_millis(1);

    fn states(count: usize) -> Vec<State> {
        let mut random = sequence(1);
        let config = |index: usize| Upstream {
            address: ([192, 0, 2, index as u8], 53).into(),
            carrier: Carrier::Udp,
            server_name: None,
            pins: Vec::new(),
            path: String::new(),
            issuers: None,
        };
        (0..count).map(|index| State::new(config(index), &mut random)).collect()
    }

    #[test]
    fn the_estimate_follows() {
        let mut estimate = Estimate::default();
        assert_eq!((estimate.srtt(), estimate.late()), (None, 300 * MS));
        (0..100).for_each(|_| estimate.add(20 * MS));
        let srtt = estimate.srtt().unwrap();
        assert!(srtt > 19 * MS && srtt <= 20 * MS && estimate.late() < 21 * MS, "{estimate:?}");
        estimate.add_at_least(MS);
        assert_eq!(estimate.srtt(), Some(srtt));
        (0..100).for_each(|_| estimate.add_at_least(80 * MS));
        assert!(estimate.srtt().unwrap() > 79 * MS);
    }

    #[test]
    fn the_fast_share_and_the_slow_are_known() {
        let mut upstreams = states(3);
        let mut random = sequence(2);
        for (state, rtt) in upstreams.iter_mut().zip([10, 10, 200]) {
            (0..50).for_each(|_| state.answered(Duration::ZERO, Carrier::Udp, Duration::ZERO));
            state.estimate = Estimate::default();
            (0..50).for_each(|_| state.estimate.add(rtt * MS));
        }
        let mut counts = [0; 3];
        for _ in 0..10_000 {
            let route = [0, 1, 2];
            counts[choose(&mut upstreams, &route, MS, 0, 0, &mut random).unwrap()] += 1;
        }
        assert!(counts[0].min(counts[1]) > 4000 && (10..200).contains(&counts[2]), "{counts:?}");
        assert_eq!(preferred(&upstreams, &[0, 1, 2]), 0b011);
        assert_eq!(preferred(&upstreams, &[2]), 0b1);
        let mut pick = |done, asked| choose(&mut upstreams, &[0, 1], MS, done, asked, &mut random);
        assert_eq!((pick(0b01, 0), pick(0b10, 0), pick(0b11, 0)), (Some(1), Some(0), None));
        assert_eq!((pick(0, 0b01), pick(0b01, 0b10)), (Some(1), Some(1)));
    }

    #[test]
    fn failures_in_a_row_and_a_word() {
        let mut upstreams = states(1);
        let state = &mut upstreams[0];
        let failed = |state: &mut State, at| state.timed_out(at * MS, Carrier::Udp, at * MS - MS);
        assert!((1..UPSTREAM_FAILURES_MAX).all(|at| !failed(state, at)));
        state.answered(9 * MS, Carrier::Udp, 8 * MS);
        assert!(!state.timed_out(10 * MS, Carrier::Udp, 5 * MS), "it was heard meanwhile");
        assert!((20..19 + UPSTREAM_FAILURES_MAX).all(|at| !failed(state, at)));
        assert!(state.is_healthy() && failed(state, 30) && !state.is_healthy());
        assert!(!failed(state, 31), "it is left alone already");
        state.answered(40 * MS, Carrier::Udp, 35 * MS);
        assert!(state.is_healthy());
        let broken = || crate::resolver::Fault::Connection("closed".into());
        assert!((0..1000).all(|_| !state.fault(60 * MS, Carrier::Udp, 50 * MS, broken())));
        assert!((2..UPSTREAM_FAILURES_MAX).all(|at| !state.fault(
            (60 + at) * MS,
            Carrier::Udp,
            (60 + at) * MS,
            broken()
        )));
        assert!(state.fault(70 * MS, Carrier::Udp, 70 * MS, broken()));
    }
}
