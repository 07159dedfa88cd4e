//! Upstreams that die, come back, or are far away, while others go on asking.

#[path = "support/process.rs"]
mod process;
mod support;
#[path = "support/upstream.rs"]
mod upstream;

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::Message as Parsed;
use ring53::wire::message::Message;

use process::PATIENCE;
use upstream::{
    Ends, Forwarding, Hits, Upstream, address_in, ask_many, edes, numbered, query_of, reply_of,
    truth, truth_of, with_opt,
};

/// Names whose answers are held, and how often they are asked for in a second.
const HELD: u64 = 200;
const HIT_RATE: u64 = 2000;

/// Puts the answers to `<prefix>0` ... into the cache.
fn fill(server: SocketAddr, prefix: &str, count: u64) {
    ask_many(
        server,
        count,
        64,
        |number| numbered(prefix, number),
        |number, reply| {
            assert_eq!(address_in(reply), Some(truth_of(&numbered(prefix, number))));
        },
    );
}

fn assert_untouched(hits: Hits) {
    let tally = hits.finish();
    println!("hits: {tally:?}");
    assert!(tally.asked > HIT_RATE / 2, "{tally:?}");
    assert_eq!((tally.answered, tally.wrong), (tally.asked, 0), "{tally:?}");
}

//----------- Death ----------------------------------------------------------

/// Asks once; the reply, and how long it took.
fn timed(server: SocketAddr, name: &str) -> (Parsed, Duration) {
    let begun = Instant::now();
    let reply = reply_of(server, &with_opt(name));
    (reply, begun.elapsed())
}

/// While the upstream is dead: what is stale comes within two seconds, the rest is SERVFAIL with a
/// reason. Clients ask all the time, each for its own name.
fn assert_stale_or_servfail(server: SocketAddr) {
    let begun = Instant::now();
    thread::scope(|scope| {
        for client in 0..8 {
            scope.spawn(move || {
                let mut round = 0;
                while begun.elapsed() < Duration::from_secs(6) {
                    // All of them ask for one name, too: whoever comes late waits no longer.
                    let name = if round % 2 == 0 { client } else { 9 };
                    let (reply, took) = timed(server, &format!("old{name}.example."));
                    let name = numbered("old", name);
                    let data = reply.answers().first().map(|it| it.data().to_string());
                    let [a, b, c, d] = truth_of(&name);
                    assert_eq!(data, Some(format!("{a}.{b}.{c}.{d}")), "{reply}");
                    assert_eq!((reply.answers()[0].ttl(), edes(&reply)), (30, vec![3]));
                    assert!(took < Duration::from_secs(2), "stale after {took:?}");
                    round += 1;
                    thread::sleep(Duration::from_millis(170));
                }
            });
            scope.spawn(move || {
                let (reply, took) = timed(server, &format!("never{client}.example."));
                assert_eq!(u16::from(reply.response_code()), 2, "{reply}");
                assert!(!edes(&reply).is_empty(), "SERVFAIL without a reason: {reply}");
                assert!(took < Duration::from_secs(5), "SERVFAIL after {took:?}");
            });
        }
    });
}

/// Asks for names that are not held, as many as are answered, until `over`: each question gets the
/// truth, or SERVFAIL with a reason. Returns how often each.
fn ask_on(server: SocketAddr, over: &AtomicBool) -> (u64, u64) {
    let (mut asked, mut failed) = (0, 0);
    while !over.load(Ordering::SeqCst) {
        let name_of = |number| numbered("new", asked + number);
        let again = ask_many(server, 100, 100, name_of, |number, reply| {
            if address_in(reply) == Some(truth_of(&name_of(number))) {
                return;
            }
            failed += 1;
            let reply = Parsed::from_vec(reply).unwrap();
            assert_eq!(u16::from(reply.response_code()), 2, "{reply}");
            assert!(!edes(&reply).is_empty(), "SERVFAIL without a reason: {reply}");
        });
        assert_eq!(again, 0, "questions without a reply");
        asked += 100;
    }
    (asked - failed, failed)
}

