//! The thread that moves zones: secondaries refreshed, peers notified, deferred datagrams answered.
//!
//! ```text
//!   cores ──deferrals──> answered here, from the sockets they came in on
//!   loader ──told──────> zones: which are secondary, which have a new serial
//!   NOTIFY ──told──────> refresh now
//!   clock ─────────────> refresh, retry, expire
//!                 └────> secondary::attempt ──> loader installs ──> NOTIFY to others
//! ```
//!
//! One thread and no lock of its own; what takes long (building a zone, writing it to disk) runs on
//! threads that tokio keeps for that.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::task::{AbortHandle, LocalSet, spawn_blocking, spawn_local};
use tokio::time::sleep;

use crate::answer::{CoreState, Transport};
use crate::memory::epoch::Reader;
use crate::net::Replier;
use crate::policy::Remote;
use crate::snapshot::Snapshot;
use crate::transfer::refresh::Refresh;
use crate::tsig::Keys;
use crate::wire::Name;
use crate::zone::change::{Change, Journal};
use crate::zone::{HashKey, Zone};

use super::commands;
use super::config::ZoneConfig;
use super::deferred::{Request, Response, respond, wall_clock};
use super::loader::{self, SharedLoader};
use super::report::say;
use super::secondary::{Found, Newer, Slots, Wanted, attempt, random_id};
use super::state;
use super::worker::Deferral;
use super::zones::Tracked;

/// How long the thread sleeps at most before it looks whether it should stop.
const PAUSE: Duration = Duration::from_millis(100);
/// How often it is kept on disk that a zone is confirmed.
const CONFIRMED_KEPT_EVERY: Duration = Duration::from_secs(60);

/// What others have to tell this thread.
pub enum Told {
    /// All zones there are, and all keys.
    Zones(Vec<Tracked>, Arc<Keys>),
    /// A peer that may do so says that a zone has changed.
    Notified(Name, IpAddr),
}

/// What the thread works with.
pub struct Transfers {
    /// What the cores answer from.
    pub snapshot: Reader<Snapshot>,
    /// For answering.
    pub core: CoreState,
    /// From the cores.
    pub deferrals: Receiver<Deferral>,
    /// One for each core.
    pub repliers: Vec<Replier>,
    /// From everybody.
    pub told: UnboundedReceiver<Told>,
    /// Who changes what is served.
    pub loader: SharedLoader,
    /// Where zones are kept.
    pub state: PathBuf,
    /// Whether there is a socket for commands there.
    pub takes_commands: bool,
    /// The secret that names are hashed with.
    pub hash_key: HashKey,
    /// Threads that build a zone.
    pub threads: usize,
}

//----------- Running --------------------------------------------------------

/// Runs until `stop` is set.
pub fn run(transfers: Transfers, stop: &AtomicBool) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let Transfers { mut snapshot, mut core, mut deferrals, repliers, mut told, .. } = transfers;
    let takes_commands = transfers.takes_commands;
    let keeper = Rc::new(Keeper {
        zones: RefCell::default(),
        keys: RefCell::default(),
        loader: transfers.loader,
        state: transfers.state,
        hash_key: transfers.hash_key,
        threads: transfers.threads,
        started: Instant::now(),
        slots: Slots::default(),
        next_due: Cell::new(Duration::ZERO),
        telling: RefCell::default(),
    });
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        if takes_commands {
            commands::listen(&keeper.state, &keeper);
        }
        while !stop.load(Ordering::Relaxed) {
            tokio::select! {
                Some(deferral) = deferrals.recv() => {
                    let elapsed = keeper.now();
                    let pinned = snapshot.pin();
                    let notified = reply(&pinned, &mut core, elapsed, &repliers, &deferral);
                    drop(pinned);
                    if let Some((name, peer)) = notified {
                        keeper.notified(&name, Some(peer));
                    }
                }
                Some(event) = told.recv() => match event {
                    Told::Zones(zones, keys) => keeper.track(zones, keys),
                    Told::Notified(name, peer) => keeper.notified(&name, Some(peer)),
                },
                () = sleep(keeper.next_due.get().saturating_sub(keeper.now()).min(PAUSE)) => {}
            }
            if keeper.next_due.get() <= keeper.now() {
                keeper.start_due();
            }
        }
    });
    // A zone that is being built is not waited for.
    runtime.shutdown_background();
    Ok(())
}

