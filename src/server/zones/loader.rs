//! Who changes what is served: reloads, and zones that other servers send.
//!
//! ```text
//!   SIGHUP ──> reload: configuration, files ──┐
//!   transfers ──> install: several at once ───┴──> ZoneSet ──> Snapshot ──> published
//!                                                     └─ what catalogs change ──> transfers
//! ```

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::UnboundedSender;

use crate::memory::epoch::Published;
use crate::snapshot::Snapshot;
use crate::wire::Name;
use crate::zone::Zone;
use crate::zone::change::Journal;

use super::transfers::Told;
use super::updates::Asked;
use super::{Install, Moved, ZoneSet};
use crate::server::config::Config;
use crate::server::control::Reread;
use crate::server::cores;
use crate::server::forwarding::renewal::Resolver;
use crate::server::report::say;

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
    /// Who answers for names of others; `None`: nobody.
    pub resolver: Option<Resolver>,
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
        keep_fixed(&self.config, &mut next);
        if let Some(resolver) = &self.resolver
            && let Err(error) = resolver.renew(&self.config, &next)
        {
            say!("not reloaded, the running configuration stays: {error}");
            return;
        }
        let snapshot = self.zones.load(&next, cores::allowed().len());
        // What cannot change stays as it runs, so that the next reload says so again.
        self.config.identity = next.identity;
        self.config.keys = next.keys;
        self.config.zones = next.zones;
        self.config.recursion = next.recursion;
        self.config.caching = next.caching;
        self.config.forwards = next.forwards;
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
        self.settle(&mut moved);
        let snapshot = self.zones.snapshot(&self.config);
        drop(self.published.publish(snapshot));
        let writes = self.zones.take_writes();
        if !moved.removed.is_empty() || !moved.tracked.is_empty() || !writes.is_empty() {
            let _ = self.told.send(Told::Moved(moved, writes));
        }
        journals
    }
}

