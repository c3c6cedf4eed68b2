//! Pictures through the program, from the file to logits that Transformers computed:
//! `tools/goldens/vision.py` makes them.

mod common;

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::LazyLock;

use assert_cmd::Command;
use common::{convert, fixture, rms_error, worst_error};
use quant::DType;
use safetensors::SafeTensors;

/// The fixture as one f32 file and one for its tower, converted once.
static MODEL: LazyLock<tempfile::TempDir> =
    LazyLock::new(|| convert("gemma3-mm", DType::F32, DType::F32));

fn model() -> PathBuf {
    MODEL.path().join("model.gguf")
}

fn picture(name: &str) -> String {
    fixture("gemma3-mm").join(name).to_str().unwrap().to_string()
}

fn lapidary(args: &[&str]) -> Output {
    Command::cargo_bin("lapidary").unwrap().args(args).output().unwrap()
}

fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// A golden tensor as 32-bit words.
fn golden(name: &str) -> Vec<[u8; 4]> {
    let bytes = std::fs::read(fixture("gemma3-mm").join("golden_vision.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.tensor(name).unwrap().data().as_chunks::<4>().0.to_vec()
}

fn floats(name: &str) -> Vec<f32> {
    golden(name).into_iter().map(f32::from_le_bytes).collect()
}

fn tokens(prompt: &str) -> String {
    let ids = golden(&format!("tokens_{prompt}")).into_iter().map(u32::from_le_bytes);
    ids.map(|id| id.to_string()).collect::<Vec<_>>().join(",")
}

/// `lapidary logits` of a golden prompt must differ from the golden, in standard deviations, by less
/// than `rms` in the root mean square and by less than four times that anywhere.
fn check(prompt: &str, pictures: &[&str], rms: f64) {
    let dir = tempfile::tempdir().unwrap();
    let npy = dir.path().join("out.npy");
    let (model, tokens) = (model(), tokens(prompt));
    let mut args = vec!["logits", model.to_str().unwrap(), "--tokens", &tokens, "--kv", "f32"];
    args.extend(["-o", npy.to_str().unwrap()]);
    args.extend(pictures);
    let out = lapidary(&args);
    assert!(out.status.success(), "{}", stderr(&out));
    let bytes = std::fs::read(&npy).unwrap();
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let got: Vec<f32> =
        bytes[start..].as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c)).collect();
    let want = floats(&format!("logits_{prompt}"));
    let got = &got[got.len() - want.len()..];
    let (error, worst) = (rms_error(got, &want), worst_error(got, &want));
    println!("{prompt} {pictures:?}: {error:.1e} of σ, {worst:.1e} at worst");
    assert!(error < rms && worst < 4.0 * rms, "{prompt}: {error} {worst}");
}

/// A BMP of the pixels that Transformers gives the tower: whole 255ths, already of its size.
fn exact_picture(dir: &Path, name: &str) -> String {
    const SIZE: usize = 56;
    let pixels = floats(&format!("pixels_{name}"));
    let mut bmp = b"BM".to_vec();
    let header = [54 + 3 * SIZE * SIZE, 0, 54, 40, SIZE, SIZE, 1 | 24 << 16, 0, 0, 0, 0, 0, 0];
    header.iter().for_each(|v| bmp.extend((*v as u32).to_le_bytes()));
    for y in (0..SIZE).rev() {
        for (x, c) in (0..SIZE).flat_map(|x| [2, 1, 0].map(|c| (x, c))) {
            bmp.push(((pixels[(c * SIZE + y) * SIZE + x] + 1.0) * 127.5).round() as u8);
        }
    }
    let path = dir.join(format!("{name}.bmp"));
    std::fs::write(&path, bmp).unwrap();
    path.to_str().unwrap().to_string()
}

/// Nothing is left to resizing: what remains is the arithmetic of tower and model, of which
/// tests/vision.rs asks the same.
#[test]
fn pictures_of_the_right_size_give_the_logits_of_transformers() {
    const EXACT: f64 = 1e-3;
    let dir = tempfile::tempdir().unwrap();
    let [first, second] = ["1", "2"].map(|name| exact_picture(dir.path(), name));
    check("one", &["--image", &first], EXACT);
    check("two", &["--image", &first, "--image", &second], EXACT);
}

/// The tower goes where the text model is.
#[cfg(feature = "gpu")]
#[test]
fn a_gpu_looks_at_pictures() {
    const EXACT: f64 = 2e-3;
    if common::gpu::adapter().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [first, second] = ["1", "2"].map(|name| exact_picture(dir.path(), name));
    check("two", &["--image", &first, "--image", &second, "--device", "gpu"], EXACT);
}

/// The goldens' own pictures, resized here: some pixels are then off by one step of 255 (`vision`
/// says where), and the logits by a few thousandths.
#[test]
fn pictures_of_other_sizes_stay_close() {
    const RESIZED: f64 = 4e-3;
    let [first, second, long] = ["1", "2", "3"].map(|n| picture(&format!("image_{n}.png")));
    check("one", &["--image", &first], RESIZED);
    check("two", &["--image", &first, "--image", &second], RESIZED);
    let crops = ["--image", &long, "--pan-and-scan", "--min-crop-size", "32"];
    check("crops", &crops, RESIZED);
}

