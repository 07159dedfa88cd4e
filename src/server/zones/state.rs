//! Zones of other servers on disk, so that a restart serves at once.
//!
//! ```text
//!   NAME.zone       magic | owner len, owner | type | ttl | rdlen | rdata | ... | 0 | trailer
//!     trailer       count u64 | serial u32 | nanoseconds since 1970 u64 | SHA-256 of all before
//!   NAME.journal    what has changed since, and before (super::journal)
//!   NAME.confirmed  seconds since 1970 when a primary last said that what is here is current, and
//!                   the first 16 digits of their SHA-256
//! ```
//!
//! A file is written beside the old one, synced and renamed: after a crash either is whole. The
//! journal names the zone file that it belongs to by its digest, so that between the renames of the
//! two there is no mixture, only a zone without a journal. What cannot be read is said and ignored:
//! the zone is transferred again. After an error what was kept before is still there.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN, digest};

use crate::limits::NAME_LEN_MAX;
use crate::wire::{Name, rtype};
use crate::zone::change::{Change, Journal, apply};
use crate::zone::intake::Intake;
use crate::zone::{LoadOptions, Zone};

use super::files::Digest;
use super::journal::{self, Base};
use crate::server::disk::{Access, Place, read_exact_at};
use crate::server::report::say;

const MAGIC: &[u8; 16] = b"ring53 zone 2\r\n\0";
const TRAILER_LEN: usize = 8 + 4 + 8 + SHA256_OUTPUT_LEN;

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

//----------- Writing --------------------------------------------------------

/// Writes `zone` whole; what a journal of it begins with.
fn save(place: &Place<'_>, zone: &Zone) -> Result<Base, String> {
    let path = path(place.directory, zone.apex(), "zone");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut base = Base { digest: [0; SHA256_OUTPUT_LEN], serial: zone.serial() };
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
        out.write(&base.serial.to_be_bytes())?;
        // In nanoseconds, so that no two files are alike.
        out.write(&(now.as_nanos() as u64).to_be_bytes())?;
        base.digest.copy_from_slice(out.digest.clone().finish().as_ref());
        out.out.write_all(&base.digest)
    };
    place.replace(&path, write).map_err(|error| failed(&path, "write", &error))?;
    Ok(base)
}

fn failed(path: &Path, what: &str, error: &io::Error) -> String {
    format!("cannot {what} {}: {error}", path.display())
}

/// Keeps changes of a zone that comes from a file, which `journal` ends with: appended, or, once
/// that is too much or does not follow what is there, all of it anew.
pub fn record<'p>(
    place: impl Into<Place<'p>>,
    name: &Name,
    changes: &[Arc<Change>],
    journal: &Journal,
) -> Result<(), String> {
    let place = place.into();
    let all = chain(changes, journal);
    let size = journal::append_to(&place, name, &Base::FILE, &all, changes.len())?;
    let kept: usize = journal.changes().iter().map(|change| change.len()).sum();
    match size {
        None => journal::replace(place, name, journal.changes()),
        Some(size) if size <= 4 * kept as u64 + place.journal_len_min => Ok(()),
        Some(_) => {
            let changes = journal.changes();
            say_longer(name, journal::replace_with(&place, name, &Base::FILE, changes));
            Ok(())
        }
    }
}

/// Everything is on disk; only that it could be shorter has failed.
fn say_longer(name: &Name, replaced: Result<(), String>) {
    if let Err(error) = replaced {
        say!("zone {name}: {error}: its journal gets longer");
    }
}

/// The changes of `journal` if it ends with `changes`, otherwise `changes`.
fn chain<'c>(changes: &'c [Arc<Change>], journal: &'c Journal) -> Vec<&'c Change> {
    let all = journal.changes();
    let tail = all.len().checked_sub(changes.len()).map(|at| &all[at..]);
    let ends = tail.is_some_and(|tail| tail.iter().zip(changes).all(|(a, b)| Arc::ptr_eq(a, b)));
    (if ends { all } else { changes }).iter().map(|change| &**change).collect()
}

/// Keeps `zone`, to which `changes` have led: the changes alone, unless the zone file has become
/// shorter than all that came behind it or they do not follow what is there. Without changes it is
/// written whole.
pub fn keep<'p>(
    place: impl Into<Place<'p>>,
    zone: &Zone,
    changes: &[Arc<Change>],
    journal: &Journal,
) -> Result<(), String> {
    let place = place.into();
    let chain = if changes.is_empty() { Vec::new() } else { chain(changes, journal) };
    keep_chain(&place, zone, &chain, changes.len(), journal)
}

