//! Ports for servers that are started here: nobody else gets them.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::{fs, io};

use ring53_bench::ports::{RANGE_PATH, beside, free_port};

const IP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[test]
fn connections_get_none_of_them() {
    assert_eq!(beside("32768\t60999\n").len(), 22_768 + 4536);
    assert!(!beside("32768\t60999\n").contains(&50_270));
    assert_eq!(beside(""), beside("32768 60999"));
    // Below them, and nearly all of them.
    assert_eq!(beside("1024\t2000\n").len(), 55_536);
    for range in ["1024\t65535\n", "10000\t65000\n"] {
        assert_eq!(beside(range).len(), 55_536, "{range}");
    }
}

/// One test: another's calls would come in between.
#[test]
fn they_are_free_and_come_once_until_all_have_come() {
    let all = beside(&fs::read_to_string(RANGE_PATH).unwrap());
    let in_use = free_port(IP).unwrap();
    let _socket = UdpSocket::bind(in_use).unwrap();
    let mut given = HashSet::new();
    for count in 0..all.len() {
        let at = free_port(IP).unwrap();
        assert!(all.contains(&at.port()) && at != in_use, "{at}");
        assert!(given.insert(at) || count > all.len() / 2, "{at} again after {count}");
    }
}

#[test]
fn an_address_of_somebody_else_is_an_error() {
    let error = free_port([192, 0, 2, 1].into()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable, "{error}");
}
