//! UPDATE against the real server: what BIND makes of the same messages; what is acknowledged is
//! there after any end; files and updates side by side; who may change what; peers that are told.

#[path = "support/process.rs"]
mod process;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use process::{Process, ask, connect, framed, receive, run, write_zone};
use ring53::wire::message::{CLASS_IN, Message, Section, Writer, opcode};
use ring53::wire::{Name, rtype};
use support::fleet::{KEY, Kind, Peer, Role, SECRET};
use support::{Random, free_port, query, seed};

const PATIENCE: Duration = Duration::from_secs(20);
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const CLASS_NONE: u16 = 254;
const CLASS_ANY: u16 = 255;
const NOERROR: u16 = 0;
const SERVFAIL: u16 = 2;
const NOTIMP: u16 = 4;
const REFUSED: u16 = 5;
const NOTAUTH: u16 = 9;

//----------- Messages -------------------------------------------------------

/// One record of the prerequisites or updates: class, TTL, owner, type, RDATA.
#[derive(Clone, Debug)]
struct Line(Section, u16, u32, String, u16, Vec<u8>);

fn add(owner: &str, rtype: u16, rdata: &[u8]) -> Line {
    Line(Section::Authority, CLASS_IN, 60, owner.into(), rtype, rdata.into())
}

fn message(id: u16, zone: &str, lines: &[Line]) -> Vec<u8> {
    let wire = |name: &str| name.parse::<Name>().unwrap().as_wire().to_vec();
    let mut writer = Writer::new(id, Writer::flags_of(opcode::UPDATE));
    writer.question(&wire(zone), rtype::SOA, CLASS_IN);
    for Line(section, class, ttl, owner, rtype, rdata) in lines {
        writer.record_of(*section, &wire(owner), (*rtype, *class, *ttl), rdata);
    }
    writer.into_octets()
}

/// Sends an update over UDP until it is answered; its code.
fn update(server: SocketAddr, lines: &[Line]) -> u16 {
    update_of(server, "t.", lines)
}

fn update_of(server: SocketAddr, zone: &str, lines: &[Line]) -> u16 {
    let socket = UdpSocket::bind((LOCAL, 0)).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(&message(7, zone, lines)).unwrap();
    let mut reply = [0; 4096];
    let len = socket.recv(&mut reply).unwrap_or_else(|error| panic!("{lines:?}: {error}"));
    let reply = Message::new(&reply[..len]).unwrap();
    assert!(reply.is_response() && reply.opcode() == opcode::UPDATE && reply.id() == 7);
    reply.rcode()
}

