//! Forwarding: each question goes to the upstreams of the forward that covers its name.
//!
//! ```text
//!   ask ──> launch ──> send ──┬── true reply ──────> Done(Message), the others are abandoned
//!             ^  ^            ├── TC, BADCOOKIE ───> the same upstream again: cookie, TCP
//!             │  │            ├── FORMERR, no OPT ─> the same upstream again, without OPT
//!             │  └─ as well ──┼── late
//!             └──── instead ──┴── SERVFAIL ..., lie, fault, time-out
//!                     └─ nobody is left, or no time, or no budget ──> the best reply, or Failure
//! ```
//!
//! A request has one timer; which of its exchanges is late, and which is over, is looked at then.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use arrayvec::ArrayVec;

use crate::limits::{
    EDNS_FALLBACK, EXCHANGE_LIES_MAX, EXCHANGES_MAX, FORWARD_UPSTREAMS_MAX, HEDGE_BURST,
    HEDGE_SHARE, NAME_LEN_MAX, QUESTION_EXCHANGES_MAX,
};
use crate::wire::Name;
use crate::wire::rcode::{self, Rcode};

use super::exchange::{Exchange, Purpose, question_of};
use super::explain::{Attempt, Ending, Trace, UpstreamReport, carrier_name};
use super::random::{Keyed, Random};
use super::response::{Asked, Lie, Reader, Reading, edes, printable};
use super::slab::Slab;
use super::upstreams::{Health, State, choose};
use super::wheel::{Wheel, tick_after, tick_at};
use super::{
    Action, Carrier, Ede, Edes, Engine, ExchangeId, Fault, Outcome, Request, RequestId, Security,
    Upstream, UpstreamId,
};

/// Messages kept to be written into again.
const BUFFERS_MAX: usize = 4096;
/// Octets one of them may have: what is longer came once and is let go.
const BUFFER_LEN_MAX: usize = 4096;
/// Traces kept until somebody takes them.
const TRACES_MAX: usize = 64;
/// Failures of one request that are kept to be told.
const NOTES_MAX: usize = 3;

//----------- Forward --------------------------------------------------------

/// Who is asked for the names of a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// All names in and below it that no longer zone covers.
    pub zone: Name,
    /// In no order: the fast are preferred.
    pub upstreams: Vec<Upstream>,
    /// Letters of names go over UDP in random case, and must come back so (0x20).
    pub mixed_case: bool,
    /// When one is late, another is asked as well.
    pub hedge: bool,
}

impl Forward {
    /// `upstreams` for `zone`, all else as is usual.
    pub fn new(zone: Name, upstreams: Vec<Upstream>) -> Forward {
        Forward { zone, upstreams, mixed_case: true, hedge: true }
    }
}

/// A forward, its upstreams by their places in the engine's list.
pub(super) struct Route {
    pub(super) zone: Name,
    pub(super) upstreams: Vec<u32>,
    pub(super) mixed_case: bool,
    pub(super) hedge: bool,
}

//----------- Pending --------------------------------------------------------

/// How good a reply is that nobody would prefer to a true answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Odd,
    Refused,
    ServerFailure,
    Truncated,
}

struct Kept {
    rank: Rank,
    message: Vec<u8>,
    edes: Edes,
}

/// A request that is not done.
pub(super) struct Pending {
    id: RequestId,
    pub(super) request: Request,
    pub(super) route: u32,
    begun: Duration,
    pub(super) budget: u16,
    pub(super) exchanges: ArrayVec<u32, QUESTION_EXCHANGES_MAX>,
    /// Places of the route's upstreams that are not asked again.
    pub(super) done: u32,
    /// Those that have been asked.
    pub(super) asked: u32,
    /// Those that are asked without OPT.
    pub(super) plain: u32,
    /// Those that have been asked over TCP because UDP would not do.
    pub(super) streamed: u32,
    /// Those that have been given their new cookie.
    cookie_renewed: u32,
    /// Those whose connection has broken once.
    broken: u32,
    best: Option<Box<Kept>>,
    notes: ArrayVec<(u8, &'static str), NOTES_MAX>,
    pub(super) trace: Option<Box<Trace>>,
}

impl Pending {
    fn note(&mut self, place: u8, text: &'static str) {
        if !self.notes.contains(&(place, text)) {
            let _ = self.notes.try_push((place, text));
        }
    }

