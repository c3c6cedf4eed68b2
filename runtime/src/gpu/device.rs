//! An opened device: buffers, and what becomes of failures.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::error::{Caught, GpuError};
use super::features::Features;
use super::kept::Kept;
use super::ops::Op;
use super::pipelines::Pipelines;
use super::profile::{KernelTime, Profile};
use super::trial::matrices_fail;

/// A word that no result begins with: as a float it is no number that arithmetic gives, as a token or a count
/// it is none.
const NO_RESULT: u32 = 0xffc0_5eed;

/// The first failure that nobody was there to receive.
type Failure = Arc<Mutex<Option<(bool, String)>>>;

fn note(failure: &Failure, lost: bool, why: String) {
    let mut slot = failure.lock().unwrap_or_else(|e| e.into_inner());
    slot.get_or_insert((lost, why));
}

/// An opened device. Sessions may share it.
pub struct Device {
    name: String,
    real: bool,
    memory: Option<u64>,
    /// What of it is used.
    pub(crate) features: Features,
    /// Bytes that a weight matrix may take before it is cut into shards.
    pub(crate) max_binding: u64,
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    failure: Failure,
    pub(crate) pipelines: Pipelines,
    pub(super) profile: Option<Profile>,
    /// What was asked for and is not used, and why.
    doubt: Option<String>,
    /// See [`Device::doubt_reads`].
    doubts: AtomicBool,
    /// See [`Device::most_work`].
    most_work: AtomicU64,
    /// For tests: see [`Device::refuse`].
    refuses: AtomicBool,
    /// For tests: see [`Device::crowd`].
    crowds: AtomicBool,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Device {
    pub(super) fn new(
        name: String,
        real: bool,
        memory: Option<u64>,
        features: Features,
        max_binding: u64,
        device: wgpu::Device,
        queue: wgpu::Queue,
    ) -> Self {
        let failure = Failure::default();
        let (errors, losses) = (failure.clone(), failure.clone());
        device.on_uncaptured_error(Arc::new(move |e| note(&errors, false, e.to_string())));
        device.set_device_lost_callback(move |reason, why| {
            let why = if why.is_empty() { format!("{reason:?}").to_lowercase() } else { why };
            note(&losses, true, why);
        });
        let pipelines = Pipelines::default();
        let doubts = device.adapter_info().backend == wgpu::Backend::Metal;
        Device {
            name,
            real,
            memory,
            features,
            max_binding,
            device,
            queue,
            failure,
            pipelines,
            profile: None,
            doubt: None,
            doubts: doubts.into(),
            most_work: 200_000_000_000.into(),
            refuses: AtomicBool::new(false),
            crowds: AtomicBool::new(false),
        }
    }

    /// The device, keeping its compiled pipelines in a file.
    pub(super) fn keeping(mut self, file: Option<PathBuf>) -> Self {
        self.pipelines.kept = file.map(|file| Kept::open(&self.device, file));
        self
    }

    /// The device, without cooperative matrices if they do not work.
    pub(super) fn tried(mut self) -> Self {
        if self.features.matrix.is_some()
            && let Some(why) = matrices_fail(&self)
        {
            self.features.matrix = None;
            self.doubt = Some(format!("cooperative matrices are not used: {why}"));
        }
        self
    }

    /// What was asked for and is not used, and why.
    pub(super) fn doubt(&self) -> Option<&str> {
        self.doubt.as_deref()
    }

    /// The device, with timestamps around each dispatch.
    pub(super) fn profiled(mut self) -> Self {
        self.profile = Some(Profile::new(&self.device, &self.queue));
        self
    }

    /// What each kernel has cost since this was last asked, the most expensive first; nothing where
    /// the device was not opened for that ([`DeviceOptions::profile`](super::DeviceOptions)).
    pub fn kernel_times(&self) -> Vec<KernelTime> {
        self.profile.as_ref().map(Profile::take).unwrap_or_default()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Is it a piece of hardware?
    pub fn is_real(&self) -> bool {
        self.real
    }

    /// What of it is used: which kernels run.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Bytes of its memory, as far as that is known.
    pub fn memory(&self) -> Option<u64> {
        self.memory
    }

    /// Loses the device, as a driver's reset would: for tests of what happens then.
    #[doc(hidden)]
    pub fn lose(&self) {
        self.device.destroy();
    }

    /// Has the next thing asked of the device meet a shader that can't be compiled, as one that a
    /// driver refuses in the midst of an answer: for tests of what happens then.
    #[doc(hidden)]
    pub fn refuse(&self) {
        self.refuses.store(true, Ordering::Relaxed);
    }

    /// Has everything that is read back from now on checked for having been written. Through Metal it always
    /// is: wgpu takes commands that failed on the device, for want of memory or time, for done there
    /// (<https://github.com/gfx-rs/wgpu/issues/9545>), and an answer would go on with what was read before.
    ///
    /// For tests, which have little work and have it submitted in small parts as well.
    #[doc(hidden)]
    pub fn doubt_reads(&self) {
        self.doubts.store(true, Ordering::Relaxed);
        self.most_work.store(1, Ordering::Relaxed);
    }

    /// See [`Device::doubt_reads`].
    pub(super) fn doubts_reads(&self) -> bool {
        self.doubts.load(Ordering::Relaxed)
    }

    /// Multiply-adds in one submission: half a second's work for a slow GPU, so that a desktop's
    /// watchdog does not take it for dead.
    pub(super) fn most_work(&self) -> f64 {
        self.most_work.load(Ordering::Relaxed) as f64
    }

    /// Has whole layers sent from now on with more workgroups than run at the same time, as on a device
    /// that does not keep what it seemed to promise: for tests of what happens then.
    #[doc(hidden)]
    pub fn crowd(&self) {
        self.crowds.store(true, Ordering::Relaxed);
    }

    /// How many workgroups are sent where `workgroups` run at the same time.
    pub(super) fn crowded(&self, workgroups: u32) -> u32 {
        if self.crowds.load(Ordering::Relaxed) { 64 * workgroups } else { workgroups }
    }

    /// Does `work`, which asks the device for things, and says what failed in it.
    pub(crate) fn guarded<T>(
        &self,
        what: &str,
        work: impl FnOnce() -> Result<T, GpuError>,
    ) -> Result<T, GpuError> {
        let refused = self.refuses.swap(false, Ordering::Relaxed);
        let (result, caught) = Caught::by(&self.device, || {
            if refused {
                self.try_nonsense();
            }
            work()
        });
        if let Some(caught) = caught {
            return Err(caught.error(&self.name, what));
        }
        self.check()?;
        result
    }

    /// Uses a kernel that can't be compiled.
    fn try_nonsense(&self) {
        let mut kernel = shaders::gather();
        kernel.name = "refused".into();
        kernel.source.push_str("fn nonsense( {");
        if let Err(caught) = self.pipeline_or_not(&kernel).wait() {
            self.note(caught.why.clone());
        }
    }

    /// Something failed, as the next [`Device::guarded`] says.
    pub(super) fn note(&self, why: String) {
        note(&self.failure, false, why);
    }

    /// What failed without anybody waiting for it: a lost device above all.
    fn check(&self) -> Result<(), GpuError> {
        let mut slot = self.failure.lock().unwrap_or_else(|e| e.into_inner());
        match &*slot {
            None => Ok(()),
            // A lost device stays lost.
            Some((true, why)) => {
                Err(GpuError::Lost { device: self.name.clone(), why: why.clone() })
            }
            Some((false, why)) => {
                let why = why.clone();
                *slot = None;
                Err(GpuError::Failed { device: self.name.clone(), why })
            }
        }
    }

    /// A buffer of zeros.
    pub(crate) fn buffer(
        &self,
        label: &str,
        bytes: u64,
        usage: wgpu::BufferUsages,
    ) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: bytes.max(16).next_multiple_of(16),
            usage: usage | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        })
    }

    /// A storage buffer of zeros.
    pub(crate) fn storage(&self, label: &str, bytes: u64) -> wgpu::Buffer {
        self.buffer(label, bytes, wgpu::BufferUsages::STORAGE)
    }

    /// A buffer that the CPU reads.
    pub(crate) fn staging(&self, bytes: u64) -> wgpu::Buffer {
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("staging"),
            size: bytes.max(16),
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        self.expect_result(&staging);
        staging
    }

    /// Where reads are doubted: a word from `from`, at the end of commands that leave no result, which tells
    /// [`Device::wait_for_word`] that they were done.
    pub(super) fn leave_word(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        from: &wgpu::Buffer,
        staging: &wgpu::Buffer,
    ) {
        if self.doubts_reads() {
            encoder.copy_buffer_to_buffer(from, 0, staging, 0, 4);
        }
    }

    /// Waits for everything that was submitted, and with [`Device::leave_word`] for that word.
    pub(super) fn wait_for_word(&self, staging: &wgpu::Buffer) -> Result<(), GpuError> {
        match self.doubts_reads() {
            true => self.read(staging, &mut [0.0]),
            false => self.wait(),
        }
    }

    /// Leaves a mark where the next result will be, in commands of its own, where reads are doubted.
    fn expect_result(&self, staging: &wgpu::Buffer) {
        if self.doubts_reads() {
            self.queue.write_buffer(staging, 0, &NO_RESULT.to_le_bytes());
        }
    }

    /// A storage buffer of floats.
    pub(crate) fn floats(&self, label: &str, values: &[f32]) -> wgpu::Buffer {
        let buffer = self.storage(label, values.len() as u64 * 4);
        self.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(values));
        buffer
    }

    /// A uniform buffer.
    pub(crate) fn uniform<T: bytemuck::Pod>(&self, value: &T) -> wgpu::Buffer {
        let bytes = size_of::<T>() as u64;
        let buffer = self.buffer("parameters", bytes, wgpu::BufferUsages::UNIFORM);
        self.queue.write_buffer(&buffer, 0, bytemuck::bytes_of(value));
        buffer
    }

    /// GB/s that are read and written together when a large buffer is copied on the device, for
    /// about as long as asked: the ceiling that decoding is compared with. By a kernel or by the
    /// driver's own copying, whichever is faster.
    ///
    /// # Errors
    /// [`GpuError`] where there is no room for the buffers, or the device fails.
    pub fn copy_bandwidth(&self, long: Duration) -> Result<f64, GpuError> {
        /// Copies in a submission, so that submitting costs little beside them.
        const AT_ONCE: usize = 8;
        // A workgroup copies 16 KiB.
        let bytes = (256 << 20).min(self.max_binding) >> 14 << 14;
        self.guarded("measuring bandwidth", || {
            let (from, to) = (self.storage("from", bytes), self.storage("to", bytes));
            let op = Op::new(self, &shaders::copy(), &[&from, &to]);
            let kernel = |encoder: &mut wgpu::CommandEncoder| {
                let mut pass = encoder.begin_compute_pass(&Default::default());
                op.dispatch(self, &mut pass, [(bytes >> 14) as u32, 1, 1]);
            };
            let driver = |encoder: &mut wgpu::CommandEncoder| {
                encoder.copy_buffer_to_buffer(&from, 0, &to, 0, bytes);
            };
            let rate = |copy: &dyn Fn(&mut wgpu::CommandEncoder)| {
                let some = || {
                    let mut encoder = self.device.create_command_encoder(&Default::default());
                    (0..AT_ONCE).for_each(|_| copy(&mut encoder));
                    self.queue.submit([encoder.finish()]);
                    self.wait()
                };
                some()?;
                let (start, mut copies) = (Instant::now(), 0);
                while copies == 0 || start.elapsed() < long / 2 {
                    some()?;
                    copies += AT_ONCE;
                }
                Ok(2.0 * bytes as f64 * copies as f64 / start.elapsed().as_secs_f64() / 1e9)
            };
            Ok(f64::max(rate(&kernel)?, rate(&driver)?))
        })
    }

    /// Waits until all that was submitted is done.
    pub(crate) fn wait(&self) -> Result<(), GpuError> {
        self.wait_for(None)
    }

    /// Waits until a submission is done, or all of them.
    fn wait_for(&self, submission_index: Option<wgpu::SubmissionIndex>) -> Result<(), GpuError> {
        let done = self.device.poll(wgpu::PollType::Wait { submission_index, timeout: None });
        self.check()?;
        done.map(|_| ()).map_err(|e| self.failed(e.to_string()))
    }

    pub(super) fn failed(&self, why: String) -> GpuError {
        GpuError::Failed { device: self.name.clone(), why }
    }

    /// Waits for what was copied into `staging` and reads its first `out.len()` floats.
    pub(crate) fn read(&self, staging: &wgpu::Buffer, out: &mut [f32]) -> Result<(), GpuError> {
        self.read_after(staging, None, out)
    }

    /// As [`Device::read`], waiting for one submission only.
    pub(crate) fn read_after(
        &self,
        staging: &wgpu::Buffer,
        submission: Option<wgpu::SubmissionIndex>,
        out: &mut [f32],
    ) -> Result<(), GpuError> {
        let slice = staging.slice(..out.len() as u64 * 4);
        let (to, answer) = channel();
        slice.map_async(wgpu::MapMode::Read, move |r| drop(to.send(r)));
        self.mapped(submission, &answer)?;
        let view = slice.get_mapped_range().map_err(|e| self.failed(e.to_string()))?;
        out.copy_from_slice(bytemuck::cast_slice(&view));
        drop(view);
        staging.unmap();
        let is_none = out.first().is_some_and(|first| first.to_bits() == NO_RESULT);
        if is_none && self.doubts_reads() {
            return Err(self.failed("it left commands undone, for want of memory or time".into()));
        }
        self.expect_result(staging);
        Ok(())
    }

    /// Waits for a submission, and for the mapping that answers then.
    pub(super) fn mapped(
        &self,
        submission: Option<wgpu::SubmissionIndex>,
        answer: &Receiver<Result<(), wgpu::BufferAsyncError>>,
    ) -> Result<(), GpuError> {
        self.wait_for(submission)?;
        self.answer(answer)?.map_err(|e| self.failed(format!("reading back: {e}")))
    }

    /// What a callback says. It has run by now, or is running on another thread that waits for the
    /// same device.
    fn answer<T>(&self, from: &Receiver<T>) -> Result<T, GpuError> {
        for _ in 0..500 {
            match from.recv_timeout(Duration::from_millis(20)) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Timeout) => self.wait()?,
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Err(self.failed("reading back did not end".into()))
    }
}
