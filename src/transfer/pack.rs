//! Messages of a transfer, filled with records until no more fits.
//!
//! ```text
//!   header | apex, type, class | www -> apex | A ... | -> www | RRSIG ... | mail -> apex | ...
//!            12 <────────────────────┘         └──────────────┘
//! ```
//!
//! Prepared records are copied as they are: their pointers are relative, so only where the owner
//! stands, and how far the body has moved, is filled in. Every message repeats the question, which
//! is what owners are compressed against.

use crate::limits::{HEADER_LEN, MESSAGE_SIZE_MAX, POINTER_TARGET_MAX};
use crate::wire::LowerName;
use crate::wire::message::{CLASS_IN, Section, add_to_count, header};
use crate::zone::node::{Fix, WITHIN, owner_len};
use crate::zone::{Rrset, nsec3};

/// Octets of a message that has pointers: each place in it can be pointed to.
const FULL_LEN: usize = POINTER_TARGET_MAX + 1;

/// One message under construction.
pub struct Packer<'a> {
    out: &'a mut Vec<u8>,
    apex: &'a LowerName,
    /// Octets at most.
    limit: usize,
    /// Octets before the first record.
    start: usize,
    count: u16,
}

impl<'a> Packer<'a> {
    /// An empty message; `reserve` octets are kept free for what is added later.
    pub fn new(
        out: &'a mut Vec<u8>,
        id: u16,
        apex: &'a LowerName,
        qtype: u16,
        reserve: usize,
    ) -> Packer<'a> {
        out.clear();
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&(header::QR | header::AA).to_be_bytes());
        out.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(apex.as_wire());
        out.extend_from_slice(&qtype.to_be_bytes());
        out.extend_from_slice(&CLASS_IN.to_be_bytes());
        let start = out.len();
        Packer { out, apex, limit: FULL_LEN - reserve, start, count: 0 }
    }

    /// Whether there is no record in it yet.
    pub fn is_empty(&self) -> bool {
        self.out.len() == self.start
    }

    /// Ends it.
    pub fn finish(self) {
        add_to_count(self.out, Section::Answer as usize, self.count);
    }

    /// Adds an RRset, its signatures, or both. `owner_at` is where the owner stands in this message
    /// if it does. `false`, and nothing is added, if it does not fit.
    pub fn rrset(
        &mut self,
        owner: &LowerName,
        owner_at: &mut Option<usize>,
        rrset: Rrset<'_>,
        parts: Parts,
    ) -> bool {
        let (len, count, at) = (self.out.len(), self.count, *owner_at);
        let (signature_count, signatures) = rrset.signatures();
        let fits = (parts == Parts::Signatures
            || self.prepared(owner, owner_at, rrset.body, rrset.count, rrset.fixes()))
            && (parts == Parts::Records
                || self.prepared(owner, owner_at, signatures, signature_count, std::iter::empty()));
        if !fits {
            self.out.truncate(len);
            (self.count, *owner_at) = (count, at);
        }
        fits
    }

    /// Adds an NSEC3 record and its signatures, as [`Packer::rrset`] does.
    pub fn block(&mut self, block: nsec3::Block<'_>, records: u16, signatures: u16) -> bool {
        let (len, count) = (self.out.len(), self.count);
        // Its owner is written out, a label before a pointer to the question.
        self.out.extend_from_slice(block.body());
        self.count += records;
        let none = std::iter::empty();
        let fits = self.out.len() <= self.limit
            && self.prepared(self.apex, &mut Some(len), block.signatures(), signatures, none);
        if !fits {
            self.out.truncate(len);
            self.count = count;
        }
        fits
    }

    /// Adds a record as it is; one that fills a message alone may be longer than others.
    pub fn record(&mut self, owner: &LowerName, rtype: u16, ttl: u32, rdata: &[u8]) -> bool {
        let len = self.out.len();
        let limit =
            if self.is_empty() { self.limit + MESSAGE_SIZE_MAX - FULL_LEN } else { self.limit };
        self.owner(owner);
        self.out.extend_from_slice(&rtype.to_be_bytes());
        self.out.extend_from_slice(&CLASS_IN.to_be_bytes());
        self.out.extend_from_slice(&ttl.to_be_bytes());
        self.out.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
        self.out.extend_from_slice(rdata);
        if self.out.len() > limit {
            self.out.truncate(len);
            return false;
        }
        self.count += 1;
        true
    }

    /// Writes `owner`, which is at or below the apex, and which is not in the message.
    fn owner(&mut self, owner: &LowerName) {
        let relative = owner.len() - self.apex.len();
        self.out.extend_from_slice(&owner.as_wire()[..relative]);
        if self.apex.is_empty() {
            self.out.push(0);
        } else {
            self.out.extend_from_slice(&pointer(HEADER_LEN));
        }
    }

    fn prepared(
        &mut self,
        owner: &LowerName,
        owner_at: &mut Option<usize>,
        body: &[u8],
        count: u16,
        fixes: impl Iterator<Item = Fix>,
    ) -> bool {
        if body.is_empty() {
            return true;
        }
        let start = self.out.len();
        let owner_at = match *owner_at {
            Some(at) if body[0] != 0 => {
                self.out.extend_from_slice(&pointer(at));
                at
            }
            _ => {
                self.owner(owner);
                let at = if owner.len() == self.apex.len() { HEADER_LEN } else { start };
                *owner_at.insert(at)
            }
        };
        // Octets of the body are now so much farther on.
        let moved = self.out.len() - owner_len(body);
        self.out.extend_from_slice(&body[owner_len(body)..]);
        if self.out.len() > self.limit {
            self.out.truncate(start);
            return false;
        }
        let mut at = 0;
        while at < body.len() {
            let fields = at + owner_len(&body[at..]);
            if at > 0 && fields == at + 2 {
                self.out[moved + at..moved + fields].copy_from_slice(&pointer(owner_at));
            }
            at =
                fields + 10 + usize::from(u16::from_be_bytes([body[fields + 8], body[fields + 9]]));
        }
        let apex_len = self.apex.len();
        for fix in fixes {
            let what = (fix.what & !WITHIN) as usize;
            let target = if fix.what & WITHIN != 0 {
                moved + what
            } else if what <= apex_len {
                HEADER_LEN + apex_len - what
            } else {
                owner_at + owner.len() - what
            };
            let at = moved + fix.position;
            self.out[at..at + 2].copy_from_slice(&pointer(target));
        }
        self.count += count;
        true
    }
}

/// What of an RRset is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// Without signatures.
    Records,
    /// Without what they sign.
    Signatures,
    /// All of it.
    Both,
}

fn pointer(target: usize) -> [u8; 2] {
    debug_assert!(target <= POINTER_TARGET_MAX);
    (0xC000 | target as u16).to_be_bytes()
}
