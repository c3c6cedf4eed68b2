//! `lapidary devices`, and where a session runs.

use std::sync::Arc;

use anyhow::Result;
use runtime::{Model, Session, SessionOptions};

use crate::args::DeviceArgs;

/// A session on the device that was asked for. `auto` takes a real GPU where there is one, says so,
/// and goes back to the CPU where the GPU can't have the model. A GPU that fails at work is replaced
/// by the CPU, which is said on standard error.
pub(super) fn session(
    model: Arc<Model>,
    options: SessionOptions,
    args: &DeviceArgs,
) -> Result<Session> {
    #[cfg(feature = "gpu")]
    let options = SessionOptions {
        on_gpu_failure: Some(say_what_failed),
        on_gpu_note: Some(|note| eprintln!("\nlapidary: {note}")),
        ..options
    };
    session_for_figures(model, options, args, false)
}

/// In the midst of an answer, maybe.
#[cfg(feature = "gpu")]
fn say_what_failed(failure: &runtime::gpu::GpuError) {
    eprintln!(
        "\nlapidary: {failure}\nlapidary: going on on the CPU, which reads again what was said so far"
    );
}

/// As [`session`], but the failure of a GPU at work is an error: figures are of one device.
/// With `profile` each kernel of a GPU is timed.
pub(super) fn session_for_figures(
    model: Arc<Model>,
    options: SessionOptions,
    args: &DeviceArgs,
    profile: bool,
) -> Result<Session> {
    let on_device = options_with(args, profile)?;
    with_device(model, options, on_device, args.device == "auto")
}

#[cfg(feature = "gpu")]
fn with_device(
    model: Arc<Model>,
    options: SessionOptions,
    on_device: SessionOptions,
    may_go_back: bool,
) -> Result<Session> {
    let SessionOptions { gpu, gpu_layers, .. } = on_device;
    let on_upload = Some(show_upload as fn(usize, usize));
    let options = SessionOptions { gpu, gpu_layers, on_upload, ..options };
    let session = match Session::new(model.clone(), &options) {
        Err(runtime::RuntimeError::Gpu(e)) if may_go_back => {
            eprintln!("lapidary: {e}\nlapidary: running on the CPU");
            Session::new(model, &SessionOptions { gpu: None, ..options })?
        }
        result => result?,
    };
    if let Some(gpu) = session.gpu().filter(|gpu| !gpu.has_all()) {
        let (here, all) = (gpu.layers(), session.model().config().layers.len());
        eprintln!("lapidary: {here} of {all} layers are on the GPU, the others on the CPU");
    }
    for note in session.gpu().into_iter().flat_map(|gpu| gpu.notes()) {
        eprintln!("lapidary: {note}");
    }
    Ok(session)
}

/// A bar on the terminal while weights go to the GPU.
#[cfg(feature = "gpu")]
fn show_upload(done: usize, total: usize) {
    use std::sync::Mutex;
    static BAR: Mutex<Option<crate::progress::ByteBar>> = Mutex::new(None);
    let mut bar = BAR.lock().unwrap_or_else(|e| e.into_inner());
    if done == total {
        *bar = None;
        return;
    }
    bar.get_or_insert_with(|| crate::progress::ByteBar::new("to the GPU")).set(done, total);
}

#[cfg(not(feature = "gpu"))]
fn with_device(
    model: Arc<Model>,
    options: SessionOptions,
    _on_device: SessionOptions,
    _may_go_back: bool,
) -> Result<Session> {
    Ok(Session::new(model, &options)?)
}

/// Options with the device that was asked for, opened; it is said on standard error which one, and
/// why.
pub(super) fn options(args: &DeviceArgs) -> Result<SessionOptions> {
    options_with(args, false)
}

#[cfg(feature = "gpu")]
fn options_with(args: &DeviceArgs, profile: bool) -> Result<SessionOptions> {
    use runtime::gpu::{DeviceOptions, adapters, pipeline_folder};

    let on_cpu = SessionOptions::default();
    if args.device == "cpu" {
        return Ok(on_cpu);
    }
    if args.device == "auto" && !may_have_gpu() {
        return Ok(on_cpu);
    }
    let found = adapters();
    let open = DeviceOptions { pipelines: pipeline_folder(), profile, ..Default::default() };
    let adapter = match args.device.as_str() {
        "auto" => {
            let Some(real) = found.iter().find(|a| a.is_real()) else { return Ok(on_cpu) };
            match real.open(&open) {
                Ok(device) => {
                    eprintln!(
                        "lapidary: running on {} ({}, {}); --device cpu for the CPU",
                        real.name(),
                        real.kind(),
                        real.backend()
                    );
                    let gpu_layers = args.gpu_layers;
                    return Ok(SessionOptions { gpu: Some(device), gpu_layers, ..on_cpu });
                }
                Err(e) => {
                    eprintln!("lapidary: {e}\nlapidary: running on the CPU");
                    return Ok(on_cpu);
                }
            }
        }
        asked => find(&found, asked)?,
    };
    if !adapter.is_real() {
        eprintln!("lapidary: {} is software: slower than --device cpu", adapter.name());
    }
    let gpu = Some(adapter.open(&open)?);
    Ok(SessionOptions { gpu, gpu_layers: args.gpu_layers, ..on_cpu })
}

