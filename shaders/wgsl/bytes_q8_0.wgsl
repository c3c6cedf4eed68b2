// q8_0 for products of bytes: half a block is a piece.

// Half of a block as signed bytes.
fn half_block(block: u32, half: u32) -> vec4<u32> {
    return pieces[2u * block + half];
}
