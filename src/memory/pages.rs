//! A growing array in memory of its own.
//!
//! Loading a zone needs arrays of tens of megabytes for a second. On the heap they would stay with
//! the allocator when they are freed, and grow by copying; here they grow by moving page tables
//! (`mremap`) and go back to the kernel whole.

use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

/// Octets of the first mapping.
const START_LEN: usize = 64 << 10;

//----------- Pages ----------------------------------------------------------

/// An array of plain values: [`Pages::push`] or read as a slice.
pub struct Pages<T: Copy> {
    start: NonNull<T>,
    len: usize,
    /// Octets mapped; 0 before the first push.
    mapped: usize,
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
        const { assert!(align_of::<T>() <= 4096 && size_of::<T>() > 0) }
        Pages { start: NonNull::dangling(), len: 0, mapped: 0, values: PhantomData }
    }
}

impl<T: Copy> Pages<T> {
    /// Appends `value`.
    #[inline]
    pub fn push(&mut self, value: T) -> io::Result<()> {
        if (self.len + 1) * size_of::<T>() > self.mapped {
            self.grow()?;
        }
        // SAFETY:
        // - The check above leaves room for one more value in the mapping, which is aligned to a
        //   page and owned by `self`.
        unsafe { self.start.as_ptr().add(self.len).write(value) };
        self.len += 1;
        Ok(())
    }

    #[cold]
    fn grow(&mut self) -> io::Result<()> {
        let mapped = (self.mapped * 2).max(START_LEN);
        // SAFETY:
        // - The first call makes a private anonymous mapping; later ones move the one that `self`
        //   owns, of exactly `self.mapped` octets. No slice of it is alive: `&mut self`.
        let start = unsafe {
            if self.mapped == 0 {
                libc::mmap(
                    ptr::null_mut(),
                    mapped,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                    -1,
                    0,
                )
            } else {
                libc::mremap(self.start.as_ptr().cast(), self.mapped, mapped, libc::MREMAP_MAYMOVE)
            }
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        self.start = NonNull::new(start.cast()).expect("mmap gave no null");
        self.mapped = mapped;
        Ok(())
    }
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
        if self.mapped > 0 {
            // SAFETY:
            // - The mapping was made by `grow` with this length, and nothing borrows it.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.mapped) };
        }
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
