//! The fast path against an assembler that is slow and plain: random zones, random questions, the
//! same records in the same sections, signed and unsigned.
//!
//! The assembler works on names and texts in sorted maps, step by step as RFC 1034, 4.3.2 has it
//! with RFC 4592 and RFC 6672, and denies as RFC 4035, 3.1.3 and RFC 5155, 7.2 say; it shares
//! nothing with what it checks but the reader of zone text. Signatures are in name only: whether
//! they hold is for validators (tests/differential.rs).

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use ring53::answer::{CoreState, Counters, Exchange, Transport, Verdict, answer_batch};
use ring53::snapshot::{Identity, Snapshot, ZoneState};
use ring53::wire::{Name, rtype};
use ring53::zone::change::diff;
use ring53::zone::records::Expanded;
use ring53::zone::{HashKey, LoadOptions, Room, Source, SourceText, Text, Unfit, amend, load};
use sha1::{Digest, Sha1};
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
    let count = 4 + random.below(30);
    add_records(random, &mut zone, count);
    zone
}

/// Another version of `zone`, which is not signed: some records fewer, some more.
fn changed(random: &mut Random, mut zone: Zone) -> Zone {
    for _ in 0..random.below(4) {
        let at = random.below(zone.len() as u64) as usize;
        let owner = zone.keys().nth(at).unwrap().clone();
        let types = zone.get_mut(&owner).unwrap();
        let at = random.below(types.len() as u64) as usize;
        let rtype = *types.keys().nth(at).unwrap();
        if owner != APEX || !matches!(rtype, "SOA" | "NS") {
            types.remove(rtype);
        }
        zone.retain(|_, types| !types.is_empty());
    }
    let count = random.below(4);
    add_records(random, &mut zone, count);
    if random.below(4) > 0 {
        let serial = 2 + random.below(1000);
        let soa = SOA.replace(" 1 ", &format!(" {serial} "));
        zone.get_mut(APEX).unwrap().insert("SOA", [soa].into());
    }
    zone
}

