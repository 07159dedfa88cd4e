//! Zones that move between ring53 and NSD, Knot, BIND and PowerDNS: identical, record by record,
//! after every step, signed and not, over IPv4 and IPv6.

#[path = "support/process.rs"]
mod process;
mod support;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use process::{Process, run};
use ring53::zone::{HashKey, LoadOptions, Source, SourceText, Text, load};
use support::fleet::{KEY, KINDS, Kind, Peer, Role, SECRET};
use support::{Random, free_address, seed};

const PATIENCE: Duration = Duration::from_secs(40);
const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const STEPS: u32 = 4;

//----------- Zones ----------------------------------------------------------

/// Records of the zone `t.` as text, but for its SOA.
struct Given {
    records: BTreeSet<String>,
    serial: u32,
}

impl Given {
    fn new(random: &mut Random) -> Given {
        let mut records = BTreeSet::from(["t. NS ns.t.".into(), "ns.t. A 192.0.2.1".into()]);
        // More than a message of the size that is usual.
        for number in 0..120 {
            records.insert(format!("large.t. TXT \"{}\"", format!("{number:05}").repeat(45)));
        }
        let mut given = Given { records, serial: 4_294_967_289 };
        for _ in 0..400 {
            given.add(random);
        }
        given
    }

    fn add(&mut self, random: &mut Random) {
        let number = random.below(200);
        let other = random.below(200);
        self.records.insert(match random.below(9) {
            0 => format!("h{number}.t. A 192.0.2.{other}"),
            1 => format!("h{number}.t. AAAA 2001:db8::{other}"),
            2 => format!("h{number}.t. MX {other} h{other}.t."),
            3 => format!("a.b.h{number}.t. TXT \"{other} ; \\\" \\\\\" \"\""),
            4 => format!("_s._tcp.h{number}.t. SRV 1 2 {other} h{other}.t."),
            5 => format!("*.w{number}.t. A 192.0.2.{other}"),
            6 => format!("d{number}.t. NS ns{other}.d{number}.t."),
            7 => format!("h{number}.t. CAA 0 issue \"ca{other}.example\""),
            _ => format!("u{number}.t. TYPE65280 \\# 3 0102{:02x}", other as u8),
        });
    }

    /// The next version: some records go, some come. The serial passes the end of its numbers.
    fn step(&mut self, random: &mut Random) {
        self.serial = self.serial.wrapping_add(3);
        let gone: Vec<String> = self
            .records
            .iter()
            .filter(|record| record.starts_with(['h', 'u', '_']) && random.below(12) == 0)
            .cloned()
            .collect();
        for record in gone {
            self.records.remove(&record);
        }
        for _ in 0..20 {
            self.add(random);
        }
    }

    /// A file that replaces the one before.
    fn write(&self, file: &Path) {
        let mut text = format!("$TTL 300\nt. SOA ns.t. h.t. {} 2 2 3600 60\n", self.serial);
        for record in &self.records {
            writeln!(text, "{record}").unwrap();
        }
        let beside = file.with_extension("next");
        fs::write(&beside, text).unwrap();
        fs::rename(&beside, file).unwrap();
    }
}

//----------- Looking at servers ---------------------------------------------

fn dig(server: SocketAddr, arguments: &[&str]) -> String {
    let output = Command::new("dig")
        .arg(format!("@{}", server.ip()))
        .args(["-p", &server.port().to_string(), "+noall", "+answer", "+time=2", "+tries=1"])
        .args(arguments)
        .output()
        .expect("dig: run scripts/test");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// All records that `server` gives for `zone`, in lower case, in order.
fn transferred(server: SocketAddr, zone: &str, signed: bool) -> Vec<String> {
    let key = format!("hmac-sha256:{KEY}:{SECRET}");
    let mut arguments = vec![zone, "AXFR", "+onesoa"];
    if signed {
        arguments.extend(["-y", &key]);
    }
    let mut lines: Vec<String> = dig(server, &arguments)
        .lines()
        .filter(|line| !line.starts_with(';') && !line.trim().is_empty())
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase())
        .filter(|line| !line.contains(" any tsig "))
        .collect();
    lines.sort();
    lines
}

