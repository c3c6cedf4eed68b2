//! The seam between the architecture and the machine.

use crate::weights::{Layer, WeightMatrix};

/// The operations a Gemma forward pass is made of, over buffers that the backend owns. `n` is the
/// number of rows in the batch; the CPU backend runs an operation when it is called (each of its
/// threads calling the same operations in step), a GPU backend may encode it.
///
/// | buffer | shape | holds |
/// |---|---|---|
/// | x | [n, hidden] | the residual stream, f32 |
/// | h | [n, hidden] | x normed, as the next matmuls want it (f32, int8 blocks) |
/// | q, k, v | [n, heads · head_dim], [n, kv_heads · head_dim] ×2 | projections |
/// | a | [n, heads · head_dim] | attention's output |
/// | o | [n, hidden] | output of attention's or the MLP's last projection |
/// | g | [n, ffn] | GELU(gate) · up |
pub trait Backend {
    /// x = embedding of each token · √hidden; the features themselves where an image's rows are;
    /// what the layers before left, where another backend did those.
    fn embed(&mut self);
    /// All of a layer, from x to o, if the backend does that at once: the operations up to `down` are then
    /// not asked for.
    fn whole_layer(&mut self, _layer: &Layer) -> bool {
        false
    }
    /// h = RMSNorm(x) · `weight`, in the forms that the matrices in `readers` multiply with.
    fn norm(&mut self, weight: &[f32], readers: &[&WeightMatrix]);
    /// q, k, v = h · Wqᵀ, h · Wkᵀ, h · Wvᵀ.
    fn qkv(&mut self, layer: &Layer);
    /// Norm per head (where the model has it) and RoPE for q and k; q scaled; k and v into the cache.
    fn rope_store(&mut self, layer: &Layer);
    /// From here on, only rows whose logits are wanted: the last layer has stored its keys.
    fn keep_wanted(&mut self);
    /// a = softmax(q · Kᵀ) · V over what each row may see: [`Batch::sees_to`](crate::Batch::sees_to).
    fn attend(&mut self, layer: &Layer);
    /// o = a · Woᵀ.
    fn attn_out(&mut self, layer: &Layer);
    /// x += RMSNorm(o) · `post`.
    fn residual(&mut self, post: &[f32]);
    /// g = GELU(h · Wgateᵀ) · (h · Wupᵀ).
    fn gate_up(&mut self, layer: &Layer);
    /// o = g · Wdownᵀ.
    fn down(&mut self, layer: &Layer);
    /// x is what it is after `depth` layers (0: the embeddings). For backends that can be asked to
    /// keep a copy; costs nothing otherwise.
    fn tap(&mut self, _depth: usize) {}
    /// logits = softcap(RMSNorm(x) · `norm` · Wheadᵀ) of the wanted rows.
    fn head(&mut self, norm: &[f32]);
}
