//! Servers on loopback, ended when they are dropped.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A process that ends with the test.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Asked first: a server ends its children then.
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        for _ in 0..100 {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program that scripts/test installs.
pub fn start(command: &mut Command) -> Process {
    let name = command.get_program().to_string_lossy().into_owned();
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let child = command.env("PATH", path).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Process(child.unwrap_or_else(|error| panic!("{name}: {error}: run scripts/test")))
}

/// A port that was free a moment ago, for UDP and TCP.
pub fn free_port() -> u16 {
    ring53_bench::ports::free_port(Ipv4Addr::LOCALHOST.into()).unwrap().port()
}

/// Waits until the server at `address` answers `probe`.
pub fn wait_for(address: SocketAddr, probe: &[u8]) -> UdpSocket {
    let end = Instant::now() + PATIENCE;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    while Instant::now() < end {
        let mut reply = [0; 4096];
        if socket.send(probe).is_ok()
            && socket.recv(&mut reply).is_ok_and(|len| len > 12 && reply[3] & 0xF == 0)
        {
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            return socket;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{address} does not answer");
}

/// NSD with one zone, of which `more` is said.
pub fn nsd(directory: &Path, zone: &str, file: &Path, port: u16, more: &str) -> Process {
    let work = directory.display();
    let config = format!(
        "server:\n server-count: 1\n ip-address: 127.0.0.1@{port}\n username: \"\"\n \
         zonesdir: \"{work}\"\n database: \"\"\n pidfile: \"{work}/nsd.pid\"\n \
         xfrdfile: \"{work}/xfrd.state\"\n zonelistfile: \"{work}/zone.list\"\n \
         rrl-ratelimit: 0\nremote-control:\n control-enable: no\n\
         zone:\n name: \"{zone}\"\n zonefile: \"{}\"\n{more}",
        file.display()
    );
    let path = directory.join("nsd.conf");
    fs::write(&path, config).unwrap();
    start(Command::new("nsd").arg("-d").arg("-c").arg(&path))
}

/// Knot with one zone; with `tap` it writes what it is asked and answers there.
pub fn knot(directory: &Path, zone: &str, file: &Path, port: u16, tap: Option<&Path>) -> Process {
    let work = directory.display();
    let module = tap.map_or(String::new(), |path| {
        format!("mod-dnstap:\n  - id: tap\n    sink: \"{}\"\n", path.display())
    });
    let tapped = if tap.is_some() { "    global-module: mod-dnstap/tap\n" } else { "" };
    let config = format!(
        "server:\n  rundir: \"{work}\"\n  listen: 127.0.0.1@{port}\n  udp-workers: 1\n  \
         tcp-workers: 1\n  background-workers: 1\ndatabase:\n  storage: \"{work}\"\n{module}\
         template:\n  - id: default\n{tapped}    zonefile-sync: -1\n    zonefile-load: whole\n    \
         journal-content: none\nzone:\n  - domain: \"{zone}\"\n    file: \"{}\"\n",
        file.display()
    );
    let path = directory.join("knot.conf");
    fs::write(&path, config).unwrap();
    start(Command::new("knotd").arg("-c").arg(&path))
}
