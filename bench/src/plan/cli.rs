//! `ring53-bench plan`.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use ring53::wire::Name;

use crate::find::{self, Bounds, CEILING_SHARE_MAX, CeilingOption};
use crate::load::cli::now;
use crate::load::{LoadOptions, kernel};
use crate::mix::cli::MixOptions;
use crate::report::Outputs;
use crate::report::model::{Ceiling, Generator, MixNote, Report, SCHEMA, Target};

use super::campaign::Settings;
use super::classes::{Kind, Pool, Shares, questions, sort};
use super::draw::{ClassTask, Made, Task, Wanted, make, own};
use super::limits::{ClassWire, Surroundings, Transport, read_bits};
use super::place::{Loopback, Namespaces, Place};
use super::server::{Launch, Template};
use super::testbed::{MadeZone, Testbed};
use super::zone::{self, ZoneNames};

/// Options of `plan`.
#[derive(clap::Args)]
pub struct Options {
    /// The server that is started: ring53, nsd or knot.
    #[arg(long, default_value = "ring53", value_parser = ["ring53", "nsd", "knot"])]
    server: String,
    /// Another server: its command, words divided by spaces, in which {cores}, {count}, {listen},
    /// {address}, {port}, {client}, {apex}, {zone}, {directory} and {config} are filled in. It has
    /// to stay in the foreground, to end on SIGTERM and to read its zones again on SIGHUP.
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "server")]
    server_command: Option<String>,
    /// A file in which the same is filled in, for {config}.
    #[arg(long, value_name = "FILE", requires = "server_command")]
    server_config: Option<PathBuf>,
    /// The ring53 to start; default: the one beside this program.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Where the two meet: loopback, or namespaces (root; one core each), in which each does its
    /// own receiving; auto: namespaces where they can be had. What is measured over loopback costs
    /// the server less than a card would: machines (--target) are counted there only if asked for.
    #[arg(long, default_value = "auto", value_parser = ["auto", "loopback", "namespaces"])]
    place: String,
    /// Cores for the generator; default: the upper half.
    #[arg(long, value_name = "CORES", value_delimiter = ',')]
    generator_cores: Vec<usize>,
    /// The most cores that the server is measured with; default: all but the generator's.
    #[arg(long)]
    cores_max: Option<u32>,
    /// Classes and their shares: hit, nxdomain, signed, signed-nxdomain, referral, tcp (connections
    /// that stay), tcp-query (one each); transfer=N is N transfers of the zone a second.
    #[arg(
        long = "class",
        value_name = "SHARES",
        default_value = "hit=0.7,nxdomain=0.3",
        conflicts_with_all = ["queries", "profile"]
    )]
    classes: Shares,
    /// A profile of real traffic, replayed on the zone: its classes are found by asking the server.
    #[arg(long, value_name = "FILE", conflicts_with = "queries")]
    profile: Option<PathBuf>,
    /// A query file as dnsperf reads it: its classes are found by asking the server.
    #[arg(long, value_name = "FILE", requires = "zone")]
    queries: Option<PathBuf>,
    /// Queries over TCP of the file or profile have a connection each.
    #[arg(long)]
    tcp_per_query: bool,
    /// The zone's file; default: one that is made, with delegations, signed if classes need it.
    #[arg(long, value_name = "FILE", requires = "apex")]
    zone: Option<PathBuf>,
    /// The zone's name.
    #[arg(long, value_name = "NAME", requires = "zone")]
    apex: Option<Name>,
    /// Hosts in the zone that is made.
    #[arg(long, default_value_t = 100_000)]
    names: u64,
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
    ports: usize,
    /// Queries in a row from one port: those of one length leave as one (UDP_SEGMENT).
    #[arg(long, default_value_t = 1)]
    run: usize,
    /// TCP connections of each thread of the generator.
    #[arg(long, default_value_t = 16)]
    connections: usize,
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
    attack_class: Option<Shares>,
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
    seed: u64,
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
    let (server_cores, generator_cores) = cores(options)?;
    let place = place(options, &server_cores, &generator_cores)?;
    let (note, caveat) = (place.note(), place.caveat());
    let (mut testbed, names) =
        testbed(options, &folder.0, place, server_cores.clone(), &generator_cores)?;
    let shares = pools(options, &mut testbed, &names)?;
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
    let Made { plan, runs, mut notes, fault } = make(&mut testbed, &task, &mut say)?;
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
            cores: generator_cores.iter().map(|&core| core as u32).collect(),
            ports: (options.ports * generator_cores.len()) as u32,
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

