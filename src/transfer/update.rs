//! UPDATE (RFC 2136): a message read, its prerequisites checked, its changes found.
//!
//! ```text
//!   message ──read──> Update ──apply to a zone──> NOERROR and a Change, or none
//!                                            └──> the code of what stands against it
//! ```
//!
//! All or nothing: the changes are found on copies of the names they touch, and whoever serves the
//! zone makes them one version of it.

use std::collections::BTreeMap;

use crate::limits::MESSAGE_SIZE_MAX;
use crate::wire::message::{CLASS_IN, Message, Section};
use crate::wire::rcode::{
    FORMERR, NOTAUTH, NOTZONE, NXDOMAIN, NXRRSET, REFUSED, Rcode, YXDOMAIN, YXRRSET,
};
use crate::wire::{LowerName, rtype};
use crate::zone::change::{Change, Record};
use crate::zone::intake::{expanded, soa_numbers};
use crate::zone::{HashKey, Zone};

/// Classes with a meaning of their own here (RFC 2136, 2.4 and 2.5).
const CLASS_NONE: u16 = 254;
const CLASS_ANY: u16 = 255;
/// Octets of a record but for its RDATA: a pointer, type, class, TTL, length.
const RECORD_LEN_MIN: usize = 12;

//----------- Update ---------------------------------------------------------

/// What one message asks for.
#[derive(Debug)]
pub struct Update {
    prerequisites: Vec<Prerequisite>,
    actions: Vec<Action>,
}

/// Owners are in wire form and lower case.
#[derive(Debug)]
enum Prerequisite {
    InUse(Box<[u8]>),
    NotInUse(Box<[u8]>),
    Exists(Box<[u8]>, u16),
    ExistsNot(Box<[u8]>, u16),
    /// One record of an RRset that must be there just as told.
    Holds(Record),
}

#[derive(Debug)]
enum Action {
    Add(Record),
    Remove(Record),
    RemoveSet(Box<[u8]>, u16),
    RemoveName(Box<[u8]>),
}

/// The zone that a message is about, in wire form; the code of what is wrong with the question.
pub fn zone_of(message: Message<'_>) -> Result<Vec<u8>, Rcode> {
    let question = message.question().map_err(|_| FORMERR)?.ok_or(FORMERR)?;
    match (question.qtype, question.qclass) {
        (rtype::SOA, CLASS_IN) => Ok(question.name),
        (rtype::SOA, _) => Err(NOTAUTH),
        _ => Err(FORMERR),
    }
}

/// Reads a message about the zone `apex`.
pub fn read(message: Message<'_>, apex: &LowerName) -> Result<Update, Rcode> {
    let mut update = Update { prerequisites: Vec::new(), actions: Vec::new() };
    for record in message.records().map_err(|_| FORMERR)? {
        let record = record.map_err(|_| FORMERR)?;
        if record.section == Section::Additional {
            continue;
        }
        let mut octets = Vec::new();
        message.expand(record.at, &mut octets).map_err(|_| FORMERR)?;
        let mut name = LowerName::new();
        name.read(&octets).ok_or(FORMERR)?;
        if name.depth() < apex.depth() || name.suffix(apex.depth()) != apex.as_wire() {
            return Err(NOTZONE);
        }
        let (rtype, class, ttl) = (record.rtype, record.class, record.ttl);
        let (owner, is_empty) = (Box::from(name.as_wire()), record.rdata.is_empty());
        let whole = |owner, ttl| -> Result<Record, Rcode> {
            let rdata = expanded(rtype, message.octets(), record.rdata.clone()).ok_or(FORMERR)?;
            Ok(Record { owner, rtype, ttl, rdata: rdata.into() })
        };
        let of_meta = rtype::is_meta(rtype);
        if record.section == Section::Answer {
            if ttl != 0 {
                return Err(FORMERR);
            }
            update.prerequisites.push(match (class, rtype) {
                (CLASS_ANY, rtype::ANY) if is_empty => Prerequisite::InUse(owner),
                (CLASS_NONE, rtype::ANY) if is_empty => Prerequisite::NotInUse(owner),
                (CLASS_ANY, _) if is_empty && !of_meta => Prerequisite::Exists(owner, rtype),
                (CLASS_NONE, _) if is_empty && !of_meta => Prerequisite::ExistsNot(owner, rtype),
                (CLASS_IN, _) => Prerequisite::Holds(whole(owner, 0)?),
                _ => return Err(FORMERR),
            });
        } else {
            update.actions.push(match (class, rtype) {
                (CLASS_IN, _) => Action::Add(whole(owner, ttl)?),
                (CLASS_NONE, _) if ttl == 0 => Action::Remove(whole(owner, 0)?),
                (CLASS_ANY, rtype::ANY) if ttl == 0 && is_empty => Action::RemoveName(owner),
                (CLASS_ANY, _) if ttl == 0 && is_empty && !of_meta => {
                    Action::RemoveSet(owner, rtype)
                }
                _ => return Err(FORMERR),
            });
        }
    }
    Ok(update)
}

