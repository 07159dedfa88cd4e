//! Addresses and control messages as the kernel writes them.
//!
//! ```text
//!   msghdr  ── name     sockaddr_in or sockaddr_in6 of the peer, 28 octets at most
//!           ── control  cmsghdr + in_pktinfo or in6_pktinfo: the address that was asked
//! ```
//!
//! A listener on a wildcard address would otherwise reply from whatever address the route prefers,
//! and the client would not recognise the reply. The control message is sent back as it came,
//! except that the interface is left to the routes for IPv4.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use arrayvec::ArrayVec;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::sys::{self, Outgoing, SEND_COUNT_MAX};

/// Octets of a peer's address.
pub const NAME_LEN: usize = size_of::<libc::sockaddr_in6>();
/// Octets for one packet-info message of either family, aligned.
pub const CONTROL_LEN: usize = 40;
const HEADER_LEN: usize = size_of::<libc::cmsghdr>();
const _: () = assert!(HEADER_LEN == 16);
const _: () = assert!(HEADER_LEN + size_of::<libc::in6_pktinfo>() <= CONTROL_LEN);

/// Turns a received control message into the one that makes the reply leave from the address that
/// was asked; returns its length, or 0 when there is none.
pub fn reply_control(control: &mut [u8; CONTROL_LEN], received_len: usize) -> usize {
    if received_len < HEADER_LEN {
        return 0;
    }
    let word = |at: usize| i32::from_ne_bytes(control[at..at + 4].try_into().expect("four octets"));
    match (word(8), word(12)) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            // struct in_pktinfo { interface, source, header destination }: the destination of the
            // query becomes the source of the reply, through whatever interface the routes say.
            let destination: [u8; 4] = control[24..28].try_into().expect("four octets");
            control[16..20].fill(0);
            control[20..24].copy_from_slice(&destination);
            control[24..28].fill(0);
            HEADER_LEN + size_of::<libc::in_pktinfo>()
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => HEADER_LEN + size_of::<libc::in6_pktinfo>(),
        _ => 0,
    }
}

/// The address in a peer's name, as one of IPv6: IPv4 addresses are mapped. `::` if it is of
/// another family.
#[inline(always)]
pub(super) fn mapped_address(name: &[u8; NAME_LEN]) -> u128 {
    let octets =
        |at: usize| u128::from_be_bytes(*name[at..].first_chunk().expect("sixteen octets"));
    match i32::from(u16::from_ne_bytes([name[0], name[1]])) {
        libc::AF_INET => {
            const MAPPED: u128 = 0xFFFF << 32;
            let address = u32::from_be_bytes(*name[4..].first_chunk().expect("four octets"));
            MAPPED | u128::from(address)
        }
        libc::AF_INET6 => octets(8),
        _ => 0,
    }
}

/// Room for a control message with the alignment that `cmsghdr` has.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct Control(pub [u8; CONTROL_LEN]);

/// Room for a peer's address with the alignment that `sockaddr` has.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct PeerName(pub [u8; NAME_LEN]);

//----------- Origin ---------------------------------------------------------

/// Where a datagram came from, and how a reply that is sent later finds its way back.
#[derive(Clone)]
pub struct Origin {
    /// Which of the path's sockets.
    pub(super) socket: usize,
    pub(super) name: PeerName,
    pub(super) name_len: usize,
    /// As received.
    pub(super) control: Control,
    /// 0 unless the socket has a wildcard address.
    pub(super) control_len: usize,
}

impl Origin {
    /// The peer's address.
    pub fn peer(&self) -> Option<SocketAddr> {
        let name = &self.name.0[..self.name_len.min(NAME_LEN)];
        let family = i32::from(u16::from_ne_bytes([*name.first()?, *name.get(1)?]));
        let port = u16::from_be_bytes([*name.get(2)?, *name.get(3)?]);
        match family {
            libc::AF_INET => {
                let octets: [u8; 4] = name.get(4..8)?.try_into().ok()?;
                Some((Ipv4Addr::from(octets), port).into())
            }
            libc::AF_INET6 => {
                let octets: [u8; 16] = name.get(8..24)?.try_into().ok()?;
                Some((Ipv6Addr::from(octets), port).into())
            }
            _ => None,
        }
    }
}

