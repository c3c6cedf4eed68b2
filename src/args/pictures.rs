//! The options about pictures.

use std::path::PathBuf;

use clap::Args;
use vision::PanAndScan;

use super::at_least_one;

/// What the model gets to see, and how.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Pictures (models with an mmproj file)")]
pub(crate) struct PictureArgs {
    /// A picture to look at: PNG, JPEG, WebP, GIF or BMP; give it again for more
    #[arg(long = "image", value_name = "FILE")]
    pub(crate) images: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) eyes: EyeArgs,
}

/// How the model looks at pictures.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Pictures (models with an mmproj file)")]
pub(crate) struct EyeArgs {
    /// The model's vision tower [default: mmproj-MODEL.gguf or mmproj*.gguf beside the model]
    #[arg(long, value_name = "FILE.gguf")]
    pub(crate) mmproj: Option<PathBuf>,
    /// Look at the parts of a long picture as well: more detail, and more tokens
    #[arg(long)]
    pub(crate) pan_and_scan: bool,
    /// At most this many parts [default: 4]
    #[arg(long, value_name = "N", requires = "pan_and_scan", value_parser = at_least_one)]
    max_crops: Option<usize>,
    /// No part narrower or lower than this many pixels [default: 256]
    #[arg(long, value_name = "PIXELS", requires = "pan_and_scan", value_parser = at_least_one)]
    min_crop_size: Option<usize>,
    /// Only pictures whose longer side is this many times the shorter [default: 1.2]
    #[arg(long, value_name = "RATIO", requires = "pan_and_scan", value_parser = ratio)]
    min_ratio: Option<f64>,
}

impl EyeArgs {
    /// When and how to cut pictures, if at all.
    pub(crate) fn scan(&self) -> Option<PanAndScan> {
        let default = PanAndScan::default();
        self.pan_and_scan.then(|| PanAndScan {
            max_crops: self.max_crops.unwrap_or(default.max_crops),
            min_crop_size: self.min_crop_size.unwrap_or(default.min_crop_size),
            min_ratio: self.min_ratio.unwrap_or(default.min_ratio),
        })
    }
}

fn ratio(s: &str) -> Result<f64, String> {
    match s.parse::<f64>() {
        Ok(r) if r.is_finite() && r >= 1.0 => Ok(r),
        _ => Err("a number of at least 1".into()),
    }
}
