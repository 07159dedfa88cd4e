//! Exchanges: one message to one upstream, and what its reply tells about that upstream.

use std::time::Duration;

use crate::limits::{
    CASE_FALLBACK, EXCHANGE_LIES_MAX, NAME_LEN_MAX, PROBE_IDLE, PROBE_TIME_MAX, RESEND_TIME_MIN,
};
use crate::wire::Name;
use crate::wire::message::CLASS_IN;
use crate::wire::rtype;

use super::explain::Ending;
use super::forward::{Forwarder, Pending};
use super::query::{Query, with_case};
use super::response::Reading;
use super::slab::Slab;
use super::upstreams::Health;
use super::wheel::tick_after;
use super::{Action, Carrier, ExchangeId, UpstreamId};

/// Bits of an exchange's number that are its place; those above count all there have been.
const PLACE_BITS: u32 = 20;
const _: () = assert!(crate::limits::EXCHANGES_MAX <= 1 << PLACE_BITS);

/// What an exchange is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A request, by its slot.
    Request(u32),
    /// To see whether an upstream answers again.
    Probe,
}

/// Why a reply with the right question is not believed over UDP.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Its letters are in another case.
    Case,
    /// It does not have our cookie, and has had it before.
    Cookie,
}

/// A message that is waited for.
#[derive(Clone)]
pub(super) struct Exchange {
    pub(super) id: ExchangeId,
    pub(super) purpose: Purpose,
    pub(super) upstream: u32,
    /// The upstream's place in the forward.
    pub(super) place: u8,
    pub(super) carrier: Carrier,
    pub(super) sent: Duration,
    /// When another upstream is asked as well; once.
    pub(super) hedge_at: Duration,
    pub(super) hedged: bool,
    /// When it is not waited for any more.
    pub(super) over_at: Duration,
    /// The letters in upper case, if any may be.
    case: Option<u64>,
    pub(super) edns: bool,
    /// With a cookie.
    cookie: bool,
    pub(super) lies: u8,
    /// The upstream was backing off.
    trial: bool,
    /// What it is to clear up.
    doubt: Option<Doubt>,
}

impl Exchange {
    /// The name as it was sent.
    pub(super) fn name<'a>(&self, name: &'a [u8], out: &'a mut [u8; NAME_LEN_MAX]) -> &'a [u8] {
        self.case.map_or(name, |bits| with_case(name, bits, out))
    }
}

/// Name, QTYPE and QCLASS.
pub(super) fn question_of<'a>(
    requests: &'a Slab<Pending>,
    probe_zones: &'a [Name],
    exchange: &Exchange,
) -> (&'a [u8], u16, u16) {
    match exchange.purpose {
        Purpose::Probe => {
            let zone = &probe_zones[exchange.upstream as usize];
            (zone.as_wire(), rtype::SOA, CLASS_IN)
        }
        Purpose::Request(slot) => {
            let question = &requests.get(slot).expect("it is not done").request.question;
            (question.name.as_wire(), question.qtype, question.qclass)
        }
    }
}

impl Forwarder {
    pub(super) fn find(&self, id: ExchangeId) -> Option<u32> {
        let index = (id.0 & ((1 << PLACE_BITS) - 1)) as u32;
        self.exchanges.get(index).is_some_and(|exchange| exchange.id == id).then_some(index)
    }

    /// Sends a request's question to the upstream at `place` of its forward; there is budget.
    pub(super) fn send(
        &mut self,
        now: Duration,
        slot: u32,
        place: u8,
        carrier: Carrier,
        doubt: Option<Doubt>,
    ) {
        let pending = self.pending_mut(slot);
        if pending.exchanges.is_full() {
            return;
        }
        pending.budget -= 1;
        pending.asked |= 1 << place;
        let plain = pending.plain >> place & 1 == 1;
        let (done, asked) = (pending.done, pending.asked);
        let route = &self.routes[self.requests.get(slot).expect("as above").route as usize];
        let upstream = route.upstreams[usize::from(place)];
        let state = &mut self.upstreams[upstream as usize];
        state.renew_cookie(now, &mut self.random);
        let mixed = carrier == Carrier::Udp && state.lower_until <= now;
        let mixed = route.mixed_case && (mixed || doubt == Some(Doubt::Case));
        let edns = !plain && state.plain_until <= now;
        let (mut late, over) = state.patience(carrier);
        let is_last = (0..route.upstreams.len()).all(|place| (done | asked) >> place & 1 == 1);
        if is_last {
            late = late.max(RESEND_TIME_MIN);
        }
        let exchange = Exchange {
            id: ExchangeId(0),
            purpose: Purpose::Request(slot),
            upstream,
            place,
            carrier,
            sent: now,
            hedge_at: now + late,
            hedged: false,
            over_at: now + over,
            case: mixed.then(|| self.random.draw()),
            edns,
            cookie: edns && matches!(carrier, Carrier::Udp | Carrier::Tcp),
            lies: 0,
            trial: !state.is_healthy(),
            doubt,
        };
        let index = self.begin_exchange(exchange);
        self.pending_mut(slot).exchanges.push(index);
        if self.pending_mut(slot).trace.is_some() {
            let exchange = self.exchanges.get(index).expect("it has just begun").clone();
            self.trace_begin(now, slot, &exchange);
        }
    }

