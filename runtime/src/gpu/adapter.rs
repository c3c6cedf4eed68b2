//! Adapters: what could be used.

use std::path::PathBuf;
use std::sync::Arc;

use pollster::block_on;

use super::device::Device;
use super::driver;
use super::error::GpuError;
use super::features::{Features, Offers, VARIABLE};

/// Intel, where PCI devices say who made them.
const INTEL: u32 = 0x8086;

/// A GPU (or a program that plays one) that could be used.
pub struct Adapter {
    adapter: wgpu::Adapter,
    info: wgpu::AdapterInfo,
}

/// Every adapter of this machine's Vulkan, Metal and DirectX 12 drivers, real ones first.
pub fn adapters() -> Vec<Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    descriptor.flags = wgpu::InstanceFlags::empty();
    let instance = wgpu::Instance::new(descriptor);
    let mut found: Vec<_> = block_on(instance.enumerate_adapters(wgpu::Backends::all()))
        .into_iter()
        .map(|adapter| Adapter { info: adapter.get_info(), adapter })
        .collect();
    found.sort_by_key(|a| a.rank());
    found
}

/// How a device is opened; the defaults are what the adapter can do.
#[derive(Clone, Debug, Default)]
pub struct DeviceOptions {
    /// Bind no more than this many bytes at once: for trying out what small devices do.
    pub max_binding: Option<u64>,
    /// Take it to have this much memory.
    pub memory: Option<u64>,
    /// Keep compiled pipelines in this folder, where the backend can:
    /// [`pipeline_folder`](super::pipeline_folder) is the user's. `None`: compile them each time.
    pub pipelines: Option<PathBuf>,
    /// Use these of what it offers; else what the environment variable `LAPIDARY_GPU_FEATURES`
    /// names; else what is likely to pay.
    pub features: Option<Features>,
    /// Put a pair of timestamps around each dispatch, each then in a pass of its own: for
    /// [`Device::kernel_times`]. It costs some of the speed.
    pub profile: bool,
}

