//! What this machine can do at best, measured: the read bandwidth that bounds decoding and the
//! arithmetic peaks that bound prefill. Every figure a benchmark prints is a share of one of these,
//! measured in the same run, because that ratio survives a noisy machine.

use std::hint::black_box;
use std::ops::Range;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[cfg(target_arch = "x86_64")]
use super::isa::Active;
#[cfg(target_arch = "aarch64")]
use super::neon::peak as neon;
use super::prefetch::prefetch;
use super::{Isa, Kernels};

/// What a second is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Time that passes: for what is compared with how long a person waits.
    Wall,
    /// Processor time of the thread, where the system tells (Linux does): what other programs take from
    /// a core does not count, so that kernels can be compared on a busy machine.
    Processor,
}

/// Processor time of this thread, where the system tells, else time since some moment.
fn thread_time() -> Duration {
    thread_local!(static START: Instant = Instant::now());
    // Giving way brings the figure up to date; without it, it is as old as the last tick.
    std::thread::yield_now();
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|s| s.split_whitespace().next()?.parse().ok())
        .filter(|&ns| ns > 0)
        .map_or_else(|| START.with(Instant::elapsed), Duration::from_nanos)
}

/// Runs `work` on `threads` threads at once, each again and again until `time` is over, at least once.
/// `work` returns how much it did; the result is the total per second of `clock`.
pub fn rate(
    threads: usize,
    time: Duration,
    clock: Clock,
    work: impl Fn(usize) -> f64 + Sync,
) -> f64 {
    let barrier = Barrier::new(threads);
    std::thread::scope(|s| {
        let each: Vec<_> = (0..threads)
            .map(|t| {
                let (barrier, work) = (&barrier, &work);
                s.spawn(move || {
                    barrier.wait();
                    let (begin, wall, mut done) = (thread_time(), Instant::now(), 0.0);
                    while done == 0.0 || wall.elapsed() < time {
                        done += work(t);
                    }
                    let spent = match clock {
                        Clock::Wall => wall.elapsed(),
                        Clock::Processor => thread_time() - begin,
                    };
                    done / spent.as_secs_f64()
                })
            })
            .collect();
        each.into_iter().map(|t| t.join().expect("a measuring thread")).sum()
    })
}

/// A way of reading memory: so many forward streams a thread, and prefetches so many bytes ahead of
/// each (0: none).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    streams: usize,
    ahead: usize,
}

impl Pattern {
    /// The fastest of one, two, four and eight streams, with and without prefetch: by the median of
    /// some rounds, since the best moment of many would say more about chance than about memory.
    /// `buf` should be far larger than the caches (256 MiB and more). Takes about ten times `time`.
    pub fn best(buf: &[u8], threads: usize, time: Duration) -> Pattern {
        const ROUNDS: usize = 5;
        let all = [(1, 0), (1, 512), (1, 1024), (2, 512), (4, 512), (4, 0), (8, 0)]
            .map(|(streams, ahead)| Pattern { streams, ahead });
        let mut rates = all.map(|_| Vec::with_capacity(ROUNDS));
        for _ in 0..ROUNDS {
            for (pattern, rates) in all.iter().zip(&mut rates) {
                rates.push(pattern.rate(buf, threads, time / 4, Clock::Wall));
            }
        }
        let median = rates.map(|mut rates| {
            rates.sort_by(f64::total_cmp);
            rates[ROUNDS / 2]
        });
        let best = (0..all.len()).max_by(|&a, &b| median[a].total_cmp(&median[b]));
        all[best.unwrap_or(0)]
    }

    /// GB/s that `threads` threads read together, each its own part of `buf`, again and again until
    /// `time` is over.
    pub fn rate(self, buf: &[u8], threads: usize, time: Duration, clock: Clock) -> f64 {
        /// Words of a stream between two looks at the clock: half a mebibyte.
        const PIECE: usize = 64 << 10;
        let threads = threads.max(1);
        let words: &[u64] = bytemuck::cast_slice(&buf[..buf.len() / 8 * 8]);
        let part = words.len() / threads;
        let stream = part / self.streams / PIECE * PIECE;
        assert!(stream > 0, "a buffer of a few mebibytes a thread");
        let at: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
        let read = rate(threads, time, clock, |t| {
            // Only this thread moves its place.
            let from = at[t].load(Ordering::Relaxed);
            at[t].store((from + PIECE) % stream, Ordering::Relaxed);
            self.read(&words[t * part..][..part], stream, from..from + PIECE);
            (PIECE * self.streams * 8) as f64
        });
        read / 1e9
    }

    /// Reads the words `range` of each of the streams, which begin `stream` words apart.
    fn read(self, words: &[u64], stream: usize, range: Range<usize>) {
        let mut sum = [0u64; 64];
        for i in range.step_by(64) {
            for s in 0..self.streams {
                let chunk = &words[s * stream + i..][..64];
                if self.ahead > 0 {
                    for line in 0..8 {
                        prefetch(chunk.as_ptr().wrapping_byte_add(self.ahead + 64 * line));
                    }
                }
                for (sum, v) in sum.iter_mut().zip(chunk) {
                    *sum |= v;
                }
            }
        }
        black_box(sum);
    }
}

/// Billion int8 operations a second (a multiply and an add are two) that `threads` threads do
/// together, with the best vector instruction that these kernels use, back to back on registers.
/// `None` where nothing of the kind is written for the instruction set.
pub fn int8_peak(kernels: Kernels, threads: usize, time: Duration, clock: Clock) -> Option<f64> {
    let work = int8_work(kernels)?;
    Some(rate(threads.max(1), time, clock, |_| work()) / 1e9)
}

