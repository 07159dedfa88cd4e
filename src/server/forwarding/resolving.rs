//! The thread that resolves: misses in, questions to upstreams, answers into the cache and back.
//!
//! ```text
//!   misses ──> answered by now? ──> flight: one for all who ask the same ──> engine ──> upstreams
//!                                     │ waiters                                │
//!   core's socket, connection <── answered again, as the cores do <── cache <──┘ outcome
//! ```
//!
//! It never builds a message for a client: once an answer is in the cache, or is given beside it,
//! the query is answered by the one function that answers. What takes too long is answered with
//! what is stale, if there is any, and goes on.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use crate::answer::{
    CoreState, Exchange, Misses as Mode, Ticket, Transport, Verdict, Wanted, answer_batch,
};
use crate::cache::{self, Aside, Cache, Holding, Key, Prepared, flag};
use crate::limits::{ANSWER_SIZE_MAX, MESSAGE_SIZE_MAX};
use crate::memory::epoch::Reader;
use crate::net::Replier;
use crate::net::client::pool::{Arrival, PortPool, Unqueued};
use crate::policy::{Judgement, Rebinding, mapped, subscriber};
use crate::resolver::{
    Action, Carrier, Ede, Engine, ExchangeId, Fault, Forwarder, Outcome, Question, Request,
    RequestId,
};
use crate::snapshot::Snapshot;
use crate::wire::message::CLASS_IN;
use crate::wire::rcode::EDE_NETWORK_ERROR;
use crate::wire::{LowerName, Name};

use super::clearing::Clearing;
use super::misses::{Back, Miss, Misses};
use super::upstream::Streams;

use counters::count;
use flights::{Flight, Flights, Waiter};
use orders::Told;
use outbox::Outbox;

pub use counters::ResolveCounters;

mod counters;
mod flights;
pub mod orders;
mod outbox;

/// Misses taken in one turn, answers of connections, and clients answered without a pause: a hit
/// that comes meanwhile waits so long.
const TURN_COUNT_MAX: usize = 8;
/// Pauses in one turn: what else is to be done does not wait for longer.
const TURN_PAUSES_MAX: u32 = 16;
/// The longest wait: whether it is to end is asked as often.
const WAIT_MAX: Duration = Duration::from_millis(200);
/// Questions that one query may lead to: aliases of zones here that lead out of them.
const ROUNDS_MAX: u8 = 4;
/// Messages that may be sent for one question.
const BUDGET: u16 = 12;
/// What clients are told of an answer that cannot be used: an Extended DNS Error.
const UNUSABLE: (u16, &str) =
    (EDE_NETWORK_ERROR, "the answer of the upstream is cut short, or cannot be used");
/// Queries that wait for each question that may be in flight, all questions taken together.
const WAITERS_PER_QUESTION: usize = 8;

//----------- Resolving ------------------------------------------------------

/// What one forward adds to its answers.
#[derive(Clone)]
pub struct Terms {
    /// Its zone, in lower case.
    pub zone: Name,
    /// Whether AD of its upstreams is believed.
    pub trusts_ad: bool,
    /// Whether private addresses are kept from clients.
    pub guards: bool,
}

/// Bounds of what is in flight.
#[derive(Clone, Copy, Debug)]
pub struct Outstanding {
    /// Questions, of all clients.
    pub all: usize,
    /// Questions of one client.
    pub client: usize,
    /// How long one may take.
    pub timeout: Duration,
    /// After how long a client gets what is stale.
    pub stale_after: Duration,
}

/// What the thread works with.
pub struct Resolving {
    /// Where questions come from.
    pub misses: Arc<Misses>,
    /// What clients are answered from.
    pub snapshot: Reader<Snapshot>,
    /// What they are answered with; its cache is the one that is filled.
    pub core: CoreState,
    /// Where answers are kept.
    pub cache: Cache,
    /// Has its memory ready.
    pub clearing: Clearing,
    /// How long.
    pub holding: Holding,
    /// The cores' sockets.
    pub repliers: Vec<Replier>,
    /// Who is asked, and how it goes.
    pub forwarder: Forwarder,
    /// Questions over UDP.
    pub pool: PortPool,
    /// Where in the pool each upstream is that is asked over UDP.
    pub pool_places: Vec<Option<usize>>,
    /// Questions over everything else.
    pub streams: Streams,
    /// What is particular to forwards.
    pub terms: Vec<Terms>,
    /// What judges answers from outside.
    pub rebinding: Option<Rebinding>,
    /// How much there may be at once.
    pub outstanding: Outstanding,
    /// When time began for all threads.
    pub started: Instant,
    /// What happened.
    pub counters: Arc<ResolveCounters>,
}

