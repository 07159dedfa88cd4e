//! Messages over QUIC (RFC 9250): each query is a stream of one connection.
//!
//! ```text
//!   send ──> stream: | len | query | FIN ──> peer
//!   finish <──────── | len | reply | FIN <──┘      who does otherwise loses the connection
//! ```
//!
//! Nothing is sent before the handshake is over (0-RTT could be replayed), and the peer may open no
//! streams.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::crypto::rustls::{HandshakeData, QuicClientConfig};
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, ReadError, ReadToEndError,
    TransportConfig, VarInt, WriteError,
};
use tokio::task::{spawn_local, yield_now};
use tokio::time::timeout;

use crate::limits::{HEADER_LEN, MESSAGE_SIZE_MAX};
use crate::resolver::Fault;

use super::frames;
use super::peer::Peer;

/// The name of the protocol in the handshake (RFC 9250, 4.1.1).
pub(super) const PROTOCOL: &[u8] = b"doq";
/// Octets of one reply, and of all, that a peer may send ahead.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// How a connection or a stream is ended (RFC 9250, 4.3).
const NO_ERROR: VarInt = VarInt::from_u32(0);
const PROTOCOL_ERROR: VarInt = VarInt::from_u32(2);
const REQUEST_CANCELLED: VarInt = VarInt::from_u32(3);
/// What a failed handshake says of certificates (rustls).
const CERTIFICATE: &str = "invalid peer certificate: ";
/// The alert of a peer that does not know the protocol (RFC 7301), as QUIC has it (RFC 9001, 4.8).
const NO_APPLICATION_PROTOCOL: u64 = 0x100 + 120;

/// What a connection is made with; for so long at most nothing comes.
pub(super) fn configure(config: Arc<rustls::ClientConfig>, most: Duration) -> Option<ClientConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(0_u32.into())
        .max_concurrent_uni_streams(0_u32.into())
        .datagram_receive_buffer_size(None)
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .max_idle_timeout(most.try_into().ok());
    let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).ok()?));
    client.transport_config(Arc::new(transport));
    Some(client)
}

/// One connection.
pub(super) struct Quic {
    peer: Rc<Peer>,
    connection: Connection,
    in_flight: Cell<usize>,
    /// Whether it has brought a reply.
    has_answered: Cell<bool>,
    /// When something was last sent with nothing in flight, or a reply came.
    since: Cell<Instant>,
    has_ended: Cell<bool>,
    /// Why it has ended.
    fault: RefCell<Option<Fault>>,
}

impl Quic {
    /// Connects from `source` to `address`, where `name` is expected.
    pub async fn connect(
        config: ClientConfig,
        (source, address, name): (Option<SocketAddr>, SocketAddr, &str),
        peer: Rc<Peer>,
    ) -> Result<Rc<Quic>, Fault> {
        let any: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let failed = |error: &dyn std::error::Error| Fault::Connection(error.to_string());
        // A port of its own for each connection.
        let source = source.unwrap_or_else(|| (any, 0).into());
        let endpoint = Endpoint::client(source).map_err(|error| failed(&error))?;
        let connecting = endpoint.connect_with(config, address, name);
        let connection = connecting.map_err(|error| failed(&error))?.await.map_err(fault)?;
        let handshake =
            connection.handshake_data().and_then(|it| it.downcast::<HandshakeData>().ok());
        if handshake.and_then(|it| it.protocol).as_deref() != Some(PROTOCOL) {
            connection.close(PROTOCOL_ERROR, b"");
            return Err(Fault::Protocol("it does not speak DNS over QUIC".into()));
        }
        let quic = Rc::new(Quic {
            peer,
            connection,
            in_flight: Cell::new(0),
            has_answered: Cell::new(false),
            since: Cell::new(Instant::now()),
            has_ended: Cell::new(false),
            fault: RefCell::default(),
        });
        let ending = Rc::clone(&quic);
        spawn_local(async move {
            let reason = ending.connection.closed().await;
            ending.end(fault(reason));
        });
        Ok(quic)
    }

    /// Queries at once that it still takes; those past what the peer allows wait for a stream.
    pub fn room(&self) -> usize {
        if self.has_ended.get() {
            return 0;
        }
        self.peer.shared.options.queries.saturating_sub(self.in_flight.get())
    }

    /// Whether it is closed.
    pub fn has_ended(&self) -> bool {
        self.has_ended.get()
    }

    /// Takes a query.
    pub fn send(self: &Rc<Self>, exchange: u64, message: &[u8]) {
        if self.in_flight.get() == 0 {
            self.since.set(Instant::now());
        }
        self.in_flight.set(self.in_flight.get() + 1);
        let mut octets = Vec::with_capacity(2 + message.len());
        octets.extend_from_slice(&(message.len() as u16).to_be_bytes());
        //= RFC 9250, 4.2.1
        //# When sending queries over a QUIC connection, the DNS Message ID MUST be set to 0.
        octets.extend_from_slice(&[0; 2]);
        octets.extend_from_slice(&message[2..]);
        let quic = Rc::clone(self);
        let stall = self.peer.shared.options.stall;
        spawn_local(async move {
            let result = timeout(stall, quic.ask(&octets)).await;
            let result = result.unwrap_or_else(|_| Err(Ended::Fault(late(stall))));
            quic.in_flight.set(quic.in_flight.get() - 1);
            if matches!(result, Err(Ended::Closed)) {
                // Those whose replies have come before go first.
                yield_now().await;
            }
            if matches!(result, Err(Ended::Closed)) && quic.has_answered.get() {
                // Some take only so many queries on one connection: the next one has less to do.
                quic.end(Fault::Connection("closed by the peer".into()));
                octets.drain(..2);
                return quic.peer.send(exchange, octets);
            }
            if result.is_ok() {
                quic.since.set(Instant::now());
                quic.has_answered.set(true);
            }
            let result = result.map_err(|ended| match ended {
                Ended::Fault(fault) => fault,
                Ended::Closed => {
                    let fault = Fault::Connection("closed by the peer".into());
                    quic.end(fault.clone());
                    fault
                }
                Ended::Wrong(reason) => {
                    // RFC 9250, 4.3.3: an error of the protocol ends the connection.
                    quic.connection.close(PROTOCOL_ERROR, b"");
                    let fault = Fault::Protocol(reason);
                    quic.end(fault.clone());
                    fault
                }
            });
            // What the connection says is nearer to the cause.
            let result = match (result, &*quic.fault.borrow()) {
                (Err(Fault::Connection(_)), Some(fault)) => Err(fault.clone()),
                (result, _) => result,
            };
            quic.peer.shared.finish(exchange, result);
            quic.peer.pass_waiting();
        });
    }

