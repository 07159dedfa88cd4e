//! Whether a reply is the answer that was expected.
//!
//! ```text
//!   digest   sum over the records of the answer section, or over the NS records of a referral
//!   record   | owner | type | class |     | RDATA: its names as names, the rest as octets |
//!   name     label by label, in lower case, pointers followed; the question's name, and a first
//!            label that is its own, are only said to be that: what was expected holds for any
//!            label that is drawn
//! ```
//!
//! So it is independent of the order of records, of compression, of TTLs and of letter case. It is
//! called for every reply: nothing is allocated, and nothing outside of the message is read,
//! whatever its octets are. Digests tell mistakes apart, not forgeries.

use ring53::limits::{HEADER_LEN, NAME_LABELS_MAX};
use ring53::wire::query::skip_name;
use ring53::wire::rtype;

use super::Expected;

const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
/// In place of a label that is the first of the question's.
const OWN: u64 = 0xD6E8_FEB8_6659_FD93;
/// In place of the question's name.
const OWN_NAME: u64 = 0x1B03_7387_12FA_C96D;
const REFERRAL: u64 = 0xA076_1D64_78BD_642F;

/// What a reply is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The answer that was expected.
    Good,
    /// Another answer, or none.
    Wrong,
    /// TC is set: the answer is to be fetched over a stream, and is not looked at.
    Truncated,
}

/// Judges a reply.
#[inline]
pub fn judge(message: &[u8], expected: &Expected) -> Verdict {
    let Some(header) = message.first_chunk::<HEADER_LEN>() else { return Verdict::Wrong };
    if header[2] & 0x80 == 0 {
        return Verdict::Wrong;
    }
    if header[2] & 0x02 != 0 {
        return Verdict::Truncated;
    }
    let good = header[3] & 0xF == expected.rcode
        && (expected.digest.is_none() || expected.digest == digest(message))
        && (!expected.proof || proves(message));
    if good { Verdict::Good } else { Verdict::Wrong }
}

/// Whether a reply is the answer that was expected; a truncated one is not.
#[inline]
pub fn is_expected(message: &[u8], expected: &Expected) -> bool {
    judge(message, expected) == Verdict::Good
}

/// Whether the authority section has NSEC or NSEC3 records and signatures: which names they deny
/// is not looked at, as servers may prove the same with others.
pub fn proves(message: &[u8]) -> bool {
    authority(message).is_some_and(|types| types == (true, true))
}

/// Whether there are records that deny, and signatures.
fn authority(message: &[u8]) -> Option<(bool, bool)> {
    let header = message.first_chunk::<HEADER_LEN>()?;
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let mut at = HEADER_LEN;
    for _ in 0..count(4) {
        at = skip_name(message, at)? + 4;
    }
    let (mut denies, mut signed) = (false, false);
    for number in 0..u32::from(count(6)) + u32::from(count(8)) {
        let fixed_at = skip_name(message, at)?;
        let fixed: &[u8; 10] = message.get(fixed_at..)?.first_chunk()?;
        let rtype = u16::from_be_bytes([fixed[0], fixed[1]]);
        at = fixed_at + 10 + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        message.get(..at)?;
        if number >= u32::from(count(6)) {
            denies |= matches!(rtype, rtype::NSEC | rtype::NSEC3);
            signed |= rtype == rtype::RRSIG;
        }
    }
    Some((denies, signed))
}

//----------- Digest ---------------------------------------------------------

/// The digest of a reply; `None` if its records cannot be read.
pub fn digest(message: &[u8]) -> Option<u64> {
    let header = message.first_chunk::<HEADER_LEN>()?;
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let reader = Reader::new(message);
    let mut at = HEADER_LEN;
    for _ in 0..count(4) {
        at = skip_name(message, at)? + 4;
    }
    let mut sum = 0u64;
    for _ in 0..count(6) {
        let record = reader.record(at)?;
        sum = sum.wrapping_add(record.digest);
        at = record.end;
    }
    if count(6) > 0 || header[3] & 0xF != 0 {
        return Some(sum);
    }
    // No records: there are none of this type (a SOA says so), or others are to be asked.
    for _ in 0..count(8) {
        let record = reader.record(at)?;
        match record.rtype {
            rtype::SOA => return Some(0),
            rtype::NS => sum = sum.wrapping_add(record.digest ^ REFERRAL),
            _ => {}
        }
        at = record.end;
    }
    Some(sum)
}

struct Walked {
    digest: u64,
    /// Its first label is that of the question's name.
    begins_as_own: bool,
    end: usize,
}

