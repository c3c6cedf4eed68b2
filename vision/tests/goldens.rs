//! Pictures of every kind against what Pillow and Transformers make of them;
//! `tools/goldens/pictures.py` makes both.

use std::path::{Path, PathBuf};

use lapidary_vision::{Area, PanAndScan, Preprocessor, Rgb};
use safetensors::SafeTensors;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

/// The largest and the mean difference of two pictures' bytes.
fn difference(got: &[u8], want: &[u8]) -> (u8, f64) {
    assert_eq!(got.len(), want.len());
    let pairs = || got.iter().zip(want).map(|(a, b)| a.abs_diff(*b));
    (pairs().max().unwrap(), pairs().map(f64::from).sum::<f64>() / got.len() as f64)
}

/// Lossless files are read to the last bit, and lossy WebP too. JPEG decoders may differ in how
/// they round (ITU T.83 asks for one step in each coefficient): a step or two a pixel, and where
/// colours are stored at half the resolution a few more at edges.
#[test]
fn files_are_read_as_pillow_reads_them() {
    let folder = fixtures().join("pictures");
    let golden = std::fs::read(folder.join("golden.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&golden).unwrap();
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let Ok(want) = golden.tensor(&format!("decoded_{name}")) else { continue };
        let got = Rgb::open(&path).unwrap();
        assert_eq!([got.height(), got.width(), 3], want.shape(), "{name}");
        let (worst, mean) = difference(got.data(), want.data());
        assert!(worst == 0, "{name}: {worst} at most, {mean} in the mean");
        count += 1;
    }
    assert_eq!(count, golden.names().iter().filter(|n| n.starts_with("decoded_")).count());
}

/// The picture that the script computes as well.
fn pattern(width: usize, height: usize) -> Rgb {
    let value = |x: usize, y: usize, c: usize| ((x * 31 + y * 17 + c * 101) ^ (x * y)) as u8;
    let rows = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let data = rows.flat_map(|(x, y)| [value(x, y, 0), value(x, y, 1), value(x, y, 2)]).collect();
    Rgb::new(width, height, data).unwrap()
}

#[test]
fn resizing_is_pillows() {
    let golden = std::fs::read(fixtures().join("pictures/golden.safetensors")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&golden).unwrap();
    let step: usize = header.metadata().as_ref().unwrap()["step"].parse().unwrap();
    let golden = SafeTensors::deserialize(&golden).unwrap();
    let mut count = 0;
    for (name, want) in golden.tensors() {
        let Some(sizes) = name.strip_prefix("resized_") else { continue };
        let sizes: Vec<usize> = sizes.split('_').map(|n| n.parse().unwrap()).collect();
        let &[width, height, size] = sizes.as_slice() else { panic!("{name}") };
        // Undoing the normalization gives whole bytes back.
        let plain = Preprocessor { size, mean: [0.0; 3], std: [1.0 / 255.0; 3] };
        let pixels = plain.pixels(&pattern(width, height));
        let step = if size > 64 { step } else { 1 };
        let at = |y: usize, x: usize, c: usize| pixels[(c * size + y) * size + x].round() as u8;
        let places =
            (0..size).step_by(step).flat_map(|y| (0..size).step_by(step).map(move |x| (y, x)));
        let got: Vec<u8> =
            places.flat_map(|(y, x)| [at(y, x, 0), at(y, x, 1), at(y, x, 2)]).collect();
        let (worst, mean) = difference(&got, want.data());
        assert!(worst == 0, "{name}: {worst} at most, {mean} in the mean");
        count += 1;
    }
    assert_eq!(count, 15);
}

/// From the file to what the tower reads, as Transformers' image processor does it.
#[test]
fn pixels_are_those_of_transformers() {
    let folder = fixtures().join("gemma3-mm");
    let golden = std::fs::read(folder.join("golden_vision.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&golden).unwrap();
    let gemma = Preprocessor { size: 56, mean: [0.5; 3], std: [0.5; 3] };
    let pixels = |name: &str| gemma.pixels(&Rgb::open(folder.join(name)).unwrap());
    for name in ["1", "2"] {
        let want = golden.tensor(&format!("pixels_{name}")).unwrap();
        let want = want.data().as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c));
        let got = pixels(&format!("image_{name}.png"));
        let worst = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("image_{name}.png: {worst}");
        assert!(worst <= 1e-6, "image_{name}: {worst}");
    }
    for name in ["grey", "alpha"] {
        let want = golden.tensor(&format!("pixels_{name}_u8")).unwrap();
        let got: Vec<u8> = pixels(&format!("image_{name}.png"))
            .iter()
            .map(|v| ((v + 1.0) * 127.5).round() as u8)
            .collect();
        assert_eq!(difference(&got, want.data()).0, 0, "image_{name}");
    }
}

/// A picture of the right size is not touched.
#[test]
fn the_right_size_stays_as_it_is() {
    let gemma = Preprocessor { size: 56, mean: [0.5; 3], std: [0.5; 3] };
    let picture = pattern(56, 56);
    let got = gemma.pixels(&picture);
    for (i, &byte) in picture.data().iter().enumerate() {
        let want = ((f64::from(byte) / 255.0) as f32 - 0.5) / 0.5;
        assert_eq!(got[(i % 3) * 56 * 56 + i / 3], want);
    }
}

#[test]
fn pan_and_scan_cuts_as_transformers_does() {
    let golden = std::fs::read(fixtures().join("pictures/golden.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&golden).unwrap();
    let table = golden.tensor("crops").unwrap();
    let values: Vec<usize> =
        table.data().as_chunks::<2>().0.iter().map(|c| i16::from_le_bytes(*c) as usize).collect();
    let mut cut = 0;
    for row in values.as_chunks::<10>().0 {
        let [width, height, max_crops, min_crop_size, tenths, count, ends @ ..] = *row;
        let scan = PanAndScan { max_crops, min_crop_size, min_ratio: tenths as f64 / 10.0 };
        let parts = scan.crops(width, height);
        let size = |a: &Area| [a.width, a.height];
        let got: Vec<usize> =
            [parts.first(), parts.last()].into_iter().flatten().flat_map(size).collect();
        assert_eq!(parts.len(), count, "{width}×{height}, {scan:?}");
        assert_eq!(got, &ends[..got.len()], "{width}×{height}, {scan:?}");
        cut += usize::from(count > 1);
    }
    assert!(cut > 50, "{cut}");
}
