//! Conversations to token ids, through the chat template that the file carries.
//!
//! What people write is never parsed for control tokens. The template decides where a message
//! goes and may look at it, trim it or cut it, so its text cannot simply be put in afterwards.
//! Instead, every character in it that could begin or end the spelling of a control token is
//! replaced, before the template sees it, by a private-use character that occurs nowhere in the
//! conversation or in the template; in what comes out these are put back, and their places are
//! closed to control tokens. The text is then tokenized as one, so for messages that spell no
//! control token the ids are those of Transformers' `apply_chat_template`.
//!
//! Without a template, or when it fails, Gemma's own rules apply.

mod date;
mod gemma;
mod guard;
mod images;
mod template;

use std::sync::Arc;

use quant::gguf::Gguf;

use crate::prompt::Prompt;
use crate::tokenizer::{Special, Tokenizer};
use crate::vision::ImageRows;
use guard::Guard;
pub use images::{ImageTokens, raw};
use template::Template;

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions for the whole conversation. Gemma reads them in front of the first user turn.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The name that templates know.
    pub fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

/// A piece of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Words.
    Text(String),
    /// The place of an image. With pan and scan it is also looked at in parts.
    Image {
        /// Number of parts besides the whole; 0 without pan and scan.
        crops: usize,
    },
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What, in order.
    pub parts: Vec<Part>,
}

impl Message {
    /// A message of text alone.
    pub fn new(role: Role, text: impl Into<String>) -> Self {
        Message { role, parts: vec![Part::Text(text.into())] }
    }

    /// A [`Role::System`] message.
    pub fn system(text: impl Into<String>) -> Self {
        Self::new(Role::System, text)
    }

    /// A [`Role::User`] message.
    pub fn user(text: impl Into<String>) -> Self {
        Self::new(Role::User, text)
    }

    /// A [`Role::Assistant`] message.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::new(Role::Assistant, text)
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Image { .. } => None,
        })
    }

    /// The numbers of crops of its images.
    fn crops(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Image { crops } => Some(*crops),
        })
    }
}

/// Why a template was not used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages are the documentation of their fields
pub enum ChatError {
    #[error("the file has no tokenizer.chat_template; Gemma's format is used")]
    NoTemplate,
    #[error("tokenizer.chat_template cannot be used: {0}")]
    Unusable(String),
    #[error("tokenizer.chat_template failed: {0}")]
    Failed(String),
    #[error("tokenizer.chat_template wrote more than {limit} bytes for this conversation")]
    TooLong { limit: usize },
    #[error("the conversation leaves no private-use character free to guard its text with")]
    NoGuard,
    #[error("the vocabulary has no {token}: the model was not made for images")]
    NoImages { token: &'static str },
    #[error("{views} views of images, and the prompt has places for {places}")]
    Places { places: usize, views: usize },
}

/// The chat format of a model.
#[derive(Debug)]
pub struct ChatTemplate {
    template: Result<Template, String>,
    missing: bool,
    guard: Guard,
    warnings: Vec<String>,
}

impl ChatTemplate {
    /// Reads the template of a file. One that is not there or cannot be used is no error:
    /// [`render`](Self::render) falls back to Gemma's rules, and [`warnings`](Self::warnings)
    /// tells.
    pub fn from_gguf(gguf: &Gguf<'_>, tokenizer: &Tokenizer) -> Self {
        match gguf.str("tokenizer.chat_template") {
            Ok(source) => Self::new(source, tokenizer),
            Err(err) => Self::with(Err(err.to_string()), false, tokenizer),
        }
    }

    /// A chat format from the text of a Jinja template; `None` for Gemma's rules.
    pub fn new(source: Option<&str>, tokenizer: &Tokenizer) -> Self {
        match source {
            Some(source) => Self::with(Template::new(source, tokenizer), false, tokenizer),
            None => Self::with(Err(String::new()), true, tokenizer),
        }
    }