    /// Keeps a reply that will do if nothing better comes.
    fn keep(&mut self, rank: Rank, message: &[u8], reading: &Reading) {
        if reading.whole && self.best.as_ref().is_none_or(|best| best.rank < rank) {
            let edes = edes(message, reading);
            self.best = Some(Box::new(Kept { rank, message: message.to_vec(), edes }));
        }
    }
}

//----------- Forwarder ------------------------------------------------------

/// The engine that asks upstreams.
pub struct Forwarder {
    pub(super) routes: Vec<Route>,
    by_zone: HashMap<Box<[u8]>, u32, Keyed>,
    /// A bit for each number of labels that a forward's zone has.
    depths: u128,
    pub(super) upstreams: Vec<State>,
    /// For each upstream, the first zone it is asked for: probes ask for its SOA.
    pub(super) probe_zones: Vec<Name>,
    pub(super) requests: Slab<Pending>,
    pub(super) exchanges: Slab<Exchange>,
    /// How many exchanges there have been: what makes their numbers differ.
    pub(super) exchange_count: u64,
    by_id: HashMap<RequestId, u32, Keyed>,
    /// The upstreams' probes first, then the requests.
    pub(super) wheel: Wheel,
    pub(super) actions: VecDeque<Action>,
    reader: Reader,
    pub(super) random: Random,
    pub(super) buffers: Vec<Vec<u8>>,
    /// Hedges that may be sent, in parts of one.
    hedge_credit: u32,
    traces: VecDeque<(RequestId, Trace)>,
}

impl Forwarder {
    /// Forwards as told. Upstreams that are equal are one. Of forwards for the same zone the last
    /// counts; of more upstreams than [`FORWARD_UPSTREAMS_MAX`] the first are asked.
    pub fn new(forwards: &[Forward], mut random: Random) -> Forwarder {
        let (mut upstreams, mut probe_zones) = (Vec::<State>::new(), Vec::new());
        let (mut routes, mut depths) = (Vec::new(), 0);
        let mut by_zone = HashMap::with_hasher(Keyed(random.draw()));
        for (index, forward) in forwards.iter().enumerate() {
            let zone = forward.zone.to_lowercase();
            let places = forward.upstreams.iter().take(FORWARD_UPSTREAMS_MAX).map(|upstream| {
                let known = upstreams.iter().position(|state| state.config == *upstream);
                known.unwrap_or_else(|| {
                    upstreams.push(State::new(upstream.clone(), &mut random));
                    probe_zones.push(zone.clone());
                    upstreams.len() - 1
                }) as u32
            });
            let places = places.collect();
            depths |= 1 << zone.label_count();
            by_zone.insert(zone.as_wire().into(), index as u32);
            let Forward { mixed_case, hedge, .. } = *forward;
            routes.push(Route { zone, upstreams: places, mixed_case, hedge });
        }
        Forwarder {
            routes,
            by_zone,
            depths,
            upstreams,
            probe_zones,
            requests: Slab::new(),
            exchanges: Slab::new(),
            exchange_count: 0,
            by_id: HashMap::with_hasher(Keyed(random.draw())),
            wheel: Wheel::new(),
            actions: VecDeque::new(),
            reader: Reader::new(),
            random,
            buffers: Vec::new(),
            hedge_credit: HEDGE_BURST * HEDGE_SHARE,
            traces: VecDeque::new(),
        }
    }

    /// What `upstream` is; `None` for a number that no action has named.
    pub fn upstream(&self, upstream: UpstreamId) -> Option<&Upstream> {
        self.upstreams.get(upstream.0 as usize).map(|state| &state.config)
    }

    /// All that is known of each upstream, in the order of their numbers.
    pub fn upstreams(&self) -> impl Iterator<Item = UpstreamReport> + '_ {
        self.upstreams.iter().map(UpstreamReport::of)
    }

    /// The zone whose upstreams are asked for `name`, which is in lower case.
    pub fn covering(&self, name: &Name) -> Option<&Name> {
        self.route(name).map(|route| &self.routes[route as usize].zone)
    }

