
const MAY_CAP = true;

// Asks for the next positions from `at` on that a group of lanes looks at: every GROUPS-th, AHEAD of
// them.
fn ask(cache: u32, at: u32, end: u32, group: u32, lane: u32) {
    if at >= end { return; }
    // No more positions than slots are ever looked at, so that they go around once at most.
    let first = at % p.slots;
    @j let on_{j} = first + min({j}u * GROUPS + group, end - 1u - at);
    @j let slot_{j} = cache + select(on_{j}, on_{j} - p.slots, on_{j} >= p.slots);
    @j @e key_{j}_{e} = key_unit(slot_{j}, {e}u * LANES + lane);
    @j @e value_{j}_{e} = value_unit(slot_{j}, {e}u * LANES + lane);
}

// Positions from `begin` to `end`, in whole subgroups: a group of lanes has an online softmax of its
// own over those that it asks for, the first of which it has asked for, and waits for nobody.
fn look(cache: u32, begin: u32, end: u32, group: u32, lane: u32) {
    for (var at = begin; at < end; at += GROUPS * AHEAD) {
        @j var score_{j} = 0.0;
        @j @e score_{j} += times_query(opened(key_{j}_{e}), {e}u);
        @j score_{j} = select(LOWEST, shaped(along(score_{j})), at + {j}u * GROUPS + group < end);
        var most = top;
        @j most = max(most, score_{j});
        raise(most);
        @j let weight_{j} = select(0.0, exp(score_{j} - most), score_{j} > LOWEST);
        @j total += weight_{j};
        @j @e add_value(opened(value_{j}_{e}), weight_{j}, {e}u);
        ask(cache, at + GROUPS * AHEAD, end, group, lane);
    }
}
