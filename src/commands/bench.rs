//! `lapidary bench`: how fast a model runs here, beside what this machine can do at best.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use memmap2::MmapMut;
use quant::DType;
use quant::kernels::Kernels;
use quant::kernels::ceiling::{self, Clock, Pattern};
use runtime::synthetic::{SHAPES, Shape};
use runtime::{Batch, KvType, Model, Row, Session, SessionOptions, mapping};

use super::{bench_image, bench_output, devices};
use crate::args::{BenchArgs, BenchOutput};

pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    let kernels = Kernels::from_env()?;
    if let Some(mmproj) = &args.image {
        return bench_image::run(mmproj, kernels, args);
    }
    let model = Arc::new(load(args)?);
    let threads = args.threads.unwrap_or_else(runtime::cpu::default_threads);
    let mut bench = Bench::new(model, kernels, threads, args)?;
    let mut results = Vec::new();
    for &depth in &args.depth {
        let prompts = args.prompt.iter().filter(|&&n| n > 0).map(|&n| Test::Prefill(n));
        let answers = args.parallel.iter().flat_map(|&sequences| {
            let counts = args.generate.iter().filter(|&&n| n > 0);
            counts.map(move |&n| Test::Decode { n, sequences })
        });
        for test in prompts.chain(answers) {
            eprint!("\r{:<40}", test.name(depth));
            results.push(bench.measure(test, depth)?);
        }
    }
    eprint!("\r{:<40}\r", "");
    let machine = bench.machine()?;
    match args.output {
        BenchOutput::Md => bench_output::print_md(&bench, &machine, &results)?,
        BenchOutput::Json => outln!("{:#}", bench_output::as_json(&bench, &machine, &results))?,
        BenchOutput::Csv => bench_output::print_csv(&bench, &results)?,
    }
    Ok(())
}

/// The model that is measured: a file, or a shape with random weights.
fn load(args: &BenchArgs) -> Result<Model> {
    let Some(name) = &args.shape else {
        let path = args.model.as_deref().unwrap_or(Path::new(""));
        return Ok(Model::open(path)?);
    };
    let Some(shape) = Shape::from_name(name) else {
        let names: Vec<_> = SHAPES.iter().map(|s| s.name).collect();
        bail!("there is no shape {name:?}; there are {}", names.join(", "));
    };
    let dtype = args.dtype.unwrap_or(DType::Q4_0);
    let embed = args.embed.unwrap_or(if dtype == DType::Q4_0 { DType::Q8_0 } else { dtype });
    Ok(shape.model(dtype, embed)?)
}

#[derive(Clone, Copy)]
pub(super) enum Test {
    /// A prompt of so many tokens.
    Prefill(usize),
    /// So many tokens of each of some sequences, one of each at a time.
    Decode { n: usize, sequences: usize },
}

impl Test {
    fn name(self, depth: usize) -> String {
        let name = match self {
            Test::Prefill(n) => format!("pp{n}"),
            Test::Decode { n, sequences: 1 } => format!("tg{n}"),
            Test::Decode { n, sequences } => format!("tg{n}x{sequences}"),
        };
        if depth == 0 { name } else { format!("{name}@d{depth}") }
    }

    fn tokens(self) -> usize {
        match self {
            Test::Prefill(n) => n,
            Test::Decode { n, sequences } => n * sequences,
        }
    }

    fn sequences(self) -> usize {
        match self {
            Test::Prefill(_) => 1,
            Test::Decode { sequences, .. } => sequences,
        }
    }
}

/// One test's outcome: a figure a repetition.
pub(super) struct Outcome {
    pub(super) name: String,
    pub(super) test: Test,
    /// Tokens in the context before it.
    #[cfg(feature = "gpu")]
    pub(super) depth: usize,
    pub(super) tokens_per_second: Vec<f64>,
    /// Decode: bytes of weights and cache read, GB/s. Prefill: multiply-adds of the matmuls, GOPS.
    pub(super) rate: Vec<f64>,
    /// That rate as a share of the ceiling measured just before.
    pub(super) share: Vec<f64>,
    /// What the kernels of a GPU cost in all repetitions, where that was asked for.
    #[cfg(feature = "gpu")]
    pub(super) kernels: Vec<runtime::gpu::KernelTime>,
}

