//! Fixed-point matmuls: every instruction set of this CPU against sums in f64, and the promise that
//! nothing overflows.

use lapidary_quant::kernels::fixed::{Blocks, FixedJob, NORM, PANEL, TILE};
use lapidary_quant::kernels::{Isa, Kernels};

/// xorshift64*: the same numbers everywhere.
struct Rng(u64);

impl Rng {
    /// Uniform in -1..1.
    fn unit(&mut self) -> f32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) as u32 as i32 as f32 / 2147483648.0
    }
}

/// Groups of packed rows.
struct Packed {
    q: Vec<i16>,
    scale: Vec<f32>,
}

fn pack(k: &Kernels, x: &[f32], depth: usize, group: usize, blocks: Blocks) -> Packed {
    let rows = x.len() / depth;
    let groups = rows.div_ceil(group);
    let mut q = vec![-1; groups * blocks.words(group)];
    let mut scale = vec![f32::NAN; groups * blocks.scales(group)];
    let parts = q.chunks_mut(blocks.len * group).zip(scale.chunks_mut(group));
    for (i, (q, scale)) in parts.enumerate() {
        let (first, at) = (i / blocks.count * group, i % blocks.count * blocks.len);
        let (rows, n) = (group.min(rows - first), blocks.len.min(depth - at));
        k.pack_fixed(&x[first * depth + at..], depth, n, rows, group, q, scale);
    }
    Packed { q, scale }
}

