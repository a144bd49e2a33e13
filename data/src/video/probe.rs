//! Describes a video file by decoding it completely.

use super::{Kind, Orientation, STALL_LIMIT};
use crate::error::{Error, Result};
use gstreamer as gst;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A file's content as decoded, not as declared by its header.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// The path as given.
    pub path: String,
    /// The codec, by FFmpeg's name; `None` without a video stream.
    pub codec: Option<String>,
    /// Pixels of a row as stored, before rotation.
    pub width: Option<u32>,
    /// Rows as stored, before rotation.
    pub height: Option<u32>,
    /// Rotation for display, in degrees counter-clockwise, as in FFmpeg: -180, -90, 0 or 90.
    pub rotation: i32,
    /// Number of decoded frames.
    pub frames: usize,
    /// Duration in seconds, where the container declares it.
    pub duration_s: Option<f64>,
    /// What is unusual about the pictures of a file that can be decoded: a high dynamic range.
    #[serde(default)]
    pub warning: Option<String>,
    /// Why decoding failed or ended early, or the damage that the decoder skipped; `None` for an intact file.
    pub error: Option<String>,
}

/// Decodes a file completely and describes it.
///
/// A failure is reported in `error`; for a truncated or damaged file, `frames` counts the frames that can be
/// decoded. Waits for a free decoder, as [`super::decode`] does.
#[must_use]
pub fn probe(path: &Path) -> Probe {
    let kind = super::inspect(path);
    let is_video = matches!(kind, Ok(Kind::Video(_)) | Err(Error::Truncated { .. }));
    let _permit = super::permit();
    match super::workers() {
        Some(workers) if is_video => workers.probe(path).unwrap_or_else(|error| failed(path, &error)),
        _ => probe_here(path),
    }
}

fn failed(path: &Path, error: &Error) -> Probe {
    Probe { path: path.display().to_string(), error: Some(error.to_string()), ..Probe::default() }
}

/// As [`probe`], in this process.
pub(crate) fn probe_here(path: &Path) -> Probe {
    let kind = super::inspect(path);
    let probe = match kind {
        Ok(Kind::Still) => still(path),
        // The frames of a truncated file are counted too.
        Ok(Kind::Video(_)) | Err(Error::Truncated { .. }) => moving(path, kind),
        Err(error) => failed(path, &error),
    };
    Probe { path: path.display().to_string(), ..probe }
}

fn still(path: &Path) -> Probe {
    let found = super::examine_still(path);
    Probe {
        codec: found.size.map(|_| found.codec.to_string()),
        width: found.size.map(|(width, _)| width),
        height: found.size.map(|(_, height)| height),
        frames: found.frames,
        duration_s: (found.seconds > 0.0).then_some(found.seconds),
        error: found.failure.map(|failure| failure.to_string()),
        ..Probe::default()
    }
}

fn moving(path: &Path, kind: Result<Kind>) -> Probe {
    // Decoding a truncated file often stalls at its end.
    let limit = if kind.is_ok() { STALL_LIMIT } else { STALL_LIMIT / 3 };
    let found = super::examine(path, limit);
    let side = |name: &str| {
        [&found.raw, &found.encoded].into_iter().flatten().find_map(|caps| {
            let value = caps.structure(0)?.get::<i32>(name).ok()?;
            u32::try_from(value).ok()
        })
    };
    let damage = found.warnings.first.as_ref().map(|first| {
        format!(
            "the stream is damaged: the decoder complained {} times, first: {first}",
            found.warnings.count
        )
    });
    let ended = kind.err().or(found.failure).map(|error| error.to_string());
    Probe {
        codec: found.encoded.as_deref().or(found.raw.as_deref()).and_then(codec),
        width: side("width"),
        height: side("height"),
        rotation: Orientation::degrees(found.orientation),
        frames: found.frames,
        duration_s: found.duration.map(|time| time.nseconds() as f64 / 1e9),
        warning: found.high_dynamic_range.map(super::colour_warning),
        error: ended.or(damage),
        ..Probe::default()
    }
}

/// A codec's name in FFmpeg.
fn codec(caps: &gst::CapsRef) -> Option<String> {
    let structure = caps.structure(0)?;
    let version = |field: &str| structure.get::<i32>(field).unwrap_or(0);
    let name = match structure.name().as_str() {
        "video/x-raw" => "rawvideo",
        "video/x-h265" => "hevc",
        "video/mpeg" => match version("mpegversion") {
            1 => "mpeg1video",
            2 => "mpeg2video",
            _ => "mpeg4",
        },
        "video/x-divx" if version("divxversion") > 3 => "mpeg4",
        "video/x-xvid" => "mpeg4",
        "video/x-msmpeg" if version("msmpegversion") == 41 => "msmpeg4v1",
        "video/x-msmpeg" if version("msmpegversion") == 42 => "msmpeg4v2",
        "video/x-divx" | "video/x-msmpeg" => "msmpeg4",
        "video/x-wmv" => match (structure.get::<&str>("format"), version("wmvversion")) {
            (Ok("WVC1"), _) => "vc1",
            (_, 1) => "wmv1",
            (_, 2) => "wmv2",
            _ => "wmv3",
        },
        "video/x-flash-video" => "flv",
        "video/x-flash-screen" => "flashsv",
        "video/x-vp6-flash" => "vp6f",
        "video/x-dv" => "dvvideo",
        "video/x-ffv" => "ffv1",
        "video/x-rle" => "qtrle",
        "video/x-svq" if version("svqversion") == 3 => "svq3",
        "video/x-svq" => "svq1",
        "video/x-pn-realvideo" => match version("rmversion") {
            1 => "rv10",
            2 => "rv20",
            3 => "rv30",
            _ => "rv40",
        },
        "image/jpeg" => "mjpeg",
        name => name.strip_prefix("video/x-").or_else(|| name.split('/').nth(1)).unwrap_or(name),
    };
    Some(name.to_string())
}
