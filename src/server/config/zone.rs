//! The `[[zone]]` and `[[pattern]]` tables: what is served, from where, and who else may have it.
//!
//! ```text
//!   [[zone]] ──what it does not say──> [[pattern]] ──what it does not say──> the defaults
//!   a catalog's member ──────────────────^
//! ```

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::limits::{
    CATALOG_GROUP_LEN_MAX, NAME_LEN_MAX, NSEC3_ITERATIONS_DEFAULT, NSEC3_ITERATIONS_MAX,
    TRANSFER_OCTETS_DEFAULT,
};
use crate::policy::{Access, AccessList, Grant, GrantError, Grants, Remote, Rules};
use crate::tsig::Keys;
use crate::wire::Name;
use crate::zone::catalog::OWNER_LEN_MAX;

use super::super::keys::Table;
use crate::server::zones::candidate::{Check, TIMEOUT_DEFAULT};
use crate::server::zones::state;

//----------- ZoneConfig -----------------------------------------------------

/// One zone to serve. Zones of one pattern share their settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneConfig {
    /// Its name.
    pub name: Name,
    /// Everything else.
    pub settings: Arc<Settings>,
}

impl Deref for ZoneConfig {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        &self.settings
    }
}

/// What is configured for a zone but its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its file, in which `%s` stands for the zone's name; `None` is the sample zone in the binary,
    /// or a zone of other servers, or one that is made here.
    file: Option<PathBuf>,
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
    /// What it says of other zones.
    pub catalog: Option<Catalog>,
    /// The catalog made here that lists it.
    pub member_of: Option<Name>,
    /// The group it has there.
    pub group: Option<String>,
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

/// A catalog zone (RFC 9432).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Catalog {
    /// Its members are served: with `pattern`, or with that of their group.
    Consumed { pattern: Arc<Settings>, groups: BTreeMap<String, Arc<Settings>> },
    /// It is made here, of the zones that are configured as its members.
    Produced,
}

const UPDATE_WITHOUT_FILE: &str =
    "only a zone from a file is changed here: send updates to its primaries";

impl Settings {
    fn new(file: Option<PathBuf>) -> Settings {
        Settings {
            file,
            dnssec: Dnssec::Serve,
            zonemd: false,
            nsec3_iterations_max: NSEC3_ITERATIONS_DEFAULT,
            primaries: Vec::new(),
            transfer_size_max: TRANSFER_OCTETS_DEFAULT,
            notify: Vec::new(),
            notify_servers: false,
            rules: Arc::default(),
            catalog: None,
            member_of: None,
            group: None,
            check: None,
        }
    }

    /// Whether it comes from a file.
    pub fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// Whether it comes from other servers.
    pub fn is_secondary(&self) -> bool {
        !self.primaries.is_empty()
    }

    /// Whether it is a catalog that is made here.
    pub fn is_produced(&self) -> bool {
        self.catalog == Some(Catalog::Produced)
    }

    /// Whether it is a catalog whose members are served.
    pub fn is_consumed(&self) -> bool {
        matches!(self.catalog, Some(Catalog::Consumed { .. }))
    }
}

impl ZoneConfig {
    /// A zone with the defaults.
    pub fn new(name: Name, file: Option<PathBuf>) -> ZoneConfig {
        ZoneConfig { name, settings: Arc::new(Settings::new(file)) }
    }

    /// The zone that is served when nothing is configured.
    pub fn sample() -> ZoneConfig {
        ZoneConfig::new("example.".parse().expect("a name"), None)
    }

    /// Its file.
    pub fn file(&self) -> Option<PathBuf> {
        const PLACE: &str = "%s";
        let file = self.settings.file.as_ref()?;
        let text = file.to_str().filter(|text| text.contains(PLACE));
        let of_name = |text: &str| text.replace(PLACE, &state::file_name(&self.name)).into();
        Some(text.map_or_else(|| file.clone(), of_name))
    }

    /// Whether a zone loaded under `other` is what it would be under this.
    pub fn loads_as(&self, other: &ZoneConfig) -> bool {
        let (a, b) = (self, other);
        (&a.name, &a.settings.file, a.dnssec, a.zonemd)
            == (&b.name, &b.settings.file, b.dnssec, b.zonemd)
            && a.nsec3_iterations_max == b.nsec3_iterations_max
            && a.is_secondary() == b.is_secondary()
            && a.is_produced() == b.is_produced()
            && a.check == b.check
    }

