//! The likeliest tokens of a vocabulary.

use crate::compose::{Access, Kernel, Parts};
use crate::params::Top as TopParams;

/// The best k items of each slice of many: once over the logits, then over what that found, until
/// one slice holds all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Top {
    /// Logits; their indices are the ids.
    Logits,
    /// Pairs of key and id.
    Again,
}

impl Top {
    /// Items of a workgroup.
    pub const SLICE: usize = 4096;
    /// The largest k, so that each time over leaves a sixteenth.
    pub const MOST: usize = 256;
    /// Ids are below this.
    pub const IDS: usize = (1 << 24) - 1;

    /// One workgroup for each [`Top::SLICE`] of items.
    pub fn kernel(self) -> Kernel {
        let (name, x, load) = match self {
            Top::Logits => ("logits", "array<u32>", include_str!("../wgsl/top_logits.wgsl")),
            Top::Again => ("again", "array<vec2<u32>>", include_str!("../wgsl/top_again.wgsl")),
        };
        Parts::new("top")
            .u32("SLICE", Self::SLICE)
            .definition(TopParams::WGSL)
            .bind("p", Access::Uniform, "Top")
            .bind("x", Access::Read, x)
            .bind("best", Access::Write, "array<vec2<u32>>")
            .snippet(name, load)
            .kernel(include_str!("../wgsl/top.wgsl"))
    }

    /// The logit that a key of [`Top::Logits`] stands for; `None` for a place left empty.
    pub fn logit(key: u32) -> Option<f32> {
        let bits = if key >= 1 << 31 { key ^ (1 << 31) } else { !key };
        (key != 0).then_some(f32::from_bits(bits))
    }
}
