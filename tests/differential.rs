//! Random zones, signed and not, asked of ring53, NSD, Knot and BIND, and of a validator.
//!
//! Answers are compared by what they say, section by section. Each difference is matched by a rule
//! below with the sentence that decides it; any other fails. Every signed answer of ring53 must be
//! accepted by Unbound with the zone's key as its trust anchor.
//!
//! `RING53_ZONES=n` and `RING53_QUESTIONS=n` for each make it longer.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use ring53::wire::{Name, rtype};
use support::essence::{Essence, essence, too_long_for_a_dname};
use support::random_zone::{RandomZone, Signing};
use support::{Random, Server, ask_all, query, seed};

/// From so many zones on every rule must have been needed.
const ALL_RULES_ZONES_MIN: u64 = 500;
/// The seed of such a run.
const ALL_RULES_SEED: u64 = 2026;
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

const RULES: &[(&str, Rule)] = &[
    ("both cut short", both_cut_short),
    ("the DS of an unsigned zone", ds_of_an_unsigned_zone),
    ("an alias asked for NSEC or NSEC3", alias_asked_for_denial),
    ("the NSEC3 of an empty wildcard", nsec3_of_an_empty_wildcard),
    ("the NSEC of an empty wildcard", nsec_of_an_empty_wildcard),
    ("a proof more", a_proof_more),
    ("an asterisk that is expanded", an_asterisk_that_is_expanded),
    ("only theirs is cut short", only_theirs_is_cut_short),
    ("only ours is cut short", only_ours_is_cut_short),
    ("sibling glue left out", sibling_glue_left_out),
    ("glue from a wildcard", glue_from_a_wildcard),
    ("a SOA left out", soa_left_out),
    ("an empty asterisk", an_empty_asterisk),
    ("octets that are not read", octets_that_are_not_read),
    ("an opt-out that is not known", opt_out_that_is_not_known),
    ("a DS for who did not ask", a_ds_for_who_did_not_ask),
    ("the TTL of NSEC3PARAM", ttl_of_nsec3param),
    ("an NSEC that is not made", an_nsec_that_is_not_made),
    ("an alias asked for", an_alias_asked_for),
    ("a loop", a_loop),
    ("a chain without end", a_chain_without_end),
    ("the NSEC of a DNAME's target", nsec_of_a_dname_target),
    ("a name without an NSEC3", a_name_without_an_nsec3),
    ("too long for a DNAME", |asked| too_long_for_a_dname(asked.ours, asked.theirs)),
    ("the NSEC at a cut", the_nsec_at_a_cut),
    ("a name before the wildcard", name_before_the_wildcard),
];

/// What is in the authority section of one answer only: ours, theirs.
fn only_in_authority<'a>(asked: &Asked<'a>) -> (Vec<&'a String>, Vec<&'a String>) {
    let (ours, theirs) = (&asked.ours.authority, &asked.theirs.authority);
    (ours.difference(theirs).collect(), theirs.difference(ours).collect())
}

fn same_but_authority(asked: &Asked<'_>) -> bool {
    let (ours, theirs) = (asked.ours, asked.theirs);
    ours.rcode == theirs.rcode && ours.answer == theirs.answer && ours.truncated == theirs.truncated
}

fn all_are(records: &[&String], rtype: &str) -> bool {
    let plain = format!(" in {rtype} ");
    let signature = format!(" in rrsig {rtype} ");
    records.iter().all(|record| record.contains(&plain) || record.contains(&signature))
}

// RFC 4035, 3.1.3.4: an NSEC proves that the wildcard owns no records of the type.
// Knot and BIND leave it out where the wildcard is an empty non-terminal.
fn nsec_of_an_empty_wildcard(asked: &Asked<'_>) -> bool {
    let (ours, theirs) = only_in_authority(asked);
    asked.peer != "nsd"
        && asked.ours.rcode == 0
        && same_but_authority(asked)
        && theirs.is_empty()
        && ours.len() == 2
        && all_are(&ours, "nsec")
}

