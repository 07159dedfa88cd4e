//! Queries over the zones: 70 % A, 20 % AAAA, 9 % names that do not exist, 1 % of other kinds;
//! over the hosting shape all that its zones have.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::zones::{HOSTING_ZONES, Shape, apex, nibbles};

/// A small generator: xorshift64*.
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next value below `below`.
    pub fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let word = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D);
        ((u128::from(word) * u128::from(below)) >> 64) as u64
    }
}

/// Writes `count` queries.
pub fn write(shape: Shape, names: u64, count: u64, seed: u64, out: &Path) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(out)?);
    let mut random = Random::new(seed);
    for _ in 0..count {
        let (name, rtype) = query(shape, names, &mut random);
        writeln!(file, "{name} {rtype}{}", if shape.wants_signatures() { " D" } else { "" })?;
    }
    file.flush()
}

/// One query.
pub fn query(shape: Shape, names: u64, random: &mut Random) -> (String, &'static str) {
    let kind = random.below(100);
    let i = random.below(names);
    about(shape, names, kind, i, random)
}

/// One query about the `i`th of the names; `kind`, below 100, says what of it.
pub fn about(
    shape: Shape,
    names: u64,
    kind: u64,
    i: u64,
    random: &mut Random,
) -> (String, &'static str) {
    let miss = (70 + 20..70 + 20 + 9).contains(&kind);
    let rtype = match kind {
        0..70 | 90..99 => "A",
        70..90 => "AAAA",
        _ => "MX",
    };
    let apex = apex(shape);
    match (shape, miss) {
        (Shape::Hosts, false) => (format!("h{i}.{apex}"), rtype),
        (Shape::Hosts, true) => (format!("x{i}.{apex}"), rtype),
        (Shape::Delegations, false) => (format!("www.d{i}.{apex}"), rtype),
        (Shape::Delegations, true) => (format!("x{i}.{apex}"), rtype),
        (Shape::Hosting, _) => {
            let zone = format!("z{}.test.", random.below(HOSTING_ZONES));
            let host = i % (names / HOSTING_ZONES).max(1);
            match kind {
                0..40 => (format!("h{host}.{zone}"), "A"),
                40..50 => (format!("www.{zone}"), "A"),
                50..53 => (format!("ftp.{zone}"), "AAAA"),
                53..60 => (zone, "A"),
                60..70 => (zone, "MX"),
                70..75 => (zone, "TXT"),
                75..80 => (format!("host{host}.apps.{zone}"), "A"),
                80..85 => (zone, "NS"),
                85..90 => (format!("mail.{zone}"), "AAAA"),
                90..99 => (format!("x{host}.{zone}"), "A"),
                _ => (format!("_sip._tcp.{zone}"), "SRV"),
            }
        }
        (Shape::SignedHits | Shape::Cached, _) => (format!("h{i}.{apex}"), "A"),
        (Shape::SignedMisses, _) => (format!("x{:x}.{apex}", random.below(1 << 48)), "A"),
        (Shape::Ip6arpa, false) => (format!("{}.{apex}", nibbles(i)), "PTR"),
        (Shape::Ip6arpa, true) => (format!("{}.{apex}", nibbles(i ^ 0x5555_0000)), "PTR"),
    }
}

/// A query for the last name of the zone.
pub fn last(shape: Shape, names: u64) -> String {
    let last = names - 1;
    let apex = apex(shape);
    match shape {
        Shape::Hosts | Shape::SignedHits | Shape::SignedMisses | Shape::Cached => {
            format!("h{last}.{apex} A")
        }
        Shape::Delegations => format!("d{last}.{apex} A"),
        Shape::Hosting => {
            let host = (names / HOSTING_ZONES).max(1) - 1;
            format!("h{host}.z{}.test. A", HOSTING_ZONES - 1)
        }
        Shape::Ip6arpa => format!("{}.{apex} PTR", nibbles(last)),
    }
}
