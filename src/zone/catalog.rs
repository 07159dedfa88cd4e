//! Catalog zones (RFC 9432): what one lists, and one made of a list. Nothing is done about it here.
//!
//! ```text
//!   version.CATALOG              TXT  "2"
//!   LABEL.zones.CATALOG          PTR  member.example.
//!   group.LABEL.zones.CATALOG    TXT  "its group"                (any number)
//!   coo.LABEL.zones.CATALOG      PTR  catalog.of.its.new.owner.
//! ```
//!
//! Other names and types are properties that nobody here knows: they are left alone (RFC 9432,
//! 4.4).

use std::collections::HashMap;
use std::fmt;

use ring::digest::{SHA256, digest};

use crate::wire::{LowerName, Name, rtype};

use super::intake::{BadRdata, Intake};
use super::records::expand;
use super::{LoadOptions, Node, Zone};

/// The version that is known.
const VERSION: &[u8] = b"2";
const ZONES: &[u8] = b"\x05zones";
const VERSION_OWNER: &[u8] = b"\x07version";
const GROUP: &[u8] = b"\x05group";
const COO: &[u8] = b"\x03coo";
/// Octets of a label that is made here, in hexadecimal digits.
const LABEL_LEN: usize = 32;
/// Octets that the longest owner adds to the catalog's name.
pub const OWNER_LEN_MAX: usize = GROUP.len() + 1 + LABEL_LEN + ZONES.len();

//----------- Member ---------------------------------------------------------

/// A zone that a catalog lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: Name,
    /// What it is called in the catalog, in lower case. Another label means: begin anew.
    pub label: Box<[u8]>,
    /// Values of its group property, in order.
    pub groups: Box<[Box<str>]>,
    /// The catalog that may take it over.
    pub coo: Option<Name>,
}

/// Why a zone is no catalog. Its last good version goes on (RFC 9432, 5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// No TXT record at `version`, or more than one.
    VersionCount(usize),
    /// A version that is not known.
    Version(String),
    /// So many PTR records for the member with this label.
    Pointers(String, usize),
    /// So many PTR records that say who takes over the member with this label.
    Owners(String, usize),
    /// A zone with two labels.
    Twice(Name),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::VersionCount(0) => f.write_str("it has no version: expected version TXT \"2\""),
            Broken::VersionCount(count) => write!(f, "it has {count} versions: expected one"),
            Broken::Version(version) => {
                write!(f, "its version is \"{version}\": only \"2\" is known")
            }
            Broken::Pointers(label, count) => {
                write!(f, "{label}.zones has {count} PTR records: expected one")
            }
            Broken::Owners(label, count) => {
                write!(f, "coo.{label}.zones has {count} PTR records: expected one")
            }
            Broken::Twice(name) => write!(f, "it lists {name} twice: expected one label"),
        }
    }
}

//----------- Reading --------------------------------------------------------

#[derive(Default)]
struct Properties {
    pointers: Vec<Name>,
    groups: Vec<Box<str>>,
    owners: Vec<Name>,
}

/// What `zone` lists, ordered by label.
pub fn read(zone: &Zone) -> Result<Vec<Member>, Broken> {
    let mut versions = Vec::new();
    let mut members: HashMap<Box<[u8]>, Properties> = HashMap::new();
    for node in zone.nodes() {
        let owner = node.owner();
        if owner == VERSION_OWNER {
            versions = texts(zone, node);
            continue;
        }
        let Some(path) = owner.strip_suffix(ZONES) else { continue };
        let Some((first, rest)) = split(path) else { continue };
        match split(rest) {
            None => {
                let pointers = pointers(zone, node);
                if !pointers.is_empty() {
                    members.entry(first[1..].into()).or_default().pointers = pointers;
                }
            }
            Some((label, [])) if first == GROUP => {
                let mut groups = texts(zone, node);
                groups.sort_unstable();
                members.entry(label[1..].into()).or_default().groups = groups;
            }
            Some((label, [])) if first == COO => {
                members.entry(label[1..].into()).or_default().owners = pointers(zone, node);
            }
            Some(_) => {}
        }
    }
    //= RFC 9432, 4.2.1
    //# Catalog consumers MUST NOT apply catalog zone processing to:
    //# zones without the version property, zones with a version property with more than one RR
    let [version] = &versions[..] else { return Err(Broken::VersionCount(versions.len())) };
    if version.as_bytes() != VERSION {
        return Err(Broken::Version(version.to_string()));
    }
    settle(members)
}

