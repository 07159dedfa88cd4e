//! Writes a reply over its query, from prepared RRsets.
//!
//! ```text
//!   | header | question, as the client wrote it | answer | authority | additional | OPT |
//!   0        12                    question_end ^        ^ at ──>         limit ^
//! ```
//!
//! The question stays where it is, letter case and all, and the records' owners point into it.
//! Room for OPT is set aside from the start, so that it always fits.

use crate::cache::Entry;
use crate::limits::{HEADER_LEN, POINTER_TARGET_MAX};
use crate::wire::query::{Edns, Query};
use crate::wire::rcode::Rcode;
use crate::wire::{LowerName, rtype};
use crate::zone::node::{WITHIN, owner_len};
use crate::zone::nsec3::{Block, LABEL_LEN};
use crate::zone::{Rrset, Zone};

const OPT_LEN: usize = 11;
const OPTION_NSID: u16 = 3;
const OPTION_KEEPALIVE: u16 = 11;
const OPTION_EDE: u16 = 15;
const KEEPALIVE_LEN: usize = 6;
const EDE_LEN: usize = 6;

//----------- Owner ----------------------------------------------------------

/// Where the name that owns the records stands in the message.
#[derive(Clone, Copy, Debug)]
pub enum Owner {
    /// It ends, uncompressed, at this octet: the question's name or a suffix of it.
    Ends {
        /// The octet after the root's.
        end: usize,
        /// Octets of the name.
        len: usize,
    },
    /// It starts at `at` and may be compressed: a name in RDATA.
    Starts {
        /// Its first octet.
        at: usize,
        /// Octets of the name, uncompressed.
        len: usize,
    },
}

impl Owner {
    /// Octets of the name.
    pub fn name_len(self) -> usize {
        match self {
            Owner::Ends { len, .. } | Owner::Starts { len, .. } => len,
        }
    }

    /// The owner's suffix of `len` octets.
    pub fn suffix(self, message: &[u8], len: usize) -> Owner {
        match self {
            Owner::Ends { end, .. } => Owner::Ends { end, len },
            Owner::Starts { .. } => Owner::Starts { at: self.target(message, len), len },
        }
    }

    /// Where a pointer to the suffix of `suffix_len` octets points.
    #[inline(always)]
    fn target(self, message: &[u8], suffix_len: usize) -> usize {
        match self {
            Owner::Ends { end, .. } => end - suffix_len,
            Owner::Starts { at, len } => skip_octets(message, at, len - suffix_len),
        }
    }
}

/// Moves `count` octets of expanded name on from `at`, through pointers.
fn skip_octets(message: &[u8], mut at: usize, mut count: usize) -> usize {
    loop {
        let len = message[at] as usize;
        if len >= 0xC0 {
            at = (len & 0x3F) << 8 | message[at + 1] as usize;
        } else if count == 0 {
            return at;
        } else {
            at += len + 1;
            count -= len + 1;
        }
    }
}

//----------- Section --------------------------------------------------------

/// Where records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// ANCOUNT.
    Answer = 0,
    /// NSCOUNT.
    Authority = 1,
    /// ARCOUNT.
    Additional = 2,
}

/// What becomes of TTLs that were kept.
#[derive(Clone, Copy, Debug)]
pub enum Ttls {
    /// So many seconds have passed.
    Less(u32),
    /// They are over: all become this.
    All(u32),
}

//----------- Reply ----------------------------------------------------------

/// A reply under construction.
pub struct Reply<'a> {
    buffer: &'a mut [u8],
    at: usize,
    limit: usize,
    counts: [u16; 3],
    edns: Option<Edns>,
    /// The response code.
    pub rcode: Rcode,
    /// AA.
    pub authoritative: bool,
    /// RA and AD, as they stand in the header's fourth octet.
    pub bits: u8,
    /// TC.
    pub truncated: bool,
    /// An Extended DNS Error to explain the code.
    pub ede: Option<u16>,
    /// More of them, as EDNS options.
    pub ede_options: &'a [u8],
    nsid: &'a [u8],
    keepalive: Option<u16>,
}

