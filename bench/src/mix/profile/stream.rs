//! TCP streams put together again, as far as DNS needs it: messages with their length before them.
//!
//! ```text
//!   segments   [seq 1 |len msg len m]   [seq 40 |sg]   (again, late, or out of order)
//!   stream      len msg | len m ...sg |                ──> each message once
//! ```

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ring53::limits::HEADER_LEN;

use super::packet::Packet;

/// Octets of one direction that wait for what is missing before them.
const WAITING_MAX: usize = 256 << 10;
/// Streams at once; those beyond are not followed.
const STREAMS_MAX: usize = 1 << 18;

type End = (IpAddr, u16);

/// One direction of one connection.
#[derive(Default)]
struct Stream {
    /// The number of the next octet.
    next: u32,
    /// Octets of a message that is not complete.
    begun: Vec<u8>,
    /// Segments that came early, by how far they are ahead.
    early: BTreeMap<u32, Vec<u8>>,
    waiting: usize,
    /// The capture begins inside of it: the first segment is thought to begin with a message.
    guessed: bool,
}

/// All streams of a capture.
#[derive(Default)]
pub struct Streams {
    streams: HashMap<(End, End), Stream>,
    /// Connections seen.
    pub connections: u64,
    /// Streams given up: octets are missing, or they are no messages.
    pub lost: u64,
}

impl Streams {
    /// Takes a segment and hands out the messages it completes.
    pub fn segment(&mut self, packet: &Packet<'_>, to_server: bool, mut take: impl FnMut(&[u8])) {
        let Some(segment) = packet.segment else { return };
        let key = (packet.source, packet.destination);
        if segment.syn {
            let next = segment.sequence.wrapping_add(1);
            self.connections += u64::from(to_server);
            if self.streams.len() < STREAMS_MAX {
                self.streams.insert(key, Stream { next, ..Stream::default() });
            }
            return;
        }
        if !packet.payload.is_empty() {
            let is_full = self.streams.len() >= STREAMS_MAX;
            let stream = match self.streams.entry(key) {
                std::collections::hash_map::Entry::Occupied(found) => found.into_mut(),
                std::collections::hash_map::Entry::Vacant(_) if is_full => return,
                std::collections::hash_map::Entry::Vacant(vacant) => {
                    self.connections += u64::from(to_server);
                    let next = segment.sequence;
                    vacant.insert(Stream { next, guessed: true, ..Stream::default() })
                }
            };
            // What the capture cut off is missing from the stream.
            let kept = stream.take(segment.sequence, packet.payload)
                && stream.messages(&mut take)
                && packet.whole;
            if !kept {
                self.streams.remove(&key);
                self.lost += 1;
            }
        }
        if segment.ends {
            self.streams.remove(&key);
        }
    }
}

impl Stream {
    /// Puts octets in their place; `false` if too many wait for others.
    fn take(&mut self, sequence: u32, octets: &[u8]) -> bool {
        let ahead = sequence.wrapping_sub(self.next);
        if ahead as i32 > 0 {
            self.waiting += octets.len();
            self.early.insert(sequence, octets.to_vec());
            return self.waiting <= WAITING_MAX;
        }
        self.append(sequence, octets);
        // Those that came early and are next now. A map by number is small: they are all looked at.
        loop {
            let due = self.early.keys().copied().find(|&at| at.wrapping_sub(self.next) as i32 <= 0);
            let Some((at, octets)) = due.and_then(|at| self.early.remove_entry(&at)) else { break };
            self.waiting -= octets.len();
            self.append(at, &octets);
        }
        true
    }

    /// Appends what is new of octets that begin no later than at `next`.
    fn append(&mut self, sequence: u32, octets: &[u8]) {
        let known = self.next.wrapping_sub(sequence) as usize;
        if let Some(new) = octets.get(known..) {
            self.begun.extend_from_slice(new);
            self.next = self.next.wrapping_add(new.len() as u32);
        }
    }

