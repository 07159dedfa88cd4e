//! The `[[forward]]` tables: which zones are asked for elsewhere, and where.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use crate::limits::UPSTREAMS_MAX;
use crate::policy::Prefix;
use crate::resolver::{Carrier, Upstream};
use crate::wire::Name;

use super::super::keys::{Item, Table};
use super::upstream;

//----------- Forward --------------------------------------------------------

/// A zone that is asked for elsewhere. Of several that a name is in, the longest is asked, and of a
/// forward and a zone that is served the longer one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The root: everything else.
    pub zone: Name,
    /// Who is asked; one or more.
    pub to: Vec<Upstream>,
    /// Whether letters of a question over UDP are written at random in upper and lower case, which
    /// an answer must repeat.
    pub case_randomization: bool,
    /// Whether AD of their answers is passed on: they validate, and nobody stands between.
    pub trust_ad: bool,
    /// Whether the next one is asked as well when one takes longer than it usually does.
    pub hedge: bool,
}

/// What forwards are checked against.
pub struct Around<'a> {
    /// Relative files lie here.
    pub directory: &'a Path,
    /// Where this server listens.
    pub listen: &'a [SocketAddr],
    /// Whether this is a zone that is served here.
    pub is_served: &'a dyn Fn(&Name) -> bool,
}

/// Reads all of them; what is wrong goes to the tables' errors.
pub fn read_all(tables: Vec<Table<'_>>, around: &Around<'_>) -> Vec<Forward> {
    let mut forwards: Vec<Forward> = Vec::new();
    for mut table in tables {
        if let Some(forward) = read(&mut table, around) {
            if forwards.iter().any(|before| before.zone == forward.zone) {
                let zone = &forward.zone;
                let message = format!("{zone} is forwarded twice: list all its servers in one to");
                table.error("zone", &message);
            }
            forwards.push(forward);
        }
        table.finish();
    }
    forwards
}

fn read(table: &mut Table<'_>, around: &Around<'_>) -> Option<Forward> {
    let zone = table.parsed::<Name>("zone", "a domain name such as corp.example. or \".\"");
    let items = table.items("to");
    let ca = authorities(table, around.directory);
    let case_randomization = table.boolean("case_randomization");
    let trust_ad = table.boolean("trust_ad").unwrap_or(false);
    let hedge = table.boolean("hedge").unwrap_or(true);
    table.require(&["zone", "to"]);
    if let Some(zone) = zone.as_ref().filter(|zone| (around.is_served)(zone)) {
        let message = format!("{zone} is a [[zone]] here and is answered from it: remove one");
        table.error("zone", &message);
    }
    let mut to = upstreams(table, items?, around, trust_ad);
    if ca.is_some() && to.iter().all(|upstream| !has_certificate(upstream)) {
        table.error("ca", "none of its servers has a certificate: remove it, or write tls://");
    }
    if case_randomization == Some(true) && to.iter().all(|it| it.carrier != Carrier::Udp) {
        table.error("case_randomization", "it is for UDP, which none of its servers is asked by");
    }
    for upstream in to.iter_mut().filter(|upstream| has_certificate(upstream)) {
        upstream.issuers.clone_from(&ca);
    }
    let case_randomization = case_randomization.unwrap_or(true);
    Some(Forward { zone: zone?, to, case_randomization, trust_ad, hedge })
}

fn has_certificate(upstream: &Upstream) -> bool {
    matches!(upstream.carrier, Carrier::Tls | Carrier::Https | Carrier::Quic)
}

