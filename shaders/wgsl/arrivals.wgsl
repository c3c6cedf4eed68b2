
// A vector of {V}_QUADS groups of four values, waited for: those of this invocation, and zeros beyond the
// last one. All are looked at each time: to look at the last ones first costs one way there and back more.
const {V}_PER: u32 = ({V}_PADDED + WORKGROUP - 1u) / WORKGROUP;

fn {v}_arrived(i: u32) -> array<vec4<f32>, {V}_PER> {
    var words: array<vec4<u32>, {V}_PER>;
    for (var t = 0u; t < PATIENCE; t++) {
        for (var k = 0u; k < {V}_PER; k++) {
            words[k] = quad_words({V}, {V}_QUADS, k * WORKGROUP + i);
        }
        var all_there = true;
        for (var k = 0u; k < {V}_PER; k++) { all_there = all_there & are_there(words[k]); }
        if all_there { break; }
        if is_hopeless(t) {
            give_up();
            break;
        }
    }
    var quads: array<vec4<f32>, {V}_PER>;
    for (var k = 0u; k < {V}_PER; k++) {
        quads[k] = select(vec4<f32>(), bitcast<vec4<f32>>(words[k]), k * WORKGROUP + i < {V}_QUADS);
    }
    return quads;
}
