//! Resizing of RGB pictures, by BLIP's or by LAVIS's rule.

use super::Frames;
use crate::error::{Error, Result};
use fast_image_resize as fir;
use fast_image_resize::ImageView;
use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use serde::{Deserialize, Serialize};

/// The rule by which frames are resized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resizing {
    /// BLIP's image processor: Pillow's bicubic filter, a = -0.5, which widens when shrinking. Within 1 of
    /// 255.
    #[default]
    Blip,
    /// LAVIS's video transform: PyTorch's bicubic interpolation, a = -0.75, of four source pixels whatever
    /// the factor. The cast to bytes cuts off the fraction; values outside 0..255 wrap around.
    Lavis,
}

/// Resizes every frame to a square; the aspect ratio is not kept.
///
/// # Shapes
/// `[f, height, width, 3]` to `[f, size, size, 3]`
///
/// # Errors
/// [`Error::Setting`] where `size` is 0 or the frames' data does not match their dimensions.
pub fn resize(frames: &Frames, size: u32, resizing: Resizing) -> Result<Frames> {
    if size == 0 {
        return Err(Error::setting("size", "at least 1", 0));
    }
    let bytes = frames.count * frames.height * frames.width * 3;
    if bytes != frames.data.len() || bytes == 0 {
        let expected = format!("{} x {} x {} x 3 = {bytes} bytes", frames.count, frames.height, frames.width);
        return Err(Error::setting("frames", expected, frames.data.len()));
    }
    let side = size as usize;
    if (frames.height, frames.width) == (side, side) {
        return Ok(frames.clone());
    }
    let mut resizer = Resizer::new(side, side, resizing);
    let mut data = Vec::with_capacity(frames.count * side * side * 3);
    for frame in frames.iter() {
        data.extend_from_slice(resizer.resize(frame, frames.height, frames.width)?);
    }
    Ok(Frames { count: frames.count, height: side, width: side, data })
}

/// Resizes RGB pictures to one size and keeps its buffers between them.
pub(super) struct Resizer {
    resizing: Resizing,
    inner: fir::Resizer,
    options: fir::ResizeOptions,
    // The untyped image would compile the resizer for every pixel format.
    out: TypedImage<'static, U8x3>,
    bytes: Vec<u8>,
}

impl Resizer {
    pub(super) fn new(height: usize, width: usize, resizing: Resizing) -> Self {
        let bicubic = fir::ResizeAlg::Convolution(fir::FilterType::CatmullRom);
        Self {
            resizing,
            inner: fir::Resizer::new(),
            options: fir::ResizeOptions::new().resize_alg(bicubic),
            out: TypedImage::new(width as u32, height as u32),
            bytes: Vec::with_capacity(height * width * 3),
        }
    }

    /// The new height and width.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.out.height() as usize, self.out.width() as usize)
    }

    pub(super) fn resizing(&self) -> Resizing {
        self.resizing
    }

    /// One picture, `[height, width, 3]`, in the new size.
    pub(super) fn resize(&mut self, picture: &[u8], height: usize, width: usize) -> Result<&[u8]> {
        let mismatch = |reason: String| {
            let expected = format!("{height} x {width} x 3 = {} bytes", height * width * 3);
            Error::setting("frame", expected, format!("{}: {reason}", picture.len()))
        };
        self.bytes.clear();
        if self.resizing == Resizing::Lavis {
            if picture.len() != height * width * 3 || picture.is_empty() {
                return Err(mismatch("the picture has another size".into()));
            }
            let (new_height, new_width) = self.size();
            interpolate(picture, (height, width), (new_height, new_width), &mut self.bytes);
            return Ok(&self.bytes);
        }
        let source = TypedImageRef::<U8x3>::from_buffer(width as u32, height as u32, picture)
            .map_err(|error| mismatch(error.to_string()))?;
        self.inner
            .resize_typed(&source, &mut self.out, &self.options)
            .map_err(|error| mismatch(error.to_string()))?;
        self.bytes.extend(self.out.pixels().iter().flat_map(|pixel| pixel.0));
        Ok(&self.bytes)
    }
}

/// PyTorch's `upsample_bicubic2d` without `align_corners`, then `.to(uint8)`; sizes are (height, width).
fn interpolate(picture: &[u8], from: (usize, usize), to: (usize, usize), out: &mut Vec<u8>) {
    let (rows, columns) = (taps(from.0, to.0), taps(from.1, to.1));
    // As in PyTorch, only the four rows of a line are interpolated along the row.
    for (rows, row_weights) in &rows {
        for (columns, column_weights) in &columns {
            for c in 0..3 {
                let along = |row: usize| {
                    let at = |column: usize| f32::from(picture[(row * from.1 + column) * 3 + c]);
                    columns
                        .iter()
                        .zip(column_weights)
                        .map(|(&column, weight)| at(column) * weight)
                        .sum::<f32>()
                };
                let value: f32 = rows.iter().zip(row_weights).map(|(&row, weight)| along(row) * weight).sum();
                out.push(value as i32 as u8);
            }
        }
    }
}

/// For each position of the result its four source positions, clamped at the border, and their weights.
fn taps(from: usize, to: usize) -> Vec<([usize; 4], [f32; 4])> {
    const A: f32 = -0.75;
    let near = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f32| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let scale = from as f32 / to as f32;
    (0..to)
        .map(|position| {
            let source = scale * (position as f32 + 0.5) - 0.5;
            let floor = source.floor();
            let part = source - floor;
            let positions =
                std::array::from_fn(|tap| (floor as i64 + tap as i64 - 1).clamp(0, from as i64 - 1) as usize);
            (positions, [far(part + 1.0), near(part), near(1.0 - part), far(2.0 - part)])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_colour_stays_that_colour() {
        let frames = Frames { count: 2, height: 7, width: 31, data: [9u8, 100, 250].repeat(2 * 7 * 31) };
        for size in [1, 5, 16, 64] {
            let out = resize(&frames, size, Resizing::Blip).unwrap();
            assert_eq!((out.count, out.height, out.width), (2, size as usize, size as usize));
            assert_eq!(out.data, [9u8, 100, 250].repeat(2 * (size * size) as usize));
        }
    }

    #[test]
    fn wrong_sizes_are_refused() {
        let frames = Frames { count: 1, height: 1, width: 1, data: vec![0; 3] };
        for resizing in [Resizing::Blip, Resizing::Lavis] {
            assert!(resize(&frames, 0, resizing).is_err());
            assert!(resize(&Frames { width: 2, ..frames.clone() }, 4, resizing).is_err());
            let message = Resizer::new(4, 4, resizing).resize(&[0; 5], 1, 2).unwrap_err().to_string();
            assert!(message.contains("frame must be 1 x 2 x 3 = 6 bytes, got 5"), "{message}");
        }
    }
}
