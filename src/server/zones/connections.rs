//! Connections to primaries that stay for the next transfer: of a hundred thousand zones hardly any
//! needs one of its own (RFC 7766, 6.2.1). And which primary is asked first.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::limits::{CHECKS_MAX, TRANSFERS_IN_MAX};
use crate::policy::Remote;

/// A connection, and what was read of it ahead.
pub type Connection = BufReader<TcpStream>;

/// How long one stays: less than the idle time that servers usually allow.
const IDLE_MAX: Duration = Duration::from_secs(3);
/// A primary that has no answer for so long is asked after others,
const SLOW_MIN: Duration = Duration::from_secs(1);
/// for so long: then it may be up again.
const SLOW_FOR: Duration = Duration::from_secs(60);
/// Octets that are read at once.
const READ_LEN: usize = 16 << 10;

/// What is open and not in use, and the right to use some.
pub struct Connections {
    /// Transfers at once.
    pub slots: Semaphore,
    /// Commands at once that check what came.
    pub checks: Semaphore,
    idle: RefCell<HashMap<SocketAddr, Vec<(Instant, Connection)>>>,
    /// Primaries that have kept zones waiting for nothing, and since when.
    slow: RefCell<HashMap<SocketAddr, Instant>>,
}

impl Connections {
    /// None yet.
    pub fn new() -> Connections {
        Connections {
            slots: Semaphore::new(TRANSFERS_IN_MAX),
            checks: Semaphore::new(CHECKS_MAX),
            idle: RefCell::default(),
            slow: RefCell::default(),
        }
    }

    /// The order in which `primaries` are asked: `said_by`, who says that there is something newer;
    /// then those that answer; then those that have just kept others waiting.
    pub fn order<'r>(&self, primaries: &'r [Remote], said_by: Option<IpAddr>) -> Vec<&'r Remote> {
        let slow = self.slow.borrow();
        let mut order: Vec<&Remote> = primaries.iter().collect();
        order.sort_by_key(|remote| {
            (Some(remote.address.ip()) != said_by, slow.contains_key(&remote.address))
        });
        order
    }

    /// A primary that was asked at `started` has answered, or not.
    pub fn asked(&self, address: SocketAddr, started: Instant, has_answered: bool) {
        if has_answered {
            self.slow.borrow_mut().remove(&address);
        } else if started.elapsed() >= SLOW_MIN {
            self.slow.borrow_mut().insert(address, Instant::now());
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
        self.slow.borrow_mut().retain(|_, since| since.elapsed() < SLOW_FOR);
    }
}

/// One that is new.
pub fn fresh(stream: TcpStream) -> Connection {
    BufReader::with_capacity(READ_LEN, stream)
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_keeps_others_waiting_is_asked_last() {
        let connections = Connections::new();
        let all = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|text| text.parse().unwrap());
        let order = |said_by: Option<&str>| {
            let order = connections.order(&all, said_by.map(|text| text.parse().unwrap()));
            order.iter().map(|remote| remote.address.ip().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(order(None), ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
        assert_eq!(order(Some("192.0.2.3")), ["192.0.2.3", "192.0.2.1", "192.0.2.2"]);
        let first = all[0].address;
        connections.asked(first, Instant::now(), false);
        assert_eq!(order(None)[0], "192.0.2.1", "who refuses at once keeps nobody waiting");
        connections.asked(first, Instant::now() - 2 * SLOW_MIN, false);
        assert_eq!(order(None), ["192.0.2.2", "192.0.2.3", "192.0.2.1"]);
        assert_eq!(order(Some("192.0.2.1"))[0], "192.0.2.1", "it says that it is up");
        assert_eq!(order(Some("192.0.2.9"))[0], "192.0.2.2", "nobody who is asked");
        connections.close_old();
        assert_eq!(order(None)[0], "192.0.2.2");
        connections.asked(first, Instant::now(), true);
        assert_eq!(order(None)[0], "192.0.2.1");
    }
}
