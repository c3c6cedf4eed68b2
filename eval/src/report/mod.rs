//! The report: one HTML file with everything in it, to be read by a person.
//!
//! No script, nothing from the network; colours follow the reader's preference for light or dark.

mod svg;
mod words;

use std::fmt::Write;

use runtime::tokenizer::Tokenizer;

use crate::choices::Accuracy;
use crate::drift::LayerDrift;
use crate::scores::{Scores, Summary};
use crate::stats::Mean;
use crate::tensors::Size;
use svg::{Axis, Chart};

/// Everything that a report shows.
pub struct Page<'a> {
    /// What the text is called.
    pub text_name: String,
    /// How it was read, in words.
    pub how: String,
    /// What was compared with.
    pub reference: Option<Reference>,
    /// The models.
    pub rows: Vec<PageRow<'a>>,
    /// The text's tokens.
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

/// A row with its summary, its class and the name it goes by.
struct Shown<'p, 'a> {
    row: &'p PageRow<'a>,
    scores: &'p Scores,
    summary: Summary,
    class: String,
    name: String,
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

impl Page<'_> {
    /// The page.
    pub fn html(&self) -> String {
        let many_kv = self.rows.iter().any(|r| r.kv != self.rows[0].kv);
        let shown: Vec<Shown<'_, '_>> = self
            .rows
            .iter()
            .enumerate()
            .filter_map(|(i, row)| {
                let scores = row.scores?;
                let kv = if many_kv { format!(", KV {}", row.kv) } else { String::new() };
                let name = escape(&format!("{}{kv}", row.name));
                let class = format!("k{}", i % 6);
                Some(Shown { row, scores, summary: scores.summary(), class, name })
            })
            .collect();
        let title = match &self.reference {
            Some(r) => format!("How close to {}?", escape(&r.name)),
            None => format!("How well is {} predicted?", escape(&self.text_name)),
        };
        let mut h = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <title>{title}</title><style>\n{}</style></head><body>\n<h1>{title}</h1>\n",
            include_str!("style.css")
        );
        let tokens = shown.first().map_or(0, |s| s.summary.tokens);
        let _ = writeln!(
            h,
            "<p class=\"soft\">{tokens} tokens of <em>{}</em>, in {}. Measured by lapidary eval.</p>",
            escape(&self.text_name),
            escape(&self.how)
        );
        self.verdicts(&mut h, &shown);
        self.table(&mut h, &shown);
        self.charts(&mut h, &shown);
        self.choices(&mut h);
        words::surprises(&mut h, self, &shown);
        h += FOOTER;
        h
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
                    "its perplexity is the same within the error ({change:+.2} ± {error:.2}&thinsp;%)"
                )
            } else {
                let word = if change > 0.0 { "higher" } else { "lower" };
                format!("its perplexity is {:.2} ± {error:.2}&thinsp;% {word}", change.abs())
            };
            let _ = write!(
                h,
                "<li class=\"{}\"><strong>{}</strong> {}{ppl}, and its first choice of the next token is \
                 the reference’s {:.1}&thinsp;% of the time.</li>",
                s.class,
                s.name,
                share.unwrap_or_default(),
                a.same_top.value * 100.0
            );
        }
        h.push_str("</ul>\n");
    }

    fn table(&self, h: &mut String, shown: &[Shown<'_, '_>]) {
        h.push_str(
            "<div class=\"scroll\"><table><tr><th>model</th><th>size</th><th>bits/weight</th><th>PPL</th>\
             <th>bits/byte</th><th>KLD mean</th><th>KLD 99 %</th><th>Δp RMS</th><th>same top</th>\
             <th>tokens/s</th></tr>",
        );
        let pm = |m: Mean, scale: f64, digits: usize| {
            format!("{:.digits$} <small>± {:.digits$}</small>", m.value * scale, m.error * scale)
        };
        let base =
            shown.iter().find_map(|s| Some(s.summary.against.as_ref()?.perplexity.reference));
        if let (Some(r), Some(ppl)) = (&self.reference, base) {
            let (size, bits) = r.size.map_or(("–".into(), "–".into()), |s| {
                (megabytes(s.file_bytes), format!("{:.2}", s.bits_per_weight))
            });
            let _ = write!(
                h,
                "<tr class=\"kr\"><td><span class=\"dot\"></span>{} <small>reference</small></td>\
                 <td>{size}</td><td>{bits}</td><td>{}</td>{}</tr>",
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
                "<tr class=\"{}\"><td><span class=\"dot\"></span>{}</td><td>{}</td><td>{:.2}</td>\
                 <td>{}</td><td>{}</td>{against}<td>{:.0}</td></tr>",
                s.class,
                s.name,
                megabytes(s.row.size.file_bytes),
                s.row.size.bits_per_weight,
                pm(s.summary.perplexity, 1.0, 3),
                pm(s.summary.bits_per_byte, 1.0, 4),
                s.summary.tokens_per_second
            );
        }
        h.push_str("</table></div>\n");
    }

    fn charts(&self, h: &mut String, shown: &[Shown<'_, '_>]) {
        h.push_str("<div class=\"grid\">");
        let figure = |title: &str, text: &str, svg: String| {
            format!("<figure><h2>{title}</h2><p class=\"soft\">{text}</p>{svg}</figure>")
        };
        *h += &figure(
            "Perplexity against size",
            "Down and to the left is better. Bars are the standard error of the text, which all models share.",
            self.size_chart(shown),
        );
        let with_kld: Vec<_> = shown.iter().filter(|s| !s.scores.kld().is_empty()).collect();
        if !with_kld.is_empty() {
            *h += &figure(
                "Divergence, token by token",
                "How many tokens differ how much from the reference. Further left is closer.",
                histogram(&with_kld),
            );
        }
        let what = if with_kld.is_empty() { "Surprise" } else { "Divergence" };
        *h += &figure(
            &format!("{what} along the window"),
            "Mean over all windows, by the token’s place in its window. Does it grow with context?",
            by_position(shown),
        );
        if shown.iter().any(|s| s.row.drift.len() > 1) {
            *h += &figure(
                "Drift, layer by layer",
                "Distance of the residual stream from the reference’s, relative to its length.",
                drift_chart(shown),
            );
        }
        h.push_str("</div><p class=\"legend\">");
        for s in shown {
            let _ = write!(
                h,
                "<span class=\"{}\"><span class=\"dot\"></span>{}</span>",
                s.class, s.name
            );
        }
        h.push_str("</p>\n");
    }

    fn size_chart(&self, shown: &[Shown<'_, '_>]) -> String {
        let base =
            shown.iter().find_map(|s| Some(s.summary.against.as_ref()?.perplexity.reference));
        let reference = self.reference.as_ref().and_then(|r| Some((r, r.size?, base?)));
        let mb = |s: &Size| s.file_bytes as f64 / 1e6;
        let sizes = shown.iter().map(|s| mb(&s.row.size)).chain(reference.map(|r| mb(&r.1)));
        let ends = |m: Mean| [m.value - m.error, m.value + m.error];
        let ppl = shown.iter().map(|s| s.summary.perplexity).chain(reference.map(|r| r.2));
        let x = Axis::around("size, MB", sizes, true);
        let mut c = Chart::new(x, Axis::around("perplexity", ppl.flat_map(ends), false));
        if let Some((r, size, ppl)) = reference {
            c.point("kr", mb(&size), ppl.value, ppl.error, &escape(&r.name));
        }
        for s in shown {
            let ppl = s.summary.perplexity;
            c.point(&s.class, mb(&s.row.size), ppl.value, ppl.error, &s.name);
        }
        c.finish("Perplexity against size")
    }

    fn choices(&self, h: &mut String) {
        let answered: Vec<_> =
            self.rows.iter().filter_map(|r| Some((r, r.accuracy.as_ref()?))).collect();
        let Some((_, first)) = answered.first() else { return };
        let _ = write!(
            h,
            "<h2>Multiple choice</h2><p class=\"soft\">{} questions; guessing gives {:.0} %.</p>\
             <div class=\"scroll\"><table><tr><th>model</th><th>acc</th><th>acc_norm (per byte)</th>\
             <th>per token</th></tr>",
            first.items,
            first.chance * 100.0
        );
        for (r, a) in answered {
            let of = |m: Mean| {
                format!("{:.1} <small>± {:.1}</small> %", m.value * 100.0, m.error * 100.0)
            };
            let _ = write!(
                h,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(&r.name),
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
the model’s minus the reference’s. ± is one standard error.</p></footer></body></html>\n";

fn megabytes(bytes: u64) -> String {
    match bytes {
        0..10_000_000 => format!("{:.2} MB", bytes as f64 / 1e6),
        10_000_000..1_000_000_000 => format!("{:.0} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// Shares of tokens by the logarithm of their divergence, three bins a decade.
fn histogram(shown: &[&Shown<'_, '_>]) -> String {
    const FROM: f64 = -7.0;
    const BINS: usize = 25;
    let edge = |i: usize| 10f64.powf(FROM + i as f64 / 3.0);
    let all: Vec<Vec<(f64, f64, f64)>> = shown
        .iter()
        .map(|s| {
            let mut counts = [0usize; BINS];
            for &v in s.scores.kld() {
                let at = (v.max(1e-9).log10() - FROM) * 3.0;
                counts[(at.max(0.0) as usize).min(BINS - 1)] += 1;
            }
            let n = s.scores.kld().len() as f64;
            (0..BINS).map(|i| (edge(i), edge(i + 1), counts[i] as f64 / n * 100.0)).collect()
        })
        .collect();
    let x = Axis { label: "KLD, nats".into(), from: edge(0), to: edge(BINS), log: true };
    let heights = all.iter().flatten().map(|b| b.2);
    let mut c = Chart::new(x, Axis::around("% of tokens", heights, true));
    for (s, bins) in shown.iter().zip(&all) {
        c.steps(&s.class, bins);
    }
    c.finish("Histogram of divergences")
}

fn by_position(shown: &[Shown<'_, '_>]) -> String {
    let curves: Vec<Vec<(f64, Mean)>> = shown.iter().map(|s| s.scores.by_position(24)).collect();
    let xs = curves.iter().flatten().map(|p| p.0);
    let ys = curves.iter().flatten().map(|p| p.1.value + p.1.error);
    let label = match shown.iter().all(|s| s.scores.kld().is_empty()) {
        true => "nats per token",
        false => "KLD, nats",
    };
    let mut c =
        Chart::new(Axis::around("token of the window", xs, false), Axis::around(label, ys, true));
    for (s, curve) in shown.iter().zip(&curves) {
        let low = |m: Mean| (m.value - m.error).max(0.0);
        let band: Vec<_> = curve.iter().map(|(x, m)| (*x, low(*m), m.value + m.error)).collect();
        let line: Vec<_> = curve.iter().map(|(x, m)| (*x, m.value)).collect();
        c.band(&s.class, &band);
        c.curve(&s.class, &line);
    }
    c.finish("Divergence by position")
}

fn drift_chart(shown: &[Shown<'_, '_>]) -> String {
    let points = || shown.iter().flat_map(|s| s.row.drift);
    let x = Axis::around("layers", points().map(|d| d.depth as f64), true);
    let mut c = Chart::new(x, Axis::around("‖x − y‖ / ‖y‖", points().map(|d| d.relative), true));
    for s in shown {
        let line: Vec<_> = s.row.drift.iter().map(|d| (d.depth as f64, d.relative)).collect();
        c.curve(&s.class, &line);
    }
    c.finish("Drift of the residual stream by layer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_name_holds_stays_text() {
        assert_eq!(
            escape("<b a=\"1\" c='2'>&\u{0}"),
            "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;\u{FFFD}"
        );
    }

    #[test]
    fn an_empty_page_is_a_page() {
        let scores = Scores::default();
        let row = PageRow {
            name: "<script>alert(1)</script>".into(),
            kv: "f16",
            size: Size::default(),
            scores: Some(&scores),
            accuracy: None,
            drift: &[],
        };
        let page = Page {
            text_name: "t".into(),
            how: "windows".into(),
            reference: None,
            rows: vec![row],
            ids: Vec::new(),
            tokenizer: None,
        };
        let html = page.html();
        assert!(html.ends_with("</html>\n") && !html.contains("<script>"));
        assert!(!html.contains("http://") && !html.contains("https://"));
    }
}
