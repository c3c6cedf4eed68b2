
// Attention of a single row within a layer (layer.wgsl), over an f16 cache, in subgroups that fill the
// workgroup and have a key each at least. Three of them make the newest query, key and value, which
// others than the newest position never read from the cache.

const SUBGROUP_QUADS: u32 = 4u; // groups of four features that a subgroup puts together at a time

var<workgroup> new_query: array<vec4<f32>, QUADS>;
var<workgroup> new_key: array<Unit, UNITS>;
var<workgroup> new_value: array<Unit, UNITS>;

// The row, once it is set.
var<private> row: Row;
// Cosines and sines of this invocation's units, and the weights of a norm: of the query, or of the key.
var<private> cosines: array<Eight, EACH>;
var<private> sines: array<Eight, EACH>;
var<private> gains: array<Eight, EACH>;

// What part `part` of the positions begins and ends with.
fn positions(part: u32) -> vec2<u32> {
    var start = 0u;
    if w.window != 0u && row.pos + 1u > w.window { start = row.pos + 1u - w.window; }
    let length = (row.pos + 1u - start + batch.splits - 1u) / batch.splits;
    let begin = min(start + part * length, row.pos + 1u);
    return vec2<u32>(begin, min(begin + length, row.pos + 1u));
}

// Where the keys and values of a head begin.
fn cache_of(head: u32) -> u32 {
    return (row.seq * KV_HEADS + head / HEAD_GROUP) * w.slots;
}

// Asks for the first of what is in the cache.
fn ask_first(unit: u32, i: u32) {
    let at = positions(unit / HEADS);
    ask(cache_of(unit % HEADS), at.x, min(at.y, row.pos), i / LANES, i % LANES);
}

fn ask_gains_of(what: u32, lane: u32) {
    if NORMED && what < 2u {
        for (var e = 0u; e < EACH; e++) {
            let at = what * QUADS + 2u * (e * LANES + lane);
            gains[e] = Eight(weights[at], weights[at + 1u]);
        }
    }
}

// Asks for what the newest query or key is normed and turned with.
fn ask_turns(me: Me) {
    let lane = me.place % LANES;
    let table = w.table * QUADS;
    ask_gains_of(me.i / me.size, lane);
    for (var e = 0u; e < EACH; e++) {
        let at = table + 2u * (e * LANES + lane) % (QUADS / 2u);
        cosines[e] = Eight(angles[at], angles[at + 1u]);
        sines[e] = Eight(angles[at + QUADS / 2u], angles[at + QUADS / 2u + 1u]);
    }
}

// The features that lie half a head apart from those of unit e.
fn half_apart(v: ptr<function, array<Eight, EACH>>, e: u32) -> Eight {
    if EACH == 1u {
        let lo = subgroupShuffleXor((*v)[0].lo, LANES / 2u);
        return Eight(lo, subgroupShuffleXor((*v)[0].hi, LANES / 2u));
    }
    return (*v)[(e + EACH / 2u) % EACH];
}

// The newest query (0), key (1) or value (2) of a head, by a subgroup: RMSNorm, rotation, scale, as in
// rope.wgsl.
fn make(what: u32, head: u32, me: Me) {
    let lane = me.place % LANES;
    let kv_head = head / HEAD_GROUP;
    let of_keys = select(HEADS + KV_HEADS, HEADS, what == 1u);
    let row_of_qkv = select(of_keys + kv_head, head, what == 0u);
    var features: array<Eight, EACH>;
    for (var e = 0u; e < EACH; e++) {
        features[e] = eight_arrived(QKV + row_of_qkv * HEAD + e * LANES + lane);
    }
    if what < 2u {
        if NORMED {
            var squares = 0.0;
            for (var e = 0u; e < EACH; e++) {
                squares += dot(features[e].lo, features[e].lo) + dot(features[e].hi, features[e].hi);
            }
            let factor = inverseSqrt(along(squares) / f32(HEAD) + w.eps);
            for (var e = 0u; e < EACH; e++) {
                features[e].lo *= factor * gains[e].lo;
                features[e].hi *= factor * gains[e].hi;
            }
        }
        var turned: array<Eight, EACH>;
        for (var e = 0u; e < EACH; e++) {
            let other = half_apart(&features, e);
            let sign = select(1.0, -1.0, e * LANES + lane < UNITS / 2u);
            turned[e].lo = features[e].lo * cosines[e].lo + sign * sines[e].lo * other.lo;
            turned[e].hi = features[e].hi * cosines[e].hi + sign * sines[e].hi * other.hi;
        }
        features = turned;
    }
    if me.place >= LANES { return; }
    for (var e = 0u; e < EACH; e++) {
        let c = e * LANES + lane;
        if what == 0u {
            new_query[2u * c] = features[e].lo * w.query_scale;
            new_query[2u * c + 1u] = features[e].hi * w.query_scale;
        } else {
            let unit = narrow(features[e]);
            // One of the heads that share the KV head leaves it in the cache.
            let at = (cache_of(head) + row.pos % w.slots) * UNITS + c;
            let keep = head % HEAD_GROUP == 0u;
            if what == 1u {
                new_key[c] = unit;
                if keep { k[at] = unit; }
            } else {
                new_value[c] = unit;
                if keep { v[at] = unit; }
            }
        }
    }
}

fn narrow(v: Eight) -> Unit {
    return Unit(
        pack2x16float(v.lo.xy),
        pack2x16float(v.lo.zw),
        pack2x16float(v.hi.xy),
        pack2x16float(v.hi.zw),
    );
}

