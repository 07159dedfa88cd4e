//! Queries that are on their way: whose reply is this, and which ones are overdue.
//!
//! ```text
//!   number   n = 0, 1, 2, ...  in the order of sending; `run` in a row have the same lane
//!   lane     (n / run) mod lanes            id   the lane's count of queries, scrambled, 16 bits
//!
//!   slots    ... answered | open | answered | open | open | free ...
//!                          ^ oldest: it times out next         ^ next
//! ```
//!
//! The table is a ring in the order of sending, so time-outs need no search, sending touches memory
//! in order, and a reply finds its slot by arithmetic.

/// Different IDs of a lane.
const IDS: u64 = 1 << 16;
/// The least size of a table.
const SLOTS_MIN: u64 = 1 << 10;

//----------- Flight ---------------------------------------------------------

/// The queries of one carrier.
pub struct Flight {
    slots: Box<[Slot]>,
    lanes: u64,
    run: u64,
    /// Odd, and its inverse modulo 2^16: IDs do not count up.
    multiplier: u16,
    inverse: u16,
    next: u64,
    oldest: u64,
    /// From here on times of sending are those of their batch.
    batch: u64,
}

/// A query that was sent.
#[derive(Clone, Copy, Default)]
pub struct Slot {
    /// When it should have been sent.
    pub intended_ns: u64,
    /// When it was.
    pub sent_ns: u64,
    /// Its question section, see [`question_hash`].
    pub question: u64,
    /// Which query it was.
    pub index: u32,
    open: bool,
}

/// Whose reply it is.
pub enum Match {
    /// An open query's, which is closed now.
    Open(Slot),
    /// That of a query that is closed: answered before, or overdue.
    Closed,
    /// Nobody's.
    None,
}

impl Flight {
    /// For `lanes` of a carrier, `run` queries on each in turn, and `count` on their way at most.
    pub fn new(lanes: usize, run: usize, count: u64, seed: u64) -> Flight {
        // IDs are counted modulo 2^16: a run that does not divide that would meet itself.
        let run = run.clamp(1, 1 << 10).next_power_of_two() as u64;
        let lanes = lanes.max(1) as u64;
        // No two queries in the table may have the same lane and ID.
        let most = 1 << (lanes * IDS).ilog2();
        let count = count.next_power_of_two().clamp(SLOTS_MIN, most);
        let multiplier = (seed as u16) << 1 | 1;
        // Each step of Newton's method doubles the bits that are right; of an odd number 3 are.
        let inverse = (0..3).fold(multiplier, |inverse, _| {
            inverse.wrapping_mul(2u16.wrapping_sub(multiplier.wrapping_mul(inverse)))
        });
        Flight {
            slots: vec![Slot::default(); count as usize].into(),
            lanes,
            run,
            multiplier,
            inverse,
            next: 0,
            oldest: 0,
            batch: 0,
        }
    }

    fn slot(&mut self, number: u64) -> &mut Slot {
        let mask = self.slots.len() as u64 - 1;
        &mut self.slots[(number & mask) as usize]
    }

    /// Lane and ID of the next query, unless the table is full.
    pub fn next(&mut self) -> Option<(usize, u16)> {
        self.pass_closed();
        if self.next - self.oldest >= self.slots.len() as u64 {
            return None;
        }
        let (turn, place) = (self.next / self.run, self.next % self.run);
        let lane = (turn % self.lanes) as usize;
        let count = turn / self.lanes * self.run + place;
        let id = (count as u16).wrapping_mul(self.multiplier);
        Some((lane, id))
    }

    /// Opens the query that [`Flight::next`] gave lane and ID.
    pub fn open(&mut self, intended_ns: u64, sent_ns: u64, question: u64, index: u32) {
        *self.slot(self.next) = Slot { intended_ns, sent_ns, question, index, open: true };
        self.next += 1;
    }

    /// What was opened since this was called last left between two times, one after the other:
    /// each gets its share.
    pub fn sent_between(&mut self, begin_ns: u64, end_ns: u64) {
        let batch = self.batch..self.next;
        self.batch = self.next;
        // A lane that was left out has no query.
        let count = batch.clone().filter(|&number| self.slot(number).open).count() as u64;
        let mut sent = 0;
        for number in batch {
            let slot = self.slot(number);
            if slot.open {
                sent += 1;
                slot.sent_ns = share_ns(sent, count, begin_ns, end_ns);
            }
        }
    }

    /// Leaves out the lane whose turn it is: it can take nothing now.
    pub fn skip_lane(&mut self) {
        *self.slot(self.next) = Slot::default();
        self.next += 1;
    }

    /// Finds the query that a reply on `lane` with `id` and this question answers.
    pub fn close(&mut self, lane: usize, id: u16, question: u64) -> Match {
        let count = u64::from(id.wrapping_mul(self.inverse));
        let period = self.lanes * IDS;
        let turn = count / self.run * self.lanes + lane as u64;
        let place = turn * self.run + count % self.run;
        // The latest number with this lane and ID.
        let behind = (self.next + period - 1 - place) % period;
        let Some(number) = (self.next).checked_sub(1 + behind) else { return Match::None };
        if self.next - number > self.slots.len() as u64 {
            return Match::None;
        }
        let slot = self.slot(number);
        if slot.question != question || slot.sent_ns == 0 {
            return Match::None;
        }
        if !slot.open {
            return Match::Closed;
        }
        slot.open = false;
        Match::Open(*slot)
    }

    /// The next query that was sent before `before_ns` and is open: it is closed and returned.
    pub fn expire(&mut self, before_ns: u64) -> Option<Slot> {
        self.pass_closed();
        if self.oldest == self.next {
            return None;
        }
        let oldest = self.oldest;
        let slot = self.slot(oldest);
        if slot.sent_ns >= before_ns {
            return None;
        }
        slot.open = false;
        let slot = *slot;
        self.oldest += 1;
        Some(slot)
    }

