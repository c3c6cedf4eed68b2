//! The tower's shapes, as an mmproj file states them.

use quant::gguf::{Gguf, GgufError};

use crate::config::Keys;
use crate::error::ModelError;

/// Shapes and constants of a vision tower.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    /// Side of the square image in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels; divides `image_size`.
    pub patch_size: usize,
    /// Width of the tower.
    pub hidden: usize,
    /// Width of its MLPs.
    pub ffn: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads; divides `hidden`.
    pub heads: usize,
    /// ε of its norms.
    pub norm_eps: f32,
    /// Features of a row: the text model's width.
    pub projection_dim: usize,
    /// Patches a side that are averaged to one row; divides the patches of a side.
    pub pool: usize,
    /// What is subtracted from pixels of 0..=1, for red, green and blue.
    pub mean: [f32; 3],
    /// What they are divided by then.
    pub std: [f32; 3],
}

impl VisionConfig {
    /// Patches of a side.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Patches of an image.
    pub fn patches(&self) -> usize {
        self.grid() * self.grid()
    }

    /// Rows of features that an image becomes, and positions that it takes in a sequence.
    pub fn tokens(&self) -> usize {
        (self.grid() / self.pool).pow(2)
    }

    /// Features of one head.
    pub fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }

    /// Numbers of an image, `[3, image_size, image_size]`.
    pub fn pixels(&self) -> usize {
        3 * self.image_size * self.image_size
    }

    /// Floating-point operations that one image takes: two for each product, in matrices and in
    /// attention.
    pub fn flops(&self) -> (f64, f64) {
        let layer = 4 * self.hidden * self.hidden + 2 * self.hidden * self.ffn;
        let patch = self.hidden * 3 * self.patch_size * self.patch_size;
        let matrices = (layer * self.layers + patch) as f64 * self.patches() as f64;
        let projection = (self.tokens() * self.hidden * self.projection_dim) as f64;
        let attention = 2.0 * (self.layers * self.hidden) as f64 * (self.patches() as f64).powi(2);
        (2.0 * (matrices + projection), 2.0 * attention)
    }

    /// Reads the configuration from a file's metadata.
    ///
    /// # Errors
    /// [`ModelError`] for a file that holds no Gemma 3 tower, a missing key, or a value that no
    /// tower can have.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, ModelError> {
        is_gemma3(gguf)?;
        let keys = Keys { gguf, prefix: "clip.vision" };
        let image_size = keys.size("image_size")?;
        // Its square must not overflow; no tower comes near.
        if image_size > 1 << 14 {
            return Err(keys.bad("image_size", image_size, "must be at most 16384"));
        }
        let patch_size = keys.size("patch_size")?;
        if !image_size.is_multiple_of(patch_size) {
            return Err(keys.bad("patch_size", patch_size, "must divide image_size"));
        }
        let pool = keys.size_or("projector.scale_factor", 4)?;
        if !(image_size / patch_size).is_multiple_of(pool) {
            let why = "must divide the patches of a side";
            return Err(keys.bad("projector.scale_factor", pool, why));
        }
        let layers = keys.size("block_count")?;
        // Every layer has tensors in the file: a larger number can't be meant.
        if layers > gguf.tensors().len() {
            return Err(keys.bad("block_count", layers, "more layers than tensors in the file"));
        }
        let hidden = keys.size("embedding_length")?;
        let heads = keys.size("attention.head_count")?;
        if !hidden.is_multiple_of(heads) {
            return Err(keys.bad("attention.head_count", heads, "must divide embedding_length"));
        }
        // Products of a longer head might overflow 32 bits; no tower's is longer than 128.
        if hidden / heads > 4096 {
            return Err(keys.bad(
                "attention.head_count",
                heads,
                "a head of more than 4096 features",
            ));
        }
        Ok(VisionConfig {
            image_size,
            patch_size,
            hidden,
            ffn: keys.size("feed_forward_length")?,
            layers,
            heads,
            norm_eps: keys.positive("attention.layer_norm_epsilon")?.unwrap_or(1e-6),
            projection_dim: keys.size("projection_dim")?,
            pool,
            mean: channels(&keys, "image_mean", false)?,
            std: channels(&keys, "image_std", true)?,
        })
    }
}

/// Refuses files that are for something else.
fn is_gemma3(gguf: &Gguf<'_>) -> Result<(), ModelError> {
    let projector = match gguf.str("clip.projector_type")? {
        None => gguf.str("clip.vision.projector_type")?,
        found => found,
    };
    for (key, found, wanted) in [
        ("general.architecture", gguf.str("general.architecture")?, "clip"),
        ("clip.projector_type", projector, "gemma3"),
    ] {
        if found != Some(wanted) {
            let found = found.unwrap_or("not stated").into();
            return Err(ModelError::Projector { key, found });
        }
    }
    Ok(())
}

/// One number for each channel; 0.5 where the file says nothing.
fn channels(keys: &Keys<'_>, name: &str, positive: bool) -> Result<[f32; 3], ModelError> {
    let key = keys.key(name);
    let Some(array) = keys.gguf.array(&key)? else { return Ok([0.5; 3]) };
    let wrong = || GgufError::KeyType {
        key,
        expected: "three numbers",
        found: format!("{} of something", array.len()),
    };
    let list: Option<Vec<f32>> = array.iter().take(4).map(|v| v.as_f32()).collect();
    let values: [f32; 3] = list.and_then(|list| list.try_into().ok()).ok_or_else(wrong)?;
    match values.into_iter().find(|v| !v.is_finite() || positive && *v <= 0.0) {
        Some(v) => Err(keys.bad(name, v, "no pixel can be normalized with it")),
        None => Ok(values),
    }
}
