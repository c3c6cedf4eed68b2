
fn shaped(s: f32) -> f32 {
    if p.softcap != 0.0 { return softcap(s, p.softcap); }
    return s;
}

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

// Positions from `begin` to `end`, in whole subgroups: a group of lanes has asked for its first ones, and
// waits for nobody.
fn look(cache: u32, begin: u32, end: u32, group: u32, lane: u32) {
    for (var at = begin; at < end; at += GROUPS * AHEAD) {
        weigh(at, end, group);
        ask(cache, at + GROUPS * AHEAD, end, group, lane);
    }
}
