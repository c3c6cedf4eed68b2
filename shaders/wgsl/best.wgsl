var<workgroup> found: array<vec2<u32>, WORKGROUP>;

// The best of the workgroup.
fn best_of_all(mine: vec2<u32>, i: u32) -> vec2<u32> {
    found[i] = mine;
    workgroupBarrier();
    for (var step = WORKGROUP / 2u; step > 0u; step /= 2u) {
        if i < step { found[i] = better(found[i], found[i + step]); }
        workgroupBarrier();
    }
    return found[0];
}
