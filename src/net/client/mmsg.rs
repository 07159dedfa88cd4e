//! The client path of recvmmsg and sendmmsg.
//!
//! ```text
//!   queue ──runs of one port──> sendmmsg        epoll ──ports with something──> recvmmsg
//! ```

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::limits::{BATCH_COUNT_MAX, DATAGRAM_BUFFER_LEN};
use crate::memory::Region;
use crate::net::sys;

use super::{ClientPath, QUERY_LEN_MAX, QUEUE_COUNT_MAX, Received, TIME_CONTROL_LEN};

/// Ports looked at in one turn.
const EVENTS_MAX: usize = 64;

/// Room for a time with the alignment that `cmsghdr` has.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; TIME_CONTROL_LEN]);

//----------- MmsgClient -----------------------------------------------------

/// A client path over many connected ports.
pub struct MmsgClient {
    ports: Vec<UdpSocket>,
    epoll: Epoll,
    /// Datagrams to be sent, then those received.
    slots: Region,
    received: Region,
    queued: Vec<(u32, u32)>,
    vectors: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    controls: Box<[Control]>,
    unsent: u64,
}

// SAFETY:
// - The raw pointers in `vectors` and `headers` are rewritten before each call that reads them,
//   and point into memory that the path owns and that does not move with it.
unsafe impl Send for MmsgClient {}

impl MmsgClient {
    /// A path over `sockets`, which are connected and non-blocking.
    pub fn new(sockets: Vec<UdpSocket>) -> io::Result<MmsgClient> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for (port, socket) in sockets.iter().enumerate() {
            epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, port as u64))?;
        }
        let vector = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        // SAFETY:
        // - `mmsghdr` is made of integers and pointers: all zeroes is a value of it.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        let count = BATCH_COUNT_MAX.max(QUEUE_COUNT_MAX);
        Ok(MmsgClient {
            ports: sockets,
            epoll,
            slots: Region::new(QUEUE_COUNT_MAX * QUERY_LEN_MAX)?,
            received: Region::new(BATCH_COUNT_MAX * DATAGRAM_BUFFER_LEN)?,
            queued: Vec::with_capacity(QUEUE_COUNT_MAX),
            vectors: vec![vector; count].into(),
            headers: vec![header; count].into(),
            controls: vec![Control([0; TIME_CONTROL_LEN]); BATCH_COUNT_MAX].into(),
            unsent: 0,
        })
    }

    /// Sends the slots from `start` to `end`, all of one port.
    fn send(&mut self, port: u32, start: usize, end: usize) {
        for slot in start..end {
            self.vectors[slot] = libc::iovec {
                iov_base: self.slots.as_mut_ptr().wrapping_add(slot * QUERY_LEN_MAX).cast(),
                iov_len: self.queued[slot].1 as usize,
            };
            let header = &mut self.headers[slot].msg_hdr;
            header.msg_iov = &raw mut self.vectors[slot];
            header.msg_iovlen = 1;
            header.msg_control = ptr::null_mut();
            header.msg_controllen = 0;
        }
        let mut sent = start;
        while sent < end {
            // SAFETY:
            // - The headers from `sent` to `end` were just pointed at slots of the path.
            let result = unsafe {
                libc::sendmmsg(
                    self.ports[port as usize].as_raw_fd(),
                    self.headers.as_mut_ptr().wrapping_add(sent),
                    (end - sent) as u32,
                    libc::MSG_DONTWAIT,
                )
            };
            if result > 0 {
                sent += result as usize;
                continue;
            }
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            // The first of the rest failed; the others may not. An ICMP error of an earlier one is
            // the peer's doing.
            self.unsent += u64::from(!super::is_of_the_way(&error));
            sent += 1;
        }
    }

    /// Hands out what has arrived on `port`, one batch at most.
    fn receive_from(
        &mut self,
        port: usize,
        ahead_ns: u64,
        take: &mut dyn FnMut(Received<'_>),
    ) -> io::Result<usize> {
        for i in 0..BATCH_COUNT_MAX {
            self.vectors[i] = libc::iovec {
                iov_base: self.received.as_mut_ptr().wrapping_add(i * DATAGRAM_BUFFER_LEN).cast(),
                iov_len: DATAGRAM_BUFFER_LEN,
            };
            let header = &mut self.headers[i].msg_hdr;
            header.msg_iov = &raw mut self.vectors[i];
            header.msg_iovlen = 1;
            header.msg_control = self.controls[i].0.as_mut_ptr().cast();
            header.msg_controllen = TIME_CONTROL_LEN;
            header.msg_flags = 0;
        }
        // SAFETY:
        // - Every header points at memory of the path, with its length.
        let count = unsafe {
            libc::recvmmsg(
                self.ports[port].as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH_COUNT_MAX as u32,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        if count < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EINTR) => Ok(0),
                // An earlier query will not be answered.
                _ if super::is_of_the_way(&error) => Ok(0),
                _ => Err(error),
            };
        }
        let mut taken = 0;
        for i in 0..count as usize {
            let header = &self.headers[i];
            if header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0 {
                let control = &self.controls[i].0[..header.msg_hdr.msg_controllen];
                let at_ns = super::time_of(control, ahead_ns);
                let octets = &self.received[i * DATAGRAM_BUFFER_LEN..][..header.msg_len as usize];
                take(Received { port, octets, at_ns });
                taken += 1;
            }
        }
        Ok(taken)
    }
}

impl ClientPath for MmsgClient {
    fn ports(&self) -> usize {
        self.ports.len()
    }

    fn queue(&mut self, port: usize, octets: &[u8]) -> bool {
        let slot = self.queued.len();
        if slot == QUEUE_COUNT_MAX || octets.len() > QUERY_LEN_MAX {
            return false;
        }
        self.slots[slot * QUERY_LEN_MAX..][..octets.len()].copy_from_slice(octets);
        self.queued.push((port as u32, octets.len() as u32));
        true
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut start = 0;
        while let Some(&(port, _)) = self.queued.get(start) {
            let same = self.queued[start..].iter().take_while(|queued| queued.0 == port).count();
            self.send(port, start, start + same);
            start += same;
        }
        self.queued.clear();
        Ok(())
    }

    fn receive(&mut self, take: &mut dyn FnMut(Received<'_>)) -> io::Result<usize> {
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        let ready = match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
            Ok(ready) => ready,
            Err(nix::Error::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        let mut count = 0;
        if ready > 0 {
            let ahead_ns = super::real_time_ahead_ns();
            for event in &events[..ready] {
                count += self.receive_from(event.data() as usize, ahead_ns, take)?;
            }
        }
        Ok(count)
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let polls =
            &mut [nix::poll::PollFd::new(self.epoll.0.as_fd(), nix::poll::PollFlags::POLLIN)];
        match nix::poll::ppoll(polls, Some(nix::sys::time::TimeSpec::from_duration(timeout)), None)
        {
            Ok(_) | Err(nix::Error::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn unsent(&self) -> u64 {
        self.unsent
    }

    fn drops(&self) -> u64 {
        self.ports.iter().filter_map(|socket| sys::socket_drops(socket.as_fd())).sum()
    }
}
