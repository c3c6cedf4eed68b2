//! A folder as the Hub publishes it: config.json, tokenizer files, and safetensors in one file or
//! in shards with an index.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use quant::DType;
use safetensors::{Dtype, SafeTensors};

use crate::ConvertError;
use crate::config::ModelConfig;
use crate::json::{self, Object};
use crate::metadata::{self, TextFacts};
use crate::plan::{self, FilePlan, Plan, TensorPlan};
use crate::sidecar::{ChatTemplates, ImageNorm, Sampling, SpecialIds};
use crate::source::{Source, SourceFile, SourceTensor};
use crate::summary::Note;
use crate::tensors::Types;
use crate::tokenizer::Vocab;
use crate::weights;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Reads everything but the weights of the checkpoint in `dir`, and plans its conversion to `out`.
pub(crate) fn plan(dir: &Path, out: &Path, types: Types) -> Result<(Source, Plan), ConvertError> {
    let config_path = dir.join("config.json");
    let config =
        Object::read(&config_path)?.ok_or_else(|| ConvertError::NotAModel { path: dir.into() })?;
    let model = ModelConfig::read(&config)?;
    let source = open(dir)?;
    let same = &mut |a: usize, b: usize| weights::same_weights(&source, a, b);
    let tensors = plan::checkpoint(&model, &source.tensors, types, same)?;

    let (vocab, mut notes) = Vocab::read(dir, model.text.vocab)?;
    notes.splice(0..0, tensors.notes);
    let generation = Object::read(&dir.join("generation_config.json"))?;
    let special = SpecialIds::read(dir, &config, generation.as_ref(), &vocab)?;
    let chat = ChatTemplates::read(dir)?;
    if chat.default.is_none() {
        notes.push(Note::NoChatTemplate);
    }
    let sampling = generation.as_ref().map(Sampling::read).transpose()?.unwrap_or_default();
    let name = model_name(dir);
    let facts = TextFacts {
        name: &name,
        weights: weights(&tensors.text),
        config: &model.text,
        vocab,
        special: &special,
        chat: &chat,
        sampling,
    };
    let mut files = vec![FilePlan {
        path: out.into(),
        metadata: metadata::text(facts, types.matrix),
        tensors: tensors.text,
    }];
    if let (Some(v), false) = (&model.vision, tensors.vision.is_empty()) {
        let norm = ImageNorm::read(dir, v.channels as usize, &mut notes)?;
        let weights = weights(&tensors.vision);
        files.push(FilePlan {
            path: mmproj_path(out),
            metadata: metadata::vision(&name, weights, &model, v, norm, types.vision),
            tensors: tensors.vision,
        });
    }
    Ok((source, Plan { files, notes }))
}

/// Where the vision tower of a model at `out` goes: beside it.
pub(crate) fn mmproj_path(out: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from("mmproj-");
    name.push(out.file_name().unwrap_or_default());
    out.with_file_name(name)
}

fn weights(tensors: &[TensorPlan]) -> u64 {
    tensors.iter().map(|t| t.spec.dims.iter().product::<u64>()).sum()
}

/// The folder's name, which is the model's as a rule.
pub(crate) fn model_name(dir: &Path) -> String {
    let absolute = dir.canonicalize().unwrap_or_else(|_| dir.into());
    absolute.file_name().map_or_else(|| "model".into(), |n| n.to_string_lossy().into_owned())
}

/// Opens all weight files of a checkpoint and lists their tensors.
///
/// # Errors
/// When a file is missing or is not a safetensors file, or the index does not fit the files.
pub fn open(dir: &Path) -> Result<Source, ConvertError> {
    let mut source = Source::default();
    let index = dir.join(INDEX);
    if dir.join(SINGLE).is_file() {
        add(&mut source, &dir.join(SINGLE))?;
    } else if let Some(index) = Object::read(&index)? {
        add_shards(&mut source, dir, &index)?;
    } else {
        let found = list(dir)?;
        if found.is_empty() {
            let pickled = dir.join("pytorch_model.bin").exists()
                || dir.join("pytorch_model.bin.index.json").exists();
            return Err(ConvertError::NoWeights { path: dir.into(), pickled });
        }
        for path in found {
            add(&mut source, &path)?;
        }
    }
    Ok(source)
}

