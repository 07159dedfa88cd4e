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

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
use crate::wire::{LowerName, Name};

use super::misses::{Back, Miss, Misses};
use super::upstream::Streams;

use orders::Told;

pub mod orders;

/// Misses taken in one turn.
const TURN_COUNT_MAX: usize = 256;
/// The longest wait: whether it is to end is asked as often.
const WAIT_MAX: Duration = Duration::from_millis(200);
/// Questions that one query may lead to: aliases of zones here that lead out of them.
const ROUNDS_MAX: u8 = 4;
/// Messages that may be sent for one question.
const BUDGET: u16 = 12;
/// After how long a question is asked again that was answered with what is stale.
const STALE_RECHECK: Duration = Duration::from_secs(4);
/// Questions of which that is remembered.
const STALE_REMEMBERED_MAX: usize = 1 << 16;
/// Clients whose questions are counted are forgotten when they have none; room for so many more.
const CLIENTS_SPARE: usize = 1024;

//----------- Resolving ------------------------------------------------------

/// What one forward adds to its answers.
#[derive(Clone)]
pub struct Terms {
    /// Its zone.
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
    /// How long.
    pub holding: Holding,
    /// The cores' sockets.
    pub repliers: Vec<Replier>,
    /// Who is asked, and how it goes.
    pub forwarder: Forwarder,
    /// Questions over UDP.
    pub pool: PortPool,
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

/// What happened to questions: one writer, any number of readers.
#[derive(Default)]
pub struct ResolveCounters {
    /// Questions that came.
    pub misses: AtomicU64,
    /// Those that were answered by the time they came.
    pub answered_meanwhile: AtomicU64,
    /// Those that waited for one in flight.
    pub joined: AtomicU64,
    /// Those that were asked of upstreams.
    pub asked: AtomicU64,
    /// Those that nobody waited for.
    pub prefetched: AtomicU64,
    /// Answers put into the cache.
    pub kept: AtomicU64,
    /// Answers that were not kept: they hold for no time, or there is no room.
    pub not_kept: AtomicU64,
    /// Questions that were answered with what is stale.
    pub stale: AtomicU64,
    /// Questions without an answer.
    pub failed: AtomicU64,
    /// Questions that were not asked, because too much was in flight.
    pub refused: AtomicU64,
    /// Answers that would have led inside.
    pub blocked: AtomicU64,
    /// Questions in flight.
    pub in_flight: AtomicU64,
}

impl ResolveCounters {
    /// Everything counted, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        [
            ("misses", &self.misses),
            ("answered_meanwhile", &self.answered_meanwhile),
            ("joined", &self.joined),
            ("asked", &self.asked),
            ("prefetched", &self.prefetched),
            ("kept", &self.kept),
            ("not_kept", &self.not_kept),
            ("stale", &self.stale),
            ("failed", &self.failed),
            ("refused", &self.refused),
            ("blocked", &self.blocked),
            ("in_flight", &self.in_flight),
        ]
        .into_iter()
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
    }
}