fn settle(members: HashMap<Box<[u8]>, Properties>) -> Result<Vec<Member>, Broken> {
    let mut all = Vec::with_capacity(members.len());
    let mut members: Vec<_> = members.into_iter().collect();
    members.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    for (label, mut properties) in members {
        let shown = || shown(&label);
        let name = match properties.pointers.len() {
            0 => continue,
            1 => properties.pointers.remove(0),
            count => return Err(Broken::Pointers(shown(), count)),
        };
        if properties.owners.len() > 1 {
            return Err(Broken::Owners(shown(), properties.owners.len()));
        }
        let (groups, coo) = (properties.groups.into(), properties.owners.pop());
        all.push(Member { name, label, groups, coo });
    }
    let mut names: Vec<Vec<u8>> =
        all.iter().map(|member| member.name.as_wire().to_ascii_lowercase()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Broken::Twice(Name::from_wire(&pair[0]).expect("a name"))),
        None => Ok(all),
    }
}

/// A label as text.
pub fn shown(label: &[u8]) -> String {
    let wire = [&[label.len() as u8], label, &[0]].concat();
    let name = Name::from_wire(&wire).map(|name| name.to_string());
    name.map_or_else(|_| "?".into(), |name| name.trim_end_matches('.').to_string())
}

/// The first label of a path, with its length, and the rest.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    path.split_at_checked(1 + usize::from(*path.first()?))
}

/// TXT records that are one text each.
fn texts(zone: &Zone, node: Node<'_>) -> Vec<Box<str>> {
    let Some(rrset) = node.rrset(rtype::TXT) else { return Vec::new() };
    let one = |rdata: &[u8]| match rdata.split_first() {
        Some((&len, text)) if usize::from(len) == text.len() => {
            String::from_utf8_lossy(text).into_owned().into()
        }
        _ => Box::from("?"),
    };
    let records = expand(rrset, &zone.name_of(node));
    records.into_iter().map(|record| one(&record.rdata)).collect()
}

fn pointers(zone: &Zone, node: Node<'_>) -> Vec<Name> {
    let Some(rrset) = node.rrset(rtype::PTR) else { return Vec::new() };
    let records = expand(rrset, &zone.name_of(node)).into_iter();
    records.filter_map(|record| Name::from_wire(&record.rdata).ok()).collect()
}

//----------- Making ---------------------------------------------------------

/// The label of a zone in catalogs that are made here: always the same, so that nobody begins a
/// zone anew because a state was lost.
pub fn label_of(name: &Name) -> [u8; LABEL_LEN] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digest = digest(&SHA256, &name.as_wire().to_ascii_lowercase());
    let mut label = [0; LABEL_LEN];
    for (digits, octet) in label.chunks_exact_mut(2).zip(digest.as_ref()) {
        digits[0] = DIGITS[usize::from(octet >> 4)];
        digits[1] = DIGITS[usize::from(octet & 15)];
    }
    label
}

/// The numbers of the SOA after its serial: refresh, retry, expire (hardly ever: members should
/// not depend on it), minimum.
const TIMERS: [u32; 4] = [3600, 600, i32::MAX as u32 - 1, 0];

/// The catalog `apex` of these zones, each with its group. Its records have TTL 0 and its name
/// server is `invalid.` (RFC 9432, 4.1).
pub fn make<'m>(
    apex: &Name,
    serial: u32,
    members: impl Iterator<Item = (&'m Name, Option<&'m str>)>,
    options: &LoadOptions,
) -> Result<Intake, BadRdata> {
    const INVALID: &[u8] = b"\x07invalid\0";
    let mut lower_apex = LowerName::new();
    lower_apex.read(apex.as_wire()).ok_or(BadRdata)?;
    let mut intake = Intake::new(apex, options);
    let mut soa = [INVALID, INVALID].concat();
    soa.extend_from_slice(&serial.to_be_bytes());
    soa.extend(TIMERS.iter().flat_map(|number| number.to_be_bytes()));
    intake.record(apex.as_wire(), rtype::SOA, 0, &soa)?;
    intake.record(apex.as_wire(), rtype::NS, 0, INVALID)?;
    let mut owner = LowerName::new();
    owner.join(VERSION_OWNER, lower_apex.as_wire()).ok_or(BadRdata)?;
    intake.record(owner.as_wire(), rtype::TXT, 0, &text(VERSION))?;
    for (name, group) in members {
        let node = [&[LABEL_LEN as u8], &label_of(name)[..], ZONES].concat();
        owner.join(&node, lower_apex.as_wire()).ok_or(BadRdata)?;
        intake.record(owner.as_wire(), rtype::PTR, 0, name.as_wire())?;
        if let Some(group) = group {
            owner.join(&[GROUP, &node].concat(), lower_apex.as_wire()).ok_or(BadRdata)?;
            intake.record(owner.as_wire(), rtype::TXT, 0, &text(group.as_bytes()))?;
        }
    }
    Ok(intake)
}

