//! Answers of a given form: JSON, JSON that a schema describes, or a regular expression.
//!
//! Before a token is drawn, those that the form does not go on with are taken out; where the form is
//! complete, the model may end its answer. What is left is drawn as ever. `llguidance` finds which tokens
//! these are (an Earley parser over lexemes, and the vocabulary as a tree of bytes).

mod limits;

use std::sync::{Arc, Mutex};

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{
    ApproximateTokEnv, INVALID_TOKEN, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie,
};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

use crate::tokenizer::{Kind, Tokenizer};

/// What an answer must be.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// A JSON object.
    JsonObject,
    /// JSON that this schema describes (JSON Schema, draft 2020-12 and before, as far as
    /// [llguidance](https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md) knows it; of
    /// `oneOf` any may be). Its integers must be such that a double holds them, within ±2⁵³.
    Schema(Value),
    /// A text that this regular expression describes, from its beginning to its end.
    Regex(String),
}

/// A form that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the messages are the documentation of their fields
pub enum GrammarError {
    #[error("the form of the answer can't be used: {0}")]
    Form(String),
    #[error("the vocabulary of {tokens} tokens can't be used for answers of a given form")]
    Vocabulary { tokens: usize },
}

/// Makes grammars for a vocabulary.
pub struct Grammars {
    factory: ParserFactory,
    turn: Mutex<()>,
}

/// A form, and how far an answer has come in it.
#[derive(Clone)]
pub struct Grammar {
    matcher: Box<Matcher>,
    /// As it is before the first token.
    fresh: Box<Matcher>,
    /// What ends an answer.
    eos: Arc<[u32]>,
    /// Tokens of the vocabulary.
    tokens: usize,
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Grammar")
    }
}

/// Longer tokens are never drawn.
const LONGEST: usize = 1 << 10;
/// Ids have 24 bits in the tree.
const MOST_TOKENS: usize = 1 << 24;

/// Definitions that refer to each other a few thousand deep, as many as fit, are gone through recursively.
const STACK: usize = 512 << 20;

/// White space between the parts of JSON: a space, or a line break and some indentation. Without a bound
/// a model may come to write nothing else.
const SPACE: &str = r"\x20|\n[\x20\x09]{0,32}";

impl Grammars {
    /// For the tokens of a vocabulary. Takes about half a second for Gemma's 262144.
    ///
    /// # Errors
    /// [`GrammarError::Vocabulary`] when it has too many tokens.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self, GrammarError> {
        let tokens = tokenizer.len();
        let wrong = || GrammarError::Vocabulary { tokens };
        if tokens == 0 || tokens >= MOST_TOKENS {
            return Err(wrong());
        }
        let bytes = |id: u32| match tokenizer.kind(id) {
            Kind::Normal | Kind::UserDefined | Kind::Byte => {
                Some(tokenizer.token_bytes(id)).filter(|b| b.len() <= LONGEST).unwrap_or_default()
            }
            Kind::Control | Kind::Unknown | Kind::Unused => {
                let name = tokenizer.token_text(id).unwrap_or_default();
                let name = name.as_bytes().iter().take(LONGEST);
                [TokTrie::SPECIAL_TOKEN_MARKER].iter().chain(name).copied().collect()
            }
        };
        let words: Vec<Vec<u8>> = (0..tokens as u32).map(bytes).collect();
        let eos = &tokenizer.special().eos;
        let first = eos.first().copied().unwrap_or(INVALID_TOKEN);
        let mut trie = TokTrie::from(&TokRxInfo::new(tokens as u32, first), &words);
        if !eos.is_empty() {
            trie = trie.with_eos_tokens(eos);
        }
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        // Slices of the vocabulary that are looked at first would save 2 ms where a text of JSON begins, and
        // take twice the time here.
        let factory = ParserFactory::new(&env, InferenceCapabilities::default(), &[]);
        let mut factory = factory.map_err(|_| wrong())?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Ok(Grammars { factory, turn: Mutex::new(()) })
    }

    /// A form, ready for the beginning of an answer. One at a time is made.
    ///
    /// # Errors
    /// [`GrammarError::Form`] for one that is wrong, too large, or not understood.
    pub fn grammar(&self, form: &Form) -> Result<Grammar, GrammarError> {
        let wrong = |message: &str| GrammarError::Form(message.into());
        match form {
            Form::JsonObject => {}
            Form::Schema(schema) => limits::check(schema).map_err(|why| wrong(&why))?,
            Form::Regex(regex) => limits::length(regex.len()).map_err(|why| wrong(&why))?,
        }
        let grammar = match form {
            Form::JsonObject => {
                TopLevelGrammar::from_json_schema(written(json!({"type": "object"})))
            }
            Form::Schema(schema) => TopLevelGrammar::from_json_schema(written(schema.clone())),
            Form::Regex(regex) => TopLevelGrammar::from_regex(regex),
        };
        let _turn = self.turn.lock().unwrap_or_else(|e| e.into_inner());
        let make = || {
            let mut matcher = Box::new(Matcher::new(self.factory.create_parser(grammar)));
            // Much of what is wrong with a form shows with its first tokens.
            matcher.compute_mask().map_err(|e| GrammarError::Form(short(&e.to_string())))?;
            Ok(matcher)
        };
        let matcher = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, make);
            let done =
                thread.map_err(|e| GrammarError::Form(format!("no thread to read it: {e}")))?;
            done.join().unwrap_or_else(|_| Err(wrong("reading it failed")))
        })?;
        let trie = self.factory.tok_env().tok_trie();
        let (eos, tokens) = (trie.eos_tokens().into(), trie.vocab_size());
        Ok(Grammar { fresh: matcher.clone(), matcher, eos, tokens })
    }
}

