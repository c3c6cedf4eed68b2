//! Converted fixtures against logits that Transformers computed from the same checkpoints.
//!
//! Every fixture in `tests/fixtures` is a small checkpoint with random weights and the logits of
//! one token sequence, longer than the sliding window; `tools/goldens` makes them.

mod common;

use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

use common::{Golden, convert, logits, open, worst_error};
use quant::DType;
use quant::kernels::{Isa, Kernels};
use runtime::generate::Generator;
use runtime::sampler::{Sampler, SamplingParams};
use runtime::{KvType, Session, SessionOptions};

const FIXTURES: [&str; 5] = ["gemma3-text", "gemma3-mm", "gemma3-new", "gemma2", "odd-rows"];

/// One batch, and an f32 cache: what is compared with the reference.
fn exact() -> SessionOptions {
    SessionOptions { kv_type: KvType::F32, threads: Some(2), ..SessionOptions::default() }
}

/// The fixtures' weights lose nothing in f32, so only the order of f32 sums differs from
/// Transformers. The issue asks for 1e-3 of the logits' standard deviation; the noise between two
/// f32 orders was measured at 3e-6 when the goldens were made.
#[test]
fn float_models_match_transformers() {
    for name in FIXTURES {
        let golden = Golden::load(name);
        let dir = convert(name, DType::F32, DType::F32);
        for isa in Isa::available() {
            let kernels = Kernels::for_isa(isa).unwrap();
            let model = open(dir.path());
            let got = logits(&model, &SessionOptions { kernels, ..exact() }, &golden.tokens, &[]);
            let error = worst_error(&got, golden.logits("logits"));
            println!("{name} f32 {isa}: {error:.1e} of σ");
            assert!(error < 1e-4, "{name} with {isa}: {error}");
        }
    }
}

/// bf16 files of bf16 checkpoints lose nothing either.
#[test]
fn bf16_files_of_bf16_checkpoints_are_exact() {
    for name in ["gemma3-text", "gemma3-mm", "gemma2"] {
        let golden = Golden::load(name);
        let dir = convert(name, DType::BF16, DType::BF16);
        let got = logits(&open(dir.path()), &exact(), &golden.tokens, &[]);
        let error = worst_error(&got, golden.logits("logits"));
        println!("{name} bf16: {error:.1e} of σ");
        assert!(error < 1e-4, "{name}: {error}");
    }
}

/// Quantized files against Transformers on the dequantized weights: the int8 activations are all
/// that differs.
///
/// Rounding activations to 8 bits in blocks of 32 is off by about 0.5% of their size, some thirty
/// times in these models: the logits are off by a few percent of their deviation σ whatever σ is,
/// and the KL divergence grows with its square. 2e-3 is asked for where σ is 1; these fixtures'
/// σ is 2 to 5, so that features show. (The same simulated in NumPy gave the same divergence.)
#[test]
fn quantized_models_match_transformers_on_dequantized_weights() {
    let types = [
        ("logits_q8_0", DType::Q8_0, DType::Q8_0),
        ("logits_q4_0", DType::Q4_0, DType::Q8_0),
        ("logits_q4_0_all", DType::Q4_0, DType::Q4_0),
    ];
    for isa in Isa::available() {
        let kernels = Kernels::for_isa(isa).unwrap();
        let mut agreements = Vec::new();
        for name in FIXTURES {
            let golden = Golden::load(name);
            for (key, dtype, embed) in types {
                let Some(want) = golden.get(key) else { continue };
                let dir = convert(name, dtype, embed);
                let options = SessionOptions { kernels, ..exact() };
                let got = logits(&open(dir.path()), &options, &golden.tokens, &[]);
                let (kl, top) = common::divergence(&got, want, golden.vocab);
                let unit = kl / common::variance(want);
                println!(
                    "{name} {key} {isa}: KL {kl:.1e} ({unit:.1e} σ²), top-1 {:.1}%",
                    top * 100.0
                );
                assert!(unit < 2e-3, "{name} {key} {isa}: KL {kl}");
                // One position of 56 is 1.8%: a fixture alone may miss 90% by one near-tie.
                assert!(top >= 0.88, "{name} {key} {isa}: top-1 {top}");
                agreements.push(top);
            }
        }
        let mean = agreements.iter().sum::<f64>() / agreements.len() as f64;
        assert!(mean >= 0.93, "{isa}: {mean}");
    }
}

/// One batch, uneven batches and single tokens are three ways through the code (tiles and dots,
/// split and shared rows, blocks and parts of attention) and must give the same logits.
#[test]
fn batches_do_not_matter() {
    for name in FIXTURES {
        let golden = Golden::load(name);
        let n = golden.tokens.len();
        for dtype in [DType::F32, DType::Q4_0] {
            let dir = convert(name, dtype, dtype);
            let model = open(dir.path());
            let whole = logits(&model, &exact(), &golden.tokens, &[]);
            for cuts in [vec![1; n], vec![n - 20, 9, 3, 8], vec![8, 9, 1, n - 18], vec![17, 2, 1]] {
                let got = logits(&model, &exact(), &golden.tokens, &cuts);
                let close = same_within_rounding(dtype, &got, &whole, golden.vocab);
                assert!(close, "{name} {dtype} {cuts:?}");
            }
        }
    }
}

