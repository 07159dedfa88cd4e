//! The zone of a plan: the user's file, or one that is made; what can be asked about it.

use std::collections::HashSet;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ring53::wire::{Name, rtype};
use ring53::zone::text::{Record, Sink, read};
use ring53::zone::{Severity, Source, SourceText, Text};

use crate::zones::{Shape, write_one};

use super::upstream::suffixes;

//----------- Reading --------------------------------------------------------

struct Files;

impl Source for Files {
    fn read(&self, path: &str, included_from: Option<&str>) -> Result<SourceText, String> {
        let beside = included_from.and_then(|file| Path::new(file).parent());
        let path = beside.map_or_else(|| PathBuf::from(path), |folder| folder.join(path));
        let name = path.display().to_string();
        let text = fs::read(&path).map_err(|error| format!("cannot be read: {error}"))?;
        Ok(SourceText { name, text: Text::Bytes(text) })
    }
}

#[derive(Default)]
struct Collected {
    owners: Vec<(Vec<u8>, u16)>,
}

impl Sink for Collected {
    fn record(&mut self, record: Record<'_>) {
        self.owners.push((record.owner.to_ascii_lowercase(), record.rtype));
    }
}

/// What a zone has.
#[derive(Clone, Debug, Default)]
pub struct ZoneNames {
    /// Records.
    pub records: u64,
    /// Names and types that the zone answers with authority.
    pub hits: Vec<(Vec<u8>, u16)>,
    /// Delegated names.
    pub cuts: Vec<Vec<u8>>,
    /// Whether there are signatures.
    pub signed: bool,
}

/// Types that exist for signing and that nobody asks for by name.
const OF_SIGNING: [u16; 4] = [rtype::RRSIG, rtype::NSEC, rtype::NSEC3, rtype::NSEC3PARAM];

impl ZoneNames {
    /// Reads the zone `apex` from a file.
    pub fn read(apex: &Name, path: &Path) -> io::Result<ZoneNames> {
        let outcome = read(apex, &path.display().to_string(), &Files, 1, &Collected::default);
        if let Some(fault) =
            outcome.diagnostics.iter().find(|fault| fault.severity == Severity::Error)
        {
            return Err(io::Error::other(format!(
                "{}:{}: {:?}: expected {}",
                fault.file, fault.line, fault.text, fault.expected
            )));
        }
        let owners: Vec<(Vec<u8>, u16)> =
            outcome.parts.into_iter().flat_map(|part| part.owners).collect();
        Ok(ZoneNames::of(&apex.to_lowercase(), owners))
    }

    fn of(apex: &Name, owners: Vec<(Vec<u8>, u16)>) -> ZoneNames {
        let apex = apex.as_wire();
        let mut names = ZoneNames { records: owners.len() as u64, ..ZoneNames::default() };
        let cut = |(owner, kind): &&(Vec<u8>, u16)| *kind == rtype::NS && owner != apex;
        let cuts: HashSet<&[u8]> =
            owners.iter().filter(cut).map(|(owner, _)| owner.as_slice()).collect();
        let mut seen = HashSet::new();
        for (owner, kind) in &owners {
            names.signed |= *kind == rtype::RRSIG;
            let wildcard = owner.starts_with(b"\x01*");
            let below = suffixes(owner).any(|suffix| cuts.contains(suffix));
            if wildcard || below || OF_SIGNING.contains(kind) || !seen.insert((owner, *kind)) {
                continue;
            }
            names.hits.push((owner.clone(), *kind));
        }
        names.cuts = cuts.into_iter().map(<[u8]>::to_vec).collect();
        names.cuts.sort_unstable();
        names
    }
}

//----------- Making ---------------------------------------------------------

/// Every so many hosts there is a delegation.
const HOSTS_PER_CUT: u64 = 8;

/// Writes the zone `example.` with `names` hosts and an eighth as many delegations to `path`;
/// signed with NSEC3 as RFC 9276 has it, if asked for.
pub fn make(path: &Path, names: u64, signed: bool) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, fs::File::create(path)?);
    write_one(Shape::Hosts, names, &mut file)?;
    for cut in 0..names / HOSTS_PER_CUT {
        let [_, b, c, d] = (cut as u32).to_be_bytes();
        writeln!(file, "d{cut} 86400 IN NS ns.d{cut}\nns.d{cut} 86400 IN A 11.{b}.{c}.{d}")?;
    }
    file.flush()?;
    drop(file);
    if signed { sign(path) } else { Ok(()) }
}

