//! One upstream: its connections, and what waits for one.
//!
//! ```text
//!   send ──> the first connection with much room ──> else the one with most room ──> else: waiting
//!                      │ half full: one more is opened ahead                            │
//!                      └────────────────── when it is there, or has room ───────────────┘
//! ```

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::resolver::{Carrier, Fault, Upstream};

use super::frames::Frames;
use super::https::Https;
use super::{Shared, StreamOptions, tls};

/// Connections that fail one after the other: from then on the next waits a moment.
const FAILED_MAX: u32 = 3;
/// How long.
const PAUSE: Duration = Duration::from_millis(500);

/// How a peer is connected to: what is known before the thread starts.
pub(super) struct Made {
    address: SocketAddr,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    https: Option<http::Uri>,
}

impl Made {
    /// Of all upstreams, or what is wrong with one.
    pub fn all(upstreams: &[Upstream], options: &StreamOptions) -> io::Result<Vec<Made>> {
        let mut issuers = None;
        let mut store = || {
            if issuers.is_none() {
                issuers = Some(tls::issuers(options.issuers.as_deref())?);
            }
            issuers.clone().ok_or_else(|| io::ErrorKind::NotFound.into())
        };
        let mut one = |upstream: &Upstream| {
            let address = upstream.address;
            let protocol: &[u8] = match upstream.carrier {
                Carrier::Udp | Carrier::Tcp => return Ok(Made { address, tls: None, https: None }),
                Carrier::Tls => b"dot",
                Carrier::Https => b"h2",
                Carrier::Quic => {
                    let reason = "queries over QUIC are not built in: use tls:// or https://";
                    return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
                }
            };
            let config = tls::configure(upstream, &mut store, protocol)?;
            let https = (upstream.carrier == Carrier::Https).then(|| uri(upstream)).transpose()?;
            Ok(Made { address, tls: Some((config, tls::server_name(upstream)?)), https })
        };
        let named = |upstream: &Upstream, error: io::Error| {
            io::Error::new(error.kind(), format!("upstream {}: {error}", upstream.address))
        };
        let made =
            upstreams.iter().map(|upstream| one(upstream).map_err(|error| named(upstream, error)));
        made.collect()
    }
}

