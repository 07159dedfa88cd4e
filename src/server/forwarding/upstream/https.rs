//! Messages over HTTP/2 (RFC 8484): each query is a stream of one connection.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::timeout;

use crate::limits::{HEADER_LEN, MESSAGE_SIZE_MAX};
use crate::resolver::Fault;

use super::peer::Peer;

const MESSAGE_TYPE: &str = "application/dns-message";
/// Streams until the peer has said how many it takes: what RFC 9113, 6.5.2 recommends at least.
const STREAMS_FIRST: usize = 100;
/// Octets of one reply, and of all, that a peer may send ahead.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Streams that a peer may refuse, one after the other, before that counts as a failure.
const REFUSED_MAX: u32 = 64;
/// Octets of the headers of a reply.
const HEADERS_LEN_MAX: u32 = 16 << 10;

/// One connection.
pub(super) struct Https {
    peer: Rc<Peer>,
    requests: SendRequest<Bytes>,
    uri: Uri,
    in_flight: Cell<usize>,
    /// Streams it has taken at most, once it has refused one.
    most: Cell<usize>,
    /// Streams refused since the last reply.
    refused: Cell<u32>,
    /// When something was last sent with nothing in flight, or a reply came.
    since: Cell<Instant>,
    has_ended: Cell<bool>,
    /// Why it has ended.
    fault: RefCell<Option<Fault>>,
    task: RefCell<Option<AbortHandle>>,
}

impl Https {
    /// Carries over `stream` from now on.
    pub async fn start<S>(stream: S, uri: Uri, peer: Rc<Peer>) -> Result<Rc<Https>, Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let (requests, connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_max_send_streams(STREAMS_FIRST)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADERS_LEN_MAX)
            .handshake(stream)
            .await
            .map_err(|error| Fault::Protocol(error.to_string()))?;
        let https = Rc::new(Https {
            peer,
            requests,
            uri,
            in_flight: Cell::new(0),
            most: Cell::new(usize::MAX),
            refused: Cell::new(0),
            since: Cell::new(Instant::now()),
            has_ended: Cell::new(false),
            fault: RefCell::default(),
            task: RefCell::default(),
        });
        let ending = Rc::clone(&https);
        let task = spawn_local(async move {
            let ended = connection.await;
            let reason = ended.err().map_or("closed by the peer".into(), |error| error.to_string());
            ending.end(Fault::Connection(reason));
        });
        *https.task.borrow_mut() = Some(task.abort_handle());
        Ok(https)
    }

    /// Queries at once that it takes.
    pub fn most(&self) -> usize {
        // The peer says how many streams there may be.
        let most = self.requests.current_max_send_streams().min(self.most.get());
        most.min(self.peer.shared.options.queries)
    }

    /// Queries at once that it still takes.
    pub fn room(&self) -> usize {
        if self.has_ended.get() { 0 } else { self.most().saturating_sub(self.in_flight.get()) }
    }

    /// Whether its stream is closed.
    pub fn has_ended(&self) -> bool {
        self.has_ended.get()
    }

    /// Takes a query.
    pub fn send(self: &Rc<Self>, exchange: u64, message: &[u8]) {
        if self.in_flight.get() == 0 {
            self.since.set(Instant::now());
        }
        let mut octets = message.to_vec();
        //= RFC 8484, 4.1
        //# In order to maximize HTTP cache friendliness, DoH clients using media formats that
        //# include the ID field from the DNS message header, such as "application/dns-message",
        //# SHOULD use a DNS ID of 0 in every DNS request.
        octets[..2].fill(0);
        let octets = Bytes::from(octets);
        let response = match self.request(octets.clone()) {
            Ok(response) => response,
            Err(error) => {
                // It takes no more: those it has may still be answered.
                let fault = Fault::Connection(error.to_string());
                self.end(fault.clone());
                return self.peer.shared.finish(exchange, Err(fault));
            }
        };
        self.in_flight.set(self.in_flight.get() + 1);
        let https = Rc::clone(self);
        let stall = self.peer.shared.options.stall;
        spawn_local(async move {
            let result =
                timeout(stall, receive(response)).await.unwrap_or_else(|_| Err(late(stall).into()));
            https.in_flight.set(https.in_flight.get() - 1);
            if result.is_ok() {
                https.since.set(Instant::now());
                https.refused.set(0);
            }
            let result = match result {
                Err(Ended::Refused) if https.is_patient() => {
                    return https.peer.send(exchange, octets.into());
                }
                result => result.map_err(Fault::from),
            };
            // What the connection says is nearer to the cause.
            let result = match (result, &*https.fault.borrow()) {
                (Err(Fault::Connection(_)), Some(fault)) => Err(fault.clone()),
                (result, _) => result,
            };
            https.peer.shared.finish(exchange, result);
            https.peer.pass_waiting();
        });
    }

    /// Notes that a stream was refused; whether the query is to be sent once more.
    fn is_patient(&self) -> bool {
        // A peer may count streams a little longer than its replies let see.
        self.most.set(self.in_flight.get().max(1));
        self.refused.set(self.refused.get() + 1);
        self.refused.get() <= REFUSED_MAX
    }

    fn request(&self, octets: Bytes) -> Result<ResponseFuture, h2::Error> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = http::Version::HTTP_2;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static(MESSAGE_TYPE));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MESSAGE_TYPE));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(octets.len()));
        // A copy has no request that is still to be opened, and so need not wait for that.
        let mut requests = self.requests.clone();
        let (response, mut body) = requests.send_request(request, false)?;
        body.send_data(octets, true)?;
        Ok(response)
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
        let is_over = if is_idle { waited >= options.idle } else { waited >= options.stall };
        if is_over {
            self.end(if is_idle { Fault::Connection("idle".into()) } else { late(options.stall) });
            if let Some(task) = self.task.take() {
                task.abort();
            }
        }
    }
}

