//! Seeded traffic with a popularity, names that come and go, and bursts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ring53_bench::mix::draw::{Popularity, uniform};
use ring53_bench::zones::queries::Random;

/// One query.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    pub at_ns: u64,
    pub client: usize,
    pub name: usize,
    pub qtype: u16,
    pub stream: bool,
    pub edns: Option<u16>,
    pub dnssec_ok: bool,
    pub mixed_case: bool,
}

/// What traffic is like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub exponent: f64,
    pub names: usize,
    pub queries: usize,
    /// Share of the queries after which the name of one rank is another.
    pub churn: f64,
    /// Share of the queries that begin a burst of the same question.
    pub bursts: f64,
    /// Queries a second.
    pub rate: f64,
}

pub const CLIENTS: usize = 200;

/// Traffic of this shape, in the order of time.
pub fn traffic(shape: Shape, seed: u64) -> Vec<Query> {
    let mut random = Random::new(seed);
    let draws = Popularity::Zipf(shape.exponent).over(shape.names);
    let clients = Popularity::Zipf(0.9).over(CLIENTS);
    let mut ranked: Vec<usize> = (0..shape.names).collect();
    let mut next_name = shape.names;
    let mut queries = Vec::with_capacity(shape.queries * 2);
    // More than are wanted: what is later than the last of them has only repetitions.
    let mut at_ns = 1_700_000_000_000_000_000u64;
    for _ in 0..shape.queries {
        // Clients are quiet for a while, then not.
        let gap = -uniform(&mut random).ln() / shape.rate * 1e9;
        at_ns += (gap * if random.below(10) == 0 { 6.4 } else { 0.4 }) as u64 / 1000 * 1000;
        let rank = draws.draw(&mut random);
        if uniform(&mut random) < shape.churn {
            ranked[rank] = next_name;
            next_name += 1;
        }
        let name = ranked[rank];
        let qtype = match name % 10 {
            0..=5 => 1,
            6 | 7 => [1, 28][random.below(2) as usize],
            8 => [1, 65][random.below(2) as usize],
            _ => 12,
        };
        let query = Query {
            at_ns,
            client: clients.draw(&mut random),
            name,
            qtype,
            stream: random.below(50) == 0,
            edns: (random.below(4) > 0).then_some(1232),
            dnssec_ok: random.below(3) == 0,
            mixed_case: random.below(10) == 0,
        };
        let query = Query { dnssec_ok: query.dnssec_ok && query.edns.is_some(), ..query };
        queries.push(query);
        if uniform(&mut random) < shape.bursts {
            // The same again, from a few microseconds to half a minute later.
            for _ in 0..1 + random.below(12) {
                let later = 10f64.powf(3.0 + 7.5 * uniform(&mut random)) as u64 / 1000 * 1000;
                queries.push(Query { at_ns: at_ns + later, ..query });
            }
        }
    }
    queries.sort_by_key(|query| query.at_ns);
    queries.truncate(shape.queries);
    queries
}

/// Names and addresses: another seed gives others of the same form.
pub struct Identities {
    seed: u64,
}

impl Identities {
    pub fn new(seed: u64) -> Identities {
        Identities { seed }
    }

    fn random(&self, of: u64) -> Random {
        let mut random = Random::new(self.seed.wrapping_mul(0x9E37_79B9) ^ of << 20 | 1);
        (0..8).for_each(|_| {
            random.below(2);
        });
        random
    }

    /// The labels of a name: how long they are depends on its number alone.
    pub fn labels(&self, name: usize) -> Vec<Vec<u8>> {
        let mut random = self.random(name as u64);
        let mut form = Random::new(name as u64 + 1);
        let label = |len: u64, random: &mut Random| {
            (0..len).map(|_| b'a' + random.below(26) as u8).collect()
        };
        let count = 1 + form.below(3);
        let mut labels: Vec<Vec<u8>> =
            (0..count).map(|_| label(6 + form.below(9), &mut random)).collect();
        // What tells names apart, whatever is drawn.
        labels[0].extend(format!("{:05}", name % 100_000).bytes().map(|digit| digit + 50));
        labels.push(label(9, &mut self.random(1 << 40)));
        labels
    }

    pub fn wire(&self, query: &Query) -> Vec<u8> {
        let mut wire = Vec::new();
        for mut label in self.labels(query.name) {
            if query.mixed_case {
                label.iter_mut().step_by(2).for_each(u8::make_ascii_uppercase);
            }
            wire.push(label.len() as u8);
            wire.extend(label);
        }
        wire.push(0);
        wire
    }

    /// Every third client has an IPv6 address.
    pub fn address(&self, client: usize) -> IpAddr {
        let mut random = self.random(1 << 41 | client as u64);
        let mut octet = || 1 + random.below(250) as u8;
        if client.is_multiple_of(3) {
            let octets: [u8; 16] = std::array::from_fn(|_| octet());
            Ipv6Addr::from(octets).into()
        } else {
            Ipv4Addr::new(octet(), octet(), octet(), (client % 250) as u8 + 1).into()
        }
    }

    pub fn server(&self, like: IpAddr) -> IpAddr {
        match like {
            IpAddr::V4(_) => Ipv4Addr::new(203, 0, 113, (self.seed % 250) as u8 + 1).into(),
            IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xDB8, self.seed as u16, 0, 0, 0, 0, 53).into(),
        }
    }

    /// The message of a query, and that of its answer.
    pub fn messages(&self, query: &Query, id: u16) -> (Vec<u8>, Vec<u8>) {
        let mut message = id.to_be_bytes().to_vec();
        message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(query.edns.is_some())]);
        message.extend(self.wire(query));
        message.extend(query.qtype.to_be_bytes());
        message.extend([0, 1]);
        let question_end = message.len();
        if let Some(size) = query.edns {
            message.extend([0, 0, 41]);
            message.extend(size.to_be_bytes());
            message.extend([0, 0, u8::from(query.dnssec_ok) << 7, 0, 0, 0]);
        }
        let mut answer = message[..question_end].to_vec();
        answer[2..4].copy_from_slice(&[0x81, 0x80]);
        answer[11] = 0;
        match query.name % 7 {
            0 => answer[3] |= 3,
            1 => {}
            _ => {
                answer[7] = 1;
                answer.extend([0xC0, 12, 0, 16, 0, 1, 0, 0, 0, 60, 0, 3, 2, b'o', b'k']);
            }
        }
        (message, answer)
    }
}
