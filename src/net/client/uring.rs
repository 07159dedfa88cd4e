//! The client path of io_uring: one system call sends a batch and completes what has arrived.
//!
//! ```text
//!   slot 0, 1, ... ──send on port p──> submission ──enter──> completions ──> buffer ──> receiver
//!
//!   buffer   | recvmsg_out 16 | control 32: when | datagram ............ |
//! ```
//!
//! Every port has a multishot receive; all share one ring of buffers. Datagrams of one length that
//! follow each other on one port leave as one (UDP_SEGMENT): the kernel looks up the route once.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use io_uring::types::{Fixed, RecvMsgOut};
use io_uring::{IoUring, cqueue, opcode, squeue};

use crate::limits::DATAGRAM_BUFFER_LEN;
use crate::memory::Region;
use crate::net::ring::{self, SEND};
use crate::net::ring_buffers::RingBuffers;
use crate::net::sys;

use super::{ClientPath, QUERY_LEN_MAX, QUEUE_COUNT_MAX, Received, TIME_CONTROL_LEN};

/// Buffers the kernel may fill before this thread comes to take them.
const BUFFERS: u16 = 1024;
/// `struct io_uring_recvmsg_out`.
const OUT_LEN: usize = 16;
const BUFFER_LEN: usize = (OUT_LEN + TIME_CONTROL_LEN + DATAGRAM_BUFFER_LEN).next_multiple_of(64);
/// Room for one control message with a segment's length.
const SEGMENT_CONTROL_LEN: usize = size_of::<libc::cmsghdr>() + 8;
/// Octets of the largest datagram before it is cut into segments.
const SEGMENTS_LEN_MAX: usize = 65_000;
/// Datagrams taken in one turn, so that sending gets its own.
const TURN_COUNT_MAX: usize = 256;

//----------- UringClient ----------------------------------------------------

/// A client path over many connected ports. Made, used and dropped on one thread.
pub struct UringClient {
    ring: IoUring,
    /// After the ring, which has to be dropped first.
    buffers: RingBuffers,
    /// What the kernel reads while receives are armed: it must not move.
    template: Box<libc::msghdr>,
    ports: Vec<Port>,
    /// Ports whose receive has ended.
    unarmed: Vec<u32>,
    /// Datagrams to be sent.
    slots: Region,
    queued: Vec<(u32, u32)>,
    /// For datagrams that leave as one: by the slot of the first.
    vectors: Box<[libc::iovec]>,
    headers: Box<[libc::msghdr]>,
    controls: Box<[SegmentControl]>,
    unsent: u64,
}

/// Room for a control message with the alignment that `cmsghdr` has.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct SegmentControl([u8; SEGMENT_CONTROL_LEN]);

impl SegmentControl {
    /// Segments of `len` octets.
    fn set(&mut self, len: u16) {
        let message_len = size_of::<libc::cmsghdr>() + size_of::<u16>();
        self.0[..8].copy_from_slice(&message_len.to_ne_bytes());
        self.0[8..12].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
        self.0[12..16].copy_from_slice(&libc::UDP_SEGMENT.to_ne_bytes());
        self.0[16..18].copy_from_slice(&len.to_ne_bytes());
    }
}

struct Port {
    socket: UdpSocket,
    armed: bool,
}

impl UringClient {
    /// A path over `sockets`, which are connected and non-blocking. Call it on the thread that
    /// will use it.
    pub fn new(sockets: Vec<UdpSocket>) -> io::Result<UringClient> {
        let entries = (2 * QUEUE_COUNT_MAX).next_power_of_two() as u32;
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize((2 * BUFFERS as u32 + 2 * sockets.len() as u32).next_power_of_two())
            .build(entries)?;
        let descriptors: Vec<RawFd> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        ring.submitter().register_files(&descriptors)?;
        let slots = Region::new(QUEUE_COUNT_MAX * QUERY_LEN_MAX)?;
        let mut buffers = RingBuffers::new(BUFFERS, BUFFER_LEN)?;
        // SAFETY:
        // - `UringClient` drops its fields in order, the ring before the buffers.
        unsafe { buffers.register(&ring) }?;
        // SAFETY:
        // - `msghdr` is made of integers and pointers: all zeroes is a value of it.
        let mut template: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        template.msg_controllen = TIME_CONTROL_LEN;
        let header = *template;
        let vector = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let control = SegmentControl([0; SEGMENT_CONTROL_LEN]);
        let unarmed = (0..sockets.len() as u32).collect();
        let ports = sockets.into_iter().map(|socket| Port { socket, armed: false }).collect();
        let mut path = UringClient {
            ring,
            buffers,
            template,
            ports,
            unarmed,
            slots,
            queued: Vec::with_capacity(QUEUE_COUNT_MAX),
            vectors: vec![vector; QUEUE_COUNT_MAX].into(),
            headers: vec![header; QUEUE_COUNT_MAX].into(),
            controls: vec![control; QUEUE_COUNT_MAX].into(),
            unsent: 0,
        };
        while !path.unarmed.is_empty() {
            path.arm();
            ring::enter(&mut path.ring)?;
        }
        Ok(path)
    }

    /// Queues a multishot receive for every port that has none, as far as there is room.
    fn arm(&mut self) {
        while let Some(port) = self.unarmed.pop() {
            let receive = opcode::RecvMsgMulti::new(Fixed(port), &*self.template, 0)
                .build()
                .user_data(u64::from(port));
            // SAFETY:
            // - The template is boxed and lives as long as the ring; the buffers are registered.
            if unsafe { self.ring.submission().push(&receive) }.is_err() {
                self.unarmed.push(port);
                return;
            }
            self.ports[port as usize].armed = true;
        }
    }

