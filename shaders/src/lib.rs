//! WGSL compute shaders and their parameter structs. Knows no GPU API.
//!
//! The shaders are the files in `wgsl/`. A [`Kernel`] is one of them with what it is specialised
//! for put in front: constants, the structs of [`params`], the declarations of its bindings and
//! the snippets it shares with others. `tests/` has naga check every kernel, and compares the
//! structs' layouts with those that WGSL gives them.

mod attention;
mod compose;
mod format;
mod kernels;
mod layer;
mod matmul;
pub mod params;
mod reduce;
mod top;
mod tower;

pub use attention::{Attention, MAX_PARTS, merge};
pub use compose::{Access, Binding, Kernel, Needs};
pub use format::{CacheFormat, Format};
pub use kernels::{Normed, Rope, argmax, argmax_last, copy, embed, gather, norm};
pub use layer::{LayerMatrix, Messages, WholeLayer};
pub use matmul::{Few, Many, Matmul, Output, Prepare};
pub use reduce::Reduce;
pub use top::Top;
pub use tower::{Finish, layer_norm};

/// Weights per row are padded with zeros to a multiple of this many, and so are the rows of
/// activations.
pub const COLS_PAD: usize = 32;

/// Features of a head are padded with zeros to a multiple of this many in the cache.
pub const HEAD_PAD: usize = 8;
