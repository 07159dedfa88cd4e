//! What proves that something does not exist: found and put in order when a zone is built.
//!
//! | the zone's apex has | names are denied by |
//! | --- | --- |
//! | NSEC3PARAM whose chain is there | NSEC3 (RFC 5155) |
//! | NSEC | NSEC (RFC 4034, 4) |
//! | neither, or no signature is in the zone | nothing: the zone is unsigned |
//!
//! During a change from one to the other a zone has both; the NSEC3PARAM record comes when its
//! chain is complete and goes before the chain does (RFC 5155, 10.4 and 10.5).

use std::io;

use crate::limits::{NAME_LEN_MAX, NSEC3_CHAINS_MAX};
use crate::wire::rtype;

use super::build::{Built, full_name, in_parallel};
use super::finish::pool_mut;
use super::node::flag;
use super::nsec3::{Chain, Hashed, Params};
use super::order::Order;
use super::{LoadOptions, Zone};

/// The denial of existence of one zone.
#[derive(Clone, Default)]
pub enum Denial {
    /// The zone is not signed.
    #[default]
    Unsigned,
    /// By NSEC.
    Nsec(Order),
    /// By NSEC3.
    Nsec3(Chain),
}

impl Denial {
    /// Octets of memory.
    pub fn memory_len(&self) -> usize {
        match self {
            Denial::Unsigned => 0,
            Denial::Nsec(order) => order.memory_len(),
            Denial::Nsec3(chain) => chain.memory_len(),
        }
    }
}

//----------- Building -------------------------------------------------------

/// Finds out how the zone denies, and prepares it. What is hidden by cuts must be known.
///
/// The error is what was expected of the zone.
pub fn complete(zone: &mut Zone, built: &mut [Built], options: &LoadOptions) -> Result<(), String> {
    // The root zone as it was published in 2018 without signatures has NSEC records: they are data.
    let is_signed = zone.signatures_expire.is_some();
    let params = if is_signed { chosen(zone, built) } else { None };
    let (iterations, max) =
        (params.as_ref().map_or(0, |params| params.iterations), options.nsec3_iterations_max);
    if iterations > max {
        return Err(format!(
            "at most {max} NSEC3 iterations, not {iterations}: sign it with none (RFC 9276, 3.1), \
             or raise nsec3_iterations_max"
        ));
    }
    let failed = |error: io::Error| format!("memory for the denial of existence: {error}");
    let (mut records, mut others) = (Vec::new(), Vec::new());
    for built in built.iter_mut() {
        let hashed = std::mem::take(&mut built.hashed);
        for record in &*hashed {
            if params.is_some() && built.params.get(record.params as usize) == params.as_ref() {
                records.push((record.hash, record.position));
            } else {
                others.push(record.position);
            }
        }
    }
    zone.other_blocks = others.into();
    if let Some(params) = params {
        records.sort_unstable();
        let chain = Chain::build(params, &records).map_err(failed)?;
        link(zone, built, &chain);
        zone.denial = Denial::Nsec3(chain);
    } else if is_signed && zone.node(zone.apex_at).rrset(rtype::NSEC).is_some() {
        let zone_ref = &*zone;
        let positions = in_parallel(built.len(), |i| {
            let nodes = built[i].nodes.iter().map(|&(_, position)| position);
            let answers = |&position: &usize| {
                let node = zone_ref.node(position);
                node.flags() & flag::OCCLUDED == 0 && node.rrset(rtype::NSEC).is_some()
            };
            nodes.filter(answers).collect::<Vec<_>>()
        });
        let order = Order::build(&zone.pool, &positions.concat()).map_err(failed)?;
        zone.denial = Denial::Nsec(order);
    }
    zone.pool_used += zone.denial.memory_len();
    Ok(())
}

/// The parameters of the chain that serves: named by an NSEC3PARAM without flags, and there.
fn chosen(zone: &Zone, built: &[Built]) -> Option<Params> {
    let announced = zone.node(zone.apex_at).rrset(rtype::NSEC3PARAM)?;
    let apex = zone.apex_wire();
    let is_there = |params: &Params| {
        let hash = params.hash(apex);
        built.iter().any(|built| {
            let of_chain =
                |record: &&Hashed| built.params.get(record.params as usize) == Some(params);
            built.hashed.iter().filter(of_chain).any(|record| record.hash == hash)
        })
    };
    // RFC 5155, 4.1.2: an NSEC3PARAM with flags is ignored.
    let usable = announced
        .rdatas()
        .take(NSEC3_CHAINS_MAX)
        .filter_map(Params::read)
        .filter(|(_, flags)| *flags == 0);
    usable.map(|(params, _)| params).filter(is_there).min_by_key(|params| params.iterations)
}

/// Tells every name where its own block is, and names with names below what covers their wildcard.
fn link(zone: &mut Zone, built: &[Built], chain: &Chain) {
    let shared = &*zone;
    let unit = |position: usize| (position / 8) as u32;
    let found = in_parallel(built.len(), |i| {
        let mut found = Vec::new();
        for &(_, position) in &*built[i].nodes {
            let node = shared.node(position);
            if node.flags() & flag::HASHED == 0 || node.flags() & flag::OCCLUDED != 0 {
                continue;
            }
            let name = full_name(node.owner(), shared.lower.as_wire());
            let hash = chain.params().hash(name.as_wire());
            let (block, matches) = chain.find(&shared.pool, hash);
            let own = if matches { unit(block) } else { 0 };
            let below =
                if node.is_parent() { over_wildcard(shared, chain, name.as_wire()) } else { None };
            let blocks = [own.to_le_bytes(), below.map_or(0, unit).to_le_bytes()];
            found.push((position + node.blocks_at(), blocks));
        }
        found
    });
    let pool = pool_mut(zone);
    for (at, blocks) in found.into_iter().flatten() {
        pool[at..at + 8].copy_from_slice(blocks.as_flattened());
    }
}

/// The block that covers the wildcard directly below `name`; `None` if there is such a wildcard.
fn over_wildcard(zone: &Zone, chain: &Chain, name: &[u8]) -> Option<usize> {
    let hash = chain.params().hash(wildcard_of(name, &mut [0; NAME_LEN_MAX + 2])?);
    let (block, matches) = chain.find(&zone.pool, hash);
    (!matches).then_some(block)
}

/// The wildcard directly below `name`, in wire form; `None` if it would be too long to exist.
pub fn wildcard_of<'a>(name: &[u8], room: &'a mut [u8; NAME_LEN_MAX + 2]) -> Option<&'a [u8]> {
    let len = 2 + name.len();
    if len > NAME_LEN_MAX {
        return None;
    }
    room[..2].copy_from_slice(b"\x01*");
    room[2..len].copy_from_slice(name);
    Some(&room[..len])
}
