//! Who may do what: access lists by address prefix and key.
//!
//! ```text
//!   "192.0.2.0/24"                 from there, signed or not
//!   "192.0.2.1 key xfr.example."   from there, signed with that key
//!   "key xfr.example."             from anywhere, signed with that key
//! ```

mod prefixes;
mod rebinding;
pub mod special;
mod update;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::wire::Name;

pub use prefixes::Prefixes;
pub use rebinding::{EDE_BLOCKED, Judgement, Rebinding};
pub use update::{Grant, GrantError, Grants};

//----------- Prefix ---------------------------------------------------------

/// Addresses that start with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// IPv4 addresses are mapped ones.
    bits: u128,
    len: u8,
}

impl Prefix {
    /// The prefix of `len` bits that `address` is in; a `len` past the address's is all of it.
    pub fn around(address: IpAddr, len: u8) -> Prefix {
        let max = if address.is_ipv4() { 32 } else { 128 };
        let len = 128 - max + len.min(max);
        Prefix { bits: mapped(address) & mask(len), len }
    }

    /// Whether `address` is one of them.
    pub fn contains(self, address: IpAddr) -> bool {
        (mapped(address) ^ self.bits) & mask(self.len) == 0
    }

    /// Whether all of them are in `outer`.
    pub fn is_within(self, outer: Prefix) -> bool {
        self.len >= outer.len && (self.bits ^ outer.bits) & mask(outer.len) == 0
    }

    /// The first of them, IPv4 mapped.
    pub fn first(self) -> u128 {
        self.bits
    }

    /// The last of them, IPv4 mapped.
    pub fn last(self) -> u128 {
        self.bits | !mask(self.len)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = Ipv6Addr::from_bits(self.bits);
        match address.to_ipv4_mapped().filter(|_| self.len >= 96) {
            Some(address) => write!(f, "{address}/{}", self.len - 96),
            None => write!(f, "{address}/{}", self.len),
        }
    }
}

/// The bits of a prefix of `len` bits.
fn mask(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

/// Every address as one of IPv6: IPv4 addresses are mapped.
pub fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl FromStr for Prefix {
    type Err = ();

    fn from_str(text: &str) -> Result<Prefix, ()> {
        let (address, len) = match text.split_once('/') {
            Some((address, len)) => (address, Some(len.parse::<u8>().map_err(drop)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(drop)?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        let len = len.unwrap_or(max);
        if len > max {
            return Err(());
        }
        let prefix = Prefix { bits: mapped(address), len: 128 - max + len };
        // Bits past the prefix are a mistake: which of the two was meant?
        if prefix.bits & !mask(prefix.len) != 0 { Err(()) } else { Ok(prefix) }
    }
}

//----------- Access ---------------------------------------------------------

/// One entry of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// `None`: from anywhere.
    prefix: Option<Prefix>,
    /// `None`: signed or not.
    key: Option<Name>,
}

impl Access {
    /// From one address, signed with `key` if there is one.
    pub fn of(address: IpAddr, key: Option<Name>) -> Access {
        Access { prefix: Some(Prefix { bits: mapped(address), len: 128 }), key }
    }

    /// The key that is needed.
    pub fn key(&self) -> Option<&Name> {
        self.key.as_ref()
    }

    /// Whether it is one for `peer`, its message signed with the key named `key` in wire form, or
    /// not.
    pub(super) fn allows(&self, peer: IpAddr, key: Option<&[u8]>) -> bool {
        let keyed =
            |wanted: &Name| key.is_some_and(|key| wanted.as_wire().eq_ignore_ascii_case(key));
        self.prefix.is_none_or(|prefix| prefix.contains(peer))
            && self.key.as_ref().is_none_or(keyed)
    }
}

/// An entry that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessError;

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "an address or prefix, \"key\" and the name of a key, or both, such as \
             \"192.0.2.0/24 key xfr.example.\"",
        )
    }
}

impl FromStr for Access {
    type Err = AccessError;

    fn from_str(text: &str) -> Result<Access, AccessError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (prefix, key) = match words[..] {
            [prefix] => (Some(prefix), None),
            ["key", key] => (None, Some(key)),
            [prefix, "key", key] => (Some(prefix), Some(key)),
            _ => return Err(AccessError),
        };
        let prefix = prefix.map(str::parse).transpose().map_err(|()| AccessError)?;
        let key = key.map(str::parse::<Name>).transpose().map_err(|_| AccessError)?;
        Ok(Access { prefix, key })
    }
}

/// A list that allows what one of its entries allows; an empty one allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessList(Vec<Access>);

impl AccessList {
    /// Of these.
    pub fn new(entries: Vec<Access>) -> AccessList {
        AccessList(entries)
    }

