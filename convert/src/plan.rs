//! What goes where, decided before a weight is read: every source tensor is given its place in an
//! output file, or the checkpoint is refused, naming the tensor.

use std::collections::HashMap;
use std::path::PathBuf;

use quant::DType;
use quant::gguf::TensorSpec;

use crate::ConvertError;
use crate::config::{Arch, ModelConfig};
use crate::metadata::Metadata;
use crate::source::SourceTensor;
use crate::summary::Note;
use crate::tensors::{self, Entry, Role, Types};

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorPlan {
    /// Name, type and shape in the output.
    pub spec: TensorSpec,
    /// Index of the source tensor it is made from.
    pub source: usize,
    /// Add 1 to every weight, in f32 (Gemma's RMS norms multiply by `1 + w`, GGUF's by `w`).
    pub add_one: bool,
}

/// A file to be written.
#[derive(Clone, Debug)]
pub struct FilePlan {
    /// Where it goes.
    pub path: PathBuf,
    /// Its keys.
    pub metadata: Metadata,
    /// Its tensors, in file order.
    pub tensors: Vec<TensorPlan>,
}

/// A conversion, ready to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The files to be written.
    pub files: Vec<FilePlan>,
    /// What a person should know of it.
    pub notes: Vec<Note>,
}

/// The tensors of a model, planned.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ModelTensors {
    pub text: Vec<TensorPlan>,
    /// Empty when there is no vision tower.
    pub vision: Vec<TensorPlan>,
    pub notes: Vec<Note>,
}

/// Assigns source tensors to the table's entries, each at most once.
struct Assign<'a> {
    source: &'a [SourceTensor],
    /// By canonical name; entries are removed as they find their place.
    unplaced: HashMap<String, usize>,
    model: &'a ModelConfig,
    types: Types,
    kept_f16: Vec<String>,
    notes: Vec<Note>,
}

impl Assign<'_> {
    /// Gives every tensor of `table` its source.
    fn table(&mut self, table: &[Entry], layers: u32) -> Result<Vec<TensorPlan>, ConvertError> {
        let mut plans = Vec::new();
        let mut i = 0;
        // A run of per-layer entries is walked once a layer, so that layers lie together.
        while i < table.len() {
            let run = table[i..].iter().take_while(|e| e.per_layer()).count();
            if run == 0 {
                plans.extend(self.entry(&table[i], 0)?);
                i += 1;
                continue;
            }
            for layer in 0..layers {
                for entry in &table[i..i + run] {
                    plans.extend(self.entry(entry, layer)?);
                }
            }
            i += run;
        }
        Ok(plans)
    }

    fn entry(&mut self, entry: &Entry, layer: u32) -> Result<Option<TensorPlan>, ConvertError> {
        if entry.role == Role::HeadNorm && self.model.text.arch == Arch::Gemma2 {
            return Ok(None);
        }
        let (name, target) = entry.names(layer);
        match self.unplaced.remove(&name) {
            Some(index) => self.place(entry, index, target).map(Some),
            None => Err(ConvertError::MissingTensor { tensor: published_name(&name), target }),
        }
    }

    fn place(
        &mut self,
        entry: &Entry,
        index: usize,
        target: String,
    ) -> Result<TensorPlan, ConvertError> {
        let t = &self.source[index];
        let expected: Vec<u64> = entry.shape.iter().map(|&d| self.model.dim(d)).collect();
        if t.shape != expected {
            let (tensor, found) = (t.name.clone(), t.shape.clone());
            return Err(ConvertError::TensorShape { tensor, found, expected });
        }
        if let Err(found) = &t.dtype {
            let (tensor, found) = (t.name.clone(), found.clone());
            return Err(ConvertError::TensorType { tensor, found });
        }
        let cols = *t.shape.last().expect("no entry of the table is a scalar");
        let dtype = self.types.target(entry.role, cols);
        let quantized = {
            use Role::{Embedding, Head, Matrix, VisionMatrix};
            matches!(entry.role, Matrix | Embedding | Head | VisionMatrix)
        };
        if quantized && dtype == DType::F16 && !self.types.asks_for_f16(entry.role) {
            self.kept_f16.push(target.clone());
        }
        let dims = t.shape.iter().rev().copied().collect();
        Ok(TensorPlan {
            spec: TensorSpec { name: target, dtype, dims },
            source: index,
            add_one: matches!(entry.role, Role::Norm | Role::HeadNorm),
        })
    }
}