// What invocations with a part of it each have found of a group of four features: values weighed by
// e^(score - top).
struct Found {
    quad: vec4<f32>,
    total: f32,
    top: f32,
}

fn both(a: Found, b: Found) -> Found {
    let most = max(a.top, b.top);
    let of_a = exp(a.top - most);
    let of_b = exp(b.top - most);
    return Found(a.quad * of_a + b.quad * of_b, a.total * of_a + b.total * of_b, most);
}

// Over the invocations of a subgroup that share such a group.
fn over_shares(mine: Found, size: u32) -> Found {
    var all = mine;
    for (var step = SUBGROUP_QUADS; step < size; step *= 2u) {
        all.top = max(all.top, subgroupShuffleXor(all.top, step));
    }
    let factor = exp(mine.top - all.top);
    all.quad *= factor;
    all.total *= factor;
    for (var step = SUBGROUP_QUADS; step < size; step *= 2u) {
        all.quad += subgroupShuffleXor(all.quad, step);
        all.total += subgroupShuffleXor(all.total, step);
    }
    return all;
}

// Leaves group c of a head's result, by the invocations that share it.
fn put_result(head: u32, c: u32, found: Found, share: u32) {
    if share == 0u {
        let v = found.quad / found.total;
        let at = A + head * QUADS + c;
        put(at, v.x);
        put(at + A_QUADS, v.y);
        put(at + 2u * A_QUADS, v.z);
        put(at + 3u * A_QUADS, v.w);
    }
}

// Where a part of a head's positions lies: groups of four features, then the total and the maximum.
fn part_place(head: u32, part: u32) -> u32 {
    return PARTS + (head * batch.splits + part) * (HEAD + 2u);
}

// A head and a part of the positions, the first of which were asked for.
fn attend(unit: u32, me: Me) {
    let head = unit % HEADS;
    let part = unit / HEADS;
    let lane = me.i % LANES;
    let group = me.i / LANES;
    let from_to = positions(part);
    let cache = cache_of(head);
    top = LOWEST;
    total = 0.0;
    acc = array<Eight, EACH>();
    let subgroup = me.i / me.size;
    let subgroups = WORKGROUP / me.size;
    for (var what = subgroup; what < 3u; what += subgroups) {
        if what != subgroup { ask_gains_of(what, lane); }
        make(what, head, me);
    }
    workgroupBarrier();
    for (var e = 0u; e < EACH; e++) {
        let at = 2u * (e * LANES + lane);
        query[e] = Eight(new_query[at], new_query[at + 1u]);
    }
    look(cache, from_to.x, min(from_to.y, row.pos), group, lane);
    // The newest position for the last group, which has the fewest others.
    if from_to.x <= row.pos && row.pos < from_to.y && subgroup + 1u == subgroups {
        var s = 0.0;
        for (var e = 0u; e < EACH; e++) { s += times_query(opened(new_key[e * LANES + lane]), e); }
        s = shaped(along(s));
        if group + 1u == GROUPS {
            raise(max(top, s));
            let weighed = exp(s - top);
            total += weighed;
            for (var e = 0u; e < EACH; e++) {
                add_value(opened(new_value[e * LANES + lane]), weighed, e);
            }
        }
    }

    if lane == 0u {
        tops[group] = top;
        totals[group] = total;
    }
    for (var e = 0u; e < EACH; e++) {
        let to = group * QUADS + 2u * (e * LANES + lane);
        found[to] = acc[e].lo;
        found[to + 1u] = acc[e].hi;
    }
    workgroupBarrier();
    let share = me.place / SUBGROUP_QUADS;
    let shares = me.size / SUBGROUP_QUADS;
    for (var first = subgroup * SUBGROUP_QUADS; first < QUADS; first += subgroups * SUBGROUP_QUADS) {
        let c = first + me.place % SUBGROUP_QUADS;
        var mine = Found(vec4<f32>(), 0.0, LOWEST);
        for (var g = share; g < GROUPS; g += shares) {
            mine = both(mine, Found(found[g * QUADS + c], totals[g], tops[g]));
        }
        let all = over_shares(mine, me.size);
        if batch.splits == 1u {
            put_result(head, c, all, share);
        } else if share == 0u {
            let at = part_place(head, part);
            for (var d = 0u; d < 4u; d++) { put(at + d * QUADS + c, all.quad[d]); }
            if c == 0u {
                put(at + HEAD, all.total);
                put(at + HEAD + 1u, all.top);
            }
        }
    }
}

// Puts the parts of a head together.
fn merge(head: u32, me: Me) {
    let share = me.place / SUBGROUP_QUADS;
    let shares = me.size / SUBGROUP_QUADS;
    let step = WORKGROUP / me.size * SUBGROUP_QUADS;
    for (var first = me.i / me.size * SUBGROUP_QUADS; first < QUADS; first += step) {
        let c = first + me.place % SUBGROUP_QUADS;
        var mine = Found(vec4<f32>(), 0.0, LOWEST);
        for (var part = share; part < batch.splits; part += shares) {
            let at = part_place(head, part);
            let ends = vec4<u32>(at + HEAD, at + HEAD + 1u, at + HEAD, at + HEAD);
            let quad = at + c + QUADS * vec4<u32>(0u, 1u, 2u, 3u);
            let words = eight_words(quad, ends);
            mine = both(mine, Found(words.lo, words.hi.x, words.hi.y));
        }
        put_result(head, c, over_shares(mine, me.size), share);
    }
}
