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
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::{LocalSet, spawn_blocking, spawn_local};
use tokio::time::sleep;

use crate::answer::{CoreState, Transport};
use crate::limits::{TRANSFERS_PER_PRIMARY_MAX, UNWRITTEN_MAX, UPDATES_WAITING_MAX};
use crate::memory::epoch::Reader;
use crate::net::Replier;
use crate::policy::Remote;
use crate::snapshot::Snapshot;
use crate::transfer::refresh::Refresh;
use crate::tsig::Keys;
use crate::wire::Name;
use crate::zone::change::Journal;
use crate::zone::{HashKey, Zone};

use super::connections::Connections;
use super::lanes::Lanes;
use super::loader::{self, SharedLoader};
use super::notify::Telling;
use super::secondary::{Found, Newer, Wanted, attempt, random_id};
use super::updates::Asked;
use super::writer::{Write, Writer};
use super::{Install, Moved, Tracked};
use crate::server::commands;
use crate::server::config::ZoneConfig;
use crate::server::report::say;
use crate::server::stream::deferred::{Request, Response, respond, wall_clock};
use crate::server::worker::Deferral;

/// How long the thread sleeps at most before it looks whether it should stop.
const PAUSE: Duration = Duration::from_millis(100);
/// How often at most it is kept on disk that a zone is confirmed.
const CONFIRMED_KEPT_EVERY: Duration = Duration::from_secs(60);
/// And of the time after which it expires this part: its age is known well enough then.
const CONFIRMED_KEPT_PART: u32 = 64;

/// What is told in a row before a datagram has its turn: peers tell over TCP as fast as they like.
const TOLD_IN_A_ROW_MAX: usize = 64;

/// What others have to tell this thread.
pub enum Told {
    /// All zones there are, all keys, and what is to be done on disk.
    Zones(Vec<Tracked>, Arc<Keys>, Vec<Write>),
    /// What became of some zones, and what is to be done on disk.
    Moved(Moved, Vec<Write>),
    /// A peer that may do so says that a zone has changed.
    Notified(Name, IpAddr),
    /// A peer that may do so wants a zone changed.
    Update(Name, Box<Asked>),
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
    /// If there is a socket for commands there, what they may change beside zones.
    pub commands: Option<commands::Taken>,
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
    let repliers: Rc<[Replier]> = repliers.into();
    let taken = transfers.commands;
    let writer = Writer::new(transfers.state.clone());
    let keeper = Rc::new(Keeper {
        zones: RefCell::default(),
        keys: RefCell::default(),
        loader: transfers.loader,
        state: transfers.state,
        hash_key: transfers.hash_key,
        threads: transfers.threads,
        started: Instant::now(),
        timers: RefCell::default(),
        wake: Notify::new(),
        lanes: RefCell::new(Lanes::new(TRANSFERS_PER_PRIMARY_MAX)),
        connections: Connections::new(),
        installs: RefCell::default(),
        is_installing: Cell::new(false),
        writer: RefCell::new(Some(writer)),
        unwritten: Semaphore::new(UNWRITTEN_MAX),
        numbers: Cell::new(0),
        telling: Telling::default(),
    });
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        if let Some(taken) = taken {
            commands::listen(&keeper.state, &keeper, taken);
        }
        let mut told_in_a_row = 0;
        while !stop.load(Ordering::Relaxed) {
            tokio::select! {
                // A datagram may be about a zone that is told of.
                biased;
                Some(event) = told.recv(), if told_in_a_row < TOLD_IN_A_ROW_MAX => {
                    told_in_a_row += 1;
                    keeper.hear(event);
                }
                Some(deferral) = deferrals.recv() => {
                    told_in_a_row = 0;
                    let elapsed = keeper.now();
                    let pinned = snapshot.pin();
                    let more = reply(&pinned, &mut core, elapsed, &repliers, deferral);
                    drop(pinned);
                    more.into_iter().for_each(|event| keeper.hear(event));
                }
                // No datagram waits.
                () = std::future::ready(()), if told_in_a_row == TOLD_IN_A_ROW_MAX => {
                    told_in_a_row = 0;
                }
                () = keeper.wake.notified() => {}
                () = sleep(keeper.next_due().saturating_sub(keeper.now()).min(PAUSE)) => {}
            }
            keeper.start_due();
        }
    });
    // What was taken is to be there after the restart.
    let writer = keeper.writer.take();
    drop(local);
    writer.into_iter().for_each(Writer::finish);
    // A zone that is being built is not waited for.
    runtime.shutdown_background();
    Ok(())
}

