//! Zone text: every record type as BIND understands it, every way of splitting alike.

mod support;

use std::path::Path;
use std::process::Command;

use ring53::wire::{Name, rtype};
use ring53::zone::text::{Record, Sink, read_in_parts, write_rdata};
use ring53::zone::{Source, SourceText, Text};
use support::Random;

/// Owner, type, class, TTL, RDATA, line.
type Row = (Vec<u8>, u16, u16, u32, Vec<u8>, u32);
type Records = Vec<Row>;

#[derive(Default)]
struct Collected(Records);

impl Sink for Collected {
    fn record(&mut self, record: Record<'_>) {
        let Record { owner, rtype, class, ttl, rdata, line, .. } = record;
        self.0.push((owner.to_vec(), rtype, class, ttl, rdata.to_vec(), line));
    }
}

struct Given(Vec<u8>);

impl Source for Given {
    fn read(&self, path: &str, _: Option<&str>) -> Result<SourceText, String> {
        Ok(SourceText { name: path.into(), text: Text::Bytes(self.0.clone()) })
    }
}

fn read(apex: &str, text: &[u8], parts: usize) -> (Records, Vec<String>) {
    let apex: Name = apex.parse().unwrap();
    let outcome =
        read_in_parts(&apex, "zone", &Given(text.to_vec()), parts, 1, &Collected::default);
    let records = outcome.parts.into_iter().flat_map(|part| part.0).collect();
    (records, outcome.diagnostics.iter().map(ToString::to_string).collect())
}

/// The zone of all types, written and read again; and what was written, read by BIND.
#[test]
fn every_type_is_written_as_it_is_read() {
    let file = std::fs::read("tests/zones/all-types.zone").unwrap();
    let (records, diagnostics) = read("all.test.", &file, 1);
    assert_eq!(diagnostics, Vec::<String>::new());
    let mut text = String::new();
    for (owner, rtype, _, ttl, rdata, _) in &records {
        let owner = Name::from_wire(owner).unwrap();
        text +=
            &format!("{owner} {ttl} IN {} {}\n", rtype::name(*rtype), write_rdata(*rtype, rdata));
    }
    let (again, diagnostics) = read("all.test.", text.as_bytes(), 1);
    assert_eq!(diagnostics, Vec::<String>::new(), "{text}");
    let plain = |records: Records| -> Vec<_> {
        records
            .into_iter()
            .map(|(owner, rtype, class, ttl, rdata, _)| (owner, rtype, class, ttl, rdata))
            .collect()
    };
    assert_eq!(plain(again), plain(records), "{text}");
    let directory = tempfile::tempdir().unwrap();
    let written = directory.path().join("written.zone");
    std::fs::write(&written, &text).unwrap();
    let output = Command::new("named-compilezone")
        .args(["-i", "none", "-k", "ignore", "-o", "/dev/null", "all.test"])
        .arg(&written)
        .output()
        .expect("named-compilezone: run scripts/test");
    assert!(output.status.success(), "{output:?}\n{text}");
}

#[test]
fn every_type_is_read_as_bind_reads_it() {
    let directory = tempfile::tempdir().unwrap();
    let normal = directory.path().join("normal.zone");
    let file = Path::new("tests/zones/all-types.zone");
    let status = Command::new("named-compilezone")
        .args(["-i", "none", "-k", "ignore", "-s", "full", "-F", "text", "-o"])
        .arg(&normal)
        .arg("all.test")
        .arg(file)
        .output()
        .expect("named-compilezone: run scripts/test")
        .status;
    assert!(status.success());
    let essence = |text: &[u8]| {
        let (records, diagnostics) = read("all.test.", text, 1);
        assert_eq!(diagnostics, Vec::<String>::new());
        let mut records: Vec<_> = records
            .into_iter()
            .map(|(owner, rtype, class, _, rdata, _)| {
                // BIND writes names in their own case or lower case: compare without it.
                (owner.to_ascii_lowercase(), rtype, class, rdata.to_ascii_lowercase())
            })
            .collect();
        records.sort();
        records.dedup();
        records
    };
    let ours = essence(&std::fs::read(file).unwrap());
    let theirs = essence(&std::fs::read(&normal).unwrap());
    assert!(ours.len() > 70);
    for record in &ours {
        assert!(theirs.contains(record), "BIND has no {record:02x?}");
    }
    assert_eq!(ours.len(), theirs.len());
}

#[test]
fn every_way_of_splitting_gives_the_same() {
    let seed = std::env::var("RING53_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(53);
    println!("seed {seed} (RING53_SEED)");
    let mut random = Random(seed);
    let pieces: [&str; 14] = [
        "h A 192.0.2.1\n",
        "  AAAA 2001:db8::1\n",
        "$ORIGIN sub.example.\n",
        "$ORIGIN example.\n",
        "$TTL 1h\n",
        "t TXT ( \"a ; b\" ; ( comment\n \"c\nd\" )\n",
        "; a comment with ( and \"\n",
        "\n",
        "m 5m MX 10 mail\n",
        "e\\;f IN 300 TXT x\\\"y\n",
        "bad A 192.0.2\n",
        "$GENERATE 1-3 g$ A 192.0.2.$\n",
        "w\tCH TXT quiet\n",
        "\tNS ns\r\n",
    ];
    for round in 0..300 {
        let mut text = String::from("$TTL 300\n@ SOA a b 1 2 3 4 5\n");
        for _ in 0..random.below(60) {
            text += pieces[random.below(pieces.len() as u64) as usize];
        }
        let whole = read("example.", text.as_bytes(), 1);
        for parts in [2, 3, 5, 8, 16] {
            let split = read("example.", text.as_bytes(), parts);
            assert_eq!(split, whole, "round {round}, {parts} parts of:\n{text}");
        }
    }
}

#[test]
fn errors_name_the_place_the_text_and_what_was_expected() {
    let text = b"$TTL 1h\n@ SOA ns host 1 2 3 4 5\nwww A 192.0.2.256\nx TYPE1 ( \\# 4\n 0a00 )\n\
                 y MX ten mail\n$WHAT 1\nz TXT \"open\n";
    let (_, diagnostics) = read("example.", text, 1);
    let expected = [
        "zone:3:7: error: \"192.0.2.256\": expected an IPv4 address",
        "zone:4:14: error: \"4\": expected 4 octets of hexadecimal digits, not 2",
        "zone:6:6: error: \"ten\": expected a number from 0 to 65535",
        "zone:7:1: error: \"$WHAT\": expected $ORIGIN, $TTL, $INCLUDE or $GENERATE",
        "zone:8:7: error: \"\\\"\": expected a closing \" before the end of the file",
    ];
    assert_eq!(diagnostics, expected);
}
