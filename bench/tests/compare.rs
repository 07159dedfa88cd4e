//! A comparison as a person calls it, small: two namespaces, a tiny zone, one server, short loads.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ring53_bench::report::model::Report;

fn compare(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ring53-bench"));
    command.arg("compare").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let id = child.id();
    let own = format!("r53-s{id:x}");
    let output = child.wait_with_output().unwrap();
    let namespaces = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let left = namespaces.filter(|entry| entry.file_name().to_string_lossy().starts_with(&own));
    assert_eq!(left.count(), 0, "its bed is still there");
    let raised = fs::read_to_string("/run/r53-buffers").unwrap_or_default();
    assert!(raised.lines().next() != Some(&id.to_string()), "buffers are still raised");
    output
}

/// Why this machine cannot hold a comparison.
fn reason() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root".into());
    }
    let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
    if cores < 2 {
        return Some("one core".into());
    }
    let here = |program: &&str| {
        let paths = env::var_os("PATH").unwrap_or_default();
        let all = env::split_paths(&paths).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
        all.into_iter().any(|directory| directory.join(program).is_file())
    };
    let programs = ["nsd", "kxdpgun", "ip", "tc", "ethtool", "taskset", "chrt", "sysctl"];
    let missing = programs.iter().find(|program| !here(program))?;
    Some(format!("no {missing} here"))
}

fn lines(directory: &Path) -> Vec<String> {
    let text = fs::read_to_string(directory.join("measurements.jsonl")).unwrap();
    text.lines().map(String::from).collect()
}

#[test]
fn a_small_comparison_is_whole_and_can_go_on() {
    if let Some(reason) = reason() {
        eprintln!("skipped: {reason}");
        return;
    }
    let results = env::temp_dir().join(format!("ring53-compare-test-{}", std::process::id()));
    let path = results.display().to_string();
    let small = ["--names", "50", "--shapes", "hosts", "--mixes", "hot", "--rounds", "1"];
    let load = ["--seconds", "0.5", "--rate", "2000", "--rates", "4000", "--contenders", "nsd"];
    let output = compare(&[&small[..], &load, &["--results", &path]].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in ["| questions | figure | NSD |", "load time, ms", "core time", "- NSD: NSD version"]
    {
        assert!(table.contains(part), "{part}: {table}");
    }

    let directory = fs::read_dir(&results).unwrap().flatten().next().unwrap().path();
    let report: Report =
        serde_json::from_slice(&fs::read(directory.join("report.json")).unwrap()).unwrap();
    let compare_of = report.compare.unwrap();
    let row = |figure: &str| compare_of.rows.iter().find(|row| row.figure.starts_with(figure));
    for figure in ["load time", "memory", "core time", "latency", "peak", "good answers when 2x"] {
        let value = &row(figure).unwrap_or_else(|| panic!("{figure}: {said}")).values["nsd"];
        assert!(value.median > 0.0, "{figure}: {value:?}");
    }
    assert_eq!(row("wrong").unwrap().values["nsd"].high, 0.0, "a hosts zone is answered right");

    // Cut off after its first steps, it measures the others alone.
    let whole = lines(&directory);
    let kept = whole.iter().take(2).map(|line| format!("{line}\n")).collect::<String>();
    fs::write(directory.join("measurements.jsonl"), &kept).unwrap();
    let output = compare(&["--resume", directory.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let again = lines(&directory);
    assert_eq!(again[..2], whole[..2]);
    let last: serde_json::Value = serde_json::from_str(again.last().unwrap()).unwrap();
    assert_eq!(last["step"], "done");
    assert!(again.len() > 5, "{again:?}");

    // Another build of a server would be measured beside what was measured of the first.
    let path = directory.join("settings.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("NSD version", "NSD verzion", 1)).unwrap();
    let output = compare(&["--resume", directory.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("nsd is another"), "{said}");
    fs::remove_dir_all(&results).unwrap();
}

#[test]
fn what_is_no_comparison_is_refused() {
    let output = compare(&["--contenders", "djbdns"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("powerdns"));
}
