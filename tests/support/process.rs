//! The real binary as a child whose words are kept.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::Message;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ring53::wire::Name;

use super::support::query;

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A started `ring53 serve`, killed when it is dropped.
pub struct Process {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs ring53 to its end.
pub fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ring53")).args(arguments).output().unwrap()
}

impl Process {
    /// Starts `ring53 serve` with `arguments`.
    pub fn start(arguments: &[&str]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ring53"));
        command.arg("serve").args(arguments);
        Process::spawn(&mut command)
    }

    /// Starts `command`.
    pub fn spawn(command: &mut Command) -> Process {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = Arc::new(Mutex::new(String::new()));
        let into = Arc::clone(&said);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                into.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Process { child, said }
    }

    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits until it has said `text` `count` times.
    pub fn wait_for(&self, text: &str, count: usize) -> String {
        let end = Instant::now() + PATIENCE;
        while self.said().matches(text).count() < count {
            assert!(Instant::now() < end, "never said {text:?} {count} times:\n{}", self.said());
            thread::sleep(Duration::from_millis(5));
        }
        self.said()
    }

    /// Waits until it serves; the first address.
    pub fn address(&self) -> SocketAddr {
        let said = self.wait_for(" (UDP and TCP)", 1);
        let line = said.lines().find(|line| line.contains(" (UDP and TCP)")).unwrap();
        let from = line.find(" on ").unwrap() + 4;
        line[from..].split([',', ' ']).next().unwrap().parse().unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Sends SIGHUP and waits for the end of the reload.
    pub fn reload(&self) -> String {
        let over = |said: &str| said.matches("reloaded").count();
        let before = over(&self.said());
        self.signal(Signal::SIGHUP);
        self.wait_for("reloaded", before + 1)
    }

    /// Waits for its end and its last words.
    pub fn end(&mut self) -> ExitStatus {
        let status = self.end_at_once();
        thread::sleep(Duration::from_millis(50));
        status
    }

    /// Waits for its end.
    pub fn end_at_once(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "does not end:\n{}", self.said());
            thread::sleep(Duration::from_millis(1));
        }
    }
}

//----------- Questions ------------------------------------------------------

/// The octets of a question for the A of `name`.
pub fn question(id: u16, name: &str) -> Vec<u8> {
    query(id, name.parse::<Name>().unwrap().as_wire(), 1, None)
}

/// Asks over UDP; the code, and the data of the answers.
pub fn ask(server: SocketAddr, name: &str) -> (u16, Vec<String>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(&question(7, name)).unwrap();
    let mut reply = [0; 4096];
    let len = socket.recv(&mut reply).unwrap_or_else(|error| panic!("{name}: {error}"));
    read(&reply[..len])
}

/// The code and the data of the answers of `reply`.
pub fn read(reply: &[u8]) -> (u16, Vec<String>) {
    let message = Message::from_vec(reply).unwrap();
    let answers = message.answers().iter().map(|record| record.data().to_string()).collect();
    (message.response_code().into(), answers)
}

/// A TCP connection to `server`.
pub fn connect(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// `message` behind its length.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let mut octets = (message.len() as u16).to_be_bytes().to_vec();
    octets.extend(message);
    octets
}

/// The next message of `stream`; `None` at its end.
pub fn receive(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut len = [0; 2];
    stream.read_exact(&mut len).ok()?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut message).unwrap();
    Some(message)
}

/// Asks over an open connection.
pub fn ask_stream(stream: &mut TcpStream, name: &str) -> (u16, Vec<String>) {
    stream.write_all(&framed(&question(7, name))).unwrap();
    read(&receive(stream).expect("a reply"))
}

/// Writes the zone `t.` with one address beside its apex, as `serial`.
pub fn write_zone(file: &Path, serial: u32, address: &str, more: &str) {
    let text = format!(
        "$ORIGIN t.\n$TTL 60\n@ SOA ns h {serial} 2 3 4 5\n@ NS ns\nns A 127.0.0.1\n\
         www A {address}\n{more}"
    );
    // As an operator should: whoever reads sees the old file or the new one.
    let beside = file.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(&beside, file).unwrap();
}
