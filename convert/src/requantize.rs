//! A GGUF file to one of other types: its keys and tokens pass through, its tensors are decoded
//! and encoded again. Google's QAT files, for example, carry an f16 embedding that takes up most
//! of what a small model reads per token.

use std::path::Path;

use quant::gguf::{Gguf, GgufError, MetaValue, Tensor, TensorSpec};

use crate::ConvertError;
use crate::config::Arch;
use crate::json;
use crate::metadata::{self, Metadata};
use crate::plan::{FilePlan, Plan, TensorPlan};
use crate::source::{Source, SourceFile, SourceTensor};
use crate::summary::Note;
use crate::tensors::{self, Dim, Entry, Role, Types};
use crate::tokenizer::{TokenType, is_control};

const TOKEN_TYPES: &str = "tokenizer.ggml.token_type";

/// Reads everything but the weights of the GGUF file at `path`, and plans its conversion to `out`.
pub(crate) fn plan(path: &Path, out: &Path, types: Types) -> Result<(Source, Plan), ConvertError> {
    let file = SourceFile::open(path)?;
    let wrong = |source| ConvertError::Gguf { path: path.into(), source };
    let map = file.map()?;
    json::refuse_pointer(path, &map)?;
    let gguf = Gguf::parse(&map).map_err(wrong)?;
    gguf.whole().map_err(wrong)?;

    let arch = gguf.str("general.architecture").map_err(wrong)?.unwrap_or("");
    let arch = Arch::from_name(arch)
        .ok_or_else(|| ConvertError::Architecture { path: path.into(), found: arch.into() })?;
    let layers = gguf.u64(&format!("{}.block_count", arch.name())).map_err(wrong)?.unwrap_or(0);

    let dims = Dims::read(&gguf, arch).map_err(wrong)?;

    let mut notes = Vec::new();
    let metadata = keys(&gguf, types, &mut notes);
    let (mut source, mut plans) = (Source::default(), Vec::new());
    let mut kept_f16 = Vec::new();
    let mut widened = None;
    for (index, t) in gguf.tensors().iter().enumerate() {
        let entry = entry(t.name, arch, layers).ok_or_else(|| ConvertError::UnknownTensor {
            tensor: t.name.into(),
            arch: arch.name().into(),
        })?;
        let role = entry.role;
        check_shape(&dims, entry, t)?;
        let cols = t.dims[0]; // a parsed tensor has one dimension at least
        let dtype = types.target(role, cols);
        if dtype == quant::DType::F16 && !types.asks_for_f16(role) && t.dims.len() > 1 {
            kept_f16.push(t.name.to_owned());
        }
        if !t.dtype.is_float() && dtype.bits_per_weight() > t.dtype.bits_per_weight() {
            widened.get_or_insert((t.dtype, dtype));
        }
        source.tensors.push(SourceTensor {
            name: t.name.into(),
            file: 0,
            offset: t.offset,
            dtype: Ok(t.dtype),
            shape: t.dims.iter().rev().copied().collect(),
        });
        plans.push(TensorPlan {
            spec: TensorSpec { name: t.name.into(), dtype, dims: t.dims.clone() },
            source: index,
            add_one: false,
        });
    }
    missing(&gguf, arch, layers)?;
    if !kept_f16.is_empty() {
        notes.push(Note::KeptF16 { tensors: kept_f16 });
    }
    notes.extend(widened.map(|(from, to)| Note::Widened { from, to }));
    drop(gguf);
    drop(map);
    source.files.push(file);
    let files = vec![FilePlan { path: out.into(), metadata, tensors: plans }];
    Ok((source, Plan { files, notes }))
}

/// Every key as it is, but for the file type and control tokens marked as text. Alignment is the
/// writer's own.
fn keys(gguf: &Gguf<'_>, types: Types, notes: &mut Vec<Note>) -> Metadata {
    let mut out = Metadata::new();
    for (key, value) in gguf.metadata() {
        let value = match *key {
            "general.alignment" => continue,
            "general.file_type" => MetaValue::U32(metadata::file_type(types.matrix)),
            TOKEN_TYPES => match repaired(gguf) {
                Some((fixed, tokens)) => {
                    notes.push(Note::ControlRepaired(tokens));
                    MetaValue::I32s(fixed)
                }
                None => MetaValue::from(*value),
            },
            _ => MetaValue::from(*value),
        };
        out.push(((*key).to_owned(), value));
    }
    for (key, value) in [
        ("general.file_type", MetaValue::U32(metadata::file_type(types.matrix))),
        ("general.quantization_version", MetaValue::U32(metadata::QUANTIZATION_VERSION)),
    ] {
        if gguf.get(key).is_none() {
            out.push((key.into(), value));
        }
    }
    out
}

