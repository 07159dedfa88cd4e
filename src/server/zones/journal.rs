//! Changes on disk: appended and synced, so that what was taken is there after any end.
//!
//! ```text
//!   NAME.journal   magic | SHA-256 of the base | its serial | entries before it u32 |
//!                  their octets u64 | check | entry | entry | ...
//!   entry          len u32 | check | seconds since 1970 u64 | more u32 | from | to |
//!                  deleted u32 | added u32 |
//!                  owner len, owner | type | ttl | rdlen | rdata | ... | len u32
//!   check          first 8 octets of the SHA-256 of what it stands before, or behind in the header
//! ```
//!
//! The base is the zone in NAME.zone, by its digest, or the file that the configuration names, with
//! a digest of zeros. A journal of another base is none, whatever its serials are: the same serials
//! may lead elsewhere once a primary has begun anew. The entries before the base lead to it; they
//! are kept for others.
//!
//! An end in the middle of an append leaves a piece that its check gives away: it is cut off when
//! the journal is read, before anything is appended again. What an entry leads from must be what
//! the entry before leads to. Entries that were appended together count together: each says how
//! many more there are, for nobody has looked at the versions in between.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use crate::wire::Name;
use crate::zone::change::{Change, Record};

use super::state;
use crate::server::disk::{Access, DiskFile, Place, read_exact_at};
use crate::server::report::say;
use crate::server::stream::deferred::wall_clock;

const MAGIC: &[u8; 16] = b"ring53 changes2\n";
const CHECK_LEN: usize = 8;
const HEADER_LEN: usize = MAGIC.len() + SHA256_OUTPUT_LEN + 4 + 4 + 8 + CHECK_LEN;
/// Octets of an entry beside its body.
const FRAME_LEN: usize = 4 + CHECK_LEN + 4;

fn path(place: &Place<'_>, name: &Name) -> PathBuf {
    state::path(place.directory, name, "journal")
}

fn check(octets: &[u8]) -> [u8; CHECK_LEN] {
    let mut check = [0; CHECK_LEN];
    check.copy_from_slice(&digest(&SHA256, octets).as_ref()[..CHECK_LEN]);
    check
}

//----------- Header ---------------------------------------------------------

/// What the changes of a journal begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// The digest at the end of its file.
    pub digest: [u8; SHA256_OUTPUT_LEN],
    /// Its serial.
    pub serial: u32,
}

impl Base {
    /// The file of the zone that the configuration names.
    pub const FILE: Base = Base { digest: [0; SHA256_OUTPUT_LEN], serial: 0 };

    /// Its serial; of a file nobody knows from which on it has changed.
    fn known_serial(&self) -> Option<u32> {
        (*self != Base::FILE).then_some(self.serial)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    base: Base,
    /// Entries that lead to the base.
    before: u32,
    /// Their octets.
    before_len: u64,
}

impl Header {
    fn to_octets(self) -> Vec<u8> {
        let mut octets = MAGIC.to_vec();
        octets.extend_from_slice(&self.base.digest);
        octets.extend_from_slice(&self.base.serial.to_be_bytes());
        octets.extend_from_slice(&self.before.to_be_bytes());
        octets.extend_from_slice(&self.before_len.to_be_bytes());
        octets.extend_from_slice(&check(&octets));
        octets
    }

