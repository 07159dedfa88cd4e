//! Finding the closest encloser of a name by depth, one memory access a step.
//!
//! ```text
//!   depth     apex ........ low ........ probe ........ high ........ name
//!             exists        exists       asked now      does not exist
//! ```
//!
//! If a name exists, so do all of its ancestors down from the apex: existence is monotonic in the
//! depth, and the deepest name that exists is found by halving. The first probe is the whole name
//! (most questions are for names that exist), so a hit takes one probe and a miss just below an
//! existing name two at most; 127 labels take eight.
//!
//! Each probe is two steps, look into the bucket and compare the node, and each step ends with a
//! prefetch: a batch takes the same step for all of its queries before the next.

use crate::wire::LowerName;
use crate::zone::{Probe, SuffixHashes, Zone};

//----------- Search ---------------------------------------------------------

/// A search in one zone.
#[derive(Clone, Copy, Default)]
pub struct Search {
    /// Labels of the deepest name known to exist.
    pub low: usize,
    /// Its node.
    pub node: usize,
    high: usize,
    depth: usize,
    candidate: Option<Probe>,
    done: bool,
}

impl Search {
    /// Starts at the apex, which has `apex_depth` labels.
    #[inline]
    pub fn start(
        zone: &Zone,
        apex_depth: usize,
        name: &LowerName,
        hashes: &SuffixHashes,
    ) -> Search {
        let high = name.depth().min(zone.depth_max()) + 1;
        let mut search = Search {
            low: apex_depth,
            node: zone.apex_at(),
            high,
            depth: high - 1,
            candidate: None,
            done: high <= apex_depth + 1,
        };
        if search.done {
            zone.prefetch(search.node);
        } else {
            zone.index().prefetch(hashes[search.depth]);
        }
        search.candidate = None;
        search
    }

    /// Whether [`Search::low`] and [`Search::node`] are the closest encloser.
    #[inline(always)]
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Looks into the bucket that was prefetched.
    #[inline]
    pub fn look(&mut self, zone: &Zone, name: &LowerName, hashes: &SuffixHashes) {
        if !zone.is_as_built()
            && let Some(found) = zone.find_overlaid(name, self.depth, hashes[self.depth])
        {
            return self.next(zone, hashes, found);
        }
        self.candidate = zone.index().probe(hashes[self.depth]);
        match self.candidate {
            Some(candidate) => zone.prefetch(candidate.node),
            None => self.next(zone, hashes, None),
        }
    }

    /// Compares the node that was prefetched, if the bucket had one.
    #[inline]
    pub fn compare(&mut self, zone: &Zone, name: &LowerName, hashes: &SuffixHashes) {
        let Some(mut candidate) = self.candidate.take() else { return };
        loop {
            if zone.is_node_of(candidate.node, name, self.depth) {
                return self.next(zone, hashes, Some(candidate.node));
            }
            match zone.index().probe_on(candidate) {
                Some(next) => candidate = next,
                None => return self.next(zone, hashes, None),
            }
        }
    }

    #[inline]
    fn next(&mut self, zone: &Zone, hashes: &SuffixHashes, found: Option<usize>) {
        match found {
            Some(node) => (self.low, self.node) = (self.depth, node),
            None => self.high = self.depth,
        }
        if self.high == self.low + 1 {
            self.done = true;
        } else {
            self.depth = self.low.midpoint(self.high);
            zone.index().prefetch(hashes[self.depth]);
        }
    }

    /// Takes all steps for one name.
    pub fn run(mut self, zone: &Zone, name: &LowerName, hashes: &SuffixHashes) -> Search {
        while !self.done {
            self.look(zone, name, hashes);
            self.compare(zone, name, hashes);
        }
        self
    }
}
