// Attention as in attention.wgsl of one row and one head, for devices with subgroups. LANES
// invocations of a subgroup lie along a key, EACH units of eight features apart; each of GROUPS such
// groups has an online softmax of its own over the keys that are its, AHEAD of them at once, and
// nothing in the workgroup waits for anything until these are put together at the end. Workgroups:
// heads (x), rows (y), parts of the positions (z).

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
    let first_query = (row.place * p.heads + head) * QUADS;
    var query: array<Eight, EACH>;
    for (var e = 0u; e < EACH; e++) {
        let at = first_query + 2u * (e * LANES + lane);
        query[e] = Eight(q[at], q[at + 1u]);
    }
    var start = 0u;
    if p.window != 0u && row.pos + 1u > p.window { start = row.pos + 1u - p.window; }
    let length = (row.end - start + batch.splits - 1u) / batch.splits;
    let begin = min(start + workgroup.z * length, row.end);
    let end = min(begin + length, row.end);
    let cache = (row.seq * p.kv_heads + head / (p.heads / p.kv_heads)) * p.slots;

    var acc: array<Eight, EACH>;
    var top = LOWEST;
    var total = 0.0;
    if even {
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
            let factor = exp(top - most);
            top = most;
            total *= factor;
            for (var e = 0u; e < EACH; e++) {
                acc[e].lo *= factor;
                acc[e].hi *= factor;
            }
            for (var j = 0u; j < AHEAD; j++) {
                let weight = select(0.0, exp(scores[j] - most), scores[j] > LOWEST);
                total += weight;
                for (var e = 0u; e < EACH; e++) {
                    acc[e].lo += weight * v_units[j * EACH + e].lo;
                    acc[e].hi += weight * v_units[j * EACH + e].hi;
                }
            }
        }
    } else if local < LANES {
        // Nobody to add up with: these do all of it, each the whole of every score.
        for (var at = begin; at < end; at++) {
            let slot = cache + at % p.slots;
            var s = 0.0;
            for (var c = 0u; c < UNITS; c++) {
                let k = key(slot, c);
                s += dot(k.lo, q[first_query + 2u * c]) + dot(k.hi, q[first_query + 2u * c + 1u]);
            }
            s = shaped(s);
            let most = max(top, s);
            let factor = exp(top - most);
            let weight = exp(s - most);
            top = most;
            total = total * factor + weight;
            for (var e = 0u; e < EACH; e++) {
                let v = value(slot, e * LANES + lane);
                acc[e].lo = acc[e].lo * factor + weight * v.lo;
                acc[e].hi = acc[e].hi * factor + weight * v.hi;
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
    var most = LOWEST;
    for (var g = 0u; g < GROUPS; g++) { most = max(most, tops[g]); }
    var factors: array<f32, GROUPS>;
    var sum = 0.0;
    for (var g = 0u; g < GROUPS; g++) {
        factors[g] = exp(tops[g] - most);
        sum += totals[g] * factors[g];
    }
    let inverse = select(1.0, 1.0 / sum, batch.splits == 1u);
    let to = ((t * p.heads + head) * batch.splits + workgroup.z) * (HEAD + 2u);
    for (var c = local; c < QUADS; c += WORKGROUP) {
        var v: vec4<f32>;
        for (var g = 0u; g < GROUPS; g++) { v += factors[g] * found[g * QUADS + c]; }
        v *= inverse;
        kept[c] = v;
        for (var d = 0u; d < 4u; d++) {
            if 4u * c + d < HEAD {
                if batch.splits == 1u {
                    a[t * p.stride + head * HEAD + 4u * c + d] = v[d];
                } else {
                    parts[to + 4u * c + d] = v[d];
                }
            }
        }
    }
    if batch.splits == 1u {
        keep(t * p.stride + head * HEAD, local);
    } else if local == 0u {
        parts[to + HEAD] = sum;
        parts[to + HEAD + 1u] = most;
    }
}
