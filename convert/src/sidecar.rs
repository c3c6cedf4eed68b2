//! The small files beside the weights: chat template, sampling defaults, special token ids, image
//! normalization.

use std::path::Path;

use serde_json::Value;

use crate::ConvertError;
use crate::json::{self, Object};
use crate::summary::Note;
use crate::tokenizer::Vocab;

/// Chat templates by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChatTemplates {
    /// The one to use.
    pub default: Option<String>,
    /// Others, with their names.
    pub named: Vec<(String, String)>,
}

impl ChatTemplates {
    /// chat_template.jinja, else chat_template.json, else tokenizer_config.json; a string, or a
    /// list of named ones.
    pub(crate) fn read(dir: &Path) -> Result<Self, ConvertError> {
        let jinja = dir.join("chat_template.jinja");
        if let Some(bytes) = json::read(&jinja)? {
            let text = String::from_utf8(bytes).map_err(|_| ConvertError::Config {
                path: jinja,
                message: "it is not valid UTF-8".into(),
            })?;
            return Ok(ChatTemplates { default: Some(text), named: Vec::new() });
        }
        for name in ["chat_template.json", "tokenizer_config.json"] {
            let Some(file) = Object::read(&dir.join(name))? else { continue };
            if let Some(value) = file.get("chat_template") {
                return Self::parse(&file, value);
            }
        }
        Ok(ChatTemplates::default())
    }

    fn parse(file: &Object, value: &Value) -> Result<Self, ConvertError> {
        let wrong = || file.wrong("chat_template", value, "a string or a list is needed");
        let mut templates = ChatTemplates::default();
        match value {
            Value::String(text) => templates.default = Some(text.clone()),
            Value::Array(list) => {
                for item in list {
                    let (Some(name), Some(text)) =
                        (item["name"].as_str(), item["template"].as_str())
                    else {
                        return Err(wrong());
                    };
                    match name {
                        "default" => templates.default = Some(text.into()),
                        _ => templates.named.push((name.into(), text.into())),
                    }
                }
            }
            _ => return Err(wrong()),
        }
        Ok(templates)
    }
}

/// Sampling defaults of the checkpoint's authors.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sampling {
    /// Temperature; 0 takes the likeliest token always.
    pub temperature: Option<f32>,
    /// Candidates kept.
    pub top_k: Option<u32>,
    /// Probability mass kept.
    pub top_p: Option<f32>,
    /// Least probability kept, as a share of the likeliest token's.
    pub min_p: Option<f32>,
    /// What the logits of tokens seen before are divided by, or multiplied with where negative.
    pub repeat_penalty: Option<f32>,
}

impl Sampling {
    /// Reads a parsed generation_config.json.
    pub(crate) fn read(config: &Object) -> Result<Self, ConvertError> {
        let temperature = config.not_negative("temperature")?.map(|t| t as f32);
        let top_p = config.number(
            "top_p",
            |p| p > 0.0 && p <= 1.0,
            "a number above zero, up to 1, is needed",
        )?;
        let min_p = config.number(
            "min_p",
            |p| (0.0..=1.0).contains(&p),
            "a number from 0 to 1 is needed",
        )?;
        Ok(Sampling {
            temperature: match config.get("do_sample").and_then(Value::as_bool) {
                // Transformers takes no notice of a temperature then.
                Some(false) => Some(0.0),
                // Authors who ask for sampling and name no temperature mean Transformers' default.
                Some(true) => temperature.or(Some(1.0)),
                None => temperature,
            },
            top_k: match config.get("top_k") {
                Some(v) if v.as_u64() == Some(0) => Some(0),
                Some(_) => Some(config.count("top_k", 0, i32::MAX as u32)?),
                None => None,
            },
            top_p: top_p.map(|p| p as f32),
            min_p: min_p.map(|p| p as f32),
            repeat_penalty: config.positive("repetition_penalty")?.map(|p| p as f32),
        })
    }
}

/// Ids of special tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SpecialIds {
    /// Starts every text.
    pub bos: Option<u32>,
    /// All tokens that end a text, the first being the tokenizer's own.
    pub eos: Vec<u32>,
    /// Ends a turn.
    pub eot: Option<u32>,
    /// Stands for text without a token.
    pub unknown: Option<u32>,
    /// Fills batches.
    pub padding: Option<u32>,
    /// Masks a token.
    pub mask: Option<u32>,
    /// Does the tokenizer put bos in front?
    pub add_bos: bool,
    /// Does it put eos behind?
    pub add_eos: bool,
}

