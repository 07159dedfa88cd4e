//! RDATA in its presentation form: the other way round.
//!
//! What has no simple form, or is not in the one that reading would give (bitmaps with zeros behind
//! them, say), is written as `\# length hex` (RFC 3597, 5): whatever is written is read back as it
//! was.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use data_encoding::{BASE32HEX_NOPAD, BASE64, HEXUPPER};

use crate::wire::{LowerName, Name, rtype};

use super::{Field, fields};

/// The presentation form of RDATA; names in it are absolute.
pub fn write_rdata(rtype: u16, rdata: &[u8]) -> String {
    let known = fields(rtype).and_then(|fields| {
        let mut words = Vec::new();
        let mut rest = rdata;
        for &field in fields {
            rest = write(field, rest, &mut words)?;
        }
        (rest.is_empty() && !words.is_empty()).then(|| words.join(" "))
    });
    known.unwrap_or_else(|| match rdata.len() {
        0 => "\\# 0".into(),
        len => format!("\\# {len} {}", HEXUPPER.encode(rdata)),
    })
}

/// Writes `field`, the first of `rdata`; returns the rest. `None` if there is no simple form.
fn write<'r>(field: Field, rdata: &'r [u8], words: &mut Vec<String>) -> Option<&'r [u8]> {
    let number = |len: usize| -> Option<u64> {
        let octets = rdata.get(..len)?;
        Some(octets.iter().fold(0, |number, &octet| number << 8 | u64::from(octet)))
    };
    let mut decimal = |len: usize| {
        words.push(number(len)?.to_string());
        rdata.get(len..)
    };
    match field {
        Field::U8 | Field::Algorithm => decimal(1),
        Field::U16 | Field::Certificate => decimal(2),
        Field::U32 | Field::Ttl => decimal(4),
        Field::Time => {
            words.push(time(number(4)? as u32));
            rdata.get(4..)
        }
        Field::Type => {
            words.push(rtype::name(number(2)? as u16));
            rdata.get(2..)
        }
        Field::Ip4 => {
            words.push(Ipv4Addr::from(*rdata.first_chunk::<4>()?).to_string());
            rdata.get(4..)
        }
        Field::Ip6 => {
            words.push(Ipv6Addr::from(*rdata.first_chunk::<16>()?).to_string());
            rdata.get(16..)
        }
        Field::Name => {
            let len = LowerName::new().read(rdata)?;
            words.push(Name::from_wire(&rdata[..len]).ok()?.to_string());
            rdata.get(len..)
        }
        _ => write_counted(field, rdata, words),
    }
}

/// As [`write`], for fields that say how long they are, or go on to the end.
fn write_counted<'r>(field: Field, rdata: &'r [u8], words: &mut Vec<String>) -> Option<&'r [u8]> {
    match field {
        Field::Text => text(rdata, words),
        Field::CaaTag => {
            let (tag, rest) = counted(rdata)?;
            let is_plain = !tag.is_empty() && tag.iter().all(u8::is_ascii_alphanumeric);
            words.push(std::str::from_utf8(tag).ok().filter(|_| is_plain)?.into());
            Some(rest)
        }
        Field::Texts | Field::OptionalTexts => {
            let mut rest = rdata;
            while !rest.is_empty() {
                rest = text(rest, words)?;
            }
            (field == Field::OptionalTexts || !rdata.is_empty()).then_some(rest)
        }
        Field::Octets => {
            words.push(quoted(rdata));
            Some(&[])
        }
        Field::Hex if !rdata.is_empty() => {
            words.push(HEXUPPER.encode(rdata));
            Some(&[])
        }
        Field::Base64 | Field::OptionalBase64 => {
            if rdata.is_empty() {
                return (field == Field::OptionalBase64).then_some(rdata);
            }
            words.push(BASE64.encode(rdata));
            Some(&[])
        }
        Field::Salt => {
            let (salt, rest) = counted(rdata)?;
            words.push(if salt.is_empty() { "-".into() } else { HEXUPPER.encode(salt) });
            Some(rest)
        }
        Field::HashedName => {
            let (hash, rest) = counted(rdata).filter(|(hash, _)| !hash.is_empty())?;
            words.push(BASE32HEX_NOPAD.encode(hash));
            Some(rest)
        }
        Field::Types => types(rdata, words),
        Field::Eui48 => pieces(rdata, 6, 1, "-", words),
        Field::Eui64 => pieces(rdata, 8, 1, "-", words),
        Field::Locator64 => pieces(rdata, 8, 2, ":", words),
        Field::ServiceParameters => parameters(rdata, words),
        _ => None,
    }
}

/// Octets behind their length.
fn counted(rdata: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&len, rest) = rdata.split_first()?;
    rest.split_at_checked(usize::from(len))
}

fn text<'r>(rdata: &'r [u8], words: &mut Vec<String>) -> Option<&'r [u8]> {
    let (octets, rest) = counted(rdata)?;
    words.push(quoted(octets));
    Some(rest)
}

fn quoted(octets: &[u8]) -> String {
    let mut text = String::from("\"");
    for &octet in octets {
        match octet {
            b'"' | b'\\' => {
                text.push('\\');
                text.push(char::from(octet));
            }
            0x20..=0x7E => text.push(char::from(octet)),
            _ => write!(text, "\\{octet:03}").expect("a string takes everything"),
        }
    }
    text.push('"');
    text
}

