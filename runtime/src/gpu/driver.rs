//! What drivers say that wgpu does not pass on: how much memory there is for a model, how large subgroups are,
//! and whether products of bytes have an instruction. wgpu hands out each interface's own object, which is asked here.

use wgpu::hal::api;

/// Bytes of memory that a model can have on the device, as far as its driver says: the largest heap that
/// Vulkan calls local, what DirectX lets this process have at the moment, or what Metal recommends.
pub(super) fn memory(adapter: &wgpu::Adapter) -> Option<u64> {
    match adapter.get_info().backend {
        #[cfg(not(target_vendor = "apple"))]
        wgpu::Backend::Vulkan => heap(adapter),
        #[cfg(windows)]
        wgpu::Backend::Dx12 => budget(adapter),
        #[cfg(target_vendor = "apple")]
        wgpu::Backend::Metal => working_set(adapter),
        _ => None,
    }
}

/// The least and the most invocations of a subgroup, where there are operations across one.
///
/// wgpu says 4 to 64 of all that Metal runs on. On Apple's own chips they are 32, which Dawn and WebKit tell as well.
pub(super) fn subgroup_sizes(adapter: &wgpu::Adapter) -> (u32, u32) {
    #[cfg(target_vendor = "apple")]
    if is_apples(adapter) {
        return (32, 32);
    }
    let info = adapter.get_info();
    (info.subgroup_min_size, info.subgroup_max_size)
}

/// Is there an instruction for products of packed signed bytes, as far as that can be found out?
///
/// Vulkan's drivers say so. DirectX has one from shader model 6.4 on, which wgpu does not tell; but it
/// tells of others that need 6.5 or 6.6, as every device of the last years has one of. naga then writes that
/// instruction. Metal's language has none.
pub(super) fn multiplies_bytes(adapter: &wgpu::Adapter) -> bool {
    use wgpu::Features as F;
    match adapter.get_info().backend {
        #[cfg(not(target_vendor = "apple"))]
        wgpu::Backend::Vulkan => accelerates_bytes(adapter),
        wgpu::Backend::Dx12 => {
            let later = F::EXPERIMENTAL_RAY_QUERY
                | F::EXPERIMENTAL_MESH_SHADER
                | F::SHADER_INT64_ATOMIC_ALL_OPS;
            adapter.features().intersects(later)
        }
        _ => false,
    }
}

/// The largest heap that Vulkan calls local to the device.
#[cfg(not(target_vendor = "apple"))]
fn heap(adapter: &wgpu::Adapter) -> Option<u64> {
    // SAFETY: the handle is only asked for properties, and dropped with this function.
    let vulkan = unsafe { adapter.as_hal::<api::Vulkan>() }?;
    let (instance, device) =
        (vulkan.shared_instance().raw_instance(), vulkan.raw_physical_device());
    // SAFETY: the device was enumerated from this instance, and both live as long as `vulkan`.
    let memory = unsafe { instance.get_physical_device_memory_properties(device) };
    const LOCAL: u32 = 1; // VK_MEMORY_HEAP_DEVICE_LOCAL_BIT
    let heaps = &memory.memory_heaps[..memory.memory_heap_count as usize];
    heaps.iter().filter(|h| h.flags.as_raw() & LOCAL != 0).map(|h| h.size).max()
}

/// `integerDotProduct4x8BitPackedSignedAccelerated`.
#[cfg(not(target_vendor = "apple"))]
fn accelerates_bytes(adapter: &wgpu::Adapter) -> bool {
    use ash::vk;
    // SAFETY: the handle is only asked for properties, and dropped with this function.
    let Some(vulkan) = (unsafe { adapter.as_hal::<api::Vulkan>() }) else {
        return false;
    };
    let known = vulkan.physical_device_capabilities();
    let version = known.properties().api_version;
    let has = version >= vk::API_VERSION_1_3
        || known.supports_extension(ash::khr::shader_integer_dot_product::NAME);
    let instance = vulkan.shared_instance();
    if !has
        || version < vk::API_VERSION_1_1
        || instance.instance_api_version() < vk::API_VERSION_1_1
    {
        return false;
    }
    let mut dot = vk::PhysicalDeviceShaderIntegerDotProductProperties::default();
    let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut dot);
    // SAFETY: the device was enumerated from this instance, both live as long as `vulkan`, and the
    // device knows the structure that is chained.
    unsafe {
        instance
            .raw_instance()
            .get_physical_device_properties2(vulkan.raw_physical_device(), &mut properties);
    }
    dot.integer_dot_product4x8_bit_packed_signed_accelerated != 0
}

/// What Windows lets this process have of the memory that is local to the device: its own, or for a
/// device without any its part of the computer's.
#[cfg(windows)]
fn budget(adapter: &wgpu::Adapter) -> Option<u64> {
    use windows::Win32::Graphics::Dxgi::{
        DXGI_MEMORY_SEGMENT_GROUP_LOCAL, DXGI_QUERY_VIDEO_MEMORY_INFO,
    };
    // SAFETY: the handle is only asked for properties, and dropped with this function.
    let dx12 = unsafe { adapter.as_hal::<api::Dx12>() }?;
    let mut info = DXGI_QUERY_VIDEO_MEMORY_INFO::default();
    // SAFETY: `info` is a structure of the kind that is written to, and outlives the call.
    let asked = unsafe {
        dx12.as_raw().QueryVideoMemoryInfo(0, DXGI_MEMORY_SEGMENT_GROUP_LOCAL, &mut info)
    };
    asked.ok().map(|()| info.Budget).filter(|&bytes| bytes > 0)
}

/// Is it one of Apple's own GPUs, of those that have operations across subgroups (M1 and later)?
#[cfg(target_vendor = "apple")]
fn is_apples(adapter: &wgpu::Adapter) -> bool {
    use objc2_metal::{MTLDevice, MTLGPUFamily};
    // SAFETY: the handle is only asked for properties, and dropped with this function.
    let metal = unsafe { adapter.as_hal::<api::Metal>() };
    metal.is_some_and(|metal| metal.raw_device().supportsFamily(MTLGPUFamily::Apple7))
}

/// What Metal says can be kept on the device without a loss of speed: on Apple's own chips about two thirds
/// to three quarters of the computer's memory.
#[cfg(target_vendor = "apple")]
fn working_set(adapter: &wgpu::Adapter) -> Option<u64> {
    use objc2_metal::MTLDevice;
    // SAFETY: the handle is only asked for properties, and dropped with this function.
    let metal = unsafe { adapter.as_hal::<api::Metal>() }?;
    Some(metal.raw_device().recommendedMaxWorkingSetSize()).filter(|&bytes| bytes > 0)
}
