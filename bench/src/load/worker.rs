//! One thread of the generator: what is due is sent, what has come is matched, what is overdue is
//! lost.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ring53::limits::HEADER_LEN;
use ring53::net::client::{QUEUE_COUNT_MAX, now_ns};

use crate::mix::verify::{Verdict, judge};
use crate::mix::{Entry, Questions};
use crate::zones::queries::Random;

use super::carrier::{Arrival, Carrier};
use super::flight::{Flight, Match, question_hash, share_ns};
use super::schedule::Times;
use super::tally::Tally;

/// Queries put on their way before replies are looked at.
const BATCH: usize = 64;
const _: () = assert!(BATCH <= QUEUE_COUNT_MAX);
/// Replies of one turn from which on more may be waiting.
const TURN: usize = 256;
/// A query that would be sent later than this is not sent: a generator that cannot keep up does
/// not go on after the end.
pub const BEHIND_MAX_NS: u64 = 50_000_000;
/// Below this a wait costs more than it gives to others.
const SPIN_NS: u64 = 20_000;
/// The longest wait: live counters are read meanwhile.
const WAIT_MAX_NS: u64 = 20_000_000;
/// Octets of the longest query.
pub const MESSAGE_LEN_MAX: usize = 2048;

//----------- Worker ---------------------------------------------------------

/// A thread's part of a load.
pub struct Worker {
    /// The queries of all threads.
    pub questions: Arc<Questions>,
    /// When to send.
    pub times: Times,
    /// Which thread of how many: it asks every so-manieth query of the order.
    pub part: (u64, u64),
    /// Draws labels and letter case.
    pub random: Random,
    /// Where in the order of queries to begin.
    pub first: u64,
    /// When the schedule ends; set as it begins.
    pub end_ns: u64,
    /// Queries of one length are sent in a row: those of one port then leave as one.
    pub sorts: bool,
    /// When an unanswered query is lost.
    pub timeout_ns: u64,
    /// From when on a query is late.
    pub late_ns: u64,
    /// For queries over UDP.
    pub datagrams: Option<Lanes>,
    /// For queries over TCP.
    pub streams: Option<Lanes>,
    /// Where each query is written first.
    pub message: Box<[u8; MESSAGE_LEN_MAX]>,
    /// Seen by whoever shows progress.
    pub shared: Arc<Shared>,
}

/// Counters that others read while a thread runs.
#[derive(Default)]
pub struct Shared {
    /// Queries sent.
    pub sent: AtomicU64,
    /// Good answers.
    pub good: AtomicU64,
    /// Lost or wrong.
    pub lost: AtomicU64,
    /// 99th percentile of the second before, in nanoseconds.
    pub p99_ns: AtomicU64,
}

/// What became of a query that is due.
enum Asked {
    Queued,
    /// The generator is too far behind, or has no ID left.
    NoRoom,
    /// No connection takes it.
    TurnedAway,
}

/// A carrier and what is on its way over it.
pub struct Lanes {
    carrier: Box<dyn Carrier>,
    flight: Flight,
}

impl Lanes {
    /// With `run` queries in a row on one lane, and room for `count` on their way.
    pub fn new(carrier: Box<dyn Carrier>, run: usize, count: u64, seed: u64) -> Lanes {
        let flight = Flight::new(carrier.lanes(), run, count, seed);
        Lanes { carrier, flight }
    }
}

impl Worker {
    /// Sends everything from `start_ns` on, and waits for what comes of it.
    pub fn run(mut self, start_ns: u64) -> io::Result<Tally> {
        let mut tally = Tally::default();
        self.end_ns = start_ns + self.times.end_ns();
        let mut next = self.times.next().map(|at| start_ns + at);
        let mut position = self.first + self.part.0;
        let mut second = 0;
        let mut lateness: Vec<u64> = Vec::with_capacity(BATCH);
        let mut batch: Vec<(u64, u32)> = Vec::with_capacity(BATCH);
        loop {
            let now = now_ns();
            second = self.begin_second(&mut tally, second, now.saturating_sub(start_ns));
            batch.clear();
            while let Some(due) = next
                && due <= now
                && batch.len() < BATCH
            {
                batch.push((due, self.questions.index_at(position)));
                position += self.part.1;
                next = self.times.next().map(|at| start_ns + at);
            }
            if self.sorts {
                batch.sort_unstable_by_key(|&(_, index)| self.questions.entry(index).message_len());
            }
            lateness.clear();
            for &(due, question) in &batch {
                tally.counts.scheduled += 1;
                let behind = now - due > BEHIND_MAX_NS;
                match if behind { Asked::NoRoom } else { self.ask(question, due, now) } {
                    Asked::Queued => lateness.push(due),
                    Asked::NoRoom => tally.never_sent += 1,
                    // Nobody who waits for it knows that it was never sent.
                    Asked::TurnedAway => tally.lose(second, self.timeout_ns + (now - due)),
                }
            }
            self.flush(&mut tally, &lateness, second)?;
            let received = self.receive(&mut tally, second)?;
            // What waits to be read is not overdue.
            if received < TURN {
                self.expire(&mut tally, now, second);
            }
            self.publish(&tally);
            if next.is_none() && self.is_done() {
                break;
            }
            if received == 0 {
                self.wait(next)?;
            }
        }
        for lanes in [&self.datagrams, &self.streams].into_iter().flatten() {
            tally.drops += lanes.carrier.drops();
            let (opened, broken) = lanes.carrier.connections();
            tally.counts.connections += opened;
            tally.counts.broken += broken;
        }
        Ok(tally)
    }

