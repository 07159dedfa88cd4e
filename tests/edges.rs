//! Hand-written zones, one for each corner of RFC 1034, 4.3.2 and what amends it, served by ring53,
//! NSD and Knot and asked for everything in and around them. Each difference that is allowed is a
//! rule below with the sentence that decides it; any other fails.

mod support;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use ring53::wire::{Name, rtype};
use support::essence::{Essence, essence, too_long_for_a_dname};
use support::{Random, Server, ask_all, query, seed};

const EDGES: &str = "\
$TTL 300
@ SOA ns1 host 1 3600 900 604800 60
@ NS ns1
@ NS ns.other.test.
@ MX 10 mail
@ MX 20 mail.sub
ns1 A 192.0.2.1
ns1 AAAA 2001:db8::1
mail A 192.0.2.2
_sip._tcp SRV 0 0 5060 mail
c1 CNAME c2
c2 CNAME c3
c3 A 192.0.2.3
loop1 CNAME loop2
loop2 CNAME loop1
self CNAME self
out CNAME www.elsewhere.example.
dangling CNAME nothing
to-ent CNAME ent
to-wild CNAME x.wild
to-cut CNAME www.sub
to-dname CNAME www.d
across CNAME www.second.test.
*.wild A 192.0.2.4
*.wild TXT \"wild\"
host.wild A 192.0.2.6
below.host.wild A 192.0.2.6
*.wildc CNAME c3
*.wildn CNAME nothing
*.deep.wild2 A 192.0.2.5
a.*.mid A 192.0.2.5
a.b.c.ent A 192.0.2.7
*.ent2 MX 5 mail
x.y.ent2 A 192.0.2.8
d DNAME target
www.target A 192.0.2.9
*.wild.target A 192.0.2.9
dd DNAME d
dout DNAME example.net.
dmx MX 1 www.d
longer DNAME a-label-of-thirty-octets-or-so.a-label-of-thirty-octets-or-so
sub NS ns.sub
sub NS ns1
ns.sub A 192.0.2.10
ns.sub AAAA 2001:db8::10
more.sub A 192.0.2.12
deeper.sub NS ns.deeper.sub
ns.deeper.sub A 192.0.2.13
away NS ns.elsewhere.example.
sec NS ns.sec
sec DS 12345 8 2 0102030405060708090A0B0C0D0E0F10111213141516171819202122232425FF
ns.sec A 192.0.2.14
sib NS ns.sub
UPPER.Case A 192.0.2.15
\\000\\255\\.x\\@ A 192.0.2.16
abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0 A 192.0.2.17
child NS ns.child
child DS 12345 8 2 0102030405060708090A0B0C0D0E0F10111213141516171819202122232425FF
ns.child A 192.0.2.18
unknown TYPE65280 \\# 3 010203
caa CAA 0 issue \"ca.example\"
";

const CHILD: &str = "\
$TTL 300
@ SOA ns host 7 3600 900 604800 600
@ NS ns
ns A 192.0.2.18
www A 192.0.2.19
up CNAME mail.edges.test.
";

const SECOND: &str = "\
$TTL 300
@ SOA ns host 9 3600 900 604800 30
@ NS ns
ns A 192.0.2.20
www A 192.0.2.21
*.w CNAME *.w
";

/// RRsets of all sizes around those of messages.
fn sizes() -> String {
    let mut zone =
        String::from("$TTL 300\n@ SOA ns host 1 3600 900 604800 60\n@ NS ns\nns A 192.0.2.1\n");
    for count in [20, 28, 29, 30, 40, 70, 74, 75, 76, 100, 250, 255, 300, 1000] {
        for i in 0..count {
            writeln!(zone, "a{count} A 10.0.{}.{}", i >> 8, i & 0xFF).unwrap();
        }
    }
    for len in [1, 255, 400, 470, 480, 1000, 1180, 1200, 4000, 8000] {
        write!(zone, "t{len} TXT").unwrap();
        for start in (0..len).step_by(255) {
            write!(zone, " {}", "x".repeat((len - start).min(255))).unwrap();
        }
        zone.push('\n');
    }
    // A referral whose glue fits into 1232 octets but not into 512.
    for i in 0..13 {
        writeln!(zone, "cut NS ns{i}.cut\nns{i}.cut A 192.0.2.{i}\nns{i}.cut AAAA 2001:db8::{i}")
            .unwrap();
    }
    zone
}