impl Outcome {
    /// The context before it, if it was a test of decoding one sequence.
    #[cfg(feature = "gpu")]
    pub(super) fn decoded_after(&self) -> Option<usize> {
        matches!(self.test, Test::Decode { sequences: 1, .. }).then_some(self.depth)
    }
}

pub(super) struct Bench {
    pub(super) session: Session,
    pub(super) kernels: Kernels,
    pub(super) threads: usize,
    pub(super) repetitions: usize,
    /// What the ceiling of reading is measured on, and the way of reading that is fastest here.
    pub(super) buffer: MmapMut,
    pub(super) pattern: Pattern,
    /// Of the CPU's memory; of copies on the device when there is one.
    pub(super) read_gb_s: Vec<f64>,
    /// What prefill is compared with, see `product_rate`.
    pub(super) product_gops: Vec<f64>,
}

/// How long one measurement of a ceiling takes.
pub(super) const CEILING: Duration = Duration::from_millis(100);

/// How long a GPU works before it is measured.
pub(super) const GPU_WARM_UP: Duration = Duration::from_millis(1500);

/// Tokens that are decoded between two looks at what memory gives.
const SLICE: usize = 8;

/// One repetition of a test.
struct Timed {
    took: Duration,
    /// GB/s, for decoding.
    read: Option<f64>,
    /// GOPS, for prefill, where it can be measured.
    products: Option<f64>,
}

/// Bytes that are read to measure how fast that goes: more than any cache holds.
const BUFFER: usize = 512 << 20;

impl Bench {
    fn new(model: Arc<Model>, kernels: Kernels, threads: usize, args: &BenchArgs) -> Result<Self> {
        let longest = args.prompt.iter().chain(&args.generate).max().copied().unwrap_or(0);
        let deepest = args.depth.iter().max().copied().unwrap_or(0);
        let options = SessionOptions {
            context: Some(longest + deepest + 1),
            kv_type: KvType::from(args.kv),
            threads: Some(threads),
            kernels,
            sequences: args.parallel.iter().max().copied().unwrap_or(1),
            ..SessionOptions::default()
        };
        let session = devices::session_for_figures(model, options, &args.device, args.profile)?;
        // Touched, so that it is memory that is read.
        let mut buffer = mapping::memory(BUFFER).context("memory to measure the ceilings on")?;
        buffer.fill(1);
        let pattern = Pattern::best(&buffer, threads, CEILING);
        Ok(Bench {
            session,
            kernels,
            threads,
            repetitions: args.repetitions.max(1),
            buffer,
            pattern,
            read_gb_s: Vec::new(),
            product_gops: Vec::new(),
        })
    }

    /// Runs a test: once to warm up, then the repetitions. Beside each, in small portions before,
    /// after and in the midst of it, the ceiling that it is compared with is measured: machines are
    /// shared, and what memory gives changes within a second.
    fn measure(&mut self, test: Test, depth: usize) -> Result<Outcome> {
        let mut out = Outcome {
            name: test.name(depth),
            test,
            #[cfg(feature = "gpu")]
            depth,
            tokens_per_second: Vec::new(),
            rate: Vec::new(),
            share: Vec::new(),
            #[cfg(feature = "gpu")]
            kernels: Vec::new(),
        };
        // A GPU that had nothing to do takes up to a second to be as fast as it is.
        let start = Instant::now();
        while self.gpu().is_some() && start.elapsed() < GPU_WARM_UP {
            self.fill(test, depth)?;
            self.run(test)?;
        }
        for repetition in 0..=self.repetitions {
            self.fill(test, depth)?;
            #[cfg(feature = "gpu")]
            let before = self.kernel_times();
            let Timed { took, read, products } = self.run(test)?;
            let per_second = test.tokens() as f64 / took.as_secs_f64();
            if repetition == 0 {
                continue;
            }
            #[cfg(feature = "gpu")]
            {
                drop(before);
                out.kernels.extend(self.kernel_times());
            }
            self.read_gb_s.extend(read);
            self.product_gops.extend(products);
            let (rate, ceiling) = match test {
                Test::Decode { n, sequences } => {
                    let passes = per_second / sequences as f64;
                    (passes * self.bytes_per_pass(depth + n / 2, sequences) / 1e9, read)
                }
                Test::Prefill(_) => (per_second * self.ops_per_token() / 1e9, products),
            };
            out.tokens_per_second.push(per_second);
            out.rate.push(rate);
            out.share.extend(ceiling.map(|c| rate / c));
        }
        Ok(out)
    }

