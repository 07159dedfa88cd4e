//! The immutable view that the cores answer from: one generation of everything that is served.
//!
//! ```text
//!   name ──hashes of its suffixes──> apex table ──> zone        the longest apex wins
//! ```
//!
//! Only depths at which some zone has its apex are tried, deepest first.
//!
//! With one zone all of this is near. Among ten thousand, the apex table, the zone's entry and its
//! header are three memory accesses one after the other: a batch asks for them in three steps
//! ([`Snapshot::prefetch_apex`], [`Snapshot::prefetch_entry`], [`Snapshot::prefetch_header`]).

use std::sync::{Arc, LazyLock};

use crate::limits::ANSWER_SIZE_DEFAULT;
use crate::memory::prefetch;
use crate::policy::Rules;
use crate::tsig::Keys;
use crate::wire::{LowerName, Name};
use crate::zone::change::Journal;
use crate::zone::{HashKey, SuffixHashes, Zone};

//----------- Identity -------------------------------------------------------

/// What the server says of itself, and how long its answers may be.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Octets of a UDP answer at most: `ANSWER_SIZE_MIN..=ANSWER_SIZE_MAX`.
    pub answer_size_max: usize,
    /// `version.bind`, `version.server`; `None` is REFUSED.
    pub version: Option<String>,
    /// `hostname.bind`; `None` is REFUSED.
    pub hostname: Option<String>,
    /// `id.server`; `None` is REFUSED.
    pub id: Option<String>,
    /// NSID (RFC 5001), octets.
    pub nsid: Option<Vec<u8>>,
}

impl Default for Identity {
    fn default() -> Identity {
        Identity {
            answer_size_max: ANSWER_SIZE_DEFAULT,
            version: None,
            hostname: None,
            id: None,
            nsid: None,
        }
    }
}

//----------- Snapshot -------------------------------------------------------

/// One configured zone.
#[derive(Clone)]
pub enum ZoneState {
    /// Loaded.
    Serving(Arc<Zone>),
    /// Configured but never loaded: SERVFAIL.
    Failed,
}

/// One generation of everything that is served.
pub struct Snapshot {
    generation: u64,
    key: HashKey,
    identity: Identity,
    zones: Vec<(Name, ZoneState)>,
    /// The zones' names in lower case and wire form, one after the other.
    names: Box<[u8]>,
    /// Open addressing, a power of two, at most half full.
    apexes: Box<[Apex]>,
    /// Bit `d`: some zone's apex has `d` labels.
    depths: u128,
    /// What peers may do with each zone; empty: nothing with any.
    rules: Vec<Arc<Rules>>,
    keys: Arc<Keys>,
    /// What changed in each zone of late; empty: nothing is known.
    journals: Vec<Arc<Journal>>,
}

/// The rules of a zone that has none.
static NOBODY: LazyLock<Rules> = LazyLock::new(Rules::default);

#[derive(Clone, Copy, Default)]
struct Apex {
    hash: u64,
    /// Index into `zones` plus one; 0 is empty.
    zone: u32,
    /// Where its name starts in `names`.
    name_at: u32,
    depth: u8,
}

/// Up to this many zones the tables stay near by themselves.
const NEAR_ZONES_MAX: usize = 64;

impl Snapshot {
    /// Builds a generation. `key` is the one the zones were loaded with; of two zones with one
    /// name, the first serves.
    pub fn new(
        generation: u64,
        key: HashKey,
        identity: Identity,
        zones: Vec<(Name, ZoneState)>,
    ) -> Snapshot {
        let zones: Vec<_> =
            zones.into_iter().map(|(name, state)| (name.to_lowercase(), state)).collect();
        let mut apexes = vec![Apex::default(); (zones.len() * 2).next_power_of_two()];
        let (mut depths, mut names) = (0, Vec::new());
        let mut lower = LowerName::new();
        for (i, (name, _)) in zones.iter().enumerate() {
            lower.read(name.as_wire()).expect("a name is a name");
            let hash = key.name(&lower);
            let mut at = slot_of(hash, apexes.len());
            while apexes[at].zone != 0 {
                at = (at + 1) & (apexes.len() - 1);
            }
            let (zone, name_at) = (i as u32 + 1, names.len() as u32);
            apexes[at] = Apex { hash, zone, name_at, depth: lower.depth() as u8 };
            names.extend_from_slice(lower.as_wire());
            depths |= 1 << lower.depth();
        }
        Snapshot {
            generation,
            key,
            identity,
            zones,
            names: names.into(),
            apexes: apexes.into(),
            depths,
            rules: Vec::new(),
            keys: Arc::default(),
            journals: Vec::new(),
        }
    }

    /// The same with `rules` for each zone, in their order, and the keys that peers sign with.
    pub fn with_access(mut self, keys: Arc<Keys>, rules: Vec<Arc<Rules>>) -> Snapshot {
        (self.keys, self.rules) = (keys, rules);
        self
    }

    /// The same with a journal for each zone, in their order.
    pub fn with_journals(mut self, journals: Vec<Arc<Journal>>) -> Snapshot {
        self.journals = journals;
        self
    }

    /// What changed of late in the zone at `index`.
    pub fn journal(&self, index: usize) -> Option<&Journal> {
        self.journals.get(index).map(|journal| &**journal)
    }

