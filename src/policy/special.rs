//! Special-use names, as ordinary zones: what a resolver answers itself, since the internet has no
//! answer, or must not be asked.
//!
//! | names | what they are | where it is said |
//! | --- | --- | --- |
//! | `localhost.` and below | 127.0.0.1 and ::1 | RFC 6761, 6.3 |
//! | `invalid.`, `test.` | nothing | RFC 6761, 6.4 and 6.2 |
//! | `onion.` | nothing: these names are Tor's | RFC 7686, 2 |
//! | `home.arpa.` | nothing: the home's own server has it | RFC 8375, 4 |
//! | `service.arpa.` | nothing: the site's own server has it | RFC 9665 |
//! | `resolver.arpa.` | no designated resolver: `_dns` has no SVCB | RFC 9462 |
//! | reverse zones of no public address | nothing, or `localhost.` | RFC 6303, 4; RFC 7793 |
//!
//! `example.` is none of them (RFC 6761, 6.5: resolvers do not treat it specially), nor is
//! `local.`, which many networks have in their own servers.
//!
//! What is configured at or above one of these names, the root not counted, replaces it, be it a
//! zone or a forward: who forwards `168.192.in-addr.arpa.` or `in-addr.arpa.` means all of it.
//! (Unbound and BIND do the same.) What is configured *below* one stands beside it, and has the
//! longer name.

use crate::wire::Name;

//----------- Special --------------------------------------------------------

/// What a zone holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// SOA and NS, so that it is there and everything else is not.
    Empty,
    /// Loopback, at the apex and below.
    Localhost,
    /// The names of 127.0.0.1.
    Loopback4,
    /// The name of ::1, which is the apex.
    Loopback6,
    /// `_dns` without SVCB.
    Resolver,
}

/// RFC 6303, 3: how an empty zone looks. It is nobody's, so that its mail address leads nowhere.
const EMPTY: &str = "\
$TTL 10800
@ SOA @ nobody.invalid. 1 3600 1200 604800 10800
@ NS @
";

impl Content {
    fn records(self) -> &'static str {
        match self {
            Content::Empty => "",
            Content::Localhost => "@ A 127.0.0.1\n@ AAAA ::1\n* A 127.0.0.1\n* AAAA ::1\n",
            Content::Loopback4 => "1.0.0 PTR localhost.\n",
            Content::Loopback6 => "@ PTR localhost.\n",
            Content::Resolver => "_dns TXT \"no encrypted resolver is designated\"\n",
        }
    }
}

/// A special-use name as a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Special {
    /// Its apex.
    pub name: Name,
    /// Who says that it is special.
    pub rfc: &'static str,
    content: Content,
}

impl Special {
    /// The zone as text.
    pub fn text(&self) -> String {
        [EMPTY, self.content.records()].concat()
    }
}

/// Names alone.
const FORWARD: [(&str, &str, Content); 7] = [
    ("localhost.", "RFC 6761, 6.3", Content::Localhost),
    ("invalid.", "RFC 6761, 6.4", Content::Empty),
    ("test.", "RFC 6761, 6.2", Content::Empty),
    ("onion.", "RFC 7686, 2", Content::Empty),
    ("home.arpa.", "RFC 8375, 4", Content::Empty),
    ("service.arpa.", "RFC 9665", Content::Empty),
    ("resolver.arpa.", "RFC 9462", Content::Resolver),
];

/// Below `in-addr.arpa.`; 16 to 31 below `172` and 64 to 127 below `100` are counted.
const REVERSE_V4: [(&str, &str, Content); 9] = [
    ("10", "RFC 6303, 4.1", Content::Empty),
    ("168.192", "RFC 6303, 4.1", Content::Empty),
    ("0", "RFC 6303, 4.2", Content::Empty),
    ("127", "RFC 6303, 4.2", Content::Loopback4),
    ("254.169", "RFC 6303, 4.2", Content::Empty),
    ("2.0.192", "RFC 6303, 4.2", Content::Empty),
    ("100.51.198", "RFC 6303, 4.2", Content::Empty),
    ("113.0.203", "RFC 6303, 4.2", Content::Empty),
    ("255.255.255.255", "RFC 6303, 4.2", Content::Empty),
];

/// Below `ip6.arpa.`; those of `::` and `::1` are counted.
const REVERSE_V6: [(&str, &str); 6] = [
    ("d.f", "RFC 6303, 4.4"),
    ("8.e.f", "RFC 6303, 4.5"),
    ("9.e.f", "RFC 6303, 4.5"),
    ("a.e.f", "RFC 6303, 4.5"),
    ("b.e.f", "RFC 6303, 4.5"),
    ("8.b.d.0.1.0.0.2", "RFC 6303, 4.6"),
];

