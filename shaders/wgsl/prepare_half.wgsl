// Rows of x to f16, divided by a power of two that brings the largest value to between 1 and 2:
// what is read here may be far beyond f16's range. One workgroup a row.

var<workgroup> largest: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let row = batch.first + workgroup.x;
    let start = row * p.x_stride;
    var most = vec4<f32>();
    for (var c = i; c < p.x_stride; c += WORKGROUP) { most = max(most, abs(x[start + c])); }
    largest[i] = max(max(most.x, most.y), max(most.z, most.w));
    workgroupBarrier();
    @halving WORKGROUP if i < {step}u { largest[i] = max(largest[i], largest[i + {step}u]); } workgroupBarrier();
    // The power of two is the value without its mantissa; nothing but zeros stays as it is.
    let power = bitcast<u32>(largest[0]) & 0x7f800000u;
    let scale = select(1.0, bitcast<f32>(power), power >= 0x0d800000u); // 2^-100
    for (var c = i; c < p.x_stride; c += WORKGROUP) {
        values[start + c] = vec4<f16>(x[start + c] / scale);
    }
    if i == 0u { scales[row] = scale; }
}
