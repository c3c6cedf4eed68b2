// What comes after a product with a bias. One workgroup a row.

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    for (var c = i; c < p.cols; c += 256u) { finish(workgroup.x * p.stride + c, bias[c]); }
}
