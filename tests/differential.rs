//! Random zones, signed and not, asked of ring53, NSD, Knot and BIND, and of a validator.
//!
//! Answers are compared by what they say, section by section. Each difference is matched by a rule
//! below with the sentence that decides it; any other fails. Every signed answer of ring53 must be
//! accepted by Unbound with the zone's key as its trust anchor.
//!
//! `RING53_ZONES=n` and `RING53_QUESTIONS=n` for each make it longer.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ring53::wire::{Name, rtype};
use support::essence::{Essence, essence};
use support::random_zone::{RandomZone, Signing};
use support::{Random, Server, ask_all, query, seed};

/// Zones served at once.
const ROUND: u64 = 25;

const TYPES: &[u16] = &[
    rtype::A,
    rtype::A,
    rtype::A,
    rtype::NS,
    rtype::CNAME,
    rtype::SOA,
    rtype::MX,
    rtype::TXT,
    rtype::AAAA,
    rtype::SRV,
    rtype::DNAME,
    rtype::DS,
    rtype::DS,
    rtype::DNSKEY,
    rtype::NSEC,
    rtype::NSEC3,
    rtype::NSEC3PARAM,
    65280,
];

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

//----------- Rules ----------------------------------------------------------

/// One answer of two servers.
struct Asked<'a> {
    peer: &'a str,
    query: &'a [u8],
    ours: &'a Essence,
    theirs: &'a Essence,
}

