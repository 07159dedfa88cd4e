//! The records of a zone as records again: expanded from the prepared form, off the fast path.
//!
//! ```text
//!   body      C0 0C | type | class | ttl | rdlen | 00 0A 04 mail C0 ..     fix: the owner's suffix
//!   expanded                                       00 0A 04 mail 07 example 03 org 00
//! ```
//!
//! Canonical RDATA (RFC 4034, 6.2) has the names of the types listed there in lower case.

use crate::wire::{LowerName, rtype};

use super::build::earlier;
use super::node::{Node, Rrset, WITHIN, owner_len};
use super::prepare::name_layout;
use super::{Denial, Zone, nsec3};

/// One record of an RRset, its RDATA expanded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expanded {
    /// RDATA in wire form, nothing compressed.
    pub rdata: Vec<u8>,
    /// Seconds.
    pub ttl: u32,
}

/// The records of `rrset`, whose owner is `owner`.
pub fn expand(rrset: Rrset<'_>, owner: &LowerName) -> Vec<Expanded> {
    let (fixed_len, name_count) = name_layout(rrset.rtype);
    let mut records = Vec::with_capacity(usize::from(rrset.count));
    let mut at = 0;
    while at < rrset.body.len() {
        let (ttl, start, end) = bounds(rrset.body, at);
        let mut rdata = Vec::with_capacity(end - start);
        let mut from = (start + fixed_len).min(end);
        rdata.extend_from_slice(&rrset.body[start..from]);
        for _ in 0..name_count {
            from = expand_name(rrset, owner, from, &mut rdata);
        }
        rdata.extend_from_slice(&rrset.body[from..end]);
        records.push(Expanded { rdata, ttl });
        at = end;
    }
    records
}

/// The signatures over `rrset`.
pub fn signatures(rrset: Rrset<'_>) -> Vec<Expanded> {
    plain(rrset.signatures().1)
}

/// Records in which nothing is compressed but the owner.
fn plain(body: &[u8]) -> Vec<Expanded> {
    let (mut records, mut at) = (Vec::new(), 0);
    while at < body.len() {
        let (ttl, start, end) = bounds(body, at);
        records.push(Expanded { rdata: body[start..end].to_vec(), ttl });
        at = end;
    }
    records
}

/// The TTL of the prepared record at `at`, and where its RDATA starts and ends.
fn bounds(body: &[u8], at: usize) -> (u32, usize, usize) {
    let fields = at + owner_len(&body[at..]) + 4;
    let ttl = u32::from_be_bytes(body[fields..fields + 4].try_into().expect("four octets"));
    let len = u16::from_be_bytes([body[fields + 4], body[fields + 5]]) as usize;
    (ttl, fields + 6, fields + 6 + len)
}

/// Appends the name at `from` of the body; returns where it ends there.
fn expand_name(rrset: Rrset<'_>, owner: &LowerName, from: usize, out: &mut Vec<u8>) -> usize {
    let (mut at, mut end) = (from, None);
    loop {
        let len = rrset.body[at] as usize;
        if len < 0xC0 {
            out.extend_from_slice(&rrset.body[at..at + 1 + len]);
            at += 1 + len;
            if len == 0 {
                return end.unwrap_or(at);
            }
            continue;
        }
        end.get_or_insert(at + 2);
        let fix = rrset.fixes().find(|fix| fix.position == at).expect("every pointer has a fix");
        if fix.what & WITHIN == 0 {
            let wire = owner.as_wire();
            out.extend_from_slice(&wire[wire.len() - fix.what as usize..]);
            return end.unwrap_or(at + 2);
        }
        at = (fix.what & !WITHIN) as usize;
    }
}

/// Puts the names of `rdata` in lower case where RFC 4034, 6.2 (as RFC 6840, 5.1 amends it) says.
pub fn make_canonical(kind: u16, rdata: &mut [u8]) {
    let (mut at, name_count) = match kind {
        rtype::RP => (0, 2),
        rtype::AFSDB | rtype::RT | rtype::KX => (2, 1),
        rtype::PX => (2, 2),
        rtype::SRV => (6, 1),
        rtype::DNAME => (0, 1),
        rtype::SIG | rtype::RRSIG => (18, 1),
        rtype::NAPTR => {
            let after_strings = (0..3)
                .try_fold(4, |at: usize, _| rdata.get(at).map(|len| at + 1 + usize::from(*len)));
            (after_strings.unwrap_or(rdata.len()), 1)
        }
        _ => name_layout(kind),
    };
    for _ in 0..name_count {
        while let Some(&len) = rdata.get(at) {
            let end = (at + 1 + usize::from(len)).min(rdata.len());
            rdata[at + 1..end].make_ascii_lowercase();
            at = end;
            if len == 0 {
                break;
            }
        }
    }
}

//----------- Everything in a zone -------------------------------------------

/// Where the records of one owner are.
#[derive(Clone, Copy)]
pub enum Place<'z> {
    /// A name.
    Node(Node<'z>),
    /// The hash of one.
    Block(nsec3::Block<'z>),
}

/// How far a walk over all places has come. Holds nothing of the zone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    slot: usize,
    overlaid: usize,
    block: usize,
    overlaid_block: usize,
    other_block: usize,
}

