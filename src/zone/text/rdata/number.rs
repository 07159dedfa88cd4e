//! Numbers and times.

use crate::limits::TTL_MAX;

use super::super::lexer::{Fault, Read, Word};

/// A decimal number of at most `max`.
pub fn decimal(word: Word<'_>, max: u64, expected: &'static str) -> Read<u64> {
    let digits = !word.text.is_empty() && !word.quoted && word.text.iter().all(u8::is_ascii_digit);
    let value = word.text.iter().try_fold(0u64, |value, octet| {
        value.checked_mul(10)?.checked_add(u64::from(octet.wrapping_sub(b'0')))
    });
    match value {
        Some(value) if digits && value <= max => Ok(value),
        _ => Err(Fault::of(word, expected)),
    }
}

/// Seconds, or numbers with units: `1w2d3h4m5s`.
pub fn ttl(word: Word<'_>) -> Read<u32> {
    parse_ttl(word.text).filter(|_| !word.quoted).ok_or_else(|| {
        Fault::of(word, "a time of at most 2147483647 seconds, plain or as 1w2d3h4m5s")
    })
}

/// As [`ttl`], from plain octets.
#[inline]
pub fn parse_ttl(text: &[u8]) -> Option<u32> {
    if !text.first()?.is_ascii_digit() {
        return None;
    }
    let (mut total, mut value, mut pending) = (0u64, 0u64, false);
    for &octet in text {
        let unit = match octet {
            b'0'..=b'9' => {
                value = value.checked_mul(10)?.checked_add(u64::from(octet - b'0'))?;
                pending = true;
                continue;
            }
            b's' | b'S' => 1,
            b'm' | b'M' => 60,
            b'h' | b'H' => 3600,
            b'd' | b'D' => 86400,
            b'w' | b'W' => 604_800,
            _ => return None,
        };
        if !pending {
            return None;
        }
        total = total.checked_add(value.checked_mul(unit)?)?;
        (value, pending) = (0, false);
    }
    let seconds = u32::try_from(total.checked_add(value)?).ok()?;
    (seconds <= TTL_MAX).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, seconds) in [
            ("0", Some(0)),
            ("3600", Some(3600)),
            ("1h30m", Some(5400)),
            ("1W2d3H4m5s", Some(788_645)),
            ("1h5", Some(3605)),
            ("2147483647", Some(TTL_MAX)),
            ("2147483648", None),
            ("h", None),
            ("1hh", None),
            ("", None),
            ("-1", None),
        ] {
            assert_eq!(parse_ttl(text.as_bytes()), seconds, "{text}");
        }
    }
}
