//! Which zones a catalog owns, on disk: so that a restart knows what it had, whatever has become of
//! the catalog since (RFC 9432, 5.1).
//!
//! ```text
//!   NAME.members   ring53 members 1
//!                  + member.example. 6c6162656c 67726f7570     name; label, groups in hexadecimal
//!                  - other.example.
//! ```
//!
//! Lines are appended; the last about a name counts. A line that cannot be read, as an end has cut
//! it off, is left out. What has become longer than needed is written anew, and so is what has such
//! lines, or could not be written before.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use data_encoding::HEXLOWER;

use crate::wire::Name;

use super::state;
use crate::server::disk::Place;
use crate::server::report::say;

const MAGIC: &str = "ring53 members 1\n";
const ENDING: &str = "members";
/// Lines that may be out of date, beside as many as there are members.
const SPARE_LINES: usize = 1000;

/// Label and groups of each member.
pub type Members = HashMap<Name, (Box<[u8]>, Box<[Box<str>]>)>;

/// The line for a member.
pub fn there(name: &Name, label: &[u8], groups: &[Box<str>]) -> String {
    let mut line = format!("+ {name} {}", HEXLOWER.encode(label));
    for group in groups {
        let _ = write!(line, " {}", HEXLOWER.encode(group.as_bytes()));
    }
    line + "\n"
}

/// The line for a member that is none any more.
pub fn gone(name: &Name) -> String {
    format!("- {name}\n")
}

/// The members of `catalog`; none if nothing is kept.
pub fn read(directory: &Path, catalog: &Name) -> Members {
    let path = state::path(directory, catalog, ENDING);
    match read_text(&path) {
        Ok(text) => parse(&text).0,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Members::new(),
        Err(error) => {
            say!("catalog {catalog}: cannot read {}: {error}", path.display());
            Members::new()
        }
    }
}

/// The text of a file, whatever has become of parts of it.
fn read_text(path: &Path) -> io::Result<String> {
    fs::read(path).map(|octets| String::from_utf8_lossy(&octets).into_owned())
}

/// The members, and how many octets of `text` could be read.
fn parse(text: &str) -> (Members, usize) {
    let mut members = Members::new();
    let Some(lines) = text.strip_prefix(MAGIC) else { return (members, 0) };
    let whole = MAGIC.len() + replay(&mut members, lines);
    (members, whole)
}

/// Does what `lines` say; how many octets of them could be read.
fn replay(members: &mut Members, lines: &str) -> usize {
    let mut whole = 0;
    for line in lines.split_inclusive('\n') {
        // Nothing that was written here has other octets.
        let words = line.strip_suffix('\n').filter(|line| line.is_ascii());
        let Some(words) = words else { continue };
        let mut words = words.split(' ');
        let (what, name) = (words.next(), words.next().and_then(|name| name.parse().ok()));
        let decode = |word: &str| HEXLOWER.decode(word.as_bytes()).ok();
        let decoded: Option<Vec<Vec<u8>>> = words.map(decode).collect();
        match (what, name, decoded.as_ref().map(|all| all.split_first())) {
            (Some("-"), Some(name), Some(None)) => drop(members.remove(&name)),
            (Some("+"), Some(name), Some(Some((label, groups)))) => {
                let group = |group: &Vec<u8>| String::from_utf8_lossy(group).into_owned().into();
                members.insert(name, (label[..].into(), groups.iter().map(group).collect()));
            }
            _ => continue,
        }
        whole += line.len();
    }
    whole
}

/// Adds `lines`; they are on disk when this returns.
pub fn append(directory: &Path, catalog: &Name, lines: &str) -> Result<(), String> {
    let (place, path) = (Place::from(directory), state::path(directory, catalog, ENDING));
    // Who writes it anew must not miss what somebody else appends.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let append = || -> io::Result<()> {
        let text = match read_text(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read?,
        };
        let (mut members, whole) = parse(&text);
        let old = text.lines().count() + lines.lines().count();
        let is_whole = whole == text.len() && whole > 0 && !place.disk.doubts().has(&path);
        if is_whole && old <= 2 * members.len() + SPARE_LINES {
            let mut file = OpenOptions::new().append(true).open(&path)?;
            file.write_all(lines.as_bytes())?;
            return file.sync_all();
        }
        replay(&mut members, lines);
        place.replace(&path, |out| {
            out.write_all(MAGIC.as_bytes())?;
            let mut lines = members.iter();
            lines.try_for_each(|(name, (label, groups))| {
                out.write_all(there(name, label, groups).as_bytes())
            })
        })
    };
    append().map_err(|error| {
        // The kernel says once that it could not write something.
        place.disk.doubts().set(&path, true);
        format!("cannot write {}: {error}", path.display())
    })
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn cut_anywhere_what_was_whole_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let catalog = name("c.");
        let lines = [
            there(&name("a\\032b.test."), b"l 1", &["two words".into()]),
            there(&name("."), b"\0", &[]),
            gone(&name(".")),
            there(&name("A\\032B.test."), b"l2", &["g".into(), "h".into()]),
        ];
        for line in &lines {
            append(directory.path(), &catalog, line).unwrap();
        }
        let all = read(directory.path(), &catalog);
        let groups: Box<[Box<str>]> = ["g".into(), "h".into()].into();
        assert_eq!(all[&name("a\\032b.test.")], (b"l2"[..].into(), groups));
        assert_eq!(all.len(), 1);
        let file = directory.path().join("c.members");
        let text = fs::read_to_string(&file).unwrap();
        for len in 0..text.len() {
            fs::write(&file, &text[..len]).unwrap();
            let before = read(directory.path(), &catalog);
            append(directory.path(), &catalog, &gone(&name("nobody."))).unwrap();
            assert_eq!(read(directory.path(), &catalog), before, "{len} octets");
            append(directory.path(), &catalog, &lines[3]).unwrap();
            let after = read(directory.path(), &catalog);
            assert_eq!(after.get(&name("a\\032b.test.")), all.get(&name("a\\032b.test.")));
        }
    }

    #[test]
    fn damage_takes_no_other_lines_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let catalog = name("c.");
        let lines = ["a.", "b.", "d."].map(|member| there(&name(member), b"l", &[]));
        append(directory.path(), &catalog, &lines.concat()).unwrap();
        let file = directory.path().join("c.members");
        let whole = fs::read(&file).unwrap();
        let at = whole.windows(2).position(|octets| octets == b"b.").unwrap();
        for octet in [0xff, b'\n', b' '] {
            let mut damaged = whole.clone();
            damaged[at] = octet;
            fs::write(&file, damaged).unwrap();
            let all = read(directory.path(), &catalog);
            assert_eq!(all.len(), 2, "{octet}: {all:?}");
            append(directory.path(), &catalog, &lines[1]).unwrap();
            assert_eq!(fs::read(&file).unwrap().len(), whole.len());
            assert_eq!(read(directory.path(), &catalog).len(), 3);
        }
    }

    #[test]
    fn it_stays_short() {
        let directory = tempfile::tempdir().unwrap();
        let catalog = name("c.");
        let line = there(&name("a."), b"l", &[]);
        for _ in 0..30 {
            append(directory.path(), &catalog, &line.repeat(100)).unwrap();
        }
        let text = fs::read_to_string(directory.path().join("c.members")).unwrap();
        assert!(text.lines().count() <= SPARE_LINES + 100, "{} lines", text.lines().count());
        assert_eq!(read(directory.path(), &catalog).len(), 1);
    }
}
