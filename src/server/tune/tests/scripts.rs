//! Scripts, run on machines that are directories, with an `ethtool` that keeps what it is told.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::super::knob::{Knob, Step, Verdict};
use super::super::script;
use super::{copy, find, knobs, read, role};

/// As the real one: it fails with 80 where nothing changes, and new queues come without masks.
const ETHTOOL: &str = r#"#!/bin/sh
# | queues | ring | usecs | hash |, each a file beside this one
cd "$(dirname "$0")" || exit 1
sets() {
    [ "$(cat "$1")" = "$2" ] && exit 80
    [ -e refuses ] && exit 75
    echo "$2" >"$1"
    echo "$1 $2" >>log
}
limits() { printf 'x for %s:\nPre-set maximums:\n%s\t4096\nCurrent hardware settings:\n%s\t%s\n' \
    "$1" "$2" "$2" "$(cat "$3")"; }
case $1 in
    -l) limits "$2" Combined: queues ;;
    -g) limits "$2" RX: ring ;;
    -c) printf 'Adaptive RX: off  TX: off\nrx-usecs:\t%s\nrx-frames:\t0\n' "$(cat usecs)" ;;
    -n)
        echo 'UDP over IPV4 flows use these fields for computing Hash flow key:'
        printf 'IP SA\nIP DA\n'
        [ "$(cat hash)" = sd ] || printf 'L4 bytes 0 & 1 [x]\nL4 bytes 2 & 3 [x]\n'
        ;;
    -L) sets queues "$4"; for mask in MASKS; do echo 00 >"$mask"; done ;;
    -G) sets ring "$4" ;;
    -C) sets usecs "$4" ;;
    -N) sets hash "$5" ;;
esac
"#;

/// A machine that may be changed, and the `bin` of its commands.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new(name: &str) -> Machine {
        let machine = Machine(copy(name));
        let bin = machine.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let masks = machine.path().join("sys/class/net/ens1f0/queues/rx-*/rps_cpus");
        fs::write(bin.join("ethtool"), ETHTOOL.replace("MASKS", masks.to_str().unwrap())).unwrap();
        fs::set_permissions(bin.join("ethtool"), fs::Permissions::from_mode(0o755)).unwrap();
        for (file, value) in [("queues", "4"), ("ring", "512"), ("usecs", "1"), ("hash", "sd")] {
            fs::write(bin.join(file), format!("{value}\n")).unwrap();
        }
        machine
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, path: &str) -> String {
        fs::read_to_string(self.path().join(path)).unwrap().trim().to_string()
    }

    /// What a script with `arguments` says, with the files below the directory.
    fn run(&self, script: &str, arguments: &[&str]) -> (bool, String) {
        let at = self.path().display();
        let mut script = script.to_string();
        for (mark, path) in [("@1", "/proc/sys/"), ("@2", "/proc/"), ("@3", "/sys/")] {
            script = script.replace(path, mark);
        }
        for (mark, path) in [("@1", "/proc/sys/"), ("@2", "/proc/"), ("@3", "/sys/")] {
            script = script.replace(mark, &format!("{at}{path}"));
        }
        let path = format!("{at}/bin:{}", std::env::var("PATH").unwrap());
        let mut command = Command::new("sh");
        command.env("PATH", path).env("RING53_TUNE_STATE", self.path().join("state"));
        let mut child = command
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

    #[track_caller]
    fn succeeds(&self, script: &str, verb: &str) -> String {
        let (good, said) = self.run(script, &["-s", verb]);
        assert!(good, "{verb}: {said}");
        said
    }
}

#[test]
fn scripts_are_scripts() {
    for name in ["container", "vm", "metal"] {
        let machine = Machine::new(name);
        let script = script::script(&knobs(name, &role(&[0, 1, 2, 3])));
        let (good, said) = machine.run(&script, &["-n"]);
        assert!(good && said.is_empty(), "{name}: {said}");
        let (good, said) = machine.run(&script, &["-s"]);
        assert!(!good && said.contains("apply|undo|show"), "{said}");
    }
}

/// What is a file of the machine; commands are below.
fn files(knobs: &[Knob]) -> Vec<Knob> {
    let of_file = |step: &Step| matches!(step, Step::Write { .. } | Step::Interrupt { .. });
    knobs.iter().filter(|knob| knob.steps.iter().all(of_file)).cloned().collect()
}

/// Applied twice, then undone by a script that was made when nothing differed any more.
#[test]
fn a_script_sets_what_differs_and_undoes_it() {
    let machine = Machine::new("vm");
    let role = role(&[0, 1, 2, 3]);
    let before = read(machine.path(), &role);
    let first = files(&before);
    let changed = first.iter().filter(|knob| knob.verdict == Verdict::Differs).count();
    assert!(changed >= 9, "{changed}");
    let first = script::script(&first);
    let shown = machine.succeeds(&first, "show");
    assert!(shown.contains("net/core/busy_poll = 50; wanted: 0"), "{shown}");
    machine.succeeds(&first, "apply");
    let kept = machine.file("state");
    machine.succeeds(&first, "apply");
    assert_eq!(machine.file("state"), kept, "the first values stay");
    let after = files(&read(machine.path(), &role));
    assert!(after.iter().all(|knob| knob.verdict != Verdict::Differs), "{after:?}");
    let second = script::script(&after);
    assert!(!second.contains("    change "), "{second}");
    for script in [&second, &second, &first] {
        machine.succeeds(script, "undo");
        assert!(!machine.path().join("state").exists());
        for (before, after) in before.iter().zip(&read(machine.path(), &role)) {
            assert_eq!((&before.name, &before.value), (&after.name, &after.value));
        }
    }
}