fn serial(server: SocketAddr, zone: &str) -> Option<u32> {
    let answer = dig(server, &[zone, "SOA", "+short"]);
    answer.split_whitespace().nth(2)?.parse().ok()
}

/// Waits until `server` has `expected`.
fn wait_for_serial(
    name: &str,
    server: SocketAddr,
    zone: &str,
    expected: u32,
    words: &dyn Fn() -> String,
) {
    let end = Instant::now() + PATIENCE;
    loop {
        let found = serial(server, zone);
        if found == Some(expected) {
            return;
        }
        assert!(
            Instant::now() < end,
            "{name} has {found:?} instead of serial {expected}:\n{}",
            words()
        );
        thread::sleep(Duration::from_millis(50));
    }
}

fn assert_same(ours: &[String], theirs: &[String], place: &str) {
    assert!(theirs.len() > 100, "{place}: too few records: {theirs:?}");
    let set = |lines: &[String]| lines.iter().cloned().collect::<BTreeSet<_>>();
    let (a, b) = (set(ours), set(theirs));
    let only = |from: &BTreeSet<String>, without: &BTreeSet<String>| {
        from.difference(without).take(5).cloned().collect::<Vec<_>>()
    };
    assert_eq!((only(&a, &b), only(&b, &a)), (vec![], vec![]), "{place}: (ours, theirs)");
    assert_eq!(ours.len(), theirs.len(), "{place}: a record more than once");
}

/// A configuration of ring53 with one zone.
fn ring53(directory: &Path, listen: SocketAddr, zone: &str, signed: bool, more: &str) -> Process {
    fs::create_dir_all(directory).unwrap();
    let key = if signed { format!(" key {KEY}") } else { String::new() };
    let config = format!(
        "version = 1\n[server]\nlisten = [\"{listen}\"]\nstate = \"state\"\n\
         [[key]]\nname = \"{KEY}\"\nalgorithm = \"hmac-sha256\"\nsecret = \"{SECRET}\"\n\
         [[zone]]\nname = \"{zone}\"\n{more}\n\
         allow_transfer = [\"127.0.0.1{key}\", \"::1{key}\"]\n"
    );
    let file = directory.join("ring53.toml");
    fs::write(&file, config).unwrap();
    Process::start(&["--config", file.to_str().unwrap()])
}

fn quoted(address: SocketAddr, signed: bool) -> String {
    let key = if signed { format!(" key {KEY}") } else { String::new() };
    format!("[\"{address}{key}\"]")
}

/// The records of a text of the zone `t.`.
fn records(text: &str) -> BTreeSet<(Vec<u8>, u16, u32, Vec<u8>)> {
    struct Given(Vec<u8>);
    impl Source for Given {
        fn read(&self, path: &str, _: Option<&str>) -> Result<SourceText, String> {
            Ok(SourceText { name: path.into(), text: Text::Bytes(self.0.clone()) })
        }
    }
    let options = LoadOptions::new(HashKey::new(*b"a secret of test"), 1);
    let loaded = load(&"t.".parse().unwrap(), "text", &Given(text.into()), &options);
    let zone = loaded.zone.unwrap_or_else(|| panic!("{:?}\n{text}", loaded.diagnostics));
    let mut all = BTreeSet::new();
    for rrset in zone.rrsets() {
        for record in rrset.records {
            all.insert((rrset.owner.as_wire().to_vec(), rrset.rtype, record.ttl, record.rdata));
        }
    }
    all
}

//----------- As secondary ---------------------------------------------------

