//! The cache has the memory that was configured, whatever comes; and what was saved of it is whole,
//! or is not used.
//!
//! From the environment, with what they are otherwise:
//! - `RING53_NAMES` (2,000,000): names put into the cache directly; 10,000,000 are to be reached.
//! - `RING53_FLOOD` (100,000): names that come through the server.
//! - `RING53_CHURN_SECONDS` (3): how long answers come and go. An hour is 3600.
//! - `RING53_KILLS` (40): how often a server is killed while it saves.

#[path = "support/process.rs"]
mod process;
mod support;
#[path = "support/upstream.rs"]
mod upstream;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use ring53::cache::{Aside, Cache, Entry, Key, Prepared, TtlBounds};
use ring53::wire::message::{CLASS_IN, Section, Writer, header};
use ring53::wire::{Name, rtype};

use process::{PATIENCE, Process, run};
use support::{Random, seed};
use upstream::{
    Asked, Ends, Forwarding, Upstream, address_in, alone, ask_many, numbered, query_of, resident,
    soa, streamed, truth, truth_of, write_config,
};

const MIB: u64 = 1 << 20;

/// A number from the environment.
fn scale(variable: &str, default: u64) -> u64 {
    let given = std::env::var(variable).ok().and_then(|it| it.parse().ok());
    let number = given.unwrap_or(default);
    println!("{number} ({variable})");
    number
}

/// No more than a tenth more than `memory`.
fn assert_within(memory: u64, octets: u64, what: &str) {
    println!("{what}: {:.1} of {:.1} MiB", octets as f64 / MIB as f64, memory as f64 / MIB as f64);
    assert!(octets <= memory + memory / 10, "{what}: {octets} octets of {memory}");
}

//----------- The cache ------------------------------------------------------

/// Entries that are written directly, each from a model in which the name's digits are replaced.
struct Model {
    octets: Vec<u8>,
    digits_at: Vec<usize>,
    name_at: usize,
    name_len: usize,
    prepared: Prepared,
}

/// Digits that stand for a number.
const DIGITS: &str = "0000000000";

impl Model {
    /// Of an answer of `records` addresses to `n<number>.example.`.
    fn new(records: usize) -> Model {
        let name = format!("n{DIGITS}.example.").parse::<Name>().unwrap();
        let mut writer = Writer::new(1, header::QR);
        writer.question(name.as_wire(), rtype::A, CLASS_IN);
        for record in 0..records {
            let address = [53, (record >> 16) as u8, (record >> 8) as u8, record as u8];
            writer.record(Section::Answer, name.as_wire(), rtype::A, 300, &address);
        }
        let mut prepared = Prepared::default();
        let key = key_of(name.as_wire(), 0);
        let (message, bounds) = (writer.into_octets(), TtlBounds::default());
        let now = Duration::from_secs(1);
        prepared.response(&key, &message, now, &bounds, Aside::default()).unwrap();
        let octets = prepared.entry().octets().to_vec();
        let name_at = octets.windows(name.as_wire().len()).position(|it| it == name.as_wire());
        let digits = octets.windows(DIGITS.len()).enumerate();
        let digits_at = digits.filter(|(_, it)| *it == DIGITS.as_bytes()).map(|(at, _)| at);
        Model {
            digits_at: digits_at.collect(),
            name_at: name_at.unwrap(),
            name_len: name.as_wire().len(),
            octets,
            prepared,
        }
    }

    /// Puts the answer for `number` into `cache`; whether there was room.
    fn keep(&mut self, cache: &Cache, number: u64, now: Duration) -> bool {
        let text = format!("{number:010}");
        for at in &self.digits_at {
            self.octets[*at..at + DIGITS.len()].copy_from_slice(text.as_bytes());
        }
        self.prepared.copy(Entry::new(&self.octets).unwrap());
        self.prepared.hold(ring53::cache::second(now), None);
        let name = &self.octets[self.name_at..self.name_at + self.name_len];
        cache.keep(&key_of(name, number), &self.prepared, now, 86_400)
    }
}

fn key_of(name: &[u8], number: u64) -> Key<'_> {
    let mut word = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    word = (word ^ word >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    Key { name_hash: word ^ word >> 32, name, qtype: rtype::A, flags: 0 }
}

