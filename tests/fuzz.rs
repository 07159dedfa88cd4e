//! Octets and texts that nobody would write, at what reads them: names, questions, zone text.
//!
//! Each target mutates what lies in `tests/corpus/` for `RING53_FUZZ_SECONDS` (2) with a printed
//! seed. No target may panic or hang. What once did belongs into the corpus.

mod support;

use std::fs;
use std::time::{Duration, Instant};

use ring53::wire::query::read_query;
use ring53::wire::{LowerName, Name};
use ring53::zone::{HashKey, LoadOptions, Source, SourceText, Text, load};
use support::{Random, seed};

/// The corpus of all targets fits into so many octets.
const CORPUS_LEN_MAX: usize = 64 << 10;

/// What `target` starts from.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let mut files: Vec<_> =
        fs::read_dir(format!("tests/corpus/{target}")).unwrap().flatten().collect();
    files.sort_by_key(|file| file.path());
    let seeds: Vec<_> = files.iter().map(|file| fs::read(file.path()).unwrap()).collect();
    let len: usize = seeds.iter().map(Vec::len).sum();
    assert!(!seeds.is_empty() && len <= CORPUS_LEN_MAX, "{len} octets");
    seeds
}

/// One of them.
fn pick(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    seeds[random.below(seeds.len() as u64) as usize].clone()
}

/// Runs `target` again and again; how often.
fn fuzz(mut target: impl FnMut(&mut Random)) -> u64 {
    let seconds = std::env::var("RING53_FUZZ_SECONDS").ok().and_then(|n| n.parse().ok());
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(2));
    let (mut random, mut runs) = (Random(seed()), 0);
    while Instant::now() < end {
        target(&mut random);
        runs += 1;
    }
    println!("{runs} runs");
    runs
}

/// Changes some octets, drops and repeats some stretches.
fn mutate(random: &mut Random, octets: &mut Vec<u8>, favourites: &[u8]) {
    for _ in 0..1 + random.below(6) {
        if octets.is_empty() {
            return;
        }
        let at = random.below(octets.len() as u64) as usize;
        let end = (at + random.below(20) as usize).min(octets.len());
        match random.below(6) {
            0 => octets[at] ^= 1 << random.below(8),
            1 => octets[at] = random.below(256) as u8,
            2 => octets[at] = favourites[random.below(favourites.len() as u64) as usize],
            3 => drop(octets.drain(at..end)),
            4 => {
                let stretch = octets[at..end].to_vec();
                let to = random.below(octets.len() as u64) as usize;
                octets.splice(to..to, stretch);
            }
            _ => octets.insert(at, favourites[random.below(favourites.len() as u64) as usize]),
        }
    }
}

#[test]
fn questions() {
    let seeds = corpus("questions");
    let mut lower = LowerName::new();
    let (mut read, mut buffer) = (0u64, vec![0; 2048]);
    let runs = fuzz(|random| {
        let mut octets = pick(random, &seeds);
        mutate(random, &mut octets, &[0, 1, 3, 41, 63, 64, 0xC0, 0xFF]);
        octets.truncate(buffer.len());
        buffer[..octets.len()].copy_from_slice(&octets);
        // What lies in the buffer behind a query is another query's, and must not matter.
        let rest = random.below(256) as u8;
        buffer[octets.len()..].fill(rest);
        if let Ok(query) = read_query(&buffer, octets.len(), &mut lower) {
            read += 1;
            assert!(query.question_end <= octets.len(), "{octets:02x?}");
            let asked = &octets[12..query.question_end - 4];
            assert_eq!(lower.as_wire(), asked.to_ascii_lowercase(), "{octets:02x?}");
        }
    });
    assert!(read > runs / 20 && read < runs, "{read} of {runs} could be read");
}

#[test]
fn names() {
    let seeds = corpus("names");
    let mut lower = LowerName::new();
    let mut named = 0u64;
    fuzz(|random| {
        let mut octets = pick(random, &seeds);
        mutate(random, &mut octets, &[0, 1, 62, 63, 64, 0xC0, b'.', b'\\']);
        let at = random.below(octets.len() as u64 + 2) as usize;
        if lower.read_compressed(&octets, at).is_some() {
            let name = Name::from_wire(lower.as_wire()).expect("what could be read is a name");
            assert_eq!(name.to_string().parse::<Name>().as_ref(), Ok(&name), "{octets:02x?}");
            named += 1;
        }
        if let Ok(name) = Name::from_wire(&octets) {
            assert_eq!(lower.read(&octets), Some(octets.len()));
            assert_eq!(name.to_string().parse::<Name>(), Ok(name));
        }
        if let Ok(text) = std::str::from_utf8(&octets)
            && let Ok(name) = text.parse::<Name>()
        {
            assert_eq!(Name::from_wire(name.as_wire()), Ok(name));
        }
    });
    assert!(named > 100);
}

/// A text, and whether it is also what it includes.
struct Given(Vec<u8>, bool);

impl Source for Given {
    fn read(&self, path: &str, from: Option<&str>) -> Result<SourceText, String> {
        let itself = from.is_none() || self.1;
        let text = if itself { self.0.clone() } else { b"other A 192.0.2.3\n".to_vec() };
        Ok(SourceText { name: path.into(), text: Text::Bytes(text) })
    }
}

#[test]
fn zone_text() {
    let all = include_bytes!("zones/all-types.zone");
    let seeds = corpus("zone_text");
    let apex: Name = "example.".parse().unwrap();
    let (mut loaded, mut refused) = (0u64, 0u64);
    fuzz(|random| {
        let mut text = pick(random, &seeds);
        if random.below(2) == 0 {
            let lines: Vec<&[u8]> = all.split(|&octet| octet == b'\n').collect();
            for _ in 0..4 {
                text.extend(lines[random.below(lines.len() as u64) as usize]);
                text.push(b'\n');
            }
        }
        mutate(random, &mut text, b"\n\n \t\"();\\$@.0-{}IN\xFF\0");
        let threads = 1 + random.below(2) as usize;
        let options = LoadOptions::new(HashKey::new(*b"0123456789abcdef"), threads);
        let source = Given(text.clone(), random.below(8) == 0);
        let outcome = load(&apex, "zone", &source, &options);
        if outcome.zone.is_some() {
            loaded += 1;
        } else {
            refused += 1;
            let shown = text.escape_ascii();
            assert!(!outcome.diagnostics.is_empty(), "refused without a word: {shown}");
        }
    });
    assert!(loaded > 0 && refused > 0, "{loaded} loaded, {refused} refused");
}
