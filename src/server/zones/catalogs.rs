//! Which zones are served because a catalog lists them (RFC 9432, 5), and which catalog owns each.
//!
//! ```text
//!   catalog, new version ──read──> members ──┬─ new ────────────> added
//!          └─ broken: nothing changes        ├─ another label ──> removed, and added anew
//!                                            ├─ another group ──> configured anew
//!                                            ├─ of another ─────> its coo names this one? migrated
//!                                            └─ not there now ──> removed, with its state
//! ```
//!
//! A member whose name is taken, by the configuration or by another catalog, is ignored with a
//! warning until the name is free.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::wire::Name;
use crate::zone::Zone;
use crate::zone::catalog::{self, Member};

use super::members;
use crate::server::config::{Catalog, Config, Settings, ZoneConfig};
use crate::server::report::say;

/// Members that are named in the log when something is wrong with them.
const LOGGED_MAX: usize = 20;

//----------- Catalogs -------------------------------------------------------

/// All catalogs that are followed, and the zones they own.
#[derive(Default)]
pub struct Catalogs {
    followed: Vec<Followed>,
    owned: HashMap<Name, Owned>,
}

/// One catalog.
struct Followed {
    name: Arc<Name>,
    settings: Arc<Settings>,
    /// Members whose name is taken.
    refused: HashMap<Name, Member>,
    /// Why its present version is none.
    broken: Option<String>,
    /// Good versions so far.
    round: u32,
}

/// A zone that is served because a catalog lists it.
struct Owned {
    catalog: Arc<Name>,
    label: Box<[u8]>,
    groups: Box<[Box<str>]>,
    coo: Option<Name>,
    /// The last round of its catalog that listed it.
    round: u32,
}

/// What is to be done.
#[derive(Default)]
pub struct Step {
    /// Zones that go, and what is kept of them on disk.
    pub removed: Vec<Name>,
    /// Zones that come, after others have gone.
    pub added: Vec<ZoneConfig>,
    /// Zones that are configured otherwise now.
    pub changed: Vec<ZoneConfig>,
    /// What is to be remembered of each catalog ([`members`]).
    pub lines: Vec<(Name, String)>,
    /// The same, of zones from files: before an update of them is acknowledged.
    pub lines_of_files: Vec<(Name, String)>,
}

impl Step {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty() && self.changed.is_empty()
    }

    fn remember(&mut self, catalog: &Name, line: &str, has_file: bool) {
        let all = if has_file { &mut self.lines_of_files } else { &mut self.lines };
        match all.iter_mut().find(|(name, _)| name == catalog) {
            Some((_, lines)) => lines.push_str(line),
            None => all.push((catalog.clone(), line.into())),
        }
    }
}

/// What there is to say of a catalog.
pub struct Told {
    /// Zones that it owns.
    pub members: usize,
    /// Members that are ignored because their names are taken.
    pub refused: Vec<Name>,
    /// Why its present version is none.
    pub broken: Option<String>,
}

impl Followed {
    fn new(zone: &ZoneConfig) -> Followed {
        Followed {
            name: Arc::new(zone.name.clone()),
            settings: Arc::clone(&zone.settings),
            refused: HashMap::new(),
            broken: None,
            round: 0,
        }
    }

    /// The configuration of a member: of the first of its groups that has a pattern.
    fn configure(&self, name: &Name, of: &[Box<str>]) -> ZoneConfig {
        let Some(Catalog::Consumed { pattern, groups }) = &self.settings.catalog else {
            unreachable!("only such catalogs are followed")
        };
        let settings = of.iter().find_map(|group| groups.get(&**group)).unwrap_or(pattern);
        ZoneConfig { name: name.clone(), settings: Arc::clone(settings) }
    }
}

impl Catalogs {
    /// As they were when they were followed last.
    pub fn of(config: &Config) -> Catalogs {
        let mut catalogs = Catalogs::default();
        catalogs.configure(config, &config.state);
        catalogs
    }

    /// One zone that a catalog owns.
    pub fn member(&self, name: &Name) -> Option<ZoneConfig> {
        let owned = self.owned.get(name)?;
        Some(self.followed(&owned.catalog)?.configure(name, &owned.groups))
    }

