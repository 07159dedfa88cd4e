//! Connections to primaries that stay for the next transfer: of a hundred thousand zones hardly any
//! needs one of its own (RFC 7766, 6.2.1).

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::limits::{CHECKS_MAX, TRANSFERS_IN_MAX};

/// A connection, and what was read of it ahead.
pub type Connection = BufReader<TcpStream>;

/// How long one stays: less than the idle time that servers usually allow.
const IDLE_MAX: Duration = Duration::from_secs(3);
/// Octets that are read at once.
const READ_LEN: usize = 16 << 10;

/// What is open and not in use, and the right to use some.
pub struct Connections {
    /// Transfers at once.
    pub slots: Semaphore,
    /// Commands at once that check what came.
    pub checks: Semaphore,
    idle: RefCell<HashMap<SocketAddr, Vec<(Instant, Connection)>>>,
}

impl Connections {
    /// None yet.
    pub fn new() -> Connections {
        Connections {
            slots: Semaphore::new(TRANSFERS_IN_MAX),
            checks: Semaphore::new(CHECKS_MAX),
            idle: RefCell::default(),
        }
    }

    /// One that was in use last, if there is any.
    pub fn take(&self, address: SocketAddr) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let (since, connection) = idle.get_mut(&address)?.pop()?;
        (since.elapsed() < IDLE_MAX).then_some(connection)
    }

    /// Keeps one for the next transfer. With octets that nobody asked for it is no good.
    pub fn keep(&self, address: SocketAddr, connection: Connection) {
        if connection.buffer().is_empty() {
            let mut idle = self.idle.borrow_mut();
            idle.entry(address).or_default().push((Instant::now(), connection));
        }
    }

    /// Closes what has not been used for a while.
    pub fn close_old(&self) {
        self.idle.borrow_mut().retain(|_, connections| {
            connections.retain(|(since, _)| since.elapsed() < IDLE_MAX);
            !connections.is_empty()
        });
    }
}

/// One that is new.
pub fn fresh(stream: TcpStream) -> Connection {
    BufReader::with_capacity(READ_LEN, stream)
}
