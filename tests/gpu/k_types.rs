//! Files whose matrices are K types, in the mixtures that people publish, against the same weights in f32 on the
//! CPU.

use super::*;
use half::f16;
use quant::codec::decode_row;
use quant::gguf::{Layout, MetaValue, TensorSpec};

const HIDDEN: u64 = 256;
const FFN: u64 = 512;
const VOCAB: u64 = 300;
/// Two heads of them, which share a KV head.
const HEAD_DIM: u64 = 128;

/// The type of a matrix.
type Types = fn(&str) -> DType;

/// Q4_K_M, as far as layers differ: one whose values and `down` are finer, and one whose are not.
fn medium(name: &str) -> DType {
    match name {
        "token_embd" | "blk.0.attn_v" | "blk.0.ffn_down" => DType::Q6_K,
        "blk.1.attn_output" => DType::Q5_K,
        _ => DType::Q4_K,
    }
}

/// Fewer bits, as Q3_K_M and IQ4_XS have them, and a type of 32 weights where rows are short.
fn small(name: &str) -> DType {
    match name {
        "token_embd" => DType::Q6_K,
        "blk.0.attn_v" => DType::Q5_K,
        "blk.0.attn_output" | "blk.1.ffn_gate" | "blk.1.ffn_up" => DType::IQ4_XS,
        "blk.1.ffn_down" => DType::IQ4_NL,
        _ => DType::Q3_K,
    }
}

/// A type that has no scales of this kind beside others that have.
fn mixed(name: &str) -> DType {
    match name {
        "blk.0.attn_k" => DType::Q8_0,
        "blk.1.ffn_up" => DType::F16,
        "blk.1.attn_output" => DType::Q2_K,
        "token_embd" => DType::Q4_K,
        _ => DType::Q5_K,
    }
}

/// Random blocks whose weights are small and about as often positive as negative.
fn blocks(dtype: DType, bytes: &mut [u8], state: &mut u64) {
    let mut next = || {
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) as u32
    };
    if dtype == DType::F32 {
        bytes.chunks_exact_mut(4).for_each(|b| b.copy_from_slice(&1f32.to_le_bytes()));
        return;
    }
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        block.iter_mut().for_each(|b| *b = next() as u8);
        let mut put = |at: usize, value: f32| {
            block[at..at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
        };
        let about = 1.0 + (next() % 100) as f32 / 100.0;
        match dtype {
            DType::Q4_K => {
                [3e-4, 7.5 * 3e-4].iter().enumerate().for_each(|(i, v)| put(2 * i, v * about))
            }
            DType::Q5_K => {
                [15e-5, 15.5 * 15e-5].iter().enumerate().for_each(|(i, v)| put(2 * i, v * about))
            }
            DType::Q6_K => put(208, 4e-5 * about),
            DType::Q2_K => {
                [4e-3, 1.5 * 4e-3].iter().enumerate().for_each(|(i, v)| put(80 + 2 * i, v * about))
            }
            DType::Q3_K => put(108, 12e-4 * about),
            DType::IQ4_XS => put(0, 4e-5 * about),
            DType::IQ4_NL => put(0, 7e-4 * about),
            DType::Q8_0 => put(0, 7e-4 * about),
            DType::F16 => put(0, 0.05 * (about - 1.5)),
            _ => unreachable!("{dtype}"),
        }
    }
}

