
// Attention of a single row within a layer (layer.wgsl), over an f16 cache, in subgroups that fill the
// workgroup and have a key each at least. Three of them make the newest query, key and value, which
// others than the newest position never read from the cache.

var<workgroup> new_query: array<vec4<f32>, QUADS>;
var<workgroup> new_key: array<Unit, UNITS>;
var<workgroup> new_value: array<Unit, UNITS>;

const TURNS_PER: u32 = (2u * QUADS + WORKGROUP - 1u) / WORKGROUP;

// Cosines and sines of the row's position; weights of the norms of queries and of keys.
var<workgroup> turns: array<vec4<f32>, QUADS>;
var<workgroup> gains: array<vec4<f32>, 2u * QUADS>;

// The row, once it is set, and the slot of its position.
var<private> row: Row;
var<private> row_slot: u32;
// The head and part of the positions that was asked for: where the keys and values begin, from which
// position to which there are any, and does the newest one belong to it?
var<private> cache: u32;
var<private> begin: u32;
var<private> stored: u32;
var<private> with_newest: bool;

fn shaped(s: f32) -> f32 {
    if CAPPED { return softcap(s, w.softcap); }
    return s;
}

fn take(unit: u32) {
    cache = stage.cache_row + (row.seq * KV_HEADS + unit % HEADS / HEAD_GROUP) * stage.slots;
    var start = 0u;
    if stage.window != 0u && row.pos + 1u > stage.window { start = row.pos + 1u - stage.window; }
    let length = (row.pos + 1u - start + splits - 1u) / splits;
    begin = min(start + unit / HEADS * length, row.pos + 1u);
    let end = min(begin + length, row.pos + 1u);
    stored = min(end, row.pos);
    with_newest = begin <= row.pos && row.pos < end;
}

// Asks for the next positions from `at` on that a group of lanes looks at: every GROUPS-th, AHEAD of
// them.
fn ask(at: u32, group: u32, lane: u32) {
    if at >= stored { return; }
    // No more positions than slots are ever looked at.
    @j let back_{j} = row.pos - min(at + {j}u * GROUPS + group, stored - 1u);
    @j let slot_{j} = cache + row_slot + select(0u, stage.slots, back_{j} > row_slot) - back_{j};
    @j @e key_{j}_{e} = key_unit(slot_{j}, {e}u * LANES + lane);
    @j @e value_{j}_{e} = value_unit(slot_{j}, {e}u * LANES + lane);
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
                let at = what * QUADS + 2u * (e * LANES + lane);
                features[e].lo *= factor * gains[at];
                features[e].hi *= factor * gains[at + 1u];
            }
        }
        var turned: array<Eight, EACH>;
        for (var e = 0u; e < EACH; e++) {
            let other = half_apart(&features, e);
            let unit = e * LANES + lane;
            let sign = select(1.0, -1.0, unit < UNITS / 2u);
            let at = 2u * (unit % (UNITS / 2u));
            turned[e].lo = features[e].lo * turns[at] + sign * turns[at + UNITS] * other.lo;
            turned[e].hi = features[e].hi * turns[at + 1u] + sign * turns[at + UNITS + 1u] * other.hi;
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
            let at = (cache + row_slot) * UNITS + c;
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

const SUBGROUP_QUADS: u32 = 4u; // groups of four features that a subgroup puts together at a time

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

// Adds what the invocation whose number differs by `step` has found.
fn add_across(all: ptr<function, Found>, step: u32) {
    (*all).quad += subgroupShuffleXor((*all).quad, step);
    (*all).total += subgroupShuffleXor((*all).total, step);
}

// Over the invocations of a subgroup that share such a group. (None has more than 128.)
fn over_shares(mine: Found, size: u32) -> Found {
    var all = mine;
    @halving 128 if {step}u >= SUBGROUP_QUADS && {step}u < size { all.top = max(all.top, subgroupShuffleXor(all.top, {step}u)); }
    let factor = exp(mine.top - all.top);
    all.quad *= factor;
    all.total *= factor;
    @halving 128 if {step}u >= SUBGROUP_QUADS && {step}u < size { add_across(&all, {step}u); }
    return all;
}

// Leaves four values, `apart` from each other.
fn put_quad(at: u32, apart: u32, v: vec4<f32>) {
    put(at, v.x);
    put(at + apart, v.y);
    put(at + 2u * apart, v.z);
    put(at + 3u * apart, v.w);
}

// Leaves group c of a head's result.
fn put_result(head: u32, c: u32, found: Found) {
    put_quad(A + head * QUADS + c, A_QUADS, found.quad / found.total);
}

// Where a part of a head's positions lies: groups of four features, then the total and the maximum.
fn part_place(head: u32, part: u32) -> u32 {
    return PARTS + (head * splits + part) * (HEAD + 2u);
}

// A head and a part of the positions, which are taken and the first of which are asked for; then takes the
// next one.
fn attend(unit: u32, next: u32, me: Me) {
    let head = unit % HEADS;
    let part = unit / HEADS;
    let lane = me.i % LANES;
    let group = me.i / LANES;
    top = LOWEST;
    total = 0.0;
    acc = array<Eight, EACH>();
    let subgroup = me.i / me.size;
    let subgroups = WORKGROUP / me.size;
    if subgroup < 3u { make(subgroup, head, me); }
    workgroupBarrier();
    for (var e = 0u; e < EACH; e++) {
        let at = 2u * (e * LANES + lane);
        query[e] = Eight(new_query[at], new_query[at + 1u]);
    }
    // Once even where there are none: the next head is asked for there.
    let end = stored;
    let ends_with_newest = with_newest;
    let least = begin + 1u;
    for (var at = begin; at < max(end, least); at += GROUPS * AHEAD) {
        weigh(at, end, group);
        var then = at + GROUPS * AHEAD;
        if then >= end && next < HEADS * splits {
            take(next);
            then = begin;
        }
        ask(then, group, lane);
    }
    // The newest position for the last group, which has the fewest others.
    if ends_with_newest && subgroup + 1u == subgroups {
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

    let most = lay_out(group, lane);
    if me.i < QUADS {
        let c = me.i;
        var all = Found(vec4<f32>(), 0.0, most);
        for (var g = 0u; g < GROUPS; g++) {
            all.quad += found[g][c];
            all.total += totals[g];
        }
        if splits == 1u {
            put_result(head, c, all);
        } else {
            let at = part_place(head, part);
            put_quad(at + c, QUADS, all.quad);
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
        for (var part = share; part < splits; part += shares) {
            let at = part_place(head, part);
            let ends = vec4<u32>(at + HEAD, at + HEAD + 1u, at + HEAD, at + HEAD);
            let quad = at + c + QUADS * vec4<u32>(0u, 1u, 2u, 3u);
            let words = eight_words(quad, ends);
            mine = both(mine, Found(words.lo, words.hi.x, words.hi.y));
        }
        let all = over_shares(mine, me.size);
        if share == 0u { put_result(head, c, all); }
    }
}