//----------- Applying -------------------------------------------------------

impl Update {
    /// Finds what becomes of `zone`, whose names are hashed with `key`; nothing, if all is as asked
    /// already. `allows` says whether the records of a type at an owner may be changed.
    pub fn apply(
        &self,
        zone: &Zone,
        key: HashKey,
        allows: &dyn Fn(&[u8], u16) -> bool,
    ) -> Result<Option<Change>, Rcode> {
        let mut draft = Draft { zone, key, names: BTreeMap::new() };
        self.check(&mut draft)?;
        for action in &self.actions {
            if !action.is_allowed(&mut draft, allows) {
                return Err(REFUSED);
            }
        }
        for action in &self.actions {
            action.take(&mut draft);
        }
        draft.into_change()
    }

    /// RFC 2136, 3.2.5.
    fn check(&self, draft: &mut Draft<'_>) -> Result<(), Rcode> {
        let mut held: BTreeMap<(&[u8], u16), Vec<&Record>> = BTreeMap::new();
        for prerequisite in &self.prerequisites {
            let holds = match prerequisite {
                Prerequisite::InUse(owner) => draft.at(owner).is_empty().then_some(NXDOMAIN),
                Prerequisite::NotInUse(owner) => (!draft.at(owner).is_empty()).then_some(YXDOMAIN),
                Prerequisite::Exists(owner, rtype) => {
                    (!draft.has(owner, *rtype)).then_some(NXRRSET)
                }
                Prerequisite::ExistsNot(owner, rtype) => {
                    draft.has(owner, *rtype).then_some(YXRRSET)
                }
                Prerequisite::Holds(record) => {
                    held.entry((&record.owner, record.rtype)).or_default().push(record);
                    None
                }
            };
            holds.map_or(Ok(()), Err)?;
        }
        for ((owner, rtype), records) in held {
            let there = draft.at(owner).iter().filter(|record| record.rtype == rtype);
            let there: Vec<_> = there.collect();
            let all = |some: &[&Record], others: &[&Record]| {
                some.iter().all(|record| others.iter().any(|other| other.is_same(record)))
            };
            if !all(&there, &records) || !all(&records, &there) {
                return Err(NXRRSET);
            }
        }
        Ok(())
    }
}

impl Action {
    fn is_allowed(&self, draft: &mut Draft<'_>, allows: &dyn Fn(&[u8], u16) -> bool) -> bool {
        match self {
            // Whoever signs the zone makes these.
            Action::Add(record) if is_of_signing(record.rtype) => false,
            Action::Add(record) | Action::Remove(record) => allows(&record.owner, record.rtype),
            Action::RemoveSet(owner, rtype) => allows(owner, *rtype),
            Action::RemoveName(owner) => {
                let is_apex = **owner == *draft.zone.apex_wire();
                let goes = |record: &&Record| !(is_apex && stays_at_apex(record.rtype));
                draft.at(owner).iter().filter(goes).all(|record| allows(owner, record.rtype))
            }
        }
    }

