//! What has changed in a zone since it was built: a few nodes before millions.
//!
//! ```text
//!   name ──> overlay's names ──> slot ──> its node, or that it is gone
//!                 └── not there ──> the index, as in a zone without an overlay
//!
//!   position      below START: in the zone's pool; from START on: in the overlay's
//!   superseded    position of a node that stands no more ──> slot of its name
//!   gaps          numbers in the order of NSEC or NSEC3 whose records stand no more
//! ```
//!
//! A zone of millions of names takes half a second to build; a change of ten records should be
//! answered after milliseconds and cost the memory of ten records. So the zone that was built is
//! shared between versions, and each version has an overlay of its own: small enough to be copied
//! whole for the next. `amend` makes them, and asks for a zone without when one grows too large.
//!
//! In nodes that stand, three things may point to what does not: links to addresses, and the two
//! NSEC3 blocks. Whoever follows them asks the overlay.

use std::collections::HashMap;
use std::ops::Range;

use crate::limits::LABEL_LEN_MAX;
use crate::wire::LowerName;

use super::node::{Link, Node, flag};
use super::nsec3::{Block, Chain, Hash};
use super::order::{Key, Order};
use super::{HashKey, Zone};

/// Positions from here on are in the overlay's pool, not in the zone's.
pub const START: usize = 30 << 30;
const _: () = assert!(START / 8 < u32::MAX as usize);
/// Octets of an overlay's pool.
pub const POOL_LEN_MAX: usize = ((1 << 32) - 1) * 8 - START;

/// In place of a slot: none.
const NONE: u32 = u32::MAX;

//----------- Overlay --------------------------------------------------------

/// The names of one zone that are not as they were when it was built.
#[derive(Clone)]
pub struct Overlay {
    pub(super) pool: Vec<u8>,
    /// By hash: `(hash, slot)`, found by going on from the hash's low bits.
    table: Vec<(u64, u32)>,
    slots: Vec<Slot>,
    superseded: HashMap<u32, u32>,
    /// NSEC3 blocks by hash, and names that own an NSEC by canonical key: what stands.
    blocks: Vec<(Hash, u32)>,
    names: Vec<(Box<[u8]>, u32)>,
    gaps: Gaps,
    /// Hashes whose NSEC3 blocks the last change took out, and put none in their place.
    removed_blocks: Vec<Hash>,
    /// Whether names have addresses that had none when the zone was built: links to them are
    /// empty.
    pub(super) gained: bool,
    /// Whether the signature that expires first may be one that is gone.
    pub(super) expiry_unsure: bool,
    key: HashKey,
}

/// One name.
#[derive(Clone, Copy)]
struct Slot {
    unit: u32,
    /// Whether whoever refers to the name is told its addresses.
    is_target: bool,
}

impl Overlay {
    pub(super) fn new(key: HashKey) -> Overlay {
        Overlay {
            pool: Vec::new(),
            table: vec![(0, NONE); 16],
            slots: Vec::new(),
            superseded: HashMap::new(),
            blocks: Vec::new(),
            names: Vec::new(),
            gaps: Gaps::default(),
            removed_blocks: Vec::new(),
            gained: false,
            expiry_unsure: false,
            key,
        }
    }

    /// Octets of memory, about.
    pub fn memory_len(&self) -> usize {
        let keys: usize = self.names.iter().map(|(key, _)| key.len() + 24).sum();
        self.pool.len()
            + self.table.len() * 16
            + self.slots.len() * 8
            + self.superseded.len() * 16
            + self.blocks.len() * 24
            + keys
    }

