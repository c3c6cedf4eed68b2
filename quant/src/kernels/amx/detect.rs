//! Is there a matrix unit, and may this process use it?
//!
//! (Intel's SDM, volume 1, chapter 18, "Programming with Intel AMX"; for Linux, its documentation of
//! "x86 XSTATE features": a process has to ask for the tiles' 8 KiB of state before it touches them.)

use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::sync::OnceLock;

/// Does the CPU multiply tiles of bf16, and does the system keep them for this process?
pub(in crate::kernels) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_instructions() && state_is_enabled() && may_use_tiles())
}

fn has_instructions() -> bool {
    /// CPUID 7.0, EDX: AMX-BF16 and AMX-TILE.
    const BITS: u32 = 1 << 22 | 1 << 24;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & BITS == BITS
}

/// Does the system save the tiles' configuration and data?
fn state_is_enabled() -> bool {
    /// CPUID 1, ECX: XGETBV may be used.
    const OSXSAVE: u32 = 1 << 27;
    /// XCR0: tile configuration and tile data.
    const TILES: u64 = 3 << 17;
    // SAFETY: where the system has enabled XSAVE, XGETBV of register 0 is there.
    __cpuid(1).ecx & OSXSAVE != 0 && unsafe { xcr0() } & TILES == TILES
}

/// # Safety
/// XSAVE is enabled.
#[target_feature(enable = "xsave")]
unsafe fn xcr0() -> u64 {
    // SAFETY: the caller's.
    unsafe { _xgetbv(0) }
}

/// Asks Linux for the tiles' state. (All threads of the process then have it.)
#[cfg(target_os = "linux")]
fn may_use_tiles() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XTILEDATA: i64 = 18;
    let result: i64;
    // SAFETY: a system call that reads and writes no memory of this process.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Elsewhere nothing is known of how to ask.
#[cfg(not(target_os = "linux"))]
fn may_use_tiles() -> bool {
    false
}