fn add_records(random: &mut Random, zone: &mut Zone, count: u64) {
    let mut add = |owner: &str, rtype, data: String| {
        zone.entry(owner.into()).or_default().entry(rtype).or_default().insert(data);
    };
    for _ in 0..count {
        let owner = name(random);
        let target = if random.below(8) == 0 { "w.elsewhere.".into() } else { name(random) };
        match random.below(11) {
            0..4 => add(&owner, "A", format!("192.0.2.{}", random.below(256))),
            4 => add(&owner, "TXT", "\"x\"".into()),
            5 => add(&owner, "MX", format!("1 {target}")),
            6 => add(&owner, "AAAA", format!("2001:db8::{}", 1 + random.below(9))),
            7 => add(&owner, "CNAME", target),
            8 => add(&owner, "DNAME", target),
            9 => {
                add(&owner, "DS", format!("{} 13 2 {}", random.below(9), "00".repeat(32)));
                add(&owner, "NS", target);
            }
            _ => add(&owner, "NS", target),
        }
    }
    for (owner, types) in zone.iter_mut() {
        let wild = owner.starts_with("*.");
        // What would make no zone: data beside a CNAME, two of them; and what no standard defines:
        // a delegation or DNAME that is a wildcard (RFC 4592, 4.2 and 4.4), or both at one name.
        if wild {
            types.retain(|rtype, _| !matches!(*rtype, "NS" | "DNAME" | "DS"));
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
}

fn text_of(zone: &Zone) -> String {
    let mut text = String::new();
    for (owner, types) in zone {
        for (rtype, data) in types {
            for data in data {
                writeln!(text, "{owner} {} {rtype} {data}", ttl(rtype, data)).unwrap();
            }
        }
    }
    text
}

/// What denies has the TTL of what is denied (RFC 9077), and signatures that of what they cover.
fn ttl(rtype: &str, data: &str) -> u32 {
    let covered = if rtype == "RRSIG" { data.split(' ').next().unwrap() } else { rtype };
    if covered.starts_with("NSEC") && covered != "NSEC3PARAM" { 5 } else { 60 }
}

//----------- Signing --------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq)]
enum Chain {
    None,
    Nsec,
    Nsec3 { opt_out: bool },
}

/// The topmost cut or DNAME strictly above `name`, and which of them it is.
fn hidden_by(zone: &Zone, name: &str) -> Option<&'static str> {
    path(name).into_iter().filter(|ancestor| *ancestor != name).find_map(|ancestor| {
        let types = zone.get(ancestor)?;
        ["NS", "DNAME"]
            .into_iter()
            .find(|rtype| (*rtype == "DNAME" || ancestor != APEX) && types.contains_key(rtype))
    })
}

fn is_cut(zone: &Zone, name: &str) -> bool {
    name != APEX && zone.get(name).is_some_and(|types| types.contains_key("NS"))
}

fn sign(zone: &mut Zone, chain: Chain) {
    if chain == Chain::None {
        return;
    }
    let mut add = |owner: &str, rtype, data: String| {
        zone.entry(owner.into()).or_default().entry(rtype).or_default().insert(data);
    };
    add(APEX, "DNSKEY", "257 3 13 aaaa".into());
    if chain != Chain::Nsec {
        add(APEX, "NSEC3PARAM", "1 0 0 -".into());
    }
    let mut denied: BTreeMap<Vec<Vec<u8>>, String> = BTreeMap::new();
    let opted_out = |zone: &Zone, name: &str| {
        let bare = is_cut(zone, name) && !zone[name].contains_key("DS");
        chain == Chain::Nsec3 { opt_out: true } && bare
    };
    for owner in zone.keys() {
        if hidden_by(zone, owner).is_some() || opted_out(zone, owner) {
            continue;
        }
        match chain {
            Chain::None => {}
            Chain::Nsec => drop(denied.insert(canonical(owner), owner.clone())),
            // Empty non-terminals have records of their own (RFC 5155, 7.1).
            Chain::Nsec3 { .. } => denied.extend(
                path(owner).into_iter().map(|name| (vec![hash(name).into()], name.to_string())),
            ),
        }
    }
    let chained: Vec<_> = denied.values().cloned().collect();
    for (i, name) in chained.iter().enumerate() {
        let next = &chained[(i + 1) % chained.len()];
        let mut types: Vec<&str> =
            zone.get(name).into_iter().flat_map(|types| types.keys().copied()).collect();
        if is_cut(zone, name) {
            types.retain(|rtype| matches!(*rtype, "NS" | "DS"));
        }
        types.extend((chain == Chain::Nsec).then_some("NSEC"));
        types.extend((types != ["NS"] && !types.is_empty()).then_some("RRSIG"));
        types.sort_by_key(|name| rtype::parse(name.as_bytes()).unwrap());
        let types = types.join(" ");
        let (owner, rtype, data) = if chain == Chain::Nsec {
            (name.clone(), "NSEC", format!("{next} {types}"))
        } else {
            let flags = u8::from(chain == Chain::Nsec3 { opt_out: true });
            let data = format!("1 {flags} 0 - {} {types}", hash(next));
            (format!("{}.{APEX}", hash(name)), "NSEC3", data.trim_end().into())
        };
        zone.entry(owner).or_default().insert(rtype, [data].into());
    }
    let before = zone.clone();
    for (owner, types) in zone.iter_mut().filter(|(owner, _)| hidden_by(&before, owner).is_none()) {
        let cut = is_cut(&before, owner);
        let labels = owner.strip_prefix("*.").unwrap_or(owner).split_terminator('.').count();
        let signatures: BTreeSet<String> = types
            .keys()
            .filter(|rtype| !cut || matches!(**rtype, "DS" | "NSEC"))
            .map(|rtype| {
                let ttl = ttl(rtype, "");
                format!("{rtype} 13 {labels} {ttl} 4070908800 1577836800 1 {APEX} aaaa")
            })
            .collect();
        if !signatures.is_empty() {
            types.insert("RRSIG", signatures);
        }
    }
}

/// A name whose order is the canonical one (RFC 4034, 6.1).
fn canonical(name: &str) -> Vec<Vec<u8>> {
    let labels = name.trim_end_matches('.').split('.').rev();
    labels.map(|label| label.as_bytes().to_vec()).collect()
}

/// The hash of RFC 5155, without salt and iterations, in base32hex.
fn hash(name: &str) -> String {
    let wire: Name = name.parse().unwrap();
    let digest = Sha1::digest(wire.as_wire());
    let bit = |i: usize| digest[i / 8] >> (7 - i % 8) & 1;
    let digit = |at: usize| (0..5).fold(0, |value, i| value * 2 + bit(at * 5 + i));
    (0..32).map(|at| b"0123456789abcdefghijklmnopqrstuv"[digit(at) as usize] as char).collect()
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
    // As the library that reads messages writes it; it does not know DNAME.
    let mut data = data.replace('"', "").replace("DNAME", "unknown");
    if rtype == "RRSIG" {
        data = data.replacen(" 13 ", " ecdsap256sha256 ", 1);
    }
    format!("{owner} {ttl} in {rtype} {data}").to_lowercase()
}

struct Assembler<'a> {
    zone: &'a Zone,
    chain: Chain,
    reply: Essence,
}

