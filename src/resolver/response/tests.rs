//! True answers of all shapes are read, lies are not, and no octets hurt.

use super::*;
use crate::resolver::random::Random;
use crate::resolver::random::tests::sequence;
use crate::wire::message::{CLASS_IN, Section, Writer};

const NAME: &[u8] = b"\x03www\x07example\0";
const ALIAS: &[u8] = b"\x05alias\x07example\0";
const ELSEWHERE: &[u8] = b"\x03www\x05other\0";

fn wire(text: &str) -> Vec<u8> {
    text.parse::<crate::wire::Name>().unwrap().as_wire().to_vec()
}

/// Records of a section as text: owner, type and, by type, a name or octets.
fn message(qname: &[u8], qtype: u16, records: &[(Section, &str, u16, &str)]) -> Vec<u8> {
    let mut writer = Writer::new(0, header::QR | header::RD | RA);
    writer.question(qname, qtype, CLASS_IN);
    for &(section, owner, rtype, value) in records {
        let rdata = match rtype {
            rtype::A => vec![192, 0, 2, 1],
            rtype::RRSIG => [&rtype_of(value).to_be_bytes()[..], &[0; 16], &[0], b"sig"].concat(),
            rtype::SOA => [&wire(value)[..], &[0], &[0; 20]].concat(),
            rtype::TXT => [&[value.len() as u8], value.as_bytes()].concat(),
            _ => wire(value),
        };
        writer.record(section, &wire(owner), rtype, 60, &rdata);
    }
    writer.into_octets()
}

fn rtype_of(text: &str) -> u16 {
    rtype::parse(text.as_bytes()).unwrap()
}

fn read_as(octets: &[u8], name: &[u8], qtype: u16) -> Result<Reading, Lie> {
    Reader::new().read(octets, &Asked { name, qtype, qclass: CLASS_IN })
}

fn read(octets: &[u8]) -> Result<Reading, Lie> {
    read_as(octets, NAME, rtype::A)
}

const ANSWER: Section = Section::Answer;
const AUTHORITY: Section = Section::Authority;

/// A section, an owner, a type, and a value as [`message`] takes it.
type Line = (Section, &'static str, u16, &'static str);

const TRUE_ANSWERS: &[(u16, &[Line])] = &[
    (rtype::A, &[]),
    (rtype::A, &[(ANSWER, "WWW.example.", rtype::A, ""), (ANSWER, "www.example.", rtype::A, "")]),
    (
        rtype::A,
        &[
            (ANSWER, "www.example.", rtype::CNAME, "a.other."),
            (ANSWER, "www.example.", rtype::RRSIG, "CNAME"),
            (ANSWER, "a.other.", rtype::CNAME, "b.other."),
            (ANSWER, "b.other.", rtype::A, ""),
            (ANSWER, "b.other.", rtype::RRSIG, "A"),
        ],
    ),
    // In another order.
    (
        rtype::A,
        &[
            (ANSWER, "b.other.", rtype::A, ""),
            (ANSWER, "a.other.", rtype::CNAME, "b.other."),
            (ANSWER, "www.example.", rtype::CNAME, "a.other."),
        ],
    ),
    // A loop is what the zones say.
    (
        rtype::A,
        &[
            (ANSWER, "www.example.", rtype::CNAME, "a.other."),
            (ANSWER, "a.other.", rtype::CNAME, "www.example."),
        ],
    ),
    (
        rtype::A,
        &[
            (ANSWER, "example.", rtype::DNAME, "other."),
            (ANSWER, "example.", rtype::RRSIG, "DNAME"),
            (ANSWER, "www.example.", rtype::CNAME, "www.other."),
            (ANSWER, "www.other.", rtype::A, ""),
        ],
    ),
    // The CNAME of a DNAME may come first, or not at all.
    (
        rtype::A,
        &[
            (ANSWER, "www.example.", rtype::CNAME, "www.other."),
            (ANSWER, "example.", rtype::DNAME, "other."),
            (ANSWER, "www.other.", rtype::A, ""),
        ],
    ),
    (
        rtype::A,
        &[(ANSWER, "example.", rtype::DNAME, "other."), (ANSWER, "www.other.", rtype::A, "")],
    ),
    (rtype::CNAME, &[(ANSWER, "www.example.", rtype::CNAME, "a.other.")]),
    (
        255,
        &[
            (ANSWER, "www.example.", rtype::TXT, "text"),
            (ANSWER, "www.example.", rtype::DNAME, "other."),
            (ANSWER, "www.example.", rtype::A, ""),
        ],
    ),
    (rtype::A, &[(AUTHORITY, "example.", rtype::SOA, "ns.other.")]),
    (
        rtype::A,
        &[
            (ANSWER, "www.example.", rtype::CNAME, "a.b.other."),
            (AUTHORITY, "other.", rtype::SOA, "."),
        ],
    ),
];

