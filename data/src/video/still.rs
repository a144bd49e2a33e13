//! GIFs and image files, read with the `image` crate: GStreamer's GIF demuxer delivers every frame but never ends.

use super::convert::Rgb;
use super::{Frames, arrange};
use crate::error::{Error, Result};
use image::codecs::gif::GifDecoder;
use image::{AnimationDecoder, DynamicImage, ImageDecoder, ImageFormat, ImageReader};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

/// The chosen frames of a GIF, or an image as a clip of one frame.
pub(super) fn decode(path: &Path, choose: &dyn Fn(usize) -> Vec<usize>) -> Result<Frames> {
    let reader = ImageReader::open(path)
        .and_then(ImageReader::with_guessed_format)
        .map_err(Error::io("read the image", path))?;
    if reader.format() != Some(ImageFormat::Gif) {
        let image = reader.decode().map_err(|error| Error::video(path, error.to_string()))?;
        return arrange(path, &choose(1), &[(0, rgb(image))]);
    }
    // A GIF says nowhere how many frames it has: one pass counts them, a second keeps the chosen ones.
    let indices = choose(gif_frames(path, &[])?.0);
    arrange(path, &indices, &gif_frames(path, &indices)?.1)
}

/// The number of a GIF's frames, and those whose index is wanted.
fn gif_frames(path: &Path, wanted: &[usize]) -> Result<(usize, Vec<(usize, Rgb)>)> {
    let file = File::open(path).map_err(Error::io("open the GIF", path))?;
    let decoder =
        GifDecoder::new(BufReader::new(file)).map_err(|error| Error::video(path, error.to_string()))?;
    let mut kept = Vec::new();
    let mut count = 0;
    for frame in decoder.into_frames() {
        let frame = frame.map_err(|error| Error::video(path, format!("{error}, after {count} frames")))?;
        if wanted.binary_search(&count).is_ok() {
            kept.push((count, rgb(DynamicImage::ImageRgba8(frame.into_buffer()))));
        }
        count += 1;
    }
    Ok((count, kept))
}

/// A GIF's or an image's format, size and number of frames, all of them decoded.
pub(crate) fn examine(path: &Path) -> Result<(&'static str, u32, u32, usize, f64)> {
    let reader = ImageReader::open(path)
        .and_then(ImageReader::with_guessed_format)
        .map_err(Error::io("read the image", path))?;
    let name = match reader.format() {
        Some(ImageFormat::Gif) => {
            let file = File::open(path).map_err(Error::io("open the GIF", path))?;
            let failed = |error: image::ImageError| Error::video(path, error.to_string());
            let decoder = GifDecoder::new(BufReader::new(file)).map_err(failed)?;
            let (width, height) = decoder.dimensions();
            let (mut frames, mut seconds) = (0, 0.0);
            for frame in decoder.into_frames() {
                seconds += Duration::from(frame.map_err(failed)?.delay()).as_secs_f64();
                frames += 1;
            }
            return Ok(("gif", width, height, frames, seconds));
        }
        Some(ImageFormat::Jpeg) => "mjpeg",
        _ => "png",
    };
    let image = reader.decode().map_err(|error| Error::video(path, error.to_string()))?;
    Ok((name, image.width(), image.height(), 1, 0.0))
}

/// Transparent pixels come out over black.
fn rgb(image: DynamicImage) -> Rgb {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let data = match image {
        DynamicImage::ImageRgb8(image) => image.into_raw(),
        image => image
            .into_rgba8()
            .pixels()
            .flat_map(|pixel| {
                let [r, g, b, alpha] = pixel.0.map(u16::from);
                [r, g, b].map(|value| ((value * alpha + 127) / 255) as u8)
            })
            .collect(),
    };
    Rgb { height, width, data }
}
