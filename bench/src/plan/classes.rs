//! The classes of traffic: what is asked of each, and which class a query of real traffic is of.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use ring53::limits::HEADER_LEN;
use ring53::wire::message::{Message, Section, header};
use ring53::wire::{Name, rtype};

use crate::mix::{Questions, QuestionsBuilder, Traits};
use crate::zones::queries::Random;

use super::limits::Transport;
use super::server::ask;
use super::zone::ZoneNames;

//----------- Kind -----------------------------------------------------------

/// A class of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// An answer of the zone, or that a name has no such type.
    Hit,
    /// A name that does not exist.
    Nxdomain,
    /// An answer with its signatures.
    Signed,
    /// A name that does not exist, with the proof.
    SignedNxdomain,
    /// A delegation.
    Referral,
    /// A hit over a connection that stays.
    Tcp,
    /// A hit over a connection of its own.
    TcpQuery,
    /// A transfer of the zone: so many a second, no share.
    Transfer,
}

/// All kinds with their names.
const KINDS: [(Kind, &str); 8] = [
    (Kind::Hit, "hit"),
    (Kind::Nxdomain, "nxdomain"),
    (Kind::Signed, "signed"),
    (Kind::SignedNxdomain, "signed-nxdomain"),
    (Kind::Referral, "referral"),
    (Kind::Tcp, "tcp"),
    (Kind::TcpQuery, "tcp-query"),
    (Kind::Transfer, "transfer"),
];

/// Classes that only a resolver has.
const OF_CACHES: [&str; 2] = ["cache-hit", "cache-miss"];

