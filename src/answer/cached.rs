//! Answers from the cache, and questions that it has no answer to.
//!
//! ```text
//!   fresh ──────> copied behind the question
//!   not there ──> deferred: header, question and OPT as they came, nothing else
//!   past its time, and nobody answers ──> copied, with the TTL of what is stale (RFC 8767)
//! ```

use arrayvec::ArrayVec;

use crate::cache::{Entry, Held, Key, Pin, Prepared, expand_rdata, flag};
use crate::limits::{BATCH_COUNT_MAX, HEADER_LEN, NAME_LEN_MAX};
use crate::snapshot::{Recursion, Snapshot};
use crate::wire::message::{self, Message};
use crate::wire::query::{Edns, Query, skip_name};
use crate::wire::rcode::{
    EDE_CACHED_ERROR, EDE_NOT_AUTHORITATIVE, EDE_OTHER, EDE_STALE_ANSWER, EDE_STALE_NXDOMAIN,
    NXDOMAIN, REFUSED, SERVFAIL,
};
use crate::wire::{LowerName, rtype};

use super::reply::{Reply, Section, Ttls};
use super::{Asks, Exchange, Plan, Ticket, Verdict, options_of, room};

/// Recursion is available.
pub(super) const RA: u8 = 0x80;
const AD: u8 = 0x20;
const CD: u8 = 0x10;

/// What becomes of questions that the cache has no fresh answer to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Misses {
    /// They are deferred: [`Ticket::Resolve`].
    #[default]
    Defer,
    /// They are answered with what is past its time, or with what is given, or with SERVFAIL.
    Settle,
}

/// A question that somebody else has to answer.
#[derive(Clone, Default)]
pub struct Wanted {
    /// Its name: that of the query, or where a chain of aliases leads out of the zones here.
    pub name: LowerName,
    /// Its hash.
    pub name_hash: u64,
    /// QTYPE.
    pub qtype: u16,
    /// DO and CD: [`flag`].
    pub flags: u8,
}

impl Wanted {
    /// Makes it what `query` asks for, the hash of whose name is known; `false` if it cannot be
    /// read. The query is one that was deferred: header, question and OPT.
    pub fn read(&mut self, query: &[u8], name_hash: u64) -> bool {
        let end = query.get(HEADER_LEN..).and_then(|rest| self.name.read(rest));
        let end = end.map_or(usize::MAX, |len| HEADER_LEN + len);
        let Some(qtype) = query.get(end..).and_then(|rest| rest.first_chunk()) else {
            return false;
        };
        // OPT follows the question: root, type, size, and the flags in its eighth octet.
        let dnssec_ok = query.get(end + 4 + 7).is_some_and(|octet| octet & 0x80 != 0);
        self.name_hash = name_hash;
        //= RFC 1995, 2
        //# Transport of a query may be by either UDP or TCP. If an IXFR query is via UDP, the IXFR
        //# server may attempt to reply using UDP [...] If the UDP reply does not fit, the query is
        //# responded to with a single SOA record of the server's current version
        self.qtype = match u16::from_be_bytes(*qtype) {
            rtype::IXFR => rtype::SOA,
            qtype => qtype,
        };
        self.flags = flag::of(dnssec_ok, query[3] & CD != 0);
        true
    }

    /// As the cache finds it.
    pub fn key(&self) -> Key<'_> {
        let Wanted { name, name_hash, qtype, flags } = self;
        Key { name_hash: *name_hash, name: name.as_wire(), qtype: *qtype, flags: *flags }
    }
}

/// What a batch needs of the cache.
pub(super) struct Shelf<'a> {
    pub pin: Option<Pin<'a>>,
    pub given: Option<&'a Prepared>,
    pub misses: Misses,
    pub asks_anew: bool,
    /// Questions that were answered from it.
    pub hits: u64,
    /// The second of the cache's clock.
    pub now: u32,
    pub due: &'a mut ArrayVec<(u8, u8), BATCH_COUNT_MAX>,
    pub wanted: &'a mut Wanted,
    pub missed: &'a mut ArrayVec<(u8, u64), BATCH_COUNT_MAX>,
    pub scratch: &'a mut Vec<u8>,
}

