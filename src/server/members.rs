//! Which zones a catalog owns, on disk: so that a restart knows what it had, whatever has become of
//! the catalog since (RFC 9432, 5.1).
//!
//! ```text
//!   NAME.members   ring53 members 1
//!                  + member.example. 6c6162656c 67726f7570     name; label, groups in hexadecimal
//!                  - other.example.
//! ```
//!
//! Lines are appended; the last about a name counts. A line that an end cut off is left out. What
//! has become longer than needed is written anew.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use data_encoding::HEXLOWER;

use crate::wire::Name;

use super::disk::Place;
use super::report::say;
use super::state;

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
    match fs::read_to_string(&path) {
        Ok(text) => parse(&text).0,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Members::new(),
        Err(error) => {
            say!("catalog {catalog}: cannot read {}: {error}", path.display());
            Members::new()
        }
    }
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
        let Some(words) = line.strip_suffix('\n') else { break };
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
            _ => break,
        }
        whole += line.len();
    }
    whole
}

/// Adds `lines`; they are on disk when this returns.
pub fn append(directory: &Path, catalog: &Name, lines: &str) -> Result<(), String> {
    let path = state::path(directory, catalog, ENDING);
    let append = || -> io::Result<()> {
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read?,
        };
        let (mut members, whole) = parse(&text);
        let old = text.lines().count() + lines.lines().count();
        if whole == text.len() && whole > 0 && old <= 2 * members.len() + SPARE_LINES {
            let mut file = OpenOptions::new().append(true).open(&path)?;
            file.write_all(lines.as_bytes())?;
            return file.sync_all();
        }
        replay(&mut members, lines);
        Place::from(directory).replace(&path, |out| {
            out.write_all(MAGIC.as_bytes())?;
            let mut lines = members.iter();
            lines.try_for_each(|(name, (label, groups))| {
                out.write_all(there(name, label, groups).as_bytes())
            })
        })
    };
    append().map_err(|error| format!("cannot write {}: {error}", path.display()))
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
