//! The `[recursion]` table: who may ask for what others have, and what that may cost.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::limits::{
    OUTSTANDING_DEFAULT, OUTSTANDING_MAX, OUTSTANDING_PER_CLIENT_DEFAULT, QUESTION_TIME_DEFAULT,
    QUESTION_TIME_MAX, QUESTION_TIME_MIN, UPSTREAM_PORTS_DEFAULT, UPSTREAM_PORTS_MAX,
    UPSTREAM_PORTS_MIN,
};
use crate::policy::{Prefix, Prefixes, Rebinding, special};
use crate::wire::Name;

use super::super::keys::Table;

//----------- Recursion ------------------------------------------------------

/// Who may ask for names of others, and how they are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recursion {
    /// Who may.
    pub allow: Allow,
    /// What a query without RD gets beside authority.
    pub without_rd: WithoutRd,
    /// Whether private addresses under public names are kept from clients. Only for what comes by
    /// the forward of the root: who forwards another zone knows whose it is.
    pub rebind_protection: bool,
    /// Names at or below which they are not.
    pub rebind_allow: Vec<Name>,
    /// Whether special-use names are answered here.
    pub special_names: bool,
    /// Those at or below these are not.
    pub special_names_except: Vec<Name>,
    /// Questions in flight.
    pub outstanding_max: usize,
    /// Those of one client: [`crate::policy::subscriber`].
    pub outstanding_per_client_max: usize,
    /// UDP sockets to upstreams, each with a port of its own.
    pub ports: usize,
    /// Addresses to ask from; none of a family: the kernel chooses.
    pub source: Vec<IpAddr>,
    /// How long a question may take.
    pub timeout: Duration,
}

/// Who may ask for names of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allow {
    /// This machine, and the local prefixes that its interfaces have when it starts or reloads.
    Attached,
    /// These.
    Listed(Vec<Prefix>),
}

/// What a query without RD gets, of names that are of no zone here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithoutRd {
    /// REFUSED: nobody finds out what others have asked for.
    Refuse,
    /// What is in the cache; what is not is not asked for.
    Cache,
}

impl Default for Recursion {
    fn default() -> Recursion {
        Recursion {
            allow: Allow::Attached,
            without_rd: WithoutRd::Refuse,
            rebind_protection: true,
            rebind_allow: Vec::new(),
            special_names: true,
            special_names_except: Vec::new(),
            outstanding_max: OUTSTANDING_DEFAULT,
            outstanding_per_client_max: OUTSTANDING_PER_CLIENT_DEFAULT,
            ports: UPSTREAM_PORTS_DEFAULT,
            source: Vec::new(),
            timeout: QUESTION_TIME_DEFAULT,
        }
    }
}

impl Recursion {
    /// Who may, where the interfaces have the local prefixes `attached`.
    pub fn clients(&self, attached: &[Prefix]) -> Prefixes {
        match &self.allow {
            Allow::Attached => {
                let loopback = [
                    Prefix::around(Ipv4Addr::LOCALHOST.into(), 8),
                    Prefix::around(Ipv6Addr::LOCALHOST.into(), 128),
                ];
                let local = attached.iter().copied().filter(|prefix| prefix.is_local());
                Prefixes::new(loopback.into_iter().chain(local))
            }
            Allow::Listed(prefixes) => Prefixes::new(prefixes.iter().copied()),
        }
    }

    /// What judges answers that come by the forward of the root.
    pub fn rebinding(&self) -> Option<Rebinding> {
        self.rebind_protection.then(|| Rebinding::new(&self.rebind_allow))
    }

    /// Reads the table; what is wrong goes to its errors.
    pub fn read(table: &mut Table<'_>) -> Recursion {
        let mut read = Recursion::default();
        read.read_allow(table);
        let words = [("refuse", WithoutRd::Refuse), ("cache", WithoutRd::Cache)];
        read.without_rd = table.choice("rd0", &words).unwrap_or(read.without_rd);
        read.rebind_protection = table.boolean("rebind_protection").unwrap_or(true);
        read.rebind_allow = names(table, "rebind_allow");
        if !read.rebind_protection && !read.rebind_allow.is_empty() {
            table.error("rebind_allow", "rebind_protection is false: there is nothing to except");
        }
        read.special_names = table.boolean("special_names").unwrap_or(true);
        read.read_except(table);
        for (key, value) in [
            ("outstanding_max", &mut read.outstanding_max),
            ("outstanding_per_client_max", &mut read.outstanding_per_client_max),
        ] {
            if let Some(count) = table.integer(key, 1, OUTSTANDING_MAX as i64) {
                *value = count as usize;
            }
        }
        // One client alone never has more than there are in all.
        read.outstanding_per_client_max = read.outstanding_per_client_max.min(read.outstanding_max);
        let (min, max) = (UPSTREAM_PORTS_MIN as i64, UPSTREAM_PORTS_MAX as i64);
        if let Some(ports) = table.integer("ports", min, max) {
            read.ports = ports as usize;
        }
        read.read_source(table);
        let timeout = table.duration_in("timeout", QUESTION_TIME_MIN, QUESTION_TIME_MAX);
        read.timeout = timeout.unwrap_or(read.timeout);
        read
    }