/// What a client may be told of server and connection in OPT, if it asks.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// NSID (RFC 5001).
    pub nsid: Option<&'a [u8]>,
    /// How long the connection may be idle (RFC 7828), in units of 100 ms; only who asked.
    pub keepalive: Option<u16>,
}

impl<'a> Reply<'a> {
    /// A reply over the query in `buffer`, of at most `limit` octets.
    pub fn new(buffer: &'a mut [u8], query: &Query, limit: usize, options: Options<'a>) -> Self {
        let nsid = match query.edns {
            Some(Edns { nsid: true, .. }) => options.nsid,
            _ => None,
        };
        let mut opt_len = match query.edns {
            None => 0,
            Some(_) => OPT_LEN + nsid.map_or(0, |nsid| 4 + nsid.len()),
        };
        if options.keepalive.is_some() {
            opt_len += KEEPALIVE_LEN;
        }
        Reply {
            buffer,
            at: query.question_end,
            limit: limit.saturating_sub(opt_len),
            counts: [0; 3],
            edns: query.edns,
            rcode: 0,
            authoritative: false,
            bits: 0,
            truncated: false,
            ede: None,
            ede_options: &[],
            nsid: nsid.unwrap_or(&[]),
            keepalive: options.keepalive,
        }
    }

    /// The octets written so far.
    pub fn message(&self) -> &[u8] {
        &self.buffer[..self.at]
    }

    /// Whether signatures are wanted.
    #[inline(always)]
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// Adds a whole RRset, and its signatures if they are wanted. Returns where its body starts,
    /// or `None` if it did not fit and nothing was written.
    #[inline]
    pub fn rrset(&mut self, section: Section, rrset: Rrset<'_>, owner: Owner) -> Option<usize> {
        let start = self.at;
        let end = start + rrset.body.len();
        if end > self.limit {
            return None;
        }
        self.buffer[start..end].copy_from_slice(rrset.body);
        self.at = end;
        let target = if owner.name_len() > 1 {
            owner.target(&self.buffer[..start], owner.name_len())
        } else {
            0
        };
        if target > POINTER_TARGET_MAX {
            self.at = start;
            return None;
        }
        if target > HEADER_LEN {
            point_owners(&mut self.buffer[start..end], target);
        }
        for fix in rrset.fixes() {
            let target = if fix.what & WITHIN != 0 {
                start + (fix.what & !WITHIN) as usize
            } else {
                owner.target(&self.buffer[..start], fix.what as usize)
            };
            debug_assert!(target <= POINTER_TARGET_MAX);
            let pointer = 0xC000 | target as u16;
            let at = start + fix.position;
            self.buffer[at..at + 2].copy_from_slice(&pointer.to_be_bytes());
        }
        self.counts[section as usize] += rrset.count;
        if self.dnssec_ok() && !self.signatures(section, rrset, target) {
            self.at = start;
            self.counts[section as usize] -= rrset.count;
            return None;
        }
        Some(start)
    }

    /// Adds the signatures over `rrset`, whose owner stands at `target` (0: the root).
    fn signatures(&mut self, section: Section, rrset: Rrset<'_>, target: usize) -> bool {
        let (count, body) = rrset.signatures();
        let start = self.at;
        let end = start + body.len();
        if end > self.limit {
            return false;
        }
        self.buffer[start..end].copy_from_slice(body);
        if target > HEADER_LEN {
            point_owners(&mut self.buffer[start..end], target);
        }
        self.at = end;
        self.counts[section as usize] += count;
        true
    }

    /// Adds only the signatures over `rrset`: what a query for RRSIG is answered with.
    pub fn signatures_alone(&mut self, section: Section, rrset: Rrset<'_>, owner: Owner) -> bool {
        let target =
            if owner.name_len() > 1 { owner.target(self.message(), owner.name_len()) } else { 0 };
        self.signatures(section, rrset, target)
    }

