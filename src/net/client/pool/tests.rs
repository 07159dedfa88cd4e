//! What leaves from where, and what reaches whom; over both ways.

use std::collections::{HashMap, HashSet};
use std::process::Command;
use std::thread;
use std::time::Instant;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::net::client::{ClientPath, REPLY_LEN_MAX, UringClient, open_port};
use crate::net::socket::{SocketOptions, bind_group};
use crate::net::{MmsgPath, PacketPath};

use super::*;

const WAYS: [Way; 2] = [Way::Uring, Way::Polled];
/// A false alarm in so many runs: `e^-x`.
const SURE: f64 = 20.7;

fn server(address: &str) -> UdpSocket {
    let server = UdpSocket::bind(address).unwrap();
    server.set_nonblocking(true).unwrap();
    server
}

fn options(ports: usize) -> PoolOptions {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    PoolOptions { ports, descriptors_spared: 64, ..PoolOptions::default() }
}

fn pool(servers: &[&UdpSocket], options: PoolOptions, way: Way) -> PortPool {
    let upstreams: Vec<_> = servers.iter().map(|server| server.local_addr().unwrap()).collect();
    PortPool::new(&upstreams, options, way).unwrap()
}

/// Everything that has come to `server`: from where, with which ID, all of it.
fn come(server: &UdpSocket) -> Vec<(SocketAddr, u16, Vec<u8>)> {
    let mut octets = [0; 4096];
    let next = || {
        let (len, from) = server.recv_from(&mut octets).ok()?;
        let id = u16::from_be_bytes([octets[0], octets[1]]);
        Some((from, id, octets[..len].to_vec()))
    };
    std::iter::from_fn(next).collect()
}

/// Receives until `done`, or for five seconds.
fn until(
    pool: &mut PortPool,
    take: &mut dyn FnMut(u64, Arrival<'_>) -> bool,
    done: &mut dyn FnMut(&PortPool) -> bool,
) {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        pool.flush().unwrap();
        pool.receive(take).unwrap();
        if done(pool) {
            return;
        }
        assert!(Instant::now() < end, "{:?}", pool.counters());
        pool.wait(Duration::from_millis(5)).unwrap();
    }
}

fn settle(pool: &mut PortPool) {
    for _ in 0..10 {
        pool.flush().unwrap();
        pool.wait(Duration::from_millis(1)).unwrap();
        pool.receive(&mut |_, _| panic!("nothing is to come")).unwrap();
    }
}

/// Pearson's statistic of counts that should be equal, and what it exceeds with a probability below
/// `e^-SURE` (Laurent and Massart).
fn uneven(counts: &[u64]) -> (f64, f64) {
    let mean = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
    let statistic = counts.iter().map(|&count| (count as f64 - mean).powi(2) / mean).sum();
    let freedom = (counts.len() - 1) as f64;
    (statistic, freedom + 2.0 * (freedom * SURE).sqrt() + 2.0 * SURE)
}

fn assert_even(what: &str, counts: &[u64]) {
    let (statistic, bound) = uneven(counts);
    println!("{what}: {statistic:.1} of {} bins, bound {bound:.1}", counts.len());
    assert!(statistic < bound, "{what}: {statistic} is past {bound}: {counts:?}");
}

//----------- Replies --------------------------------------------------------

