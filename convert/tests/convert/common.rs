//! Small checkpoints in the Hub's layout, made on the spot.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use half::{bf16, f16};
use lapidary_convert::{ConvertError, Options, Summary, convert};
use quant::DType;
use quant::gguf::Gguf;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::{Value, json};

/// A tensor of a checkpoint: type, shape, weights.
#[derive(Clone, Debug)]
pub(crate) struct Weights {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

impl Weights {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let v = self.values.iter();
        match self.dtype {
            Dtype::F32 => v.flat_map(|x| x.to_le_bytes()).collect(),
            Dtype::F16 => v.flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
            Dtype::BF16 => v.flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
            Dtype::I64 => v.flat_map(|x| (*x as i64).to_le_bytes()).collect(),
            other => panic!("{other:?} is not made here"),
        }
    }

    /// The weights as they come back from the file.
    pub(crate) fn stored(&self) -> Vec<f32> {
        let v = self.values.iter();
        match self.dtype {
            Dtype::F16 => v.map(|x| f16::from_f32(*x).to_f32()).collect(),
            Dtype::BF16 => v.map(|x| bf16::from_f32(*x).to_f32()).collect(),
            _ => self.values.clone(),
        }
    }
}

/// A checkpoint in memory, to be bent before it is written.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoint {
    pub(crate) config: Value,
    pub(crate) tensors: BTreeMap<String, Weights>,
    /// Other files by name.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    seed: u64,
}

/// Rows of the embedding; the tokenizer has fewer tokens.
pub(crate) const VOCAB: usize = 48;
pub(crate) const HIDDEN: usize = 64;
pub(crate) const FFN: usize = 96;
pub(crate) const HEAD: usize = 32;

impl Checkpoint {
    /// A Gemma 3 text model of two layers.
    pub(crate) fn gemma3() -> Self {
        let mut c = Self::empty(json!({
            "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text",
            "hidden_size": HIDDEN, "intermediate_size": FFN, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": HEAD,
            "vocab_size": VOCAB, "query_pre_attn_scalar": HEAD, "sliding_window": 16,
            "max_position_embeddings": 512, "eos_token_id": [1, 6], "bos_token_id": 2
        }));
        c.text("model.", 2, true);
        c
    }

    /// A Gemma 2 model of two layers.
    pub(crate) fn gemma2() -> Self {
        let mut c = Self::gemma3();
        c.config["architectures"] = json!(["Gemma2ForCausalLM"]);
        c.config["model_type"] = json!("gemma2");
        c.tensors
            .retain(|name, _| !name.ends_with("q_norm.weight") && !name.ends_with("k_norm.weight"));
        c
    }

