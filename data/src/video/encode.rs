//! Encodes frames to a video file: the tiny world's clips, and fixtures of tests.

use super::{pipeline, start};
use crate::error::{Error, Result};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use std::path::Path;

/// VP8 in WebM; encoder and muxer are in the same set of plug-ins as the decoder. One thread and a fixed
/// speed (negative `cpu-used`) make the encoder independent of the machine's load.
pub const WEBM_VP8: &str = "vp8enc deadline=1 cpu-used=-4 threads=1 min-quantizer=4 max-quantizer=20 \
                            keyframe-max-dist=128 ! webmmux writing-app=recap";

/// Writes frames as a video file.
///
/// `recipe` is the pipeline between raw video and file in the syntax of `gst-launch-1.0`, for example
/// [`WEBM_VP8`]. Date and track ids of a Matroska or WebM file are constants: equal frames give equal files.
///
/// # Shapes
/// `frames`: each `[height, width, 3]` bytes
///
/// # Errors
/// [`Error::MissingPlugin`] where an element is not installed; [`Error::Encode`] with GStreamer's reason;
/// [`Error::Setting`] where a frame has another size.
pub fn write<F: AsRef<[u8]>>(
    path: &Path,
    (width, height): (u32, u32),
    fps: u32,
    frames: &[F],
    recipe: &str,
) -> Result<()> {
    // One track id in 256 is a byte shorter, which moves all later bytes; then another id is drawn.
    for _ in 0..ATTEMPTS {
        write_stamped(path, (width, height), fps, frames, recipe)?;
        if unstamp(path)? {
            return Ok(());
        }
    }
    Err(Error::Encode {
        path: path.to_path_buf(),
        reason: format!("the muxer's track ids were short {ATTEMPTS} times"),
    })
}

/// Maximum number of attempts for a track id of full length.
const ATTEMPTS: usize = 8;

/// Writes the file with the muxer's date and ids.
fn write_stamped<F: AsRef<[u8]>>(
    path: &Path,
    (width, height): (u32, u32),
    fps: u32,
    frames: &[F],
    recipe: &str,
) -> Result<()> {
    let failed = |reason: String| Error::Encode { path: path.to_path_buf(), reason };
    pipeline::initialise()?;
    let source = gst_app::AppSrc::builder().format(gst::Format::Time).block(true).build();
    let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::Rgb, width, height)
        .fps(gst::Fraction::new(fps as i32, 1))
        .build()
        .map_err(|error| failed(error.to_string()))?;
    source.set_caps(Some(&info.to_caps().map_err(|error| failed(error.to_string()))?));
    let convert = pipeline::element("videoconvert", path)?;
    for name in recipe.split('!').filter_map(|part| part.split_whitespace().next()) {
        pipeline::check_element(name, path)?;
    }
    let encoder =
        gst::parse::bin_from_description(recipe, true).map_err(|error| failed(error.to_string()))?;
    let sink = pipeline::element("filesink", path)?;
    sink.set_property("location", path);

    let mut running = start(path, &[source.upcast_ref(), &convert, encoder.upcast_ref(), &sink])?;
    gst::Element::link_many([source.upcast_ref(), &convert, encoder.upcast_ref(), &sink])
        .map_err(|error| failed(error.to_string()))?;
    running.play()?;
    for (index, frame) in frames.iter().enumerate() {
        let mut buffer =
            padded(path, frame.as_ref(), width as usize, height as usize, info.stride()[0] as usize)?;
        let time = |frame: usize| gst::ClockTime::SECOND.mul_div_floor(frame as u64, u64::from(fps));
        if let (Some(buffer), Some(from), Some(to)) = (buffer.get_mut(), time(index), time(index + 1)) {
            buffer.set_pts(from);
            buffer.set_duration(to - from);
        }
        if source.push_buffer(buffer).is_err() {
            break; // the pipeline stopped; the reason is on the bus
        }
    }
    // This fails only where the pipeline has stopped; the reason is on the bus.
    let _ = source.end_of_stream();
    running.finish(|| 0).map_err(|error| failed(error.to_string()))
}

/// A buffer with each row padded to GStreamer's stride.
fn padded(path: &Path, frame: &[u8], width: usize, height: usize, stride: usize) -> Result<gst::Buffer> {
    if frame.len() != width * height * 3 {
        let expected =
            format!("{width} x {height} x 3 = {} bytes for {}", width * height * 3, path.display());
        return Err(Error::setting("frame", expected, frame.len()));
    }
    let row = width * 3;
    let mut data = Vec::with_capacity(stride * height);
    for line in frame.chunks_exact(row) {
        data.extend_from_slice(line);
        data.resize(data.len() + stride - row, 0);
    }
    Ok(gst::Buffer::from_mut_slice(data))
}

/// Sets date and track ids of a Matroska file to constants; returns whether the ids have full length, so that
/// all other bytes are at their usual position.
fn unstamp(path: &Path) -> Result<bool> {
    let mut bytes = std::fs::read(path).map_err(Error::io("read back the video", path))?;
    if !bytes.starts_with(&[0x1A, 0x45, 0xDF, 0xA3]) {
        return Ok(true);
    }
    let is_full = unstamp_elements(&mut bytes);
    std::fs::write(path, bytes).map_err(Error::io("write the video", path))?;
    Ok(is_full)
}

/// Walks the elements that can hold a date or an id. Ids include their length marker.
fn unstamp_elements(mut bytes: &mut [u8]) -> bool {
    let mut is_full = true;
    const PARENTS: [u32; 4] = [0x1853_8067, 0x1549_A966, 0x1654_AE6B, 0xAE]; // Segment, Info, Tracks, TrackEntry
    const DATE: u32 = 0x4461;
    const TRACK_UID: u32 = 0x73C5;
    while let Some((id, content, end)) = super::container::element(bytes) {
        let (this, rest) = bytes.split_at_mut(end);
        let content = &mut this[content..];
        match id {
            _ if PARENTS.contains(&id) => is_full &= unstamp_elements(content),
            DATE => content.fill(0),
            TRACK_UID => {
                is_full &= content.len() == 8;
                content.fill(0);
                if let Some(last) = content.last_mut() {
                    *last = 1; // zero is not allowed
                }
            }
            _ => {}
        }
        bytes = rest;
    }
    is_full
}
