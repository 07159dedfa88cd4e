//! Whether RDATA given as octets (`\#`) has the fields of its type.
//!
//! The rest of the server takes names and lengths inside RDATA on trust; this is where that trust
//! comes from for records that no field reader has seen.

use crate::wire::LowerName;
use crate::wire::message::expand_name;

use super::Field;

/// Whether `rdata` is made of `fields` and nothing more.
pub fn fits(fields: &[Field], mut rdata: &[u8]) -> bool {
    for &field in fields {
        match take(field, rdata) {
            Some(rest) => rdata = rest,
            None => return false,
        }
    }
    rdata.is_empty()
}

/// What follows `field` in `rdata`.
fn take(field: Field, rdata: &[u8]) -> Option<&[u8]> {
    let string = |rdata: &'_ [u8]| rdata.first().map(|&len| 1 + usize::from(len));
    let len = match field {
        Field::U8 | Field::Algorithm => 1,
        Field::U16 | Field::Type | Field::Certificate => 2,
        Field::Ip4 | Field::U32 | Field::Ttl | Field::Time => 4,
        Field::Eui48 => 6,
        Field::Eui64 | Field::Locator64 => 8,
        Field::Ip6 | Field::Location => 16,
        Field::Name => LowerName::new().read(rdata)?,
        Field::Text | Field::Salt | Field::HashedName | Field::CaaTag => string(rdata)?,
        Field::Texts | Field::OptionalTexts => {
            if rdata.is_empty() && field == Field::Texts {
                return None;
            }
            let mut at = 0;
            while at < rdata.len() {
                at += string(&rdata[at..])?;
            }
            at
        }
        Field::Hex | Field::Base64 | Field::Nsap if rdata.is_empty() => return None,
        Field::Types => windows(rdata)?,
        Field::ServiceParameters => parameters(rdata)?,
        Field::Hex
        | Field::Base64
        | Field::OptionalBase64
        | Field::Octets
        | Field::Nsap
        | Field::Prefixes
        | Field::IpsecGateway
        | Field::Hip
        | Field::AmtRelay => rdata.len(),
    };
    rdata.get(len..)
}

/// The length of whole bitmap windows in ascending order (RFC 4034, 4.1.2).
fn windows(rdata: &[u8]) -> Option<usize> {
    let (mut at, mut last) = (0, None);
    while at < rdata.len() {
        let header = rdata.get(at..at + 2)?;
        if !(1..=32).contains(&header[1]) || last.is_some_and(|last| header[0] <= last) {
            return None;
        }
        last = Some(header[0]);
        at += 2 + usize::from(header[1]);
    }
    (at == rdata.len()).then_some(at)
}

/// The length of whole service parameters in ascending order (RFC 9460, 2.2).
fn parameters(rdata: &[u8]) -> Option<usize> {
    let (mut at, mut last) = (0, None);
    while at < rdata.len() {
        let header = rdata.get(at..at + 4)?;
        let key = u16::from_be_bytes([header[0], header[1]]);
        if last.is_some_and(|last| key <= last) {
            return None;
        }
        last = Some(key);
        at += 4 + usize::from(u16::from_be_bytes([header[2], header[3]]));
    }
    (at == rdata.len()).then_some(at)
}

/// Appends the RDATA at `range` of a message, made of `fields`, with its names expanded. `false` if
/// it is not made of them.
pub fn expand(
    fields: &[Field],
    message: &[u8],
    range: std::ops::Range<usize>,
    out: &mut Vec<u8>,
) -> bool {
    let mut at = range.start;
    for &field in fields {
        if field == Field::Name {
            let Some(end) = expand_name(message, at, out) else { return false };
            if end > range.end {
                return false;
            }
            at = end;
            continue;
        }
        let Some(rdata) = message.get(at..range.end) else { return false };
        let Some(rest) = take(field, rdata) else { return false };
        out.extend_from_slice(&rdata[..rdata.len() - rest.len()]);
        at = range.end - rest.len();
    }
    at == range.end
}
