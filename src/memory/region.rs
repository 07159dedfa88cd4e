//! A large block of zeroed memory, straight from the kernel.
//!
//! ```text
//!   mmap (anonymous, private) ── madvise(HUGEPAGE) ── &[u8] / &mut [u8] ── munmap on drop
//! ```
//!
//! Below 64 KiB a region is an aligned block of the heap instead: a hundred thousand small zones
//! would otherwise be as many mappings.
//!
//! Zones and packet buffers live in regions rather than on the heap for three reasons: the address
//! space can be asked for in huge pages (a random access then costs 15 % less, see
//! `ARCHITECTURE.md`), pages that are never touched never become resident, and a retired zone goes
//! back to the kernel at once instead of staying in an allocator's lists.

use std::alloc::{self, Layout};
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// Huge pages are asked for from this size on: below it they would only cost memory.
pub const HUGE_PAGE_LEN: usize = 2 << 20;

/// What the kernel gives and takes back at least.
const PAGE_LEN: usize = 4096;
/// From this size on a region is a mapping of its own.
const MAPPED_LEN_MIN: usize = 64 << 10;
/// A cache line: what the zone index relies on.
const HEAP_ALIGN: usize = 64;

//----------- Region ---------------------------------------------------------

/// Zeroed, page-aligned memory of a fixed length.
pub struct Region {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY:
// - A `Region` owns its mapping alone; shared access is only reading, as for `Box<[u8]>`.
unsafe impl Send for Region {}
// SAFETY:
// - As above: `&Region` gives out only `&[u8]`.
unsafe impl Sync for Region {}

impl Region {
    /// Maps `len` zeroed octets; pages become resident when they are first written.
    pub fn new(len: usize) -> io::Result<Region> {
        if len == 0 {
            return Ok(Region { start: NonNull::dangling(), len });
        }
        if len < MAPPED_LEN_MIN {
            // SAFETY:
            // - The layout has a size above zero.
            let start = unsafe { alloc::alloc_zeroed(heap_layout(len)) };
            let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
            return Ok(Region { start, len });
        }
        // SAFETY:
        // - A private anonymous mapping at an address of the kernel's choice aliases nothing.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        if len >= HUGE_PAGE_LEN {
            // SAFETY:
            // - The range is the mapping made above. The advice changes no contents, and a kernel
            //   without huge pages refuses it, which costs speed only: the result is not needed.
            unsafe { libc::madvise(start, len, libc::MADV_HUGEPAGE) };
        }
        Ok(Region { start: NonNull::new(start.cast()).expect("mmap gave no null"), len })
    }

    /// Gives the pages that lie wholly past `len` back to the kernel; they read as zero again.
    pub fn release_after(&mut self, len: usize) {
        self.release(len..self.len);
    }

    /// Has the kernel make the pages of `range` resident, as if they had been written; what is in
    /// them stays. Older kernels than 5.14 refuse.
    pub fn populate(&self, range: std::ops::Range<usize>) -> io::Result<()> {
        let end = range.end.min(self.len) / PAGE_LEN * PAGE_LEN;
        let start = range.start.next_multiple_of(PAGE_LEN).min(end);
        if start == end || self.len < MAPPED_LEN_MIN {
            return Ok(());
        }
        // SAFETY:
        // - The range is page aligned and inside this mapping; the advice changes no contents.
        let code = unsafe {
            let address = self.start.as_ptr().add(start).cast();
            libc::madvise(address, end - start, libc::MADV_POPULATE_WRITE)
        };
        if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Gives the 4 KiB pages wholly inside `range` back to the kernel; they read as zero again.
    pub fn release(&mut self, range: std::ops::Range<usize>) {
        let start = range.start.next_multiple_of(PAGE_LEN);
        let end = range.end.min(self.len) / PAGE_LEN * PAGE_LEN;
        if start < end && self.len >= MAPPED_LEN_MIN {
            // SAFETY:
            // - The range is page aligned and inside this mapping, which `&mut self` owns alone;
            //   dropped anonymous pages read as zero, a valid value of `u8`.
            unsafe {
                libc::madvise(
                    self.start.as_ptr().add(start).cast(),
                    end - start,
                    libc::MADV_DONTNEED,
                )
            };
        }
    }
}

fn heap_layout(len: usize) -> Layout {
    Layout::from_size_align(len, HEAP_ALIGN).expect("a small size and a power of two")
}

impl Deref for Region {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY:
        // - `start` is live memory of `len` initialised (zeroed) octets, or dangling with 0.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Region {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY:
        // - As for `deref`, and `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.len == 0 {
        } else if self.len < MAPPED_LEN_MIN {
            // SAFETY:
            // - `new` allocated it with this layout, and nothing borrows it.
            unsafe { alloc::dealloc(self.start.as_ptr(), heap_layout(self.len)) };
        } else {
            // SAFETY:
            // - The mapping was made by `new` with this address and length, and nothing borrows it.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
        }
    }
}

//----------- Shared ---------------------------------------------------------

/// A region with several owners, who only read it.
#[derive(Clone)]
pub struct Shared {
    /// The region's: nobody has to look into the count's cache line to read.
    start: NonNull<u8>,
    len: usize,
    region: Arc<Region>,
}

// SAFETY:
// - It is an `Arc<Region>`, which is both, and a copy of the region's address.
unsafe impl Send for Shared {}
// SAFETY:
// - As above: `&Shared` gives out only `&[u8]`.
unsafe impl Sync for Shared {}

impl Shared {
    /// The octets for writing, as long as there is one owner.
    pub fn get_mut(&mut self) -> Option<&mut [u8]> {
        Arc::get_mut(&mut self.region).map(|region| &mut **region)
    }
}

impl From<Region> for Shared {
    fn from(region: Region) -> Shared {
        Shared { start: region.start, len: region.len, region: Arc::new(region) }
    }
}

impl Deref for Shared {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY:
        // - The address and length are those of `region`, whose memory stays where it is until
        //   its last owner drops it; `get_mut` writes only while it has borrowed the one owner.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_zeroed_writable_and_releasable() {
        let mut region = Region::new(3 * HUGE_PAGE_LEN).unwrap();
        assert!(region.iter().step_by(4096).all(|&octet| octet == 0));
        region.fill(7);
        region.release_after(4097);
        assert_eq!((region[0], region[8191], region[8192]), (7, 7, 0));
        assert!(Region::new(0).unwrap().is_empty());
    }

    #[test]
    fn a_shared_region_is_written_by_its_only_owner() {
        let mut one: Shared = Region::new(100).unwrap().into();
        one.get_mut().unwrap()[99] = 7;
        let mut two = one.clone();
        assert!(one.get_mut().is_none() && two.get_mut().is_none());
        drop(one);
        assert_eq!(two[99], 7);
        assert!(two.get_mut().is_some());
    }
}