fn dig(server: SocketAddr, arguments: &[&str]) -> String {
    let output = Command::new("dig")
        .arg(format!("@{}", server.ip()))
        .args(["-p", &server.port().to_string(), "+noall", "+answer", "+time=2", "+tries=2"])
        .args(arguments)
        .output()
        .expect("dig: run scripts/test");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// All records of `t.`.
fn transferred(server: SocketAddr) -> BTreeSet<String> {
    let lines = dig(server, &["t.", "AXFR", "+onesoa"]);
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    lines
        .lines()
        .filter(|line| !line.starts_with(';'))
        .map(words)
        .filter(|l| !l.is_empty())
        .collect()
}

fn serial(server: SocketAddr) -> Option<u32> {
    dig(server, &["t.", "SOA", "+short"]).split_whitespace().nth(2)?.parse().ok()
}

//----------- Servers --------------------------------------------------------

/// A configuration with the zone `t.` of a file; `more` stands in its table.
fn configure(directory: &Path, listen: SocketAddr, more: &str) -> String {
    let config = format!(
        "version = 1\n[server]\nlisten = [\"{listen}\"]\nstate = \"state\"\n\
         [[key]]\nname = \"{KEY}\"\nalgorithm = \"hmac-sha256\"\nsecret = \"{SECRET}\"\n\
         [[zone]]\nname = \"t.\"\nfile = \"t.zone\"\nallow_transfer = [\"127.0.0.1\"]\n{more}\n"
    );
    let file = directory.join("ring53.toml");
    fs::write(&file, config).unwrap();
    file.to_str().unwrap().to_string()
}

fn start(config: &str) -> (Process, SocketAddr) {
    let process = Process::start(&["--config", config]);
    let address = process.address();
    (process, address)
}

fn free_address() -> SocketAddr {
    SocketAddr::new(LOCAL, free_port())
}

fn bind(directory: &Path, file: &Path) -> Peer {
    let (work, address) = (directory.display(), free_address());
    let port = address.port();
    let config = format!(
        "options {{\n directory \"{work}\"; pid-file none; session-keyfile none;\n \
         managed-keys-directory \"{work}\"; lock-file none;\n \
         listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};\n recursion no; \
         allow-transfer {{ any; }}; dnssec-validation no; notify no; }};\ncontrols {{ }};\n\
         zone \"t.\" {{ type primary; file \"{}\"; allow-update {{ 127.0.0.1; }};\n \
         check-names ignore; check-integrity no; check-mx ignore; }};\n",
        file.display()
    );
    let path = directory.join("named.conf");
    fs::write(&path, config).unwrap();
    let mut command = Command::new("named");
    command.args(["-g", "-n", "1", "-c"]).arg(path);
    let peer = Peer::run(Kind::Bind, directory, address, command);
    let end = Instant::now() + PATIENCE;
    while serial(address).is_none() {
        assert!(Instant::now() < end, "{}", peer.said());
        thread::sleep(Duration::from_millis(50));
    }
    peer
}

//----------- As BIND has it -------------------------------------------------

fn random_name(random: &mut Random) -> String {
    let label = |random: &mut Random| ["a", "b", "c", "*", "A-b"][random.below(5) as usize];
    match random.below(12) {
        0 => "t.".into(),
        1..9 => format!("{}.t.", label(random)),
        _ => format!("{}.{}.t.", label(random), label(random)),
    }
}

fn random_rdata(random: &mut Random, rtype: u16) -> Vec<u8> {
    let target =
        |random: &mut Random| random_name(random).parse::<Name>().unwrap().as_wire().to_vec();
    let small = random.below(3) as u8;
    match rtype {
        rtype::A => vec![192, 0, 2, small],
        rtype::AAAA => vec![0x20, 1, 0xD, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, small],
        rtype::TXT => vec![2, b'x', small],
        rtype::MX => [vec![0, small], target(random)].concat(),
        rtype::SOA => [
            target(random),
            target(random),
            [u32::from(small) * 200, 2, 3, 4, 5].iter().flat_map(|n| n.to_be_bytes()).collect(),
        ]
        .concat(),
        _ => target(random),
    }
}

fn random_line(random: &mut Random) -> Line {
    const TYPES: [u16; 9] = [
        rtype::A,
        rtype::A,
        rtype::AAAA,
        rtype::TXT,
        rtype::TXT,
        rtype::MX,
        rtype::CNAME,
        rtype::NS,
        rtype::SOA,
    ];
    let owner = random_name(random);
    let mut rtype = TYPES[random.below(9) as usize];
    // BIND alone looks whether the zone's own servers have addresses after it.
    if owner == "t." && rtype == rtype::NS {
        rtype = rtype::MX;
    }
    let rdata = random_rdata(random, rtype);
    let section = if random.below(3) == 0 { Section::Answer } else { Section::Authority };
    let (class, ttl, rtype, rdata) = match (section, random.below(10)) {
        (Section::Answer, 0 | 1) => (CLASS_ANY, 0, rtype::ANY, vec![]),
        (Section::Answer, 2 | 3) => (CLASS_NONE, 0, rtype::ANY, vec![]),
        (Section::Answer, 4 | 5) => (CLASS_ANY, 0, rtype, vec![]),
        (Section::Answer, 6 | 7) => (CLASS_NONE, 0, rtype, vec![]),
        (Section::Answer, _) => (CLASS_IN, 0, rtype, rdata),
        (_, 0) => (CLASS_ANY, 0, rtype::ANY, vec![]),
        (_, 1 | 2) => (CLASS_ANY, 0, rtype, vec![]),
        (_, 3 | 4) => (CLASS_NONE, 0, rtype, rdata),
        _ => (CLASS_IN, 60 + 60 * random.below(2) as u32, rtype, rdata),
    };
    Line(section, class, ttl, owner, rtype, rdata)
}

#[test]
fn updates_do_what_they_do_to_bind() {
    let mut random = Random(seed());
    let directory = tempfile::tempdir().unwrap();
    let (ours, theirs) = (directory.path().join("t.zone"), directory.path().join("bind.zone"));
    write_zone(&ours, 1, "192.0.2.80", "");
    write_zone(&theirs, 1, "192.0.2.80", "");
    let peer = bind(directory.path(), &theirs);
    let allow = "allow_update = [\"127.0.0.1\"]";
    let (process, address) = start(&configure(directory.path(), free_address(), allow));
    let mut codes = std::collections::BTreeMap::<u16, u32>::new();
    for number in 0..300 {
        let mut lines: Vec<Line> =
            (0..1 + random.below(4)).map(|_| random_line(&mut random)).collect();
        // Prerequisites hold seldom enough: one of each kind at most.
        let mut seen = 0;
        lines.retain(|line| {
            line.0 != Section::Answer || {
                seen += 1;
                seen == 1
            }
        });
        lines.sort_by_key(|line| line.0 as usize);
        let (a, b) = (update(address, &lines), update(peer.address, &lines));
        let shown = || format!("{lines:?}\n{}", process.said());
        assert_eq!(a, b, "number {number}: (ours, BIND's)\n{}", shown());
        *codes.entry(a).or_default() += 1;
        let (a, b) = (transferred(address), transferred(peer.address));
        let only = |a: &BTreeSet<String>, b: &BTreeSet<String>| -> Vec<String> {
            a.difference(b).cloned().collect()
        };
        let differs = (only(&a, &b), only(&b, &a));
        assert_eq!(differs, (vec![], vec![]), "number {number}: (ours, BIND's)\n{}", shown());
    }
    println!("by code: {codes:?}");
    assert!(codes[&NOERROR] > 100 && codes.len() >= 5);
}

//----------- What is acknowledged stays -------------------------------------

fn address_of(number: u32) -> [u8; 4] {
    let [_, b, c, d] = number.to_be_bytes();
    [10, b, c, d]
}

#[test]
fn what_is_acknowledged_is_there_after_any_end() {
    let mut random = Random(seed());
    let directory = tempfile::tempdir().unwrap();
    write_zone(&directory.path().join("t.zone"), 1, "192.0.2.80", "");
    let config = configure(directory.path(), free_address(), "allow_update = [\"127.0.0.1\"]");
    let mut acknowledged = 0;
    for round in 0..30 {
        let (process, address) = start(&config);
        assert_eq!(serial(address), Some(1 + acknowledged), "round {round}\n{}", process.said());
        for number in [1, acknowledged / 2, acknowledged]
            .into_iter()
            .filter(|n| (1..=acknowledged).contains(n))
        {
            let [a, b, c, d] = address_of(number);
            let expected = (NOERROR, vec![format!("{a}.{b}.{c}.{d}")]);
            assert_eq!(ask(address, &format!("n{number}.t.")), expected, "round {round}");
        }
        let mut stream = connect(address);
        let end = Instant::now() + Duration::from_millis(random.below(60));
        while Instant::now() < end {
            let number = acknowledged + 1;
            let lines = [add(&format!("n{number}.t."), rtype::A, &address_of(number))];
            stream.write_all(&framed(&message(1, "t.", &lines))).unwrap();
            let reply = receive(&mut stream).expect("a reply");
            assert_eq!(Message::new(&reply).unwrap().rcode(), NOERROR);
            acknowledged = number;
        }
        // One more is under way: it may be there after this, whole, or not.
        let number = acknowledged + 1;
        let lines = [add(&format!("n{number}.t."), rtype::A, &address_of(number))];
        stream.write_all(&framed(&message(1, "t.", &lines))).unwrap();
        thread::sleep(Duration::from_micros(random.below(3000)));
        process.signal(Signal::SIGKILL);
        drop(process);
        let (_process, address) = start(&config);
        if serial(address) == Some(1 + number) {
            assert_eq!(ask(address, &format!("n{number}.t.")).0, NOERROR);
            acknowledged = number;
        }
    }
    println!("{acknowledged} updates, 60 ends");
    assert!(acknowledged > 30);
}

/// A zone that is too large to be built for every change: each is seen at once, and it is built
/// anew now and then, behind the answers.
#[test]
fn a_large_zone_changes_a_little_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("t.zone");
    let mut text = String::new();
    for number in 0..4000 {
        text += &format!("h{number} A 192.0.2.1\n");
    }
    write_zone(&file, 1, "192.0.2.80", &text);
    let config = configure(directory.path(), free_address(), "allow_update = [\"127.0.0.1\"]");
    let (process, address) = start(&config);
    let since_built = || -> u64 {
        let status = run(&["zone", "status", "t.", "--json", "--config", &config]);
        let text = String::from_utf8(status.stdout).unwrap();
        let (_, rest) = text.split_once("\"names_since_built\":").expect("a number of names");
        rest.trim().split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
    };
    let (mut expected, mut most, mut before, mut renewals) = (transferred(address), 0, 0, 0);
    for number in 0..200u32 {
        let [_, _, high, low] = number.to_be_bytes();
        let gone = format!("h{}.t.", number * 7);
        let lines = [
            add(&format!("n{number}.t."), rtype::A, &[10, 0, high, low]),
            Line(Section::Authority, CLASS_ANY, 0, gone.clone(), rtype::ANY, vec![]),
        ];
        assert_eq!(update(address, &lines), NOERROR, "{}", process.said());
        assert_eq!(ask(address, &gone).0, 3);
        assert_eq!(ask(address, &format!("n{number}.t.")).1, [format!("10.0.{high}.{low}")]);
        expected.insert(format!("n{number}.t. 60 in a 10.0.{high}.{low}"));
        expected.remove(&format!("{gone} 60 in a 192.0.2.1"));
        let names = since_built();
        renewals += u32::from(names < before);
        (most, before) = (most.max(names), names);
    }
    expected.retain(|line| !line.contains(" soa "));
    let compare = |address| {
        let mut found = transferred(address);
        found.retain(|line| !line.contains(" soa "));
        assert!(found == expected);
    };
    compare(address);
    println!("built anew {renewals} times, with up to {most} names");
    assert!(renewals >= 2 && most > 60 && most < 400);
    process.signal(Signal::SIGKILL);
    drop(process);
    let (_process, address) = start(&config);
    assert_eq!(serial(address), Some(201));
    compare(address);
}