/// A thread's state while it runs.
struct Driver {
    parts: Resolving,
    flights: Flights,
    prepared: Box<Prepared>,
    buffer: Box<[u8]>,
    outbox: Outbox,
    /// Replies in it.
    unsent: usize,
    pauses_left: u32,
    /// What the pool has counted so far.
    seen: [u64; 3],
    /// Questions whose attempts are written down, and who is told of them.
    traced: Vec<(u64, Wanted, SyncSender<Told>)>,
}

/// Resolves until `stop` is set.
pub fn run(parts: Resolving, stop: &AtomicBool) -> io::Result<()> {
    let mut driver = Driver {
        parts,
        flights: Flights::new(),
        outbox: Outbox::default(),
        unsent: 0,
        pauses_left: 0,
        seen: [0; 3],
        prepared: Box::default(),
        buffer: vec![0; MESSAGE_SIZE_MAX].into(),
        traced: Vec::new(),
    };
    while !stop.load(Ordering::Relaxed) {
        driver.turn()?;
    }
    Ok(())
}

impl Driver {
    fn now(&self) -> Duration {
        self.parts.started.elapsed()
    }

    fn turn(&mut self) -> io::Result<()> {
        self.pauses_left = TURN_PAUSES_MAX;
        self.pause();
        let now = self.now();
        let mut is_all = self.arrivals(now)?;
        self.actions(now)?;
        self.pause();
        // By `now` nothing is late that may have come since.
        let mut left = TURN_COUNT_MAX;
        while left > 0
            && let Some(miss) = self.parts.misses.pop()
        {
            left -= 1;
            if !matches!(miss.back, Back::Nobody) {
                count(&self.parts.counters.misses);
            }
            let waiter = Waiter { client: client_of(&miss), miss, rounds: 0 };
            self.take(waiter, now);
        }
        is_all &= left > 0;
        self.obey_all(now);
        self.parts.forwarder.on_time(now);
        self.actions(now)?;
        self.be_patient(now);
        self.parts.clearing.nudge();
        self.parts.pool.flush()?;
        self.outbox.empty(&self.parts.repliers);
        let due = [self.parts.forwarder.deadline(), self.flights.next_impatient()];
        let now = self.now();
        let next = due.into_iter().flatten().min().map_or(WAIT_MAX, |at| at.saturating_sub(now));
        // Nobody calls for what is left.
        self.parts.pool.wait(if is_all { next.min(WAIT_MAX) } else { Duration::ZERO })
    }

    /// Sends what there is, then hits go first, as often as a turn may wait.
    fn pause(&mut self) {
        self.outbox.empty(&self.parts.repliers);
        self.unsent = 0;
        if self.pauses_left == 0 {
            return;
        }
        self.pauses_left -= 1;
        if self.parts.misses.precedence.let_pass(&self.parts.repliers) {
            count(&self.parts.counters.gave_way);
        }
    }

