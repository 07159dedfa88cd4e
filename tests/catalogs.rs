//! Catalog zones (RFC 9432) with Knot and BIND, in both directions: members come, change, move and
//! go, and whatever becomes of a catalog, what it had goes on being served.

#[path = "support/process.rs"]
mod process;
mod support;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use process::{Process, run};
use support::fleet::{Kind, Peer};
use support::free_port;

const PATIENCE: Duration = Duration::from_secs(40);

//----------- Looking at servers ---------------------------------------------

fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

fn dig(server: SocketAddr, arguments: &[&str]) -> String {
    let output = Command::new("dig")
        .arg(format!("@{}", server.ip()))
        .args(["-p", &server.port().to_string(), "+time=2", "+tries=1"])
        .args(arguments)
        .output()
        .expect("dig: run scripts/test");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The text at `what.<zone>` of each zone, or the code instead.
fn look(server: SocketAddr, zones: &[&str]) -> Vec<String> {
    let one = |zone: &&str| {
        let answer = dig(server, &[&format!("what.{zone}"), "TXT"]);
        let text = answer.lines().find(|line| line.contains("\tTXT\t") && !line.starts_with(';'));
        let code = answer.split("status: ").nth(1).and_then(|rest| rest.split(',').next());
        match text {
            Some(line) => line.split('"').nth(1).unwrap_or("?").to_string(),
            None => code.unwrap_or("silence").to_string(),
        }
    };
    zones.iter().map(one).collect()
}

/// Waits until the zones say what is expected.
#[track_caller]
fn wait(server: SocketAddr, zones: &[&str], expected: &[&str], words: &dyn Fn() -> String) {
    let end = Instant::now() + PATIENCE;
    loop {
        let found = look(server, zones);
        if found == expected {
            return;
        }
        assert!(
            Instant::now() < end,
            "{zones:?} are {found:?} instead of {expected:?}\n{}",
            words()
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// Has `what.<zone>` say something else, which is acknowledged when this returns.
#[track_caller]
fn update(server: SocketAddr, zone: &str, what: &str) {
    let mut child = Command::new("nsupdate")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nsupdate: run scripts/test");
    let text = format!(
        "server {} {}\nzone {zone}\nupdate delete what.{zone} TXT\n\
         update add what.{zone} 60 TXT \"{what}\"\nsend\n",
        server.ip(),
        server.port()
    );
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn serial(server: SocketAddr, zone: &str) -> Option<u32> {
    dig(server, &[zone, "SOA", "+short"]).split_whitespace().nth(2)?.parse().ok()
}

//----------- Zones and catalogs ---------------------------------------------

/// Writes a file that replaces the one before, a second later if it is for somebody who tells
/// versions apart by the second.
fn write(file: &Path, text: &str) {
    let beside = file.with_extension("next");
    fs::write(&beside, text).unwrap();
    fs::rename(&beside, file).unwrap();
}

fn write_zone(directory: &Path, zone: &str, serial: u32, what: &str) -> PathBuf {
    let file = directory.join(format!("{}.zone", zone.trim_end_matches('.')));
    let text = format!(
        "$ORIGIN {zone}\n$TTL 60\n@ SOA ns h {serial} 2 2 3600 60\n@ NS ns\nns A 192.0.2.1\n\
         what TXT \"{what}\"\n"
    );
    write(&file, &text);
    file
}

fn write_catalog(directory: &Path, catalog: &str, serial: u32, records: &str) -> PathBuf {
    let file = directory.join(format!("{}.zone", catalog.trim_end_matches('.')));
    let text = format!(
        "$ORIGIN {catalog}\n$TTL 0\n@ SOA invalid. invalid. {serial} 2 2 3600 0\n@ NS invalid.\n\
         {records}"
    );
    write(&file, &text);
    file
}

/// BIND with the zones of these files.
fn bind(directory: &Path, zones: &[(&str, PathBuf)], notify: SocketAddr) -> Peer {
    let address = local();
    let mut config = bind_options(directory, address, "");
    for (zone, file) in zones {
        let _ = writeln!(
            config,
            "zone \"{zone}\" {{ type primary; ixfr-from-differences yes; check-names ignore; \
             file \"{}\"; notify explicit; also-notify {{ {} port {}; }}; }};",
            file.display(),
            notify.ip(),
            notify.port()
        );
    }
    start_bind(directory, address, &config)
}

fn bind_options(directory: &Path, address: SocketAddr, more: &str) -> String {
    format!(
        "options {{\n directory \"{0}\"; pid-file none; session-keyfile none;\n \
         managed-keys-directory \"{0}\"; lock-file none; listen-on-v6 {{ none; }};\n \
         listen-on port {1} {{ 127.0.0.1; }}; recursion no; allow-query {{ any; }};\n \
         allow-transfer {{ any; }}; allow-notify {{ any; }}; dnssec-validation no;\n \
         notify-delay 0; serial-query-rate 1000; check-integrity no; {more}\n}};\n\
         controls {{ }};\n",
        directory.display(),
        address.port()
    )
}

fn start_bind(directory: &Path, address: SocketAddr, config: &str) -> Peer {
    let file = directory.join("named.conf");
    fs::write(&file, config).unwrap();
    let mut command = Command::new("named");
    command.args(["-g", "-n", "1", "-c"]).arg(file);
    Peer::run(Kind::Bind, directory, address, command)
}

/// Knot; `zones` are sections of its configuration.
fn knot(directory: &Path, address: SocketAddr, zones: &str) -> Peer {
    write_knot(directory, address, zones);
    let mut command = Command::new("knotd");
    command.arg("-c").arg(directory.join("knot.conf"));
    Peer::run(Kind::Knot, directory, address, command)
}

fn write_knot(directory: &Path, address: SocketAddr, zones: &str) {
    let config = format!(
        "server:\n  rundir: \"{0}\"\n  listen: 127.0.0.1@{1}\n  udp-workers: 1\n  \
         tcp-workers: 1\n  background-workers: 1\nlog:\n  - target: stdout\n    any: info\n\
         database:\n  storage: \"{0}\"\n\
         acl:\n  - id: all\n    address: 127.0.0.1\n    action: [transfer, notify]\n{zones}",
        directory.display(),
        address.port()
    );
    write(&directory.join("knot.conf"), &config);
}

/// ring53 with `more` in its configuration, which is rewritten if it runs already.
fn configure(directory: &Path, listen: SocketAddr, more: &str) -> PathBuf {
    fs::create_dir_all(directory).unwrap();
    let file = directory.join("ring53.toml");
    let text = format!(
        "version = 1\n[server]\nlisten = [\"{listen}\"]\ncores = [0]\nstate = \"state\"\n{more}"
    );
    write(&file, &text);
    file
}

fn ring53(directory: &Path, listen: SocketAddr, more: &str) -> Process {
    let file = configure(directory, listen, more);
    let process = Process::start(&["--config", file.to_str().unwrap()]);
    process.address();
    process
}

/// What is kept of each zone on disk.
fn kept(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory.join("state")).unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    let mut zones: Vec<_> =
        names.filter_map(|name| Some(name.strip_suffix(".zone")?.to_string())).collect();
    zones.sort();
    zones
}

#[track_caller]
fn wait_kept(directory: &Path, expected: &[&str]) {
    let end = Instant::now() + PATIENCE;
    while kept(directory) != expected {
        assert!(Instant::now() < end, "{:?} are kept instead of {expected:?}", kept(directory));
        thread::sleep(Duration::from_millis(20));
    }
}

fn status(directory: &Path, zone: &str) -> String {
    let config = directory.join("ring53.toml");
    let output = run(&["zone", "status", zone, "--config", config.to_str().unwrap()]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

//----------- Following ------------------------------------------------------

const V: &str = "version TXT \"2\"\n";
/// Four zones that may be served, and what they say.
const NAMES: [&str; 4] = ["a.test.", "b.test.", "c.test.", "own.test."];
const A: &str = "a.test. of BIND";
const B: &str = "b.test. of BIND";
const OWN: &str = "own.test. of a file";

/// ring53 follows two catalogs of BIND.
struct Scene {
    directory: tempfile::TempDir,
    home: PathBuf,
    ours: SocketAddr,
    primary: Peer,
    /// The configuration with both catalogs, and with the first alone.
    config: [String; 2],
    process: Process,
}

impl Scene {
    fn new() -> Scene {
        let directory = tempfile::tempdir().unwrap();
        let (at, home, ours) = (directory.path(), directory.path().join("ours"), local());
        let zone = |zone| (zone, write_zone(at, zone, 1, &format!("{zone} of BIND")));
        let mut zones: Vec<(&str, PathBuf)> = NAMES.into_iter().map(zone).collect();
        let first = format!(
            "{V}1.zones PTR a.test.\n2.zones PTR b.test.\ngroup.2.zones TXT \"from-file\"\n\
             3.zones PTR own.test.\n"
        );
        zones.push(("one.test.", write_catalog(at, "one.test.", 1, &first)));
        zones.push(("two.test.", write_catalog(at, "two.test.", 1, V)));
        let primary = bind(at, &zones, ours);
        fs::create_dir_all(&home).unwrap();
        write_zone(&home, "b.test.", 1, "b.test. of a file");
        write_zone(&home, "own.test.", 1, OWN);
        let one = format!(
            "[[pattern]]\nname = \"members\"\nprimaries = [\"{0}\"]\n\
             [[pattern]]\nname = \"files\"\nfile = \"%s.zone\"\n\
             [[zone]]\nname = \"own.test.\"\nfile = \"own.test.zone\"\n\
             [[zone]]\nname = \"one.test.\"\nprimaries = [\"{0}\"]\n\
             catalog = {{ pattern = \"members\", groups = {{ from-file = \"files\" }} }}\n",
            primary.address
        );
        let both = format!(
            "{one}[[zone]]\nname = \"two.test.\"\nprimaries = [\"{}\"]\n\
             catalog = {{ pattern = \"members\" }}\n",
            primary.address
        );
        let process = ring53(&home, ours, &both);
        Scene { directory, home, ours, primary, config: [both, one], process }
    }

    /// Waits until the four zones say what is expected.
    #[track_caller]
    fn wait(&self, expected: [&str; 4]) {
        let words = || format!("{}\n{}", self.process.said(), self.primary.said());
        wait(self.ours, &NAMES, &expected, &words);
    }

    /// A catalog has another version.
    fn version(&self, serial: u32, catalog: &str, records: &str) {
        // Files are told apart by the second they were changed in.
        thread::sleep(Duration::from_millis(1100));
        write_catalog(self.directory.path(), catalog, serial, records);
        self.primary.reload();
    }

    fn restart(&mut self) {
        self.process.signal(Signal::SIGTERM);
        assert!(self.process.end().success(), "{}", self.process.said());
        self.process = ring53(&self.home, self.ours, &self.config[0]);
    }
}

#[test]
fn members_are_served_whatever_becomes_of_their_catalog() {
    let mut scene = Scene::new();
    let first = [A, "b.test. of a file", "REFUSED", OWN];
    scene.wait(first);
    scene.process.wait_for("own.test. is ignored: the configuration has a zone of that name", 1);
    let told = status(&scene.home, "one.test.");
    assert!(told.contains("a catalog of 2 members"), "{told}");
    assert!(told.contains("ignored: own.test.: the name is taken"), "{told}");
    assert!(status(&scene.home, "a.test.").contains("a member of the catalog one.test."));
    wait_kept(&scene.home, &["a.test", "one.test", "two.test"]);
    // RFC 9432, 7: nobody here may have the catalogs, nor know what is in them.
    assert_eq!(look(scene.ours, &["one.test."]), ["REFUSED"]);
    assert!(dig(scene.ours, &["one.test.", "SOA"]).contains("status: REFUSED"));
    // A broken version: everything goes on, also after a restart.
    scene.version(2, "one.test.", "version TXT \"1\"\n1.zones PTR c.test.\n");
    scene.process.wait_for("its version is \"1\": only \"2\" is known", 1);
    assert_eq!(look(scene.ours, &NAMES), first);
    let told = status(&scene.home, "one.test.");
    assert!(told.contains("broken: serial 2: its version is \"1\""), "{told}");
    wait_kept(&scene.home, &["a.test", "one.test", "two.test"]);
    scene.restart();
    scene.process.wait_for("a.test.: serial 1, kept from before", 1);
    scene.wait(first);
    // A good one: the group is another.
    let good = format!("{V}1.zones PTR a.test.\n2.zones PTR b.test.\n");
    scene.version(3, "one.test.", &good);
    scene.wait([A, B, "REFUSED", OWN]);
    // Without any primary a restart serves what there was.
    wait_kept(&scene.home, &["a.test", "b.test", "one.test", "two.test"]);
    scene.primary.stop();
    scene.restart();
    assert_eq!(look(scene.ours, &NAMES), [A, B, "REFUSED", OWN]);
    let config = scene.home.join("ring53.toml");
    let output = run(&["zone", "export", "a.test.", "--config", config.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&output.stdout).contains(A), "{output:?}");
}

#[test]
fn members_move_between_catalogs_begin_anew_and_go() {
    let scene = Scene::new();
    let without_group = format!("{V}1.zones PTR a.test.\n2.zones PTR b.test.\n");
    scene.wait([A, "b.test. of a file", "REFUSED", OWN]);
    scene.version(3, "one.test.", &without_group);
    scene.wait([A, B, "REFUSED", OWN]);
    // Another catalog lists a zone that is taken; the owner agrees; the new one says it again.
    let listed = format!("{V}9.zones PTR c.test.\n1.zones PTR a.test.\n");
    scene.version(2, "two.test.", &listed);
    let all = [A, B, "c.test. of BIND", OWN];
    scene.wait(all);
    let taken = "a.test. is ignored: the catalog one.test. has a zone of that name";
    scene.process.wait_for(taken, 1);
    scene.version(4, "one.test.", &format!("{without_group}coo.1.zones PTR two.test.\n"));
    scene.process.wait_for("one.test.: serial 4 from", 1);
    scene.version(3, "two.test.", &format!("{listed}ext TXT x\n"));
    scene.process.wait_for("a.test. comes over from one.test.", 1);
    // The old owner has nothing to say about it any more; another label begins a zone anew.
    scene.version(5, "one.test.", &format!("{V}new.zones PTR b.test.\n"));
    scene.process.wait_for("zone b.test.: serial 1 from", 2);
    scene.wait(all);
    let said = scene.process.said();
    assert_eq!(said.matches("zone a.test.: serial 1 from").count(), 1, "it was kept: {said}");
    assert!(status(&scene.home, "a.test.").contains("a member of the catalog two.test."));
    wait_kept(&scene.home, &["a.test", "b.test", "c.test", "one.test", "two.test"]);
    // Removed: from the server, and from the disk.
    scene.version(4, "two.test.", &format!("{V}1.zones PTR a.test.\n"));
    scene.wait([A, B, "REFUSED", OWN]);
    wait_kept(&scene.home, &["a.test", "b.test", "one.test", "two.test"]);
    // A catalog that is not configured any more takes its members with it, but not their state.
    configure(&scene.home, scene.ours, &scene.config[1]);
    scene.process.reload();
    scene.wait(["REFUSED", B, "REFUSED", OWN]);
    let gone = "two.test.: it is not configured any more: its 1 members are not served";
    scene.process.wait_for(gone, 1);
    wait_kept(&scene.home, &["a.test", "b.test", "one.test", "two.test"]);
    configure(&scene.home, scene.ours, &scene.config[0]);
    scene.process.reload();
    scene.wait([A, B, "REFUSED", OWN]);
}

/// Knot makes a catalog of its zones, with groups.
#[test]
fn what_knot_makes_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let (at, home) = (directory.path(), directory.path().join("ours"));
    let (ours, theirs) = (local(), local());
    let zones = |list: &[(&str, &str)]| {
        let mut text = format!(
            "remote:\n  - id: us\n    address: 127.0.0.1@{}\n\
             template:\n  - id: default\n    storage: \"{}\"\n    acl: all\n    notify: us\n    \
             zonefile-load: difference\n    journal-content: changes\n    zonefile-sync: -1\n\
             zone:\n  - domain: cat.test.\n    catalog-role: generate\n",
            ours.port(),
            at.display()
        );
        for (zone, group) in list {
            write_zone(at, zone, 1, &format!("{zone} of Knot"));
            let _ = write!(
                text,
                "  - domain: {zone}\n    file: {}.zone\n    catalog-role: member\n    \
                 catalog-zone: cat.test.\n",
                zone.trim_end_matches('.')
            );
            if !group.is_empty() {
                let _ = writeln!(text, "    catalog-group: {group}");
            }
        }
        text
    };
    let peer = knot(at, theirs, &zones(&[("a.test.", ""), ("b.test.", "no-transfer")]));
    let process = ring53(
        &home,
        ours,
        &format!(
            "[[pattern]]\nname = \"p\"\nprimaries = [\"{theirs}\"]\nallow_transfer = [\"127.0.0.1\"]\n\
             [[pattern]]\nname = \"q\"\nprimaries = [\"{theirs}\"]\n\
             [[zone]]\nname = \"cat.test.\"\npattern = \"p\"\n\
             catalog = {{ pattern = \"p\", groups = {{ no-transfer = \"q\" }} }}\n"
        ),
    );
    let words = || format!("{}\n{}", process.said(), peer.said());
    let names = ["a.test.", "b.test.", "c.test."];
    wait(ours, &names, &["a.test. of Knot", "b.test. of Knot", "REFUSED"], &words);
    let has_records = |zone: &str| dig(ours, &[zone, "AXFR"]).contains("\tSOA\t");
    assert_eq!(names[..2].iter().map(|zone| has_records(zone)).collect::<Vec<_>>(), [true, false]);
    // Who may have the catalog may ask for it as well.
    assert!(serial(ours, "cat.test.").is_some());
    write_knot(at, theirs, &zones(&[("a.test.", ""), ("b.test.", ""), ("c.test.", "")]));
    peer.reload();
    let all = ["a.test. of Knot", "b.test. of Knot", "c.test. of Knot"];
    wait(ours, &names, &all, &words);
    let end = Instant::now() + PATIENCE;
    while !has_records("b.test.") {
        assert!(Instant::now() < end, "the group has changed\n{}", words());
        thread::sleep(Duration::from_millis(50));
    }
    write_knot(at, theirs, &zones(&[("a.test.", ""), ("c.test.", "")]));
    peer.reload();
    wait(ours, &names, &[all[0], "REFUSED", all[2]], &words);
    wait_kept(&home, &["a.test", "c.test", "cat.test"]);
    // A member changes as any zone.
    thread::sleep(Duration::from_millis(1100));
    write_zone(at, "c.test.", 2, "the second");
    peer.reload();
    wait(ours, &names, &[all[0], "REFUSED", "the second"], &words);
    assert!(process.said().contains("zone c.test.: serial 2 from"), "{}", process.said());
}

/// Members of `cat.test.`, which comes from a file or from the primary: `a.test.` is transferred,
/// `f.test.` has a file and is changed by updates.
struct Reset {
    directory: tempfile::TempDir,
    ours: SocketAddr,
    config: String,
    primary: Process,
    from_file: bool,
}

impl Reset {
    fn new(from_file: bool) -> Reset {
        let directory = tempfile::tempdir().unwrap();
        let (at, theirs, ours) = (directory.path(), local(), local());
        fs::create_dir_all(at.join("ours")).unwrap();
        write_zone(at, "a.test.", 1, "a.test. of a primary");
        write_zone(&at.join("ours"), "f.test.", 1, "f.test. of a file");
        write_cat(at, from_file, 1, ["1", "2"]);
        let given = |zone: &str| {
            format!(
                "[[zone]]\nname = \"{zone}.\"\nfile = \"{}\"\nallow_transfer = [\"127.0.0.1\"]\n\
                 notify = [\"{ours}\"]\n",
                at.join(format!("{zone}.zone")).display()
            )
        };
        let catalog = if from_file { String::new() } else { given("cat.test") };
        let primary = ring53(&at.join("theirs"), theirs, &(given("a.test") + &catalog));
        let comes = if from_file {
            "file = \"cat.test.zone\"".to_string()
        } else {
            format!("primaries = [\"{theirs}\"]")
        };
        let config = format!(
            "[[pattern]]\nname = \"members\"\nprimaries = [\"{theirs}\"]\n\
             [[pattern]]\nname = \"files\"\nfile = \"%s.zone\"\nallow_update = [\"127.0.0.1\"]\n\
             [[zone]]\nname = \"cat.test.\"\n{comes}\n\
             catalog = {{ pattern = \"members\", groups = {{ files = \"files\" }} }}\n"
        );
        Reset { directory, ours, config, primary, from_file }
    }

    fn start(&self) -> Process {
        ring53(&self.directory.path().join("ours"), self.ours, &self.config)
    }

    fn version(&self, process: &Process, serial: u32, labels: [&str; 2]) {
        write_cat(self.directory.path(), self.from_file, serial, labels);
        let _ = if self.from_file { process.reload() } else { self.primary.reload() };
    }

    #[track_caller]
    fn wait(&self, process: &Process, f: &str) {
        let words = || format!("{}\n{}", process.said(), self.primary.said());
        wait(self.ours, &["a.test.", "f.test."], &["a.test. of a primary", f], &words);
    }
}

fn write_cat(directory: &Path, from_file: bool, serial: u32, [a, f]: [&str; 2]) {
    let records =
        format!("{V}{a}.zones PTR a.test.\n{f}.zones PTR f.test.\ngroup.{f}.zones TXT \"files\"\n");
    let ours = directory.join("ours");
    write_catalog(if from_file { &ours } else { directory }, "cat.test.", serial, &records);
}

#[test]
fn what_begins_anew_keeps_nothing() {
    for from_file in [true, false] {
        let reset = Reset::new(from_file);
        let (ours, file) = (reset.ours, "f.test. of a file");
        let mut process = reset.start();
        reset.wait(&process, file);
        update(ours, "f.test.", "the first");
        reset.wait(&process, "the first");
        // Another label begins both anew: one is transferred again, of the other the file counts.
        reset.version(&process, 2, ["3", "4"]);
        reset.wait(&process, file);
        process.wait_for("zone a.test.: serial 1 from", 2);
        let source = reset.directory.path().join("ours/state/f.test.source");
        assert!(!source.exists(), "{}", process.said());
        // What is acknowledged after that is there after a restart.
        update(ours, "f.test.", "the second");
        process.signal(Signal::SIGTERM);
        assert!(process.end().success(), "{}", process.said());
        process = reset.start();
        reset.wait(&process, "the second");
        // The same at once, and after any end.
        reset.version(&process, 3, ["3", "5"]);
        reset.wait(&process, file);
        update(ours, "f.test.", "the third");
        process.signal(Signal::SIGKILL);
        process.end();
        process = reset.start();
        reset.wait(&process, "the third");
    }
}

//----------- Making ---------------------------------------------------------

/// Knot as a follower of `cat.test.`, which `primary` has.
fn knot_follows(home: &Path, address: SocketAddr, primary: SocketAddr) -> Peer {
    fs::create_dir_all(home).unwrap();
    let template = |name: &str| {
        format!(
            "  - id: {name}\n    storage: \"{}\"\n    acl: all\n    master: primary\n    \
             zonefile-sync: -1\n    retry-max-interval: 1\n",
            home.display()
        )
    };
    let zones = format!(
        "remote:\n  - id: primary\n    address: 127.0.0.1@{}\ntemplate:\n{}{}\
         zone:\n  - domain: cat.test.\n    catalog-role: interpret\n    \
         catalog-template: [default, special]\n",
        primary.port(),
        template("default"),
        template("special"),
    );
    knot(home, address, &zones)
}

/// BIND as a follower of `cat.test.`, which `primary` has.
fn bind_follows(home: &Path, address: SocketAddr, primary: SocketAddr) -> Peer {
    fs::create_dir_all(home).unwrap();
    let primary = format!("127.0.0.1 port {};", primary.port());
    let more = format!(
        "catalog-zones {{ zone \"cat.test\" default-primaries {{ {primary} }} in-memory no \
         zone-directory \"{}\" min-update-interval 1; }};",
        home.display()
    );
    let zone = format!(
        "zone \"cat.test\" {{ type secondary; primaries {{ {primary} }}; file \"cat\"; \
         request-ixfr yes; }};\n"
    );
    start_bind(home, address, &(bind_options(home, address, &more) + &zone))
}

/// A configuration that makes a catalog of these zones, each with its group.
fn of_members(peers: &str, zones: &[(&str, &str)]) -> String {
    let mut text = format!(
        "[[pattern]]\nname = \"member\"\nfile = \"%s.zone\"\ncatalog_member = \"cat.test.\"\n\
         allow_transfer = [\"127.0.0.1\"]\nnotify = [{peers}]\n\
         [[zone]]\nname = \"cat.test.\"\ncatalog = {{ produce = true }}\n\
         allow_transfer = [\"127.0.0.1\"]\nnotify = [{peers}]\n"
    );
    for (zone, group) in zones {
        let _ = writeln!(text, "[[zone]]\nname = \"{zone}\"\npattern = \"member\"");
        if !group.is_empty() {
            let _ = writeln!(text, "catalog_group = \"{group}\"");
        }
    }
    text
}

/// ring53 makes a catalog of its zones; Knot, BIND and another ring53 follow it.
#[test]
fn what_is_made_here_is_followed_by_others() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let home = at.join("ours");
    let [ours, knot_at, bind_at, other_at] = std::array::from_fn(|_| local());
    let peers = format!("\"{knot_at}\", \"{bind_at}\", \"{other_at}\"");
    fs::create_dir_all(&home).unwrap();
    for zone in ["a.test.", "b.test.", "c.test."] {
        write_zone(&home, zone, 1, &format!("{zone} of ring53"));
    }
    let config = |zones: &[(&str, &str)]| of_members(&peers, zones);
    let mut process = ring53(&home, ours, &config(&[("a.test.", ""), ("b.test.", "special")]));
    let follower = knot_follows(&at.join("knot"), knot_at, ours);
    let named = bind_follows(&at.join("bind"), bind_at, ours);
    let of_ours = format!(
        "[[pattern]]\nname = \"p\"\nprimaries = [\"{ours}\"]\n\
         [[zone]]\nname = \"cat.test.\"\npattern = \"p\"\ncatalog = {{ pattern = \"p\" }}\n"
    );
    let other = ring53(&at.join("other"), other_at, &of_ours);
    let names = ["a.test.", "b.test.", "c.test."];
    let all = ["a.test. of ring53", "b.test. of ring53", "c.test. of ring53"];
    let everywhere = |process: &Process, expected: &[&str; 3]| {
        let words = || {
            let all = [process.said(), follower.said(), named.said(), other.said()];
            all.join("\n-----\n")
        };
        for server in [knot_at, bind_at, other_at] {
            wait(server, &names, expected, &words);
        }
    };
    everywhere(&process, &[all[0], all[1], "REFUSED"]);
    let first = serial(ours, "cat.test.").unwrap();
    // Nothing has changed: the serial stays.
    process.reload();
    assert_eq!(serial(ours, "cat.test."), Some(first));
    let three = [("a.test.", ""), ("b.test.", ""), ("c.test.", "special")];
    configure(&home, ours, &config(&three));
    process.reload();
    everywhere(&process, &all);
    let second = serial(ours, "cat.test.").unwrap();
    assert!(second > first, "{first}, {second}");
    assert!(other.said().contains("zone cat.test.: serial") && other.said().contains("1 changes:"));
    let config_file = home.join("ring53.toml");
    let output = run(&["zone", "export", "cat.test.", "--config", config_file.to_str().unwrap()]);
    let exported = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        exported.matches("\tPTR").count() + exported.matches(" PTR ").count(),
        3,
        "{exported}"
    );
    // It survives a restart, and so does what has changed.
    process.signal(Signal::SIGTERM);
    assert!(process.end().success());
    process = ring53(&home, ours, &config(&three));
    assert_eq!(serial(ours, "cat.test."), Some(second));
    configure(&home, ours, &config(&[("c.test.", "special")]));
    process.reload();
    everywhere(&process, &["REFUSED", "REFUSED", all[2]]);
    let said = process.said();
    let in_steps = |line: &str| line.contains("zone cat.test.") && line.contains(" changes:");
    assert!(said.lines().any(in_steps), "the catalog went out whole only: {said}");
    // Labels are those that they were: c.test. was not begun anew.
    assert_eq!(other.said().matches("zone c.test.: serial 1 from").count(), 1, "{}", other.said());
}

//----------- Primaries ------------------------------------------------------

/// The first primary of many zones takes connections, and never says anything.
#[test]
fn a_primary_that_hangs_holds_up_few_of_its_zones() {
    const ZONES: usize = 60;
    let directory = tempfile::tempdir().unwrap();
    let (at, theirs, ours) = (directory.path(), local(), local());
    fs::create_dir_all(at.join("theirs")).unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = silent.local_addr().unwrap();
    let (mut given, mut taken) = (String::new(), String::new());
    for number in 0..ZONES {
        let zone = format!("z{number}.test.");
        let file = write_zone(&at.join("theirs"), &zone, 1, "there");
        let _ = writeln!(
            given,
            "[[zone]]\nname = \"{zone}\"\nfile = \"{}\"\nallow_transfer = [\"127.0.0.1\"]",
            file.display()
        );
        let _ =
            writeln!(taken, "[[zone]]\nname = \"{zone}\"\nprimaries = [\"{dead}\", \"{theirs}\"]");
    }
    let _primary = ring53(&at.join("theirs"), theirs, &given);
    let process = ring53(&at.join("ours"), ours, &taken);
    let names: Vec<String> = (0..ZONES).map(|number| format!("z{number}.test.")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    wait(ours, &names, &[["there"; ZONES]].concat(), &|| process.said());
    let said = process.said();
    let waited = said.matches("sent no whole message").count();
    // Those that were being asked for when it was found out.
    assert!((1..=16).contains(&waited), "{waited} zones have waited for it: {said}");
}
