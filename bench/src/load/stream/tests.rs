//! Against servers that behave, and that do not.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use super::*;

/// Longer than anything takes that is going to happen.
const PATIENCE: Duration = Duration::from_secs(20);

fn options(server: SocketAddr, connections: usize, queries_per_connection: u32) -> LoadOptions {
    LoadOptions {
        ports: 1,
        connections,
        queries_per_connection,
        timeout: Duration::from_secs(5),
        ..LoadOptions::to(server)
    }
}

/// Serves each connection in a thread of its own and says where each came from.
fn serve(
    listen: &str,
    converse: impl Fn(TcpStream) + Clone + Send + 'static,
) -> (SocketAddr, Receiver<SocketAddr>) {
    let listener = TcpListener::bind(listen).unwrap();
    let address = listener.local_addr().unwrap();
    let (peers, seen) = channel();
    thread::spawn(move || {
        while let Ok((stream, peer)) = listener.accept() {
            let converse = converse.clone();
            if peers.send(peer).is_err() {
                break;
            }
            thread::spawn(move || converse(stream));
        }
    });
    (address, seen)
}

/// The next query of a connection.
fn next_query(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut len = [0; 2];
    stream.read_exact(&mut len).ok()?;
    let mut message = vec![0; u16::from_be_bytes(len) as usize];
    stream.read_exact(&mut message).ok()?;
    Some(message)
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

/// Sends `count` queries back in pieces of odd lengths, then closes; `usize::MAX`: for ever.
fn echo(mut stream: TcpStream, count: usize) {
    stream.set_nodelay(true).unwrap();
    let mut number = 0;
    while number < count {
        let Some(message) = next_query(&mut stream) else { return };
        for piece in framed(&message).chunks(1 + number % 40) {
            if stream.write_all(piece).is_err() {
                return;
            }
        }
        number += 1;
    }
    let _ = stream.shutdown(Shutdown::Write);
}

fn query(number: usize) -> Vec<u8> {
    let mut message = vec![0; 12 + number % 50];
    message[..2].copy_from_slice(&(number as u16).to_be_bytes());
    message[4..8].copy_from_slice(&(number as u32).to_be_bytes());
    message
}

fn number_of(message: &[u8]) -> usize {
    u32::from_be_bytes(message[4..8].try_into().unwrap()) as usize
}

/// Asks `count` queries over the lanes in turn; returns those that were answered on the lane they
/// were asked on, and how many could not be sent. Ends when all have come, or after `silence`.
fn exchange(streams: &mut Streams, count: usize, silence: Duration) -> (BTreeSet<usize>, usize) {
    let (mut answered, mut unsent, mut asked) = (BTreeSet::new(), 0, 0);
    let mut last = Instant::now();
    while answered.len() + unsent < count && last.elapsed() < silence {
        while asked < count && streams.queue(asked % streams.lanes(), &query(asked)) {
            asked += 1;
        }
        unsent += streams.flush().unwrap();
        streams.wait(Duration::from_millis(1)).unwrap();
        let lanes = streams.lanes();
        let arrived = streams.receive(&mut |arrival| {
            let number = number_of(arrival.message);
            assert_eq!(number % lanes, arrival.lane);
            assert_eq!(query(number), arrival.message);
            assert!(answered.insert(number), "{number} came twice");
        });
        if arrived.unwrap() > 0 {
            last = Instant::now();
        }
    }
    (answered, unsent)
}

#[test]
fn connections_that_stay_open_carry_everything() {
    for listen in ["127.0.0.1:0", "[::1]:0"] {
        let (server, _seen) = serve(listen, |stream| echo(stream, usize::MAX));
        let mut streams = Streams::open(&options(server, 4, 0), 0).unwrap();
        let (answered, unsent) = exchange(&mut streams, 5000, PATIENCE);
        assert_eq!((answered.len(), unsent), (5000, 0));
        assert_eq!(streams.connections(), (4, 0));
    }
}

#[test]
fn one_connection_for_each_query() {
    let (server, seen) = serve("127.0.0.1:0", |stream| echo(stream, usize::MAX));
    let mut streams = Streams::open(&options(server, 3, 1), 0).unwrap();
    assert_eq!(streams.connections(), (0, 0));
    let (answered, unsent) = exchange(&mut streams, 600, PATIENCE);
    assert_eq!((answered.len(), unsent), (600, 0));
    assert_eq!(streams.connections(), (600, 0));
    assert_eq!(seen.try_iter().count(), 600);
    // All are closed: their places are free.
    assert_eq!(streams.vacant.len(), streams.places.len());
}

#[test]
fn a_connection_is_replaced_after_so_many_queries() {
    let (server, _seen) = serve("127.0.0.1:0", |mut stream| {
        let mut count = 0;
        while let Some(message) = next_query(&mut stream) {
            count += 1;
            assert!(count <= 10);
            stream.write_all(&framed(&message)).unwrap();
        }
    });
    let mut streams = Streams::open(&options(server, 2, 10), 0).unwrap();
    let (answered, unsent) = exchange(&mut streams, 400, PATIENCE);
    assert_eq!((answered.len(), unsent), (400, 0));
    let (opened, broken) = streams.connections();
    assert!((40..=42).contains(&opened), "{opened}");
    assert_eq!(broken, 0);
}

#[test]
fn source_addresses_take_turns() {
    let (server, seen) = serve("127.0.0.1:0", |stream| echo(stream, usize::MAX));
    let mut with_sources = options(server, 2, 1);
    with_sources.sources = ["127.0.0.2", "127.0.0.3"].map(|it| it.parse().unwrap()).into();
    let mut streams = Streams::open(&with_sources, 0).unwrap();
    assert_eq!(exchange(&mut streams, 40, PATIENCE).0.len(), 40);
    let peers: Vec<IpAddr> = seen.try_iter().map(|peer| peer.ip()).collect();
    for source in with_sources.sources {
        assert_eq!(peers.iter().filter(|&&peer| peer == source).count(), 20);
    }
}

#[test]
fn a_server_that_closes_costs_what_it_had_not_answered() {
    // The server answers 7 on each connection, then closes it.
    let (server, seen) = serve("127.0.0.1:0", |stream| echo(stream, 7));
    let mut streams = Streams::open(&options(server, 1, 0), 0).unwrap();
    // One at a time nothing is lost: nothing is outstanding when it closes.
    seen.recv_timeout(PATIENCE).unwrap();
    for _ in 0..3 {
        let (answered, unsent) = exchange(&mut streams, 7, PATIENCE);
        assert_eq!((answered.len(), unsent), (7, 0));
        // Its end is noticed, and a new connection is there.
        let end = Instant::now() + PATIENCE;
        while seen.try_recv().is_err() && Instant::now() < end {
            streams.wait(Duration::from_millis(1)).unwrap();
            streams.receive(&mut |_| {}).unwrap();
        }
    }
    assert_eq!(streams.connections().1, 0);
    // All at once: what the closed connection had taken is lost, and it counts as broken.
    let (answered, _) = exchange(&mut streams, 100, Duration::from_millis(500));
    assert!(answered.len() < 100, "{}", answered.len());
    assert!(streams.connections().1 > 0);
}

#[test]
fn a_server_that_refuses_costs_bounded_work() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    let mut persistent = Streams::open(&options(server, 1, 0), 0).unwrap();
    drop(listener.accept().unwrap());
    drop(listener);
    let Err(error) = Streams::open(&options(server, 1, 0), 0) else { panic!("nobody listens") };
    assert!(error.to_string().contains("does it listen on TCP"), "{error}");
    let single = Streams::open(&options(server, 1, 1), 0).unwrap();
    for mut streams in [std::mem::replace(&mut persistent, single), persistent] {
        let end = Instant::now() + Duration::from_millis(300);
        let (mut queued, mut unsent) = (0, 0);
        while Instant::now() < end {
            queued += usize::from(streams.queue(0, &query(1)));
            unsent += streams.flush().unwrap();
            streams.receive(&mut |_| panic!("nobody answers")).unwrap();
        }
        unsent += streams.flush().unwrap();
        let (opened, broken) = streams.connections();
        // 10 + 20 + 40 + 80 + 160 ms: the sixth attempt is past the end.
        assert!((2..=8).contains(&opened), "{opened} connections");
        assert!(broken + 1 >= opened, "{broken} of {opened}");
        // The connection that was accepted, and closed, may have taken one.
        assert!(queued - unsent <= 1, "{queued} queued, {unsent} could not be sent");
    }
}

