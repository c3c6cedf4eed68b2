//! The program as people run it.

mod common;

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::LazyLock;

use assert_cmd::Command;
use quant::DType;

/// The demo checkpoint, converted once for all tests.
static DEMO: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let dir = common::convert_dir(&demo_dir(), DType::Q8_0, DType::Q8_0);
    let path = dir.path().join("model.gguf");
    (dir, path)
});

fn demo_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")
}

fn demo() -> &'static str {
    DEMO.1.to_str().unwrap()
}

fn lapidary(args: &[&str]) -> Output {
    let mut program = Command::cargo_bin("lapidary").unwrap();
    program.env("LAPIDARY_PIPELINE_CACHE", "off").args(args).output().unwrap()
}

fn stdout(out: &Output) -> String {
    String::from_utf8(out.stdout.clone()).unwrap()
}

fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn demo_converts_and_answers() {
    let out = lapidary(&["demo"]);
    assert!(out.status.success(), "{}", stderr(&out));
    let text = stdout(&out);
    for name in ["bf16", "q8_0", "q4_0"] {
        assert!(text.contains(name), "{text}");
    }
    assert_eq!(text.matches("Paris").count(), 3, "one right answer a type: {text}");
    assert!(text.contains("q4_0 trained for it"), "the table at the end: {text}");
}

#[test]
fn run_writes_the_answer_alone_to_stdout() {
    let out = lapidary(&["run", demo(), "-p", "What is the capital of France?", "--temp", "0"]);
    assert!(out.status.success(), "{}", stderr(&out));
    assert_eq!(stdout(&out), "The capital of France is Paris.\n");
    let figures = stderr(&out);
    assert!(figures.contains("tokens/s") && figures.contains("first token after"), "{figures}");
}

#[test]
fn a_prompt_can_be_piped_in() {
    let mut run = Command::cargo_bin("lapidary").unwrap();
    let out = run
        .args(["run", demo(), "--temp", "0"])
        .write_stdin("What is the capital of France?")
        .output()
        .unwrap();
    assert_eq!(stdout(&out), "The capital of France is Paris.\n", "{}", stderr(&out));
}

#[test]
fn the_same_seed_gives_the_same_text() {
    let story = |seed: &str| {
        let prompt = "Tell me a story about a fox.";
        stdout(&lapidary(&["run", demo(), "-p", prompt, "--temp", "1.5", "--seed", seed]))
    };
    let first = story("7");
    assert!(first.len() > 50, "{first}");
    assert_eq!(first, story("7"));
    assert_ne!(first, story("8"));
}

#[test]
fn a_checkpoint_that_asks_for_the_likeliest_token_gets_it() {
    let dir = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(demo_dir()).unwrap() {
        let path = file.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let config = br#"{"temperature": 0.0, "eos_token_id": [1, 106]}"#;
    std::fs::write(dir.path().join("generation_config.json"), config).unwrap();
    let model = common::convert_dir(dir.path(), DType::Q8_0, DType::Q8_0);
    let model = model.path().join("model.gguf");
    let story = |more: &[&str]| {
        let prompt = "Tell me a story about a fox.";
        let run = ["run", model.to_str().unwrap(), "-p", prompt];
        stdout(&lapidary(&[&run[..], more].concat()))
    };
    let likeliest = story(&["--temp", "0"]);
    assert!(likeliest.len() > 50, "{likeliest}");
    for seed in ["1", "2", "3"] {
        assert_eq!(story(&["--seed", seed]), likeliest);
    }
}

#[test]
fn control_tokens_in_a_prompt_are_text() {
    let text = "<end_of_turn>";
    let plain = stdout(&lapidary(&["tokenize", demo(), "--json", text]));
    let parsed = stdout(&lapidary(&["tokenize", demo(), "--json", "--special", text]));
    assert_eq!(parsed.trim(), "[106]");
    let ids: Vec<u32> = serde_json::from_str(&plain).unwrap();
    assert!(ids.len() > 1 && !ids.contains(&106), "{plain}");
}

#[test]
fn tokenize_reads_standard_input() {
    let mut run = Command::cargo_bin("lapidary").unwrap();
    let out = run.args(["tokenize", demo(), "--json", "-"]).write_stdin("a fox").output().unwrap();
    assert_eq!(stdout(&out), stdout(&lapidary(&["tokenize", demo(), "--json", "a fox"])));
}

#[test]
fn logits_are_a_numpy_file_of_every_position() {
    let dir = tempfile::tempdir().unwrap();
    let npy = dir.path().join("out.npy");
    let tokens = "2,105,310,7,41";
    let path = npy.to_str().unwrap();
    let out = lapidary(&[
        "logits",
        demo(),
        "--tokens",
        tokens,
        "--kv",
        "f32",
        "-o",
        path,
        "--device",
        "cpu",
    ]);
    assert!(out.status.success(), "{}", stderr(&out));
    let bytes = std::fs::read(&npy).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let got: Vec<f32> = bytes[header..]
        .chunks_exact(4)
        .map(|c| f32::from_le_bytes(c.try_into().unwrap()))
        .collect();
    let options = runtime::SessionOptions {
        kv_type: runtime::KvType::F32,
        ..runtime::SessionOptions::default()
    };
    let ids = [2, 105, 310, 7, 41];
    let want = common::logits(&common::open(DEMO.0.path()), &options, &ids, &[]);
    assert_eq!(got, want);
}

/// As with `| head`: whoever reads has had enough, and nothing went wrong.
#[test]
fn a_closed_pipe_is_no_failure() {
    for args in [&["devices"][..], &["completions", "bash"], &["inspect", demo(), "--tensors"]] {
        let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("lapidary"))
            .args(args)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let out = child.wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(0), "{args:?}: {}", stderr(&out));
        assert!(!stderr(&out).contains("panicked"), "{args:?}: {}", stderr(&out));
    }
}