    /// GB/s: what reading memory reaches, or copying on the GPU.
    fn read_rate(&self, long: Duration) -> Result<f64> {
        #[cfg(feature = "gpu")]
        if let Some(gpu) = self.session.gpu() {
            return Ok(gpu.device().copy_bandwidth(long)?);
        }
        Ok(self.pattern.rate(&self.buffer, self.threads, long, Clock::Wall))
    }

    /// GOPS of the CPU, where that is what the model runs on: f32 products for float weights, else int8.
    fn product_rate(&self) -> Option<f64> {
        match self.gpu() {
            Some(_) => None,
            None if self.is_float() => {
                ceiling::f32_peak(self.kernels, self.threads, CEILING, Clock::Wall)
            }
            None => ceiling::int8_peak(self.kernels, self.threads, CEILING, Clock::Wall),
        }
    }

    /// Are the layers' weights floats? They are multiplied as f32.
    pub(super) fn is_float(&self) -> bool {
        self.session.model().weights().layers.first().is_some_and(|l| l.gate.dtype.is_float())
    }

    /// The GPU, where the model runs on one.
    pub(super) fn gpu(&self) -> Option<&str> {
        #[cfg(feature = "gpu")]
        return self.session.gpu().map(|gpu| gpu.device().name());
        #[cfg(not(feature = "gpu"))]
        None
    }

    /// Brings the sequences of a test to `depth` positions.
    fn fill(&mut self, test: Test, depth: usize) -> Result<()> {
        for seq in 0..test.sequences() {
            let left = self.session.truncate(seq, depth);
            let tokens = tokens(left, depth - left.min(depth), self.vocab());
            self.session.append(seq, &tokens, &AtomicBool::new(false))?;
        }
        Ok(())
    }

    /// One repetition, and the ceiling around it.
    fn run(&mut self, test: Test) -> Result<Timed> {
        let go = AtomicBool::new(false);
        let vocab = self.vocab();
        let at = self.session.cache().len(0);
        let mut took = Duration::ZERO;
        match test {
            Test::Prefill(n) => {
                let before = self.product_rate();
                let start = Instant::now();
                self.session.append(0, &tokens(at, n, vocab), &go)?;
                took += start.elapsed();
                let products = before.zip(self.product_rate()).map(|(a, b)| (a + b) / 2.0);
                Ok(Timed { took, read: None, products })
            }
            Test::Decode { n, sequences: 1 } if self.gpu().is_some() => {
                let before = self.read_rate(CEILING)?;
                let start = Instant::now();
                // As an answer is: each token is the one chosen after the last, on the device
                // where all of the model is there.
                let mut next = tokens(at, 1, vocab)[0];
                for _ in 0..n {
                    match self.session.next_greedy(0, next, &go)? {
                        Some(token) => next = token,
                        None => drop(self.session.append(0, &[next], &go)?),
                    }
                }
                took += start.elapsed();
                let read = (before + self.read_rate(CEILING)?) / 2.0;
                Ok(Timed { took, read: Some(read), products: None })
            }
            Test::Decode { n, sequences } => {
                let mut batch = Batch::default();
                let mut reads = vec![self.read_rate(CEILING / 4)?];
                for slice in tokens(at, n, vocab).chunks(SLICE) {
                    let start = Instant::now();
                    for &token in slice {
                        batch.clear();
                        for seq in 0..sequences {
                            // Each reads its own keys and values, though they are all the same.
                            batch
                                .push(Row { token, seq, pos: self.session.cache().len(seq) }, true);
                        }
                        self.session.forward(&batch)?;
                    }
                    took += start.elapsed();
                    reads.push(self.read_rate(CEILING / 4)?);
                }
                let read = Some(reads.iter().sum::<f64>() / reads.len() as f64);
                Ok(Timed { took, read, products: None })
            }
        }
    }

