//! One upstream: its connections, and what waits for one.
//!
//! ```text
//!   send ──> the first connection with much room ──> else the one with most room ──> else: waiting
//!                      │ half full: one more is opened ahead                            │
//!                      └────────────────── when it is there, or has room ───────────────┘
//! ```

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::spawn_local;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::resolver::{Carrier, Fault, Upstream};

use super::frames::Frames;
use super::https::Https;
use super::quic::{self, Quic};
use super::{Shared, StreamOptions, tls};

/// Connections that fail one after the other: from then on the next waits a moment.
const FAILED_MAX: u32 = 3;
/// How long.
const PAUSE: Duration = Duration::from_millis(500);

/// How a peer is connected to: what is known before the thread starts.
pub(super) struct Made {
    address: SocketAddr,
    over: Over,
}

/// What its messages are carried over.
enum Over {
    Tcp,
    Tls(Arc<ClientConfig>, ServerName<'static>),
    Https(Arc<ClientConfig>, ServerName<'static>, http::Uri),
    Quic(quinn::ClientConfig, String),
}

impl Made {
    /// Of all upstreams, or what is wrong with one.
    pub fn all(upstreams: &[Upstream], options: &StreamOptions) -> io::Result<Vec<Made>> {
        // Reading the system's takes a while: once for all.
        let mut known: HashMap<Option<Arc<[u8]>>, Arc<RootCertStore>> = HashMap::new();
        let mut store = |of: &Option<Arc<[u8]>>| {
            if let Some(issuers) = known.get(of) {
                return Ok(Arc::clone(issuers));
            }
            let issuers = tls::issuers(of.as_deref())?;
            known.insert(of.clone(), Arc::clone(&issuers));
            Ok(issuers)
        };
        let mut one = |upstream: &Upstream| {
            let mut tls = |protocol: &[u8]| {
                let issuers = || store(&upstream.issuers);
                io::Result::Ok((
                    tls::configure(upstream, issuers, protocol)?,
                    tls::server_name(upstream)?,
                ))
            };
            let over = match upstream.carrier {
                Carrier::Udp | Carrier::Tcp => Over::Tcp,
                Carrier::Tls => {
                    let (config, name) = tls(b"dot")?;
                    Over::Tls(config, name)
                }
                Carrier::Https => {
                    let (config, name) = tls(b"h2")?;
                    Over::Https(config, name, uri(upstream)?)
                }
                Carrier::Quic => {
                    let (config, name) = tls(quic::PROTOCOL)?;
                    let config = quic::configure(config, options.idle + options.stall)
                        .ok_or_else(|| io::Error::other("TLS here has no cipher for QUIC"))?;
                    Over::Quic(config, name.to_str().into_owned())
                }
            };
            Ok(Made { address: upstream.address, over })
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

async fn connect(source: Option<SocketAddr>, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(source) = source {
        socket.bind(source)?;
    }
    socket.connect(address).await
}

//----------- Peer -----------------------------------------------------------

/// What carries queries, once it is connected.
enum Connection {
    Frames(Rc<Frames>),
    Https(Rc<Https>),
    Quic(Rc<Quic>),
}

impl Connection {
    /// Queries at once that it still takes.
    fn room(&self) -> usize {
        match self {
            Connection::Frames(frames) => frames.room(),
            Connection::Https(https) => https.room(),
            Connection::Quic(quic) => quic.room(),
        }
    }

    /// Whether it has less than half of what it takes at `queries` or fewer.
    fn is_roomy(&self, queries: usize) -> bool {
        let most = if let Connection::Https(https) = self { https.most() } else { queries };
        self.room() > most / 2
    }

    fn send(&self, exchange: u64, message: &[u8]) {
        match self {
            Connection::Frames(frames) => frames.send(exchange, message),
            Connection::Https(https) => https.send(exchange, message),
            Connection::Quic(quic) => quic.send(exchange, message),
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
    /// Connections so far, those that failed too.
    opened: Cell<usize>,
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
            opened: Cell::new(0),
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
        let queries = self.shared.options.queries;
        let is_half_full = {
            let connections = self.connections.borrow();
            let roomy = connections.iter().find(|connection| connection.is_roomy(queries));
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
        // RFC 9250, 5.5.1: queries share a connection; no stream of it waits for another.
        let most = match self.made.over {
            Over::Quic(..) => 1,
            _ => self.shared.options.connections,
        };
        if self.connections.borrow().len() + self.connecting.get() >= most {
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
        let address = self.made.address;
        let number = self.opened.replace(self.opened.get().wrapping_add(1));
        let source = self.shared.options.source(address, number);
        if let Over::Quic(config, name) = &self.made.over {
            let to = (source, address, name.as_str());
            let quic = Quic::connect(config.clone(), to, Rc::clone(self)).await?;
            return Ok(Connection::Quic(quic));
        }
        let stream = connect(source, address).await.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => Fault::Refused,
            _ => Fault::Connection(error.to_string()),
        })?;
        let _ = stream.set_nodelay(true);
        let (config, name) = match &self.made.over {
            Over::Tls(config, name) | Over::Https(config, name, _) => (config, name),
            Over::Tcp | Over::Quic(..) => {
                return Ok(Connection::Frames(Frames::start(stream, Rc::clone(self))));
            }
        };
        let connector = TlsConnector::from(Arc::clone(config));
        let handshake = connector.connect(name.clone(), stream).await;
        let stream: TlsStream<TcpStream> = handshake.map_err(|error| tls::fault(&error))?;
        let Over::Https(_, _, uri) = &self.made.over else {
            return Ok(Connection::Frames(Frames::start(stream, Rc::clone(self))));
        };
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(Fault::Protocol("it does not speak HTTP/2".into()));
        }
        Ok(Connection::Https(Https::start(stream, uri.clone(), Rc::clone(self)).await?))
    }

    /// Connections that have ended are forgotten; the next is opened when somebody waits for it.
    pub fn forget_ended(self: &Rc<Self>) {
        self.connections.borrow_mut().retain(|connection| match connection {
            Connection::Frames(frames) => !frames.has_ended(),
            Connection::Https(https) => !https.has_ended(),
            Connection::Quic(quic) => !quic.has_ended(),
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
                Connection::Quic(quic) => quic.sweep(now),
            }
        }
        self.waiting.borrow_mut().retain(|(exchange, _)| self.shared.is_live(*exchange));
    }
}
