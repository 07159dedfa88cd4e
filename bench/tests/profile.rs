//! Profiles: learned alike from every kind of capture, nothing of names and addresses in them, and
//! what is replayed finds in caches what the original found.

mod support;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ring53_bench::load::schedule::Times;
use ring53_bench::mix::profile::capture::{Seen, Skipped, read};
use ring53_bench::mix::profile::learn::Learner;
use ring53_bench::mix::profile::{Profile, replay};
use ring53_bench::zones::queries::Random;

use support::frames::{Container, ETHERNET, capture};
use support::servers;
use support::traffic::{Identities, Query, Shape, traffic};

const SMALL: Shape =
    Shape { exponent: 1.0, names: 2000, queries: 6000, churn: 0.01, bursts: 0.05, rate: 5000.0 };

fn learned(path: &Path) -> (Profile, Skipped) {
    let mut learner = Learner::default();
    let skipped = read(path, 53, &mut |seen| learner.take(seen)).unwrap();
    assert_eq!(learner.others, 0);
    (learner.finish(&skipped), skipped)
}

fn learned_from(octets: &[u8]) -> (Profile, Skipped) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("capture");
    std::fs::write(&path, octets).unwrap();
    learned(&path)
}

/// The profile of queries and answers without a capture.
fn learned_directly(queries: &[Query], identities: &Identities) -> Profile {
    let mut learner = Learner::default();
    for query in queries {
        let (message, answer) = identities.messages(query, 0);
        let client = identities.address(query.client);
        let (at_ns, stream) = (query.at_ns, query.stream);
        learner.take(&Seen { at_ns, client, stream, to_server: true, message: &message });
        learner.take(&Seen { at_ns, client, stream, to_server: false, message: &answer });
    }
    learner.finish(&Skipped::default())
}

const PCAP: Container =
    Container::Pcap { link_type: ETHERNET, big_endian: false, nanoseconds: false };

//----------- Captures -------------------------------------------------------

#[test]
fn every_kind_of_capture_gives_the_same_profile() {
    let queries = traffic(SMALL, 1);
    let identities = Identities::new(1);
    let expected = learned_directly(&queries, &identities);
    let streams: HashSet<usize> =
        queries.iter().filter(|query| query.stream).map(|query| query.client).collect();
    let pcap = |link_type| Container::Pcap { link_type, big_endian: false, nanoseconds: true };
    let containers = [
        PCAP,
        pcap(0x1_0001),
        pcap(113),
        pcap(276),
        pcap(0),
        pcap(101),
        pcap(12),
        Container::Pcap { link_type: ETHERNET, big_endian: true, nanoseconds: true },
        Container::Pcapng { link_type: 1, big_endian: false },
        Container::Pcapng { link_type: 101, big_endian: true },
        Container::Dnstap { responses_only: false },
    ];
    for container in containers {
        let (mut profile, skipped) = learned_from(&capture(container, &queries, &identities));
        let frames = !matches!(container, Container::Dnstap { .. });
        assert_eq!(skipped.connections, if frames { streams.len() as u64 } else { 0 });
        assert_eq!((skipped.cut, skipped.streams_lost, skipped.others), (0, 0, 0), "{container:?}");
        profile.clients.connections = 0;
        assert_eq!(profile, expected, "{container:?}");
    }
}

/// A log of responses alone has the questions, the times and the clients.
#[test]
fn a_dnstap_log_of_responses_stands_for_its_queries() {
    let queries = traffic(SMALL, 1);
    let identities = Identities::new(1);
    let expected = learned_directly(&queries, &identities);
    let container = Container::Dnstap { responses_only: true };
    let (profile, _) = learned_from(&capture(container, &queries, &identities));
    assert_eq!(profile.classes, expected.classes);
    assert_eq!(profile.clients, expected.clients);
    assert_eq!(profile.responses, expected.responses);
    assert!(profile.variants.iter().all(|variant| variant.edns.is_none()));
}

