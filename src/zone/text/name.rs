//! Names in zone text: relative to the origin unless they end with a dot, `@` for the origin.

use crate::limits::{LABEL_LEN_MAX, NAME_LEN_MAX};

use super::lexer::{Fault, Read, Word, escape};

/// Appends the wire form of `word` to `out`; a name without a final dot gets `origin` after it.
#[inline]
pub fn write_name(word: Word<'_>, origin: &[u8], out: &mut Vec<u8>) -> Read<()> {
    let start = out.len();
    match word.text {
        b"@" if !word.quoted => out.extend_from_slice(origin),
        b"." => out.push(0),
        b"" => return Err(Fault::of(word, "a name (the root is written \".\")")),
        text if word.escaped => write_escaped(word, text, origin, out)?,
        text => write_plain(word, text, origin, out)?,
    }
    if out.len() - start > NAME_LEN_MAX {
        out.truncate(start);
        return Err(Fault::of(word, "a name of at most 255 octets"));
    }
    Ok(())
}

/// No escapes: every dot ends a label.
#[inline]
fn write_plain(word: Word<'_>, text: &[u8], origin: &[u8], out: &mut Vec<u8>) -> Read<()> {
    out.push(0);
    let start = out.len() - 1;
    let mut label_at = start;
    out.extend_from_slice(text);
    for (i, &octet) in text.iter().enumerate() {
        if octet == b'.' {
            let here = start + 1 + i;
            close(word, out, label_at, here)?;
            label_at = here;
        }
    }
    if label_at + 1 == out.len() {
        // The text ended with a dot, whose octet is now the root's.
        out[label_at] = 0;
        return Ok(());
    }
    let end = out.len();
    close(word, out, label_at, end)?;
    out.extend_from_slice(origin);
    Ok(())
}

#[inline]
fn close(word: Word<'_>, out: &mut [u8], label_at: usize, end: usize) -> Read<()> {
    match end - label_at - 1 {
        0 => Err(Fault::of(word, "a label between two dots")),
        len if len > LABEL_LEN_MAX => Err(Fault::of(word, "labels of at most 63 octets")),
        len => {
            out[label_at] = len as u8;
            Ok(())
        }
    }
}

fn write_escaped(word: Word<'_>, text: &[u8], origin: &[u8], out: &mut Vec<u8>) -> Read<()> {
    let mut label_at = out.len();
    out.push(0);
    let mut rest = text;
    while let Some((&octet, after)) = rest.split_first() {
        rest = after;
        match octet {
            b'.' => {
                let end = out.len();
                close(word, out, label_at, end)?;
                label_at = end;
                out.push(0);
            }
            b'\\' => {
                let (octet, after) = escape(after).ok_or_else(|| {
                    Fault::of(word, "\\ followed by a character or by three digits up to 255")
                })?;
                out.push(octet);
                rest = after;
            }
            octet => out.push(octet),
        }
    }
    let end = out.len();
    if label_at + 1 < end {
        close(word, out, label_at, end)?;
        out.extend_from_slice(origin);
    }
    Ok(())
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Result<Vec<u8>, String> {
        let word =
            Word { text: text.as_bytes(), at: 0, quoted: false, escaped: text.contains('\\') };
        let mut out = b"before".to_vec();
        write_name(word, b"\x03org\0", &mut out).map_err(|fault| fault.expected.to_string())?;
        Ok(out.split_off(6))
    }

    #[test]
    fn names() {
        for (text, wire) in [
            ("@", &b"\x03org\0"[..]),
            (".", b"\0"),
            ("a", b"\x01a\x03org\0"),
            ("a.bc.", b"\x01a\x02bc\0"),
            ("a.bc", b"\x01a\x02bc\x03org\0"),
            ("a\\.b.", b"\x03a.b\0"),
            ("a\\046b.c", b"\x03a.b\x01c\x03org\0"),
            ("\\@", b"\x01@\x03org\0"),
        ] {
            assert_eq!(name(text).as_deref(), Ok(wire), "{text}");
        }
        for text in ["", "a..b", ".a", "a\\..b\\256", "a..", &"x".repeat(64), &"a.".repeat(128)] {
            assert!(name(text).is_err(), "{text}");
        }
        assert!(name(&"a.".repeat(127)).is_ok());
    }
}
