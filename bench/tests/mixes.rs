//! Mixes: of the shares that were asked for, verified against ring53's own answers and those of
//! other servers, and read from files as dnsperf reads them.

mod support;

use std::collections::HashMap;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use clap::Parser;
use ring53_bench::mix::cli::MixOptions;
use ring53_bench::mix::expect::Answers;
use ring53_bench::mix::verify::{Verdict, judge};
use ring53_bench::mix::{Entry, Questions, zone};
use ring53_bench::zones::queries::Random;

use support::servers::{free_port, knot, nsd, wait_for};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    mix: MixOptions,
}

fn options(arguments: &str) -> MixOptions {
    let arguments = arguments.split_whitespace();
    Cli::try_parse_from([""].into_iter().chain(arguments)).unwrap().mix
}

fn questions(arguments: &str) -> Questions {
    options(arguments).questions().unwrap()
}

fn refusal(arguments: &str) -> String {
    options(arguments).questions().unwrap_err().to_string()
}

/// The entries in the order they are asked.
fn asked(questions: &Questions) -> Vec<&Entry> {
    (0..questions.order_len() as u64).map(|at| questions.entry(questions.index_at(at))).collect()
}

fn share(questions: &Questions, fits: impl Fn(&[u8], &Entry) -> bool) -> f64 {
    let asked = asked(questions);
    let count = asked.iter().filter(|entry| fits(questions.message(entry), entry)).count();
    count as f64 / asked.len() as f64
}

/// Within five standard deviations.
fn assert_share(found: f64, expected: f64, count: usize) {
    let deviation = (expected * (1.0 - expected) / count as f64).sqrt();
    assert!((found - expected).abs() <= 5.0 * deviation, "{found}, {expected} expected");
}

fn qtype(message: &[u8], entry: &Entry) -> u16 {
    let end = 12 + usize::from(entry.question_len);
    u16::from_be_bytes([message[end - 4], message[end - 3]])
}

const ZONE: &str = "$TTL 60\n$ORIGIN example.\n@ SOA ns1 hostmaster 1 3600 900 604800 300\n\
    @ NS ns1\n@ NS ns2.example.net.\nns1 A 192.0.2.1\n@ MX 10 mail\n@ MX 20 mail.example.net.\n\
    mail A 192.0.2.2\nmail AAAA 2001:db8::2\nwww CNAME mail\nftp CNAME www\n\
    *.wild A 192.0.2.3\n*.wild TXT \"one\" \"two\"\nold DNAME wild\n\
    sub NS ns1.sub\nsub NS ns2\nns1.sub A 192.0.2.9\nns2 A 192.0.2.10\n\
    sub DS 1 13 2 0000000000000000000000000000000000000000000000000000000000000000\n\
    _sip._tcp SRV 1 2 5060 Mail\nnum NAPTR 1 2 \"u\" \"E2U+sip\" \"!^.*$!sip:a@b!\" .\n\
    a.b.c TXT \"deep\"\n@ CAA 0 issue \"ca.example.net\"\nMixed.CASE A 192.0.2.11\n";

//----------- Shares ---------------------------------------------------------

