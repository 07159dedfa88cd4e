//! Response codes (RFC 6895, 2.3) and Extended DNS Errors (RFC 8914).

/// A response code; those above 15 need EDNS.
pub type Rcode = u16;

/// No error.
pub const NOERROR: Rcode = 0;
/// The query could not be read.
pub const FORMERR: Rcode = 1;
/// The server could not answer.
pub const SERVFAIL: Rcode = 2;
/// The name does not exist.
pub const NXDOMAIN: Rcode = 3;
/// The kind of query is not supported.
pub const NOTIMP: Rcode = 4;
/// The server does not answer this.
pub const REFUSED: Rcode = 5;
/// A name would have become too long (RFC 6672, 2.2).
pub const YXDOMAIN: Rcode = 6;
/// An RRset exists that should not (RFC 2136, 2.2).
pub const YXRRSET: Rcode = 7;
/// An RRset that should exist does not (RFC 2136, 2.2).
pub const NXRRSET: Rcode = 8;
/// The server is not authoritative for the zone, or a signature does not hold (RFC 8945, 3).
pub const NOTAUTH: Rcode = 9;
/// A name is not in the zone (RFC 2136, 2.2).
pub const NOTZONE: Rcode = 10;
/// The EDNS version is not supported.
pub const BADVERS: Rcode = 16;
/// The server cookie is missing or not the server's (RFC 7873, 8).
pub const BADCOOKIE: Rcode = 23;

/// EDE: something that no other code says.
pub const EDE_OTHER: u16 = 0;
/// EDE: the answer is past its TTL (RFC 8767).
pub const EDE_STALE_ANSWER: u16 = 3;
/// EDE: an error that is remembered (RFC 9520).
pub const EDE_CACHED_ERROR: u16 = 13;
/// EDE: that the name does not exist is past its TTL.
pub const EDE_STALE_NXDOMAIN: u16 = 19;
/// EDE: the server is not up and running for this zone yet.
pub const EDE_NOT_READY: u16 = 14;
/// EDE: not authoritative for the name.
pub const EDE_NOT_AUTHORITATIVE: u16 = 20;
/// EDE: the client may not have this.
pub const EDE_PROHIBITED: u16 = 18;
/// EDE: nobody who could know has answered.
pub const EDE_NO_REACHABLE_AUTHORITY: u16 = 22;
/// EDE: asking somebody else has failed.
pub const EDE_NETWORK_ERROR: u16 = 23;
/// EDE: a type that is no question.
pub const EDE_INVALID_QUERY_TYPE: u16 = 30;

/// The name of a code, as dig prints it.
pub fn name(rcode: Rcode) -> String {
    match rcode {
        NOERROR => "NOERROR".into(),
        FORMERR => "FORMERR".into(),
        SERVFAIL => "SERVFAIL".into(),
        NXDOMAIN => "NXDOMAIN".into(),
        NOTIMP => "NOTIMP".into(),
        REFUSED => "REFUSED".into(),
        YXDOMAIN => "YXDOMAIN".into(),
        YXRRSET => "YXRRSET".into(),
        NXRRSET => "NXRRSET".into(),
        NOTAUTH => "NOTAUTH".into(),
        NOTZONE => "NOTZONE".into(),
        BADVERS => "BADVERS".into(),
        BADCOOKIE => "BADCOOKIE".into(),
        other => format!("RCODE{other}"),
    }
}