    /// RFC 2136, 3.4.2.
    fn take(&self, draft: &mut Draft<'_>) {
        let apex = draft.zone.apex_wire();
        match self {
            Action::Add(record) => add(draft.at(&record.owner), record, *record.owner == *apex),
            Action::Remove(record) => {
                let is_apex = *record.owner == *apex;
                let records = draft.at(&record.owner);
                let servers = records.iter().filter(|it| it.rtype == rtype::NS).count();
                let is_last = is_apex && record.rtype == rtype::NS && servers == 1;
                if record.rtype != rtype::SOA && !is_last {
                    records.retain(|other| !other.is_same(record));
                }
            }
            Action::RemoveSet(owner, rtype) => {
                if **owner != *apex || !stays_at_apex(*rtype) {
                    draft.at(owner).retain(|record| record.rtype != *rtype);
                }
            }
            Action::RemoveName(owner) => {
                let is_apex = **owner == *apex;
                draft.at(owner).retain(|record| is_apex && stays_at_apex(record.rtype));
            }
        }
    }
}

/// RFC 2136, 3.4.2.3: no update leaves a zone without them.
fn stays_at_apex(rtype: u16) -> bool {
    matches!(rtype, rtype::SOA | rtype::NS)
}

fn is_of_signing(rtype: u16) -> bool {
    matches!(rtype, rtype::RRSIG | rtype::NSEC | rtype::NSEC3 | rtype::NSEC3PARAM)
}

/// RFC 2136, 3.4.2.2.
fn add(records: &mut Vec<Record>, record: &Record, is_apex: bool) {
    // RFC 4592, 4.2: what they would mean is left open.
    if record.rtype == rtype::NS && record.owner.starts_with(b"\x01*") {
        return;
    }
    let aliased = |other: &Record| other.rtype == rtype::CNAME;
    let beside = |other: &Record| !matches!(other.rtype, rtype::CNAME | rtype::KEY);
    if record.rtype == rtype::CNAME {
        if records.iter().any(beside) {
            return;
        }
    } else if beside(record) && records.iter().any(aliased) {
        return;
    }
    match record.rtype {
        rtype::SOA => {
            let serial = |record: &Record| soa_numbers(&record.rdata).map(|numbers| numbers[0]);
            let before = records.iter().find(|other| other.rtype == rtype::SOA).and_then(serial);
            let is_newer = before
                .zip(serial(record))
                .is_some_and(|(before, after)| (after.wrapping_sub(before) as i32) > 0);
            if !is_apex || !is_newer {
                return;
            }
            records.retain(|other| other.rtype != rtype::SOA);
        }
        rtype::CNAME | rtype::DNAME => records.retain(|other| other.rtype != record.rtype),
        _ => records.retain(|other| !other.is_same(record)),
    }
    // RFC 2181, 5.2: one TTL for all of an RRset, the latest.
    for other in records.iter_mut().filter(|other| other.rtype == record.rtype) {
        other.ttl = record.ttl;
    }
    records.push(record.clone());
}

//----------- Draft ----------------------------------------------------------

/// The names that an update reads or changes.
struct Draft<'z> {
    zone: &'z Zone,
    key: HashKey,
    /// By owner.
    names: BTreeMap<Box<[u8]>, Touched>,
}

/// One name.
struct Touched {
    /// As it is in the zone.
    before: Vec<Record>,
    /// As it becomes.
    after: Vec<Record>,
}