#[test]
fn replies_come_back_to_their_exchange() {
    for way in WAYS {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (one, other) = (server(address), server(address));
            let mut pool = pool(&[&one, &other], options(512), way);
            assert_eq!(pool.live_ports(0).len(), 256);
            let mut replies = HashMap::new();
            for round in 0..20u64 {
                for i in 0..QUEUE_COUNT_MAX as u64 {
                    let exchange = 1000 * round + i;
                    let query = [&[0, 0], &exchange.to_be_bytes()[..]].concat();
                    assert_eq!(pool.queue(i as usize % 2, exchange, &query), Ok(()));
                }
                assert_eq!(pool.queue(0, u64::MAX, &[0; 12]), Err(Unqueued::BatchFull));
                pool.flush().unwrap();
                for server in [&one, &other] {
                    for (from, _, octets) in come(server) {
                        assert_eq!(octets[9] % 2, u8::from(std::ptr::eq(server, &raw const other)));
                        server.send_to(&octets, from).unwrap();
                    }
                }
                let mut take = |exchange, arrival: Arrival<'_>| {
                    let Arrival::Reply(octets) = arrival else { panic!("{arrival:?}") };
                    assert_eq!(octets[2..], u64::to_be_bytes(exchange));
                    assert!(replies.insert(exchange, ()).is_none());
                    true
                };
                until(&mut pool, &mut take, &mut |pool| pool.in_flight() == 0);
            }
            assert_eq!(replies.len(), 20 * QUEUE_COUNT_MAX);
            let counters = pool.counters();
            assert_eq!((counters.queued, counters.replies), (1280, 1280));
            assert_eq!((counters.unmatched, counters.unsent, pool.drops()), (0, 0, 0));
        }
    }
}

#[test]
fn what_is_no_query_or_has_no_room_is_not_sent() {
    let server = server("127.0.0.1:0");
    let options = PoolOptions { in_flight_max: 3, ..options(256) };
    let mut pool = pool(&[&server], options, Way::Uring);
    assert_eq!(pool.queue(0, 1, &[0]), Err(Unqueued::Length));
    assert_eq!(pool.queue(0, 1, &[0; QUERY_LEN_MAX + 1]), Err(Unqueued::Length));
    assert_eq!(pool.queue(1, 1, &[0; 12]), Err(Unqueued::NoRoom), "there is no such upstream");
    for exchange in 1..4 {
        assert_eq!(pool.queue(0, exchange, &[0; 12]), Ok(()));
    }
    assert_eq!(pool.queue(0, 4, &[0; 12]), Err(Unqueued::NoRoom));
    assert!(pool.abandon(2) && !pool.abandon(2));
    assert_eq!(pool.queue(0, 3, &[0; 12]), Err(Unqueued::NoRoom), "its number is in flight");
    assert_eq!(pool.queue(0, 4, &[0; QUERY_LEN_MAX]), Ok(()));
}

#[test]
fn forged_replies_reach_nobody() {
    for way in WAYS {
        let right = server("127.0.0.1:0");
        let other_port = server("127.0.0.1:0");
        let other_address = server(&format!("127.0.0.2:{}", right.local_addr().unwrap().port()));
        let mut pool = pool(&[&right, &other_port], options(512), way);
        pool.queue(0, 7, &[0; 12]).unwrap();
        pool.flush().unwrap();
        let (from, id, query) = come(&right).remove(0);
        for _ in 0..100 {
            other_port.send_to(&query, from).unwrap();
            other_address.send_to(&query, from).unwrap();
        }
        settle(&mut pool);
        assert_eq!(pool.counters().unmatched, 0, "the kernel keeps other peers out");
        for wrong in (0..=u16::MAX).step_by(97).filter(|wrong| *wrong != id) {
            let forged = [&wrong.to_be_bytes()[..], &query[2..]].concat();
            right.send_to(&forged, from).unwrap();
            pool.receive(&mut |_, _| panic!("another ID")).unwrap();
        }
        right.send_to(&[1], from).unwrap();
        right.send_to(&[], from).unwrap();
        // The right ID at another port of the pool.
        for port in pool.live_ports(0).into_iter().filter(|port| *port != from.port()) {
            right.send_to(&query, ("127.0.0.1", port)).unwrap();
        }
        settle(&mut pool);
        assert!(pool.counters().unmatched > 700, "{:?}", pool.counters());
        // The right one, but not taken: the exchange goes on. Then taken, then once more.
        for is_taken in [false, true] {
            right.send_to(&query, from).unwrap();
            let mut come = 0;
            let mut take = |exchange, arrival: Arrival<'_>| {
                assert_eq!((exchange, arrival), (7, Arrival::Reply(&query[..])));
                come += 1;
                is_taken
            };
            let expected = (u64::from(!is_taken), u64::from(is_taken));
            let mut done = |pool: &PortPool| {
                pool.counters().declined + pool.counters().replies == 1 + expected.1
            };
            until(&mut pool, &mut take, &mut done);
            assert_eq!(come, 1);
            assert_eq!(pool.in_flight(), usize::from(!is_taken));
        }
        right.send_to(&query, from).unwrap();
        settle(&mut pool);
        // Too long, then too late.
        pool.queue(0, 8, &[0; 12]).unwrap();
        pool.flush().unwrap();
        let (from, _, query) = come(&right).remove(0);
        let long = [&query[..], &[0; REPLY_LEN_MAX]].concat();
        right.send_to(&long, from).unwrap();
        settle(&mut pool);
        assert_eq!((pool.counters().oversized, pool.in_flight()), (1, 1));
        assert!(pool.abandon(8));
        right.send_to(&query, from).unwrap();
        settle(&mut pool);
        assert_eq!((pool.counters().late, pool.in_flight()), (1, 0));
    }
}

