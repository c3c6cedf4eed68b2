//! A file's rows as the device wants them: 16-byte pieces, and a plane of scales.

use bytemuck::cast_slice;
use half::f16;
use quant::DType;
use quant::codec::{
    BlockIQ4NL, BlockIQ4XS, BlockQ3K, BlockQ4_0, BlockQ4K, BlockQ5_0, BlockQ5K, BlockQ6K,
    BlockQ8_0, IQ4_VALUES, KScales, QK, QK_K, decode_row,
};
use shaders::{COLS_PAD, Format};

use crate::weights::WeightMatrix;

/// How a type lies on the device: as it is, in a wider form that loses nothing (the integers of Q5_0 and
/// IQ4_NL fit Q8_0's, those of Q3_K, Q5_K, Q6_K and IQ4_XS fit bytes), or decoded to f16. Q2_K has a minimum
/// every 16 weights, where the form in bytes has one every 32.
pub(super) fn format_of(dtype: DType) -> Format {
    match dtype {
        DType::F32 => Format::F32,
        DType::F16 => Format::F16,
        DType::BF16 => Format::Bf16,
        DType::Q4_0 => Format::Q4_0,
        DType::Q8_0 | DType::Q5_0 | DType::IQ4_NL => Format::Q8_0,
        DType::Q4_K => Format::Q4K,
        DType::Q3_K | DType::Q5_K | DType::Q6_K | DType::IQ4_XS => Format::KBytes,
        DType::Q4_1 | DType::Q5_1 | DType::Q2_K => Format::F16,
    }
}

