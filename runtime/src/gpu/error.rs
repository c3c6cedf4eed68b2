//! What can go wrong on a GPU.

use pollster::block_on;

/// A GPU that can't be used, or that failed at work.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages are the documentation of their fields
pub enum GpuError {
    #[error(
        "no GPU was found that Vulkan, Metal or DirectX 12 can use; run on the CPU with --device cpu"
    )]
    NoAdapter,
    #[error("no GPU is called {asked:?}; `lapidary devices` lists {found}")]
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
        "LAPIDARY_GPU_FEATURES asks for {word:?} of {device}: {why}; use some of subgroup, dot4, f16, matrix and layers, or plain, or auto, or leave it unset"
    )]
    Feature { device: String, word: String, why: String },
    #[error("{device} failed: {why}; run on the CPU with --device cpu")]
    Failed { device: String, why: String },
    #[error("{device} was lost ({why}); start again, or run on the CPU with --device cpu")]
    Lost { device: String, why: String },
}

/// What wgpu said of something that failed.
#[derive(Clone, Debug)]
pub(super) struct Caught {
    pub(super) out_of_memory: bool,
    pub(super) why: String,
}

impl Caught {
    /// Does `work`, which asks the device for things in this thread, and says what failed in it: memory
    /// above all, as less of it can be asked for.
    pub(super) fn by<T>(device: &wgpu::Device, work: impl FnOnce() -> T) -> (T, Option<Self>) {
        use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
        let [validation, internal, memory] =
            [Validation, Internal, OutOfMemory].map(|filter| device.push_error_scope(filter));
        let result = work();
        // Scopes are a stack: the last pushed is popped first.
        let memory = block_on(memory.pop());
        let others = [block_on(internal.pop()), block_on(validation.pop())];
        let out_of_memory = memory.is_some();
        let first = memory.into_iter().chain(others.into_iter().flatten()).next();
        (result, first.map(|e| Caught { out_of_memory, why: e.to_string() }))
    }

    /// The error, of a device that was asked for `what`.
    pub(super) fn error(&self, device: &str, what: &str) -> GpuError {
        let device = device.into();
        match self.out_of_memory {
            true => GpuError::Memory { device, what: what.into() },
            false => GpuError::Failed { device, why: format!("{what}: {}", self.why) },
        }
    }
}
