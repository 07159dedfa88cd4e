//! `ring53-bench plan`.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use ring53::wire::Name;

use crate::find::{self, Bounds, CEILING_SHARE_MAX, CeilingOption};
use crate::load::cli::now;
use crate::load::kernel;
use crate::report::Outputs;
use crate::report::model::{Ceiling, Generator, MixNote, Report, SCHEMA, Target};

use super::campaign::Settings;
use super::classes::{Kind, Pool, Shares, questions};
use super::draw::{ClassTask, Made, Task, Wanted, make, own};
use super::limits::{ClassWire, Surroundings, Transport, read_bits};
use super::place::{Loopback, Namespaces, Place};
use super::prepare::{Folder, Role, cores, pools, testbed};
use super::testbed::Testbed;

/// Options of `plan`.
#[derive(clap::Args)]
pub struct Options {
    /// The server that is started: ring53, nsd or knot.
    #[arg(long, default_value = "ring53", value_parser = ["ring53", "nsd", "knot"])]
    pub(super) server: String,
    /// Another server: its command, words divided by spaces, in which {cores}, {count}, {listen},
    /// {address}, {port}, {client}, {apex}, {zone}, {directory} and {config} are filled in. It has
    /// to stay in the foreground, to end on SIGTERM and to read its zones again on SIGHUP. A cache
    /// has to ask {upstream} at {upstream_port} for everything (Unbound: forward-addr:
    /// {upstream}@{upstream_port}, do-not-query-localhost: no), and may be given {cache_mib} MiB.
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "server")]
    pub(super) server_command: Option<String>,
    /// A file in which the same is filled in, for {config}.
    #[arg(long, value_name = "FILE", requires = "server_command")]
    pub(super) server_config: Option<PathBuf>,
    /// The ring53 to start; default: the one beside this program.
    #[arg(long, value_name = "FILE")]
    pub(super) program: Option<PathBuf>,
    /// Where the two meet: loopback, or namespaces (root; one core each), in which each does its
    /// own receiving; auto: namespaces where they can be had. What is measured over loopback costs
    /// the server less than a card would: machines (--target) are counted there only if asked for.
    #[arg(long, default_value = "auto", value_parser = ["auto", "loopback", "namespaces"])]
    place: String,
    /// Cores for the generator; default: the upper half. Whom a cache asks runs on the last of
    /// them, and has that for itself if there are others and the cache is to miss.
    #[arg(long, value_name = "CORES", value_delimiter = ',')]
    pub(super) generator_cores: Vec<usize>,
    /// The most cores that the server is measured with; default: all but the generator's.
    #[arg(long)]
    pub(super) cores_max: Option<u32>,
    /// Classes and their shares: hit, nxdomain, signed, signed-nxdomain, referral, tcp (connections
    /// that stay), tcp-query (one each); cache-hit (of names that it was asked for before) and
    /// cache-miss (a name that nobody has asked for), for which the server forwards to an upstream
    /// that is started too; transfer=N is N transfers of the zone a second.
    #[arg(
        long = "class",
        value_name = "SHARES",
        default_value = "hit=0.7,nxdomain=0.3",
        conflicts_with = "traffic"
    )]
    pub(super) classes: Shares,
    /// A profile of real traffic, replayed on the zone: its classes are found by asking the server.
    #[arg(long, value_name = "FILE", group = "traffic")]
    pub(super) profile: Option<PathBuf>,
    /// A query file as dnsperf reads it: its classes are found by asking the server.
    #[arg(long, value_name = "FILE", requires = "zone", group = "traffic")]
    pub(super) queries: Option<PathBuf>,
    /// The server is a cache without a zone, and forwards what the file or profile asks to an
    /// upstream that has it. Nothing is asked to find the classes: a question is a cache-miss when
    /// it comes first and a hit whenever it comes again, as with a cache that was empty then and
    /// forgets nothing. Misses are fresh names of the upstream, over UDP; hits over TCP are tcp.
    #[arg(long, requires = "traffic")]
    pub(super) cached: bool,
    /// Queries over TCP of the file or profile have a connection each.
    #[arg(long)]
    pub(super) tcp_per_query: bool,
    /// The zone's file; default: one that is made, with delegations, signed if classes need it.
    #[arg(long, value_name = "FILE", requires = "apex")]
    pub(super) zone: Option<PathBuf>,
    /// The zone's name.
    #[arg(long, value_name = "NAME", requires = "zone")]
    pub(super) apex: Option<Name>,
    /// Hosts in the zone that is made, and answers that a cache is filled with (1,048,576 at most).
    #[arg(long, default_value_t = 100_000)]
    pub(super) names: u64,
    /// The bounds within which a rate counts.
    #[arg(long, value_name = "BOUNDS", default_value = "p99.9<1ms,loss<0.01%")]
    slo: Bounds,
    /// How many times each class and mix is measured, in turn.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of each load.
    #[arg(long, default_value_t = 2.0, value_parser = positive)]
    seconds: f64,
    /// Queries a second of the first load.
    #[arg(long, default_value_t = 20_000.0, value_parser = positive)]
    rate_start: f64,
    /// Queries a second at most.
    #[arg(long, default_value_t = 1e7, value_parser = positive)]
    rate_max: f64,
    /// The generator's own ceiling over UDP, above 80 % of which no rate counts: auto measures it
    /// first, against a reflector in the driver (root) or an echo on another core, which may itself
    /// be the lower; a number is one that is known; none does without.
    #[arg(long, default_value = "auto")]
    ceiling: CeilingOption,
    /// Source ports of each thread of the generator.
    #[arg(long, default_value_t = 64)]
    pub(super) ports: usize,
    /// Queries in a row from one port: those of one length leave as one (UDP_SEGMENT).
    #[arg(long, default_value_t = 1)]
    pub(super) run: usize,
    /// TCP connections of each thread of the generator.
    #[arg(long, default_value_t = 16)]
    pub(super) connections: usize,
    /// Answers a second that are wanted of all machines together.
    #[arg(long, value_name = "RATE", value_parser = positive)]
    target: Option<f64>,
    /// How many times that comes in when attacked, the wanted traffic included.
    #[arg(
        long,
        value_name = "FACTOR",
        default_value_t = 1.0,
        requires = "target",
        value_parser = attack_factor
    )]
    attack: f64,
    /// Classes and their shares in what an attack adds, as nxdomain=1; default: more of the same
    /// mix.
    #[arg(long, value_name = "SHARES", requires = "target")]
    pub(super) attack_class: Option<Shares>,
    /// Machines that may be down.
    #[arg(long, value_name = "K", default_value_t = 1, requires = "target")]
    down: u32,
    /// Server cores of the machine to buy; default: as many as were measured.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    machine_cores: Option<u32>,
    /// Memory of the machine to buy, in MiB; default: this machine's.
    #[arg(long, value_name = "MIB", value_parser = positive)]
    machine_memory: Option<f64>,
    /// Speed of its interface, as 10G; default: that of the fastest here.
    #[arg(long, value_name = "SPEED", value_parser = read_bits)]
    nic: Option<f64>,
    /// Frames a second and direction that the interface is known to take.
    #[arg(long, value_name = "RATE", value_parser = positive)]
    nic_packets: Option<f64>,
    /// Octets that a frame carries.
    #[arg(long, default_value_t = 1500.0, value_parser = positive)]
    mtu: f64,
    /// Count IPv6 headers.
    #[arg(long)]
    ipv6: bool,
    /// Milliseconds that the cores may be away, for what socket buffers have to hold.
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    stall_ms: f64,
    /// Measure neither memory nor reloads.
    #[arg(long)]
    no_reloads: bool,
    /// Seed of everything that is drawn.
    #[arg(long, default_value_t = 53)]
    pub(super) seed: u64,
    #[command(flatten)]
    outputs: Outputs,
}

