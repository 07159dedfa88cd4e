//! One name of a zone and its RRsets, in the form they are sent in.
//!
//! ```text
//!   node    | flags | owner_len | rrset_count u16 | depth | cut_depth | children u16 |  8 octets
//!           | owner, relative to the apex, lower case ...                   |
//!           | NSEC3 of the name u32 | NSEC3 over its wildcard u32 |             with `HASHED` only
//!           | type u16 | count u16 | start u32 | len u32 |  x rrset_count   |   the directory
//!           | blocks ...                                                    |
//!
//!   plain block     body                                         (start: octets from the node)
//!   full block      | sig_len u32 | sig_count u16 | fix_count u16 | link_count u16 | 0 0 |
//!                   | body | RRSIGs | fixes (8 octets each) | links (8 octets each) |
//!
//!   body            complete records; the owner is 0xC00C, the question's name, or 0 for the root
//!   fix             | position u32 | what u32 |   a compression pointer inside the body that moves
//!   link            | position u32 | node u32 |   a name in the body with addresses in this zone
//! ```
//!
//! A host with one address is one record of 16 octets behind a header of 8, a name of about 8 and
//! a directory of 12: less than one cache line. A plain block needs no header, and it is what
//! nearly every name of a large zone has.
//!
//! All pointers of a body are relative: to the owner's suffixes (`what` = octets of the suffix) or
//! to an earlier place of the body itself (`what` = `WITHIN` + its position). Whoever emits the
//! body knows where the owner's name stands in the message and fills them in.

use crate::limits::RDATA_LEN_MAX;

/// The owner of a prepared record: the question's name (RFC 1035, 4.1.4).
pub const OWNER_POINTER: [u8; 2] = [0xC0, 0x0C];
/// In a fix: the target lies in the same body.
pub const WITHIN: u32 = 1 << 31;
/// In a link: the address is needed to follow the referral (RFC 9471: in-domain glue).
pub const REQUIRED: u32 = 1 << 31;
/// In a directory's start: the block has a header.
pub(super) const FULL: u32 = 1 << 31;

pub(super) const NODE_HEADER_LEN: usize = 8;
pub(super) const DIRECTORY_ENTRY_LEN: usize = 12;
pub(super) const BLOCK_HEADER_LEN: usize = 12;
/// The two block positions of a node with [`flag::HASHED`].
pub(super) const BLOCKS_LEN: usize = 8;
/// In place of a block over the wildcard: the name has names below, the block is yet to be found.
pub(super) const PARENT: u32 = u32::MAX;
pub(super) const DEPTH_AT: usize = 4;
pub(super) const CUT_DEPTH_AT: usize = 5;
pub(super) const CHILDREN_AT: usize = 6;
const _: () = assert!(RDATA_LEN_MAX + 12 < FULL as usize);

/// What a name is, beyond its records.
pub mod flag {
    /// NS records below the apex: the zone ends here.
    pub const CUT: u8 = 1;
    /// Below a cut or a DNAME: `cut_depth` says where.
    pub const OCCLUDED: u8 = 2;
    /// Owns a DNAME.
    pub const DNAME: u8 = 4;
    /// A wildcard exists directly below.
    pub const WILDCARD_CHILD: u8 = 8;
    /// Owns a CNAME.
    pub const CNAME: u8 = 16;
    /// The zone's own name.
    pub const APEX: u8 = 32;
    /// In a zone with NSEC3: the owner is followed by where its blocks are.
    pub const HASHED: u8 = 64;
    /// Only in an overlay: the name is gone.
    pub const GONE: u8 = 128;
}

//----------- Node -----------------------------------------------------------

/// A view of one node in its zone's pool.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    octets: &'a [u8],
}