/// The same for bf16 products of a matrix unit, where these kernels use one.
pub fn tile_peak(kernels: Kernels, threads: usize, time: Duration, clock: Clock) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    if let Active::AmxBf16(isa) = kernels.active {
        return Some(rate(threads.max(1), time, clock, |_| isa.peak()) / 1e9);
    }
    let _ = (kernels, threads, time, clock);
    None
}

/// The same for products of 16-bit integers, which [`fixed`](super::fixed) is made of.
pub fn int16_peak(kernels: Kernels, threads: usize, time: Duration, clock: Clock) -> Option<f64> {
    let work = int16_work(kernels)?;
    Some(rate(threads.max(1), time, clock, |_| work()) / 1e9)
}

/// The same for f32 multiply-adds.
pub fn f32_peak(kernels: Kernels, threads: usize, time: Duration, clock: Clock) -> Option<f64> {
    let work = f32_work(kernels)?;
    Some(rate(threads.max(1), time, clock, |_| work()) / 1e9)
}

type Work = Box<dyn Fn() -> f64 + Sync>;

fn int8_work(kernels: Kernels) -> Option<Work> {
    match kernels.isa() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Kernels` of an instruction set exist only where it was detected.
        Isa::Avx512Vnni | Isa::AmxBf16 => Some(Box::new(|| unsafe { x86::vpdpbusd_512() })),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::AvxVnni => Some(Box::new(|| unsafe { x86::vpdpbusd_256() })),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => Some(Box::new(|| unsafe { x86::vpmaddubsw_256() })),
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Isa::NeonI8mm => Some(Box::new(|| unsafe { neon::smmla_128() })),
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Isa::NeonDotprod => Some(Box::new(|| unsafe { neon::sdot_128() })),
        _ => None,
    }
}

fn int16_work(kernels: Kernels) -> Option<Work> {
    match kernels.isa() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Kernels` of an instruction set exist only where it was detected.
        Isa::Avx512Vnni | Isa::AmxBf16 => Some(Box::new(|| unsafe { x86::vpdpwssd_512() })),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => Some(Box::new(|| unsafe { x86::vpmaddwd_256() })),
        _ => None,
    }
}

fn f32_work(kernels: Kernels) -> Option<Work> {
    match kernels.isa() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Kernels` of an instruction set exist only where it was detected.
        Isa::Avx512Vnni | Isa::AmxBf16 => Some(Box::new(|| unsafe { x86::fma_512() })),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::AvxVnni | Isa::Avx2 => Some(Box::new(|| unsafe { x86::fma_256() })),
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Isa::NeonI8mm | Isa::NeonDotprod => Some(Box::new(|| unsafe { neon::fma_128() })),
        _ => None,
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Independent chains: more than latency × throughput anywhere.
    const CHAINS: usize = 12;
    const LOOPS: usize = 20_000;

    /// Runs `$op(acc, a, b)` on `CHAINS` accumulators; returns the number of operations.
    macro_rules! chains {
        ($(#[$doc:meta])* $name:ident, $features:literal, $splat:expr, $ops:expr, $op:expr) => {
            $(#[$doc])*
            #[target_feature(enable = $features)]
            pub(super) fn $name() -> f64 {
                let (a, b) = black_box(($splat, $splat));
                let mut acc = [$splat; CHAINS];
                for _ in 0..LOOPS {
                    for acc in &mut acc {
                        *acc = $op(*acc, a, b);
                    }
                }
                black_box(acc);
                (LOOPS * CHAINS * $ops) as f64
            }
        };
    }

    chains!(
        /// 64 products and additions an instruction.
        vpdpbusd_512, "avx512f,avx512vnni", _mm512_set1_epi8(1), 128, |c, a, b| {
            _mm512_dpbusd_epi32(c, a, b)
        }
    );
    chains!(
        /// 32 products and additions an instruction.
        vpdpbusd_256, "avx2,avxvnni", _mm256_set1_epi8(1), 64, |c, a, b| {
            _mm256_dpbusd_avx_epi32(c, a, b)
        }
    );
    chains!(
        /// 32 products and additions by two instructions: no other pair does them exactly in 16 bits.
        vpmaddubsw_256, "avx2", _mm256_set1_epi8(1), 64, |c, a, b| {
            _mm256_add_epi16(c, _mm256_maddubs_epi16(a, _mm256_xor_si256(b, c)))
        }
    );
    chains!(
        /// 32 products and additions an instruction.
        vpdpwssd_512, "avx512f,avx512vnni", _mm512_set1_epi16(1), 64, |c, a, b| {
            _mm512_dpwssd_epi32(c, a, b)
        }
    );
    chains!(
        /// 16 products and additions by two instructions.
        vpmaddwd_256, "avx2", _mm256_set1_epi16(1), 32, |c, a, b| {
            _mm256_add_epi32(c, _mm256_madd_epi16(a, _mm256_xor_si256(b, c)))
        }
    );
    chains!(
        /// 16 products and additions an instruction.
        fma_512, "avx512f", _mm512_set1_ps(1e-3), 32, |c, a, b| _mm512_fmadd_ps(a, b, c)
    );
    chains!(
        /// 8 products and additions an instruction.
        fma_256, "avx2,fma", _mm256_set1_ps(1e-3), 16, |c, a, b| _mm256_fmadd_ps(a, b, c)
    );
}
