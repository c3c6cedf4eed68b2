//! Multiple choice by likelihood: the form in which model cards give HellaSwag, ARC, PIQA, BoolQ.
//!
//! Nothing is generated: each choice is scored as the continuation of its question, and the
//! likeliest is the model's answer. As in lm-evaluation-harness, `acc` takes the log-likelihood of
//! the whole choice, `acc_norm` divides it by the choice's length in bytes, so that long choices are
//! not at a disadvantage (the harness counts characters, which is the same in ASCII); per token is
//! what llama-perplexity's `--hellaswag` and `--multiple-choice` do.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use runtime::chat::Message;
use runtime::tokenizer::Special;
use runtime::{Batch, Model, Row as BatchRow, Session};
use serde::{Deserialize, Serialize};

use crate::EvalError;
use crate::softmax::Row;
use crate::stats::Mean;

/// One question.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Item {
    /// The question, or the beginning of a text.
    pub question: String,
    /// Its possible answers, or continuations.
    pub choices: Vec<String>,
    /// Which one is right, from 0.
    pub answer: usize,
}

/// Reads a file of items, one JSON object a line; `path` is for messages.
///
/// # Errors
/// [`EvalError::Choices`] naming the line.
pub fn parse(text: &str, path: &Path) -> Result<Vec<Item>, EvalError> {
    let mut items = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let wrong = |why: String| EvalError::Choices { path: path.to_owned(), line: i + 1, why };
        let item: Item = serde_json::from_str(line).map_err(|e| {
            wrong(format!("{e}; a line is {{\"question\": …, \"choices\": […], \"answer\": 0}}"))
        })?;
        if item.choices.len() < 2 || item.choices.iter().any(String::is_empty) {
            return Err(wrong("two choices at least are needed, none of them empty".into()));
        }
        if item.answer >= item.choices.len() {
            let (answer, n) = (item.answer, item.choices.len());
            return Err(wrong(format!("the answer is {answer}, counted from 0, of {n} choices")));
        }
        items.push(item);
    }
    if items.is_empty() {
        let why = "there are no questions".into();
        return Err(EvalError::Choices { path: path.to_owned(), line: 1, why });
    }
    Ok(items)
}

/// How a question is put to a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As a user's turn; the choice is the model's answer.
    Chat,
    /// As a text that the choice continues after a space, as the harness does.
    Plain,
}

/// Log-likelihoods of the choices of one item.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ItemScore {
    /// ln p of each choice, nats.
    pub ln_p: Vec<f64>,
    /// Tokens of each choice.
    pub tokens: Vec<usize>,
    /// Bytes of each choice.
    pub bytes: Vec<usize>,
    /// Which one is right.
    pub answer: usize,
}

impl ItemScore {
    /// The choice for which `length`-normalised ln p is largest; of equals the first.
    fn pick(&self, length: impl Fn(usize) -> f64) -> usize {
        let score = |i: usize| self.ln_p[i] / length(i).max(1.0);
        (1..self.ln_p.len()).fold(0, |best, i| if score(i) > score(best) { i } else { best })
    }
}

/// How many questions a model answered rightly.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Accuracy {
    /// Questions.
    pub items: usize,
    /// By the log-likelihood of the whole choice.
    pub acc: Mean,
    /// By log-likelihood per byte.
    pub acc_norm: Mean,
    /// By log-likelihood per token.
    pub acc_token: Mean,
    /// What guessing gives.
    pub chance: f64,
}

impl Accuracy {
    /// Of some items.
    pub fn of(scores: &[ItemScore]) -> Self {
        let n = scores.len();
        let right = |pick: &dyn Fn(&ItemScore) -> usize| {
            Mean::share(scores.iter().filter(|s| pick(s) == s.answer).count(), n)
        };
        let chance = scores.iter().map(|s| 1.0 / s.ln_p.len() as f64).sum::<f64>();
        Accuracy {
            items: n,
            acc: right(&|s| s.pick(|_| 1.0)),
            acc_norm: right(&|s| s.pick(|i| s.bytes[i] as f64)),
            acc_token: right(&|s| s.pick(|i| s.tokens[i] as f64)),
            chance: chance / n.max(1) as f64,
        }
    }
}

/// Tokens of the question, and of each choice after it.
fn tokens(model: &Model, item: &Item, form: Form) -> (Vec<u32>, Vec<Vec<u32>>) {
    let tokenizer = model.tokenizer();
    match form {
        Form::Chat => {
            let messages = [Message::user(item.question.as_str())];
            let prompt = model.template().render(tokenizer, &messages, true);
            let encode = |c: &String| tokenizer.encode(c, Special::Plain);
            (prompt, item.choices.iter().map(encode).collect())
        }
        Form::Plain => {
            // A choice's tokens are those that it adds to the question's, so that text is cut as
            // if it had been written in one piece.
            let special = tokenizer.special();
            let bos: Vec<u32> = special.bos.filter(|_| special.add_bos).into_iter().collect();
            let whole = |c: &String| {
                let text = format!("{} {c}", item.question);
                [bos.clone(), tokenizer.encode(&text, Special::Plain)].concat()
            };
            let mut shared =
                [bos.clone(), tokenizer.encode(&item.question, Special::Plain)].concat();
            let wholes: Vec<Vec<u32>> = item.choices.iter().map(whole).collect();
            for w in &wholes {
                let same = shared.iter().zip(w).take_while(|(a, b)| a == b).count();
                shared.truncate(same.min(w.len().saturating_sub(1)));
            }
            let rest = wholes.iter().map(|w| w[shared.len()..].to_vec()).collect();
            (shared, rest)
        }
    }
}

