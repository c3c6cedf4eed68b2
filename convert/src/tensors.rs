//! The table of tensors: what a Gemma checkpoint holds, what each tensor is called in GGUF, its
//! shape, and how it is stored. Naming, shape checks and conversion all read it.

use quant::DType;

/// A dimension that config.json determines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dim {
    /// Rows of the embedding.
    Vocab,
    /// Width of the residual stream.
    Hidden,
    /// Width of the MLP.
    Ffn,
    /// Query heads × head width.
    Query,
    /// Key-value heads × head width.
    KeyValue,
    /// Width of one head.
    Head,
    /// Width of the vision tower.
    VisionHidden,
    /// Width of the vision tower's MLP.
    VisionFfn,
    /// Patches of an image.
    Positions,
    /// Colour channels.
    Channels,
    /// Side of a patch in pixels.
    Patch,
}

/// What a tensor is, which decides how it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The embedding, which is the head too where the two are tied.
    Embedding,
    /// A head of its own.
    Head,
    /// A weight matrix of the text model.
    Matrix,
    /// An RMS norm weight: GGUF holds `1 + w`.
    Norm,
    /// An RMS norm weight per head, Gemma 3 only: GGUF holds `1 + w`.
    HeadNorm,
    /// A bias or LayerNorm weight, stored as it is.
    Vector,
    /// A weight matrix of the vision tower.
    VisionMatrix,
    /// What llama.cpp wants in f32: patch and position embeddings.
    VisionF32,
    /// The projection into the text model, which llama.cpp transposes at run time and therefore
    /// wants in f16.
    Projection,
}

/// One line of the table. `{}` in the names is the layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Name in the checkpoint once its root is replaced (see [`canonical`]).
    pub source: &'static str,
    /// Name in GGUF.
    pub target: &'static str,
    /// Shape, slowest dimension first.
    pub shape: &'static [Dim],
    /// What it is.
    pub role: Role,
}

impl Entry {
    /// Is there one in every layer?
    pub(crate) fn per_layer(&self) -> bool {
        self.source.contains("{}")
    }

    /// (source, target) names in layer `n`.
    pub(crate) fn names(&self, n: u32) -> (String, String) {
        let n = n.to_string();
        (self.source.replace("{}", &n), self.target.replace("{}", &n))
    }
}

const fn entry(
    source: &'static str,
    target: &'static str,
    shape: &'static [Dim],
    role: Role,
) -> Entry {
    Entry { source, target, shape, role }
}

use Dim::*;
use Role::*;

/// The text model. Order is the order in the file: what a token touches first comes first.
#[rustfmt::skip]
pub(crate) const TEXT: &[Entry] = &[
    entry("text.embed_tokens.weight", "token_embd.weight", &[Vocab, Hidden], Embedding),
    entry("text.layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight", &[Hidden], Norm),
    entry("text.layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight", &[Query, Hidden], Matrix),
    entry("text.layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight", &[KeyValue, Hidden], Matrix),
    entry("text.layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight", &[KeyValue, Hidden], Matrix),
    entry("text.layers.{}.self_attn.q_norm.weight", "blk.{}.attn_q_norm.weight", &[Dim::Head], HeadNorm),
    entry("text.layers.{}.self_attn.k_norm.weight", "blk.{}.attn_k_norm.weight", &[Dim::Head], HeadNorm),
    entry("text.layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight", &[Hidden, Query], Matrix),
    entry("text.layers.{}.post_attention_layernorm.weight", "blk.{}.post_attention_norm.weight", &[Hidden], Norm),
    entry("text.layers.{}.pre_feedforward_layernorm.weight", "blk.{}.ffn_norm.weight", &[Hidden], Norm),
    entry("text.layers.{}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight", &[Ffn, Hidden], Matrix),
    entry("text.layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight", &[Ffn, Hidden], Matrix),
    entry("text.layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight", &[Hidden, Ffn], Matrix),
    entry("text.layers.{}.post_feedforward_layernorm.weight", "blk.{}.post_ffw_norm.weight", &[Hidden], Norm),
    entry("text.norm.weight", "output_norm.weight", &[Hidden], Norm),
];

/// The head, where it is not the embedding.
pub(crate) const HEAD: Entry = entry("head.weight", "output.weight", &[Vocab, Hidden], Role::Head);

