
// A whole layer for a single row of x, in one dispatch: norms, q, k and v, attention, its projection, and
// the MLP, one after the other, with all workgroups waiting for each other in between (meet.wgsl). What
// is on its way from one to the next lies in coherent buffers. Weights do not depend on anything: each
// matrix's first pieces are asked for before the wait before it.

const X_QUADS: u32 = HIDDEN / 4u;
const PER: u32 = (X_QUADS + WORKGROUP - 1u) / WORKGROUP;
const G_QUADS: u32 = FFN / 4u;
const PER_G: u32 = (G_QUADS + WORKGROUP - 1u) / WORKGROUP;
const A_WORDS: u32 = OUT_PIECES * PIECE / 4u; // of attention's result, in bytes
const PER_A: u32 = (A_WORDS + WORKGROUP - 1u) / WORKGROUP;

// An invocation, along the subgroups.
struct Me {
    i: u32, // of the workgroup
    place: u32, // in its subgroup
    size: u32, // of its subgroup
    number: u32, // of its subgroup, among those of all workgroups, and so that each has its share
    all: u32, // subgroups
}

var<workgroup> partial: array<f32, WORKGROUP>;

// The sum over the workgroup; `which` of four.
fn over_all(v: f32, me: Me, which: u32) -> f32 {
    let first = which * (WORKGROUP / 4u);
    let mine = subgroupAdd(v);
    if me.place == 0u { partial[first + me.i / me.size] = mine; }
    workgroupBarrier();
    var sum = 0.0;
    // So many that they are read at once, then what there may be beyond.
    let count = WORKGROUP / me.size;
    for (var s = 0u; s < 16u; s++) { sum += select(0.0, partial[first + s], s < count); }
    for (var s = 16u; s < count; s++) { sum += partial[first + s]; }
    return sum;
}

fn mean_reciprocal(squares: f32) -> f32 {
    return inverseSqrt(squares / f32(w.cols) + w.eps);
}

// Group c of four values of x: blocks of 32 as bytes (prepare_int8.wgsl), eight neighbouring
// invocations a block.
fn to_bytes(four: vec4<f32>, c: u32, quads: u32) {
    let sizes = abs(four);
    var size = max(max(sizes.x, sizes.y), max(sizes.z, sizes.w));
    for (var step = 1u; step < 8u; step *= 2u) { size = max(size, subgroupShuffleXor(size, step)); }
    size /= 127.0;
    let inverse = select(0.0, 1.0 / size, size > 1e-30);
    let q = vec4<i32>(round(four * inverse));
    var sum = f32(q.x + q.y + q.z + q.w);
    for (var step = 1u; step < 8u; step *= 2u) { sum += subgroupShuffleXor(sum, step); }
    if c < quads {
        x_bytes[c / 4u][c % 4u] = pack4xI8(q);
        if c % 8u == 0u { x_scales[c / 8u] = vec2<f32>(size, sum); }
    }
}

// Group c of the norms' weights: of a layer's four, or of the layer before.
fn gain(which: u32, c: u32) -> vec4<f32> {
    return norms[which * X_QUADS + c];
}

// v += RMSNorm(u) · a weight; then RMSNorm(v) · the weight after it goes into x_bytes.
fn norm_both(
    v: ptr<function, array<vec4<f32>, PER>>,
    u: ptr<function, array<vec4<f32>, PER>>,
    me: Me,
    which: u32,
    residual: bool,
) {
    var post: array<vec4<f32>, PER>;
    var pre: array<vec4<f32>, PER>;
    for (var k = 0u; k < PER; k++) {
        let c = min(k * WORKGROUP + me.i, X_QUADS - 1u);
        post[k] = gain(which, c);
        pre[k] = gain(which + 1u, c);
    }
    if residual {
        var squares = 0.0;
        for (var k = 0u; k < PER; k++) { squares += dot((*u)[k], (*u)[k]); }
        let factor = mean_reciprocal(over_all(squares, me, which));
        for (var k = 0u; k < PER; k++) { (*v)[k] += (*u)[k] * factor * post[k]; }
    }
    var squares = 0.0;
    for (var k = 0u; k < PER; k++) { squares += dot((*v)[k], (*v)[k]); }
    let factor = mean_reciprocal(over_all(squares, me, which + 1u));
    for (var k = 0u; k < PER; k++) {
        to_bytes((*v)[k] * factor * pre[k], k * WORKGROUP + me.i, X_QUADS);
    }
    workgroupBarrier();
}