impl Adapter {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// The interface that it is used through.
    pub fn backend(&self) -> &'static str {
        match self.info.backend {
            wgpu::Backend::Vulkan => "Vulkan",
            wgpu::Backend::Metal => "Metal",
            wgpu::Backend::Dx12 => "DirectX 12",
            _ => "another interface",
        }
    }

    /// Which driver, and its version.
    pub fn driver(&self) -> String {
        format!("{} {}", self.info.driver, self.info.driver_info).trim().to_owned()
    }

    /// Is it a piece of hardware, as far as the driver says?
    pub fn is_real(&self) -> bool {
        self.info.device_type != wgpu::DeviceType::Cpu
    }

    /// What kind of a device it is.
    pub fn kind(&self) -> &'static str {
        match self.info.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete GPU",
            wgpu::DeviceType::IntegratedGpu => "integrated GPU",
            wgpu::DeviceType::VirtualGpu => "virtual GPU",
            wgpu::DeviceType::Cpu => "software, on the CPU",
            wgpu::DeviceType::Other => "of an unknown kind",
        }
    }

    /// What it offers beyond WebGPU's least.
    pub fn offers(&self) -> Offers {
        use wgpu::{CooperativeScalarType as Scalar, Features as F};
        let (features, limits) = (self.adapter.features(), self.adapter.limits());
        let sizes = driver::subgroup_sizes(&self.adapter);
        let tiles = match features.contains(F::EXPERIMENTAL_COOPERATIVE_MATRIX) {
            true => self.adapter.cooperative_matrix_properties(),
            false => Vec::new(),
        };
        let square = |t: &&wgpu::CooperativeMatrixProperties| {
            t.m_size == t.n_size && t.n_size == t.k_size && [8, 16].contains(&t.m_size)
        };
        let widening = |t: &&wgpu::CooperativeMatrixProperties| {
            (t.ab_type, t.cr_type) == (Scalar::F16, Scalar::F32)
        };
        let mut matrices: Vec<_> =
            tiles.iter().filter(square).filter(widening).map(|t| t.m_size).collect();
        matrices.sort_unstable();
        matrices.dedup();
        Offers {
            subgroups: features.contains(F::SUBGROUP).then_some(sizes),
            f16: features.contains(F::SHADER_F16),
            dot4: driver::multiplies_bytes(&self.adapter),
            messages: self.info.backend != wgpu::Backend::Dx12,
            matrices,
            invocations: limits.max_compute_invocations_per_workgroup,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            few_registers: self.info.vendor == INTEL,
            real: self.is_real(),
        }
    }

    /// What of that is used: what `LAPIDARY_GPU_FEATURES` names, or else what is likely to pay.
    ///
    /// # Errors
    /// [`GpuError::Feature`] where that names what is not there.
    pub fn features(&self) -> Result<Features, GpuError> {
        let offers = self.offers();
        match std::env::var(VARIABLE) {
            Ok(words) => Features::parse(&words, &offers, self.name()),
            Err(_) => Ok(Features::of(&offers)),
        }
    }

    /// Would DirectX 12 offer more with a newer compiler of shaders than the one that is part of Windows? wgpu
    /// takes a `dxcompiler.dll` that is found as Windows finds libraries.
    pub fn wants_compiler(&self) -> bool {
        self.info.backend == wgpu::Backend::Dx12
            && !self.adapter.features().contains(wgpu::Features::SUBGROUP)
    }

    /// Can compiled pipelines be kept from run to run?
    pub fn keeps_pipelines(&self) -> bool {
        self.adapter.features().contains(wgpu::Features::PIPELINE_CACHE)
            && wgpu::util::pipeline_cache_key(&self.info).is_some()
    }

    /// Bytes that one binding and one buffer can have.
    pub fn limits(&self) -> (u64, u64) {
        let limits = self.adapter.limits();
        (self.max_binding(), limits.max_buffer_size)
    }

    /// Bytes that one binding can have. Through Metal wgpu tells shaders the sizes of bindings in 32 bits, so
    /// that what lies beyond is taken for not there (<https://github.com/gfx-rs/wgpu/issues/10305>).
    fn max_binding(&self) -> u64 {
        let stated = self.adapter.limits().max_storage_buffer_binding_size;
        match self.info.backend {
            wgpu::Backend::Metal => stated.min(u64::from(!255u32)),
            _ => stated,
        }
    }

    /// Bytes of its own memory, as far as the driver says.
    pub fn memory(&self) -> Option<u64> {
        driver::memory(&self.adapter)
    }

    /// Real before software, discrete before integrated; one device seen through two interfaces
    /// counts by the interface, Vulkan and Metal first.
    fn rank(&self) -> (u8, u8) {
        let kind = match self.info.device_type {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            wgpu::DeviceType::VirtualGpu => 2,
            wgpu::DeviceType::Other => 3,
            wgpu::DeviceType::Cpu => 4,
        };
        (kind, u8::from(self.info.backend == wgpu::Backend::Dx12))
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`GpuError::Open`], [`GpuError::Unsupported`] where its limits are below WebGPU's, or
    /// [`GpuError::Feature`] where features are asked for that it has not.
    pub fn open(&self, options: &DeviceOptions) -> Result<Arc<Device>, GpuError> {
        let name = self.info.name.clone();
        let limits = self.adapter.limits();
        let least = wgpu::Limits::default();
        if limits.max_storage_buffers_per_shader_stage < 8
            || limits.max_compute_invocations_per_workgroup < 256
            || limits.max_compute_workgroup_storage_size < least.max_compute_workgroup_storage_size
        {
            let why = "its limits are below those of WebGPU".to_owned();
            return Err(GpuError::Unsupported { device: name, what: "compute shaders", why });
        }
        let used = match options.features {
            Some(features) => features,
            None => self.features()?,
        };
        let needs = used.needs();
        let mut features = self.adapter.features() & wgpu::Features::PIPELINE_CACHE;
        if options.profile {
            if !self.adapter.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
                let why = "its driver has none".to_owned();
                return Err(GpuError::Unsupported { device: name, what: "timestamps", why });
            }
            features |= wgpu::Features::TIMESTAMP_QUERY;
        }
        features.set(wgpu::Features::SUBGROUP, needs.subgroups);
        features.set(wgpu::Features::SHADER_F16, needs.f16);
        features.set(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX, needs.matrices);
        let experimental_features = match needs.matrices {
            // SAFETY: the kernels load and store matrices that lie within their own arrays and, in
            // attention, within the cache, in uniform control flow; a device that gets them wrong is
            // found out before they are used (`trial`).
            true => unsafe { wgpu::ExperimentalFeatures::enabled() },
            false => wgpu::ExperimentalFeatures::disabled(),
        };
        let opened = block_on(self.adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("lapidary"),
            required_features: features,
            experimental_features,
            required_limits: limits.clone(),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        }));
        let (device, queue) =
            opened.map_err(|e| GpuError::Open { device: name.clone(), why: e.to_string() })?;
        let bytes = self.max_binding().min(limits.max_buffer_size);
        let max_binding = options.max_binding.unwrap_or(bytes).min(bytes);
        let memory = options.memory.or_else(|| self.memory());
        let kept = options
            .pipelines
            .as_ref()
            .filter(|_| features.contains(wgpu::Features::PIPELINE_CACHE))
            .zip(wgpu::util::pipeline_cache_key(&self.info))
            .map(|(folder, file)| folder.join(file));
        let device = Device::new(name, self.is_real(), memory, used, max_binding, device, queue);
        let device = device.keeping(kept).tried();
        Ok(Arc::new(if options.profile { device.profiled() } else { device }))
    }
}