/// Floats differ by the order of sums. With int8 activations that order can tip a rounding, and
/// one tipped rounding tips others: two runs are then as far apart as each is from the reference.
fn same_within_rounding(dtype: DType, got: &[f32], want: &[f32], vocab: usize) -> bool {
    if dtype.is_float() {
        return worst_error(got, want) < 1e-4;
    }
    let (kl, top) = common::divergence(got, want, vocab);
    kl / common::variance(want) < 2e-3 && top >= 0.88
}

/// More threads than rows, heads or blocks: every split has empty parts somewhere.
#[test]
fn threads_do_not_matter() {
    for name in ["gemma3-text", "odd-rows"] {
        let golden = Golden::load(name);
        for dtype in [DType::F32, DType::Q8_0] {
            let dir = convert(name, dtype, dtype);
            let model = open(dir.path());
            let one = SessionOptions { threads: Some(1), ..exact() };
            let want = logits(&model, &one, &golden.tokens, &[30]);
            for threads in [2, 3, 7] {
                let options = SessionOptions { threads: Some(threads), ..exact() };
                let got = logits(&model, &options, &golden.tokens, &[30, 1, 1, 5]);
                let close = same_within_rounding(dtype, &got, &want, golden.vocab);
                assert!(close, "{name} {dtype} with {threads} threads");
            }
        }
    }
}

/// A smaller KV cache costs accuracy; how much is bounded here and measured by `eval`.
#[test]
fn smaller_caches_stay_close() {
    for name in ["gemma3-text", "gemma2"] {
        let golden = Golden::load(name);
        let dir = convert(name, DType::F32, DType::F32);
        let model = open(dir.path());
        // Divergence in units of σ², as above: f16 keeps 11 bits of each value, Q8_0 8 bits of the
        // block's largest; divergence goes with the square of the error.
        for (kv_type, bound) in [(KvType::F16, 1e-5), (KvType::Q8_0, 1e-3)] {
            let options = SessionOptions { kv_type, ..exact() };
            let got = logits(&model, &options, &golden.tokens, &[20]);
            let want = golden.logits("logits");
            let (kl, _) = common::divergence(&got, want, golden.vocab);
            let unit = kl / common::variance(want);
            println!("{name} {kv_type:?}: KL {unit:.1e} σ²");
            assert!(unit < bound, "{name} {kv_type:?}: {unit}");
        }
    }
}

/// Sequences in one cache do not see each other, and rows of many fit one batch.
#[test]
fn sequences_are_separate() {
    let golden = Golden::load("gemma3-text");
    let dir = convert("gemma3-text", DType::F32, DType::F32);
    let model = open(dir.path());
    let options = SessionOptions { sequences: 3, ..exact() };
    let mut session = runtime::Session::new(model, &options).unwrap();
    let other: Vec<u32> = golden.tokens.iter().rev().copied().collect();
    let mut got = Vec::new();
    for (pos, (&token, &noise)) in golden.tokens.iter().zip(&other).enumerate() {
        let mut batch = runtime::Batch::default();
        batch.push(runtime::Row { token: noise, seq: 2, pos }, false);
        batch.push(runtime::Row { token, seq: 0, pos }, true);
        batch.push(runtime::Row { token: noise, seq: 1, pos }, false);
        got.extend_from_slice(session.forward(&batch).unwrap());
    }
    let error = worst_error(&got, golden.logits("logits"));
    assert!(error < 1e-4, "{error}");
}

/// Drafts from what was said before change the speed, and nothing of what is said: in batches of every size, of
/// which a draft and the token before it are one.
#[test]
fn drafts_change_nothing() {
    let golden = Golden::load("gemma3-text");
    let dir = convert("gemma3-text", DType::F32, DType::F32);
    let model = open(dir.path());
    let prompt = golden.tokens[..12].repeat(3);
    let said = |batch: usize, drafts: bool| {
        let options = SessionOptions { batch, context: Some(160), ..exact() };
        let generator = Generator::new(Session::new(model.clone(), &options).unwrap());
        let mut generator = if drafts { generator.with_lookup() } else { generator };
        let mut sampler = Sampler::new(SamplingParams::greedy()).unwrap();
        let more = |_: &str| ControlFlow::Continue(());
        let never = AtomicBool::new(false);
        let answer = generator.generate(&prompt, &mut sampler, 100, &never, more).unwrap();
        (answer.tokens, generator.lookup_counts().unwrap_or_default())
    };
    let (want, _) = said(512, false);
    assert_eq!(want.len(), 100);
    for batch in [1, 2, 5, 512] {
        let (tokens, (drafted, right)) = said(batch, true);
        assert_eq!(tokens, want, "batches of {batch}");
        println!("batches of {batch}: {drafted} drafted, {right} right");
        assert_eq!(drafted > 0, batch > 1, "batches of {batch}");
    }
}
