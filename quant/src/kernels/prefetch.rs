//! Asking for memory ahead of its use, on any architecture. Nothing is read: any address will do.

/// How far ahead of its use memory is asked for where one stream runs through all of the weights, in
/// bytes. Two pages: what fetches lines by itself stops at the end of a page, and the translation of
/// the next one takes as long as the line (measured: 18-20 GB/s with 512 bytes on one core, 22-25 with
/// 8192, where plain reading gives 25).
const STREAM_AHEAD: usize = 8192;
/// The same for each of several streams. What all of them ask for has to stay in the first-level cache until it
/// is read (benches/README.md has 512 to 8192).
const STREAMS_AHEAD: usize = 2048;

/// Asks for `bytes` bytes of one of `N` streams, which is now at `p`: of one, [`STREAM_AHEAD`] further on, into the
/// second-level cache, from where the first level gets its lines in time by itself; of several,
/// [`STREAMS_AHEAD`] further on, into the first.
#[inline(always)]
pub(super) fn prefetch_stream<const N: usize>(p: *const u8, bytes: usize) {
    for line in 0..bytes.div_ceil(64) {
        if N == 1 {
            prefetch_l2(p.wrapping_add(STREAM_AHEAD + 64 * line));
        } else {
            prefetch(p.wrapping_add(STREAMS_AHEAD + 64 * line));
        }
    }
}

/// Asks for the line at `p`, into the first-level cache.
#[inline(always)]
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
#[inline(always)]
pub(super) fn prefetch_l2<T>(p: *const T) {
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

/// Asks for the line at `p` in order to write to it.
#[inline(always)]
fn prefetch_write<T>(p: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: prefetching reads nothing, whatever the address; CPUs without the instruction do nothing.
    unsafe {
        // The intrinsic becomes an ordinary prefetch where its feature is not enabled.
        std::arch::asm!("prefetchw [{p}]", p = in(reg) p, options(nostack, readonly, preserves_flags));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: prefetching reads nothing, whatever the address.
    unsafe {
        std::arch::asm!("prfm pstl1keep, [{p}]", p = in(reg) p, options(nostack, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = p;
}

/// Asks for all the lines of a slice in order to write to them.
#[inline]
pub(super) fn prefetch_slice_write<T>(s: &[T]) {
    for line in 0..size_of_val(s).div_ceil(64) {
        prefetch_write(s.as_ptr().wrapping_byte_add(64 * line));
    }
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
