//! The path of io_uring: one system call a batch.
//!
//! ```text
//!                 kernel                                             this thread
//!   multishot recvmsg ──> buffer from the ring ──> completion ──> slot ──> reply written in place
//!   send from the same buffer <── submission ─────────────────────────────────┘
//!   buffer back into the ring once its send was submitted
//!
//!   buffer   | recvmsg_out 16 | name 28 | control 0 or 40 | datagram, then reply ............ |
//! ```
//!
//! The ring belongs to one thread (SINGLE_ISSUER), and the kernel does its work only when that
//! thread enters (DEFER_TASKRUN): receiving costs nothing until it is asked for, and the enter
//! that submits a batch's replies also completes what arrived meanwhile. Sends are non-blocking
//! and complete while they are submitted; only failures post a completion.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use io_uring::types::{Fixed, RecvMsgOut};
use io_uring::{IoUring, cqueue, opcode, squeue};

use crate::limits::{BATCH_COUNT_MAX, DATAGRAM_BUFFER_LEN};
use crate::memory::HUGE_PAGE_LEN;

use super::batch::{Batch, Slot, Slots};
use super::counters::PathCounters;
use super::peer::{
    CONTROL_LEN, Control, NAME_LEN, Origin, PeerName, mapped_address, reply_control,
};
use super::ring::{self, SEND};
use super::ring_buffers::RingBuffers;
use super::{PacketPath, sys};

/// Buffers the kernel may fill: a burst of four batches. It goes round all of them, whatever the
/// load; together they are one huge page, and so one entry of the TLB.
const BUFFERS: u16 = 256;
const _: () = assert!(BUFFERS.is_power_of_two() && BUFFERS as usize >= 2 * BATCH_COUNT_MAX);
/// `struct io_uring_recvmsg_out`.
const OUT_LEN: usize = 16;
/// What stands before a datagram in its buffer, and the datagram, in whole cache lines.
const BUFFER_LEN: usize =
    (OUT_LEN + NAME_LEN + CONTROL_LEN + DATAGRAM_BUFFER_LEN).next_multiple_of(64);
const BUFFER_GROUP: u16 = 0;
const _: () = assert!(BUFFERS as usize * (BUFFER_LEN + 16) <= HUGE_PAGE_LEN);
/// Listening addresses one core can serve.
const SOCKETS_MAX: usize = 64;

//----------- UringPath ------------------------------------------------------

/// A path over one or more sockets of one core. Made, used and dropped on one thread.
pub struct UringPath {
    ring: IoUring,
    sockets: Vec<Listener>,
    slots: Slots,
    places: ArrayVec<Place, BATCH_COUNT_MAX>,
    /// After the ring, which has to be dropped first.
    buffers: RingBuffers,
    vectors: Box<[libc::iovec]>,
    headers: Box<[libc::msghdr]>,
    controls: Box<[Control]>,
    counters: Arc<PathCounters>,
}

struct Listener {
    socket: UdpSocket,
    wildcard: bool,
    /// Describes the layout of its buffers to the kernel, which reads it while the receive is
    /// armed: it must not move.
    template: Box<libc::msghdr>,
    armed: bool,
}

/// What a slot needs for its reply.
#[derive(Clone, Copy)]
struct Place {
    buffer: u16,
    socket: u8,
    name_len: u8,
}

/// Whether this process may use io_uring as the path needs it.
pub fn uring_available() -> io::Result<()> {
    build_ring(8).map(drop)
}

fn build_ring(entries: u32) -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        // One enter submits all of a batch, whatever becomes of its first send.
        .setup_submit_all()
        .setup_cqsize((entries * 4).max(2 * (u32::from(BUFFERS) + entries)))
        .build(entries)
}

