//! What a command has measured: one schema for all commands, written as JSON.
//!
//! ```text
//!   Report ─┬─ machine, generator, target, mix     under what conditions
//!           ├─ runs[]                              each load that was sent, whole
//!           └─ find | plan | compare               what follows from the runs
//! ```
//!
//! Rates are per second, times are microseconds unless their name says otherwise. Fields are only
//! added within one schema number.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The number of this schema.
pub const SCHEMA: u32 = 1;

//----------- Report ---------------------------------------------------------

/// Everything one command measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// `load`, `find`, `plan` or `compare`.
    pub command: String,
    /// The arguments it was called with.
    pub arguments: Vec<String>,
    /// When it began, RFC 3339 in UTC.
    pub began: String,
    /// How long all of it took.
    pub seconds: f64,
    /// Where it ran.
    pub machine: Machine,
    /// What sent the load.
    pub generator: Generator,
    /// What was asked.
    pub target: Option<Target>,
    /// With what.
    pub mix: Option<MixNote>,
    /// Each load that was sent, in order.
    pub runs: Vec<Run>,
    /// The rates that were found.
    pub find: Option<Find>,
    /// The plan.
    pub plan: Option<Plan>,
    /// The comparison.
    pub compare: Option<Compare>,
    /// What a reader has to know beside the figures.
    pub notes: Vec<String>,
}

/// The machine of the generator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Kernel release.
    pub kernel: String,
    /// Model name of the processor.
    pub cpu: String,
    /// Cores online.
    pub cores: u32,
    /// Memory.
    pub memory_mib: u64,
}

/// How the load was sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Generator {
    /// Version of `ring53-bench`.
    pub version: String,
    /// `uring` or `mmsg`.
    pub path: String,
    /// Cores its threads are pinned to.
    pub cores: Vec<u32>,
    /// Source ports in all.
    pub ports: u32,
    /// `kernel` or `user`: who says when a reply arrived.
    pub timestamps: String,
    /// What it can do at most, if that was measured.
    pub ceiling: Option<Ceiling>,
}

/// The most a generator can send and match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ceiling {
    /// Queries a second, matched and timed.
    pub rate: f64,
    /// `xdp` (a reflector in the driver) or `echo` (a socket on another core).
    pub against: String,
}

/// The server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// Address and port.
    pub address: String,
    /// What it says of itself (`version.bind`), if it does.
    pub version: Option<String>,
}

/// The queries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MixNote {
    /// In words.
    pub text: String,
    /// Different queries, those with random labels counted once.
    pub distinct: u64,
    /// Mean octets of a query.
    pub query_octets: f64,
    /// Whether each answer was compared with the one expected.
    pub verified: bool,
}

//----------- Run ------------------------------------------------------------

/// One load at one server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// What it was for: `load`, `warm-up`, `bisect 3`, `class nxdomain`.
    pub label: String,
    /// The schedule in words: `poisson`, `constant`, `bursts of 32`.
    pub schedule: String,
    /// Queries a second that were intended.
    pub rate: f64,
    /// For how long.
    pub seconds: f64,
    /// What became of the queries.
    pub counts: Counts,
    /// Where those that were lost were lost.
    pub losses: Losses,
    /// Replies by rcode mnemonic.
    pub rcodes: BTreeMap<String, u64>,
    /// Mean octets of a reply.
    pub answer_octets: f64,
    /// From the intended time of sending to the reply's arrival; lost queries at the time-out.
    pub latency: Latency,
    /// From the actual time of sending; lost queries are not in it.
    pub service: Latency,
    /// From the intended to the actual time of sending.
    pub lateness: Latency,
    /// What each second looked like.
    pub series: Vec<Second>,
    /// What the server used, if it runs on this machine and that could be measured.
    pub server: Option<ServerUse>,
    /// Share of the time of this machine's cores that the hypervisor took.
    pub stolen: f64,
}

impl Run {
    /// Good answers a second, of those that came before the end of the schedule.
    pub fn goodput(&self) -> f64 {
        if self.seconds > 0.0 { self.counts.good_in_time as f64 / self.seconds } else { 0.0 }
    }

    /// The share of scheduled queries that were answered well only after the end of the schedule.
    pub fn left_over(&self) -> f64 {
        let late = self.counts.good.saturating_sub(self.counts.good_in_time);
        late as f64 / self.counts.scheduled.max(1) as f64
    }

    /// The share of scheduled queries without a good answer.
    pub fn loss(&self) -> f64 {
        let scheduled = self.counts.scheduled.max(1) as f64;
        1.0 - self.counts.good.min(self.counts.scheduled) as f64 / scheduled
    }
}

