//! The one function that answers.
//!
//! ```text
//!   pass 1   read the query, hash its suffixes
//!            find the zone                                        prefetch the index bucket
//!   pass 2   look into the bucket            (rounds, usually 1)  prefetch the node
//!            compare the node
//!   pass 3   write the reply over the query
//! ```
//!
//! Each pass runs over the whole batch, so that the memory it waits for arrives while the other
//! queries are worked on. Nothing here allocates, locks, logs or reads a clock.

mod authority;
mod cached;
mod chaos;
mod counters;
mod denial;
mod explain;
mod link;
mod reply;
mod search;

pub use cached::{Misses, Wanted, query_again};
pub use counters::{Counters, DropReason};
pub use explain::{Step, explain};
pub use reply::{Options, Owner, Reply, Section};
pub use search::Search;

use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;

use crate::cache::{self, Prepared};
use crate::limits::{
    ANSWER_SIZE_MIN, BATCH_COUNT_MAX, CHAIN_LINKS_MAX, HEADER_LEN, MESSAGE_SIZE_MAX,
    NAME_LABELS_MAX,
};
use crate::snapshot::{Identity, Recursion, SPECIAL, Snapshot, ZoneState};
use crate::wire::message::opcode;
use crate::wire::query::{Edns, Fault, Query, read_query};
use crate::wire::rcode::{
    BADVERS, EDE_INVALID_QUERY_TYPE, EDE_NOT_AUTHORITATIVE, EDE_NOT_READY, FORMERR, NOTIMP,
    REFUSED, Rcode, SERVFAIL,
};
use crate::wire::{LowerName, rtype};
use crate::zone::nsec3::Hash;
use crate::zone::{Denial, SuffixHashes, Zone, flag};

use cached::Shelf;
use denial::Proofs;
use link::{Link, Next};

const CLASS_IN: u16 = 1;
const CLASS_CH: u16 = 3;

//----------- Exchange -------------------------------------------------------

/// How a query came, which decides how long its answer may be, and what it is told of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One message in one datagram: the EDNS size decides.
    Datagram,
    /// A stream with length prefixes: 65,535 octets.
    Stream {
        /// How long it may be idle, in units of 100 ms, for who asks (RFC 7828).
        idle: u16,
    },
}

impl Transport {
    /// Whether it is a stream.
    #[inline(always)]
    pub fn is_stream(self) -> bool {
        matches!(self, Transport::Stream { .. })
    }

    /// What is told of how long the connection may be idle.
    ///
    //= RFC 7828, 3.3.1
    //# A DNS server that receives a query using UDP transport that includes the
    //# edns-tcp-keepalive option MUST ignore the option.
    #[inline(always)]
    fn keepalive(self, edns: Option<Edns>) -> Option<u16> {
        match self {
            Transport::Stream { idle } => (edns?.keepalive == Some(0)).then_some(idle),
            Transport::Datagram => None,
        }
    }
}

/// What becomes of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The first `n` octets of the buffer are the reply.
    Reply(usize),
    /// There is no reply.
    Drop(DropReason),
    /// The reply comes later.
    Defer(Ticket),
}

/// Why a query is not answered at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticket {
    /// A whole zone, or what changed in one, over a stream.
    Transfer,
    /// A zone is said to have changed.
    Notify,
    /// A zone is to be changed.
    Update,
    /// It has a TSIG record to verify, and its answer is to be signed.
    Signed,
    /// Only who may transfer the zone is answered.
    Private,
    /// It is to be asked elsewhere. What is left of the query is header, question and OPT.
    Resolve,
}

/// A request and its reply slot.
pub struct Exchange<'a> {
    /// Holds the query, then the reply; at least `ANSWER_SIZE_MIN` octets, and bounds the reply.
    pub buffer: &'a mut [u8],
    /// Octets of the query.
    pub query_len: usize,
    /// How it came.
    pub transport: Transport,
    /// Who asks; an IPv4 address is mapped. Of nobody: `::`.
    pub client: u128,
    /// What became of it; any value before.
    pub verdict: Verdict,
}

//----------- CoreState ------------------------------------------------------