impl Kind {
    /// How its messages travel.
    pub fn transport(self) -> Transport {
        match self {
            Kind::Tcp => Transport::Tcp,
            Kind::TcpQuery => Transport::TcpPerQuery,
            _ => Transport::Udp,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = KINDS.iter().find(|(kind, _)| kind == self).map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

//----------- Shares ---------------------------------------------------------

/// The classes of the traffic with their shares, and transfers a second.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shares {
    /// Classes with their shares; these sum up to 1.
    pub classes: Vec<(Kind, f64)>,
    /// Transfers a second.
    pub transfers: f64,
}

impl Shares {
    /// From weights, of which transfers are a rate.
    pub fn of(weights: &[(Kind, f64)]) -> Result<Shares, String> {
        let (mut shares, mut sum) = (Shares::default(), 0.0);
        for &(kind, weight) in weights.iter().filter(|(_, weight)| *weight > 0.0) {
            match kind {
                Kind::Transfer => shares.transfers += weight,
                _ => {
                    sum += weight;
                    shares.classes.push((kind, weight));
                }
            }
        }
        if shares.classes.is_empty() {
            return Err("no class of queries has a share: for example hit=0.8,nxdomain=0.2".into());
        }
        shares.classes.iter_mut().for_each(|(_, share)| *share /= sum);
        Ok(shares)
    }
}

impl FromStr for Shares {
    type Err = String;

    fn from_str(text: &str) -> Result<Shares, String> {
        let mut weights: Vec<(Kind, f64)> = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part
                .split_once('=')
                .ok_or_else(|| format!("{part:?} is no share: for example hit=0.7"))?;
            if OF_CACHES.contains(&name) {
                return Err(format!(
                    "{name} needs a server with a cache; this plans authoritative servers"
                ));
            }
            let &(kind, _) = KINDS.iter().find(|(_, known)| *known == name).ok_or_else(|| {
                let known: Vec<&str> = KINDS.iter().map(|(_, name)| *name).collect();
                format!("{name:?} is no class: {}", known.join(", "))
            })?;
            let weight = weight.parse::<f64>().ok().filter(|weight| (0.0..1e9).contains(weight));
            let weight = weight.ok_or_else(|| format!("{part:?}: the share is no number"))?;
            if weights.iter().any(|(known, _)| *known == kind) {
                return Err(format!("{name} is said twice"));
            }
            weights.push((kind, weight));
        }
        Shares::of(&weights)
    }
}

//----------- Pools ----------------------------------------------------------

/// A query of a class.
#[derive(Clone, Debug)]
pub struct Asked {
    message: Vec<u8>,
    question_len: usize,
    traits: Traits,
}

/// What is asked of one class.
#[derive(Clone, Debug)]
pub struct Pool {
    /// The class.
    pub kind: Kind,
    asked: Vec<Asked>,
    /// As real traffic has it; empty: drawn evenly.
    order: Vec<u32>,
}

/// Octets of a label that is drawn anew each time: 60 bits.
const FRESH: u8 = 12;

impl Pool {
    /// What a zone has of a class.
    pub fn of_zone(kind: Kind, apex: &Name, zone: &ZoneNames) -> io::Result<Pool> {
        /// More names than this make the order longer, not the load other.
        const NAMES_MAX: usize = 1 << 20;
        let lacks = |what: &str| {
            Err(io::Error::other(format!(
                "class {kind}: the zone has no {what}: leave the class out, or give another --zone"
            )))
        };
        let dnssec = matches!(kind, Kind::Signed | Kind::SignedNxdomain);
        if dnssec && !zone.signed {
            return lacks("signatures");
        }
        let stream = matches!(kind, Kind::Tcp | Kind::TcpQuery);
        let one = |name: &[u8], rtype: u16, fresh: u8| {
            let mut message = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1];
            message.extend(name);
            message.extend(rtype.to_be_bytes());
            message.extend([0, 1]);
            let question_len = message.len() - HEADER_LEN;
            // OPT (RFC 6891) with the size that DNS Flag Day 2020 settled on.
            let dnssec_ok = if dnssec { 0x80 } else { 0 };
            message.extend([0, 0, 41, 4, 208, 0, 0, dnssec_ok, 0, 0, 0]);
            Asked { message, question_len, traits: Traits { fresh, mixed_case: false, stream } }
        };
        let asked: Vec<Asked> = match kind {
            Kind::Nxdomain | Kind::SignedNxdomain => {
                let label = [&[FRESH], &[b'x'; FRESH as usize][..], apex.as_wire()].concat();
                vec![one(&label, rtype::A, FRESH)]
            }
            Kind::Referral => {
                let cuts = zone.cuts.iter().take(NAMES_MAX);
                cuts.map(|cut| one(&[b"\x03www", cut.as_slice()].concat(), rtype::A, 0)).collect()
            }
            _ => {
                let step = zone.hits.len().div_ceil(NAMES_MAX).max(1);
                zone.hits.iter().step_by(step).map(|(name, kind)| one(name, *kind, 0)).collect()
            }
        };
        if asked.is_empty() {
            return lacks(if kind == Kind::Referral { "delegations" } else { "names" });
        }
        Ok(Pool { kind, asked, order: Vec::new() })
    }

    /// Mean octets of a query.
    pub fn query_octets(&self) -> f64 {
        let sum: usize = self.asked.iter().map(|asked| asked.message.len()).sum();
        sum as f64 / self.asked.len().max(1) as f64
    }

    /// Asks for some of them and returns an error if they are of another class.
    pub fn confirm(&self, server: SocketAddr) -> io::Result<()> {
        const SAMPLES: usize = 16;
        let step = self.asked.len().div_ceil(SAMPLES).max(1);
        for asked in self.asked.iter().step_by(step) {
            let mut found = classify(server, asked)?;
            if found == Said::Class(Kind::Tcp) && self.kind == Kind::TcpQuery {
                found = Said::Class(Kind::TcpQuery);
            }
            if found != Said::Class(self.kind) {
                let text = Message::new(&asked.message).and_then(|message| {
                    let question = message.question().ok()??;
                    Some(format!("{} {}", Name::from_wire(&question.name).ok()?, question.qtype))
                });
                return Err(io::Error::other(format!(
                    "class {}: the answer to {} is {}: is this the right zone?",
                    self.kind,
                    text.unwrap_or_default(),
                    match found {
                        Said::Class(kind) => format!("of class {kind}"),
                        Said::NoClass => "of no class".into(),
                        Said::Nothing => "missing".into(),
                    }
                )));
            }
        }
        Ok(())
    }
}

