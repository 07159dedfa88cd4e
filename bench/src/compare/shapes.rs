//! The zones of a comparison on disk, and their new versions.
//!
//! ```text
//!   write ──> a serial of ten digits ──> sign ──> files           load, memory
//!   the serial's digits are written over, in their place  ──>  the next version, to be reloaded
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::contenders::command;
use super::upstream::Carrier;
use crate::mix::expect::Answers;
use crate::mix::zone::from_file;
use crate::zones::{self, HOSTING_ZONES};

/// The serial that zones begin with: its digits are as many as those of any later one.
const SERIAL_FIRST: u32 = 1_000_000_001;

//----------- Shape ----------------------------------------------------------

/// Shapes of zones that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// One flat zone: an address each.
    Hosts,
    /// A TLD.
    Delegations,
    /// 10,000 zones, ten types, wildcards, aliases.
    Hosting,
    /// Reverse names of an IPv6 network.
    Ip6arpa,
    /// The hosts, signed with NSEC3 (no salt, iterations or opt-out) by dnssec-signzone, asked
    /// with DO.
    Signed,
    /// One address each, of an authority on the generator's side, asked of caches over UDP that
    /// were asked for all of them before.
    Cached,
    /// Names that nobody has asked for before, asked of caches that ask over TLS.
    CachedTls,
    /// The same over HTTPS.
    CachedHttps,
}

impl Shape {
    /// Its name, as in `--shapes`.
    pub fn name(self) -> &'static str {
        match self {
            Shape::Hosts => "hosts",
            Shape::Delegations => "delegations",
            Shape::Hosting => "hosting",
            Shape::Ip6arpa => "ip6arpa",
            Shape::Signed => "signed",
            Shape::Cached => "cached",
            Shape::CachedTls => "cached-tls",
            Shape::CachedHttps => "cached-https",
        }
    }

    /// How caches ask for its names; `None`: authorities have them.
    pub fn carrier(self) -> Option<Carrier> {
        match self {
            Shape::Cached => Some(Carrier::Udp),
            Shape::CachedTls => Some(Carrier::Tls),
            Shape::CachedHttps => Some(Carrier::Https),
            _ => None,
        }
    }

    /// The shape that is written and asked for.
    pub fn of_zones(self) -> zones::Shape {
        match self {
            Shape::Hosts => zones::Shape::Hosts,
            Shape::Delegations => zones::Shape::Delegations,
            Shape::Hosting => zones::Shape::Hosting,
            Shape::Ip6arpa => zones::Shape::Ip6arpa,
            Shape::Signed => zones::Shape::SignedHits,
            Shape::Cached | Shape::CachedTls | Shape::CachedHttps => zones::Shape::Cached,
        }
    }
}

//----------- Zones ----------------------------------------------------------

/// Zones in files.
#[derive(Debug)]
pub struct Zones {
    /// Their shape.
    pub shape: Shape,
    /// Names in all.
    pub names: u64,
    /// The name and the file of each.
    pub files: Vec<(String, PathBuf)>,
    /// Where in its file each has its serial.
    serials_at: Vec<u64>,
    serial: AtomicU32,
}

impl Zones {
    /// Writes zones of `shape` with `names` in all into `directory`, and signs them if they are to
    /// be signed.
    pub fn write(shape: Shape, names: u64, directory: &Path) -> io::Result<Zones> {
        fs::create_dir_all(directory)?;
        let path = directory.join("zone");
        zones::write(shape.of_zones(), names, &path)?;
        let files = match shape {
            Shape::Hosting => (0..HOSTING_ZONES)
                .map(|zone| (format!("z{zone}.test."), path.join(format!("z{zone}.test.zone"))))
                .collect(),
            _ => vec![(zones::apex(shape.of_zones()).to_string(), path)],
        };
        let mut zones = Zones {
            shape,
            names,
            files,
            serials_at: Vec::new(),
            serial: AtomicU32::new(SERIAL_FIRST),
        };
        for (name, file) in &zones.files {
            widen_serial(file)?;
            if shape == Shape::Signed {
                sign(name, file, directory)?;
            }
            zones.serials_at.push(find_serial(file)?);
        }
        Ok(zones)
    }

    /// A tiny zone in `directory`.
    #[cfg(test)]
    pub fn for_test(directory: &Path) -> Zones {
        Zones::write(Shape::Hosts, 10, directory).unwrap()
    }

    /// Where they are, and what belongs to them.
    pub fn directory(&self) -> &Path {
        self.files.first().and_then(|(_, file)| file.parent()).unwrap_or(Path::new(""))
    }

    /// What they say, read and answered in process.
    pub fn answers(&self) -> io::Result<Answers> {
        let read = |(name, file): &(String, PathBuf)| {
            from_file(&name.parse().map_err(io::Error::other)?, file)
        };
        let zones: Vec<_> = self.files.iter().map(read).collect::<io::Result<_>>()?;
        Ok(Answers::new(&zones))
    }