#[test]
fn what_is_no_capture_says_what_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("capture");
    for (octets, part) in [
        (&b""[..], "is empty"),
        (b"example. A\n", "expected pcap, pcapng or dnstap"),
        (b"\x1F\x8B\x08\0\0\0\0\0", "decompress"),
        (b"\0\0\0\0\0\0\0\x08\0\0\0\x02\0\0\0\0", "not of dnstap"),
        (b"\0\0\0\0\0\0\0\x04\0\0\0\x04\0\0\0\x01x", "START"),
    ] {
        std::fs::write(&path, octets).unwrap();
        let error = read(&path, 53, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("capture"), "{error}");
    }
}

/// Cut anywhere and with octets changed, a capture is read or refused; nothing panics.
#[test]
fn hostile_captures_are_harmless() {
    let shape = Shape { queries: 40, names: 20, ..SMALL };
    let queries = traffic(shape, 3);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("capture");
    let mut random = Random::new(53);
    let kinds = [PCAP, Container::Pcapng { link_type: 1, big_endian: false }];
    for container in kinds.into_iter().chain([Container::Dnstap { responses_only: false }]) {
        let whole = capture(container, &queries, &Identities::new(1));
        for _ in 0..500 {
            let mut octets = whole.clone();
            for _ in 0..random.below(20) {
                let at = random.below(octets.len() as u64) as usize;
                octets[at] = random.below(256) as u8;
            }
            octets.truncate(random.below(octets.len() as u64 * 2) as usize);
            std::fs::write(&path, &octets).unwrap();
            let mut learner = Learner::default();
            if let Ok(skipped) = read(&path, 53, &mut |seen| learner.take(seen))
                && learner.queries() > 0
            {
                drop(learner.finish(&skipped));
            }
        }
    }
}

//----------- Privacy --------------------------------------------------------

/// All ways in which octets might stand in a text.
fn encodings(octets: &[u8]) -> Vec<String> {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    let joined = |separator: &str, radix: u32| {
        let digits = |octet: &u8| match radix {
            16 => format!("{octet:02x}"),
            8 => format!("{octet:o}"),
            2 => format!("{octet:08b}"),
            _ => octet.to_string(),
        };
        octets.iter().map(digits).collect::<Vec<_>>().join(separator)
    };
    let mut all = vec![text(octets)];
    all.push(text(&octets.iter().rev().copied().collect::<Vec<_>>()));
    all.push(octets.iter().map(|octet| format!("\\{octet:03}")).collect());
    all.push(octets.iter().map(|octet| format!("%{octet:02x}")).collect());
    let rotate = |octet: &u8| match octet {
        b'a'..=b'z' => (octet - b'a' + 13) % 26 + b'a',
        _ => *octet,
    };
    all.push(text(&octets.iter().map(rotate).collect::<Vec<_>>()));
    for separator in ["", " ", ",", ", ", ",\n", ":", "-", "."] {
        all.push(joined(separator, 16));
        all.push(joined(separator, 10));
        all.push(joined(separator, 8));
    }
    all.push(joined("", 2));
    // Base64 and base32 from each place that a longer text could have it at.
    const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const BASE32: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    for (alphabet, bits) in [(BASE64, 6), (BASE32, 5)] {
        for skipped in 0..8 {
            let mut stream: Vec<bool> = Vec::new();
            for octet in octets {
                stream.extend((0..8).rev().map(|bit| octet >> bit & 1 == 1));
            }
            let digits = stream[skipped.min(stream.len())..].chunks_exact(bits).map(|chunk| {
                alphabet[chunk.iter().fold(0, |value, &bit| value << 1 | usize::from(bit))]
            });
            all.push(text(&digits.collect::<Vec<_>>()));
        }
    }
    // Numbers of up to 16 octets, in either order, and digests as they are commonly shortened.
    let number = |octets: &mut dyn Iterator<Item = &u8>| {
        octets.fold(0u128, |number, &octet| number << 8 | u128::from(octet))
    };
    if octets.len() <= 16 {
        all.push(number(&mut octets.iter()).to_string());
        all.push(number(&mut octets.iter().rev()).to_string());
    }
    let fnv = octets.iter().fold(0xCBF2_9CE4_8422_2325u64, |hash, &octet| {
        (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01B3)
    });
    all.extend([fnv.to_string(), format!("{fnv:x}"), format!("{:x}", fnv as u32)]);
    all.retain(|text| text.len() >= 5);
    all
}