    /// Requests that are not done.
    pub fn pending(&self) -> usize {
        self.requests.len()
    }

    /// As [`Engine::ask`]; [`Forwarder::take_trace`] has what was tried, once it is done.
    pub fn ask_traced(&mut self, now: Duration, id: RequestId, request: Request) {
        self.begin(now, id, request, Some(Box::default()));
    }

    /// What was tried for a request that was asked traced and is done; once, and not for ever: only
    /// the last few are kept.
    pub fn take_trace(&mut self, id: RequestId) -> Option<Trace> {
        let place = self.traces.iter().position(|(traced, _)| *traced == id)?;
        self.traces.remove(place).map(|(_, trace)| trace)
    }

    pub(super) fn route(&self, name: &Name) -> Option<u32> {
        let mut suffix = name.as_wire();
        for depth in (0..=name.label_count()).rev() {
            if self.depths >> depth & 1 == 1
                && let Some(&route) = self.by_zone.get(suffix)
            {
                return Some(route);
            }
            suffix = &suffix[(1 + usize::from(suffix[0])).min(suffix.len())..];
        }
        None
    }

    fn begin(&mut self, now: Duration, id: RequestId, request: Request, trace: Option<Box<Trace>>) {
        let route = self.route(&request.question.name);
        let Some(route) = route.filter(|_| tick_at(request.deadline) > tick_at(now)) else {
            let text = match route {
                None => "no forward covers this name",
                Some(_) => "there was no time to ask",
            };
            let ede = Ede { code: rcode::EDE_NO_REACHABLE_AUTHORITY, text: text.into() };
            let edes = Edes::from_iter([ede]);
            self.keep_trace(id, trace);
            self.actions.push_back(Action::Done(id, Outcome::Failure { edes }));
            return;
        };
        self.hedge_credit = (self.hedge_credit + 1).min(HEDGE_BURST * HEDGE_SHARE);
        let budget = request.budget;
        let slot = self.requests.insert(Pending {
            id,
            request,
            route,
            begun: now,
            budget,
            exchanges: ArrayVec::new(),
            done: 0,
            asked: 0,
            plain: 0,
            streamed: 0,
            cookie_renewed: 0,
            broken: 0,
            best: None,
            notes: ArrayVec::new(),
            trace,
        });
        self.by_id.insert(id, slot);
        self.proceed(now, slot);
    }

    pub(super) fn pending_mut(&mut self, slot: u32) -> &mut Pending {
        self.requests.get_mut(slot).expect("a request that has an exchange or a timer is there")
    }

    //----------- What comes next --------------------------------------------

    /// Asks the next upstream if none is being asked, or ends the request; sets its timer.
    fn proceed(&mut self, now: Duration, slot: u32) {
        if self.pending_mut(slot).exchanges.is_empty() && !self.launch(now, slot, false) {
            return self.conclude(now, slot);
        }
        self.set_timer(slot);
    }

    pub(super) fn set_timer(&mut self, slot: u32) {
        let Some(pending) = self.requests.get(slot) else { return };
        let hedge = self.routes[pending.route as usize].hedge;
        let exchanges = pending.exchanges.iter().filter_map(|&index| self.exchanges.get(index));
        let next = exchanges.map(|exchange| match exchange.hedged || !hedge {
            true => exchange.over_at,
            false => exchange.hedge_at,
        });
        // A request ends before its deadline rather than after it.
        let deadline = tick_at(pending.request.deadline);
        let tick = next.map(tick_after).min().map_or(deadline, |tick| tick.min(deadline));
        self.wheel.set(self.upstreams.len() as u32 + slot, tick);
    }

    /// Sends to the upstream that is best. Returns whether there was one, and budget.
    fn launch(&mut self, now: Duration, slot: u32, hedge: bool) -> bool {
        let pending = self.requests.get(slot).expect("it is not done");
        if pending.budget == 0
            || pending.exchanges.is_full()
            || self.exchanges.len() >= EXCHANGES_MAX
        {
            return false;
        }
        let route = &self.routes[pending.route as usize];
        let (done, asked) = (pending.done, pending.asked);
        let upstreams = &mut self.upstreams;
        let place = choose(upstreams, &route.upstreams, now, done, asked, &mut self.random);
        let carrier = place.map(|place| upstreams[route.upstreams[place] as usize].config.carrier);
        let route = pending.route as usize;
        for place in 0..self.routes[route].upstreams.len() {
            self.plan_probe(now, self.routes[route].upstreams[place]);
        }
        let (Some(place), Some(carrier)) = (place, carrier) else { return false };
        // A second message on the same connection comes no sooner than the first.
        if hedge && asked >> place & 1 == 1 && carrier != Carrier::Udp {
            return false;
        }
        self.send(now, slot, place as u8, carrier, None);
        true
    }

