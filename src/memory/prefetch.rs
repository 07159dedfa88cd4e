//! One instruction: ask for a cache line now, read it later.

/// Asks the core to bring the cache line at `index` of `bytes` near. Out of bounds is a no-op.
///
/// A batch prefetches for all of its queries before it reads for the first: that turns 64
/// dependent memory latencies into one.
#[inline(always)]
pub fn prefetch<T>(bytes: &[T], index: usize) {
    if index < bytes.len() {
        prefetch_address(bytes.as_ptr().wrapping_add(index).cast());
    }
}

/// Asks for the cache line at an address, which need not be one of anything.
#[inline(always)]
pub fn prefetch_address(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY:
    // - A prefetch never faults and changes no architectural state, whatever the address.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY:
    // - PRFM is a hint: it never faults and changes no architectural state.
    unsafe {
        core::arch::asm!("prfm pldl1keep, [{0}]", in(reg) address, options(nostack, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}
