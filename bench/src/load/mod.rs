//! Open-loop load: the times of sending are fixed before the first query, and no answer, late or
//! missing, changes them.
//!
//! ```text
//!   Times ──> due? ──> Questions ──> Flight (lane, ID, question, intended time) ──> Carrier
//!   Carrier ──> reply ──> Flight: whose? ──> latency from the intended time ──> histogram
//!   time-out ──> Flight ──> lost, at the time-out's value ──> histogram
//! ```

pub mod carrier;
pub mod cli;
mod datagrams;
mod flight;
pub mod kernel;
pub mod schedule;
pub(crate) mod stream;
mod tally;
mod worker;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ring53::net::client::{now_ns, wake_on_time};
use ring53::net::come_first;

use crate::bed::counters::memory_mib;
use crate::bed::echo::pin;
use crate::bed::spin::{Awake, busy};
use crate::mix::Questions;
use crate::report::model::{Losses, Run, ServerUse};
use crate::zones::queries::Random;

use kernel::Kernel;
use schedule::Times;
use tally::{SecondTally, Tally};
use worker::{Lanes, Shared, Worker};

pub use schedule::Schedule;

/// Whom to ask and how.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The server.
    pub server: SocketAddr,
    /// Addresses to ask from, in turn; empty: what the routes say.
    pub sources: Vec<IpAddr>,
    /// Cores to pin threads to, one thread each; empty: one thread, not pinned.
    pub cores: Vec<usize>,
    /// Source ports of each thread.
    pub ports: usize,
    /// Queries in a row from one port or connection. Those of one length then leave as one
    /// (UDP_SEGMENT), which costs the generator less; on interfaces that pass them on as one
    /// (loopback, veth) it costs the server less, too.
    pub run: usize,
    /// Connections of each thread, for queries over TCP.
    pub connections: usize,
    /// Queries on one connection before it is closed and another opened; 0: no limit.
    pub queries_per_connection: u32,
    /// When an unanswered query is lost.
    pub timeout: Duration,
    /// From when on a query is sent late.
    pub late: Duration,
    /// `uring`, `mmsg` or `auto`.
    pub path: String,
    /// The process of the server, if it is on this machine: for its counters.
    pub server_pid: Option<u32>,
    /// The core that the server has for itself, if it is on this machine: what it used of it.
    pub server_core: Option<usize>,
    /// Where in the order of queries to begin; `None`: as the load's seed says.
    pub first: Option<u64>,
    /// What each thread does once it is ready to send: to be ready takes it milliseconds.
    pub on_ready: fn() -> io::Result<()>,
}

impl LoadOptions {
    /// One thread that is not pinned, 64 ports, a second until a query is lost.
    pub fn to(server: SocketAddr) -> LoadOptions {
        LoadOptions {
            server,
            sources: Vec::new(),
            cores: Vec::new(),
            ports: 64,
            run: 1,
            connections: 16,
            queries_per_connection: 0,
            timeout: Duration::from_secs(1),
            late: Duration::from_millis(1),
            path: "auto".into(),
            server_pid: None,
            server_core: None,
            first: None,
            on_ready: || Ok(()),
        }
    }
}

/// One load.
#[derive(Clone, Debug)]
pub struct Load {
    /// What it is for.
    pub label: String,
    /// When queries are sent.
    pub schedule: Schedule,
    /// How many a second.
    pub rate: f64,
    /// For how long.
    pub seconds: f64,
    /// Seed of the schedule and of what is drawn.
    pub seed: u64,
}

impl Load {
    /// When thread `index` of `threads` is to send, in nanoseconds from the start.
    pub fn times(&self, index: usize, threads: usize) -> Times {
        let rate = self.rate / threads as f64;
        Times::new(&self.schedule, rate, self.seconds, self.seed_of(index)).part(index, threads)
    }

    fn seed_of(&self, index: usize) -> u64 {
        self.seed.wrapping_mul(1_000_003).wrapping_add(index as u64)
    }
}

/// What a load looks like while it runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Live {
    /// Seconds since the start.
    pub seconds: f64,
    /// Queries sent so far.
    pub sent: u64,
    /// Good answers so far.
    pub good: u64,
    /// Lost or wrong so far.
    pub lost: u64,
    /// 99th percentile of the latest second's latencies, microseconds.
    pub p99: f64,
}