    /// Names in it.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    #[inline(always)]
    fn at(&self, unit: u32) -> Node<'_> {
        self.node(unit as usize * 8)
    }

    /// The node at `position`.
    #[inline(always)]
    pub(super) fn node(&self, position: usize) -> Node<'_> {
        Node::at(&self.pool, position - START)
    }

    /// The position of the node with this hash that `is_it` tells by its owner, or, inside, that
    /// the name is gone; `None` if the overlay says nothing of the name.
    #[cold]
    #[inline(never)]
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(&[u8]) -> bool) -> Option<Option<usize>> {
        let slot = self.slot(hash, is_it)?;
        let unit = self.slots[slot].unit;
        let is_gone = self.at(unit).flags() & flag::GONE != 0;
        Some((!is_gone).then_some(unit as usize * 8))
    }

    #[inline]
    fn slot(&self, hash: u64, is_it: impl Fn(&[u8]) -> bool) -> Option<usize> {
        let mask = self.table.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let (other, slot) = self.table[at];
            if slot == NONE {
                return None;
            }
            if other == hash && is_it(self.at(self.slots[slot as usize].unit).owner()) {
                return Some(slot as usize);
            }
            at = (at + 1) & mask;
        }
    }

    /// The node that stands for the target of `link`, with `name` to tell the target by.
    fn target(
        &self,
        zone: &Zone,
        link: Link,
        name: impl FnOnce() -> Option<LowerName>,
    ) -> Option<usize> {
        let slot = if link.node == 0 {
            if !self.gained {
                return None;
            }
            let name = name()?;
            let relative = &name.as_wire()[..name.len().checked_sub(zone.apex_len())?];
            self.slot(self.key.name(&name), |owner| owner == relative)?
        } else {
            match self.superseded.get(&((link.node / 8) as u32)) {
                None => return Some(link.node),
                Some(&slot) => slot as usize,
            }
        };
        let Slot { unit, is_target } = *self.slots.get(slot)?;
        is_target.then_some(unit as usize * 8)
    }

    /// Whether what is at `position` stands.
    pub(super) fn stands(&self, position: usize) -> bool {
        !self.superseded.contains_key(&((position / 8) as u32))
    }

    //--- Walking

    /// The first node from slot `cursor` on, which is then past it.
    pub(super) fn next_position(&self, cursor: &mut usize) -> Option<usize> {
        loop {
            let unit = self.slots.get(*cursor)?.unit;
            *cursor += 1;
            if self.at(unit).flags() & flag::GONE == 0 {
                return Some(unit as usize * 8);
            }
        }
    }

    /// The position of the NSEC3 block number `i` of those in the overlay.
    pub(super) fn nth_block(&self, i: usize) -> Option<usize> {
        self.blocks.get(i).map(|(_, unit)| *unit as usize * 8)
    }

    //--- Making

    /// Says that the node at `position` is that of its name from now on; where the one before was
    /// is `old`.
    pub(super) fn put(&mut self, hash: u64, position: usize, old: Option<usize>) {
        let unit = (position / 8) as u32;
        let node = self.node(position);
        let slot = match self.slot(hash, |owner| owner == node.owner()) {
            Some(slot) => {
                let before =
                    std::mem::replace(&mut self.slots[slot], Slot { unit, is_target: false });
                self.superseded.insert(before.unit, slot as u32);
                slot
            }
            None => self.add(hash, unit),
        };
        if let Some(old) = old {
            self.superseded.insert((old / 8) as u32, slot as u32);
        }
    }

    fn add(&mut self, hash: u64, unit: u32) -> usize {
        let slot = self.slots.len();
        self.slots.push(Slot { unit, is_target: false });
        if (slot + 1) * 2 > self.table.len() {
            let larger = vec![(0, NONE); self.table.len() * 2];
            let table = std::mem::replace(&mut self.table, larger);
            for (hash, slot) in table.into_iter().filter(|(_, slot)| *slot != NONE) {
                self.enter(hash, slot);
            }
        }
        self.enter(hash, slot as u32);
        slot
    }

    fn enter(&mut self, hash: u64, slot: u32) {
        let mask = self.table.len() - 1;
        let mut at = hash as usize & mask;
        while self.table[at].1 != NONE {
            at = (at + 1) & mask;
        }
        self.table[at] = (hash, slot);
    }

    /// Whether whoever refers to the name of the node at `position` is told its addresses.
    pub(super) fn set_target(&mut self, hash: u64, position: usize, is_target: bool) {
        let node = self.node(position);
        if let Some(slot) = self.slot(hash, |owner| owner == node.owner()) {
            self.slots[slot].is_target = is_target;
        }
    }

    /// Takes the NSEC3 block at `position` out.
    pub(super) fn drop_block(&mut self, chain: &Chain, pool: &[u8], hash: Hash, position: usize) {
        if position < START {
            self.gaps.insert(chain.find_number(pool, hash).0);
        } else {
            self.blocks.retain(|(other, _)| *other != hash);
        }
        self.superseded.insert((position / 8) as u32, NONE);
        self.removed_blocks.push(hash);
    }

    /// Forgets what the last change took out.
    pub(super) fn begin(&mut self) {
        self.removed_blocks.clear();
    }

    /// Puts the NSEC3 block at `position` in.
    pub(super) fn put_block(&mut self, hash: Hash, position: usize) {
        let at = self.blocks.partition_point(|(other, _)| *other < hash);
        self.blocks.insert(at, (hash, (position / 8) as u32));
        self.removed_blocks.retain(|removed| *removed != hash);
    }

    /// Takes the NSEC of the node at `position`, whose name is `relative`, out.
    pub(super) fn drop_nsec(
        &mut self,
        order: &Order,
        pool: &[u8],
        relative: &[u8],
        position: usize,
    ) {
        let key = Key::new(relative);
        if position < START {
            let count = order.count_to(pool, key.as_slice());
            self.gaps.insert(count.saturating_sub(1));
        } else {
            self.names.retain(|(other, _)| **other != *key.as_slice());
        }
    }

    /// Puts the NSEC of the node at `position`, whose name is `relative`, in.
    pub(super) fn put_nsec(&mut self, relative: &[u8], position: usize) {
        let key = Key::new(relative);
        let at = self.names.partition_point(|(other, _)| **other < *key.as_slice());
        self.names.insert(at, (key.as_slice().into(), (position / 8) as u32));
    }

    //--- Denial

    /// The node whose NSEC is of the name with this key, or covers it.
    fn nsec_over(&self, pool: &[u8], order: &Order, key: &[u8]) -> usize {
        let built = self.gaps.below(order.count_to(pool, key));
        let mine = self.names.partition_point(|(other, _)| **other <= *key);
        let (built, mine) = match (built, mine) {
            // The last covers what is before the first.
            (0, 0) => (self.gaps.below(order.len()), self.names.len()),
            found => found,
        };
        let of_built = built.checked_sub(1).map(|i| order.position(i));
        let of_mine = mine.checked_sub(1).map(|i| &self.names[i]);
        match (of_built, of_mine) {
            (Some(position), Some((key, _)))
                if Key::new(Node::at(pool, position).owner()).as_slice() > &**key =>
            {
                position
            }
            (Some(position), None) => position,
            (_, Some((_, unit))) => *unit as usize * 8,
            (None, None) => order.position(0),
        }
    }

    /// The block whose hash is `hash`, or else the one that covers it, and which it is.
    fn nsec3_over(&self, pool: &[u8], chain: &Chain, hash: Hash) -> (usize, bool) {
        let mine = self.blocks.partition_point(|(other, _)| *other <= hash);
        if let Some((other, unit)) = mine.checked_sub(1).map(|i| self.blocks[i])
            && other == hash
        {
            return (unit as usize * 8, true);
        }
        let (number, matches) = chain.find_number(pool, hash);
        let of = |i: usize| Hash::from_label(Block::at(pool, chain.position(i)).label());
        // Before the first, the last is found.
        let is_before = matches || of(number).is_some_and(|found| found < hash);
        let end = if is_before { number + 1 } else { 0 };
        let built = self.gaps.below(end);
        if matches && built == end {
            return (chain.position(number), true);
        }
        let (built, mine) = match (built, mine) {
            (0, 0) => (self.gaps.below(chain.len()), self.blocks.len()),
            found => found,
        };
        let of_built = built.checked_sub(1).map(|i| (of(i), chain.position(i)));
        let of_mine = mine.checked_sub(1).map(|i| self.blocks[i]);
        let position = match (of_built, of_mine) {
            (Some((hash, position)), Some((other, _))) if hash > Some(other) => position,
            (Some((_, position)), None) => position,
            (_, Some((_, unit))) => unit as usize * 8,
            (None, None) => chain.position(0),
        };
        (position, false)
    }
}

