//! Who changes what is served: reloads, and zones that other servers send.
//!
//! ```text
//!   SIGHUP ──> reload: configuration, files ──┐
//!   transfers ──> install: several at once ───┴──> ZoneSet ──> Snapshot ──> published
//!                                                     └─ what catalogs change ──> transfers
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::UnboundedSender;

use crate::memory::epoch::Published;
use crate::snapshot::Snapshot;
use crate::wire::Name;
use crate::zone::Zone;
use crate::zone::change::Journal;

use super::config::Config;
use super::control::Reread;
use super::cores;
use super::report::say;
use super::transfers::Told;
use super::updates::Asked;
use super::zones::{Install, Moved, ZoneSet};

/// What a reload works on. Old zones are freed where it runs, never on a core.
pub struct Loader {
    /// The running configuration.
    pub config: Config,
    /// Its zones.
    pub zones: ZoneSet,
    /// Where the cores look.
    pub published: Published<Snapshot>,
    /// Who wants to know what is served.
    pub told: UnboundedSender<Told>,
}

/// A loader that threads share.
pub type SharedLoader = Arc<Mutex<Loader>>;

/// The loader, whatever became of who had it before.
pub fn lock(loader: &SharedLoader) -> MutexGuard<'_, Loader> {
    loader.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Loader {
    /// Reads the configuration and all files that changed; what fails stays as it was.
    pub fn reload(&mut self, reread: &Reread) {
        let mut next = match reread() {
            Ok(next) => next,
            Err(error) => {
                say!("not reloaded, the running configuration stays: {error}");
                return;
            }
        };
        let fixed = fixed_differences(&self.config, &next);
        if !fixed.is_empty() {
            say!("{}: changed in the configuration; restart to use it", fixed.join(", "));
        }
        next.state.clone_from(&self.config.state);
        next.owns_state = self.config.owns_state;
        let snapshot = self.zones.load(&next, cores::allowed().len());
        // What cannot change stays as it runs, so that the next reload says so again.
        self.config.identity = next.identity;
        self.config.keys = next.keys;
        self.config.zones = next.zones;
        let generation = snapshot.generation();
        drop(self.published.publish(snapshot));
        self.tell();
        let (serving, all) = self.zones.serving();
        say!("reloaded: generation {generation} serves {serving} of {all} zones");
    }

    /// Says which zones there are now.
    pub fn tell(&mut self) {
        let (zones, keys) = (self.zones.tracked(), Arc::clone(&self.config.keys));
        // At the end nobody listens any more.
        let _ = self.told.send(Told::Zones(zones, keys, self.zones.take_writes()));
    }

    /// Changes the zone `name` as they ask, on disk first, and tells them; those that are left for
    /// the next time.
    pub fn update(&mut self, name: &Name, all: Vec<Asked>) -> Vec<Asked> {
        let Some(mut group) = self.zones.update(&self.config, name, all) else {
            return Vec::new();
        };
        let rest = std::mem::take(&mut group.rest);
        if !group.changes.is_empty() {
            let snapshot = self.zones.snapshot(&self.config);
            drop(self.published.publish(snapshot));
            let moved = Moved { tracked: self.zones.tracked_one(name), ..Moved::default() };
            let _ = self.told.send(Told::Moved(moved, Vec::new()));
        }
        group.answer();
        rest
    }

    /// Serves these versions from now on, and does what catalogs among them say; what is known of
    /// the changes of each. `None` for zones that are none any more: a reload or a catalog may have
    /// taken them away.
    pub fn install(&mut self, installs: &[Install]) -> Vec<Option<Arc<Journal>>> {
        let mut moved = Moved::default();
        let mut install = |install| self.zones.install(&self.config, install, &mut moved);
        let journals = installs.iter().map(&mut install).collect();
        let snapshot = self.zones.snapshot(&self.config);
        drop(self.published.publish(snapshot));
        let writes = self.zones.take_writes();
        if !moved.removed.is_empty() || !moved.tracked.is_empty() || !writes.is_empty() {
            let _ = self.told.send(Told::Moved(moved, writes));
        }
        journals
    }
}

/// Builds the zone `name` anew if so much of it has changed that it should be, while it goes on
/// changing. The version that is served then, if it is another.
pub fn renew(loader: &SharedLoader, name: &Name) -> Option<Arc<Zone>> {
    let (worn, options) = lock(loader).zones.worn(name)?;
    let rebuilt = worn.rebuilt(&options)?;
    let mut loader = lock(loader);
    let Loader { config, zones, published, .. } = &mut *loader;
    if !zones.renew(name, &worn, rebuilt) {
        return None;
    }
    let snapshot = zones.snapshot(config);
    drop(published.publish(snapshot));
    zones.zone(name).cloned()
}

/// The keys that only a restart changes, and that `next` has changed.
fn fixed_differences(running: &Config, next: &Config) -> Vec<&'static str> {
    [
        ("listen", running.listen != next.listen),
        ("cores", running.cores != next.cores),
        ("path", running.path != next.path),
        ("user", running.user != next.user),
        ("state", running.state != next.state),
        ("receive_buffer", running.receive_buffer != next.receive_buffer),
        ("tcp", running.stream != next.stream),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}
