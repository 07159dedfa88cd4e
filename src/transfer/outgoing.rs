//! AXFR (RFC 5936) and IXFR (RFC 1995) out: who may have a zone, and its messages one by one.
//!
//! ```text
//!   SOA | every other RRset, in the order of the index | SOA
//! ```
//!
//! A transfer holds the zone it started on, while newer ones are published.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use crate::limits::{ANSWER_SIZE_DEFAULT, HEADER_LEN};
use crate::snapshot::Snapshot;
use crate::tsig::Session;
use crate::wire::message::{CLASS_IN, Malformed, Message, Section, Writer, header};
use crate::wire::rcode::{
    EDE_NOT_READY, EDE_PROHIBITED, FORMERR, NOERROR, NOTAUTH, REFUSED, Rcode, SERVFAIL,
};
use crate::wire::{LowerName, rtype};
use crate::zone::change::Change;
use crate::zone::records::{Cursor, Expanded, Place, expand, signatures};
use crate::zone::{Rrset, Zone, flag};

use super::pack::{Packer, Parts};

/// Extended DNS Errors (RFC 8914).
const OPTION_EDE: u16 = 15;
const UDP_SIZE: u16 = ANSWER_SIZE_DEFAULT as u16;
/// Changes of more octets are sent as they are: finding out what they come to takes too long.
const CONDENSED_OCTETS_MAX: usize = 4 << 20;

//----------- Request --------------------------------------------------------

/// Why there is no transfer: the code of the reply, and an Extended DNS Error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied(pub Rcode, pub Option<u16>);

/// What a request for a transfer gets.
pub enum Granted {
    /// Messages until there is none left.
    Messages(Box<Outgoing>),
    /// The current SOA alone: the peer is up to date (RFC 1995, 2).
    Current(Arc<Zone>),
}

/// Decides on a request from `peer`, which was signed with the key named `key` if any was. The
/// message is without its TSIG; `reserve` octets are kept free in each message of the answer.
pub fn begin(
    snapshot: &Snapshot,
    message: Message<'_>,
    peer: IpAddr,
    key: Option<&[u8]>,
    reserve: usize,
) -> Result<Granted, Denied> {
    let malformed = |_: Malformed| Denied(FORMERR, None);
    let question = message.question().map_err(malformed)?.ok_or(Denied(FORMERR, None))?;
    let Some(index) = snapshot.zone_named(&question.name) else {
        // RFC 5936, 2.2.1: not authoritative for the zone.
        return Err(Denied(NOTAUTH, None));
    };
    if !snapshot.rules(index).transfer.allows(peer, key) {
        return Err(Denied(REFUSED, Some(EDE_PROHIBITED)));
    }
    let Some(zone) = snapshot.zone(index).zone() else {
        return Err(Denied(SERVFAIL, Some(EDE_NOT_READY)));
    };
    if question.qclass != CLASS_IN {
        return Err(Denied(REFUSED, None));
    }
    let id = message.id();
    if question.qtype == rtype::IXFR {
        let serial = requested_serial(message).ok_or(Denied(FORMERR, None))?;
        // RFC 1982: neither older nor incomparable.
        if (zone.serial().wrapping_sub(serial) as i32) <= 0 {
            return Ok(Granted::Current(Arc::clone(zone)));
        }
        let changes = snapshot.journal(index).and_then(|journal| journal.since(serial));
        if let Some(changes) = changes.and_then(|changes| worthwhile(zone, changes)) {
            let mut outgoing = Outgoing::new(Arc::clone(zone), id, question.qtype, reserve);
            outgoing.changes = changes;
            return Ok(Granted::Messages(Box::new(outgoing)));
        }
    }
    Ok(Granted::Messages(Box::new(Outgoing::new(Arc::clone(zone), id, question.qtype, reserve))))
}

/// The changes to send, condensed if that is shorter (RFC 1995, 5); `None` if the whole zone is.
fn worthwhile(zone: &Zone, changes: &[Arc<Change>]) -> Option<Vec<Arc<Change>>> {
    let len = |changes: &[Arc<Change>]| changes.iter().map(|change| change.len()).sum::<usize>();
    let mut best = changes.to_vec();
    if changes.len() > 1
        && len(&best) <= CONDENSED_OCTETS_MAX
        && let Some(condensed) = Change::condensed(changes)
        && condensed.len() < len(&best)
    {
        best = vec![Arc::new(condensed)];
    }
    (len(&best) < zone.memory_len()).then_some(best)
}

