//! What can go wrong on a GPU.

/// A GPU that can't be used, or that failed at work.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages are the documentation of their fields
pub enum GpuError {
    #[error(
        "no GPU was found that Vulkan, Metal or DirectX 12 can use; run on the CPU with --device cpu"
    )]
    NoAdapter,
    #[error("no GPU is called {asked:?}; there are {found}")]
    Unknown { asked: String, found: String },
    #[error("{device} could not be opened: {why}; run on the CPU with --device cpu")]
    Open { device: String, why: String },
    #[error(
        "{device} has not enough memory for {what}; put fewer layers on it with --gpu-layers, choose a smaller --ctx, or run with --device cpu"
    )]
    Memory { device: String, what: String },
    #[error(
        "{what} takes {bytes} bytes, and {device} allows {limit} in one buffer; choose a smaller --ctx, or run with --device cpu"
    )]
    Limit { device: String, what: &'static str, bytes: u64, limit: u64 },
    #[error("{device} does not run {what}: {why}; run on the CPU with --device cpu")]
    Unsupported { device: String, what: &'static str, why: String },
    #[error(
        "LAPIDARY_GPU_FEATURES asks for {word:?} of {device}: {why}; use some of subgroup, dot4, f16 and matrix, or plain, or leave it unset"
    )]
    Feature { device: String, word: String, why: String },
    #[error("{device} failed: {why}; run on the CPU with --device cpu")]
    Failed { device: String, why: String },
    #[error("{device} was lost ({why}); start again, or run on the CPU with --device cpu")]
    Lost { device: String, why: String },
}
