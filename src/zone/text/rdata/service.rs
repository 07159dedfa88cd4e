//! The parameters of SVCB and HTTPS records (RFC 9460, 2.1 and appendix A).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::lexer::{Fault, Read, Word, escape, unescape};
use super::Rdata;
use super::binary::Base64Digits;

const KEYS: [(&str, u16); 9] = [
    ("mandatory", 0),
    ("alpn", 1),
    ("no-default-alpn", 2),
    ("port", 3),
    ("ipv4hint", 4),
    ("ech", 5),
    ("ipv6hint", 6),
    ("dohpath", 7),
    ("ohttp", 8),
];

/// `key=value` pairs up to the end of the record, written in ascending order of their keys.
pub(super) fn parameters(rdata: &mut Rdata<'_, '_>) -> Read<()> {
    let mut parameters: Vec<(u16, Vec<u8>)> = Vec::new();
    while let Some(word) = rdata.next()? {
        let split = word.text.iter().position(|&octet| octet == b'=');
        let (name, mut value) = match split {
            None => (word.text, None),
            Some(at) => (
                &word.text[..at],
                Some(Word { text: &word.text[at + 1..], at: word.at + at + 1, ..word }),
            ),
        };
        // `key="value"`: the quoted part is a word of its own that follows at once.
        if let Some(empty) = value
            && empty.text.is_empty()
            && rdata.lexer.peek() == Some(b'"')
            && rdata.lexer.at == empty.at
        {
            value = rdata.lexer.word()?;
        }
        let key = key_of(name).ok_or_else(|| {
            Fault::of(word, "a service parameter: a registered name, or key and a number")
        })?;
        if parameters.iter().any(|(other, _)| *other == key) {
            //= RFC 9460, 2.1
            //# Keys MUST NOT be repeated.
            return Err(Fault::of(word, "each service parameter once"));
        }
        let mut octets = Vec::new();
        parameter(key, value, word, &mut octets)?;
        parameters.push((key, octets));
    }
    parameters.sort_by_key(|(key, _)| *key);
    check_mandatory(rdata, &parameters)?;
    for (key, octets) in parameters {
        rdata.out.extend_from_slice(&key.to_be_bytes());
        rdata.out.extend_from_slice(&(octets.len() as u16).to_be_bytes());
        rdata.out.extend_from_slice(&octets);
    }
    Ok(())
}

/// Everything that `mandatory` names must be there, and `mandatory` itself must not be named.
fn check_mandatory(rdata: &Rdata<'_, '_>, parameters: &[(u16, Vec<u8>)]) -> Read<()> {
    let Some((0, keys)) = parameters.first() else { return Ok(()) };
    let present = |key: u16| key != 0 && parameters.iter().any(|(other, _)| *other == key);
    let named = keys.chunks_exact(2).map(|key| u16::from_be_bytes([key[0], key[1]]));
    if named.into_iter().all(present) {
        return Ok(());
    }
    let expected = "every parameter that mandatory names".into();
    Err(Fault { at: rdata.lexer.at, len: 0, expected })
}

fn key_of(name: &[u8]) -> Option<u16> {
    if let Some((_, key)) = KEYS.iter().find(|(known, _)| known.as_bytes() == name) {
        return Some(*key);
    }
    let number = std::str::from_utf8(name.strip_prefix(b"key")?).ok()?;
    let canonical = number == "0" || !number.starts_with(['0', '+']);
    number.parse().ok().filter(|&key| canonical && key != u16::MAX)
}

fn parameter(key: u16, value: Option<Word<'_>>, word: Word<'_>, out: &mut Vec<u8>) -> Read<()> {
    let Some(value) = value else {
        return match key {
            0 | 1 | 3..=7 => Err(Fault::of(word, "= and a value")),
            _ => Ok(()),
        };
    };
    let mut octets = Vec::new();
    match key {
        1 => return alpn(value, out),
        _ => unescape(value, &mut octets)?,
    }
    let text = std::str::from_utf8(&octets).ok();
    let list = || text.into_iter().flat_map(|text| text.split(','));
    match key {
        0 => {
            let mut keys = Vec::new();
            for name in list() {
                keys.push(key_of(name.as_bytes()).ok_or_else(|| Fault::of(value, "keys"))?);
            }
            keys.sort_unstable();
            if keys.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err(Fault::of(value, "each mandatory key once"));
            }
            keys.iter().for_each(|key| out.extend_from_slice(&key.to_be_bytes()));
        }
        2 | 8 => return Err(Fault::of(value, "no value for this parameter")),
        3 => {
            let port = text.and_then(|text| text.parse::<u16>().ok());
            let port = port.ok_or_else(|| Fault::of(value, "a port from 0 to 65535"))?;
            out.extend_from_slice(&port.to_be_bytes());
        }
        4 => {
            for address in list() {
                let address: Result<Ipv4Addr, _> = address.parse();
                let address = address.map_err(|_| Fault::of(value, "IPv4 addresses"))?;
                out.extend_from_slice(&address.octets());
            }
        }
        5 => {
            let mut digits = Base64Digits::default();
            digits.take(value, out)?;
            if !digits.is_whole() || out.is_empty() {
                return Err(Fault::of(value, "base64"));
            }
        }
        6 => {
            for address in list() {
                let address: Result<Ipv6Addr, _> = address.parse();
                let address = address.map_err(|_| Fault::of(value, "IPv6 addresses"))?;
                out.extend_from_slice(&address.octets());
            }
        }
        _ => out.extend_from_slice(&octets),
    }
    Ok(())
}

/// A list of protocol names: commas part them unless escaped twice (RFC 9460, A.1).
fn alpn(value: Word<'_>, out: &mut Vec<u8>) -> Read<()> {
    let fault = || Fault::of(value, "protocol names of 1 to 255 octets with commas between them");
    let mut flat = Vec::new();
    unescape(value, &mut flat)?;
    let mut start = out.len();
    out.push(0);
    let mut close = |out: &mut Vec<u8>| {
        let len = u8::try_from(out.len() - start - 1).ok().filter(|&len| len > 0)?;
        out[start] = len;
        start = out.len();
        Some(())
    };
    let mut rest = &flat[..];
    while let Some((&octet, after)) = rest.split_first() {
        rest = after;
        match octet {
            b',' => {
                close(out).ok_or_else(fault)?;
                out.push(0);
            }
            b'\\' => {
                let (octet, after) = escape(rest).ok_or_else(fault)?;
                out.push(octet);
                rest = after;
            }
            octet => out.push(octet),
        }
    }
    close(out).ok_or_else(fault)
}
