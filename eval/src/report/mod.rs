//! The report: one HTML file with everything in it, to be read by a person.
//!
//! No script, nothing from the network; colours follow the reader's preference for light or dark.

mod axis;
mod charts;
mod look;
mod names;
mod svg;
mod words;

use std::fmt::Write;

use runtime::tokenizer::Tokenizer;

use crate::choices::Accuracy;
use crate::drift::LayerDrift;
use crate::scores::{Scores, Summary};
use crate::stats::{Mean, fixed, signed};
use crate::tensors::Size;
use look::Look;
use svg::Name;

/// Everything that a report shows.
pub struct Page<'a> {
    /// What was read, where it was not only questions.
    pub text: Option<PageText<'a>>,
    /// What the questions are called, where there were any.
    pub questions_name: String,
    /// What was compared with.
    pub reference: Option<Reference>,
    /// The models.
    pub rows: Vec<PageRow<'a>>,
}

/// The text of a report.
pub struct PageText<'a> {
    /// What it is called.
    pub name: String,
    /// How it was read, in words.
    pub how: String,
    /// Its tokens.
    pub ids: Vec<u32>,
    /// What makes them text again.
    pub tokenizer: Option<&'a Tokenizer>,
}

/// The reference of a report.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// Its size, where its file was there.
    pub size: Option<Size>,
}

/// One model of a report.
#[derive(Clone, Debug)]
pub struct PageRow<'a> {
    /// Its name.
    pub name: String,
    /// How its keys and values were kept.
    pub kv: &'static str,
    /// Its size.
    pub size: Size,
    /// What was measured on the text.
    pub scores: Option<&'a Scores>,
    /// What was measured on questions.
    pub accuracy: Option<Accuracy>,
    /// Its residual stream against the reference's.
    pub drift: &'a [LayerDrift],
}

/// A row with its summary, how it is drawn and the name it goes by.
struct Shown<'p, 'a> {
    row: &'p PageRow<'a>,
    scores: &'p Scores,
    summary: Summary,
    look: Look,
    name: Name,
}

/// `s` as text in HTML, or in a double-quoted attribute.
pub fn escape(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    for c in s.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Not allowed in HTML whatever the spelling.
            c if c.is_control() && c != '\n' && c != '\t' => out.push('\u{FFFD}'),
            c => out.push(c),
        }
    }
    out
}

/// A name, escaped, and as charts show it; `more` follows in either.
fn name(name: &str, more: &str) -> Name {
    let short = names::short(name, more);
    Name {
        letters: short.chars().count(),
        short: escape(&short),
        full: escape(&format!("{name}{more}")),
    }
}

