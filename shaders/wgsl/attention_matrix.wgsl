// Attention of QUERIES = ROWS rows × HEADS heads, which share a KV head, by cooperative matrices of
// 16 × 16 over an f16 cache whose heads have a multiple of 16 slots, so that 16 positions from a
// multiple of 16 on never come round its end. Four subgroups take 16 keys each of a block of 64, then a
// quarter of the features each.
//
// The softmax is made in two rounds: the first finds each query's largest score, so that in the second
// nothing that was summed has to be scaled again, which matrices offer no way to do. Workgroups:
// blocks of heads (x), blocks of rows (y).

const QUERIES: u32 = HEADS * ROWS; // 32
const KEYS: u32 = 64u;
const FEATURES: u32 = HEAD / 4u; // of a subgroup
const Q_STRIDE: u32 = HEAD / 4u + 2u; // in groups of four, neighbouring rows in different banks
const P_STRIDE: u32 = KEYS / 4u + 2u;
const S_STRIDE: u32 = KEYS + 4u;
const PARTS: u32 = WORKGROUP / QUERIES; // invocations of a query
const LOWEST: f32 = -3.0e38;

var<workgroup> range: vec2<u32>;
var<workgroup> queries: array<vec4<f16>, QUERIES * Q_STRIDE>;
var<workgroup> scores: array<f32, QUERIES * S_STRIDE + 256u>;
var<workgroup> weights: array<vec4<f16>, QUERIES * P_STRIDE>;
var<workgroup> totals: array<f32, QUERIES>;
var<workgroup> exchange: array<f32, WORKGROUP>;

// The first position that a row sees.
fn first_seen(row: Row) -> u32 {
    if p.window == 0u || row.pos + 1u <= p.window { return 0u; }
    return row.pos + 1u - p.window;
}

// Scores of 64 positions, times the queries' factors.
fn multiply_keys(cache: u32, first: u32, subgroup: u32) {
    let quarter = min(subgroup, 3u);
    let slot = cache + (first + 16u * quarter) % p.slots;
    var found0: MatrixC;
    var found1: MatrixC;
    for (var f = 0u; f < HEAD / 16u; f++) {
        let keys = coopLoad<MatrixB>(&k[slot * (HEAD / 4u) + 4u * f], HEAD / 4u);
        let some = coopLoadT<MatrixA>(&queries[4u * f], Q_STRIDE);
        let others = coopLoadT<MatrixA>(&queries[16u * Q_STRIDE + 4u * f], Q_STRIDE);
        found0 = coopMultiplyAdd(some, keys, found0);
        found1 = coopMultiplyAdd(others, keys, found1);
    }
    let idle = subgroup > 3u;
    let stride = select(S_STRIDE, 16u, idle);
    let first_half = select(16u * quarter, QUERIES * S_STRIDE, idle);
    let second_half = select(16u * S_STRIDE + 16u * quarter, QUERIES * S_STRIDE, idle);
    coopStoreT(found0, &scores[first_half], stride);
    coopStoreT(found1, &scores[second_half], stride);
    workgroupBarrier();
}

// The score of a position in the block.
fn score(query: u32, c: u32, factor: f32) -> f32 {
    let s = scores[query * S_STRIDE + c] * factor;
    if p.softcap != 0.0 { return softcap(s, p.softcap); }
    return s;
}

