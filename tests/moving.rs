//! Zones on their way, in process: random zones survive AXFR and IXFR record by record, and nothing
//! that a transfer may bring, mutated, does harm. Runs for `RING53_FUZZ_SECONDS` (4) with a printed
//! seed.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ring53::policy::{AccessList, Rules};
use ring53::snapshot::{Identity, Snapshot, ZoneState, ZoneTable};
use ring53::transfer::incoming::{self, Brought, Incoming, Request};
use ring53::transfer::outgoing::{Granted, begin};
use ring53::wire::Name;
use ring53::wire::message::Message;
use ring53::zone::change::{Change, Journal, Misfit, apply, diff};
use ring53::zone::records::expand;
use ring53::zone::{
    Checks, Diagnostic, HashKey, LoadOptions, Room, Severity, Source, SourceText, Text, Unfit,
    Zone, amend, load, verify, verify_amended,
};
use support::random_zone::{RandomZone, Signing};
use support::{Random, seed};

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ID: u16 = 7;

fn options() -> LoadOptions {
    LoadOptions::new(HashKey::new(*b"a secret of test"), 1)
}

struct Given(Vec<u8>);

impl Source for Given {
    fn read(&self, path: &str, _: Option<&str>) -> Result<SourceText, String> {
        Ok(SourceText { name: path.into(), text: Text::Bytes(self.0.clone()) })
    }
}

fn read(apex: &Name, text: Vec<u8>) -> Arc<Zone> {
    let loaded = load(apex, "zone", &Given(text), &options());
    Arc::new(loaded.zone.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics)))
}

/// Every record, as owner, type, TTL and canonical RDATA would be too kind: as it is.
fn records(zone: &Zone) -> BTreeSet<(Vec<u8>, u16, u32, Vec<u8>)> {
    let mut all = BTreeSet::new();
    for rrset in zone.rrsets() {
        let owner = rrset.owner.as_wire().to_vec();
        for record in rrset.records {
            all.insert((owner.clone(), rrset.rtype, record.ttl, record.rdata));
        }
        for record in rrset.signatures {
            all.insert((owner.clone(), 46, record.ttl, record.rdata));
        }
    }
    all
}

fn snapshot(apex: &Name, zone: &Arc<Zone>, journal: Journal) -> Snapshot {
    let rules =
        Rules { transfer: AccessList::new(vec!["127.0.0.1".parse().unwrap()]), ..Rules::default() };
    let mut table = ZoneTable::new(options().key);
    let number = table.insert(apex);
    let entry = table.entry_mut(number);
    entry.state = ZoneState::Serving(Arc::clone(zone));
    entry.rules = Arc::new(rules);
    entry.journal = Some(Arc::new(journal));
    Snapshot::of(1, Identity::default(), &table, Arc::default())
}

/// The messages that answer a request for changes since `base`, or for all.
fn messages(snapshot: &Snapshot, apex: &Name, base: Option<&Zone>) -> Vec<Vec<u8>> {
    let soa = base.map(|zone| {
        let soa = zone.node(zone.apex_at()).rrset(6).unwrap();
        expand(soa, &zone.lower_apex())[0].rdata.clone()
    });
    let request = incoming::request(ID, apex, soa.as_deref());
    let granted = begin(snapshot, Message::new(&request).unwrap(), PEER, None, 0).unwrap();
    let Granted::Messages(mut outgoing) = granted else { panic!("nothing newer") };
    let (mut all, mut message) = (Vec::new(), Vec::new());
    while outgoing.next(&mut message, 0).unwrap() {
        all.push(message.clone());
    }
    all
}

fn take(apex: &Name, base: Option<&Zone>, messages: &[Vec<u8>]) -> Option<Brought> {
    let request = Request { id: ID, serial: base.map(Zone::serial), octets_max: 1 << 30 };
    let mut incoming = Incoming::new(apex, request, None, &options());
    for (i, message) in messages.iter().enumerate() {
        match incoming.message(message, 0) {
            Ok(false) => {}
            Ok(true) if i + 1 == messages.len() => return Some(incoming.finish()),
            Ok(true) | Err(_) => return None,
        }
    }
    None
}

fn built(brought: Brought, base: Option<&Zone>) -> Zone {
    let intake = match brought {
        Brought::Whole(intake) => *intake,
        Brought::Changes(changes) => apply(base.unwrap(), &changes, &options()).unwrap(),
        Brought::Nothing => panic!("nothing came"),
    };
    let loaded = intake.finish("a transfer", &options());
    loaded.zone.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics))
}

