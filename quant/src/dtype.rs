//! The tensor types a GGUF file may hold, as one table: every size question is answered here.

use std::fmt;

/// A tensor element type of the GGUF format that Lapidary reads.
///
/// Block types store `block_len` weights in `block_bytes` bytes; rows are whole blocks.
/// The numbers are those of `ggml_type` in the GGUF specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(non_camel_case_types)]
#[repr(u32)]
pub enum DType {
    /// IEEE single precision.
    F32 = 0,
    /// IEEE half precision.
    F16 = 1,
    /// 4 bits, symmetric, 32 weights a block.
    Q4_0 = 2,
    /// 4 bits with a minimum, 32 weights a block.
    Q4_1 = 3,
    /// 5 bits, symmetric, 32 weights a block.
    Q5_0 = 6,
    /// 5 bits with a minimum, 32 weights a block.
    Q5_1 = 7,
    /// 8 bits, symmetric, 32 weights a block.
    Q8_0 = 8,
    /// 2 bits, 256 weights in 16 sub-blocks with 4-bit scales and minimums.
    Q2_K = 10,
    /// 3 bits, 256 weights in 16 sub-blocks with 6-bit scales.
    Q3_K = 11,
    /// 4 bits, 256 weights in 8 sub-blocks with 6-bit scales and minimums.
    Q4_K = 12,
    /// 5 bits, 256 weights in 8 sub-blocks with 6-bit scales and minimums.
    Q5_K = 13,
    /// 6 bits, 256 weights in 16 sub-blocks with 8-bit scales.
    Q6_K = 14,
    /// 4 bits that stand for 16 uneven values, 32 weights a block.
    IQ4_NL = 20,
    /// The same values, 256 weights in 8 sub-blocks with 6-bit scales.
    IQ4_XS = 23,
    /// bfloat16.
    BF16 = 30,
}

/// One line of the table behind [`DType`].
struct Row {
    dtype: DType,
    name: &'static str,
    block_len: usize,
    block_bytes: usize,
}

const fn row(dtype: DType, name: &'static str, block_len: usize, block_bytes: usize) -> Row {
    Row { dtype, name, block_len, block_bytes }
}

const TABLE: [Row; 15] = [
    row(DType::F32, "f32", 1, 4),
    row(DType::F16, "f16", 1, 2),
    row(DType::BF16, "bf16", 1, 2),
    row(DType::Q4_0, "q4_0", 32, 18),
    row(DType::Q4_1, "q4_1", 32, 20),
    row(DType::Q5_0, "q5_0", 32, 22),
    row(DType::Q5_1, "q5_1", 32, 24),
    row(DType::Q8_0, "q8_0", 32, 34),
    row(DType::Q2_K, "q2_k", 256, 84),
    row(DType::Q3_K, "q3_k", 256, 110),
    row(DType::Q4_K, "q4_k", 256, 144),
    row(DType::Q5_K, "q5_k", 256, 176),
    row(DType::Q6_K, "q6_k", 256, 210),
    row(DType::IQ4_NL, "iq4_nl", 32, 18),
    row(DType::IQ4_XS, "iq4_xs", 256, 136),
];

/// `ggml_type` numbers that Lapidary does not read, with ggml's names.
const UNREAD: [(u32, &str); 16] = [
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
];

/// What to call a `ggml_type` that Lapidary does not read: `"IQ2_XXS (type 16)"`, or the number alone
/// where it has no name.
pub(crate) fn unread(id: u32) -> String {
    match UNREAD.iter().find(|(n, _)| *n == id) {
        Some((_, name)) => format!("{name} (type {id})"),
        None => id.to_string(),
    }
}

impl DType {
    /// Every type, floats first.
    pub const ALL: [DType; 15] = {
        let mut all = [DType::F32; 15];
        let mut i = 0;
        while i < TABLE.len() {
            all[i] = TABLE[i].dtype;
            i += 1;
        }
        all
    };

    fn row(self) -> &'static Row {
        TABLE.iter().find(|r| r.dtype == self).expect("every DType has a row")
    }

    /// The type with this `ggml_type` number, if Lapidary reads it.
    pub fn from_ggml(id: u32) -> Option<DType> {
        TABLE.iter().map(|r| r.dtype).find(|d| d.ggml() == id)
    }

    /// The type with this lower-case name (`"q4_0"`).
    pub fn from_name(name: &str) -> Option<DType> {
        TABLE.iter().find(|r| r.name == name).map(|r| r.dtype)
    }

    /// Its `ggml_type` number.
    pub fn ggml(self) -> u32 {
        self as u32
    }

    /// Lower-case name, as typed on the command line and shown in reports.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Weights in one block (1 for plain floats).
    pub fn block_len(self) -> usize {
        self.row().block_len
    }

    /// Bytes of one block.
    pub fn block_bytes(self) -> usize {
        self.row().block_bytes
    }

    /// Is this a plain float type (its kernels take f32 activations)?
    pub fn is_float(self) -> bool {
        self.block_len() == 1
    }

    /// Bytes of a row of `cols` weights; `None` when `cols` is not whole blocks or too large.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        let r = self.row();
        if !cols.is_multiple_of(r.block_len) {
            return None;
        }
        (cols / r.block_len).checked_mul(r.block_bytes)
    }

    /// Stored bits per weight (4.5 for Q4_0).
    pub fn bits_per_weight(self) -> f64 {
        let r = self.row();
        8.0 * r.block_bytes as f64 / r.block_len as f64
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_round_trips() {
        for d in DType::ALL {
            assert_eq!(DType::from_ggml(d.ggml()), Some(d));
            assert_eq!(DType::from_name(d.name()), Some(d));
        }
        assert_eq!(DType::from_ggml(4), None);
        assert!(UNREAD.iter().all(|(id, _)| DType::from_ggml(*id).is_none()));
        assert_eq!(DType::Q4_0.bits_per_weight(), 4.5);
        assert_eq!(DType::Q4_0.row_bytes(64), Some(36));
        assert_eq!(DType::Q4_0.row_bytes(65), None);
        assert_eq!(DType::F32.row_bytes(usize::MAX), None);
    }
}
