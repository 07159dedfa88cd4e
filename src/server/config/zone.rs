//! The `[[zone]]` tables: what is served, from where, and who else may have it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::limits::{NSEC3_ITERATIONS_DEFAULT, NSEC3_ITERATIONS_MAX, TRANSFER_OCTETS_DEFAULT};
use crate::policy::{Access, AccessList, Remote, Rules};
use crate::tsig::Keys;
use crate::wire::Name;

use super::super::candidate::{Check, TIMEOUT_DEFAULT};
use super::super::keys::Table;

/// One zone to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneConfig {
    /// Its name.
    pub name: Name,
    /// Its file; `None` is the sample zone in the binary, or a zone of other servers.
    pub file: Option<PathBuf>,
    /// Whether a zone whose signatures a validator would refuse is served.
    pub dnssec: Dnssec,
    /// Whether a zone is served only if its ZONEMD (RFC 8976) is there and right.
    pub zonemd: bool,
    /// A zone with more NSEC3 iterations is not served: each question would cost so many hashes.
    pub nsec3_iterations_max: u16,
    /// The servers it comes from, in the order they are tried; none: it comes from its file.
    pub primaries: Vec<Remote>,
    /// Octets that a transfer of it may have.
    pub transfer_size_max: u64,
    /// Who is told when it changes.
    pub notify: Vec<Remote>,
    /// Whether its name servers are told too, as far as their addresses are served here.
    pub notify_servers: bool,
    /// Who may have it.
    pub rules: Arc<Rules>,
    /// Whom to ask before a new version is served.
    pub check: Option<Arc<Check>>,
}

/// What becomes of a zone with faults in its signatures or proofs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dnssec {
    /// It is served as it is.
    Serve,
    /// It is not: the last good version goes on.
    Strict,
}

impl ZoneConfig {
    /// A zone with the defaults.
    pub fn new(name: Name, file: Option<PathBuf>) -> ZoneConfig {
        ZoneConfig {
            name,
            file,
            dnssec: Dnssec::Serve,
            zonemd: false,
            nsec3_iterations_max: NSEC3_ITERATIONS_DEFAULT,
            primaries: Vec::new(),
            transfer_size_max: TRANSFER_OCTETS_DEFAULT,
            notify: Vec::new(),
            notify_servers: false,
            rules: Arc::default(),
            check: None,
        }
    }

    /// The zone that is served when nothing is configured.
    pub fn sample() -> ZoneConfig {
        ZoneConfig::new("example.".parse().expect("a name"), None)
    }

    /// Whether a zone loaded under `other` is what it would be under this.
    pub fn loads_as(&self, other: &ZoneConfig) -> bool {
        let (a, b) = (self, other);
        (&a.name, &a.file, a.dnssec, a.zonemd) == (&b.name, &b.file, b.dnssec, b.zonemd)
            && a.nsec3_iterations_max == b.nsec3_iterations_max
            && a.primaries.is_empty() == b.primaries.is_empty()
            && a.check == b.check
    }

    /// Reads one table; `None` if it cannot be.
    pub fn read(zone: &mut Table<'_>, directory: &Path, keys: &Keys) -> Option<ZoneConfig> {
        let name = zone.parsed::<Name>("name", "a domain name such as example.org.");
        let file = zone.string("file");
        let primaries = remotes(zone, "primaries", keys);
        zone.require(&["name"]);
        match (&file, primaries.is_empty()) {
            (None, true) if !zone.has("primaries") => zone.require(&["file"]),
            (None, true) => zone.error("primaries", "expected at least one server, or a file"),
            (Some(_), false) => zone.error(
                "file",
                "a zone comes from its file or from its primaries, not from both: remove one",
            ),
            _ => {}
        }
        let mut config = ZoneConfig::new(name?, file.as_ref().map(|file| directory.join(file)));
        config.more(zone, keys, primaries);
        config.check = check(zone, directory).map(Arc::new);
        (config.file.is_some() || !config.primaries.is_empty()).then_some(config)
    }

    fn more(&mut self, zone: &mut Table<'_>, keys: &Keys, primaries: Vec<Remote>) {
        let dnssec = [("serve", Dnssec::Serve), ("strict", Dnssec::Strict)];
        self.dnssec = zone.choice("dnssec", &dnssec).unwrap_or(self.dnssec);
        self.zonemd = zone.choice("zonemd", &[("ignore", false), ("verify", true)]) == Some(true);
        if let Some(max) = zone.integer("nsec3_iterations_max", 0, NSEC3_ITERATIONS_MAX) {
            self.nsec3_iterations_max = max as u16;
        }
        if let Some(size) = zone.size("transfer_size_max", 1 << 10, 1 << 40) {
            self.transfer_size_max = size as u64;
        }
        self.notify_servers = zone.boolean("notify_servers").unwrap_or(false);
        self.notify = remotes(zone, "notify", keys);
        let transfer = access(zone, "allow_transfer", keys).unwrap_or_default();
        let from_primaries = || {
            let of = |remote: &Remote| Access::of(remote.address.ip(), remote.key.clone());
            AccessList::new(primaries.iter().map(of).collect())
        };
        let notify = access(zone, "allow_notify", keys).unwrap_or_else(from_primaries);
        self.rules = Arc::new(Rules { transfer, notify });
        self.primaries = primaries;
    }
}

fn check(zone: &mut Table<'_>, directory: &Path) -> Option<Check> {
    let command = zone.list::<String>("check_command", "a text in quotes");
    let timeout = zone.duration("check_timeout");
    let Some(mut command) = command else {
        if timeout.is_some() {
            zone.error("check_timeout", "there is no check_command: add one, or remove it");
        }
        return None;
    };
    match command.first_mut().filter(|program| !program.is_empty()) {
        // A name alone is looked for in PATH.
        Some(program) if program.contains('/') => {
            *program = directory.join(&*program).to_string_lossy().into_owned();
        }
        Some(_) => {}
        None => {
            zone.error("check_command", "expected a program, such as [\"validns\", \"{file}\"]");
            return None;
        }
    }
    Some(Check::new(command, timeout.unwrap_or(TIMEOUT_DEFAULT)))
}

fn remotes(zone: &mut Table<'_>, key: &'static str, keys: &Keys) -> Vec<Remote> {
    let expected = "an address, with a port and \"key\" and the name of a key if wanted, such as \
                    \"192.0.2.1:53 key xfr.example.\"";
    let remotes = zone.list::<Remote>(key, expected).unwrap_or_default();
    for name in remotes.iter().filter_map(|remote| remote.key.as_ref()) {
        known(zone, key, name, keys);
    }
    remotes
}

fn access(zone: &mut Table<'_>, key: &'static str, keys: &Keys) -> Option<AccessList> {
    let list = zone.list::<Access>(key, &crate::policy::AccessError.to_string())?;
    for name in list.iter().filter_map(Access::key) {
        known(zone, key, name, keys);
    }
    Some(AccessList::new(list))
}

fn known(zone: &Table<'_>, key: &'static str, name: &Name, keys: &Keys) {
    if keys.named(name).is_none() {
        zone.error(key, &format!("no [[key]] is named {name}: add it, or correct the name"));
    }
}
