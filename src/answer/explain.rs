//! The path that an answer takes, told step by step: the same look-ups as [`super::answer_batch`]
//! makes, one at a time and with words.

use crate::limits::CHAIN_LINKS_MAX;
use crate::snapshot::Snapshot;
use crate::wire::{LowerName, Name, rtype};
use crate::zone::records::expand;
use crate::zone::{Denial, Node, SuffixHashes, Zone, flag, wildcard_of};

use super::search::Search;

/// One decision on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What was decided: `zone`, `encloser`, `cut`, `dname`, `name`, `wildcard`, `nothing`, `data`,
    /// `alias`, `no type`, `proof`, `end`.
    pub what: &'static str,
    /// The name it was decided for.
    pub name: String,
    /// In words.
    pub words: String,
}

/// The steps of answering `name` and `qtype`.
pub fn explain(snapshot: &Snapshot, name: &Name, qtype: u16, dnssec: bool) -> Vec<Step> {
    let mut told = Told { snapshot, dnssec, steps: Vec::new() };
    let mut next = Some(name.to_lowercase());
    let mut seen = Vec::new();
    while let Some(name) = next.take() {
        if seen.contains(&name) {
            told.say("end", &name, "it was looked up before: the chain is a loop".into());
        } else if seen.len() > CHAIN_LINKS_MAX {
            told.say("end", &name, format!("more than {CHAIN_LINKS_MAX} links"));
        } else {
            next = told.link(&name, qtype, seen.is_empty());
            seen.push(name);
        }
    }
    told.steps
}

struct Told<'a> {
    snapshot: &'a Snapshot,
    dnssec: bool,
    steps: Vec<Step>,
}

/// A name that is looked up in its zone.
struct Asked<'a> {
    zone: &'a Zone,
    name: LowerName,
    hashes: Box<SuffixHashes>,
    search: Search,
    qtype: u16,
}

fn text(wire: &[u8]) -> String {
    Name::from_wire(wire).map_or_else(|_| "?".into(), |name| name.to_string())
}

