// norm.wgsl and matvec_int8.wgsl in one, for a single row of x: every workgroup makes the residual and
// the norm of all of x for itself, while its weights are on their way, and the first one leaves the
// new x where the next such kernel reads it.

const GROUPS: u32 = WORKGROUP / LANES;
const SUMS: u32 = ROWS;
const LOADS: u32 = ROWS * BATCH;
const QUADS: u32 = PIECES * PIECE / 4u; // of x
const PER: u32 = (QUADS + WORKGROUP - 1u) / WORKGROUP;

var<workgroup> partial: array<f32, 2u * WORKGROUP>;
var<workgroup> x_bytes: array<vec4<u32>, QUADS / 4u>;
var<workgroup> x_scales: array<vec2<f32>, QUADS / 8u>;

// The sum over the workgroup; `which` is 0, then 1.
fn total(v: f32, i: u32, which: u32) -> f32 {
    let first = which * WORKGROUP;
    var count = WORKGROUP;
    if even {
        let mine = subgroupAdd(v);
        count = WORKGROUP / subgroup;
        if i % subgroup == 0u { partial[first + i / subgroup] = mine; }
    } else {
        partial[first + i] = v;
    }
    workgroupBarrier();
    var sum = 0.0;
    // So many that they are read at once, then what there may be beyond.
    for (var s = 0u; s < 8u; s++) { sum += select(0.0, partial[first + s], s < count); }
    for (var s = 8u; s < count; s++) { sum += partial[first + s]; }
    return sum;
}

fn reciprocal(squares: f32) -> f32 {
    return inverseSqrt(squares / f32(n.cols) + n.eps);
}

fn run(workgroup: u32, i: u32) {
    let lane = i % LANES;
    let row0 = (workgroup * GROUPS + i / LANES) * ROWS;
    var at: array<u32, ROWS>; // rows past the end are the last one again
    for (var r = 0u; r < ROWS; r++) { at[r] = min(row0 + r, p.rows - 1u) * PIECES; }
    var piece: array<vec4<u32>, LOADS>;
    var scale: array<Scale, LOADS>;
    for (var b = 0u; b < BATCH; b++) {
        let c = b * LANES + lane;
        let place = min(c, PIECES - 1u);
        for (var r = 0u; r < ROWS; r++) {
            piece[b * ROWS + r] = pieces[at[r] + place];
            scale[b * ROWS + r] = select(Scale(), scale_of(at[r] + place), c < PIECES);
        }
    }

    var v: array<vec4<f32>, PER>;
    var gain: array<vec4<f32>, PER>;
    for (var k = 0u; k < PER; k++) {
        let c = k * WORKGROUP + i;
        if c < QUADS {
            v[k] = x[c];
            gain[k] = weight[c];
        }
    }
    residual(&v, i);
    var squares = 0.0;
    for (var k = 0u; k < PER; k++) {
        let c = k * WORKGROUP + i;
        if c < QUADS && workgroup == 0u { x_out[c] = v[k]; }
        squares += dot(v[k], v[k]);
    }
    let factor = reciprocal(total(squares, i, 1u));
    // Blocks of 32 as bytes (prepare_int8.wgsl), eight invocations a block.
    var size: array<f32, PER>;
    for (var k = 0u; k < PER; k++) {
        v[k] = v[k] * factor * gain[k];
        let s = abs(v[k]);
        size[k] = max(max(s.x, s.y), max(s.z, s.w));
    }
    largest_of_eight(&size, i);
    var sum_of_bytes: array<f32, PER>;
    for (var k = 0u; k < PER; k++) {
        let c = k * WORKGROUP + i;
        size[k] /= 127.0;
        let inverse = select(0.0, 1.0 / size[k], size[k] > 1e-30);
        let q = vec4<i32>(round(v[k] * inverse));
        if c < QUADS { x_bytes[c / 4u][c % 4u] = pack4xI8(q); }
        sum_of_bytes[k] = f32(q.x + q.y + q.z + q.w);
    }
    sum_of_eight(&sum_of_bytes, i);
    for (var k = 0u; k < PER; k++) {
        let c = k * WORKGROUP + i;
        if c < QUADS && i % 8u == 0u { x_scales[c / 8u] = vec2<f32>(size[k], sum_of_bytes[k]); }
    }
    workgroupBarrier();

    var sum: array<f32, SUMS>;
    for (var first = 0u; first < PIECES; first += BATCH * LANES) {
        if first > 0u {
            for (var b = 0u; b < BATCH; b++) {
                let c = first + b * LANES + lane;
                let place = min(c, PIECES - 1u);
                for (var r = 0u; r < ROWS; r++) {
                    piece[b * ROWS + r] = pieces[at[r] + place];
                    scale[b * ROWS + r] = select(Scale(), scale_of(at[r] + place), c < PIECES);
                }
            }
        }
        for (var b = 0u; b < BATCH; b++) {
            let place = min(first + b * LANES + lane, PIECES - 1u);
            let block = place * PIECE / 32u;
            let both = Block(x_bytes[2u * block], x_bytes[2u * block + 1u]);
            let xs = x_scales[block];
            for (var r = 0u; r < ROWS; r++) {
                let found = products(piece[b * ROWS + r], place, both, xs.y);
                sum[r] += product(scale[b * ROWS + r], xs, found, place);
            }
        }
    }
    share_out(&sum, lane, row0, i);
    conclude(workgroup, i);
}
