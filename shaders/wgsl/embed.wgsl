// x = the embedding of each row's token · √hidden, where this shard holds it. One workgroup a row.

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let token = tokens[workgroup.x];
    if token < p.first_row || token >= p.first_row + p.rows { return; }
    for (var c = i; c < p.pieces; c += 64u) {
        let at = (token - p.first_row) * p.pieces + c;
        let words = pieces[at];
        let s = scale_of(at);
        for (var j = 0u; j < PIECE / 4u; j++) {
            // The weight first, then its factor: the order of the CPU's two roundings.
            x[workgroup.x * p.x_stride + c * (PIECE / 4u) + j] = (s * four(words, j)) * p.scale;
        }
    }
}
