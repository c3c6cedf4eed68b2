// Σ weight · x of piece `at` of a row, without scales.
fn products(piece: vec4<u32>, at: u32, v: Block, sum: f32) -> f32 {
    return f32(dot16(piece, select(v.lo, v.hi, (at & 1u) == 1u)));
}