    /// Follows the catalogs of `config`: those that are new as they were when they were followed
    /// last, as `state` tells.
    pub fn configure(&mut self, config: &Config, state: &Path) {
        let mut before = std::mem::take(&mut self.followed);
        for zone in config.zones.iter().filter(|zone| zone.is_consumed()) {
            let known = before.iter().position(|followed| *followed.name == zone.name);
            if let Some(at) = known {
                let mut followed = before.swap_remove(at);
                followed.settings = Arc::clone(&zone.settings);
                self.followed.push(followed);
                continue;
            }
            let followed = Followed::new(zone);
            for (name, (label, groups)) in members::read(state, &zone.name) {
                let (catalog, coo) = (Arc::clone(&followed.name), None);
                let owned = Owned { catalog, label, groups, coo, round: 0 };
                self.owned.entry(name).or_insert(owned);
            }
            self.followed.push(followed);
        }
        for gone in before {
            let count = self.owned.len();
            self.owned.retain(|_, owned| owned.catalog != gone.name);
            say!(
                "catalog {}: it is not configured any more: its {} members are not served; what is \
                 kept of them stays for its return",
                gone.name,
                count - self.owned.len()
            );
        }
    }

    /// Gives up the zones that the configuration has itself.
    pub fn yield_to(&mut self, config: &Config) -> Step {
        let mut step = Step::default();
        for zone in &config.zones {
            let Some(owned) = self.owned.remove(&zone.name) else { continue };
            say!(
                "catalog {}: its member {} is configured by itself now, which has precedence",
                owned.catalog,
                zone.name
            );
            let has_file = self.has_file(&zone.name, &owned);
            step.remember(&owned.catalog, &members::gone(&zone.name), has_file);
            if let Some(followed) = self.followed_mut(&owned.catalog) {
                let Owned { label, groups, coo, .. } = owned;
                let member = Member { name: zone.name.clone(), label, groups, coo };
                followed.refused.insert(zone.name.clone(), member);
            }
        }
        step
    }

    /// The zones that catalogs own, as they are configured now.
    pub fn members(&self) -> Vec<ZoneConfig> {
        let configure = |(name, owned): (&Name, &Owned)| {
            Some(self.followed(&owned.catalog)?.configure(name, &owned.groups))
        };
        self.owned.iter().filter_map(configure).collect()
    }

    /// The catalog that owns a zone.
    pub fn owner(&self, name: &Name) -> Option<&Name> {
        self.owned.get(name).map(|owned| &*owned.catalog)
    }

    /// What there is to say of the catalog `name`.
    pub fn tell(&self, name: &Name) -> Option<Told> {
        let followed = self.followed(name)?;
        let mut refused: Vec<Name> = followed.refused.keys().cloned().collect();
        refused.sort_by_key(ToString::to_string);
        let members = self.owned.values().filter(|owned| *owned.catalog == *name).count();
        Some(Told { members, refused, broken: followed.broken.clone() })
    }

    fn has_file(&self, name: &Name, owned: &Owned) -> bool {
        let followed = self.followed(&owned.catalog);
        followed.is_some_and(|followed| followed.configure(name, &owned.groups).has_file())
    }

    fn followed(&self, name: &Name) -> Option<&Followed> {
        self.followed.iter().find(|followed| *followed.name == *name)
    }

    fn followed_mut(&mut self, name: &Name) -> Option<&mut Followed> {
        self.followed.iter_mut().find(|followed| *followed.name == *name)
    }
}

//----------- Following ------------------------------------------------------

