//! From staged records to nodes: sorted by hash, several ranges of hashes at once.
//!
//! ```text
//!   stages (text order)  ──gather by hash range──>  sort  ──one name at a time──>  nodes
//!                             one thread per range           in that range's part of the pool
//! ```
//!
//! Nodes come out in the order of their hashes, which is the order of the index's buckets: the
//! index is then written front to back.

use std::io;

use crate::limits::NSEC3_CHAINS_MAX;
use crate::memory::{Pages, Region};
use crate::wire::{LowerName, rtype};

use super::check::{Finding, check_name};
use super::node::{
    BLOCK_HEADER_LEN, DIRECTORY_ENTRY_LEN, FULL, NODE_HEADER_LEN, PARENT, REQUIRED, WITHIN, flag,
};
use super::nsec3::{Block, Hash, Hashed, LABEL_LEN, Params};
use super::prepare::{Prepared, target_at};
use super::stage::{Entry, Stage, Staged};

/// How far ahead records are prefetched: they are read in hash order, that is, at random.
const PREFETCH_AHEAD: usize = 16;

/// Pools below this are copied into exactly what they need.
const SMALL_POOL_LEN: usize = 2 << 20;

//----------- Built ----------------------------------------------------------

/// A name in RDATA whose node is to be found once all nodes are placed.
pub struct PendingLink {
    /// Where in the pool the link's node belongs.
    pub at: usize,
    /// The name, wire form, lower case.
    pub target: Box<[u8]>,
    /// The referral needs it.
    pub required: bool,
    /// For the warning when there is no address.
    pub file: u16,
    pub line: u32,
}

/// What one range of hashes gave.
#[derive(Default)]
pub struct Built {
    /// `(hash, position in the pool)` in ascending order of the hashes.
    pub nodes: Pages<(u64, usize)>,
    pub findings: Vec<Finding>,
    /// Positions of nodes whose owner starts with a wildcard label.
    pub wildcards: Vec<usize>,
    pub links: Vec<PendingLink>,
    /// NSEC3 RRsets, which are no nodes.
    pub hashed: Pages<Hashed>,
    /// Their parameters; those past a limit are not told apart.
    pub params: Vec<Params>,
    /// When the first of the signatures expires.
    pub expires: Option<u32>,
    pub hides: bool,
    pub depth_max: usize,
    pub record_count: usize,
    pub name_count: usize,
    pub pool_used: usize,
}

/// Builds the nodes of all stages into one pool. Position 0 of the pool is never a node.
pub fn build(
    stages: &[Stage],
    apex: &LowerName,
    threads: usize,
) -> io::Result<(Region, Vec<Built>)> {
    let gathered = in_parallel(threads, |i| gather(stages, i, threads));
    let gathered: Vec<Pages<Entry>> = gathered.into_iter().collect::<io::Result<_>>()?;
    let mut starts = vec![8];
    for entries in &gathered {
        let size: usize = entries.iter().map(|entry| entry.size_max()).sum();
        starts.push(starts[starts.len() - 1] + size.next_multiple_of(64));
    }
    let mut pool = Region::new(starts[threads].max(64))?;
    let mut rest = &mut pool[8..];
    let mut builders = Vec::new();
    for (i, entries) in gathered.into_iter().enumerate() {
        let (mine, after) = rest.split_at_mut((starts[i + 1] - starts[i]).min(rest.len()));
        rest = after;
        builders.push((Builder::new(stages, apex, mine, starts[i]), entries));
    }
    let mut results = Vec::new();
    if builders.len() == 1 {
        // Small zones are many: a thread for each would cost more than the zone.
        results.extend(builders.into_iter().map(|(builder, entries)| builder.build(&entries)));
    } else {
        std::thread::scope(|scope| {
            let running: Vec<_> = builders
                .into_iter()
                .map(|(builder, entries)| scope.spawn(move || builder.build(&entries)))
                .collect();
            results.extend(running.into_iter().map(|thread| thread.join().expect("no panic")));
        });
    }
    let built = results.into_iter().collect::<io::Result<Vec<_>>>()?;
    if let [only] = &built[..]
        && pool.len() < SMALL_POOL_LEN
    {
        // A hundred thousand small zones should not each keep room for what was never written.
        let used = 8 + only.pool_used;
        let mut exact = Region::new(used)?;
        exact.copy_from_slice(&pool[..used]);
        pool = exact;
    }
    Ok((pool, built))
}

