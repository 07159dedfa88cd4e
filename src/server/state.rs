//! Zones of other servers on disk, so that a restart serves at once.
//!
//! ```text
//!   NAME.zone       magic | owner len, owner | type | ttl | rdlen | rdata | ... | 0 | count |
//!                   SHA-256
//!   NAME.journal    what has changed since (super::journal)
//!   NAME.confirmed  seconds since 1970 when a primary last said that the zone is current
//! ```
//!
//! A file is written beside the old one, synced and renamed: after a crash either is whole. What
//! cannot be read is said and ignored: the zone is transferred again.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN, digest};

use crate::limits::{JOURNAL_OCTETS_MIN, NAME_LEN_MAX};
use crate::wire::{Name, rtype};
use crate::zone::change::{Change, Journal, apply};
use crate::zone::intake::Intake;
use crate::zone::{LoadOptions, Zone};

use super::files::Digest;
use super::journal;

const MAGIC: &[u8; 16] = b"ring53 zone 1\r\n\0";

/// What `name` is called where files are: nothing in it leads anywhere else.
pub fn file_name(name: &Name) -> String {
    /// Octets of a name that stands for itself: with what is added it fits every file system.
    const LEN_MAX: usize = 180;
    let mut file = String::new();
    for octet in name.to_lowercase().to_string().trim_end_matches('.').bytes() {
        match octet {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => file.push(char::from(octet)),
            _ => file.push_str(&format!("%{octet:02x}")),
        }
    }
    if file.is_empty() {
        file.push_str("%root");
    }
    if file.len() > LEN_MAX {
        let digest = digest(&SHA256, name.to_lowercase().as_wire());
        file.truncate(LEN_MAX);
        file.push('%');
        file.extend(digest.as_ref()[..8].iter().map(|octet| format!("{octet:02x}")));
    }
    file
}

/// The file of `name` with `ending` in `directory`.
pub fn path(directory: &Path, name: &Name, ending: &str) -> PathBuf {
    directory.join(format!("{}.{ending}", file_name(name)))
}

/// Writes a file whole or not at all.
pub fn replace(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut file = BufWriter::with_capacity(1 << 16, File::create(&beside)?);
    write(&mut file)?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(directory)?.sync_all()
}

/// Everything written to it, and its digest.
struct Digested<'a> {
    out: &'a mut dyn Write,
    digest: Context,
}

impl Digested<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.digest.update(octets);
        self.out.write_all(octets)
    }

    fn record(&mut self, owner: &[u8], rtype: u16, ttl: u32, rdata: &[u8]) -> io::Result<()> {
        self.write(&[owner.len() as u8])?;
        self.write(owner)?;
        self.write(&rtype.to_be_bytes())?;
        self.write(&ttl.to_be_bytes())?;
        self.write(&(rdata.len() as u16).to_be_bytes())?;
        self.write(rdata)
    }
}

/// Keeps `zone` whole.
fn save(directory: &Path, zone: &Zone) -> Result<(), String> {
    let path = path(directory, zone.apex(), "zone");
    let write = |out: &mut dyn Write| {
        let mut out = Digested { out, digest: Context::new(&SHA256) };
        out.write(MAGIC)?;
        let mut count = 0u64;
        for rrset in zone.rrsets() {
            let owner = rrset.owner.as_wire();
            for record in &rrset.records {
                out.record(owner, rrset.rtype, record.ttl, &record.rdata)?;
            }
            for record in &rrset.signatures {
                out.record(owner, rtype::RRSIG, record.ttl, &record.rdata)?;
            }
            count += (rrset.records.len() + rrset.signatures.len()) as u64;
        }
        out.write(&[0])?;
        out.write(&count.to_be_bytes())?;
        let digest = out.digest.clone().finish();
        out.out.write_all(digest.as_ref())
    };
    replace(&path, write).map_err(|error| failed(&path, "write", &error))
}

fn failed(path: &Path, what: &str, error: &io::Error) -> String {
    format!("cannot {what} {}: {error}", path.display())
}

/// Keeps changes, which `journal` ends with: appended, or, once that is too much, all of it anew.
pub fn record(
    directory: &Path,
    name: &Name,
    changes: &[Arc<Change>],
    journal: &Journal,
) -> Result<(), String> {
    let size = journal::append(directory, name, changes.iter().map(|change| &**change))?;
    let kept: usize = journal.changes().iter().map(|change| change.len()).sum();
    if size > (4 * kept + JOURNAL_OCTETS_MIN) as u64 {
        journal::replace(directory, name, journal.changes())?;
    }
    Ok(())
}

