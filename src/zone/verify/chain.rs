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

//----------- NSEC -----------------------------------------------------------

fn check_order(zone: &Zone, order: &Order, findings: &mut Findings<'_>) {
    for node in zone.nodes() {
        let answers = node.flags() & flag::OCCLUDED == 0 && node.rrset_count() > 0;
        if answers && node.rrset(rtype::NSEC).is_none() {
            findings.error(&zone.name_of(node), rtype::NSEC, "an NSEC for this name");
        }
    }
    let positions = zone.nsec_positions(order);
    for (i, &position) in positions.iter().enumerate() {
        let node = zone.node(position);
        let owner = zone.name_of(node);
        let Some(nsec) = node.rrset(rtype::NSEC) else { continue };
        let rdata = nsec.first_rdata();
        let mut next = LowerName::new();
        let Some(next_len) = next.read(rdata) else {
            findings.error(&owner, rtype::NSEC, "a whole NSEC record");
            continue;
        };
        let after = zone.name_of(zone.node(positions[(i + 1) % positions.len()]));
        if next.as_wire() != after.as_wire() {
            findings.error(&owner, rtype::NSEC, "the next name of the zone (RFC 4034, 4.1.1)");
        }
        let expected = types_at(node);
        if types_of(&rdata[next_len..]) != expected {
            let expected = format!("the types at this name: {}", names_of(&expected));
            findings.error(&owner, rtype::NSEC, expected);
        }
    }
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
    let positions = zone.nsec3_positions(chain);
    for (i, &position) in positions.iter().enumerate() {
        let block = zone.block(position);
        let label = block.label();
        let owner = match names.get(&position) {
            Some(node) => zone.name_of(*node),
            None => zone.lower_apex().clone(),
        };
        let Some((next, bitmap)) = fields(block.rdata()) else {
            findings.error(&owner, rtype::NSEC3, "a whole NSEC3 record");
            continue;
        };
        let after = zone.block(positions[(i + 1) % positions.len()]).label();
        if Hash::from_label(after) != Some(next) {
            findings.error(&owner, rtype::NSEC3, "the next hash of the zone (RFC 5155, 3.1.7)");
        }
        let Some(node) = names.get(&position) else {
            let label = String::from_utf8_lossy(label);
            let expected = format!("a name in the zone with the hash {label}: none has it");
            findings.warning(&owner, rtype::NSEC3, expected);
            continue;
        };
        let expected = types_at(*node);
        if types_of(bitmap) != expected {
            let expected = format!("the types at this name: {}", names_of(&expected));
            findings.error(&owner, rtype::NSEC3, expected);
        }
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