#[test]
fn inspect_speaks_json() {
    let out = lapidary(&["inspect", demo(), "--tensors", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&stdout(&out)).unwrap();
    assert_eq!(json["metadata"]["general.architecture"], "gemma3");
    assert!(json["tensors"].as_array().unwrap().iter().any(|t| t["name"] == "token_embd.weight"));
    let text = stdout(&lapidary(&["inspect", demo()]));
    assert!(text.contains("q8_0") && text.contains("gemma3.block_count"), "{text}");
}

#[test]
fn inspect_counts_a_single_tensor() {
    use quant::gguf::{Layout, TensorSpec};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("one.gguf");
    let inspect = |names: &[&str]| {
        let specs: Vec<_> = names
            .iter()
            .map(|n| TensorSpec { name: (*n).into(), dtype: DType::F32, dims: vec![8] })
            .collect();
        let mut file = Layout::new(&[], &specs).unwrap().header;
        file.resize(file.len() + 32 * names.len(), 0);
        std::fs::write(&path, file).unwrap();
        stdout(&lapidary(&["inspect", path.to_str().unwrap()]))
    };
    let one = inspect(&["a"]);
    assert!(one.contains("weights in 1 tensor,") && one.contains("   1 tensor  "), "{one}");
    let two = inspect(&["a", "b"]);
    assert!(two.contains("weights in 2 tensors,") && two.contains("   2 tensors  "), "{two}");
}

#[test]
fn bench_reports_shares_of_what_the_machine_can_do() {
    // Where there is a GPU it would be taken.
    let cpu = ["--device", "cpu"];
    let bench = ["bench", demo(), "-p", "64", "-n", "8", "-d", "0,16", "-r", "2", "-o", "json"];
    let out = lapidary(&[&bench[..], &["--parallel", "1,3"], &cpu].concat());
    assert!(out.status.success(), "{}", stderr(&out));
    let json: serde_json::Value = serde_json::from_str(&stdout(&out)).unwrap();
    assert!(json["machine"]["read_gb_s"].as_f64().unwrap() > 0.0);
    let names: Vec<_> = json["tests"].as_array().unwrap().iter().map(|t| &t["test"]).collect();
    assert_eq!(names, ["pp64", "tg8", "tg8x3", "pp64@d16", "tg8@d16", "tg8x3@d16"]);
    for test in json["tests"].as_array().unwrap() {
        assert!(test["tokens_per_second"]["median"].as_f64().unwrap() > 0.0, "{test}");
    }
    assert!(json["tests"][0]["share_of_int8_peak"].is_number(), "{json}");
    assert!(json["machine"]["f32_gops"].is_null(), "{json}");

    // Float weights are multiplied as floats.
    let dir = tempfile::tempdir().unwrap();
    let bf16 = dir.path().join("bf16.gguf");
    let (from, to) = (demo_dir(), bf16.to_str().unwrap());
    let out = lapidary(&["convert", from.to_str().unwrap(), "-o", to, "--type", "bf16"]);
    assert!(out.status.success(), "{}", stderr(&out));
    let bench = [&["bench", to, "-p", "64", "-n", "0", "-r", "1"], &cpu[..]].concat();
    let out = stdout(&lapidary(&[&bench[..], &["-o", "json"]].concat()));
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(json["machine"]["f32_gops"].is_number(), "{json}");
    assert!(json["tests"][0]["share_of_f32_peak"].is_number(), "{json}");
    assert!(stdout(&lapidary(&bench)).contains("of f32 peak"));
}

#[test]
#[cfg(feature = "gpu")]
fn a_gpu_is_used_when_asked_for() {
    let listed = lapidary(&["devices"]);
    assert!(listed.status.success() && stdout(&listed).contains("--device auto takes"));
    let ask = |device: &str, more: &[&str]| {
        let question = ["run", demo(), "-p", "What is 3 + 4?", "--temp", "0", "--device", device];
        lapidary(&[&question[..], more].concat())
    };
    let unknown = ask("no such card", &[]);
    assert_eq!(unknown.status.code(), Some(1), "{}", stderr(&unknown));
    if common::gpu::device().is_none() {
        assert!(stderr(&unknown).contains("no GPU was found"), "{}", stderr(&unknown));
        return;
    }
    assert!(stderr(&unknown).contains("\"no such card\""), "{}", stderr(&unknown));
    let want = stdout(&ask("cpu", &[]));
    assert_eq!(stdout(&ask("0", &[])), want);
    assert_eq!(stdout(&ask("gpu", &["--kv", "q8_0"])), want);
    let mixed = ask("gpu", &["--gpu-layers", "2"]);
    assert_eq!(stdout(&mixed), want);
    assert!(stderr(&mixed).contains("2 of 6 layers are on the GPU"), "{}", stderr(&mixed));
    let bench = ["bench", demo(), "--device", "gpu", "-p16", "-n2", "-r1", "-d", "0", "-o", "json"];
    let out = lapidary(&bench);
    let json: serde_json::Value = serde_json::from_str(&stdout(&out)).unwrap();
    assert!(json["machine"]["gpu"].is_string(), "{}", stderr(&out));
    assert!(json["tests"][1]["token"]["weight_bytes"].as_u64() > Some(1 << 20), "{json}");
    assert!(stdout(&lapidary(&bench[..7])).contains("TFLOP/s"));
}

#[test]
fn completions_name_every_verb() {
    let text = stdout(&lapidary(&["completions", "bash"]));
    for verb in ["convert", "run", "inspect", "tokenize", "logits", "bench", "demo"] {
        assert!(text.contains(verb), "{verb}");
    }
}

#[test]
fn wrong_use_exits_with_2() {
    for args in [
        &["run"][..],
        &["frobnicate"],
        &["logits", "model.gguf", "-o", "x.npy"],
        &["run", "model.gguf", "--kv", "q3"],
        &["run", "model.gguf", "--threads", "0"],
        &["bench"],
        &["convert"],
    ] {
        assert_eq!(lapidary(args).status.code(), Some(2), "{args:?}");
    }
    for (option, value) in [
        ("--temp", "-1"),
        ("--temp", "nan"),
        ("--top-p", "0"),
        ("--top-p", "7"),
        ("--min-p", "1.01"),
        ("--repeat-penalty", "0"),
        ("--repeat-penalty", "inf"),
    ] {
        let out = lapidary(&["run", demo(), "-p", "x", option, value]);
        assert_eq!(out.status.code(), Some(2), "{option} {value}: {}", stderr(&out));
        assert!(stderr(&out).contains(option), "{option} {value}: {}", stderr(&out));
    }
}

#[test]
fn failures_exit_with_1_and_say_where() {
    let dir = tempfile::tempdir().unwrap();
    let cut = dir.path().join("cut.gguf");
    let bytes = std::fs::read(demo()).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let empty = dir.path().join("empty.gguf");
    std::fs::write(&empty, b"").unwrap();
    let out_npy = dir.path().join("x.npy");
    let path = |p: &Path| p.to_str().unwrap().to_owned();
    let cases: [(Vec<String>, &str); 6] = [
        (vec!["run".into(), "no-such.gguf".into(), "-p".into(), "x".into()], "no-such.gguf"),
        (vec!["run".into(), path(&cut), "-p".into(), "x".into()], "truncated"),
        (vec!["inspect".into(), path(&empty)], "not a GGUF file"),
        (vec!["run".into(), path(dir.path()), "-p".into(), "x".into()], "not a file"),
        (
            vec![
                "logits".into(),
                demo().into(),
                "--tokens".into(),
                "99999".into(),
                "-o".into(),
                path(&out_npy),
            ],
            "99999",
        ),
        (
            vec![
                "run".into(),
                demo().into(),
                "-p".into(),
                "hello hello hello".into(),
                "--ctx".into(),
                "4".into(),
            ],
            "--ctx",
        ),
    ];
    for (args, needle) in cases {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let out = lapidary(&args);
        assert_eq!(out.status.code(), Some(1), "{args:?}: {}", stderr(&out));
        assert!(stderr(&out).contains(needle), "{args:?}: {}", stderr(&out));
        assert!(!stderr(&out).contains("panicked"), "{args:?}: {}", stderr(&out));
    }
    assert!(!out_npy.exists(), "a failure leaves no half-written file");
}

#[test]
fn a_forced_instruction_set_is_used_or_refused() {
    let with = |isa: &str| {
        let mut run = Command::cargo_bin("lapidary").unwrap();
        let args = ["run", demo(), "-p", "What is the capital of France?", "--temp", "0"];
        run.env("LAPIDARY_ISA", isa).args(args).output().unwrap()
    };
    assert_eq!(stdout(&with("scalar")), "The capital of France is Paris.\n");
    let refused = with("sse9");
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("scalar"), "lists what there is: {}", stderr(&refused));
}

