//! From decoded frames to what a vision transformer reads: a square resize, then CLIP's normalisation.
//!
//! Letters in shapes: f frames; `size` is the side of the square.

use crate::error::{Error, Result};
use crate::video::Frames;
use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ImageView, ResizeAlg, ResizeOptions, Resizer};
use serde::{Deserialize, Serialize};

/// CLIP's mean of the three channels, of pixels in 0..1.
pub const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// CLIP's standard deviation of the three channels, of pixels in 0..1.
pub const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// Whose way of resizing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resizing {
    /// BLIP's image processor: Pillow's bicubic, a = -0.5, with a filter that widens when shrinking.
    #[default]
    Blip,
    /// LAVIS's video transform: PyTorch's bicubic, a = -0.75, four source pixels whatever the factor, then
    /// cast to bytes by cutting off the fraction; what overshoots 0..255 wraps around, as theirs does.
    Lavis,
}

/// How frames become a model's pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Preprocess {
    /// Side of the square in pixels; the aspect ratio is not kept, as in BLIP.
    pub size: u32,
    /// Whose way of resizing.
    pub resizing: Resizing,
    /// Mean of each channel, of pixels in 0..1.
    pub mean: [f32; 3],
    /// Standard deviation of each channel, of pixels in 0..1.
    pub std: [f32; 3],
}

impl Default for Preprocess {
    fn default() -> Self {
        Self { size: 224, resizing: Resizing::Blip, mean: CLIP_MEAN, std: CLIP_STD }
    }
}

impl Preprocess {
    /// CLIP's normalisation at a size.
    #[must_use]
    pub fn new(size: u32) -> Self {
        Self { size, ..Self::default() }
    }

    /// Resizes frames to this size, this way.
    ///
    /// # Shapes
    /// `[f, height, width, 3]` to `[f, size, size, 3]`
    ///
    /// # Errors
    /// As [`resize`].
    pub fn resize(&self, frames: &Frames) -> Result<Frames> {
        match self.resizing {
            Resizing::Blip => resize(frames, self.size),
            Resizing::Lavis => resize_as_lavis(frames, self.size),
        }
    }

    /// Scales bytes to 0..1, takes the mean off, divides by the deviation, and puts channels before rows.
    ///
    /// # Shapes
    /// - `pixels`: `[f, size, size, 3]`
    /// - returns `[f, 3, size, size]`; bytes beyond the last whole frame are left out
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

    /// What each byte becomes, by channel. A byte has 256 values, so we compute each once, in f32 and in the
    /// reference's order: scale, subtract, divide.
    fn table(&self) -> [[f32; 256]; 3] {
        std::array::from_fn(|c| {
            std::array::from_fn(|byte| (byte as f32 * (1.0 / 255.0) - self.mean[c]) / self.std[c])
        })
    }
}

/// Resizes every frame to a square, bicubic (Catmull-Rom, a = -0.5) with a filter that widens when shrinking:
/// what Pillow's `resize(..., BICUBIC)` does, within 1 of 255 a pixel.
///
/// # Shapes
/// `[f, height, width, 3]` to `[f, size, size, 3]`
///
/// # Errors
/// [`Error::Setting`] where `size` is 0 or the frames' data does not match their dimensions.
pub fn resize(frames: &Frames, size: u32) -> Result<Frames> {
    check(frames, size)?;
    let side = size as usize;
    if (frames.height, frames.width) == (side, side) {
        return Ok(frames.clone());
    }
    let mut stretch = Stretch::new(side, side);
    let mut data = Vec::with_capacity(frames.count * side * side * 3);
    for frame in frames.iter() {
        data.extend_from_slice(stretch.stretch(frame, frames.height, frames.width)?);
    }
    Ok(Frames { count: frames.count, height: side, width: side, data })
}

fn check(frames: &Frames, size: u32) -> Result<()> {
    if size == 0 {
        return Err(Error::Setting { key: "size", expected: "at least 1".into(), got: "0".into() });
    }
    let bytes = frames.count * frames.height * frames.width * 3;
    if bytes != frames.data.len() || bytes == 0 {
        return Err(Error::Setting {
            key: "frames",
            expected: format!("{} x {} x {} x 3 = {bytes} bytes", frames.count, frames.height, frames.width),
            got: frames.data.len().to_string(),
        });
    }
    Ok(())
}

