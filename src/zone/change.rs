//! What one version of a zone has that another has not: found, applied, kept.
//!
//! ```text
//!   diff      old zone, new zone ──> Change        (a file was read again, a whole zone came)
//!   apply     old zone, Changes ──> Intake         (changes came; see also amend)
//!   Journal   Change | Change | Change             (changes go out: serial 7 -> 8 -> 9 -> 12)
//! ```

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::limits::{JOURNAL_CHANGES_MAX, JOURNAL_OCTETS_MIN};
use crate::wire::{LowerName, rtype};

use super::intake::{BadRdata, Intake};
use super::node::{Node, Rrset};
use super::records::{Expanded, expand, make_canonical, signatures};
use super::{HashKey, LoadOptions, Zone};

//----------- Change ---------------------------------------------------------

/// A record of class IN, its RDATA expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// In wire form, lower case.
    pub owner: Box<[u8]>,
    /// The type.
    pub rtype: u16,
    /// Seconds.
    pub ttl: u32,
    /// In wire form, nothing compressed.
    pub rdata: Box<[u8]>,
}

/// From one serial to the next (RFC 1995, 4): SOA records are among the records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The serial before.
    pub from: u32,
    /// The serial after.
    pub to: u32,
    /// What is gone, the old SOA first.
    pub deleted: Vec<Record>,
    /// What is new, the new SOA first.
    pub added: Vec<Record>,
}

impl Change {
    /// Octets of its records, roughly as they are sent.
    pub fn len(&self) -> usize {
        let records = self.deleted.iter().chain(&self.added);
        records.map(|record| record.owner.len() + 10 + record.rdata.len()).sum()
    }

    /// Whether it has no records.
    pub fn is_empty(&self) -> bool {
        self.deleted.is_empty() && self.added.is_empty()
    }

    /// One change with the effect of all `changes`, which follow each other.
    pub fn condensed(changes: &[Arc<Change>]) -> Option<Change> {
        let (first, last) = (changes.first()?, changes.last()?);
        // For each record that was touched: as it was before, and as it is after.
        let mut net: BTreeMap<Identity, (Option<Record>, Option<Record>)> = BTreeMap::new();
        for change in changes {
            for record in &change.deleted {
                let before = || (Some(record.clone()), None);
                net.entry(record.identity()).and_modify(|net| net.1 = None).or_insert_with(before);
            }
            for record in &change.added {
                net.entry(record.identity()).or_default().1 = Some(record.clone());
            }
        }
        let mut condensed = Change { from: first.from, to: last.to, ..Change::default() };
        for (before, after) in net.into_values().filter(|(before, after)| before != after) {
            condensed.deleted.extend(before);
            condensed.added.extend(after);
        }
        condensed.soa_first();
        Some(condensed)
    }

    /// RFC 1995, 4: each list begins with its SOA.
    pub(crate) fn soa_first(&mut self) {
        for list in [&mut self.deleted, &mut self.added] {
            list.sort_by_key(|record| record.rtype != rtype::SOA);
        }
    }
}

/// What identifies a record in its zone: the TTL does not (RFC 2181, 5).
pub(super) type Identity = (Box<[u8]>, u16, Vec<u8>);

impl Record {
    /// Whether it is the same record, whatever its TTL.
    pub fn is_same(&self, other: &Record) -> bool {
        (&self.owner, self.rtype) == (&other.owner, other.rtype)
            && self.rdata.eq_ignore_ascii_case(&other.rdata)
            && (self.rdata == other.rdata || self.identity() == other.identity())
    }

    pub(super) fn identity(&self) -> Identity {
        let mut rdata = self.rdata.to_vec();
        make_canonical(self.rtype, &mut rdata);
        (self.owner.clone(), self.rtype, rdata)
    }
}

//----------- Applying -------------------------------------------------------

/// Why changes do not apply to a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// A record to be deleted is not there.
    NotThere,
    /// A record that cannot be in a zone.
    Bad,
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Misfit::NotThere => "a record to be deleted is not there",
            Misfit::Bad => "a record cannot be in a zone",
        })
    }
}

impl std::error::Error for Misfit {}