#[test]
fn true_answers_are_read() {
    for (qtype, records) in TRUE_ANSWERS {
        let octets = message(NAME, *qtype, records);
        let reading = read_as(&octets, NAME, *qtype);
        assert!(reading.is_ok_and(|reading| reading.whole), "{records:?}");
    }
}

#[test]
fn what_was_not_asked_for_is_a_lie() {
    let shapes: &[&[Line]] = &[
        &[(ANSWER, "www.other.", rtype::A, "")],
        &[(ANSWER, "www.example.", rtype::A, ""), (ANSWER, "example.", rtype::A, "")],
        &[(ANSWER, "www.example.", rtype::TXT, "text")],
        &[(ANSWER, "www.example.", rtype::CNAME, "a.other."), (ANSWER, "b.other.", rtype::A, "")],
        &[
            (ANSWER, "www.example.", rtype::CNAME, "a.other."),
            (ANSWER, "www.example.", rtype::CNAME, "b.other."),
        ],
        // A DNAME says where it leads.
        &[
            (ANSWER, "example.", rtype::DNAME, "other."),
            (ANSWER, "www.example.", rtype::CNAME, "www.bank."),
        ],
        &[(ANSWER, "other.", rtype::DNAME, "example.")],
        &[(ANSWER, "other.", rtype::RRSIG, "DNAME")],
        &[(AUTHORITY, "other.", rtype::SOA, ".")],
        &[(AUTHORITY, "ww.example.", rtype::SOA, ".")],
        &[(ANSWER, "www.example.", rtype::A, ""), (AUTHORITY, "bank.", rtype::NS, "ns.evil.")],
    ];
    for records in shapes {
        assert_eq!(read(&message(NAME, rtype::A, records)), Err(Lie::Unasked), "{records:?}");
    }
    let mut other_class = message(NAME, rtype::A, &[(ANSWER, "www.example.", rtype::A, "")]);
    let class_at = other_class.len() - 4 - 2 - 4 - 1;
    other_class[class_at] = 3;
    assert_eq!(read(&other_class), Err(Lie::Unasked));
}

