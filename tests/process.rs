//! The real binary: started, asked, reloaded, stopped, and refused for every classic reason.

#[path = "support/process.rs"]
mod process;
mod support;

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use process::{
    PATIENCE, Process, ask, ask_stream, connect, framed, question, read, receive, run, write_zone,
};
use socket2::{Domain, Socket, Type};
use support::query;
use tempfile::TempDir;

const ANYWHERE: &str = "127.0.0.1:0";
const NOERROR: u16 = 0;
const SERVFAIL: u16 = 2;
const REFUSED: u16 = 5;

/// A directory with the zone `t.` in it, and the argument that names it.
fn zone_directory() -> (TempDir, PathBuf, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("t.zone");
    write_zone(&file, 1, "192.0.2.1", "");
    let argument = format!("t={}", file.display());
    (directory, file, argument)
}

/// A configuration that listens anywhere and serves `t.`.
fn write_config(directory: &Path, server: &str) -> PathBuf {
    let file = directory.join("ring53.toml");
    let text = format!(
        "version = 1\n[server]\nlisten = [\"{ANYWHERE}\"]\n{server}\n\
         [[zone]]\nname = \"t.\"\nfile = \"t.zone\"\n"
    );
    fs::write(&file, text).unwrap();
    file
}

fn addresses(addresses: &[&str]) -> Vec<String> {
    addresses.iter().map(|address| address.to_string()).collect()
}

//----------- Answers --------------------------------------------------------

#[test]
fn the_sample_answers_on_both_paths_and_over_tcp() {
    for path in ["mmsg", "uring"] {
        if path == "uring" && ring53::net::uring_available().is_err() {
            eprintln!("skipped: io_uring is not available here");
            continue;
        }
        let server = Process::start(&["--listen", ANYWHERE, "--path", path]);
        let address = server.address();
        assert_eq!(ask(address, "www.example"), (NOERROR, addresses(&["192.0.2.80"])), "{path}");
        let mut stream = connect(address);
        assert_eq!(
            ask_stream(&mut stream, "x.wild.example"),
            (NOERROR, addresses(&["192.0.2.99"]))
        );
        assert_eq!(ask(address, "www.elsewhere").0, REFUSED, "{path}");
        assert!(server.said().contains("dig @127.0.0.1"), "{}", server.said());
    }
}

#[test]
fn dig_is_content() {
    let server = Process::start(&["--listen", ANYWHERE]);
    let port = server.address().port().to_string();
    for over in ["+notcp", "+tcp"] {
        let arguments = ["@127.0.0.1", "-p", &port, over, "+short", "alias.example", "A"];
        let output = Command::new("dig").args(arguments).output().expect("dig: run scripts/test");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said.lines().collect::<Vec<_>>(), ["www.example.", "192.0.2.80"], "{over}");
    }
}

#[test]
fn a_first_load_that_fails_is_servfail_while_others_serve() {
    let (directory, file, good) = zone_directory();
    let broken = directory.path().join("broken.zone");
    fs::write(&broken, "@ SOA ns h 1 2 3 4\n").unwrap();
    let broken_zone = format!("broken={}", broken.display());
    let arguments = ["--listen", ANYWHERE, "--zone", &good, "--zone", &broken_zone];
    let server = Process::start(&arguments);
    let address = server.address();
    assert_eq!(ask(address, "www.t"), (NOERROR, addresses(&["192.0.2.1"])));
    assert_eq!(ask(address, "www.broken").0, SERVFAIL);
    assert!(server.said().contains("broken.zone:1"), "{}", server.said());
    assert!(server.said().contains("serving 1 of 2 zones"), "{}", server.said());
    fs::write(&broken, "$ORIGIN broken.\n$TTL 1\n@ SOA ns h 1 2 3 4 5\n@ NS ns\nns A 192.0.2.9\n")
        .unwrap();
    server.reload();
    assert_eq!(ask(address, "ns.broken"), (NOERROR, addresses(&["192.0.2.9"])));
    drop(server);
    fs::remove_file(&file).unwrap();
    fs::remove_file(&broken).unwrap();
    let server = Process::start(&arguments);
    assert_eq!(ask(server.address(), "www.t").0, SERVFAIL);
    assert!(server.said().contains("NO ZONE COULD BE LOADED"), "{}", server.said());
}

