//! Names in charts: how long they may be, and where they stand.

/// Letters of a name in a chart, for which half of its width is enough.
const LETTERS: usize = 26;
/// Width of a letter: near enough.
const LETTER: f64 = 6.4;
/// Distance of lines.
const LINE: f64 = 12.5;
/// From a point to its name, and to one that a line leads to.
const NEAR: f64 = 9.0;
const FAR: f64 = 32.0;

/// `name` and `more`, short enough for a chart. The middle of the name makes way: its end often
/// says what matters most, such as `q4_0`.
pub(super) fn short(name: &str, more: &str) -> String {
    let room = LETTERS.saturating_sub(more.chars().count()).max(9);
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= room {
        return format!("{name}{more}");
    }
    let head = (room - 1) / 2;
    let tail = letters.len() - (room - 1 - head);
    let part = |l: &[char]| l.iter().collect::<String>();
    format!("{}…{}{more}", part(&letters[..head]), part(&letters[tail..]))
}

/// A point that has a name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named {
    pub(super) x: f64,
    pub(super) y: f64,
    /// Ends of its error bar.
    pub(super) bar: (f64, f64),
    /// Letters of its name.
    pub(super) letters: usize,
}

/// Where names may stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) floor: f64,
}

/// Where a name stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) x: f64,
    /// The middle of its line.
    pub(super) y: f64,
    /// To the left of its point.
    pub(super) before: bool,
    /// Too far from its point, or too near to others, to be clear without a line that leads to it.
    pub(super) led: bool,
}

/// Where the name of each point stands: beside it, or as near as what else is there lets it. None
/// where all room is taken.
pub(super) fn place(points: &[Named], area: Area) -> Vec<Option<Place>> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|a, b| points[*a].y.total_cmp(&points[*b].y));
    let mut taken: Vec<Stand> = Vec::new();
    let mut places = vec![None; points.len()];
    for i in order {
        let free =
            stands(points, i).filter(|s| s.fits(area) && !taken.iter().any(|t| s.touches(t)));
        let best = free.min_by(|a, b| a.cost(points, i).total_cmp(&b.cost(points, i)));
        if let Some(stand) = best {
            taken.push(stand);
            places[i] = Some(stand.place);
        }
    }
    places
}

/// All that could be: on either side, in steps up and down, nearest first.
fn stands(points: &[Named], i: usize) -> impl Iterator<Item = Stand> {
    let p = points[i];
    let on = |o: &Named| (o.x - p.x).abs() < 9.0 && (o.y - p.y).abs() < 9.0;
    // Of points on each other it would not be clear whose a name beside them is.
    let crowded = points.iter().filter(|o| on(o)).count() > 1;
    (0..=120).flat_map(move |step| {
        let up = if step % 2 == 0 { -1.0 } else { 1.0 };
        let away = up * f64::from((step + 1) / 2) * LINE / 4.0;
        [false, true].map(|before| Stand::new(&p, before, away, crowded))
    })
}

/// A place with the room that a name takes there.
#[derive(Clone, Copy, Debug)]
struct Stand {
    place: Place,
    left: f64,
    right: f64,
}

impl Stand {
    fn new(p: &Named, before: bool, away: f64, crowded: bool) -> Self {
        let led = crowded || away.abs() > 4.0;
        let far = if led { FAR } else { NEAR };
        let end = far + LETTER * p.letters as f64;
        // With the mark at the end of the line.
        let start = if led { far - 13.0 } else { far - 3.0 };
        let (x, left, right) = match before {
            true => (p.x - far, p.x - end, p.x - start),
            false => (p.x + far, p.x + start, p.x + end),
        };
        Stand { place: Place { x, y: p.y + away, before, led }, left, right }
    }

    fn fits(&self, area: Area) -> bool {
        let across = self.left >= area.left && self.right <= area.right;
        across && self.place.y >= area.top && self.place.y <= area.floor
    }

    fn touches(&self, other: &Stand) -> bool {
        let across = self.left < other.right && other.left < self.right;
        across && (self.place.y - other.place.y).abs() < LINE
    }

