//! Augmentation of training clips: LAVIS's RandomResizedCrop and flip, the same for all frames of a view.

use crate::error::{Error, Result};
use crate::preprocess::Preprocess;
use crate::random::RandomStream;
use crate::video::{Frames, Resizing};
use serde::{Deserialize, Serialize};

/// The augmentation of a clip.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Range of the crop's area, as a fraction of the frame's.
    pub scale: (f64, f64),
    /// Range of the crop's aspect ratio, width by height.
    pub ratio: (f64, f64),
    /// Probability of a horizontal flip. It must be 0 if captions mention left and right.
    pub flip: f64,
    /// What a crop is cut from.
    pub crop_from: CropFrom,
    /// The rule by which a crop is resized to the square, where it differs from that of whole frames.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resizing: Option<Resizing>,
}

/// What a crop is cut from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CropFrom {
    /// The frame as stored: a crop of a 16:9 frame has at most three quarters of its area, because of the
    /// range of aspect ratios.
    #[default]
    Frame,
    /// The frame resized to the model's square, as in the authors' code (`alpro_processors.py`): a crop can
    /// have the whole frame, and is distorted as the frames of validation are.
    Square,
}

impl Default for Augment {
    fn default() -> Self {
        Self {
            scale: (0.5, 1.0),
            ratio: (3.0 / 4.0, 4.0 / 3.0),
            flip: 0.5,
            crop_from: CropFrom::default(),
            resizing: None,
        }
    }
}

/// The crop of one clip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crop {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Number of rows.
    pub height: usize,
    /// Number of columns.
    pub width: usize,
    /// Whether it is flipped horizontally.
    pub flip: bool,
}

impl Augment {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Setting`] with the first value out of range.
    pub fn validate(&self) -> Result<()> {
        let range = |key, (low, high): (f64, f64), max: f64| {
            if low > 0.0 && low <= high && high <= max {
                return Ok(());
            }
            let expected = format!("two numbers above 0 and at most {max}, the smaller first");
            Err(Error::setting(key, expected, format!("{low} and {high}")))
        };
        range("scale", self.scale, 1.0)?;
        range("ratio", self.ratio, 100.0)?;
        if (0.0..=1.0).contains(&self.flip) {
            return Ok(());
        }
        Err(Error::setting("flip", "from 0 to 1", self.flip))
    }

    /// Draws a crop by torchvision's rule: ten attempts with a random area and a random aspect ratio (its
    /// logarithm is uniform), then the largest central crop with an allowed ratio.
    #[must_use]
    pub fn draw(&self, height: usize, width: usize, seed: u64) -> Crop {
        let mut random = RandomStream::new(seed, "augment: crop", 0);
        let flip = random.chance(self.flip);
        let area = (height * width) as f64;
        let (low, high) = (self.ratio.0.ln(), self.ratio.1.ln());
        for _ in 0..10 {
            let kept = area * random.between(self.scale.0, self.scale.1);
            let ratio = random.between(low, high).exp();
            let crop_width = (kept * ratio).sqrt().round() as usize;
            let crop_height = (kept / ratio).sqrt().round() as usize;
            if (1..=width).contains(&crop_width) && (1..=height).contains(&crop_height) {
                let top = random.below(height - crop_height + 1);
                let left = random.below(width - crop_width + 1);
                return Crop { top, left, height: crop_height, width: crop_width, flip };
            }
        }
        let ratio = width as f64 / height.max(1) as f64;
        let (crop_height, crop_width) = if ratio < self.ratio.0 {
            (((width as f64 / self.ratio.0).round() as usize).min(height), width)
        } else if ratio > self.ratio.1 {
            (height, ((height as f64 * self.ratio.1).round() as usize).min(width))
        } else {
            (height, width)
        };
        let (top, left) = ((height - crop_height) / 2, (width - crop_width) / 2);
        Crop { top, left, height: crop_height, width: crop_width, flip }
    }
}

impl Crop {
    /// Crops every frame, flips it if [`Self::flip`] is set, and resizes it.
    ///
    /// # Shapes
    /// `[f, height, width, 3]` to `[f, size, size, 3]`
    ///
    /// # Errors
    /// A crop outside the frames; those of [`Preprocess::resize`].
    pub fn apply(&self, frames: &Frames, preprocess: &Preprocess) -> Result<Frames> {
        if self.top + self.height > frames.height || self.left + self.width > frames.width {
            let expected = format!("one within {} x {}", frames.height, frames.width);
            return Err(Error::setting("crop", expected, format!("{self:?}")));
        }
        let mut data = Vec::with_capacity(frames.count * self.height * self.width * 3);
        for frame in frames.iter() {
            for row in frame.chunks_exact(frames.width * 3).skip(self.top).take(self.height) {
                let kept = &row[self.left * 3..(self.left + self.width) * 3];
                if self.flip {
                    data.extend(kept.chunks_exact(3).rev().flatten());
                } else {
                    data.extend_from_slice(kept);
                }
            }
        }
        let cut = Frames { count: frames.count, height: self.height, width: self.width, data };
        preprocess.resize(&cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_crop_serves_every_frame() {
        let one: Vec<u8> = (0..10 * 12 * 3).map(|i| (i % 251) as u8).collect();
        let frames = Frames { count: 3, height: 10, width: 12, data: one.repeat(3) };
        let crop = Augment::default().draw(10, 12, 5);
        let out = crop.apply(&frames, &Preprocess::new(8)).unwrap();
        let mut each = out.iter();
        let first = each.next().unwrap();
        assert!(each.all(|frame| frame == first));
        assert_eq!((out.count, out.height, out.width), (3, 8, 8));
    }

    #[test]
    fn a_flip_mirrors_left_and_right() {
        let frames = Frames { count: 1, height: 1, width: 3, data: vec![1, 1, 1, 2, 2, 2, 3, 3, 3] };
        let crop = Crop { top: 0, left: 1, height: 1, width: 2, flip: true };
        // A crop of one row and two columns keeps its columns when resized to 2 x 2.
        let out = crop.apply(&frames, &Preprocess::new(2)).unwrap();
        assert!(out.data[0] > out.data[3]);
        assert!(Crop { left: 2, ..crop }.apply(&frames, &Preprocess::new(2)).is_err());
    }

    #[test]
    fn impossible_settings_are_named() {
        Augment::default().validate().unwrap();
        let message = |augment: Augment| augment.validate().unwrap_err().to_string();
        assert!(message(Augment { scale: (0.0, 1.0), ..Default::default() }).starts_with("scale"));
        assert!(message(Augment { ratio: (2.0, 1.0), ..Default::default() }).starts_with("ratio"));
        assert!(message(Augment { flip: 2.0, ..Default::default() }).starts_with("flip"));
    }

    proptest! {
        #[test]
        fn crops_are_inside_the_frame(height in 1usize..700, width in 1usize..700, seed: u64) {
            let augment = Augment::default();
            let crop = augment.draw(height, width, seed);
            prop_assert!(crop.height >= 1 && crop.top + crop.height <= height);
            prop_assert!(crop.width >= 1 && crop.left + crop.width <= width);
            prop_assert_eq!(crop, augment.draw(height, width, seed));
            if height > 60 && width > 60 && height < 2 * width && width < 2 * height {
                let share = (crop.height * crop.width) as f64 / (height * width) as f64;
                prop_assert!(share > 0.47, "{}", share);
            }
        }
    }
}
