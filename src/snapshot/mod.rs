//! The immutable view that the cores answer from: one generation of everything that is served.
//!
//! ```text
//!   name ──hashes of its suffixes──> apex table ──> zone        the longest apex wins
//! ```
//!
//! Only depths at which some zone has its apex are tried, deepest first. What changes from one
//! generation to the next is a page of the tables, not the tables (`zones.rs`).
//!
//! With one zone all of this is near. Among ten thousand, the apex table, the zone's entry and its
//! header are three memory accesses one after the other: a batch asks for them in three steps
//! ([`Snapshot::prefetch_apex`], [`Snapshot::prefetch_entry`], [`Snapshot::prefetch_header`]).

mod recursion;
mod zones;

pub use recursion::{Elsewhere, Recursion};
pub use zones::{Entry, ZoneState, ZoneTable, Zones};

use std::sync::Arc;

use crate::limits::ANSWER_SIZE_DEFAULT;
use crate::policy::Rules;
use crate::tsig::Keys;
use crate::wire::{LowerName, Name};
use crate::zone::change::Journal;
use crate::zone::{HashKey, SuffixHashes};

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

/// One generation of everything that is served.
pub struct Snapshot {
    generation: u64,
    key: HashKey,
    identity: Identity,
    zones: Zones,
    keys: Arc<Keys>,
    recursion: Option<Arc<Recursion>>,
}

/// Marks the index of a special-use zone, which only who may ask for names of others is led to.
pub const SPECIAL: usize = 1 << 31;

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
        let mut table = ZoneTable::new(key);
        for (name, state) in zones {
            if table.find(&name).is_none() {
                let number = table.insert(&name);
                table.entry_mut(number).state = state;
            }
        }
        Snapshot::of(generation, identity, &table, Arc::default())
    }

    /// The generation of the zones that `table` has now.
    pub fn of(generation: u64, identity: Identity, table: &ZoneTable, keys: Arc<Keys>) -> Snapshot {
        let (key, zones) = (table.key(), table.zones().clone());
        Snapshot { generation, key, identity, zones, keys, recursion: None }
    }

    /// The same with clients that may ask for names of others.
    pub fn with_recursion(self, recursion: Option<Arc<Recursion>>) -> Snapshot {
        Snapshot { recursion, ..self }
    }

    /// What clients get that may ask for names of others; `None`: nobody may.
    #[inline(always)]
    pub fn recursion(&self) -> Option<&Recursion> {
        self.recursion.as_deref()
    }

    /// What changed of late in the zone at `index`.
    pub fn journal(&self, index: usize) -> Option<&Journal> {
        self.zones.entry(index).journal.as_deref()
    }

    /// What peers may do with the zone at `index`.
    pub fn rules(&self, index: usize) -> &Rules {
        &self.zones.entry(index).rules
    }

    /// The keys that peers sign with.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The zone with exactly this name: its index.
    pub fn zone_named(&self, name: &[u8]) -> Option<usize> {
        self.zone_above(name).filter(|(_, exact)| *exact).map(|(index, _)| index)
    }

    /// The zone that this name is in: its index, and whether it is its apex.
    pub fn zone_above(&self, name: &[u8]) -> Option<(usize, bool)> {
        let mut lower = LowerName::new();
        lower.read(name)?;
        let mut hashes = Box::new([0; _]);
        self.key.suffixes(&lower, &mut hashes);
        let found = self.find_zone(&lower, &hashes, lower.depth());
        found.map(|(index, depth)| (index, depth == lower.depth()))
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

    /// What there is of the zone at `index`.
    #[inline(always)]
    pub fn zone(&self, index: usize) -> &ZoneState {
        match &self.recursion {
            Some(recursion) if index & SPECIAL != 0 => recursion.special(index & !SPECIAL),
            _ => &self.zones.entry(index).state,
        }
    }

    /// The name of the zone at `index`, in lower case.
    pub fn name(&self, index: usize) -> Name {
        Name::from_wire(self.zones.entry(index).name()).expect("a zone has a name")
    }

    /// Whether finding a zone is worth asking ahead for what it reads.
    #[inline(always)]
    pub fn is_spread(&self) -> bool {
        self.zones.count() > NEAR_ZONES_MAX
    }

    /// Asks for the place in the apex table where the search for a zone will start.
    #[inline]
    pub fn prefetch_apex(&self, hashes: &SuffixHashes, depth_max: usize) {
        self.zones.prefetch_slot(hashes, depth_max);
    }

    /// Asks for the entry of the zone that will most likely be found; returns which.
    #[inline]
    pub fn prefetch_entry(&self, hashes: &SuffixHashes, depth_max: usize) -> Option<usize> {
        self.zones.prefetch_entry(hashes, depth_max)
    }

    /// Asks for the header of the zone at `index`.
    #[inline]
    pub fn prefetch_header(&self, index: usize) {
        if let Some(zone) = self.zone(index).zone() {
            zone.prefetch_header();
        }
    }

    /// The zone with the longest apex that `name` is at or below, among apexes of at most
    /// `depth_max` labels: its index and its depth.
    #[inline]
    pub fn find_zone(
        &self,
        name: &LowerName,
        hashes: &SuffixHashes,
        depth_max: usize,
    ) -> Option<(usize, usize)> {
        self.zones.find_zone(name, hashes, depth_max)
    }
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