/// What one core keeps between batches: counters, and room for a batch in progress.
pub struct CoreState {
    /// Verdicts and drop reasons.
    pub counters: Arc<Counters>,
    /// Whether who asks may have the private zones.
    pub sees_private: bool,
    /// The answers of others.
    pub cache: Option<cache::Reader>,
    /// What becomes of questions that there is no fresh answer to.
    pub misses: Misses,
    /// An answer that the cache does not keep, for [`Misses::Settle`].
    pub given: Option<Box<Prepared>>,
    /// Whether whoever has this state hands on what is [`CoreState::due`].
    pub asks_anew: bool,
    /// Exchanges of the last batch whose answer from the cache should be asked for anew, with their
    /// DO and CD ([`cache::flag`]): nobody else was told.
    pub due: ArrayVec<(u8, u8), BATCH_COUNT_MAX>,
    /// What the last exchange that was deferred with [`Ticket::Resolve`] has to ask.
    pub wanted: Wanted,
    /// Exchanges of the last batch whose own name is to be asked for, in order, and its hash: of
    /// the others a chain of aliases leads to the name.
    pub missed: ArrayVec<(u8, u64), BATCH_COUNT_MAX>,
    scratch: Vec<u8>,
    plans: Box<[Plan]>,
    chain: Plan,
}

impl CoreState {
    /// A core's state, counting into `counters`.
    pub fn new(counters: Arc<Counters>) -> CoreState {
        let plans = (0..BATCH_COUNT_MAX).map(|_| Plan::new()).collect();
        CoreState {
            counters,
            sees_private: false,
            cache: None,
            misses: Misses::Defer,
            given: None,
            asks_anew: false,
            due: ArrayVec::new(),
            wanted: Wanted::default(),
            missed: ArrayVec::new(),
            scratch: Vec::new(),
            plans,
            chain: Plan::new(),
        }
    }
}

/// One query between the passes.
struct Plan {
    task: Task,
    query: Query,
    asks: Asks,
    /// The octet of the header that has AD and CD.
    header: u8,
    zone: usize,
    search: Search,
    /// The NSEC3 block over the suffix of so many labels.
    ahead: Option<(usize, usize)>,
    name: LowerName,
    hashes: SuffixHashes,
}

#[derive(Clone, Copy)]
enum Task {
    Drop(DropReason),
    /// An answer without records; whether the question is repeated.
    Code(Rcode, Option<u16>, u8),
    Chaos,
    Defer(Ticket),
    /// The name is hashed; its zone is to be found.
    Find,
    Search,
    /// The name is of no zone here.
    Cached,
}

/// What a client may have of names of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    Nothing,
    /// What is in the cache.
    Cache,
    All,
}

impl Plan {
    fn new() -> Plan {
        Plan {
            task: Task::Drop(DropReason::TooShort),
            query: Query::default(),
            asks: Asks::Nothing,
            header: 0,
            zone: 0,
            search: Search::default(),
            ahead: None,
            name: LowerName::new(),
            hashes: [0; NAME_LABELS_MAX + 1],
        }
    }

    /// Pass 1.
    #[inline]
    fn read(
        &mut self,
        snapshot: &Snapshot,
        recursion: Option<&Recursion>,
        exchange: &Exchange<'_>,
    ) {
        self.task = match read_query(exchange.buffer, exchange.query_len, &mut self.name) {
            Ok(query) => {
                self.query = query;
                self.asks = recursion.map_or(Asks::Nothing, |it| asks_of(it, exchange));
                self.header = exchange.buffer[3];
                self.decide(snapshot, exchange.transport)
            }
            Err(fault) => {
                self.query = Query { question_end: HEADER_LEN, ..Query::default() };
                self.asks = Asks::Nothing;
                match fault {
                    Fault::TooShort => Task::Drop(DropReason::TooShort),
                    Fault::Response => Task::Drop(DropReason::Response),
                    Fault::Malformed => Task::Code(FORMERR, None, 0),
                    Fault::Opcode(end) => {
                        let opcode = exchange.buffer[2] >> 3 & 0xF;
                        let ticket = match opcode {
                            opcode::NOTIFY => Some(Ticket::Notify),
                            opcode::UPDATE => Some(Ticket::Update),
                            _ => None,
                        };
                        if let Some(ticket) = ticket.filter(|_| end > HEADER_LEN) {
                            self.task = Task::Defer(ticket);
                            return;
                        }
                        self.query.question_end = end;
                        Task::Code(NOTIMP, None, u8::from(end > HEADER_LEN))
                    }
                }
            }
        };
    }

