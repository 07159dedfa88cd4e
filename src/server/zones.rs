//! Zones from files: read, compiled, kept when they fail, and put into snapshots.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::snapshot::{Recursion, Snapshot, ZoneState, ZoneTable};
use crate::wire::Name;
use crate::zone::change::{Change, Journal, diff};
use crate::zone::{
    Checks, EXPIRES_SOON_SECONDS, HashKey, LoadOptions, Room, Severity, Zone, amend, load, verify,
    verify_amended,
};

use super::config::{Config, Dnssec, ZoneConfig};
use super::forwarding::special;
use super::report::say;
use super::stream::deferred;
use super::{cores, forwarding};
use catalogs::{Catalogs, Step};
use dynamic::Verdict;
use files::{Digest, Embedded, FileRead, Files};
use updates::{Asked, Group};
use writer::Write;

pub mod candidate;
pub mod catalogs;
pub mod connections;
pub mod dynamic;
pub mod files;
pub mod journal;
pub mod lanes;
pub mod loader;
pub mod members;
pub mod notify;
mod produced;
pub mod secondary;
pub mod state;
pub mod transfers;
pub mod updates;
pub mod writer;

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

//----------- ZoneSet --------------------------------------------------------

/// The zones of the server with what is needed to reload them.
pub struct ZoneSet {
    generation: u64,
    /// As the cores see them.
    table: ZoneTable,
    held: HashMap<Name, Held>,
    catalogs: Catalogs,
    /// What is to be kept on disk or removed there.
    writes: Vec<Write>,
    /// What clients get that may ask for names of others.
    recursion: Option<Arc<Recursion>>,
}

/// One zone, and what it was made of.
struct Held {
    config: ZoneConfig,
    zone: Option<Arc<Zone>>,
    /// The files of `zone`; `None` if they have since been replaced by something that failed,
    /// so that the next reload tries again.
    files: Option<Box<[FileRead]>>,
    /// How long ago a primary said that the zone is current, if it was restored from disk.
    age: Option<Duration>,
    /// What led to the version in `zone`; `None` if that is not known.
    journal: Option<Arc<Journal>>,
    /// Of a zone that may be changed by updates.
    dynamic: Option<Box<Dynamic>>,
}

/// What matters of the file of a zone that may be changed by updates.
#[derive(Clone)]
struct Dynamic {
    /// Of the file's text when it was taken.
    digest: Digest,
    /// Whether the zone has changed since.
    is_updated: bool,
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

/// A version to serve, or none.
pub struct Install {
    /// The zone.
    pub name: Name,
    /// What is served from now on; `None`: it is too old.
    pub zone: Option<Arc<Zone>>,
    /// What has led to it.
    pub changes: Vec<Arc<Change>>,
}

/// What became of other zones.
#[derive(Default)]
pub struct Moved {
    /// Zones that are gone.
    pub removed: Vec<Name>,
    /// Zones that have come, are configured otherwise, or are made anew.
    pub tracked: Vec<Tracked>,
}

impl Held {
    fn new(config: ZoneConfig) -> Held {
        Held { config, zone: None, files: None, age: None, journal: None, dynamic: None }
    }

    /// Whether loading `zone` again would give the same.
    fn is_current(&self, zone: &ZoneConfig) -> bool {
        self.config.loads_as(zone)
            && self.zone.is_some()
            && (self.dynamic.is_some() || zone.rules.update.is_empty())
            && self.files.as_ref().is_some_and(|files| files.iter().all(FileRead::is_current))
    }

    fn tracked(&self) -> Tracked {
        Tracked { config: self.config.clone(), zone: self.zone.clone(), age: self.age }
    }