/// The upstream is there again since `since`: within five seconds so are its answers.
fn assert_recovers(server: SocketAddr, since: Instant) {
    let mut asked = 0;
    loop {
        // A name that nobody has asked for, so that no failure is remembered for it.
        let name = format!("back{asked}.example.");
        let reply = reply_of(server, &with_opt(&name));
        if u16::from(reply.response_code()) == 0 {
            println!("recovered after {:?}, {asked} failures", since.elapsed());
            assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
            break;
        }
        asked += 1;
        assert!(since.elapsed() < Duration::from_secs(5), "not after {:?}", since.elapsed());
        thread::sleep(Duration::from_millis(50));
    }
    // And what was stale is fresh, as soon as it is asked for again after a while.
    let end = Instant::now() + Duration::from_secs(6);
    loop {
        let reply = reply_of(server, &with_opt("old1.example."));
        if edes(&reply).is_empty() && !reply.answers().is_empty() {
            return;
        }
        assert!(Instant::now() < end, "stale for ever: {reply}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// `dies` makes the upstream useless, `revives` brings one back on its address.
fn outage(
    dies: impl Fn(Upstream) -> Option<Upstream>,
    revives: impl Fn(Option<Upstream>, SocketAddr) -> Upstream,
) {
    let upstream = Upstream::saying(Box::new(truth));
    let address = upstream.address;
    let forwarding = Forwarding::start(address, "");
    let server = forwarding.address;
    fill(server, "held", HELD);
    upstream.state.ttl.store(1, Ordering::SeqCst);
    fill(server, "old", 10);
    let hits = Hits::start(server, "held", HELD, HIT_RATE);
    thread::sleep(Duration::from_millis(1200));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let ends = Ends(&over);
        let asks_on = scope.spawn(|| ask_on(server, &over));
        thread::sleep(Duration::from_millis(300));
        let dead = dies(upstream);
        assert_stale_or_servfail(server);
        let since = Instant::now();
        let alive = revives(dead, address);
        assert_recovers(server, since);
        drop(ends);
        let (answered, failed) = asks_on.join().unwrap();
        println!("misses: {answered} answered, {failed} SERVFAIL");
        assert!(answered >= 100 && failed >= 100, "{answered} {failed}");
        drop(alive);
    });
    assert_untouched(hits);
}

#[test]
fn an_upstream_that_is_silent_is_survived() {
    outage(
        |upstream| {
            upstream.state.is_deaf.store(true, Ordering::SeqCst);
            Some(upstream)
        },
        |upstream, _| {
            let upstream = upstream.unwrap();
            upstream.state.is_deaf.store(false, Ordering::SeqCst);
            upstream
        },
    );
}

#[test]
fn an_upstream_that_is_gone_is_survived() {
    outage(
        |upstream| {
            drop(upstream);
            None
        },
        |_, address| Upstream::again(address, Box::new(truth)),
    );
}

/// Past its time plus `serve_stale` an answer is none, though it still lies in the cache.
#[test]
fn what_is_too_old_is_not_served() {
    for (serve_stale, is_served) in [("0s", false), ("1s", false), ("1h", true)] {
        let upstream = Upstream::saying(Box::new(truth));
        let more = format!("[cache]\nserve_stale = \"{serve_stale}\"\n");
        let forwarding = Forwarding::start(upstream.address, &more);
        upstream.state.ttl.store(1, Ordering::SeqCst);
        fill(forwarding.address, "old", 2);
        upstream.state.is_deaf.store(true, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(3100));
        // Also of those who ask again, when the failure is known.
        for name in [0, 1, 0] {
            let (reply, _) = timed(forwarding.address, &format!("old{name}.example."));
            let rcode = u16::from(reply.response_code());
            let expected = if is_served { (0, 1) } else { (2, 0) };
            assert_eq!((rcode, reply.answers().len()), expected, "{serve_stale}: {reply}");
        }
    }
}

//----------- Distance -------------------------------------------------------

#[test]
fn misses_that_are_slow_do_not_slow_hits() {
    let upstream = Upstream::saying(Box::new(truth));
    let more = "[recursion]\noutstanding_per_client_max = 4096\n";
    let forwarding = Forwarding::start(upstream.address, more);
    let server = forwarding.address;
    fill(server, "held", HELD);
    upstream.state.delay_ms.store(300, Ordering::SeqCst);
    let hits = Hits::start(server, "held", HELD, HIT_RATE);
    // 3200 misses in flight.
    thread::scope(|scope| {
        for prefix in ["p", "q", "r", "s", "t", "u", "v", "w"] {
            scope.spawn(move || {
                ask_many(
                    server,
                    2000,
                    400,
                    |number| numbered(prefix, number),
                    |number, reply| {
                        let truth = truth_of(&numbered(prefix, number));
                        assert_eq!(address_in(reply), Some(truth), "{prefix}{number}");
                    },
                );
            });
        }
    });
    assert_untouched(hits);
    assert_eq!(forwarding.counter("resolve.failed"), 0);
    assert_eq!(forwarding.counter("resolve.refused"), 0);
}

//----------- Limits ---------------------------------------------------------

/// Sends `count` queries for names of their own from one address, and counts the replies that come
/// within a second: all must be SERVFAIL with an EDE.
fn refused_of(server: SocketAddr, from: &str, count: u64) -> usize {
    let socket = UdpSocket::bind((from, 0)).unwrap();
    socket.connect(server).unwrap();
    let prefix = format!("of{}", from.replace('.', "-"));
    for number in 0..count {
        socket.send(&query_of(number as u16, &numbered(&prefix, number))).unwrap();
        if number % 50 == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    let (mut refused, mut octets, begun) = (0, [0; 4096], Instant::now());
    while let Some(left) = Duration::from_secs(1).checked_sub(begun.elapsed()) {
        socket.set_read_timeout(Some(left.max(Duration::from_millis(1)))).unwrap();
        let Ok(len) = socket.recv(&mut octets) else { break };
        let reply = Parsed::from_vec(&octets[..len]).unwrap();
        assert_eq!(u16::from(reply.response_code()), 2, "{reply}");
        assert!(!edes(&reply).is_empty(), "SERVFAIL without a reason: {reply}");
        refused += 1;
    }
    refused
}

/// So many clients ask for 250 names each, of an upstream that says nothing: how often each is
/// refused. Hits are answered all the while, and what is stale at once.
fn crowd(clients: u8) -> Vec<usize> {
    let upstream = Upstream::saying(Box::new(truth));
    let more = "[recursion]\nallow = [\"127.0.0.0/8\"]\noutstanding_max = 400\n\
                outstanding_per_client_max = 100\n";
    let forwarding = Forwarding::start(upstream.address, more);
    let server = forwarding.address;
    fill(server, "held", HELD);
    upstream.state.ttl.store(1, Ordering::SeqCst);
    fill(server, "old", 10);
    thread::sleep(Duration::from_millis(1200));
    upstream.state.is_deaf.store(true, Ordering::SeqCst);
    let hits = Hits::start(server, "held", HELD, HIT_RATE);
    let refused = thread::scope(|scope| {
        let ask = |client| refused_of(server, &format!("127.0.1.{client}"), 250);
        let clients: Vec<_> =
            (1..=clients).map(|client| scope.spawn(move || ask(client))).collect();
        // Questions take four seconds at most: all places are taken by now, or one client's.
        thread::sleep(Duration::from_millis(600));
        let (reply, took) = timed(server, "old3.example.");
        assert_eq!((reply.answers().len(), edes(&reply)), (1, vec![3]), "{reply}");
        assert!(took < Duration::from_secs(2), "{took:?}");
        clients.into_iter().map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    println!("refused: {refused:?}");
    // Others find the queue to those who resolve full, and are refused before it.
    assert!(forwarding.counter("resolve.refused") > 0);
    assert_untouched(hits);
    refused
}

#[test]
fn one_client_has_what_one_client_may() {
    assert_eq!(crowd(1), [150]);
}

#[test]
fn all_clients_have_what_all_may() {
    let refused = crowd(5);
    assert!(refused.iter().all(|count| *count >= 150), "{refused:?}");
    // Some more find the queue to those who resolve full, while that has room still.
    let taken = 5 * 250 - refused.iter().sum::<usize>();
    assert!((200..=400).contains(&taken), "{taken} were taken: {refused:?}");
}

#[test]
fn a_reload_changes_how_many_may_wait() {
    let upstream = Upstream::saying(Box::new(truth));
    upstream.state.is_deaf.store(true, Ordering::SeqCst);
    let limited = |max: u32| {
        format!("[recursion]\noutstanding_max = {max}\noutstanding_per_client_max = {max}\n")
    };
    let forwarding = Forwarding::start(upstream.address, &limited(1));
    assert!(refused_of(forwarding.address, "127.0.1.1", 250) >= 249);
    upstream::write_config(forwarding.directory.path(), upstream.address, &limited(1000));
    forwarding.server.reload();
    assert_eq!(refused_of(forwarding.address, "127.0.1.2", 250), 0);
}

/// Many who ask the same while nobody answers cost a bounded amount.
#[test]
fn those_who_wait_are_bounded() {
    let upstream = Upstream::saying(Box::new(truth));
    upstream.state.is_deaf.store(true, Ordering::SeqCst);
    let more = "[recursion]\noutstanding_max = 20\noutstanding_per_client_max = 10\n";
    let forwarding = Forwarding::start(upstream.address, more);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(forwarding.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let count = 1000;
    let sending = socket.try_clone().unwrap();
    // Beside the receiving: its buffer is not large enough for all replies.
    thread::spawn(move || {
        for id in 0..count {
            sending.send(&query_of(id, &numbered("same", u64::from(id % 5)))).unwrap();
            thread::sleep(Duration::from_micros(200));
        }
    });
    let mut answered = vec![false; usize::from(count)];
    for _ in 0..count {
        let mut octets = [0; 4096];
        let Ok(len) = socket.recv(&mut octets) else {
            let lost: Vec<_> = (0..count).filter(|id| !answered[usize::from(*id)]).collect();
            panic!("no replies to {lost:?}: {}", upstream::counters(&forwarding.server));
        };
        let reply = Message::new(&octets[..len]).unwrap();
        assert_eq!(reply.rcode(), 2);
        answered[usize::from(reply.id())] = true;
    }
    assert!(answered.iter().all(|&it| it));
    // Eight for each question that may be in flight.
    let (joined, refused) =
        (forwarding.counter("resolve.joined"), forwarding.counter("resolve.refused"));
    println!("{joined} waited, {refused} were refused");
    assert!(joined + refused <= 995 && refused > 0);
    assert!(joined <= 160, "{joined} waited");
}
