// The p.k best of each slice of EACH · 256 items, in no particular order. An item is a key and an
// id; the better one has the larger key or, of equal keys, the lower id. Where a slice has fewer
// items, the rest of its k places get the key 0, which no item has. One workgroup a slice.

const EACH: u32 = SLICE / 256u;
const NO_ID: u32 = 0xffffffffu;
const ID_BITS: u32 = 24u; // ids are below 2^24 - 1

// One counter for each step of the two searches, so that none is used twice.
var<workgroup> counts: array<atomic<u32>, 64>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    var keys: array<u32, EACH>;
    var ids: array<u32, EACH>;
    for (var j = 0u; j < EACH; j++) {
        let at = workgroup.x * SLICE + j * 256u + i;
        var item = vec2<u32>(0u, NO_ID);
        if at < p.count { item = load(at); }
        keys[j] = item.x;
        ids[j] = item.y;
    }
    if i < 64u { atomicStore(&counts[i], 0u); }
    workgroupBarrier();

    // The largest `least` that k keys reach: the k-th largest key, bit by bit.
    var least = 0u;
    for (var bit = 0u; bit < 32u; bit++) {
        let next = least | (0x80000000u >> bit);
        var mine = 0u;
        for (var j = 0u; j < EACH; j++) { mine += select(0u, 1u, keys[j] >= next); }
        if mine > 0u { atomicAdd(&counts[bit], mine); }
        workgroupBarrier();
        if atomicLoad(&counts[bit]) >= p.k { least = next; }
    }
    var larger = 0u;
    for (var j = 0u; j < EACH; j++) { larger += select(0u, 1u, keys[j] > least); }
    if larger > 0u { atomicAdd(&counts[32], larger); }
    workgroupBarrier();
    // Of the keys equal to it, those with ids below `below`: as many as there is room for.
    let room = p.k - atomicLoad(&counts[32]);
    var below = 0u;
    for (var bit = 0u; bit < ID_BITS; bit++) {
        let next = below | (1u << (ID_BITS - 1u - bit));
        var mine = 0u;
        for (var j = 0u; j < EACH; j++) {
            mine += select(0u, 1u, keys[j] == least && ids[j] < next);
        }
        if mine > 0u { atomicAdd(&counts[33u + bit], mine); }
        workgroupBarrier();
        if atomicLoad(&counts[33u + bit]) <= room { below = next; }
    }

    let first = workgroup.x * p.k;
    for (var j = 0u; j < EACH; j++) {
        if keys[j] > least || (keys[j] == least && ids[j] < below) {
            best[first + atomicAdd(&counts[63], 1u)] = vec2<u32>(keys[j], ids[j]);
        }
    }
    workgroupBarrier();
    for (var o = atomicLoad(&counts[63]) + i; o < p.k; o += 256u) {
        best[first + o] = vec2<u32>(0u, NO_ID);
    }
}
