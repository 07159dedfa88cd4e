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
    let octets = parse_ip6(word.text).ok_or_else(|| Fault::of(word, "an IPv6 address"))?;
    out.extend_from_slice(&octets);
    Ok(())
}

/// As `Ipv6Addr::from_str`, which is left what ends with an IPv4 address, in a third of its time.
fn parse_ip6(text: &[u8]) -> Option<[u8; 16]> {
    let (mut groups, mut count, mut gap, mut at) = ([0u16; 8], 0, None, 0);
    if text.starts_with(b"::") {
        (gap, at) = (Some(0), 2);
    } else if text.is_empty() {
        return None;
    }
    while at < text.len() {
        let (mut value, start) = (0u16, at);
        while let Some(digit) = text.get(at).and_then(|&octet| hex_digit(octet)) {
            if at - start == 4 {
                return None;
            }
            value = value << 4 | u16::from(digit);
            at += 1;
        }
        if text.get(at) == Some(&b'.') {
            let address: Ipv6Addr = std::str::from_utf8(text).ok()?.parse().ok()?;
            return Some(address.octets());
        }
        if at == start || count == 8 {
            return None;
        }
        groups[count] = value;
        count += 1;
        match (text.get(at), text.get(at + 1)) {
            (None, _) => break,
            (Some(b':'), Some(b':')) if gap.is_none() => (gap, at) = (Some(count), at + 2),
            (Some(b':'), Some(_)) => at += 1,
            _ => return None,
        }
    }
    match gap {
        Some(gap) if count < 8 => {
            groups.copy_within(gap..count, 8 - (count - gap));
            groups[gap..8 - (count - gap)].fill(0);
        }
        None if count == 8 => {}
        _ => return None,
    }
    let mut octets = [0; 16];
    for (pair, group) in octets.chunks_exact_mut(2).zip(groups) {
        pair.copy_from_slice(&group.to_be_bytes());
    }
    Some(octets)
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

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_standard_library_reads_them() {
        let same = |text: &str| {
            let expected = text.parse::<Ipv6Addr>().ok().map(|address| address.octets());
            assert_eq!(parse_ip6(text.as_bytes()), expected, "{text}");
            let expected = text.parse::<Ipv4Addr>().ok().map(|address| address.octets());
            let zeros = text.split('.').any(|part| part.len() > 1 && part.starts_with('0'));
            if !zeros {
                assert_eq!(Ipv4Addr::parse_ascii_octets(text.as_bytes()), expected, "{text}");
            }
        };
        for text in ["", "::", ":", ":::", "1::", "::1", "1:2:3:4:5:6:7::", "::1.2.3.4", "1:"] {
            same(text);
        }
        for text in ["1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8::", "::2:3:4:5:6:7:8:9", "1::2::3"] {
            same(text);
        }
        // Every text of up to six of the characters that matter.
        let letters = ["0", "a", "F", ":", "::", ".", "1.2.3.4", "1:2:3:4:5", "12345", "g"];
        for number in 0..1_000_000usize {
            let (mut text, mut rest) = (String::new(), number);
            while rest > 0 {
                text += letters[rest % 10];
                rest /= 10;
            }
            same(&text);
        }
    }
}