/// Answers a datagram, perhaps later; what is to be told of it.
fn reply(
    snapshot: &Snapshot,
    core: &mut CoreState,
    elapsed: Duration,
    repliers: &Rc<[Replier]>,
    deferral: Deferral,
) -> Option<Told> {
    let peer = deferral.origin.peer()?.ip();
    let request = Request { octets: &deferral.octets, peer, transport: Transport::Datagram };
    let (reply, notified) = match respond(snapshot, core, elapsed, &request) {
        Response::Reply(reply) => (reply, None),
        Response::Notified(name, reply) => (reply, Some(Told::Notified(name, peer))),
        Response::Update(name, asked, updating) => {
            let repliers = Rc::clone(repliers);
            spawn_local(async move {
                let reply = updating.reply().await;
                if let (Some(replier), Some(reply)) = (repliers.get(deferral.core), reply) {
                    let _ = replier.send(&deferral.origin, &reply);
                }
            });
            return Some(Told::Update(name, asked));
        }
        Response::Transfer(_) | Response::Silence => return None,
    };
    // As with any reply: if it cannot be sent the peer asks again.
    let _ = repliers.get(deferral.core)?.send(&deferral.origin, &reply);
    notified
}

//----------- Keeper ---------------------------------------------------------

/// A version on its way to be served, and who waits for its journal.
type Installing = (Install, oneshot::Sender<Option<Arc<Journal>>>);

/// The primary that is asked first, and whether a command checks what comes, which may take long.
type LaneOf = (SocketAddr, bool);

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
    /// Zones by when something is to be done about them; those of one moment by number.
    timers: RefCell<BTreeMap<(Duration, u64), Rc<Kept>>>,
    /// Something is due sooner than it was.
    wake: Notify,
    /// Zones that are asked for, or wait to be.
    lanes: RefCell<Lanes<LaneOf, Rc<Kept>>>,
    connections: Connections,
    /// Versions that wait to be served: all of them in one go.
    installs: RefCell<Vec<Installing>>,
    is_installing: Cell<bool>,
    /// `None` at the end.
    writer: RefCell<Option<Writer>>,
    unwritten: Semaphore,
    numbers: Cell<u64>,
    /// Who is being told of which zone.
    pub telling: Telling,
}

/// One zone.
pub struct Kept {
    /// Its configuration.
    pub config: RefCell<ZoneConfig>,
    /// The last good version, even if it has expired.
    pub zone: RefCell<Option<Arc<Zone>>>,
    /// `None` if it comes from a file.
    pub refresh: RefCell<Option<Refresh>>,
    number: u64,
    /// When something is to be done next, as the timers have it.
    due: Cell<Option<Duration>>,
    is_asking: Cell<bool>,
    /// It is none any more; what is still under way must leave no trace.
    is_gone: Cell<bool>,
    /// Who said that it has changed since its primaries were asked.
    said_by: Cell<Option<IpAddr>>,
    /// Whether that was while they were asked.
    is_stale: Cell<bool>,
    /// Versions are installed one after the other.
    installing: tokio::sync::Mutex<()>,
    /// From when on it is to be kept on disk again that it is confirmed.
    confirmed_due: Cell<Duration>,
    /// Whether the version there is is kept on disk.
    is_kept: Cell<bool>,
    /// Whether no primary has confirmed it for too long.
    pub is_expired: Cell<bool>,
    /// Updates that wait for those that are under way.
    updates: RefCell<Vec<Asked>>,
    is_updating: Cell<bool>,
    /// Whether it is being built anew.
    is_renewing: Cell<bool>,
    /// What happened last.
    pub last: RefCell<Option<Box<str>>>,
}

impl Kept {
    /// Remembers what happened last.
    fn say(&self, what: String) {
        *self.last.borrow_mut() = Some(what.into());
    }

    /// Remembers whether the last version is on disk; if not, it is tried again, but not at once.
    fn written(&self, result: &Result<(), String>) {
        let is_again = result.is_ok() && !self.is_kept.get();
        self.is_kept.set(result.is_ok());
        if let Err(error) = result {
            self.say(format!("it is served, but not kept on disk: {error}"));
        } else if is_again {
            say!("zone {}: kept on disk now", self.config.borrow().name);
        }
    }

