//! A response made ready to be kept: what the upstream said, nothing else, in bounded work.
//!
//! ```text
//!   header | question | records ... OPT |   ──>   body (as it came, without OPT), places of TTLs,
//!                                                 how long it holds, its errors
//! ```
//!
//! TTLs are brought within bounds where they stand: those past 2^31 are 0 (RFC 2181, 8), a negative
//! answer holds for the SOA's TTL or MINIMUM, whichever is less (RFC 2308, 5). An answer holds as
//! long as its shortest record.

use std::time::Duration;

use crate::limits::{HEADER_LEN, MESSAGE_SIZE_MAX, TTL_MAX};
use crate::wire::message::{Message, RecordAt, Section, header};
use crate::wire::rcode::{NOERROR, NXDOMAIN, SERVFAIL, YXDOMAIN};
use crate::wire::rtype;

use super::entry::{EDE_LEN_MAX, Entry, FIXED_LEN, Key, RECORDS_MAX, flag};

const OPTION_EDE: u16 = 15;
/// AD in the flags of a message (RFC 4035, 3.2.3).
const AD: u16 = 0x0020;

/// How long answers may be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TtlBounds {
    /// Seconds that any record holds at least.
    pub min: u32,
    /// Seconds that any record holds at most.
    pub max: u32,
    /// Seconds that a negative answer holds at most.
    pub negative_max: u32,
    /// Seconds that a failure is remembered (RFC 9520, 3.2: at most 5 minutes).
    pub failure: u32,
}

impl Default for TtlBounds {
    fn default() -> TtlBounds {
        TtlBounds { min: 0, max: 86_400, negative_max: 3600, failure: 5 }
    }
}

/// Why a response is not kept, nor answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unusable;

//----------- Prepared -------------------------------------------------------

/// An entry before it is stored; made again and again in the same memory.
#[derive(Default)]
pub struct Prepared {
    octets: Vec<u8>,
    places: Vec<u16>,
    rewritten: Vec<u8>,
    options: Vec<u8>,
}

/// What is kept of a response beside its records.
#[derive(Clone, Copy, Debug, Default)]
pub struct Aside<'a> {
    /// Extended DNS Errors, each with its code and text.
    pub edes: &'a [(u16, &'a str)],
    /// Whether its AD may be believed.
    pub trusts_ad: bool,
}

