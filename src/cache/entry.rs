//! One answer as it lies in the cache: ready to be copied behind a question.
//!
//! ```text
//!   0       4     8       10      11      12         13   14   15   16
//!   | since | ttl | qtype | flags | rcode | name len | an | ns | ar | name, lower case | body |
//!   | place of each record's TTL, 2 | MANY: an, ns, ar, 2 each | EDES: EDNS options 15, len 2 |
//! ```
//!
//! The body is what stood behind the question in the upstream's message, without OPT: all that the
//! rest leaves of the entry. Its compression pointers count from the start of a message with the
//! same question, and so they hold in every reply to it. Numbers are little-endian; names, records
//! and options are as on the wire. The last two parts are there if the flags say so.

use crate::limits::{HEADER_LEN, MESSAGE_SIZE_MAX, NAME_LEN_MAX};
use crate::memory::store::ENTRY_LEN_MAX;
use crate::wire::query::{skip_name, skip_record};

use super::FAILURE_SECONDS_MAX;

/// Octets before the name.
pub const FIXED_LEN: usize = 16;
/// Octets of counts that are too large for their places.
const MANY_LEN: usize = 6;
/// Octets of the length of EDNS options.
const EDES_LEN_LEN: usize = 2;
/// Octets of EDNS options kept with an answer.
pub const EDE_LEN_MAX: usize = 512;
/// Records of one answer: what is more is not kept, nor answered.
pub const RECORDS_MAX: usize = 8192;
const _: () = assert!(
    FIXED_LEN
        + NAME_LEN_MAX
        + MESSAGE_SIZE_MAX
        + 2 * RECORDS_MAX
        + MANY_LEN
        + EDE_LEN_MAX
        + EDES_LEN_LEN
        <= ENTRY_LEN_MAX
);

/// Flags of an entry; the first two belong to its key.
pub mod flag {
    /// Its question had DO.
    pub const DNSSEC_OK: u8 = 1;
    /// Its question had CD.
    pub const CHECKING_DISABLED: u8 = 2;
    /// The bits that questions differ in.
    pub const KEY: u8 = DNSSEC_OK | CHECKING_DISABLED;
    /// AD: its answer was found authentic.
    pub const AUTHENTIC: u8 = 4;
    /// There was no answer: a failure that is remembered (RFC 9520).
    pub const FAILURE: u8 = 8;
    /// No records were there (RFC 2308).
    pub const NEGATIVE: u8 = 16;
    /// A section has more than 255 records: their numbers stand behind the places.
    pub const MANY: u8 = 32;
    /// EDNS options end the entry.
    pub const EDES: u8 = 64;

    /// Those of a question with DO and CD as given.
    #[inline(always)]
    pub fn of(dnssec_ok: bool, checking_disabled: bool) -> u8 {
        (u8::from(dnssec_ok) * DNSSEC_OK) | (u8::from(checking_disabled) * CHECKING_DISABLED)
    }
}

//----------- Key ------------------------------------------------------------

/// What tells answers apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'a> {
    /// The keyed hash of the name.
    pub name_hash: u64,
    /// In lower case, in wire form.
    pub name: &'a [u8],
    /// QTYPE.
    pub qtype: u16,
    /// DO and CD: [`flag`].
    pub flags: u8,
}

impl Key<'_> {
    /// The hash of all of it.
    #[inline(always)]
    pub fn hash(&self) -> u64 {
        hash(self.name_hash, self.qtype, self.flags)
    }

    /// Whether `octets` are an entry with this key.
    #[inline(always)]
    pub fn is_of(&self, octets: &[u8]) -> bool {
        let Some(entry) = Entry::new(octets) else { return false };
        entry.qtype() == self.qtype
            && entry.flags() & flag::KEY == self.flags & flag::KEY
            && entry.name() == self.name
    }
}

/// The hash of a key, from that of its name.
#[inline(always)]
pub fn hash(name_hash: u64, qtype: u16, flags: u8) -> u64 {
    let word = name_hash ^ (u64::from(qtype) << 8 | u64::from(flags & flag::KEY)) << 20;
    let product = u128::from(word) * 0x9E37_79B9_7F4A_7C15_u128;
    product as u64 ^ (product >> 64) as u64
}

//----------- Records --------------------------------------------------------

/// The records of an entry.
#[derive(Clone, Copy, Debug)]
pub struct Records<'a> {
    /// How many there are in the three sections.
    pub counts: [u16; 3],
    /// As they are in a message with the same question.
    pub body: &'a [u8],
    places: &'a [u8],
}

impl<'a> Records<'a> {
    /// Where in the body TTLs stand.
    #[inline(always)]
    pub fn ttl_places(&self) -> impl Iterator<Item = usize> + 'a {
        let pairs = self.places.chunks_exact(2);
        pairs.map(|pair| usize::from(u16::from_le_bytes([pair[0], pair[1]])))
    }
}

//----------- Entry ----------------------------------------------------------