    /// As the cores see it.
    fn state(&self) -> ZoneState {
        match &self.zone {
            None => ZoneState::Failed,
            // RFC 9432, 7: who may not have the catalog need not know what is in it.
            Some(zone) if self.config.catalog.is_some() => ZoneState::Private(Arc::clone(zone)),
            Some(zone) => ZoneState::Serving(Arc::clone(zone)),
        }
    }
}

impl ZoneSet {
    /// No zones yet.
    pub fn new(key: HashKey) -> ZoneSet {
        ZoneSet {
            generation: 0,
            table: ZoneTable::new(key),
            held: HashMap::new(),
            catalogs: Catalogs::default(),
            writes: Vec::new(),
            recursion: None,
        }
    }

    /// Loads what `config` names on `threads` threads, keeps what has not changed, and keeps the
    /// last good version of what fails; then the same with what its catalogs list. Returns the
    /// next snapshot.
    pub fn load(&mut self, config: &Config, threads: usize) -> Box<Snapshot> {
        let key = self.key();
        let before = std::mem::take(&mut self.held);
        let loading = Loading { key, server: config, before: &before, threads };
        let configured = loading.all(&config.zones, &|_| true);
        self.held.extend(configured.into_iter().map(|held| (held.config.name.clone(), held)));
        self.catalogs.configure(config, &config.state);
        let step = self.catalogs.yield_to(config);
        self.remember(config, step);
        let mut reset = HashSet::new();
        for zone in config.zones.iter().filter(|zone| zone.is_consumed()) {
            let catalog = self.held.get(&zone.name).and_then(|held| held.zone.clone());
            let Some(catalog) = catalog else { continue };
            let step = self.apply(config, &zone.name, &catalog);
            reset.extend(step.removed.iter().cloned());
            self.clear(config, &step.removed, &before);
            self.remember(config, step);
        }
        let members = self.catalogs.members();
        // What has been removed on the way begins anew.
        let (anew, others): (Vec<_>, Vec<_>) =
            members.into_iter().partition(|member| reset.contains(&member.name));
        let mut loaded = loading.all(&others, &|_| true);
        let nothing = HashMap::new();
        let loading = Loading { before: &nothing, ..loading };
        loaded.extend(loading.all(&anew, &|_| false));
        self.held.extend(loaded.into_iter().map(|held| (held.config.name.clone(), held)));
        // Whoever only looks sees what was made, not all the zones that it is made of.
        if config.owns_state {
            let _ = self.produce(config);
        }
        self.recursion = self.recursion_of(config);
        self.table = ZoneTable::new(key);
        for (name, held) in &self.held {
            put(&mut self.table, name, held);
        }
        self.snapshot(config)
    }

    /// What clients get that may ask for names of others.
    pub fn recursion_of(&self, config: &Config) -> Option<Arc<Recursion>> {
        forwarding::recursion(config, &special::replacing(self.held.keys()), self.key())
    }

    fn apply(&mut self, config: &Config, name: &Name, catalog: &Zone) -> Step {
        let configured: HashSet<&Name> = config.zones.iter().map(|zone| &zone.name).collect();
        self.catalogs.apply(name, catalog, &|name| configured.contains(name))
    }

    /// Has nothing kept of zones that are gone. What comes by transfers is kept by others, in its
    /// order; what updates have made of a file must be gone before the next one is taken.
    fn clear(&mut self, config: &Config, removed: &[Name], held: &HashMap<Name, Held>) {
        let is_kept_by_others =
            |name: &&Name| held.get(*name).is_some_and(|held| held.config.is_secondary());
        let (others, ours): (Vec<&Name>, Vec<&Name>) = removed.iter().partition(is_kept_by_others);
        self.writes.extend(others.into_iter().cloned().map(Write::Remove));
        if config.owns_state {
            state::remove_all(&config.state, ours);
        }
    }

    /// Has members written down as a step says.
    fn remember(&mut self, config: &Config, step: Step) {
        for (catalog, lines) in step.lines_of_files {
            if config.owns_state
                && let Err(error) = members::append(&config.state, &catalog, &lines)
            {
                say!("catalog {catalog}: {error}");
                self.writes.push(Write::Members(catalog, lines));
            }
        }
        let members = |(catalog, lines)| Write::Members(catalog, lines);
        self.writes.extend(step.lines.into_iter().map(members));
    }

