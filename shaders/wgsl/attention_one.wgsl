// Attention as in attention.wgsl of one row and one head, along subgroups (attention_lanes.wgsl).
// Workgroups: heads (x), rows (y), parts of the positions (z).

var<private> first_quad: u32;

fn query_quad(c: u32) -> vec4<f32> {
    return q[first_quad + c];
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(num_subgroups) count: u32,
    @builtin(subgroup_id) id: u32,
    @builtin(subgroup_invocation_id) place: u32,
) {
    let head = workgroup.x;
    let t = workgroup.y;
    let row = rows[t];
    // Do whole subgroups fill the workgroup, none smaller than a key?
    let even = size * count == WORKGROUP && size >= LANES;
    let i = select(local, id * size + place, even);
    let lane = i % LANES;
    let group = i / LANES;
    first_quad = (row.place * p.heads + head) * QUADS;
    var start = 0u;
    if p.window != 0u && row.pos + 1u > p.window { start = row.pos + 1u - p.window; }
    let length = (row.end - start + batch.splits - 1u) / batch.splits;
    let begin = min(start + workgroup.z * length, row.end);
    let end = min(begin + length, row.end);
    let cache = (row.seq * p.kv_heads + head / (p.heads / p.kv_heads)) * p.slots;
    ask(cache, begin, end, group, lane);
    for (var e = 0u; e < EACH; e++) {
        let at = 2u * (e * LANES + lane);
        query[e] = Eight(query_quad(at), query_quad(at + 1u));
    }
    if even {
        look(cache, begin, end, group, lane);
    } else if local < LANES {
        look_alone(cache, begin, end, lane);
    }
    let part = (t * p.heads + head) * batch.splits + workgroup.z;
    together(group, lane, part, t * p.stride + head * HEAD, local);
}
