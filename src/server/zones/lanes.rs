//! Work by peer: some of it at once for each, the rest in turn, so that a peer that does not answer
//! holds up nobody else's.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// What is waiting, by peer.
pub struct Lanes<K, T> {
    /// Of one peer at once.
    width: usize,
    lanes: HashMap<K, Lane<T>>,
}

struct Lane<T> {
    running: usize,
    waiting: VecDeque<T>,
}

impl<K: Copy + Eq + Hash, T> Lanes<K, T> {
    /// None yet; of each peer `width` run at once.
    pub fn new(width: usize) -> Lanes<K, T> {
        Lanes { width, lanes: HashMap::new() }
    }

    /// Gives `work` back if it may start now; otherwise it waits for its turn.
    #[must_use]
    pub fn enter(&mut self, peer: K, work: T) -> Option<T> {
        let empty = || Lane { running: 0, waiting: VecDeque::new() };
        let lane = self.lanes.entry(peer).or_insert_with(empty);
        if lane.running < self.width {
            lane.running += 1;
            return Some(work);
        }
        lane.waiting.push_back(work);
        None
    }

    /// One of `peer` is over: what may start instead.
    #[must_use]
    pub fn leave(&mut self, peer: K) -> Option<T> {
        let lane = self.lanes.get_mut(&peer)?;
        if let Some(next) = lane.waiting.pop_front() {
            return Some(next);
        }
        lane.running -= 1;
        if lane.running == 0 {
            self.lanes.remove(&peer);
        }
        None
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_at_once_the_rest_in_turn() {
        let mut lanes = Lanes::new(2);
        let started = (1..=5).filter_map(|work| lanes.enter('a', work)).collect::<Vec<_>>();
        assert_eq!(started, [1, 2]);
        assert_eq!(lanes.enter('b', 6), Some(6), "another peer does not wait");
        let turns: Vec<_> = std::iter::from_fn(|| lanes.leave('a')).collect();
        assert_eq!(turns, [3, 4, 5]);
        assert_eq!((lanes.leave('a'), lanes.leave('b')), (None, None));
        assert!(lanes.lanes.is_empty());
    }
}
