//! The lab that is a machine: a server that is started on so many cores, loads that are sent to it.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ring53::limits::HEADER_LEN;
use ring53::wire::Name;

use crate::bed::counters::memory_mib;
use crate::bed::echo::pin;
use crate::load::{self, Load, LoadOptions, Schedule};
use crate::mix::Questions;
use crate::probe::fill::{Fill, Filled, has_record, is_answer};
use crate::probe::transfer;
use crate::report::model::{Run, ServerUse};

use super::classes::{Kind, Pool, queries_per_connection, questions};
use super::core_time::{Meter, family_ns};
use super::lab::{Lab, Offer};
use super::limits::MemoryPoint;
use super::place::Place;
use super::predict::TransferCost;
use super::server::{Launch, Server, ask, serial, soa_query};
use super::upstream::Upstream;
use super::zone::{self, ZoneNames};

/// How long reading zones again may take.
const RELOAD_MAX: Duration = Duration::from_secs(60);
/// How old what a cache was filled with may be: zones of real traffic have short TTLs.
const FILLED_MAX: Duration = Duration::from_secs(60);

/// A zone that was made here, and can be made in other sizes.
#[derive(Clone, Copy, Debug)]
pub struct MadeZone {
    /// Hosts.
    pub names: u64,
    /// Whether it is signed.
    pub signed: bool,
}

/// A machine with a server.
pub struct Testbed {
    /// Where server and generator meet.
    pub place: Box<dyn Place>,
    /// How the server is started.
    pub launch: Launch,
    /// Cores for the server, in the order in which they are used.
    pub cores: Vec<usize>,
    /// What is asked, by class.
    pub pools: Vec<Pool>,
    /// How it is asked.
    pub load: LoadOptions,
    /// The zone, if it was made here.
    pub made: Option<MadeZone>,
    /// Whom the server asks, if it is a cache.
    pub upstream: Option<Upstream>,
    server: Option<Server>,
    /// When the server was last asked for all that is to be in its cache.
    filled_at: Option<Instant>,
    /// Whether it was asked since for what it has to ask for.
    missed: bool,
    answer_octets: Option<f64>,
    upstream_busy: f64,
    /// How busy the cores are without a load.
    idle_busy: f64,
    questions: HashMap<Vec<u64>, Arc<Questions>>,
    serial: u32,
    reload_time: Duration,
    /// The largest share of the server's cores that neighbours had in a run.
    neighbours: f64,
}

impl Testbed {
    /// A machine whose server is not started yet.
    pub fn new(
        place: Box<dyn Place>,
        launch: Launch,
        cores: Vec<usize>,
        load: LoadOptions,
        made: Option<MadeZone>,
    ) -> Testbed {
        Testbed {
            place,
            launch,
            cores,
            pools: Vec::new(),
            load,
            made,
            upstream: None,
            server: None,
            filled_at: None,
            missed: false,
            answer_octets: None,
            upstream_busy: 0.0,
            idle_busy: 0.0,
            questions: HashMap::new(),
            serial: 1 << 20,
            reload_time: Duration::from_secs(1),
            neighbours: 0.0,
        }
    }

    /// Has the server run on `count` cores; returns its process.
    pub fn serve(&mut self, count: u32) -> io::Result<u32> {
        const IDLE: Duration = Duration::from_millis(500);
        let cores = self.cores.get(..count as usize).ok_or_else(|| {
            io::Error::other(format!("{count} cores for the server: there are {:?}", self.cores))
        })?;
        if let Some(server) = self.server.as_ref().filter(|server| server.cores == cores) {
            return Ok(server.pid());
        }
        // The old one has to be gone: both listen on one port.
        self.server = None;
        let server = Server::start(&*self.place, &self.launch, cores)?;
        let pid = server.pid();
        // What a start leaves to do is not the rest.
        thread::sleep(IDLE);
        let meter = Meter::start(cores, Some(pid))?;
        thread::sleep(IDLE);
        self.idle_busy = meter.stop()?.busy;
        self.server = Some(server);
        (self.filled_at, self.missed) = (None, false);
        Ok(pid)
    }

