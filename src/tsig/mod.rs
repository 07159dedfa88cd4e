//! TSIG (RFC 8945): messages signed with a shared secret, one at a time and as streams.
//!
//! ```text
//!   request    HMAC( message | variables )
//!   response   HMAC( request's MAC | message | variables )
//!   stream     HMAC( last MAC | messages since | time, fudge )      2nd signature on
//!
//!   message    without its TSIG, with the original ID
//!   variables  key name | ANY | 0 | algorithm | time | fudge | error | other
//! ```
//!
//! Time comes in, in seconds since 1970; nothing here looks at a clock.

mod key;
mod record;

pub use key::{Algorithm, Key, Keys};
pub use record::Signature;

use ring::hmac;

use crate::limits::{TSIG_FUDGE_SECONDS, TSIG_UNSIGNED_MAX};
use crate::wire::message::{Malformed, Message, add_to_count};
use crate::wire::rcode::{FORMERR, NOTAUTH};

use record::{Variables, append};

/// Errors that a TSIG record itself tells (RFC 8945, 3).
pub mod error {
    /// The MAC is wrong.
    pub const BADSIG: u16 = 16;
    /// The key is not known.
    pub const BADKEY: u16 = 17;
    /// The time is off by more than the fudge.
    pub const BADTIME: u16 = 18;
    /// The MAC is shorter than is accepted.
    pub const BADTRUNC: u16 = 22;
}

//----------- Requests -------------------------------------------------------

/// What a request's TSIG says.
pub enum Verified {
    /// There is none.
    Unsigned,
    /// It holds: the replies are to be signed in this session.
    Signed(Session),
    /// It does not: the reply that says so.
    Refused(Refusal),
}

/// How to answer a request whose TSIG does not hold.
pub struct Refusal {
    /// The code of the reply: NOTAUTH or FORMERR.
    pub rcode: u16,
    /// The code in its TSIG: [`error`]; 0 if there is none.
    pub error: u16,
    /// Signs the reply, which only BADTIME has.
    session: Option<Session>,
    /// The request's TSIG, for the reply's.
    key_name: Vec<u8>,
    algorithm: Vec<u8>,
    original_id: u16,
    time: u64,
    fudge: u16,
}

/// Looks at the TSIG of a request that came at `now`. Also returns where the request ends without
/// it: what is before is the message, but for the count of its additional records.
pub fn verify_request(keys: &Keys, message: Message<'_>, now: u64) -> (Verified, usize) {
    let whole = message.octets().len();
    let signature = match Signature::find(message) {
        Ok(None) => return (Verified::Unsigned, whole),
        Ok(Some(signature)) => signature,
        Err(Malformed) => {
            let refusal = Refusal {
                rcode: FORMERR,
                error: 0,
                session: None,
                key_name: Vec::new(),
                algorithm: Vec::new(),
                original_id: 0,
                time: 0,
                fudge: 0,
            };
            return (Verified::Refused(refusal), whole);
        }
    };
    let end = signature.at;
    let refuse = |rcode, error, session| {
        Verified::Refused(Refusal {
            rcode,
            error,
            session,
            key_name: signature.key_name.clone(),
            algorithm: signature.algorithm.clone(),
            original_id: signature.original_id,
            time: signature.time,
            fudge: signature.fudge,
        })
    };
    // RFC 8945, 5.2: first the key, then the MAC, then the time; each failure has its code (5.2.1
    // to 5.2.3).
    let Some(key) = keys.find(&signature.key_name, &signature.algorithm) else {
        return (refuse(NOTAUTH, error::BADKEY, None), end);
    };
    let mut context = key.context();
    context.update(&signature.message(message));
    Variables::of(&signature).update(&mut context, true);
    let matched = key.matches(context, signature.mac);
    match matched {
        Match::Malformed => return (refuse(FORMERR, 0, None), end),
        Match::Differs => return (refuse(NOTAUTH, error::BADSIG, None), end),
        Match::TooShort | Match::Equal => {}
    }
    let session = Session::new(key.clone(), signature.mac.to_vec());
    if now.abs_diff(signature.time) > u64::from(signature.fudge) {
        return (refuse(NOTAUTH, error::BADTIME, Some(session)), end);
    }
    if matched == Match::TooShort {
        return (refuse(NOTAUTH, error::BADTRUNC, Some(session)), end);
    }
    (Verified::Signed(session), end)
}