const TYPES: &[u16] = &[
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
    rtype::CAA,
    65280,
];

/// The owners of a zone, what they refer to, and names around both.
fn names(zone: &str, apex: &str, random: &mut Random) -> Vec<Vec<u8>> {
    let mut names = BTreeSet::new();
    let absolute = |text: &str| -> Option<Name> {
        let text = match text {
            "@" => apex.to_string(),
            text if text.ends_with('.') => text.to_string(),
            text => format!("{text}.{apex}"),
        };
        text.parse().ok()
    };
    for line in zone.lines().skip(1) {
        for word in line.split(' ').filter(|word| !word.starts_with('"') && word.len() < 200) {
            let Some(name) = absolute(word) else { continue };
            let wire = name.as_wire().to_vec();
            let mut at = 0;
            while wire[at] != 0 {
                names.insert(wire[at..].to_vec());
                at += wire[at] as usize + 1;
            }
            for before in [&b"\x01x"[..], b"\x01*", b"\x03www\x02wX", b"\x01a\x01b\x01c\x01d"] {
                names.insert([before, &wire].concat());
            }
            // As long as a name can be: what DNAME makes of it is too long.
            let mut longest = wire;
            while longest.len() + 12 < 255 {
                longest.splice(0..0, *b"\x0bxxxxxxxxxxx");
            }
            names.insert(longest);
        }
    }
    let mut names: Vec<Vec<u8>> =
        names.into_iter().filter(|name| name.len() <= 255 && name.len() > 1).collect();
    for name in &mut names {
        for octet in name.iter_mut() {
            if octet.is_ascii_alphabetic() && random.below(3) == 0 {
                *octet ^= 0x20;
            }
        }
    }
    names
}

//----------- Rules ----------------------------------------------------------

/// Why two answers may differ.
type Rule = fn(&[u8], &Essence, &Essence) -> bool;

const RULES: &[(&str, Rule)] = &[
    ("both cut short", both_cut_short),
    ("a target in another zone", target_in_another_zone),
    ("the DS of an unsigned zone", ds_of_an_unsigned_zone),
    ("glue left out", glue_left_out),
    ("too long for a DNAME", |_, ours, theirs| too_long_for_a_dname(ours, theirs)),
];

//= RFC 2181, 9
//# When a DNS client receives a reply with TC set, it should ignore that
//# response, and query again, using a mechanism, such as a TCP connection
// That both are truncated is what counts, not what they hold.
fn both_cut_short(_: &[u8], ours: &Essence, theirs: &Essence) -> bool {
    ours.truncated && theirs.truncated
}

//= RFC 1034, 4.3.2
//# if the data at the node is a CNAME, and QTYPE doesn't match CNAME, copy the CNAME RR into the
//# answer section of the response, change QNAME to the canonical name in the CNAME RR, and go back
//# to step 1.
// Step 1 is the search for a zone, which NSD and Knot leave out.
fn target_in_another_zone(_: &[u8], ours: &Essence, theirs: &Essence) -> bool {
    let leaves = theirs.answer.iter().any(|record| {
        let mut words = record.split_whitespace();
        let owner = words.next().unwrap_or("");
        let target = record.rsplit(' ').next().unwrap_or("");
        record.contains(" cname ") && zone_of(owner) != zone_of(target)
    });
    leaves && theirs.answer.is_subset(&ours.answer)
}

