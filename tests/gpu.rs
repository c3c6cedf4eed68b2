//! The GPU backend against Transformers' logits and against the CPU, on whatever adapter there is:
//! a software one (lavapipe) shows right and wrong as well as a real one.
#![cfg(feature = "gpu")]

mod common;
#[path = "gpu/failures.rs"]
mod failures;
#[path = "gpu/features.rs"]
mod features;
#[path = "gpu/k_types.rs"]
mod k_types;
#[path = "gpu/whole.rs"]
mod whole;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::gpu::{device, open_device};
use common::{Golden, convert, convert_dir, logits, open, rms_error, worst_error};
use quant::DType;
use quant::kernels::{Isa, Kernels};
use runtime::chat::Message;
use runtime::generate::Generator;
use runtime::gpu::{Device, DeviceOptions, Features};
use runtime::sampler::{Sampler, SamplingParams};
use runtime::vision::ImageRows;
use runtime::{KvType, Model, Prompt, RuntimeError, Session, SessionOptions};

const FIXTURES: [&str; 5] = ["gemma3-text", "gemma3-mm", "gemma3-new", "gemma2", "odd-rows"];

/// On the CPU with an f32 cache: what the GPU is compared with.
fn exact() -> SessionOptions {
    SessionOptions { kv_type: KvType::F32, threads: Some(2), ..SessionOptions::default() }
}

fn on(device: &Arc<Device>) -> SessionOptions {
    SessionOptions { gpu: Some(device.clone()), ..exact() }
}

/// As on the CPU: only the order of f32 sums differs from Transformers.
#[test]
fn float_models_match_transformers() {
    let Some(device) = device() else { return };
    for name in FIXTURES {
        let golden = Golden::load(name);
        for dtype in [DType::F32, DType::BF16] {
            if dtype == DType::BF16 && ["gemma3-new", "odd-rows"].contains(&name) {
                continue; // their weights are not bf16's
            }
            let dir = convert(name, dtype, dtype);
            let got = logits(&open(dir.path()), &on(&device), &golden.tokens, &[]);
            let error = worst_error(&got, golden.logits("logits"));
            println!("{name} {dtype}: {error:.1e} of σ");
            assert!(error < 1e-3, "{name} {dtype}: {error}");
        }
    }
}

/// Activations stay f32 on the GPU, so that quantized files too differ from Transformers on the
/// dequantized weights by the order of sums only.
#[test]
fn quantized_models_match_transformers_on_dequantized_weights() {
    let Some(device) = device() else { return };
    let types = [
        ("logits_q8_0", DType::Q8_0, DType::Q8_0),
        ("logits_q4_0", DType::Q4_0, DType::Q8_0),
        ("logits_q4_0_all", DType::Q4_0, DType::Q4_0),
    ];
    for name in FIXTURES {
        let golden = Golden::load(name);
        for (key, dtype, embed) in types {
            let Some(want) = golden.get(key) else { continue };
            let dir = convert(name, dtype, embed);
            let got = logits(&open(dir.path()), &on(&device), &golden.tokens, &[]);
            let error = worst_error(&got, want);
            println!("{name} {key}: {error:.1e} of σ");
            assert!(error < 1e-3, "{name} {key}: {error}");
        }
    }
}

/// Few rows and many, one part of attention and several, are different ways through the code.
#[test]
fn batches_do_not_matter() {
    let Some(device) = device() else { return };
    for name in ["gemma3-text", "gemma2"] {
        let golden = Golden::load(name);
        let n = golden.tokens.len();
        let dir = convert(name, DType::F32, DType::F32);
        let model = open(dir.path());
        for cuts in [vec![1; n], vec![n - 20, 9, 3, 8], vec![17, 2, 1]] {
            let got = logits(&model, &on(&device), &golden.tokens, &cuts);
            let error = worst_error(&got, golden.logits("logits"));
            assert!(error < 1e-3, "{name} {cuts:?}: {error}");
        }
    }
}

