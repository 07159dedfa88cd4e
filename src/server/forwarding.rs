//! From a configuration with forwards to a cache, clients that may use it, and a thread that
//! resolves.
//!
//! ```text
//!   config ──> Cache ──> readers of the cores, of TCP
//!     │  └───> thread: ports, connections, engine ──> Misses, where the cores put what they miss
//!     └──────> Recursion, in every snapshot
//! ```

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ring::digest::{Context, SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

use crate::answer::{CoreState, Counters, Wanted};
use crate::cache::{self, Cache, Holding, TtlBounds, dump};
use crate::memory::epoch::Reader;
use crate::net::client::Waker;
use crate::net::client::pool::{PoolOptions, PortPool, Way};
use crate::net::{Replier, take_long_slices};
use crate::resolver::{Carrier, Forward, Forwarder, Random, Upstream};
use crate::snapshot::{Elsewhere, Recursion, Snapshot};
use crate::wire::{LowerName, Name};
use crate::zone::HashKey;

use super::config::{Caching, Config, PathChoice, WithoutRd};
use super::disk::Place;
use super::interfaces;
use super::report::say;
use super::stream::deferred::wall_clock;
use cache_control::{CacheControl, CacheStats};
use clearing::Clearing;
use misses::Misses;
use resolving::{Outstanding, ResolveCounters, Resolving, Terms};
use upstream::{StreamOptions, Streams};

pub mod cache_control;
mod clearing;
pub mod inspection;
pub mod misses;
pub mod ports;
pub mod precedence;
pub mod renewal;
pub mod resolving;
pub mod special;
pub mod upstream;

/// What clients get that may ask for names of others, where zones of the names `served` are served;
/// `None`: nobody may.
pub fn recursion(config: &Config, served: &[Name], key: HashKey) -> Option<Arc<Recursion>> {
    let caching = config.caching.as_ref()?;
    let forwards: Vec<Name> = config.forwards.iter().map(|it| it.zone.clone()).collect();
    let special = special::load_all(config, served, key);
    let clients = config.recursion.clients(&interfaces::attached());
    let mut recursion = Recursion::new(key, clients, Elsewhere { forwards: &forwards, special });
    recursion.cached_without_rd = config.recursion.without_rd == WithoutRd::Cache;
    recursion.prefetch = caching.prefetch;
    recursion.stale = seconds(caching.serve_stale);
    recursion.stale_ttl = seconds(caching.stale_ttl);
    Some(Arc::new(recursion))
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

fn holding(caching: &Caching) -> Holding {
    Holding {
        bounds: TtlBounds {
            min: seconds(caching.ttl_min),
            max: seconds(caching.ttl_max),
            negative_max: seconds(caching.negative_ttl_max),
            failure: seconds(caching.failure_ttl),
        },
        stale: seconds(caching.serve_stale),
        stale_ttl: seconds(caching.stale_ttl),
        prefetch: caching.prefetch,
    }
}

/// What a reload would forget answers for, if it were otherwise (`renewal.rs`): who is asked for a
/// zone that is not the root, whose AD is believed, which private addresses are kept out.
fn terms_digest(config: &Config) -> [u8; 32] {
    let forwards = config.forwards.iter().map(|forward| {
        let is_root = forward.zone == Name::root();
        let to = if is_root { &[][..] } else { &forward.to };
        (forward.zone.to_lowercase().to_string(), forward.trust_ad, to)
    });
    let mut forwards: Vec<_> = forwards.collect();
    forwards.sort_by(|one, other| one.0.cmp(&other.0));
    let recursion = &config.recursion;
    let guards = (recursion.rebind_protection, &recursion.rebind_allow);
    let text = format!("{forwards:?} {guards:?}");
    let digest = digest(&SHA256, text.as_bytes());
    *digest.as_ref().first_chunk().expect("SHA-256 has 32 octets")
}

//----------- Kept -----------------------------------------------------------

/// The cache of a server, and what goes with it.
pub struct Kept {
    /// The answers.
    pub cache: Cache,
    /// What happened to what was not in it.
    pub counters: Arc<ResolveCounters>,
    /// Who is asked for what.
    forwards: Mutex<Arc<[Forward]>>,
    /// What answers depend on beside those who gave them: with another digest of it, what was saved
    /// is not believed.
    terms: Mutex<[u8; 32]>,
    /// Of those who answer from it: what they did.
    answers: Mutex<Vec<Arc<Counters>>>,
    flushed: AtomicU64,
    save: Option<PathBuf>,
    stale: AtomicU32,
    key: HashKey,
    started: Instant,
}

impl Kept {
    /// Makes the cache that `config` wants, with what was saved of it; `None` if it wants none.
    /// `readers` threads will read it.
    pub fn new(
        config: &Config,
        key: HashKey,
        readers: usize,
        started: Instant,
    ) -> Result<Option<Kept>, String> {
        let Some(caching) = &config.caching else { return Ok(None) };
        let cache = Cache::new(caching.memory, readers).map_err(|error| {
            format!(
                "no memory for a cache of {} MiB: {error}: a smaller cache.memory, or more memory",
                caching.memory >> 20
            )
        })?;
        let (save, stale) = (caching.save.clone(), seconds(caching.serve_stale));
        let kept = Kept {
            cache,
            counters: Arc::default(),
            forwards: Mutex::new(Plan::forwards_of(config).into()),
            terms: Mutex::new(terms_digest(config)),
            answers: Mutex::default(),
            flushed: AtomicU64::new(0),
            save,
            stale: AtomicU32::new(stale),
            key,
            started,
        };
        kept.restore();
        Ok(Some(kept))
    }

    /// What `answers` counts as cached was answered from it.
    pub fn count_too(&self, answers: &Arc<Counters>) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(answers));
    }

    /// Goes by `config` from now on, as far as it concerns the cache.
    pub fn renew(&self, config: &Config) {
        let forwards = Plan::forwards_of(config).into();
        *self.forwards.lock().unwrap_or_else(PoisonError::into_inner) = forwards;
        *self.terms.lock().unwrap_or_else(PoisonError::into_inner) = terms_digest(config);
        if let Some(caching) = &config.caching {
            self.stale.store(seconds(caching.serve_stale), Ordering::Relaxed);
        }
    }

    /// Who is asked for what.
    pub fn forwards(&self) -> Arc<[Forward]> {
        Arc::clone(&self.forwards.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A question as the cache and the thread that resolves know it.
    pub fn wanted(&self, name: &Name, qtype: u16, flags: u8) -> Wanted {
        let mut wanted = Wanted { qtype, flags, ..Wanted::default() };
        let read = wanted.name.read(name.as_wire());
        debug_assert!(read.is_some(), "a name can be read");
        wanted.name_hash = self.key.name(&wanted.name);
        wanted
    }

    /// The time on the clock that all threads share.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn flush(&self, leaves: impl FnMut(cache::Entry<'_>) -> bool) -> u64 {
        let count = self.cache.flush(leaves);
        self.flushed.fetch_add(count, Ordering::Relaxed);
        count
    }

    fn stale(&self) -> u32 {
        self.stale.load(Ordering::Relaxed)
    }

    /// The sum of a file, before its first octet.
    fn sum(&self) -> Context {
        let mut sum = Context::new(&SHA256);
        sum.update(&*self.terms.lock().unwrap_or_else(PoisonError::into_inner));
        sum
    }

    /// Takes what was saved, if it is whole.
    fn restore(&self) {
        let Some(path) = &self.save else { return };
        let file = match fs::read(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return say!("{}: {error}: the cache begins empty", path.display()),
        };
        let is_whole = |body: &[u8], sum: &[u8]| {
            let mut whole = self.sum();
            whole.update(body);
            whole.finish().as_ref() == sum
        };
        let mut name = LowerName::new();
        let hash_of = |wire: &[u8]| name.read(wire).map(|_| self.key.name(&name));
        let read = match dump::parts(&file) {
            Ok((body, sum)) if is_whole(body, sum) => {
                let now = self.started.elapsed();
                dump::read(&self.cache, body, wall_clock(), now, self.stale(), hash_of)
            }
            _ => Err(dump::NotWhole),
        };
        match read {
            Ok(count) => say!("{}: {count} answers are in the cache again", path.display()),
            Err(dump::NotWhole) => {
                // What was taken before it showed is no worse than the rest.
                self.cache.flush(|_| true);
                say!(
                    "{}: it is not whole, of another version or of other forwards: the cache begins \
                     empty",
                    path.display()
                );
            }
        }
    }

    /// Saves it, if that is configured: whoever reads the file finds all of it, or the one before.
    pub fn save(&self) {
        let Some(path) = &self.save else { return };
        match self.write(path) {
            Ok(count) => say!("{}: {count} octets of answers saved", path.display()),
            Err(error) => say!("{}: the cache is not saved: {error}", path.display()),
        }
    }

    fn write(&self, path: &Path) -> io::Result<u64> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let place = Place::from(directory.unwrap_or(Path::new(".")));
        let mut written = 0;
        place.replace(path, |file| {
            written = self.write_to(file)?;
            Ok(())
        })?;
        Ok(written)
    }

    fn write_to(&self, file: &mut dyn Write) -> io::Result<u64> {
        let (mut sum, mut octets, mut written) = (self.sum(), Vec::new(), 0);
        dump::begin(wall_clock(), &mut octets);
        let steps = dump::steps(&self.cache);
        for step in 0..=steps {
            if step < steps {
                let now = self.started.elapsed();
                dump::write(&self.cache, step, now, self.stale(), &mut octets);
            } else {
                dump::end(&mut octets);
            }
            sum.update(&octets);
            file.write_all(&octets)?;
            written += octets.len() as u64;
            octets.clear();
        }
        file.write_all(sum.finish().as_ref())?;
        Ok(written)
    }
}

