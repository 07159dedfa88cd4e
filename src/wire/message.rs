//! Messages off the hot path: read record by record, written record by record.
//!
//! ```text
//!   header | question | answer ... | authority ... | additional ... | TSIG
//!   12       name 4     owner | type | class | ttl | rdlen | rdata
//! ```
//!
//! Transfers, NOTIFY, UPDATE and TSIG stand on this. Reading takes any octets and never panics;
//! names are expanded only when somebody asks for them.

use std::ops::Range;

use crate::limits::{HEADER_LEN, NAME_LEN_MAX, POINTER_TARGET_MAX};

use super::query::skip_name;

/// A message ends early, counts more than it holds, or has a name that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Opcodes (RFC 6895, 2.2).
pub mod opcode {
    /// A standard query.
    pub const QUERY: u8 = 0;
    /// A zone has changed (RFC 1996).
    pub const NOTIFY: u8 = 4;
    /// Change a zone (RFC 2136).
    pub const UPDATE: u8 = 5;
}

/// Flags of the header's second word.
pub mod header {
    /// A response.
    pub const QR: u16 = 0x8000;
    /// Authoritative.
    pub const AA: u16 = 0x0400;
    /// Truncated.
    pub const TC: u16 = 0x0200;
    /// Recursion desired: responses copy it.
    pub const RD: u16 = 0x0100;
}

/// The class of the internet.
pub const CLASS_IN: u16 = 1;
/// Every class; what TSIG has.
pub const CLASS_ANY: u16 = 255;

//----------- Message --------------------------------------------------------

/// A section of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// Prerequisites in an UPDATE.
    Answer = 1,
    /// Changes in an UPDATE.
    Authority = 2,
    /// OPT and TSIG among others.
    Additional = 3,
}

/// A message of which the header is there.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    octets: &'a [u8],
}

/// A question, its name expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// In wire form, as it was written.
    pub name: Vec<u8>,
    /// QTYPE.
    pub qtype: u16,
    /// QCLASS.
    pub qclass: u16,
}

/// Where one record stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordAt {
    /// Its section.
    pub section: Section,
    /// Where its owner starts.
    pub at: usize,
    /// The type.
    pub rtype: u16,
    /// The class.
    pub class: u16,
    /// Seconds.
    pub ttl: u32,
    /// Where its RDATA is; names in it may be compressed.
    pub rdata: Range<usize>,
}

impl<'a> Message<'a> {
    /// `None` if there is less than a header.
    pub fn new(octets: &'a [u8]) -> Option<Message<'a>> {
        (octets.len() >= HEADER_LEN).then_some(Message { octets })
    }

    /// The whole message.
    pub fn octets(&self) -> &'a [u8] {
        self.octets
    }

    fn word(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.octets[at], self.octets[at + 1]])
    }

    /// Its ID.
    pub fn id(&self) -> u16 {
        self.word(0)
    }

    /// The header's flags: [`header`].
    pub fn flags(&self) -> u16 {
        self.word(2)
    }

    /// Whether it is a response.
    pub fn is_response(&self) -> bool {
        self.flags() & header::QR != 0
    }

    /// Its opcode: [`opcode`].
    pub fn opcode(&self) -> u8 {
        (self.flags() >> 11 & 0xF) as u8
    }

    /// The four bits of its code.
    pub fn rcode(&self) -> u16 {
        self.flags() & 0xF
    }

    /// How many records the header counts: questions, then the three sections.
    pub fn count(&self, section: usize) -> u16 {
        self.word(4 + section * 2)
    }

    /// Its only question; `None` if there is none, or more than one.
    pub fn question(&self) -> Result<Option<Question>, Malformed> {
        if self.count(0) != 1 {
            return Ok(None);
        }
        let mut name = Vec::new();
        let end = expand_name(self.octets, HEADER_LEN, &mut name).ok_or(Malformed)?;
        let fixed = self.octets.get(end..end + 4).ok_or(Malformed)?;
        let qtype = u16::from_be_bytes([fixed[0], fixed[1]]);
        let qclass = u16::from_be_bytes([fixed[2], fixed[3]]);
        Ok(Some(Question { name, qtype, qclass }))
    }

    /// Where the questions end.
    pub fn questions_end(&self) -> Result<usize, Malformed> {
        let mut at = HEADER_LEN;
        for _ in 0..self.count(0) {
            at = skip_name(self.octets, at).ok_or(Malformed)? + 4;
        }
        if at <= self.octets.len() { Ok(at) } else { Err(Malformed) }
    }

    /// Its records, section by section; ends after the first that cannot be read.
    pub fn records(&self) -> Result<Records<'a>, Malformed> {
        let at = self.questions_end()?;
        let left = [self.count(1), self.count(2), self.count(3)];
        Ok(Records { octets: self.octets, at, left })
    }

    /// Appends the name at `at`, expanded.
    pub fn expand(&self, at: usize, out: &mut Vec<u8>) -> Result<usize, Malformed> {
        expand_name(self.octets, at, out).ok_or(Malformed)
    }
}