impl Refusal {
    /// Adds to `reply`, which repeats the request's question, the TSIG that says what was wrong.
    pub fn sign(self, reply: &mut Vec<u8>, now: u64) {
        if self.error == 0 {
            return;
        }
        if let Some(mut session) = self.session {
            // RFC 8945, 5.2.3: signed with the client's time, so that the client can verify it and
            // learn the server's.
            let (time, fudge, ours) = match self.error {
                error::BADTIME => (self.time, self.fudge, &now.to_be_bytes()[2..]),
                _ => (now, TSIG_FUDGE_SECONDS, &[][..]),
            };
            let key = session.key.clone();
            let (error, new) = (self.error, Variables::new(&key, time));
            return session.sign_with(reply, &Variables { fudge, error, other: ours, ..new });
        }
        // RFC 8945, 5.3.2: not signed, for there is no key to do it with.
        let variables = Variables {
            key_name: &self.key_name,
            algorithm: &self.algorithm,
            time: now,
            fudge: TSIG_FUDGE_SECONDS,
            error: self.error,
            other: &[],
        };
        append(reply, &variables, &[], self.original_id);
    }
}

//----------- Session --------------------------------------------------------

/// One request and the messages that answer it, seen from either side.
pub struct Session {
    key: Key,
    /// The MAC before: the request's, then that of the last signed message.
    mac: Vec<u8>,
    is_first: bool,
    /// Over the MAC before and the messages since.
    context: hmac::Context,
    unsigned_count: usize,
}

/// Why a message of a session does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its TSIG cannot be read, or stands where it must not.
    Malformed,
    /// It has no TSIG, and must.
    Missing,
    /// Signed with another key or algorithm.
    OtherKey,
    /// The MAC is wrong, or cut too short.
    BadMac,
    /// The time is off by more than the fudge.
    BadTime,
    /// The peer tells an error: [`error`].
    Told(u16),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Fault::Malformed => "its TSIG cannot be read",
            Fault::Missing => "it has none: do both sides have the key?",
            Fault::OtherKey => "it has another key or algorithm",
            Fault::BadMac => "the MAC is wrong: is the secret the same on both sides?",
            Fault::BadTime => "its time is off: compare the clocks",
            Fault::Told(error::BADSIG) => "the peer says BADSIG: is the secret the same there?",
            Fault::Told(error::BADKEY) => "the peer says BADKEY: it does not know the key",
            Fault::Told(error::BADTIME) => "the peer says BADTIME: compare the clocks",
            Fault::Told(error::BADTRUNC) => "the peer says BADTRUNC: it wants longer MACs",
            Fault::Told(_) => "the peer tells an error",
        })
    }
}

impl Session {
    /// A session after a request with this MAC.
    fn new(key: Key, mac: Vec<u8>) -> Session {
        let context = key.context();
        let mut session = Session { key, mac, is_first: true, context, unsigned_count: 0 };
        session.restart();
        session
    }

    /// Signs `request` and starts its session.
    pub fn request(key: &Key, request: &mut Vec<u8>, now: u64) -> Session {
        let mut context = key.context();
        context.update(request);
        let variables = Variables::new(key, now);
        variables.update(&mut context, true);
        let mac = context.sign().as_ref().to_vec();
        let id = u16::from_be_bytes([request[0], request[1]]);
        append(request, &variables, &mac, id);
        Session::new(key.clone(), mac)
    }

    /// The key it is signed with.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Octets that signing adds to a message.
    pub fn signature_len(&self) -> usize {
        let names = self.key.name().len() + self.key.algorithm().name().len();
        names + 10 + 16 + self.key.algorithm().mac_len()
    }

