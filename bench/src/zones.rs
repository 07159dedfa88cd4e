//! The zones that are measured.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Shapes of zones that stress different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// `h<n>.example.`: one address each, every fourth an IPv6 one beside it.
    Hosts,
    /// A TLD: `d<n>.example.` delegated, every eighth with glue of its own.
    Delegations,
    /// 10,000 zones of `names / 10,000` hosts each.
    Hosting,
    /// Reverse names of an IPv6 network, 32 labels deep.
    Ip6arpa,
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
    for i in 0..names {
        let [_, b, c, d] = (i as u32).to_be_bytes();
        match shape {
            Shape::Hosts | Shape::Hosting => {
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
            }
            Shape::Ip6arpa => writeln!(file, "{} 3600 IN PTR h{i}.example.org.", nibbles(i))?,
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

fn hosting(names: u64, out: &Path) -> io::Result<()> {
    fs::create_dir_all(out)?;
    for zone in 0..HOSTING_ZONES {
        let file = File::create(out.join(format!("z{zone}.test.zone")))?;
        let mut file = BufWriter::new(file);
        writeln!(file, "$ORIGIN z{zone}.test.\n{APEX}")?;
        for i in 0..(names / HOSTING_ZONES).max(1) {
            let [_, b, c, d] = (i as u32).to_be_bytes();
            writeln!(file, "h{i} 3600 IN A 10.{b}.{c}.{d}")?;
        }
        file.flush()?;
    }
    Ok(())
}
