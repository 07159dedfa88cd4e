//! Writes one RRset in emit-ready form: the records of [`super::node`], compressed.
//!
//! Names in RDATA are compressed only where RFC 3597 allows it, and only against what travels with
//! the RRset: the suffixes of its owner and the names before them in the same body. So a body
//! means the same wherever it is placed, and the pointers that move are known (its fixes).

use crate::limits::{NAME_LEN_MAX, TTL_MAX};
use crate::wire::{LowerName, rtype};

use super::node::{OWNER_POINTER, WITHIN};

/// Names past this octet of a body are no targets: with the longest question and chain before the
/// body, a pointer to them still fits in 14 bits.
const TARGET_MAX: usize = 8 * 1024;
/// Targets remembered per body: more would make a large RRset quadratic.
const TARGETS_MAX: usize = 64;

//----------- Prepared -------------------------------------------------------

/// The body of one RRset under construction. Reused: cleared, not freed.
#[derive(Default)]
pub struct Prepared {
    /// Complete records.
    pub body: Vec<u8>,
    /// `(position, what)`.
    pub fixes: Vec<(u32, u32)>,
    /// Position of the name in each record's RDATA whose addresses may be sent along.
    pub name_positions: Vec<u32>,
    targets: Targets,
    name: LowerName,
}

/// Names already in the body that a pointer may point to.
#[derive(Default)]
struct Targets {
    /// `(position in the body, where its octets start, where they end)`
    places: Vec<(u32, usize, usize)>,
    octets: Vec<u8>,
}

impl Prepared {
    /// Forgets the RRset.
    pub fn clear(&mut self) {
        self.body.clear();
        self.fixes.clear();
        self.name_positions.clear();
        self.targets.places.clear();
        self.targets.octets.clear();
    }

    /// Adds one record of class IN.
    pub fn record(&mut self, owner: &LowerName, rtype: u16, ttl: u32, rdata: &[u8]) {
        if owner.is_empty() {
            self.body.push(0);
        } else {
            self.body.extend_from_slice(&OWNER_POINTER);
        }
        self.body.extend_from_slice(&rtype.to_be_bytes());
        self.body.extend_from_slice(&1u16.to_be_bytes());
        self.body.extend_from_slice(&ttl.min(TTL_MAX).to_be_bytes());
        let rdlen_at = self.body.len();
        self.body.extend_from_slice(&[0, 0]);
        if let Some(target_at) = target_at(rtype) {
            self.name_positions.push((self.body.len() + target_at) as u32);
        }
        let (fixed_len, name_count) = name_layout(rtype);
        let mut at = fixed_len.min(rdata.len());
        self.body.extend_from_slice(&rdata[..at]);
        for _ in 0..name_count {
            at += self.name(owner, &rdata[at..]);
        }
        self.body.extend_from_slice(&rdata[at..]);
        let rdlen = (self.body.len() - rdlen_at - 2) as u16;
        self.body[rdlen_at..rdlen_at + 2].copy_from_slice(&rdlen.to_be_bytes());
    }

    /// Writes the name at the start of `wire`, compressed; returns its uncompressed length.
    fn name(&mut self, owner: &LowerName, wire: &[u8]) -> usize {
        let name = &mut self.name;
        let Some(len) = name.read(wire) else {
            // The reader of zone text lets no such RDATA through; unknown-type syntax is checked
            // there too. Written as it is, it harms nobody.
            self.body.extend_from_slice(wire);
            return wire.len();
        };
        let start = self.body.len();
        let written = (1..=name.depth()).rev().find_map(|depth| {
            self.targets.target(owner, name.suffix(depth)).map(|what| (depth, what))
        });
        let kept = match written {
            None => len,
            Some((depth, what)) => {
                let kept = name.suffix_at(depth);
                self.fixes.push(((start + kept) as u32, what));
                kept
            }
        };
        self.body.extend_from_slice(&wire[..kept]);
        if written.is_some() {
            self.body.extend_from_slice(&OWNER_POINTER);
        }
        let depth_min = written.map_or(0, |(depth, _)| depth);
        for depth in (depth_min + 1..=name.depth()).rev() {
            self.targets.add(start + name.suffix_at(depth), name.suffix(depth));
        }
        len
    }
}

