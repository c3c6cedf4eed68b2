//! A file's rows as the device wants them: 16-byte pieces, and a plane of scales.

use bytemuck::cast_slice;
use half::f16;
use quant::DType;
use quant::codec::{BlockQ4_0, BlockQ5_0, BlockQ8_0, QK, decode_row};
use shaders::{COLS_PAD, Format};

use crate::weights::WeightMatrix;

/// How a type lies on the device: as it is, in a wider form that loses nothing (Q5_0's integers fit
/// Q8_0's), or decoded to f16.
pub(super) fn format_of(dtype: DType) -> Format {
    match dtype {
        DType::F32 => Format::F32,
        DType::F16 => Format::F16,
        DType::BF16 => Format::Bf16,
        DType::Q4_0 => Format::Q4_0,
        DType::Q8_0 | DType::Q5_0 => Format::Q8_0,
        DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K | DType::Q6_K => Format::F16,
    }
}

/// The form of matrices that lie together: the common one, else one that holds all of them.
pub(super) fn common_format(matrices: &[&WeightMatrix]) -> Format {
    let formats: Vec<_> = matrices.iter().map(|m| format_of(m.dtype)).collect();
    let first = formats[0];
    if formats.iter().all(|f| *f == first) {
        first
    } else if formats.iter().all(|f| f.scaled()) {
        Format::Q8_0
    } else if formats.iter().any(|f| matches!(f, Format::F32 | Format::Bf16)) {
        Format::F32
    } else {
        Format::F16
    }
}

/// Sizes of a row of `cols` weights on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowLayout {
    pub(super) format: Format,
    pub(super) cols: usize,
}

impl RowLayout {
    /// 16-byte pieces, padding included.
    pub(super) fn pieces(self) -> usize {
        self.cols.next_multiple_of(COLS_PAD) / self.format.piece()
    }

    /// Bytes of the pieces.
    pub(super) fn bytes(self) -> usize {
        self.pieces() * 16
    }

    /// f16 scales.
    pub(super) fn scales(self) -> usize {
        if self.format.scaled() { self.cols.next_multiple_of(COLS_PAD) / QK } else { 0 }
    }

    /// How large the largest weight of these planes is; of blocks, how large their scales allow it
    /// to be. 0 for f32, which nobody asks about.
    pub(super) fn largest(self, pieces: &[u8], scales: &[u16]) -> f32 {
        // Without their signs, finite floats are ordered as their bits are.
        let most = |bits: &[u16]| bits.iter().map(|b| b & 0x7fff).max().unwrap_or(0);
        match self.format {
            Format::F32 => 0.0,
            Format::F16 => f16::from_bits(most(cast_slice(pieces))).to_f32(),
            Format::Bf16 => half::bf16::from_bits(most(cast_slice(pieces))).to_f32(),
            Format::Q4_0 => 8.0 * f16::from_bits(most(scales)).to_f32(),
            Format::Q8_0 => 128.0 * f16::from_bits(most(scales)).to_f32(),
        }
    }

    /// Lays one row of a file out: `pieces` is zeroed and [`RowLayout::bytes`] long, `scales`
    /// [`RowLayout::scales`].
    pub(super) fn split(self, dtype: DType, row: &[u8], pieces: &mut [u8], scales: &mut [u16]) {
        match (dtype, self.format) {
            (DType::Q4_0, Format::Q4_0) => {
                for (i, b) in cast_slice::<u8, BlockQ4_0>(row).iter().enumerate() {
                    pieces[i * 16..][..16].copy_from_slice(&b.qs);
                    scales[i] = u16::from_le_bytes(b.d);
                }
            }
            (DType::Q8_0, Format::Q8_0) => {
                for (i, b) in cast_slice::<u8, BlockQ8_0>(row).iter().enumerate() {
                    pieces[i * 32..][..32].copy_from_slice(cast_slice(&b.qs));
                    scales[i] = u16::from_le_bytes(b.d);
                }
            }
            (DType::Q4_0, Format::Q8_0) => {
                for (i, b) in cast_slice::<u8, BlockQ4_0>(row).iter().enumerate() {
                    let out = &mut pieces[i * 32..][..32];
                    for (j, q) in b.qs.iter().enumerate() {
                        out[j] = (q & 15).wrapping_sub(8);
                        out[j + 16] = (q >> 4).wrapping_sub(8);
                    }
                    scales[i] = u16::from_le_bytes(b.d);
                }
            }
            (DType::Q5_0, Format::Q8_0) => {
                for (i, b) in cast_slice::<u8, BlockQ5_0>(row).iter().enumerate() {
                    let (out, high) = (&mut pieces[i * 32..][..32], u32::from_le_bytes(b.qh));
                    let fifth = |j: usize| ((high >> j & 1) << 4) as u8;
                    for (j, q) in b.qs.iter().enumerate() {
                        out[j] = (q & 15 | fifth(j)).wrapping_sub(16);
                        out[j + 16] = (q >> 4 | fifth(j + 16)).wrapping_sub(16);
                    }
                    scales[i] = u16::from_le_bytes(b.d);
                }
            }
            (DType::F32, Format::F32) | (DType::F16, Format::F16) | (DType::BF16, Format::Bf16) => {
                pieces[..row.len()].copy_from_slice(row)
            }
            (_, format) => {
                let mut decoded = vec![0.0; self.cols];
                decode_row(dtype, row, &mut decoded);
                if format == Format::F32 {
                    pieces[..self.cols * 4].copy_from_slice(cast_slice(&decoded));
                } else {
                    for (to, v) in pieces.chunks_exact_mut(2).zip(decoded) {
                        to.copy_from_slice(&f16::from_f32(v).to_le_bytes());
                    }
                }
            }
        }
    }
}