/// Past 128 positions one token's attention is cut into parts, which are put together again.
#[test]
fn long_contexts_match_the_cpu() {
    let Some(device) = device() else { return };
    let model = demo(DType::F32);
    let tokens: Vec<u32> = (0..303).map(|i| 4 + i * 97 % 2000).collect();
    let last = |options: &SessionOptions| {
        let mut session = Session::new(model.clone(), options).unwrap();
        let go = AtomicBool::new(false);
        session.append(0, &tokens[..300], &go).unwrap();
        session.append_tail(0, &tokens[300..302], 2, &go).unwrap();
        session.append(0, &tokens[302..], &go).unwrap().to_vec()
    };
    let error = worst_error(&last(&on(&device)), &last(&exact()));
    assert!(error < 1e-3, "{error}");
}

/// An f16 cache costs what it costs on the CPU.
#[test]
fn an_f16_cache_stays_close() {
    let Some(device) = device() else { return };
    let golden = Golden::load("gemma3-text");
    let dir = convert("gemma3-text", DType::F32, DType::F32);
    let options = SessionOptions { kv_type: KvType::F16, ..on(&device) };
    let got = logits(&open(dir.path()), &options, &golden.tokens, &[20]);
    let want = golden.logits("logits");
    let (kl, _) = common::divergence(&got, want, golden.vocab);
    let unit = kl / common::variance(want);
    assert!(unit < 1e-5, "{unit}");
}

/// Keys and values are rounded as on the CPU; what differs is where sums of another order tip a
/// rounding, beside the rounding itself a little thing. The cuts make rings wrap. The CPU attends in f32
/// here, as the device does: with vectors, many rows would attend in 16 bits.
#[test]
fn a_q8_0_cache_is_the_cpus() {
    let Some(device) = device() else { return };
    for name in ["gemma3-text", "gemma2", "gemma3-new"] {
        let golden = Golden::load(name);
        let n = golden.tokens.len();
        let dir = convert(name, DType::F32, DType::F32);
        let model = open(dir.path());
        let q8_0 = |options| SessionOptions { kv_type: KvType::Q8_0, batch: 24, ..options };
        let scalar = Kernels::for_isa(Isa::Scalar).unwrap();
        for cuts in [vec![20], vec![1; n]] {
            let cpu = SessionOptions { kernels: scalar, ..q8_0(exact()) };
            let cpu = logits(&model, &cpu, &golden.tokens, &cuts);
            let gpu = logits(&model, &q8_0(on(&device)), &golden.tokens, &cuts);
            let rounding = rms_error(&cpu, golden.logits("logits"));
            let difference = rms_error(&gpu, &cpu);
            println!("{name}: q8_0 itself {rounding:.1e} of σ, GPU from CPU {difference:.1e}");
            assert!(rounding > 1e-4, "{name}: {rounding}: this is no q8_0");
            assert!(difference < 0.3 * rounding, "{name}: {difference}, beside {rounding}");
        }
    }
}

#[test]
fn sequences_are_separate() {
    let Some(device) = device() else { return };
    let golden = Golden::load("gemma3-text");
    let dir = convert("gemma3-text", DType::F32, DType::F32);
    let options = SessionOptions { sequences: 3, ..on(&device) };
    let mut session = Session::new(open(dir.path()), &options).unwrap();
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
    assert!(error < 1e-3, "{error}");
}

/// A device that binds so little that every matrix is cut into shards.
#[test]
fn small_limits_shard_the_weights() {
    let tiny = DeviceOptions { max_binding: Some(40 << 10), ..Default::default() };
    let Some(device) = open_device(&tiny) else { return };
    let golden = Golden::load("gemma3-text");
    let dir = convert("gemma3-text", DType::F32, DType::F32);
    let options = SessionOptions { context: Some(60), ..on(&device) };
    let got = logits(&open(dir.path()), &options, &golden.tokens, &[30, 1]);
    let error = worst_error(&got, golden.logits("logits"));
    assert!(error < 1e-3, "{error}");
    // The embedding alone, 512 rows of 256 bytes, takes four bindings; a cache is never cut.
    let options = SessionOptions { context: Some(4000), ..on(&device) };
    let refused = Session::new(open(dir.path()), &options).err().expect("too long a context");
    assert!(refused.to_string().contains("--ctx"), "{refused}");
}

