// A K type or IQ4_XS in bytes: 16 weights are a piece.
const PIECE: u32 = 16u;

fn four(piece: vec4<u32>, j: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(piece[j]));
}

