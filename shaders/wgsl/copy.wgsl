// y = x, four pieces an invocation: how fast the device's memory can be read and written.

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let first = workgroup.x * 1024u + i;
    let a = x[first];
    let b = x[first + 256u];
    let c = x[first + 512u];
    let d = x[first + 768u];
    y[first] = a;
    y[first + 256u] = b;
    y[first + 512u] = c;
    y[first + 768u] = d;
}
