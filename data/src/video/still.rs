//! Images and animations (GIF, APNG, WebP), decoded by the `image` crate: GStreamer's GIF demuxer never ends,
//! and for the other formats GStreamer returns the first picture only.

use super::convert::{Rgb, ToRgb};
use super::{Frames, Target, arrange};
use crate::error::{Error, Result};
use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::{AnimationDecoder, DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

/// Largest side of a picture, and memory for decoding, against damaged headers.
const MAX_SIDE: u32 = 16_384;
const MAX_BYTES: u64 = 512 << 20;

/// Largest canvas of an animation, in pixels: a decoder has up to four copies of it, of four bytes a pixel.
const MAX_CANVAS: u64 = MAX_BYTES / 16;

/// The chosen frames of an animation, or an image as a clip of one frame.
pub(super) fn decode(path: &Path, target: Target, choose: &dyn Fn(usize) -> Vec<usize>) -> Result<Frames> {
    let mut to_rgb = ToRgb::new(target);
    let reader = open(path)?;
    let format = reader.format();
    // No format declares the number of frames reliably: they are counted in a first pass.
    let mut total = 0;
    let is_animated = animated(path, format, |_, _| {
        total += 1;
        Ok(true)
    })?;
    if !is_animated {
        let picture = to_rgb.resized(rgb(upright(path, reader)?))?;
        return arrange(path, &choose(1), &[(0, picture)], target.resizing);
    }
    let indices = choose(total);
    let mut kept = Vec::new();
    animated(path, format, |index, frame| {
        if indices.binary_search(&index).is_ok() {
            kept.push((index, to_rgb.resized(rgb(DynamicImage::ImageRgba8(frame.into_buffer())))?));
        }
        Ok(indices.last().is_some_and(|&last| index < last))
    })?;
    arrange(path, &indices, &kept, target.resizing)
}

/// The result of decoding an animation or an image completely.
pub(crate) struct Examined {
    /// The format, by FFmpeg's name.
    pub(crate) codec: &'static str,
    pub(crate) size: Option<(u32, u32)>,
    pub(crate) frames: usize,
    pub(crate) seconds: f64,
    pub(crate) failure: Option<Error>,
}

/// Decodes an animation or an image completely.
pub(crate) fn examine(path: &Path) -> Examined {
    let mut found = Examined { codec: "gif", size: None, frames: 0, seconds: 0.0, failure: None };
    found.failure = examine_into(path, &mut found).err();
    found
}

fn examine_into(path: &Path, found: &mut Examined) -> Result<()> {
    let reader = open(path)?;
    let format = reader.format();
    found.codec = match format {
        Some(ImageFormat::Gif) => "gif",
        Some(ImageFormat::Jpeg) => "mjpeg",
        Some(ImageFormat::Bmp) => "bmp",
        Some(ImageFormat::WebP) => "webp",
        _ => "png",
    };
    let decoder = reader.into_decoder().map_err(|error| Error::video(path, error.to_string()))?;
    found.size = Some(decoder.dimensions());
    let is_animated = animated(path, format, |index, frame| {
        found.seconds += Duration::from(frame.delay()).as_secs_f64();
        found.frames = index + 1;
        Ok(true)
    })?;
    if !is_animated {
        check_memory(path, &decoder)?;
        DynamicImage::from_decoder(decoder).map_err(|error| Error::video(path, error.to_string()))?;
        found.frames = 1;
    } else if found.frames == 0 {
        return Err(Error::video(path, "it has no frames"));
    } else if found.codec == "png" {
        found.codec = "apng";
    }
    Ok(())
}

/// Opens the file, with limits on size and memory.
fn open(path: &Path) -> Result<ImageReader<BufReader<File>>> {
    let mut reader = ImageReader::open(path)
        .and_then(ImageReader::with_guessed_format)
        .map_err(Error::io("read the image", path))?;
    reader.limits(limits());
    Ok(reader)
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    limits
}

/// Checks that the pixels of an image stay within the limit on memory: of the `image` crate's functions, only
/// `ImageReader::decode` checks this, and it ignores the orientation.
fn check_memory(path: &Path, decoder: &impl ImageDecoder) -> Result<()> {
    if decoder.total_bytes() <= MAX_BYTES {
        return Ok(());
    }
    let (width, height) = decoder.dimensions();
    let (found, limit) = (decoder.total_bytes() >> 20, MAX_BYTES >> 20);
    let reason =
        format!("an image of {width} x {height} pixels takes {found} MiB, expected at most {limit} MiB");
    Err(Error::video(path, reason))
}

/// The image, rotated by its EXIF orientation.
fn upright(path: &Path, reader: ImageReader<BufReader<File>>) -> Result<DynamicImage> {
    let failed = |error: image::ImageError| Error::video(path, error.to_string());
    let mut decoder = reader.into_decoder().map_err(failed)?;
    check_memory(path, &decoder)?;
    let orientation = decoder.orientation().map_err(failed)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// Passes each composed frame of an animation to `take` until that returns `false`. Returns `false` for a
/// still image.
fn animated(
    path: &Path,
    format: Option<ImageFormat>,
    mut take: impl FnMut(usize, image::Frame) -> Result<bool>,
) -> Result<bool> {
    let file = BufReader::new(File::open(path).map_err(Error::io("open the image", path))?);
    let failed = |error: image::ImageError| Error::video(path, error.to_string());
    let check_canvas = |(width, height): (u32, u32)| {
        if u64::from(width) * u64::from(height) <= MAX_CANVAS {
            return Ok(());
        }
        let reason =
            format!("an animation of {width} x {height} pixels, expected at most {MAX_CANVAS} pixels");
        Err(Error::video(path, reason))
    };
    let frames = match format {
        Some(ImageFormat::Gif) => {
            let mut decoder = GifDecoder::new(file).map_err(failed)?;
            decoder.set_limits(limits()).map_err(failed)?;
            check_canvas(decoder.dimensions())?;
            let frames = decoder.into_frames();
            image::Frames::new(Box::new(frames.map(|frame| frame.map(with_white))))
        }
        Some(ImageFormat::Png) => {
            let decoder = PngDecoder::with_limits(file, limits()).map_err(failed)?;
            if !decoder.is_apng().map_err(failed)? {
                return Ok(false);
            }
            check_canvas(decoder.dimensions())?;
            decoder.apng().map_err(failed)?.into_frames()
        }
        Some(ImageFormat::WebP) => {
            let mut decoder = WebPDecoder::new(file).map_err(failed)?;
            decoder.set_limits(limits()).map_err(failed)?;
            if !decoder.has_animation() {
                return Ok(false);
            }
            check_canvas(decoder.dimensions())?;
            decoder.into_frames()
        }
        _ => return Ok(false),
    };
    for (index, frame) in frames.enumerate() {
        let frame = frame.map_err(|error| Error::video(path, format!("{error}, after {index} frames")))?;
        if !take(index, frame)? {
            break;
        }
    }
    Ok(true)
}

/// A GIF's frame with white pixels, as FFmpeg's, where it has none: a transparent pixel of a GIF has no
/// colour.
fn with_white(frame: image::Frame) -> image::Frame {
    let (left, top, delay) = (frame.left(), frame.top(), frame.delay());
    let mut pixels = frame.into_buffer();
    for pixel in pixels.pixels_mut().filter(|pixel| pixel[3] == 0) {
        pixel.0 = [255, 255, 255, 0];
    }
    image::Frame::from_parts(pixels, left, top, delay)
}

/// Frames in FFmpeg's format: blue, green, red and alpha bytes.
#[cfg(test)]
pub(super) fn native_frames(path: &Path, wanted: &[usize]) -> Result<Vec<(usize, Vec<u8>)>> {
    let mut kept = Vec::new();
    animated(path, Some(ImageFormat::Gif), |index, frame| {
        if wanted.contains(&index) {
            let pixels = frame.into_buffer();
            kept.push((index, pixels.pixels().flat_map(|p| [p[2], p[1], p[0], p[3]]).collect()));
        }
        Ok(true)
    })?;
    Ok(kept)
}

/// The image's colours; transparency is ignored, as in FFmpeg and Pillow.
fn rgb(image: DynamicImage) -> Rgb {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let data = match image {
        DynamicImage::ImageRgb8(image) => image.into_raw(),
        image => image.into_rgba8().pixels().flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
    };
    Rgb { height, width, data }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A GIF whose canvas has this size, with one frame of a pixel.
    fn gif(width: u16, height: u16) -> Vec<u8> {
        let mut bytes = b"GIF89a".to_vec();
        bytes.extend([width.to_le_bytes(), height.to_le_bytes()].concat());
        bytes.extend(b"\x80\0\0\xff\xff\xff\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0;");
        bytes
    }

    #[test]
    fn an_animation_without_frames_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let whole = gif(40, 30);
        // The head without the frame, with and without the trailer.
        for bytes in [[&whole[..19], b";"].concat(), whole[..19].to_vec()] {
            std::fs::write(file.path(), bytes).unwrap();
            let found = examine(file.path());
            let message = found.failure.unwrap().to_string();
            assert!(found.frames == 0 && message.contains("cannot decode video"), "{message}");
        }
    }

    /// The head of a WebP whose lossless image has this size.
    fn webp(width: u32, height: u32) -> Vec<u8> {
        let size = ((width - 1) | (height - 1) << 14).to_le_bytes();
        let image = [b"\x2f", &size[..], &[0; 10]].concat();
        let chunk = [b"VP8L", &(image.len() as u32).to_le_bytes()[..], &image, b"\0"].concat();
        [b"RIFF", &(chunk.len() as u32 + 4).to_le_bytes()[..], b"WEBP", &chunk].concat()
    }

    /// The head of a bitmap of 24 bits a pixel.
    fn bitmap(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
        bytes.extend([width.to_le_bytes(), height.to_le_bytes(), *b"\x01\0\x18\0"].concat());
        bytes.extend([0; 24]);
        bytes
    }

    #[test]
    fn an_image_too_large_for_memory_is_refused_by_its_size() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for bytes in [webp(16_000, 16_000), bitmap(16_000, 16_000)] {
            std::fs::write(file.path(), bytes).unwrap();
            let message = examine(file.path()).failure.unwrap().to_string();
            assert!(
                message.contains("16000 x 16000 pixels takes 732 MiB, expected at most 512"),
                "{message}"
            );
            let frames =
                decode(file.path(), crate::video::FrameRequest::uniform(1, 8).target(), &|_| vec![0]);
            assert_eq!(frames.unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn an_animation_too_large_for_memory_is_refused_by_its_size() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let frames = |width, height| {
            std::fs::write(file.path(), gif(width, height)).unwrap();
            examine(file.path())
        };
        let small = frames(40, 30);
        assert!(small.failure.is_none() && small.frames == 1, "{:?}", small.failure);
        for (width, height) in [(16_000, 16_000), (5793, 5793)] {
            let message = frames(width, height).failure.unwrap().to_string();
            assert!(message.contains(&format!("{width} x {height} pixels, expected at most")), "{message}");
        }
    }
}