/// A schema with what is to be said of how JSON is written.
fn written(mut schema: Value) -> Value {
    if let Value::Object(members) = &mut schema {
        let options = json!({"whitespace_pattern": SPACE, "coerce_one_of": true});
        members.insert("x-guidance".into(), options);
    }
    schema
}

/// A message on one line, not too long.
fn short(message: &str) -> String {
    let words: Vec<&str> = message.split_whitespace().collect();
    let mut text: String = words.join(" ").chars().take(300).collect();
    if let Some(end) = text.find(" <state>") {
        text.truncate(end);
    }
    if text.starts_with("panic:") {
        text = "it is too much to be read".into();
    }
    text
}

impl Grammar {
    /// Puts the logits of tokens that the form does not go on with at -∞; `logits`: one per token of the
    /// vocabulary, or of a model's with more rows than that.
    ///
    /// # Errors
    /// [`GrammarError::Form`] when the form is too much work here.
    pub(crate) fn mask(&mut self, logits: &mut [f32]) -> Result<(), GrammarError> {
        let allowed = self.matcher.compute_mask_or_eos();
        let allowed = allowed.map_err(|e| GrammarError::Form(short(&e.to_string())))?;
        let (known, beyond) = logits.split_at_mut(self.tokens.min(logits.len()));
        for (block, bits) in known.chunks_mut(32).zip(allowed.as_slice()) {
            if *bits != u32::MAX {
                let logits = block.iter_mut().zip(0u32..);
                logits
                    .filter(|(_, i)| bits >> i & 1 == 0)
                    .for_each(|(l, _)| *l = f32::NEG_INFINITY);
            }
        }
        beyond.fill(f32::NEG_INFINITY);
        Ok(())
    }

    /// Goes on by a token that was drawn. What ends an answer is not a part of it.
    ///
    /// # Errors
    /// [`GrammarError::Form`] when the form does not go on with it.
    pub(crate) fn accept(&mut self, token: u32) -> Result<(), GrammarError> {
        if self.eos.contains(&token) {
            return Ok(());
        }
        let accepted = self.matcher.consume_token(token);
        accepted.map_err(|e| GrammarError::Form(short(&e.to_string())))
    }

