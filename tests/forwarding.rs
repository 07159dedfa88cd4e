//! Forwarding and the cache as clients see them: the real binary, an upstream that counts what it
//! is asked and can be slow, deaf or gone.

#[path = "support/process.rs"]
mod process;
mod support;

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::Message as Parsed;
use hickory_proto::rr::rdata::opt::EdnsOption;
use nix::sys::signal::Signal;
use ring53::wire::message::{CLASS_IN, Message, Section, Writer, header};
use ring53::wire::{Name, rtype};

use process::{PATIENCE, Process, ask, ask_stream, connect, framed, question, read, receive, run};

//----------- Upstream -------------------------------------------------------

/// Answers every name: `nx...` does not exist, `none...` has no records, `big...` needs TCP.
struct Upstream {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    asked: AtomicUsize,
    over_tcp: AtomicUsize,
    delay_ms: AtomicU64,
    is_deaf: AtomicBool,
    ttl: AtomicU64,
    ends: AtomicBool,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.state.ends.store(true, Ordering::SeqCst);
    }
}

impl Upstream {
    fn start() -> Upstream {
        let (socket, listener) = loop {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            if let Ok(listener) = TcpListener::bind(socket.local_addr().unwrap()) {
                break (socket, listener);
            }
        };
        let address = socket.local_addr().unwrap();
        let state = Arc::new(State::default());
        state.ttl.store(300, Ordering::SeqCst);
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (of_udp, of_tcp) = (Arc::clone(&state), Arc::clone(&state));
        thread::spawn(move || datagrams(&socket, &of_udp));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&of_tcp);
                let mut stream = stream;
                thread::spawn(move || {
                    while let Some(query) = receive(&mut stream) {
                        state.over_tcp.fetch_add(1, Ordering::SeqCst);
                        let reply = framed(&answer(&query, &state, true));
                        if stream.write_all(&reply).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Upstream { address, state }
    }

    fn asked(&self) -> usize {
        self.state.asked.load(Ordering::SeqCst)
    }
}

fn datagrams(socket: &UdpSocket, state: &Arc<State>) {
    let mut octets = [0; 4096];
    while !state.ends.load(Ordering::SeqCst) {
        let Ok((len, from)) = socket.recv_from(&mut octets) else { continue };
        if state.is_deaf.load(Ordering::SeqCst) {
            continue;
        }
        state.asked.fetch_add(1, Ordering::SeqCst);
        let reply = answer(&octets[..len], state, false);
        let delay = Duration::from_millis(state.delay_ms.load(Ordering::SeqCst));
        let (socket, wait) = (socket.try_clone().unwrap(), !delay.is_zero());
        let send = move || {
            thread::sleep(delay);
            let _ = socket.send_to(&reply, from);
        };
        if wait {
            thread::spawn(send);
        } else {
            send();
        }
    }
}

fn answer(query: &[u8], state: &State, over_tcp: bool) -> Vec<u8> {
    let message = Message::new(query).unwrap();
    let asked = message.question().unwrap().unwrap();
    let label = String::from_utf8_lossy(&asked.name[1..=usize::from(asked.name[0])]).to_lowercase();
    let ttl = state.ttl.load(Ordering::SeqCst) as u32;
    let code = if label.starts_with("nx") { 3 } else { 0 };
    let flags = header::QR | header::RD | 0x80 | code;
    let is_big = label.starts_with("big");
    let mut writer =
        Writer::new(message.id(), if is_big && !over_tcp { flags | header::TC } else { flags });
    writer.question(&asked.name, asked.qtype, CLASS_IN);
    if label.starts_with("nx") || label.starts_with("none") || asked.qtype != rtype::A {
        let soa = [&b"\x01a\0\x01b\0"[..], &[0; 16], &30u32.to_be_bytes()].concat();
        writer.record(Section::Authority, b"\0", rtype::SOA, ttl, &soa);
    } else if !is_big || over_tcp {
        let count = if is_big { 200 } else { 1 };
        for last in 0..count {
            let address =
                if label.starts_with("inside") { [10, 0, 0, 1] } else { [192, 0, 2, last] };
            writer.record(Section::Answer, &asked.name, rtype::A, ttl, &address);
        }
    }
    writer.opt(1232, None);
    writer.into_octets()
}

//----------- Server ---------------------------------------------------------

struct Forwarding {
    _server: Process,
    address: SocketAddr,
    directory: tempfile::TempDir,
}

fn forwarding(upstream: &Upstream, more: &str) -> Forwarding {
    let directory = tempfile::tempdir().unwrap();
    let config = write_config(directory.path(), upstream, more);
    let server = Process::start(&["--config", &config]);
    let address = server.address();
    Forwarding { _server: server, address, directory }
}

fn write_config(directory: &Path, upstream: &Upstream, more: &str) -> String {
    let file = directory.join("ring53.toml");
    let text = format!(
        "version = 1\n[server]\nlisten = [\"127.0.0.1:0\"]\ncores = [0]\nstate = \"state\"\n{more}\n\
         [[forward]]\nzone = \".\"\nto = [\"{}\"]\n",
        upstream.address
    );
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().into()
}

fn reply_of(server: SocketAddr, query: &[u8]) -> Parsed {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(query).unwrap();
    let mut octets = [0; 4096];
    let len = socket.recv(&mut octets).unwrap();
    Parsed::from_vec(&octets[..len]).unwrap()
}

/// A question for the A of `name`, with OPT.
fn with_opt(name: &str) -> Vec<u8> {
    let mut writer = Writer::new(9, header::RD);
    writer.question(name.parse::<Name>().unwrap().as_wire(), rtype::A, CLASS_IN);
    writer.opt(1232, None);
    writer.into_octets()
}

fn desired(name: &str) -> Vec<u8> {
    let mut query = question(7, name);
    query[2] |= 1;
    query
}

fn ask_recursively(server: SocketAddr, name: &str) -> (u16, Vec<String>) {
    let reply = reply_of(server, &desired(name));
    read(&reply.to_vec().unwrap())
}

/// Codes of the Extended DNS Errors.
fn edes(reply: &Parsed) -> Vec<u16> {
    let edns = reply.extensions().as_ref().unwrap();
    let code = |option: &EdnsOption| match option {
        EdnsOption::Unknown(15, octets) => Some(u16::from_be_bytes([octets[0], octets[1]])),
        _ => None,
    };
    edns.options().as_ref().iter().filter_map(|(_, option)| code(option)).collect()
}

//----------- Tests ----------------------------------------------------------

#[test]
fn what_was_answered_once_is_not_asked_again() {
    let upstream = Upstream::start();
    let forwarding = forwarding(&upstream, "");
    let address = forwarding.address;
    for (name, expected, count) in [
        ("www.example.", (0, vec!["192.0.2.0".to_string()]), 1),
        ("WWW.Example.", (0, vec!["192.0.2.0".to_string()]), 1),
        ("nx.example.", (3, vec![]), 2),
        ("nx.example.", (3, vec![]), 2),
        ("none.example.", (0, vec![]), 3),
        ("none.example.", (0, vec![]), 3),
    ] {
        assert_eq!(ask_recursively(address, name), expected, "{name}");
        assert_eq!(upstream.asked(), count, "{name}");
    }
    thread::sleep(Duration::from_millis(1100));
    let reply = reply_of(address, &with_opt("www.example."));
    let ttl = reply.answers()[0].ttl();
    assert!((200..300).contains(&ttl), "{ttl}");
    assert!(reply.recursion_available() && !reply.authoritative() && !reply.authentic_data());
    // Without RD nobody finds out what is there.
    assert_eq!(ask(address, "www.example.").0, 5);
    assert_eq!(upstream.asked(), 3);
    let flushed = run(&["cache", "flush", "www.example.", "--config", &config_of(&forwarding)]);
    assert_eq!(flushed.status.code(), Some(0), "{flushed:?}");
    ask_recursively(address, "www.example.");
    assert_eq!(upstream.asked(), 4);
}

fn config_of(forwarding: &Forwarding) -> String {
    forwarding.directory.path().join("ring53.toml").to_str().unwrap().into()
}

#[test]
fn a_thousand_equal_questions_are_one() {
    let upstream = Upstream::start();
    upstream.state.delay_ms.store(300, Ordering::SeqCst);
    let forwarding = forwarding(&upstream, "");
    let sockets: Vec<UdpSocket> =
        (0..50).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    for number in 0..1000usize {
        let mut query = desired("one.example.");
        query[..2].copy_from_slice(&(number as u16).to_be_bytes());
        sockets[number % 50].send_to(&query, forwarding.address).unwrap();
    }
    let mut answers = vec![false; 1000];
    for socket in &sockets {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        for _ in 0..20 {
            let mut octets = [0; 512];
            let len = socket.recv(&mut octets).unwrap();
            assert_eq!(read(&octets[..len]).1, ["192.0.2.0"]);
            answers[usize::from(u16::from_be_bytes([octets[0], octets[1]]))] = true;
        }
    }
    assert!(answers.iter().all(|&answered| answered));
    assert_eq!(upstream.asked(), 1);
}

#[test]
fn who_may_not_ask_is_refused() {
    let upstream = Upstream::start();
    let forwarding = forwarding(&upstream, "[recursion]\nallow = [\"192.0.2.0/24\"]\n");
    let reply = reply_of(forwarding.address, &with_opt("www.example."));
    assert_eq!(u16::from(reply.response_code()), 5);
    assert!(!reply.recursion_available());
    assert_eq!((edes(&reply), upstream.asked()), (vec![20], 0));
}

#[test]
fn zones_here_come_first_and_their_aliases_lead_out() {
    let upstream = Upstream::start();
    let directory = tempfile::tempdir().unwrap();
    fs::write(
        directory.path().join("zone"),
        "$ORIGIN t.\n$TTL 60\n@ SOA ns h 1 2 3 4 5\n@ NS ns\nns A 127.0.0.1\n\
         alias CNAME www.example.\ngone CNAME nx.example.\nsub NS ns.sub\nns.sub A 192.0.2.9\n",
    )
    .unwrap();
    let zone = format!(
        "[[zone]]\nname = \"t.\"\nfile = \"{}\"\n",
        directory.path().join("zone").display()
    );
    let forwarding = forwarding(&upstream, &zone);
    let ask = |name: &str| ask_recursively(forwarding.address, name);
    assert_eq!(ask("ns.t."), (0, vec!["127.0.0.1".into()]));
    assert_eq!((ask("absent.t.").0, upstream.asked()), (3, 0));
    for _ in 0..2 {
        assert_eq!(ask("alias.t."), (0, vec!["www.example.".into(), "192.0.2.0".into()]));
        assert_eq!(ask("gone.t."), (3, vec!["nx.example.".into()]));
    }
    assert_eq!(upstream.asked(), 2);
    // Below a cut the zone has nothing to say, and whoever may ask is not sent away.
    assert_eq!(ask("www.sub.t.").1, ["192.0.2.0"]);
    assert_eq!(ask("localhost.").1, ["127.0.0.1"]);
    assert_eq!((ask("1.0.0.10.in-addr.arpa.").0, upstream.asked()), (3, 3));
}

#[test]
fn an_answer_that_is_too_long_comes_over_tcp() {
    let upstream = Upstream::start();
    let forwarding = forwarding(&upstream, "");
    let reply = reply_of(forwarding.address, &with_opt("big.example."));
    assert!(reply.truncated() && reply.answers().is_empty());
    let mut stream = connect(forwarding.address);
    stream.write_all(&framed(&desired("big.example."))).unwrap();
    let (code, answers) = read(&receive(&mut stream).unwrap());
    assert_eq!((code, answers.len()), (0, 200));
    assert_eq!(upstream.state.over_tcp.load(Ordering::SeqCst), 1);
    stream.write_all(&framed(&desired("www.example."))).unwrap();
    assert_eq!(read(&receive(&mut stream).unwrap()).1, ["192.0.2.0"]);
    assert_eq!(ask_stream(&mut stream, "www.example.").0, 5);
}

#[test]
fn what_is_stale_is_better_than_nothing() {
    let upstream = Upstream::start();
    upstream.state.ttl.store(1, Ordering::SeqCst);
    let forwarding = forwarding(&upstream, "");
    assert_eq!(ask_recursively(forwarding.address, "www.example.").1, ["192.0.2.0"]);
    upstream.state.is_deaf.store(true, Ordering::SeqCst);
    thread::sleep(Duration::from_millis(1500));
    let begun = Instant::now();
    let reply = reply_of(forwarding.address, &with_opt("www.example."));
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!((reply.answers().len(), reply.answers()[0].ttl()), (1, 30));
    assert_eq!(edes(&reply), [3]);
    let reply = reply_of(forwarding.address, &with_opt("other.example."));
    assert_eq!(u16::from(reply.response_code()), 2);
    assert!(!edes(&reply).is_empty());
    upstream.state.is_deaf.store(false, Ordering::SeqCst);
    let back = Instant::now();
    loop {
        let reply = reply_of(forwarding.address, &with_opt("www.example."));
        if edes(&reply).is_empty() && !reply.answers().is_empty() {
            break;
        }
        assert!(back.elapsed() < PATIENCE, "it has never recovered");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn private_addresses_do_not_come_from_outside() {
    let upstream = Upstream::start();
    let forwarding = forwarding(&upstream, "[recursion]\nrebind_allow = [\"home.example.\"]\n");
    let reply = reply_of(forwarding.address, &with_opt("inside.example."));
    assert_eq!((reply.answers().len(), edes(&reply)), (0, vec![15]));
    assert_eq!(ask_recursively(forwarding.address, "inside.home.example.").1, ["10.0.0.1"]);
}

#[test]
fn the_cache_is_there_after_a_restart() {
    let upstream = Upstream::start();
    let directory = tempfile::tempdir().unwrap();
    let config = write_config(directory.path(), &upstream, "[cache]\nsave = \"cache\"\n");
    for round in 0..2 {
        let mut server = Process::start(&["--config", &config]);
        let address = server.address();
        assert_eq!(ask_recursively(address, "www.example.").1, ["192.0.2.0"]);
        assert_eq!(upstream.asked(), 1, "round {round}");
        server.signal(Signal::SIGTERM);
        assert!(server.end().success(), "{}", server.said());
    }
    // Half a file is none.
    let file = directory.path().join("state").join("cache");
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let server = Process::start(&["--config", &config]);
    assert_eq!(ask_recursively(server.address(), "www.example.").1, ["192.0.2.0"]);
    assert_eq!(upstream.asked(), 2);
    server.wait_for("the cache begins empty", 1);
}