// RFC 4035, 3.1.3, and RFC 5155, 7.2, say what must be there, not that there must be no more. NSD
// adds a proof about the wildcard where one is asked for itself, and where under an opt-out an
// empty one has no NSEC3.
fn a_proof_more(asked: &Asked<'_>) -> bool {
    let (ours, theirs) = only_in_authority(asked);
    asked.peer == "nsd"
        && asked.ours.rcode == 0
        && same_but_authority(asked)
        && ours.is_empty()
        && (all_are(&theirs, "nsec3") || all_are(&theirs, "nsec"))
}

// RFC 5155, 7.2.5: a closest encloser proof is part of a wildcard's denial.
// Knot takes a name that starts with an asterisk for the wildcard that it is expanded from.
fn an_asterisk_that_is_expanded(asked: &Asked<'_>) -> bool {
    let (ours, theirs) = only_in_authority(asked);
    asked.peer == "knot"
        && asked.query[12..14] == *b"\x01*"
        && same_but_authority(asked)
        && theirs.is_empty()
        && (all_are(&ours, "nsec3") || all_are(&ours, "nsec"))
}

//= RFC 2181, 9
//# The TC bit should be set in responses only when an RRSet is required as a part of the response,
//# but could not be included in its entirety.
// The others compress less: the owners of signatures, the names of denial.
fn only_theirs_is_cut_short(asked: &Asked<'_>) -> bool {
    let (ours, theirs) = (asked.ours, asked.theirs);
    !ours.truncated && theirs.truncated && theirs.answer.is_subset(&ours.answer)
}

//= RFC 1035, 4.1.4
//# Programs are free to avoid using pointers in messages they generate, although this will reduce
//# datagram capacity, and may cause truncation.
// A prepared RRset points into itself and to its owner, not to what else is in the message.
fn only_ours_is_cut_short(asked: &Asked<'_>) -> bool {
    let (ours, theirs) = (asked.ours, asked.theirs);
    ours.truncated && !theirs.truncated && ours.answer.is_subset(&theirs.answer)
}

// RFC 9471, 2.2 and 3.2: sibling glue may be left out.
// BIND leaves out addresses of name servers that do not lie below the cut.
fn sibling_glue_left_out(asked: &Asked<'_>) -> bool {
    let (ours, theirs) = (asked.ours, asked.theirs);
    let Some(cut) = ours.authority.iter().find(|record| record.contains(" in ns ")) else {
        return false;
    };
    let cut = format!(".{}", cut.split(' ').next().unwrap_or(""));
    let mut without = Essence { glue: theirs.glue.clone(), ..ours.clone() };
    // Of an unsigned zone it leaves out the DS as well (see that rule).
    if theirs.authority.iter().all(|record| record.contains(" in ns ")) {
        without.authority.retain(|record| !record.contains(" in ds "));
    }
    asked.peer == "bind"
        && without == *theirs
        && theirs.glue.is_subset(&ours.glue)
        && ours.glue.difference(&theirs.glue).all(|record| {
            let owner = record.split(' ').next().unwrap_or("");
            !format!(".{owner}").ends_with(&cut)
        })
}

// What else is sent along is each server's choice (RFC 1034, 4.3.2, step 6): Knot expands wildcards
// for addresses of name servers that do not lie below the cut.
fn glue_from_a_wildcard(asked: &Asked<'_>) -> bool {
    let (ours, theirs) = (asked.ours, asked.theirs);
    asked.peer == "knot"
        && Essence { glue: theirs.glue.clone(), ..ours.clone() } == *theirs
        && ours.glue.is_subset(&theirs.glue)
}

