//! Gemma's chat format, for files without a template of their own.

use super::images::{PLACE, sequence};
use super::{Message, Part, Role, Span};
use crate::tokenizer::Special::{Parse, Plain};

/// `<start_of_turn>user`, the text, `<end_of_turn>`, the same for `model`. There is no system
/// turn: system text goes in front of the user turn that follows it, with a blank line between.
/// `expand`: images have their whole sequence, not `<start_of_image>` alone.
pub(super) fn format(
    messages: &[Message],
    add_generation_prompt: bool,
    expand: bool,
) -> Vec<Span<'_>> {
    let mut spans = Vec::new();
    let mut system: Vec<&Message> = Vec::new();
    for message in messages {
        match message.role {
            Role::System => system.push(message),
            Role::User => {
                spans.push(("<start_of_turn>user\n", Parse));
                for message in system.drain(..) {
                    spans.extend(message.texts().map(|text| (text, Plain)));
                    spans.push(("\n\n", Parse));
                }
                content(message, expand, &mut spans);
                spans.push(("<end_of_turn>\n", Parse));
            }
            Role::Assistant => {
                spans.push(("<start_of_turn>model\n", Parse));
                content(message, expand, &mut spans);
                spans.push(("<end_of_turn>\n", Parse));
            }
        }
    }
    // System text that no user turn follows still has to be said.
    if !system.is_empty() {
        spans.push(("<start_of_turn>user\n", Parse));
        for (i, message) in system.into_iter().enumerate() {
            if i > 0 {
                spans.push(("\n\n", Parse));
            }
            content(message, expand, &mut spans);
        }
        spans.push(("<end_of_turn>\n", Parse));
    }
    if add_generation_prompt {
        spans.push(("<start_of_turn>model\n", Parse));
    }
    spans
}

fn content<'a>(message: &'a Message, expand: bool, spans: &mut Vec<Span<'a>>) {
    for part in &message.parts {
        match part {
            Part::Text(text) => spans.push((super::strip(text), Plain)),
            Part::Image { crops } if expand => {
                spans.extend(sequence(*crops).map(|text| (text, Parse)));
            }
            Part::Image { .. } => spans.push((PLACE, Parse)),
        }
    }
}
