//! Messages with their lengths on one connection, TCP or TLS (RFC 7766, RFC 7858): many at once,
//! replies in whatever order.
//!
//! ```text
//!   send ──> outgoing: | len | query | len | query | ──one write──> peer
//!   finish <── by its ID <── incoming: | len | reply | len | rep  <──┘
//! ```

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::spawn_local;

use crate::limits::HEADER_LEN;
use crate::net::client::pool::Draw;
use crate::resolver::Fault;
use crate::wire::message::{Message, Section};

use super::peer::Peer;

/// Octets received at once.
const READ_LEN: usize = 16 << 10;
/// Reads in one turn: other connections want theirs.
const TURN_READS_MAX: usize = 8;
/// Messages that answer nothing, before the connection is given up.
const UNASKED_MAX: u32 = 64;
/// OPT (RFC 6891).
const OPT: u16 = 41;
/// The option edns-tcp-keepalive (RFC 7828), and its unit.
const KEEPALIVE: u16 = 11;
const KEEPALIVE_UNIT: Duration = Duration::from_millis(100);
/// The longest a peer may have a connection kept.
const IDLE_MAX: Duration = Duration::from_secs(120);

/// One connection.
pub(super) struct Frames {
    peer: Rc<Peer>,
    outgoing: RefCell<Vec<u8>>,
    /// By ID.
    asked: RefCell<HashMap<u16, u64>>,
    draw: RefCell<Draw>,
    /// The connection's task, when it waits.
    task: Cell<Option<Waker>>,
    /// When something was last sent with nothing in flight, or a reply came.
    since: Cell<Instant>,
    idle: Cell<Duration>,
    /// The ID of the query that asked how long the connection may stay.
    keepalive_id: Cell<Option<u16>>,
    is_new: Cell<bool>,
    /// No new queries: it ends after those it has.
    is_leaving: Cell<bool>,
    unasked: Cell<u32>,
    /// Why it is to end.
    end: RefCell<Option<Fault>>,
    has_ended: Cell<bool>,
}

