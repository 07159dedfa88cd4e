//! `ring53-bench known-truth`: the generator in open loop against a truth server in a process of
//! its own, for each script and rate; then both sides in a table.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::load::{self, Load, LoadOptions, Schedule};
use crate::mix::{Expected, Questions, QuestionsBuilder, Traits};
use crate::report::model::Run;

use super::check::{Bounds, Figure, compare, heading};
use super::log::Log;

/// Different names that are asked for.
const NAMES: usize = 10_000;

/// What is asked of every generator: both kinds of delay, a stall, and all that can be wrong.
const SCRIPTS: [&str; 4] = [
    "delay uniform 100us 1ms, drop 0.1%",
    "delay log-normal 300us 0.5, drop 0.1%",
    "delay log-normal 300us 0.5, drop 0.1%, stall 50ms every 1s",
    "delay uniform 100us 1ms, drop 0.1%, rcode 0.5%, question 0.5%, id 0.5%, truncate 0.5%, \
     duplicate 0.5%, elsewhere 0.5%",
];

/// Which cores, rates and scripts.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Queries a second, one run each.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000.0, 100_000.0])]
    rates: Vec<f64>,
    /// Seconds of each run.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Scripts, one run each; without, those that the README names.
    #[arg(long = "script")]
    scripts: Vec<String>,
    /// How queries are carried.
    #[arg(long, value_enum, default_value_t = Carried::Udp)]
    over: Carried,
    /// Source ports, or connections.
    #[arg(long, default_value_t = 16)]
    ports: usize,
    /// Core of the server.
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Core of the generator.
    #[arg(long, default_value_t = 1)]
    core: usize,
    /// Where the server listens; port 0 for any.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Words to put before the server's command, for example "ip netns exec NAME".
    #[arg(long, default_value = "")]
    through: String,
    /// `uring`, `mmsg` or `auto`.
    #[arg(long, default_value = "auto")]
    path: String,
    /// Seed of the scripts and of the schedules.
    #[arg(long, default_value_t = 53)]
    seed: u64,
}

/// How queries are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Carried {
    /// Over UDP.
    Udp,
    /// Over connections that stay open.
    Tcp,
    /// Over a connection for each query: latencies have its handshake in them, which no log has.
    TcpPerQuery,
}

/// Runs all of it; an error if one figure differs.
pub fn run(options: &Options) -> io::Result<()> {
    let scripts = match options.scripts.is_empty() {
        true => SCRIPTS.map(String::from).into(),
        false => options.scripts.clone(),
    };
    let mut differing = 0;
    for &rate in &options.rates {
        for script in &scripts {
            let (run, figures) = one(options, rate, script)?;
            println!("{rate} queries/s, {} s: {script}", options.seconds);
            println!("{}", heading());
            for figure in &figures {
                println!("{figure}");
                differing += usize::from(!figure.holds());
            }
            let late = &run.lateness;
            println!(
                "sent late by: p50 {:.1}, p99 {:.1}, p99.9 {:.1} us; lost at sockets: {} of the \
                 generator, {} of the server; never sent: {}; stolen {:.2} %\n",
                late.p50,
                late.p99,
                late.p99_9,
                run.losses.generator_socket,
                run.losses.server_socket.map_or("?".into(), |count| count.to_string()),
                run.losses.generator,
                run.stolen * 100.0
            );
        }
    }
    match differing {
        0 => Ok(()),
        count => Err(io::Error::other(format!("{count} figures differ"))),
    }
}

/// One script at one rate.
fn one(options: &Options, rate: f64, script: &str) -> io::Result<(Run, Vec<Figure>)> {
    let path = std::env::temp_dir().join(format!("ring53-truth-{}.log", std::process::id()));
    let server = ServerProcess::start(options, script, &path)?;
    let load_options = load_options(server.address, options, server.child.id());
    let load = Load {
        label: script.into(),
        schedule: Schedule::Poisson,
        rate,
        seconds: options.seconds,
        seed: options.seed,
    };
    let questions = Arc::new(questions(options.over != Carried::Udp));
    let run = load::run(&load_options, &questions, &load, &mut |_| {})?;
    server.end()?;
    let log = Log::read(&path);
    // A log of some hundred megabytes is not left behind.
    let _ = std::fs::remove_file(&path);
    // Of several connections, one may overtake another.
    let schedule = (options.over == Carried::Udp).then(|| load.times(0, 1).collect::<Vec<_>>());
    let bounds = Bounds::default();
    let figures = compare(&run, &log?, schedule.as_deref(), load_options.timeout, &bounds);
    Ok((run, figures))
}

fn load_options(server: SocketAddr, options: &Options, server_pid: u32) -> LoadOptions {
    LoadOptions {
        cores: vec![options.core],
        ports: options.ports,
        connections: options.ports,
        queries_per_connection: u32::from(options.over == Carried::TcpPerQuery),
        timeout: Duration::from_secs(1),
        late: Duration::from_micros(50),
        path: options.path.clone(),
        server_pid: Some(server_pid),
        ..LoadOptions::to(server)
    }
}

/// Queries for many names, whose answers have to be NOERROR.
pub fn questions(stream: bool) -> Questions {
    let mut builder = QuestionsBuilder::default();
    for number in 0..NAMES {
        let name = format!("q{number}");
        let mut query = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, name.len() as u8];
        query.extend(name.as_bytes());
        query.extend(b"\x05truth\x04test\x00\x00\x01\x00\x01");
        let question_len = query.len() - ring53::limits::HEADER_LEN;
        builder.add(&query, question_len, Traits { stream, ..Traits::default() });
    }
    let mut questions = builder.build(format!("A of {NAMES} names"));
    questions.expect(|_, _| Some(Expected { rcode: 0, digest: None, proof: false }));
    questions
}

//----------- ServerProcess --------------------------------------------------

/// A truth server, killed if it is not ended.
struct ServerProcess {
    child: Child,
    /// What it prints: held open, so that it can.
    _output: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl ServerProcess {
    fn start(options: &Options, script: &str, log: &Path) -> io::Result<ServerProcess> {
        let program: PathBuf = std::env::current_exe()?;
        let mut words = options.through.split_whitespace();
        let mut command = match words.next() {
            None => Command::new(program),
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(program);
                command
            }
        };
        command.args(["truth", "--script", script]).arg("--log").arg(log);
        command.args(["--listen", &options.listen.to_string()]);
        command.args(["--seed", &options.seed.to_string()]);
        command.args(["--core", &options.server_core.to_string()]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("it is a pipe"));
        output.read_line(&mut line)?;
        match line.trim().strip_prefix("listening on ").and_then(|text| text.parse().ok()) {
            Some(address) => Ok(ServerProcess { child, _output: output, address }),
            None => {
                let _ = child.kill();
                child.wait()?;
                Err(io::Error::other("the truth server did not start: see above"))
            }
        }
    }

    /// Lets it write its log.
    fn end(mut self) -> io::Result<()> {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM)?;
        let status = self.child.wait()?;
        match status.success() {
            true => Ok(()),
            false => Err(io::Error::other(format!("the truth server ended with {status}"))),
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // It has ended already if all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
