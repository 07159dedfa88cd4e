//! What one version of a zone has that another has not.

use std::collections::{HashMap, HashSet};

use crate::wire::LowerName;
use crate::zone::intake::{BadRdata, Intake};
use crate::zone::records::make_canonical;
use crate::zone::{LoadOptions, Zone};

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

/// What identifies a record in its zone: the TTL does not (RFC 2181, 5).
type Identity = (Box<[u8]>, u16, Vec<u8>);

impl Record {
    fn identity(&self) -> Identity {
        let mut rdata = self.rdata.to_vec();
        make_canonical(self.rtype, &mut rdata);
        (self.owner.clone(), self.rtype, rdata)
    }
}

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

/// The records of `zone` after `changes`, ready to be built.
pub fn apply(zone: &Zone, changes: &[Change], options: &LoadOptions) -> Result<Intake, Misfit> {
    // The net effect of all changes on each record: present with a TTL, or absent.
    let mut after: HashMap<Identity, Option<Record>> = HashMap::new();
    let mut missing: HashSet<Identity> = HashSet::new();
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
    let touched: HashSet<&[u8]> = after.keys().map(|(owner, ..)| &**owner).collect();
    let mut intake = Intake::new(zone.apex(), options);
    let bad = |BadRdata| Misfit::Bad;
    for rrset in zone.rrsets() {
        let owner: &LowerName = &rrset.owner;
        let is_touched = touched.contains(owner.as_wire());
        let records = rrset.records.into_iter().map(|record| (rrset.rtype, record));
        let signatures =
            rrset.signatures.into_iter().map(|record| (crate::wire::rtype::RRSIG, record));
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