struct Record {
    digest: u64,
    rtype: u16,
    end: usize,
}

/// A message, and of its question what names in it are compared with.
struct Reader<'a> {
    message: &'a [u8],
    /// The first label of the question's name, empty for the root; `None`: there is no question.
    own: Option<&'a [u8]>,
}

impl<'a> Reader<'a> {
    #[inline]
    fn new(message: &'a [u8]) -> Reader<'a> {
        let len = usize::from(*message.get(HEADER_LEN).unwrap_or(&0xFF));
        let own = message.get(HEADER_LEN + 1..HEADER_LEN + 1 + len);
        Reader { message, own: own.filter(|_| message[4..6] != [0, 0]) }
    }

    /// The digest of the name at `at`, and where it ends there. Nearly all owners are a pointer to
    /// the question's name: that one is not even looked at.
    #[inline]
    fn name(&self, at: usize) -> Option<(u64, usize)> {
        let pointer = [0xC0, HEADER_LEN as u8];
        if self.own.is_some() && self.message.get(at..at + 2) == Some(&pointer) {
            return Some((OWN_NAME, at + 2));
        }
        let name = self.walk(at)?;
        let is_own = name.begins_as_own
            && name.digest != OWN_NAME
            && self.walk(HEADER_LEN).is_some_and(|own| own.digest == name.digest);
        Some((if is_own { OWN_NAME } else { name.digest }, name.end))
    }

    #[inline]
    fn walk(&self, mut at: usize) -> Option<Walked> {
        let (mut digest, mut end, mut floor, mut labels) = (FACTOR, None, at, 0);
        let mut begins_as_own = self.own == Some(&[]);
        loop {
            let len = usize::from(*self.message.get(at)?);
            match len {
                0 => {
                    let end = end.unwrap_or(at + 1);
                    return Some(Walked { digest, begins_as_own, end });
                }
                1..64 => {
                    let label = self.message.get(at + 1..at + 1 + len)?;
                    if labels == 0 {
                        begins_as_own = self.own.is_some_and(|own| own.eq_ignore_ascii_case(label));
                    }
                    digest = match labels == 0 && begins_as_own {
                        true => mix(digest, OWN),
                        false => self.label(digest, at + 1, len),
                    };
                    at += 1 + len;
                    labels += 1;
                    if labels > NAME_LABELS_MAX {
                        return None;
                    }
                }
                0xC0.. => {
                    let target = (len & 0x3F) << 8 | usize::from(*self.message.get(at + 1)?);
                    // Backwards only, so that it ends.
                    if target >= floor {
                        return None;
                    }
                    let end = *end.get_or_insert(at + 2);
                    if target == HEADER_LEN && labels == 0 && self.own.is_some() {
                        return Some(Walked { digest: OWN_NAME, begins_as_own: true, end });
                    }
                    (floor, at) = (target, target);
                }
                _ => return None,
            }
        }
    }

    /// Takes the label of `len` octets at `at`, which is inside of the message.
    #[inline]
    fn label(&self, digest: u64, at: usize, len: usize) -> u64 {
        let mut digest = mix(digest, len as u64);
        let mut done = 0;
        while done < len {
            digest = mix(digest, lower(word(self.message, at + done, len - done)));
            done += 8;
        }
        digest
    }

    #[inline]
    fn record(&self, at: usize) -> Option<Record> {
        let (owner, fixed_at) = self.name(at)?;
        let fixed: &[u8; 10] = self.message.get(fixed_at..)?.first_chunk()?;
        let rtype = u16::from_be_bytes([fixed[0], fixed[1]]);
        let kind = u32::from_be_bytes([fixed[0], fixed[1], fixed[2], fixed[3]]);
        let start = fixed_at + 10;
        let end = start + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        let rdata = self.message.get(start..end)?;
        let mut digest = mix(owner, u64::from(kind));
        let (before, names) = names_of(rtype, rdata)?;
        let mut from = start + before;
        if from > end {
            return None;
        }
        digest = self.octets(digest, start, from)?;
        for _ in 0..names {
            let (name, name_end) = self.name(from)?;
            digest = mix(digest, name);
            from = name_end;
        }
        digest = self.octets(digest, from, end)?;
        Some(Record { digest: mix(digest, OWN), rtype, end })
    }

    /// Takes octets as they are.
    #[inline]
    fn octets(&self, digest: u64, from: usize, end: usize) -> Option<u64> {
        let len = end.checked_sub(from)?;
        let mut digest = mix(digest, len as u64);
        let mut done = 0;
        while done < len {
            digest = mix(digest, word(self.message, from + done, len - done));
            done += 8;
        }
        Some(digest)
    }
}

/// Octets of RDATA before its names, and how many names follow one another there. All types whose
/// names a server may compress, or send in another case than they have.
#[inline]
fn names_of(kind: u16, rdata: &[u8]) -> Option<(usize, usize)> {
    Some(match kind {
        rtype::A | rtype::AAAA | rtype::TXT | rtype::DS | rtype::DNSKEY => (0, 0),
        rtype::NS | rtype::CNAME | rtype::PTR | rtype::DNAME | rtype::NSEC | rtype::NXT => (0, 1),
        rtype::MD | rtype::MF | rtype::MB | rtype::MG | rtype::MR => (0, 1),
        rtype::SOA | rtype::MINFO | rtype::RP => (0, 2),
        rtype::MX | rtype::AFSDB | rtype::RT | rtype::KX => (2, 1),
        rtype::PX => (2, 2),
        rtype::SRV => (6, 1),
        rtype::SIG | rtype::RRSIG => (18, 1),
        rtype::NAPTR => {
            let mut at = 4;
            for _ in 0..3 {
                at += 1 + usize::from(*rdata.get(at)?);
            }
            (at, 1)
        }
        _ => (0, 0),
    })
}

/// The next `len` octets at `at`, eight of them at most; `at + len` is inside of the message.
#[inline(always)]
fn word(message: &[u8], at: usize, len: usize) -> u64 {
    if let Some(octets) = message.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*octets);
        return if len >= 8 { word } else { word & (u64::MAX >> (64 - 8 * len)) };
    }
    let octets = &message[at..(at + len.min(8)).min(message.len())];
    octets.iter().rev().fold(0, |word, octet| word << 8 | u64::from(*octet))
}

