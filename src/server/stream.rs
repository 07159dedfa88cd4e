//! TCP: the same answers behind a length prefix (RFC 7766), bounded in every direction.
//!
//! ```text
//!   listener ──> connection: | length u16 | query | ... ──> answer_batch ──> | length | reply |
//! ```
//!
//! One thread for all connections, beside the cores: fallback for truncated answers, not the way
//! to ask a million questions. Queries of one connection are answered in order.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use crate::answer::{CoreState, Exchange, Transport, Verdict, answer_batch};
use crate::limits::{MESSAGE_SIZE_MAX, STREAM_CONNECTIONS_PER_PEER_MAX};
use crate::memory::epoch::Reader;
use crate::snapshot::Snapshot;

/// How long a peer may take to accept a reply or to finish a query it has begun.
const PROGRESS: Duration = Duration::from_secs(5);
/// How long to rest when no descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Limits of the service.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// Connections at once.
    pub connections: usize,
    /// How long a connection may be idle.
    pub idle: Duration,
}

/// What all connections share: they take turns on one thread.
struct Shared {
    snapshot: RefCell<Reader<Snapshot>>,
    core: RefCell<CoreState>,
    peers: RefCell<HashMap<IpAddr, usize>>,
    started: Instant,
    limits: StreamLimits,
}

/// Serves `listeners` until `stop` is set.
pub fn run(
    listeners: Vec<std::net::TcpListener>,
    snapshot: Reader<Snapshot>,
    core: CoreState,
    limits: StreamLimits,
    stop: &Arc<AtomicBool>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shared = Rc::new(Shared {
        snapshot: RefCell::new(snapshot),
        core: RefCell::new(core),
        peers: RefCell::default(),
        started: Instant::now(),
        limits,
    });
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        for listener in listeners {
            let listener = TcpListener::from_std(listener)?;
            tokio::task::spawn_local(accept(listener, Rc::clone(&shared)));
        }
        while !stop.load(Ordering::Relaxed) {
            sleep(ACCEPT_PAUSE).await;
        }
        Ok(())
    })
}

async fn accept(listener: TcpListener, shared: Rc<Shared>) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            // Out of descriptors or memory: what is open goes on, the rest waits in the backlog.
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let address = peer.ip();
        {
            let mut peers = shared.peers.borrow_mut();
            let open: usize = peers.values().sum();
            let of_peer = peers.get(&address).copied().unwrap_or(0);
            if open >= shared.limits.connections || of_peer >= STREAM_CONNECTIONS_PER_PEER_MAX {
                continue;
            }
            peers.insert(address, of_peer + 1);
        }
        let shared = Rc::clone(&shared);
        tokio::task::spawn_local(async move {
            // Whatever ends a connection concerns only its peer.
            let _ = converse(stream, &shared).await;
            let mut peers = shared.peers.borrow_mut();
            if let Some(count) = peers.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    peers.remove(&address);
                }
            }
        });
    }
}

/// Answers one connection until it ends.
async fn converse(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 2 + MESSAGE_SIZE_MAX];
    loop {
        let query_len = match timeout(shared.limits.idle, stream.read_u16()).await {
            Ok(len) => usize::from(len?),
            Err(_) => return Ok(()),
        };
        timeout(PROGRESS, stream.read_exact(&mut buffer[2..2 + query_len])).await??;
        let verdict = {
            let mut exchange = [Exchange {
                buffer: &mut buffer[2..],
                query_len,
                transport: Transport::Stream,
                verdict: Verdict::Reply(0),
            }];
            let mut snapshot = shared.snapshot.borrow_mut();
            let mut core = shared.core.borrow_mut();
            answer_batch(&snapshot.pin(), shared.started.elapsed(), &mut core, &mut exchange);
            exchange[0].verdict
        };
        let Verdict::Reply(len) = verdict else { return Ok(()) };
        buffer[..2].copy_from_slice(&(len as u16).to_be_bytes());
        timeout(PROGRESS, stream.write_all(&buffer[..2 + len])).await??;
    }
}