impl Prepared {
    /// The entry.
    pub fn entry(&self) -> Entry<'_> {
        Entry::new(&self.octets).expect("it was made")
    }

    /// Whether it may be kept: it holds for some time.
    pub fn is_kept(&self) -> bool {
        self.entry().ttl() > 0
    }

    /// Says from when on it is held, and for how long.
    pub fn hold(&mut self, since: u32, ttl: Option<u32>) {
        self.octets[..4].copy_from_slice(&since.to_le_bytes());
        if let Some(ttl) = ttl {
            self.octets[4..8].copy_from_slice(&ttl.to_le_bytes());
        }
    }

    /// Becomes a copy of an entry.
    pub fn copy(&mut self, entry: Entry<'_>) {
        self.octets.clear();
        self.octets.extend_from_slice(entry.octets());
    }

    /// Becomes the failure to answer `key`'s question, held for `ttl` seconds.
    pub fn failure(&mut self, key: &Key<'_>, now: Duration, ttl: u32, edes: &[(u16, &str)]) {
        self.begin(key, SERVFAIL as u8, flag::FAILURE);
        self.places.clear();
        self.finish(super::second(now), ttl, [0; 3], edes);
    }

    /// Becomes what is kept of `message`, a response to `key`'s question that came `now`.
    pub fn response(
        &mut self,
        key: &Key<'_>,
        message: &[u8],
        now: Duration,
        bounds: &TtlBounds,
        aside: Aside<'_>,
    ) -> Result<(), Unusable> {
        let mut rewritten = std::mem::take(&mut self.rewritten);
        let result = match opt_is_last(message)? {
            true => self.of_message(key, message, now, bounds, aside),
            false => {
                rewrite(message, &mut rewritten)?;
                self.of_message(key, &rewritten, now, bounds, aside)
            }
        };
        self.rewritten = rewritten;
        result
    }

    fn of_message(
        &mut self,
        key: &Key<'_>,
        octets: &[u8],
        now: Duration,
        bounds: &TtlBounds,
        aside: Aside<'_>,
    ) -> Result<(), Unusable> {
        let message = Message::new(octets).ok_or(Unusable)?;
        let start = message.questions_end().map_err(|_| Unusable)?;
        if message.flags() & header::TC != 0
            || message.count(0) != 1
            || start != HEADER_LEN + key.name.len() + 4
        {
            return Err(Unusable);
        }
        self.places.clear();
        let mut gathered = Gathered::new(bounds, start, key.qtype);
        for record in message.records().map_err(|_| Unusable)? {
            let record = record.map_err(|_| Unusable)?;
            if record.rtype != rtype::OPT {
                gathered.take(octets, &record)?;
                self.places.push((record.rdata.start - 6 - start) as u16);
                if self.places.len() > RECORDS_MAX {
                    return Err(Unusable);
                }
            }
        }
        let rcode = message.rcode() as u8;
        let kind = gathered.kind(rcode, bounds);
        let authentic = aside.trusts_ad && message.flags() & AD != 0;
        let flags = kind.flags | if authentic { flag::AUTHENTIC } else { 0 };
        self.begin(key, rcode, flags);
        let body_at = self.octets.len();
        self.octets.extend_from_slice(&octets[start..gathered.end]);
        for i in 0..self.places.len() {
            let at = body_at + usize::from(self.places[i]);
            self.bring_within(at, gathered.negative_ttl, bounds);
        }
        self.finish(super::second(now), kind.ttl, gathered.counts, aside.edes);
        Ok(())
    }

    /// Brings the TTL at `at` within bounds; that of a SOA that says how long nothing is there,
    /// too.
    fn bring_within(&mut self, at: usize, negative_ttl: Option<u32>, bounds: &TtlBounds) {
        let field: &mut [u8; 4] = (&mut self.octets[at..at + 4]).try_into().expect("four octets");
        let mut ttl = clamped(u32::from_be_bytes(*field), bounds);
        if let Some(negative) = negative_ttl {
            ttl = ttl.min(negative);
        }
        *field = ttl.to_be_bytes();
    }

    fn begin(&mut self, key: &Key<'_>, rcode: u8, flags: u8) {
        self.octets.clear();
        self.octets.resize(FIXED_LEN, 0);
        self.octets[8..10].copy_from_slice(&key.qtype.to_le_bytes());
        self.octets[10] = key.flags & flag::KEY | flags;
        self.octets[11] = rcode;
        self.octets[12] = key.name.len() as u8;
        self.octets.extend_from_slice(key.name);
    }

    /// Appends what follows the body, and fills in the numbers.
    fn finish(&mut self, since: u32, ttl: u32, counts: [u16; 3], edes: &[(u16, &str)]) {
        self.options.clear();
        for (code, text) in edes {
            let len = 2 + text.len();
            if self.options.len() + 4 + len > EDE_LEN_MAX {
                break;
            }
            self.options.extend_from_slice(&OPTION_EDE.to_be_bytes());
            self.options.extend_from_slice(&(len as u16).to_be_bytes());
            self.options.extend_from_slice(&code.to_be_bytes());
            self.options.extend_from_slice(text.as_bytes());
        }
        self.hold(since, Some(ttl));
        Entry::end(&mut self.octets, &self.places, counts, &self.options);
    }
}

//= RFC 2181, 8
//# Implementations should treat a TTL value received with the most significant bit set as if the
//# entire value received was zero.
fn clamped(ttl: u32, bounds: &TtlBounds) -> u32 {
    let ttl = if ttl > TTL_MAX { 0 } else { ttl };
    ttl.max(bounds.min).min(bounds.max.max(bounds.min))
}