    /// The second that `elapsed_ns` is in; a new one tells the p99 of the one before.
    fn begin_second(&self, tally: &mut Tally, before: usize, elapsed_ns: u64) -> usize {
        let second = (elapsed_ns / 1_000_000_000) as usize;
        if second != before {
            let p99_ns = tally.second(before).p99() * 1000.0;
            self.shared.p99_ns.store(p99_ns as u64, Ordering::Relaxed);
        }
        tally.second(second);
        second
    }

    /// Queues query `index`.
    fn ask(&mut self, index: u32, due: u64, now: u64) -> Asked {
        let questions = &self.questions;
        let entry: &Entry = questions.entry(index);
        let lanes = if entry.stream { &mut self.streams } else { &mut self.datagrams };
        let Some(lanes) = lanes else { return Asked::NoRoom };
        let message = &mut self.message;
        let len = questions.write(entry, &mut self.random, &mut message[..]);
        let question = question_hash(&message[HEADER_LEN..][..entry.question_len as usize]);
        // A lane that can take nothing now is passed over, each at most once.
        for passed in 0..lanes.carrier.lanes() {
            let Some((lane, id)) = lanes.flight.next() else {
                // Passing over lanes takes numbers, too.
                return if passed == 0 { Asked::NoRoom } else { Asked::TurnedAway };
            };
            message[..2].copy_from_slice(&id.to_be_bytes());
            if lanes.carrier.queue(lane, &message[..len]) {
                lanes.flight.open(due, now, question, index);
                return Asked::Queued;
            }
            lanes.flight.skip_lane();
        }
        // No port ever is full here; a connection is, if the server does not read, and if it does
        // not accept there is none.
        if lanes.carrier.lacks_means() { Asked::NoRoom } else { Asked::TurnedAway }
    }

    /// Sends what was queued, which was due at `dues`.
    fn flush(&mut self, tally: &mut Tally, dues: &[u64], second: usize) -> io::Result<()> {
        let begun = now_ns();
        if let Some(lanes) = &mut self.datagrams
            && !dues.is_empty()
        {
            tally.unsent += lanes.carrier.flush()? as u64;
            // A batch takes longer than much of what is measured.
            lanes.flight.sent_between(begun, now_ns());
        }
        if let Some(lanes) = &mut self.streams {
            // What a connection that ended had not sent is lost at the server's.
            lanes.carrier.flush()?;
        }
        if dues.is_empty() {
            return Ok(());
        }
        let sent = now_ns();
        for (number, due) in (1..).zip(dues) {
            let late = share_ns(number, dues.len() as u64, begun, sent) - due;
            tally.lateness.saturating_record(late.max(1));
            tally.counts.late += u64::from(late > self.late_ns);
        }
        tally.counts.sent += dues.len() as u64;
        tally.second(second).sent += dues.len() as u64;
        Ok(())
    }

    fn receive(&mut self, tally: &mut Tally, second: usize) -> io::Result<usize> {
        let questions = &self.questions;
        let mut count = 0;
        for lanes in [&mut self.datagrams, &mut self.streams].into_iter().flatten() {
            let (carrier, flight) = (&mut lanes.carrier, &mut lanes.flight);
            let limits = Limits { timeout_ns: self.timeout_ns, end_ns: self.end_ns };
            count += carrier.receive(&mut |arrival| {
                take(questions, flight, tally, second, arrival, limits);
            })?;
        }
        Ok(count)
    }

    fn expire(&mut self, tally: &mut Tally, now: u64, second: usize) {
        let before = now.saturating_sub(self.timeout_ns);
        for lanes in [&mut self.datagrams, &mut self.streams].into_iter().flatten() {
            while let Some(slot) = lanes.flight.expire(before) {
                let late = slot.sent_ns.saturating_sub(slot.intended_ns);
                tally.lose(second, self.timeout_ns + late);
            }
        }
    }

