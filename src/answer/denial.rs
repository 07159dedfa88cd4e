//! Which records prove what an answer says does not exist (RFC 4035, 3.1.3; RFC 5155, 7.2).
//!
//! | the answer says | NSEC | NSEC3 |
//! | --- | --- | --- |
//! | no such name | over the name and its wildcard | encloser, over next closer and wildcard |
//! | no such type | of the name, or over an empty one | of the name |
//! | expanded from a wildcard | over the name | over next closer |
//! | no such type there | over the name, of the wildcard | encloser, over next closer, wildcard |
//! | an unsigned delegation | of the cut | of the cut, or encloser and over next closer |
//!
//! Proofs go to the authority section, and a chain may need some for each of its links while its
//! answer section is not finished: they are collected, each once, and written when the answers are.

use arrayvec::ArrayVec;

use crate::limits::{CHAIN_LINKS_MAX, NAME_LEN_MAX};
use crate::wire::rtype;
use crate::zone::nsec3::Chain;
use crate::zone::{Denial, Node, Order, Zone, wildcard_of};

use super::link::Link;
use super::reply::{Owner, Reply, Section};

/// One for each link, and three for the last.
const PROOFS_MAX: usize = CHAIN_LINKS_MAX + 4;

//----------- Denied ---------------------------------------------------------

/// What does not exist.
pub enum Denied<'a> {
    /// The name.
    Name,
    /// The type, at this node.
    Type(Node<'a>),
    /// The name, in whose place a wildcard answered.
    Expanded,
    /// The name, and the type at the wildcard that is this node.
    ExpandedType(Node<'a>),
    /// The DS of this cut, which has so many labels.
    Ds(Node<'a>, usize),
}

//----------- Proofs ---------------------------------------------------------

/// The proofs of one reply, in order.
#[derive(Default)]
pub struct Proofs<'z> {
    list: ArrayVec<Proof<'z>, PROOFS_MAX>,
    /// How many are in the reply already.
    written: usize,
}

struct Proof<'z> {
    zone: &'z Zone,
    position: usize,
    form: Form,
}

#[derive(Clone, Copy)]
enum Form {
    /// A node's NSEC; so many octets of its name are to be written, then a pointer to what stands
    /// in the reply.
    Node(usize, Owner),
    /// An NSEC3 block, and where the zone's apex stands in the reply.
    Block(Owner),
}

impl<'z> Proofs<'z> {
    fn add(&mut self, zone: &'z Zone, position: usize, form: Form) {
        let same = |proof: &Proof<'_>| proof.position == position && std::ptr::eq(proof.zone, zone);
        if !self.list.is_full() && !self.list.iter().any(same) {
            self.list.push(Proof { zone, position, form });
        }
    }

    /// Writes what has been collected. What does not fit makes the reply a truncated one.
    pub fn write(&mut self, reply: &mut Reply<'_>) {
        for proof in &self.list[self.written..] {
            let fits = match proof.form {
                Form::Block(apex) => reply.block(proof.zone.block(proof.position), apex),
                Form::Node(kept, owner) => {
                    let node = proof.zone.node(proof.position);
                    node.rrset(rtype::NSEC).is_none_or(|nsec| match kept {
                        0 => reply.rrset(Section::Authority, nsec, owner).is_some(),
                        _ => reply.named_rrset(nsec, &node.owner()[..kept], owner),
                    })
                }
            };
            if !fits {
                reply.truncated = true;
                break;
            }
        }
        self.written = self.list.len();
    }
}

//----------- Link -----------------------------------------------------------

impl<'a, 'z> Link<'a, 'z> {
    /// Collects the proofs of `denied`, if the client wants any and the zone has any.
    #[inline]
    pub fn deny(&self, denied: Denied<'z>, reply: &Reply<'_>, proofs: &mut Proofs<'z>) {
        if !reply.dnssec_ok() {
            return;
        }
        match self.zone.denial() {
            Denial::Unsigned => {}
            Denial::Nsec(order) => {
                Ordered { link: self, order, message: reply.message() }.deny(denied, proofs);
            }
            Denial::Nsec3(chain) => {
                let apex = self.owner.suffix(reply.message(), self.zone.apex_len());
                Hashed { link: self, chain, apex }.deny(denied, proofs);
            }
        }
    }

    /// The name without the apex.
    fn relative(&self) -> &'a [u8] {
        &self.name.padded()[..self.name.len() - self.zone.apex_len()]
    }
}

//----------- NSEC -----------------------------------------------------------

struct Ordered<'l, 'a, 'z> {
    link: &'l Link<'a, 'z>,
    order: &'z Order,
    message: &'l [u8],
}

impl<'z> Ordered<'_, '_, 'z> {
    #[inline(never)]
    fn deny(&self, denied: Denied<'z>, proofs: &mut Proofs<'z>) {
        let Link { zone, search, .. } = *self.link;
        let relative = self.link.relative();
        match denied {
            Denied::Name => {
                self.cover(relative, proofs);
                let mut room = [0; NAME_LEN_MAX + 2];
                let encloser = zone.node(search.node).owner();
                if let Some(wildcard) = wildcard_of(encloser, &mut room) {
                    self.cover(wildcard, proofs);
                }
            }
            Denied::Type(node) => self.of_node(node, relative, proofs),
            Denied::Expanded => self.cover(relative, proofs),
            Denied::ExpandedType(wildcard) => {
                self.cover(relative, proofs);
                self.of_node(wildcard, wildcard.owner(), proofs);
            }
            Denied::Ds(cut, _) => self.add(cut, proofs),
        }
    }

