//! The scalar definition of every format: encode, decode. This is the oracle that each SIMD kernel
//! is tested against, so it is written to be obviously right, never to be fast.
//!
//! Formats: ggml's `ggml-quants` reference functions, as stated in the GGUF specification.

mod fast;
mod float;
mod iq4_nl;
mod iq4_xs;
mod k_scales;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_0_search;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;

pub use fast::FastCodec;
pub use iq4_nl::{BlockIQ4NL, IQ4_VALUES};
pub use iq4_xs::BlockIQ4XS;
pub use k_scales::KScales;
pub use q2_k::BlockQ2K;
pub use q3_k::{BlockQ3K, Q3Scales};
pub use q4_0::BlockQ4_0;
pub use q4_0_search::encode_q4_0_searched;
pub use q4_1::BlockQ4_1;
pub use q4_k::BlockQ4K;
pub use q5_0::BlockQ5_0;
pub use q5_1::BlockQ5_1;
pub use q5_k::BlockQ5K;
pub use q6_k::BlockQ6K;
pub use q8_0::BlockQ8_0;

use crate::DType;

/// Weights in a block of Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL and of quantized activations.
pub const QK: usize = 32;
/// Weights in a block of the K types and of IQ4_XS.
pub const QK_K: usize = 256;

/// Decodes one row: `bytes` holds `out.len()` weights of `dtype`.
///
/// # Panics
/// When `bytes` is not exactly as long as `dtype.row_bytes(out.len())`.
pub fn decode_row(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(dtype.row_bytes(out.len()), Some(bytes.len()), "a {dtype} row of {}", out.len());
    match dtype {
        DType::F32 => float::decode_f32(bytes, out),
        DType::F16 => float::decode_f16(bytes, out),
        DType::BF16 => float::decode_bf16(bytes, out),
        DType::Q4_0 => q4_0::decode(bytes, out),
        DType::Q4_1 => q4_1::decode(bytes, out),
        DType::Q5_0 => q5_0::decode(bytes, out),
        DType::Q5_1 => q5_1::decode(bytes, out),
        DType::Q8_0 => q8_0::decode(bytes, out),
        DType::Q2_K => q2_k::decode(bytes, out),
        DType::Q3_K => q3_k::decode(bytes, out),
        DType::Q4_K => q4_k::decode(bytes, out),
        DType::Q5_K => q5_k::decode(bytes, out),
        DType::Q6_K => q6_k::decode(bytes, out),
        DType::IQ4_NL => iq4_nl::decode(bytes, out),
        DType::IQ4_XS => iq4_xs::decode(bytes, out),
    }
}

/// Can [`encode_row`] write this type?
pub fn can_encode(dtype: DType) -> bool {
    dtype.is_float() || matches!(dtype, DType::Q4_0 | DType::Q8_0)
}

/// Encodes one row of weights as `dtype` (one for which [`can_encode`] holds).
///
/// # Panics
/// When `out` is not exactly as long as `dtype.row_bytes(x.len())`, or `dtype` is read-only.
pub fn encode_row(dtype: DType, x: &[f32], out: &mut [u8]) {
    assert_eq!(dtype.row_bytes(x.len()), Some(out.len()), "a {dtype} row of {}", x.len());
    match dtype {
        DType::F32 => float::encode_f32(x, out),
        DType::F16 => float::encode_f16(x, out),
        DType::BF16 => float::encode_bf16(x, out),
        DType::Q4_0 => q4_0::encode(x, out),
        DType::Q8_0 => q8_0::encode(x, out),
        _ => panic!("{dtype} is a read-only type"),
    }
}
