//! TCP as its clients meet it: the real binary, real sockets, raw octets.

#[path = "support/process.rs"]
mod process;
mod support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use process::{
    PATIENCE, Process, ask, ask_stream, connect, framed, question, read, receive, write_zone,
};
use support::query;
use tempfile::TempDir;

const NOERROR: u16 = 0;
const FORMERR: u16 = 1;
/// Texts of `large.t.`: some 60,000 octets in all.
const TEXTS: usize = 230;

/// A server of `t.`, which has an answer of some 60,000 octets, with these limits of TCP.
fn start(tcp: &str) -> (TempDir, Process) {
    let directory = tempfile::tempdir().unwrap();
    let text = "x".repeat(250);
    let large: String = (0..TEXTS).map(|i| format!("large TXT {i:03}{text}\n")).collect();
    write_zone(&directory.path().join("t.zone"), 1, "192.0.2.1", &large);
    let file = directory.path().join("ring53.toml");
    let text = format!(
        "version = 1\n[server]\nlisten = [\"127.0.0.1:0\"]\nnsid = \"n\"\ntcp = {{ {tcp} }}\n\
         [[key]]\nname = \"k.\"\nalgorithm = \"hmac-sha256\"\nsecret = \"MTIzNDU2Nzg5MDEyMzQ1Ng==\"\n\
         [[zone]]\nname = \"t.\"\nfile = \"t.zone\"\nallow_transfer = [\"127.0.0.1\"]\n"
    );
    fs::write(&file, text).unwrap();
    let process = Process::start(&["--config", file.to_str().unwrap()]);
    (directory, process)
}

/// A question for the A of `www.t.` with an OPT record that has `options`.
fn with_options(options: &[u8]) -> Vec<u8> {
    let mut octets = query(9, b"\x03www\x01t\0", 1, None);
    octets[11] = 1;
    octets.extend([0, 0, 41, 4, 208, 0, 0, 0, 0]);
    octets.extend((options.len() as u16).to_be_bytes());
    octets.extend(options);
    octets
}

/// The code of `reply` and the options of its OPT record, its last.
fn options_of(reply: &[u8]) -> (u16, Vec<(u16, Vec<u8>)>) {
    let at = reply.windows(5).rposition(|octets| octets == [0, 0, 41, 4, 208]).expect("OPT");
    let mut rest = &reply[at + 11..];
    let mut options = Vec::new();
    while let [a, b, c, d, after @ ..] = rest {
        let (value, next) = after.split_at(usize::from(u16::from_be_bytes([*c, *d])));
        options.push((u16::from_be_bytes([*a, *b]), value.to_vec()));
        rest = next;
    }
    (u16::from(reply[3] & 0xF), options)
}

fn exchange(stream: &mut TcpStream, query: &[u8]) -> Vec<u8> {
    stream.write_all(&framed(query)).unwrap();
    receive(stream).expect("a reply")
}

/// Reads to the end, which must be an orderly one.
fn is_closed_in_order(stream: &mut TcpStream) -> bool {
    stream.read(&mut [0]).is_ok_and(|len| len == 0)
}

//----------- Keepalive (RFC 7828) -------------------------------------------

const KEEPALIVE: &[u8] = &[0, 11, 0, 0];

#[test]
fn keepalive_is_told_over_tcp_to_who_asks() {
    let (_directory, server) = start("connections = 4, idle = \"8s\"");
    let mut stream = connect(server.address());
    let mut ask = |options: &[u8]| options_of(&exchange(&mut stream, &with_options(options)));
    assert_eq!(ask(&[]), (NOERROR, vec![]), "nobody asked");
    assert_eq!(ask(KEEPALIVE), (NOERROR, vec![(11, vec![0, 80])]));
    let both = [KEEPALIVE, &[0, 3, 0, 0], &[0, 15, 0, 0]].concat();
    assert_eq!(ask(&both), (NOERROR, vec![(3, b"n".to_vec()), (11, vec![0, 80])]));
    for wrong in [&[0, 11, 0, 2, 0, 80][..], &[0, 11, 0, 1, 0], &[0, 11, 0, 0, 0, 11, 0, 2, 0, 1]] {
        assert_eq!(ask(wrong), (FORMERR, vec![]), "{wrong:?}");
    }
    // The fuller the shorter: with three of four places 5/8 of the time, with all none.
    let mut others = [connect(server.address()), connect(server.address())];
    others.iter_mut().for_each(|other| drop(ask_stream(other, "www.t")));
    assert_eq!(ask(KEEPALIVE), (NOERROR, vec![(11, vec![0, 50])]));
    let mut last = connect(server.address());
    assert_eq!(ask_stream(&mut last, "www.t").0, NOERROR);
    assert_eq!(ask(KEEPALIVE), (NOERROR, vec![(11, vec![0, 0])]));
}

