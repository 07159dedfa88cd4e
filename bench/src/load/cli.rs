//! `ring53-bench load`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::mix::Questions;
use crate::mix::cli::MixOptions;
use crate::report::Outputs;
use crate::report::model::{Generator, MixNote, Report, SCHEMA, Target};

use super::{Load, LoadOptions, Schedule, kernel};

/// Whom to ask and with what means: the options of every command that sends load.
#[derive(Clone, Debug, clap::Args)]
pub struct TargetOptions {
    /// The server's address and port.
    #[arg(long)]
    pub server: SocketAddr,
    /// An address to ask from; several are used in turn.
    #[arg(long = "source", value_name = "ADDRESS")]
    pub sources: Vec<IpAddr>,
    /// Cores to send from, one pinned thread each; default: one thread, not pinned.
    #[arg(long, value_delimiter = ',')]
    pub cores: Vec<usize>,
    /// Source ports of each thread.
    #[arg(long, default_value_t = 64)]
    pub ports: usize,
    /// Queries in a row from one port: those of one length leave as one (UDP_SEGMENT).
    #[arg(long, default_value_t = 1)]
    pub run: usize,
    /// TCP connections of each thread.
    #[arg(long, default_value_t = 16)]
    pub connections: usize,
    /// Queries on one TCP connection, after which another is opened; 0: no limit.
    #[arg(long, default_value_t = 0)]
    pub queries_per_connection: u32,
    /// Seconds after which an unanswered query is lost.
    #[arg(long, default_value_t = 1.0)]
    pub timeout: f64,
    /// Microseconds from which on a query was sent late.
    #[arg(long, default_value_t = 1000)]
    pub late_us: u64,
    /// How datagrams are sent: auto, uring or mmsg.
    #[arg(long, default_value = "auto", value_parser = ["auto", "uring", "mmsg"])]
    pub path: String,
    /// The server's process, if it is on this machine: its sockets' drops are counted.
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
}

impl TargetOptions {
    /// As the generator wants them.
    pub fn load_options(&self) -> LoadOptions {
        LoadOptions {
            server: self.server,
            sources: self.sources.clone(),
            cores: self.cores.clone(),
            ports: self.ports,
            run: self.run,
            connections: self.connections,
            queries_per_connection: self.queries_per_connection,
            timeout: Duration::from_secs_f64(self.timeout.clamp(0.001, 600.0)),
            late: Duration::from_micros(self.late_us),
            path: self.path.clone(),
            server_pid: self.server_pid,
        }
    }
}

/// Options of `load`.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    target: TargetOptions,
    #[command(flatten)]
    mix: MixOptions,
    /// Queries a second.
    #[arg(long, default_value_t = 1000.0)]
    rate: f64,
    /// Seconds.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// When queries are sent: poisson, constant, bursts:N, ramp:SHARE (of the rate, at the start).
    #[arg(long, default_value = "poisson")]
    schedule: Schedule,
    #[command(flatten)]
    outputs: Outputs,
}

/// A report with what is known before the first query.
pub fn begin(command: &str, target: &TargetOptions, mix: &MixNote) -> Report {
    let options = target.load_options();
    Report {
        schema: SCHEMA,
        command: command.into(),
        arguments: std::env::args().skip(1).collect(),
        machine: kernel::machine(),
        generator: Generator {
            version: env!("CARGO_PKG_VERSION").into(),
            path: super::datagrams::path_name(&options.path).into(),
            cores: options.cores.iter().map(|&core| core as u32).collect(),
            ports: (options.ports * options.cores.len().max(1)) as u32,
            timestamps: "kernel".into(),
            ceiling: None,
        },
        target: Some(Target { address: target.server.to_string(), version: None }),
        mix: Some(mix.clone()),
        ..Report::default()
    }
}

/// The queries as a report tells of them.
pub fn note(questions: &Questions) -> MixNote {
    MixNote {
        text: questions.text().into(),
        distinct: questions.len() as u64,
        query_octets: questions.query_octets(),
        verified: questions.entries().iter().any(|entry| entry.expected.is_some()),
    }
}

/// Sends one load.
pub fn run(options: &Options) -> io::Result<()> {
    let questions = Arc::new(options.mix.questions()?);
    let mut report = begin("load", &options.target, &note(&questions));
    let began = Instant::now();
    let load = Load {
        label: "load".into(),
        schedule: options.schedule.clone(),
        rate: options.rate,
        seconds: options.seconds,
        seed: options.mix.seed,
    };
    let run = super::run(&options.target.load_options(), &questions, &load, &mut |_| ())?;
    report.runs.push(run);
    report.seconds = began.elapsed().as_secs_f64();
    options.outputs.write(&report)?;
    println!("{}", serde_json::to_string_pretty(&report.runs[0].counts)?);
    Ok(())
}
