//! Who forges replies to what is forwarded: nothing of it is believed, all of it that reaches the
//! server is counted, and neither ports nor IDs can be guessed.
//!
//! ```text
//!   server ──query──> upstream ──> sample (port, ID) ──┬── forgeries, for as long as it waits
//!      <───── true reply, 20 ms later ─────────────────┘
//! ```

#[path = "support/process.rs"]
mod process;
mod support;
#[path = "support/upstream.rs"]
mod upstream;

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ring53::wire::message::{CLASS_IN, Message, Section, Writer, header};
use ring53::wire::rtype;

use support::{Random, seed};
use upstream::{
    Ends, Forwarding, RA, Upstream, address_in, alone, ask_many, numbered, truth, truth_of,
};

/// What forgers want to be believed.
const FORGED: [u8; 4] = [203, 0, 113, 66];
/// Forgeries in a second.
const RATE: u64 = 100_000;
/// How long the true reply takes.
const DELAY: Duration = Duration::from_millis(20);

//----------- Forger ---------------------------------------------------------

/// A question that waits for its reply.
#[derive(Clone)]
struct Waiting {
    since: Instant,
    query: Vec<u8>,
    from: SocketAddr,
    /// Forgeries with its own ID and port so far: past a few a question is given up, which is what
    /// whoever knows both can have.
    told: u32,
}

/// What the forger has sent, by kind.
#[derive(Default)]
struct Sent {
    wrong_id: AtomicU64,
    wrong_port: AtomicU64,
    wrong_question: AtomicU64,
    wrong_source: AtomicU64,
}

impl Sent {
    fn each(&self) -> [u64; 4] {
        [&self.wrong_id, &self.wrong_port, &self.wrong_question, &self.wrong_source]
            .map(|count| count.load(Ordering::SeqCst))
    }
}

struct Scene {
    /// The upstream's.
    socket: UdpSocket,
    /// Another port, and the upstream's port on another address.
    others: [UdpSocket; 2],
    waiting: Mutex<VecDeque<Waiting>>,
    ports: Mutex<Vec<u16>>,
    ended: AtomicBool,
    sent: Sent,
}

impl Scene {
    fn goes_on(&self) -> bool {
        !self.ended.load(Ordering::SeqCst)
    }

    /// Takes questions, and answers each truly when its time has come.
    fn answer(&self) {
        let mut octets = [0; 4096];
        while self.goes_on() {
            if let Ok((len, from)) = self.socket.recv_from(&mut octets) {
                self.ports.lock().unwrap().push(from.port());
                let (since, query) = (Instant::now(), octets[..len].to_vec());
                self.waiting.lock().unwrap().push_back(Waiting { since, query, from, told: 0 });
            }
            let mut waiting = self.waiting.lock().unwrap();
            while waiting.front().is_some_and(|first| first.since.elapsed() >= DELAY) {
                let first = waiting.pop_front().unwrap();
                let query = Message::new(&first.query).unwrap();
                let name = query.question().unwrap().unwrap().name.to_vec();
                let reply = reply(query.id(), &name, truth_of(&name));
                self.socket.send_to(&reply, first.from).unwrap();
            }
        }
    }

    /// Sends forgeries for questions that wait, as many as [`RATE`] says.
    fn forge(&self, random: &mut Random) {
        let begun = Instant::now();
        while self.goes_on() {
            let due = begun.elapsed().as_micros() as u64 * RATE / 1_000_000;
            if self.sent.each().iter().sum::<u64>() >= due {
                thread::sleep(Duration::from_micros(200));
                continue;
            }
            let target = {
                let mut waiting = self.waiting.lock().unwrap();
                let count = waiting.len() as u64;
                if count == 0 {
                    None
                } else {
                    let target = &mut waiting[random.below(count) as usize];
                    target.told += 1;
                    Some(target.clone())
                }
            };
            match target {
                Some(target) => self.forge_one(&target, random),
                None => thread::sleep(Duration::from_micros(200)),
            }
        }
    }

    fn forge_one(&self, target: &Waiting, random: &mut Random) {
        let query = Message::new(&target.query).unwrap();
        let name = query.question().unwrap().unwrap().name.to_vec();
        let right = query.id();
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::SeqCst);
        for _ in 0..10 {
            let wrong = right ^ (1 + random.below(0xFFFF) as u16);
            let _ = self.socket.send_to(&reply(wrong, &name, FORGED), target.from);
            count(&self.sent.wrong_id);
        }
        // A port that has been used: it may be open still, with another question on it.
        let port = {
            let ports = self.ports.lock().unwrap();
            ports[random.below(ports.len() as u64) as usize]
        };
        if port != target.from.port() {
            let to = SocketAddr::new(target.from.ip(), port);
            let _ = self.socket.send_to(&reply(right, &name, FORGED), to);
            count(&self.sent.wrong_port);
        }
        for other in &self.others {
            let _ = other.send_to(&reply(right, &name, FORGED), target.from);
            count(&self.sent.wrong_source);
        }
        // Many of these in a row, and the upstream would be left alone: it says what is not true.
        if target.told == 1 && right.is_multiple_of(4) {
            let other = [b"\x05other", &name[..]].concat();
            let _ = self.socket.send_to(&reply(right, &other, FORGED), target.from);
            count(&self.sent.wrong_question);
        }
    }
}