    /// What peers may do with the zone at `index`.
    pub fn rules(&self, index: usize) -> &Rules {
        self.rules.get(index).map_or(&NOBODY, |rules| rules)
    }

    /// The keys that peers sign with.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The zone with exactly this name: its index.
    pub fn zone_named(&self, name: &[u8]) -> Option<usize> {
        let mut lower = LowerName::new();
        lower.read(name)?;
        let mut hashes = Box::new([0; _]);
        self.key.suffixes(&lower, &mut hashes);
        let found = self.find_zone(&lower, &hashes, lower.depth());
        found.filter(|(_, depth)| *depth == lower.depth()).map(|(index, _)| index)
    }

    /// Which generation this is.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The secret that names are hashed with.
    #[inline(always)]
    pub fn key(&self) -> HashKey {
        self.key
    }

    /// The identity of this generation.
    #[inline(always)]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The zones as configured, names in lower case.
    #[inline(always)]
    pub fn zones(&self) -> &[(Name, ZoneState)] {
        &self.zones
    }

    /// Whether finding a zone is worth asking ahead for what it reads.
    #[inline(always)]
    pub fn is_spread(&self) -> bool {
        self.zones.len() > NEAR_ZONES_MAX
    }

    /// Asks for the place in the apex table where the search for a zone will start.
    #[inline]
    pub fn prefetch_apex(&self, hashes: &SuffixHashes, depth_max: usize) {
        let depths = self.depths & (u128::MAX >> (127 - depth_max));
        if depths != 0 {
            let depth = 127 - depths.leading_zeros() as usize;
            prefetch(&self.apexes, slot_of(hashes[depth], self.apexes.len()));
        }
    }

    /// Asks for the entry and the name of the zone that will most likely be found; returns which.
    #[inline]
    pub fn prefetch_entry(&self, hashes: &SuffixHashes, depth_max: usize) -> Option<usize> {
        let apex = self.find_apex(hashes, depth_max, |_| true)?;
        let zone = apex.zone as usize - 1;
        prefetch(&self.zones, zone);
        prefetch(&self.names, apex.name_at as usize);
        Some(zone)
    }

    /// Asks for the header of the zone at `index`.
    #[inline]
    pub fn prefetch_header(&self, index: usize) {
        if let ZoneState::Serving(zone) = &self.zones[index].1 {
            zone.prefetch_header();
        }
    }

    /// The zone with the longest apex that `name` is at or below, among apexes of at most
    /// `depth_max` labels: its index in [`Snapshot::zones`] and its depth.
    #[inline]
    pub fn find_zone(
        &self,
        name: &LowerName,
        hashes: &SuffixHashes,
        depth_max: usize,
    ) -> Option<(usize, usize)> {
        let found = self.find_apex(hashes, depth_max, |apex| {
            let suffix = name.suffix(usize::from(apex.depth));
            self.names[apex.name_at as usize..].starts_with(suffix)
        });
        found.map(|apex| (apex.zone as usize - 1, usize::from(apex.depth)))
    }

    /// The deepest apex of at most `depth_max` labels whose hash is one of `hashes` and that `is`
    /// it. A name starts another only if it is the same: it ends with the root's octet.
    #[inline(always)]
    fn find_apex(
        &self,
        hashes: &SuffixHashes,
        depth_max: usize,
        is: impl Fn(&Apex) -> bool,
    ) -> Option<&Apex> {
        let mut depths = self.depths & (u128::MAX >> (127 - depth_max));
        while depths != 0 {
            let depth = 127 - depths.leading_zeros() as usize;
            depths &= !(1 << depth);
            let hash = hashes[depth];
            let mut at = slot_of(hash, self.apexes.len());
            loop {
                let apex = &self.apexes[at];
                if apex.zone == 0 {
                    break;
                }
                if apex.hash == hash && usize::from(apex.depth) == depth && is(apex) {
                    return Some(apex);
                }
                at = (at + 1) & (self.apexes.len() - 1);
            }
        }
        None
    }
}

#[inline(always)]
fn slot_of(hash: u64, slots: usize) -> usize {
    hash as usize & (slots - 1)
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_apex_wins() {
        let key = HashKey::new(*b"a secret of test");
        let names = ["example.", "sub.Example.", "other.", "."];
        let zones = |count: usize| {
            let zones =
                names[..count].iter().map(|name| (name.parse().unwrap(), ZoneState::Failed));
            Snapshot::new(1, key, Identity::default(), zones.collect())
        };
        let find = |snapshot: &Snapshot, text: &str, less: usize| {
            let mut name = LowerName::new();
            name.read(text.parse::<Name>().unwrap().as_wire()).unwrap();
            let mut hashes = [0; _];
            key.suffixes(&name, &mut hashes);
            snapshot.find_zone(&name, &hashes, name.depth() - less).map(|(zone, _)| names[zone])
        };
        let snapshot = zones(3);
        assert_eq!(find(&snapshot, "a.b.sub.example.", 0), Some("sub.Example."));
        assert_eq!(find(&snapshot, "SUB.example.", 0), Some("sub.Example."));
        assert_eq!(find(&snapshot, "sub.example.", 1), Some("example."));
        assert_eq!(find(&snapshot, "subs.example.", 0), Some("example."));
        assert_eq!(find(&snapshot, "net.", 0), None);
        assert_eq!(find(&zones(4), "net.", 0), Some("."));
        assert_eq!(find(&zones(0), "net.", 0), None);
    }
}
