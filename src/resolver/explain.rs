//! What people are told of forwarding: the upstreams, and what was tried for one question.

use std::time::Duration;

use arrayvec::ArrayVec;

use crate::limits::TRACE_ATTEMPTS_MAX;
use crate::wire::Name;
use crate::wire::rcode::Rcode;

use super::forward::Forwarder;
use super::upstreams::{Health, State, Tally, Trouble, preferred};
use super::{Carrier, ExchangeId, Upstream, UpstreamId};

/// The name of a carrier in a sentence.
pub fn carrier_name(carrier: Carrier) -> &'static str {
    match carrier {
        Carrier::Udp => "UDP",
        Carrier::Tcp => "TCP",
        Carrier::Tls => "TLS",
        Carrier::Https => "HTTPS",
        Carrier::Quic => "QUIC",
    }
}

//----------- UpstreamReport -------------------------------------------------

/// All that is known of an upstream.
#[derive(Clone, Debug)]
pub struct UpstreamReport {
    /// As it is configured.
    pub config: Upstream,
    /// Whether it is asked, and since when not.
    pub health: Health,
    /// Smoothed round-trip time, once it has answered.
    pub srtt: Option<Duration>,
    /// Its mean deviation.
    pub variance: Option<Duration>,
    /// The same over TCP, of an upstream that is asked over UDP and has had to fall back.
    pub tcp_srtt: Option<Duration>,
    /// What went wrong last, and when.
    pub trouble: Option<(Duration, Trouble)>,
    /// Failures since its last true reply.
    pub failures_in_row: u32,
    /// Messages that are waited for.
    pub in_flight: u32,
    /// What has been counted.
    pub tally: Tally,
    /// It is asked without EDNS until then.
    pub plain_until: Duration,
    /// It is asked in lower case until then.
    pub lower_until: Duration,
    /// It has given us a cookie: what comes without one is not taken.
    pub has_cookie: bool,
}

impl UpstreamReport {
    pub(super) fn of(state: &State) -> UpstreamReport {
        UpstreamReport {
            config: state.config.clone(),
            health: state.health,
            srtt: state.estimate.srtt(),
            variance: state.estimate.variance(),
            tcp_srtt: state.tcp_estimate.srtt(),
            trouble: state.trouble.clone(),
            failures_in_row: state.failures_in_row,
            in_flight: state.in_flight,
            tally: state.tally,
            plain_until: state.plain_until,
            lower_until: state.lower_until,
            has_cookie: !state.server_cookie.is_empty(),
        }
    }
}

//----------- RouteReport ----------------------------------------------------

/// The upstreams of one forward.
#[derive(Clone, Debug)]
pub struct RouteReport {
    /// Its zone.
    pub zone: Name,
    /// Each with its number, and whether it is one of those that share the next questions.
    pub upstreams: Vec<(UpstreamId, bool, UpstreamReport)>,
}

impl Forwarder {
    /// What is known of the upstreams that are asked for `name`, which is in lower case.
    pub fn route_report(&self, name: &Name) -> Option<RouteReport> {
        let route = &self.routes[self.route(name)? as usize];
        let preferred = preferred(&self.upstreams, &route.upstreams);
        let of = |(place, &index): (usize, &u32)| {
            let report = UpstreamReport::of(&self.upstreams[index as usize]);
            (UpstreamId(index), preferred >> place & 1 == 1, report)
        };
        let upstreams = route.upstreams.iter().enumerate().map(of).collect();
        Some(RouteReport { zone: route.zone.clone(), upstreams })
    }

    /// Whether some upstream that is asked for `name`, which is in lower case, is healthy.
    pub fn is_reachable(&self, name: &Name) -> bool {
        let Some(route) = self.route(name) else { return false };
        let mut upstreams = self.routes[route as usize].upstreams.iter();
        upstreams.any(|&index| self.upstreams[index as usize].is_healthy())
    }
}

//----------- Trace ----------------------------------------------------------

/// What was tried for one question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// In the order of sending.
    pub attempts: ArrayVec<Attempt, TRACE_ATTEMPTS_MAX>,
    /// How many more there were.
    pub omitted: usize,
}

/// A message that was sent. Times are from the beginning of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its exchange.
    pub exchange: ExchangeId,
    /// To whom.
    pub upstream: UpstreamId,
    /// How.
    pub carrier: Carrier,
    /// When.
    pub sent: Duration,
    /// When it was over.
    pub ended: Option<Duration>,
    /// And how.
    pub ending: Ending,
}

/// How an exchange has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Not yet.
    Waiting,
    /// With a reply that has this code.
    Replied(Rcode),
    /// Without one in time.
    TimedOut,
    /// With replies that are not true.
    Lied,
    /// The driver could not carry it.
    Failed,
    /// The driver had nothing left to carry it with.
    NoRoom,
    /// The request was over before.
    Abandoned,
}