/// A number above zero.
fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "it has to be a number above zero".into())
}

/// A number of 1 or more.
fn attack_factor(text: &str) -> Result<f64, String> {
    let factor = positive(text).ok().filter(|factor| *factor >= 1.0);
    factor.ok_or_else(|| "it has to be 1 (no attack) or more".into())
}

/// Measures, plans, writes and prints. What was measured is written even if the plan is not whole;
/// then there is an error all the same.
pub fn run(options: &Options) -> io::Result<()> {
    let began = (now(), Instant::now());
    if options.attack_class.as_ref().is_some_and(|attack| attack.transfers > 0.0) {
        let message = "--attack-class: transfers are no part of it: leave them out";
        return Err(io::Error::other(message));
    }
    let folder = Folder::new()?;
    let role = Role::of(options)?;
    let (server_cores, generator_cores) = cores(options)?;
    let place = place(options, &server_cores, &generator_cores)?;
    let (note, caveat) = (place.note(), place.caveat());
    let (mut testbed, names) =
        testbed(options, &role, &folder.0, place, server_cores, &generator_cores)?;
    let (shares, said) = pools(options, &mut testbed, &names)?;
    let ceiling = ceiling(options, &testbed)?;
    let mut task = task(options, &mut testbed, &shares, names.records)?;
    if let Some(wanted) = &mut task.wanted {
        wanted.caveat = caveat.map(String::from);
    }
    if let Some(ceiling) = &ceiling {
        let most = ceiling.rate * CEILING_SHARE_MAX;
        task.settings.rate_max = task.settings.rate_max.min(most);
    }
    let mut progress = options.outputs.progress();
    let mut say = |line: &str| progress.note(line);
    let Made { mut plan, runs, mut notes, fault } = make(&mut testbed, &task, &mut say)?;
    plan.cached_answer_octets = testbed.answer_octets();
    notes.extend(said.into_iter().chain(of_cache(&testbed)));
    notes.push(note);
    if ceiling.is_none() {
        notes.push(
            "the generator's ceiling was not measured (--ceiling none, or no class over UDP): what \
             it spoilt is void"
                .into(),
        );
    }
    if testbed.neighbours() > 0.02 {
        notes.push(format!(
            "other processes had up to {:.0} % of the server's cores in a run: on a machine of its \
             own knees are higher and errors smaller",
            testbed.neighbours() * 100.0
        ));
    }
    let report = Report {
        schema: SCHEMA,
        command: "plan".into(),
        arguments: std::env::args().skip(1).collect(),
        began: began.0,
        seconds: began.1.elapsed().as_secs_f64(),
        machine: kernel::machine(),
        generator: Generator {
            version: env!("CARGO_PKG_VERSION").into(),
            path: testbed.load.path.clone(),
            cores: testbed.load.cores.iter().map(|&core| core as u32).collect(),
            ports: (options.ports * testbed.load.cores.len()) as u32,
            timestamps: "kernel".into(),
            ceiling,
        },
        target: Some(Target { address: testbed.launch.listen.to_string(), version: None }),
        mix: Some(MixNote { text: own(&task).name, ..MixNote::default() }),
        runs,
        plan: Some(plan),
        notes,
        ..Report::default()
    };
    options.outputs.finish(&report)?;
    match fault {
        Some(fault) => Err(io::Error::other(format!("the plan is not whole: {fault}"))),
        None => Ok(()),
    }
}

