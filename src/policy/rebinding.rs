//! Private addresses under public names: whether an answer from outside leads inside.
//!
//! ```text
//!   a page of evil.example asks evil.example ──> 192.168.1.1    "the same site"
//! ```
//!
//! What is done about it follows dnsmasq (`--stop-dns-rebind`), which most operators know: the
//! client gets NOERROR without records, and Extended DNS Error 15 (Blocked) says why. Neither
//! SERVFAIL nor REFUSED would do: a stub takes both as a fault of this server and asks the next one
//! it has, which gives it the address. Nor are single addresses taken out, as Unbound does: half an
//! RRset has no valid signature, and who mixes public and private addresses under one name means
//! the attack.
//!
//! An exception is one for the name that was *asked*, and for what is below it: that is the name a
//! browser thinks it talks to. What stands at the end of an alias does not count, or any public
//! name could be an alias of an excepted one.
//!
//! Lists of senders of spam answer with addresses of 127.0.0.0/8 and need an exception where mail
//! is filtered.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::message::{CLASS_IN, Malformed, Message, RecordAt, Section, add_to_count, header};
use crate::wire::query::skip_name;
use crate::wire::{LowerName, Name, rtype};

/// EDE of an answer that policy forbids (RFC 8914, 4.16).
pub const EDE_BLOCKED: u16 = 15;

/// Parameters of SVCB with addresses (RFC 9460, 7.3).
const IPV4HINT: u16 = 4;
const IPV6HINT: u16 = 6;

//----------- Judgement ------------------------------------------------------

/// What is to become of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It stays as it is.
    Pass,
    /// Only its additional section leads inside: it is answered as [`without_additional`] has it.
    ///
    /// [`without_additional`]: Rebinding::without_additional
    WithoutAdditional,
    /// Its answer leads inside: the client gets what [`emptied`] makes, with [`EDE_BLOCKED`].
    ///
    /// [`emptied`]: Rebinding::emptied
    Blocked(IpAddr),
}

//----------- Rebinding ------------------------------------------------------

/// The names that may have private addresses.
#[derive(Clone, Debug, Default)]
pub struct Rebinding {
    /// In wire form, lower case.
    allowed: HashSet<Box<[u8]>>,
}

impl Rebinding {
    /// Names at or below these are excepted.
    pub fn new(allowed: &[Name]) -> Rebinding {
        let wire = |name: &Name| name.to_lowercase().as_wire().into();
        Rebinding { allowed: allowed.iter().map(wire).collect() }
    }

    /// Whether `name` may have private addresses.
    pub fn allows(&self, name: &LowerName) -> bool {
        !self.allowed.is_empty()
            && (0..=name.depth()).any(|depth| self.allowed.contains(name.suffix(depth)))
    }

    /// Judges the response `message` to a question for `name`. Reads each record once.
    pub fn judge(&self, message: &[u8], name: &LowerName) -> Result<Judgement, Malformed> {
        if self.allows(name) {
            return Ok(Judgement::Pass);
        }
        let mut judgement = Judgement::Pass;
        for record in Message::new(message).ok_or(Malformed)?.records()? {
            let record = record?;
            match (record.section, private_in(message, &record)?) {
                (Section::Answer, Some(address)) => return Ok(Judgement::Blocked(address)),
                (_, Some(_)) => judgement = Judgement::WithoutAdditional,
                (_, None) => {}
            }
        }
        Ok(judgement)
    }

    /// The response `message` with OPT as the only record of its additional section.
    pub fn without_additional(message: &[u8]) -> Result<Vec<u8>, Malformed> {
        let read = Message::new(message).ok_or(Malformed)?;
        let (mut end, mut opt) = (read.questions_end()?, None);
        for record in read.records()? {
            let record = record?;
            if record.section < Section::Additional {
                end = record.rdata.end;
            } else if record.rtype == rtype::OPT {
                opt = Some(record.at..record.rdata.end);
            }
        }
        let mut left = message[..end].to_vec();
        left[10..12].fill(0);
        if let Some(opt) = opt {
            left.extend_from_slice(&message[opt]);
            add_to_count(&mut left, Section::Additional as usize, 1);
        }
        Ok(left)
    }