//----------- Preparing ------------------------------------------------------

/// A folder that goes when this does.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Folder> {
        let path = std::env::temp_dir().join(format!("ring53-plan-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The server's and the generator's cores, of those that this process may use.
fn cores(options: &Options) -> io::Result<(Vec<usize>, Vec<usize>)> {
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0))?;
    let all: Vec<usize> = (0..nix::sched::CpuSet::count())
        .filter(|&core| set.is_set(core).unwrap_or(false))
        .collect();
    let generator = match options.generator_cores.is_empty() {
        true => all[all.len().div_ceil(2)..].to_vec(),
        false => options.generator_cores.clone(),
    };
    let mut server: Vec<usize> =
        all.iter().copied().filter(|core| !generator.contains(core)).collect();
    if let Some(most) = options.cores_max {
        server.truncate(most as usize);
    }
    if server.is_empty() || generator.is_empty() {
        return Err(io::Error::other(format!(
            "cores {all:?}: the server needs one and the generator another; --generator-cores says \
             which"
        )));
    }
    Ok((server, generator))
}

/// 1, 2, 4, and so on, and the most.
fn core_counts(most: u32) -> Vec<u32> {
    let mut counts: Vec<u32> = std::iter::successors(Some(1u32), |count| count.checked_mul(2))
        .take_while(|&n| n < most)
        .collect();
    counts.push(most);
    counts
}

fn testbed(
    options: &Options,
    folder: &Path,
    place: Box<dyn Place>,
    server_cores: Vec<usize>,
    generator_cores: &[usize],
) -> io::Result<(Testbed, ZoneNames)> {
    let template = match (&options.server_command, &options.server_config) {
        (Some(command), config) => {
            let read = |path: &PathBuf| {
                fs::read_to_string(path)
                    .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
            };
            let config = config.as_ref().map(read).transpose()?.unwrap_or_default();
            Template { command: command.clone(), config }
        }
        _ => Template::of(&options.server).ok_or_else(|| io::Error::other("unknown server"))?,
    };
    // What reading again changes is a copy.
    let path = folder.join("zone");
    let (apex, made) = match (&options.zone, &options.apex) {
        (Some(zone), Some(apex)) => {
            fs::copy(zone, &path)
                .map_err(|error| io::Error::other(format!("{}: {error}", zone.display())))?;
            (apex.clone(), None)
        }
        _ => {
            let dnssec = [Kind::Signed, Kind::SignedNxdomain];
            let attack = options.attack_class.iter().flat_map(|shares| &shares.classes);
            let mut kinds = options.classes.classes.iter().chain(attack);
            let signed = kinds.any(|(kind, _)| dnssec.contains(kind));
            let names = options.names.max(64);
            zone::make(&path, names, signed)?;
            let apex = "example.".parse().map_err(io::Error::other)?;
            (apex, Some(MadeZone { names, signed }))
        }
    };
    let names = ZoneNames::read(&apex, &path)?;
    let program = match &options.program {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name("ring53"),
    };
    let listen = free_port(place.server())?;
    let launch = Launch {
        template,
        program,
        apex,
        zone: path,
        directory: folder.join("server"),
        listen,
        client: place.client(),
    };
    let load = LoadOptions {
        cores: generator_cores.to_vec(),
        ports: options.ports,
        run: options.run,
        connections: options.connections,
        timeout: Duration::from_millis(500),
        ..LoadOptions::to(listen)
    };
    Ok((Testbed::new(place, launch, server_cores, load, made), names))
}