//----------- Files and updates ----------------------------------------------

#[test]
fn files_and_updates_side_by_side() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("t.zone");
    write_zone(&file, 10, "192.0.2.80", "");
    let config = configure(directory.path(), free_address(), "allow_update = [\"127.0.0.1\"]");
    let (process, address) = start(&config);
    for last in 1..=3 {
        assert_eq!(update(address, &[add("new.t.", rtype::A, &[192, 0, 2, last])]), NOERROR);
    }
    let updated = |address| {
        assert_eq!(serial(address), Some(13));
        assert_eq!(ask(address, "new.t.").1.len(), 3);
    };
    updated(address);
    // A file that is as it was, touched or not, changes nothing.
    process.reload();
    updated(address);
    write_zone(&file, 10, "192.0.2.80", "");
    process.reload();
    updated(address);
    // Another one with a serial that does not rise is not served, now or after a restart.
    write_zone(&file, 12, "192.0.2.81", "");
    let said = process.reload();
    assert!(said.contains("its serial 12 is not above 13"), "{said}");
    updated(address);
    drop(process);
    let (process, address) = start(&config);
    let said = process.said();
    assert!(said.contains("its serial 12 is not above 13"), "{said}");
    updated(address);
    assert_eq!(ask(address, "www.t.").1, ["192.0.2.80"]);
    // What the export writes has caught up, and is a file again.
    let export = run(&["zone", "export", "t.", "--config", &config]);
    assert!(export.status.success(), "{export:?}");
    fs::write(&file, &export.stdout).unwrap();
    process.reload();
    updated(address);
    write_zone(&file, 12, "192.0.2.82", "");
    let said = process.reload();
    assert!(said.contains("its serial went back from 13 to 12"), "{said}");
    assert_eq!((serial(address), ask(address, "www.t.").1), (Some(12), vec!["192.0.2.82".into()]));
    // Updates begin anew; a file with a serial that rises ends them, and says so.
    assert_eq!(update(address, &[add("new.t.", rtype::A, &[192, 0, 2, 9])]), NOERROR);
    assert_eq!(ask(address, "new.t.").1, ["192.0.2.9"]);
    write_zone(&file, 20, "192.0.2.83", "");
    let said = process.reload();
    assert!(said.contains("its file has serial 20 and is served"), "{said}");
    assert_eq!((serial(address), ask(address, "new.t.").0), (Some(20), 3));
    drop(process);
    let (process, address) = start(&config);
    assert_eq!((serial(address), ask(address, "www.t.").1), (Some(20), vec!["192.0.2.83".into()]));
    assert_eq!(update(address, &[add("new.t.", rtype::A, &[192, 0, 2, 1])]), NOERROR);
    // A file with faults changes nothing.
    fs::write(&file, "t. SOA\n").unwrap();
    process.reload();
    assert_eq!((serial(address), ask(address, "new.t.").0), (Some(21), NOERROR));
    drop(process);
    let (_process, address) = start(&config);
    assert_eq!((serial(address), ask(address, "new.t.").0), (Some(21), NOERROR));
}

