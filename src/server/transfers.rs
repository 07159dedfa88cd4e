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
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::task::{LocalSet, spawn_blocking, spawn_local};
use tokio::time::sleep;

use crate::answer::{CoreState, Transport};
use crate::limits::TRANSFERS_IN_MAX;
use crate::memory::epoch::Reader;
use crate::net::Replier;
use crate::policy::Remote;
use crate::snapshot::Snapshot;
use crate::transfer::refresh::Refresh;
use crate::tsig::{Keys, Session};
use crate::wire::message::{CLASS_IN, Message, Section, Writer, header, opcode};
use crate::wire::{Name, rcode, rtype};
use crate::zone::{HashKey, Zone};

use super::config::ZoneConfig;
use super::deferred::{Request, Response, respond, wall_clock};
use super::loader::{self, SharedLoader};
use super::report::say;
use super::secondary::{Found, Wanted, attempt, exchange, random_id, soa_of};
use super::state;
use super::worker::Deferral;
use super::zones::Tracked;

/// How long the thread sleeps at most before it looks whether it should stop.
const PAUSE: Duration = Duration::from_millis(100);
/// How long each try of a NOTIFY waits (RFC 1996, 3.6).
const NOTIFY_TRIES: [Duration; 6] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(32),
];

/// What others have to tell this thread.
pub enum Told {
    /// All zones there are, and all keys.
    Zones(Vec<Tracked>, Arc<Keys>),
    /// A peer that may do so says that a zone has changed.
    Notified(Name),
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
    let keeper = Rc::new(Keeper {
        zones: RefCell::default(),
        keys: RefCell::default(),
        loader: transfers.loader,
        state: transfers.state,
        hash_key: transfers.hash_key,
        threads: transfers.threads,
        started: Instant::now(),
        slots: Semaphore::new(TRANSFERS_IN_MAX),
    });
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        while !stop.load(Ordering::Relaxed) {
            tokio::select! {
                Some(deferral) = deferrals.recv() => {
                    let elapsed = keeper.now();
                    if let Some(name) = reply(&snapshot.pin(), &mut core, elapsed, &repliers, &deferral) {
                        keeper.notified(&name);
                    }
                }
                Some(event) = told.recv() => match event {
                    Told::Zones(zones, keys) => keeper.track(zones, keys),
                    Told::Notified(name) => keeper.notified(&name),
                },
                () = sleep(keeper.until_next().min(PAUSE)) => {}
            }
            keeper.start_due();
        }
    });
    // A zone that is being built is not waited for.
    runtime.shutdown_background();
    Ok(())
}

/// Answers a datagram; the zone that it says has changed, if it may say so.
fn reply(
    snapshot: &Snapshot,
    core: &mut CoreState,
    elapsed: Duration,
    repliers: &[Replier],
    deferral: &Deferral,
) -> Option<Name> {
    let peer = deferral.origin.peer()?.ip();
    let request = Request { octets: &deferral.octets, peer, transport: Transport::Datagram };
    let (reply, notified) = match respond(snapshot, core, elapsed, &request) {
        Response::Reply(reply) => (reply, None),
        Response::Notified(name, reply) => (reply, Some(name)),
        Response::Transfer(..) | Response::Silence => return None,
    };
    // As with any reply: if it cannot be sent the peer asks again.
    let _ = repliers.get(deferral.core)?.send(&deferral.origin, &reply);
    notified
}

//----------- Keeper ---------------------------------------------------------

/// All zones that are moved, shared by the tasks of one thread.
struct Keeper {
    zones: RefCell<HashMap<Name, Rc<Kept>>>,
    keys: RefCell<Arc<Keys>>,
    loader: SharedLoader,
    state: PathBuf,
    hash_key: HashKey,
    threads: usize,
    started: Instant,
    slots: Semaphore,
}

/// One zone.
struct Kept {
    config: RefCell<Arc<ZoneConfig>>,
    /// The last good version, even if it has expired.
    zone: RefCell<Option<Arc<Zone>>>,
    /// `None` if it comes from a file.
    refresh: RefCell<Option<Refresh>>,
    is_asking: Cell<bool>,
    is_expired: Cell<bool>,
}