/// The name to tell a person whose checkpoint lacks this canonical one.
fn published_name(canonical: &str) -> String {
    for (ours, theirs) in [
        ("text.", "model."),
        ("vision.", "vision_tower.vision_model."),
        ("projector.", "multi_modal_projector."),
        ("head.", "lm_head."),
    ] {
        if let Some(rest) = canonical.strip_prefix(ours) {
            return format!("{theirs}{rest}");
        }
    }
    canonical.into()
}

/// Plans the tensors of a safetensors checkpoint. `same(a, b)` says whether two source tensors
/// hold the same weights; it is asked for a head that may be the embedding.
///
/// # Errors
/// A tensor that is unknown, missing, there twice, or of the wrong shape or type.
pub(crate) fn checkpoint(
    model: &ModelConfig,
    source: &[SourceTensor],
    types: Types,
    same: &mut dyn FnMut(usize, usize) -> Result<bool, ConvertError>,
) -> Result<ModelTensors, ConvertError> {
    let mut unplaced = HashMap::new();
    for (index, t) in source.iter().enumerate() {
        let name = tensors::canonical(&t.name);
        if tensors::is_recomputed(&name) {
            continue;
        }
        if let Some(other) = unplaced.insert(name.clone(), index) {
            let (first, second) = (source[other].name.clone(), t.name.clone());
            return Err(ConvertError::DuplicateTensor { first, second, target: name });
        }
    }
    let (kept_f16, notes) = (Vec::new(), Vec::new());
    let mut assign = Assign { source, unplaced, model, types, kept_f16, notes };
    let mut text = assign.table(tensors::TEXT, model.text.layers)?;
    if let Some(head) = assign.unplaced.remove(tensors::HEAD.source) {
        let plan = assign.place(&tensors::HEAD, head, tensors::HEAD.target.into())?;
        let embedding = text[0].source; // the table's first entry
        if same(head, embedding)? {
            assign.notes.push(Note::HeadTied { tensor: source[head].name.clone() });
        } else {
            assign.notes.push(Note::HeadUntied {
                tensor: source[head].name.clone(),
                loads_in_llama_cpp: model.text.arch == Arch::Gemma3,
            });
            text.push(plan);
        }
    } else if model.untied {
        assign.notes.push(Note::HeadMissing);
    }
    if model.text.query_scalar != f64::from(model.text.llama_cpp_query_scalar()) {
        let theirs = model.text.llama_cpp_query_scalar();
        assign.notes.push(Note::QueryScale { scalar: model.text.query_scalar.to_string(), theirs });
    }
    let mut vision = Vec::new();
    if let Some(v) = &model.vision {
        let is_vision = |n: &String| n.starts_with("vision.") || n.starts_with("projector.");
        if assign.unplaced.keys().any(is_vision) {
            vision = assign.table(tensors::VISION, v.layers)?;
        } else {
            assign.notes.push(Note::NoVisionTensors);
        }
    }
    if let Some(&index) = assign.unplaced.values().min() {
        let arch = model.text.arch.name().into();
        return Err(ConvertError::UnknownTensor { tensor: source[index].name.clone(), arch });
    }
    if !assign.kept_f16.is_empty() {
        assign.notes.push(Note::KeptF16 { tensors: assign.kept_f16 });
    }
    Ok(ModelTensors { text, vision, notes: assign.notes })
}
