// q4_k: 32 weights are a piece, as in q4_0, with nibbles that count from 0.
const PIECE: u32 = 32u;

fn four(piece: vec4<u32>, j: u32) -> vec4<f32> {
    let nibbles = (piece[j & 3u] >> (j & 4u)) & 0x0f0f0f0fu;
    return vec4<f32>(unpack4xU8(nibbles));
}

