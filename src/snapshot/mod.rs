//! The immutable view that the cores answer from.

use std::sync::Arc;

use crate::wire::Name;
use crate::zone::Zone;

/// What the server says of itself, and how long its answers may be.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Octets of a UDP answer at most: `ANSWER_SIZE_MIN..=ANSWER_SIZE_MAX`.
    pub answer_size_max: usize,
    /// `version.bind`, `version.server`; `None` is REFUSED.
    pub version: Option<String>,
    /// `hostname.bind`; `None` is REFUSED.
    pub hostname: Option<String>,
    /// `id.server`; `None` is REFUSED.
    pub id: Option<String>,
    /// NSID (RFC 5001), octets.
    pub nsid: Option<Vec<u8>>,
}

impl Default for Identity {
    fn default() -> Identity {
        Identity {
            answer_size_max: crate::limits::ANSWER_SIZE_DEFAULT,
            version: None,
            hostname: None,
            id: None,
            nsid: None,
        }
    }
}

/// One configured zone.
#[derive(Clone)]
pub enum ZoneState {
    /// Loaded.
    Serving(Arc<Zone>),
    /// Configured but never loaded: SERVFAIL.
    Failed,
}

/// One generation of everything that is served.
pub struct Snapshot {
    generation: u64,
    identity: Identity,
    zones: Vec<(Name, ZoneState)>,
}

impl Snapshot {
    /// Builds a generation.
    pub fn new(generation: u64, identity: Identity, zones: Vec<(Name, ZoneState)>) -> Snapshot {
        Snapshot { generation, identity, zones }
    }

    /// Which generation this is.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The identity of this generation.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The zones as configured.
    pub fn zones(&self) -> &[(Name, ZoneState)] {
        &self.zones
    }
}
