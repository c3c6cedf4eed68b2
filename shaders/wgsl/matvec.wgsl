// y = x · Wᵀ for up to TOKENS rows of x. LANES invocations lie side by side along ROWS rows of
// weights: each reads a piece of each, so that a row is read in 16 · LANES contiguous bytes. BATCH
// pieces of each row are asked for before the first is needed.

const GROUPS: u32 = WORKGROUP / LANES;
const SUMS: u32 = ROWS * TOKENS;
const LOADS: u32 = ROWS * BATCH;

fn run(workgroup: u32, i: u32) {
    let lane = i % LANES;
    let row0 = (workgroup * GROUPS + i / LANES) * ROWS;
    var at: array<u32, ROWS>; // rows past the end are the last one again
    for (var r = 0u; r < ROWS; r++) { at[r] = min(row0 + r, p.rows - 1u) * PIECES; }
    var start: array<u32, TOKENS>;
    for (var t = 0u; t < TOKENS; t++) {
        start[t] = (batch.first + min(t, batch.n - 1u)) * p.x_stride;
    }
    var sum: array<f32, SUMS>;
    for (var first = 0u; first < PIECES; first += BATCH * LANES) {
        var piece: array<vec4<u32>, LOADS>;
        var scale: array<Scale, LOADS>;
        for (var b = 0u; b < BATCH; b++) {
            let c = first + b * LANES + lane;
            let place = min(c, PIECES - 1u);
            for (var r = 0u; r < ROWS; r++) {
                piece[b * ROWS + r] = pieces[at[r] + place];
                scale[b * ROWS + r] = select(Scale(), scale_of(at[r] + place), c < PIECES);
            }
        }
        for (var b = 0u; b < BATCH; b++) {
            let place = min(first + b * LANES + lane, PIECES - 1u);
            var part: array<f32, SUMS>;
            for (var j = 0u; j < PIECE / 4u; j++) {
                var w: array<vec4<f32>, ROWS>;
                for (var r = 0u; r < ROWS; r++) { w[r] = before(four(piece[b * ROWS + r], j), scale[b * ROWS + r]); }
                for (var t = 0u; t < TOKENS; t++) {
                    let v = x[start[t] + place * (PIECE / 4u) + j];
                    for (var r = 0u; r < ROWS; r++) { part[r * TOKENS + t] += dot(w[r], v); }
                }
            }
            for (var r = 0u; r < ROWS; r++) {
                for (var t = 0u; t < TOKENS; t++) {
                    sum[r * TOKENS + t] += after(scale[b * ROWS + r]) * part[r * TOKENS + t];
                }
            }
        }
    }
    share_out(&sum, lane, row0, i);
    conclude(workgroup, i);
}