/// The serial of the SOA that an IXFR request has in its authority section.
fn requested_serial(message: Message<'_>) -> Option<u32> {
    let records = message.records().ok()?;
    let soa = records
        .map_while(Result::ok)
        .find(|record| record.section == Section::Authority && record.rtype == rtype::SOA)?;
    let rdata = &message.octets()[soa.rdata];
    let numbers = rdata.get(rdata.len().checked_sub(20)?..)?;
    Some(u32::from_be_bytes(numbers[..4].try_into().expect("four octets")))
}

/// The reply that says why there is no transfer.
pub fn denial(message: Message<'_>, denied: Denied) -> Vec<u8> {
    let mut writer = Writer::reply(message, denied.0);
    // RFC 6891, 7: no OPT for whoever sent none.
    let has_opt = message.records().is_ok_and(|records| {
        records.map_while(Result::ok).any(|record| record.rtype == rtype::OPT)
    });
    if let Some(error) = denied.1.filter(|_| has_opt) {
        writer.opt(UDP_SIZE, Some((OPTION_EDE, &error.to_be_bytes())));
    }
    writer.into_octets()
}

/// The reply that says that the peer is up to date.
pub fn current(message: Message<'_>, zone: &Zone) -> Vec<u8> {
    let mut writer = Writer::reply(message, NOERROR);
    writer.set_flags(header::AA);
    let apex = zone.node(zone.apex_at());
    if let Some(soa) = apex.rrset(rtype::SOA) {
        for record in expand(soa, &zone.lower_apex()) {
            let owner = zone.apex_wire();
            writer.record(Section::Answer, owner, rtype::SOA, record.ttl, &record.rdata);
        }
    }
    writer.into_octets()
}

//----------- Outgoing -------------------------------------------------------

/// One transfer on its way out.
pub struct Outgoing {
    zone: Arc<Zone>,
    id: u16,
    qtype: u16,
    reserve: usize,
    /// Signs every message.
    session: Option<Session>,
    step: Step,
    /// Instead of the whole zone.
    changes: Vec<Arc<Change>>,
    /// Records of an RRset that fills more than a message.
    pending: VecDeque<(LowerName, u16, Expanded)>,
    /// Records sent so far.
    pub record_count: u64,
}

#[derive(Clone, Copy)]
enum Step {
    FirstSoa,
    /// So many RRsets of the next place have been sent.
    Places(Cursor, usize),
    /// So many changes have been sent, and so many records of the next.
    Changes(usize, usize),
    LastSoa,
    Done,
}

/// A message is full.
struct Full;

/// A record does not fit in any message: nobody can transfer the zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

impl Outgoing {
    fn new(zone: Arc<Zone>, id: u16, qtype: u16, reserve: usize) -> Outgoing {
        Outgoing {
            zone,
            id,
            qtype,
            reserve,
            session: None,
            step: Step::FirstSoa,
            changes: Vec::new(),
            pending: VecDeque::new(),
            record_count: 0,
        }
    }

    /// The zone it is of.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// In words, whether it is the whole zone or changes.
    pub fn way(&self) -> String {
        match self.changes.len() {
            0 => "whole".into(),
            count => format!("{count} changes"),
        }
    }

    /// The same, its messages signed in `session` if there is one.
    pub fn signed(mut self: Box<Outgoing>, session: Option<Session>) -> Box<Outgoing> {
        self.session = session;
        self
    }

    /// Writes the next message, signed at `now`, to `out`. `false` if there is none left.
    pub fn next(&mut self, out: &mut Vec<u8>, now: u64) -> Result<bool, TooLarge> {
        if matches!(self.step, Step::Done) {
            return Ok(false);
        }
        let zone = Arc::clone(&self.zone);
        let apex = zone.lower_apex();
        let mut packer = Packer::new(out, self.id, &apex, self.qtype, self.reserve);
        let _full = self.fill(&zone, &mut packer);
        if packer.is_empty() {
            return Err(TooLarge);
        }
        packer.finish();
        self.record_count += u64::from(u16::from_be_bytes([out[6], out[7]]));
        if let Some(session) = &mut self.session {
            session.sign(out, now);
        }
        Ok(true)
    }