    /// When something is to be done next.
    fn next_due(&self) -> Option<Duration> {
        let refresh = self.refresh.borrow();
        let refresh = refresh.as_ref().filter(|_| !self.is_gone.get())?;
        let ask = Some(refresh.next()).filter(|_| !self.is_asking.get());
        let expire = refresh.expires().filter(|_| !self.is_expired.get());
        ask.into_iter().chain(expire).min()
    }

    /// It has just been kept on disk that it is confirmed, or it is known since `age`.
    fn confirmed(&self, now: Duration, age: Duration) {
        let expire = self.zone.borrow().as_ref().map_or(0, |zone| zone.soa_numbers()[3]);
        let part = Duration::from_secs(expire.into()) / CONFIRMED_KEPT_PART;
        self.confirmed_due.set(now + part.max(CONFIRMED_KEPT_EVERY).saturating_sub(age));
    }
}

//----------- Zones that come and go -----------------------------------------

impl Keeper {
    /// Since the thread began.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Does what it is told.
    fn hear(self: &Rc<Keeper>, event: Told) {
        match event {
            Told::Zones(zones, keys, writes) => self.track(zones, keys, writes),
            Told::Moved(moved, writes) => self.moved(moved, writes),
            Told::Notified(name, peer) => self.notified(&name, Some(peer)),
            Told::Update(name, asked) => self.update(&name, *asked),
        }
    }

    /// Takes over which zones there are, and tells peers of those that have a new serial.
    fn track(self: &Rc<Keeper>, tracked: Vec<Tracked>, keys: Arc<Keys>, writes: Vec<Write>) {
        *self.keys.borrow_mut() = keys;
        // What began anew is not what it was: nothing of that is current.
        let removed = writes.iter().filter_map(|write| match write {
            Write::Remove(name) => Some(name),
            _ => None,
        });
        self.forget_all(removed);
        writes.into_iter().for_each(|write| self.write(write));
        let before = std::mem::take(&mut *self.zones.borrow_mut());
        self.take_over(tracked, before);
    }

    /// Takes over what became of some zones.
    fn moved(self: &Rc<Keeper>, moved: Moved, writes: Vec<Write>) {
        self.forget_all(&moved.removed);
        // What is removed on disk is removed before anything new of that name is kept there.
        writes.into_iter().for_each(|write| self.write(write));
        let known = moved.tracked.iter().filter_map(|tracked| {
            let name = &tracked.config.name;
            Some((name.clone(), self.zones.borrow_mut().remove(name)?))
        });
        let before = known.collect();
        self.take_over(moved.tracked, before);
    }