/// The records of a message.
pub struct Records<'a> {
    octets: &'a [u8],
    at: usize,
    left: [u16; 3],
}

impl Records<'_> {
    fn read(&mut self, section: Section) -> Option<RecordAt> {
        let at = self.at;
        let fixed_at = skip_name(self.octets, at)?;
        let fixed: &[u8; 10] = self.octets.get(fixed_at..)?.first_chunk()?;
        let half = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
        let end = fixed_at + 10 + usize::from(half(8));
        if end > self.octets.len() {
            return None;
        }
        self.at = end;
        let ttl = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
        let rdata = fixed_at + 10..end;
        Some(RecordAt { section, at, rtype: half(0), class: half(2), ttl, rdata })
    }
}

impl Iterator for Records<'_> {
    type Item = Result<RecordAt, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let sections = [Section::Answer, Section::Authority, Section::Additional];
        let index = self.left.iter().position(|&left| left > 0)?;
        self.left[index] -= 1;
        let record = self.read(sections[index]).ok_or(Malformed);
        if record.is_err() {
            self.left = [0; 3];
        }
        Some(record)
    }
}

/// Appends the possibly compressed name at `at`, expanded, its case kept; returns where it ends in
/// the message. Pointers must point backwards.
pub fn expand_name(message: &[u8], mut at: usize, out: &mut Vec<u8>) -> Option<usize> {
    let start = out.len();
    let (mut end, mut floor) = (None, at);
    loop {
        let len = usize::from(*message.get(at)?);
        match len {
            0 => {
                out.push(0);
                return Some(end.unwrap_or(at + 1));
            }
            1..=63 => {
                out.extend_from_slice(message.get(at..at + 1 + len)?);
                if out.len() - start >= NAME_LEN_MAX {
                    return None;
                }
                at += 1 + len;
            }
            0xC0.. => {
                let target = (len & 0x3F) << 8 | usize::from(*message.get(at + 1)?);
                if target >= floor {
                    return None;
                }
                end.get_or_insert(at + 2);
                (floor, at) = (target, target);
            }
            _ => return None,
        }
    }
}

//----------- Writer ---------------------------------------------------------

/// A message being written. Owners are compressed against the question's name.
pub struct Writer {
    octets: Vec<u8>,
    /// Octets of the question's name; 0 without a question.
    question_len: usize,
}

impl Writer {
    /// An empty message with this ID and these flags (QR, opcode, AA ... and code).
    pub fn new(id: u16, flags: u16) -> Writer {
        let mut octets = Vec::with_capacity(512);
        octets.extend_from_slice(&id.to_be_bytes());
        octets.extend_from_slice(&flags.to_be_bytes());
        octets.extend_from_slice(&[0; 8]);
        Writer { octets, question_len: 0 }
    }

    /// The flags of a request with `opcode`.
    pub fn flags_of(opcode: u8) -> u16 {
        u16::from(opcode) << 11
    }

    /// A response to `request` with `rcode`, its question repeated if it can be read.
    pub fn reply(request: Message<'_>, rcode: u16) -> Writer {
        let kept = request.flags() & (0xF << 11 | header::RD);
        let mut writer = Writer::new(request.id(), kept | header::QR | rcode);
        if let Ok(Some(question)) = request.question() {
            writer.question(&question.name, question.qtype, question.qclass);
        }
        writer
    }

    /// Adds the question; first of all.
    pub fn question(&mut self, name: &[u8], qtype: u16, qclass: u16) {
        debug_assert_eq!(self.octets.len(), HEADER_LEN);
        self.octets.extend_from_slice(name);
        self.octets.extend_from_slice(&qtype.to_be_bytes());
        self.octets.extend_from_slice(&qclass.to_be_bytes());
        self.question_len = name.len();
        self.count(0, 1);
    }

    /// Adds a record of class IN to the last section that is not empty, or to a later one.
    pub fn record(&mut self, section: Section, owner: &[u8], rtype: u16, ttl: u32, rdata: &[u8]) {
        self.record_of(section, owner, (rtype, CLASS_IN, ttl), rdata);
    }

    /// Adds a record of any class.
    pub fn record_of(
        &mut self,
        section: Section,
        owner: &[u8],
        (rtype, class, ttl): (u16, u16, u32),
        rdata: &[u8],
    ) {
        self.owner(owner);
        self.octets.extend_from_slice(&rtype.to_be_bytes());
        self.octets.extend_from_slice(&class.to_be_bytes());
        self.octets.extend_from_slice(&ttl.to_be_bytes());
        self.octets.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
        self.octets.extend_from_slice(rdata);
        self.count(section as usize, 1);
    }

