use super::*;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

/// A sequence that looks random.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let word = (self.0 ^ self.0 >> 33).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        (word ^ word >> 29) % end
    }
}

fn hash_of(key: u64) -> u64 {
    let product = u128::from(key ^ 0x1234_5678_9ABC_DEF1) * 0x9E37_79B9_7F4A_7C15_u128;
    product as u64 ^ (product >> 64) as u64
}

/// Octets that say whose they are, in every place.
fn fill(octets: &mut [u8], key: u64, version: u64) {
    octets[..8].copy_from_slice(&key.to_le_bytes());
    octets[8..16].copy_from_slice(&version.to_le_bytes());
    octets[16..].fill((key ^ version) as u8);
}

fn is_of(octets: &[u8], key: u64) -> bool {
    octets[..8] == key.to_le_bytes()
}

/// The version, if the octets are one entry's.
fn version_of(octets: &[u8], key: u64) -> u64 {
    let version = u64::from_le_bytes(octets[8..16].try_into().unwrap());
    assert!(is_of(octets, key));
    assert!(octets[16..].iter().all(|&octet| octet == (key ^ version) as u8), "torn");
    version
}

fn insert(writer: &mut StoreWriter<'_>, key: u64, version: u64, len: usize) -> bool {
    let item = Item { hash: hash_of(key), len, insists: false };
    let is_over = &|_: &[u8]| false;
    writer.insert(item, |octets| fill(octets, key, version), |it| is_of(it, key), is_over)
}

#[test]
fn what_was_stored_last_is_found_or_nothing() {
    for seed in 1..6 {
        let mut random = Random(seed);
        let store = Store::new(MEMORY_MIN, 1).unwrap();
        let mut reader = store.reader().unwrap();
        let mut stored: HashMap<u64, u64> = HashMap::new();
        for version in 0..60_000 {
            let key = random.below(20_000);
            match random.below(10) {
                0 => {
                    let removed = store.write().remove(hash_of(key), |it| is_of(it, key));
                    assert!(!removed || stored.contains_key(&key), "seed {seed}");
                    stored.remove(&key);
                }
                1..=6 => {
                    let len = 16 + random.below(if version % 500 == 0 { 60_000 } else { 600 });
                    assert!(insert(&mut store.write(), key, version, len as usize));
                    stored.insert(key, version);
                }
                _ => {
                    let pin = reader.pin();
                    if let Some(found) = pin.find(hash_of(key), |it| is_of(it, key)) {
                        let version = version_of(found.octets, key);
                        assert_eq!(stored.get(&key), Some(&version), "seed {seed}");
                    }
                }
            }
        }
        let mut writer = store.write();
        let counts = writer.counts();
        assert!(counts.evicted > 1000 && counts.kept > 100, "{counts:?}");
        let (mut entries, mut octets) = (0, 0);
        writer.for_each(|it| {
            (entries, octets) = (entries + 1, octets + entry_len(it.len()) as u64);
            Keep::Yes
        });
        assert_eq!((entries, octets), (counts.entries, counts.octets));
        let gone = writer.for_each(|_| Keep::No);
        let counts = writer.counts();
        assert_eq!((gone, counts.entries, counts.octets), (entries, 0, 0));
    }
}

#[test]
fn what_is_used_outlives_what_is_not() {
    let store = Store::new(MEMORY_MIN, 1).unwrap();
    let mut reader = store.reader().unwrap();
    (0..1000).for_each(|key| assert!(insert(&mut store.write(), key, 1, 100)));
    let mut found = [0, 0];
    for key in 1000..200_000 {
        assert!(insert(&mut store.write(), key, 1, 100));
        let pin = reader.pin();
        let popular = key % 500;
        pin.find(hash_of(popular), |it| is_of(it, popular));
    }
    let pin = reader.pin();
    for key in 0..1000 {
        let is_there = pin.find(hash_of(key), |it| is_of(it, key)).is_some();
        found[usize::from(key >= 500)] += usize::from(is_there);
    }
    assert!(found[0] > 480 && found[1] < 20, "{found:?}");
}

/// What is asked again and again stays, however much comes that is asked for once: where room is
/// short, and where words are.
#[test]
fn a_flood_takes_the_room_of_its_own_kind() {
    for (len, share) in [(100, 0.55), (16, 0.75)] {
        let store = Store::new(MEMORY_MIN, 2).unwrap();
        let mut reader = store.reader().unwrap();
        // Whoever waits for an answer is given it once.
        let mut beside = store.reader().unwrap().unnoticed();
        let room = store.segments * store.segment_len / entry_len(len);
        let popular = (room.min(store.buckets * WORDS) as f64 * share) as u64;
        (0..popular).for_each(|key| assert!(insert(&mut store.write(), key, 1, len)));
        let mut next = 0;
        for key in popular..popular * 20 {
            assert!(insert(&mut store.write(), key, 1, len));
            if let Some(found) = beside.pin().find(hash_of(key), |it| is_of(it, key)) {
                assert_eq!(version_of(found.octets, key), 1);
            }
            let pin = reader.pin();
            for _ in 0..6 {
                pin.find(hash_of(next), |it| is_of(it, next));
                next = (next + 1) % popular;
            }
        }
        let pin = reader.pin();
        let left =
            (0..popular).filter(|&key| pin.find(hash_of(key), |it| is_of(it, key)).is_some());
        let left = left.count() as u64;
        assert!(left >= popular * 97 / 100, "{left} of {popular} are left");
    }
}

