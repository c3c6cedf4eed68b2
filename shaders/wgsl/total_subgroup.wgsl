// Subgroups may be of any size, and some smaller than others.
var<private> subgroup: u32; // which one of the workgroup's
var<private> subgroups: u32; // how many there are
var<private> leads: bool; // the first of its subgroup
var<workgroup> sums: array<f32, 512>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) i: u32,
    @builtin(num_subgroups) count: u32,
    @builtin(subgroup_id) id: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    subgroup = id;
    subgroups = count;
    leads = subgroupMin(lane) == lane;
    run(workgroup.x, i);
}

// The sum over the workgroup; `which` is 0, then 1.
fn total(v: f32, i: u32, which: u32) -> f32 {
    let mine = subgroupAdd(v);
    if leads { sums[256u * which + subgroup] = mine; }
    workgroupBarrier();
    var sum = 0.0;
    // So many that they are read at once, then what there may be beyond.
    for (var s = 0u; s < 8u; s++) { sum += select(0.0, sums[256u * which + s], s < subgroups); }
    for (var s = 8u; s < subgroups; s++) { sum += sums[256u * which + s]; }
    return sum;
}