    /// The next snapshot.
    pub fn snapshot(&mut self, config: &Config) -> Box<Snapshot> {
        self.generation += 1;
        let (identity, keys) = (config.identity.clone(), Arc::clone(&config.keys));
        let snapshot = Snapshot::of(self.generation, identity, &self.table, keys);
        Box::new(snapshot.with_recursion(self.recursion.clone()))
    }

    /// Has another version of a zone; what is known of its changes then. `None` if there is no such
    /// zone.
    pub fn install(
        &mut self,
        config: &Config,
        install: &Install,
        moved: &mut Moved,
    ) -> Option<Arc<Journal>> {
        // Since a transfer began its zone may have been given a file.
        let held = self.held.get_mut(&install.name).filter(|held| held.config.is_secondary())?;
        // Or a catalog may have begun it anew in this very step.
        if moved.removed.contains(&install.name) {
            return None;
        }
        if let Some(zone) = &install.zone {
            let before = held.journal.take().unwrap_or_default();
            let journal = before.after(&install.changes, zone.memory_len());
            // Without a peer that may have it nobody asks what has changed; but who builds a worn
            // zone anew does. What leads elsewhere is of another line of versions.
            let is_asked = !held.config.rules.transfer.is_empty() || zone.is_worn();
            let leads_here = journal.changes().last().is_some_and(|it| it.to == zone.serial());
            held.journal = (is_asked && leads_here).then(|| Arc::new(journal));
        }
        held.zone.clone_from(&install.zone);
        put(&mut self.table, &install.name, held);
        let journal = held.journal.clone().unwrap_or_default();
        if held.config.is_consumed()
            && let Some(catalog) = &install.zone
        {
            self.follow(config, &install.name, catalog, moved);
        }
        Some(journal)
    }

    /// Does what the new version of a catalog says.
    fn follow(&mut self, config: &Config, name: &Name, catalog: &Zone, moved: &mut Moved) {
        let step = self.apply(config, name, catalog);
        if step.is_empty() {
            return self.remember(config, step);
        }
        let mut held = std::mem::take(&mut self.held);
        self.clear(config, &step.removed, &held);
        for name in &step.removed {
            held.remove(name);
            self.table.remove(name);
        }
        self.held = held;
        let key = self.key();
        let threads = cores::allowed().len();
        let loading = Loading { key, server: config, before: &self.held, threads };
        // What is kept of other servers' zones may be on its way out; of files it is gone by now.
        let gone: HashSet<&Name> = step.removed.iter().collect();
        let files = step.added.iter().filter(|zone| zone.has_file()).map(|zone| &zone.name);
        let remains: HashSet<&Name> = files.filter(|name| !gone.contains(name)).collect();
        let mut loaded = loading.all(&step.added, &|name| remains.contains(name));
        loaded.extend(loading.all(&step.changed, &|_| true));
        for held in loaded {
            let name = held.config.name.clone();
            put(&mut self.table, &name, &held);
            moved.tracked.push(held.tracked());
            self.held.insert(name, held);
        }
        moved.removed.extend(step.removed.iter().cloned());
        // What was a special-use name may be a zone now, or be one again.
        let names = step.added.iter().map(|zone| &zone.name).chain(&step.removed);
        if !special::replacing(names).is_empty() {
            self.recursion = self.recursion_of(config);
        }
        self.remember(config, step);
        let produced = self.produce(config);
        moved.tracked.extend(produced);
    }

    /// Changes the zone `name` as all of them ask: on disk when this returns. `None` if there is no
    /// such zone.
    pub fn update(&mut self, config: &Config, name: &Name, all: Vec<Asked>) -> Option<Group> {
        let key = self.key();
        let held = self.held.get_mut(name)?;
        let (zone, dynamic) = (held.zone.clone()?, held.dynamic.as_mut()?);
        let threads = cores::allowed().len();
        let nsec3_iterations_max = held.config.nsec3_iterations_max;
        let options = LoadOptions { key, threads, nsec3_iterations_max };
        let mut group = Group::of(&zone, all, &held.config.rules.update, &options);
        let before = held.journal.clone().unwrap_or_default();
        let first = Some(&dynamic.digest).filter(|_| !dynamic.is_updated);
        if let Some(journal) = group.keep(&config.state, &before, first) {
            dynamic.is_updated = true;
            held.zone = Some(Arc::clone(&group.zone));
            held.journal = Some(Arc::new(journal));
            put(&mut self.table, name, held);
        }
        Some(group)
    }

