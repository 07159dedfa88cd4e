//! RDATA from its presentation form: for each type, the fields it is made of.
//!
//! ```text
//!   MX   10  mail.example.        [U16, Name]
//!   DS   60485 5 1 2BB1...        [U16, Algorithm, U8, Hex]
//! ```
//!
//! A type is a line in one table; a field is a function. Any type may also be written as
//! `\# length hex` (RFC 3597, 5), which is then read back as a check of its shape.

mod address;
mod binary;
mod dnssec;
mod location;
mod number;
pub(super) use number::{parse_ttl, ttl};
mod service;
mod shape;
mod tunnel;
mod write;
pub use write::write_rdata;

use crate::limits::RDATA_LEN_MAX;
use crate::wire::rtype;

use super::lexer::{Fault, Lexer, Read, Word, unescape};
use super::name::write_name;

//----------- Field ----------------------------------------------------------

/// One field of RDATA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Ip4,
    Ip6,
    U8,
    U16,
    U32,
    /// Seconds, with units allowed.
    Ttl,
    Name,
    /// One character-string of at most 255 octets.
    Text,
    /// One or more character-strings.
    Texts,
    /// None or more character-strings.
    OptionalTexts,
    /// The rest of the RDATA, one word.
    Octets,
    /// The rest as hexadecimal digits, at least one octet.
    Hex,
    /// The rest as base64, at least one octet.
    Base64,
    /// The rest as base64, or nothing.
    OptionalBase64,
    /// `-` or hexadecimal digits of one word, with its length before it.
    Salt,
    /// base32hex of one word, with its length before it.
    HashedName,
    /// The rest as types (RFC 4034, 4.1.2).
    Types,
    /// One type.
    Type,
    /// A DNSSEC algorithm.
    Algorithm,
    /// A certificate type (RFC 4398, 2.1).
    Certificate,
    /// YYYYMMDDHHmmSS or seconds (RFC 4034, 3.2).
    Time,
    /// Hexadecimal octets with a hyphen between them.
    Eui48,
    /// As above, eight octets.
    Eui64,
    /// Four groups of four hexadecimal digits.
    Locator64,
    Location,
    Prefixes,
    ServiceParameters,
    IpsecGateway,
    Hip,
    AmtRelay,
    Nsap,
    CaaTag,
}

use Field::{
    Algorithm, Base64, HashedName, Hex, Ip4, Ip6, Name, Octets, OptionalBase64, Salt, Text, Texts,
    Time, Ttl, Type, Types, U8, U16, U32,
};

/// The fields of a type; `None` for a type that has only the form of RFC 3597.
pub(super) fn fields(rtype: u16) -> Option<&'static [Field]> {
    Some(match rtype {
        rtype::A => &[Ip4],
        rtype::AAAA => &[Ip6],
        rtype::NS
        | rtype::MD
        | rtype::MF
        | rtype::CNAME
        | rtype::MB
        | rtype::MG
        | rtype::MR
        | rtype::PTR
        | rtype::DNAME
        | rtype::NSAP_PTR => &[Name],
        rtype::SOA => &[Name, Name, U32, Ttl, Ttl, Ttl, Ttl],
        rtype::MINFO | rtype::RP | rtype::TALINK => &[Name, Name],
        rtype::MX | rtype::AFSDB | rtype::RT | rtype::KX | rtype::LP => &[U16, Name],
        rtype::PX => &[U16, Name, Name],
        rtype::SRV => &[U16, U16, U16, Name],
        rtype::NAPTR => &[U16, U16, Text, Text, Text, Name],
        rtype::HINFO => &[Text, Text],
        rtype::TXT | rtype::SPF | rtype::NINFO | rtype::AVC | rtype::RESINFO | rtype::WALLET => {
            &[Texts]
        }
        rtype::X25 => &[Text],
        rtype::ISDN => &[Text, Field::OptionalTexts],
        rtype::GPOS => &[Text, Text, Text],
        rtype::NSAP => &[Field::Nsap],
        rtype::LOC => &[Field::Location],
        rtype::APL => &[Field::Prefixes],
        rtype::CERT => &[Field::Certificate, U16, Algorithm, Base64],
        rtype::DS | rtype::CDS | rtype::DLV | rtype::TA => &[U16, Algorithm, U8, Hex],
        rtype::SSHFP => &[U8, U8, Hex],
        rtype::TLSA | rtype::SMIMEA => &[U8, U8, U8, Hex],
        rtype::ZONEMD => &[U32, U8, U8, Hex],
        rtype::IPSECKEY => &[Field::IpsecGateway],
        rtype::AMTRELAY => &[Field::AmtRelay],
        rtype::HIP => &[Field::Hip],
        rtype::RRSIG | rtype::SIG => &[Type, Algorithm, U8, Ttl, Time, Time, U16, Name, Base64],
        rtype::NSEC => &[Name, Types],
        rtype::NSEC3 => &[U8, U8, U16, Salt, HashedName, Types],
        rtype::NSEC3PARAM => &[U8, U8, U16, Salt],
        rtype::CSYNC => &[U32, U16, Types],
        rtype::DNSKEY | rtype::CDNSKEY | rtype::KEY | rtype::RKEY => {
            &[U16, U8, Algorithm, OptionalBase64]
        }
        rtype::DHCID | rtype::OPENPGPKEY => &[Base64],
        rtype::SVCB | rtype::HTTPS => &[U16, Name, Field::ServiceParameters],
        rtype::DSYNC => &[Type, U8, U16, Name],
        rtype::NID | rtype::L64 => &[U16, Field::Locator64],
        rtype::L32 => &[U16, Ip4],
        rtype::EUI48 => &[Field::Eui48],
        rtype::EUI64 => &[Field::Eui64],
        rtype::URI => &[U16, U16, Octets],
        rtype::CAA => &[U8, Field::CaaTag, Octets],
        rtype::DOA => &[U32, U32, U8, Text, OptionalBase64],
        _ => return None,
    })
}

