//! Zones: from text to prepared fragments and an index.
//!
//! ```text
//!   Source ──> text (several parts at once) ──> stage ──sort──> build + check ──> finish ──> Zone
//!
//!   Zone      index: hash ──> node          one cache line
//!             pool:  node ──> RRsets        one or two, next to each other
//!             overlay: what has changed since, if anything
//! ```
//!
//! Every name that exists has a node, empty non-terminals included, so that whether a name exists
//! is one search and the closest encloser is a search by depth: there is no tree.

mod amend;
mod build;
pub mod catalog;
pub mod change;
mod check;
mod denial;
pub mod diagnostic;
mod finish;
mod hash;
mod index;
pub mod intake;
pub mod node;
pub mod nsec3;
mod order;
pub mod overlay;
mod prepare;
pub mod records;
pub mod source;
mod stage;
pub mod text;
mod verify;

pub use amend::{Room, Unfit, amend, changed};
pub use denial::{Denial, wildcard_of};
pub use diagnostic::{Diagnostic, Severity};
pub use hash::{HashKey, SuffixHashes};
pub use index::{Index, Probe};
pub use node::{Link, Node, Rrset, flag};
pub use order::Order;
#[cfg(test)]
pub use source::Given;
pub use source::{Source, SourceText, Text};
pub use verify::{Checks, EXPIRES_SOON_SECONDS, verify, verify_amended};

use std::sync::Arc;

use crate::limits::NSEC3_ITERATIONS_DEFAULT;
use crate::memory::{Shared, prefetch};
use crate::wire::{LowerName, Name, rtype};

use overlay::Overlay;

//----------- Zone -----------------------------------------------------------

/// One zone, compiled: immutable, shared by all cores. A clone shares what was built.
///
/// What every query reads comes first, in one or two cache lines: among ten thousand zones these
/// are rarely near.
#[derive(Clone)]
#[repr(C)]
pub struct Zone {
    index: Index,
    pool: Shared,
    /// Position of the apex's node.
    apex_at: usize,
    depth_max: usize,
    /// Octets of the apex in wire form.
    apex_len: usize,
    /// What is no more as it was built.
    overlay: Option<Box<Overlay>>,
    denial: Denial,
    /// A node of its own with the SOA as negative answers carry it.
    negative: Box<[u8]>,
    apex: Name,
    /// The same in lower case; as a [`LowerName`] it would be most of a small zone.
    lower: Name,
    apex_labels: u8,
    pool_used: usize,
    serial: u32,
    record_count: usize,
    name_count: usize,
    /// When the first of its signatures expires, in seconds since 1970.
    signatures_expire: Option<u32>,
    /// NSEC3 blocks of chains that do not serve.
    other_blocks: Arc<[usize]>,
}

impl Zone {
    /// The zone's name, as configured.
    pub fn apex(&self) -> &Name {
        &self.apex
    }

    /// The zone's name, ready for comparing: made anew.
    pub fn lower_apex(&self) -> LowerName {
        let mut lower = LowerName::new();
        lower.read(self.lower.as_wire()).expect("a name is a name");
        lower
    }

    /// The zone's name in wire form and lower case.
    #[inline(always)]
    pub fn apex_wire(&self) -> &[u8] {
        self.lower.as_wire()
    }

    /// Labels of the zone's name.
    #[inline(always)]
    pub fn apex_depth(&self) -> usize {
        usize::from(self.apex_labels)
    }

    /// Octets of the zone's name in wire form.
    #[inline(always)]
    pub fn apex_len(&self) -> usize {
        self.apex_len
    }

    /// Asks for what every query reads of a zone.
    #[inline(always)]
    pub fn prefetch_header(&self) {
        prefetch(std::slice::from_ref(self), 0);
        prefetch(std::slice::from_ref(&self.apex_len), 0);
    }