impl Keeper {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Takes over which zones there are, and tells peers of those that have a new serial.
    fn track(self: &Rc<Keeper>, tracked: Vec<Tracked>, keys: Arc<Keys>) {
        *self.keys.borrow_mut() = keys;
        let mut before = std::mem::take(&mut *self.zones.borrow_mut());
        let now = self.now();
        for Tracked { config, zone, age } in tracked {
            let name = config.name.clone();
            let is_secondary = !config.primaries.is_empty();
            let config = Arc::new(config);
            let kept = match before.remove(&name) {
                Some(kept) if kept.refresh.borrow().is_some() == is_secondary => {
                    let changed = *kept.config.replace(Arc::clone(&config)) != *config;
                    if let Some(refresh) = kept.refresh.borrow_mut().as_mut().filter(|_| changed) {
                        refresh.notified(now);
                    }
                    // What a secondary has is this thread's to say.
                    if !is_secondary {
                        self.replace(&kept, zone);
                    }
                    kept
                }
                _ => Rc::new(self.begin(config, zone, age, now)),
            };
            self.zones.borrow_mut().insert(name, kept);
        }
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
            is_expired: Cell::new(false),
        }
    }

    /// A zone has another version now: peers are told if it has another serial.
    fn replace(self: &Rc<Keeper>, kept: &Kept, zone: Option<Arc<Zone>>) {
        let Some(zone) = zone else { return };
        let before = kept.zone.replace(Some(Arc::clone(&zone)));
        if before.is_some_and(|before| before.serial() == zone.serial()) {
            return;
        }
        for remote in &kept.config.borrow().notify {
            spawn_local(notify(Rc::clone(self), remote.clone(), Arc::clone(&zone)));
        }
    }

    fn notified(&self, name: &Name) {
        if let Some(kept) = self.zones.borrow().get(name)
            && let Some(refresh) = kept.refresh.borrow_mut().as_mut()
        {
            refresh.notified(self.now());
        }
    }

    /// How long until something is due.
    fn until_next(&self) -> Duration {
        let now = self.now();
        let zones = self.zones.borrow();
        let due = |kept: &Rc<Kept>| {
            let refresh = kept.refresh.borrow();
            let refresh = refresh.as_ref().filter(|_| !kept.is_asking.get())?;
            Some(refresh.next().saturating_sub(now))
        };
        zones.values().filter_map(due).min().unwrap_or(PAUSE)
    }

    /// Starts what is due.
    fn start_due(self: &Rc<Keeper>) {
        let now = self.now();
        let zones: Vec<Rc<Kept>> = self.zones.borrow().values().cloned().collect();
        for kept in zones {
            let mut refresh = kept.refresh.borrow_mut();
            let Some(refresh) = refresh.as_mut() else { continue };
            if refresh.expires().is_some_and(|expires| expires <= now) && !kept.is_expired.get() {
                kept.is_expired.set(true);
                self.expire(&kept);
            }
            if refresh.next() <= now && !kept.is_asking.get() {
                kept.is_asking.set(true);
                refresh.asking(now);
                spawn_local(Rc::clone(self).refresh(Rc::clone(&kept)));
            }
        }
    }

    fn expire(&self, kept: &Kept) {
        let config = Arc::clone(&kept.config.borrow());
        say!(
            "zone {}: expired: no primary has confirmed it for too long; its names are answered \
             with SERVFAIL until one does",
            config.name
        );
        self.install(config, None);
    }

    /// Serves a version, or none, without keeping this thread.
    fn install(&self, config: Arc<ZoneConfig>, zone: Option<Arc<Zone>>) {
        let loader = Arc::clone(&self.loader);
        spawn_blocking(move || loader::lock(&loader).install(&config.name, zone));
    }

    /// Asks the primaries of a zone, one after the other.
    async fn refresh(self: Rc<Keeper>, kept: Rc<Kept>) {
        let Ok(_slot) = self.slots.acquire().await else { return };
        let config = Arc::clone(&kept.config.borrow());
        let wanted = Wanted {
            config: Arc::clone(&config),
            zone: kept.zone.borrow().clone(),
            keys: Arc::clone(&self.keys.borrow()),
            hash_key: self.hash_key,
            threads: self.threads,
        };
        let mut confirmed = false;
        for remote in &config.primaries {
            let started = Instant::now();
            match attempt(&wanted, remote).await {
                Ok(Found::Current) => confirmed = true,
                Ok(Found::Newer(zone)) => {
                    self.take(&kept, &config, zone, remote, started).await;
                    confirmed = true;
                }
                Err(error) => say!("zone {}: {remote} {error}", config.name),
            }
            if confirmed {
                break;
            }
        }
        if confirmed {
            self.confirm(&kept, &config).await;
        } else if let Some(refresh) = kept.refresh.borrow_mut().as_mut() {
            refresh.failed(self.now());
        }
        kept.is_asking.set(false);
    }

    /// A newer version: served at once, then kept on disk.
    async fn take(
        self: &Rc<Keeper>,
        kept: &Rc<Kept>,
        config: &Arc<ZoneConfig>,
        zone: Arc<Zone>,
        remote: &Remote,
        started: Instant,
    ) {
        let (loader, name) = (Arc::clone(&self.loader), config.name.clone());
        let served = Arc::clone(&zone);
        let installed =
            spawn_blocking(move || loader::lock(&loader).install(&name, Some(served))).await;
        if installed.is_err() {
            return;
        }
        kept.is_expired.set(false);
        say!(
            "zone {}: serial {} from {remote}, {} names, {} records, {} KiB, in {} ms",
            config.name,
            zone.serial(),
            zone.name_count(),
            zone.record_count(),
            zone.memory_len() >> 10,
            started.elapsed().as_millis(),
        );
        self.replace(kept, Some(Arc::clone(&zone)));
        let state = self.state.clone();
        match spawn_blocking(move || state::save(&state, &zone)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => say!("zone {}: not kept on disk: {error}", config.name),
            Err(_) => {}
        }
    }

    /// A primary has said that the zone is current.
    async fn confirm(self: &Rc<Keeper>, kept: &Rc<Kept>, config: &Arc<ZoneConfig>) {
        let Some(zone) = kept.zone.borrow().clone() else { return };
        if let Some(refresh) = kept.refresh.borrow_mut().as_mut() {
            refresh.confirmed(self.now(), zone.soa_numbers());
        }
        if kept.is_expired.replace(false) {
            self.install(Arc::clone(config), Some(zone));
        }
        let (state, name, now) = (self.state.clone(), config.name.clone(), wall_clock());
        match spawn_blocking(move || state::save_confirmed(&state, &name, now)).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(error)) => say!("zone {}: {error}", config.name),
        }
    }
}