#[test]
fn keepalive_is_ignored_over_udp() {
    let (_directory, server) = start("idle = \"8s\"");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    for options in [KEEPALIVE, &[0, 11, 0, 2, 0, 80]] {
        socket.send(&with_options(options)).unwrap();
        let mut reply = [0; 512];
        let len = socket.recv(&mut reply).unwrap();
        assert_eq!(options_of(&reply[..len]), (NOERROR, vec![]), "{options:?}");
    }
}

#[test]
fn dig_and_kdig_read_keepalive() {
    let (_directory, server) = start("idle = \"8s\"");
    let port = server.address().port().to_string();
    let said = |program: &str, arguments: &[&str]| {
        let server = ["@127.0.0.1", "-p", &port];
        let output = Command::new(program).args(server).args(arguments).output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}: run scripts/test"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let key = "hmac-sha256:k.:MTIzNDU2Nzg5MDEyMzQ1Ng==";
    for arguments in [&["+tcp"][..], &["+tcp", "-y", key]] {
        let said = said("dig", &[arguments, &["+keepalive", "www.t", "A"]].concat());
        assert!(said.contains("TCP KEEPALIVE: 8.0 secs"), "{arguments:?}: {said}");
        assert!(said.contains("192.0.2.1"), "{arguments:?}: {said}");
    }
    assert!(!said("dig", &["+keepalive", "www.t", "A"]).contains("TCP KEEPALIVE: "));
    // Two questions on one connection.
    let questions = ["+tcp", "+keepopen", "+ednsopt=11", "www.t", "A", "ns.t", "A"];
    let said = said("kdig", &questions);
    assert_eq!(said.matches("Option (11): 0050").count(), 2, "{said}");
    assert_eq!(said.matches("status: NOERROR").count(), 2, "{said}");
}

//----------- Pipelining -----------------------------------------------------

/// A query for the zone.
fn transfer(id: u16) -> Vec<u8> {
    query(id, b"\x01t\0", 252, None)
}

#[test]
fn whatever_comes_in_between_everything_is_answered() {
    const COUNT: u16 = 3000;
    for threads in [1, 3] {
        let (_directory, server) = start(&format!("threads = {threads}"));
        let octets: Vec<u8> = (0..COUNT)
            .flat_map(|id| match id % 500 {
                // Two in the same batch, and one that is NOTIFY.
                70 | 75 => framed(&transfer(id)),
                80 => {
                    let mut notify = query(id, b"\x01t\0", 6, None);
                    notify[2] = 4 << 3;
                    framed(&notify)
                }
                90 => framed(&query(id, b"\x05large\x01t\0", 16, None)),
                _ if id % 3 == 0 => framed(&question(id, "nowhere.t")),
                _ => framed(&question(id, "www.t")),
            })
            .collect();
        thread::scope(|scope| {
            for piece in [octets.len(), 1009] {
                let (mut stream, octets) = (connect(server.address()), &octets);
                let mut writer = stream.try_clone().unwrap();
                scope
                    .spawn(move || octets.chunks(piece).for_each(|p| writer.write_all(p).unwrap()));
                scope.spawn(move || {
                    for id in 0..COUNT {
                        let reply = receive(&mut stream).expect("a reply");
                        assert_eq!(reply[..2], id.to_be_bytes(), "{piece}");
                        let answers = usize::from(u16::from_be_bytes([reply[6], reply[7]]));
                        match id % 500 {
                            70 | 75 => assert!(receive_zone(&mut stream, id, answers)),
                            80 => assert_eq!(reply[2] >> 3 & 0xF, 4),
                            90 => assert_eq!(answers, TEXTS),
                            _ => assert_eq!(answers, usize::from(id % 3 != 0)),
                        }
                    }
                });
            }
        });
    }
}

/// Receives the rest of a transfer that has begun with `records`; all have 5 more than the texts.
fn receive_zone(stream: &mut TcpStream, id: u16, mut records: usize) -> bool {
    while records < TEXTS + 5 {
        let message = receive(stream).expect("the rest of the zone");
        assert_eq!(message[..2], id.to_be_bytes());
        records += usize::from(u16::from_be_bytes([message[6], message[7]]));
    }
    records == TEXTS + 5
}

//----------- Slow and silent peers ------------------------------------------

