//! What can be known of a name only when all names are placed: its wildcard, what hides it, where
//! its name servers' addresses are; and the checks of the zone as a whole.

use std::io;
use std::sync::Arc;

use crate::limits::DIAGNOSTICS_MAX;
use crate::wire::{LowerName, Name, rtype};

use super::build::{Built, PendingLink, build, earlier, full_name, in_parallel};
use super::check::Finding;
use super::denial::{self, Denial};
use super::diagnostic::{Diagnostic, Severity};
use super::hash::{HashKey, SuffixHashes};
use super::index::Index;
use super::node::{
    BLOCK_HEADER_LEN, CHILDREN_AT, CUT_DEPTH_AT, DIRECTORY_ENTRY_LEN, FULL, NODE_HEADER_LEN, Node,
    flag, owner_len,
};
use super::stage::{Misplaced, Stage};
use super::{LoadOptions, Zone};

/// Warnings of one kind that are worth printing.
const WARNINGS_PER_KIND_MAX: usize = 20;

/// Builds the zone of `stages`; adds to `diagnostics` what is wrong with it as a whole.
pub fn finish(
    apex: &Name,
    lower_apex: LowerName,
    stages: &[Stage],
    files: &[String],
    options: &LoadOptions,
    threads: usize,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Zone> {
    let key = options.key;
    let file = files.first().map_or("", String::as_str);
    misplaced(stages, files, &lower_apex, diagnostics);
    let result = assemble(apex, &lower_apex, stages, threads);
    let (mut zone, mut built) = match result {
        Ok(built) => built,
        Err(error) => {
            let expected = format!("memory for the zone: {error}");
            diagnostics.push(whole(Severity::Error, file, expected));
            return None;
        }
    };
    let findings = built.iter_mut().flat_map(|built| std::mem::take(&mut built.findings));
    let mut findings: Vec<_> = findings.collect();
    findings.sort_by_key(|finding| (finding.file, finding.line));
    for finding in findings.into_iter().take(DIAGNOSTICS_MAX) {
        diagnostics.push(finding.into_diagnostic(files));
    }
    mark_wildcards(&mut zone, &built, key);
    relate(&mut zone, &built, key, file, diagnostics);
    let links = built.iter().flat_map(|built| &built.links);
    let units = resolve_links(&zone, links, key, files, diagnostics);
    let pool = pool_mut(&mut zone);
    for (at, unit) in units {
        pool[at..at + 4].copy_from_slice(&unit.to_le_bytes());
    }
    if !complete_apex(&mut zone, key, file, diagnostics) {
        return None;
    }
    if let Err(expected) = denial::complete(&mut zone, &mut built, options) {
        diagnostics.push(whole(Severity::Error, file, expected));
        return None;
    }
    Some(zone)
}

/// The pool of a zone under construction.
pub fn pool_mut(zone: &mut Zone) -> &mut [u8] {
    zone.pool.get_mut().expect("a zone under construction has one owner")
}

pub fn whole(severity: Severity, file: &str, expected: String) -> Diagnostic {
    Diagnostic { severity, file: file.into(), line: 0, column: 0, text: String::new(), expected }
}

fn misplaced(
    stages: &[Stage],
    files: &[String],
    apex: &LowerName,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let zone = Name::from_wire(apex.as_wire()).expect("a name is a name");
    for (what, file, line, owner) in stages.iter().flat_map(|stage| &stage.refused) {
        if diagnostics.len() >= DIAGNOSTICS_MAX {
            break;
        }
        let (severity, expected) = match what {
            Misplaced::Class => (Severity::Error, "class IN".to_string()),
            Misplaced::OutOfZone => {
                (Severity::Warning, format!("a name at or below {zone}: the record is left out"))
            }
        };
        diagnostics.push(Diagnostic {
            severity,
            file: files.get(*file as usize).cloned().unwrap_or_default(),
            line: *line,
            column: 1,
            text: Name::from_wire(owner).map_or_else(|_| "?".into(), |name| name.to_string()),
            expected,
        });
    }
    for error in stages.iter().filter_map(|stage| stage.failed.as_ref()) {
        let expected = format!("memory for the records: {error}");
        diagnostics.push(whole(Severity::Error, "", expected));
    }
}

fn assemble(
    apex: &Name,
    lower_apex: &LowerName,
    stages: &[Stage],
    threads: usize,
) -> io::Result<(Zone, Vec<Built>)> {
    // A small zone is built before a second thread would have started.
    let total: usize = stages.iter().map(|stage| stage.entries.len()).sum();
    let threads = if total < 20_000 { 1 } else { threads };
    let (pool, built) = build(stages, lower_apex, threads)?;
    let count = built.iter().map(|built| built.nodes.len()).sum();
    let index = Index::build(count, built.iter().flat_map(|built| built.nodes.iter().copied()))?;
    let sum = |what: fn(&Built) -> usize| built.iter().map(what).sum();
    let zone = Zone {
        apex: apex.clone(),
        lower: apex.to_lowercase(),
        apex_labels: lower_apex.depth() as u8,
        apex_len: lower_apex.len(),
        index,
        pool_used: built.iter().map(|built| built.pool_used).sum(),
        pool: pool.into(),
        apex_at: 0,
        overlay: None,
        negative: Box::default(),
        denial: Denial::Unsigned,
        signatures_expire: built.iter().filter_map(|built| built.expires).reduce(earlier),
        other_blocks: Arc::default(),
        depth_max: built.iter().map(|built| built.depth_max).max().unwrap_or(0),
        serial: 0,
        record_count: sum(|built| built.record_count),
        name_count: sum(|built| built.name_count),
    };
    Ok((zone, built))
}

//----------- Wildcards ------------------------------------------------------

fn mark_wildcards(zone: &mut Zone, built: &[Built], key: HashKey) {
    let shared = &*zone;
    let above = |&position: &usize| {
        let name = full_name(shared.node(position).owner(), shared.lower.as_wire());
        let mut parent = LowerName::new();
        parent.read(name.suffix(name.depth() - 1))?;
        shared.find(&parent, parent.depth(), key.name(&parent))
    };
    let wildcards = built.iter().flat_map(|built| &built.wildcards);
    let parents: Vec<usize> = wildcards.filter_map(above).collect();
    let pool = pool_mut(zone);
    parents.into_iter().for_each(|at| pool[at] |= flag::WILDCARD_CHILD);
}

//----------- What is above --------------------------------------------------

/// Marks every node below a cut or a DNAME with the depth of the topmost one, and tells every name
/// but the apex how many names are directly below it.
fn relate(
    zone: &mut Zone,
    built: &[Built],
    key: HashKey,
    file: &str,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let shared = &*zone;
    let hides = built.iter().any(|built| built.hides);
    // Names directly below the apex are most of a large zone, and the apex never goes.
    let deep = shared.apex_depth() + 2;
    let found = in_parallel(built.len(), |i| {
        let mut hashes: Box<SuffixHashes> = Box::new([0; _]);
        let (mut hidden, mut parents) = (Vec::new(), Vec::new());
        for &(_, position) in &*built[i].nodes {
            let node = shared.node(position);
            let depth = node.depth();
            if hides && let Some(depth) = hidden_by(shared, node, key, &mut hashes) {
                hidden.push((position, depth));
            }
            if depth >= deep {
                let name = full_name(node.owner(), shared.lower.as_wire());
                if !hides {
                    key.suffixes(&name, &mut hashes);
                }
                parents.extend(shared.find(&name, depth - 1, hashes[depth - 1]));
            }
        }
        (hidden, parents)
    });
    let mut warned = 0;
    for (hidden, parents) in found {
        let pool = pool_mut(zone);
        for &(position, depth) in &hidden {
            pool[position] |= flag::OCCLUDED;
            pool[position + CUT_DEPTH_AT] = depth as u8;
        }
        for at in parents.into_iter().map(|position| position + CHILDREN_AT) {
            let count = u16::from_le_bytes([pool[at], pool[at + 1]]).saturating_add(1);
            pool[at..at + 2].copy_from_slice(&count.to_le_bytes());
        }
        for (position, _) in hidden {
            let Some(warning) = never_answered(zone, zone.node(position), file) else { continue };
            warned += 1;
            if warned <= WARNINGS_PER_KIND_MAX && diagnostics.len() < DIAGNOSTICS_MAX {
                diagnostics.push(warning);
            }
        }
    }
}

/// What is wrong with the records of a node that something above hides.
pub fn never_answered(zone: &Zone, node: Node<'_>, file: &str) -> Option<Diagnostic> {
    let glue = |rtype| matches!(rtype, rtype::A | rtype::AAAA | rtype::RRSIG | rtype::NSEC);
    let rrset = node.rrsets().find(|rrset| !glue(rrset.rtype))?;
    let name = Name::from_wire(zone.name_of(node).as_wire()).expect("a name is a name");
    let expected = "only addresses below a delegation and nothing below a DNAME: this is never \
                    answered";
    let mut warning = whole(Severity::Warning, file, expected.into());
    warning.text = format!("{name} {}", rtype::name(rrset.rtype));
    Some(warning)
}

/// The depth of the topmost cut or DNAME above `node`.
pub fn hidden_by(
    zone: &Zone,
    node: Node<'_>,
    key: HashKey,
    hashes: &mut SuffixHashes,
) -> Option<usize> {
    let apex_depth = zone.apex_depth();
    let hides = |node: Node<'_>, at_apex: bool| {
        node.flags() & if at_apex { flag::DNAME } else { flag::CUT | flag::DNAME } != 0
    };
    if node.depth() <= apex_depth {
        return None;
    }
    let name = full_name(node.owner(), zone.lower.as_wire());
    key.suffixes(&name, hashes);
    (apex_depth..node.depth()).find(|&depth| {
        zone.find(&name, depth, hashes[depth])
            .is_some_and(|at| hides(zone.node(at), depth == apex_depth))
    })
}

