//! Malformed queries in process, of signed zones too: no panic, no reply to a response, no
//! allocation.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use ring53::answer::{CoreState, Counters, Exchange, Transport, Verdict, answer_batch};
use ring53::snapshot::{Identity, Snapshot, ZoneState};
use ring53::wire::{LowerName, Name};
use ring53::zone::change::Change;
use ring53::zone::{HashKey, LoadOptions, Room, Source, SourceText, Text, Zone, amend, load};
use support::{Random, query};

/// Counts allocations of each thread: the one that starts the tests allocates when it likes.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn allocations() -> u64 {
    ALLOCATIONS.get()
}

// SAFETY:
// - Every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Given(&'static str);

impl Source for Given {
    fn read(&self, path: &str, _: Option<&str>) -> Result<SourceText, String> {
        Ok(SourceText { name: path.into(), text: Text::Static(self.0.as_bytes()) })
    }
}

const ZONE: &str = "$TTL 300\n@ SOA ns h 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\na CNAME b\nb CNAME a\n\
    c CNAME d.sub\n*.w A 192.0.2.2\nsub NS ns.sub\nns.sub A 192.0.2.3\nd DNAME d.d\n\
    e DNAME e-long-label-that-makes-names-longer-and-longer.e\nbig TXT \"xxxxxxxxxxxxxxxx\"\n";

/// Signed, with an opt-out in the second.
const NSEC: &str = include_str!("zones/signed-nsec.zone");
const NSEC3: &str = include_str!("zones/signed-nsec3.zone");

/// The zone with every fourth of its nodes in an overlay: gone and come back.
fn amended(zone: &Zone, key: HashKey) -> Zone {
    let options = LoadOptions::new(key, 1);
    let room = Room { names: 1000, octets: 1 << 20 };
    let mut zone = zone.clone();
    let names: Vec<LowerName> = zone.nodes().step_by(4).map(|node| zone.name_of(node)).collect();
    for name in names {
        let records = zone.records_at(&name, key);
        let there = records.into_iter().filter(|record| record.rtype != 6).collect::<Vec<_>>();
        let serial = zone.serial();
        let of = |deleted, added| Change { from: serial, to: serial, deleted, added };
        for change in [of(there.clone(), vec![]), of(vec![], there)] {
            // Some changes have a zone built anew: those are not wanted here.
            if let Ok(loaded) = amend(&zone, &[change], "a change", &options, room) {
                zone = loaded.zone.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics));
            }
        }
    }
    assert!(zone.overlaid_count() > 0);
    zone
}

fn snapshot(is_amended: bool) -> Snapshot {
    let key = HashKey::new(*b"0123456789abcdef");
    let zones = [("example.", ZONE), ("nsec.test.", NSEC), ("nsec3.test.", NSEC3)];
    let zones = zones.map(|(apex, text)| {
        let apex: Name = apex.parse().unwrap();
        let loaded = load(&apex, "zone", &Given(text), &LoadOptions::new(key, 1));
        let mut zone = loaded.zone.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics));
        if is_amended {
            zone = amended(&zone, key);
        }
        (apex, ZoneState::Serving(Arc::new(zone)))
    });
    Snapshot::new(1, key, Identity::default(), zones.into())
}

fn mutate(random: &mut Random, octets: &mut Vec<u8>) {
    for _ in 0..random.below(5) {
        if octets.is_empty() {
            return;
        }
        let at = random.below(octets.len() as u64) as usize;
        match random.below(5) {
            0 => octets[at] ^= 1 << random.below(8),
            1 => octets[at] = random.below(256) as u8,
            2 => octets.truncate(at),
            3 => octets.insert(at, 0xC0 | random.below(64) as u8),
            _ => octets[at] = 63,
        }
    }
}

