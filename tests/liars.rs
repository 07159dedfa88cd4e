//! Primaries that lie: what they send is refused with a reason, and the last good version goes on.

#[path = "support/process.rs"]
mod process;
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use process::{PATIENCE, Process, ask, run};
use ring53::tsig::{Algorithm, Key, Keys, Session, Verified, verify_request};
use ring53::wire::message::{CLASS_IN, Message, Section, Writer, header};
use ring53::wire::{Name, rtype};

const SERVFAIL: u16 = 2;
const APEX: &[u8] = b"\x01t\0";
const SECRET: &str = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IQ==";
const OCTETS: &[u8] = b"secret secret secret secret!";

//----------- A primary ------------------------------------------------------

/// A record: owner in wire form, type, RDATA.
type Record = (Vec<u8>, u16, Vec<u8>);

fn soa(serial: u32) -> Record {
    let mut rdata = b"\x02ns\x01t\0\x01h\x01t\0".to_vec();
    for number in [serial, 2, 2, 3600, 60] {
        rdata.extend(number.to_be_bytes());
    }
    (APEX.to_vec(), rtype::SOA, rdata)
}

fn address(label: &str, last: u8) -> Record {
    let mut owner = vec![label.len() as u8];
    owner.extend(label.as_bytes());
    owner.extend(APEX);
    (owner, rtype::A, vec![192, 0, 2, last])
}

fn servers() -> Record {
    (APEX.to_vec(), rtype::NS, b"\x02ns\x01t\0".to_vec())
}

/// One message with `records` in its answer section.
fn message(id: u16, records: &[Record]) -> Vec<u8> {
    let mut writer = Writer::new(id, header::QR | header::AA);
    writer.question(APEX, rtype::AXFR, CLASS_IN);
    for (owner, rtype, rdata) in records {
        writer.record(Section::Answer, owner, *rtype, 60, rdata);
    }
    writer.into_octets()
}

fn send(stream: &mut TcpStream, octets: &[u8]) -> std::io::Result<()> {
    let mut framed = (octets.len() as u16).to_be_bytes().to_vec();
    framed.extend(octets);
    stream.write_all(&framed)
}

/// What a liar does with a request for a transfer.
type Lie = dyn Fn(&mut TcpStream, &[u8]) -> std::io::Result<()> + Send;

/// A primary that tells the truth about the serial, and then does what it is told.
struct Primary {
    address: SocketAddr,
    serial: Arc<AtomicU32>,
    lie: Arc<Mutex<Box<Lie>>>,
}

impl Primary {
    fn start() -> Primary {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let socket = UdpSocket::bind(address).unwrap();
        let serial = Arc::new(AtomicU32::new(1));
        let lie: Arc<Mutex<Box<Lie>>> = Arc::new(Mutex::new(Box::new(|_, _| Ok(()))));
        let told = Arc::clone(&serial);
        thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((len, peer)) = socket.recv_from(&mut query) {
                let id = u16::from_be_bytes([query[0], query[1]]);
                let reply = message(id, &[soa(told.load(Ordering::SeqCst))]);
                let reply = answer_signed(&query[..len], reply);
                let _ = socket.send_to(&reply, peer);
            }
        });
        let does = Arc::clone(&lie);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut len = [0; 2];
                let Ok(()) = stream.read_exact(&mut len) else { continue };
                let mut request = vec![0; usize::from(u16::from_be_bytes(len))];
                if stream.read_exact(&mut request).is_ok() {
                    let _ = does.lock().unwrap()(&mut stream, &request);
                }
            }
        });
        Primary { address, serial, lie }
    }

    fn tells(
        &self,
        serial: u32,
        lie: impl Fn(&mut TcpStream, &[u8]) -> std::io::Result<()> + Send + 'static,
    ) {
        *self.lie.lock().unwrap() = Box::new(lie);
        self.serial.store(serial, Ordering::SeqCst);
    }
}