/// The prompt that `run` makes has as many tokens as Gemma3Processor's.
#[test]
fn run_looks_at_pictures() {
    let (model, one, long) = (model(), picture("image_1.png"), picture("image_3.png"));
    let run = |args: &[&str]| {
        let base = ["run", model.to_str().unwrap(), "-p", "What is it?", "-n", "1"];
        let out = lapidary(&[&base[..], args].concat());
        assert!(out.status.success(), "{}", stderr(&out));
        stderr(&out)
    };
    let said = run(&["--image", &one]);
    assert!(
        said.contains("75×53 pixels, 16 tokens") && said.contains("[prompt 39 tokens"),
        "{said}"
    );
    let scan = ["--image", &long, "--pan-and-scan", "--min-crop-size", "32"];
    let said = run(&scan);
    assert!(
        said.contains("in 3 parts, 64 tokens") && said.contains("[prompt 146 tokens"),
        "{said}"
    );
    // Too small for the default, and with fewer parts.
    assert!(run(&scan[..3]).contains("149×47 pixels, 16 tokens"));
    assert!(run(&[&scan[..], &["--max-crops", "2"]].concat()).contains("in 2 parts"));
    assert!(
        run(&[&scan[..], &["--min-ratio", "3.2"]].concat()).contains("149×47 pixels, 16 tokens")
    );
    // Without a chat format: BOS, the picture's sequence, the text.
    let raw = run(&["--image", &one, "--raw"]);
    assert!(raw.contains("16 tokens"), "{raw}");
}

/// The tower's file may lie elsewhere, and what is missing is said.
#[test]
fn towers_are_found_or_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let alone = dir.path().join("alone.gguf");
    std::fs::copy(model(), &alone).unwrap();
    let tower = MODEL.path().join("mmproj-model.gguf");
    let (alone, one) = (alone.to_str().unwrap(), picture("image_1.png"));
    let base = ["run", alone, "-p", "x", "-n", "1", "--image", &one];
    let blind = lapidary(&base);
    assert_eq!(blind.status.code(), Some(1));
    let said = stderr(&blind);
    assert!(said.contains("alone.gguf") && said.contains("--mmproj"), "{said}");
    let seeing = lapidary(&[&base[..], &["--mmproj", tower.to_str().unwrap()]].concat());
    assert!(seeing.status.success(), "{}", stderr(&seeing));
    // A file that is no tower, and one that is not there.
    for (file, needle) in [(alone, "no Gemma 3 vision tower"), ("no-such.gguf", "no-such.gguf")] {
        let out = lapidary(&[&base[..], &["--mmproj", file]].concat());
        assert_eq!(out.status.code(), Some(1));
        assert!(stderr(&out).contains(needle), "{}", stderr(&out));
    }
    // Another model's tower: 96 features a row.
    let other = convert("gemma3-text", DType::F32, DType::F32);
    let other = other.path().join("model.gguf");
    let mut wrong = base;
    wrong[1] = other.to_str().unwrap();
    let out = lapidary(&[&wrong[..], &["--mmproj", tower.to_str().unwrap()]].concat());
    assert_eq!(out.status.code(), Some(1));
    assert!(stderr(&out).contains("another model"), "{}", stderr(&out));
}

#[test]
fn places_and_pictures_must_agree() {
    let (model, tokens, one) = (model(), tokens("two"), picture("image_1.png"));
    let dir = tempfile::tempdir().unwrap();
    let npy = dir.path().join("x.npy");
    let base = ["logits", model.to_str().unwrap(), "-o", npy.to_str().unwrap(), "--image", &one];
    let out = lapidary(&[&base[..], &["--tokens", &tokens]].concat());
    assert_eq!(out.status.code(), Some(1));
    assert!(stderr(&out).contains("32"), "{}", stderr(&out));
    assert!(!npy.exists());
    let out = lapidary(&[&base[..], &["--prompt", "What is it?"]].concat());
    assert!(out.status.success(), "{}", stderr(&out));
}

#[test]
fn bad_pictures_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let cut = dir.path().join("cut.png");
    std::fs::write(&cut, &std::fs::read(picture("image_1.png")).unwrap()[..500]).unwrap();
    for (file, needle) in [(cut.to_str().unwrap(), "cut off"), ("no-such.jpg", "no-such.jpg")] {
        let out = lapidary(&["run", model().to_str().unwrap(), "-p", "x", "--image", file]);
        assert_eq!(out.status.code(), Some(1));
        let said = stderr(&out);
        assert!(said.contains(file) && said.contains(needle), "{said}");
    }
}

#[test]
fn inspect_tells_what_a_tower_sees() {
    let out = lapidary(&["inspect", MODEL.path().join("mmproj-model.gguf").to_str().unwrap()]);
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.contains("56×56 pixels in 64 patches of 7×7"), "{text}");
    assert!(text.contains("16 tokens") && text.contains("96 features"), "{text}");
    let text = lapidary(&["inspect", model().to_str().unwrap()]).stdout;
    assert!(!String::from_utf8(text).unwrap().contains("vision tower"));
}

#[test]
fn options_about_parts_need_pan_and_scan() {
    for option in [["--max-crops", "2"], ["--min-crop-size", "9"], ["--min-ratio", "2"]] {
        let out = lapidary(&["run", "model.gguf", "-p", "x", option[0], option[1]]);
        assert_eq!(out.status.code(), Some(2), "{option:?}");
    }
    for option in [["--max-crops", "0"], ["--min-ratio", "0.5"], ["--min-ratio", "nan"]] {
        let args = ["run", "model.gguf", "-p", "x", "--pan-and-scan", option[0], option[1]];
        assert_eq!(lapidary(&args).status.code(), Some(2), "{option:?}");
    }
}