#[test]
fn no_name_label_or_address_is_in_a_profile() {
    let queries = traffic(Shape { names: 800, queries: 3000, ..SMALL }, 2);
    let identities = Identities::new(77);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("profile.json");
    let (profile, _) = learned_from(&capture(PCAP, &queries, &identities));
    profile.write(&path).unwrap();
    assert_eq!(Profile::read(&path).unwrap(), profile);
    let text = std::fs::read_to_string(&path).unwrap().to_lowercase();
    let mut secrets: HashSet<Vec<u8>> = HashSet::new();
    for query in &queries {
        let labels = identities.labels(query.name);
        secrets.insert(labels.join(&b'.'));
        secrets.insert(identities.wire(query).to_ascii_lowercase());
        secrets.extend(labels);
        match identities.address(query.client) {
            IpAddr::V4(address) => secrets.insert(address.octets().to_vec()),
            IpAddr::V6(address) => {
                secrets.insert(address.to_string().into_bytes());
                secrets.insert(address.octets().to_vec())
            }
        };
    }
    assert!(secrets.len() > 1000, "{}", secrets.len());
    for secret in &secrets {
        for encoding in encodings(secret) {
            let found = text.find(&encoding.to_lowercase());
            assert_eq!(found, None, "{:?} as {encoding:?}", String::from_utf8_lossy(secret));
        }
    }
    // And there is no place for any: no text but the format, no number of more than four digits
    // that is not a count.
    fn leaves(value: &serde_json::Value, key: &str, numbers: &mut Vec<(String, f64)>) {
        match value {
            serde_json::Value::String(text) => {
                assert_eq!((key, &text[..]), ("format", "ring53-profile"))
            }
            serde_json::Value::Number(number) => {
                numbers.push((key.to_string(), number.as_f64().unwrap()));
            }
            serde_json::Value::Array(values) => {
                values.iter().for_each(|value| leaves(value, key, numbers));
            }
            serde_json::Value::Object(map) => {
                map.iter().for_each(|(key, value)| leaves(value, key, numbers));
            }
            _ => {}
        }
    }
    let mut numbers = Vec::new();
    leaves(&serde_json::from_str(&text).unwrap(), "", &mut numbers);
    for (key, number) in numbers {
        let counts = ["queries", "questions", "names", "seen_once", "count", "connections"];
        let exact = counts.contains(&&key[..]) || ["version", "type", "edns"].contains(&&key[..]);
        let digits = format!("{number:e}").split('e').next().unwrap().replace(['.', '-'], "").len();
        assert!(digits <= 4 || exact, "{key}: {number}");
        assert!(!exact || number <= queries.len() as f64, "{key}: {number}");
    }
}

/// Traffic of the same form with other names and other addresses: the same profile, octet for
/// octet. Whatever could be read out of it, it is not a name.
#[test]
fn a_profile_depends_on_no_name_and_no_address() {
    let queries = traffic(SMALL, 4);
    let directory = tempfile::tempdir().unwrap();
    let written: Vec<Vec<u8>> = [5, 6]
        .map(|seed| {
            let path = directory.path().join(seed.to_string());
            learned_from(&capture(PCAP, &queries, &Identities::new(seed))).0.write(&path).unwrap();
            std::fs::read(path).unwrap()
        })
        .into();
    assert!(written[0] == written[1]);
    // Other traffic is told apart.
    let path = directory.path().join("other");
    let other = traffic(Shape { exponent: 1.1, ..SMALL }, 4);
    learned_from(&capture(PCAP, &other, &Identities::new(5))).0.write(&path).unwrap();
    assert!(std::fs::read(path).unwrap() != written[0]);
}

