//! The Gemma forward pass (Gemma 3 report, arXiv:2503.19786; Gemma 2, arXiv:2408.00118).
//!
//! Both put an RMSNorm before and after attention and before and after the MLP. What else differs
//! between them is data: [`GemmaConfig`](crate::config::GemmaConfig) and the layer's own config.

use std::ops::Range;

use crate::backend::Backend;
use crate::weights::{Layer, Weights};

/// Takes a batch, which the backend holds, from tokens to logits.
pub fn forward<B: Backend>(b: &mut B, w: &Weights) {
    forward_part(b, w, 0..w.layers.len());
}

/// As [`forward`], through some of the layers only: another backend does those before or after.
/// The head comes with the last layer.
pub fn forward_part<B: Backend>(b: &mut B, w: &Weights, layers: Range<usize>) {
    b.embed(); //                              x [n, hidden]
    b.tap(layers.start);
    for layer in &w.layers[layers.clone()] {
        if !b.whole_layer(layer) {
            let last = layer.index + 1 == w.layers.len();
            step_by_step(b, layer, last);
        }
        b.residual(&layer.post_ffn_norm); //   x [n, hidden]
        b.tap(layer.index + 1);
    }
    if layers.end == w.layers.len() {
        b.head(&w.output_norm); //             logits [wanted, vocab]
    }
}

/// A layer from x to o.
fn step_by_step<B: Backend>(b: &mut B, layer: &Layer, last: bool) {
    b.norm(&layer.attn_norm, &[&layer.q, &layer.k, &layer.v]); // h [n, hidden]
    b.qkv(layer); //                           q [n, heads, head_dim]  k, v [n, kv_heads, head_dim]
    b.rope_store(layer); //                    k, v → cache
    if last {
        b.keep_wanted(); //                    n becomes the number of rows with logits
    }
    b.attend(layer); //                        a [n, heads, head_dim]
    b.attn_out(layer); //                      o [n, hidden]
    b.residual(&layer.post_attn_norm); //      x [n, hidden]

    b.norm(&layer.ffn_norm, &[&layer.gate, &layer.up]); // h [n, hidden]
    b.gate_up(layer); //                       g [n, ffn]
    b.down(layer); //                          o [n, hidden]
}