/// What a reader has to know of a cache.
fn of_cache(testbed: &Testbed) -> Vec<String> {
    /// With more it may be the limit.
    const UPSTREAM_BUSY_MAX: f64 = 0.7;
    let Some(upstream) = &testbed.upstream else { return Vec::new() };
    let filled = testbed.pools.iter().filter(|pool| pool.filled);
    let answers: usize = filled.map(|pool| pool.messages().count()).sum();
    let mut notes = Vec::new();
    if let Some(octets) = testbed.answer_octets() {
        notes.push(format!(
            "an answer in the cache takes {octets:.0} octets of resident memory, by what {answers} \
             took: tables that they are spread over included, which more answers share"
        ));
    }
    notes.push(
        "an answer of the cache with another rcode than its upstream's (SERVFAIL) is lost".into(),
    );
    if !testbed.launch.serves() {
        notes.push("the server has no zone: memory by records and reloads are not measured".into());
    }
    let (busy, core) = (testbed.upstream_busy(), upstream.core);
    let alone = !testbed.load.cores.contains(&core);
    notes.push(format!(
        "the upstream ({}) had up to {:.0} % of core {core}, {}{}",
        upstream.listen,
        busy * 100.0,
        if alone { "which it had for itself" } else { "beside the generator" },
        match busy > UPSTREAM_BUSY_MAX {
            true => ": it may be what limits cache-miss, and the server carry more",
            false => "",
        }
    ));
    notes
}

