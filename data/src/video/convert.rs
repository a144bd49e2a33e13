//! Converts decoded pictures to upright RGB.

use super::Target;
use super::colour;
use super::exact::Exact;
use super::planes::Planes;
use super::resize::{Resizer, Resizing};
use crate::error::{Error, Result};
use gstreamer as gst;
use gstreamer_video as gst_video;
use std::path::Path;

/// A picture as RGB bytes `[height, width, 3]`.
#[derive(Clone, Debug)]
pub(crate) struct Rgb {
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) data: Vec<u8>,
}

impl Rgb {
    /// The picture's bytes in another size.
    pub(crate) fn resized(&self, height: usize, width: usize, resizing: Resizing) -> Result<Vec<u8>> {
        Resizer::new(height, width, resizing).resize(&self.data, self.height, self.width).map(<[u8]>::to_vec)
    }

    /// The picture, rotated and mirrored for display.
    pub(crate) fn turned(self, orientation: Orientation) -> Self {
        let Self { height, width, data } = &self;
        let (height, width) = (*height, *width);
        let from = |y: usize, x: usize| (y * width + x) * 3;
        let (new_height, new_width) =
            if orientation.swaps_sides() { (width, height) } else { (height, width) };
        let (bottom, right) = (height.saturating_sub(1), width.saturating_sub(1));
        let source = |y: usize, x: usize| match orientation {
            Orientation::Upright => from(y, x),
            Orientation::Rotate90 => from(bottom - x, y),
            Orientation::Rotate180 => from(bottom - y, right - x),
            Orientation::Rotate270 => from(x, right - y),
            Orientation::Flip => from(y, right - x),
            Orientation::FlipRotate90 => from(bottom - x, right - y),
            Orientation::FlipRotate180 => from(bottom - y, x),
            Orientation::FlipRotate270 => from(x, y),
        };
        if orientation == Orientation::Upright {
            return self;
        }
        let mut turned = Vec::with_capacity(data.len());
        for y in 0..new_height {
            for x in 0..new_width {
                let at = source(y, x);
                turned.extend_from_slice(&data[at..at + 3]);
            }
        }
        Self { height: new_height, width: new_width, data: turned }
    }
}

/// The orientation of a stored picture: GStreamer's `image-orientation` tag. Rotations are clockwise; a flip
/// mirrors left and right and is applied first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Orientation {
    #[default]
    Upright,
    Rotate90,
    Rotate180,
    Rotate270,
    Flip,
    FlipRotate90,
    FlipRotate180,
    FlipRotate270,
}

impl Orientation {
    /// The orientation of a tag's value; `None` for an unknown value.
    pub(crate) fn from_tag(tag: &str) -> Option<Self> {
        Some(match tag {
            "rotate-0" => Self::Upright,
            "rotate-90" => Self::Rotate90,
            "rotate-180" => Self::Rotate180,
            "rotate-270" => Self::Rotate270,
            "flip-rotate-0" => Self::Flip,
            "flip-rotate-90" => Self::FlipRotate90,
            "flip-rotate-180" => Self::FlipRotate180,
            "flip-rotate-270" => Self::FlipRotate270,
            _ => return None,
        })
    }

    /// Rotation for display in degrees counter-clockwise, as in FFmpeg; half a turn is -180.
    pub(crate) fn degrees(self) -> i32 {
        match self {
            Self::Upright | Self::Flip => 0,
            Self::Rotate90 | Self::FlipRotate90 => -90,
            Self::Rotate180 | Self::FlipRotate180 => -180,
            Self::Rotate270 | Self::FlipRotate270 => 90,
        }
    }

    fn swaps_sides(self) -> bool {
        matches!(self, Self::Rotate90 | Self::Rotate270 | Self::FlipRotate90 | Self::FlipRotate270)
    }
}

/// Converts samples of every pixel format (10 bit, 4:4:4, alpha, …) to upright RGB, and resizes them
/// immediately: at most one whole picture is in memory.
pub(crate) struct ToRgb {
    /// Valid until the stream changes its format.
    ready: Option<Ready>,
    square: Option<Resizer>,
}