impl SpecialIds {
    /// From generation_config.json and config.json (ids), tokenizer_config.json (texts) and the
    /// names that Gemma's vocabulary gives them.
    pub(crate) fn read(
        dir: &Path,
        config: &Object,
        generation: Option<&Object>,
        vocab: &Vocab,
    ) -> Result<Self, ConvertError> {
        let tokenizer = Object::read(&dir.join("tokenizer_config.json"))?;
        let tokenizer = tokenizer.as_ref();
        let named = |key: &str| -> Option<u32> {
            let value = tokenizer?.get(key)?;
            vocab.id(value.as_str().or(value["content"].as_str())?)
        };
        let nested = config.object("text_config");
        let sources: Vec<&Object> = generation.into_iter().chain([config]).chain(&nested).collect();
        let one = |what: &str, text: &str| -> Result<Option<u32>, ConvertError> {
            if let Some(id) = named(&format!("{what}_token")) {
                return Ok(Some(id));
            }
            let key = format!("{what}_token_id");
            match sources.iter().find_map(|o| o.get(&key).map(|v| (o, v))) {
                Some((o, v)) => Ok(Some(id(o, &key, v, vocab)?)),
                None => Ok(vocab.id(text)),
            }
        };
        let mut eos = Vec::new();
        let listed = sources.iter().find_map(|o| o.get("eos_token_id").map(|v| (o, v)));
        if let Some((o, value)) = listed {
            let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            for item in items {
                let id = id(o, "eos_token_id", item, vocab)?;
                if !eos.contains(&id) {
                    eos.push(id);
                }
            }
        }
        if eos.is_empty() {
            eos.extend(named("eos_token").or(vocab.id("<eos>")));
        }
        let flag = |key: &str, default: bool| {
            tokenizer.and_then(|t| t.get(key)).and_then(Value::as_bool).unwrap_or(default)
        };
        let eot = vocab.id("<end_of_turn>").filter(|id| eos.contains(id) && eos[0] != *id);
        Ok(SpecialIds {
            bos: one("bos", "<bos>")?,
            eot,
            eos,
            unknown: one("unk", "<unk>")?,
            padding: one("pad", "<pad>")?,
            mask: named("mask_token"),
            add_bos: flag("add_bos_token", true),
            add_eos: flag("add_eos_token", false),
        })
    }
}

fn id(o: &Object, key: &str, value: &Value, vocab: &Vocab) -> Result<u32, ConvertError> {
    match value.as_u64() {
        Some(id) if id < vocab.tokens.len() as u64 => Ok(id as u32),
        _ => {
            let expected = format!("an id below {} is needed", vocab.tokens.len());
            Err(o.wrong(key, value, expected))
        }
    }
}

/// How pixels are normalized before the vision tower: `(v / 255 - mean) / std` per channel.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ImageNorm {
    /// Mean of each channel.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel.
    pub std: Vec<f32>,
}

impl ImageNorm {
    /// From processor_config.json or preprocessor_config.json, else Gemma's own. Transformers
    /// computes `(v * rescale_factor - mean) / std`; GGUF has keys for mean and standard deviation
    /// alone, which take the factor in. A way of resizing that it has no key for becomes a note.
    pub(crate) fn read(
        dir: &Path,
        channels: usize,
        notes: &mut Vec<Note>,
    ) -> Result<Self, ConvertError> {
        let mut norm = ImageNorm { mean: vec![0.5; channels], std: vec![0.5; channels] };
        let (mut rescales, mut normalizes, mut factor) = (true, true, 1.0 / 255.0);
        let mut resample = None;
        for name in ["preprocessor_config.json", "processor_config.json"] {
            let Some(file) = Object::read(&dir.join(name))? else { continue };
            let file = file.object("image_processor").unwrap_or(file);
            for (key, out) in [("image_mean", &mut norm.mean), ("image_std", &mut norm.std)] {
                let Some(value) = file.get(key) else { continue };
                let read: Option<Vec<f32>> = value
                    .as_array()
                    .and_then(|list| list.iter().map(|v| v.as_f64().map(|v| v as f32)).collect());
                match read {
                    Some(v) if v.len() == channels && v.iter().all(|x| x.is_finite()) => *out = v,
                    _ => return Err(file.wrong(key, value, format!("{channels} numbers needed"))),
                }
            }
            rescales = file.flag("do_rescale")?.unwrap_or(rescales);
            normalizes = file.flag("do_normalize")?.unwrap_or(normalizes);
            if let Some(value) = file.get("rescale_factor") {
                factor = match value.as_f64() {
                    Some(r) if (1e-6..=1e6).contains(&r) => r,
                    _ => {
                        let expected = "a number from 0.000001 to 1000000 is needed";
                        return Err(file.wrong("rescale_factor", value, expected));
                    }
                };
            }
            resample = file.get("resample").cloned().or(resample);
        }
        // 2 is Transformers' number for bilinear interpolation.
        notes.extend(
            resample
                .filter(|v| v.as_f64() != Some(2.0))
                .map(|v| Note::Resample { value: v.to_string() }),
        );
        if !normalizes {
            norm = ImageNorm { mean: vec![0.0; channels], std: vec![1.0; channels] };
        }
        norm.rescale(255.0 * if rescales { factor } else { 1.0 });
        Ok(norm)
    }

    /// Makes it the same normalization for pixels that were `factor` times as large.
    fn rescale(&mut self, factor: f64) {
        // 255 times 1/255, which is written with more digits or fewer.
        if (factor - 1.0).abs() < 1e-6 {
            return;
        }
        for x in self.mean.iter_mut().chain(&mut self.std) {
            *x = (f64::from(*x) / factor) as f32;
        }
    }
}
