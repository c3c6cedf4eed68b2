// As attention_newest.wgsl has it. Workgroups: heads (x), parts of the positions (z).

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(num_subgroups) count: u32,
    @builtin(subgroup_id) id: u32,
    @builtin(subgroup_invocation_id) place: u32,
) {
    // Do whole subgroups fill the workgroup, none smaller than a key?
    let even = size * count == WORKGROUP && size >= LANES;
    let i = select(local, id * size + place, even);
    ask_first(workgroup.x, workgroup.z, i);
    attend(workgroup.x, workgroup.z, local, i, size, even);
}