//----------- Reloading ------------------------------------------------------

#[test]
fn a_reload_takes_what_is_good_and_keeps_what_was() {
    let (_directory, file, zone) = zone_directory();
    let server = Process::start(&["--listen", ANYWHERE, "--zone", &zone]);
    let address = server.address();
    let answers = |expected: &str| {
        assert_eq!(ask(address, "www.t"), (NOERROR, addresses(&[expected])), "{}", server.said());
    };
    answers("192.0.2.1");
    write_zone(&file, 2, "192.0.2.2", "");
    server.reload();
    answers("192.0.2.2");
    write_zone(&file, 3, "192.0.2.3", "www A nonsense\n");
    let said = server.reload();
    answers("192.0.2.2");
    assert!(said.contains("serial 2 goes on serving"), "{said}");
    assert!(said.contains("nonsense"), "says why: {said}");
    fs::remove_file(&file).unwrap();
    server.reload();
    answers("192.0.2.2");
    write_zone(&file, 4, "192.0.2.4", "");
    server.reload();
    answers("192.0.2.4");
    let loads = server.said().matches("loaded in").count();
    server.reload();
    assert_eq!(server.said().matches("loaded in").count(), loads, "nothing had changed");
}

#[test]
fn a_changed_include_is_a_changed_zone() {
    let (directory, file, zone) = zone_directory();
    let included = directory.path().join("more.inc");
    fs::write(&included, "more A 192.0.2.5\n").unwrap();
    write_zone(&file, 1, "192.0.2.1", "$INCLUDE more.inc\n");
    let server = Process::start(&["--listen", ANYWHERE, "--zone", &zone]);
    let address = server.address();
    assert_eq!(ask(address, "more.t"), (NOERROR, addresses(&["192.0.2.5"])));
    fs::write(&included, "more A 192.0.2.6\n").unwrap();
    server.reload();
    assert_eq!(ask(address, "more.t"), (NOERROR, addresses(&["192.0.2.6"])));
}

#[test]
fn a_bad_configuration_changes_nothing_and_a_good_one_says_what_must_wait() {
    let (directory, file, _) = zone_directory();
    let config = write_config(directory.path(), "id = \"one\"");
    let server = Process::start(&["--config", config.to_str().unwrap()]);
    let address = server.address();
    write_zone(&file, 2, "192.0.2.2", "");
    write_config(directory.path(), "idd = \"two\"");
    let said = server.reload();
    assert!(said.contains("ring53.toml:4:1: unknown key \"idd\""), "{said}");
    assert!(said.contains("the running configuration stays"), "{said}");
    assert_eq!(ask(address, "www.t"), (NOERROR, addresses(&["192.0.2.1"])), "all of it stays");
    write_config(directory.path(), "path = \"mmsg\"\nreceive_buffer = \"64KiB\"");
    for times in 1..=2 {
        let said = server.reload();
        let waits = "path, receive_buffer: changed in the configuration; restart to use it";
        assert_eq!(said.matches(waits).count(), times, "{said}");
    }
    assert_eq!(ask(address, "www.t"), (NOERROR, addresses(&["192.0.2.2"])));
}