    /// The response `message` with its question and nothing else: NOERROR, not authoritative,
    /// whole, and not authentic.
    pub fn emptied(message: &[u8]) -> Result<Vec<u8>, Malformed> {
        const AUTHENTIC: u16 = 0x0020;
        const RCODE: u16 = 0xF;
        let read = Message::new(message).ok_or(Malformed)?;
        let flags = read.flags() & !(header::AA | header::TC | AUTHENTIC | RCODE);
        let mut left = message[..read.questions_end()?].to_vec();
        left[2..4].copy_from_slice(&flags.to_be_bytes());
        left[6..12].fill(0);
        Ok(left)
    }
}

/// The first private address in a record of the answer or additional section.
fn private_in(message: &[u8], record: &RecordAt) -> Result<Option<IpAddr>, Malformed> {
    if record.class != CLASS_IN {
        return Ok(None);
    }
    let rdata = &message[record.rdata.clone()];
    match record.rtype {
        rtype::A => {
            let octets: [u8; 4] = rdata.try_into().map_err(|_| Malformed)?;
            Ok(private(Ipv4Addr::from(octets).into()))
        }
        rtype::AAAA => {
            let octets: [u8; 16] = rdata.try_into().map_err(|_| Malformed)?;
            Ok(private(Ipv6Addr::from(octets).into()))
        }
        rtype::SVCB | rtype::HTTPS => {
            // SvcPriority, then TargetName (RFC 9460, 2.2).
            let parameters = skip_name(message, record.rdata.start + 2).ok_or(Malformed)?;
            private_hint(message.get(parameters..record.rdata.end).ok_or(Malformed)?)
        }
        _ => Ok(None),
    }
}

/// The first private address in the hints of SvcParams.
fn private_hint(mut parameters: &[u8]) -> Result<Option<IpAddr>, Malformed> {
    while let Some((fixed, rest)) = parameters.split_first_chunk::<4>() {
        let key = u16::from_be_bytes([fixed[0], fixed[1]]);
        let len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        let (value, rest) = rest.split_at_checked(len).ok_or(Malformed)?;
        parameters = rest;
        let found = match key {
            IPV4HINT => {
                let (hints, left) = value.as_chunks::<4>();
                let found = hints.iter().find_map(|&hint| private(Ipv4Addr::from(hint).into()));
                (found, left)
            }
            IPV6HINT => {
                let (hints, left) = value.as_chunks::<16>();
                let found = hints.iter().find_map(|&hint| private(Ipv6Addr::from(hint).into()));
                (found, left)
            }
            _ => (None, &[][..]),
        };
        match found {
            (_, [_, ..]) => return Err(Malformed),
            (Some(address), _) => return Ok(Some(address)),
            (None, _) => {}
        }
    }
    if parameters.is_empty() { Ok(None) } else { Err(Malformed) }
}