/// Two versions of one zone, signed in one way: the second has another serial.
fn versions(random: &mut Random, number: u64) -> (Name, [Arc<Zone>; 2]) {
    let directory = tempfile::tempdir().unwrap();
    let apex = format!("z{number}.test.");
    let name: Name = apex.parse().unwrap();
    let signing = match number % 4 {
        0 => Signing::None,
        1 => Signing::Nsec,
        2 => Signing::Nsec3(0, 0, false),
        _ => Signing::Nsec3(2, 5, true),
    };
    let first = RandomZone::new(random, &apex);
    let mut second = RandomZone::new(random, &apex);
    // What both have is most of it, in half of the cases.
    if number % 8 < 4 {
        let owner = |line: &str| line.split(' ').next().unwrap().to_lowercase();
        let known: BTreeSet<String> = first.text.lines().map(owner).collect();
        let is_extra = |line: &&str| line.contains(" TXT ") && !known.contains(&owner(line));
        let extra: Vec<&str> = second.text.lines().filter(is_extra).collect();
        let text: Vec<&str> = first.text.lines().chain(extra.into_iter().take(3)).collect();
        second.text = text.join("\n") + "\n";
    }
    let zones = [(first, 1u32), (second, 5)].map(|(zone, serial)| {
        let text = renumbered(&zone.text, serial);
        let zone = RandomZone { apex: apex.clone(), text, names: Vec::new() };
        let file = zone.signed(random, directory.path(), signing);
        read(&name, fs::read(file).unwrap())
    });
    (name, zones)
}

/// The text with another serial in its SOA.
fn renumbered(text: &str, serial: u32) -> String {
    let mut lines: Vec<String> = text.lines().map(String::from).collect();
    let line = lines.iter_mut().find(|line| line.contains(" SOA ")).expect("a SOA");
    let mut words: Vec<String> = line.split(' ').map(String::from).collect();
    let at = words.iter().position(|word| word == "SOA").unwrap();
    words[at + 3] = serial.to_string();
    *line = words.join(" ");
    lines.join("\n") + "\n"
}

#[test]
fn random_zones_survive_transfers() {
    let mut random = Random(seed());
    for number in 0..16 {
        let (apex, [old, new]) = versions(&mut random, number);
        let change = diff(&old, &new, options().key);
        assert!(diff(&new, &new, options().key).is_empty());
        let applied = apply(&old, std::slice::from_ref(&change), &options()).unwrap();
        let applied = applied.finish("a change", &options()).zone.unwrap();
        assert_eq!(records(&applied), records(&new), "zone {number}, applied");
        let back = diff(&new, &old, options().key);
        let both = [Arc::new(change.clone()), Arc::new(back)];
        let none = Change::condensed(&both).unwrap();
        assert!(none.is_empty(), "zone {number}: there and back leaves {none:?}");

        let journal = Journal::default().after(&[Arc::new(change)], usize::MAX);
        let snapshot = snapshot(&apex, &new, journal);
        let whole = messages(&snapshot, &apex, None);
        let came = built(take(&apex, None, &whole).expect("AXFR"), None);
        assert_eq!(records(&came), records(&new), "zone {number}, whole");
        let changes = messages(&snapshot, &apex, Some(&old));
        let came = built(take(&apex, Some(&old), &changes).expect("IXFR"), Some(&old));
        assert_eq!(records(&came), records(&new), "zone {number}, in steps");
    }
}

