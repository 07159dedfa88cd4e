//! What the thread that resolves is asked for beside misses: to tell what it knows, to try a
//! question, to forward otherwise.
//!
//! ```text
//!   command, reload ──give──> | order | order |  bounded, looked at once a turn ──> Driver
//!         ^────────────────────────────────── told, once ──────────────────────────┘
//! ```
//!
//! An order costs the thread no more than some hundred misses do; words are made elsewhere.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;

use crate::answer::Wanted;
use crate::net::client::Waker;
use crate::resolver::{RequestId, RouteReport, Trace, UpstreamReport};

use super::{Driver, Engine, Flight, Resolving};

/// Orders that wait.
const ORDERS_MAX: usize = 8;
/// Upstreams that are told of at once.
pub const REPORTS_MAX: usize = 64;
/// Questions at once whose attempts are written down.
const TRACED_MAX: usize = 4;

//----------- Order ----------------------------------------------------------

/// Changes what the thread works with; whether whom it asks has been replaced.
pub type Renew = dyn FnOnce(&mut Resolving) -> io::Result<bool> + Send;

/// What is asked for.
pub enum Order {
    /// To tell of upstreams from this number on: [`REPORTS_MAX`] of them at most.
    Upstreams(usize),
    /// To tell of a question.
    Question {
        /// Which.
        wanted: Box<Wanted>,
        /// Whether it is to be asked of upstreams, whatever the cache has: it is told of then.
        asks: bool,
    },
    /// To work with something else from now on.
    Renew(Box<Renew>),
}

/// What is told. Times are of the server's clock.
pub enum Told {
    /// Of upstreams, and when.
    Upstreams(Duration, Vec<UpstreamReport>),
    /// Of a question.
    Question(Box<QuestionReport>),
    /// Whether it works with something else now.
    Renewed(io::Result<()>),
}

/// What the thread knows of a question.
#[derive(Debug)]
pub struct QuestionReport {
    /// When this was so.
    pub now: Duration,
    /// The forward that covers its name, and its upstreams.
    pub route: Option<RouteReport>,
    /// Clients that wait for its answer, if it is in flight.
    pub waiting: Option<usize>,
    /// It has failed: until then it is not asked, and clients get what is stale at once.
    pub spared_until: Option<Duration>,
    /// Of a question that was to be asked: what was tried.
    pub trace: Option<Trace>,
    /// Or why it was not.
    pub unasked: Option<&'static str>,
}

//----------- Orders ---------------------------------------------------------

/// The orders that wait.
pub struct Orders {
    queue: ArrayQueue<(Order, SyncSender<Told>)>,
    waker: Waker,
}

impl Orders {
    /// None yet; `waker` ends the thread's wait.
    pub fn new(waker: Waker) -> Orders {
        Orders { queue: ArrayQueue::new(ORDERS_MAX), waker }
    }

    /// Has the thread do something, and waits for what it tells; `None` if it has no room, or does
    /// not do it in time.
    pub fn give(&self, order: Order, patience: Duration) -> Option<Told> {
        let (reply, told) = sync_channel(1);
        self.queue.push((order, reply)).ok()?;
        self.waker.wake();
        told.recv_timeout(patience).ok()
    }
}

//----------- Driver ---------------------------------------------------------

impl Driver {
    /// Does what was ordered.
    #[cold]
    fn obey(&mut self, order: Order, reply: SyncSender<Told>, now: Duration) {
        let told = match order {
            Order::Upstreams(from) => {
                let reports = self.parts.forwarder.upstreams().skip(from).take(REPORTS_MAX);
                Told::Upstreams(now, reports.collect())
            }
            Order::Question { wanted, asks } => {
                let mut report = self.report(&wanted, now);
                if asks && report.waiting.is_none() {
                    match self.ask_traced(*wanted, reply, now) {
                        None => return,
                        Some((reason, again)) => {
                            report.unasked = Some(reason);
                            // Whoever asked may be gone: then nobody waits for it.
                            let _ = again.try_send(Told::Question(Box::new(report)));
                            return;
                        }
                    }
                }
                Told::Question(Box::new(report))
            }
            Order::Renew(renew) => Told::Renewed(renew(&mut self.parts).map(|is_replaced| {
                if is_replaced {
                    self.ask_all_again(now);
                }
            })),
        };
        let _ = reply.try_send(told);
    }

    /// Does all that was ordered by now.
    #[inline]
    pub(super) fn obey_all(&mut self, now: Duration) {
        for _ in 0..ORDERS_MAX {
            let Some((order, reply)) = self.parts.misses.orders.queue.pop() else { return };
            self.obey(order, reply, now);
        }
    }

    fn report(&self, wanted: &Wanted, now: Duration) -> QuestionReport {
        let key = wanted.key();
        let in_flight = self.flights.asking(&key);
        let name = crate::wire::Name::from_wire(wanted.name.as_wire()).ok();
        QuestionReport {
            now,
            route: name.and_then(|name| self.parts.forwarder.route_report(&name)),
            waiting: in_flight.map(Flight::waiting),
            spared_until: self.flights.spared_until(key.hash(), now),
            trace: None,
            unasked: None,
        }
    }

    /// Asks a question, and has it told of when it is done. Otherwise why not, and whom to tell.
    fn ask_traced(
        &mut self,
        wanted: Wanted,
        reply: SyncSender<Told>,
        now: Duration,
    ) -> Option<(&'static str, SyncSender<Told>)> {
        if self.traced.len() >= TRACED_MAX {
            return Some(("others are being explained: try again", reply));
        }
        if self.flights.len() >= self.parts.outstanding.all {
            return Some(("too many questions are in flight", reply));
        }
        let Some(flight) = Flight::new(&wanted, None) else {
            return Some(("it is no name", reply));
        };
        let id = self.launch(flight, now, true);
        self.traced.push((id, wanted, reply));
        None
    }

    /// A question is done: whoever had it asked is told.
    #[cold]
    pub(super) fn tell_traced(&mut self, id: u64, now: Duration) {
        let Some(at) = self.traced.iter().position(|(traced, ..)| *traced == id) else { return };
        let (_, wanted, reply) = self.traced.swap_remove(at);
        let mut report = self.report(&wanted, now);
        report.trace = self.parts.forwarder.take_trace(RequestId(id));
        let _ = reply.try_send(Told::Question(Box::new(report)));
    }

    /// Whom to ask has been replaced: what is in flight is asked of the new ones.
    fn ask_all_again(&mut self, now: Duration) {
        self.flights.forget_failures();
        for flight in self.flights.iter() {
            let request = self.request_of(flight, now);
            self.parts.forwarder.ask(now, RequestId(flight.id), request);
        }
    }
}
