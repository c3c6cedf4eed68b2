//! Pan and scan: a long picture is also looked at in parts.

/// A part of a picture, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Columns left of it.
    pub x: usize,
    /// Rows above it.
    pub y: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// When a picture is cut, and into how many parts; Transformers' `pan_and_scan_*` options of the
/// same names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PanAndScan {
    /// `max_num_crops`: at most this many parts. With 1, the one part is the whole picture again.
    pub max_crops: usize,
    /// `min_crop_size`: parts narrower or lower than this many pixels are not made.
    pub min_crop_size: usize,
    /// `min_ratio_to_activate`: pictures whose longer side is less than this many times the shorter
    /// are not cut.
    pub min_ratio: f64,
}

impl Default for PanAndScan {
    /// The values of Transformers' `Gemma3Processor`.
    fn default() -> Self {
        PanAndScan { max_crops: 4, min_crop_size: 256, min_ratio: 1.2 }
    }
}

impl PanAndScan {
    /// The parts of a picture of `width` × `height` pixels, left to right or top to bottom. They
    /// cut the longer side only, are of equal size except that the last ends with the picture,
    /// and do not overlap. None when the picture is near enough to a square, or small.
    ///
    /// Source: `Gemma3ImageProcessor.pan_and_scan`. Where it counts a part that lies wholly outside
    /// of the picture (nine pixels in four parts of three), there is none here.
    pub fn crops(&self, width: usize, height: usize) -> Vec<Area> {
        let (long, short) = (width.max(height), width.min(height));
        if short == 0 || self.max_crops == 0 {
            return Vec::new();
        }
        let ratio = long as f64 / short as f64;
        if ratio < self.min_ratio {
            return Vec::new();
        }
        // As many as bring the parts nearest to squares, but not below the least size.
        let nearest = (ratio + 0.5).floor() as usize;
        let fitting = long / self.min_crop_size.max(1);
        let count = nearest.min(fitting).max(2).min(self.max_crops);
        let side = long.div_ceil(count);
        if side.min(short) < self.min_crop_size {
            return Vec::new();
        }
        (0..count)
            .map(|i| (side * i, side.min(long.saturating_sub(side * i))))
            .filter(|&(_, length)| length > 0)
            .map(|(start, length)| {
                if width >= height {
                    Area { x: start, y: 0, width: length, height }
                } else {
                    Area { x: 0, y: start, width, height: length }
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widths(scan: PanAndScan, width: usize, height: usize) -> Vec<usize> {
        scan.crops(width, height).iter().map(|a| a.width).collect()
    }

    #[test]
    fn near_squares_and_small_pictures_stay_whole() {
        let scan = PanAndScan::default();
        assert_eq!(scan.crops(1000, 1000), []);
        assert_eq!(scan.crops(1199, 1000), []);
        assert_eq!(scan.crops(1200, 1000).len(), 2);
        assert_eq!(scan.crops(1000, 255), [], "parts would be lower than 256");
        assert_eq!(scan.crops(510, 300), [], "parts would be narrower than 256");
        assert_eq!(scan.crops(511, 300).len(), 2, "256 and 255");
        assert_eq!(scan.crops(0, 0), []);
    }

    #[test]
    fn the_number_of_parts_is_bounded_and_nearest_to_squares() {
        let scan = PanAndScan::default();
        assert_eq!(widths(scan, 2499, 1000), [1250, 1249]);
        assert_eq!(widths(scan, 2500, 1000), [834, 834, 832]);
        assert_eq!(widths(scan, 10_000, 1000), [2500; 4]);
        assert_eq!(widths(PanAndScan { max_crops: 9, ..scan }, 10_000, 1000).len(), 9);
        assert_eq!(widths(PanAndScan { max_crops: 1, ..scan }, 3000, 1000), [3000]);
        assert_eq!(widths(scan, 900, 300), [300; 3], "four would be narrower than 256");
    }

    #[test]
    fn portraits_are_cut_from_top_to_bottom() {
        let area = |y| Area { x: 0, y, width: 300, height: 300 };
        assert_eq!(PanAndScan::default().crops(300, 900), [area(0), area(300), area(600)]);
    }

    #[test]
    fn parts_lie_within_the_picture_and_cover_it() {
        for (width, height) in [(9, 1), (1, 9), (13, 2), (149, 47), (31, 3), (7, 6)] {
            for max_crops in 1..12 {
                let scan = PanAndScan { max_crops, min_crop_size: 1, min_ratio: 1.0 };
                let parts = scan.crops(width, height);
                let covered: usize = parts.iter().map(|a| a.width * a.height).sum();
                assert_eq!(covered, width * height, "{width}×{height} in {max_crops}");
            }
        }
    }
}
