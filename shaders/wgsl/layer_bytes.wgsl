
// GELU(gate) · up on its way from those that make it to everybody: a workgroup makes whole blocks of 32
// values, brings them into bytes itself, and leaves ten words a block: eight of four bytes each, but for two
// bits of the last one, a word of these bits, and the scale. The blocks' first words lie side by side,
// then their second ones, and so on.

// Units that a workgroup makes side by side, and those that it makes before it leaves them.
const UP_SIDE: u32 = WORKGROUP / UP_LANES;
const CHUNK: u32 = max(UP_SIDE, 32u);
const CHUNK_TURNS: u32 = CHUNK / UP_SIDE;
const G_BLOCKS: u32 = (UP_UNITS + 31u) / 32u;
const G_PER: u32 = (FFN / 32u + WORKGROUP - 1u) / WORKGROUP;

// Two in turns: one is read while the other is written.
var<workgroup> made: array<f32, 2u * CHUNK>;

// The chunk that a workgroup is at in a turn.
fn up_chunk(me: Me, turn: u32) -> u32 {
    return me.rank + turn / CHUNK_TURNS * me.workgroups;
}

fn up_unit(me: Me, turn: u32) -> u32 {
    return up_chunk(me, turn) * CHUNK + turn % CHUNK_TURNS * UP_SIDE + me.i / UP_LANES;
}

fn up_any(me: Me, turn: u32) -> bool {
    return up_chunk(me, turn) * CHUNK < UP_UNITS;
}

// Keeps what was made in a turn, and leaves the chunk once it is all there.
fn keep(me: Me, turn: u32, value: f32) {
    let first = turn / CHUNK_TURNS % 2u * CHUNK;
    if me.i % UP_LANES == 0u {
        made[first + turn % CHUNK_TURNS * UP_SIDE + me.i / UP_LANES] = value;
    }
    if turn % CHUNK_TURNS + 1u < CHUNK_TURNS { return; }
    workgroupBarrier();
    // Whole subgroups, eight neighbouring invocations a block.
    if me.i - me.place >= CHUNK / 4u { return; }
    let c = min(me.i, CHUNK / 4u - 1u);
    let at = first + 4u * c;
    let quad = block_bytes(vec4<f32>(made[at], made[at + 1u], made[at + 2u], made[at + 3u]));
    let bytes = vec4<u32>(quad.q) & vec4<u32>(255u);
    var rest = (bytes.w >> 6u) << (2u * (c % 8u) + 2u);
    for (var step = 1u; step < 8u; step *= 2u) { rest |= subgroupShuffleXor(rest, step); }
    let block = up_chunk(me, turn) * (CHUNK / 32u) + c / 8u;
    if me.i >= CHUNK / 4u || block >= G_BLOCKS { return; }
    let word = (bytes.x | (bytes.y << 8u) | (bytes.z << 16u)) << 8u;
    put_word(G + c % 8u * G_BLOCKS + block, word | ((bytes.w & 63u) << 2u));
    if c % 8u == 0u {
        put_word(G + 8u * G_BLOCKS + block, rest);
        put(G + 9u * G_BLOCKS + block, quad.size);
    }
}

// Blocks that have arrived.
struct Blocks {
    lo: array<vec4<u32>, G_PER>,
    hi: array<vec4<u32>, G_PER>,
    ends: array<vec4<u32>, G_PER>,
}

fn four_words(at: u32) -> vec4<u32> {
    return vec4<u32>(word(at), word(at + G_BLOCKS), word(at + 2u * G_BLOCKS), word(at + 3u * G_BLOCKS));
}

// Waits for this invocation's blocks.
fn g_arrived(i: u32) -> Blocks {
    var b: Blocks;
    for (var t = 0u; t < PATIENCE; t++) {
        var all_there = true;
        for (var k = 0u; k < G_PER; k++) {
            let at = G + min(k * WORKGROUP + i, G_BLOCKS - 1u);
            b.lo[k] = four_words(at);
            b.hi[k] = four_words(at + 4u * G_BLOCKS);
            b.ends[k] = vec4<u32>(word(at + 8u * G_BLOCKS), word(at + 9u * G_BLOCKS), phase, phase);
        }
        for (var k = 0u; k < G_PER; k++) {
            all_there = all_there & are_there(b.lo[k]) & are_there(b.hi[k]) & are_there(b.ends[k]);
        }
        if all_there { break; }
        if is_hopeless(t) {
            give_up();
            break;
        }
    }
    return b;
}

// Four words with their bytes whole again, of which `rest` has the missing bits.
fn whole_words(words: vec4<u32>, rest: u32) -> vec4<u32> {
    let missing = (vec4<u32>(rest) >> vec4<u32>(2u, 4u, 6u, 8u)) & vec4<u32>(3u);
    let last = ((words >> vec4<u32>(2u)) & vec4<u32>(63u)) | (missing << vec4<u32>(6u));
    return (words >> vec4<u32>(8u)) | (last << vec4<u32>(24u));
}

fn total_of(words: vec4<u32>) -> i32 {
    const ones = 0x01010101u;
    let half = dot4I8Packed(words.x, ones) + dot4I8Packed(words.y, ones);
    return half + dot4I8Packed(words.z, ones) + dot4I8Packed(words.w, ones);
}

// What has arrived becomes x, with zeros beyond it.
fn unpack(b: Blocks, i: u32) {
    for (var k = 0u; k < G_PER; k++) {
        let block = k * WORKGROUP + i;
        if block < FFN / 32u {
            let is_one = block < G_BLOCKS;
            let rest = b.ends[k].x;
            let lo = select(vec4<u32>(), whole_words(b.lo[k], rest), is_one);
            let hi = select(vec4<u32>(), whole_words(b.hi[k], rest >> 8u), is_one);
            x_bytes[2u * block] = lo;
            x_bytes[2u * block + 1u] = hi;
            x_scales[block] = vec2<f32>(bitcast<f32>(b.ends[k].y), f32(total_of(lo) + total_of(hi)));
        }
    }
}