impl Loader {
    /// Several catalogs may have said something of the same zones: each is told of once, as it is
    /// now.
    fn settle(&self, moved: &mut Moved) {
        let removed: HashSet<Name> = moved.removed.drain(..).collect();
        moved.removed.extend(removed);
        let tracked: HashSet<Name> = moved.tracked.drain(..).map(|it| it.config.name).collect();
        moved.tracked.extend(tracked.iter().flat_map(|name| self.zones.tracked_one(name)));
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

/// Has `next` keep what only a restart changes of the cache.
fn keep_fixed(running: &Config, next: &mut Config) {
    match (&running.caching, &mut next.caching) {
        (Some(running), Some(next)) => {
            next.memory = running.memory;
            next.save.clone_from(&running.save);
        }
        (None, None) => {}
        _ => {
            next.recursion.clone_from(&running.recursion);
            next.caching.clone_from(&running.caching);
            next.forwards.clone_from(&running.forwards);
        }
    }
}

/// The keys that only a restart changes, and that `next` has changed.
fn fixed_differences(running: &Config, next: &Config) -> Vec<&'static str> {
    let caches = running.caching.as_ref().zip(next.caching.as_ref());
    [
        ("listen", running.listen != next.listen),
        ("cores", running.cores != next.cores),
        ("path", running.path != next.path),
        ("user", running.user != next.user),
        ("state", running.state != next.state),
        ("receive_buffer", running.receive_buffer != next.receive_buffer),
        ("tcp", running.stream != next.stream),
        ("cache.memory", caches.is_some_and(|(running, next)| running.memory != next.memory)),
        ("cache.save", caches.is_some_and(|(running, next)| running.save != next.save)),
        ("the first forward", running.caching.is_none() && next.caching.is_some()),
        ("the last forward", running.caching.is_some() && next.caching.is_none()),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;
    use crate::zone::change::Change;
    use crate::zone::{Given, HashKey, LoadOptions, load};

    const KEY: [u8; 16] = *b"a secret of test";

    /// Two catalogs of other servers are followed.
    fn loader(directory: &Path) -> (Loader, UnboundedReceiver<Told>) {
        let text = "version = 1\n\
            [[pattern]]\nname = \"p\"\nprimaries = [\"192.0.2.1\"]\n\
            allow_transfer = [\"192.0.2.2\"]\n\
            [[zone]]\nname = \"one.\"\nprimaries = [\"192.0.2.1\"]\ncatalog = { pattern = \"p\" }\n\
            [[zone]]\nname = \"two.\"\nprimaries = [\"192.0.2.1\"]\ncatalog = { pattern = \"p\" }\n";
        let config = Config::parse("ring53.toml", text, directory).unwrap();
        let mut zones = ZoneSet::new(HashKey::new(KEY));
        let published = Published::new(zones.load(&config, 1), 1);
        let (tell, told) = unbounded_channel();
        (Loader { config, zones, published, told: tell, resolver: None }, told)
    }

    fn version(name: &str, serial: u32, records: &str) -> Install {
        let text = format!("$TTL 0\n@ SOA a. b. {serial} 2 3 400 5\n@ NS a.\n{records}");
        let (name, options) = (name.parse().unwrap(), LoadOptions::new(HashKey::new(KEY), 1));
        let zone = load(&name, "text", &Given(text), &options).zone.unwrap();
        Install { name, zone: Some(Arc::new(zone)), changes: Vec::new() }
    }

    fn names(names: &[Name]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    /// What one batch says: zones that are gone, and zones that are there.
    fn moved(told: &mut UnboundedReceiver<Told>) -> [Vec<String>; 2] {
        let Ok(Told::Moved(moved, _)) = told.try_recv() else { panic!("something has moved") };
        assert!(told.try_recv().is_err(), "once");
        let tracked = moved.tracked.into_iter().map(|it| it.config.name.clone());
        [names(&moved.removed), names(&tracked.collect::<Vec<_>>())]
    }

    #[test]
    fn what_needs_a_restart_is_named_and_stays() {
        const FORWARD: &str = "[[forward]]\nzone = \".\"\nto = [\"192.0.2.1\"]\n";
        const CACHE: &str = "[cache]\nmemory = \"8MiB\"\nsave = \"x\"\nttl_max = \"1h\"\n";
        let parse = |text: &str| {
            let text = format!("version = 1\n{text}");
            Config::parse("ring53.toml", &text, Path::new("")).unwrap()
        };
        let (none, one) = (parse(""), parse(FORWARD));
        let other = parse(&[CACHE, FORWARD].concat());
        assert_eq!(fixed_differences(&none, &one), ["the first forward"]);
        assert_eq!(fixed_differences(&one, &none), ["the last forward"]);
        assert_eq!(fixed_differences(&one, &other), ["cache.memory", "cache.save"]);
        let mut next = other.clone();
        keep_fixed(&one, &mut next);
        assert_eq!(fixed_differences(&one, &next), [""; 0]);
        assert_eq!(next.caching.unwrap().ttl_max, Duration::from_secs(3600));
        let mut next = one.clone();
        keep_fixed(&none, &mut next);
        assert!(next.forwards.is_empty() && next.caching.is_none());
        let mut next = none.clone();
        keep_fixed(&one, &mut next);
        assert_eq!((next.forwards, next.caching), (one.forwards, one.caching));
    }

    const V: &str = "version TXT 2\n";

    #[test]
    fn a_batch_tells_of_each_zone_once() {
        let directory = tempfile::tempdir().unwrap();
        let (mut loader, mut told) = loader(directory.path());
        let lists = format!("{V}a.zones PTR a.\n");
        loader.install(&[version("one.", 1, &lists), version("two.", 1, &lists)]);
        assert_eq!(moved(&mut told), [vec![], vec!["a.".to_string()]]);
        // The other one takes it over, and gives it up in the same batch.
        loader.install(&[version("one.", 2, V), version("two.", 2, V)]);
        assert_eq!(moved(&mut told), [vec!["a.".to_string()], vec![]]);
        // Another label twice: there it is once.
        loader.install(&[version("one.", 3, &lists)]);
        let other = format!("{V}b.zones PTR a.\n");
        let _ = moved(&mut told);
        loader.install(&[version("one.", 4, &other), version("one.", 5, &lists)]);
        assert_eq!(moved(&mut told), [vec!["a.".to_string()], vec!["a.".to_string()]]);
    }

    #[test]
    fn what_began_anew_has_nothing_of_what_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let (mut loader, _told) = loader(directory.path());
        let change =
            |from, to| Arc::new(Change { from, to, deleted: Vec::new(), added: Vec::new() });
        loader.install(&[version("one.", 1, &format!("{V}a.zones PTR a.\n"))]);
        let step = Install { changes: vec![change(6, 7)], ..version("a.", 7, "") };
        let journals = loader.install(&[version("a.", 6, ""), step]);
        assert_eq!(journals[1].as_ref().unwrap().changes().len(), 1);
        // A transfer began before the catalog said so.
        let late = Install { changes: vec![change(7, 8)], ..version("a.", 8, "") };
        let anew = version("one.", 2, &format!("{V}b.zones PTR a.\n"));
        let journals = loader.install(&[anew, late]);
        assert!(journals[0].is_some() && journals[1].is_none());
        assert!(loader.zones.zone(&"a.".parse().unwrap()).is_none());
        // Changes that lead elsewhere are not kept beside a version.
        loader.install(&[version("a.", 6, "")]);
        let other = Install { changes: vec![change(6, 7)], ..version("a.", 9, "") };
        let journals = loader.install(&[other]);
        assert_eq!(journals[0].as_ref().unwrap().changes().len(), 0);
    }
}
