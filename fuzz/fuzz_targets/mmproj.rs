//! The file of a vision tower: it is refused, or makes rows of an image. Seeds: what `lapidary convert`
//! makes of `tests/fixtures/gemma3-new`.
#![no_main]

use std::sync::atomic::AtomicBool;

use libfuzzer_sys::fuzz_target;
use runtime::vision::{Precision, VisionOptions, VisionTower};

fuzz_target!(|bytes: &[u8]| {
    // The last byte chooses how to multiply: the tower's own choice for one so small is f32.
    let precision = match bytes.last() {
        Some(b) if b % 2 == 1 => Precision::Fast,
        _ => Precision::Auto,
    };
    let options = VisionOptions { threads: Some(1), precision, ..VisionOptions::default() };
    let Ok(tower) = VisionTower::from_bytes("fuzz.gguf", bytes.to_vec(), &options) else { return };
    let c = tower.config();
    // Attention grows with the square of the patches, and a small file can have many.
    if c.patches() > 256 {
        return;
    }
    let pixels = vec![0.5; c.pixels()];
    let rows = tower.encode(&pixels, &AtomicBool::new(false)).expect("an image of the right size");
    assert_eq!((rows.len(), rows.width()), (c.tokens(), c.projection_dim));
});
