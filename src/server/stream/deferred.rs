//! What the answer function defers: signatures to verify, transfers, notifications.
//!
//! ```text
//!   message ──verify TSIG──> without it ──┬─ AXFR, IXFR ──> transfer::outgoing
//!                                         ├─ NOTIFY ──────> whoever refreshes the zone
//!                                         ├─ UPDATE ──────> whoever changes the zone
//!                                         └─ a query ─────> answer_batch, the reply signed
//! ```

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use crate::answer::{CoreState, Exchange, Ticket, Transport, Verdict, answer_batch};
use crate::limits::{ANSWER_SIZE_MIN, MESSAGE_SIZE_MAX};
use crate::snapshot::{Snapshot, ZoneState};
use crate::transfer::outgoing::{self, Denied, Granted, Outgoing};
use crate::tsig::{Session, Verified, verify_request, without_signature};
use crate::wire::message::{Message, Writer, header, opcode};
use crate::wire::rcode::{EDE_PROHIBITED, FORMERR, NOERROR, NOTAUTH, REFUSED, SERVFAIL};
use crate::wire::{Name, rtype};

use crate::server::zones::updates::{self, Asked, Awaited};

/// Seconds since 1970, as TSIG counts them.
pub fn wall_clock() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What a deferred message gets.
pub enum Response {
    /// One reply.
    Reply(Vec<u8>),
    /// A stream of them.
    Transfer(Box<Outgoing>),
    /// One reply, and the zone that is said to have changed.
    Notified(Name, Vec<u8>),
    /// One reply, when the zone of that name has been changed.
    Update(Name, Box<Asked>, Box<Updating>),
    /// None.
    Silence,
}

/// One message and where it came from.
pub struct Request<'a> {
    /// The whole message.
    pub octets: &'a [u8],
    /// Who sent it.
    pub peer: IpAddr,
    /// How it came.
    pub transport: Transport,
}

/// The reply to an update, to come.
pub struct Updating {
    awaited: Awaited,
    session: Option<Session>,
    message: Vec<u8>,
}

impl Updating {
    /// The reply, when it is known; `None` if there is no message to reply to.
    pub async fn reply(self) -> Option<Vec<u8>> {
        // Whoever was to change the zone is gone.
        let code = self.awaited.await.unwrap_or(SERVFAIL);
        let mut reply = Writer::reply(Message::new(&self.message)?, code).into_octets();
        if let Some(mut session) = self.session {
            session.sign(&mut reply, wall_clock());
        }
        Some(reply)
    }
}

/// Answers a message that [`answer_batch`] deferred.
pub fn respond(
    snapshot: &Snapshot,
    core: &mut CoreState,
    elapsed: Duration,
    request: &Request<'_>,
) -> Response {
    let Some(message) = Message::new(request.octets) else { return Response::Silence };
    let now = wall_clock();
    let (verified, end) = verify_request(snapshot.keys(), message, now);
    let mut session = match verified {
        Verified::Unsigned => None,
        Verified::Signed(session) => Some(session),
        Verified::Refused(refusal) => {
            let mut reply = Writer::reply(message, refusal.rcode).into_octets();
            refusal.sign(&mut reply, now);
            return Response::Reply(reply);
        }
    };
    let plain = without_signature(request.octets, end);
    let Some(message) = Message::new(&plain) else { return Response::Silence };
    let mut notified = None;
    let mut reply = match what_it_is(message, request.transport) {
        Some(Ticket::Transfer) => {
            let (key, reserve) = session
                .as_ref()
                .map_or((None, 0), |session| (Some(session.key().name()), session.signature_len()));
            match outgoing::begin(snapshot, message, request.peer, key, reserve) {
                Ok(Granted::Messages(outgoing)) => {
                    return Response::Transfer(outgoing.signed(session));
                }
                Ok(Granted::Current(zone)) => outgoing::current(message, &zone),
                Err(denied) => outgoing::denial(message, denied),
            }
        }
        Some(Ticket::Update) => {
            let key = session.as_ref().map(|session| session.key().name());
            match updates::asked(snapshot, message, request.peer, key) {
                Ok((name, asked, awaited)) => {
                    let updating = Updating { awaited, session, message: plain };
                    return Response::Update(name, Box::new(asked), Box::new(updating));
                }
                Err(code) => Writer::reply(message, code).into_octets(),
            }
        }
        Some(Ticket::Notify) => {
            let key = session.as_ref().map(|session| session.key().name());
            let (code, name) = notify(snapshot, message, request.peer, key);
            notified = name;
            let mut writer = Writer::reply(message, code);
            writer.set_flags(header::AA);
            writer.into_octets()
        }
        _ => {
            let reserve = session.as_ref().map_or(0, Session::signature_len);
            let key = session.as_ref().map(|session| session.key().name());
            core.sees_private = sees_private(snapshot, message, request.peer, key);
            let reply = answer(snapshot, core, elapsed, &plain, request.transport, reserve);
            core.sees_private = false;
            match reply {
                Some(reply) => reply,
                None => return Response::Silence,
            }
        }
    };
    if let Some(session) = &mut session {
        session.sign(&mut reply, now);
    }
    match notified {
        Some(name) => Response::Notified(name, reply),
        None => Response::Reply(reply),
    }
}

/// What a NOTIFY gets (RFC 1996, 3.10 to 3.12), and the zone that is to be refreshed.
fn notify(
    snapshot: &Snapshot,
    message: Message<'_>,
    peer: IpAddr,
    key: Option<&[u8]>,
) -> (u16, Option<Name>) {
    let Ok(Some(question)) = message.question() else { return (FORMERR, None) };
    let Some(index) = snapshot.zone_named(&question.name) else { return (NOTAUTH, None) };
    if !snapshot.rules(index).notify.allows(peer, key) {
        return (REFUSED, None);
    }
    (NOERROR, Name::from_wire(&question.name).ok())
}

