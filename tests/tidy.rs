//! The house rules, executed: layers, unsafe, sizes, words. Each ban names what to do instead.

use std::fs;
use std::path::{Path, PathBuf};

/// For each folder of `src`, the folders it may import.
const LAYERS: &[(&str, &[&str])] = &[
    ("memory", &["limits", "memory"]),
    ("wire", &["limits", "memory", "wire"]),
    ("tsig", &["limits", "wire", "tsig"]),
    ("zone", &["limits", "memory", "wire", "zone"]),
    ("policy", &["limits", "wire", "policy"]),
    ("snapshot", &["limits", "memory", "wire", "tsig", "policy", "zone", "cache", "snapshot"]),
    ("answer", &["limits", "memory", "wire", "zone", "cache", "policy", "snapshot", "answer"]),
    ("transfer", &["limits", "wire", "tsig", "policy", "zone", "snapshot", "transfer"]),
    ("cache", &["limits", "memory", "wire", "cache"]),
    ("resolver", &["limits", "wire", "policy", "resolver"]),
    ("net", &["limits", "memory", "net"]),
];

/// The files that may hold `unsafe`.
const UNSAFE: &[&str] = &[
    "src/memory/epoch.rs",
    "src/memory/heap.rs",
    "src/memory/pages.rs",
    "src/memory/prefetch.rs",
    "src/memory/region.rs",
    "src/memory/store.rs",
    "src/memory/store/room.rs",
    "src/net/batch.rs",
    "src/net/client/mmsg.rs",
    "src/net/client/pool/uring.rs",
    "src/net/client/uring.rs",
    "src/net/ethtool.rs",
    "src/net/mmsg.rs",
    "src/net/ring_buffers.rs",
    "src/net/sched.rs",
    "src/net/sim.rs",
    "src/net/sys.rs",
    "src/net/uring.rs",
    "bench/src/inside/answer.rs",
    "bench/src/bed/reflect.rs",
    "tests/malformed.rs",
];

const LINES_MAX: usize = 800;
const COLUMNS_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 70;
const WORDS: &[(&str, &str)] = &[
    ("handler", "what it does"),
    ("manager", "what it holds"),
    ("util", "the layer it belongs to"),
    ("helper", "what it does"),
];

fn sources() -> Vec<(String, String)> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    for directory in ["src", "bench/src", "tests"] {
        walk(Path::new(directory), &mut found);
    }
    found.sort();
    found
        .into_iter()
        .filter(|path| !path.ends_with("tidy.rs"))
        .map(|path| (path.display().to_string(), fs::read_to_string(&path).unwrap()))
        .collect()
}

/// Everything wrong with one file.
fn faults(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    layers(path, text, &mut faults);
    unsafe_blocks(path, text, &mut faults);
    sizes(path, text, &mut faults);
    for (number, line) in text.lines().enumerate() {
        let mut fault = |message: String| faults.push(format!("{path}:{}: {message}", number + 1));
        let lower = line.to_lowercase();
        for (word, instead) in WORDS {
            if lower.split(|letter: char| !letter.is_ascii_alphabetic()).any(|part| part == *word) {
                fault(format!("\"{word}\" says nothing: name {instead}"));
            }
        }
        if line.contains(concat!("TO", "DO")) || line.contains(concat!("FIX", "ME")) {
            fault("finish it, or file an issue".into());
        }
        if line.contains("/home/") || line.contains(concat!("/wo", "rk/")) {
            fault("no path of one machine: use a relative one".into());
        }
        let speaks =
            line.contains("println!") || line.contains("std::fs") || line.contains("std::env");
        let pure = path.starts_with("src/")
            && !path.starts_with("src/server/")
            && !path.starts_with("src/net/");
        if speaks && pure {
            fault("only server/ speaks and reads files: return it to the caller".into());
        }
    }
    faults
}