impl<'a> Node<'a> {
    /// The node at `position` of `pool`.
    #[inline(always)]
    pub fn at(pool: &'a [u8], position: usize) -> Node<'a> {
        Node { octets: &pool[position..] }
    }

    /// Where the node lies in the pool it is a view of; past its end in any other.
    pub fn position_in(self, pool: &[u8]) -> usize {
        (self.octets.as_ptr() as usize).wrapping_sub(pool.as_ptr() as usize)
    }

    /// The flags of [`flag`].
    #[inline(always)]
    pub fn flags(self) -> u8 {
        self.octets[0]
    }

    /// Labels of the whole name.
    #[inline(always)]
    pub fn depth(self) -> usize {
        self.octets[DEPTH_AT] as usize
    }

    /// Labels of the cut or DNAME that hides this node; only with [`flag::OCCLUDED`].
    #[inline(always)]
    pub fn cut_depth(self) -> usize {
        self.octets[CUT_DEPTH_AT] as usize
    }

    /// Names directly below it, of those below the apex's own children; at most `u16::MAX`.
    pub(super) fn children(self) -> u16 {
        u16::from_le_bytes([self.octets[CHILDREN_AT], self.octets[CHILDREN_AT + 1]])
    }

    /// The name without the apex, lower case.
    #[inline(always)]
    pub fn owner(self) -> &'a [u8] {
        &self.octets[NODE_HEADER_LEN..NODE_HEADER_LEN + self.octets[1] as usize]
    }

    /// RRsets; none for an empty non-terminal.
    #[inline(always)]
    pub fn rrset_count(self) -> usize {
        u16::from_le_bytes([self.octets[2], self.octets[3]]) as usize
    }

    /// The RRset of `rtype`, if it has records.
    #[inline(always)]
    pub fn rrset(self, rtype: u16) -> Option<Rrset<'a>> {
        let directory = self.directory();
        let entry = directory
            .chunks_exact(DIRECTORY_ENTRY_LEN)
            .find(|entry| u16::from_le_bytes([entry[0], entry[1]]) == rtype)?;
        Some(self.open(entry)).filter(|rrset| rrset.count > 0)
    }

    /// All RRsets in ascending order of their types, those of signatures alone too.
    pub fn rrsets(self) -> impl Iterator<Item = Rrset<'a>> {
        self.directory().chunks_exact(DIRECTORY_ENTRY_LEN).map(move |entry| self.open(entry))
    }

    /// Where the NSEC3 block that matches this name is; `None` outside such zones, and for names
    /// that an opt-out leaves without one.
    #[inline]
    pub(super) fn matching_block(self) -> Option<usize> {
        self.block(0)
    }

    /// Where the NSEC3 block that covers the wildcard directly below this name is, if that was
    /// found out when the zone was built: of names with names below.
    #[inline]
    pub(super) fn wildcard_block(self) -> Option<usize> {
        self.block(4)
    }

    #[inline]
    fn block(self, at: usize) -> Option<usize> {
        if self.flags() & flag::HASHED == 0 {
            return None;
        }
        let unit = read_u32(self.octets, NODE_HEADER_LEN + self.octets[1] as usize + at);
        (unit != 0 && unit != PARENT).then_some(unit as usize * 8)
    }

    /// Whether the place of the second block waits to be filled in.
    pub(super) fn is_parent(self) -> bool {
        self.flags() & flag::HASHED != 0 && read_u32(self.octets, self.blocks_at() + 4) == PARENT
    }

    /// Where the two block positions stand in the node.
    pub(super) fn blocks_at(self) -> usize {
        NODE_HEADER_LEN + self.octets[1] as usize
    }

    #[inline(always)]
    fn directory(self) -> &'a [u8] {
        let hashed = usize::from(self.flags() & flag::HASHED != 0);
        let start = NODE_HEADER_LEN + self.octets[1] as usize + hashed * BLOCKS_LEN;
        &self.octets[start..start + self.rrset_count() * DIRECTORY_ENTRY_LEN]
    }

    #[inline(always)]
    fn open(self, entry: &[u8]) -> Rrset<'a> {
        let start = read_u32(entry, 4);
        let len = read_u32(entry, 8) as usize;
        let block = &self.octets[(start & !FULL) as usize..];
        let (header, body) = if start & FULL == 0 {
            (None, block)
        } else {
            (Some(block), &block[BLOCK_HEADER_LEN..])
        };
        Rrset {
            rtype: u16::from_le_bytes([entry[0], entry[1]]),
            count: u16::from_le_bytes([entry[2], entry[3]]),
            body: &body[..len],
            header,
        }
    }
}

#[inline(always)]
pub(super) fn read_u32(octets: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(octets[at..at + 4].try_into().expect("four octets"))
}

//----------- Rrset ----------------------------------------------------------

/// A view of one prepared RRset.
#[derive(Clone, Copy)]
pub struct Rrset<'a> {
    /// The type.
    pub rtype: u16,
    /// Records.
    pub count: u16,
    /// The records, ready but for the fixes.
    pub body: &'a [u8],
    /// A full block, from its header on.
    header: Option<&'a [u8]>,
}