/// The generator's ceiling with the queries of the classes over UDP; streams have no reflector.
fn ceiling(options: &Options, testbed: &Testbed) -> io::Result<Option<Ceiling>> {
    let datagrams = testbed.pools.iter().map(|pool| pool.kind.transport() == Transport::Udp);
    let count = datagrams.clone().filter(|is| *is).count();
    if count == 0 && options.ceiling == CeilingOption::Auto {
        return Ok(None);
    }
    let shares: Vec<f64> = datagrams.map(|is| f64::from(u8::from(is)) / count as f64).collect();
    let shares = if count == 0 { vec![1.0] } else { shares };
    let all = Arc::new(questions(&testbed.pools, &shares, options.seed));
    find::measure(&options.ceiling, &testbed.load, &all).map_err(|error| {
        io::Error::other(format!(
            "the generator's ceiling: {error}: --ceiling RATE says it, --ceiling none does without"
        ))
    })
}

/// Where they meet.
fn place(options: &Options, server: &[usize], generator: &[usize]) -> io::Result<Box<dyn Place>> {
    let place = place_for(options, server, generator)?;
    if place.caveat().is_some() && options.target.is_some() && options.place == "auto" {
        return Err(io::Error::other(
            "--target: here it would be measured over loopback, where an answer costs the server \
             less than behind a card, and too few machines follow: as root, --cores-max 1 \
             --generator-cores CORE has namespaces; --place loopback gives a lower bound",
        ));
    }
    Ok(place)
}

fn place_for(
    options: &Options,
    server: &[usize],
    generator: &[usize],
) -> io::Result<Box<dyn Place>> {
    let alone = server.len() == 1 && generator.len() == 1;
    let can = alone && nix::unistd::geteuid().is_root();
    match options.place.as_str() {
        "namespaces" if !alone => Err(io::Error::other(
            "--place namespaces has one core for the server and one for the generator: \
             --cores-max 1 --generator-cores CORE",
        )),
        "namespaces" => Ok(Box::new(Namespaces::new(server[0], generator[0])?)),
        "auto" if can => match Namespaces::new(server[0], generator[0]) {
            Ok(place) => Ok(Box::new(place)),
            Err(error) => {
                eprintln!("over loopback, because there are no namespaces to be had: {error}");
                Ok(Box::new(Loopback))
            }
        },
        _ => Ok(Box::new(Loopback)),
    }
}

//----------- Task -----------------------------------------------------------

/// What an attack adds, by class of the traffic.
fn attack_shares(attack: &Shares, shares: &Shares) -> Vec<f64> {
    let of = |kind: Kind| attack.classes.iter().find(|(known, _)| *known == kind);
    shares.classes.iter().map(|&(kind, _)| of(kind).map_or(0.0, |(_, share)| *share)).collect()
}