    /// What each kernel cost since this was last asked.
    #[cfg(feature = "gpu")]
    fn kernel_times(&self) -> Vec<runtime::gpu::KernelTime> {
        self.session.gpu().map(|gpu| gpu.device().kernel_times()).unwrap_or_default()
    }

    fn vocab(&self) -> usize {
        self.session.model().weights().vocab()
    }

    /// What a token costs on the GPU, where all of the model is there.
    #[cfg(feature = "gpu")]
    pub(super) fn cost(&self, position: usize) -> Option<runtime::gpu::TokenCost> {
        self.session.gpu().and_then(|gpu| gpu.cost(self.session.model(), position))
    }

    /// Bytes that one pass reads with a token of each sequence: every matrix, and the keys and values of
    /// what each sees.
    fn bytes_per_pass(&self, position: usize, sequences: usize) -> f64 {
        #[cfg(feature = "gpu")]
        if let Some(cost) = self.cost(position) {
            return cost.weights as f64 + sequences as f64 * cost.cache as f64;
        }
        let model = self.session.model();
        let weights: usize = model.weights().matrices().map(|w| w.bytes.len()).sum();
        (weights + sequences * self.session.cache().bytes_read(position)) as f64
    }

    /// Operations of the matmuls for one token of a prompt (two a weight; the head is computed
    /// for the last token only and not counted).
    fn ops_per_token(&self) -> f64 {
        let layers = &self.session.model().weights().layers;
        let weights: usize = layers
            .iter()
            .flat_map(|l| [&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down])
            .map(|w| w.rows * w.cols)
            .sum();
        2.0 * weights as f64
    }

    /// What was measured beside the tests, or what no test asked for is now.
    fn machine(&self) -> Result<Machine> {
        let (read, products) = (&self.read_gb_s, &self.product_gops);
        let product_gops = match products.is_empty() {
            true => self.product_rate(),
            false => Some(median(products)),
        };
        let (on_cpu, is_float) = (self.gpu().is_none(), self.is_float());
        let (kernels, threads) = (self.kernels, self.threads);
        Ok(Machine {
            read_gb_s: match read.is_empty() {
                true => self.read_rate(CEILING)?,
                false => median(read),
            },
            int8_gops: match on_cpu && is_float {
                true => ceiling::int8_peak(kernels, threads, CEILING, Clock::Wall),
                false => product_gops,
            },
            f32_gops: product_gops.filter(|_| is_float),
            tile_gops: match on_cpu && !is_float {
                true => ceiling::tile_peak(kernels, threads, CEILING, Clock::Wall),
                false => None,
            },
        })
    }
}

pub(super) struct Machine {
    pub(super) read_gb_s: f64,
    pub(super) int8_gops: Option<f64>,
    /// Where weights are floats, which is what their prefill is compared with.
    pub(super) f32_gops: Option<f64>,
    /// bf16 products of a matrix unit, where many tokens are multiplied by one.
    pub(super) tile_gops: Option<f64>,
}

impl Machine {
    /// A prefill's share of what the matrix unit can do.
    pub(super) fn share_of_tiles(&self, r: &Outcome) -> Option<f64> {
        let prefill = matches!(r.test, Test::Prefill(_));
        self.tile_gops.filter(|_| prefill).map(|peak| median(&r.rate) / peak)
    }
}

/// `n` ids that are not all the same, and the same in every run.
fn tokens(from: usize, n: usize, vocab: usize) -> Vec<u32> {
    (from..from + n).map(|i| (4 + (i * 7919) % (vocab - 4).max(1)) as u32).collect()
}

pub(super) fn median(x: &[f64]) -> f64 {
    let mut x = x.to_vec();
    x.sort_by(f64::total_cmp);
    x.get(x.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(super) fn least(x: &[f64]) -> f64 {
    x.iter().copied().fold(f64::INFINITY, f64::min)
}

pub(super) fn most(x: &[f64]) -> f64 {
    x.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}