    /// Hands out the messages that are complete; `false` if these are none.
    fn messages(&mut self, take: &mut impl FnMut(&[u8])) -> bool {
        let mut at = 0;
        while let Some(len) = self.begun.get(at..at + 2) {
            let len = usize::from(u16::from_be_bytes([len[0], len[1]]));
            if len < HEADER_LEN {
                return false;
            }
            let Some(message) = self.begun.get(at + 2..at + 2 + len) else {
                // A guess is only kept if it is a message that ends with its segment.
                if self.guessed && at == 0 {
                    return false;
                }
                break;
            };
            self.guessed = false;
            take(message);
            at += 2 + len;
        }
        self.begun.drain(..at);
        true
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mix::profile::packet::Segment;
    use crate::zones::queries::Random;

    fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
        let framed =
            |message: &Vec<u8>| [&(message.len() as u16).to_be_bytes(), &message[..]].concat();
        messages.iter().flat_map(framed).collect()
    }

    fn send(streams: &mut Streams, sequence: u32, syn: bool, payload: &[u8]) -> Vec<Vec<u8>> {
        let end = |port| (IpAddr::from([192, 0, 2, 1]), port);
        let packet = Packet {
            source: end(4000),
            destination: end(53),
            payload,
            whole: true,
            segment: Some(Segment { sequence, syn, ends: false }),
        };
        let mut taken = Vec::new();
        streams.segment(&packet, true, |message| taken.push(message.to_vec()));
        taken
    }

    /// Segments cut anywhere, in any order, some of them twice and overlapping: each message once.
    #[test]
    fn messages_come_out_once_and_in_order() {
        let mut random = Random::new(3);
        let messages: Vec<Vec<u8>> =
            (0..40).map(|id| vec![id; 12 + random.below(600) as usize]).collect();
        let stream = framed(&messages);
        for round in 0..200 {
            // Numbers wrap in every other round.
            let start = if round % 2 == 0 { 7 } else { u32::MAX - 3000 };
            let mut segments = Vec::new();
            let mut at = 0;
            while at < stream.len() {
                let end = (at + 1 + random.below(900) as usize).min(stream.len());
                let from = at.saturating_sub(random.below(40) as usize);
                segments.push((from, end));
                at = end;
            }
            let again = segments[random.below(segments.len() as u64) as usize];
            segments.push(again);
            for _ in 0..segments.len() {
                let at = random.below(segments.len() as u64 - 1) as usize;
                segments.swap(at, at + 1);
            }
            let mut streams = Streams::default();
            assert!(send(&mut streams, start, true, &[]).is_empty());
            let mut taken = Vec::new();
            for (from, end) in segments {
                let sequence = start.wrapping_add(1 + from as u32);
                taken.extend(send(&mut streams, sequence, false, &stream[from..end]));
            }
            assert_eq!(taken, messages, "round {round}");
            assert_eq!((streams.connections, streams.lost), (1, 0));
        }
    }

    #[test]
    fn a_stream_whose_start_is_missing_is_taken_if_it_begins_with_a_message() {
        let messages = vec![vec![1; 20], vec![2; 30]];
        let mut streams = Streams::default();
        assert_eq!(send(&mut streams, 99, false, &framed(&messages)), messages);
        assert_eq!(send(&mut streams, 99 + 54, false, &framed(&messages)), messages);
        let mut streams = Streams::default();
        assert!(send(&mut streams, 99, false, &framed(&messages)[5..]).is_empty());
        assert_eq!(streams.lost, 1);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut streams = Streams::default();
        send(&mut streams, 0, true, &[]);
        let mut sequence = 1000u32;
        while streams.lost == 0 {
            send(&mut streams, sequence, false, &[0; 1400]);
            sequence += 1400;
            assert!((sequence as usize) < 2 * WAITING_MAX);
        }
        assert!(streams.streams.is_empty());
    }
}
