//! What two answers must have in common.

use std::collections::BTreeSet;

use hickory_proto::op::Message;
use hickory_proto::rr::{RData, Record, RecordType};
use ring53::wire::{Name, rtype};

/// What must be equal: code, AA, TC, answer, authority, and a referral's glue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Essence {
    pub rcode: u16,
    pub authoritative: bool,
    pub truncated: bool,
    pub answer: BTreeSet<String>,
    pub authority: BTreeSet<String>,
    pub glue: BTreeSet<String>,
}

/// What `reply` says.
pub fn essence(reply: &[u8]) -> Essence {
    let message = Message::from_vec(reply)
        .unwrap_or_else(|error| panic!("not a message: {error}: {reply:02x?}"));
    let text = |records: &[Record]| -> BTreeSet<String> { records.iter().map(text_of).collect() };
    let referral = message.answers().is_empty()
        && message.name_servers().iter().any(|record| record.record_type() == RecordType::NS);
    Essence {
        rcode: message.response_code().into(),
        authoritative: message.authoritative(),
        truncated: message.truncated(),
        answer: text(message.answers()),
        authority: text(message.name_servers()),
        glue: if referral { text(message.additionals()) } else { BTreeSet::new() },
    }
}

// RFC 6672, 2.2: a name that substitution makes too long is answered with YXDOMAIN.
// Knot adds the SOA, and says NXDOMAIN where it would have been too long at once; NSD says NOERROR
// where it is too long at a later link of a chain.
pub fn too_long_for_a_dname(ours: &Essence, theirs: &Essence) -> bool {
    const NOERROR: u16 = 0;
    const NXDOMAIN: u16 = 3;
    const YXDOMAIN: u16 = 6;
    let is_later_link = theirs.rcode == NOERROR && !theirs.answer.is_empty();
    ours.rcode == YXDOMAIN
        && ([NXDOMAIN, YXDOMAIN].contains(&theirs.rcode) || is_later_link)
        && ours.answer == theirs.answer
}

/// A record in lower case. The library that reads messages has no DNAME.
fn text_of(record: &Record) -> String {
    let text = match record.data() {
        RData::Unknown { code, rdata } if u16::from(*code) == rtype::DNAME => {
            let target = Name::from_wire(rdata.anything())
                .map_or_else(|_| "no name".into(), |name| name.to_string());
            format!("{} {} in dname {target}", record.name(), record.ttl())
        }
        _ => record.to_string(),
    };
    text.to_lowercase()
}