    /// Ends a request that nothing more can be done for.
    fn conclude(&mut self, now: Duration, slot: u32) {
        let outcome = match self.pending_mut(slot).best.take() {
            Some(kept) => {
                let Kept { rank, message, mut edes } = *kept;
                if rank != Rank::Truncated {
                    self.explain_failure(slot, &mut edes);
                }
                Outcome::Message { message, security: Security::Unchecked, edes }
            }
            None => {
                let pending = self.requests.get(slot).expect("it is not done");
                let zone = self.routes[pending.route as usize].zone.to_string();
                let zone = printable(&zone);
                let text = match pending.budget {
                    0 => format!("no more may be asked of the upstreams of {zone}"),
                    _ => format!("no upstream of {zone} has answered"),
                };
                let mut edes = Edes::new();
                edes.push(Ede { code: rcode::EDE_NO_REACHABLE_AUTHORITY, text });
                self.explain_failure(slot, &mut edes);
                Outcome::Failure { edes }
            }
        };
        self.finish(now, slot, Some(outcome), false);
    }

    /// Adds which upstreams have failed, and how, as far as there is room.
    fn explain_failure(&mut self, slot: u32, edes: &mut Edes) {
        let pending = self.requests.get(slot).expect("it is not done");
        let route = &self.routes[pending.route as usize].upstreams;
        let mut add = |place: usize, text: &str| {
            let config = &self.upstreams[route[place] as usize].config;
            let text = format!("{} over {} {text}", config.address, carrier_name(config.carrier));
            let _ = edes.try_push(Ede { code: rcode::EDE_NETWORK_ERROR, text });
        };
        pending.notes.iter().for_each(|&(place, text)| add(usize::from(place), text));
        for (place, &upstream) in route.iter().enumerate() {
            let told = pending.notes.iter().any(|&(noted, _)| usize::from(noted) == place);
            if !told && !self.upstreams[upstream as usize].is_healthy() {
                add(place, "does not answer: it is left alone for a while");
            }
        }
    }

    /// Takes the request out; its exchanges are abandoned.
    fn finish(&mut self, now: Duration, slot: u32, outcome: Option<Outcome>, won: bool) {
        while let Some(&index) = self.pending_mut(slot).exchanges.last() {
            let exchange = self.release(now, index, Ending::Abandoned);
            self.actions.push_back(Action::Abandon(exchange.id));
            if won && now >= exchange.hedge_at {
                let state = &mut self.upstreams[exchange.upstream as usize];
                state.outrun(now, exchange.carrier, exchange.sent);
                self.plan_probe(now, exchange.upstream);
            }
        }
        let pending = self.requests.remove(slot).expect("it is not done");
        self.wheel.clear(self.upstreams.len() as u32 + slot);
        self.by_id.remove(&pending.id);
        self.keep_trace(pending.id, pending.trace);
        if let Some(outcome) = outcome {
            self.actions.push_back(Action::Done(pending.id, outcome));
        }
    }

    fn keep_trace(&mut self, id: RequestId, trace: Option<Box<Trace>>) {
        let Some(trace) = trace else { return };
        if self.traces.len() == TRACES_MAX {
            self.traces.pop_front();
        }
        self.traces.push_back((id, *trace));
    }

    //----------- Replies ----------------------------------------------------