#[test]
fn a_mix_has_the_shares_that_were_asked_for() {
    const COUNT: usize = 100_000;
    let mix = questions(&format!(
        "--shape hosts --names 2000 --popularity zipf:1.0 --types A=70,AAAA=20,MX=10 --nxdomain 10% \
         --random-subdomains 0.05 --do 30% --edns 1232=80,4096=10,none=10 --tcp 0.02 --mixed-case \
         0.5 --ecs 0.25 --cookies --positions {COUNT}"
    ));
    assert_eq!(mix.order_len(), COUNT);
    for (kind, expected) in [(1, 0.7), (28, 0.2), (15, 0.1)] {
        let found = share(&mix, |message, entry| qtype(message, entry) == kind);
        assert_share(found, expected, COUNT);
    }
    assert_share(share(&mix, |_, entry| entry.stream), 0.02, COUNT);
    assert_share(share(&mix, |_, entry| entry.mixed_case), 0.5, COUNT);
    assert_share(share(&mix, |_, entry| entry.fresh > 0), 0.05, COUNT);
    let behind =
        |message: &[u8], entry: &Entry| message[12 + usize::from(entry.question_len)..].to_vec();
    let size = |size: u16| {
        share(&mix, |message, entry| {
            behind(message, entry).get(3..5) == Some(&size.to_be_bytes()[..])
        })
    };
    // A cookie needs EDNS: without a size it has the default.
    assert_share(size(1232), 0.9, COUNT);
    assert_share(size(4096), 0.1, COUNT);
    let with_do = share(&mix, |message, entry| behind(message, entry)[7] & 0x80 != 0);
    assert_share(with_do, 0.3, COUNT);
    let with_subnet = share(&mix, |message, entry| behind(message, entry)[11..13] == [0, 8]);
    assert_share(with_subnet, 0.25, COUNT);
    // The rest is what the names of the zone have: h<n>, by Zipf.
    let mut counts: HashMap<Vec<u8>, usize> = HashMap::new();
    for entry in asked(&mix).into_iter().filter(|entry| entry.fresh == 0) {
        let message = mix.message(entry);
        let name = &message[12..12 + usize::from(entry.question_len) - 4];
        if name[0] != 12 {
            *counts.entry(name.to_vec()).or_default() += 1;
        }
    }
    let existing = counts.values().sum::<usize>();
    assert_share(existing as f64 / COUNT as f64, 0.95 * 0.9, COUNT);
    let most = *counts.values().max().unwrap() as f64 / existing as f64;
    // Apex and name server are names of the zone too.
    let expected = 1.0 / (1..=2002).map(|rank| 1.0 / f64::from(rank)).sum::<f64>();
    assert_share(most, expected, existing);
}

#[test]
fn mixes_repeat_with_their_seed() {
    let arguments = "--shape hosting --names 20000 --popularity zipf:0.9 --nxdomain 0.1 --edns \
                     none,1232 --positions 3000";
    let lines = |seed: u64| {
        let mix = questions(&format!("{arguments} --seed {seed}"));
        asked(&mix).into_iter().map(|entry| mix.message(entry).to_vec()).collect::<Vec<_>>()
    };
    let (one, other) = (lines(1), lines(2));
    assert_eq!(one, lines(1));
    assert_ne!(one, other);
}

#[test]
fn a_hot_name_is_one_name() {
    let mix =
        questions("--shape delegations --names 1000 --popularity hot --types A --positions 99");
    assert_eq!((mix.len(), mix.order_len()), (1, 99));
}

#[test]
fn what_cannot_be_made_says_why() {
    assert!(refusal("").contains("--queries FILE"));
    assert!(refusal("--shape signed-hits").contains("--zone FILE"));
    assert!(refusal("--profile /nonexistent/profile").contains("/nonexistent/profile"));
    assert!(
        refusal("--shape hosts --names 10 --verify example.org.").contains("example.org.=FILE")
    );
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("zone");
    std::fs::write(&path, "@ SOA a b 1 2 3 4 5\n@ NS a.example.net.\n* A 192.0.2.1\n").unwrap();
    let zone = format!("--zone {} --apex example.", path.display());
    assert!(refusal(&format!("{zone} --nxdomain 0.1")).contains("wildcards"));
    std::fs::write(&path, "@ SOA a\n").unwrap();
    assert!(refusal(&zone).contains("zone:1"), "{}", refusal(&zone));
    std::fs::write(&path, "www A\nwww\n").unwrap();
    assert!(refusal(&format!("--queries {}", path.display())).contains("zone:2"));
}

//----------- Verification ---------------------------------------------------