impl Targets {
    fn add(&mut self, position: usize, name: &[u8]) {
        if position < TARGET_MAX && self.places.len() < TARGETS_MAX {
            let start = self.octets.len();
            self.octets.extend_from_slice(name);
            self.places.push((position as u32, start, self.octets.len()));
        }
    }

    /// What a pointer to `suffix` would be: in the owner's name, or before in this body.
    fn target(&self, owner: &LowerName, suffix: &[u8]) -> Option<u32> {
        let owner_wire = owner.as_wire();
        debug_assert!(suffix.len() <= NAME_LEN_MAX);
        if let Some(at) = owner_wire.len().checked_sub(suffix.len())
            && owner_wire[at..] == *suffix
            // A suffix starts where a label starts.
            && (0..=owner.depth()).any(|depth| owner.suffix_at(depth) == at)
            // The question has another name in place of a wildcard's.
            && !(at == 0 && owner_wire.starts_with(b"\x01*"))
        {
            return Some(suffix.len() as u32);
        }
        let is_suffix = |&&(_, start, end): &&(u32, usize, usize)| {
            end - start == suffix.len() && self.octets[start..end] == *suffix
        };
        let found = self.places.iter().find(is_suffix)?;
        Some(WITHIN | found.0)
    }
}

/// Octets of RDATA before the name of a host, for the types whose answers are of use only together
/// with its addresses.
pub fn target_at(rtype: u16) -> Option<usize> {
    match rtype {
        rtype::NS => Some(0),
        rtype::MX | rtype::KX | rtype::SVCB | rtype::HTTPS => Some(2),
        rtype::SRV => Some(6),
        _ => None,
    }
}

/// Octets before the first name of RDATA, and how many names follow, for the types whose names may
/// be compressed.
pub fn name_layout(rtype: u16) -> (usize, usize) {
    //= RFC 3597, 4
    //# To avoid such corruption, servers MUST NOT compress domain names
    //# embedded in the RDATA of types that are class-specific or not well-
    //# known.
    match rtype {
        rtype::NS
        | rtype::MD
        | rtype::MF
        | rtype::CNAME
        | rtype::MB
        | rtype::MG
        | rtype::MR
        | rtype::PTR => (0, 1),
        rtype::SOA | rtype::MINFO => (0, 2),
        rtype::MX => (2, 1),
        _ => (0, 0),
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    fn lower(wire: &[u8]) -> LowerName {
        let mut name = LowerName::new();
        name.read(wire).unwrap();
        name
    }

    #[test]
    fn names_point_to_the_owner_and_to_each_other() {
        let mut prepared = Prepared::default();
        let owner = lower(b"\x03sub\x07example\0");
        prepared.record(&owner, rtype::NS, 300, b"\x02a1\x03net\0");
        prepared.record(&owner, rtype::NS, 300, b"\x02b1\x03NET\0");
        prepared.record(&owner, rtype::NS, 300, b"\x02ns\x03sub\x07example\0");
        assert_eq!(
            prepared.body,
            [
                b"\xC0\x0C\x00\x02\x00\x01\x00\x00\x01\x2C\x00\x08\x02a1\x03net\0".as_slice(),
                b"\xC0\x0C\x00\x02\x00\x01\x00\x00\x01\x2C\x00\x05\x02b1\xC0\x0C",
                b"\xC0\x0C\x00\x02\x00\x01\x00\x00\x01\x2C\x00\x05\x02ns\xC0\x0C",
            ]
            .concat()
        );
        assert_eq!(prepared.fixes, [(35, WITHIN | 15), (52, 13)]);
        assert_eq!(prepared.name_positions, [12, 32, 49]);
    }

    #[test]
    fn a_wildcard_owner_is_no_target_but_its_parent_is() {
        let mut prepared = Prepared::default();
        let owner = lower(b"\x01*\x07example\0");
        prepared.record(&owner, rtype::CNAME, 1, b"\x01*\x07example\0");
        assert_eq!(prepared.body[12..], *b"\x01*\xC0\x0C");
        assert_eq!(prepared.fixes, [(14, 9)]);
    }

    #[test]
    fn unknown_types_are_not_compressed() {
        let mut prepared = Prepared::default();
        prepared.record(&lower(b"\x01a\0"), 33, 1, b"\0\0\0\0\0\0\x01a\0");
        assert!(prepared.fixes.is_empty());
        assert_eq!(prepared.body.len(), 12 + 9);
    }
}