#[test]
fn what_is_no_profile_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("profile.json");
    let profile = learned_directly(&traffic(SMALL, 1), &Identities::new(1));
    profile.write(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    for (from, to, part) in [
        ("\"version\": 1", "\"version\": 2", "expected \"ring53-profile\", version 1"),
        ("\"queries\": 6000", "\"queries\": 6000, \"names_of\": 1", "unknown field"),
        ("\"queries\": 6000", "\"queries\": 60", "do not fit"),
        ("\"questions\":1,", "\"questions\":9,", "other questions than it says"),
        ("\"lives\":[", "\"lives\":[7,", "a class is not whole"),
        ("\"counts\":[", &format!("\"counts\":[{}", "0,".repeat(6000)), "a class is not whole"),
        ("\"share\":1.0,", "\"share\":-1.0,", "types are no shares"),
        ("{", "", "no profile"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        std::fs::write(&path, changed).unwrap();
        let error = Profile::read(&path).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("profile.json"), "{from}: {error}");
    }
}

//----------- Caches ---------------------------------------------------------

/// The share of queries that a cache of `size` questions has, which forgets each `ttl` after it was
/// fetched, and the least recently used one when it is full.
fn hit_ratio(asked: &[(u32, f64)], size: usize, ttl: f64) -> f64 {
    let mut cache: HashMap<u32, (u64, f64)> = HashMap::new();
    let mut by_use: BTreeMap<u64, u32> = BTreeMap::new();
    let mut hits = 0u64;
    for (turn, &(question, at)) in (0u64..).zip(asked) {
        let fetched = match cache.remove(&question) {
            Some((used, fetched)) => {
                by_use.remove(&used);
                if at - fetched < ttl {
                    hits += 1;
                    fetched
                } else {
                    at
                }
            }
            None => at,
        };
        if cache.len() >= size {
            let (_, least) = by_use.pop_first().unwrap();
            cache.remove(&least);
        }
        cache.insert(question, (turn, fetched));
        by_use.insert(turn, question);
    }
    hits as f64 / asked.len() as f64
}

/// The queries of an original: numbers of questions, seconds.
fn original(queries: &[Query]) -> Vec<(u32, f64)> {
    let mut known = HashMap::new();
    let start = queries[0].at_ns;
    let numbered = |query: &Query| {
        let next = known.len() as u32;
        let number = *known.entry((query.name, query.qtype)).or_insert(next);
        (number, (query.at_ns - start) as f64 / 1e9)
    };
    queries.iter().map(numbered).collect()
}

/// Those of its profile, at the times that its schedule says.
fn replayed(profile: &Profile, seed: u64) -> Vec<(u32, f64)> {
    let (_, order) = replay::order(profile, profile.queries, &mut Random::new(seed));
    let times = Times::new(&profile.schedule(), profile.rate(), f64::MAX, seed);
    order.into_iter().zip(times.map(|at_ns| at_ns as f64 / 1e9)).collect()
}

