// bf16, the upper half of an f32: eight weights in a piece.
const PIECE: u32 = 8u;

fn four(piece: vec4<u32>, j: u32) -> vec4<f32> {
    let a = piece[2u * j];
    let b = piece[2u * j + 1u];
    return bitcast<vec4<f32>>(vec4<u32>(a << 16u, a & 0xffff0000u, b << 16u, b & 0xffff0000u));
}

fn scale_of(piece: u32) -> f32 {
    return 1.0;
}