/// What there is for a question.
enum Found<'a> {
    /// It, what becomes of its TTLs, and, if it is fresh, where it is held.
    Answer(Entry<'a>, Ttls, Option<Held<'a>>),
    /// Nothing that may be answered.
    Miss,
}

impl Shelf<'_> {
    /// Asks for what the search for a plan's answer will read first.
    #[inline]
    pub fn prefetch(&self, plan: &Plan) {
        if let Some(pin) = &self.pin {
            pin.prefetch(plan.key(flags_of(&plan.query, plan.header)).hash());
        }
    }

    /// Asks for the answer itself.
    #[inline]
    pub fn prefetch_entry(&self, plan: &Plan) {
        if let Some(pin) = &self.pin {
            pin.prefetch_entry(plan.key(flags_of(&plan.query, plan.header)).hash());
        }
    }

    /// Answers exchange `index` from the cache.
    #[inline]
    pub fn answer(
        &mut self,
        snapshot: &Snapshot,
        recursion: &Recursion,
        plan: &Plan,
        index: usize,
        exchange: &mut Exchange<'_>,
    ) -> (Verdict, u16, bool) {
        let flags = flags_of(&plan.query, plan.header);
        let key = plan.key(flags);
        let misses = self.misses;
        let found = find(self.pin.as_ref(), self.given, (misses, self.now), &key, recursion);
        if let Found::Answer(_, _, Some(held)) = &found
            && recursion.prefetch
            && plan.asks == Asks::All
            && misses == Misses::Defer
            && self.asks_anew
            && held.is_due(self.now)
        {
            // Room for every exchange of the batch.
            let _ = self.due.try_push((index as u8, flags));
        }
        if matches!(found, Found::Miss) && plan.asks == Asks::All && misses == Misses::Defer {
            want(self.wanted, plan, plan);
            // Room for every exchange of the batch.
            let _ = self.missed.try_push((index as u8, self.wanted.name_hash));
            return (defer(&plan.query, exchange), 0, false);
        }
        let identity = snapshot.identity();
        let limit = room(identity, exchange, &plan.query);
        let options = options_of(identity, exchange, &plan.query);
        let mut reply = Reply::new(&mut *exchange.buffer, &plan.query, limit, options);
        reply.bits = RA;
        match found {
            Found::Answer(entry, ttls, _) => {
                self.hits += 1;
                of_entry(&mut reply, &entry, plan);
                mark_stale(&mut reply, &entry, ttls);
                reply.ede_options = entry.ede_options();
                reply.cached(&entry, ttls);
            }
            Found::Miss if plan.asks == Asks::Cache => {
                (reply.rcode, reply.ede) = (REFUSED, Some(EDE_NOT_AUTHORITATIVE));
            }
            Found::Miss => (reply.rcode, reply.ede) = (SERVFAIL, Some(EDE_OTHER)),
        }
        let counted = (reply.rcode, reply.truncated);
        (Verdict::Reply(reply.finish(1)), counted.0, counted.1)
    }

    /// Adds what the cache has of the name at `at` of the reply, the last of a chain of aliases, in
    /// two steps, between which other records may come: `section` is the one. `false` if it has
    /// nothing.
    #[cold]
    pub fn append(
        &mut self,
        recursion: &Recursion,
        chain: &Plan,
        plan: &Plan,
        reply: &mut Reply<'_>,
        (section, at): (Section, usize),
    ) -> bool {
        let flags = flags_of(&plan.query, plan.header);
        let key = chain.key(flags);
        let how = (self.misses, self.now);
        match find(self.pin.as_ref(), self.given, how, &key, recursion) {
            Found::Answer(entry, ttls, _) => {
                self.hits += u64::from(section == Section::Answer);
                of_entry(reply, &entry, plan);
                mark_stale(reply, &entry, ttls);
                if append_records(reply, self.scratch, &entry, ttls, (section, at)).is_none() {
                    reply.truncated = true;
                }
                true
            }
            Found::Miss if self.misses == Misses::Settle => {
                (reply.rcode, reply.ede) = (SERVFAIL, Some(EDE_OTHER));
                true
            }
            Found::Miss => {
                want(self.wanted, chain, plan);
                false
            }
        }
    }
}

