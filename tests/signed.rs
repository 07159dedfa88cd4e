//! Random signed zones in process: mutated questions, alone and in batches, and the zones' records
//! written as text and read again. Runs for `RING53_FUZZ_SECONDS` (4) with a printed seed.

mod support;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ring53::answer::{CoreState, Counters, Exchange, Transport, Verdict, answer_batch};
use ring53::snapshot::{Identity, Snapshot, ZoneState};
use ring53::wire::{Name, rtype};
use ring53::zone::records::Expanded;
use ring53::zone::text::write_rdata;
use ring53::zone::{Denial, HashKey, LoadOptions, Source, SourceText, Text, Zone, load};
use support::random_zone::{RandomZone, Signing, sign};
use support::{Random, query, seed};

const KEY: [u8; 16] = *b"a secret of test";
const ZONES: u64 = 12;
const BATCH: usize = 16;
const BUFFER: usize = 4352;

struct Given(Vec<u8>);

impl Source for Given {
    fn read(&self, path: &str, _: Option<&str>) -> Result<SourceText, String> {
        Ok(SourceText { name: path.into(), text: Text::Bytes(self.0.clone()) })
    }
}

fn read(apex: &str, text: Vec<u8>) -> Zone {
    let options = LoadOptions::new(HashKey::new(KEY), 1);
    let loaded = load(&apex.parse().unwrap(), "zone", &Given(text), &options);
    loaded.zone.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics))
}

/// Zones of every kind of signing in turn.
fn zones(random: &mut Random) -> Vec<(RandomZone, Zone)> {
    let directory = tempfile::tempdir().unwrap();
    (0..ZONES)
        .map(|i| {
            let zone = RandomZone::new(random, &format!("z{i}.test."));
            let signing = match i % 4 {
                0 => Signing::Nsec,
                1 => Signing::Nsec3(0, 0, false),
                2 => Signing::Nsec3(2, 5, true),
                _ => Signing::None,
            };
            let file = zone.signed(random, directory.path(), signing);
            let read = read(&zone.apex, fs::read(file).unwrap());
            let expected = matches!(
                (signing, read.denial()),
                (Signing::None, Denial::Unsigned)
                    | (Signing::Nsec, Denial::Nsec(_))
                    | (Signing::Nsec3(..), Denial::Nsec3(_))
            );
            assert!(expected, "{signing:?}");
            (zone, read)
        })
        .collect()
}

fn seconds() -> Duration {
    let seconds = std::env::var("RING53_FUZZ_SECONDS").ok().and_then(|n| n.parse().ok());
    Duration::from_secs(seconds.unwrap_or(4))
}

//----------- Answers --------------------------------------------------------

fn mutate(random: &mut Random, octets: &mut Vec<u8>) {
    for _ in 0..random.below(8).saturating_sub(4) {
        let at = random.below(octets.len() as u64) as usize;
        match random.below(4) {
            0 => octets[at] ^= 1 << random.below(8),
            1 => octets[at] = random.below(256) as u8,
            2 => octets.insert(at, b'a' + random.below(26) as u8),
            _ => octets.truncate(at.max(1)),
        }
    }
}

fn one(random: &mut Random, zones: &[(RandomZone, Zone)]) -> Vec<u8> {
    let types = [1, 2, 5, 6, 15, 16, 28, 33, 39, 43, 46, 47, 48, 50, 51, 255, 65280];
    let zone = &zones[random.below(zones.len() as u64) as usize].0;
    let name = zone.asked(random, 1).pop().unwrap();
    let name = name.parse::<Name>().map_or_else(|_| vec![0], |name| name.as_wire().to_vec());
    let size = [0, 512, 700, 1232, 4096, 65535][random.below(6) as usize];
    let edns = if random.below(8) == 0 { None } else { Some((size, random.below(4) > 0)) };
    let rtype = types[random.below(types.len() as u64) as usize];
    let mut octets = query(random.below(65536) as u16, &name, rtype, edns);
    mutate(random, &mut octets);
    octets
}

fn answers(snapshot: &Snapshot, core: &mut CoreState, queries: &[Vec<u8>]) -> Vec<Option<Vec<u8>>> {
    answers_over(Transport::Datagram, snapshot, core, queries)
}

