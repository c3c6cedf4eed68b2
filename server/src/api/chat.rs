//! `POST /v1/chat/completions`.

use runtime::chat::Role;
use serde::Deserialize;
use serde_json::Value;

use super::{ApiError, Common, Whole};

/// The request.
#[derive(Debug, Deserialize)]
pub(crate) struct ChatRequest {
    pub(crate) messages: Vec<ChatMessage>,
    #[serde(flatten)]
    pub(crate) common: Common,
    pub(crate) max_completion_tokens: Option<Whole>,
    logprobs: Option<bool>,
    top_logprobs: Option<Whole>,
    // What changes answers and isn't done here.
    tools: Option<Vec<Value>>,
    functions: Option<Vec<Value>>,
}

/// One message.
#[derive(Debug, Deserialize)]
pub(crate) struct ChatMessage {
    role: String,
    content: Option<Content>,
    tool_calls: Option<Vec<Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "content is a text or a list of parts, each with its type")]
enum Content {
    Text(String),
    Parts(Vec<ContentPart>),
}

#[derive(Debug, Deserialize)]
struct ContentPart {
    r#type: String,
    text: Option<String>,
    image_url: Option<ImageUrl>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "image_url is an object with a url")]
enum ImageUrl {
    Object { url: String },
    Text(String),
}

/// A piece of a message, as it was sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Text(String),
    /// The address of a picture.
    Image(String),
}

/// Of so many tokens the probabilities can be asked for.
pub(crate) const MOST_LOGPROBS: usize = 20;

impl ChatRequest {
    /// Is nothing asked for that isn't done here?
    ///
    /// # Errors
    /// Names the field.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        if self.messages.is_empty() {
            return Err(ApiError::field("messages", "there are no messages"));
        }
        let some = |list: &Option<Vec<Value>>| list.as_ref().is_some_and(|l| !l.is_empty());
        if some(&self.tools) || some(&self.functions) {
            let message = "tools are not done here: describe them in a message and read the answer";
            return Err(ApiError::field("tools", message));
        }
        Ok(())
    }

    /// Of how many tokens the probabilities are wanted, if at all.
    ///
    /// # Errors
    /// When they are too many, or not asked for.
    pub(crate) fn log_probs(&self) -> Result<Option<usize>, ApiError> {
        let wanted = self.logprobs.unwrap_or(false);
        let top = self.top_logprobs.map_or(Ok(0), |n| n.count("top_logprobs"))?;
        match top {
            n if n > MOST_LOGPROBS => {
                let message = format!("top_logprobs is {n}; at most {MOST_LOGPROBS}");
                Err(ApiError::field("top_logprobs", message))
            }
            n if n > 0 && !wanted => {
                Err(ApiError::field("top_logprobs", "top_logprobs needs logprobs to be true"))
            }
            n => Ok(wanted.then_some(n)),
        }
    }
}

impl ChatMessage {
    /// Who says it, and what.
    ///
    /// # Errors
    /// For roles and contents that aren't known.
    pub(crate) fn take(self) -> Result<(Role, Vec<Sent>), ApiError> {
        let wrong = |message: String| Err(ApiError::field("messages", message));
        let role = match self.role.as_str() {
            "system" | "developer" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            other => {
                return wrong(format!(
                    "the role {other:?} is not known; system, user and assistant are"
                ));
            }
        };
        if self.tool_calls.is_some_and(|calls| !calls.is_empty()) {
            return wrong("messages with tool_calls are not understood".into());
        }
        let parts = match self.content {
            None if role == Role::Assistant => Vec::new(),
            None => return wrong(format!("a message of the {} has no content", role.name())),
            Some(Content::Text(text)) => vec![Sent::Text(text)],
            Some(Content::Parts(parts)) => {
                let parts = parts.into_iter().map(ContentPart::take);
                parts.collect::<Result<_, _>>()?
            }
        };
        if role != Role::User && parts.iter().any(|part| matches!(part, Sent::Image(_))) {
            return wrong(format!(
                "a message of the {} has a picture; only users show any",
                role.name()
            ));
        }
        Ok((role, parts))
    }
}

impl ContentPart {
    fn take(self) -> Result<Sent, ApiError> {
        match (self.r#type.as_str(), self.text, self.image_url) {
            ("text", Some(text), _) => Ok(Sent::Text(text)),
            ("image_url", _, Some(ImageUrl::Object { url } | ImageUrl::Text(url))) => {
                Ok(Sent::Image(url))
            }
            ("text" | "image_url", ..) => {
                let message = format!("a part of type {0:?} has no {0}", self.r#type);
                Err(ApiError::field("messages", message))
            }
            (other, ..) => {
                let message =
                    format!("parts of type {other:?} are not read; text and image_url are");
                Err(ApiError::field("messages", message))
            }
        }
    }
}