/// Whether the zone that is going to answer is private, and the peer may have it.
fn sees_private(
    snapshot: &Snapshot,
    message: Message<'_>,
    peer: IpAddr,
    key: Option<&[u8]>,
) -> bool {
    let Ok(Some(question)) = message.question() else { return false };
    let Some((mut index, is_apex)) = snapshot.zone_above(&question.name) else { return false };
    // The DS of a zone lies in its parent, if that is served here too.
    if is_apex
        && question.qtype == rtype::DS
        && let Some((&len @ 1.., rest)) = question.name.split_first()
        && let Some((parent, _)) = snapshot.zone_above(&rest[usize::from(len)..])
    {
        index = parent;
    }
    matches!(snapshot.zone(index), ZoneState::Private(_))
        && snapshot.rules(index).transfer.allows(peer, key)
}

/// What a message without its signature would be deferred for.
fn what_it_is(message: Message<'_>, transport: Transport) -> Option<Ticket> {
    let question = message.question().ok()??;
    match (message.opcode(), question.qtype) {
        (opcode::NOTIFY, _) => Some(Ticket::Notify),
        (opcode::UPDATE, _) => Some(Ticket::Update),
        (opcode::QUERY, rtype::AXFR | rtype::IXFR) if transport.is_stream() => {
            Some(Ticket::Transfer)
        }
        _ => None,
    }
}

/// Answers a query as the cores do, with `reserve` octets of the message kept free.
fn answer(
    snapshot: &Snapshot,
    core: &mut CoreState,
    elapsed: Duration,
    query: &[u8],
    transport: Transport,
    reserve: usize,
) -> Option<Vec<u8>> {
    let room = match transport {
        Transport::Stream { .. } => MESSAGE_SIZE_MAX,
        Transport::Datagram => {
            udp_size(query).clamp(ANSWER_SIZE_MIN, snapshot.identity().answer_size_max)
        }
    };
    let len_max = if transport.is_stream() { room - reserve } else { room };
    let mut buffer = vec![0; len_max.max(query.len())];
    buffer[..query.len()].copy_from_slice(query);
    let mut exchange = [Exchange {
        buffer: &mut buffer,
        query_len: query.len(),
        transport,
        // Signed queries are for what is served here.
        client: 0,
        verdict: Verdict::Reply(0),
    }];
    answer_batch(snapshot, elapsed, core, &mut exchange);
    let len = match exchange[0].verdict {
        Verdict::Reply(len) => len,
        Verdict::Defer(Ticket::Private) => {
            let denied = Denied(REFUSED, Some(EDE_PROHIBITED));
            return Some(outgoing::denial(Message::new(query)?, denied));
        }
        _ => return None,
    };
    if len + reserve > room {
        // The signature has no place beside the answer: over TCP it has.
        let mut writer = Writer::reply(Message::new(query)?, NOERROR);
        writer.set_flags(header::TC);
        return Some(writer.into_octets());
    }
    buffer.truncate(len);
    Some(buffer)
}

/// The size of the answer that a query's OPT record allows.
fn udp_size(query: &[u8]) -> usize {
    let records = Message::new(query).and_then(|message| message.records().ok());
    let opt = records
        .into_iter()
        .flatten()
        .map_while(Result::ok)
        .find(|record| record.rtype == rtype::OPT);
    opt.map_or(ANSWER_SIZE_MIN, |opt| usize::from(opt.class))
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Access, AccessList, Rules};
    use crate::snapshot::{Identity, ZoneTable};
    use crate::wire::message::CLASS_IN;
    use crate::zone::{Given, HashKey, LoadOptions, load};
    use std::sync::Arc;

    const TEXT: &str = "$TTL 0\n@ SOA a. b. 1 2 3 4 5\n@ NS a.\n";

    /// `p.` and `c.p.` are private; each has a peer of its own.
    #[test]
    fn whoever_may_have_the_zone_that_answers_sees_it() {
        let key = HashKey::new(*b"a secret of test");
        let mut table = ZoneTable::new(key);
        let peer = |last: u8| IpAddr::from([192, 0, 2, last]);
        for (apex, last) in [("p.", 1), ("c.p.", 2)] {
            let name: Name = apex.parse().unwrap();
            let zone = load(&name, "text", &Given(TEXT), &LoadOptions::new(key, 1)).zone.unwrap();
            let number = table.insert(&name);
            let entry = table.entry_mut(number);
            entry.state = ZoneState::Private(Arc::new(zone));
            let transfer = AccessList::new(vec![Access::of(peer(last), None)]);
            entry.rules = Arc::new(Rules { transfer, ..Rules::default() });
        }
        let snapshot = Snapshot::of(1, Identity::default(), &table, Arc::default());
        for (name, qtype, expected) in [
            ("p.", rtype::SOA, [true, false]),
            ("x.p.", rtype::DS, [true, false]),
            ("c.p.", rtype::SOA, [false, true]),
            // It lies in the parent.
            ("c.p.", rtype::DS, [true, false]),
            ("x.c.p.", rtype::DS, [false, true]),
            // There is no parent here.
            ("p.", rtype::DS, [true, false]),
            (".", rtype::DS, [false, false]),
        ] {
            let mut writer = Writer::new(1, Writer::flags_of(opcode::QUERY));
            writer.question(name.parse::<Name>().unwrap().as_wire(), qtype, CLASS_IN);
            let octets = writer.into_octets();
            let message = Message::new(&octets).unwrap();
            let seen = [1, 2].map(|last| sees_private(&snapshot, message, peer(last), None));
            assert_eq!(seen, expected, "{name} {qtype}");
        }
    }
}
