//! The zones that are measured.

pub mod fleet;
pub mod queries;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Shapes of zones that stress different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// `h<n>.example.`: one address each, every fourth an IPv6 one beside it.
    Hosts,
    /// A TLD: `d<n>.example.` delegated, every eighth with glue of its own, every tenth with a DS.
    Delegations,
    /// 10,000 zones of `names / 10,000` hosts each, ten types, a wildcard and CNAMEs in each.
    Hosting,
    /// Reverse names of an IPv6 network, 32 labels deep.
    Ip6arpa,
    /// The hosts, signed (by `scripts/compare`), asked with DO for names that exist.
    SignedHits,
    /// The same, asked with DO for random names that do not.
    SignedMisses,
    /// What others keep: `h<n>.example.`, one address each for a day, and any name below
    /// `miss.example.`.
    Cached,
}

impl Shape {
    /// Whether queries ask for DNSSEC records.
    pub fn wants_signatures(self) -> bool {
        matches!(self, Shape::SignedHits | Shape::SignedMisses)
    }
}

/// Zones of the hosting shape.
pub const HOSTING_ZONES: u64 = 10_000;

const APEX: &str = "@ 3600 IN SOA ns1 hostmaster 1 3600 900 604800 300\n\
                    @ 3600 IN NS ns1\nns1 3600 IN A 192.0.2.53\n";

/// Writes the zone of `shape` to `out`.
pub fn write(shape: Shape, names: u64, out: &Path) -> io::Result<()> {
    if shape == Shape::Hosting {
        return hosting(names, out);
    }
    let mut file = BufWriter::with_capacity(1 << 20, File::create(out)?);
    write_one(shape, names, &mut file)?;
    file.flush()
}

/// The name of the zone, for all but hosting.
pub fn apex(shape: Shape) -> &'static str {
    match shape {
        Shape::Ip6arpa => "8.b.d.0.1.0.0.2.ip6.arpa.",
        _ => "example.",
    }
}

/// Writes the text of one zone.
pub fn write_one(shape: Shape, names: u64, file: &mut impl Write) -> io::Result<()> {
    writeln!(file, "$ORIGIN {}\n{APEX}", apex(shape))?;
    if shape == Shape::Cached {
        writeln!(file, "*.miss 86400 IN A 192.0.2.53")?;
    }
    for i in 0..names {
        let [_, b, c, d] = (i as u32).to_be_bytes();
        match shape {
            Shape::Hosts | Shape::Hosting | Shape::SignedHits | Shape::SignedMisses => {
                writeln!(file, "h{i} 3600 IN A 10.{b}.{c}.{d}")?;
                if i % 4 == 0 {
                    writeln!(file, "h{i} 3600 IN AAAA 2001:db8::{:x}:{:x}", i >> 16, i & 0xFFFF)?;
                }
            }
            Shape::Delegations => {
                let p = i % 5000;
                if i % 8 == 0 {
                    writeln!(file, "d{i} 86400 IN NS ns1.d{i}\nd{i} 86400 IN NS ns2.d{i}")?;
                    writeln!(file, "ns1.d{i} 86400 IN A 10.{b}.{c}.{d}")?;
                    writeln!(file, "ns2.d{i} 86400 IN A 11.{b}.{c}.{d}")?;
                } else {
                    writeln!(file, "d{i} 86400 IN NS a.ns{p}.net.\nd{i} 86400 IN NS b.ns{p}.net.")?;
                }
                if i % 10 == 0 {
                    writeln!(file, "d{i} 86400 IN DS {} 13 2 {i:064X}", i & 0xFFFF)?;
                }
            }
            Shape::Ip6arpa => writeln!(file, "{} 3600 IN PTR h{i}.example.org.", nibbles(i))?,
            // Not 10/8, as the hosts: caches may keep private addresses from clients.
            Shape::Cached => writeln!(file, "h{i} 86400 IN A 11.{b}.{c}.{d}")?,
        }
    }
    Ok(())
}

/// The 24 lowest nibbles of the address of host `i`, as labels. Networks of 256 hosts.
pub fn nibbles(i: u64) -> String {
    let network = i / 256;
    let host = (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 8 << 8 | i & 0xFF) & 0x00FF_FFFF_FFFF_FFFF;
    let digits = format!("{network:08x}{host:016x}");
    let labels: Vec<String> = digits.chars().rev().map(String::from).collect();
    labels.join(".")
}

/// What every zone of the hosting shape has beside its hosts.
const HOSTING: &str = "@ IN MX 10 mail\n@ IN MX 20 mx.example.net.\n@ IN A 192.0.2.80\n\
    @ IN AAAA 2001:db8::80\n@ IN TXT \"v=spf1 mx -all\"\n@ IN CAA 0 issue \"ca.example.net\"\n\
    www IN CNAME @\nftp IN CNAME www\nmail IN A 192.0.2.25\n*.apps IN A 192.0.2.81\n\
    _sip._tcp IN SRV 0 5 5060 mail\n_25._tcp.mail IN TLSA 3 1 1 \
    0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF\n\
    mail IN SSHFP 4 2 0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF\n";

fn hosting(names: u64, out: &Path) -> io::Result<()> {
    fs::create_dir_all(out)?;
    for zone in 0..HOSTING_ZONES {
        let file = File::create(out.join(format!("z{zone}.test.zone")))?;
        let mut file = BufWriter::new(file);
        write_hosting(zone, names, &mut file)?;
        file.flush()?;
    }
    Ok(())
}

/// Writes the text of `z<zone>.test.`.
pub fn write_hosting(zone: u64, names: u64, file: &mut impl Write) -> io::Result<()> {
    writeln!(file, "$TTL 3600\n$ORIGIN z{zone}.test.\n{APEX}{HOSTING}")?;
    for i in 0..(names / HOSTING_ZONES).max(1) {
        let [_, b, c, d] = (i as u32).to_be_bytes();
        writeln!(file, "h{i} IN A 10.{b}.{c}.{d}")?;
    }
    Ok(())
}