/// ring53 takes a zone from `kind`, whole at first and then as it changes.
fn secondary_of(kind: Kind, ip: IpAddr, signed: bool, random: &mut Random) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("zone");
    let mut given = Given::new(random);
    given.write(&file);
    let ours = free_address(ip);
    let role =
        Role { zone: "t.".into(), file: file.clone(), primary: None, notify: Some(ours), signed };
    let peer = Peer::start(kind, &directory.path().join("peer"), ip, &role);
    let named = format!("{kind:?}, {ip}, signed {signed}");
    wait_for_serial(&named, peer.address, "t.", given.serial, &|| peer.said());
    let more = format!("primaries = {}", quoted(peer.address, signed));
    let mut process = ring53(&directory.path().join("ours"), ours, "t.", signed, &more);
    for step in 0..=STEPS {
        if step > 0 {
            // Files are told apart by the second they were changed in.
            thread::sleep(Duration::from_millis(1100));
            given.step(random);
            given.write(&file);
            peer.reload();
        }
        let place = format!("{named}, step {step}");
        let words = || format!("{}\n{}", process.said(), peer.said());
        wait_for_serial("ring53", ours, "t.", given.serial, &words);
        let (a, b) = (transferred(ours, "t.", signed), transferred(peer.address, "t.", signed));
        assert_same(&a, &b, &place);
    }
    let said = process.said();
    // PowerDNS answers IXFR with the whole zone.
    let steps = said.lines().filter(|line| line.contains(" from ") && line.contains(" changes: "));
    let steps = steps.count();
    let expected = if kind == Kind::PowerDns { 0 } else { STEPS as usize };
    assert_eq!(steps, expected, "{named}: zones in steps: {said}");
    // What is kept, as text, is what was served.
    let config = directory.path().join("ours/ring53.toml");
    let output = run(&["zone", "export", "t.", "--config", config.to_str().unwrap()]);
    let exported = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(exported.lines().next().is_some_and(|line| line.contains(" SOA ")), "{exported}");
    let served = transferred(ours, "t.", signed).join("\n") + "\n";
    assert_eq!(records(&exported.to_lowercase()), records(&served), "{named}: the export");
    // What was kept serves at once, without the primary.
    drop(peer);
    process.signal(nix::sys::signal::Signal::SIGTERM);
    process.end();
    let process = ring53(&directory.path().join("ours"), ours, "t.", signed, &more);
    process.wait_for("kept from before", 1);
    wait_for_serial("ring53", ours, "t.", given.serial, &|| process.said());
}

#[test]
fn secondary_of_every_peer() {
    let mut random = Random(seed());
    for kind in KINDS {
        for (ip, signed) in [(V4, true), (V6, false)] {
            secondary_of(kind, ip, signed, &mut random);
        }
    }
}

//----------- As primary -----------------------------------------------------

/// `kind` takes a zone from ring53, whole at first and then as it changes.
fn primary_to(kind: Kind, ip: IpAddr, signed: bool, random: &mut Random) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("zone");
    let mut given = Given::new(random);
    given.write(&file);
    let (ours, copy) = (free_address(ip), directory.path().join("copy"));
    let role = Role { zone: "t.".into(), file: copy, primary: Some(ours), notify: None, signed };
    let peer = Peer::start(kind, &directory.path().join("peer"), ip, &role);
    let notify = quoted(peer.address, signed);
    let more = format!("file = \"{}\"\nnotify = {notify}", file.display());
    let process = ring53(&directory.path().join("ours"), ours, "t.", signed, &more);
    let named = format!("{kind:?}, {ip}, signed {signed}");
    for step in 0..=STEPS {
        if step > 0 {
            given.step(random);
            given.write(&file);
            process.reload();
        }
        let place = format!("{named}, step {step}");
        let words = || format!("{}\n{}", process.said(), peer.said());
        wait_for_serial(&named, peer.address, "t.", given.serial, &words);
        let (a, b) = (transferred(ours, "t.", signed), transferred(peer.address, "t.", signed));
        assert_same(&a, &b, &place);
    }
    let said = process.said();
    // The backend of PowerDNS for zone files takes whole zones only.
    let way = if kind == Kind::PowerDns { "whole:" } else { " changes: " };
    let steps = said.lines().filter(|line| line.contains(" sent to ") && line.contains(way));
    assert!(steps.count() >= STEPS as usize, "{named}: zones in steps: {said}");
}

#[test]
fn primary_to_every_peer() {
    let mut random = Random(seed());
    for kind in KINDS {
        for (ip, signed) in [(V4, true), (V6, false)] {
            primary_to(kind, ip, signed, &mut random);
        }
    }
}

//----------- A chain --------------------------------------------------------