/// Hexadecimal octets, so many in a piece.
fn pieces<'r>(
    rdata: &'r [u8],
    len: usize,
    piece: usize,
    between: &str,
    words: &mut Vec<String>,
) -> Option<&'r [u8]> {
    let octets = rdata.get(..len)?;
    let pieces = octets.chunks(piece).map(|piece| HEXUPPER.encode(piece).to_lowercase());
    words.push(pieces.collect::<Vec<_>>().join(between));
    rdata.get(len..)
}

/// The types of bitmaps; `None` if reading them would give other octets.
fn types<'r>(rdata: &'r [u8], words: &mut Vec<String>) -> Option<&'r [u8]> {
    let mut rest = rdata;
    let mut last = None;
    while let Some((&[window, len], bits)) = rest.split_first_chunk::<2>() {
        let (bits, after) = bits.split_at_checked(usize::from(len))?;
        if bits.last().is_none_or(|&octet| octet == 0) || last.is_some_and(|last| window <= last) {
            return None;
        }
        for (i, octet) in bits.iter().enumerate() {
            for bit in (0..8).filter(|bit| octet & (0x80 >> bit) != 0) {
                words.push(rtype::name(u16::from(window) << 8 | (i * 8 + bit) as u16));
            }
        }
        (rest, last) = (after, Some(window));
    }
    Some(rest)
}

/// Seconds since 1970 as YYYYMMDDHHmmSS (RFC 4034, 3.2).
fn time(seconds: u32) -> String {
    let (days, of_day) = (seconds / 86400, seconds % 86400);
    // Days since 1 March of the year 0, in eras of 400 years.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u32::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}")
}

/// The parameters of SVCB and HTTPS; `None` if one has no simple form.
fn parameters<'r>(rdata: &'r [u8], words: &mut Vec<String>) -> Option<&'r [u8]> {
    let mut rest = rdata;
    while let Some((head, after)) = rest.split_first_chunk::<4>() {
        let key = u16::from_be_bytes([head[0], head[1]]);
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let (value, after) = after.split_at_checked(len)?;
        words.push(parameter(key, value)?);
        rest = after;
    }
    Some(rest)
}

fn parameter(key: u16, value: &[u8]) -> Option<String> {
    let halves = || value.chunks_exact(2).map(|half| u16::from_be_bytes([half[0], half[1]]));
    let whole = |size: usize| !value.is_empty() && value.len().is_multiple_of(size);
    let list = |name: &str, items: Vec<String>| Some(format!("{name}={}", items.join(",")));
    match key {
        0 if whole(2) => list("mandatory", halves().map(|key| format!("key{key}")).collect()),
        1 => {
            let (mut ids, mut rest) = (Vec::new(), value);
            while !rest.is_empty() {
                let (id, after) = counted(rest)?;
                let is_plain = |octet: &u8| octet.is_ascii_alphanumeric() || b"-./".contains(octet);
                if id.is_empty() || !id.iter().all(is_plain) {
                    return None;
                }
                ids.push(String::from_utf8_lossy(id).into_owned());
                rest = after;
            }
            if ids.is_empty() { None } else { list("alpn", ids) }
        }
        2 if value.is_empty() => Some("no-default-alpn".into()),
        3 if value.len() == 2 => list("port", halves().map(|port| port.to_string()).collect()),
        4 if whole(4) => {
            let address = |octets: &[u8]| Some(Ipv4Addr::from(*octets.first_chunk::<4>()?));
            let all: Option<Vec<_>> = value.chunks(4).map(address).collect();
            list("ipv4hint", all?.iter().map(ToString::to_string).collect())
        }
        6 if whole(16) => {
            let address = |octets: &[u8]| Some(Ipv6Addr::from(*octets.first_chunk::<16>()?));
            let all: Option<Vec<_>> = value.chunks(16).map(address).collect();
            list("ipv6hint", all?.iter().map(ToString::to_string).collect())
        }
        5 if !value.is_empty() => Some(format!("ech={}", BASE64.encode(value))),
        8 if value.is_empty() => Some("ohttp".into()),
        0..=8 => None,
        _ if value.is_empty() => Some(format!("key{key}")),
        _ => Some(format!("key{key}={}", quoted(value))),
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_all_kinds_of_years() {
        for (seconds, expected) in [
            (0, "19700101000000"),
            (951_782_400, "20000229000000"),
            (1_709_164_799, "20240228235959"),
            (1_709_164_800, "20240229000000"),
            (4_102_444_800, "21000101000000"),
            (u32::MAX, "21060207062815"),
        ] {
            assert_eq!(time(seconds), expected);
        }
    }

    #[test]
    fn what_would_be_read_otherwise_is_written_as_octets() {
        assert_eq!(write_rdata(rtype::NSEC, b"\0\0\x01\x40"), ". A");
        assert_eq!(write_rdata(rtype::NSEC, b"\0\0\x02\x40\0"), "\\# 5 0000024000");
        assert_eq!(write_rdata(rtype::A, b"\x01"), "\\# 1 01");
        assert_eq!(write_rdata(65280, b""), "\\# 0");
        assert_eq!(write_rdata(rtype::TXT, b"\x03a\"\x07\0"), "\"a\\\"\\007\" \"\"");
        assert_eq!(write_rdata(rtype::HTTPS, b"\0\x01\0\0\x01\0\x03\x02h2"), "1 . alpn=h2");
    }
}