/// All safetensors files of a folder that has no index, in order of their names.
fn list(dir: &Path) -> Result<BTreeSet<PathBuf>, ConvertError> {
    let entries = std::fs::read_dir(dir).map_err(ConvertError::io("list", dir))?;
    let mut found = BTreeSet::new();
    for entry in entries {
        let path = entry.map_err(ConvertError::io("list", dir))?.path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            found.insert(path);
        }
    }
    Ok(found)
}

fn add_shards(source: &mut Source, dir: &Path, index: &Object) -> Result<(), ConvertError> {
    let map = index.object("weight_map").ok_or_else(|| ConvertError::Config {
        path: index.path.clone(),
        message: "it has no weight_map".into(),
    })?;
    let mut shards = BTreeSet::new();
    for value in map.map.values() {
        let file = value.as_str().unwrap_or_default();
        // A name only: an index must not reach outside its folder.
        let plain = Path::new(file).file_name().is_some_and(|n| n == file);
        if !plain || file.contains(['/', '\\', ':']) {
            let (path, file) = (index.path.clone(), file.into());
            return Err(ConvertError::ShardName { path, file });
        }
        shards.insert(file);
    }
    for shard in &shards {
        add(source, &dir.join(shard))?;
    }
    let held: std::collections::HashSet<(&str, Option<&str>)> = source
        .tensors
        .iter()
        .map(|t| {
            let file = source.files[t.file].path.file_name().and_then(|n| n.to_str());
            (t.name.as_str(), file)
        })
        .collect();
    for (tensor, shard) in &map.map {
        if !held.contains(&(tensor.as_str(), shard.as_str())) {
            return Err(ConvertError::ShardTensor {
                path: index.path.clone(),
                tensor: tensor.clone(),
                shard: shard.as_str().unwrap_or_default().into(),
            });
        }
    }
    Ok(())
}

/// Adds one safetensors file to `source`.
fn add(source: &mut Source, path: &Path) -> Result<(), ConvertError> {
    let file = SourceFile::open(path)?;
    let len = file.file.metadata().map_err(ConvertError::io("read", path))?.len();
    if len < 8 {
        let error = safetensors::SafeTensorError::HeaderTooSmall;
        return Err(ConvertError::Safetensors { path: path.into(), source: error });
    }
    let map = file.map()?;
    json::refuse_pointer(path, &map)?;
    let tensors = header(&map, source.files.len())
        .map_err(|error| ConvertError::Safetensors { path: path.into(), source: error })?;
    drop(map);
    source.tensors.extend(tensors);
    source.files.push(file);
    Ok(())
}

/// The tensors of a safetensors file, `bytes` being all of it, in order of their offsets. This is
/// where hostile bytes come in: the crate checks that the tensors tile the file exactly and that
/// no size overflows.
///
/// # Errors
/// Whatever the safetensors crate finds wrong.
pub fn header(
    bytes: &[u8],
    file: usize,
) -> Result<Vec<SourceTensor>, safetensors::SafeTensorError> {
    let (header_len, metadata) = SafeTensors::read_metadata(bytes)?;
    let start = (8 + header_len) as u64;
    Ok(metadata
        .offset_keys()
        .into_iter()
        .filter_map(|name| {
            let info = metadata.info(&name)?;
            let dtype = match info.dtype {
                Dtype::F32 => Ok(DType::F32),
                Dtype::F16 => Ok(DType::F16),
                Dtype::BF16 => Ok(DType::BF16),
                other => Err(format!("{other:?}")),
            };
            Some(SourceTensor {
                file,
                offset: start + info.data_offsets.0 as u64,
                dtype,
                shape: info.shape.iter().map(|&d| d as u64).collect(),
                name,
            })
        })
        .collect())
}
