//! Products whose operand is a broadcast from memory.
//!
//! Such a product is one instruction in the machine's books, as one of registers is; a broadcast that two
//! products share is one more. Beside a busy neighbour on the core's other hardware thread, which leaves room
//! for three instructions a cycle, sharing costs an eighth of the time of 24 products
//! (quant/benches/NOTES.md); where there is no neighbour, it saves nothing. Compilers share, and may make two
//! instructions of a `vpdpwssd`, hence assembly.

use std::arch::asm;
use std::arch::x86_64::__m512i;

macro_rules! products {
    ($(#[$doc:meta])* $name:ident, $instruction:literal) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// AVX-512 with VNNI; 32 bits can be read at `x + AT`.
        #[inline]
        #[target_feature(enable = "avx512f,avx512vnni")]
        pub(super) unsafe fn $name<const AT: usize>(
            sums: [__m512i; 2],
            w: [__m512i; 2],
            x: *const u8,
        ) -> [__m512i; 2] {
            let [mut lo, mut hi] = sums;
            // SAFETY: it reads what the caller says is there, and writes nothing but the sums.
            unsafe {
                asm!(
                    concat!($instruction, " {lo}, {w0}, dword ptr [{x} + {at}]{{1to16}}"),
                    concat!($instruction, " {hi}, {w1}, dword ptr [{x} + {at}]{{1to16}}"),
                    lo = inout(zmm_reg) lo,
                    hi = inout(zmm_reg) hi,
                    w0 = in(zmm_reg) w[0],
                    w1 = in(zmm_reg) w[1],
                    x = in(reg) x,
                    at = const AT,
                    options(pure, readonly, nostack, preserves_flags),
                );
            }
            [lo, hi]
        }
    };
}

products! {
    /// Adds the products of `w` and the four signed bytes at `x + AT`, of which `w` has unsigned ones.
    bytes, "vpdpbusd"
}
products! {
    /// Adds the products of `w` and the two 16-bit words at `x + AT`.
    words, "vpdpwssd"
}

/// Evaluates an expression for each of a tile's 12 rows, whose number is a constant. `$rows` is how many the
/// tile has.
macro_rules! each_of_12 {
    ($rows:expr, $t:ident, $body:expr) => {
        const { assert!($rows == 12) };
        each_of_12!(@ $t, $body, 0 1 2 3 4 5 6 7 8 9 10 11)
    };
    (@ $t:ident, $body:expr, $($n:literal)*) => {
        $({
            const $t: usize = $n;
            $body
        })*
    };
}
pub(super) use each_of_12;
