//! Buffers that the kernel fills as datagrams come, by turns.
//!
//! ```text
//!   | entry 0 | entry 1 | ...  one page or more | buffer 0 | buffer 1 | ...
//!        kernel takes buffers at the head ^          tail: this thread gives them back
//! ```

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use crate::memory::{HUGE_PAGE_LEN, Region};

/// The buffers of one ring. It must be dropped after the ring it is registered with.
pub(super) struct RingBuffers {
    memory: Region,
    count: u16,
    len: usize,
    /// Where the buffers begin: the mapping starts with the ring of their entries, page aligned.
    at: usize,
    tail: u16,
}

impl RingBuffers {
    /// `count` buffers, a power of two, of `len` octets each.
    pub fn new(count: u16, len: usize) -> io::Result<RingBuffers> {
        assert!(count.is_power_of_two(), "the kernel counts buffers modulo a power of two");
        let at = (count as usize * size_of::<BufRingEntry>()).next_multiple_of(4096);
        // Kernels align mappings for huge pages only if their length is a multiple of one.
        let memory = Region::new((at + count as usize * len).next_multiple_of(HUGE_PAGE_LEN))?;
        Ok(RingBuffers { memory, count, len, at, tail: 0 })
    }

    /// Registers the buffers as group 0 of `ring`, and gives all of them to the kernel.
    ///
    /// # Safety
    ///
    /// - `ring` must be dropped before `self`.
    pub unsafe fn register(&mut self, ring: &IoUring) -> io::Result<()> {
        let start = self.memory.as_mut_ptr() as u64;
        // SAFETY:
        // - The entries lie at the page-aligned start of the mapping, which the caller promises to
        //   keep as long as the ring.
        unsafe { ring.submitter().register_buf_ring_with_flags(start, self.count, 0, 0) }?;
        for buffer in 0..self.count {
            self.give_back(buffer);
        }
        self.publish();
        Ok(())
    }

    /// The first octet of `buffer`.
    #[inline]
    pub fn start(&mut self, buffer: u16) -> *mut u8 {
        self.memory.as_mut_ptr().wrapping_add(self.at + buffer as usize * self.len)
    }

    /// The octets of `buffer`.
    #[inline]
    pub fn octets(&self, buffer: u16) -> &[u8] {
        &self.memory[self.at + buffer as usize * self.len..][..self.len]
    }

    /// Puts a buffer at the ring's tail; the kernel sees it after [`RingBuffers::publish`].
    #[inline]
    pub fn give_back(&mut self, buffer: u16) {
        let address = self.start(buffer) as u64;
        let entries = self.memory.as_mut_ptr().cast::<BufRingEntry>();
        let slot = (self.tail & (self.count - 1)) as usize;
        // SAFETY:
        // - The ring has `count` entries at the start of the mapping, and `slot` is below that.
        // - The kernel reads an entry only once the tail has passed it.
        let entry = unsafe { &mut *entries.add(slot) };
        entry.set_addr(address);
        entry.set_len(self.len as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel see what was given back.
    #[inline]
    pub fn publish(&mut self) {
        let entries = self.memory.as_ptr().cast::<BufRingEntry>();
        // SAFETY:
        // - The tail lies in the first entry of the registered ring, aligned, and is shared with
        //   the kernel only through atomic loads and stores.
        unsafe {
            let tail = BufRingEntry::tail(entries).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}