//----------- Links ----------------------------------------------------------

/// Finds the nodes that links point to: `(where in the pool the link's is, the node's unit)`.
pub fn resolve_links<'l>(
    zone: &Zone,
    links: impl Iterator<Item = &'l PendingLink>,
    key: HashKey,
    files: &[String],
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<(usize, u32)> {
    let mut units = Vec::new();
    let mut hashes: Box<SuffixHashes> = Box::new([0; _]);
    let mut warned = 0;
    for link in links {
        let mut target = LowerName::new();
        target.read(&link.target).expect("a name is a name");
        let found = zone.find(&target, target.depth(), key.name(&target));
        let is_target = |at: &usize| is_target(zone, zone.node(*at), &target, key, &mut hashes);
        match found.filter(is_target) {
            Some(at) => units.push((link.at, (at / 8) as u32)),
            None if link.required => {
                warned += 1;
                if warned <= WARNINGS_PER_KIND_MAX && diagnostics.len() < DIAGNOSTICS_MAX {
                    let finding = Finding {
                        severity: Severity::Warning,
                        file: link.file,
                        line: link.line,
                        owner: link.target.clone(),
                        rtype: rtype::A,
                        expected: "an address for a name server below its own delegation (glue)",
                    };
                    diagnostics.push(finding.into_diagnostic(files));
                }
            }
            None => {}
        }
    }
    units
}