/// Converts pictures of one format.
struct Ready {
    caps: gst::Caps,
    input: gst_video::VideoInfo,
    /// Resizes planes before conversion, where the format allows it.
    planes: Option<Planes>,
    way: Way,
}

/// How pictures become RGB.
enum Way {
    /// Our arithmetic: YUV and grey.
    Exact(Exact),
    /// GStreamer's converter: formats that it must unpack, and RGB of other layouts.
    Converter { converter: gst_video::VideoConverter, output: gst_video::VideoInfo, rgb: gst::Buffer },
}

impl ToRgb {
    /// A converter to pictures of the target's size.
    pub(super) fn new(target: Target) -> Self {
        let square = target.size.map(|side| Resizer::new(side as usize, side as usize, target.resizing));
        Self { ready: None, square }
    }

    /// The picture of a sample, resized and upright.
    pub(crate) fn convert(
        &mut self,
        path: &Path,
        sample: &gst::Sample,
        orientation: Orientation,
    ) -> Result<Rgb> {
        let failed = |reason: &str| Error::video(path, reason);
        let caps = sample.caps().ok_or_else(|| failed("a frame has no format"))?;
        let buffer = sample.buffer().ok_or_else(|| failed("a frame has no data"))?;
        let ready = match self.ready.take() {
            Some(ready) if ready.caps.as_ref() == caps => ready,
            _ => Ready::new(path, caps, self.plane_size())?,
        };
        let picture = self.ready.insert(ready).convert(path, buffer)?;
        if self.plane_size().is_none() {
            return self.resized(picture.turned(orientation)); // LAVIS resizes the picture as displayed
        }
        Ok(self.resized(picture)?.turned(orientation))
    }

    /// Side of the square to which planes may be resized before conversion. LAVIS's rule needs RGB.
    fn plane_size(&self) -> Option<u32> {
        self.square
            .as_ref()
            .filter(|square| square.resizing() == Resizing::Blip)
            .map(|square| square.size().0 as u32)
    }

    /// The picture, resized to the target's size.
    pub(crate) fn resized(&mut self, picture: Rgb) -> Result<Rgb> {
        let Some(square) = &mut self.square else { return Ok(picture) };
        let (height, width) = square.size();
        if (picture.height, picture.width) == (height, width) {
            return Ok(picture);
        }
        let data = square.resize(&picture.data, picture.height, picture.width)?.to_vec();
        Ok(Rgb { height, width, data })
    }
}

impl Ready {
    fn new(path: &Path, caps: &gst::CapsRef, side: Option<u32>) -> Result<Self> {
        let refused =
            |error: gst::glib::BoolError| Error::video(path, format!("pixel format {caps}: {error}"));
        let input = colour::interpret(caps).map_err(refused)?;
        colour::note(caps);
        // QuickTime's v308 holds Cr, Y, Cb; GStreamer reads Y, Cb, Cr.
        if input.format() == gst_video::VideoFormat::V308 {
            return Err(Error::video(path, "GStreamer misreads its pixel format v308"));
        }
        let is_rgb = input.colorimetry().matrix() == gst_video::VideoColorMatrix::Rgb;
        let planes = side.filter(|_| !is_rgb).and_then(|side| Planes::new(&input, side));
        let from = planes.as_ref().map_or(&input, Planes::info);
        let way = match Exact::new(from) {
            Some(exact) => Way::Exact(exact),
            None => Way::converter(from).map_err(refused)?,
        };
        Ok(Self { caps: caps.to_owned(), input, planes, way })
    }