    fn forget_all<'n>(&self, names: impl IntoIterator<Item = &'n Name>) {
        let names = names.into_iter();
        let gone: Vec<_> = names.filter_map(|name| self.zones.borrow_mut().remove(name)).collect();
        self.forget(gone.iter());
    }

    fn forget<'k>(&self, gone: impl Iterator<Item = &'k Rc<Kept>>) {
        let mut names = HashSet::new();
        for kept in gone {
            kept.is_gone.set(true);
            self.schedule_nothing(kept);
            names.insert(kept.config.borrow().name.clone());
        }
        self.telling.forget(&names);
    }

    /// Takes over `tracked`; of `before` those that are not among them are gone.
    fn take_over(self: &Rc<Keeper>, tracked: Vec<Tracked>, mut before: HashMap<Name, Rc<Kept>>) {
        let now = self.now();
        let mut changed = Vec::new();
        for Tracked { config, zone, age } in tracked {
            let name = config.name.clone();
            let is_secondary = config.is_secondary();
            let kept = match before.remove(&name) {
                Some(kept) if kept.refresh.borrow().is_some() == is_secondary => {
                    let differs = kept.config.replace(config.clone()) != config;
                    if let Some(refresh) = kept.refresh.borrow_mut().as_mut().filter(|_| differs) {
                        refresh.notified(now);
                    }
                    kept
                }
                other => {
                    self.forget(other.iter());
                    Rc::new(self.begin(config, age.and(zone.clone()), age, now))
                }
            };
            self.schedule(&kept);
            // What a secondary has is this thread's to say.
            if !is_secondary {
                changed.push((Rc::clone(&kept), zone));
            }
            self.zones.borrow_mut().insert(name, kept);
        }
        self.forget(before.values());
        // Now that all zones are there: name servers are looked up in them.
        for (kept, zone) in changed {
            self.replace(&kept, zone);
            self.renew(&kept);
        }
        self.wake.notify_one();
    }

    fn begin(
        &self,
        config: ZoneConfig,
        zone: Option<Arc<Zone>>,
        age: Option<Duration>,
        now: Duration,
    ) -> Kept {
        let number = self.numbers.get() + 1;
        self.numbers.set(number);
        let seed = u64::from(random_id().unwrap_or(1)) << 32 | now.as_micros() as u64 ^ number;
        let refresh = config.is_secondary().then(|| match (&zone, age) {
            (Some(zone), Some(age)) => Refresh::restored(now, age, zone.soa_numbers(), seed),
            _ => Refresh::new(now, seed),
        });
        let kept = Kept {
            config: RefCell::new(config),
            zone: RefCell::new(zone),
            refresh: RefCell::new(refresh),
            number,
            due: Cell::new(None),
            is_asking: Cell::new(false),
            is_gone: Cell::new(false),
            said_by: Cell::new(None),
            is_stale: Cell::new(false),
            installing: tokio::sync::Mutex::default(),
            confirmed_due: Cell::new(Duration::ZERO),
            is_kept: Cell::new(true),
            is_expired: Cell::new(false),
            updates: RefCell::default(),
            is_updating: Cell::new(false),
            is_renewing: Cell::new(false),
            last: RefCell::default(),
        };
        if let Some(age) = age {
            kept.confirmed(now, age);
        }
        kept
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
        let Some(kept) = self.zones.borrow().get(name).cloned() else { return };
        let Some(refresh) = &mut *kept.refresh.borrow_mut() else { return };
        refresh.notified(self.now());
        kept.said_by.set(peer);
        kept.is_stale.set(kept.is_asking.get());
        self.schedule_at(&kept, Some(refresh.next()).filter(|_| !kept.is_asking.get()));
    }
}

//----------- Timers ---------------------------------------------------------

impl Keeper {
    /// When the first zone is due.
    fn next_due(&self) -> Duration {
        let timers = self.timers.borrow();
        timers.first_key_value().map_or(Duration::MAX, |((due, _), _)| *due)
    }

    fn schedule_nothing(&self, kept: &Kept) {
        if let Some(due) = kept.due.take() {
            self.timers.borrow_mut().remove(&(due, kept.number));
        }
    }

    /// Sets the timer of a zone to when something is to be done about it.
    fn schedule(&self, kept: &Rc<Kept>) {
        self.schedule_nothing(kept);
        self.schedule_at(kept, kept.next_due());
    }

    /// Sets the timer of a zone to `due`, unless it is set to sooner.
    fn schedule_at(&self, kept: &Rc<Kept>, due: Option<Duration>) {
        let Some(due) = due.filter(|due| kept.due.get().is_none_or(|before| *due < before)) else {
            return;
        };
        self.schedule_nothing(kept);
        kept.due.set(Some(due));
        self.timers.borrow_mut().insert((due, kept.number), Rc::clone(kept));
        self.wake.notify_one();
    }

    /// Starts what is due.
    fn start_due(self: &Rc<Keeper>) {
        let now = self.now();
        self.connections.close_old();
        while self.next_due() <= now {
            let Some((_, kept)) = self.timers.borrow_mut().pop_first() else { break };
            kept.due.set(None);
            let (expires, next) = {
                let refresh = kept.refresh.borrow();
                let Some(refresh) = refresh.as_ref() else { continue };
                (refresh.expires(), refresh.next())
            };
            if !kept.is_expired.get() && expires.is_some_and(|expires| expires <= now) {
                kept.is_expired.set(true);
                spawn_local(Rc::clone(self).expire(Rc::clone(&kept)));
            }
            if !kept.is_asking.get() && next <= now {
                self.ask(&kept, now);
            }
            self.schedule(&kept);
        }
    }

    /// Asks for a zone, as soon as it is its turn.
    fn ask(self: &Rc<Keeper>, kept: &Rc<Kept>, now: Duration) {
        let lane = {
            let config = kept.config.borrow();
            let order = self.connections.order(&config.primaries, kept.said_by.get());
            let Some(first) = order.first() else { return };
            (first.address, config.check.is_some())
        };
        kept.is_asking.set(true);
        if let Some(refresh) = kept.refresh.borrow_mut().as_mut() {
            refresh.asking(now);
        }
        if let Some(kept) = self.lanes.borrow_mut().enter(lane, Rc::clone(kept)) {
            spawn_local(Rc::clone(self).take_turn(lane, kept));
        }
    }