//----------- Gathered -------------------------------------------------------

/// What a message's records say together.
struct Gathered<'a> {
    bounds: &'a TtlBounds,
    counts: [u16; 3],
    /// Where the last record that is kept ends.
    end: usize,
    shortest: Option<u32>,
    qtype: u16,
    /// Answer records of that type, or other than CNAME, DNAME and signatures.
    positive: bool,
    /// Of a SOA in the authority section.
    negative_ttl: Option<u32>,
}

/// What an answer is, and for how long.
struct Kind {
    flags: u8,
    ttl: u32,
}

impl<'a> Gathered<'a> {
    fn new(bounds: &'a TtlBounds, start: usize, qtype: u16) -> Gathered<'a> {
        Gathered {
            bounds,
            qtype,
            counts: [0; 3],
            end: start,
            shortest: None,
            positive: false,
            negative_ttl: None,
        }
    }

    fn take(&mut self, octets: &[u8], record: &RecordAt) -> Result<(), Unusable> {
        let ttl = clamped(record.ttl, self.bounds);
        self.counts[record.section as usize - 1] += 1;
        self.end = record.rdata.end;
        self.shortest = Some(self.shortest.map_or(ttl, |shortest| shortest.min(ttl)));
        match (record.section, record.rtype) {
            (Section::Answer, rtype) if rtype == self.qtype || self.qtype == rtype::ANY => {
                self.positive = true;
            }
            (Section::Answer, rtype::CNAME | rtype::DNAME | rtype::RRSIG) => {}
            (Section::Answer, _) => self.positive = true,
            (Section::Authority, rtype::SOA) => {
                let last = octets[record.rdata.clone()].last_chunk::<4>().ok_or(Unusable)?;
                let minimum = u32::from_be_bytes(*last).min(TTL_MAX);
                let ttl = record.ttl.min(minimum);
                self.negative_ttl = Some(self.negative_ttl.map_or(ttl, |least| least.min(ttl)));
            }
            _ => {}
        }
        Ok(())
    }

    fn kind(&mut self, rcode: u8, bounds: &TtlBounds) -> Kind {
        let shortest = self.shortest.unwrap_or(0);
        match u16::from(rcode) {
            // RFC 6672, 2.2: the name that a DNAME leads to would be too long.
            YXDOMAIN if self.counts[0] > 0 => Kind { flags: 0, ttl: shortest },
            NOERROR if self.positive => {
                self.negative_ttl = None;
                Kind { flags: 0, ttl: shortest }
            }
            NOERROR | NXDOMAIN => {
                //= RFC 2308, 5
                //# Negative responses without SOA records SHOULD NOT be cached
                let Some(negative) = self.negative_ttl else {
                    return Kind { flags: flag::NEGATIVE, ttl: 0 };
                };
                let negative = clamped(negative, bounds).min(bounds.negative_max);
                self.negative_ttl = Some(negative);
                Kind { flags: flag::NEGATIVE, ttl: shortest.min(negative) }
            }
            _ => Kind { flags: flag::FAILURE, ttl: bounds.failure },
        }
    }
}

//----------- Rewriting ------------------------------------------------------

/// Whether nothing stands behind OPT: what does may be pointed to.
fn opt_is_last(octets: &[u8]) -> Result<bool, Unusable> {
    let message = Message::new(octets).ok_or(Unusable)?;
    let mut opt_seen = false;
    for record in message.records().map_err(|_| Unusable)? {
        let record = record.map_err(|_| Unusable)?;
        if opt_seen {
            return Ok(false);
        }
        opt_seen = record.rtype == rtype::OPT;
    }
    Ok(true)
}

/// Writes a message without its OPT record, names expanded.
fn rewrite(octets: &[u8], out: &mut Vec<u8>) -> Result<(), Unusable> {
    let message = Message::new(octets).ok_or(Unusable)?;
    let start = message.questions_end().map_err(|_| Unusable)?;
    out.clear();
    out.extend_from_slice(&octets[..start]);
    let mut counts = [0u16; 3];
    for record in message.records().map_err(|_| Unusable)? {
        let record = record.map_err(|_| Unusable)?;
        if record.rtype == rtype::OPT {
            continue;
        }
        message.expand(record.at, out).map_err(|_| Unusable)?;
        out.extend_from_slice(&octets[record.rdata.start - 10..record.rdata.start - 2]);
        let len_at = out.len();
        out.extend_from_slice(&[0; 2]);
        expand_rdata(message, &record, out)?;
        let len = u16::try_from(out.len() - len_at - 2).map_err(|_| Unusable)?;
        out[len_at..len_at + 2].copy_from_slice(&len.to_be_bytes());
        counts[record.section as usize - 1] += 1;
    }
    for (section, count) in counts.iter().enumerate() {
        out[6 + 2 * section..8 + 2 * section].copy_from_slice(&count.to_be_bytes());
    }
    if out.len() > MESSAGE_SIZE_MAX { Err(Unusable) } else { Ok(()) }
}

/// Appends a record's RDATA, names expanded.
///
/// Names in RDATA may be compressed in the types of RFC 1035 only (RFC 3597, 4); receivers also
/// take those of RFC 1183, RFC 2163, RFC 2230 and RFC 2782.
pub fn expand_rdata(
    message: Message<'_>,
    record: &RecordAt,
    out: &mut Vec<u8>,
) -> Result<(), Unusable> {
    let octets = message.octets();
    let (fixed, names) = match record.rtype {
        rtype::NS | rtype::CNAME | rtype::PTR | rtype::DNAME => (0, 1),
        rtype::MD | rtype::MF | rtype::MB | rtype::MG | rtype::MR => (0, 1),
        rtype::SOA | rtype::MINFO | rtype::RP => (0, 2),
        rtype::MX | rtype::AFSDB | rtype::RT | rtype::KX => (2, 1),
        rtype::PX => (2, 2),
        rtype::SRV => (6, 1),
        _ => (0, 0),
    };
    let mut at = record.rdata.start + fixed;
    out.extend_from_slice(octets.get(record.rdata.start..at).ok_or(Unusable)?);
    for _ in 0..names {
        at = message.expand(at, out).map_err(|_| Unusable)?;
    }
    out.extend_from_slice(octets.get(at..record.rdata.end).ok_or(Unusable)?);
    Ok(())
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::{CLASS_IN, Writer};

    const NAME: &[u8] = b"\x03www\x07example\0";
    const NOW: Duration = Duration::from_secs(100);

    fn key() -> Key<'static> {
        Key { name_hash: 7, name: NAME, qtype: rtype::A, flags: flag::DNSSEC_OK }
    }

