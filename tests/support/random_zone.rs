//! Random zones that meet in every corner: few labels, so that names fall on, above and below each
//! other; wildcards, empty non-terminals, aliases, cuts with and without DS; then signed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Random;

/// Labels as zone text writes them; the same in wire form comes of parsing.
const LABELS: &[&str] = &[
    "a",
    "b",
    "c",
    "x",
    "ns",
    "www",
    "aa",
    "a-b",
    "0",
    "z",
    "*",
    "*",
    "\\000",
    "\\255\\001",
    "_tcp",
    "A",
    "Zz",
    "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0",
];

/// How a zone is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signing {
    /// Not at all.
    None,
    /// With NSEC.
    Nsec,
    /// With NSEC3: iterations, octets of salt, opt-out.
    Nsec3(u64, usize, bool),
}

impl Signing {
    pub fn random(random: &mut Random) -> Signing {
        match random.below(10) {
            0 => Signing::None,
            1..=4 => Signing::Nsec,
            _ => Signing::Nsec3(
                [0, 0, 1, 5][random.below(4) as usize],
                random.below(9) as usize,
                random.below(3) == 0,
            ),
        }
    }
}

/// A zone of `apex`, unsigned, and the names in it.
pub struct RandomZone {
    pub apex: String,
    pub text: String,
    pub names: Vec<String>,
}

/// What a name is; one that is an alias or a cut is nothing else.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    Cname,
    Dname,
    Cut,
}

fn pick<'a, T>(random: &mut Random, from: &'a [T]) -> &'a T {
    &from[random.below(from.len() as u64) as usize]
}

impl RandomZone {
    pub fn new(random: &mut Random, apex: &str) -> RandomZone {
        let mut names: BTreeMap<Vec<&str>, Kind> = BTreeMap::new();
        for _ in 0..4 + random.below(30) {
            let mut name = match names.keys().nth(random.below(names.len() as u64 + 1) as usize) {
                Some(above) if random.below(2) == 0 => above.clone(),
                _ => Vec::new(),
            };
            for _ in 0..1 + random.below(3) {
                name.insert(0, *pick(random, LABELS));
            }
            let letters: usize = name.iter().map(|label| label.len() + 1).sum();
            if letters > 180 {
                continue;
            }
            let kind = match random.below(12) {
                0 | 1 => Kind::Cname,
                // RFC 4592, 4.2 and 4.4: what a wildcard's NS or DNAME means is left open.
                2 if name[0] != "*" => Kind::Dname,
                3..=5 if name[0] != "*" => Kind::Cut,
                _ => Kind::Data,
            };
            names.insert(name, kind);
        }
        // Letter case aside there is one of each.
        let mut seen = BTreeSet::new();
        names.retain(|name, _| {
            seen.insert(name.iter().map(|label| label.to_lowercase()).collect::<Vec<_>>())
        });
        let hidden = |name: &Vec<&str>, above: &Vec<&str>| {
            let lower = |labels: &[&str]| labels.join(".").to_lowercase();
            name.len() > above.len() && lower(&name[name.len() - above.len()..]) == lower(above)
        };
        let hiding: Vec<Vec<&str>> = names
            .iter()
            .filter(|(_, kind)| matches!(kind, Kind::Dname | Kind::Cut))
            .map(|(name, _)| name.clone())
            .collect();
        names.retain(|name, _| !hiding.iter().any(|above| hidden(name, above)));
        RandomZone::write(random, apex, &names)
    }

    fn write(random: &mut Random, apex: &str, names: &BTreeMap<Vec<&str>, Kind>) -> RandomZone {
        let absolute = |name: &Vec<&str>| format!("{}.{apex}", name.join("."));
        let all: Vec<String> = names.keys().map(absolute).collect();
        let mut text = format!(
            "$ORIGIN {apex}\n$TTL 300\n@ SOA ns host 1 3600 900 604800 {}\n@ NS ns.in\n\
             @ NS ns.elsewhere.example.\nns.in A 192.0.2.1\n",
            [60, 300, 900][random.below(3) as usize]
        );
        if random.below(3) == 0 {
            text += "@ MX 10 ns.in\n@ TXT \"apex\"\n";
        }
        for (name, kind) in names {
            let owner = name.join(".");
            let target = match random.below(6) {
                0 => "www.elsewhere.example.".to_string(),
                1 => format!("{}.{}", pick(random, LABELS), pick(random, &all)),
                _ => pick(random, &all).clone(),
            };
            match kind {
                Kind::Cname => writeln!(text, "{owner} CNAME {target}").unwrap(),
                Kind::Dname => {
                    writeln!(text, "{owner} DNAME {target}").unwrap();
                    if random.below(2) == 0 {
                        writeln!(text, "{owner} A 192.0.2.2").unwrap();
                    }
                }
                Kind::Cut => cut(random, &owner, &target, &mut text),
                Kind::Data => data(random, &owner, &target, &mut text),
            }
        }
        RandomZone { apex: apex.to_string(), text, names: all }
    }