    /// Reads one table; `None` if it cannot be.
    pub fn read(zone: &mut Table<'_>, place: &Place<'_>) -> Option<ZoneConfig> {
        let name = zone.parsed::<Name>("name", "a domain name such as example.org.");
        let pattern = place.patterns.named(zone, "pattern");
        let given = Given::read(zone, place.keys);
        let catalog = catalog(zone, place.patterns);
        zone.require(&["name"]);
        let whole = match pattern {
            Some((_, pattern)) => given.or(pattern),
            None => given,
        };
        let mut settings = whole.settle(place.directory);
        settings.catalog = catalog;
        match (&settings.file, settings.is_secondary(), settings.is_produced()) {
            (None, false, false) if !zone.has("primaries") => zone.require(&["file"]),
            (None, false, false) => {
                zone.error("primaries", "expected at least one server, or a file");
            }
            (Some(_), _, true) | (_, true, true) => zone.error(
                "catalog",
                "a catalog that is made here has neither a file nor primaries: remove them, or \
                 produce",
            ),
            _ => {}
        }
        if !settings.rules.update.is_empty() {
            if !settings.has_file() {
                zone.error("allow_update", UPDATE_WITHOUT_FILE);
            } else if settings.is_consumed() {
                zone.error(
                    "allow_update",
                    "a catalog that is followed is not changed by updates: change its file",
                );
            }
        }
        let len = name.as_ref().map_or(0, |name| name.as_wire().len());
        if settings.is_produced() && len + OWNER_LEN_MAX > NAME_LEN_MAX {
            let max = NAME_LEN_MAX - OWNER_LEN_MAX;
            zone.error(
                "name",
                &format!("the name of a catalog made here has at most {max} octets"),
            );
        }
        let comes = settings.has_file() || settings.is_secondary() || settings.is_produced();
        name.filter(|_| comes).map(|name| ZoneConfig { name, settings: Arc::new(settings) })
    }
}

//----------- Patterns -------------------------------------------------------

/// What a table stands in.
pub struct Place<'a> {
    /// Relative files lie here.
    pub directory: &'a Path,
    /// All keys.
    pub keys: &'a Keys,
    /// All patterns.
    pub patterns: &'a Patterns,
}

/// The `[[pattern]]` tables, by name.
#[derive(Default)]
pub struct Patterns(BTreeMap<String, (Arc<Settings>, Given)>);

impl Patterns {
    /// Reads all of them; what is wrong goes to the tables' errors.
    pub fn read(tables: Vec<Table<'_>>, directory: &Path, keys: &Keys) -> Patterns {
        let mut patterns = Patterns::default();
        for mut table in tables {
            let name = table.string("name");
            let given = Given::read(&mut table, keys);
            table.require(&["name"]);
            let settings = Arc::new(given.clone().settle(directory));
            if let Some(name) = name
                && patterns.0.insert(name, (settings, given)).is_some()
            {
                table.error("name", "another pattern has this name: remove one");
            }
            table.finish();
        }
        patterns
    }

    /// The settings of all of them.
    pub fn settings(&self) -> impl Iterator<Item = &Settings> {
        self.0.values().map(|(settings, _)| &**settings)
    }

    /// The pattern that `key` of `table` names.
    fn named(&self, table: &mut Table<'_>, key: &'static str) -> Option<(&Arc<Settings>, &Given)> {
        let name = table.string(key)?;
        self.find(table, key, &name)
    }

    fn find(
        &self,
        table: &Table<'_>,
        key: &'static str,
        name: &str,
    ) -> Option<(&Arc<Settings>, &Given)> {
        let found = self.0.get(name).map(|(settings, given)| (settings, given));
        if found.is_none() {
            let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
            table.unknown(key, "[[pattern]]", name, &known);
        }
        found
    }

