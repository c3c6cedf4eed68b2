// As matmul.wgsl, with both tiles in f16: half the traffic with workgroup memory. Products are added
// up in f32. Weights are kept times p.factor, rows of x divided by their scale: neither leaves
// f16's range.

const TILE: u32 = 64u;
const DEPTH: u32 = 8u; // groups of four

var<workgroup> weights: array<vec4<f16>, TILE * DEPTH>;
var<workgroup> inputs: array<vec4<f16>, TILE * DEPTH>;

fn place(row: u32, group: u32) -> u32 {
    return row * DEPTH + (group ^ ((row >> 1u) & 7u));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let row0 = workgroup.x * TILE;
    let t0 = workgroup.y * TILE;
    let across = i % 8u; // features 2 · (across + 8 j) and the next, j = 0..4
    let down = i / 8u; // rows down + 16 k, k = 0..4
    var sum: array<vec4<f32>, 8>; // [feature][row]
    let steps = (p.pieces * PIECE + 31u) / 32u;
    for (var step = 0u; step < steps; step++) {
        // A tile's row is 32 / PIECE pieces.
        for (var c = i; c < TILE * (32u / PIECE); c += WORKGROUP) {
            let row = c / (32u / PIECE);
            let part = c % (32u / PIECE);
            let piece = step * (32u / PIECE) + part;
            let at = min(row0 + row, p.rows - 1u) * p.pieces + piece;
            let words = pieces[at];
            let s = scale_of(at) * p.factor;
            for (var j = 0u; j < PIECE / 4u; j++) {
                weights[place(row, part * (PIECE / 4u) + j)] = vec4<f16>(weigh(four(words, j), s));
            }
        }
        for (var c = i; c < TILE * DEPTH; c += WORKGROUP) {
            let row = c / DEPTH;
            let t = batch.first + min(t0 + row, batch.n - 1u);
            inputs[place(row, c % DEPTH)] = x[t * p.x_stride + step * DEPTH + c % DEPTH];
        }
        workgroupBarrier();
        for (var g = 0u; g < DEPTH; g++) {
            let a = vec4<f32>(inputs[place(down, g)]);
            let b = vec4<f32>(inputs[place(down + 16u, g)]);
            let c = vec4<f32>(inputs[place(down + 32u, g)]);
            let d = vec4<f32>(inputs[place(down + 48u, g)]);
            for (var f = 0u; f < 8u; f++) {
                let w = vec4<f32>(weights[place(2u * (across + 8u * (f / 2u)) + f % 2u, g)]);
                sum[f] += vec4<f32>(dot(w, a), dot(w, b), dot(w, c), dot(w, d));
            }
        }
        workgroupBarrier();
    }
    for (var k = 0u; k < 4u; k++) {
        let t = t0 + down + 16u * k;
        if t >= batch.n { continue; }
        let scale = x_scales[batch.first + t] / p.factor;
        for (var f = 0u; f < 8u; f += 2u) {
            let row = row0 + 2u * (across + 8u * (f / 2u));
            output(t, row, sum[f][k] * scale, sum[f + 1u][k] * scale);
        }
    }
}