// RFC 2308, 2: a negative answer has the SOA in its authority section.
// Without room for it in 512 octets Knot leaves it out of an answer with an alias, without TC.
fn soa_left_out(asked: &Asked<'_>) -> bool {
    let (ours, theirs) = only_in_authority(asked);
    asked.peer == "knot"
        && same_but_authority(asked)
        && !asked.ours.answer.is_empty()
        && theirs.is_empty()
        && ours.iter().all(|record| record.contains(" in soa "))
}

//= RFC 4034, 4.1.1
//# The Next Domain field contains the next owner name (in the canonical ordering of the zone)
// An empty non-terminal that is an asterisk is covered by the name before it. BIND sends another
// NSEC, which does not cover it.
fn an_empty_asterisk(asked: &Asked<'_>) -> bool {
    let (ours, theirs) = only_in_authority(asked);
    asked.peer == "bind"
        && asked.query[12..14] == *b"\x01*"
        && asked.ours.rcode == 0
        && same_but_authority(asked)
        && all_are(&ours, "nsec")
        && all_are(&theirs, "nsec")
}

//= RFC 2181, 11
//# Those restrictions aside, any binary string whatever can be used as the label of any resource
//# record.
// PowerDNS says SERVFAIL where it meets a label with octet 0.
fn octets_that_are_not_read(asked: &Asked<'_>) -> bool {
    const SERVFAIL: u16 = 2;
    asked.peer == "powerdns" && asked.theirs.rcode == SERVFAIL && asked.ours.rcode != SERVFAIL
}

//= RFC 5155, 6
//# In this specification, as in [RFC4033], [RFC4034] and [RFC4035], NS RRSets at delegation points
//# are not signed and may be accompanied by a DS RRSet.
// PowerDNS makes the chain itself from the names that its file has, and knows of no opt-out there.
fn opt_out_that_is_not_known(asked: &Asked<'_>) -> bool {
    let (ours, theirs) = only_in_authority(asked);
    let opt_out = ours.iter().any(|record| record.contains(" nsec3 1 1 "));
    asked.peer == "powerdns"
        && asked.ours.rcode == asked.theirs.rcode
        && asked.ours.answer == asked.theirs.answer
        && opt_out
        && all_are(&ours, "nsec3")
        && all_are(&theirs, "nsec3")
}

//= RFC 4035, 3.1.4
//# If a DS RRset is present at the delegation point, the name server MUST return both the DS RRset
//# and its associated RRSIG RR(s) in the Authority section along with the NS RRset.
// That is for security-aware clients (RFC 4035, 3.2.1); PowerDNS sends it to all.
fn a_ds_for_who_did_not_ask(asked: &Asked<'_>) -> bool {
    let mut without = asked.theirs.clone();
    without.authority.retain(|record| !record.contains(" in ds "));
    asked.peer == "powerdns" && without == *asked.ours
}

// RFC 5155, 4: NSEC3PARAM has the TTL that the zone gives it. PowerDNS makes the record itself.
fn ttl_of_nsec3param(asked: &Asked<'_>) -> bool {
    asked.peer == "powerdns"
        && qtype(asked.query) == rtype::NSEC3PARAM
        && asked.ours.answer.len() == asked.theirs.answer.len()
        && asked.ours.authority == asked.theirs.authority
}

// RFC 4592, 2.2: a wildcard stands in for all of its records. The NSEC of a wildcard is expanded
// as its other records are, say NSD, Knot and BIND, and that of an alias is data. PowerDNS, which
// makes NSEC records itself, makes none for either.
fn an_nsec_that_is_not_made(asked: &Asked<'_>) -> bool {
    asked.peer == "powerdns"
        && qtype(asked.query) == rtype::NSEC
        && asked.ours.answer.iter().any(|record| record.contains(" in nsec "))
        && asked.ours.answer.is_disjoint(&asked.theirs.answer)
}

//= RFC 1034, 4.3.2
//# If the data at the node is a CNAME, and QTYPE doesn't match CNAME
// PowerDNS follows an alias although it was asked for it.
fn an_alias_asked_for(asked: &Asked<'_>) -> bool {
    asked.peer == "powerdns"
        && qtype(asked.query) == rtype::CNAME
        && asked.ours.answer.iter().any(|record| record.contains(" in cname "))
        && asked.ours.answer.is_subset(&asked.theirs.answer)
}