    fn read(octets: &[u8]) -> Option<Header> {
        let (octets, checked) = octets.get(..HEADER_LEN)?.split_at(HEADER_LEN - CHECK_LEN);
        let mut reader = Reader(octets.strip_prefix(MAGIC)?);
        let digest = reader.take(SHA256_OUTPUT_LEN)?.try_into().ok()?;
        let base = Base { digest, serial: reader.word()? };
        let header = Header { base, before: reader.word()?, before_len: reader.long()? };
        (check(octets) == *checked).then_some(header)
    }
}

//----------- Entries --------------------------------------------------------

fn put_record(out: &mut Vec<u8>, record: &Record) {
    out.push(record.owner.len() as u8);
    out.extend_from_slice(&record.owner);
    out.extend_from_slice(&record.rtype.to_be_bytes());
    out.extend_from_slice(&record.ttl.to_be_bytes());
    out.extend_from_slice(&(record.rdata.len() as u16).to_be_bytes());
    out.extend_from_slice(&record.rdata);
}

/// Whether a change is short enough for an entry.
fn fits(change: &Change) -> bool {
    change.len() < u32::MAX as usize - HEADER_LEN
}

/// Appends an entry, with which `more` belong together.
fn put_entry(out: &mut Vec<u8>, change: &Change, seconds: u64, more: usize) {
    let start = out.len();
    out.extend_from_slice(&[0; 4 + CHECK_LEN]);
    let body = out.len();
    out.extend_from_slice(&seconds.to_be_bytes());
    out.extend_from_slice(&(more as u32).to_be_bytes());
    out.extend_from_slice(&change.from.to_be_bytes());
    out.extend_from_slice(&change.to.to_be_bytes());
    out.extend_from_slice(&(change.deleted.len() as u32).to_be_bytes());
    out.extend_from_slice(&(change.added.len() as u32).to_be_bytes());
    for record in change.deleted.iter().chain(&change.added) {
        put_record(out, record);
    }
    let len = ((out.len() - body) as u32).to_be_bytes();
    let checked = check(&out[body..]);
    out[start..start + 4].copy_from_slice(&len);
    out[start + 4..body].copy_from_slice(&checked);
    out.extend_from_slice(&len);
}

/// Octets of the entry of a change.
fn entry_len(change: &Change) -> u64 {
    let records = change.deleted.iter().chain(&change.added);
    let records = records.map(|record| 9 + record.owner.len() + record.rdata.len());
    (FRAME_LEN + 28 + records.sum::<usize>()) as u64
}

/// A whole entry.
struct Entry<'a> {
    body: &'a [u8],
    seconds: u64,
    more: u32,
    from: u32,
    to: u32,
}

/// Takes octets off the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let taken = self.0.get(..len)?;
        self.0 = &self.0[len..];
        Some(taken)
    }

    fn word(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn long(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    fn half(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn record(&mut self) -> Option<Record> {
        let len = usize::from(self.take(1)?[0]);
        let owner: Box<[u8]> = self.take(len)?.into();
        Name::from_wire(&owner).ok()?;
        let (rtype, ttl, len) = (self.half()?, self.word()?, usize::from(self.half()?));
        Some(Record { owner, rtype, ttl, rdata: self.take(len)?.into() })
    }

    fn entry(&mut self) -> Option<Entry<'a>> {
        let len = self.word()?;
        let checked = self.take(CHECK_LEN)?;
        let body = self.take(len as usize)?;
        if self.word()? != len || check(body) != *checked {
            return None;
        }
        let mut reader = Reader(body);
        let seconds = reader.long()?;
        let (more, from, to) = (reader.word()?, reader.word()?, reader.word()?);
        Some(Entry { body: reader.0, seconds, more, from, to })
    }

    /// A change, and how many more belong to it.
    fn change(&mut self) -> Option<(Change, u32)> {
        let Entry { body, more, from, to, .. } = self.entry()?;
        let mut body = Reader(body);
        let (deleted, added) = (body.word()?, body.word()?);
        let mut records = |count: u32| (0..count).map(|_| body.record()).collect::<Option<_>>();
        let change = Change { from, to, deleted: records(deleted)?, added: records(added)? };
        body.0.is_empty().then_some((change, more))
    }
}

//----------- Reading --------------------------------------------------------

/// The changes that are kept for `name`, which comes from a file, the oldest first. Whoever owns
/// the journal cuts off what is behind the last whole one; others may see the server in the middle
/// of an append.
pub fn read<'p>(
    place: impl Into<Place<'p>>,
    name: &Name,
    owns: bool,
) -> Result<Vec<Change>, String> {
    Ok(read_from(&place.into(), name, owns, &Base::FILE)?.map_or(Vec::new(), |read| read.changes))
}

/// What a journal has.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// All changes, the oldest first.
    pub changes: Vec<Change>,
    /// How many of them lead to the base.
    pub before: usize,
}

