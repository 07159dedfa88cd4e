//! Zones, queries and measurements for ring53: see `bench/README.md`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use ring53_bench::bed::{self, echo, reflect, spin};
use ring53_bench::inside::{answer, counts};
use ring53_bench::probe::{change, malformed, transfer, verify};
use ring53_bench::zones::{self, Shape, fleet, queries};
use ring53_bench::{compare, find, load, mix, plan, report, truth};

#[global_allocator]
static ALLOCATOR: answer::Counting = answer::Counting;

/// Zones, queries and measurements for ring53.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send an open-loop load and report what became of it.
    Load(load::cli::Options),
    /// Find the rates that a server sustains.
    Find(find::Options),
    /// Predict what a machine carries, and check the prediction.
    Plan(plan::Options),
    /// Learn a profile from a capture: no name and no address is kept.
    Profile(mix::profile::Options),
    /// Write the queries of a mix as dnsperf and kxdpgun read them.
    Mix {
        #[command(flatten)]
        mix: Box<mix::cli::MixOptions>,
        /// File.
        #[arg(long)]
        out: PathBuf,
    },
    /// Compare servers on this machine.
    Compare(compare::Options),
    /// Make and take down two namespaces with a veth between them, for scripts. Needs root.
    Bed(bed::cli::Options),
    /// Say what changed between two results, beyond noise.
    Diff(report::diff::Options),
    /// Make a page of a result.
    Page(report::page::Options),
    /// Answer late, or not at all, as a script says, and log what was done.
    Truth(truth::Options),
    /// Hold the generator against such a server's log; fails if they differ.
    KnownTruth(truth::known::Options),
    /// Write a zone (or, for hosting, a directory of zones).
    Zone {
        /// The shape.
        #[arg(value_enum)]
        shape: Shape,
        /// Names in all.
        #[arg(long, default_value_t = 1_000_000)]
        names: u64,
        /// File, or directory for hosting.
        #[arg(long)]
        out: PathBuf,
    },
    /// Write queries over such a zone, one `name type` a line, as dnsperf and kxdpgun read them.
    Queries {
        /// The shape.
        #[arg(value_enum)]
        shape: Shape,
        /// Names in all.
        #[arg(long, default_value_t = 1_000_000)]
        names: u64,
        /// Queries.
        #[arg(long, default_value_t = 1_000_000)]
        count: u64,
        /// Seed of the choice.
        #[arg(long, default_value_t = 53)]
        seed: u64,
        /// File.
        #[arg(long)]
        out: PathBuf,
    },
    /// Echo datagrams: what the kernel alone costs.
    Echo {
        /// Address and port.
        #[arg(long)]
        listen: SocketAddr,
        /// Core to pin to.
        #[arg(long)]
        core: usize,
        /// Seconds to run.
        #[arg(long, default_value_t = 600)]
        seconds: u64,
    },
    /// Turn queries into replies in the driver (XDP): what a generator can do at most. Needs root.
    Reflect {
        /// The interface queries arrive on.
        #[arg(long)]
        interface: String,
        /// Let everything pass instead: what the other end of a veth needs.
        #[arg(long)]
        pass: bool,
        /// Seconds to run.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// Send malformed datagrams.
    Malformed {
        /// The server.
        #[arg(long)]
        server: SocketAddr,
        /// Datagrams.
        #[arg(long, default_value_t = 10_000_000)]
        count: u64,
        /// Datagrams a second at most.
        #[arg(long, default_value_t = 200_000)]
        rate: u64,
        /// Seed of the choice.
        #[arg(long, default_value_t = 53)]
        seed: u64,
    },
    /// Take a zone by AXFR as fast as the server gives it.
    Transfer {
        /// The server.
        #[arg(long)]
        server: SocketAddr,
        /// The zone.
        #[arg(long, default_value = "example.")]
        zone: ring53::wire::Name,
    },
    /// Be the primary of a server, change ten records of a zone `example.` again and again, and
    /// print how many milliseconds pass from the last octet of each IXFR to the first new answer.
    Change {
        /// Where the server finds its primary.
        #[arg(long)]
        listen: SocketAddr,
        /// The server.
        #[arg(long)]
        server: SocketAddr,
        /// The zone's file.
        #[arg(long)]
        zone: PathBuf,
        /// Changes.
        #[arg(long, default_value_t = 10)]
        rounds: u32,
        /// Seconds between them.
        #[arg(long, default_value_t = 0.3)]
        pause: f64,
    },
    /// Write many small zones as files.
    Fleet {
        /// Zones.
        #[arg(long, default_value_t = 100_000)]
        zones: u64,
        /// The serial of each.
        #[arg(long, default_value_t = 1)]
        serial: u32,
        /// Directory.
        #[arg(long)]
        out: PathBuf,
    },
    /// Wait until a server has a serial of each of these zones; print the milliseconds.
    FleetServed {
        /// The server.
        #[arg(long)]
        server: SocketAddr,
        /// Zones.
        #[arg(long, default_value_t = 100_000)]
        zones: u64,
        /// The serial.
        #[arg(long, default_value_t = 1)]
        serial: u32,
        /// Seconds to wait.
        #[arg(long, default_value_t = 1200)]
        seconds: u64,
    },
    /// Measure how much of a core nothing else uses (SCHED_IDLE): prints the busy share.
    Spin {
        /// The core.
        #[arg(long)]
        core: usize,
        /// How long.
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
    },
    /// Parse, look up and emit in process, batches of 64, and count allocations.
    Answer {
        /// The zone's shape.
        #[arg(value_enum)]
        shape: Shape,
        /// Names in all.
        #[arg(long, default_value_t = 1_000_000)]
        names: u64,
        /// Queries per round.
        #[arg(long, default_value_t = 4_000_000)]
        count: u64,
    },
    /// Count the instructions of each piece of an answer, under callgrind.
    #[command(subcommand)]
    Counts(counts::Counts),
    /// Print the last name of a zone, with a type it has.
    Last {
        /// The shape.
        #[arg(value_enum)]
        shape: Shape,
        /// Names in all.
        #[arg(long, default_value_t = 1_000_000)]
        names: u64,
    },
    /// Ask once; succeed if the answer is NOERROR and has a record or a referral.
    First {
        /// The server.
        #[arg(long)]
        server: SocketAddr,
        /// `name type`.
        #[arg(long)]
        query: String,
    },
    /// Ask for names of a hosts zone at an even rate; verify the answers, print loss and latency.
    Verify {
        /// The server.
        #[arg(long)]
        server: SocketAddr,
        /// The port to ask from; 0 for any.
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// Names in the zone.
        #[arg(long, default_value_t = 1_000_000)]
        names: u64,
        /// Queries.
        #[arg(long, default_value_t = 10_000)]
        count: u64,
        /// Queries a second.
        #[arg(long, default_value_t = 1000)]
        rate: u64,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Load(options) => load::cli::run(&options),
        Command::Find(options) => find::run(&options),
        Command::Plan(options) => plan::run(&options),
        Command::Profile(options) => mix::profile::run(&options),
        Command::Mix { mix, out } => mix.write(&out),
        Command::Compare(options) => compare::run(&options),
        Command::Bed(options) => bed::cli::run(&options),
        Command::Diff(options) => report::diff::run(&options),
        Command::Page(options) => report::page::run(&options),
        Command::Truth(options) => truth::run(&options),
        Command::KnownTruth(options) => truth::known::run(&options),
        Command::Zone { shape, names, out } => zones::write(shape, names, &out),
        Command::Queries { shape, names, count, seed, out } => {
            queries::write(shape, names, count, seed, &out)
        }
        Command::Echo { listen, core, seconds } => {
            echo::run(listen, core, Duration::from_secs(seconds))
        }
        Command::Reflect { interface, pass, seconds } => {
            let program = if pass { reflect::Program::Pass } else { reflect::Program::Reflect };
            reflect::run(&interface, program, Duration::from_secs(seconds))
        }
        Command::Malformed { server, count, rate, seed } => {
            malformed::run(server, count, rate, seed)
        }
        Command::Transfer { server, zone } => transfer::run(server, &zone),
        Command::Change { listen, server, zone, rounds, pause } => {
            change::run(listen, server, &zone, rounds, Duration::from_secs_f64(pause))
        }
        Command::Fleet { zones, serial, out } => fleet::write(zones, serial, &out),
        Command::FleetServed { server, zones, serial, seconds } => {
            fleet::wait(server, zones, serial, seconds)
        }
        Command::Spin { core, seconds } => spin::run(core, Duration::from_secs_f64(seconds)),
        Command::Answer { shape, names, count } => answer::run(shape, names, count),
        Command::Counts(counts) => counts::run(counts),
        Command::Last { shape, names } => {
            println!("{}", queries::last(shape, names));
            Ok(())
        }
        Command::First { server, query } => verify::first(server, &query),
        Command::Verify { server, port, names, count, rate } => {
            verify::run(server, port, names, count, rate)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ring53-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
