//! Zones from files: read, compiled, kept when they fail, and put into snapshots.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::limits::ZONE_FILE_SIZE_MAX;
use crate::memory::Region;
use crate::snapshot::{Snapshot, ZoneState};
use crate::zone::{HashKey, LoadOptions, Source, SourceText, Text, load};

use super::config::{Config, ZoneConfig};

/// Served when nothing is configured.
const SAMPLE: &[u8] = include_bytes!("sample.zone");
/// Diagnostics of one zone that go to the log; `ring53 check zone` prints all.
const LOGGED_MAX: usize = 20;

/// Draws the secret of this process.
pub fn hash_key() -> Result<HashKey, String> {
    let mut secret = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut secret))
        .map_err(|error| format!("cannot read /dev/urandom, which the name hash needs: {error}"))?;
    Ok(HashKey::new(secret))
}

//----------- Files ----------------------------------------------------------

/// Zone text from the file system.
pub struct Files;

impl Source for Files {
    fn read(&self, path: &str, included_from: Option<&str>) -> Result<SourceText, String> {
        let resolved = match included_from.and_then(|from| Path::new(from).parent()) {
            Some(directory) => directory.join(path),
            None => PathBuf::from(path),
        };
        let text = read_file(&resolved)?;
        Ok(SourceText { name: resolved.display().to_string(), text })
    }
}

fn read_file(path: &Path) -> Result<Text, String> {
    let failed = |error: std::io::Error| format!("a readable file: {}: {error}", path.display());
    let mut file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(format!("a regular file: {} is none", path.display()));
    }
    let len = metadata.len() as usize;
    if len > ZONE_FILE_SIZE_MAX {
        return Err(format!("a file of at most {ZONE_FILE_SIZE_MAX} octets: {}", path.display()));
    }
    // Read, not mapped: a file that shrinks under a mapping kills the process.
    let mut region = Region::new(len).map_err(failed)?;
    let mut filled = 0;
    while filled < len {
        match file.read(&mut region[filled..]).map_err(failed)? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(Text::Region(region, filled))
}

/// The sample zone.
struct Embedded;

impl Source for Embedded {
    fn read(&self, _path: &str, included_from: Option<&str>) -> Result<SourceText, String> {
        match included_from {
            None => Ok(SourceText { name: "sample.zone".into(), text: Text::Static(SAMPLE) }),
            Some(_) => Err("no $INCLUDE in the sample zone".into()),
        }
    }
}

//----------- ZoneSet --------------------------------------------------------

/// The zones of the server with what is needed to reload them.
pub struct ZoneSet {
    key: HashKey,
    generation: u64,
    zones: Vec<Held>,
}

struct Held {
    config: ZoneConfig,
    state: ZoneState,
    version: Option<FileVersion>,
}

/// What tells one version of a file from another.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileVersion {
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

impl FileVersion {
    fn of(path: &Path) -> Option<FileVersion> {
        let metadata = fs::metadata(path).ok()?;
        Some(FileVersion {
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

impl ZoneSet {
    /// No zones yet.
    pub fn new(key: HashKey) -> ZoneSet {
        ZoneSet { key, generation: 0, zones: Vec::new() }
    }

    /// Loads what `config` names on `threads` threads, keeps what has not changed, and keeps the
    /// last good version of what fails. Returns the next snapshot.
    pub fn load(&mut self, config: &Config, threads: usize) -> Box<Snapshot> {
        let mut before = std::mem::take(&mut self.zones);
        for zone in &config.zones {
            let held = before
                .iter()
                .position(|held| held.config.name == zone.name)
                .map(|at| before.swap_remove(at));
            let next = self.load_one(zone, held, threads);
            self.zones.push(next);
        }
        self.generation += 1;
        let zones =
            self.zones.iter().map(|held| (held.config.name.clone(), held.state.clone())).collect();
        Box::new(Snapshot::new(self.generation, self.key, config.identity.clone(), zones))
    }

    /// How many zones serve, of how many.
    pub fn serving(&self) -> (usize, usize) {
        let serving =
            self.zones.iter().filter(|held| matches!(held.state, ZoneState::Serving(_))).count();
        (serving, self.zones.len())
    }

    fn load_one(&self, zone: &ZoneConfig, held: Option<Held>, threads: usize) -> Held {
        let version = zone.file.as_deref().and_then(FileVersion::of);
        if let Some(held) = &held
            && held.config == *zone
            && held.version == version
            && matches!(held.state, ZoneState::Serving(_))
            && (version.is_some() || zone.file.is_none())
        {
            return Held { config: zone.clone(), state: held.state.clone(), version };
        }
        let started = Instant::now();
        let options = LoadOptions { key: self.key, threads };
        let loaded = match &zone.file {
            Some(file) => load(&zone.name, &file.to_string_lossy(), &Files, &options),
            None => load(&zone.name, "sample.zone", &Embedded, &options),
        };
        for diagnostic in loaded.diagnostics.iter().take(LOGGED_MAX) {
            eprintln!("ring53: zone {}: {diagnostic}", zone.name);
        }
        if let Some(more) = loaded.diagnostics.len().checked_sub(LOGGED_MAX).filter(|&n| n > 0) {
            eprintln!("ring53: zone {}: and {more} more: see ring53 check zone", zone.name);
        }
        match loaded.zone {
            Some(loaded) => {
                eprintln!(
                    "ring53: zone {}: serial {}, {} names, {} records, {} KiB, loaded in {} ms",
                    zone.name,
                    loaded.serial(),
                    loaded.name_count(),
                    loaded.record_count(),
                    loaded.memory_len() >> 10,
                    started.elapsed().as_millis(),
                );
                let state = ZoneState::Serving(Arc::new(loaded));
                Held { config: zone.clone(), state, version }
            }
            None => {
                let state = held.map_or(ZoneState::Failed, |held| held.state);
                match &state {
                    ZoneState::Serving(last) => eprintln!(
                        "ring53: zone {}: not loaded; serial {} goes on serving",
                        zone.name,
                        last.serial(),
                    ),
                    ZoneState::Failed => eprintln!(
                        "ring53: zone {}: not loaded; its names are answered with SERVFAIL until \
                         it is mended and SIGHUP sent",
                        zone.name,
                    ),
                }
                // Without a version, the next reload tries again whatever the file looks like.
                Held { config: zone.clone(), state, version: None }
            }
        }
    }
}