/// `None` if the chain is longer than a server need follow.
fn assemble(zone: &Zone, chain: Chain, asked: &str, qtype: &str) -> Option<Essence> {
    let reply = Essence {
        rcode: 0,
        authoritative: true,
        truncated: false,
        answer: BTreeSet::new(),
        authority: BTreeSet::new(),
        glue: BTreeSet::new(),
    };
    let mut assembler = Assembler { zone, chain, reply };
    let (mut name, mut seen) = (asked.to_string(), BTreeSet::new());
    for _link in 0..=16 {
        if !is_in_zone(&name) || !seen.insert(name.clone()) {
            return Some(assembler.reply);
        }
        match assembler.link(&name, qtype) {
            Some(next) => name = next,
            None => return Some(assembler.reply),
        }
    }
    None
}

impl<'a> Assembler<'a> {
    fn data(&self, owner: &str, rtype: &str) -> Option<&'a BTreeSet<String>> {
        self.zone.get(owner).and_then(|types| types.get(rtype))
    }

    /// The RRset and its signatures, under the name `shown`.
    fn rrset(&self, source: &str, rtype: &str, shown: &str) -> BTreeSet<String> {
        let covers = |signature: &&String| signature.starts_with(&format!("{rtype} "));
        let data = self.data(source, rtype).into_iter().flatten();
        let signatures = self.data(source, "RRSIG").into_iter().flatten().filter(covers);
        let data = data.map(|data| record(shown, ttl(rtype, ""), rtype, data));
        data.chain(signatures.map(|data| record(shown, ttl(rtype, ""), "RRSIG", data))).collect()
    }

    /// One pass through steps 2 to 4; the name to go on with.
    fn link(&mut self, name: &str, qtype: &str) -> Option<String> {
        let path = path(name);
        for &ancestor in &path {
            let cut = is_cut(self.zone, ancestor) && !(ancestor == name && qtype == "DS");
            if cut {
                self.refer(ancestor);
                return None;
            }
            if let Some(target) = self.data(ancestor, "DNAME").filter(|_| ancestor != name) {
                let target = target.first().unwrap();
                self.reply.answer.extend(self.rrset(ancestor, "DNAME", ancestor));
                let next = format!("{}{target}", &name[..name.len() - ancestor.len()]);
                if next.len() + 1 > 255 {
                    self.reply.rcode = YXDOMAIN;
                    return None;
                }
                self.reply.answer.insert(record(name, 60, "CNAME", &next));
                return (qtype != "CNAME").then_some(next);
            }
        }
        let encloser = path.iter().rev().find(|ancestor| exists(self.zone, ancestor)).unwrap();
        let synthesized = *encloser != name;
        let source = if synthesized { format!("*.{encloser}") } else { name.to_string() };
        if !exists(self.zone, &source) {
            self.reply.rcode = NXDOMAIN;
            self.deny_name(name, encloser);
        } else if let Some(target) = self.data(&source, "CNAME").filter(|_| qtype != "CNAME") {
            self.reply.answer.extend(self.rrset(&source, "CNAME", name));
            self.deny_nearer(name, encloser);
            return target.first().cloned();
        } else if self.data(&source, qtype).is_some() {
            self.reply.answer.extend(self.rrset(&source, qtype, name));
            self.deny_nearer(name, encloser);
            return None;
        } else if synthesized {
            self.deny_type_of_wildcard(name, &source);
        } else {
            self.deny_type(name);
        }
        let soa = self.rrset(APEX, "SOA", APEX);
        self.reply.authority.extend(soa.iter().map(|text| text.replacen(" 60 ", " 5 ", 1)));
        None
    }

    fn refer(&mut self, cut: &str) {
        self.reply.authoritative &= !self.reply.answer.is_empty();
        for server in &self.zone[cut]["NS"] {
            self.reply.authority.insert(record(cut, 60, "NS", server));
            // Addresses count as glue in a pure referral only.
            let told = !is_in_zone(server) || hidden_by(self.zone, server) == Some("DNAME");
            if self.reply.answer.is_empty() && !told {
                self.reply.glue.extend(self.rrset(server, "A", server));
                self.reply.glue.extend(self.rrset(server, "AAAA", server));
            }
        }
        if self.data(cut, "DS").is_some() {
            if self.chain != Chain::None {
                self.reply.authority.extend(self.rrset(cut, "DS", cut));
            }
        } else {
            self.deny_type(cut);
        }
    }

    //----- Denial -----

    fn add(&mut self, owner: &str, rtype: &str) {
        self.reply.authority.extend(self.rrset(owner, rtype, owner));
    }

    /// The NSEC that matches or covers `name`.
    fn nsec(&mut self, name: &str) {
        let owners = self.zone.iter().filter(|(_, types)| types.contains_key("NSEC"));
        let before = owners.filter(|(owner, _)| canonical(owner) <= canonical(name));
        let (owner, _) = before.max_by_key(|(owner, _)| canonical(owner)).unwrap();
        self.add(owner, "NSEC");
    }

    fn nsec3_owner(&self, name: &str) -> Option<String> {
        let owner = format!("{}.{APEX}", hash(name));
        self.data(&owner, "NSEC3").map(|_| owner)
    }

    /// The NSEC3 that covers the hash of `name`.
    fn nsec3_cover(&mut self, name: &str) {
        let hash = hash(name);
        let owners = self.zone.iter().filter(|(_, types)| types.contains_key("NSEC3"));
        let owners: Vec<_> = owners.map(|(owner, _)| owner.as_str()).collect();
        let before = owners.iter().rev().find(|owner| **owner < hash.as_str());
        let owner = *before.or(owners.last()).unwrap();
        self.add(owner, "NSEC3");
    }

    /// No such type at `name`, which exists: RFC 4035, 3.1.3.1; RFC 5155, 7.2.3, 7.2.4 and 7.2.7.
    fn deny_type(&mut self, name: &str) {
        match self.chain {
            Chain::None => {}
            Chain::Nsec => self.nsec(name),
            Chain::Nsec3 { .. } => match self.nsec3_owner(name) {
                Some(owner) => self.add(&owner, "NSEC3"),
                None => drop(self.closest_encloser_proof(name)),
            },
        }
    }

    /// No such name, and no wildcard for it: RFC 4035, 3.1.3.2; RFC 5155, 7.2.2.
    fn deny_name(&mut self, name: &str, encloser: &str) {
        match self.chain {
            Chain::None => {}
            Chain::Nsec => {
                self.nsec(name);
                self.nsec(&format!("*.{encloser}"));
            }
            Chain::Nsec3 { .. } => {
                let proven = self.closest_encloser_proof(name);
                self.nsec3_near(&format!("*.{proven}"));
            }
        }
    }

    /// A wildcard answered, nothing is nearer: RFC 4035, 3.1.3.3; RFC 5155, 7.2.6.
    fn deny_nearer(&mut self, name: &str, encloser: &str) {
        let path = path(name);
        let at = path.iter().position(|ancestor| *ancestor == encloser).unwrap();
        let Some(next_closer) = path.get(at + 1) else { return };
        match self.chain {
            Chain::None => {}
            Chain::Nsec => self.nsec(name),
            Chain::Nsec3 { .. } => self.nsec3_cover(next_closer),
        }
    }

    /// The wildcard has no such type: RFC 4035, 3.1.3.4; RFC 5155, 7.2.5.
    fn deny_type_of_wildcard(&mut self, name: &str, wildcard: &str) {
        match self.chain {
            Chain::None => {}
            Chain::Nsec => {
                self.nsec(name);
                self.nsec(wildcard);
            }
            Chain::Nsec3 { .. } => {
                self.closest_encloser_proof(name);
                self.nsec3_near(wildcard);
            }
        }
    }

    /// The NSEC3 that matches a wildcard, or covers it. Under an opt-out either may be there where
    /// the other was looked for: no proof holds then, and what is known is told.
    fn nsec3_near(&mut self, wildcard: &str) {
        match self.nsec3_owner(wildcard) {
            Some(owner) => self.add(&owner, "NSEC3"),
            None => self.nsec3_cover(wildcard),
        }
    }

    /// The closest encloser that has an NSEC3, and the next closer name (RFC 5155, 7.2.1).
    fn closest_encloser_proof<'n>(&mut self, name: &'n str) -> &'n str {
        let path = path(name);
        let at = path.iter().rposition(|ancestor| self.nsec3_owner(ancestor).is_some()).unwrap();
        let owner = self.nsec3_owner(path[at]).unwrap();
        self.add(&owner, "NSEC3");
        self.nsec3_cover(path[at + 1]);
        path[at]
    }
}