/// As [`read`], for any base; `None` if there is no journal of it.
pub fn read_from(
    place: &Place<'_>,
    name: &Name,
    owns: bool,
    base: &Base,
) -> Result<Option<Read>, String> {
    let path = path(place, name);
    let failed = |error: io::Error| format!("cannot read {}: {error}", path.display());
    let Some(file) = place.open(&path, Access::Read).map_err(failed)? else { return Ok(None) };
    let len = file.len().map_err(failed)?;
    let mut octets = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    read_exact_at(&*file, &mut octets, 0).map_err(failed)?;
    drop(file);
    let Some(header) = Header::read(&octets) else {
        if owns && !octets.is_empty() {
            say!("zone {name}: {} is damaged from its first octets on: left out", path.display());
            cut(place, name, 0);
        }
        return Ok(None);
    };
    if header.base != *base {
        return Ok(None);
    }
    let mut changes: Vec<Change> = Vec::new();
    let mut reader = Reader(&octets[HEADER_LEN..]);
    let (mut whole, mut count) = (HEADER_LEN, 0);
    while let Some((change, more)) = reader.change() {
        if changes.last().is_some_and(|last| last.to != change.from) {
            break;
        }
        changes.push(change);
        if more == 0 {
            (whole, count) = (octets.len() - reader.0.len(), changes.len());
        }
    }
    changes.truncate(count);
    if owns && whole < octets.len() {
        let serial = changes.last().map_or(base.serial, |last| last.to);
        say!(
            "zone {name}: {}: the last {} octets, behind serial {serial}, are damaged or were \
             never finished: left out",
            path.display(),
            octets.len() - whole,
        );
        cut(place, name, whole as u64);
    }
    let before = header.before as usize;
    Ok(Some(Read { before, changes }))
}

/// Cuts off what is behind octet `len`; if that fails the journal is written anew.
fn cut(place: &Place<'_>, name: &Name, len: u64) {
    let path = path(place, name);
    let cut = place.disk.open(&path, Access::Write).and_then(|mut file| {
        file.set_len(len)?;
        file.sync()
    });
    if let Err(error) = cut {
        place.disk.doubts().set(&path, true);
        say!("zone {name}: cannot write {}: {error}", path.display());
    }
}

/// When the last change of a journal of `base` was appended, in seconds since 1970.
pub fn last_appended(place: &Place<'_>, name: &Name, base: &Base) -> Option<u64> {
    let file = place.open(&path(place, name), Access::Read).ok()??;
    let (header, len) = opened(&*file).ok()??;
    let (_, seconds) = last(&*file, len).ok()??;
    (header.base == *base).then_some(seconds)
}

/// The header of an open journal, and its length; `None` if it is damaged.
fn opened(file: &dyn DiskFile) -> io::Result<Option<(Header, u64)>> {
    let len = file.len()?;
    if len < HEADER_LEN as u64 {
        return Ok(None);
    }
    let mut octets = [0; HEADER_LEN];
    read_exact_at(file, &mut octets, 0)?;
    Ok(Header::read(&octets).map(|header| (header, len)))
}

/// What the last entry of a journal of `len` octets leads to, and its seconds; `None` if it is not
/// whole, or there is none.
fn last(file: &dyn DiskFile, len: u64) -> io::Result<Option<(u32, u64)>> {
    if len < (HEADER_LEN + FRAME_LEN) as u64 {
        return Ok(None);
    }
    let mut body = [0; 4];
    read_exact_at(file, &mut body, len - 4)?;
    let entry_len = FRAME_LEN as u64 + u64::from(u32::from_be_bytes(body));
    if entry_len > len - HEADER_LEN as u64 {
        return Ok(None);
    }
    let mut octets = vec![0; entry_len as usize];
    read_exact_at(file, &mut octets, len - entry_len)?;
    let mut reader = Reader(&octets);
    let found = reader.entry().filter(|entry| entry.more == 0);
    Ok(found.filter(|_| reader.0.is_empty()).map(|entry| (entry.to, entry.seconds)))
}

//----------- Writing --------------------------------------------------------

