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

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use process::{PATIENCE, Process, ask, ask_stream, connect, framed, read, receive, run};
use upstream::{
    Forwarding, Hits, Upstream, address_in, ask_many, ask_recursively, desired, edes, numbered,
    reply_of, truth, truth_of, with_opt, write_config,
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

/// Has the threads of a server named `name` run on core 0 only.
fn pin_threads(server: &Process, name: &str) {
    let mut core = CpuSet::new();
    core.set(0).unwrap();
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let pinned = tasks.flatten().filter(|task| {
        let is_it = fs::read_to_string(task.path().join("comm")).is_ok_and(|it| it.trim() == name);
        let id = task.file_name().to_str().unwrap().parse().unwrap();
        is_it && sched_setaffinity(Pid::from_raw(id), &core).is_ok()
    });
    assert!(pinned.count() > 0, "no thread {name}");
}

/// Where the thread that resolves is on a core that answers, it lets queries be answered first.
#[test]
fn misses_let_hits_pass() {
    let upstream = Upstream::saying(Box::new(truth));
    // On core 0.
    let forwarding = forwarding(&upstream, "");
    pin_threads(&forwarding.server, "ring53-resolve");
    let hits = Hits::start(forwarding.address, "hit", 16, 20_000);
    ask_many(
        forwarding.address,
        20_000,
        256,
        |number| numbered("miss", number),
        |number, reply| {
            assert_eq!(address_in(reply), Some(truth_of(&numbered("miss", number))));
        },
    );
    let tally = hits.finish();
    assert!(tally.answered * 10 >= tally.asked * 9 && tally.wrong == 0, "{tally:?}");
    assert!(
        forwarding.counter("resolve.gave_way") > 0,
        "of {} misses",
        forwarding.counter("resolve.misses")
    );
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

/// What was saved under other forwards is not believed.
#[test]
fn the_cache_begins_empty_when_others_are_asked() {
    let (upstream, other) = (Upstream::start(), Upstream::start());
    let directory = tempfile::tempdir().unwrap();
    for (corp, again) in [(&upstream, 1), (&upstream, 0), (&other, 1)] {
        let more = format!(
            "[cache]\nsave = \"cache\"\n[[forward]]\nzone = \"corp.example.\"\nto = [\"{}\"]\n",
            corp.address
        );
        let config = write_config(directory.path(), upstream.address, &more);
        let mut server = Process::start(&["--config", &config]);
        let before = corp.asked();
        assert_eq!(ask_recursively(server.address(), "www.corp.example.").1, ["192.0.2.0"]);
        assert_eq!(corp.asked() - before, again);
        server.signal(Signal::SIGTERM);
        assert!(server.end().success(), "{}", server.said());
    }
}

/// IXFR over UDP is answered with SOA, and that is what others are asked for.
#[test]
fn an_ixfr_of_others_is_a_question_for_their_soa() {
    let upstream = Upstream::start();
    let forwarding = forwarding(&upstream, "");
    let mut query = desired("none.example.");
    let at = query.len() - 3;
    for qtype in [251, 251, 6] {
        query[at] = qtype;
        assert_eq!(reply_of(forwarding.address, &query).response_code().low(), 0);
    }
    assert_eq!((upstream.asked(), forwarding.counter("resolve.declined")), (1, 0));
}

#[test]
fn many_questions_wait_on_one_connection() {
    let upstream = Upstream::start();
    upstream.state.delay_ms.store(20, Ordering::SeqCst);
    let forwarding = forwarding(&upstream, "");
    let mut stream = connect(forwarding.address);
    let queries = (0..300usize).flat_map(|number| {
        let mut query = desired(&format!("h{number}.example."));
        query[..2].copy_from_slice(&(number as u16).to_be_bytes());
        framed(&query)
    });
    stream.write_all(&queries.collect::<Vec<u8>>()).unwrap();
    let mut ids: Vec<u16> = (0..300)
        .map(|_| {
            let reply = receive(&mut stream).unwrap();
            assert_eq!(read(&reply).1, ["192.0.2.0"]);
            u16::from_be_bytes([reply[0], reply[1]])
        })
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..300).collect::<Vec<u16>>());
}