    /// A Gemma 3 model with a vision tower of two layers, its text config at the defaults where
    /// it can be.
    pub(crate) fn multimodal() -> Self {
        let mut c = Self::empty(json!({
            "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
            "mm_tokens_per_image": 4, "eos_token_id": [1, 6],
            "text_config": {
                "model_type": "gemma3_text", "hidden_size": HIDDEN, "intermediate_size": FFN,
                "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
                "head_dim": HEAD, "query_pre_attn_scalar": HEAD, "vocab_size": VOCAB, "sliding_window": 16,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0}
            },
            "vision_config": {
                "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2,
                "num_attention_heads": 2, "image_size": 16, "patch_size": 2
            }
        }));
        c.text("language_model.model.", 1, true);
        c.vision("vision_tower.vision_model.", "multi_modal_projector.");
        c
    }

    fn empty(config: Value) -> Self {
        let files = BTreeMap::from([
            ("tokenizer.json".into(), tokenizer_json().to_string().into_bytes()),
            (
                "tokenizer_config.json".into(),
                br#"{"chat_template": "{{ messages }}", "bos_token": "<bos>"}"#.to_vec(),
            ),
            (
                "generation_config.json".into(),
                br#"{"do_sample": true, "eos_token_id": [1, 6], "top_k": 64, "top_p": 0.95}"#
                    .to_vec(),
            ),
        ]);
        Checkpoint { config, tensors: BTreeMap::new(), files, seed: 1 }
    }

    /// Adds a bf16 tensor of seeded weights.
    pub(crate) fn add(&mut self, name: String, shape: &[usize]) {
        let n = shape.iter().product();
        let values = (0..n).map(|_| bf16::from_f32(self.random()).to_f32()).collect();
        self.tensors.insert(name, Weights { dtype: Dtype::BF16, shape: shape.into(), values });
    }

    /// In -1..1, denser towards 0.
    fn random(&mut self) -> f32 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let x = (self.seed >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        x * x * x
    }

    fn text(&mut self, root: &str, layers: usize, head_norms: bool) {
        self.add(format!("{root}embed_tokens.weight"), &[VOCAB, HIDDEN]);
        self.add(format!("{root}norm.weight"), &[HIDDEN]);
        for i in 0..layers {
            let p = format!("{root}layers.{i}.");
            self.add(format!("{p}self_attn.q_proj.weight"), &[2 * HEAD, HIDDEN]);
            self.add(format!("{p}self_attn.k_proj.weight"), &[HEAD, HIDDEN]);
            self.add(format!("{p}self_attn.v_proj.weight"), &[HEAD, HIDDEN]);
            self.add(format!("{p}self_attn.o_proj.weight"), &[HIDDEN, 2 * HEAD]);
            if head_norms {
                self.add(format!("{p}self_attn.q_norm.weight"), &[HEAD]);
                self.add(format!("{p}self_attn.k_norm.weight"), &[HEAD]);
            }
            self.add(format!("{p}mlp.gate_proj.weight"), &[FFN, HIDDEN]);
            self.add(format!("{p}mlp.up_proj.weight"), &[FFN, HIDDEN]);
            self.add(format!("{p}mlp.down_proj.weight"), &[HIDDEN, FFN]);
            for norm in ["input", "post_attention", "pre_feedforward", "post_feedforward"] {
                self.add(format!("{p}{norm}_layernorm.weight"), &[HIDDEN]);
            }
        }
    }

    fn vision(&mut self, v: &str, projector: &str) {
        self.add(format!("{v}embeddings.patch_embedding.weight"), &[32, 3, 2, 2]);
        self.add(format!("{v}embeddings.patch_embedding.bias"), &[32]);
        self.add(format!("{v}embeddings.position_embedding.weight"), &[64, 32]);
        for i in 0..2 {
            let p = format!("{v}encoder.layers.{i}.");
            for (name, rows, cols) in [
                ("self_attn.q_proj", 32, 32),
                ("self_attn.k_proj", 32, 32),
                ("self_attn.v_proj", 32, 32),
                ("self_attn.out_proj", 32, 32),
                ("mlp.fc1", 40, 32),
                ("mlp.fc2", 32, 40),
            ] {
                self.add(format!("{p}{name}.weight"), &[rows, cols]);
                self.add(format!("{p}{name}.bias"), &[rows]);
            }
            for norm in ["layer_norm1", "layer_norm2"] {
                self.add(format!("{p}{norm}.weight"), &[32]);
                self.add(format!("{p}{norm}.bias"), &[32]);
            }
        }
        self.add(format!("{v}post_layernorm.weight"), &[32]);
        self.add(format!("{v}post_layernorm.bias"), &[32]);
        self.add(format!("{projector}mm_input_projection_weight"), &[32, HIDDEN]);
        self.add(format!("{projector}mm_soft_emb_norm.weight"), &[32]);
    }

    /// Renames every tensor that starts with `from`.
    pub(crate) fn reroot(&mut self, from: &str, to: &str) {
        let old = std::mem::take(&mut self.tensors);
        self.tensors = old
            .into_iter()
            .map(|(name, w)| match name.strip_prefix(from) {
                Some(rest) => (format!("{to}{rest}"), w),
                None => (name, w),
            })
            .collect();
    }

    pub(crate) fn tensor(&mut self, name: &str) -> &mut Weights {
        self.tensors.get_mut(name).unwrap_or_else(|| panic!("{name}"))
    }

    /// Writes the checkpoint as one safetensors file.
    pub(crate) fn write(&self, dir: &Path) {
        self.write_sidecars(dir);
        write_safetensors(&dir.join("model.safetensors"), self.tensors.iter());
    }

    /// Writes it as `n` shards with an index.
    pub(crate) fn write_sharded(&self, dir: &Path, n: usize) {
        self.write_sidecars(dir);
        let mut map = serde_json::Map::new();
        for shard in 0..n {
            let file = format!("model-{:05}-of-{n:05}.safetensors", shard + 1);
            let part = self.tensors.iter().enumerate().filter(|(i, _)| i % n == shard);
            write_safetensors(&dir.join(&file), part.clone().map(|(_, t)| t));
            map.extend(part.map(|(_, (name, _))| (name.clone(), json!(file))));
        }
        let index = json!({"metadata": {}, "weight_map": map}).to_string();
        std::fs::write(dir.join("model.safetensors.index.json"), index).unwrap();
    }

    fn write_sidecars(&self, dir: &Path) {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("config.json"), self.config.to_string()).unwrap();
        for (name, bytes) in &self.files {
            std::fs::write(dir.join(name), bytes).unwrap();
        }
    }
}

pub(crate) fn write_safetensors<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (&'a String, &'a Weights)>,
) {
    let owned: Vec<_> = tensors.map(|(n, w)| (n.clone(), w, w.bytes())).collect();
    let views = owned
        .iter()
        .map(|(n, w, b)| (n.clone(), TensorView::new(w.dtype, w.shape.clone(), b).unwrap()));
    serialize_to_file(views, None, path).unwrap();
}