#[test]
fn reloads_lose_no_query() {
    let (_directory, file, zone) = zone_directory();
    let more: String = (0..20_000).map(|i| format!("n{i} A 192.0.2.7\n")).collect();
    let server = Process::start(&["--listen", ANYWHERE, "--zone", &zone]);
    let address = server.address();
    let (stop, mut asked) = (AtomicBool::new(false), 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for serial in 2..8 {
                write_zone(&file, serial, "192.0.2.1", &more);
                server.reload();
            }
            stop.store(true, Ordering::Relaxed);
        });
        while !stop.load(Ordering::Relaxed) {
            assert_eq!(ask(address, "www.t"), (NOERROR, addresses(&["192.0.2.1"])));
            asked += 1;
        }
    });
    assert!(asked > 20, "asked only {asked}");
    assert!(server.said().contains("generation 7 serves 1 of 1"), "{}", server.said());
}

//----------- Signals --------------------------------------------------------

#[test]
fn counters_on_usr1_and_at_the_end_and_exit_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut server = Process::start(&["--listen", ANYWHERE]);
        let address = server.address();
        ask(address, "www.example");
        ask(address, "www.elsewhere");
        ask_stream(&mut connect(address), "nowhere.example");
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"short", address).unwrap();
        thread::sleep(Duration::from_millis(300));
        server.signal(Signal::SIGUSR1);
        let said = server.wait_for("counters total", 1);
        let counts = ["reply.noerror=1 ", "reply.refused=1 ", "reply.nxdomain=1 ", "path.sent=2"];
        for count in counts.iter().chain(&["drop.too_short=1 ", "tcp.accepted=1", "tcp.queries=1"])
        {
            assert!(said.contains(count), "{count}: {said}");
        }
        server.signal(signal);
        assert_eq!(server.end().code(), Some(0), "{}", server.said());
        assert_eq!(server.said().matches("counters total").count(), 2, "{}", server.said());
    }
}

#[test]
fn what_was_received_is_answered_before_the_end() {
    let mut server = Process::start(&["--listen", ANYWHERE]);
    let address = server.address();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    // Stopped, it receives nothing: all of these wait in its socket when SIGTERM comes.
    server.signal(Signal::SIGSTOP);
    const WAITING: u16 = 150;
    for id in 0..WAITING {
        socket.send(&question(id, "www.example")).unwrap();
    }
    server.signal(Signal::SIGTERM);
    server.signal(Signal::SIGCONT);
    let mut reply = [0; 4096];
    let answered = (0..WAITING).take_while(|_| socket.recv(&mut reply).is_ok()).count();
    assert_eq!(answered, usize::from(WAITING));
    assert_eq!(server.end().code(), Some(0), "{}", server.said());
}

#[test]
fn signals_while_zones_load() {
    let (_directory, file, zone) = zone_directory();
    let more: String = (0..300_000).map(|i| format!("n{i} A 192.0.2.7\n")).collect();
    write_zone(&file, 1, "192.0.2.1", &more);
    for (signal, ends) in [(Signal::SIGHUP, false), (Signal::SIGTERM, true)] {
        let mut server = Process::start(&["--listen", ANYWHERE, "--zone", &zone]);
        // Once the signals' thread is there they are caught; the zone takes far longer.
        let threads = format!("/proc/{}/task", server.pid());
        let end = Instant::now() + PATIENCE;
        while fs::read_dir(&threads).unwrap().count() < 2 {
            assert!(Instant::now() < end);
        }
        assert!(!server.said().contains("loaded in"), "too late to test: {}", server.said());
        server.signal(signal);
        if ends {
            assert_eq!(server.end().code(), Some(0));
            assert!(!server.said().contains("serving"), "{}", server.said());
        } else {
            assert_eq!(ask(server.address(), "n299999.t").1, ["192.0.2.7"]);
            server.wait_for("reloaded", 1);
        }
    }
}

