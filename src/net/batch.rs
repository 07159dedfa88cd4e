//! Datagrams answered in one turn of the loop.
//!
//! ```text
//!   buffer   | received octets ........ | room for a longer reply ........ |
//!            0            received_len  ^                        capacity  ^
//! ```

use arrayvec::ArrayVec;

use crate::limits::BATCH_COUNT_MAX;

//----------- Slot -----------------------------------------------------------

/// One datagram of a path's current batch. The path keeps what it needs to reply by the index.
pub(super) struct Slot {
    start: *mut u8,
    capacity: usize,
    pub received_len: usize,
    pub reply_len: usize,
    /// Who sent it.
    client: u128,
}

// SAFETY:
// - A slot's memory belongs to the path that holds the slot, and moves with it between threads.
unsafe impl Send for Slot {}

/// The slots of one path.
pub(super) type Slots = ArrayVec<Slot, BATCH_COUNT_MAX>;

impl Slot {
    /// # Safety
    ///
    /// - `start` points to `capacity` initialised octets that nothing else reads or writes, and no
    ///   other slot of the batch covers, as long as the slot is in its path's batch.
    pub unsafe fn new(start: *mut u8, capacity: usize, received_len: usize) -> Slot {
        debug_assert!(received_len <= capacity);
        Slot { start, capacity, received_len, reply_len: 0, client: 0 }
    }

    /// From this address, as one of IPv6.
    pub fn of(self, client: u128) -> Slot {
        Slot { client, ..self }
    }

    /// The reply's first octet.
    pub fn start(&self) -> *mut u8 {
        self.start
    }
}

//----------- Batch ----------------------------------------------------------

/// The datagrams of one turn, borrowed from their path.
pub struct Batch<'p> {
    slots: &'p mut Slots,
}

/// One received datagram and the buffer its reply is written into.
pub struct Datagram<'a> {
    /// The whole buffer: the received octets first, then room for the reply.
    pub buffer: &'a mut [u8],
    /// Octets received.
    pub received_len: usize,
    /// Who sent it; an IPv4 address is mapped.
    pub client: u128,
}

impl<'p> Batch<'p> {
    pub(super) fn new(slots: &'p mut Slots) -> Batch<'p> {
        Batch { slots }
    }

    /// Datagrams in the batch.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// All datagrams, each with its own buffer, in order.
    #[inline]
    pub fn datagrams_mut(&mut self) -> impl Iterator<Item = Datagram<'_>> {
        self.slots.iter_mut().map(|slot| Datagram {
            // SAFETY:
            // - `Slot::new` was promised this memory, apart from that of every other slot.
            // - The slice lives no longer than `&mut self`, during which the path, whose batch
            //   this is, cannot touch it.
            buffer: unsafe { std::slice::from_raw_parts_mut(slot.start, slot.capacity) },
            received_len: slot.received_len,
            client: slot.client,
        })
    }

    /// Says that datagram `index` is answered by the first `reply_len` octets of its buffer, or,
    /// with 0, not at all.
    #[inline]
    pub fn settle(&mut self, index: usize, reply_len: usize) {
        let slot = &mut self.slots[index];
        debug_assert!(reply_len <= slot.capacity);
        slot.reply_len = reply_len.min(slot.capacity);
    }
}