impl CacheControl for Kept {
    fn flush_name(&self, name: &Name) -> u64 {
        let name = name.to_lowercase();
        self.flush(|entry| entry.name() == name.as_wire())
    }

    fn flush_below(&self, name: &Name) -> u64 {
        let name = name.to_lowercase();
        self.flush(|entry| cache::is_at_or_below(entry.name(), name.as_wire()))
    }

    fn flush_all(&self) -> u64 {
        self.flush(|_| true)
    }

    fn stats(&self) -> CacheStats {
        let now = cache::second(self.now());
        let (mut negative, mut failures, mut stale) = (0, 0, 0);
        self.cache.flush(|entry| {
            let is_failure = entry.flags() & cache::flag::FAILURE != 0;
            negative += u64::from(entry.flags() & cache::flag::NEGATIVE != 0);
            failures += u64::from(is_failure);
            stale += u64::from(!entry.is_fresh(now) && !is_failure);
            false
        });
        let counts = self.cache.counts();
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let at_once: u64 = answers.iter().map(|answers| answers.cached()).sum();
        let stale_hits = of(&self.counters.stale);
        CacheStats {
            octets_max: self.cache.memory() as u64,
            octets: counts.octets,
            answers: counts.entries,
            negative,
            failures,
            stale,
            // What is stale is answered by the thread that resolves: it was a miss first.
            hits: at_once + stale_hits,
            misses: of(&self.counters.misses).saturating_sub(stale_hits),
            joined: of(&self.counters.joined),
            prefetched: of(&self.counters.prefetched),
            stale_hits,
            inserted: of(&self.counters.kept),
            evicted: counts.evicted + counts.crowded,
            too_large: counts.refused,
            flushed: of(&self.flushed),
            outstanding: of(&self.counters.in_flight),
        }
    }
}