impl Catalogs {
    /// Finds out what the version `zone` of the catalog `name` changes.
    pub fn apply(
        &mut self,
        name: &Name,
        zone: &Zone,
        is_configured: &dyn Fn(&Name) -> bool,
    ) -> Step {
        let Some(at) = self.followed.iter().position(|followed| *followed.name == *name) else {
            return Step::default();
        };
        let members = match catalog::read(zone) {
            Ok(members) => members,
            //= RFC 9432, 5.1
            //# Member zones previously configured by this catalog MUST NOT be
            //# removed or reconfigured in any way.
            Err(broken) => {
                let serial = zone.serial();
                say!("catalog {name}: serial {serial}: {broken}: its members stay as they are");
                self.followed[at].broken = Some(format!("serial {serial}: {broken}"));
                return Step::default();
            }
        };
        let followed = &mut self.followed[at];
        followed.broken = None;
        followed.round += 1;
        let refused_before = std::mem::take(&mut followed.refused);
        let mut step = Step::default();
        for member in members {
            if let Some((member, by)) = self.take_member(at, member, is_configured, &mut step) {
                let refused = &mut self.followed[at].refused;
                if !refused_before.contains_key(&member.name) && refused.len() < LOGGED_MAX {
                    say!(
                        "catalog {name}: {} is ignored: {by} has a zone of that name",
                        member.name
                    );
                }
                refused.insert(member.name.clone(), member);
            }
        }
        if let Some(more) = self.followed[at].refused.len().checked_sub(LOGGED_MAX + 1) {
            say!("catalog {name}: and {} more are ignored: see ring53 zone status", more + 1);
        }
        self.hand_over(at, is_configured, &mut step);
        self.remove_others(at, is_configured, &mut step);
        let words = [(step.added.len(), "come"), (step.removed.len(), "go")];
        let changed = (step.changed.len(), "are configured otherwise");
        let words: Vec<String> = words
            .into_iter()
            .chain([changed])
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if !words.is_empty() {
            say!("catalog {name}: serial {}: of its members {}", zone.serial(), words.join(", "));
        }
        step
    }

    /// Takes one member; gives it back, with who has its name, if it is taken.
    fn take_member(
        &mut self,
        at: usize,
        member: Member,
        is_configured: &dyn Fn(&Name) -> bool,
        step: &mut Step,
    ) -> Option<(Member, String)> {
        let followed = &self.followed[at];
        let (round, catalog) = (followed.round, Arc::clone(&followed.name));
        let Some(owned) = self.owned.get_mut(&member.name) else {
            if is_configured(&member.name) {
                return Some((member, "the configuration".into()));
            }
            self.add(at, member, step);
            return None;
        };
        let name = &member.name;
        let is_migration = owned.catalog != catalog;
        //= RFC 9432, 4.3.1
        //# Before the actual migration, the consumer MUST verify that the
        //# "coo" property pointing to $NEWCATZ is still present in $OLDCATZ.
        if is_migration {
            if owned.coo.as_ref() != Some(&*catalog) {
                let by = format!("the catalog {}", owned.catalog);
                return Some((member, by));
            }
            say!("catalog {catalog}: {name} comes over from {}", owned.catalog);
            let owner = self.followed.iter().find(|followed| followed.name == owned.catalog);
            let had_file = owner.is_some_and(|it| it.configure(name, &owned.groups).has_file());
            step.remember(&owned.catalog, &members::gone(name), had_file);
        }
        //= RFC 9432, 5.4
        //# catalog consumers MUST process this as a member zone removal,
        //# including the removal of all the zone's associated state
        if owned.label != member.label {
            step.removed.push(name.clone());
            self.add(at, member, step);
            return None;
        }
        owned.round = round;
        owned.coo.clone_from(&member.coo);
        if is_migration || owned.groups != member.groups {
            let config = followed.configure(name, &member.groups);
            let line = members::there(name, &member.label, &member.groups);
            step.remember(&catalog, &line, config.has_file());
            step.changed.push(config);
        }
        owned.groups = member.groups;
        owned.catalog = catalog;
        None
    }

    fn add(&mut self, at: usize, member: Member, step: &mut Step) {
        let followed = &self.followed[at];
        let Member { name, label, groups, coo } = member;
        let config = followed.configure(&name, &groups);
        step.remember(&followed.name, &members::there(&name, &label, &groups), config.has_file());
        step.added.push(config);
        let (catalog, round) = (Arc::clone(&followed.name), followed.round);
        self.owned.insert(name, Owned { catalog, label, groups, coo, round });
    }

