// As matmul_half.wgsl, multiplied by cooperative matrices of 16 × 16, for GPUs with large ones. A tile
// of TILE_F features × TILE_T rows of x is cut into four blocks, two by two, a subgroup each.
// What the next step needs is on its way into registers while this one is multiplied. Tiles lie in
// workgroup memory in groups of four, so that they are written 8 bytes at a time.

const DEPTH: u32 = 32u; // of a step
const STRIDE: u32 = DEPTH / 4u + 2u; // groups from row to row: neighbours in different banks
const BLOCK_F: u32 = TILE_F / 32u; // matrices of a block along the features
const BLOCK_T: u32 = TILE_T / 32u;
const PER_ROW: u32 = DEPTH / PIECE; // pieces of a row in a step
const W_ALL: u32 = TILE_F * PER_ROW;
const W_EACH: u32 = (W_ALL + WORKGROUP - 1u) / WORKGROUP;
const X_ALL: u32 = TILE_T * DEPTH / 4u;
const X_EACH: u32 = (X_ALL + WORKGROUP - 1u) / WORKGROUP;

var<workgroup> weights: array<vec4<f16>, TILE_F * STRIDE>;
var<workgroup> inputs: array<vec4<f16>, TILE_T * STRIDE>;
var<workgroup> results: array<f32, 1280>;

// Piece c of the tile in a step.
fn piece_at(row0: u32, c: u32, step: u32) -> u32 {
    return min(row0 + c / PER_ROW, p.rows - 1u) * p.pieces + step * PER_ROW + c % PER_ROW;
}

// Group c of four values of x in a step.
fn x_at(t0: u32, c: u32, step: u32) -> u32 {
    let t = batch.first + min(t0 + c / (DEPTH / 4u), batch.n - 1u);
    return t * p.x_stride + step * (DEPTH / 4u) + c % (DEPTH / 4u);
}

// What lies in `results`: matrix (t, f) of each block.
fn leave(t_matrix: u32, f_matrix: u32, row0: u32, t0: u32, i: u32) {
    workgroupBarrier();
    for (var c = i; c < 512u; c += WORKGROUP) {
        let quarter = c / 128u;
        let t = t0 + quarter / 2u * BLOCK_T * 16u + t_matrix * 16u + c % 128u / 8u;
        let row = row0 + quarter % 2u * BLOCK_F * 16u + f_matrix * 16u + c % 8u * 2u;
        if t < batch.n {
            let scale = x_scales[batch.first + t] / p.factor;
            output(t, row, results[2u * c] * scale, results[2u * c + 1u] * scale);
        }
    }
    workgroupBarrier();
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) i: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    let row0 = workgroup.x * TILE_F;
    let t0 = workgroup.y * TILE_T;
    let steps = p.pieces * PIECE / DEPTH;
    // Where there are more than four subgroups the others do the last block again, and what they
    // find is not read: cooperative operations may not be left out by some.
    let block = min(subgroup, 3u);
    let across = block % 2u * BLOCK_F * 16u; // features
    let down = block / 2u * BLOCK_T * 16u; // rows of x
    @t @f var sum{t}_{f}: MatrixC;
    var words: array<vec4<u32>, W_EACH>;
    var factors: array<Scale, W_EACH>;
    var values: array<vec4<f16>, X_EACH>;

    for (var k = 0u; k < W_EACH; k++) {
        let at = piece_at(row0, k * WORKGROUP + i, 0u);
        words[k] = pieces[at];
        factors[k] = scale_of(at) * p.factor;
    }
    for (var k = 0u; k < X_EACH; k++) { values[k] = x[x_at(t0, k * WORKGROUP + i, 0u)]; }
    for (var step = 0u; step < steps; step++) {
        for (var k = 0u; k < W_EACH; k++) {
            let c = k * WORKGROUP + i;
            if c < W_ALL {
                let to = c / PER_ROW * STRIDE + c % PER_ROW * (PIECE / 4u);
                for (var j = 0u; j < PIECE / 4u; j++) {
                    weights[to + j] = four_half(words[k], j, factors[k]);
                }
            }
        }
        for (var k = 0u; k < X_EACH; k++) {
            let c = k * WORKGROUP + i;
            if c < X_ALL { inputs[c / (DEPTH / 4u) * STRIDE + c % (DEPTH / 4u)] = values[k]; }
        }
        workgroupBarrier();
        let next = min(step + 1u, steps - 1u);
        for (var k = 0u; k < W_EACH; k++) {
            let at = piece_at(row0, k * WORKGROUP + i, next);
            words[k] = pieces[at];
            factors[k] = scale_of(at) * p.factor;
        }
        for (var k = 0u; k < X_EACH; k++) { values[k] = x[x_at(t0, k * WORKGROUP + i, next)]; }
        for (var k = 0u; k < DEPTH / 16u; k++) {
            // Rows of x lie along a matrix's rows, features along its columns.
            @f let w{f} = coopLoad<MatrixB>(&weights[(across + {f}u * 16u) * STRIDE + 4u * k], STRIDE);
            @t let v{t} = coopLoadT<MatrixA>(&inputs[(down + {t}u * 16u) * STRIDE + 4u * k], STRIDE);
            @t @f sum{t}_{f} = coopMultiplyAdd(v{t}, w{f}, sum{t}_{f});
        }
        workgroupBarrier();
    }
    // A matrix of each block at a time through workgroup memory.
    @t @f coopStoreT(sum{t}_{f}, &results[min(subgroup, 4u) * 256u], 16u); leave({t}u, {f}u, row0, t0, i);
}
