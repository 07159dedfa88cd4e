//! Ports for servers that are started here, and by the tests of both packages.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The kernel's range of ports for sockets that name none.
pub const RANGE_PATH: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Ports that servers get where that range says nothing else: none that is well known.
const PORTS: RangeInclusive<u16> = 10_000..=65_535;
/// How many are tried.
const TRIES: usize = 1000;

/// A port of `ip` that neither UDP nor TCP uses, and that this process has not been given yet,
/// until it has been given all.
///
/// It is none of those that the kernel gives to sockets that name no port: between now and the
/// server's start, or its next one, a connection of anybody would take it.
pub fn free_port(ip: IpAddr) -> io::Result<SocketAddr> {
    static ALL: OnceLock<Vec<u16>> = OnceLock::new();
    static GIVEN: AtomicU64 = AtomicU64::new(0);
    let all = ALL.get_or_init(|| beside(&fs::read_to_string(RANGE_PATH).unwrap_or_default()));
    // Processes that run at once begin far from each other: their numbers are close.
    let start = u64::from(process::id()) * 2_654_435_761;
    for _ in 0..TRIES {
        let number = start + GIVEN.fetch_add(1, Ordering::Relaxed);
        let at = SocketAddr::new(ip, all[(number % all.len() as u64) as usize]);
        match UdpSocket::bind(at).and_then(|_socket| TcpListener::bind(at)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            bound => return bound.map(|_| at),
        }
    }
    Err(io::Error::other("no port is free for UDP and TCP"))
}

/// The ports that are not in `range`, which is the kernel's; all, if it leaves few.
pub fn beside(range: &str) -> Vec<u16> {
    let mut words = range.split_whitespace().map(str::parse::<u16>);
    let (first, last) = match (words.next(), words.next()) {
        (Some(Ok(first)), Some(Ok(last))) => (first, last),
        _ => (32_768, 60_999),
    };
    let ports: Vec<u16> = PORTS.filter(|port| !(first..=last).contains(port)).collect();
    if ports.len() < TRIES { PORTS.collect() } else { ports }
}