    fn with(template: Result<Template, String>, missing: bool, tokenizer: &Tokenizer) -> Self {
        let guard = Guard::new(tokenizer);
        let mut chat = ChatTemplate { template, missing, guard, warnings: Vec::new() };
        // The least that every template must be able to do.
        if let Err(err) = chat.render_template(tokenizer, &[Message::user("Hello")], true) {
            chat.warnings.push(err.to_string());
        }
        chat
    }

    /// A whole conversation with its images. `views` are what the vision tower made of them, in
    /// order: of each image the whole, then its crops. Their places are those of
    /// [`render`](Self::render), which says the rest, with the text around them that Transformers'
    /// `Gemma3Processor` writes.
    ///
    /// # Errors
    /// [`ChatError::NoImages`]; [`ChatError::Places`] when there are not as many views.
    pub fn render_prompt(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        add_generation_prompt: bool,
        views: impl IntoIterator<Item = Arc<ImageRows>>,
    ) -> Result<Prompt, ChatError> {
        let crops: Vec<usize> = messages.iter().flat_map(Message::crops).collect();
        if crops.is_empty() {
            return Ok(self.render(tokenizer, messages, add_generation_prompt).into());
        }
        let tokens = ImageTokens::resolve(tokenizer)?;
        let ids = self.try_template(tokenizer, messages, add_generation_prompt, Some(&crops));
        let ids = ids.unwrap_or_else(|_| {
            let parts = gemma::format(messages, add_generation_prompt, true);
            one_bos(tokenizer, tokenizer.encode_parts(&parts))
        });
        tokens.place(&ids, views)
    }

    /// The ids of a whole conversation, with one beginning-of-sequence token in front, whatever
    /// the template thinks of it. `add_generation_prompt` opens the model's turn at the end. An
    /// image is one `<start_of_image>`, as in `apply_chat_template` of Transformers.
    ///
    /// Falls back to Gemma's rules when the template fails, as it may for one conversation and
    /// not for another; [`render_template`](Self::render_template) says why.
    pub fn render(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Vec<u32> {
        self.render_template(tokenizer, messages, add_generation_prompt).unwrap_or_else(|_| {
            let parts = gemma::format(messages, add_generation_prompt, false);
            one_bos(tokenizer, tokenizer.encode_parts(&parts))
        })
    }

    /// [`render`](Self::render) without the fallback.
    ///
    /// # Errors
    /// [`ChatError`] when there is no template, or it fails for this conversation: Gemma's, for
    /// one, wants user and model to take turns.
    pub fn render_template(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>, ChatError> {
        self.try_template(tokenizer, messages, add_generation_prompt, None)
    }

    /// `crops`: of each image, when their sequences are wanted in the places of images.
    fn try_template(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        add_generation_prompt: bool,
        crops: Option<&[usize]>,
    ) -> Result<Vec<u32>, ChatError> {
        let template = match &self.template {
            Ok(template) => template,
            Err(_) if self.missing => return Err(ChatError::NoTemplate),
            Err(why) => return Err(ChatError::Unusable(why.clone())),
        };
        let texts = messages.iter().flat_map(Message::texts);
        let guarded = self.guard.over(texts, template.source()).ok_or(ChatError::NoGuard)?;
        let mut rendered = template.render(messages, add_generation_prompt, &guarded)?;
        if let Some(crops) = crops {
            rendered = images::expand(&rendered, crops).ok_or_else(|| {
                let places = rendered.matches(images::PLACE).count();
                ChatError::Places { places, views: crops.len() }
            })?;
        }
        let (text, plain) = guarded.lift(&rendered);
        Ok(one_bos(tokenizer, tokenizer.encode_guarded(&text, &plain)))
    }

    /// What is wrong with the template in the file, for people to read.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// Exactly one beginning-of-sequence token, in front.
fn one_bos(tokenizer: &Tokenizer, mut ids: Vec<u32>) -> Vec<u32> {
    if let Some(bos) = tokenizer.special().bos {
        ids.retain(|&id| id != bos);
        ids.insert(0, bos);
    }
    ids
}

/// The text without the white space around it, as Python's `strip` has it and templates with it: four control
/// characters count that are none for Unicode.
fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c))
}

/// A part of a text and whether control tokens in it count.
type Span<'a> = (&'a str, Special);

#[cfg(test)]
mod tests;