    /// How far it is from its point, and what it covers.
    fn cost(&self, points: &[Named], i: usize) -> f64 {
        let y = self.place.y;
        let covers = |o: &Named| {
            let (low, high) = (o.bar.0.max(o.bar.1), o.bar.0.min(o.bar.1));
            match o.x > self.left - 5.0 && o.x < self.right + 5.0 {
                true if (o.y - y).abs() < 10.0 => 60.0,
                true if y > high - 5.0 && y < low + 5.0 => 8.0,
                _ => 0.0,
            }
        };
        let others = points.iter().enumerate().filter(|(o, _)| *o != i);
        let side = if self.place.before { 30.0 } else { 0.0 };
        (y - points[i].y).abs() + side + others.map(|(_, o)| covers(o)).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AREA: Area = Area { left: 52.0, right: 446.0, top: 22.0, floor: 230.0 };

    fn point(x: f64, y: f64) -> Named {
        Named { x, y, bar: (y - 20.0, y + 20.0), letters: 18 }
    }

    #[test]
    fn long_names_keep_their_ends() {
        let long = "a-very-long-name-of-a-model-file-that-somebody-downloaded-q4_0";
        let s = short(long, "");
        assert_eq!(s.chars().count(), LETTERS);
        assert!(s.starts_with("a-very-long") && s.ends_with("loaded-q4_0"), "{s}");
        let s = short(long, ", KV q8_0");
        assert!(s.chars().count() == LETTERS && s.ends_with("q4_0, KV q8_0"), "{s}");
        assert_eq!(short("demo-q4_0", ", KV f16"), "demo-q4_0, KV f16");
        assert_eq!(short(&"ü".repeat(30), "").chars().count(), LETTERS);
        assert!(short(&"a".repeat(90), &"b".repeat(90)).contains('…'));
    }

    #[test]
    fn a_name_alone_stands_beside_its_point() {
        let places = place(&[point(100.0, 100.0), point(430.0, 50.0)], AREA);
        let want = |x, y, before| Some(Place { x, y, before, led: false });
        assert_eq!(places, [want(109.0, 100.0, false), want(421.0, 50.0, true)]);
    }

    #[test]
    fn points_on_each_other_have_their_names_around_them() {
        let places = place(&[point(100.0, 100.0); 3], AREA);
        let mut ys: Vec<f64> = places.iter().map(|p| p.unwrap().y).collect();
        ys.sort_by(f64::total_cmp);
        assert_eq!(ys, [87.5, 100.0, 112.5]);
        assert!(places.iter().all(|p| p.unwrap().led));
    }

    #[test]
    fn a_name_does_not_cover_a_point() {
        let places = place(&[point(150.0, 100.0), point(220.0, 102.0)], AREA);
        let (first, second) = (places[0].unwrap(), places[1].unwrap());
        assert!((first.y - 102.0).abs() >= 10.0 || first.before, "{first:?}");
        assert!(!second.led && !second.before, "{second:?}");
    }

    #[test]
    fn what_has_no_room_has_no_name() {
        let places = place(&[point(250.0, 100.0); 60], AREA);
        let named = places.iter().flatten().count();
        assert!((30..60).contains(&named), "{named}");
    }

    proptest! {
        #[test]
        fn names_neither_touch_nor_leave(
            at in prop::collection::vec((52f64..446.0, 22f64..230.0), 1..12),
        ) {
            let points: Vec<_> = at.iter().map(|p| point(p.0, p.1)).collect();
            let places: Vec<_> = place(&points, AREA).into_iter().map(Option::unwrap).collect();
            let width = LETTER * 18.0;
            let span = |p: &Place| if p.before { (p.x - width, p.x) } else { (p.x, p.x + width) };
            for (i, a) in places.iter().enumerate() {
                prop_assert!(a.y >= AREA.top - 1e-6 && a.y <= AREA.floor + 1e-6);
                prop_assert!(span(a).0 >= 0.0 && span(a).1 <= 460.0, "{:?}", span(a));
                for b in &places[..i] {
                    let beside = span(a).0 >= span(b).1 || span(b).0 >= span(a).1;
                    prop_assert!(beside || (a.y - b.y).abs() > LINE - 1e-6, "{a:?} {b:?}");
                }
            }
        }
    }
}