/// The queries of a mix: classes drawn by their shares, queries as their pool has them.
pub fn questions(pools: &[Pool], shares: &[f64], seed: u64) -> Questions {
    const POSITIONS: usize = 1 << 18;
    let mut random = Random::new(seed);
    let mut builder = QuestionsBuilder::default();
    let mut indices: Vec<Vec<u32>> = Vec::with_capacity(pools.len());
    for (pool, &share) in pools.iter().zip(shares) {
        let used = if share > 0.0 { pool.asked.as_slice() } else { &[] };
        let add = |asked: &Asked| builder.add(&asked.message, asked.question_len, asked.traits);
        indices.push(used.iter().map(add).collect());
    }
    let mut cursors: Vec<usize> =
        pools.iter().map(|pool| random.below(pool.order.len().max(1) as u64) as usize).collect();
    for _ in 0..POSITIONS {
        let mut pick = random.below(1 << 53) as f64 / (1u64 << 53) as f64;
        let class = shares.iter().position(|share| {
            pick -= share;
            pick < 0.0
        });
        // What rounding leaves over goes to the largest.
        let largest = (0..shares.len()).max_by(|&a, &b| shares[a].total_cmp(&shares[b]));
        let Some(class) = class.or(largest) else { break };
        let (pool, cursor) = (&pools[class], &mut cursors[class]);
        let at = match pool.order.len() {
            0 => random.below(indices[class].len() as u64) as usize,
            len => {
                *cursor = (*cursor + 1) % len;
                pool.order[*cursor] as usize
            }
        };
        builder.ask(indices[class][at]);
    }
    let parts = pools.iter().zip(shares).filter(|(_, share)| **share > 0.0);
    let parts: Vec<String> =
        parts.map(|(pool, share)| format!("{} {:.1} %", pool.kind, share * 100.0)).collect();
    builder.build(parts.join(", "))
}

/// Queries on one connection, so that the two kinds of TCP have their shares; 0: no limit.
pub fn queries_per_connection(pools: &[Pool], shares: &[f64]) -> u32 {
    let of = |kind: Kind| -> f64 {
        pools.iter().zip(shares).filter(|(pool, _)| pool.kind == kind).map(|(_, share)| share).sum()
    };
    let (stay, each) = (of(Kind::Tcp), of(Kind::TcpQuery));
    if each > 0.0 { ((stay + each) / each).round() as u32 } else { 0 }
}

//----------- Sorting --------------------------------------------------------

/// The class of a query by the reply to it; `None` if no class fits: an error, a malformed reply.
pub fn class_of(query: &[u8], reply: &[u8], stream: bool) -> Option<Kind> {
    let message = Message::new(reply).filter(Message::is_response)?;
    let mut signed = false;
    let mut delegated = false;
    for record in message.records().ok()? {
        let record = record.ok()?;
        signed |= record.rtype == rtype::RRSIG;
        delegated |= record.rtype == rtype::NS && record.section == Section::Authority;
    }
    // A reply that did not fit says so over UDP; its size says nothing about its class.
    signed |= message.flags() & header::TC != 0 && wants_signatures(query);
    let authority = message.flags() & header::AA != 0;
    let nxdomain = message.rcode() == 3;
    match message.rcode() {
        0 | 3 if stream => Some(Kind::Tcp),
        0 if !authority && delegated && message.count(1) == 0 => Some(Kind::Referral),
        0 | 3 if authority => Some(match (nxdomain, signed) {
            (false, false) => Kind::Hit,
            (false, true) => Kind::Signed,
            (true, false) => Kind::Nxdomain,
            (true, true) => Kind::SignedNxdomain,
        }),
        _ => None,
    }
}

/// Whether a query has the DO bit.
fn wants_signatures(query: &[u8]) -> bool {
    let records = Message::new(query).and_then(|message| message.records().ok());
    let mut records = records.into_iter().flatten().flatten();
    records.any(|record| record.rtype == 41 && record.ttl & 0x8000 != 0)
}

/// What a server says to a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// An answer of a class.
    Class(Kind),
    /// An answer of none.
    NoClass,
    /// Nothing in time, twice.
    Nothing,
}