fn answers_over(
    transport: Transport,
    snapshot: &Snapshot,
    core: &mut CoreState,
    queries: &[Vec<u8>],
) -> Vec<Option<Vec<u8>>> {
    let room = if transport.is_stream() { 65535 } else { BUFFER };
    let mut buffers = vec![vec![0u8; room]; queries.len()];
    let mut exchanges: Vec<Exchange<'_>> = buffers
        .iter_mut()
        .zip(queries)
        .map(|(buffer, query)| {
            buffer[..query.len()].copy_from_slice(query);
            Exchange {
                buffer,
                query_len: query.len(),
                transport,
                client: 0,
                verdict: Verdict::Reply(0),
            }
        })
        .collect();
    answer_batch(snapshot, Duration::ZERO, core, &mut exchanges);
    let verdicts: Vec<Verdict> = exchanges.iter().map(|exchange| exchange.verdict).collect();
    verdicts
        .into_iter()
        .zip(buffers)
        .map(|(verdict, buffer)| match verdict {
            Verdict::Reply(len) => Some(buffer[..len].to_vec()),
            _ => None,
        })
        .collect()
}

/// A pointer reaches 16 KiB far (RFC 1035, 4.1.4): signatures past that have their owner written
/// out.
#[test]
fn proofs_past_the_reach_of_pointers_are_whole() {
    let strings = format!("\"{}\" ", "x".repeat(255)).repeat(100);
    let text = format!(
        "$ORIGIN t.test.\n$TTL 60\n@ SOA ns h 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\n\
         *.big TXT {strings}\na.big A 192.0.2.2\n"
    );
    let zone = RandomZone { apex: "t.test.".into(), text, names: Vec::new() };
    for signing in [Signing::Nsec, Signing::Nsec3(0, 0, false)] {
        let directory = tempfile::tempdir().unwrap();
        let file = sign(&zone, directory.path(), signing, "ED25519", "-");
        let read = read("t.test.", fs::read(file).unwrap());
        let zones = vec![(read.apex().clone(), ZoneState::Serving(Arc::new(read)))];
        let snapshot = Snapshot::new(1, HashKey::new(KEY), Identity::default(), zones);
        let mut core = CoreState::new(Arc::new(Counters::default()));
        let name: Name = "x.big.t.test.".parse().unwrap();
        let query = query(1, name.as_wire(), rtype::TXT, Some((4096, true)));
        let replies = answers_over(Transport::Stream { idle: 0 }, &snapshot, &mut core, &[query]);
        let message = hickory_proto::op::Message::from_vec(replies[0].as_ref().unwrap()).unwrap();
        assert!(!message.truncated() && message.answers().len() == 2, "{signing:?}");
        let proofs = message.name_servers();
        assert_eq!(proofs.len(), 2, "{signing:?}: {proofs:?}");
        assert_eq!(proofs[0].name(), proofs[1].name(), "{signing:?}");
        assert_eq!(u16::from(proofs[1].record_type()), rtype::RRSIG, "{signing:?}");
    }
}

#[test]
fn signed_answers_are_whole_and_the_same_in_a_batch_as_alone() {
    let mut random = Random(seed());
    let zones = zones(&mut random);
    let held = zones.iter().map(|(_, zone)| {
        let text = text_of(zone);
        let again = read(&zone.apex().to_string(), text.into_bytes());
        (zone.apex().clone(), ZoneState::Serving(Arc::new(again)))
    });
    let identity = Identity { answer_size_max: 4096, ..Identity::default() };
    let snapshot = Snapshot::new(1, HashKey::new(KEY), identity, held.collect());
    let mut core = CoreState::new(Arc::new(Counters::default()));
    let (end, mut asked) = (Instant::now() + seconds(), 0u64);
    while Instant::now() < end {
        let queries: Vec<_> = (0..BATCH).map(|_| one(&mut random, &zones)).collect();
        let together = answers(&snapshot, &mut core, &queries);
        for (query, together) in queries.iter().zip(together) {
            asked += 1;
            let alone = answers(&snapshot, &mut core, std::slice::from_ref(query)).pop().unwrap();
            assert_eq!(alone, together, "{query:02x?}");
            let Some(reply) = alone else { continue };
            assert!(reply.len() <= 4096, "{}: {query:02x?}", reply.len());
            hickory_proto::op::Message::from_vec(&reply)
                .unwrap_or_else(|error| panic!("{error}: {query:02x?}\n{reply:02x?}"));
        }
    }
    println!("{asked} questions");
    assert!(asked > 1000);
}

/// The lines of a zone signed with one key and NSEC3.
fn chain(directory: &Path, zone: &RandomZone, iterations: u64, salt: &str) -> Vec<String> {
    let signing = Signing::Nsec3(iterations, salt.len() / 2, false);
    let from = sign(zone, directory, signing, "ED25519", salt);
    let to = directory.join("lines");
    let mut command = Command::new("named-compilezone");
    command.args(["-q", "-i", "none", "-s", "full", "-o"]).arg(&to).arg(&zone.apex).arg(&from);
    assert!(command.status().unwrap().success());
    fs::read_to_string(to).unwrap().lines().map(|line| line.replace('\t', " ")).collect()
}

