//! The charts of a report.

use std::fmt::Write;

use super::axis::Axis;
use super::look::Look;
use super::svg::{self, Chart};
use super::{Page, Shown};
use crate::scores::Summary;
use crate::stats::Mean;
use crate::tensors::Size;

/// How many times as high as every other bar the leftmost must be to be cut.
const TOWERS: f64 = 2.5;

/// The section with all of them, and what is whose.
pub(super) fn all(h: &mut String, page: &Page<'_>, shown: &[Shown<'_, '_>]) {
    h.push_str("<div class=\"grid\">");
    let figure = |title: &str, text: &str, svg: String| {
        format!("<figure><h2>{title}</h2><p class=\"soft\">{text}</p>{svg}</figure>")
    };
    *h += &figure(
        "Perplexity against size",
        "Down and to the left is better. Bars are the standard error of the difference to the reference, or of the text where there is none.",
        by_size(page, shown),
    );
    let with_kld: Vec<_> = shown.iter().filter(|s| !s.scores.kld().is_empty()).collect();
    if !with_kld.is_empty() {
        *h += &figure(
            "Divergence, token by token",
            "How many tokens differ how much from the reference. Further left is closer; the leftmost bar holds all that are closer still.",
            histogram(&with_kld),
        );
    }
    let what = if with_kld.is_empty() { "Surprise" } else { "Divergence" };
    let title = format!("{what} along the window");
    *h += &figure(
        &title,
        "Mean over all windows, by the token’s place in its window. Does it grow with context?",
        by_position(&title, shown),
    );
    if shown.iter().any(|s| s.row.drift.len() > 1) {
        *h += &figure(
            "Drift, layer by layer",
            "Distance of the residual stream from the reference’s, relative to its length.",
            drift(shown),
        );
    }
    h.push_str("</div><p class=\"legend\">");
    for s in shown {
        let _ = write!(h, "<span>{}{}</span>", s.look.key(), s.name.full);
    }
    h.push_str("</p>\n");
}

fn by_size(page: &Page<'_>, shown: &[Shown<'_, '_>]) -> String {
    let base = shown.iter().find_map(|s| Some(s.summary.against.as_ref()?.perplexity.reference));
    let reference = page.reference.as_ref().and_then(|r| Some((r, r.size?, base?)));
    let mb = |s: &Size| s.file_bytes as f64 / 1e6;
    let sizes = shown.iter().map(|s| mb(&s.row.size)).chain(reference.map(|r| mb(&r.1)));
    let ends = |m: Mean| [(m.value - m.error).max(0.0), m.value + m.error];
    // Models read the same text: what they share says nothing about their order.
    let own = |s: &Summary| match &s.against {
        Some(a) => Mean { error: a.perplexity.difference.error, ..s.perplexity },
        None => s.perplexity,
    };
    let base = base.map(|m| Mean { error: 0.0, ..m });
    let ppl = shown.iter().map(|s| own(&s.summary)).chain(base);
    let x = Axis::from_zero("size, MB", sizes);
    let mut c = Chart::new(x, Axis::around("perplexity", ppl.flat_map(ends)));
    if let Some((r, size, ppl)) = reference {
        c.point(Look::Reference, (mb(&size), ppl.value), 0.0, super::name(&r.name, ""));
    }
    for s in shown {
        let ppl = own(&s.summary);
        c.point(s.look, (mb(&s.row.size), ppl.value), ppl.error, s.name.clone());
    }
    c.finish("Perplexity against size")
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
    let mut c = Chart::new(x, shares(&all));
    for (s, bins) in shown.iter().zip(&all) {
        c.steps(s.look, bins);
    }
    c.finish("Histogram of divergences")
}

/// The axis of a histogram. The leftmost bar holds all that is nearer still: where it would leave
/// the others no height it is cut, and there is room for what is then written beside it.
fn shares(all: &[Vec<(f64, f64, f64)>]) -> Axis {
    let highest = |bins: &[(f64, f64, f64)]| bins.iter().map(|b| b.2).fold(0.0, f64::max);
    let first = all.iter().map(|b| highest(&b[..1])).fold(0.0, f64::max);
    let others = all.iter().map(|b| highest(&b[1..])).fold(0.0, f64::max);
    let mut axis = Axis::from_zero("% of tokens", [first, others].into_iter());
    if others > 0.0 && first > TOWERS * others {
        axis.to = others * 1.04 / (1.0 - svg::room_for_cut(all.len()));
    }
    axis
}

fn by_position(title: &str, shown: &[Shown<'_, '_>]) -> String {
    let curves: Vec<Vec<(f64, Mean)>> = shown.iter().map(|s| s.scores.by_position(24)).collect();
    let xs = curves.iter().flatten().map(|p| p.0);
    let ys = || curves.iter().flatten().map(|p| p.1.value + p.1.error);
    let label = match shown.iter().all(|s| s.scores.kld().is_empty()) {
        true => "nats per token",
        false => "KLD, nats",
    };
    let mut c = Chart::new(Axis::around("token of the window", xs), Axis::from_zero(label, ys()));
    for (s, curve) in shown.iter().zip(&curves) {
        let low = |m: Mean| (m.value - m.error).max(0.0);
        let band: Vec<_> = curve.iter().map(|(x, m)| (*x, low(*m), m.value + m.error)).collect();
        let line: Vec<_> = curve.iter().map(|(x, m)| (*x, m.value)).collect();
        c.band(s.look, &band);
        c.curve(s.look, &line);
    }
    zeros(&mut c, ys());
    c.finish(title)
}

fn drift(shown: &[Shown<'_, '_>]) -> String {
    let points = || shown.iter().flat_map(|s| s.row.drift);
    let x = Axis::from_zero("layers", points().map(|d| d.depth as f64));
    let far = || points().map(|d| d.relative);
    let mut c = Chart::new(x, Axis::from_zero("‖x − y‖ / ‖y‖", far()));
    for s in shown {
        let line: Vec<_> = s.row.drift.iter().map(|d| (d.depth as f64, d.relative)).collect();
        c.curve(s.look, &line);
    }
    zeros(&mut c, far());
    c.finish("Drift of the residual stream by layer")
}

/// A line along the axis is easily overlooked.
fn zeros(c: &mut Chart, values: impl Iterator<Item = f64>) {
    if values.reduce(f64::max) == Some(0.0) {
        c.note("0 everywhere");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bins(heights: [f64; 3]) -> Vec<(f64, f64, f64)> {
        heights.into_iter().zip(0..).map(|(h, i)| (f64::from(i), f64::from(i) + 1.0, h)).collect()
    }

    #[test]
    fn the_leftmost_bar_is_cut_only_where_it_towers() {
        let all = [bins([30.0, 50.0, 20.0])];
        assert!(shares(&all).to > 50.0);
        let all = [bins([100.0, 0.0, 0.0])];
        assert!(shares(&all).to > 100.0, "there is nothing else to be seen");
        let all = [bins([99.0, 0.7, 0.3]), bins([40.0, 1.0, 0.0])];
        let to = shares(&all).to;
        assert!(to > 1.04 && to < 2.0, "{to}");
    }
}
