//! Octets as hexadecimal digits, base64 (RFC 4648, 4) and base32hex (RFC 4648, 7).

use super::super::lexer::{Fault, Read, Word};

/// The value of a hexadecimal digit.
pub fn hex_digit(octet: u8) -> Option<u8> {
    char::from(octet).to_digit(16).map(|digit| digit as u8)
}

//----------- HexDigits ------------------------------------------------------

/// Hexadecimal digits that may be spread over several words.
#[derive(Default)]
pub struct HexDigits {
    half: Option<u8>,
}

impl HexDigits {
    /// Appends the octets of `word`.
    pub fn take(&mut self, word: Word<'_>, out: &mut Vec<u8>) -> Read<()> {
        for &octet in word.text {
            let digit = hex_digit(octet).ok_or_else(|| Fault::of(word, "hexadecimal digits"))?;
            match self.half.take() {
                None => self.half = Some(digit),
                Some(high) => out.push(high << 4 | digit),
            }
        }
        Ok(())
    }

    /// Whether no half octet is left over.
    pub fn is_whole(&self) -> bool {
        self.half.is_none()
    }
}

//----------- Base64Digits ---------------------------------------------------

/// base64 that may be spread over several words.
#[derive(Default)]
pub struct Base64Digits {
    bits: u32,
    digits: u8,
    padding: u8,
}

impl Base64Digits {
    /// Appends the octets of `word`.
    pub fn take(&mut self, word: Word<'_>, out: &mut Vec<u8>) -> Read<()> {
        for &octet in word.text {
            let value = match octet {
                b'A'..=b'Z' => octet - b'A',
                b'a'..=b'z' => octet - b'a' + 26,
                b'0'..=b'9' => octet - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                b'=' if self.digits >= 2 => {
                    self.padding += 1;
                    self.digits += 1;
                    if self.digits == 4 {
                        self.close(out);
                    }
                    continue;
                }
                _ => return Err(Fault::of(word, "base64")),
            };
            if self.padding > 0 {
                return Err(Fault::of(word, "nothing after the = that end base64"));
            }
            self.bits = self.bits << 6 | u32::from(value);
            self.digits += 1;
            if self.digits == 4 {
                self.close(out);
            }
        }
        Ok(())
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        let bits = self.bits << (6 * u32::from(self.padding));
        let octets = bits.to_be_bytes();
        out.extend_from_slice(&octets[1..4 - usize::from(self.padding)]);
        (self.bits, self.digits) = (0, 0);
    }

    /// Whether the last group is complete.
    pub fn is_whole(&self) -> bool {
        self.digits == 0
    }
}

//----------- NSEC3 ----------------------------------------------------------

/// `-`, or hexadecimal digits, with their length before them (RFC 5155, 3.3).
pub fn salt(word: Word<'_>, out: &mut Vec<u8>) -> Read<()> {
    let start = out.len();
    out.push(0);
    if word.text != b"-" {
        let mut digits = HexDigits::default();
        digits.take(word, out)?;
        if !digits.is_whole() || word.text.is_empty() {
            return Err(Fault::of(word, "an even number of hexadecimal digits, or -"));
        }
    }
    out[start] = u8::try_from(out.len() - start - 1)
        .map_err(|_| Fault::of(word, "a salt of at most 255 octets"))?;
    Ok(())
}

/// base32hex without padding, with its length before it (RFC 5155, 3.3).
pub fn hashed_name(word: Word<'_>, out: &mut Vec<u8>) -> Read<()> {
    let fault = || Fault::of(word, "a hash in base32hex without padding");
    let start = out.len();
    out.push(0);
    let (mut bits, mut count) = (0u32, 0);
    for &octet in word.text {
        let value = match octet {
            b'0'..=b'9' => octet - b'0',
            b'a'..=b'v' => octet - b'a' + 10,
            b'A'..=b'V' => octet - b'A' + 10,
            _ => return Err(fault()),
        };
        bits = bits << 5 | u32::from(value);
        count += 5;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    let len = out.len() - start - 1;
    if len == 0 || count >= 5 || bits & ((1 << count) - 1) != 0 {
        return Err(fault());
    }
    out[start] = u8::try_from(len).map_err(|_| fault())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str) -> Word<'_> {
        Word { text: text.as_bytes(), at: 0, quoted: false, escaped: false }
    }

    #[test]
    fn base64_in_pieces() {
        for (pieces, octets) in [
            (&["Zm9v"][..], &b"foo"[..]),
            (&["Zm", "9vYg=", "="], b"foob"),
            (&["Zm9vYmE="], b"fooba"),
        ] {
            let (mut digits, mut out) = (Base64Digits::default(), Vec::new());
            pieces.iter().for_each(|piece| digits.take(word(piece), &mut out).unwrap());
            assert!(digits.is_whole());
            assert_eq!(out, octets);
        }
        for text in ["Zm9", "Z===", "Zm=v", "Zg==Zg==", "*"] {
            let (mut digits, mut out) = (Base64Digits::default(), Vec::new());
            assert!(digits.take(word(text), &mut out).is_err() || !digits.is_whole(), "{text}");
        }
    }

    #[test]
    fn hashes_and_salts() {
        let mut out = Vec::new();
        // Five digits leave a bit over that must be zero.
        hashed_name(word("CPNMV"), &mut out).unwrap_err();
        out.clear();
        hashed_name(word("CPNMUOG0"), &mut out).unwrap();
        assert_eq!(out, b"\x05foob\0");
        out.clear();
        salt(word("-"), &mut out).unwrap();
        salt(word("aaBB"), &mut out).unwrap();
        assert_eq!(out, b"\0\x02\xAA\xBB");
    }
}
