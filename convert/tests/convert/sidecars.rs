//! What lies beside the weights: templates, generation_config.json, the preprocessor's file.

use crate::common::*;
use lapidary_convert::Note;
use quant::DType;
use quant::gguf::{Gguf, Value};

#[test]
fn templates_come_in_three_places_and_two_forms() {
    let template = |files: &[(&str, &str)], key: &str| {
        let mut c = Checkpoint::gemma3();
        c.files.remove("tokenizer_config.json");
        c.files.extend(files.iter().map(|(n, t)| ((*n).into(), t.as_bytes().to_vec())));
        let (_dir, out, summary) = converted(&c, DType::Q4_0);
        let file = std::fs::read(out).unwrap();
        let g = Gguf::parse(&file).unwrap();
        (g.str(key).unwrap().map(String::from), summary.notes)
    };
    let key = "tokenizer.chat_template";
    let config = ("tokenizer_config.json", r#"{"chat_template": "config"}"#);
    let json = ("chat_template.json", r#"{"chat_template": "json"}"#);
    let jinja = ("chat_template.jinja", "jinja");
    assert_eq!(template(&[], key), (None, vec![Note::NoChatTemplate]));
    assert_eq!(template(&[config], key).0.unwrap(), "config");
    assert_eq!(template(&[config, json], key).0.unwrap(), "json");
    assert_eq!(template(&[config, json, jinja], key).0.unwrap(), "jinja");
    let list = r#"{"chat_template": [{"name": "default", "template": "a"}, {"name": "rag", "template": "b"}]}"#;
    let list = ("tokenizer_config.json", list);
    assert_eq!(template(&[list], key).0.unwrap(), "a");
    assert_eq!(template(&[list], "tokenizer.chat_template.rag").0.unwrap(), "b");
}

#[test]
fn more_than_two_ends_are_all_kept() {
    let mut c = Checkpoint::gemma3();
    let config = br#"{"eos_token_id": [1, 6, 5]}"#.to_vec();
    c.files.insert("generation_config.json".into(), config);
    let (_dir, out, _) = converted(&c, DType::Q4_0);
    let file = std::fs::read(out).unwrap();
    let g = Gguf::parse(&file).unwrap();
    let all = g.array("tokenizer.ggml.eos_token_ids").unwrap().unwrap();
    assert_eq!(all.i64s().unwrap(), [1, 6, 5]);
    assert_eq!(g.get("general.sampling.temp"), None);
}

#[test]
fn no_temperature_and_no_sampling_mean_the_likeliest_token() {
    let temperature = |config: &str| {
        let mut c = Checkpoint::gemma3();
        c.files.insert("generation_config.json".into(), config.into());
        let (_dir, out, _) = converted(&c, DType::Q4_0);
        let file = std::fs::read(out).unwrap();
        Gguf::parse(&file).unwrap().f32("general.sampling.temp").unwrap()
    };
    assert_eq!(temperature(r#"{"temperature": 0.0}"#), Some(0.0));
    assert_eq!(temperature(r#"{"temperature": 0, "do_sample": true}"#), Some(0.0));
    assert_eq!(temperature(r#"{"do_sample": false}"#), Some(0.0));
    assert_eq!(temperature(r#"{"do_sample": false, "temperature": 0.7}"#), Some(0.0));
    assert_eq!(temperature(r#"{"do_sample": true}"#), Some(1.0));
    assert_eq!(temperature(r#"{"do_sample": true, "temperature": 0.7}"#), Some(0.7));
    assert_eq!(temperature(r#"{"do_sample": null, "temperature": 0.7}"#), Some(0.7));
    assert_eq!(temperature("{}"), None);
}

#[test]
fn sampling_defaults_are_kept() {
    let config = r#"{"temperature": 0.6, "top_k": 0, "top_p": 0.8, "min_p": 0.05,
        "repetition_penalty": 1.25}"#;
    let mut c = Checkpoint::gemma3();
    c.files.insert("generation_config.json".into(), config.into());
    let (_dir, out, _) = converted(&c, DType::Q4_0);
    let file = std::fs::read(out).unwrap();
    let g = Gguf::parse(&file).unwrap();
    for (name, value) in [
        ("temp", Value::F32(0.6)),
        ("top_k", Value::I32(0)),
        ("top_p", Value::F32(0.8)),
        ("min_p", Value::F32(0.05)),
        ("penalty_repeat", Value::F32(1.25)),
        ("penalty_last_n", Value::I32(-1)),
    ] {
        assert_eq!(g.get(&format!("general.sampling.{name}")), Some(value), "{name}");
    }
}

#[test]
fn the_file_has_pixels_normalized_as_the_preprocessor_does() {
    // A pixel of 0, 100 and 255 as Transformers computes it: (v * rescale - mean) / std.
    for (config, [rescale, mean, std]) in [
        ("{}", [1.0 / 255.0, 0.5, 0.5]),
        (r#"{"rescale_factor": 0.00392157}"#, [1.0 / 255.0, 0.5, 0.5]),
        (r#"{"rescale_factor": 0.0078431372549}"#, [2.0 / 255.0, 0.5, 0.5]),
        (r#"{"image_mean": [1, 1, 1], "rescale_factor": 0.0625}"#, [0.0625, 1.0, 0.5]),
        (r#"{"image_mean": [9, 9, 9], "do_rescale": false}"#, [1.0, 9.0, 0.5]),
        (r#"{"image_mean": [9, 9, 9], "do_normalize": false}"#, [1.0 / 255.0, 0.0, 1.0]),
        (r#"{"do_normalize": false, "rescale_factor": 0.0625}"#, [0.0625, 0.0, 1.0]),
        (r#"{"do_normalize": false, "do_rescale": false}"#, [1.0, 0.0, 1.0]),
    ] {
        for name in ["preprocessor_config.json", "processor_config.json"] {
            let mut c = Checkpoint::multimodal();
            let nested = format!("{{\"image_processor\": {config}}}");
            let text = if name == "processor_config.json" { nested } else { config.into() };
            c.files.insert(name.into(), text.into_bytes());
            let (_dir, _, summary) = converted(&c, DType::Q4_0);
            assert_eq!(summary.notes, []);
            let file = std::fs::read(&summary.files[1].path).unwrap();
            let g = Gguf::parse(&file).unwrap();
            let read = |key| g.array(key).unwrap().unwrap().f32s().unwrap();
            let (means, stds) = (read("clip.vision.image_mean"), read("clip.vision.image_std"));
            assert_eq!((means.len(), stds.len()), (3, 3));
            for (m, s) in means.into_iter().zip(stds) {
                for v in [0.0, 100.0, 255.0] {
                    let want = (v * rescale - mean) / std;
                    let got = (v / 255.0 - f64::from(m)) / f64::from(s);
                    assert!(
                        (got - want).abs() <= 1e-5 * want.abs().max(1.0),
                        "{config} {v}: {got}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_way_of_resizing_that_is_not_kept_is_named() {
    for (config, notes) in [
        (r#"{"resample": 2}"#, vec![]),
        (r#"{"resample": null}"#, vec![]),
        (r#"{"resample": 3}"#, vec![Note::Resample { value: "3".into() }]),
    ] {
        let mut c = Checkpoint::multimodal();
        c.files.insert("preprocessor_config.json".into(), config.into());
        let (_dir, _, summary) = converted(&c, DType::Q4_0);
        assert_eq!(summary.notes, notes, "{config}");
    }
}

#[test]
fn a_byte_order_mark_before_json_is_skipped() {
    let mut c = Checkpoint::multimodal();
    c.files.insert("preprocessor_config.json".into(), br#"{"resample": 2}"#.to_vec());
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    let out = dir.path().join("out.gguf");
    let mut options = options(&model, &out, DType::Q4_0);
    options.force = true;
    let convert = |marked: bool, scored: bool| {
        c.write_sharded(&model, 2);
        if scored {
            std::fs::write(model.join("tokenizer.model"), tokenizer_model()).unwrap();
        }
        let mut files = 0;
        for (path, bytes) in listing(&model) {
            if marked && path.extension().is_some_and(|e| e == "json") {
                std::fs::write(path, [b"\xef\xbb\xbf", &bytes[..]].concat()).unwrap();
                files += 1;
            }
        }
        assert!(!marked || files == 6, "{files}");
        run(&options).unwrap();
        (std::fs::read(&out).unwrap(), std::fs::read(dir.path().join("mmproj-out.gguf")).unwrap())
    };
    assert_eq!(convert(true, false), convert(false, false));
    assert_eq!(convert(true, true), convert(false, true));
}