/// Signs the zone `example.` in place, by the tools of BIND.
fn sign(path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let call = |program: &str, arguments: &[&str]| {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| {
                io::Error::other(format!(
                    "{program}: {error}: signing needs bind9-utils; or give a signed --zone"
                ))
            })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(io::Error::other(format!("{program}: {}", said.trim())))
    };
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("zone");
    call("dnssec-keygen", &["-q", "-f", "KSK", "-a", "ECDSAP256SHA256", "example."])?;
    let signed = format!("{name}.signed");
    let policy = ["-q", "-S", "-z", "-P", "-o", "example.", "-3", "-", "-H", "0"];
    call("dnssec-signzone", &[&policy[..], &["-f", &signed, name]].concat())?;
    fs::rename(folder.join(signed), path)
}

/// Raises the serial of the zone in `path` to `serial`, in a copy that takes its place. Whoever has
/// the old file open keeps it.
pub fn raise_serial(path: &Path, serial: u32) -> io::Result<()> {
    let text = fs::read(path)?;
    let at = serial_at(&text).ok_or_else(|| {
        io::Error::other(format!("{}: no SOA whose serial is a number", path.display()))
    })?;
    let beside = path.with_extension("new");
    let mut file = BufWriter::with_capacity(1 << 20, fs::File::create(&beside)?);
    file.write_all(&text[..at.start])?;
    write!(file, "{serial}")?;
    file.write_all(&text[at.end..])?;
    file.flush()?;
    fs::rename(beside, path)
}

/// Where the serial of the first SOA stands in zone text: behind the type are two names, then it.
fn serial_at(text: &[u8]) -> Option<std::ops::Range<usize>> {
    let (mut at, mut behind) = (0, None);
    while at < text.len() {
        match text[at] {
            b';' => at += text[at..].iter().position(|&octet| octet == b'\n')?,
            octet if octet.is_ascii_whitespace() || octet == b'(' || octet == b')' => at += 1,
            _ => {
                let ends = |octet: &u8| octet.is_ascii_whitespace() || b"();".contains(octet);
                let len = text[at..].iter().position(ends).unwrap_or(text.len() - at).max(1);
                let word = &text[at..at + len];
                behind = match behind {
                    None if word.eq_ignore_ascii_case(b"SOA") => Some(0),
                    Some(2) => {
                        let number = word.iter().all(u8::is_ascii_digit);
                        return number.then_some(at..at + len);
                    }
                    Some(words) => Some(words + 1),
                    None => None,
                };
                at += len;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(text: &str) -> Vec<u8> {
        text.parse::<Name>().unwrap().as_wire().to_vec()
    }

    #[test]
    fn what_can_be_asked_is_found() {
        let folder = std::env::temp_dir().join(format!("ring53-plan-zone-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("zone");
        make(&path, 16, false).unwrap();
        let names = ZoneNames::read(&"example.".parse().unwrap(), &path).unwrap();
        assert!(!names.signed);
        assert_eq!(names.cuts, [wire("d0.example."), wire("d1.example.")]);
        assert!(names.hits.contains(&(wire("h7.example."), rtype::A)));
        assert!(names.hits.contains(&(wire("h4.example."), rtype::AAAA)));
        // Glue and the delegation itself are not answered with authority.
        assert!(!names.hits.iter().any(|(name, _)| name.ends_with(&wire("d0.example."))));
        // SOA, NS and A of the apex, 16 + 4 addresses, 2 x (NS + A).
        assert_eq!(names.records, 3 + 20 + 4);

        raise_serial(&path, 4711).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("SOA ns1 hostmaster 4711 3600"), "{text}");
        fs::write(&path, "www IN A 192.0.2.1\n").unwrap();
        assert!(raise_serial(&path, 1).unwrap_err().to_string().contains("no SOA"));
        fs::write(&path, "www IN A 192.0.2.256\n").unwrap();
        let error = ZoneNames::read(&"example.".parse().unwrap(), &path).unwrap_err().to_string();
        assert!(error.contains("zone:1"), "{error}");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_serial_is_found_however_it_is_written() {
        let text =
            b"; SOA in a remark\n@ IN SOA ns.example.net. (\n a.b. ; who\n\t7 ; serial\n 1 2 3 4)";
        let at = serial_at(text).unwrap();
        assert_eq!(&text[at], b"7");
        assert_eq!(serial_at(b"@ IN SOA a b c"), None);
        assert_eq!(serial_at(b""), None);
    }
}
