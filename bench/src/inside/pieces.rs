//! What is counted and timed of answering: each piece over the same fixed zone and queries.
//!
//! ```text
//!   parse            lookup                emit            pieces of pass 1, 2 and 3 by themselves
//!   hit, referral, wildcard, absent        whole answers, in batches of 64
//!   signed_hit, denial_nsec, denial_nsec3  the same with DO, from signed zones
//!   cached                                 the answers of hit, from a cache
//! ```

use std::hint::black_box;
use std::io;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use ring53::answer::{
    CoreState, Counters, Exchange, Options, Owner, Reply, Search, Section, Transport, Verdict,
    answer_batch,
};
use ring53::cache::{Aside, Cache, Key, Prepared, TtlBounds};
use ring53::limits::{CACHE_MEMORY_MIN as MEMORY_MIN, NAME_LABELS_MAX};
use ring53::policy::{Prefix, Prefixes};
use ring53::snapshot::{Elsewhere, Identity, Recursion, Snapshot, ZoneState};
use ring53::wire::query::{Query, read_query};
use ring53::wire::{LowerName, Name, rtype};
use ring53::zone::{HashKey, LoadOptions, SuffixHashes, Zone, load};

use super::answer::Memory;
use super::zone::{DELEGATIONS, HOSTS, Signing, text};
use crate::zones::queries::Random;

/// Queries of one pass. Counts have three places after the point, and no more.
pub const QUERIES: usize = 1000;
const BATCH: usize = 64;
/// Somebody: 192.0.2.1.
const CLIENT: u128 = 0xFFFF_C000_0201;
/// Octets of a datagram's buffer, and of an answer.
const BUFFER: usize = 1232;

/// A query in its buffer.
#[derive(Clone)]
pub struct Slot {
    buffer: [u8; BUFFER],
    len: usize,
}

/// A pass over queries that stand in their buffers.
pub type Pass = Box<dyn FnMut(&mut [Slot])>;

/// Something that is counted.
pub struct Piece {
    /// Its name in the ratchet.
    pub name: &'static str,
    signing: Signing,
    asked: Asked,
    pass: fn(World) -> Pass,
}

/// All of them. What is not built yet, such as rate limits, comes as one more line.
pub const PIECES: &[Piece] = &[
    Piece { name: "parse", signing: Signing::Unsigned, asked: Asked::Hosts, pass: parse },
    Piece { name: "lookup", signing: Signing::Unsigned, asked: Asked::Hosts, pass: lookup },
    Piece { name: "emit", signing: Signing::Unsigned, asked: Asked::Hosts, pass: emit },
    Piece { name: "hit", signing: Signing::Unsigned, asked: Asked::Hosts, pass: answer },
    Piece { name: "mail", signing: Signing::Unsigned, asked: Asked::Mail, pass: answer },
    Piece { name: "referral", signing: Signing::Unsigned, asked: Asked::Below, pass: answer },
    Piece { name: "wildcard", signing: Signing::Unsigned, asked: Asked::Wild, pass: answer },
    Piece { name: "absent", signing: Signing::Unsigned, asked: Asked::Absent, pass: answer },
    Piece { name: "signed_hit", signing: Signing::Nsec3, asked: Asked::Hosts, pass: answer },
    Piece { name: "denial_nsec", signing: Signing::Nsec, asked: Asked::Absent, pass: answer },
    Piece { name: "denial_nsec3", signing: Signing::Nsec3, asked: Asked::Absent, pass: answer },
    Piece { name: "cached", signing: Signing::Unsigned, asked: Asked::Hosts, pass: cached },
];

impl Piece {
    /// The piece of that name.
    pub fn named(name: &str) -> io::Result<&'static Piece> {
        let found = PIECES.iter().find(|piece| piece.name == name);
        found.ok_or_else(|| io::Error::other(format!("{name} is no piece that is counted")))
    }

    /// Loads the zone; the pass, and the queries it is for, so many times.
    pub fn prepare(&self, times: usize) -> io::Result<(Pass, Vec<Slot>)> {
        let slots = queries(self.asked, self.signing != Signing::Unsigned)?;
        let world = World { snapshot: snapshot(self.signing)?, slots: slots.clone() };
        let all = (0..times).flat_map(|_| slots.iter().cloned()).collect();
        Ok(((self.pass)(world), all))
    }
}

//----------- The world ------------------------------------------------------

/// What a pass is made from.
struct World {
    snapshot: Snapshot,
    slots: Vec<Slot>,
}

fn snapshot(signing: Signing) -> io::Result<Snapshot> {
    let key = HashKey::new(*b"a fixed secret..");
    let apex: Name = "example.".parse().map_err(io::Error::other)?;
    // One thread: the order in which several are done differs.
    let options = LoadOptions::new(key, 1);
    let loaded = load(&apex, "zone", &Memory(text(signing).into_bytes()), &options);
    let zone = loaded.zone.ok_or_else(|| io::Error::other(format!("{:?}", loaded.diagnostics)))?;
    let zones = vec![(apex, ZoneState::Serving(Arc::new(zone)))];
    Ok(Snapshot::new(1, key, Identity::default(), zones))
}