    /// What a query that could be read asks for.
    #[inline]
    fn decide(&mut self, snapshot: &Snapshot, transport: Transport) -> Task {
        let query = self.query;
        if query.signed {
            return Task::Defer(Ticket::Signed);
        }
        if let Some(edns) = query.edns {
            //= RFC 6891, 6.1.3
            //# If a responder does not implement the VERSION level of the
            //# request, then it MUST respond with RCODE=BADVERS.
            if edns.version > 0 {
                return Task::Code(BADVERS, None, 1);
            }
            //= RFC 7828, 3.2.1
            //# Clients MUST specify an OPTION-LENGTH of 0 and omit the TIMEOUT value.
            if edns.keepalive.is_some_and(|len| len > 0) && transport.is_stream() {
                return Task::Code(FORMERR, None, 1);
            }
        }
        match query.qclass {
            CLASS_IN => {}
            CLASS_CH => return Task::Chaos,
            _ => return Task::Code(REFUSED, Some(EDE_NOT_AUTHORITATIVE), 1),
        }
        match query.qtype {
            rtype::OPT | rtype::TKEY | rtype::TSIG => return Task::Code(FORMERR, None, 1),
            //= RFC 9824, 3.5
            //# If an explicit query for the NXNAME RR type is received, the DNS
            //# server MUST return a Format Error (response code FORMERR).
            rtype::NXNAME => return Task::Code(FORMERR, Some(EDE_INVALID_QUERY_TYPE), 1),
            rtype::MAILA | rtype::MAILB => return Task::Code(NOTIMP, None, 1),
            //= RFC 5936, 4.2
            //# AXFR sessions over UDP transport are not defined.
            rtype::AXFR if transport == Transport::Datagram => {
                return Task::Code(FORMERR, None, 1);
            }
            rtype::AXFR | rtype::IXFR if transport.is_stream() => {
                return Task::Defer(Ticket::Transfer);
            }
            //= RFC 1995, 2
            //# the server ... may also be a single SOA record
            rtype::IXFR => self.query.qtype = rtype::SOA,
            _ => {}
        }
        snapshot.key().suffixes(&self.name, &mut self.hashes);
        Task::Find
    }

    /// Finds the zone and starts the search in it.
    #[inline]
    fn search_in_zone(&mut self, snapshot: &Snapshot, sees_private: bool) -> Task {
        let depth = self.name.depth();
        let mut found = snapshot.find_zone(&self.name, &self.hashes, depth);
        // The DS of a zone lies in its parent, if the parent is served here too.
        if self.query.qtype == rtype::DS
            && depth > 0
            && found.is_some_and(|(_, apex_depth)| apex_depth == depth)
        {
            found = snapshot.find_zone(&self.name, &self.hashes, depth - 1).or(found);
        }
        if self.asks != Asks::Nothing
            && let Some(recursion) = snapshot.recursion()
        {
            let apex = if self.query.qtype == rtype::DS { depth.saturating_sub(1) } else { depth };
            let forward = recursion.forward_depth(&self.name, &self.hashes, apex);
            let special = recursion.special_zone(&self.name, &self.hashes, apex);
            let special = special.map(|(zone, depth)| (zone | SPECIAL, depth));
            // The longest of them; of two that are the same, what is served here.
            if special.map(|(_, depth)| depth) > found.map(|(_, depth)| depth) {
                found = special;
            }
            if forward.is_some() && forward > found.map(|(_, depth)| depth) {
                return Task::Cached;
            }
        }
        let Some((zone, apex_depth)) = found else {
            return Task::Code(REFUSED, Some(EDE_NOT_AUTHORITATIVE), 1);
        };
        self.zone = zone;
        if !sees_private && matches!(snapshot.zone(zone), ZoneState::Private(_)) {
            return Task::Defer(Ticket::Private);
        }
        match zone_of(snapshot, zone) {
            None => Task::Code(SERVFAIL, Some(EDE_NOT_READY), 1),
            Some(zone) => {
                self.search = Search::start(zone, apex_depth, &self.name, &self.hashes);
                Task::Search
            }
        }
    }
}

/// What who sent an exchange may have of names of others.
#[inline(always)]
fn asks_of(recursion: &Recursion, exchange: &Exchange<'_>) -> Asks {
    let desired = exchange.buffer[2] & 1 != 0;
    // Nobody may ask for nothing.
    if exchange.client == 0 {
        return Asks::Nothing;
    }
    match recursion.clients.contains_mapped(exchange.client) {
        true if desired => Asks::All,
        true if recursion.cached_without_rd => Asks::Cache,
        _ => Asks::Nothing,
    }
}