//----------- Octets ---------------------------------------------------------

/// Appends the RDATA at `range` of a message with its names expanded. `false` if it does not have
/// the form of its type; a type that is not known has any.
pub fn expand_rdata(
    rtype: u16,
    message: &[u8],
    range: std::ops::Range<usize>,
    out: &mut Vec<u8>,
) -> bool {
    match fields(rtype) {
        Some(fields) => shape::expand(fields, message, range, out),
        None => message.get(range).map(|rdata| out.extend_from_slice(rdata)).is_some(),
    }
}

/// Whether expanded RDATA has the form of its type.
pub fn rdata_fits(rtype: u16, rdata: &[u8]) -> bool {
    fields(rtype).is_none_or(|fields| shape::fits(fields, rdata))
}

//----------- Reading --------------------------------------------------------

/// Reads the RDATA of `rtype` up to the end of the entry; appends its wire form to `out`.
#[inline]
pub(super) fn read(
    lexer: &mut Lexer<'_>,
    rtype: u16,
    origin: &[u8],
    out: &mut Vec<u8>,
) -> Read<()> {
    let mark = (lexer.at, lexer.lines, lexer.line_at);
    let first = lexer.word()?;
    if let Some(word) = first
        && word.text == b"\\#"
        && !word.quoted
    {
        return generic(lexer, rtype, out);
    }
    let Some(fields) = fields(rtype) else {
        let expected = format!("\\# length hexadecimal, the only form of {}", rtype::name(rtype));
        return Err(match first {
            Some(word) => Fault::of(word, expected),
            None => Fault { at: mark.0, len: 0, expected: expected.into() },
        });
    };
    let mut ahead = first;
    for &field in fields {
        let mut rdata = Rdata { lexer, ahead: ahead.take(), origin, out };
        rdata.field(field)?;
        ahead = rdata.ahead;
    }
    match ahead {
        Some(word) => Err(Fault::of(word, "the end of the record")),
        None => lexer.expect_end(),
    }?;
    if out.len() > RDATA_LEN_MAX {
        return Err(Fault { at: mark.0, len: 1, expected: "RDATA of at most 65535 octets".into() });
    }
    Ok(())
}

/// `\# length hex...` (RFC 3597, 5).
fn generic(lexer: &mut Lexer<'_>, rtype: u16, out: &mut Vec<u8>) -> Read<()> {
    let word = lexer.need("the length of the RDATA")?;
    let len: u16 = number::decimal(word, u64::from(u16::MAX), "a length of at most 65535")? as u16;
    let mut digits = binary::HexDigits::default();
    while let Some(word) = lexer.word()? {
        digits.take(word, out)?;
    }
    if !digits.is_whole() || out.len() != usize::from(len) {
        let expected = format!("{len} octets of hexadecimal digits, not {}", out.len());
        return Err(Fault::of(word, expected));
    }
    if !rdata_fits(rtype, out) {
        let expected = format!("RDATA of the form that {} has", rtype::name(rtype));
        return Err(Fault::of(word, expected));
    }
    Ok(())
}

/// The fields of one record as they are read.
pub(super) struct Rdata<'l, 'a> {
    lexer: &'l mut Lexer<'a>,
    /// The record's first word, which was read to see whether it is `\#`.
    ahead: Option<Word<'a>>,
    origin: &'l [u8],
    out: &'l mut Vec<u8>,
}

