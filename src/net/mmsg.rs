//! The path of recvmmsg and sendmmsg: two system calls a batch.
//!
//! ```text
//!   recvmmsg ──> headers[0..n] ──> buffers, names, controls
//!   sendmmsg <── the same headers, lengths replaced, unanswered ones left out
//! ```
//!
//! It needs nothing of the kernel that containers forbid, and it is what the io_uring path is
//! measured against.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;

use crate::limits::{BATCH_COUNT_MAX, DATAGRAM_BUFFER_LEN};
use crate::memory::{HUGE_PAGE_LEN, Region};

use super::batch::{Batch, Slot, Slots};
use super::counters::PathCounters;
use super::peer::{
    CONTROL_LEN, Control, NAME_LEN, Origin, PeerName, mapped_address, reply_control,
};
use super::{PacketPath, sys};

const _: () = assert!(BATCH_COUNT_MAX * DATAGRAM_BUFFER_LEN <= HUGE_PAGE_LEN);

//----------- MmsgPath -------------------------------------------------------

/// A path over one or more sockets of one core.
pub struct MmsgPath {
    sockets: Vec<UdpSocket>,
    wildcard: Vec<bool>,
    /// The socket the current batch came from.
    current: usize,
    slots: Slots,
    /// For each slot: which buffer, name and control it has.
    places: ArrayVec<usize, BATCH_COUNT_MAX>,
    buffers: Region,
    names: Box<[PeerName]>,
    controls: Box<[Control]>,
    vectors: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    counters: Arc<PathCounters>,
}

// SAFETY:
// - The raw pointers in `vectors` and `headers` point into memory that the path owns and that does
//   not move with it (a mapping and boxed slices); they are rewritten before each call.
unsafe impl Send for MmsgPath {}

impl MmsgPath {
    /// A path over `sockets`, which must be non-blocking.
    pub fn new(sockets: Vec<UdpSocket>) -> io::Result<MmsgPath> {
        let wildcard = sockets
            .iter()
            .map(|socket| Ok(socket.local_addr()?.ip().is_unspecified()))
            .collect::<io::Result<_>>()?;
        let empty_vector = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        // SAFETY:
        // - `mmsghdr` is made of integers and pointers: all zeroes is a value of it.
        let empty_header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        Ok(MmsgPath {
            sockets,
            wildcard,
            current: 0,
            slots: Slots::new(),
            places: ArrayVec::new(),
            // One huge page: one entry of the TLB.
            buffers: Region::new(HUGE_PAGE_LEN)?,
            names: vec![PeerName([0; NAME_LEN]); BATCH_COUNT_MAX].into(),
            controls: vec![Control([0; CONTROL_LEN]); BATCH_COUNT_MAX].into(),
            vectors: vec![empty_vector; BATCH_COUNT_MAX].into(),
            headers: vec![empty_header; BATCH_COUNT_MAX].into(),
            counters: Arc::default(),
        })
    }

    /// Points all headers at their buffers.
    fn prepare_receive(&mut self) {
        let wildcard = self.wildcard[self.current];
        let buffers = self.buffers.as_mut_ptr();
        for i in 0..BATCH_COUNT_MAX {
            self.vectors[i] = libc::iovec {
                // Inside the mapping: the region holds BATCH_COUNT_MAX buffers.
                iov_base: buffers.wrapping_add(i * DATAGRAM_BUFFER_LEN).cast(),
                iov_len: DATAGRAM_BUFFER_LEN,
            };
            let header = &mut self.headers[i].msg_hdr;
            header.msg_name = self.names[i].0.as_mut_ptr().cast();
            header.msg_namelen = NAME_LEN as u32;
            header.msg_iov = &raw mut self.vectors[i];
            header.msg_iovlen = 1;
            header.msg_control =
                if wildcard { self.controls[i].0.as_mut_ptr().cast() } else { ptr::null_mut() };
            header.msg_controllen = if wildcard { CONTROL_LEN } else { 0 };
            header.msg_flags = 0;
        }
    }

