//! Datagrams and the kernel's word on when each arrived.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimestampns;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, setsockopt,
};
use nix::sys::time::TimeSpec;
use ring53::net::socket::{SocketOptions, bind_group};

use super::server::now_ns;

/// Datagrams of one call.
const BATCH: usize = 64;
/// Queries are short; a longer one is cut, and cannot be read.
const DATAGRAM_LEN_MAX: usize = 1500;
/// Arrivals wait here while replies are sent: the kernel's share included, some ten thousand.
const BUFFERS: SocketOptions = SocketOptions { receive_buffer: 16 << 20, send_buffer: 8 << 20 };

/// A UDP socket that says when.
pub(super) struct Datagrams {
    socket: UdpSocket,
    buffers: Box<[[u8; DATAGRAM_LEN_MAX]; BATCH]>,
    headers: MultiHeaders<SockaddrStorage>,
}

/// Binds a socket whose datagrams come with their times.
pub(super) fn bind(listen: SocketAddr) -> io::Result<UdpSocket> {
    let mut group = bind_group(listen, &[0], &BUFFERS).map_err(io::Error::other)?;
    let socket = group.swap_remove(0);
    setsockopt(&socket, ReceiveTimestampns, &true)?;
    Ok(socket)
}

impl Datagrams {
    /// On the thread that is to receive.
    pub(super) fn new(socket: UdpSocket) -> Datagrams {
        Datagrams {
            socket,
            buffers: Box::new([[0; DATAGRAM_LEN_MAX]; BATCH]),
            headers: MultiHeaders::preallocate(BATCH, Some(nix::cmsg_space!(TimeSpec))),
        }
    }

    pub(super) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Hands out what has arrived: from whom, what, when.
    pub(super) fn receive(
        &mut self,
        take: &mut dyn FnMut(SocketAddr, &[u8], u64),
    ) -> io::Result<usize> {
        let mut slices = self.buffers.each_mut().map(|buffer| [IoSliceMut::new(buffer)]);
        let fd = self.socket.as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT;
        let messages = match recvmmsg(fd, &mut self.headers, slices.iter_mut(), flags, None) {
            Ok(messages) => messages,
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        let mut count = 0;
        for message in messages {
            count += 1;
            let Some(peer) = message.address.as_ref().and_then(peer_of) else { continue };
            let at_ns = message.cmsgs()?.find_map(|control| timestamp(&control));
            if let Some(octets) = message.iovs().next() {
                take(peer, octets, at_ns.unwrap_or_else(now_ns));
            }
        }
        Ok(count)
    }
}

/// The kernel's timestamp in nanoseconds.
pub(super) fn timestamp(control: &ControlMessageOwned) -> Option<u64> {
    match control {
        ControlMessageOwned::ScmTimestampns(at) => {
            Some(at.tv_sec() as u64 * 1_000_000_000 + at.tv_nsec() as u64)
        }
        _ => None,
    }
}

fn peer_of(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::V4(SocketAddrV4::from(*v4)));
    }
    address.as_sockaddr_in6().map(|v6| SocketAddr::V6(SocketAddrV6::from(*v6)))
}
