//! Reading what an upstream says, believing none of it.
//!
//! ```text
//!   | header | question: octet by octet what was asked | answer | authority | additional: OPT |
//!                 |                                        |
//!                 `-> chain[0] -- CNAME, DNAME --> chain[1] ...    who owns a record is on it
//! ```
//!
//! Each octet is looked at a bounded number of times: names follow at most as many pointers as a
//! name has labels, all backwards; records and links are counted ([`limits`](crate::limits)).

use std::ops::Range;

use arrayvec::ArrayVec;

use crate::limits::{
    EDE_TEXT_LEN_MAX, HEADER_LEN, MESSAGE_SIZE_MAX, NAME_LABELS_MAX, NAME_LEN_MAX,
    RESPONSE_LINKS_MAX, RESPONSE_RECORDS_LATE_MAX, RESPONSE_RECORDS_MAX,
};
use crate::wire::message::header;
use crate::wire::rcode::{self, Rcode};
use crate::wire::rtype;

use super::query::{OPTION_COOKIE, OPTION_EDE};
use super::{EDES_MAX, Ede, Edes};

/// Recursion available.
const RA: u16 = 0x0080;
const CLASS_ANY: u16 = 255;
/// The types of questions that more than one type of record answers: MAILB, MAILA, ANY.
const QTYPES_OF_MANY: Range<u16> = 253..256;
/// Octets of the shortest record: the root, type, class, TTL, length.
const RECORD_LEN_MIN: usize = 11;

//----------- Lie ------------------------------------------------------------

/// Why a message is not a response to what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    /// Cut short, or with more than it counts, or with a name or a record that is none.
    Malformed,
    /// A query, or of another opcode.
    NotAResponse,
    /// Its question is another one.
    Question,
    /// It holds what was not asked for.
    Unasked,
    /// More records or links than are looked at.
    TooMany,
}

//----------- Reading --------------------------------------------------------

/// What was asked.
pub(super) struct Asked<'a> {
    /// As it was sent.
    pub(super) name: &'a [u8],
    pub(super) qtype: u16,
    pub(super) qclass: u16,
}

/// What a response says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// With the bits of OPT.
    pub(super) rcode: Rcode,
    /// TC.
    pub(super) truncated: bool,
    /// All of it could be read; always, unless it is truncated or only a header.
    pub(super) whole: bool,
    /// The question's letters came back as they went.
    pub(super) exact_case: bool,
    /// Where the options of OPT are, if there is one.
    pub(super) options: Option<Range<usize>>,
    /// Where the cookie is, ours and theirs.
    pub(super) cookie: Option<Range<usize>>,
    /// It says where else to ask: no answer for who forwards.
    pub(super) referral: bool,
}

/// A name, expanded, in lower case.
#[derive(Clone)]
struct Flat {
    octets: [u8; NAME_LEN_MAX],
    len: usize,
}

impl Flat {
    const EMPTY: Flat = Flat { octets: [0; NAME_LEN_MAX], len: 0 };

    fn wire(&self) -> &[u8] {
        &self.octets[..self.len]
    }

    /// Becomes the possibly compressed name at `at`; returns where that ends.
    fn expand(&mut self, message: &[u8], at: usize) -> Option<usize> {
        self.len = 0;
        walk(message, at, |label| {
            let end = self.len + label.len();
            self.octets[self.len..end].copy_from_slice(label);
            self.octets[self.len..end].make_ascii_lowercase();
            self.len = end;
        })
    }

    /// Octets of this name that stand before `suffix`, if it ends with that.
    fn before(&self, suffix: &[u8]) -> Option<usize> {
        let position = self.len.checked_sub(suffix.len())?;
        if &self.octets[position..self.len] != suffix {
            return None;
        }
        let mut at = 0;
        while at < position {
            at += 1 + usize::from(self.octets[at]);
        }
        (at == position).then_some(position)
    }
}

