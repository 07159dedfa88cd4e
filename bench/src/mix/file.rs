//! Query files, as dnsperf and kxdpgun read them.
//!
//! ```text
//!   ; a comment                       # and another
//!   www.example.org A                 a name, a type by its mnemonic or TYPEnnn
//!   a\.b\032c.example.org TYPE65      escapes as in zone files
//!   example.org MX D                  kxdpgun: E sends EDNS, D asks for DNSSEC records
//! ```
//!
//! dnsperf ignores what stands behind the type, and so does this, but for E and D. Names are
//! absolute with or without a dot at their end.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use ring53::limits::HEADER_LEN;
use ring53::wire::{Name, NameError, rtype};

use super::Questions;
use super::query::{EDNS_SIZE, Variant};
use crate::zones::queries::Random;

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    /// The number of its name and type among those that differ.
    pub question: u64,
    /// The name.
    pub name: Name,
    /// The type.
    pub qtype: u16,
    /// What its flags say.
    pub variant: Variant,
}

/// Reads a query file and hands out its lines in their order.
pub fn read(path: &Path, take: impl FnMut(&Line)) -> io::Result<()> {
    let octets = std::fs::read(path).map_err(|error| {
        io::Error::new(error.kind(), format!("{}: {error}: check --queries", path.display()))
    })?;
    parse(&octets, take).map_err(|(number, message)| {
        let message = format!("{}:{number}: {message}", path.display());
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

/// The same for the octets of one; errors have the number of their line.
fn parse(octets: &[u8], mut take: impl FnMut(&Line)) -> Result<(), (usize, String)> {
    let mut known: HashMap<(&[u8], u16), (u64, Name)> = HashMap::new();
    let mut count = 0;
    let lines = octets.split(|&octet| octet == b'\n').enumerate();
    for (number, line) in lines.map(|(number, line)| (number + 1, line.trim_ascii())) {
        if line.is_empty() || matches!(line[0], b';' | b'#') {
            continue;
        }
        count += 1;
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let name = words.next().unwrap_or_default();
        let kind = words.next();
        let qtype = kind.and_then(rtype::parse).ok_or_else(|| (number, no_type(name, kind)))?;
        let mut variant = Variant { recursion_desired: true, ..Variant::default() };
        for flags in words.take_while(|word| word.iter().all(|flag| b"ED".contains(flag))) {
            variant.edns = Some(EDNS_SIZE);
            variant.dnssec_ok |= flags.contains(&b'D');
        }
        let next = known.len() as u64;
        let (question, name) = match known.get(&(name, qtype)) {
            Some(found) => found.clone(),
            None => {
                let parsed = parse_name(name).map_err(|error| {
                    (number, format!("{:?}: expected {error}", String::from_utf8_lossy(name)))
                })?;
                known.entry((name, qtype)).insert_entry((next, parsed)).get().clone()
            }
        };
        take(&Line { question, name, qtype, variant });
    }
    if count == 0 {
        return Err((1, "no queries: expected `name type` a line".into()));
    }
    Ok(())
}

/// A name as text; octets past ASCII stand for themselves.
fn parse_name(text: &[u8]) -> Result<Name, NameError> {
    if text.is_ascii() {
        return String::from_utf8_lossy(text).parse();
    }
    let mut escaped = String::new();
    for &octet in text {
        match octet {
            0x80.. => write!(escaped, "\\{octet:03}").expect("a String grows"),
            _ => escaped.push(octet.into()),
        }
    }
    escaped.parse()
}

/// Why a line without a type is no query.
fn no_type(name: &[u8], kind: Option<&[u8]>) -> String {
    const VERBS: [&[u8]; 5] = [b"require", b"prohibit", b"add", b"delete", b"send"];
    let shown = String::from_utf8_lossy(name);
    if VERBS.contains(&name) {
        return format!(
            "\"{shown}\" is of a file of dynamic updates (dnsperf -u): those are not sent; \
             expected `name type`"
        );
    }
    match kind {
        Some(kind) => format!(
            "{:?} is no type: expected a mnemonic or TYPEnnn",
            String::from_utf8_lossy(kind)
        ),
        None => format!(
            "{shown:?} has no type: expected `name type` (a zone alone begins a dynamic update of \
             dnsperf -u: those are not sent)"
        ),
    }
}

/// Writes queries in the order they are asked, for other generators. Of what they have besides
/// their question only EDNS and DO can be said in such a file.
pub fn write(questions: &Questions, seed: u64, path: &Path) -> io::Result<()> {
    let failed =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).map_err(failed)?);
    let mut random = Random::new(seed);
    let mut octets = [0; 1024];
    for position in 0..questions.order_len() as u64 {
        let entry = questions.entry(questions.index_at(position));
        let len = questions.write(entry, &mut random, &mut octets);
        let end = HEADER_LEN + usize::from(entry.question_len);
        let name = Name::from_wire(&octets[HEADER_LEN..end - 4]).map_err(io::Error::other)?;
        let qtype = u16::from_be_bytes([octets[end - 4], octets[end - 3]]);
        // Behind the question comes OPT: root, type, size, rcode, version, DO.
        let flags = match octets[end..len].get(7) {
            Some(flags) if flags & 0x80 != 0 => " D",
            Some(_) => " E",
            None => "",
        };
        writeln!(out, "{name} {}{flags}", rtype::name(qtype)).map_err(failed)?;
    }
    out.flush().map_err(failed)
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8]) -> Result<Vec<Line>, (usize, String)> {
        let mut lines = Vec::new();
        parse(text, |line| lines.push(line.clone()))?;
        Ok(lines)
    }

    #[test]
    fn lines_are_read_as_dnsperf_and_kxdpgun_read_them() {
        let text = b"; comment\n# comment\n\nwww.example.org A\n  WWW.example.org.\taaaa\r\n\
            a\\.b\\032c.example. TYPE65 D\nexample. MX E\n. ns ED\nwww.example.org A\n\
            example. TXT and what follows\n\xFF.example. A\nexample ANY\n";
        let lines = lines(text).unwrap();
        let names: Vec<String> = lines.iter().map(|line| line.name.to_string()).collect();
        assert_eq!(names[0], "www.example.org.");
        assert_eq!(lines[2].name.as_wire(), b"\x05a.b c\x07example\0");
        assert_eq!(lines[7].name.as_wire(), b"\x01\xFF\x07example\0");
        let types: Vec<u16> = lines.iter().map(|line| line.qtype).collect();
        assert_eq!(types, [1, 28, 65, 15, 2, 1, 16, 1, 255]);
        let questions: Vec<u64> = lines.iter().map(|line| line.question).collect();
        assert_eq!(questions, [0, 1, 2, 3, 4, 0, 5, 6, 7]);
        let flags = |at: usize| (lines[at].variant.edns, lines[at].variant.dnssec_ok);
        assert_eq!((flags(0), flags(2)), ((None, false), (Some(EDNS_SIZE), true)));
        assert_eq!((flags(3), flags(4)), ((Some(EDNS_SIZE), false), (Some(EDNS_SIZE), true)));
        assert_eq!(flags(6), (None, false));
    }

    #[test]
    fn errors_name_the_line_and_what_was_expected() {
        for (text, number, part) in [
            ("example. A\nexample. B\n", 2, "\"B\" is no type"),
            ("\n\nexample.com\n", 3, "dynamic update"),
            ("a A\nadd x 3600 A 192.0.2.1\n", 2, "dynamic updates"),
            ("a A\nsend\n", 2, "dynamic updates"),
            ("a..b A\n", 1, "a label between two dots"),
            ("a\\999 A\n", 1, "three digits"),
            (&format!("{} A\n", "a".repeat(64)), 1, "63 octets"),
            ("; only a comment\n", 1, "no queries"),
        ] {
            let (line, message) = lines(text.as_bytes()).unwrap_err();
            assert_eq!(line, number, "{text}");
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
