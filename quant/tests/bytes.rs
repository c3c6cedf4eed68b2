//! Products of bytes made on the spot: every instruction set of this CPU against the oracle, and the
//! oracle against sums in f64.

use lapidary_quant::kernels::bytes::BytesJob;
use lapidary_quant::kernels::fixed::{PANEL, TILE};
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

struct Tiles {
    q: Vec<i8>,
    scale: Vec<f32>,
    start: Vec<i32>,
}

/// Tiles with a group of something else behind each, so that `stride` is 2.
fn tiles(k: &Kernels, x: &[f32], depth: usize, len: usize) -> Tiles {
    let rows = x.len() / depth;
    let groups = 2 * rows.div_ceil(TILE);
    let mut out = Tiles {
        q: vec![77; groups * len * TILE],
        scale: vec![f32::NAN; groups * TILE],
        start: vec![i32::MIN; groups * TILE],
    };
    for (i, first) in (0..rows).step_by(TILE).enumerate() {
        k.pack_tile_bytes(
            &x[first * depth..],
            depth,
            depth,
            TILE.min(rows - first),
            &mut out.q[2 * i * len * TILE..][..len * TILE],
            &mut out.scale[2 * i * TILE..][..TILE],
            &mut out.start[2 * i * TILE..][..TILE],
        );
    }
    out
}

/// Packs both, multiplies, `[rows, PANEL]`.
fn multiply(k: &Kernels, panel: &[f32], x: &[f32], depth: usize) -> Vec<f32> {
    let (len, lanes, rows) = (depth.next_multiple_of(4), panel.len() / depth, x.len() / depth);
    let (mut q, mut scale) = (vec![1; len * PANEL], vec![f32::NAN; PANEL]);
    k.pack_panel_bytes(panel, depth, depth, lanes, &mut q, &mut scale);
    let t = tiles(k, x, depth, len);
    let job = BytesJob {
        len,
        panel: &q,
        panel_scale: &scale,
        tiles: &t.q,
        tile_scale: &t.scale,
        tile_start: &t.start,
        stride: 2,
        rows,
    };
    let ld = PANEL + 3;
    let mut y = vec![f32::NAN; rows * ld];
    k.multiply_bytes(&job, &mut y, ld, false);
    // Added once more, and nothing written between the rows.
    let mut twice = y.clone();
    k.multiply_bytes(&job, &mut twice, ld, true);
    for (once, twice) in y.chunks(ld).zip(twice.chunks(ld)) {
        for (a, b) in once[..PANEL].iter().zip(twice) {
            assert!((2.0 * a - b).abs() <= 1e-6 * a.abs(), "{a} {b}");
        }
        assert!(twice[PANEL..].iter().all(|v| v.is_nan()));
    }
    y.chunks(ld).flat_map(|y| &y[..PANEL]).copied().collect()
}

/// A quant is off by half a unit, 1/254 of the row's largest: the products' errors are the other
/// factor's sizes times that, in the worst case.
#[test]
fn close_to_exact() {
    let mut rng = Rng(5);
    for depth in [1, 3, 4, 13, 16, 17, 72, 80, 144] {
        for rows in [1, 2, 11, 12, 13, 40] {
            for lanes in [1, 31, 32] {
                let panel: Vec<f32> = (0..lanes * depth).map(|_| rng.unit() * 0.02).collect();
                let x: Vec<f32> = (0..rows * depth).map(|_| rng.unit() * 5.0).collect();
                let want = multiply(&Kernels::for_isa(Isa::Scalar).unwrap(), &panel, &x, depth);
                for (x, y) in x.chunks(depth).zip(want.chunks(PANEL)) {
                    for (w, y) in panel.chunks(depth).zip(y) {
                        let exact: f64 =
                            w.iter().zip(x).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                        let largest =
                            |v: &[f32]| f64::from(v.iter().fold(0.0f32, |m, v| m.max(v.abs())));
                        let total = |v: &[f32]| v.iter().map(|v| f64::from(v.abs())).sum::<f64>();
                        let bound = largest(w) / 254.0 * total(x)
                            + largest(x) / 254.0 * (total(w) + depth as f64 * largest(w) / 254.0);
                        let error = (f64::from(*y) - exact).abs();
                        assert!(error <= bound * 1.001 + 1e-9, "{depth} {rows}: {error} > {bound}");
                    }
                    assert!(y[lanes..].iter().all(|v| *v == 0.0), "missing rows are zeros");
                }
                for isa in Isa::available() {
                    let got = multiply(&Kernels::for_isa(isa).unwrap(), &panel, &x, depth);
                    for (got, want) in got.iter().zip(&want) {
                        // The same integers; the last product may be fused with an addition of 0.
                        assert!((got - want).abs() <= 1e-6 * want.abs(), "{isa}: {got} {want}");
                    }
                }
            }
        }
    }
}

/// Sums of the largest quants there are, and rows that cannot be scaled.
#[test]
fn extremes() {
    for isa in Isa::available() {
        let k = Kernels::for_isa(isa).unwrap();
        for sign in [1.0, -1.0] {
            let depth = 1 << 12;
            let y = multiply(&k, &vec![3.0; depth], &vec![sign * 2.0; depth], depth)[0];
            assert!((y / (6.0 * sign * depth as f32) - 1.0).abs() < 1e-6, "{isa} {y}");
        }
        for size in [0.0, 1e-42] {
            let y = multiply(&k, &[1.0; 8], &[size; 8], 8);
            assert!(y.iter().all(|v| v.abs() <= 1e-37), "{isa} {size} {:?}", &y[..2]);
        }
    }
}
