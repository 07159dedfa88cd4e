//! The TSIG record (RFC 8945, 4.2).
//!
//! ```text
//!   key name | TSIG | ANY | 0 | rdlen | algorithm | time u48 | fudge u16 | mac_len u16 | MAC |
//!   original ID u16 | error u16 | other_len u16 | other
//! ```

use ring::hmac;

use crate::limits::TSIG_FUDGE_SECONDS;
use crate::wire::message::{CLASS_ANY, Malformed, Message, Section, add_to_count};
use crate::wire::rtype;

use super::Key;

//----------- Signature ------------------------------------------------------

/// The TSIG of a message, as it says of itself: nothing is verified.
pub struct Signature<'a> {
    /// Where the record starts.
    pub at: usize,
    /// In wire form, lower case.
    pub key_name: Vec<u8>,
    /// In wire form, lower case.
    pub algorithm: Vec<u8>,
    /// Seconds since 1970.
    pub time: u64,
    /// Seconds that clocks may differ.
    pub fudge: u16,
    /// Perhaps cut.
    pub mac: &'a [u8],
    /// The ID the message had when it was signed.
    pub original_id: u16,
    /// [`super::error`].
    pub error: u16,
    /// With BADTIME, the server's time.
    pub other: &'a [u8],
}

impl<'a> Signature<'a> {
    /// The TSIG of `message`, which must be its last record.
    pub fn find(message: Message<'a>) -> Result<Option<Signature<'a>>, Malformed> {
        let mut found = None;
        for record in message.records()? {
            let record = record?;
            // RFC 8945, 5.1: the only one, and the last record of the additional section.
            if found.is_some() {
                return Err(Malformed);
            }
            if record.rtype == rtype::TSIG {
                let placed = record.section == Section::Additional;
                if !placed || record.class != CLASS_ANY || record.ttl != 0 {
                    return Err(Malformed);
                }
                found = Some(record);
            }
        }
        let Some(record) = found else { return Ok(None) };
        let octets = message.octets();
        let mut key_name = Vec::new();
        message.expand(record.at, &mut key_name)?;
        key_name.make_ascii_lowercase();
        let mut algorithm = Vec::new();
        let fixed_at = message.expand(record.rdata.start, &mut algorithm)?;
        algorithm.make_ascii_lowercase();
        let mut rest = octets.get(fixed_at..record.rdata.end).ok_or(Malformed)?;
        let mut take = |len: usize| {
            let taken = rest.get(..len).ok_or(Malformed)?;
            rest = &rest[len..];
            Ok(taken)
        };
        let number = |octets: &[u8]| octets.iter().fold(0, |n, &octet| n << 8 | u64::from(octet));
        let time = number(take(6)?);
        let fudge = number(take(2)?) as u16;
        let mac_len = number(take(2)?) as usize;
        let mac = take(mac_len)?;
        let original_id = number(take(2)?) as u16;
        let error = number(take(2)?) as u16;
        let other_len = number(take(2)?) as usize;
        let other = take(other_len)?;
        if !rest.is_empty() {
            return Err(Malformed);
        }
        let at = record.at;
        let signature =
            Signature { at, key_name, algorithm, time, fudge, mac, original_id, error, other };
        Ok(Some(signature))
    }

    /// The message as it was signed.
    pub fn message(&self, message: Message<'_>) -> Vec<u8> {
        let mut plain = super::without_signature(message.octets(), self.at);
        plain[..2].copy_from_slice(&self.original_id.to_be_bytes());
        plain
    }
}

//----------- Variables ------------------------------------------------------

/// What is signed beside the message.
pub struct Variables<'a> {
    pub key_name: &'a [u8],
    pub algorithm: &'a [u8],
    pub time: u64,
    pub fudge: u16,
    pub error: u16,
    pub other: &'a [u8],
}

impl<'a> Variables<'a> {
    /// Of a message signed now.
    pub fn new(key: &'a Key, now: u64) -> Variables<'a> {
        Variables {
            key_name: key.name(),
            algorithm: key.algorithm().name(),
            time: now,
            fudge: TSIG_FUDGE_SECONDS,
            error: 0,
            other: &[],
        }
    }

    /// Of a message that came.
    pub fn of(signature: &'a Signature<'a>) -> Variables<'a> {
        Variables {
            key_name: &signature.key_name,
            algorithm: &signature.algorithm,
            time: signature.time,
            fudge: signature.fudge,
            error: signature.error,
            other: signature.other,
        }
    }

    /// All of them (RFC 8945, 4.3.3).
    fn whole(&self) -> Vec<u8> {
        let mut octets = self.key_name.to_ascii_lowercase();
        octets.extend_from_slice(&CLASS_ANY.to_be_bytes());
        octets.extend_from_slice(&[0; 4]);
        octets.extend_from_slice(&self.algorithm.to_ascii_lowercase());
        octets.extend_from_slice(&self.timers());
        octets.extend_from_slice(&self.error.to_be_bytes());
        octets.extend_from_slice(&(self.other.len() as u16).to_be_bytes());
        octets.extend_from_slice(self.other);
        octets
    }

    /// Signs them: the timers alone where `whole` is not asked for (RFC 8945, 5.3.1).
    pub fn update(&self, context: &mut hmac::Context, whole: bool) {
        if whole {
            context.update(&self.whole());
        } else {
            context.update(&self.timers());
        }
    }

    /// Time and fudge alone.
    fn timers(&self) -> [u8; 8] {
        let mut octets = [0; 8];
        octets[..6].copy_from_slice(&self.time.to_be_bytes()[2..]);
        octets[6..].copy_from_slice(&self.fudge.to_be_bytes());
        octets
    }
}

/// Adds the record to `message`.
pub fn append(message: &mut Vec<u8>, variables: &Variables<'_>, mac: &[u8], original_id: u16) {
    message.extend_from_slice(variables.key_name);
    message.extend_from_slice(&rtype::TSIG.to_be_bytes());
    message.extend_from_slice(&CLASS_ANY.to_be_bytes());
    message.extend_from_slice(&[0; 4]);
    let len = variables.algorithm.len() + 16 + mac.len() + variables.other.len();
    message.extend_from_slice(&(len as u16).to_be_bytes());
    message.extend_from_slice(variables.algorithm);
    message.extend_from_slice(&variables.timers());
    message.extend_from_slice(&(mac.len() as u16).to_be_bytes());
    message.extend_from_slice(mac);
    message.extend_from_slice(&original_id.to_be_bytes());
    message.extend_from_slice(&variables.error.to_be_bytes());
    message.extend_from_slice(&(variables.other.len() as u16).to_be_bytes());
    message.extend_from_slice(variables.other);
    add_to_count(message, Section::Additional as usize, 1);
}
