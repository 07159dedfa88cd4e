//! Whole machines as directories of files: `tests/machines/`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::knob::{Knob, Verdict};
use super::source::{Answers, Tree};
use super::{Role, advise, facts, print, script};

use Verdict::{Absent, Differs, Good, Unread};

fn role(cores: &[usize]) -> Role {
    Role {
        cores: cores.to_vec(),
        listen: ["0.0.0.0:53", "[::]:53"].map(|address| address.parse().unwrap()).to_vec(),
        interfaces: Vec::new(),
        receive_buffer: 8 << 20,
        answer_size_max: 1232,
        connections: 1024,
        uring: true,
    }
}

fn machine(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/machines").join(name)
}

fn knobs(name: &str, role: &Role) -> Vec<Knob> {
    let root = machine(name);
    let answers = Answers(fs::read_to_string(root.join("ethtool")).unwrap());
    advise::advise(&facts::read(&Tree::new(root), &answers, role), role)
}

#[track_caller]
fn find<'a>(knobs: &'a [Knob], name: &str) -> &'a Knob {
    knobs.iter().find(|knob| knob.name == name).unwrap_or_else(|| panic!("no knob {name}"))
}

/// A knob, what is said of it, a part of its value or of the reason there is none, and a part of
/// what sets it.
type Expected = (&'static str, Verdict, &'static str, &'static str);

#[track_caller]
fn expect(knobs: &[Knob], expected: &[Expected]) {
    for (name, verdict, value, set) in expected {
        let knob = find(knobs, name);
        let found = match &knob.value {
            Ok(value) | Err(value) => value,
        };
        assert_eq!(knob.verdict, *verdict, "{knob:?}");
        assert!(found.contains(value), "{name}: \"{found}\" has no \"{value}\"");
        assert!(knob.set().contains(set), "{name}: \"{}\" has no \"{set}\"", knob.set());
        assert!(!knob.why.is_empty() && !knob.verify.is_empty() && !knob.undo().is_empty());
        assert_eq!(knob.verdict == Differs, !knob.steps.is_empty(), "{knob:?}");
    }
}

#[test]
fn a_container() {
    let knobs = knobs("container", &role(&[0, 1]));
    expect(
        &knobs,
        &[
            ("net.core.rmem_max", Unread, "only in the first network namespace", ""),
            ("net.core.somaxconn", Good, "4096", ""),
            ("kernel.io_uring_disabled", Unread, "is not there", ""),
            ("kernel", Differs, "5.15", "install a newer kernel"),
            ("scaling_governor", Absent, "firmware or the host", ""),
            ("C-states", Absent, "the host chooses", ""),
            ("transparent_hugepage", Unread, "is not there", ""),
            ("hugepages-2048kB", Unread, "is not there", ""),
            ("conntrack", Good, "not loaded", ""),
            ("locked memory", Differs, "65536", "LimitMEMLOCK=8388608"),
            ("open files", Good, "1048576", ""),
            ("irqbalance", Good, "not running", ""),
            ("eth0 queues", Absent, "no device behind it", ""),
            ("eth0 interrupts", Absent, "no device behind it", ""),
            ("eth0 rps_cpus", Unread, "/sys/class/net/eth0/queues is not there", ""),
            ("eth0 txqueuelen", Differs, "0", "txqueuelen 1000"),
            ("eth0 mtu", Good, "1450", ""),
            ("eth0 threaded", Unread, "is not there", ""),
        ],
    );
    assert!(!knobs.iter().any(|knob| knob.name.starts_with("lo ")));
}

#[test]
fn a_virtual_machine() {
    let knobs = knobs("vm", &role(&[0, 1, 2, 3]));
    expect(
        &knobs,
        &[
            ("net.core.rmem_max", Differs, "212992", "net.core.rmem_max=8388608"),
            ("net.core.busy_poll", Differs, "50", "net.core.busy_poll=0"),
            ("net.core.default_qdisc", Differs, "fq", "fq_codel"),
            ("net.ipv4.udp_mem", Good, "382839 510455 765678", ""),
            ("kernel.io_uring_disabled", Differs, "2", "kernel.io_uring_disabled=0"),
            ("kernel", Good, "6.12", ""),
            ("NUMA nodes", Absent, "one node", ""),
            ("transparent_hugepage", Differs, "never", "echo madvise >"),
            ("hugepages-2048kB", Differs, "512, 500 of them unused", "echo 12 >"),
            ("irqbalance", Differs, "running", "systemctl stop irqbalance"),
            ("eth0 queues", Good, "2 of 2", ""),
            ("eth0 rx-flow-hash udp4", Unread, "no such setting", ""),
            ("eth0 ntuple rules", Absent, "no such setting", ""),
            ("eth0 interrupts", Differs, "virtio2-input.1 on 0,1,2,3", "echo 1 >/proc/irq/27/"),
            ("eth0 rps_cpus", Differs, "0", "echo f >/sys/class/net/eth0/queues/rx-1/rps_cpus"),
            ("eth0 xps_cpus", Good, "5 a", ""),
            ("eth0 rx ring", Differs, "256 of 1024", "ethtool -G eth0 rx 1024"),
            ("eth0 rx-usecs", Absent, "the host moderates", ""),
        ],
    );
    // Queue 0 is where it should be.
    assert!(!find(&knobs, "eth0 interrupts").set().contains("/proc/irq/25/"));
    assert!(!knobs.iter().any(|knob| knob.name.starts_with("eth1")), "it is not up");
}

#[test]
fn two_sockets_and_conntrack() {
    let knobs = knobs("metal", &role(&[0, 1, 2, 3, 4, 5, 6, 7]));
    expect(
        &knobs,
        &[
            ("net.core.rmem_max", Good, "33554432", ""),
            ("net.core.wmem_max", Good, "33554432", ""),
            ("net.ipv4.udp_mem", Differs, "2000 3000 4000", "'65536 65536 98304'"),
            ("kernel.numa_balancing", Differs, "1", "kernel.numa_balancing=0"),
            ("scaling_governor", Differs, "1: powersave", "performance >"),
            ("C-states", Differs, "C6 (170 us)", "cpu7/cpuidle/state2/disable"),
            ("NUMA nodes", Differs, "node 0, node 1", "cores = [0,1,2,3]"),
            ("conntrack", Differs, "3 connections, 2 of them", "udp dport { 53 } notrack"),
            ("locked memory", Good, "unlimited", ""),
            ("open files", Differs, "1024", "LimitNOFILE=2048"),
            ("ens1f0 queues", Differs, "4 of 64", "ethtool -L ens1f0 combined 8"),
            ("ens1f0 rx-flow-hash udp4", Differs, "sd", "rx-flow-hash udp4 sdfn"),
            ("ens1f0 rx-flow-hash udp6", Good, "sdfn", ""),
            ("ens1f0 ntuple rules", Differs, "2", "ethtool -n ens1f0"),
            ("ens1f0 interrupts", Unread, "set those, then ask again", ""),
            ("ens1f0 rps_cpus", Differs, "0 ff 0", "echo 0 >/sys/class/net/ens1f0/queues/rx-2/"),
            ("ens1f0 xps_cpus", Good, "1 2 4 8", ""),
            ("ens1f0 rx ring", Differs, "512 of 4096", "rx 2048"),
            ("ens1f0 rx-usecs", Differs, "1", "rx-usecs 50"),
            ("ens1f0 numa_node", Differs, "0, but not cores 4,5,6,7", "cores = [0,1,2,3]"),
        ],
    );
    // Core 0 does not use the deep state, and queues that come back have their masks again.
    assert!(!find(&knobs, "C-states").set().contains("cpu0/"));
    let undo = find(&knobs, "ens1f0 queues").undo();
    assert!(undo.starts_with("ethtool -L ens1f0 combined 4; echo 0 >"), "{undo}");
    assert!(undo.contains("echo ff >/sys/class/net/ens1f0/queues/rx-2/rps_cpus"), "{undo}");
}

#[test]
fn the_role_decides() {
    // As many cores as queues, near the device: nothing is left to move but what spreads.
    let near = knobs("metal", &role(&[0, 1, 2, 3]));
    expect(
        &near,
        &[
            ("NUMA nodes", Good, "node 0", ""),
            ("ens1f0 queues", Good, "4 of 64", ""),
            ("ens1f0 interrupts", Good, "ice-ens1f0-TxRx-3 on 3", ""),
            ("ens1f0 numa_node", Good, "0, as all cores", ""),
        ],
    );
    let mut modest = role(&[0]);
    modest.listen = vec!["192.0.2.1:53".parse().unwrap()];
    modest.receive_buffer = 128 << 10;
    modest.answer_size_max = 4096;
    modest.uring = false;
    let modest = knobs("vm", &modest);
    expect(
        &modest,
        &[
            ("net.core.rmem_max", Good, "212992", ""),
            ("kernel.io_uring_disabled", Good, "2", ""),
            ("eth0 queues", Differs, "2 of 2", "ethtool -L eth0 combined 1"),
            ("eth0 rx-flow-hash udp6", Absent, "nothing listens", ""),
            ("eth0 rps_cpus", Good, "0", ""),
            ("eth0 mtu", Differs, "1500", "answer_size_max = 1452"),
        ],
    );
    let mut inside = role(&[0]);
    inside.listen = vec!["127.0.0.1:5300".parse().unwrap()];
    let inside = knobs("vm", &inside);
    expect(&inside, &[("interfaces", Absent, "loopback only", "")]);
    let mut absent = role(&[0]);
    absent.interfaces = vec!["nosuch0".into()];
    let absent = knobs("vm", &absent);
    expect(&absent, &[("nosuch0", Unread, "no such interface; there are eth0, lo, eth1", "")]);
}

#[test]
fn nothing_at_all_can_be_read() {
    let empty = tempfile::tempdir().unwrap();
    let role = role(&[0]);
    let facts = facts::read(&Tree::new(empty.path()), &Answers(String::new()), &role);
    let knobs = advise::advise(&facts, &role);
    assert!(knobs.iter().all(|knob| knob.verdict != Differs));
    expect(&knobs, &[("interfaces", Unread, "/sys/class/net is not there", "")]);
    assert!(print::lines(&knobs).iter().any(|line| line.contains("could not be read")));
}

#[test]
fn json_has_every_knob_with_its_reason() {
    let knobs = knobs("container", &role(&[0, 1]));
    let json = print::json(&knobs);
    let all = json["knobs"].as_array().unwrap();
    assert_eq!(all.len(), knobs.len());
    let rmem = all.iter().find(|knob| knob["name"] == "net.core.rmem_max").unwrap();
    assert_eq!(rmem["verdict"], "unread");
    assert!(rmem["value"].is_null() && rmem["unread"].as_str().unwrap().contains("not there"));
}

/// What a shell says of a script with `arguments`, and its status.
fn shell(script: &str, arguments: &[&str]) -> (bool, String) {
    let mut child = Command::new("sh")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn scripts_are_scripts() {
    for name in ["container", "vm", "metal"] {
        let script = script::script(&knobs(name, &role(&[0, 1, 2, 3])));
        let (good, said) = shell(&script, &["-n"]);
        assert!(good && said.is_empty(), "{name}: {said}");
        let (good, said) = shell(&script, &["-s"]);
        assert!(!good && said.contains("apply|undo|show"), "{said}");
    }
}

/// The script of a machine, with its files below a directory, applied twice and undone twice.
#[test]
fn a_script_sets_what_differs_and_undoes_it() {
    let root = tempfile::tempdir().unwrap();
    let from = machine("vm");
    let mut copy = Command::new("cp");
    assert!(copy.arg("-a").arg(from.join(".")).arg(root.path()).status().unwrap().success());
    let role = role(&[0, 1, 2, 3]);
    let read = || {
        let answers = Answers(fs::read_to_string(root.path().join("ethtool")).unwrap());
        advise::advise(&facts::read(&Tree::new(root.path()), &answers, &role), &role)
    };
    let before = read();
    // Only what is a file of the machine; commands would be of this one.
    let files: Vec<Knob> = before
        .iter()
        .filter(|knob| knob.steps.iter().all(|it| matches!(it, super::knob::Step::Write { .. })))
        .cloned()
        .collect();
    let changed = files.iter().filter(|knob| knob.verdict == Differs).count();
    assert!(changed >= 9, "{changed}");
    let at = root.path().display();
    let script = script::script(&files)
        .replace("put /proc", &format!("put {at}/proc"))
        .replace("put /sys", &format!("put {at}/sys"));
    for verb in ["apply", "apply"] {
        let (good, said) = shell(&script, &["-s", verb]);
        assert!(good, "{said}");
    }
    let after = read();
    for knob in files.iter().filter(|knob| knob.verdict == Differs) {
        // The kernel puts the brackets around what is written there, which is no file.
        let found = find(&after, &knob.name);
        let still = ["hugepages-2048kB"].contains(&found.name.as_str());
        assert!(found.verdict == Good || still, "{found:?}");
    }
    for verb in ["undo", "undo"] {
        let (good, said) = shell(&script, &["-s", verb]);
        assert!(good, "{said}");
    }
    for (before, after) in before.iter().zip(&read()) {
        assert_eq!((&before.name, &before.value), (&after.name, &after.value));
    }
}