    /// Replies and faults of upstreams; whether those of connections are all there are.
    fn arrivals(&mut self, now: Duration) -> io::Result<bool> {
        let Resolving { pool, streams, forwarder, .. } = &mut self.parts;
        pool.receive(&mut |exchange, arrival| {
            let exchange = ExchangeId(exchange);
            match arrival {
                Arrival::Reply(octets) => return forwarder.on_reply(now, exchange, octets),
                Arrival::Refused => forwarder.on_fault(now, exchange, Fault::Refused),
                Arrival::Unsent => forwarder.on_fault(now, exchange, Fault::NoRoom),
            }
            true
        })?;
        let count = streams.receive(TURN_COUNT_MAX, &mut |exchange, result| match result {
            Ok(message) => {
                forwarder.on_reply(now, ExchangeId(exchange), &message);
                forwarder.recycle(message);
            }
            Err(fault) => forwarder.on_fault(now, ExchangeId(exchange), fault),
        });
        let (of_pool, counters) = (pool.counters(), &self.parts.counters);
        let totals = [of_pool.unmatched, of_pool.declined, of_pool.oversized];
        let all = [&counters.unmatched, &counters.declined, &counters.oversized];
        for ((counter, total), seen) in all.into_iter().zip(totals).zip(&mut self.seen) {
            // A new pool begins anew.
            let before = if total < *seen { 0 } else { *seen };
            counter.store(counter.load(Ordering::Relaxed) + total - before, Ordering::Relaxed);
            *seen = total;
        }
        Ok(count < TURN_COUNT_MAX)
    }

    /// Does what the engine asks for.
    fn actions(&mut self, now: Duration) -> io::Result<()> {
        while let Some(action) = self.parts.forwarder.poll() {
            match action {
                Action::Send { exchange, upstream, carrier, message } => {
                    self.send(now, exchange, (upstream.0 as usize, carrier), message)?;
                }
                Action::Abandon(exchange) => {
                    if !self.parts.pool.abandon(exchange.0) {
                        self.parts.streams.abandon(exchange.0);
                    }
                }
                Action::Done(id, outcome) => self.done(now, id.0, outcome),
            }
        }
        Ok(())
    }

    fn send(
        &mut self,
        now: Duration,
        exchange: ExchangeId,
        (upstream, carrier): (usize, Carrier),
        message: Vec<u8>,
    ) -> io::Result<()> {
        let Resolving { pool, streams, forwarder, pool_places, .. } = &mut self.parts;
        let place = pool_places.get(upstream).copied().flatten();
        let Some(place) = place.filter(|_| carrier == Carrier::Udp) else {
            if !streams.send(exchange.0, upstream, message) {
                forwarder.on_fault(now, exchange, Fault::NoRoom);
            }
            return Ok(());
        };
        let mut queued = pool.queue(place, exchange.0, &message);
        if queued == Err(Unqueued::BatchFull) {
            pool.flush()?;
            queued = pool.queue(place, exchange.0, &message);
        }
        if queued.is_err() {
            forwarder.on_fault(now, exchange, Fault::NoRoom);
        }
        forwarder.recycle(message);
        Ok(())
    }

    //----------- Waiters ------------------------------------------------------

    /// Answers a query if the cache can by now; else it waits for what it needs.
    fn take(&mut self, waiter: Waiter, now: Duration) {
        if self.is_missing(&waiter.miss, now) {
            return self.wait_for(waiter, now);
        }
        let Some(len) = self.answer(&waiter.miss, now) else {
            return self.wait_for(waiter, now);
        };
        if matches!(waiter.miss.back, Back::Nobody) {
            // What is fresh is asked for anew all the same: that is what it is for.
            return self.ask_anew(waiter, now);
        }
        count(&self.parts.counters.answered_meanwhile);
        self.reply(waiter.miss.back, len);
    }

    /// Whether a query asks for its own name, and the cache has no fresh answer yet: what is wanted
    /// is then known.
    fn is_missing(&mut self, miss: &Miss, now: Duration) -> bool {
        let core = &mut self.parts.core;
        let Some(name_hash) = miss.name_hash else { return false };
        if !core.wanted.read(miss.query(), name_hash) {
            return false;
        }
        let Some(reader) = &mut core.cache else { return true };
        let held = reader.pin();
        let held = held.find(&core.wanted.key());
        !held.is_some_and(|held| held.entry.is_fresh(cache::second(now)))
    }

