//! A primary that changes a few records of a large zone, and measures how soon its secondary
//! answers with them.
//!
//! ```text
//!   change ──NOTIFY──> secondary ──SOA?, IXFR?──> last octet sent ──────> first new answer
//!                                                       └── what is measured ──┘
//! ```

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ring53::answer::{CoreState, Counters, Exchange, Transport, Verdict, answer_batch};
use ring53::policy::{AccessList, Rules};
use ring53::snapshot::{Identity, Snapshot, ZoneState, ZoneTable};
use ring53::transfer::outgoing::{Granted, begin};
use ring53::wire::message::{CLASS_IN, Message, Writer, header, opcode};
use ring53::wire::{Name, rtype};
use ring53::zone::change::{Change, Journal, Record};
use ring53::zone::records::expand;
use ring53::zone::{HashKey, LoadOptions, Source, SourceText, Text, Zone, changed, load};

const APEX: &str = "example.";
/// How long the secondary may take for a version.
const LATE: Duration = Duration::from_secs(120);
/// Between two looks at the secondary.
const LOOK: Duration = Duration::from_micros(200);

struct FromDisk;

impl Source for FromDisk {
    fn read(&self, path: &str, _: Option<&str>) -> Result<SourceText, String> {
        let text = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
        Ok(SourceText { name: path.into(), text: Text::Bytes(text) })
    }
}

/// What the primary has, and when the last octet of the last transfer of it went out.
struct Primary {
    served: Mutex<(Arc<Snapshot>, Option<Instant>)>,
}

impl Primary {
    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.served.lock().unwrap_or_else(PoisonError::into_inner).0)
    }

    fn serve(&self, snapshot: Snapshot) {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        *served = (Arc::new(snapshot), None);
    }

    fn sent(&self) {
        self.served.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(Instant::now());
    }
}

/// Serves the zone in `file` at `listen`, changes ten of its records `rounds` times with a `pause`
/// after each, and prints how many milliseconds `server` takes from the last octet to its first new
/// answer.
pub fn run(
    listen: SocketAddr,
    server: SocketAddr,
    file: &Path,
    rounds: u32,
    pause: Duration,
) -> io::Result<()> {
    let options = LoadOptions::new(HashKey::new(*b"a fixed secret.."), 2);
    let apex: Name = APEX.parse().map_err(io::Error::other)?;
    let loaded = load(&apex, &file.display().to_string(), &FromDisk, &options);
    let no_zone = || io::Error::other(format!("{:?}", loaded.diagnostics));
    let mut zone = Arc::new(loaded.zone.ok_or_else(no_zone)?);
    let mut journal = Journal::default();
    let first = snapshot(&zone, &journal, &options);
    let primary = Arc::new(Primary { served: Mutex::new((Arc::new(first), None)) });
    let (udp, tcp) = (UdpSocket::bind(listen)?, TcpListener::bind(listen)?);
    let of_udp = Arc::clone(&primary);
    thread::spawn(move || questions(&udp, &of_udp));
    let of_tcp = Arc::clone(&primary);
    thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            let primary = Arc::clone(&of_tcp);
            thread::spawn(move || transfers(stream, &primary));
        }
    });
    let any: SocketAddr = (listen.ip(), 0).into();
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    wait_for(&socket, &question(apex.as_wire(), rtype::SOA))?;
    let mut taken = Vec::new();
    for round in 0..rounds {
        let (change, asked) = ten_records(&zone, round);
        let changes = [change];
        let after = changed(&zone, &changes, "the primary", &options);
        let after = after.map_err(io::Error::other)?.zone.expect("good records");
        zone = Arc::new(after);
        journal = journal.after(&changes.map(Arc::new), zone.memory_len());
        primary.serve(snapshot(&zone, &journal, &options));
        socket.send(&notify(&apex))?;
        wait_for(&socket, &asked)?;
        let answered = Instant::now();
        let sent = primary.served.lock().unwrap_or_else(PoisonError::into_inner).1;
        let sent = sent.ok_or_else(|| io::Error::other("it had the version without asking"))?;
        taken.push(answered.saturating_duration_since(sent).as_secs_f64() * 1000.0);
        thread::sleep(pause);
    }
    let shown: Vec<String> = taken.iter().map(|ms| format!("{ms:.1}")).collect();
    taken.sort_by(f64::total_cmp);
    println!("{:.1} ms ({})", taken[taken.len() / 2], shown.join(" "));
    Ok(())
}

