//! Which records prove what an answer says does not exist (RFC 4035, 3.1.3; RFC 5155, 7.2).
//!
//! | the answer says | NSEC | NSEC3 |
//! | --- | --- | --- |
//! | no such name | over the name, over its wildcard | closest encloser, over next closer, over wildcard |
//! | no such type | of the name, or over an empty one | of the name |
//! | expanded from a wildcard | over the name | over next closer |
//! | no such type at the wildcard | over the name, of the wildcard | encloser, over next closer, wildcard |
//! | an unsigned delegation | of the cut | of the cut, or, under opt-out, encloser and over next closer |
//!
//! Proofs go to the authority section, and a chain may need some for each of its links while its
//! answer section is not finished: they are collected, each once, and written when the answers are.

use arrayvec::ArrayVec;

use crate::limits::{CHAIN_LINKS_MAX, NAME_LEN_MAX};
use crate::wire::rtype;
use crate::zone::nsec3::Chain;
use crate::zone::{Denial, Node, Order, Zone, over_wildcard, wildcard_of};

use super::authority::Link;
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
    /// Where the zone's apex stands in the reply.
    apex: Owner,
    position: usize,
    form: Form,
}

#[derive(Clone, Copy)]
enum Form {
    /// A node's NSEC, whose name stands in the reply.
    At(Owner),
    /// A node's NSEC, whose name is to be written.
    Named,
    /// An NSEC3 block.
    Block,
}

impl<'z> Proofs<'z> {
    fn add(&mut self, zone: &'z Zone, apex: Owner, position: usize, form: Form) {
        let same = |proof: &Proof<'_>| {
            proof.position == position && std::ptr::eq(proof.zone, zone)
        };
        if !self.list.is_full() && !self.list.iter().any(same) {
            self.list.push(Proof { zone, apex, position, form });
        }
    }

    /// Writes what has been collected. What does not fit makes the reply a truncated one.
    pub fn write(&mut self, reply: &mut Reply<'_>) {
        for proof in &self.list[self.written..] {
            let fits = match proof.form {
                Form::Block => reply.block(proof.zone.block(proof.position), proof.apex),
                Form::At(owner) => {
                    let nsec = proof.zone.node(proof.position).rrset(rtype::NSEC);
                    nsec.is_none_or(|nsec| reply.rrset(Section::Authority, nsec, owner).is_some())
                }
                Form::Named => {
                    let node = proof.zone.node(proof.position);
                    node.rrset(rtype::NSEC)
                        .is_none_or(|nsec| reply.named_rrset(nsec, node.owner(), proof.apex))
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
        let apex = || self.owner.suffix(reply.message(), self.zone.apex_len());
        match self.zone.denial() {
            Denial::Unsigned => {}
            Denial::Nsec(order) => {
                Ordered { link: self, order, apex: apex() }.deny(denied, reply, proofs);
            }
            Denial::Nsec3(chain) => {
                Hashed { link: self, chain, apex: apex() }.deny(denied, proofs);
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
    apex: Owner,
}

impl<'z> Ordered<'_, '_, 'z> {
    #[inline(never)]
    fn deny(&self, denied: Denied<'z>, reply: &Reply<'_>, proofs: &mut Proofs<'z>) {
        let Link { zone, owner, search, .. } = *self.link;
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
            Denied::Type(node) => match node.rrset(rtype::NSEC) {
                Some(_) => self.add(node, Form::At(owner), proofs),
                // An empty non-terminal owns none (RFC 4035, 2.3).
                None => self.cover(relative, proofs),
            },
            Denied::Expanded => self.cover(relative, proofs),
            Denied::ExpandedType(wildcard) => {
                self.cover(relative, proofs);
                match wildcard.rrset(rtype::NSEC) {
                    Some(_) => self.add(wildcard, Form::Named, proofs),
                    None => self.cover(wildcard.owner(), proofs),
                }
            }
            Denied::Ds(cut, depth) => {
                let owner = owner.suffix(reply.message(), self.link.name.suffix_len(depth));
                self.add(cut, Form::At(owner), proofs);
            }
        }
    }

    fn add(&self, node: Node<'z>, form: Form, proofs: &mut Proofs<'z>) {
        let zone = self.link.zone;
        proofs.add(zone, self.apex, node.position_in(zone.pool()), form);
    }

    fn cover(&self, relative: &[u8], proofs: &mut Proofs<'z>) {
        let zone = self.link.zone;
        let position = self.order.find(zone.pool(), relative);
        // The apex is in the reply whenever the question is below it.
        let form = if position == zone.apex_at() { Form::At(self.apex) } else { Form::Named };
        proofs.add(zone, self.apex, position, form);
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
                let prepared = if depth == search.low { encloser.wildcard_block() } else { None };
                let block =
                    prepared.or_else(|| over_wildcard(zone, self.chain, name.suffix(depth)));
                if let Some(block) = block {
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
                let block = wildcard.matching_block();
                self.add(block.unwrap_or_else(|| self.chain.find(zone.pool(), hash()).0), proofs);
            }
            Denied::Ds(cut, depth) => self.matching(cut, depth, proofs),
        }
    }

    fn add(&self, block: usize, proofs: &mut Proofs<'z>) {
        proofs.add(self.link.zone, self.apex, block, Form::Block);
    }

    /// The block of `node`, or, if an opt-out leaves it without one, of the closest name above it
    /// that has one, and what covers the name below that (RFC 5155, 7.2.4 and 7.2.7).
    fn matching(&self, node: Node<'z>, depth: usize, proofs: &mut Proofs<'z>) {
        if let Some(block) = node.matching_block() {
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
                && let Some(block) = node.matching_block()
            {
                self.add(block, proofs);
                return Some((node, depth));
            }
            if depth <= zone.lower_apex().depth() {
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
                self.chain.find(zone.pool(), hash).0
            }
        };
        self.add(block, proofs);
    }
}