//= RFC 1034, 3.6.2
//# CNAME chains should be followed and CNAME loops signalled as an error.
// To whom and how is left open: BIND says SERVFAIL and sends the same records.
fn a_loop(asked: &Asked<'_>) -> bool {
    const SERVFAIL: u16 = 2;
    asked.peer == "bind"
        && asked.theirs.rcode == SERVFAIL
        && asked.ours.answer.iter().any(|record| record.contains(" in cname "))
        && asked.theirs.answer.is_subset(&asked.ours.answer)
}

// RFC 1034, 5.2.2, and RFC 6672 leave the length of chains open. A DNAME that leads below itself
// makes a longer name with each link: after how many to stop is each server's choice.
fn a_chain_without_end(asked: &Asked<'_>) -> bool {
    let (ours, theirs) = (&asked.ours.answer, &asked.theirs.answer);
    // One that serves for more than one link: alone, or two that lead to each other.
    let of = |kind: &str| ours.iter().filter(|record| record.contains(kind)).count();
    let serves_again = of(" in dname ") > 0 && of(" in cname ") > of(" in dname ");
    serves_again && (theirs.is_subset(ours) || ours.is_subset(theirs))
}

//= RFC 4035, 3.1.3.2
//# An NSEC RR proving that there is no exact match for <SNAME, SCLASS>.
// NSD leaves it out, or sends another one, where SNAME is what a DNAME made.
fn nsec_of_a_dname_target(asked: &Asked<'_>) -> bool {
    let (ours, theirs) = only_in_authority(asked);
    asked.peer == "nsd"
        && same_but_authority(asked)
        && asked.ours.answer.iter().any(|record| record.contains(" in dname "))
        && ours.len() == 2
        && all_are(&ours, "nsec")
        && all_are(&theirs, "nsec")
}

// RFC 5155, 7.2.4: without a matching NSEC3, a closest provable encloser proof.
// Above unsigned delegations under an opt-out a name has none, whatever type is asked for and
// whatever is below it. NSD sends what covers the name itself; Knot, where the wildcard next to the
// provable encloser exists, nothing, and clears AA.
fn a_name_without_an_nsec3(asked: &Asked<'_>) -> bool {
    let (ours, theirs) = only_in_authority(asked);
    let opt_out =
        |record: &&String| record.contains(" in rrsig ") || record.contains(" nsec3 1 1 ");
    let knot_gives_up = asked.peer == "knot"
        && asked.ours.rcode == asked.theirs.rcode
        && asked
            .ours
            .authority
            .iter()
            .filter(|record| record.contains(" nsec3 "))
            .all(|r| opt_out(&r))
        && !asked.theirs.authoritative
        && asked.theirs.authority.is_empty();
    knot_gives_up
        || asked.peer == "nsd"
            && same_but_authority(asked)
            && ours.iter().all(opt_out)
            && all_are(&ours, "nsec3")
            && all_are(&theirs, "nsec3")
}

//= RFC 4035, 3.1.4.1
//# The DS resource record type is unusual in that it appears only on the parent zone's side of a
//# zone cut.
// It names no other exception from the referral of RFC 1034, 4.3.2, step 3b. BIND and PowerDNS
// answer for the NSEC at a cut; BIND at the end of a chain too.
fn the_nsec_at_a_cut(asked: &Asked<'_>) -> bool {
    let (ours, theirs) = (&asked.ours.answer, &asked.theirs.answer);
    let more: Vec<_> = theirs.difference(ours).collect();
    let direct = ours.is_empty() && !asked.ours.authoritative;
    ["bind", "powerdns"].contains(&asked.peer)
        && qtype(asked.query) == rtype::NSEC
        && (direct || ours.is_subset(theirs) && all_are(&more, "nsec"))
        && asked.ours.authority.iter().any(|record| record.contains(" in ns "))
}