/// A model of two layers with matrices of these types; or `decoded`, in f32.
fn model(types: Types, decoded: bool) -> Arc<Model> {
    let spec = |name: &str, dims: &[u64]| {
        let dtype = if dims.len() == 1 { DType::F32 } else { types(name) };
        TensorSpec { name: format!("{name}.weight"), dtype, dims: dims.to_vec() }
    };
    let mut tensors = vec![spec("token_embd", &[HIDDEN, VOCAB]), spec("output_norm", &[HIDDEN])];
    for i in 0..2 {
        let mut add =
            |part: &str, dims: &[u64]| tensors.push(spec(&format!("blk.{i}.{part}"), dims));
        for norm in ["attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"] {
            add(norm, &[HIDDEN]);
        }
        ["attn_q_norm", "attn_k_norm"].iter().for_each(|norm| add(norm, &[HEAD_DIM]));
        add("attn_q", &[HIDDEN, 2 * HEAD_DIM]);
        ["attn_k", "attn_v"].iter().for_each(|part| add(part, &[HIDDEN, HEAD_DIM]));
        add("attn_output", &[2 * HEAD_DIM, HIDDEN]);
        ["ffn_gate", "ffn_up"].iter().for_each(|part| add(part, &[HIDDEN, FFN]));
        add("ffn_down", &[FFN, HIDDEN]);
    }
    let mut state = 7;
    let contents: Vec<Vec<u8>> = tensors
        .iter_mut()
        .map(|tensor| {
            let mut bytes = vec![0; tensor.bytes().unwrap() as usize];
            blocks(tensor.dtype, &mut bytes, &mut state);
            if !decoded {
                return bytes;
            }
            let of_file = std::mem::replace(&mut tensor.dtype, DType::F32);
            let row = of_file.row_bytes(tensor.dims[0] as usize).unwrap();
            let mut values = vec![0f32; tensor.dims.iter().product::<u64>() as usize];
            for (bytes, out) in
                bytes.chunks_exact(row).zip(values.chunks_exact_mut(tensor.dims[0] as usize))
            {
                decode_row(of_file, bytes, out);
            }
            values.iter().flat_map(|v| v.to_le_bytes()).collect()
        })
        .collect();
    let layout = Layout::new(&metadata(), &tensors).unwrap();
    let mut file = vec![0; layout.file_len as usize];
    file[..layout.header.len()].copy_from_slice(&layout.header);
    for (bytes, &at) in contents.iter().zip(&layout.offsets) {
        file[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }
    Arc::new(Model::from_bytes("random K types", file).unwrap())
}

fn metadata() -> Vec<(String, MetaValue)> {
    let tokens: Vec<String> = (0..VOCAB)
        .map(|i| match i {
            0 => "<pad>".into(),
            1 => "<eos>".into(),
            2 => "<bos>".into(),
            3 => "<unk>".into(),
            _ => format!("t{i}"),
        })
        .collect();
    let types = (0..VOCAB).map(|i| if i < 4 { 3 } else { 1 }).collect();
    let number = |name: &str, v: u64| (name.into(), MetaValue::U32(v as u32));
    vec![
        ("general.architecture".into(), MetaValue::String("gemma3".into())),
        number("gemma3.context_length", 512),
        number("gemma3.embedding_length", HIDDEN),
        number("gemma3.block_count", 2),
        number("gemma3.feed_forward_length", FFN),
        number("gemma3.attention.head_count", 2),
        number("gemma3.attention.head_count_kv", 1),
        number("gemma3.attention.key_length", HEAD_DIM),
        number("gemma3.attention.value_length", HEAD_DIM),
        number("gemma3.attention.sliding_window", 32),
        ("gemma3.attention.layer_norm_rms_epsilon".into(), MetaValue::F32(1e-6)),
        ("tokenizer.ggml.model".into(), MetaValue::String("llama".into())),
        ("tokenizer.ggml.tokens".into(), MetaValue::Strings(tokens)),
        ("tokenizer.ggml.scores".into(), MetaValue::F32s(vec![-1.0; VOCAB as usize])),
        ("tokenizer.ggml.token_type".into(), MetaValue::I32s(types)),
        number("tokenizer.ggml.bos_token_id", 2),
        number("tokenizer.ggml.eos_token_id", 1),
        number("tokenizer.ggml.unknown_token_id", 3),
    ]
}

fn tokens() -> Vec<u32> {
    (0..70).map(|i| if i == 0 { 2 } else { 4 + i * 97 % 290 }).collect()
}

/// In f32 the device's weights are exactly the file's: many rows, few, and one after the other.
#[test]
fn weights_are_those_of_the_file() {
    let Some(device) = device() else { return };
    let narrow = open_device(&DeviceOptions { max_binding: Some(40 << 10), ..Default::default() });
    for (types, exactly) in [(medium as Types, true), (small, true), (mixed, false)] {
        let want = logits(&model(types, true), &exact(), &tokens(), &[]);
        let model = model(types, false);
        for cuts in [&[][..], &[5, 2, 1, 1, 40]] {
            let options = SessionOptions { context: Some(80), ..on(&device) };
            let got = logits(&model, &options, &tokens(), cuts);
            let error = worst_error(&got, &want);
            println!("{cuts:?}: {error:.1e} of σ");
            // Together with halves, weights are rounded to halves.
            assert!(error < if exactly { 1e-3 } else { 2e-3 }, "{cuts:?}: {error}");
        }
        // In shards.
        let narrow = narrow.as_ref().expect("there is an adapter");
        let options = SessionOptions { context: Some(36), ..on(narrow) };
        let got = logits(&model, &options, &tokens()[..30], &[25]);
        let error = worst_error(&got, &want[..30 * VOCAB as usize]);
        assert!(error < if exactly { 1e-3 } else { 2e-3 }, "in shards: {error}");
    }
}

/// Rounded activations cost what they cost, in every way; nothing is wrong beside that.
#[test]
fn every_way_stays_close() {
    let Some(adapter) = common::gpu::adapter() else { return };
    let (offers, want) = (adapter.offers(), logits(&model(medium, true), &exact(), &tokens(), &[]));
    let model = model(medium, false);
    for words in ["dot4", "subgroup,dot4", "f16", "matrix", "auto"] {
        let Ok(features) = Features::parse(words, &offers, adapter.name()) else {
            eprintln!("SKIPPED: {words}");
            continue;
        };
        let options = DeviceOptions { features: Some(features), ..Default::default() };
        let device = adapter.open(&options).unwrap();
        for cuts in [&[][..], &[1; 69]] {
            let options = SessionOptions { context: Some(80), ..on(&device) };
            let got = logits(&model, &options, &tokens(), cuts);
            let error = rms_error(&got, &want);
            println!("{words}, {} pieces: {error:.1e} of σ", cuts.len() + 1);
            assert!(error < 0.03, "{words}: {error}");
        }
    }
}

/// Only what takes more than in the file is told.
#[test]
fn it_is_said_how_they_are_kept() {
    let Some(device) = device() else { return };
    let model = model(medium, false);
    let session = Session::new(model, &on(&device)).unwrap();
    let notes: Vec<_> = session.gpu().unwrap().notes().collect();
    let told =
        |dtype: &str| notes.iter().any(|note| note.contains(dtype) && note.contains("bytes"));
    assert!(told("q6_k") && told("q5_k") && !told("q4_k"), "{notes:?}");
}
