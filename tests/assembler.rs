//! The fast path against an assembler that is slow and plain: random zones, random questions, the
//! same records in the same sections.
//!
//! The assembler works on names and texts in sorted maps, step by step as RFC 1034, 4.3.2 has it
//! with RFC 4592 and RFC 6672; it shares nothing with what it checks but the reader of zone text.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ring53::answer::{CoreState, Counters, Exchange, Transport, Verdict, answer_batch};
use ring53::snapshot::{Identity, Snapshot, ZoneState};
use ring53::wire::{Name, rtype};
use ring53::zone::{HashKey, LoadOptions, Source, SourceText, Text, load};
use support::essence::{Essence, essence};
use support::{Random, query, seed};

const NXDOMAIN: u16 = 3;
const YXDOMAIN: u16 = 6;
const APEX: &str = "t.";
const SOA: &str = "ns.t. h.t. 1 2 3 4 5";

/// A zone as text: owner, type, data, all in lower case.
type Zone = BTreeMap<String, BTreeMap<&'static str, BTreeSet<String>>>;

//----------- Zones ----------------------------------------------------------

fn label(random: &mut Random) -> &'static str {
    ["a", "b", "c", "d", "*", "ns"][random.below(6) as usize]
}

/// A name of up to four labels below the apex.
fn name(random: &mut Random) -> String {
    let labels: Vec<&str> = (0..1 + random.below(4)).map(|_| label(random)).collect();
    format!("{}.{APEX}", labels.join("."))
}

fn random_zone(random: &mut Random) -> Zone {
    let mut zone = Zone::new();
    let mut add = |owner: &str, rtype, data: String| {
        zone.entry(owner.into()).or_default().entry(rtype).or_default().insert(data);
    };
    add(APEX, "SOA", SOA.into());
    add(APEX, "NS", "ns.t.".into());
    for _ in 0..4 + random.below(30) {
        let owner = name(random);
        let target = if random.below(8) == 0 { "w.elsewhere.".into() } else { name(random) };
        match random.below(10) {
            0..4 => add(&owner, "A", format!("192.0.2.{}", random.below(256))),
            4 => add(&owner, "TXT", "\"x\"".into()),
            5 => add(&owner, "MX", format!("1 {target}")),
            6 => add(&owner, "AAAA", format!("2001:db8::{}", 1 + random.below(9))),
            7 => add(&owner, "CNAME", target),
            8 => add(&owner, "DNAME", target),
            _ => add(&owner, "NS", target),
        }
    }
    for (owner, types) in &mut zone {
        let wild = owner.starts_with("*.");
        // What would make no zone: data beside a CNAME, two of them; and what no standard defines:
        // a delegation or DNAME that is a wildcard (RFC 4592, 4.2 and 4.4), or both at one name.
        if wild {
            types.retain(|rtype, _| !matches!(*rtype, "NS" | "DNAME"));
        }
        if types.contains_key("NS") {
            types.remove("DNAME");
        }
        if owner != APEX && types.contains_key("CNAME") && types.len() > 1 {
            types.remove("CNAME");
        }
        for single in ["CNAME", "DNAME"] {
            if let Some(data) = types.get_mut(single) {
                while data.len() > 1 {
                    data.pop_last();
                }
            }
        }
    }
    zone.retain(|_, types| !types.is_empty());
    zone
}

fn text_of(zone: &Zone) -> String {
    let mut text = String::from("$TTL 60\n");
    for (owner, types) in zone {
        for (rtype, data) in types {
            for data in data {
                use std::fmt::Write;
                writeln!(text, "{owner} {rtype} {data}").unwrap();
            }
        }
    }
    text
}

//----------- The assembler --------------------------------------------------

/// The ancestors of `name` from the apex down, the name itself last.
fn path(name: &str) -> Vec<&str> {
    let mut path = vec![name];
    let mut rest = name;
    while rest != APEX {
        rest = &rest[rest.find('.').unwrap() + 1..];
        path.push(rest);
    }
    path.reverse();
    path
}

fn exists(zone: &Zone, name: &str) -> bool {
    zone.keys().any(|owner| owner == name || owner.ends_with(&format!(".{name}")))
}

fn is_in_zone(name: &str) -> bool {
    name == APEX || name.ends_with(&format!(".{APEX}"))
}

fn record(owner: &str, ttl: u32, rtype: &str, data: &str) -> String {
    let data = data.replace('"', "");
    format!("{owner} {ttl} in {rtype} {data}").to_lowercase()
}

/// `None` if the chain is longer than a server need follow.
fn assemble(zone: &Zone, asked: &str, qtype: &str) -> Option<Essence> {
    let mut reply = Essence {
        rcode: 0,
        authoritative: true,
        truncated: false,
        answer: BTreeSet::new(),
        authority: BTreeSet::new(),
        glue: BTreeSet::new(),
    };
    let (mut name, mut seen) = (asked.to_string(), BTreeSet::new());
    for _link in 0..=16 {
        if !is_in_zone(&name) || !seen.insert(name.clone()) {
            return Some(reply);
        }
        match link(zone, &name, qtype, &mut reply) {
            Some(next) => name = next,
            None => return Some(reply),
        }
    }
    None
}