impl Draft<'_> {
    /// The records at `owner`.
    fn at(&mut self, owner: &[u8]) -> &mut Vec<Record> {
        let (zone, key) = (self.zone, self.key);
        let read = || {
            let mut name = LowerName::new();
            name.read(owner).expect("a name that was read before");
            let records = zone.records_at(&name, key);
            Touched { before: records.clone(), after: records }
        };
        &mut self.names.entry(owner.into()).or_insert_with(read).after
    }

    fn has(&mut self, owner: &[u8], rtype: u16) -> bool {
        self.at(owner).iter().any(|record| record.rtype == rtype)
    }

    /// What is different now, with a new serial (RFC 2136, 3.7).
    fn into_change(mut self) -> Result<Option<Change>, Rcode> {
        // Records that only change places are no change.
        let is_same = |touched: &Touched| {
            let mut change = Change::default();
            change.compare(touched.before.clone(), touched.after.clone());
            change.is_empty()
        };
        if self.names.values().all(is_same) {
            return Ok(None);
        }
        let from = self.zone.serial();
        let apex: Box<[u8]> = self.zone.apex_wire().into();
        let soa = self.at(&apex).iter_mut().find(|record| record.rtype == rtype::SOA);
        let soa = soa.expect("a zone has a SOA");
        let mut to = soa_numbers(&soa.rdata).map_or(from, |numbers| numbers[0]);
        // Two SOAs in one message could each seem newer, and lead back.
        if (to.wrapping_sub(from) as i32) <= 0 {
            // 0 has a special meaning to some peers.
            to = from.wrapping_add(1).max(1);
            let at = soa.rdata.len() - 20;
            soa.rdata[at..at + 4].copy_from_slice(&to.to_be_bytes());
        }
        if self.names.values().any(|touched| is_too_large(&touched.after)) {
            return Err(REFUSED);
        }
        let mut change = Change { from, to, ..Change::default() };
        for Touched { before, after } in self.names.into_values() {
            change.compare(before, after);
        }
        change.soa_first();
        Ok(Some(change))
    }
}