    /// Asks for a zone, then has the next one asked for.
    async fn take_turn(self: Rc<Keeper>, lane: LaneOf, kept: Rc<Kept>) {
        let written = if kept.is_gone.get() { None } else { Box::pin(self.refresh(&kept)).await };
        // Whoever is faster than the disk waits for it here.
        let permit = match &written {
            Some(_) => self.unwritten.acquire().await.ok(),
            None => None,
        };
        if let Some(next) = self.lanes.borrow_mut().leave(lane) {
            spawn_local(Rc::clone(&self).take_turn(lane, next));
        }
        if let Some(written) = written
            && let Ok(result) = written.await
        {
            kept.written(&result);
        }
        drop(permit);
        kept.is_asking.set(false);
        if kept.is_stale.take()
            && let Some(refresh) = kept.refresh.borrow_mut().as_mut()
        {
            refresh.notified(self.now());
        }
        self.schedule(&kept);
    }

    async fn expire(self: Rc<Keeper>, kept: Rc<Kept>) {
        let name = kept.config.borrow().name.clone();
        let _turn = kept.installing.lock().await;
        // It may have been confirmed while others had their turn.
        if kept.is_expired.get() && !kept.is_gone.get() {
            say!(
                "zone {name}: expired: no primary has confirmed it for too long; its names are \
                 answered with SERVFAIL until one does"
            );
            self.install(Install { name, zone: None, changes: Vec::new() }).await;
        }
    }
}

//----------- Serving and keeping --------------------------------------------

impl Keeper {
    /// Serves a version, or none; returns its journal, or nothing if there is no such zone. Only in
    /// turn: [`Kept::installing`].
    async fn install(self: &Rc<Keeper>, install: Install) -> Option<Arc<Journal>> {
        let (done, installed) = oneshot::channel();
        self.installs.borrow_mut().push((install, done));
        if !self.is_installing.replace(true) {
            spawn_local(Rc::clone(self).install_all());
        }
        installed.await.ok().flatten()
    }

    /// Serves what waits, in one go; what has come meanwhile in the next.
    async fn install_all(self: Rc<Keeper>) {
        loop {
            let (installs, waiting): (Vec<_>, Vec<_>) = self.installs.take().into_iter().unzip();
            if installs.is_empty() {
                break;
            }
            let loader = Arc::clone(&self.loader);
            let install = move || loader::lock(&loader).install(&installs);
            let journals = spawn_blocking(install).await.unwrap_or_default();
            for (done, journal) in waiting.into_iter().zip(journals) {
                // Who waited may be gone.
                let _ = done.send(journal);
            }
        }
        self.is_installing.set(false);
    }

    fn write(&self, write: Write) {
        if let Some(writer) = &mut *self.writer.borrow_mut() {
            writer.tell(write);
        }
    }

