//! Compiled kernels, each made once a device, by threads that do nothing else: while weights are on their
//! way to the device, and several at a time.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::available_parallelism;

use rayon::{ThreadPool, ThreadPoolBuilder};
use shaders::{Access, Kernel};

use super::device::Device;
use super::error::{Caught, GpuError};
use super::kept::Kept;
use super::ops::Grid;
use super::region::Bound;

/// A kernel, compiled or about to be.
#[derive(Clone, Debug)]
pub(crate) struct Compiled {
    /// Its file and its constants.
    pub(crate) name: Arc<str>,
    made: Arc<OnceLock<Result<wgpu::ComputePipeline, Caught>>>,
}

impl Compiled {
    /// The pipeline once it is there, or why there will be none.
    pub(super) fn wait(&self) -> Result<&wgpu::ComputePipeline, &Caught> {
        self.made.wait().as_ref()
    }
}

/// The pipelines and bind group layouts of a device.
#[derive(Default)]
pub(crate) struct Pipelines {
    pipelines: Mutex<HashMap<Arc<str>, Compiled>>,
    layouts: Mutex<HashMap<Vec<Access>, wgpu::BindGroupLayout>>,
    /// Asked for since somebody last waited for all of them ([`Device::all_compiled`]).
    awaited: Mutex<Vec<Compiled>>,
    compilers: OnceLock<Option<ThreadPool>>,
    /// From run to run, where that is possible and wanted.
    pub(super) kept: Option<Kept>,
    /// Compiled since they were last kept.
    fresh: Arc<AtomicBool>,
    /// Nothing is needed any more.
    gone: Arc<AtomicBool>,
}

/// Nobody compiles any more when a device goes: a driver may be unloaded after it.
impl Drop for Pipelines {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
        let all = self.pipelines.get_mut().unwrap_or_else(|e| e.into_inner());
        for compiled in all.values() {
            let _ = compiled.wait();
        }
    }
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
        let mut layouts = lock(&self.pipelines.layouts);
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

    /// Has a kernel compiled, if it is not yet. Who uses it waits until it is, and
    /// [`Device::all_compiled`] does.
    pub(crate) fn pipeline(&self, kernel: &Kernel) -> Compiled {
        let (compiled, is_new) = self.ask(kernel);
        if is_new {
            lock(&self.pipelines.awaited).push(compiled.clone());
        }
        compiled
    }

    /// As [`Device::pipeline`], for a kernel that there is something in place of: nothing waits for it but
    /// who asked.
    pub(super) fn pipeline_or_not(&self, kernel: &Kernel) -> Compiled {
        self.ask(kernel).0
    }

    /// Waits until all kernels that were asked for are compiled.
    ///
    /// # Errors
    /// That of the first one that is not, which was asked for `what`.
    pub(super) fn all_compiled(&self, what: &str) -> Result<(), GpuError> {
        let asked = std::mem::take(&mut *lock(&self.pipelines.awaited));
        let refused = asked.iter().filter_map(|compiled| compiled.wait().err()).next();
        refused.map_or(Ok(()), |caught| Err(caught.error(self.name(), what)))
    }

    /// Dispatches a kernel. Where it can't be compiled nothing happens, and the next one who asks the device
    /// whether something failed ([`Device::guarded`]) learns that.
    pub(crate) fn dispatch(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        compiled: &Compiled,
        group: &wgpu::BindGroup,
        grid: Grid,
    ) {
        match compiled.wait() {
            Ok(pipeline) => {
                pass.set_pipeline(pipeline);
                pass.set_bind_group(0, group, &[]);
                pass.dispatch_workgroups(grid[0], grid[1], grid[2]);
            }
            Err(caught) => self.note(caught.why.clone()),
        }
    }

    /// A kernel, and whether nobody had asked for it before.
    fn ask(&self, kernel: &Kernel) -> (Compiled, bool) {
        let mut all = lock(&self.pipelines.pipelines);
        // What there was no memory for may find some now, with fewer layers on the device.
        let lasts = |found: &&Compiled| {
            !matches!(found.made.get(), Some(Err(Caught { out_of_memory: true, .. })))
        };
        if let Some(found) = all.get(&*kernel.name).filter(lasts) {
            return (found.clone(), false);
        }
        let job = Job {
            device: self.device.clone(),
            layout: self.layout(kernel),
            cache: self.pipelines.kept.as_ref().map(|kept| kept.cache.clone()),
            fresh: self.pipelines.fresh.clone(),
            gone: self.pipelines.gone.clone(),
            kernel: kernel.clone(),
        };
        let name: Arc<str> = kernel.name.as_str().into();
        let compiled = Compiled { name: name.clone(), made: Arc::default() };
        all.insert(name, compiled.clone());
        drop(all);
        let made = compiled.made.clone();
        let work = move || drop(made.set(job.done()));
        match self.compilers() {
            Some(pool) => pool.spawn_fifo(work),
            None => work(),
        }
        (compiled, true)
    }

    /// Threads that compile for this device; nobody where none can be had.
    fn compilers(&self) -> Option<&ThreadPool> {
        /// A compiler takes its share of memory, and no session has many more kernels.
        const MOST: usize = 8;
        // Objects of dxcompiler.dll must not be used by two threads at the same time, and devices that
        // wgpu found together share one.
        static DXC: OnceLock<Option<ThreadPool>> = OnceLock::new();
        let made = |threads| {
            let named = |i| format!("shaders {i}");
            ThreadPoolBuilder::new().num_threads(threads).thread_name(named).build().ok()
        };
        let is_dxc = self.device.adapter_info().backend == wgpu::Backend::Dx12
            && self.device.features().contains(wgpu::Features::SUBGROUP);
        let pool = match is_dxc {
            true => DXC.get_or_init(|| made(1)),
            false => self
                .pipelines
                .compilers
                .get_or_init(|| made(available_parallelism().map_or(1, |n| n.get().min(MOST)))),
        };
        pool.as_ref()
    }
}

/// A kernel to be compiled.
struct Job {
    device: wgpu::Device,
    layout: wgpu::BindGroupLayout,
    cache: Option<wgpu::PipelineCache>,
    fresh: Arc<AtomicBool>,
    gone: Arc<AtomicBool>,
    kernel: Kernel,
}

impl Job {
    /// The pipeline. Whatever happens there is an answer, as somebody waits for it.
    fn done(self) -> Result<wgpu::ComputePipeline, Caught> {
        let not = |why| Caught { out_of_memory: false, why };
        if self.gone.load(Ordering::Relaxed) {
            return Err(not("nobody waits for it".into()));
        }
        let compile = AssertUnwindSafe(|| Caught::by(&self.device, || self.compile()));
        let (made, caught) = catch_unwind(compile)
            .map_err(|_| not(format!("compiling {} ended in a panic", self.kernel.name)))?;
        self.fresh.store(true, Ordering::Relaxed);
        caught.map_or(Ok(made), Err)
    }

    fn compile(&self) -> wgpu::ComputePipeline {
        let (device, kernel) = (&self.device, &self.kernel);
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
        let unchecked = kernel.in_bounds && device.adapter_info().backend == wgpu::Backend::Vulkan;
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
        let module = unsafe { device.create_shader_module_trusted(descriptor, checks) };
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&self.layout)],
            immediate_size: 0,
        });
        device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&kernel.name),
            layout: Some(&layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: self.cache.as_ref(),
        })
    }
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(|e| e.into_inner())
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