/// One RRset, its name and its signatures.
pub struct Owned<'z> {
    /// The owner.
    pub owner: LowerName,
    /// The node it is of; `None` for NSEC3.
    pub node: Option<Node<'z>>,
    /// The type; an RRset of signatures alone has the type they cover.
    pub rtype: u16,
    /// The records.
    pub records: Vec<Expanded>,
    /// The RRSIGs over them.
    pub signatures: Vec<Expanded>,
}

impl Zone {
    /// The name of a node.
    pub fn name_of(&self, node: Node<'_>) -> LowerName {
        super::build::full_name(node.owner(), self.lower.as_wire())
    }

    /// All nodes, in no order.
    pub fn nodes(&self) -> impl Iterator<Item = Node<'_>> {
        let mut cursor = Cursor::default();
        std::iter::from_fn(move || self.next_node(&mut cursor))
    }

    /// All NSEC3 blocks: those of the chain that serves, then others.
    pub fn blocks(&self) -> impl Iterator<Item = nsec3::Block<'_>> {
        let mut cursor = Cursor::default();
        std::iter::from_fn(move || self.next_block(&mut cursor))
    }

    /// The next place of a walk over all of them, in no order.
    pub fn next_place(&self, cursor: &mut Cursor) -> Option<Place<'_>> {
        let node = self.next_node(cursor).map(Place::Node);
        node.or_else(|| self.next_block(cursor).map(Place::Block))
    }

    fn next_node(&self, cursor: &mut Cursor) -> Option<Node<'_>> {
        while let Some(position) = self.index.next_position(&mut cursor.slot) {
            // The nodes of a bucket are anywhere in the pool: the next is asked for ahead.
            let mut ahead = cursor.slot;
            if let Some(next) = self.index.next_position(&mut ahead) {
                self.prefetch(next);
            }
            if self.overlay.as_ref().is_none_or(|overlay| overlay.stands(position)) {
                return Some(self.node(position));
            }
        }
        let position = self.overlay.as_ref()?.next_position(&mut cursor.overlaid)?;
        Some(self.node(position))
    }

    fn next_block(&self, cursor: &mut Cursor) -> Option<nsec3::Block<'_>> {
        let (overlay, mine) = (self.overlay.as_ref(), cursor.overlaid_block);
        if let Denial::Nsec3(chain) = &self.denial {
            while let Some(position) = chain.nth(cursor.block) {
                cursor.block += 1;
                if overlay.is_none_or(|overlay| overlay.stands(position)) {
                    return Some(self.block(position));
                }
            }
            if let Some(position) = overlay.and_then(|overlay| overlay.nth_block(mine)) {
                cursor.overlaid_block += 1;
                return Some(self.block(position));
            }
        }
        let position = self.other_blocks.get(cursor.other_block).copied()?;
        cursor.other_block += 1;
        Some(self.block(position))
    }

    /// When the first of its signatures expires, found by looking at all of them.
    pub(super) fn first_expiry(&self) -> Option<u32> {
        let of = |body: &[u8]| {
            let signed = plain(body).into_iter();
            let expiries = signed.filter_map(|it| it.rdata.get(8..12)?.try_into().ok());
            expiries.map(u32::from_be_bytes).reduce(earlier)
        };
        let nodes = self.nodes().flat_map(Node::rrsets).filter_map(|set| of(set.signatures().1));
        let blocks = self.blocks().filter_map(|block| of(block.signatures()));
        nodes.chain(blocks).reduce(earlier)
    }

    /// All nodes and NSEC3 blocks, in no order.
    pub fn places(&self) -> impl Iterator<Item = Place<'_>> {
        self.nodes().map(Place::Node).chain(self.blocks().map(Place::Block))
    }

    /// The name of a place.
    pub fn owner_of(&self, place: Place<'_>) -> LowerName {
        match place {
            Place::Node(node) => self.name_of(node),
            Place::Block(block) => {
                let mut relative = vec![nsec3::LABEL_LEN as u8];
                relative.extend_from_slice(block.label());
                super::build::full_name(&relative, self.lower.as_wire())
            }
        }
    }

    /// The RRsets of a place.
    pub fn rrsets_of<'z>(&self, place: Place<'z>) -> Vec<Owned<'z>> {
        let owner = self.owner_of(place);
        match place {
            Place::Node(node) => node
                .rrsets()
                .map(|rrset| Owned {
                    owner: owner.clone(),
                    node: Some(node),
                    rtype: rrset.rtype,
                    records: expand(rrset, &owner),
                    signatures: signatures(rrset),
                })
                .collect(),
            Place::Block(block) => vec![Owned {
                owner,
                node: None,
                rtype: rtype::NSEC3,
                records: block.records(),
                signatures: plain(block.signatures()),
            }],
        }
    }

    /// All RRsets, in no order.
    pub fn rrsets(&self) -> impl Iterator<Item = Owned<'_>> {
        self.places().flat_map(|place| self.rrsets_of(place))
    }
}

impl nsec3::Block<'_> {
    /// Its records.
    fn records(self) -> Vec<Expanded> {
        let (body, mut records, mut at) = (self.body(), Vec::new(), 0);
        while at < body.len() {
            at += 1 + nsec3::LABEL_LEN;
            let (ttl, start, end) = bounds(body, at);
            records.push(Expanded { rdata: body[start..end].to_vec(), ttl });
            at = end;
        }
        records
    }
}