/// The promise: within 10 % of the original's hit ratio, for caches of any size and any TTL.
#[test]
fn caches_find_in_the_replay_what_they_find_in_the_original() {
    let mut worst: (f64, String) = (0.0, String::new());
    for exponent in [0.8, 1.0, 1.2] {
        for (churn, bursts) in [(0.0, 0.0), (0.02, 0.0), (0.0, 0.1), (0.02, 0.1)] {
            let shape =
                Shape { exponent, names: 15_000, queries: 60_000, churn, bursts, rate: 1000.0 };
            let queries = traffic(shape, 53 + exponent as u64);
            let profile = learned_directly(&queries, &Identities::new(9));
            let (before, after) = (original(&queries), replayed(&profile, 1));
            let off = after.len() as f64 / before.len() as f64 - 1.0;
            assert!(off.abs() < 0.03, "{} of {} queries", after.len(), before.len());
            for size in [100, 1000, 5000, usize::MAX] {
                for ttl in [1.0, 20.0, f64::INFINITY] {
                    let (had, has) = (hit_ratio(&before, size, ttl), hit_ratio(&after, size, ttl));
                    let off = (has / had - 1.0).abs();
                    let what = format!("{shape:?}, {size} questions, {ttl} s: {had:.4}, {has:.4}");
                    println!("{:.1}% {what}", off * 100.0);
                    if off > worst.0 {
                        worst = (off, what);
                    }
                }
            }
            for size in [100, 1000, 5000] {
                let said = profile.hit_ratio(size as f64);
                let had = hit_ratio(&before, size, f64::INFINITY);
                assert!((said - had).abs() < 0.02, "the reuse distances say {said}, not {had}");
            }
        }
    }
    assert!(worst.0 < 0.1, "{:.1}%: {}", worst.0 * 100.0, worst.1);
}

/// A shorter replay is the beginning of the whole one, and another seed asks other names at other
/// times.
#[test]
fn replays_repeat_and_can_be_shorter() {
    let profile = learned_directly(&traffic(SMALL, 1), &Identities::new(1));
    let order = |positions, seed| replay::order(&profile, positions, &mut Random::new(seed));
    assert_eq!(order(6000, 1), order(6000, 1));
    assert_ne!(order(6000, 1), order(6000, 2));
    let (asked, times) = order(1000, 1);
    assert_eq!(times.len(), 1000);
    assert!(times.iter().all(|&number| (number as usize) < asked.len()));
    let all = order(6000, 1);
    let types = |asked: &[replay::Asked], qtype| {
        asked.iter().filter(|it| it.qtype == qtype).count() as f64 / asked.len() as f64
    };
    for qtype in [1, 12, 28, 65] {
        let share = profile.classes.iter().map(|class| {
            let of = class.types.iter().find(|it| it.r#type == qtype).map_or(0.0, |it| it.share);
            of * class.questions as f64
        });
        let expected = share.sum::<f64>() / profile.questions as f64;
        assert!((types(&all.0, qtype) - expected).abs() < 0.03, "type {qtype}");
    }
    let missing = all.0.iter().filter(|it| it.nxdomain).count() as f64 / all.0.len() as f64;
    assert!((missing - 1.0 / 7.0).abs() < 0.03, "{missing}");
}

//----------- Programs -------------------------------------------------------

/// What Knot was asked over UDP and TCP, as tcpdump saw it and as Knot's dnstap module says.
#[test]
fn tcpdump_and_knot_saw_the_same() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: tcpdump needs root");
        return;
    }
    // On a busy machine tcpdump may lose a segment of answers: what differs by a fault of ours
    // differs each time.
    let mut attempts = 0;
    let (tapped, seen) = loop {
        let (tapped, seen) = seen_by_knot_and_tcpdump();
        attempts += 1;
        if attempts == 3 || (tapped.classes == seen.classes && tapped.responses == seen.responses) {
            break (tapped, seen);
        }
    };
    assert_eq!(tapped.queries, seen.queries);
    assert_eq!(tapped.classes, seen.classes);
    assert_eq!(tapped.variants, seen.variants);
    assert_eq!(tapped.labels, seen.labels);
    assert_eq!(tapped.responses, seen.responses);
    assert_eq!((tapped.clients.count, seen.clients.count), (1, 1));
    let missing = seen.responses.unwrap().rcodes[3];
    assert!((0.1..0.3).contains(&missing), "{missing}");
}