//----------- The thread -----------------------------------------------------

/// What the thread that resolves is made of.
pub struct Made {
    /// What clients are answered from.
    pub snapshot: Reader<Snapshot>,
    /// What they are answered with.
    pub core: CoreState,
    /// The cores,
    pub cores: Vec<usize>,
    /// and their sockets.
    pub repliers: Vec<Replier>,
    /// When time began for all threads.
    pub started: Instant,
}

/// Makes what the thread needs and runs it; `ready` gets where misses go. Call it on its thread.
pub fn run(
    config: &Plan,
    made: Made,
    kept: &Kept,
    ready: &mpsc::Sender<Arc<Misses>>,
    stop: &std::sync::atomic::AtomicBool,
) -> io::Result<()> {
    // A miss is not to slow a hit; what else there is to that, `Precedence` says.
    take_long_slices();
    let Carriers { forwarder, pool, pool_places, streams } = config.carriers(None)?;
    let misses = Arc::new(Misses::new(config.outstanding.all, pool.waker(), &made.cores));
    let clearing = Clearing::start(kept.cache.clone())?;
    let _ = ready.send(Arc::clone(&misses));
    let resolving = Resolving {
        misses,
        snapshot: made.snapshot,
        core: made.core,
        cache: kept.cache.clone(),
        clearing,
        holding: config.holding,
        repliers: made.repliers,
        forwarder,
        pool,
        pool_places,
        streams,
        terms: config.terms.clone(),
        rebinding: config.rebinding.clone(),
        outstanding: config.outstanding,
        started: made.started,
        counters: Arc::clone(&kept.counters),
    };
    resolving::run(resolving, stop)
}

/// Who is asked, and by what.
pub struct Carriers {
    /// Who, and how it goes.
    pub forwarder: Forwarder,
    /// Questions over UDP.
    pub pool: PortPool,
    /// Where in the pool each upstream is that is asked over UDP.
    pub pool_places: Vec<Option<usize>>,
    /// Questions over everything else.
    pub streams: Streams,
}

