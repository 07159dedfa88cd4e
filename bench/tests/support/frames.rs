//! Captures as tcpdump, Wireshark and servers write them.

use std::net::{IpAddr, SocketAddr};

use super::traffic::{Identities, Query};

/// How a capture is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Container {
    Pcap { link_type: u32, big_endian: bool, nanoseconds: bool },
    Pcapng { link_type: u16, big_endian: bool },
    Dnstap { responses_only: bool },
}

pub const ETHERNET: u32 = 1;

/// One message on its way.
struct Message {
    at_ns: u64,
    from: SocketAddr,
    to: SocketAddr,
    stream: bool,
    octets: Vec<u8>,
}

/// The capture of `queries` and their answers, with the names and addresses of `identities`.
pub fn capture(container: Container, queries: &[Query], identities: &Identities) -> Vec<u8> {
    let mut messages = Vec::new();
    for (number, query) in queries.iter().enumerate() {
        let client = identities.address(query.client);
        let server = SocketAddr::new(identities.server(client), 53);
        let client = SocketAddr::new(client, 2000 + query.client as u16);
        let (octets, answer) = identities.messages(query, number as u16);
        let (at_ns, stream) = (query.at_ns, query.stream);
        messages.push(Message { at_ns, from: client, to: server, stream, octets });
        let at_ns = at_ns + 1000;
        messages.push(Message { at_ns, from: server, to: client, stream, octets: answer });
    }
    messages.sort_by_key(|message| message.at_ns);
    match container {
        Container::Dnstap { responses_only } => dnstap(&messages, responses_only),
        Container::Pcap { link_type, big_endian, nanoseconds } => {
            let mut file = PcapFile::new(link_type, big_endian, nanoseconds);
            frames(&messages, link_type, &mut |at_ns, frame| file.frame(at_ns, frame));
            file.octets
        }
        Container::Pcapng { link_type, big_endian } => {
            let mut file = PcapngFile::new(link_type, big_endian);
            frames(&messages, link_type.into(), &mut |at_ns, frame| file.frame(at_ns, frame));
            file.octets
        }
    }
}

//----------- Frames ---------------------------------------------------------

fn frames(messages: &[Message], link_type: u32, write: &mut dyn FnMut(u64, &[u8])) {
    let mut sequences: std::collections::HashMap<(SocketAddr, SocketAddr), u32> =
        std::collections::HashMap::new();
    for message in messages {
        let Message { at_ns, from, to, stream, octets } = message;
        if !stream {
            write(*at_ns, &frame(link_type, *from, *to, None, octets));
            continue;
        }
        let next = sequences.entry((*from, *to)).or_insert_with(|| {
            let syn = u32::MAX - 5000;
            write(*at_ns, &frame(link_type, *from, *to, Some((syn, 2)), &[]));
            syn.wrapping_add(1)
        });
        // A message is cut in two, and its first part sent twice.
        let framed = [&(octets.len() as u16).to_be_bytes(), &octets[..]].concat();
        let (first, rest) = framed.split_at(framed.len() / 3);
        let middle = next.wrapping_add(first.len() as u32);
        for (sequence, part) in [(*next, first), (middle, rest), (*next, first)] {
            write(*at_ns, &frame(link_type, *from, *to, Some((sequence, 0x18)), part));
        }
        *next = next.wrapping_add(framed.len() as u32);
    }
}

fn frame(
    link_type: u32,
    from: SocketAddr,
    to: SocketAddr,
    segment: Option<(u32, u8)>,
    payload: &[u8],
) -> Vec<u8> {
    let mut body = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    match segment {
        None => {
            body.extend((payload.len() as u16 + 8).to_be_bytes());
            body.extend([0, 0]);
        }
        Some((sequence, flags)) => {
            body.extend(sequence.to_be_bytes());
            body.extend([0, 0, 0, 0, 0x80, flags, 0xFF, 0xFF, 0, 0, 0, 0]);
            // Options: no operation, and a timestamp.
            body.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        }
    }
    body.extend_from_slice(payload);
    let protocol = if segment.is_some() { 6 } else { 17 };
    let (kind, packet) = packet(from.ip(), to.ip(), protocol, &body);
    let kind: u16 = kind;
    let mut frame = match link_type {
        1 => [&[2; 12][..], &kind.to_be_bytes()].concat(),
        // Ethernet with two tags.
        0x1_0001 => {
            [&[2; 12][..], &[0x88, 0xA8, 0, 7, 0x81, 0, 0, 9], &kind.to_be_bytes()].concat()
        }
        113 => [&[0, 0, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0][..], &kind.to_be_bytes()].concat(),
        276 => [&kind.to_be_bytes()[..], &[0; 18]].concat(),
        0 => vec![if kind == 0x0800 { 2 } else { 30 }, 0, 0, 0],
        _ => Vec::new(),
    };
    frame.extend(packet);
    // Short Ethernet frames are padded.
    frame.resize(frame.len().max(if link_type == 1 { 60 } else { 0 }), 0);
    frame
}

fn packet(from: IpAddr, to: IpAddr, protocol: u8, body: &[u8]) -> (u16, Vec<u8>) {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut packet = vec![0x46, 0];
            packet.extend((24 + body.len() as u16).to_be_bytes());
            packet.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
            packet.extend(from.octets());
            packet.extend(to.octets());
            // An option: router alert.
            packet.extend([0x94, 4, 0, 0]);
            packet.extend_from_slice(body);
            (0x0800, packet)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut packet = vec![0x60, 0, 0, 0];
            packet.extend((8 + body.len() as u16).to_be_bytes());
            packet.extend([60, 64]);
            packet.extend(from.octets());
            packet.extend(to.octets());
            // Destination options: padding.
            packet.extend([protocol, 0, 1, 4, 0, 0, 0, 0]);
            packet.extend_from_slice(body);
            (0x86DD, packet)
        }
        _ => panic!("two families"),
    }
}

