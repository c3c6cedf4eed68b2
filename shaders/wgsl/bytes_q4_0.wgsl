// q4_0 for products of bytes: a block is a piece.

// Half of a block as signed bytes. 128 more keeps each byte's subtraction to itself.
fn half_block(block: u32, half: u32) -> vec4<u32> {
    let nibbles = (pieces[block] >> vec4<u32>(4u * half)) & vec4<u32>(0x0f0f0f0fu);
    return ((nibbles | vec4<u32>(0x80808080u)) - vec4<u32>(0x08080808u)) ^ vec4<u32>(0x80808080u);
}
