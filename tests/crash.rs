//! A secondary that is killed at random instants: after each restart it serves a whole version,
//! never a mixture, and catches up.

#[path = "support/process.rs"]
mod process;
mod support;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use process::Process;
use support::{Random, free_port, seed};

const KILLS: u32 = 200;
const NAMES: u32 = 40;
const PATIENCE: Duration = Duration::from_secs(20);

/// A version: every record tells its serial.
fn write_zone(file: &Path, serial: u32) {
    let mut text = format!("$TTL 60\nt. SOA ns.t. h.t. {serial} 2 2 3600 60\nt. NS ns.t.\n");
    text += "ns.t. A 192.0.2.1\n";
    for name in 0..NAMES {
        writeln!(text, "r{name}.t. TXT \"{serial}\"").unwrap();
    }
    let beside = file.with_extension("next");
    fs::write(&beside, text).unwrap();
    fs::rename(&beside, file).unwrap();
}

/// The serial that all records of the zone tell; `None` while it is not served.
fn version(server: SocketAddr) -> Option<u32> {
    let output = Command::new("dig")
        .args([&format!("@{}", server.ip()), "-p", &server.port().to_string()])
        .args(["t.", "AXFR", "+onesoa", "+noall", "+answer", "+time=1", "+tries=1"])
        .output()
        .expect("dig: run scripts/test");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let records = || text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let serial = records().find(|words| words.get(3) == Some(&"SOA"))?[6].parse().ok()?;
    let told: BTreeSet<&str> = text
        .lines()
        .filter(|line| line.contains("\tTXT\t"))
        .filter_map(|line| line.split('"').nth(1))
        .collect();
    let count = text.lines().filter(|line| line.contains("\tTXT\t")).count();
    assert_eq!((told.len(), count), (1, NAMES as usize), "a mixture: {text}");
    assert_eq!(told.first().unwrap().parse(), Ok(serial), "records of another serial: {text}");
    Some(serial)
}

fn secondary(config: &Path) -> Process {
    Process::start(&["--config", config.to_str().unwrap()])
}

#[test]
fn killed_at_any_instant_it_comes_back_whole() {
    let mut random = Random(seed());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("zone");
    let at = |_| SocketAddr::from(([127, 0, 0, 1], free_port()));
    let [first, second]: [SocketAddr; 2] = std::array::from_fn(at);
    let serial = AtomicU32::new(1);
    write_zone(&file, 1);
    let configure = |name: &str, listen: SocketAddr, zone: String| {
        let text = format!(
            "version = 1\n[server]\nlisten = [\"{listen}\"]\ncores = [0]\nstate = \"{name}\"\n\
             [[zone]]\nname = \"t.\"\n{zone}\nallow_transfer = [\"127.0.0.1\"]\n"
        );
        let path = directory.path().join(format!("{name}.toml"));
        fs::write(&path, text).unwrap();
        path
    };
    let notify = format!("notify = [\"{second}\"]");
    let of_first = configure("first", first, format!("file = \"{}\"\n{notify}", file.display()));
    let of_second = configure("second", second, format!("primaries = [\"{first}\"]"));
    let primary = secondary(&of_first);
    primary.address();
    let over = AtomicBool::new(false);
    let (mut restored, mut whole) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let next = serial.load(Ordering::SeqCst) + 1;
                write_zone(&file, next);
                primary.reload();
                serial.store(next, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(10));
            }
        });
        for kill in 0..KILLS {
            let mut process = secondary(&of_second);
            process.address();
            if process.said().contains("kept from before") {
                restored += 1;
            }
            // It may be older than what was served before: that was not on disk yet.
            if kill % 8 == 0 && version(second).is_some() {
                whole += 1;
            }
            thread::sleep(Duration::from_micros(random.below(60_000)));
            process.signal(Signal::SIGKILL);
            process.end_at_once();
        }
        over.store(true, Ordering::SeqCst);
    });
    assert!(whole > KILLS / 16, "only {whole} of {KILLS} restarts served");
    assert!(restored > KILLS / 2, "only {restored} of {KILLS} restarts had something kept");
    let last = serial.load(Ordering::SeqCst);
    let process = secondary(&of_second);
    let end = Instant::now() + PATIENCE;
    while version(second) != Some(last) {
        assert!(Instant::now() < end, "serial {last} never comes:\n{}", process.said());
        thread::sleep(Duration::from_millis(50));
    }
    println!(
        "{KILLS} kills, {restored} restarts with something kept, {whole} looked at, serial {last}"
    );
}