#[inline(always)]
fn zone_of(snapshot: &Snapshot, zone: usize) -> Option<&Zone> {
    snapshot.zone(zone).zone().map(|zone| &**zone)
}

//----------- answer_batch ---------------------------------------------------

/// Settles every exchange; at most `BATCH_COUNT_MAX` of them.
pub fn answer_batch(
    snapshot: &Snapshot,
    now: Duration,
    core: &mut CoreState,
    exchanges: &mut [Exchange<'_>],
) {
    let CoreState { counters, sees_private, plans, chain, .. } = core;
    core.due.clear();
    core.missed.clear();
    let recursion = snapshot.recursion();
    let plans = &mut plans[..exchanges.len()];
    for (plan, exchange) in plans.iter_mut().zip(&*exchanges) {
        plan.read(snapshot, recursion, exchange);
    }
    if snapshot.is_spread() {
        prefetch_zones(snapshot, plans);
    }
    let mut searching = 0;
    for plan in plans.iter_mut().filter(|plan| matches!(plan.task, Task::Find)) {
        plan.task = plan.search_in_zone(snapshot, *sees_private);
        searching += usize::from(is_searching(plan));
    }
    let is_cached = |plan: &&mut Plan| matches!(plan.task, Task::Cached);
    let mut shelf = Shelf {
        pin: None,
        given: core.given.as_deref(),
        misses: core.misses,
        asks_anew: core.asks_anew,
        hits: 0,
        now: cache::second(now),
        due: &mut core.due,
        wanted: &mut core.wanted,
        missed: &mut core.missed,
        scratch: &mut core.scratch,
    };
    if recursion.is_some() {
        shelf.pin = core.cache.as_mut().map(cache::Reader::pin);
        plans.iter_mut().filter(is_cached).for_each(|plan| shelf.prefetch(plan));
    }
    while searching > 0 {
        for plan in plans.iter_mut().filter(|plan| is_searching(plan)) {
            if let Some(zone) = zone_of(snapshot, plan.zone) {
                plan.search.look(zone, &plan.name, &plan.hashes);
            }
        }
        searching = 0;
        for plan in plans.iter_mut().filter(|plan| is_searching(plan)) {
            if let Some(zone) = zone_of(snapshot, plan.zone) {
                plan.search.compare(zone, &plan.name, &plan.hashes);
            }
            searching += usize::from(is_searching(plan));
        }
    }
    if plans.iter().any(wants_more) {
        look_ahead(snapshot, plans);
    }
    if recursion.is_some() {
        plans.iter_mut().filter(is_cached).for_each(|plan| shelf.prefetch_entry(plan));
    }
    for (index, (plan, exchange)) in plans.iter().zip(exchanges).enumerate() {
        exchange.verdict = match recursion {
            Some(recursion) if plan.is_elsewhere(snapshot, recursion) => {
                let (verdict, rcode, truncated) =
                    shelf.answer(snapshot, recursion, plan, index, exchange);
                match verdict {
                    Verdict::Reply(_) => counters.count_reply(rcode, truncated),
                    _ => counters.count_deferred(),
                }
                verdict
            }
            _ => write(snapshot, plan, chain, exchange, counters, &mut shelf),
        };
    }
    if shelf.hits > 0 {
        counters.count_cached(shelf.hits);
    }
}

impl Plan {
    /// As the cache finds it.
    #[inline(always)]
    fn key(&self, flags: u8) -> cache::Key<'_> {
        cache::Key {
            name_hash: self.hashes[self.name.depth()],
            name: self.name.as_wire(),
            qtype: self.query.qtype,
            flags,
        }
    }

    /// Whether the cache answers it: it is of no zone here, or below a cut of one.
    #[inline]
    fn is_elsewhere(&self, snapshot: &Snapshot, recursion: &Recursion) -> bool {
        match self.task {
            Task::Cached => true,
            Task::Search if self.asks == Asks::All && self.zone & SPECIAL == 0 => {
                let Some(zone) = zone_of(snapshot, self.zone) else { return false };
                let flags = zone.node(self.search.node).flags();
                let is_cut = flags & (flag::CUT | flag::OCCLUDED) != 0;
                let exact = self.search.low == self.name.depth();
                let of_parent =
                    self.query.qtype == rtype::DS && exact && flags & flag::OCCLUDED == 0;
                let depth = self.name.depth();
                is_cut
                    && !of_parent
                    && recursion.forward_depth(&self.name, &self.hashes, depth).is_some()
            }
            _ => false,
        }
    }
}

