//! Ports for servers that are started here, and by the tests of both packages.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// Ports that servers get where the kernel's range says nothing else: none that is well known.
const PORTS: RangeInclusive<u16> = 10_000..=65_535;
/// How many are tried.
const TRIES: u32 = 1000;
/// From one port to the next: a prime, so that two processes do not walk side by side.
const STEP: u32 = 7919;

/// A port of `ip` that neither UDP nor TCP uses, and that this process has not been given yet.
///
/// It is none of those that the kernel gives to sockets that name no port: between now and the
/// server's start, or its next one, a connection of anybody would take it.
pub fn free_port(ip: IpAddr) -> io::Result<SocketAddr> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let ports = beside(&range);
    let start = process::id().wrapping_mul(STEP);
    let mut failed = io::Error::other("no port is free for UDP and TCP");
    for _ in 0..TRIES {
        let number = start.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed).wrapping_mul(STEP));
        let at = SocketAddr::new(ip, ports[number as usize % ports.len()]);
        match UdpSocket::bind(at).and_then(|_socket| TcpListener::bind(at)) {
            Ok(_) => return Ok(at),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => {
                failed = error;
                break;
            }
        }
    }
    Err(failed)
}

/// The ports that are not in `range`, which is the kernel's; all, if it leaves few.
fn beside(range: &str) -> Vec<u16> {
    let mut words = range.split_whitespace().map(str::parse::<u16>);
    let (first, last) = match (words.next(), words.next()) {
        (Some(Ok(first)), Some(Ok(last))) => (first, last),
        _ => (32_768, 60_999),
    };
    let ports: Vec<u16> = PORTS.filter(|port| !(first..=last).contains(port)).collect();
    if ports.len() < TRIES as usize { PORTS.collect() } else { ports }
}
