// Attention as in attention.wgsl of one row and HEADS heads, for devices with subgroups. LANES
// invocations of a subgroup lie along a key, EACH units of eight features apart; each of GROUPS
// such groups has an online softmax of its own over the keys that are its, AHEAD of them at once, and
// nothing in the workgroup waits for anything until these are put together at the end.

const UNITS: u32 = PAD / 8u;
const EACH: u32 = UNITS / LANES;
const GROUPS: u32 = WORKGROUP / LANES;
const LOWEST: f32 = -3.0e38;

var<workgroup> range: vec2<u32>;
var<workgroup> whole: u32; // do subgroups fill the workgroup?
var<workgroup> exchange: array<f32, WORKGROUP>;
var<workgroup> tops: array<f32, GROUPS * HEADS>;
var<workgroup> totals: array<f32, GROUPS * HEADS>;
var<workgroup> values: array<f32, GROUPS * PAD>;
var<workgroup> outs: array<f32, HEAD>;

// The sum over the LANES invocations along a key.
fn along(v: f32, i: u32, even: bool) -> f32 {
    var sum = v;
    if even {
        for (var step = LANES / 2u; step > 0u; step /= 2u) { sum += subgroupShuffleXor(sum, step); }
        return sum;
    }
    exchange[i] = v;
    workgroupBarrier();
    sum = 0.0;
    for (var l = 0u; l < LANES; l++) { sum += exchange[i / LANES * LANES + l]; }
    workgroupBarrier();
    return sum;
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
    let t = workgroup.y;
    let row = rows[t];
    if local == 0u {
        var start = 0u;
        if p.window != 0u && row.pos + 1u > p.window { start = row.pos + 1u - p.window; }
        let part = (row.end - start + batch.splits - 1u) / batch.splits;
        let begin = min(start + workgroup.z * part, row.end);
        range = vec2<u32>(begin, min(begin + part, row.end));
        whole = select(0u, 1u, size * count == WORKGROUP && size >= LANES);
    }
    let part = workgroupUniformLoad(&range);
    let even = workgroupUniformLoad(&whole) == 1u;
    let i = select(local, id * size + place, even);
    let lane = i % LANES;
    let group = i / LANES;
    let head0 = workgroup.x * HEADS;
    let cache = (row.seq * p.kv_heads + head0 / (p.heads / p.kv_heads)) * p.slots;

    var query: array<Eight, HEADS * EACH>;
    for (var h = 0u; h < HEADS; h++) {
        for (var e = 0u; e < EACH; e++) {
            let at = (row.place * p.heads + head0 + h) * (PAD / 4u) + 2u * (e * LANES + lane);
            query[h * EACH + e] = Eight(q[at], q[at + 1u]);
        }
    }
    var acc: array<Eight, HEADS * EACH>;
    var top: array<f32, HEADS>;
    var sum: array<f32, HEADS>;
    for (var h = 0u; h < HEADS; h++) { top[h] = LOWEST; }

    for (var at = part.x; at < part.y; at += GROUPS * AHEAD) {
        var k_units: array<Eight, AHEAD * EACH>;
        var v_units: array<Eight, AHEAD * EACH>;
        for (var j = 0u; j < AHEAD; j++) {
            let slot = cache + min(at + j * GROUPS + group, part.y - 1u) % p.slots;
            for (var e = 0u; e < EACH; e++) {
                k_units[j * EACH + e] = key(slot, e * LANES + lane);
                v_units[j * EACH + e] = value(slot, e * LANES + lane);
            }
        }
        for (var h = 0u; h < HEADS; h++) {
            var scores: array<f32, AHEAD>;
            var most = top[h];
            for (var j = 0u; j < AHEAD; j++) {
                var s = 0.0;
                for (var e = 0u; e < EACH; e++) {
                    let k = k_units[j * EACH + e];
                    let u = query[h * EACH + e];
                    s += dot(k.lo, u.lo) + dot(k.hi, u.hi);
                }
                s = along(s, i, even);
                if p.softcap != 0.0 { s = softcap(s, p.softcap); }
                scores[j] = select(LOWEST, s, at + j * GROUPS + group < part.y);
                most = max(most, scores[j]);
            }
            let factor = exp(top[h] - most);
            top[h] = most;
            sum[h] *= factor;
            for (var e = 0u; e < EACH; e++) {
                acc[h * EACH + e].lo *= factor;
                acc[h * EACH + e].hi *= factor;
            }
            for (var j = 0u; j < AHEAD; j++) {
                let weight = select(0.0, exp(scores[j] - most), scores[j] > LOWEST);
                sum[h] += weight;
                for (var e = 0u; e < EACH; e++) {
                    acc[h * EACH + e].lo += weight * v_units[j * EACH + e].lo;
                    acc[h * EACH + e].hi += weight * v_units[j * EACH + e].hi;
                }
            }
        }
    }

    if lane == 0u {
        for (var h = 0u; h < HEADS; h++) {
            tops[h * GROUPS + group] = top[h];
            totals[h * GROUPS + group] = sum[h];
        }
    }
    for (var h = 0u; h < HEADS; h++) {
        workgroupBarrier();
        for (var e = 0u; e < EACH; e++) {
            let to = group * PAD + 8u * (e * LANES + lane);
            let mine = acc[h * EACH + e];
            for (var d = 0u; d < 4u; d++) {
                values[to + d] = mine.lo[d];
                values[to + 4u + d] = mine.hi[d];
            }
        }
        workgroupBarrier();
        var most = LOWEST;
        for (var g = 0u; g < GROUPS; g++) { most = max(most, tops[h * GROUPS + g]); }
        var total = 0.0;
        for (var g = 0u; g < GROUPS; g++) {
            total += totals[h * GROUPS + g] * exp(tops[h * GROUPS + g] - most);
        }
        let head = head0 + h;
        let to = ((t * p.heads + head) * batch.splits + workgroup.z) * (HEAD + 2u);
        for (var d = local; d < HEAD; d += WORKGROUP) {
            var v = 0.0;
            for (var g = 0u; g < GROUPS; g++) {
                v += values[g * PAD + d] * exp(tops[h * GROUPS + g] - most);
            }
            if batch.splits == 1u {
                outs[d] = v / total;
                a[t * p.stride + head * HEAD + d] = v / total;
            } else {
                parts[to + d] = v;
            }
        }
        if batch.splits == 1u {
            workgroupBarrier();
            keep(t * p.stride + head * HEAD, local);
        } else if local == 0u {
            parts[to + HEAD] = total;
            parts[to + HEAD + 1u] = most;
        }
    }
}