impl UringPath {
    /// A path over `sockets`. Call it on the thread that will use it.
    pub fn new(sockets: Vec<UdpSocket>) -> io::Result<UringPath> {
        if sockets.len() > SOCKETS_MAX {
            let reason = format!("at most {SOCKETS_MAX} listening addresses for one core");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let ring = build_ring((BATCH_COUNT_MAX + SOCKETS_MAX) as u32)?;
        let sockets = sockets
            .into_iter()
            .map(|socket| {
                let wildcard = socket.local_addr()?.ip().is_unspecified();
                // SAFETY:
                // - `msghdr` is made of integers and pointers: all zeroes is a value of it.
                let mut template: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
                template.msg_namelen = NAME_LEN as u32;
                template.msg_controllen = if wildcard { CONTROL_LEN } else { 0 };
                Ok(Listener { socket, wildcard, template, armed: false })
            })
            .collect::<io::Result<Vec<_>>>()?;
        let descriptors: Vec<RawFd> =
            sockets.iter().map(|listener| listener.socket.as_raw_fd()).collect();
        ring.submitter().register_files(&descriptors)?;
        let mut buffers = RingBuffers::new(BUFFERS, BUFFER_LEN)?;
        // SAFETY:
        // - `UringPath` drops its fields in order, the ring before the buffers.
        unsafe { buffers.register(&ring) }?;
        let vector = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        // SAFETY:
        // - As above: all zeroes is a value of `msghdr`.
        let header: libc::msghdr = unsafe { std::mem::zeroed() };
        let mut path = UringPath {
            ring,
            sockets,
            slots: Slots::new(),
            places: ArrayVec::new(),
            buffers,
            vectors: vec![vector; BATCH_COUNT_MAX].into(),
            headers: vec![header; BATCH_COUNT_MAX].into(),
            controls: vec![Control([0; CONTROL_LEN]); BATCH_COUNT_MAX].into(),
            counters: Arc::default(),
        };
        path.arm();
        path.ring.submit()?;
        Ok(path)
    }

    /// Whether every socket has a receive.
    fn is_armed(&self) -> bool {
        self.sockets.iter().all(|listener| listener.armed)
    }

    /// Queues a multishot receive for every socket that has none.
    fn arm(&mut self) {
        for (index, listener) in self.sockets.iter_mut().enumerate() {
            if listener.armed {
                continue;
            }
            let receive =
                opcode::RecvMsgMulti::new(Fixed(index as u32), &*listener.template, BUFFER_GROUP)
                    .build()
                    .user_data(index as u64);
            // SAFETY:
            // - The template is boxed and lives as long as the ring; the buffers are registered.
            let queued = unsafe { self.ring.submission().push(&receive) };
            listener.armed = queued.is_ok();
        }
    }

    /// Moves completions into slots until the batch is full.
    fn reap(&mut self) {
        let mut returned: ArrayVec<u16, BATCH_COUNT_MAX> = ArrayVec::new();
        while self.slots.len() < BATCH_COUNT_MAX && !returned.is_full() {
            let Some(completion) = self.ring.completion().next() else { break };
            let result = completion.result();
            if completion.user_data() & SEND != 0 {
                if result < 0 {
                    self.counters.count_send_error(&io::Error::from_raw_os_error(-result));
                }
                continue;
            }
            let index = completion.user_data() as usize;
            if !cqueue::more(completion.flags()) {
                self.sockets[index].armed = false;
            }
            if result == -libc::ENOBUFS {
                self.counters.count_exhausted();
            }
            let Some(buffer) = cqueue::buffer_select(completion.flags()) else { continue };
            if result < 0 || !self.take(index, buffer, result as usize) {
                returned.push(buffer);
            }
        }
        for buffer in returned {
            self.buffers.give_back(buffer);
        }
    }

    /// Makes a slot of a filled buffer. `false` if the datagram is none to answer.
    fn take(&mut self, index: usize, buffer: u16, len: usize) -> bool {
        let start = self.buffers.start(buffer);
        // SAFETY:
        // - The completion handed this buffer over: the kernel has written `len` octets of it and
        //   does not touch it until it is given back.
        let octets = unsafe { std::slice::from_raw_parts(start, len.min(BUFFER_LEN)) };
        let template = &self.sockets[index].template;
        let Ok(out) = RecvMsgOut::parse(octets, template) else { return false };
        let datagram_at = OUT_LEN + NAME_LEN + template.msg_controllen;
        if out.is_payload_truncated() || out.payload_data().len() > DATAGRAM_BUFFER_LEN {
            self.counters.count_oversized();
            return false;
        }
        let place = Place {
            buffer,
            socket: index as u8,
            name_len: out.incoming_name_len().min(NAME_LEN as u32) as u8,
        };
        let received_len = out.payload_data().len();
        // SAFETY:
        // - From `datagram_at` on, the buffer has DATAGRAM_BUFFER_LEN octets (see BUFFER_LEN), all
        //   initialised, for this slot alone until the buffer is given back.
        let slot = unsafe {
            Slot::new(start.wrapping_add(datagram_at), DATAGRAM_BUFFER_LEN, received_len)
        };
        let name = octets[OUT_LEN..].first_chunk().expect("the name's place is in every buffer");
        self.slots.push(slot.of(mapped_address(name)));
        self.places.push(place);
        true
    }

    /// The submission that sends slot `i`'s reply.
    fn reply(&mut self, i: usize) -> squeue::Entry {
        let Place { buffer, socket, name_len } = self.places[i];
        let (start, len) = (self.slots[i].start(), self.slots[i].reply_len);
        let name = self.buffers.start(buffer).wrapping_add(OUT_LEN);
        let entry = if self.sockets[socket as usize].wildcard {
            let from = name.wrapping_add(NAME_LEN);
            let control = &mut self.controls[i];
            // SAFETY:
            // - The buffer's control area has CONTROL_LEN octets and belongs to this slot.
            unsafe { ptr::copy_nonoverlapping(from, control.0.as_mut_ptr(), CONTROL_LEN) };
            let control_len = reply_control(&mut control.0, CONTROL_LEN);
            self.vectors[i] = libc::iovec { iov_base: start.cast(), iov_len: len };
            let header = &mut self.headers[i];
            header.msg_name = name.cast();
            header.msg_namelen = u32::from(name_len);
            header.msg_iov = &raw mut self.vectors[i];
            header.msg_iovlen = 1;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = control_len;
            opcode::SendMsg::new(Fixed(u32::from(socket)), header)
                .flags(libc::MSG_DONTWAIT as u32)
                .build()
        } else {
            opcode::Send::new(Fixed(u32::from(socket)), start, len as u32)
                .dest_addr(name.cast())
                .dest_addr_len(u32::from(name_len))
                .flags(libc::MSG_DONTWAIT)
                .build()
        };
        entry.flags(squeue::Flags::SKIP_SUCCESS).user_data(SEND)
    }
}

impl Drop for UringPath {
    fn drop(&mut self) {
        let armed = self.sockets.iter().filter(|listener| listener.armed).count();
        let _ = ring::close(&mut self.ring, armed);
    }
}

impl PacketPath for UringPath {
    #[inline]
    fn receive(&mut self) -> io::Result<Batch<'_>> {
        self.reap();
        // Without the kernel's word that it has work for this thread, entering would find nothing:
        // `wait` enters anyway, and returns at once if something came meanwhile.
        if self.slots.is_empty() && (self.ring.submission().taskrun() || !self.is_armed()) {
            self.buffers.publish();
            self.arm();
            ring::enter(&mut self.ring)?;
            self.reap();
        }
        if !self.slots.is_empty() {
            self.counters.count_batch(self.slots.len());
        }
        Ok(Batch::new(&mut self.slots))
    }

