// Puts the parts of attention together. One workgroup for each row (x) and head (y): SHARE
// invocations for each group of four features, which share out the parts.

const QUADS: u32 = (HEAD + 3u) / 4u;
const SHARE: u32 = WORKGROUP / QUADS;

var<workgroup> tops: array<f32, MOST>;
var<workgroup> totals: array<f32, MOST>;
var<workgroup> found: array<vec4<f32>, SHARE * QUADS>;
var<workgroup> kept: array<vec4<f32>, QUADS>;
var<workgroup> sizes: array<f32, QUADS>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let start = (workgroup.x * p.heads + workgroup.y) * batch.splits * (HEAD + 2u);
    if i < batch.splits {
        totals[i] = parts[start + i * (HEAD + 2u) + HEAD];
        tops[i] = parts[start + i * (HEAD + 2u) + HEAD + 1u];
    }
    workgroupBarrier();
    var most = tops[0];
    for (var s = 1u; s < batch.splits; s++) { most = max(most, tops[s]); }
    let c = i % QUADS;
    let share = i / QUADS;
    if share < SHARE {
        var v: vec4<f32>;
        for (var s = share; s < batch.splits; s += SHARE) {
            let part = start + s * (HEAD + 2u);
            let factor = exp(tops[s] - most);
            for (var d = 0u; d < 4u; d++) {
                // Features past the last are read from what follows, and not kept.
                v[d] += factor * parts[part + min(4u * c + d, HEAD - 1u)];
            }
        }
        found[i] = v;
    }
    workgroupBarrier();
    let at = workgroup.x * p.stride + workgroup.y * HEAD;
    if i < QUADS {
        var total = 0.0;
        for (var s = 0u; s < batch.splits; s++) { total += totals[s] * exp(tops[s] - most); }
        var v: vec4<f32>;
        for (var s = 0u; s < SHARE; s++) { v += found[s * QUADS + i]; }
        v /= total;
        kept[i] = v;
        for (var d = 0u; d < 4u; d++) {
            if 4u * i + d < HEAD { a[at + 4u * i + d] = v[d]; }
        }
    }
    keep(at, i);
}
