//! Whole machines as directories of files: `tests/machines/`.

mod scripts;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::knob::{Knob, Step, Verdict};
use super::source::{Answers, Tree};
use super::{Role, advise, facts, print};

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
    read(&machine(name), role)
}

fn read(root: &Path, role: &Role) -> Vec<Knob> {
    let answers = Answers(fs::read_to_string(root.join("ethtool")).unwrap());
    advise::advise(&facts::read(&Tree::new(root), &answers, role), role)
}

/// A machine that may be changed.
fn copy(name: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let from = machine(name).join(".");
    assert!(Command::new("cp").arg("-a").arg(from).arg(root.path()).status().unwrap().success());
    root
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
            ("hugepages-2048kB", Differs, "512, 400 of them unused", "echo 112 >"),
            ("irqbalance", Differs, "may move interrupts 25,27", "--banirq=25 --banirq=27"),
            ("net.ipv4.ipfrag_low_thresh", Differs, "12582912", "thresh=3145728"),
            ("net.ipv4.ipfrag_high_thresh", Differs, "16777216", "thresh=4194304"),
            ("net.ipv6.ip6frag_low_thresh", Good, "3145728", ""),
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
            ("conntrack", Differs, "4 connections, 2 of them of", "udp dport { 53 } notrack"),
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
    assert!(undo.starts_with("ethtool -L ens1f0 combined 4 && echo 0 >"), "{undo}");
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
    expect(
        &absent,
        &[("nosuch0", Unread, "no such interface; there are br0, docker0, eth0, lo, eth1", "")],
    );
}

/// What may take the server from the network, or memory from another program, is left to a person.
#[test]
fn no_script_does_what_may_hurt_others() {
    let found = [knobs("vm", &role(&[0, 1])), knobs("metal", &role(&[0, 1]))].concat();
    for name in ["hugepages-2048kB", "irqbalance", "conntrack"] {
        let knob = found.iter().find(|knob| knob.name == name && knob.verdict == Differs).unwrap();
        assert!(matches!(knob.steps[..], [Step::ByHand { .. }]), "{knob:?}");
    }
    let set = found.iter().find(|knob| knob.name == "conntrack" && knob.verdict == Differs);
    let set = set.unwrap().set();
    assert!(
        set.starts_with("accept `ct state untracked` on port 53 first; not with DNAT"),
        "{set}"
    );
}

#[test]
fn conntrack_is_good_only_if_it_is_not_there() {
    let root = copy("metal");
    let at = |path: &str| root.path().join(path);
    let judge = |expected: Verdict, value: &'static str| {
        expect(&read(root.path(), &role(&[0])), &[("conntrack", expected, value, "")]);
    };
    judge(Differs, "2 of them of clients");
    // What the server asks for itself is not what it is asked.
    let table = fs::read_to_string(at("proc/net/nf_conntrack")).unwrap();
    let of_client =
        |line: &&str| ["7", "8"].iter().any(|it| line.contains(&format!("src=192.0.2.{it} ")));
    let own: Vec<&str> = table.lines().filter(|line| !of_client(line)).collect();
    assert_eq!(own.len(), 2);
    fs::write(at("proc/net/nf_conntrack"), own.join("\n")).unwrap();
    judge(Unread, "none is of a client now");
    fs::remove_file(at("proc/net/nf_conntrack")).unwrap();
    judge(Unread, "4 connections are tracked; which: /proc/net/nf_conntrack is not there");
    fs::create_dir_all(at("sys/module/nf_conntrack")).unwrap();
    fs::remove_dir_all(at("proc/sys/net/netfilter")).unwrap();
    judge(Unread, "loaded or not");
    fs::remove_dir(at("sys/module/nf_conntrack")).unwrap();
    judge(Good, "not loaded");
}

#[test]
fn irqbalance_may_have_been_told() {
    let root = copy("vm");
    let write = |file: &str, text: &str| {
        fs::write(root.path().join("proc/731").join(file), text).unwrap();
    };
    for (words, environment, verdict, value) in [
        ("irqbalance\0--banirq=25\0-i\x0027\0", "", Good, "leaves the interrupts"),
        ("irqbalance\0--banirq=25\0", "", Differs, "may move interrupts 27"),
        ("irqbalance\0--banmod=virtio_net\0", "", Good, "leaves the interrupts"),
        ("irqbalance\0--policyscript=/x\0", "", Unread, "a script of its own"),
        // It moves interrupts off cores that are banned.
        ("irqbalance\0", "IRQBALANCE_BANNED_CPULIST=0-1\0", Differs, "off cores 0,1 too"),
    ] {
        write("cmdline", words);
        write("environ", environment);
        expect(&read(root.path(), &role(&[0])), &[("irqbalance", verdict, value, "")]);
    }
}