/// The first layers on the device, the others on the CPU: as many as are asked for, or as the
/// device's memory holds.
#[test]
fn layers_can_be_split_between_gpu_and_cpu() {
    let Some(device) = device() else { return };
    for name in ["gemma3-text", "gemma2"] {
        let golden = Golden::load(name);
        let dir = convert(name, DType::F32, DType::F32);
        let model = open(dir.path());
        for layers in [1, 3] {
            let options = SessionOptions { gpu_layers: Some(layers), ..on(&device) };
            let got = logits(&model, &options, &golden.tokens, &[20, 1, 1]);
            let error = worst_error(&got, golden.logits("logits"));
            assert!(error < 1e-3, "{name}, {layers} layers: {error}");
        }
    }
    let mib = DeviceOptions { memory: Some(145 << 20), ..Default::default() };
    let small = open_device(&mib).unwrap();
    let model = demo(DType::F32);
    let options = SessionOptions { context: Some(64), gpu: Some(small), ..exact() };
    let session = Session::new(model.clone(), &options).unwrap();
    let (here, all) = (session.gpu().unwrap().layers(), model.config().layers.len());
    assert!(0 < here && here < all, "{here} of {all} layers");
}

#[test]
fn residual_streams_are_the_cpus() {
    let Some(device) = device() else { return };
    let golden = Golden::load("gemma2");
    let dir = convert("gemma2", DType::F32, DType::F32);
    let model = open(dir.path());
    let of = |options: SessionOptions| {
        Session::new(model.clone(), &options).unwrap().residuals(0, &golden.tokens[..20]).unwrap()
    };
    let want = of(exact());
    for gpu_layers in [None, Some(2)] {
        let error = worst_error(&of(SessionOptions { gpu_layers, ..on(&device) }), &want);
        assert!(error < 1e-4, "{gpu_layers:?}: {error}");
    }
}

/// The demo checkpoint in one type.
fn demo(dtype: DType) -> Arc<Model> {
    let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let dir = convert_dir(&checkpoint, dtype, dtype);
    // Mapped: the file may go.
    open(dir.path())
}

/// What a model says, its likeliest tokens.
fn greedy(model: &Arc<Model>, options: &SessionOptions, question: &str) -> Vec<u32> {
    let mut generator = Generator::new(Session::new(model.clone(), options).unwrap());
    answer(&mut generator, SamplingParams::greedy(), question, |_| {})
}

/// What a model says; `each` is told how many pieces there are so far.
fn answer(
    generator: &mut Generator,
    params: SamplingParams,
    question: &str,
    mut each: impl FnMut(usize),
) -> Vec<u32> {
    let model = generator.session().model().clone();
    let ids = model.template().render(model.tokenizer(), &[Message::user(question)], true);
    let mut sampler = Sampler::new(params).unwrap();
    let mut pieces = 0;
    let piece = |_: &str| {
        pieces += 1;
        each(pieces);
        std::ops::ControlFlow::Continue(())
    };
    generator.generate(&ids, &mut sampler, 24, &AtomicBool::new(false), piece).unwrap().tokens
}

#[test]
fn greedy_answers_are_the_cpus() {
    let Some(device) = device() else { return };
    for dtype in [DType::BF16, DType::Q4_0] {
        let model = demo(dtype);
        for question in ["What is the capital of France?", "What is 3 + 4?"] {
            let want = greedy(&model, &exact(), question);
            assert!(!want.is_empty());
            assert_eq!(greedy(&model, &on(&device), question), want, "{dtype} {question}");
        }
    }
}

