//! `ring53-bench load`.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
    /// Cores to send from, one pinned thread each, which are kept from halting; default: one
    /// thread, not pinned.
    #[arg(long, value_delimiter = ',')]
    pub cores: Vec<usize>,
    /// Source ports of each thread.
    #[arg(long, default_value_t = 64, value_parser = count_of(1, 16_384))]
    pub ports: usize,
    /// Queries in a row from one port or connection, a power of two: those of one length leave a
    /// port as one (UDP_SEGMENT).
    #[arg(long, default_value_t = 1, value_parser = power_of_two)]
    pub run: usize,
    /// TCP connections of each thread.
    #[arg(long, default_value_t = 16, value_parser = count_of(1, 16_384))]
    pub connections: usize,
    /// Queries on one TCP connection, after which another is opened; 0: no limit.
    #[arg(long, default_value_t = 0)]
    pub queries_per_connection: u32,
    /// Seconds after which an unanswered query is lost.
    #[arg(long, default_value_t = 1.0, value_parser = seconds_of_timeout)]
    pub timeout: f64,
    /// Microseconds from which on a query was sent late.
    #[arg(long, default_value_t = 1000)]
    pub late_us: u64,
    /// How datagrams are sent: auto, uring or mmsg.
    #[arg(long, default_value = "auto", value_parser = ["auto", "uring", "mmsg"])]
    pub path: String,
    /// The server's process, if it is on this machine: its sockets' drops and its memory are seen.
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// The core that the server has for itself, if it is on this machine: what it uses of it is
    /// measured.
    #[arg(long, value_name = "CORE")]
    pub server_core: Option<usize>,
}

/// Reads a number above zero that is finite.
pub fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= 1e12 => Ok(number),
        _ => Err("expected a number above zero".into()),
    }
}

fn seconds_of_timeout(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected seconds, 0.001 to 600".into()),
    }
}

fn count_of(least: usize, most: usize) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| match text.parse::<usize>() {
        Ok(count) if (least..=most).contains(&count) => Ok(count),
        _ => Err(format!("expected a number from {least} to {most}")),
    }
}

fn power_of_two(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(count) if count.is_power_of_two() && count <= 1024 => Ok(count),
        _ => Err("expected a power of two, 1 to 1024".into()),
    }
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
            timeout: Duration::from_secs_f64(self.timeout),
            late: Duration::from_micros(self.late_us),
            path: self.path.clone(),
            server_pid: self.server_pid,
            server_core: self.server_core,
            ..LoadOptions::to(self.server)
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
    /// Queries a second [default: 1000, or that of the profile's original].
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    /// Seconds.
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    seconds: f64,
    /// When queries are sent: poisson, constant, bursts:N, ramp:SHARE (of the rate, at the start)
    /// [default: poisson, or the gaps of the profile].
    #[arg(long)]
    schedule: Option<Schedule>,
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
        began: now(),
        machine: kernel::machine(),
        generator: Generator {
            version: env!("CARGO_PKG_VERSION").into(),
            path: super::datagrams::path_name(&options.path).into(),
            cores: options.cores.iter().map(|&core| core as u32).collect(),
            ports: (options.ports * options.cores.len().max(1)) as u32,
            timestamps: "kernel".into(),
            ceiling: None,
        },
        target: Some(Target {
            address: target.server.to_string(),
            version: version_of(target.server),
        }),
        mix: Some(mix.clone()),
        ..Report::default()
    }
}

/// Now, RFC 3339 in UTC.
pub fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    rfc3339(since.as_secs())
}

/// Seconds since 1970, RFC 3339 in UTC.
fn rfc3339(seconds: u64) -> String {
    let (mut days, second) = (seconds / 86_400, seconds % 86_400);
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for len in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < len {
            break;
        }
        days -= len;
        month += 1;
    }
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year}-{month:02}-{:02}T{hour:02}:{minute:02}:{:02}Z", days + 1, second % 60)
}

/// How long a server may take to say what it is.
const VERSION_WAIT: Duration = Duration::from_millis(300);

/// What a server says of itself: version.bind, class CHAOS.
fn version_of(server: SocketAddr) -> Option<String> {
    const QUERY: &[u8] = b"\x53\x53\0\0\0\x01\0\0\0\0\0\0\x07version\x04bind\0\0\x10\0\x03";
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(server).ok()?;
    socket.set_read_timeout(Some(VERSION_WAIT)).ok()?;
    socket.send(QUERY).ok()?;
    let mut reply = [0; 512];
    let len = socket.recv(&mut reply).ok()?;
    version_in(&reply[..len], QUERY.len())
}

/// The first string of the first record of a reply to a question that ends at `question_end`.
fn version_in(reply: &[u8], question_end: usize) -> Option<String> {
    if reply.get(3)? & 0xF != 0 || *reply.get(7)? == 0 {
        return None;
    }
    // A pointer or the name itself; then type, class, TTL and length.
    let owner = *reply.get(question_end)?;
    let owner_len = if owner >= 0xC0 { 2 } else { b"\x07version\x04bind\0".len() };
    let string = reply.get(question_end + owner_len + 10..)?;
    let (&len, string) = string.split_first()?;
    let text = String::from_utf8_lossy(string.get(..len as usize)?);
    Some(text.chars().filter(|letter| !letter.is_control()).collect())
}

/// The queries as a report tells of them.
pub fn note(questions: &Questions) -> MixNote {
    MixNote {
        text: questions.text().into(),
        distinct: questions.len() as u64,
        query_octets: questions.query_octets(),
        verified: questions.entries().iter().all(|entry| entry.expected.is_some()),
    }
}

/// Sends one load.
pub fn run(options: &Options) -> io::Result<()> {
    let questions = Arc::new(options.mix.questions()?);
    let mut report = begin("load", &options.target, &note(&questions));
    let began = Instant::now();
    let load = Load {
        label: "load".into(),
        schedule: schedule(&options.schedule, &options.mix)?,
        rate: match options.rate {
            Some(rate) => rate,
            None => options.mix.rate()?.unwrap_or(1000.0),
        },
        seconds: options.seconds,
        seed: options.mix.seed,
    };
    let mut progress = options.outputs.progress();
    progress.begin(&load.label, load.seconds);
    // A file is asked from its first line on.
    let target = LoadOptions { first: Some(0), ..options.target.load_options() };
    let run = super::run(&target, &questions, &load, &mut |live| progress.show(live))?;
    drop(progress);
    report.runs.push(run);
    report.seconds = began.elapsed().as_secs_f64();
    options.outputs.finish(&report)
}

/// The schedule that was asked for, or the profile's, or Poisson.
pub fn schedule(asked: &Option<Schedule>, mix: &MixOptions) -> io::Result<Schedule> {
    match asked {
        Some(schedule) => Ok(schedule.clone()),
        None => Ok(mix.schedule()?.unwrap_or_default()),
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }

    #[test]
    fn a_version_is_read_or_there_is_none() {
        let mut reply = b"SS\x84\0\0\x01\0\x01\0\0\0\0".to_vec();
        reply.extend(b"\x07version\x04bind\0\0\x10\0\x03");
        let end = reply.len();
        reply.extend(b"\xC0\x0C\0\x10\0\x03\0\0\0\0\0\x08\x07ring 53");
        assert_eq!(version_in(&reply, end).as_deref(), Some("ring 53"));
        for len in 0..reply.len() {
            assert_eq!(version_in(&reply[..len], end), None);
        }
        reply[3] = 5;
        assert_eq!(version_in(&reply, end), None);
    }
}
