//! What an operator is told of signed zones: `ring53 check zone` on a good one and on one for each
//! fault, what the configuration lets serve, `ring53 explain`.

#[path = "support/process.rs"]
mod process;
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use process::{Process, ask};
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

/// The zone signed for January 2020.
fn expired(directory: &Path) -> String {
    signed_for(directory, ZONE, ["20200101000000", "20200201000000"])
}

/// `text` signed from one time to another.
fn signed_for(directory: &Path, text: &str, [start, end]: [&str; 2]) -> String {
    let zone = directory.join("plain");
    fs::write(&zone, text).unwrap();
    let ok = |command: &mut Command| {
        let output = command.current_dir(directory).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    ok(Command::new("dnssec-keygen").args(["-q", "-f", "KSK", "-a", "13", "t.test."]));
    let dates = ["-s", start, "-e", end];
    let mut signer = Command::new("dnssec-signzone");
    ok(signer.args(["-q", "-S", "-z", "-P", "-o", "t.test.", "-f", "old"]).args(dates).arg(&zone));
    fs::read_to_string(directory.join("old")).unwrap()
}

/// A configuration that serves `zone` of `t.test.` with `more` keys.
fn config(directory: &Path, more: &str) -> String {
    let file = directory.join("ring53.toml");
    let text = format!(
        "version = 1\n[server]\nlisten = [\"127.0.0.1:0\"]\n[[zone]]\nname = \"t.test.\"\n\
         file = \"zone\"\n{more}\n"
    );
    fs::write(&file, text).unwrap();
    file.display().to_string()
}

fn rename_into(directory: &Path, text: &str) {
    fs::write(directory.join("new"), text).unwrap();
    fs::rename(directory.join("new"), directory.join("zone")).unwrap();
}

#[test]
fn expired_signatures_are_served_with_a_word_or_not_at_all() {
    const SERVFAIL: u16 = 2;
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (good, old) = (signed(directory, Signing::Nsec), expired(directory));
    fs::write(directory.join("zone"), &old).unwrap();
    let (status, said) = check(&directory.join("zone"));
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("a signature that has not expired"), "{said}");

    let server = Process::start(&["--config", &config(directory, "")]);
    let said = server.wait_for("signatures expired", 1);
    assert!(said.contains("sign it again"), "{said}");
    assert_eq!(ask(server.address(), "www.t.test.").0, 0);
    drop(server);

    let server = Process::start(&["--config", &config(directory, "dnssec = \"strict\"")]);
    assert_eq!(ask(server.address(), "www.t.test.").0, SERVFAIL);
    rename_into(directory, &good);
    assert!(server.reload().contains("1 of 1 zones"));
    assert_eq!(ask(server.address(), "www.t.test.").0, 0);
    rename_into(directory, &old);
    let said = server.reload();
    assert!(said.contains("not loaded; serial 7 goes on serving"), "{said}");
    assert_eq!(ask(server.address(), "www.t.test.").0, 0);
}

#[test]
fn no_number_of_warnings_hides_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let names: String = (0..1100).map(|i| format!("n{i} A 192.0.2.77\n")).collect();
    let soon = signed_for(directory, &format!("{ZONE}{names}"), ["now-3600", "now+7200"]);
    let file = directory.join("zone");
    for (text, status) in [(soon.clone(), 3), (soon.replace("192.0.2.2\n", "192.0.2.9\n"), 1)] {
        fs::write(&file, text).unwrap();
        let (code, said) = check(&file);
        assert_eq!(code, status, "{}", said.lines().last().unwrap());
        assert!(said.contains("a signature that lasts, not one for"));
    }
    let server = Process::start(&["--config", &config(directory, "dnssec = \"strict\"")]);
    assert_eq!(ask(server.address(), "www.t.test.").0, 2, "{}", server.said());
}