/// An entry's octets.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    octets: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Takes octets that [`super::Prepared`] made, or that are [whole](Entry::is_whole).
    #[inline(always)]
    pub fn new(octets: &'a [u8]) -> Option<Entry<'a>> {
        (octets.len() > FIXED_LEN).then_some(Entry { octets })
    }

    #[inline(always)]
    fn half(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.octets[at], self.octets[at + 1]])
    }

    #[inline(always)]
    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes([0, 1, 2, 3].map(|i| self.octets[at + i]))
    }

    /// All octets.
    pub fn octets(&self) -> &'a [u8] {
        self.octets
    }

    /// The second of the cache's clock since when it is held.
    #[inline(always)]
    pub fn since(&self) -> u32 {
        self.word(0)
    }

    /// For how many seconds it is fresh.
    #[inline(always)]
    pub fn ttl(&self) -> u32 {
        self.word(4)
    }

    /// Seconds it has been held at second `now`.
    #[inline(always)]
    pub fn age(&self, now: u32) -> u32 {
        now.saturating_sub(self.since())
    }

    /// Whether at second `now` it is worth nothing any more: `stale` seconds past its time.
    pub fn is_over(&self, now: u32, stale: u32) -> bool {
        // Nobody gets a failure past its time; it is kept to know that it is not the first.
        let fails = self.flags() & flag::FAILURE != 0;
        let stale = if fails { FAILURE_SECONDS_MAX } else { stale };
        self.age(now) >= self.ttl().saturating_add(stale)
    }

    /// Whether it is an answer that may be served at second `now`, `stale` seconds past its time.
    pub fn is_served(&self, now: u32, stale: u32) -> bool {
        self.flags() & flag::FAILURE == 0 && !self.is_over(now, stale)
    }

    /// Whether it is fresh at second `now`.
    #[inline(always)]
    pub fn is_fresh(&self, now: u32) -> bool {
        self.age(now) < self.ttl()
    }

    /// The response code.
    #[inline(always)]
    pub fn rcode(&self) -> u8 {
        self.octets[11]
    }

    /// [`flag`].
    #[inline(always)]
    pub fn flags(&self) -> u8 {
        self.octets[10]
    }

    /// QTYPE.
    #[inline(always)]
    pub fn qtype(&self) -> u16 {
        self.half(8)
    }

    #[inline(always)]
    fn body_at(&self) -> usize {
        FIXED_LEN + usize::from(self.octets[12])
    }

    /// The question's name in wire form, in lower case.
    #[inline(always)]
    pub fn name(&self) -> &'a [u8] {
        self.octets.get(FIXED_LEN..self.body_at()).unwrap_or(&[])
    }

    /// The records.
    #[inline(always)]
    pub fn records(&self) -> Records<'a> {
        let ends = self.flags() & (flag::MANY | flag::EDES) != 0;
        let (counts, tail_len) = if ends { self.tail() } else { (self.few(), 0) };
        let end = self.octets.len().saturating_sub(tail_len);
        let rest = self.octets.get(self.body_at()..end).unwrap_or(&[]);
        let [an, ns, ar] = counts.map(usize::from);
        let (body, places) = rest.split_at(rest.len().saturating_sub(2 * (an + ns + ar)));
        Records { counts, body, places }
    }

    #[inline(always)]
    fn few(&self) -> [u16; 3] {
        [13, 14, 15].map(|at| u16::from(self.octets[at]))
    }

    /// How many records there are, and the octets behind their places.
    #[cold]
    fn tail(&self) -> ([u16; 3], usize) {
        let options_len = match self.ede_options() {
            [] => 0,
            options => options.len() + EDES_LEN_LEN,
        };
        if self.flags() & flag::MANY == 0 {
            return (self.few(), options_len);
        }
        let at = self.octets.len().saturating_sub(options_len + MANY_LEN);
        ([at, at + 2, at + 4].map(|at| self.half(at)), options_len + MANY_LEN)
    }

    /// Extended DNS Errors as EDNS options (RFC 8914, 2).
    #[inline(always)]
    pub fn ede_options(&self) -> &'a [u8] {
        if self.flags() & flag::EDES == 0 {
            return &[];
        }
        let end = self.octets.len() - EDES_LEN_LEN;
        let len = usize::from(self.half(end)).min(end);
        &self.octets[end - len..end]
    }

    /// Whether the octets are those of one entry, however they came here.
    pub fn is_whole(octets: &[u8]) -> bool {
        let Some(entry) = Entry::new(octets) else { return false };
        let Records { counts, body, places } = entry.records();
        let record_count: usize = counts.into_iter().map(usize::from).sum();
        // The records follow one another, their TTLs are where they are said to be, nothing is
        // left.
        let end = entry.records().ttl_places().try_fold(0, |at, place| {
            let fixed_at = skip_name(body, at)?;
            skip_record(body, at).filter(|_| place == fixed_at + 4)
        });
        // What has options has some, and nothing of them is the name's.
        let options_len = entry.ede_options().len();
        let ends = entry.flags() & (flag::MANY | flag::EDES) != 0;
        let tail_len = if ends { entry.tail().1 } else { 0 };
        entry.body_at() + tail_len <= octets.len()
            && options_len <= EDE_LEN_MAX
            && (options_len > 0) == (entry.flags() & flag::EDES != 0)
            && places.len() == 2 * record_count
            && end == Some(body.len())
            && HEADER_LEN + entry.name().len() + 4 + body.len() <= MESSAGE_SIZE_MAX
            && crate::wire::Name::from_wire(entry.name()).is_ok()
    }

    /// Appends what stands behind the body to `octets`, which have all before it, and says there
    /// that it is there.
    pub(super) fn end(octets: &mut Vec<u8>, places: &[u16], counts: [u16; 3], options: &[u8]) {
        for place in places {
            octets.extend_from_slice(&place.to_le_bytes());
        }
        match counts.map(u8::try_from) {
            [Ok(an), Ok(ns), Ok(ar)] => octets[13..16].copy_from_slice(&[an, ns, ar]),
            _ => {
                octets[10] |= flag::MANY;
                counts.iter().for_each(|count| octets.extend_from_slice(&count.to_le_bytes()));
            }
        }
        if !options.is_empty() {
            octets[10] |= flag::EDES;
            octets.extend_from_slice(options);
            octets.extend_from_slice(&(options.len() as u16).to_le_bytes());
        }
    }
}