//----------- The test -------------------------------------------------------

struct Given(String);

impl Source for Given {
    fn read(&self, path: &str, _: Option<&str>) -> Result<SourceText, String> {
        Ok(SourceText { name: path.into(), text: Text::Bytes(self.0.clone().into_bytes()) })
    }
}

fn options() -> LoadOptions {
    LoadOptions::new(HashKey::new(*b"0123456789abcdef"), 1)
}

fn built(text: &str) -> ring53::zone::Zone {
    let apex: Name = APEX.parse().unwrap();
    let loaded = load(&apex, "zone", &Given(text.into()), &options());
    loaded.zone.unwrap_or_else(|| panic!("{:#?}\n{text}", loaded.diagnostics))
}

fn snapshot(zone: ring53::zone::Zone) -> Snapshot {
    let zones = vec![(APEX.parse().unwrap(), ZoneState::Serving(Arc::new(zone)))];
    Snapshot::new(1, options().key, Identity::default(), zones)
}

fn answer(snapshot: &Snapshot, core: &mut CoreState, octets: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; 65535];
    buffer[..octets.len()].copy_from_slice(octets);
    let mut exchange = [Exchange {
        buffer: &mut buffer,
        query_len: octets.len(),
        transport: Transport::Stream { idle: 0 },
        client: 0,
        verdict: Verdict::Reply(0),
    }];
    answer_batch(snapshot, Duration::ZERO, core, &mut exchange);
    let Verdict::Reply(len) = exchange[0].verdict else { panic!("no reply to {octets:02x?}") };
    buffer.truncate(len);
    buffer
}

