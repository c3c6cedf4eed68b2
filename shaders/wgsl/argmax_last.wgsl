// The best of what argmax.wgsl found.

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) i: u32) {
    let top = best_of_all(best[i], i);
    if i == 0u {
        tokens[0] = top.y;
        chosen[1u + rows[0].place] = top.y;
    }
}