fn reply(id: u16, name: &[u8], address: [u8; 4]) -> Vec<u8> {
    let mut writer = Writer::new(id, header::QR | header::RD | RA);
    writer.question(name, rtype::A, CLASS_IN);
    writer.record(Section::Answer, name, rtype::A, 3600, &address);
    writer.into_octets()
}

/// Sockets of an upstream and of two that are not it.
fn scene() -> (Scene, SocketAddr, TcpListener) {
    loop {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let near = UdpSocket::bind(("127.0.0.2", address.port()));
        let (Ok(near), Ok(listener)) = (near, TcpListener::bind(address)) else { continue };
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let far = UdpSocket::bind("127.0.0.1:0").unwrap();
        let scene = Scene {
            socket,
            others: [far, near],
            waiting: Mutex::default(),
            ports: Mutex::default(),
            ended: AtomicBool::new(false),
            sent: Sent::default(),
        };
        return (scene, address, listener);
    }
}

#[test]
fn forged_replies_are_not_believed() {
    let _alone = alone();
    let names = 4000;
    let mut random = Random(seed());
    let (scene, address, _listener) = scene();
    let forwarding = Forwarding::start(address, "");
    let begun = Instant::now();
    let took = thread::scope(|scope| {
        let ends = Ends(&scene.ended);
        scope.spawn(|| scene.answer());
        scope.spawn(|| scene.forge(&mut random));
        ask_many(
            forwarding.address,
            names,
            16,
            |number| numbered("f", number),
            |number, reply| {
                let truth = truth_of(&numbered("f", number));
                assert_eq!(address_in(reply), Some(truth), "f{number}: {reply:02x?}");
            },
        );
        let took = begun.elapsed();
        drop(ends);
        took
    });
    let sent = scene.sent.each();
    let rate = sent.iter().sum::<u64>() as f64 / took.as_secs_f64();
    println!(
        "wrong ID, port, question, source: {sent:?} forgeries for {names} questions in {took:.1?}, \
         {rate:.0} a second"
    );
    let least = [names * 10, names, names / 8, names];
    let is_enough = sent.iter().zip(least).all(|(sent, least)| *sent > least);
    assert!(is_enough, "{sent:?}: the forger has done too little");
    // What is in the cache is the truth as well: nobody is asked any more.
    let asked = scene.ports.lock().unwrap().len();
    ask_many(
        forwarding.address,
        names,
        64,
        |number| numbered("f", number),
        |number, reply| {
            let truth = truth_of(&numbered("f", number));
            assert_eq!(address_in(reply), Some(truth), "f{number} in the cache");
        },
    );
    assert_eq!(scene.ports.lock().unwrap().len(), asked);
    // What the kernel has not dropped (another source, a port that is not open, a buffer that is
    // full) is counted.
    let [unmatched, declined] =
        ["resolve.unmatched", "resolve.declined"].map(|name| forwarding.counter(name));
    println!("unmatched {unmatched}, declined {declined}");
    // On a machine that is busy the kernel drops most: then the buffer is full all the time. And
    // what was asked again may have a true reply that comes too late.
    let again = (asked as u64).saturating_sub(names);
    println!("{again} asked again");
    assert!(unmatched > sent[0] / 10, "{unmatched} of {sent:?}");
    assert!(unmatched <= sent[0] + sent[1] + again, "{unmatched} of {sent:?}, {again}");
    assert!(
        declined > sent[2] / 10 && declined <= sent[2] + again,
        "{declined} of {sent:?}, {again}"
    );
}

//----------- Ports and IDs --------------------------------------------------

/// What a query looked like from outside, and who has caused it.
#[derive(Clone, Copy)]
struct Sample {
    port: u16,
    id: u16,
    /// `a` and `b`: two cores; `t`: TCP.
    group: u8,
}

/// The statistic of Pearson over `counts`, all equally likely.
fn chi_square(counts: &[u64]) -> f64 {
    let expected = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
    counts.iter().map(|&count| (count as f64 - expected).powi(2) / expected).sum()
}