#[test]
fn headers_and_questions() {
    let good = message(NAME, rtype::A, &[(ANSWER, "www.example.", rtype::A, "")]);
    let with = |at: usize, octet: u8| {
        let mut octets = good.clone();
        octets[at] = octet;
        read(&octets)
    };
    assert_eq!(with(2, 1), Err(Lie::NotAResponse));
    assert_eq!(with(2, 0x80 | 5 << 3), Err(Lie::NotAResponse));
    assert_eq!((with(5, 0), with(5, 2)), (Err(Lie::Question), Err(Lie::Question)));
    assert_eq!((with(13, b'x'), with(26, 2)), (Err(Lie::Question), Err(Lie::Question)));
    assert!(with(13, b'W').is_ok_and(|reading| !reading.exact_case));
    assert_eq!(with(3, 0x85).unwrap().rcode, rcode::REFUSED);
    assert_eq!(read_as(&good, ALIAS, rtype::A), Err(Lie::Question));
    assert_eq!(read_as(&good, ELSEWHERE, rtype::A), Err(Lie::Question));
    assert_eq!(read_as(&good, NAME, rtype::AAAA), Err(Lie::Question));
    for len in 0..good.len() {
        assert!(read(&good[..len]).is_err(), "{len}");
        // What was cut may be cut anywhere behind the question.
        let mut cut = good[..len].to_vec();
        cut.iter_mut().skip(2).take(1).for_each(|octet| *octet |= 2);
        let reading = read(&cut);
        assert_eq!(reading.is_ok(), len >= HEADER_LEN + NAME.len() + 4, "{len}");
        assert!(reading.is_err() || reading.is_ok_and(|reading| !reading.whole));
    }
    assert_eq!(read(&[&good[..], b"x"].concat()), Err(Lie::Malformed));
    let bare = [0, 0, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(read(&bare).map(|reading| (reading.rcode, reading.whole)), Ok((1, false)));
    let mut servfail = bare;
    servfail[3] = 2;
    assert_eq!(read(&servfail), Err(Lie::Question));
}

#[test]
fn referrals_are_told_from_answers() {
    let mut octets = message(NAME, rtype::A, &[(AUTHORITY, "example.", rtype::NS, "ns.example.")]);
    assert!(!read(&octets).unwrap().referral, "who offers recursion has followed it");
    octets[3] = 0;
    assert!(read(&octets).unwrap().referral);
    octets[2] |= 4;
    assert!(!read(&octets).unwrap().referral, "an authority's own word");
}

fn with_opt(rdata: &[u8]) -> Vec<u8> {
    let mut octets = message(NAME, rtype::A, &[]);
    octets[11] += 1;
    octets.extend([0, 0, 41, 4, 0xD0, 1, 0, 0, 0]);
    octets.extend((rdata.len() as u16).to_be_bytes());
    octets.extend(rdata);
    octets
}

#[test]
fn options_are_bounded() {
    let cookie = [&[0, 10, 0, 16][..], &[7; 16]].concat();
    let ede = |text: &[u8]| [&[0, 15, 0, 2 + text.len() as u8, 0, 22][..], text].concat();
    let octets = with_opt(&[&cookie[..], &ede(b"down\n\0"), &ede(&[b'x'; 200])].concat());
    let reading = read(&octets).unwrap();
    assert_eq!(reading.rcode, 16, "eight bits of it are in OPT");
    assert_eq!(&octets[reading.cookie.clone().unwrap()], &[7; 16]);
    let edes = edes(&octets, &reading);
    assert_eq!((edes[0].code, &edes[0].text[..]), (22, "down?"));
    assert_eq!((edes.len(), edes[1].text.len()), (2, EDE_TEXT_LEN_MAX));
    let many = with_opt(&ede(b"").repeat(9000));
    assert_eq!(super::edes(&many, &read(&many).unwrap()).len(), EDES_MAX);
    assert_eq!(read(&with_opt(&[0, 10, 0, 9, 1])), Err(Lie::Malformed));
    assert_eq!(read(&with_opt(&[0, 10, 0])), Err(Lie::Malformed));
    assert_eq!(read(&with_opt(&[0, 10, 0, 3, 1, 2, 3])).unwrap().cookie, None);
    let mut twice = with_opt(&[]);
    twice[11] += 1;
    twice.extend([0, 0, 41, 4, 0xD0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(read(&twice), Err(Lie::Malformed));
}

#[test]
fn huge_answers_are_read_and_hostile_ones_cost_little() {
    let one = |count: usize| {
        let mut octets = message(NAME, rtype::A, &[]);
        octets[6..8].copy_from_slice(&(count as u16).to_be_bytes());
        for index in 0..count {
            octets.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0]);
            octets.extend((index as u16).to_be_bytes());
        }
        octets
    };
    assert!(read(&one(4000)).is_ok());
    let mut counted = one(100);
    counted[6..8].copy_from_slice(&u16::MAX.to_be_bytes());
    assert_eq!(read(&counted), Err(Lie::TooMany));
    // Pointers to pointers to pointers: as many as a name may have labels, and no more.
    for (hops, fine) in [(NAME_LABELS_MAX - 2, true), (NAME_LABELS_MAX - 1, false), (4000, false)] {
        let mut octets = message(NAME, rtype::A, &[]);
        octets[7] = 1;
        let start = octets.len() + 2 + 10;
        let mut pointers = vec![0xC0, 12];
        for hop in 0..hops.min(4000) {
            pointers.extend((0xC000 | (start + hop * 2) as u16).to_be_bytes());
        }
        // A record of a type nobody knows holds them, the next one uses the last.
        octets[6..8].copy_from_slice(&2u16.to_be_bytes());
        octets.extend([0xC0, 12, 0xFF, 0xA0, 0, 1, 0, 0, 0, 60]);
        octets.extend((pointers.len() as u16).to_be_bytes());
        octets.extend(&pointers);
        octets.extend((0xC000 | (start + hops * 2) as u16).to_be_bytes());
        octets.extend([0xFF, 0xA0, 0, 1, 0, 0, 0, 60, 0, 0]);
        assert_eq!(read_as_type(&octets, 0xFFA0).is_ok(), fine, "{hops}");
    }
}

fn read_as_type(octets: &[u8], qtype: u16) -> Result<Reading, Lie> {
    let mut octets = octets.to_vec();
    let at = HEADER_LEN + NAME.len();
    octets[at..at + 2].copy_from_slice(&qtype.to_be_bytes());
    read_as(&octets, NAME, qtype)
}

#[test]
fn chains_end() {
    let chain = |links: usize| {
        let names: Vec<String> = (0..=links).map(|link| format!("l{link}.other.")).collect();
        let mut records = vec![(ANSWER, "www.example.", rtype::CNAME, &names[0][..])];
        let pairs = names.windows(2).map(|pair| (ANSWER, &pair[0][..], rtype::CNAME, &pair[1][..]));
        records.extend(pairs);
        message(NAME, rtype::A, &records)
    };
    assert!(read(&chain(RESPONSE_LINKS_MAX - 1)).is_ok());
    assert_eq!(read(&chain(RESPONSE_LINKS_MAX)), Err(Lie::TooMany));
    let strangers = vec![(ANSWER, "a.other.", rtype::A, ""); RESPONSE_RECORDS_LATE_MAX + 1];
    assert_eq!(read(&message(NAME, rtype::A, &strangers)), Err(Lie::Unasked));
}

/// Turns some octets of a message into others; cuts, repeats and moves parts.
fn mutate(octets: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(8) {
        let at = random.below(octets.len() as u64) as usize;
        match random.below(6) {
            0 => octets[at] = random.draw() as u8,
            1 => octets[at] ^= 1 << random.below(8),
            2 => octets[at] = 0xC0 | random.below(2) as u8,
            3 => octets.truncate(at.max(1)),
            4 => {
                let part = octets[at..(at + random.below(40) as usize).min(octets.len())].to_vec();
                octets.extend(part);
            }
            _ => octets[at] = [0, 1, 5, 12, 39, 41, 63, 255][random.below(8) as usize],
        }
    }
}

#[test]
fn no_octets_hurt() {
    let seeds: &[Vec<u8>] = &[
        message(
            NAME,
            rtype::A,
            &[
                (ANSWER, "example.", rtype::DNAME, "other."),
                (ANSWER, "www.example.", rtype::CNAME, "www.other."),
                (ANSWER, "www.other.", rtype::A, ""),
                (AUTHORITY, "other.", rtype::SOA, "ns.other."),
            ],
        ),
        with_opt(&[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 15, 0, 3, 0, 1, b'x']),
    ];
    let mut reader = Reader::new();
    let (mut taken, mut refused) = (0, 0);
    for seed in 0..30_000 {
        let mut random = sequence(seed);
        let mut octets = seeds[seed as usize % seeds.len()].clone();
        mutate(&mut octets, &mut random);
        match reader.read(&octets, &Asked { name: NAME, qtype: rtype::A, qclass: CLASS_IN }) {
            Ok(reading) => {
                taken += 1;
                assert!(edes(&octets, &reading).len() <= EDES_MAX);
                let other = crate::wire::message::Message::new(&octets).unwrap();
                let whole = other.records().is_ok_and(|mut all| all.all(|record| record.is_ok()));
                assert!(whole || !reading.whole, "seed {seed}: {octets:02x?}");
            }
            Err(_) => refused += 1,
        }
    }
    assert!(taken > 1000 && refused > 1000, "{taken} {refused}");
}