    /// Adds the NSEC of `node`, whose name is `relative`. An empty non-terminal owns none (RFC
    /// 4035, 2.3): what covers it shows that it is one.
    fn of_node(&self, node: Node<'z>, relative: &[u8], proofs: &mut Proofs<'z>) {
        match node.rrset(rtype::NSEC) {
            Some(_) => self.add(node, proofs),
            None => self.cover(relative, proofs),
        }
    }

    fn cover(&self, relative: &[u8], proofs: &mut Proofs<'z>) {
        let zone = self.link.zone;
        self.add(zone.node(zone.nsec_over(self.order, relative)), proofs);
    }

    fn add(&self, node: Node<'z>, proofs: &mut Proofs<'z>) {
        let Link { zone, name, owner, .. } = *self.link;
        let relative = node.owner();
        // The longest suffix that the name in the reply ends with; at worst the apex.
        let (mut kept, mut depth) = (0, node.depth());
        while kept < relative.len() {
            let rest = &relative[kept..];
            if depth <= name.depth()
                && name.suffix_len(depth) == rest.len() + zone.apex_len()
                && name.suffix(depth).starts_with(rest)
            {
                break;
            }
            kept += 1 + relative[kept] as usize;
            depth -= 1;
        }
        let suffix = owner.suffix(self.message, relative.len() - kept + zone.apex_len());
        proofs.add(zone, zone.position_of(node), Form::Node(kept, suffix));
    }
}

//----------- NSEC3 ----------------------------------------------------------

struct Hashed<'l, 'a, 'z> {
    link: &'l Link<'a, 'z>,
    chain: &'z Chain,
    apex: Owner,
}

impl<'z> Hashed<'_, '_, 'z> {
    #[inline(never)]
    fn deny(&self, denied: Denied<'z>, proofs: &mut Proofs<'z>) {
        let Link { zone, name, search, .. } = *self.link;
        match denied {
            Denied::Name => {
                let Some((encloser, depth)) = self.encloser(search.low, proofs) else { return };
                self.cover(depth + 1, proofs);
                let prepared =
                    if depth == search.low { zone.wildcard_block(encloser) } else { None };
                let mut room = [0; NAME_LEN_MAX + 2];
                let found = || {
                    let wildcard = wildcard_of(name.suffix(depth), &mut room)?;
                    // Above an encloser without an NSEC3 it may even be there.
                    Some(zone.nsec3_over(self.chain, self.chain.params().hash(wildcard)).0)
                };
                if let Some(block) = prepared.or_else(found) {
                    self.add(block, proofs);
                }
            }
            Denied::Type(node) => self.matching(node, name.depth(), proofs),
            Denied::Expanded => self.cover(search.low + 1, proofs),
            Denied::ExpandedType(wildcard) => {
                if let Some((_, depth)) = self.encloser(search.low, proofs) {
                    self.cover(depth + 1, proofs);
                }
                // An empty one above unsigned delegations only has none: what covers it says so.
                let hash = || self.chain.params().hash(zone.name_of(wildcard).as_wire());
                let block = zone.matching_block(self.chain, wildcard);
                self.add(block.unwrap_or_else(|| zone.nsec3_over(self.chain, hash()).0), proofs);
            }
            Denied::Ds(cut, depth) => self.matching(cut, depth, proofs),
        }
    }

    fn add(&self, block: usize, proofs: &mut Proofs<'z>) {
        proofs.add(self.link.zone, block, Form::Block(self.apex));
    }

    /// The block of `node`, or, if an opt-out leaves it without one, of the closest name above it
    /// that has one, and what covers the name below that (RFC 5155, 7.2.4 and 7.2.7).
    fn matching(&self, node: Node<'z>, depth: usize, proofs: &mut Proofs<'z>) {
        if let Some(block) = self.link.zone.matching_block(self.chain, node) {
            self.add(block, proofs);
        } else if let Some(above) = depth.checked_sub(1)
            && let Some((_, depth)) = self.encloser(above, proofs)
        {
            self.cover(depth + 1, proofs);
        }
    }

    /// Adds the block of the closest name, at or above the suffix of `depth` labels, that has one;
    /// returns its node and its labels.
    fn encloser(&self, mut depth: usize, proofs: &mut Proofs<'z>) -> Option<(Node<'z>, usize)> {
        let Link { zone, name, hashes, search, .. } = *self.link;
        loop {
            let position = if depth == search.low {
                Some(search.node)
            } else {
                zone.find(name, depth, hashes[depth])
            };
            if let Some(node) = position.map(|position| zone.node(position))
                && let Some(block) = zone.matching_block(self.chain, node)
            {
                self.add(block, proofs);
                return Some((node, depth));
            }
            if depth <= zone.apex_depth() {
                return None;
            }
            depth -= 1;
        }
    }

    /// Adds the block that covers the suffix of `depth` labels.
    fn cover(&self, depth: usize, proofs: &mut Proofs<'z>) {
        let Link { zone, name, ahead, .. } = *self.link;
        let block = match ahead {
            Some((known, block)) if known == depth => block,
            _ => {
                let hash = self.chain.params().hash(name.suffix(depth));
                zone.nsec3_over(self.chain, hash).0
            }
        };
        self.add(block, proofs);
    }
}
