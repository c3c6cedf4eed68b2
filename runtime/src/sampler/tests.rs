use super::*;

fn sampler(params: SamplingParams) -> Sampler {
    Sampler::new(params).unwrap()
}

/// Everything open: no parameter cuts anything off.
fn open() -> SamplingParams {
    SamplingParams { top_k: 0, top_p: 1.0, min_p: 0.0, ..SamplingParams::default() }
}

/// Logits like a model's: a few tokens stand out of a noisy floor.
fn peaked(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = Rng::new(seed);
    (0..n)
        .map(|_| {
            let x = rng.unit() as f32;
            if rng.unit() < 0.001 { 10.0 * x } else { 4.0 * x - 8.0 }
        })
        .collect()
}

/// What `select` must find, from a full sort.
fn naive(logits: &[f32], params: &SamplingParams) -> Vec<u32> {
    let mut all: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
    all.retain(|&(_, x)| x > f32::NEG_INFINITY);
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if params.top_k > 0 {
        all.truncate(params.top_k);
    }
    let best = f64::from(all[0].1);
    let total: f64 = all.iter().map(|&(_, x)| (f64::from(x) - best).exp()).sum();
    let mut reached = 0.0;
    let mut kept = vec![];
    for &(id, x) in &all {
        let p = (f64::from(x) - best).exp();
        if p >= f64::from(params.min_p) {
            kept.push(id);
        }
        reached += p;
        if params.top_p < 1.0 && reached >= f64::from(params.top_p) * total {
            break;
        }
    }
    kept.sort_unstable();
    kept
}

#[test]
fn selection_agrees_with_a_full_sort() {
    let mut out = vec![];
    for seed in 0..40 {
        let n = [1, 7, 64, 65, 1000, 5000][seed as usize % 6];
        let mut logits = peaked(n, seed);
        if seed % 3 == 0 {
            // Ties, at the cut too.
            logits.iter_mut().for_each(|x| *x = x.round());
        }
        logits[n / 2] = f32::NEG_INFINITY;
        if n == 1 {
            logits[0] = 1.0;
        }
        for top_k in [0, 1, 2, 64, 900, 10_000] {
            for top_p in [0.05, 0.5, 0.95, 1.0] {
                for min_p in [0.0, 0.05, 1.0] {
                    let params = SamplingParams { top_k, top_p, min_p, ..open() };
                    select::candidates(&logits, &params, &mut out).unwrap();
                    let mut ids: Vec<u32> = out.iter().map(|c| c.id).collect();
                    ids.sort_unstable();
                    assert_eq!(ids, naive(&logits, &params), "{n} logits, {params:?}");
                }
            }
        }
    }
}

/// The likeliest tokens alone, in any order, give what all logits give.
#[test]
fn the_likeliest_are_enough() {
    for seed in 0..20 {
        let mut logits = peaked(3000, seed);
        if seed % 2 == 0 {
            logits.iter_mut().for_each(|x| *x = x.round());
        }
        logits[7] = f32::NEG_INFINITY;
        for params in [
            SamplingParams { seed, ..SamplingParams::default() },
            SamplingParams { seed, top_k: 20, min_p: 0.1, temperature: 2.0, ..open() },
            SamplingParams { seed, top_k: 1, ..open() },
            SamplingParams::greedy(),
        ] {
            let (mut all, mut few) = (sampler(params.clone()), sampler(params));
            let k = all.top_k(logits.len()).unwrap();
            let mut top = vec![];
            select::top(&logits, k, &mut top).unwrap();
            top.rotate_left(k / 2);
            for _ in 0..5 {
                assert_eq!(few.sample_top(&top), all.sample(&logits), "seed {seed}");
            }
        }
    }
    // Where a penalty or no top-k makes other tokens matter, they are not.
    let with = |params: SamplingParams| sampler(params).top_k(3000);
    assert_eq!(with(SamplingParams { repeat_penalty: 1.1, ..SamplingParams::default() }), None);
    assert_eq!(with(open()), None);
    assert_eq!(with(SamplingParams { top_k: 3000, ..open() }), None);
    // Bad ones are noticed.
    let mut s = sampler(SamplingParams::default());
    let bad = |logit| [Candidate { id: 3, logit: 1.0 }, Candidate { id: 9, logit }];
    let error = s.sample_top(&bad(f32::INFINITY));
    assert_eq!(error, Err(SamplingError::Logit { token: 9, value: f32::INFINITY }));
    assert!(s.sample_top(&bad(f32::NAN)).is_err());
    assert_eq!(s.sample_top(&bad(f32::NEG_INFINITY)), Ok(3));
    assert_eq!(s.sample_top(&[]), Err(SamplingError::NoToken { logits: 0 }));
}

