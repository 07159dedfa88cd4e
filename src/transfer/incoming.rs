//! AXFR and IXFR in: messages of a primary, one after the other, until the transfer is whole.
//!
//! ```text
//!   AXFR   SOA new | records ... | SOA new
//!   IXFR   SOA new | SOA old | deleted ... | SOA next | added ... | SOA next | ... | SOA new
//!          SOA old                                      nothing is newer
//!          SOA new | records ... | SOA new              the primary has no changes to offer
//! ```
//!
//! Nothing a primary sends is believed: sizes and counts are bounded, the serials must chain, every
//! record must be in the zone and of the form its type has, and the signatures must hold to the
//! last message.

use crate::limits::TRANSFER_RECORDS_MAX;
use crate::tsig::{self, Session};
use crate::wire::message::{
    CLASS_IN, Message, RecordAt, Section, Writer, header, is_label_start, opcode,
};
use crate::wire::{LowerName, Name, rtype};
use crate::zone::LoadOptions;
use crate::zone::change::{Change, Record};
use crate::zone::intake::{BadRdata, Intake, expanded, soa_numbers};

//----------- Fault ----------------------------------------------------------

/// Why a transfer failed; the primary is at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not a message, or cut short.
    Malformed,
    /// Not a response to this request.
    Unexpected(&'static str),
    /// It refused, with this code.
    Refused(u16),
    /// Its signature does not hold.
    Signature(tsig::Fault),
    /// A record that no zone has: its number, its type.
    Record(u64, u16),
    /// The serials do not chain.
    Serials,
    /// More than a limit allows.
    TooMuch(&'static str),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Malformed => f.write_str("sent a message that cannot be read"),
            Fault::Unexpected(what) => write!(f, "sent {what}"),
            Fault::Refused(code) => {
                write!(f, "answered {}", crate::wire::rcode::name(*code))
            }
            Fault::Signature(fault) => write!(f, "sent a message whose signature fails: {fault}"),
            Fault::Record(number, rtype) => write!(
                f,
                "sent a record that cannot be in the zone: number {number}, {}",
                rtype::name(*rtype)
            ),
            Fault::Serials => f.write_str("sent changes whose serials do not follow each other"),
            Fault::TooMuch(what) => write!(f, "sent more than {what}"),
        }
    }
}

//----------- Incoming -------------------------------------------------------

/// What a transfer brought.
pub enum Brought {
    /// Nothing is newer than what was asked with.
    Nothing,
    /// All records, still to be built and checked.
    Whole(Box<Intake>),
    /// Changes to what was asked with, the oldest first.
    Changes(Vec<Change>),
}

/// One transfer on its way in.
pub struct Incoming {
    apex: LowerName,
    id: u16,
    /// The serial that changes are asked for from.
    serial: Option<u32>,
    session: Option<Session>,
    state: State,
    first_soa: Vec<u8>,
    intake: Intake,
    changes: Vec<Change>,
    record_count: u64,
    octet_count: u64,
    octets_max: u64,
    is_signed: bool,
    /// The answer was that there is nothing newer.
    is_current: bool,
    owner: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing has come.
    Start,
    /// The first SOA of an answer to IXFR.
    AfterSoa,
    /// All records.
    Whole,
    Deleting,
    Adding,
    Done,
}

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The ID of the request.
    pub id: u16,
    /// Changes since then, or the whole zone.
    pub serial: Option<u32>,
    /// Octets that the transfer may have.
    pub octets_max: u64,
}

/// The request: changes since `serial`, or the whole zone. `soa` is sent along with the serial.
pub fn request(id: u16, apex: &Name, soa: Option<&[u8]>) -> Vec<u8> {
    let mut writer = Writer::new(id, Writer::flags_of(opcode::QUERY));
    let qtype = if soa.is_some() { rtype::IXFR } else { rtype::AXFR };
    writer.question(apex.as_wire(), qtype, CLASS_IN);
    if let Some(soa) = soa {
        writer.record(Section::Authority, apex.as_wire(), rtype::SOA, 0, soa);
    }
    writer.into_octets()
}

