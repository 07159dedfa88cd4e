//! The loop of one core.
//!
//! ```text
//!   receive ──> pin the snapshot ──> answer the batch ──> unpin ──> send ──> receive ...
//!      └── nothing there: wait (offline: the publisher need not wait for this core)
//! ```

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;

use crate::answer::{CoreState, Exchange, Transport, Verdict, answer_batch};
use crate::limits::BATCH_COUNT_MAX;
use crate::memory::epoch::Reader;
use crate::net::PacketPath;
use crate::snapshot::Snapshot;

/// How long a core without work sleeps before it looks whether it should stop.
const WAIT: Duration = Duration::from_millis(200);

/// Answers on `path` until `stop` is set and everything received is answered.
pub fn run<P: PacketPath>(
    mut path: P,
    mut snapshot: Reader<Snapshot>,
    mut core: CoreState,
    stop: &Arc<AtomicBool>,
) -> io::Result<()> {
    let started = Instant::now();
    loop {
        if turn(&mut path, &mut snapshot, &mut core, started.elapsed())? == 0 {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            path.wait(WAIT)?;
        }
    }
}

/// One turn of the loop; returns how many datagrams it took.
#[inline]
pub fn turn<P: PacketPath>(
    path: &mut P,
    snapshot: &mut Reader<Snapshot>,
    core: &mut CoreState,
    now: Duration,
) -> io::Result<usize> {
    let mut batch = path.receive()?;
    let count = batch.len();
    if count == 0 {
        return Ok(0);
    }
    let mut lengths = ArrayVec::<usize, BATCH_COUNT_MAX>::new();
    {
        let mut exchanges = ArrayVec::<Exchange<'_>, BATCH_COUNT_MAX>::new();
        exchanges.extend(batch.datagrams_mut().map(|datagram| Exchange {
            buffer: datagram.buffer,
            query_len: datagram.received_len,
            transport: Transport::Datagram,
            verdict: Verdict::Reply(0),
        }));
        answer_batch(&snapshot.pin(), now, core, &mut exchanges);
        lengths.extend(exchanges.iter().map(|exchange| match exchange.verdict {
            Verdict::Reply(len) => len,
            Verdict::Drop(_) | Verdict::Defer(_) => 0,
        }));
    }
    for (index, len) in lengths.into_iter().enumerate() {
        batch.settle(index, len);
    }
    path.send()?;
    Ok(count)
}
