//! The fast path from a decoder's picture to a small square: luma and chroma planes are resized separately,
//! and only the square's pixels are converted to RGB. Both steps are linear, so their order matters only
//! where RGB values are rounded or clipped.

use crate::error::{Error, Result};
use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x4};
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use gstreamer as gst;
use gstreamer_video::{self as gst_video, prelude::*};
use std::path::Path;

/// Rows that are resized together, as the four bytes of a pixel. The resizer is several times faster with
/// such pixels than with single bytes, and the result is the same.
const TOGETHER: usize = 4;

/// Resizes pictures of one format to squares of the format [`Self::info`], with all planes of that size.
pub(super) struct Planes {
    resizer: Resizer,
    options: ResizeOptions,
    info: gst_video::VideoInfo,
    buffer: gst::Buffer,
    /// A plane with the square's number of rows and the picture's columns.
    flat: Vec<u8>,
    /// The same, with [`TOGETHER`] rows packed into one.
    packed: Vec<[u8; TOGETHER]>,
    /// The square, packed likewise.
    square: Vec<[u8; TOGETHER]>,
}

impl Planes {
    /// `None` for formats other than three planes of bytes (one luma, two chroma), and for pictures of that
    /// size.
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
            options: ResizeOptions::new()
                .resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom))
                .use_alpha(false), // the fourth byte is a row as well
            buffer: gst::Buffer::with_size(info.size()).ok()?,
            info,
            flat: Vec::new(),
            packed: Vec::new(),
            square: Vec::new(),
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
        let info = self.info.clone();
        let mut buffer = std::mem::take(&mut self.buffer);
        let writable = buffer.get_mut().ok_or_else(|| failed("the buffer is shared".into()))?;
        let mut square = gst_video::VideoFrameRef::from_buffer_ref_writable(writable, &info)
            .map_err(|error| failed(error.to_string()))?;
        for component in 0..3 {
            let plane = picture.comp_plane(component);
            let data = picture.plane_data(plane).map_err(|error| failed(error.to_string()))?;
            let stride = usize::try_from(picture.plane_stride()[plane as usize])
                .ok()
                .filter(|&stride| stride > 0)
                .ok_or_else(|| failed("rows run backwards".into()))?;
            let size = (picture.comp_width(component), picture.comp_height(component));
            let to_stride = square.plane_stride()[component as usize] as usize;
            let to = square.plane_data_mut(component).map_err(|error| failed(error.to_string()))?;
            self.resize_plane((data, stride), size, (to, to_stride))
                .map_err(|error| failed(error.to_string()))?;
        }
        drop(square);
        self.buffer = buffer;
        Ok(self.buffer.as_ref())
    }

    /// Resizes a plane of `width` x `height` bytes to the square, vertically and then horizontally. Source
    /// and target are bytes with a stride.
    fn resize_plane(
        &mut self,
        (from, stride): (&[u8], usize),
        (width, height): (u32, u32),
        (to, to_stride): (&mut [u8], usize),
    ) -> std::result::Result<(), Box<dyn std::error::Error>> {
        let side = self.info.width();
        let (rows, packed_rows) = (side as usize, (side as usize).div_ceil(TOGETHER));
        let columns = width as usize;
        // Rows are padded to the stride; the resizer must not read the padding.
        let padded = TypedImageRef::<U8>::from_buffer(stride as u32, (from.len() / stride) as u32, from)?;
        let plane = TypedCroppedImage::from_ref(&padded, 0, 0, width, height)?;
        // Bytes below the last row, where the last pack is incomplete, are never read.
        self.flat.resize(columns * packed_rows * TOGETHER, 0);
        let mut flat = TypedImage::<U8>::from_buffer(width, side, &mut self.flat[..columns * rows])?;
        self.resizer.resize_typed(&plane, &mut flat, &self.options)?;

        self.packed.resize(columns * packed_rows, [0; TOGETHER]);
        let packs = self.flat.chunks_exact(columns * TOGETHER);
        for (lines, pixels) in packs.zip(self.packed.chunks_exact_mut(columns)) {
            pack(lines, pixels);
        }
        let packed =
            TypedImageRef::<U8x4>::from_buffer(width, packed_rows as u32, self.packed.as_flattened())?;
        self.square.resize(rows * packed_rows, [0; TOGETHER]);
        let square = self.square.as_flattened_mut();
        let mut square = TypedImage::<U8x4>::from_buffer(side, packed_rows as u32, square)?;
        self.resizer.resize_typed(&packed, &mut square, &self.options)?;

        for (row, line) in to.chunks_mut(to_stride).take(rows).enumerate() {
            unpack(&self.square[row / TOGETHER * rows..][..rows], row % TOGETHER, line);
        }
        Ok(())
    }
}

/// Packs the bytes of [`TOGETHER`] rows at one column into a pixel. Shifts are used because the compiler
/// vectorises them, in contrast to building arrays.
fn pack(lines: &[u8], pixels: &mut [[u8; TOGETHER]]) {
    let (first, rest) = lines.split_at(pixels.len());
    let (second, rest) = rest.split_at(pixels.len());
    let (third, fourth) = rest.split_at(pixels.len());
    let columns = first.iter().zip(second).zip(third).zip(fourth);
    for (pixel, (((&a, &b), &c), &d)) in pixels.iter_mut().zip(columns) {
        let number = u32::from(a) | u32::from(b) << 8 | u32::from(c) << 16 | u32::from(d) << 24;
        *pixel = number.to_le_bytes();
    }
}

/// Extracts one of the packed rows.
fn unpack(pixels: &[[u8; TOGETHER]], place: usize, line: &mut [u8]) {
    for (byte, pixel) in line.iter_mut().zip(pixels) {
        *byte = (u32::from_le_bytes(*pixel) >> (8 * place)) as u8;
    }
}
