//! Axes: what range they show, where their ticks are, and what is written there.

/// Letters for which there is room beside an axis.
const ROOM: usize = 7;

/// One axis: a range of values and how they are laid out.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) label: String,
    pub(super) from: f64,
    pub(super) to: f64,
    /// Equal distances are equal ratios.
    pub(super) log: bool,
}

/// The ticks of an axis.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ticks {
    /// Where each is and what is written there.
    pub(super) marks: Vec<(f64, String)>,
    /// What is to be added to what is written, where whole values have no room.
    pub(super) base: Option<String>,
}

/// The distance between ticks, and how many digits after the point it has. Negative: so many zeros
/// at its end.
#[derive(Clone, Copy, Debug)]
struct Step {
    size: f64,
    digits: i32,
}

impl Axis {
    /// An axis from zero that holds all of `values`, with some air. Where all are zero, up to 1.
    pub(super) fn from_zero(label: &str, values: impl Iterator<Item = f64>) -> Self {
        let to = ends(values).map_or(0.0, |(_, high)| high);
        let to = if to > 0.0 { to * 1.08 } else { 1.0 };
        Axis { label: label.into(), from: 0.0, to, log: false }
    }

    /// An axis that holds all of `values`, with some air. Nothing that a report shows can be
    /// negative, so air ends at zero.
    pub(super) fn around(label: &str, values: impl Iterator<Item = f64>) -> Self {
        let (from, to) = ends(values).unwrap_or((0.0, 1.0));
        let size = from.abs().max(to.abs());
        // What differs by less than a billionth is the same: ticks between could not be told apart.
        let air = if to - from > size * 1e-9 { (to - from) * 0.08 } else { size.max(1e-9) * 0.1 };
        Axis { label: label.into(), from: (from - air).max(0.0), to: to + air, log: false }
    }

    /// Where a value is, from 0 to 1. What lies outside is moved to the end that is nearer.
    pub(super) fn at(&self, v: f64) -> f64 {
        let f = |v: f64| if self.log { v.max(f64::MIN_POSITIVE).ln() } else { v };
        ((f(v) - f(self.from)) / (f(self.to) - f(self.from))).clamp(0.0, 1.0)
    }

    /// Round values along the axis.
    pub(super) fn ticks(&self) -> Ticks {
        if self.log {
            let (a, b) = (self.from.log10().ceil() as i32, self.to.log10().floor() as i32);
            let marks = (a..=b).map(|e| (10f64.powi(e), decade(e))).collect();
            return Ticks { marks, base: None };
        }
        let Some(step) = Step::of(self.to - self.from) else { return Ticks::default() };
        let first = (self.from / step.size).ceil() as i64;
        let last = self.to / step.size + 1e-9;
        let steps: Vec<i64> = (first..).take_while(|i| *i as f64 <= last).collect();
        let (labels, base) = step.labels(&steps);
        let marks = steps.iter().map(|i| *i as f64 * step.size).zip(labels).collect();
        Ticks { marks, base }
    }
}

