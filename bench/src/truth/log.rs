//! What the server did with each query, and when: a line of text for each property, an empty line,
//! then 32 octets an entry, little-endian, in the order of arrival.
//!
//! ```text
//!    0          8          16         24   26    27        28       30      32
//!    | arrival  | due      | departed | ID | act | carrier | port   | 0     |
//! ```
//!
//! Times are nanoseconds of CLOCK_REALTIME, as the kernel's timestamps are; `departed` is 0 for
//! what was never sent. `port` is the peer's.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::script::{Act, Script};

const MAGIC: &str = "ring53 truth 1";
const ENTRY_LEN: usize = 32;

/// Entries of one log: 512 MiB.
pub const ENTRIES_MAX: usize = 16 << 20;

/// What became of one query, or, for [`Act::Again`], of one reply more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When the query reached the server's kernel.
    pub arrival_ns: u64,
    /// When the script wants the reply to leave.
    pub due_ns: u64,
    /// When it did; 0: never.
    pub departed_ns: u64,
    /// The query's ID.
    pub id: u16,
    /// What was done.
    pub act: Act,
    /// Whether it came over a stream.
    pub stream: bool,
    /// The peer's port.
    pub port: u16,
}

/// All that a server did.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// What it was told.
    pub script: Script,
    /// The seed.
    pub seed: u64,
    /// When the first query arrived: stalls count from here.
    pub start_ns: u64,
    /// What arrived and was no query.
    pub unreadable: u64,
    /// Each query.
    pub entries: Vec<Entry>,
}

impl Log {
    /// Writes it to a file.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        writeln!(file, "{MAGIC}\nscript {}\nseed {}", self.script, self.seed)?;
        writeln!(file, "start {}\nunreadable {}\n", self.start_ns, self.unreadable)?;
        for entry in &self.entries {
            let act = Act::ALL.iter().position(|&act| act == entry.act).unwrap_or_default();
            let mut octets = [0; ENTRY_LEN];
            octets[..8].copy_from_slice(&entry.arrival_ns.to_le_bytes());
            octets[8..16].copy_from_slice(&entry.due_ns.to_le_bytes());
            octets[16..24].copy_from_slice(&entry.departed_ns.to_le_bytes());
            octets[24..26].copy_from_slice(&entry.id.to_le_bytes());
            octets[26] = act as u8;
            octets[27] = entry.stream.into();
            octets[28..30].copy_from_slice(&entry.port.to_le_bytes());
            file.write_all(&octets)?;
        }
        file.flush()
    }

    /// Reads it from a file.
    pub fn read(path: &Path) -> io::Result<Log> {
        let octets = fs::read(path)
            .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        Log::parse(&octets).ok_or_else(|| {
            let message = "is no whole log of ring53-bench truth: was it ended by SIGTERM?";
            io::Error::other(format!("{}: {message}", path.display()))
        })
    }

    fn parse(octets: &[u8]) -> Option<Log> {
        let end = octets.windows(2).position(|pair| pair == b"\n\n")?;
        let (head, entries) = (str::from_utf8(&octets[..end]).ok()?, &octets[end + 2..]);
        let value =
            |key: &str| head.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        if head.lines().next() != Some(MAGIC) || !entries.len().is_multiple_of(ENTRY_LEN) {
            return None;
        }
        Some(Log {
            script: value("script")?.parse().ok()?,
            seed: value("seed")?.parse().ok()?,
            start_ns: value("start")?.parse().ok()?,
            unreadable: value("unreadable")?.parse().ok()?,
            entries: entries.chunks_exact(ENTRY_LEN).map(parse_entry).collect::<Option<_>>()?,
        })
    }
}

fn parse_entry(octets: &[u8]) -> Option<Entry> {
    let long = |at: usize| Some(u64::from_le_bytes(octets.get(at..at + 8)?.try_into().ok()?));
    let short = |at: usize| Some(u16::from_le_bytes(octets.get(at..at + 2)?.try_into().ok()?));
    Some(Entry {
        arrival_ns: long(0)?,
        due_ns: long(8)?,
        departed_ns: long(16)?,
        id: short(24)?,
        act: *Act::ALL.get(octets[26] as usize)?,
        stream: octets[27] != 0,
        port: short(28)?,
    })
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read_as_it_was_written() {
        let path = std::env::temp_dir().join(format!("ring53-truth-{}", std::process::id()));
        let entry = |act| Entry {
            arrival_ns: 1_700_000_000_000_000_001,
            due_ns: 1_700_000_000_000_300_000,
            departed_ns: if act == Act::Drop { 0 } else { 1_700_000_000_000_300_200 },
            id: 0x5353,
            act,
            stream: act == Act::Again,
            port: 40_000,
        };
        let log = Log {
            script: "delay fixed 300us, drop 1%".parse().unwrap(),
            seed: 7,
            start_ns: 1_700_000_000_000_000_001,
            unreadable: 3,
            entries: Act::ALL.map(entry).to_vec(),
        };
        log.write(&path).unwrap();
        assert_eq!(Log::read(&path).unwrap(), log);
        // Half a log is none.
        let octets = fs::read(&path).unwrap();
        fs::write(&path, &octets[..octets.len() - 5]).unwrap();
        assert!(Log::read(&path).unwrap_err().to_string().contains("no whole log"));
        fs::remove_file(&path).unwrap();
    }
}
