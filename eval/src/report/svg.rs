//! Small charts, as SVG that takes its colours from the page's style.

use std::fmt::Write;

use super::axis::Axis;
use super::look::Look;
use super::names::{self, Area, Named, Place};

/// Size of a chart, and the room around its plot.
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 270.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 40.0;
/// Distance of the figures beside bars that were cut, and how many have room side by side.
const CUT: (f64, f64) = (66.0, 13.0);
const CUT_COLUMNS: usize = 5;

/// A name as a chart shows it, already escaped.
#[derive(Clone, Debug)]
pub(super) struct Name {
    /// Short enough.
    pub(super) short: String,
    /// Letters of the short one.
    pub(super) letters: usize,
    /// All of it.
    pub(super) full: String,
}

/// A point, until it is known where all are.
#[derive(Clone, Debug)]
struct Point {
    look: Look,
    at: Named,
    name: Name,
}

/// A bar that is higher than the chart.
#[derive(Clone, Debug)]
struct Cut {
    look: Look,
    /// Its left and right edge.
    edges: (f64, f64),
    height: f64,
}

/// A chart under construction.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    x: Axis,
    y: Axis,
    body: String,
    points: Vec<Point>,
    cut: Vec<Cut>,
}

/// The share of a chart's height that figures of so many cut bars take.
pub(super) fn room_for_cut(bars: usize) -> f64 {
    (cut_lines(bars) as f64 * CUT.1 + 4.0) / (HEIGHT - TOP - BOTTOM)
}

fn cut_lines(bars: usize) -> usize {
    bars.min(4).max(bars.div_ceil(CUT_COLUMNS))
}

impl Chart {
    pub(super) fn new(x: Axis, y: Axis) -> Self {
        Chart { x, y, body: String::new(), points: Vec::new(), cut: Vec::new() }
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

    /// A line.
    pub(super) fn curve(&mut self, look: Look, points: &[(f64, f64)]) {
        let d = self.path(points.iter().map(|p| (self.px(p.0), self.py(p.1))));
        let _ = write!(self.body, "<path class=\"curve {}\" d=\"{d}\"/>", look.class());
    }

    /// What lies between two lines.
    pub(super) fn band(&mut self, look: Look, points: &[(f64, f64, f64)]) {
        let up = points.iter().map(|p| (self.px(p.0), self.py(p.2)));
        let down = points.iter().rev().map(|p| (self.px(p.0), self.py(p.1)));
        let d = self.path(up.chain(down));
        let _ = write!(self.body, "<path class=\"band {}\" d=\"{d}Z\"/>", look.class());
    }

    /// Steps from a histogram's bins: (left edge, right edge, height in %). A bar higher than the
    /// axis is cut, and its height written beside it.
    pub(super) fn steps(&mut self, look: Look, bins: &[(f64, f64, f64)]) {
        let class = look.class();
        let points = bins.iter().flat_map(|b| [(b.0, b.2), (b.1, b.2)]);
        let d = self.path(points.map(|p| (self.px(p.0), self.py(p.1))));
        let floor = self.py(self.y.from);
        if let (Some(a), Some(b)) = (bins.first(), bins.last()) {
            let closed =
                format!("{d}L{:.1},{floor:.1} L{:.1},{floor:.1}Z", self.px(b.1), self.px(a.0));
            let _ = write!(self.body, "<path class=\"band {class}\" d=\"{closed}\"/>");
        }
        let _ = write!(self.body, "<path class=\"curve {class}\" d=\"{d}\"/>");
        for b in bins.iter().filter(|b| b.2 > self.y.to) {
            let edges = (self.px(b.0), self.px(b.1));
            self.cut.push(Cut { look, edges, height: b.2 });
        }
    }

    /// A named point with an error bar. What is not finite has no place on an axis; tables have it.
    pub(super) fn point(&mut self, look: Look, (x, y): (f64, f64), error: f64, name: Name) {
        if !(x.is_finite() && y.is_finite() && error.is_finite()) {
            return;
        }
        let bar = (self.py(y - error), self.py(y + error));
        let at = Named { x: self.px(x), y: self.py(y), bar, letters: name.letters };
        self.points.push(Point { look, at, name });
    }

    /// Words in the middle of the plot.
    pub(super) fn note(&mut self, text: &str) {
        let (x, y) = ((LEFT + WIDTH - RIGHT) / 2.0, (TOP + HEIGHT - BOTTOM) / 2.0);
        let _ = write!(
            self.body,
            "<text class=\"name\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{text}</text>"
        );
    }

    /// The chart as an `<svg>`; `title` says what it shows, already escaped.
    pub(super) fn finish(self, title: &str) -> String {
        let mut s =
            format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">");
        self.axes(&mut s);
        s += &self.body;
        self.breaks(&mut s);
        self.names(&mut s);
        s + "</svg>"
    }

