//! How models are told apart in charts.

use std::fmt::Write;

/// Colours that the page's style has.
const COLOURS: usize = 6;

/// How a model is drawn. Every colour comes with a filled circle and a whole line first, then with
/// a square and dashes, then with a hollow circle and dots.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Look {
    Reference,
    /// Of so many models before it.
    Model(usize),
}

impl Look {
    /// Classes in the page's style: the colour, and how lines are drawn.
    pub(super) fn class(self) -> String {
        match self {
            Look::Reference => "kr d0".into(),
            Look::Model(i) => format!("k{} d{}", i % COLOURS, self.form()),
        }
    }

    fn form(self) -> usize {
        match self {
            Look::Reference => 0,
            Look::Model(i) => i / COLOURS % 3,
        }
    }

    /// The mark of a point: an SVG element, `r` from its middle to its edge.
    pub(super) fn mark(self, x: f64, y: f64, r: f64) -> String {
        let class = self.class();
        match self.form() {
            1 => format!(
                "<rect class=\"point {class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{w:.1}\" height=\"{w:.1}\"/>",
                x - r,
                y - r,
                w = 2.0 * r
            ),
            form => {
                let hollow = if form == 2 { " hollow" } else { "" };
                format!(
                    "<circle class=\"point {class}{hollow}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{r:.1}\"/>"
                )
            }
        }
    }

    /// A line with the mark on it, for a legend.
    pub(super) fn key(self) -> String {
        let mut s = String::from("<svg class=\"key\" viewBox=\"0 0 28 10\" aria-hidden=\"true\">");
        if self != Look::Reference {
            let _ = write!(s, "<path class=\"curve {}\" d=\"M0,5H28\"/>", self.class());
        }
        s + &self.mark(14.0, 5.0, 4.0) + "</svg>"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eighteen_models_look_different() {
        let keys: Vec<_> = (0..18).map(|i| Look::Model(i).key()).collect();
        for (i, key) in keys.iter().enumerate() {
            assert!(!keys[..i].contains(key), "{i}");
        }
        assert!(!keys.contains(&Look::Reference.key()));
    }
}