/// How many positions the longest item takes: what the session's context has to hold.
pub fn longest(model: &Model, items: &[Item], form: Form) -> usize {
    let length = |item: &Item| {
        let (question, choices) = tokens(model, item, form);
        question.len() + choices.iter().map(Vec::len).max().unwrap_or(0)
    };
    items.iter().map(length).max().unwrap_or(0)
}

/// Scores one item with sequence 0 of a session. The question is read once.
///
/// # Errors
/// Those of [`Session::forward`]; [`EvalError::NotFinite`].
pub fn score(session: &mut Session, item: &Item, form: Form) -> Result<ItemScore, EvalError> {
    let (question, choices) = tokens(session.model(), item, form);
    let never = AtomicBool::new(false);
    session.truncate(0, 0);
    // Its last token is read again with each choice, whose first token it predicts.
    let (shared, last) = question.split_at(question.len().saturating_sub(1));
    session.append(0, shared, &never)?;
    let mut result = ItemScore {
        ln_p: Vec::new(),
        tokens: Vec::new(),
        bytes: item.choices.iter().map(String::len).collect(),
        answer: item.answer,
    };
    let rows = session.cpu().max_rows();
    for choice in &choices {
        if session.truncate(0, shared.len()) != shared.len() {
            // A sliding layer has forgotten what the question needs.
            session.truncate(0, 0);
            session.append(0, shared, &never)?;
        }
        let inputs: Vec<u32> =
            last.iter().chain(&choice[..choice.len().saturating_sub(1)]).copied().collect();
        // Without BOS and without a question nothing predicts the first token.
        let targets = &choice[choice.len() - inputs.len().min(choice.len())..];
        let mut total = 0.0;
        let name = session.model().path().display().to_string();
        let mut at = shared.len();
        for (inputs, targets) in inputs.chunks(rows).zip(targets.chunks(rows)) {
            let mut batch = Batch::default();
            for (i, &token) in inputs.iter().enumerate() {
                batch.push(BatchRow { token, seq: 0, pos: at + i }, true);
            }
            let logits = session.forward(&batch)?;
            let vocab = logits.len() / inputs.len();
            for (i, (row, target)) in logits.chunks_exact(vocab).zip(targets).enumerate() {
                let row = Row::new(row).ok_or_else(|| EvalError::NotFinite {
                    model: name.clone(),
                    position: at + i,
                })?;
                total += row.ln_p(*target);
            }
            at += inputs.len();
        }
        result.ln_p.push(total);
        result.tokens.push(choice.len());
    }
    Ok(result)
}

/// Scores items until `cancel` becomes true; `each` is told after each what was scored so far.
///
/// # Errors
/// As [`score`].
pub fn score_all(
    session: &mut Session,
    items: &[Item],
    form: Form,
    cancel: &AtomicBool,
    mut each: impl FnMut(&[ItemScore]),
) -> Result<Vec<ItemScore>, EvalError> {
    let mut scores = Vec::with_capacity(items.len());
    for item in items {
        if cancel.load(Ordering::Relaxed) {
            break;
        }
        scores.push(score(session, item, form)?);
        each(&scores);
    }
    Ok(scores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalisation_decides() {
        let s = ItemScore {
            ln_p: vec![-4.0, -6.0, -9.0],
            tokens: vec![1, 2, 2],
            bytes: vec![4, 5, 20],
            answer: 2,
        };
        assert_eq!(s.pick(|_| 1.0), 0);
        assert_eq!(s.pick(|i| s.tokens[i] as f64), 1);
        assert_eq!(s.pick(|i| s.bytes[i] as f64), 2);
        let a = Accuracy::of(&[s.clone(), ItemScore { answer: 0, ..s }]);
        assert_eq!((a.acc.value, a.acc_norm.value, a.acc_token.value), (0.5, 0.5, 0.0));
        assert!((a.chance - 1.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn bad_lines_are_named() {
        let path = Path::new("q.jsonl");
        let good = r#"{"question": "a", "choices": ["b", "c"], "answer": 1}"#;
        assert_eq!(parse(good, path).unwrap()[0].answer, 1);
        for bad in [
            r#"{"question": "a", "choices": ["b", "c"], "answer": 2}"#,
            r#"{"question": "a", "choices": ["b"], "answer": 0}"#,
            r#"{"question": "a", "choices": ["b", ""], "answer": 0}"#,
            r#"{"question": "a"}"#,
            "nonsense",
        ] {
            let text = format!("{good}\n\n{bad}\n");
            let e = parse(&text, path).unwrap_err().to_string();
            assert!(e.contains("q.jsonl, line 3"), "{e}");
        }
        assert!(parse("\n", path).is_err());
    }
}
