
// What the workgroups of a dispatch tell each other: values that one of them makes and others wait for.
// A value is there when its lowest two bits are those of this layer (`w.phase`), which are not those of
// the layer before and after it: so each says for itself that it is there, and nothing has to be
// ordered by fences or counted. (24 bits of a float become 22.)
//
// Nothing promises that all workgroups run at the same time: there are no more than were seen to (`probe`),
// nobody waits for ever, and who has waited in vain says so.

// Looks before one gives up: some hundredths of a second. (Drivers that run on a CPU end a kernel's loops
// after 65536 turns.)
const PATIENCE: u32 = 1u << 15u;

// Has an invocation of this workgroup waited in vain?
var<workgroup> in_vain: atomic<u32>;

fn put(at: u32, value: f32) {
    atomicStore(&messages[at], (bitcast<u32>(value) & ~3u) | w.phase);
}

fn word(at: u32) -> u32 {
    return atomicLoad(&messages[at]);
}

fn are_there(words: vec4<u32>) -> bool {
    return all((words & vec4<u32>(3u)) == vec4<u32>(w.phase));
}

// Is it time to give up, after look `t`?
fn is_hopeless(t: u32) -> bool {
    // Where others have given up already there is no hope.
    return t + 1u >= PATIENCE || (t % 256u == 255u && atomicLoad(&messages[LATE]) != 0u);
}

fn give_up() {
    atomicStore(&messages[LATE], 1u);
    atomicStore(&in_vain, 1u);
}

// Waits for four values, which lie anywhere.
fn four_arrived(at: vec4<u32>) -> vec4<f32> {
    var words: vec4<u32>;
    for (var t = 0u; t < PATIENCE; t++) {
        words = vec4<u32>(word(at.x), word(at.y), word(at.z), word(at.w));
        if are_there(words) { break; }
        if is_hopeless(t) {
            give_up();
            break;
        }
    }
    return bitcast<vec4<f32>>(words);
}

// Group c of the `quads` groups of four of a vector: the groups' first values lie side by side, then their
// second ones, and so on.
fn quad_words(first: u32, quads: u32, c: u32) -> vec4<u32> {
    let at = first + min(c, quads - 1u);
    return vec4<u32>(word(at), word(at + quads), word(at + 2u * quads), word(at + 3u * quads));
}

// Where value `j` of such a vector lies.
fn place_of(first: u32, quads: u32, j: u32) -> u32 {
    return first + j % 4u * quads + j / 4u;
}

// q, k and v.
fn of_qkv(at: vec4<u32>) -> vec4<f32> {
    return four_arrived(vec4<u32>(QKV) + at);
}

// A head's part of attention's result, or a part of the positions' part of it.
fn put_quad(at: u32, c: u32, v: vec4<f32>) {
    for (var d = 0u; d < 4u; d++) { put(A + d * A_QUADS + at / 4u + c, v[d]); }
}

fn put_part(to: u32, c: u32, v: vec4<f32>) {
    for (var d = 0u; d < 4u; d++) { put(PARTS + to + d * (HEAD / 4u) + c, v[d]); }
}

fn put_ends(to: u32, total: f32, top: f32) {
    put(PARTS + to + HEAD, total);
    put(PARTS + to + HEAD + 1u, top);
}

fn part_quad(start: u32, c: u32) -> vec4<f32> {
    let at = PARTS + start + c;
    return four_arrived(vec4<u32>(at, at + HEAD / 4u, at + HEAD / 2u, at + 3u * (HEAD / 4u)));
}

// Total and maximum.
fn part_ends(start: u32) -> vec2<f32> {
    let at = PARTS + start + HEAD;
    return four_arrived(vec4<u32>(at, at + 1u, at, at + 1u)).xy;
}

fn enter(i: u32) {
    if i == 0u { atomicStore(&in_vain, 0u); }
}

// A workgroup is through: the last one leaves everything as it was found, and counts the layer if nobody
// has waited in vain.
fn leave(workgroups: u32, i: u32) {
    if i == 0u {
        let mine = 1u + (atomicLoad(&in_vain) << 16u);
        let all = atomicAdd(&messages[DONE], mine) + mine;
        if (all & 0xffffu) == workgroups {
            atomicStore(&messages[DONE], 0u);
            if all == workgroups { atomicAdd(&messages[FINISHED], 1u); }
        }
    }
}

// Finds out how many workgroups run at the same time: those that have begun before the first one ends.
fn probe(i: u32) {
    if i == 0u {
        let before = atomicAdd(&messages[ARRIVED], 1u);
        for (var t = 0u; t < 2000u; t++) {
            if atomicLoad(&messages[SEEN]) != 0u { break; }
        }
        // Complemented, so that the fewest are the largest number.
        atomicMax(&messages[SEEN], ~max(atomicLoad(&messages[ARRIVED]), before));
    }
    workgroupBarrier();
}