/// A compression pointer of a body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fix {
    /// Octets from the start of the body.
    pub position: usize,
    /// Octets of the owner's suffix that is meant, or [`WITHIN`] and a position in the body.
    pub what: u32,
}

/// A name in a body that lies in this zone.
#[derive(Clone, Copy)]
pub struct Link {
    /// Octets from the start of the body to the name.
    pub position: usize,
    /// Whether a referral is useless without its addresses.
    pub required: bool,
    /// The position of the node that had addresses when the zone was built; 0 if none had.
    pub(super) node: usize,
}

impl<'a> Rrset<'a> {
    /// The RRSIGs that cover it, and how many they are.
    #[inline]
    pub fn signatures(self) -> (u16, &'a [u8]) {
        match self.header {
            None => (0, &[]),
            Some(block) => {
                let start = BLOCK_HEADER_LEN + self.body.len();
                let count = u16::from_le_bytes([block[4], block[5]]);
                (count, &block[start..start + read_u32(block, 0) as usize])
            }
        }
    }

    /// The pointers to fill in.
    #[inline]
    pub fn fixes(self) -> impl Iterator<Item = Fix> + 'a {
        let fixes = self.header.map_or(&[][..], |block| {
            let start = BLOCK_HEADER_LEN + self.body.len() + read_u32(block, 0) as usize;
            &block[start..start + 8 * u16::from_le_bytes([block[6], block[7]]) as usize]
        });
        fixes
            .chunks_exact(8)
            .map(|fix| Fix { position: read_u32(fix, 0) as usize, what: read_u32(fix, 4) })
    }

    /// Whether [`Rrset::links`] has any.
    #[inline(always)]
    pub fn has_links(self) -> bool {
        self.header.is_some_and(|block| block[8..10] != [0, 0])
    }

    /// The names in it that lie in this zone.
    #[inline]
    pub fn links(self) -> impl Iterator<Item = Link> + 'a {
        let links = self.header.map_or(&[][..], |block| {
            let fix_count = u16::from_le_bytes([block[6], block[7]]) as usize;
            let start =
                BLOCK_HEADER_LEN + self.body.len() + read_u32(block, 0) as usize + fix_count * 8;
            &block[start..start + 8 * u16::from_le_bytes([block[8], block[9]]) as usize]
        });
        links.chunks_exact(8).map(|link| {
            let position = read_u32(link, 0);
            Link {
                position: (position & !REQUIRED) as usize,
                required: position & REQUIRED != 0,
                node: read_u32(link, 4) as usize * 8,
            }
        })
    }

    /// The whole block, and whether it is a full one.
    pub(super) fn to_block(self) -> (Vec<u8>, bool) {
        match self.header {
            None => (self.body.to_vec(), false),
            Some(block) => {
                let pairs = |at: usize| 8 * u16::from_le_bytes([block[at], block[at + 1]]) as usize;
                let len = BLOCK_HEADER_LEN
                    + self.body.len()
                    + read_u32(block, 0) as usize
                    + pairs(6)
                    + pairs(8);
                (block[..len].to_vec(), true)
            }
        }
    }

    /// Seconds: all records of an RRset have the same (RFC 2181, 5.2).
    pub fn ttl(self) -> u32 {
        let owner_len = owner_len(self.body);
        let octets = &self.body[owner_len + 4..owner_len + 8];
        u32::from_be_bytes(octets.try_into().expect("four octets"))
    }

    /// The RDATA of all records; names in it may hold unfilled pointers.
    pub fn rdatas(self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.body;
        std::iter::from_fn(move || {
            let start = owner_len(rest.get(..1)?) + 10;
            let len = u16::from_be_bytes([rest[start - 2], rest[start - 1]]) as usize;
            let rdata = &rest[start..start + len];
            rest = &rest[start + len..];
            Some(rdata)
        })
    }

    /// The RDATA of the first record; names in it may hold unfilled pointers.
    pub fn first_rdata(self) -> &'a [u8] {
        let start = owner_len(self.body) + 10;
        let len = u16::from_be_bytes([self.body[start - 2], self.body[start - 1]]) as usize;
        &self.body[start..start + len]
    }
}

/// Octets of a prepared record's owner: a pointer, or the root's zero octet.
#[inline(always)]
pub fn owner_len(record: &[u8]) -> usize {
    if record[0] == 0 { 1 } else { 2 }
}