#[test]
fn draws_follow_the_distribution() {
    let logits = [1.0f32, 0.0, -1.0, f32::NEG_INFINITY, 2.0];
    for temperature in [0.5f32, 1.0, 2.0] {
        let weights = logits.map(|x| (f64::from(x) / f64::from(temperature)).exp());
        let total: f64 = weights.iter().sum();
        let mut sampler = sampler(SamplingParams { temperature, seed: 7, ..open() });
        let mut counts = [0u32; 5];
        const N: u32 = 100_000;
        for _ in 0..N {
            counts[sampler.sample(&logits).unwrap() as usize] += 1;
        }
        for (count, weight) in counts.into_iter().zip(weights) {
            let p = weight / total;
            // Five standard deviations of a binomial count.
            let slack = 5.0 * (f64::from(N) * p * (1.0 - p)).sqrt();
            assert!((f64::from(count) - f64::from(N) * p).abs() <= slack, "{counts:?}");
        }
    }
}

#[test]
fn greedy_takes_the_first_of_the_best() {
    let mut sampler = sampler(SamplingParams::greedy());
    assert_eq!(sampler.sample(&[0.0, 3.0, 3.0, -1.0]), Ok(1));
    let mut logits = vec![-1.0; 262_144];
    logits[262_143] = -0.5;
    assert_eq!(sampler.sample(&logits), Ok(262_143));
}