    /// The pattern that members of a catalog have.
    fn of_members(
        &self,
        table: &Table<'_>,
        key: &'static str,
        name: &str,
    ) -> Option<Arc<Settings>> {
        let (settings, _) = self.find(table, key, name)?;
        if !settings.has_file() && !settings.is_secondary() {
            let message = format!("the pattern \"{name}\" has neither primaries nor a file");
            table.error(key, &message);
        } else if !settings.has_file() && !settings.rules.update.is_empty() {
            let message = format!("the pattern \"{name}\" has allow_update: {UPDATE_WITHOUT_FILE}");
            table.error(key, &message);
        }
        Some(Arc::clone(settings))
    }
}

/// What a zone says of other zones.
fn catalog(zone: &mut Table<'_>, patterns: &Patterns) -> Option<Catalog> {
    let mut table = zone.table("catalog")?;
    let pattern = table.string("pattern");
    let pattern = pattern.and_then(|name| patterns.of_members(&table, "pattern", &name));
    let groups =
        table.words("groups").unwrap_or_default().into_iter().filter_map(|(group, name)| {
            Some((group, patterns.of_members(&table, "groups", &name)?))
        });
    let groups: BTreeMap<_, _> = groups.collect();
    let produced = table.boolean("produce") == Some(true);
    if produced && (table.has("pattern") || table.has("groups")) {
        table.error("produce", "a catalog is made here or followed: remove produce or pattern");
    } else if !produced {
        table.require(&["pattern"]);
    }
    table.finish();
    if produced {
        return Some(Catalog::Produced);
    }
    Some(Catalog::Consumed { pattern: pattern?, groups })
}

//----------- Given ----------------------------------------------------------

/// What one table says; what it does not say is `None`.
#[derive(Clone, Default)]
struct Given {
    file: Option<String>,
    primaries: Option<Vec<Remote>>,
    dnssec: Option<Dnssec>,
    zonemd: Option<bool>,
    nsec3_iterations_max: Option<u16>,
    transfer_size_max: Option<u64>,
    notify: Option<Vec<Remote>>,
    notify_servers: Option<bool>,
    allow_transfer: Option<AccessList>,
    allow_notify: Option<AccessList>,
    allow_update: Option<Grants>,
    member_of: Option<Name>,
    group: Option<String>,
    check: Option<(Vec<String>, Duration)>,
}

impl Given {
    fn read(table: &mut Table<'_>, keys: &Keys) -> Given {
        let given = Given {
            file: table.string("file"),
            primaries: remotes(table, "primaries", keys),
            dnssec: table.choice("dnssec", &[("serve", Dnssec::Serve), ("strict", Dnssec::Strict)]),
            zonemd: table.choice("zonemd", &[("ignore", false), ("verify", true)]),
            nsec3_iterations_max: table
                .integer("nsec3_iterations_max", 0, NSEC3_ITERATIONS_MAX)
                .map(|max| max as u16),
            transfer_size_max: table
                .size("transfer_size_max", 1 << 10, 1 << 40)
                .map(|size| size as u64),
            notify: remotes(table, "notify", keys),
            notify_servers: table.boolean("notify_servers"),
            allow_transfer: access(table, "allow_transfer", keys),
            allow_notify: access(table, "allow_notify", keys),
            allow_update: grants(table, keys),
            member_of: table.parsed("catalog_member", "the name of a catalog that is made here"),
            group: table.text("catalog_group", CATALOG_GROUP_LEN_MAX),
            check: check(table),
        };
        if given.file.is_some() && given.primaries.as_ref().is_some_and(|list| !list.is_empty()) {
            table.error(
                "file",
                "a zone comes from its file or from its primaries, not from both: remove one",
            );
        }
        given
    }

    /// With what `pattern` says of the rest. Where the zone comes from is one thing, not two.
    fn or(self, pattern: &Given) -> Given {
        let pattern = pattern.clone();
        let comes = self.file.is_some() || self.primaries.is_some();
        let (file, primaries) =
            if comes { (self.file, self.primaries) } else { (pattern.file, pattern.primaries) };
        Given {
            file,
            primaries,
            dnssec: self.dnssec.or(pattern.dnssec),
            zonemd: self.zonemd.or(pattern.zonemd),
            nsec3_iterations_max: self.nsec3_iterations_max.or(pattern.nsec3_iterations_max),
            transfer_size_max: self.transfer_size_max.or(pattern.transfer_size_max),
            notify: self.notify.or(pattern.notify),
            notify_servers: self.notify_servers.or(pattern.notify_servers),
            allow_transfer: self.allow_transfer.or(pattern.allow_transfer),
            allow_notify: self.allow_notify.or(pattern.allow_notify),
            allow_update: self.allow_update.or(pattern.allow_update),
            member_of: self.member_of.or(pattern.member_of),
            group: self.group.or(pattern.group),
            check: self.check.or(pattern.check),
        }
    }

