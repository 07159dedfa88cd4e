//! The answers of others, held for as long as they said: read by the cores without waiting.
//!
//! ```text
//!   question ──hash──> store ──> entry ──> copied behind the question, TTLs less its age
//!   response ──> Prepared ──> store            what holds it: fixed memory (`memory::store`)
//! ```
//!
//! An entry is one whole answer under name, type, DO and CD; class IN only. It is fresh for its
//! TTL, and kept for some time more, to be served stale (RFC 8767) when nobody else answers.

pub mod dump;
pub mod entry;
mod prepared;

pub use entry::{Entry, Key, flag};
pub use prepared::{Aside, Prepared, TtlBounds, Unusable, expand_rdata};

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::limits::{CACHE_FAILURE_MAX, CACHE_MEMORY_MIN};
use crate::memory::store::{Counts, Found, Item, Keep, Store, StorePin, StoreReader};

// Nobody gets more memory than was configured.
const _: () = assert!(CACHE_MEMORY_MIN >= crate::memory::store::MEMORY_MIN);

/// The second of the cache's clock at which `now` counts from zero: entries that were loaded are
/// older than the process.
const ORIGIN: u32 = 1 << 30;

/// The second of the cache's clock.
#[inline(always)]
pub fn second(now: Duration) -> u32 {
    ORIGIN.saturating_add(u32::try_from(now.as_secs()).unwrap_or(u32::MAX))
}

/// How long entries stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Bounds of TTLs.
    pub bounds: TtlBounds,
    /// Seconds that an entry is kept past its TTL, to be served stale.
    pub stale: u32,
    /// The TTL of records that are served stale (RFC 8767, 4: 30 seconds are recommended).
    pub stale_ttl: u32,
    /// Whether popular names are asked for before they expire.
    pub prefetch: bool,
}

impl Default for Holding {
    fn default() -> Holding {
        Holding { bounds: TtlBounds::default(), stale: 86_400, stale_ttl: 30, prefetch: true }
    }
}

//----------- Cache ----------------------------------------------------------

/// The cache that all threads share.
#[derive(Clone)]
pub struct Cache {
    store: Arc<Store>,
}

impl Cache {
    /// A cache of `memory` octets in all, for at most `readers_max` threads that read it.
    pub fn new(memory: usize, readers_max: usize) -> io::Result<Cache> {
        Ok(Cache { store: Store::new(memory, readers_max)? })
    }

    /// Octets of its memory.
    pub fn memory(&self) -> usize {
        self.store.memory()
    }

    /// Has the kernel clear some of the memory that is written to next; `false` if there is enough.
    /// One thread does so.
    pub fn clear_ahead(&self) -> bool {
        self.store.clear_ahead()
    }

    /// Whether [`Cache::clear_ahead`] has something to do.
    #[inline]
    pub fn is_cleared_too_little(&self) -> bool {
        self.store.is_cleared_too_little()
    }

    /// A reader for one thread; `None` past the number the cache was made for.
    pub fn reader(&self) -> Option<Reader> {
        self.store.reader().map(Reader)
    }

    /// Keeps an entry, in the place of the one with the same key; once it is `stale` seconds past
    /// its time it gives way before others. `false` if there is no room, or nothing to keep.
    pub fn keep(&self, key: &Key<'_>, prepared: &Prepared, now: Duration, stale: u32) -> bool {
        let entry = prepared.entry();
        if entry.ttl() == 0 {
            return false;
        }
        //= RFC 9520, 3.2
        //# Resolvers MUST implement a cache for resolution failures.
        let insists = entry.flags() & flag::FAILURE != 0;
        let item = Item { hash: key.hash(), len: entry.octets().len(), insists };
        let fill = |octets: &mut [u8]| octets.copy_from_slice(entry.octets());
        let now = second(now);
        let is_over =
            &|octets: &[u8]| Entry::new(octets).is_none_or(|entry| entry.is_over(now, stale));
        self.store.write().insert(item, fill, |octets| key.is_of(octets), is_over)
    }

    /// Copies the entry with this key, fresh or not; whether there is one.
    pub fn copy(&self, key: &Key<'_>, prepared: &mut Prepared) -> bool {
        let writer = self.store.write();
        let found = writer.get(key.hash(), |octets| key.is_of(octets)).and_then(Entry::new);
        found.inspect(|entry| prepared.copy(*entry)).is_some()
    }