    /// Receives from the current socket; returns how many datagrams came.
    fn receive_current(&mut self) -> io::Result<usize> {
        self.prepare_receive();
        // SAFETY:
        // - `prepare_receive` has pointed every header at memory of the path, with its lengths.
        let count = unsafe {
            libc::recvmmsg(
                self.sockets[self.current].as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH_COUNT_MAX as u32,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        if count < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                // An ICMP error of an earlier reply is reported here: it concerns no query.
                Some(libc::EAGAIN | libc::EINTR | libc::ECONNREFUSED) => Ok(0),
                _ => Err(error),
            };
        }
        Ok(count as usize)
    }
}

impl PacketPath for MmsgPath {
    fn receive(&mut self) -> io::Result<Batch<'_>> {
        self.slots.clear();
        self.places.clear();
        for _ in 0..self.sockets.len() {
            self.current = (self.current + 1) % self.sockets.len();
            let count = self.receive_current()?;
            for i in 0..count {
                let header = &self.headers[i];
                if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
                    self.counters.count_oversized();
                    continue;
                }
                let start = self.buffers.as_mut_ptr().wrapping_add(i * DATAGRAM_BUFFER_LEN);
                // SAFETY:
                // - Buffer `i` lies inside the region, which the kernel no longer writes to and
                //   no other slot has; the region is zeroed, so all octets are initialised.
                let slot =
                    unsafe { Slot::new(start, DATAGRAM_BUFFER_LEN, header.msg_len as usize) };
                self.slots.push(slot.of(mapped_address(&self.names[i].0)));
                self.places.push(i);
            }
            if count > 0 {
                self.counters.count_batch(count);
                break;
            }
        }
        Ok(Batch::new(&mut self.slots))
    }

    fn origin(&self, index: usize) -> Origin {
        let place = self.places[index];
        let header = &self.headers[place].msg_hdr;
        let wildcard = self.wildcard[self.current];
        Origin {
            socket: self.current,
            name: self.names[place],
            name_len: header.msg_namelen as usize,
            control: self.controls[place],
            control_len: if wildcard { header.msg_controllen } else { 0 },
        }
    }

    fn send(&mut self) -> io::Result<()> {
        let wildcard = self.wildcard[self.current];
        let mut count = 0;
        for (slot, &place) in self.slots.iter().zip(&self.places) {
            if slot.reply_len == 0 {
                continue;
            }
            self.vectors[place].iov_len = slot.reply_len;
            let mut header = self.headers[place];
            if wildcard {
                let received = header.msg_hdr.msg_controllen;
                header.msg_hdr.msg_controllen =
                    reply_control(&mut self.controls[place].0, received);
            }
            // Headers move down over unanswered ones; each still points at its own buffers.
            self.headers[count] = header;
            count += 1;
        }
        let mut sent = 0;
        while sent < count {
            // SAFETY:
            // - `headers[sent..count]` point at buffers, names and controls of the path.
            let result = unsafe {
                libc::sendmmsg(
                    self.sockets[self.current].as_raw_fd(),
                    self.headers.as_mut_ptr().wrapping_add(sent),
                    (count - sent) as u32,
                    libc::MSG_DONTWAIT,
                )
            };
            if result > 0 {
                sent += result as usize;
                self.counters.count_sent(result as usize);
            } else {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                // The first of the rest failed; the others may not.
                self.counters.count_send_error(&error);
                sent += 1;
            }
        }
        self.slots.clear();
        self.places.clear();
        Ok(())
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        if self.counters.is_drop_count_due() {
            let drops = self.sockets.iter().filter_map(|socket| sys::socket_drops(socket.as_fd()));
            self.counters.set_socket_drops(drops.sum());
        }
        let mut polls: ArrayVec<libc::pollfd, 64> = self
            .sockets
            .iter()
            .take(64)
            .map(|socket| libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 })
            .collect();
        let timeout = timeout.as_millis().min(i32::MAX as u128) as i32;
        // SAFETY:
        // - The pointer and the count describe `polls`, whose descriptors the path owns.
        let result = unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as u64, timeout) };
        if result < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        } else if result == 0 {
            self.counters.make_drop_count_due();
        }
        Ok(())
    }

    fn counters(&self) -> &Arc<PathCounters> {
        &self.counters
    }
}