    /// A version of a zone that is to be built anew, and how.
    pub fn worn(&self, name: &Name) -> Option<(Arc<Zone>, LoadOptions)> {
        let held = self.held.get(name)?;
        let zone = held.zone.as_ref().filter(|zone| zone.is_worn())?;
        let nsec3_iterations_max = held.config.nsec3_iterations_max;
        let threads = cores::allowed().len();
        let options = LoadOptions { key: self.key(), threads, nsec3_iterations_max };
        Some((Arc::clone(zone), options))
    }

    /// Has `rebuilt` in place of `worn`; if there is a newer version meanwhile, with the changes
    /// that led to it. `false` if that cannot be.
    pub fn renew(&mut self, name: &Name, worn: &Arc<Zone>, rebuilt: Zone) -> bool {
        let key = self.key();
        let Some(held) = self.held.get_mut(name) else { return false };
        let Some(current) = &held.zone else { return false };
        let renewed = if Arc::ptr_eq(current, worn) {
            Some(rebuilt)
        } else {
            let changes = held.journal.as_ref().and_then(|journal| journal.since(worn.serial()));
            changes.and_then(|changes| {
                let changes: Vec<Change> = changes.iter().map(|it| Change::clone(it)).collect();
                let options = LoadOptions::new(key, 1);
                let room = Room::of(&rebuilt);
                amend(&rebuilt, &changes, "what is served", &options, room).ok()?.zone
            })
        };
        let Some(renewed) = renewed.filter(|zone| zone.serial() == current.serial()) else {
            return false;
        };
        held.zone = Some(Arc::new(renewed));
        put(&mut self.table, name, held);
        true
    }

    /// One zone, for who moves zones between servers.
    pub fn tracked_one(&self, name: &Name) -> Vec<Tracked> {
        self.held.get(name).map(Held::tracked).into_iter().collect()
    }

    /// What has to be done on disk since this was asked last.
    pub fn take_writes(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.writes)
    }

    /// All zones, for who moves them between servers.
    pub fn tracked(&self) -> Vec<Tracked> {
        self.held.values().map(Held::tracked).collect()
    }

    /// The version of one zone.
    pub fn zone(&self, name: &Name) -> Option<&Arc<Zone>> {
        self.held.get(name)?.zone.as_ref()
    }

    /// What is known of the changes of a zone.
    pub fn journal(&self, name: &Name) -> Option<Arc<Journal>> {
        self.held.get(name)?.journal.clone()
    }

    /// What catalogs have brought about.
    pub fn catalogs(&self) -> &Catalogs {
        &self.catalogs
    }

    /// The secret that the names of all zones are hashed with.
    pub fn key(&self) -> HashKey {
        self.table.key()
    }

    /// Says which zones have signatures that have expired or soon will.
    pub fn say_expiries(&self) {
        let now = now();
        self.held.values().filter_map(|held| held.zone.as_ref()).for_each(|z| say_expiry(z, now));
    }

    /// How many zones serve, of how many.
    pub fn serving(&self) -> (usize, usize) {
        let serving = self.held.values().filter(|held| held.zone.is_some()).count();
        (serving, self.held.len())
    }
}

/// Has the cores see `held` from the next snapshot on.
fn put(table: &mut ZoneTable, name: &Name, held: &Held) {
    let number = table.insert(name);
    let entry = table.entry_mut(number);
    entry.state = held.state();
    entry.rules = Arc::clone(&held.config.rules);
    entry.journal.clone_from(&held.journal);
}