impl Incoming {
    /// A transfer of `apex` that was asked for with `request`.
    pub fn new(
        apex: &Name,
        request: Request,
        session: Option<Session>,
        options: &LoadOptions,
    ) -> Incoming {
        let mut lower = LowerName::new();
        lower.read(apex.as_wire()).expect("a name is a name");
        Incoming {
            apex: lower,
            id: request.id,
            serial: request.serial,
            session,
            state: State::Start,
            first_soa: Vec::new(),
            intake: Intake::new(apex, options),
            changes: Vec::new(),
            record_count: 0,
            octet_count: 0,
            octets_max: request.octets_max,
            is_signed: true,
            is_current: false,
            owner: Vec::new(),
        }
    }

    /// Takes the next message, which came at `now`; whether it was the last.
    pub fn message(&mut self, octets: &[u8], now: u64) -> Result<bool, Fault> {
        let message = Message::new(octets).ok_or(Fault::Malformed)?;
        if let Some(session) = &mut self.session {
            self.is_signed = session.check(message, now).map_err(Fault::Signature)?;
        }
        if message.id() != self.id || !message.is_response() {
            return Err(Fault::Unexpected("something that is no answer to the request"));
        }
        if message.rcode() != 0 {
            return Err(Fault::Refused(message.rcode()));
        }
        if message.flags() & header::TC != 0 {
            return Err(Fault::Unexpected("a truncated message"));
        }
        self.check_question(message)?;
        for record in message.records().map_err(|_| Fault::Malformed)? {
            let record = record.map_err(|_| Fault::Malformed)?;
            if record.section == Section::Answer {
                self.record(message, &record)?;
            }
        }
        if self.state == State::AfterSoa && self.is_nothing_newer() {
            self.state = State::Done;
            self.is_current = true;
        }
        if self.state == State::Start {
            return Err(Fault::Unexpected("no SOA"));
        }
        if self.state == State::Done && !self.is_signed {
            return Err(Fault::Signature(tsig::Fault::Missing));
        }
        Ok(self.state == State::Done)
    }

    fn check_question(&self, message: Message<'_>) -> Result<(), Fault> {
        let question = message.question().map_err(|_| Fault::Malformed)?;
        let is_ours =
            question.is_none_or(|question| question.name.eq_ignore_ascii_case(self.apex.as_wire()));
        if is_ours { Ok(()) } else { Err(Fault::Unexpected("an answer for another zone")) }
    }

    /// Whether the SOA that came says that there is nothing newer.
    fn is_nothing_newer(&self) -> bool {
        let new = soa_numbers(&self.first_soa).map(|numbers| numbers[0]);
        let newer = |new: u32| self.serial.is_some_and(|old| (new.wrapping_sub(old) as i32) > 0);
        // A primary whose one SOA is newer will send more (RFC 1995, 4: in the next message).
        !new.is_some_and(newer)
    }

    /// What came, once the last message has.
    pub fn finish(self) -> Brought {
        debug_assert_eq!(self.state, State::Done);
        if self.is_current {
            Brought::Nothing
        } else if !self.changes.is_empty() {
            Brought::Changes(self.changes)
        } else {
            Brought::Whole(Box::new(self.intake))
        }
    }

    fn record(&mut self, message: Message<'_>, record: &RecordAt) -> Result<(), Fault> {
        self.record_count += 1;
        if self.record_count > TRANSFER_RECORDS_MAX {
            return Err(Fault::TooMuch("the records a transfer may have"));
        }
        let bad = Fault::Record(self.record_count, record.rtype);
        let mut owner = std::mem::take(&mut self.owner);
        owner.clear();
        message.expand(record.at, &mut owner).map_err(|_| Fault::Malformed)?;
        let result = if record.class == CLASS_IN {
            self.take(message, &owner, record, bad)
        } else {
            Err(bad)
        };
        self.owner = owner;
        result
    }

