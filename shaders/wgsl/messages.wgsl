
// What the workgroups of a dispatch tell each other: values that one of them makes and others wait for.
// A value is there when its lowest two bits are those of this layer (`phase`), which are not those of
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
    atomicStore(&messages[at], (bitcast<u32>(value) & ~3u) | phase);
}

fn word(at: u32) -> u32 {
    return atomicLoad(&messages[at]);
}

fn are_there(words: vec4<u32>) -> bool {
    return all((words & vec4<u32>(3u)) == vec4<u32>(phase));
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

// Waits for eight values, which lie anywhere.
fn eight_words(a: vec4<u32>, b: vec4<u32>) -> Eight {
    var lo: vec4<u32>;
    var hi: vec4<u32>;
    for (var t = 0u; t < PATIENCE; t++) {
        lo = vec4<u32>(word(a.x), word(a.y), word(a.z), word(a.w));
        hi = vec4<u32>(word(b.x), word(b.y), word(b.z), word(b.w));
        if are_there(lo) && are_there(hi) { break; }
        if is_hopeless(t) {
            give_up();
            break;
        }
    }
    return Eight(bitcast<vec4<f32>>(lo), bitcast<vec4<f32>>(hi));
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

// Where a row of q, k and v lies: of each head every eighth feature side by side.
fn place_in_head(j: u32) -> u32 {
    return QKV + j / HEAD * HEAD + j % 8u * (HEAD / 8u) + j % HEAD / 8u;
}

fn eight_arrived(first: u32) -> Eight {
    let at = first + HEAD / 8u * vec4<u32>(0u, 1u, 2u, 3u);
    return eight_words(at, at + HEAD / 2u);
}

fn enter(i: u32) {
    if i == 0u { atomicStore(&in_vain, 0u); }
}

// A workgroup is through: the last one leaves everything as it was found, and counts the dispatch if
// nobody has waited in vain.
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