#[test]
fn a_log_that_nobody_reads_ends_nothing() {
    let port = support::free_port();
    let address = format!("127.0.0.1:{port}");
    let mut child = Command::new(env!("CARGO_BIN_EXE_ring53"))
        .args(["serve", "--listen", &address])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    let address: SocketAddr = address.parse().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let answers = || {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            socket.send_to(&question(1, "www.example"), address).unwrap();
            if socket.recv(&mut [0; 512]).is_ok() {
                return true;
            }
        }
        false
    };
    assert!(answers(), "does not start without a reader of its log");
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, Signal::SIGUSR1).unwrap();
    nix::sys::signal::kill(pid, Signal::SIGHUP).unwrap();
    thread::sleep(Duration::from_millis(300));
    while socket.recv(&mut [0; 512]).is_ok() {}
    assert!(answers(), "ended by its own words: {:?}", child.try_wait());
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn readiness_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ring53"));
    command.args(["serve", "--listen", ANYWHERE]).env("NOTIFY_SOCKET", &path);
    let mut server = Process::spawn(&mut command);
    let told = || {
        let mut words = [0; 256];
        let len = socket.recv(&mut words).expect("a notification");
        String::from_utf8_lossy(&words[..len]).trim().to_string()
    };
    assert_eq!(told(), "READY=1");
    assert_eq!(ask(server.address(), "www.example").0, NOERROR, "ready means ready");
    server.signal(Signal::SIGTERM);
    assert_eq!(told(), "STOPPING=1");
    assert_eq!(server.end().code(), Some(0));
    // A signal that follows readiness at once used to end the process where it stood.
    for _ in 0..20 {
        let mut server = Process::spawn(&mut command);
        assert_eq!(told(), "READY=1");
        server.signal(Signal::SIGTERM);
        assert_eq!(told(), "STOPPING=1");
        assert_eq!(server.end().code(), Some(0));
    }
}

#[test]
fn sockets_that_are_handed_over_are_taken() {
    let udp = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    udp.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = udp.local_addr().unwrap().as_socket().unwrap();
    let tcp = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    tcp.bind(&address.into()).unwrap();
    tcp.listen(16).unwrap();
    let [first, second] = [&udp, &tcp].map(|socket| {
        socket.set_cloexec(false).unwrap();
        socket.as_raw_fd()
    });
    let start = |listen: &str| {
        let script = format!(
            "exec 20<&{first} 21<&{second}; exec 3<&20 4<&21; \
             export LISTEN_PID=$$ LISTEN_FDS=2; exec {} serve --listen {listen}",
            env!("CARGO_BIN_EXE_ring53")
        );
        Process::spawn(Command::new("bash").args(["-c", &script]))
    };
    // Nobody could bind the port now: it is taken.
    let mut server = start(&address.to_string());
    assert_eq!(server.address(), address);
    assert_eq!(ask(address, "www.example").0, NOERROR);
    assert_eq!(ask_stream(&mut connect(address), "www.example").0, NOERROR);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.end().code(), Some(0));
    let mut other = start("127.0.0.1:0");
    assert_eq!(other.end().code(), Some(1));
    assert!(other.said().contains("was handed over, but is not listened on"), "{}", other.said());
}

//----------- TCP ------------------------------------------------------------

#[test]
fn tcp_answers_in_order_however_it_is_cut() {
    let server = Process::start(&["--listen", ANYWHERE]);
    let mut stream = connect(server.address());
    let names = ["www.example", "ns2.example", "nowhere.example", "mail.example"];
    let octets: Vec<u8> =
        (0..200).flat_map(|id| framed(&question(id, names[usize::from(id) % 4]))).collect();
    for piece in [octets.len(), 7, 1] {
        let mut writer = stream.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| octets.chunks(piece).for_each(|part| writer.write_all(part).unwrap()));
            for id in 0..200u16 {
                let reply = receive(&mut stream).expect("a reply");
                assert_eq!(reply[..2], id.to_be_bytes(), "pieces of {piece}");
                let nowhere = names[usize::from(id) % 4].starts_with("nowhere");
                assert_eq!(read(&reply).1.is_empty(), nowhere);
            }
        });
    }
}

