// Subgroups may be of any size. Where they fill the workgroup evenly, invocations are numbered along
// them: a group of LANES then lies within one, or is made of whole ones. Where they do not, the
// numbers are the workgroup's and nothing is added up within subgroups.
var<private> even: bool;
var<private> subgroup: u32; // invocations of a subgroup

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) i: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(num_subgroups) count: u32,
    @builtin(subgroup_id) id: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    even = size * count == WORKGROUP;
    subgroup = size;
    run(workgroup.x, select(i, id * size + lane, even));
}

var<workgroup> sums: array<f32, WORKGROUP * SUMS>;

// Adds each of `sum` up over the LANES invocations of a group. Sum s is then the sum of y values
// of `sums` from s · WORKGROUP + x on.
fn reduce(sum: ptr<function, array<f32, SUMS>>, i: u32) -> vec2<u32> {
    // Invocations whose sums are added up here.
    let joined = select(1u, min(subgroup, LANES), even);
    if even && subgroup <= LANES {
        for (var s = 0u; s < SUMS; s++) { (*sum)[s] = subgroupAdd((*sum)[s]); }
    } else if even {
        for (var s = 0u; s < SUMS; s++) {
            var v = (*sum)[s];
            @halving LANES v += subgroupShuffleXor(v, {step}u);
            (*sum)[s] = v;
        }
    }
    if i % joined == 0u {
        for (var s = 0u; s < SUMS; s++) { sums[s * WORKGROUP + i / joined] = (*sum)[s]; }
    }
    workgroupBarrier();
    return vec2<u32>((i - i % LANES) / joined, LANES / joined);
}