/// Answers a datagram; the zone that it says has changed, if it may say so, and who says it.
fn reply(
    snapshot: &Snapshot,
    core: &mut CoreState,
    elapsed: Duration,
    repliers: &[Replier],
    deferral: &Deferral,
) -> Option<(Name, IpAddr)> {
    let peer = deferral.origin.peer()?.ip();
    let request = Request { octets: &deferral.octets, peer, transport: Transport::Datagram };
    let (reply, notified) = match respond(snapshot, core, elapsed, &request) {
        Response::Reply(reply) => (reply, None),
        Response::Notified(name, reply) => (reply, Some((name, peer))),
        Response::Transfer(_) | Response::Silence => return None,
    };
    // As with any reply: if it cannot be sent the peer asks again.
    let _ = repliers.get(deferral.core)?.send(&deferral.origin, &reply);
    notified
}

//----------- Keeper ---------------------------------------------------------

/// All zones that are moved, shared by the tasks of one thread.
pub struct Keeper {
    /// By name.
    pub zones: RefCell<HashMap<Name, Rc<Kept>>>,
    /// All keys.
    pub keys: RefCell<Arc<Keys>>,
    /// Who changes what is served.
    pub loader: SharedLoader,
    state: PathBuf,
    /// The secret that names are hashed with.
    pub hash_key: HashKey,
    threads: usize,
    started: Instant,
    slots: Slots,
    /// When the next zone is due; what makes one due sooner sets it to zero.
    next_due: Cell<Duration>,
    /// Who is being told of which zone.
    pub telling: RefCell<HashMap<(Name, Remote), AbortHandle>>,
}

/// One zone.
pub struct Kept {
    /// Its configuration.
    pub config: RefCell<Arc<ZoneConfig>>,
    /// The last good version, even if it has expired.
    pub zone: RefCell<Option<Arc<Zone>>>,
    /// `None` if it comes from a file.
    pub refresh: RefCell<Option<Refresh>>,
    is_asking: Cell<bool>,
    /// Who said that it has changed since its primaries were asked.
    said_by: Cell<Option<IpAddr>>,
    /// Whether that was while they were asked.
    is_stale: Cell<bool>,
    /// Versions are installed one after the other.
    installing: tokio::sync::Mutex<()>,
    /// When it was last kept on disk that it is confirmed.
    confirmed_kept: Cell<Option<Duration>>,
    /// Whether the version there is is kept on disk.
    is_kept: Cell<bool>,
    /// Whether no primary has confirmed it for too long.
    pub is_expired: Cell<bool>,
    /// What happened last.
    pub last: RefCell<Option<String>>,
}

impl Kept {
    /// Remembers what happened last.
    fn say(&self, what: String) {
        *self.last.borrow_mut() = Some(what);
    }
}

impl Keeper {
    /// Since the thread began.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Takes over which zones there are, and tells peers of those that have a new serial.
    fn track(self: &Rc<Keeper>, tracked: Vec<Tracked>, keys: Arc<Keys>) {
        *self.keys.borrow_mut() = keys;
        let mut before = std::mem::take(&mut *self.zones.borrow_mut());
        let now = self.now();
        let mut changed = Vec::new();
        for Tracked { config, zone, age } in tracked {
            let name = config.name.clone();
            let is_secondary = !config.primaries.is_empty();
            let config = Arc::new(config);
            let kept = match before.remove(&name) {
                Some(kept) if kept.refresh.borrow().is_some() == is_secondary => {
                    let differs = *kept.config.replace(Arc::clone(&config)) != *config;
                    if let Some(refresh) = kept.refresh.borrow_mut().as_mut().filter(|_| differs) {
                        refresh.notified(now);
                    }
                    kept
                }
                _ => Rc::new(self.begin(config, age.and(zone.clone()), age, now)),
            };
            // What a secondary has is this thread's to say.
            if !is_secondary {
                changed.push((Rc::clone(&kept), zone));
            }
            self.zones.borrow_mut().insert(name, kept);
        }
        // Now that all zones are there: name servers are looked up in them.
        for (kept, zone) in changed {
            self.replace(&kept, zone);
        }
        self.next_due.set(Duration::ZERO);
    }

    fn begin(
        &self,
        config: Arc<ZoneConfig>,
        zone: Option<Arc<Zone>>,
        age: Option<Duration>,
        now: Duration,
    ) -> Kept {
        let seed = u64::from(random_id().unwrap_or(1)) << 32 | now.as_micros() as u64;
        let refresh = (!config.primaries.is_empty()).then(|| match (&zone, age) {
            (Some(zone), Some(age)) => Refresh::restored(now, age, zone.soa_numbers(), seed),
            _ => Refresh::new(now, seed),
        });
        Kept {
            config: RefCell::new(config),
            zone: RefCell::new(zone),
            refresh: RefCell::new(refresh),
            is_asking: Cell::new(false),
            said_by: Cell::new(None),
            is_stale: Cell::new(false),
            installing: tokio::sync::Mutex::default(),
            confirmed_kept: Cell::new(None),
            is_kept: Cell::new(true),
            is_expired: Cell::new(false),
            last: RefCell::default(),
        }
    }

