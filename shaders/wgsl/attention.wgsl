// Attention of QUERIES = ROWS rows × HEADS heads, which share a KV head, over a part of the
// positions, 32 at a time with an online softmax (Milakov & Gimelshein 2018). Workgroups: blocks of
// heads (x), blocks of rows (y), parts of the positions (z). With one part the result is stored;
// with more, its unnormalised sums, Σe and the maximum, for merge.wgsl.

const QUERIES: u32 = HEADS * ROWS;
const KEYS: u32 = 32u;
const UNITS: u32 = PAD / 8u; // eight features
const LANES: u32 = WORKGROUP / KEYS; // along a key
const SUBSETS: u32 = WORKGROUP / UNITS; // of the values
const LOWEST: f32 = -3.0e38;

var<workgroup> queries: array<vec4<f32>, QUERIES * PAD / 4u>;
var<workgroup> scratch: array<f32, WORKGROUP * 8u>;
var<workgroup> scores: array<f32, QUERIES * KEYS>;
var<workgroup> maximum: array<f32, QUERIES>;
var<workgroup> raised: array<f32, QUERIES>; // the maximum with the new scores
var<workgroup> sum: array<f32, QUERIES>;
var<workgroup> range: vec2<u32>;

// The first position that a row sees.
fn first_seen(row: Row) -> u32 {
    if p.window == 0u || row.pos + 1u <= p.window { return 0u; }
    return row.pos + 1u - p.window;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let head0 = workgroup.x * HEADS;
    let kv_head = head0 / (p.heads / p.kv_heads);
    let t0 = workgroup.y * ROWS;
    if i == 0u {
        var start = 0xffffffffu;
        var to = 0u;
        for (var r = 0u; r < ROWS; r++) {
            let row = rows[min(t0 + r, batch.n - 1u)];
            start = min(start, first_seen(row));
            to = max(to, row.end);
        }
        // Whole blocks of keys for each part.
        let part = ((to - start + batch.splits - 1u) / batch.splits + KEYS - 1u) / KEYS * KEYS;
        let begin = min(start + workgroup.z * part, to);
        range = vec2<u32>(begin, min(begin + part, to));
    }
    if i < QUERIES {
        maximum[i] = LOWEST;
        sum[i] = 0.0;
    }
    for (var c = i; c < QUERIES * PAD / 4u; c += WORKGROUP) {
        let query = c / (PAD / 4u);
        let start = rows[min(t0 + query / HEADS, batch.n - 1u)].place;
        let head = start * p.heads + head0 + query % HEADS;
        queries[c] = q[head * (PAD / 4u) + c % (PAD / 4u)];
    }
    let part = workgroupUniformLoad(&range);
    let cache = (rows[t0].seq * p.kv_heads + kv_head) * p.slots;
    var acc: array<vec4<f32>, 2u * QUERIES>;

    for (var at = part.x; at < part.y; at += KEYS) {
        // Scores: LANES invocations along each key.
        let slot = cache + min(at + i / LANES, part.y - 1u) % p.slots;
        var dots: array<f32, QUERIES>;
        for (var c = i % LANES; c < UNITS; c += LANES) {
            let e = key(slot, c);
            for (var n = 0u; n < QUERIES; n++) {
                let start = n * (PAD / 4u) + 2u * c;
                dots[n] += dot(e.lo, queries[start]) + dot(e.hi, queries[start + 1u]);
            }
        }
        for (var n = 0u; n < QUERIES; n++) { scratch[n * WORKGROUP + i] = dots[n]; }
        workgroupBarrier();
        for (var o = i; o < QUERIES * KEYS; o += WORKGROUP) {
            var s = 0.0;
            for (var l = 0u; l < LANES; l++) { s += scratch[o * LANES + l]; }
            if p.softcap != 0.0 { s = softcap(s, p.softcap); }
            let row = rows[min(t0 + o / KEYS / HEADS, batch.n - 1u)];
            let pos = at + o % KEYS;
            let seen = pos >= first_seen(row) && pos < min(row.end, part.y);
            scores[o] = select(LOWEST, s, seen);
        }
        workgroupBarrier();
        for (var o = i; o < QUERIES * KEYS; o += WORKGROUP) {
            let query = o / KEYS;
            var top = maximum[query];
            for (var n = 0u; n < KEYS; n++) { top = max(top, scores[query * KEYS + n]); }
            scratch[o] = select(0.0, exp(scores[o] - top), scores[o] > LOWEST);
            if o % KEYS == 0u { raised[query] = top; }
        }
        workgroupBarrier();
        // Values: UNITS invocations along each, SUBSETS values side by side.
        for (var n = 0u; n < QUERIES; n++) {
            let factor = exp(maximum[n] - raised[n]);
            acc[2u * n] *= factor;
            acc[2u * n + 1u] *= factor;
        }
        if i < SUBSETS * UNITS {
            for (var n = i / UNITS; n < min(KEYS, part.y - at); n += SUBSETS) {
                let e = value(cache + (at + n) % p.slots, i % UNITS);
                for (var m = 0u; m < QUERIES; m++) {
                    acc[2u * m] += scratch[m * KEYS + n] * e.lo;
                    acc[2u * m + 1u] += scratch[m * KEYS + n] * e.hi;
                }
            }
        }
        var added = 0.0;
        if i < QUERIES {
            for (var n = 0u; n < KEYS; n++) { added += scratch[i * KEYS + n]; }
        }
        workgroupBarrier();
        if i < QUERIES {
            sum[i] = sum[i] * exp(maximum[i] - raised[i]) + added;
            maximum[i] = raised[i];
        }
    }

    for (var n = 0u; n < QUERIES; n++) {
        workgroupBarrier();
        for (var d = 0u; d < 4u; d++) {
            scratch[i * 8u + d] = acc[2u * n][d];
            scratch[i * 8u + 4u + d] = acc[2u * n + 1u][d];
        }
        workgroupBarrier();
        let t = t0 + n / HEADS;
        if t >= batch.n { continue; }
        let head = head0 + n % HEADS;
        let to = ((t * p.heads + head) * batch.splits + workgroup.z) * (HEAD + 2u);
        for (var d = i; d < HEAD; d += WORKGROUP) {
            var v = 0.0;
            for (var s = 0u; s < SUBSETS; s++) { v += scratch[s * UNITS * 8u + d]; }
            if batch.splits == 1u {
                a[t * p.stride + head * HEAD + d] = v / sum[n];
            } else {
                parts[to + d] = v;
            }
        }
        if i == 0u && batch.splits > 1u {
            parts[to + HEAD] = sum[n];
            parts[to + HEAD + 1u] = maximum[n];
        }
    }
}
