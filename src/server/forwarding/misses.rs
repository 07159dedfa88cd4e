//! Questions on their way from whoever received them to the thread that resolves.
//!
//! ```text
//!   core, core, TCP ──push──> | miss | miss | ... |  bounded ──pop──> resolving
//!          └── full: answered at once with what is stale, or SERVFAIL
//! ```

use std::sync::atomic::{AtomicUsize, Ordering};

use arrayvec::ArrayVec;
use crossbeam::queue::SegQueue;
use tokio::sync::oneshot;

use crate::limits::{HEADER_LEN, NAME_LEN_MAX};
use crate::net::Origin;
use crate::net::client::Waker;

use super::precedence::Precedence;
use super::resolving::orders::Orders;

/// Octets of header, question and OPT with two empty options.
pub const MISS_LEN_MAX: usize = HEADER_LEN + NAME_LEN_MAX + 4 + 11 + 8;

/// Octets of a query that is short: its name has some ninety of them.
const SHORT_LEN_MAX: usize = 126;

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
    octets: Octets,
    /// The hash of its name, if that is what is to be asked for: no alias leads elsewhere.
    pub name_hash: Option<u64>,
    /// Where the answer goes.
    pub back: Back,
}

/// Short queries, which nearly all are, need no memory of their own.
enum Octets {
    Short(ArrayVec<u8, SHORT_LEN_MAX>),
    Long(Box<[u8]>),
}

impl Miss {
    /// The query `octets`, at most [`MISS_LEN_MAX`] of them; `None` if there are more.
    pub fn new(query: &[u8], back: Back) -> Option<Miss> {
        let octets = match ArrayVec::try_from(query) {
            Ok(short) => Octets::Short(short),
            Err(_) if query.len() <= MISS_LEN_MAX => Octets::Long(query.into()),
            Err(_) => return None,
        };
        Some(Miss { octets, name_hash: None, back })
    }

    /// The query.
    pub fn query(&self) -> &[u8] {
        match &self.octets {
            Octets::Short(octets) => octets,
            Octets::Long(octets) => octets,
        }
    }
}

/// The questions that wait. Whoever pushes wakes the other side afterwards.
pub struct Misses {
    queue: SegQueue<Miss>,
    count_max: AtomicUsize,
    waker: Waker,
    /// What the thread that pops is asked for beside them.
    pub orders: Orders,
    /// Who goes first where both work.
    pub precedence: Precedence,
}

impl Misses {
    /// Room for `count_max`, whose memory is taken when they come; `waker` ends the wait of the
    /// thread that pops. Call it there; `cores` are those that push.
    pub fn new(count_max: usize, waker: Waker, cores: &[usize]) -> Misses {
        let orders = Orders::new(waker.clone());
        let (queue, precedence) = (SegQueue::new(), Precedence::new(cores));
        Misses { queue, count_max: count_max.into(), waker, orders, precedence }
    }

    /// Has room for `count_max` from now on; those that wait, wait on.
    pub fn make_room(&self, count_max: usize) {
        self.count_max.store(count_max, Ordering::Relaxed);
    }

    /// How many have room now; others may take it.
    pub fn room(&self) -> usize {
        self.count_max.load(Ordering::Relaxed).saturating_sub(self.queue.len())
    }

    /// Puts one in; `false` if there is no room. Cores that push at once may each put in one more.
    pub fn push(&self, miss: Miss) -> bool {
        let has_room = self.room() > 0;
        if has_room {
            self.queue.push(miss);
        }
        has_room
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