    /// Adds an RRset of one record to the authority section under a name that is not in the
    /// message: `labels` and then `rest`, which is. `false` if it does not fit.
    pub fn named_rrset(&mut self, rrset: Rrset<'_>, labels: &[u8], rest: Owner) -> bool {
        debug_assert!(rrset.count == 1 && rrset.fixes().next().is_none());
        let (start, counts) = (self.at, self.counts);
        let fits = self.named(labels, rest, rrset.body)
            && if start > POINTER_TARGET_MAX {
                self.named(labels, rest, rrset.signatures().1)
            } else {
                self.signatures(Section::Authority, rrset, start)
            };
        if !fits {
            (self.at, self.counts) = (start, counts);
            return false;
        }
        self.counts[Section::Authority as usize] += rrset.count;
        if start > POINTER_TARGET_MAX {
            self.counts[Section::Authority as usize] += rrset.signatures().0;
        }
        true
    }

    /// Writes prepared records, each under `labels` and then a pointer to `rest`, or the root.
    fn named(&mut self, labels: &[u8], rest: Owner, mut records: &[u8]) -> bool {
        let target = rest.target(self.message(), rest.name_len());
        if target > POINTER_TARGET_MAX {
            return false;
        }
        let pointer = (0xC000 | target as u16).to_be_bytes();
        let pointer = if rest.name_len() > 1 { &pointer[..] } else { &[0] };
        while !records.is_empty() {
            let start = owner_len(records);
            let len = u16::from_be_bytes([records[start + 8], records[start + 9]]) as usize;
            let (record, after) = records.split_at(start + 10 + len);
            records = after;
            let (fields_at, end) = (self.at + labels.len() + pointer.len(), record.len() - start);
            let end = fields_at + end;
            if end > self.limit {
                return false;
            }
            self.buffer[self.at..self.at + labels.len()].copy_from_slice(labels);
            self.buffer[self.at + labels.len()..fields_at].copy_from_slice(pointer);
            self.buffer[fields_at..end].copy_from_slice(&record[start..]);
            self.at = end;
        }
        true
    }

    /// Adds an NSEC3 RRset and its signatures to the authority section. `false` if it does not fit.
    #[inline]
    pub fn block(&mut self, block: Block<'_>, apex: Owner) -> bool {
        let (body, signatures) = (block.body(), block.signatures());
        let (start, middle) = (self.at, self.at + body.len());
        let target = apex.target(self.message(), apex.name_len());
        if middle > self.limit || target > POINTER_TARGET_MAX {
            return false;
        }
        self.buffer[start..middle].copy_from_slice(body);
        let (count, signature_count) = block.counts();
        if apex.name_len() > 1 {
            let pointer = (0xC000 | target as u16).to_be_bytes();
            let mut at = start;
            for _ in 0..count {
                at += 1 + LABEL_LEN;
                self.buffer[at..at + 2].copy_from_slice(&pointer);
                at +=
                    12 + u16::from_be_bytes([self.buffer[at + 10], self.buffer[at + 11]]) as usize;
            }
        }
        self.at = middle;
        let end = middle + signatures.len();
        let fits = if start > POINTER_TARGET_MAX {
            self.named(&body[..1 + LABEL_LEN], apex, signatures)
        } else if end <= self.limit {
            self.buffer[middle..end].copy_from_slice(signatures);
            point_owners(&mut self.buffer[middle..end], start);
            self.at = end;
            true
        } else {
            false
        };
        if !fits {
            self.at = start;
            return false;
        }
        self.counts[Section::Authority as usize] += count + signature_count;
        true
    }

