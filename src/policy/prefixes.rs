//! A set of prefixes that is asked for every client: sorted ranges without gaps or overlaps.
//!
//! ```text
//!   10.0.0.0/8  10.1.0.0/16  10.0.0.0/9 ──merged──> | 10.0.0.0 .. 10.255.255.255 | ...
//!                                                     few: one after the other; many: by halving
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Prefix, mapped};

/// Up to this many ranges looking at all of them is faster than halving: they fill four cache
/// lines.
const FEW: usize = 8;

/// A set of addresses, given by prefixes. IPv4 addresses are mapped ones, as in [`Prefix`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefixes(Box<[Range]>);

/// Addresses from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u128,
    last: u128,
}

impl Prefixes {
    /// Of these; none allows nobody.
    pub fn new(prefixes: impl IntoIterator<Item = Prefix>) -> Prefixes {
        let range = |prefix: Prefix| Range { first: prefix.first(), last: prefix.last() };
        let mut ranges: Vec<Range> = prefixes.into_iter().map(range).collect();
        ranges.sort_by_key(|range| range.first);
        let mut merged: Vec<Range> = Vec::new();
        for range in ranges {
            match merged.last_mut() {
                // One that begins where the last ends belongs to it.
                Some(last) if range.first <= last.last.saturating_add(1) => {
                    last.last = last.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        Prefixes(merged.into())
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `address` is in it.
    #[inline]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.contains_mapped(mapped(address))
    }

    /// The same of an address whose IPv4 form is mapped.
    #[inline]
    pub fn contains_mapped(&self, address: u128) -> bool {
        self.range_of(address).is_some()
    }

    /// Whether all of `prefix` is in it, by one entry or by several.
    pub fn covers(&self, prefix: Prefix) -> bool {
        self.range_of(prefix.first()).is_some_and(|range| prefix.last() <= range.last)
    }

    #[inline]
    fn range_of(&self, address: u128) -> Option<&Range> {
        let holds = |range: &&Range| range.first <= address && address <= range.last;
        if self.0.len() <= FEW {
            return self.0.iter().find(holds);
        }
        let after = self.0.partition_point(|range| range.first <= address);
        self.0[..after].last().filter(holds)
    }
}

//----------- Local addresses ------------------------------------------------

/// Addresses that this machine or its own networks have and the internet does not: loopback,
/// private (RFC 1918), link-local, unique local (RFC 4193). Not 100.64.0.0/10: that is shared with
/// everybody behind the same provider.
const LOCAL: [(IpAddr, u8); 8] = [
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), 12),
    (IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
    (IpAddr::V6(Ipv6Addr::new(0xFC00, 0, 0, 0, 0, 0, 0, 0)), 7),
    (IpAddr::V6(Ipv6Addr::new(0xFE80, 0, 0, 0, 0, 0, 0, 0)), 10),
];

impl Prefix {
    /// Whether all of it is local.
    pub fn is_local(self) -> bool {
        LOCAL.iter().any(|&(address, len)| self.is_within(Prefix::around(address, len)))
    }

    /// What is local of the prefix of `len` bits that `address` is in; `None` if `address` is not.
    pub fn local_around(address: IpAddr, len: u8) -> Option<Prefix> {
        let address = address.to_canonical();
        let is_in = |(local, len): &&(IpAddr, u8)| Prefix::around(*local, *len).contains(address);
        let (_, local_len) = LOCAL.iter().find(is_in)?;
        Some(Prefix::around(address, len.max(*local_len)))
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(texts: &[&str]) -> Prefixes {
        Prefixes::new(texts.iter().map(|text| text.parse().unwrap()))
    }

    #[test]
    fn what_touches_is_one() {
        let halves = set(&["128.0.0.0/1", "10.0.0.0/8", "0.0.0.0/1", "::1"]);
        assert_eq!(halves.0.len(), 2);
        assert!(halves.covers("0.0.0.0/0".parse().unwrap()));
        assert!(!halves.covers("::/0".parse().unwrap()));
        assert!(set(&["::/1", "8000::/1"]).covers("::/0".parse().unwrap()));
        assert!(set(&["::/0", "ffff::/16"]).contains("ffff::1".parse().unwrap()));
        assert!(!set(&[]).contains("::".parse().unwrap()) && set(&[]).is_empty());
    }

    #[test]
    fn ipv4_is_mapped() {
        let set = set(&["192.0.2.0/24", "2001:db8::/32"]);
        for (text, is_in) in [
            ("192.0.2.255", true),
            ("::ffff:192.0.2.0", true),
            ("192.0.3.0", false),
            ("192.0.1.255", false),
            ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", true),
            ("2001:db9::", false),
            ("::192.0.2.1", false),
        ] {
            assert_eq!(set.contains(text.parse().unwrap()), is_in, "{text}");
        }
    }

    #[test]
    fn the_local_part_of_a_prefix() {
        let around = |text: &str, len| {
            let prefix = Prefix::local_around(text.parse().unwrap(), len)?;
            assert!(prefix.is_local());
            Some(prefix.to_string())
        };
        assert_eq!(around("192.168.1.7", 24).as_deref(), Some("192.168.1.0/24"));
        assert_eq!(around("10.9.8.7", 4).as_deref(), Some("10.0.0.0/8"), "no public one");
        assert_eq!(around("fd00:1::7", 64).as_deref(), Some("fd00:1::/64"));
        assert_eq!(around("fe80::7", 64).as_deref(), Some("fe80::/64"));
        assert_eq!(around("::ffff:172.31.0.1", 16).as_deref(), Some("172.31.0.0/16"));
        for public in ["192.0.2.1", "100.64.0.1", "172.32.0.1", "2001:db8::1", "::2"] {
            assert_eq!(around(public, 24), None, "{public}");
        }
        let is_local = |text: &str| text.parse::<Prefix>().unwrap().is_local();
        assert!(is_local("::1") && is_local("172.24.0.0/13") && is_local("fc00::/7"));
        assert!(!is_local("172.0.0.0/8") && !is_local("::/0") && !is_local("::/127"));
    }

    proptest! {
        /// Few and many, against one after the other. Addresses lie where the prefixes end.
        #[test]
        fn as_each_prefix_for_itself(
            prefixes in prop::collection::vec((any::<u16>(), 0u8..=128), 0..40),
            near in prop::collection::vec((any::<prop::sample::Index>(), -1i8..=1), 20),
            far in prop::collection::vec(any::<u128>(), 20),
        ) {
            // Few high bits, so that they meet.
            let prefixes: Vec<Prefix> = prefixes
                .into_iter()
                .map(|(bits, len)| (Ipv6Addr::from(u128::from(bits) << 112), len))
                .map(|(address, len)| Prefix::around(address.into(), len))
                .collect();
            let set = Prefixes::new(prefixes.iter().copied());
            let edges = near.into_iter().filter_map(|(index, step)| {
                let prefix = prefixes.get(index.index(prefixes.len().max(1)))?;
                let edge = if step < 0 { prefix.first() } else { prefix.last() };
                Some(edge.wrapping_add_signed(step.into()))
            });
            for address in edges.chain(far) {
                let ip = IpAddr::V6(Ipv6Addr::from(address));
                let naive = prefixes.iter().any(|prefix| prefix.contains(ip));
                prop_assert_eq!(set.contains_mapped(address), naive);
            }
            for prefix in &prefixes {
                prop_assert!(set.covers(*prefix));
            }
        }
    }
}