/// Shows `seen` each label of the name at `at`, its length octet included; returns where the name
/// ends in the message. A name has no more than 255 octets.
#[inline]
fn walk(message: &[u8], mut at: usize, mut seen: impl FnMut(&[u8])) -> Option<usize> {
    let (mut end, mut floor, mut len, mut pointers) = (None, at, 0, 0);
    loop {
        let octet = usize::from(*message.get(at)?);
        match octet {
            0 => {
                seen(&[0]);
                return Some(end.unwrap_or(at + 1));
            }
            1..=63 => {
                let label = message.get(at..at + 1 + octet)?;
                len += label.len();
                if len >= NAME_LEN_MAX {
                    return None;
                }
                seen(label);
                at += label.len();
            }
            0xC0.. => {
                let target = (octet & 0x3F) << 8 | usize::from(*message.get(at + 1)?);
                pointers += 1;
                if target >= floor || pointers > NAME_LABELS_MAX {
                    return None;
                }
                end.get_or_insert(at + 2);
                (floor, at) = (target, target);
            }
            _ => return None,
        }
    }
}

/// The end of the name at `at`, which can be read.
fn name_end(message: &[u8], at: usize) -> Option<usize> {
    //= RFC 1035, 4.1.2: the question stands behind the header, and has been compared.
    if message.get(at..at + 2)? == [0xC0, HEADER_LEN as u8] {
        return Some(at + 2);
    }
    walk(message, at, |_| {})
}

/// A record, its owner not looked at.
#[derive(Clone)]
struct Record {
    at: usize,
    rtype: u16,
    class: u16,
    ttl: u32,
    rdata: Range<usize>,
}

fn read_record(message: &[u8], at: usize) -> Option<Record> {
    let fixed_at = name_end(message, at)?;
    let fixed: &[u8; 10] = message.get(fixed_at..)?.first_chunk()?;
    let half = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
    let rdata = fixed_at + 10..fixed_at + 10 + usize::from(half(8));
    let ttl = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
    let record = Record { at, rtype: half(0), class: half(2), ttl, rdata };
    rdata_is_whole(message.get(..record.rdata.end)?, &record).then_some(record)
}

/// Whether RDATA of the types that others rewrite or rely on is what it says: the names of
/// RFC 3597, 4 can be read and end where they should.
fn rdata_is_whole(message: &[u8], record: &Record) -> bool {
    let Range { start, end } = record.rdata;
    let name = |at: usize| walk(message, at, |_| {});
    let name_after = |octets: usize| name(start + octets) == Some(end);
    match record.rtype {
        rtype::A if record.class == 1 => end - start == 4,
        rtype::AAAA if record.class == 1 => end - start == 16,
        rtype::NS | rtype::CNAME | rtype::PTR | rtype::DNAME => name_after(0),
        rtype::MD | rtype::MF | rtype::MB | rtype::MG | rtype::MR => name_after(0),
        rtype::MX | rtype::AFSDB | rtype::RT | rtype::KX => name_after(2),
        rtype::SRV => name_after(6),
        rtype::MINFO | rtype::RP => name(start).and_then(name) == Some(end),
        rtype::PX => name(start + 2).and_then(name) == Some(end),
        rtype::SOA => name(start).and_then(name).is_some_and(|at| at + 20 == end),
        rtype::SIG | rtype::RRSIG => name(start + 18).is_some_and(|at| at <= end),
        rtype::NXT | rtype::NSEC => name(start).is_some_and(|at| at <= end),
        rtype::NAPTR => {
            let string = |at: usize| Some(at + 1 + usize::from(*message.get(at)?));
            let names_at = string(start + 4).and_then(string).and_then(string);
            names_at.and_then(name) == Some(end)
        }
        _ => true,
    }
}

//----------- Reader ---------------------------------------------------------

/// Reads responses; keeps its room.
pub(super) struct Reader {
    /// The names that answers may belong to.
    chain: Vec<Flat>,
    owner: Flat,
    /// Records whose owner is not on the chain as far as it is known.
    late: Vec<Record>,
}

impl Reader {
    pub(super) fn new() -> Reader {
        Reader {
            chain: Vec::with_capacity(RESPONSE_LINKS_MAX + 1),
            owner: Flat::EMPTY,
            late: Vec::new(),
        }
    }

