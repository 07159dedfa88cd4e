//! The generator against a server whose every act is logged: counts agree to the last query, times
//! within what a busy machine may need. `ring53-bench known-truth` has the narrow bounds.

use std::io;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ring53_bench::load::{self, Load, LoadOptions, Schedule};
use ring53_bench::report::model::Run;
use ring53_bench::truth::check::{Bounds, Figure, compare, heading};
use ring53_bench::truth::known::questions;
use ring53_bench::truth::log::Log;
use ring53_bench::truth::script::Act;
use ring53_bench::truth::server::Server;

const TIMEOUT: Duration = Duration::from_millis(1500);
const RATE: f64 = 2000.0;

/// All that can be wrong, but two answers to one query.
const WRONGS: &str = "delay log-normal 1ms 0.5, drop 2%, rcode 2%, question 2%, id 2%, truncate 2%, \
                      elsewhere 2%, stall 50ms every 300ms";

/// Wide: other tests may have both cores. A generator that waits for answers, or that leaves out
/// what is lost, is outside of them all the same.
const BOUNDS: Bounds = Bounds { share: 0.5, body_us: 100_000.0, tail_us: 400_000.0 };

/// A server on a thread of this process.
struct Truth {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    serving: JoinHandle<Log>,
}

impl Truth {
    fn start(listen: &str, script: &str) -> Truth {
        let server = Server::bind(listen.parse().unwrap(), script.parse().unwrap(), 53).unwrap();
        let (address, stop) = (server.address(), Arc::new(AtomicBool::new(false)));
        let is_over = stop.clone();
        let serving =
            thread::spawn(move || server.run(&mut || is_over.load(Ordering::Relaxed)).unwrap());
        Truth { address, stop, serving }
    }

    fn end(self) -> Log {
        self.stop.store(true, Ordering::Relaxed);
        self.serving.join().unwrap()
    }
}

fn options(server: SocketAddr, path: &str, queries_per_connection: u32) -> LoadOptions {
    LoadOptions {
        ports: 4,
        connections: 4,
        queries_per_connection,
        timeout: TIMEOUT,
        path: path.into(),
        ..LoadOptions::to(server)
    }
}

fn ask(options: &LoadOptions, stream: bool, seconds: f64) -> Run {
    let schedule = Schedule::Poisson;
    let load = Load { label: "load".into(), schedule, rate: RATE, seconds, seed: 53 };
    load::run(options, &Arc::new(questions(stream)), &load, &mut |_| {}).unwrap()
}

/// One run; every figure must hold.
fn hold(listen: &str, script: &str, path: &str, stream: bool, queries_per_connection: u32) {
    let truth = Truth::start(listen, script);
    let options = options(truth.address, path, queries_per_connection);
    let run = ask(&options, stream, 1.2);
    let log = truth.end();
    let figures = compare(&run, &log, None, TIMEOUT, &BOUNDS);
    let table: Vec<String> = figures.iter().map(Figure::to_string).collect();
    println!("{}\n{}", heading(), table.join("\n"));
    // What a busy machine did not let it send is said, and is in no other figure.
    assert_eq!(run.counts.scheduled, run.counts.sent + run.losses.generator);
    let not_exact = ["scheduled", "the same, by the schedule"];
    let differing = figures.iter().filter(|it| !it.holds() && !not_exact.contains(&it.name));
    assert_eq!(differing.count(), 0, "{listen} {path} {script}\n{}", table.join("\n"));
    // A generator that waits for answers has one query in each stall. On a busy machine more wait.
    let by_schedule = figures.iter().find(|it| it.name == "the same, by the schedule").unwrap();
    assert!(by_schedule.report > by_schedule.truth / 2.0, "{by_schedule}");
    // The script was played: each act was there to be counted.
    assert!(log.entries.len() > 1000);
    for act in [Act::Drop, Act::OtherRcode, Act::OtherQuestion, Act::OtherId, Act::Truncate] {
        assert!(log.entries.iter().any(|entry| entry.act == act), "{act:?}");
    }
}

#[test]
fn over_udp_both_sides_say_the_same() {
    let script = format!("{WRONGS}, duplicate 2%");
    for (listen, path) in [("127.0.0.1:0", "mmsg"), ("[::1]:0", "auto"), ("127.0.0.1:0", "auto")] {
        hold(listen, &script, path, false, 0);
    }
}