/// Token types with control tokens marked as such, and which had to be; `None` when all were.
fn repaired(gguf: &Gguf<'_>) -> Option<(Vec<i32>, Vec<String>)> {
    let tokens = gguf.get("tokenizer.ggml.tokens")?.as_array()?.strings()?;
    let types = gguf.get(TOKEN_TYPES)?.as_array()?.i64s()?;
    let mut types: Vec<i32> =
        types.into_iter().map(i32::try_from).collect::<Result<_, _>>().ok()?;
    let mut changed = Vec::new();
    for (text, kind) in tokens.zip(&mut types) {
        let as_text = [TokenType::Normal as i32, TokenType::UserDefined as i32].contains(kind);
        if as_text && is_control(text) {
            *kind = TokenType::Control as i32;
            changed.push(text.to_owned());
        }
    }
    (!changed.is_empty()).then_some((types, changed))
}

/// All entries of the table that a model of `arch` has, by their GGUF names.
fn entries(arch: Arch) -> impl Iterator<Item = &'static Entry> {
    tensors::TEXT.iter().filter(move |e| arch == Arch::Gemma3 || e.role != Role::HeadNorm)
}

/// The line of the table for the tensor of this name.
fn entry(name: &str, arch: Arch, layers: u64) -> Option<&'static Entry> {
    let mut generic = name.to_owned();
    if let Some((layer, rest)) = name.strip_prefix("blk.").and_then(|n| n.split_once('.')) {
        let n: u64 = layer.parse().ok()?;
        if n >= layers || n.to_string() != layer {
            return None;
        }
        generic = format!("blk.{{}}.{rest}");
    }
    entries(arch).chain([&tensors::HEAD]).find(|e| e.target == generic)
}

/// The dimensions that the file's keys state. A key that is absent states nothing.
struct Dims {
    hidden: Option<u64>,
    ffn: Option<u64>,
    heads: Option<u64>,
    kv_heads: Option<u64>,
    head: Option<u64>,
    tokens: Option<u64>,
}

impl Dims {
    fn read(gguf: &Gguf<'_>, arch: Arch) -> Result<Dims, GgufError> {
        let key = |name: &str| gguf.u64(&format!("{}.{name}", arch.name()));
        Ok(Dims {
            hidden: key("embedding_length")?,
            ffn: key("feed_forward_length")?,
            heads: key("attention.head_count")?,
            kv_heads: key("attention.head_count_kv")?,
            head: key("attention.key_length")?,
            tokens: gguf.array("tokenizer.ggml.tokens")?.map(|a| a.len() as u64),
        })
    }

    fn get(&self, dim: Dim) -> Option<u64> {
        match dim {
            Dim::Vocab => self.tokens,
            Dim::Hidden => self.hidden,
            Dim::Ffn => self.ffn,
            Dim::Query => self.heads?.checked_mul(self.head?),
            Dim::KeyValue => self.kv_heads?.checked_mul(self.head?),
            Dim::Head => self.head,
            _ => None, // the vision tower's, which lies in a file of its own
        }
    }
}

fn check_shape(dims: &Dims, entry: &Entry, t: &Tensor<'_>) -> Result<(), ConvertError> {
    let found: Vec<u64> = t.dims.iter().rev().copied().collect();
    let stated: Vec<Option<u64>> = entry.shape.iter().map(|&d| dims.get(d)).collect();
    let fits = found.len() == stated.len()
        && found.iter().zip(&stated).all(|(f, s)| s.is_none_or(|s| s == *f));
    if fits {
        return Ok(());
    }
    let expected = stated.into_iter().map(Option::unwrap_or_default).collect();
    Err(ConvertError::TensorShape { tensor: t.name.into(), found, expected })
}

/// Fails when a tensor of the table is not in the file.
fn missing(gguf: &Gguf<'_>, arch: Arch, layers: u64) -> Result<(), ConvertError> {
    let present = gguf.tensors().len() as u64;
    for entry in entries(arch) {
        // A layer needs tensors: no more layers are looked for than there are tensors.
        let last = if entry.per_layer() { layers.min(present + 1) } else { 1 };
        for layer in 0..last {
            let target = entry.target.replace("{}", &layer.to_string());
            if gguf.tensor(&target).is_none() {
                return Err(ConvertError::MissingTensor { tensor: target.clone(), target });
            }
        }
    }
    Ok(())
}
