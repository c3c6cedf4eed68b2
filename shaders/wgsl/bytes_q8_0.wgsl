// q8_0 for products of bytes: half a block is a piece.

struct Block {
    lo: vec4<u32>,
    hi: vec4<u32>,
}

fn dot16(a: vec4<u32>, b: vec4<u32>) -> i32 {
    return dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y)
        + dot4I8Packed(a.z, b.z) + dot4I8Packed(a.w, b.w);
}

// Half of a block as signed bytes.
fn half_block(block: u32, half: u32) -> vec4<u32> {
    return pieces[2u * block + half];
}

// Σ weight · x of piece `at` of a row, without scales.
fn products(piece: vec4<u32>, at: u32, v: Block, sum: f32) -> f32 {
    return f32(dot16(piece, select(v.lo, v.hi, (at & 1u) == 1u)));
}
