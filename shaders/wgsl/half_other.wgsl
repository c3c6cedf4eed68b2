fn four_half(piece: vec4<u32>, j: u32, s: f32) -> vec4<f16> {
    return vec4<f16>(four(piece, j) * s);
}
