//! Adapters: what could be used.

use std::path::PathBuf;
use std::sync::Arc;

use pollster::block_on;

use super::device::Device;
use super::error::GpuError;

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

    /// Smallest and largest subgroup.
    pub fn subgroups(&self) -> (u32, u32) {
        (self.info.subgroup_min_size, self.info.subgroup_max_size)
    }

    /// Has it arithmetic in half precision?
    pub fn has_f16(&self) -> bool {
        self.adapter.features().contains(wgpu::Features::SHADER_F16)
    }

    /// Can compiled pipelines be kept from run to run?
    pub fn keeps_pipelines(&self) -> bool {
        self.adapter.features().contains(wgpu::Features::PIPELINE_CACHE)
            && wgpu::util::pipeline_cache_key(&self.info).is_some()
    }

    /// Bytes that one binding and one buffer can have.
    pub fn limits(&self) -> (u64, u64) {
        let limits = self.adapter.limits();
        (limits.max_storage_buffer_binding_size, limits.max_buffer_size)
    }

    /// Bytes of its own memory, as far as the driver says.
    pub fn memory(&self) -> Option<u64> {
        heap(&self.adapter)
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
    /// [`GpuError::Open`], or [`GpuError::Unsupported`] where its limits are below WebGPU's.
    pub fn open(&self, options: &DeviceOptions) -> Result<Arc<Device>, GpuError> {
        let name = self.info.name.clone();
        let limits = self.adapter.limits();
        let least = wgpu::Limits::default();
        let features = self.adapter.features() & wgpu::Features::PIPELINE_CACHE;
        if limits.max_storage_buffers_per_shader_stage < 8
            || limits.max_compute_invocations_per_workgroup < 256
            || limits.max_compute_workgroup_storage_size < least.max_compute_workgroup_storage_size
        {
            let why = "its limits are below those of WebGPU".to_owned();
            return Err(GpuError::Unsupported { device: name, what: "compute shaders", why });
        }
        let opened = block_on(self.adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("lapidary"),
            required_features: features,
            required_limits: limits.clone(),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        }));
        let (device, queue) =
            opened.map_err(|e| GpuError::Open { device: name.clone(), why: e.to_string() })?;
        let bytes = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let max_binding = options.max_binding.unwrap_or(bytes).min(bytes);
        let memory = options.memory.or_else(|| self.memory());
        let kept = options
            .pipelines
            .as_ref()
            .filter(|_| features.contains(wgpu::Features::PIPELINE_CACHE))
            .zip(wgpu::util::pipeline_cache_key(&self.info))
            .map(|(folder, file)| folder.join(file));
        let device = Device::new(name, self.is_real(), memory, max_binding, device, queue);
        Ok(Arc::new(device.keeping(kept)))
    }
}

/// The largest heap that Vulkan calls local to the device.
#[cfg(not(target_vendor = "apple"))]
fn heap(adapter: &wgpu::Adapter) -> Option<u64> {
    // SAFETY: the handle is only asked for properties, and dropped with this function.
    let vulkan = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let (instance, device) =
        (vulkan.shared_instance().raw_instance(), vulkan.raw_physical_device());
    // SAFETY: the device was enumerated from this instance, and both live as long as `vulkan`.
    let memory = unsafe { instance.get_physical_device_memory_properties(device) };
    const LOCAL: u32 = 1; // VK_MEMORY_HEAP_DEVICE_LOCAL_BIT
    let heaps = &memory.memory_heaps[..memory.memory_heap_count as usize];
    heaps.iter().filter(|h| h.flags.as_raw() & LOCAL != 0).map(|h| h.size).max()
}

/// Metal does not say through wgpu.
#[cfg(target_vendor = "apple")]
fn heap(_adapter: &wgpu::Adapter) -> Option<u64> {
    None
}
