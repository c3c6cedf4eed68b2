// Where the workgroups of a dispatch wait for each other. Nothing promises that all of them run at the
// same time: there are no more than were seen to (`probe`), nobody waits for ever, and who has waited in
// vain says so. The words of `meeting` are those of `Meeting`.

// Looks at who has arrived before one gives up: some hundredths of a second. (Drivers that run on a CPU
// end a kernel's loops after 65536 turns.)
const PATIENCE: u32 = 1u << 15u;

// Returns once `goal` workgroups have come here since the dispatch began. What they have written to
// coherent buffers before is then seen by all.
fn meet(goal: u32, i: u32) {
    storageBarrier();
    if i == 0u {
        atomicAdd(&meeting[ARRIVED], 1u);
        var there = 0u;
        for (var t = 1u; t < PATIENCE && there < goal; t++) {
            there = atomicLoad(&meeting[ARRIVED]);
            // Where others have given up already there is no hope.
            if t % 256u == 0u && atomicLoad(&meeting[LATE]) != 0u { break; }
        }
        if there < goal { atomicStore(&meeting[LATE], 1u); }
    }
    storageBarrier();
}

// A workgroup is through: the last one leaves everything as it was found.
fn leave(workgroups: u32, i: u32) {
    if i == 0u && atomicAdd(&meeting[DONE], 1u) + 1u == workgroups {
        atomicStore(&meeting[ARRIVED], 0u);
        atomicStore(&meeting[DONE], 0u);
        if atomicLoad(&meeting[LATE]) == 0u { atomicAdd(&meeting[FINISHED], 1u); }
    }
}

// Finds out how many workgroups run at the same time: those that have begun before the first one ends.
fn probe(i: u32) {
    if i == 0u {
        let before = atomicAdd(&meeting[ARRIVED], 1u);
        for (var t = 0u; t < 2000u; t++) {
            if atomicLoad(&meeting[SEEN]) != 0u { break; }
        }
        // Complemented, so that the fewest are the largest number.
        atomicMax(&meeting[SEEN], ~max(atomicLoad(&meeting[ARRIVED]), before));
    }
    workgroupBarrier();
}