/// Where queries are posted to (RFC 8484, 4.1).
fn uri(upstream: &Upstream) -> io::Result<http::Uri> {
    let port = upstream.address.port();
    let host = match (&upstream.server_name, upstream.address.ip()) {
        (Some(name), _) => name.clone(),
        (None, std::net::IpAddr::V6(address)) => format!("[{address}]"),
        (None, address) => address.to_string(),
    };
    let authority = if port == 443 { host } else { format!("{host}:{port}") };
    let path = if upstream.path.is_empty() { "/dns-query" } else { &upstream.path };
    let uri = http::Uri::builder().scheme("https").authority(authority).path_and_query(path);
    uri.build().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

//----------- Peer -----------------------------------------------------------

/// What carries queries, once it is connected.
enum Connection {
    Frames(Rc<Frames>),
    Https(Rc<Https>),
}

impl Connection {
    /// Queries at once that it still takes.
    fn room(&self) -> usize {
        match self {
            Connection::Frames(frames) => frames.room(),
            Connection::Https(https) => https.room(),
        }
    }

    fn send(&self, exchange: u64, message: &[u8]) {
        match self {
            Connection::Frames(frames) => frames.send(exchange, message),
            Connection::Https(https) => https.send(exchange, message),
        }
    }
}

/// One upstream.
pub(super) struct Peer {
    made: Made,
    pub shared: Rc<Shared>,
    connections: RefCell<Vec<Connection>>,
    waiting: RefCell<VecDeque<(u64, Vec<u8>)>>,
    connecting: Cell<usize>,
    /// Connections that failed since the last that did not.
    failed: Cell<u32>,
}

impl Peer {
    pub fn new(made: Made, shared: Rc<Shared>) -> Rc<Peer> {
        Rc::new(Peer {
            made,
            shared,
            connections: RefCell::default(),
            waiting: RefCell::default(),
            connecting: Cell::new(0),
            failed: Cell::new(0),
        })
    }

    /// Sends a query, now or when there is a connection for it.
    pub fn send(self: &Rc<Self>, exchange: u64, message: Vec<u8>) {
        if self.waiting.borrow().is_empty() && self.pass_on(exchange, &message) {
            return;
        }
        if self.waiting.borrow().len() >= self.shared.options.waiting {
            return self.shared.finish(exchange, Err(Fault::NoRoom));
        }
        self.waiting.borrow_mut().push_back((exchange, message));
        if self.connecting.get() == 0 {
            self.connect();
        }
    }

    /// Gives a query to a connection; `false` if none has room.
    fn pass_on(self: &Rc<Self>, exchange: u64, message: &[u8]) -> bool {
        let half = self.shared.options.queries / 2;
        let is_half_full = {
            let connections = self.connections.borrow();
            let roomy = connections.iter().find(|connection| connection.room() > half);
            let most = || connections.iter().max_by_key(|connection| connection.room());
            let Some(connection) = roomy.or_else(most).filter(|found| found.room() > 0) else {
                return false;
            };
            connection.send(exchange, message);
            roomy.is_none()
        };
        if is_half_full && self.connecting.get() == 0 {
            // The spare one.
            self.connect();
        }
        true
    }

    /// There is room again: those that wait go on.
    pub fn pass_waiting(self: &Rc<Self>) {
        loop {
            let Some((exchange, message)) = self.waiting.borrow_mut().pop_front() else { return };
            if !self.shared.is_live(exchange) || self.pass_on(exchange, &message) {
                continue;
            }
            self.waiting.borrow_mut().push_front((exchange, message));
            if self.connecting.get() == 0 {
                self.connect();
            }
            return;
        }
    }

    /// Opens one more connection, if there may be one.
    fn connect(self: &Rc<Self>) {
        let options = &self.shared.options;
        if self.connections.borrow().len() + self.connecting.get() >= options.connections {
            return;
        }
        self.connecting.set(self.connecting.get() + 1);
        let peer = Rc::clone(self);
        spawn_local(async move {
            if peer.failed.get() >= FAILED_MAX {
                tokio::time::sleep(PAUSE).await;
            }
            let made = timeout(peer.shared.options.connect, peer.open()).await;
            peer.connecting.set(peer.connecting.get() - 1);
            let late = || Err(Fault::Connection("not made in time".into()));
            match made.unwrap_or_else(|_| late()) {
                Ok(connection) => {
                    peer.failed.set(0);
                    peer.connections.borrow_mut().push(connection);
                    peer.pass_waiting();
                }
                Err(fault) => {
                    peer.failed.set(peer.failed.get().saturating_add(1));
                    peer.give_up(&fault);
                }
            }
        });
    }

    /// Without any connection, nothing is waited for.
    fn give_up(&self, fault: &Fault) {
        if self.connections.borrow().is_empty() && self.connecting.get() == 0 {
            for (exchange, _) in self.waiting.take() {
                self.shared.finish(exchange, Err(fault.clone()));
            }
        }
    }

    /// Connects, and starts what carries.
    async fn open(self: &Rc<Self>) -> Result<Connection, Fault> {
        let stream =
            TcpStream::connect(self.made.address).await.map_err(|error| match error.kind() {
                io::ErrorKind::ConnectionRefused => Fault::Refused,
                _ => Fault::Connection(error.to_string()),
            })?;
        let _ = stream.set_nodelay(true);
        let Some((config, name)) = &self.made.tls else {
            return Ok(Connection::Frames(Frames::start(stream, Rc::clone(self))));
        };
        let connector = TlsConnector::from(Arc::clone(config));
        let handshake = connector.connect(name.clone(), stream).await;
        let stream: TlsStream<TcpStream> = handshake.map_err(|error| tls::fault(&error))?;
        match &self.made.https {
            None => Ok(Connection::Frames(Frames::start(stream, Rc::clone(self)))),
            Some(uri) => {
                if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                    return Err(Fault::Protocol("it does not speak HTTP/2".into()));
                }
                let https = Https::start(stream, uri.clone(), Rc::clone(self)).await?;
                Ok(Connection::Https(https))
            }
        }
    }

    /// Connections that have ended are forgotten; the next is opened when somebody waits for it.
    pub fn forget_ended(self: &Rc<Self>) {
        self.connections.borrow_mut().retain(|connection| match connection {
            Connection::Frames(frames) => !frames.has_ended(),
            Connection::Https(https) => !https.has_ended(),
        });
        self.pass_waiting();
    }

    /// Lets go of everything: connections know their peer, which knows them.
    pub fn end(&self) {
        self.connections.take();
        self.waiting.take();
    }

    /// Ends connections that are idle, or stall.
    pub fn sweep(self: &Rc<Self>) {
        let now = Instant::now();
        for connection in &*self.connections.borrow() {
            match connection {
                Connection::Frames(frames) => frames.sweep(now),
                Connection::Https(https) => https.sweep(now),
            }
        }
        self.waiting.borrow_mut().retain(|(exchange, _)| self.shared.is_live(*exchange));
    }
}