// What lies in `scores` at the end: queries from `first` on, matrix f of each subgroup's features.
fn leave(first: u32, f: u32, t0: u32, head0: u32, i: u32) {
    workgroupBarrier();
    for (var c = i; c < 1024u; c += WORKGROUP) {
        let query = first + c % 256u / 16u;
        let t = t0 + query / HEADS;
        let feature = c / 256u * FEATURES + f * 16u + c % 16u;
        if t < batch.n {
            a[t * p.stride + (head0 + query % HEADS) * HEAD + feature] = scores[c] / totals[query];
        }
    }
    workgroupBarrier();
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) i: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    let head0 = workgroup.x * HEADS;
    let t0 = workgroup.y * ROWS;
    let cache = (rows[t0].seq * p.kv_heads + head0 / (p.heads / p.kv_heads)) * p.slots;
    // Where there are more than four subgroups the others do what the last does, to no avail.
    let quarter = min(subgroup, 3u);
    let query = i / PARTS;
    let mine = rows[min(t0 + query / HEADS, batch.n - 1u)];
    let sees_from = first_seen(mine);
    if i == 0u {
        var start = 0xffffffffu;
        var to = 0u;
        for (var r = 0u; r < ROWS; r++) {
            let row = rows[min(t0 + r, batch.n - 1u)];
            start = min(start, first_seen(row));
            to = max(to, row.end);
        }
        range = vec2<u32>(start / 16u * 16u, to);
    }

    // Queries in half precision, with their largest value between 1 and 2.
    let at = (mine.place * p.heads + head0 + query % HEADS) * (HEAD / 4u);
    var largest = vec4<f32>();
    for (var c = i % PARTS; c < HEAD / 4u; c += PARTS) { largest = max(largest, abs(q[at + c])); }
    exchange[i] = max(max(largest.x, largest.y), max(largest.z, largest.w));
    workgroupBarrier();
    var most = 0.0;
    for (var k = 0u; k < PARTS; k++) { most = max(most, exchange[query * PARTS + k]); }
    let power = bitcast<u32>(most) & 0x7f800000u;
    let factor = select(1.0, bitcast<f32>(power), power >= 0x0d800000u); // 2^-100
    for (var c = i % PARTS; c < HEAD / 4u; c += PARTS) {
        queries[query * Q_STRIDE + c] = vec4<f16>(q[at + c] / factor);
    }
    let part = workgroupUniformLoad(&range);

    var top = LOWEST;
    for (var first = part.x; first < part.y; first += KEYS) {
        multiply_keys(cache, first, subgroup);
        for (var c = i % PARTS; c < KEYS; c += PARTS) {
            let seen = first + c >= sees_from && first + c < mine.end;
            top = max(top, select(LOWEST, score(query, c, factor), seen));
        }
        workgroupBarrier();
    }
    exchange[i] = top;
    workgroupBarrier();
    for (var k = 0u; k < PARTS; k++) { top = max(top, exchange[query * PARTS + k]); }
    workgroupBarrier();

    var total = 0.0;
    @f var low{f}: MatrixC;
    @f var high{f}: MatrixC;
    for (var first = part.x; first < part.y; first += KEYS) {
        multiply_keys(cache, first, subgroup);
        for (var c = i % PARTS; c < KEYS / 4u; c += PARTS) {
            var e: vec4<f32>;
            for (var d = 0u; d < 4u; d++) {
                let pos = first + 4u * c + d;
                let seen = pos >= sees_from && pos < mine.end;
                e[d] = select(0.0, exp(score(query, 4u * c + d, factor) - top), seen);
                total += e[d];
            }
            weights[query * P_STRIDE + c] = vec4<f16>(e);
        }
        workgroupBarrier();
        for (var n = 0u; n < KEYS / 16u; n++) {
            let slot = cache + (first + 16u * n) % p.slots;
            let w = coopLoadT<MatrixA>(&weights[4u * n], P_STRIDE);
            let z = coopLoadT<MatrixA>(&weights[16u * P_STRIDE + 4u * n], P_STRIDE);
            let at = slot * (HEAD / 4u) + quarter * FEATURES / 4u;
            @f let values{f} = coopLoadT<MatrixB>(&v[at + 4u * {f}u], HEAD / 4u);
            @f low{f} = coopMultiplyAdd(w, values{f}, low{f});
            @f high{f} = coopMultiplyAdd(z, values{f}, high{f});
        }
    }
    exchange[i] = total;
    workgroupBarrier();
    if i % PARTS == 0u {
        total = 0.0;
        for (var k = 0u; k < PARTS; k++) { total += exchange[i + k]; }
        totals[query] = total;
    }
    workgroupBarrier();

    // A matrix of each subgroup at a time through workgroup memory.
    @f coopStoreT(low{f}, &scores[256u * min(subgroup, 4u)], 16u); leave(0u, {f}u, t0, head0, i);
    @f coopStoreT(high{f}, &scores[256u * min(subgroup, 4u)], 16u); leave(16u, {f}u, t0, head0, i);
}