    /// Adds the CNAME that a DNAME makes (RFC 6672, 3.1): `prefix_len` octets of the owner and
    /// then the name at `target_at`, which is the root if `target_len` is 1. Returns where the
    /// new name starts, or `None` if it did not fit.
    pub fn synthesized_cname(
        &mut self,
        owner: Owner,
        ttl: u32,
        prefix: &[u8],
        target_at: usize,
        target_len: usize,
    ) -> Option<usize> {
        let pointer_len = if target_len == 1 { 1 } else { 2 };
        let rdlen = prefix.len() + pointer_len;
        let end = self.at + 12 + rdlen;
        let owner_at = owner.target(self.message(), owner.name_len());
        if end > self.limit || target_at > POINTER_TARGET_MAX || owner_at > POINTER_TARGET_MAX {
            return None;
        }
        let record = &mut self.buffer[self.at..end];
        record[0..2].copy_from_slice(&(0xC000 | owner_at as u16).to_be_bytes());
        record[2..4].copy_from_slice(&rtype::CNAME.to_be_bytes());
        record[4..6].copy_from_slice(&[0, 1]);
        record[6..10].copy_from_slice(&ttl.to_be_bytes());
        record[10..12].copy_from_slice(&(rdlen as u16).to_be_bytes());
        record[12..12 + prefix.len()].copy_from_slice(prefix);
        let pointer = (0xC000 | target_at as u16).to_be_bytes();
        record[12 + prefix.len()..].copy_from_slice(if target_len == 1 { &[0] } else { &pointer });
        let name_at = self.at + 12;
        self.at = end;
        self.counts[Section::Answer as usize] += 1;
        Some(name_at)
    }

    /// Adds a record that is written already; `None` if it does not fit.
    #[cold]
    pub fn record(&mut self, section: Section, octets: &[u8]) -> Option<()> {
        let end = self.at + octets.len();
        if end > self.limit {
            return None;
        }
        self.buffer[self.at..end].copy_from_slice(octets);
        self.at = end;
        self.counts[section as usize] += 1;
        Some(())
    }

    /// Adds the records of an answer from the cache, the first of this reply. All of it fits, or
    /// none: a resolver that asks over UDP comes back over TCP.
    #[inline]
    pub fn cached(&mut self, entry: &Entry<'_>, ttls: Ttls) {
        let start = self.at;
        let records = entry.records();
        let end = start + records.body.len();
        if end > self.limit {
            self.truncated = true;
            return;
        }
        self.buffer[start..end].copy_from_slice(records.body);
        for place in records.ttl_places() {
            let field: &mut [u8; 4] =
                (&mut self.buffer[start + place..][..4]).try_into().expect("four octets");
            *field = match ttls {
                Ttls::Less(age) => u32::from_be_bytes(*field).saturating_sub(age),
                Ttls::All(ttl) => ttl,
            }
            .to_be_bytes();
        }
        self.at = end;
        self.counts = records.counts;
    }

    /// Adds the addresses of the name servers of `rrset`, whose body was written at `start`.
    ///
    //= RFC 9471, 3.1
    //# If the message size constraints prevent the inclusion of all glue records for in-domain
    //# name servers, the server must set the TC (Truncated) flag
    pub fn addresses(&mut self, zone: &Zone, rrset: Rrset<'_>, start: usize, referral: bool) {
        rrset.links().for_each(|link| zone.prefetch_target(link));
        // Every server gets one address before any gets two.
        for (required, rtype) in
            [(true, rtype::A), (true, rtype::AAAA), (false, rtype::A), (false, rtype::AAAA)]
        {
            for link in rrset.links().filter(|link| link.required == required) {
                let name_at = start + link.position;
                let target = zone.target(link, || self.name_at(name_at));
                let Some(node) = target else { continue };
                let Some(addresses) = node.rrset(rtype) else { continue };
                let len = node.owner().len() + zone.apex_len();
                let owner = Owner::Starts { at: name_at, len };
                let fits = self.rrset(Section::Additional, addresses, owner).is_some();
                if !fits && required && referral {
                    self.truncated = true;
                }
            }
        }
    }

    #[cold]
    fn name_at(&self, at: usize) -> Option<LowerName> {
        let mut name = LowerName::new();
        name.read_compressed(self.message(), at)?;
        Some(name)
    }

    /// Adds a TXT record of class CH that nobody stored.
    pub fn chaos_txt(&mut self, text: &str) {
        let text = &text.as_bytes()[..text.len().min(255)];
        let end = self.at + 13 + text.len();
        if end > self.limit {
            self.truncated = true;
            return;
        }
        let record = &mut self.buffer[self.at..end];
        record[..10].copy_from_slice(&[0xC0, 12, 0, rtype::TXT as u8, 0, 3, 0, 0, 0, 0]);
        record[10..12].copy_from_slice(&(text.len() as u16 + 1).to_be_bytes());
        record[12] = text.len() as u8;
        record[13..].copy_from_slice(text);
        self.at = end;
        self.counts[Section::Answer as usize] += 1;
    }

