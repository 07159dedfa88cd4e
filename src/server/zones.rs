//! Zones from files: read, compiled, kept when they fail, and put into snapshots.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::limits::ZONE_FILE_SIZE_MAX;
use crate::memory::Region;
use crate::snapshot::{Snapshot, ZoneState};
use crate::wire::Name;
use crate::zone::change::{Change, Journal, diff};
use crate::zone::{
    Checks, EXPIRES_SOON_SECONDS, HashKey, LoadOptions, Severity, Source, SourceText, Text, Zone,
    load, verify,
};

use super::config::{Config, Dnssec, ZoneConfig};
use super::report::say;
use super::{deferred, journal, state};

/// Served when nothing is configured.
const SAMPLE: &[u8] = include_bytes!("sample.zone");
/// Diagnostics of one zone that go to the log; `ring53 check zone` prints all.
const LOGGED_MAX: usize = 20;
/// Files from this size on are read by several threads, one file at a time.
const LARGE_FILE_LEN: u64 = 4 << 20;

/// Draws the secret of this process.
pub fn hash_key() -> Result<HashKey, String> {
    let mut secret = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut secret))
        .map_err(|error| format!("cannot read /dev/urandom, which the name hash needs: {error}"))?;
    Ok(HashKey::new(secret))
}

//----------- Files ----------------------------------------------------------

/// Zone text from the file system. Remembers what it read, so that a reload can tell whether any
/// of it has changed, files of `$INCLUDE` as well.
#[derive(Default)]
pub struct Files {
    read: Mutex<Vec<FileRead>>,
}

/// One file as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FileRead {
    path: PathBuf,
    version: FileVersion,
}

impl FileRead {
    fn is_current(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|now| FileVersion::of(&now) == self.version)
    }
}

/// What tells one version of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileVersion {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
    /// Unlike the time of modification, nobody can set this one back.
    changed: (i64, i64),
}

