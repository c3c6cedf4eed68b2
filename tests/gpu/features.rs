//! Whole models with each thing that an adapter may offer made use of, and with none.

use super::*;
use common::gpu::adapter;

/// Gemma 3 and Gemma 2, every way of multiplying that this adapter can be told to use, against
/// Transformers: all rows at once, and in batches that go through the kernels for few rows too.
#[test]
fn goldens_hold_every_way() {
    let Some(adapter) = adapter() else { return };
    let types = [
        ("logits", DType::BF16, DType::BF16),
        ("logits_q8_0", DType::Q8_0, DType::Q8_0),
        ("logits_q4_0", DType::Q4_0, DType::Q8_0),
        ("logits_q4_0_all", DType::Q4_0, DType::Q4_0),
    ];
    // Subgroups with f32 are what the other tests of GPUs run on.
    let ways = ["plain", "dot4", "subgroup,dot4", "f16", "matrix"];
    for words in ways {
        let used = match Features::parse(words, &adapter.offers(), adapter.name()) {
            Ok(used) => used,
            Err(e) => {
                eprintln!("SKIPPED: {e}");
                continue;
            }
        };
        let options = DeviceOptions { features: Some(used), ..Default::default() };
        let device = adapter.open(&options).unwrap();
        for name in ["gemma3-text", "gemma2", "odd-rows"] {
            let golden = Golden::load(name);
            let n = golden.tokens.len();
            for (key, dtype, embed) in types {
                let Some(want) = golden.get(key) else { continue };
                if dtype == DType::BF16 && name == "odd-rows" {
                    continue; // its weights are not bf16's
                }
                let dir = convert(name, dtype, embed);
                let model = open(dir.path());
                for cuts in [vec![], vec![n - 20, 9, 3, 8]] {
                    let got = logits(&model, &on(&device), &golden.tokens, &cuts);
                    let error = worst_error(&got, want);
                    let (kl, top) = common::divergence(&got, want, golden.vocab);
                    let unit = kl / common::variance(want);
                    let what = format!("{words} ({used}): {name} {key} {cuts:?}");
                    println!("{what}: {error:.1e} of σ, KL {unit:.1e} σ², top-1 {top:.3}");
                    if used.dot4 && dtype != DType::BF16 {
                        // Activations in bytes, as on the CPU: see tests/goldens.rs.
                        assert!(unit < 2e-3 && top >= 0.88, "{what}: {unit}, {top}");
                    } else if used.f16 || used.matrix.is_some() {
                        // Both factors rounded to 11 bits, where bytes have 8: a few hundredths of
                        // their error, its square in divergence. (The worst of all logits of
                        // Gemma 2's fixture is off by 1.3 σ with bytes, by 0.07 σ with halves.)
                        assert!(error < 0.13 && unit < 1e-5, "{what}: {error}, {unit}");
                    } else {
                        assert!(error < 1e-3, "{what}: {error}");
                    }
                }
            }
        }
    }
}

/// A single row has kernels of its own where there are subgroups and products of bytes: norms go with
/// the matmuls after them, rotation with attention. Token by token comes out what all at once does.
#[test]
fn single_rows_are_as_many_are() {
    let Some(adapter) = adapter() else { return };
    for words in ["dot4", "subgroup", "subgroup,dot4"] {
        let Ok(used) = Features::parse(words, &adapter.offers(), adapter.name()) else { continue };
        let options = DeviceOptions { features: Some(used), ..Default::default() };
        let device = adapter.open(&options).unwrap();
        let options = SessionOptions { gpu: Some(device), ..SessionOptions::default() };
        for (name, dtype) in
            [("gemma3-text", DType::Q4_0), ("gemma3-text", DType::Q8_0), ("gemma2", DType::Q4_0)]
        {
            let tokens = Golden::load(name).tokens;
            let dir = convert(name, dtype, DType::Q8_0);
            let model = open(dir.path());
            let want = logits(&model, &options, &tokens, &[tokens.len()]);
            let got = logits(&model, &options, &tokens, &vec![1; tokens.len()]);
            // Where activations are bytes, one that is rounded the other way is as far off as in
            // `goldens_hold_every_way`.
            let (kl, _) = common::divergence(&got, &want, model.weights().vocab());
            let unit = kl / common::variance(&want);
            assert!(unit < 2e-3, "{words}, {name} in {dtype}: {unit}");
        }
    }
}

/// Greedy answers of the demo model are the CPU's, whatever is used for them.
#[test]
fn answers_are_the_cpus_every_way() {
    let Some(adapter) = adapter() else { return };
    let model = demo(DType::Q4_0);
    let question = "What is the capital of France?";
    let want = greedy(&model, &exact(), question);
    for words in ["plain", "dot4", "subgroup,dot4", "auto"] {
        let Ok(used) = Features::parse(words, &adapter.offers(), adapter.name()) else { continue };
        let options = DeviceOptions { features: Some(used), ..Default::default() };
        let device = adapter.open(&options).unwrap();
        assert_eq!(greedy(&model, &on(&device), question), want, "{words}");
    }
}

/// `lapidary devices` says what is offered and what of it is used; a name that means nothing is refused.
#[test]
fn people_can_see_and_decide_what_is_used() {
    if adapter().is_none() {
        return;
    }
    let lapidary = |words: &str, args: &[&str]| {
        let mut command = assert_cmd::Command::cargo_bin("lapidary").unwrap();
        command.env("LAPIDARY_GPU_FEATURES", words).args(args).output().unwrap()
    };
    let listed = |words| String::from_utf8(lapidary(words, &["devices"]).stdout).unwrap();
    assert!(listed("plain").contains("used: plain"), "{}", listed("plain"));
    assert!(listed("dot4").contains("used: dot4"), "{}", listed("dot4"));
    assert!(listed("auto").contains("cooperative matrices"), "{}", listed("auto"));
    assert!(listed("dot8").contains("\"dot8\""), "{}", listed("dot8"));
    let dir = convert("gemma3-text", DType::Q8_0, DType::Q8_0);
    let model = dir.path().join("model.gguf");
    let out = dir.path().join("out.npy");
    let (model, out) = (model.to_str().unwrap(), out.to_str().unwrap());
    let run = ["logits", model, "--tokens", "2,5", "-o", out, "--device", "gpu"];
    assert!(lapidary("plain", &run).status.success());
    let refused = lapidary("dot8", &run);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && message.contains("LAPIDARY_GPU_FEATURES"), "{message}");
}
