//! The queries in flight: by exchange, and by socket and ID.
//!
//! ```text
//!   exchange ──map──> record <──first── place of a socket
//!                     | exchange | slot | id | next | previous |   a chain for each socket
//! ```
//!
//! A socket has few at once, so that its replies are found by a walk. There are as many records as
//! queries have been in flight at once; the one that was free last is used first.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::{NONE, Slot};

/// Queries in flight that there is room for from the beginning.
const COUNT_FIRST: usize = 2048;

#[derive(Clone, Copy)]
struct Record {
    exchange: u64,
    slot: Slot,
    id: u16,
    /// In its chain; of those that are free, the next free one.
    next: u32,
    previous: u32,
}

/// All queries in flight.
pub(super) struct Records {
    records: Vec<Record>,
    free: u32,
    by_exchange: HashMap<u64, u32, BuildHasherDefault<Spread>>,
    count_max: usize,
}

/// Exchange numbers are this server's own: spreading them is enough.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, octets: &[u8]) {
        for octet in octets {
            self.write_u64(u64::from(*octet));
        }
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number) * 0x9E37_79B9_7F4A_7C15_u128;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

/// What tells a query from all others in flight; never 0.
pub(super) fn key(slot: Slot, id: u16) -> u64 {
    1 << 63 | u64::from(slot) << 16 | u64::from(id)
}

impl Records {
    /// None yet; `count_max` at most.
    pub fn new(count_max: usize) -> Records {
        // It grows with what is in flight. Twice the room: what was removed is then cleared away in
        // place.
        let first = 2 * count_max.min(COUNT_FIRST);
        let by_exchange = HashMap::with_capacity_and_hasher(first, Default::default());
        let records = Vec::with_capacity(count_max.min(COUNT_FIRST));
        Records { records, free: NONE, by_exchange, count_max }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_exchange.len()
    }

    /// Adds one to the chain that begins at `first`; `false` if there is no room, or its number is
    /// in flight.
    #[inline]
    pub fn add(&mut self, exchange: u64, slot: Slot, id: u16, first: &mut u32) -> bool {
        if self.len() == self.count_max || self.by_exchange.contains_key(&exchange) {
            return false;
        }
        let record = Record { exchange, slot, id, next: *first, previous: NONE };
        let index = match self.free {
            NONE => {
                self.records.push(record);
                self.records.len() as u32 - 1
            }
            index => {
                self.free = self.records[index as usize].next;
                self.records[index as usize] = record;
                index
            }
        };
        self.by_exchange.insert(exchange, index);
        if *first != NONE {
            self.records[*first as usize].previous = index;
        }
        *first = index;
        true
    }

    /// Removes one from the chain that begins at `first`; returns its number.
    #[inline]
    pub fn remove(&mut self, index: u32, first: &mut u32) -> u64 {
        let Record { exchange, next, previous, .. } = self.records[index as usize];
        self.by_exchange.remove(&exchange);
        match previous {
            NONE => *first = next,
            previous => self.records[previous as usize].next = next,
        }
        if next != NONE {
            self.records[next as usize].previous = previous;
        }
        self.records[index as usize].next = self.free;
        self.free = index;
        exchange
    }

    /// The one with `id` in the chain that begins at `first`.
    #[inline]
    pub fn find(&self, first: u32, id: u16) -> Option<u32> {
        let mut index = first;
        while let Some(record) = self.records.get(index as usize) {
            if record.id == id {
                return Some(index);
            }
            index = record.next;
        }
        None
    }

    /// The one of an exchange.
    pub fn of(&self, exchange: u64) -> Option<u32> {
        self.by_exchange.get(&exchange).copied()
    }

    /// Its exchange.
    #[inline]
    pub fn exchange(&self, index: u32) -> u64 {
        self.records[index as usize].exchange
    }

    /// Its socket.
    #[inline]
    pub fn slot(&self, index: u32) -> Slot {
        self.records[index as usize].slot
    }

    /// As [`key`].
    pub fn key(&self, index: u32) -> u64 {
        let Record { slot, id, .. } = self.records[index as usize];
        key(slot, id)
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_lose_their_first_middle_and_last() {
        let mut records = Records::new(5);
        let (mut first, mut other) = (NONE, NONE);
        for exchange in 0..4 {
            assert!(records.add(exchange, 7, 100 + exchange as u16, &mut first));
        }
        assert!(!records.add(3, 7, 9, &mut first), "its number is in flight");
        assert!(records.add(10, 8, 102, &mut other));
        assert!(!records.add(11, 8, 5, &mut other), "there is no room");
        for exchange in [1, 3, 0] {
            let index = records.find(first, 100 + exchange as u16).unwrap();
            assert_eq!(records.of(exchange), Some(index));
            assert_eq!(records.remove(index, &mut first), exchange);
            assert_eq!(records.find(first, 100 + exchange as u16), None);
        }
        let left = records.find(first, 102).unwrap();
        assert_eq!((records.exchange(left), records.slot(left), records.len()), (2, 7, 2));
        assert_eq!(records.exchange(records.find(other, 102).unwrap()), 10);
        records.remove(left, &mut first);
        assert_eq!(first, NONE);
        for exchange in 20..24 {
            assert!(records.add(exchange, 7, 1, &mut first));
        }
    }

    #[test]
    fn a_long_life_needs_no_more_room() {
        let mut records = Records::new(64);
        let capacity = records.by_exchange.capacity();
        let mut first = NONE;
        for exchange in 0..100_000u64 {
            if exchange >= 64 {
                let index = records.of(exchange - 64).unwrap();
                records.remove(index, &mut first);
            }
            assert!(records.add(exchange, 0, exchange as u16, &mut first));
        }
        assert_eq!(records.by_exchange.capacity(), capacity);
    }
}
