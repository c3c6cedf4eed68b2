// What attention_one.wgsl and attention_rope.wgsl share: one row and one head, LANES invocations of a
// subgroup along a key, EACH units of eight features apart.
const UNITS: u32 = PAD / 8u;
const EACH: u32 = UNITS / LANES;
const GROUPS: u32 = WORKGROUP / LANES;
const QUADS: u32 = PAD / 4u;
const LOWEST: f32 = -3.0e38;

var<workgroup> tops: array<f32, GROUPS>;
var<workgroup> totals: array<f32, GROUPS>;
var<workgroup> found: array<vec4<f32>, GROUPS * QUADS>;

// This invocation's units of the query and of what it has found: values weighed by e^(score - top).
var<private> query: array<Eight, EACH>;
var<private> acc: array<Eight, EACH>;
@j @e var<private> key_{j}_{e}: Unit; // asked for
@j @e var<private> value_{j}_{e}: Unit;
var<private> top: f32 = LOWEST;
var<private> total: f32;

// The sum over the LANES invocations along a key.
fn along(v: f32) -> f32 {
    var sum = v;
    for (var step = LANES / 2u; step > 0u; step /= 2u) { sum += subgroupShuffleXor(sum, step); }
    return sum;
}

fn shaped(s: f32) -> f32 {
    if p.softcap != 0.0 { return softcap(s, p.softcap); }
    return s;
}

fn times_query(k: Eight, e: u32) -> f32 {
    return dot(k.lo, query[e].lo) + dot(k.hi, query[e].hi);
}

fn add_value(v: Eight, weight: f32, e: u32) {
    acc[e].lo += weight * v.lo;
    acc[e].hi += weight * v.hi;
}

// Asks for the next positions from `at` on that a group of lanes looks at: every GROUPS-th, AHEAD of
// them.
fn ask(cache: u32, at: u32, end: u32, group: u32, lane: u32) {
    if at >= end { return; }
    // No more positions than slots are ever looked at, so that they go around once at most.
    let first = at % p.slots;
    @j let on_{j} = first + min({j}u * GROUPS + group, end - 1u - at);
    @j let slot_{j} = cache + select(on_{j}, on_{j} - p.slots, on_{j} >= p.slots);
    @j @e key_{j}_{e} = key_unit(slot_{j}, {e}u * LANES + lane);
    @j @e value_{j}_{e} = value_unit(slot_{j}, {e}u * LANES + lane);
}

// Positions from `begin` to `end`, in whole subgroups: a group of lanes has an online softmax of its
// own over those that it asks for, the first of which it has asked for, and waits for nobody.
fn look(cache: u32, begin: u32, end: u32, group: u32, lane: u32) {
    for (var at = begin; at < end; at += GROUPS * AHEAD) {
        @j var score_{j} = 0.0;
        @j @e score_{j} += times_query(opened(key_{j}_{e}), {e}u);
        @j score_{j} = select(LOWEST, shaped(along(score_{j})), at + {j}u * GROUPS + group < end);
        var most = top;
        @j most = max(most, score_{j});
        raise(most);
        @j let weight_{j} = select(0.0, exp(score_{j} - most), score_{j} > LOWEST);
        @j total += weight_{j};
        @j @e add_value(opened(value_{j}_{e}), weight_{j}, {e}u);
        ask(cache, at + GROUPS * AHEAD, end, group, lane);
    }
}

// Weighs by a new maximum.
fn raise(most: f32) {
    let factor = exp(top - most);
    top = most;
    total *= factor;
    for (var e = 0u; e < EACH; e++) {
        acc[e].lo *= factor;
        acc[e].hi *= factor;
    }
}