/// Resident memory of the server in KiB.
fn memory(server: &Process) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The most octets that wait in one of the server's sockets to be sent.
fn queued_in_kernel(port: u16) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!(":{port:04X}");
    let queued = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_ours = fields.get(1)?.ends_with(&local) && *fields.get(3)? == "01";
        is_ours.then(|| usize::from_str_radix(fields[4].split(':').next()?, 16).ok())?
    });
    queued.max().unwrap_or(0)
}

#[test]
fn who_does_not_read_costs_little_and_stops_nobody() {
    const SILENT: usize = 50;
    let (_directory, mut server) = start("write = \"3s\"");
    let address = server.address();
    ask_stream(&mut connect(address), "www.t");
    // One batch of large answers touches the memory that all are made in.
    let mut reader = connect(address);
    let large = framed(&query(1, b"\x05large\x01t\0", 16, None));
    reader.write_all(&large.repeat(200)).unwrap();
    (0..200).for_each(|_| assert!(receive(&mut reader).is_some()));
    let before = memory(&server);
    // Each asks for 12 MB.
    let silent: Vec<TcpStream> = (0..SILENT)
        .map(|_| {
            let mut stream = connect(address);
            stream.write_all(&large.repeat(200)).unwrap();
            stream
        })
        .collect();
    let mut fast = connect(address);
    for _ in 0..100 {
        assert_eq!(ask_stream(&mut fast, "www.t").0, NOERROR);
        assert_eq!(ask(address, "www.t").0, NOERROR);
        assert_eq!(ask_stream(&mut connect(address), "www.t").0, NOERROR);
    }
    let grown = memory(&server).saturating_sub(before);
    assert!(grown < SILENT * 256, "{grown} KiB for {SILENT} peers that do not read");
    let in_kernel = queued_in_kernel(address.port());
    assert!(in_kernel < 1 << 19, "{in_kernel} octets in a socket");
    // In time they are closed.
    let end = Instant::now() + PATIENCE;
    while !server.said().contains(&format!("tcp.slow_closed={SILENT}")) {
        assert!(Instant::now() < end, "{}", server.said());
        server.signal(Signal::SIGUSR1);
        thread::sleep(Duration::from_millis(300));
    }
    drop(silent);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.end().code(), Some(0), "{}", server.said());
}

#[test]
fn who_reads_slowly_gets_everything() {
    let (_directory, server) = start("queued = \"1KiB\"");
    let address = server.address();
    let mut stream = connect(address);
    let octets: Vec<u8> = (0..400u16)
        .flat_map(|id| match id % 4 {
            0 => framed(&query(id, b"\x05large\x01t\0", 16, None)),
            _ => framed(&question(id, "www.t")),
        })
        .collect();
    stream.write_all(&octets).unwrap();
    for id in 0..400u16 {
        if id % 20 == 0 {
            thread::sleep(Duration::from_millis(20));
        }
        let reply = receive(&mut stream).expect("a reply");
        assert_eq!(reply[..2], id.to_be_bytes());
        let answers = usize::from(u16::from_be_bytes([reply[6], reply[7]]));
        assert_eq!(answers, if id % 4 == 0 { TEXTS } else { 1 });
    }
}

#[test]
fn a_query_octet_by_octet_has_its_time_once() {
    let (_directory, server) = start("read = \"1s\", idle = \"60s\"");
    let mut stream = connect(server.address());
    ask_stream(&mut stream, "www.t");
    let message = framed(&with_options(&[0; 1000]));
    let began = Instant::now();
    let sent = message.iter().take_while(|octet| {
        thread::sleep(Duration::from_millis(50));
        stream.write_all(&[**octet]).is_ok()
    });
    assert!(sent.count() < message.len(), "50 seconds were enough");
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
}

//----------- Places ---------------------------------------------------------

#[test]
fn a_new_connection_takes_the_place_of_a_slow_one_if_none_is_idle() {
    for threads in [1, 2] {
        let tcp = format!("connections = 2, read = \"60s\", idle = \"60s\", threads = {threads}");
        let (_directory, mut server) = start(&tcp);
        let address = server.address();
        let [mut first, mut second] = [(); 2].map(|()| {
            let mut stream = connect(address);
            ask_stream(&mut stream, "www.t");
            stream.write_all(&framed(&question(1, "www.t"))[..9]).unwrap();
            thread::sleep(Duration::from_millis(100));
            stream
        });
        let mut third = connect(address);
        assert_eq!(ask_stream(&mut third, "www.t").0, NOERROR);
        assert_eq!(receive(&mut first), None, "began before the second");
        let rest = &framed(&question(1, "www.t"))[9..];
        second.write_all(rest).unwrap();
        assert_eq!(read(&receive(&mut second).unwrap()).0, NOERROR);
        server.signal(Signal::SIGTERM);
        assert_eq!(server.end().code(), Some(0));
        assert!(server.said().contains("tcp.replaced_slow=1"), "{}", server.said());
    }
}

