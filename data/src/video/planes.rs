//! The quick way from a decoder's picture to a small square: brightness and colour planes are resized each by
//! itself, so that the square's pixels alone, not all of the picture's, are converted to RGB afterwards. Both
//! steps are linear, so their order matters only where RGB values are rounded or overshoot.

use crate::error::{Error, Result};
use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use gstreamer as gst;
use gstreamer_video::{self as gst_video, prelude::*};
use std::path::Path;

/// Resizes pictures of one format to squares in the format [`Self::info`], whose planes all have the square's
/// size.
pub(super) struct Planes {
    resizer: Resizer,
    options: ResizeOptions,
    out: TypedImage<'static, U8>,
    info: gst_video::VideoInfo,
    buffer: gst::Buffer,
}

impl Planes {
    /// `None` for formats with anything but one byte plane for each of brightness and two colours, and for
    /// pictures that have the size already.
    pub(super) fn new(input: &gst_video::VideoInfo, side: u32) -> Option<Self> {
        use gst_video::VideoFormat::{I420, Y42b, Y444, Yv12};
        if !matches!(input.format(), I420 | Yv12 | Y42b | Y444)
            || (input.width(), input.height()) == (side, side)
        {
            return None;
        }
        let info = gst_video::VideoInfo::builder(Y444, side, side)
            .fps(input.fps())
            .colorimetry(&input.colorimetry())
            .build()
            .ok()?;
        Some(Self {
            resizer: Resizer::new(),
            options: ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom)),
            out: TypedImage::new(side, side),
            buffer: gst::Buffer::with_size(info.size()).ok()?,
            info,
        })
    }

    /// The squares' format.
    pub(super) fn info(&self) -> &gst_video::VideoInfo {
        &self.info
    }

    /// One picture's square.
    pub(super) fn resize(
        &mut self,
        path: &Path,
        picture: &gst_video::VideoFrameRef<&gst::BufferRef>,
    ) -> Result<&gst::BufferRef> {
        let failed = |reason: String| Error::video(path, format!("a frame's planes: {reason}"));
        let side = self.info.width() as usize;
        let buffer = self.buffer.get_mut().ok_or_else(|| failed("the buffer is shared".into()))?;
        let mut square = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, &self.info)
            .map_err(|error| failed(error.to_string()))?;
        for component in 0..3 {
            let plane = picture.comp_plane(component);
            let data = picture.plane_data(plane).map_err(|error| failed(error.to_string()))?;
            let stride = usize::try_from(picture.plane_stride()[plane as usize])
                .ok()
                .filter(|&stride| stride > 0)
                .ok_or_else(|| failed("rows run backwards".into()))?;
            // The rows are padded to the stride, which the resizer must not see.
            let padded = TypedImageRef::<U8>::from_buffer(stride as u32, (data.len() / stride) as u32, data)
                .map_err(|error| failed(error.to_string()))?;
            let (width, height) = (picture.comp_width(component), picture.comp_height(component));
            let plane = TypedCroppedImage::from_ref(&padded, 0, 0, width, height)
                .map_err(|error| failed(error.to_string()))?;
            self.resizer
                .resize_typed(&plane, &mut self.out, &self.options)
                .map_err(|error| failed(error.to_string()))?;
            let stride = square.plane_stride()[component as usize] as usize;
            let rows = square
                .plane_data_mut(component)
                .map_err(|error| failed(error.to_string()))?
                .chunks_mut(stride);
            for (row, resized) in rows.zip(self.out.pixels().chunks_exact(side)) {
                for (to, from) in row.iter_mut().zip(resized) {
                    *to = from.0;
                }
            }
        }
        drop(square);
        Ok(self.buffer.as_ref())
    }
}
