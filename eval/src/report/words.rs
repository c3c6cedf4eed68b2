//! The tokens on which model and reference part the most, in their sentences.

use std::fmt::Write;

use runtime::tokenizer::{Kind, Tokenizer};

use super::look::Look;
use super::{PageText, Shown, escape};
use crate::scores::Surprise;
use crate::softmax::TOP;

/// Tokens shown before the one in question, and after it.
const BEFORE: usize = 48;
const AFTER: usize = 10;
/// Surprises shown of each model.
const SHOWN: usize = 6;

/// The section, for every model that was compared.
pub(super) fn surprises(h: &mut String, text: &PageText<'_>, shown: &[Shown<'_, '_>]) {
    let Some(tokenizer) = text.tokenizer else { return };
    let worth = |s: &Surprise| s.against.kld > 1e-3;
    if !shown.iter().any(|s| s.scores.surprises().iter().any(worth)) {
        return;
    }
    h.push_str(
        "<h2>Where they part</h2><p class=\"soft\">The tokens with the largest divergence, in their sentence. \
         Under each, what reference and model thought likely in its place; the token that came is underlined.</p>\n",
    );
    for s in shown {
        let some: Vec<_> = s.scores.surprises().iter().filter(|s| worth(s)).take(SHOWN).collect();
        if some.is_empty() {
            continue;
        }
        let _ = write!(h, "<h2>{}{}</h2>", s.look.key(), s.name.full);
        for surprise in some {
            one(h, text, tokenizer, surprise, s.look);
        }
    }
}

fn one(h: &mut String, text: &PageText<'_>, tokenizer: &Tokenizer, s: &Surprise, look: Look) {
    let from = s.window_start.max(s.at.saturating_sub(BEFORE));
    let to = text.ids.len().min(s.at + 1 + AFTER);
    let Some(&target) = text.ids.get(s.at) else { return };
    let words = |ids: &[u32]| escape(&tokenizer.decode(ids));
    let _ = write!(
        h,
        "<div class=\"surprise\"><div class=\"text\">…{}<mark>{}</mark>{}…</div>\
         <p class=\"soft\">KLD {:.3} nats</p><div class=\"sides\">",
        words(&text.ids[from..s.at]),
        words(&[target]),
        words(&text.ids[s.at + 1..to]),
        s.against.kld
    );
    guesses(h, tokenizer, "reference", Look::Reference, &s.against.top, target);
    guesses(h, tokenizer, "model", look, &s.score.top, target);
    h.push_str("</div></div>\n");
}

fn guesses(
    h: &mut String,
    tokenizer: &Tokenizer,
    who: &str,
    look: Look,
    top: &[(u32, f32); TOP],
    target: u32,
) {
    let _ = write!(h, "<div class=\"{}\"><h3>{who}</h3>", look.class());
    for (token, p) in top {
        let right = if *token == target { " right" } else { "" };
        let _ = write!(
            h,
            "<div class=\"guess{right}\"><code>{}</code><i style=\"width:{:.1}%\"></i><span>{:.1} %</span></div>",
            escape(&visible(tokenizer, *token)),
            p * 100.0,
            p * 100.0
        );
    }
    h.push_str("</div>");
}

/// A token with its white space made visible.
fn visible(tokenizer: &Tokenizer, id: u32) -> String {
    let text = tokenizer.token_text(id).unwrap_or("?");
    match tokenizer.kind(id) {
        Kind::Control | Kind::Byte => text.to_owned(),
        _ => text.replace('\u{2581}', "·").replace('\n', "⏎").replace('\t', "⇥"),
    }
}