    fn restart(&mut self) {
        self.context = self.key.context();
        self.context.update(&(self.mac.len() as u16).to_be_bytes());
        self.context.update(&self.mac);
        self.unsigned_count = 0;
    }

    /// Signs the next message.
    pub fn sign(&mut self, message: &mut Vec<u8>, now: u64) {
        let key = self.key.clone();
        self.sign_with(message, &Variables::new(&key, now));
    }

    fn sign_with(&mut self, message: &mut Vec<u8>, variables: &Variables<'_>) {
        self.context.update(message);
        self.finish(variables);
        let id = u16::from_be_bytes([message[0], message[1]]);
        append(message, variables, &self.mac, id);
    }

    /// The MAC of what was taken in so far becomes the one before.
    fn finish(&mut self, variables: &Variables<'_>) {
        // RFC 8945, 5.3.1: from the second signature of a stream on, only the timers.
        variables.update(&mut self.context, self.is_first);
        self.mac = self.context.clone().sign().as_ref().to_vec();
        self.is_first = false;
        self.restart();
    }

    /// Checks the next message of the other side; says whether it was signed.
    pub fn check(&mut self, message: Message<'_>, now: u64) -> Result<bool, Fault> {
        let Some(signature) = Signature::find(message).map_err(|_| Fault::Malformed)? else {
            // RFC 8945, 5.3.1: the first message is signed, then at least every hundredth.
            self.unsigned_count += 1;
            if self.is_first || self.unsigned_count > TSIG_UNSIGNED_MAX {
                return Err(Fault::Missing);
            }
            self.context.update(message.octets());
            return Ok(false);
        };
        let is_same_key = signature.key_name.eq_ignore_ascii_case(self.key.name())
            && signature.algorithm.eq_ignore_ascii_case(self.key.algorithm().name());
        if !is_same_key {
            return Err(Fault::OtherKey);
        }
        if signature.mac.is_empty() && signature.error != 0 {
            return Err(Fault::Told(signature.error));
        }
        self.context.update(&signature.message(message));
        let variables = Variables::of(&signature);
        let mut context = self.context.clone();
        variables.update(&mut context, self.is_first);
        if self.key.matches(context, signature.mac) != Match::Equal {
            return Err(Fault::BadMac);
        }
        if signature.error != 0 {
            return Err(Fault::Told(signature.error));
        }
        if now.abs_diff(signature.time) > u64::from(signature.fudge) {
            return Err(Fault::BadTime);
        }
        self.mac = signature.mac.to_vec();
        self.is_first = false;
        self.restart();
        Ok(true)
    }
}

/// How a MAC compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Match {
    Equal,
    Differs,
    /// Of a length that no MAC of the algorithm has.
    Malformed,
    /// Cut shorter than the key accepts.
    TooShort,
}

impl Key {
    fn context(&self) -> hmac::Context {
        hmac::Context::with_key(self.hmac())
    }

    fn matches(&self, context: hmac::Context, mac: &[u8]) -> Match {
        // RFC 8945, 5.2.2.1: a MAC longer than the hash, or shorter than ten octets or half of it,
        // is FORMERR; one that is cut more than the key accepts is BADTRUNC (5.2.4).
        let full = self.algorithm().mac_len();
        if mac.len() > full || mac.len() < (full / 2).max(10) {
            return Match::Malformed;
        }
        let tag = context.sign();
        let differing = tag
            .as_ref()
            .iter()
            .zip(mac)
            .fold(0, |differing, (ours, theirs)| differing | ours ^ theirs);
        match differing {
            0 if mac.len() < self.mac_len_min() => Match::TooShort,
            0 => Match::Equal,
            _ => Match::Differs,
        }
    }
}

/// `message` up to `end`, where its TSIG starts, as a message without one.
pub fn without_signature(message: &[u8], end: usize) -> Vec<u8> {
    let mut plain = message[..end].to_vec();
    if end < message.len() {
        add_to_count(&mut plain, 3, 0xFFFF);
    }
    plain
}

#[cfg(test)]
mod tests;
