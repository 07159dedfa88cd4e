//! The query that goes to an upstream.
//!
//! ```text
//!   0            12
//!   | 0 RD CD .. | NAME, its letters in random case | QTYPE | QCLASS | OPT: cookie, padding |
//! ```

use crate::limits::{ANSWER_SIZE_DEFAULT, NAME_LEN_MAX};
use crate::wire::message::header;
use crate::wire::rtype;

/// COOKIE (RFC 7873).
pub(super) const OPTION_COOKIE: u16 = 10;
/// PADDING (RFC 7830).
pub(super) const OPTION_PADDING: u16 = 12;
/// EDE (RFC 8914).
pub(super) const OPTION_EDE: u16 = 15;
/// Checking disabled.
const CD: u16 = 0x0010;
const DNSSEC_OK: u16 = 0x8000;

//= RFC 8467, 4.1
//# Clients SHOULD pad queries to the closest multiple of 128 octets.
const PADDING_BLOCK: usize = 128;

/// What a query says.
pub(super) struct Query<'a> {
    /// As it is written, letter case and all.
    pub(super) name: &'a [u8],
    pub(super) qtype: u16,
    pub(super) qclass: u16,
    pub(super) checking_disabled: bool,
    pub(super) dnssec_ok: bool,
    /// With OPT; all that follows needs it.
    pub(super) edns: bool,
    /// Our cookie, and what the upstream gave us last (empty if it has given none).
    pub(super) cookie: Option<(&'a [u8; 8], &'a [u8])>,
    pub(super) padded: bool,
}

impl Query<'_> {
    /// Writes the message over what `out` holds.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.clear();
        let flags = header::RD | if self.checking_disabled { CD } else { 0 };
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&flags.to_be_bytes());
        out.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, u8::from(self.edns)]);
        out.extend_from_slice(self.name);
        out.extend_from_slice(&self.qtype.to_be_bytes());
        out.extend_from_slice(&self.qclass.to_be_bytes());
        if !self.edns {
            return;
        }
        let [type_high, type_low] = rtype::OPT.to_be_bytes();
        out.extend_from_slice(&[0, type_high, type_low]);
        out.extend_from_slice(&(ANSWER_SIZE_DEFAULT as u16).to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&(if self.dnssec_ok { DNSSEC_OK } else { 0 }).to_be_bytes());
        let rdlen_at = out.len();
        out.extend_from_slice(&[0, 0]);
        if let Some((ours, theirs)) = self.cookie {
            out.extend_from_slice(&OPTION_COOKIE.to_be_bytes());
            out.extend_from_slice(&((ours.len() + theirs.len()) as u16).to_be_bytes());
            out.extend_from_slice(ours);
            out.extend_from_slice(theirs);
        }
        if self.padded {
            let padding = (out.len() + 4).next_multiple_of(PADDING_BLOCK) - out.len() - 4;
            out.extend_from_slice(&OPTION_PADDING.to_be_bytes());
            out.extend_from_slice(&(padding as u16).to_be_bytes());
            out.resize(out.len() + padding, 0);
        }
        let rdlen = (out.len() - rdlen_at - 2) as u16;
        out[rdlen_at..rdlen_at + 2].copy_from_slice(&rdlen.to_be_bytes());
    }
}

/// Writes `name`, which is in lower case, with the letters that `bits` picks in upper case. The
/// bits are used again from the 65th octet on: an attacker has more than enough to guess with 64.
pub(super) fn with_case<'a>(name: &[u8], bits: u64, out: &'a mut [u8; NAME_LEN_MAX]) -> &'a [u8] {
    for (index, (out, &octet)) in out.iter_mut().zip(name).enumerate() {
        let upper = bits >> (index % 64) & 1 == 1 && octet.is_ascii_lowercase();
        *out = octet ^ u8::from(upper) << 5;
    }
    &out[..name.len()]
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::LowerName;
    use crate::wire::query::read_query;

    const NAME: &[u8] = b"\x03www\x07example\0";

    fn written(edns: bool, cookie: Option<(&[u8; 8], &[u8])>, padded: bool) -> Vec<u8> {
        let mut out = vec![9; 40];
        Query {
            name: NAME,
            qtype: rtype::AAAA,
            qclass: 1,
            checking_disabled: true,
            dnssec_ok: true,
            edns,
            cookie,
            padded,
        }
        .write(&mut out);
        out
    }

    #[test]
    fn what_is_written_is_read() {
        for (edns, cookie, padded) in [
            (false, None, false),
            (true, None, false),
            (true, Some((b"abcdefgh", &b""[..])), false),
            (true, Some((b"abcdefgh", &b"01234567"[..])), true),
        ] {
            let mut octets = written(edns, cookie, padded);
            assert_eq!(octets[..4], [0, 0, 1, 0x10]);
            let len = octets.len();
            octets.resize(len + 300, 0);
            let mut name = LowerName::new();
            let query = read_query(&octets, len, &mut name).unwrap();
            assert_eq!((name.as_wire(), query.qtype, query.qclass), (NAME, rtype::AAAA, 1));
            let said = query.edns.map(|edns| (edns.udp_size, edns.dnssec_ok));
            assert_eq!(said, edns.then_some((1232, true)));
            assert!(!padded || len == PADDING_BLOCK);
        }
        assert!(written(true, Some((b"abcdefgh", b"0123")), false).ends_with(b"\x0cabcdefgh0123"));
    }

    #[test]
    fn only_letters_change() {
        let mut out = [0; NAME_LEN_MAX];
        assert_eq!(with_case(NAME, 0, &mut out), NAME);
        assert_eq!(with_case(NAME, u64::MAX, &mut out), b"\x03WWW\x07EXAMPLE\0");
        assert_eq!(with_case(NAME, 0b10, &mut out), b"\x03Www\x07example\0");
    }
}