    fn writer(flags: u16) -> Writer {
        let mut writer = Writer::new(1, header::QR | flags);
        writer.question(NAME, rtype::A, CLASS_IN);
        writer
    }

    fn soa(minimum: u32) -> Vec<u8> {
        [b"\x01a\0\x01b\0".to_vec(), vec![0; 16], minimum.to_be_bytes().to_vec()].concat()
    }

    fn prepared(octets: &[u8], bounds: &TtlBounds) -> Result<Prepared, Unusable> {
        let mut prepared = Prepared::default();
        let edes = [(22, "nobody there")];
        let aside = Aside { edes: &edes, trusts_ad: false };
        prepared.response(&key(), octets, NOW, bounds, aside)?;
        assert!(Entry::is_whole(prepared.entry().octets()));
        Ok(prepared)
    }

    /// What is asked for is an answer, also if it would only lead to one otherwise.
    #[test]
    fn aliases_that_are_asked_for_are_kept() {
        let dname = ("DNAME", YXDOMAIN, rtype::DNAME, rtype::A);
        for (what, rcode, rtype, qtype) in [
            ("CNAME", NOERROR, rtype::CNAME, rtype::CNAME),
            ("ANY", NOERROR, rtype::CNAME, rtype::ANY),
            ("RRSIG", NOERROR, rtype::RRSIG, rtype::RRSIG),
            dname,
        ] {
            let mut writer = Writer::new(1, header::QR | rcode);
            writer.question(NAME, qtype, CLASS_IN);
            let rdata = if rtype == rtype::RRSIG { &[0; 40][..] } else { NAME };
            writer.record(Section::Answer, NAME, rtype, 300, rdata);
            let (mut prepared, key) = (Prepared::default(), Key { qtype, ..key() });
            let aside = Aside { edes: &[], trusts_ad: false };
            let octets = writer.into_octets();
            prepared.response(&key, &octets, NOW, &TtlBounds::default(), aside).unwrap();
            let entry = prepared.entry();
            assert_eq!((entry.ttl(), u16::from(entry.rcode())), (300, rcode), "{what}");
            assert_eq!(entry.flags() & (flag::NEGATIVE | flag::FAILURE), 0, "{what}");
        }
    }

