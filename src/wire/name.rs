//! Domain names in wire form (RFC 1035, 3.1), off the hot path.
//!
//! ```text
//!   3 'w' 'w' 'w'  7 'e' 'x' 'a' 'm' 'p' 'l' 'e'  3 'o' 'r' 'g'  0
//! ```
//!
//! Letters compare without case (RFC 4343). Length octets are at most 63 and so never fall into
//! the range of the letters: a whole wire name may be lower-cased octet by octet.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use crate::limits::{LABEL_LEN_MAX, NAME_LEN_MAX};

//----------- NameError ------------------------------------------------------

/// Why octets or text are not a domain name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// Nothing at all; the root is written `.`.
    Empty,
    /// Two dots without a label between them, or a dot at the start.
    EmptyLabel,
    /// A label of more than 63 octets.
    LabelTooLong,
    /// A name of more than 255 octets.
    NameTooLong,
    /// A backslash not followed by a character or by three digits up to 255.
    BadEscape,
    /// Wire form that ends early, goes on after the root, or has a label type other than 00.
    BadWire,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NameError::Empty => "a name, where nothing was given (the root is written \".\")",
            NameError::EmptyLabel => "a label between two dots",
            NameError::LabelTooLong => "labels of at most 63 octets",
            NameError::NameTooLong => "a name of at most 255 octets",
            NameError::BadEscape => "\\ followed by a character or by three digits up to 255",
            NameError::BadWire => "a complete name in wire form",
        })
    }
}

impl std::error::Error for NameError {}

//----------- Name -----------------------------------------------------------

/// An owned, absolute name in uncompressed wire form. Keeps its letter case; compares without it.
/// Clones share the octets: a zone's name is in half a dozen places.
#[derive(Clone)]
pub struct Name {
    wire: Arc<[u8]>,
}

impl Name {
    /// The root.
    pub fn root() -> Name {
        Name { wire: Arc::new([0]) }
    }

    /// Takes exactly one uncompressed name in wire form.
    pub fn from_wire(wire: &[u8]) -> Result<Name, NameError> {
        let mut at = 0;
        loop {
            match wire.get(at) {
                Some(0) if at + 1 == wire.len() => break,
                Some(&len) if (1..=LABEL_LEN_MAX as u8).contains(&len) => at += 1 + len as usize,
                _ => return Err(NameError::BadWire),
            }
        }
        if wire.len() > NAME_LEN_MAX {
            return Err(NameError::NameTooLong);
        }
        Ok(Name { wire: wire.into() })
    }

    /// The wire form, the root's zero octet included.
    pub fn as_wire(&self) -> &[u8] {
        &self.wire
    }

    /// Labels, the root not counted.
    pub fn label_count(&self) -> usize {
        self.labels().count()
    }

    /// The labels from the leftmost to the top, without their length octets.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.wire[..];
        std::iter::from_fn(move || {
            let len = rest[0] as usize;
            if len == 0 {
                return None;
            }
            let label = &rest[1..=len];
            rest = &rest[1 + len..];
            Some(label)
        })
    }

    /// The same name in lower case.
    pub fn to_lowercase(&self) -> Name {
        Name { wire: self.wire.to_ascii_lowercase().into() }
    }
}

impl FromStr for Name {
    type Err = NameError;

    /// Reads presentation form (RFC 1035, 5.1); a missing dot at the end is taken as written.
    fn from_str(text: &str) -> Result<Name, NameError> {
        let text = text.as_bytes();
        match text {
            [] => return Err(NameError::Empty),
            b"." => return Ok(Name::root()),
            _ => {}
        }
        let mut wire = vec![0];
        let mut label_at = 0;
        let mut at = 0;
        while at < text.len() {
            let octet = match text[at] {
                b'.' => {
                    close_label(&mut wire, label_at)?;
                    label_at = wire.len();
                    wire.push(0);
                    at += 1;
                    continue;
                }
                b'\\' => unescape(text, &mut at)?,
                octet => {
                    at += 1;
                    octet
                }
            };
            wire.push(octet);
        }
        if wire.len() > label_at + 1 {
            close_label(&mut wire, label_at)?;
            wire.push(0);
        }
        if wire.len() > NAME_LEN_MAX {
            return Err(NameError::NameTooLong);
        }
        Ok(Name { wire: wire.into() })
    }
}

fn close_label(wire: &mut [u8], label_at: usize) -> Result<(), NameError> {
    match wire.len() - label_at - 1 {
        0 => Err(NameError::EmptyLabel),
        len if len > LABEL_LEN_MAX => Err(NameError::LabelTooLong),
        len => {
            wire[label_at] = len as u8;
            Ok(())
        }
    }
}

/// Reads `\X` or `\DDD` at `at` and moves past it.
fn unescape(text: &[u8], at: &mut usize) -> Result<u8, NameError> {
    let rest = &text[*at + 1..];
    match rest {
        [a @ b'0'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', ..] => {
            *at += 4;
            let value = u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
            u8::try_from(value).map_err(|_| NameError::BadEscape)
        }
        [b'0'..=b'9', ..] | [] => Err(NameError::BadEscape),
        [octet, ..] => {
            *at += 2;
            Ok(*octet)
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.wire.len() == 1 {
            return f.write_str(".");
        }
        for label in self.labels() {
            for &octet in label {
                match octet {
                    b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => {
                        write!(f, "\\{}", octet as char)?;
                    }
                    0x21..=0x7E => write!(f, "{}", octet as char)?,
                    _ => write!(f, "\\{octet:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        self.wire.eq_ignore_ascii_case(&other.wire)
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut lower = [0; NAME_LEN_MAX];
        let lower = &mut lower[..self.wire.len()];
        lower.copy_from_slice(&self.wire);
        lower.make_ascii_lowercase();
        lower.hash(state);
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_wire_agree() {
        for (text, wire) in [
            (".", &b"\0"[..]),
            ("Example.ORG.", b"\x07Example\x03ORG\0"),
            ("a\\.b.\\001.", b"\x03a.b\x01\x01\0"),
        ] {
            let name: Name = text.parse().unwrap();
            assert_eq!(name.as_wire(), wire);
            assert_eq!(name.to_string(), text);
            assert_eq!(Name::from_wire(wire).unwrap(), name);
        }
        assert_eq!("example.org".parse::<Name>(), "EXAMPLE.org.".parse());
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long_label = "a".repeat(64);
        let long_name = "a.".repeat(128);
        for (text, error) in [
            ("", NameError::Empty),
            ("a..b", NameError::EmptyLabel),
            (".a", NameError::EmptyLabel),
            ("a\\", NameError::BadEscape),
            ("a\\256", NameError::BadEscape),
            ("a\\25", NameError::BadEscape),
            (&long_label, NameError::LabelTooLong),
            (&long_name, NameError::NameTooLong),
        ] {
            assert_eq!(text.parse::<Name>(), Err(error), "{text}");
        }
        assert!("a.".repeat(127).parse::<Name>().is_ok());
        for wire in [&b""[..], b"\x01a", b"\0\0", b"\x40", b"\xC0\x0C"] {
            assert_eq!(Name::from_wire(wire), Err(NameError::BadWire));
        }
    }
}