/// One pass through steps 2 to 4; the name to go on with.
fn link(zone: &Zone, name: &str, qtype: &str, reply: &mut Essence) -> Option<String> {
    let data = |owner: &str, rtype: &str| zone.get(owner).and_then(|types| types.get(rtype));
    let path = path(name);
    for &ancestor in &path {
        let cut = ancestor != APEX && !(ancestor == name && qtype == "DS");
        if let Some(servers) = data(ancestor, "NS").filter(|_| cut) {
            reply.authoritative &= !reply.answer.is_empty();
            for server in servers {
                reply.authority.insert(record(ancestor, 60, "NS", server));
                for rtype in ["A", "AAAA"] {
                    for address in data(server, rtype).into_iter().flatten() {
                        reply.glue.insert(record(server, 60, rtype, address));
                    }
                }
            }
            // Addresses count as glue in a pure referral only.
            if !reply.answer.is_empty() {
                reply.glue.clear();
            }
            return None;
        }
        if let Some(target) = data(ancestor, "DNAME").filter(|_| ancestor != name) {
            let target = target.first().unwrap();
            reply.answer.insert(record(ancestor, 60, "DNAME", target));
            let next = format!("{}{target}", &name[..name.len() - ancestor.len()]);
            if next.len() + 1 > 255 {
                reply.rcode = YXDOMAIN;
                return None;
            }
            reply.answer.insert(record(name, 60, "CNAME", &next));
            return (qtype != "CNAME").then_some(next);
        }
    }
    let source = if exists(zone, name) {
        name.to_string()
    } else {
        let encloser = path.iter().rev().find(|ancestor| exists(zone, ancestor)).unwrap();
        format!("*.{encloser}")
    };
    if !exists(zone, &source) {
        reply.rcode = NXDOMAIN;
    } else if let Some(target) = data(&source, "CNAME").filter(|_| qtype != "CNAME") {
        let target = target.first().unwrap();
        reply.answer.insert(record(name, 60, "CNAME", target));
        return Some(target.clone());
    } else if let Some(found) = data(&source, qtype) {
        reply.answer.extend(found.iter().map(|data| record(name, 60, qtype, data)));
        return None;
    }
    reply.authority.insert(record(APEX, 5, "SOA", SOA));
    None
}

//----------- The test -------------------------------------------------------

struct Given(String);

impl Source for Given {
    fn read(&self, path: &str, _: Option<&str>) -> Result<SourceText, String> {
        Ok(SourceText { name: path.into(), text: Text::Bytes(self.0.clone().into_bytes()) })
    }
}

fn snapshot(text: &str) -> Snapshot {
    let key = HashKey::new(*b"0123456789abcdef");
    let apex: Name = APEX.parse().unwrap();
    let loaded = load(&apex, "zone", &Given(text.into()), &LoadOptions::new(key, 1));
    let zone = loaded.zone.unwrap_or_else(|| panic!("{:#?}\n{text}", loaded.diagnostics));
    Snapshot::new(1, key, Identity::default(), vec![(apex, ZoneState::Serving(Arc::new(zone)))])
}

fn answer(snapshot: &Snapshot, core: &mut CoreState, octets: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; 65535];
    buffer[..octets.len()].copy_from_slice(octets);
    let mut exchange = [Exchange {
        buffer: &mut buffer,
        query_len: octets.len(),
        transport: Transport::Stream,
        verdict: Verdict::Reply(0),
    }];
    answer_batch(snapshot, Duration::ZERO, core, &mut exchange);
    let Verdict::Reply(len) = exchange[0].verdict else { panic!("no reply to {octets:02x?}") };
    buffer.truncate(len);
    buffer
}

#[test]
fn random_zones_are_answered_as_the_plain_assembler_answers() {
    let mut random = Random(seed());
    let mut core = CoreState::new(Arc::new(Counters::default()));
    let types = [
        ("A", rtype::A),
        ("AAAA", rtype::AAAA),
        ("TXT", rtype::TXT),
        ("MX", rtype::MX),
        ("NS", rtype::NS),
        ("CNAME", rtype::CNAME),
        ("DNAME", rtype::DNAME),
        ("DS", rtype::DS),
        ("SOA", rtype::SOA),
    ];
    let (mut compared, mut rcodes) = (0, BTreeMap::<u16, u32>::new());
    for _ in 0..400 {
        let zone = random_zone(&mut random);
        let text = text_of(&zone);
        let snapshot = snapshot(&text);
        for _ in 0..250 {
            let asked = name(&mut random);
            let (qtype, number) = types[random.below(types.len() as u64) as usize];
            let Some(expected) = assemble(&zone, &asked, qtype) else { continue };
            let wire: Name = asked.parse().unwrap();
            let octets = query(1, wire.as_wire(), number, None);
            let got = essence(&answer(&snapshot, &mut core, &octets));
            assert_eq!(got, expected, "{asked} {qtype} in\n{text}");
            compared += 1;
            *rcodes.entry(expected.rcode).or_default() += 1;
        }
    }
    println!("{compared} answers, by code {rcodes:?}");
    assert!(compared > 90_000 && rcodes.len() >= 2);
}