/// Asks for what finding the zones will read, one step for the whole batch before the next.
#[inline(never)]
fn prefetch_zones(snapshot: &Snapshot, plans: &mut [Plan]) {
    let finding = |plan: &&mut Plan| matches!(plan.task, Task::Find);
    for plan in plans.iter_mut().filter(finding) {
        snapshot.prefetch_apex(&plan.hashes, plan.name.depth());
    }
    for plan in plans.iter_mut().filter(finding) {
        let found = snapshot.prefetch_entry(&plan.hashes, plan.name.depth());
        plan.zone = found.unwrap_or(usize::MAX);
    }
    for plan in plans.iter_mut().filter(finding).filter(|plan| plan.zone != usize::MAX) {
        snapshot.prefetch_header(plan.zone);
    }
}

/// Whether the reply will need memory that was not asked for yet: signatures, proofs.
#[inline(always)]
fn wants_more(plan: &Plan) -> bool {
    matches!(plan.task, Task::Search) && plan.query.edns.is_some_and(|edns| edns.dnssec_ok)
}

/// Asks for signatures, and finds the proofs that names do not exist, one step for the whole batch
/// before the next.
#[inline(never)]
fn look_ahead(snapshot: &Snapshot, plans: &mut [Plan]) {
    let mut hashed = ArrayVec::<(usize, Hash), BATCH_COUNT_MAX>::new();
    for (i, plan) in plans.iter_mut().enumerate().filter(|(_, plan)| wants_more(plan)) {
        plan.ahead = None;
        let Some(zone) = zone_of(snapshot, plan.zone) else { continue };
        zone.prefetch_signatures(plan.search.node);
        let hides = flag::CUT | flag::OCCLUDED | flag::DNAME;
        if plan.search.low == plan.name.depth() || zone.node(plan.search.node).flags() & hides != 0
        {
            continue;
        }
        if let Denial::Nsec3(chain) = zone.denial() {
            let hash = chain.params().hash(plan.name.suffix(plan.search.low + 1));
            chain.prefetch_directory(hash);
            hashed.push((i, hash));
        }
    }
    let chain_of = |plan: &Plan| match zone_of(snapshot, plan.zone) {
        Some(zone) => match zone.denial() {
            Denial::Nsec3(chain) => Some((zone, chain)),
            _ => None,
        },
        None => None,
    };
    for (i, hash) in &hashed {
        if let Some((_, chain)) = chain_of(&plans[*i]) {
            chain.prefetch_entries(*hash);
        }
    }
    for (i, hash) in &hashed {
        if let Some((zone, chain)) = chain_of(&plans[*i]) {
            let (block, _) = zone.nsec3_over(chain, *hash);
            zone.prefetch_signatures(block);
            plans[*i].ahead = Some((plans[*i].search.low + 1, block));
        }
    }
}

#[inline(always)]
fn is_searching(plan: &Plan) -> bool {
    matches!(plan.task, Task::Search) && !plan.search.is_done()
}

/// Pass 3.
#[inline]
fn write(
    snapshot: &Snapshot,
    plan: &Plan,
    chain: &mut Plan,
    exchange: &mut Exchange<'_>,
    counters: &Counters,
    shelf: &mut Shelf<'_>,
) -> Verdict {
    if let Task::Drop(reason) = plan.task {
        counters.count_drop(reason);
        return Verdict::Drop(reason);
    }
    if let Task::Defer(ticket) = plan.task {
        counters.count_deferred();
        return Verdict::Defer(ticket);
    }
    let identity = snapshot.identity();
    let limit = room(identity, exchange, &plan.query);
    let options = options_of(identity, exchange, &plan.query);
    let mut reply = Reply::new(&mut *exchange.buffer, &plan.query, limit, options);
    if plan.asks != Asks::Nothing {
        reply.bits = cached::RA;
    }
    let mut question_count = 1;
    match plan.task {
        Task::Code(rcode, ede, questions) => {
            (reply.rcode, reply.ede, question_count) = (rcode, ede, questions);
        }
        Task::Chaos => chaos::answer(identity, &plan.name, plan.query.qtype, &mut reply),
        Task::Search => {
            if !follow(snapshot, plan, chain, &mut reply, shelf) {
                counters.count_deferred();
                return cached::defer(&plan.query, exchange);
            }
        }
        Task::Drop(_) | Task::Defer(_) | Task::Find | Task::Cached => {}
    }
    counters.count_reply(reply.rcode, reply.truncated);
    Verdict::Reply(reply.finish(question_count))
}