    /// Asks the server for all that is to be in its cache. The first time tells which answers there
    /// are, and what memory each takes.
    pub fn fill(&mut self) -> io::Result<()> {
        /// It tidies up after itself.
        const SETTLE: Duration = Duration::from_secs(1);
        let filled: Vec<&Pool> = self.pools.iter().filter(|pool| pool.filled).collect();
        let messages: Vec<&[u8]> = filled.iter().flat_map(|pool| pool.messages()).collect();
        let Some(pid) = self.server.as_ref().map(Server::pid).filter(|_| !messages.is_empty())
        else {
            return Ok(());
        };
        // Of real traffic some may lead out of the zone.
        let real = filled.iter().filter(|pool| pool.is_real());
        let unanswered_max = real.map(|pool| pool.messages().count() as u64 / 100).sum();
        let fill = Fill {
            count: messages.len() as u64,
            query: &|number| Ok(messages[number as usize].to_vec()),
            is_answer,
            unanswered_max,
        };
        let before = memory_mib(pid);
        let rcodes = ask_all(&*self.place, &fill, &self.load, self.launch.listen)?.rcodes;
        if self.answer_octets.is_none() {
            thread::sleep(SETTLE);
            let octets = (memory_mib(pid) - before) * f64::from(1 << 20);
            self.answer_octets = Some(octets / rcodes.len() as f64);
            let mut rest = rcodes.as_slice();
            for pool in self.pools.iter_mut().filter(|pool| pool.filled) {
                let (own, others) = rest.split_at(pool.messages().count());
                pool.learn(own);
                rest = others;
            }
        }
        (self.filled_at, self.missed) = (Some(Instant::now()), false);
        Ok(())
    }

    /// What an answer in the cache takes of memory, in octets, by what the server had more when it
    /// was first filled.
    pub fn answer_octets(&self) -> Option<f64> {
        self.answer_octets.filter(|octets| *octets > 0.0)
    }

    /// The largest share of its core that the upstream had in a run.
    pub fn upstream_busy(&self) -> f64 {
        self.upstream_busy
    }

    /// Has the cache as the load finds it: with all that is to be in it, nothing on its way.
    fn warm(&mut self, offer: &Offer) -> io::Result<()> {
        let has = |which: &dyn Fn(&Pool) -> bool| {
            self.pools.iter().zip(&offer.shares).any(|(pool, share)| *share > 0.0 && which(pool))
        };
        let (hits, misses) = (has(&|pool| pool.filled), has(&|pool| pool.kind == Kind::CacheMiss));
        if self.missed {
            self.rest();
            self.reach()?;
        }
        // Misses may have taken the place of what was in it.
        let real = has(&|pool| pool.filled && pool.is_real());
        let old = self.filled_at.is_none_or(|at| real && at.elapsed() > FILLED_MAX);
        if hits && (self.missed || old) {
            self.fill()?;
        }
        self.missed |= misses;
        Ok(())
    }

    /// Waits until a name that the server has to ask for is answered: after more than it could
    /// carry it may leave its upstream alone for a while, which is not the next load's fault.
    fn reach(&self) -> io::Result<()> {
        const PATIENCE: Duration = Duration::from_secs(30);
        const STEP: Duration = Duration::from_millis(50);
        let misses = self.pools.iter().find(|pool| pool.kind == Kind::CacheMiss);
        let Some(query) = misses.and_then(|pool| pool.messages().next()) else { return Ok(()) };
        let (mut query, listen) = (query.to_vec(), self.launch.listen);
        let mut work = || {
            let began = Instant::now();
            while began.elapsed() < PATIENCE {
                // Another name each time: a failure is remembered.
                let label = format!("{:012x}", now_ns() & 0xFFFF_FFFF_FFFF);
                query[HEADER_LEN + 1..][..label.len()].copy_from_slice(label.as_bytes());
                if ask(listen, &query, 4 * STEP).is_ok_and(|reply| has_record(&reply)) {
                    return Ok(());
                }
                thread::sleep(STEP);
            }
            Err(io::Error::other(format!(
                "{listen}: no name is asked for {} s after the last load: does the cache still \
                 reach its upstream?",
                PATIENCE.as_secs()
            )))
        };
        self.place.with_client(&mut work)
    }

