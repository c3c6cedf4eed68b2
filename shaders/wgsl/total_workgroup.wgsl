var<workgroup> sums: array<f32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    run(workgroup.x, i);
}

// The sum over the workgroup; `which` is another from call to call.
fn total(v: f32, i: u32, which: u32) -> f32 {
    sums[i] = v;
    workgroupBarrier();
    @halving 256 if i < {step}u { sums[i] += sums[i + {step}u]; } workgroupBarrier();
    let sum = sums[0];
    workgroupBarrier();
    return sum;
}