/// How far a chi-square is from what is expected, in standard deviations (Wilson and Hilferty).
fn deviation(chi_square: f64, freedom: f64) -> f64 {
    let scale = 2.0 / (9.0 * freedom);
    ((chi_square / freedom).cbrt() - (1.0 - scale)) / scale.sqrt()
}

/// Fails if the samples' `class` below `classes` is not uniform.
fn assert_uniform(what: &str, classes: usize, samples: impl Iterator<Item = usize>) {
    let mut counts = vec![0; classes];
    samples.for_each(|class| counts[class] += 1);
    let statistic = chi_square(&counts);
    let deviation = deviation(statistic, classes as f64 - 1.0);
    println!("{what}: chi-square {statistic:.1} for {classes} classes, {deviation:+.2} sigma");
    // A generator that is uniform fails once in two million times.
    assert!(deviation.abs() < 5.0, "{what}: {deviation:+.2} sigma: {counts:?}");
}

/// Fails if `class` is distributed in another way in one group than in others.
fn assert_alike(what: &str, classes: usize, samples: &[Sample], class: impl Fn(&Sample) -> usize) {
    let groups = [b'a', b'b', b't'];
    let mut counts = vec![[0u64; 3]; classes];
    for sample in samples {
        let group = groups.iter().position(|group| *group == sample.group).unwrap();
        counts[class(sample)][group] += 1;
    }
    let of_group: [u64; 3] = std::array::from_fn(|g| counts.iter().map(|row| row[g]).sum());
    assert!(of_group.iter().all(|count| *count > 1000), "{of_group:?}");
    let (all, mut statistic) = (samples.len() as f64, 0.0);
    for row in &counts {
        let of_class = row.iter().sum::<u64>() as f64;
        for (group, &count) in row.iter().enumerate() {
            let expected = of_class * of_group[group] as f64 / all;
            statistic += (count as f64 - expected).powi(2) / expected;
        }
    }
    let deviation = deviation(statistic, (classes - 1) as f64 * 2.0);
    println!("{what} by {of_group:?}: chi-square {statistic:.1}, {deviation:+.2} sigma");
    assert!(deviation < 5.0, "{what}: {deviation:+.2} sigma");
}

/// Asks for `count` names over UDP from `core`, so that its thread receives the questions.
fn ask_from(core: usize, server: SocketAddr, prefix: &str, count: u64) {
    core_affinity::set_for_current(core_affinity::CoreId { id: core });
    ask_many(server, count, 128, |number| numbered(prefix, number), |_, _| {});
}

fn ask_over_tcp(server: SocketAddr, count: u64) {
    use std::io::Write;
    let mut stream = process::connect(server);
    for first in (0..count).step_by(100) {
        for number in first..(first + 100).min(count) {
            let query = upstream::query_of(number as u16, &numbered("t", number));
            stream.write_all(&process::framed(&query)).unwrap();
        }
        for _ in first..(first + 100).min(count) {
            process::receive(&mut stream).expect("a reply");
        }
    }
}

#[test]
fn ports_and_ids_are_uniform() {
    let _alone = alone();
    let (each, over_tcp) = (45_000, 10_000);
    let samples = std::sync::Arc::new(Mutex::new(Vec::<Sample>::new()));
    let (told, seen) = std::sync::mpsc::channel();
    // The port is the sender's: the socket has to be asked for it, so it is a loop of its own.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let _listener = TcpListener::bind(address);
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let (into, ended) = (std::sync::Arc::clone(&samples), AtomicBool::new(false));
    let cores: Vec<usize> = core_affinity::get_core_ids().unwrap().iter().map(|it| it.id).collect();
    let (first, last) = (cores[0], cores[cores.len().min(2) - 1]);
    let list = if first == last { format!("{first}") } else { format!("{first}, {last}") };
    thread::scope(|scope| {
        let ends = Ends(&ended);
        scope.spawn(|| {
            let mut octets = [0; 4096];
            told.send(()).unwrap();
            while !ended.load(Ordering::SeqCst) {
                let Ok((len, from)) = socket.recv_from(&mut octets) else { continue };
                let query = Message::new(&octets[..len]).unwrap();
                let Ok(Some(question)) = query.question() else { continue };
                let name = question.name.to_vec();
                let group = name[1].to_ascii_lowercase();
                if [b'a', b'b', b't'].contains(&group) {
                    let (port, id) = (from.port(), query.id());
                    into.lock().unwrap().push(Sample { port, id, group });
                }
                let reply = reply(query.id(), &name, truth_of(&name));
                socket.send_to(&reply, from).unwrap();
            }
        });
        seen.recv().unwrap();
        let forwarding = Forwarding::start(address, &format!("cores = [{list}]\n"));
        let server = forwarding.address;
        thread::scope(|scope| {
            scope.spawn(|| ask_from(first, server, "a", each));
            scope.spawn(|| ask_from(last, server, "b", each));
            scope.spawn(|| ask_over_tcp(server, over_tcp));
        });
        let said = upstream::counters(&forwarding.server);
        said.lines().filter(|line| line.contains("counters core")).for_each(|it| println!("{it}"));
        drop(ends);
    });
    let samples = samples.lock().unwrap().clone();
    println!("{} samples on cores {list}", samples.len());
    assert!(samples.len() as u64 >= 2 * each + over_tcp);
    judge(&samples);
}