#[test]
fn a_server_that_does_not_read_is_not_fed_without_end() {
    let (server, _seen) = serve("127.0.0.1:0", |stream| {
        thread::sleep(PATIENCE);
        drop(stream);
    });
    let mut streams = Streams::open(&options(server, 1, 0), 0).unwrap();
    let message = vec![1; 1000];
    let mut refused = 0;
    let mut queued = 0;
    while refused < 10 {
        if streams.queue(0, &message) {
            queued += 1;
        } else {
            refused += 1;
            streams.flush().unwrap();
        }
        // The kernel takes some megabytes by itself.
        assert!(queued < 100_000);
    }
    assert!(streams.places[0].outgoing.unsent().count() <= OUTGOING_OCTETS_MAX / 1002);
}

#[test]
fn lengths_without_sense_end_the_connection() {
    let (server, seen) = serve("127.0.0.1:0", |mut stream| {
        let Some(message) = next_query(&mut stream) else { return };
        stream.write_all(&[framed(&message), vec![0, 5, 1, 2, 3, 4, 5, 0xFF]].concat()).unwrap();
        while next_query(&mut stream).is_some() {}
    });
    let mut streams = Streams::open(&options(server, 1, 0), 0).unwrap();
    for round in 1..=3 {
        seen.recv_timeout(PATIENCE).unwrap();
        for number in [1, 2] {
            assert!(streams.queue(0, &query(number)));
        }
        streams.flush().unwrap();
        let (mut lens, end) = (Vec::new(), Instant::now() + PATIENCE);
        while streams.connections().1 < round && Instant::now() < end {
            streams.wait(Duration::from_millis(1)).unwrap();
            streams.receive(&mut |arrival| lens.push(arrival.message.len())).unwrap();
        }
        assert_eq!(lens, [query(1).len(), 5]);
        assert_eq!(streams.connections(), (round + 1, round));
    }
}

#[test]
fn what_is_never_answered_does_not_stay_open() {
    let (server, _seen) =
        serve("127.0.0.1:0", |mut stream| while next_query(&mut stream).is_some() {});
    let mut short = options(server, 1, 1);
    short.timeout = Duration::from_millis(50);
    let mut streams = Streams::open(&short, 0).unwrap();
    assert!(exchange(&mut streams, 20, Duration::from_millis(30)).0.is_empty());
    let end = Instant::now() + PATIENCE;
    while streams.vacant.len() < 20 && Instant::now() < end {
        streams.wait(Duration::from_millis(5)).unwrap();
        streams.receive(&mut |_| panic!("nobody answers")).unwrap();
    }
    assert_eq!((streams.vacant.len(), streams.draining.len()), (20, 0));
    assert_eq!(streams.connections(), (20, 0));
}
