// f16: eight weights in a piece.
const PIECE: u32 = 8u;

fn four(piece: vec4<u32>, j: u32) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(piece[2u * j]), unpack2x16float(piece[2u * j + 1u]));
}

fn scale_of(piece: u32) -> f32 {
    return 1.0;
}
