//! Compiled kernels, each made once a device.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use shaders::{Access, Kernel};

use super::device::Device;
use super::kept::Kept;
use super::region::Bound;

/// A kernel, compiled.
#[derive(Clone, Debug)]
pub(crate) struct Compiled {
    pub(crate) pipeline: wgpu::ComputePipeline,
    /// Its file and its constants.
    pub(crate) name: Arc<str>,
}

/// The pipelines and bind group layouts of a device.
#[derive(Default)]
pub(crate) struct Pipelines {
    pipelines: Mutex<HashMap<Arc<str>, Compiled>>,
    layouts: Mutex<HashMap<Vec<Access>, wgpu::BindGroupLayout>>,
    /// From run to run, where that is possible and wanted.
    pub(super) kept: Option<Kept>,
    /// Compiled since they were last kept.
    fresh: AtomicBool,
}

impl Device {
    /// Writes what was compiled where the next run finds it.
    pub(super) fn keep_pipelines(&self) {
        if let Some(kept) = &self.pipelines.kept
            && self.pipelines.fresh.swap(false, Ordering::Relaxed)
        {
            kept.save();
        }
    }

    /// The layout of a kernel's buffers.
    pub(crate) fn layout(&self, kernel: &Kernel) -> wgpu::BindGroupLayout {
        let accesses: Vec<Access> = kernel.bindings.iter().map(|b| b.access).collect();
        let mut layouts = self.pipelines.layouts.lock().unwrap_or_else(|e| e.into_inner());
        let make = |accesses: &Vec<Access>| {
            let entries: Vec<_> = accesses.iter().enumerate().map(entry).collect();
            self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: None,
                entries: &entries,
            })
        };
        layouts.entry(accesses).or_insert_with_key(make).clone()
    }

    /// The buffers of a kernel, in the order of its bindings.
    pub(crate) fn group(&self, kernel: &Kernel, buffers: &[&dyn Bound]) -> wgpu::BindGroup {
        assert_eq!(kernel.bindings.len(), buffers.len(), "{}", kernel.name);
        let entries: Vec<_> = buffers
            .iter()
            .enumerate()
            .map(|(i, b)| wgpu::BindGroupEntry {
                binding: i as u32,
                resource: wgpu::BindingResource::Buffer(b.binding()),
            })
            .collect();
        self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&kernel.name),
            layout: &self.layout(kernel),
            entries: &entries,
        })
    }

    /// A kernel, compiled.
    pub(crate) fn pipeline(&self, kernel: &Kernel) -> Compiled {
        let pipelines = &self.pipelines.pipelines;
        let found = pipelines.lock().unwrap_or_else(|e| e.into_inner()).get(&*kernel.name).cloned();
        found.unwrap_or_else(|| {
            let name: Arc<str> = kernel.name.as_str().into();
            let made = Compiled { pipeline: self.compile(kernel), name: name.clone() };
            let mut all = pipelines.lock().unwrap_or_else(|e| e.into_inner());
            all.entry(name).or_insert(made).clone()
        })
    }

    fn compile(&self, kernel: &Kernel) -> wgpu::ComputePipeline {
        self.pipelines.fresh.store(true, Ordering::Relaxed);
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(&kernel.name),
            source: wgpu::ShaderSource::Wgsl(kernel.source.as_str().into()),
        };
        // Loops are bounded by constants, by a matrix's shape or by a row's position; the counters
        // that wgpu would add to each hinder a driver's compiler from unrolling. Bounds of buffers
        // are still checked.
        //
        // Under Vulkan, bounds of buffers are the driver's to check (wgpu asks it to, always), so that
        // kernels whose other indices are known to be right need no checks of wgpu's.
        let unchecked =
            kernel.in_bounds && self.device.adapter_info().backend == wgpu::Backend::Vulkan;
        let checks = wgpu::ShaderRuntimeChecks {
            force_loop_bounding: false,
            bounds_checks: !unchecked,
            int_div_checks: !unchecked,
            ..Default::default()
        };
        // SAFETY: the text comes from the `shaders` crate alone. Every loop there counts
        // towards a bound that does not change in the loop, so none is infinite. Where indices
        // are not checked (`Kernel::in_bounds`), workgroup memory is indexed by places of invocations,
        // heads and features, which the constants that its sizes are made of bound, and nothing is
        // divided but by sizes of subgroups, slots and parts, of which there is one at least.
        let module = unsafe { self.device.create_shader_module_trusted(descriptor, checks) };
        let layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&self.layout(kernel))],
            immediate_size: 0,
        });
        self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&kernel.name),
            layout: Some(&layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: self.pipelines.kept.as_ref().map(|kept| &kept.cache),
        })
    }
}

fn entry((i, access): (usize, &Access)) -> wgpu::BindGroupLayoutEntry {
    let ty = match access {
        Access::Uniform => wgpu::BufferBindingType::Uniform,
        Access::Read => wgpu::BufferBindingType::Storage { read_only: true },
        Access::Write => wgpu::BufferBindingType::Storage { read_only: false },
    };
    wgpu::BindGroupLayoutEntry {
        binding: i as u32,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    }
}
