//! What a miss needs: a question goes in, a message comes out. No sockets, no clock, no cache.
//!
//! ```text
//!   ask(question, deadline) ──> Engine ──Action::Send──> whoever has the sockets ──> upstream
//!                                 ^ on_reply, on_fault, on_time <────────────────────┘
//!                                 └─Action::Done──> the answer, its security status, its errors
//! ```
//!
//! An [`Engine`] is a state machine: bytes, faults and time go in, messages, deadlines and answers
//! come out. Forwarding is the first one; recursion of our own takes the same place. Whoever drives
//! it asks each question once (single flight is its business, not the engine's) and polls for
//! actions after every call.

mod exchange;
mod explain;
mod forward;
mod query;
mod random;
mod response;
mod slab;
mod upstreams;
mod wheel;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;

use crate::wire::Name;

pub use explain::{Attempt, Ending, RouteReport, Trace, UpstreamReport, carrier_name};
pub use forward::{Forward, Forwarder};
pub use random::{Keyed, Random};
pub use slab::Slab;
pub use upstreams::{Health, Tally, Trouble};

/// Extended DNS Errors that are kept with one answer (RFC 8914).
pub const EDES_MAX: usize = 4;

//----------- Question -------------------------------------------------------

/// What is asked, as the cache tells questions apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// In lower case.
    pub name: Name,
    /// QTYPE.
    pub qtype: u16,
    /// QCLASS.
    pub qclass: u16,
    /// DO: signatures are wanted.
    pub dnssec_ok: bool,
    /// CD: the client checks them itself.
    pub checking_disabled: bool,
}

/// A question to be answered. Times are those of the driver's clock, from an origin of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked.
    pub question: Question,
    /// When nobody waits for an answer any more.
    pub deadline: Duration,
    /// Messages that may be sent for it, all attempts and sub-questions included.
    pub budget: u16,
}

/// A request, as long as it is not done; the driver's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

//----------- Answer ---------------------------------------------------------

/// Whether an answer was validated (RFC 4035, 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Nobody looked.
    Unchecked,
    /// A chain of signatures leads to a trust anchor.
    Secure,
    /// There is a proof that there is no such chain.
    Insecure,
    /// There should be one, and there is none.
    Bogus,
}

/// An Extended DNS Error (RFC 8914).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ede {
    /// INFO-CODE.
    pub code: u16,
    /// EXTRA-TEXT: UTF-8, for people.
    pub text: String,
}

/// Extended DNS Errors.
pub type Edes = ArrayVec<Ede, EDES_MAX>;

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A response whose question is the one that was asked (its name in any letter case), which is
    /// well formed as far as records go: every name can be read, every record is whole.
    Message {
        /// All of it, from the header on, OPT included.
        message: Vec<u8>,
        /// Whether it was validated.
        security: Security,
        /// What the upstream said in OPT, and what the engine adds.
        edes: Edes,
    },
    /// There is none: SERVFAIL.
    Failure {
        /// Why: at least one.
        edes: Edes,
    },
}

//----------- Exchange -------------------------------------------------------

/// A message that was sent and is waited for; the engine's numbers, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExchangeId(pub u64);

/// An upstream: its place in the engine's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamId(pub u32);

/// How a message is carried to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// A datagram from a port that is drawn for it. The driver draws the port and the ID, sends,
    /// and hands on only replies that came to this port, from this address, with this ID.
    Udp,
    /// A connection that stays open and carries many (RFC 7766).
    Tcp,
    /// The same over TLS (RFC 7858).
    Tls,
    /// HTTP/2 over TLS (RFC 8484).
    Https,
    /// QUIC (RFC 9250).
    Quic,
}

/// What went wrong with an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The peer, or somebody on the way to it, does not want it.
    Refused,
    /// A connection could not be made, or broke; why, for people.
    Connection(String),
    /// The certificate is not the upstream's; why, for people.
    Certificate(String),
    /// HTTP said no, or what came is no message; why, for people.
    Protocol(String),
    /// Nothing is left to send it with: ports, connections, room.
    NoRoom,
}

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send `message` (its ID is 0: the driver sets one) to `upstream`.
    Send {
        /// The number to report its reply or fault under.
        exchange: ExchangeId,
        /// To whom.
        upstream: UpstreamId,
        /// How.
        carrier: Carrier,
        /// The query.
        message: Vec<u8>,
    },
    /// Its reply is not waited for any more: what comes is nobody's.
    Abandon(ExchangeId),
    /// The request has ended.
    Done(RequestId, Outcome),
}

//----------- Engine ---------------------------------------------------------

/// Answers questions by asking others.
pub trait Engine {
    /// Begins a request.
    fn ask(&mut self, now: Duration, id: RequestId, request: Request);

    /// Nobody waits for it any more: it ends without [`Action::Done`], unless that is already among
    /// the actions.
    fn cancel(&mut self, id: RequestId);

    /// A datagram or message has come as the reply of `exchange`. Returns whether it was taken as
    /// one: what is not (another question, a letter in another case, no cookie) is counted and
    /// changes nothing else, and the exchange is waited for further, unless an [`Action::Abandon`]
    /// says otherwise: after several lies, or after one over a connection, which has one reply for
    /// each message.
    fn on_reply(&mut self, now: Duration, exchange: ExchangeId, message: &[u8]) -> bool;

    /// `exchange` has failed.
    fn on_fault(&mut self, now: Duration, exchange: ExchangeId, fault: Fault);

    /// Does what is due.
    fn on_time(&mut self, now: Duration);

    /// When [`Engine::on_time`] is to be called next.
    fn deadline(&self) -> Option<Duration>;

    /// The next thing to do, until there is none.
    fn poll(&mut self) -> Option<Action>;

    /// Takes back the room of a message that has been sent or read, to write the next into.
    fn recycle(&mut self, _message: Vec<u8>) {}
}

//----------- Upstream -------------------------------------------------------

/// A server to forward to, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    /// How it is asked.
    pub carrier: Carrier,
    /// The name its certificate must have; of HTTPS, the host too.
    pub server_name: Option<String>,
    /// SHA-256 of the public keys (SubjectPublicKeyInfo) it may have; with one of them its
    /// certificate need not have a name or an issuer that is known (RFC 7858, 4.2).
    pub pins: Vec<[u8; 32]>,
    /// Of HTTPS, the path.
    pub path: String,
    /// Who signs its certificate, in PEM; `None`: those this machine trusts.
    pub issuers: Option<Arc<[u8]>>,
}
