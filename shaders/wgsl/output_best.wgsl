// Of the rows of the matrix that an invocation has, in turn, the one with the largest value.
var<private> mine: vec2<u32> = vec2<u32>(LEAST, 0u);

fn shaped(v: f32) -> f32 {
    if CAPPED { return softcap(v, p.scale); }
    return v;
}

fn output(t: u32, row: u32, even: f32, odd: f32) {
    if row < p.rows { mine = better(mine, vec2<u32>(bitcast<u32>(shaped(even)), row)); }
    if row + 1u < p.rows { mine = better(mine, vec2<u32>(bitcast<u32>(shaped(odd)), row + 1u)); }
}

// Invocations of a group of LANES that have rows.
const HAVE: u32 = min(LANES, SUMS / 2u);

var<workgroup> kept: array<vec2<u32>, GROUPS * HAVE>;

// The best of the workgroup: few, so that one invocation sees to it.
fn conclude(workgroup: u32, i: u32) {
    if i % LANES < HAVE { kept[i / LANES * HAVE + i % LANES] = mine; }
    workgroupBarrier();
    if i == 0u {
        var top = kept[0];
        for (var k = 1u; k < GROUPS * HAVE; k++) { top = better(top, kept[k]); }
        best[workgroup] = top;
    }
}