    /// Writes the message and hands it to the driver.
    fn begin_exchange(&mut self, mut exchange: Exchange) -> u32 {
        let index = self.exchanges.next();
        self.exchange_count += 1;
        exchange.id = ExchangeId(self.exchange_count << PLACE_BITS | u64::from(index));
        let mut message = self.buffers.pop().unwrap_or_else(|| Vec::with_capacity(512));
        let (checking_disabled, dnssec_ok) = match exchange.purpose {
            Purpose::Probe => (false, false),
            Purpose::Request(slot) => {
                let question = &self.requests.get(slot).expect("it is not done").request.question;
                (question.checking_disabled, question.dnssec_ok)
            }
        };
        let (name, qtype, qclass) = question_of(&self.requests, &self.probe_zones, &exchange);
        let state = &self.upstreams[exchange.upstream as usize];
        let mut buffer = [0; NAME_LEN_MAX];
        Query {
            name: exchange.name(name, &mut buffer),
            qtype,
            qclass,
            checking_disabled,
            dnssec_ok,
            edns: exchange.edns,
            cookie: exchange.cookie.then_some((&state.cookie, &state.server_cookie[..])),
            padded: matches!(exchange.carrier, Carrier::Tls | Carrier::Https | Carrier::Quic),
        }
        .write(&mut message);
        let state = &mut self.upstreams[exchange.upstream as usize];
        state.in_flight += 1;
        state.trials += u32::from(exchange.trial);
        state.tally.sent += 1;
        self.actions.push_back(Action::Send {
            exchange: exchange.id,
            upstream: UpstreamId(exchange.upstream),
            carrier: exchange.carrier,
            message,
        });
        self.exchanges.insert(exchange)
    }

    /// Takes an exchange out, of its request too.
    pub(super) fn release(&mut self, now: Duration, index: u32, ending: Ending) -> Exchange {
        let exchange = self.exchanges.remove(index).expect("it has been found");
        let state = &mut self.upstreams[exchange.upstream as usize];
        state.in_flight -= 1;
        state.trials -= u32::from(exchange.trial);
        match exchange.purpose {
            Purpose::Request(slot) => {
                self.pending_mut(slot).exchanges.retain(|held| *held != index);
                self.trace_end(now, &exchange, ending);
            }
            Purpose::Probe => state.probe = None,
        }
        exchange
    }

    //----------- What a reply tells -----------------------------------------

    /// Why a reply that is true in all else is not believed.
    pub(super) fn doubt(&self, index: u32, reading: &Reading, message: &[u8]) -> Option<Doubt> {
        let exchange = self.exchanges.get(index).expect("it has been found");
        // Nobody writes into a connection that is not theirs.
        if exchange.carrier != Carrier::Udp {
            return None;
        }
        let state = &self.upstreams[exchange.upstream as usize];
        //= RFC 7873, 5.3
        //# If the COOKIE option is present but the Client Cookie is incorrect,
        //# the response MUST be discarded.
        let wrong_cookie = match &reading.cookie {
            Some(cookie) => message[cookie.clone()][..8] != state.cookie,
            None => !state.server_cookie.is_empty(),
        };
        if exchange.cookie && wrong_cookie {
            return Some(Doubt::Cookie);
        }
        (exchange.case.is_some() && !reading.exact_case).then_some(Doubt::Case)
    }

