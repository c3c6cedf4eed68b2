// rope.wgsl and attention_one.wgsl in one, for a single row over an f16 cache: every workgroup makes
// its head's query and its KV head's key and value, and one of those that share the KV head leaves
// them in the cache. Nobody reads that slot: the newest position is taken from here.

const HALF: u32 = HEAD / 2u;

var<workgroup> squares: array<vec2<f32>, WORKGROUP>;
var<workgroup> new_query: array<vec4<f32>, QUADS>;
var<workgroup> new_key: array<vec4<f32>, QUADS>;
var<workgroup> new_value: array<vec4<f32>, QUADS>;

fn query_quad(c: u32) -> vec4<f32> {
    return new_query[c];
}

fn halves(lo: vec4<f32>, hi: vec4<f32>) -> vec4<u32> {
    return vec4<u32>(
        pack2x16float(lo.xy),
        pack2x16float(lo.zw),
        pack2x16float(hi.xy),
        pack2x16float(hi.zw),
    );
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
    let row = rows[0];
    // Do whole subgroups fill the workgroup, none smaller than a key?
    let even = size * count == WORKGROUP && size >= LANES;
    let i = select(local, id * size + place, even);
    let lane = i % LANES;
    let group = i / LANES;
    let kv_head = head / (p.heads / p.kv_heads);
    let of_query = head * HEAD;
    let of_key = (p.heads + kv_head) * HEAD;
    let of_value = (p.heads + p.kv_heads + kv_head) * HEAD;
    let angle = r.table * HEAD;

    // Norms, rotation, scale, as in rope.wgsl.
    var sum_squares = vec2<f32>();
    for (var d = local; d < HEAD; d += WORKGROUP) {
        let both = vec2<f32>(qkv[of_query + d], qkv[of_key + d]);
        sum_squares += both * both;
        new_value[d / 4u][d % 4u] = qkv[of_value + d];
    }
    if even {
        let mine = subgroupAdd(sum_squares);
        if place == 0u { squares[id] = mine; }
    } else {
        squares[local] = sum_squares;
    }
    for (var d = HEAD + local; d < PAD; d += WORKGROUP) {
        new_query[d / 4u][d % 4u] = 0.0;
        new_key[d / 4u][d % 4u] = 0.0;
        new_value[d / 4u][d % 4u] = 0.0;
    }
    workgroupBarrier();
    var norm = vec2<f32>();
    for (var s = 0u; s < select(WORKGROUP, count, even); s++) { norm += squares[s]; }
    norm = reciprocals(norm);
    for (var d = local; d < HALF; d += WORKGROUP) {
        let e = d + HALF;
        let c = angles[angle + d];
        let s = angles[angle + e];
        let a = qkv[of_query + d] * norm.x * weight(d);
        let b = qkv[of_query + e] * norm.x * weight(e);
        new_query[d / 4u][d % 4u] = (a * c - b * s) * r.query_scale;
        new_query[e / 4u][e % 4u] = (b * c + a * s) * r.query_scale;
        let k_a = qkv[of_key + d] * norm.y * weight(HEAD + d);
        let k_b = qkv[of_key + e] * norm.y * weight(HEAD + e);
        new_key[d / 4u][d % 4u] = k_a * c - k_b * s;
        new_key[e / 4u][e % 4u] = k_b * c + k_a * s;
    }
    workgroupBarrier();

    for (var e = 0u; e < EACH; e++) {
        let at = 2u * (e * LANES + lane);
        query[e] = Eight(new_query[at], new_query[at + 1u]);
    }
    var start = 0u;
    if p.window != 0u && row.pos + 1u > p.window { start = row.pos + 1u - p.window; }
    let length = (row.pos + 1u - start + batch.splits - 1u) / batch.splits;
    let begin = min(start + workgroup.z * length, row.pos + 1u);
    let end = min(begin + length, row.pos + 1u);
    let cache = (row.seq * p.kv_heads + kv_head) * p.slots;
    let last = begin <= row.pos && row.pos < end;
    if last && head % (p.heads / p.kv_heads) == 0u {
        let to = (cache + row.pos % p.slots) * UNITS;
        for (var c = local; c < UNITS; c += WORKGROUP) {
            k[to + c] = halves(new_key[2u * c], new_key[2u * c + 1u]);
            v[to + c] = halves(new_value[2u * c], new_value[2u * c + 1u]);
        }
    }

    let stored = min(end, row.pos);
    if even {
        look(cache, begin, stored, group, lane);
    } else if local < LANES {
        look_alone(cache, begin, stored, lane);
    }
    // The newest position, rounded as the cache rounds it, for the first group.
    var s = 0.0;
    for (var e = 0u; e < EACH; e++) {
        let at = 2u * (e * LANES + lane);
        let k = widen(halves(new_key[at], new_key[at + 1u]));
        s += dot(k.lo, query[e].lo) + dot(k.hi, query[e].hi);
    }
    if even {
        s = along(s);
    } else {
        s = 0.0;
        for (var c = 0u; c < UNITS; c++) {
            let k = widen(halves(new_key[2u * c], new_key[2u * c + 1u]));
            s += dot(k.lo, new_query[2u * c]) + dot(k.hi, new_query[2u * c + 1u]);
        }
    }
    if last && group == 0u {
        s = shaped(s);
        raise(max(top, s));
        let part = exp(s - top);
        total += part;
        for (var e = 0u; e < EACH; e++) {
            let at = 2u * (e * LANES + lane);
            let v = widen(halves(new_value[at], new_value[at + 1u]));
            acc[e].lo += part * v.lo;
            acc[e].hi += part * v.hi;
        }
    }

    together(group, lane, head * batch.splits + workgroup.z, head * HEAD, local);
}
