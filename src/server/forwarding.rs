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
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ring::digest::{Context, SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

use crate::answer::CoreState;
use crate::cache::{self, Cache, Holding, TtlBounds, dump};
use crate::memory::epoch::Reader;
use crate::net::Replier;
use crate::net::client::pool::{PoolOptions, PortPool, Way};
use crate::resolver::{Carrier, Forward, Forwarder, Random, Upstream};
use crate::snapshot::{Elsewhere, Recursion, Snapshot};
use crate::wire::{LowerName, Name};
use crate::zone::HashKey;

use super::cache_control::{CacheControl, CacheStats};
use super::config::{Caching, Config, PathChoice, WithoutRd};
use super::deferred::wall_clock;
use super::disk::Place;
use super::misses::Misses;
use super::report::say;
use super::resolving::{self, Outstanding, ResolveCounters, Resolving, Terms};
use super::upstream::{StreamOptions, Streams};
use super::{interfaces, ports, special};

/// What clients get that may ask for names of others; `None`: nobody may.
pub fn recursion(config: &Config, key: HashKey) -> Option<Arc<Recursion>> {
    let caching = config.caching.as_ref()?;
    let forwards: Vec<Name> = config.forwards.iter().map(|it| it.zone.clone()).collect();
    let special = special::load_all(config, key);
    let clients = config.recursion.clients(&interfaces::attached());
    let mut recursion = Recursion::new(key, clients, Elsewhere { forwards: &forwards, special });
    recursion.cached_without_rd = config.recursion.without_rd == WithoutRd::Cache;
    recursion.prefetch = caching.prefetch;
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

//----------- Kept -----------------------------------------------------------

/// The cache of a server, and what goes with it.
pub struct Kept {
    /// The answers.
    pub cache: Cache,
    /// What happened to what was not in it.
    pub counters: Arc<ResolveCounters>,
    save: Option<PathBuf>,
    stale: u32,
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
        let kept = Kept { cache, counters: Arc::default(), save, stale, key, started };
        kept.restore();
        Ok(Some(kept))
    }

    /// Takes what was saved, if it is whole.
    fn restore(&self) {
        let Some(path) = &self.save else { return };
        let file = match fs::read(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return say!("{}: {error}: the cache begins empty", path.display()),
        };
        let is_whole = |body: &[u8], sum: &[u8]| digest(&SHA256, body).as_ref() == sum;
        let mut name = LowerName::new();
        let hash_of = |wire: &[u8]| name.read(wire).map(|_| self.key.name(&name));
        let read = match dump::parts(&file) {
            Ok((body, sum)) if is_whole(body, sum) => {
                let now = self.started.elapsed();
                dump::read(&self.cache, body, wall_clock(), now, self.stale, hash_of)
            }
            _ => Err(dump::NotWhole),
        };
        match read {
            Ok(count) => say!("{}: {count} answers are in the cache again", path.display()),
            Err(dump::NotWhole) => {
                // What was taken before it showed is no worse than the rest.
                self.cache.flush(|_| true);
                say!(
                    "{}: it is not whole, or of another version: the cache begins empty",
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
        let (mut sum, mut octets, mut written) = (Context::new(&SHA256), Vec::new(), 0);
        dump::begin(wall_clock(), &mut octets);
        let steps = dump::steps(&self.cache);
        for step in 0..=steps {
            if step < steps {
                let now = self.started.elapsed();
                dump::write(&self.cache, step, now, self.stale, &mut octets);
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
        self.cache.flush(|entry| entry.name() == name.as_wire())
    }

    fn flush_below(&self, name: &Name) -> u64 {
        let name = name.to_lowercase();
        self.cache.flush(|entry| cache::is_at_or_below(entry.name(), name.as_wire()))
    }

    fn flush_all(&self) -> u64 {
        self.cache.flush(|_| true)
    }

    fn stats(&self) -> CacheStats {
        let now = cache::second(self.started.elapsed());
        let (mut negative, mut failures, mut stale) = (0, 0, 0);
        self.cache.flush(|entry| {
            negative += u64::from(entry.flags() & cache::flag::NEGATIVE != 0);
            failures += u64::from(entry.flags() & cache::flag::FAILURE != 0);
            stale += u64::from(!entry.is_fresh(now));
            false
        });
        let counts = self.cache.counts();
        let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        CacheStats {
            octets_max: self.cache.memory() as u64,
            octets: counts.octets,
            answers: counts.entries,
            negative,
            failures,
            stale,
            misses: of(&self.counters.misses),
            joined: of(&self.counters.joined),
            prefetched: of(&self.counters.prefetched),
            stale_hits: of(&self.counters.stale),
            inserted: of(&self.counters.kept),
            evicted: counts.evicted + counts.crowded,
            too_large: counts.refused,
            outstanding: of(&self.counters.in_flight),
            ..CacheStats::default()
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
    /// The cores' sockets.
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
    let upstreams: Vec<Upstream> = config.forwarder_upstreams();
    let random = SystemRandom::new();
    let forwarder = Forwarder::new(
        &config.forwards,
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
        ports: config.ports,
        avoid: ports::avoided(),
        sources: config.sources.clone(),
        ..PoolOptions::default()
    };
    let way = if config.path == PathChoice::Uring { Way::Uring } else { Way::Polled };
    let pool = PortPool::new(&addresses, options, way)?;
    if let Some(shortage) = pool.shortage() {
        say!("{shortage}");
    }
    let streams = Streams::start(&upstreams, config.streams.clone(), pool.waker())?;
    let misses = Arc::new(Misses::new(config.outstanding.all, pool.waker()));
    let _ = ready.send(Arc::clone(&misses));
    let resolving = Resolving {
        misses,
        snapshot: made.snapshot,
        core: made.core,
        cache: kept.cache.clone(),
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

/// What of a configuration the thread is made by.
pub struct Plan {
    forwards: Vec<Forward>,
    terms: Vec<Terms>,
    rebinding: Option<crate::policy::Rebinding>,
    holding: Holding,
    outstanding: Outstanding,
    streams: StreamOptions,
    ports: usize,
    sources: Vec<std::net::IpAddr>,
    path: PathChoice,
}

impl Plan {
    /// Of a configuration that has a cache.
    pub fn new(config: &Config, path: PathChoice) -> Option<Plan> {
        let caching = config.caching.as_ref()?;
        let forward = |it: &super::config::Forward| Forward {
            mixed_case: it.case_randomization,
            hedge: it.hedge,
            ..Forward::new(it.zone.clone(), it.to.clone())
        };
        let root = Name::root();
        let terms = |it: &super::config::Forward| Terms {
            zone: it.zone.to_lowercase(),
            trusts_ad: it.trust_ad,
            guards: it.zone == root,
        };
        let recursion = &config.recursion;
        let issuers = config.forwards.iter().find_map(|it| it.ca.as_ref());
        Some(Plan {
            forwards: config.forwards.iter().map(forward).collect(),
            terms: config.forwards.iter().map(terms).collect(),
            rebinding: recursion.rebinding(),
            holding: holding(caching),
            outstanding: Outstanding {
                all: recursion.outstanding_max,
                client: recursion.outstanding_per_client_max,
                timeout: recursion.timeout,
                stale_after: caching.stale_after,
            },
            streams: StreamOptions {
                issuers: issuers.map(|it| it.file.clone()),
                ..StreamOptions::default()
            },
            ports: recursion.ports,
            sources: recursion.source.clone(),
            path,
        })
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