/// Whether whoever refers to `name` is told the addresses of its node.
pub fn is_target(
    zone: &Zone,
    node: Node<'_>,
    name: &LowerName,
    key: HashKey,
    hashes: &mut SuffixHashes,
) -> bool {
    (node.rrset(rtype::A).is_some() || node.rrset(rtype::AAAA).is_some())
        && !is_below_dname(zone, node, name, key, hashes)
}

/// Whether a DNAME stands for `name`, whose node has addresses nobody can ask for.
fn is_below_dname(
    zone: &Zone,
    node: Node<'_>,
    name: &LowerName,
    key: HashKey,
    hashes: &mut SuffixHashes,
) -> bool {
    if node.flags() & flag::OCCLUDED == 0 {
        return false;
    }
    key.suffixes(name, hashes);
    let depth = node.cut_depth();
    let hiding = zone.find(name, depth, hashes[depth]).expect("it was found to hide the node");
    zone.node(hiding).flags() & flag::CUT == 0
}

//----------- The apex -------------------------------------------------------

/// Finds the apex, reads its SOA, and prepares the SOA of negative answers.
pub fn complete_apex(
    zone: &mut Zone,
    key: HashKey,
    file: &str,
    diagnostics: &mut Vec<Diagnostic>,
) -> bool {
    let apex = zone.lower_apex();
    let found = zone.find(&apex, apex.depth(), key.name(&apex));
    let soa = found.and_then(|at| zone.node(at).rrset(rtype::SOA).map(|soa| (at, soa)));
    let Some((at, soa)) = soa else {
        let expected = format!("a SOA record for {} in the zone", zone.apex);
        diagnostics.push(whole(Severity::Error, file, expected));
        return false;
    };
    if zone.node(at).rrset(rtype::NS).is_none() {
        let expected = format!("NS records for {}", zone.apex);
        diagnostics.push(whole(Severity::Warning, file, expected));
    }
    // The five numbers end the RDATA, whatever became of the names before them.
    let rdata = soa.first_rdata();
    let Some(numbers) = rdata.len().checked_sub(20).map(|start| &rdata[start..]) else {
        diagnostics.push(whole(Severity::Error, file, "a whole SOA record".into()));
        return false;
    };
    let number = |at: usize| u32::from_be_bytes(numbers[at..at + 4].try_into().expect("four"));
    let (serial, minimum) = (number(0), number(16));
    //= RFC 2308, 3
    //# The TTL of this record is set from the minimum of the MINIMUM field
    //# of the SOA record and the TTL of the SOA itself
    let ttl = soa.ttl().min(minimum);
    let negative = negative_node(zone.node(at), ttl);
    zone.pool_used += negative.len();
    zone.apex_at = at;
    zone.negative = negative.into();
    zone.serial = serial;
    true
}