const TYPES: [(&str, u16); 9] = [
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
const CHAINS: [Chain; 4] =
    [Chain::None, Chain::Nsec, Chain::Nsec3 { opt_out: false }, Chain::Nsec3 { opt_out: true }];

/// Asks `count` random questions; counts the answers by code.
fn ask(
    random: &mut Random,
    core: &mut CoreState,
    (snapshot, zone, chain): (&Snapshot, &Zone, Chain),
    count: u64,
    rcodes: &mut BTreeMap<u16, u32>,
) {
    for _ in 0..count {
        let asked = name(random);
        let (qtype, number) = TYPES[random.below(TYPES.len() as u64) as usize];
        let Some(expected) = assemble(zone, chain, &asked, qtype) else { continue };
        let wire: Name = asked.parse().unwrap();
        let edns = (chain != Chain::None).then_some((4096, true));
        let octets = query(1, wire.as_wire(), number, edns);
        let got = essence(&answer(snapshot, core, &octets));
        assert_eq!(got, expected, "{asked} {qtype}, {chain:?} in\n{}", text_of(zone));
        *rcodes.entry(expected.rcode).or_default() += 1;
    }
}

#[test]
fn random_zones_are_answered_as_the_plain_assembler_answers() {
    let mut random = Random(seed());
    let mut core = CoreState::new(Arc::new(Counters::default()));
    let mut rcodes = BTreeMap::new();
    for i in 0..800 {
        let chain = CHAINS[i % 4];
        let mut zone = random_zone(&mut random);
        sign(&mut zone, chain);
        let snapshot = snapshot(built(&text_of(&zone)));
        ask(&mut random, &mut core, (&snapshot, &zone, chain), 250, &mut rcodes);
    }
    let compared: u32 = rcodes.values().sum();
    println!("{compared} answers, by code {rcodes:?}");
    assert!(compared > 180_000 && rcodes.len() >= 2);
}

/// Every record, and how many names and records the zone says it has.
fn contents(zone: &ring53::zone::Zone) -> (BTreeSet<String>, [usize; 2]) {
    let record = |owner: &[u8], rtype: u16, it: &Expanded| format!("{owner:?} {rtype} {it:?}");
    let mut all = BTreeSet::new();
    for set in zone.rrsets() {
        let owner = set.owner.as_wire();
        all.extend(set.records.iter().map(|it| record(owner, set.rtype, it)));
        all.extend(set.signatures.iter().map(|it| record(owner, rtype::RRSIG, it)));
    }
    (all, [zone.name_count(), zone.record_count()])
}

/// A zone that changes a little many times is answered as if it had been built anew.
#[test]
fn amended_zones_are_answered_as_the_plain_assembler_answers() {
    let mut random = Random(seed());
    let mut core = CoreState::new(Arc::new(Counters::default()));
    let (mut rcodes, mut amended, mut built_anew) = (BTreeMap::new(), 0, 0);
    let room = Room { names: 1000, octets: 1 << 20 };
    for i in 0..200 {
        let chain = CHAINS[i % 4];
        let mut plain = random_zone(&mut random);
        let mut signed = plain.clone();
        sign(&mut signed, chain);
        let mut served = built(&text_of(&signed));
        for _ in 0..12 {
            plain = changed(&mut random, plain);
            signed = plain.clone();
            sign(&mut signed, chain);
            let anew = built(&text_of(&signed));
            let change = diff(&served, &anew, options().key);
            served = match amend(&served, &[change], "a change", &options(), room) {
                Ok(loaded) => {
                    amended += 1;
                    loaded.zone.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics))
                }
                Err(Unfit::Rebuild) => {
                    built_anew += 1;
                    anew.clone()
                }
                Err(Unfit::Misfit(misfit)) => panic!("{misfit}"),
            };
            let text = text_of(&signed);
            assert_eq!(contents(&served), contents(&anew), "{chain:?}\n{text}");
            assert!(diff(&served, &anew, options().key).is_empty(), "{chain:?}\n{text}");
            assert_eq!(served.serial(), anew.serial());
            assert_eq!(served.signatures_expire(), anew.signatures_expire());
            let snapshot = snapshot(served.clone());
            ask(&mut random, &mut core, (&snapshot, &signed, chain), 60, &mut rcodes);
        }
    }
    println!("{amended} amended, {built_anew} built anew, by code {rcodes:?}");
    assert!(amended > 1000 && built_anew > 0);
}