/// Resizes every frame to a square as LAVIS's video transform does, see [`Resizing::Lavis`].
///
/// # Shapes
/// `[f, height, width, 3]` to `[f, size, size, 3]`
///
/// # Errors
/// As [`resize`].
pub fn resize_as_lavis(frames: &Frames, size: u32) -> Result<Frames> {
    check(frames, size)?;
    let side = size as usize;
    let (rows, columns) = (taps(frames.height, side), taps(frames.width, side));
    let mut data = Vec::with_capacity(frames.count * side * side * 3);
    // Only the four rows that a line of the result needs are resized across, as PyTorch does it.
    for frame in frames.iter() {
        for (rows, down) in &rows {
            for (columns, across) in &columns {
                for c in 0..3 {
                    let line = |row: usize| {
                        let at = |column: usize| f32::from(frame[(row * frames.width + column) * 3 + c]);
                        columns.iter().zip(across).map(|(&column, weight)| at(column) * weight).sum::<f32>()
                    };
                    let value: f32 = rows.iter().zip(down).map(|(&row, weight)| line(row) * weight).sum();
                    data.push(value as i32 as u8);
                }
            }
        }
    }
    Ok(Frames { count: frames.count, height: side, width: side, data })
}

/// For each place of the result its four source places, clamped at the border, and their weights: PyTorch's
/// `upsample_bicubic2d` without `align_corners`.
fn taps(from: usize, to: usize) -> Vec<([usize; 4], [f32; 4])> {
    const A: f32 = -0.75;
    let near = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f32| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let scale = from as f32 / to as f32;
    (0..to)
        .map(|place| {
            let source = scale * (place as f32 + 0.5) - 0.5;
            let floor = source.floor();
            let part = source - floor;
            let places =
                std::array::from_fn(|tap| (floor as i64 + tap as i64 - 1).clamp(0, from as i64 - 1) as usize);
            (places, [far(part + 1.0), near(part), near(1.0 - part), far(2.0 - part)])
        })
        .collect()
}

/// Resizes RGB pictures to one size, keeping its buffers between them.
pub(crate) struct Stretch {
    resizer: Resizer,
    options: ResizeOptions,
    // Typed, because the untyped image would compile the resizer for every pixel format there is.
    out: TypedImage<'static, U8x3>,
    bytes: Vec<u8>,
}

impl Stretch {
    pub(crate) fn new(height: usize, width: usize) -> Self {
        Self {
            resizer: Resizer::new(),
            options: ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom)),
            out: TypedImage::new(width as u32, height as u32),
            bytes: Vec::with_capacity(height * width * 3),
        }
    }

    /// The new height and width.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.out.height() as usize, self.out.width() as usize)
    }

    /// One picture, `[height, width, 3]`, in the new size.
    pub(crate) fn stretch(&mut self, picture: &[u8], height: usize, width: usize) -> Result<&[u8]> {
        let mismatch = |reason: String| Error::Setting {
            key: "frame",
            expected: format!("{height} x {width} x 3 = {} bytes", height * width * 3),
            got: format!("{}: {reason}", picture.len()),
        };
        let source = TypedImageRef::<U8x3>::from_buffer(width as u32, height as u32, picture)
            .map_err(|error| mismatch(error.to_string()))?;
        self.resizer
            .resize_typed(&source, &mut self.out, &self.options)
            .map_err(|error| mismatch(error.to_string()))?;
        self.bytes.clear();
        self.bytes.extend(self.out.pixels().iter().flat_map(|pixel| pixel.0));
        Ok(&self.bytes)
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
    }

    #[test]
    fn one_colour_stays_that_colour() {
        let frames = Frames { count: 2, height: 7, width: 31, data: [9u8, 100, 250].repeat(2 * 7 * 31) };
        for size in [1, 5, 16, 64] {
            let out = resize(&frames, size).unwrap();
            assert_eq!((out.count, out.height, out.width), (2, size as usize, size as usize));
            assert_eq!(out.data, [9u8, 100, 250].repeat(2 * (size * size) as usize));
        }
    }

    #[test]
    fn size_zero_is_refused() {
        let frames = Frames { count: 1, height: 1, width: 1, data: vec![0; 3] };
        assert!(resize(&frames, 0).is_err());
    }
}
