//! The places of images in a prompt.
//!
//! A template writes `<start_of_image>` where an image is. Transformers' `Gemma3Processor` then
//! puts the image's own sequence there, before the text is tokenized, so that its newlines merge
//! with those around it; so does this module. Between `<start_of_image>` and `<end_of_image>`,
//! where Transformers has soft tokens, the features go in.

use std::sync::Arc;

use super::{ChatError, Part, Span};
use crate::prompt::Prompt;
use crate::tokenizer::Special::{Parse, Plain};
use crate::tokenizer::Tokenizer;
use crate::vision::ImageRows;

/// What templates write for an image.
pub(super) const PLACE: &str = "<start_of_image>";
/// One view of an image.
const VIEW: &str = "\n\n<start_of_image><end_of_image>\n\n";

/// The text that stands for an image and its crops, as `Gemma3Processor.replace_image_token` has
/// it.
pub(super) fn sequence(crops: usize) -> impl Iterator<Item = &'static str> {
    let words = match crops {
        0 => ["", VIEW, ""],
        _ => [
            "Here is the original image ",
            VIEW,
            " and here are some crops to help you see better ",
        ],
    };
    let crops = (0..crops).flat_map(|i| [if i == 0 { "" } else { " " }, VIEW]);
    words.into_iter().chain(crops)
}

/// Puts the sequences of images in the places that a template made for them; `None` when there are
/// not as many.
pub(super) fn expand(rendered: &str, crops: &[usize]) -> Option<String> {
    let mut parts = rendered.split(PLACE);
    let mut out = parts.next()?.to_string();
    let mut crops = crops.iter();
    for part in parts {
        out.extend(sequence(*crops.next()?));
        out += part;
    }
    crops.next().is_none().then_some(out)
}

/// Ids of the tokens around and for images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageTokens {
    /// `<start_of_image>`.
    pub start: u32,
    /// `<image_soft_token>`, which the list of tokens has for each row of an image. Some
    /// vocabularies lack it; as the features go in and not its embedding, any id will do then.
    pub soft: u32,
    /// `<end_of_image>`.
    pub end: u32,
}

impl ImageTokens {
    /// Finds them in a vocabulary.
    ///
    /// # Errors
    /// [`ChatError::NoImages`].
    pub fn resolve(tokenizer: &Tokenizer) -> Result<Self, ChatError> {
        let id = |token| tokenizer.token_to_id(token).ok_or(ChatError::NoImages { token });
        let soft = tokenizer.token_to_id("<image_soft_token>");
        Ok(ImageTokens {
            start: id(PLACE)?,
            soft: soft.or(tokenizer.special().padding).unwrap_or(0),
            end: id("<end_of_image>")?,
        })
    }

    /// Puts the views of images between each `<start_of_image>` and the `<end_of_image>` that
    /// follows it at once.
    pub(super) fn place(
        self,
        ids: &[u32],
        views: impl IntoIterator<Item = Arc<ImageRows>>,
    ) -> Result<Prompt, ChatError> {
        let mut prompt = Prompt::new();
        let (mut places, mut views) = (0, views.into_iter());
        let mut placed = 0;
        for (i, &id) in ids.iter().enumerate() {
            prompt.push(id);
            if id == self.start && ids.get(i + 1) == Some(&self.end) {
                places += 1;
                if let Some(view) = views.next() {
                    prompt.push_image(self.soft, view);
                    placed += 1;
                }
            }
        }
        match placed + views.count() {
            views if views == places => Ok(prompt),
            views => Err(ChatError::Places { places, views }),
        }
    }
}

/// A prompt that follows no chat format: texts and images one after the other, with BOS in front
/// where the model wants it. Texts are not parsed for control tokens.
///
/// # Errors
/// [`ChatError::NoImages`]; [`ChatError::Places`] when there are not as many views as the images
/// have, their crops included.
pub fn raw(
    tokenizer: &Tokenizer,
    parts: &[Part],
    views: impl IntoIterator<Item = Arc<ImageRows>>,
) -> Result<Prompt, ChatError> {
    let mut spans: Vec<Span<'_>> = Vec::new();
    for part in parts {
        match part {
            Part::Text(text) => spans.push((text, Plain)),
            Part::Image { crops } => spans.extend(sequence(*crops).map(|text| (text, Parse))),
        }
    }
    let special = tokenizer.special();
    let mut ids: Vec<u32> = special.bos.filter(|_| special.add_bos).into_iter().collect();
    ids.extend(tokenizer.encode_parts(&spans));
    if !parts.iter().any(|part| matches!(part, Part::Image { .. })) {
        return Ok(Prompt::from(ids));
    }
    ImageTokens::resolve(tokenizer)?.place(&ids, views)
}