/// (text, SentencePiece type) in id order, scores apart; ids 0 to 9 are added tokens.
pub(crate) const PIECES: [(&str, u8); 24] = [
    ("<pad>", 3),
    ("<eos>", 3),
    ("<bos>", 3),
    ("<unk>", 2),
    ("<mask>", 4),
    ("<start_of_turn>", 4),
    ("<end_of_turn>", 4),
    ("\n", 4),
    ("▁▁", 4),
    ("<unused0>", 4),
    ("<0x00>", 6),
    ("<0x01>", 6),
    ("<0xFF>", 6),
    ("▁t", 1),
    ("he", 1),
    ("▁the", 1),
    ("\t\t", 1),
    ("▁", 1),
    ("t", 1),
    ("h", 1),
    ("e", 1),
    ("\t", 1),
    ("é", 1),
    ("▁the▁", 1),
];

/// A tokenizer.json of [`PIECES`].
pub(crate) fn tokenizer_json() -> Value {
    let vocab: serde_json::Map<_, _> =
        PIECES.iter().enumerate().map(|(id, (text, _))| ((*text).into(), json!(id))).collect();
    let added: Vec<_> = PIECES[..10]
        .iter()
        .enumerate()
        .map(|(id, (text, _))| {
            let special = !["\n", "▁▁", "<unused0>"].contains(text);
            json!({"id": id, "content": text, "special": special, "normalized": false})
        })
        .collect();
    json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}},
        "model": {
            "type": "BPE", "unk_token": "<unk>", "byte_fallback": true, "vocab": vocab,
            "merges": [["\t", "\t"], ["▁", "▁"], ["▁", "t"], ["h", "e"], ["▁t", "he"], ["▁the", "▁"]]
        }
    })
}

/// A tokenizer.model of [`PIECES`], scored as SentencePiece scores.
pub(crate) fn tokenizer_model() -> Vec<u8> {
    let mut out = Vec::new();
    let mut learnt = 0;
    for (text, kind) in PIECES {
        let mut score = 0.0f32;
        if kind == 1 {
            score = -(learnt as f32);
            learnt += 1;
        }
        let mut piece = vec![0x0a, text.len() as u8];
        piece.extend(text.as_bytes());
        piece.push(0x15);
        piece.extend(score.to_le_bytes());
        if kind != 1 {
            piece.extend([0x18, kind]);
        }
        out.extend([0x0a, piece.len() as u8]);
        out.extend(piece);
    }
    out
}

/// Options that write `out` in `dir` as `dtype`, on two threads.
pub(crate) fn options(source: &Path, out: &Path, dtype: DType) -> Options {
    Options {
        output: Some(out.into()),
        dtype,
        threads: std::num::NonZero::new(2),
        ..Options::new(source)
    }
}

/// Converts; the summary.
pub(crate) fn run(options: &Options) -> Result<Summary, ConvertError> {
    convert(options, &(), &AtomicBool::new(false))
}

/// Writes the checkpoint to a folder of its own and converts it there.
pub(crate) fn converted(c: &Checkpoint, dtype: DType) -> (tempfile::TempDir, PathBuf, Summary) {
    let dir = tempfile::tempdir().unwrap();
    c.write(&dir.path().join("model"));
    let out = dir.path().join("out.gguf");
    let summary = run(&options(&dir.path().join("model"), &out, dtype)).unwrap();
    (dir, out, summary)
}

/// Writes the checkpoint and expects its conversion to be refused, leaving nothing behind.
pub(crate) fn refused(c: &Checkpoint, dtype: DType) -> ConvertError {
    let dir = tempfile::tempdir().unwrap();
    c.write(&dir.path().join("model"));
    refused_at(&options(&dir.path().join("model"), &dir.path().join("out.gguf"), dtype))
}

/// Expects a conversion to be refused, leaving the output's folder as it was.
pub(crate) fn refused_at(options: &Options) -> ConvertError {
    let folder = options.output_path().parent().unwrap().to_owned();
    let before = listing(&folder);
    let error = run(options).unwrap_err();
    assert_eq!(listing(&folder), before, "{error}");
    error
}

/// Names and contents of a folder's files.
pub(crate) fn listing(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    files.filter(|p| p.is_file()).map(|p| (p.clone(), std::fs::read(&p).unwrap())).collect()
}

/// Decodes a tensor of a GGUF file.
pub(crate) fn decoded(gguf: &Gguf<'_>, name: &str) -> Vec<f32> {
    let t = gguf.tensor(name).unwrap_or_else(|| panic!("{name}"));
    let m = t.matrix();
    let mut out = vec![0.0; m.rows() * m.cols()];
    for (r, o) in out.chunks_exact_mut(m.cols()).enumerate() {
        quant::codec::decode_row(t.dtype, m.row(r), o);
    }
    out
}

/// What encoding `values`, rows of `cols`, must give.
pub(crate) fn encoded(dtype: DType, values: &[f32], cols: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for row in values.chunks_exact(cols) {
        let mut bytes = vec![0; dtype.row_bytes(cols).unwrap()];
        quant::codec::encode_row(dtype, row, &mut bytes);
        out.extend(bytes);
    }
    out
}
