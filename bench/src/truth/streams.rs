//! The server's side of TCP: queries of many connections, each with the time of its last octet's
//! arrival, and replies in whatever order they are due.

use std::io::{self, IoSliceMut, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::sockopt::ReceiveTimestampns;
use nix::sys::socket::{MsgFlags, recvmsg, setsockopt};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, Socket, Type};

use crate::load::stream::connection::{Incoming, Outgoing, Received, SCRATCH_OCTETS, Written};
use crate::load::stream::descriptors_max;

use super::arrivals::timestamp;
use super::server::{Left, now_ns};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// Connections accepted before something else is done.
const ACCEPTED_AT_ONCE_MAX: usize = 64;
const EVENTS_MAX: usize = 256;
/// The event of the listener, whose place no connection has.
const LISTENER: u64 = u64::MAX;

/// A connection, until it is closed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    place: u32,
    generation: u32,
}

/// Takes a query: on which connection, the peer's port, what, when.
pub(super) type Take<'a> = dyn FnMut(Token, u16, &[u8], u64) + 'a;

/// All connections.
pub(super) struct Streams {
    listener: TcpListener,
    epoll: Epoll,
    events: Vec<EpollEvent>,
    scratch: Box<[u8]>,
    control: Vec<u8>,
    places: Vec<Place>,
    vacant: Vec<u32>,
}

#[derive(Default)]
struct Place {
    generation: u32,
    stream: Option<(TcpStream, u16)>,
    incoming: Incoming,
    outgoing: Outgoing,
    is_blocked: bool,
}

/// Reads, and keeps the kernel's time of what it read.
struct Timed<'a> {
    stream: &'a TcpStream,
    control: &'a mut Vec<u8>,
    at_ns: Option<u64>,
}

impl Read for Timed<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let mut slices = [IoSliceMut::new(room)];
        let control = Some(&mut self.control[..]);
        let fd = self.stream.as_raw_fd();
        let message = recvmsg::<()>(fd, &mut slices, control, MsgFlags::MSG_DONTWAIT)?;
        self.at_ns = message.cmsgs()?.find_map(|control| timestamp(&control));
        Ok(message.bytes)
    }
}

impl Streams {
    pub(super) fn bind(listen: SocketAddr) -> io::Result<Streams> {
        let socket = Socket::new(Domain::for_address(listen), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if listen.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        // Connections inherit both.
        socket.set_tcp_nodelay(true)?;
        setsockopt(&socket, ReceiveTimestampns, &true)?;
        socket.bind(&listen.into())?;
        socket.listen(BACKLOG)?;
        descriptors_max();
        let listener: TcpListener = socket.into();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(listener.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        Ok(Streams {
            listener,
            epoll,
            events: vec![EpollEvent::empty(); EVENTS_MAX],
            scratch: vec![0; SCRATCH_OCTETS].into(),
            control: nix::cmsg_space!(TimeSpec),
            places: Vec::new(),
            vacant: Vec::new(),
        })
    }

    /// Becomes readable when [`Streams::receive`] has something to do.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    /// Hands out the queries that have arrived. Those that were read at once have one time, that of
    /// the last.
    pub(super) fn receive(&mut self, take: &mut Take<'_>) -> io::Result<usize> {
        let found = match self.epoll.wait(&mut self.events, EpollTimeout::ZERO) {
            Ok(found) => found,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for at in 0..found {
            let (event, flags) = (self.events[at].data(), self.events[at].events());
            if event == LISTENER {
                self.accept()?;
                continue;
            }
            let token = Token { place: event as u32, generation: (event >> 32) as u32 };
            if flags.contains(EpollFlags::EPOLLOUT) {
                self.write(token)?;
            }
            if flags.intersects(!EpollFlags::EPOLLOUT) {
                self.read(token, take);
            }
        }
        Ok(found)
    }

    fn accept(&mut self) -> io::Result<()> {
        for _ in 0..ACCEPTED_AT_ONCE_MAX {
            // Whatever is wrong with one connection, others wait behind it.
            let Ok((stream, peer)) = self.listener.accept() else { break };
            stream.set_nonblocking(true)?;
            let place = self.vacant.pop().unwrap_or_else(|| {
                self.places.push(Place::default());
                self.places.len() as u32 - 1
            });
            let it = &mut self.places[place as usize];
            let data = u64::from(it.generation) << 32 | u64::from(place);
            self.epoll.add(stream.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, data))?;
            it.stream = Some((stream, peer.port()));
        }
        Ok(())
    }

    fn read(&mut self, token: Token, take: &mut Take<'_>) {
        let place = &mut self.places[token.place as usize];
        if place.generation != token.generation {
            return;
        }
        let Some((stream, port)) = &place.stream else { return };
        let mut queries = Vec::new();
        let mut timed = Timed { stream, control: &mut self.control, at_ns: None };
        let received = place.incoming.read_from(&mut timed, &mut self.scratch, |query| {
            queries.push(query.to_vec());
        });
        let at_ns = timed.at_ns.unwrap_or_else(now_ns);
        for query in queries {
            take(token, *port, &query, at_ns);
        }
        if !matches!(received, Ok(Received::Open)) {
            self.close(token);
        }
    }

    /// Sends a reply, as far as its connection takes it now, the rest as soon as it does.
    pub(super) fn send(&mut self, token: Token, message: &[u8]) -> io::Result<Left> {
        let place = &mut self.places[token.place as usize];
        let is_open = place.generation == token.generation && place.stream.is_some();
        match is_open && place.outgoing.push(message) && self.write(token)? {
            true => Ok(Left::Now),
            // The connection is closed, or its peer does not read.
            false => Ok(Left::Never),
        }
    }

    /// Writes what waits; `false` if the connection is closed.
    fn write(&mut self, token: Token) -> io::Result<bool> {
        let place = &mut self.places[token.place as usize];
        if place.generation != token.generation {
            return Ok(false);
        }
        let Some((stream, _)) = &mut place.stream else { return Ok(false) };
        let written = match place.outgoing.write_to(stream, |_| {}) {
            Ok(written) => written,
            Err(_) => {
                self.close(token);
                return Ok(false);
            }
        };
        let wanted = match written {
            Written::All => EpollFlags::EPOLLIN,
            Written::Blocked => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
        };
        if written == Written::Blocked || place.is_blocked {
            place.is_blocked = written == Written::Blocked;
            let data = u64::from(token.generation) << 32 | u64::from(token.place);
            self.epoll.modify(stream.as_fd(), &mut EpollEvent::new(wanted, data))?;
        }
        Ok(true)
    }

    fn close(&mut self, token: Token) {
        let place = &mut self.places[token.place as usize];
        *place = Place { generation: token.generation.wrapping_add(1), ..Place::default() };
        self.vacant.push(token.place);
    }
}
