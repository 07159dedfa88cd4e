//! One link of an answer: a name, its zone, and what was found for it there.

use crate::wire::LowerName;
use crate::zone::{HashKey, SuffixHashes, Zone};

use super::reply::Owner;
use super::search::Search;

/// What follows a link of the chain.
pub enum Next {
    /// The reply is complete.
    Done,
    /// The name at this octet of the reply is to be looked up.
    Chain(usize),
}

/// One link: a name, where it stands in the reply, and what was found for it.
pub struct Link<'a, 'z> {
    /// The zone.
    pub zone: &'z Zone,
    /// The name asked for.
    pub name: &'a LowerName,
    /// Its suffixes' hashes.
    pub hashes: &'a SuffixHashes,
    /// The finished search.
    pub search: Search,
    /// Where the name stands.
    pub owner: Owner,
    /// QTYPE.
    pub qtype: u16,
    /// The hash's secret, for wildcards.
    pub key: HashKey,
    /// Whether this is the question itself, not the target of a CNAME or DNAME.
    pub first: bool,
    /// The NSEC3 block over the suffix of so many labels, if it was looked up ahead.
    pub ahead: Option<(usize, usize)>,
}
