//! A GPU that fails at work, and the CPU that goes on.

use std::sync::atomic::AtomicUsize;

use runtime::gpu::GpuError;

use super::*;

/// A device that fails before, within and after an answer, with all layers on it or some: the CPU
/// goes on with the same answer, and with the conversation. It is told once.
#[test]
fn the_cpu_goes_on_where_a_device_fails() {
    static TOLD: AtomicUsize = AtomicUsize::new(0);
    fn tell(failure: &GpuError) {
        println!("{failure}");
        TOLD.fetch_add(1, Ordering::Relaxed);
    }
    if device().is_none() {
        return;
    }
    let model = demo(DType::BF16);
    // Longer than a sliding layer's ring.
    let long = "Tell me a story about a fox. ".repeat(25);
    let mut lost = 0;
    // Lost, or with a shader that its driver refuses.
    let [lose, refuse]: [fn(&Device); 2] = [Device::lose, Device::refuse];
    for (params, gpu_layers, at, fail) in [
        (SamplingParams::greedy(), None, 0, lose),
        (SamplingParams::greedy(), None, 5, lose),
        (SamplingParams::greedy(), None, 5, refuse),
        (SamplingParams::greedy(), Some(2), 6, lose),
        (SamplingParams::greedy(), Some(2), 6, refuse),
        (SamplingParams::greedy(), None, usize::MAX, lose),
        (SamplingParams { seed: 9, ..SamplingParams::default() }, None, 4, lose),
    ] {
        let cpu = SessionOptions { batch: 32, ..exact() };
        let device = open_device(&DeviceOptions::default()).unwrap();
        let gpu = SessionOptions {
            gpu: Some(device.clone()),
            gpu_layers,
            on_gpu_failure: Some(tell),
            ..cpu.clone()
        };
        let mut plain = Generator::new(Session::new(model.clone(), &cpu).unwrap());
        let mut shaken = Generator::new(Session::new(model.clone(), &gpu).unwrap());
        if at == 0 {
            fail(&device);
        }
        let want = answer(&mut plain, params.clone(), &long, |_| {});
        let fails = |pieces| {
            if pieces == at {
                fail(&device)
            }
        };
        assert_eq!(answer(&mut shaken, params.clone(), &long, fails), want, "lost at {at}");
        if at == usize::MAX {
            assert!(shaken.session().gpu().is_some());
            fail(&device);
        }
        for question in ["What is the capital of France?", "What is 3 + 4?"] {
            let want = answer(&mut plain, params.clone(), question, |_| {});
            assert_eq!(answer(&mut shaken, params.clone(), question, |_| {}), want, "{question}");
        }
        lost += 1;
        assert_eq!(TOLD.load(Ordering::Relaxed), lost, "told once");
        assert!(shaken.session().gpu().is_none());
    }
}

/// Pictures are read again as well, and other sequences; what can't be made good is an error.
#[test]
fn all_that_a_lost_device_held_is_read_again() {
    fn tell(_: &GpuError) {}
    if device().is_none() {
        return;
    }
    let dir = convert("gemma3-text", DType::F32, DType::F32);
    let model = open(dir.path());
    let features: Vec<f32> = (0..12 * 64).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
    let mut before = Prompt::from(vec![2, 9, 8, 7]);
    before.push_image(5, Arc::new(ImageRows::new(64, features)));
    before.extend(&[11, 12, 13]);
    let go = AtomicBool::new(false);
    let after = |options: &SessionOptions, shake: &dyn Fn(&mut Session)| {
        let mut session = Session::new(model.clone(), options).unwrap();
        session.append(0, &before, &go)?;
        session.append(1, &[2, 30, 31], &go)?;
        shake(&mut session);
        let mut out = session.append(1, &[32, 33], &go)?.to_vec();
        out.extend_from_slice(session.append(0, &[14, 15], &go)?);
        Ok::<_, RuntimeError>(out)
    };
    let cpu = SessionOptions { sequences: 2, batch: 16, ..exact() };
    let want = after(&cpu, &|_| {}).unwrap();
    let gpu = |on_gpu_failure| {
        let gpu = open_device(&DeviceOptions::default());
        SessionOptions { gpu, on_gpu_failure, ..cpu.clone() }
    };
    let lose = |session: &mut Session| session.gpu().unwrap().device().lose();
    let error = worst_error(&after(&gpu(Some(tell)), &lose).unwrap(), &want);
    assert!(error < 1e-3, "{error}");
    // Nobody is told: the failure itself.
    let failed = after(&gpu(None), &lose).unwrap_err();
    assert!(matches!(failed, RuntimeError::Gpu(GpuError::Lost { .. })), "{failed}");
    // A picture that was cut can't be read again.
    let failed = after(&gpu(Some(tell)), &|session| {
        assert_eq!(session.truncate(0, 9), 9);
        lose(session);
    });
    assert!(matches!(failed, Err(RuntimeError::Gpu(_))), "{failed:?}");
}