    /// Answers a query into the buffer; `None` if it needs [`CoreState::wanted`].
    fn answer(&mut self, miss: &Miss, now: Duration) -> Option<usize> {
        let query = miss.query();
        let (transport, client, len_max) = match &miss.back {
            Back::Stream { idle, client, .. } => {
                (Transport::Stream { idle: *idle }, *client, MESSAGE_SIZE_MAX)
            }
            Back::Datagram { origin, .. } => {
                let client = origin.peer().map_or(0, |peer| mapped(peer.ip()));
                (Transport::Datagram, client, ANSWER_SIZE_MAX)
            }
            // One of those who may ask.
            Back::Nobody => (Transport::Datagram, mapped(IpAddr::from([127, 0, 0, 1])), 4096),
        };
        self.buffer[..query.len()].copy_from_slice(query);
        let mut exchange = [Exchange {
            buffer: &mut self.buffer[..len_max],
            query_len: query.len(),
            transport,
            client,
            verdict: Verdict::Reply(0),
        }];
        let snapshot = self.parts.snapshot.pin();
        answer_batch(&snapshot, now, &mut self.parts.core, &mut exchange);
        match exchange[0].verdict {
            Verdict::Reply(len) => Some(len),
            Verdict::Drop(_) => Some(0),
            Verdict::Defer(Ticket::Resolve) => None,
            // A reload may have made it one that is deferred for another reason.
            Verdict::Defer(_) => Some(0),
        }
    }

    fn reply(&mut self, back: Back, len: usize) {
        let message = &self.buffer[..len];
        match back {
            Back::Datagram { core, origin } if len > 0 => {
                self.outbox.put(core, origin, message);
                self.unsent += 1;
                if self.unsent == TURN_COUNT_MAX || self.outbox.is_full() {
                    self.pause();
                }
            }
            Back::Stream { reply, .. } if len > 0 => {
                // The connection may be gone.
                let _ = reply.send(message.to_vec());
            }
            Back::Datagram { .. } | Back::Stream { .. } | Back::Nobody => {}
        }
    }

    /// Answers a query with what there is, fresh or not: nobody else will.
    fn settle(&mut self, waiter: Waiter, now: Duration) {
        self.parts.core.misses = Mode::Settle;
        let len = self.answer(&waiter.miss, now).unwrap_or(0);
        self.parts.core.misses = Mode::Defer;
        self.reply(waiter.miss.back, len);
    }

    //----------- Flights ------------------------------------------------------

    /// Has a query wait for the question that it leads to, which is asked unless it is in flight.
    fn wait_for(&mut self, mut waiter: Waiter, now: Duration) {
        waiter.rounds += 1;
        let key = self.parts.core.wanted.key();
        if let Some(flight) = self.flights.asking(&key) {
            let id = flight.id;
            if flight.is_late {
                count(&self.parts.counters.stale);
                return self.settle(waiter, now);
            }
            let (of_all, of_client) = self.flights.waiting(waiter.client);
            if of_all < WAITERS_PER_QUESTION * self.parts.outstanding.all
                && of_client < WAITERS_PER_QUESTION * self.parts.outstanding.client
            {
                count(&self.parts.counters.joined);
                return self.flights.join(id, waiter);
            }
            return self.refuse(waiter, now);
        }
        // What was held may have been forgotten since.
        if self.flights.spared_until(key.hash(), now).is_some()
            && is_stale(&self.parts, &key, &mut self.prepared, now)
        {
            count(&self.parts.counters.stale);
            return self.settle(waiter, now);
        }
        if waiter.rounds > ROUNDS_MAX || !self.has_room(waiter.client) {
            return self.refuse(waiter, now);
        }
        count(&self.parts.counters.asked);
        if let Some(flight) = Flight::new(&self.parts.core.wanted, Some(waiter)) {
            self.launch(flight, now, false);
        }
    }

    /// Asks for an answer that is fresh still, and that nobody waits for.
    fn ask_anew(&mut self, waiter: Waiter, now: Duration) {
        let Some(wanted) = self.wanted_of(waiter.miss.query()) else { return };
        // Half of the room is for those who wait.
        let is_roomy = self.flights.len() < self.parts.outstanding.all / 2;
        if is_roomy
            && self.flights.asking(&wanted.key()).is_none()
            && let Some(flight) = Flight::new(&wanted, None)
        {
            count(&self.parts.counters.prefetched);
            self.launch(flight, now, false);
        }
    }

