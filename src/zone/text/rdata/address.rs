//! Addresses of all kinds: IPv4, IPv6, EUI, ILNP locators, NSAP, address prefixes.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::lexer::{Fault, Read, Word};
use super::Rdata;
use super::binary::hex_digit;

/// Dotted decimal.
#[inline]
pub fn ip4(word: Word<'_>, out: &mut Vec<u8>) -> Read<()> {
    match Ipv4Addr::parse_ascii_octets(word.text) {
        Some(octets) => {
            out.extend_from_slice(&octets);
            Ok(())
        }
        None => Err(Fault::of(word, "an IPv4 address")),
    }
}

trait ParseOctets {
    fn parse_ascii_octets(text: &[u8]) -> Option<[u8; 4]>;
}

impl ParseOctets for Ipv4Addr {
    /// As `FromStr`, a third of its time: half of all records of most zones come through here.
    #[inline]
    fn parse_ascii_octets(text: &[u8]) -> Option<[u8; 4]> {
        let mut octets = [0; 4];
        let (mut part, mut value, mut digits) = (0, 0u16, 0);
        for &octet in text {
            if octet == b'.' {
                if digits == 0 || part == 3 {
                    return None;
                }
                octets[part] = u8::try_from(value).ok()?;
                (part, value, digits) = (part + 1, 0, 0);
            } else {
                let digit = octet.wrapping_sub(b'0');
                if digit > 9 || digits == 3 {
                    return None;
                }
                value = value * 10 + u16::from(digit);
                digits += 1;
            }
        }
        if digits == 0 || part != 3 {
            return None;
        }
        octets[3] = u8::try_from(value).ok()?;
        Some(octets)
    }
}

/// RFC 4291, 2.2.
pub fn ip6(word: Word<'_>, out: &mut Vec<u8>) -> Read<()> {
    let address: Option<Ipv6Addr> =
        std::str::from_utf8(word.text).ok().and_then(|text| text.parse().ok());
    match address {
        Some(address) => {
            out.extend_from_slice(&address.octets());
            Ok(())
        }
        None => Err(Fault::of(word, "an IPv6 address")),
    }
}

/// `count` octets of two digits with hyphens between them (RFC 7043, 3.2).
pub fn eui(word: Word<'_>, count: usize, out: &mut Vec<u8>) -> Read<()> {
    let fault = || Fault::of(word, format!("{count} octets such as 00-5e with hyphens between"));
    let groups: Vec<&[u8]> = word.text.split(|&octet| octet == b'-').collect();
    if groups.len() != count {
        return Err(fault());
    }
    for group in groups {
        let [high, low] = group else { return Err(fault()) };
        let digits = hex_digit(*high).zip(hex_digit(*low)).ok_or_else(fault)?;
        out.push(digits.0 << 4 | digits.1);
    }
    Ok(())
}

/// Four groups of up to four digits with colons between them (RFC 6742, 2.1.2).
pub fn locator(word: Word<'_>, out: &mut Vec<u8>) -> Read<()> {
    let fault = || Fault::of(word, "four groups such as 2001:db8:0:1");
    let groups: Vec<&[u8]> = word.text.split(|&octet| octet == b':').collect();
    if groups.len() != 4 {
        return Err(fault());
    }
    for group in groups {
        if group.is_empty() || group.len() > 4 {
            return Err(fault());
        }
        let value = group
            .iter()
            .try_fold(0u16, |value, &octet| Some(value << 4 | u16::from(hex_digit(octet)?)));
        out.extend_from_slice(&value.ok_or_else(fault)?.to_be_bytes());
    }
    Ok(())
}

/// `0x` and digits, dots between them ignored (RFC 1706, 5).
pub fn nsap(word: Word<'_>, out: &mut Vec<u8>) -> Read<()> {
    let fault = || Fault::of(word, "0x and an even number of hexadecimal digits");
    let digits = match word.text {
        [b'0', b'x' | b'X', digits @ ..] => digits,
        _ => return Err(fault()),
    };
    let digits: Option<Vec<u8>> =
        digits.iter().filter(|&&octet| octet != b'.').map(|&octet| hex_digit(octet)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0 && !digits.is_empty());
    for pair in digits.ok_or_else(fault)?.chunks_exact(2) {
        out.push(pair[0] << 4 | pair[1]);
    }
    Ok(())
}

/// `[!]family:address/prefix` (RFC 3123, 5), none or more.
pub(super) fn prefixes(rdata: &mut Rdata<'_, '_>) -> Read<()> {
    while let Some(word) = rdata.next()? {
        prefix(word, rdata.out)
            .ok_or_else(|| Fault::of(word, "an address prefix such as 1:192.0.2.0/24"))?;
    }
    Ok(())
}

fn prefix(word: Word<'_>, out: &mut Vec<u8>) -> Option<()> {
    let text = std::str::from_utf8(word.text).ok()?;
    let (negated, text) = match text.strip_prefix('!') {
        Some(rest) => (0x80, rest),
        None => (0, text),
    };
    let (family, text) = text.split_once(':')?;
    let (address, length) = text.split_once('/')?;
    let length: u8 = length.parse().ok()?;
    let (family, octets, length_max) = match family {
        "1" => (1u16, address.parse::<Ipv4Addr>().ok()?.octets().to_vec(), 32),
        "2" => (2, address.parse::<Ipv6Addr>().ok()?.octets().to_vec(), 128),
        _ => return None,
    };
    if length > length_max {
        return None;
    }
    //= RFC 3123, 4
    //# trailing zero octets of AFDPART ... MUST be removed
    let kept = octets.iter().rposition(|&octet| octet != 0).map_or(0, |last| last + 1);
    out.extend_from_slice(&family.to_be_bytes());
    out.push(length);
    out.push(negated | kept as u8);
    out.extend_from_slice(&octets[..kept]);
    Some(())
}
