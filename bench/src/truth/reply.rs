//! Replies: the question again, and one A record; or what a script wants to be wrong with them.

use ring53::limits::HEADER_LEN;
use ring53::wire::query::skip_name;

use super::script::Act;

/// Octets of the longest reply: header, a name, type and class, one A record.
pub const REPLY_LEN_MAX: usize = HEADER_LEN + 255 + 4 + RECORD.len();

/// A pointer to the question's name, A, IN, 60 seconds, four octets: 192.0.2.53 (RFC 5737).
const RECORD: [u8; 16] = [0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 53];
const REFUSED: u8 = 5;

/// A reply, in place.
#[derive(Clone, Copy)]
pub struct Reply {
    octets: [u8; REPLY_LEN_MAX],
    len: usize,
}

impl Reply {
    /// The message.
    pub fn octets(&self) -> &[u8] {
        &self.octets[..self.len]
    }
}

/// What `act` makes of a query; `None` if it is none that can be answered.
pub fn reply(query: &[u8], act: Act) -> Option<Reply> {
    let header = query.first_chunk::<HEADER_LEN>()?;
    // QR is not set, QDCOUNT is 1.
    if header[2] & 0x80 != 0 || header[4..6] != [0, 1] {
        return None;
    }
    let end = skip_name(query, HEADER_LEN)? + 4;
    let question = query.get(HEADER_LEN..end)?;
    if end + RECORD.len() > REPLY_LEN_MAX {
        return None;
    }
    let has_record = !matches!(act, Act::OtherRcode | Act::Truncate);
    let mut reply = Reply { octets: [0; REPLY_LEN_MAX], len: end };
    reply.octets[..2].copy_from_slice(&header[..2]);
    // QR and AA; opcode and RD are the query's.
    reply.octets[2] = 0x84 | header[2] & 0x79;
    reply.octets[5] = 1;
    reply.octets[7] = has_record.into();
    reply.octets[HEADER_LEN..end].copy_from_slice(question);
    if has_record {
        reply.octets[end..end + RECORD.len()].copy_from_slice(&RECORD);
        reply.len += RECORD.len();
    }
    match act {
        Act::OtherRcode => reply.octets[3] = REFUSED,
        // Another type.
        Act::OtherQuestion => reply.octets[end - 4] ^= 1,
        Act::OtherId => reply.octets[0] ^= 0x80,
        Act::Truncate => reply.octets[2] |= 0x02,
        _ => {}
    }
    Some(reply)
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use ring53::wire::message::Message;

    use super::*;

    fn query() -> Vec<u8> {
        let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        query.extend(b"\x01q\x04test\x00\x00\x1C\x00\x01");
        // An OPT record.
        query.extend([0, 0, 41, 4, 0xD0, 0, 0, 0, 0, 0, 0]);
        query
    }

    #[test]
    fn an_answer_is_whole() {
        let reply = reply(&query(), Act::Answer).unwrap();
        let message = Message::new(reply.octets()).unwrap();
        assert_eq!((message.id(), message.rcode()), (0x1234, 0));
        assert!(message.is_response());
        let question = message.question().unwrap().unwrap();
        assert_eq!(question.qtype, 28);
        assert_eq!(message.records().unwrap().count(), 1);
    }

    #[test]
    fn each_act_shows() {
        let of = |act| reply(&query(), act).unwrap();
        let usual = of(Act::Answer);
        let message = |reply: &Reply| reply.octets().to_vec();
        assert_eq!(message(&of(Act::Twice)), message(&usual));
        assert_eq!(message(&of(Act::OtherRcode))[3], 5);
        assert_eq!(message(&of(Act::OtherId))[..2], [0x92, 0x34]);
        assert_eq!(message(&of(Act::Truncate))[2] & 2, 2);
        let (other, same) = (message(&of(Act::OtherQuestion)), message(&usual));
        assert_eq!(other[..20], same[..20]);
        assert_ne!(other[20..22], same[20..22]);
        assert_eq!(other[22..], same[22..]);
    }

    #[test]
    fn what_is_no_query_gets_no_reply() {
        let query = query();
        for len in 0..query.len() - 11 {
            assert!(reply(&query[..len], Act::Answer).is_none(), "{len}");
        }
        let mut response = query.clone();
        response[2] |= 0x80;
        assert!(reply(&response, Act::Answer).is_none());
    }
}
