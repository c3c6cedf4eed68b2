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
var<workgroup> kept: array<vec4<f32>, QUADS>;
var<workgroup> sizes: array<f32, QUADS>;

// This invocation's units of the query and of what it has found: values weighed by e^(score - top).
var<private> query: array<Eight, EACH>;
var<private> acc: array<Eight, EACH>;
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

// Positions from `begin` to `end`, in whole subgroups: a group of lanes has an online softmax of its
// own over every GROUPS-th of them, AHEAD at once, and waits for nobody.
fn look(cache: u32, begin: u32, end: u32, group: u32, lane: u32) {
    for (var at = begin; at < end; at += GROUPS * AHEAD) {
        var k_units: array<Eight, AHEAD * EACH>;
        var v_units: array<Eight, AHEAD * EACH>;
        for (var j = 0u; j < AHEAD; j++) {
            let slot = cache + min(at + j * GROUPS + group, end - 1u) % p.slots;
            for (var e = 0u; e < EACH; e++) {
                k_units[j * EACH + e] = key(slot, e * LANES + lane);
                v_units[j * EACH + e] = value(slot, e * LANES + lane);
            }
        }
        var scores: array<f32, AHEAD>;
        var most = top;
        for (var j = 0u; j < AHEAD; j++) {
            var s = 0.0;
            for (var e = 0u; e < EACH; e++) {
                let k = k_units[j * EACH + e];
                s += dot(k.lo, query[e].lo) + dot(k.hi, query[e].hi);
            }
            scores[j] = select(LOWEST, shaped(along(s)), at + j * GROUPS + group < end);
            most = max(most, scores[j]);
        }
        raise(most);
        for (var j = 0u; j < AHEAD; j++) {
            let weight = select(0.0, exp(scores[j] - most), scores[j] > LOWEST);
            total += weight;
            for (var e = 0u; e < EACH; e++) {
                acc[e].lo += weight * v_units[j * EACH + e].lo;
                acc[e].hi += weight * v_units[j * EACH + e].hi;
            }
        }
    }
}

// Where subgroups do not fill the workgroup: LANES invocations do all of it, each the whole of every
// score.
fn look_alone(cache: u32, begin: u32, end: u32, lane: u32) {
    for (var at = begin; at < end; at++) {
        let slot = cache + at % p.slots;
        var s = 0.0;
        for (var c = 0u; c < UNITS; c++) {
            let k = key(slot, c);
            s += dot(k.lo, query_quad(2u * c)) + dot(k.hi, query_quad(2u * c + 1u));
        }
        s = shaped(s);
        raise(max(top, s));
        let weight = exp(s - top);
        total += weight;
        for (var e = 0u; e < EACH; e++) {
            let v = value(slot, e * LANES + lane);
            acc[e].lo += weight * v.lo;
            acc[e].hi += weight * v.hi;
        }
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

// Puts what the groups found together: the head's result, from feature `at` of a on, or part `part`
// of it.
fn together(group: u32, lane: u32, part: u32, at: u32, local: u32) {
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
    var most = LOWEST;
    for (var g = 0u; g < GROUPS; g++) { most = max(most, tops[g]); }
    var factors: array<f32, GROUPS>;
    var sum = 0.0;
    for (var g = 0u; g < GROUPS; g++) {
        factors[g] = exp(tops[g] - most);
        sum += totals[g] * factors[g];
    }
    let inverse = select(1.0, 1.0 / sum, batch.splits == 1u);
    let to = part * (HEAD + 2u);
    for (var c = local; c < QUADS; c += WORKGROUP) {
        var v: vec4<f32>;
        for (var g = 0u; g < GROUPS; g++) { v += factors[g] * found[g * QUADS + c]; }
        v *= inverse;
        kept[c] = v;
        for (var d = 0u; d < 4u; d++) {
            if 4u * c + d < HEAD {
                if batch.splits == 1u {
                    a[at + 4u * c + d] = v[d];
                } else {
                    parts[to + 4u * c + d] = v[d];
                }
            }
        }
    }
    if batch.splits == 1u {
        keep(at, local);
    } else if local == 0u {
        parts[to + HEAD] = sum;
        parts[to + HEAD + 1u] = most;
    }
}