/// Adds the last `count` of `changes`, which follow each other, and those before them that are not
/// there yet because they could not be written. They are on disk when this returns the octets of
/// all entries behind the base; `None` if they do not follow what is there.
pub fn append_to(
    place: &Place<'_>,
    name: &Name,
    base: &Base,
    changes: &[&Change],
    count: usize,
) -> Result<Option<u64>, String> {
    let path = path(place, name);
    let failed = |error: io::Error| format!("cannot write {}: {error}", path.display());
    if place.disk.doubts().has(&path) || !changes.iter().all(|change| fits(change)) {
        return Ok(None);
    }
    let (mut file, end) = match place.open(&path, Access::Write).map_err(failed)? {
        Some(file) if file.len().map_err(failed)? > 0 => {
            let Some(end) = end_of(&*file, base).map_err(failed)? else { return Ok(None) };
            (Some(file), end)
        }
        _ => (None, End { at: 0, behind: 0, serial: base.known_serial() }),
    };
    let Some(missing) = missing(changes, count, end.serial) else { return Ok(None) };
    let mut octets = Vec::new();
    if file.is_none() {
        octets = Header { base: *base, before: 0, before_len: 0 }.to_octets();
        place.disk.create_directory(place.directory).map_err(failed)?;
    }
    let (start, now) = (octets.len(), wall_clock());
    for (at, change) in missing.iter().enumerate() {
        put_entry(&mut octets, change, now, missing.len() - at - 1);
    }
    let is_new = file.is_none();
    let file = match &mut file {
        Some(file) => file,
        None => file.insert(place.disk.create(&path).map_err(failed)?),
    };
    let wrote = file.write_at(&octets, end.at);
    let has_room = wrote.is_ok();
    let mut written = wrote.and_then(|()| file.sync());
    if is_new {
        written = written.and_then(|()| place.disk.sync_directory(place.directory));
    }
    if let Err(error) = written {
        // A piece must not stand before what will be appended.
        let is_as_before = file.set_len(end.at).and_then(|()| file.sync()).is_ok();
        if has_room || is_new || !is_as_before {
            place.disk.doubts().set(&path, true);
        }
        return Err(failed(error));
    }
    Ok(Some(end.behind + (octets.len() - start) as u64))
}

/// The end of a journal.
struct End {
    /// Its octets.
    at: u64,
    /// Those of entries behind the base.
    behind: u64,
    /// What it leads to, if that is known.
    serial: Option<u32>,
}

/// Where a journal of `base` ends; `None` if it is of another base, or not whole.
fn end_of(file: &dyn DiskFile, base: &Base) -> io::Result<Option<End>> {
    let Some((header, len)) = opened(file)? else { return Ok(None) };
    if header.base != *base {
        return Ok(None);
    }
    let behind = (len - HEADER_LEN as u64).saturating_sub(header.before_len);
    let serial = match last(file, len)? {
        Some((to, _)) => Some(to),
        None if len == HEADER_LEN as u64 => base.known_serial(),
        None => return Ok(None),
    };
    Ok(Some(End { at: len, behind, serial }))
}

/// Those of `changes` that follow serial `end`: the last `count`, or, if some before them are
/// missing too, more. Without an `end` it is not known what the file was before.
fn missing<'c, 'm>(
    changes: &'m [&'c Change],
    count: usize,
    end: Option<u32>,
) -> Option<&'m [&'c Change]> {
    let latest = changes.len().checked_sub(count)?;
    let Some(end) = end else { return Some(&changes[latest..]) };
    let mut at = changes.iter().enumerate().filter(|(_, change)| change.from == end);
    match (at.next(), at.next()) {
        // A serial that comes twice says nothing.
        (Some((at, _)), None) if at <= latest => Some(&changes[at..]),
        (None, _) if count == 0 && changes.last()?.to == end => Some(&[]),
        _ => None,
    }
}

/// Replaces all that is kept for `name`, which comes from a file.
pub fn replace<'p>(
    place: impl Into<Place<'p>>,
    name: &Name,
    changes: &[Arc<Change>],
) -> Result<(), String> {
    let place = place.into();
    replace_with(&place, name, &Base::FILE, changes).inspect_err(|_| {
        // What is there may be of another line of versions, whose serials could seem to fit.
        place.disk.doubts().set(&path(&place, name), true);
    })
}

