//! Catalogs that are made here, of the zones that are configured as their members.

use std::sync::Arc;

use crate::wire::Name;
use crate::zone::change::diff;
use crate::zone::{LoadOptions, Zone, catalog};

use super::super::config::{Config, ZoneConfig};
use super::super::report::say;
use super::{Held, LOGGED_MAX, Tracked, ZoneSet, now, put};
use crate::server::zones::writer::Write;

impl ZoneSet {
    /// Makes the catalogs of the zones there are now; those that have changed.
    pub(super) fn produce(&mut self, config: &Config) -> Vec<Tracked> {
        let produced = config.zones.iter().filter(|zone| zone.is_produced());
        let made: Vec<(Name, Zone)> =
            produced.filter_map(|zone| Some((zone.name.clone(), self.make(zone)?))).collect();
        let mut changed = Vec::new();
        for (name, zone) in made {
            let key = self.key();
            let Some(held) = self.held.get_mut(&name) else { continue };
            let mut changes = Vec::new();
            if let Some(before) = &held.zone {
                let change = diff(before, &zone, key);
                // The SOA alone, that is: nothing.
                if change.deleted.len() <= 1 && change.added.len() <= 1 {
                    continue;
                }
                changes.push(Arc::new(change));
            }
            let journal = held.journal.take().unwrap_or_default();
            let journal = Arc::new(journal.after(&changes, zone.memory_len()));
            let (serial, members) = (zone.serial(), zone.name_count());
            say!("catalog {name}: made anew, serial {serial}, {members} names");
            let zone = Arc::new(zone);
            held.zone = Some(Arc::clone(&zone));
            held.journal = Some(Arc::clone(&journal));
            put(&mut self.table, &name, held);
            changed.push(held.tracked());
            self.writes.push(Write::Keep(zone, changes, journal, None));
        }
        changed
    }

    /// The catalog of the zones there are now, with the serial it has if it has changed.
    fn make(&self, config: &ZoneConfig) -> Option<Zone> {
        let name = &config.name;
        // The time is ahead of what was, whatever became of the state; but what was counts.
        let serial = match self.zone(name) {
            Some(before) => {
                let next = before.serial().wrapping_add(1);
                if (now().wrapping_sub(next) as i32) > 0 { now() } else { next }
            }
            None => now(),
        };
        let is_member = |held: &&Held| held.config.member_of.as_ref() == Some(name);
        let members = self.held.values().filter(is_member);
        let members = members.map(|held| (&held.config.name, held.config.group.as_deref()));
        let options = LoadOptions::new(self.key(), 1);
        let made = catalog::make(name, serial, members, &options);
        let loaded = made.ok()?.finish("made here", &options);
        for diagnostic in loaded.diagnostics.iter().take(LOGGED_MAX) {
            say!("catalog {name}: {diagnostic}");
        }
        loaded.zone
    }
}