/// What is read back is checked for having been written through Metal: answers, logits and residual streams are
/// what they are elsewhere.
#[test]
fn doubted_reads_change_nothing() {
    let Some(device) = open_device(&DeviceOptions::default()) else { return };
    device.doubt_reads();
    let model = demo(DType::Q4_0);
    let question = "What is the capital of France?";
    assert_eq!(greedy(&model, &on(&device), question), greedy(&model, &exact(), question));
    let usual = SamplingParams { seed: 3, ..SamplingParams::default() };
    let drawn = |options: &SessionOptions| {
        let mut generator = Generator::new(Session::new(model.clone(), options).unwrap());
        answer(&mut generator, usual.clone(), question, |_| {})
    };
    assert_eq!(drawn(&on(&device)), drawn(&exact()));
    let streams = |options| {
        Session::new(model.clone(), &options).unwrap().residuals(0, &[2, 5, 9, 30]).unwrap()
    };
    let trusting = open_device(&DeviceOptions::default()).unwrap();
    for gpu_layers in [None, Some(1)] {
        let [got, want] =
            [&device, &trusting].map(|device| streams(SessionOptions { gpu_layers, ..on(device) }));
        assert_eq!(got, want, "{gpu_layers:?}");
    }
}

/// With top-k only the likeliest tokens come back from the device, and the same are drawn.
#[test]
fn sampled_answers_are_the_cpus() {
    let Some(device) = device() else { return };
    let model = demo(DType::F32);
    let layers = model.config().layers.len();
    let usual = SamplingParams { temperature: 1.3, ..SamplingParams::default() };
    for (params, dispatches) in [
        (SamplingParams { seed: 1, ..usual.clone() }, 8 * layers + 5),
        (SamplingParams { seed: 2, top_k: 7, min_p: 0.05, ..usual.clone() }, 8 * layers + 5),
        // These need all logits.
        (SamplingParams { seed: 3, top_k: 0, ..usual.clone() }, 8 * layers + 4),
        (SamplingParams { seed: 4, repeat_penalty: 1.2, ..usual.clone() }, 8 * layers + 4),
        (SamplingParams { seed: 5, top_k: 1000, ..usual }, 8 * layers + 4),
    ] {
        let said = |options: &SessionOptions| {
            let mut generator = Generator::new(Session::new(model.clone(), options).unwrap());
            let said = answer(&mut generator, params.clone(), "Tell me a story.", |_| {});
            (said, generator.session().gpu().map(|gpu| gpu.dispatches()))
        };
        let (want, _) = said(&exact());
        assert!(want.len() > 5, "{want:?}");
        assert_eq!(said(&on(&device)), (want, Some(dispatches)), "{params:?}");
    }
}

/// Compiled pipelines are found again by the next device, and whatever else lies in their place is
/// not used, but replaced.
#[test]
fn pipelines_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let options =
        DeviceOptions { pipelines: Some(folder.path().join("new")), ..Default::default() };
    if open_device(&options).is_none() {
        return;
    }
    let golden = Golden::load("gemma3-text");
    let dir = convert("gemma3-text", DType::F32, DType::F32);
    let model = open(dir.path());
    let run = || {
        let device = open_device(&options).unwrap();
        let got = logits(&model, &on(&device), &golden.tokens, &[1]);
        assert!(worst_error(&got, golden.logits("logits")) < 1e-3);
    };
    run();
    let Ok(mut files) = std::fs::read_dir(folder.path().join("new")) else {
        let keeps = runtime::gpu::adapters()[0].keeps_pipelines();
        assert!(!keeps, "nothing was kept");
        eprintln!("SKIPPED: this backend keeps no pipelines");
        return;
    };
    let file = files.next().unwrap().unwrap().path();
    assert!(files.next().is_none(), "one file");
    let good = std::fs::read(&file).unwrap();
    run();
    for bad in [&[][..], &[0xff; 5000], &good[..good.len() / 2], &[&good[..], &[1, 2]].concat()] {
        std::fs::write(&file, bad).unwrap();
        run();
        let now = std::fs::read(&file).unwrap();
        assert!(now != bad && now[..8] == good[..8], "a whole file again");
    }
}