//----------- Loading --------------------------------------------------------

fn take_next(next: &AtomicUsize, end: usize) -> Option<usize> {
    let i = next.fetch_add(1, Ordering::Relaxed);
    (i < end).then_some(i)
}

/// Whether reading the zone keeps several threads busy.
fn is_large(zone: &ZoneConfig) -> bool {
    let Some(file) = zone.file() else { return false };
    fs::metadata(file).is_ok_and(|metadata| metadata.len() >= LARGE_FILE_LEN)
}

/// What loading zones needs to know.
struct Loading<'a> {
    key: HashKey,
    server: &'a Config,
    /// The zones there were.
    before: &'a HashMap<Name, Held>,
    threads: usize,
}

impl Loading<'_> {
    /// Loads `zones`: small ones are shared out, one thread each; then large ones take all threads,
    /// one by one. What was kept on disk counts if `restores`.
    fn all(&self, zones: &[ZoneConfig], restores: &(dyn Fn(&Name) -> bool + Sync)) -> Vec<Held> {
        let large: Vec<bool> = zones.iter().map(is_large).collect();
        let next = AtomicUsize::new(0);
        let slots: Vec<OnceLock<Held>> = zones.iter().map(|_| OnceLock::new()).collect();
        let load_small = || {
            while let Some(i) = take_next(&next, zones.len()) {
                if !large[i] {
                    let _ = slots[i].set(self.one(&zones[i], 1, restores));
                }
            }
        };
        let small = large.iter().filter(|large| !**large).count();
        thread::scope(|scope| {
            for _ in 1..self.threads.min(small) {
                scope.spawn(load_small);
            }
            load_small();
        });
        let load_large = |zone| self.one(zone, self.threads, restores);
        let slots = slots.into_iter().zip(zones);
        slots.map(|(slot, zone)| slot.into_inner().unwrap_or_else(|| load_large(zone))).collect()
    }

    fn one(&self, zone: &ZoneConfig, threads: usize, restores: &dyn Fn(&Name) -> bool) -> Held {
        let Loading { key, server, before, .. } = *self;
        let held = before.get(&zone.name);
        let config = zone.clone();
        // What a secondary has in memory is never older than what it has on disk.
        let is_kept = |zone: &ZoneConfig| zone.is_secondary() || zone.is_produced();
        if let Some(held) = held
            && (held.is_current(zone) || is_kept(zone) && is_kept(&held.config))
        {
            return Held {
                config,
                zone: held.zone.clone(),
                files: held.files.clone(),
                age: held.age,
                journal: held.journal.clone(),
                dynamic: held.dynamic.clone(),
            };
        }
        let restores = restores(&zone.name);
        match (is_kept(zone), restores) {
            (true, true) => restore_one(key, server, config, threads),
            (true, false) => Held::new(config),
            (false, _) => load_file(key, server, config, held, threads, restores),
        }
    }
}