/// The kernel refuses a high threshold below the low one: each way has an order.
#[test]
fn the_low_threshold_of_fragments_comes_first() {
    let machine = Machine::new("vm");
    let script = script::script(&files(&read(machine.path(), &role(&[0, 1, 2, 3]))));
    let (low, high) = ("ipv4/ipfrag_low_thresh", "ipv4/ipfrag_high_thresh");
    machine.succeeds(&script, "apply");
    let kept = machine.file("state");
    assert!(kept.find(low).unwrap() < kept.find(high).unwrap(), "{kept}");
    assert_eq!(machine.file("proc/sys/net/ipv4/ipfrag_low_thresh"), "3145728");
}

/// The machine starts again, and its interrupts have other numbers.
#[test]
fn interrupts_are_found_by_name() {
    let machine = Machine::new("vm");
    let script = script::script(&files(&read(machine.path(), &role(&[0, 1, 2, 3]))));
    let table = machine.file("proc/interrupts").replace(" 27:", " 41:").replace(" 28:", " 27:");
    fs::write(machine.path().join("proc/interrupts"), format!("{table}\n")).unwrap();
    fs::create_dir(machine.path().join("proc/irq/41")).unwrap();
    let list = "proc/irq/41/smp_affinity_list";
    fs::write(machine.path().join(list), "0-3\n").unwrap();
    let other = machine.file("proc/irq/27/smp_affinity_list");
    machine.succeeds(&script, "apply");
    assert_eq!(machine.file(list), "1");
    assert_eq!(machine.file("proc/irq/27/smp_affinity_list"), other);
    machine.succeeds(&script, "undo");
    assert_eq!(machine.file(list), "0-3");
    // Of two with one name nobody knows which is meant.
    let twice = format!("{table}\n 42: 0 0 0 0 PCI-MSIX virtio2-input.1\n");
    fs::write(machine.path().join("proc/interrupts"), twice).unwrap();
    let (good, said) = machine.run(&script, &["-s", "apply"]);
    assert!(!good && said.contains("virtio2-input.1: cannot be read"), "{said}");
}

/// Commands that fail where nothing changes are not run then, and each value is undone.
#[test]
fn commands_run_only_where_something_changes() {
    let machine = Machine::new("metal");
    let role = role(&[0, 1, 2, 3, 4, 5, 6, 7]);
    let all = read(machine.path(), &role);
    let chosen = ["queues", "rx-flow-hash udp4", "rps_cpus", "rx ring", "rx-usecs"];
    let chosen = chosen.map(|name| find(&all, &format!("ens1f0 {name}")).clone());
    let script = script::script(&chosen);
    let said = machine.succeeds(&script, "apply");
    assert!(said.contains("ens1f0 queues: 4 to 8; the link may be down for a moment"), "{said}");
    assert!(said.contains("ens1f0 rx ring: 512 to 2048; the link may"), "{said}");
    let values =
        || ["queues", "hash", "ring", "usecs"].map(|it| machine.file(&format!("bin/{it}")));
    assert_eq!(values(), ["8", "sdfn", "2048", "50"]);
    assert_eq!(machine.succeeds(&script, "apply"), "");
    assert_eq!(machine.file("bin/log").lines().count(), 4);
    // What cannot be undone is said, and can be undone later.
    fs::write(machine.path().join("bin/refuses"), "").unwrap();
    let (good, said) = machine.run(&script, &["-s", "undo"]);
    assert!(!good && said.contains("ens1f0 queues: cannot be set back to 4"), "{said}");
    assert_eq!(values(), ["8", "sdfn", "2048", "50"]);
    fs::remove_file(machine.path().join("bin/refuses")).unwrap();
    machine.succeeds(&script, "undo");
    assert_eq!(values(), ["4", "sd", "512", "1"]);
    // Masks come back after the queues, which come without.
    assert_eq!(machine.file("sys/class/net/ens1f0/queues/rx-2/rps_cpus"), "ff");
}

/// Nothing is set whose old value cannot be kept.
#[test]
fn without_a_place_for_old_values_nothing_is_set() {
    let machine = Machine::new("vm");
    let script = script::script(&files(&read(machine.path(), &role(&[0, 1, 2, 3]))));
    fs::create_dir(machine.path().join("state")).unwrap();
    let (good, said) = machine.run(&script, &["-s", "apply"]);
    assert!(!good && said.contains("nothing is set"), "{said}");
    assert_eq!(machine.file("proc/sys/net/core/busy_poll"), "50");
}