    /// The picture of a buffer: a square where the planes are resized, otherwise the whole picture.
    fn convert(&mut self, path: &Path, buffer: &gst::BufferRef) -> Result<Rgb> {
        let name = self.input.format().to_str();
        let small = |_| Error::video(path, format!("a frame is smaller than its pixel format, {name}, says"));
        let whole = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &self.input).map_err(small)?;
        match &mut self.planes {
            None => self.way.convert(path, &whole),
            Some(planes) => {
                let info = planes.info().clone();
                let square = planes.resize(path, &whole)?;
                let square =
                    gst_video::VideoFrameRef::from_buffer_ref_readable(square, &info).map_err(small)?;
                self.way.convert(path, &square)
            }
        }
    }
}

impl Way {
    fn converter(from: &gst_video::VideoInfo) -> std::result::Result<Self, gst::glib::BoolError> {
        // The converter refuses to change the frame rate.
        let output = gst_video::VideoInfo::builder(gst_video::VideoFormat::Rgb, from.width(), from.height())
            .fps(from.fps())
            .par(from.par())
            .build()?;
        let mut config = gst_video::VideoConverterConfig::new();
        config.set_threads(1);
        let converter = gst_video::VideoConverter::new(from, &output, Some(config))?;
        let rgb = gst::Buffer::with_size(output.size())?;
        Ok(Self::Converter { converter, output, rgb })
    }

    fn convert(&mut self, path: &Path, picture: &gst_video::VideoFrameRef<&gst::BufferRef>) -> Result<Rgb> {
        let failed = |reason: &str| Error::video(path, reason);
        let (converter, output, rgb) = match self {
            Self::Exact(exact) => return exact.convert(path, picture),
            Self::Converter { converter, output, rgb } => (converter, output, rgb),
        };
        let writable = rgb.get_mut().ok_or_else(|| failed("the RGB buffer is shared"))?;
        let mut out = gst_video::VideoFrameRef::from_buffer_ref_writable(writable, output)
            .map_err(|error| failed(&error.to_string()))?;
        converter.frame_ref(picture, &mut out);
        drop(out);
        let (height, width) = (output.height() as usize, output.width() as usize);
        let stride = output.stride()[0] as usize; // rows are padded to 4 bytes
        let map = rgb.map_readable().map_err(|_| failed("a frame cannot be read"))?;
        let mut data = Vec::with_capacity(height * width * 3);
        for row in map.as_slice().chunks(stride).take(height) {
            data.extend_from_slice(&row[..width * 3]);
        }
        Ok(Rgb { height, width, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rows and three columns; each pixel holds its index.
    fn picture() -> Rgb {
        Rgb { height: 2, width: 3, data: (0..6).flat_map(|i| [i, i, i]).collect() }
    }

    fn turned(orientation: Orientation) -> (usize, usize, Vec<u8>) {
        let rgb = picture().turned(orientation);
        (rgb.height, rgb.width, rgb.data.iter().step_by(3).copied().collect())
    }

    #[test]
    fn rotations_are_clockwise() {
        assert_eq!(turned(Orientation::Upright), (2, 3, vec![0, 1, 2, 3, 4, 5]));
        assert_eq!(turned(Orientation::Rotate90), (3, 2, vec![3, 0, 4, 1, 5, 2]));
        assert_eq!(turned(Orientation::Rotate180), (2, 3, vec![5, 4, 3, 2, 1, 0]));
        assert_eq!(turned(Orientation::Rotate270), (3, 2, vec![2, 5, 1, 4, 0, 3]));
    }

    #[test]
    fn flips_come_before_rotations() {
        assert_eq!(turned(Orientation::Flip), (2, 3, vec![2, 1, 0, 5, 4, 3]));
        assert_eq!(turned(Orientation::FlipRotate90), (3, 2, vec![5, 2, 4, 1, 3, 0]));
        assert_eq!(turned(Orientation::FlipRotate180), (2, 3, vec![3, 4, 5, 0, 1, 2]));
        assert_eq!(turned(Orientation::FlipRotate270), (3, 2, vec![0, 3, 1, 4, 2, 5]));
    }

    #[test]
    fn unknown_tags_are_no_orientation() {
        assert_eq!(Orientation::from_tag("rotate-90"), Some(Orientation::Rotate90));
        assert_eq!(Orientation::from_tag("sideways"), None);
    }
}