    /// Back to the beginning of an answer.
    pub(crate) fn restart(&mut self) {
        self.matcher = self.fresh.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::{Sampler, SamplingParams};
    use crate::tokenizer::testing::{byte_tokenizer, entries, load, metadata};

    fn schema() -> Value {
        json!({
            "type": "object",
            "properties": {
                "name": {"type": "string", "maxLength": 9},
                "size": {"oneOf": [{"type": "integer", "minimum": 1, "maximum": 30}, {"const": null}]},
                "tags": {"type": "array", "items": {"enum": ["a b", "ü"]}, "maxItems": 3},
            },
            "required": ["name", "size", "tags"],
            "additionalProperties": false,
        })
    }

    /// An answer drawn from logits that are noise, in rows that are longer than the vocabulary.
    fn babble(tokenizer: &Tokenizer, grammar: &Grammar, seed: u64) -> String {
        let all = SamplingParams { top_k: 0, top_p: 1.0, seed, ..SamplingParams::default() };
        let mut sampler = Sampler::new(all).unwrap().with_grammar(grammar.clone());
        assert!(!sampler.is_greedy() && sampler.top_k(10).is_none());
        let mut tokens = Vec::new();
        let mut state = seed;
        for turn in 0..2 {
            sampler.begin(&[7, 8]);
            tokens.clear();
            loop {
                let logits: Vec<f32> = (0..tokenizer.len() + 40)
                    .map(|_| {
                        state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
                        (state >> 40) as f32 / (1 << 22) as f32
                    })
                    .collect();
                let token = sampler.sample(&logits).unwrap();
                sampler.accept(token);
                if tokenizer.is_eos(token) {
                    break;
                }
                tokens.push(token);
                assert!(tokens.len() < 2000, "turn {turn}: {}", tokenizer.decode(&tokens));
            }
        }
        tokenizer.decode(&tokens)
    }

    /// With a vocabulary of bytes, and with one whose tokens span the parts of JSON.
    #[test]
    fn noise_becomes_what_a_form_describes() {
        let mut some = entries();
        for text in [
            "{\"",
            "\":",
            "\",\"",
            "},",
            "{}",
            "\u{2581}{",
            "\"\u{2581}:",
            "name",
            "am",
            "[",
            "]}",
            "\n\n",
            "ull",
            "1",
            "12",
        ] {
            some.push((text.into(), -1.0, 1));
        }
        for tokenizer in [byte_tokenizer(), load(&metadata(&some)).unwrap()] {
            let grammars = Grammars::new(&tokenizer).unwrap();
            let grammar = grammars.grammar(&Form::Schema(schema())).unwrap();
            for seed in 0..20 {
                let text = babble(&tokenizer, &grammar, seed);
                let value: Value =
                    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
                assert_eq!(value.as_object().unwrap().len(), 3, "{text}");
                assert!(value["name"].as_str().unwrap().chars().count() <= 9, "{text}");
                let size = &value["size"];
                assert!(size.is_null() || (1..=30).contains(&size.as_u64().unwrap()), "{text}");
                let tags = value["tags"].as_array().unwrap();
                assert!(tags.len() <= 3 && tags.iter().all(|t| t == "a b" || t == "ü"), "{text}");
            }
            let number = grammars.grammar(&Form::Regex("-?[1-9][0-9]{2}".into())).unwrap();
            for seed in 0..10 {
                let n: i32 = babble(&tokenizer, &number, seed).parse().unwrap();
                assert!((100..=999).contains(&n.abs()), "{n}");
            }
            let object = grammars.grammar(&Form::JsonObject).unwrap();
            let mut logits = vec![0.0; tokenizer.len()];
            object.clone().mask(&mut logits).unwrap();
            let open = tokenizer.token_to_id("<0x7B>").unwrap() as usize;
            let close = tokenizer.token_to_id("<0x7D>").unwrap() as usize;
            assert!(logits[open] == 0.0 && logits[close] == f32::NEG_INFINITY);
        }
    }

    /// Definitions that refer to each other, as many as may be: no stack is too small for them.
    #[test]
    fn deep_forms_are_read_or_refused() {
        let grammars = Grammars::new(&byte_tokenizer()).unwrap();
        let link = |kind: &str, next: String| match kind {
            "plain" => json!({"$ref": next}),
            "array" => json!({"type": "array", "items": {"$ref": next}}),
            "object" => json!({"type": "object", "properties": {"a": {"$ref": next}}}),
            "any" => json!({"anyOf": [{"$ref": next}, {"type": "null"}]}),
            _ => json!({"allOf": [{"$ref": next}]}),
        };
        for kind in ["plain", "array", "object", "any", "all"] {
            for length in [300, 100_000] {
                let mut definitions = serde_json::Map::new();
                let (mut size, mut i) = (0, 0);
                // As long as it is read.
                while i < length && size < limits::LONGEST - 200 {
                    let next = link(kind, format!("#/$defs/{}", i + 1));
                    size += next.to_string().len() + 10;
                    definitions.insert(i.to_string(), next);
                    i += 1;
                }
                definitions.insert(i.to_string(), json!({"type": "integer"}));
                let schema = json!({"$defs": definitions, "$ref": "#/$defs/0"});
                assert!(schema.to_string().len() <= limits::LONGEST);
                let grammar = grammars.grammar(&Form::Schema(schema));
                println!("{kind} {i}: {:?}", grammar.as_ref().err());
                if let Ok(grammar) = grammar {
                    let mut sampler =
                        Sampler::new(SamplingParams::greedy()).unwrap().with_grammar(grammar);
                    let _ = sampler.sample(&vec![0.0; 300]);
                }
            }
        }
    }

    #[test]
    fn wrong_forms_are_errors() {
        let grammars = Grammars::new(&byte_tokenizer()).unwrap();
        for form in [
            Form::Schema(json!({"type": "wheel"})),
            Form::Schema(json!({"$ref": "https://example.org/schema.json"})),
            Form::Schema(json!({"type": "string", "pattern": "("})),
            Form::Schema(json!(false)),
            Form::Schema(json!([1])),
            Form::Regex("(".into()),
            Form::Regex("a".repeat(limits::LONGEST + 1)),
            // Fails an assertion of the parser's.
            Form::Schema(json!({"anyOf": (0..1500).map(|i| {
                json!({"type": "array", "maxItems": 1_000_000 + i, "items": {"type": "integer"}})
            }).collect::<Vec<_>>()})),
        ] {
            let e = grammars.grammar(&form).unwrap_err();
            assert!(matches!(e, GrammarError::Form(_)), "{form:?}: {e}");
        }
        // What a form does not go on with is met when the next token is drawn.
        let grammar = grammars.grammar(&Form::JsonObject).unwrap();
        let mut sampler = Sampler::new(SamplingParams::greedy()).unwrap().with_grammar(grammar);
        sampler.accept(20);
        assert!(sampler.sample(&[0.0; 300]).is_err());
    }
}