    fn publish(&self, tally: &Tally) {
        self.shared.sent.store(tally.counts.sent, Ordering::Relaxed);
        self.shared.good.store(tally.counts.good, Ordering::Relaxed);
        self.shared.lost.store(tally.counts.lost + tally.counts.wrong, Ordering::Relaxed);
    }

    fn is_done(&mut self) -> bool {
        let lanes = [&mut self.datagrams, &mut self.streams].into_iter().flatten();
        lanes.map(|lanes| lanes.flight.oldest_sent_ns()).all(|oldest| oldest.is_none())
    }

    /// Waits for whatever comes first.
    fn wait(&mut self, next: Option<u64>) -> io::Result<()> {
        let now = now_ns();
        let due = next.unwrap_or(u64::MAX);
        let wait = due.saturating_sub(now).min(WAIT_MAX_NS);
        if wait < SPIN_NS {
            return Ok(());
        }
        // The spin at the end is what makes sending precise.
        let wait = Duration::from_nanos(wait - SPIN_NS / 2);
        match (&mut self.datagrams, &mut self.streams) {
            (Some(lanes), None) | (None, Some(lanes)) => lanes.carrier.wait(wait),
            // Nothing waits for both: each in turn, briefly.
            (Some(datagrams), Some(streams)) => {
                datagrams.carrier.wait(wait.min(Duration::from_micros(50)))?;
                streams.carrier.wait(Duration::ZERO)
            }
            (None, None) => Ok(()),
        }
    }
}

/// What a reply has to keep.
#[derive(Clone, Copy)]
struct Limits {
    timeout_ns: u64,
    /// When the schedule ends.
    end_ns: u64,
}

/// Takes one reply.
fn take(
    questions: &Questions,
    flight: &mut Flight,
    tally: &mut Tally,
    second: usize,
    arrival: Arrival<'_>,
    limits: Limits,
) {
    let message = arrival.message;
    let Some(question_len) = question_len(message) else {
        tally.counts.unmatched += 1;
        return;
    };
    let id = u16::from_be_bytes([message[0], message[1]]);
    let question = question_hash(&message[HEADER_LEN..][..question_len]);
    let slot = match flight.close(arrival.lane, id, question) {
        Match::Open(slot) => slot,
        Match::Closed => {
            tally.counts.stray += 1;
            return;
        }
        Match::None => {
            tally.counts.unmatched += 1;
            return;
        }
    };
    let at = arrival.at_ns.unwrap_or_else(now_ns);
    let latency = at.saturating_sub(slot.intended_ns).max(1);
    if at.saturating_sub(slot.sent_ns) >= limits.timeout_ns {
        tally.counts.stray += 1;
        tally.lose(second, latency);
        return;
    }
    tally.counts.answered += 1;
    tally.answer_octets += message.len() as u64;
    tally.latency.saturating_record(latency);
    tally.service.saturating_record(at.saturating_sub(slot.sent_ns).max(1));
    let rcode = message[3] & 0xF;
    tally.rcodes[rcode as usize] += 1;
    tally.counts.truncated += u64::from(message[2] & 0x02 != 0);
    // A truncated answer is one: it says where the rest is.
    let good = match &questions.entry(slot.index).expected {
        Some(expected) => judge(message, expected) != Verdict::Wrong,
        None => true,
    };
    tally.counts.good += u64::from(good);
    tally.counts.good_in_time += u64::from(good && at < limits.end_ns);
    tally.counts.wrong += u64::from(!good);
    let tally = tally.second(second);
    tally.good += u64::from(good);
    tally.lost += u64::from(!good);
    tally.record(latency);
}

/// Octets of the one question of a response; `None` if it is none.
fn question_len(message: &[u8]) -> Option<usize> {
    let (header, body) = message.split_at_checked(HEADER_LEN)?;
    if header[2] & 0x80 == 0 || header[4..6] != [0, 1] {
        return None;
    }
    let mut at = 0;
    loop {
        match *body.get(at)? {
            0 => break,
            len @ 1..=63 => at += 1 + len as usize,
            _ => return None,
        }
    }
    (body.len() >= at + 5).then_some(at + 5)
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_responses_with_one_question_have_one() {
        let mut reply = vec![0, 1, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        reply.extend(b"\x01a\x00\x00\x01\x00\x01");
        assert_eq!(question_len(&reply), Some(7));
        for len in 0..reply.len() {
            assert_eq!(question_len(&reply[..len]), None, "{len}");
        }
        let with = |at: usize, octet: u8| {
            let mut other = reply.clone();
            other[at] = octet;
            question_len(&other)
        };
        assert_eq!(with(2, 0), None, "a query is no response");
        assert_eq!(with(5, 2), None);
        assert_eq!(with(12, 0xC0), None, "a compressed question");
        assert_eq!(with(12, 60), None);
    }
}
