//! Kernels against the ceilings of the machine.

fn main() {}