/// Sends one load and waits for its last answer or time-out. `live` is called several times a
/// second, on the calling thread.
pub fn run(
    options: &LoadOptions,
    questions: &Arc<Questions>,
    load: &Load,
    live: &mut dyn FnMut(&Live),
) -> io::Result<Run> {
    if questions.is_empty() {
        return Err(io::Error::other("no queries to send"));
    }
    let (server, sources) = (options.server, &options.sources);
    if let Some(source) = sources.iter().find(|source| source.is_ipv4() != server.is_ipv4()) {
        let message = format!("{source} and {server} are of different families: another --source");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let threads = options.cores.len().max(1);
    let _awake = Awake::new(&options.cores)?;
    let before = Kernel::read(options);
    let start = Arc::new(Start::new(threads));
    let mut workers = Vec::with_capacity(threads);
    let mut shared = Vec::with_capacity(threads);
    for thread in 0..threads {
        let part = Part {
            options: options.clone(),
            questions: questions.clone(),
            load: load.clone(),
            index: thread,
            threads,
            start: start.clone(),
            shared: Arc::default(),
        };
        shared.push(part.shared.clone());
        workers.push(thread::Builder::new().name(format!("load-{thread}")).spawn(|| part.run())?);
    }
    let spinner =
        options.server_core.map(|core| spinner(core, load.seconds, &start)).transpose()?;
    watch(&workers, &shared, &start, live);
    let mut tally = Tally::default();
    let mut failed = None;
    for worker in workers {
        match worker.join().expect("a generator's thread does not panic") {
            Ok(part) => tally.add(&part),
            Err(error) => failed = Some(error),
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    let mut run = report(load, &tally, &before, &Kernel::read(options));
    if let Some(spinner) = spinner {
        let busy = spinner.join().expect("a spinner does not panic")?;
        let answers = run.goodput();
        run.server = Some(ServerUse {
            busy,
            core_us: if answers > 0.0 { busy * 1e6 / answers } else { 0.0 },
            memory_mib: options.server_pid.map_or(0.0, memory_mib),
        });
    }
    Ok(run)
}

/// Counts what the server leaves over of its core, during the middle of the load.
fn spinner(
    core: usize,
    seconds: f64,
    start: &Arc<Start>,
) -> io::Result<JoinHandle<io::Result<f64>>> {
    let start = start.clone();
    thread::Builder::new().name("spinner".into()).spawn(move || {
        // Threads that fail never begin; the load ends then, and nobody asks what was seen.
        while start.at_ns.load(Ordering::SeqCst) == 0 && !start.failed.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_secs_f64(seconds * 0.1));
        busy(core, Duration::from_secs_f64(seconds * 0.8))
    })
}

//----------- Threads --------------------------------------------------------

/// Lets all threads begin at one time.
struct Start {
    ready: Barrier,
    /// 0 until all are ready; 1 if one is not and never will be.
    at_ns: AtomicU64,
    failed: AtomicBool,
}

/// From the moment all are ready to the first query.
const START_AFTER_NS: u64 = 10_000_000;

impl Start {
    fn new(threads: usize) -> Start {
        Start {
            ready: Barrier::new(threads),
            at_ns: AtomicU64::new(0),
            failed: AtomicBool::new(false),
        }
    }

    /// Waits for all; when to begin, or `None` if one of them cannot.
    fn wait(&self, is_ready: bool) -> Option<u64> {
        if !is_ready {
            self.failed.store(true, Ordering::SeqCst);
        }
        if self.ready.wait().is_leader() {
            self.at_ns.store(now_ns() + START_AFTER_NS, Ordering::SeqCst);
        }
        self.ready.wait();
        (!self.failed.load(Ordering::SeqCst)).then(|| self.at_ns.load(Ordering::SeqCst))
    }
}

/// What one thread needs.
struct Part {
    options: LoadOptions,
    questions: Arc<Questions>,
    load: Load,
    index: usize,
    threads: usize,
    start: Arc<Start>,
    shared: Arc<Shared>,
}

impl Part {
    fn run(self) -> io::Result<Tally> {
        match self.prepare().and_then(|worker| (self.options.on_ready)().map(|()| worker)) {
            Ok(worker) => match self.start.wait(true) {
                Some(start_ns) => worker.run(start_ns),
                None => Ok(Tally::default()),
            },
            Err(error) => {
                self.start.wait(false);
                Err(error)
            }
        }
    }

    fn prepare(&self) -> io::Result<Worker> {
        if let Some(&core) = self.options.cores.get(self.index) {
            pin(core)?;
            come_first();
        }
        wake_on_time();
        let rate = self.load.rate / self.threads as f64;
        let seed = self.load.seed_of(self.index);
        let timeout_ns = self.options.timeout.as_nanos() as u64;
        // Twice what is on its way if nothing is answered; a burst at once.
        let burst = match self.load.schedule {
            Schedule::Bursts(size) => f64::from(size),
            _ => 0.0,
        };
        let on_its_way = rate * (timeout_ns + worker::BEHIND_MAX_NS) as f64 / 1e9;
        let count = (2.0 * (on_its_way + burst)) as u64;
        let asks =
            |stream: bool| self.questions.entries().iter().any(|entry| entry.stream == stream);
        let lanes = |carrier, run, count| Lanes::new(carrier, run, count, seed);
        let datagrams = if asks(false) {
            let first = self.index * self.options.ports;
            Some(lanes(Box::new(datagrams::open(&self.options, first)?), self.options.run, count))
        } else {
            None
        };
        let streams = if asks(true) {
            // Connections that take nothing are passed over, which takes places.
            Some(lanes(stream::open(&self.options, self.index)?, self.options.run, 4 * count))
        } else {
            None
        };
        Ok(Worker {
            questions: self.questions.clone(),
            times: self.load.times(self.index, self.threads),
            part: (self.index as u64, self.threads as u64),
            random: Random::new(seed ^ 0x5353),
            timeout_ns,
            late_ns: self.options.late.as_nanos() as u64,
            first: self.options.first.unwrap_or_else(|| {
                Random::new(self.load.seed).below(self.questions.order_len().max(1) as u64)
            }),
            end_ns: 0,
            sorts: self.options.run > 1,
            datagrams,
            streams,
            message: Box::new([0; worker::MESSAGE_LEN_MAX]),
            shared: self.shared.clone(),
        })
    }
}

/// Tells what it looks like until all threads have ended.
fn watch(
    workers: &[JoinHandle<io::Result<Tally>>],
    shared: &[Arc<Shared>],
    start: &Start,
    live: &mut dyn FnMut(&Live),
) {
    while !workers.iter().all(JoinHandle::is_finished) {
        thread::sleep(Duration::from_millis(50));
        let start_ns = start.at_ns.load(Ordering::SeqCst);
        let sum = |of: fn(&Shared) -> &AtomicU64| -> u64 {
            shared.iter().map(|shared| of(shared).load(Ordering::Relaxed)).sum()
        };
        if start_ns == 0 || now_ns() < start_ns {
            continue;
        }
        let p99_ns = shared.iter().map(|shared| shared.p99_ns.load(Ordering::Relaxed)).max();
        live(&Live {
            seconds: (now_ns() - start_ns) as f64 / 1e9,
            sent: sum(|shared| &shared.sent),
            good: sum(|shared| &shared.good),
            lost: sum(|shared| &shared.lost),
            p99: p99_ns.unwrap_or(0) as f64 / 1000.0,
        });
    }
}

//----------- Report ---------------------------------------------------------

fn report(load: &Load, tally: &Tally, before: &Kernel, after: &Kernel) -> Run {
    let mut counts = tally.counts.clone();
    counts.sent -= tally.unsent.min(counts.sent);
    let server_socket = after.server_drops_since(before);
    let elsewhere = tally.unsent + tally.drops + server_socket.unwrap_or(0);
    Run {
        label: load.label.clone(),
        schedule: load.schedule.to_string(),
        rate: load.rate,
        seconds: load.seconds,
        losses: Losses {
            generator: tally.never_sent + tally.unsent,
            generator_socket: tally.drops,
            server_socket,
            server: counts.lost.saturating_sub(elsewhere),
        },
        rcodes: tally.rcodes_named(),
        answer_octets: tally.answer_octets as f64 / counts.answered.max(1) as f64,
        latency: tally::latency(&tally.latency),
        service: tally::latency(&tally.service),
        lateness: tally::latency(&tally.lateness),
        series: tally.seconds.iter().map(SecondTally::second).collect(),
        server: None,
        stolen: after.stolen_since(before),
        counts,
    }
}