    fn axes(&self, s: &mut String) {
        let (right, floor) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let (x, y) = (self.x.ticks(), self.y.ticks());
        for (v, label) in &y.marks {
            let at = self.py(*v);
            let _ = write!(
                s,
                "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                LEFT - 6.0,
                at + 4.0,
            );
        }
        for (v, label) in &x.marks {
            let at = self.px(*v);
            let _ = write!(
                s,
                "<line class=\"axis\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{floor}\" y2=\"{}\"/>\
                 <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
                floor + 4.0,
                floor + 16.0,
            );
        }
        let less = |base: Option<String>| base.map_or(String::new(), |b| format!(" − {b}"));
        let _ = write!(
            s,
            "<text x=\"{right}\" y=\"{}\" text-anchor=\"end\">{}{}</text>\
             <text x=\"{LEFT}\" y=\"{}\">{}{}</text>",
            HEIGHT - 6.0,
            self.x.label,
            less(x.base),
            TOP - 9.0,
            self.y.label,
            less(y.base),
        );
    }

    /// Bars that were cut: a gap near their upper end, and how high they are.
    fn breaks(&self, s: &mut String) {
        let right = self.cut.iter().map(|c| c.edges.1).fold(LEFT, f64::max);
        let lines = cut_lines(self.cut.len()).max(1);
        for (i, cut) in self.cut.iter().enumerate() {
            let (a, b) = (cut.edges.0 - 4.0, cut.edges.1 + 4.0);
            let wave = (b - a) / 4.0;
            let (x, y) =
                (right + 16.0 + CUT.0 * (i / lines) as f64, TOP + 5.0 + CUT.1 * (i % lines) as f64);
            let _ = write!(
                s,
                "<path class=\"break\" d=\"M{a:.1},{:.1}q{h:.1},-6 {wave:.1},0t{wave:.1},0t{wave:.1},0t{wave:.1},0\"/>\
                 {}<text class=\"name\" x=\"{:.1}\" y=\"{:.1}\">{:.1} %</text>",
                TOP + 10.0,
                cut.look.mark(x, y, 4.0),
                x + 9.0,
                y + 4.0,
                cut.height,
                h = wave / 2.0,
            );
        }
    }

    /// The points and what they are called.
    fn names(&self, s: &mut String) {
        let named: Vec<Named> = self.points.iter().map(|p| p.at).collect();
        let area =
            Area { left: LEFT, right: WIDTH - RIGHT, top: TOP + 6.0, floor: HEIGHT - BOTTOM - 6.0 };
        let places = names::place(&named, area);
        for (p, place) in self.points.iter().zip(&places) {
            let (class, at) = (p.look.class(), p.at);
            let _ = write!(
                s,
                "<line class=\"error {class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
                at.bar.0,
                at.bar.1,
                x = at.x,
            );
            if let Some(place) = place.filter(|p| p.led) {
                lead(s, p, place);
            }
        }
        for (p, place) in self.points.iter().zip(places) {
            let _ =
                write!(s, "<g><title>{}</title>{}", p.name.full, p.look.mark(p.at.x, p.at.y, 4.5));
            if let Some(place) = place {
                let anchor = if place.before { "end" } else { "start" };
                let _ = write!(
                    s,
                    "<text class=\"name\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
                    place.x,
                    place.y + 4.0,
                    p.name.short,
                );
            }
            s.push_str("</g>");
        }
    }
}

/// A line from a point to its name, with the point's mark at its end.
fn lead(s: &mut String, p: &Point, place: Place) {
    let end = if place.before { place.x + 8.0 } else { place.x - 8.0 };
    let _ = write!(
        s,
        "<line class=\"lead {}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{end:.1}\" y2=\"{:.1}\"/>{}",
        p.look.class(),
        p.at.x,
        p.at.y,
        place.y,
        p.look.mark(end, place.y, 3.0),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        Chart::new(Axis::from_zero("x", [1.0].into_iter()), Axis::from_zero("y", [2.0].into_iter()))
    }

    #[test]
    fn nothing_to_show_is_no_panic() {
        let axis = || Axis::around("x", std::iter::empty());
        let mut c = Chart::new(axis(), axis());
        c.curve(Look::Model(0), &[]);
        c.steps(Look::Model(0), &[]);
        c.band(Look::Model(0), &[]);
        let name = Name { short: "inf".into(), letters: 3, full: "inf".into() };
        c.point(Look::Model(0), (1.0, f64::INFINITY), f64::INFINITY, name);
        let svg = c.finish("empty");
        assert!(svg.starts_with("<svg") && !svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn a_bar_that_is_cut_says_how_high_it_is() {
        let mut c = chart();
        c.steps(Look::Model(0), &[(0.0, 0.5, 98.76), (0.5, 1.0, 1.0)]);
        let svg = c.finish("bars");
        assert_eq!(svg.matches("class=\"break\"").count(), 1);
        assert!(svg.contains(">98.8 %</text>"), "{svg}");
        let mut c = chart();
        c.steps(Look::Model(0), &[(0.0, 0.5, 2.0), (0.5, 1.0, 1.0)]);
        assert!(!c.finish("bars").contains("class=\"break\""));
    }

    #[test]
    fn names_far_from_their_points_are_led_to() {
        let name =
            |s: &str| Name { short: s.into(), letters: s.len(), full: format!("all of {s}") };
        let mut c = chart();
        c.point(Look::Model(0), (0.5, 1.0), 0.1, name("a"));
        assert!(!c.clone().finish("points").contains("class=\"lead"));
        c.point(Look::Model(1), (0.5, 1.0), 0.1, name("b"));
        let svg = c.finish("points");
        assert_eq!(svg.matches("class=\"lead").count(), 2);
        assert!(svg.contains("<title>all of a</title>") && svg.contains(">b</text>"));
    }
}