    /// Gives away what the catalog agrees to give to another one that lists it already: that one
    /// may say it long before or just once.
    fn hand_over(&mut self, at: usize, is_configured: &dyn Fn(&Name) -> bool, step: &mut Step) {
        let (round, catalog) = (self.followed[at].round, Arc::clone(&self.followed[at].name));
        let is_there = |owned: &&Owned| owned.catalog == catalog && owned.round == round;
        let agreed = self.owned.iter().filter_map(|(name, owned)| {
            let heir = Some(owned).filter(is_there)?.coo.as_ref()?;
            let heir = self.followed.iter().position(|followed| *followed.name == *heir)?;
            self.followed[heir].refused.contains_key(name).then(|| (heir, name.clone()))
        });
        for (heir, name) in agreed.collect::<Vec<_>>() {
            let Some(member) = self.followed[heir].refused.remove(&name) else { continue };
            let refused = self.take_member(heir, member, is_configured, step);
            debug_assert!(refused.is_none(), "its owner has agreed");
        }
    }

    /// Removes what the catalog owned and does not list any more. Another one that lists it, too
    /// late until now, gets it as a new member.
    fn remove_others(&mut self, at: usize, is_configured: &dyn Fn(&Name) -> bool, step: &mut Step) {
        let (round, catalog) = (self.followed[at].round, Arc::clone(&self.followed[at].name));
        let is_gone = |owned: &Owned| owned.catalog == catalog && owned.round != round;
        let gone: Vec<Name> =
            self.owned.iter().filter(|(_, o)| is_gone(o)).map(|(name, _)| name.clone()).collect();
        for name in gone {
            let Some(owned) = self.owned.remove(&name) else { continue };
            let has_file = self.has_file(&name, &owned);
            step.remember(&catalog, &members::gone(&name), has_file);
            let heir = (0..self.followed.len())
                .find_map(|heir| Some((heir, self.followed[heir].refused.remove(&name)?)));
            if let Some((heir, member)) = heir
                && !is_configured(&name)
            {
                self.add(heir, member, step);
            }
            step.removed.push(name);
        }
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zone::{Given, HashKey, LoadOptions, load};

    struct Followers {
        catalogs: Catalogs,
        config: Config,
    }

    impl Followers {
        fn new() -> Followers {
            let text = "version = 1\n\
                [[pattern]]\nname = \"p\"\nprimaries = [\"192.0.2.1\"]\n\
                [[pattern]]\nname = \"g\"\nprimaries = [\"192.0.2.2\"]\n\
                [[zone]]\nname = \"one.\"\nprimaries = [\"192.0.2.1\"]\n\
                catalog = { pattern = \"p\", groups = { g = \"g\" } }\n\
                [[zone]]\nname = \"two.\"\nprimaries = [\"192.0.2.1\"]\n\
                catalog = { pattern = \"p\" }\n\
                [[zone]]\nname = \"own.\"\nfile = \"own\"\n";
            let config = Config::parse("ring53.toml", text, Path::new("")).unwrap();
            let mut catalogs = Catalogs::default();
            catalogs.configure(&config, Path::new("nowhere"));
            Followers { catalogs, config }
        }

        /// What a version does: removed, added with their first primary, changed.
        fn apply(&mut self, catalog: &str, records: &str) -> [Vec<String>; 3] {
            let text = format!("$TTL 0\n@ SOA a b 1 2 3 4 5\n@ NS invalid.\n{records}");
            let options = LoadOptions::new(HashKey::new(*b"a secret of test"), 1);
            let name = catalog.parse().unwrap();
            let zone = load(&name, "text", &Given(text), &options).zone.unwrap();
            let config = &self.config;
            let configured = |name: &Name| config.zones.iter().any(|zone| zone.name == *name);
            let step = self.catalogs.apply(&name, &zone, &configured);
            let told =
                |zone: &ZoneConfig| format!("{} {}", zone.name, zone.primaries[0].address.ip());
            let removed = step.removed.iter().map(ToString::to_string);
            let (added, changed) = (step.added.iter().map(told), step.changed.iter().map(told));
            let mut all: [Vec<String>; 3] = [removed.collect(), added.collect(), changed.collect()];
            all.iter_mut().for_each(|list| list.sort());
            all
        }
    }

    const V: &str = "version TXT 2\n";

    fn lists(removed: &[&str], added: &[&str], changed: &[&str]) -> [Vec<String>; 3] {
        [removed, added, changed].map(|list| list.iter().map(ToString::to_string).collect())
    }

    fn none() -> [Vec<String>; 3] {
        Default::default()
    }

    const A: &str = "a. 192.0.2.1";

    #[test]
    fn members_come_change_and_go() {
        let mut two = Followers::new();
        let first = format!("{V}a.zones PTR a.\nb.zones PTR b.\ngroup.b.zones TXT g\n");
        assert_eq!(two.apply("one.", &first), lists(&[], &[A, "b. 192.0.2.2"], &[]));
        assert_eq!(two.apply("one.", &first), none(), "nothing has changed");
        let broken = format!("{first}c.zones PTR a.\n");
        assert_eq!(two.apply("one.", &broken), none(), "a broken version changes nothing");
        let told = two.catalogs.tell(&"one.".parse().unwrap()).unwrap();
        assert_eq!((told.members, told.broken.is_some()), (2, true));
        // The group changes, the label changes.
        let second = format!("{V}a.zones PTR a.\ngroup.a.zones TXT g\nc.zones PTR b.\n");
        let expected = lists(&["b."], &["b. 192.0.2.1"], &["a. 192.0.2.2"]);
        assert_eq!(two.apply("one.", &second), expected);
        assert_eq!(two.apply("one.", V), lists(&["a.", "b."], &[], &[]));
    }

    #[test]
    fn names_that_are_taken() {
        let mut two = Followers::new();
        let listed = format!("{V}a.zones PTR a.\nb.zones PTR own.\nc.zones PTR two.\n");
        assert_eq!(two.apply("one.", &listed), lists(&[], &[A], &[]));
        let one: Name = "one.".parse().unwrap();
        assert_eq!(two.catalogs.tell(&one).unwrap().refused.len(), 2);
        assert_eq!(two.apply("two.", &format!("{V}x.zones PTR a.\n")), none());
        // Who does not own it cannot remove it.
        assert_eq!(two.apply("two.", V), none());
        assert_eq!(two.apply("two.", &format!("{V}x.zones PTR a.\n")), none());
        // When the owner gives it up, it is new in the other.
        assert_eq!(two.apply("one.", V), lists(&["a."], &[A], &[]));
        assert_eq!(two.catalogs.owner(&"a.".parse().unwrap()), Some(&"two.".parse().unwrap()));
    }

    #[test]
    fn change_of_ownership() {
        let listed = format!("{V}a.zones PTR a.\n");
        let agreed = format!("{listed}coo.a.zones PTR two.\n");
        for (label, reset) in [("a", false), ("other", true)] {
            let new = format!("{V}{label}.zones PTR a.\n");
            let moves = if reset { lists(&["a."], &[A], &[]) } else { lists(&[], &[], &[A]) };
            for new_is_first in [false, true] {
                let mut two = Followers::new();
                assert_eq!(two.apply("one.", &listed), lists(&[], &[A], &[]));
                if new_is_first {
                    assert_eq!(two.apply("two.", &new), none(), "nobody has agreed");
                    assert_eq!(two.apply("one.", &agreed), moves);
                } else {
                    assert_eq!(two.apply("one.", &agreed), none(), "it waits for the new catalog");
                    assert_eq!(two.apply("two.", &new), moves);
                }
                assert_eq!(two.apply("two.", &new), none());
                let two_is = two.catalogs.tell(&"two.".parse().unwrap()).unwrap();
                assert_eq!((two_is.members, two_is.refused.len()), (1, 0));
                assert_eq!(two.apply("one.", &agreed), none(), "it is the new one's");
                assert_eq!(two.apply("one.", V), none(), "it is not the old one's any more");
                assert_eq!(two.apply("two.", V), lists(&["a."], &[], &[]));
            }
        }
    }
}