    fn read_allow(&mut self, table: &mut Table<'_>) {
        let open = table.boolean("open") == Some(true);
        let items = table.items("allow").unwrap_or_default();
        let shared = Prefix::around(Ipv4Addr::new(100, 64, 0, 0).into(), 10);
        let mut prefixes = Vec::new();
        for item in &items {
            let Ok(prefix) = item.text.parse::<Prefix>() else {
                let expected = "expected an address or prefix, such as \"192.168.0.0/16\"";
                table.error_of("allow", item, expected);
                continue;
            };
            if !open && !prefix.is_local() && !prefix.is_within(shared) {
                let message = format!(
                    "{prefix} is public: whoever is there, or forges an address of it, can use this \
                     server to flood others; be sure that it is all yours"
                );
                table.warn("allow", Some(item), &message);
            }
            prefixes.push(prefix);
        }
        let all = Prefixes::new(prefixes.iter().copied());
        // All of IPv4, by whatever parts; all that IPv6 has given out.
        let everybody = [
            Prefix::around(Ipv4Addr::UNSPECIFIED.into(), 0),
            Prefix::around(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0).into(), 3),
        ];
        let is_open = everybody.into_iter().any(|prefix| all.covers(prefix));
        if is_open && !open {
            table.error(
                "allow",
                "an open resolver is a weapon against others: write open = true if it is meant, or \
                 list your own prefixes",
            );
        } else if open && !is_open {
            table.error("open", "allow has neither 0.0.0.0/0 nor ::/0: remove one of the two");
        } else if open {
            table.warn("open", None, "everybody may ask: this server can be used to flood others");
        }
        if table.has("allow") {
            self.allow = Allow::Listed(prefixes);
        }
    }

    fn read_except(&mut self, table: &mut Table<'_>) {
        let key = "special_names_except";
        for item in table.items(key).unwrap_or_default() {
            match item.text.parse::<Name>() {
                Ok(name) if special::excepts_some(&name) => self.special_names_except.push(name),
                Ok(name) => {
                    let message = format!(
                        "{name} is no special-use name, nor is one below it: remove it; those are \
                         localhost., test., home.arpa. and others of RFC 6761 and RFC 6303"
                    );
                    table.error_of(key, &item, &message);
                }
                Err(error) => table.error_of(key, &item, &format!("expected {error}")),
            }
        }
        if !self.special_names && !self.special_names_except.is_empty() {
            table.error(key, "special_names is false: there is nothing to except");
        }
    }

    fn read_source(&mut self, table: &mut Table<'_>) {
        for item in table.items("source").unwrap_or_default() {
            match item.text.parse::<IpAddr>() {
                Ok(address) if address.is_unspecified() || address.is_multicast() => {
                    table.error_of("source", &item, "expected an address that this machine has");
                }
                Ok(address) if self.source.contains(&address) => {
                    table.error_of("source", &item, "it is there twice: remove one");
                }
                Ok(address) => self.source.push(address),
                Err(_) => {
                    let expected = "expected an address without a port, such as \"192.0.2.1\"";
                    table.error_of("source", &item, expected);
                }
            }
        }
    }
}