/// `address`, if it leads to this machine or to networks that are not the internet's.
fn private(address: IpAddr) -> Option<IpAddr> {
    let is_private = match address {
        IpAddr::V4(v4) => is_private_v4(v4),
        IpAddr::V6(v6) => is_private_v6(v6),
    };
    is_private.then_some(address)
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    // 0.0.0.0 reaches this machine on many systems.
    a == 0
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        // RFC 6598: behind the provider's translator.
        || (a == 100 && b & 0xC0 == 64)
        || address.is_broadcast()
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    const TRANSLATED: u128 = 0x0064_FF9B << 96;
    let bits = address.to_bits();
    if let Some(v4) = address.to_ipv4_mapped() {
        return is_private_v4(v4);
    }
    // RFC 6052, 2.1: 64:ff9b::/96 holds an IPv4 address, which a translator reaches.
    if bits & !u128::from(u32::MAX) == TRANSLATED {
        return is_private_v4(Ipv4Addr::from_bits(bits as u32));
    }
    let first = address.segments()[0];
    // ::/96 holds the unspecified address, loopback, and what RFC 4291 once had for IPv4.
    bits >> 32 == 0
        || first & 0xFE00 == 0xFC00
        || first & 0xFFC0 == 0xFE80
        // Site-local, until RFC 3879.
        || first & 0xFFC0 == 0xFEC0
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::message::Writer;

    const ASKED: &[u8] = b"\x03www\x04evil\x07example\0";

    fn lower(wire: &[u8]) -> LowerName {
        let mut lower = LowerName::new();
        lower.read(wire).unwrap();
        lower
    }

    fn judged(rebinding: &Rebinding, octets: &[u8]) -> Judgement {
        rebinding.judge(octets, &lower(ASKED)).unwrap()
    }

    fn response(records: &[(Section, u16, &[u8])]) -> Vec<u8> {
        let mut writer = Writer::new(1, header::QR | header::AA | header::RD | 0x0020 | 3);
        writer.question(ASKED, rtype::A, CLASS_IN);
        for (section, rtype, rdata) in records {
            writer.record(*section, ASKED, *rtype, 60, rdata);
        }
        writer.opt(1232, Some((10, &[1; 8])));
        writer.into_octets()
    }

    fn rdata(text: &str) -> (u16, Vec<u8>) {
        match text.parse().unwrap() {
            IpAddr::V4(v4) => (rtype::A, v4.octets().into()),
            IpAddr::V6(v6) => (rtype::AAAA, v6.octets().into()),
        }
    }

    #[test]
    fn the_edges_of_what_is_private() {
        let is_blocked = |text: &str| {
            let (rtype, rdata) = rdata(text);
            let octets = response(&[(Section::Answer, rtype, &rdata)]);
            judged(&Rebinding::default(), &octets) == Judgement::Blocked(text.parse().unwrap())
        };
        let inside = "0.0.0.0 0.255.255.255 10.0.0.0 10.255.255.255 100.64.0.0 100.127.255.255 \
            127.0.0.1 127.255.255.255 169.254.0.0 169.254.255.255 172.16.0.0 172.31.255.255 \
            192.168.0.0 192.168.255.255 255.255.255.255 \
            :: ::1 ::192.168.0.1 ::ffff:10.0.0.1 64:ff9b::10.0.0.1 fc00:: fdff::1 fe80:: \
            febf:ffff::1 fec0::1 feff::1";
        for text in inside.split_whitespace() {
            assert!(is_blocked(text), "{text}");
        }
        let outside = "1.0.0.0 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 \
            128.0.0.0 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.167.255.255 \
            192.169.0.0 255.255.255.254 \
            ::1:0:0 ::ffff:8.8.8.8 64:ff9b::8.8.8.8 64:ff9b:1::10.0.0.1 fbff::1 fe00:: ff02::1 \
            2001:db8::1";
        for text in outside.split_whitespace() {
            assert!(!is_blocked(text), "{text}");
        }
    }

    #[test]
    fn one_private_address_is_enough() {
        let (public, private) = ([192, 0, 2, 1], [192, 168, 0, 1]);
        let both =
            [(Section::Answer, rtype::A, &public[..]), (Section::Answer, rtype::A, &private[..])];
        let octets = response(&both);
        let blocked = Judgement::Blocked(private.into());
        assert_eq!(judged(&Rebinding::default(), &octets), blocked);
        let emptied = Rebinding::emptied(&octets).unwrap();
        let read = Message::new(&emptied).unwrap();
        assert_eq!(read.flags(), header::QR | header::RD);
        assert_eq!([0, 1, 2, 3].map(|section| read.count(section)), [1, 0, 0, 0]);
        assert_eq!(read.question().unwrap().unwrap().name, ASKED);
        assert_eq!(read.questions_end(), Ok(emptied.len()));
    }

    #[test]
    fn exceptions_are_for_the_name_that_was_asked() {
        let octets = response(&[(Section::Answer, rtype::A, &[10, 0, 0, 1])]);
        let judged = |names: &[&str]| {
            let names: Vec<Name> = names.iter().map(|name| name.parse().unwrap()).collect();
            judged(&Rebinding::new(&names), &octets)
        };
        for excepted in ["www.evil.example.", "EVIL.example.", "example.", "."] {
            assert_eq!(judged(&["other.", excepted]), Judgement::Pass, "{excepted}");
        }
        let others = ["a.www.evil.example.", "vil.example.", "ww.evil.example."];
        assert_ne!(judged(&others), Judgement::Pass);
        // An alias into a name that is excepted.
        let mut writer = Writer::new(1, header::QR);
        writer.question(ASKED, rtype::A, CLASS_IN);
        let target = b"\x02db\x04corp\0";
        writer.record(Section::Answer, ASKED, rtype::CNAME, 60, target);
        writer.record(Section::Answer, target, rtype::A, 60, &[10, 0, 0, 1]);
        let rebinding = Rebinding::new(&["corp.".parse().unwrap()]);
        let octets = writer.into_octets();
        assert_eq!(
            rebinding.judge(&octets, &lower(ASKED)),
            Ok(Judgement::Blocked([10, 0, 0, 1].into()))
        );
        assert_eq!(rebinding.judge(&octets, &lower(target)), Ok(Judgement::Pass));
    }

    #[test]
    fn hints_of_services() {
        let service = |parameters: &[u8]| [b"\0\x01\x03svc\0", parameters].concat();
        let of = |parameters: &[u8]| {
            let octets = response(&[(Section::Answer, rtype::HTTPS, &service(parameters))]);
            Rebinding::default().judge(&octets, &lower(ASKED))
        };
        let public = [0, 4, 0, 4, 192, 0, 2, 1];
        assert_eq!(of(b"\0\x01\0\x03\x02h2"), Ok(Judgement::Pass));
        assert_eq!(of(&public), Ok(Judgement::Pass));
        assert_eq!(of(&[]), Ok(Judgement::Pass));
        let second = [0, 4, 0, 8, 192, 0, 2, 1, 127, 0, 0, 1];
        assert_eq!(of(&second), Ok(Judgement::Blocked([127, 0, 0, 1].into())));
        let six = [&public[..], &[0, 6, 0, 16, 0xFD], &[0; 15]].concat();
        assert_eq!(of(&six), Ok(Judgement::Blocked("fd00::".parse().unwrap())));
        for broken in [&b"\0\x04\0\x05\x01\x01\x01\x01"[..], b"\0\x04\0\x03\x01\x01\x01", b"\0"] {
            assert_eq!(of(broken), Err(Malformed), "{broken:?}");
        }
    }

    #[test]
    fn only_the_additional_section_goes() {
        let octets = response(&[
            (Section::Answer, rtype::MX, b"\0\x0A\xC0\x0C"),
            (Section::Additional, rtype::A, &[10, 0, 0, 1]),
        ]);
        assert_eq!(judged(&Rebinding::default(), &octets), Judgement::WithoutAdditional);
        let left = Rebinding::without_additional(&octets).unwrap();
        assert_eq!(judged(&Rebinding::default(), &left), Judgement::Pass);
        let types = |octets: &[u8]| -> Vec<u16> {
            let records = Message::new(octets).unwrap().records().unwrap();
            records.map(|record| record.unwrap().rtype).collect()
        };
        assert_eq!(types(&left), [rtype::MX, rtype::OPT]);
        // Other classes have other addresses.
        let mut writer = Writer::new(1, header::QR);
        writer.record_of(Section::Answer, ASKED, (rtype::A, 3, 60), &[10, 0, 0, 1]);
        assert_eq!(judged(&Rebinding::default(), &writer.into_octets()), Judgement::Pass);
    }

    proptest! {
        #[test]
        fn any_octets_are_judged(
            mut octets in prop::collection::vec(any::<u8>(), 0..200),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            whole in any::<bool>(),
        ) {
            if whole {
                octets = response(&[
                    (Section::Answer, rtype::HTTPS, b"\0\x01\0\0\x04\0\x04\x7F\0\0\x01"),
                    (Section::Additional, rtype::AAAA, &[0; 16]),
                ]);
                for (index, octet) in flips {
                    let at = index.index(octets.len());
                    octets[at] = octet;
                }
            }
            let _ = Rebinding::default().judge(&octets, &lower(ASKED));
            let lefts = [Rebinding::emptied(&octets), Rebinding::without_additional(&octets)];
            for left in lefts.into_iter().flatten() {
                prop_assert!(left.len() <= octets.len());
                prop_assert!(Message::new(&left).unwrap().questions_end().is_ok());
            }
        }
    }
}
