//! Questions on their way from whoever received them to the thread that resolves.
//!
//! ```text
//!   core, core, TCP ──push──> | miss | miss | ... |  bounded ──pop──> resolving
//!          └── full: answered at once with what is stale, or SERVFAIL
//! ```

use crossbeam::queue::ArrayQueue;
use tokio::sync::oneshot;

use crate::limits::{HEADER_LEN, NAME_LEN_MAX};
use crate::net::Origin;
use crate::net::client::Waker;

use super::resolving::orders::Orders;

/// Octets of header, question and OPT with two empty options.
pub const MISS_LEN_MAX: usize = HEADER_LEN + NAME_LEN_MAX + 4 + 11 + 8;

/// Where the answer goes.
pub enum Back {
    /// To a peer, from the core that received the question.
    Datagram {
        /// Which core.
        core: usize,
        /// Who asked, and where.
        origin: Origin,
    },
    /// To a connection.
    Stream {
        /// How long it may be idle, in units of 100 ms.
        idle: u16,
        /// Who asked; an IPv4 address is mapped.
        client: u128,
        /// Takes the message; without one the connection ends.
        reply: oneshot::Sender<Vec<u8>>,
    },
    /// Nobody waits: an answer is asked for anew before it expires.
    Nobody,
}

/// A question that the cache has no fresh answer to.
pub struct Miss {
    octets: [u8; MISS_LEN_MAX],
    len: u16,
    /// Where the answer goes.
    pub back: Back,
}

impl Miss {
    /// The query `octets`, at most [`MISS_LEN_MAX`] of them; `None` if there are more.
    pub fn new(query: &[u8], back: Back) -> Option<Miss> {
        let mut octets = [0; MISS_LEN_MAX];
        octets.get_mut(..query.len())?.copy_from_slice(query);
        Some(Miss { octets, len: query.len() as u16, back })
    }

    /// The query.
    pub fn query(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }
}

/// The questions that wait. Whoever pushes wakes the other side afterwards.
pub struct Misses {
    queue: ArrayQueue<Miss>,
    waker: Waker,
    /// What the thread that pops is asked for beside them.
    pub orders: Orders,
}

impl Misses {
    /// Room for `count`; `waker` ends the wait of the thread that pops.
    pub fn new(count: usize, waker: Waker) -> Misses {
        let orders = Orders::new(waker.clone());
        Misses { queue: ArrayQueue::new(count), waker, orders }
    }

    /// How many have room now; others may take it.
    pub fn room(&self) -> usize {
        self.queue.capacity() - self.queue.len()
    }

    /// Puts one in; `false` if there is no room.
    pub fn push(&self, miss: Miss) -> bool {
        self.queue.push(miss).is_ok()
    }

    /// Says that something was pushed.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// The next one.
    pub fn pop(&self) -> Option<Miss> {
        self.queue.pop()
    }
}
