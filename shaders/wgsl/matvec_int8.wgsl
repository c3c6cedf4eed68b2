// As matvec.wgsl, from x in bytes (prepare_int8.wgsl): four products at a time.

const GROUPS: u32 = WORKGROUP / LANES;
const SUMS: u32 = ROWS * TOKENS;

fn run(workgroup: u32, i: u32) {
    let lane = i % LANES;
    let row0 = (workgroup * GROUPS + i / LANES) * ROWS;
    var at: array<u32, ROWS>; // rows past the end are the last one again
    for (var r = 0u; r < ROWS; r++) { at[r] = min(row0 + r, p.rows - 1u) * p.pieces; }
    let blocks = p.x_stride / 8u;
    var start: array<u32, TOKENS>;
    for (var t = 0u; t < TOKENS; t++) {
        start[t] = (batch.first + min(t, batch.n - 1u)) * blocks;
    }
    var sum: array<f32, SUMS>;
    for (var c = lane; c < p.pieces; c += LANES) {
        var piece: array<vec4<u32>, ROWS>;
        for (var r = 0u; r < ROWS; r++) { piece[r] = pieces[at[r] + c]; }
        for (var t = 0u; t < TOKENS; t++) {
            let block = start[t] + c * PIECE / 32u;
            let v = Block(x[2u * block], x[2u * block + 1u]);
            let scale = x_scales[block];
            for (var r = 0u; r < ROWS; r++) {
                let s = scale_of(at[r] + c) * scale.x;
                sum[r * TOKENS + t] += s * products(piece[r], c, v, scale.y);
            }
        }
    }

    // The lanes share out the pairs of rows and tokens.
    let found = reduce(&sum, i);
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
