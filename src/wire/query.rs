//! A query as it arrives: header, one question, EDNS.
//!
//! ```text
//!    0        2        4      6      8      10     12
//!   | id     | flags  | QD 1 | AN 0 | NS   | AR   | QNAME ... | QTYPE | QCLASS | records ... |
//!              QR opcode AA TC RD RA Z AD CD rcode
//! ```
//!
//! Reading never writes, never allocates, and takes any octets.

use crate::limits::HEADER_LEN;

use super::lower::LowerName;
use super::rtype;

/// The opcode of a standard query.
pub const OPCODE_QUERY: u8 = 0;
const OPTION_NSID: u16 = 3;
const OPTION_KEEPALIVE: u16 = 11;

//----------- Query ----------------------------------------------------------

/// What a query asks, apart from its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// QTYPE.
    pub qtype: u16,
    /// QCLASS.
    pub qclass: u16,
    /// Octets of the message up to the end of the question.
    pub question_end: usize,
    /// The OPT record (RFC 6891), if there was one.
    pub edns: Option<Edns>,
    /// It has a TSIG record (RFC 8945).
    pub signed: bool,
}

/// What the client said in its OPT record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// The UDP answer it takes, as sent.
    pub udp_size: u16,
    /// The version.
    pub version: u8,
    /// DO: send signatures (RFC 3225).
    pub dnssec_ok: bool,
    /// It asked for the server's identity (RFC 5001).
    pub nsid: bool,
    /// It asked how long a connection may be idle (RFC 7828): the octets of that option.
    pub keepalive: Option<u16>,
}

/// Why a query cannot be answered as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Less than a header.
    TooShort,
    /// QR is set.
    Response,
    /// Not a question that can be read: FORMERR. The question is not repeated.
    Malformed,
    /// An opcode other than QUERY: NOTIMP. The question ends at the octet given, or at 12.
    Opcode(usize),
}

/// Reads `message`, whose name goes into `name`. `padded` is the buffer the message lies at the
/// start of: octets past the message are never interpreted.
#[inline]
pub fn read_query(padded: &[u8], len: usize, name: &mut LowerName) -> Result<Query, Fault> {
    let message = &padded[..len];
    let Some(header) = message.first_chunk::<HEADER_LEN>() else {
        return Err(Fault::TooShort);
    };
    if header[2] & 0x80 != 0 {
        return Err(Fault::Response);
    }
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let opcode = (header[2] >> 3) & 0xF;
    let question = if count(4) == 1 { read_question(padded, len, name) } else { None };
    if opcode != OPCODE_QUERY {
        let end = question.map_or(HEADER_LEN, |question| question.question_end);
        return Err(Fault::Opcode(end));
    }
    //= RFC 9619, 4
    //# A DNS message with OPCODE = 0 and QDCOUNT > 1 MUST be treated as an
    //# incorrectly formatted message.
    let mut query = question.ok_or(Fault::Malformed)?;
    if count(6) != 0 {
        return Err(Fault::Malformed);
    }
    if count(8) == 0 && count(10) == 0 {
        return Ok(query);
    }
    let mut at = query.question_end;
    for _ in 0..count(8) {
        at = skip_record(message, at).ok_or(Fault::Malformed)?;
    }
    for _ in 0..count(10) {
        at = read_additional(message, at, &mut query)?;
    }
    Ok(query)
}

#[inline]
fn read_question(padded: &[u8], len: usize, name: &mut LowerName) -> Option<Query> {
    let name_len = name.read(&padded[HEADER_LEN..])?;
    let at = HEADER_LEN + name_len;
    if at + 4 > len {
        return None;
    }
    let fixed: [u8; 4] = padded[at..at + 4].try_into().expect("four octets");
    Some(Query {
        qtype: u16::from_be_bytes([fixed[0], fixed[1]]),
        qclass: u16::from_be_bytes([fixed[2], fixed[3]]),
        question_end: at + 4,
        edns: None,
        signed: false,
    })
}

