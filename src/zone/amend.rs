//! A new version of a zone out of the one before and a few changed records, without building what
//! has not changed.
//!
//! ```text
//!   changes ──by name──> touched names with all of their records ──stage, build──> nodes
//!                        + parents that come, go or gain and lose children           │
//!   zone ──clone (what was built is shared)──> overlay + nodes <─────────────────────┘
//!          then for the touched names only: wildcards, what hides them, links, denial
//! ```
//!
//! What a change of one name does to others is known by the names above it, for which every node
//! counts its children. Only three things reach names that cannot be listed, and lead to the zone
//! being built anew: a cut or a DNAME that comes above names that stay or goes from above them, a
//! denial of existence that becomes another, and an overlay that has grown too large.

use std::collections::BTreeMap;

use crate::limits::{
    DIAGNOSTICS_MAX, OVERLAY_NAMES_MAX, OVERLAY_OCTETS_MAX, OVERLAY_SHARE, OVERLAY_ZONE_NAMES_MIN,
};
use crate::wire::{LowerName, rtype};

use super::build::{Built, build, earlier};
use super::change::{Change, Misfit, Net, Record, apply, records};
use super::diagnostic::{Diagnostic, Severity};
use super::finish::{complete_apex, hidden_by, is_target, never_answered, resolve_links};
use super::hash::SuffixHashes;
use super::node::{CHILDREN_AT, CUT_DEPTH_AT, NODE_HEADER_LEN, Node, flag};
use super::nsec3::{Hash, Params};
use super::overlay::{self, Overlay};
use super::records::Place;
use super::stage::Stage;
use super::text::{Record as Text, Sink, rdata_fits};
use super::{Denial, LoadOptions, Loaded, Zone};

//----------- amend ----------------------------------------------------------

/// Why changes do not become a version of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// They are not of this zone.
    Misfit(Misfit),
    /// They reach further than to the names they name: the zone is to be built anew.
    Rebuild,
}

impl From<Misfit> for Unfit {
    fn from(misfit: Misfit) -> Unfit {
        Unfit::Misfit(misfit)
    }
}

/// How far a version may be from the zone that was built.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Names.
    pub names: usize,
    /// Octets of their nodes.
    pub octets: usize,
}

impl Room {
    /// What is worth it for `zone`.
    pub fn of(zone: &Zone) -> Room {
        let names = match zone.name_count() {
            ..OVERLAY_ZONE_NAMES_MIN => 0,
            count => (count / OVERLAY_SHARE).min(OVERLAY_NAMES_MAX),
        };
        Room { names, octets: OVERLAY_OCTETS_MAX }
    }
}

impl Zone {
    /// Whether so much of it has changed since it was built that it should be built anew before
    /// there is no room for more.
    pub fn is_worn(&self) -> bool {
        let room = Room::of(self);
        let octets = self.overlay.as_ref().map_or(0, |overlay| overlay.pool.len());
        !self.is_as_built() && (self.overlaid_count() > room.names / 2 || octets > room.octets / 2)
    }

    /// The same version, built anew.
    pub fn rebuilt(&self, options: &LoadOptions) -> Option<Zone> {
        let intake = apply(self, &[], options).ok()?;
        intake.finish("what is served", options).zone
    }
}

/// The version of `zone` after `changes`; `source` is what its diagnostics name.
pub fn amend(
    zone: &Zone,
    changes: &[Change],
    source: &str,
    options: &LoadOptions,
    room: Room,
) -> Result<Loaded, Unfit> {
    let count: usize = changes.iter().map(|change| change.deleted.len() + change.added.len()).sum();
    // Each name may have several records, but a change of so many is no small one.
    if count > room.names * 4 {
        return Err(Unfit::Rebuild);
    }
    let names_max = room.names.saturating_sub(zone.overlaid_count());
    let mut survey = Survey { zone, options, names_max, touched: BTreeMap::new() };
    survey.take(Net::of(changes)?)?;
    survey.settle()?;
    survey.build(source, room)
}

