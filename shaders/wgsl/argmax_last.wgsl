// The best of COUNT items: of what argmax.wgsl found, or the workgroups of a matmul (output_best.wgsl);
// and its embedding, for the token after it.

// Items that an invocation asks for at once.
const BATCH: u32 = 8u;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) i: u32) {
    var mine = best[min(i, COUNT - 1u)];
    for (var first = i; first < COUNT; first += BATCH * WORKGROUP) {
        var some: array<vec2<u32>, BATCH>;
        // Beyond the end the last one again.
        for (var b = 0u; b < BATCH; b++) { some[b] = best[min(first + b * WORKGROUP, COUNT - 1u)]; }
        for (var b = 0u; b < BATCH; b++) { mine = better(mine, some[b]); }
    }
    let top = best_of_all(mine, i);
    if i == 0u {
        tokens[0] = top.y;
        chosen[1u + rows[0].place] = top.y;
    }
    embed_row(top.y, 0u, i);
}