#[test]
fn updates_may_be_allowed_by_a_reload() {
    let directory = tempfile::tempdir().unwrap();
    write_zone(&directory.path().join("t.zone"), 1, "192.0.2.80", "");
    let listen = free_address();
    let (process, address) = start(&configure(directory.path(), listen, ""));
    let new = [add("new.t.", rtype::A, &[192, 0, 2, 1])];
    assert_eq!(update(address, &new), REFUSED);
    configure(directory.path(), listen, "allow_update = [\"127.0.0.1\"]");
    process.reload();
    assert_eq!(update(address, &new), NOERROR, "{}", process.said());
    assert_eq!(ask(address, "new.t.").1, ["192.0.2.1"]);
    configure(directory.path(), listen, "");
    process.reload();
    assert_eq!(update(address, &new), REFUSED);
    assert_eq!(ask(address, "new.t.").1, ["192.0.2.1"]);
}

/// What updates have changed is not written over only because it cannot be read.
#[test]
fn damaged_updates_wait_for_who_mends_them() {
    let directory = tempfile::tempdir().unwrap();
    write_zone(&directory.path().join("t.zone"), 1, "192.0.2.80", "");
    let config = configure(directory.path(), free_address(), "allow_update = [\"127.0.0.1\"]");
    let (process, address) = start(&config);
    assert_eq!(update(address, &[add("new.t.", rtype::A, &[192, 0, 2, 1])]), NOERROR);
    drop(process);
    for ending in ["source", "zone"] {
        let file = directory.path().join(format!("state/t.{ending}"));
        let good = fs::read(&file).unwrap();
        fs::write(&file, &good[..good.len() / 2]).unwrap();
        let (process, address) = start(&config);
        let said = process.said();
        assert!(said.contains(&format!("t.{ending}")) && said.contains("are refused"), "{said}");
        assert_eq!((serial(address), ask(address, "new.t.").0), (Some(1), 3));
        assert_eq!(update(address, &[add("b.t.", rtype::A, &[192, 0, 2, 2])]), SERVFAIL);
        fs::write(&file, good).unwrap();
        process.reload();
        assert_eq!((serial(address), ask(address, "new.t.").0), (Some(2), NOERROR));
    }
    let (_process, address) = start(&config);
    assert_eq!(update(address, &[add("b.t.", rtype::A, &[192, 0, 2, 2])]), NOERROR);
}