/// Where a good part of each segment is used and the rest is not, one entry makes no more room than
/// it needs, and writing ends also if all that was written again is used at once.
#[test]
fn making_room_ends() {
    for (len, every) in [(100, 2), (2000, 2), (30_000, 2), (ENTRY_LEN_MAX, 1), (90_000, 1)] {
        let store = Store::new(MEMORY_MIN, 1).unwrap();
        let mut reader = store.reader().unwrap();
        let count = 4 * (store.segments * store.segment_len / len) as u64;
        for key in 0..count {
            let kept = store.write().counts().kept;
            assert!(insert(&mut store.write(), key, 1, len), "{len} octets");
            let kept = store.write().counts().kept - kept;
            // No more than is in twice as many segments as are visited for one.
            assert!(kept <= (2 * 8 * store.segment_len / entry_len(len)) as u64, "{kept}");
            let pin = reader.pin();
            let from = key.saturating_sub(count / 8);
            for key in (from..=key).filter(|key| key % every == 0).take(64) {
                pin.find(hash_of(key), |it| is_of(it, key));
            }
            pin.find(hash_of(key / every * every), |it| is_of(it, key / every * every));
        }
        let counts = store.write().counts();
        assert!(counts.evicted > 0 && counts.refused == 0, "{counts:?}");
    }
}

/// However many entries a segment has, a new one waits for a few of them.
#[test]
fn room_is_made_some_entries_at_a_time() {
    for (memory, every) in [(8 << 20, 0), (8 << 20, 2), (64 << 20, 0), (64 << 20, 1)] {
        let store = Store::new(memory, 1).unwrap();
        let mut reader = store.reader().unwrap();
        let count = 3 * (store.segments * store.segment_len / entry_len(100)) as u64;
        let (mut looked_at, mut most) = (0, 0);
        for key in 0..count {
            assert!(insert(&mut store.write(), key, 1, 100));
            let now = store.write().log.looked_at;
            (looked_at, most) = (now, most.max(now - looked_at));
            let used = [0, key, key / 2 * 2][every];
            reader.pin().find(hash_of(used), |it| is_of(it, used));
        }
        assert!(most <= 16 && looked_at > 0, "{most} of {looked_at} at once");
        assert!(store.write().counts().evicted > 1000);
    }
}

/// Much that is written again while long entries come leaves room for them, whatever the order.
#[test]
fn what_is_kept_takes_nobody_s_room() {
    for (short, long) in [(100, 3000), (100, 2000), (100, 4000), (60, 2000), (60, 5000)] {
        let store = Store::new(MEMORY_MIN, 1).unwrap();
        let mut reader = store.reader().unwrap();
        let room = (store.segments * store.segment_len / entry_len(short)) as u64;
        (0..room).for_each(|key| assert!(insert(&mut store.write(), key, 1, short)));
        let mut random = Random(long as u64);
        for key in room..room + 20_000 {
            assert!(insert(&mut store.write(), key, 1, long), "{key} of {short} and {long}");
            let pin = reader.pin();
            for _ in 0..400 {
                // Seven of ten, all the time.
                let key = random.below(room) / 10 * 10 + random.below(7);
                pin.find(hash_of(key), |it| is_of(it, key));
            }
        }
        assert_eq!(store.write().counts().refused, 0);
    }
}

#[test]
fn nearly_every_word_can_be_used() {
    let store = Store::new(MEMORY_MIN, 1).unwrap();
    let mut reader = store.reader().unwrap();
    let words = (store.buckets * WORDS) as u64;
    // Short entries, so that there is room for all of them.
    let keys = || 0..words * 19 / 20;
    keys().for_each(|key| assert!(insert(&mut store.write(), key, 1, 16)));
    let counts = store.write().counts();
    assert_eq!(counts.evicted, 0);
    assert!(counts.crowded < words / 500, "{counts:?} of {words}");
    let pin = reader.pin();
    let found = keys().filter(|&key| {
        let found = pin.find(hash_of(key), |it| is_of(it, key));
        found.is_some_and(|found| version_of(found.octets, key) == 1)
    });
    assert_eq!(found.count() as u64, counts.entries);
}