//----------- Gaps -----------------------------------------------------------

/// Numbers that stand no more, as ranges in ascending order that do not touch.
#[derive(Clone, Default)]
struct Gaps(Vec<Range<usize>>);

impl Gaps {
    fn insert(&mut self, number: usize) {
        let at = self.0.partition_point(|range| range.end < number);
        match self.0.get_mut(at) {
            Some(range) if range.contains(&number) => {}
            Some(range) if range.end == number => {
                range.end += 1;
                let end = range.end;
                if self.0.get(at + 1).is_some_and(|next| next.start == end) {
                    self.0[at].end = self.0.remove(at + 1).end;
                }
            }
            Some(range) if range.start == number + 1 => range.start = number,
            _ => self.0.insert(at, number..number + 1),
        }
    }

    fn contains(&self, number: usize) -> bool {
        self.below(number + 1) <= number
    }

    /// `end`, or less, so that the last number below it stands, or that there is none.
    fn below(&self, end: usize) -> usize {
        let at = self.0.partition_point(|range| range.end < end);
        match self.0.get(at) {
            Some(range) if range.start < end => range.start,
            _ => end,
        }
    }
}

//----------- Zone -----------------------------------------------------------

impl Zone {
    /// The node with this hash that `is_it` tells by its owner.
    #[inline(always)]
    pub fn find_owner(&self, hash: u64, is_it: impl Fn(&[u8]) -> bool) -> Option<usize> {
        if let Some(overlay) = &self.overlay
            && let Some(found) = overlay.find(hash, &is_it)
        {
            return found;
        }
        let mut probe = self.index.probe(hash);
        while let Some(candidate) = probe {
            if is_it(Node::at(&self.pool, candidate.node).owner()) {
                return Some(candidate.node);
            }
            probe = self.index.probe_on(candidate);
        }
        None
    }