    /// Waits until the server does no more than without a load: a cache goes on asking for what the
    /// last load has left it.
    fn rest(&self) {
        const STEP: Duration = Duration::from_millis(50);
        const STEPS_MAX: u32 = 200;
        let Some(server) = &self.server else { return };
        let most = (self.idle_busy + 0.05) * STEP.as_nanos() as f64 * server.cores.len() as f64;
        for _ in 0..STEPS_MAX {
            let before = family_ns(server.pid());
            thread::sleep(STEP);
            if (family_ns(server.pid()).saturating_sub(before) as f64) < most {
                return;
            }
        }
    }

    /// Octets that all receive buffers of the server hold: `rb` of `ss -ulnm`.
    pub fn receive_buffers(&self) -> Option<f64> {
        let mut command = Command::new("ss");
        let port = self.launch.listen.port();
        command.args(["-Haunm", "sport", "=", &format!(":{port}")]);
        let output = self.place.command(command).output().ok()?;
        let octets = buffers(&String::from_utf8_lossy(&output.stdout));
        (octets > 0.0).then_some(octets)
    }

    /// The largest share of the server's cores that neighbours had in a run.
    pub fn neighbours(&self) -> f64 {
        self.neighbours
    }

    fn mix(&mut self, offer: &Offer) -> Arc<Questions> {
        let key: Vec<u64> = offer.shares.iter().map(|share| share.to_bits()).collect();
        let (pools, seed) = (&self.pools, offer.seed);
        let make = || Arc::new(questions(pools, &offer.shares, seed));
        self.questions.entry(key).or_insert_with(make).clone()
    }

    /// Sends the load with what is to happen beside it.
    fn send(&self, offer: &Offer, load: &Load, mix: &Arc<Questions>) -> io::Result<Run> {
        let mut options = self.load.clone();
        options.queries_per_connection = queries_per_connection(&self.pools, &offer.shares);
        options.server_pid = self.server.as_ref().map(Server::pid);
        let (listen, apex) = (self.launch.listen, &self.launch.apex);
        let reload = self.server.as_ref().filter(|_| offer.reload);
        let ended = AtomicBool::new(false);
        let mut sent = Err(io::Error::other("no load was sent"));
        let mut work = || {
            thread::scope(|scope| {
                let beside = (offer.transfers > 0.0)
                    .then(|| scope.spawn(|| transfers(listen, apex, offer.transfers, &ended)));
                if let Some(server) = reload {
                    let after = Duration::from_secs_f64(load.seconds * 0.2);
                    scope.spawn(move || {
                        thread::sleep(after);
                        server.reload()
                    });
                }
                sent = load::run(&options, mix, load, &mut |_| ());
                ended.store(true, Ordering::Relaxed);
                match beside.map(|thread| thread.join()) {
                    Some(Ok(result)) => result.map(|_| ()),
                    Some(Err(_)) => Err(io::Error::other("the transfers have ended early")),
                    None => Ok(()),
                }
            })
        };
        self.place.with_client(&mut work)?;
        sent
    }

    /// Waits until the zone has `serial`, and calls `meanwhile` again and again.
    fn wait_for_serial(
        place: &dyn Place,
        launch: &Launch,
        wanted: u32,
        meanwhile: &mut (dyn FnMut() + Send),
    ) -> io::Result<()> {
        let query = soa_query(&launch.apex);
        let mut wait = || {
            let began = Instant::now();
            while began.elapsed() < RELOAD_MAX {
                let reply = ask(launch.listen, &query, Duration::from_millis(200));
                if reply.is_ok_and(|reply| serial(&reply) == Some(wanted)) {
                    return Ok(());
                }
                meanwhile();
                thread::sleep(Duration::from_millis(5));
            }
            Err(io::Error::other(format!(
                "{}: serial {wanted} was not served within {} s of SIGHUP: does the server read \
                 its zones again then? --no-reloads leaves this out",
                launch.apex,
                RELOAD_MAX.as_secs()
            )))
        };
        place.with_client(&mut wait)
    }

