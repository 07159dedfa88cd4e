//! Replies that leave together: those of a piece of work, by one system call.

use std::ops::Range;

use crate::net::{Origin, Replier};

/// Room that is kept.
const OCTETS_MAX: usize = 1 << 18;

/// Replies to datagrams, until they are sent.
#[derive(Default)]
pub struct Outbox {
    octets: Vec<u8>,
    replies: Vec<(usize, Origin, Range<usize>)>,
}

impl Outbox {
    /// Puts in a reply from the sockets of a core.
    pub fn put(&mut self, core: usize, origin: Origin, reply: &[u8]) {
        let start = self.octets.len();
        self.octets.extend_from_slice(reply);
        self.replies.push((core, origin, start..self.octets.len()));
    }

    /// Whether it is time to send them.
    pub fn is_full(&self) -> bool {
        self.octets.len() >= OCTETS_MAX
    }

    /// Sends all there are, by the cores' `repliers`.
    pub fn empty(&mut self, repliers: &[Replier]) {
        for (core, replier) in repliers.iter().enumerate() {
            let of_core = self.replies.iter().filter(|(of, ..)| *of == core);
            replier.send_all(of_core.map(|(_, origin, at)| (origin, &self.octets[at.clone()])));
        }
        self.replies.clear();
        self.octets.clear();
        self.octets.shrink_to(OCTETS_MAX);
    }
}