/// Sends replies that were deferred, from the sockets their queries came in on.
pub struct Replier {
    sockets: Vec<UdpSocket>,
}

impl Replier {
    /// For the path that will own `sockets`.
    pub fn new(sockets: &[UdpSocket]) -> io::Result<Replier> {
        let sockets = sockets.iter().map(UdpSocket::try_clone).collect::<io::Result<_>>()?;
        Ok(Replier { sockets })
    }

    /// Whether datagrams wait on any of the sockets that the path has not taken yet.
    pub fn has_arrivals(&self) -> bool {
        let mut polled: Vec<PollFd<'_>> = self
            .sockets
            .iter()
            .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
            .collect();
        poll(&mut polled, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }

    /// Sends `reply` back to `origin`; does not wait.
    pub fn send(&self, origin: &Origin, reply: &[u8]) -> io::Result<()> {
        self.send_some(origin.socket, &[(origin, reply)])
    }

    /// Sends replies, as many at once as go by one socket. As with any reply, one that cannot be
    /// sent is lost.
    pub fn send_all<'a>(&self, replies: impl Iterator<Item = (&'a Origin, &'a [u8])>) {
        let mut some = ArrayVec::<_, SEND_COUNT_MAX>::new();
        for (origin, reply) in replies {
            let first =
                some.first().map_or(origin.socket, |(first, _): &(&Origin, _)| first.socket);
            if some.is_full() || first != origin.socket {
                let _ = self.send_some(first, &some);
                some.clear();
            }
            some.push((origin, reply));
        }
        if let Some((origin, _)) = some.first() {
            let _ = self.send_some(origin.socket, &some);
        }
    }

    fn send_some(&self, socket: usize, replies: &[(&Origin, &[u8])]) -> io::Result<()> {
        let controls = replies.iter().map(|(origin, _)| {
            let mut control = origin.control;
            let len = reply_control(&mut control.0, origin.control_len);
            (control, len)
        });
        let controls: ArrayVec<(Control, usize), SEND_COUNT_MAX> = controls.collect();
        let outgoing = replies.iter().zip(&controls).map(|((origin, octets), (control, len))| {
            let name = &origin.name.0[..origin.name_len.min(NAME_LEN)];
            Outgoing { name, control: &control.0[..*len], octets }
        });
        let outgoing: ArrayVec<Outgoing<'_>, SEND_COUNT_MAX> = outgoing.collect();
        sys::send_messages(self.sockets[socket].as_fd(), &outgoing)
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_the_kernel_writes_them() {
        let mut origin = Origin {
            socket: 0,
            name: PeerName([0; NAME_LEN]),
            name_len: 16,
            control: Control([0; CONTROL_LEN]),
            control_len: 0,
        };
        assert_eq!(origin.peer(), None);
        origin.name.0[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        origin.name.0[2..8].copy_from_slice(&[0, 53, 192, 0, 2, 1]);
        assert_eq!(origin.peer(), Some("192.0.2.1:53".parse().unwrap()));
        assert_eq!(mapped_address(&origin.name.0), 0xFFFF_C000_0201);
        origin.name.0[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
        assert_eq!(origin.peer(), None, "cut short");
        origin.name.0[8..10].copy_from_slice(&[0x20, 1]);
        assert_eq!(mapped_address(&origin.name.0), 0x2001 << 112);
        origin.name.0[8..10].fill(0);
        origin.name_len = NAME_LEN;
        origin.name.0[8..10].copy_from_slice(&[0x20, 1]);
        assert_eq!(origin.peer(), Some("[2001::]:53".parse().unwrap()));
    }
}
