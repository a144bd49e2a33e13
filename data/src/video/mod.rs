//! Decodes chosen frames of a video, GIF or image file to RGB bytes.

mod bitstream;
mod colour;
mod container;
mod convert;
mod decodebin;
mod edits;
pub mod encode;
mod exact;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod libav;
mod limits;
mod packets;
mod pipeline;
mod planes;
mod pool;
pub mod probe;
mod resize;
mod sequential;
#[cfg(test)]
mod shared_tests;
mod source;
mod still;
mod support;
mod workers;

pub use limits::{ClipLimits, limit_clips};
pub use pipeline::{STALL_LIMIT, keep_freed_memory};
pub use pool::limit_decoders;
pub use resize::{Resizing, resize};
pub use support::{Support, support};
pub use workers::{isolate_decoding, serve_if_worker};

use crate::error::{Error, Result};
use crate::sampling::Sampling;
use serde::{Deserialize, Serialize};
use std::path::Path;

pub(crate) use colour::warning as colour_warning;
pub(crate) use container::{Kind, inspect};
pub(crate) use convert::Orientation;
pub(crate) use pipeline::{Running, start};
pub(crate) use pool::permit;
pub(crate) use sequential::examine;
pub(crate) use still::examine as examine_still;
pub(crate) use workers::active as workers;

/// Frames as RGB bytes, in display orientation.
///
/// # Shapes
/// `data`: `[count, height, width, 3]`, rows from the top, without padding.
#[derive(Clone, PartialEq, Eq)]
pub struct Frames {
    /// Number of frames.
    pub count: usize,
    /// Rows of a frame.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
    /// The bytes.
    pub data: Vec<u8>,
}

impl Frames {
    /// The bytes of each frame, `[height, width, 3]`.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.data.chunks_exact((self.height * self.width * 3).max(1)).take(self.count)
    }
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frames [{}, {}, {}, 3]", self.count, self.height, self.width)
    }
}

/// The frames of a clip to return, and their size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrameRequest {
    /// Number of frames; a shorter clip repeats frames, see [`Sampling`].
    pub frames: usize,
    /// The rule that chooses them.
    pub sampling: Sampling,
    /// Seed of the random sampling rules; mix the clip's id and the epoch into it.
    pub seed: u64,
    /// Side of the square to resize to, in pixels; `None` keeps the video's size.
    pub size: Option<u32>,
    /// The rule of resizing.
    #[serde(default)]
    pub resizing: Resizing,
}

impl FrameRequest {
    /// `frames` uniformly sampled frames, resized to a square by BLIP's rule.
    #[must_use]
    pub fn uniform(frames: usize, size: u32) -> Self {
        Self { frames, sampling: Sampling::Uniform, seed: 0, size: Some(size), resizing: Resizing::Blip }
    }
    /// Refuses zeros.
    pub(crate) fn check(&self) -> Result<()> {
        for (key, is_zero) in [("frames", self.frames == 0), ("size", self.size == Some(0))] {
            if is_zero {
                return Err(Error::setting(key, "at least 1", 0));
            }
        }
        Ok(())
    }

    fn target(&self) -> Target {
        Target { size: self.size, resizing: self.resizing }
    }
}

/// The size of returned frames, and the rule by which they are resized.
#[derive(Clone, Copy, Debug)]
struct Target {
    size: Option<u32>,
    resizing: Resizing,
}

/// Decodes the chosen frames of a video, GIF or image file.
///
/// Frames are chosen by their index among the decoded frames, not by timestamps, which are wrong in many
/// files. The file's rotation is applied; its pixel aspect ratio is not, because a square resize undoes it.
/// At most as many clips are decoded at once as [`limit_decoders`] allows; the others wait. Videos are
/// decoded in worker processes after [`isolate_decoding`], otherwise on the calling thread.
///
/// # Shapes
/// `[frames, height, width, 3]`, or `[frames, size, size, 3]` with a size.
///
/// # Errors
/// Missing, empty, truncated and damaged files; files without a video stream or without frames; a decoder
/// that makes no progress for [`STALL_LIMIT`]; a plug-in that is not installed; a clip that exceeds a limit
/// of [`ClipLimits`]; a worker that crashed.
pub fn decode(path: &Path, request: &FrameRequest) -> Result<Frames> {
    request.check()?;
    let kind = container::inspect(path)?;
    let _permit = pool::permit();
    match (kind, workers()) {
        (Kind::Video(_), Some(workers)) => workers.decode(path, request),
        _ => {
            let frames = decode_here(path, request);
            colour::warn_once(path, colour::take_warning());
            frames
        }
    }
}

/// Decodes in this process.
fn decode_here(path: &Path, request: &FrameRequest) -> Result<Frames> {
    let target = request.target();
    let choose = |total: usize| request.sampling.indices(total, request.frames, request.seed);
    match container::inspect(path)? {
        container::Kind::Still => still::decode(path, target, &choose),
        container::Kind::Video(container) => match packets::decode(path, container, target, &choose)? {
            Some(frames) => Ok(frames),
            None => sequential::decode(path, target, &choose),
        },
    }
}

/// Puts decoded frames, each with its index, in the order of `indices`, which may repeat some.
fn arrange(
    path: &Path,
    indices: &[usize],
    decoded: &[(usize, convert::Rgb)],
    resizing: Resizing,
) -> Result<Frames> {
    let Some((_, first)) = decoded.first() else {
        return Err(Error::video(path, "it has no frames"));
    };
    let (height, width) = (first.height, first.width);
    let mut data = Vec::with_capacity(indices.len() * height * width * 3);
    for index in indices {
        let at = decoded.binary_search_by_key(index, |(index, _)| *index).map_err(|_| {
            Error::video(path, format!("frame {index} was counted but not decoded the second time"))
        })?;
        let rgb = &decoded[at].1;
        if (rgb.height, rgb.width) == (height, width) {
            data.extend_from_slice(&rgb.data);
        } else {
            // A stream may change its size; every frame is then resized to the first one's.
            data.extend_from_slice(&rgb.resized(height, width, resizing)?);
        }
    }
    Ok(Frames { count: indices.len(), height, width, data })
}