//= RFC 4034, 6.1
//# For the purposes of DNS security, owner names are ordered by treating individual labels as
//# unsigned left-justified octet strings.
// NSD takes a wildcard to be the first name below its parent. A label of octet 0 is before it.
fn name_before_the_wildcard(asked: &Asked<'_>) -> bool {
    let (ours, theirs) = only_in_authority(asked);
    asked.peer == "nsd"
        && same_but_authority(asked)
        && all_are(&ours, "nsec")
        && all_are(&theirs, "nsec")
        && asked
            .ours
            .authority
            .union(&asked.theirs.authority)
            .any(|record| record.contains("\\000"))
}

fn qtype(query: &[u8]) -> u16 {
    let opt_len = if query[11] == 1 { 11 } else { 0 };
    let at = query.len() - opt_len - 4;
    u16::from_be_bytes([query[at], query[at + 1]])
}

//= RFC 1034, 4.3.2
//# If the data at the node is a CNAME, and QTYPE doesn't match CNAME, copy the CNAME RR into the
//# answer section of the response, change QNAME to the canonical name in the CNAME RR, and go back
//# to step 1.
// NSD, Knot and PowerDNS do not where QTYPE is NSEC or NSEC3, though there is none at the name.
fn alias_asked_for_denial(asked: &Asked<'_>) -> bool {
    let ours = &asked.ours.answer;
    let theirs = &asked.theirs.answer;
    matches!(qtype(asked.query), rtype::NSEC | rtype::NSEC3)
        && ours.iter().any(|record| record.contains(" in cname "))
        && theirs.is_subset(ours)
        && (theirs.len() < ours.len() || asked.theirs.authority.is_empty())
}

// RFC 5155, 7.2.5: the NSEC3 that matches the wildcard is part of its denial.
// NSD leaves it out where the wildcard is an empty non-terminal; Knot leaves out, where that has no
// NSEC3 because it is above unsigned delegations only, what covers it.
fn nsec3_of_an_empty_wildcard(asked: &Asked<'_>) -> bool {
    let (ours, theirs) = (&asked.ours.authority, &asked.theirs.authority);
    let more: Vec<_> = ours.difference(theirs).collect();
    asked.peer != "bind"
        && asked.ours.rcode == 0
        && asked.ours.answer == asked.theirs.answer
        && theirs.is_subset(ours)
        && more.len() == 2
        && more.iter().all(|record| record.contains(" nsec3 "))
}

//= RFC 2181, 9
//# When a DNS client receives a reply with TC set, it should ignore that
//# response, and query again, using a mechanism, such as a TCP connection
fn both_cut_short(asked: &Asked<'_>) -> bool {
    asked.ours.truncated && asked.theirs.truncated
}

//= RFC 4035, 3.1.4
//# If a DS RRset is present at the delegation point, the name server MUST return both the DS RRset
//# and its associated RRSIG RR(s) in the Authority section along with the NS RRset.
// NSD leaves it out of a zone without signatures.
fn ds_of_an_unsigned_zone(asked: &Asked<'_>) -> bool {
    let mut without = asked.ours.clone();
    without.authority.retain(|record| !record.contains(" in ds "));
    without == *asked.theirs
}

//----------- The test -------------------------------------------------------

#[derive(Default)]
struct Tally {
    asked: usize,
    different: usize,
    shown: BTreeMap<String, usize>,
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
        let shown = self.shown.entry(format!("{} {described}", asked.peer)).or_default();
        *shown += 1;
        if *shown <= SHOWN_MAX {
            println!("{described} against {}: {}", asked.peer, difference(asked));
        }
    }
}

/// Differences printed for each zone and peer.
const SHOWN_MAX: usize = 2;