    fn owner(&mut self, owner: &[u8]) {
        let question = self.octets.get(HEADER_LEN..HEADER_LEN + self.question_len);
        if let Some(question) = question.filter(|question| question.len() > 1)
            && owner.len() >= question.len()
            && owner[owner.len() - question.len()..].eq_ignore_ascii_case(question)
            && is_label_start(owner, owner.len() - question.len())
        {
            let kept = owner.len() - question.len();
            self.octets.extend_from_slice(&owner[..kept]);
            self.octets.extend_from_slice(&(0xC000 | HEADER_LEN as u16).to_be_bytes());
        } else {
            self.octets.extend_from_slice(owner);
        }
    }

    /// Sets flags beside those that are set.
    pub fn set_flags(&mut self, flags: u16) {
        let flags = flags | u16::from_be_bytes([self.octets[2], self.octets[3]]);
        self.octets[2..4].copy_from_slice(&flags.to_be_bytes());
    }

    /// Adds an OPT record with one option of no more than 255 octets (RFC 6891, 6.1).
    pub fn opt(&mut self, udp_size: u16, option: Option<(u16, &[u8])>) {
        self.octets.push(0);
        self.octets.extend_from_slice(&super::rtype::OPT.to_be_bytes());
        self.octets.extend_from_slice(&udp_size.to_be_bytes());
        self.octets.extend_from_slice(&[0; 4]);
        let len = option.map_or(0, |(_, octets)| 4 + octets.len());
        self.octets.extend_from_slice(&(len as u16).to_be_bytes());
        if let Some((code, octets)) = option {
            self.octets.extend_from_slice(&code.to_be_bytes());
            self.octets.extend_from_slice(&(octets.len() as u16).to_be_bytes());
            self.octets.extend_from_slice(octets);
        }
        self.count(Section::Additional as usize, 1);
    }

    fn count(&mut self, section: usize, more: u16) {
        add_to_count(&mut self.octets, section, more);
    }

    /// The message.
    pub fn into_octets(self) -> Vec<u8> {
        self.octets
    }
}

/// Adds to one of the header's four counts.
pub fn add_to_count(message: &mut [u8], section: usize, more: u16) {
    let at = 4 + section * 2;
    let count = u16::from_be_bytes([message[at], message[at + 1]]).wrapping_add(more);
    message[at..at + 2].copy_from_slice(&count.to_be_bytes());
}

/// Whether a label of the name `wire` starts at `position`.
pub fn is_label_start(wire: &[u8], position: usize) -> bool {
    let mut at = 0;
    while at < position {
        at += 1 + usize::from(wire[at]);
    }
    at == position
}

const _: () = assert!(HEADER_LEN <= POINTER_TARGET_MAX);

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::rtype;

    const OWNER: &[u8] = b"\x03www\x07Example\0";
    const APEX: &[u8] = b"\x07example\0";

    fn written() -> Vec<u8> {
        let mut writer = Writer::new(7, header::QR | header::AA);
        writer.question(APEX, rtype::SOA, CLASS_IN);
        writer.record(Section::Answer, OWNER, rtype::A, 60, &[192, 0, 2, 1]);
        writer.record(Section::Authority, b"\x05other\0", rtype::NS, 1, APEX);
        writer.opt(1232, Some((9, &[0, 0, 0, 1])));
        writer.into_octets()
    }

    #[test]
    fn what_is_written_is_read() {
        let octets = written();
        let message = Message::new(&octets).unwrap();
        assert_eq!((message.id(), message.is_response(), message.opcode()), (7, true, 0));
        let question = message.question().unwrap().unwrap();
        assert_eq!((&question.name[..], question.qtype), (APEX, rtype::SOA));
        let records: Vec<_> = message.records().unwrap().map(Result::unwrap).collect();
        let kinds: Vec<_> = records.iter().map(|record| (record.section, record.rtype)).collect();
        assert_eq!(
            kinds,
            [
                (Section::Answer, rtype::A),
                (Section::Authority, rtype::NS),
                (Section::Additional, rtype::OPT)
            ]
        );
        let mut owner = Vec::new();
        message.expand(records[0].at, &mut owner).unwrap();
        assert_eq!(owner, b"\x03www\x07example\0");
        assert_eq!(octets[records[0].rdata.clone()], [192, 0, 2, 1]);
    }

    #[test]
    fn cut_anywhere_it_is_malformed_or_short() {
        let octets = written();
        for len in 0..octets.len() {
            let Some(message) = Message::new(&octets[..len]) else { continue };
            let broken = match message.records() {
                Ok(mut records) => records.any(|record| record.is_err()),
                Err(Malformed) => true,
            };
            assert!(broken, "{len}");
        }
    }

    #[test]
    fn names_that_point_forward_or_grow_too_long_are_none() {
        let mut out = Vec::new();
        assert_eq!(expand_name(b"\xC0\x00", 0, &mut out), None);
        assert_eq!(expand_name(b"\xC0\x02\x00", 0, &mut out), None);
        let mut long = Vec::new();
        for _ in 0..5 {
            long.push(63);
            long.extend([b'a'; 63]);
        }
        long.push(0);
        assert_eq!(expand_name(&long, 0, &mut out), None);
    }
}