/// Names in and around the unsigned zone.
const NAMES: [&[u8]; 9] = [
    b"\x01a\x07example\0",
    b"\x01c\x07example\0",
    b"\x01x\x01w\x07example\0",
    b"\x03www\x03sub\x07example\0",
    b"\x01q\x01d\x07example\0",
    b"\x01q\x01e\x07example\0",
    b"\x03BIG\x07eXample\0",
    b"\x07example\0",
    b"\0",
];

/// Names in and around the signed ones, without their apex.
const SIGNED: [&[u8]; 13] = [
    b"",
    b"\x01a",
    b"\x01c",
    b"\x01x\x01w",
    b"\x01y\x02wc",
    b"\x01y\x01e",
    b"\x03www\x03sub",
    b"\x03www\x03sec",
    b"\x03sec",
    b"\x01q\x01d",
    b"\x01c\x01d\x01e\x01f",
    b"\x07nothing",
    b"\x01y\x07nothing\x01f",
];

/// A name of one of the zones.
fn asked(random: &mut Random) -> Vec<u8> {
    if random.below(2) == 0 {
        return NAMES[random.below(NAMES.len() as u64) as usize].to_vec();
    }
    let apexes: [&[u8]; 2] = [b"\x04nsec\x04test\0", b"\x05nsec3\x04test\0"];
    let relative = SIGNED[random.below(SIGNED.len() as u64) as usize];
    [relative, apexes[random.below(2) as usize]].concat()
}

#[test]
fn nothing_malformed_breaks_or_allocates() {
    let seed = std::env::var("RING53_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(53);
    let count = std::env::var("RING53_COUNT").ok().and_then(|n| n.parse().ok()).unwrap_or(500_000);
    println!("seed {seed} (RING53_SEED), {count} datagrams (RING53_COUNT)");
    let snapshots = [false, true].map(snapshot);
    let mut core = CoreState::new(Arc::new(Counters::default()));
    let mut random = Random(seed);
    let mut buffer = vec![0u8; 4352];
    let mut replies = 0;
    for _ in 0..count {
        let rtypes = [1, 2, 5, 6, 16, 28, 39, 43, 46, 47, 50, 251, 252, 255];
        let rtype = rtypes[random.below(rtypes.len() as u64) as usize];
        let edns =
            if random.below(2) == 0 { Some((random.below(65536) as u16, true)) } else { None };
        let name = asked(&mut random);
        let mut octets = query(random.below(65536) as u16, &name, rtype, edns);
        mutate(&mut random, &mut octets);
        buffer[..octets.len()].copy_from_slice(&octets);
        let stream = random.below(8) == 0;
        let transport = if stream { Transport::Stream { idle: 0 } } else { Transport::Datagram };
        let mut exchange = [Exchange {
            buffer: &mut buffer,
            query_len: octets.len(),
            transport,
            client: 0,
            verdict: Verdict::Reply(0),
        }];
        let snapshot = &snapshots[random.below(2) as usize];
        let before = allocations();
        answer_batch(snapshot, Duration::ZERO, &mut core, &mut exchange);
        let verdict = exchange[0].verdict;
        assert_eq!(allocations(), before, "{octets:02x?}");
        match verdict {
            Verdict::Reply(len) => {
                replies += 1;
                assert!(len >= 12 && (stream || len <= 1232), "{len}: {octets:02x?}");
                assert_eq!(buffer[..2], octets[..2], "{octets:02x?}");
                assert!(buffer[2] & 0x80 != 0 && octets[2] & 0x80 == 0, "{octets:02x?}");
                hickory_proto::op::Message::from_vec(&buffer[..len])
                    .unwrap_or_else(|error| panic!("{error}: {octets:02x?}"));
            }
            Verdict::Drop(_) => assert!(octets.len() < 12 || octets[2] & 0x80 != 0),
            // A transfer over a stream, NOTIFY, a TSIG: the query is left as it was for others.
            Verdict::Defer(_) => assert_eq!(buffer[..octets.len()], octets, "{octets:02x?}"),
        }
    }
    assert!(replies > count / 2);
}