/// As [`replace`], for any base, to which `changes` lead.
pub fn replace_with(
    place: &Place<'_>,
    name: &Name,
    base: &Base,
    changes: &[Arc<Change>],
) -> Result<(), String> {
    let path = path(place, name);
    // What comes before one that is too long leads nowhere.
    let start = changes.iter().rposition(|change| !fits(change)).map_or(0, |at| at + 1);
    let (changes, now) = (&changes[start..], wall_clock());
    let mut header = Header { base: *base, before: 0, before_len: 0 };
    if *base != Base::FILE {
        header.before = changes.len() as u32;
        header.before_len = changes.iter().map(|change| entry_len(change)).sum();
    }
    let write = |out: &mut dyn io::Write| {
        out.write_all(&header.to_octets())?;
        let mut entry = Vec::new();
        changes.iter().try_for_each(|change| {
            entry.clear();
            put_entry(&mut entry, change, now, 0);
            out.write_all(&entry)
        })
    };
    place.replace(&path, write).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// Takes away the journal of a base that is no more.
pub fn remove(place: &Place<'_>, name: &Name) {
    // If it stays, or comes back, it is still of another base.
    let _ = place.disk.remove(&path(place, name));
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn append<'c>(
        directory: &Path,
        name: &Name,
        changes: impl IntoIterator<Item = &'c Change>,
    ) -> Option<u64> {
        let changes: Vec<&Change> = changes.into_iter().collect();
        append_to(&directory.into(), name, &Base::FILE, &changes, changes.len()).unwrap()
    }

    fn change(from: u32) -> Change {
        let record = |last: u8| Record {
            owner: (*b"\x03www\x01t\0").into(),
            rtype: 1,
            ttl: 60,
            rdata: [192, 0, 2, last].into(),
        };
        let (deleted, added) = (vec![record(from as u8)], vec![record(9), record(8)]);
        Change { from, to: from + 1, deleted, added }
    }

    #[test]
    fn cut_anywhere_what_was_whole_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let name: Name = "t.".parse().unwrap();
        let all: Vec<Change> = (1..5).map(change).collect();
        let mut ends = vec![HEADER_LEN as u64];
        for change in &all {
            append(directory.path(), &name, [change]).unwrap();
            ends.push(fs::metadata(directory.path().join("t.journal")).unwrap().len());
            assert_eq!(ends[ends.len() - 1] - ends[ends.len() - 2], entry_len(change));
        }
        assert_eq!(read(directory.path(), &name, true).unwrap(), all);
        let file = directory.path().join("t.journal");
        let octets = fs::read(&file).unwrap();
        for len in 0..octets.len() {
            fs::write(&file, &octets[..len]).unwrap();
            let kept = ends.iter().filter(|end| **end <= len as u64).count().saturating_sub(1);
            assert_eq!(read(directory.path(), &name, true).unwrap(), all[..kept], "{len} octets");
            // What comes after the piece is read again.
            append(directory.path(), &name, &all[kept..]).unwrap();
            assert_eq!(read(directory.path(), &name, true).unwrap(), all, "{len} octets");
        }
        for at in 0..octets.len() {
            let mut damaged = octets.clone();
            damaged[at] ^= 1;
            fs::write(&file, &damaged).unwrap();
            let kept = read(directory.path(), &name, true).unwrap();
            assert_eq!(kept, all[..kept.len()], "octet {at}");
            assert!(kept.len() < all.len(), "octet {at}");
        }
    }

    #[test]
    fn a_gap_ends_it() {
        let directory = tempfile::tempdir().unwrap();
        let name: Name = "t.".parse().unwrap();
        append(directory.path(), &name, &[change(1)]).unwrap();
        let whole = fs::read(directory.path().join("t.journal")).unwrap();
        replace(directory.path(), &name, &[Arc::new(change(3))]).unwrap();
        let other = fs::read(directory.path().join("t.journal")).unwrap();
        let both = [&whole[..], &other[HEADER_LEN..]].concat();
        fs::write(directory.path().join("t.journal"), both).unwrap();
        assert!(append(directory.path(), &name, &[change(9)]).is_none());
        assert_eq!(read(directory.path(), &name, true).unwrap(), [change(1)]);
        assert!(append(directory.path(), &name, &[change(4)]).is_none());
        replace(directory.path(), &name, &[Arc::new(change(7))]).unwrap();
        assert_eq!(read(directory.path(), &name, true).unwrap(), [change(7)]);
    }
}
