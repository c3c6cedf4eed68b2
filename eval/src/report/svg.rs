//! Small charts, as SVG that takes its colours from the page's style.

use std::fmt::Write;

/// Size of a chart, and the room around its plot.
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;

/// One axis: a range of values and how they are laid out.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) label: String,
    pub(super) from: f64,
    pub(super) to: f64,
    /// Equal distances are equal ratios.
    pub(super) log: bool,
}

impl Axis {
    /// An axis that holds all of `values`, with some air; from zero if `zero`.
    pub(super) fn around(label: &str, values: impl Iterator<Item = f64>, zero: bool) -> Self {
        let (mut from, mut to) = values
            .filter(|v| v.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if from > to {
            (from, to) = (0.0, 1.0);
        }
        let air = if to > from { (to - from) * 0.08 } else { to.abs().max(1e-9) * 0.1 };
        from = if zero { 0.0 } else { from - air };
        Axis { label: label.into(), from, to: to + air, log: false }
    }

    fn at(&self, v: f64) -> f64 {
        let f = |v: f64| if self.log { v.max(f64::MIN_POSITIVE).ln() } else { v };
        ((f(v) - f(self.from)) / (f(self.to) - f(self.from))).clamp(0.0, 1.0)
    }

    /// Round values along the axis.
    fn ticks(&self) -> Vec<f64> {
        if self.log {
            let (a, b) = (self.from.log10().ceil() as i32, self.to.log10().floor() as i32);
            return (a..=b).map(|e| 10f64.powi(e)).collect();
        }
        let rough = (self.to - self.from) / 4.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * power);
        let step = step.into_iter().find(|s| *s >= rough).unwrap_or(rough);
        let first = (self.from / step).ceil() as i64;
        (first..).map(|i| i as f64 * step).take_while(|v| *v <= self.to + step * 1e-9).collect()
    }

    fn shown(&self, v: f64) -> String {
        if v == 0.0 {
            return "0".into();
        }
        if self.log || v.abs() < 1e-3 {
            let e = v.abs().log10().floor();
            let m = v / 10f64.powf(e);
            return if (-2.5..=3.5).contains(&e) {
                trimmed(v)
            } else if (m - 1.0).abs() < 1e-6 {
                format!("1e{e}")
            } else {
                format!("{}e{e}", trimmed(m))
            };
        }
        trimmed(v)
    }
}

/// A number without needless zeros.
fn trimmed(v: f64) -> String {
    let s = format!("{v:.4}");
    s.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A chart under construction.
#[derive(Debug)]
pub(super) struct Chart {
    x: Axis,
    y: Axis,
    body: String,
}

impl Chart {
    pub(super) fn new(x: Axis, y: Axis) -> Self {
        Chart { x, y, body: String::new() }
    }

    fn px(&self, x: f64) -> f64 {
        LEFT + self.x.at(x) * (WIDTH - LEFT - RIGHT)
    }

    fn py(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.at(y) * (HEIGHT - TOP - BOTTOM)
    }

    fn path(&self, points: impl Iterator<Item = (f64, f64)>) -> String {
        let mut d = String::new();
        for (x, y) in points {
            let _ = write!(d, "{}{:.1},{:.1} ", if d.is_empty() { "M" } else { "L" }, x, y);
        }
        d
    }

    /// A line of class `k`.
    pub(super) fn curve(&mut self, k: &str, points: &[(f64, f64)]) {
        let d = self.path(points.iter().map(|p| (self.px(p.0), self.py(p.1))));
        let _ = write!(self.body, "<path class=\"curve {k}\" d=\"{d}\"/>");
    }

    /// What lies between two lines.
    pub(super) fn band(&mut self, k: &str, points: &[(f64, f64, f64)]) {
        let up = points.iter().map(|p| (self.px(p.0), self.py(p.2)));
        let down = points.iter().rev().map(|p| (self.px(p.0), self.py(p.1)));
        let d = self.path(up.chain(down));
        let _ = write!(self.body, "<path class=\"band {k}\" d=\"{d}Z\"/>");
    }

    /// Steps from a histogram's bins: (left edge, right edge, height).
    pub(super) fn steps(&mut self, k: &str, bins: &[(f64, f64, f64)]) {
        let points = bins.iter().flat_map(|b| [(b.0, b.2), (b.1, b.2)]);
        let d = self.path(points.map(|p| (self.px(p.0), self.py(p.1))));
        let floor = self.py(self.y.from);
        if let (Some(a), Some(b)) = (bins.first(), bins.last()) {
            let closed =
                format!("{d}L{:.1},{floor:.1} L{:.1},{floor:.1}Z", self.px(b.1), self.px(a.0));
            let _ = write!(self.body, "<path class=\"band {k}\" d=\"{closed}\"/>");
        }
        let _ = write!(self.body, "<path class=\"curve {k}\" d=\"{d}\"/>");
    }

    /// A named point with an error bar. `text` is already escaped.
    pub(super) fn point(&mut self, k: &str, x: f64, y: f64, error: f64, text: &str) {
        let (px, py) = (self.px(x), self.py(y));
        let (low, high) = (self.py(y - error), self.py(y + error));
        // The name goes where there is room.
        let (dx, anchor) = if px > WIDTH * 0.62 { (-9.0, "end") } else { (9.0, "start") };
        let _ = write!(
            self.body,
            "<line class=\"error {k}\" x1=\"{px:.1}\" x2=\"{px:.1}\" y1=\"{low:.1}\" y2=\"{high:.1}\"/>\
             <circle class=\"point {k}\" cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"4.5\"/>\
             <text class=\"name\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{text}</text>",
            px + dx,
            py + 4.0,
        );
    }

    /// The chart as an `<svg>`; `title` says what it shows, already escaped.
    pub(super) fn finish(self, title: &str) -> String {
        let mut s =
            format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">");
        let (right, floor) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for v in self.y.ticks() {
            let y = self.py(v);
            let _ = write!(
                s,
                "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                y + 4.0,
                self.y.shown(v)
            );
        }
        for v in self.x.ticks() {
            let x = self.px(v);
            let _ = write!(
                s,
                "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{floor}\" y2=\"{}\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                floor + 4.0,
                floor + 16.0,
                self.x.shown(v)
            );
        }
        let _ = write!(
            s,
            "<text x=\"{right}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <text x=\"{LEFT}\" y=\"{}\">{}</text>{}</svg>",
            HEIGHT - 6.0,
            self.x.label,
            TOP - 2.0,
            self.y.label,
            self.body
        );
        s
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        let a = Axis { label: String::new(), from: 0.0, to: 0.93, log: false };
        assert_eq!(a.ticks(), [0.0, 0.25, 0.5, 0.75]);
        let a = Axis { label: String::new(), from: 1e-3, to: 10.0, log: true };
        assert_eq!(a.ticks().len(), 5);
        assert_eq!(a.shown(0.001), "0.001");
        assert_eq!(a.shown(1e-6), "1e-6");
        assert_eq!(trimmed(1.25), "1.25");
    }

    #[test]
    fn nothing_to_show_is_no_panic() {
        let axis = || Axis::around("x", std::iter::empty(), false);
        let mut c = Chart::new(axis(), axis());
        c.curve("k0", &[]);
        c.steps("k0", &[]);
        c.band("k0", &[]);
        assert!(c.finish("empty").starts_with("<svg"));
    }
}