fn late(stall: Duration) -> Fault {
    Fault::Connection(format!("no reply for {} s", stall.as_secs_f32()))
}

/// How a stream has ended without a reply.
enum Ended {
    //= RFC 9113, 8.7
    //# The REFUSED_STREAM error code can be included in a RST_STREAM frame to indicate that the
    //# stream is being closed prior to any processing having occurred. Any request that was sent on
    //# the reset stream can be safely retried.
    Refused,
    Fault(Fault),
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Ended {
        Ended::Fault(fault)
    }
}

impl From<Ended> for Fault {
    fn from(ended: Ended) -> Fault {
        match ended {
            Ended::Refused => Fault::Connection("it refuses every query".into()),
            Ended::Fault(fault) => fault,
        }
    }
}

/// The message in a response.
async fn receive(response: ResponseFuture) -> Result<Vec<u8>, Ended> {
    let broken = |error: h2::Error| match error.reason() {
        Some(h2::Reason::REFUSED_STREAM) => Ended::Refused,
        _ => Ended::Fault(Fault::Connection(error.to_string())),
    };
    let response = response.await.map_err(broken)?;
    let (head, mut body) = response.into_parts();
    if head.status != StatusCode::OK {
        return Err(Fault::Protocol(format!("HTTP status {}", head.status.as_u16())).into());
    }
    let content = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if !content.is_some_and(|content| content.eq_ignore_ascii_case(MESSAGE_TYPE.as_bytes())) {
        return Err(Fault::Protocol(format!("its reply is no {MESSAGE_TYPE}")).into());
    }
    let mut message = Vec::new();
    while let Some(part) = body.data().await {
        let part = part.map_err(broken)?;
        if message.len() + part.len() > MESSAGE_SIZE_MAX {
            return Err(Fault::Protocol("its reply is longer than a message".into()).into());
        }
        message.extend_from_slice(&part);
        let _ = body.flow_control().release_capacity(part.len());
    }
    if message.len() < HEADER_LEN {
        return Err(Fault::Protocol(format!("a message of {} octets", message.len())).into());
    }
    Ok(message)
}