fn load_file(
    key: HashKey,
    server: &Config,
    config: ZoneConfig,
    held: Option<&Held>,
    threads: usize,
    restores: bool,
) -> Held {
    let (name, started) = (&config.name, Instant::now());
    let options = LoadOptions { key, threads, nsec3_iterations_max: config.nsec3_iterations_max };
    // What updates have changed is on disk, whether or not any are allowed now.
    let find = || dynamic::Updated::find(server, held_updates(held), &options, name);
    let found = if restores { find() } else { Ok(None) };
    let is_lost = found.is_err();
    let updated = found.unwrap_or_else(|error| {
        say!(
            "zone {name}: what updates have changed cannot be read: {error}: its file is served, \
             and updates are refused until that is mended, or removed"
        );
        None
    });
    let is_dynamic = !is_lost && (updated.is_some() || !config.rules.update.is_empty());
    let files = if is_dynamic { Files::digested() } else { Files::default() };
    let loaded = match config.file() {
        Some(file) => load(name, &file.to_string_lossy(), &files, &options),
        None => load(name, "sample.zone", &Embedded, &options),
    };
    for diagnostic in loaded.diagnostics.iter().take(LOGGED_MAX) {
        say!("zone {name}: {diagnostic}");
    }
    if let Some(more) = loaded.diagnostics.len().checked_sub(LOGGED_MAX).filter(|&n| n > 0) {
        let file = config.file().unwrap_or_default();
        say!("zone {name}: and {more} more: see ring53 check zone {name} {}", file.display());
    }
    let is_good = |loaded: &Zone| {
        is_wanted(loaded, None, &config, threads) && is_let_pass(server, &config, held, loaded)
    };
    if let Some(loaded) = loaded.zone.filter(is_good) {
        say!(
            "zone {name}: serial {}, {} names, {} records, {} KiB, loaded in {} ms",
            loaded.serial(),
            loaded.name_count(),
            loaded.record_count(),
            loaded.memory_len() >> 10,
            started.elapsed().as_millis(),
        );
        say_expiry(&loaded, now());
        let (files, digest) = files.into_read();
        let fresh = |digest| Box::new(Dynamic { digest, is_updated: false });
        let Some(updated) = updated else {
            let before = held.and_then(|held| Some((held.zone.clone()?, held.journal.clone())));
            let journal = restores.then(|| record(server, &config, before, &loaded, key));
            let (zone, files, dynamic) = (Some(Arc::new(loaded)), Some(files), digest.map(fresh));
            return Held { config, zone, files, age: None, journal, dynamic };
        };
        let verdict = updated.judge(&loaded, digest, key);
        if verdict == Verdict::File {
            let before = Some((Arc::clone(&updated.zone), Some(Arc::clone(&updated.journal))));
            let journal = Some(record(server, &config, before, &loaded, key));
            if server.owns_state
                && let Some(journal) = &journal
                && let Err(error) = state::forget_updates(&server.state, name, journal)
            {
                say!("zone {name}: {error}");
            }
            let (zone, files, dynamic) = (Some(Arc::new(loaded)), Some(files), digest.map(fresh));
            return Held { config, zone, files, age: None, journal, dynamic };
        }
        // A file that is not taken is read again with the next reload.
        let files = Some(files).filter(|_| verdict == Verdict::Updates);
        return updated.into_held(config, files);
    }
    if let Some(updated) = updated {
        say!("zone {name}: not loaded; serial {} goes on serving", updated.zone.serial());
        return updated.into_held(config, None);
    }
    let zone = held.and_then(|held| held.zone.clone());
    match &zone {
        Some(last) => say!("zone {name}: not loaded; serial {} goes on serving", last.serial()),
        None => say!(
            "zone {name}: not loaded; its names are answered with SERVFAIL until it is mended and \
             SIGHUP sent",
        ),
    }
    let journal = held.and_then(|held| held.journal.clone());
    let dynamic = held.and_then(|held| held.dynamic.clone());
    Held { config, zone, files: None, age: None, journal, dynamic }
}

/// What updates have made of a zone that is held.
fn held_updates(held: Option<&Held>) -> Option<dynamic::Updated> {
    let held = held?;
    let dynamic = held.dynamic.as_ref().filter(|dynamic| dynamic.is_updated)?;
    let (zone, journal) = (held.zone.clone()?, held.journal.clone().unwrap_or_default());
    Some(dynamic::Updated { zone, journal, digest: dynamic.digest })
}

impl dynamic::Updated {
    /// The zone goes on as updates have made it.
    fn into_held(self, config: ZoneConfig, files: Option<Box<[FileRead]>>) -> Held {
        let dynamic = Some(Box::new(Dynamic { digest: self.digest, is_updated: true }));
        let (zone, journal) = (Some(self.zone), Some(self.journal));
        Held { config, zone, files, age: None, journal, dynamic }
    }
}