impl<'a> Rdata<'_, 'a> {
    #[inline]
    fn next(&mut self) -> Read<Option<Word<'a>>> {
        match self.ahead.take() {
            Some(word) => Ok(Some(word)),
            None => self.lexer.word(),
        }
    }

    #[inline]
    fn need(&mut self, expected: &'static str) -> Read<Word<'a>> {
        match self.next()? {
            Some(word) => Ok(word),
            None => Err(Fault { at: self.lexer.at, len: 0, expected: expected.into() }),
        }
    }

    #[inline]
    fn field(&mut self, field: Field) -> Read<()> {
        match field {
            Field::Ip4 => address::ip4(self.need("an IPv4 address")?, self.out),
            Field::Ip6 => address::ip6(self.need("an IPv6 address")?, self.out),
            Field::Name => write_name(self.need("a name")?, self.origin, self.out),
            Field::U8 => self.number(u64::from(u8::MAX), 1, "a number from 0 to 255"),
            Field::U16 => self.number(u64::from(u16::MAX), 2, "a number from 0 to 65535"),
            Field::U32 => self.number(u64::from(u32::MAX), 4, "a number from 0 to 4294967295"),
            Field::Ttl => {
                let word = self.need("a time in seconds or with units, such as 1h30m")?;
                let seconds = number::ttl(word)?;
                self.out.extend_from_slice(&seconds.to_be_bytes());
                Ok(())
            }
            Field::Text => {
                let word = self.need("a character-string")?;
                character_string(word, self.out)
            }
            Field::Texts => {
                let first = self.need("a character-string")?;
                character_string(first, self.out)?;
                self.texts()
            }
            Field::OptionalTexts => self.texts(),
            Field::Octets => unescape(self.need("a value")?, self.out),
            Field::Hex => self.hex(),
            Field::Base64 => self.base64(true),
            Field::OptionalBase64 => self.base64(false),
            Field::Salt => binary::salt(self.need("a salt, or - for none")?, self.out),
            Field::HashedName => binary::hashed_name(self.need("a hash in base32hex")?, self.out),
            Field::Types => dnssec::types(self),
            Field::Type => dnssec::rtype(self.need("a record type")?, self.out),
            Field::Algorithm => dnssec::algorithm(self.need("an algorithm")?, self.out),
            Field::Certificate => dnssec::certificate(self.need("a certificate type")?, self.out),
            Field::Time => dnssec::time(self.need("a time as YYYYMMDDHHmmSS")?, self.out),
            Field::Eui48 => {
                address::eui(self.need("six octets such as 00-00-5e-00-53-2a")?, 6, self.out)
            }
            Field::Eui64 => address::eui(
                self.need("eight octets such as 00-00-5e-ef-10-00-00-2a")?,
                8,
                self.out,
            ),
            Field::Locator64 => {
                address::locator(self.need("four groups such as 2001:db8:0:1")?, self.out)
            }
            Field::Location => location::location(self),
            Field::Prefixes => address::prefixes(self),
            Field::ServiceParameters => service::parameters(self),
            Field::IpsecGateway => tunnel::ipsec(self),
            Field::Hip => tunnel::hip(self),
            Field::AmtRelay => tunnel::amt_relay(self),
            Field::Nsap => address::nsap(self.need("0x and hexadecimal digits")?, self.out),
            Field::CaaTag => self.caa_tag(),
        }
    }

    fn number(&mut self, max: u64, octets: usize, expected: &'static str) -> Read<()> {
        let value = number::decimal(self.need(expected)?, max, expected)?;
        self.out.extend_from_slice(&value.to_be_bytes()[8 - octets..]);
        Ok(())
    }

    fn texts(&mut self) -> Read<()> {
        while let Some(word) = self.next()? {
            character_string(word, self.out)?;
        }
        Ok(())
    }

    fn hex(&mut self) -> Read<()> {
        let first = self.need("hexadecimal digits")?;
        let mut digits = binary::HexDigits::default();
        digits.take(first, self.out)?;
        let mut last = first;
        while let Some(word) = self.next()? {
            digits.take(word, self.out)?;
            last = word;
        }
        if !digits.is_whole() {
            return Err(Fault::of(last, "an even number of hexadecimal digits"));
        }
        Ok(())
    }

    fn base64(&mut self, required: bool) -> Read<()> {
        let mut digits = binary::Base64Digits::default();
        let mut last = None;
        while let Some(word) = self.next()? {
            digits.take(word, self.out)?;
            last = Some(word);
        }
        match last {
            None if required => Err(Fault { at: self.lexer.at, len: 0, expected: "base64".into() }),
            Some(word) if !digits.is_whole() => {
                Err(Fault::of(word, "base64 that ends with a whole group"))
            }
            _ => Ok(()),
        }
    }

    fn caa_tag(&mut self) -> Read<()> {
        let word = self.need("a tag such as issue")?;
        if word.text.is_empty() || !word.text.iter().all(u8::is_ascii_alphanumeric) {
            //= RFC 8659, 4.1
            //# Tags MAY contain ASCII letters and numbers.
            return Err(Fault::of(word, "a tag of letters and digits"));
        }
        character_string(word, self.out)
    }
}

/// Appends `word` with its length before it.
fn character_string(word: Word<'_>, out: &mut Vec<u8>) -> Read<()> {
    let start = out.len();
    out.push(0);
    unescape(word, out)?;
    match u8::try_from(out.len() - start - 1) {
        Ok(len) => {
            out[start] = len;
            Ok(())
        }
        Err(_) => Err(Fault::of(word, "a character-string of at most 255 octets")),
    }
}