/// A change of a signed zone, whole or with a record left out, is found good or bad by a look at
/// what it names just as by a look at all.
#[test]
fn a_change_is_verified_as_the_whole_is() {
    let mut random = Random(seed());
    let room = Room { names: 10_000, octets: 1 << 24 };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32;
    let checks = Checks { signatures: true, digest: false };
    let (mut good, mut bad) = (0, 0);
    for number in 0..48 {
        let (_, [old, new]) = versions(&mut random, number);
        let whole = diff(&old, &new, options().key);
        for attempt in 0..12 {
            let mut change = whole.clone();
            let (deleted, added) = (change.deleted.len() as u64, change.added.len() as u64);
            if attempt > 0 {
                // Not the SOA, which comes first.
                let at = random.below(deleted + added) as usize;
                match at.checked_sub(change.deleted.len()) {
                    None if at > 0 => drop(change.deleted.remove(at)),
                    Some(at) if at > 0 => drop(change.added.remove(at)),
                    _ => continue,
                }
            }
            let change = [change];
            let Ok(loaded) = amend(&old, &change, "a change", &options(), room) else { continue };
            let Some(zone) = loaded.zone else { continue };
            let is_error = |found: &&Diagnostic| found.severity == Severity::Error;
            let all = verify(&zone, "zone", now, 1, checks);
            let some = verify_amended(&zone, &old, "zone", now, 1, checks);
            let all: Vec<_> = all.iter().filter(is_error).collect();
            let some: Vec<_> = some.iter().filter(is_error).collect();
            let shown = format!("zone {number}: {all:?}\nof the change: {some:?}\n{change:?}");
            assert_eq!(all.is_empty(), some.is_empty(), "{shown}");
            assert!(attempt > 0 || all.is_empty(), "{shown}");
            if all.is_empty() { good += 1 } else { bad += 1 }
        }
    }
    println!("{good} good, {bad} bad");
    assert!(good > 20 && bad > 20);
}

/// Changes come to the same whether the zone is amended or built anew.
fn amended_alike(base: &Zone, changes: &[Change], built: Result<Option<Zone>, Misfit>) {
    let room = Room { names: 10_000, octets: 1 << 24 };
    match amend(base, changes, "changes", &options(), room) {
        Ok(loaded) => {
            let built = built.unwrap_or_else(|misfit| panic!("amended, but {misfit}: {changes:?}"));
            let contents = |zone: &Option<Zone>| zone.as_ref().map(records);
            assert_eq!(contents(&loaded.zone), contents(&built), "{changes:?}");
        }
        Err(Unfit::Misfit(misfit)) => assert_eq!(built.err(), Some(misfit), "{changes:?}"),
        Err(Unfit::Rebuild) => {}
    }
}

#[test]
fn mutated_transfers_do_no_harm() {
    let mut random = Random(seed());
    let seconds = std::env::var("RING53_FUZZ_SECONDS").ok().and_then(|n| n.parse().ok());
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(4));
    let mut seeds = Vec::new();
    for number in 0..4 {
        let (apex, [old, new]) = versions(&mut random, number);
        let change = Arc::new(diff(&old, &new, options().key));
        let snapshot = snapshot(&apex, &new, Journal::default().after(&[change], usize::MAX));
        seeds.push((apex.clone(), None, messages(&snapshot, &apex, None)));
        let changes = messages(&snapshot, &apex, Some(&old));
        seeds.push((apex, Some(old), changes));
    }
    let (mut runs, mut whole) = (0u64, 0u64);
    while Instant::now() < end {
        let (apex, base, messages) = &seeds[random.below(seeds.len() as u64) as usize];
        let mut messages = messages.clone();
        for _ in 0..random.below(4) {
            let number = random.below(messages.len() as u64) as usize;
            let message = &mut messages[number];
            let at = random.below(message.len() as u64) as usize;
            match random.below(5) {
                0 => message[at] ^= 1 << random.below(8),
                1 => message[at] = [0, 0xC0, 0xFF, 63, 1][random.below(5) as usize],
                2 => message.truncate(at),
                3 => {
                    drop(message.drain(at..(at + 1 + random.below(20) as usize).min(message.len())))
                }
                _ => messages.swap(0, number),
            }
            messages.retain(|message| !message.is_empty());
            if messages.is_empty() {
                break;
            }
        }
        runs += 1;
        // Whatever is taken must be a zone, or be refused as one.
        match take(apex, base.as_deref(), &messages) {
            Some(Brought::Whole(intake)) => {
                whole += u64::from(intake.finish("a transfer", &options()).zone.is_some());
            }
            Some(Brought::Changes(changes)) => {
                let base = base.as_deref().unwrap();
                let built = apply(base, &changes, &options());
                let built = built.map(|intake| intake.finish("changes", &options()).zone);
                whole += u64::from(built.as_ref().is_ok_and(Option::is_some));
                amended_alike(base, &changes, built);
            }
            Some(Brought::Nothing) | None => {}
        }
    }
    println!("{runs} transfers, {whole} of them zones");
    assert!(whole > runs / 20 && whole < runs);
}
