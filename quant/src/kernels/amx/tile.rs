//! The matrix unit's part: up to 32 tokens × 32 weight rows, in tile registers from the first step to the
//! last.
//!
//! A step is 32 columns. Tile registers 0 to 3 hold the sums `[tokens][rows]` of two lots of 16 tokens with
//! two strips of 16 rows; 4 and 5 the tokens' `[16][32]` activations, 6 and 7 the strips' `[16][16][2]`
//! weights. Each load serves two products, so that a step's four loads take half of the time of its four
//! products (64 cycles) where both come from the first-level cache.

use std::arch::asm;

/// Rows of a strip, and tokens of a tile.
pub(super) const SIDE: usize = 16;
/// Bytes of a token, and of a pair of columns of a strip, in a step.
pub(super) const LINE: usize = 64;
/// Bytes of a step of a strip.
pub(super) const STRIP_STEP: usize = SIDE * LINE;

/// What LDTILECFG reads: the rows of each tile register and the bytes of each of its rows.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// A lot of up to 16 tokens.
#[derive(Clone, Copy)]
pub(super) struct Lot {
    /// Their activations, `[steps][tokens][32]`.
    pub(super) pack: *const u8,
    /// Tokens that there are: up to 16.
    pub(super) tokens: usize,
    /// The first token's result of the first row.
    pub(super) y: *mut f32,
}

/// One call of the kernel.
#[derive(Clone, Copy)]
pub(super) struct Call {
    /// The second may have no tokens.
    pub(super) lots: [Lot; 2],
    /// The strips' weights, `[steps][strips][16][16][2]`.
    pub(super) panel: *const u8,
    /// Rows of each strip that there are; the second, if it has none, is not in the panel.
    pub(super) rows: [usize; 2],
    /// At least one.
    pub(super) steps: usize,
    /// Floats from one token's results to the next's.
    pub(super) ld: usize,
    /// Are results to be added to?
    pub(super) add: bool,
}