/// What became of the queries of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Queries of the schedule.
    pub scheduled: u64,
    /// Those that were sent.
    pub sent: u64,
    /// Those sent later than intended by more than the bound for being late.
    pub late: u64,
    /// Those answered within the time-out.
    pub answered: u64,
    /// Those answered as expected; without verification: all that were answered.
    pub good: u64,
    /// Good answers that came before the schedule had ended: what counts as a rate. Others came
    /// out of a queue that was left.
    #[serde(default)]
    pub good_in_time: u64,
    /// Those not answered within the time-out, and those that no connection took.
    pub lost: u64,
    /// Answers that were not the expected ones.
    pub wrong: u64,
    /// Answers with TC.
    pub truncated: u64,
    /// Replies past the time-out, and second replies to the same query.
    pub stray: u64,
    /// Replies that match no query: other ID, other question, other socket, no DNS message.
    pub unmatched: u64,
    /// Connections opened.
    pub connections: u64,
    /// Connections that failed or that the server closed with queries outstanding.
    pub broken: u64,
}

/// Where lost queries were lost, as far as counters tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Losses {
    /// Scheduled and never sent: no free ID, the kernel refused, the run ended.
    pub generator: u64,
    /// Replies the kernel dropped at the generator's sockets.
    pub generator_socket: u64,
    /// Queries the kernel dropped at the server's sockets; `None` if that cannot be seen from here.
    pub server_socket: Option<u64>,
    /// What remains: the server, or the network.
    pub server: u64,
}

impl Losses {
    /// Queries that the generator has lost itself.
    pub fn own(&self) -> u64 {
        self.generator + self.generator_socket
    }
}

/// A distribution of times in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Values.
    pub count: u64,
    /// The least.
    pub min: f64,
    /// The mean.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// 90 of 100 are no higher.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1000.
    pub p99_9: f64,
    /// 9999 of 10,000.
    pub p99_99: f64,
    /// The highest.
    pub max: f64,
    /// The whole distribution: for each recorded value, how many had it (two digits are kept).
    pub buckets: Vec<(f64, u64)>,
}

/// One second of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Queries sent in it.
    pub sent: u64,
    /// Good answers in it.
    pub good: u64,
    /// Queries given up in it, and wrong answers.
    pub lost: u64,
    /// 99th percentile of the latencies recorded in it, microseconds.
    pub p99: f64,
}

/// What the server's core did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServerUse {
    /// Share of its cores' time that was not idle, kernel included.
    pub busy: f64,
    /// Microseconds of core time per answer.
    pub core_us: f64,
    /// Resident memory at the end.
    pub memory_mib: f64,
}

//----------- Find -----------------------------------------------------------

/// A figure measured several times.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The median.
    pub median: f64,
    /// The lowest.
    pub low: f64,
    /// The highest.
    pub high: f64,
    /// Each, in order.
    pub each: Vec<f64>,
}

impl Estimate {
    /// From measurements, in the order in which they were made.
    pub fn of(each: &[f64]) -> Estimate {
        let mut sorted = each.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
        let last = sorted.len().saturating_sub(1);
        let median = (at(last / 2) + at(sorted.len() / 2)) / 2.0;
        Estimate { median, low: at(0), high: at(last), each: each.to_vec() }
    }
}

/// The rates a server sustains.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Find {
    /// The agreed bounds: `p99.9 < 1000 us, loss < 0.01 %`.
    pub slo: String,
    /// The highest rate with nothing lost.
    pub r0: Option<Estimate>,
    /// The highest rate with a loss of 0.1 % at most.
    pub r: Option<Estimate>,
    /// The highest rate within the agreed bounds.
    pub r_slo: Option<Estimate>,
    /// The most good answers a second at any offered rate.
    pub peak: Option<Estimate>,
    /// Good answers when more is offered than can be answered.
    pub overload: Vec<Overload>,
    /// Why the result is void.
    pub refused: Option<String>,
}

/// Good answers at a multiple of the peak.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Overload {
    /// How many times the peak was offered.
    pub factor: f64,
    /// That rate.
    pub rate: f64,
    /// Good answers a second.
    pub goodput: Estimate,
}

//----------- Plan -----------------------------------------------------------

/// What a machine carries, and how many are needed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Each class of traffic by itself.
    pub classes: Vec<Class>,
    /// How answers grow with cores.
    pub scaling: Option<Scaling>,
    /// What this machine sustains by each limit, the lowest first.
    pub limits: Vec<Limit>,
    /// Memory.
    pub memory: Option<Memory>,
    /// Machines for the target.
    pub machines: Option<Machines>,
    /// The prediction against a mix it was not fitted on.
    pub check: Option<Check>,
    /// All such mixes, `check` first.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// Cores of the server for which `limits` and `machines` are said.
    #[serde(default)]
    pub cores: u32,
    /// Answers a second between which these cores carry, within two standard errors of the scaling;
    /// `None` where so many were measured.
    #[serde(default)]
    pub core_range: Option<[f64; 2]>,
    /// Share of a core's time at which the bounds stop to hold under the mix, by the fit.
    #[serde(default)]
    pub knee_busy: Option<f64>,
    /// Root mean square of the relative deviations of the runs from the fit of core times.
    #[serde(default)]
    pub deviation: Option<f64>,
    /// Microseconds of core time that an answer costs more, for each part of the chance that two
    /// moments of a busy core's time belong to different threads' classes.
    #[serde(default)]
    pub switching_us: Option<f64>,
    /// Octets of resident memory that an answer in the server's cache takes.
    #[serde(default)]
    pub cached_answer_octets: Option<f64>,
}