    /// Reads `message` as the response to `asked`.
    pub(super) fn read(&mut self, message: &[u8], asked: &Asked) -> Result<Reading, Lie> {
        let header: &[u8; HEADER_LEN] = message.first_chunk().ok_or(Lie::Malformed)?;
        if message.len() > MESSAGE_SIZE_MAX {
            return Err(Lie::Malformed);
        }
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let flags = word(2);
        if flags & header::QR == 0 || flags >> 11 & 0xF != 0 {
            return Err(Lie::NotAResponse);
        }
        let mut reading = Reading {
            rcode: flags & 0xF,
            truncated: flags & header::TC != 0,
            whole: false,
            exact_case: true,
            options: None,
            cookie: None,
            referral: false,
        };
        //= RFC 6891, 7: servers that do not know OPT may answer FORMERR, some with nothing else.
        let refusal = matches!(reading.rcode, rcode::FORMERR | rcode::NOTIMP);
        if message.len() == HEADER_LEN && refusal && header[4..] == [0; 8] {
            return Ok(reading);
        }
        if word(4) != 1 {
            return Err(Lie::Question);
        }
        let end = self.read_question(message, asked, &mut reading)?;
        let counts = [word(6), word(8), word(10)].map(usize::from);
        match self.read_sections(message, end, counts, asked, &mut reading) {
            Ok(lame) => {
                reading.whole = true;
                reading.referral = lame
                    && reading.rcode == rcode::NOERROR
                    && !reading.truncated
                    && flags & (header::AA | RA) == 0;
            }
            // What was cut off somewhere is asked for again over TCP, whatever it was.
            Err(Lie::Malformed) if reading.truncated => {}
            Err(lie) => return Err(lie),
        }
        Ok(reading)
    }

    fn read_question(
        &mut self,
        message: &[u8],
        asked: &Asked,
        reading: &mut Reading,
    ) -> Result<usize, Lie> {
        let end = HEADER_LEN + asked.name.len();
        let name = message.get(HEADER_LEN..end).ok_or(Lie::Question)?;
        let fixed = message.get(end..end + 4).ok_or(Lie::Question)?;
        let asked_fixed = [asked.qtype.to_be_bytes(), asked.qclass.to_be_bytes()];
        if fixed != asked_fixed.as_flattened() || !name.eq_ignore_ascii_case(asked.name) {
            return Err(Lie::Question);
        }
        reading.exact_case = name == asked.name;
        Ok(end + 4)
    }

    /// Returns whether there are name servers and neither an answer nor a SOA.
    fn read_sections(
        &mut self,
        message: &[u8],
        mut at: usize,
        counts: [usize; 3],
        asked: &Asked,
        reading: &mut Reading,
    ) -> Result<bool, Lie> {
        let count: usize = counts.iter().sum();
        if count > RESPONSE_RECORDS_MAX {
            return Err(Lie::TooMany);
        }
        if count * RECORD_LEN_MIN > message.len() - at {
            return Err(Lie::Malformed);
        }
        self.begin_chain(asked);
        for _ in 0..counts[0] {
            let record = read_record(message, at).ok_or(Lie::Malformed)?;
            at = record.rdata.end;
            if !self.take_answer(message, &record, asked)? {
                if self.late.len() == RESPONSE_RECORDS_LATE_MAX {
                    return Err(Lie::Unasked);
                }
                self.late.push(record);
            }
        }
        self.take_late(message, asked)?;
        let (mut servers, mut soa) = (false, false);
        for _ in 0..counts[1] {
            let record = read_record(message, at).ok_or(Lie::Malformed)?;
            at = record.rdata.end;
            self.check_authority(message, &record)?;
            servers |= record.rtype == rtype::NS;
            soa |= record.rtype == rtype::SOA;
        }
        for _ in 0..counts[2] {
            let record = read_record(message, at).ok_or(Lie::Malformed)?;
            at = record.rdata.end;
            match record.rtype {
                rtype::OPT => read_opt(message, &record, reading)?,
                // Nothing that was asked was signed with it.
                rtype::TSIG => return Err(Lie::Malformed),
                _ => {}
            }
        }
        if at != message.len() {
            return Err(Lie::Malformed);
        }
        Ok(counts[0] == 0 && servers && !soa)
    }