/// Why two answers may differ.
type Rule = fn(&Asked<'_>) -> bool;

const RULES: &[(&str, Rule)] = &[("both cut short", both_cut_short)];

//= RFC 2181, 9
//# When a DNS client receives a reply with TC set, it should ignore that
//# response, and query again, using a mechanism, such as a TCP connection
fn both_cut_short(asked: &Asked<'_>) -> bool {
    asked.ours.truncated && asked.theirs.truncated
}

//----------- The test -------------------------------------------------------

#[derive(Default)]
struct Tally {
    asked: usize,
    different: usize,
    used: BTreeSet<&'static str>,
}

impl Tally {
    fn compare(&mut self, asked: &Asked<'_>, described: &str) {
        self.asked += 1;
        if asked.ours == asked.theirs {
            return;
        }
        if let Some((why, _)) = RULES.iter().find(|(_, rule)| rule(asked)) {
            self.used.insert(why);
            return;
        }
        self.different += 1;
        if self.different <= 6 {
            println!(
                "{described}\n{}\nring53 {:#?}\n{} {:#?}",
                asked.query[12..].escape_ascii(),
                asked.ours,
                asked.peer,
                asked.theirs
            );
        }
    }
}

#[test]
fn random_zones_are_answered_as_the_peers_answer_them() {
    let mut random = Random(seed());
    let zones = from_environment("RING53_ZONES", 50);
    let questions = from_environment("RING53_QUESTIONS", 400) as usize;
    let mut tally = Tally::default();
    for start in (0..zones).step_by(ROUND as usize) {
        round(&mut random, start..zones.min(start + ROUND), questions, &mut tally);
    }
    println!("{} answers compared; rules used: {:?}", tally.asked, tally.used);
    assert_eq!(tally.different, 0, "of {}", tally.asked);
}

fn round(
    random: &mut Random,
    numbers: std::ops::Range<u64>,
    questions: usize,
    tally: &mut Tally,
) {
    let directory = tempfile::tempdir().unwrap();
    let mut zones: Vec<(RandomZone, Signing, PathBuf)> = Vec::new();
    let mut queries = Vec::new();
    for number in numbers {
        let zone = RandomZone::new(random, &format!("z{number}.test."));
        let signing = Signing::random(random);
        let file = zone.signed(random, directory.path(), signing);
        for name in zone.asked(random, questions) {
            let Ok(name) = name.parse::<Name>() else { continue };
            let rtype = TYPES[random.below(TYPES.len() as u64) as usize];
            let edns = match random.below(8) {
                0 => None,
                1 => Some((1232, false)),
                _ => Some((1232, true)),
            };
            queries.push((zones.len(), query(0, name.as_wire(), rtype, edns)));
        }
        zones.push((zone, signing, file));
    }
    let served: Vec<(&str, &Path)> =
        zones.iter().map(|(zone, _, file)| (zone.apex.as_str(), file.as_path())).collect();
    let probe = query(1, served[0].0.parse::<Name>().unwrap().as_wire(), rtype::SOA, None);
    let asked: Vec<Vec<u8>> = queries.iter().map(|(_, query)| query.clone()).collect();
    let ring53 = Server::ring53(&served, &probe, &[]);
    let ours: Vec<Essence> = ask_all(&ring53, &asked).iter().map(|r| essence(r)).collect();
    for start in [Server::nsd, Server::knot, Server::bind] {
        let work = tempfile::tempdir().unwrap();
        let peer = start(work.path(), &served, &probe);
        let replies = ask_all(&peer, &asked);
        for (((zone, query), ours), theirs) in queries.iter().zip(&ours).zip(replies) {
            let (theirs, peer) = (&essence(&theirs), peer.name);
            let (zone, signing, _) = &zones[*zone];
            let described = format!("{} {signing:?}", zone.apex);
            tally.compare(&Asked { peer, query, ours, theirs }, &described);
        }
    }
    validate(directory.path(), &ring53, &zones, &queries, &ours);
}

/// Asks Unbound what it can resolve from ring53: all of it must be secure.
fn validate(
    directory: &Path,
    ring53: &Server,
    zones: &[(RandomZone, Signing, PathBuf)],
    queries: &[(usize, Vec<u8>)],
    ours: &[Essence],
) {
    let signed: Vec<(&str, PathBuf)> = zones
        .iter()
        .filter(|(_, signing, _)| *signing != Signing::None)
        .map(|(zone, ..)| (zone.apex.as_str(), zone.anchor(directory)))
        .collect();
    let signed: Vec<(&str, &Path)> =
        signed.iter().map(|(apex, anchor)| (*apex, anchor.as_path())).collect();
    let recursive = |query: &[u8]| {
        let mut query = query.to_vec();
        query[2] |= 1;
        query
    };
    let checked: Vec<_> = queries
        .iter()
        .zip(ours)
        .filter(|((zone, query), ours)| {
            zones[*zone].1 != Signing::None && is_resolvable(query, ours)
        })
        .collect();
    let asked: Vec<_> = checked.iter().map(|((_, query), _)| recursive(query)).collect();
    let work = tempfile::tempdir().unwrap();
    let apex = signed[0].0.parse::<Name>().unwrap();
    let probe = recursive(&query(1, apex.as_wire(), rtype::SOA, None));
    let unbound = Server::unbound(work.path(), &signed, ring53, &probe);
    for (((zone, query), ours), reply) in checked.iter().zip(ask_all(&unbound, &asked)) {
        let (zone, signing, _) = &zones[*zone];
        let (rcode, secure) = (u16::from(reply[3] & 0xF), reply[3] & 0x20 != 0);
        let may_be_insecure = matches!(signing, Signing::Nsec3(_, _, true));
        assert!(
            rcode == ours.rcode && (secure || may_be_insecure),
            "{} {signing:?}: {}: not secure: code {rcode}, {ours:#?}\n{}",
            zone.apex,
            query[12..].escape_ascii(),
            fs::read_to_string(work.path().join("unbound.log")).unwrap_or_default()
        );
    }
}

/// Whether a resolver can find the whole answer here, and so needs nobody else.
fn is_resolvable(query: &[u8], ours: &Essence) -> bool {
    let qtype = u16::from_be_bytes([query[query.len() - 15], query[query.len() - 14]]);
    let wants_signatures = query[query.len() - 4] & 0x80 != 0 && query[11] == 1;
    let elsewhere = |records: &BTreeSet<String>| {
        records.iter().any(|record| record.contains("elsewhere.example"))
    };
    let negative = ours.authority.iter().any(|record| record.contains(" in soa "));
    let has = |rtype: &str| ours.answer.iter().any(|record| record.contains(rtype));
    let final_answer = match qtype {
        rtype::CNAME | rtype::DNAME => !ours.answer.is_empty(),
        // Only links means a loop, or a target that is not served.
        _ => ours.answer.iter().any(|record| {
            let words: Vec<_> = record.split(' ').take(4).collect();
            !["cname", "dname", "rrsig"].contains(&words.get(3).copied().unwrap_or(""))
        }),
    };
    wants_signatures
        && ours.authoritative
        && !ours.truncated
        && ours.rcode != YXDOMAIN
        && !elsewhere(&ours.answer)
        && !has(" in ns ")
        && (negative || final_answer)
}

const YXDOMAIN: u16 = 6;