#[test]
fn tcp_gives_what_udp_had_to_cut() {
    let (_directory, file, zone) = zone_directory();
    let more: String = (0..200).map(|i| format!("many A 192.0.2.{i}\n")).collect();
    write_zone(&file, 1, "192.0.2.1", &more);
    let server = Process::start(&["--listen", ANYWHERE, "--zone", &zone]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(&query(1, b"\x04many\x01t\0", 1, Some((4096, false)))).unwrap();
    let mut reply = [0; 4096];
    let len = socket.recv(&mut reply).unwrap();
    assert!(len <= 1232 && reply[2] & 2 != 0, "TC within 1232 octets, not {len}");
    let (code, answers) = ask_stream(&mut connect(server.address()), "many.t");
    assert_eq!((code, answers.len()), (NOERROR, 200));
}

#[test]
fn tcp_is_bounded() {
    let (directory, ..) = zone_directory();
    let config = write_config(
        directory.path(),
        "tcp = { connections = 2, idle = \"2400ms\", queries_per_connection = 9 }",
    );
    let mut server = Process::start(&["--config", config.to_str().unwrap()]);
    let address = server.address();
    let mut first = connect(address);
    ask_stream(&mut first, "www.t");
    let mut second = connect(address);
    ask_stream(&mut second, "www.t");
    ask_stream(&mut first, "www.t");
    // A third takes the place of the one that has been idle longest: the second.
    let mut third = connect(address);
    assert_eq!(ask_stream(&mut third, "www.t").0, NOERROR);
    assert_eq!(receive(&mut second), None);
    assert_eq!(ask_stream(&mut first, "www.t").0, NOERROR);
    let started = Instant::now();
    assert_eq!(receive(&mut first), None, "closed when it is idle");
    assert!(started.elapsed() > Duration::from_millis(400), "{:?}", started.elapsed());
    // What gets no answer over UDP ends a connection: a response, and less than a header.
    for message in [&[0u8, 1, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], b"x", b""] {
        let mut stream = connect(address);
        stream.write_all(&framed(message)).unwrap();
        assert_eq!(receive(&mut stream), None, "{message:?}");
    }
    server.signal(Signal::SIGTERM);
    assert_eq!(server.end().code(), Some(0));
    assert!(server.said().contains("tcp.replaced_idle=1"), "{}", server.said());
}

#[test]
fn idle_and_slow_connections_stop_nobody() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    const IDLE: usize = 10_000;
    const SLOW: usize = 500;
    let hard = getrlimit(Resource::RLIMIT_NOFILE).unwrap().1;
    let room = usize::try_from(hard).unwrap_or(usize::MAX).saturating_sub(SLOW + 300);
    assert!(room >= IDLE / 10, "{hard} descriptors are too few for this test: ulimit -n");
    let idle_count = IDLE.min(room);
    println!("{idle_count} idle, {SLOW} slow");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let (directory, ..) = zone_directory();
    let tcp = "tcp = { connections = 20000, connections_per_client = 20000, idle = \"60s\" }";
    let config = write_config(directory.path(), tcp);
    let server = Process::start(&["--config", config.to_str().unwrap()]);
    let address = server.address();
    // From an address of their own: so many ports of the usual one would be missed by others.
    let connect_from_afar = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let idle: Vec<_> = (0..idle_count).map(|_| connect_from_afar()).collect();
    // Half a query each, and then nothing more.
    let slow: Vec<_> = (0..SLOW)
        .map(|_| {
            let mut stream = connect_from_afar();
            stream.write_all(&framed(&question(1, "www.t"))[..9]).unwrap();
            stream
        })
        .collect();
    for _ in 0..200 {
        assert_eq!(ask(address, "www.t").0, NOERROR, "UDP");
    }
    for _ in 0..20 {
        assert_eq!(ask_stream(&mut connect(address), "www.t").0, NOERROR, "a new connection");
    }
    let mut last = idle.into_iter().next_back().unwrap();
    assert_eq!(ask_stream(&mut last, "www.t").0, NOERROR, "one that was idle");
    drop(slow);
}

//----------- Refusals -------------------------------------------------------

