//! The names of a zone with NSEC in canonical order (RFC 4034, 6.1): which one covers a name.
//!
//! ```text
//!   canonical key   the labels from the apex down, each ended by 0; 0 and 1 inside a label escaped
//!   entry           | key: 8 octets of it, past what all names begin with | node u32 |
//!   samples         every 32nd key
//! ```
//!
//! Two names compare as their canonical keys do, octet by octet. Eight octets tell nearly all names
//! of a zone apart; where they do not, the names themselves are compared. The samples stay near, so
//! a search reads the memory of the zone two or three times.

use std::cmp::Ordering;
use std::io;
use std::sync::Arc;

use crate::limits::NAME_LEN_MAX;
use crate::memory::{Pages, Region, Shared};

use super::node::{Node, read_u32};

/// Every octet of a name may take two, and each label ends with one.
const KEY_LEN_MAX: usize = 2 * NAME_LEN_MAX;
const ENTRY_LEN: usize = 12;
const SAMPLED: usize = 32;

//----------- Key ------------------------------------------------------------

/// A name's canonical key. Made per search; it needs no memory but the stack's.
pub(super) struct Key {
    octets: [u8; KEY_LEN_MAX],
    len: usize,
}

impl Key {
    /// The key of `relative`: whole labels in wire form and lower case, the apex left out.
    pub fn new(relative: &[u8]) -> Key {
        let mut key = Key { octets: [0; KEY_LEN_MAX], len: 0 };
        let mut starts = [0u8; NAME_LEN_MAX];
        let (mut at, mut labels) = (0, 0);
        while at < relative.len() {
            starts[labels] = at as u8;
            labels += 1;
            at += 1 + relative[at] as usize;
        }
        for &start in starts[..labels].iter().rev() {
            let start = start as usize;
            for &octet in &relative[start + 1..start + 1 + relative[start] as usize] {
                key.push(octet);
            }
            // The octet that ends a label is there already.
            key.len += 1;
        }
        key
    }

    #[inline(always)]
    fn push(&mut self, octet: u8) {
        if octet <= 1 {
            self.octets[self.len] = 1;
            self.octets[self.len + 1] = octet + 1;
            self.len += 2;
        } else {
            self.octets[self.len] = octet;
            self.len += 1;
        }
    }

    /// Keys order as their octets do.
    pub fn as_slice(&self) -> &[u8] {
        &self.octets[..self.len]
    }
}

/// The canonical key of `relative`, for sorting what is no part of an [`Order`].
pub(super) fn canonical_key(relative: &[u8]) -> Vec<u8> {
    Key::new(relative).as_slice().to_vec()
}

/// Eight octets of `key` from `skip` on, as a number that orders as they do.
fn part(key: &[u8], skip: usize) -> u64 {
    let rest = key.get(skip..).unwrap_or(&[]);
    let mut octets = [0; 8];
    let len = rest.len().min(8);
    octets[..len].copy_from_slice(&rest[..len]);
    u64::from_be_bytes(octets)
}

//----------- Order ----------------------------------------------------------

/// All names that own an NSEC record, in canonical order. A clone shares them.
#[derive(Clone)]
pub struct Order {
    /// What the keys of all names but the apex begin with.
    prefix: Arc<[u8]>,
    /// Whether the first entry is the apex.
    has_apex: bool,
    count: usize,
    samples: Arc<[u64]>,
    entries: Shared,
}

impl Order {
    /// Orders the nodes at `positions` of `pool`; at least one.
    pub fn build(pool: &[u8], positions: &[usize]) -> io::Result<Order> {
        let key_of = |position: usize| Key::new(Node::at(pool, position).owner());
        let (mut prefix, mut has_apex) = (None::<Vec<u8>>, false);
        for &position in positions {
            let key = key_of(position);
            if key.len == 0 {
                has_apex = true;
                continue;
            }
            let prefix = prefix.get_or_insert_with(|| key.as_slice().to_vec());
            let same = prefix.iter().zip(key.as_slice()).take_while(|(a, b)| a == b).count();
            prefix.truncate(same);
        }
        let prefix = prefix.unwrap_or_default();
        let mut sorted = Pages::default();
        for &position in positions {
            sorted.push((part(key_of(position).as_slice(), prefix.len()), position))?;
        }
        sorted.sort_unstable_by(|&(a, a_at), &(b, b_at)| {
            a.cmp(&b).then_with(|| key_of(a_at).as_slice().cmp(key_of(b_at).as_slice()))
        });
        let mut entries = Region::new(sorted.len() * ENTRY_LEN)?;
        for (entry, (key, position)) in entries.chunks_exact_mut(ENTRY_LEN).zip(&*sorted) {
            entry[..8].copy_from_slice(&key.to_le_bytes());
            entry[8..].copy_from_slice(&((position / 8) as u32).to_le_bytes());
        }
        let samples = sorted.iter().step_by(SAMPLED).map(|&(key, _)| key).collect();
        let (prefix, entries) = (prefix.into(), entries.into());
        Ok(Order { prefix, has_apex, count: sorted.len(), samples, entries })
    }

    /// Names.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Octets of memory.
    pub fn memory_len(&self) -> usize {
        self.entries.len() + self.samples.len() * 8 + self.prefix.len()
    }

    /// The nodes in canonical order.
    pub fn positions(&self) -> impl Iterator<Item = usize> {
        (0..self.count).map(|i| self.position(i))
    }

    /// The last name that is not after `relative`, a name without the apex: its node's position.
    /// The one before the first is the last.
    #[cfg(test)]
    fn find(&self, pool: &[u8], relative: &[u8]) -> usize {
        let after = self.count_to(pool, Key::new(relative).as_slice());
        self.position(if after == 0 { self.count } else { after } - 1)
    }