/// The effect of several changes on each record they name.
pub(super) struct Net {
    /// Present, or absent.
    pub after: BTreeMap<Identity, Option<Record>>,
    /// What the zone must have: taken out as it is found.
    pub missing: HashSet<Identity>,
}

impl Net {
    pub fn of(changes: &[Change]) -> Result<Net, Misfit> {
        let (mut after, mut missing) = (BTreeMap::new(), HashSet::new());
        for change in changes {
            for record in &change.deleted {
                let identity = record.identity();
                match after.get(&identity) {
                    // Whether the zone has it shows when its records are gone through.
                    None => drop(missing.insert(identity.clone())),
                    Some(Some(_)) => {}
                    Some(None) => return Err(Misfit::NotThere),
                }
                after.insert(identity, None);
            }
            for record in &change.added {
                after.insert(record.identity(), Some(record.clone()));
            }
        }
        Ok(Net { after, missing })
    }
}

/// The records of `zone` after `changes`, ready to be built.
pub fn apply(zone: &Zone, changes: &[Change], options: &LoadOptions) -> Result<Intake, Misfit> {
    let Net { after, mut missing } = Net::of(changes)?;
    let touched: HashSet<&[u8]> = after.keys().map(|(owner, ..)| &**owner).collect();
    let mut intake = Intake::new(zone.apex(), options);
    let bad = |BadRdata| Misfit::Bad;
    for rrset in zone.rrsets() {
        let owner: &LowerName = &rrset.owner;
        let is_touched = touched.contains(owner.as_wire());
        let records = rrset.records.into_iter().map(|record| (rrset.rtype, record));
        let signatures = rrset.signatures.into_iter().map(|record| (rtype::RRSIG, record));
        for (rtype, record) in records.chain(signatures) {
            if is_touched {
                let owner = owner.as_wire().into();
                let record =
                    Record { owner, rtype, ttl: record.ttl, rdata: record.rdata.as_slice().into() };
                let identity = record.identity();
                missing.remove(&identity);
                if after.contains_key(&identity) {
                    continue;
                }
            }
            intake.record(owner.as_wire(), rtype, record.ttl, &record.rdata).map_err(bad)?;
        }
    }
    if !missing.is_empty() {
        return Err(Misfit::NotThere);
    }
    for record in after.into_values().flatten() {
        intake.record(&record.owner, record.rtype, record.ttl, &record.rdata).map_err(bad)?;
    }
    Ok(intake)
}

//----------- Finding --------------------------------------------------------

/// What `new` has that `old` has not, and the other way round. Both were built with `key`.
pub fn diff(old: &Zone, new: &Zone, key: HashKey) -> Change {
    let mut change = Change { from: old.serial(), to: new.serial(), ..Change::default() };
    for node in old.nodes() {
        let name = old.name_of(node);
        let other = new.find(&name, name.depth(), key.name(&name)).map(|at| new.node(at));
        if other.is_none_or(|other| !is_same(node, other)) {
            difference(&name, Some(node), other, &mut change);
        }
    }
    for node in new.nodes() {
        let name = new.name_of(node);
        if old.find(&name, name.depth(), key.name(&name)).is_none() {
            difference(&name, None, Some(node), &mut change);
        }
    }
    blocks(old, new, &mut change);
    change.soa_first();
    change
}

/// Whether two nodes have the same records in the same order.
fn is_same(a: Node<'_>, b: Node<'_>) -> bool {
    let same = |(a, b): (Rrset<'_>, Rrset<'_>)| {
        a.rtype == b.rtype
            && a.body == b.body
            && a.signatures() == b.signatures()
            // Pointers of a body are relative: what they point to stands beside it.
            && a.fixes().eq(b.fixes())
    };
    a.rrset_count() == b.rrset_count() && a.rrsets().zip(b.rrsets()).all(same)
}

impl Zone {
    /// All records at `name`, which is hashed with `key`; NSEC3 records are at no name.
    pub fn records_at(&self, name: &LowerName, key: HashKey) -> Vec<Record> {
        let found = self.find(name, name.depth(), key.name(name));
        records(name, found.map(|at| self.node(at)))
    }
}