fn upstreams(
    table: &Table<'_>,
    items: Vec<Item>,
    around: &Around<'_>,
    trust_ad: bool,
) -> Vec<Upstream> {
    if items.is_empty() || items.len() > UPSTREAMS_MAX {
        table.error("to", &format!("expected 1 to {UPSTREAMS_MAX} servers"));
    }
    let mut upstreams: Vec<Upstream> = Vec::new();
    for item in items {
        let upstream = match upstream::parse(&item.text) {
            Ok(upstream) => upstream,
            Err(message) => {
                table.error_of("to", &item, &message);
                continue;
            }
        };
        let address = upstream.address;
        if is_listener(around.listen, &[], address) {
            let message = format!(
                "{address} is this server, which would ask itself: write another address, or \
                 change listen"
            );
            table.error_of("to", &item, &message);
        }
        let is_it = |before: &Upstream| {
            (before.address, before.carrier) == (upstream.address, upstream.carrier)
                && (&before.server_name, &before.path) == (&upstream.server_name, &upstream.path)
        };
        if upstreams.iter().any(is_it) {
            table.error_of("to", &item, "it is there twice: remove one");
        }
        //= RFC 4035, 4.9.3
        //# A security-aware stub resolver MUST NOT place any reliance on signature validation
        //# allegedly performed on its behalf, except when the security-aware stub resolver obtained
        //# the data in question from a trusted security-aware recursive name server via a secure
        //# channel.
        let near = Prefix::around(address.ip(), u8::MAX).is_local();
        if trust_ad && !has_certificate(&upstream) && !near {
            let message = format!(
                "trust_ad believes whoever stands between here and {address}: ask it by tls://, or \
                 remove trust_ad"
            );
            table.warn("to", Some(&item), &message);
        }
        upstreams.push(upstream);
    }
    upstreams
}

/// Whether a server that listens on `listen`, on a machine with the addresses `own`, is reached at
/// `address`.
pub fn is_listener(listen: &[SocketAddr], own: &[IpAddr], address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    listen.iter().any(|listener| {
        let any = listener.ip().is_unspecified()
            && listener.is_ipv4() == ip.is_ipv4()
            && (ip.is_loopback() || own.contains(&ip));
        listener.port() == address.port() && (any || listener.ip().to_canonical() == ip)
    })
}