impl Page<'_> {
    /// The page.
    pub fn html(&self) -> String {
        let (title, shown) = (self.title(), self.shown());
        let mut h = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <title>{title}</title><style>\n{}</style></head><body>\n<h1>{title}</h1>\n",
            include_str!("style.css")
        );
        if let Some(text) = &self.text {
            self.of_text(&mut h, text, &shown);
        }
        self.choices(&mut h);
        if let Some(text) = &self.text {
            words::surprises(&mut h, text, &shown);
        }
        h += if self.text.is_some() { FOOTER } else { FOOTER_CHOICES };
        h + "</body></html>\n"
    }

    fn title(&self) -> String {
        match (&self.text, &self.reference) {
            (None, _) => "How many questions are answered right?".into(),
            (Some(_), Some(r)) => format!("How close to {}?", escape(&r.name)),
            (Some(text), None) => format!("How well is {} predicted?", escape(&text.name)),
        }
    }

    /// What follows a name: its KV type, where there are several.
    fn more(&self, row: &PageRow<'_>) -> String {
        match self.rows.iter().any(|r| r.kv != row.kv) {
            true => format!(", KV {}", row.kv),
            false => String::new(),
        }
    }

    /// The rows that have scores.
    fn shown(&self) -> Vec<Shown<'_, '_>> {
        let of = |(i, row): (usize, _)| {
            let row: &PageRow<'_> = row;
            let scores = row.scores?;
            let name = name(&row.name, &self.more(row));
            Some(Shown { row, scores, summary: scores.summary(), look: Look::Model(i), name })
        };
        self.rows.iter().enumerate().filter_map(of).collect()
    }

    /// What was measured on the text.
    fn of_text(&self, h: &mut String, text: &PageText<'_>, shown: &[Shown<'_, '_>]) {
        let tokens = shown.first().map_or(0, |s| s.summary.tokens);
        let _ = writeln!(
            h,
            "<p class=\"soft\">{tokens} tokens of <em>{}</em>, in {}. Measured by lapidary eval.</p>",
            escape(&text.name),
            escape(&text.how)
        );
        self.verdicts(h, shown);
        self.table(h, shown);
        charts::all(h, self, shown);
    }

    /// A sentence a model: what a person wants to know first.
    fn verdicts(&self, h: &mut String, shown: &[Shown<'_, '_>]) {
        h.push_str("<ul class=\"verdicts\">");
        for s in shown {
            let Some(a) = &s.summary.against else { continue };
            let share = self.reference.as_ref().and_then(|r| r.size).map(|r| {
                let part = s.row.size.file_bytes as f64 / r.file_bytes.max(1) as f64;
                format!("is {:.0}&thinsp;% of the reference’s size, ", part * 100.0)
            });
            let ratio = a.perplexity.ratio;
            let (change, error) = ((ratio.value - 1.0) * 100.0, ratio.error * 100.0);
            let ppl = if change.abs() <= 2.0 * error {
                format!(
                    "its perplexity is the same within the error ({} ± {error:.2}&thinsp;%)",
                    signed(change, 2)
                )
            } else {
                let word = if change > 0.0 { "higher" } else { "lower" };
                format!("its perplexity is {:.2} ± {error:.2}&thinsp;% {word}", change.abs())
            };
            let _ = write!(
                h,
                "<li class=\"{}\"><strong>{}</strong> {}{ppl}, and its first choice of the next token is \
                 the reference’s {:.1}&thinsp;% of the time.</li>",
                s.look.class(),
                s.name.full,
                share.unwrap_or_default(),
                a.same_top.value * 100.0
            );
        }
        h.push_str("</ul>\n");
    }

    fn table(&self, h: &mut String, shown: &[Shown<'_, '_>]) {
        h.push_str(
            "<div class=\"scroll\" tabindex=\"0\"><table><tr><th>model</th><th>size</th><th>bits/weight</th><th>PPL</th>\
             <th>bits/byte</th><th>KLD mean</th><th>KLD 99 %</th><th>Δp RMS</th><th>same top</th>\
             <th>tokens/s</th></tr>",
        );
        let pm = |m: Mean, scale: f64, digits: usize| {
            let (value, error) = (fixed(m.value * scale, digits), fixed(m.error * scale, digits));
            format!("{value} <small>± {error}</small>")
        };
        let base =
            shown.iter().find_map(|s| Some(s.summary.against.as_ref()?.perplexity.reference));
        if let (Some(r), Some(ppl)) = (&self.reference, base) {
            let (size, bits) = r.size.map_or(("–".into(), "–".into()), |s| {
                (megabytes(s.file_bytes), format!("{:.2}", s.bits_per_weight))
            });
            let _ = write!(
                h,
                "<tr><td>{}{} <small>reference</small></td>\
                 <td>{size}</td><td>{bits}</td><td>{}</td>{}</tr>",
                Look::Reference.key(),
                escape(&r.name),
                pm(ppl, 1.0, 3),
                "<td>–</td>".repeat(6)
            );
        }
        for s in shown {
            let against = match &s.summary.against {
                Some(a) => format!(
                    "<td>{}</td><td>{:.4}</td><td>{} %</td><td>{} %</td>",
                    pm(a.kld, 1.0, 5),
                    a.kld_spread.p99(),
                    pm(a.delta_p_rms, 100.0, 2),
                    pm(a.same_top, 100.0, 2)
                ),
                None => "<td>–</td>".repeat(4),
            };
            let _ = write!(
                h,
                "<tr><td>{}{}</td><td>{}</td><td>{:.2}</td>\
                 <td>{}</td><td>{}</td>{against}<td>{:.0}</td></tr>",
                s.look.key(),
                s.name.full,
                megabytes(s.row.size.file_bytes),
                s.row.size.bits_per_weight,
                pm(s.summary.perplexity, 1.0, 3),
                pm(s.summary.bits_per_byte, 1.0, 4),
                s.summary.tokens_per_second
            );
        }
        h.push_str("</table></div>\n");
    }

    fn choices(&self, h: &mut String) {
        let rows = self.rows.iter().enumerate();
        let answered: Vec<_> = rows.filter_map(|(i, r)| Some((i, r, r.accuracy?))).collect();
        let Some((_, _, first)) = answered.first() else { return };
        let heading = if self.text.is_some() { "<h2>Multiple choice</h2>" } else { "" };
        let _ = write!(
            h,
            "{heading}<p class=\"soft\">{} questions of <em>{}</em>; guessing gives {:.0} %.</p>\
             <div class=\"scroll\" tabindex=\"0\"><table><tr><th>model</th><th>size</th><th>acc</th>\
             <th>acc_norm (per byte)</th><th>per token</th></tr>",
            first.items,
            escape(&self.questions_name),
            first.chance * 100.0
        );
        for (i, r, a) in answered {
            let of = |m: Mean| {
                format!("{:.1} <small>± {:.1}</small> %", m.value * 100.0, m.error * 100.0)
            };
            let _ = write!(
                h,
                "<tr><td>{}{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                Look::Model(i).key(),
                name(&r.name, &self.more(r)).full,
                megabytes(r.size.file_bytes),
                of(a.acc),
                of(a.acc_norm),
                of(a.acc_token)
            );
        }
        h.push_str("</table></div>\n");
    }
}

