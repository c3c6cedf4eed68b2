//! `lapidary eval`, `compare` and `convert --scale` on the demo model, as people run them.

mod common;

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::LazyLock;

use assert_cmd::Command;
use quant::DType;
use serde_json::Value;

/// The demo checkpoint in q8_0 and q4_0, converted once for all tests.
static DEMO: LazyLock<[(tempfile::TempDir, String); 2]> = LazyLock::new(|| {
    [(DType::Q8_0, DType::Q8_0), (DType::Q4_0, DType::Q8_0)].map(|(dtype, embed)| {
        let dir = common::convert_dir(&root("models/demo"), dtype, embed);
        let path = dir.path().join("model.gguf").display().to_string();
        (dir, path)
    })
});

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn path(p: &Path) -> String {
    p.display().to_string()
}

fn lapidary(args: &[&str]) -> Output {
    Command::cargo_bin("lapidary").unwrap().args(args).output().unwrap()
}

fn json(args: &[&str]) -> Value {
    let out = lapidary(args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

fn fails(args: &[&str], code: i32, needle: &str) {
    let out = lapidary(args);
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(code), "{args:?}: {err}");
    assert!(err.contains(needle) && !err.contains("panicked"), "{args:?}: {err}");
}

#[test]
fn models_are_measured_against_a_reference_and_reported() {
    let [(_, q8), (_, q4)] = &*DEMO;
    let dir = tempfile::tempdir().unwrap();
    let page = path(&dir.path().join("report.html"));
    let text = path(&root("models/eval.txt"));
    let common = ["--text", &text, "--ctx", "64", "--chunks", "3", "-o", "json"];
    let mut args = vec!["eval", q8, q4, "--reference", q8, "--kv", "f32", "--report", &page];
    args.extend(common);
    let found = json(&args);
    let model = |i: usize| &found["models"][i]["scores"];
    assert_eq!(model(0)["tokens"], 3 * 31);
    assert_eq!(model(0)["against"]["kld"]["value"], 0.0, "a model is itself");
    assert_eq!(model(0)["against"]["same_top"]["value"], 1.0);
    let kld = model(1)["against"]["kld"]["value"].as_f64().unwrap();
    assert!(kld > 1e-5 && kld < 0.5, "{kld}");
    let ppl = model(1)["perplexity"]["value"].as_f64().unwrap();
    assert!(ppl > 1.0 && ppl < 20.0, "{ppl}");
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.contains("<svg") && html.ends_with("</html>\n"));
    assert!(!html.contains("http"), "nothing comes from the network");
}

#[test]
fn questions_are_reported_without_a_text() {
    let [(_, q8), (_, q4)] = &*DEMO;
    let dir = tempfile::tempdir().unwrap();
    let (page, few) = (path(&dir.path().join("report.html")), path(&dir.path().join("few.jsonl")));
    let all = std::fs::read_to_string(root("models/choices.jsonl")).unwrap();
    let lines: Vec<&str> = all.lines().take(4).collect();
    std::fs::write(&few, lines.join("\n")).unwrap();
    json(&["eval", q8, q4, "--choices", &few, "-o", "json", "--report", &page]);
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.contains("4 questions of <em>few</em>") && html.ends_with("</html>\n"), "{html}");
    assert!(!html.contains("Perplexity"), "there was no text");
}

#[test]
fn saved_logits_stand_in_for_the_reference_and_for_nothing_else() {
    let [(_, q8), (_, q4)] = &*DEMO;
    let dir = tempfile::tempdir().unwrap();
    let logits = path(&dir.path().join("logits"));
    let text = path(&root("models/eval.txt"));
    let common = ["--text", &text, "--ctx", "64", "--chunks", "2", "-o", "json"];
    let with = |more: &[&str]| -> Value { json(&[&["eval", q4][..], more, &common].concat()) };
    let live = with(&["--reference", q8, "--save-logits", &logits]);
    let saved = with(&["--reference-logits", &logits]);
    let kld = |v: &Value| v["models"][0]["scores"]["against"]["kld"]["value"].as_f64().unwrap();
    assert!((kld(&live) - kld(&saved)).abs() < 1e-6, "{} {}", kld(&live), kld(&saved));
    let ppl = |v: &Value| v["models"][0]["scores"]["against"]["perplexity"]["reference"].clone();
    assert_eq!(ppl(&live), ppl(&saved), "the correct tokens' are saved exactly");

    let args = ["eval", q4, "--text", &text, "--reference-logits", &logits];
    fails(&[&args[..], &["--ctx", "32"]].concat(), 1, "--ctx 64, not 32");
    fails(&[&args[..], &["--ctx", "64", "--chunks", "9"]].concat(), 1, "windows");
    let other = [&args[..], &["--ctx", "64", "--chunks", "2", "--reference", q4]].concat();
    fails(&other, 1, "another file");
    let mut bytes = std::fs::read(&logits).unwrap();
    let at = bytes.len() - 1000;
    bytes[at] ^= 1;
    std::fs::write(&logits, bytes).unwrap();
    fails(&[&args[..], &["--ctx", "64", "--chunks", "2"]].concat(), 1, "damaged");
}