    /// Writes header and OPT; returns the length of the message.
    #[inline]
    pub fn finish(mut self, question_count: u8) -> usize {
        if let Some(edns) = self.edns {
            self.opt(edns);
        }
        let header = &mut self.buffer[..HEADER_LEN];
        // QR, the opcode and RD as they came, AA and TC; Z clear.
        header[2] = 0x80
            | header[2] & 0x79
            | u8::from(self.authoritative) << 2
            | u8::from(self.truncated) << 1;
        //= RFC 4035, 3.1.6
        //# The CD bit ... MUST be copied
        header[3] = header[3] & 0x10 | self.bits | (self.rcode & 0xF) as u8;
        header[4..6].copy_from_slice(&[0, question_count]);
        for (section, count) in self.counts.iter().enumerate() {
            header[6 + section * 2..8 + section * 2].copy_from_slice(&count.to_be_bytes());
        }
        self.at
    }

    fn opt(&mut self, edns: Edns) {
        let start = self.at;
        let mut at = start + OPT_LEN;
        if !self.nsid.is_empty() {
            let end = at + 4 + self.nsid.len();
            self.buffer[at..at + 2].copy_from_slice(&OPTION_NSID.to_be_bytes());
            self.buffer[at + 2..at + 4].copy_from_slice(&(self.nsid.len() as u16).to_be_bytes());
            self.buffer[at + 4..end].copy_from_slice(self.nsid);
            at = end;
        }
        if let Some(idle) = self.keepalive {
            self.buffer[at..at + 2].copy_from_slice(&OPTION_KEEPALIVE.to_be_bytes());
            self.buffer[at + 2..at + 4].copy_from_slice(&[0, 2]);
            self.buffer[at + 4..at + 6].copy_from_slice(&idle.to_be_bytes());
            at += KEEPALIVE_LEN;
        }
        if let Some(code) = self.ede
            && at + EDE_LEN <= self.limit + OPT_LEN
        {
            self.buffer[at..at + 2].copy_from_slice(&OPTION_EDE.to_be_bytes());
            self.buffer[at + 2..at + 4].copy_from_slice(&[0, 2]);
            self.buffer[at + 4..at + 6].copy_from_slice(&code.to_be_bytes());
            at += EDE_LEN;
        }
        if !self.ede_options.is_empty() && at + self.ede_options.len() <= self.limit + OPT_LEN {
            let end = at + self.ede_options.len();
            self.buffer[at..end].copy_from_slice(self.ede_options);
            at = end;
        }
        let rdlen = (at - start - OPT_LEN) as u16;
        let opt = &mut self.buffer[start..start + OPT_LEN];
        opt[0] = 0;
        opt[1..3].copy_from_slice(&rtype::OPT.to_be_bytes());
        opt[3..5].copy_from_slice(&(crate::limits::ANSWER_SIZE_DEFAULT as u16).to_be_bytes());
        opt[5] = (self.rcode >> 4) as u8;
        opt[6] = 0;
        //= RFC 3225, 3
        //# The DO bit of the query MUST be copied in the response.
        opt[7] = u8::from(edns.dnssec_ok) << 7;
        opt[8] = 0;
        opt[9..11].copy_from_slice(&rdlen.to_be_bytes());
        self.at = at;
        self.counts[Section::Additional as usize] += 1;
    }
}

/// Points the owner of every record of `body` to `target`.
fn point_owners(body: &mut [u8], target: usize) {
    let pointer = (0xC000 | target as u16).to_be_bytes();
    let mut at = 0;
    while at < body.len() {
        debug_assert_eq!(owner_len(&body[at..]), 2);
        body[at..at + 2].copy_from_slice(&pointer);
        at += 12 + u16::from_be_bytes([body[at + 10], body[at + 11]]) as usize;
    }
}