/// Is there a driver's device file? Where there is none, asking Vulkan for adapters would cost a tenth of
/// a second at every start, and some libraries that it loads write to stderr.
#[cfg(feature = "gpu")]
fn may_have_gpu() -> bool {
    if !cfg!(target_os = "linux") {
        return true;
    }
    let named = ["nvidiactl", "dxg", "kgsl-3d0", "mali0"];
    let driver = named.iter().any(|name| std::path::Path::new("/dev").join(name).exists());
    driver || std::fs::read_dir("/dev/dri").is_ok_and(|mut dir| dir.next().is_some())
}

/// The adapter with this number, the first one (`gpu`), or the first with this in its name.
#[cfg(feature = "gpu")]
fn find<'a>(found: &'a [runtime::gpu::Adapter], asked: &str) -> Result<&'a runtime::gpu::Adapter> {
    use runtime::gpu::GpuError;

    if found.is_empty() {
        return Err(GpuError::NoAdapter.into());
    }
    let lower = asked.to_lowercase();
    let adapter = match asked.parse::<usize>() {
        Ok(number) => found.get(number),
        Err(_) if asked == "gpu" => found.first(),
        Err(_) => found.iter().find(|a| a.name().to_lowercase().contains(&lower)),
    };
    adapter.ok_or_else(|| {
        let names: Vec<_> =
            found.iter().enumerate().map(|(i, a)| format!("{i} ({})", a.name())).collect();
        GpuError::Unknown { asked: asked.into(), found: names.join(", ") }.into()
    })
}

#[cfg(not(feature = "gpu"))]
fn options_with(args: &DeviceArgs, _profile: bool) -> Result<SessionOptions> {
    match args.device.as_str() {
        "auto" | "cpu" => Ok(SessionOptions::default()),
        _ => anyhow::bail!("this build has no GPU support; use --device cpu"),
    }
}

#[cfg(feature = "gpu")]
pub(crate) fn run() -> Result<()> {
    use crate::format;

    let found = runtime::gpu::adapters();
    let auto = found.iter().position(|a| a.is_real());
    for (i, a) in found.iter().enumerate() {
        outln!("{i}  {}", a.name())?;
        outln!("   {}, {} {}", a.kind(), a.backend(), a.driver())?;
        let memory = a.memory().map_or("not stated".into(), format::bytes);
        let (binding, buffer) = a.limits();
        outln!(
            "   memory {memory}; buffers up to {}, {} of them at once",
            format::bytes(buffer),
            format::bytes(binding)
        )?;
        outln!("   {}", a.offers())?;
        if a.wants_compiler() {
            outln!(
                "   subgroups and f16 need dxcompiler.dll beside this program (Microsoft's \
                 DirectXShaderCompiler, from 1.8.2502 on)"
            )?;
        }
        match a.features() {
            Ok(used) => outln!("   used: {used} (LAPIDARY_GPU_FEATURES decides otherwise)")?,
            Err(e) => outln!("   {e}")?,
        }
        if a.keeps_pipelines() {
            let kept = runtime::gpu::pipeline_folder()
                .map_or("not kept (LAPIDARY_PIPELINE_CACHE)".into(), |f| {
                    format!("kept in {}", f.display())
                });
            outln!("   compiled shaders are {kept}")?;
        }
    }
    match auto {
        Some(i) => outln!("--device auto takes {i}, where the model fits.")?,
        None if found.is_empty() => outln!("No GPU was found. --device auto takes the CPU.")?,
        None => outln!("None of these is a real GPU. --device auto takes the CPU.")?,
    }
    Ok(())
}

#[cfg(not(feature = "gpu"))]
pub(crate) fn run() -> Result<()> {
    outln!("This build has no GPU support: everything runs on the CPU.")?;
    Ok(())
}