/// The form of matrices that lie together: the common one, else one that holds all of them.
pub(super) fn common_format(matrices: &[&WeightMatrix]) -> Format {
    let formats: Vec<_> = matrices.iter().map(|m| format_of(m.dtype)).collect();
    let first = formats[0];
    if formats.iter().all(|f| *f == first) {
        first
    } else if formats.iter().all(|f| f.symmetric()) {
        Format::Q8_0
    } else if formats.iter().all(|f| f.is_k()) {
        Format::KBytes
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

    /// 16-bit words of scales ([`Format::scales`]).
    pub(super) fn scales(self) -> usize {
        self.format.scales(self.cols.next_multiple_of(COLS_PAD))
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
            Format::Q4K => largest_of_k(scales, self.format, 15.0),
            // Of all types that lie so: the integers that there are.
            Format::KBytes => {
                let most = pieces.iter().map(|&q| (q as i8).unsigned_abs()).max().unwrap_or(0);
                largest_of_k(scales, self.format, f32::from(most))
            }
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
            (DType::IQ4_NL, Format::Q8_0) => {
                for (i, b) in cast_slice::<u8, BlockIQ4NL>(row).iter().enumerate() {
                    iq4(&b.qs, &mut pieces[i * QK..][..QK]);
                    scales[i] = u16::from_le_bytes(b.d);
                }
            }
            (DType::IQ4_XS, Format::KBytes) => {
                for (k, b) in cast_slice::<u8, BlockIQ4XS>(row).iter().enumerate() {
                    let pieces = &mut pieces[k * QK_K..][..QK_K];
                    for (qs, out) in b.qs.chunks_exact(QK / 2).zip(pieces.chunks_exact_mut(QK)) {
                        iq4(qs, out);
                    }
                    let of = b.scales();
                    let pair = |piece: usize| u16::from_le_bytes([of[piece / 2] as u8, 0]);
                    scales_of_k(&mut scales[k * 18..][..18], b.d, [0; 2], pair);
                }
            }
            (DType::Q3_K, Format::KBytes) => {
                for (k, b) in cast_slice::<u8, BlockQ3K>(row).iter().enumerate() {
                    for (i, out) in pieces[k * QK_K..][..QK_K].iter_mut().enumerate() {
                        *out = b.quant(i) as u8;
                    }
                    let of = b.scales.unpack();
                    let pair = |s: usize| u16::from_le_bytes([of[s] as u8, 0]);
                    scales_of_k(&mut scales[k * 18..][..18], b.d, [0; 2], pair);
                }
            }
            (DType::Q4_K, Format::Q4K) => {
                for (k, b) in cast_slice::<u8, BlockQ4K>(row).iter().enumerate() {
                    for (s, out) in pieces[k * 128..][..128].chunks_exact_mut(16).enumerate() {
                        for (j, out) in out.iter_mut().enumerate() {
                            *out = b.quant(s * QK + j) | b.quant(s * QK + j + 16) << 4;
                        }
                    }
                    let (of, mins) = b.scales.unpack();
                    let pair = |s: usize| u16::from_le_bytes([of[s], mins[s]]);
                    scales_of_k(&mut scales[k * 10..][..10], b.d, b.dmin, pair);
                }
            }
            (DType::Q4_K, Format::KBytes) => {
                for (k, b) in cast_slice::<u8, BlockQ4K>(row).iter().enumerate() {
                    for (i, out) in pieces[k * QK_K..][..QK_K].iter_mut().enumerate() {
                        *out = b.quant(i);
                    }
                    let scales = &mut scales[k * 18..][..18];
                    scales_of_k(scales, b.d, b.dmin, pairs_of_32(&b.scales));
                }
            }
            (DType::Q5_K, Format::KBytes) => {
                for (k, b) in cast_slice::<u8, BlockQ5K>(row).iter().enumerate() {
                    for (i, out) in pieces[k * QK_K..][..QK_K].iter_mut().enumerate() {
                        *out = b.quant(i);
                    }
                    let scales = &mut scales[k * 18..][..18];
                    scales_of_k(scales, b.d, b.dmin, pairs_of_32(&b.scales));
                }
            }
            (DType::Q6_K, Format::KBytes) => {
                for (k, b) in cast_slice::<u8, BlockQ6K>(row).iter().enumerate() {
                    for (i, out) in pieces[k * QK_K..][..QK_K].iter_mut().enumerate() {
                        *out = b.quant(i) as u8;
                    }
                    let pair = |s: usize| u16::from_le_bytes([b.scales[s] as u8, 0]);
                    scales_of_k(&mut scales[k * 18..][..18], b.d, [0; 2], pair);
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

/// The values of a block's nibbles, of IQ4_NL or IQ4_XS.
fn iq4(qs: &[u8], out: &mut [u8]) {
    for (j, q) in qs.iter().enumerate() {
        out[j] = IQ4_VALUES[usize::from(q & 15)] as u8;
        out[j + 16] = IQ4_VALUES[usize::from(q >> 4)] as u8;
    }
}

/// The scales of 256 weights: the factors of scales and of minimums, which are taken off in the file and added here, and
/// for each piece a scale and a minimum.
fn scales_of_k(out: &mut [u16], d: [u8; 2], dmin: [u8; 2], pair: impl Fn(usize) -> u16) {
    out[0] = u16::from_le_bytes(d);
    out[1] = u16::from_le_bytes(dmin) ^ 0x8000;
    for (s, out) in out[2..].iter_mut().enumerate() {
        *out = pair(s);
    }
}

/// Scales and minimums of 32 weights, for pieces of 16.
fn pairs_of_32(packed: &KScales) -> impl Fn(usize) -> u16 {
    let (scales, mins) = packed.unpack();
    move |piece| u16::from_le_bytes([scales[piece / 2], mins[piece / 2]])
}

/// How large the largest weight is that these scales allow, where the largest integer is `most`.
fn largest_of_k(scales: &[u16], format: Format, most: f32) -> f32 {
    let of_256 = |scales: &[u16]| {
        let [d, dmin] = [0, 1].map(|i| f16::from_bits(scales[i]).to_f32());
        let piece = |pair: &u16| {
            let [scale, min] = pair.to_le_bytes().map(|b| f32::from(b as i8));
            (d * scale * most + dmin * min).abs().max((dmin * min).abs())
        };
        scales[2..].iter().map(piece).fold(0.0, f32::max)
    };
    scales.chunks_exact(format.scales(QK_K)).map(of_256).fold(0.0, f32::max)
}
