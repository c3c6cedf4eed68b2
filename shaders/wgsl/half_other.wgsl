fn four_half(piece: vec4<u32>, j: u32, s: Scale) -> vec4<f16> {
    return vec4<f16>(weigh(four(piece, j), s));
}
