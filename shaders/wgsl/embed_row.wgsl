// Row `to` of x becomes the embedding of a token · √hidden, by the WORKGROUP invocations of a workgroup, where
// this shard holds it.
fn embed_row(token: u32, to: u32, i: u32) {
    if token < p.first_row || token >= p.first_row + p.rows { return; }
    for (var c = i; c < p.pieces; c += WORKGROUP) {
        let at = (token - p.first_row) * p.pieces + c;
        let words = pieces[at];
        let s = scale_of(at);
        for (var j = 0u; j < PIECE / 4u; j++) {
            // The weight first, then its factor: the order of the CPU's two roundings.
            x[to * p.x_stride + c * (PIECE / 4u) + j] = weigh(four(words, j), s) * p.scale;
        }
    }
}
