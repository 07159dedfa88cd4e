//! A command that decides whether a new version is served: of zones that NSD and Knot send, and of
//! files that are read again.

#[path = "support/process.rs"]
mod process;
mod support;

use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use process::{PATIENCE, Process, ask, run, write_zone};
use support::fleet::{Kind, Peer, Role};
use support::free_port;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Refuses a zone with the word in it, and notes what it was given.
const SCRIPT: &str = "\
echo \"$VERIFY_ZONE $VERIFY_ZONE_ON_STDIN $2 $3 ${NOTIFY_SOCKET-none}\" >> \"$1\"
cmp - \"$4\" || exit 9
grep -q forbidden \"$4\" || exit 0
echo 'a forbidden record' >&2
echo 'and more of them'
exit 3
";

fn address_of(server: SocketAddr, name: &str) -> Option<String> {
    ask(server, name).1.pop()
}

fn wait_until(what: &str, process: &Process, holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "never {what}:\n{}", process.said());
        thread::sleep(Duration::from_millis(20));
    }
}

fn status(config: &Path) -> String {
    let output = run(&["zone", "status", "--config", config.to_str().unwrap()]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A configuration of some zones, each a name and what else there is to say of it.
fn configure(directory: &Path, listen: SocketAddr, zones: &[(&str, String)]) -> Vec<String> {
    fs::create_dir_all(directory).unwrap();
    let mut text =
        format!("version = 1\n[server]\nlisten = [\"{listen}\"]\ncores = [0]\nstate = \"state\"\n");
    for (name, more) in zones {
        writeln!(text, "[[zone]]\nname = \"{name}\"\n{more}").unwrap();
    }
    let file = directory.join("ring53.toml");
    fs::write(&file, text).unwrap();
    vec!["--config".into(), file.to_str().unwrap().into()]
}

fn start(arguments: &[String]) -> Process {
    Process::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// `kind` sends a zone that `command` lets pass, one that it does not, and one that it does again.
fn candidates_of(kind: Kind, directory: &Path, command: &str, bad: &str, reason: &str) {
    let (file, ours) = (directory.join("zone"), SocketAddr::new(V4, free_port()));
    write_zone(&file, 1, "192.0.2.1", "");
    let (zone, copy) = ("t.".to_string(), file.clone());
    let role = Role { zone, file: copy, primary: None, notify: Some(ours), signed: false };
    let peer = Peer::start(kind, &directory.join("peer"), V4, &role);
    let more = format!("primaries = [\"{}\"]\ncheck_command = {command}", peer.address);
    let own = directory.join("ours");
    let arguments = configure(&own, ours, &[("t.", more)]);
    let process = start(&arguments);
    process.address();
    let serves = |last: &str| address_of(ours, "www.t.") == Some(format!("192.0.2.{last}"));
    wait_until("serves the first", &process, || serves("1"));
    let config = own.join("ring53.toml");
    for (serial, more) in [(2, bad), (3, ""), (4, bad), (5, "")] {
        // Files are told apart by the second they were changed in.
        thread::sleep(Duration::from_millis(1100));
        write_zone(&file, serial, &format!("192.0.2.{serial}"), more);
        peer.reload();
        if more.is_empty() {
            wait_until("serves what is good", &process, || serves(&serial.to_string()));
            wait_until("forgets", &process, || !status(&config).contains("refused"));
        } else {
            process.wait_for(&format!("sent serial {serial}, refused: "), 1);
            wait_until("says why", &process, || status(&config).contains(reason));
            assert!(serves(&(serial - 1).to_string()), "{kind:?}, serial {serial} is served");
            assert!(process.said().contains(reason), "{}", process.said());
        }
    }
    let left: Vec<_> = fs::read_dir(own.join("state")).unwrap().flatten().collect();
    let left = left.iter().any(|entry| entry.file_name().to_string_lossy().contains("candidate"));
    assert!(!left, "a candidate stays");
    // What was taken serves again without being asked for.
    drop(process);
    drop(peer);
    let process = start(&arguments);
    process.wait_for("kept from before", 1);
    wait_until("serves what was kept", &process, || serves("5"));
}

#[test]
fn candidates_of_nsd_and_a_script() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    fs::write(at("script"), SCRIPT).unwrap();
    let command = format!(
        "[\"/bin/sh\", \"{}\", \"{}\", \"{{zone}}\", \"s{{serial}}\", \"{{file}}\"]",
        at("script"),
        at("notes")
    );
    let reason = "/bin/sh ended with status 3: a forbidden record; and more of them";
    candidates_of(Kind::Nsd, directory.path(), &command, "x TXT forbidden\n", reason);
    let notes = fs::read_to_string(at("notes")).unwrap();
    assert!(notes.starts_with("t yes t s1 none\nt yes t s2 none\n"), "{notes}");
    assert!(notes.ends_with("t yes t s5 none\n"), "{notes}");
}

#[test]
fn candidates_of_knot_and_a_tool_of_others() {
    let directory = tempfile::tempdir().unwrap();
    let command = "[\"named-checkzone\", \"-M\", \"fail\", \"{zone}\", \"{file}\"]";
    let bad = "mail MX 1 alias\nalias CNAME www\n";
    let reason = "named-checkzone ended with status 1: zone t/IN: mail.t/MX 'alias.t' is a CNAME";
    candidates_of(Kind::Knot, directory.path(), command, bad, reason);
}

#[test]
fn a_command_that_hangs_holds_up_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let [first, second] = [(); 2].map(|()| SocketAddr::new(V4, free_port()));
    let names = ["slow.", "late.", "quick."];
    let write = |name: &str, serial: u32| {
        let text = format!(
            "$TTL 60\n@ SOA ns h {serial} 2 2 3600 60\n@ NS ns\nns A 127.0.0.1\n\
             www A 192.0.2.{serial}\n"
        );
        fs::write(at("next"), text).unwrap();
        fs::rename(at("next"), at(name)).unwrap();
    };
    let given = names.map(|name| {
        write(name, 1);
        let to = format!("allow_transfer = [\"127.0.0.1\"]\nnotify = [\"{second}\"]");
        (name, format!("file = \"{}\"\n{to}", at(name).display()))
    });
    let primary = start(&configure(&at("first"), first, &given));
    primary.address();
    // Its child does not end with it, unless both do.
    fs::write(at("hang"), "echo $$ > \"$1\"\nsleep 600 &\necho $! >> \"$1\"\nwait\n").unwrap();
    let taken = names.map(|name| {
        let timeout = if name == "late." { "300ms" } else { "1h" };
        let command = format!(
            "check_command = [\"sh\", \"{}\", \"{}\"]\ncheck_timeout = \"{timeout}\"",
            at("hang").display(),
            at(&format!("{name}pid")).display()
        );
        let command = if name == "quick." { String::new() } else { command };
        (name, format!("primaries = [\"{first}\"]\n{command}"))
    });
    let mut process = start(&configure(&at("second"), second, &taken));
    process.address();
    let pids = |name: &str| -> Vec<i32> {
        let text = fs::read_to_string(at(&format!("{name}pid"))).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    };
    let runs = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        kill(Pid::from_raw(*pid), None).is_ok() && !stat.contains(") Z ")
    };
    let late = process.wait_for("sent serial 1, refused: sh took longer than 0.3 s", 1);
    assert!(late.contains("zone late.: "), "{late}");
    wait_until("checks the slow one", &process, || pids("slow.").len() == 2);
    for serial in 1..4 {
        write("quick.", serial);
        primary.reload();
        let expected = Some(format!("192.0.2.{serial}"));
        let serves = || address_of(second, "www.quick.") == expected;
        wait_until("serves the quick one", &process, serves);
    }
    assert!(pids("slow.").iter().all(runs), "{}", process.said());
    assert_eq!(ask(second, "www.slow.").0, 2, "a zone is served that nobody has let pass");
    // Nobody waits for the verdict any more.
    process.signal(Signal::SIGTERM);
    assert!(process.end().success());
    let all = [pids("slow."), pids("late.")].concat();
    wait_until("ends what it has started", &process, || !all.iter().any(runs));
}

