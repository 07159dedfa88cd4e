//! The immutable view that the cores answer from: one generation of everything that is served.
//!
//! ```text
//!   name ──hashes of its suffixes──> apex table ──> zone        the longest apex wins
//! ```
//!
//! Only depths at which some zone has its apex are tried, deepest first.

use std::sync::Arc;

use crate::limits::ANSWER_SIZE_DEFAULT;
use crate::wire::{LowerName, Name};
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
    /// Open addressing, a power of two, at most half full.
    apexes: Box<[Apex]>,
    /// Bit `d`: some zone's apex has `d` labels.
    depths: u128,
}

#[derive(Clone, Copy, Default)]
struct Apex {
    hash: u64,
    /// Index into `zones` plus one; 0 is empty.
    zone: u32,
    depth: u8,
}

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
        let mut depths = 0;
        let mut lower = LowerName::new();
        for (i, (name, _)) in zones.iter().enumerate() {
            lower.read(name.as_wire()).expect("a name is a name");
            let hash = key.name(&lower);
            let mut at = slot_of(hash, apexes.len());
            while apexes[at].zone != 0 {
                at = (at + 1) & (apexes.len() - 1);
            }
            apexes[at] = Apex { hash, zone: i as u32 + 1, depth: lower.depth() as u8 };
            depths |= 1 << lower.depth();
        }
        Snapshot { generation, key, identity, zones, apexes: apexes.into(), depths }
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

    /// The zone with the longest apex that `name` is at or below, among apexes of at most
    /// `depth_max` labels: its index in [`Snapshot::zones`] and its depth.
    #[inline]
    pub fn find_zone(
        &self,
        name: &LowerName,
        hashes: &SuffixHashes,
        depth_max: usize,
    ) -> Option<(usize, usize)> {
        let mut depths = self.depths & (u128::MAX >> (127 - depth_max));
        while depths != 0 {
            let depth = 127 - depths.leading_zeros() as usize;
            depths &= !(1 << depth);
            let hash = hashes[depth];
            let mut at = slot_of(hash, self.apexes.len());
            loop {
                let apex = self.apexes[at];
                if apex.zone == 0 {
                    break;
                }
                let zone = apex.zone as usize - 1;
                if apex.hash == hash
                    && usize::from(apex.depth) == depth
                    && self.zones[zone].0.as_wire() == name.suffix(depth)
                {
                    return Some((zone, depth));
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
