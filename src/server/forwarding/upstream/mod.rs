//! Queries to upstreams over connections: TCP, TLS, HTTPS and QUIC, on a thread of their own.
//!
//! ```text
//!   resolver's thread                       this thread
//!   Streams::send ──orders, in batches──> Peer ──> Connection   | query | query | ...  one write
//!                                           │ waiting    (several, opened as they are needed)
//!   Streams::receive <──ended──────────── finish <── replies, in whatever order; faults
//!        ^ Waker
//! ```
//!
//! Everything is bounded: exchanges in all, connections of a peer, queries and octets on one, those
//! that wait for a connection. Each exchange that was taken ends once: with a message, with a
//! fault, or because it was abandoned.

mod frames;
mod https;
mod peer;
mod quic;
#[cfg(test)]
mod tests;
mod tls;

use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::queue::SegQueue;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::net::client::Waker;
use crate::net::stand_back;
use crate::resolver::{Fault, Upstream};

use self::peer::{Made, Peer};

/// Orders taken in one turn: what goes to one peer leaves in one write.
const BATCH_COUNT_MAX: usize = 256;
/// Between looks at what is idle or stalls.
const SWEEP: Duration = Duration::from_millis(100);

/// Bounds of what upstreams may cost.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// Exchanges at once, of all upstreams.
    pub exchanges: usize,
    /// Connections to one upstream.
    pub connections: usize,
    /// Queries at once on one connection.
    pub queries: usize,
    /// Octets that wait to be written to one connection.
    pub queued_octets: usize,
    /// Queries that wait for a connection to one upstream.
    pub waiting: usize,
    /// How long a connection may take to be made, its handshake included.
    pub connect: Duration,
    /// How long a connection may bring nothing while replies are due.
    pub stall: Duration,
    /// How long a connection stays without queries; a peer may say another time (RFC 7828).
    pub idle: Duration,
    /// Where connections come from, if that matters; upstreams of the other family are not
    /// concerned.
    pub sources: Vec<IpAddr>,
}

impl Default for StreamOptions {
    fn default() -> StreamOptions {
        StreamOptions {
            exchanges: 1 << 14,
            connections: 4,
            queries: 512,
            queued_octets: 256 << 10,
            waiting: 4096,
            connect: Duration::from_secs(4),
            stall: Duration::from_secs(5),
            idle: Duration::from_secs(10),
            sources: Vec::new(),
        }
    }
}

impl StreamOptions {
    /// Where connection `number` to `upstream` comes from: they take turns. `None`: the kernel
    /// chooses.
    fn source(&self, upstream: SocketAddr, number: usize) -> Option<SocketAddr> {
        let of_family = |source: &&IpAddr| source.is_ipv4() == upstream.is_ipv4();
        let count = self.sources.iter().filter(of_family).count();
        let source = self.sources.iter().filter(of_family).nth(number.checked_rem(count)?)?;
        Some((*source, 0).into())
    }
}

//----------- Streams --------------------------------------------------------

/// What the resolver's thread asks for.
enum Order {
    Ask { exchange: u64, upstream: usize, message: Vec<u8> },
    Abandon(u64),
}

/// How an exchange has ended; `None` if it was abandoned.
type End = (u64, Option<Result<Vec<u8>, Fault>>);

/// The resolver's side of the connections. Dropping it closes them.
pub struct Streams {
    orders: Option<mpsc::Sender<Order>>,
    ended: Arc<SegQueue<End>>,
    in_flight: usize,
    exchanges_max: usize,
    upstreams: usize,
    thread: Option<JoinHandle<()>>,
}

