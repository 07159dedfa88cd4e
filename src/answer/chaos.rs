//! What the server says of itself in class CH (RFC 4892), if it was told to say anything.

use crate::snapshot::Identity;
use crate::wire::rcode::{NOERROR, REFUSED};
use crate::wire::{LowerName, rtype};

use super::reply::Reply;

/// Answers a query of class CH. Names that are unknown or hidden are REFUSED.
pub fn answer(identity: &Identity, name: &LowerName, qtype: u16, reply: &mut Reply<'_>) {
    let text = match name.as_wire() {
        b"\x07version\x04bind\0" | b"\x07version\x06server\0" => &identity.version,
        b"\x08hostname\x04bind\0" => &identity.hostname,
        b"\x02id\x06server\0" => &identity.id,
        _ => &None,
    };
    match text {
        Some(text) => {
            reply.rcode = NOERROR;
            reply.authoritative = true;
            if matches!(qtype, rtype::TXT | rtype::ANY) {
                reply.chaos_txt(text);
            }
        }
        None => reply.rcode = REFUSED,
    }
}
