// One workgroup for each row (x) and head of q, k and v (y): norm, rotation (the half-split form of
// Transformers), scale; then to q, or into the cache.

var<workgroup> out: array<f32, PAD>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let t = workgroup.x;
    let head = workgroup.y;
    let is_query = head < p.heads;
    let is_value = head >= p.heads + p.kv_heads;
    let start = (t * (p.heads + 2u * p.kv_heads) + head) * HEAD;
    let r = reciprocal(start, i);
    if is_value {
        for (var d = i; d < HEAD; d += 64u) { out[d] = qkv[start + d]; }
    } else {
        let angle = (t * 2u + p.table) * HEAD;
        let key = select(HEAD, 0u, is_query);
        let scale = select(1.0, p.query_scale, is_query);
        for (var d = i; d < HEAD / 2u; d += 64u) {
            let e = d + HEAD / 2u;
            let a = qkv[start + d] * r * weight(key + d);
            let b = qkv[start + e] * r * weight(key + e);
            let c = angles[angle + d];
            let s = angles[angle + e];
            out[d] = (a * c - b * s) * scale;
            out[e] = (b * c + a * s) * scale;
        }
    }
    for (var d = HEAD + i; d < PAD; d += 64u) { out[d] = 0.0; }
    workgroupBarrier();
    if is_query {
        for (var d = i; d < PAD; d += 64u) { q[(t * p.heads + head) * PAD + d] = out[d]; }
        return;
    }
    let kv_head = (head - p.heads) % p.kv_heads;
    let slot = (rows[t].seq * p.kv_heads + kv_head) * p.slots + rows[t].pos % p.slots;
    for (var d = i; d < WORDS; d += 64u) {
        if is_value { v[slot * WORDS + d] = word(d); } else { k[slot * WORDS + d] = word(d); }
    }
}
