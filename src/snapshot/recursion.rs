//! What clients get that may ask for names of others: which names those are.
//!
//! ```text
//!   the longest of   zones served here ──> authority
//!                    special-use names ──> zones of their own, for these clients only
//!                    forwards ───────────> the cache, or whoever resolves
//! ```

use std::sync::Arc;

use crate::policy::Prefixes;
use crate::wire::{LowerName, Name};
use crate::zone::{HashKey, SuffixHashes, Zone};

use super::zones::{ZoneState, ZoneTable, Zones};

/// Who may ask for names of others, and what is done for them.
pub struct Recursion {
    /// Who may.
    pub clients: Prefixes,
    /// Whether a query without RD gets what is in the cache.
    pub cached_without_rd: bool,
    /// Whether answers that are used are asked for anew before they expire.
    pub prefetch: bool,
    /// Seconds past its time that an answer may be served.
    pub stale: u32,
    /// The TTL of records that are served stale.
    pub stale_ttl: u32,
    forwards: Zones,
    special: Zones,
}

/// The zones that are asked for elsewhere, and those of special-use names.
pub struct Elsewhere<'a> {
    /// Zones that have forwards.
    pub forwards: &'a [Name],
    /// Special-use names.
    pub special: Vec<(Name, Arc<Zone>)>,
}

impl Recursion {
    /// For `clients`; names are hashed with `key`.
    pub fn new(key: HashKey, clients: Prefixes, elsewhere: Elsewhere<'_>) -> Recursion {
        let (mut forwards, mut special) = (ZoneTable::new(key), ZoneTable::new(key));
        for name in elsewhere.forwards {
            forwards.insert(name);
        }
        for (name, zone) in elsewhere.special {
            let number = special.insert(&name);
            special.entry_mut(number).state = ZoneState::Serving(zone);
        }
        Recursion {
            clients,
            cached_without_rd: false,
            prefetch: true,
            stale: 86_400,
            stale_ttl: 30,
            forwards: forwards.zones().clone(),
            special: special.zones().clone(),
        }
    }

    /// Labels of the longest forward, of at most `depth_max`, that `name` is in.
    #[inline]
    pub fn forward_depth(
        &self,
        name: &LowerName,
        hashes: &SuffixHashes,
        depth_max: usize,
    ) -> Option<usize> {
        self.forwards.find_zone(name, hashes, depth_max).map(|(_, depth)| depth)
    }

    /// The special zone that `name` is in: its number and its labels.
    #[inline]
    pub fn special_zone(
        &self,
        name: &LowerName,
        hashes: &SuffixHashes,
        depth_max: usize,
    ) -> Option<(usize, usize)> {
        self.special.find_zone(name, hashes, depth_max)
    }

    /// The special zone with this number.
    pub(super) fn special(&self, number: usize) -> &ZoneState {
        &self.special.entry(number).state
    }
}