    /// Asks a question of upstreams; its number.
    fn launch(&mut self, flight: Flight, now: Duration, traced: bool) -> u64 {
        let request = self.request_of(&flight, now);
        let id = self.flights.begin(flight, now + self.parts.outstanding.stale_after);
        self.parts.counters.in_flight.store(self.flights.len() as u64, Ordering::Relaxed);
        match traced {
            false => self.parts.forwarder.ask(now, RequestId(id), request),
            true => self.parts.forwarder.ask_traced(now, RequestId(id), request),
        }
        id
    }

    fn request_of(&self, flight: &Flight, now: Duration) -> Request {
        let question = Question {
            name: flight.name.clone(),
            qtype: flight.qtype,
            qclass: CLASS_IN,
            dnssec_ok: flight.flags & flag::DNSSEC_OK != 0,
            checking_disabled: flight.flags & flag::CHECKING_DISABLED != 0,
        };
        let deadline = now + self.parts.outstanding.timeout;
        Request { question, deadline, budget: BUDGET }
    }

    fn wanted_of(&mut self, query: &[u8]) -> Option<Wanted> {
        let mut wanted = Wanted::default();
        if !wanted.read(query, 0) {
            return None;
        }
        wanted.name_hash = self.parts.snapshot.pin().key().name(&wanted.name);
        Some(wanted)
    }

    fn has_room(&self, client: IpAddr) -> bool {
        self.flights.len() < self.parts.outstanding.all
            && self.flights.of_client(client) < self.parts.outstanding.client
    }

    #[cold]
    fn refuse(&mut self, waiter: Waiter, now: Duration) {
        count(&self.parts.counters.refused);
        self.settle(waiter, now);
    }

    /// Clients that have waited long get what is stale; the question goes on for the next ones.
    fn be_patient(&mut self, now: Duration) {
        while let Some(id) = self.flights.pop_impatient(now) {
            let Some(flight) = self.flights.get_mut(id) else { continue };
            let key = flight.key();
            if !is_stale(&self.parts, &key, &mut self.prepared, now) {
                continue;
            }
            flight.is_late = true;
            for waiter in self.flights.take_waiters(id) {
                count(&self.parts.counters.stale);
                self.settle(waiter, now);
            }
        }
    }

    /// A question has ended: its answer is kept, and whoever waits is answered.
    fn done(&mut self, now: Duration, id: u64, outcome: Outcome) {
        let waiters = self.flights.take_waiters(id);
        let Some(flight) = self.flights.end(id) else { return };
        let key = flight.key();
        self.parts.counters.in_flight.store(self.flights.len() as u64, Ordering::Relaxed);
        let mut prepared = std::mem::take(&mut self.prepared);
        let stale = self.parts.holding.stale;
        let is_kept = self.prepare(&mut prepared, &flight, outcome, now)
            && self.parts.cache.keep(&key, &prepared, now, stale);
        let counters = &self.parts.counters;
        count(if is_kept { &counters.kept } else { &counters.not_kept });
        self.parts.core.given = Some(prepared);
        for waiter in waiters {
            // It may lead to another question.
            if waiter.rounds < ROUNDS_MAX
                && let Some(len) = self.answer(&waiter.miss, now)
            {
                self.reply(waiter.miss.back, len);
            } else if self.parts.core.wanted.key() != key && waiter.rounds < ROUNDS_MAX {
                self.wait_for(waiter, now);
            } else {
                self.settle(waiter, now);
            }
        }
        self.prepared = self.parts.core.given.take().unwrap_or_default();
        if !self.traced.is_empty() {
            self.tell_traced(id, now);
        }
    }

