//! `ring53 check zone` on signed zones: a good one, and one for each fault.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::random_zone::{RandomZone, Signing, sign};

const ZONE: &str = "\
$ORIGIN t.test.
$TTL 300
@ SOA ns host 7 3600 900 604800 60
@ NS ns
ns A 192.0.2.1
www A 192.0.2.2
*.w TXT wild
a.b.c A 192.0.2.3
mail MX 10 ns
sub NS ns.sub
ns.sub A 192.0.2.4
sec NS ns.sub
sec DS 12345 13 2 0102030405060708090A0B0C0D0E0F10111213141516171819202122232425FF
";

fn check(file: &Path) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ring53"));
    let output = command.args(["check", "zone", "t.test."]).arg(file).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

fn signed(directory: &Path, signing: Signing) -> String {
    let zone = RandomZone { apex: "t.test.".into(), text: ZONE.into(), names: Vec::new() };
    let file = sign(&zone, directory, signing, "ECDSAP256SHA256", "ab");
    fs::read_to_string(file).unwrap()
}

/// The zone as one record a line, which is easier to break.
fn lines(directory: &Path, signing: Signing) -> Vec<String> {
    let (from, to) = (directory.join("from"), directory.join("to"));
    fs::write(&from, signed(directory, signing)).unwrap();
    let mut command = Command::new("named-compilezone");
    command.args(["-q", "-i", "none", "-s", "full", "-o"]).arg(&to).arg("t.test.").arg(&from);
    assert!(command.status().unwrap().success());
    fs::read_to_string(to).unwrap().lines().map(String::from).collect()
}

#[test]
fn a_signed_zone_is_good_and_each_fault_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("broken");
    for signing in [Signing::Nsec, Signing::Nsec3(1, 1, false), Signing::Nsec3(0, 1, true)] {
        let good = lines(directory.path(), signing);
        let judge = |lines: &[String], status: i32, expected: &str| {
            fs::write(&file, lines.join("\n") + "\n").unwrap();
            let (code, said) = check(&file);
            assert_eq!(code, status, "{signing:?} {expected}:\n{said}");
            assert!(said.contains(expected), "{signing:?} {expected}:\n{said}");
        };
        judge(&good, 0, "0 errors, 0 warnings");
        let without = |words: &[&str]| -> Vec<String> {
            let has = |line: &&String| words.iter().all(|word| line.contains(word));
            assert!(good.iter().any(|line| has(&line)), "{words:?}");
            good.iter().filter(|line| !has(line)).cloned().collect()
        };
        judge(&without(&["www.t.test.", "RRSIG", "A 13 "]), 1, "a signature");
        let changed: Vec<_> = good.iter().map(|l| l.replace("192.0.2.2", "192.0.2.9")).collect();
        judge(&changed, 1, "a signature of these records: this one is of others");
        judge(&without(&["DNSKEY", "257 3 13"]), 1, "a DNSKEY for the signatures of the zone");
        let denial = if signing == Signing::Nsec { "NSEC" } else { "NSEC3" };
        let first = good
            .iter()
            .position(|line| {
                line.split_whitespace().nth(3) == Some(denial) && !line.contains("DNSKEY")
            })
            .unwrap();
        let mut fewer = good.clone();
        fewer.remove(first);
        judge(&fewer, 1, &format!("an {denial} for this name"));
        let mut more = good.clone();
        more.push("new.t.test. 300 IN A 192.0.2.77".into());
        judge(&more, 1, "new.t.test.");
    }
}