#[test]
fn a_reply_may_be_as_long_as_its_buffer() {
    for way in WAYS {
        let server = server("127.0.0.1:0");
        let mut pool = pool(&[&server], options(256), way);
        pool.queue(0, 7, &[0; 12]).unwrap();
        pool.flush().unwrap();
        let (from, _, mut reply) = come(&server).remove(0);
        reply.resize(REPLY_LEN_MAX, 9);
        server.send_to(&reply, from).unwrap();
        let mut take = |_, arrival: Arrival<'_>| arrival == Arrival::Reply(&reply);
        until(&mut pool, &mut take, &mut |pool| pool.counters().replies == 1);
    }
}

#[test]
fn who_does_not_listen_is_a_fault_of_the_exchange() {
    for way in WAYS {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (gone, there) = (server(address), server(address));
            let mut pool = pool(&[&gone, &there], options(512), way);
            drop(gone);
            let mut refused = HashSet::new();
            for exchange in 0..60 {
                pool.queue((exchange % 2) as usize, exchange, &[0; 12]).unwrap();
            }
            let mut take = |exchange, arrival: Arrival<'_>| {
                assert_eq!(arrival, Arrival::Refused);
                refused.insert(exchange)
            };
            until(&mut pool, &mut take, &mut |pool| pool.in_flight() == 30);
            assert_eq!(refused, (0..60).step_by(2).collect());
            assert_eq!(come(&there).len(), 30);
        }
    }
}

//----------- Ports ----------------------------------------------------------

#[test]
fn ports_and_ids_are_uniform() {
    const QUERIES: usize = 100_000;
    const BINS: usize = 64;
    for way in WAYS {
        let seed = u64::from(std::process::id()) << 32 | now_ns() & 0xFFFF_FFFF;
        println!("seed {seed}, {way:?}");
        let server = server("127.0.0.1:0");
        let options = PoolOptions { port_queries: 8, ..options(PORTS_DEFAULT) };
        let draw = Draw::from_seed(seed);
        let upstream = [server.local_addr().unwrap()];
        let mut pool = PortPool::with_draw(&upstream, options, way, draw).unwrap();
        if let Some(shortage) = pool.shortage() {
            println!("{shortage}");
        }
        let mut samples = Vec::with_capacity(QUERIES);
        while samples.len() < QUERIES {
            let first = samples.len() as u64;
            let queued = (first..first + 64).filter(|i| pool.queue(0, *i, &[0; 40]).is_ok());
            assert_eq!(queued.count(), 64);
            pool.flush().unwrap();
            samples.extend(come(&server).iter().map(|(from, id, _)| (from.port(), *id)));
            (first..first + 64).for_each(|i| assert!(pool.abandon(i)));
            pool.receive(&mut |_, _| panic!()).unwrap();
        }
        assert!(pool.counters().opened > 5000, "they rotate: {:?}", pool.counters());
        let bin = |port: u16, bins: usize| usize::from(port - 1024) * bins / open::RANGE_COUNT;
        let mut used = [0; BINS];
        let (mut high, mut low, mut pairs) = ([0; 256], [0; 256], [0; 256]);
        for (port, id) in &samples {
            used[bin(*port, BINS)] += 1;
            high[usize::from(id >> 8)] += 1;
            low[usize::from(id & 255)] += 1;
        }
        for two in samples.windows(2) {
            pairs[bin(two[0].0, 16) * 16 + bin(two[1].0, 16)] += 1;
        }
        let distinct: HashSet<u16> = samples.iter().map(|sample| sample.0).collect();
        let mut opened = [0; BINS];
        distinct.iter().for_each(|port| opened[bin(*port, BINS)] += 1);
        assert_even("ports, over use", &used);
        assert_even("ports, each once", &opened);
        assert_even("a port and the next", &pairs);
        assert_even("IDs, high octet", &high);
        assert_even("IDs, low octet", &low);
        let (last, length) = (distinct.iter().max().unwrap(), distinct.len());
        assert!(*distinct.iter().min().unwrap() < 1100 && *last > 65_400 && length > 5000);
    }
}