/// The vision tower and its projector.
#[rustfmt::skip]
pub(crate) const VISION: &[Entry] = &[
    entry("vision.embeddings.patch_embedding.weight", "v.patch_embd.weight", &[VisionHidden, Channels, Patch, Patch], VisionF32),
    entry("vision.embeddings.patch_embedding.bias", "v.patch_embd.bias", &[VisionHidden], Vector),
    entry("vision.embeddings.position_embedding.weight", "v.position_embd.weight", &[Positions, VisionHidden], VisionF32),
    entry("vision.encoder.layers.{}.layer_norm1.weight", "v.blk.{}.ln1.weight", &[VisionHidden], Vector),
    entry("vision.encoder.layers.{}.layer_norm1.bias", "v.blk.{}.ln1.bias", &[VisionHidden], Vector),
    entry("vision.encoder.layers.{}.self_attn.q_proj.weight", "v.blk.{}.attn_q.weight", &[VisionHidden, VisionHidden], VisionMatrix),
    entry("vision.encoder.layers.{}.self_attn.q_proj.bias", "v.blk.{}.attn_q.bias", &[VisionHidden], Vector),
    entry("vision.encoder.layers.{}.self_attn.k_proj.weight", "v.blk.{}.attn_k.weight", &[VisionHidden, VisionHidden], VisionMatrix),
    entry("vision.encoder.layers.{}.self_attn.k_proj.bias", "v.blk.{}.attn_k.bias", &[VisionHidden], Vector),
    entry("vision.encoder.layers.{}.self_attn.v_proj.weight", "v.blk.{}.attn_v.weight", &[VisionHidden, VisionHidden], VisionMatrix),
    entry("vision.encoder.layers.{}.self_attn.v_proj.bias", "v.blk.{}.attn_v.bias", &[VisionHidden], Vector),
    entry("vision.encoder.layers.{}.self_attn.out_proj.weight", "v.blk.{}.attn_out.weight", &[VisionHidden, VisionHidden], VisionMatrix),
    entry("vision.encoder.layers.{}.self_attn.out_proj.bias", "v.blk.{}.attn_out.bias", &[VisionHidden], Vector),
    entry("vision.encoder.layers.{}.layer_norm2.weight", "v.blk.{}.ln2.weight", &[VisionHidden], Vector),
    entry("vision.encoder.layers.{}.layer_norm2.bias", "v.blk.{}.ln2.bias", &[VisionHidden], Vector),
    entry("vision.encoder.layers.{}.mlp.fc1.weight", "v.blk.{}.ffn_up.weight", &[VisionFfn, VisionHidden], VisionMatrix),
    entry("vision.encoder.layers.{}.mlp.fc1.bias", "v.blk.{}.ffn_up.bias", &[VisionFfn], Vector),
    entry("vision.encoder.layers.{}.mlp.fc2.weight", "v.blk.{}.ffn_down.weight", &[VisionHidden, VisionFfn], VisionMatrix),
    entry("vision.encoder.layers.{}.mlp.fc2.bias", "v.blk.{}.ffn_down.bias", &[VisionHidden], Vector),
    entry("vision.post_layernorm.weight", "v.post_ln.weight", &[VisionHidden], Vector),
    entry("vision.post_layernorm.bias", "v.post_ln.bias", &[VisionHidden], Vector),
    entry("projector.mm_input_projection_weight", "mm.input_projection.weight", &[VisionHidden, Hidden], Projection),
    entry("projector.mm_soft_emb_norm.weight", "mm.soft_emb_norm.weight", &[VisionHidden], Norm),
];

/// Roots that checkpoints have been published with, longest first, and what stands for them in
/// the table. A name with none of them is the bare text model's.
const ROOTS: [(&str, &str); 12] = [
    ("model.language_model.lm_head.", "head."),
    ("language_model.lm_head.", "head."),
    ("lm_head.", "head."),
    ("language_model.model.", "text."),
    ("model.language_model.", "text."),
    ("model.vision_tower.vision_model.", "vision."),
    ("model.vision_tower.", "vision."),
    ("vision_tower.vision_model.", "vision."),
    ("vision_tower.", "vision."),
    ("model.multi_modal_projector.", "projector."),
    ("multi_modal_projector.", "projector."),
    ("model.", "text."),
];

/// The name that the table knows a source tensor by.
pub(crate) fn canonical(name: &str) -> String {
    let (root, stands_for) =
        ROOTS.iter().find(|(root, _)| name.starts_with(root)).copied().unwrap_or(("", "text."));
    format!("{stands_for}{}", &name[root.len()..])
}

