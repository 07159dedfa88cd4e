//! One answer as it lies in the cache: ready to be copied behind a question.
//!
//! ```text
//!   0       4     8    10   12   14      15      16      18     20       22      24
//!   | since | ttl | an | ns | ar | rcode | flags | qtype | body | ttls n | edes  | name len 1 |
//!   | name, lower case | body: the records | n places of TTLs, 2 each | EDNS options 15 |
//! ```
//!
//! The body is what stood behind the question in the upstream's message, without OPT. Its
//! compression pointers count from the start of a message with the same question, and so they hold
//! in every reply to it. Numbers are little-endian; names, records and options are as on the wire.

use crate::limits::{HEADER_LEN, MESSAGE_SIZE_MAX, NAME_LEN_MAX};
use crate::memory::store::ENTRY_LEN_MAX;

/// Octets before the name.
pub const FIXED_LEN: usize = 25;
/// Octets of EDNS options kept with an answer.
pub const EDE_LEN_MAX: usize = 512;
/// Records of one answer: what is more is not kept, nor answered.
pub const RECORDS_MAX: usize = 8192;
const _: () = assert!(
    FIXED_LEN + NAME_LEN_MAX + MESSAGE_SIZE_MAX + 2 * RECORDS_MAX + EDE_LEN_MAX <= ENTRY_LEN_MAX
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

    /// Whether it is fresh at second `now`.
    #[inline(always)]
    pub fn is_fresh(&self, now: u32) -> bool {
        self.age(now) < self.ttl()
    }

    /// Records of the three sections.
    #[inline(always)]
    pub fn counts(&self) -> [u16; 3] {
        [8, 10, 12].map(|at| self.half(at))
    }

    /// The response code.
    #[inline(always)]
    pub fn rcode(&self) -> u8 {
        self.octets[14]
    }

    /// [`flag`].
    #[inline(always)]
    pub fn flags(&self) -> u8 {
        self.octets[15]
    }

    /// QTYPE.
    #[inline(always)]
    pub fn qtype(&self) -> u16 {
        self.half(16)
    }

    #[inline(always)]
    fn body_len(&self) -> usize {
        self.half(18).into()
    }

    #[inline(always)]
    fn ttl_count(&self) -> usize {
        self.half(20).into()
    }

    #[inline(always)]
    fn ede_len(&self) -> usize {
        self.half(22).into()
    }

    #[inline(always)]
    fn body_at(&self) -> usize {
        FIXED_LEN + usize::from(self.octets[24])
    }

    /// The question's name in wire form, in lower case.
    #[inline(always)]
    pub fn name(&self) -> &'a [u8] {
        self.octets.get(FIXED_LEN..self.body_at()).unwrap_or(&[])
    }

    /// The records.
    #[inline(always)]
    pub fn body(&self) -> &'a [u8] {
        &self.octets[self.body_at()..][..self.body_len()]
    }

    /// Where in the body TTLs stand.
    #[inline(always)]
    pub fn ttl_places(&self) -> impl Iterator<Item = usize> + 'a {
        let octets = &self.octets[self.body_at() + self.body_len()..][..2 * self.ttl_count()];
        octets.chunks_exact(2).map(|pair| usize::from(u16::from_le_bytes([pair[0], pair[1]])))
    }

    /// Extended DNS Errors as EDNS options (RFC 8914, 2).
    #[inline(always)]
    pub fn ede_options(&self) -> &'a [u8] {
        let at = self.body_at() + self.body_len() + 2 * self.ttl_count();
        &self.octets[at..][..self.ede_len()]
    }

    /// Whether the octets are those of one entry, however they came here.
    pub fn is_whole(octets: &[u8]) -> bool {
        let Some(entry) = Entry::new(octets) else { return false };
        let len = entry.body_at() + entry.body_len() + 2 * entry.ttl_count() + entry.ede_len();
        let body_len = entry.body_len();
        let question_len = usize::from(octets[24]) + 4;
        len == octets.len()
            && HEADER_LEN + question_len + body_len <= MESSAGE_SIZE_MAX
            && entry.ede_len() <= EDE_LEN_MAX
            && entry.ttl_places().all(|place| place + 4 <= body_len)
            && crate::wire::Name::from_wire(entry.name()).is_ok()
    }
}