fn classify(server: SocketAddr, asked: &Asked) -> io::Result<Said> {
    const TIMEOUT: Duration = Duration::from_millis(500);
    let mut query = asked.message.clone();
    // A random label is one of many: any will do.
    query[1] = 53;
    match ask(server, &query, TIMEOUT).or_else(|_| ask(server, &query, TIMEOUT)) {
        Ok(reply) => {
            Ok(class_of(&query, &reply, asked.traits.stream).map_or(Said::NoClass, Said::Class))
        }
        Err(error)
            if [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&error.kind()) =>
        {
            Ok(Said::Nothing)
        }
        Err(error) => Err(io::Error::new(error.kind(), format!("{server}: {error}"))),
    }
}

/// Adds a query to the pool of its class; which pool, and where in it.
fn place_of(pools: &mut Vec<Pool>, kind: Kind, asked: Asked) -> (usize, u32) {
    let at = pools.iter().position(|pool| pool.kind == kind).unwrap_or_else(|| {
        pools.push(Pool { kind, asked: Vec::new(), order: Vec::new() });
        pools.len() - 1
    });
    pools[at].asked.push(asked);
    (at, pools[at].asked.len() as u32 - 1)
}

/// Different queries that are asked at most to sort a mix.
const ASKED_MAX: usize = 20_000;
/// So many queries in a row without an answer: the server is gone.
const SILENT_MAX: u32 = 20;

/// Positions of an order of `len`: all, or `most` spread over it, one drawn from each part.
fn positions(len: usize, most: usize, seed: u64) -> Vec<u64> {
    if len <= most {
        return (0..len as u64).collect();
    }
    let mut random = Random::new(seed);
    let bound = |part: usize| (part as u128 * len as u128 / most as u128) as u64;
    let draw = |part: usize| bound(part) + random.below(bound(part + 1) - bound(part));
    (0..most).map(draw).collect()
}

/// Sorts the queries of a mix into classes by asking each once; `per_query`: whether those over TCP
/// have a connection each.
///
/// If there are more than 20,000 different ones, so many positions of the order stand for all: what
/// is asked often counts often.
pub fn sort(
    questions: &Questions,
    server: SocketAddr,
    per_query: bool,
) -> io::Result<(Shares, Vec<Pool>)> {
    sort_by(questions, ASKED_MAX, &mut |asked| {
        Ok(match classify(server, asked)? {
            Said::Class(Kind::Tcp) if per_query => Said::Class(Kind::TcpQuery),
            said => said,
        })
    })
}

