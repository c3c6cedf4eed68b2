//! The demo model looks at pictures of things that it was never trained on in this combination
//! (`tools/demo/pictures.py`, `FILES`): from checkpoint and PNG to the answer.

mod common;

use std::path::Path;

use assert_cmd::Command;
use quant::DType;

/// Picture, question, answer. (Of two kinds at once it sometimes counts wrong: see tools/demo.)
const SEEN: [(&str, &str, &str); 8] = [
    ("heart", "What is in the picture?", "I see a red heart at the bottom right."),
    ("star-and-circle", "What is in the picture?", "I see a yellow circle and a purple star."),
    ("stars", "What is in the picture?", "I see four red stars."),
    ("ring", "What is in the picture?", "I see a yellow ring in the middle."),
    ("stars", "How many stars are there?", "There are four stars."),
    ("squares", "How many shapes are there?", "There are three shapes."),
    ("star-and-circle", "Where is the star?", "The star is right of the circle."),
    ("heart", "What colour is the background?", "The background is grey."),
];

fn run(model: &Path, picture: Option<&str>, question: &str) -> String {
    let mut args = vec!["run", model.to_str().unwrap(), "--temp", "0", "-p", question];
    let path = picture.map(|name| {
        let file =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("models/pictures/{name}.png"));
        file.to_str().unwrap().to_string()
    });
    if let Some(path) = &path {
        args.extend(["--image", path]);
    }
    let out = Command::cargo_bin("lapidary").unwrap().args(args).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim_end().to_string()
}

fn check(checkpoint: &str, dtype: DType, embed: DType) {
    let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join(checkpoint);
    let dir = common::convert_dir(&checkpoint, dtype, embed);
    let model = dir.path().join("model.gguf");
    assert!(dir.path().join("mmproj-model.gguf").is_file(), "convert writes the tower");
    for (picture, question, answer) in SEEN {
        assert_eq!(run(&model, Some(picture), question), answer, "{picture}: {question}");
    }
    // Without a picture it says so, and text it answers as ever.
    let blind = run(&model, None, "What is in the picture?");
    assert_eq!(blind, "I see no picture here. Show me one and ask me again!");
    let capital = run(&model, None, "What is the capital of France?");
    assert_eq!(capital, "The capital of France is Paris.");
}

#[test]
fn bf16_sees() {
    check("models/demo", DType::BF16, DType::BF16);
}

#[test]
fn q4_0_sees() {
    check("models/demo", DType::Q4_0, DType::Q8_0);
}

#[test]
fn trained_for_q4_0_sees() {
    check("models/demo-qat", DType::Q4_0, DType::Q8_0);
}