/// Starts with `arguments`, which must fail, and say each of `words`.
fn refused(arguments: &[&str], words: &[&str]) {
    let mut server = Process::start(arguments);
    assert_eq!(server.end().code(), Some(1), "{arguments:?}: {}", server.said());
    for word in words {
        assert!(server.said().contains(word), "{arguments:?}: no {word:?} in {}", server.said());
    }
}

#[test]
fn the_port_is_free_the_moment_the_server_has_ended() {
    // The kernel used to close the sockets of the ring up to 60 ms after the end, and a restart
    // found the port taken.
    for path in ["uring", "mmsg"] {
        for _ in 0..5 {
            let mut server = Process::start(&["--listen", ANYWHERE, "--path", path]);
            let address = server.address();
            server.signal(Signal::SIGTERM);
            assert!(server.end_at_once().success());
            UdpSocket::bind(address).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
    }
}

#[test]
fn a_port_that_is_taken_names_who_has_it() {
    let own = std::process::id().to_string();
    let udp = UdpSocket::bind(ANYWHERE).unwrap();
    let address = udp.local_addr().unwrap().to_string();
    refused(&["--listen", &address], &[&address, "bind UDP", &own, "holds the port"]);
    let tcp = TcpListener::bind(ANYWHERE).unwrap();
    let address = tcp.local_addr().unwrap().to_string();
    refused(&["--listen", &address], &[&address, "bind TCP", &own, "holds the port"]);
    for path in ["mmsg", "auto"] {
        let first = Process::start(&["--listen", ANYWHERE, "--path", path]);
        let (address, pid) = (first.address().to_string(), first.pid().to_string());
        refused(&["--listen", &address], &["another ring53", &pid, "SIGHUP"]);
        assert_eq!(ask(first.address(), "www.example").0, NOERROR, "the first goes on");
    }
}

#[test]
fn an_address_a_core_a_user_that_are_not_there() {
    refused(&["--listen", "192.0.2.1:5300"], &["192.0.2.1:5300", "it has", "127.0.0.1"]);
    refused(&["--listen", ANYWHERE, "--cores", "250"], &["core 250", "it may use"]);
    refused(&["--listen", ANYWHERE, "--cores", "0,0"], &["core 0 is named twice"]);
    let nobody = ["--listen", ANYWHERE, "--user", "no-such-user"];
    refused(&nobody, &["no-such-user does not exist"]);
    let (_directory, _, zone) = zone_directory();
    let twice = ["--listen", ANYWHERE, "--zone", &zone, "--zone", &zone];
    refused(&twice, &["t. is named twice"]);
}

#[test]
fn a_privileged_port_names_the_ways_to_it() {
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if !nix::unistd::geteuid().is_root() || first.trim().parse::<u16>().unwrap() < 900 {
        eprintln!("skipped: needs root to become nobody, and ports that need a privilege");
        return;
    }
    // A place that nobody may read: the build's own may be below a private home.
    let directory = tempfile::Builder::new().permissions(open_to_all()).tempdir().unwrap();
    let binary = directory.path().join("ring53");
    fs::copy(env!("CARGO_BIN_EXE_ring53"), &binary).unwrap();
    let mut command = Command::new(&binary);
    command.args(["serve", "--listen", "127.0.0.1:853"]).uid(65534).gid(65534);
    let mut server = Process::spawn(&mut command);
    assert_eq!(server.end().code(), Some(1));
    for way in ["853 needs a privilege", "setcap", "AmbientCapabilities", "ip_unprivileged_port"] {
        assert!(server.said().contains(way), "no {way:?} in {}", server.said());
    }
}

fn open_to_all() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o755)
}