/// The test of the test: half of the range, or clusters, are seen.
#[test]
fn what_is_uneven_is_found() {
    let mut draw = Draw::from_seed(3);
    let mut clustered = [0u64; 64];
    let ports: Vec<u32> = (0..4096).map(|_| draw.below(64)).collect();
    (0..100_000).for_each(|_| clustered[ports[draw.below(4096) as usize] as usize] += 1);
    let mut half = [0u64; 64];
    (0..100_000).for_each(|_| half[draw.below(32) as usize] += 1);
    for counts in [clustered, half] {
        let (statistic, bound) = uneven(&counts);
        assert!(statistic > bound, "{statistic} {bound}");
    }
}

#[test]
fn no_two_queries_in_flight_are_alike() {
    for way in WAYS {
        let server = server("127.0.0.1:0");
        let mut pool = pool(&[&server], options(256), way);
        let mut seen = HashSet::new();
        for exchange in 0..30_000 {
            pool.queue(0, exchange, &[0; 12]).unwrap();
            if exchange % 64 == 63 {
                pool.flush().unwrap();
                for (from, id, _) in come(&server) {
                    assert!(seen.insert((from.port(), id)));
                }
            }
        }
        assert_eq!(pool.in_flight(), 30_000);
    }
}

#[test]
fn rotation_closes_nothing_in_flight() {
    for way in WAYS {
        let server = server("127.0.0.1:0");
        let options = PoolOptions { port_queries: 2, ..options(256) };
        let mut pool = pool(&[&server], options, way);
        let first: HashSet<u16> = pool.live_ports(0).into_iter().collect();
        // Some of the first queries wait for their replies while the ports of all change.
        let mut held = Vec::new();
        for exchange in 0..20 {
            pool.queue(0, exchange, &[0; 12]).unwrap();
        }
        pool.flush().unwrap();
        held.append(&mut come(&server));
        for exchange in 100..3000 {
            pool.queue(0, exchange, &[0; 12]).unwrap();
            pool.flush().unwrap();
            for (from, _, octets) in come(&server) {
                server.send_to(&octets, from).unwrap();
            }
            pool.receive(&mut |got, _| got >= 100).unwrap();
        }
        until(&mut pool, &mut |got, _| got >= 100, &mut |pool| pool.in_flight() == 20);
        let left: Vec<u16> = pool.live_ports(0);
        assert_eq!(left.len(), 256);
        let same = left.iter().filter(|port| first.contains(port)).count();
        assert!(same < 64, "{same} ports are where they were");
        for (from, _, octets) in &held {
            server.send_to(octets, from).unwrap();
        }
        let mut late = Vec::new();
        until(
            &mut pool,
            &mut |got, _| {
                late.push(got);
                true
            },
            &mut |pool| pool.in_flight() == 0,
        );
        late.sort_unstable();
        assert_eq!(late, (0..20).collect::<Vec<u64>>());
        let done = &mut |pool: &PortPool| pool.counters().opened - pool.counters().closed == 256;
        until(&mut pool, &mut |_, _| panic!(), done);
    }
}