fn judge(samples: &[Sample]) {
    // The ports that may be used: 1024 to 65535.
    let port = |sample: &Sample, classes: usize| usize::from(sample.port - 1024) * classes / 64_512;
    let id = |sample: &Sample, classes: usize| usize::from(sample.id) * classes / 65_536;
    let of = |class: &dyn Fn(&Sample) -> usize| samples.iter().map(class).collect::<Vec<_>>();
    assert_uniform("ports", 64, of(&|it| port(it, 64)).into_iter());
    assert_uniform("IDs, high octet", 256, of(&|it| id(it, 256)).into_iter());
    assert_uniform("IDs, low octet", 256, of(&|it| usize::from(it.id & 0xFF)).into_iter());
    assert_uniform("ports and IDs", 1024, of(&|it| port(it, 32) * 32 + id(it, 32)).into_iter());
    // What comes next is no nearer than anything else.
    let pairs = || samples.windows(2).map(|pair| [pair[0], pair[1]]);
    let steps = |a: u16, b: u16| usize::from(b.wrapping_sub(a)) / 256;
    assert_uniform("steps of IDs", 256, pairs().map(|[a, b]| steps(a.id, b.id)));
    let next = |[a, b]: [Sample; 2]| port(&a, 16) * 16 + port(&b, 16);
    assert_uniform("ports, one after the other", 256, pairs().map(next));
    let ports: std::collections::BTreeSet<u16> = samples.iter().map(|it| it.port).collect();
    println!("{} different ports", ports.len());
    assert!(ports.len() >= 4000, "{} ports", ports.len());
    assert_alike("ports", 64, samples, |it| port(it, 64));
    assert_alike("IDs", 64, samples, |it| id(it, 64));
    // Drawn by one thread for its own, each group would have its own ports.
    for group in [b'a', b'b', b't'] {
        let own: std::collections::BTreeSet<u16> =
            samples.iter().filter(|it| it.group == group).map(|it| it.port).collect();
        println!("{}: {} ports", char::from(group), own.len());
        assert!(own.len() > 2048, "{} ports", own.len());
    }
}

/// The tests that fail once in two million times do fail for what is not uniform.
#[test]
fn what_is_not_uniform_is_seen() {
    let mut random = Random(seed());
    let counts = |random: &mut Random, below: u64| {
        let mut counts = vec![0; 64];
        (0..100_000).for_each(|_| counts[random.below(below) as usize] += 1);
        counts
    };
    assert!(deviation(chi_square(&counts(&mut random, 64)), 63.0).abs() < 5.0);
    assert!(deviation(chi_square(&counts(&mut random, 63)), 63.0) > 5.0);
    let mut skewed = counts(&mut random, 64);
    skewed[0] += 400;
    assert!(deviation(chi_square(&skewed), 63.0) > 5.0);
    let even = vec![1562; 64];
    assert!(deviation(chi_square(&even), 63.0) < -5.0, "too even is not random either");
}

/// Whoever knows port and ID is not believed either, unless the letters' case comes back; what is
/// in doubt is asked over TCP.
#[test]
fn the_right_id_in_the_wrong_case_is_not_believed() {
    let forger = |asked: &upstream::Asked<'_>| {
        if asked.over_tcp {
            return truth(asked);
        }
        let lower = asked.name.to_ascii_lowercase();
        // Names without letters in upper case are left to the truth.
        if lower == asked.name { truth(asked) } else { reply(asked.query.id(), &lower, FORGED) }
    };
    let upstream = Upstream::saying(Box::new(forger));
    let forwarding = Forwarding::start(upstream.address, "");
    for number in 0..3 {
        let name = numbered("manylettersmanyletters", number);
        let reply = upstream::octets_of(forwarding.address, &upstream::query_of(1, &name));
        assert_eq!(address_in(&reply), Some(truth_of(&name)));
    }
    assert_eq!(upstream.state.over_tcp.load(Ordering::SeqCst), 3);
    assert_eq!(forwarding.counter("resolve.declined"), 3);
}
