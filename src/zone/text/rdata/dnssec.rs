//! Fields of DNSSEC records: types and their bitmaps, algorithms, times.

use crate::wire::rtype as types_of;

use super::super::lexer::{Fault, Read, Word};
use super::Rdata;
use super::number::decimal;

/// A type by mnemonic.
pub fn rtype(word: Word<'_>, out: &mut Vec<u8>) -> Read<()> {
    let rtype = types_of::parse(word.text).ok_or_else(|| Fault::of(word, "a record type"))?;
    out.extend_from_slice(&rtype.to_be_bytes());
    Ok(())
}

/// The rest of the record as types, written as windows of bitmaps (RFC 4034, 4.1.2).
pub(super) fn types(rdata: &mut Rdata<'_, '_>) -> Read<()> {
    let mut types = Vec::new();
    while let Some(word) = rdata.next()? {
        types.push(types_of::parse(word.text).ok_or_else(|| Fault::of(word, "a record type"))?);
    }
    types.sort_unstable();
    for window in types.chunk_by(|a, b| a >> 8 == b >> 8) {
        let mut bitmap = [0u8; 32];
        for &rtype in window {
            let bit = usize::from(rtype & 0xFF);
            bitmap[bit / 8] |= 0x80 >> (bit % 8);
        }
        let len = usize::from(window[window.len() - 1] & 0xFF) / 8 + 1;
        rdata.out.extend_from_slice(&[(window[0] >> 8) as u8, len as u8]);
        rdata.out.extend_from_slice(&bitmap[..len]);
    }
    Ok(())
}

fn mnemonic_or_number(
    word: Word<'_>,
    mnemonics: &[(&str, u16)],
    max: u16,
    expected: &'static str,
) -> Read<u16> {
    match mnemonics.iter().find(|(name, _)| word.is(name)) {
        Some((_, number)) => Ok(*number),
        None => decimal(word, u64::from(max), expected).map(|number| number as u16),
    }
}

/// A DNSSEC algorithm by number or mnemonic (RFC 4034, A.1, and the IANA registry).
pub fn algorithm(word: Word<'_>, out: &mut Vec<u8>) -> Read<()> {
    const MNEMONICS: &[(&str, u16)] = &[
        ("RSAMD5", 1),
        ("DH", 2),
        ("DSA", 3),
        ("RSASHA1", 5),
        ("DSA-NSEC3-SHA1", 6),
        ("NSEC3DSA", 6),
        ("RSASHA1-NSEC3-SHA1", 7),
        ("NSEC3RSASHA1", 7),
        ("RSASHA256", 8),
        ("RSASHA512", 10),
        ("ECC-GOST", 12),
        ("ECCGOST", 12),
        ("ECDSAP256SHA256", 13),
        ("ECDSAP384SHA384", 14),
        ("ED25519", 15),
        ("ED448", 16),
        ("INDIRECT", 252),
        ("PRIVATEDNS", 253),
        ("PRIVATEOID", 254),
    ];
    out.push(mnemonic_or_number(word, MNEMONICS, 255, "an algorithm: a number or a name")? as u8);
    Ok(())
}

/// A certificate type by number or mnemonic (RFC 4398, 2.1).
pub fn certificate(word: Word<'_>, out: &mut Vec<u8>) -> Read<()> {
    const MNEMONICS: &[(&str, u16)] = &[
        ("PKIX", 1),
        ("SPKI", 2),
        ("PGP", 3),
        ("IPKIX", 4),
        ("ISPKI", 5),
        ("IPGP", 6),
        ("ACPKIX", 7),
        ("IACPKIX", 8),
        ("URI", 253),
        ("OID", 254),
    ];
    let kind =
        mnemonic_or_number(word, MNEMONICS, u16::MAX, "a certificate type: a number or a name")?;
    out.extend_from_slice(&kind.to_be_bytes());
    Ok(())
}

/// `YYYYMMDDHHmmSS` in UTC, or seconds since 1970 (RFC 4034, 3.2), modulo 2^32.
pub fn time(word: Word<'_>, out: &mut Vec<u8>) -> Read<()> {
    const EXPECTED: &str = "a time as YYYYMMDDHHmmSS or in seconds since 1970";
    let value = decimal(word, u64::MAX, EXPECTED)?;
    let seconds = if word.text.len() == 14 {
        seconds_of(value).ok_or_else(|| Fault::of(word, EXPECTED))?
    } else {
        u32::try_from(value).map_err(|_| Fault::of(word, EXPECTED))?
    };
    out.extend_from_slice(&seconds.to_be_bytes());
    Ok(())
}

fn seconds_of(digits: u64) -> Option<u32> {
    let (date, clock) = (digits / 1_000_000, digits % 1_000_000);
    let (year, month, day) = (date / 10_000, date / 100 % 100, date % 100);
    let (hour, minute, second) = (clock / 10_000, clock / 100 % 100, clock % 100);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let month_days = [31, 28 + u64::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let days_in_month = *month_days.get(month.checked_sub(1)? as usize)?;
    if year < 1970 || !(1..=days_in_month).contains(&day) || hour > 23 || minute > 59 || second > 60
    {
        return None;
    }
    let before = year - 1;
    let leap_days =
        (before / 4 - before / 100 + before / 400) - (1969 / 4 - 1969 / 100 + 1969 / 400);
    let days = (year - 1970) * 365
        + leap_days
        + month_days[..month as usize - 1].iter().sum::<u64>()
        + day
        - 1;
    Some((days * 86_400 + hour * 3600 + minute * 60 + second) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, seconds) in [
            ("19700101000000", Some(0)),
            ("20040509183619", Some(1_084_127_779)),
            ("20240229235959", Some(1_709_251_199)),
            ("20230229000000", None),
            ("20231301000000", None),
            ("1084127779", Some(1_084_127_779)),
            ("99999999999", None),
        ] {
            let word = Word { text: text.as_bytes(), at: 0, quoted: false, escaped: false };
            let mut out = Vec::new();
            let read = time(word, &mut out).ok();
            assert_eq!(
                read.map(|()| out),
                seconds.map(|s: u32| s.to_be_bytes().to_vec()),
                "{text}"
            );
        }
    }
}