/// Certificates of authorities in PEM (RFC 7468); at least one.
fn authorities(table: &mut Table<'_>, directory: &Path) -> Option<Arc<[u8]>> {
    const BEGINS: &[u8] = b"-----BEGIN CERTIFICATE-----";
    let file = directory.join(table.string("ca")?);
    match fs::read(&file) {
        Ok(pem) if pem.windows(BEGINS.len()).any(|octets| octets == BEGINS) => {
            return Some(pem.into());
        }
        Ok(_) => {
            let message = format!("{}: expected certificates as PEM", file.display());
            table.error("ca", &message);
        }
        Err(error) => table.error("ca", &format!("{}: {error}", file.display())),
    }
    None
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::super::{Config, ZoneConfig};
    use super::*;

    fn parse_in(directory: &Path, tables: &str) -> Result<Config, String> {
        Config::parse("ring53.toml", &format!("version = 1\n{tables}\n"), directory)
    }

    fn parse(tables: &str) -> Result<Config, String> {
        parse_in(Path::new("/etc"), tables)
    }

    #[test]
    fn what_is_said_and_what_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let pem = "x\n-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
        fs::write(directory.path().join("ca.pem"), pem).unwrap();
        let config = parse_in(
            directory.path(),
            "[[forward]]\nzone = \".\"\nto = [\"192.0.2.1\"]\n\
             [[forward]]\nzone = \"corp.\"\nto = [\"tls://192.0.2.1#a\"]\nca = \"ca.pem\"\n\
             trust_ad = true\nhedge = false\ncase_randomization = false\n",
        )
        .unwrap();
        let [root, corp] = &config.forwards[..] else { panic!("two forwards") };
        assert!(root.case_randomization && root.hedge && !root.trust_ad);
        assert_eq!(root.to[0].issuers, None);
        assert!(corp.trust_ad && !corp.hedge && !corp.case_randomization);
        assert_eq!(corp.to[0].issuers.as_deref(), Some(pem.as_bytes()));
        assert_eq!(config.warnings, [""; 0]);
    }

    #[test]
    fn errors_name_the_place_and_the_remedy() {
        let many: Vec<String> = (1..18).map(|n| format!("\"192.0.2.{n}\"")).collect();
        let many = format!("[[forward]]\nzone = \".\"\nto = [{}]", many.join(", "));
        for (text, expected) in [
            ("[[forward]]\nto = [\"192.0.2.1\"]", "ring53.toml:2:1: the key \"zone\" is missing"),
            ("[[forward]]\nzone = \".\"", "ring53.toml:2:1: the key \"to\" is missing"),
            ("[[forward]]\nzone = \".\"\nto = []", "ring53.toml:4:6: to: expected 1 to 16 servers"),
            (&many, "to: expected 1 to 16 servers"),
            (
                "[[forward]]\nzone = \".\"\nto = [\"192.0.2.1\", \"dns.quad9.net\"]",
                "ring53.toml:4:20: to: expected an address, not the name \"dns.quad9.net\"",
            ),
            (
                "[[forward]]\nzone = \".\"\nto = [\"192.0.2.1\", \"192.0.2.1:53\"]",
                "ring53.toml:4:20: to: it is there twice",
            ),
            (
                "[[forward]]\nzone = \".\"\nto = [\"192.0.2.1\"]\n\
                 [[forward]]\nzone = \".\"\nto = [\"192.0.2.2\"]",
                "ring53.toml:6:8: zone: . is forwarded twice: list all its servers in one to",
            ),
            (
                "[[zone]]\nname = \"A.\"\nfile = \"a\"\n\
                 [[forward]]\nzone = \"a.\"\nto = [\"192.0.2.2\"]",
                "ring53.toml:6:8: zone: a. is a [[zone]] here and is answered from it: remove one",
            ),
            (
                "[server]\nlisten = [\"0.0.0.0:53\"]\n\
                 [[forward]]\nzone = \".\"\nto = [\"127.0.0.1\"]",
                "ring53.toml:6:7: to: 127.0.0.1:53 is this server, which would ask itself",
            ),
            (
                "[[forward]]\nzone = \".\"\nto = [\"192.0.2.1\"]\nca = \"none.pem\"",
                "ring53.toml:5:6: ca: /etc/none.pem: ",
            ),
            (
                "[[forward]]\nzone = \".\"\nto = [\"tcp://192.0.2.1\"]\ncase_randomization = true",
                "case_randomization: it is for UDP, which none of its servers is asked by",
            ),
            (
                "[[forward]]\nzone = \".\"\nto = [\"192.0.2.1\"]\ntrust_da = true",
                "unknown key \"trust_da\": did you mean \"trust_ad\"?",
            ),
            ("[forward]\nzone = \".\"", "forward: expected tables: [[forward]]"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn authorities_are_certificates_for_somebody() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("key.pem"), "-----BEGIN PRIVATE KEY-----\n").unwrap();
        let pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
        fs::write(directory.path().join("ca.pem"), pem).unwrap();
        for (to, ca, expected) in [
            ("tls://192.0.2.1#a", "key.pem", "expected certificates as PEM"),
            ("192.0.2.1", "ca.pem", "ca: none of its servers has a certificate"),
        ] {
            let text = format!("[[forward]]\nzone = \".\"\nto = [\"{to}\"]\nca = \"{ca}\"");
            let error = parse_in(directory.path(), &text).expect_err(ca);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn trust_needs_a_channel() {
        let warnings = |to: &str| {
            let text = format!("[[forward]]\nzone = \".\"\nto = [\"{to}\"]\ntrust_ad = true");
            parse(&text).unwrap().warnings
        };
        for quiet in ["tls://9.9.9.9#a", "127.0.0.1", "192.168.1.1"] {
            assert_eq!(warnings(quiet), [""; 0], "{quiet}");
        }
        let [warning] = &warnings("9.9.9.9")[..] else { panic!("one") };
        assert!(warning.contains("ring53.toml:4:7: to: trust_ad believes"), "{warning}");
    }

    #[test]
    fn what_the_command_line_adds_is_checked_too() {
        let text = "[[forward]]\nzone = \"a.\"\nto = [\"192.0.2.1\"]";
        let mut config = parse(text).unwrap();
        let own: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(config.check_forwards(&[own]), Ok(()), "another port");
        config.listen = vec!["0.0.0.0:53".parse().unwrap()];
        assert_eq!(config.check_forwards(&[]), Ok(()));
        let error = config.check_forwards(&[own]).unwrap_err();
        assert!(error.contains("asks 192.0.2.1:53, which is this server"), "{error}");
        config.listen = vec!["[::]:53".parse().unwrap()];
        assert_eq!(config.check_forwards(&[own]), Ok(()), "IPv6 alone");
        config.zones.push(ZoneConfig::new("A.".parse().unwrap(), None));
        assert!(config.check_forwards(&[]).unwrap_err().contains("a. is forwarded and is a zone"));
    }
}
