//! Forwarding and the cache as clients see them: the real binary, an upstream that counts what it
//! is asked and can be slow, deaf or gone.

#[path = "support/process.rs"]
mod process;
mod support;
#[path = "support/upstream.rs"]
mod upstream;

use std::fs;
use std::io::Write;
use std::net::UdpSocket;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use process::{PATIENCE, Process, ask, ask_stream, connect, framed, read, receive, run};
use upstream::{
    Forwarding, Upstream, ask_recursively, desired, edes, reply_of, with_opt, write_config,
};

fn forwarding(upstream: &Upstream, more: &str) -> Forwarding {
    Forwarding::start(upstream.address, more)
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
    let flushed = run(&["cache", "flush", "www.example.", "--config", &forwarding.config()]);
    assert_eq!(flushed.status.code(), Some(0), "{flushed:?}");
    ask_recursively(address, "www.example.");
    assert_eq!(upstream.asked(), 4);
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
    let config = write_config(directory.path(), upstream.address, "[cache]\nsave = \"cache\"\n");
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