    /// Loads one zone; `reload`: twice.
    fn load_zone(&mut self, path: &Path, reload: bool) -> io::Result<MemoryPoint> {
        const SETTLE: Duration = Duration::from_millis(500);
        let names = ZoneNames::read(&self.launch.apex, path)?;
        let launch = Launch { zone: path.to_path_buf(), ..self.launch.clone() };
        let server = Server::start(&*self.place, &launch, &self.cores)?;
        thread::sleep(SETTLE);
        let pid = server.pid();
        let resident_mib = memory_mib(pid);
        let mut point = MemoryPoint { records: names.records, resident_mib, reload_mib: None };
        if reload {
            self.serial += 1;
            zone::raise_serial(path, self.serial)?;
            let mut most = resident_mib;
            let began = Instant::now();
            server.reload()?;
            let mut sample = || most = most.max(self::memory_mib(pid));
            Testbed::wait_for_serial(&*self.place, &launch, self.serial, &mut sample)?;
            self.reload_time = began.elapsed();
            for _ in 0..10 {
                most = most.max(self::memory_mib(pid));
                thread::sleep(Duration::from_millis(20));
            }
            point.reload_mib = Some(most);
        }
        Ok(point)
    }
}

impl Lab for Testbed {
    fn run(&mut self, offer: &Offer) -> io::Result<Run> {
        self.serve(offer.cores)?;
        self.warm(offer)?;
        let mix = self.mix(offer);
        let mut seconds = offer.seconds;
        if offer.reload {
            // All of the reload is within the load.
            seconds = seconds.max(self.reload_time.as_secs_f64() * 2.5);
            self.serial += 1;
            zone::raise_serial(&self.launch.zone, self.serial)?;
        }
        let load = Load {
            label: offer.label.clone(),
            schedule: Schedule::Poisson,
            rate: offer.rate,
            seconds,
            seed: offer.seed,
        };
        self.place.prepare()?;
        let cores = &self.cores[..offer.cores as usize];
        let asked =
            |upstream: &Option<Upstream>| upstream.as_ref().map_or(0.0, Upstream::core_seconds);
        let asked_before = asked(&self.upstream);
        let meter = Meter::start(cores, self.server.as_ref().map(Server::pid))?;
        let sent = self.send(offer, &load, &mix);
        let time = meter.stop()?;
        let mut run = sent?;
        let upstream_busy = (asked(&self.upstream) - asked_before) / time.seconds.max(1e-9);
        self.upstream_busy = self.upstream_busy.max(upstream_busy);
        if offer.reload {
            let (place, launch) = (&*self.place, &self.launch);
            Testbed::wait_for_serial(place, launch, self.serial, &mut || ())?;
            // Some servers forget what they had.
            self.filled_at = None;
        }
        self.neighbours = self.neighbours.max(time.neighbours);
        // The spinners run longer than the load: until its last answer or time-out. All that the
        // server did meanwhile is the load's.
        let used = (time.busy - self.idle_busy).max(0.0) * time.seconds;
        let busy = (used / run.seconds.max(1e-9)).min(1.0);
        let core_us = busy * cores.len() as f64 * 1e6 / run.goodput().max(1.0);
        let memory_mib = self.server.as_ref().map_or(0.0, |server| memory_mib(server.pid()));
        run.server = Some(ServerUse { busy, core_us, memory_mib });
        Ok(run)
    }

    fn transfers(&mut self, seconds: f64) -> io::Result<TransferCost> {
        let pid = self.serve(1)?;
        let ended = AtomicBool::new(false);
        let (listen, apex) = (self.launch.listen, self.launch.apex.clone());
        let meter = Meter::start(&self.cores[..1], Some(pid))?;
        let began = Instant::now();
        let mut given = (0, 0);
        let mut work = || {
            thread::scope(|scope| {
                let taking = scope.spawn(|| transfers(listen, &apex, f64::INFINITY, &ended));
                thread::sleep(Duration::from_secs_f64(seconds));
                ended.store(true, Ordering::Relaxed);
                let ended_early = |_| io::Error::other("the transfers have ended early");
                given = taking.join().map_err(ended_early)??;
                Ok(())
            })
        };
        let worked = self.place.with_client(&mut work);
        let seconds = began.elapsed().as_secs_f64();
        let time = meter.stop()?;
        worked?;
        let count = given.0 as f64;
        let busy = (time.busy - self.idle_busy).max(0.0);
        let core_us = busy * seconds * 1e6 / count;
        Ok(TransferCost { per_second: 0.0, core_us, octets: given.1 as f64 / count })
    }