    fn fill(&mut self, zone: &Zone, packer: &mut Packer<'_>) -> Result<(), Full> {
        let apex = &zone.lower_apex();
        let soa = zone.node(zone.apex_at()).rrset(rtype::SOA);
        loop {
            while let Some((owner, rtype, record)) = self.pending.front() {
                if !packer.record(owner, *rtype, record.ttl, &record.rdata) {
                    return Err(Full);
                }
                self.pending.pop_front();
            }
            match self.step {
                Step::FirstSoa | Step::LastSoa => {
                    let at = &mut Some(HEADER_LEN).filter(|_| !apex.is_empty());
                    if !soa.is_none_or(|soa| packer.rrset(apex, at, soa, Parts::Records)) {
                        return Err(Full);
                    }
                    self.step = match self.step {
                        Step::FirstSoa if self.changes.is_empty() => {
                            Step::Places(Cursor::default(), 0)
                        }
                        Step::FirstSoa => Step::Changes(0, 0),
                        _ => Step::Done,
                    };
                }
                Step::Places(cursor, sent) => {
                    let mut next = cursor;
                    let Some(place) = zone.next_place(&mut next) else {
                        self.step = Step::LastSoa;
                        continue;
                    };
                    self.step = Step::Places(next, 0);
                    if let Err((sent, Full)) = self.place(zone, place, sent, packer) {
                        self.step = Step::Places(cursor, sent);
                        if self.pending.is_empty() {
                            return Err(Full);
                        }
                    }
                }
                Step::Changes(number, sent) => self.changes(number, sent, packer)?,
                Step::Done => return Ok(()),
            }
        }
    }

    /// Adds the records of change `number` from record `sent` on.
    fn changes(&mut self, number: usize, sent: usize, packer: &mut Packer<'_>) -> Result<(), Full> {
        let Some(change) = self.changes.get(number) else {
            self.step = Step::LastSoa;
            return Ok(());
        };
        let records = change.deleted.iter().chain(&change.added);
        for (i, record) in records.enumerate().skip(sent) {
            let mut owner = LowerName::new();
            owner.read(&record.owner).expect("a name is a name");
            if !packer.record(&owner, record.rtype, record.ttl, &record.rdata) {
                self.step = Step::Changes(number, i);
                return Err(Full);
            }
        }
        self.step = Step::Changes(number + 1, 0);
        Ok(())
    }

    /// Adds the RRsets of a place from number `sent` on; the error says how many then were.
    fn place(
        &mut self,
        zone: &Zone,
        place: Place<'_>,
        sent: usize,
        packer: &mut Packer<'_>,
    ) -> Result<(), (usize, Full)> {
        let node = match place {
            Place::Node(node) => node,
            Place::Block(block) => {
                let (records, signatures) = block.counts();
                let fits = packer.block(block, records, signatures);
                return if fits { Ok(()) } else { Err((0, Full)) };
            }
        };
        let owner = zone.name_of(node);
        let is_apex = node.flags() & flag::APEX != 0;
        let mut owner_at = (is_apex && !owner.is_empty()).then_some(HEADER_LEN);
        for (i, rrset) in node.rrsets().enumerate().skip(sent) {
            let is_soa = is_apex && rrset.rtype == rtype::SOA;
            let parts = if is_soa { Parts::Signatures } else { Parts::Both };
            if packer.rrset(&owner, &mut owner_at, rrset, parts) {
                continue;
            }
            if !packer.is_empty() {
                return Err((i, Full));
            }
            // Too much for one message: from here on record by record.
            self.keep(&owner, rrset, parts);
            return Err((i + 1, Full));
        }
        Ok(())
    }

    fn keep(&mut self, owner: &LowerName, rrset: Rrset<'_>, parts: Parts) {
        let mut keep = |rtype, records: Vec<Expanded>| {
            self.pending.extend(records.into_iter().map(|record| (owner.clone(), rtype, record)));
        };
        if parts == Parts::Both {
            keep(rrset.rtype, expand(rrset, owner));
        }
        keep(rtype::RRSIG, signatures(rrset));
    }
}
