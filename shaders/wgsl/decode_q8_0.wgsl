// q8_0: half a block's bytes are a piece.
const PIECE: u32 = 16u;

fn four(piece: vec4<u32>, j: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(piece[j]));
}

fn scale_of(piece: u32) -> f32 {
    return unpack2x16float(scales[piece >> 2u])[(piece >> 1u) & 1u];
}