fn count(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// A question in flight, and who waits for it.
struct Flight {
    wanted: Wanted,
    waiters: Vec<Waiter>,
    /// On whose account it is.
    client: Option<IpAddr>,
}

/// Who waits.
struct Waiter {
    miss: Miss,
    client: IpAddr,
    /// Questions that the query has led to.
    rounds: u8,
}

/// Questions in flight, by number and by what they ask.
#[derive(Default)]
struct Flights {
    by_id: HashMap<u64, Flight>,
    by_hash: HashMap<u64, u64>,
    next: u64,
    clients: HashMap<IpAddr, u32>,
    /// When waiters get what is stale, the earliest first: all wait equally long.
    impatient: VecDeque<(Duration, u64)>,
    /// Questions that have failed and have a stale answer, and until when they are not asked again;
    /// the earliest first.
    failed: HashMap<u64, Duration>,
    failed_in_order: VecDeque<(Duration, u64)>,
}

/// A thread's state while it runs.
struct Driver {
    parts: Resolving,
    flights: Flights,
    prepared: Box<Prepared>,
    buffer: Box<[u8]>,
    /// Questions whose attempts are written down, and who is told of them.
    traced: Vec<(u64, Wanted, SyncSender<Told>)>,
}

/// Resolves until `stop` is set.
pub fn run(parts: Resolving, stop: &AtomicBool) -> io::Result<()> {
    let mut driver = Driver {
        parts,
        flights: Flights::default(),
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
        let now = self.now();
        self.arrivals(now)?;
        for _ in 0..TURN_COUNT_MAX {
            let Some(miss) = self.parts.misses.pop() else { break };
            if !matches!(miss.back, Back::Nobody) {
                count(&self.parts.counters.misses);
            }
            let waiter = Waiter { client: client_of(&miss), miss, rounds: 0 };
            self.take(waiter, now);
        }
        self.obey_all(now);
        self.parts.forwarder.on_time(now);
        self.actions(now)?;
        self.be_patient(now);
        self.parts.pool.flush()?;
        let due =
            [self.parts.forwarder.deadline(), self.flights.impatient.front().map(|(at, _)| *at)];
        let next = due.into_iter().flatten().min().map_or(WAIT_MAX, |at| at.saturating_sub(now));
        self.parts.pool.wait(next.min(WAIT_MAX))
    }

    /// Replies and faults of upstreams.
    fn arrivals(&mut self, now: Duration) -> io::Result<()> {
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
        streams.receive(&mut |exchange, result| match result {
            Ok(message) => {
                forwarder.on_reply(now, ExchangeId(exchange), &message);
                forwarder.recycle(message);
            }
            Err(fault) => forwarder.on_fault(now, ExchangeId(exchange), fault),
        });
        Ok(())
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
        let Resolving { pool, streams, forwarder, .. } = &mut self.parts;
        if carrier != Carrier::Udp {
            if !streams.send(exchange.0, upstream, message) {
                forwarder.on_fault(now, exchange, Fault::NoRoom);
            }
            return Ok(());
        }
        let mut queued = pool.queue(upstream, exchange.0, &message);
        if queued == Err(Unqueued::BatchFull) {
            pool.flush()?;
            queued = pool.queue(upstream, exchange.0, &message);
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
                // As with any reply: if it cannot be sent the peer asks again.
                let _ = self.parts.repliers[core].send(&origin, message);
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
        let hash = self.parts.core.wanted.key().hash();
        if let Some(&id) = self.flights.by_hash.get(&hash)
            && let Some(flight) = self.flights.by_id.get_mut(&id)
            && flight.wanted.key() == self.parts.core.wanted.key()
        {
            if flight.waiters.len() < self.parts.outstanding.all {
                count(&self.parts.counters.joined);
                flight.waiters.push(waiter);
                return;
            }
            return self.refuse(waiter, now);
        }
        if self.flights.failed.get(&hash).is_some_and(|until| *until > now) {
            count(&self.parts.counters.stale);
            return self.settle(waiter, now);
        }
        if waiter.rounds > ROUNDS_MAX || !self.has_room(waiter.client) {
            return self.refuse(waiter, now);
        }
        let wanted = self.parts.core.wanted.clone();
        *self.flights.clients.entry(waiter.client).or_default() += 1;
        count(&self.parts.counters.asked);
        let client = Some(waiter.client);
        self.launch(Flight { wanted, waiters: vec![waiter], client }, hash, now, false);
    }

    /// Asks for an answer that is fresh still, and that nobody waits for.
    fn ask_anew(&mut self, waiter: Waiter, now: Duration) {
        let Some(wanted) = self.wanted_of(waiter.miss.query()) else { return };
        let hash = wanted.key().hash();
        // Half of the room is for those who wait.
        let is_roomy = self.flights.by_id.len() < self.parts.outstanding.all / 2;
        if is_roomy && !self.flights.by_hash.contains_key(&hash) {
            count(&self.parts.counters.prefetched);
            self.launch(Flight { wanted, waiters: Vec::new(), client: None }, hash, now, false);
        }
    }

    fn launch(&mut self, flight: Flight, hash: u64, now: Duration, traced: bool) {
        let Some(request) = self.request_of(&flight.wanted, now) else { return };
        let id = self.flights.next;
        self.flights.next += 1;
        // Nobody may wait yet, and somebody may join.
        self.flights.impatient.push_back((now + self.parts.outstanding.stale_after, id));
        self.flights.by_hash.insert(hash, id);
        self.flights.by_id.insert(id, flight);
        self.parts.counters.in_flight.store(self.flights.by_id.len() as u64, Ordering::Relaxed);
        match traced {
            false => self.parts.forwarder.ask(now, RequestId(id), request),
            true => self.parts.forwarder.ask_traced(now, RequestId(id), request),
        }
    }

    fn request_of(&self, wanted: &Wanted, now: Duration) -> Option<Request> {
        let question = Question {
            name: Name::from_wire(wanted.name.as_wire()).ok()?,
            qtype: wanted.qtype,
            qclass: CLASS_IN,
            dnssec_ok: wanted.flags & flag::DNSSEC_OK != 0,
            checking_disabled: wanted.flags & flag::CHECKING_DISABLED != 0,
        };
        let deadline = now + self.parts.outstanding.timeout;
        Some(Request { question, deadline, budget: BUDGET })
    }

    fn wanted_of(&mut self, query: &[u8]) -> Option<Wanted> {
        let mut wanted = Wanted::default();
        let end = crate::limits::HEADER_LEN + wanted.name.read(query.get(12..)?)?;
        wanted.qtype = u16::from_be_bytes([*query.get(end)?, *query.get(end + 1)?]);
        let snapshot = self.parts.snapshot.pin();
        wanted.name_hash = snapshot.key().name(&wanted.name);
        let has_opt = query[11] != 0;
        let dnssec_ok = has_opt && query.get(end + 4 + 7).is_some_and(|octet| octet & 0x80 != 0);
        let disabled = query[3] & 0x10 != 0;
        wanted.flags = (u8::from(dnssec_ok) * flag::DNSSEC_OK)
            | (u8::from(disabled) * flag::CHECKING_DISABLED);
        Some(wanted)
    }

    fn has_room(&self, client: IpAddr) -> bool {
        let of_client = self.flights.clients.get(&client).copied().unwrap_or(0) as usize;
        self.flights.by_id.len() < self.parts.outstanding.all
            && of_client < self.parts.outstanding.client
    }

    #[cold]
    fn refuse(&mut self, waiter: Waiter, now: Duration) {
        count(&self.parts.counters.refused);
        self.settle(waiter, now);
    }

    /// Clients that have waited long get what is stale; the question goes on for the next ones.
    fn be_patient(&mut self, now: Duration) {
        while let Some(&(at, id)) = self.flights.impatient.front()
            && at <= now
        {
            self.flights.impatient.pop_front();
            let Some(flight) = self.flights.by_id.get_mut(&id) else { continue };
            let key = flight.wanted.key();
            if !self.parts.cache.copy(&key, &mut self.prepared)
                || self.prepared.entry().flags() & flag::FAILURE != 0
            {
                continue;
            }
            for waiter in std::mem::take(&mut flight.waiters) {
                count(&self.parts.counters.stale);
                self.settle(waiter, now);
            }
        }
    }

    /// A question has ended: its answer is kept, and whoever waits is answered.
    fn done(&mut self, now: Duration, id: u64, outcome: Outcome) {
        let Some(flight) = self.flights.by_id.remove(&id) else { return };
        let key = flight.wanted.key();
        self.flights.by_hash.remove(&key.hash());
        self.flights.leave(flight.client);
        self.parts.counters.in_flight.store(self.flights.by_id.len() as u64, Ordering::Relaxed);
        let mut prepared = std::mem::take(&mut self.prepared);
        let stale = self.parts.holding.stale;
        let is_kept = self.prepare(&mut prepared, &flight.wanted, outcome, now)
            && self.parts.cache.keep(&key, &prepared, now, stale);
        let counters = &self.parts.counters;
        count(if is_kept { &counters.kept } else { &counters.not_kept });
        self.parts.core.given = Some(prepared);
        for waiter in flight.waiters {
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
        wanted: &Wanted,
        outcome: Outcome,
        now: Duration,
    ) -> bool {
        let key = wanted.key();
        let bounds = self.parts.holding.bounds;
        let edes = match &outcome {
            Outcome::Message { edes, .. } | Outcome::Failure { edes } => edes,
        };
        let texts: Vec<(u16, &str)> =
            edes.iter().map(|Ede { code, text }| (*code, text.as_str())).collect();
        let is_answer = match &outcome {
            Outcome::Message { message, .. } => {
                let terms = terms_of(&self.parts.terms, &wanted.name);
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
        let has_stale = held && prepared.entry().flags() & flag::FAILURE == 0;
        if has_stale {
            self.flights.remember(key.hash(), now);
        }
        let is_said = matches!(outcome, Outcome::Message { .. });
        let before = held && (is_said || self.is_reachable(&wanted.name));
        let before = before.then(|| prepared.entry());
        let ttl = cache::failure_ttl(before, now, bounds.failure);
        prepared.failure(&key, now, ttl, &texts);
        !has_stale
    }

    /// Whether somebody is there to ask for `name`. While nobody is, failures say nothing of the
    /// question; upstreams are probed, and once one is back it is to be asked soon.
    fn is_reachable(&self, name: &LowerName) -> bool {
        let name = Name::from_wire(name.as_wire());
        name.is_ok_and(|name| self.parts.forwarder.is_reachable(&name))
    }
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
fn terms_of<'a>(terms: &'a [Terms], name: &LowerName) -> Option<&'a Terms> {
    let wire = name.as_wire();
    let is_in = |terms: &&Terms| cache::is_at_or_below(wire, terms.zone.to_lowercase().as_wire());
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

impl Flights {
    /// A question on this account has ended.
    fn leave(&mut self, client: Option<IpAddr>) {
        if let Some(client) = client
            && let Some(count) = self.clients.get_mut(&client)
        {
            *count = count.saturating_sub(1);
            if *count == 0 && self.clients.len() > CLIENTS_SPARE {
                self.clients.remove(&client);
            }
        }
    }

    /// This question has failed, and its stale answer will do for a while.
    fn remember(&mut self, hash: u64, now: Duration) {
        while let Some(&(until, first)) = self.failed_in_order.front()
            && (until <= now || self.failed_in_order.len() >= STALE_REMEMBERED_MAX)
        {
            self.failed_in_order.pop_front();
            // A later one may have taken its place.
            if self.failed.get(&first) == Some(&until) {
                self.failed.remove(&first);
            }
        }
        self.failed.insert(hash, now + STALE_RECHECK);
        self.failed_in_order.push_back((now + STALE_RECHECK, hash));
    }
}