    /// Makes an entry of how a question has ended; whether it is to be kept.
    fn prepare(
        &mut self,
        prepared: &mut Prepared,
        flight: &Flight,
        outcome: Outcome,
        now: Duration,
    ) -> bool {
        let key = flight.key();
        let bounds = self.parts.holding.bounds;
        let edes = match &outcome {
            Outcome::Message { edes, .. } | Outcome::Failure { edes } => edes,
        };
        let texts: Vec<(u16, &str)> =
            edes.iter().map(|Ede { code, text }| (*code, text.as_str())).collect();
        let is_answer = match &outcome {
            Outcome::Message { message, .. } => {
                let terms = terms_of(&self.parts.terms, flight.name.as_wire());
                let aside = Aside { edes: &texts, trusts_ad: terms.is_some_and(|it| it.trusts_ad) };
                let guard =
                    self.parts.rebinding.as_ref().filter(|_| terms.is_none_or(|it| it.guards));
                keep_message(
                    prepared,
                    &key,
                    message,
                    (now, &bounds),
                    aside,
                    guard,
                    &self.parts.counters,
                )
            }
            Outcome::Failure { .. } => false,
        };
        if is_answer && prepared.entry().flags() & flag::FAILURE == 0 {
            if let Outcome::Message { message, .. } = outcome {
                self.parts.forwarder.recycle(message);
            }
            return true;
        }
        count(&self.parts.counters.failed);
        // What is held past its time is better than nothing: it is not replaced by a failure.
        let held = self.parts.cache.copy(&key, prepared);
        let stale = self.parts.holding.stale;
        let has_stale = held && prepared.entry().is_served(cache::second(now), stale);
        if has_stale {
            self.flights.remember(key.hash(), now);
        }
        let is_said = matches!(outcome, Outcome::Message { .. });
        // While nobody is there to ask, failures say nothing of the question; upstreams are
        // probed, and once one is back it is to be asked soon.
        let before = held && (is_said || self.parts.forwarder.is_reachable(&flight.name));
        let before = before.then(|| prepared.entry());
        let ttl = cache::failure_ttl(before, now, bounds.failure);
        // Clients are told why, also if an upstream has answered what cannot be used.
        let texts = if texts.is_empty() { &[UNUSABLE][..] } else { &texts };
        prepared.failure(&key, now, ttl, texts);
        !has_stale
    }
}

/// Makes `prepared` what is held of `key`'s question; whether it may be served `now`.
fn is_stale(parts: &Resolving, key: &Key<'_>, prepared: &mut Prepared, now: Duration) -> bool {
    parts.cache.copy(key, prepared)
        && prepared.entry().is_served(cache::second(now), parts.holding.stale)
}

/// Makes an entry of a message; `false` if it cannot be used.
fn keep_message(
    prepared: &mut Prepared,
    key: &Key<'_>,
    message: &[u8],
    (now, bounds): (Duration, &cache::TtlBounds),
    aside: Aside<'_>,
    guard: Option<&Rebinding>,
    counters: &ResolveCounters,
) -> bool {
    use crate::policy::EDE_BLOCKED;
    let mut name = LowerName::new();
    let judged = match guard {
        Some(guard) if name.read(key.name).is_some() => guard.judge(message, &name),
        _ => Ok(Judgement::Pass),
    };
    let response = match judged {
        Ok(Judgement::Pass) => return prepared.response(key, message, now, bounds, aside).is_ok(),
        Ok(Judgement::WithoutAdditional) => Rebinding::without_additional(message),
        Ok(Judgement::Blocked(_)) => {
            count(&counters.blocked);
            let edes = [(EDE_BLOCKED, "a private address under a public name")];
            let emptied = Rebinding::emptied(message);
            let aside = Aside { edes: &edes, trusts_ad: false };
            let is_kept = emptied
                .is_ok_and(|emptied| prepared.response(key, &emptied, now, bounds, aside).is_ok());
            if is_kept {
                prepared.hold(cache::second(now), Some(bounds.failure));
            }
            return is_kept;
        }
        Err(malformed) => Err(malformed),
    };
    response.is_ok_and(|octets| prepared.response(key, &octets, now, bounds, aside).is_ok())
}

/// The terms of the longest forward that `name` is in.
fn terms_of<'a>(terms: &'a [Terms], wire: &[u8]) -> Option<&'a Terms> {
    let is_in = |terms: &&Terms| cache::is_at_or_below(wire, terms.zone.as_wire());
    terms.iter().filter(is_in).max_by_key(|terms| terms.zone.as_wire().len())
}

fn client_of(miss: &Miss) -> IpAddr {
    let address = match &miss.back {
        Back::Datagram { origin, .. } => origin.peer().map(|peer| peer.ip()),
        Back::Stream { client, .. } => Some(std::net::Ipv6Addr::from_bits(*client).to_canonical()),
        Back::Nobody => None,
    };
    subscriber(address.unwrap_or(IpAddr::from([0, 0, 0, 0])))
}