    fn origin(&self, index: usize) -> Origin {
        let Place { buffer, socket, name_len } = self.places[index];
        let octets = &self.buffers.octets(buffer)[OUT_LEN..];
        let (mut name, mut control) = (PeerName([0; NAME_LEN]), Control([0; CONTROL_LEN]));
        name.0.copy_from_slice(&octets[..NAME_LEN]);
        let wildcard = self.sockets[socket as usize].wildcard;
        if wildcard {
            control.0.copy_from_slice(&octets[NAME_LEN..NAME_LEN + CONTROL_LEN]);
        }
        let control_len = if wildcard { CONTROL_LEN } else { 0 };
        Origin { socket: socket.into(), name, name_len: name_len.into(), control, control_len }
    }

    #[inline]
    fn send(&mut self) -> io::Result<()> {
        let mut count = 0;
        for i in 0..self.slots.len() {
            if self.slots[i].reply_len == 0 {
                continue;
            }
            let entry = self.reply(i);
            // SAFETY:
            // - Buffer, name, vector, header and control of slot `i` stay as they are until
            //   `enter` returns: MSG_DONTWAIT sends complete while they are submitted.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                count += 1;
            } else {
                self.counters.count_send_error(&io::Error::from_raw_os_error(libc::ENOBUFS));
            }
        }
        self.arm();
        ring::enter(&mut self.ring)?;
        while !self.ring.submission().is_empty() {
            ring::enter(&mut self.ring)?;
        }
        self.counters.count_sent(count);
        self.slots.clear();
        for place in std::mem::take(&mut self.places) {
            self.buffers.give_back(place.buffer);
        }
        self.buffers.publish();
        Ok(())
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        if self.counters.is_drop_count_due() {
            let sockets = self.sockets.iter();
            let drops =
                sockets.filter_map(|listener| sys::socket_drops(listener.socket.as_fd())).sum();
            self.counters.set_socket_drops(drops);
        }
        self.buffers.publish();
        self.arm();
        if !ring::wait(&mut self.ring, timeout)? {
            self.counters.make_drop_count_due();
        }
        Ok(())
    }

    fn counters(&self) -> &Arc<PathCounters> {
        &self.counters
    }
}