//----------- Containers -----------------------------------------------------

struct PcapFile {
    octets: Vec<u8>,
    big_endian: bool,
    nanoseconds: bool,
}

impl PcapFile {
    fn new(link_type: u32, big_endian: bool, nanoseconds: bool) -> PcapFile {
        let mut file = PcapFile { octets: Vec::new(), big_endian, nanoseconds };
        file.word(if nanoseconds { 0xA1B2_3C4D } else { 0xA1B2_C3D4 });
        file.word(if big_endian { 0x0002_0004 } else { 0x0004_0002 });
        for word in [0, 0, 262_144, link_type & 0xFFFF] {
            file.word(word);
        }
        file
    }

    fn word(&mut self, word: u32) {
        self.octets.extend(if self.big_endian { word.to_be_bytes() } else { word.to_le_bytes() });
    }

    fn frame(&mut self, at_ns: u64, frame: &[u8]) {
        let rest = at_ns % 1_000_000_000 / if self.nanoseconds { 1 } else { 1000 };
        for word in [at_ns / 1_000_000_000, rest, frame.len() as u64, frame.len() as u64] {
            self.word(word as u32);
        }
        self.octets.extend_from_slice(frame);
    }
}

struct PcapngFile {
    octets: Vec<u8>,
    big_endian: bool,
}

impl PcapngFile {
    fn new(link_type: u16, big_endian: bool) -> PcapngFile {
        let mut file = PcapngFile { octets: Vec::new(), big_endian };
        let mut section = file.words(&[0x1A2B_3C4D]);
        section.extend(if big_endian { [0, 1, 0, 0] } else { [1, 0, 0, 0] });
        section.extend([0xFF; 8]);
        file.block(0x0A0D_0D0A, section);
        let mut interface = Vec::new();
        let half = |half: u16| if big_endian { half.to_be_bytes() } else { half.to_le_bytes() };
        interface.extend(half(link_type));
        interface.extend([0; 6]);
        // Timestamps in nanoseconds: 10^-9.
        interface.extend(half(9));
        interface.extend(half(1));
        interface.extend([9, 0, 0, 0, 0, 0, 0, 0]);
        file.block(1, interface);
        file
    }

    fn words(&self, words: &[u32]) -> Vec<u8> {
        let word = |&word: &u32| {
            if self.big_endian { word.to_be_bytes() } else { word.to_le_bytes() }
        };
        words.iter().flat_map(word).collect()
    }

    fn block(&mut self, kind: u32, mut body: Vec<u8>) {
        body.resize(body.len().next_multiple_of(4), 0);
        let len = body.len() as u32 + 12;
        self.octets.extend(self.words(&[kind, len]));
        self.octets.extend(body);
        self.octets.extend(self.words(&[len]));
    }

    fn frame(&mut self, at_ns: u64, frame: &[u8]) {
        let len = frame.len() as u32;
        let mut body = self.words(&[0, (at_ns >> 32) as u32, at_ns as u32, len, len]);
        body.extend_from_slice(frame);
        self.block(6, body);
    }
}

//----------- dnstap ---------------------------------------------------------

fn dnstap(messages: &[Message], responses_only: bool) -> Vec<u8> {
    const CONTENT_TYPE: &[u8] = b"protobuf:dnstap.Dnstap";
    let mut start = 2u32.to_be_bytes().to_vec();
    start.extend(1u32.to_be_bytes());
    start.extend((CONTENT_TYPE.len() as u32).to_be_bytes());
    start.extend(CONTENT_TYPE);
    let mut file = vec![0; 4];
    file.extend((start.len() as u32).to_be_bytes());
    file.extend(start);
    for message in messages {
        let is_query = message.to.port() == 53;
        let client = if is_query { message.from } else { message.to };
        if is_query && responses_only {
            continue;
        }
        let mut fields = Vec::new();
        number(&mut fields, 1, if is_query { 5 } else { 6 });
        number(&mut fields, 2, if client.is_ipv4() { 1 } else { 2 });
        number(&mut fields, 3, if message.stream { 2 } else { 1 });
        match client.ip() {
            IpAddr::V4(address) => octets(&mut fields, 4, &address.octets()),
            IpAddr::V6(address) => octets(&mut fields, 4, &address.octets()),
        }
        number(&mut fields, 6, client.port().into());
        let (at, what) = if is_query { (8, 10) } else { (12, 14) };
        number(&mut fields, at, message.at_ns / 1_000_000_000);
        tag(&mut fields, at + 1, 5);
        fields.extend(((message.at_ns % 1_000_000_000) as u32).to_le_bytes());
        octets(&mut fields, what, &message.octets);
        let mut frame = Vec::new();
        octets(&mut frame, 1, b"a server");
        octets(&mut frame, 14, &fields);
        number(&mut frame, 15, 1);
        file.extend((frame.len() as u32).to_be_bytes());
        file.extend(frame);
    }
    file.extend([0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 3]);
    file
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7F {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn tag(out: &mut Vec<u8>, field: u64, kind: u64) {
    varint(out, field << 3 | kind);
}

fn number(out: &mut Vec<u8>, field: u64, number: u64) {
    tag(out, field, 0);
    varint(out, number);
}

fn octets(out: &mut Vec<u8>, field: u64, octets: &[u8]) {
    tag(out, field, 2);
    varint(out, octets.len() as u64);
    out.extend_from_slice(octets);
}
