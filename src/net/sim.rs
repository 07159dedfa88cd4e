//! A path in memory, with the faults of a network, for tests.
//!
//! ```text
//!   push ──> lost? doubled? corrupted? reordered? ──> receive ... send ──> replies
//! ```
//!
//! Everything follows from a seed: a failing test prints it and can be run again.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::limits::{BATCH_COUNT_MAX, DATAGRAM_BUFFER_LEN};
use crate::memory::Region;

use super::PacketPath;
use super::batch::{Batch, Slot, Slots};
use super::counters::PathCounters;
use super::peer::{CONTROL_LEN, Control, NAME_LEN, Origin, PeerName};

/// How often things go wrong, in 1024ths.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The datagram vanishes.
    pub lost: u16,
    /// It arrives twice.
    pub doubled: u16,
    /// One of its bits is turned.
    pub corrupted: u16,
    /// It arrives before the one sent before it.
    pub reordered: u16,
}

/// A path whose network is a queue.
pub struct SimPath {
    random: u64,
    faults: Faults,
    arriving: VecDeque<(u64, Vec<u8>)>,
    /// What was sent: the tag of the query, and the reply.
    replies: Vec<(u64, Vec<u8>)>,
    tags: Vec<u64>,
    slots: Slots,
    buffers: Region,
    counters: Arc<PathCounters>,
}

// SAFETY:
// - The slots point into `buffers`, which the path owns and which does not move with it.
unsafe impl Send for SimPath {}

impl SimPath {
    /// A path with `faults` drawn from `seed`.
    pub fn new(seed: u64, faults: Faults) -> io::Result<SimPath> {
        Ok(SimPath {
            random: seed | 1,
            faults,
            arriving: VecDeque::new(),
            replies: Vec::new(),
            tags: Vec::new(),
            slots: Slots::new(),
            buffers: Region::new(BATCH_COUNT_MAX * DATAGRAM_BUFFER_LEN)?,
            counters: Arc::default(),
        })
    }

    fn chance(&mut self, of_1024: u16) -> bool {
        self.next() % 1024 < u64::from(of_1024)
    }

    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random >> 11
    }

    /// Sends a datagram towards the path; `tag` comes back with the reply.
    pub fn push(&mut self, tag: u64, datagram: &[u8]) {
        if self.chance(self.faults.lost) {
            return;
        }
        let mut octets = datagram.to_vec();
        if !octets.is_empty() && self.chance(self.faults.corrupted) {
            let bit = self.next() as usize % (octets.len() * 8);
            octets[bit / 8] ^= 1 << (bit % 8);
        }
        let copies = if self.chance(self.faults.doubled) { 2 } else { 1 };
        for _ in 0..copies {
            self.arriving.push_back((tag, octets.clone()));
            let last = self.arriving.len() - 1;
            if last > 0 && self.chance(self.faults.reordered) {
                self.arriving.swap(last, last - 1);
            }
        }
    }

    /// Takes the replies sent so far.
    pub fn take_replies(&mut self) -> Vec<(u64, Vec<u8>)> {
        std::mem::take(&mut self.replies)
    }
}

impl PacketPath for SimPath {
    fn receive(&mut self) -> io::Result<Batch<'_>> {
        self.slots.clear();
        self.tags.clear();
        while self.slots.len() < BATCH_COUNT_MAX
            && let Some((tag, octets)) = self.arriving.pop_front()
        {
            if octets.len() > DATAGRAM_BUFFER_LEN {
                self.counters.count_oversized();
                continue;
            }
            let at = self.slots.len() * DATAGRAM_BUFFER_LEN;
            let buffer = &mut self.buffers[at..at + DATAGRAM_BUFFER_LEN];
            buffer[..octets.len()].copy_from_slice(&octets);
            // SAFETY:
            // - Each slot has a buffer of its own in the region, which the path leaves alone
            //   until the batch is over.
            self.slots
                .push(unsafe { Slot::new(buffer.as_mut_ptr(), DATAGRAM_BUFFER_LEN, octets.len()) });
            self.tags.push(tag);
        }
        self.counters.count_batch(self.slots.len());
        Ok(Batch::new(&mut self.slots))
    }

    fn origin(&self, index: usize) -> Origin {
        let mut name = PeerName([0; NAME_LEN]);
        name.0[..8].copy_from_slice(&self.tags[index].to_ne_bytes());
        let control = Control([0; CONTROL_LEN]);
        Origin { socket: 0, name, name_len: 0, control, control_len: 0 }
    }

    fn send(&mut self) -> io::Result<()> {
        for (i, (slot, tag)) in self.slots.iter().zip(&self.tags).enumerate() {
            if slot.reply_len > 0 {
                let at = i * DATAGRAM_BUFFER_LEN;
                self.replies.push((*tag, self.buffers[at..at + slot.reply_len].to_vec()));
            }
        }
        self.counters.count_sent(self.slots.iter().filter(|slot| slot.reply_len > 0).count());
        self.slots.clear();
        Ok(())
    }

    fn wait(&mut self, _timeout: Duration) -> io::Result<()> {
        Ok(())
    }

    fn counters(&self) -> &Arc<PathCounters> {
        &self.counters
    }
}
