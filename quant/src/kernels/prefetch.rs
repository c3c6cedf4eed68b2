//! Asking for memory ahead of its use, on any architecture. Nothing is read: any address will do.

/// Asks for the line at `p`, into the first-level cache.
#[inline]
pub(super) fn prefetch<T>(p: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: prefetching reads nothing, whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(p.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: prefetching reads nothing, whatever the address.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{p}]", p = in(reg) p, options(nostack, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = p;
}

/// Asks for the line at `p`, into the second-level cache.
#[inline]
fn prefetch_l2<T>(p: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: prefetching reads nothing, whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(p.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: prefetching reads nothing, whatever the address.
    unsafe {
        std::arch::asm!("prfm pldl2keep, [{p}]", p = in(reg) p, options(nostack, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = p;
}

/// Asks for all the lines of a slice, into the first-level cache.
pub(super) fn prefetch_slice<T>(s: &[T]) {
    for line in 0..size_of_val(s).div_ceil(64) {
        prefetch(s.as_ptr().wrapping_byte_add(64 * line));
    }
}

/// Asks for all the lines of a slice, into the second-level cache.
pub(super) fn prefetch_slice_l2<T>(s: &[T]) {
    for line in 0..size_of_val(s).div_ceil(64) {
        prefetch_l2(s.as_ptr().wrapping_byte_add(64 * line));
    }
}