    /// Decides what a true reply to `exchange`, which is released, means for its request.
    fn decide(
        &mut self,
        now: Duration,
        slot: u32,
        exchange: &Exchange,
        reading: &Reading,
        message: &[u8],
    ) {
        let bit = 1 << exchange.place;
        let pending = self.pending_mut(slot);
        let over_udp = exchange.carrier == Carrier::Udp;
        if over_udp && reading.truncated {
            pending.keep(Rank::Truncated, message, reading);
            return self.stream(now, slot, exchange.place);
        }
        if over_udp && reading.rcode == rcode::BADCOOKIE {
            //= RFC 7873, 5.3: retry with the new server cookie, then over TCP.
            if pending.cookie_renewed & bit != 0 || reading.cookie.is_none() {
                return self.stream(now, slot, exchange.place);
            }
            pending.cookie_renewed |= bit;
            return self.again(now, slot, exchange);
        }
        let unknown = matches!(reading.rcode, rcode::FORMERR | rcode::NOTIMP);
        let no_edns = unknown && reading.options.is_none() || reading.rcode == rcode::BADVERS;
        if exchange.edns && no_edns && pending.plain & bit == 0 {
            pending.plain |= bit;
            return self.again(now, slot, exchange);
        }
        if pending.plain & bit != 0 && !unknown {
            let state = &mut self.upstreams[exchange.upstream as usize];
            state.plain_until = state.plain_until.max(now + EDNS_FALLBACK);
        }
        let Some(rank) = rank_of(reading) else {
            let mut copy = self.buffers.pop().unwrap_or_default();
            copy.clear();
            copy.extend_from_slice(message);
            let edes = edes(message, reading);
            let outcome = Outcome::Message { message: copy, security: Security::Unchecked, edes };
            return self.finish(now, slot, Some(outcome), true);
        };
        let pending = self.pending_mut(slot);
        pending.keep(rank, message, reading);
        pending.done |= bit;
        self.upstreams[exchange.upstream as usize].tally.refusals += 1;
        self.proceed(now, slot);
    }

    /// Sends to the same upstream once more, the same way.
    fn again(&mut self, now: Duration, slot: u32, exchange: &Exchange) {
        if self.pending_mut(slot).budget > 0 {
            self.send(now, slot, exchange.place, exchange.carrier, None);
        }
        self.proceed(now, slot);
    }

    /// Asks the same upstream over TCP, unless that has been tried.
    fn stream(&mut self, now: Duration, slot: u32, place: u8) {
        let pending = self.pending_mut(slot);
        if pending.streamed >> place & 1 == 0 && pending.budget > 0 {
            pending.streamed |= 1 << place;
            self.send(now, slot, place, Carrier::Tcp, None);
        }
        self.proceed(now, slot);
    }

    /// Goes on after `exchange`, which is released, has come to nothing.
    fn after_failure(
        &mut self,
        now: Duration,
        exchange: &Exchange,
        over: bool,
        text: &'static str,
    ) {
        self.plan_probe(now, exchange.upstream);
        let Purpose::Request(slot) = exchange.purpose else { return };
        let pending = self.pending_mut(slot);
        pending.note(exchange.place, text);
        if over {
            pending.done |= 1 << exchange.place;
        }
        self.proceed(now, slot);
    }

    /// Does what is due for a request.
    fn look_at(&mut self, now: Duration, slot: u32) {
        let Some(pending) = self.requests.get(slot) else { return };
        let route = pending.route as usize;
        if tick_at(pending.request.deadline) <= tick_at(now) {
            return self.run_out(now, slot);
        }
        let (mut late, exchanges) = (false, pending.exchanges.clone());
        let in_flight = exchanges.len();
        for index in exchanges {
            let exchange = self.exchanges.get_mut(index).expect("the request has it");
            if exchange.over_at <= now {
                self.time_out(now, index);
            } else if exchange.hedge_at <= now && !exchange.hedged {
                (exchange.hedged, late) = (true, true);
            }
        }
        let none_left = self.pending_mut(slot).exchanges.is_empty();
        if late
            && !none_left
            && self.routes[route].hedge
            && in_flight + 1 < QUESTION_EXCHANGES_MAX
            && self.hedge_credit >= HEDGE_SHARE
            && self.launch(now, slot, true)
        {
            self.hedge_credit -= HEDGE_SHARE;
        }
        self.proceed(now, slot);
    }

