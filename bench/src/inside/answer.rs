//! Parse, lookup and emit in process: nanoseconds per query, allocations, and beside them what the
//! memory alone costs.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use ring53::answer::{CoreState, Counters, Exchange, Transport, Verdict, answer_batch};
use ring53::memory::{Region, prefetch};
use ring53::snapshot::{Identity, Snapshot, ZoneState};
use ring53::wire::Name;
use ring53::zone::{HashKey, LoadOptions, Loaded, Source, SourceText, Text, Zone, load};

use crate::zones::queries::{Random, query};
use crate::zones::{HOSTING_ZONES, Shape, apex, write_hosting, write_one};

/// Counts allocations.
pub struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY:
// - Every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY:
        // - The caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY:
        // - The caller keeps the contract of `GlobalAlloc::dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The text of a zone, from nowhere.
pub(super) struct Memory(pub(super) Vec<u8>);

impl Source for Memory {
    fn read(&self, path: &str, _: Option<&str>) -> Result<SourceText, String> {
        Ok(SourceText { name: path.into(), text: Text::Bytes(self.0.clone()) })
    }
}

const BATCH: usize = 64;
/// A batch as a core at half its load sees it, and the octets that the kernel's work on it drives
/// through the caches in between.
const DISTURBED_BATCH: usize = 27;
const DISTURBANCE: usize = 512 << 10;
const BUFFER: usize = 1232;

/// Measures `count` queries over a zone of `names`.
pub fn run(shape: Shape, names: u64, count: u64) -> io::Result<()> {
    let key = HashKey::new(*b"a fixed secret..");
    let zones = if shape == Shape::Hosting {
        load_hosting(names, key)?
    } else {
        vec![load_one(shape, names, key)?]
    };
    let name_count: usize = zones.iter().map(|zone| zone.name_count()).sum();
    let memory_len: usize = zones.iter().map(|zone| zone.memory_len()).sum();
    println!("{} zones, {name_count} names, {} MiB", zones.len(), memory_len >> 20);
    let zones = zones
        .into_iter()
        .map(|zone| (zone.apex().clone(), ZoneState::Serving(Arc::new(zone))))
        .collect();
    let snapshot = Snapshot::new(1, key, Identity::default(), zones);
    let queries = queries(shape, names, count)?;
    measure(&snapshot, &queries, BATCH, 0);
    measure(&snapshot, &queries, DISTURBED_BATCH, DISTURBANCE);
    memory_alone(memory_len, count);
    Ok(())
}

/// Loads one large zone, on one thread and on two.
fn load_one(shape: Shape, names: u64, key: HashKey) -> io::Result<Zone> {
    let mut text = Vec::new();
    write_one(shape, names, &mut text)?;
    let megabytes = text.len() as f64 / 1e6;
    let apex: Name = apex(shape).parse().map_err(io::Error::other)?;
    let source = Memory(text);
    for threads in [1, 2] {
        let started = Instant::now();
        let loaded = load(&apex, "zone", &source, &LoadOptions::new(key, threads));
        let seconds = started.elapsed().as_secs_f64();
        println!("load {threads} threads: {seconds:.3} s, {:.0} MB/s", megabytes / seconds);
        drop(loaded);
    }
    one(load(&apex, "zone", &source, &LoadOptions::new(key, 2)))
}

fn load_hosting(names: u64, key: HashKey) -> io::Result<Vec<Zone>> {
    let load_zone = |zone| {
        let mut text = Vec::new();
        write_hosting(zone, names, &mut text)?;
        let apex: Name = format!("z{zone}.test.").parse().map_err(io::Error::other)?;
        one(load(&apex, "zone", &Memory(text), &LoadOptions::new(key, 1)))
    };
    (0..HOSTING_ZONES).map(load_zone).collect()
}

fn one(loaded: Loaded) -> io::Result<Zone> {
    loaded.zone.ok_or_else(|| io::Error::other(format!("{:?}", loaded.diagnostics)))
}

