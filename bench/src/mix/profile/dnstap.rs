//! dnstap files: Frame Streams with one protobuf message a frame.
//!
//! ```text
//!   | 0 | length | START, content type |                     control: no length, then its own
//!   | length | Dnstap { 14: Message, 15: type } |            and so on
//!   | 0 | length | STOP |
//!
//!   Message { 1: type, 3: protocol, 4: query address, 8 and 9: query time,
//!             10: query, 12 and 13: response time, 14: response }
//! ```
//!
//! Only what clients ask counts (AUTH and CLIENT), not what a resolver asks of others. A log of
//! responses alone says what was asked by the questions in them.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::net::{IpAddr, Ipv6Addr};

use super::capture::{Seen, Skipped};

/// What a file begins with, and every control frame.
pub const ESCAPE: [u8; 4] = [0; 4];
const CONTENT_TYPE: &[u8] = b"protobuf:dnstap.Dnstap";
const CONTROL_LEN_MAX: u32 = 512;
/// A frame has two messages of 64 KiB at most, and little more.
const FRAME_LEN_MAX: u32 = 1 << 18;
const START: u32 = 2;
const STOP: u32 = 3;
const AUTH_QUERY: u64 = 1;
const AUTH_RESPONSE: u64 = 2;
const CLIENT_QUERY: u64 = 5;
const CLIENT_RESPONSE: u64 = 6;

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Reads all frames. If there are no queries among them, responses stand for their queries.
pub fn read(file: File, take: &mut dyn FnMut(&Seen<'_>)) -> io::Result<Skipped> {
    let mut again = file.try_clone()?;
    let (mut skipped, queries) = pass(file, false, take)?;
    if queries == 0 {
        io::Seek::rewind(&mut again)?;
        skipped = pass(again, true, take)?.0;
    }
    Ok(skipped)
}

/// Reads all frames once; returns what it skipped and how many queries it found.
fn pass(
    file: File,
    from_responses: bool,
    take: &mut dyn FnMut(&Seen<'_>),
) -> io::Result<(Skipped, u64)> {
    let mut reader = BufReader::with_capacity(1 << 18, file);
    let (mut skipped, mut queries) = (Skipped::default(), 0);
    let mut frame = Vec::new();
    let mut started = false;
    loop {
        let mut len = [0; 4];
        match reader.read_exact(&mut len) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
        let is_control = len == ESCAPE;
        if is_control {
            reader.read_exact(&mut len)?;
        }
        let len = u32::from_be_bytes(len);
        if len > if is_control { CONTROL_LEN_MAX } else { FRAME_LEN_MAX } {
            return Err(invalid("has a frame that is too long: expected dnstap"));
        }
        frame.resize(len as usize, 0);
        if reader.read_exact(&mut frame).is_err() {
            skipped.truncated = true;
            break;
        }
        if is_control {
            let kind = frame.first_chunk().map(|octets| u32::from_be_bytes(*octets));
            match kind {
                Some(START) if !frame.windows(CONTENT_TYPE.len()).any(|at| at == CONTENT_TYPE) => {
                    return Err(invalid("is a Frame Streams file, but not of dnstap"));
                }
                Some(START) => started = true,
                Some(STOP) => break,
                _ => {}
            }
            continue;
        }
        if !started {
            return Err(invalid("does not begin as dnstap does, with START"));
        }
        skipped.frames += 1;
        match Tapped::read(&frame) {
            Some(tapped) => queries += tapped.hand_out(from_responses, take),
            None => skipped.others += 1,
        }
    }
    Ok((skipped, queries))
}

//----------- Tapped ---------------------------------------------------------

/// What one frame says.
#[derive(Default)]
struct Tapped<'a> {
    kind: u64,
    protocol: u64,
    client: &'a [u8],
    query_at_ns: u64,
    response_at_ns: u64,
    query: &'a [u8],
    response: &'a [u8],
}

impl<'a> Tapped<'a> {
    fn read(frame: &'a [u8]) -> Option<Tapped<'a>> {
        let mut outer = Fields(frame);
        let mut message = None;
        while let Some((number, value)) = outer.next()? {
            if let (14, Value::Octets(octets)) = (number, value) {
                message = Some(octets);
            }
        }
        let mut fields = Fields(message?);
        let mut tapped = Tapped::default();
        let seconds = |seconds: u64| seconds.saturating_mul(1_000_000_000);
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Value::Number(kind)) => tapped.kind = kind,
                (3, Value::Number(protocol)) => tapped.protocol = protocol,
                (4, Value::Octets(address)) => tapped.client = address,
                (8, Value::Number(count)) => add(&mut tapped.query_at_ns, seconds(count)),
                (9, Value::Number(count)) => add(&mut tapped.query_at_ns, count & 0xFFFF_FFFF),
                (10, Value::Octets(query)) => tapped.query = query,
                (12, Value::Number(count)) => add(&mut tapped.response_at_ns, seconds(count)),
                (13, Value::Number(count)) => add(&mut tapped.response_at_ns, count & 0xFFFF_FFFF),
                (14, Value::Octets(response)) => tapped.response = response,
                _ => {}
            }
        }
        Some(tapped)
    }

    /// Hands out its messages; returns how many of them are queries.
    fn hand_out(&self, from_responses: bool, take: &mut dyn FnMut(&Seen<'_>)) -> u64 {
        let client = match *self.client {
            [a, b, c, d] => IpAddr::from([a, b, c, d]),
            _ => self
                .client
                .try_into()
                .map_or(Ipv6Addr::UNSPECIFIED.into(), |octets: [u8; 16]| IpAddr::from(octets)),
        };
        // 1 is UDP; all others are streams, or as QUIC (6) like streams to the server.
        let stream = self.protocol > 1;
        let mut hand = |at_ns, to_server, message| {
            take(&Seen { at_ns, client, stream, to_server, message });
        };
        match self.kind {
            AUTH_QUERY | CLIENT_QUERY if !self.query.is_empty() => {
                hand(self.query_at_ns, true, self.query);
                1
            }
            AUTH_RESPONSE | CLIENT_RESPONSE => {
                let at_ns =
                    if self.query_at_ns > 0 { self.query_at_ns } else { self.response_at_ns };
                if from_responses {
                    let query = if self.query.is_empty() { self.response } else { self.query };
                    hand(at_ns, true, query);
                }
                hand(at_ns, false, self.response);
                0
            }
            _ => 0,
        }
    }
}

//----------- Protobuf -------------------------------------------------------

enum Value<'a> {
    Number(u64),
    Octets(&'a [u8]),
}

/// The fields of a protobuf message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The next field; `Some(None)` at the end, `None` if it is no field.
    #[expect(clippy::option_option, reason = "an end is not a fault")]
    fn next(&mut self) -> Option<Option<(u64, Value<'a>)>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Number(u64::from_le_bytes(self.octets(8)?.try_into().ok()?)),
            2 => {
                let len = self.varint()?;
                Value::Octets(self.octets(usize::try_from(len).ok()?)?)
            }
            5 => Value::Number(u32::from_le_bytes(self.octets(4)?.try_into().ok()?).into()),
            _ => return None,
        };
        Some(Some((tag >> 3, value)))
    }

    fn octets(&mut self, len: usize) -> Option<&'a [u8]> {
        let (octets, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(octets)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&octet, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(octet & 0x7F) << shift;
            if octet & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}
