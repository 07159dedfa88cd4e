//! An upstream that a test has in its hands, a server that forwards to it, and those who ask.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::VecDeque;
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hickory_proto::op::Message as Parsed;
use hickory_proto::rr::rdata::opt::EdnsOption;
use ring53::wire::message::{CLASS_IN, Message, Section, Writer, header};
use ring53::wire::{Name, rtype};

use super::process::{PATIENCE, Process, framed, question, read, receive};
use super::support::free_port;

/// RA in the flags of a message.
pub const RA: u16 = 0x80;
/// How often threads look whether they are to end.
const TICK: Duration = Duration::from_millis(20);

//----------- Upstream -------------------------------------------------------

/// A question that came to the upstream.
pub struct Asked<'a> {
    /// The whole query.
    pub query: Message<'a>,
    /// Its name, as it came.
    pub name: Vec<u8>,
    pub qtype: u16,
    pub over_tcp: bool,
    pub state: &'a State,
}

impl Asked<'_> {
    /// The first label, in lower case.
    pub fn label(&self) -> String {
        String::from_utf8_lossy(&self.name[1..=usize::from(self.name[0])]).to_lowercase()
    }

    /// A reply to it that has no records yet.
    pub fn reply(&self, flags: u16) -> Writer {
        let mut writer = Writer::new(self.query.id(), header::QR | header::RD | RA | flags);
        writer.question(&self.name, self.qtype, CLASS_IN);
        writer
    }
}

/// What an upstream says; nothing, if that is empty.
pub type Answer = dyn Fn(&Asked<'_>) -> Vec<u8> + Send + Sync;

/// Answers over UDP and TCP on one port, until it is dropped.
pub struct Upstream {
    pub address: SocketAddr,
    pub state: Arc<State>,
    threads: Vec<JoinHandle<()>>,
}

/// What it has been asked, and how it behaves.
#[derive(Default)]
pub struct State {
    pub asked: AtomicUsize,
    pub over_tcp: AtomicUsize,
    pub delay_ms: AtomicU64,
    pub is_deaf: AtomicBool,
    pub fails: AtomicBool,
    pub ttl: AtomicU64,
    ends: AtomicBool,
    late: Mutex<VecDeque<(Instant, Vec<u8>, SocketAddr)>>,
}

impl State {
    /// The TTL of what it says.
    pub fn ttl(&self) -> u32 {
        self.ttl.load(Ordering::SeqCst) as u32
    }

    fn goes_on(&self) -> bool {
        !self.ends.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.state.ends.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let is_well = thread.join().is_ok();
            assert!(is_well || thread::panicking(), "the upstream has failed");
        }
    }
}

impl Upstream {
    /// Says [`answer`].
    pub fn start() -> Upstream {
        Upstream::saying(Box::new(answer))
    }

    /// Says what `answer` says.
    pub fn saying(answer: Box<Answer>) -> Upstream {
        loop {
            // Where it may be again later.
            let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
            if let Ok(socket) = UdpSocket::bind(address)
                && let Ok(listener) = TcpListener::bind(address)
            {
                return Upstream::on(socket, listener, answer);
            }
        }
    }

    /// As another one did that was on `address` and is gone.
    pub fn again(address: SocketAddr, answer: Box<Answer>) -> Upstream {
        let end = Instant::now() + PATIENCE;
        loop {
            let bound =
                UdpSocket::bind(address).and_then(|it| Ok((it, TcpListener::bind(address)?)));
            match bound {
                Ok((socket, listener)) => return Upstream::on(socket, listener, answer),
                Err(error) => assert!(Instant::now() < end, "{address}: {error}"),
            }
            thread::sleep(TICK);
        }
    }

