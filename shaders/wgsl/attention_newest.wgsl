// rope.wgsl and attention_one.wgsl in one, for a single row over an f16 cache: every workgroup makes
// its head's query and its KV head's key and value, and one of those that share the KV head leaves
// them in the cache. Nobody reads that slot: the newest position is taken from here.

const HALF: u32 = HEAD / 2u;
const PER_HALF: u32 = (HALF + WORKGROUP - 1u) / WORKGROUP;

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

// What part `part` of the positions begins and ends with.
fn positions(row: Row, part: u32) -> vec2<u32> {
    var start = 0u;
    if p.window != 0u && row.pos + 1u > p.window { start = row.pos + 1u - p.window; }
    let length = (row.pos + 1u - start + batch.splits - 1u) / batch.splits;
    let begin = min(start + part * length, row.pos + 1u);
    return vec2<u32>(begin, min(begin + length, row.pos + 1u));
}

// Where the keys and values of a head begin.
fn cache_of(row: Row, head: u32) -> u32 {
    return (row.seq * p.kv_heads + head / (p.heads / p.kv_heads)) * p.slots;
}

// Asks for the first of what is in the cache.
fn ask_first(head: u32, part: u32, i: u32) {
    let row = rows[0];
    let at = positions(row, part);
    ask(cache_of(row, head), at.x, min(at.y, row.pos), i / LANES, i % LANES);
}

// The newest position, rounded as the cache rounds it, for the first group.
fn add_newest(group: u32, lane: u32, even: bool) {
    var s = 0.0;
    if even {
        for (var e = 0u; e < EACH; e++) {
            let at = 2u * (e * LANES + lane);
            let k = widen(halves(new_key[at], new_key[at + 1u]));
            s += dot(k.lo, query[e].lo) + dot(k.hi, query[e].hi);
        }
        s = along(s);
    } else {
        for (var c = 0u; c < UNITS; c++) {
            let k = widen(halves(new_key[2u * c], new_key[2u * c + 1u]));
            s += dot(k.lo, new_query[2u * c]) + dot(k.hi, new_query[2u * c + 1u]);
        }
    }
    if group == 0u {
        s = shaped(s);
        raise(max(top, s));
        let weighed = exp(s - top);
        total += weighed;
        for (var e = 0u; e < EACH; e++) {
            let at = 2u * (e * LANES + lane);
            add_value(widen(halves(new_value[at], new_value[at + 1u])), weighed, e);
        }
    }
}

// A head and a part of the positions, once these are asked for. Invocation `local` is number `i` along
// the subgroups, of `size`, which fill the workgroup and have a key each at least, or not (`even`).
fn attend(head: u32, part: u32, local: u32, i: u32, size: u32, even: bool) {
    let row = rows[0];
    let lane = i % LANES;
    let group = i / LANES;
    let kv_head = head / (p.heads / p.kv_heads);
    let cache = cache_of(row, head);
    let from_to = positions(row, part);
    let begin = from_to.x;
    let end = from_to.y;
    top = LOWEST;
    total = 0.0;
    acc = array<Eight, EACH>();
    let of_query = head * HEAD;
    let of_key = (p.heads + kv_head) * HEAD;
    let of_value = (p.heads + p.kv_heads + kv_head) * HEAD;
    let angle = r.table * HEAD;

    // Norms, rotation, scale, as in rope.wgsl, by as many invocations as there is something to do for. All
    // is asked for before any of it is needed: features d and d + HALF of the query, then of the key.
    var pairs: array<vec4<f32>, PER_HALF>;
    var gains: array<vec4<f32>, PER_HALF>;
    var turns: array<vec2<f32>, PER_HALF>;
    for (var m = 0u; m < PER_HALF; m++) {
        let d = m * WORKGROUP + local;
        let e = d + HALF;
        if d < HALF {
            pairs[m] = vec4<f32>(
                qkv[of_query + d], qkv[of_query + e], qkv[of_key + d], qkv[of_key + e],
            );
            turns[m] = vec2<f32>(angles[angle + d], angles[angle + e]);
            gains[m] = vec4<f32>(weight(d), weight(e), weight(HEAD + d), weight(HEAD + e));
        }
    }
    for (var d = local; d < HEAD; d += WORKGROUP) { new_value[d / 4u][d % 4u] = qkv[of_value + d]; }
    var sum_squares = vec2<f32>();
    for (var m = 0u; m < PER_HALF; m++) {
        let four = pairs[m] * pairs[m];
        sum_squares += four.xz + four.yw;
    }
    if even {
        let mine = subgroupAdd(sum_squares);
        if i % size == 0u { squares[i / size] = mine; }
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
    for (var s = 0u; s < select(WORKGROUP, WORKGROUP / size, even); s++) { norm += squares[s]; }
    norm = reciprocals(norm);
    for (var m = 0u; m < PER_HALF; m++) {
        let d = m * WORKGROUP + local;
        let e = d + HALF;
        if d < HALF {
            let c = turns[m].x;
            let s = turns[m].y;
            let four = pairs[m] * norm.xxyy * gains[m];
            new_query[d / 4u][d % 4u] = (four.x * c - four.y * s) * r.query_scale;
            new_query[e / 4u][e % 4u] = (four.y * c + four.x * s) * r.query_scale;
            new_key[d / 4u][d % 4u] = four.z * c - four.w * s;
            new_key[e / 4u][e % 4u] = four.w * c + four.z * s;
        }
    }
    workgroupBarrier();

    for (var e = 0u; e < EACH; e++) {
        let at = 2u * (e * LANES + lane);
        query[e] = Eight(new_query[at], new_query[at + 1u]);
    }
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
    // The newest position for the first group, with whole subgroups.
    if last && (!even || i < size) { add_newest(group, lane, even); }

    together(group, lane, head * batch.splits + part, head * HEAD, local);
}
