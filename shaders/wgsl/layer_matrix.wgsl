
// A matrix of a layer (layer.wgsl): units of {M}_ROWS rows, {M}_LANES invocations each, of which a subgroup
// has several side by side. Pieces are asked for {M}_BATCH at a time, the first of them long before they
// are needed, the others as soon as there is room for them.
@b @r var<private> {m}_piece_{b}_{r}: vec4<u32>;
@b @r var<private> {m}_word_{b}_{r}: u32; // which has its scale in one of its halves

// Do the last of a row's pieces leave some invocations without one?
const {M}_UNEVEN: bool = {M}_PIECES % ({M}_BATCH * {M}_LANES) != 0u;

// Where an invocation's pieces of a row begin, and how much further on the row's last piece is.
struct {M}_Start {
    at: u32,
    most: u32,
}

fn {m}_start(unit: u32, row: u32, column: u32) -> {M}_Start {
    let in_layer = (min(unit, {M}_UNITS - 1u) * {M}_ROWS + row) * {M}_PIECES + column;
    let at = layer * {M}_STEP + in_layer;
    return {M}_Start(at, {M}_PIECES - 1u - min(column, {M}_PIECES - 1u));
}

// Its piece `b`. Reckoned from the first, so that the others are at a fixed distance.
fn {m}_piece(start: {M}_Start, b: u32) -> vec4<u32> {
    if {M}_UNEVEN { return {m}_pieces[start.at + min(b * {M}_LANES, start.most)]; }
    return {m}_pieces[start.at + b * {M}_LANES];
}

fn {m}_word(start: {M}_Start, b: u32) -> u32 {
    if {M}_UNEVEN { return {m}_scales[(start.at + min(b * {M}_LANES, start.most)) / WORD_PIECES]; }
    return {m}_scales[start.at / WORD_PIECES + b * ({M}_LANES / WORD_PIECES)];
}

// Asks for the first pieces of a subgroup's first units, before x is there.
fn {m}_begin(me: Me) {
    let unit = me.number * (me.size / {M}_LANES) + me.place / {M}_LANES;
    @r let start_{r} = {m}_start(unit, {r}u, me.place % {M}_LANES);
    @b @r {m}_piece_{b}_{r} = {m}_piece(start_{r}, {b}u);
    @b @r {m}_word_{b}_{r} = {m}_word(start_{r}, {b}u);
}

// The block of x, which is in x_bytes, that piece `place` of a row is multiplied with.
fn {m}_x(place: u32) -> Block {
    let at = place * PIECE / 32u * 2u;
    return Block(x_bytes[at], x_bytes[at + 1u]);
}

// The product; `word` has the piece's scale in its lower half.
fn {m}_times(piece: vec4<u32>, word: u32, place: u32, x: Block, scale: vec2<f32>) -> f32 {
    let found = unpack2x16float(word).x * scale.x * products(piece, place, x, scale.y);
    // What was asked for beyond the row's end counts for nothing.
    return select(found, 0.0, {M}_UNEVEN && place >= {M}_PIECES);
}

fn {m}_run(me: Me) {
    let lane = me.place % {M}_LANES;
    let side = me.size / {M}_LANES;
    let within = me.place / {M}_LANES;
    var column = lane;
    var number = me.number;
    @r var sum_{r} = 0.0;
    while number * side < {M}_UNITS {
        let unit = number * side + within;
        let place = column;
        // The scales of pieces {M}_LANES apart lie in the same half of their words.
        @r let shift_{r} = {m}_start(unit, {r}u, place).at * 2u / WORD_PIECES % 2u * 16u;
        column += {M}_BATCH * {M}_LANES;
        let through = column >= {M}_PIECES + lane;
        if through {
            column = lane;
            number += me.all;
        }
        let more = number * side < {M}_UNITS;
        @r let next_{r} = {m}_start(number * side + within, {r}u, column);
        @b let place_{b} = place + {b}u * {M}_LANES; let x_{b} = {m}_x(place_{b}); let scale_{b} = x_scales[place_{b} * PIECE / 32u];[[r:  sum_{r} += {m}_times({m}_piece_{b}_{r}, {m}_word_{b}_{r} >> shift_{r}, place_{b}, x_{b}, scale_{b});]] if more {[[r:  {m}_piece_{b}_{r} = {m}_piece(next_{r}, {b}u); {m}_word_{b}_{r} = {m}_word(next_{r}, {b}u);]] }
        if through {
            @r sum_{r} = {m}_along(sum_{r});
            if lane == 0u && unit < {M}_UNITS { {store} }
            @r sum_{r} = 0.0;
        }
    }
}

// The sum over the invocations of a row.
fn {m}_along(v: f32) -> f32 {
    var sum = v;
    @halving {M}_LANES sum += subgroupShuffleXor(sum, {step}u);
    return sum;
}
