//! The names that a mix asks for: those of zones, with the types they have, and those that no zone
//! has.

use std::io;
use std::sync::Arc;

use ring53::limits::{LABEL_LEN_MAX, NAME_LEN_MAX};
use ring53::wire::rtype;
use ring53::zone::{Node, Zone, flag};

use super::expect::Answers;
use crate::zones::queries::Random;

/// Letters of labels that are made up; in lower case, and none that looks like a name in use.
const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Octets of such a label: 60 bits, none is met twice.
pub const LABEL_LEN: usize = 12;
const _: () = assert!(LABEL_LEN <= LABEL_LEN_MAX);
/// Names that are tried before a zone is thought to have an answer for every name.
const TRIES: usize = 32;
const NXDOMAIN: u8 = 3;

/// Writes letters over `label`.
pub fn draw_label(label: &mut [u8], random: &mut Random) {
    for chunk in label.chunks_mut(12) {
        let mut bits = random.below(1 << 60);
        for octet in chunk {
            *octet = LETTERS[(bits & 31) as usize];
            bits >>= 5;
        }
    }
}

/// `label.parent`; `None` if it is no name.
pub fn below(label: &[u8], parent: &[u8]) -> Option<Vec<u8>> {
    let len = 1 + label.len() + parent.len();
    (len <= NAME_LEN_MAX && label.len() <= LABEL_LEN_MAX)
        .then(|| [&[label.len() as u8], label, parent].concat())
}

//----------- Names ----------------------------------------------------------

/// Names and the types that each is asked for.
#[derive(Default)]
pub struct Names {
    octets: Vec<u8>,
    types: Vec<u16>,
    places: Vec<Place>,
}

#[derive(Clone, Copy)]
struct Place {
    at: u64,
    types_at: u32,
    len: u8,
    types_len: u8,
}

impl Names {
    /// What zones have, in the order of the octets of the names.
    ///
    /// A delegation is asked for an address below it, a wildcard for a name that it covers. Glue
    /// and empty non-terminals are not asked for.
    pub fn of(zones: &[Arc<Zone>], seed: u64) -> Names {
        let mut names = Names::default();
        let mut types = Vec::new();
        for zone in zones {
            for node in zone.nodes() {
                types.clear();
                if let Some(name) = asked_for(zone, node, &mut types, seed) {
                    names.push(&name, &types);
                }
            }
        }
        let octets = &names.octets;
        names
            .places
            .sort_unstable_by_key(|place| &octets[place.at as usize..][..usize::from(place.len)]);
        names
    }

    /// Adds a name.
    pub fn push(&mut self, name: &[u8], types: &[u16]) {
        self.places.push(Place {
            at: self.octets.len() as u64,
            types_at: self.types.len() as u32,
            len: name.len() as u8,
            types_len: types.len().min(255) as u8,
        });
        self.octets.extend_from_slice(name);
        self.types.extend(types.iter().take(255));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Name `index` in wire form, and its types.
    pub fn get(&self, index: usize) -> (&[u8], &[u16]) {
        let place = self.places[index];
        let name = &self.octets[place.at as usize..][..usize::from(place.len)];
        (name, &self.types[place.types_at as usize..][..usize::from(place.types_len)])
    }
}

/// The name that a node is asked by, with its types; `None`: it is not asked for.
fn asked_for(zone: &Zone, node: Node<'_>, types: &mut Vec<u16>, seed: u64) -> Option<Vec<u8>> {
    if node.flags() & flag::OCCLUDED != 0 {
        return None;
    }
    let lower = zone.name_of(node);
    let name = lower.as_wire();
    if node.flags() & flag::CUT != 0 {
        types.push(rtype::A);
        return Some(below(b"www", name).unwrap_or_else(|| name.to_vec()));
    }
    let proofs = [rtype::NSEC, rtype::NSEC3PARAM, rtype::RRSIG];
    types.extend(node.rrsets().map(|rrset| rrset.rtype).filter(|kind| !proofs.contains(kind)));
    if types.is_empty() {
        return None;
    }
    if name.starts_with(b"\x01*") {
        // By the name alone: nodes come in no order.
        let own = name.iter().fold(seed, |sum, octet| sum.rotate_left(5) ^ u64::from(*octet));
        let mut label = *b"w.......";
        draw_label(&mut label[1..], &mut Random::new(own));
        return below(&label, &name[2..]);
    }
    Some(name.to_vec())
}

//----------- Missing --------------------------------------------------------

/// Makes up names that zones do not have.
pub struct Missing<'a> {
    zones: &'a [Arc<Zone>],
    names: &'a Names,
    answers: Answers,
    random: Random,
}

impl<'a> Missing<'a> {
    /// Names that `zones`, which have `names`, do not have.
    pub fn new(zones: &'a [Arc<Zone>], names: &'a Names, seed: u64) -> Missing<'a> {
        let answers = Answers::new(zones);
        Missing { zones, names, answers, random: Random::new(seed) }
    }

    /// The next: one label below an apex, or, where wildcards forbid that, below another name.
    pub fn next_name(&mut self) -> io::Result<Vec<u8>> {
        let mut label = [0; LABEL_LEN];
        for attempt in 0..TRIES {
            let parent = if attempt < TRIES / 2 {
                self.zones[self.random.below(self.zones.len() as u64) as usize].apex_wire()
            } else {
                self.names.get(self.random.below(self.names.len() as u64) as usize).0
            };
            draw_label(&mut label, &mut self.random);
            let Some(name) = below(&label, parent) else { continue };
            if self.answers.rcode(&name, rtype::A) == Some(NXDOMAIN) {
                return Ok(name);
            }
        }
        Err(io::Error::other(format!(
            "{TRIES} names that were made up all exist: the zone has wildcards or delegations for \
             every name, so leave out --nxdomain"
        )))
    }
}