    /// The names.
    #[inline(always)]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The node at `position`, which came from the index or from a link.
    #[inline(always)]
    pub fn node(&self, position: usize) -> Node<'_> {
        let (pool, position) = self.place(position);
        Node::at(pool, position)
    }

    /// The pool that `position` is in, and where there.
    #[inline(always)]
    fn place(&self, position: usize) -> (&[u8], usize) {
        if position < overlay::START { (&self.pool, position) } else { self.place_after(position) }
    }

    #[cold]
    fn place_after(&self, position: usize) -> (&[u8], usize) {
        let overlay = self.overlay.as_ref().expect("a position that the overlay gave");
        (&overlay.pool, position - overlay::START)
    }

    /// Asks for the node at `position`: nearly all nodes end in the second cache line.
    #[inline(always)]
    pub fn prefetch(&self, position: usize) {
        // What is in an overlay is past its end, and near anyhow.
        prefetch(&self.pool, position);
        prefetch(&self.pool, position + 47);
    }

    /// How it proves what does not exist.
    #[inline(always)]
    pub fn denial(&self) -> &Denial {
        &self.denial
    }

    /// The NSEC3 block at `position`, which came from the chain or from a node.
    #[inline(always)]
    pub fn block(&self, position: usize) -> nsec3::Block<'_> {
        let (pool, position) = self.place(position);
        nsec3::Block::at(pool, position)
    }

    /// Asks for what a node or a block with signatures has past its start.
    #[inline(always)]
    pub fn prefetch_signatures(&self, position: usize) {
        for line in 0..4 {
            prefetch(&self.pool, position + line * 64);
        }
    }

    /// The position of the apex's node.
    #[inline(always)]
    pub fn apex_at(&self) -> usize {
        self.apex_at
    }

    /// The SOA for negative answers (RFC 2308, 3): its TTL is no more than its minimum field.
    #[inline(always)]
    pub fn negative_soa(&self) -> Option<Rrset<'_>> {
        Node::at(&self.negative, 0).rrset(rtype::SOA)
    }

    /// Labels of the deepest name.
    #[inline(always)]
    pub fn depth_max(&self) -> usize {
        self.depth_max
    }

    /// The serial of its SOA.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// Records in it.
    pub fn record_count(&self) -> usize {
        self.record_count
    }

    /// Names that own records.
    pub fn name_count(&self) -> usize {
        self.name_count
    }

    /// When the first of its signatures expires, in seconds since 1970 modulo 2^32.
    pub fn signatures_expire(&self) -> Option<u32> {
        if self.overlay.as_ref().is_some_and(|overlay| overlay.expiry_unsure) {
            return self.first_expiry();
        }
        self.signatures_expire
    }

    /// Whether it has signatures.
    pub fn is_signed(&self) -> bool {
        self.signatures_expire.is_some()
    }

    /// Octets of memory it holds.
    pub fn memory_len(&self) -> usize {
        let overlay = self.overlay.as_ref().map_or(0, |overlay| overlay.memory_len());
        self.index.memory_len() + self.pool_used + overlay
    }

    /// The node of the name whose suffix of `depth` labels has `hash`.
    pub fn find(&self, name: &LowerName, depth: usize, hash: u64) -> Option<usize> {
        let relative = name.suffix_at(depth)..name.len() - self.apex_len;
        self.find_owner(hash, |owner| owner == &name.padded()[relative.clone()])
    }

    /// Whether the node at `position` of the index is named by the last `depth` labels of `name`,
    /// which is at or below the apex.
    #[inline(always)]
    pub fn is_node_of(&self, position: usize, name: &LowerName, depth: usize) -> bool {
        let relative = name.suffix_at(depth)..name.len() - self.apex_len;
        Node::at(&self.pool, position).owner() == &name.padded()[relative]
    }
}

//----------- load -----------------------------------------------------------

/// How to load.
pub struct LoadOptions {
    /// The secret of this process: every zone of a snapshot has the same.
    pub key: HashKey,
    /// Threads that read and build.
    pub threads: usize,
    /// A zone with more NSEC3 iterations is not loaded: its names alone would cost hours to hash,
    /// and each question so many hashes.
    pub nsec3_iterations_max: u16,
}

impl LoadOptions {
    /// With the limits that are the default.
    pub fn new(key: HashKey, threads: usize) -> LoadOptions {
        LoadOptions { key, threads, nsec3_iterations_max: NSEC3_ITERATIONS_DEFAULT }
    }
}

/// What loading gave.
pub struct Loaded {
    /// The zone, unless a diagnostic is an error.
    pub zone: Option<Zone>,
    /// Errors and warnings: of the text first, then of the zone as a whole.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads, checks and compiles the zone `apex` from `path`.
pub fn load(apex: &Name, path: &str, source: &dyn Source, options: &LoadOptions) -> Loaded {
    let mut lower_apex = LowerName::new();
    lower_apex.read(apex.as_wire()).expect("a name is a name");
    let threads = options.threads.clamp(1, stage::PARTS_MAX);
    let outcome =
        text::read(apex, path, source, threads, &|| stage::Stage::new(options.key, &lower_apex));
    let mut diagnostics = outcome.diagnostics;
    let files = outcome.files;
    let stages = outcome.parts;
    let zone =
        finish::finish(apex, lower_apex, &stages, &files, options, threads, &mut diagnostics);
    let broken = diagnostics.iter().any(|found| found.severity == Severity::Error);
    Loaded { zone: zone.filter(|_| !broken), diagnostics }
}
