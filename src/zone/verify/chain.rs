//! Whether every name can be denied and no name is: the chains of NSEC and NSEC3.

use std::collections::HashMap;

use crate::wire::{LowerName, rtype};
use crate::zone::node::flag;
use crate::zone::nsec3::{Chain, HASH_LEN, Hash, Params};
use crate::zone::{Denial, Node, Order, Zone};

use super::{Findings, types_of};

/// NSEC3's flag that unsigned delegations may be left out (RFC 5155, 3.1.2.1).
const OPT_OUT: u8 = 1;

pub fn check(zone: &Zone, findings: &mut Findings<'_>) {
    match zone.denial() {
        Denial::Unsigned => {}
        Denial::Nsec(order) => check_order(zone, order, findings),
        Denial::Nsec3(chain) => check_chain(zone, chain, findings),
    }
}

/// The types at `node` that the zone answers for, NSEC and RRSIG as they are there.
fn types_at(node: Node<'_>) -> Vec<u16> {
    let cut = node.flags() & flag::CUT != 0;
    let mut types = Vec::new();
    let mut signed = false;
    for rrset in node.rrsets() {
        if cut && !matches!(rrset.rtype, rtype::NS | rtype::DS | rtype::NSEC) {
            continue;
        }
        if rrset.count > 0 {
            types.push(rrset.rtype);
        }
        signed |= rrset.signatures().0 > 0;
    }
    if signed {
        types.push(rtype::RRSIG);
    }
    types.sort_unstable();
    types
}

fn names_of(types: &[u16]) -> String {
    types.iter().map(|&rtype| rtype::name(rtype)).collect::<Vec<_>>().join(" ")
}

/// Checks what the names and NSEC3 blocks at these positions, which have changed since `before`,
/// can break: their own links of the chain and those that lead to them. Names may be gone. `false`
/// if only a look at all names would tell.
pub fn check_amended(
    zone: &Zone,
    before: &Zone,
    (names, blocks): (&[usize], &[usize]),
    findings: &mut Findings<'_>,
) -> bool {
    let gone = |node: Node<'_>| node.flags() & flag::GONE != 0;
    match (zone.denial(), before.denial()) {
        (Denial::Unsigned, _) => {}
        (Denial::Nsec(order), _) => {
            for node in names.iter().map(|&position| zone.node(position)) {
                if !gone(node) {
                    check_has_nsec(zone, node, findings);
                    check_nsec(zone, order, node, findings);
                }
                let ahead = zone.node(zone.nsec_before(order, node.owner()));
                check_nsec(zone, order, ahead, findings);
            }
        }
        (Denial::Nsec3(chain), Denial::Nsec3(old)) => {
            let mut hashes: Vec<Hash> = Vec::new();
            for node in names.iter().map(|&position| zone.node(position)) {
                let hash = chain.params().hash(zone.name_of(node).as_wire());
                hashes.push(hash);
                if gone(node) || node.flags() & flag::OCCLUDED != 0 {
                    continue;
                }
                match zone.nsec3_over(chain, hash) {
                    (block, true) => check_nsec3(zone, chain, block, Some(node), findings),
                    (_, false) => check_left_out(zone, chain, node, findings),
                }
            }
            if zone.removed_blocks().iter().any(|hash| !hashes.contains(hash)) {
                return false;
            }
            let of_block = |block: &usize| Hash::from_label(zone.block(*block).label());
            for hash in blocks.iter().filter_map(of_block) {
                if !hashes.contains(&hash) && !says_the_same(zone, before, chain, old, hash) {
                    return false;
                }
                if loses_opt_out(zone, before, chain, old, hash) {
                    return false;
                }
                hashes.push(hash);
            }
            for hash in hashes {
                let (block, _) = zone.nsec3_over(chain, hash);
                for block in [block, zone.nsec3_before(chain, hash)] {
                    check_next(zone, chain, block, findings);
                }
            }
        }
        (Denial::Nsec3(_), _) => return false,
    }
    true
}

/// Whether the block of `hash` has the types it had before, for a name that has not changed.
fn says_the_same(zone: &Zone, before: &Zone, chain: &Chain, old: &Chain, hash: Hash) -> bool {
    let bitmap = |zone: &Zone, chain: &Chain| {
        let (block, matches) = zone.nsec3_over(chain, hash);
        let bitmap = fields(zone.block(block).rdata())?.1.to_vec();
        matches.then_some(bitmap)
    };
    let is = bitmap(zone, chain);
    is.is_some() && is == bitmap(before, old)
}

/// Whether what is at or over `hash` had an opt-out that it has no more: names without an NSEC3 may
/// be below it.
fn loses_opt_out(zone: &Zone, before: &Zone, chain: &Chain, old: &Chain, hash: Hash) -> bool {
    let has = |zone: &Zone, chain: &Chain| {
        let block = zone.block(zone.nsec3_over(chain, hash).0);
        Params::read(block.rdata()).is_some_and(|(_, flags)| flags & OPT_OUT != 0)
    };
    has(before, old) && !has(zone, chain)
}

//----------- NSEC -----------------------------------------------------------

fn check_order(zone: &Zone, order: &Order, findings: &mut Findings<'_>) {
    for node in zone.nodes() {
        check_has_nsec(zone, node, findings);
        check_nsec(zone, order, node, findings);
    }
}

