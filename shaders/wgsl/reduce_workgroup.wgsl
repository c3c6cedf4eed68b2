@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    run(workgroup.x, i);
}

var<workgroup> sums: array<f32, WORKGROUP * SUMS>;

// Adds what lies `step` further on.
fn add_upper(i: u32, step: u32) {
    for (var s = 0u; s < SUMS; s++) { sums[s * WORKGROUP + i] += sums[s * WORKGROUP + i + step]; }
}

// Adds each of `sum` up over the LANES invocations of a group. Sum s is then the sum of y values
// of `sums` from s · WORKGROUP + x on.
fn reduce(sum: ptr<function, array<f32, SUMS>>, i: u32) -> vec2<u32> {
    let lane = i % LANES;
    for (var s = 0u; s < SUMS; s++) { sums[s * WORKGROUP + i] = (*sum)[s]; }
    workgroupBarrier();
    @halving LANES if lane < {step}u { add_upper(i, {step}u); } workgroupBarrier();
    return vec2<u32>(i - lane, 1u);
}
