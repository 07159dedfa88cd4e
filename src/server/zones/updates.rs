//! UPDATE: groups of messages that become one version on disk, and then one that is served.
//!
//! ```text
//!   messages ──one after the other──> changes ──journal, synced──> served ──> each is answered
//! ```
//!
//! What waits while a group is written to disk is the next group: one sync acknowledges all of it.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::policy::Grants;
use crate::snapshot::{Snapshot, ZoneState};
use crate::transfer::update::{Update, read, zone_of};
use crate::wire::message::Message;
use crate::wire::rcode::{NOERROR, NOTAUTH, REFUSED, Rcode, SERVFAIL};
use crate::wire::{Name, rtype};
use crate::zone::change::{Change, Journal};
use crate::zone::{LoadOptions, Zone, changed};

use super::files::Digest;
use super::state;
use crate::server::report::say;

/// How long a group may take before others have their turn.
const GROUP_TIME_MAX: Duration = Duration::from_millis(100);

/// One message that asks for changes, and who waits for what becomes of it.
pub struct Asked {
    update: Update,
    peer: IpAddr,
    /// The name of the key that it was signed with.
    key: Option<Box<[u8]>>,
    answer: oneshot::Sender<Rcode>,
}

/// What waits for the code of an update's reply.
pub type Awaited = oneshot::Receiver<Rcode>;

/// Reads a message: the zone it is about, and what it asks for; else the code it gets at once.
pub fn asked(
    snapshot: &Snapshot,
    message: Message<'_>,
    peer: IpAddr,
    key: Option<&[u8]>,
) -> Result<(Name, Asked, Awaited), Rcode> {
    let name = zone_of(message)?;
    let index = snapshot.zone_named(&name).ok_or(NOTAUTH)?;
    let rules = snapshot.rules(index);
    if !rules.update.know(peer, key) {
        return Err(REFUSED);
    }
    let ZoneState::Serving(zone) = snapshot.zone(index) else { return Err(SERVFAIL) };
    if !is_ours(zone) {
        return Err(REFUSED);
    }
    let update = read(message, &zone.lower_apex())?;
    let (answer, awaited) = oneshot::channel();
    let key = key.map(Box::from);
    let asked = Asked { update, peer, key, answer };
    Ok((zone.apex().clone(), asked, awaited))
}

/// Whether the zone may be changed here: signatures and digests are made elsewhere, and with a
/// change of ours they would be wrong.
fn is_ours(zone: &Zone) -> bool {
    !zone.is_signed() && zone.node(zone.apex_at()).rrset(rtype::ZONEMD).is_none()
}

/// A version that updates have led to, and what is to be told when it is served.
pub struct Group {
    /// The version.
    pub zone: Arc<Zone>,
    /// What led to it; none if nothing has changed.
    pub changes: Vec<Arc<Change>>,
    /// What is left for the next group.
    pub rest: Vec<Asked>,
    waiting: Vec<(oneshot::Sender<Rcode>, Rcode)>,
}

impl Group {
    /// Finds what `all` make of `zone`, one after the other, as far as `grants` allow it now.
    pub fn of(zone: &Arc<Zone>, all: Vec<Asked>, grants: &Grants, options: &LoadOptions) -> Group {
        let (zone, started) = (Arc::clone(zone), Instant::now());
        let (changes, rest, waiting) = (Vec::new(), Vec::new(), Vec::new());
        let mut group = Group { zone, changes, rest, waiting };
        let mut all = all.into_iter();
        for Asked { update, peer, key, answer } in all.by_ref() {
            let allows = |owner: &[u8], rtype| grants.allow(peer, key.as_deref(), owner, rtype);
            // A reload, or an update before this one, may have changed that.
            let change = if is_ours(&group.zone) {
                update.apply(&group.zone, options.key, &allows)
            } else {
                Err(REFUSED)
            };
            let code = match change {
                Ok(None) => NOERROR,
                Ok(Some(change)) => group.take(change, peer, options),
                Err(code) => code,
            };
            group.waiting.push((answer, code));
            // Others wait for the same lock.
            if started.elapsed() >= GROUP_TIME_MAX {
                break;
            }
        }
        group.rest = all.collect();
        group
    }

    fn take(&mut self, change: Change, peer: IpAddr, options: &LoadOptions) -> Rcode {
        let apex = self.zone.apex().clone();
        let loaded = changed(&self.zone, std::slice::from_ref(&change), "an update", options);
        let reason = match loaded {
            Ok(loaded) => match loaded.zone {
                Some(zone) => {
                    self.zone = Arc::new(zone);
                    self.changes.push(Arc::new(change));
                    return NOERROR;
                }
                None => loaded.diagnostics.first().map(ToString::to_string).unwrap_or_default(),
            },
            Err(misfit) => misfit.to_string(),
        };
        say!("zone {apex}: an update from {peer} is refused: {reason}");
        REFUSED
    }

    /// Puts the changes on disk, after which they may be acknowledged; the journal they end.
    /// If that fails none of them is served.
    /// `first` is the digest of the zone's file, if these are the first changes since it was read.
    pub fn keep(
        &mut self,
        directory: &Path,
        before: &Journal,
        first: Option<&Digest>,
    ) -> Option<Journal> {
        if self.changes.is_empty() {
            return None;
        }
        let journal = before.after(&self.changes, self.zone.memory_len());
        let kept = match first {
            Some(digest) => state::keep_updated(directory, &self.zone, &journal, digest),
            None => state::keep(directory, &self.zone, &self.changes, &journal),
        };
        match kept {
            Ok(()) => Some(journal),
            Err(error) => {
                say!("zone {}: updates are not taken: {error}", self.zone.apex());
                // What the others saw may be what these would have made.
                self.waiting.iter_mut().for_each(|(_, code)| *code = SERVFAIL);
                None
            }
        }
    }

    /// Tells all who wait.
    pub fn answer(self) {
        for (answer, code) in self.waiting {
            // Whoever has gone meanwhile will ask again.
            let _ = answer.send(code);
        }
    }
}