/// Keeps `zone`, of which it is not known how much is on disk: the last attempt has failed.
pub fn keep_again<'p>(
    place: impl Into<Place<'p>>,
    zone: &Zone,
    journal: &Journal,
) -> Result<(), String> {
    keep_chain(&place.into(), zone, &chain(&[], journal), 0, journal)
}

fn keep_chain(
    place: &Place<'_>,
    zone: &Zone,
    chain: &[&Change],
    count: usize,
    journal: &Journal,
) -> Result<(), String> {
    let name = zone.apex();
    let path = path(place.directory, name, "zone");
    let leads_here = chain.last().is_some_and(|last| last.to == zone.serial());
    if leads_here
        && !place.disk.doubts().has(&path)
        && let Ok(Some(Trailer { base, len, .. })) = trailer(place, &path)
        && let Some(size) = journal::append_to(place, name, &base, chain, count)?
    {
        if size > len.max(place.journal_len_min) {
            say_longer(name, renew(place, zone, journal));
        }
        return Ok(());
    }
    renew(place, zone, journal).inspect_err(|_| {
        // What is there may be of another line of versions, whose serials could seem to fit.
        place.disk.doubts().set(&path, true);
    })
}

/// Writes the zone whole, and a journal with what has led to it.
fn renew(place: &Place<'_>, zone: &Zone, journal: &Journal) -> Result<(), String> {
    let (name, base) = (zone.apex(), save(place, zone)?);
    match journal.changes().last() {
        Some(last) if last.to == base.serial => {
            let replaced = journal::replace_with(place, name, &base, journal.changes());
            if let Err(error) = replaced {
                say!("zone {name}: {error}: after a restart others get the whole zone");
            }
        }
        _ => journal::remove(place, name),
    }
    Ok(())
}

/// The end of a zone file, which is not known to be whole.
struct Trailer {
    base: Base,
    /// When it was written, in seconds since 1970.
    written: u64,
    /// Octets of the file.
    len: u64,
}

fn trailer(place: &Place<'_>, path: &Path) -> io::Result<Option<Trailer>> {
    let Some(file) = place.open(path, Access::Read)? else { return Ok(None) };
    let len = file.len()?;
    let Some(at) = len.checked_sub(TRAILER_LEN as u64) else { return Ok(None) };
    let mut octets = [0; TRAILER_LEN];
    read_exact_at(&*file, &mut octets, at)?;
    Ok(Some(Trailer::read(&octets, len)))
}

impl Trailer {
    fn read(octets: &[u8; TRAILER_LEN], len: u64) -> Trailer {
        let (_, digest) = octets.split_at(TRAILER_LEN - SHA256_OUTPUT_LEN);
        let base = Base {
            digest: digest.try_into().expect("its length"),
            serial: u32::from_be_bytes(octets[8..12].try_into().expect("four octets")),
        };
        let nanos = u64::from_be_bytes(octets[12..20].try_into().expect("eight octets"));
        Trailer { base, written: Duration::from_nanos(nanos).as_secs(), len }
    }
}

/// Keeps nothing of these zones any more; what cannot be removed is said.
pub fn remove_all<'p, 'n>(place: impl Into<Place<'p>>, names: impl IntoIterator<Item = &'n Name>) {
    let (place, mut any) = (place.into(), false);
    for name in names {
        match remove(&place, name) {
            Ok(was_there) => any |= was_there,
            Err(error) => say!("zone {name}: {error}: remove it, or it comes back with the zone"),
        }
    }
    // Whatever is written of the zones next must not find again what is gone.
    if any && let Err(error) = place.disk.sync_directory(place.directory) {
        say!("{}", failed(place.directory, "sync", &error));
    }
}

/// Whether there was anything of `name`.
fn remove(place: &Place<'_>, name: &Name) -> Result<bool, String> {
    // The zone last: without it what stands beside it means nothing.
    let mut any = false;
    for ending in ["confirmed", "source", "journal", "zone"] {
        any |= remove_file(place, name, ending)?;
    }
    Ok(any)
}