/// As during a change of parameters: the chain with fewer iterations serves, alone; the other is
/// kept. A third one is not announced and does not.
#[test]
fn of_several_chains_one_serves() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let text = "$ORIGIN t.test.\n$TTL 60\n@ SOA ns h 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\n\
                a.b A 192.0.2.2\n*.w A 192.0.2.3\n";
    let zone = RandomZone { apex: "t.test.".into(), text: text.into(), names: Vec::new() };
    let mut lines = chain(directory, &zone, 3, "aabb");
    let is_chain = |line: &&String| line.contains("NSEC3 ");
    let other = chain(directory, &zone, 1, "ccdd");
    lines.extend(other.iter().filter(is_chain).cloned());
    lines.extend(other.iter().filter(|line| line.contains("NSEC3PARAM ")).cloned());
    lines.extend(chain(directory, &zone, 0, "eeff").iter().filter(is_chain).cloned());
    // More parameters than are told apart: theirs are not taken for another's.
    const STRAY: usize = 40;
    for i in 0..STRAY {
        let label = format!("{i:02}").repeat(16);
        lines.push(format!("{label}.t.test. 60 IN NSEC3 1 0 9 {i:02x} {label} A"));
    }
    let zone = read("t.test.", (lines.join("\n") + "\n").into_bytes());
    let Denial::Nsec3(chain) = zone.denial() else { panic!("not hashed") };
    assert_eq!((chain.params().iterations, &*chain.params().salt), (1, &b"\xcc\xdd"[..]));
    let of_chain = other.iter().filter(|line| line.contains(" NSEC3 1 ")).count();
    assert_eq!(chain.len(), of_chain);
    assert_eq!(zone.blocks().count(), 3 * of_chain + STRAY);
    let apex = zone.apex().clone();
    let zones = vec![(apex, ZoneState::Serving(Arc::new(zone)))];
    let snapshot = Snapshot::new(1, HashKey::new(KEY), Identity::default(), zones);
    let mut core = CoreState::new(Arc::new(Counters::default()));
    for name in ["x.t.test.", "x.w.t.test.", "b.t.test."] {
        let name: Name = name.parse().unwrap();
        let query = query(1, name.as_wire(), rtype::MX, Some((4096, true)));
        let reply = answers(&snapshot, &mut core, &[query]).pop().unwrap().unwrap();
        let message = hickory_proto::op::Message::from_vec(&reply).unwrap();
        let proofs: Vec<_> = message
            .name_servers()
            .iter()
            .filter(|record| u16::from(record.record_type()) == rtype::NSEC3)
            .map(|record| record.data().to_string().to_lowercase())
            .collect();
        assert!(!proofs.is_empty() && proofs.iter().all(|proof| proof.contains(" 1 ccdd ")));
    }
}

//----------- Records --------------------------------------------------------

/// Everything in a zone, in an order of its own.
type Records = BTreeMap<(String, u16), Vec<Expanded>>;

fn records(zone: &Zone) -> Records {
    let mut records = Records::new();
    for set in zone.rrsets() {
        let owner = Name::from_wire(set.owner.as_wire()).unwrap().to_string();
        let mut add = |kind, list: &[Expanded]| {
            records.entry((owner.clone(), kind)).or_default().extend_from_slice(list);
        };
        add(set.rtype, &set.records);
        add(rtype::RRSIG, &set.signatures);
    }
    records.retain(|_, list| !list.is_empty());
    records.values_mut().for_each(|list| list.sort());
    records
}

/// The zone as text, RDATA in the form of RFC 3597.
fn text_of(zone: &Zone) -> String {
    let mut text = String::new();
    for ((owner, number), list) in records(zone) {
        for record in list {
            let (ttl, kind, rdata) = (record.ttl, rtype::name(number), &record.rdata);
            writeln!(text, "{owner} {ttl} IN {kind} {}", write_rdata(number, rdata)).unwrap();
        }
    }
    text
}

#[test]
fn records_come_back_from_text() {
    let mut random = Random(seed());
    for (zone, read_once) in zones(&mut random) {
        let text = text_of(&read_once);
        let read_again = read(&zone.apex, text.clone().into_bytes());
        assert_eq!(records(&read_once), records(&read_again), "{text}");
        assert_eq!(read_once.record_count(), read_again.record_count(), "{}", zone.apex);
    }
}
