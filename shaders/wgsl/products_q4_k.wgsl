// Σ weight · x of a piece, without scales.
fn products(piece: vec4<u32>, at: u32, v: Block, sum: f32) -> f32 {
    let low = dot16(piece & vec4<u32>(0x0f0f0f0fu), v.lo);
    let high = dot16((piece >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu), v.hi);
    return f32(low + high);
}