#[test]
fn over_connections_that_stay_open_both_sides_say_the_same() {
    let script = format!("{WRONGS}, duplicate 2%");
    for listen in ["127.0.0.1:0", "[::1]:0"] {
        hold(listen, &script, "auto", true, 0);
    }
}

#[test]
fn over_connections_that_are_replaced_both_sides_say_the_same() {
    hold("127.0.0.1:0", WRONGS, "auto", true, 20);
}

#[test]
fn over_a_connection_for_each_query_both_sides_say_the_same() {
    for listen in ["127.0.0.1:0", "[::1]:0"] {
        hold(listen, WRONGS, "auto", true, 1);
    }
}

/// Who raises its priority when it is ready has nothing left to set up, and has sent nothing yet.
#[test]
fn who_is_ready_may_still_give_up_and_who_cannot_be_is_not() {
    static READY: AtomicU32 = AtomicU32::new(0);
    let truth = Truth::start("127.0.0.1:0", "delay fixed 1ms");
    let on_ready = || {
        READY.fetch_add(1, Ordering::Relaxed);
        Err(io::Error::other("not today"))
    };
    let options = LoadOptions { on_ready, ..options(truth.address, "auto", 0) };
    let (label, schedule) = ("load".into(), Schedule::Poisson);
    let load = Load { label, schedule, rate: RATE, seconds: 1.0, seed: 53 };
    let fails = |options: &LoadOptions| {
        let questions = Arc::new(questions(false));
        load::run(options, &questions, &load, &mut |_| {}).unwrap_err().to_string()
    };
    // No machine has that core: it fails while it sets up.
    let no_core = LoadOptions { cores: vec![1 << 20], ..options.clone() };
    assert_ne!(fails(&no_core), "not today");
    assert_eq!(READY.load(Ordering::Relaxed), 0);
    assert_eq!(fails(&options), "not today");
    assert_eq!(READY.load(Ordering::Relaxed), 1);
    assert!(truth.end().entries.is_empty());
}

#[test]
fn a_server_that_dies_in_the_middle_loses_the_rest() {
    for (stream, queries_per_connection) in [(false, 0), (true, 0), (true, 1)] {
        let truth = Truth::start("127.0.0.1:0", "delay fixed 1ms");
        let options = options(truth.address, "auto", queries_per_connection);
        let asking = thread::spawn(move || ask(&options, stream, 1.0));
        thread::sleep(Duration::from_millis(500));
        let log = truth.end();
        let run = asking.join().unwrap();
        let counts = &run.counts;
        let answered = log.entries.iter().filter(|entry| entry.departed_ns > 0).count() as u64;
        println!("stream {stream}, {queries_per_connection}: {answered} answered, {counts:?}");
        // What no connection took is lost, and was not sent.
        let settled = counts.answered + counts.lost;
        assert!(counts.sent <= settled);
        assert_eq!((counts.wrong, counts.stray, counts.unmatched), (0, 0, 0));
        assert!((settled..=settled + run.losses.generator).contains(&counts.scheduled));
        assert!(run.losses.server > 0, "it is not the generator that died");
        assert!(counts.answered > 0 && counts.answered < counts.scheduled);
        if stream {
            // What was written when the server's end reset its connections may not have been read.
            assert!(counts.answered <= answered);
            assert!(counts.broken > 0);
        } else {
            assert_eq!(counts.answered, answered);
        }
    }
}

#[test]
fn the_command_writes_its_log_when_it_is_told_to_end() {
    let path = std::env::temp_dir().join(format!("ring53-truth-{}.command", std::process::id()));
    let mut server = Command::new(env!("CARGO_BIN_EXE_ring53-bench"))
        .args(["truth", "--listen", "127.0.0.1:0", "--script", "drop 10%", "--seconds", "60"])
        .arg("--log")
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = std::io::BufReader::new(server.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    let address = line.trim().strip_prefix("listening on ").unwrap().parse().unwrap();
    let run = ask(&options(address, "mmsg", 0), false, 0.3);
    let pid = nix::unistd::Pid::from_raw(server.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(server.wait().unwrap().success());
    let log = Log::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(log.entries.len() as u64, run.counts.sent);
    assert!(run.counts.lost > 0);
}