var<workgroup> completes: u32;

// Attention of the heads and parts of the positions that fall to this workgroup. Whoever has done a
// head's last part puts them together.
fn attend_mine(me: Me, workgroup: u32, workgroups: u32) {
    for (var unit = workgroup; unit < p.heads * batch.splits; unit += workgroups) {
        let head = unit % p.heads;
        if unit > workgroup { ask_first(head, unit / p.heads, me.i); }
        attend(head, unit / p.heads, me.i, me.i, me.size, true);
        if batch.splits > 1u {
            storageBarrier();
            if me.i == 0u {
                completes = atomicAdd(&meeting[HEADS + head], 1u) + 1u;
                if completes == batch.splits { atomicStore(&meeting[HEADS + head], 0u); }
            }
            storageBarrier();
            if workgroupUniformLoad(&completes) == batch.splits { merge_parts(0u, head, me.i); }
        }
        workgroupBarrier();
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(subgroup_size) size: u32,
    @builtin(num_subgroups) count: u32,
    @builtin(subgroup_id) id: u32,
    @builtin(subgroup_invocation_id) place: u32,
) {
    let i = id * size + place;
    let n = workgroups.x;
    if w.probe != 0u {
        probe(i);
        return;
    }
    let me = Me(i, place, size, id * n + workgroup.x, count * n);

    // x and what is to be added to it; q, k and v.
    var v: array<vec4<f32>, PER>;
    var u: array<vec4<f32>, PER>;
    for (var k = 0u; k < PER; k++) {
        let c = k * WORKGROUP + i;
        if c < X_QUADS {
            v[k] = x[c];
            u[k] = o[c];
        }
    }
    qkv_begin(me);
    norm_both(&v, &u, me, 0u, w.residual != 0u);
    qkv_run(me);
    if workgroup.x < p.heads * batch.splits {
        ask_first(workgroup.x % p.heads, workgroup.x / p.heads, i);
    }
    out_begin(me);
    meet(n, i);

    attend_mine(me, workgroup.x, n);
    up_begin(me);
    meet(2u * n, i);

    // Everything is asked for before any of it is needed.
    var words: array<u32, PER_A>;
    for (var k = 0u; k < PER_A; k++) { words[k] = a_values[min(k * WORKGROUP + i, A_WORDS - 1u)]; }
    let scales_of_a = a_scales[min(i, A_WORDS / 8u - 1u)];
    workgroupBarrier(); // x_bytes was read before the wait, which fences buffers off and nothing else
    for (var k = 0u; k < PER_A; k++) {
        let c = k * WORKGROUP + i;
        if c < A_WORDS { x_bytes[c / 4u][c % 4u] = words[k]; }
    }
    if i < A_WORDS / 8u { x_scales[i] = scales_of_a; }
    for (var c = WORKGROUP + i; c < A_WORDS / 8u; c += WORKGROUP) { x_scales[c] = a_scales[c]; }
    workgroupBarrier();
    out_run(me);
    meet(3u * n, i);

    for (var k = 0u; k < PER; k++) {
        let c = k * WORKGROUP + i;
        u[k] = vec4<f32>();
        if c < X_QUADS { u[k] = o_between[c]; }
    }
    norm_both(&v, &u, me, 2u, true);
    if workgroup.x == 0u {
        for (var k = 0u; k < PER; k++) {
            let c = k * WORKGROUP + i;
            if c < X_QUADS { x[c] = v[k]; }
        }
    }
    up_run(me);
    down_begin(me);
    meet(4u * n, i);

    var fours: array<vec4<f32>, PER_G>;
    for (var k = 0u; k < PER_G; k++) { fours[k] = g[min(k * WORKGROUP + i, G_QUADS - 1u)]; }
    workgroupBarrier();
    for (var k = 0u; k < PER_G; k++) { to_bytes(fours[k], k * WORKGROUP + i, G_QUADS); }
    workgroupBarrier();
    down_run(me);
    leave(n, i);
}