/// Eight octets in lower case.
#[inline(always)]
fn lower(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let low = word & (0x7F * ONES);
    let from_a = low + (0x80 - b'A' as u64) * ONES;
    let past_z = low + (0x7F - b'Z' as u64) * ONES;
    let upper = (from_a ^ past_z) & !word & (0x80 * ONES);
    word | upper >> 2
}

/// Folds the product of two words.
#[inline(always)]
fn mix(digest: u64, word: u64) -> u64 {
    let product = u128::from(digest ^ word ^ 0x2D35_8DCC_AA6C_78A5) * u128::from(FACTOR);
    ((product as u64) ^ (product >> 64) as u64).rotate_left(23) ^ digest
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mix::expect::Answers;
    use crate::mix::zone;
    use crate::zones::queries::Random;
    use ring53::wire::Name;
    use ring53::wire::message::{CLASS_IN, Message, Section, Writer, header};

    const ZONE: &str = "$TTL 60\n$ORIGIN example.\n\
        @ SOA ns1 hostmaster 1 3600 900 604800 300\n@ NS ns1\n@ NS ns2.example.net.\n\
        ns1 A 192.0.2.1\n@ MX 10 mail\n@ MX 20 mail.example.net.\nmail A 192.0.2.2\n\
        mail AAAA 2001:db8::2\nwww CNAME mail\nwww2 A 192.0.2.4\n*.wild A 192.0.2.3\n\
        *.wild TXT \"one\" \"two\"\nold DNAME wild\nsub NS ns1.sub\nsub NS ns2\n\
        ns1.sub A 192.0.2.9\n_sip._tcp SRV 1 2 5060 Mail\n\
        num NAPTR 1 2 \"u\" \"E2U+sip\" \"!^.*$!sip:a@b!\" .\nnum PTR www.example.net.\n";

    fn answers() -> Answers {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("zone");
        std::fs::write(&path, ZONE).unwrap();
        let zone = zone::from_file(&"example.".parse().unwrap(), &path).unwrap();
        Answers::new(&[Arc::clone(&zone)])
    }

    fn query(name: &str, qtype: u16) -> (Vec<u8>, usize) {
        let name: Name = name.parse().unwrap();
        let mut writer = Writer::new(0, 0);
        writer.question(name.as_wire(), qtype, CLASS_IN);
        (writer.into_octets(), name.as_wire().len() + 4)
    }

    fn reply(answers: &mut Answers, name: &str, qtype: u16) -> Vec<u8> {
        answers.answer(&query(name, qtype).0).unwrap().to_vec()
    }

    fn expected(answers: &mut Answers, name: &str, qtype: u16) -> Expected {
        let (query, question_len) = query(name, qtype);
        answers.expected(&query, question_len).unwrap()
    }

    /// The same answer as another server might write it: nothing compressed, letters of names in
    /// another case, other TTLs, records the other way round, more in other sections.
    fn rewritten(reply: &[u8]) -> Vec<u8> {
        let message = Message::new(reply).unwrap();
        let question = message.question().unwrap().unwrap();
        let upper = |octets: &[u8]| -> Vec<u8> {
            octets
                .iter()
                .enumerate()
                .map(|(at, octet)| match at % 2 {
                    0 => octet.to_ascii_uppercase(),
                    _ => *octet,
                })
                .collect()
        };
        let mut writer = Writer::new(message.id(), message.flags());
        writer.question(&upper(&question.name), question.qtype, question.qclass);
        let mut records: Vec<_> = message.records().unwrap().map(Result::unwrap).collect();
        records.reverse();
        records.sort_by_key(|record| record.section);
        for record in records {
            let mut owner = Vec::new();
            message.expand(record.at, &mut owner).unwrap();
            let (before, names) = names_of(record.rtype, &reply[record.rdata.clone()]).unwrap();
            let mut at = record.rdata.start + before;
            let mut rdata = reply[record.rdata.start..at].to_vec();
            for _ in 0..names {
                let mut name = Vec::new();
                at = message.expand(at, &mut name).unwrap();
                rdata.extend(upper(&name));
            }
            rdata.extend_from_slice(&reply[at..record.rdata.end]);
            let of = (record.rtype, record.class, record.ttl / 2 + 7);
            writer.record_of(record.section, &upper(&owner), of, &rdata);
        }
        writer.record(Section::Additional, b"\x05extra\0", rtype::A, 1, &[192, 0, 2, 77]);
        writer.into_octets()
    }

    const QUESTIONS: &[(&str, u16)] = &[
        ("example.", rtype::SOA),
        ("example.", rtype::NS),
        ("example.", rtype::MX),
        ("mail.example.", rtype::A),
        ("mail.example.", rtype::TXT),
        ("www.example.", rtype::AAAA),
        ("abcdefghijkl.wild.example.", rtype::TXT),
        ("abcdefghijkl.old.example.", rtype::A),
        ("a.sub.example.", rtype::A),
        ("_sip._tcp.example.", rtype::SRV),
        ("num.example.", rtype::NAPTR),
        ("num.example.", rtype::PTR),
        ("none.example.", rtype::A),
    ];

    #[test]
    fn an_answer_written_in_another_way_is_good() {
        let mut answers = answers();
        for &(name, qtype) in QUESTIONS {
            let expected = expected(&mut answers, name, qtype);
            let reply = reply(&mut answers, name, qtype);
            assert_eq!(judge(&reply, &expected), Verdict::Good, "{name}");
            assert_eq!(judge(&rewritten(&reply), &expected), Verdict::Good, "{name}");
            assert!(is_expected(&reply, &expected));
        }
    }

    #[test]
    fn no_answer_is_taken_for_another() {
        let mut answers = answers();
        for &(name, qtype) in QUESTIONS {
            let expected = expected(&mut answers, name, qtype);
            for &(other, other_type) in QUESTIONS {
                if (name, qtype) != (other, other_type) {
                    let reply = reply(&mut answers, other, other_type);
                    // No records and no error: no records of one type are as good as of another.
                    let same = reply[3] & 0xF == expected.rcode && digest(&reply) == Some(0);
                    assert_eq!(is_expected(&reply, &expected), same && expected.digest == Some(0));
                }
            }
        }
    }

    /// Each octet of the RDATA and of the owner's name counts; so do the records.
    #[test]
    fn an_answer_that_is_wrong_in_one_octet_is_wrong() {
        let mut answers = answers();
        for &(name, qtype) in QUESTIONS {
            let expected = expected(&mut answers, name, qtype);
            let whole = reply(&mut answers, name, qtype);
            let message = Message::new(&whole).unwrap();
            let flat = rewritten(&whole);
            let records = Message::new(&flat).unwrap().records().unwrap();
            for record in records.map(Result::unwrap) {
                if record.section != Section::Answer {
                    continue;
                }
                for at in record.rdata.clone() {
                    let mut wrong = flat.clone();
                    wrong[at] ^= 1;
                    assert_eq!(judge(&wrong, &expected), Verdict::Wrong, "{name}: octet {at}");
                }
            }
            if message.count(1) > 0 {
                let mut fewer = whole.clone();
                fewer[7] -= 1;
                assert_eq!(judge(&fewer, &expected), Verdict::Wrong, "{name}: fewer");
            }
            let mut refused = whole.clone();
            refused[3] = refused[3] & 0xF0 | 5;
            assert_eq!(judge(&refused, &expected), Verdict::Wrong, "{name}: rcode");
            let mut cut = whole.clone();
            cut[2] |= (header::TC >> 8) as u8;
            assert_eq!(judge(&cut, &expected), Verdict::Truncated, "{name}");
        }
        // A referral is no absence of records, nor one elsewhere.
        let referral = expected(&mut answers, "a.sub.example.", rtype::A);
        let nodata = reply(&mut answers, "mail.example.", rtype::TXT);
        assert_eq!(judge(&nodata, &referral), Verdict::Wrong);
    }

    #[test]
    fn what_is_expected_of_one_drawn_label_holds_for_any() {
        let mut answers = answers();
        for name in ["wild.example.", "old.example.", "sub.example.", "example."] {
            let one = expected(&mut answers, &format!("abcdefghijkl.{name}"), rtype::A);
            for label in ["zyxwvutsrqpo", "ABCDEFGHIJKM"] {
                let reply = reply(&mut answers, &format!("{label}.{name}"), rtype::A);
                assert_eq!(judge(&reply, &one), Verdict::Good, "{label}.{name}");
            }
        }
        let wild = expected(&mut answers, "abcdefghijkl.wild.example.", rtype::A);
        let other = reply(&mut answers, "www2.example.", rtype::A);
        assert_eq!(judge(&other, &wild), Verdict::Wrong);
    }

    /// To a query with DO a signed zone's denial is proved, by whatever records.
    #[test]
    fn a_denial_that_is_not_proved_is_wrong() {
        let reply = |denial: u16, signature: u16, section| {
            let mut writer = Writer::new(0, header::QR);
            writer.question(b"\x04none\x07example\0", rtype::A, CLASS_IN);
            let owner = b"\x07example\0";
            writer.record(section, b"\x01x\x07example\0", denial, 60, &[0, 0, 1]);
            writer.record(section, owner, signature, 60, &[0; 20]);
            let mut octets = writer.into_octets();
            octets[3] |= 3;
            octets
        };
        let good = reply(rtype::NSEC3, rtype::RRSIG, Section::Authority);
        assert!(proves(&good));
        let expected = Expected { rcode: 3, digest: digest(&good), proof: true };
        assert_eq!(judge(&good, &expected), Verdict::Good);
        let other = reply(rtype::NSEC, rtype::RRSIG, Section::Authority);
        assert_eq!(judge(&other, &expected), Verdict::Good, "another proof of the same");
        for octets in [
            reply(rtype::NSEC3, rtype::TXT, Section::Authority),
            reply(rtype::TXT, rtype::RRSIG, Section::Authority),
            reply(rtype::NSEC3, rtype::RRSIG, Section::Answer),
        ] {
            assert_eq!(judge(&octets, &expected), Verdict::Wrong);
        }
        for len in 0..good.len() {
            assert!(!proves(&good[..len]), "{len}");
        }
        let unsigned = Expected { proof: false, ..expected };
        let bare = reply(rtype::TXT, rtype::TXT, Section::Authority);
        assert_eq!(judge(&bare, &unsigned), Verdict::Good);
    }

    /// Any octets are taken, and cost no more than their length allows.
    #[test]
    fn hostile_octets_are_wrong_and_harmless() {
        let mut answers = answers();
        let mut random = Random::new(7);
        for round in 0..200_000 {
            let (name, qtype) = QUESTIONS[round % QUESTIONS.len()];
            let expected = expected(&mut answers, name, qtype);
            let mut octets = reply(&mut answers, name, qtype);
            for _ in 0..1 + random.below(4) {
                let at = random.below(octets.len() as u64) as usize;
                octets[at] = random.below(256) as u8;
            }
            octets.truncate(random.below(octets.len() as u64 + 64) as usize);
            let _ = judge(&octets, &expected);
        }
        for at in 0..300 {
            let mut octets = vec![0xC0; 300];
            octets[..12].copy_from_slice(&[0, 0, 0x80, 0, 0, 1, 0xFF, 0xFF, 0, 0, 0, 0]);
            octets[at.max(12)] = 0;
            let expected = Expected { rcode: 0, digest: Some(1), proof: true };
            assert_eq!(judge(&octets, &expected), Verdict::Wrong);
        }
    }
}
