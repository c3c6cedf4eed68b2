// y = x · Wᵀ for up to TOKENS rows of x. LANES invocations lie side by side along ROWS rows of
// weights: each reads a piece of each, so that a row is read in 16 · LANES contiguous bytes.

const GROUPS: u32 = WORKGROUP / LANES;
const SUMS: u32 = ROWS * TOKENS;

var<workgroup> sums: array<f32, WORKGROUP * SUMS>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let lane = i % LANES;
    let row0 = (workgroup.x * GROUPS + i / LANES) * ROWS;
    var at: array<u32, ROWS>; // rows past the end are the last one again
    for (var r = 0u; r < ROWS; r++) { at[r] = min(row0 + r, p.rows - 1u) * p.pieces; }
    var start: array<u32, TOKENS>;
    for (var t = 0u; t < TOKENS; t++) {
        start[t] = (batch.first + min(t, batch.n - 1u)) * p.x_stride;
    }
    var sum: array<f32, SUMS>;
    for (var c = lane; c < p.pieces; c += LANES) {
        var piece: array<vec4<u32>, ROWS>;
        for (var r = 0u; r < ROWS; r++) { piece[r] = pieces[at[r] + c]; }
        var part: array<f32, SUMS>;
        for (var j = 0u; j < PIECE / 4u; j++) {
            var w: array<vec4<f32>, ROWS>;
            for (var r = 0u; r < ROWS; r++) { w[r] = four(piece[r], j); }
            for (var t = 0u; t < TOKENS; t++) {
                let v = x[start[t] + c * (PIECE / 4u) + j];
                for (var r = 0u; r < ROWS; r++) { part[r * TOKENS + t] += dot(w[r], v); }
            }
        }
        for (var r = 0u; r < ROWS; r++) {
            let s = scale_of(at[r] + c);
            for (var t = 0u; t < TOKENS; t++) { sum[r * TOKENS + t] += s * part[r * TOKENS + t]; }
        }
    }

    for (var s = 0u; s < SUMS; s++) { sums[s * WORKGROUP + i] = sum[s]; }
    workgroupBarrier();
    for (var step = LANES / 2u; step > 0u; step /= 2u) {
        if lane < step {
            for (var s = 0u; s < SUMS; s++) {
                sums[s * WORKGROUP + i] += sums[s * WORKGROUP + i + step];
            }
        }
        workgroupBarrier();
    }
    // The lanes share out the pairs of rows and tokens.
    let first = i - lane;
    for (var o = lane; o < SUMS / 2u; o += LANES) {
        let pair = o / TOKENS;
        let t = o % TOKENS;
        if t < batch.n {
            let even = sums[(2u * pair * TOKENS + t) * WORKGROUP + first];
            let odd = sums[((2u * pair + 1u) * TOKENS + t) * WORKGROUP + first];
            output(t, row0 + 2u * pair, even, odd);
        }
    }
}