    /// How many names are not after the one with this canonical key.
    pub(super) fn count_to(&self, pool: &[u8], key: &[u8]) -> usize {
        let shared = key.len().min(self.prefix.len());
        match key[..shared].cmp(&self.prefix[..shared]) {
            // Of names that do not begin as all others do, only the apex can come before them.
            Ordering::Less => usize::from(self.has_apex),
            Ordering::Equal if shared < self.prefix.len() => usize::from(self.has_apex),
            Ordering::Greater => self.count,
            Ordering::Equal => {
                let part = part(key, self.prefix.len());
                // Names whose parts are equal are told apart by the whole.
                let low = self.first(|entry| entry < part);
                let high = self.first(|entry| entry <= part);
                let not_after = |i: usize| {
                    let owner = Node::at(pool, self.position(i)).owner();
                    Key::new(owner).as_slice() <= key
                };
                split(low, high, not_after)
            }
        }
    }

    /// How many entries from the start `is_before` holds for.
    #[inline]
    fn first(&self, is_before: impl Fn(u64) -> bool) -> usize {
        let sample = self.samples.partition_point(|&key| is_before(key));
        let low = sample.saturating_sub(1) * SAMPLED;
        let high = (sample * SAMPLED).min(self.count);
        split(low, high, |i| is_before(self.key(i)))
    }

    #[inline(always)]
    fn key(&self, i: usize) -> u64 {
        let at = i * ENTRY_LEN;
        u64::from_le_bytes(self.entries[at..at + 8].try_into().expect("eight octets"))
    }

    /// The position of the node number `i` in canonical order.
    #[inline(always)]
    pub(super) fn position(&self, i: usize) -> usize {
        read_u32(&self.entries, i * ENTRY_LEN + 8) as usize * 8
    }
}

/// The first of `low..high` that `is_before` does not hold for.
#[inline(always)]
fn split(mut low: usize, mut high: usize, is_before: impl Fn(usize) -> bool) -> usize {
    while low < high {
        let middle = low.midpoint(high);
        if is_before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    /// A pool of nodes without records.
    fn pool(owners: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
        let (mut pool, mut positions) = (vec![0; 8], Vec::new());
        for owner in owners {
            positions.push(pool.len());
            pool.extend([0, owner.len() as u8, 0, 0, 0, 0, 0, 0]);
            pool.extend(owner);
            pool.resize(pool.len().next_multiple_of(8) + 8, 0);
        }
        (pool, positions)
    }

    fn labels(text: &[&[u8]]) -> Vec<u8> {
        text.iter().flat_map(|label| [&[label.len() as u8][..], label].concat()).collect()
    }

    /// RFC 4034, 6.1.
    #[test]
    fn the_order_of_the_rfc() {
        let owners = [
            labels(&[]),
            labels(&[b"a"]),
            labels(&[b"yljkjljk", b"a"]),
            labels(&[b"z", b"a"]),
            labels(&[b"zabc", b"a"]),
            labels(&[b"z"]),
            labels(&[b"\x01", b"z"]),
            labels(&[b"*", b"z"]),
            labels(&[b"\xC8", b"z"]),
        ];
        let (pool, positions) = pool(&owners);
        let mut mixed = positions.clone();
        mixed.reverse();
        let order = Order::build(&pool, &mixed).unwrap();
        assert_eq!(order.positions().collect::<Vec<_>>(), positions);
        for (owner, position) in owners.iter().zip(&positions) {
            assert_eq!(order.find(&pool, owner), *position);
        }
        assert_eq!(order.find(&pool, &labels(&[b"\0", b"z"])), positions[5]);
        assert_eq!(order.find(&pool, &labels(&[b"b"])), positions[4]);
        assert_eq!(order.find(&pool, &labels(&[b"zz"])), positions[8]);
        assert_eq!(order.find(&pool, &labels(&[b"A"])), positions[0]);
    }

    #[test]
    fn random_names_are_covered_by_the_one_before() {
        let mut state = 0x1234_5678_9ABC_DEF1u64;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        for common in [&b""[..], b"host-", b"a-long-common-prefix-of-all-"] {
            let mut name = || {
                let mut owner = Vec::new();
                for _ in 0..random(3) {
                    let len = random(3) as usize;
                    let label: Vec<u8> = (0..len + 1).map(|_| random(4) as u8).collect();
                    owner.extend(labels(&[&label]));
                }
                owner.extend(labels(&[&[common, &[random(4) as u8]].concat()]));
                owner
            };
            let mut owners: Vec<_> = (0..300).map(|_| name()).collect();
            owners.push(Vec::new());
            owners.sort();
            owners.dedup();
            let (pool, positions) = pool(&owners);
            let order = Order::build(&pool, &positions).unwrap();
            let reversed = |owner: &[u8]| {
                let (mut labels, mut rest) = (Vec::new(), owner);
                while let [len, after @ ..] = rest {
                    labels.insert(0, after[..*len as usize].to_vec());
                    rest = &after[*len as usize..];
                }
                labels
            };
            let mut plain: Vec<_> = owners.iter().map(|owner| reversed(owner)).collect();
            plain.sort();
            for asked in (0..1000).map(|_| name()).chain([labels(&[b"\xFF"]), labels(&[b"\0"])]) {
                let found = reversed(Node::at(&pool, order.find(&pool, &asked)).owner());
                let asked = reversed(&asked);
                let wanted = plain.iter().rev().find(|name| **name <= asked).unwrap();
                assert_eq!(found, *wanted, "{asked:?}");
            }
        }
    }
}
