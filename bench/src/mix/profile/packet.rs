//! From a frame to what UDP or TCP carries.
//!
//! ```text
//!   Ethernet, VLAN | Linux cooked | BSD loopback | raw   ──> IPv4 | IPv6 ──> UDP | TCP
//! ```
//!
//! Anything may stand in a capture: what is no such packet is `None`, and nothing here panics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Link types of captures (the registry of tcpdump.org).
pub mod link {
    /// BSD loopback: the family in the byte order of the machine.
    pub const NULL: i32 = 0;
    /// Ethernet.
    pub const ETHERNET: i32 = 1;
    /// Raw IP, as some systems number it.
    pub const RAW_12: i32 = 12;
    /// The same, elsewhere.
    pub const RAW_14: i32 = 14;
    /// Raw IP.
    pub const RAW: i32 = 101;
    /// OpenBSD loopback: the family in network order.
    pub const LOOP: i32 = 108;
    /// Linux cooked.
    pub const LINUX_SLL: i32 = 113;
    /// IPv4.
    pub const IPV4: i32 = 228;
    /// IPv6.
    pub const IPV6: i32 = 229;
    /// Linux cooked, version 2.
    pub const LINUX_SLL2: i32 = 276;
    /// All of them.
    pub const ALL: &[i32] =
        &[NULL, ETHERNET, RAW_12, RAW_14, RAW, LOOP, LINUX_SLL, IPV4, IPV6, LINUX_SLL2];
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86DD;
/// Tags that one frame may have.
const VLAN_TAGS_MAX: usize = 4;
/// Extension headers that one packet may have.
const EXTENSIONS_MAX: usize = 8;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// What one packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// From whom.
    pub source: (IpAddr, u16),
    /// To whom.
    pub destination: (IpAddr, u16),
    /// Octets, as far as they were captured.
    pub payload: &'a [u8],
    /// Whether the capture has all of them.
    pub whole: bool,
    /// Of a TCP segment its sequence number and flags; `None`: a datagram.
    pub segment: Option<Segment>,
}

/// Where a TCP segment stands in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The number of its first octet, or of its SYN.
    pub sequence: u32,
    /// It opens the stream.
    pub syn: bool,
    /// It ends it: FIN or RST.
    pub ends: bool,
}

fn half(octets: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*octets.get(at)?, *octets.get(at + 1)?]))
}

/// The packet in a frame of this link type.
pub fn of_frame(link_type: i32, frame: &[u8]) -> Option<Packet<'_>> {
    match link_type {
        link::ETHERNET => tagged(frame, 12),
        link::LINUX_SLL => tagged(frame, 14),
        link::LINUX_SLL2 => network(half(frame, 0)?, frame.get(20..)?),
        link::NULL | link::LOOP => by_version(frame.get(4..)?),
        link::RAW | link::RAW_12 | link::RAW_14 | link::IPV4 | link::IPV6 => by_version(frame),
        _ => None,
    }
}

/// The EtherType is at `at`, perhaps behind tags.
fn tagged(frame: &[u8], mut at: usize) -> Option<Packet<'_>> {
    for _ in 0..=VLAN_TAGS_MAX {
        match half(frame, at)? {
            // 802.1Q, 802.1ad, and what came before it.
            0x8100 | 0x88A8 | 0x9100 => at += 4,
            kind => return network(kind, frame.get(at + 2..)?),
        }
    }
    None
}

fn network(kind: u16, packet: &[u8]) -> Option<Packet<'_>> {
    match kind {
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => by_version(packet),
        _ => None,
    }
}

fn by_version(packet: &[u8]) -> Option<Packet<'_>> {
    match packet.first()? >> 4 {
        4 => ipv4(packet),
        6 => ipv6(packet),
        _ => None,
    }
}

fn ipv4(packet: &[u8]) -> Option<Packet<'_>> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let header_len = usize::from(header[0] & 0xF) * 4;
    let total = usize::from(half(packet, 2)?);
    // Fragments: a query is never in one, and of a long answer the first says too little.
    if half(packet, 6)? & 0x3FFF != 0 || header_len < 20 {
        return None;
    }
    let address = |at: usize| {
        let octets: [u8; 4] = header[at..at + 4].try_into().expect("four octets");
        IpAddr::V4(Ipv4Addr::from(octets))
    };
    // A total of zero is a segment that the card was to cut up.
    let len = if total == 0 { packet.len() } else { total };
    let whole = packet.len() >= len;
    let body = packet.get(header_len..len.min(packet.len()))?;
    transport(header[9], body, whole, (address(12), address(16)))
}

fn ipv6(packet: &[u8]) -> Option<Packet<'_>> {
    let header: &[u8; 40] = packet.first_chunk()?;
    let address = |at: usize| {
        let octets: [u8; 16] = header[at..at + 16].try_into().expect("sixteen octets");
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let payload = usize::from(half(packet, 4)?);
    let len = if payload == 0 { packet.len() } else { 40 + payload };
    let whole = packet.len() >= len;
    let mut body = packet.get(40..len.min(packet.len()))?;
    let mut next = header[6];
    for _ in 0..EXTENSIONS_MAX {
        match next {
            // Hop by hop, routing, destination options.
            0 | 43 | 60 => {
                next = *body.first()?;
                body = body.get(8 + usize::from(*body.get(1)?) * 8..)?;
            }
            44 => {
                if half(body, 2)? & 0xFFF9 != 0 {
                    return None;
                }
                next = *body.first()?;
                body = body.get(8..)?;
            }
            _ => return transport(next, body, whole, (address(8), address(24))),
        }
    }
    None
}

fn transport(
    protocol: u8,
    body: &[u8],
    whole: bool,
    (from, to): (IpAddr, IpAddr),
) -> Option<Packet<'_>> {
    let (source, destination) = ((from, half(body, 0)?), (to, half(body, 2)?));
    match protocol {
        UDP => {
            let len = usize::from(half(body, 4)?).max(8);
            let payload = body.get(8..len.min(body.len()))?;
            let whole = whole && body.len() >= len;
            Some(Packet { source, destination, payload, whole, segment: None })
        }
        TCP => {
            let header: &[u8; 20] = body.first_chunk()?;
            let header_len = usize::from(header[12] >> 4) * 4;
            let payload = body.get(header_len.max(20)..)?;
            let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            let segment = Segment { sequence, syn: header[13] & 2 != 0, ends: header[13] & 5 != 0 };
            Some(Packet { source, destination, payload, whole, segment: Some(segment) })
        }
        _ => None,
    }
}