/// What differs, in words.
fn difference(asked: &Asked<'_>) -> String {
    let Asked { ours, theirs, query, .. } = asked;
    let mut text = format!("{}\n", query[12..].escape_ascii());
    let state = |essence: &Essence| {
        format!("code {} aa {} tc {}", essence.rcode, essence.authoritative, essence.truncated)
    };
    let _ = writeln!(text, "  ours {}, theirs {}", state(ours), state(theirs));
    for (section, a, b) in [
        ("answer", &ours.answer, &theirs.answer),
        ("authority", &ours.authority, &theirs.authority),
        ("glue", &ours.glue, &theirs.glue),
    ] {
        a.intersection(b).for_each(|record| {
            let _ = writeln!(text, "  {section} = {:.90}", record);
        });
        a.difference(b).for_each(|record| {
            let _ = writeln!(text, "  {section} + {:.90}", record);
        });
        b.difference(a).for_each(|record| {
            let _ = writeln!(text, "  {section} - {:.90}", record);
        });
    }
    text
}

#[test]
fn random_zones_are_answered_as_the_peers_answer_them() {
    let seed = seed();
    let mut random = Random(seed);
    let zones = from_environment("RING53_ZONES", 50);
    let questions = from_environment("RING53_QUESTIONS", 400) as usize;
    let mut tally = Tally::default();
    for start in (0..zones).step_by(ROUND as usize) {
        round(&mut random, start..zones.min(start + ROUND), questions, &mut tally);
    }
    println!("{} answers compared; rules used: {:?}", tally.asked, tally.used);
    assert_eq!(tally.different, 0, "of {}", tally.asked);
    // A rule that nothing needs would only hide what is wrong one day. A short run meets not all,
    // nor does every seed: some need one name of a million.
    if zones >= ALL_RULES_ZONES_MIN && seed == ALL_RULES_SEED {
        let unused: Vec<_> = RULES.iter().filter(|(why, _)| !tally.used.contains(why)).collect();
        let unused: Vec<_> = unused.into_iter().map(|(why, _)| why).collect();
        assert!(unused.is_empty(), "rules without use: {unused:?}");
    }
}

fn round(random: &mut Random, numbers: std::ops::Range<u64>, questions: usize, tally: &mut Tally) {
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
    for start in [Server::nsd, Server::knot, Server::bind, Server::powerdns] {
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
    let signed_count = queries.iter().filter(|(zone, _)| zones[*zone].1 != Signing::None).count();
    let checked: Vec<_> = queries
        .iter()
        .zip(ours)
        .filter(|((zone, query), ours)| {
            let (zone, signing, _) = &zones[*zone];
            // The DS of the zone itself lies in its parent, which nobody serves.
            let own_ds = qtype(query) == rtype::DS && is_name(query, &zone.apex);
            *signing != Signing::None
                && !own_ds
                && !is_no_proof_taken(query, ours, zone)
                && is_resolvable(query, ours)
        })
        .collect();
    // The exclusions must not become the rule.
    println!("{} of {signed_count} answers of signed zones validated", checked.len());
    assert!(checked.len() * 10 > signed_count, "{} of {signed_count}", checked.len());
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

/// Whether the wildcard for what is asked, or for what it is an alias of, may be an empty
/// non-terminal (RFC 4592, 2.2.2 and 4.2.2). Unbound takes no proof for that, whoever sends it: its
/// "nodata proof failed".
fn is_no_proof_taken(query: &[u8], ours: &Essence, zone: &RandomZone) -> bool {
    let lower = |name: &str| name.parse::<Name>().unwrap().to_string().to_lowercase();
    // Octets of 0 inside labels: the name is what can be read as one.
    let asked = (13..=query.len())
        .find_map(|end| Name::from_wire(&query[12..end]).ok())
        .expect("a question has a name");
    let targets = ours.answer.iter().filter(|record| record.contains(" in cname "));
    let targets = targets.map(|record| lower(&decimal(record.rsplit(' ').next().unwrap_or("."))));
    let names: Vec<String> = zone.names.iter().map(|name| lower(name)).collect();
    let is_empty = |suffix: &str| {
        let wildcard = format!("*.{suffix}");
        let below = format!(".{wildcard}");
        names.iter().any(|name| name.ends_with(&below)) && !names.contains(&wildcard)
    };
    let suffixes = |name: &str| -> Vec<String> {
        let dots = name.match_indices('.').map(|(at, _)| name[at + 1..].to_string());
        dots.filter(|suffix| suffix.ends_with(&zone.apex)).collect()
    };
    let asked = asked.to_string().to_lowercase();
    // It does not order a label of octet 0 before the wildcard.
    let octet_0 = asked.contains("\\000");
    // An NXDOMAIN below what an opt-out leaves without an NSEC3 has no proof if the wildcard next
    // to the provable encloser exists (RFC 5155, 7.2.2 and 8.4).
    let unprovable = |suffix: &str| {
        let opt_out = ours.authority.iter().any(|record| record.contains(" nsec3 1 1 "));
        opt_out && ours.rcode == 3 && names.contains(&format!("*.{suffix}"))
    };
    let asked = [asked].into_iter().chain(targets);
    octet_0 || asked.flat_map(|name| suffixes(&name)).any(|s| is_empty(&s) || unprovable(&s))
}

/// `name` with escapes in decimal: the library that reads messages writes them in octal.
fn decimal(name: &str) -> String {
    let mut parts = name.split('\\');
    let mut text = parts.next().unwrap_or("").to_string();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(octet) => text += &format!("\\{octet:03}{}", &part[3..]),
            None => text += &format!("\\{part}"),
        }
    }
    text
}

