// Adds the lanes' sums up; the lanes share out the pairs of rows and tokens.
fn share_out(sum: ptr<function, array<f32, SUMS>>, lane: u32, row0: u32, i: u32) {
    let found = reduce(sum, i);
    for (var o = lane; o < SUMS / 2u; o += LANES) {
        let pair = o / TOKENS;
        let t = o % TOKENS;
        if t < batch.n {
            var both = vec2<f32>();
            for (var k = found.x; k < found.x + found.y; k++) {
                both.x += sums[2u * pair * TOKENS * WORKGROUP + t * WORKGROUP + k];
                both.y += sums[(2u * pair + 1u) * TOKENS * WORKGROUP + t * WORKGROUP + k];
            }
            output(t, row0 + 2u * pair, both.x, both.y);
        }
    }
}
