// The best of COUNT items: of what argmax.wgsl found, or the workgroups of a matmul (output_best.wgsl).

// Items that an invocation asks for at once.
const BATCH: u32 = 8u;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) i: u32) {
    var mine = best[min(i, COUNT - 1u)];
    for (var first = i; first < COUNT; first += BATCH * 256u) {
        var some: array<vec2<u32>, BATCH>;
        // Beyond the end the last one again.
        for (var b = 0u; b < BATCH; b++) { some[b] = best[min(first + b * 256u, COUNT - 1u)]; }
        for (var b = 0u; b < BATCH; b++) { mine = better(mine, some[b]); }
    }
    let top = best_of_all(mine, i);
    if i == 0u {
        tokens[0] = top.y;
        chosen[1u + rows[0].place] = top.y;
    }
}