/// Queries in wire form, 64 octets apart at least: as a ring of buffers would hold them.
fn queries(shape: Shape, names: u64, count: u64) -> io::Result<Vec<Vec<u8>>> {
    let mut random = Random::new(7);
    (0..count.min(1 << 20))
        .map(|id| {
            let (name, rtype) = query(shape, names, &mut random);
            let name: Name = name.parse().map_err(io::Error::other)?;
            let rtype = match rtype {
                "A" => 1u16,
                "AAAA" => 28,
                "MX" => 15,
                "NS" => 2,
                "TXT" => 16,
                "SRV" => 33,
                _ => 12,
            };
            let mut message = (id as u16).to_be_bytes().to_vec();
            message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
            message.extend(name.as_wire());
            message.extend(rtype.to_be_bytes());
            message.extend([0, 1, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
            Ok(message)
        })
        .collect()
}

fn measure(snapshot: &Snapshot, queries: &[Vec<u8>], batch_len: usize, disturbance: usize) {
    let mut disturbed = vec![0u8; disturbance];
    let mut core = CoreState::new(Arc::new(Counters::default()));
    let mut buffers = vec![[0u8; BUFFER]; BATCH];
    let mut best = f64::MAX;
    let mut allocations = 0;
    for _round in 0..5 {
        let mut busy = Duration::ZERO;
        for batch in queries.chunks_exact(batch_len) {
            disturbed.iter_mut().step_by(64).for_each(|octet| *octet = octet.wrapping_add(1));
            for (buffer, query) in buffers.iter_mut().zip(batch) {
                buffer[..query.len()].copy_from_slice(query);
            }
            let mut slots = buffers.iter_mut().zip(batch).map(|(buffer, query)| Exchange {
                buffer,
                query_len: query.len(),
                transport: Transport::Datagram,
                client: 0,
                verdict: Verdict::Reply(0),
            });
            let mut exchanges = ArrayVec::<Exchange<'_>, BATCH>::new();
            exchanges.extend(slots.by_ref());
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            let started = Instant::now();
            answer_batch(snapshot, Duration::ZERO, &mut core, &mut exchanges);
            busy += started.elapsed();
            allocations += ALLOCATIONS.load(Ordering::Relaxed) - before;
        }
        let asked = queries.len() / batch_len * batch_len;
        best = best.min(busy.as_nanos() as f64 / asked as f64);
    }
    println!(
        "answer: {best:.1} ns per query in batches of {batch_len}, {} KiB of other work between \
         them (best of 5), {allocations} allocations",
        disturbance >> 10
    );
    if disturbance > 0 {
        return;
    }
    let counts: Vec<String> = core
        .counters
        .iter()
        .filter(|(_, _, count)| *count > 0)
        .map(|(kind, name, count)| format!("{kind}.{name}={count}"))
        .collect();
    println!("verdicts: {}", counts.join(" "));
}

/// Three prefetched random accesses per query over as much memory as the zone may have.
fn memory_alone(len: usize, count: u64) {
    let Ok(mut region) = Region::new(len.max(1 << 20)) else { return };
    region.iter_mut().step_by(4096).for_each(|octet| *octet = 1);
    let mut random = Random::new(3);
    let mut sum = 0u64;
    let places: Vec<usize> =
        (0..BATCH * 3 * 64).map(|_| random.below(region.len() as u64) as usize).collect();
    let mut busy = Duration::ZERO;
    let rounds = count as usize / BATCH;
    let mut moved = vec![0usize; BATCH * 3];
    for round in 0..rounds {
        let start = round % 64 * BATCH * 3;
        let shift = random.below(region.len() as u64) as usize;
        for (to, from) in moved.iter_mut().zip(&places[start..start + BATCH * 3]) {
            *to = (from + shift) % region.len();
        }
        let started = Instant::now();
        for step in moved.chunks_exact(BATCH) {
            step.iter().for_each(|&place| prefetch(&region, place));
            step.iter().for_each(|&place| sum += u64::from(region[place]));
        }
        busy += started.elapsed();
    }
    let ns = busy.as_nanos() as f64 / (rounds * BATCH) as f64;
    println!("memory alone: {ns:.1} ns for 3 prefetched accesses over {} MiB ({sum})", len >> 20);
}
