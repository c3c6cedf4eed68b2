
// Whole layers for a single row of x, all in one dispatch: norms, q, k and v, attention, its projection,
// and the MLP, one after the other. What is on its way from one to the next goes through messages.wgsl.
// Weights do not depend on anything: each matrix's first pieces are asked for before the values that
// they are multiplied with are waited for. What is small and needed on the way is asked for before
// that, as it would come after all these weights.
//
// Values of a layer lie where those of the layer before did, so that nobody may be a layer behind: no
// workgroup is without rows of each matrix (`WholeLayer::workgroups`), which all others wait for.

const X_QUADS: u32 = HIDDEN / 4u;
const PER: u32 = (X_QUADS + WORKGROUP - 1u) / WORKGROUP;

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

// 1.5 · 2²³: a float that this is added to is rounded to an integer, whose bits are then the lowest ones of
// the sum.
const ROUNDER: f32 = 12582912.0;

// Group c of four values of x: blocks of 32 as bytes (prepare_int8.wgsl), eight neighbouring
// invocations a block.
fn to_bytes(four: vec4<f32>, c: u32, quads: u32) {
    let sizes = abs(four);
    var most = max(max(sizes.x, sizes.y), max(sizes.z, sizes.w));
    @halving 8 most = max(most, subgroupShuffleXor(most, {step}u));
    let inverse = select(0.0, 127.0 / most, most > 1e-28);
    let q = bitcast<vec4<u32>>(four * inverse + ROUNDER);
    var sum = q.x + q.y + q.z + q.w;
    @halving 8 sum += subgroupShuffleXor(sum, {step}u);
    if c < quads {
        let low = (q.x & 0xffu) | ((q.y & 0xffu) << 8u);
        x_bytes[c / 4u][c % 4u] = low | ((q.z & 0xffu) << 16u) | (q.w << 24u);
        if c % 8u == 0u {
            let total = bitcast<i32>(sum - 32u * bitcast<u32>(ROUNDER));
            x_scales[c / 8u] = vec2<f32>(most * (1.0 / 127.0), f32(total));
        }
    }
}

// The weights of two norms that follow each other.
var<private> post: array<vec4<f32>, PER>;
var<private> pre: array<vec4<f32>, PER>;

// Of the norms' weights of a layer: the last one of the layer before, then its own three, then those
// of queries and of keys.
const GAINS: u32 = 4u * X_QUADS + 2u * QUADS;

// Asks for norm `which` of these, and for the one after it.
fn ask_gains(which: u32, i: u32) {
    let first = layer * GAINS + which * X_QUADS;
    for (var k = 0u; k < PER; k++) {
        let c = min(k * WORKGROUP + i, X_QUADS - 1u);
        post[k] = norms[first + c];
        pre[k] = norms[first + X_QUADS + c];
    }
}

// v += RMSNorm(u) · a weight; then RMSNorm(v) · the weight after it goes into x_bytes.
fn norm_both(
    v: ptr<function, array<vec4<f32>, PER>>,
    u: ptr<function, array<vec4<f32>, PER>>,
    me: Me,
    which: u32,
    residual: bool,
) {
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

// Attention of the heads and parts of the positions that fall to this workgroup, the first of which was
// asked for. Parts are put together by workgroups that have none, if there are enough.
fn attend_mine(me: Me, workgroup: u32, workgroups: u32) {
    for (var unit = workgroup; unit < HEADS * splits; unit += workgroups) {
        attend(unit, unit + workgroups, me);
        workgroupBarrier();
    }
    if splits == 1u { return; }
    for (var head = workgroups - 1u - workgroup; head < HEADS; head += workgroups) {
        merge(head, me);
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
    // From the last workgroup on: with more of them than run at the same time the first ones wait in vain,
    // as a test wants it.
    let me = Me(i, place, size, id * n + (n - 1u - workgroup.x), count * n);

    // x, and what is to be added to it.
    var v: array<vec4<f32>, PER>;
    var u: array<vec4<f32>, PER>;
    for (var k = 0u; k < PER; k++) {
        let c = k * WORKGROUP + i;
        if c < X_QUADS {
            v[k] = x[c];
            u[k] = o[c];
        }
    }
    row = rows[0];
    for (var l = i; l < w.layers; l += WORKGROUP) { stages[l] = plan[l]; }
    enter(i);
    workgroupBarrier();

    for (layer = 0u; layer < w.layers; layer++) {
        stage = stages[layer];
        splits = select(sliding_pass.splits, global_pass.splits, stage.window == 0u);
        row_slot = row.pos % stage.slots;
        ask_gains(0u, i);
        let attends = workgroup.x < HEADS * splits;
        var turn: array<vec4<f32>, TURNS_PER>;
        var gain: array<vec4<f32>, TURNS_PER>;
        if attends {
            for (var k = 0u; k < TURNS_PER; k++) {
                let c = k * WORKGROUP + i;
                if c < QUADS { turn[k] = angles[stage.table * QUADS + c]; }
                if NORMED && c < 2u * QUADS { gain[k] = norms[layer * GAINS + 4u * X_QUADS + c]; }
            }
            take(workgroup.x);
            ask(begin, i / LANES, i % LANES);
        }
        qkv_begin(me);
        for (var k = 0u; k < TURNS_PER; k++) {
            let c = k * WORKGROUP + i;
            if attends && c < QUADS { turns[c] = turn[k]; }
            if attends && c < 2u * QUADS { gains[c] = gain[k]; }
        }
        // Nobody waits for an invocation of the same workgroup but at a barrier.
        workgroupBarrier();
        if layer != 0u { u = o_arrived(i); }
        phase = stage.phase;
        norm_both(&v, &u, me, 0u, layer != 0u || w.residual != 0u);
        qkv_run(me);
        out_begin(me);
        // x_bytes was read.
        workgroupBarrier();

        attend_mine(me, workgroup.x, n);
        up_begin(me);
        // Those who look slow down those of their workgroup who still work.
        workgroupBarrier();
        let a_quads = a_arrived(i);
        for (var k = 0u; k < A_PER; k++) { to_bytes(a_quads[k], k * WORKGROUP + i, A_PADDED); }
        workgroupBarrier();
        out_run(me);
        ask_gains(2u, i);
        workgroupBarrier();

        u = between_arrived(i);
        norm_both(&v, &u, me, 2u, true);
        up_run(me);
        workgroupBarrier();

        // Many values: weights on their way would keep them waiting.
        let g_quads = g_arrived(i);
        down_begin(me);
        for (var k = 0u; k < G_PER; k++) { to_bytes(g_quads[k], k * WORKGROUP + i, G_PADDED); }
        workgroupBarrier();
        down_run(me);
    }

    // Everybody has read the x of before: they had all of a layer's GELU(gate) · up.
    if workgroup.x == 0u {
        for (var k = 0u; k < PER; k++) {
            let c = k * WORKGROUP + i;
            if c < X_QUADS { x[c] = v[k]; }
        }
    }
    leave(n, i);
}