    /// The submission that sends `count` datagrams of one port and length, from slot `first` on.
    fn send(&mut self, first: usize, count: usize) -> squeue::Entry {
        let (port, len) = self.queued[first];
        let start = |slot: usize| self.slots.as_ptr().wrapping_add(slot * QUERY_LEN_MAX);
        let entry = if count == 1 {
            opcode::Send::new(Fixed(port), start(first), len).flags(libc::MSG_DONTWAIT).build()
        } else {
            for slot in first..first + count {
                let vector = &mut self.vectors[slot];
                *vector =
                    libc::iovec { iov_base: start(slot).cast_mut().cast(), iov_len: len as usize };
            }
            self.controls[first].set(len as u16);
            let header = &mut self.headers[first];
            header.msg_iov = &raw mut self.vectors[first];
            header.msg_iovlen = count;
            header.msg_control = (&raw mut self.controls[first]).cast();
            header.msg_controllen = SEGMENT_CONTROL_LEN;
            opcode::SendMsg::new(Fixed(port), header).flags(libc::MSG_DONTWAIT as u32).build()
        };
        // With how many datagrams it has.
        entry.flags(squeue::Flags::SKIP_SUCCESS).user_data(SEND | count as u64)
    }

    /// Hands out the datagram of a completion, if it has one.
    fn take(
        &mut self,
        completion: &cqueue::Entry,
        ahead_ns: u64,
        take: &mut dyn FnMut(Received<'_>),
    ) -> usize {
        let result = completion.result();
        if completion.user_data() & SEND != 0 {
            // An ICMP error of an earlier datagram took the place of this one: the peer's doing.
            if result < 0 && !super::is_of_the_way(&io::Error::from_raw_os_error(-result)) {
                self.unsent += completion.user_data() & (SEND - 1);
            }
            return 0;
        }
        let port = completion.user_data() as usize;
        if !cqueue::more(completion.flags()) {
            // An ICMP error, or no buffer was left.
            self.ports[port].armed = false;
            self.unarmed.push(port as u32);
        }
        let Some(buffer) = cqueue::buffer_select(completion.flags()) else { return 0 };
        let mut count = 0;
        if result >= 0 {
            let octets = &self.buffers.octets(buffer)[..(result as usize).min(BUFFER_LEN)];
            if let Ok(out) = RecvMsgOut::parse(octets, &self.template)
                && !out.is_payload_truncated()
            {
                let at_ns = super::time_of(out.control_data(), ahead_ns);
                take(Received { port, octets: out.payload_data(), at_ns });
                count = 1;
            }
        }
        self.buffers.give_back(buffer);
        count
    }
}

impl Drop for UringClient {
    fn drop(&mut self) {
        let armed = self.ports.iter().filter(|port| port.armed).count();
        let _ = ring::close(&mut self.ring, armed);
    }
}

impl ClientPath for UringClient {
    fn ports(&self) -> usize {
        self.ports.len()
    }

    #[inline]
    fn queue(&mut self, port: usize, octets: &[u8]) -> bool {
        let slot = self.queued.len();
        if slot == QUEUE_COUNT_MAX || octets.len() > QUERY_LEN_MAX {
            return false;
        }
        self.slots[slot * QUERY_LEN_MAX..][..octets.len()].copy_from_slice(octets);
        self.queued.push((port as u32, octets.len() as u32));
        true
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        let mut first = 0;
        while let Some(&queued) = self.queued.get(first) {
            // Nothing cannot be cut.
            let most = SEGMENTS_LEN_MAX.checked_div(queued.1 as usize).unwrap_or(1);
            let same = self.queued[first..].iter().take(most).take_while(|next| **next == queued);
            let count = same.count().max(1);
            let send = self.send(first, count);
            // SAFETY:
            // - The slots, and the vectors, header and control of the first, stay as they are until
            //   `enter` returns: MSG_DONTWAIT sends complete while they are submitted.
            if unsafe { self.ring.submission().push(&send) }.is_err() {
                self.unsent += count as u64;
            }
            first += count;
        }
        self.queued.clear();
        self.arm();
        ring::enter(&mut self.ring)?;
        while !self.ring.submission().is_empty() {
            ring::enter(&mut self.ring)?;
        }
        Ok(())
    }

    #[inline]
    fn receive(&mut self, take: &mut dyn FnMut(Received<'_>)) -> io::Result<usize> {
        if self.ring.completion().is_empty() {
            if !self.ring.submission().taskrun() && self.unarmed.is_empty() {
                return Ok(0);
            }
            self.arm();
            ring::enter(&mut self.ring)?;
        }
        let ahead_ns = super::real_time_ahead_ns();
        let mut count = 0;
        while count < TURN_COUNT_MAX {
            let Some(completion) = self.ring.completion().next() else { break };
            count += self.take(&completion, ahead_ns, take);
        }
        self.buffers.publish();
        Ok(count)
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        if !self.ring.completion().is_empty() {
            return Ok(());
        }
        self.arm();
        ring::wait(&mut self.ring, timeout).map(drop)
    }

    fn unsent(&self) -> u64 {
        self.unsent
    }

    fn drops(&self) -> u64 {
        self.ports.iter().filter_map(|port| sys::socket_drops(port.socket.as_fd())).sum()
    }
}