/// What of a configuration the thread is made by.
pub struct Plan {
    forwards: Vec<Forward>,
    terms: Vec<Terms>,
    rebinding: Option<crate::policy::Rebinding>,
    holding: Holding,
    outstanding: Outstanding,
    ports: usize,
    sources: Vec<std::net::IpAddr>,
    path: PathChoice,
}

impl Plan {
    /// Of a configuration that has a cache.
    pub fn new(config: &Config, path: PathChoice) -> Option<Plan> {
        let caching = config.caching.as_ref()?;
        let root = Name::root();
        let terms = |it: &super::config::Forward| Terms {
            zone: it.zone.to_lowercase(),
            trusts_ad: it.trust_ad,
            guards: it.zone == root,
        };
        let recursion = &config.recursion;
        Some(Plan {
            forwards: Plan::forwards_of(config),
            terms: config.forwards.iter().map(terms).collect(),
            rebinding: recursion.rebinding(),
            holding: holding(caching),
            outstanding: Outstanding {
                all: recursion.outstanding_max,
                client: recursion.outstanding_per_client_max,
                timeout: recursion.timeout,
                stale_after: caching.stale_after,
            },
            ports: recursion.ports,
            sources: recursion.source.clone(),
            path,
        })
    }

    /// Opens ports and starts the thread of connections; `waker` is that of the pool whose place
    /// the new one takes.
    pub fn carriers(&self, waker: Option<Waker>) -> io::Result<Carriers> {
        let upstreams = self.forwarder_upstreams();
        let random = SystemRandom::new();
        let forwarder = Forwarder::new(
            &self.forwards,
            Random::new(move |octets| {
                // Without it nothing could be asked safely.
                random.fill(octets).expect("the system has random numbers");
            }),
        );
        debug_assert_eq!(upstreams.len(), forwarder.upstreams().count());
        // Those that are asked otherwise need no ports.
        let mut addresses: Vec<SocketAddr> = Vec::new();
        let places = upstreams.iter().map(|upstream| {
            (upstream.carrier == Carrier::Udp).then(|| {
                addresses.push(upstream.address);
                addresses.len() - 1
            })
        });
        let pool_places = places.collect();
        let options = PoolOptions {
            ports: self.ports,
            avoid: ports::avoided(),
            sources: self.sources.clone(),
            waker,
            ..PoolOptions::default()
        };
        let way = if self.path == PathChoice::Uring { Way::Uring } else { Way::Polled };
        let pool = PortPool::new(&addresses, options, way)?;
        if let Some(shortage) = pool.shortage() {
            say!("{shortage}");
        }
        let options = StreamOptions { sources: self.sources.clone(), ..StreamOptions::default() };
        let streams = Streams::start(&upstreams, options, pool.waker())?;
        Ok(Carriers { forwarder, pool, pool_places, streams })
    }

    /// Whether others are asked than by `before`, or otherwise.
    pub fn asks_otherwise(&self, before: &Plan) -> bool {
        (&self.forwards, self.ports, &self.sources)
            != (&before.forwards, before.ports, &before.sources)
    }

    /// Has the thread that works with `resolving` go by this plan, and ask by other means if it is
    /// given any.
    pub fn take_over(self, resolving: &mut Resolving, carriers: Option<Carriers>) {
        resolving.holding = self.holding;
        resolving.terms = self.terms;
        resolving.rebinding = self.rebinding;
        resolving.misses.make_room(self.outstanding.all);
        resolving.outstanding = self.outstanding;
        if let Some(Carriers { forwarder, pool, pool_places, streams }) = carriers {
            (resolving.forwarder, resolving.pool) = (forwarder, pool);
            resolving.pool_places = pool_places;
            resolving.streams = streams;
        }
    }

    fn forwards_of(config: &Config) -> Vec<Forward> {
        let forward = |it: &super::config::Forward| Forward {
            mixed_case: it.case_randomization,
            hedge: it.hedge,
            ..Forward::new(it.zone.clone(), it.to.clone())
        };
        config.forwards.iter().map(forward).collect()
    }

    /// The upstreams in the order of the engine's list: equal ones are one.
    fn forwarder_upstreams(&self) -> Vec<Upstream> {
        let mut all: Vec<Upstream> = Vec::new();
        for upstream in self.forwards.iter().flat_map(|forward| &forward.upstreams) {
            if !all.contains(upstream) {
                all.push(upstream.clone());
            }
        }
        all
    }
}