    fn ttls(entry: Entry<'_>) -> Vec<u32> {
        let ttl =
            |at: usize| u32::from_be_bytes(entry.records().body[at..at + 4].try_into().unwrap());
        entry.records().ttl_places().map(ttl).collect()
    }

    #[test]
    fn an_answer_holds_as_long_as_its_shortest_record() {
        let mut writer = writer(0);
        writer.record(Section::Answer, NAME, rtype::A, 300, &[192, 0, 2, 1]);
        writer.record(Section::Answer, NAME, rtype::A, 50, &[192, 0, 2, 2]);
        writer.record(Section::Authority, b"\x07example\0", rtype::NS, 1 << 31, NAME);
        writer.opt(1232, None);
        let octets = writer.into_octets();
        let prepared = prepared(&octets, &TtlBounds { min: 5, ..TtlBounds::default() }).unwrap();
        let entry = prepared.entry();
        assert_eq!(entry.records().counts, [2, 1, 0]);
        assert_eq!((entry.ttl(), ttls(entry)), (5, vec![300, 50, 5]));
        assert_eq!(entry.records().body[..6], octets[HEADER_LEN + NAME.len() + 4..][..6]);
        assert_eq!(entry.records().body.len(), octets.len() - HEADER_LEN - NAME.len() - 4 - 11);
        assert!(key().is_of(entry.octets()));
        assert!(!Key { flags: 0, ..key() }.is_of(entry.octets()));
        let since = entry.since();
        assert!(entry.is_fresh(since + 4) && !entry.is_fresh(since + 5));
        assert_eq!(entry.ede_options()[..6], [0, 15, 0, 14, 0, 22]);
    }

    #[test]
    fn records_may_be_more_than_an_octet_counts() {
        for (count, len) in [(255u16, 0), (256, 6), (3000, 6)] {
            let mut writer = writer(0);
            writer.record(Section::Authority, b"\x07example\0", rtype::NS, 60, b"\0");
            for number in 0..count {
                let [high, low] = number.to_be_bytes();
                writer.record(Section::Additional, NAME, rtype::A, 60, &[192, 0, high, low]);
            }
            let octets = writer.into_octets();
            let prepared = prepared(&octets, &TtlBounds::default()).unwrap();
            let entry = prepared.entry();
            assert_eq!(entry.records().counts, [0, 1, count]);
            assert_eq!(ttls(entry), vec![60; usize::from(count) + 1]);
            assert_eq!(entry.records().body, &octets[HEADER_LEN + NAME.len() + 4..]);
            let options_len = entry.ede_options().len() + 2;
            let rest =
                FIXED_LEN + NAME.len() + entry.records().body.len() + 2 * (1 + usize::from(count));
            assert_eq!(entry.octets().len(), rest + len + options_len);
        }
    }

