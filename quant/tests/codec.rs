//! The codec against golden blocks made by another implementation (`tools/goldens/blocks.py`), and
//! against bytes that no encoder would write.

use lapidary_quant::DType;
use lapidary_quant::codec::{can_encode, decode_row, encode_row};
use proptest::prelude::*;

fn unhex(s: &str) -> Vec<u8> {
    assert!(s.len().is_multiple_of(2));
    (0..s.len()).step_by(2).map(|i| u8::from_str_radix(&s[i..i + 2], 16).unwrap()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn blocks_match_the_goldens_bit_for_bit() {
    let mut seen = std::collections::HashMap::new();
    for (n, line) in include_str!("goldens/blocks.txt").lines().enumerate() {
        let [kind, dtype, given, expected] =
            line.split(' ').collect::<Vec<_>>().try_into().expect("four fields a line");
        let (given, expected) = (unhex(given), unhex(expected));
        let dtype = DType::from_name(dtype).unwrap();
        *seen.entry((kind, dtype)).or_insert(0) += 1;
        match kind {
            "decode" => {
                let expected = floats(&expected);
                let mut out = vec![f32::NAN; expected.len()];
                decode_row(dtype, &given, &mut out);
                let (out, expected): (Vec<u32>, Vec<u32>) =
                    out.iter().zip(&expected).map(|(a, b)| (a.to_bits(), b.to_bits())).unzip();
                assert_eq!(out, expected, "line {} ({dtype})", n + 1);
            }
            "encode" => {
                let mut out = vec![0xAA; expected.len()];
                encode_row(dtype, &floats(&given), &mut out);
                assert_eq!(out, expected, "line {} ({dtype})", n + 1);
            }
            kind => panic!("line {}: {kind}", n + 1),
        }
    }
    for dtype in DType::ALL.into_iter().filter(|d| !d.is_float()) {
        assert!(seen.contains_key(&("decode", dtype)), "no golden block of {dtype}");
        assert_eq!(seen.contains_key(&("encode", dtype)), can_encode(dtype), "{dtype}");
    }
}

/// Where the scale is so small that its inverse is infinite, products are ±infinity or NaN: they
/// must not spill over the other nibble of their byte.
#[test]
fn a_vanishing_scale_keeps_nibbles_apart() {
    let mut x = [0.0; 32];
    (x[0], x[1], x[17]) = (1e-39, -5e-40, 5e-40);
    let mut bytes = [0xAA; 18];
    encode_row(DType::Q4_0, &x, &mut bytes);
    assert_eq!((bytes[2], bytes[3]), (0x00, 0x0F));
    let mut back = [1.0; 32];
    decode_row(DType::Q4_0, &bytes, &mut back);
    assert_eq!(back, [0.0; 32]);
}

proptest! {
    /// Scales that are infinite or NaN give such weights; nothing panics.
    #[test]
    fn any_bytes_decode(bytes in proptest::collection::vec(any::<u8>(), 2 * 210)) {
        for dtype in DType::ALL {
            for fill in [None, Some(0), Some(0xFF), Some(0x7C)] {
                let mut bytes = bytes[..2 * dtype.block_bytes()].to_vec();
                if let Some(fill) = fill {
                    bytes.fill(fill);
                }
                decode_row(dtype, &bytes, &mut vec![0.0; 2 * dtype.block_len()]);
            }
        }
    }

    /// Any floats, NaN and infinities among them, encode without a panic.
    #[test]
    fn any_floats_encode(bits in proptest::collection::vec(any::<u32>(), 64), exp in 0u32..255) {
        let wild: Vec<f32> = bits.iter().map(|&b| f32::from_bits(b)).collect();
        // Magnitudes within one binade, which reach the scales that underflow.
        let near: Vec<f32> =
            bits.iter().map(|b| f32::from_bits((b & 0x807F_FFFF) | (exp << 23))).collect();
        for x in [wild, near] {
            for dtype in DType::ALL.into_iter().filter(|&d| can_encode(d)) {
                let mut out = vec![0; dtype.row_bytes(x.len()).unwrap()];
                encode_row(dtype, &x, &mut out);
            }
        }
    }

    /// A weight comes back to within half a step of its block (a whole one at Q4_0's far end, where
    /// +8 has no nibble), the step being the scale as stored in f16.
    #[test]
    fn encoding_is_within_half_a_step(x in proptest::collection::vec(-4.0f32..4.0, 32), e in -8i32..8) {
        let x: Vec<f32> = x.iter().map(|v| v * 2f32.powi(e)).collect();
        let largest = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        for (dtype, steps, worst) in [(DType::Q4_0, 8.0, 1.0), (DType::Q8_0, 127.0, 0.5)] {
            let mut bytes = vec![0; dtype.row_bytes(32).unwrap()];
            encode_row(dtype, &x, &mut bytes);
            let mut back = [0.0; 32];
            decode_row(dtype, &bytes, &mut back);
            // The f16 scale is off by 2⁻¹¹ of itself (2⁻²⁵ where subnormal), `steps` times over.
            let tolerance = largest / steps * worst + largest * 2f32.powi(-11) + steps * 2f32.powi(-25);
            for (x, b) in x.iter().zip(back) {
                prop_assert!((x - b).abs() <= tolerance * 1.001, "{dtype}: {x} became {b}");
            }
        }
    }
}