fn task(
    options: &Options,
    testbed: &mut Testbed,
    shares: &Shares,
    records: u64,
) -> io::Result<Task> {
    let most = testbed.cores.len() as u32;
    testbed.serve(most)?;
    let cores = options.machine_cores.unwrap_or(most);
    let buffers = testbed.receive_buffers().map(|octets| {
        let text = match cores {
            cores if cores == most => "as ss says".into(),
            cores => format!("as ss says of {most} cores, times {cores} / {most}"),
        };
        (octets * f64::from(cores) / f64::from(most), text)
    });
    let pools = testbed.pools.iter().zip(&shares.classes);
    let class = |(pool, &(kind, share)): (&Pool, &(Kind, f64))| ClassTask {
        name: kind.to_string(),
        share,
        asks_others: kind == Kind::CacheMiss,
        wire: ClassWire {
            query_octets: pool.query_octets(),
            answer_octets: 0.0,
            transport: kind.transport(),
        },
    };
    Ok(Task {
        classes: pools.map(class).collect(),
        settings: Settings {
            cores: super::prepare::core_counts(most),
            rounds: options.rounds,
            seconds: options.seconds,
            rate_start: options.rate_start,
            rate_max: options.rate_max,
            resolution: 0.03,
            bounds: options.slo,
            transfers: shares.transfers,
            seed: options.seed,
        },
        surroundings: Surroundings {
            ipv6: options.ipv6,
            mtu: options.mtu,
            nic_bits: options
                .nic
                .map(|bits| (bits, "--nic".to_string()))
                .or_else(fastest_interface),
            nic_packets: options.nic_packets,
            buffers,
            stall_s: options.stall_ms / 1e3,
        },
        machine_mib: options.machine_memory.unwrap_or(kernel::machine().memory_mib as f64),
        records,
        reloads: !options.no_reloads,
        serves: testbed.launch.serves(),
        machine_cores: options.machine_cores,
        wanted: options.target.map(|target| Wanted {
            target,
            attack: options.attack,
            attack_shares: options
                .attack_class
                .as_ref()
                .map(|attack| attack_shares(attack, shares)),
            down: options.down,
            caveat: None,
        }),
    })
}

/// The interface of this machine that says the highest speed.
fn fastest_interface() -> Option<(f64, String)> {
    let interfaces = fs::read_dir("/sys/class/net").ok()?.flatten();
    let speed = |entry: fs::DirEntry| {
        let text = fs::read_to_string(entry.path().join("speed")).ok()?;
        let megabits: f64 = text.trim().parse().ok().filter(|megabits| *megabits > 0.0)?;
        Some((megabits * 1e6, format!("{}, as it says", entry.file_name().to_string_lossy())))
    };
    interfaces.filter_map(speed).max_by(|a, b| a.0.total_cmp(&b.0))
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Alone {
        #[command(flatten)]
        options: Options,
    }

    /// What `plan` with these words has.
    pub(in crate::plan) fn options(words: &[&str]) -> Result<Options, String> {
        let words = ["plan"].iter().chain(words);
        Alone::try_parse_from(words).map(|alone| alone.options).map_err(|error| error.to_string())
    }

    #[test]
    fn numbers_are_numbers() {
        for wrong in ["0", "-1", "NaN", "inf", "1e999", "many"] {
            for name in ["--target", "--seconds", "--mtu", "--rate-max"] {
                let error = options(&[&format!("{name}={wrong}")]).err().unwrap();
                assert!(error.contains("above zero"), "{error}");
            }
            let error = options(&["--target=1e6", &format!("--attack={wrong}")]).err().unwrap();
            assert!(error.contains("1 (no attack) or more"), "{error}");
        }
        assert!(options(&["--target", "1e6", "--down=-1"]).is_err());
        assert!(options(&["--machine-cores", "0"]).is_err());
        assert!(options(&["--attack-class", "nxdomain=1"]).is_err());
        let good = options(&["--target", "1e6", "--attack", "3", "--attack-class", "nxdomain=1"]);
        let good = good.unwrap();
        assert_eq!((good.attack, good.seconds), (3.0, 2.0));
        assert_eq!(good.ceiling, CeilingOption::Auto);
        let shares = "hit=1,nxdomain=3".parse().unwrap();
        assert_eq!(attack_shares(&good.attack_class.unwrap(), &shares), [0.0, 1.0]);
    }

    #[test]
    fn machines_are_not_counted_over_loopback_unless_asked_for() {
        // More than one core each: no namespaces.
        let place = |words: &[&str]| place(&options(words).unwrap(), &[0, 1], &[2, 3]);
        let error = place(&["--target", "1e6"]).err().unwrap().to_string();
        assert!(error.contains("--place loopback gives a lower bound"), "{error}");
        assert!(place(&[]).is_ok());
        let asked = place(&["--target", "1e6", "--place", "loopback"]).unwrap();
        assert!(asked.caveat().unwrap().contains("over loopback: a lower bound of machines"));
    }
}
