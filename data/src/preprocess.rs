//! From decoded frames to a vision transformer's input: a square resize, then CLIP's normalisation.
//!
//! Letters in shapes: f frames; `size` is the side of the square.

use crate::error::Result;
use crate::video::{self, Frames};
use serde::{Deserialize, Serialize};

pub use crate::video::Resizing;

/// CLIP's mean of each channel, for pixels in 0..1.
pub const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// CLIP's standard deviation of each channel, for pixels in 0..1.
pub const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// How frames become a model's input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Preprocess {
    /// Side of the square in pixels; the aspect ratio is not kept, as in BLIP.
    pub size: u32,
    /// The rule of resizing.
    pub resizing: Resizing,
    /// Mean of each channel, for pixels in 0..1.
    pub mean: [f32; 3],
    /// Standard deviation of each channel, for pixels in 0..1.
    pub std: [f32; 3],
}

impl Default for Preprocess {
    fn default() -> Self {
        Self { size: 224, resizing: Resizing::Blip, mean: CLIP_MEAN, std: CLIP_STD }
    }
}

impl Preprocess {
    /// CLIP's normalisation and BLIP's resizing to this size.
    #[must_use]
    pub fn new(size: u32) -> Self {
        Self { size, ..Self::default() }
    }

    /// Resizes frames.
    ///
    /// # Shapes
    /// `[f, height, width, 3]` to `[f, size, size, 3]`
    ///
    /// # Errors
    /// As [`video::resize`].
    pub fn resize(&self, frames: &Frames) -> Result<Frames> {
        video::resize(frames, self.size, self.resizing)
    }

    /// Appends the bytes of frames to `out`, channels first: what a device normalises.
    ///
    /// # Shapes
    /// - `pixels`: `[f, size, size, 3]`
    /// - appends `[f, 3, size, size]`; bytes after the last complete frame are ignored
    pub fn channels_first(&self, pixels: &[u8], out: &mut Vec<u8>) {
        let plane = (self.size as usize).pow(2);
        out.reserve(pixels.len());
        for frame in pixels.chunks_exact((plane * 3).max(1)) {
            for channel in 0..3 {
                out.extend(frame.iter().skip(channel).step_by(3));
            }
        }
    }

    /// Scales bytes to 0..1, subtracts the mean, divides by the standard deviation, and puts channels first:
    /// what a model reads, computed on the host.
    ///
    /// # Shapes
    /// - `pixels`: `[f, size, size, 3]`
    /// - returns `[f, 3, size, size]`; bytes after the last complete frame are ignored
    #[must_use]
    pub fn normalize(&self, pixels: &[u8]) -> Vec<f32> {
        let plane = (self.size as usize).pow(2);
        let table = self.table();
        let mut out = Vec::with_capacity(pixels.len());
        for frame in pixels.chunks_exact(plane * 3) {
            for (channel, table) in table.iter().enumerate() {
                out.extend(frame.iter().skip(channel).step_by(3).map(|&byte| table[usize::from(byte)]));
            }
        }
        out
    }

    /// The normalised value of each byte, by channel, in f32 and in the reference's order: scale, subtract,
    /// divide.
    fn table(&self) -> [[f32; 256]; 3] {
        std::array::from_fn(|c| {
            std::array::from_fn(|byte| (byte as f32 * (1.0 / 255.0) - self.mean[c]) / self.std[c])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalize_puts_channels_first() {
        let preprocess =
            Preprocess { size: 2, mean: [0.0, 0.5, 1.0], std: [1.0, 0.5, 2.0], ..Preprocess::default() };
        let pixels: Vec<u8> = (0..4).flat_map(|i| [i * 10, 255, 0]).collect();
        let out = preprocess.normalize(&pixels);
        assert_eq!(out.len(), 12);
        assert!((out[3] - 30.0 / 255.0).abs() < 1e-7);
        assert_eq!(out[4..8], [1.0; 4]);
        assert_eq!(out[8..], [-0.5; 4]);
        let mut bytes = vec![7];
        preprocess.channels_first(&pixels, &mut bytes);
        assert_eq!(bytes, [&[7, 0, 10, 20, 30][..], &[255; 4], &[0; 4]].concat());
    }
}
