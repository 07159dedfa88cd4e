//! The examples of the RFCs, as files: a zone, questions, and what the answers hold.
//!
//! ```text
//!   sign nsec | nsec3 ITERATIONS SALT [opt-out]     before the zone; otherwise it is not signed
//!   zone NAME ... end                               zone text
//!   ask NAME TYPE                                   with DO if the zone is signed
//!   rcode CODE                                      NOERROR unless said
//!   answer | authority | additional NAME TYPE [RRSIG]   one record, in any order, no others
//!   authority-any                                   the authority section is not compared
//!   additional-too                                  in this file the additional section is,
//!                                                   and not in referrals alone
//! ```

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use hickory_proto::op::Message;
use hickory_proto::rr::Record;
use ring53::wire::{Name, rtype};
use support::random_zone::{RandomZone, Signing, sign};
use support::{Server, ask_all, query};

/// `(section, owner, type)`, as often as it is there.
type Records = BTreeMap<(String, String, String), usize>;

#[derive(Default)]
struct Ask {
    line: usize,
    name: String,
    rtype: String,
    rcode: String,
    any_authority: bool,
    records: Records,
}

#[derive(Default)]
struct Scenario {
    apex: String,
    zone: String,
    signing: Option<Signing>,
    salt: String,
    additional_too: bool,
    asks: Vec<Ask>,
}

fn read(text: &str) -> Scenario {
    let mut scenario = Scenario::default();
    let mut in_zone = false;
    for (number, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match &words[..] {
            ["end"] => in_zone = false,
            _ if in_zone => scenario.zone += &format!("{line}\n"),
            [] | ["#", ..] => {}
            ["zone", apex] => {
                scenario.apex = (*apex).into();
                in_zone = true;
            }
            ["sign", "nsec"] => scenario.signing = Some(Signing::Nsec),
            ["sign", "nsec3", iterations, salt, rest @ ..] => {
                let iterations = iterations.parse().unwrap();
                scenario.salt = (*salt).into();
                scenario.signing =
                    Some(Signing::Nsec3(iterations, salt.len() / 2, rest == ["opt-out"]));
            }
            ["ask", name, rtype] => scenario.asks.push(Ask {
                line: number + 1,
                name: (*name).into(),
                rtype: (*rtype).into(),
                rcode: "NOERROR".into(),
                ..Ask::default()
            }),
            ["additional-too"] => scenario.additional_too = true,
            ["rcode", rcode] => scenario.asks.last_mut().unwrap().rcode = (*rcode).into(),
            ["authority-any"] => scenario.asks.last_mut().unwrap().any_authority = true,
            [section @ ("answer" | "authority" | "additional"), name, rtypes @ ..] => {
                for rtype in rtypes {
                    let key = ((*section).into(), (*name).into(), (*rtype).into());
                    *scenario.asks.last_mut().unwrap().records.entry(key).or_default() += 1;
                }
            }
            _ => panic!("line {}: {line}", number + 1),
        }
    }
    scenario
}

fn count(records: &mut Records, section: &str, of: &[Record]) {
    for record in of {
        let rtype = rtype::name(record.record_type().into()).to_string();
        let key = (section.into(), record.name().to_string().to_lowercase(), rtype);
        *records.entry(key).or_default() += 1;
    }
}

fn run(path: &Path) -> usize {
    let scenario = read(&fs::read_to_string(path).unwrap());
    let directory = tempfile::tempdir().unwrap();
    let zone =
        RandomZone { apex: scenario.apex.clone(), text: scenario.zone.clone(), names: Vec::new() };
    let signing = scenario.signing.unwrap_or(Signing::None);
    let file = sign(&zone, directory.path(), signing, "ECDSAP256SHA256", &scenario.salt);
    let probe = query(1, scenario.apex.parse::<Name>().unwrap().as_wire(), rtype::SOA, None);
    let ring53 = Server::ring53(&[(&scenario.apex, &file)], &probe, &[]);
    let edns = Some((1232, scenario.signing.is_some()));
    let queries: Vec<_> = scenario
        .asks
        .iter()
        .map(|ask| {
            let name = ask.name.parse::<Name>().unwrap();
            query(0, name.as_wire(), rtype::parse(ask.rtype.as_bytes()).unwrap(), edns)
        })
        .collect();
    for (ask, reply) in scenario.asks.iter().zip(ask_all(&ring53, &queries)) {
        let message = Message::from_vec(&reply).unwrap();
        let mut records = Records::new();
        count(&mut records, "answer", message.answers());
        if !ask.any_authority {
            count(&mut records, "authority", message.name_servers());
        }
        let referral = message.answers().is_empty() && !message.authoritative();
        if referral || scenario.additional_too {
            count(&mut records, "additional", message.additionals());
        }
        let code = match u16::from(message.response_code()) {
            0 => "NOERROR",
            3 => "NXDOMAIN",
            6 => "YXDOMAIN",
            _ => "another",
        };
        let place = format!("{}:{}: {} {}", path.display(), ask.line, ask.name, ask.rtype);
        assert_eq!(code, ask.rcode, "{place}");
        assert_eq!(records, ask.records, "{place}");
    }
    scenario.asks.len()
}

#[test]
fn the_examples_of_the_rfcs_are_answered_as_printed() {
    let mut asked = 0;
    for file in fs::read_dir("tests/scenarios").unwrap().flatten() {
        asked += run(&file.path());
    }
    assert!(asked > 30, "{asked}");
}