//----------- NOTIFY ---------------------------------------------------------

/// Tells `remote` that `zone` has changed, until it has heard (RFC 1996).
async fn notify(keeper: Rc<Keeper>, remote: Remote, zone: Arc<Zone>) {
    let Ok(id) = random_id() else { return };
    let mut writer = Writer::new(id, Writer::flags_of(opcode::NOTIFY) | header::AA);
    let apex = zone.apex().as_wire();
    writer.question(apex, rtype::SOA, CLASS_IN);
    if let Some(soa) = soa_of(&zone) {
        writer.record(Section::Answer, apex, rtype::SOA, 0, &soa);
    }
    let mut octets = writer.into_octets();
    let key = remote.key.as_ref().and_then(|key| keeper.keys.borrow().named(key).cloned());
    let session = key.map(|key| Session::request(&key, &mut octets, wall_clock()));
    let answer = exchange(remote.address, &octets, &NOTIFY_TRIES).await;
    let (name, serial) = (zone.apex(), zone.serial());
    match answer {
        Ok(Some(reply)) => {
            let Some(message) = Message::new(&reply) else { return };
            let checked = session.map(|mut session| session.check(message, wall_clock()));
            if let Some(Err(fault)) = checked {
                say!("zone {name}: NOTIFY of serial {serial} to {remote}: the answer: {fault}");
            } else if message.rcode() != rcode::NOERROR {
                let code = rcode::name(message.rcode());
                say!("zone {name}: NOTIFY of serial {serial} to {remote}: it answered {code}");
            }
        }
        Ok(None) => say!("zone {name}: NOTIFY of serial {serial} to {remote}: no answer"),
        Err(error) => say!("zone {name}: NOTIFY of serial {serial} to {remote}: it {error}"),
    }
}