impl Frames {
    /// Carries over `stream` from now on.
    pub fn start<S>(stream: S, peer: Rc<Peer>) -> Rc<Frames>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let idle = peer.shared.options.idle;
        let draw = Draw::new();
        let is_leaving = draw.is_err();
        let frames = Rc::new(Frames {
            peer,
            outgoing: RefCell::default(),
            asked: RefCell::default(),
            // Without a generator it takes no queries.
            draw: RefCell::new(draw.unwrap_or_else(|_| Draw::from_seed(0))),
            task: Cell::default(),
            since: Cell::new(Instant::now()),
            idle: Cell::new(idle),
            keepalive_id: Cell::default(),
            is_new: Cell::new(true),
            is_leaving: Cell::new(is_leaving),
            unasked: Cell::new(0),
            end: RefCell::default(),
            has_ended: Cell::new(false),
        });
        spawn_local(Rc::clone(&frames).run(stream));
        frames
    }

    /// Queries at once that it still takes.
    pub fn room(&self) -> usize {
        let options = &self.peer.shared.options;
        let is_full = self.outgoing.borrow().len() >= options.queued_octets;
        if self.is_leaving.get() || self.has_ended.get() || is_full {
            return 0;
        }
        options.queries.saturating_sub(self.asked.borrow().len())
    }

    /// Whether its stream is closed.
    pub fn has_ended(&self) -> bool {
        self.has_ended.get()
    }

    /// Takes a query; it leaves with those that follow in this turn.
    pub fn send(&self, exchange: u64, message: &[u8]) {
        let mut asked = self.asked.borrow_mut();
        if asked.is_empty() {
            self.since.set(Instant::now());
        }
        let id = loop {
            // There are far fewer queries than IDs.
            let id = self.draw.borrow_mut().bits() as u16;
            if !asked.contains_key(&id) {
                break id;
            }
        };
        asked.insert(id, exchange);
        let mut outgoing = self.outgoing.borrow_mut();
        let start = outgoing.len();
        outgoing.extend_from_slice(&(message.len() as u16).to_be_bytes());
        outgoing.extend_from_slice(&id.to_be_bytes());
        outgoing.extend_from_slice(&message[2..]);
        if self.is_new.replace(false) && ask_keepalive(&mut outgoing, start) {
            self.keepalive_id.set(Some(id));
        }
        self.wake();
    }

    fn wake(&self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }

    /// Ends what is idle, or stalls.
    pub fn sweep(&self, now: Instant) {
        let (is_idle, waited) = (self.asked.borrow().is_empty(), now - self.since.get());
        let options = &self.peer.shared.options;
        if is_idle && (waited >= self.idle.get() || self.is_leaving.get()) {
            self.close(Fault::Connection("idle".into()));
        } else if !is_idle && waited >= options.stall {
            let seconds = options.stall.as_secs_f32();
            self.close(Fault::Connection(format!("no reply for {seconds} s")));
        }
        self.leave_if_forgetful(options.queries / 2);
    }

    /// Replies that never come hold their IDs: with more than `most` of them a new connection does
    /// better, and this one ends when nobody waits for anything on it.
    fn leave_if_forgetful(&self, most: usize) {
        let asked = self.asked.borrow();
        if asked.len() <= most && !self.is_leaving.get() {
            return;
        }
        let waited_for = asked.values().filter(|asked| self.peer.shared.is_live(**asked)).count();
        if asked.len() - waited_for > most {
            self.is_leaving.set(true);
        }
        if self.is_leaving.get() && waited_for == 0 {
            self.close(Fault::Connection("nothing is waited for".into()));
        }
    }

    fn close(&self, fault: Fault) {
        self.end.borrow_mut().get_or_insert(fault);
        self.wake();
    }

    /// Carries until it ends; then all that is in flight has failed.
    async fn run<S: AsyncRead + AsyncWrite + Unpin>(self: Rc<Self>, mut stream: S) {
        let mut incoming = Vec::new();
        let fault = poll_fn(|context| self.turn(&mut stream, &mut incoming, context)).await;
        self.has_ended.set(true);
        for (_, exchange) in self.asked.take() {
            self.peer.shared.finish(exchange, Err(fault.clone()));
        }
        let peer = Rc::clone(&self.peer);
        peer.forget_ended();
    }

    /// Writes what is there, reads what has come.
    fn turn<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        incoming: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> Poll<Fault> {
        self.task.set(Some(context.waker().clone()));
        if let Some(fault) = self.end.take() {
            return Poll::Ready(fault);
        }
        if let Poll::Ready(Err(error)) = self.write(stream, context) {
            return Poll::Ready(Fault::Connection(error.to_string()));
        }
        let mut is_more = false;
        for round in 0..TURN_READS_MAX {
            match read(stream, incoming, context) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Fault::Connection(error.to_string()));
                }
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Fault::Connection("closed by the peer".into()));
                }
                Poll::Ready(Ok(_)) => {}
            }
            if let Err(fault) = self.take_all(incoming) {
                return Poll::Ready(fault);
            }
            is_more = round + 1 == TURN_READS_MAX;
        }
        if is_more {
            context.waker().wake_by_ref();
        }
        if incoming.is_empty() {
            // Idle, it has no buffer.
            *incoming = Vec::new();
        }
        self.peer.pass_waiting();
        if self.is_leaving.get() && self.asked.borrow().is_empty() {
            return Poll::Ready(Fault::Connection("idle".into()));
        }
        Poll::Pending
    }

    fn write<S: AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut outgoing = self.outgoing.borrow_mut();
        let mut at = 0;
        while at < outgoing.len() {
            match Pin::new(&mut *stream).poll_write(context, &outgoing[at..]) {
                Poll::Ready(Ok(written)) if written > 0 => at += written,
                Poll::Ready(Ok(_)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
        }
        outgoing.drain(..at);
        // TLS may hold back what it has taken.
        Pin::new(&mut *stream).poll_flush(context)
    }

    /// Hands on all whole messages.
    fn take_all(&self, incoming: &mut Vec<u8>) -> Result<(), Fault> {
        let mut at = 0;
        while let Some((prefix, rest)) = incoming[at..].split_first_chunk::<2>() {
            let len = usize::from(u16::from_be_bytes(*prefix));
            if len < HEADER_LEN {
                return Err(Fault::Protocol(format!("a message of {len} octets")));
            }
            let Some(message) = rest.get(..len) else { break };
            self.take(message)?;
            at += 2 + len;
        }
        incoming.drain(..at);
        Ok(())
    }

    fn take(&self, message: &[u8]) -> Result<(), Fault> {
        let id = u16::from_be_bytes([message[0], message[1]]);
        let Some(exchange) = self.asked.borrow_mut().remove(&id) else {
            self.unasked.set(self.unasked.get() + 1);
            if self.unasked.get() >= UNASKED_MAX {
                let reason = format!("{UNASKED_MAX} messages that answer nothing");
                return Err(Fault::Protocol(reason));
            }
            return Ok(());
        };
        self.since.set(Instant::now());
        if self.keepalive_id.get() == Some(id) {
            self.keepalive_id.set(None);
            if let Some(idle) = keepalive(message) {
                // RFC 7828, 3.2.2: after 0 no more queries are sent, and it closes when all that
                // are outstanding have been answered.
                self.is_leaving.set(idle.is_zero());
                self.idle.set(idle.min(IDLE_MAX));
            }
        }
        self.peer.shared.finish(exchange, Ok(message.to_vec()));
        Ok(())
    }
}

