//! Zones from files that updates have changed: which of the two is served.
//!
//! | the file | is served |
//! | --- | --- |
//! | is as it was when the first update came | what updates have made of it |
//! | has another text, and a serial above that of the updates | the file; the updates are over |
//! | has another text and the records that updates have led to | the file, which has caught up |
//! | has another text otherwise | what updates have made; a warning says how to go on |
//!
//! ```text
//!   NAME.source    the digest of the file's text when the first update came
//!   NAME.zone      the zone then or later, NAME.journal what has changed since (super::state)
//! ```

use std::sync::Arc;

use crate::wire::Name;
use crate::zone::change::{Journal, diff};
use crate::zone::{HashKey, LoadOptions, Zone};

use super::files::Digest;
use super::state;
use crate::server::config::Config;
use crate::server::report::say;

/// What updates have made of a zone.
pub struct Updated {
    /// The zone.
    pub zone: Arc<Zone>,
    /// What led to it.
    pub journal: Arc<Journal>,
    /// Of the text of the file that they began with.
    pub digest: Digest,
}

/// What is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What updates have made of the file.
    Updates,
    /// What they have made of the file that was there before this one.
    Before,
    /// The file.
    File,
}

impl Updated {
    /// What updates have made of the zone `name`: as it is held, or as it is kept on disk.
    pub fn find(
        server: &Config,
        held: Option<Updated>,
        options: &LoadOptions,
        name: &Name,
    ) -> Result<Option<Updated>, String> {
        if held.is_some() {
            return Ok(held);
        }
        let Some(digest) = state::restore_source(&server.state, name)? else { return Ok(None) };
        let restored = state::restore(&server.state, name, options, server.owns_state)?;
        let updated = |(zone, journal)| {
            let (zone, journal) = (Arc::new(zone), Arc::new(journal));
            Updated { zone, journal, digest }
        };
        Ok(restored.map(updated))
    }

    /// What is served now that the file with the text of this digest has been read.
    pub fn judge(&self, file: &Zone, digest: Option<Digest>, key: HashKey) -> Verdict {
        let (name, serial, reached) = (file.apex(), file.serial(), self.zone.serial());
        if digest == Some(self.digest) {
            say!("zone {name}: serial {reached}, to which updates have led, is served");
            return Verdict::Updates;
        }
        let ahead = serial.wrapping_sub(reached) as i32;
        if ahead > 0 {
            say!(
                "zone {name}: its file has serial {serial} and is served; what updates have \
                 changed up to serial {reached} counts only as far as it is in the file"
            );
            return Verdict::File;
        }
        if ahead == 0 && diff(&self.zone, file, key).is_empty() {
            return Verdict::File;
        }
        say!(
            "zone {name}: its file has changed, but its serial {serial} is not above {reached}, \
             to which updates have led: it is not served; merge it with what ring53 zone export \
             {name} writes, and raise the serial above {reached}"
        );
        Verdict::Before
    }
}