#[test]
fn idle_times_get_shorter_for_those_who_wait_already() {
    let (_directory, server) = start("connections = 4, idle = \"12s\"");
    let address = server.address();
    let mut idle = connect(address);
    ask_stream(&mut idle, "www.t");
    let mut others: Vec<TcpStream> = (0..3).map(|_| connect(address)).collect();
    let began = Instant::now();
    idle.set_nonblocking(true).unwrap();
    // A quarter of the time is left when all places are taken.
    while idle.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
        assert!(began.elapsed() < Duration::from_secs(11), "as if there were room");
        others.iter_mut().for_each(|other| drop(ask_stream(other, "www.t")));
        thread::sleep(Duration::from_millis(20));
    }
    assert!(began.elapsed() > Duration::from_secs(2), "{:?}", began.elapsed());
}

#[test]
fn the_last_query_of_a_connection_is_answered_before_it_is_closed() {
    let (_directory, server) = start("queries_per_connection = 100");
    let mut stream = connect(server.address());
    let octets: Vec<u8> = (0..3000u16).flat_map(|id| framed(&question(id, "www.t"))).collect();
    // More than is received at once: what nobody reads must not reset the connection.
    stream.write_all(&octets).unwrap();
    thread::sleep(Duration::from_millis(200));
    for id in 0..100u16 {
        assert_eq!(receive(&mut stream).expect("a reply")[..2], id.to_be_bytes());
    }
    assert!(is_closed_in_order(&mut stream));
}

//----------- The end --------------------------------------------------------

#[test]
fn what_was_received_is_answered_before_the_end() {
    const WAITING: u16 = 3000;
    let (_directory, mut server) = start("");
    let address: SocketAddr = server.address();
    let mut known = connect(address);
    ask_stream(&mut known, "www.t");
    let mut idle = connect(address);
    ask_stream(&mut idle, "www.t");
    // Stopped, it receives nothing: all of this waits when SIGTERM comes, one connection too.
    server.signal(Signal::SIGSTOP);
    let mut new = connect(address);
    let octets: Vec<u8> = (0..WAITING).flat_map(|id| framed(&question(id, "www.t"))).collect();
    known.write_all(&octets).unwrap();
    new.write_all(&octets).unwrap();
    server.signal(Signal::SIGTERM);
    server.signal(Signal::SIGCONT);
    for stream in [&mut known, &mut new] {
        for id in 0..WAITING {
            assert_eq!(receive(stream).expect("a reply")[..2], id.to_be_bytes());
        }
        assert!(is_closed_in_order(stream));
    }
    assert!(is_closed_in_order(&mut idle));
    assert_eq!(server.end().code(), Some(0), "{}", server.said());
}

#[test]
fn who_never_pauses_is_told_and_closed_in_order() {
    let (_directory, mut server) = start("");
    let mut stream = connect(server.address());
    let mut window: Vec<u8> = Vec::new();
    (0..2000u16).for_each(|id| window.extend(framed(&with_id(id))));
    stream.write_all(&window).unwrap();
    let (mut next, mut last) = (0u16, Vec::new());
    let end = loop {
        if next == 5000 {
            server.signal(Signal::SIGTERM);
        }
        let mut prefix = [0; 2];
        match stream.read(&mut prefix) {
            Ok(0) => break Ok(()),
            Ok(read) => stream.read_exact(&mut prefix[read..]).unwrap(),
            Err(error) => break Err(error),
        }
        last = vec![0; usize::from(u16::from_be_bytes(prefix))];
        stream.read_exact(&mut last).unwrap();
        assert_eq!(last[..2], next.to_be_bytes());
        next = next.wrapping_add(1);
        stream.write_all(&framed(&with_id(next.wrapping_add(1999)))).unwrap();
    };
    assert!(end.is_ok(), "{end:?}");
    assert_eq!(options_of(&last), (NOERROR, vec![(11, vec![0, 0])]), "the last was told to go");
    drop(stream);
    assert_eq!(server.end().code(), Some(0), "{}", server.said());
}

/// A question that asks for the idle time.
fn with_id(id: u16) -> Vec<u8> {
    let mut octets = with_options(KEEPALIVE);
    octets[..2].copy_from_slice(&id.to_be_bytes());
    octets
}