/// Nobody could be answered with an RRset that fits no message.
#[test]
fn no_rrset_grows_past_a_message() {
    let directory = tempfile::tempdir().unwrap();
    write_zone(&directory.path().join("t.zone"), 1, "192.0.2.80", "");
    let config = configure(directory.path(), free_address(), "allow_update = [\"127.0.0.1\"]");
    let (process, address) = start(&config);
    let mut stream = connect(address);
    let (mut taken, mut refused) = (0u32, 0);
    for message_number in 0..8 {
        let lines: Vec<Line> = (0..700u32)
            .map(|number| {
                let target = format!("x{}.t.", message_number * 700 + number);
                add("p.t.", rtype::PTR, target.parse::<Name>().unwrap().as_wire())
            })
            .collect();
        stream.write_all(&framed(&message(1, "t.", &lines))).unwrap();
        match Message::new(&receive(&mut stream).expect("a reply")).unwrap().rcode() {
            NOERROR => taken += 700,
            REFUSED => refused += 1,
            code => panic!("{code}: {}", process.said()),
        }
    }
    assert!((2000..4000).contains(&taken) && refused > 2, "{taken} {refused}");
    stream.write_all(&framed(&query(1, b"\x01p\x01t\0", rtype::PTR, None))).unwrap();
    let reply = receive(&mut stream).unwrap();
    assert_eq!(u32::from(u16::from_be_bytes([reply[6], reply[7]])), taken);
}