/// One class of traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Class {
    /// `hit`, `nxdomain`, `signed`, `tcp`, `transfer`, ...
    pub name: String,
    /// Its share of the profile.
    pub share: f64,
    /// Microseconds of server core time per answer.
    pub core_us: Estimate,
    /// Good answers a second on one core at the agreed bounds; empty if that is not known.
    pub rate: Estimate,
    /// Then the most that held, where the generator could do no more.
    #[serde(default)]
    pub rate_at_least: Option<f64>,
    /// Mean octets of a query and of an answer, without lower layers.
    pub query_octets: f64,
    /// Mean octets of an answer.
    pub answer_octets: f64,
    /// Microseconds of core time per answer by the fit, on a core that is never idle.
    #[serde(default)]
    pub full_us: Option<f64>,
    /// How much more on a core that is always idle.
    #[serde(default)]
    pub waking_us: Option<f64>,
    /// Share of a core's time at which the bounds stop to hold, by the fit.
    #[serde(default)]
    pub knee_busy: Option<f64>,
    /// How its answers grow with cores.
    #[serde(default)]
    pub scaling: Option<Scaling>,
    /// Transfers a second beside the other classes; these have no share.
    #[serde(default)]
    pub per_second: Option<f64>,
    /// Nanoseconds of server core time per octet transferred.
    #[serde(default)]
    pub octet_ns: Option<f64>,
}

/// The Universal Scalability Law: `rate(n) = lambda n / (1 + sigma (n - 1) + kappa n (n - 1))`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    /// Cores and measured rates.
    pub points: Vec<(u32, f64)>,
    /// The rate of one core.
    pub lambda: f64,
    /// Contention.
    pub sigma: f64,
    /// Coherence.
    pub kappa: f64,
    /// What the fit cannot know.
    pub note: Option<String>,
}

impl Scaling {
    /// The fitted rate of `cores`.
    pub fn rate(&self, cores: f64) -> f64 {
        let (sigma, kappa) = (self.sigma, self.kappa);
        self.lambda * cores / (1.0 + sigma * (cores - 1.0) + kappa * cores * (cores - 1.0))
    }
}

/// A rate that something does not let the machine exceed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// `core`, `NIC packets`, `line rate of the answers`, `socket buffers`, `memory`.
    pub what: String,
    /// Answers a second; `None` if it could not be known here.
    pub rate: Option<f64>,
    /// How it was found, or why not.
    pub note: String,
}

/// Memory of the server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Records and resident MiB, as measured.
    pub points: Vec<(u64, f64)>,
    /// MiB without zones.
    pub base_mib: f64,
    /// Octets of a record.
    pub record_octets: f64,
    /// The most while a zone is read again, as a multiple of what was resident.
    pub reload_factor: f64,
    /// Records for which the machine's memory suffices, a reload included.
    pub records_max: f64,
}

/// Machines for a target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machines {
    /// Answers a second that are wanted.
    pub target: f64,
    /// How many times that an attack sends.
    pub attack_factor: f64,
    /// Machines that may be down.
    pub down: u32,
    /// What one machine is planned to carry.
    pub each: f64,
    /// Machines to buy.
    pub count: u32,
    /// The share of `each` that a machine carries while it reads its zones again, if measured.
    #[serde(default)]
    pub reload_share: Option<f64>,
    /// The arithmetic in words.
    #[serde(default)]
    pub words: String,
}

/// A prediction and what then was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// The mix.
    pub mix: String,
    /// Answers a second that the plan predicts.
    pub predicted: f64,
    /// Answers a second that were measured.
    pub measured: Estimate,
    /// `(predicted - measured) / measured`.
    pub error: f64,
}

//----------- Compare --------------------------------------------------------

/// Servers side by side.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Compare {
    /// Who took part.
    pub contenders: Vec<Contender>,
    /// One figure of one mix each.
    pub rows: Vec<Row>,
}

/// A server that took part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Contender {
    /// Its short name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// One figure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Shape of the zone.
    pub shape: String,
    /// Mix of queries; empty for figures that need none.
    pub mix: String,
    /// `core time`, `peak`, `overload 2x`, `p99`, `load time`, `memory`, ...
    pub figure: String,
    /// `us`, `1/s`, `ms`, `MiB`.
    pub unit: String,
    /// Whether less is better.
    pub less_is_better: bool,
    /// By contender.
    pub values: BTreeMap<String, Estimate>,
    /// By contender, why its figure does not count: it is the best of nothing, and where the
    /// measurement itself was spoilt there is no value.
    #[serde(default)]
    pub void: BTreeMap<String, String>,
}