/// The device's own choice of tokens, with passes sent ahead that may turn out not to be wanted.
#[test]
fn tokens_sent_ahead_harm_nothing() {
    let Some(device) = device() else { return };
    let model = demo(DType::Q4_0);
    let vocab = model.weights().vocab();
    let go = AtomicBool::new(false);
    let best = |logits: &[f32]| {
        let later = |a: &usize, b: &usize| logits[*a].total_cmp(&logits[*b]).then(b.cmp(a));
        (0..vocab).max_by(later).unwrap() as u32
    };
    let options = SessionOptions { context: Some(28), ..on(&device) };
    let mut ahead = Session::new(model.clone(), &options).unwrap();
    let mut plain = Session::new(model.clone(), &options).unwrap();
    // What follows is now the device's choice, now another token, now after going back.
    let mut token = 2;
    for step in 0..40u32 {
        let want = best(plain.append(0, &[token][..], &go).unwrap());
        let got = ahead.next_greedy(0, token, &go).unwrap().unwrap();
        assert_eq!(got, want, "step {step}");
        token = if step % 3 == 2 { 100 + step } else { got };
        if step == 20 {
            assert_eq!((plain.truncate(0, 9), ahead.truncate(0, 9)), (9, 9));
        }
    }
    assert_eq!(ahead.cache().len(0), 28, "to the end of the context");
}

/// At most about eight dispatches a layer for a token: qkv, rope, attention, its projection, residual and
/// norm, gate and up, down, residual and norm. Around them the embedding, the first norm, the rows
/// that are wanted, and the head.
#[test]
fn a_token_costs_at_most_eight_dispatches_a_layer() {
    let Some(device) = device() else { return };
    let model = demo(DType::Q4_0);
    let mut session = Session::new(model.clone(), &on(&device)).unwrap();
    let go = AtomicBool::new(false);
    session.append(0, &[2u32, 5, 6][..], &go).unwrap();
    session.append(0, &[7u32][..], &go).unwrap();
    let layers = model.config().layers.len();
    assert_eq!(session.gpu().unwrap().dispatches(), 8 * layers + 4);
    // Choosing the token there as well costs one, and saves looking up what the next one is made of; that is
    // what is counted without running it.
    session.next_greedy(0, 8, &go).unwrap().expect("the whole model is there");
    let gpu = session.gpu().unwrap();
    assert_eq!(gpu.dispatches(), 8 * layers + 4);
    assert_eq!(gpu.cost(&model, 4).unwrap().dispatches, 8 * layers + 4);
    // The last pass is that of the position after, sent ahead. There attention is in parts.
    let many: Vec<u32> = (0..200).map(|i| 4 + i % 50).collect();
    session.append(0, &many, &go).unwrap();
    session.next_greedy(0, 8, &go).unwrap().expect("as before");
    let gpu = session.gpu().unwrap();
    assert!(gpu.dispatches() > 8 * layers + 4);
    assert_eq!(gpu.cost(&model, 206).unwrap().dispatches, gpu.dispatches());
    // Where there are subgroups and products of bytes, and the cache is f16, it is five: the norms go
    // with the matmuls after them, except in the last layer, rotation with attention.
    let adapter = common::gpu::adapter().expect("it gave the device");
    let Ok(used) = Features::parse("subgroup,dot4", &adapter.offers(), adapter.name()) else {
        eprintln!("SKIPPED: {} has no subgroups", adapter.name());
        return;
    };
    let options = DeviceOptions { features: Some(used), ..Default::default() };
    let gpu = Some(adapter.open(&options).unwrap());
    let options = SessionOptions { gpu, ..SessionOptions::default() };
    let mut session = Session::new(model.clone(), &options).unwrap();
    session.next_greedy(0, 8, &go).unwrap().expect("the whole model is there");
    let gpu = session.gpu().unwrap();
    assert_eq!(gpu.dispatches(), 5 * layers + 2 + 4);
    assert_eq!(gpu.cost(&model, 0).unwrap().dispatches, gpu.dispatches());
}