    /// Takes out the entries for which `leaves` says so, step by step; returns how many those were.
    pub fn flush(&self, mut leaves: impl FnMut(Entry<'_>) -> bool) -> u64 {
        let mut look = |octets: &[u8]| match Entry::new(octets) {
            Some(entry) if !leaves(entry) => Keep::Yes,
            _ => Keep::No,
        };
        let _walk = self.store.walk();
        let steps = self.store.write().steps();
        (0..steps).map(|step| self.store.write().for_each_of(step, &mut look)).sum()
    }

    /// What it holds and did.
    pub fn counts(&self) -> Counts {
        self.store.write().counts()
    }
}

/// Seconds that a failure is remembered at most, and how long after that the next one still
/// follows it.
const FAILURE_SECONDS_MAX: u32 = CACHE_FAILURE_MAX.as_secs() as u32;

//= RFC 9520, 3.2
//# Resolvers SHOULD employ an exponential or linear backoff algorithm to increase the cache
//# duration for persistent resolution failures.
/// For how many seconds a failure is remembered that comes `now`, where `before` is what was held
/// of the question: `first`, or twice as long as the one before it.
pub fn failure_ttl(before: Option<Entry<'_>>, now: Duration, first: u32) -> u32 {
    let follows = |entry: &Entry<'_>| {
        entry.flags() & flag::FAILURE != 0
            && entry.age(second(now)) < entry.ttl().saturating_add(FAILURE_SECONDS_MAX)
    };
    match before.filter(follows) {
        Some(entry) => entry.ttl().saturating_mul(2).max(first).min(FAILURE_SECONDS_MAX),
        None => first.min(FAILURE_SECONDS_MAX),
    }
}

/// Whether the name `wire` is `apex` or below it, both in lower case.
pub fn is_at_or_below(wire: &[u8], apex: &[u8]) -> bool {
    wire.len()
        .checked_sub(apex.len())
        .is_some_and(|at| wire[at..] == *apex && crate::wire::message::is_label_start(wire, at))
}

//----------- Reader ---------------------------------------------------------

/// One thread's side of the cache.
pub struct Reader(StoreReader);

impl Reader {
    /// Reads until what is returned is dropped; never held across a wait.
    #[inline(always)]
    pub fn pin(&mut self) -> Pin<'_> {
        Pin(self.0.pin())
    }

    /// Of a thread that answers those who have waited: that everybody waits for an answer once does
    /// not make it popular.
    #[must_use]
    pub fn unnoticed(self) -> Reader {
        Reader(self.0.unnoticed())
    }
}

/// Reading.
pub struct Pin<'a>(StorePin<'a>);

/// An answer that was found.
pub struct Held<'a> {
    /// The answer.
    pub entry: Entry<'a>,
    found: Found<'a>,
}

impl Pin<'_> {
    /// Asks for where the search for this hash will start.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        self.0.prefetch_bucket(hash);
    }

    /// Asks for the entry that will most likely be found.
    #[inline(always)]
    pub fn prefetch_entry(&self, hash: u64) {
        self.0.prefetch_entry(hash);
    }

    /// The answer to `key`'s question, fresh or not.
    #[inline]
    pub fn find(&self, key: &Key<'_>) -> Option<Held<'_>> {
        let found = self.0.find(key.hash(), |octets| key.is_of(octets))?;
        Entry::new(found.octets).map(|entry| Held { entry, found })
    }
}

