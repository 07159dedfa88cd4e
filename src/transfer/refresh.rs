//! When a secondary asks its primaries, and when a zone is too old to be served (RFC 1034, 4.3.5).
//!
//! ```text
//!   confirmed ──refresh──> ask ──fails──> retry ──> ask ... ──expire──> SERVFAIL, and still retry
//!                           └──answers: current, or newer──> confirmed
//! ```
//!
//! Time is monotonic and comes in; what must survive a restart is the caller's to keep.

use std::time::Duration;

use crate::limits::{NOTIFY_INTERVAL_MIN, REFRESH_MAX, REFRESH_MIN, RETRY_FIRST, RETRY_MIN};

/// The clockwork of one zone.
#[derive(Clone, Debug)]
pub struct Refresh {
    /// Of the SOA; `None` until there is a zone.
    timers: Option<Timers>,
    /// When a primary last said that the zone is current.
    confirmed: Duration,
    /// When to ask next.
    next: Duration,
    /// When it was last asked.
    asked: Option<Duration>,
    /// Attempts that failed since one did not.
    failures: u32,
    random: u64,
}

/// In seconds: of a hundred thousand zones each has these.
#[derive(Clone, Copy, Debug)]
struct Timers {
    refresh: u32,
    retry: u32,
    expire: u32,
}

impl Refresh {
    /// Of a zone that is not there yet: asked for at once.
    pub fn new(now: Duration, seed: u64) -> Refresh {
        Refresh {
            timers: None,
            confirmed: now,
            next: now,
            asked: None,
            failures: 0,
            random: seed | 1,
        }
    }

    /// A zone with these SOA numbers was confirmed at `confirmed`; asked for again at once.
    pub fn restored(now: Duration, age: Duration, numbers: [u32; 5], seed: u64) -> Refresh {
        let mut refresh = Refresh::new(now, seed);
        refresh.set(numbers);
        // Before the process began: the age counts on from here.
        let timers = refresh.timers.as_mut().expect("just set");
        timers.expire = timers.expire.saturating_sub(age.as_secs().try_into().unwrap_or(u32::MAX));
        refresh
    }

    fn set(&mut self, [_, refresh, retry, expire, _]: [u32; 5]) {
        let [refresh_min, refresh_max, retry_min] =
            [REFRESH_MIN, REFRESH_MAX, RETRY_MIN].map(|limit| limit.as_secs() as u32);
        self.timers = Some(Timers {
            refresh: refresh.clamp(refresh_min, refresh_max),
            retry: retry.clamp(retry_min, refresh_max),
            expire,
        });
    }

    /// When to ask next.
    pub fn next(&self) -> Duration {
        self.next
    }

    /// When the zone is too old, unless it is confirmed before; `None` without a zone.
    pub fn expires(&self) -> Option<Duration> {
        self.timers.map(|timers| self.confirmed + seconds(timers.expire))
    }

    /// Somebody says that the zone has changed.
    pub fn notified(&mut self, now: Duration) {
        let soon = self.asked.map_or(now, |asked| now.max(asked + NOTIFY_INTERVAL_MIN));
        self.next = self.next.min(soon);
    }

    /// An attempt is on its way: not again before it has ended.
    pub fn asking(&mut self, now: Duration) {
        self.asked = Some(now);
        self.next = now + REFRESH_MAX;
    }

    /// A primary confirmed the zone, which has these SOA numbers now.
    pub fn confirmed(&mut self, now: Duration, numbers: [u32; 5]) {
        self.set(numbers);
        self.confirmed = now;
        self.failures = 0;
        let refresh = self.timers.expect("just set").refresh;
        self.next = now + self.spread(seconds(refresh));
    }

    /// No primary could be asked, or what they sent was no good.
    pub fn failed(&mut self, now: Duration) {
        self.failures += 1;
        let retry = match self.timers {
            Some(timers) => seconds(timers.retry),
            // Without a zone nobody says how often: twice as long each time.
            None => RETRY_FIRST * (1 << self.failures.min(10)),
        };
        self.next = now + self.spread(retry.min(REFRESH_MAX));
    }

    /// Up to a tenth earlier: a fleet should not ask in step.
    fn spread(&mut self, time: Duration) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        time - time.mul_f64((self.random >> 11) as f64 / (1u64 << 53) as f64 / 10.0)
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: [u32; 5] = [1, 3600, 600, 86400, 60];

    #[test]
    fn refresh_retry_expire() {
        let mut zone = Refresh::new(seconds(100), 7);
        assert_eq!((zone.next(), zone.expires()), (seconds(100), None));
        zone.failed(seconds(100));
        assert!(zone.next() <= seconds(100) + RETRY_FIRST * 2);
        zone.confirmed(seconds(200), NUMBERS);
        assert!(zone.next() > seconds(200 + 3200) && zone.next() <= seconds(200 + 3600));
        assert_eq!(zone.expires(), Some(seconds(200 + 86400)));
        zone.failed(seconds(4000));
        assert!(zone.next() > seconds(4000 + 500) && zone.next() <= seconds(4000 + 600));
        assert_eq!(zone.expires(), Some(seconds(200 + 86400)), "failing confirms nothing");
        zone.notified(seconds(4001));
        assert_eq!(zone.next(), seconds(4001));
        zone.asking(seconds(4001));
        zone.notified(seconds(4001));
        assert_eq!(zone.next(), seconds(4001) + NOTIFY_INTERVAL_MIN);
    }

    #[test]
    fn age_survives_a_restart() {
        let zone = Refresh::restored(seconds(5), seconds(86000), NUMBERS, 7);
        assert_eq!((zone.next(), zone.expires()), (seconds(5), Some(seconds(405))));
        let old = Refresh::restored(seconds(5), seconds(90000), NUMBERS, 7);
        assert_eq!(old.expires(), Some(seconds(5)));
    }
}