/// Octets that a reply may have.
#[inline(always)]
fn room(identity: &Identity, exchange: &Exchange<'_>, query: &Query) -> usize {
    let limit = match (exchange.transport, query.edns) {
        (Transport::Stream { .. }, _) => MESSAGE_SIZE_MAX,
        (Transport::Datagram, None) => ANSWER_SIZE_MIN,
        //= RFC 6891, 6.2.3
        //# Values lower than 512 MUST be treated as equal to 512.
        (Transport::Datagram, Some(edns)) => usize::from(edns.udp_size)
            .clamp(ANSWER_SIZE_MIN, identity.answer_size_max.max(ANSWER_SIZE_MIN)),
    };
    limit.min(exchange.buffer.len())
}

#[inline(always)]
fn options_of<'a>(identity: &'a Identity, exchange: &Exchange<'_>, query: &Query) -> Options<'a> {
    let keepalive = exchange.transport.keepalive(query.edns);
    Options { nsid: identity.nsid.as_deref(), keepalive }
}

/// Writes the answer, link by link. `false` if it needs what somebody else has to be asked for.
#[inline]
fn follow(
    snapshot: &Snapshot,
    plan: &Plan,
    chain: &mut Plan,
    reply: &mut Reply<'_>,
    shelf: &mut Shelf<'_>,
) -> bool {
    let Some(zone) = zone_of(snapshot, plan.zone) else { return true };
    let mut proofs = Proofs::default();
    let link = Link {
        zone,
        name: &plan.name,
        hashes: &plan.hashes,
        search: plan.search,
        owner: Owner::Ends { end: plan.query.question_end - 4, len: plan.name.len() },
        qtype: plan.query.qtype,
        key: snapshot.key(),
        first: true,
        ahead: plan.ahead,
    };
    if let Next::Chain(at) = link.answer(reply, &mut proofs)
        && let Some(at) = follow_chain(snapshot, plan, chain, reply, &mut proofs, at)
        && plan.asks == Asks::All
        && let Some(recursion) = snapshot.recursion()
    {
        if !shelf.append(recursion, chain, plan, reply, (Section::Answer, at)) {
            return false;
        }
        proofs.write(reply);
        return shelf.append(recursion, chain, plan, reply, (Section::Authority, at));
    }
    proofs.write(reply);
    true
}

/// Looks up the targets of CNAME and DNAME records as long as they lie in zones served here;
/// returns where the first stands that does not.
#[inline(never)]
fn follow_chain<'z>(
    snapshot: &'z Snapshot,
    plan: &Plan,
    chain: &mut Plan,
    reply: &mut Reply<'_>,
    proofs: &mut Proofs<'z>,
    mut at: usize,
) -> Option<usize> {
    let mut seen = [0; CHAIN_LINKS_MAX + 1];
    seen[0] = plan.hashes[plan.name.depth()];
    chain.query = plan.query;
    chain.asks = plan.asks;
    for links in 1..=CHAIN_LINKS_MAX {
        chain.name.read_compressed(reply.message(), at)?;
        snapshot.key().suffixes(&chain.name, &mut chain.hashes);
        let hash = chain.hashes[chain.name.depth()];
        if seen[..links].contains(&hash) {
            return None;
        }
        seen[links] = hash;
        // A target elsewhere is the client's to look up; so is one in a zone that did not load,
        // or that is private.
        match chain.search_in_zone(snapshot, false) {
            Task::Search => {}
            Task::Cached => return Some(at),
            _ => return None,
        }
        let zone = zone_of(snapshot, chain.zone)?;
        let search = chain.search.run(zone, &chain.name, &chain.hashes);
        let link = Link {
            zone,
            name: &chain.name,
            hashes: &chain.hashes,
            search,
            owner: Owner::Starts { at, len: chain.name.len() },
            qtype: plan.query.qtype,
            key: snapshot.key(),
            first: false,
            ahead: None,
        };
        match link.answer(reply, proofs) {
            Next::Done => return None,
            Next::Chain(next) => at = next,
        }
    }
    None
}