impl Streams {
    /// Starts the thread. Upstreams keep their places in the list; those over UDP are asked over
    /// TCP. `waker` is called when something has ended.
    pub fn start(
        upstreams: &[Upstream],
        options: StreamOptions,
        waker: Waker,
    ) -> io::Result<Streams> {
        let made = Made::all(upstreams, &options)?;
        // An exchange has two orders at most, and is counted until its end has been taken.
        let exchanges_max = options.exchanges;
        let (orders, received) = mpsc::channel(2 * exchanges_max);
        let ended = Arc::new(SegQueue::new());
        let ended_there = Arc::clone(&ended);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name("upstreams".into()).spawn(move || {
            stand_back();
            let shared =
                Rc::new(Shared { options, ended: ended_there, waker, live: RefCell::default() });
            let peers = made.into_iter().map(|made| Peer::new(made, Rc::clone(&shared))).collect();
            LocalSet::new().block_on(&runtime, serve(peers, shared, received));
        })?;
        Ok(Streams {
            orders: Some(orders),
            ended,
            in_flight: 0,
            exchanges_max,
            upstreams: upstreams.len(),
            thread: Some(thread),
        })
    }

    /// Hands over a query; what comes of it comes under `exchange`, a number that is in flight
    /// once. `false` if there is no room.
    pub fn send(&mut self, exchange: u64, upstream: usize, message: Vec<u8>) -> bool {
        let is_one =
            (crate::limits::HEADER_LEN..=crate::limits::MESSAGE_SIZE_MAX).contains(&message.len());
        if self.in_flight == self.exchanges_max || upstream >= self.upstreams || !is_one {
            return false;
        }
        let order = Order::Ask { exchange, upstream, message };
        let is_sent = self.orders.as_ref().is_some_and(|orders| orders.try_send(order).is_ok());
        self.in_flight += usize::from(is_sent);
        is_sent
    }

    /// Its reply is not waited for any more. It may have come already.
    pub fn abandon(&mut self, exchange: u64) {
        if let Some(orders) = &self.orders {
            let _ = orders.try_send(Order::Abandon(exchange));
        }
    }

    /// Hands out what has ended, `count_max` at most, without waiting; returns how many. If so
    /// many came there may be more, for which nobody wakes.
    pub fn receive(
        &mut self,
        count_max: usize,
        take: &mut dyn FnMut(u64, Result<Vec<u8>, Fault>),
    ) -> usize {
        let mut count = 0;
        while count < count_max
            && let Some((exchange, end)) = self.ended.pop()
        {
            self.in_flight -= 1;
            count += 1;
            if let Some(result) = end {
                take(exchange, result);
            }
        }
        count
    }

    /// Exchanges whose end has not been taken.
    #[cfg(test)]
    fn in_flight(&self) -> usize {
        self.in_flight
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

//----------- The thread -----------------------------------------------------

/// What all peers share.
struct Shared {
    options: StreamOptions,
    ended: Arc<SegQueue<End>>,
    waker: Waker,
    /// Exchanges that are waited for.
    live: RefCell<HashSet<u64>>,
}

impl Shared {
    /// An exchange has ended, unless it was abandoned before.
    fn finish(&self, exchange: u64, result: Result<Vec<u8>, Fault>) {
        if self.live.borrow_mut().remove(&exchange) {
            self.end(exchange, Some(result));
        }
    }

    fn is_live(&self, exchange: u64) -> bool {
        self.live.borrow().contains(&exchange)
    }

    fn end(&self, exchange: u64, end: Option<Result<Vec<u8>, Fault>>) {
        self.ended.push((exchange, end));
        self.waker.wake();
    }
}

async fn serve(peers: Vec<Rc<Peer>>, shared: Rc<Shared>, mut orders: mpsc::Receiver<Order>) {
    let mut batch = Vec::with_capacity(BATCH_COUNT_MAX);
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = sweep.tick() => peers.iter().for_each(|peer| peer.sweep()),
            count = orders.recv_many(&mut batch, BATCH_COUNT_MAX) => {
                if count == 0 {
                    return peers.iter().for_each(|peer| peer.end());
                }
                for order in batch.drain(..) {
                    take(order, &peers, &shared);
                }
            }
        }
    }
}

fn take(order: Order, peers: &[Rc<Peer>], shared: &Shared) {
    match order {
        Order::Ask { exchange, upstream, message } => {
            shared.live.borrow_mut().insert(exchange);
            peers[upstream].send(exchange, message);
        }
        Order::Abandon(exchange) => {
            if shared.live.borrow_mut().remove(&exchange) {
                shared.end(exchange, None);
            }
        }
    }
}
