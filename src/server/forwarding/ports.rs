//! UDP ports that queries to upstreams never leave from: others on this machine may want them.
//!
//! The ports of the pool are held for minutes, several thousand of them at a time. A service that
//! is started meanwhile would now and then find its port taken.

use std::fs;
use std::ops::RangeInclusive;

/// Ports that services in wide use listen on, whether or not this machine's files name them.
const IN_USE: [u16; 28] = [
    1194,  // OpenVPN
    1645,  // RADIUS
    1646,  // RADIUS accounting
    1701,  // L2TP
    1812,  // RADIUS
    1813,  // RADIUS accounting
    1900,  // SSDP
    2049,  // NFS
    2055,  // NetFlow
    2123,  // GTP-C
    2152,  // GTP-U
    3478,  // STUN
    3702,  // WS-Discovery
    3784,  // BFD
    4500,  // IPsec behind NAT
    4739,  // IPFIX
    4789,  // VXLAN
    5060,  // SIP
    5351,  // NAT-PMP, PCP
    5353,  // mDNS
    5355,  // LLMNR
    6081,  // Geneve
    6343,  // sFlow
    8125,  // StatsD
    8472,  // VXLAN of Linux
    11211, // memcached
    41641, // Tailscale
    51820, // WireGuard
];

/// All of them, of this machine.
pub fn avoided() -> Vec<u16> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut ports = IN_USE.to_vec();
    ports.extend(of_services(&read("/etc/services")));
    // What an administrator keeps from being given out is meant for somebody else.
    let reserved = read("/proc/sys/net/ipv4/ip_local_reserved_ports");
    ports.extend(of_ranges(&reserved).flatten());
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// The UDP ports in a file as `/etc/services` is: `name port/protocol`.
fn of_services(text: &str) -> impl Iterator<Item = u16> {
    let entries = text.lines().filter_map(|line| line.split('#').next());
    entries.filter_map(|entry| {
        let (port, protocol) = entry.split_whitespace().nth(1)?.split_once('/')?;
        (protocol == "udp").then(|| port.parse().ok())?
    })
}

/// What the kernel writes as `3000-3003,8080`.
fn of_ranges(text: &str) -> impl Iterator<Item = RangeInclusive<u16>> {
    text.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    })
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_name_udp_ports() {
        let text = "# services\ndomain\t53/tcp\ndomain 53/udp # names\nmdns 5353/udp\n\
                    #zip 99/udp\nodd\nodder 70000/udp\n";
        assert_eq!(of_services(text).collect::<Vec<_>>(), [53, 5353]);
    }

    #[test]
    fn ranges_are_read_as_the_kernel_writes_them() {
        let all = |text| of_ranges(text).flatten().collect::<Vec<u16>>();
        assert_eq!(all("3000-3003,8080\n"), [3000, 3001, 3002, 3003, 8080]);
        assert!(all("\n").is_empty() && all("x-y,").is_empty());
    }

    #[test]
    fn what_is_in_use_is_among_them() {
        let ports = avoided();
        assert!(IN_USE.iter().all(|port| ports.contains(port)));
        assert!(ports.is_sorted() && IN_USE.is_sorted());
    }
}