fn id(request: &[u8]) -> u16 {
    u16::from_be_bytes([request[0], request[1]])
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

fn session(request: &[u8]) -> Option<Session> {
    let key = Key::new(&"k.".parse::<Name>().unwrap(), Algorithm::HmacSha256, OCTETS);
    let keys = Keys::new(vec![key]);
    match verify_request(&keys, Message::new(request)?, now()).0 {
        Verified::Signed(session) => Some(session),
        Verified::Unsigned | Verified::Refused(_) => None,
    }
}

fn answer_signed(request: &[u8], mut reply: Vec<u8>) -> Vec<u8> {
    if let Some(mut session) = session(request) {
        session.sign(&mut reply, now());
    }
    reply
}

/// The zone as it should be: a SOA, a server, its address, and `www` with `last`.
fn whole(serial: u32, last: u8) -> Vec<Record> {
    vec![soa(serial), servers(), address("ns", 1), address("www", last), soa(serial)]
}

//----------- The secondary --------------------------------------------------

fn secondary(directory: &Path, primary: SocketAddr, more: &str) -> Process {
    let config = format!(
        "version = 1\n[server]\nlisten = [\"127.0.0.1:0\"]\nstate = \"state\"\n\
         [[key]]\nname = \"k.\"\nalgorithm = \"hmac-sha256\"\nsecret = \"{SECRET}\"\n\
         [[zone]]\nname = \"t.\"\nprimaries = [\"{primary}{more}\"]\n\
         transfer_size_max = \"1MiB\"\n"
    );
    let file = directory.join("ring53.toml");
    fs::write(&file, config).unwrap();
    Process::start(&["--config", file.to_str().unwrap()])
}

fn www(process: &Process) -> Vec<String> {
    ask(process.address(), "www.t").1
}

/// Waits until the secondary tells `reason`; the good version must still serve.
fn refuses(process: &Process, directory: &Path, reason: &str, last: u8) {
    let config = directory.join("ring53.toml");
    let end = Instant::now() + PATIENCE;
    loop {
        let output = run(&["zone", "status", "t.", "--config", config.to_str().unwrap()]);
        let status = String::from_utf8_lossy(&output.stdout).into_owned();
        if status.contains(reason) {
            break;
        }
        let said = process.said();
        assert!(Instant::now() < end, "{status} does not tell {reason}:\n{said}");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(www(process), [format!("192.0.2.{last}")], "after {reason}");
}

/// A primary that has told the truth once, and its secondary.
fn truthful(directory: &Path) -> (Primary, Process) {
    let primary = Primary::start();
    primary.tells(1, |stream, request| send(stream, &message(id(request), &whole(1, 1))));
    let process = secondary(directory, primary.address, "");
    process.wait_for("serial 1 from", 1);
    assert_eq!(www(&process), ["192.0.2.1"]);
    (primary, process)
}

#[test]
fn zones_that_are_none_are_refused_and_the_last_good_version_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let (primary, process) = truthful(directory.path());
    let refuses = |reason: &str| refuses(&process, directory.path(), reason, 1);

    primary.tells(2, |stream, request| {
        let mut records = whole(2, 2);
        records[4] = soa(3);
        send(stream, &message(id(request), &records))
    });
    refuses("serials do not follow");

    primary.tells(2, |stream, request| {
        let mut records = whole(2, 2);
        records.insert(2, (b"\x01x\x09elsewhere\0".to_vec(), rtype::A, vec![192, 0, 2, 9]));
        send(stream, &message(id(request), &records))
    });
    refuses("a record that cannot be in the zone: number 3, A");

    primary.tells(2, |stream, request| {
        let mut records = whole(2, 2);
        records[3].2 = vec![192, 0, 2];
        send(stream, &message(id(request), &records))
    });
    refuses("a record that cannot be in the zone: number 4, A");

    primary.tells(2, |stream, request| {
        send(stream, &message(id(request), &[soa(2), servers()]))?;
        loop {
            let records: Vec<Record> = (0..200).map(|last| address("more", last)).collect();
            send(stream, &message(id(request), &records))?;
        }
    });
    refuses("more than transfer_size_max");

    // Errors of the zone as a whole: data beside a CNAME.
    primary.tells(2, |stream, request| {
        let mut records = whole(2, 2);
        records.insert(3, (address("www", 0).0, rtype::CNAME, b"\x02ns\x01t\0".to_vec()));
        send(stream, &message(id(request), &records))
    });
    refuses("sent a zone with errors");
}

#[test]
fn changes_that_are_none_and_slowness_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (primary, process) = truthful(directory.path());
    let refuses = |reason: &str| refuses(&process, directory.path(), reason, 1);

    // A deletion of what is not there, and a whole zone that went back.
    primary.tells(2, |stream, request| {
        let asks_for_steps = request[request.len() - 1] != 1 || request.len() > 40;
        let records = if asks_for_steps {
            vec![soa(2), soa(1), address("nowhere", 9), soa(2), address("www", 2), soa(2)]
        } else {
            whole(0, 2)
        };
        send(stream, &message(id(request), &records))
    });
    refuses("serial 0, which is older than 1");
    process.wait_for("a record to be deleted is not there", 1);

    primary.tells(2, |stream, request| {
        let octets = message(id(request), &whole(2, 2));
        stream.write_all(&(octets.len() as u16).to_be_bytes())?;
        for octet in octets {
            stream.write_all(&[octet])?;
            thread::sleep(Duration::from_secs(1));
        }
        Ok(())
    });
    refuses("sent no whole message for 10 s");

    // And in the end the truth.
    primary.tells(5, |stream, request| send(stream, &message(id(request), &whole(5, 5))));
    process.wait_for("serial 5 from", 1);
    assert_eq!(www(&process), ["192.0.2.5"]);
}