/// One character-string.
fn text(octets: &[u8]) -> Vec<u8> {
    [&[octets.len() as u8], octets].concat()
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zone::{Given, HashKey, load};

    fn options() -> LoadOptions {
        LoadOptions::new(HashKey::new(*b"a secret of test"), 1)
    }

    fn catalog(records: &str) -> Result<Vec<Member>, Broken> {
        let text = format!("$TTL 0\n@ SOA invalid. invalid. 1 2 3 4 5\n@ NS invalid.\n{records}");
        let apex = "catalog.example.".parse().unwrap();
        read(&load(&apex, "text", &Given(text), &options()).zone.unwrap())
    }

    #[test]
    fn what_is_listed() {
        let members = catalog(
            "version TXT \"2\"\nB.zones PTR b.example.\na.zones PTR A.test.\n\
             group.a.zones TXT \"two\"\ngroup.a.zones TXT one\ncoo.b.zones PTR other.\n\
             c.a.zones PTR deeper.\nx.ext.a.zones TXT y\nzones PTR no.\ngroup.lost.zones TXT z\n\
             ext TXT custom\n",
        )
        .unwrap();
        let told: Vec<String> = members
            .iter()
            .map(|member| {
                let label = shown(&member.label);
                let coo = member.coo.as_ref().map(ToString::to_string).unwrap_or_default();
                format!("{label} {} {:?} {coo}", member.name, member.groups)
            })
            .collect();
        assert_eq!(told, ["a A.test. [\"one\", \"two\"] ", "b b.example. [] other."]);
    }

    #[test]
    fn what_is_broken() {
        let good = "version TXT 2\na.zones PTR a.\n";
        for (records, expected) in [
            ("a.zones PTR a.\n", "it has no version"),
            ("version TXT 2\nversion TXT 1\n", "it has 2 versions"),
            ("version TXT 1\n", "its version is \"1\""),
            ("version TXT 2 \"\"\n", "its version is \"?\""),
            ("version A 192.0.2.2\n", "it has no version"),
            (&format!("{good}a.zones PTR b.\n"), "a.zones has 2 PTR records"),
            (&format!("{good}b.zones PTR A.\n"), "it lists a. twice"),
            (&format!("{good}coo.a.zones PTR b.\ncoo.a.zones PTR c.\n"), "coo.a.zones has 2 PTR"),
        ] {
            let broken = catalog(records).expect_err(records).to_string();
            assert!(broken.contains(expected), "{records} gave {broken}");
        }
        assert_eq!(catalog(good).unwrap().len(), 1);
    }

    #[test]
    fn what_is_made_is_read() {
        let apex: Name = "catalog.example.".parse().unwrap();
        let names: Vec<Name> = ["a.example.", ".", "B.example."].map(|n| n.parse().unwrap()).into();
        let members = names.iter().zip([None, Some("root"), None]);
        let intake = make(&apex, 7, members, &options()).unwrap();
        let zone = intake.finish("made here", &options()).zone.unwrap();
        assert_eq!((zone.serial(), zone.record_count()), (7, 7));
        let read = read(&zone).unwrap();
        assert_eq!(read.len(), names.len());
        for member in read {
            assert_eq!(*member.label, label_of(&member.name));
            let group = member.groups.first().map(|group| &**group);
            assert_eq!(group, (member.name == Name::root()).then_some("root"));
        }
        assert_eq!(label_of(&names[2]), label_of(&"b.EXAMPLE.".parse().unwrap()));
    }
}
