//! `ring53 tune` on the machine that runs the tests: it reads, changes nothing, and its script
//! changes a network namespace of its own and changes it back. Machines as directories are beside
//! the code, in `src/server/tune/tests.rs`.

use std::fs;
use std::process::{Command, Output};

const RING53: &str = env!("CARGO_BIN_EXE_ring53");

fn run(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

#[test]
fn this_machine_is_read() {
    let (status, said) = run(Command::new(RING53).args(["tune", "check", "--json"]));
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("\"net.core.somaxconn\""), "{said}");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let major = kernel.split('.').next().unwrap();
    let (_, said) = run(Command::new(RING53).args(["tune", "check", "--only", "kernel"]));
    assert!(said.contains(&format!("kernel = {major}.")), "{said}");
    for word in ["advised:", "why:", "verify:", "undo:"] {
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn strict_fails_only_if_something_differs() {
    // What is not there is unread: not known to differ.
    let unread = ["tune", "check", "--strict", "--interface", "nosuch0", "--only", "nosuch0"];
    let (status, said) = run(Command::new(RING53).args(unread));
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("no such interface; there are "), "{said}");
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("ring53.toml");
    let text = "version = 1\n[server]\nlisten = [\"192.0.2.1:53\"]\nreceive_buffer = \"1GiB\"\n";
    fs::write(&config, text).unwrap();
    for (strict, expected) in [(false, 0), (true, 1)] {
        let mut command = Command::new(RING53);
        command.args(["tune", "check", "--only", "net.core.rmem_max", "--config"]).arg(&config);
        if strict {
            command.arg("--strict");
        }
        let (status, said) = run(&mut command);
        assert_eq!(status, Some(expected), "{said}");
        assert!(said.contains("at least 1073741824"), "{said}");
    }
}

//----------- In a network namespace -----------------------------------------

struct Namespace(String);

impl Namespace {
    /// A namespace with one interface that is up; `None` where that is not allowed.
    fn new() -> Option<Namespace> {
        let name = format!("ring53-tune-{}", std::process::id());
        let added = Command::new("ip").args(["netns", "add", &name]).output().ok()?;
        if !added.status.success() {
            return None;
        }
        let namespace = Namespace(name);
        for line in ["ip link add r53t type veth peer name r53u", "ip link set r53t up"] {
            let (status, said) = namespace.run(&line.split(' ').collect::<Vec<_>>());
            assert_eq!(status, Some(0), "{said}");
        }
        Some(namespace)
    }

    fn run(&self, command: &[&str]) -> (Option<i32>, String) {
        let state = std::env::temp_dir().join(&self.0);
        let mut exec = Command::new("ip");
        exec.env("RING53_TUNE_STATE", state).args(["netns", "exec", &self.0]);
        run(exec.args(command))
    }

    /// What is namespaced of what `tune` looks at.
    fn read(&self) -> Vec<String> {
        const FILES: [&str; 5] = [
            "/proc/sys/net/core/somaxconn",
            "/proc/sys/net/ipv4/ip_local_port_range",
            "/proc/sys/net/ipv4/tcp_syncookies",
            "/sys/class/net/r53t/tx_queue_len",
            "/sys/class/net/r53t/queues/rx-0/rps_cpus",
        ];
        FILES.map(|file| self.run(&["cat", file]).1.trim().to_string()).to_vec()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

#[test]
fn a_script_is_applied_and_undone() {
    let Some(namespace) = Namespace::new() else {
        eprintln!("skipped: no network namespace can be made (root, and ip of iproute2)");
        return;
    };
    for line in [
        "sysctl -qw net.core.somaxconn=128",
        "sysctl -qw net.ipv4.tcp_syncookies=0",
        "ip link set dev r53t txqueuelen 7",
    ] {
        let (status, said) = namespace.run(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(status, Some(0), "{said}");
    }
    namespace.run(&["sh", "-c", "echo '40000 40009' >/proc/sys/net/ipv4/ip_local_port_range"]);
    let before = namespace.read();

    // Only what belongs to the namespace: the rest is the machine's.
    let of_it = ["--only", "net.core.somaxconn", "--only", "net.ipv4", "--only", "r53t"];
    let (status, script) = namespace.run(&[&[RING53, "tune", "script"][..], &of_it].concat());
    assert_eq!(status, Some(0), "{script}");
    assert_eq!(namespace.read(), before, "making a script changes nothing");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tune.sh");
    fs::write(&file, script).unwrap();
    let file = file.to_str().unwrap();
    let strict = [&[RING53, "tune", "check", "--strict"][..], &of_it].concat();
    assert_eq!(namespace.run(&strict).0, Some(1));

    for _ in 0..2 {
        let (status, said) = namespace.run(&["sh", file, "apply"]);
        assert_eq!(status, Some(0), "{said}");
        let (status, said) = namespace.run(&strict);
        assert_eq!(status, Some(0), "{said}");
    }
    let after = namespace.read();
    assert_eq!(after[2], "1");
    assert!(before.iter().zip(&after).all(|(before, after)| before != after), "{after:?}");
    // Made again, when nothing differs any more, it undoes the same.
    let (status, script) = namespace.run(&[&[RING53, "tune", "script"][..], &of_it].concat());
    assert_eq!(status, Some(0), "{script}");
    fs::write(file, script).unwrap();
    for _ in 0..2 {
        let (status, said) = namespace.run(&["sh", file, "undo"]);
        assert_eq!(status, Some(0), "{said}");
        assert_eq!(namespace.read(), before);
    }
}