#[test]
fn millions_of_names_have_the_memory_there_is() {
    let _alone = alone();
    let names = scale("RING53_NAMES", 2_000_000);
    let (memory, mut model) = (64 * MIB, Model::new(1));
    let before = resident(std::process::id());
    let cache = Cache::new(memory as usize, 1).unwrap();
    let mut refused = 0;
    for number in 0..names {
        refused += u64::from(!model.keep(&cache, number, Duration::from_secs(1)));
        if number % 500_000 == 0 {
            assert!(resident(std::process::id()) <= before + memory + memory / 10);
        }
    }
    let counts = cache.counts();
    println!("{counts:?}, {:.0} octets of memory each", memory as f64 / counts.entries as f64);
    assert_eq!(refused, 0);
    assert!(cache.memory() as u64 <= memory && counts.octets <= memory);
    assert_within(memory, resident(std::process::id()).saturating_sub(before), "resident");
    // It is full of the last ones rather than full of holes.
    assert!(counts.octets > memory / 2, "{counts:?}");
    let mut reader = cache.reader().unwrap();
    let pin = reader.pin();
    let recent = (names - 1000..names).filter(|number| {
        let name = format!("n{number:010}.example.").parse::<Name>().unwrap();
        pin.find(&key_of(name.as_wire(), *number)).is_some()
    });
    assert!(recent.count() > 990);
}

#[test]
fn long_answers_have_the_memory_there_is() {
    let _alone = alone();
    for memory in [4 * MIB, 16 * MIB, 64 * MIB] {
        // 4,000 addresses, nearly as long as a message can be.
        let (mut longest, mut short) = (Model::new(4000), Model::new(1));
        assert!(longest.octets.len() > 64 << 10, "{}", longest.octets.len());
        let before = resident(std::process::id());
        let cache = Cache::new(memory as usize, 1).unwrap();
        let now = Duration::from_secs(1);
        for number in 0..20_000 {
            let model = if number % 8 == 0 { &mut longest } else { &mut short };
            assert!(model.keep(&cache, number, now), "{number}");
        }
        assert!(cache.memory() as u64 <= memory && cache.counts().octets <= memory);
        let grown = resident(std::process::id()).saturating_sub(before);
        assert_within(memory, grown, "long and short answers");
    }
}

#[test]
fn what_comes_and_goes_has_the_memory_there_is() {
    let _alone = alone();
    let seconds = scale("RING53_CHURN_SECONDS", 3);
    let mut random = Random(seed());
    let memory = 16 * MIB;
    let mut models: Vec<Model> = [1, 3, 20, 200, 4000].map(Model::new).into();
    let before = resident(std::process::id());
    let cache = Cache::new(memory as usize, 2).unwrap();
    let (over, hits) = (AtomicBool::new(false), AtomicU64::new(0));
    let begun = Instant::now();
    thread::scope(|scope| {
        let ends = Ends(&over);
        // Somebody reads all the time: what is used is kept, and nothing is freed under a reader.
        scope.spawn(|| {
            let (mut reader, mut random) = (cache.reader().unwrap(), Random(7));
            while !over.load(Ordering::Relaxed) {
                let pin = reader.pin();
                let number = random.below(100_000);
                let name = format!("n{number:010}.example.").parse::<Name>().unwrap();
                if let Some(held) = pin.find(&key_of(name.as_wire(), number)) {
                    assert_eq!(held.entry.name(), name.as_wire());
                    assert!(Entry::is_whole(held.entry.octets()));
                    hits.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        // Time passes a thousand times as fast: entries are past all use after 87 seconds.
        let mut kept = 0u64;
        while begun.elapsed() < Duration::from_secs(seconds) {
            let now = begun.elapsed() * 1000;
            for _ in 0..2000 {
                // Long answers are rare, and some names come again and again.
                let model = [0, 0, 0, 0, 0, 1, 1, 2, 2, 3][random.below(10) as usize];
                let model = if random.below(500) == 0 { 4 } else { model };
                let below = [1000, 100_000, 10_000_000][random.below(3) as usize];
                kept += u64::from(models[model].keep(&cache, random.below(below), now));
            }
            if random.below(200) == 0 {
                let apex = format!("n{:010}.example.", random.below(1000)).parse::<Name>().unwrap();
                cache.flush(|entry| entry.name() == apex.as_wire());
            }
            assert!(cache.counts().octets <= memory);
            let grown = resident(std::process::id()).saturating_sub(before);
            assert!(grown <= memory + memory / 10, "{grown} octets of {memory}");
        }
        drop(ends);
        println!("{kept} kept, {} read: {:?}", hits.load(Ordering::Relaxed), cache.counts());
    });
    assert!(hits.load(Ordering::Relaxed) > 0);
    assert_within(memory, resident(std::process::id()).saturating_sub(before), "resident");
}

//----------- The server -----------------------------------------------------

/// `t...`: nothing exists; `k...`: a kilobyte; `l...`: 4,000 addresses, over TCP; else the truth.
fn sizes(asked: &Asked<'_>) -> Vec<u8> {
    let (label, ttl) = (asked.label(), asked.state.ttl());
    let count = match label.as_bytes()[0] {
        b't' => {
            let mut writer = asked.reply(3);
            writer.record(Section::Authority, b"\x07example\0", rtype::SOA, ttl, &soa(ttl));
            return writer.into_octets();
        }
        b'k' => 60,
        b'l' if asked.over_tcp => 4000,
        b'l' => return asked.reply(header::TC).into_octets(),
        _ => return truth(asked),
    };
    let mut writer = asked.reply(0);
    for number in 0..count {
        let address = [53, 0, (number >> 8) as u8, number as u8];
        writer.record(Section::Answer, &asked.name, rtype::A, ttl, &address);
    }
    writer.into_octets()
}

/// What `ring53 cache stats` says.
fn stats(config: &str) -> serde_json::Value {
    let output = run(&["cache", "stats", "--json", "--config", config]);
    assert!(output.status.success(), "{output:?}");
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    if said.get("cache").is_some() { said["cache"].clone() } else { said }
}

/// Has a server with this cache asked, and looks at its memory all the while.
fn flood(memory: u64, asks: &(dyn Fn(SocketAddr) + Sync)) {
    let upstream = Upstream::saying(Box::new(sizes));
    let more = format!("[cache]\nmemory = \"{}MiB\"\n", memory / MIB);
    let forwarding = Forwarding::start(upstream.address, &more);
    // What questions in flight need is there before; the cache's part of it is not counted.
    ask_many(forwarding.address, 3000, 200, |number| numbered("k", number), |_, _| {});
    ask_many(forwarding.address, 30, 16, |number| numbered("l", number), |_, _| {});
    let pid = forwarding.server.pid();
    let held = stats(&forwarding.config())["octets"].as_u64().unwrap();
    let (before, over) = (resident(pid) - held, AtomicBool::new(false));
    let most = thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                most = resident(pid).max(most);
                thread::sleep(Duration::from_millis(20));
            }
            most
        });
        let ends = Ends(&over);
        asks(forwarding.address);
        drop(ends);
        watch.join().unwrap()
    });
    let stats = stats(&forwarding.config());
    println!("{stats}");
    let of = |key: &str| stats[key].as_u64().unwrap();
    assert!(of("octets_max") <= memory && of("octets") <= of("octets_max"), "{stats}");
    assert!(of("evicted") > 0, "it was never full: {stats}");
    assert_within(memory, most - before, "resident, more than before");
}