    fn take(
        &mut self,
        message: Message<'_>,
        owner: &[u8],
        record: &RecordAt,
        bad: Fault,
    ) -> Result<(), Fault> {
        if record.rtype == rtype::SOA {
            if !owner.eq_ignore_ascii_case(self.apex.as_wire()) {
                return Err(bad);
            }
            let rdata = expanded(rtype::SOA, message.octets(), record.rdata.clone());
            return self.soa(record.ttl, rdata.ok_or(bad)?);
        }
        match self.state {
            State::Start => Err(Fault::Unexpected("records before a SOA")),
            State::Done => Err(Fault::Unexpected("records after the end")),
            State::AfterSoa | State::Whole => {
                // From the second record on it is clear that all records come.
                self.state = State::Whole;
                if !is_within(owner, &self.apex) {
                    return Err(bad);
                }
                let kind = (record.rtype, record.class, record.ttl);
                let taken =
                    self.intake.record_of(message.octets(), owner, kind, record.rdata.clone());
                let len = taken.map_err(|BadRdata| bad)?;
                self.count(owner.len() + len)
            }
            State::Deleting | State::Adding => {
                let rdata = expanded(record.rtype, message.octets(), record.rdata.clone());
                let rdata = rdata.ok_or_else(|| bad.clone())?;
                if !is_within(owner, &self.apex) {
                    return Err(bad);
                }
                let change = self.changes.last_mut().expect("a change was begun");
                let list = if self.state == State::Deleting {
                    &mut change.deleted
                } else {
                    &mut change.added
                };
                let len = owner.len() + rdata.len();
                let owner = owner.to_ascii_lowercase().into();
                let (rtype, ttl, rdata) = (record.rtype, record.ttl, rdata.into());
                list.push(Record { owner, rtype, ttl, rdata });
                self.count(len)
            }
        }
    }

    /// Counts what a record takes in memory: compressed it may be much less.
    fn count(&mut self, len: usize) -> Result<(), Fault> {
        const OVERHEAD: u64 = 64;
        self.octet_count += len as u64 + OVERHEAD;
        if self.octet_count > self.octets_max {
            return Err(Fault::TooMuch("transfer_size_max"));
        }
        Ok(())
    }

    fn soa(&mut self, ttl: u32, rdata: Vec<u8>) -> Result<(), Fault> {
        let serial = soa_numbers(&rdata).ok_or(Fault::Malformed)?[0];
        let new = soa_numbers(&self.first_soa).map(|numbers| numbers[0]);
        let is_last = new == Some(serial);
        let owner: Box<[u8]> = self.apex.as_wire().into();
        let record = |rdata: Vec<u8>| Record {
            owner: owner.clone(),
            rtype: rtype::SOA,
            ttl,
            rdata: rdata.into(),
        };
        match self.state {
            State::Start => {
                self.first_soa.clone_from(&rdata);
                let taken = self.intake.record(&owner, rtype::SOA, ttl, &rdata);
                taken.map_err(|BadRdata| Fault::Malformed)?;
                self.state = if self.serial.is_some() { State::AfterSoa } else { State::Whole };
            }
            State::AfterSoa if Some(serial) == self.serial && !is_last => {
                self.begin_change(serial, record(rdata));
            }
            // The end of a whole zone: the SOA must be the one at the start.
            State::AfterSoa | State::Whole if rdata == self.first_soa => self.state = State::Done,
            State::AfterSoa | State::Whole => return Err(Fault::Serials),
            State::Deleting => {
                let change = self.changes.last_mut().expect("a change was begun");
                if (serial.wrapping_sub(change.from) as i32) <= 0 {
                    return Err(Fault::Serials);
                }
                change.to = serial;
                change.added.push(record(rdata));
                self.state = State::Adding;
            }
            State::Adding => {
                let to = self.changes.last().map(|change| change.to);
                if to != Some(serial) {
                    return Err(Fault::Serials);
                }
                if is_last {
                    self.state = State::Done;
                } else {
                    self.begin_change(serial, record(rdata));
                }
            }
            State::Done => return Err(Fault::Unexpected("a SOA after the end")),
        }
        Ok(())
    }

    fn begin_change(&mut self, from: u32, soa: Record) {
        let deleted = vec![soa];
        self.changes.push(Change { from, to: from, deleted, added: Vec::new() });
        self.state = State::Deleting;
    }
}

/// Whether a name in wire form is at or below `apex`.
fn is_within(owner: &[u8], apex: &LowerName) -> bool {
    let Some(start) = owner.len().checked_sub(apex.len()) else { return false };
    owner[start..].eq_ignore_ascii_case(apex.as_wire()) && is_label_start(owner, start)
}