//----------- Who may change what --------------------------------------------

/// Runs nsupdate with these commands, signed with the key that all sides share.
fn nsupdate(server: SocketAddr, tcp: bool, key: &str, commands: &str) -> (bool, String) {
    let mut command = Command::new("nsupdate");
    command.args(["-t", "10"]).args(tcp.then_some("-v"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("nsupdate: run scripts/test");
    let script = format!(
        "server {} {}\nkey hmac-sha256:{key} {SECRET}\nzone t.\n{commands}\nsend\n",
        server.ip(),
        server.port()
    );
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn keys_may_change_what_they_may() {
    let directory = tempfile::tempdir().unwrap();
    write_zone(&directory.path().join("t.zone"), 1, "192.0.2.80", "");
    let allow = format!(
        "allow_update = [\"key {KEY} within dyn.t. types A,TXT\", \"key {KEY} at one.t.\"]"
    );
    let (process, address) = start(&configure(directory.path(), free_address(), &allow));
    for tcp in [false, true] {
        let good = "update add h.dyn.t. 60 A 192.0.2.1\nupdate add one.t. 60 MX 1 h.dyn.t.";
        assert_eq!(nsupdate(address, tcp, KEY, good), (true, String::new()), "{}", process.said());
        for (bad, code) in [
            ("update add h.dyn.t. 60 AAAA ::1", "REFUSED"),
            ("update add h.dyn.t. 60 A 192.0.2.2\nupdate add other.t. 60 A 192.0.2.1", "REFUSED"),
            ("update delete www.t. A", "REFUSED"),
            ("prereq nxdomain h.dyn.t.\nupdate add h.dyn.t. 60 A 192.0.2.3", "YXDOMAIN"),
        ] {
            let (done, said) = nsupdate(address, tcp, KEY, bad);
            assert!(!done && said.contains(code), "{bad}: {said}");
        }
        let (done, said) = nsupdate(address, tcp, "other.example.", good);
        assert!(!done && said.contains("BADKEY"), "{said}");
    }
    assert_eq!(ask(address, "h.dyn.t.").1, ["192.0.2.1"]);
    // Nobody may without a key, and of no other zone.
    assert_eq!(update(address, &[add("h.dyn.t.", rtype::A, &[192, 0, 2, 9])]), REFUSED);
    assert_eq!(update_of(address, "u.", &[add("a.u.", rtype::A, &[192, 0, 2, 9])]), NOTAUTH);
    let delete = Line(Section::Authority, CLASS_ANY, 0, "one.t.".into(), rtype::ANY, vec![]);
    assert_eq!(update(address, &[delete]), REFUSED);
    let (done, said) = nsupdate(address, false, KEY, "update delete one.t.");
    assert!(done, "{said}");
    assert_eq!(ask(address, "one.t.").0, 3);
}

#[test]
fn signed_zones_are_left_to_who_signs_them() {
    let directory = tempfile::tempdir().unwrap();
    let signature = "www RRSIG A 13 2 60 20990101000000 20200101000000 1 t. aaaa\n";
    write_zone(&directory.path().join("t.zone"), 1, "192.0.2.80", signature);
    let allow = "allow_update = [\"127.0.0.1\"]";
    let (_process, address) = start(&configure(directory.path(), free_address(), allow));
    assert_eq!(update(address, &[add("a.t.", rtype::A, &[192, 0, 2, 9])]), REFUSED);
}

//----------- Others are told ------------------------------------------------

#[test]
fn peers_take_updates_in_steps() {
    let directory = tempfile::tempdir().unwrap();
    write_zone(&directory.path().join("t.zone"), 1, "192.0.2.80", "");
    let listen = free_address();
    let role = Role {
        zone: "t.".into(),
        file: directory.path().join("knot.zone"),
        primary: Some(listen),
        notify: None,
        signed: false,
    };
    let peer = Peer::start(Kind::Knot, &directory.path().join("knot"), LOCAL, &role);
    let more = format!("allow_update = [\"127.0.0.1\"]\nnotify = [\"{}\"]", peer.address);
    let (process, address) = start(&configure(directory.path(), listen, &more));
    let wait = |expected| {
        let end = Instant::now() + PATIENCE;
        while serial(peer.address) != Some(expected) {
            assert!(Instant::now() < end, "{expected}\n{}\n{}", process.said(), peer.said());
            thread::sleep(Duration::from_millis(20));
        }
    };
    wait(1);
    for number in 1..=10u8 {
        let owner = format!("n{number}.t.");
        assert_eq!(update(address, &[add(&owner, rtype::A, &[192, 0, 2, number])]), NOERROR);
        wait(1 + u32::from(number));
    }
    assert_eq!(transferred(peer.address), transferred(address));
    let said = peer.said();
    assert!(said.matches("IXFR, incoming").count() >= 10, "{said}");
    assert_eq!(said.matches("AXFR, incoming").count().min(2), 2, "{said}");
}

/// A server that knows no updates says so; this one never does.
#[test]
fn other_opcodes_are_not_taken_for_updates() {
    let directory = tempfile::tempdir().unwrap();
    write_zone(&directory.path().join("t.zone"), 1, "192.0.2.80", "");
    let (_process, address) = start(&configure(directory.path(), free_address(), ""));
    assert_eq!(update(address, &[add("a.t.", rtype::A, &[192, 0, 2, 9])]), REFUSED);
    let mut octets = message(7, "t.", &[]);
    octets[2] = 6 << 3;
    let mut stream = connect(address);
    stream.write_all(&framed(&octets)).unwrap();
    let reply = receive(&mut stream).unwrap();
    assert_eq!(Message::new(&reply).unwrap().rcode(), NOTIMP);
    assert_ne!(update(address, &[]), SERVFAIL);
}