/// The root zone of 2018 in seven versions, days apart: the lines of each.
fn root_zones() -> Vec<(u32, Vec<String>)> {
    let unpacked = |file: &str| {
        let output = Command::new("xz").arg("-dc").arg(file).output().expect("xz");
        String::from_utf8(output.stdout).unwrap()
    };
    let first = unpacked("tests/zones/root-2018013101.zone.xz");
    let mut lines: Vec<String> = first.lines().map(String::from).collect();
    let mut zones = vec![(2018013101, lines.clone())];
    let changes = unpacked("tests/zones/root-changes.txt.xz");
    for change in changes.split("serial ").skip(1) {
        let (serial, change) = change.split_once('\n').unwrap();
        let gone: BTreeSet<&str> =
            change.lines().filter_map(|line| line.strip_prefix('-')).collect();
        lines.retain(|line| !gone.contains(line.as_str()));
        let new = change.lines().filter_map(|line| line.strip_prefix('+'));
        // The SOA comes first.
        lines.splice(0..0, new.map(String::from));
        zones.push((serial.parse().unwrap(), lines.clone()));
    }
    zones
}

fn write_lines(lines: &[String], file: &Path) {
    let beside = file.with_extension("next");
    fs::write(&beside, lines.join("\n") + "\n").unwrap();
    fs::rename(&beside, file).unwrap();
}

/// BIND -> ring53 -> NSD -> ring53, and Knot -> ring53.
#[test]
fn seven_root_zones_through_five_servers() {
    let directory = tempfile::tempdir().unwrap();
    let zones = root_zones();
    assert_eq!(zones.len(), 7);
    let at = |name: &str| directory.path().join(name);
    let file = at("root.zone");
    write_lines(&zones[0].1, &file);
    let own: [SocketAddr; 3] = std::array::from_fn(|_| free_address(V4));
    let role = |primary, notify: SocketAddr, file: &str| Role {
        zone: ".".into(),
        file: at(file),
        primary,
        notify: Some(notify),
        signed: true,
    };
    let bind = Peer::start(Kind::Bind, &at("bind"), V4, &role(None, own[0], "root.zone"));
    let nsd = Peer::start(Kind::Nsd, &at("nsd"), V4, &role(Some(own[0]), own[1], "nsd.zone"));
    let knot = Peer::start(Kind::Knot, &at("knot"), V4, &role(Some(own[0]), own[2], "knot.zone"));
    let primaries = |address| format!("primaries = {}\n", quoted(address, true));
    let to_both =
        format!("notify = [\"{} key {KEY}\", \"{} key {KEY}\"]", nsd.address, knot.address);
    let more = primaries(bind.address) + &to_both;
    wait_for_serial("bind", bind.address, ".", zones[0].0, &|| bind.said());
    let ours = [
        ring53(&at("first"), own[0], ".", true, &more),
        ring53(&at("second"), own[1], ".", true, &primaries(nsd.address)),
        ring53(&at("third"), own[2], ".", true, &primaries(knot.address)),
    ];
    for (step, (serial, lines)) in zones.iter().enumerate() {
        if step > 0 {
            thread::sleep(Duration::from_millis(1100));
            write_lines(lines, &file);
            bind.reload();
        }
        let words = || {
            let said: Vec<String> = ours.iter().map(Process::said).collect();
            format!("{}\n{}\n{}", said.join("\n--\n"), nsd.said(), knot.said())
        };
        let expected = transferred_at(bind.address, *serial, &words);
        for address in [own[0], nsd.address, knot.address, own[1], own[2]] {
            let got = transferred_at(address, *serial, &words);
            assert_same(&got, &expected, &format!("{address}, serial {serial}"));
        }
    }
    for (number, process) in ours.iter().enumerate() {
        let said = process.said();
        let steps =
            said.lines().filter(|line| line.contains(" from ") && line.contains(" changes: "));
        let steps = steps.count();
        assert_eq!(steps, zones.len() - 1, "ring53 number {number}, zones in steps: {said}");
    }
}

fn transferred_at(server: SocketAddr, serial: u32, words: &dyn Fn() -> String) -> Vec<String> {
    wait_for_serial(&server.to_string(), server, ".", serial, words);
    transferred(server, ".", true)
}