/// Entries that come while others are taken out, step by step, move none of those out of the way.
#[test]
fn a_walk_sees_every_entry_that_was_there() {
    let store = Store::new(MEMORY_MIN, 1).unwrap();
    let before = (store.buckets * WORDS) as u64;
    (0..before).for_each(|key| assert!(insert(&mut store.write(), key, 1, 16)));
    let walk = store.walk();
    let steps = store.write().steps();
    assert!(steps > 1);
    for step in 0..steps {
        store.write().for_each_of(step, |octets| {
            let key = u64::from_le_bytes(octets[..8].try_into().unwrap());
            if key < before { Keep::No } else { Keep::Yes }
        });
        let own = before * (1 + step as u64);
        (own..own + before / 4).for_each(|key| assert!(insert(&mut store.write(), key, 1, 16)));
    }
    drop(walk);
    let mut left = 0;
    store.write().for_each(|octets| {
        left += u64::from(u64::from_le_bytes(octets[..8].try_into().unwrap()) < before);
        Keep::Yes
    });
    assert_eq!(left, 0);
}

#[test]
fn an_entry_is_claimed_once() {
    let store = Store::new(MEMORY_MIN, 2).unwrap();
    let (mut one, mut two) = (store.reader().unwrap(), store.reader().unwrap());
    insert(&mut store.write(), 7, 1, 100);
    let (one, two) = (one.pin(), two.pin());
    let find = |pin: &StorePin<'_>| {
        pin.find(hash_of(7), |it| is_of(it, 7)).is_some_and(|found| found.claim())
    };
    assert!(find(&one) && !find(&two) && !find(&one));
    let before = one.find(hash_of(7), |it| is_of(it, 7)).unwrap();
    insert(&mut store.write(), 7, 2, 100);
    assert!(!before.claim(), "the word is another entry's");
    assert!(find(&two) && !find(&one));
    assert!(store.reader().is_none());
}

/// A reader that goes on keeps memory from being used again, and nothing waits for it.
#[test]
fn a_pinned_entry_stays_as_it_is() {
    let store = Store::new(MEMORY_MIN, 1).unwrap();
    let mut reader = store.reader().unwrap();
    insert(&mut store.write(), 1, 1, 5000);
    let pin = reader.pin();
    let found = pin.find(hash_of(1), |it| is_of(it, 1)).unwrap();
    let mut taken = 0;
    for key in 2..20_000 {
        taken += u32::from(insert(&mut store.write(), key, 1, 5000));
        assert_eq!(version_of(found.octets, 1), 1);
    }
    assert!(store.write().counts().refused > 0 && taken > 100);
    drop(pin);
    assert!(insert(&mut store.write(), 1, 2, 5000));
}

#[test]
fn readers_see_whole_entries_while_the_writer_goes_round() {
    let store = Store::new(MEMORY_MIN, 2).unwrap();
    let stop = AtomicBool::new(false);
    let seen = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let mut reader = store.reader().unwrap();
            let (stop, seen) = (&stop, &seen);
            scope.spawn(move || {
                let mut random = Random(seed);
                while !stop.load(Ordering::Relaxed) {
                    let pin = reader.pin();
                    for _ in 0..64 {
                        let key = random.below(3000);
                        if let Some(found) = pin.find(hash_of(key), |it| is_of(it, key)) {
                            version_of(found.octets, key);
                            seen.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
        let mut random = Random(9);
        // Readers that have lost their core hold segments, so how many it takes is not known.
        for version in 0..3_000_000 {
            let (key, len) = (random.below(3000), 16 + random.below(4000) as usize);
            insert(&mut store.write(), key, version, len);
            if version > 50_000 && store.write().counts().evicted > 1000 {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(seen.load(Ordering::Relaxed) > 0);
    assert!(store.write().counts().evicted > 1000);
}

#[test]
fn what_is_over_gives_way_first() {
    let store = Store::new(MEMORY_MIN, 1).unwrap();
    let mut writer = store.write();
    // All in the same two buckets.
    let hash = hash_of(77);
    let put = |writer: &mut StoreWriter<'_>, key: u64| {
        let item = Item { hash, len: 16, insists: false };
        let is_over = &|it: &[u8]| is_of(it, 11);
        writer.insert(item, |octets| fill(octets, key, 0), |it| is_of(it, key), is_over)
    };
    (0..17).for_each(|key| assert!(put(&mut writer, key)));
    let is_there = |key: u64| writer.get(hash, |it| is_of(it, key)).is_some();
    assert!(!is_there(11) && (0..17).filter(|&key| is_there(key)).count() == 16);
    assert_eq!(writer.counts().crowded, 1);
}

/// What lies behind what was written is there before it is written, and not much more.
#[test]
fn memory_is_cleared_ahead() {
    let store = Store::new(32 << 20, 1).unwrap();
    let cleared = || store.cleared.load(Ordering::Relaxed);
    let mut written = 0;
    for key in 0..2 * (store.memory() / 10_000) as u64 {
        while store.clear_ahead() {}
        let reached = store.reached.load(Ordering::Relaxed);
        let wanted = (reached + CLEARED_AHEAD).min(store.memory());
        // A kernel that refuses has nothing cleared ahead.
        let is_little = cleared() <= wanted + HUGE_PAGE_LEN || cleared() == store.memory();
        assert!(key == 0 || cleared() >= wanted && is_little, "at {written}");
        assert!(insert(&mut store.write(), key, 1, 10_000));
        written += 10_000;
    }
    assert_eq!(cleared(), store.memory());
}
