//! The buffers that sockets of this machine get, the same for all servers while they are compared.
//!
//! ```text
//!   a server asks for 8 MiB    rmem_max allows it       the kernel takes twice that: 16 MiB
//!   a server asks for nothing  rmem_default             16 MiB
//! ```
//!
//! Without, who asks for nothing has 208 KiB, and who may not force its wish gets 416 KiB: a burst
//! that one server holds is lost to another. What was set before is kept in a file, from which it
//! is set again: when a [`Buffers`] is dropped, on SIGINT and SIGTERM, and by the next bed if this
//! process was killed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::id;

/// Octets that servers ask for.
const ASKED: u64 = 8 << 20;
/// What is set: what may be asked for, and twice that for who does not ask.
const WANTED: [(&str, u64); 4] = [
    ("rmem_default", 2 * ASKED),
    ("rmem_max", ASKED),
    ("wmem_default", 2 * ASKED),
    ("wmem_max", ASKED),
];
const SETTINGS: &str = "/proc/sys/net/core";
/// Only root writes there, and nothing of it outlives the machine's start.
const RECORD: &str = "/run/r53-buffers";

/// The machine's buffers, raised; as they were when dropped. If another process has raised them,
/// they stay with it.
#[derive(Debug)]
pub struct Buffers {
    settings: PathBuf,
    record: PathBuf,
}

impl Buffers {
    /// Raises them. Sockets that exist keep what they have.
    pub fn raise() -> io::Result<Buffers> {
        sweep();
        Buffers::raise_at(Path::new(SETTINGS), Path::new(RECORD))
    }

    fn raise_at(settings: &Path, record: &Path) -> io::Result<Buffers> {
        let buffers = Buffers { settings: settings.into(), record: record.into() };
        if record.exists() {
            return Ok(buffers);
        }
        let mut text = format!("{}\n", id());
        for (name, _) in WANTED {
            let path = settings.join(name);
            let value = fs::read_to_string(&path).map_err(|error| failed(&path, &error))?;
            text += &format!("{name} {}\n", value.trim());
        }
        fs::write(record, text).map_err(|error| failed(record, &error))?;
        for (name, value) in WANTED {
            let path = settings.join(name);
            fs::write(&path, value.to_string()).map_err(|error| failed(&path, &error))?;
        }
        Ok(buffers)
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        restore_at(&self.settings, &self.record, |owner| owner == id());
    }
}

fn failed(path: &Path, error: &io::Error) -> io::Error {
    let remedy =
        "socket buffers are set as root, outside of containers with a network of their own";
    io::Error::new(error.kind(), format!("{}: {error}: {remedy}", path.display()))
}

/// Sets again what this process has raised.
pub fn restore() {
    restore_at(Path::new(SETTINGS), Path::new(RECORD), |owner| owner == id());
}

/// Sets again what a process that is gone has raised.
pub fn sweep() {
    let is_gone = |owner| !fs::exists(format!("/proc/{owner}")).unwrap_or(true);
    restore_at(Path::new(SETTINGS), Path::new(RECORD), is_gone);
}

fn restore_at(settings: &Path, record: &Path, is_ours: impl Fn(u32) -> bool) {
    let Ok(text) = fs::read_to_string(record) else { return };
    let mut lines = text.lines();
    let owner = lines.next().and_then(|line| line.parse().ok());
    if !owner.is_some_and(is_ours) {
        return;
    }
    for (name, value) in lines.filter_map(|line| line.split_once(' ')) {
        if WANTED.iter().any(|(wanted, _)| *wanted == name) {
            let _ = fs::write(settings.join(name), value);
        }
    }
    let _ = fs::remove_file(record);
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory in place of the kernel's, with what a machine has.
    fn machine() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        for (name, _) in WANTED {
            fs::write(directory.path().join(name), "212992\n").unwrap();
        }
        let record = directory.path().join("record");
        (directory, record)
    }

    fn values(settings: &Path) -> Vec<u64> {
        let read = |name| fs::read_to_string(settings.join(name)).unwrap().trim().parse().unwrap();
        WANTED.iter().map(|(name, _)| read(name)).collect()
    }

    #[test]
    fn what_was_set_is_set_again() {
        let (directory, record) = machine();
        let settings = directory.path();
        let buffers = Buffers::raise_at(settings, &record).unwrap();
        assert_eq!(values(settings), [16 << 20, 8 << 20, 16 << 20, 8 << 20]);
        drop(buffers);
        assert_eq!(values(settings), [212_992; 4]);
        assert!(!record.exists());
        // A signal comes when all is done already.
        restore_at(settings, &record, |_| true);
        assert_eq!(values(settings), [212_992; 4]);
    }

    /// What is raised is not taken for what was there before.
    #[test]
    fn another_process_keeps_what_it_has_raised() {
        let (directory, record) = machine();
        let settings = directory.path();
        let first = Buffers::raise_at(settings, &record).unwrap();
        let text = fs::read_to_string(&record).unwrap().replacen(&id().to_string(), "0", 1);
        fs::write(&record, &text).unwrap();
        let second = Buffers::raise_at(settings, &record).unwrap();
        drop((second, first));
        assert_eq!(values(settings)[0], 16 << 20, "the owner of it may still measure");
        // Then it was killed: the next bed finds its record.
        restore_at(settings, &record, |owner| owner == 0);
        assert_eq!(values(settings), [212_992; 4]);
    }

    #[test]
    fn a_machine_that_refuses_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = Buffers::raise_at(directory.path(), &directory.path().join("record"));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("rmem_default") && error.contains("as root"), "{error}");
    }
}
