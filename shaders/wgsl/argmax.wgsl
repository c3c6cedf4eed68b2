// The best of each of 256 interleaved parts of a row of p.cols values.

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    var mine = vec2<u32>(LEAST, 0u);
    for (var c = workgroup.x * WORKGROUP + i; c < p.cols; c += 256u * WORKGROUP) {
        mine = better(mine, vec2<u32>(bitcast<u32>(x[c]), c));
    }
    let top = best_of_all(mine, i);
    if i == 0u { best[workgroup.x] = top; }
}