/// Keeps `zone` whole, which updates have made of a file with the text of this digest.
pub fn keep_updated<'p>(
    place: impl Into<Place<'p>>,
    zone: &Zone,
    journal: &Journal,
    digest: &Digest,
) -> Result<(), String> {
    let (place, name) = (place.into(), zone.apex());
    let source = path(place.directory, name, "source");
    let write = |out: &mut dyn Write| {
        digest.iter().try_for_each(|octet| write!(out, "{octet:02x}"))?;
        writeln!(out)
    };
    // A zone from before that stood beside it would be taken for what updates have made.
    if remove_file(&place, name, "zone")? {
        let synced = place.disk.sync_directory(place.directory);
        synced.map_err(|error| failed(place.directory, "sync", &error))?;
    }
    place.replace(&source, write).map_err(|error| failed(&source, "write", &error))?;
    renew(&place, zone, journal)
}

/// The digest of the file that updates began with, if there were any.
pub fn restore_source<'p>(
    place: impl Into<Place<'p>>,
    name: &Name,
) -> Result<Option<Digest>, String> {
    let place = place.into();
    let path = path(place.directory, name, "source");
    let unread = |error| failed(&path, "read", &error);
    let Some(mut file) = place.reader(&path).map_err(unread)? else { return Ok(None) };
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(unread)?;
    let octet = |at: usize| u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok();
    let octets: Option<Vec<u8>> = (0..SHA256_OUTPUT_LEN).map(octet).collect();
    let digest = octets.and_then(|octets| octets.try_into().ok());
    digest.map(Some).ok_or_else(|| format!("{} is damaged", path.display()))
}

/// Keeps of a zone that updates have changed only what others need for IXFR: the file has caught
/// up.
pub fn forget_updates<'p>(
    place: impl Into<Place<'p>>,
    name: &Name,
    journal: &Journal,
) -> Result<(), String> {
    let place = place.into();
    remove_file(&place, name, "zone")?;
    remove_file(&place, name, "source")?;
    journal::replace(place, name, journal.changes())
}

/// Removes a file; whether it was there.
fn remove_file(place: &Place<'_>, name: &Name, ending: &str) -> Result<bool, String> {
    let path = path(place.directory, name, ending);
    match place.disk.remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed(&path, "remove", &error))
        }
        removed => Ok(removed.is_ok()),
    }
}

//----------- Reading --------------------------------------------------------

/// Reads what [`keep`] kept, with the changes since; `None` if there is nothing.
pub fn restore<'p>(
    place: impl Into<Place<'p>>,
    name: &Name,
    options: &LoadOptions,
    owns: bool,
) -> Result<Option<(Zone, Journal)>, String> {
    let place = place.into();
    let Some((zone, base)) = restore_base(&place, name, options)? else { return Ok(None) };
    let read = match journal::read_from(&place, name, owns, &base) {
        Ok(Some(read)) => read,
        // One of another zone file stays: if its directory could not be synced, it may be that one
        // which is found after the next stop.
        Ok(None) => return Ok(Some((zone, Journal::default()))),
        Err(error) => {
            let serial = zone.serial();
            say!("zone {name}: {error}: serial {serial} is served without what came behind it");
            return Ok(Some((zone, Journal::default())));
        }
    };
    let (changes, before) = (read.changes, read.before);
    let after = changes.get(before..).unwrap_or_default();
    let whole = match after.first() {
        Some(first) if first.from == zone.serial() => apply(&zone, after, options)
            .ok()
            .and_then(|intake| intake.finish(&shown(&place, name), options).zone)
            .filter(|whole| after.last().is_some_and(|last| last.to == whole.serial())),
        _ => None,
    };
    let leads_here = whole.is_some() || changes.len() == before;
    let zone = whole.unwrap_or(zone);
    let led = if leads_here { changes } else { changes.into_iter().take(before).collect() };
    let is_known = led.last().is_some_and(|last| last.to == zone.serial());
    let led: Vec<_> = led.into_iter().filter(|_| is_known).map(Arc::new).collect();
    let journal = Journal::default().after(&led, zone.memory_len());
    if !leads_here {
        let (serial, path) = (zone.serial(), shown(&place, name));
        say!("zone {name}: {path} does not lead on from serial {serial}, which is served");
        // What does not apply must not stand before what will be appended.
        if owns && let Err(error) = journal::replace_with(&place, name, &base, journal.changes()) {
            say!("zone {name}: {error}");
        }
    }
    Ok(Some((zone, journal)))
}

fn shown(place: &Place<'_>, name: &Name) -> String {
    path(place.directory, name, "journal").display().to_string()
}