#[test]
fn too_many_iterations_are_refused_with_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    fs::write(directory.join("zone"), signed(directory, Signing::Nsec3(5, 1, false))).unwrap();
    for (more, code) in [("nsec3_iterations_max = 4", 2), ("nsec3_iterations_max = 5", 0)] {
        let server = Process::start(&["--config", &config(directory, more)]);
        assert_eq!(ask(server.address(), "www.t.test.").0, code, "{more}");
        let refused =
            server.said().contains("at most 4 NSEC3 iterations, not 5: sign it with none");
        assert_eq!(refused, code == 2, "{}", server.said());
    }
}

#[test]
fn a_digest_is_verified_if_that_is_configured() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let plain = directory.join("plain");
    fs::write(&plain, ZONE).unwrap();
    for hash in ["sha384", "sha512"] {
        let mut command = Command::new("ldns-signzone");
        command.args(["-Z", "-z", hash, "-o", "t.test.", "-f"]).arg(directory.join("zone"));
        assert!(command.arg(&plain).status().unwrap().success());
        let text = fs::read_to_string(directory.join("zone")).unwrap();
        let (status, said) = check(&directory.join("zone"));
        assert_eq!(status, 0, "{said}");
        let server = Process::start(&["--config", &config(directory, "zonemd = \"verify\"")]);
        assert_eq!(ask(server.address(), "www.t.test.").0, 0);
        for (broken, word) in [
            (text.replace("192.0.2.2", "192.0.2.9"), "its records differ"),
            (text.replace(" 7 3600 ", " 8 3600 "), "a digest of serial 8"),
            (ZONE.to_string(), "a ZONEMD record: the configuration asks for one"),
        ] {
            rename_into(directory, &broken);
            let said = server.reload();
            assert!(said.contains(word), "{word}: {said}");
            assert_eq!(ask(server.address(), "www.t.test.").1, ["192.0.2.2"]);
        }
    }
}

#[test]
fn explain_tells_the_way_in_words_and_as_json() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("zone");
    fs::write(&file, signed(directory.path(), Signing::Nsec3(0, 1, false))).unwrap();
    let explain = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ring53"));
        command.args(["explain", "--dnssec", "--zone", &format!("t.test.={}", file.display())]);
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for (name, rtype, words) in [
        ("www.t.test.", "A", &["exists", "1 A, 1 signatures", "NOERROR, AA"][..]),
        ("www.t.test.", "MX", &["no MX, only: A", "matches the name"]),
        ("x.y.w.t.test.", "TXT", &["*.w.t.test. answers in its place", "covers the next closer"]),
        ("b.c.t.test.", "A", &["with names below it only"]),
        ("nothing.t.test.", "A", &["NXDOMAIN", "covers the wildcard, *.t.test."]),
        ("www.sub.t.test.", "A", &["delegated at sub.t.test. to 1 name servers", "no DS"]),
        ("www.sec.t.test.", "A", &["delegated at sec.t.test.", "1 DS"]),
        ("t.elsewhere.", "A", &["no zone here: REFUSED", "REFUSED"]),
    ] {
        let said = explain(&[name, rtype]);
        for word in words {
            assert!(said.contains(word), "{name} {rtype}: {word}:\n{said}");
        }
        let json: serde_json::Value =
            serde_json::from_str(&explain(&[name, rtype, "--json"])).unwrap();
        assert_eq!(json["type"], rtype);
        assert!(json["steps"].as_array().is_some_and(|steps| !steps.is_empty()), "{json}");
        assert!(json["datagram"]["octets"].as_u64() <= json["stream_octets"].as_u64());
    }
}

#[test]
fn check_prints_json() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("zone");
    fs::write(&file, expired(directory.path())).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ring53"));
    let output = command.args(["check", "zone", "--json", "t.test."]).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((json["serial"].as_u64(), &json["signing"]), (Some(7), &"NSEC".into()));
    assert!(json["errors"].as_u64() > Some(5), "{json}");
    assert_eq!(json["findings"][0]["severity"], "error");
}