/// Reads one record of the additional section; keeps what OPT says, and that there is a TSIG.
#[inline]
fn read_additional(message: &[u8], at: usize, query: &mut Query) -> Result<usize, Fault> {
    let is_opt = message.len() >= at + 11
        && message[at] == 0
        && message[at + 1..at + 3] == rtype::OPT.to_be_bytes();
    if !is_opt {
        let end = skip_record(message, at).ok_or(Fault::Malformed)?;
        let type_at = skip_name(message, at).ok_or(Fault::Malformed)?;
        //= RFC 6891, 6.1.2
        //# NAME         | domain name  | MUST be 0 (root domain)
        if message[type_at..type_at + 2] == rtype::OPT.to_be_bytes() {
            return Err(Fault::Malformed);
        }
        query.signed |= message[type_at..type_at + 2] == rtype::TSIG.to_be_bytes();
        return Ok(end);
    }
    //= RFC 6891, 6.1.1
    //# If a query message with more than one OPT RR is received, a FORMERR
    //# (RCODE=1) MUST be returned.
    if query.edns.is_some() {
        return Err(Fault::Malformed);
    }
    let rdlen = u16::from_be_bytes([message[at + 9], message[at + 10]]) as usize;
    let end = at + 11 + rdlen;
    let mut options = message.get(at + 11..end).ok_or(Fault::Malformed)?;
    let (mut nsid, mut keepalive) = (false, None);
    while !options.is_empty() {
        let header = options.first_chunk::<4>().ok_or(Fault::Malformed)?;
        let option_len = u16::from_be_bytes([header[2], header[3]]);
        match u16::from_be_bytes([header[0], header[1]]) {
            OPTION_NSID => nsid = true,
            OPTION_KEEPALIVE => keepalive = keepalive.max(Some(option_len)),
            _ => {}
        }
        options = options.get(4 + usize::from(option_len)..).ok_or(Fault::Malformed)?;
    }
    query.edns = Some(Edns {
        udp_size: u16::from_be_bytes([message[at + 3], message[at + 4]]),
        version: message[at + 6],
        dnssec_ok: message[at + 7] & 0x80 != 0,
        nsid,
        keepalive,
    });
    Ok(end)
}

/// The end of the record at `at`.
pub fn skip_record(message: &[u8], at: usize) -> Option<usize> {
    let fixed_at = skip_name(message, at)?;
    let fixed = message.get(fixed_at..fixed_at + 10)?;
    let end = fixed_at + 10 + u16::from_be_bytes([fixed[8], fixed[9]]) as usize;
    (end <= message.len()).then_some(end)
}

/// The end of the possibly compressed name at `at`. Pointers are not followed.
pub fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            len @ 1..=63 => at += 1 + len as usize,
            0xC0.. => return (at + 2 <= message.len()).then_some(at + 2),
            _ => return None,
        }
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    fn read(octets: &[u8]) -> Result<Query, Fault> {
        let mut padded = octets.to_vec();
        padded.resize(octets.len() + 300, 0xEE);
        read_query(&padded, octets.len(), &mut LowerName::new())
    }

    fn message(counts: [u8; 4], rest: &[u8]) -> Vec<u8> {
        let mut octets = vec![0x12, 0x34, 1, 0];
        counts.iter().for_each(|&count| octets.extend([0, count]));
        octets.extend_from_slice(rest);
        octets
    }

    const QUESTION: &[u8] = b"\x01a\0\0\x01\0\x01";
    const OPT: &[u8] = b"\0\0\x29\x04\xD0\0\0\x80\0\0\0";

    #[test]
    fn a_question_with_edns() {
        let plain = read(&message([1, 0, 0, 0], QUESTION)).unwrap();
        assert_eq!((plain.qtype, plain.qclass, plain.question_end), (1, 1, 19));
        assert_eq!(plain.edns, None);
        let edns = read(&message([1, 0, 0, 1], &[QUESTION, OPT].concat())).unwrap().edns.unwrap();
        assert_eq!(
            (edns.udp_size, edns.version, edns.dnssec_ok, edns.nsid),
            (1232, 0, true, false)
        );
    }

    #[test]
    fn faults() {
        let twice = [QUESTION, OPT, OPT].concat();
        let cut_option = [QUESTION, b"\0\0\x29\x04\xD0\0\0\0\0\0\x05\0\x03\0\x02\0"].concat();
        let named_opt = [QUESTION, b"\x01a", OPT].concat();
        for (octets, fault) in [
            (vec![0; 11], Fault::TooShort),
            (vec![0xFF; 12], Fault::Response),
            (message([0, 0, 0, 0], &[]), Fault::Malformed),
            (message([2, 0, 0, 0], QUESTION), Fault::Malformed),
            (message([1, 1, 0, 0], QUESTION), Fault::Malformed),
            (message([1, 0, 0, 0], b"\xC0\x0C\0\x01\0\x01"), Fault::Malformed),
            (message([1, 0, 0, 0], &QUESTION[..6]), Fault::Malformed),
            (message([1, 0, 0, 1], QUESTION), Fault::Malformed),
            (message([1, 0, 0, 2], &twice), Fault::Malformed),
            (message([1, 0, 0, 1], &cut_option), Fault::Malformed),
            (message([1, 0, 0, 1], &named_opt), Fault::Malformed),
        ] {
            assert_eq!(read(&octets), Err(fault), "{octets:02x?}");
        }
        let mut notify = message([1, 0, 0, 0], QUESTION);
        notify[2] = 4 << 3;
        assert_eq!(read(&notify), Err(Fault::Opcode(19)));
    }
}