/// The zone that serves `name`.
fn zone_of(name: &str) -> &'static str {
    ["child.edges.test.", "edges.test.", "second.test.", "sizes.test."]
        .into_iter()
        .find(|zone| name.ends_with(zone))
        .unwrap_or("")
}

//= RFC 4035, 3.1.4
//# If a DS RRset is present at the delegation point, the name server MUST return both the DS RRset
//# and its associated RRSIG RR(s) in the Authority section along with the NS RRset.
// NSD leaves it out of a zone without signatures.
fn ds_of_an_unsigned_zone(_: &[u8], ours: &Essence, theirs: &Essence) -> bool {
    let mut without = ours.clone();
    without.authority.retain(|record| !record.contains(" in ds "));
    without == *theirs
}

//= RFC 9471, 3.1
//# If the message size constraints prevent the inclusion of all glue records for in-domain name
//# servers, the server must set the TC (Truncated) flag
// NSD 4.6 is older than that and sets it only where no glue at all fits.
fn glue_left_out(_: &[u8], ours: &Essence, theirs: &Essence) -> bool {
    let referral = ours.answer.is_empty() && !ours.glue.is_empty();
    let all = 2 * ours.authority.len();
    referral
        && ours.truncated
        && ours.glue.len() < all
        && Essence { truncated: false, glue: BTreeSet::new(), ..ours.clone() }
            == Essence { glue: BTreeSet::new(), ..theirs.clone() }
}

//----------- The test -------------------------------------------------------

#[test]
fn every_corner_is_answered_as_nsd_and_knot_answer_it() {
    let mut random = Random(seed());
    let directory = tempfile::tempdir().unwrap();
    let zones = [
        ("edges.test.", EDGES.to_string()),
        ("child.edges.test.", CHILD.to_string()),
        ("second.test.", SECOND.to_string()),
        ("sizes.test.", sizes()),
    ];
    let mut files: Vec<(&str, PathBuf)> = Vec::new();
    let mut queries = Vec::new();
    for (apex, text) in &zones {
        let file = directory.path().join(format!("{apex}zone"));
        fs::write(&file, format!("$ORIGIN {apex}\n{text}")).unwrap();
        files.push((apex, file));
        for name in names(text, apex, &mut random) {
            for &rtype in TYPES {
                for edns in [None, Some((1232, false)), Some((4096, true))] {
                    queries.push(query(0, &name, rtype, edns));
                }
            }
        }
    }
    let served: Vec<(&str, &std::path::Path)> =
        files.iter().map(|(apex, file)| (*apex, file.as_path())).collect();
    let probe = query(1, b"\x05edges\x04test\0", rtype::SOA, None);
    let ring53 = Server::ring53(&served, &probe, &[]);
    let ours: Vec<Essence> = ask_all(&ring53, &queries).iter().map(|r| essence(r)).collect();
    let mut used = BTreeSet::new();
    let mut differences = 0;
    for start in [Server::nsd, Server::knot] {
        let work = tempfile::tempdir().unwrap();
        let peer = start(work.path(), &served, &probe);
        for ((query, ours), theirs) in queries.iter().zip(&ours).zip(ask_all(&peer, &queries)) {
            let theirs = essence(&theirs);
            if *ours == theirs {
                continue;
            }
            if let Some((why, _)) = RULES.iter().find(|(_, rule)| rule(query, ours, &theirs)) {
                used.insert(*why);
                continue;
            }
            differences += 1;
            if differences < 4 {
                let asked = query[12..].escape_ascii();
                println!("{asked}\nring53 {ours:#?}\n{} {theirs:#?}", peer.name);
            }
        }
    }
    println!("{} queries; rules used: {used:?}", queries.len());
    assert_eq!(differences, 0, "of {} answers", queries.len() * 2);
    // A rule that nothing needs would only hide what is wrong one day.
    assert_eq!(used.len(), RULES.len(), "rules without use");
}