#[test]
fn an_expired_zone_is_not_told_until_it_is_confirmed_and_then_it_is() {
    let short_lived = |serial: u32| {
        let mut records = whole(serial, serial as u8);
        for at in [0, 4] {
            let expire_at = records[at].2.len() - 8;
            records[at].2[expire_at..expire_at + 4].copy_from_slice(&3u32.to_be_bytes());
        }
        records
    };
    let directory = tempfile::tempdir().unwrap();
    let primary = Primary::start();
    primary.tells(1, move |stream, request| send(stream, &message(id(request), &short_lived(1))));
    let process = secondary(directory.path(), primary.address, "");
    process.wait_for("serial 1 from", 1);
    // Says that there is something newer, and then hangs up.
    primary.tells(2, |_, _| Ok(()));
    process.wait_for("expired:", 1);
    let end = Instant::now() + PATIENCE;
    while ask(process.address(), "www.t").0 != SERVFAIL {
        assert!(Instant::now() < end, "an expired zone is still told");
    }
    primary.tells(3, move |stream, request| send(stream, &message(id(request), &short_lived(3))));
    process.wait_for("serial 3 from", 1);
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        assert_eq!(www(&process), ["192.0.2.3"]);
    }
    assert_eq!(process.said().matches("expired:").count(), 1, "{}", process.said());
}

#[test]
fn signatures_must_hold_to_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let primary = Primary::start();
    let signed = |stream: &mut TcpStream, request: &[u8], serial, sign_last: bool, change: bool| {
        let mut session = session(request).expect("a signed request");
        let records = whole(serial, serial as u8);
        for (number, part) in [&records[..2], &records[2..4], &records[4..]].iter().enumerate() {
            let mut octets = message(id(request), part);
            if number < 2 || sign_last {
                session.sign(&mut octets, now());
            }
            if change && number == 1 {
                octets[30] ^= 1;
            }
            send(stream, &octets)?;
        }
        Ok(())
    };
    primary.tells(1, move |stream, request| signed(stream, request, 1, true, false));
    let process = secondary(directory.path(), primary.address, " key k.");
    process.wait_for("serial 1 from", 1);
    primary.tells(2, move |stream, request| signed(stream, request, 2, false, false));
    refuses(&process, directory.path(), "it has none", 1);
    primary.tells(2, move |stream, request| signed(stream, request, 2, true, true));
    refuses(&process, directory.path(), "the MAC is wrong", 1);
    primary.tells(2, |stream, request| send(stream, &message(id(request), &whole(2, 2))));
    refuses(&process, directory.path(), "it has none", 1);
    primary.tells(3, move |stream, request| signed(stream, request, 3, true, false));
    process.wait_for("serial 3 from", 1);
    assert_eq!(www(&process), ["192.0.2.3"]);
}

#[test]
fn a_primary_that_hangs_leaves_room_for_others() {
    let directory = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.2:0").unwrap();
    let hanging = listener.local_addr().unwrap();
    let (open, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let counts = (Arc::clone(&open), Arc::clone(&most));
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (open, most) = counts.clone();
            thread::spawn(move || {
                most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let mut octets = [0; 512];
                while stream.read(&mut octets).is_ok_and(|count| count > 0) {}
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    let primary = Primary::start();
    primary.tells(1, |stream, request| send(stream, &message(id(request), &whole(1, 1))));
    let zone =
        |name: &str, primary| format!("[[zone]]\nname = \"{name}\"\nprimaries = [\"{primary}\"]\n");
    let mut config =
        "version = 1\n[server]\nlisten = [\"127.0.0.1:0\"]\nstate = \"state\"\n".to_string();
    config.extend((0..40).map(|number| zone(&format!("z{number}."), hanging)));
    let file = directory.path().join("ring53.toml");
    fs::write(&file, &config).unwrap();
    let process = Process::start(&["--config", file.to_str().unwrap()]);
    process.address();
    let end = Instant::now() + PATIENCE;
    while open.load(Ordering::SeqCst) < 16 {
        assert!(Instant::now() < end, "{}", process.said());
        thread::sleep(Duration::from_millis(5));
    }
    // All of its places are taken, and others wait for one.
    fs::write(&file, config + &zone("t.", primary.address)).unwrap();
    process.reload();
    process.wait_for("zone t.: serial 1 from", 1);
    assert_eq!(www(&process), ["192.0.2.1"]);
    assert_eq!(most.load(Ordering::SeqCst), 16);
}
