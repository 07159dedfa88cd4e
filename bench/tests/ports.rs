//! Ports for servers that are started here: nobody else gets them.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use ring53_bench::ports::free_port;

const IP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[test]
fn they_are_free_and_neither_given_twice_nor_to_connections() {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let mut bounds = range.split_whitespace().map(|word| word.parse::<u16>().unwrap());
    let kernel = bounds.next().unwrap()..=bounds.next().unwrap();
    // As many as there are beside the range of many a distribution: each comes once.
    let in_use = free_port(IP).unwrap();
    let _socket = UdpSocket::bind(in_use).unwrap();
    let given: HashSet<u16> = (0..20_000).map(|_| free_port(IP).unwrap().port()).collect();
    assert_eq!(given.len(), 20_000);
    assert!(!given.contains(&in_use.port()));
    assert!(!given.iter().any(|port| kernel.contains(port)), "{kernel:?}");
}

#[test]
fn an_address_of_somebody_else_is_an_error() {
    let error = free_port([192, 0, 2, 1].into()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable, "{error}");
}