impl Told<'_> {
    fn say(&mut self, what: &'static str, name: &Name, words: String) {
        self.steps.push(Step { what, name: name.to_string(), words });
    }

    /// Tells one link; returns the name that is looked up next.
    fn link(&mut self, name: &Name, qtype: u16, first: bool) -> Option<Name> {
        let mut lower = LowerName::new();
        lower.read(name.as_wire())?;
        let mut hashes: Box<SuffixHashes> = Box::new([0; _]);
        self.snapshot.key().suffixes(&lower, &mut hashes);
        let depth = lower.depth();
        let mut found = self.snapshot.find_zone(&lower, &hashes, depth);
        if qtype == rtype::DS && depth > 0 && found.is_some_and(|(_, apex)| apex == depth) {
            let parent = self.snapshot.find_zone(&lower, &hashes, depth - 1);
            if parent.is_some() {
                self.say("zone", name, "the DS of a zone lies in its parent".into());
            }
            found = parent.or(found);
        }
        let Some((index, apex_depth)) = found else {
            let words = if first { "no zone here: REFUSED" } else { "no zone here: the client's" };
            self.say("end", name, words.into());
            return None;
        };
        let zone_name = self.snapshot.name(index);
        let Some(zone) = self.snapshot.zone(index).zone() else {
            self.say("zone", name, format!("{zone_name} did not load: SERVFAIL"));
            return None;
        };
        let denial = match zone.denial() {
            Denial::Unsigned => "not signed",
            Denial::Nsec(_) => "signed, with NSEC",
            Denial::Nsec3(_) => "signed, with NSEC3",
        };
        let words = format!("{zone_name} has the longest apex, serial {}, {denial}", zone.serial());
        self.say("zone", name, words);
        let search = Search::start(zone, apex_depth, &lower, &hashes).run(zone, &lower, &hashes);
        let asked = Asked { zone, name: lower, hashes, search, qtype };
        self.found(name, &asked)
    }

    fn found(&mut self, name: &Name, asked: &Asked<'_>) -> Option<Name> {
        let Asked { zone, search, .. } = asked;
        let node = zone.node(search.node);
        let exact = search.low == asked.name.depth();
        let encloser = text(asked.name.suffix(search.low));
        if !exact {
            let words = format!("{encloser} is the closest that exists");
            self.say("encloser", name, words);
        }
        let (hiding, depth) = match node.flags() & flag::OCCLUDED {
            0 => (node, search.low),
            _ => {
                let depth = node.cut_depth();
                let at = zone.find(&asked.name, depth, asked.hashes[depth])?;
                (zone.node(at), depth)
            }
        };
        let at_name = depth == asked.name.depth();
        if hiding.flags() & flag::CUT != 0 && !(at_name && asked.qtype == rtype::DS) {
            self.cut(name, asked, hiding, depth);
            return None;
        }
        if hiding.flags() & flag::DNAME != 0 && !at_name {
            return self.dname(name, asked, hiding, depth);
        }
        if exact {
            let empty = node.rrset_count() == 0;
            let words = if empty { "exists, with names below it only" } else { "exists" };
            self.say("name", name, words.into());
            return self.records(name, asked, node, false);
        }
        let mut room = [0; _];
        let mut wildcard = LowerName::new();
        let found = wildcard_of(asked.name.suffix(search.low), &mut room)
            .filter(|_| node.flags() & flag::WILDCARD_CHILD != 0)
            .filter(|wire| wildcard.read(wire).is_some())
            .and_then(|_| {
                zone.find(&wildcard, wildcard.depth(), self.snapshot.key().name(&wildcard))
            });
        if let Some(at) = found {
            self.say("wildcard", name, format!("*.{encloser} answers in its place"));
            return self.records(name, asked, zone.node(at), true);
        }
        self.say("nothing", name, format!("no *.{encloser} either: NXDOMAIN"));
        self.proofs(name, asked, &[search.low]);
        None
    }

    fn records(
        &mut self,
        name: &Name,
        asked: &Asked<'_>,
        node: Node<'_>,
        expanded: bool,
    ) -> Option<Name> {
        let kind = rtype::name(asked.qtype);
        if expanded {
            self.proofs(name, asked, &[]);
        }
        if let Some(rrset) = node.rrset(asked.qtype) {
            let signatures = rrset.signatures().0;
            let words = format!("{} {kind}, {signatures} signatures", rrset.count);
            self.say("data", name, words);
            return None;
        }
        if let Some(cname) = node.rrset(rtype::CNAME) {
            let target = expand(cname, &asked.name).pop()?;
            let target = Name::from_wire(&target.rdata).ok()?;
            self.say("alias", name, format!("CNAME to {target}, which is looked up next"));
            return Some(target.to_lowercase());
        }
        let types: Vec<_> = node.rrsets().filter(|r| r.count > 0).map(|r| r.rtype).collect();
        let types: Vec<_> = types.into_iter().map(rtype::name).collect();
        self.say("no type", name, format!("no {kind}, only: {}", types.join(" ")));
        if !expanded {
            self.proofs(name, asked, &[]);
        }
        None
    }

    fn cut(&mut self, name: &Name, asked: &Asked<'_>, cut: Node<'_>, depth: usize) {
        let servers = cut.rrset(rtype::NS).map_or(0, |servers| servers.count);
        let glue = cut.rrset(rtype::NS).map_or(0, |servers| servers.links().count());
        let ds = match cut.rrset(rtype::DS) {
            Some(ds) => format!("{} DS", ds.count),
            None => "no DS".into(),
        };
        let at = text(asked.name.suffix(depth));
        let words = format!(
            "delegated at {at} to {servers} name servers, {glue} of them with addresses here; {ds}"
        );
        self.say("cut", name, words);
    }

    fn dname(
        &mut self,
        name: &Name,
        asked: &Asked<'_>,
        node: Node<'_>,
        depth: usize,
    ) -> Option<Name> {
        let mut owner = LowerName::new();
        owner.read(asked.name.suffix(depth))?;
        let target = expand(node.rrset(rtype::DNAME)?, &owner).pop()?.rdata;
        let prefix = &asked.name.as_wire()[..asked.name.suffix_at(depth)];
        let shown = (text(owner.as_wire()), text(&target));
        let Ok(next) = Name::from_wire(&[prefix, &target].concat()) else {
            let words = format!("DNAME at {} to {}: too long, YXDOMAIN", shown.0, shown.1);
            self.say("dname", name, words);
            return None;
        };
        let words = format!("DNAME at {} to {}: {next} is looked up next", shown.0, shown.1);
        self.say("dname", name, words);
        Some(next.to_lowercase())
    }

    /// Which records prove it, for NSEC3 by the hashes. `wildcards` are the labels of names whose
    /// wildcard must not exist.
    fn proofs(&mut self, name: &Name, asked: &Asked<'_>, wildcards: &[usize]) {
        let Asked { zone, search, .. } = asked;
        if !self.dnssec {
            return;
        }
        let depth = asked.name.depth();
        let exact = search.low == depth;
        match zone.denial() {
            Denial::Unsigned => {}
            Denial::Nsec(order) => {
                let relative = &asked.name.as_wire()[..asked.name.len() - zone.apex_len()];
                let node = zone.node(zone.nsec_over(order, relative));
                let of = text(zone.name_of(node).as_wire());
                self.say("proof", name, format!("NSEC of {of} for the name"));
                let mut room = [0; _];
                if let Some(&depth) = wildcards.first()
                    && let Some(wildcard) = wildcard_of(asked.name.suffix(depth), &mut room)
                {
                    let relative = &wildcard[..wildcard.len() - zone.apex_len()];
                    let node = zone.node(zone.nsec_over(order, relative));
                    let of = text(zone.name_of(node).as_wire());
                    self.say("proof", name, format!("NSEC of {of} for the wildcard"));
                }
            }
            Denial::Nsec3(chain) => {
                let mut tell = |role: &str, wire: &[u8]| {
                    let hash = chain.params().hash(wire);
                    let (at, matches) = zone.nsec3_over(chain, hash);
                    let label = String::from_utf8_lossy(zone.block(at).label()).into_owned();
                    let how = if matches { "matches" } else { "covers" };
                    let words = format!("NSEC3 {label} {how} the {role}, {}", text(wire));
                    self.say("proof", name, words);
                };
                if exact {
                    tell("name", asked.name.as_wire());
                    return;
                }
                tell("closest encloser", asked.name.suffix(search.low));
                tell("next closer name", asked.name.suffix(search.low + 1));
                let mut room = [0; _];
                if let Some(&depth) = wildcards.first()
                    && let Some(wildcard) = wildcard_of(asked.name.suffix(depth), &mut room)
                {
                    tell("wildcard", wildcard);
                }
            }
        }
    }
}
