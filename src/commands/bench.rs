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
use runtime::{KvType, Model, Session, SessionOptions, mapping};
use serde_json::json;

use super::{bench_image, devices};
use crate::args::{BenchArgs, BenchOutput};
use crate::format;

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
        let answers = args.generate.iter().filter(|&&n| n > 0).map(|&n| Test::Decode(n));
        for test in prompts.chain(answers) {
            eprint!("\r{:<40}", test.name(depth));
            results.push(bench.measure(test, depth)?);
        }
    }
    eprint!("\r{:<40}\r", "");
    let machine = bench.machine()?;
    match args.output {
        BenchOutput::Md => print_md(&bench, &machine, &results),
        BenchOutput::Json => println!("{:#}", as_json(&bench, &machine, &results)),
        BenchOutput::Csv => print_csv(&results),
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
enum Test {
    Prefill(usize),
    Decode(usize),
}

impl Test {
    fn name(self, depth: usize) -> String {
        let name = match self {
            Test::Prefill(n) => format!("pp{n}"),
            Test::Decode(n) => format!("tg{n}"),
        };
        if depth == 0 { name } else { format!("{name}@d{depth}") }
    }

    fn tokens(self) -> usize {
        match self {
            Test::Prefill(n) | Test::Decode(n) => n,
        }
    }
}

/// One test's outcome: a figure a repetition.
struct Outcome {
    name: String,
    test: Test,
    /// Tokens in the context before it.
    #[cfg(feature = "gpu")]
    depth: usize,
    tokens_per_second: Vec<f64>,
    /// Decode: bytes of weights and cache read, GB/s. Prefill: multiply-adds of the matmuls, GOPS.
    rate: Vec<f64>,
    /// That rate as a share of the ceiling measured just before.
    share: Vec<f64>,
    /// What the kernels of a GPU cost in all repetitions, where that was asked for.
    #[cfg(feature = "gpu")]
    kernels: Vec<runtime::gpu::KernelTime>,
}

impl Outcome {
    /// The context before it, if it was a test of decoding.
    #[cfg(feature = "gpu")]
    fn decoded_after(&self) -> Option<usize> {
        matches!(self.test, Test::Decode(_)).then_some(self.depth)
    }
}

struct Bench {
    session: Session,
    kernels: Kernels,
    threads: usize,
    repetitions: usize,
    /// What the ceiling of reading is measured on, and the way of reading that is fastest here.
    buffer: MmapMut,
    pattern: Pattern,
    /// Of the CPU's memory; of copies on the device when there is one.
    read_gb_s: Vec<f64>,
    int8_gops: Vec<f64>,
    filled: Option<usize>,
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
    int8: Option<f64>,
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
            int8_gops: Vec::new(),
            filled: None,
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
            self.fill(depth)?;
            self.run(test)?;
            self.filled = None;
        }
        for repetition in 0..=self.repetitions {
            self.fill(depth)?;
            #[cfg(feature = "gpu")]
            let before = self.kernel_times();
            let Timed { took, read, int8 } = self.run(test)?;
            let per_second = test.tokens() as f64 / took.as_secs_f64();
            self.filled = None;
            if repetition == 0 {
                continue;
            }
            #[cfg(feature = "gpu")]
            {
                drop(before);
                out.kernels.extend(self.kernel_times());
            }
            self.read_gb_s.extend(read);
            self.int8_gops.extend(int8);
            let (rate, ceiling) = match test {
                Test::Decode(n) => (per_second * self.bytes_per_token(depth + n / 2) / 1e9, read),
                Test::Prefill(_) => (per_second * self.ops_per_token() / 1e9, int8),
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

    /// int8 GOPS of the CPU, where that is what the model runs on.
    fn int8_rate(&self) -> Option<f64> {
        match self.gpu() {
            Some(_) => None,
            None => ceiling::int8_peak(self.kernels, self.threads, CEILING, Clock::Wall),
        }
    }

    /// The GPU, where the model runs on one.
    fn gpu(&self) -> Option<&str> {
        #[cfg(feature = "gpu")]
        return self.session.gpu().map(|gpu| gpu.device().name());
        #[cfg(not(feature = "gpu"))]
        None
    }

    /// Brings the cache to `depth` positions.
    fn fill(&mut self, depth: usize) -> Result<()> {
        if self.filled != Some(depth) {
            let left = self.session.truncate(0, depth);
            let tokens = tokens(left, depth - left.min(depth), self.vocab());
            self.session.append(0, &tokens, &AtomicBool::new(false))?;
            self.filled = Some(depth);
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
                let before = self.int8_rate();
                let start = Instant::now();
                self.session.append(0, &tokens(at, n, vocab), &go)?;
                took += start.elapsed();
                let int8 = before.zip(self.int8_rate()).map(|(a, b)| (a + b) / 2.0);
                Ok(Timed { took, read: None, int8 })
            }
            Test::Decode(n) if self.gpu().is_some() => {
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
                Ok(Timed { took, read: Some(read), int8: None })
            }
            Test::Decode(n) => {
                let mut reads = vec![self.read_rate(CEILING / 4)?];
                for slice in tokens(at, n, vocab).chunks(SLICE) {
                    let start = Instant::now();
                    for &token in slice {
                        self.session.append(0, &[token], &go)?;
                    }
                    took += start.elapsed();
                    reads.push(self.read_rate(CEILING / 4)?);
                }
                let read = Some(reads.iter().sum::<f64>() / reads.len() as f64);
                Ok(Timed { took, read, int8: None })
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
    fn cost(&self, position: usize) -> Option<runtime::gpu::TokenCost> {
        self.session.gpu().and_then(|gpu| gpu.cost(self.session.model(), position))
    }

    /// Bytes that one token reads: every matrix, and the keys and values of what it sees.
    fn bytes_per_token(&self, position: usize) -> f64 {
        #[cfg(feature = "gpu")]
        if let Some(cost) = self.cost(position) {
            return (cost.weights + cost.cache) as f64;
        }
        let model = self.session.model();
        let weights: usize = model.weights().matrices().map(|w| w.bytes.len()).sum();
        (weights + self.session.cache().bytes_read(position)) as f64
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
        let (read, int8) = (&self.read_gb_s, &self.int8_gops);
        Ok(Machine {
            read_gb_s: match read.is_empty() {
                true => self.read_rate(CEILING)?,
                false => median(read),
            },
            int8_gops: match int8.is_empty() {
                true => self.int8_rate(),
                false => Some(median(int8)),
            },
        })
    }
}

struct Machine {
    read_gb_s: f64,
    int8_gops: Option<f64>,
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

fn print_md(bench: &Bench, machine: &Machine, results: &[Outcome]) {
    let model = bench.session.model();
    println!("{}, {}", model.path().display(), format::bytes(model.bytes().len() as u64));
    match bench.gpu() {
        Some(name) => {
            println!("{name}; it copies at {:.1} GB/s", machine.read_gb_s);
            #[cfg(feature = "gpu")]
            print_cost(bench, results);
            println!();
        }
        None => {
            let int8 = machine.int8_gops.map_or("not measured".into(), |g| format!("{g:.0} GOPS"));
            println!(
                "{} threads, {}; this machine reads {:.1} GB/s and multiplies int8 at {int8}\n",
                bench.threads,
                bench.kernels.isa(),
                machine.read_gb_s,
            );
        }
    }
    println!("| test | tokens/s | min – max | rate | of the ceiling |");
    println!("|---|---:|---:|---:|---:|");
    for r in results {
        let (unit, ceiling) = match r.test {
            Test::Prefill(_) if bench.gpu().is_some() => ("TFLOP/s", "of int8 peak"),
            Test::Prefill(_) => ("GOPS", "of int8 peak"),
            Test::Decode(_) if bench.gpu().is_some() => ("GB/s", "of copy bandwidth"),
            Test::Decode(_) => ("GB/s", "of read bandwidth"),
        };
        let rate = match unit {
            "TFLOP/s" => format!("{:.2}", median(&r.rate) / 1e3),
            _ => format!("{:.1}", median(&r.rate)),
        };
        let share = match r.share.is_empty() {
            true => "-".into(),
            false => format!("{:.0}% {ceiling}", 100.0 * median(&r.share)),
        };
        println!(
            "| {} | {:.1} | {:.1} – {:.1} | {rate} {unit} | {share} |",
            r.name,
            median(&r.tokens_per_second),
            least(&r.tokens_per_second),
            most(&r.tokens_per_second),
        );
    }
    #[cfg(feature = "gpu")]
    results.iter().for_each(print_kernels);
}

/// Where the time of a test went on the GPU: a token's, or that of the whole prompt.
#[cfg(feature = "gpu")]
fn print_kernels(r: &Outcome) {
    use std::collections::HashMap;

    let mut kernels: HashMap<(&str, [u32; 3]), (usize, Duration)> = HashMap::new();
    for k in &r.kernels {
        let found = kernels.entry((&k.name, k.grid)).or_default();
        *found = (found.0 + k.count, found.1 + k.time);
    }
    if kernels.is_empty() {
        return;
    }
    let (unit, times) = match r.test {
        Test::Decode(n) => ("token", n * r.tokens_per_second.len()),
        Test::Prefill(_) => ("prompt", r.tokens_per_second.len()),
    };
    let mut kernels: Vec<_> = kernels.into_iter().collect();
    kernels.sort_by(|a, b| b.1.1.cmp(&a.1.1).then_with(|| a.0.cmp(&b.0)));
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let all = kernels.iter().map(|(_, (_, time))| *time).sum::<Duration>();
    println!("\n{}: {:.0} µs in kernels a {unit}\n", r.name, micros(all) / times as f64);
    println!("| kernel | workgroups | times | µs each | µs a {unit} | share |");
    println!("|---|---:|---:|---:|---:|---:|");
    for ((name, [x, y, z]), (count, time)) in kernels {
        println!(
            "| {name} | {x} × {y} × {z} | {:.0} | {:.1} | {:.0} | {:.0}% |",
            count as f64 / times as f64,
            micros(time) / count as f64,
            micros(time) / times as f64,
            100.0 * time.as_secs_f64() / all.as_secs_f64(),
        );
    }
}

/// What a token costs on the GPU, after the context of each test of decoding.
#[cfg(feature = "gpu")]
fn print_cost(bench: &Bench, results: &[Outcome]) {
    let mut depths: Vec<usize> = results.iter().filter_map(Outcome::decoded_after).collect();
    depths.dedup();
    for depth in depths {
        let Some(cost) = bench.cost(depth) else { return };
        println!(
            "a token after {depth} others: {} of weights, {} of keys and values, {} dispatches",
            format::bytes(cost.weights),
            format::bytes(cost.cache),
            cost.dispatches
        );
    }
}

fn print_csv(results: &[Outcome]) {
    println!(
        "test,tokens_per_second,min,max,gb_per_second,share_of_read_bandwidth,gops,share_of_int8_peak"
    );
    for r in results {
        let pair = [median(&r.rate), median(&r.share)].map(|v| format!("{v:.4}")).join(",");
        let (read, int8) = match r.test {
            Test::Decode(_) => (pair, ",".into()),
            Test::Prefill(_) => (",".into(), pair),
        };
        let t = &r.tokens_per_second;
        println!("{},{:.3},{:.3},{:.3},{read},{int8}", r.name, median(t), least(t), most(t));
    }
}

fn as_json(bench: &Bench, machine: &Machine, results: &[Outcome]) -> serde_json::Value {
    let tests: Vec<_> = results
        .iter()
        .map(|r| {
            let t = &r.tokens_per_second;
            let (rate, share) = match r.test {
                Test::Decode(_) => ("gb_per_second", "share_of_read_bandwidth"),
                Test::Prefill(_) => ("gops", "share_of_int8_peak"),
            };
            let mut test = json!({
                "test": r.name,
                "tokens_per_second": {"median": median(t), "min": least(t), "max": most(t)},
            });
            test[rate] = json!(median(&r.rate));
            #[cfg(feature = "gpu")]
            if let Some(cost) = r.decoded_after().and_then(|depth| bench.cost(depth)) {
                test["token"] = json!({
                    "weight_bytes": cost.weights,
                    "cache_bytes": cost.cache,
                    "dispatches": cost.dispatches,
                });
            }
            if !r.share.is_empty() {
                test[share] = json!(median(&r.share));
            }
            test
        })
        .collect();
    json!({
        "model": bench.session.model().path().display().to_string(),
        "machine": {
            "read_gb_s": machine.read_gb_s,
            "int8_gops": machine.int8_gops,
            "threads": bench.threads,
            "isa": bench.kernels.isa().name(),
            "gpu": bench.gpu(),
        },
        "tests": tests,
    })
}