#[test]
fn root_becomes_the_user_once_the_ports_are_bound() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let directory = tempfile::Builder::new().permissions(open_to_all()).tempdir().unwrap();
    let file = directory.path().join("t.zone");
    write_zone(&file, 1, "192.0.2.1", "");
    let zone = format!("t={}", file.display());
    let server = Process::start(&["--listen", ANYWHERE, "--zone", &zone, "--user", "nobody"]);
    assert_eq!(ask(server.address(), "www.t").1, ["192.0.2.1"]);
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap().uid;
    for task in fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap().flatten() {
        let status = fs::read_to_string(task.path().join("status")).unwrap();
        let line = |key: &str| status.lines().find(|line| line.starts_with(key)).unwrap();
        assert_eq!(line("Uid:"), format!("Uid:\t{nobody}\t{nobody}\t{nobody}\t{nobody}"));
        assert_eq!(line("CapEff:"), "CapEff:\t0000000000000000");
    }
    // A zone that only root may read fails with the reason, and the last good version stays.
    write_zone(&file, 2, "192.0.2.2", "");
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let said = server.reload();
    assert!(said.contains("the user that ring53 runs as must be able to read it"), "{said}");
    assert_eq!(ask(server.address(), "www.t").1, ["192.0.2.1"]);
}

//----------- Checking -------------------------------------------------------

#[test]
fn a_wrong_configuration_says_all_that_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ring53.toml");
    let path = file.to_str().unwrap();
    for (text, expected) in [
        ("[server]\n", &[": the key \"version\" is missing: write version = 1"][..]),
        ("version = 2\n", &[":1:11: version"]),
        (
            "version = 1\n[server]\nlistn = []\ncores = [\"a\"]\npath = \"urin\"\n",
            &[
                ":3:1: unknown key \"listn\": did you mean \"listen\"?",
                ":4:10: cores: expected a number",
                ":5:8: path: expected \"auto\", \"uring\" or \"mmsg\": did you mean \"uring\"?",
            ],
        ),
        (
            "version = 1\n[server]\nreceive_buffer = \"4\"\ntcp = { idle = \"10\", conections = 1 }\n",
            &[":3:18: receive_buffer", ":4:16: idle", "did you mean \"connections\"?"],
        ),
        (
            "version = 1\n[[zone]]\nname = \"t\"\nfile = \"a\"\n[[zone]]\nname = \"T.\"\nfile = \"b\"\n",
            &[":6:8: name: zone T. is named twice"],
        ),
        (
            "version = 1\n[[zone]]\nname = \"a..b\"\n",
            &[":3:8: name", "the key \"file\" is missing"],
        ),
        ("version = 1\n[server\n", &[":2:"]),
    ] {
        fs::write(&file, text).unwrap();
        let output = run(&["check", "config", path]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}: {said}");
        for words in expected {
            assert!(said.contains(words), "{text}\nsaid {said}not {words}");
        }
        assert!(said.contains(path), "{said}");
    }
    let (directory, ..) = zone_directory();
    let good = write_config(directory.path(), "");
    assert_eq!(run(&["check", "config", good.to_str().unwrap()]).status.code(), Some(0));
    assert_eq!(run(&["check", "config", "/nowhere/ring53.toml"]).status.code(), Some(1));
    assert!(String::from_utf8_lossy(&run(&["--version"]).stdout).starts_with("ring53 "));
}

#[test]
fn a_zone_that_cannot_be_read_says_why() {
    let (directory, file, _) = zone_directory();
    let check = |file: &Path| {
        let output = run(&["check", "zone", "t", file.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), said)
    };
    let (code, said) = check(&file);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("serial 1"), "{said}");
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let missing = directory.path().join("missing");
    for (file, words) in [
        (directory.path(), "is a directory"),
        (&fifo, "is no regular file"),
        (&missing, "check the path"),
    ] {
        let (code, said) = check(file);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(words), "{said}");
    }
    write_zone(&file, 1, "nonsense", "x MX ten mail\ny AAAA 1\n");
    let (code, said) = check(&file);
    assert_eq!(code, Some(1));
    for line in ["t.zone:6:", "t.zone:7:", "t.zone:8:"] {
        assert!(said.contains(line), "{said}");
    }
}
