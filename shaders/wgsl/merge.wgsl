// Puts the parts of attention together. One workgroup for each row (x) and head (y).

var<workgroup> outs: array<f32, HEAD>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let start = (workgroup.x * p.heads + workgroup.y) * batch.splits * (HEAD + 2u);
    var top = parts[start + HEAD + 1u];
    for (var s = 1u; s < batch.splits; s++) {
        top = max(top, parts[start + s * (HEAD + 2u) + HEAD + 1u]);
    }
    var total = 0.0;
    for (var s = 0u; s < batch.splits; s++) {
        let part = start + s * (HEAD + 2u);
        total += parts[part + HEAD] * exp(parts[part + HEAD + 1u] - top);
    }
    let at = workgroup.x * p.stride + workgroup.y * HEAD;
    for (var d = i; d < HEAD; d += WORKGROUP) {
        var v = 0.0;
        for (var s = 0u; s < batch.splits; s++) {
            let part = start + s * (HEAD + 2u);
            v += parts[part + d] * exp(parts[part + HEAD + 1u] - top);
        }
        outs[d] = v / total;
        a[at + d] = v / total;
    }
    workgroupBarrier();
    keep(at, i);
}
