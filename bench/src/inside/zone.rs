//! The zone that is counted: fixed names, unsigned or signed with NSEC or NSEC3.
//!
//! ```text
//!   example.          SOA NS            h<n>          A (every fourth AAAA too)
//!   ns1               A                 d<n>          NS ns1.d<n>, with glue
//!   *.w               TXT               m<n>          MX h<n>
//! ```
//!
//! Its signatures are octets of a fixed sequence: nobody checks them, and making them anew would
//! make other octets. The proofs are right.

use ring53::wire::Name;
use ring53::zone::nsec3::Params;

use crate::zones::queries::Random;

/// Host names.
pub const HOSTS: u64 = 2000;
/// Delegations, and mail domains.
pub const DELEGATIONS: u64 = 200;

/// How the zone is signed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Signing {
    /// Not.
    Unsigned,
    /// With NSEC.
    Nsec,
    /// With NSEC3: no iterations, no salt, no opt-out (RFC 9276).
    Nsec3,
}

/// An RRset: type, and the text of each record.
type Rrset = (&'static str, Vec<String>);

/// The zone as text, one record a line.
pub fn text(signing: Signing) -> String {
    let mut names = plain();
    if signing != Signing::Unsigned {
        let key = "257 3 13 ".to_string() + &base64(64, &mut Random::new(1));
        names[0].1.push(("DNSKEY", vec![key]));
    }
    let mut text = String::new();
    let mut random = Random::new(2);
    if signing == Signing::Nsec3 {
        names[0].1.push(("NSEC3PARAM", vec!["1 0 0 -".into()]));
    }
    for (name, rrsets) in &names {
        for (rtype, records) in rrsets {
            for record in records {
                text += &format!("{name} 3600 IN {rtype} {record}\n");
            }
            if signing != Signing::Unsigned && is_signed(name, rtype) {
                text += &signature(name, rtype, 3600, &mut random);
            }
        }
    }
    match signing {
        Signing::Unsigned => {}
        Signing::Nsec => nsec(&mut names, &mut text, &mut random),
        Signing::Nsec3 => nsec3(&names, &mut text, &mut random),
    }
    text
}

fn plain() -> Vec<(String, Vec<Rrset>)> {
    let soa = "ns1.example. hostmaster.example. 1 3600 900 604800 300";
    let mut names = vec![
        (
            "example.".into(),
            vec![("SOA", vec![soa.to_string()]), ("NS", vec!["ns1.example.".into()])],
        ),
        ("ns1.example.".into(), vec![("A", vec!["192.0.2.53".into()])]),
        ("*.w.example.".into(), vec![("TXT", vec!["\"expanded\"".into()])]),
        ("w.example.".into(), vec![]),
    ];
    for n in 0..HOSTS {
        let mut rrsets = vec![("A", vec![format!("10.0.{}.{}", n / 256, n % 256)])];
        if n % 4 == 0 {
            rrsets.push(("AAAA", vec![format!("2001:db8::{n:x}")]));
        }
        names.push((format!("h{n}.example."), rrsets));
    }
    for n in 0..DELEGATIONS {
        let (name, host) = (format!("d{n}.example."), format!("ns1.d{n}.example."));
        names.push((name, vec![("NS", vec![host.clone(), "ns1.example.".into()])]));
        names.push((host, vec![("A", vec![format!("10.1.0.{n}")])]));
        let mail = vec![format!("10 h{n}.example."), format!("20 h{}.example.", n + 1)];
        names.push((format!("m{n}.example."), vec![("MX", mail)]));
    }
    names
}

/// A name below a cut has no signature, and a cut none over its NS.
fn is_signed(name: &str, rtype: &str) -> bool {
    !is_glue(name) && (!is_cut(name) || rtype != "NS")
}

fn is_cut(name: &str) -> bool {
    name.starts_with('d')
}

fn is_glue(name: &str) -> bool {
    name.starts_with("ns1.d")
}

fn signature(name: &str, rtype: &str, ttl: u32, random: &mut Random) -> String {
    // An asterisk is no label that counts (RFC 4034, 3.1.3).
    let labels = name.split('.').filter(|label| !label.is_empty() && *label != "*").count();
    let octets = base64(64, random);
    format!(
        "{name} {ttl} IN RRSIG {rtype} 13 {labels} {ttl} 20380101000000 20200101000000 12345 \
         example. {octets}\n"
    )
}

/// So many octets, in base64.
fn base64(len: usize, random: &mut Random) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for _ in 0..len / 3 * 4 {
        text.push(char::from(DIGITS[random.below(64) as usize]));
    }
    text + match len % 3 {
        0 => "",
        1 => "QQ==",
        _ => "QQQ=",
    }
}

//----------- Denial ---------------------------------------------------------

/// The types at a name, as a bit map has them.
fn types(name: &str, rrsets: &[Rrset], of_chain: &[&str]) -> String {
    let mut types: Vec<&str> = rrsets.iter().map(|(rtype, _)| *rtype).collect();
    if !is_cut(name) && !rrsets.is_empty() {
        types.push("RRSIG");
    }
    types.extend(of_chain);
    types.sort_unstable();
    types.dedup();
    types.join(" ")
}

fn nsec(names: &mut [(String, Vec<Rrset>)], text: &mut String, random: &mut Random) {
    // Canonical order (RFC 4034, 6.1): label by label from the root.
    let reversed = |name: &str| name.split('.').rev().map(String::from).collect::<Vec<_>>();
    names.sort_by_key(|(name, _)| reversed(name));
    let chain: Vec<_> =
        names.iter().filter(|(name, rrsets)| !is_glue(name) && !rrsets.is_empty()).collect();
    for (index, (name, rrsets)) in chain.iter().enumerate() {
        let (next, _) = chain[(index + 1) % chain.len()];
        let types = types(name, rrsets, &["NSEC", "RRSIG"]);
        *text += &format!("{name} 300 IN NSEC {next} {types}\n");
        *text += &signature(name, "NSEC", 300, random);
    }
}

fn nsec3(names: &[(String, Vec<Rrset>)], text: &mut String, random: &mut Random) {
    let params = Params::default();
    let label = |name: &str| {
        let name: Name = name.parse().expect("a name of this file");
        params.hash(name.as_wire()).label().map(char::from).iter().collect::<String>()
    };
    let mut chain: Vec<(String, String)> = names
        .iter()
        .filter(|(name, _)| !is_glue(name))
        .map(|(name, rrsets)| (label(name), types(name, rrsets, &[])))
        .collect();
    chain.sort();
    for (index, (hash, types)) in chain.iter().enumerate() {
        let (next, _) = &chain[(index + 1) % chain.len()];
        let owner = format!("{hash}.example.");
        *text += &format!("{owner} 300 IN NSEC3 1 0 0 - {next} {types}\n");
        *text += &signature(&owner, "NSEC3", 300, random);
    }
}
