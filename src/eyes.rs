//! Pictures for a model: from files to the rows that go into a prompt.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use quant::kernels::Kernels;
use runtime::chat::Part;
use runtime::vision::{ImageCache, ImageRows, VisionOptions, VisionTower, find_mmproj};
use runtime::{Model, Session};
use server::NotSeen;
use vision::{PanAndScan, Preprocessor, Rgb};

use crate::args::EyeArgs;
use crate::interrupt;

/// Views that are remembered: a second look at a picture costs nothing. 2.6 MB each in a 4B.
const REMEMBERED: usize = 64;

/// A model's eyes: its vision tower, opened when the first picture comes.
pub(crate) struct Eyes {
    model: Arc<Model>,
    mmproj: Option<PathBuf>,
    scan: Option<PanAndScan>,
    threads: Option<usize>,
    tower: Option<ImageCache>,
    /// What the tower is to run on, where it is not the CPU.
    #[cfg(feature = "gpu")]
    device: Option<Arc<runtime::gpu::Device>>,
    /// Was there such a device?
    beside: bool,
}

/// A picture as the model sees it.
#[derive(Clone, Debug)]
pub(crate) struct Sight {
    /// The whole picture, then its parts.
    pub(crate) views: Vec<Arc<ImageRows>>,
}

impl Sight {
    /// Its place in a message.
    pub(crate) fn part(&self) -> Part {
        Part::Image { crops: self.views.len() - 1 }
    }
}

impl Eyes {
    /// Eyes for a model. Nothing is opened yet.
    pub(crate) fn new(model: Arc<Model>, args: &EyeArgs, threads: Option<usize>) -> Self {
        Eyes {
            model,
            mmproj: args.mmproj.clone(),
            scan: args.scan(),
            threads,
            tower: None,
            #[cfg(feature = "gpu")]
            device: None,
            beside: false,
        }
    }

    /// Eyes on the GPU that all of the model is on, if it is on one.
    #[cfg(feature = "gpu")]
    pub(crate) fn beside(mut self, session: &Session) -> Self {
        self.device = session.gpu().filter(|gpu| gpu.has_all()).map(|gpu| gpu.device().clone());
        self.beside = self.device.is_some();
        self
    }

    #[cfg(not(feature = "gpu"))]
    pub(crate) fn beside(self, _session: &Session) -> Self {
        self
    }

    /// What the pictures will look like: as many tokens each, all of zeros. Says what is wrong with any of
    /// them without looking.
    pub(crate) fn blank(&mut self, paths: &[PathBuf]) -> Result<Vec<Sight>> {
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        self.open()?;
        let config = self.tower.as_ref().context("the tower is open")?.tower().config();
        let values = vec![0.0; config.tokens() * config.projection_dim];
        let view = Arc::new(ImageRows::new(config.projection_dim, values));
        let sight = |path: &PathBuf| {
            let views = 1 + self.areas(&Rgb::open(path)?).len();
            Ok(Sight { views: vec![view.clone(); views] })
        };
        paths.iter().map(sight).collect()
    }

    /// The parts of a picture that are looked at beside the whole.
    fn areas(&self, picture: &Rgb) -> Vec<vision::Area> {
        self.scan.map(|scan| scan.crops(picture.width(), picture.height())).unwrap_or_default()
    }

    /// Looks at each picture, in order.
    pub(crate) fn look_at_all(&mut self, paths: &[PathBuf]) -> Result<Vec<Sight>> {
        paths.iter().map(|path| self.look(path)).collect()
    }

    /// Looks at a picture, and says on standard error how long that took.
    pub(crate) fn look(&mut self, path: &Path) -> Result<Sight> {
        let start = Instant::now();
        // What is wrong with the model is said first: it is wrong with every picture.
        self.open()?;
        let picture = Rgb::open(path)?;
        let waiting = Waiting::new(path);
        let views = self.views(&picture, interrupt::flag())?;
        drop(waiting);
        let tokens: usize = views.iter().map(|v| v.len()).sum();
        let parts = match views.len() {
            1 => String::new(),
            n => format!(" and in {} parts", n - 1),
        };
        eprintln!(
            "[{}: {}×{} pixels{parts}, {tokens} tokens, {:.2} s]",
            path.display(),
            picture.width(),
            picture.height(),
            start.elapsed().as_secs_f64()
        );
        Ok(Sight { views })
    }

