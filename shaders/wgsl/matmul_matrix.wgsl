// As matmul_half.wgsl, multiplied by cooperative matrices. The tile of 64 × 64 results is cut into
// four blocks of 32 × 32; a subgroup works on one at a time. Subgroups may be of any size: where
// there are fewer than four in the workgroup, they come round again for the other blocks.

const TILE: u32 = 64u;
const DEPTH: u32 = 32u;
const STRIDE: u32 = DEPTH + 8u; // neighbouring rows in different banks, at 16 bytes
const BLOCK: u32 = 32u;

var<workgroup> weights: array<f16, TILE * STRIDE>;
var<workgroup> inputs: array<f16, TILE * STRIDE>;
var<workgroup> results: array<f32, 4u * SIZE * SIZE>;

// What lies in `results`: matrix (a, b) of `blocks` blocks from block0 on.
fn leave(a: u32, b: u32, block0: u32, blocks: u32, row0: u32, t0: u32, i: u32) {
    workgroupBarrier();
    for (var c = i; c < blocks * SIZE * SIZE / 2u; c += WORKGROUP) {
        let quarter = block0 + c / (SIZE * SIZE / 2u);
        let t = t0 + quarter / 2u * BLOCK + a * SIZE + c % (SIZE * SIZE / 2u) / (SIZE / 2u);
        let row = row0 + quarter % 2u * BLOCK + b * SIZE + c % (SIZE / 2u) * 2u;
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
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    let row0 = workgroup.x * TILE;
    let t0 = workgroup.y * TILE;
    let steps = (p.pieces * PIECE + 31u) / 32u;
    for (var block0 = 0u; block0 < 4u; block0 += subgroups) {
        // Cooperative operations may not be left out by some: subgroups without a block do the last
        // one again, and what they find is not read.
        let block = min(block0 + subgroup, 3u);
        let down = block / 2u * BLOCK; // rows of x
        let across = block % 2u * BLOCK; // features
        @a @b var sum{a}_{b}: MatrixC;
        for (var step = 0u; step < steps; step++) {
            for (var c = i; c < TILE * (32u / PIECE); c += WORKGROUP) {
                let row = c / (32u / PIECE);
                let part = c % (32u / PIECE);
                let piece = step * (32u / PIECE) + part;
                let at = min(row0 + row, p.rows - 1u) * p.pieces + piece;
                let words = pieces[at];
                let s = scale_of(at) * p.factor;
                for (var j = 0u; j < PIECE / 4u; j++) {
                    let w = vec4<f16>(weigh(four(words, j), s));
                    let to = row * STRIDE + part * PIECE + 4u * j;
                    weights[to] = w.x;
                    weights[to + 1u] = w.y;
                    weights[to + 2u] = w.z;
                    weights[to + 3u] = w.w;
                }
            }
            for (var c = i; c < TILE * DEPTH / 4u; c += WORKGROUP) {
                let row = c / (DEPTH / 4u);
                let t = batch.first + min(t0 + row, batch.n - 1u);
                let v = x[t * p.x_stride + step * (DEPTH / 4u) + c % (DEPTH / 4u)];
                let to = row * STRIDE + c % (DEPTH / 4u) * 4u;
                inputs[to] = v.x;
                inputs[to + 1u] = v.y;
                inputs[to + 2u] = v.z;
                inputs[to + 3u] = v.w;
            }
            workgroupBarrier();
            for (var k = 0u; k < DEPTH; k += SIZE) {
                // Rows of x lie along a matrix's rows, features along its columns.
                @b let w{b} = coopLoad<MatrixB>(&weights[(across + {b}u * SIZE) * STRIDE + k], STRIDE);
                @a let v{a} = coopLoadT<MatrixA>(&inputs[(down + {a}u * SIZE) * STRIDE + k], STRIDE);
                @a @b sum{a}_{b} = coopMultiplyAdd(v{a}, w{b}, sum{a}_{b});
            }
            workgroupBarrier();
        }
        // A matrix of each block at a time through workgroup memory.
        @a @b coopStoreT(sum{a}_{b}, &results[min(subgroup, 3u) * SIZE * SIZE], SIZE); leave({a}u, {b}u, block0, min(subgroups, 4u - block0), row0, t0, i);
    }
}