    /// Whether they are signed.
    pub fn is_signed(&self) -> bool {
        self.shape == Shape::Signed
    }

    /// Octets of text in all.
    pub fn octets(&self) -> io::Result<u64> {
        self.files.iter().map(|(_, file)| Ok(fs::metadata(file)?.len())).sum()
    }

    /// The serial of the version on disk.
    pub fn serial(&self) -> u32 {
        self.serial.load(Ordering::Relaxed)
    }

    /// Makes the next version of all zones; returns its serial.
    ///
    /// Only the serial is another, and the signature over it is then wrong, which no server looks
    /// at: each reads the whole file again all the same.
    pub fn renew(&self) -> io::Result<u32> {
        let serial = self.serial() + 1;
        let digits = serial.to_string();
        for ((_, path), &at) in self.files.iter().zip(&self.serials_at) {
            OpenOptions::new().write(true).open(path)?.write_all_at(digits.as_bytes(), at)?;
        }
        self.serial.store(serial, Ordering::Relaxed);
        Ok(serial)
    }
}

/// Gives the zone in `file`, whose serial is 1, one of ten digits.
fn widen_serial(file: &Path) -> io::Result<()> {
    let text = fs::read(file)?;
    let mark = b"SOA ns1 hostmaster 1 ";
    let at = position(&text, mark).ok_or_else(|| no_serial(file))? + mark.len() - 2;
    let wide = SERIAL_FIRST.to_string();
    let whole = [&text[..at], wide.as_bytes(), &text[at + 1..]].concat();
    fs::write(file, whole)
}

/// Where the first serial stands.
fn find_serial(file: &Path) -> io::Result<u64> {
    let mut head = Vec::new();
    File::open(file)?.take(1 << 20).read_to_end(&mut head)?;
    let at = position(&head, SERIAL_FIRST.to_string().as_bytes());
    at.map(|at| at as u64).ok_or_else(|| no_serial(file))
}

fn position(text: &[u8], wanted: &[u8]) -> Option<usize> {
    // The serial is within the first records.
    let text = &text[..text.len().min(1 << 20)];
    text.windows(wanted.len()).position(|window| window == wanted)
}

fn no_serial(file: &Path) -> io::Error {
    let message = format!("{}: the serial of its SOA is not where it should be", file.display());
    io::Error::other(message)
}

/// Signs with one key, NSEC3 without salt, iterations or opt-out, as RFC 9276 has it.
fn sign(name: &str, file: &Path, directory: &Path) -> io::Result<()> {
    let keys = directory.join("keys");
    fs::create_dir_all(&keys)?;
    let mut keygen = command("dnssec-keygen")?;
    keygen.args(["-q", "-f", "KSK", "-a", "ECDSAP256SHA256", "-K"]).arg(&keys).arg(name);
    run(&mut keygen)?;
    let signed = directory.join("signed");
    let mut signzone = command("dnssec-signzone")?;
    signzone.current_dir(&keys).args(["-q", "-S", "-z", "-P", "-K", ".", "-o", name]);
    signzone.args(["-3", "-", "-H", "0", "-O", "full", "-f"]).arg(&signed).arg(file);
    run(&mut signzone)?;
    fs::rename(&signed, file)
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
    Err(io::Error::other(format!("{}: {said}", command.get_program().display())))
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("ring53-shapes-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_new_version_differs_in_its_serial_alone() {
        let directory = directory("renew");
        let zones = Zones::write(Shape::Hosts, 20, &directory).unwrap();
        let file = &zones.files[0].1;
        let before = fs::read_to_string(file).unwrap();
        assert!(before.contains("SOA ns1 hostmaster 1000000001 3600"));
        assert_eq!(zones.renew().unwrap(), 1_000_000_002);
        let after = fs::read_to_string(file).unwrap();
        assert_eq!(after, before.replace("1000000001", "1000000002"));
        assert_eq!(zones.octets().unwrap(), after.len() as u64);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_signed_zone_can_be_renewed() {
        if command("dnssec-signzone").is_err() {
            eprintln!("skipped: dnssec-signzone (bind9-utils) is not installed");
            return;
        }
        let directory = directory("sign");
        let zones = Zones::write(Shape::Signed, 5, &directory).unwrap();
        zones.renew().unwrap();
        let text = fs::read_to_string(&zones.files[0].1).unwrap();
        assert!(text.contains("NSEC3PARAM") && text.contains(" 1000000002 "), "{text}");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_file_without_a_serial_says_which() {
        let directory = directory("none");
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join("odd.zone");
        fs::write(&file, "example. IN NS ns1.example.\n").unwrap();
        assert!(widen_serial(&file).unwrap_err().to_string().contains("odd.zone"));
        fs::remove_dir_all(directory).unwrap();
    }
}
