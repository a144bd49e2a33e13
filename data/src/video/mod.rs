//! Chosen frames of a video file, as RGB bytes.

mod bitstream;
mod container;
mod convert;
pub mod encode;
mod packets;
mod pipeline;
mod planes;
mod pool;
mod sequential;
#[cfg(test)]
mod shared_tests;
mod still;

pub use pipeline::{STALL_LIMIT, available_encoders};
pub use pool::limit_decoders;

use crate::error::{Error, Result};
use crate::sampling::Sampling;
use std::path::Path;

pub(crate) use container::{Kind, inspect};
pub(crate) use convert::Orientation;
pub(crate) use pipeline::{Running, start};
pub(crate) use pool::turn;
pub(crate) use sequential::examine;
pub(crate) use still::examine as examine_still;

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
    /// Each frame's bytes, `[height, width, 3]`.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.data.chunks_exact((self.height * self.width * 3).max(1)).take(self.count)
    }
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frames [{}, {}, {}, 3]", self.count, self.height, self.width)
    }
}

/// Which frames of a clip are wanted, and at what size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRequest {
    /// Number of frames to return; a shorter clip repeats frames, see [`Sampling`].
    pub frames: usize,
    /// The rule that chooses them.
    pub sampling: Sampling,
    /// Seed of the rules that draw; mix the clip's id and the epoch into it.
    pub seed: u64,
    /// Side of the square to resize to; `None` keeps the video's own size.
    pub size: Option<u32>,
}

impl FrameRequest {
    /// `frames` uniform frames, resized to a square.
    #[must_use]
    pub fn uniform(frames: usize, size: u32) -> Self {
        Self { frames, sampling: Sampling::Uniform, seed: 0, size: Some(size) }
    }
}

/// Decodes the chosen frames of a video, GIF or image file.
///
/// Frames are chosen by their place among the decoded frames, not by timestamps, which many files have wrong.
/// The file's rotation is applied; its pixel aspect ratio is not, because a square resize undoes it. No more
/// clips are decoded at once than [`limit_decoders`] allows, however many threads call; the others wait.
///
/// # Shapes
/// `[frames, height, width, 3]`, or `[frames, size, size, 3]` where a size is asked for.
///
/// # Errors
/// Missing, empty, truncated and damaged files; files without a video stream or with no frames; a decoder
/// that stands still for [`STALL_LIMIT`]; a plug-in that is not installed.
pub fn decode(path: &Path, request: &FrameRequest) -> Result<Frames> {
    if request.frames == 0 {
        return Err(Error::Setting { key: "frames", expected: "at least 1".into(), got: "0".into() });
    }
    if request.size == Some(0) {
        return Err(Error::Setting { key: "size", expected: "at least 1".into(), got: "0".into() });
    }
    let choose = |total: usize| request.sampling.indices(total, request.frames, request.seed);
    let kind = container::inspect(path)?;
    let _turn = pool::turn();
    match kind {
        container::Kind::Still => still::decode(path, request.size, &choose),
        container::Kind::Video(container) => match packets::decode(path, container, request.size, &choose)? {
            Some(frames) => Ok(frames),
            None => sequential::decode(path, request.size, &choose),
        },
    }
}

/// Puts decoded frames, each kept once, in the order of `indices`, which may repeat them.
pub(crate) fn arrange(path: &Path, indices: &[usize], decoded: &[(usize, convert::Rgb)]) -> Result<Frames> {
    let Some((_, first)) = decoded.first() else {
        return Err(Error::video(path, "it has no frames"));
    };
    let (height, width) = (first.height, first.width);
    let mut data = Vec::with_capacity(indices.len() * height * width * 3);
    for index in indices {
        let at = decoded.binary_search_by_key(index, |(index, _)| *index).map_err(|_| {
            Error::video(path, format!("frame {index} was counted but did not come a second time"))
        })?;
        let rgb = &decoded[at].1;
        if (rgb.height, rgb.width) == (height, width) {
            data.extend_from_slice(&rgb.data);
        } else {
            // A stream may change its size; every frame then takes the first one's.
            data.extend_from_slice(&rgb.stretched(height, width)?);
        }
    }
    Ok(Frames { count: indices.len(), height, width, data })
}
