//! Encoding, and decoding of floats, at the speed of memory and to the same bits as the scalar
//! oracle in this module: what converting a checkpoint is made of.
//!
//! The loops are plain Rust over fixed-size arrays, written so that the compiler vectorizes them:
//! the same source is compiled once for the baseline and once for each wider instruction set.
//! Blocks that need care (a tie for the largest magnitude, a scale too small to invert) go to the
//! oracle itself.

use super::{BlockQ4_0, BlockQ8_0, QK, decode_row, encode_row};
use crate::DType;
use half::f16;
use half::slice::HalfFloatSliceExt;

/// Encodes and decodes rows with the widest instructions that this CPU has. Holding one is the
/// proof that the CPU has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FastCodec(Isa);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Isa {
    /// What the target guarantees.
    Baseline,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl FastCodec {
    /// The fastest that this CPU runs.
    pub fn detect() -> Self {
        Self::available().pop().expect("the baseline is always there")
    }

    /// All that this CPU runs, slowest first: a test forces each one.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut all = vec![FastCodec(Isa::Baseline)];
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx2") {
                all.push(FastCodec(Isa::Avx2));
            }
            if std::arch::is_x86_feature_detected!("avx512f")
                && std::arch::is_x86_feature_detected!("avx512bw")
                && std::arch::is_x86_feature_detected!("avx512vl")
            {
                all.push(FastCodec(Isa::Avx512));
            }
        }
        all
    }

    /// As [`encode_row`], faster. `x` may be several rows at once, each whole blocks.
    ///
    /// # Panics
    /// When `out` is not exactly as long as `dtype.row_bytes(x.len())`, or `dtype` is read-only.
    pub fn encode(self, dtype: DType, x: &[f32], out: &mut [u8]) {
        assert_eq!(dtype.row_bytes(x.len()), Some(out.len()), "{} weights of {dtype}", x.len());
        match self.0 {
            Isa::Baseline => encode(dtype, x, out),
            // SAFETY: `detect` and `available`, the only makers, saw that the CPU has AVX2.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { encode_avx2(dtype, x, out) },
            // SAFETY: likewise for AVX-512 F, BW and VL.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { encode_avx512(dtype, x, out) },
        }
    }

    /// As [`decode_row`], faster for bf16 and f16. `bytes` may be several rows at once.
    ///
    /// # Panics
    /// When `bytes` is not exactly as long as `dtype.row_bytes(out.len())`.
    pub fn decode(self, dtype: DType, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(dtype.row_bytes(out.len()), Some(bytes.len()), "{} of {dtype}", out.len());
        match self.0 {
            Isa::Baseline => decode(dtype, bytes, out),
            // SAFETY: as in `encode`.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { decode_avx2(dtype, bytes, out) },
            // SAFETY: as in `encode`.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { decode_avx512(dtype, bytes, out) },
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn encode_avx2(dtype: DType, x: &[f32], out: &mut [u8]) {
    encode(dtype, x, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn encode_avx512(dtype: DType, x: &[f32], out: &mut [u8]) {
    encode(dtype, x, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn decode_avx2(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    decode(dtype, bytes, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn decode_avx512(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    decode(dtype, bytes, out);
}

/// Inlined into two of the above, and so compiled for their instructions.
#[inline(always)]
fn decode(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        DType::BF16 => {
            for (b, o) in bytes.as_chunks::<2>().0.iter().zip(out) {
                let bits = u32::from(u16::from_le_bytes(*b)) << 16;
                let is_nan = bits & 0x7fff_ffff > 0x7f80_0000;
                // A NaN is made quiet.
                *o = f32::from_bits(if is_nan { bits | 0x0040_0000 } else { bits });
            }
        }
        DType::F16 => {
            let (bytes, bytes_tail) = bytes.as_chunks::<{ 2 * QK }>();
            let (out, out_tail) = out.as_chunks_mut::<QK>();
            for (b, o) in bytes.iter().zip(out) {
                let mut h = [f16::ZERO; QK];
                for (h, b) in h.iter_mut().zip(b.as_chunks::<2>().0) {
                    *h = f16::from_le_bytes(*b);
                }
                h.convert_to_f32_slice(o);
            }
            decode_row(dtype, bytes_tail, out_tail);
        }
        _ => decode_row(dtype, bytes, out),
    }
}

/// Inlined into the other two.
#[inline(always)]
fn encode(dtype: DType, x: &[f32], out: &mut [u8]) {
    match dtype {
        DType::Q4_0 => {
            let blocks = bytemuck::cast_slice_mut::<u8, BlockQ4_0>(out);
            for (x, b) in x.as_chunks::<QK>().0.iter().zip(blocks) {
                q4_0(x, b);
            }
        }
        DType::Q8_0 => {
            let blocks = bytemuck::cast_slice_mut::<u8, BlockQ8_0>(out);
            for (x, b) in x.as_chunks::<QK>().0.iter().zip(blocks) {
                q8_0(x, b);
            }
        }
        DType::F16 => {
            let (x, x_tail) = x.as_chunks::<QK>();
            let (out, out_tail) = out.as_chunks_mut::<{ 2 * QK }>();
            for (x, o) in x.iter().zip(out) {
                let mut h = [f16::ZERO; QK];
                h.convert_from_f32_slice(x);
                for (o, h) in o.as_chunks_mut::<2>().0.iter_mut().zip(h) {
                    *o = h.to_le_bytes();
                }
            }
            encode_row(dtype, x_tail, out_tail);
        }
        DType::BF16 => {
            for (x, o) in x.iter().zip(out.as_chunks_mut::<2>().0) {
                let bits = x.to_bits();
                // Round to nearest even; a NaN keeps its top bits and is made quiet.
                let rounded = (bits + (0x7fff + (bits >> 16 & 1))) >> 16;
                let nan = bits >> 16 | 0x40;
                let is_nan = bits & 0x7fff_ffff > 0x7f80_0000;
                *o = (if is_nan { nan } else { rounded } as u16).to_le_bytes();
            }
        }
        _ => encode_row(dtype, x, out),
    }
}

/// The largest magnitude of a block, with the sign of the weight that has it; `None` when weights
/// of both signs have it, and the first of them must be looked for.
#[inline(always)]
fn extreme(x: &[f32; QK]) -> Option<f32> {
    // Magnitude above, sign below: magnitudes order like their bits.
    let (mut largest, mut largest_flipped) = (0u32, 0u32);
    for v in x {
        let key = v.to_bits().rotate_left(1);
        largest = largest.max(key);
        largest_flipped = largest_flipped.max(key ^ 1);
    }
    // Where both signs occur at the top, the two maxima are the same key.
    (largest != largest_flipped).then(|| f32::from_bits(largest.rotate_right(1)))
}

#[inline(always)]
fn q4_0(x: &[f32; QK], b: &mut BlockQ4_0) {
    let Some(extreme) = extreme(x) else { return oracle(DType::Q4_0, x, b) };
    let d = extreme / -8.0;
    let id = 1.0 / d;
    if !id.is_finite() || !d.is_finite() {
        return oracle(DType::Q4_0, x, b);
    }
    b.d = f16::from_f32(d).to_le_bytes();
    let mut q = [0u8; QK];
    for (q, v) in q.iter_mut().zip(x) {
        // SAFETY: no weight is larger than `extreme`, which is finite: every product is in -8 ..= 8 give or take
        // a rounding, and the sum in 0 .. 17. (A cast that saturates is not vectorized.)
        *q = unsafe { (v * id + 8.5).to_int_unchecked::<i32>() }.min(15) as u8;
    }
    for j in 0..QK / 2 {
        b.qs[j] = q[j] | q[j + QK / 2] << 4;
    }
}

#[inline(always)]
fn q8_0(x: &[f32; QK], b: &mut BlockQ8_0) {
    let largest = x.iter().fold(0u32, |m, v| m.max(v.to_bits() & 0x7fff_ffff));
    let d = f32::from_bits(largest) / 127.0;
    let id = 1.0 / d;
    if !id.is_finite() || !d.is_finite() {
        return oracle(DType::Q8_0, x, b);
    }
    b.d = f16::from_f32(d).to_le_bytes();
    // Half away from zero: truncation after adding the float just below one half.
    const HALF: f32 = 0.499_999_97;
    for (q, v) in b.qs.iter_mut().zip(x) {
        let scaled = v * id;
        // SAFETY: no weight is larger than `largest`, which is finite: the sum is in -128 .. 128.
        *q = unsafe { (scaled + HALF.copysign(scaled)).to_int_unchecked::<i32>() } as i8;
    }
}

/// The scalar definition, for one block.
#[cold]
#[inline(never)]
fn oracle<B: bytemuck::Pod>(dtype: DType, x: &[f32; QK], block: &mut B) {
    encode_row(dtype, x, bytemuck::bytes_of_mut(block));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DTYPES: [DType; 5] = [DType::F32, DType::F16, DType::BF16, DType::Q4_0, DType::Q8_0];

    #[track_caller]
    fn same_bits(x: &[f32]) {
        for dtype in DTYPES {
            let bytes = dtype.row_bytes(x.len()).unwrap();
            let mut expected = vec![0xa5; bytes];
            encode_row(dtype, x, &mut expected);
            for codec in FastCodec::available() {
                let mut found = vec![0x5a; bytes];
                codec.encode(dtype, x, &mut found);
                assert_eq!(found, expected, "{dtype} {codec:?} {x:?}");
            }
        }
    }

    fn block(f: impl Fn(usize) -> f32) -> [f32; QK] {
        std::array::from_fn(f)
    }

    #[test]
    fn adversarial_blocks() {
        same_bits(&[]);
        same_bits(&block(|_| 0.0));
        same_bits(&block(|_| -0.0));
        same_bits(&block(|i| if i % 2 == 0 { 0.0 } else { -0.0 }));
        // A tie, either sign first.
        same_bits(&block(|i| {
            if i == 5 {
                3.0
            } else if i == 9 {
                -3.0
            } else {
                0.1
            }
        }));
        same_bits(&block(|i| {
            if i == 5 {
                -3.0
            } else if i == 9 {
                3.0
            } else {
                0.1
            }
        }));
        same_bits(&block(|i| if i % 2 == 0 { 1.0 } else { -1.0 }));
        same_bits(&block(|_| 1.0));
        same_bits(&block(|_| -1.0));
        // Halves: what q4_0 truncates and q8_0 rounds away from zero.
        same_bits(&block(|i| i as f32 - 16.0));
        same_bits(&block(|i| if i == 0 { 127.0 } else { i as f32 - 15.5 }));
        same_bits(&block(|i| if i == 0 { -127.0 } else { 0.5 * i as f32 }));
        same_bits(&block(|i| if i == 0 { 127.0 } else { f32::from_bits(0x3eff_ffff) }));
        // Down to denormals, where 1 / d overflows, and up to the largest.
        for e in [1, 2, 3, 0x7f_ffff, 0x80_0000, 0x80_0001, 0x0100_0000, 0x0180_0000, 0x0200_0000] {
            same_bits(&block(|i| f32::from_bits(e) * (i as f32 - 13.0)));
            same_bits(&block(|i| if i == 7 { -f32::from_bits(e) } else { 0.0 }));
        }
        // Not finite: for the oracle.
        for v in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN] {
            same_bits(&block(|i| if i == 9 { v } else { i as f32 - 13.0 }));
        }
        for big in [65504.0, 65520.0, 1e6, 1e30, f32::MAX / 16.0] {
            same_bits(&block(|i| big * (i as f32 - 15.0) / 16.0));
        }
        same_bits(&block(|i| if i == 3 { f32::MAX } else { f32::MIN_POSITIVE }));
    }

    #[test]
    fn floats_need_not_be_whole_blocks() {
        let x: Vec<f32> = (0..77).map(|i| 1.1f32.powi(i - 30)).collect();
        for n in 0..x.len() {
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                let mut expected = vec![0; dtype.row_bytes(n).unwrap()];
                encode_row(dtype, &x[..n], &mut expected);
                for codec in FastCodec::available() {
                    let mut found = vec![1; expected.len()];
                    codec.encode(dtype, &x[..n], &mut found);
                    assert_eq!(found, expected);
                }
            }
        }
    }

    #[test]
    fn every_half_decodes_as_the_oracle_does() {
        let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for (dtype, skip) in [DType::BF16, DType::F16].into_iter().zip([0, 2]) {
            let bytes = &all[skip..];
            let mut expected = vec![0.0; bytes.len() / 2];
            decode_row(dtype, bytes, &mut expected);
            for codec in FastCodec::available() {
                let mut found = vec![7.0; expected.len()];
                codec.decode(dtype, bytes, &mut found);
                assert!(found.iter().map(|f| f.to_bits()).eq(expected.iter().map(|f| f.to_bits())));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Any finite bits at all, denormals and huge values side by side.
        #[test]
        fn any_finite_bits(bits in prop::array::uniform32(any::<u32>())) {
            same_bits(&bits.map(|b| {
                let v = f32::from_bits(b);
                if v.is_finite() { v } else { f32::from_bits(b & 0x807f_ffff) }
            }));
        }

        /// bf16 weights of one scale, as checkpoints hold them: ties are common.
        #[test]
        fn bf16_weights(bits in prop::array::uniform32(0x3c00u16..0x3d00), signs in any::<u32>()) {
            let mut i = 0;
            same_bits(&bits.map(|b| {
                i += 1;
                let sign = (signs >> (i - 1) & 1) << 31;
                f32::from_bits(u32::from(b) << 16 | sign)
            }));
        }
    }
}