/// "nh" among the flags of a mapping: no huge pages. The cache's own has them.
#[test]
fn the_heap_has_small_pages_and_the_cache_has_not() {
    let upstream = Upstream::saying(Box::new(sizes));
    let forwarding = Forwarding::start(upstream.address, "[cache]\nmemory = \"32MiB\"\n");
    let all = fs::read_to_string(format!("/proc/{}/smaps", forwarding.server.pid())).unwrap();
    let is_set = |line: &&str, flag: &str| line.split_whitespace().any(|word| word == flag);
    let flags = || all.lines().filter(|line| line.starts_with("VmFlags:"));
    if fs::exists("/sys/kernel/mm/transparent_hugepage").unwrap() {
        assert!(flags().any(|line| is_set(&line, "nh")) && flags().any(|line| is_set(&line, "hg")));
    }
    println!("resident: {} KiB", resident(forwarding.server.pid()) >> 10);
}

#[test]
fn random_names_through_the_server_have_the_memory_there_is() {
    let _alone = alone();
    let names = scale("RING53_FLOOD", 100_000);
    flood(32 * MIB, &|server| {
        ask_many(server, names, 200, |number| numbered("k", number), |_, _| {});
        ask_many(server, names / 2, 200, |number| numbered("t", number), |_, _| {});
    });
}

#[test]
fn long_answers_through_the_server_have_the_memory_there_is() {
    let _alone = alone();
    flood(32 * MIB, &|server| {
        ask_many(
            server,
            700,
            16,
            |number| numbered("l", number),
            |number, reply| assert!(reply[2] & 2 != 0, "l{number} is not cut short"),
        );
        let long = streamed(server, &query_of(1, &numbered("l", 699)));
        assert_eq!(u16::from_be_bytes([long[6], long[7]]), 4000);
    });
}

//----------- Saving ---------------------------------------------------------

const SAVES: &str = "[cache]\nsave = \"cache\"\n[recursion]\nports = 256\n";

fn saved_file(directory: &Path) -> PathBuf {
    directory.join("state").join("cache")
}

/// Asks for `count` names; each must be the truth, and be held no longer than the upstream said.
fn assert_true(server: SocketAddr, count: u64) {
    let take = |number: u64, reply: &[u8]| {
        let truth = truth_of(&numbered("s", number));
        assert_eq!(address_in(reply), Some(truth), "s{number}: {reply:02x?}");
        let message = ring53::wire::message::Message::new(reply).unwrap();
        let ttl = message.records().unwrap().next().unwrap().unwrap().ttl;
        assert!(ttl <= 300, "s{number} for {ttl} s");
    };
    ask_many(server, count, 100, |number| numbered("s", number), take);
}

