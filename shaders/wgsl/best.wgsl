// The larger of two (value, index) pairs; of equals the one that comes first.
fn better(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let x = bitcast<f32>(a.x);
    let y = bitcast<f32>(b.x);
    if y > x || (y == x && b.y < a.y) { return b; }
    return a;
}

var<workgroup> found: array<vec2<u32>, 256>;

// The best of the workgroup.
fn best_of_all(mine: vec2<u32>, i: u32) -> vec2<u32> {
    found[i] = mine;
    workgroupBarrier();
    for (var step = 128u; step > 0u; step /= 2u) {
        if i < step { found[i] = better(found[i], found[i + step]); }
        workgroupBarrier();
    }
    return found[0];
}
