//! Answers that are huge, odd or hostile, through the whole server: what can be used comes to the
//! client as it was, the rest is SERVFAIL with a reason; nothing ends the server, or costs much.
//!
//! Each case has a server and an upstream of its own: who says what is not true is left alone for a
//! while.

#[path = "support/process.rs"]
mod process;
mod support;
#[path = "support/upstream.rs"]
mod upstream;

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::Message as Parsed;
use ring53::wire::message::{Section, Writer, header};
use ring53::wire::rtype;

use process::PATIENCE;
use upstream::{
    Asked, Forwarding, Upstream, edes, numbered, octets_of, query_of, reply_of, resident, soa,
    streamed, truth, truth_of, with_opt, with_opt_of,
};

const SERVFAIL: u16 = 2;
/// Servers at once.
const SERVERS: usize = 4;
/// What a server may grow by while it reads one hostile answer: 64 KB are copied a few times.
const GROWTH_MAX: u64 = 16 << 20;

//----------- Cases ----------------------------------------------------------

/// What the client has to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// SERVFAIL, with at least one Extended DNS Error.
    Failure,
    /// NOERROR with so many records in the answer section.
    Answers(usize),
    /// Either: the standards leave it open.
    Either(usize),
}

struct Case {
    name: &'static str,
    answer: fn(&Asked<'_>) -> Vec<u8>,
    expected: Expected,
}

fn record(writer: &mut Writer, asked: &Asked<'_>, ttl: u32) {
    writer.record(Section::Answer, &asked.name, rtype::A, ttl, &truth_of(&asked.name));
}

/// The truth, `change`d.
fn changed(asked: &Asked<'_>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut octets = truth(asked);
    change(&mut octets);
    octets
}

/// A reply whose answer section is `octets`, which count as `count` records.
fn raw(asked: &Asked<'_>, count: u16, octets: &[u8]) -> Vec<u8> {
    let mut reply = asked.reply(0).into_octets();
    reply[6..8].copy_from_slice(&count.to_be_bytes());
    reply.extend_from_slice(octets);
    reply
}

/// Type, class, TTL and data of an A record.
fn fixed() -> Vec<u8> {
    [&[0, 1, 0, 1, 0, 0, 1, 0, 0, 4][..], &[53, 1, 2, 3]].concat()
}

/// CNAMEs from one name to the next; `last` is where the last one leads.
fn chain(asked: &Asked<'_>, count: u64, last: &[u8]) -> Writer {
    let mut writer = asked.reply(0);
    let mut owner = asked.name.clone();
    for link in 1..=count {
        let target = if link == count { last.to_vec() } else { numbered("link", link) };
        writer.record(Section::Answer, &owner, rtype::CNAME, 300, &target);
        owner = target;
    }
    writer
}

/// Over TCP `answer`, over UDP only TC.
fn over_tcp(asked: &Asked<'_>, answer: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    if asked.over_tcp { answer() } else { asked.reply(header::TC).into_octets() }
}

fn addresses(asked: &Asked<'_>, count: u16) -> Vec<u8> {
    let mut octets = Vec::new();
    for number in 0..count {
        octets.extend_from_slice(&[0xC0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 53, 9]);
        octets.extend_from_slice(&number.to_be_bytes());
    }
    raw(asked, count, &octets)
}

const CASES: &[Case] = &[
    Case {
        name: "a loop of pointers",
        answer: |asked| {
            let at = asked.reply(0).into_octets().len() as u8;
            raw(asked, 1, &[&[0xC0, at][..], &fixed()].concat())
        },
        expected: Expected::Failure,
    },
    Case {
        name: "a pointer ahead",
        answer: |asked| {
            let at = asked.reply(0).into_octets().len() as u8;
            raw(asked, 1, &[&[0xC0, at + 16][..], &fixed(), b"\x01a\0"].concat())
        },
        expected: Expected::Failure,
    },
    Case {
        name: "a loop of labels and pointers",
        answer: |asked| {
            let at = asked.reply(0).into_octets().len() as u8;
            raw(asked, 1, &[&[1, b'a', 0xC0, at][..], &fixed()].concat())
        },
        expected: Expected::Failure,
    },
    Case {
        name: "a name of 300 octets",
        answer: |asked| {
            let name = [&[59][..], &[b'a'; 59]].concat().repeat(5);
            raw(asked, 1, &[&name[..], &[0], &fixed()].concat())
        },
        expected: Expected::Failure,
    },
    Case {
        name: "more records counted than there are",
        answer: |asked| changed(asked, |octets| octets[6..8].fill(0xFF)),
        expected: Expected::Failure,
    },
    Case {
        name: "data that ends early",
        answer: |asked| raw(asked, 1, &[0xC0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 53]),
        expected: Expected::Failure,
    },
    Case {
        name: "an address of five octets",
        answer: |asked| raw(asked, 1, &[0xC0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 5, 1, 2, 3, 4, 5]),
        expected: Expected::Failure,
    },
    Case {
        name: "octets behind the message",
        answer: |asked| changed(asked, |octets| octets.extend_from_slice(b"and more")),
        expected: Expected::Failure,
    },
    Case {
        name: "a header alone",
        answer: |asked| changed(asked, |octets| octets.truncate(12)),
        expected: Expected::Failure,
    },
    Case {
        name: "half a header",
        answer: |asked| changed(asked, |octets| octets.truncate(5)),
        expected: Expected::Failure,
    },
    Case {
        name: "QR is 0",
        answer: |asked| changed(asked, |octets| octets[2] &= 0x7F),
        expected: Expected::Failure,
    },
    Case {
        name: "another opcode",
        answer: |asked| changed(asked, |octets| octets[2] |= 5 << 3),
        expected: Expected::Failure,
    },
    Case {
        name: "another question's name",
        answer: |asked| changed(asked, |octets| octets[13] ^= 1),
        expected: Expected::Failure,
    },
    Case {
        name: "another question's type",
        answer: |asked| changed(asked, |octets| octets[12 + asked.name.len() + 1] = 28),
        expected: Expected::Failure,
    },
    Case {
        name: "two questions",
        answer: |asked| changed(asked, |octets| octets[5] = 2),
        expected: Expected::Failure,
    },
    Case {
        name: "another name's address",
        answer: |asked| {
            let mut writer = asked.reply(0);
            writer.record(Section::Answer, b"\x03www\x04bank\0", rtype::A, 300, &[53, 6, 6, 6]);
            writer.into_octets()
        },
        expected: Expected::Failure,
    },
    Case {
        name: "an address and another name's",
        answer: |asked| {
            let mut writer = asked.reply(0);
            record(&mut writer, asked, 300);
            writer.record(Section::Answer, b"\x03www\x04bank\0", rtype::A, 300, &[53, 6, 6, 6]);
            writer.into_octets()
        },
        expected: Expected::Failure,
    },
    Case {
        name: "5,000 empty records",
        answer: |asked| {
            let empty = [0xC0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 0];
            over_tcp(asked, || raw(asked, 5000, &empty.repeat(5000)))
        },
        expected: Expected::Failure,
    },
    Case {
        name: "40 CNAMEs",
        answer: |asked| chain(asked, 40, b"\x03end\0").into_octets(),
        expected: Expected::Failure,
    },
    Case {
        name: "TSIG that nobody asked for",
        answer: |asked| {
            let mut writer = asked.reply(0);
            record(&mut writer, asked, 300);
            writer.record_of(Section::Additional, b"\x01k\0", (250, 255, 0), &[0; 16]);
            writer.into_octets()
        },
        expected: Expected::Failure,
    },
    Case { name: "an address, as it should be", answer: truth, expected: Expected::Answers(1) },
    Case {
        name: "a loop of CNAMEs",
        answer: |asked| {
            let name = asked.name.clone();
            chain(asked, 3, &name).into_octets()
        },
        // All of them, or none: nobody can follow it.
        expected: Expected::Either(3),
    },
    Case {
        name: "eight CNAMEs and an address",
        answer: |asked| {
            let mut writer = chain(asked, 8, b"\x03end\0");
            writer.record(Section::Answer, b"\x03end\0", rtype::A, 300, &[53, 1, 1, 1]);
            writer.into_octets()
        },
        expected: Expected::Answers(9),
    },
    Case {
        name: "OPT that is not last",
        answer: |asked| {
            let mut writer = asked.reply(0);
            record(&mut writer, asked, 300);
            writer.opt(1232, None);
            writer.record(Section::Additional, b"\x03end\0", rtype::A, 300, &[53, 1, 1, 1]);
            writer.into_octets()
        },
        expected: Expected::Answers(1),
    },
    Case {
        name: "two OPT",
        answer: |asked| {
            let mut writer = asked.reply(0);
            record(&mut writer, asked, 300);
            writer.opt(1232, None);
            writer.opt(1232, None);
            writer.into_octets()
        },
        expected: Expected::Either(1),
    },
    Case {
        name: "more over UDP than was said to fit",
        answer: |asked| addresses(asked, 150),
        expected: Expected::Either(150),
    },
    Case {
        name: "as much over UDP as UDP takes",
        answer: |asked| addresses(asked, 4000),
        expected: Expected::Either(4000),
    },
    Case {
        name: "4,000 addresses over TCP",
        answer: |asked| over_tcp(asked, || addresses(asked, 4000)),
        expected: Expected::Answers(4000),
    },
];

fn check(case: &Case) -> Result<(), String> {
    let answer = case.answer;
    // Other names are answered as they should be.
    let upstream = Upstream::saying(Box::new(move |asked| match asked.label().as_str() {
        "hostile" => answer(asked),
        _ => truth(asked),
    }));
    let forwarding = Forwarding::start(upstream.address, "[recursion]\nports = 256\n");
    let (server, pid) = (forwarding.address, forwarding.server.pid());
    let good = |label: &str| {
        let reply = reply_of(server, &with_opt(&format!("{label}.example.")));
        reply.answers().len() == 1 && u16::from(reply.response_code()) == 0
    };
    if !good("before") {
        return Err("does not answer to begin with".into());
    }
    let before = resident(pid);
    // Over UDP what is too long is cut; over TCP all of it comes.
    let short = reply_of(server, &with_opt("hostile.example."));
    let octets = streamed(server, &with_opt("hostile.example."));
    let whole = Parsed::from_vec(&octets).map_err(|error| format!("{error}: {octets:02x?}"))?;
    let (code, count) = (u16::from(whole.response_code()), whole.answers().len());
    let is_failure = code == SERVFAIL && count == 0 && !edes(&whole).is_empty();
    let is_right = match case.expected {
        Expected::Failure => is_failure,
        Expected::Answers(expected) => code == 0 && count == expected,
        Expected::Either(expected) => is_failure || code == 0 && count == expected,
    };
    println!("{}: code {code}, {count} answers, EDEs {:?}", case.name, edes(&whole));
    if !is_right {
        return Err(format!("{whole}"));
    }
    if u16::from(short.response_code()) != code
        || !(short.truncated() || short.answers().len() == count)
    {
        return Err(format!("otherwise over UDP: {short}"));
    }
    // Whoever has said what is not true is asked again soon.
    let begun = Instant::now();
    while !good(&format!("after{}", begun.elapsed().as_millis())) {
        if begun.elapsed() > Duration::from_secs(6) {
            return Err("does not answer afterwards".into());
        }
        thread::sleep(Duration::from_millis(100));
    }
    let grown = resident(pid).saturating_sub(before);
    if grown > GROWTH_MAX { Err(format!("it has grown by {grown} octets")) } else { Ok(()) }
}

#[test]
fn what_is_hostile_is_refused_and_what_is_odd_comes_through() {
    let (next, faults) = (Mutex::new(CASES.iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..SERVERS {
            scope.spawn(|| {
                loop {
                    let Some(case) = next.lock().unwrap().next() else { return };
                    if let Err(fault) = check(case) {
                        faults.lock().unwrap().push(format!("{}: {fault}", case.name));
                    }
                }
            });
        }
    });
    let faults = faults.into_inner().unwrap();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

//----------- TTLs -----------------------------------------------------------

#[test]
fn odd_ttls_are_what_the_standards_say() {
    // The label is the TTL.
    let upstream = Upstream::saying(Box::new(|asked| {
        let ttl = asked.label()[1..].parse().unwrap();
        let mut writer = asked.reply(0);
        if asked.label().starts_with('n') {
            writer.record(Section::Authority, b"\0", rtype::SOA, ttl, &soa(ttl));
        } else {
            record(&mut writer, asked, ttl);
        }
        writer.into_octets()
    }));
    let forwarding = Forwarding::start(upstream.address, "[cache]\nttl_max = \"1d\"\n");
    // As it is said, as a client is told, and whether it is kept.
    for (said, told, is_kept) in [
        (0u32, 0, false),
        (1000, 1000, true),
        (86_400, 86_400, true),
        (86_401, 86_400, true),
        (0x7FFF_FFFF, 86_400, true),
        //= RFC 2181, 8
        //# Implementations should treat a TTL value received with the most significant bit set as
        //# if the entire value received was zero.
        (0x8000_0000, 0, false),
        (0xFFFF_FFFF, 0, false),
    ] {
        let before = upstream.asked();
        for round in 1..=3 {
            let reply = reply_of(forwarding.address, &with_opt(&format!("t{said}.example.")));
            assert_eq!(reply.answers().len(), 1, "{said}: {reply}");
            let ttl = reply.answers()[0].ttl();
            assert!(ttl <= told && ttl + 5 >= told, "{said} became {ttl}");
            assert_eq!(upstream.asked() - before, if is_kept { 1 } else { round }, "{said}");
        }
        // That nothing is there holds for an hour at most.
        let before = upstream.asked();
        for round in 1..=2 {
            let reply = reply_of(forwarding.address, &with_opt(&format!("n{said}.example.")));
            let told = told.min(3600);
            assert_eq!((reply.answers().len(), reply.name_servers().len()), (0, 1), "{reply}");
            let ttl = reply.name_servers()[0].ttl();
            assert!(ttl <= told && ttl + 5 >= told, "none, {said}: became {ttl}");
            assert_eq!(upstream.asked() - before, if is_kept { 1 } else { round }, "none, {said}");
        }
    }
}

//----------- Long -----------------------------------------------------------

/// Nearly 64 KB in 4,000 records, and in one: from the upstream, and then from the cache, octet by
/// octet but for ID and TTLs.
#[test]
fn long_answers_come_back_as_they_were() {
    let upstream = Upstream::saying(Box::new(|asked| {
        over_tcp(asked, || match asked.qtype {
            rtype::TXT => {
                let mut writer = asked.reply(0);
                let text = [&[255][..], &[b'x'; 255]].concat().repeat(254);
                writer.record(Section::Answer, &asked.name, rtype::TXT, 300, &text);
                writer.into_octets()
            }
            _ => addresses(asked, 4000),
        })
    }));
    let forwarding = Forwarding::start(upstream.address, "");
    for (qtype, count) in [(rtype::A, 4000), (rtype::TXT, 1)] {
        let query = with_opt_of("long.example.", qtype, 4096);
        for round in 0..3 {
            let cut = octets_of(forwarding.address, &query);
            assert!(cut[2] & 2 != 0 && cut.len() < 200, "{} octets over UDP", cut.len());
            let octets = streamed(forwarding.address, &query);
            assert!(octets.len() > 64_000, "{} octets", octets.len());
            let reply = Parsed::from_vec(&octets).unwrap();
            assert_eq!((reply.answers().len(), reply.truncated()), (count, false));
            let tcp = upstream.state.over_tcp.load(Ordering::SeqCst);
            assert_eq!(tcp, if qtype == rtype::A { 1 } else { 2 }, "round {round}");
            if qtype == rtype::A {
                // In the order in which they came.
                let data = reply.answers().iter().map(|record| record.data().to_string());
                let told = (0..4000).map(|it| format!("53.9.{}.{}", it >> 8, it & 255));
                assert!(data.eq(told), "other addresses, or in another order");
            }
        }
    }
}

/// What is sent to the server itself, as if it were an upstream's reply or worse, gets nothing.
#[test]
fn what_comes_to_the_server_unasked_gets_no_reply() {
    let upstream = Upstream::saying(Box::new(truth));
    let forwarding = Forwarding::start(upstream.address, "[recursion]\nports = 256\n");
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(forwarding.address).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut reply = query_of(1, &numbered("n", 1));
    reply[2] |= 0x80;
    socket.send(&reply).unwrap();
    assert!(socket.recv(&mut [0; 512]).is_err());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(&query_of(2, &numbered("n", 1))).unwrap();
    let mut octets = [0; 512];
    let len = socket.recv(&mut octets).unwrap();
    assert_eq!(upstream::address_in(&octets[..len]), Some(truth_of(&numbered("n", 1))));
    assert_eq!(upstream.asked(), 1);
}