/// Keeps `zone`, to which `changes` have led: the changes alone, unless the zone has become shorter
/// than all of them.
pub fn keep(
    directory: &Path,
    zone: &Zone,
    changes: &[Arc<Change>],
    journal: &Journal,
) -> Result<(), String> {
    let name = zone.apex();
    let base = fs::metadata(path(directory, name, "zone")).map(|metadata| metadata.len());
    if let (Ok(base), false) = (base, changes.is_empty()) {
        let size = journal::append(directory, name, changes.iter().map(|change| &**change))?;
        if size <= base.max(JOURNAL_OCTETS_MIN as u64) {
            return Ok(());
        }
    }
    save(directory, zone)?;
    if journal.changes().is_empty() && !path(directory, name, "journal").exists() {
        return Ok(());
    }
    journal::replace(directory, name, journal.changes())
}

/// Keeps nothing of `name` any more.
pub fn remove(directory: &Path, name: &Name) -> Result<(), String> {
    // The zone last: without it what stands beside it means nothing.
    let endings = ["confirmed", "source", "journal", "zone"];
    endings.into_iter().try_for_each(|ending| remove_file(&path(directory, name, ending)))
}

/// Keeps `zone` whole, which updates have made of a file with the text of this digest.
pub fn keep_updated(
    directory: &Path,
    zone: &Zone,
    journal: &Journal,
    digest: &Digest,
) -> Result<(), String> {
    let name = zone.apex();
    let source = path(directory, name, "source");
    let write = |out: &mut dyn Write| {
        digest.iter().try_for_each(|octet| write!(out, "{octet:02x}"))?;
        writeln!(out)
    };
    // A zone from before that stood beside it would be taken for what updates have made.
    remove_file(&path(directory, name, "zone"))?;
    replace(&source, write).map_err(|error| failed(&source, "write", &error))?;
    save(directory, zone)?;
    journal::replace(directory, name, journal.changes())
}

/// The digest of the file that updates began with, if there were any.
pub fn restore_source(directory: &Path, name: &Name) -> Option<Digest> {
    let text = fs::read_to_string(path(directory, name, "source")).ok()?;
    let octet = |at: usize| u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok();
    let octets: Option<Vec<u8>> = (0..SHA256_OUTPUT_LEN).map(octet).collect();
    octets?.try_into().ok()
}

/// Keeps of a zone that updates have changed only what others need for IXFR: the file has caught
/// up.
pub fn forget_updates(directory: &Path, name: &Name) -> Result<(), String> {
    remove_file(&path(directory, name, "zone"))?;
    remove_file(&path(directory, name, "source"))
}

fn remove_file(path: &Path) -> Result<(), String> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed(path, "remove", &error))
        }
        _ => Ok(()),
    }
}

/// Reads what [`keep`] kept, with the changes since; `None` if there is nothing.
pub fn restore(
    directory: &Path,
    name: &Name,
    options: &LoadOptions,
    owns: bool,
) -> Result<Option<(Zone, Journal)>, String> {
    let Some(base) = restore_base(directory, name, options)? else { return Ok(None) };
    let changes = journal::read(directory, name, owns)?;
    let at = changes.iter().position(|change| change.from == base.serial());
    let whole = match at {
        Some(at) => apply(&base, &changes[at..], options)
            .ok()
            .and_then(|intake| intake.finish(&shown(directory, name), options).zone),
        None => None,
    };
    let zone = whole.unwrap_or(base);
    let known = changes.iter().position(|change| change.to == zone.serial());
    let leads_here = changes.last().is_none_or(|last| last.to == zone.serial());
    let led: Vec<_> =
        changes.into_iter().take(known.map_or(0, |at| at + 1)).map(Arc::new).collect();
    let journal = Journal::default().after(&led, zone.memory_len());
    if owns && !leads_here {
        // What does not apply must not stand before what will be appended.
        journal::replace(directory, name, journal.changes())?;
    }
    Ok(Some((zone, journal)))
}

fn shown(directory: &Path, name: &Name) -> String {
    path(directory, name, "journal").display().to_string()
}

/// Reads what [`save`] kept; `None` if there is nothing.
fn restore_base(
    directory: &Path,
    name: &Name,
    options: &LoadOptions,
) -> Result<Option<Zone>, String> {
    let path = path(directory, name, "zone");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&path, "read", &error)),
    };
    let intake = read(BufReader::with_capacity(1 << 16, file), name, options)
        .map_err(|error| failed(&path, "read", &error))?;
    let loaded = intake.finish(&path.display().to_string(), options);
    match loaded.zone {
        Some(zone) => Ok(Some(zone)),
        None => {
            let first = loaded.diagnostics.first().map(ToString::to_string).unwrap_or_default();
            Err(format!("{}: not a zone: {first}", path.display()))
        }
    }
}

