// y[i] = x[rows[i].place]. One workgroup a row.

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let start = rows[workgroup.x].place * p.stride;
    for (var c = i; c < p.stride; c += 64u) {
        y[workgroup.x * p.stride + c] = x[start + c];
    }
}