/// A copy of the apex's node whose SOA has `ttl`.
fn negative_node(apex: Node<'_>, ttl: u32) -> Vec<u8> {
    let soa = apex.rrset(rtype::SOA).expect("checked by the caller");
    let mut node = vec![0, 0, 1, 0, 0, 0, 0, 0];
    debug_assert_eq!(node.len(), NODE_HEADER_LEN);
    let (block, full) = soa.to_block();
    let start = (NODE_HEADER_LEN + DIRECTORY_ENTRY_LEN) as u32 | if full { FULL } else { 0 };
    node.extend_from_slice(&rtype::SOA.to_le_bytes());
    node.extend_from_slice(&soa.count.to_le_bytes());
    node.extend_from_slice(&start.to_le_bytes());
    node.extend_from_slice(&(soa.body.len() as u32).to_le_bytes());
    let body_at = node.len() + if full { BLOCK_HEADER_LEN } else { 0 };
    node.extend_from_slice(&block);
    let owner_len = owner_len(soa.body);
    let ttl_at = body_at + owner_len + 4;
    node[ttl_at..ttl_at + 4].copy_from_slice(&ttl.to_be_bytes());
    // Signatures carry the same TTL as what they cover (RFC 4034, 3).
    let (_, signatures) = soa.signatures();
    let mut at = body_at + soa.body.len();
    let end = at + signatures.len();
    while at < end {
        node[at + owner_len + 4..at + owner_len + 8].copy_from_slice(&ttl.to_be_bytes());
        let rdlen_at = at + owner_len + 8;
        at = rdlen_at + 2 + u16::from_be_bytes([node[rdlen_at], node[rdlen_at + 1]]) as usize;
    }
    node
}
