// What attention_one.wgsl and attention_rope.wgsl share beside attention_lanes.wgsl.
var<workgroup> kept: array<vec4<f32>, QUADS>;
var<workgroup> sizes: array<f32, QUADS>;

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

// Puts what the groups found together: the head's result, from feature `at` of a on, or part `part`
// of it.
fn together(group: u32, lane: u32, part: u32, at: u32, local: u32) {
    let most = lay_out(group, lane);
    let whole = batch.splits == 1u;
    let to = part * (HEAD + 2u);
    for (var c = local; c < QUADS; c += WORKGROUP) {
        var sum = 0.0;
        var v: vec4<f32>;
        for (var g = 0u; g < GROUPS; g++) {
            sum += totals[g];
            v += found[g][c];
        }
        v *= select(1.0, 1.0 / sum, whole);
        kept[c] = v;
        for (var d = 0u; d < 4u; d++) {
            if 4u * c + d < HEAD {
                if whole { a[at + 4u * c + d] = v[d]; } else { parts[to + 4u * c + d] = v[d]; }
            }
        }
        if !whole && c == 0u {
            parts[to + HEAD] = sum;
            parts[to + HEAD + 1u] = most;
        }
    }
    if whole { keep(at, local); }
}
