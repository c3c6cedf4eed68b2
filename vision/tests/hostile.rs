//! Files that lie about themselves: a clear error, or the right picture, in little time and memory.

use lapidary_vision::{MAX_FILE_BYTES, Preprocessor, Rgb};
use proptest::prelude::*;

fn fixture(name: &str) -> Vec<u8> {
    let folder =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/pictures");
    std::fs::read(folder.join(name)).unwrap()
}

/// One file of each format.
const FILES: [&str; 10] = [
    "rgb16.png",
    "palette_alpha.png",
    "half.jpg",
    "progressive.jpg",
    "cmyk.jpg",
    "frames.gif",
    "lossless.webp",
    "lossy_alpha.webp",
    "frames.webp",
    "rgb.bmp",
];

fn refused(bytes: &[u8], needle: &str) {
    let error = Rgb::decode(bytes).expect_err(needle).to_string();
    assert!(error.contains(needle), "{error:?} should say {needle:?}");
}

fn crc(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ (0xEDB8_8320 * (c & 1)))
    })
}

/// The file with other sides in its header.
fn claiming(name: &str, width: u32, height: u32) -> Vec<u8> {
    let mut bytes = fixture(name);
    let (w16, h16) = ((width as u16).to_le_bytes(), (height as u16).to_le_bytes());
    match name.rsplit('.').next().unwrap() {
        "png" => {
            bytes[16..20].copy_from_slice(&width.to_be_bytes());
            bytes[20..24].copy_from_slice(&height.to_be_bytes());
            let crc = crc(&bytes[12..29]);
            bytes[29..33].copy_from_slice(&crc.to_be_bytes());
        }
        "gif" => {
            bytes[6..8].copy_from_slice(&w16);
            bytes[8..10].copy_from_slice(&h16);
        }
        "bmp" => {
            bytes[18..22].copy_from_slice(&width.to_le_bytes());
            bytes[22..26].copy_from_slice(&height.to_le_bytes());
        }
        "jpg" => {
            let at = bytes.windows(2).position(|w| matches!(w, [0xFF, 0xC0 | 0xC2])).unwrap();
            bytes[at + 5..at + 7].copy_from_slice(&(height as u16).to_be_bytes());
            bytes[at + 7..at + 9].copy_from_slice(&(width as u16).to_be_bytes());
        }
        other => panic!("{other}"),
    }
    bytes
}