/// Runs `job(0)` to `job(count - 1)` on a thread each and returns their results in order.
pub fn in_parallel<T: Send>(count: usize, job: impl Fn(usize) -> T + Sync) -> Vec<T> {
    if count == 1 {
        return vec![job(0)];
    }
    std::thread::scope(|scope| {
        let job = &job;
        let running: Vec<_> = (0..count).map(|i| scope.spawn(move || job(i))).collect();
        running.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

/// The entries of one range of hashes, sorted by hash and then by the order of the text.
fn gather(stages: &[Stage], range: usize, ranges: usize) -> io::Result<Pages<Entry>> {
    let mut entries = Pages::default();
    for (part, stage) in stages.iter().enumerate() {
        for &entry in &*stage.entries {
            if ((u128::from(entry.hash) * ranges as u128) >> 64) as usize == range {
                entries.push(entry.in_part(part))?;
            }
        }
    }
    entries.sort_unstable_by_key(|entry| entry.order());
    Ok(entries)
}

//----------- Builder --------------------------------------------------------

struct Builder<'a> {
    stages: &'a [Stage],
    apex: &'a LowerName,
    /// Whether names have NSEC3 blocks.
    hashed: bool,
    pool: &'a mut [u8],
    /// Position of `pool` in the whole pool.
    start: usize,
    used: usize,
    built: Built,
    prepared: Prepared,
    signatures: Prepared,
    owner: LowerName,
    records: Vec<Staged<'a>>,
    node: Vec<u8>,
}

impl<'a> Builder<'a> {
    fn new(
        stages: &'a [Stage],
        apex: &'a LowerName,
        pool: &'a mut [u8],
        start: usize,
    ) -> Builder<'a> {
        Builder {
            stages,
            apex,
            hashed: stages.iter().any(|stage| stage.has_nsec3),
            pool,
            start,
            used: 0,
            built: Built::default(),
            prepared: Prepared::default(),
            signatures: Prepared::default(),
            owner: LowerName::new(),
            records: Vec::new(),
            node: Vec::new(),
        }
    }

    fn build(mut self, entries: &[Entry]) -> io::Result<Built> {
        let mut group: Vec<(Staged<'a>, bool)> = Vec::new();
        let mut at = 0;
        while at < entries.len() {
            let hash = entries[at].hash;
            group.clear();
            while at < entries.len() && entries[at].hash == hash {
                if let Some(&ahead) = entries.get(at + PREFETCH_AHEAD) {
                    self.stages[ahead.part()].prefetch(ahead);
                }
                let entry = entries[at];
                group.push((self.stages[entry.part()].get(entry), entry.is_ancestor()));
                at += 1;
            }
            if group.len() > 1 {
                // Equal hashes of different names are next to impossible, and harmless: here the
                // names are told apart, and a search compares names.
                group.sort_by_key(|(staged, _)| (staged.depth, staged.owner));
            }
            for name in group.chunk_by(|(a, _), (b, _)| a.owner == b.owner) {
                self.name(hash, name)?;
            }
        }
        self.built.pool_used = self.used;
        Ok(self.built)
    }

    /// Writes the node of one name.
    fn name(&mut self, hash: u64, group: &[(Staged<'a>, bool)]) -> io::Result<()> {
        let first = group[0].0;
        let mut records = std::mem::take(&mut self.records);
        records.clear();
        records.extend(group.iter().filter(|(_, ancestor)| !ancestor).map(|(staged, _)| *staged));
        self.owner.join(first.owner, self.apex.as_wire()).expect("a staged owner is a whole name");
        let is_apex = first.owner.is_empty();
        if records.len() > 1 {
            records.sort_by_key(|record| (record.covered(), record.rtype == rtype::RRSIG));
        }
        check_name(&mut records, &self.owner, is_apex, &mut self.built.findings);
        let record_count = records.len();
        if self.hashed && first.depth == self.apex.depth() + 1 {
            self.take_hashed(&mut records)?;
            // A name of NSEC3 records alone does not exist (RFC 5155, 7.2.8).
            if records.is_empty() && record_count > 0 && !group.iter().any(|(_, above)| *above) {
                self.built.record_count += record_count;
                self.records = records;
                return Ok(());
            }
        }
        let rrset_count = records.chunk_by(|a, b| a.covered() == b.covered()).count();
        self.node.clear();
        self.node.extend_from_slice(&[0, first.owner.len() as u8]);
        self.node.extend_from_slice(&(rrset_count as u16).to_le_bytes());
        self.node.extend_from_slice(&[first.depth as u8, 0, 0, 0]);
        self.node.extend_from_slice(first.owner);
        debug_assert_eq!(self.node.len(), NODE_HEADER_LEN + first.owner.len());
        if self.hashed {
            let is_parent = is_apex || group.iter().any(|(_, above)| *above);
            self.node.extend_from_slice(&[0; 4]);
            self.node.extend_from_slice(&(if is_parent { PARENT } else { 0 }).to_le_bytes());
        }
        let directory_at = self.node.len();
        self.node.resize(directory_at + rrset_count * DIRECTORY_ENTRY_LEN, 0);
        let mut flags = if is_apex { flag::APEX } else { 0 };
        flags |= if self.hashed { flag::HASHED } else { 0 };
        for (i, set) in records.chunk_by(|a, b| a.covered() == b.covered()).enumerate() {
            let entry_at = directory_at + i * DIRECTORY_ENTRY_LEN;
            self.rrset(set, entry_at, is_apex);
            flags |= match set[0].covered() {
                rtype::NS if !is_apex => flag::CUT,
                rtype::DNAME => flag::DNAME,
                rtype::CNAME => flag::CNAME,
                _ => 0,
            };
        }
        self.node[0] = flags;
        self.records = records;
        self.place(hash, flags, record_count, &first)
    }

    /// Moves the NSEC3 RRset out of `records`, if their owner is the hash of a name.
    fn take_hashed(&mut self, records: &mut Vec<Staged<'a>>) -> io::Result<()> {
        let of_hash = |record: &Staged<'_>| record.covered() == rtype::NSEC3;
        let Some(first) = records.iter().find(|record| record.rtype == rtype::NSEC3) else {
            return Ok(());
        };
        let label = &first.owner[1..];
        let Some((hash, (params, _))) = Hash::from_label(label).zip(Params::read(first.rdata))
        else {
            return Ok(());
        };
        debug_assert_eq!(label.len(), LABEL_LEN);
        self.prepared.clear();
        self.signatures.clear();
        let (mut count, mut signature_count) = (0, 0);
        let ttl = records.iter().filter(|record| of_hash(record)).map(|record| record.ttl).min();
        for record in records.iter().filter(|record| of_hash(record)) {
            if record.rtype == rtype::RRSIG {
                self.sign(record);
                signature_count += 1;
            } else {
                self.prepared.body.extend_from_slice(first.owner);
                self.prepared.record(self.apex, record.rtype, ttl.unwrap_or(0), record.rdata);
                count += 1;
            }
        }
        self.node.clear();
        Block::write(
            &mut self.node,
            (count, &self.prepared.body),
            (signature_count, &self.signatures.body),
        );
        let known = self.built.params.iter().position(|known| *known == params);
        let params = known.unwrap_or_else(|| {
            let next = self.built.params.len();
            if next < NSEC3_CHAINS_MAX {
                self.built.params.push(params);
                return next;
            }
            // Of none of the chains that are told apart.
            NSEC3_CHAINS_MAX
        });
        let position = self.start + self.used;
        self.built.hashed.push(Hashed { hash, params: params as u32, position })?;
        self.pool[self.used..self.used + self.node.len()].copy_from_slice(&self.node);
        self.used += self.node.len().next_multiple_of(8);
        records.retain(|record| !of_hash(record));
        Ok(())
    }

    fn place(
        &mut self,
        hash: u64,
        flags: u8,
        record_count: usize,
        first: &Staged<'_>,
    ) -> io::Result<()> {
        let position = self.start + self.used;
        let pending = |link: &&mut PendingLink| link.at & PENDING != 0;
        for link in self.built.links.iter_mut().rev().take_while(pending) {
            link.at = (link.at & !PENDING) + position;
        }
        self.pool[self.used..self.used + self.node.len()].copy_from_slice(&self.node);
        self.used += self.node.len().next_multiple_of(8);
        self.built.nodes.push((hash, position))?;
        self.built.hides |= flags & (flag::CUT | flag::DNAME) != 0;
        self.built.depth_max = self.built.depth_max.max(first.depth);
        self.built.record_count += record_count;
        self.built.name_count += usize::from(record_count > 0);
        if first.owner.starts_with(b"\x01*") {
            self.built.wildcards.push(position);
        }
        Ok(())
    }

    /// Appends one RRset's block and fills its directory entry.
    fn rrset(&mut self, set: &[Staged<'a>], entry_at: usize, is_apex: bool) {
        let kind = set[0].covered();
        self.prepared.clear();
        self.signatures.clear();
        let (mut count, mut signature_count) = (0u16, 0u16);
        let ttl = set.iter().map(|record| record.ttl).min().unwrap_or(0);
        for record in set {
            if record.rtype == rtype::RRSIG {
                self.sign(record);
                signature_count += 1;
            } else {
                self.prepared.record(&self.owner, kind, ttl, record.rdata);
                count += 1;
            }
        }
        let mut targets = Vec::new();
        if let Some(target_at) = target_at(kind) {
            let records = set.iter().filter(|record| record.rtype != rtype::RRSIG);
            for (record, &position) in records.zip(&self.prepared.name_positions) {
                if let Some((target, is_below)) = self.link_target(record, target_at) {
                    let required = is_below && !is_apex && kind == rtype::NS;
                    targets.push((position, target, required, record));
                }
            }
        }
        let start = self.node.len();
        let full = signature_count > 0 || !self.prepared.fixes.is_empty() || !targets.is_empty();
        if full {
            let header = [
                &(self.signatures.body.len() as u32).to_le_bytes()[..],
                &signature_count.to_le_bytes(),
                &(self.prepared.fixes.len() as u16).to_le_bytes(),
                &(targets.len() as u16).to_le_bytes(),
                &[0, 0],
            ];
            header.iter().for_each(|octets| self.node.extend_from_slice(octets));
            debug_assert_eq!(self.node.len(), start + BLOCK_HEADER_LEN);
        }
        self.node.extend_from_slice(&self.prepared.body);
        if full {
            self.node.extend_from_slice(&self.signatures.body);
            for (position, what) in &self.prepared.fixes {
                debug_assert!(what & WITHIN != 0 || *what <= 255);
                self.node.extend_from_slice(&position.to_le_bytes());
                self.node.extend_from_slice(&what.to_le_bytes());
            }
            for (position, target, required, record) in targets {
                let position = if required { position | REQUIRED } else { position };
                self.node.extend_from_slice(&position.to_le_bytes());
                self.built.links.push(PendingLink {
                    at: self.node.len() | PENDING,
                    target,
                    required,
                    file: record.file,
                    line: record.line,
                });
                self.node.extend_from_slice(&[0; 4]);
            }
        }
        let start = start as u32 | if full { FULL } else { 0 };
        let entry = &mut self.node[entry_at..entry_at + DIRECTORY_ENTRY_LEN];
        entry[0..2].copy_from_slice(&kind.to_le_bytes());
        entry[2..4].copy_from_slice(&count.to_le_bytes());
        entry[4..8].copy_from_slice(&start.to_le_bytes());
        entry[8..12].copy_from_slice(&(self.prepared.body.len() as u32).to_le_bytes());
    }

    /// Prepares one RRSIG.
    fn sign(&mut self, record: &Staged<'_>) {
        self.signatures.record(&self.owner, record.rtype, record.ttl, record.rdata);
        if let Some(expiration) = record.rdata.get(8..12) {
            let expires = u32::from_be_bytes(expiration.try_into().expect("four octets"));
            self.built.expires = Some(self.built.expires.map_or(expires, |e| earlier(e, expires)));
        }
    }

    /// The name at `at` of RDATA if it lies in this zone, and whether at or below the owner.
    fn link_target(&self, record: &Staged<'_>, at: usize) -> Option<(Box<[u8]>, bool)> {
        let mut target = LowerName::new();
        target.read(record.rdata.get(at..)?)?;
        let within = |zone: &LowerName| {
            target.depth() >= zone.depth() && target.suffix(zone.depth()) == zone.as_wire()
        };
        // The root stands for "none" (RFC 2782, RFC 7505) and for the owner (RFC 9460).
        let here = within(self.apex) && !target.is_empty();
        here.then(|| (target.as_wire().into(), within(&self.owner)))
    }
}

/// The earlier of two times of signatures (RFC 4034, 3.1.5: serial numbers).
pub fn earlier(a: u32, b: u32) -> u32 {
    if (b.wrapping_sub(a) as i32) < 0 { b } else { a }
}

/// Marks a link's place as relative to the node under construction.
const PENDING: usize = 1 << 62;

/// `relative` with the apex appended.
pub fn full_name(relative: &[u8], apex: &[u8]) -> LowerName {
    let mut name = LowerName::new();
    name.join(relative, apex).expect("a staged owner is a whole name");
    name
}
