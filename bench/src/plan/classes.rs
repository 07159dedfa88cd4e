//! The classes of traffic, and what is asked of each.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;

use ring53::limits::HEADER_LEN;
use ring53::wire::{Name, rtype};

use crate::mix::{Expected, Questions, QuestionsBuilder, Traits};
use crate::probe::fill::words;
use crate::zones::queries::Random;

use super::limits::Transport;
use super::sorting::{Said, classify, said_by_cache};
use super::upstream;
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
    /// An answer that a cache has.
    CacheHit,
    /// One that it has to ask for.
    CacheMiss,
    /// A transfer of the zone: so many a second, no share.
    Transfer,
}

/// All kinds with their names.
const KINDS: [(Kind, &str); 10] = [
    (Kind::Hit, "hit"),
    (Kind::Nxdomain, "nxdomain"),
    (Kind::Signed, "signed"),
    (Kind::SignedNxdomain, "signed-nxdomain"),
    (Kind::Referral, "referral"),
    (Kind::Tcp, "tcp"),
    (Kind::TcpQuery, "tcp-query"),
    (Kind::CacheHit, "cache-hit"),
    (Kind::CacheMiss, "cache-miss"),
    (Kind::Transfer, "transfer"),
];

impl Kind {
    /// How its messages travel.
    pub fn transport(self) -> Transport {
        match self {
            Kind::Tcp => Transport::Tcp,
            Kind::TcpQuery => Transport::TcpPerQuery,
            _ => Transport::Udp,
        }
    }

    /// Whether only a cache has it.
    pub fn is_of_cache(self) -> bool {
        matches!(self, Kind::CacheHit | Kind::CacheMiss)
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
    pub(super) message: Vec<u8>,
    pub(super) question_len: usize,
    pub(super) traits: Traits,
    /// What a cache has to say: what it does not get it answers for as well, with SERVFAIL.
    pub(super) rcode: Option<u8>,
}

impl Asked {
    fn new(name: &[u8], rtype: u16, traits: Traits) -> Asked {
        let mut message = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        message.extend(name);
        message.extend(rtype.to_be_bytes());
        message.extend([0, 1]);
        let question_len = message.len() - HEADER_LEN;
        // OPT (RFC 6891) with the size that DNS Flag Day 2020 settled on.
        message.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        Asked { message, question_len, traits, rcode: None }
    }

    /// With DO.
    fn wanting_signatures(mut self) -> Asked {
        let at = self.message.len() - 4;
        self.message[at] |= 0x80;
        self
    }