/// The version of `zone` after `changes`: amended if they are small, else built anew; `source` is
/// what its diagnostics name.
pub fn changed(
    zone: &Zone,
    changes: &[Change],
    source: &str,
    options: &LoadOptions,
) -> Result<Loaded, Misfit> {
    match amend(zone, changes, source, options, Room::of(zone)) {
        Ok(loaded) => Ok(loaded),
        Err(Unfit::Misfit(misfit)) => Err(misfit),
        Err(Unfit::Rebuild) => Ok(apply(zone, changes, options)?.finish(source, options)),
    }
}

//----------- Touched --------------------------------------------------------

/// One name that the changes name, or that is above one.
struct Touched {
    name: LowerName,
    hash: u64,
    /// Its node before.
    old: Option<usize>,
    /// Its NSEC3 block before.
    old_block: Option<(Hash, usize)>,
    /// Records before.
    before: usize,
    owned_before: bool,
    /// Its records after.
    records: Vec<Record>,
    /// Whether some of them are no part of an NSEC3 block.
    owns: bool,
    /// Names directly below it that come, and go.
    born: usize,
    lost: usize,
    /// Whether it exists afterwards.
    exists: bool,
}

struct Survey<'z> {
    zone: &'z Zone,
    options: &'z LoadOptions,
    names_max: usize,
    /// By owner without the apex.
    touched: BTreeMap<Box<[u8]>, Touched>,
}