#[test]
fn killed_while_it_saves_it_starts_clean() {
    let _alone = alone();
    let kills = scale("RING53_KILLS", 40);
    let mut random = Random(seed());
    let upstream = Upstream::saying(Box::new(truth));
    let directory = tempfile::tempdir().unwrap();
    let config = write_config(directory.path(), upstream.address, SAVES);
    let file = saved_file(directory.path());
    let beside = file.with_extension("new");
    let (mut warm, mut cold, mut within, mut after, mut longest) = (0, 0, 0, 0, 100_000);
    for round in 0..kills {
        let mut server = Process::start(&["--config", &config]);
        let address = server.address();
        let said = server.said();
        assert!(!said.contains("begins empty"), "round {round}: {said}");
        *(if said.contains("answers are in the cache again") { &mut warm } else { &mut cold }) += 1;
        // More every time, so that there is something to be saved.
        assert_true(address, 500 + 200 * round.min(50));
        // What the last one has left was there at the start; now it would be taken for this one's.
        let _ = fs::remove_file(&beside);
        let begun = Instant::now();
        server.signal(Signal::SIGTERM);
        let has_saved = |server: &Process| server.said().contains("octets of answers saved");
        if random.below(3) == 0 {
            thread::sleep(Duration::from_micros(random.below(longest)));
        } else {
            // Just when it writes, or a little later.
            while !beside.exists() && !has_saved(&server) && begun.elapsed() < PATIENCE {
                thread::yield_now();
            }
            longest = (begun.elapsed().as_micros() as u64) * 5 / 4;
            let most = [500, 4000, 40_000][random.below(3) as usize];
            thread::sleep(Duration::from_micros(random.below(most)));
        }
        server.signal(Signal::SIGKILL);
        server.end_at_once();
        let is_saved = has_saved(&server);
        after += u64::from(is_saved);
        within += u64::from(!is_saved && beside.exists());
    }
    println!("{warm} warm starts, {cold} cold; {within} killed while writing, {after} afterwards");
    assert!(warm > kills / 8 && within > kills / 20, "{warm} {within} {after}");
    // The last one is left alone.
    let mut server = Process::start(&["--config", &config]);
    assert_true(server.address(), 500);
    server.signal(Signal::SIGTERM);
    assert!(server.end().success(), "{}", server.said());
    assert!(file.exists() && !beside.exists());
}

/// Whatever stands in the file: the server says what it thinks of it, starts, and tells the truth.
#[test]
fn a_file_that_is_damaged_is_not_used() {
    let _alone = alone();
    let mut random = Random(seed());
    let upstream = Upstream::saying(Box::new(truth));
    let directory = tempfile::tempdir().unwrap();
    let config = write_config(directory.path(), upstream.address, SAVES);
    let file = saved_file(directory.path());
    let mut server = Process::start(&["--config", &config]);
    assert_true(server.address(), 300);
    server.signal(Signal::SIGTERM);
    assert!(server.end().success(), "{}", server.said());
    let whole = fs::read(&file).unwrap();
    let flipped = |at: usize| {
        let mut octets = whole.clone();
        octets[at] ^= 1;
        octets
    };
    let mut damaged = vec![
        Vec::new(),
        whole[..10].to_vec(),
        whole[..whole.len() - 1].to_vec(),
        [&whole[..], b"more"].concat(),
        [&whole[..], &whole].concat(),
        b"something else entirely".to_vec(),
        vec![0; 100_000],
        flipped(0),
        flipped(14),
        flipped(whole.len() - 1),
    ];
    for _ in 0..6 {
        damaged.push(flipped(random.below(whole.len() as u64) as usize));
        damaged.push(whole[..random.below(whole.len() as u64) as usize].to_vec());
    }
    for (number, octets) in damaged.iter().enumerate() {
        fs::write(&file, octets).unwrap();
        let mut server = Process::start(&["--config", &config]);
        let address = server.address();
        let said = server.said();
        let named = format!("{}: it is not whole", file.display());
        assert!(said.contains(&named) && said.contains("begins empty"), "{number}: {said}");
        let asked = upstream.asked();
        assert_true(address, 20);
        assert_eq!(upstream.asked(), asked + 20, "{number}: something of it was used");
        server.signal(Signal::SIGKILL);
        server.end_at_once();
    }
    // As it was, it is used.
    fs::write(&file, &whole).unwrap();
    let server = Process::start(&["--config", &config]);
    let asked = upstream.asked();
    assert_true(server.address(), 300);
    assert_eq!(upstream.asked(), asked);
}