/// What is asked for.
#[derive(Clone, Copy)]
enum Asked {
    Hosts,
    Mail,
    Below,
    Wild,
    Absent,
}

fn queries(asked: Asked, dnssec: bool) -> io::Result<Vec<Slot>> {
    let mut random = Random::new(53);
    let slot = |id: usize| {
        let (name, rtype) = match asked {
            Asked::Hosts => (format!("h{}.example.", random.below(HOSTS)), rtype::A),
            Asked::Mail => (format!("m{}.example.", random.below(DELEGATIONS)), rtype::MX),
            Asked::Below => (format!("www.d{}.example.", random.below(DELEGATIONS)), rtype::A),
            Asked::Wild => (format!("x{}.w.example.", random.below(1 << 40)), rtype::TXT),
            Asked::Absent => (format!("x{}.example.", random.below(1 << 40)), rtype::A),
        };
        let name: Name = name.parse().map_err(io::Error::other)?;
        let mut message = (id as u16).to_be_bytes().to_vec();
        message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
        message.extend(name.as_wire());
        message.extend(rtype.to_be_bytes());
        message.extend([0, 1, 0, 0, 41, 4, 208, 0, 0, if dnssec { 0x80 } else { 0 }, 0, 0, 0]);
        let mut buffer = [0; BUFFER];
        buffer[..message.len()].copy_from_slice(&message);
        Ok(Slot { buffer, len: message.len() })
    };
    (0..QUERIES).map(slot).collect()
}

impl World {
    /// The queries as pass 1 leaves them.
    fn read(&self) -> Vec<(Query, LowerName, SuffixHashes)> {
        let read = |slot: &Slot| {
            let (mut name, mut hashes) = (LowerName::new(), [0; NAME_LABELS_MAX + 1]);
            let query = read_query(&slot.buffer, slot.len, &mut name).ok();
            self.snapshot.key().suffixes(&name, &mut hashes);
            (query.expect("a query of this file"), name, hashes)
        };
        self.slots.iter().map(read).collect()
    }
}

//----------- Passes ---------------------------------------------------------

/// Reads a query, lower-cases its name and hashes its suffixes.
fn parse(world: World) -> Pass {
    let (mut name, mut hashes) = (LowerName::new(), [0; NAME_LABELS_MAX + 1]);
    Box::new(move |slots| {
        for slot in slots {
            black_box(read_query(&slot.buffer, slot.len, &mut name).is_ok());
            world.snapshot.key().suffixes(&name, &mut hashes);
            black_box(&hashes);
        }
    })
}

/// Finds the zone and the node, whose names are read and hashed already.
fn lookup(world: World) -> Pass {
    let read = world.read();
    Box::new(move |slots| {
        for index in 0..slots.len() {
            let (_, name, hashes) = &read[index % read.len()];
            let (zone, node) = find(&world.snapshot, name, hashes);
            black_box((zone.serial(), node));
        }
    })
}

#[inline(always)]
fn find<'a>(snapshot: &'a Snapshot, name: &LowerName, hashes: &SuffixHashes) -> (&'a Zone, usize) {
    let (zone, apex_depth) =
        snapshot.find_zone(name, hashes, name.depth()).expect("all are in the zone");
    let zone = snapshot.zone(zone).zone().expect("it is served");
    (zone, Search::start(zone, apex_depth, name, hashes).run(zone, name, hashes).node)
}

/// Writes the reply of one RRset over a query, whose node is found already.
fn emit(world: World) -> Pass {
    let found: Vec<(Query, usize, usize)> = world
        .read()
        .iter()
        .map(|(query, name, hashes)| (*query, find(&world.snapshot, name, hashes).1, name.len()))
        .collect();
    let options = Options { nsid: None, keepalive: None };
    Box::new(move |slots| {
        let zone = world.snapshot.zone(0).zone().expect("it is served");
        for (index, slot) in slots.iter_mut().enumerate() {
            let (query, node, len) = found[index % found.len()];
            let owner = Owner::Ends { end: query.question_end - 4, len };
            let rrset = zone.node(node).rrset(query.qtype).expect("hosts have an address");
            let mut reply = Reply::new(&mut slot.buffer, &query, BUFFER, options);
            reply.authoritative = true;
            black_box(reply.rrset(Section::Answer, rrset, owner));
            slot.len = black_box(reply.finish(1));
        }
    })
}

/// Answers in batches of 64, as a core does.
fn answer(world: World) -> Pass {
    batches(world.snapshot, CoreState::new(Arc::new(Counters::default())))
}

