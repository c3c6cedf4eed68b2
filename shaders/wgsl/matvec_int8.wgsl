// As matvec.wgsl, from x in bytes (prepare_int8.wgsl): four products at a time.

const GROUPS: u32 = WORKGROUP / LANES;
const SUMS: u32 = ROWS * TOKENS;
const LOADS: u32 = ROWS * BATCH;

fn run(workgroup: u32, i: u32) {
    let lane = i % LANES;
    let row0 = (workgroup * GROUPS + i / LANES) * ROWS;
    var at: array<u32, ROWS>; // rows past the end are the last one again
    for (var r = 0u; r < ROWS; r++) { at[r] = min(row0 + r, p.rows - 1u) * PIECES; }
    let blocks = p.x_stride / 8u;
    var start: array<u32, TOKENS>;
    for (var t = 0u; t < TOKENS; t++) {
        start[t] = (batch.first + min(t, batch.n - 1u)) * blocks;
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
        if TOKENS == 1u {
            // One row of x is asked for as well before any of it is needed.
            var v: array<Block, BATCH>;
            var xs: array<vec2<f32>, BATCH>;
            for (var b = 0u; b < BATCH; b++) {
                let block = start[0] + min(first + b * LANES + lane, PIECES - 1u) * PIECE / 32u;
                v[b] = Block(x[2u * block], x[2u * block + 1u]);
                xs[b] = x_scales[block];
            }
            for (var b = 0u; b < BATCH; b++) {
                let place = min(first + b * LANES + lane, PIECES - 1u);
                for (var r = 0u; r < ROWS; r++) {
                    let found = products(piece[b * ROWS + r], place, v[b], xs[b].y);
                    sum[r * TOKENS] += product(scale[b * ROWS + r], xs[b], found, place);
                }
            }
            continue;
        }
        for (var b = 0u; b < BATCH; b++) {
            let place = min(first + b * LANES + lane, PIECES - 1u);
            for (var t = 0u; t < TOKENS; t++) {
                let block = start[t] + place * PIECE / 32u;
                let v = Block(x[2u * block], x[2u * block + 1u]);
                let xs = x_scales[block];
                for (var r = 0u; r < ROWS; r++) {
                    let found = products(piece[b * ROWS + r], place, v, xs.y);
                    sum[r * TOKENS + t] += product(scale[b * ROWS + r], xs, found, place);
                }
            }
        }
    }
    share_out(&sum, lane, row0, i);
    conclude(workgroup, i);
}