    /// Asks the primaries of a zone, one after the other; a new version is on disk when what is
    /// returned says so.
    async fn refresh(
        self: &Rc<Keeper>,
        kept: &Rc<Kept>,
    ) -> Option<oneshot::Receiver<Result<(), String>>> {
        let config = Arc::new(kept.config.borrow().clone());
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
        let mut confirmed = false;
        for remote in self.connections.order(&config.primaries, said_by) {
            let started = Instant::now();
            let found = attempt(&wanted, remote, &self.connections).await;
            self.connections.asked(remote.address, started, found.is_ok());
            match found {
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
                    return self.take(kept, &config, newer, remote, started).await;
                }
                Err(error) => {
                    say!("zone {}: {remote} {error}", config.name);
                    kept.say(format!("{remote} {error}"));
                }
            }
        }
        if confirmed {
            self.confirm(kept, &config).await;
        } else if let Some(refresh) = kept.refresh.borrow_mut().as_mut() {
            refresh.failed(self.now());
        }
        None
    }

    /// A newer version: served at once, then kept on disk.
    async fn take(
        self: &Rc<Keeper>,
        kept: &Rc<Kept>,
        config: &Arc<ZoneConfig>,
        newer: Newer,
        remote: &Remote,
        started: Instant,
    ) -> Option<oneshot::Receiver<Result<(), String>>> {
        let Newer { zone, changes, in_steps } = newer;
        let how = if in_steps { format!("{} changes", changes.len()) } else { "whole".into() };
        let turn = kept.installing.lock().await;
        // Another zone may have its name by now.
        if kept.is_gone.get() {
            return None;
        }
        let (name, newest) = (config.name.clone(), Some(Arc::clone(&zone)));
        let install = Install { name, zone: newest, changes: changes.clone() };
        let journal = self.install(install).await;
        // All in this turn: while it is kept on disk it must not expire by its old time.
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
        if kept.is_gone.get() {
            return None;
        }
        self.replace(kept, Some(Arc::clone(&zone)));
        self.renew(kept);
        let (done, written) = oneshot::channel();
        self.write(Write::Keep(zone, changes, journal?, Some(done)));
        kept.confirmed(self.now(), Duration::ZERO);
        Some(written)
    }

    /// Has a zone changed as `asked`.
    fn update(self: &Rc<Keeper>, name: &Name, asked: Asked) {
        let Some(kept) = self.zones.borrow().get(name).cloned() else { return };
        let mut updates = kept.updates.borrow_mut();
        if updates.len() >= UPDATES_WAITING_MAX {
            return;
        }
        updates.push(asked);
        if !kept.is_updating.replace(true) {
            spawn_local(Rc::clone(self).update_all(name.clone(), Rc::clone(&kept)));
        }
    }

    /// Takes the updates that wait, all of them in one go; what has come meanwhile in the next.
    async fn update_all(self: Rc<Keeper>, name: Name, kept: Rc<Kept>) {
        loop {
            let all = kept.updates.take();
            if all.is_empty() {
                break;
            }
            let (loader, name) = (Arc::clone(&self.loader), name.clone());
            let update = move || loader::lock(&loader).update(&name, all);
            // Whoever waits is told by its end, too.
            let rest = spawn_blocking(update).await.unwrap_or_default();
            kept.updates.borrow_mut().splice(0..0, rest);
        }
        kept.is_updating.set(false);
    }

    /// Has a zone built anew if so much of it has changed that it should be. What it serves is the
    /// same before and after.
    fn renew(self: &Rc<Keeper>, kept: &Rc<Kept>) {
        let is_worn = kept.zone.borrow().as_ref().is_some_and(|zone| zone.is_worn());
        if !is_worn || kept.is_renewing.replace(true) {
            return;
        }
        let (keeper, kept) = (Rc::clone(self), Rc::clone(kept));
        spawn_local(async move {
            let (loader, name) = (Arc::clone(&keeper.loader), kept.config.borrow().name.clone());
            let renewed = spawn_blocking(move || loader::renew(&loader, &name)).await;
            if let Ok(Some(zone)) = renewed {
                let mut held = kept.zone.borrow_mut();
                // It may have changed once more since.
                if held.as_ref().is_some_and(|held| held.serial() == zone.serial()) {
                    *held = Some(zone);
                }
            }
            kept.is_renewing.set(false);
        });
    }

    /// A primary has said that the zone is current.
    async fn confirm(self: &Rc<Keeper>, kept: &Rc<Kept>, config: &Arc<ZoneConfig>) {
        let Some(zone) = kept.zone.borrow().clone() else { return };
        if let Some(refresh) = kept.refresh.borrow_mut().as_mut() {
            refresh.confirmed(self.now(), zone.soa_numbers());
        }
        let turn = kept.installing.lock().await;
        if kept.is_gone.get() {
            return;
        }
        if kept.is_expired.replace(false) {
            let (name, zone) = (config.name.clone(), Some(Arc::clone(&zone)));
            self.install(Install { name, zone, changes: Vec::new() }).await;
        }
        drop(turn);
        // Now and then is enough to count its age from.
        let now = self.now();
        if kept.confirmed_due.get() > now || kept.is_gone.get() {
            return;
        }
        kept.confirmed(now, Duration::ZERO);
        if kept.is_kept.get() {
            return self.write(Write::Confirmed(config.name.clone(), wall_clock()));
        }
        // The disk may have room again.
        let (loader, name) = (Arc::clone(&self.loader), config.name.clone());
        let journal = spawn_blocking(move || loader::lock(&loader).zones.journal(&name)).await;
        let journal = journal.ok().flatten().unwrap_or_default();
        if kept.is_gone.get() {
            return;
        }
        let (done, written) = oneshot::channel();
        self.write(Write::Again(zone, journal, done));
        if let Ok(result) = written.await {
            kept.written(&result);
        }
    }
}