/// Whether `name` is asked for.
fn is_name(query: &[u8], name: &str) -> bool {
    let name = name.parse::<Name>().unwrap();
    query[12..].starts_with(name.as_wire())
}

/// Whether a resolver can find the whole answer here, and so needs nobody else.
fn is_resolvable(query: &[u8], ours: &Essence) -> bool {
    let wants_signatures = query[query.len() - 4] & 0x80 != 0 && query[11] == 1;
    let elsewhere = |records: &BTreeSet<String>| {
        records.iter().any(|record| record.contains("elsewhere.example"))
    };
    let negative = ours.authority.iter().any(|record| record.contains(" in soa "));
    let has = |rtype: &str| ours.answer.iter().any(|record| record.contains(rtype));
    let final_answer = match qtype(query) {
        rtype::CNAME => has(" in cname ") && !has(" in dname "),
        rtype::DNAME => has(" in dname "),
        // Only links means a loop, or a target that is not served.
        _ => ours.answer.iter().any(|record| {
            let words: Vec<_> = record.split(' ').take(4).collect();
            !["cname", "dname", "rrsig"].contains(&words.get(3).copied().unwrap_or(""))
        }),
    };
    // Asked for a DNAME, Unbound takes the one of the chain for the answer.
    // Asked for the NSEC of an alias, it follows the alias if it knows it already.
    // Where one DNAME serves twice in a chain, it gives up.
    let of = |kind: &str| ours.answer.iter().filter(|record| record.contains(kind)).count();
    let twice = has(" in dname ") && of(" in cname ") > of(" in rrsig cname ") + of(" in dname ");
    // It computes the name that was signed wrongly where a wildcard is expanded to an asterisk.
    let misled = twice
        || qtype(query) == rtype::DNAME && has(" in cname ")
        || qtype(query) == rtype::NSEC && !ours.answer.is_empty()
        || query[12..14] == *b"\x01*" && !ours.answer.is_empty();
    wants_signatures
        && !misled
        && ours.authoritative
        && !ours.truncated
        && ours.rcode != YXDOMAIN
        && !elsewhere(&ours.answer)
        && !has(" in ns ")
        && (negative || final_answer)
}

const YXDOMAIN: u16 = 6;
