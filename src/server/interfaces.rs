//! The addresses of this machine's interfaces, and the local prefixes that come with them.

use std::net::IpAddr;

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;

use crate::policy::{Prefix, mapped};

/// All addresses of interfaces that are up; none if the kernel does not say.
pub fn addresses() -> Vec<IpAddr> {
    up().filter_map(|interface| ip(interface.address.as_ref()?)).collect()
}

/// The local prefixes that interfaces which are up are directly attached to.
#[allow(dead_code, reason = "what serves it is wired next")]
pub fn attached() -> Vec<Prefix> {
    let of = |interface: InterfaceAddress| {
        let address = ip(interface.address.as_ref()?)?;
        of_address(address, ip(interface.netmask.as_ref()?)?)
    };
    up().filter_map(of).collect()
}

fn up() -> impl Iterator<Item = InterfaceAddress> {
    getifaddrs()
        .into_iter()
        .flatten()
        .filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP))
}

fn ip(storage: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = storage.as_sockaddr_in().map(|address| address.ip().into());
    v4.or_else(|| storage.as_sockaddr_in6().map(|address| address.ip().into()))
}

/// The local part of the network that `address` is in; `None` if it is public, or the mask is none.
fn of_address(address: IpAddr, mask: IpAddr) -> Option<Prefix> {
    if address.is_ipv4() != mask.is_ipv4() {
        return None;
    }
    let max = if mask.is_ipv4() { 32 } else { 128 };
    let bits = mapped(mask) << (128 - max);
    let len = bits.leading_ones();
    let is_mask = len == bits.count_ones();
    is_mask.then(|| Prefix::local_around(address, len as u8)).flatten()
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_makes_a_prefix() {
        let of = |address: &str, mask: &str| {
            let prefix = of_address(address.parse().unwrap(), mask.parse().unwrap());
            prefix.map(|prefix| prefix.to_string())
        };
        let some = |text: &str| Some(text.to_string());
        assert_eq!(of("192.168.7.9", "255.255.252.0"), some("192.168.4.0/22"));
        assert_eq!(of("10.1.2.3", "255.255.255.255"), some("10.1.2.3/32"));
        assert_eq!(
            of("172.16.0.1", "128.0.0.0"),
            some("172.16.0.0/12"),
            "not what is public of it"
        );
        assert_eq!(of("fd00::9", "ffff:ffff:ffff:ffff::"), some("fd00::/64"));
        assert_eq!(of("fe80::9", "ffff:ffff:ffff:ffff::"), some("fe80::/64"));
        assert_eq!(of("203.0.113.9", "255.255.255.0"), None);
        assert_eq!(of("2001:db8::9", "ffff:ffff:ffff:ffff::"), None);
        assert_eq!(of("192.168.7.9", "255.0.255.0"), None, "no mask");
        assert_eq!(of("192.168.7.9", "ffff::"), None);
    }

    #[test]
    fn this_machine_has_loopback() {
        let loopback: IpAddr = [127, 0, 0, 1].into();
        assert!(addresses().contains(&loopback));
        assert!(attached().iter().any(|prefix| prefix.contains(loopback)));
        assert!(attached().iter().all(|prefix| prefix.is_local()));
    }
}