fn read(mut file: impl Read, name: &Name, options: &LoadOptions) -> io::Result<Intake> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_string());
    let mut digest = Context::new(&SHA256);
    let mut take = |octets: &mut [u8]| {
        file.read_exact(octets)?;
        digest.update(octets);
        io::Result::Ok(())
    };
    let mut magic = [0; MAGIC.len()];
    take(&mut magic)?;
    if magic != *MAGIC {
        return Err(bad("it is not a zone that ring53 kept"));
    }
    let mut intake = Intake::new(name, options);
    let (mut owner, mut fixed, mut rdata) = ([0; NAME_LEN_MAX], [0; 8], Vec::new());
    loop {
        let mut len = [0];
        take(&mut len)?;
        if len == [0] {
            break;
        }
        let owner = &mut owner[..usize::from(len[0])];
        take(owner)?;
        take(&mut fixed)?;
        rdata.resize(usize::from(u16::from_be_bytes([fixed[6], fixed[7]])), 0);
        take(&mut rdata)?;
        let rtype = u16::from_be_bytes([fixed[0], fixed[1]]);
        let ttl = u32::from_be_bytes([fixed[2], fixed[3], fixed[4], fixed[5]]);
        if Name::from_wire(owner).is_err() || intake.record(owner, rtype, ttl, &rdata).is_err() {
            return Err(bad("it is damaged"));
        }
    }
    let mut count = [0; 8];
    take(&mut count)?;
    let expected = digest.finish();
    let mut found = [0; SHA256_OUTPUT_LEN];
    file.read_exact(&mut found)?;
    if expected.as_ref() != found || u64::from_be_bytes(count) != u64::from(intake.record_count()) {
        return Err(bad("it is damaged"));
    }
    Ok(intake)
}

/// Keeps when a primary last said that the zone is current.
pub fn save_confirmed(directory: &Path, name: &Name, seconds: u64) -> Result<(), String> {
    let path = path(directory, name, "confirmed");
    let write = |out: &mut dyn Write| writeln!(out, "{seconds}");
    replace(&path, write).map_err(|error| failed(&path, "write", &error))
}

/// When that was, in seconds since 1970; at least since when the zone is kept.
pub fn restore_confirmed(directory: &Path, name: &Name) -> u64 {
    let told = fs::read_to_string(path(directory, name, "confirmed"));
    let told = told.ok().and_then(|text| text.trim().parse().ok());
    let written = fs::metadata(path(directory, name, "zone")).and_then(|file| file.modified());
    let written = written.ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    told.unwrap_or(0).max(written.map_or(0, |time| time.as_secs()))
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zone::{HashKey, Source, SourceText, Text, load};

    struct Given(&'static str);

    impl Source for Given {
        fn read(&self, path: &str, _: Option<&str>) -> Result<SourceText, String> {
            Ok(SourceText { name: path.into(), text: Text::Static(self.0.as_bytes()) })
        }
    }

    const TEXT: &str = "$TTL 60\n@ SOA ns h 7 2 3 4 5\n@ NS ns\nns A 192.0.2.1\nx TXT \"a\" \"b\"\n\
                        *.y MX 1 ns\n";

    fn options() -> LoadOptions {
        LoadOptions::new(HashKey::new(*b"a secret of test"), 1)
    }

    fn records(zone: &Zone) -> Vec<String> {
        let mut all: Vec<String> = zone
            .rrsets()
            .map(|rrset| {
                let owner = Name::from_wire(rrset.owner.as_wire()).unwrap();
                format!("{owner} {} {:?}", rrset.rtype, rrset.records)
            })
            .collect();
        all.sort();
        all
    }

    #[test]
    fn what_is_kept_comes_back_and_what_is_damaged_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let name: Name = "A/b.example.".parse().unwrap();
        let zone = load(&name, "x", &Given(TEXT), &options()).zone.unwrap();
        assert!(restore(directory.path(), &name, &options(), true).unwrap().is_none());
        save(directory.path(), &zone).unwrap();
        let (again, _) = restore(directory.path(), &name, &options(), true).unwrap().unwrap();
        assert_eq!(records(&again), records(&zone));
        assert_eq!(again.serial(), 7);
        let file = directory.path().join("a%2fb.example.zone");
        let octets = fs::read(&file).unwrap();
        for at in 0..octets.len() {
            let mut damaged = octets.clone();
            damaged[at] ^= 0x10;
            fs::write(&file, &damaged).unwrap();
            assert!(restore(directory.path(), &name, &options(), true).is_err(), "octet {at}");
            fs::write(&file, &octets[..at]).unwrap();
            assert!(restore(directory.path(), &name, &options(), true).is_err(), "{at} octets");
        }
    }

    #[test]
    fn confirmed_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let root = Name::root();
        assert_eq!(restore_confirmed(directory.path(), &root), 0);
        save_confirmed(directory.path(), &root, 1_700_000_000).unwrap();
        assert_eq!(restore_confirmed(directory.path(), &root), 1_700_000_000);
        let long = vec!["a\\000b"; 60].join(".") + ".";
        let long: Name = long.parse().unwrap();
        save_confirmed(directory.path(), &long, 7).unwrap();
        assert_eq!(restore_confirmed(directory.path(), &long), 7);
    }
}