/// Eight new addresses and the new SOA, and a question for the last of the addresses.
fn ten_records(zone: &Zone, round: u32) -> (Change, Vec<u8>) {
    let soa = zone.node(zone.apex_at()).rrset(rtype::SOA).expect("a zone has a SOA");
    let soa = expand(soa, &zone.lower_apex()).remove(0);
    let record = |owner: Vec<u8>, rtype, ttl, rdata: &[u8]| Record {
        owner: owner.into(),
        rtype,
        ttl,
        rdata: rdata.into(),
    };
    let (from, to) = (zone.serial(), zone.serial().wrapping_add(1));
    let apex = zone.apex_wire();
    let mut rdata = soa.rdata.clone();
    let at = rdata.len() - 20;
    rdata[at..at + 4].copy_from_slice(&to.to_be_bytes());
    let deleted = vec![record(apex.to_vec(), rtype::SOA, soa.ttl, &soa.rdata)];
    let mut added = vec![record(apex.to_vec(), rtype::SOA, soa.ttl, &rdata)];
    for i in 0..8 {
        let label = format!("change-{round}-{i}");
        let owner = [&[label.len() as u8], label.as_bytes(), apex].concat();
        added.push(record(owner, rtype::A, 300, &[192, 0, 2, i]));
    }
    let asked = question(&added[8].owner, rtype::A);
    (Change { from, to, deleted, added }, asked)
}

fn snapshot(zone: &Arc<Zone>, journal: &Journal, options: &LoadOptions) -> Snapshot {
    let everybody = ["0.0.0.0/0", "::/0"].map(|prefix| prefix.parse().expect("a prefix"));
    let rules = Rules { transfer: AccessList::new(everybody.into()), ..Rules::default() };
    let mut table = ZoneTable::new(options.key);
    let number = table.insert(zone.apex());
    let entry = table.entry_mut(number);
    entry.state = ZoneState::Serving(Arc::clone(zone));
    entry.rules = Arc::new(rules);
    entry.journal = Some(Arc::new(journal.clone()));
    Snapshot::of(1, Identity::default(), &table, Arc::default())
}

//----------- The primary ----------------------------------------------------

fn answer(
    snapshot: &Snapshot,
    core: &mut CoreState,
    query: &[u8],
    transport: Transport,
) -> Vec<u8> {
    let mut buffer = vec![0; 65535];
    buffer[..query.len()].copy_from_slice(query);
    let mut exchange = [Exchange {
        buffer: &mut buffer,
        query_len: query.len(),
        transport,
        client: 0,
        verdict: Verdict::Reply(0),
    }];
    answer_batch(snapshot, Duration::ZERO, core, &mut exchange);
    let len = if let Verdict::Reply(len) = exchange[0].verdict { len } else { 0 };
    buffer.truncate(len);
    buffer
}

fn questions(socket: &UdpSocket, primary: &Primary) {
    let mut core = CoreState::new(Arc::new(Counters::default()));
    let mut query = [0; 4096];
    while let Ok((len, peer)) = socket.recv_from(&mut query) {
        let reply = answer(&primary.snapshot(), &mut core, &query[..len], Transport::Datagram);
        // Whoever is gone will ask again.
        let _ = socket.send_to(&reply, peer);
    }
}

fn transfers(mut stream: TcpStream, primary: &Primary) -> io::Result<()> {
    let mut core = CoreState::new(Arc::new(Counters::default()));
    let peer = stream.peer_addr()?.ip();
    loop {
        let mut len = [0; 2];
        stream.read_exact(&mut len)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(len))];
        stream.read_exact(&mut query)?;
        let snapshot = primary.snapshot();
        let request = Message::new(&query).ok_or(io::ErrorKind::InvalidData)?;
        let mut frame = |message: &[u8]| {
            let len = (message.len() as u16).to_be_bytes();
            stream.write_all(&[&len, message].concat())
        };
        let question = request.question().ok().flatten();
        let is_transfer = question.is_some_and(|it| matches!(it.qtype, rtype::AXFR | rtype::IXFR));
        match is_transfer.then(|| begin(&snapshot, request, peer, None, 0)) {
            Some(Ok(Granted::Messages(mut outgoing))) => {
                let mut message = Vec::new();
                while outgoing.next(&mut message, 0).is_ok_and(|more| more) {
                    // Before it is: who asked could answer before this thread goes on.
                    primary.sent();
                    frame(&message)?;
                }
            }
            _ => frame(&answer(&snapshot, &mut core, &query, Transport::Stream { idle: 0 }))?,
        }
    }
}

//----------- The client -----------------------------------------------------

fn question(name: &[u8], qtype: u16) -> Vec<u8> {
    let mut writer = Writer::new(1, Writer::flags_of(opcode::QUERY));
    writer.question(name, qtype, CLASS_IN);
    writer.into_octets()
}

fn notify(apex: &Name) -> Vec<u8> {
    let mut writer = Writer::new(2, Writer::flags_of(opcode::NOTIFY) | header::AA);
    writer.question(apex.as_wire(), rtype::SOA, CLASS_IN);
    writer.into_octets()
}

/// Asks until there is an answer with a record.
fn wait_for(socket: &UdpSocket, query: &[u8]) -> io::Result<()> {
    let end = Instant::now() + LATE;
    let mut reply = [0; 4096];
    while Instant::now() < end {
        socket.send(query)?;
        while let Ok(len) = socket.recv(&mut reply) {
            if len >= 12 && reply[..2] == query[..2] {
                if reply[3] & 0xF == 0 && reply[6..8] != [0, 0] {
                    return Ok(());
                }
                break;
            }
        }
        thread::sleep(LOOK);
    }
    Err(io::Error::other("the secondary does not answer with the new version"))
}