/// Whether an RRset among these records fits no message: nobody could be answered with it.
fn is_too_large(records: &[Record]) -> bool {
    let mut octets: BTreeMap<u16, usize> = BTreeMap::new();
    for record in records {
        *octets.entry(record.rtype).or_default() += RECORD_LEN_MIN + record.rdata.len();
    }
    octets.into_values().any(|octets| octets > MESSAGE_SIZE_MAX)
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Name;
    use crate::wire::message::{Writer, opcode};
    use crate::zone::{Given, LoadOptions, load};

    const TEXT: &str = "$TTL 60\n@ SOA ns h 7 2 3 4 5\n@ NS ns\nns A 192.0.2.1\nx TXT \"a\"\n\
                        x TXT \"b\"\nc CNAME x\ne.y A 192.0.2.9\n";

    fn key() -> HashKey {
        HashKey::new(*b"a secret of test")
    }

    fn zone() -> Zone {
        let apex: Name = "t.".parse().unwrap();
        load(&apex, "x", &Given(TEXT), &LoadOptions::new(key(), 1)).zone.unwrap()
    }

    /// `(section, owner, type, class, ttl, rdata)`.
    type Line<'a> = (Section, &'a str, u16, u16, u32, &'a [u8]);

    fn message(lines: &[Line<'_>]) -> Vec<u8> {
        let mut writer = Writer::new(1, Writer::flags_of(opcode::UPDATE));
        writer.question(b"\x01t\0", rtype::SOA, CLASS_IN);
        for (section, owner, rtype, class, ttl, rdata) in lines {
            let owner: Name = owner.parse().unwrap();
            writer.record_of(*section, owner.as_wire(), (*rtype, *class, *ttl), rdata);
        }
        writer.into_octets()
    }

    fn run(lines: &[Line<'_>]) -> Result<Option<Change>, Rcode> {
        let octets = message(lines);
        let message = Message::new(&octets).unwrap();
        let zone = zone();
        read(message, &zone.lower_apex())?.apply(&zone, key(), &|_, _| true)
    }

    const A: [u8; 4] = [192, 0, 2, 7];

    #[test]
    fn prerequisites_have_their_codes() {
        use Section::Answer as P;
        for (line, expected) in [
            ((P, "x.t.", rtype::ANY, CLASS_ANY, 0, &b""[..]), Ok(None)),
            ((P, "n.t.", rtype::ANY, CLASS_ANY, 0, b""), Err(NXDOMAIN)),
            // An empty non-terminal is not in use.
            ((P, "y.t.", rtype::ANY, CLASS_ANY, 0, b""), Err(NXDOMAIN)),
            ((P, "n.t.", rtype::ANY, CLASS_NONE, 0, b""), Ok(None)),
            ((P, "X.t.", rtype::ANY, CLASS_NONE, 0, b""), Err(YXDOMAIN)),
            ((P, "x.t.", rtype::TXT, CLASS_ANY, 0, b""), Ok(None)),
            ((P, "x.t.", rtype::A, CLASS_ANY, 0, b""), Err(NXRRSET)),
            ((P, "x.t.", rtype::A, CLASS_NONE, 0, b""), Ok(None)),
            ((P, "x.t.", rtype::TXT, CLASS_NONE, 0, b""), Err(YXRRSET)),
            // Not all of the RRset.
            ((P, "x.t.", rtype::TXT, CLASS_IN, 0, b"\x01a"), Err(NXRRSET)),
            ((P, "ns.t.", rtype::A, CLASS_IN, 0, &[192, 0, 2, 1]), Ok(None)),
            ((P, "ns.t.", rtype::A, CLASS_IN, 1, &[192, 0, 2, 1]), Err(FORMERR)),
            ((P, "ns.t.", rtype::A, CLASS_ANY, 0, &[192, 0, 2, 1]), Err(FORMERR)),
            ((P, "ns.t.", rtype::A, 3, 0, b""), Err(FORMERR)),
            ((P, "a.u.", rtype::ANY, CLASS_ANY, 0, b""), Err(NOTZONE)),
        ] {
            assert_eq!(run(&[line]), expected, "{line:?}");
        }
        let (a, b) = (&b"\x01a"[..], &b"\x01b"[..]);
        let both = [a, b].map(|rdata| (Section::Answer, "x.t.", rtype::TXT, CLASS_IN, 0, rdata));
        assert_eq!(run(&both), Ok(None));
    }

    #[test]
    fn records_come_and_go_with_a_serial() {
        use Section::Authority as U;
        let texts = |records: &[Record]| -> Vec<String> {
            let owner = |record: &Record| Name::from_wire(&record.owner).unwrap().to_string();
            records.iter().map(|it| format!("{} {} {}", owner(it), it.rtype, it.ttl)).collect()
        };
        let change = run(&[(U, "N.t.", rtype::A, CLASS_IN, 9, &A)]).unwrap().unwrap();
        assert_eq!((change.from, change.to), (7, 8));
        assert_eq!(texts(&change.deleted), ["t. 6 60"]);
        assert_eq!(texts(&change.added), ["t. 6 60", "n.t. 1 9"]);
        // The TTL of an RRset is one.
        let change = run(&[(U, "x.t.", rtype::TXT, CLASS_IN, 9, b"\x01c")]).unwrap().unwrap();
        assert_eq!(texts(&change.deleted), ["t. 6 60", "x.t. 16 60", "x.t. 16 60"]);
        assert_eq!(texts(&change.added)[1..], ["x.t. 16 9", "x.t. 16 9", "x.t. 16 9"]);
        let change = run(&[(U, "x.t.", rtype::TXT, CLASS_NONE, 0, b"\x01b")]).unwrap().unwrap();
        assert_eq!((change.deleted.len(), change.added.len()), (2, 1));
        let change = run(&[(U, "x.t.", rtype::ANY, CLASS_ANY, 0, b"")]).unwrap().unwrap();
        assert_eq!((change.deleted.len(), change.added.len()), (3, 1));
        let soa = b"\x02ns\0\x01h\0\0\0\0\x64\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05";
        let change = run(&[(U, "t.", rtype::SOA, CLASS_IN, 60, soa)]).unwrap().unwrap();
        assert_eq!((change.to, change.added.len()), (100, 1));
    }

    #[test]
    fn two_soas_do_not_lead_back() {
        use Section::Authority as U;
        let soa = |serial: u32| {
            let mut rdata = b"\x02ns\0\x01h\0".to_vec();
            [serial, 2, 3, 4, 5].iter().for_each(|n| rdata.extend(n.to_be_bytes()));
            rdata
        };
        let (near, far) = (soa(7 + 0x7FFF_FFFF), soa(5));
        let line = |rdata| (U, "t.", rtype::SOA, CLASS_IN, 60, rdata);
        let change = run(&[line(&near[..]), line(&far[..])]).unwrap().unwrap();
        assert_eq!((change.from, change.to), (7, 8));
    }

    #[test]
    fn what_has_no_effect() {
        use Section::Authority as U;
        let old = b"\x02ns\0\x01h\0\0\0\0\x06\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05";
        for line in [
            (U, "ns.t.", rtype::A, CLASS_IN, 60, &[192, 0, 2, 1][..]),
            (U, "x.t.", rtype::TXT, CLASS_IN, 60, b"\x01a"),
            (U, "x.t.", rtype::CNAME, CLASS_IN, 60, b"\x01n\0"),
            (U, "c.t.", rtype::A, CLASS_IN, 60, &A),
            (U, "t.", rtype::SOA, CLASS_IN, 60, old),
            (U, "x.t.", rtype::SOA, CLASS_IN, 60, old),
            (U, "t.", rtype::NS, CLASS_ANY, 0, b""),
            (U, "t.", rtype::ANY, CLASS_ANY, 0, b""),
            (U, "t.", rtype::NS, CLASS_NONE, 0, b"\x02ns\x01t\0"),
            (U, "n.t.", rtype::ANY, CLASS_ANY, 0, b""),
        ] {
            assert_eq!(run(&[line]), Ok(None), "{line:?}");
        }
    }

    #[test]
    fn what_is_refused_leaves_no_trace() {
        use Section::Authority as U;
        let good = (U, "n.t.", rtype::A, CLASS_IN, 9, &A[..]);
        for (line, code) in [
            ((U, "a.u.", rtype::A, CLASS_IN, 9, &A[..]), NOTZONE),
            ((U, "n.t.", rtype::A, CLASS_IN, 9, &A[..3]), FORMERR),
            ((U, "n.t.", rtype::ANY, CLASS_IN, 9, b""), FORMERR),
            ((U, "n.t.", rtype::A, CLASS_ANY, 9, b""), FORMERR),
            ((U, "n.t.", rtype::A, CLASS_NONE, 9, &A), FORMERR),
            ((U, "n.t.", rtype::ANY, CLASS_NONE, 0, b""), FORMERR),
            ((U, "n.t.", rtype::AXFR, CLASS_ANY, 0, b""), FORMERR),
            ((U, "n.t.", rtype::A, 3, 9, &A), FORMERR),
            ((U, "n.t.", rtype::NSEC, CLASS_IN, 9, b"\x01t\0\0\x01\x40"), REFUSED),
        ] {
            assert_eq!(run(&[good, line]), Err(code), "{line:?}");
        }
        let octets = message(&[good, (U, "x.t.", rtype::ANY, CLASS_ANY, 0, b"")]);
        let zone = zone();
        let update = read(Message::new(&octets).unwrap(), &zone.lower_apex()).unwrap();
        let only_addresses = |_: &[u8], rtype| rtype == rtype::A;
        assert_eq!(update.apply(&zone, key(), &only_addresses), Err(REFUSED));
    }
}