#[test]
fn what_is_no_picture_is_named() {
    refused(b"", "empty");
    refused(b"GGUF\x03\0\0\0", "no PNG");
    refused(&[0; 10_000], "no PNG");
    refused(b"II*\0\x08\0\0\0", "TIFF");
    refused(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC");
    let folder = Rgb::open(env!("CARGO_MANIFEST_DIR")).unwrap_err().to_string();
    assert!(folder.contains("not a file") && folder.contains("vision"), "{folder}");
    assert!(Rgb::open("no-such.png").unwrap_err().to_string().contains("no-such.png"));
    let long = vec![0; MAX_FILE_BYTES as usize + 1];
    refused(&long, "at most 268435456");
}

#[test]
fn claims_of_enormous_sides_are_refused() {
    for name in ["rgb16.png", "half.jpg", "progressive.jpg", "frames.gif", "rgb.bmp"] {
        refused(&claiming(name, 40_000, 40_000), "40000×40000");
        assert!(Rgb::decode(&claiming(name, 0, 5)).is_err(), "{name}");
    }
    refused(&claiming("rgb.bmp", 40_000, 5), "damaged");
}

/// Lossless data that a decoder would have to expand a thousandfold; it claims less than is allowed.
#[test]
fn a_claim_that_the_data_does_not_bear_out_is_an_error() {
    for name in ["rgb16.png", "palette_alpha.png", "rgb.bmp"] {
        refused(&claiming(name, 3000, 2000), "damaged");
    }
}

#[test]
fn files_that_end_too_early_are_errors() {
    for name in FILES {
        let bytes = fixture(name);
        for length in [1, 5, 12, 30, bytes.len() / 3, bytes.len() / 2, bytes.len() * 3 / 4] {
            // The first frame of an animation may be there in full.
            let cut = Rgb::decode(&bytes[..length]);
            assert!(cut.is_err() || name.starts_with("frames"), "{name} after {length} bytes");
        }
    }
}

/// A progressive picture that is cut off between two scans would be a blurred one.
#[test]
fn a_jpeg_without_some_of_its_scans_is_an_error() {
    let bytes = fixture("progressive.jpg");
    let scans = bytes.windows(2).enumerate().filter(|(_, w)| *w == [0xFF, 0xDA]);
    let cuts: Vec<usize> = scans.map(|(at, _)| at).collect();
    assert!(cuts.len() > 5);
    for at in cuts {
        refused(&bytes[..at], "ends too early");
    }
}

/// How densely the components of a JPEG are sampled, in every way that its header can say.
#[test]
fn jpegs_may_be_sampled_in_any_way() {
    for name in ["half.jpg", "progressive.jpg", "cmyk.jpg", "grey.jpg"] {
        let bytes = fixture(name);
        let frame = bytes.windows(2).position(|w| matches!(w, [0xFF, 0xC0 | 0xC2])).unwrap();
        for component in 0..bytes[frame + 9] as usize {
            for sampling in 0..=255 {
                let mut other = bytes.clone();
                other[frame + 11 + 3 * component] = sampling;
                let _ = Rgb::decode(&other);
            }
        }
    }
    let mut odd = fixture("cmyk.jpg");
    let frame = odd.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
    odd[frame + 14] = 0x31;
    refused(&odd, "oddly sampled JPEG");
}

/// Chunks that claim more than there is do not make the decoder reserve it.
#[test]
fn webp_chunks_end_within_the_file() {
    let mut bytes = fixture("turned_8.webp");
    let at = bytes.windows(4).position(|w| w == b"EXIF").unwrap();
    bytes[at + 4..at + 8].copy_from_slice(&u32::MAX.to_le_bytes());
    refused(&bytes, "past the end");
}

/// Of an animation only the first frame is looked at, however many there are.
#[test]
fn ten_thousand_frames_are_one_picture() {
    let bytes = fixture("frames.gif");
    let want = Rgb::decode(&bytes).unwrap();
    // From the first frame's control block to the trailer.
    let start = bytes.windows(3).position(|w| w == [0x21, 0xF9, 0x04]).unwrap();
    let (head, frames) = (&bytes[..start], &bytes[start..bytes.len() - 1]);
    let mut long = head.to_vec();
    (0..10_000).for_each(|_| long.extend(frames));
    long.push(0x3B);
    assert!(long.len() > 5_000_000);
    assert_eq!(Rgb::decode(&long).unwrap(), want);
}

/// A line of pixels is a picture as well.
#[test]
fn thin_pictures_are_read() {
    let (width, height) = (1usize, 10_000usize);
    let mut bmp = fixture("rgb.bmp")[..54].to_vec();
    bmp[18..22].copy_from_slice(&(width as u32).to_le_bytes());
    bmp[22..26].copy_from_slice(&(height as u32).to_le_bytes());
    bmp.extend((0..height).flat_map(|_| [10, 20, 30, 0]));
    let picture = Rgb::decode(&bmp).unwrap();
    assert_eq!((picture.width(), picture.height()), (width, height));
    let pixels = Preprocessor { size: 8, mean: [0.0; 3], std: [1.0 / 255.0; 3] }.pixels(&picture);
    for (plane, want) in pixels.chunks(64).zip([30.0f32, 20.0, 10.0]) {
        assert!(plane.iter().all(|v| (v - want).abs() < 1e-3));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    /// Bytes changed at random: an error or a picture of the size it says, never a panic.
    #[test]
    fn damaged_files_do_not_panic(
        file in 0..FILES.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        keep in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut bytes = fixture(FILES[file]);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(keep) = keep {
            bytes.truncate(keep.index(bytes.len()));
        }
        if let Ok(picture) = Rgb::decode(&bytes) {
            prop_assert_eq!(picture.data().len(), picture.width() * picture.height() * 3);
        }
    }
}