fn layers(path: &str, text: &str, faults: &mut Vec<String>) {
    let Some(folder) = path.strip_prefix("src/").and_then(|rest| rest.split('/').next()) else {
        return;
    };
    let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == folder) else { return };
    for (number, line) in text.lines().enumerate() {
        for import in line.split("crate::").skip(1) {
            let target: String =
                import.chars().take_while(|letter| letter.is_alphanumeric()).collect();
            if !target.is_empty() && !allowed.contains(&target.as_str()) {
                faults.push(format!(
                    "{path}:{}: {folder}/ may import only {allowed:?}, not {target}",
                    number + 1
                ));
            }
        }
    }
}

fn unsafe_blocks(path: &str, text: &str, faults: &mut Vec<String>) {
    let lines: Vec<&str> = text.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        let code = line.split("//").next().unwrap_or("");
        let words = code.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        if !words.into_iter().any(|word| word == "unsafe") {
            continue;
        }
        let at = format!("{path}:{}", number + 1);
        if !UNSAFE.contains(&path) {
            faults.push(format!("{at}: unsafe outside of the list: use a safe face of memory/"));
        }
        let proved = lines[number.saturating_sub(12)..number]
            .iter()
            .any(|line| line.contains("SAFETY:") || line.contains("# Safety"));
        if !proved && !code.contains("unsafe fn") {
            faults.push(format!("{at}: write a // SAFETY: comment that proves it"));
        }
    }
}

fn sizes(path: &str, text: &str, faults: &mut Vec<String>) {
    let count = text.lines().count();
    if count > LINES_MAX {
        faults.push(format!("{path}: {count} lines: past {LINES_MAX} it is two files"));
    }
    let mut start = None;
    for (number, line) in text.lines().enumerate() {
        if line.chars().count() > COLUMNS_MAX && !line.contains('"') {
            faults.push(format!("{path}:{}: past {COLUMNS_MAX} columns: break it", number + 1));
        }
        let indent = line.len() - line.trim_start().len();
        let code = line.trim_start();
        if code.contains("fn ") && code.ends_with('{') && !code.starts_with("//") {
            start = Some((number, indent));
        }
        if let Some((first, outer)) = start
            && code == "}"
            && indent == outer
        {
            if number - first > FUNCTION_LINES_MAX {
                let message = "a function fits a screen: split it";
                faults.push(format!("{path}:{}: {} lines: {message}", first + 1, number - first));
            }
            start = None;
        }
    }
}

#[test]
fn the_house_is_tidy() {
    let faults: Vec<String> =
        sources().iter().flat_map(|(path, text)| faults(path, text)).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// Documents and scripts are whole: no merge was left half done.
#[test]
fn no_merge_is_left_open() {
    let scripts = fs::read_dir("scripts").unwrap().flatten().map(|entry| entry.path());
    let documents = [
        "README.md",
        "src/ARCHITECTURE.md",
        "src/ATTACKS.md",
        "tests/README.md",
        "bench/README.md",
        "tuning/README.md",
    ];
    for path in documents.map(PathBuf::from).into_iter().chain(scripts) {
        let text = fs::read_to_string(&path).unwrap();
        let open = |line: &str| line.starts_with("<<<<<<<") || line.starts_with(">>>>>>>");
        let found = text.lines().position(open);
        assert_eq!(found, None, "{}: a merge is open in this line, from 0", path.display());
    }
}

#[test]
fn each_rule_can_fail() {
    let long_function = format!("fn long() {{\n{}}}\n", "    step();\n".repeat(80));
    for (path, text, message) in [
        ("src/net/x.rs", "use crate::wire::Name;", "may import only"),
        ("src/zone/x.rs", "use crate::answer::Verdict;", "may import only"),
        ("src/zone/x.rs", "unsafe { x() }", "outside of the list"),
        ("src/net/sys.rs", "unsafe { x() }", "SAFETY"),
        ("src/zone/x.rs", "struct ZoneThing; // a helper", "says nothing"),
        ("src/zone/x.rs", "println!()", "only server/ speaks"),
        ("src/zone/x.rs", concat!("// TO", "DO"), "finish it"),
        ("src/zone/x.rs", &long_function, "fits a screen"),
        ("src/zone/x.rs", &"x\n".repeat(900), "two files"),
    ] {
        let found = faults(path, text).join("\n");
        assert!(found.contains(message), "{text} gave {found:?}");
    }
}
