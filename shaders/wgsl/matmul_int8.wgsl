// y = x · Wᵀ for many rows of x in bytes, in tiles of 64 features × 64 rows × 2 blocks. An
// invocation adds up 8 features × 4 rows: exactly within a block, in f32 across blocks. Tiles lie in
// workgroup memory as half blocks of 16 bytes, those of two rows swapped around so that neighbours
// read different banks.

const TILE: u32 = 64u;
const BLOCKS: u32 = 2u;
const DEPTH: u32 = 4u; // half blocks

var<workgroup> weights: array<vec4<u32>, TILE * DEPTH>;
var<workgroup> inputs: array<vec4<u32>, TILE * DEPTH>;
var<workgroup> weight_scales: array<f32, TILE * BLOCKS>;
var<workgroup> input_scales: array<f32, TILE * BLOCKS>;

fn place(row: u32, half: u32) -> u32 {
    return (row >> 1u) * 8u + ((((row & 1u) << 2u) | half) ^ ((row >> 1u) & 7u));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let row0 = workgroup.x * TILE;
    let t0 = workgroup.y * TILE;
    let across = i % 8u; // features 2 · (across + 8 j) and the next, j = 0..4
    let down = i / 8u; // rows down + 16 k, k = 0..4
    var sum: array<vec4<f32>, 8>; // [feature][row]
    let blocks = p.x_stride / 8u;
    for (var first = 0u; first < blocks; first += BLOCKS) {
        for (var c = i; c < TILE * DEPTH; c += WORKGROUP) {
            let row = c / DEPTH;
            let block = first + (c % DEPTH) / 2u;
            let half = c % 2u;
            // Where a row has an odd number of blocks, nobody looks at the one past the last.
            let at = min(row0 + row, p.rows - 1u) * blocks + min(block, blocks - 1u);
            let t = batch.first + min(t0 + row, batch.n - 1u);
            let input = t * blocks + min(block, blocks - 1u);
            weights[place(row, c % DEPTH)] = half_block(at, half);
            inputs[place(row, c % DEPTH)] = x[2u * input + half];
            if half == 0u {
                let b = (c % DEPTH) / 2u;
                weight_scales[b * TILE + row] = scale_of(at * 32u / PIECE);
                input_scales[b * TILE + row] = x_scales[input].x;
            }
        }
        workgroupBarrier();
        // Turns that are not known when this is compiled are not written out: two blocks at once are more than
        // some GPUs have registers for.
        for (var b = 0u; b < min(BLOCKS, blocks - first); b++) {
            let at = b * TILE + down;
            let scale = vec4<f32>(
                input_scales[at],
                input_scales[at + 16u],
                input_scales[at + 32u],
                input_scales[at + 48u],
            );
            let a0 = inputs[place(down, 2u * b)];
            let a1 = inputs[place(down, 2u * b + 1u)];
            let b0 = inputs[place(down + 16u, 2u * b)];
            let b1 = inputs[place(down + 16u, 2u * b + 1u)];
            let c0 = inputs[place(down + 32u, 2u * b)];
            let c1 = inputs[place(down + 32u, 2u * b + 1u)];
            let d0 = inputs[place(down + 48u, 2u * b)];
            let d1 = inputs[place(down + 48u, 2u * b + 1u)];
            for (var f = 0u; f < 8u; f++) {
                let feature = 2u * (across + 8u * (f / 2u)) + f % 2u;
                let w0 = weights[place(feature, 2u * b)];
                let w1 = weights[place(feature, 2u * b + 1u)];
                let dots = vec4<i32>(
                    dot16(w0, a0) + dot16(w1, a1),
                    dot16(w0, b0) + dot16(w1, b1),
                    dot16(w0, c0) + dot16(w1, c1),
                    dot16(w0, d0) + dot16(w1, d1),
                );
                sum[f] += vec4<f32>(dots) * (weight_scales[b * TILE + feature] * scale);
            }
        }
        workgroupBarrier();
    }
    for (var f = 0u; f < 8u; f += 2u) {
        let row = row0 + 2u * (across + 8u * (f / 2u));
        for (var k = 0u; k < 4u; k++) {
            let t = t0 + down + 16u * k;
            if t < batch.n { output(t, row, sum[f][k], sum[f + 1u][k]); }
        }
    }
}