    /// With RD: a server that does not know asks others.
    pub(super) fn of_cache(mut self, rcode: Option<u8>) -> Asked {
        self.message[2] |= 1;
        self.rcode = rcode;
        self
    }
}

/// What is asked of one class.
#[derive(Clone, Debug)]
pub struct Pool {
    /// The class.
    pub kind: Kind,
    pub(super) asked: Vec<Asked>,
    /// As real traffic has it; empty: drawn evenly.
    pub(super) order: Vec<u32>,
    /// Whether a cache is asked for all of it before a load.
    pub filled: bool,
}

/// Octets of a label that is drawn anew each time: 60 bits.
const FRESH: u8 = 12;
/// More names than this make the order longer, not the load other.
pub const NAMES_MAX: usize = 1 << 20;

impl Pool {
    /// What a zone has of a class.
    pub fn of_zone(kind: Kind, apex: &Name, zone: &ZoneNames) -> io::Result<Pool> {
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
            let asked = Asked::new(name, rtype, Traits { fresh, mixed_case: false, stream });
            if dnssec { asked.wanting_signatures() } else { asked }
        };
        let asked: Vec<Asked> = match kind {
            Kind::Nxdomain | Kind::SignedNxdomain => {
                vec![one(&fresh_below(apex.as_wire()), rtype::A, FRESH)]
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
        Ok(Pool { kind, asked, order: Vec::new(), filled: false })
    }

    /// What a cache asks its upstream, whose zone has `names` hosts, or has asked it before.
    pub fn of_upstream(kind: Kind, zone: &Name, names: u64) -> Pool {
        let one = |name: &[u8], fresh: u8| {
            let traits = Traits { fresh, ..Traits::default() };
            Asked::new(name, rtype::A, traits).of_cache(Some(0))
        };
        let filled = kind != Kind::CacheMiss;
        let asked = match filled {
            true => (0..names).map(|number| one(&upstream::host(zone, number), 0)).collect(),
            false => vec![one(&fresh_below(&upstream::misses(zone)), FRESH)],
        };
        Pool { kind, asked, order: Vec::new(), filled }
    }

    /// Its messages.
    pub fn messages(&self) -> impl Iterator<Item = &[u8]> {
        self.asked.iter().map(|asked| asked.message.as_slice())
    }

    /// Whether it is of real traffic.
    pub fn is_real(&self) -> bool {
        !self.order.is_empty()
    }

    /// Takes what each query was answered with; those without an answer are asked no more.
    pub fn learn(&mut self, rcodes: &[Option<u8>]) {
        let mut kept = Vec::with_capacity(self.asked.len());
        let mut places = Vec::with_capacity(self.asked.len());
        for (mut asked, rcode) in self.asked.drain(..).zip(rcodes) {
            places.push(rcode.map(|_| kept.len() as u32));
            if let Some(rcode) = rcode {
                asked.rcode.get_or_insert(*rcode);
                kept.push(asked);
            }
        }
        self.asked = kept;
        let order = self.order.iter().filter_map(|&at| places[at as usize]);
        self.order = order.collect();
    }

    /// Mean octets of a query.
    pub fn query_octets(&self) -> f64 {
        let sum: usize = self.asked.iter().map(|asked| asked.message.len()).sum();
        sum as f64 / self.asked.len().max(1) as f64
    }

    /// Asks for some of them and returns an error if they are of another class.
    pub fn confirm(&self, server: SocketAddr) -> io::Result<()> {
        const SAMPLES: usize = 16;
        let of_cache = self.filled || self.kind.is_of_cache();
        let step = self.asked.len().div_ceil(SAMPLES).max(1);
        for asked in self.asked.iter().step_by(step) {
            let mut found = match of_cache {
                true => said_by_cache(server, asked, self.kind, self.is_real())?,
                false => classify(server, asked)?,
            };
            if found == Said::Class(Kind::Tcp) && self.kind == Kind::TcpQuery {
                found = Said::Class(Kind::TcpQuery);
            }
            if found != Said::Class(self.kind) {
                return Err(io::Error::other(format!(
                    "class {}: the answer to {} is {}: is this {}?",
                    self.kind,
                    words(&asked.message),
                    match found {
                        Said::Class(kind) => format!("of class {kind}"),
                        Said::NoClass if of_cache => "none of a cache (RA, no AA, a record)".into(),
                        Said::NoClass => "of no class".into(),
                        Said::Nothing => "missing".into(),
                    },
                    if of_cache { "a cache that asks the upstream" } else { "the right zone" }
                )));
            }
        }
        Ok(())
    }
}

/// A name below `parent` whose first label is drawn anew each time.
fn fresh_below(parent: &[u8]) -> Vec<u8> {
    [&[FRESH], &[b'x'; FRESH as usize][..], parent].concat()
}

/// The queries of a mix: classes drawn by their shares, queries as their pool has them.
pub fn questions(pools: &[Pool], shares: &[f64], seed: u64) -> Questions {
    const POSITIONS: usize = 1 << 18;
    let mut random = Random::new(seed);
    let mut builder = QuestionsBuilder::default();
    let mut indices: Vec<Vec<u32>> = Vec::with_capacity(pools.len());
    for (pool, &share) in pools.iter().zip(shares) {
        let used = if share > 0.0 { pool.asked.as_slice() } else { &[] };
        let add = |asked: &Asked| {
            let index = builder.add(&asked.message, asked.question_len, asked.traits);
            if let Some(rcode) = asked.rcode {
                builder.expect(index, Expected { rcode, digest: None, proof: false });
            }
            index
        };
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
    fn caches_have_classes_of_their_own() {
        let zone: Name = "plan-upstream.net.".parse().unwrap();
        let shares: Shares = "cache-hit=3,cache-miss=1".parse().unwrap();
        assert_eq!(shares.classes, [(Kind::CacheHit, 0.75), (Kind::CacheMiss, 0.25)]);
        let pools: Vec<Pool> =
            shares.classes.iter().map(|&(kind, _)| Pool::of_upstream(kind, &zone, 50)).collect();
        assert!(pools[0].filled && !pools[1].filled);
        assert_eq!(pools[0].messages().count(), 50);
        let questions = questions(&pools, &[0.75, 0.25], 7);
        assert_eq!(questions.len(), 51);
        for entry in questions.entries() {
            // Answers with SERVFAIL are none.
            let expected = Expected { rcode: 0, digest: None, proof: false };
            assert_eq!(entry.expected, Some(expected));
            assert_eq!(questions.message(entry)[2], 1, "RD");
        }
        let fresh = questions.entries().iter().filter(|entry| entry.fresh > 0);
        let fresh: Vec<&[u8]> = fresh.map(|entry| questions.message(entry)).collect();
        assert_eq!(fresh.len(), 1);
        assert!(words(fresh[0]).ends_with("x.miss.plan-upstream.net. A"), "{}", words(fresh[0]));
    }
}
