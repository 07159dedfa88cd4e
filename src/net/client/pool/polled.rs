//! The ports of a pool without io_uring: epoll says which have something.
//!
//! Each query leaves from a port of its own and so does its reply come: one call each, for sendmmsg
//! and recvmmsg take several datagrams of one socket.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;

use crate::net::client::{QUERY_LEN_MAX, REPLY_LEN_MAX, Waker, is_of_the_way};
use crate::net::sys;

use super::{Event, Ports, Slot};

/// Ports looked at in one turn, so that sending gets its own and others their core.
const EVENTS_MAX: usize = 16;
/// Datagrams taken from one of them.
const PORT_TURN_COUNT_MAX: usize = 8;
/// The event of the waker.
const WAKE: u64 = u64::MAX;

/// Ports with system calls of their own.
pub(super) struct PolledPorts {
    epoll: Epoll,
    places: Vec<Option<UdpSocket>>,
    events: Box<[EpollEvent]>,
    buffer: Box<[u8]>,
    outgoing: Vec<u8>,
    queued: Vec<(Slot, u16, usize)>,
    waker: Waker,
}

impl PolledPorts {
    /// No ports yet, `count` at most.
    pub fn new(count: usize, waker: Waker) -> io::Result<PolledPorts> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(waker.descriptor(), EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        Ok(PolledPorts {
            epoll,
            places: (0..count).map(|_| None).collect(),
            events: vec![EpollEvent::empty(); EVENTS_MAX].into(),
            // One octet more than a reply may have, so that longer ones are recognised.
            buffer: vec![0; REPLY_LEN_MAX + 1].into(),
            outgoing: Vec::with_capacity(super::QUEUE_COUNT_MAX * QUERY_LEN_MAX),
            queued: Vec::with_capacity(super::QUEUE_COUNT_MAX),
            waker,
        })
    }

    fn receive_from(&mut self, slot: Slot, take: &mut dyn FnMut(Event<'_>)) {
        for _ in 0..PORT_TURN_COUNT_MAX {
            let Some(socket) = &self.places[slot as usize] else { return };
            match socket.recv(&mut self.buffer) {
                Ok(len) if len > REPLY_LEN_MAX => take(Event::Oversized),
                Ok(len) => take(Event::Datagram { slot, octets: &self.buffer[..len] }),
                Err(error) if is_of_the_way(&error) => take(Event::Refused { slot }),
                Err(_) => return,
            }
        }
    }
}

impl Ports for PolledPorts {
    fn open(&mut self, slot: Slot, socket: UdpSocket) -> io::Result<()> {
        self.epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, u64::from(slot)))?;
        self.places[slot as usize] = Some(socket);
        Ok(())
    }

    fn close(&mut self, slot: Slot, take: &mut dyn FnMut(Event<'_>)) -> io::Result<()> {
        // Closing ends its events too; those already fetched were handed out before.
        self.places[slot as usize] = None;
        take(Event::Closed { slot });
        Ok(())
    }

    fn queue(&mut self, slot: Slot, id: u16, octets: &[u8]) {
        self.outgoing.extend_from_slice(&id.to_be_bytes());
        self.outgoing.extend_from_slice(&octets[2..]);
        self.queued.push((slot, id, octets.len()));
    }

    fn queued(&self) -> usize {
        self.queued.len()
    }

    fn flush(&mut self, take: &mut dyn FnMut(Event<'_>)) -> io::Result<()> {
        let mut rest = &self.outgoing[..];
        for (slot, id, len) in self.queued.drain(..) {
            let (octets, after) = rest.split_at(len);
            rest = after;
            let Some(socket) = &self.places[slot as usize] else { continue };
            match socket.send(octets) {
                Ok(_) => {}
                Err(error) if is_of_the_way(&error) => take(Event::Refused { slot }),
                Err(_) => take(Event::Unsent { slot, id }),
            }
        }
        self.outgoing.clear();
        Ok(())
    }

    fn receive(&mut self, take: &mut dyn FnMut(Event<'_>)) -> io::Result<()> {
        let ready = match self.epoll.wait(&mut self.events, EpollTimeout::ZERO) {
            Ok(ready) => ready,
            Err(nix::Error::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for index in 0..ready {
            match self.events[index].data() {
                WAKE => drop(self.waker.rearm()),
                slot => self.receive_from(slot as Slot, take),
            }
        }
        Ok(())
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let polls = &mut [PollFd::new(self.epoll.0.as_fd(), PollFlags::POLLIN)];
        match ppoll(polls, Some(TimeSpec::from_duration(timeout)), None) {
            Ok(_) | Err(nix::Error::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn drops(&self) -> u64 {
        let sockets = self.places.iter().flatten();
        sockets.filter_map(|socket| sys::socket_drops(socket.as_fd())).sum()
    }
}