    /// A zone has another version now: peers are told if it has another serial.
    fn replace(self: &Rc<Keeper>, kept: &Kept, zone: Option<Arc<Zone>>) {
        let Some(zone) = zone else { return };
        let before = kept.zone.replace(Some(Arc::clone(&zone)));
        if before.is_some_and(|before| before.serial() == zone.serial()) {
            return;
        }
        self.notify_all(kept, &zone);
    }

    /// The zone is said to have changed, by `peer` or on this machine.
    pub fn notified(&self, name: &Name, peer: Option<IpAddr>) {
        if let Some(kept) = self.zones.borrow().get(name)
            && let Some(refresh) = kept.refresh.borrow_mut().as_mut()
        {
            refresh.notified(self.now());
            kept.said_by.set(peer);
            kept.is_stale.set(kept.is_asking.get());
            self.next_due.set(Duration::ZERO);
        }
    }

    /// Starts what is due, and finds out when the next is.
    fn start_due(self: &Rc<Keeper>) {
        let now = self.now();
        let mut next = now + PAUSE;
        let zones = self.zones.borrow();
        for kept in zones.values() {
            let mut refresh = kept.refresh.borrow_mut();
            let Some(refresh) = refresh.as_mut() else { continue };
            if !kept.is_expired.get()
                && let Some(expires) = refresh.expires()
            {
                if expires <= now {
                    kept.is_expired.set(true);
                    spawn_local(Rc::clone(self).expire(Rc::clone(kept)));
                }
                next = next.min(expires);
            }
            if kept.is_asking.get() {
                continue;
            }
            if refresh.next() <= now {
                kept.is_asking.set(true);
                refresh.asking(now);
                spawn_local(Rc::clone(self).refresh(Rc::clone(kept)));
            }
            next = next.min(refresh.next());
        }
        self.next_due.set(next.max(now + Duration::from_millis(1)));
    }

    async fn expire(self: Rc<Keeper>, kept: Rc<Kept>) {
        let config = Arc::clone(&kept.config.borrow());
        let _turn = kept.installing.lock().await;
        // It may have been confirmed while others had their turn.
        if kept.is_expired.get() {
            say!(
                "zone {}: expired: no primary has confirmed it for too long; its names are \
                 answered with SERVFAIL until one does",
                config.name
            );
            self.install(&config, None, &[]).await;
        }
    }

    /// Serves a version, or none; returns its journal. Only in turn: [`Kept::installing`].
    async fn install(
        &self,
        config: &Arc<ZoneConfig>,
        zone: Option<Arc<Zone>>,
        changes: &[Arc<Change>],
    ) -> Option<Arc<Journal>> {
        let (loader, name) = (Arc::clone(&self.loader), config.name.clone());
        let changes = changes.to_vec();
        let install = move || {
            let mut loader = loader::lock(&loader);
            loader.install(&name, zone, &changes);
            loader.zones.journal(&name)
        };
        spawn_blocking(install).await.ok().flatten()
    }

    /// Asks the primaries of a zone, one after the other.
    async fn refresh(self: Rc<Keeper>, kept: Rc<Kept>) {
        let config = Arc::clone(&kept.config.borrow());
        let wanted = Wanted {
            config: Arc::clone(&config),
            zone: kept.zone.borrow().clone(),
            keys: Arc::clone(&self.keys.borrow()),
            hash_key: self.hash_key,
            threads: self.threads,
            state: self.state.clone(),
        };
        // Whoever says that there is something newer is asked first; and if it was not so, all are.
        let said_by = kept.said_by.take();
        let (first, others): (Vec<&Remote>, Vec<&Remote>) =
            config.primaries.iter().partition(|remote| Some(remote.address.ip()) == said_by);
        let mut confirmed = false;
        for remote in first.into_iter().chain(others) {
            let started = Instant::now();
            match attempt(&wanted, remote, &self.slots).await {
                Ok(Found::Current) => {
                    kept.say(format!("{remote} has nothing newer"));
                    confirmed = true;
                    if said_by.is_none() {
                        break;
                    }
                }
                Ok(Found::Older) => {
                    say!("zone {}: {remote} has an older version", config.name);
                    kept.say(format!("{remote} has an older version"));
                }
                Ok(Found::Newer(newer)) => {
                    self.take(&kept, &config, newer, remote, started).await;
                    confirmed = true;
                    break;
                }
                Err(error) => {
                    say!("zone {}: {remote} {error}", config.name);
                    kept.say(format!("{remote} {error}"));
                }
            }
        }
        if confirmed {
            self.confirm(&kept, &config).await;
        } else if let Some(refresh) = kept.refresh.borrow_mut().as_mut() {
            refresh.failed(self.now());
        }
        kept.is_asking.set(false);
        self.next_due.set(Duration::ZERO);
        if kept.is_stale.take()
            && let Some(refresh) = kept.refresh.borrow_mut().as_mut()
        {
            refresh.notified(self.now());
        }
    }