/// Is this a buffer that the model recomputes, or a part it never uses (SigLIP's pooling head)?
/// Takes a canonical name.
pub(crate) fn is_recomputed(canonical: &str) -> bool {
    canonical.ends_with("rotary_emb.inv_freq")
        || canonical.ends_with("rotary_emb_local.inv_freq")
        || canonical.ends_with("rotary_emb.original_inv_freq")
        || canonical.ends_with("embed_tokens.embed_scale")
        || canonical.ends_with("embeddings.position_ids")
        || canonical.starts_with("vision.head.")
}

/// The types a model is to be stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Types {
    /// Weight matrices of the text model.
    pub matrix: DType,
    /// Embedding and head.
    pub embed: DType,
    /// Weight matrices of the vision tower.
    pub vision: DType,
}

impl Types {
    /// How a tensor of `role` with rows of `cols` weights is stored. A row that is not whole
    /// blocks stays f16.
    pub(crate) fn target(self, role: Role, cols: u64) -> DType {
        let wanted = match role {
            Role::Embedding | Role::Head => self.embed,
            Role::Matrix => self.matrix,
            Role::Norm | Role::HeadNorm | Role::Vector | Role::VisionF32 => DType::F32,
            Role::VisionMatrix => self.vision,
            Role::Projection if self.vision == DType::F32 => DType::F32,
            Role::Projection => DType::F16,
        };
        if cols.is_multiple_of(wanted.block_len() as u64) { wanted } else { DType::F16 }
    }

    /// Was f16 asked for, for a matrix of this role?
    pub(crate) fn asks_for_f16(self, role: Role) -> bool {
        let asked = match role {
            Role::Matrix => self.matrix,
            Role::VisionMatrix => self.vision,
            _ => self.embed,
        };
        asked == DType::F16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_published_root_leads_to_the_table() {
        for (name, expected) in [
            ("model.embed_tokens.weight", "text.embed_tokens.weight"),
            ("embed_tokens.weight", "text.embed_tokens.weight"),
            ("language_model.model.norm.weight", "text.norm.weight"),
            ("model.language_model.norm.weight", "text.norm.weight"),
            ("lm_head.weight", "head.weight"),
            ("language_model.lm_head.weight", "head.weight"),
            ("vision_tower.vision_model.post_layernorm.bias", "vision.post_layernorm.bias"),
            ("model.vision_tower.vision_model.post_layernorm.bias", "vision.post_layernorm.bias"),
            ("model.vision_tower.post_layernorm.bias", "vision.post_layernorm.bias"),
            (
                "model.multi_modal_projector.mm_soft_emb_norm.weight",
                "projector.mm_soft_emb_norm.weight",
            ),
        ] {
            assert_eq!(canonical(name), expected);
        }
    }

    #[test]
    fn rows_that_are_not_whole_blocks_stay_f16() {
        let q4 = Types { matrix: DType::Q4_0, embed: DType::Q8_0, vision: DType::F16 };
        assert_eq!(q4.target(Role::Matrix, 1152), DType::Q4_0);
        assert_eq!(q4.target(Role::Matrix, 4304), DType::F16);
        assert_eq!(q4.target(Role::Embedding, 640), DType::Q8_0);
        assert_eq!(q4.target(Role::Norm, 33), DType::F32);
        assert_eq!(q4.target(Role::VisionMatrix, 1152), DType::F16);
        let q8 = Types { vision: DType::Q8_0, ..q4 };
        assert_eq!(q8.target(Role::VisionMatrix, 1152), DType::Q8_0);
        assert_eq!(q8.target(Role::VisionMatrix, 4304), DType::F16);
        assert_eq!(q8.target(Role::Projection, 2560), DType::F16);
        let f32 = Types { matrix: DType::F32, embed: DType::F32, vision: DType::F32 };
        assert_eq!(f32.target(Role::Matrix, 33), DType::F32);
        assert_eq!(f32.target(Role::Projection, 33), DType::F32);
    }

    #[test]
    fn no_name_stands_twice() {
        let all: Vec<_> = TEXT.iter().chain(VISION).chain([&HEAD]).collect();
        for (i, a) in all.iter().enumerate() {
            for b in &all[..i] {
                assert!(a.source != b.source && a.target != b.target);
            }
        }
    }
}