impl<'z> Survey<'z> {
    fn relative<'n>(&self, name: &'n LowerName) -> &'n [u8] {
        &name.as_wire()[..name.len() - self.zone.apex_len()]
    }

    /// The hash that the owner of an NSEC3 record would be of.
    fn hash_of(&self, name: &LowerName) -> Option<Hash> {
        let relative = self.relative(name);
        let is_label = name.depth() == self.zone.apex_depth() + 1;
        if is_label { Hash::from_label(&relative[1..]) } else { None }
    }

    fn touch(&mut self, name: &LowerName) -> Result<&mut Touched, Unfit> {
        let relative = self.relative(name);
        if !self.touched.contains_key(relative) {
            if self.touched.len() >= self.names_max {
                return Err(Unfit::Rebuild);
            }
            let touched = self.look_up(name)?;
            self.touched.insert(relative.into(), touched);
        }
        Ok(self.touched.get_mut(relative).expect("it is there by now"))
    }

    fn look_up(&self, name: &LowerName) -> Result<Touched, Unfit> {
        let zone = self.zone;
        let hash = self.options.key.name(name);
        let old = zone.find(name, name.depth(), hash);
        let mut all = records(name, old.map(|at| zone.node(at)));
        let owned_before = !all.is_empty();
        let mut old_block = None;
        if let Some(hashed) = self.hash_of(name) {
            // Of blocks that do not serve only their positions are known.
            if !zone.other_blocks.is_empty() {
                return Err(Unfit::Rebuild);
            }
            if let Denial::Nsec3(chain) = &zone.denial
                && let (at, true) = zone.nsec3_over(chain, hashed)
            {
                old_block = Some((hashed, at));
                for set in zone.rrsets_of(Place::Block(zone.block(at))) {
                    let signatures = set.signatures.into_iter().map(|it| (rtype::RRSIG, it));
                    let records = set.records.into_iter().map(|it| (set.rtype, it));
                    all.extend(records.chain(signatures).map(|(rtype, it)| Record {
                        owner: name.as_wire().into(),
                        rtype,
                        ttl: it.ttl,
                        rdata: it.rdata.into(),
                    }));
                }
            }
        }
        Ok(Touched {
            name: name.clone(),
            hash,
            old,
            old_block,
            before: all.len(),
            owned_before,
            records: all,
            owns: owned_before,
            born: 0,
            lost: 0,
            exists: old.is_some(),
        })
    }

    //--- Which names

    /// Changes the records of the names that are named.
    fn take(&mut self, net: Net) -> Result<(), Unfit> {
        let Net { after, mut missing } = net;
        let mut owners: Vec<&[u8]> = after.keys().map(|(owner, ..)| &**owner).collect();
        owners.dedup();
        let zone = self.zone;
        for owner in owners {
            let mut name = LowerName::new();
            name.read(owner).ok_or(Misfit::Bad)?;
            let depth = zone.apex_depth();
            // Such records are left out, with a warning: that is for those who build.
            if name.depth() < depth || name.suffix(depth) != zone.apex_wire() {
                return Err(Unfit::Rebuild);
            }
            self.touch(&name)?.records.retain(|record| {
                let identity = record.identity();
                missing.remove(&identity);
                !after.contains_key(&identity)
            });
        }
        if !missing.is_empty() {
            return Err(Misfit::NotThere.into());
        }
        for record in after.into_values().flatten() {
            if rtype::is_meta(record.rtype) || !rdata_fits(record.rtype, &record.rdata) {
                return Err(Misfit::Bad.into());
            }
            let mut name = LowerName::new();
            name.read(&record.owner).ok_or(Misfit::Bad)?;
            self.touch(&name)?.records.push(record);
        }
        Ok(())
    }

    /// Finds out which names come to exist and which cease to, those above them too.
    fn settle(&mut self) -> Result<(), Unfit> {
        let names: Vec<LowerName> =
            self.touched.values().map(|touched| touched.name.clone()).collect();
        for name in &names {
            let is_hash = self.hash_of(name).is_some();
            let touched = self.touch(name)?;
            let chain = touched.records.iter().find(|record| record.rtype == rtype::NSEC3);
            let is_block = is_hash && chain.is_some_and(|it| Params::read(&it.rdata).is_some());
            touched.owns =
                touched.records.iter().any(|record| !is_block || covered(record) != rtype::NSEC3);
            if touched.owns && !touched.exists {
                touched.exists = true;
                self.announce(name)?;
            }
        }
        let depth = |touched: &Touched| touched.name.depth();
        let deepest = self.touched.values().map(depth).max().unwrap_or(0);
        for depth in (self.zone.apex_depth() + 1..=deepest).rev() {
            let at_depth = self.touched.values().filter(|touched| touched.name.depth() == depth);
            let names: Vec<LowerName> = at_depth.map(|touched| touched.name.clone()).collect();
            for name in names {
                let zone = self.zone;
                let touched = self.touch(&name)?;
                if touched.exists && !touched.owns && touched.children(zone) == 0 {
                    touched.exists = false;
                    self.touch(&parent_of(&name))?.lost += 1;
                }
            }
        }
        for touched in self.touched.values() {
            self.check_hiding(touched)?;
        }
        Ok(())
    }

    /// Tells the names above `name`, which comes to exist.
    fn announce(&mut self, name: &LowerName) -> Result<(), Unfit> {
        let mut name = name.clone();
        while name.depth() > self.zone.apex_depth() {
            name = parent_of(&name);
            let parent = self.touch(&name)?;
            parent.born += 1;
            if parent.exists {
                break;
            }
            parent.exists = true;
        }
        Ok(())
    }

    /// What hides the names below a name may only change if these are known.
    fn check_hiding(&self, touched: &Touched) -> Result<(), Unfit> {
        let Some(node) = touched.old.map(|at| self.zone.node(at)) else { return Ok(()) };
        let is_apex = node.flags() & flag::APEX != 0;
        // As the node will have them: signatures alone count, too.
        let has = |kind| touched.records.iter().any(|record| covered(record) == kind);
        let before = node.flags() & (flag::CUT | flag::DNAME);
        let after = if has(rtype::DNAME) { flag::DNAME } else { 0 }
            | if !is_apex && has(rtype::NS) { flag::CUT } else { 0 };
        let stay = usize::from(node.children()).saturating_sub(touched.lost);
        if before != after && (is_apex || stay > 0) { Err(Unfit::Rebuild) } else { Ok(()) }
    }

    //--- Their nodes

    fn build(mut self, source: &str, room: Room) -> Result<Loaded, Unfit> {
        let zone = self.zone;
        let is_hashed = zone.node(zone.apex_at).flags() & flag::HASHED != 0;
        let mut stage = Stage::new(self.options.key, &zone.lower_apex());
        let mut line = 0;
        for touched in self.touched.values() {
            for record in &touched.records {
                line += 1;
                stage.record(Text {
                    owner: &record.owner,
                    rtype: record.rtype,
                    class: 1,
                    ttl: record.ttl,
                    rdata: &record.rdata,
                    line,
                    file: 0,
                });
            }
            if touched.exists && !touched.owns {
                stage.ancestor(touched.name.as_wire());
            }
        }
        if stage.has_nsec3 && !is_hashed || stage.failed.is_some() {
            return Err(Unfit::Rebuild);
        }
        stage.has_nsec3 = is_hashed;
        let built = build(&[stage], &zone.lower_apex(), 1);
        let (pool, mut built) = built.map_err(|_| Unfit::Rebuild)?;
        let built = built.pop().expect("one thread builds one part");
        let mut diagnostics = Vec::new();
        let files = [source.to_string()];
        for finding in built.findings.into_iter().take(DIAGNOSTICS_MAX) {
            diagnostics.push(finding.into_diagnostic(&files));
        }
        let built = Built { findings: Vec::new(), ..built };
        let mut next = zone.clone();
        let mut overlay =
            next.overlay.take().unwrap_or_else(|| Box::new(Overlay::new(self.options.key)));
        overlay.begin();
        let offset = overlay.pool.len();
        overlay.pool.extend_from_slice(&pool[8..8 + built.pool_used]);
        let placed = self.place(&mut overlay, &built, &pool, offset);
        if overlay.pool.len() > room.octets.min(overlay::POOL_LEN_MAX) {
            return Err(Unfit::Rebuild);
        }
        next.overlay = Some(overlay);
        self.relate(&mut next, &placed, source, &mut diagnostics);
        self.link(&mut next, &built, offset, &placed, &files, &mut diagnostics);
        self.deny(&mut next, &built, offset, &placed)?;
        self.count(&mut next, &built);
        next.pool_used -= next.negative.len();
        let complete = complete_apex(&mut next, self.options.key, source, &mut diagnostics);
        let broken = diagnostics.iter().any(|found| found.severity == Severity::Error);
        Ok(Loaded { zone: Some(next).filter(|_| complete && !broken), diagnostics })
    }

    /// Enters the nodes; returns those of names that exist.
    fn place(
        &mut self,
        overlay: &mut Overlay,
        built: &Built,
        pool: &[u8],
        offset: usize,
    ) -> Vec<(Box<[u8]>, usize)> {
        let mut placed = Vec::new();
        for &(hash, at) in &*built.nodes {
            let node = Node::at(pool, at);
            // What is only above a name that was touched has a node already.
            let Some(touched) = self.touched.get(node.owner()).filter(|it| it.exists) else {
                continue;
            };
            let position = moved(at, offset);
            let octets = &mut overlay.pool[position - overlay::START..];
            let children = touched.children(self.zone).min(u16::MAX.into()) as u16;
            octets[CHILDREN_AT..CHILDREN_AT + 2].copy_from_slice(&children.to_le_bytes());
            if node.flags() & flag::HASHED != 0 {
                octets[node.blocks_at()..node.blocks_at() + 8].fill(0);
            }
            overlay.put(hash, position, touched.old);
            placed.push((node.owner().into(), position));
        }
        for (owner, touched) in &self.touched {
            if touched.exists || touched.old.is_none() {
                continue;
            }
            let position = overlay::START + overlay.pool.len();
            let depth = touched.name.depth() as u8;
            let header = [flag::GONE, owner.len() as u8, 0, 0, depth, 0, 0, 0];
            debug_assert_eq!(header.len(), NODE_HEADER_LEN);
            overlay.pool.extend_from_slice(&header);
            overlay.pool.extend_from_slice(owner);
            let len = overlay.pool.len().next_multiple_of(8);
            overlay.pool.resize(len, 0);
            overlay.put(touched.hash, position, touched.old);
        }
        placed
    }

    /// Finds the wildcards below the names, and what hides them.
    fn relate(
        &self,
        next: &mut Zone,
        placed: &[(Box<[u8]>, usize)],
        source: &str,
        diagnostics: &mut Vec<Diagnostic>,
    ) {
        let key = self.options.key;
        let mut hashes: Box<SuffixHashes> = Box::new([0; _]);
        let mut marks = Vec::new();
        for (owner, position) in placed {
            let wildcard = |other: &[u8]| other.strip_prefix(b"\x01*") == Some(&**owner);
            let hash = key.wildcard_child(self.touched[owner].hash);
            let mut flags = 0;
            if next.find_owner(hash, wildcard).is_some() {
                flags |= flag::WILDCARD_CHILD;
            }
            let hidden = hidden_by(next, next.node(*position), key, &mut hashes);
            flags |= if hidden.is_some() { flag::OCCLUDED } else { 0 };
            marks.push((position - overlay::START, flags, hidden.unwrap_or(0) as u8));
        }
        let pool = &mut next.overlay.as_deref_mut().expect("it was just put there").pool;
        for (at, flags, depth) in marks {
            pool[at] |= flags;
            pool[at + CUT_DEPTH_AT] = depth;
        }
        for (_, position) in placed {
            let node = next.node(*position);
            if node.flags() & flag::OCCLUDED != 0 && diagnostics.len() < DIAGNOSTICS_MAX {
                diagnostics.extend(never_answered(next, node, source));
            }
        }
    }

    /// Resolves the links of the nodes, and those that lead to them.
    fn link(
        &self,
        next: &mut Zone,
        built: &Built,
        offset: usize,
        placed: &[(Box<[u8]>, usize)],
        files: &[String],
        diagnostics: &mut Vec<Diagnostic>,
    ) {
        let key = self.options.key;
        let mut hashes: Box<SuffixHashes> = Box::new([0; _]);
        let units = resolve_links(next, built.links.iter(), key, files, diagnostics);
        let mut targets = Vec::new();
        let mut gained = false;
        for (owner, position) in placed {
            let Touched { name, hash, old, .. } = &self.touched[owner];
            let mut told = |zone: &Zone, at| is_target(zone, zone.node(at), name, key, &mut hashes);
            let is_target = told(next, *position);
            gained |= is_target && !old.is_some_and(|at| told(self.zone, at));
            targets.push((*hash, *position, is_target));
        }
        let overlay = next.overlay.as_deref_mut().expect("it was put there before");
        for (at, unit) in units {
            let at = moved(at, offset) - overlay::START;
            overlay.pool[at..at + 4].copy_from_slice(&unit.to_le_bytes());
        }
        for (hash, position, is_target) in targets {
            overlay.set_target(hash, position, is_target);
        }
        overlay.gained |= gained;
    }

    //--- Denial

    /// Puts what denies existence in order.
    fn deny(
        &self,
        next: &mut Zone,
        built: &Built,
        offset: usize,
        placed: &[(Box<[u8]>, usize)],
    ) -> Result<(), Unfit> {
        let zone = self.zone;
        let apex_key = self.options.key.name(&zone.lower_apex());
        let apex = next.find(&zone.lower_apex(), zone.apex_depth(), apex_key);
        let (before, after) = (zone.node(zone.apex_at), apex.map(|at| next.node(at)));
        let same = |kind| {
            let set = |node: Node<'_>| node.rrset(kind).map(|set| set.body.to_vec());
            set(before) == after.and_then(set)
        };
        let has_nsec = after.is_some_and(|node| node.rrset(rtype::NSEC).is_some());
        let fits = match &zone.denial {
            Denial::Unsigned if zone.is_signed() => !has_nsec && same(rtype::NSEC3PARAM),
            Denial::Unsigned => built.expires.is_none(),
            Denial::Nsec(_) => has_nsec && same(rtype::NSEC3PARAM),
            Denial::Nsec3(chain) => {
                same(rtype::NSEC3PARAM) && built.params.iter().all(|it| it == chain.params())
            }
        };
        let is_chain = matches!(zone.denial, Denial::Nsec3(_));
        if !fits || !(is_chain || built.hashed.is_empty()) {
            return Err(Unfit::Rebuild);
        }
        let answers = |node: Node<'_>| {
            node.flags() & flag::OCCLUDED == 0 && node.rrset(rtype::NSEC).is_some()
        };
        let nsecs: Vec<(&[u8], usize)> = placed
            .iter()
            .filter(|(_, position)| answers(next.node(*position)))
            .map(|(owner, position)| (&**owner, *position))
            .collect();
        let overlay = next.overlay.as_deref_mut().expect("it was put there before");
        match &zone.denial {
            Denial::Unsigned => {}
            Denial::Nsec(order) => {
                for (owner, touched) in &self.touched {
                    if let Some(at) = touched.old.filter(|at| answers(zone.node(*at))) {
                        overlay.drop_nsec(order, &zone.pool, owner, at);
                    }
                }
                nsecs.into_iter().for_each(|(owner, at)| overlay.put_nsec(owner, at));
            }
            Denial::Nsec3(chain) => {
                for (hash, at) in self.touched.values().filter_map(|touched| touched.old_block) {
                    overlay.drop_block(chain, &zone.pool, hash, at);
                }
                for hashed in &*built.hashed {
                    overlay.put_block(hashed.hash, moved(hashed.position, offset));
                }
                // Without its own the chain would serve no more.
                let hash = chain.params().hash(zone.apex_wire());
                if !next.nsec3_over(chain, hash).1 {
                    return Err(Unfit::Rebuild);
                }
            }
        }
        Ok(())
    }

    fn count(&self, next: &mut Zone, built: &Built) {
        let overlay = next.overlay.as_deref_mut().expect("it was put there before");
        for touched in self.touched.values() {
            next.record_count = next.record_count + touched.records.len() - touched.before;
            next.name_count += usize::from(touched.owns);
            next.name_count -= usize::from(touched.owned_before);
            if touched.exists {
                next.depth_max = next.depth_max.max(touched.name.depth());
            }
        }
        overlay.expiry_unsure |= self.zone.is_signed();
        if let Some(expires) = built.expires {
            let first = next.signatures_expire.map_or(expires, |first| earlier(first, expires));
            next.signatures_expire = Some(first);
        }
    }
}

impl Touched {
    /// Names directly below it afterwards, of a name other than the apex.
    fn children(&self, zone: &Zone) -> usize {
        let before = self.old.map_or(0, |at| usize::from(zone.node(at).children()));
        (before + self.born).saturating_sub(self.lost)
    }
}

/// The type a record belongs to: an RRSIG to what it covers.
fn covered(record: &Record) -> u16 {
    match (record.rtype, record.rdata.first_chunk()) {
        (rtype::RRSIG, Some(covered)) => u16::from_be_bytes(*covered),
        (rtype, _) => rtype,
    }
}

/// The name above, of any name but the root.
fn parent_of(name: &LowerName) -> LowerName {
    let mut parent = LowerName::new();
    parent.read(name.suffix(name.depth() - 1)).expect("a suffix of a name is a name");
    parent
}

/// Where in the overlay what was built at `at` is.
fn moved(at: usize, offset: usize) -> usize {
    overlay::START + offset + at - 8
}