/// The same of a server without zones, from a cache that has what the zone says.
fn cached(world: World) -> Pass {
    let key = world.snapshot.key();
    let cache = Cache::new(MEMORY_MIN, 1).expect("it is the least there may be");
    let (mut name, mut prepared) = (LowerName::new(), Prepared::default());
    let mut core = CoreState::new(Arc::new(Counters::default()));
    for mut slot in world.slots {
        let query = read_query(&slot.buffer, slot.len, &mut name).ok();
        let qtype = query.expect("a query of this file").qtype;
        let entry = Key { name_hash: key.name(&name), name: name.as_wire(), qtype, flags: 0 };
        let mut exchange = [exchange_of(&mut slot)];
        answer_batch(&world.snapshot, Duration::ZERO, &mut core, &mut exchange);
        let Verdict::Reply(len) = exchange[0].verdict else { unreachable!("the zone has it") };
        let (message, aside) = (&slot.buffer[..len], Aside { edes: &[], trusts_ad: false });
        let bounds = TtlBounds::default();
        let is_taken = prepared.response(&entry, message, Duration::ZERO, &bounds, aside);
        assert!(is_taken.is_ok() && cache.keep(&entry, &prepared, Duration::ZERO, 0));
    }
    core.cache = cache.reader();
    let elsewhere = Elsewhere { forwards: &[Name::root()], special: Vec::new() };
    let all = Prefixes::new([Prefix::around(Ipv6Addr::UNSPECIFIED.into(), 0)]);
    let recursion = Some(Arc::new(Recursion::new(key, all, elsewhere)));
    let snapshot = Snapshot::new(1, key, Identity::default(), Vec::new());
    batches(snapshot.with_recursion(recursion), core)
}

#[inline(always)]
fn exchange_of(slot: &mut Slot) -> Exchange<'_> {
    Exchange {
        buffer: &mut slot.buffer,
        query_len: slot.len,
        transport: Transport::Datagram,
        client: CLIENT,
        verdict: Verdict::Reply(0),
    }
}

fn batches(snapshot: Snapshot, mut core: CoreState) -> Pass {
    Box::new(move |slots| {
        // The last batch of each thousand is short, however many thousands there are.
        for batch in slots.chunks_mut(QUERIES).flat_map(|pass| pass.chunks_mut(BATCH)) {
            let mut exchanges = ArrayVec::<Exchange<'_>, BATCH>::new();
            exchanges.extend(batch.iter_mut().map(exchange_of));
            answer_batch(&snapshot, Duration::ZERO, &mut core, &mut exchanges);
            black_box(&exchanges);
        }
    })
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    /// Header fields of an answer: rcode, and the counts of its sections without OPT.
    fn outline(slot: &Slot) -> (u8, [u16; 3]) {
        let count = |at: usize| u16::from_be_bytes([slot.buffer[at], slot.buffer[at + 1]]);
        (slot.buffer[3] & 0xF, [count(6), count(8), count(10) - 1])
    }

    #[test]
    fn pieces_do_what_they_are_named_after() {
        for (name, rcode, counts) in [
            ("emit", 0, [1, 0, 0]),
            ("hit", 0, [1, 0, 0]),
            ("cached", 0, [1, 0, 0]),
            ("mail", 0, [2, 0, 2]),
            ("referral", 0, [0, 2, 2]),
            ("wildcard", 0, [1, 0, 0]),
            ("absent", 3, [0, 1, 0]),
            ("signed_hit", 0, [2, 0, 0]),
            // SOA, the record over the name and that over the wildcard, a signature each; the same
            // name closes the encloser with NSEC3.
            ("denial_nsec", 3, [0, 6, 0]),
            ("denial_nsec3", 3, [0, 8, 0]),
        ] {
            let (mut pass, mut slots) = Piece::named(name).unwrap().prepare(1).unwrap();
            pass(&mut slots);
            let found: Vec<_> = slots.iter().map(outline).collect();
            // Where one record proves two things it is there once; hosts with AAAA bring more.
            let as_expected = |(code, found): &(u8, [u16; 3])| {
                *code == rcode && found[..2].iter().zip(&counts).all(|(a, b)| a <= b)
            };
            assert!(found.iter().all(as_expected), "{name}: {:?}", &found[..4]);
            let usual = found.iter().filter(|(_, it)| it[..2] == counts[..2]).count();
            assert!(usual > QUERIES / 2, "{name}: {usual} {:?}", &found[..4]);
        }
    }

    #[test]
    fn queries_and_zones_are_the_same_each_time() {
        for piece in PIECES {
            let octets = || {
                let (mut pass, mut slots) = piece.prepare(1).unwrap();
                pass(&mut slots);
                slots.iter().flat_map(|slot| slot.buffer).collect::<Vec<u8>>()
            };
            assert!(octets() == octets(), "{}", piece.name);
        }
    }
}
