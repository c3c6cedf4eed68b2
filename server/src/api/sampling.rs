//! The fields that all requests for text have.

use std::collections::BTreeMap;

use runtime::grammar::Form;
use runtime::sampler::SamplingParams;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Number, Value};

use super::ApiError;

/// Answers that one prompt can have, texts that can end them and their bytes, tokens that can have biases.
const MOST_CHOICES: i64 = 16;
const MOST_STOPS: usize = 16;
const LONGEST_STOP: usize = 1024;
const MOST_BIASES: usize = 1024;

/// How to write. A field that is left out, or `null`, is the server's default.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Common {
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<Whole>,
    min_p: Option<f32>,
    repeat_penalty: Option<f32>,
    /// The same, as vLLM and Transformers call it.
    repetition_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    logit_bias: Option<BTreeMap<String, f32>>,
    seed: Option<Whole>,
    stop: Option<OneOrMore>,
    max_tokens: Option<Whole>,
    n: Option<Whole>,
    ignore_eos: Option<bool>,
    cache_prompt: Option<bool>,
    // What changes answers and isn't done here.
    grammar: Option<Value>,
    response_format: Option<ResponseFormat>,
    /// The same in llama.cpp's words.
    json_schema: Option<Value>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
}

/// A whole number, also one that is written as 5.0; of those from 2⁶³ on the lower 64 bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whole(i64);

impl Whole {
    /// As a number of things.
    ///
    /// # Errors
    /// When it is negative.
    pub(crate) fn count(self, field: &'static str) -> Result<usize, ApiError> {
        let wrong = |_| ApiError::field(field, format!("{field} is {}", self.0));
        usize::try_from(self.0).map_err(wrong)
    }
}

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let n = Number::deserialize(from)?;
        let float = || n.as_f64().filter(|x| x.fract() == 0.0 && x.abs() < 1e18).map(|x| x as i64);
        let whole = n.as_i64().or(n.as_u64().map(|n| n as i64)).or_else(float);
        whole.map(Whole).ok_or_else(|| D::Error::custom(format!("{n} is no whole number")))
    }
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
        if let Some(Whole(k)) = self.top_k {
            // Others write -1 for all.
            p.top_k = usize::try_from(k).unwrap_or(0);
        }
        // Others write -1 for any.
        p.seed = match self.seed {
            Some(Whole(seed)) if seed != -1 => seed as u64,
            _ => seed.unwrap_or_else(SamplingParams::fresh_seed),
        };
        let within =
            |field, value: f32, least: f32, most: f32| match (least..=most).contains(&value) {
                true => Ok(()),
                false => {
                    let message = format!("{field} is {value}; {least} to {most} is possible");
                    Err(ApiError::field(field, message))
                }
            };
        within("temperature", p.temperature, 0.0, 100.0)?;
        within("repeat_penalty", p.repeat_penalty, 0.01, 100.0)?;
        within("frequency_penalty", p.frequency_penalty, -2.0, 2.0)?;
        within("presence_penalty", p.presence_penalty, -2.0, 2.0)?;
        let biases = self.logit_bias.iter().flatten();
        if let n @ MOST_BIASES.. = biases.clone().count() {
            let message = format!("{n} tokens have biases; fewer than {MOST_BIASES} can");
            return Err(ApiError::field("logit_bias", message));
        }
        for (id, &bias) in biases {
            let token =
                id.parse::<u32>().ok().filter(|t| (*t as usize) < vocab && t.to_string() == *id);
            let Some(token) = token else {
                let message = format!("logit_bias: {id:?} is no token id below {vocab}");
                return Err(ApiError::field("logit_bias", message));
            };
            within("logit_bias", bias, -100.0, 100.0)?;
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
        let wrong = |message| Err(ApiError::field("stop", message));
        if texts.len() > MOST_STOPS {
            return wrong(format!("{} texts to stop at; at most {MOST_STOPS}", texts.len()));
        }
        match texts.iter().map(String::len).max() {
            Some(n) if n > LONGEST_STOP => {
                wrong(format!("a text to stop at has {n} bytes; at most {LONGEST_STOP}"))
            }
            _ => Ok(texts),
        }
    }

    /// The most tokens of an answer; `newer`: another field of that meaning, which goes before.
    ///
    /// # Errors
    /// When it is negative, but for -1.
    pub(crate) fn limit(&self, newer: Option<Whole>) -> Result<usize, ApiError> {
        match newer.or(self.max_tokens) {
            // Others write -1 for no limit.
            None | Some(Whole(-1)) => Ok(usize::MAX),
            Some(n) => n.count("max_tokens"),
        }
    }

    /// Answers to each prompt.
    ///
    /// # Errors
    /// When they are none, or too many.
    pub(crate) fn choices(&self) -> Result<usize, ApiError> {
        match self.n.map_or(1, |Whole(n)| n) {
            n @ 1..=MOST_CHOICES => Ok(n as usize),
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
    pub(crate) fn form(&mut self) -> Result<Option<Form>, ApiError> {
        if self.grammar.as_ref().is_some_and(|g| *g != Value::Null && *g != "") {
            let message = "grammar is not done here; response_format is";
            return Err(ApiError::field("grammar", message));
        }
        let format = self.response_format.take().filter(|f| f.r#type != "text");
        let Some(format) = format else {
            return Ok(self.json_schema.take().map(Form::Schema));
        };
        let given = format.json_schema.and_then(|s| s.schema).or(format.schema);
        let wrong = |message: String| Err(ApiError::field("response_format", message));
        match (format.r#type.as_str(), given) {
            ("json_object", None) => Ok(Some(Form::JsonObject)),
            ("json_object" | "json_schema", Some(schema)) => Ok(Some(Form::Schema(schema))),
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

    /// May what the cache holds of the prompt be used?
    pub(crate) fn reuses(&self) -> bool {
        self.cache_prompt.unwrap_or(true)
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