    /// A reply over UDP is in doubt: TCP decides whether it was forged or the upstream is so.
    pub(super) fn on_doubt(&mut self, now: Duration, index: u32, doubt: Doubt) {
        let exchange = self.exchanges.get_mut(index).expect("it has been found");
        exchange.lies += 1;
        let (lies, place, purpose) = (exchange.lies, exchange.place, exchange.purpose);
        let state = &mut self.upstreams[exchange.upstream as usize];
        state.tally.lies += 1;
        if state.strike() {
            state.no_strike();
            match doubt {
                Doubt::Case => state.lower_until = now + CASE_FALLBACK,
                Doubt::Cookie => state.server_cookie.clear(),
            }
        }
        let Purpose::Request(slot) = purpose else { return };
        let pending = self.pending_mut(slot);
        if pending.streamed >> place & 1 == 0 && pending.budget > 0 {
            pending.streamed |= 1 << place;
            self.send(now, slot, place, Carrier::Tcp, Some(doubt));
            self.set_timer(slot);
        }
        if lies >= EXCHANGE_LIES_MAX {
            self.give_up(now, index, false);
        }
    }

    /// Learns what a true reply tells about its upstream.
    pub(super) fn learn(&mut self, now: Duration, index: u32, reading: &Reading, message: &[u8]) {
        let exchange = self.exchanges.get(index).expect("it has been found");
        let state = &mut self.upstreams[exchange.upstream as usize];
        state.answered(now, exchange.carrier, exchange.sent);
        self.wheel.clear(exchange.upstream);
        // A probe that was under way when its upstream said something else is not waited for.
        let probe = state.probe.filter(|probe| *probe != index);
        let over_udp = exchange.carrier == Carrier::Udp;
        if over_udp && exchange.purpose != Purpose::Probe {
            state.no_strike();
        }
        if exchange.doubt == Some(Doubt::Case) && !reading.exact_case {
            state.lower_until = now + CASE_FALLBACK;
        }
        match &reading.cookie {
            _ if !exchange.cookie => {}
            Some(cookie) if message[cookie.clone()][..8] == state.cookie => {
                let server_cookie = &message[cookie.clone()][8..];
                if !server_cookie.is_empty() {
                    state.server_cookie.clear();
                    let _ = state.server_cookie.try_extend_from_slice(server_cookie);
                }
            }
            _ if exchange.doubt == Some(Doubt::Cookie) => state.server_cookie.clear(),
            _ => {}
        }
        if let Some(probe) = probe {
            let exchange = self.release(now, probe, Ending::Abandoned);
            self.actions.push_back(Action::Abandon(exchange.id));
        }
    }

    //----------- Probes -----------------------------------------------------

    /// Asks an upstream that is backing off whether it is there, and plans the next probe.
    pub(super) fn probe(&mut self, now: Duration, upstream: u32) {
        let state = &self.upstreams[upstream as usize];
        let Health::BackingOff { since, .. } = state.health else { return };
        if let Some(index) = state.probe {
            let exchange = self.release(now, index, Ending::TimedOut);
            self.actions.push_back(Action::Abandon(exchange.id));
        }
        let state = &mut self.upstreams[upstream as usize];
        if now.saturating_sub(state.wanted) > PROBE_IDLE
            || self.exchanges.len() >= crate::limits::EXCHANGES_MAX
        {
            state.health = Health::BackingOff { since, until: None };
            return;
        }
        state.probe_interval = (state.probe_interval * 2).min(PROBE_TIME_MAX);
        // Up to a tenth sooner: probes of many do not fall together.
        let sooner = state.probe_interval / 10_000 * self.random.below(1000) as u32;
        let until = now + state.probe_interval - sooner;
        state.health = Health::BackingOff { since, until: Some(until) };
        self.wheel.set(upstream, tick_after(until));
        let index = self.begin_exchange(Exchange {
            id: ExchangeId(0),
            purpose: Purpose::Probe,
            upstream,
            place: 0,
            carrier: self.upstreams[upstream as usize].config.carrier,
            sent: now,
            hedge_at: until,
            hedged: true,
            over_at: until,
            case: None,
            edns: self.upstreams[upstream as usize].plain_until <= now,
            cookie: false,
            lies: 0,
            trial: false,
            doubt: None,
        });
        self.upstreams[upstream as usize].probe = Some(index);
    }
}
