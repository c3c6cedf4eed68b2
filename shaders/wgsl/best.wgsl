var<workgroup> found: array<vec2<u32>, WORKGROUP>;

// The best of the workgroup.
fn best_of_all(mine: vec2<u32>, i: u32) -> vec2<u32> {
    found[i] = mine;
    workgroupBarrier();
    @halving WORKGROUP if i < {step}u { found[i] = better(found[i], found[i + {step}u]); } workgroupBarrier();
    return found[0];
}
