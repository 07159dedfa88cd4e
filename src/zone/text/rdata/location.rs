//! LOC: degrees, metres and exponents (RFC 1876, 3).

use super::super::lexer::{Fault, Read, Word};
use super::Rdata;

/// The middle of both coordinates' range (RFC 1876, 2).
const EQUATOR: i64 = 1 << 31;
/// Centimetres from the reference level of altitudes up to the geoid.
const ALTITUDE_BASE: i64 = 10_000_000;

/// `d1 [m1 [s1]] N|S d2 [m2 [s2]] E|W alt[m] [siz[m] [hp[m] [vp[m]]]]`.
pub(super) fn location(rdata: &mut Rdata<'_, '_>) -> Read<()> {
    let latitude = angle(rdata, 90, b'N', b'S')?;
    let longitude = angle(rdata, 180, b'E', b'W')?;
    let word = rdata.need("an altitude in metres")?;
    let altitude = centimetres(word)
        .and_then(|altitude| u32::try_from(altitude + ALTITUDE_BASE).ok())
        .ok_or_else(|| Fault::of(word, "an altitude from -100000.00m to 42849672.95m"))?;
    // Size 1 m, horizontal precision 10 km, vertical precision 10 m.
    let mut sizes = [0x12, 0x16, 0x13];
    for size in &mut sizes {
        let Some(word) = rdata.next()? else { break };
        *size = centimetres(word)
            .and_then(power_of_ten)
            .ok_or_else(|| Fault::of(word, "a distance from 0m to 90000000.00m"))?;
    }
    rdata.out.push(0);
    rdata.out.extend_from_slice(&sizes);
    rdata.out.extend_from_slice(&latitude.to_be_bytes());
    rdata.out.extend_from_slice(&longitude.to_be_bytes());
    rdata.out.extend_from_slice(&altitude.to_be_bytes());
    Ok(())
}

fn angle(rdata: &mut Rdata<'_, '_>, degrees_max: i64, plus: u8, minus: u8) -> Read<u32> {
    let mut milliseconds = 0;
    let mut unit = 3_600_000;
    loop {
        let word = rdata.need("degrees, minutes, seconds and a direction")?;
        if let [letter] = word.text
            && letter.is_ascii_alphabetic()
        {
            let sign = match letter.to_ascii_uppercase() {
                letter if letter == plus => 1,
                letter if letter == minus => -1,
                _ => return Err(Fault::of(word, "a direction: N or S, then E or W")),
            };
            if unit == 3_600_000 || milliseconds > degrees_max * 3_600_000 {
                return Err(Fault::of(word, "degrees of at most 90 N or S, 180 E or W"));
            }
            return Ok((EQUATOR + sign * milliseconds) as u32);
        }
        let fault = || Fault::of(word, "degrees, minutes below 60, seconds below 60.000");
        let thousandths = decimal(word.text, 3).ok_or_else(fault)?;
        let whole = thousandths % 1000 == 0;
        match unit {
            3_600_000 if whole => milliseconds += thousandths / 1000 * unit,
            60_000 if whole && thousandths < 60_000 => milliseconds += thousandths / 1000 * unit,
            1000 if thousandths < 60_000 => milliseconds += thousandths,
            _ => return Err(fault()),
        }
        unit = match unit {
            3_600_000 => 60_000,
            60_000 => 1000,
            _ => 0,
        };
    }
}

/// Metres with at most two decimals, `m` after them or not.
fn centimetres(word: Word<'_>) -> Option<i64> {
    let text = word.text.strip_suffix(b"m").or(word.text.strip_suffix(b"M")).unwrap_or(word.text);
    match text.strip_prefix(b"-") {
        Some(text) => decimal(text, 2).map(|value| -value),
        None => decimal(text, 2),
    }
}

/// A number with at most `places` decimals, in units of the last.
fn decimal(text: &[u8], places: u32) -> Option<i64> {
    let mut parts = text.splitn(2, |&octet| octet == b'.');
    let (whole, fraction) = (parts.next()?, parts.next().unwrap_or(b""));
    let digits = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    if whole.is_empty() || whole.len() > 10 || !digits(whole) || !digits(fraction) {
        return None;
    }
    if fraction.len() > places as usize {
        return None;
    }
    let value =
        |part: &[u8]| part.iter().fold(0, |value, octet| value * 10 + i64::from(octet - b'0'));
    let scale = 10i64.pow(places - fraction.len() as u32);
    Some(value(whole) * 10i64.pow(places) + value(fraction) * scale)
}

/// Four bits of mantissa, four of a power of ten (RFC 1876, 2).
fn power_of_ten(mut value: i64) -> Option<u8> {
    let mut exponent = 0;
    while value > 9 {
        value /= 10;
        exponent += 1;
    }
    (value >= 0 && exponent <= 9).then_some((value as u8) << 4 | exponent)
}