    #[test]
    fn nothing_holds_as_its_soa_says() {
        for (rcode, ttl, minimum, expected) in
            [(3, 900, 60, 60), (0, 30, 60, 30), (3, 90_000, 90_000, 3600), (3, 0, 60, 0)]
        {
            let mut writer = writer(rcode);
            writer.record(Section::Authority, b"\x07example\0", rtype::SOA, ttl, &soa(minimum));
            let prepared = prepared(&writer.into_octets(), &TtlBounds::default()).unwrap();
            let entry = prepared.entry();
            assert_eq!((entry.ttl(), ttls(entry)), (expected, vec![expected]));
            assert_eq!(entry.flags() & flag::NEGATIVE, flag::NEGATIVE);
        }
        let prepared = prepared(&writer(3).into_octets(), &TtlBounds::default()).unwrap();
        assert!(!prepared.is_kept(), "there is no SOA");
    }

    #[test]
    fn a_failure_is_remembered_briefly() {
        let prepared = prepared(&writer(5).into_octets(), &TtlBounds::default()).unwrap();
        let entry = prepared.entry();
        assert_eq!((entry.rcode(), entry.ttl()), (5, 5));
        assert_eq!(entry.flags() & flag::FAILURE, flag::FAILURE);
    }

    /// What stands behind OPT points where it stood; then it is written anew.
    #[test]
    fn opt_may_stand_anywhere() {
        let mut plain = writer(0);
        plain.record(Section::Answer, NAME, rtype::MX, 9, b"\0\x01\xC0\x0C");
        let mut message = plain.into_octets();
        // OPT, and an address whose owner is the name in the RDATA of the MX before.
        message.extend(b"\0\0\x29\x04\xD0\0\0\0\0\0\0");
        message.extend(b"\xC0\x0C\0\x01\0\x01\0\0\0\x09\0\x04\xC0\0\x02\x01");
        message[10..12].copy_from_slice(&[0, 2]);
        let prepared = prepared(&message, &TtlBounds::default()).unwrap();
        let entry = prepared.entry();
        assert_eq!((entry.records().counts, ttls(entry)), ([1, 0, 1], vec![9, 9]));
        assert!(
            entry
                .records()
                .body
                .ends_with(&[&b"\0\x01\0\x01\0\0\0\x09\0\x04"[..], &[192, 0, 2, 1]].concat())
        );
        assert_eq!(entry.records().body.windows(NAME.len()).filter(|it| *it == NAME).count(), 3);
    }

    #[test]
    fn what_is_no_response_to_the_question_is_not_used() {
        let mut other = Writer::new(1, header::QR);
        other.question(b"\x01w\x07example\0", rtype::A, CLASS_IN);
        let whole = writer(0).into_octets();
        for octets in
            [&other.into_octets()[..], &whole[..20], &[], &writer(header::TC).into_octets()]
        {
            assert!(prepared(octets, &TtlBounds::default()).is_err());
        }
    }

    #[test]
    fn what_ends_an_entry_is_not_its_name() {
        let mut prepared = Prepared::default();
        prepared.failure(&Key { name: b"\x03www\0", ..key() }, NOW, 5, &[]);
        let mut octets = prepared.entry().octets().to_vec();
        assert!(Entry::is_whole(&octets));
        for flags in [flag::MANY, flag::EDES] {
            octets[10] |= flags;
            assert!(!Entry::is_whole(&octets));
            let with_len = [&octets[..], &[4, 0]].concat();
            assert!(!Entry::is_whole(&with_len));
            assert!(!Entry::is_whole(&[&octets[..], &[0, 0]].concat()));
            octets[10] &= !flags;
        }
    }

    #[test]
    fn octets_that_are_no_entry_are_known() {
        let mut writer = writer(0);
        writer.record(Section::Answer, NAME, rtype::A, 300, &[192, 0, 2, 1]);
        let prepared = prepared(&writer.into_octets(), &TtlBounds::default()).unwrap();
        let octets = prepared.entry().octets();
        for len in 0..octets.len() {
            assert!(!Entry::is_whole(&octets[..len]), "{len}");
        }
    }
}