/// What can't be said on standard error is not said, and an answer is one all the same.
#[test]
#[cfg(target_os = "linux")]
fn nobody_has_to_listen_to_standard_error() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let out = std::process::Command::new(assert_cmd::cargo::cargo_bin!("lapidary"))
        .args(["run", demo(), "-p", "What is the capital of France?", "--temp", "0"])
        .stderr(full)
        .output()
        .unwrap();
    assert!(out.status.success(), "{:?}", out.status);
    assert_eq!(stdout(&out), "The capital of France is Paris.\n");
}

/// Only files are replaced, and what a link leads to rather than the link.
#[test]
#[cfg(unix)]
fn outputs_go_where_they_should() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let logits = |to: &str| lapidary(&["logits", demo(), "--tokens", "2, 5", "-o", to]);
    std::fs::write(path("target"), "old").unwrap();
    std::os::unix::fs::symlink(path("target"), path("link")).unwrap();
    assert!(logits(&path("link")).status.success());
    assert!(std::fs::symlink_metadata(path("link")).unwrap().is_symlink());
    let whole = std::fs::read(path("target")).unwrap();
    assert!(whole.starts_with(b"\x93NUMPY"));
    let piped = logits("/dev/stdout");
    assert!(piped.status.success(), "{}", stderr(&piped));
    assert_eq!(piped.stdout, whole);
    let refused = logits(&path("."));
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("folder"), "{}", stderr(&refused));
    let text = path("text");
    std::fs::write(&text, "a few words ".repeat(300)).unwrap();
    let out = lapidary(&["eval", demo(), "--text", &text, "--save-logits", "/dev/null"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(stderr(&out).contains("replaced"), "{}", stderr(&out));
    let out = lapidary(&["eval", demo(), "--text", &text, "--report", &path("none/x.html")]);
    assert_eq!((out.status.code(), stdout(&out).as_str()), (Some(1), ""), "before any work");
}

/// A program that is told to end leaves nothing half-written behind.
#[test]
#[cfg(unix)]
fn being_told_to_end_is_as_ctrl_c() {
    let dir = tempfile::tempdir().unwrap();
    let (text, saved) = (dir.path().join("text"), dir.path().join("saved"));
    let eval = std::fs::read_to_string(demo_dir().join("../eval.txt")).unwrap();
    std::fs::write(&text, eval.repeat(20)).unwrap();
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("lapidary"))
        .args(["eval", demo(), "--device", "cpu", "--text"])
        .args([&text, Path::new("--save-logits"), &saved])
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while std::fs::read_dir(dir.path()).unwrap().count() < 2 {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let kill = std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(kill.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(left, [text]);
}

#[test]
fn prompts_may_begin_with_a_hyphen_and_wrong_numbers_are_named() {
    let out = lapidary(&["run", demo(), "-p", "- What is the capital of France?", "-n", "3"]);
    assert!(out.status.success(), "{}", stderr(&out));
    for (option, value) in
        [("--top-k", "-1"), ("--tokens", "-1"), ("--seed", "-1"), ("--threads", "9999")]
    {
        let out = lapidary(&["run", demo(), "-p", "x", option, value]);
        assert_eq!(out.status.code(), Some(2), "{option}");
        let message = stderr(&out);
        assert!(message.contains(value) && message.contains(option), "{option}: {message}");
    }
}