#[test]
fn ports_grow_old() {
    for way in WAYS {
        let server = server("127.0.0.1:0");
        let options = PoolOptions { port_age: Duration::from_millis(20), ..options(256) };
        let mut pool = pool(&[&server], options, way);
        until(&mut pool, &mut |_, _| panic!(), &mut |pool| pool.counters().closed > 256);
        assert_eq!(pool.live_ports(0).len(), 256);
    }
}

#[test]
fn ports_to_avoid_are_avoided() {
    let server = server("127.0.0.1:0");
    // Every second one, and a part of the range as a whole.
    let avoid = (0..=u16::MAX).filter(|port| port % 2 == 1 || *port < 3000).collect();
    let options =
        PoolOptions { avoid, sources: vec!["127.0.0.3".parse().unwrap()], ..options(256) };
    let mut pool = pool(&[&server], options, Way::Polled);
    let ports = pool.live_ports(0);
    assert_eq!(ports.len(), 256);
    assert!(ports.iter().all(|port| port % 2 == 0 && *port >= 3000));
    pool.queue(0, 1, &[0; 12]).unwrap();
    pool.flush().unwrap();
    assert_eq!(come(&server)[0].0.ip().to_string(), "127.0.0.3");
}

#[test]
fn an_upstream_without_a_route_gets_ports_later() {
    for way in WAYS {
        let server = server("127.0.0.1:0");
        // A link-local address without its link.
        let upstreams = ["[fe80::1]:53".parse().unwrap(), server.local_addr().unwrap()];
        let mut pool = PortPool::new(&upstreams, options(512), way).unwrap();
        assert_eq!((pool.live_ports(0).len(), pool.live_ports(1).len()), (0, 256));
        assert_eq!(pool.queue(0, 1, &[0; 12]), Err(Unqueued::NoRoom));
        assert_eq!(pool.queue(1, 2, &[0; 12]), Ok(()));
        pool.flush().unwrap();
        assert_eq!(come(&server).len(), 1);
    }
}

//----------- Limits and wakes -----------------------------------------------

#[test]
fn fewer_files_make_fewer_ports() {
    let server = server("127.0.0.1:0");
    let mut options = options(4096);
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    options.descriptors_spared = soft as usize - 400;
    let pool = pool(&[&server], options, Way::Polled);
    let shortage = pool.shortage().unwrap();
    assert_eq!(shortage, Shortage { wanted: 4096, opened: 320 });
    assert!(shortage.to_string().contains("320 ports instead of 4096"));
    assert_eq!(pool.live_ports(0).len(), 320);
}

/// In a process of its own, whose limit is low and whose files are open already.
#[test]
fn at_the_limit_of_files_there_are_fewer_ports() {
    let test = "net::client::pool::tests::with_few_files";
    let run = format!("ulimit -n 300; exec \"$0\" --exact {test} --ignored --nocapture");
    let output = Command::new("sh")
        .args(["-c", &run])
        .arg(std::env::current_exe().unwrap())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "run by another test, with a low limit"]
fn with_few_files() {
    let files: Vec<_> = (0..150).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
    for way in WAYS {
        let server = server("127.0.0.1:0");
        let options = PoolOptions { descriptors_spared: 0, ..options(4096) };
        let mut pool = pool(&[&server], options, way);
        let shortage = pool.shortage().unwrap();
        assert!((20..150).contains(&shortage.opened), "{shortage}");
        pool.queue(0, 1, &[0; 12]).unwrap();
        pool.flush().unwrap();
        let (from, _, octets) = come(&server).remove(0);
        server.send_to(&octets, from).unwrap();
        until(&mut pool, &mut |_, _| true, &mut |pool| pool.in_flight() == 0);
    }
    drop(files);
}