/// The smallest and the largest of what is finite.
fn ends(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|v| v.is_finite()).map(|v| (v, v)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

/// A power of ten.
fn decade(e: i32) -> String {
    if (-3..=3).contains(&e) { format!("{}", 10f64.powi(e)) } else { format!("1e{e}") }
}

impl Step {
    /// A round one that goes into `width` four times at most.
    fn of(width: f64) -> Option<Self> {
        let rough = width / 4.0;
        if !(rough.is_normal() && rough > 0.0) {
            return None;
        }
        let power = rough.log10().floor() as i32;
        [(1.0, 0), (2.0, 0), (2.5, 1), (5.0, 0), (10.0, -1)]
            .map(|(m, more)| Step { size: m * 10f64.powi(power), digits: more - power })
            .into_iter()
            .find(|s| s.size >= rough * (1.0 - 1e-9))
    }

    /// What is written at so many steps from zero, each exact; and what is to be added to it, where
    /// there is no room for all of it.
    fn labels(self, steps: &[i64]) -> (Vec<String>, Option<String>) {
        let write = |how: &dyn Fn(i64) -> String| steps.iter().map(|i| how(*i)).collect::<Vec<_>>();
        let fit = |labels: &[String]| labels.iter().all(|l| l.len() <= ROOM);
        let plain = write(&|i| self.plain(i));
        if fit(&plain) {
            return (plain, None);
        }
        let powers = write(&|i| self.power(i));
        match steps.first() {
            Some(&first) if first != 0 && !fit(&powers) => {
                let rest: Vec<i64> = steps.iter().map(|i| i - first).collect();
                (self.labels(&rest).0, Some(self.plain(first)))
            }
            _ => (powers, None),
        }
    }

    /// `1.25`
    fn plain(self, i: i64) -> String {
        let digits = if i == 0 { 0 } else { self.digits.max(0) as usize };
        format!("{:.digits$}", i as f64 * self.size)
    }

    /// `1.25e-6`
    fn power(self, i: i64) -> String {
        if i == 0 {
            return "0".into();
        }
        let v = i as f64 * self.size;
        // An exact power of ten may be a hair less as a float.
        let digits = (v.abs().log10() + 1e-9).floor() as i32 + self.digits;
        let s = format!("{v:.*e}", digits.max(0) as usize);
        match s.split_once('e') {
            Some((m, e)) if m.contains('.') => {
                format!("{}e{e}", m.trim_end_matches('0').trim_end_matches('.'))
            }
            _ => s,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn axis(from: f64, to: f64) -> Axis {
        Axis { label: String::new(), from, to, log: false }
    }

    fn labels(a: &Axis) -> Vec<String> {
        a.ticks().marks.into_iter().map(|m| m.1).collect()
    }

    #[test]
    fn ticks_are_round_and_within() {
        let marks = axis(0.0, 0.93).ticks().marks;
        assert_eq!(marks.iter().map(|m| m.0).collect::<Vec<_>>(), [0.0, 0.25, 0.5, 0.75]);
        assert_eq!(labels(&axis(0.0, 0.93)), ["0", "0.25", "0.50", "0.75"]);
        let a = Axis { label: String::new(), from: 1e-6, to: 10.0, log: true };
        assert_eq!(
            labels(&a),
            ["1e-6", "1e-5", "1e-4", "0.001", "0.01", "0.1", "1", "10"].map(String::from)
        );
    }

    #[test]
    fn ticks_have_the_digits_that_their_step_has() {
        assert_eq!(
            labels(&axis(1.6, 1.601)),
            ["1.60000", "1.60025", "1.60050", "1.60075", "1.60100"]
        );
        assert_eq!(labels(&axis(0.0, 6e-6)), ["0", "2e-6", "4e-6", "6e-6"]);
        assert_eq!(labels(&axis(0.0, 1e-6)), ["0", "2.5e-7", "5e-7", "7.5e-7", "1e-6"]);
        assert_eq!(labels(&axis(0.0, 4e9)), ["0", "1e9", "2e9", "3e9", "4e9"]);
    }

    #[test]
    fn without_room_for_whole_values_ticks_are_differences() {
        let ticks = axis(1.677_351, 1.677_353_5).ticks();
        assert_eq!(ticks.base.as_deref(), Some("1.677351"));
        let labels: Vec<_> = ticks.marks.iter().map(|m| m.1.as_str()).collect();
        assert_eq!(labels, ["0", "1e-6", "2e-6"]);
    }

    #[test]
    fn zeros_are_on_an_axis_to_one() {
        let a = Axis::from_zero("x", [0.0, 0.0].into_iter());
        assert_eq!((a.from, a.to), (0.0, 1.0));
        let a = Axis::from_zero("x", std::iter::empty());
        assert_eq!((a.from, a.to), (0.0, 1.0));
    }

    #[test]
    fn air_ends_at_zero() {
        let a = Axis::around("perplexity", [0.5, 5229.0].into_iter());
        assert_eq!(a.from, 0.0);
        assert!(a.to > 5229.0);
        assert!(labels(&a).iter().all(|l| !l.starts_with('-')));
    }

    proptest! {
        #[test]
        fn ticks_differ_whatever_is_shown(
            from in 0.0f64..1e4, width in -9.0f64..6.0, zero: bool,
        ) {
            let values = [from, from + 10f64.powf(width)];
            let a = match zero {
                true => Axis::from_zero("x", values.into_iter()),
                false => Axis::around("x", values.into_iter()),
            };
            let ticks = a.ticks();
            prop_assert!((2..=6).contains(&ticks.marks.len()), "{ticks:?}");
            let base: f64 = ticks.base.as_deref().unwrap_or("0").parse().unwrap();
            for pair in ticks.marks.windows(2) {
                prop_assert_ne!(&pair[0].1, &pair[1].1);
            }
            let far = a.to - a.from;
            for (v, label) in &ticks.marks {
                let written = label.parse::<f64>().unwrap() + base;
                prop_assert!((written - v).abs() <= far * 1e-4, "{label} + {base} at {v}");
                prop_assert!(*v >= a.from - far * 1e-6 && *v <= a.to + far * 1e-6);
                prop_assert!(label.len() <= 8, "{label}");
            }
        }
    }
}
