//! A picture file: decoded and made small, or refused. Seeds: `tests/fixtures/pictures`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vision::{PanAndScan, Preprocessor, Rgb};

fuzz_target!(|bytes: &[u8]| {
    let Ok(picture) = Rgb::decode(bytes) else { return };
    assert_eq!(picture.data().len(), picture.width() * picture.height() * 3);
    let small = Preprocessor { size: 8, mean: [0.5; 3], std: [0.5; 3] };
    let scan = PanAndScan { min_crop_size: 1, ..PanAndScan::default() };
    let crops = scan.crops(picture.width(), picture.height());
    for view in crops.into_iter().map(|area| picture.crop(area)).chain([picture.clone()]) {
        assert!(small.pixels(&view).iter().all(|v| (-1.0..=1.0).contains(v)));
    }
});