    /// A newer version: served at once, then kept on disk.
    async fn take(
        self: &Rc<Keeper>,
        kept: &Rc<Kept>,
        config: &Arc<ZoneConfig>,
        newer: Newer,
        remote: &Remote,
        started: Instant,
    ) {
        let Newer { zone, changes, in_steps } = newer;
        let how = if in_steps { format!("{} changes", changes.len()) } else { "whole".into() };
        let turn = kept.installing.lock().await;
        let journal = self.install(config, Some(Arc::clone(&zone)), &changes).await;
        // Both in this turn: while it is kept on disk it must not expire by its old time.
        kept.is_expired.set(false);
        if let Some(refresh) = kept.refresh.borrow_mut().as_mut() {
            refresh.confirmed(self.now(), zone.soa_numbers());
        }
        drop(turn);
        kept.say(format!("serial {} came from {remote}, {how}", zone.serial()));
        say!(
            "zone {}: serial {} from {remote}, {how}: {} names, {} records, {} KiB, in {} ms",
            config.name,
            zone.serial(),
            zone.name_count(),
            zone.record_count(),
            zone.memory_len() >> 10,
            started.elapsed().as_millis(),
        );
        self.replace(kept, Some(Arc::clone(&zone)));
        let (state, journal) = (self.state.clone(), journal.unwrap_or_default());
        let keep = move || state::keep(&state, &zone, &changes, &journal);
        self.on_disk(kept, config, spawn_blocking(keep).await.ok());
    }

    /// Whether a version was kept on disk; if not, it is tried again, but not at once.
    fn on_disk(
        &self,
        kept: &Kept,
        config: &ZoneConfig,
        result: Option<Result<(), String>>,
    ) -> bool {
        if let Some(Err(error)) = &result {
            say!("zone {}: not kept on disk: {error}", config.name);
            kept.say(format!("it is served, but not kept on disk: {error}"));
            kept.confirmed_kept.set(Some(self.now()));
        }
        kept.is_kept.set(matches!(result, Some(Ok(()))));
        kept.is_kept.get()
    }

    /// A primary has said that the zone is current.
    async fn confirm(self: &Rc<Keeper>, kept: &Rc<Kept>, config: &Arc<ZoneConfig>) {
        let Some(zone) = kept.zone.borrow().clone() else { return };
        if let Some(refresh) = kept.refresh.borrow_mut().as_mut() {
            refresh.confirmed(self.now(), zone.soa_numbers());
        }
        let turn = kept.installing.lock().await;
        if kept.is_expired.replace(false) {
            self.install(config, Some(Arc::clone(&zone)), &[]).await;
        }
        drop(turn);
        // Once a minute is enough to count its age from.
        let now = self.now();
        if kept.confirmed_kept.get().is_some_and(|kept| now - kept < CONFIRMED_KEPT_EVERY) {
            return;
        }
        if !kept.is_kept.get() {
            let (loader, state) = (Arc::clone(&self.loader), self.state.clone());
            let keep = move || {
                let journal = loader::lock(&loader).zones.journal(zone.apex()).unwrap_or_default();
                state::keep_again(&state, &zone, &journal)
            };
            if !self.on_disk(kept, config, spawn_blocking(keep).await.ok()) {
                return;
            }
            say!("zone {}: kept on disk now", config.name);
        }
        kept.confirmed_kept.set(Some(now));
        let (state, name, now) = (self.state.clone(), config.name.clone(), wall_clock());
        match spawn_blocking(move || state::save_confirmed(&state, &name, now)).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(error)) => say!("zone {}: {error}", config.name),
        }
    }
}
