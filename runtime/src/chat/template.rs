//! The Jinja template of a file, in the surroundings that Transformers gives it.

use std::borrow::Cow;
use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind, context};

use super::guard::Guarded;
use super::{ChatError, Message, Part};
use crate::tokenizer::Tokenizer;

/// Instructions a template may run: a turn takes about fifty.
const FUEL: u64 = 5_000_000;
/// A longer template is no chat format.
const MAX_SOURCE: usize = 1 << 20;
const NAME: &str = "chat";

/// A template that parses.
#[derive(Debug)]
pub(super) struct Template {
    environment: Environment<'static>,
    source: String,
    /// The texts of the tokens that templates name, and what else they may ask for.
    globals: Value,
}

impl Template {
    pub(super) fn new(source: &str, tokenizer: &Tokenizer) -> Result<Self, String> {
        if source.len() > MAX_SOURCE {
            return Err(format!("it is {} bytes long; {MAX_SOURCE} are allowed", source.len()));
        }
        let environment = environment(source).map_err(|err| describe(&err))?;
        let ids = tokenizer.special();
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id)).unwrap_or_default();
        let globals = context! {
            bos_token => text(ids.bos),
            eos_token => text(ids.eos.first().copied()),
            unk_token => text(ids.unknown),
            pad_token => text(ids.padding),
            tools => (),
            documents => (),
        };
        Ok(Template { environment, source: source.to_string(), globals })
    }

    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// The text of a conversation, its messages guarded.
    pub(super) fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        guarded: &Guarded,
    ) -> Result<String, ChatError> {
        let texts: usize = messages.iter().flat_map(Message::texts).map(str::len).sum();
        // Stand-ins take four bytes for one; the rest is room for what templates say themselves.
        let limit = 8 * texts + 1024 * messages.len() + MAX_SOURCE;
        let messages: Vec<Value> = messages.iter().map(|m| value(m, guarded)).collect();
        let own = context! { messages, add_generation_prompt };
        let failed = |err: Error| ChatError::Failed(describe(&err));
        let mut out = Bounded { bytes: Vec::new(), limit, over: false };
        let rendered = self.environment.get_template(NAME).and_then(|t| {
            t.render_captured_to(context! { ..own, ..self.globals.clone() }, &mut out).map(drop)
        });
        match rendered {
            Err(_) if out.over => Err(ChatError::TooLong { limit }),
            Err(err) => Err(failed(err)),
            Ok(()) => String::from_utf8(out.bytes)
                .map_err(|_| ChatError::Failed("it wrote half a character".into())),
        }
    }
}

/// A message as templates know it: content is a string, or a list when there are images.
fn value(message: &Message, guarded: &Guarded) -> Value {
    let role = message.role.name();
    let content = match message.parts.as_slice() {
        [] => Value::from(""),
        [Part::Text(text)] => Value::from(guarded.lay(text)),
        parts => parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => context! { type => "text", text => guarded.lay(text) },
                Part::Image { .. } => context! { type => "image" },
            })
            .collect(),
    };
    context! { role, content }
}

/// A template, and what Transformers has for templates.
fn environment(source: &str) -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    env.set_fuel(Some(FUEL));
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.add_function("raise_exception", |message: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    env.add_function("strftime_now", super::date::strftime_now);
    env.add_filter("tojson", tojson);
    env.add_filter("trim", trim);
    env.add_template_owned(NAME, source.to_string())?;
    Ok(env)
}

/// An error with all its causes, on one line.
fn describe(err: &Error) -> String {
    let mut text = err.to_string();
    let mut cause = std::error::Error::source(err);
    while let Some(err) = cause {
        text += &format!(": {err}");
        cause = err.source();
    }
    text
}

/// Jinja's `trim`: Python's `strip`, of the characters that are named or of white space.
fn trim(text: Cow<'_, str>, chars: Option<Cow<'_, str>>) -> String {
    match chars {
        Some(chars) => text.trim_matches(|c| chars.contains(c)).to_string(),
        None => super::strip(&text).to_string(),
    }
}

/// JSON as Transformers writes it: minijinja's, but without its escapes for HTML.
fn tojson(value: &Value, indent: Option<Value>, options: Kwargs) -> Result<Value, Error> {
    let escaped = minijinja::filters::tojson(value, indent, options)?.to_string();
    let mut json = String::with_capacity(escaped.len());
    let mut rest = escaped.as_str();
    while let Some(at) = rest.find('\\') {
        json += &rest[..at];
        let plain = [("\\u003c", '<'), ("\\u003e", '>'), ("\\u0026", '&'), ("\\u0027", '\'')]
            .into_iter()
            .find(|(escape, _)| rest[at..].starts_with(escape));
        let end = match plain {
            Some((escape, c)) => {
                json.push(c);
                at + escape.len()
            }
            None => {
                // A backslash and what it escapes, which may be another backslash.
                let end = at + 1 + rest[at + 1..].chars().next().map_or(0, char::len_utf8);
                json += &rest[at..end];
                end
            }
        };
        rest = &rest[end..];
    }
    json += rest;
    Ok(Value::from(json))
}

/// A buffer that stops taking at a limit.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
    over: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.limit {
            self.over = true;
            return Err(io::Error::other("too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
