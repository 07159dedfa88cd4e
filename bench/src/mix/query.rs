//! A query's octets: question, and what stands beside it.
//!
//! ```text
//!   | 0 0 | RD AD CD | 1 | 0 | 0 | n |  question  | OPT: size, DO, COOKIE, client subnet |
//! ```

use std::collections::HashMap;

use ring53::wire::message::CLASS_IN;
use ring53::wire::rtype;

use super::{QuestionsBuilder, Traits};
use crate::zones::queries::Random;

/// EDNS size of a query that has DO or an option, if no other was said (RFC 9715, 3.1).
pub const EDNS_SIZE: u16 = 1232;
/// Client networks that subnets are drawn from.
pub const NETWORKS: usize = 256;
const OPTION_CLIENT_SUBNET: u16 = 8;
const OPTION_COOKIE: u16 = 10;
/// Octets of a query at most: the header, a name, OPT with two options.
const QUERY_LEN_MAX: usize = 512;

/// What a query has besides its question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Variant {
    /// Over a stream.
    pub stream: bool,
    /// The case of each letter drawn.
    pub mixed_case: bool,
    /// The UDP size of its OPT record; `None`: there is none.
    pub edns: Option<u16>,
    /// DO: send signatures (RFC 3225).
    pub dnssec_ok: bool,
    /// RD.
    pub recursion_desired: bool,
    /// AD (RFC 6840, 5.7).
    pub authentic: bool,
    /// CD.
    pub checking_disabled: bool,
    /// A client cookie (RFC 7873).
    pub cookie: bool,
    /// A client subnet (RFC 7871): the number of one of [`NETWORKS`], from 1 on; 0: none.
    pub network: u16,
}

impl Variant {
    /// The UDP size, where one is needed.
    fn size(&self) -> Option<u16> {
        let needed = self.dnssec_ok || self.cookie || self.network > 0;
        self.edns.or(needed.then_some(EDNS_SIZE))
    }
}

//----------- Composer -------------------------------------------------------

/// Composes queries: each question in each variant once, however often it is asked.
pub struct Composer {
    builder: QuestionsBuilder,
    known: HashMap<(u64, Variant), u32>,
    cookie: [u8; 8],
    networks: Vec<u8>,
    octets: Vec<u8>,
}

impl Composer {
    /// Draws a client cookie and networks.
    pub fn new(random: &mut Random) -> Composer {
        let mut networks = Vec::with_capacity(NETWORKS * 7);
        for _ in 0..NETWORKS {
            // Every fourth is an IPv6 one. First octets 1 to 126: unicast, and not loopback's.
            let drawn = random.below(1 << 40).to_be_bytes();
            let octet = 1 + (drawn[3] % 126);
            if networks.len() % 28 == 0 {
                networks.extend([0x20, octet, drawn[4], drawn[5], drawn[6], drawn[7], 0]);
            } else {
                networks.extend([0, octet, drawn[4], drawn[5], 0, 0, 0]);
            }
        }
        Composer {
            builder: QuestionsBuilder::default(),
            known: HashMap::new(),
            cookie: random.below(u64::MAX).to_be_bytes(),
            networks,
            octets: Vec::with_capacity(QUERY_LEN_MAX),
        }
    }

    /// Asks for `qtype` of `name` next. `question` is the caller's number of this question;
    /// `fresh` octets of the first label are drawn anew each time.
    pub fn ask(&mut self, question: u64, name: &[u8], qtype: u16, fresh: u8, variant: Variant) {
        let index = match self.known.get(&(question, variant)) {
            Some(&index) => index,
            None => {
                let index = self.add(name, qtype, fresh, variant);
                self.known.insert((question, variant), index);
                index
            }
        };
        self.builder.ask(index);
    }