/// Reads what [`save`] wrote; `None` if there is nothing.
fn restore_base(
    place: &Place<'_>,
    name: &Name,
    options: &LoadOptions,
) -> Result<Option<(Zone, Base)>, String> {
    let path = path(place.directory, name, "zone");
    let reader = place.reader(&path).map_err(|error| failed(&path, "read", &error))?;
    let Some(reader) = reader else { return Ok(None) };
    let (intake, base) =
        read(reader, name, options).map_err(|error| failed(&path, "read", &error))?;
    let loaded = intake.finish(&path.display().to_string(), options);
    match loaded.zone {
        Some(zone) if zone.serial() == base.serial => Ok(Some((zone, base))),
        Some(_) => Err(failed(&path, "read", &damaged())),
        None => {
            let first = loaded.diagnostics.first().map(ToString::to_string).unwrap_or_default();
            Err(format!("{}: not a zone: {first}", path.display()))
        }
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is damaged")
}

fn read(mut file: impl Read, name: &Name, options: &LoadOptions) -> io::Result<(Intake, Base)> {
    let mut digest = Context::new(&SHA256);
    let mut take = |octets: &mut [u8]| {
        file.read_exact(octets)?;
        digest.update(octets);
        io::Result::Ok(())
    };
    let mut magic = [0; MAGIC.len()];
    take(&mut magic)?;
    if magic != *MAGIC {
        let what = "it is not a zone that this version of ring53 kept";
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
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
            return Err(damaged());
        }
    }
    let mut trailer = [0; TRAILER_LEN];
    take(&mut trailer[..TRAILER_LEN - SHA256_OUTPUT_LEN])?;
    let expected = digest.finish();
    file.read_exact(&mut trailer[TRAILER_LEN - SHA256_OUTPUT_LEN..])?;
    let base = Trailer::read(&trailer, 0).base;
    let count = u64::from_be_bytes(trailer[..8].try_into().expect("eight octets"));
    let is_over = file.read(&mut [0])? == 0;
    if expected.as_ref() != base.digest || count != u64::from(intake.record_count()) || !is_over {
        return Err(damaged());
    }
    Ok((intake, base))
}

//----------- Confirmed ------------------------------------------------------

/// Keeps when a primary last said that what is kept is current.
pub fn save_confirmed<'p>(
    place: impl Into<Place<'p>>,
    name: &Name,
    seconds: u64,
) -> Result<(), String> {
    let place = place.into();
    let path = path(place.directory, name, "confirmed");
    let write = |out: &mut dyn Write| writeln!(out, "{seconds} {}", check(seconds));
    place.replace(&path, write).map_err(|error| failed(&path, "write", &error))
}

/// When that was, in seconds since 1970; at least since when the zone was written, and what last
/// changed in it.
pub fn restore_confirmed<'p>(place: impl Into<Place<'p>>, name: &Name) -> u64 {
    let place = place.into();
    let told = confirmed(&place, name).unwrap_or_else(|error| {
        say!("zone {name}: {error}: its age is that of its last change");
        None
    });
    let trailer = trailer(&place, &path(place.directory, name, "zone")).ok().flatten();
    let written = trailer.map_or(0, |trailer| {
        let appended = journal::last_appended(&place, name, &trailer.base);
        trailer.written.max(appended.unwrap_or(0))
    });
    told.unwrap_or(0).max(written)
}

fn confirmed(place: &Place<'_>, name: &Name) -> Result<Option<u64>, String> {
    let path = path(place.directory, name, "confirmed");
    let reader = place.reader(&path).map_err(|error| failed(&path, "read", &error))?;
    let Some(reader) = reader else { return Ok(None) };
    let mut text = String::new();
    let read = reader.take(64).read_to_string(&mut text);
    read.map_err(|error| failed(&path, "read", &error))?;
    let seconds = text.split_once(' ').and_then(|(seconds, _)| seconds.parse().ok());
    match seconds {
        Some(seconds) if text == format!("{seconds} {}\n", check(seconds)) => Ok(Some(seconds)),
        _ => Err(failed(&path, "read", &damaged())),
    }
}

fn check(seconds: u64) -> String {
    let digest = digest(&SHA256, &seconds.to_be_bytes());
    digest.as_ref()[..8].iter().map(|octet| format!("{octet:02x}")).collect()
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::zone::{Given, HashKey, load};

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
        save(&directory.path().into(), &zone).unwrap();
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