    /// Names in and around the zone.
    pub fn asked(&self, random: &mut Random, count: usize) -> Vec<String> {
        (0..count)
            .map(|_| {
                let name = match random.below(8) {
                    0 => self.apex.clone(),
                    1 => format!("ns.in.{}", self.apex),
                    _ => pick(random, &self.names).clone(),
                };
                match random.below(8) {
                    0..=2 => name,
                    // A parent: often an empty non-terminal.
                    3 => match name.split_once('.') {
                        Some((_, parent)) if parent.ends_with(&self.apex) => parent.to_string(),
                        _ => name,
                    },
                    4 | 5 => format!("{}.{name}", pick(random, LABELS)),
                    6 => format!("{}.{}.{name}", pick(random, LABELS), pick(random, LABELS)),
                    _ => format!("n{}.{}", random.below(1000), self.apex),
                }
            })
            .collect()
    }

    /// Writes the zone into `directory`, signed; the file.
    pub fn signed(&self, random: &mut Random, directory: &Path, signing: Signing) -> PathBuf {
        let algorithms = ["ECDSAP256SHA256", "ECDSAP256SHA256", "ED25519", "RSASHA256"];
        let salt = match signing {
            Signing::Nsec3(_, len, _) if len > 0 => {
                (0..len).map(|_| format!("{:02x}", random.below(256))).collect()
            }
            _ => "-".to_string(),
        };
        let algorithm: &&str = pick(random, &algorithms);
        sign(self, directory, signing, algorithm, &salt)
    }

    /// The file with the DS of the zone, once it is signed.
    pub fn anchor(&self, directory: &Path) -> PathBuf {
        directory.join(format!("{}ds", self.apex))
    }
}

/// Writes `zone` into `directory`, signed with a key of `algorithm`; the file.
pub fn sign(
    zone: &RandomZone,
    directory: &Path,
    signing: Signing,
    algorithm: &str,
    salt: &str,
) -> PathBuf {
    let plain = directory.join(format!("{}zone", zone.apex));
    fs::write(&plain, &zone.text).unwrap();
    if signing == Signing::None {
        return plain;
    }
    let keys = tempfile::tempdir().unwrap();
    let mut keygen = Command::new("dnssec-keygen");
    keygen.args(["-q", "-f", "KSK", "-a", algorithm, "-K"]).arg(keys.path());
    if algorithm == "RSASHA256" {
        keygen.args(["-b", "1024"]);
    }
    run(keygen.arg(&zone.apex));
    let mut signer = Command::new("dnssec-signzone");
    signer.args(["-q", "-S", "-z", "-P", "-K"]).arg(keys.path()).args(["-o", &zone.apex]);
    if let Signing::Nsec3(iterations, _, opt_out) = signing {
        signer.args(["-3", salt, "-H", &iterations.to_string()]);
        if opt_out {
            signer.arg("-A");
        }
    }
    let signed = directory.join(format!("{}signed", zone.apex));
    // It leaves a file of DS records where it runs.
    run(signer.arg("-f").arg(&signed).arg(&plain).current_dir(keys.path()));
    let anchor = keys.path().join(format!("dsset-{}", zone.apex));
    fs::copy(anchor, zone.anchor(directory)).unwrap();
    signed
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

fn cut(random: &mut Random, owner: &str, target: &str, text: &mut String) {
    for i in 0..1 + random.below(3) {
        match random.below(3) {
            0 => writeln!(text, "{owner} NS ns{i}.elsewhere.example.").unwrap(),
            1 => writeln!(text, "{owner} NS {target}").unwrap(),
            _ => {
                writeln!(text, "{owner} NS ns{i}.{owner}\nns{i}.{owner} A 192.0.2.{i}").unwrap();
                if random.below(2) == 0 {
                    writeln!(text, "ns{i}.{owner} AAAA 2001:db8::{i}").unwrap();
                }
            }
        }
    }
    for i in 0..random.below(3) {
        writeln!(
            text,
            "{owner} DS 1234{i} 13 2 \
             0102030405060708090A0B0C0D0E0F10111213141516171819202122232425FF"
        )
        .unwrap();
    }
}

fn data(random: &mut Random, owner: &str, target: &str, text: &mut String) {
    for i in 0..1 + random.below(3) {
        match random.below(7) {
            0..=2 => writeln!(text, "{owner} A 192.0.2.1{i}").unwrap(),
            3 => writeln!(text, "{owner} AAAA 2001:db8::1{i}").unwrap(),
            4 => writeln!(text, "{owner} MX {i} {target}").unwrap(),
            5 => {
                let long = "x".repeat(random.below(250) as usize);
                writeln!(text, "{owner} TXT \"{i}{long}\"").unwrap();
            }
            _ => writeln!(text, "{owner} SRV 0 {i} 53 {target}").unwrap(),
        }
    }
}