#[test]
fn other_threads_end_a_wait() {
    for way in WAYS {
        let server = server("127.0.0.1:0");
        let mut pool = pool(&[&server], options(256), way);
        for _ in 0..20 {
            let waker = pool.waker();
            let thread = thread::spawn(move || {
                thread::sleep(Duration::from_millis(2));
                (0..5).for_each(|_| waker.wake());
            });
            let began = Instant::now();
            pool.wait(Duration::from_secs(20)).unwrap();
            assert!(began.elapsed() < Duration::from_secs(10));
            thread.join().unwrap();
            pool.receive(&mut |_, _| panic!()).unwrap();
            let began = Instant::now();
            pool.wait(Duration::from_millis(10)).unwrap();
            pool.receive(&mut |_, _| panic!()).unwrap();
            pool.wait(Duration::from_millis(10)).unwrap();
            assert!(began.elapsed() >= Duration::from_millis(8), "one wake ends one wait");
        }
    }
}

//----------- Speed ----------------------------------------------------------

/// Sends every datagram back, from core 1, until `stop`.
fn echo(server: UdpSocket, stop: &std::sync::atomic::AtomicBool) {
    core_affinity::set_for_current(core_affinity::CoreId { id: 1 });
    let mut path = MmsgPath::new(vec![server]).unwrap();
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        let mut batch = path.receive().unwrap();
        if batch.is_empty() {
            path.wait(Duration::from_millis(10)).unwrap();
            continue;
        }
        let lengths: Vec<usize> = batch.datagrams_mut().map(|one| one.received_len).collect();
        lengths.iter().enumerate().for_each(|(index, len)| batch.settle(index, *len));
        path.send().unwrap();
    }
}

/// Calls `turn` for three seconds: how many replies it has had each second.
fn measure(what: &str, turn: &mut dyn FnMut() -> usize) {
    core_affinity::set_for_current(core_affinity::CoreId { id: 0 });
    let began = Instant::now();
    let mut count = 0;
    while began.elapsed() < Duration::from_secs(3) {
        count += turn();
    }
    println!("{what}: {:.0} replies/s", count as f64 / began.elapsed().as_secs_f64());
}

#[test]
#[ignore = "a measurement: run it alone, on a machine with two cores that are quiet"]
fn how_fast() {
    const WINDOW: usize = 512;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let options_of_sockets = SocketOptions { receive_buffer: 8 << 20, send_buffer: 8 << 20 };
    let address = "127.0.0.1:0".parse().unwrap();
    let server = bind_group(address, &[1], &options_of_sockets).unwrap().remove(0);
    let upstream = server.local_addr().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| echo(server, &stop));
        for ports in [64, 4096] {
            let open = |_| open_port(upstream, None, &options_of_sockets, false).unwrap();
            options(0);
            let mut path = UringClient::new((0..ports).map(open).collect()).unwrap();
            let (mut in_flight, mut next) = (0, 0);
            measure(&format!("{ports} fixed ports"), &mut || {
                while in_flight < WINDOW && path.queue(next % ports, &[7; 40]) {
                    next += 1;
                    in_flight += 1;
                }
                path.flush().unwrap();
                let got = path.receive(&mut |_| ()).unwrap();
                in_flight -= got;
                if got == 0 {
                    path.wait(Duration::from_millis(1)).unwrap();
                }
                got
            });
        }
        for (way, port_queries) in [(Way::Uring, 256), (Way::Uring, u32::MAX), (Way::Polled, 256)] {
            let options = PoolOptions { port_queries, ..options(PORTS_DEFAULT) };
            let mut pool = PortPool::new(&[upstream], options, way).unwrap();
            let mut next = 0;
            measure(&format!("a pool of 4096, {way:?}, {port_queries} queries each"), &mut || {
                while pool.in_flight() < WINDOW && pool.queue(0, next, &[7; 40]).is_ok() {
                    next += 1;
                }
                pool.flush().unwrap();
                let got = pool.receive(&mut |_, _| true).unwrap();
                if got == 0 {
                    pool.wait(Duration::from_millis(1)).unwrap();
                }
                got
            });
            println!("{:?}", pool.counters());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