/// A port that neither UDP nor TCP uses.
fn free_port(address: std::net::IpAddr) -> io::Result<SocketAddr> {
    for _ in 0..16 {
        // Where the address is somebody else's, so is the port: it is not tried.
        let Ok(socket) = UdpSocket::bind((address, 0)) else { return Ok((address, 53).into()) };
        let taken = socket.local_addr()?;
        if TcpListener::bind(taken).is_ok() {
            return Ok(taken);
        }
    }
    Err(io::Error::other("no port is free for UDP and TCP"))
}

/// The mix of a query file or of a profile on the zone, all else as it is without options.
fn mix(options: &Options, launch: &Launch) -> io::Result<Option<MixOptions>> {
    #[derive(clap::Parser)]
    struct Alone {
        #[command(flatten)]
        mix: MixOptions,
    }
    let (seed, apex) = (options.seed.to_string(), launch.apex.to_string());
    let mut words: Vec<&OsStr> = vec!["plan".as_ref(), "--seed".as_ref(), seed.as_ref()];
    match (&options.queries, &options.profile) {
        (Some(queries), _) => words.extend(["--queries".as_ref(), queries.as_os_str()]),
        (None, Some(profile)) => {
            words.extend(["--profile".as_ref(), profile.as_os_str(), "--zone".as_ref()]);
            words.extend([launch.zone.as_os_str(), "--apex".as_ref(), apex.as_ref()]);
        }
        (None, None) => return Ok(None),
    }
    Alone::try_parse_from(words).map(|alone| Some(alone.mix)).map_err(io::Error::other)
}

/// What is asked of each class; the server answers already.
fn pools(options: &Options, testbed: &mut Testbed, names: &ZoneNames) -> io::Result<Shares> {
    testbed.serve(1)?;
    let listen = testbed.launch.listen;
    let mut found = Ok((Shares::default(), Vec::new()));
    let mut work = || {
        found = match mix(options, &testbed.launch)? {
            Some(mix) => sort(&mix.questions()?, listen, options.tcp_per_query),
            None => {
                let shares = options.classes.clone();
                let made = shares.classes.iter().map(|&(kind, _)| {
                    let pool = Pool::of_zone(kind, &testbed.launch.apex, names)?;
                    pool.confirm(listen)?;
                    Ok(pool)
                });
                made.collect::<io::Result<Vec<Pool>>>().map(|pools| (shares, pools))
            }
        };
        Ok(())
    };
    testbed.place.with_client(&mut work)?;
    let (mut shares, mut pools) = found?;
    // What only an attack asks has no share of the traffic.
    for &(kind, _) in options.attack_class.iter().flat_map(|attack| &attack.classes) {
        if pools.iter().all(|pool| pool.kind != kind) {
            let pool = Pool::of_zone(kind, &testbed.launch.apex, names)?;
            testbed.place.with_client(&mut || pool.confirm(listen))?;
            pools.push(pool);
            shares.classes.push((kind, 0.0));
        }
    }
    testbed.pools = pools;
    Ok(shares)
}

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
        wire: ClassWire {
            query_octets: pool.query_octets(),
            answer_octets: 0.0,
            transport: kind.transport(),
        },
    };
    Ok(Task {
        classes: pools.map(class).collect(),
        settings: Settings {
            cores: core_counts(most),
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
mod tests {
    use super::*;

    #[test]
    fn cores_double() {
        assert_eq!(core_counts(1), [1]);
        assert_eq!(core_counts(4), [1, 2, 4]);
        assert_eq!(core_counts(6), [1, 2, 4, 6]);
    }

    #[derive(clap::Parser)]
    struct Alone {
        #[command(flatten)]
        options: Options,
    }

    fn options(words: &[&str]) -> Result<Options, String> {
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

    #[test]
    fn a_port_is_free() {
        let at = free_port([127, 0, 0, 1].into()).unwrap();
        assert!(at.port() > 0);
    }
}