const FOOTER: &str = "<footer class=\"soft\"><p>PPL: e to the mean negative log-likelihood. KLD: Kullback-Leibler \
divergence of the model’s next-token distribution from the reference’s, in nats. Δp: probability of the correct token, \
the model’s minus the reference’s. ± is one standard error.</p></footer>";

const FOOTER_CHOICES: &str = "<footer class=\"soft\"><p>Measured by lapidary eval. acc takes the likeliest choice, \
acc_norm the likeliest per byte of it. ± is one standard error.</p></footer>";

fn megabytes(bytes: u64) -> String {
    match bytes {
        0..10_000_000 => format!("{:.2} MB", bytes as f64 / 1e6),
        10_000_000..1_000_000_000 => format!("{:.0} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scores::{Against, TokenScore};
    use crate::softmax::TOP;

    #[test]
    fn whatever_a_name_holds_stays_text() {
        assert_eq!(
            escape("<b a=\"1\" c='2'>&\u{0}"),
            "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;\u{FFFD}"
        );
    }

    fn row<'a>(name: &str, scores: Option<&'a Scores>) -> PageRow<'a> {
        PageRow {
            name: name.into(),
            kv: "f16",
            size: Size::default(),
            scores,
            accuracy: None,
            drift: &[],
        }
    }

    fn page<'a>(rows: Vec<PageRow<'a>>, reference: bool) -> Page<'a> {
        let text =
            PageText { name: "t".into(), how: "windows".into(), ids: Vec::new(), tokenizer: None };
        let reference = reference.then(|| Reference { name: "r".into(), size: None });
        Page { text: Some(text), questions_name: "q".into(), reference, rows }
    }

    /// Tokens as the reference has them, but for what is added to their log-likelihoods.
    fn scores(kld: f64, more: f64) -> Scores {
        let mut scores = Scores::default();
        for i in 0..64 {
            let top = [(0, 0.5); TOP];
            let nll = f64::from(i % 7);
            let against = Against { nll, kld, same_top: true, shared_top: TOP, top };
            let score = TokenScore { nll: nll + more, against: Some(against), top };
            scores.push(i as usize, 0, 1, score);
        }
        scores
    }

    #[test]
    fn an_empty_page_is_a_page() {
        let scores = Scores::default();
        let html = page(vec![row("<script>alert(1)</script>", Some(&scores))], false).html();
        assert!(html.ends_with("</html>\n") && !html.contains("<script>"));
        assert!(!html.contains("http://") && !html.contains("https://"));
        assert!(html.contains("aria-label=\"Surprise along the window\""));
        assert!(!html.contains("0 everywhere"), "nothing was measured");
    }

    #[test]
    fn a_model_beside_itself_is_drawn_at_zero() {
        let scores = scores(0.0, 0.0);
        let html = page(vec![row("m", Some(&scores))], true).html();
        assert!(html.contains("0 everywhere"));
        assert!(html.contains("(0.00 ± 0.00&thinsp;%)"), "{html}");
        assert!(html.contains(">100</text>") && !html.contains("class=\"break\""));
        assert!(html.contains("aria-label=\"Divergence along the window\""));
    }

    #[test]
    fn nothing_is_written_as_minus_zero() {
        let scores = scores(1e-12, -1e-9);
        let html = page(vec![row("m", Some(&scores))], true).html();
        assert!(!html.contains("-0.0"), "{html}");
    }

    #[test]
    fn many_models_all_look_different() {
        let scores = scores(0.01, 0.1);
        let rows = (0..13).map(|i| row(&format!("model-{i}"), Some(&scores))).collect();
        let html = page(rows, true).html();
        let legend = html.split("class=\"legend\"").nth(1).unwrap();
        let keys: Vec<_> =
            legend.split("<span>").skip(1).map(|s| s.split("</svg>").next()).collect();
        assert_eq!(keys.len(), 13);
        for (i, key) in keys.iter().enumerate() {
            assert!(!keys[..i].contains(key), "{key:?}");
        }
    }

    #[test]
    fn long_names_are_short_in_charts_and_whole_elsewhere() {
        let name = format!("{}-q4_0", "long-".repeat(20));
        let scores = scores(0.01, 0.1);
        let html = page(vec![row(&name, Some(&scores))], true).html();
        assert!(html.contains("…ng-long--q4_0</text>"), "{html}");
        assert!(html.contains(&format!("<title>{name}</title>")));
        assert!(
            html.contains(&format!("{name}</td>")) && !html.contains(&format!("{name}</text>"))
        );
    }

    #[test]
    fn questions_make_a_page_without_a_text() {
        let none = Mean::default();
        let accuracy =
            Accuracy { items: 56, acc: none, acc_norm: none, acc_token: none, chance: 0.25 };
        let rows = vec![PageRow { accuracy: Some(accuracy), ..row("m", None) }];
        let html = Page { text: None, ..page(rows, false) }.html();
        assert!(html.contains("56 questions of <em>q</em>") && html.ends_with("</html>\n"));
        assert!(
            !html.contains("tokens of")
                && !html.contains("PPL")
                && !html.contains("class=\"grid\"")
        );
    }
}