impl Held<'_> {
    /// Whether the answer should be asked for anew before it expires, by the one who is told so:
    /// less than a tenth of its time is left.
    #[inline]
    pub fn is_due(&self, now: u32) -> bool {
        /// An answer that holds for less is asked for soon enough.
        const TTL_MIN: u32 = 10;
        let (age, ttl) = (self.entry.age(now), self.entry.ttl());
        ttl >= TTL_MIN
            && age >= ttl - ttl / 10
            && self.entry.flags() & flag::FAILURE == 0
            && self.found.claim()
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::{CLASS_IN, Section, Writer, header};
    use crate::wire::rtype;

    fn wire(text: &str) -> Vec<u8> {
        text.parse::<crate::wire::Name>().unwrap().as_wire().to_vec()
    }

    fn key(name: &[u8], qtype: u16) -> Key<'_> {
        let hash = name.iter().fold(7u64, |hash, &octet| {
            (hash ^ u64::from(octet)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        });
        Key { name_hash: hash, name, qtype, flags: 0 }
    }

    fn keep(cache: &Cache, name: &str, ttl: u32, now: u64) {
        let name = wire(name);
        let key = key(&name, rtype::A);
        let mut writer = Writer::new(1, header::QR);
        writer.question(&name, rtype::A, CLASS_IN);
        writer.record(Section::Answer, &name, rtype::A, ttl, &[192, 0, 2, 1]);
        let mut prepared = Prepared::default();
        let (now, bounds) = (Duration::from_secs(now), TtlBounds::default());
        prepared.response(&key, &writer.into_octets(), now, &bounds, Aside::default()).unwrap();
        assert_eq!(cache.keep(&key, &prepared, now, 100), ttl > 0);
    }

    #[test]
    fn an_answer_is_fresh_then_stale_then_gone() {
        let cache = Cache::new(4 << 20, 1).unwrap();
        let mut reader = cache.reader().unwrap();
        keep(&cache, "www.example.", 50, 1000);
        keep(&cache, "never.example.", 0, 1000);
        let name = wire("www.example.");
        let fresh_at = |reader: &mut Reader, at: u64| {
            let pin = reader.pin();
            pin.find(&key(&name, rtype::A))
                .map(|held| held.entry.is_fresh(second(Duration::from_secs(at))))
        };
        assert_eq!(fresh_at(&mut reader, 1049), Some(true));
        assert_eq!(fresh_at(&mut reader, 1050), Some(false));
        let pin = reader.pin();
        assert!(pin.find(&key(&name, rtype::AAAA)).is_none());
        assert!(pin.find(&Key { flags: flag::DNSSEC_OK, ..key(&name, rtype::A) }).is_none());
        assert!(pin.find(&key(&wire("never.example."), rtype::A)).is_none());
        let held = pin.find(&key(&name, rtype::A)).unwrap();
        let at = |at: u64| second(Duration::from_secs(at));
        assert!(!held.is_due(at(1044)) && held.is_due(at(1045)) && !held.is_due(at(1046)));
    }

    #[test]
    fn failures_are_remembered_longer_each_time() {
        let cache = Cache::new(4 << 20, 1).unwrap();
        let name = wire("www.example.");
        let key = key(&name, rtype::A);
        let mut prepared = Prepared::default();
        // As soon as each is over the question fails once more.
        let mut now = Duration::from_secs(1000);
        let mut fail = |now: &mut Duration, pause: u64| {
            *now += Duration::from_secs(pause);
            let held = cache.copy(&key, &mut prepared);
            let ttl = failure_ttl(held.then(|| prepared.entry()), *now, 5);
            prepared.failure(&key, *now, ttl, &[]);
            assert!(cache.keep(&key, &prepared, *now, 0));
            *now += Duration::from_secs(ttl.into());
            ttl
        };
        let ttls: Vec<u32> = (0..8).map(|_| fail(&mut now, 0)).collect();
        assert_eq!(ttls, [5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(fail(&mut now, 299), 300);
        assert_eq!(fail(&mut now, 300), 5, "it has been well for long");
        // An answer ends it.
        keep(&cache, "www.example.", 50, now.as_secs());
        assert_eq!(fail(&mut now, 100), 5);
    }

    #[test]
    fn names_and_what_is_below_them_are_flushed() {
        let cache = Cache::new(4 << 20, 1).unwrap();
        let names = ["a.example.", "b.a.example.", "ba.example.", "example.org.", "example."];
        names.iter().for_each(|name| keep(&cache, name, 50, 1));
        let apex = wire("a.example.");
        assert_eq!(cache.flush(|entry| is_at_or_below(entry.name(), &apex)), 2);
        assert_eq!(cache.counts().entries, 3);
        assert_eq!(cache.flush(|entry| entry.name() == wire("example.")), 1);
        assert_eq!(cache.flush(|entry| is_at_or_below(entry.name(), &[0])), 2);
        assert_eq!((cache.counts().entries, cache.counts().octets), (0, 0));
    }
}