/// All of them.
pub fn all() -> Vec<Special> {
    let special = |text: &str, rfc, content| {
        let name = text.parse().expect("the tables have names");
        Special { name, rfc, content }
    };
    let mut all = Vec::with_capacity(128);
    all.extend(FORWARD.map(|(name, rfc, content)| special(name, rfc, content)));
    let v4 = |labels: &str, rfc, content| special(&format!("{labels}.in-addr.arpa."), rfc, content);
    all.extend(REVERSE_V4.map(|(labels, rfc, content)| v4(labels, rfc, content)));
    all.extend((16..32).map(|n| v4(&format!("{n}.172"), "RFC 6303, 4.1", Content::Empty)));
    all.extend((64..128).map(|n| v4(&format!("{n}.100"), "RFC 7793", Content::Empty)));
    let v6 = |labels: &str, rfc, content| special(&format!("{labels}.ip6.arpa."), rfc, content);
    let zeros = "0.".repeat(31);
    all.push(v6(&format!("{zeros}0"), "RFC 6303, 4.3", Content::Empty));
    all.push(v6(
        &format!("1.{}", zeros.trim_end_matches('.')),
        "RFC 6303, 4.3",
        Content::Loopback6,
    ));
    all.extend(REVERSE_V6.map(|(labels, rfc)| v6(labels, rfc, Content::Empty)));
    all
}

/// Those that are answered here: not those at or below a name of `except`, nor those at or below
/// what is `configured`, zones and forwards alike, unless that is the root.
pub fn special_zones(except: &[Name], configured: &[Name]) -> Vec<Special> {
    let mut left = all();
    left.retain(|special| {
        let covers = |name: &Name| is_at_or_below(&special.name, name);
        let replaced = |name: &Name| name.label_count() > 0 && covers(name);
        !except.iter().any(covers) && !configured.iter().any(replaced)
    });
    left
}

/// Whether `except` leaves out some of them; one that leaves out none is a mistake.
pub fn excepts_some(except: &Name) -> bool {
    all().iter().any(|special| is_at_or_below(&special.name, except))
}

fn is_at_or_below(name: &Name, apex: &Name) -> bool {
    let (count, depth) = (name.label_count(), apex.label_count());
    count >= depth
        && name
            .labels()
            .skip(count - depth)
            .zip(apex.labels())
            .all(|(label, other)| label.eq_ignore_ascii_case(other))
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn names(texts: &[&str]) -> Vec<Name> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn left(except: &[&str], configured: &[&str]) -> HashSet<Name> {
        let zones = special_zones(&names(except), &names(configured));
        zones.into_iter().map(|special| special.name).collect()
    }

    #[test]
    fn the_tables_of_the_rfcs() {
        let all = all();
        let names: HashSet<&Name> = all.iter().map(|special| &special.name).collect();
        assert_eq!(names.len(), all.len(), "none twice");
        let count = |rfc: &str| all.iter().filter(|special| special.rfc.starts_with(rfc)).count();
        assert_eq!(count("RFC 6303, 4.1"), 18);
        assert_eq!(count("RFC 6303, 4.2"), 7);
        let rest = ["4.3", "4.4", "4.5", "4.6"].map(|part| count(&format!("RFC 6303, {part}")));
        assert_eq!(rest, [2, 1, 4, 1]);
        assert_eq!(count("RFC 7793"), 64);
        assert_eq!(all.len(), 33 + 64 + 7);
        for name in [
            "16.172.in-addr.arpa.",
            "31.172.in-addr.arpa.",
            "64.100.in-addr.arpa.",
            "127.100.in-addr.arpa.",
            "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa.",
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa.",
            "8.B.D.0.1.0.0.2.ip6.arpa.",
        ] {
            assert!(names.contains(&name.parse::<Name>().unwrap()), "{name}");
        }
        for name in [
            "example.",
            "local.",
            "15.172.in-addr.arpa.",
            "32.172.in-addr.arpa.",
            "63.100.in-addr.arpa.",
            "128.100.in-addr.arpa.",
            "c.e.f.ip6.arpa.",
            "use-application-dns.net.",
        ] {
            assert!(!names.contains(&name.parse::<Name>().unwrap()), "{name}");
        }
    }

    #[test]
    fn what_is_configured_replaces_them() {
        let all = left(&[], &[]).len();
        assert_eq!(left(&[], &["."]).len(), all, "the root is above everything");
        assert_eq!(left(&[], &["example.", "corp.test.", "1.10.in-addr.arpa."]).len(), all);
        assert_eq!(left(&[], &["TEST."]).len(), all - 1);
        assert_eq!(left(&[], &["172.in-addr.arpa.", "arp."]).len(), all - 16);
        assert_eq!(left(&[], &["arpa."]).len(), 4);
        assert_eq!(left(&["100.in-addr.arpa.", "onion."], &["onion."]).len(), all - 65);
        assert!(left(&["."], &[]).is_empty());
        let excepts = |text: &str| excepts_some(&text.parse().unwrap());
        assert!(excepts("Test.") && excepts("100.in-addr.arpa."));
        assert!(!excepts("example.") && !excepts("corp.test.") && !excepts("0.in-addr.arp."));
    }
}
