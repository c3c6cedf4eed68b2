// One workgroup for each row (x) and head (y).

var<workgroup> kept: array<vec4<f32>, (HEAD + 3u) / 4u>;
var<workgroup> sizes: array<f32, (HEAD + 3u) / 4u>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    merge_parts(workgroup.x, workgroup.y, i);
}