#[test]
fn strides_and_questions() {
    let [(_, q8), _] = &*DEMO;
    let dir = tempfile::tempdir().unwrap();
    let items = std::fs::read_to_string(root("models/choices.jsonl")).unwrap();
    let mut few: Vec<&str> = items.lines().take(6).collect();
    // Longer than the model's context.
    let words = "one two three four ".repeat(300);
    let long = serde_json::json!({ "question": words, "choices": ["five", "six"], "answer": 0 });
    let long = long.to_string();
    few.push(&long);
    let file = dir.path().join("few.jsonl");
    std::fs::write(&file, few.join("\n")).unwrap();
    let text = path(&root("models/eval.txt"));
    let found = json(&[
        "eval",
        q8,
        "--text",
        &text,
        "--ctx",
        "64",
        "--stride",
        "16",
        "--chunks",
        "3",
        "--choices",
        &path(&file),
        "-o",
        "json",
    ]);
    let model = &found["models"][0];
    // 63 tokens of the first window, 16 of each after it.
    assert_eq!(model["scores"]["tokens"], 63 + 32);
    assert!(model["scores"]["against"].is_null());
    assert_eq!(model["choices"]["items"], 7);
    assert!(model["choices"]["acc"]["value"].as_f64().unwrap() >= 0.5, "{model}");
}

#[test]
fn a_searched_scale_brings_weights_nearer() {
    let dir = tempfile::tempdir().unwrap();
    let demo = path(&root("models/demo"));
    let rmse = |scale: &str| -> f64 {
        let out = path(&dir.path().join(format!("{scale}.gguf")));
        let done = lapidary(&["convert", &demo, "--scale", scale, "-o", &out]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let found = json(&["compare", &out, &demo, "-o", "json"]);
        let tensors = found["tensors"].as_array().unwrap();
        let snr: Vec<f64> = tensors.iter().filter_map(|t| t["snr_db"].as_f64()).collect();
        assert!(snr.len() > 40 && snr.is_sorted(), "worst first: {snr:?}");
        let q4 = tensors.iter().filter(|t| t["type"] == "q4_0" || t["dtype"] == "q4_0");
        q4.map(|t| t["rmse"].as_f64().unwrap()).sum()
    };
    let (absmax, search) = (rmse("absmax"), rmse("search"));
    assert!(search < 0.95 * absmax, "{search} {absmax}");
}

#[test]
fn training_for_q4_0_wins_back_half_of_what_it_costs() {
    let [_, (_, q4)] = &*DEMO;
    let qat = common::convert_dir(&root("models/demo-qat"), DType::Q4_0, DType::Q8_0);
    let qat = path(&qat.path().join("model.gguf"));
    let (text, demo) = (path(&root("models/eval.txt")), path(&root("models/demo")));
    let mut args = vec!["eval", q4, &qat, "--text", &text, "--reference", &demo];
    args.extend(["--ctx", "256", "--chunks", "24", "-o", "json"]);
    let found = json(&args);
    let kld = |i: usize| found["models"][i]["scores"]["against"]["kld"]["value"].as_f64().unwrap();
    assert!(kld(1) < 0.6 * kld(0), "{} {}", kld(0), kld(1));
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let [(_, q8), _] = &*DEMO;
    let text = path(&root("models/eval.txt"));
    fails(&["eval", q8], 2, "--text");
    fails(&["eval", q8, "--text", &text, "--ctx", "0"], 2, "at least 1");
    fails(&["eval", q8, "--text", "no-such.txt"], 1, "no-such.txt");
    fails(&["eval", q8, "--text", &text, "--ctx", "64", "--stride", "64"], 1, "from 1 to 63");
    fails(&["eval", q8, "--choices", &text], 1, "line 1");
    fails(&["compare", q8, "no-such.gguf"], 1, "no-such.gguf");
}