/// Packs both, multiplies, `[rows, PANEL]`.
fn multiply(k: &Kernels, panel: &[f32], x: &[f32], depth: usize, longest: usize) -> Vec<f32> {
    let blocks = Blocks::of(depth, longest);
    let (w, t) = (pack(k, panel, depth, PANEL, blocks), pack(k, x, depth, TILE, blocks));
    let rows = x.len() / depth;
    let job = FixedJob {
        blocks,
        panel: &w.q,
        panel_scale: &w.scale,
        tiles: &t.q,
        tile_scale: &t.scale,
        tile_words: blocks.words(TILE),
        tile_scales: blocks.scales(TILE),
        rows,
    };
    let ld = PANEL + 3;
    let mut y = vec![f32::NAN; rows * ld];
    k.multiply_fixed(&job, &mut y, ld, false);
    // Added once more, and nothing written between the rows.
    let mut twice = y.clone();
    k.multiply_fixed(&job, &mut twice, ld, true);
    for (once, twice) in y.chunks(ld).zip(twice.chunks(ld)) {
        for (a, b) in once[..PANEL].iter().zip(twice) {
            // f32 additions, as many as there are blocks, in another order.
            assert!((2.0 * a - b).abs() <= 5e-5 * a.abs() + 1e-5, "{a} {b}");
        }
        assert!(twice[PANEL..].iter().all(|v| v.is_nan()));
    }
    y.chunks(ld).flat_map(|y| &y[..PANEL]).copied().collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

fn norm(a: &[f32]) -> f64 {
    dot(a, a).sqrt()
}

/// Rounding moves each quant by at most 1/2, so a block of n by √n / 2 in norm, of `NORM` at the
/// finest or of 32767 at its largest: relative to the product of two blocks' norms the error is
/// twice that, and a little for f32.
#[test]
fn close_to_exact() {
    let mut rng = Rng(7);
    for isa in Isa::available() {
        let k = Kernels::for_isa(isa).unwrap();
        for (depth, longest) in [(1, 8), (2, 8), (7, 192), (72, 192), (577, 192), (1152, 192)] {
            for rows in [1, 2, 11, 12, 13, 40] {
                for lanes in [1, 31, 32] {
                    let panel: Vec<f32> = (0..lanes * depth).map(|_| rng.unit() * 0.02).collect();
                    let x: Vec<f32> = (0..rows * depth).map(|_| rng.unit() * 5.0).collect();
                    let y = multiply(&k, &panel, &x, depth, longest);
                    for (x, y) in x.chunks(depth).zip(y.chunks(PANEL)) {
                        for (w, y) in panel.chunks(depth).zip(y) {
                            let n = depth.min(longest) as f64;
                            let unit = (n.sqrt() / f64::from(NORM)).max(2.0 / 32767.0);
                            let bound = (unit * 1.1 + 1e-6) * norm(w) * norm(x);
                            let error = (f64::from(*y) - dot(w, x)).abs();
                            assert!(error <= bound, "{isa} {depth} {rows}: {error} > {bound}");
                        }
                        assert!(y[lanes..].iter().all(|v| *v == 0.0), "missing rows are zeros");
                    }
                }
            }
        }
    }
}

/// Where both factors are as large as they can be everywhere, and point the same way, sums reach
/// 2³¹ as nearly as they ever do.
#[test]
fn nothing_overflows() {
    for isa in Isa::available() {
        let k = Kernels::for_isa(isa).unwrap();
        for longest in [2, 4, 64, 128, 192, 1024] {
            for sign in [1.0, -1.0] {
                let depth = 1024;
                for pattern in [|_: usize| 1.0f32, |i: usize| if i % 64 < 2 { 1.0 } else { 0.01 }] {
                    let x: Vec<f32> = (0..depth).map(pattern).collect();
                    let w: Vec<f32> = x.iter().map(|v| v * sign).collect();
                    let y = multiply(&k, &w, &x, depth, longest)[0];
                    let want = dot(&w, &x);
                    assert!(
                        (f64::from(y) / want - 1.0).abs() < 1e-3,
                        "{isa} {longest}: {y} {want}"
                    );
                }
            }
        }
    }
}

/// Every instruction set packs the same bits, whatever the values.
#[test]
fn packs_agree() {
    let mut rng = Rng(3);
    for depth in [1, 2, 15, 16, 17, 31, 33, 48, 193] {
        for size in [1.0, 1e-20, 1e-42, 0.0, 1e15] {
            let mut x: Vec<f32> = (0..TILE * depth).map(|_| rng.unit() * size).collect();
            x[0] *= 100.0;
            let blocks = Blocks::of(depth, 64);
            let want = pack(&Kernels::for_isa(Isa::Scalar).unwrap(), &x, depth, TILE, blocks);
            assert!(want.scale.iter().all(|s| s.is_finite()));
            for isa in Isa::available() {
                let got = pack(&Kernels::for_isa(isa).unwrap(), &x, depth, TILE, blocks);
                // The sum of squares may be fused, and so differ in its last bit.
                let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs();
                assert!(got.scale.iter().zip(&want.scale).all(close), "{isa} {depth} {size}");
                let near = |(a, b): (&i16, &i16)| a.abs_diff(*b) <= 1;
                assert!(got.q.iter().zip(&want.q).all(near), "{isa} {depth} {size}");
            }
        }
    }
}

/// Columns are packed as the same numbers are that lie in rows, and what is not there is zeros.
#[test]
fn columns_are_rows_turned() {
    let mut rng = Rng(5);
    for isa in Isa::available() {
        let k = Kernels::for_isa(isa).unwrap();
        for (n, columns, len) in
            [(1, 1, 2), (7, 12, 8), (30, 16, 144), (144, 256, 144), (9, 300, 10)]
        {
            let ld = columns + 5;
            let mut x: Vec<f32> = (0..n * ld).map(|_| rng.unit() * 3.0).collect();
            x[0] *= 100.0;
            let turned: Vec<f32> = (0..columns * n).map(|i| x[i % n * ld + i / n]).collect();
            let tiles = columns.div_ceil(TILE);
            let mut want = (vec![0; tiles * len * TILE], vec![0.0; tiles * TILE]);
            let groups = want.0.chunks_mut(len * TILE).zip(want.1.chunks_mut(TILE));
            for (tile, (q, scale)) in groups.enumerate() {
                let first = tile * TILE;
                let rows = TILE.min(columns - first);
                k.pack_fixed(&turned[first * n..], n, n, rows, TILE, q, scale);
            }
            let mut got = (vec![-1; tiles * len * TILE], vec![f32::NAN; tiles * TILE]);
            k.pack_fixed_columns(&x, ld, n, columns, len, &mut got.0, &mut got.1);
            // Sums of squares in another order.
            for (a, b) in got.1.iter().zip(&want.1) {
                assert!((a - b).abs() <= 1e-6 * b, "{isa} {n} {columns}: {a} {b}");
            }
            for (i, (a, b)) in got.0.iter().zip(&want.0).enumerate() {
                assert!(a.abs_diff(*b) <= 1, "{isa} {n} {columns} word {i}: {a} {b}");
            }
        }
    }
}

/// Rows that are not all there are refused, whatever reads them.
#[test]
fn short_rows_are_refused() {
    for isa in Isa::available() {
        let kernels = Kernels::for_isa(isa).expect("available");
        for group in [PANEL, TILE] {
            let pack = |x: &[f32]| {
                let (mut q, mut scale) = (vec![0; 64 * group], vec![0.0; group]);
                kernels.pack_fixed(x, 64, 64, 3, group, &mut q, &mut scale);
            };
            pack(&[1.0; 3 * 64]);
            let short = std::panic::catch_unwind(|| pack(&[1.0; 3 * 64 - 1]));
            assert!(short.is_err(), "{isa}, groups of {group}");
        }
    }
}