const EVERYTHING: &str = "--nxdomain 0.1 --random-subdomains 0.2 --random-below names --do 0.3 \
                          --mixed-case 0.5 --edns 1232=2,none=1 --ecs 0.2 --cookies";

/// Each query as it is sent, labels and letter case drawn, has the answer that was expected, and
/// not that of any other.
#[test]
fn answers_in_process_are_those_expected() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("zone");
    std::fs::write(&path, ZONE).unwrap();
    let mix = questions(&format!(
        "--zone {} --apex example. --verify example. --positions 20000 {EVERYTHING}",
        path.display()
    ));
    let mut answers =
        Answers::new(&[zone::from_file(&"example.".parse().unwrap(), &path).unwrap()]);
    let mut random = Random::new(1);
    let mut octets = [0; 1024];
    for entry in asked(&mix) {
        let len = mix.write(entry, &mut random, &mut octets);
        let reply = answers.answer(&octets[..len]).unwrap();
        let expected = entry.expected.unwrap();
        assert!(expected.digest.is_some());
        assert_eq!(judge(reply, &expected), Verdict::Good);
    }
}

/// NSD and Knot answer all of it as expected; with another zone they do not.
#[test]
fn other_servers_give_the_answers_expected() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("zone");
    std::fs::write(&path, ZONE).unwrap();
    let mix = questions(&format!(
        "--zone {} --apex example. --verify example. --positions 2000 {EVERYTHING}",
        path.display()
    ));
    let other = directory.path().join("other");
    std::fs::write(&other, ZONE.replace("192.0.2.", "192.0.3.")).unwrap();
    for server in ["nsd", "knot", "another"] {
        let port = free_port();
        let work = directory.path().join(server);
        std::fs::create_dir(&work).unwrap();
        let _process = match server {
            "nsd" => nsd(&work, "example.", &path, port, ""),
            "knot" => knot(&work, "example.", &path, port, None),
            _ => knot(&work, "example.", &other, port, None),
        };
        let probe = b"\0\0\0\0\0\x01\0\0\0\0\0\0\x07example\0\0\x06\0\x01";
        let socket = wait_for(([127, 0, 0, 1], port).into(), probe);
        let mut random = Random::new(2);
        let (mut octets, mut reply) = ([0; 1024], [0; 65535]);
        let mut wrong = 0;
        for (id, entry) in (1u16..).zip(asked(&mix)) {
            let len = mix.write(entry, &mut random, &mut octets);
            octets[..2].copy_from_slice(&id.to_be_bytes());
            socket.send(&octets[..len]).unwrap();
            let len = loop {
                let len = socket.recv(&mut reply).unwrap();
                if reply[..2] == octets[..2] {
                    break len;
                }
            };
            let verdict = judge(&reply[..len], &entry.expected.unwrap());
            wrong += usize::from(verdict != Verdict::Good);
            let question = &octets[12..12 + usize::from(entry.question_len)];
            let shown = String::from_utf8_lossy(question);
            assert!(
                server == "another" || verdict == Verdict::Good,
                "{server}: {shown}: {verdict:?}"
            );
        }
        assert!(server != "another" || wrong > 400, "{wrong} wrong of another zone");
    }
}

#[test]
fn a_zone_taken_by_axfr_gives_the_mix_of_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("zone");
    std::fs::write(&path, ZONE).unwrap();
    let served = |name: &str, more: &str| {
        let (port, work) = (free_port(), directory.path().join(name));
        std::fs::create_dir(&work).unwrap();
        let process = nsd(&work, "example.", &path, port, more);
        let probe = b"\0\0\0\0\0\x01\0\0\0\0\0\0\x07example\0\0\x06\0\x01";
        wait_for(([127, 0, 0, 1], port).into(), probe);
        (process, port)
    };
    // NSD gives the zone to nobody unless it is told to.
    let (_closed, port) = served("closed", "");
    let error = refusal(&format!("--zone-from 127.0.0.1:{port} --apex example."));
    assert!(error.contains("REFUSED") || error.contains("NOTAUTH"), "{error}");
    let (_open, port) = served("open", " provide-xfr: 127.0.0.1 NOKEY\n");
    let messages = |arguments: &str| {
        let mix = questions(arguments);
        asked(&mix).into_iter().map(|entry| mix.message(entry).to_vec()).collect::<Vec<_>>()
    };
    let taken = messages(&format!("--zone-from 127.0.0.1:{port} --apex example. --positions 500"));
    let read = messages(&format!("--zone {} --apex example. --positions 500", path.display()));
    assert_eq!(taken, read);
}

