//! A growing array in memory of its own.
//!
//! Loading a zone needs arrays of tens of megabytes for a second. On the heap they would stay with
//! the allocator when they are freed, and grow by copying; here they grow by moving page tables
//! (`mremap`) and go back to the kernel whole. Small ones stay on the heap: ten thousand small
//! zones would otherwise spend their time in the kernel, mapping and unmapping.

use std::alloc::{self, Layout};
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

/// Octets of the first block.
const START_LEN: usize = 4 << 10;
/// From this size on the array is a mapping of its own, below it a block of the heap.
const MAPPED_LEN_MIN: usize = 64 << 10;
const HEAP_ALIGN: usize = 64;

//----------- Pages ----------------------------------------------------------

/// An array of plain values: [`Pages::push`] or read as a slice.
pub struct Pages<T: Copy> {
    start: NonNull<T>,
    len: usize,
    /// Octets held; 0 before the first push.
    held: usize,
    values: PhantomData<T>,
}

// SAFETY:
// - A `Pages` owns its mapping alone, as a `Vec` its block.
unsafe impl<T: Copy + Send> Send for Pages<T> {}
// SAFETY:
// - `&Pages` gives out only `&[T]`.
unsafe impl<T: Copy + Sync> Sync for Pages<T> {}

impl<T: Copy> Default for Pages<T> {
    fn default() -> Pages<T> {
        const { assert!(align_of::<T>() <= HEAP_ALIGN && size_of::<T>() > 0) }
        const { assert!(size_of::<T>() <= START_LEN) }
        Pages { start: NonNull::dangling(), len: 0, held: 0, values: PhantomData }
    }
}

impl<T: Copy> Pages<T> {
    /// Appends `value`.
    #[inline]
    pub fn push(&mut self, value: T) -> io::Result<()> {
        if (self.len + 1) * size_of::<T>() > self.held {
            self.grow()?;
        }
        // SAFETY:
        // - The check above leaves room for one more value in the block, which is aligned for it
        //   and owned by `self`.
        unsafe { self.start.as_ptr().add(self.len).write(value) };
        self.len += 1;
        Ok(())
    }

    #[cold]
    fn grow(&mut self) -> io::Result<()> {
        let held = (self.held * 2).max(START_LEN);
        let start = if self.held >= MAPPED_LEN_MIN {
            // SAFETY:
            // - The mapping that `self` owns has exactly `self.held` octets, and no slice of it is
            //   alive: `&mut self`.
            unsafe {
                libc::mremap(self.start.as_ptr().cast(), self.held, held, libc::MREMAP_MAYMOVE)
            }
        } else if held >= MAPPED_LEN_MIN {
            // SAFETY:
            // - A private anonymous mapping at an address of the kernel's choice aliases nothing.
            unsafe {
                libc::mmap(
                    ptr::null_mut(),
                    held,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                    -1,
                    0,
                )
            }
        } else {
            // SAFETY:
            // - The layout has a size above zero.
            unsafe { alloc::alloc(heap_layout(held)).cast() }
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast::<T>()).ok_or(io::ErrorKind::OutOfMemory)?;
        if self.held < MAPPED_LEN_MIN {
            // SAFETY:
            // - Both blocks hold `len` values at least, and are not the same: this one is new.
            unsafe { ptr::copy_nonoverlapping(self.start.as_ptr(), start.as_ptr(), self.len) };
            self.release();
        }
        self.start = start;
        self.held = held;
        Ok(())
    }

    /// Gives the block back.
    fn release(&mut self) {
        if self.held >= MAPPED_LEN_MIN {
            // SAFETY:
            // - The mapping was made by `grow` with this length, and nothing borrows it.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.held) };
        } else if self.held > 0 {
            // SAFETY:
            // - `grow` allocated the block with this layout, and nothing borrows it.
            unsafe { alloc::dealloc(self.start.as_ptr().cast(), heap_layout(self.held)) };
        }
        self.held = 0;
    }
}

fn heap_layout(len: usize) -> Layout {
    Layout::from_size_align(len, HEAP_ALIGN).expect("a small size and a power of two")
}

impl<T: Copy> Deref for Pages<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY:
        // - The first `len` values were written by `push`; with 0 the pointer may dangle.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Copy> DerefMut for Pages<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY:
        // - As for `deref`, and `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T: Copy> Drop for Pages<T> {
    fn drop(&mut self) {
        self.release();
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_growth() {
        let mut pages = Pages::default();
        assert!(pages.is_empty());
        for i in 0..100_000u64 {
            pages.push((i, !i)).unwrap();
        }
        assert!(pages.iter().zip(0..).all(|(&(a, b), i)| a == i && b == !i));
        pages.sort_unstable_by_key(|&(_, b)| b);
        assert_eq!(pages[0], (99_999, !99_999));
    }
}