    fn begin_chain(&mut self, asked: &Asked) {
        self.late.clear();
        self.chain.truncate(1);
        if self.chain.is_empty() {
            self.chain.push(Flat::EMPTY);
        }
        let first = &mut self.chain[0];
        first.len = asked.name.len();
        first.octets[..first.len].copy_from_slice(asked.name);
        first.octets[..first.len].make_ascii_lowercase();
    }

    /// Where `owner` is on the chain.
    fn link(&mut self, message: &[u8], at: usize) -> Option<usize> {
        if message[at..].starts_with(&[0xC0, HEADER_LEN as u8]) {
            self.owner.clone_from(&self.chain[0]);
            return Some(0);
        }
        self.owner.expand(message, at)?;
        self.chain.iter().position(|name| name.wire() == self.owner.wire())
    }

    /// Whether the record belongs to the chain as far as it is known; makes it longer.
    fn take_answer(&mut self, message: &[u8], record: &Record, asked: &Asked) -> Result<bool, Lie> {
        if asked.qclass != CLASS_ANY && record.class != asked.qclass {
            return Err(Lie::Unasked);
        }
        let signature = matches!(record.rtype, rtype::RRSIG | rtype::SIG);
        let link = self.link(message, record.at);
        let many = QTYPES_OF_MANY.contains(&asked.qtype);
        match record.rtype {
            rtype::CNAME if asked.qtype != rtype::CNAME && !many => {
                let Some(link) = link else { return Ok(false) };
                self.owner.expand(message, record.rdata.start).ok_or(Lie::Malformed)?;
                self.extend_chain(link)?;
                Ok(true)
            }
            rtype::DNAME if link.is_none() || asked.qtype != rtype::DNAME && !many => {
                self.take_dname(message, record)
            }
            found if link.is_some() => {
                let wanted = found == asked.qtype || many || signature;
                if wanted { Ok(true) } else { Err(Lie::Unasked) }
            }
            // The signature of a DNAME belongs to a name above the chain's.
            _ if signature && covers_dname(message, record) => {
                Ok(self.chain.iter().any(|name| name.before(self.owner.wire()).is_some()))
            }
            _ => Ok(false),
        }
    }

    /// Goes on from `link` to the name in `owner`.
    fn extend_chain(&mut self, link: usize) -> Result<(), Lie> {
        if let Some(next) = self.chain.iter().position(|name| name.wire() == self.owner.wire()) {
            // A loop leads back; a second target of the same name leads nowhere.
            return if next <= link + 1 { Ok(()) } else { Err(Lie::Unasked) };
        }
        if link + 1 != self.chain.len() {
            return Err(Lie::Unasked);
        }
        if self.chain.len() > RESPONSE_LINKS_MAX {
            return Err(Lie::TooMany);
        }
        self.chain.push(self.owner.clone());
        Ok(())
    }

    /// Takes a DNAME whose owner is in `owner`: the last name of the chain below it goes on.
    fn take_dname(&mut self, message: &[u8], record: &Record) -> Result<bool, Lie> {
        let below = |name: &Flat| name.before(self.owner.wire()).filter(|&octets| octets > 0);
        let last = self.chain.len() - 1;
        let Some(octets) = below(&self.chain[last]) else {
            // Its CNAME came first, or it stands there twice.
            return Ok(self.chain.iter().any(|name| below(name).is_some()));
        };
        self.owner.expand(message, record.rdata.start).ok_or(Lie::Malformed)?;
        let len = octets + self.owner.len;
        //= RFC 6672, 2.2: a name that would be too long is answered with YXDOMAIN.
        if len > NAME_LEN_MAX {
            return Ok(true);
        }
        self.owner.octets.copy_within(..self.owner.len, octets);
        self.owner.octets[..octets].copy_from_slice(&self.chain[last].octets[..octets]);
        self.owner.len = len;
        self.extend_chain(last)?;
        Ok(true)
    }