fn names(table: &mut Table<'_>, key: &'static str) -> Vec<Name> {
    let mut names = Vec::new();
    for item in table.items(key).unwrap_or_default() {
        match item.text.parse() {
            Ok(name) => names.push(name),
            Err(error) => table.error_of(key, &item, &format!("expected {error}")),
        }
    }
    names
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;

    fn parse(table: &str) -> Result<Config, String> {
        let forward = "[[forward]]\nzone = \".\"\nto = [\"192.0.2.1\"]\n";
        let text = format!("version = 1\n[recursion]\n{table}\n{forward}");
        Config::parse("ring53.toml", &text, Path::new("/etc"))
    }

    #[test]
    fn what_is_said_and_what_is_not() {
        assert_eq!(parse("").unwrap().recursion, Recursion::default());
        let read = parse(
            "rd0 = \"cache\"\nrebind_allow = [\"plex.direct.\"]\n\
             special_names_except = [\"test.\", \"100.in-addr.arpa.\"]\noutstanding_max = 100\n\
             ports = 512\nsource = [\"192.0.2.7\", \"2001:db8::7\"]\ntimeout = \"2s\"",
        );
        let expected = Recursion {
            without_rd: WithoutRd::Cache,
            rebind_allow: vec!["plex.direct.".parse().unwrap()],
            special_names_except: ["test.", "100.in-addr.arpa."]
                .map(|it| it.parse().unwrap())
                .into(),
            outstanding_max: 100,
            outstanding_per_client_max: 100,
            ports: 512,
            source: ["192.0.2.7", "2001:db8::7"].map(|it| it.parse().unwrap()).into(),
            timeout: Duration::from_secs(2),
            ..Recursion::default()
        };
        assert!(expected.rebinding().is_some());
        assert_eq!(read.unwrap().recursion, expected);
        let read = parse("rebind_protection = false\nspecial_names = false").unwrap().recursion;
        assert!(read.rebinding().is_none() && !read.special_names);
    }

    #[test]
    fn nobody_from_outside_unless_it_is_said() {
        let attached = ["192.168.7.0/24", "fd00::/64", "203.0.113.0/24"];
        let attached = attached.map(|text| text.parse::<Prefix>().unwrap());
        let may = |table: &str, client: &str| {
            let clients = parse(table).unwrap().recursion.clients(&attached);
            clients.contains(client.parse().unwrap())
        };
        for client in ["127.0.0.2", "::1", "192.168.7.9", "fd00::9"] {
            assert!(may("", client), "{client}");
        }
        for client in ["192.168.8.1", "10.0.0.1", "203.0.113.1", "2001:db8::1", "::2"] {
            assert!(!may("", client), "{client}");
        }
        assert!(may("allow = [\"10.0.0.0/8\"]", "10.1.1.1"));
        assert!(!may("allow = [\"10.0.0.0/8\"]", "127.0.0.1"), "only who is listed");
        assert!(!may("allow = []", "127.0.0.1"));
        assert!(may("open = true\nallow = [\"0.0.0.0/0\"]", "203.0.113.1"));
    }

    #[test]
    fn public_prefixes_are_warned_about() {
        let warnings = |table: &str| parse(table).unwrap().warnings;
        let quiet = "allow = [\"127.0.0.0/8\", \"10.1.0.0/16\", \"fe80::/10\", \"100.64.0.0/10\"]";
        assert_eq!(warnings(quiet), [""; 0]);
        let [warning] = &warnings("allow = [\"::1\", \"192.0.2.0/24\"]")[..] else { panic!("one") };
        let expected = "ring53.toml:3:17: allow: 192.0.2.0/24 is public";
        assert!(warning.starts_with(expected), "{warning}");
        let [warning] = &warnings("allow = [\"::/0\"]\nopen = true")[..] else { panic!("one") };
        assert!(warning.contains("ring53.toml:4:8: open: everybody may ask"), "{warning}");
    }

    #[test]
    fn errors_name_the_place_and_the_remedy() {
        for (text, expected) in [
            ("allow = [\"0.0.0.0/0\"]", "ring53.toml:3:9: allow: an open resolver is a weapon"),
            ("allow = [\"::/0\"]", "write open = true if it is meant"),
            ("allow = [\"0.0.0.0/1\", \"128.0.0.0/1\"]", "write open = true if it is meant"),
            ("allow = [\"2000::/3\"]\nopen = false", "write open = true if it is meant"),
            ("open = true", "open: allow has neither 0.0.0.0/0 nor ::/0"),
            (
                "allow = [\"::1\", \"192.168.0.1/16\"]",
                "ring53.toml:3:17: allow: expected an address",
            ),
            ("allow = [\"key k.\"]", "allow: expected an address or prefix"),
            ("rd0 = \"chache\"", "rd0: expected \"refuse\" or \"cache\": did you mean \"cache\"?"),
            ("rebind_allow = [\"a..b\"]", "ring53.toml:3:17: rebind_allow: expected a label"),
            (
                "rebind_protection = false\nrebind_allow = [\"a.\"]",
                "rebind_allow: rebind_protection is false: there is nothing to except",
            ),
            ("special_names_except = [\"example.\"]", "example. is no special-use name"),
            (
                "special_names = false\nspecial_names_except = [\"test.\"]",
                "special_names is false: there is nothing to except",
            ),
            ("outstanding_max = 0", "outstanding_max: expected a number from 1 to 1048576"),
            ("ports = 16", "ports: expected a number from 256 to 32768"),
            ("source = [\"192.0.2.1:53\"]", "source: expected an address without a port"),
            ("source = [\"::\"]", "source: expected an address that this machine has"),
            ("source = [\"::1\", \"::1\"]", "ring53.toml:3:18: source: it is there twice"),
            ("timeout = \"1m\"", "timeout: expected a time from \"100ms\" to \"30s\""),
            ("alow = []", "unknown key \"alow\": did you mean \"allow\"?"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
        for table in ["[recursion]\n", "[cache]\n"] {
            let text = format!("version = 1\n{table}");
            let error = Config::parse("ring53.toml", &text, Path::new("")).expect_err(table);
            assert!(error.contains("there is no [[forward]] to answer: add one"), "{error}");
        }
    }
}
