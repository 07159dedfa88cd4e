//! The real root zone, asked of ring53, NSD and Knot: every name in it and 100,000 around it; as it
//! is, and signed with test keys, with NSEC and with NSEC3.
//!
//! What may differ, and why:
//!
//! - The additional section of answers that are no referral is optional (RFC 1034, 4.3.2, step 6).
//! - NSD and Knot may leave out, or add, sibling glue (RFC 9471, 2.2: it may be needed, not must).

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ring53::wire::{Name, rtype};
use support::essence::{Essence, essence};
use support::random_zone::{RandomZone, Signing, sign};
use support::{Random, Server, ask_all, query, seed};

fn names_of(zone: &str) -> Vec<Name> {
    let mut names: BTreeSet<String> = BTreeSet::new();
    for line in zone.lines() {
        let owner = line.split_whitespace().next().unwrap_or(".");
        names.insert(owner.to_string());
    }
    names.iter().filter_map(|name| name.parse().ok()).collect()
}

/// A name near one of the zone's: deeper, a sibling, misspelt, in another case.
fn around(random: &mut Random, names: &[Name]) -> Vec<u8> {
    let mut wire = names[random.below(names.len() as u64) as usize].as_wire().to_vec();
    match random.below(4) {
        0 => {
            for octet in &mut wire {
                if octet.is_ascii_lowercase() && random.below(2) == 0 {
                    octet.make_ascii_uppercase();
                }
            }
        }
        1 => {
            let mut deeper = b"\x03www".to_vec();
            for _ in 0..random.below(4) {
                deeper.extend(b"\x01x");
            }
            deeper.extend(&wire);
            wire = deeper;
        }
        2 if wire.len() > 2 => {
            let at = 1 + random.below(u64::from(wire[0])) as usize;
            wire[at] = b'a' + random.below(26) as u8;
        }
        _ => {
            let len = 1 + random.below(12) as usize;
            wire = vec![len as u8];
            wire.extend((0..len).map(|_| b'a' + random.below(26) as u8));
            wire.push(0);
        }
    }
    wire
}

/// The root zone's text, without the second SOA that transfers leave at the end: NSD refuses it.
fn root() -> (String, String) {
    let packed = PathBuf::from("tests/zones/root-2018013101.zone.xz");
    let unpacked = Command::new("xz").arg("-dc").arg(&packed).output().expect("xz");
    let text = String::from_utf8(unpacked.stdout).unwrap();
    let (single, last) = text.trim_end().rsplit_once('\n').unwrap();
    assert!(last.contains("SOA"));
    let single = format!("{single}\n");
    (text, single)
}

/// Questions for every name and for `count` around them; with DO, if `signed`, for most.
fn questions(text: &str, signed: bool, count: usize, random: &mut Random) -> Vec<Vec<u8>> {
    let names = names_of(text);
    assert!(names.len() > 5000);
    let mut queries = Vec::new();
    for name in &names {
        for rtype in [rtype::A, rtype::NS, rtype::DS, rtype::SOA] {
            queries.push(query(0, name.as_wire(), rtype, Some((1232, signed))));
        }
    }
    let types = [rtype::A, rtype::AAAA, rtype::NS, rtype::DS, rtype::TXT, rtype::SOA];
    for _ in 0..count {
        let rtype = types[random.below(types.len() as u64) as usize];
        // Without EDNS, 512 octets cut some referrals short: servers differ in what they keep.
        let edns = match random.below(8) {
            0 => None,
            1 => Some((1232, false)),
            _ => Some((1232, signed)),
        };
        queries.push(query(0, &around(random, &names), rtype, edns));
    }
    queries
}

/// Asks ring53, which serves `ours`, and NSD and Knot, which serve `theirs`.
fn compare(ours: &Path, theirs: &Path, signed: bool, queries: &[Vec<u8>]) {
    let probe = query(1, &[0], rtype::SOA, None);
    let ring53 = Server::ring53(&[(".", ours)], &probe, &[]);
    let ours: Vec<Essence> = ask_all(&ring53, queries).iter().map(|r| essence(r)).collect();
    let mut differences = 0;
    for start in [Server::nsd, Server::knot] {
        let work = tempfile::tempdir().unwrap();
        let peer = start(work.path(), &[(".", theirs)], &probe);
        for ((query, ours), theirs) in queries.iter().zip(&ours).zip(ask_all(&peer, queries)) {
            let theirs = essence(&theirs);
            let without = without_ds(ours);
            if allowed(query, ours, &theirs) || !signed && allowed(query, &without, &theirs) {
                continue;
            }
            differences += 1;
            if differences < 5 {
                println!(
                    "{}: {query:02x?}\nring53 {ours:#?}\n{} {theirs:#?}",
                    peer.name, peer.name
                );
            }
        }
    }
    assert_eq!(differences, 0, "of {} answers", queries.len() * 2);
}

#[test]
fn the_root_zone_is_answered_as_nsd_and_knot_answer_it() {
    let directory = tempfile::tempdir().unwrap();
    let (text, single) = root();
    let (file, peer_file) = (directory.path().join("root"), directory.path().join("peer"));
    fs::write(&file, &text).unwrap();
    fs::write(&peer_file, &single).unwrap();
    let queries = questions(&text, true, 100_000, &mut Random(seed()));
    compare(&file, &peer_file, false, &queries);
}

#[test]
fn the_signed_root_zone_is_answered_as_nsd_and_knot_answer_it() {
    let (_, single) = root();
    // The signer makes its own NSEC.
    let is_nsec = |line: &&str| line.split_whitespace().nth(3) == Some("NSEC");
    let single: String =
        single.lines().filter(|line| !is_nsec(line)).flat_map(|line| [line, "\n"]).collect();
    let mut random = Random(seed());
    let queries = questions(&single, true, 100_000, &mut random);
    for signing in [Signing::Nsec, Signing::Nsec3(0, 0, false)] {
        let directory = tempfile::tempdir().unwrap();
        let zone = RandomZone { apex: ".".into(), text: single.clone(), names: Vec::new() };
        let file = sign(&zone, directory.path(), signing, "ECDSAP256SHA256", "-");
        compare(&file, &file, true, &queries);
    }
}

//= RFC 4035, 3.1.4
//# If a DS RRset is present at the delegation point, the name server MUST return both the DS RRset
//# and its associated RRSIG RR(s) in the Authority section along with the NS RRset.
// NSD leaves it out of a zone without signatures.
fn without_ds(ours: &Essence) -> Essence {
    let mut without = ours.clone();
    without.authority.retain(|record| !record.contains(" in ds "));
    without
}

/// Whether two answers may differ as they do.
fn allowed(query: &[u8], ours: &Essence, theirs: &Essence) -> bool {
    if ours == theirs {
        return true;
    }
    let same_but_glue = ours.rcode == theirs.rcode
        && ours.authoritative == theirs.authoritative
        && ours.answer == theirs.answer
        && ours.authority == theirs.authority;
    if !same_but_glue {
        return false;
    }
    //= RFC 9471, 3.1
    //# If the message size constraints prevent the inclusion of all glue records for in-domain
    //# name servers, the server must set the TC (Truncated) flag
    // Without EDNS the glue of large referrals does not fit: which addresses are sent, and whether
    // TC says so, is where servers older than that RFC differ. Some must be sent by both.
    let small = query[11] == 0;
    small && ours.glue.is_empty() == theirs.glue.is_empty()
}
