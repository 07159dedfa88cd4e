//! Changes on disk: appended and synced, so that what was taken is there after any end.
//!
//! ```text
//!   NAME.journal   magic | entry | entry | ...
//!   entry          len u32 | first 8 octets of SHA-256 | from | to | deleted u32 | added u32 |
//!                  | owner len, owner | type | ttl | rdlen | rdata | ...
//! ```
//!
//! An end in the middle of an append leaves a piece that its digest gives away: it is cut off
//! when the journal is read, before anything is appended again. What an entry leads from must be
//! what the entry before leads to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::digest::{SHA256, digest};

use crate::wire::Name;
use crate::zone::change::{Change, Record};

use super::state;

const MAGIC: &[u8; 16] = b"ring53 changes1\n";
const DIGEST_LEN: usize = 8;

fn path(directory: &Path, name: &Name) -> PathBuf {
    state::path(directory, name, "journal")
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

fn entry(change: &Change) -> Vec<u8> {
    let mut body = Vec::with_capacity(16 + change.len());
    body.extend_from_slice(&change.from.to_be_bytes());
    body.extend_from_slice(&change.to.to_be_bytes());
    body.extend_from_slice(&(change.deleted.len() as u32).to_be_bytes());
    body.extend_from_slice(&(change.added.len() as u32).to_be_bytes());
    for record in change.deleted.iter().chain(&change.added) {
        put_record(&mut body, record);
    }
    let mut entry = (body.len() as u32).to_be_bytes().to_vec();
    entry.extend_from_slice(&digest(&SHA256, &body).as_ref()[..DIGEST_LEN]);
    entry.extend_from_slice(&body);
    entry
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

    fn change(&mut self) -> Option<Change> {
        let len = self.word()? as usize;
        let digested = self.take(DIGEST_LEN)?;
        let body = self.take(len)?;
        if digest(&SHA256, body).as_ref()[..DIGEST_LEN] != *digested {
            return None;
        }
        let mut body = Reader(body);
        let (from, to) = (body.word()?, body.word()?);
        let (deleted, added) = (body.word()?, body.word()?);
        let mut records = |count: u32| (0..count).map(|_| body.record()).collect::<Option<_>>();
        let change = Change { from, to, deleted: records(deleted)?, added: records(added)? };
        body.0.is_empty().then_some(change)
    }
}

//----------- Files ----------------------------------------------------------

/// The changes that are kept for `name`, the oldest first. Whoever owns the file cuts off what is
/// behind the last whole one; others may see the server in the middle of an append.
pub fn read(directory: &Path, name: &Name, owns: bool) -> Result<Vec<Change>, String> {
    let path = path(directory, name);
    let failed = |error: io::Error| format!("cannot read {}: {error}", path.display());
    let octets = match fs::read(&path) {
        Ok(octets) => octets,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut changes: Vec<Change> = Vec::new();
    let mut whole = 0;
    if octets.starts_with(MAGIC) {
        let mut reader = Reader(&octets[MAGIC.len()..]);
        whole = MAGIC.len();
        while let Some(change) = reader.change() {
            if changes.last().is_some_and(|last| last.to != change.from) {
                break;
            }
            changes.push(change);
            whole = octets.len() - reader.0.len();
        }
    }
    if owns && whole < octets.len() {
        let cut = OpenOptions::new().write(true).open(&path).and_then(|file| {
            file.set_len(whole as u64)?;
            file.sync_all()
        });
        cut.map_err(failed)?;
    }
    Ok(changes)
}

/// Adds `changes`; they are on disk when this returns. The size of the file then.
pub fn append<'c>(
    directory: &Path,
    name: &Name,
    changes: impl IntoIterator<Item = &'c Change>,
) -> Result<u64, String> {
    let path = path(directory, name);
    let write = || -> io::Result<u64> {
        fs::create_dir_all(directory)?;
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        let mut octets = Vec::new();
        let before = file.metadata()?.len();
        let is_new = before == 0;
        if is_new {
            octets.extend_from_slice(MAGIC);
        }
        for change in changes {
            octets.extend_from_slice(&entry(change));
        }
        if let Err(error) = file.write_all(&octets).and_then(|()| file.sync_all()) {
            // A piece must not stand before what will be appended.
            let _ = file.set_len(before);
            return Err(error);
        }
        if is_new {
            File::open(directory)?.sync_all()?;
        }
        Ok(file.metadata()?.len())
    };
    write().map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// Replaces all that is kept for `name`.
pub fn replace(directory: &Path, name: &Name, changes: &[Arc<Change>]) -> Result<(), String> {
    let path = path(directory, name);
    let write = |out: &mut dyn Write| {
        out.write_all(MAGIC)?;
        changes.iter().try_for_each(|change| out.write_all(&entry(change)))
    };
    state::replace(&path, write)
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut ends = vec![MAGIC.len() as u64];
        for change in &all {
            ends.push(append(directory.path(), &name, [change]).unwrap());
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
        for at in MAGIC.len()..octets.len() {
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
        append(directory.path(), &name, &[change(1), change(3)]).unwrap();
        assert_eq!(read(directory.path(), &name, true).unwrap(), [change(1)]);
        replace(directory.path(), &name, &[Arc::new(change(7))]).unwrap();
        assert_eq!(read(directory.path(), &name, true).unwrap(), [change(7)]);
    }
}