    fn memory(&mut self) -> io::Result<Vec<MemoryPoint>> {
        self.server = None;
        let beside = |name: &str| self.launch.directory.join(name);
        let mut smaller: Vec<PathBuf> = Vec::new();
        match self.made {
            Some(MadeZone { names, signed }) => {
                for part in [4, 2] {
                    let path = beside(&format!("zone-{part}"));
                    zone::make(&path, names / part, signed)?;
                    smaller.push(path);
                }
            }
            None => {
                let path = beside("zone-empty");
                fs::write(&path, EMPTY_ZONE)?;
                smaller.push(path);
            }
        }
        let mut points = Vec::new();
        for path in smaller {
            points.push(self.load_zone(&path, false)?);
        }
        let whole = self.launch.zone.clone();
        points.push(self.load_zone(&whole, true)?);
        Ok(points)
    }
}

/// Nanoseconds of the clock, of which no two readings are the same here.
fn now_ns() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_nanos() as u64)
}

/// Asks all of `fill` from the first core of the generator.
fn ask_all(
    place: &dyn Place,
    fill: &Fill<'_>,
    load: &LoadOptions,
    listen: std::net::SocketAddr,
) -> io::Result<Filled> {
    let core = load.cores.first().copied();
    let mut filled = Err(io::Error::other("nothing was asked"));
    // In a thread of its own, which alone is pinned.
    let ask = || {
        core.map_or(Ok(()), pin)?;
        fill.ask(listen)
    };
    let mut work = || {
        let ended = |_| io::Error::other("a thread that asks has ended early");
        filled = thread::scope(|scope| scope.spawn(ask).join().map_err(ended))?;
        Ok(())
    };
    place.with_client(&mut work)?;
    filled
}

/// A zone with nothing but its apex.
const EMPTY_ZONE: &str = "@ 3600 IN SOA ns.invalid. hostmaster.invalid. 1 3600 900 604800 300\n\
                          @ 3600 IN NS ns.invalid.\n";

/// Takes the zone `rate` times a second until `ended`, at least once; how often, and octets.
fn transfers(
    server: std::net::SocketAddr,
    apex: &Name,
    rate: f64,
    ended: &AtomicBool,
) -> io::Result<(u64, u64)> {
    let began = Instant::now();
    let (mut count, mut octets) = (0u64, 0);
    loop {
        let due = Duration::from_secs_f64((count as f64 + 0.5) / rate);
        while began.elapsed() < due && !ended.load(Ordering::Relaxed) {
            thread::sleep((due - began.elapsed().min(due)).min(Duration::from_millis(10)));
        }
        if ended.load(Ordering::Relaxed) && (count > 0 || rate.is_finite()) {
            return Ok((count, octets));
        }
        octets += transfer::take(server, apex)
            .map_err(|error| io::Error::new(error.kind(), format!("AXFR of {apex}: {error}")))?
            .octets;
        count += 1;
    }
}

/// The sum of all `rb` in what `ss -m` says.
fn buffers(text: &str) -> f64 {
    let sizes = text.split("skmem:(").skip(1).filter_map(|rest| {
        let (inside, _) = rest.split_once(')')?;
        inside.split(',').find_map(|part| part.strip_prefix("rb")?.parse::<f64>().ok())
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_read() {
        let text = "UNCONN 0 0 127.0.0.1:5300 0.0.0.0:*\n\
                    \t skmem:(r0,rb16777216,t0,tb16777216,f0,w0,o0,bl0,d0)\n\
                    UNCONN 0 0 127.0.0.1:5300 0.0.0.0:* skmem:(r0,rb212992,t0,tb1)\n";
        assert_eq!(buffers(text), 16_990_208.0);
        assert_eq!(buffers(""), 0.0);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(memory_mib(std::process::id()) > 0.5);
    }
}
