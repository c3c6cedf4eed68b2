//! The fields that all requests for text have.

use std::collections::BTreeMap;

use runtime::grammar::Form;
use runtime::sampler::SamplingParams;
use serde::Deserialize;
use serde_json::Value;

use super::ApiError;

/// Answers that one request can have, and texts that can end them.
const MOST_CHOICES: usize = 16;
const MOST_STOPS: usize = 16;

/// How to write. A field that is left out, or `null`, is the server's default.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Common {
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<i64>,
    min_p: Option<f32>,
    repeat_penalty: Option<f32>,
    /// The same, as vLLM and Transformers call it.
    repetition_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    logit_bias: Option<BTreeMap<String, f32>>,
    seed: Option<i64>,
    stop: Option<OneOrMore>,
    max_tokens: Option<i64>,
    n: Option<usize>,
    ignore_eos: Option<bool>,
    response_format: Option<ResponseFormat>,
    /// The same in llama.cpp's words.
    json_schema: Option<Value>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "stop is a text or a list of texts")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Debug, Deserialize)]
struct ResponseFormat {
    r#type: String,
    json_schema: Option<JsonSchema>,
    /// Where llama.cpp's clients have it.
    schema: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct JsonSchema {
    schema: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

impl Common {
    /// The server's parameters with the request's over them.
    ///
    /// # Errors
    /// Names the field.
    pub(crate) fn sampling(
        &self,
        defaults: &SamplingParams,
        seed: Option<u64>,
        vocab: usize,
    ) -> Result<SamplingParams, ApiError> {
        let mut p = defaults.clone();
        let set = |field: &mut f32, value: Option<f32>| *field = value.unwrap_or(*field);
        set(&mut p.temperature, self.temperature);
        set(&mut p.top_p, self.top_p);
        set(&mut p.min_p, self.min_p);
        set(&mut p.repeat_penalty, self.repeat_penalty.or(self.repetition_penalty));
        set(&mut p.frequency_penalty, self.frequency_penalty);
        set(&mut p.presence_penalty, self.presence_penalty);
        if let Some(k) = self.top_k {
            // Others write -1 for all.
            p.top_k = usize::try_from(k).unwrap_or(0);
        }
        // Others write -1 for any.
        p.seed = match self.seed {
            Some(seed) if seed != -1 => seed as u64,
            _ => seed.unwrap_or_else(SamplingParams::fresh_seed),
        };
        for (id, &bias) in self.logit_bias.iter().flatten() {
            let token = id.parse::<u32>().ok().filter(|&id| (id as usize) < vocab);
            let Some(token) = token else {
                let message = format!("logit_bias: {id:?} is no token id below {vocab}");
                return Err(ApiError::field("logit_bias", message));
            };
            p.logit_bias.push((token, bias));
        }
        if p.top_p == 0.0 {
            // OpenAI's interface takes it for the likeliest token alone.
            p.top_p = f32::MIN_POSITIVE;
        }
        p.check().map_err(|e| ApiError::new(super::Status::BadRequest, e.to_string()))?;
        Ok(p)
    }

    /// Texts that end an answer.
    ///
    /// # Errors
    /// When there are too many.
    pub(crate) fn stops(&self) -> Result<Vec<String>, ApiError> {
        let texts = match &self.stop {
            None => Vec::new(),
            Some(OneOrMore::One(text)) => vec![text.clone()],
            Some(OneOrMore::More(texts)) => texts.clone(),
        };
        match texts.len() {
            0..=MOST_STOPS => Ok(texts),
            n => {
                Err(ApiError::field("stop", format!("{n} texts to stop at; at most {MOST_STOPS}")))
            }
        }
    }

    /// The most tokens of an answer; `newer`: another field of that meaning, which goes before.
    pub(crate) fn limit(&self, newer: Option<i64>) -> usize {
        // Others write -1 for no limit.
        newer.or(self.max_tokens).map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX))
    }

    /// Answers to each prompt.
    ///
    /// # Errors
    /// When they are none, or too many.
    pub(crate) fn choices(&self) -> Result<usize, ApiError> {
        match self.n.unwrap_or(1) {
            n @ 1..=MOST_CHOICES => Ok(n),
            n => Err(ApiError::field(
                "n",
                format!("n is {n}; 1 to {MOST_CHOICES} answers are possible"),
            )),
        }
    }

    /// What the answer must be.
    ///
    /// # Errors
    /// For forms that aren't known.
    pub(crate) fn form(&self) -> Result<Option<Form>, ApiError> {
        let Some(format) = &self.response_format else {
            return Ok(self.json_schema.clone().map(Form::Schema));
        };
        let given =
            format.json_schema.as_ref().and_then(|s| s.schema.as_ref()).or(format.schema.as_ref());
        let wrong = |message: String| Err(ApiError::field("response_format", message));
        match (format.r#type.as_str(), given) {
            ("text", _) => Ok(None),
            ("json_object", None) => Ok(Some(Form::JsonObject)),
            ("json_object" | "json_schema", Some(schema)) => Ok(Some(Form::Schema(schema.clone()))),
            ("json_schema", None) => wrong("response_format has no json_schema.schema".into()),
            (other, _) => wrong(format!(
                "the response_format {other:?} is not known; text, json_object and json_schema are"
            )),
        }
    }

    /// Does the model's end of an answer not end it?
    pub(crate) fn ignores_eos(&self) -> bool {
        self.ignore_eos.unwrap_or(false)
    }

    /// Is the answer wanted piece by piece?
    pub(crate) fn streams(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    /// Is the usage wanted at the end of a stream?
    pub(crate) fn wants_usage(&self) -> bool {
        self.stream_options.as_ref().and_then(|o| o.include_usage).unwrap_or(false)
    }
}