impl Config {
    fn new(tokens: [usize; 2], rows: [usize; 2]) -> Self {
        let mut config = Config {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        for (i, &tokens) in tokens.iter().enumerate() {
            for (j, &rows) in rows.iter().enumerate().filter(|(_, rows)| **rows > 0 && tokens > 0) {
                let of =
                    [(2 * i + j, tokens, rows * 4), (4 + i, tokens, LINE), (6 + j, SIDE, rows * 4)];
                for (register, rows, bytes) in of {
                    config.rows[register] = rows as u8;
                    config.row_bytes[register] = bytes as u16;
                }
            }
        }
        config
    }
}

/// Declares the kernel for so many lots and strips: the bytes of a step of the panel, the sums and where they
/// go, and what is loaded and multiplied in a step.
macro_rules! kernel {
    ($name:ident, $step_bytes:expr, [$(($sum:literal, $y:literal)),+], [$($step:literal),+]) => {
        /// # Safety
        /// The CPU has the matrix unit, and the process leave to use it; `call` is what its documentation
        /// says, with as many lots and strips, and the tile registers are laid out for them.
        unsafe fn $name(call: &Call) {
            let first = call.lots[0];
            let second = if call.lots[1].tokens > 0 { call.lots[1] } else { first };
            // SAFETY: it reads the steps of the panel and of the packs, reads and writes results as the
            // caller allows, and is done with the tile registers at its end.
            unsafe {
                asm!(
                    "test {add:e}, {add:e}",
                    "jz 2f",
                    $(concat!("tileloadd ", $sum, ", [", $y, "]"),)+
                    "jmp 3f",
                    "2:",
                    $(concat!("tilezero ", $sum),)+
                    "3:",
                    $($step,)+
                    "add {a0}, {a0_step}",
                    "add {a1}, {a1_step}",
                    "add {b}, {b_step}",
                    "dec {steps}",
                    "jnz 3b",
                    $(concat!("tilestored [", $y, "], ", $sum),)+
                    "/* {y1} */",
                    add = in(reg) u32::from(call.add),
                    a0 = inout(reg) first.pack => _,
                    a0_step = in(reg) first.tokens * LINE,
                    a1 = inout(reg) second.pack => _,
                    a1_step = in(reg) second.tokens * LINE,
                    b = inout(reg) call.panel => _,
                    b_step = const $step_bytes,
                    steps = inout(reg) call.steps => _,
                    line = in(reg) LINE,
                    ld = in(reg) call.ld * 4,
                    y0 = in(reg) first.y,
                    y1 = in(reg) second.y,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

kernel!(
    one_one,
    STRIP_STEP,
    [("tmm0", "{y0} + {ld}")],
    [
        "tileloadd tmm4, [{a0} + {line}]",
        "tileloadd tmm6, [{b} + {line}]",
        "tdpbf16ps tmm0, tmm4, tmm6"
    ]
);
kernel!(
    one_two,
    2 * STRIP_STEP,
    [("tmm0", "{y0} + {ld}"), ("tmm1", "{y0} + {ld} + 64")],
    [
        "tileloadd tmm4, [{a0} + {line}]",
        "tileloadd tmm6, [{b} + {line}]",
        "tdpbf16ps tmm0, tmm4, tmm6",
        "tileloadd tmm7, [{b} + {line} + 1024]",
        "tdpbf16ps tmm1, tmm4, tmm7"
    ]
);
kernel!(
    two_one,
    STRIP_STEP,
    [("tmm0", "{y0} + {ld}"), ("tmm2", "{y1} + {ld}")],
    [
        "tileloadd tmm4, [{a0} + {line}]",
        "tileloadd tmm6, [{b} + {line}]",
        "tdpbf16ps tmm0, tmm4, tmm6",
        "tileloadd tmm5, [{a1} + {line}]",
        "tdpbf16ps tmm2, tmm5, tmm6"
    ]
);
kernel!(
    two_two,
    2 * STRIP_STEP,
    [
        ("tmm0", "{y0} + {ld}"),
        ("tmm1", "{y0} + {ld} + 64"),
        ("tmm2", "{y1} + {ld}"),
        ("tmm3", "{y1} + {ld} + 64")
    ],
    [
        "tileloadd tmm4, [{a0} + {line}]",
        "tileloadd tmm6, [{b} + {line}]",
        "tdpbf16ps tmm0, tmm4, tmm6",
        "tileloadd tmm7, [{b} + {line} + 1024]",
        "tdpbf16ps tmm1, tmm4, tmm7",
        "tileloadd tmm5, [{a1} + {line}]",
        "tdpbf16ps tmm2, tmm5, tmm6",
        "tdpbf16ps tmm3, tmm5, tmm7"
    ]
);

/// Lays the tile registers out for lots of so many tokens and strips of so many rows.
///
/// # Safety
/// The CPU has the matrix unit, and the process leave to use it.
pub(super) unsafe fn configure(tokens: [usize; 2], rows: [usize; 2]) {
    let config = Config::new(tokens, rows);
    // SAFETY: it reads the 64 bytes of `config`, and nothing is in the tile registers between two calls.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, readonly)) };
}

/// Multiplies.
///
/// # Safety
/// The CPU has the matrix unit, and the process leave to use it; the call is what its documentation says, and
/// the last [`configure`] was for it.
pub(super) unsafe fn multiply(call: &Call) {
    // SAFETY: passed on.
    unsafe {
        match (call.lots[1].tokens > 0, call.rows[1] > 0) {
            (false, false) => one_one(call),
            (false, true) => one_two(call),
            (true, false) => two_one(call),
            (true, true) => two_two(call),
        }
    }
}

/// Products of whole tiles, back to back on registers; returns the number of operations.
///
/// # Safety
/// As for [`multiply`].
pub(super) unsafe fn peak() -> f64 {
    const LOOPS: usize = 20_000;
    let config = Config::new([SIDE; 2], [SIDE; 2]);
    // SAFETY: nothing but the tile registers is read and written.
    unsafe {
        asm!(
            "ldtilecfg [{config}]",
            "2:",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "dec {loops}",
            "jnz 2b",
            "tilerelease",
            config = in(reg) &config,
            loops = inout(reg) LOOPS => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
    (LOOPS * 4 * 2 * SIDE * SIDE * 32) as f64
}

/// Gives the tile registers back, so that the system no longer saves them.
///
/// # Safety
/// The CPU has the matrix unit, and the process leave to use it.
pub(super) unsafe fn release() {
    // SAFETY: nothing is in the tile registers between two calls of the kernel.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}