    /// With the defaults for what nobody says.
    fn settle(self, directory: &Path) -> Settings {
        let mut settings = Settings::new(self.file.map(|file| directory.join(file)));
        let primaries = self.primaries.unwrap_or_default();
        let from_primaries = || {
            let of = |remote: &Remote| Access::of(remote.address.ip(), remote.key.clone());
            AccessList::new(primaries.iter().map(of).collect())
        };
        let notify = self.allow_notify.unwrap_or_else(from_primaries);
        let transfer = self.allow_transfer.unwrap_or_default();
        let update = self.allow_update.unwrap_or_default();
        settings.rules = Arc::new(Rules { transfer, notify, update });
        settings.dnssec = self.dnssec.unwrap_or(settings.dnssec);
        settings.zonemd = self.zonemd.unwrap_or(settings.zonemd);
        settings.nsec3_iterations_max =
            self.nsec3_iterations_max.unwrap_or(settings.nsec3_iterations_max);
        settings.transfer_size_max = self.transfer_size_max.unwrap_or(settings.transfer_size_max);
        settings.notify = self.notify.unwrap_or_default();
        settings.notify_servers = self.notify_servers.unwrap_or(false);
        settings.primaries = primaries;
        settings.member_of = self.member_of;
        settings.group = self.group;
        settings.check = self.check.map(|(mut command, timeout)| {
            // A name alone is looked for in PATH.
            if command[0].contains('/') {
                command[0] = directory.join(&command[0]).to_string_lossy().into_owned();
            }
            Arc::new(Check::new(command, timeout))
        });
        settings
    }
}

/// The command that is asked before a version is served, and how long it may take.
fn check(table: &mut Table<'_>) -> Option<(Vec<String>, Duration)> {
    let command = table.list::<String>("check_command", "a text in quotes");
    let timeout = table.duration("check_timeout");
    let Some(command) = command else {
        if timeout.is_some() {
            table.error("check_timeout", "there is no check_command: add one, or remove it");
        }
        return None;
    };
    if command.first().is_none_or(String::is_empty) {
        table.error("check_command", "expected a program, such as [\"validns\", \"{file}\"]");
        return None;
    }
    Some((command, timeout.unwrap_or(TIMEOUT_DEFAULT)))
}

fn remotes(table: &mut Table<'_>, key: &'static str, keys: &Keys) -> Option<Vec<Remote>> {
    let expected = "an address, with a port and \"key\" and the name of a key if wanted, such as \
                    \"192.0.2.1:53 key xfr.example.\"";
    let remotes = table.list::<Remote>(key, expected)?;
    for name in remotes.iter().filter_map(|remote| remote.key.as_ref()) {
        known(table, key, name, keys);
    }
    Some(remotes)
}

fn access(table: &mut Table<'_>, key: &'static str, keys: &Keys) -> Option<AccessList> {
    let list = table.list::<Access>(key, &crate::policy::AccessError.to_string())?;
    for name in list.iter().filter_map(Access::key) {
        known(table, key, name, keys);
    }
    Some(AccessList::new(list))
}

fn grants(table: &mut Table<'_>, keys: &Keys) -> Option<Grants> {
    let list = table.list::<Grant>("allow_update", &GrantError.to_string())?;
    for name in list.iter().filter_map(Grant::key) {
        known(table, "allow_update", name, keys);
    }
    Some(Grants::new(list))
}

fn known(table: &Table<'_>, key: &'static str, name: &Name, keys: &Keys) {
    if keys.named(name).is_none() {
        table.error(key, &format!("no [[key]] is named {name}: add it, or correct the name"));
    }
}