/// Notes what is to be asked: the name of `of`, for the query of `plan`.
fn want(wanted: &mut Wanted, of: &Plan, plan: &Plan) {
    wanted.name.clone_from(&of.name);
    wanted.name_hash = of.hashes[of.name.depth()];
    wanted.qtype = plan.query.qtype;
    wanted.flags = flags_of(&plan.query, plan.header);
}

/// What there is for `key`'s question, at a second of the cache's clock.
#[inline]
fn find<'f>(
    pin: Option<&'f Pin<'_>>,
    given: Option<&'f Prepared>,
    (misses, now): (Misses, u32),
    key: &Key<'_>,
    recursion: &Recursion,
) -> Found<'f> {
    let held = pin.and_then(|pin| pin.find(key));
    let held = match held {
        Some(held) if held.entry.is_fresh(now) => {
            let entry = held.entry;
            return Found::Answer(entry, Ttls::Less(entry.age(now)), Some(held));
        }
        held => held,
    };
    if misses == Misses::Defer {
        return Found::Miss;
    }
    let is_answer = |entry: &Entry<'_>| entry.flags() & flag::FAILURE == 0;
    let given = given.map(Prepared::entry).filter(|entry| key.is_of(entry.octets()));
    if let Some(entry) = given.filter(is_answer) {
        return Found::Answer(entry, Ttls::Less(0), None);
    }
    if let Some(held) = held.filter(|held| held.entry.is_served(now, recursion.stale)) {
        return Found::Answer(held.entry, Ttls::All(recursion.stale_ttl), None);
    }
    given.map_or(Found::Miss, |entry| Found::Answer(entry, Ttls::Less(0), None))
}

/// DO and CD of a query whose third octet of flags is `header`.
#[inline(always)]
fn flags_of(query: &Query, header: u8) -> u8 {
    let dnssec_ok = query.edns.is_some_and(|edns| edns.dnssec_ok);
    flag::of(dnssec_ok, header & CD != 0)
}

/// Code and AD of an entry.
#[inline]
fn of_entry(reply: &mut Reply<'_>, entry: &Entry<'_>, plan: &Plan) {
    reply.rcode = u16::from(entry.rcode());
    //= RFC 6840, 5.8
    //# validating resolvers SHOULD only set the AD bit when a response both meets the conditions
    //# listed in Section 3.2.3 of [RFC4035], and the request contained either a set DO bit or a
    //# set AD bit.
    let wants = plan.header & AD != 0 || plan.query.edns.is_some_and(|edns| edns.dnssec_ok);
    if wants && entry.flags() & flag::AUTHENTIC != 0 {
        reply.bits |= AD;
    }
}

#[inline]
fn mark_stale(reply: &mut Reply<'_>, entry: &Entry<'_>, ttls: Ttls) {
    match ttls {
        Ttls::All(_) if u16::from(entry.rcode()) == NXDOMAIN => {
            reply.ede = Some(EDE_STALE_NXDOMAIN);
        }
        Ttls::All(_) => reply.ede = Some(EDE_STALE_ANSWER),
        Ttls::Less(0) => {}
        Ttls::Less(_) if entry.flags() & flag::FAILURE != 0 => reply.ede = Some(EDE_CACHED_ERROR),
        Ttls::Less(_) => {}
    }
}