//----------- Files ----------------------------------------------------------

// Escapes are decimal (RFC 1035, 5.1). dnsperf reads them in base 7: here is one that is the same.
const FILE: &str = "; a comment\nwww.example.org A\nwww.example.org. AAAA\n\
    WWW.Example.ORG MX\na\\.b\\006c.example. TXT\nwww.example.org A\n. NS\nexample TYPE65280\n\
    example ANY\nexample SVCB what follows is ignored\n\nxn--caf-dma.example.\tHTTPS\n\
    a.very.deep.name.with.labels.example. NAPTR\n";

/// Answers `count` queries with their own octets, and hands out what they were.
fn echo(socket: &UdpSocket, count: usize) -> Vec<Vec<u8>> {
    let mut queries = Vec::new();
    let mut octets = [0; 4096];
    while queries.len() < count {
        let (len, peer) = socket.recv_from(&mut octets).unwrap();
        queries.push(octets[2..len].to_vec());
        octets[2] |= 0x80;
        socket.send_to(&octets[..len], peer).unwrap();
    }
    queries
}

/// The same file, octet for octet the same queries.
fn assert_as_dnsperf(path: &Path, more: &[&str], mix: &Questions) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let port = socket.local_addr().unwrap().port().to_string();
    let mut command = Command::new("dnsperf");
    command.args(["-s", "127.0.0.1", "-p", &port, "-n", "1", "-q", "1", "-c", "1", "-T", "1"]);
    command.arg("-d").arg(path).args(more);
    let _dnsperf = support::servers::start(&mut command);
    let expected: Vec<Vec<u8>> =
        asked(mix).into_iter().map(|entry| mix.message(entry)[2..].to_vec()).collect();
    let sent = echo(&socket, expected.len());
    for (sent, expected) in sent.iter().zip(&expected) {
        assert_eq!(String::from_utf8_lossy(sent), String::from_utf8_lossy(expected));
        assert_eq!(sent, expected);
    }
}

#[test]
fn dnsperf_sends_the_same_of_the_same_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queries");
    std::fs::write(&path, FILE).unwrap();
    let from = format!("--queries {}", path.display());
    assert_as_dnsperf(&path, &[], &questions(&from));
    assert_as_dnsperf(&path, &["-e"], &questions(&format!("{from} --edns 4096")));
    assert_as_dnsperf(&path, &["-D"], &questions(&format!("{from} --edns 4096 --do 1")));
}

/// What is written for other generators is what would have been sent.
#[test]
fn a_written_mix_is_the_mix() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queries");
    let mix = options("--shape hosts --names 500 --do 0.5 --nxdomain 0.2 --positions 1000");
    mix.write(&path).unwrap();
    let (made, read) =
        (mix.questions().unwrap(), questions(&format!("--queries {}", path.display())));
    let messages = |questions: &Questions| {
        asked(questions).into_iter().map(|it| questions.message(it).to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(messages(&made), messages(&read));
    assert_as_dnsperf(&path, &[], &without_edns(&path, &directory.path().join("plain")));
}

/// dnsperf has no EDNS by the line.
fn without_edns(path: &Path, plain: &Path) -> Questions {
    let text = std::fs::read_to_string(path).unwrap().replace(" D\n", "\n");
    std::fs::write(plain, text).unwrap();
    questions(&format!("--queries {}", plain.display()))
}