/// Sorts by what `classify` says, asking at most `asked_max` different queries.
fn sort_by(
    questions: &Questions,
    asked_max: usize,
    classify: &mut dyn FnMut(&Asked) -> io::Result<Said>,
) -> io::Result<(Shares, Vec<Pool>)> {
    let most = if questions.len() > asked_max { asked_max } else { usize::MAX };
    let mut pools: Vec<Pool> = Vec::new();
    // Of each query that was asked: its pool, its place in there.
    let mut places: HashMap<u32, Option<(usize, u32)>> = HashMap::new();
    let (mut unsorted, mut sorted, mut silent) = (0u64, 0u64, 0);
    for position in positions(questions.order_len(), most, 53) {
        let index = questions.index_at(position);
        let place = match places.get(&index) {
            Some(place) => *place,
            None => {
                let entry = questions.entry(index);
                let traits = Traits {
                    fresh: entry.fresh,
                    mixed_case: entry.mixed_case,
                    stream: entry.stream,
                };
                let message = questions.message(entry).to_vec();
                let question_len = usize::from(entry.question_len);
                let asked = Asked { message, question_len, traits };
                let said = classify(&asked)?;
                silent = if said == Said::Nothing { silent + 1 } else { 0 };
                if silent == SILENT_MAX {
                    return Err(io::Error::other(format!(
                        "{SILENT_MAX} queries in a row had no answer, each asked twice: does the \
                         server still run?"
                    )));
                }
                let place = match said {
                    Said::Class(kind) => Some(place_of(&mut pools, kind, asked)),
                    Said::NoClass | Said::Nothing => None,
                };
                places.insert(index, place);
                place
            }
        };
        match place {
            Some((pool, at)) => {
                pools[pool].order.push(at);
                sorted += 1;
            }
            None => unsorted += 1,
        }
    }
    if unsorted * 100 > sorted {
        return Err(io::Error::other(format!(
            "{unsorted} of {} queries have answers of no class (REFUSED, SERVFAIL) or none: are \
             these the server's zones?",
            unsorted + sorted
        )));
    }
    pools.sort_by_key(|pool| pool.kind);
    let weights: Vec<(Kind, f64)> =
        pools.iter().map(|pool| (pool.kind, pool.order.len() as f64)).collect();
    Ok((Shares::of(&weights).map_err(io::Error::other)?, pools))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read() {
        let shares: Shares = "hit=0.6,nxdomain=0.2,transfer=0.5".parse().unwrap();
        assert_eq!(shares.classes.len(), 2);
        assert!((shares.classes[0].1 - 0.75).abs() < 1e-12);
        assert_eq!(shares.transfers, 0.5);
        for (wrong, says) in [
            ("hit", "no share"),
            ("hits=1", "signed-nxdomain"),
            ("cache-miss=1", "needs a server with a cache"),
            ("hit=x", "no number"),
            ("hit=-1", "no number"),
            ("hit=1,hit=2", "twice"),
            ("transfer=1", "no class of queries"),
        ] {
            let error = wrong.parse::<Shares>().unwrap_err();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }

    fn zone() -> ZoneNames {
        let wire = |text: &str| text.parse::<Name>().unwrap().as_wire().to_vec();
        ZoneNames {
            records: 9,
            hits: vec![(wire("a.example."), 1), (wire("b.example."), 28)],
            cuts: vec![wire("sub.example.")],
            signed: false,
        }
    }

    #[test]
    fn a_mix_has_its_shares() {
        let apex: Name = "example.".parse().unwrap();
        let kinds = [Kind::Hit, Kind::Nxdomain, Kind::Tcp];
        let pools = kinds.map(|kind| Pool::of_zone(kind, &apex, &zone()).unwrap());
        let questions = questions(&pools, &[0.5, 0.3, 0.2], 7);
        assert_eq!(questions.len(), 5);
        let count = |which: &dyn Fn(&crate::mix::Entry) -> bool| {
            let all = 0..questions.order_len() as u64;
            let hit = all.filter(|&at| which(questions.entry(questions.index_at(at))));
            hit.count() as f64 / questions.order_len() as f64
        };
        assert!((count(&|entry| entry.fresh > 0) - 0.3).abs() < 0.01);
        assert!((count(&|entry| entry.stream) - 0.2).abs() < 0.01);
        assert_eq!(questions.text(), "hit 50.0 %, nxdomain 30.0 %, tcp 20.0 %");
        assert_eq!(queries_per_connection(&pools, &[0.5, 0.3, 0.2]), 0);
        let error = Pool::of_zone(Kind::Signed, &apex, &zone()).unwrap_err().to_string();
        assert!(error.contains("no signatures"), "{error}");

        let both = [Kind::Tcp, Kind::TcpQuery].map(|k| Pool::of_zone(k, &apex, &zone()).unwrap());
        assert_eq!(queries_per_connection(&both, &[0.75, 0.25]), 4);
        assert_eq!(queries_per_connection(&both, &[0.0, 1.0]), 1);
    }

    #[test]
    fn replies_say_the_class() {
        let query = [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1];
        let reply = |flags: [u8; 2], counts: [u8; 2], rtype: u8| {
            let mut reply = query.to_vec();
            reply[2..4].copy_from_slice(&flags);
            reply[7] = counts[0];
            reply[9] = counts[1];
            for _ in 0..counts[0] + counts[1] {
                reply.extend([0, 0, rtype, 0, 1, 0, 0, 0, 0, 0, 0]);
            }
            reply
        };
        let of = |flags, counts, rtype| class_of(&query, &reply(flags, counts, rtype), false);
        assert_eq!(of([0x84, 0], [1, 0], 1), Some(Kind::Hit));
        assert_eq!(of([0x84, 0], [0, 0], 1), Some(Kind::Hit));
        assert_eq!(of([0x84, 3], [0, 1], 6), Some(Kind::Nxdomain));
        assert_eq!(of([0x84, 0], [1, 0], 46), Some(Kind::Signed));
        assert_eq!(of([0x84, 3], [0, 1], 46), Some(Kind::SignedNxdomain));
        assert_eq!(of([0x80, 0], [0, 1], 2), Some(Kind::Referral));
        assert_eq!(of([0x80, 5], [0, 0], 1), None);
        assert_eq!(of([0x04, 0], [1, 0], 1), None);
        assert_eq!(class_of(&query, &reply([0x84, 0], [1, 0], 1), true), Some(Kind::Tcp));
        assert_eq!(class_of(&query, &[0; 5], false), None);
    }

    /// `count` different queries; `order` says which is asked when.
    fn real(count: u32, order: &[u32]) -> Questions {
        let mut builder = QuestionsBuilder::default();
        for at in 0..count {
            let name: Name = format!("n{at}.example.").parse().unwrap();
            let mut message = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            message.extend(name.as_wire());
            message.extend([0, 1, 0, 1]);
            builder.add(&message, message.len() - HEADER_LEN, Traits::default());
        }
        order.iter().for_each(|&index| builder.ask(index));
        builder.build(String::new())
    }

    #[test]
    fn what_is_asked_often_counts_often_however_many_there_are() {
        // 5000 names: three of five queries are for one that does not exist, the rest for others.
        let order: Vec<u32> =
            (0..25_000).map(|at| if at % 5 < 3 { 1 } else { at / 5 % 5000 }).collect();
        let questions = real(5000, &order);
        let head = questions.message(questions.entry(1)).to_vec();
        let asked_count = std::cell::Cell::new(0);
        let mut classify = |asked: &Asked| {
            asked_count.set(asked_count.get() + 1);
            Ok(Said::Class(if asked.message == head { Kind::Nxdomain } else { Kind::Hit }))
        };
        let (shares, pools) = sort_by(&questions, 2000, &mut classify).unwrap();
        assert_eq!(shares.classes.len(), 2);
        assert!((shares.classes[1].1 - 0.6).abs() < 0.04, "{shares:?}");
        assert!(asked_count.get() <= 2000 && pools[0].asked.len() > 500, "{asked_count:?}");
        let (all, _) = sort_by(&questions, 5000, &mut classify).unwrap();
        assert!((all.classes[1].1 - 0.6).abs() < 0.001, "{all:?}");
        for (len, most) in [(10, 20), (10, 10), (10, 7), (1 << 20, 1000)] {
            let found = positions(len, most, 1);
            assert_eq!(found.len(), len.min(most));
            assert!(found.is_sorted() && found.iter().all(|&at| at < len as u64));
        }
    }

    #[test]
    fn a_query_without_an_answer_ends_nothing_and_a_dead_server_does() {
        let order: Vec<u32> = (0..500).collect();
        let questions = real(500, &order);
        let mut count = 0;
        let (shares, pools) = sort_by(&questions, 1000, &mut |_| {
            count += 1;
            Ok(if count == 7 { Said::Nothing } else { Said::Class(Kind::Hit) })
        })
        .unwrap();
        assert_eq!((shares.classes[0].1, pools[0].order.len()), (1.0, 499));
        let error = sort_by(&questions, 1000, &mut |_| Ok(Said::Nothing)).unwrap_err().to_string();
        assert!(error.contains("in a row"), "{error}");
        let mut count = 0;
        let often = sort_by(&questions, 1000, &mut |_| {
            count += 1;
            Ok(if count % 10 == 0 { Said::NoClass } else { Said::Class(Kind::Hit) })
        });
        assert!(often.unwrap_err().to_string().contains("50 of 500"));
        // Somebody listens and says nothing.
        let mute = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let asked = Pool::of_zone(Kind::Hit, &"example.".parse().unwrap(), &zone()).unwrap();
        let said = classify(mute.local_addr().unwrap(), &asked.asked[0]).unwrap();
        assert_eq!(said, Said::Nothing);
    }
}