    /// The whole of a picture, then its parts.
    fn views(&mut self, picture: &Rgb, cancel: &AtomicBool) -> Result<Vec<Arc<ImageRows>>> {
        #[cfg(feature = "gpu")]
        self.go_to_device();
        let mut views = vec![self.view(picture, cancel)?];
        for area in self.areas(picture) {
            views.push(self.view(&picture.crop(area), cancel)?);
        }
        Ok(views)
    }

    /// Opens the tower. Looking does that as well.
    pub(crate) fn open(&mut self) -> Result<()> {
        if self.tower.is_some() {
            return Ok(());
        }
        let path = match self.mmproj.clone() {
            Some(path) => path,
            None => find(self.model.path())?,
        };
        let (threads, kernels) = (self.threads, Kernels::from_env()?);
        let options = VisionOptions { threads, kernels, ..VisionOptions::default() };
        let tower = VisionTower::open_with(&path, &options)?;
        let (made_for, hidden) = (tower.config().projection_dim, self.model.config().hidden);
        if made_for != hidden {
            bail!(
                "{} is for a model with {made_for} features a token, and {} has {hidden}: it is another model's; name the right one with --mmproj",
                path.display(),
                self.model.path().display()
            );
        }
        self.tower = Some(ImageCache::new(tower, REMEMBERED));
        Ok(())
    }

    /// Has the open tower on the GPU, where there is one for it.
    #[cfg(feature = "gpu")]
    fn go_to_device(&mut self) {
        let (Some(device), Some(tower)) = (self.device.take(), &mut self.tower) else { return };
        let on_cpu = |e: &runtime::gpu::GpuError| {
            eprintln!("lapidary: {e}\nlapidary: looking at pictures on the CPU");
        };
        if let Err(e) = tower.tower_mut().use_gpu(&device, on_cpu) {
            on_cpu(&e);
        }
    }

    /// One picture, or one part of it, through the tower.
    fn view(&mut self, picture: &Rgb, cancel: &AtomicBool) -> Result<Arc<ImageRows>> {
        let tower = self.tower.as_mut().context("the tower is open")?;
        let config = tower.tower().config();
        let (size, mean, std) = (config.image_size, config.mean, config.std);
        let pixels = Preprocessor { size, mean, std }.pixels(picture);
        Ok(tower.encode(&pixels, cancel)?.0)
    }
}

/// For a server: pictures come as files' bytes.
impl server::Look for Eyes {
    fn look(&mut self, file: &[u8], cancel: &AtomicBool) -> Result<Vec<Arc<ImageRows>>, NotSeen> {
        let failed = |e: anyhow::Error| NotSeen::Failed(crate::format::error(&e));
        if self.tower.is_none() && self.mmproj.is_none() && find_mmproj(self.model.path()).is_none()
        {
            let message = "the model can't see: it was served without an mmproj file";
            return Err(NotSeen::Request(message.into()));
        }
        self.open().map_err(failed)?;
        let picture = Rgb::decode(file).map_err(|e| NotSeen::Request(format!("a picture: {e}")))?;
        self.views(&picture, cancel).map_err(failed)
    }

    fn is_beside(&self) -> bool {
        self.beside
    }
}

/// A line on a terminal that says what takes so long: a large tower needs many seconds for a picture. It
/// goes when this does.
struct Waiting;

impl Waiting {
    fn new(path: &Path) -> Self {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        if std::io::stderr().is_terminal() {
            eprint!("Looking at {name} …");
        }
        Waiting
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
    }
}

/// The vision tower beside a model.
fn find(model: &Path) -> Result<PathBuf> {
    match find_mmproj(model) {
        Some(path) => Ok(path),
        None => bail!(
            "{} has no mmproj file of its own beside it, without which it cannot see. Gemma 3 from 4B up \
             can: `lapidary convert` writes both files, and --mmproj names one that lies elsewhere. \
             Gemma 3 270M and 1B and Gemma 2 are text only",
            model.display()
        ),
    }
}
