//! The likeliest tokens, found on the device.

use super::super::device::Device;
use super::super::top::TopK;
use super::{noise, shared};
use crate::sampler::Candidate;

fn top(device: &Device, logits: &[f32], k: usize) -> Vec<Candidate> {
    let buffer = device.floats("logits", logits);
    let top = TopK::new(device, &buffer, logits.len(), k);
    let mut encoder = device.device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default()).forget_lifetime();
    top.encode(|op, grid| op.dispatch(device, &mut pass, grid.map(|g| g as u32)));
    drop(pass);
    top.copy(&mut encoder);
    device.queue.submit([encoder.finish()]);
    let mut found = top.read(device).unwrap();
    found.sort_by(|a, b| b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id)));
    found
}

/// From a full sort; of equal logits the lower ids.
fn naive(logits: &[f32], k: usize) -> Vec<Candidate> {
    let mut all: Vec<_> =
        (0u32..).zip(logits).map(|(id, &logit)| Candidate { id, logit }).collect();
    all.sort_by(|a, b| b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id)));
    all.truncate(k);
    all
}

#[test]
fn the_likeliest_are_those_of_a_full_sort() {
    let Some(device) = shared() else { return };
    for n in [1, 2, 255, 4096, 4097, 20_000, 70_001] {
        for k in [1, 2, 64, 256] {
            let plain: Vec<f32> = noise(n, n as u32).iter().map(|x| x * 30.0).collect();
            // Many equal ones, at the cut and across workgroups; both zeros, both infinities' ends.
            let coarse: Vec<f32> = plain.iter().map(|x| (x / 8.0).round()).collect();
            let mut edges = plain.clone();
            for (i, x) in edges.iter_mut().enumerate() {
                match i % 7 {
                    0 => *x = f32::NEG_INFINITY,
                    1 => *x = -0.0,
                    2 => *x = 0.0,
                    3 => *x = f32::MIN_POSITIVE / 2.0,
                    4 => *x = f32::MIN,
                    _ => {}
                }
            }
            for logits in [plain, coarse, edges, vec![1.5; n]] {
                assert_eq!(top(&device, &logits, k), naive(&logits, k), "{n} logits, k {k}");
            }
        }
    }
}

/// What went wrong must not go unnoticed: NaN of either sign comes first, then +∞.
#[test]
fn bad_logits_are_found_first() {
    let Some(device) = shared() else { return };
    for bad in [f32::NAN, -f32::NAN, f32::INFINITY] {
        let mut logits = noise(9000, 3);
        logits[8999] = bad;
        let found = top(&device, &logits, 5);
        assert_eq!(found.len(), 5);
        let at = found.iter().find(|c| c.id == 8999).expect("it is among them");
        assert!(at.logit.is_nan() == bad.is_nan() && !at.logit.is_finite(), "{at:?}");
    }
}