    fn on(socket: UdpSocket, listener: TcpListener, answer: Box<Answer>) -> Upstream {
        let address = socket.local_addr().unwrap();
        let state = Arc::new(State::default());
        state.ttl.store(300, Ordering::SeqCst);
        socket.set_read_timeout(Some(TICK)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let answer: Arc<Answer> = answer.into();
        let threads = vec![
            thread::spawn({
                let (state, answer) = (Arc::clone(&state), Arc::clone(&answer));
                let socket = socket.try_clone().unwrap();
                move || datagrams(&socket, &state, &*answer)
            }),
            thread::spawn({
                let state = Arc::clone(&state);
                move || late(&socket, &state)
            }),
            thread::spawn({
                let state = Arc::clone(&state);
                move || connections(&listener, &state, &answer)
            }),
        ];
        Upstream { address, state, threads }
    }

    /// How many questions came over UDP.
    pub fn asked(&self) -> usize {
        self.state.asked.load(Ordering::SeqCst)
    }
}

fn datagrams(socket: &UdpSocket, state: &State, answer: &Answer) {
    let mut octets = [0; 4096];
    while state.goes_on() {
        let Ok((len, from)) = socket.recv_from(&mut octets) else { continue };
        if state.is_deaf.load(Ordering::SeqCst) {
            continue;
        }
        state.asked.fetch_add(1, Ordering::SeqCst);
        let reply = said(&octets[..len], state, answer, false);
        let delay = Duration::from_millis(state.delay_ms.load(Ordering::SeqCst));
        if !delay.is_zero() {
            state.late.lock().unwrap().push_back((Instant::now() + delay, reply, from));
        } else if !reply.is_empty() {
            let _ = socket.send_to(&reply, from);
        }
    }
}

/// Sends what is delayed.
fn late(socket: &UdpSocket, state: &State) {
    while state.goes_on() {
        let first = state.late.lock().unwrap().front().map(|(at, ..)| *at);
        match first {
            Some(at) if at <= Instant::now() => {
                let (_, reply, to) = state.late.lock().unwrap().pop_front().unwrap();
                if !reply.is_empty() {
                    let _ = socket.send_to(&reply, to);
                }
            }
            _ => thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn connections(listener: &TcpListener, state: &Arc<State>, answer: &Arc<Answer>) {
    while state.goes_on() {
        let Ok((mut stream, _)) = listener.accept() else {
            thread::sleep(TICK);
            continue;
        };
        stream.set_nonblocking(false).unwrap();
        let (state, answer) = (Arc::clone(state), Arc::clone(answer));
        thread::spawn(move || {
            while let Some(query) = receive(&mut stream) {
                state.over_tcp.fetch_add(1, Ordering::SeqCst);
                let reply = said(&query, &state, &*answer, true);
                thread::sleep(Duration::from_millis(state.delay_ms.load(Ordering::SeqCst)));
                if reply.is_empty() || stream.write_all(&framed(&reply)).is_err() {
                    return;
                }
            }
        });
    }
}

fn said(query: &[u8], state: &State, answer: &Answer, over_tcp: bool) -> Vec<u8> {
    let query = Message::new(query).unwrap();
    let question = query.question().unwrap().unwrap();
    let (name, qtype) = (question.name.to_vec(), question.qtype);
    answer(&Asked { query, name, qtype, over_tcp, state })
}

/// Every name exists: `nx...` does not, `none...` has no records, `big...` needs TCP.
pub fn answer(asked: &Asked<'_>) -> Vec<u8> {
    let (label, ttl) = (asked.label(), asked.state.ttl());
    let is_big = label.starts_with("big");
    let code = match label.starts_with("nx") {
        _ if asked.state.fails.load(Ordering::SeqCst) => 2,
        true => 3,
        false => 0,
    };
    let cut = if is_big && !asked.over_tcp { header::TC } else { 0 };
    let mut writer = asked.reply(code | cut);
    if label.starts_with("nx") || label.starts_with("none") || asked.qtype != rtype::A {
        writer.record(Section::Authority, b"\0", rtype::SOA, ttl, &soa(30));
    } else if !is_big || asked.over_tcp {
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

/// The data of a SOA with this MINIMUM.
pub fn soa(minimum: u32) -> Vec<u8> {
    [&b"\x01a\0\x01b\0"[..], &[0; 16], &minimum.to_be_bytes()].concat()
}

/// Every name has one address, its own: [`truth_of`].
pub fn truth(asked: &Asked<'_>) -> Vec<u8> {
    let mut writer = asked.reply(0);
    let address = truth_of(&asked.name);
    writer.record(Section::Answer, &asked.name, rtype::A, asked.state.ttl(), &address);
    writer.opt(1232, None);
    writer.into_octets()
}

/// A public address that no other name is likely to have.
pub fn truth_of(name: &[u8]) -> [u8; 4] {
    let hash = name.iter().fold(0xCBF2_9CE4_8422_2325_u64, |hash, octet| {
        (hash ^ u64::from(octet.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01B3)
    });
    let octets = hash.to_le_bytes();
    [53, octets[3], octets[4], octets[5]]
}

//----------- Server ---------------------------------------------------------

/// A server that forwards everything to one upstream.
pub struct Forwarding {
    pub server: Process,
    pub address: SocketAddr,
    pub directory: tempfile::TempDir,
}

impl Forwarding {
    /// `more` is added to its configuration.
    pub fn start(upstream: SocketAddr, more: &str) -> Forwarding {
        let directory = tempfile::tempdir().unwrap();
        let config = write_config(directory.path(), upstream, more);
        let server = Process::start(&["--config", &config]);
        let address = server.address();
        Forwarding { server, address, directory }
    }

    /// Its configuration file.
    pub fn config(&self) -> String {
        self.directory.path().join("ring53.toml").to_str().unwrap().into()
    }

    /// A count of what happened to questions since its start, by name.
    pub fn counter(&self, name: &str) -> u64 {
        let said = counters(&self.server);
        let total = said.lines().rfind(|line| line.contains("counters total")).unwrap();
        let word = total.split_whitespace().find_map(|word| word.strip_prefix(&format!("{name}=")));
        word.map_or(0, |count| count.parse().unwrap())
    }
}

/// Has a server print its counters; all that it has said.
pub fn counters(server: &Process) -> String {
    let before = server.said().matches("counters total").count();
    server.signal(nix::sys::signal::Signal::SIGUSR1);
    server.wait_for("counters total", before + 1)
}

/// Writes a configuration that forwards everything to `upstream`.
pub fn write_config(directory: &Path, upstream: SocketAddr, more: &str) -> String {
    let file = directory.join("ring53.toml");
    let cores = if more.contains("cores = ") { "" } else { "cores = [0]\n" };
    let text = format!(
        "version = 1\n[server]\nlisten = [\"127.0.0.1:0\"]\nstate = \"state\"\n{cores}{more}\n\
         [[forward]]\nzone = \".\"\nto = [\"{upstream}\"]\n"
    );
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().into()
}

/// Octets of a process that are in memory.
pub fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Tells threads to end, also if the test has failed.
pub struct Ends<'a>(pub &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// One test at a time, where others would disturb what is measured.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

//----------- Who asks -------------------------------------------------------

/// The reply to one query over UDP.
pub fn octets_of(server: SocketAddr, query: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(query).unwrap();
    let mut octets = vec![0; 65536];
    let len = socket.recv(&mut octets).unwrap();
    octets.truncate(len);
    octets
}

/// The same, read.
pub fn reply_of(server: SocketAddr, query: &[u8]) -> Parsed {
    Parsed::from_vec(&octets_of(server, query)).unwrap()
}

/// The reply to one query over TCP.
pub fn streamed(server: SocketAddr, query: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&framed(query)).unwrap();
    receive(&mut stream).expect("a reply")
}

/// A question for the A of `name`, with OPT.
pub fn with_opt(name: &str) -> Vec<u8> {
    with_opt_of(name, rtype::A, 1232)
}

/// A question with OPT.
pub fn with_opt_of(name: &str, qtype: u16, size: u16) -> Vec<u8> {
    let mut writer = Writer::new(9, header::RD);
    writer.question(name.parse::<Name>().unwrap().as_wire(), qtype, CLASS_IN);
    writer.opt(size, None);
    writer.into_octets()
}

/// A question for the A of `name`, with RD.
pub fn desired(name: &str) -> Vec<u8> {
    let mut query = question(7, name);
    query[2] |= 1;
    query
}

pub fn ask_recursively(server: SocketAddr, name: &str) -> (u16, Vec<String>) {
    read(&octets_of(server, &desired(name)))
}

/// Codes of the Extended DNS Errors.
pub fn edes(reply: &Parsed) -> Vec<u16> {
    let edns = reply.extensions().as_ref().unwrap();
    let code = |option: &EdnsOption| match option {
        EdnsOption::Unknown(15, octets) => Some(u16::from_be_bytes([octets[0], octets[1]])),
        _ => None,
    };
    edns.options().as_ref().iter().filter_map(|(_, option)| code(option)).collect()
}

/// The only address of a reply with the code NOERROR, read without allocating.
pub fn address_in(reply: &[u8]) -> Option<[u8; 4]> {
    let message = Message::new(reply)?;
    let mut records = message.records().ok()?;
    let record = records.next()?.ok()?;
    let is_one = message.rcode() == 0 && message.count(1) == 1 && record.rtype == rtype::A;
    is_one.then(|| reply[record.rdata].try_into().ok())?
}

/// The name `<prefix><number>.example.`, on the wire.
pub fn numbered(prefix: &str, number: u64) -> Vec<u8> {
    let label = format!("{prefix}{number}");
    [&[label.len() as u8], label.as_bytes(), b"\x07example\0"].concat()
}

/// A query for the A of `name`, with RD and OPT.
pub fn query_of(id: u16, name: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(id, header::RD);
    writer.question(name, rtype::A, CLASS_IN);
    writer.opt(1232, None);
    writer.into_octets()
}

/// Asks for the names that `name_of` gives for each of `count` numbers over UDP, `window` at once;
/// `take` gets the number and the reply. What is lost is asked again. Returns how often that was.
pub fn ask_many(
    server: SocketAddr,
    count: u64,
    window: usize,
    name_of: impl Fn(u64) -> Vec<u8>,
    mut take: impl FnMut(u64, &[u8]),
) -> u64 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut waiting: Vec<Option<(u64, Instant)>> = vec![None; window];
    let mut free: Vec<usize> = (0..window).collect();
    let (mut next, mut done, mut again, mut octets) = (0, 0, 0, vec![0; 65536]);
    let mut moved = Instant::now();
    while done < count {
        while next < count
            && let Some(place) = free.pop()
        {
            socket.send(&query_of(place as u16, &name_of(next))).unwrap();
            waiting[place] = Some((next, Instant::now()));
            next += 1;
        }
        if let Ok(len) = socket.recv(&mut octets) {
            let place = usize::from(u16::from_be_bytes([octets[0], octets[1]]));
            // What was asked twice may be answered twice.
            let expected = |number: u64| {
                octets[..len].get(12..).is_some_and(|rest| {
                    let name = name_of(number);
                    rest.len() > name.len() && rest[..name.len()] == name
                })
            };
            let is_it = waiting.get(place).copied().flatten().filter(|it| expected(it.0));
            let Some((number, _)) = is_it else { continue };
            take(number, &octets[..len]);
            (waiting[place], moved) = (None, Instant::now());
            free.push(place);
            done += 1;
            continue;
        }
        assert!(moved.elapsed() < PATIENCE, "{done} of {count} answered, then nothing");
        for (place, waits) in waiting.iter_mut().enumerate() {
            if let Some((number, since)) = waits
                && since.elapsed() > Duration::from_secs(6)
            {
                socket.send(&query_of(place as u16, &name_of(*number))).unwrap();
                *since = Instant::now();
                again += 1;
            }
        }
    }
    again
}

//----------- Hits -----------------------------------------------------------

/// Asks for names that the cache has, at an even rate, until it is told to end.
pub struct Hits {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<HitTally>,
}

/// How that went.
#[derive(Debug, Default)]
pub struct HitTally {
    pub asked: u64,
    pub answered: u64,
    /// Replies that were not the truth.
    pub wrong: u64,
    pub slowest: Duration,
}

impl Hits {
    /// Asks for `<prefix>0` to `<prefix><names - 1>`, of which [`truth_of`] is the answer.
    pub fn start(server: SocketAddr, prefix: &'static str, names: u64, per_second: u64) -> Hits {
        let ends = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ends);
        let thread = thread::spawn(move || {
            hits(server, prefix, (names, per_second), || ended.load(Ordering::SeqCst))
        });
        Hits { ends, thread }
    }

    /// Ends it, and waits a while for what is under way.
    pub fn finish(self) -> HitTally {
        self.ends.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

fn hits(
    server: SocketAddr,
    prefix: &str,
    (names, per_second): (u64, u64),
    ends: impl Fn() -> bool,
) -> HitTally {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    socket.set_nonblocking(true).unwrap();
    let (mut tally, begun) = (HitTally::default(), Instant::now());
    let mut waiting: Vec<Option<(u64, Instant)>> = vec![None; 1 << 16];
    let mut octets = [0; 4096];
    let mut ended: Option<Instant> = None;
    loop {
        let due = begun.elapsed().as_micros() as u64 * per_second / 1_000_000;
        if ends() && ended.is_none() {
            ended = Some(Instant::now());
        }
        // A thread that was away catches up in small steps.
        for _ in 0..due.saturating_sub(tally.asked).min(16) * u64::from(ended.is_none()) {
            let (id, number) = (tally.asked as u16, tally.asked % names);
            socket.send(&query_of(id, &numbered(prefix, number))).unwrap();
            waiting[usize::from(id)] = Some((number, Instant::now()));
            tally.asked += 1;
        }
        while let Ok(len) = socket.recv(&mut octets) {
            let id = usize::from(u16::from_be_bytes([octets[0], octets[1]]));
            let Some((number, since)) = waiting[id].take() else { continue };
            tally.answered += 1;
            tally.slowest = tally.slowest.max(since.elapsed());
            let truth = truth_of(&numbered(prefix, number));
            tally.wrong += u64::from(address_in(&octets[..len]) != Some(truth));
        }
        let is_over = |since: Instant| {
            tally.answered == tally.asked || since.elapsed() > Duration::from_secs(3)
        };
        if ended.is_some_and(is_over) {
            return tally;
        }
        thread::sleep(Duration::from_micros(500));
    }
}
