// q4_0: a block's 16 bytes are a piece. Weight j is the low nibble of byte j, weight j + 16 the
// high one: words 0..4 give weights in fours from 0, then from 16.
const PIECE: u32 = 32u;

fn four(piece: vec4<u32>, j: u32) -> vec4<f32> {
    let nibbles = (piece[j & 3u] >> (j & 4u)) & 0x0f0f0f0fu;
    return vec4<f32>(unpack4xU8(nibbles)) - 8.0;
}

fn scale_of(piece: u32) -> f32 {
    return unpack2x16float(scales[piece >> 1u])[piece & 1u];
}