    /// Whether all names are as they were when the zone was built.
    #[inline(always)]
    pub fn is_as_built(&self) -> bool {
        self.overlay.is_none()
    }

    /// Names that are not as they were when the zone was built.
    pub fn overlaid_count(&self) -> usize {
        self.overlay.as_ref().map_or(0, |overlay| overlay.len())
    }

    /// What the overlay says of the name: where its node is, or, inside, that it is gone.
    #[cold]
    #[inline(never)]
    pub fn find_overlaid(
        &self,
        name: &LowerName,
        depth: usize,
        hash: u64,
    ) -> Option<Option<usize>> {
        let relative = name.suffix_at(depth)..name.len() - self.apex_len;
        self.overlay.as_ref()?.find(hash, |owner| owner == &name.padded()[relative.clone()])
    }

    /// Where a node of this zone lies.
    pub fn position_of(&self, node: Node<'_>) -> usize {
        let at = node.position_in(&self.pool);
        match &self.overlay {
            Some(overlay) if at >= self.pool.len() => START + node.position_in(&overlay.pool),
            _ => at,
        }
    }

    /// The node with the addresses of the name that `link` points to, if it has any; `name` reads
    /// that name.
    #[inline(always)]
    pub fn target(&self, link: Link, name: impl FnOnce() -> Option<LowerName>) -> Option<Node<'_>> {
        let position = match &self.overlay {
            None if link.node == 0 => return None,
            None => link.node,
            Some(overlay) => overlay.target(self, link, name)?,
        };
        Some(self.node(position))
    }

    /// Asks for the node that `link` points to.
    #[inline(always)]
    pub fn prefetch_target(&self, link: Link) {
        self.prefetch(link.node);
    }

    /// The node whose NSEC is of `relative`, a name without the apex, or covers it.
    #[inline]
    pub fn nsec_over(&self, order: &Order, relative: &[u8]) -> usize {
        self.nsec_over_key(order, Key::new(relative).as_slice())
    }

    #[inline]
    fn nsec_over_key(&self, order: &Order, key: &[u8]) -> usize {
        match &self.overlay {
            None => {
                let after = order.count_to(&self.pool, key);
                order.position(if after == 0 { order.len() } else { after } - 1)
            }
            Some(overlay) => overlay.nsec_over(&self.pool, order, key),
        }
    }

    /// The node whose NSEC comes before that of `relative`, which may be there or not; before the
    /// first is the last.
    pub fn nsec_before(&self, order: &Order, relative: &[u8]) -> usize {
        let key = Key::new(relative);
        // Nothing is between a key and the same without the octet that ends it.
        let before = key
            .as_slice()
            .split_last()
            .map_or(&[u8::MAX; 2 * LABEL_LEN_MAX][..], |(_, before)| before);
        self.nsec_over_key(order, before)
    }

    /// The NSEC3 block that comes before that of `hash`, which may be there or not; before the
    /// first is the last.
    pub fn nsec3_before(&self, chain: &Chain, mut hash: Hash) -> usize {
        for octet in hash.0.iter_mut().rev() {
            let (less, borrows) = octet.overflowing_sub(1);
            *octet = less;
            if !borrows {
                break;
            }
        }
        self.nsec3_over(chain, hash).0
    }

    /// Hashes whose NSEC3 blocks the last change took out, and put none in their place.
    pub(super) fn removed_blocks(&self) -> &[Hash] {
        self.overlay.as_ref().map_or(&[], |overlay| &overlay.removed_blocks)
    }

    /// What an overlay says anew that the one of `before` did not: names, those that are gone too,
    /// and NSEC3 blocks; `None` if the two have not been built as one.
    pub(super) fn news_since(&self, before: &Zone) -> Option<(Vec<usize>, Vec<usize>)> {
        let overlay = self.overlay.as_ref()?;
        if !std::ptr::eq(self.pool.as_ptr(), before.pool.as_ptr()) {
            return None;
        }
        let known = before.overlay.as_ref().map_or(0, |overlay| overlay.pool.len()) + START;
        let is_new = |position: &usize| *position >= known;
        let slots = overlay.slots.iter().map(|slot| slot.unit as usize * 8);
        let blocks = overlay.blocks.iter().map(|(_, unit)| *unit as usize * 8);
        Some((slots.filter(is_new).collect(), blocks.filter(is_new).collect()))
    }

    /// The NSEC3 block whose hash is `hash`, or else the one that covers it, and which it is.
    #[inline]
    pub fn nsec3_over(&self, chain: &Chain, hash: Hash) -> (usize, bool) {
        match &self.overlay {
            None => chain.find(&self.pool, hash),
            Some(overlay) => overlay.nsec3_over(&self.pool, chain, hash),
        }
    }

    /// Where the NSEC3 block that matches the name of `node` is; `None` if an opt-out leaves it
    /// without one.
    #[inline]
    pub fn matching_block(&self, chain: &Chain, node: Node<'_>) -> Option<usize> {
        let block = node.matching_block();
        let Some(overlay) = &self.overlay else { return block };
        if block.is_some_and(|block| overlay.stands(block)) {
            return block;
        }
        let hash = chain.params().hash(self.name_of(node).as_wire());
        let (block, matches) = overlay.nsec3_over(&self.pool, chain, hash);
        matches.then_some(block)
    }

    /// Where the NSEC3 block that covers the wildcard directly below `node` is, if that is known.
    #[inline]
    pub fn wildcard_block(&self, node: Node<'_>) -> Option<usize> {
        let block = node.wildcard_block()?;
        let stands = self.overlay.as_ref().is_none_or(|overlay| overlay.stands(block));
        stands.then_some(block)
    }

    /// The blocks of `chain` in the order of their hashes.
    pub fn nsec3_positions(&self, chain: &Chain) -> Vec<usize> {
        let Some(overlay) = &self.overlay else { return chain.positions().collect() };
        let stands = |i: &usize| !overlay.gaps.contains(*i);
        let built = (0..chain.len()).filter(stands).map(|i| chain.position(i));
        let mine = overlay.blocks.iter().map(|(_, unit)| *unit as usize * 8);
        let mut all: Vec<usize> = built.chain(mine).collect();
        all.sort_by_key(|&position| self.block(position).label());
        all
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_stepped_over() {
        let mut state = 0x9E37_79B9u64;
        let (mut gaps, mut kept) = (Gaps::default(), vec![true; 64]);
        for _ in 0..200 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let number = (state >> 58) as usize;
            gaps.insert(number);
            kept[number] = false;
            for end in 0..=64 {
                let expected = (0..end).rev().find(|&i| kept[i]).map_or(0, |i| i + 1);
                assert_eq!(gaps.below(end), expected, "{end} of {:?}", gaps.0);
                assert!(end == 64 || gaps.contains(end) != kept[end]);
            }
        }
        assert!(gaps.0.windows(2).all(|pair| pair[0].end < pair[1].start));
    }
}