#[test]
fn a_file_is_asked_about_when_it_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let listen = SocketAddr::new(V4, free_port());
    fs::write(at("script"), SCRIPT).unwrap();
    let command = |program: &str| {
        let to = "allow_transfer = [\"127.0.0.1\"]";
        let (file, notes) = (at("zone").display().to_string(), at("notes").display().to_string());
        let script = at("script").display().to_string();
        format!(
            "file = \"{file}\"\n{to}\ncheck_command = [\"{program}\", \"{script}\", \"{notes}\", \
             \"{{zone}}\", \"{{serial}}\", \"{{file}}\"]\n"
        )
    };
    // At the start there is nothing else to serve.
    write_zone(&at("zone"), 1, "192.0.2.1", "x TXT forbidden\n");
    let arguments = configure(directory.path(), listen, &[("t.", command("/bin/sh"))]);
    let process = start(&arguments);
    process.address();
    let config = at("ring53.toml");
    let read = |serial: u32, more: &str| {
        write_zone(&at("zone"), serial, &format!("192.0.2.{serial}"), more);
        process.reload();
        address_of(listen, "www.t.").unwrap()
    };
    assert_eq!(address_of(listen, "www.t.").as_deref(), Some("192.0.2.1"));
    assert!(!at("notes").exists());
    assert_eq!(read(2, ""), "192.0.2.2");
    assert_eq!(read(3, "x TXT forbidden\n"), "192.0.2.2");
    let reason = "/bin/sh ended with status 3: a forbidden record; and more of them";
    assert!(process.said().contains(&format!("serial 3 is refused: {reason}")));
    assert!(process.said().contains("serial 2 goes on serving"));
    wait_until("says why", &process, || status(&config).contains(reason));
    // Nothing has changed, but a refused file is asked about again.
    assert_eq!(read(3, "x TXT forbidden\n"), "192.0.2.2");
    assert_eq!(fs::read_to_string(at("notes")).unwrap().lines().count(), 3);
    // Whoever only looks runs nothing.
    let arguments_of_export = ["zone", "export", "t.", "--config", config.to_str().unwrap()];
    assert!(run(&arguments_of_export).status.success());
    assert_eq!(fs::read_to_string(at("notes")).unwrap().lines().count(), 3);
    assert_eq!(read(4, ""), "192.0.2.4");
    wait_until("forgets", &process, || !status(&config).contains("refused"));
    configure(directory.path(), listen, &[("t.", command("/nowhere/sh"))]);
    assert_eq!(read(5, ""), "192.0.2.4");
    let said = process.said();
    assert!(said.contains("refused: check_command /nowhere/sh cannot be run: No such"), "{said}");
}