    /// Takes the records that came before the links that lead to them.
    fn take_late(&mut self, message: &[u8], asked: &Asked) -> Result<(), Lie> {
        let mut late = std::mem::take(&mut self.late);
        let mut result = Ok(());
        while result.is_ok() && !late.is_empty() {
            let count = late.len();
            late.retain(|record| match self.take_answer(message, record, asked) {
                Ok(taken) => !taken,
                Err(lie) => {
                    result = Err(lie);
                    true
                }
            });
            if late.len() == count {
                result = result.and(Err(Lie::Unasked));
            }
        }
        late.clear();
        self.late = late;
        result
    }

    /// SOA and NS must be of zones that the chain runs through.
    fn check_authority(&mut self, message: &[u8], record: &Record) -> Result<(), Lie> {
        match record.rtype {
            rtype::SOA | rtype::NS => {
                self.owner.expand(message, record.at).ok_or(Lie::Malformed)?;
                let above = self.chain.iter().any(|name| name.before(self.owner.wire()).is_some());
                if above { Ok(()) } else { Err(Lie::Unasked) }
            }
            rtype::OPT | rtype::TSIG => Err(Lie::Malformed),
            _ => Ok(()),
        }
    }
}

fn covers_dname(message: &[u8], record: &Record) -> bool {
    message[record.rdata.clone()].starts_with(&rtype::DNAME.to_be_bytes())
}

//----------- OPT ------------------------------------------------------------

fn read_opt(message: &[u8], record: &Record, reading: &mut Reading) -> Result<(), Lie> {
    //= RFC 6891, 6.1.1: one OPT, of the root.
    if message[record.at] != 0 || reading.options.is_some() {
        return Err(Lie::Malformed);
    }
    reading.rcode |= (record.ttl >> 24 << 4) as u16;
    reading.options = Some(record.rdata.clone());
    for option in options(message, &record.rdata) {
        let (code, octets) = option.ok_or(Lie::Malformed)?;
        //= RFC 7873, 5.3: a cookie has 8 octets of ours and 8 to 32 of theirs.
        if code == OPTION_COOKIE && reading.cookie.is_none() && matches!(octets.len(), 8 | 16..=40)
        {
            reading.cookie = Some(octets);
        }
    }
    Ok(())
}

/// The options of OPT, by code; ends after the first that cannot be read, which is `None`.
fn options(
    message: &[u8],
    options: &Range<usize>,
) -> impl Iterator<Item = Option<(u16, Range<usize>)>> {
    let Range { start: mut at, mut end } = options.clone();
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let option = message[at..end].first_chunk::<4>().and_then(|header| {
            let octets = at + 4..at + 4 + usize::from(u16::from_be_bytes([header[2], header[3]]));
            (octets.end <= end).then_some((u16::from_be_bytes([header[0], header[1]]), octets))
        });
        match &option {
            Some((_, octets)) => at = octets.end,
            None => end = at,
        }
        Some(option)
    })
}

/// The Extended DNS Errors of a response, the first few of them, their text cut and made printable.
pub(super) fn edes(message: &[u8], reading: &Reading) -> Edes {
    let Some(range) = &reading.options else { return Edes::new() };
    let found = options(message, range).flatten().filter_map(|(code, octets)| {
        let octets = &message[octets];
        let (ede, text) = octets.split_first_chunk().filter(|_| code == OPTION_EDE)?;
        let text = String::from_utf8_lossy(&text[..text.len().min(EDE_TEXT_LEN_MAX)]);
        Some(Ede { code: u16::from_be_bytes(*ede), text: printable(&text) })
    });
    found.take(EDES_MAX).collect::<ArrayVec<_, EDES_MAX>>()
}

/// `text`, cut, without what moves a terminal's cursor; the zero that some end it with is left out.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(EDE_TEXT_LEN_MAX));
    for letter in text.trim_end_matches('\0').chars() {
        let letter = if letter.is_control() { '?' } else { letter };
        if out.len() + letter.len_utf8() > EDE_TEXT_LEN_MAX {
            break;
        }
        out.push(letter);
    }
    out
}

#[cfg(test)]
mod tests;
