//! Who may change which names and types of a zone by UPDATE.
//!
//! ```text
//!   "key dhcp.example. within dyn.example. types A,AAAA,DHCID"
//!   "192.0.2.0/24 key host.example. self"
//! ```

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::wire::{Name, rtype};

use super::Access;

//----------- Grant ----------------------------------------------------------

/// One entry of a list: who, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    access: Access,
    /// None: every name of the zone.
    owners: Vec<Owners>,
    /// None: every type.
    types: Vec<u16>,
}

/// Names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owners {
    At(Name),
    Below(Name),
    Within(Name),
    /// The name of the key.
    Itself,
}

impl Owners {
    /// Whether `owner`, in wire form and lower case, is one of them.
    fn contain(&self, owner: &[u8], key: Option<&[u8]>) -> bool {
        match self {
            Owners::At(name) => owner == name.as_wire(),
            Owners::Within(name) => is_within(owner, name),
            Owners::Below(name) => owner.len() > name.as_wire().len() && is_within(owner, name),
            Owners::Itself => key.is_some_and(|key| key.eq_ignore_ascii_case(owner)),
        }
    }
}

/// Whether a name is `above` or below it.
fn is_within(mut name: &[u8], above: &Name) -> bool {
    let above = above.as_wire();
    while name.len() > above.len() {
        name = &name[1 + usize::from(name[0])..];
    }
    name == above
}

impl Grant {
    /// The key that is needed.
    pub fn key(&self) -> Option<&Name> {
        self.access.key()
    }
}

/// An entry that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantError;

impl fmt::Display for GrantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "an address or prefix, \"key\" and the name of a key, or both; then, if not all may be \
             changed, \"at\", \"below\" or \"within\" and a name, or \"self\", and \"types\" with a \
             list, such as \"key dhcp.example. within dyn.example. types A,AAAA\"",
        )
    }
}

impl FromStr for Grant {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Grant, GrantError> {
        const MORE: [&str; 5] = ["at", "below", "within", "self", "types"];
        let words: Vec<&str> = text.split_whitespace().collect();
        // A key may be named as these are: the name of one follows its word.
        let is_more = |&at: &usize| MORE.contains(&words[at]) && words.get(at - 1) != Some(&"key");
        let end = (1..words.len()).find(is_more).unwrap_or(words.len());
        let access = words[..end].join(" ").parse().map_err(|_| GrantError)?;
        let mut grant = Grant { access, owners: Vec::new(), types: Vec::new() };
        let mut rest = words[end..].iter();
        while let Some(&word) = rest.next() {
            let mut name = || {
                let name: Name = rest.next().ok_or(GrantError)?.parse().map_err(|_| GrantError)?;
                Ok(name.to_lowercase())
            };
            match word {
                "at" => grant.owners.push(Owners::At(name()?)),
                "below" => grant.owners.push(Owners::Below(name()?)),
                "within" => grant.owners.push(Owners::Within(name()?)),
                "self" => grant.owners.push(Owners::Itself),
                "types" => {
                    for name in rest.next().ok_or(GrantError)?.split(',') {
                        grant.types.push(rtype::parse(name.as_bytes()).ok_or(GrantError)?);
                    }
                }
                _ => return Err(GrantError),
            }
        }
        // Whose name would it be?
        let keyless = grant.key().is_none() && grant.owners.contains(&Owners::Itself);
        if keyless { Err(GrantError) } else { Ok(grant) }
    }
}

//----------- Grants ---------------------------------------------------------

/// A list that grants what one of its entries grants; an empty one grants nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants(Vec<Grant>);

impl Grants {
    /// Of these.
    pub fn new(entries: Vec<Grant>) -> Grants {
        Grants(entries)
    }

    /// Whether it grants nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its entries.
    pub fn iter(&self) -> impl Iterator<Item = &Grant> {
        self.0.iter()
    }

    /// Whether `peer` may change anything, its message signed with the key named `key` or not.
    pub fn know(&self, peer: IpAddr, key: Option<&[u8]>) -> bool {
        self.0.iter().any(|grant| grant.access.allows(peer, key))
    }

    /// Whether `peer` may change the records of `rtype` at `owner`, in wire form and lower case.
    pub fn allow(&self, peer: IpAddr, key: Option<&[u8]>, owner: &[u8], rtype: u16) -> bool {
        self.0.iter().any(|grant| {
            grant.access.allows(peer, key)
                && (grant.types.is_empty() || grant.types.contains(&rtype))
                && (grant.owners.is_empty()
                    || grant.owners.iter().any(|owners| owners.contain(owner, key)))
        })
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(grant: &str, key: &str, owner: &str, rtype: u16) -> bool {
        let grants = Grants::new(vec![grant.parse().unwrap()]);
        let (key, owner): (Name, Name) = (key.parse().unwrap(), owner.parse().unwrap());
        let peer = "192.0.2.1".parse().unwrap();
        grants.allow(peer, Some(key.as_wire()), owner.as_wire(), rtype)
    }

    #[test]
    fn who_where_and_what() {
        assert!(allows("key k.", "K.", "a.example.", rtype::A));
        assert!(!allows("key k.", "l.", "a.example.", rtype::A));
        assert!(!allows("198.51.100.0/24 key k.", "k.", "a.example.", rtype::A));
        let within = "192.0.2.0/24 key k. within D.example. types A,TYPE65280";
        assert!(allows(within, "k.", "d.example.", rtype::A));
        assert!(allows(within, "k.", "x.y.d.example.", 65280));
        assert!(!allows(within, "k.", "xd.example.", rtype::A));
        assert!(!allows(within, "k.", "example.", rtype::A));
        assert!(!allows(within, "k.", "d.example.", rtype::AAAA));
        assert!(!allows("key k. below d.example.", "k.", "d.example.", rtype::A));
        assert!(allows("key k. below d.example.", "k.", "a.d.example.", rtype::A));
        assert!(allows("key h.example. self", "h.example.", "h.example.", rtype::A));
        assert!(!allows("key h.example. self", "h.example.", "a.h.example.", rtype::A));
        let several = "key k. at a.example. at b.example. self";
        assert!(allows(several, "k.", "b.example.", rtype::TXT));
        assert!(!allows(several, "k.", "c.example.", rtype::TXT));
        assert!(allows("key self at a.", "self.", "a.", rtype::TXT));
    }

    #[test]
    fn what_is_no_grant() {
        for text in [
            "",
            "at a.",
            "key",
            "key k. at",
            "key k. types",
            "key k. types NOSUCH",
            "key k. near a.",
            "192.0.2.1 self",
        ] {
            assert_eq!(text.parse::<Grant>(), Err(GrantError), "{text}");
        }
    }
}