/// Reads what is there behind what came before; there is room for the message that has begun.
fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    incoming: &mut Vec<u8>,
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let held = incoming.len();
    let needed = match incoming.first_chunk::<2>() {
        Some(prefix) => 2 + usize::from(u16::from_be_bytes(*prefix)),
        None => 2,
    };
    incoming.resize(needed.max(held + READ_LEN), 0);
    let mut buffer = ReadBuf::new(&mut incoming[held..]);
    let polled = Pin::new(stream).poll_read(context, &mut buffer);
    let read = buffer.filled().len();
    incoming.truncate(held + read);
    match polled {
        Poll::Ready(Ok(())) => Poll::Ready(Ok(read)),
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        Poll::Pending => Poll::Pending,
    }
}

//----------- Keepalive ------------------------------------------------------

/// Asks in the frame at `start`, the last one, how long the connection may stay; `false` if it has
/// no OPT as its last record, to which that could be added.
fn ask_keepalive(outgoing: &mut Vec<u8>, start: usize) -> bool {
    let message_len = outgoing.len() - start - 2;
    let Some(opt) = last_opt(&outgoing[start + 2..]) else { return false };
    if message_len + 4 > usize::from(u16::MAX) {
        return false;
    }
    outgoing.extend_from_slice(&KEEPALIVE.to_be_bytes());
    outgoing.extend_from_slice(&[0, 0]);
    let frame = &mut outgoing[start..];
    frame[..2].copy_from_slice(&(message_len as u16 + 4).to_be_bytes());
    let rdata_len_at = 2 + opt.start - 2;
    let rdata_len = (opt.len() as u16 + 4).to_be_bytes();
    frame[rdata_len_at..rdata_len_at + 2].copy_from_slice(&rdata_len);
    true
}

/// Where the data of OPT lies, if it is the last record.
fn last_opt(message: &[u8]) -> Option<std::ops::Range<usize>> {
    let last = Message::new(message)?.records().ok()?.last()?.ok()?;
    let is_opt = last.rtype == OPT && last.section == Section::Additional;
    (is_opt && last.rdata.end == message.len()).then_some(last.rdata)
}

/// What a reply says about it.
pub(super) fn keepalive(message: &[u8]) -> Option<Duration> {
    let records = Message::new(message)?.records().ok()?.flatten();
    let mut opts = records.filter(|record| record.rtype == OPT);
    let mut rest = &message[opts.next()?.rdata];
    while let Some((head, after)) = rest.split_first_chunk::<4>() {
        let [code, len] = [[head[0], head[1]], [head[2], head[3]]].map(u16::from_be_bytes);
        let (option, after) = after.split_at_checked(len.into())?;
        if code == KEEPALIVE {
            let units = u16::from_be_bytes(option.try_into().ok()?);
            return Some(KEEPALIVE_UNIT * u32::from(units));
        }
        rest = after;
    }
    None
}