/// All records of a node.
pub(super) fn records(name: &LowerName, node: Option<Node<'_>>) -> Vec<Record> {
    let owner: Box<[u8]> = name.as_wire().into();
    let record = |rtype: u16, Expanded { rdata, ttl }: Expanded| Record {
        owner: owner.clone(),
        rtype,
        ttl,
        rdata: rdata.into(),
    };
    let mut all = Vec::new();
    for rrset in node.into_iter().flat_map(Node::rrsets) {
        all.extend(expand(rrset, name).into_iter().map(|it| record(rrset.rtype, it)));
        all.extend(signatures(rrset).into_iter().map(|it| record(rtype::RRSIG, it)));
    }
    all
}

fn difference(name: &LowerName, old: Option<Node<'_>>, new: Option<Node<'_>>, change: &mut Change) {
    change.compare(records(name, old), records(name, new));
}

impl Change {
    /// Takes what `new` has that `old` has not, and the other way round.
    pub(crate) fn compare(&mut self, old: Vec<Record>, new: Vec<Record>) {
        let set = |records: &[Record]| -> HashSet<(Identity, u32)> {
            records.iter().map(|record| (record.identity(), record.ttl)).collect()
        };
        let (before, after) = (set(&old), set(&new));
        let missing = |from: &HashSet<(Identity, u32)>, record: &Record| {
            !from.contains(&(record.identity(), record.ttl))
        };
        self.deleted.extend(old.into_iter().filter(|record| missing(&after, record)));
        self.added.extend(new.into_iter().filter(|record| missing(&before, record)));
    }
}

/// NSEC3 records are no nodes.
fn blocks(old: &Zone, new: &Zone, change: &mut Change) {
    let collect = |zone: &Zone| -> BTreeMap<Vec<u8>, Vec<Record>> {
        let mut all = BTreeMap::new();
        for block in zone.blocks() {
            let owned = zone.rrsets_of(super::records::Place::Block(block));
            for rrset in owned {
                let owner: Box<[u8]> = rrset.owner.as_wire().into();
                let of = |rtype: u16, it: Expanded| Record {
                    owner: owner.clone(),
                    rtype,
                    ttl: it.ttl,
                    rdata: it.rdata.into(),
                };
                let list: &mut Vec<Record> = all.entry(owner.to_vec()).or_default();
                list.extend(rrset.records.into_iter().map(|it| of(rtype::NSEC3, it)));
                list.extend(rrset.signatures.into_iter().map(|it| of(rtype::RRSIG, it)));
            }
        }
        all
    };
    let (mut before, after) = (collect(old), collect(new));
    for (owner, records) in after {
        let old = before.remove(&owner).unwrap_or_default();
        if old != records {
            change.compare(old, records);
        }
    }
    for records in before.into_values() {
        change.compare(records, Vec::new());
    }
}

//----------- Journal --------------------------------------------------------

/// Changes that follow each other, up to the version that is served.
#[derive(Clone, Default)]
pub struct Journal {
    changes: Vec<Arc<Change>>,
}

impl Journal {
    /// The journal after `changes` more, which lead to a zone of `zone_len` octets. What is too
    /// long ago is forgotten: whoever has that version is better off with the whole zone.
    pub fn after(&self, more: &[Arc<Change>], zone_len: usize) -> Journal {
        let mut changes = self.changes.clone();
        for change in more {
            if changes.last().is_some_and(|last| last.to != change.from) {
                changes.clear();
            }
            changes.push(Arc::clone(change));
        }
        let octets_max = zone_len.max(JOURNAL_OCTETS_MIN);
        let mut octets = 0;
        let kept = changes.iter().rev().take(JOURNAL_CHANGES_MAX).take_while(|change| {
            octets += change.len();
            octets <= octets_max
        });
        let kept = kept.count();
        changes.drain(..changes.len() - kept);
        Journal { changes }
    }

    /// All of them, the oldest first.
    pub fn changes(&self) -> &[Arc<Change>] {
        &self.changes
    }

    /// The changes from `serial` on; `None` if that version is not known.
    pub fn since(&self, serial: u32) -> Option<&[Arc<Change>]> {
        let at = self.changes.iter().position(|change| change.from == serial)?;
        Some(&self.changes[at..])
    }
}