    /// Sends a query with its length on a stream of its own; the reply.
    async fn ask(&self, octets: &[u8]) -> Result<Vec<u8>, Ended> {
        let (mut send, receive) = self.connection.open_bi().await.map_err(Ended::from)?;
        let mut receive = Cancelled(receive);
        send.write_all(octets).await?;
        //= RFC 9250, 4.2
        //# The client MUST send the DNS query over the selected stream and MUST indicate through
        //# the STREAM FIN mechanism that no further data will be sent on that stream.
        let _ = send.finish();
        let mut message = receive.0.read_to_end(2 + MESSAGE_SIZE_MAX).await?;
        let len = match message.first_chunk::<2>() {
            Some(prefix) => usize::from(u16::from_be_bytes(*prefix)),
            None => return Err(Ended::Wrong("a stream without a message".into())),
        };
        if message.len() != 2 + len || len < HEADER_LEN {
            let (had, said) = (message.len() - 2, len);
            return Err(Ended::Wrong(format!("{had} octets in a stream that has said {said}")));
        }
        message.drain(..2);
        if message[..2] != [0, 0] {
            return Err(Ended::Wrong("a reply with an ID other than 0".into()));
        }
        if frames::keepalive(&message).is_some() {
            return Err(Ended::Wrong("edns-tcp-keepalive over QUIC".into()));
        }
        Ok(message)
    }

    /// It takes no more queries.
    fn end(&self, fault: Fault) {
        self.fault.borrow_mut().get_or_insert(fault);
        if !self.has_ended.replace(true) {
            let peer = Rc::clone(&self.peer);
            // Not from within a look at all connections.
            spawn_local(async move { peer.forget_ended() });
        }
    }

    /// Ends what is idle, or stalls.
    pub fn sweep(&self, now: Instant) {
        let options = &self.peer.shared.options;
        let waited = now - self.since.get();
        let is_idle = self.in_flight.get() == 0;
        if waited >= if is_idle { options.idle } else { options.stall } {
            self.end(if is_idle { Fault::Connection("idle".into()) } else { late(options.stall) });
            self.connection.close(NO_ERROR, b"");
        }
    }
}

/// A stream whose reply is not waited for once it is dropped.
struct Cancelled(quinn::RecvStream);

impl Drop for Cancelled {
    fn drop(&mut self) {
        // One that has been read is over already.
        let _ = self.0.stop(REQUEST_CANCELLED);
    }
}

fn late(stall: Duration) -> Fault {
    Fault::Connection(format!("no reply for {} s", stall.as_secs_f32()))
}

//----------- Faults ---------------------------------------------------------

/// How a stream has ended without a reply.
enum Ended {
    /// The peer does not do as the protocol says.
    Wrong(String),
    /// The peer has closed the connection, and nothing is wrong (RFC 9250, 4.3: DOQ_NO_ERROR).
    Closed,
    Fault(Fault),
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Ended {
        Ended::Fault(fault)
    }
}

impl From<ConnectionError> for Ended {
    fn from(error: ConnectionError) -> Ended {
        match error {
            ConnectionError::ApplicationClosed(close) if close.error_code == NO_ERROR => {
                Ended::Closed
            }
            error => Ended::Fault(fault(error)),
        }
    }
}

impl From<WriteError> for Ended {
    fn from(error: WriteError) -> Ended {
        match error {
            WriteError::ConnectionLost(reason) => reason.into(),
            WriteError::Stopped(_) => Ended::Wrong("it has stopped a query".into()),
            error => Fault::Connection(error.to_string()).into(),
        }
    }
}

impl From<ReadToEndError> for Ended {
    fn from(error: ReadToEndError) -> Ended {
        match error {
            ReadToEndError::TooLong => Ended::Wrong("a stream longer than a message".into()),
            ReadToEndError::Read(ReadError::ConnectionLost(reason)) => reason.into(),
            ReadToEndError::Read(error) => Fault::Connection(error.to_string()).into(),
        }
    }
}

/// What the end of a connection means.
fn fault(error: ConnectionError) -> Fault {
    match error {
        ConnectionError::TransportError(error) => match error.reason.strip_prefix(CERTIFICATE) {
            Some(reason) => Fault::Certificate(reason.into()),
            None => Fault::Connection(format!("QUIC: {error}")),
        },
        ConnectionError::ConnectionClosed(close)
            if u64::from(close.error_code) == NO_APPLICATION_PROTOCOL =>
        {
            Fault::Protocol("it does not speak DNS over QUIC".into())
        }
        ConnectionError::VersionMismatch => Fault::Protocol("it speaks another QUIC".into()),
        ConnectionError::TimedOut => Fault::Connection("nothing has come for long".into()),
        error => Fault::Connection(error.to_string()),
    }
}