    /// Ends a request whose deadline has come.
    fn run_out(&mut self, now: Duration, slot: u32) {
        while let Some(&index) = self.pending_mut(slot).exchanges.last() {
            // Who has not had the time to answer is not to blame.
            if self.exchanges.get(index).is_some_and(|exchange| exchange.hedge_at <= now) {
                self.time_out(now, index);
            } else {
                let exchange = self.release(now, index, Ending::Abandoned);
                self.pending_mut(slot).note(exchange.place, "has not answered in time");
                self.actions.push_back(Action::Abandon(exchange.id));
            }
        }
        self.conclude(now, slot);
    }

    fn time_out(&mut self, now: Duration, index: u32) {
        let exchange = self.release(now, index, Ending::TimedOut);
        self.actions.push_back(Action::Abandon(exchange.id));
        let state = &mut self.upstreams[exchange.upstream as usize];
        state.timed_out(now, exchange.carrier, exchange.sent);
        self.plan_probe(now, exchange.upstream);
        if let Purpose::Request(slot) = exchange.purpose {
            self.pending_mut(slot).note(exchange.place, "has not answered in time");
        }
    }

    /// Writes down how an exchange has ended.
    pub(super) fn trace_end(&mut self, now: Duration, exchange: &Exchange, ending: Ending) {
        let Purpose::Request(slot) = exchange.purpose else { return };
        let pending = self.pending_mut(slot);
        let begun = pending.begun;
        let Some(trace) = &mut pending.trace else { return };
        let attempt = trace.attempts.iter_mut().find(|attempt| attempt.exchange == exchange.id);
        if let Some(attempt) = attempt {
            (attempt.ended, attempt.ending) = (Some(now.saturating_sub(begun)), ending);
        }
    }

    /// Writes down that an exchange begins.
    pub(super) fn trace_begin(&mut self, now: Duration, slot: u32, exchange: &Exchange) {
        let pending = self.pending_mut(slot);
        let begun = pending.begun;
        let Some(trace) = &mut pending.trace else { return };
        let attempt = Attempt {
            exchange: exchange.id,
            upstream: UpstreamId(exchange.upstream),
            carrier: exchange.carrier,
            sent: now.saturating_sub(begun),
            ended: None,
            ending: Ending::Waiting,
        };
        trace.omitted += usize::from(trace.attempts.try_push(attempt).is_err());
    }
}

/// How good a reply is; `None`: it is the answer.
fn rank_of(reading: &Reading) -> Option<Rank> {
    let rank = |rcode: Rcode| match rcode {
        rcode::NOERROR | rcode::NXDOMAIN | rcode::YXDOMAIN => None,
        rcode::SERVFAIL => Some(Rank::ServerFailure),
        rcode::REFUSED => Some(Rank::Refused),
        _ => Some(Rank::Odd),
    };
    match rank(reading.rcode) {
        None if reading.truncated => Some(Rank::Truncated),
        None if reading.referral => Some(Rank::Odd),
        rank => rank,
    }
}

//----------- Engine ---------------------------------------------------------

impl Engine for Forwarder {
    fn ask(&mut self, now: Duration, id: RequestId, request: Request) {
        self.begin(now, id, request, None);
    }

    fn cancel(&mut self, id: RequestId) {
        if let Some(&slot) = self.by_id.get(&id) {
            let begun = self.pending_mut(slot).begun;
            self.finish(begun, slot, None, false);
        }
    }

    fn on_reply(&mut self, now: Duration, exchange: ExchangeId, message: &[u8]) -> bool {
        let Some(index) = self.find(exchange) else { return false };
        let reading = match self.read(index, message) {
            Ok(reading) => reading,
            Err(_) => {
                self.on_lie(now, index);
                return false;
            }
        };
        if let Some(doubt) = self.doubt(index, &reading, message) {
            self.on_doubt(now, index, doubt);
            return false;
        }
        self.learn(now, index, &reading, message);
        let exchange = self.release(now, index, Ending::Replied(reading.rcode));
        if let Purpose::Request(slot) = exchange.purpose {
            self.decide(now, slot, &exchange, &reading, message);
        }
        true
    }