#[test]
fn udp_memory_is_bounded_and_never_made_less() {
    let root = copy("metal");
    let file = root.path().join("proc/sys/net/ipv4/udp_mem");
    let answers = fs::read_to_string(root.path().join("ethtool")).unwrap();
    let mut role = role(&[0, 1, 2, 3]);
    let set = |role: &Role| find(&read(root.path(), role), "net.ipv4.udp_mem").set();
    // 4 cores, 2 addresses, 8 MiB, twice: 128 MiB.
    fs::write(&file, "100\t200\t9000000").unwrap();
    assert!(set(&role).ends_with("'32768 32768 9000000'"), "{}", set(&role));
    fs::write(&file, "40000\t200\t300").unwrap();
    assert!(set(&role).ends_with("'40000 32768 49152'"), "{}", set(&role));
    // Larger pages: fewer.
    let large = answers.replace("page 4096", "page 65536");
    fs::write(root.path().join("ethtool"), &large).unwrap();
    fs::write(&file, "1 2 3").unwrap();
    assert!(set(&role).ends_with("'2048 2048 3072'"), "{}", set(&role));
    // More than there is: a quarter of the memory.
    role.receive_buffer = 1 << 30;
    let knobs = read(root.path(), &role);
    let knob = find(&knobs, "net.ipv4.udp_mem");
    assert!(knob.set().contains(&format!("'{}", 32_869_632 / 4 / 64)), "{knob:?}");
    assert!(knob.advised.contains("lower receive_buffer"), "{knob:?}");
    // Without a measure of it nothing is advised.
    fs::remove_file(root.path().join("proc/meminfo")).unwrap();
    expect(
        &read(root.path(), &role),
        &[("net.ipv4.udp_mem", Unread, "/proc/meminfo is not there", "")],
    );
}

#[test]
fn virtual_interfaces_are_left_alone_unless_queries_arrive_there() {
    let of = |role: &Role, name: &str| {
        knobs("vm", role).into_iter().filter(|knob| knob.name.starts_with(name)).collect::<Vec<_>>()
    };
    let everywhere = role(&[0, 1]);
    assert!(of(&everywhere, "docker0").is_empty() && of(&everywhere, "br0").is_empty());
    assert!(!of(&everywhere, "eth0").is_empty());
    let mut bridge = role(&[0, 1]);
    bridge.listen = vec!["192.0.2.65:53".parse().unwrap()];
    expect(&of(&bridge, "br0"), &[("br0 rps_cpus", Absent, "the devices below it spread", "")]);
    let mut docker = role(&[0, 1]);
    docker.interfaces = vec!["docker0".into()];
    expect(&of(&docker, "docker0"), &[("docker0 rps_cpus", Differs, "0", "echo 3 >")]);
    assert!(of(&docker, "eth0").is_empty());
}

/// A device that hashes no field: no command of ethtool(8) would undo another choice.
#[test]
fn no_fields_are_set_by_hand() {
    let root = copy("metal");
    let answers = fs::read_to_string(root.path().join("ethtool")).unwrap();
    fs::write(root.path().join("ethtool"), answers.replace("udp4 sd", "udp4")).unwrap();
    let knobs = read(root.path(), &role(&[0, 1, 2, 3]));
    let knob = find(&knobs, "ens1f0 rx-flow-hash udp4");
    assert!(matches!(knob.steps[..], [Step::ByHand { .. }]), "{knob:?}");
    assert_eq!(knob.value, Ok("no fields".into()));
}

#[test]
fn nothing_at_all_can_be_read() {
    let empty = tempfile::tempdir().unwrap();
    let role = role(&[0]);
    let facts = facts::read(&Tree::new(empty.path()), &Answers(String::new()), &role);
    let knobs = advise::advise(&facts, &role);
    assert!(knobs.iter().all(|knob| knob.verdict != Differs));
    expect(
        &knobs,
        &[
            ("interfaces", Unread, "/sys/class/net is not there", ""),
            ("conntrack", Unread, "/proc/sys/net is not there", ""),
        ],
    );
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
