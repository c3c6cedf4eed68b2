//! The tower's layers on a GPU.

use super::*;

/// The same with the layers on a GPU, where everything is f32: the CPU's rounding remains at both
/// ends. A device that is lost is replaced by the CPU.
#[test]
fn pixels_give_the_features_of_transformers_on_a_gpu() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static TOLD: AtomicUsize = AtomicUsize::new(0);
    let tell = |_: &runtime::gpu::GpuError| {
        TOLD.fetch_add(1, Ordering::Relaxed);
    };
    let Some(device) = common::gpu::open_device(&Default::default()) else { return };
    let golden = Golden::load();
    let never = AtomicBool::new(false);
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        if dtype == DType::BF16 {
            // From now on, as through Metal.
            device.doubt_reads();
        }
        let dir = convert(FIXTURE, dtype, dtype);
        let mut tower = tower(dir.path(), &VisionOptions::default());
        tower.use_gpu(&device, tell).unwrap();
        let check = |tower: &VisionTower| {
            for image in ["1", "2"] {
                let got = encode(tower, &golden.floats(&format!("pixels_{image}")));
                let error = worst_error(got.data(), &golden.floats(&format!("features_{image}")));
                println!("image {image} {dtype}: {error:.1e} of σ");
                assert!(error < 1e-3, "image {image} {dtype}: {error}");
            }
        };
        check(&tower);
        assert!(tower.device().is_some() && TOLD.load(Ordering::Relaxed) == 0);
        let stopped = tower.encode(&golden.floats("pixels_1"), &AtomicBool::new(true));
        assert!(matches!(stopped, Err(RuntimeError::Cancelled)));
        if dtype == DType::F16 {
            device.lose();
            check(&tower);
            assert!(tower.device().is_none());
            assert_eq!(TOLD.load(Ordering::Relaxed), 1, "told once");
            assert!(tower.use_gpu(&device, tell).is_err());
            assert!(tower.encode(&golden.floats("pixels_1"), &never).is_ok());
        }
    }
}
