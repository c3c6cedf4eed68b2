// Attention of one row and one head, LANES invocations of a subgroup along a key, EACH units of eight
// features apart.
const UNITS: u32 = PAD / 8u;
const EACH: u32 = UNITS / LANES;
const GROUPS: u32 = WORKGROUP / LANES;
const QUADS: u32 = PAD / 4u;
const LOWEST: f32 = -3.0e38;

var<workgroup> tops: array<f32, GROUPS>;
var<workgroup> totals: array<f32, GROUPS>;
var<workgroup> found: array<array<vec4<f32>, QUADS>, GROUPS>;

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
    @halving LANES sum += subgroupShuffleXor(sum, {step}u);
    return sum;
}

fn times_query(k: Eight, e: u32) -> f32 {
    return dot(k.lo, query[e].lo) + dot(k.hi, query[e].hi);
}

fn add_value(v: Eight, weight: f32, e: u32) {
    acc[e].lo += weight * v.lo;
    acc[e].hi += weight * v.hi;
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

// A group of lanes has an online softmax of its own: it goes on with the positions that it asked for, of
// those from `at` to `end`.
fn weigh(at: u32, end: u32, group: u32) {
    @j var score_{j} = 0.0;
    @j @e score_{j} += times_query(opened(key_{j}_{e}), {e}u);
    @j score_{j} = select(LOWEST, shaped(along(score_{j})), at + {j}u * GROUPS + group < end);
    var most = top;
    @j most = max(most, score_{j});
    raise(most);
    @j let weight_{j} = select(0.0, exp(score_{j} - most), score_{j} > LOWEST);
    @j total += weight_{j};
    @j @e add_value(opened(value_{j}_{e}), weight_{j}, {e}u);
}

// Leaves what the groups found, all weighed by the largest maximum, in `totals` and `found`; that maximum.
fn lay_out(group: u32, lane: u32) -> f32 {
    if lane == 0u { tops[group] = top; }
    workgroupBarrier();
    var most = LOWEST;
    for (var g = 0u; g < GROUPS; g++) { most = max(most, tops[g]); }
    raise(most);
    if lane == 0u { totals[group] = total; }
    for (var e = 0u; e < EACH; e++) {
        let c = 2u * (e * LANES + lane);
        found[group][c] = acc[e].lo;
        found[group][c + 1u] = acc[e].hi;
    }
    workgroupBarrier();
    return most;
}
