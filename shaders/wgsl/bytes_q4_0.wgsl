// q4_0 for products of bytes: a block is a piece.

struct Block {
    lo: vec4<u32>,
    hi: vec4<u32>,
}

fn dot16(a: vec4<u32>, b: vec4<u32>) -> i32 {
    return dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y)
        + dot4I8Packed(a.z, b.z) + dot4I8Packed(a.w, b.w);
}

// Half of a block as signed bytes. 128 more keeps each byte's subtraction to itself.
fn half_block(block: u32, half: u32) -> vec4<u32> {
    let nibbles = (pieces[block] >> vec4<u32>(4u * half)) & vec4<u32>(0x0f0f0f0fu);
    return ((nibbles | vec4<u32>(0x80808080u)) - vec4<u32>(0x08080808u)) ^ vec4<u32>(0x80808080u);
}

// Σ weight · x of a piece, without scales: nibbles are 0..16, the 8 is taken off through x's sum.
fn products(piece: vec4<u32>, at: u32, v: Block, sum: f32) -> f32 {
    let low = dot16(piece & vec4<u32>(0x0f0f0f0fu), v.lo);
    let high = dot16((piece >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu), v.hi);
    return f32(low + high) - 8.0 * sum;
}