fn check_has_nsec(zone: &Zone, node: Node<'_>, findings: &mut Findings<'_>) {
    let answers = node.flags() & flag::OCCLUDED == 0 && node.rrset_count() > 0;
    if answers && node.rrset(rtype::NSEC).is_none() {
        findings.error(&zone.name_of(node), rtype::NSEC, "an NSEC for this name");
    }
}

/// Checks the NSEC of a name, if it has one that denies.
fn check_nsec(zone: &Zone, order: &Order, node: Node<'_>, findings: &mut Findings<'_>) {
    if node.flags() & flag::OCCLUDED != 0 {
        return;
    }
    let owner = zone.name_of(node);
    let Some(nsec) = node.rrset(rtype::NSEC) else { return };
    let rdata = nsec.first_rdata();
    let mut next = LowerName::new();
    let Some(next_len) = next.read(rdata) else {
        findings.error(&owner, rtype::NSEC, "a whole NSEC record");
        return;
    };
    if !is_next(zone, order, node, &next) {
        findings.error(&owner, rtype::NSEC, "the next name of the zone (RFC 4034, 4.1.1)");
    }
    let expected = types_at(node);
    if types_of(&rdata[next_len..]) != expected {
        let expected = format!("the types at this name: {}", names_of(&expected));
        findings.error(&owner, rtype::NSEC, expected);
    }
}

/// Whether `next` has an NSEC, and `node` the one before it.
fn is_next(zone: &Zone, order: &Order, node: Node<'_>, next: &LowerName) -> bool {
    let depth = zone.apex_depth();
    if next.depth() < depth || next.suffix(depth) != zone.apex_wire() {
        return false;
    }
    let relative = &next.as_wire()[..next.len() - zone.apex_len()];
    zone.node(zone.nsec_over(order, relative)).owner() == relative
        && zone.node(zone.nsec_before(order, relative)).owner() == node.owner()
}

//----------- NSEC3 ----------------------------------------------------------

fn check_chain(zone: &Zone, chain: &Chain, findings: &mut Findings<'_>) {
    let mut names: HashMap<usize, Node<'_>> = HashMap::with_capacity(chain.len());
    for node in zone.nodes().filter(|node| node.flags() & flag::OCCLUDED == 0) {
        match zone.matching_block(chain, node) {
            Some(block) => {
                names.insert(block, node);
            }
            None => check_left_out(zone, chain, node, findings),
        }
    }
    for position in zone.nsec3_positions(chain) {
        check_nsec3(zone, chain, position, names.get(&position).copied(), findings);
        check_next(zone, chain, position, findings);
    }
}

/// Checks that the block at `position`, which `node` matches, has its types.
fn check_nsec3(
    zone: &Zone,
    chain: &Chain,
    position: usize,
    node: Option<Node<'_>>,
    findings: &mut Findings<'_>,
) {
    let block = zone.block(position);
    let Some(node) = node else {
        let label = String::from_utf8_lossy(block.label());
        let expected = format!("a name in the zone with the hash {label}: none has it");
        findings.warning(&zone.lower_apex(), rtype::NSEC3, expected);
        return;
    };
    let Some((_, bitmap)) = fields(block.rdata()) else { return };
    let expected = types_at(node);
    debug_assert!(zone.matching_block(chain, node) == Some(position));
    if types_of(bitmap) != expected {
        let expected = format!("the types at this name: {}", names_of(&expected));
        findings.error(&zone.name_of(node), rtype::NSEC3, expected);
    }
}

/// Checks that the block at `position` names the hash of the next.
fn check_next(zone: &Zone, chain: &Chain, position: usize, findings: &mut Findings<'_>) {
    let block = zone.block(position);
    let label = String::from_utf8_lossy(block.label());
    let Some((next, _)) = fields(block.rdata()) else {
        let expected = format!("a whole NSEC3 record, {label}");
        findings.error(&zone.lower_apex(), rtype::NSEC3, expected);
        return;
    };
    let is_next = zone.nsec3_over(chain, next).1 && zone.nsec3_before(chain, next) == position;
    if !is_next {
        let expected = format!("the next hash of the zone (RFC 5155, 3.1.7), at {label}");
        findings.error(&zone.lower_apex(), rtype::NSEC3, expected);
    }
}

/// A name without an NSEC3: under an opt-out, unsigned delegations and what is only above such.
fn check_left_out(zone: &Zone, chain: &Chain, node: Node<'_>, findings: &mut Findings<'_>) {
    let owner = zone.name_of(node);
    let unsigned_cut = node.flags() & flag::CUT != 0 && node.rrset(rtype::DS).is_none();
    let hash = chain.params().hash(owner.as_wire());
    let covering = zone.block(zone.nsec3_over(chain, hash).0);
    let opt_out = Params::read(covering.rdata()).is_some_and(|(_, flags)| flags & OPT_OUT != 0);
    if !(opt_out && (unsigned_cut || node.rrset_count() == 0)) {
        findings.error(&owner, rtype::NSEC3, "an NSEC3 for this name");
    }
}

/// The next hash and the bitmap of an NSEC3.
fn fields(rdata: &[u8]) -> Option<(Hash, &[u8])> {
    let after_salt = 5 + usize::from(*rdata.get(4)?);
    let (len, rest) = rdata.get(after_salt..)?.split_first()?;
    if usize::from(*len) != HASH_LEN {
        return None;
    }
    let (next, bitmap) = rest.split_first_chunk::<HASH_LEN>()?;
    Some((Hash(*next), bitmap))
}