/// Defers a query, of which only the question has stayed as it was: header and OPT are written
/// anew.
#[cold]
pub(super) fn defer(query: &Query, exchange: &mut Exchange<'_>) -> Verdict {
    let mut at = query.question_end;
    let buffer = &mut *exchange.buffer;
    buffer[4..HEADER_LEN].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, u8::from(query.edns.is_some())]);
    if let Some(Edns { udp_size, dnssec_ok, nsid, keepalive, .. }) = query.edns {
        const OPT_LEN: usize = 11;
        let (start, end) = (at, at + OPT_LEN);
        let opt = &mut buffer[start..end];
        opt.fill(0);
        opt[1..3].copy_from_slice(&rtype::OPT.to_be_bytes());
        opt[3..5].copy_from_slice(&udp_size.to_be_bytes());
        opt[7] = u8::from(dnssec_ok) << 7;
        at = end;
        for (is_there, code) in [(nsid, 3), (keepalive.is_some(), 11)] {
            if is_there {
                buffer[at..at + 4].copy_from_slice(&[0, code, 0, 0]);
                at += 4;
            }
        }
        buffer[end - 1] = (at - end) as u8;
    }
    exchange.query_len = at;
    Verdict::Defer(Ticket::Resolve)
}

/// The query that the reply in `message` answered, for asking anew: RD set, and DO and CD as
/// `flags` say ([`flag`]).
pub fn query_again(message: &[u8], flags: u8) -> Option<ArrayVec<u8, QUERY_AGAIN_LEN_MAX>> {
    let end = skip_name(message, HEADER_LEN)? + 4;
    let mut query = ArrayVec::new();
    query.try_extend_from_slice(message.get(..end)?).ok()?;
    query[2..4].copy_from_slice(&[1, if flags & flag::CHECKING_DISABLED != 0 { CD } else { 0 }]);
    let dnssec_ok = flags & flag::DNSSEC_OK;
    query[4..HEADER_LEN].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, dnssec_ok]);
    if dnssec_ok != 0 {
        query.try_extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0]).ok()?;
    }
    Some(query)
}

/// Octets of header, question and an OPT record.
const QUERY_AGAIN_LEN_MAX: usize = HEADER_LEN + NAME_LEN_MAX + 4 + 11;

/// Adds the records of one section of an entry whose question's name stands at `target_at`; `None`
/// if they do not fit.
fn append_records(
    reply: &mut Reply<'_>,
    scratch: &mut Vec<u8>,
    entry: &Entry<'_>,
    ttls: Ttls,
    (section, target_at): (Section, usize),
) -> Option<()> {
    scratch.clear();
    scratch.extend_from_slice(&[0, 0, 0, 0, 0, 1]);
    let records = entry.records();
    records.counts.iter().for_each(|count| scratch.extend_from_slice(&count.to_be_bytes()));
    scratch.extend_from_slice(entry.name());
    scratch.extend_from_slice(&[0; 4]);
    scratch.extend_from_slice(records.body);
    let message = Message::new(scratch)?;
    let wanted = match section {
        Section::Answer => message::Section::Answer,
        Section::Authority => message::Section::Authority,
        Section::Additional => message::Section::Additional,
    };
    let mut octets = Vec::with_capacity(512);
    for record in message.records().ok()? {
        let record = record.ok()?;
        if record.section != wanted {
            continue;
        }
        octets.clear();
        message.expand(record.at, &mut octets).ok()?;
        if octets.eq_ignore_ascii_case(entry.name()) && target_at < 0x4000 {
            octets.clear();
            octets.extend_from_slice(&(0xC000 | target_at as u16).to_be_bytes());
        }
        octets.extend_from_slice(&record.rtype.to_be_bytes());
        octets.extend_from_slice(&record.class.to_be_bytes());
        let ttl = match ttls {
            Ttls::Less(age) => record.ttl.saturating_sub(age),
            Ttls::All(ttl) => ttl,
        };
        octets.extend_from_slice(&ttl.to_be_bytes());
        let len_at = octets.len();
        octets.extend_from_slice(&[0; 2]);
        expand_rdata(message, &record, &mut octets).ok()?;
        let len = u16::try_from(octets.len() - len_at - 2).ok()?;
        octets[len_at..len_at + 2].copy_from_slice(&len.to_be_bytes());
        reply.record(section, &octets)?;
    }
    Some(())
}
