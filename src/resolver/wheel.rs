//! Timers: a wheel of lists, one for each millisecond.
//!
//! ```text
//!   slot     0   1   2   3   4   5  ...  8191      a timer lies in the list of its tick, or in
//!            ·   ·   7   ·   2   ·        ·        the last one the wheel reaches
//!                    9   ^ cursor                  two levels of bits say which lists are empty
//! ```
//!
//! Setting, clearing and finding the next cost a handful of instructions each, however many there
//! are: a question sets one and clears it again.

use std::time::Duration;

/// Lists: 8.192 s. What is further away is looked at again when the wheel gets there.
const SLOTS: usize = 8192;
const WORDS: usize = SLOTS / 64;
const NONE: u32 = u32::MAX;

/// The tick that has begun at `time`.
pub(super) fn tick_at(time: Duration) -> u64 {
    time.as_millis() as u64
}

/// The first tick that begins at or after `time`.
pub(super) fn tick_after(time: Duration) -> u64 {
    time.as_nanos().div_ceil(1_000_000) as u64
}

/// A timer's place in its list.
#[derive(Clone, Copy)]
struct Node {
    previous: u32,
    next: u32,
    /// `NONE` as long as it is not set.
    slot: u32,
    tick: u64,
}

const UNSET: Node = Node { previous: NONE, next: NONE, slot: NONE, tick: 0 };

/// Timers, named by small numbers.
pub(super) struct Wheel {
    heads: Box<[u32]>,
    nodes: Vec<Node>,
    /// A bit for each list that is not empty.
    words: [u64; WORDS],
    /// A bit for each of `words` that is not zero.
    summary: [u64; WORDS / 64],
    /// No timer lies before this tick.
    cursor: u64,
}

impl Wheel {
    pub(super) fn new() -> Wheel {
        Wheel {
            heads: vec![NONE; SLOTS].into(),
            nodes: Vec::new(),
            words: [0; WORDS],
            summary: [0; WORDS / 64],
            cursor: 0,
        }
    }

    /// Sets `timer`, or sets it anew: it is due when `tick` begins.
    pub(super) fn set(&mut self, timer: u32, tick: u64) {
        self.clear(timer);
        let index = timer as usize;
        if index >= self.nodes.len() {
            self.nodes.resize(index + 1, UNSET);
        }
        let slot = tick.clamp(self.cursor, self.cursor + SLOTS as u64 - 1) as usize % SLOTS;
        let next = self.heads[slot];
        self.nodes[index] = Node { previous: NONE, next, slot: slot as u32, tick };
        if next != NONE {
            self.nodes[next as usize].previous = timer;
        }
        self.heads[slot] = timer;
        self.words[slot / 64] |= 1 << (slot % 64);
        self.summary[slot / 4096] |= 1 << (slot / 64 % 64);
    }

    /// Clears `timer`, if it is set.
    pub(super) fn clear(&mut self, timer: u32) {
        let Some(&node) = self.nodes.get(timer as usize).filter(|node| node.slot != NONE) else {
            return;
        };
        if node.next != NONE {
            self.nodes[node.next as usize].previous = node.previous;
        }
        if node.previous != NONE {
            self.nodes[node.previous as usize].next = node.next;
        } else {
            let slot = node.slot as usize;
            self.heads[slot] = node.next;
            if node.next == NONE {
                self.words[slot / 64] &= !(1 << (slot % 64));
                if self.words[slot / 64] == 0 {
                    self.summary[slot / 4096] &= !(1 << (slot / 64 % 64));
                }
            }
        }
        self.nodes[timer as usize] = UNSET;
    }

    /// Clears and returns a timer that is due.
    pub(super) fn pop(&mut self, now: Duration) -> Option<u32> {
        let now = tick_at(now);
        loop {
            let tick = self.first().filter(|&tick| tick <= now);
            let Some(tick) = tick else {
                self.cursor = self.cursor.max(now);
                return None;
            };
            self.cursor = tick;
            let timer = self.heads[tick as usize % SLOTS];
            let due = self.nodes[timer as usize].tick;
            self.clear(timer);
            if due <= now {
                return Some(timer);
            }
            self.set(timer, due);
        }
    }

    /// When to look next: nothing is due before.
    pub(super) fn next_time(&self) -> Option<Duration> {
        self.first().map(Duration::from_millis)
    }

    /// The first tick from the cursor on with a list that is not empty.
    fn first(&self) -> Option<u64> {
        let start = self.cursor as usize % SLOTS;
        let slot = self.occupied_from(start).or_else(|| self.occupied_from(0))?;
        Some(self.cursor + ((slot + SLOTS - start) % SLOTS) as u64)
    }

    fn occupied_from(&self, slot: usize) -> Option<usize> {
        let word = slot / 64;
        let here = self.words[word] & (u64::MAX << (slot % 64));
        if here != 0 {
            return Some(word * 64 + here.trailing_zeros() as usize);
        }
        let after = word + 1;
        (after / 64..self.summary.len()).find_map(|index| {
            let from = if index == after / 64 { after % 64 } else { 0 };
            let words = self.summary[index] & (u64::MAX << from);
            (words != 0).then(|| {
                let word = index * 64 + words.trailing_zeros() as usize;
                word * 64 + self.words[word].trailing_zeros() as usize
            })
        })
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolver::random::tests::sequence;

    #[test]
    fn as_a_sorted_list() {
        for seed in 0..50 {
            let mut random = sequence(seed);
            let (mut wheel, mut list) = (Wheel::new(), vec![None; 40]);
            let mut now = random.below(100_000);
            for _ in 0..2000 {
                let timer = random.below(40) as usize;
                if random.below(4) == 0 {
                    wheel.clear(timer as u32);
                    list[timer] = None;
                } else {
                    let tick = (now + random.below(20_000)).saturating_sub(100);
                    wheel.set(timer as u32, tick);
                    list[timer] = Some(tick);
                }
                now += [0, 1, 30, 9000, 30_000][random.below(5) as usize] * random.below(2);
                let time = Duration::from_millis(now);
                if let Some(first) = list.iter().flatten().min() {
                    let next = wheel.next_time().unwrap();
                    assert!(next <= Duration::from_millis(now.max(*first)), "seed {seed}");
                }
                while let Some(timer) = wheel.pop(time) {
                    let tick: Option<u64> = list[timer as usize].take();
                    assert!(tick.is_some_and(|tick| tick <= now), "seed {seed}");
                }
                assert!(list.iter().flatten().all(|&tick| tick > now), "seed {seed}");
                assert_eq!(wheel.next_time().is_some(), list.iter().any(Option::is_some));
            }
        }
    }
}
