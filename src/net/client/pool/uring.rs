//! The ports of a pool on io_uring: one system call sends a batch and completes what has arrived.
//!
//! ```text
//!   slot    | free | open: registered file, multishot receive | closing: cancelled | free ...
//!   batch   slot 7 + octets, slot 31 + octets, ... ──enter──> completions ──> buffer ──> receiver
//! ```
//!
//! A slot is free again only when the last completion of its receive has been seen: what comes
//! under its number belongs to one socket.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use io_uring::types::{Fd, Fixed};
use io_uring::{IoUring, cqueue, opcode, squeue};

use crate::memory::Region;
use crate::net::client::{QUERY_LEN_MAX, QUEUE_COUNT_MAX, REPLY_LEN_MAX, Waker, is_of_the_way};
use crate::net::ring::{self, SEND};
use crate::net::ring_buffers::RingBuffers;
use crate::net::sys;

use super::{Event, Ports, Slot};

/// Buffers the kernel may fill before this thread comes to take them.
const BUFFERS: u16 = 512;
/// One octet more than a reply may have, so that longer ones are recognised; whole cache lines.
const BUFFER_LEN: usize = (REPLY_LEN_MAX + 1).next_multiple_of(64);
/// Completions taken in one turn, so that sending gets its own and others their core: twice as many
/// as questions that may go out in it, for not all are replies.
const TURN_COUNT_MAX: usize = 16;
/// Marks the completion of the poll of the waker, beside [`SEND`]: it is no receive.
const WAKE: u64 = 1 << 33;
/// As [`WAKE`], of cancelling a receive.
const CANCEL: u64 = 1 << 34;
/// Where a send's completion carries the ID of its query.
const ID_SHIFT: u32 = 40;

/// Ports on a ring. Made, used and dropped on one thread.
pub(super) struct UringPorts {
    ring: IoUring,
    /// After the ring, which has to be dropped first.
    buffers: RingBuffers,
    places: Vec<Place>,
    /// Places whose receive has ended and is wanted again.
    unarmed: Vec<Slot>,
    /// Datagrams to be sent.
    outgoing: Region,
    queued: Vec<(Slot, u16, u32)>,
    waker: Waker,
    is_polled: bool,
}

#[derive(Default)]
struct Place {
    socket: Option<UdpSocket>,
    is_armed: bool,
    is_closing: bool,
}

impl UringPorts {
    /// No ports yet, `count` at most.
    pub fn new(count: usize, waker: Waker) -> io::Result<UringPorts> {
        // A batch of sends, and room to arm as many receives.
        let entries = (2 * QUEUE_COUNT_MAX).next_power_of_two() as u32;
        let completions = (2 * usize::from(BUFFERS) + 2 * count).next_power_of_two();
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(completions as u32)
            .build(entries)?;
        ring.submitter().register_files_sparse(count as u32)?;
        let outgoing = Region::new(QUEUE_COUNT_MAX * QUERY_LEN_MAX)?;
        let mut buffers = RingBuffers::new(BUFFERS, BUFFER_LEN)?;
        // SAFETY:
        // - `UringPorts` drops its fields in order, the ring before the buffers.
        unsafe { buffers.register(&ring) }?;
        Ok(UringPorts {
            ring,
            buffers,
            places: (0..count).map(|_| Place::default()).collect(),
            unarmed: Vec::with_capacity(count),
            outgoing,
            queued: Vec::with_capacity(QUEUE_COUNT_MAX),
            waker,
            is_polled: false,
        })
    }