#[test]
fn a_seed_fixes_the_tokens() {
    let logits = peaked(1000, 3);
    let draw = |seed| {
        let mut sampler = sampler(SamplingParams { seed, ..SamplingParams::default() });
        (0..20).map(|_| sampler.sample(&logits).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    // Fixed here for all time and all platforms.
    let logits: Vec<f32> = (0..100).map(|i| (i * 37 % 100) as f32 / 10.0).collect();
    let mut sampler = sampler(SamplingParams { seed: 42, ..open() });
    let ids: Vec<u32> = (0..8).map(|_| sampler.sample(&logits).unwrap()).collect();
    assert_eq!(ids, [8, 35, 62, 89, 97, 78, 70, 81]);
}

#[test]
fn repeats_are_penalized_within_the_window() {
    let params =
        SamplingParams { repeat_penalty: 2.0, repeat_last_n: Some(2), ..SamplingParams::greedy() };
    let mut sampler = sampler(params.clone());
    let logits = [4.0, 3.0, -1.0];
    assert_eq!(sampler.sample(&logits), Ok(0));
    sampler.accept(0);
    assert_eq!(sampler.sample(&logits), Ok(1));
    sampler.accept(1);
    assert_eq!(sampler.sample(&logits), Ok(0), "2 and 1.5, as 0 comes first in both");
    sampler.accept(1);
    sampler.accept(1);
    assert_eq!(sampler.sample(&logits), Ok(0), "0 is out of the window");
    // Negative logits go further down.
    assert_eq!(sampler.sample(&[-1.9, -1.0, -5.0]), Ok(0));
    // Tokens outside of the vocabulary are nobody's.
    sampler.accept(99);
    assert_eq!(sampler.sample(&logits), Ok(0));
}

#[test]
fn bad_logits_are_errors() {
    for params in [SamplingParams::greedy(), SamplingParams::default(), open()] {
        let mut sampler = sampler(params);
        let mut logits = vec![0.5; 300];
        logits[130] = f32::NAN;
        let Err(SamplingError::Logit { token: 130, value }) = sampler.sample(&logits) else {
            panic!("NaN")
        };
        assert!(value.is_nan());
        logits[130] = f32::INFINITY;
        let err = sampler.sample(&logits).unwrap_err();
        assert_eq!(err, SamplingError::Logit { token: 130, value: f32::INFINITY });
        assert_eq!(sampler.sample(&[]), Err(SamplingError::NoToken { logits: 0 }));
        let none = [f32::NEG_INFINITY; 3];
        assert_eq!(sampler.sample(&none), Err(SamplingError::NoToken { logits: 3 }));
        assert_eq!(sampler.sample(&[f32::NEG_INFINITY, f32::MIN, f32::NEG_INFINITY]), Ok(1));
        assert!(sampler.sample(&[f32::MIN, f32::MAX]).is_ok());
    }
}

#[test]
fn bad_parameters_are_errors() {
    let good = SamplingParams::default;
    for bad in [
        SamplingParams { temperature: -0.1, ..good() },
        SamplingParams { temperature: f32::NAN, ..good() },
        SamplingParams { top_p: 0.0, ..good() },
        SamplingParams { top_p: 1.1, ..good() },
        SamplingParams { min_p: -0.1, ..good() },
        SamplingParams { repeat_penalty: 0.0, ..good() },
        SamplingParams { repeat_penalty: f32::INFINITY, ..good() },
        SamplingParams { frequency_penalty: f32::NAN, ..good() },
        SamplingParams { presence_penalty: f32::INFINITY, ..good() },
        SamplingParams { logit_bias: vec![(1, f32::INFINITY)], ..good() },
    ] {
        assert!(
            matches!(Sampler::new(bad.clone()), Err(SamplingError::Parameter { .. })),
            "{bad:?}"
        );
    }
}

#[test]
fn what_was_drawn_is_penalized() {
    let params = SamplingParams {
        frequency_penalty: 0.5,
        presence_penalty: 0.25,
        logit_bias: vec![(2, 2.0), (99, 7.0)],
        ..SamplingParams::greedy()
    };
    let mut sampler = sampler(params);
    assert!(!sampler.is_greedy() && sampler.top_k(3).is_none());
    // The prompt does not count; the bias does.
    sampler.begin(&[0, 0, 0]);
    let logits = [4.0, 3.5, 1.625];
    let mut next = || {
        let next = sampler.sample(&logits).unwrap();
        sampler.accept(next);
        next
    };
    // 4 | 3.25, then 2.75, 2.25, …; 3.5 | 2.75 …; 3.625 | 2.875 …
    let drawn: Vec<u32> = (0..7).map(|_| next()).collect();
    assert_eq!(drawn, [0, 2, 1, 0, 2, 0, 1]);
    sampler.begin(&[]);
    assert_eq!(sampler.sample(&logits), Ok(0), "another sequence");
}

#[test]
fn probabilities_are_the_softmax() {
    let logits = [1.0f32, 3.0, f32::NEG_INFINITY, 2.0];
    let sum: f64 = [1.0f64, 3.0, 2.0].iter().map(|x| x.exp()).sum();
    let want = |logit: f64| (logit - sum.ln()) as f32;
    let got = LogProbs::new(&logits, 0, 2).unwrap();
    assert_eq!(got, LogProbs { token: want(1.0), top: vec![(1, want(3.0)), (3, want(2.0))] });
    let none = LogProbs::new(&logits, 2, 0).unwrap();
    assert_eq!((none.token, none.top.len()), (f32::NEG_INFINITY, 0));
    assert!(LogProbs::new(&[f32::NAN, 0.0], 1, 0).is_err());
}

#[test]
fn a_file_recommends() {
    use quant::gguf::{Gguf, Layout, MetaValue};
    let read = |keys: &[(&str, MetaValue)]| {
        let keys: Vec<_> = keys.iter().map(|(k, v)| (k.to_string(), v.clone())).collect();
        let file = Layout::new(&keys, &[]).unwrap().header;
        SamplingParams::from_gguf(&Gguf::parse(&file).unwrap())
    };
    assert_eq!(read(&[]).unwrap(), SamplingParams::default());
    let params = read(&[
        ("general.sampling.temp", MetaValue::F32(0.5)),
        ("general.sampling.top_k", MetaValue::I32(20)),
        ("general.sampling.penalty_last_n", MetaValue::I32(-1)),
        ("lapidary.sampling.temp", MetaValue::F32(0.25)),
        ("lapidary.sampling.min_p", MetaValue::F32(0.01)),
    ])
    .unwrap();
    let expected = SamplingParams {
        temperature: 0.25,
        top_k: 20,
        min_p: 0.01,
        repeat_last_n: None,
        ..SamplingParams::default()
    };
    assert_eq!(params, expected);
    let text = MetaValue::String("hot".into());
    assert!(read(&[("general.sampling.temp", text)]).is_err());
}

/// Prints what a draw from a Gemma vocabulary takes: `cargo test --release -p lapidary-runtime
/// sampler::tests::speed -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn speed() {
    let logits = peaked(262_144, 1);
    for (name, params) in [
        ("greedy", SamplingParams::greedy()),
        ("top-k 64, top-p", SamplingParams::default()),
        ("and a penalty", SamplingParams { repeat_penalty: 1.1, ..SamplingParams::default() }),
        ("top-p alone", SamplingParams { top_k: 0, ..SamplingParams::default() }),
        ("nothing", open()),
    ] {
        let mut sampler = sampler(params);
        sampler.accept(1);
        let times = (0..200).map(|_| {
            let start = std::time::Instant::now();
            sampler.sample(std::hint::black_box(&logits)).unwrap();
            start.elapsed()
        });
        println!("{name}: {:?}", times.min().unwrap());
    }
}
