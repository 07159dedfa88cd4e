//! Whether the records of a zone go together: errors and warnings as the peers have them.
//!
//! | rule | severity | peers |
//! | --- | --- | --- |
//! | a SOA at the apex, one, and nowhere else | error | NSD, Knot, BIND refuse the zone |
//! | NS at the apex | warning | NSD and Knot load it |
//! | CNAME alone at its name; one CNAME, one DNAME | error | NSD, Knot, BIND refuse the zone |
//! | class IN | error | NSD, Knot refuse the zone |
//! | records outside the zone | warning, left out | Knot, BIND leave them out |
//! | addresses for name servers below their own cut | warning | Knot warns |
//! | nothing below a cut but addresses, nothing below a DNAME | warning | Knot, BIND warn |
//! | at most 32,767 records in an RRset | error | BIND: 100 |
//! | one TTL for an RRset | warning, the lowest serves | Knot, BIND warn |

use std::collections::HashSet;

use crate::limits::RRSET_RECORDS_MAX;
use crate::wire::{LowerName, Name, rtype};

use super::diagnostic::{Diagnostic, Severity};
use super::stage::Staged;

/// A fault found while building: a diagnostic that does not know its file's name yet.
pub struct Finding {
    pub severity: Severity,
    pub file: u16,
    pub line: u32,
    pub owner: Box<[u8]>,
    pub rtype: u16,
    pub expected: &'static str,
}

impl Finding {
    fn new(
        severity: Severity,
        record: &Staged<'_>,
        owner: &LowerName,
        expected: &'static str,
    ) -> Finding {
        Finding {
            severity,
            file: record.file,
            line: record.line,
            owner: owner.as_wire().into(),
            rtype: record.rtype,
            expected,
        }
    }

    /// The finding for people.
    pub fn into_diagnostic(self, files: &[String]) -> Diagnostic {
        let owner =
            Name::from_wire(&self.owner).map_or_else(|_| "?".into(), |name| name.to_string());
        Diagnostic {
            severity: self.severity,
            file: files.get(self.file as usize).cloned().unwrap_or_default(),
            line: self.line,
            column: 0,
            text: format!("{owner} {}", rtype::name(self.rtype)),
            expected: self.expected.into(),
        }
    }
}

/// Checks the records of one name, sorted by type, and removes repeated ones.
pub fn check_name(
    records: &mut Vec<Staged<'_>>,
    owner: &LowerName,
    is_apex: bool,
    findings: &mut Vec<Finding>,
) {
    if records.len() > 1 {
        remove_repeated(records);
    }
    let mut is_long = false;
    let mut find = |severity, record: &Staged<'_>, expected| {
        findings.push(Finding::new(severity, record, owner, expected));
    };
    for set in records.chunk_by(|a, b| a.rtype == b.rtype && a.covered() == b.covered()) {
        let first = &set[0];
        if set.len() > RRSET_RECORDS_MAX {
            is_long = true;
            find(Severity::Error, first, "at most 32767 records of a name and type");
        }
        match first.rtype {
            rtype::SOA if !is_apex => {
                find(Severity::Error, first, "a SOA only at the zone's own name");
            }
            rtype::SOA if set.len() > 1 => {
                find(Severity::Error, &set[1], "one SOA (a second one must be identical)");
            }
            rtype::CNAME if set.len() > 1 => {
                find(Severity::Error, &set[1], "one CNAME at a name (RFC 2181, 10.1)");
            }
            rtype::DNAME if set.len() > 1 => {
                find(Severity::Error, &set[1], "one DNAME at a name (RFC 6672, 2.4)");
            }
            _ => {}
        }
        if first.rtype != rtype::RRSIG
            && let Some(other) = set.iter().find(|record| record.ttl != first.ttl)
        {
            find(
                Severity::Warning,
                other,
                "one TTL for all records of a name and type (RFC 2181, 5.2): the lowest is served",
            );
        }
    }
    if let Some(cname) = records.iter().find(|record| record.rtype == rtype::CNAME) {
        //= RFC 2181, 10.1
        //# An alias name (label of a CNAME record) may, if DNSSEC is in use,
        //# have SIG, NXT, and KEY RRs, but may have no other data.
        let beside =
            |rtype| !matches!(rtype, rtype::CNAME | rtype::RRSIG | rtype::NSEC | rtype::KEY);
        if records.iter().any(|record| beside(record.rtype)) {
            find(Severity::Error, cname, "a CNAME alone at its name (RFC 1034, 3.6.2)");
        }
    }
    if is_long {
        // Nothing comes of it; what goes on must not count past its numbers.
        records.truncate(RRSET_RECORDS_MAX);
    }
}

fn remove_repeated(records: &mut Vec<Staged<'_>>) {
    const SMALL: usize = 16;
    if records.len() <= SMALL {
        let mut kept = 0;
        for i in 0..records.len() {
            let record = records[i];
            let same =
                |other: &Staged<'_>| other.rtype == record.rtype && other.rdata == record.rdata;
            if !records[..kept].iter().any(same) {
                records[kept] = record;
                kept += 1;
            }
        }
        records.truncate(kept);
    } else {
        let mut seen = HashSet::new();
        records.retain(|record| seen.insert((record.rtype, record.rdata)));
    }
}