    /// Queues a submission; where there is no room, what is queued is submitted first.
    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        for _ in 0..2 {
            // SAFETY:
            // - Receives take their buffers from the registered ring, which lives as long as the
            //   ring; polls and cancels have no memory; sends are as `flush` proves.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            ring::enter(&mut self.ring)?;
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Queues a receive for every port that has none, and the poll of the waker.
    fn arm(&mut self) -> io::Result<()> {
        if !self.is_polled {
            let descriptor = self.waker.descriptor().as_raw_fd();
            let poll = opcode::PollAdd::new(Fd(descriptor), libc::POLLIN as u32).build();
            self.push(&poll.user_data(SEND | WAKE))?;
            self.is_polled = true;
        }
        while let Some(slot) = self.unarmed.pop() {
            let place = &self.places[slot as usize];
            if place.is_armed || place.is_closing || place.socket.is_none() {
                continue;
            }
            let receive = opcode::RecvMulti::new(Fixed(slot), 0).build().user_data(u64::from(slot));
            if let Err(error) = self.push(&receive) {
                self.unarmed.push(slot);
                return if error.kind() == io::ErrorKind::WouldBlock { Ok(()) } else { Err(error) };
            }
            self.places[slot as usize].is_armed = true;
        }
        Ok(())
    }

    /// Lets go of a socket of which nothing comes any more.
    fn free(&mut self, slot: Slot, take: &mut dyn FnMut(Event<'_>)) {
        let _ = self.ring.submitter().register_files_update(slot, &[-1]);
        self.places[slot as usize] = Place::default();
        take(Event::Closed { slot });
    }

    /// Hands out what a completion says.
    fn complete(&mut self, completion: &cqueue::Entry, take: &mut dyn FnMut(Event<'_>)) {
        let (word, result) = (completion.user_data(), completion.result());
        let slot = word as Slot;
        if word & WAKE != 0 {
            self.is_polled = false;
            self.waker.rearm();
        } else if word & CANCEL != 0 {
            // The receive's own completion says what has become of it.
        } else if word & SEND != 0 {
            if result < 0 {
                let id = (word >> ID_SHIFT) as u16;
                take(failed(slot, Some(id), -result));
            }
        } else {
            if let Some(buffer) = cqueue::buffer_select(completion.flags()) {
                match usize::try_from(result) {
                    Ok(len) if len <= REPLY_LEN_MAX => {
                        let octets = &self.buffers.octets(buffer)[..len];
                        take(Event::Datagram { slot, octets });
                    }
                    Ok(_) => take(Event::Oversized),
                    Err(_) => {}
                }
                self.buffers.give_back(buffer);
            } else if result < 0 && !matches!(-result, libc::ENOBUFS | libc::ECANCELED) {
                take(failed(slot, None, -result));
            }
            if !cqueue::more(completion.flags()) {
                let place = &mut self.places[slot as usize];
                place.is_armed = false;
                if place.is_closing {
                    self.free(slot, take);
                } else {
                    self.unarmed.push(slot);
                }
            }
        }
    }
}

/// What an error of a socket means: of the way to the peer, or of this machine.
fn failed<'a>(slot: Slot, id: Option<u16>, code: i32) -> Event<'a> {
    match (is_of_the_way(&io::Error::from_raw_os_error(code)), id) {
        (false, Some(id)) => Event::Unsent { slot, id },
        _ => Event::Refused { slot },
    }
}

impl Drop for UringPorts {
    fn drop(&mut self) {
        let armed = self.places.iter().filter(|place| place.is_armed).count();
        let _ = ring::close(&mut self.ring, armed);
    }
}

impl Ports for UringPorts {
    fn open(&mut self, slot: Slot, socket: UdpSocket) -> io::Result<()> {
        self.ring.submitter().register_files_update(slot, &[socket.as_raw_fd()])?;
        let place = &mut self.places[slot as usize];
        *place = Place { socket: Some(socket), ..Place::default() };
        self.unarmed.push(slot);
        Ok(())
    }

    fn close(&mut self, slot: Slot, take: &mut dyn FnMut(Event<'_>)) -> io::Result<()> {
        let place = &mut self.places[slot as usize];
        place.is_closing = true;
        if !place.is_armed {
            self.free(slot, take);
            return Ok(());
        }
        let cancel = opcode::AsyncCancel::new(u64::from(slot)).build();
        let cancel = cancel.flags(squeue::Flags::SKIP_SUCCESS).user_data(SEND | CANCEL);
        self.push(&cancel)
    }

    #[inline]
    fn queue(&mut self, slot: Slot, id: u16, octets: &[u8]) {
        let start = self.queued.len() * QUERY_LEN_MAX;
        let place = &mut self.outgoing[start..][..octets.len()];
        place.copy_from_slice(octets);
        place[..2].copy_from_slice(&id.to_be_bytes());
        self.queued.push((slot, id, octets.len() as u32));
    }

    fn queued(&self) -> usize {
        self.queued.len()
    }

    fn flush(&mut self, _take: &mut dyn FnMut(Event<'_>)) -> io::Result<()> {
        for index in 0..self.queued.len() {
            let (slot, id, len) = self.queued[index];
            let start = self.outgoing.as_ptr().wrapping_add(index * QUERY_LEN_MAX);
            let send = opcode::Send::new(Fixed(slot), start, len).flags(libc::MSG_DONTWAIT).build();
            let word = SEND | u64::from(id) << ID_SHIFT | u64::from(slot);
            // The octets stay as they are until `enter` returns: MSG_DONTWAIT sends complete while
            // they are submitted.
            self.push(&send.flags(squeue::Flags::SKIP_SUCCESS).user_data(word))?;
        }
        self.arm()?;
        self.buffers.publish();
        ring::enter(&mut self.ring)?;
        while !self.ring.submission().is_empty() {
            ring::enter(&mut self.ring)?;
        }
        self.queued.clear();
        Ok(())
    }

    fn receive(&mut self, take: &mut dyn FnMut(Event<'_>)) -> io::Result<()> {
        if self.ring.completion().is_empty() {
            let is_armed = self.unarmed.is_empty() && self.is_polled;
            if !self.ring.submission().taskrun() && is_armed {
                return Ok(());
            }
            self.arm()?;
            ring::enter(&mut self.ring)?;
        }
        for _ in 0..TURN_COUNT_MAX {
            let Some(completion) = self.ring.completion().next() else { break };
            self.complete(&completion, take);
        }
        self.buffers.publish();
        Ok(())
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        if !self.ring.completion().is_empty() {
            return Ok(());
        }
        self.arm()?;
        ring::wait(&mut self.ring, timeout).map(drop)
    }

    fn drops(&self) -> u64 {
        let sockets = self.places.iter().filter_map(|place| place.socket.as_ref());
        sockets.filter_map(|socket| sys::socket_drops(socket.as_fd())).sum()
    }
}