/// Whether the command of a zone, if it has one, lets it take the place of the version that was.
fn is_let_pass(server: &Config, config: &ZoneConfig, held: Option<&Held>, zone: &Zone) -> bool {
    let Some(check) = config.check.as_ref().filter(|_| server.owns_state) else { return true };
    // Without a version that could go on, an end of the command would be an end of the zone.
    if held.is_none_or(|held| held.zone.is_none()) {
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
    before: Option<(Arc<Zone>, Option<Arc<Journal>>)>,
    zone: &Zone,
    key: HashKey,
) -> Arc<Journal> {
    let (name, new) = (zone.apex(), zone.serial());
    // Without a peer that may have it nobody asks what has changed.
    if config.rules.transfer.is_empty() {
        return Arc::default();
    }
    let Some((before, journal)) = before else { return recall(server, zone) };
    let journal = journal.unwrap_or_default();
    let old = before.serial();
    if old == new {
        if diff(&before, zone, key).is_empty() {
            return journal;
        }
        say!("zone {name}: it has changed, but its serial {new} has not: others will not notice");
        return forget(server, zone);
    }
    if (new.wrapping_sub(old) as i32) < 0 {
        say!("zone {name}: its serial went back from {old} to {new}: others will not take it");
        return forget(server, zone);
    }
    let change = Arc::new(diff(&before, zone, key));
    let journal = journal.after(std::slice::from_ref(&change), zone.memory_len());
    if server.owns_state
        && let Err(error) = state::record(&server.state, name, &[change], &journal)
    {
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

/// A zone of other servers, as it was when the last process ended, unless it is too old; or a
/// catalog that was made here.
fn restore_one(key: HashKey, server: &Config, config: ZoneConfig, threads: usize) -> Held {
    let name = &config.name;
    let options = LoadOptions { key, threads, nsec3_iterations_max: config.nsec3_iterations_max };
    let (zone, journal) = match state::restore(&server.state, name, &options, server.owns_state) {
        Ok(Some(restored)) => restored,
        Ok(None) => return Held::new(config),
        Err(error) if config.is_produced() => {
            say!("catalog {name}: {error}: others get the whole of it");
            return Held::new(config);
        }
        Err(error) => {
            say!("zone {name}: {error}: it is transferred again");
            return Held::new(config);
        }
    };
    // A clock that was set back makes a zone no younger than it is: it is then asked for at once.
    let confirmed = state::restore_confirmed(&server.state, name);
    let age = Duration::from_secs(deferred::wall_clock().saturating_sub(confirmed));
    if config.is_secondary() && age >= Duration::from_secs(zone.soa_numbers()[3].into()) {
        say!("zone {name}: serial {} has expired: it is transferred again", zone.serial());
        return Held::new(config);
    }
    if !is_wanted(&zone, None, &config, threads) {
        say!("zone {name}: what was kept may not serve: it is transferred again");
        return Held::new(config);
    }
    say!("zone {name}: serial {}, kept from before", zone.serial());
    let is_asked = !config.rules.transfer.is_empty();
    let journal = (is_asked && !journal.changes().is_empty()).then(|| Arc::new(journal));
    let age = config.is_secondary().then_some(age);
    let (zone, files) = (Some(Arc::new(zone)), Some(Box::default()));
    Held { config, zone, files, age, journal, dynamic: None }
}

//----------- Signatures -----------------------------------------------------

/// Seconds since 1970, as RRSIG counts them.
pub fn now() -> u32 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_secs() as u32
}

/// Whether the configuration lets a zone that could be loaded serve; `before` is the version that
/// it may have been made of.
pub fn is_wanted(zone: &Zone, before: Option<&Zone>, config: &ZoneConfig, threads: usize) -> bool {
    let checks = Checks { signatures: config.dnssec == Dnssec::Strict, digest: config.zonemd };
    if checks == Checks::default() {
        return true;
    }
    let file = match (config.file(), config.primaries.first()) {
        (Some(file), _) => file.display().to_string(),
        (None, Some(primary)) => primary.to_string(),
        (None, None) => "sample.zone".into(),
    };
    let found = match before {
        Some(before) => verify_amended(zone, before, &file, now(), threads, checks),
        None => verify(zone, &file, now(), threads, checks),
    };
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
