// The largest, and the sum, over each eight neighbouring invocations.
var<workgroup> exchange: array<f32, PER * WORKGROUP>;

fn largest_of_eight(v: ptr<function, array<f32, PER>>, i: u32) {
    for (var k = 0u; k < PER; k++) { exchange[k * WORKGROUP + i] = (*v)[k]; }
    workgroupBarrier();
    for (var k = 0u; k < PER; k++) {
        let first = k * WORKGROUP + i / 8u * 8u;
        for (var j = 0u; j < 8u; j++) { (*v)[k] = max((*v)[k], exchange[first + j]); }
    }
    workgroupBarrier();
}

fn sum_of_eight(v: ptr<function, array<f32, PER>>, i: u32) {
    for (var k = 0u; k < PER; k++) { exchange[k * WORKGROUP + i] = (*v)[k]; }
    workgroupBarrier();
    for (var k = 0u; k < PER; k++) {
        let first = k * WORKGROUP + i / 8u * 8u;
        (*v)[k] = 0.0;
        for (var j = 0u; j < 8u; j++) { (*v)[k] += exchange[first + j]; }
    }
}