    fn add(&mut self, name: &[u8], qtype: u16, fresh: u8, variant: Variant) -> u32 {
        let octets = &mut self.octets;
        octets.clear();
        let flags = u16::from(variant.recursion_desired) << 8
            | u16::from(variant.authentic) << 5
            | u16::from(variant.checking_disabled) << 4;
        let size = variant.size();
        for word in [0, flags, 1, 0, 0, u16::from(size.is_some())] {
            octets.extend(word.to_be_bytes());
        }
        octets.extend_from_slice(name);
        octets.extend(qtype.to_be_bytes());
        octets.extend(CLASS_IN.to_be_bytes());
        if let Some(size) = size {
            octets.push(0);
            octets.extend(rtype::OPT.to_be_bytes());
            octets.extend(size.to_be_bytes());
            octets.extend([0, 0, u8::from(variant.dnssec_ok) << 7, 0]);
            let len_at = octets.len();
            octets.extend([0, 0]);
            if variant.network > 0 {
                let at = usize::from(variant.network - 1) % NETWORKS * 7;
                subnet(&self.networks[at..at + 7], octets);
            }
            if variant.cookie {
                octets.extend(OPTION_COOKIE.to_be_bytes());
                octets.extend((self.cookie.len() as u16).to_be_bytes());
                octets.extend(self.cookie);
            }
            let len = (octets.len() - len_at - 2) as u16;
            octets[len_at..len_at + 2].copy_from_slice(&len.to_be_bytes());
        }
        let Variant { stream, mixed_case, .. } = variant;
        self.builder.add(octets, name.len() + 4, Traits { fresh, mixed_case, stream })
    }

    /// What was composed.
    pub fn finish(self) -> QuestionsBuilder {
        self.builder
    }
}

/// Writes the option of a network: IPv6 if it starts with 0x20, else IPv4 from its second octet.
fn subnet(network: &[u8], out: &mut Vec<u8>) {
    //= RFC 7871, 11.1
    //# recursive resolvers SHOULD limit IPv4 ... to 24 bits ... IPv6 ... 56 bits
    let (family, prefix_len, address) = match network[0] {
        0x20 => (2, 56, &network[..7]),
        _ => (1, 24, &network[1..4]),
    };
    out.extend(OPTION_CLIENT_SUBNET.to_be_bytes());
    out.extend((4 + address.len() as u16).to_be_bytes());
    out.extend([0, family, prefix_len, 0]);
    out.extend_from_slice(address);
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;
    use ring53::wire::LowerName;
    use ring53::wire::query::read_query;

    #[test]
    fn what_is_composed_is_a_query_with_what_was_said() {
        let mut composer = Composer::new(&mut Random::new(1));
        let plain = Variant::default();
        let full = Variant {
            edns: Some(4096),
            dnssec_ok: true,
            recursion_desired: true,
            cookie: true,
            ..plain
        };
        let networks = [1, 2, NETWORKS as u16].map(|network| Variant { network, ..plain });
        for variant in [plain, full, networks[0], networks[1], networks[2], full] {
            composer.ask(7, b"\x03www\x07example\0", rtype::AAAA, 0, variant);
        }
        let questions = composer.finish().build("test".into());
        assert_eq!((questions.len(), questions.order_len()), (5, 6));
        let read = |index| {
            let entry = questions.entry(index);
            let mut octets = questions.message(entry).to_vec();
            let len = octets.len();
            octets.resize(len + 300, 0);
            let query = read_query(&octets, len, &mut LowerName::new()).unwrap();
            assert_eq!(query.qtype, rtype::AAAA);
            assert_eq!(query.question_end, 12 + usize::from(entry.question_len));
            (query, octets[..len].to_vec())
        };
        assert_eq!(read(0).0.edns, None);
        assert_eq!(read(0).1[2..4], [0, 0]);
        let (query, octets) = read(1);
        let edns = query.edns.unwrap();
        assert_eq!((edns.udp_size, edns.dnssec_ok, octets[2]), (4096, true, 1));
        assert_eq!(octets[octets.len() - 12..octets.len() - 8], [0, 10, 0, 8]);
        let (query, octets) = read(2);
        assert_eq!(query.edns.unwrap().udp_size, EDNS_SIZE);
        assert_eq!(octets[query.question_end + 11..][..8], [0, 8, 0, 11, 0, 2, 56, 0]);
        let (query, octets) = read(3);
        assert_eq!(octets[query.question_end + 11..][..8], [0, 8, 0, 7, 0, 1, 24, 0]);
    }
}