    fn pass_closed(&mut self) {
        while self.oldest < self.next {
            let oldest = self.oldest;
            if self.slot(oldest).open {
                return;
            }
            self.oldest += 1;
        }
    }

    /// When the oldest open query was sent.
    pub fn oldest_sent_ns(&mut self) -> Option<u64> {
        self.pass_closed();
        let oldest = self.oldest;
        (oldest < self.next).then(|| self.slot(oldest).sent_ns)
    }
}

/// When the `number`th of `count` is done, if each takes as long as the others.
pub fn share_ns(number: u64, count: u64, begin_ns: u64, end_ns: u64) -> u64 {
    begin_ns + end_ns.saturating_sub(begin_ns) * number / count.max(1)
}

/// A number that tells question sections apart, letter case included.
#[inline]
pub fn question_hash(question: &[u8]) -> u64 {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut hash = question.len() as u64;
    let mut fold = |word: u64| {
        let product = u128::from(hash ^ word) * u128::from(ODD);
        hash = (product as u64 ^ (product >> 64) as u64).wrapping_add(ODD);
    };
    let (words, rest) = question.as_chunks::<8>();
    for word in words {
        fold(u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    fold(u64::from_le_bytes(last));
    hash
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::zones::queries::Random;

    /// Against a map from (lane, ID) to what is open, with replies in any order, lost, doubled,
    /// and forged.
    #[test]
    fn each_reply_finds_its_query_and_no_other() {
        for seed in 1..20 {
            let mut random = Random::new(seed);
            let lanes = 1 + random.below(70) as usize;
            let run = 1 << random.below(7);
            let mut flight = Flight::new(lanes, run, 1 << 12, random.below(1 << 20));
            let mut open: HashMap<(usize, u16), (u64, u64)> = HashMap::new();
            let mut closed: Vec<(usize, u16, u64)> = Vec::new();
            for step in 1..8_000u64 {
                match random.below(10) {
                    0..5 => {
                        let Some((lane, id)) = flight.next() else { continue };
                        let question = random.below(1 << 40);
                        flight.open(step, step, question, step as u32);
                        let before = open.insert((lane, id), (question, step));
                        assert!(before.is_none(), "seed {seed}: an ID was given twice");
                        closed.retain(|&(l, i, _)| (l, i) != (lane, id));
                    }
                    5..9 => {
                        let Some((&(lane, id), &(question, sent))) = open.iter().next() else {
                            continue;
                        };
                        assert!(matches!(flight.close(lane, id, question ^ 1), Match::None));
                        let Match::Open(slot) = flight.close(lane, id, question) else {
                            panic!("seed {seed}: an open query is not found");
                        };
                        assert_eq!(slot.index as u64, sent);
                        assert!(matches!(flight.close(lane, id, question), Match::Closed));
                        open.remove(&(lane, id));
                        closed.push((lane, id, question));
                    }
                    _ => {
                        let before = step.saturating_sub(500);
                        while let Some(slot) = flight.expire(before) {
                            let found = open.iter().find(|(_, v)| v.1 == slot.sent_ns).unwrap();
                            let key = *found.0;
                            open.remove(&key);
                        }
                        assert!(open.values().all(|&(_, sent)| sent >= before), "seed {seed}");
                    }
                }
            }
        }
    }

    #[test]
    fn queries_of_one_batch_leave_one_after_the_other() {
        let mut flight = Flight::new(4, 1, 0, 5);
        let mut lanes = Vec::new();
        for number in 0..6 {
            match number {
                2 => flight.sent_between(100, 120),
                3 => flight.skip_lane(),
                _ => {}
            }
            lanes.push(flight.next().unwrap());
            flight.open(1, 90, 7, 0);
        }
        flight.sent_between(200, 280);
        let sent = lanes.into_iter().map(|(lane, id)| match flight.close(lane, id, 7) {
            Match::Open(slot) => slot.sent_ns,
            _ => 0,
        });
        assert_eq!(sent.collect::<Vec<_>>(), [110, 120, 220, 240, 260, 280]);
    }

    #[test]
    fn a_full_table_says_so_until_its_oldest_query_is_closed() {
        let mut flight = Flight::new(1, 1, 0, 5);
        let mut ids = Vec::new();
        while let Some((_, id)) = flight.next() {
            flight.open(1, 1, 7, 0);
            ids.push(id);
        }
        assert_eq!(ids.len() as u64, SLOTS_MIN);
        assert!(matches!(flight.close(0, ids[1], 7), Match::Open(_)));
        assert!(flight.next().is_none());
        assert!(matches!(flight.close(0, ids[0], 7), Match::Open(_)));
        assert!(flight.next().is_some());
        assert_eq!(flight.oldest_sent_ns(), Some(1));
    }

    #[test]
    fn one_lane_never_has_more_than_its_ids() {
        let mut flight = Flight::new(1, 8, 1 << 30, 9);
        let mut seen = vec![false; 1 << 16];
        while let Some((_, id)) = flight.next() {
            assert!(!std::mem::replace(&mut seen[id as usize], true));
            flight.open(1, 1, 7, 0);
        }
        assert!(seen.iter().all(|&seen| seen));
    }

    #[test]
    fn questions_that_differ_in_one_bit_differ() {
        let question = b"\x07example\x03org\x00\x00\x01\x00\x01";
        let hash = question_hash(question);
        for at in 0..question.len() * 8 {
            let mut other = *question;
            other[at / 8] ^= 1 << (at % 8);
            assert_ne!(question_hash(&other), hash);
        }
        assert_ne!(question_hash(b"\0"), question_hash(b""));
    }
}