fn stdout(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn json_of(arguments: &[&str]) -> serde_json::Value {
    serde_json::from_str(&stdout(&[arguments, &["--json"]].concat())).unwrap()
}

#[test]
fn a_question_to_others_is_explained() {
    let upstream = Upstream::start();
    let mut forwarding = forwarding(&upstream, "");
    let config = forwarding.config();
    // Commands are taken a moment after the ports are open.
    let socket = forwarding.directory.path().join("state").join("control");
    let end = Instant::now() + PATIENCE;
    while !socket.exists() {
        assert!(Instant::now() < end, "no commands are taken");
        thread::sleep(Duration::from_millis(5));
    }
    let explain = |more: &[&str]| {
        json_of(&[&["explain", "www.example.", "A", "--config", &config], more].concat())
    };
    assert_eq!(explain(&[])["running"]["cache"]["state"], "absent");
    assert_eq!(upstream.asked(), 0, "to look is not to ask");
    for _ in 0..3 {
        ask_recursively(forwarding.address, "www.example.");
    }
    let told = explain(&[]);
    let cache = &told["running"]["cache"];
    assert_eq!((&cache["state"], &cache["kind"]), (&"fresh".into(), &"answer".into()));
    assert!((250..=300).contains(&cache["ttl_seconds"].as_u64().unwrap()), "{told}");
    assert_eq!(told["resolved"]["forward"], ".");
    let told = explain(&["--ask"]);
    let attempt = &told["running"]["asked"]["attempts"][0];
    assert_eq!((&attempt["ending"], &attempt["carrier"]), (&"NOERROR".into(), &"UDP".into()));
    assert_eq!(upstream.asked(), 2);
    let told = json_of(&["upstreams", "--config", &config]);
    let one = &told["upstreams"][0];
    assert_eq!(one["upstream"], upstream.address.to_string());
    assert_eq!((&one["health"], one["answers"].as_u64()), (&"healthy".into(), Some(2)));
    assert_eq!(one["forwards"], serde_json::json!(["."]));
    let flushed = stdout(&["cache", "flush", "www.example.", "--config", &config]);
    assert!(flushed.contains("1 answer is forgotten"), "{flushed}");
    let stats = &json_of(&["cache", "stats", "--config", &config])["cache"];
    let of = |key: &str| stats[key].as_u64().unwrap();
    assert_eq!([of("hits"), of("misses"), of("flushed"), of("answers")], [2, 1, 1, 0]);

    // An upstream that is gone, and a question that fails.
    upstream.state.is_deaf.store(true, Ordering::SeqCst);
    let output = run(&["explain", "gone.example.", "A", "--ask", "--config", &config]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("no reply in time"), "{said}");
    assert!(said.contains("cache     then fresh failure: SERVFAIL"), "{said}");
    assert!(said.contains("last trouble"), "{said}");

    // Special-use names, and a server that does not run.
    let said = stdout(&["explain", "a.localhost.", "A", "--config", &config]);
    assert!(said.contains("localhost. is a special-use name (RFC 6761"), "{said}");
    forwarding.server.signal(Signal::SIGTERM);
    assert!(forwarding.server.end().success());
    let said = stdout(&["explain", "www.example.", "A", "--config", &config]);
    assert!(said.contains("is ring53 running with this configuration"), "{said}");
    assert!(said.contains(&format!("upstream  {}", upstream.address)), "{said}");
}

#[test]
fn failures_are_asked_again_later_and_later() {
    let upstream = Upstream::start();
    let forwarding = forwarding(&upstream, "[cache]\nfailure_ttl = \"1s\"\n");
    let config = forwarding.config();
    upstream.state.fails.store(true, Ordering::SeqCst);
    let mut held = Vec::new();
    for _ in 0..3 {
        let before = upstream.asked();
        let end = Instant::now() + PATIENCE;
        while upstream.asked() == before {
            assert!(Instant::now() < end, "it is not asked again");
            assert_eq!(ask_recursively(forwarding.address, "www.example.").0, 2);
            thread::sleep(Duration::from_millis(20));
        }
        let told = json_of(&["explain", "www.example.", "A", "--config", &config]);
        let cache = &told["running"]["cache"];
        assert_eq!((&cache["state"], &cache["kind"]), (&"fresh".into(), &"failure".into()));
        let of = |key: &str| cache[key].as_u64().unwrap();
        held.push(of("age_seconds") + of("ttl_seconds"));
    }
    assert_eq!(held, [1, 2, 4]);
    upstream.state.fails.store(false, Ordering::SeqCst);
    thread::sleep(Duration::from_millis(4100));
    assert_eq!(ask_recursively(forwarding.address, "www.example.").1, ["192.0.2.0"]);
}

#[test]
fn a_reload_forwards_elsewhere() {
    let (upstream, other) = (Upstream::start(), Upstream::start());
    let forwarding = forwarding(&upstream, "");
    let (address, directory) = (forwarding.address, forwarding.directory.path());
    for name in ["www.example.", "www.corp.example."] {
        assert_eq!(ask_recursively(address, name).1, ["192.0.2.0"]);
    }
    assert_eq!((upstream.asked(), other.asked()), (2, 0));
    let corp = format!("[[forward]]\nzone = \"corp.example.\"\nto = [\"{}\"]\n", other.address);
    write_config(directory, upstream.address, &format!("[cache]\nmemory = \"8MiB\"\n{corp}"));
    let said = forwarding.server.reload();
    assert!(
        said.contains("cache.memory: changed in the configuration; restart to use it"),
        "{said}"
    );
    assert!(said.contains("forward corp.example. has changed: 1 answers at or below it"), "{said}");
    for name in ["www.example.", "www.corp.example.", "a.corp.example."] {
        assert_eq!(ask_recursively(address, name).1, ["192.0.2.0"], "{name}");
    }
    assert_eq!((upstream.asked(), other.asked()), (2, 2));
    // What is wrong changes nothing.
    write_config(directory, upstream.address, "[recursion]\nallow = [\"0.0.0.0/0\"]\n");
    forwarding.server.signal(Signal::SIGHUP);
    forwarding.server.wait_for("not reloaded, the running configuration stays", 1);
    assert_eq!(ask_recursively(address, "b.corp.example.").1, ["192.0.2.0"]);
    assert_eq!(other.asked(), 3);
    // Who may ask changes; then the root goes elsewhere, with questions in flight.
    write_config(directory, upstream.address, "[recursion]\nallow = [\"192.0.2.0/24\"]\n");
    forwarding.server.reload();
    assert_eq!(reply_of(address, &with_opt("www.example.")).response_code().low(), 5);
    write_config(directory, other.address, "");
    upstream.state.is_deaf.store(true, Ordering::SeqCst);
    forwarding.server.reload();
    assert_eq!(ask_recursively(address, "c.example.").1, ["192.0.2.0"]);
    assert_eq!((upstream.asked(), other.asked()), (2, 4));
}

#[test]
fn what_is_in_flight_at_a_reload_is_asked_of_the_new_ones() {
    let (upstream, other) = (Upstream::start(), Upstream::start());
    let forwarding = forwarding(&upstream, "[recursion]\ntimeout = \"30s\"\n");
    upstream.state.is_deaf.store(true, Ordering::SeqCst);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(forwarding.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(&desired("www.example.")).unwrap();
    thread::sleep(Duration::from_millis(300));
    write_config(forwarding.directory.path(), other.address, "[recursion]\ntimeout = \"30s\"\n");
    forwarding.server.reload();
    let mut octets = [0; 512];
    let len = socket.recv(&mut octets).unwrap();
    assert_eq!((read(&octets[..len]).1, other.asked()), (vec!["192.0.2.0".to_string()], 1));
}

#[test]
fn members_of_a_catalog_are_answered_here() {
    let upstream = Upstream::start();
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, records: &str| {
        let text = format!("$TTL 60\n@ SOA ns h 1 2 3 4 5\n@ NS ns\n{records}");
        fs::write(directory.path().join(name), text).unwrap();
    };
    write(
        "cat",
        "version TXT 2\na.zones PTR corp.example.\nb.zones PTR in.corp.example.\n\
                  c.zones PTR 172.in-addr.arpa.\n",
    );
    write("corp.example.zone", "www A 203.0.113.1\n");
    write("in.corp.example.zone", "www A 203.0.113.2\n");
    write("172.in-addr.arpa.zone", "1.1.16 PTR a.example.\n");
    let work = directory.path().display();
    let more = format!(
        "[[pattern]]\nname = \"p\"\nfile = \"{work}/%s.zone\"\n\
         [[zone]]\nname = \"cat.\"\nfile = \"{work}/cat\"\ncatalog = {{ pattern = \"p\" }}\n\
         [[forward]]\nzone = \"corp.example.\"\nto = [\"{}\"]\n",
        upstream.address
    );
    let forwarding = forwarding(&upstream, &more);
    let ask = |name: &str| ask_recursively(forwarding.address, name);
    assert_eq!(ask("www.corp.example."), (0, vec!["203.0.113.1".to_string()]));
    assert_eq!(ask("www.in.corp.example."), (0, vec!["203.0.113.2".to_string()]));
    assert_eq!(ask("absent.corp.example.").0, 3);
    // Where a special-use name would be answered otherwise.
    assert_eq!((ask("1.1.16.172.in-addr.arpa.").0, ask("1.2.16.172.in-addr.arpa.").0), (0, 3));
    assert_eq!(upstream.asked(), 0);
    let mut queried = desired("1.1.16.172.in-addr.arpa.");
    let at = queried.len() - 3;
    queried[at] = 12;
    assert_eq!(read(&reply_of(forwarding.address, &queried).to_vec().unwrap()).1, ["a.example."]);
}