    /// Whether it allows nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its entries.
    pub fn iter(&self) -> impl Iterator<Item = &Access> {
        self.0.iter()
    }

    /// Whether `peer` may, its message signed with the key named `key` in wire form, or not.
    pub fn allows(&self, peer: IpAddr, key: Option<&[u8]>) -> bool {
        self.0.iter().any(|entry| entry.allows(peer, key))
    }
}

//----------- Remote ---------------------------------------------------------

/// A server to talk to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Remote {
    /// Where it listens.
    pub address: SocketAddr,
    /// The name of the key that both sides sign with.
    pub key: Option<Name>,
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "{} (key {key})", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

impl FromStr for Remote {
    type Err = ();

    fn from_str(text: &str) -> Result<Remote, ()> {
        const PORT: u16 = 53;
        let words: Vec<&str> = text.split_whitespace().collect();
        let (address, key) = match words[..] {
            [address] => (address, None),
            [address, "key", key] => (address, Some(key.parse().map_err(drop)?)),
            _ => return Err(()),
        };
        let whole = address.parse::<SocketAddr>();
        let alone = || address.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT));
        Ok(Remote { address: whole.or_else(|_| alone()).map_err(drop)?, key })
    }
}

//----------- Rules ----------------------------------------------------------

/// What peers may do with one zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Take it whole or in steps.
    pub transfer: AccessList,
    /// Say that it has changed.
    pub notify: AccessList,
    /// Change its records.
    pub update: Grants,
}

/// Whoever has one IPv6 address has its whole /64.
pub fn subscriber(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_none() => {
            Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into()
        }
        address => address.to_canonical(),
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(entries: &[&str], peer: &str, key: Option<&str>) -> bool {
        let list = AccessList::new(entries.iter().map(|entry| entry.parse().unwrap()).collect());
        let key = key.map(|key| key.parse::<Name>().unwrap());
        list.allows(peer.parse().unwrap(), key.as_ref().map(Name::as_wire))
    }

    #[test]
    fn addresses_keys_and_both() {
        assert!(!allows(&[], "192.0.2.1", None));
        assert!(allows(&["192.0.2.0/24"], "192.0.2.255", None));
        assert!(allows(&["192.0.2.0/24"], "::ffff:192.0.2.255", Some("k.")));
        assert!(!allows(&["192.0.2.0/25"], "192.0.2.255", None));
        assert!(allows(&["0.0.0.0/0"], "198.51.100.1", None));
        assert!(!allows(&["0.0.0.0/0"], "2001:db8::1", None));
        assert!(allows(&["::/0"], "2001:db8::1", None));
        assert!(allows(&["2001:db8::/32"], "2001:db8:ffff::1", None));
        assert!(allows(&["2001:db8::1", "192.0.2.1"], "2001:db8::1", None));
        assert!(!allows(&["2001:db8::1"], "2001:db8::2", None));
        assert!(!allows(&["key k."], "192.0.2.1", None));
        assert!(allows(&["key k."], "192.0.2.1", Some("K.")));
        assert!(!allows(&["192.0.2.1 key k."], "192.0.2.2", Some("k.")));
        assert!(!allows(&["192.0.2.1 key k."], "192.0.2.1", Some("l.")));
        assert!(allows(&["192.0.2.9", "192.0.2.1 key k."], "192.0.2.1", Some("k.")));
    }

    #[test]
    fn prefixes_are_shown_as_they_are_written() {
        for text in ["192.0.2.0/24", "0.0.0.0/0", "::/0", "2001:db8::/32", "::1/128"] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), text);
        }
        let around = |text: &str, len| Prefix::around(text.parse().unwrap(), len).to_string();
        assert_eq!(around("192.168.7.9", 22), "192.168.4.0/22");
        assert_eq!(around("fd00::1:2", 64), "fd00::/64");
        let within = |inner: &str, outer: &str| {
            inner.parse::<Prefix>().unwrap().is_within(outer.parse().unwrap())
        };
        assert!(within("10.1.0.0/16", "10.0.0.0/8") && within("10.0.0.0/8", "10.0.0.0/8"));
        assert!(!within("10.0.0.0/7", "10.0.0.0/8") && !within("11.0.0.0/8", "10.0.0.0/8"));
    }

    #[test]
    fn what_is_no_entry() {
        for text in ["", "key", "192.0.2.1/33", "192.0.2.1/24", "a", "192.0.2.1 kez k.", "::1/x"] {
            assert_eq!(text.parse::<Access>(), Err(AccessError), "{text}");
        }
    }

    #[test]
    fn a_64_is_one_subscriber() {
        let of = |text: &str| subscriber(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1:2:3"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