impl FileVersion {
    fn of(metadata: &Metadata) -> FileVersion {
        FileVersion {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Source for Files {
    fn read(&self, path: &str, included_from: Option<&str>) -> Result<SourceText, String> {
        let resolved = match included_from.and_then(|from| Path::new(from).parent()) {
            Some(directory) => directory.join(path),
            None => PathBuf::from(path),
        };
        let (text, version) = read_file(&resolved)?;
        let name = resolved.display().to_string();
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.push(FileRead { path: resolved, version });
        Ok(SourceText { name, text })
    }
}

fn read_file(path: &Path) -> Result<(Text, FileVersion), String> {
    let shown = path.display();
    let failed = |error: io::Error| {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => ": check the path",
            io::ErrorKind::PermissionDenied => {
                ": the user that ring53 runs as must be able to read it"
            }
            _ => "",
        };
        format!("a readable file, but {shown}: {error}{remedy}")
    };
    // Opening a FIFO would wait for somebody to write.
    let mut options = File::options();
    let mut file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        let found = if metadata.is_dir() { "a directory" } else { "no regular file" };
        return Err(format!("a regular file, but {shown} is {found}"));
    }
    let version = FileVersion::of(&metadata);
    let len = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    if len > ZONE_FILE_SIZE_MAX {
        return Err(format!(
            "a file of at most {ZONE_FILE_SIZE_MAX} octets, but {shown} has {len}"
        ));
    }
    // Read, not mapped: a file that shrinks under a mapping kills the process.
    let mut region = Region::new(len).map_err(failed)?;
    let mut filled = 0;
    while filled < len {
        match file.read(&mut region[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let after = FileVersion::of(&file.metadata().map_err(failed)?);
    let written = (after.len, after.modified) != (version.len, version.modified);
    if filled < len || written {
        return Err(format!(
            "a file at rest, but {shown} changed while it was read: write a new file beside it, \
             rename it, then reload"
        ));
    }
    Ok((Text::Region(region, filled), version))
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

/// One zone, and what it was made of.
struct Held {
    config: ZoneConfig,
    state: ZoneState,
    /// The files of `state`; `None` if they have since been replaced by something that failed,
    /// so that the next reload tries again.
    files: Option<Vec<FileRead>>,
    /// How long ago a primary said that the zone is current, if it was restored from disk.
    age: Option<Duration>,
    /// What led to the version in `state`.
    journal: Arc<Journal>,
}

/// One zone as those see it who move zones between servers.
pub struct Tracked {
    /// Its configuration.
    pub config: ZoneConfig,
    /// The version that is served.
    pub zone: Option<Arc<Zone>>,
    /// How old it was when it was restored from disk.
    pub age: Option<Duration>,
}

impl Held {
    /// Whether loading `zone` again would give the same.
    fn is_current(&self, zone: &ZoneConfig) -> bool {
        self.config.loads_as(zone)
            && matches!(self.state, ZoneState::Serving(_))
            && self.files.as_ref().is_some_and(|files| files.iter().all(FileRead::is_current))
    }
}

impl ZoneSet {
    /// No zones yet.
    pub fn new(key: HashKey) -> ZoneSet {
        ZoneSet { key, generation: 0, zones: Vec::new() }
    }

    /// Loads what `config` names on `threads` threads, keeps what has not changed, and keeps the
    /// last good version of what fails. Returns the next snapshot.
    ///
    /// Small zones are shared out, one thread each; then large ones take all threads, one by one.
    pub fn load(&mut self, config: &Config, threads: usize) -> Box<Snapshot> {
        let before = std::mem::take(&mut self.zones);
        let before: HashMap<Name, Held> =
            before.into_iter().map(|held| (held.config.name.clone(), held)).collect();
        let large: Vec<bool> = config.zones.iter().map(is_large).collect();
        let next = AtomicUsize::new(0);
        let (key, slots) = (self.key, config.zones.iter().map(|_| OnceLock::new()));
        let slots: Vec<OnceLock<Held>> = slots.collect();
        let load_small = || {
            while let Some(i) = take_next(&next, config.zones.len()) {
                if !large[i] {
                    let zone = &config.zones[i];
                    let _ = slots[i].set(load_one(key, config, zone, before.get(&zone.name), 1));
                }
            }
        };
        let small = large.iter().filter(|large| !**large).count();
        thread::scope(|scope| {
            for _ in 1..threads.min(small) {
                scope.spawn(load_small);
            }
            load_small();
        });
        self.zones = slots
            .into_iter()
            .zip(&config.zones)
            .map(|(slot, zone)| {
                let load_large = || load_one(key, config, zone, before.get(&zone.name), threads);
                slot.into_inner().unwrap_or_else(load_large)
            })
            .collect();
        self.snapshot(config)
    }

    /// The next snapshot.
    fn snapshot(&mut self, config: &Config) -> Box<Snapshot> {
        self.generation += 1;
        let zones =
            self.zones.iter().map(|held| (held.config.name.clone(), held.state.clone())).collect();
        let rules = self.zones.iter().map(|held| Arc::clone(&held.config.rules)).collect();
        let snapshot = Snapshot::new(self.generation, self.key, config.identity.clone(), zones);
        let journals = self.zones.iter().map(|held| Arc::clone(&held.journal)).collect();
        let snapshot = snapshot.with_access(Arc::clone(&config.keys), rules);
        Box::new(snapshot.with_journals(journals))
    }

    /// The next snapshot, with `state` for the zone `name`, to which `changes` have led; `None` if
    /// there is no such zone.
    pub fn replace(
        &mut self,
        config: &Config,
        name: &Name,
        state: ZoneState,
        changes: &[Arc<Change>],
    ) -> Option<Box<Snapshot>> {
        // Since a transfer began its zone may have been given a file.
        let is_meant =
            |held: &&mut Held| held.config.name == *name && !held.config.primaries.is_empty();
        let held = self.zones.iter_mut().find(is_meant)?;
        if let ZoneState::Serving(zone) = &state {
            held.journal = Arc::new(held.journal.after(changes, zone.memory_len()));
        }
        held.state = state;
        Some(self.snapshot(config))
    }

    /// All zones, for who moves them between servers.
    pub fn tracked(&self) -> Vec<Tracked> {
        let track = |held: &Held| Tracked {
            config: held.config.clone(),
            zone: match &held.state {
                ZoneState::Serving(zone) => Some(Arc::clone(zone)),
                ZoneState::Failed => None,
            },
            age: held.age,
        };
        self.zones.iter().map(track).collect()
    }

    /// What is known of the changes of a zone.
    pub fn journal(&self, name: &Name) -> Option<Arc<Journal>> {
        let held = self.zones.iter().find(|held| held.config.name == *name)?;
        Some(Arc::clone(&held.journal))
    }

    /// The secret that the names of all zones are hashed with.
    pub fn key(&self) -> HashKey {
        self.key
    }

    /// Says which zones have signatures that have expired or soon will.
    pub fn say_expiries(&self) {
        let now = now();
        for held in &self.zones {
            if let ZoneState::Serving(zone) = &held.state {
                say_expiry(zone, now);
            }
        }
    }

    /// How many zones serve, of how many.
    pub fn serving(&self) -> (usize, usize) {
        let serving =
            self.zones.iter().filter(|held| matches!(held.state, ZoneState::Serving(_))).count();
        (serving, self.zones.len())
    }
}

fn take_next(next: &AtomicUsize, end: usize) -> Option<usize> {
    let i = next.fetch_add(1, Ordering::Relaxed);
    (i < end).then_some(i)
}

/// Whether reading the zone keeps several threads busy.
fn is_large(zone: &ZoneConfig) -> bool {
    let Some(file) = &zone.file else { return false };
    fs::metadata(file).is_ok_and(|metadata| metadata.len() >= LARGE_FILE_LEN)
}

fn load_one(
    key: HashKey,
    server: &Config,
    zone: &ZoneConfig,
    held: Option<&Held>,
    threads: usize,
) -> Held {
    let config = zone.clone();
    // What a secondary has in memory is never older than what it has on disk.
    let is_secondary = |config: &ZoneConfig| !config.primaries.is_empty();
    if let Some(held) = held
        && (held.is_current(zone) || is_secondary(zone) && is_secondary(&held.config))
    {
        let (state, files) = (held.state.clone(), held.files.clone());
        let journal = Arc::clone(&held.journal);
        return Held { config, state, files, age: held.age, journal };
    }
    if is_secondary(zone) {
        return restore_one(key, server, config, threads);
    }
    let started = Instant::now();
    let options = LoadOptions { key, threads, nsec3_iterations_max: zone.nsec3_iterations_max };
    let files = Files::default();
    let loaded = match &zone.file {
        Some(file) => load(&zone.name, &file.to_string_lossy(), &files, &options),
        None => load(&zone.name, "sample.zone", &Embedded, &options),
    };
    for diagnostic in loaded.diagnostics.iter().take(LOGGED_MAX) {
        say!("zone {}: {diagnostic}", zone.name);
    }
    if let Some(more) = loaded.diagnostics.len().checked_sub(LOGGED_MAX).filter(|&n| n > 0) {
        let file = zone.file.as_deref().unwrap_or(Path::new("")).display();
        say!("zone {0}: and {more} more: see ring53 check zone {0} {file}", zone.name);
    }
    let is_good =
        |loaded: &Zone| is_wanted(loaded, zone, threads) && is_let_pass(server, zone, held, loaded);
    if let Some(loaded) = loaded.zone.filter(is_good) {
        say!(
            "zone {}: serial {}, {} names, {} records, {} KiB, loaded in {} ms",
            zone.name,
            loaded.serial(),
            loaded.name_count(),
            loaded.record_count(),
            loaded.memory_len() >> 10,
            started.elapsed().as_millis(),
        );
        say_expiry(&loaded, now());
        let files = files.read.into_inner().unwrap_or_else(PoisonError::into_inner);
        let journal = record(server, &config, held, &loaded, key);
        let state = ZoneState::Serving(Arc::new(loaded));
        return Held { config, state, files: Some(files), age: None, journal };
    }
    let state = held.map_or(ZoneState::Failed, |held| held.state.clone());
    match &state {
        ZoneState::Serving(last) => {
            say!("zone {}: not loaded; serial {} goes on serving", zone.name, last.serial());
        }
        ZoneState::Failed => say!(
            "zone {}: not loaded; its names are answered with SERVFAIL until it is mended and \
             SIGHUP sent",
            zone.name,
        ),
    }
    let journal = held.map(|held| Arc::clone(&held.journal)).unwrap_or_default();
    Held { config, state, files: None, age: None, journal }
}

/// Whether the command of a zone, if it has one, lets it take the place of the version that was.
fn is_let_pass(server: &Config, config: &ZoneConfig, held: Option<&Held>, zone: &Zone) -> bool {
    let Some(check) = config.check.as_ref().filter(|_| server.owns_state) else { return true };
    // Without a version that could go on, an end of the command would be an end of the zone.
    if !held.is_some_and(|held| matches!(held.state, ZoneState::Serving(_))) {
        return true;
    }
    let answer = check.ask(&server.state, zone);
    if let Err(reason) = &answer {
        say!("zone {}: serial {} is refused: {reason}", config.name, zone.serial());
    }
    answer.is_ok()
}

/// The journal of a zone that was read: others need only what has changed.
fn record(
    server: &Config,
    config: &ZoneConfig,
    held: Option<&Held>,
    zone: &Zone,
    key: HashKey,
) -> Arc<Journal> {
    let (name, new) = (zone.apex(), zone.serial());
    // Without a peer that may have it nobody asks what has changed.
    if config.rules.transfer.is_empty() {
        return Arc::default();
    }
    let Some(Held { state: ZoneState::Serving(before), journal, .. }) = held else {
        return recall(server, zone);
    };
    let old = before.serial();
    if old == new {
        if diff(before, zone, key).is_empty() {
            return Arc::clone(journal);
        }
        say!("zone {name}: it has changed, but its serial {new} has not: others will not notice");
        return forget(server, zone);
    }
    if (new.wrapping_sub(old) as i32) < 0 {
        say!("zone {name}: its serial went back from {old} to {new}: others will not take it");
        return forget(server, zone);
    }
    let change = Arc::new(diff(before, zone, key));
    let journal = journal.after(std::slice::from_ref(&change), zone.memory_len());
    if let Err(error) = state::record(&server.state, name, &[change], &journal) {
        say!("zone {name}: {error}: after a restart others get the whole zone");
    }
    Arc::new(journal)
}

/// No journal: what is kept does not lead to this version, and must not stand before what will.
fn forget(server: &Config, zone: &Zone) -> Arc<Journal> {
    if server.owns_state
        && let Err(error) = journal::replace(&server.state, zone.apex(), &[])
    {
        say!("zone {}: {error}", zone.apex());
    }
    Arc::default()
}

/// The journal of a zone that is read for the first time, if it leads to this version.
fn recall(server: &Config, zone: &Zone) -> Arc<Journal> {
    let read = journal::read(&server.state, zone.apex(), server.owns_state);
    let changes = read.unwrap_or_else(|error| {
        say!("zone {}: {error}: others get the whole zone", zone.apex());
        Vec::new()
    });
    let Some(last) = changes.last() else { return Arc::default() };
    if last.to != zone.serial() {
        return forget(server, zone);
    }
    let changes: Vec<_> = changes.into_iter().map(Arc::new).collect();
    Arc::new(Journal::default().after(&changes, zone.memory_len()))
}

/// A zone of other servers, as it was when the last process ended, unless it is too old.
fn restore_one(key: HashKey, server: &Config, config: ZoneConfig, threads: usize) -> Held {
    let (name, files) = (&config.name, Some(Vec::new()));
    let options = LoadOptions { key, threads, nsec3_iterations_max: config.nsec3_iterations_max };
    let failed = |config| {
        let journal = Arc::default();
        Held { config, state: ZoneState::Failed, files: None, age: None, journal }
    };
    let (zone, journal) = match state::restore(&server.state, name, &options, server.owns_state) {
        Ok(Some(restored)) => restored,
        Ok(None) => return failed(config),
        Err(error) => {
            say!("zone {name}: {error}: it is transferred again");
            return failed(config);
        }
    };
    // A clock that was set back makes a zone no younger than it is: it is then asked for at once.
    let confirmed = state::restore_confirmed(&server.state, name);
    let age = Duration::from_secs(deferred::wall_clock().saturating_sub(confirmed));
    if age >= Duration::from_secs(zone.soa_numbers()[3].into()) {
        say!("zone {name}: serial {} has expired: it is transferred again", zone.serial());
        return failed(config);
    }
    if !is_wanted(&zone, &config, threads) {
        say!("zone {name}: what was kept may not serve: it is transferred again");
        return failed(config);
    }
    say!("zone {name}: serial {}, kept from before", zone.serial());
    let state = ZoneState::Serving(Arc::new(zone));
    Held { config, state, files, age: Some(age), journal: Arc::new(journal) }
}

//----------- Signatures -----------------------------------------------------

/// Seconds since 1970, as RRSIG counts them.
pub fn now() -> u32 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_secs() as u32
}

/// Whether the configuration lets a zone that could be loaded serve.
pub fn is_wanted(zone: &Zone, config: &ZoneConfig, threads: usize) -> bool {
    let checks = Checks { signatures: config.dnssec == Dnssec::Strict, digest: config.zonemd };
    if checks == Checks::default() {
        return true;
    }
    let file = match (&config.file, config.primaries.first()) {
        (Some(file), _) => file.display().to_string(),
        (None, Some(primary)) => primary.to_string(),
        (None, None) => "sample.zone".into(),
    };
    let found = verify(zone, &file, now(), threads, checks);
    let errors: Vec<_> = found.iter().filter(|found| found.severity == Severity::Error).collect();
    for error in errors.iter().take(LOGGED_MAX) {
        say!("zone {}: {error}", config.name);
    }
    if errors.len() > LOGGED_MAX {
        say!(
            "zone {0}: and {1} more: see ring53 check zone {0} {file}",
            config.name,
            errors.len() - LOGGED_MAX
        );
    }
    errors.is_empty()
}

/// Says that signatures of `zone` have expired or soon will, if so.
fn say_expiry(zone: &Zone, now: u32) {
    let Some(expires) = zone.signatures_expire() else { return };
    let left = expires.wrapping_sub(now) as i32;
    let apex = zone.apex();
    if left < 0 {
        say!(
            "zone {apex}: signatures expired {} hours ago: validators refuse it; sign it again",
            left.unsigned_abs() / 3600
        );
    } else if (left as u32) < EXPIRES_SOON_SECONDS {
        say!("zone {apex}: signatures expire in {} hours: sign it again", left / 3600);
    }
}
