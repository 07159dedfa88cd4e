//! What answers have to be: ring53's own, computed in process from the zones.

use std::sync::Arc;
use std::time::Duration;

use ring53::answer::{CoreState, Counters, Exchange, Transport, Verdict, answer_batch};
use ring53::limits::{HEADER_LEN, MESSAGE_SIZE_MAX};
use ring53::snapshot::{Identity, Snapshot, ZoneState};
use ring53::wire::message::CLASS_IN;
use ring53::wire::rtype;
use ring53::zone::Zone;

use super::{Expected, verify, zone};

const REFUSED: u8 = 5;

/// Answers questions about zones in process.
pub struct Answers {
    snapshot: Snapshot,
    core: CoreState,
    buffer: Vec<u8>,
    query: Vec<u8>,
}

impl Answers {
    /// From `zones`, which were read with [`zone::key`].
    pub fn new(zones: &[Arc<Zone>]) -> Answers {
        let served = |zone: &Arc<Zone>| (zone.apex().clone(), ZoneState::Serving(Arc::clone(zone)));
        let zones = zones.iter().map(served).collect();
        Answers {
            snapshot: Snapshot::new(1, zone::key(), Identity::default(), zones),
            core: CoreState::new(Arc::new(Counters::default())),
            buffer: vec![0; MESSAGE_SIZE_MAX],
            query: Vec::new(),
        }
    }

    /// The answer to `query`, whole as over a stream; `None` if it is not answered from the zones
    /// alone (a transfer, say).
    pub fn answer(&mut self, query: &[u8]) -> Option<&[u8]> {
        self.buffer[..query.len()].copy_from_slice(query);
        let mut exchange = Exchange {
            buffer: &mut self.buffer,
            query_len: query.len(),
            transport: Transport::Stream { idle: 0 },
            client: 0,
            verdict: Verdict::Reply(0),
        };
        let exchanges = std::slice::from_mut(&mut exchange);
        answer_batch(&self.snapshot, Duration::ZERO, &mut self.core, exchanges);
        match exchange.verdict {
            Verdict::Reply(len) => Some(&self.buffer[..len]),
            Verdict::Drop(_) | Verdict::Defer(_) => None,
        }
    }

    /// The rcode of the answer for this name and type.
    pub fn rcode(&mut self, name: &[u8], qtype: u16) -> Option<u8> {
        let mut query = std::mem::take(&mut self.query);
        query.clear();
        query.extend([0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        query.extend_from_slice(name);
        query.extend(qtype.to_be_bytes());
        query.extend(CLASS_IN.to_be_bytes());
        let rcode = self.answer(&query).map(|reply| reply[3] & 0xF);
        self.query = query;
        rcode
    }

    /// What the answer to `query`, whose question has `question_len` octets, has to be; `None` if
    /// these zones do not say.
    pub fn expected(&mut self, query: &[u8], question_len: usize) -> Option<Expected> {
        let type_at = HEADER_LEN + question_len - 4;
        let qtype = u16::from_be_bytes([query[type_at], query[type_at + 1]]);
        let reply = self.answer(query)?;
        let rcode = reply[3] & 0xF;
        // A name outside of these zones: another zone of the server may have it.
        if rcode == REFUSED {
            return None;
        }
        //= RFC 8482, 4
        //# A DNS responder that receives an ANY query MAY decline to provide a
        //# conventional ANY response
        let depends = matches!(qtype, rtype::ANY | rtype::RRSIG);
        let digest = if depends { None } else { verify::digest(reply) };
        let proof = verify::proves(reply);
        Some(Expected { rcode, digest, proof })
    }
}