    fn on_fault(&mut self, now: Duration, exchange: ExchangeId, fault: Fault) {
        let Some(index) = self.find(exchange) else { return };
        let (ending, text) = match &fault {
            Fault::Refused => (Ending::Failed, "refuses connections"),
            Fault::Connection(_) => (Ending::Failed, "could not be reached, or hung up"),
            Fault::Certificate(_) => (Ending::Failed, "has a certificate that is not its own"),
            Fault::Protocol(_) => (Ending::Failed, "does not speak the protocol"),
            Fault::NoRoom => (Ending::NoRoom, "was not asked: too many questions at once"),
        };
        // A connection that has been idle may break just when it is used: once more.
        let again = matches!(fault, Fault::Connection(_));
        let exchange = self.release(now, index, ending);
        let carrier = exchange.carrier;
        let state = &mut self.upstreams[exchange.upstream as usize];
        state.fault(now, carrier, exchange.sent, bounded(fault));
        let mut over = true;
        if let Purpose::Request(slot) = exchange.purpose {
            let pending = self.pending_mut(slot);
            let bit = 1 << exchange.place;
            over = !again || pending.broken & bit != 0;
            pending.broken |= bit;
            if !over && pending.streamed & bit != 0 {
                pending.streamed &= !bit;
                return self.stream(now, slot, exchange.place);
            }
        }
        self.after_failure(now, &exchange, over, text);
    }

    fn on_time(&mut self, now: Duration) {
        while let Some(timer) = self.wheel.pop(now) {
            match timer.checked_sub(self.upstreams.len() as u32) {
                None => self.probe(now, timer),
                Some(slot) => self.look_at(now, slot),
            }
        }
    }

    fn deadline(&self) -> Option<Duration> {
        self.wheel.next_time()
    }

    fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn recycle(&mut self, message: Vec<u8>) {
        if self.buffers.len() < BUFFERS_MAX && message.capacity() <= BUFFER_LEN_MAX {
            self.buffers.push(message);
        }
    }
}

/// A fault to be kept: its text is bounded.
fn bounded(fault: Fault) -> Fault {
    let cut = |text: String| printable(&text);
    match fault {
        Fault::Connection(text) => Fault::Connection(cut(text)),
        Fault::Certificate(text) => Fault::Certificate(cut(text)),
        Fault::Protocol(text) => Fault::Protocol(cut(text)),
        other => other,
    }
}

impl Forwarder {
    /// What `message` says, as the reply of an exchange.
    fn read(&mut self, index: u32, message: &[u8]) -> Result<Reading, Lie> {
        let exchange = self.exchanges.get(index).expect("it has been found");
        let mut buffer = [0; NAME_LEN_MAX];
        let (name, qtype, qclass) = question_of(&self.requests, &self.probe_zones, exchange);
        let name = exchange.name(name, &mut buffer);
        self.reader.read(message, &Asked { name, qtype, qclass })
    }

    /// Counts a lie. Behind a forged datagram the true one may still come; a connection has one
    /// reply for each message, and it was this.
    fn on_lie(&mut self, now: Duration, index: u32) {
        let exchange = self.exchanges.get_mut(index).expect("it has been found");
        exchange.lies += 1;
        let over = exchange.carrier != Carrier::Udp || exchange.lies >= EXCHANGE_LIES_MAX;
        let upstream = exchange.upstream;
        self.upstreams[upstream as usize].lied(now);
        self.plan_probe(now, upstream);
        if over {
            self.give_up(now, index, true);
        }
    }

    /// Abandons an exchange that has brought lies; `over`: its upstream is not asked again.
    pub(super) fn give_up(&mut self, now: Duration, index: u32, over: bool) {
        let exchange = self.release(now, index, Ending::Lied);
        self.actions.push_back(Action::Abandon(exchange.id));
        self.after_failure(now, &exchange, over, "has said what is not true");
    }

    /// When an upstream that is backing off is probed next, if that is not yet known.
    pub(super) fn plan_probe(&mut self, now: Duration, index: u32) {
        let state = &mut self.upstreams[index as usize];
        if let Health::BackingOff { since, until: None } = state.health {
            // After a pause without questions it is high time.
            let wait = if since == now { state.probe_interval } else { Duration::ZERO };
            let until = Some(now + wait);
            state.health = Health::BackingOff { since, until };
            self.wheel.set(index, tick_after(now + wait));
        }
    }
}

#[cfg(test)]
mod tests;