/// The profiles of dnstap and of the capture, of the same queries.
fn seen_by_knot_and_tcpdump() -> (Profile, Profile) {
    // Of what Knot cannot write at once it keeps 512 messages for each thread, and drops the rest.
    const COUNT: usize = 400;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let mut zone = "@ SOA a b 1 2 3 4 5\n@ NS a.example.net.\n".to_string();
    (0..500).for_each(|host| zone += &format!("h{host} A 192.0.2.{}\n", host % 250));
    std::fs::write(path("zone"), zone).unwrap();
    let port = servers::free_port();
    let mut command = Command::new("tcpdump");
    command
        // The kernel's ring has a slot of the longest packet for each: the slots are made short
        // and the ring large, so that a tcpdump that waits for a core loses nothing.
        .args(["-s", "16384", "-B", "65536"])
        .args(["-i", "lo", "-U", "--immediate-mode", "-Z", "root", "-w"])
        .arg(path("pcap"));
    command.arg(format!("port {port}"));
    let tcpdump = servers::start(&mut command);
    let end = Instant::now() + servers::PATIENCE;
    while std::fs::metadata(path("pcap")).map_or(0, |file| file.len()) < 24 {
        assert!(Instant::now() < end, "tcpdump does not listen");
        thread::sleep(Duration::from_millis(20));
    }
    let knot =
        servers::knot(directory.path(), "example.", &path("zone"), port, Some(&path("dnstap")));
    // Probes are of another type than what is compared: some came before Knot listened.
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let socket = servers::wait_for(address, b"\0\0\0\0\0\x01\0\0\0\0\0\0\x07example\0\0\x06\0\x01");
    let queries: Vec<Vec<u8>> = live_queries(COUNT);
    for query in &queries[..COUNT / 2] {
        socket.send(query).unwrap();
        socket.recv(&mut [0; 4096]).unwrap();
    }
    for pipeline in queries[COUNT / 2..].chunks(50) {
        let framed = pipeline
            .iter()
            .flat_map(|query| [&(query.len() as u16).to_be_bytes(), &query[..]].concat());
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(servers::PATIENCE)).unwrap();
        stream.write_all(&framed.collect::<Vec<u8>>()).unwrap();
        for _ in pipeline {
            let mut len = [0; 2];
            stream.read_exact(&mut len).unwrap();
            stream.read_exact(&mut vec![0; usize::from(u16::from_be_bytes(len))]).unwrap();
        }
    }
    // Both write behind the traffic: what they have written must have come to rest.
    let written = || ["pcap", "dnstap"].map(|name| std::fs::metadata(path(name)).unwrap().len());
    let mut before = [0; 2];
    while written() != before {
        before = written();
        thread::sleep(Duration::from_secs(1));
    }
    for (mut process, signal) in [(tcpdump, Signal::SIGINT), (knot, Signal::SIGTERM)] {
        kill(Pid::from_raw(process.0.id() as i32), signal).unwrap();
        process.0.wait().unwrap();
    }
    let of = |name: &str| {
        let mut learner = Learner::default();
        let skipped = read(&path(name), port, &mut |seen| {
            let probe = seen.message.get(12..21) == Some(b"\x07example\0");
            if !probe {
                learner.take(seen);
            }
        });
        let skipped = skipped.unwrap();
        assert_eq!((skipped.cut, skipped.streams_lost), (0, 0), "{name}");
        (learner.finish(&skipped), skipped)
    };
    let ((seen, skipped), (tapped, _)) = (of("pcap"), of("dnstap"));
    assert_eq!((seen.queries, skipped.connections), (COUNT as u64, COUNT as u64 / 100));
    (tapped, seen)
}

/// Questions for hosts of which a sixth does not exist, some with EDNS and DO.
fn live_queries(count: usize) -> Vec<Vec<u8>> {
    let mut random = Random::new(4);
    let query = |id| {
        let label = format!("h{}", random.below(600));
        let edns = random.below(2) as u8;
        let mut query = (id as u16).to_be_bytes().to_vec();
        query.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, edns, label.len() as u8]);
        query.extend(label.as_bytes());
        query.extend(b"\x07example\0\0\x01\0\x01");
        if edns == 1 {
            query.extend([0, 0, 41, 4, 208, 0, 0, (random.below(2) as u8) << 7, 0, 0, 0]);
        }
        query
    };
    (0..count).map(query).collect()
}
