//! What a video file holds, found out by decoding it whole.

use crate::error::{Error, Result};
use crate::video::{self, Kind, Orientation, STALL_LIMIT};
use gstreamer as gst;
use serde::Serialize;
use std::path::Path;

/// A file's content as decoded, not as its header claims.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Probe {
    /// The path as given.
    pub path: String,
    /// The codec, by FFmpeg's name; `None` where no video stream was found.
    pub codec: Option<String>,
    /// Pixels of a row as stored, before rotation.
    pub width: Option<u32>,
    /// Rows as stored, before rotation.
    pub height: Option<u32>,
    /// Degrees counter-clockwise that the file asks to be turned by for display, as FFmpeg counts them: -180,
    /// -90, 0, 90.
    pub rotation: i32,
    /// Frames that were decoded.
    pub frames: usize,
    /// Seconds, where the container tells.
    pub duration_s: Option<f64>,
    /// Why decoding ended early or never began, or what damage the decoder got over. `None` of a file that is
    /// whole.
    pub error: Option<String>,
}

impl Probe {
    fn nothing(path: &Path) -> Self {
        Self {
            path: path.display().to_string(),
            codec: None,
            width: None,
            height: None,
            rotation: 0,
            frames: 0,
            duration_s: None,
            error: None,
        }
    }
}

/// Decodes a file whole and says what it holds. A file that cannot be decoded is described by `error`; of one
/// that is cut short or damaged, `frames` counts what can be had. Waits for its turn as [`video::decode`]
/// does.
#[must_use]
pub fn probe(path: &Path) -> Probe {
    let looked = video::inspect(path);
    let _turn = video::turn();
    match looked {
        Ok(Kind::Still) => still(path),
        // Of a file that is cut short we still tell what frames can be had.
        Ok(Kind::Video(_)) | Err(Error::Truncated { .. }) => moving(path, looked),
        Err(error) => Probe { error: Some(error.to_string()), ..Probe::nothing(path) },
    }
}

fn still(path: &Path) -> Probe {
    let found = video::examine_still(path);
    Probe {
        codec: found.size.map(|_| found.codec.to_string()),
        width: found.size.map(|(width, _)| width),
        height: found.size.map(|(_, height)| height),
        frames: found.frames,
        duration_s: (found.seconds > 0.0).then_some(found.seconds),
        error: found.failure.map(|failure| failure.to_string()),
        ..Probe::nothing(path)
    }
}

fn moving(path: &Path, looked: Result<Kind>) -> Probe {
    // A file that is cut short often ends in a standstill, and is known to be broken anyway.
    let patience = if looked.is_ok() { STALL_LIMIT } else { STALL_LIMIT / 3 };
    let found = video::examine(path, patience);
    let side = |name: &str| {
        [&found.raw, &found.encoded].into_iter().flatten().find_map(|caps| {
            let value = caps.structure(0)?.get::<i32>(name).ok()?;
            u32::try_from(value).ok()
        })
    };
    let complaint = found.complaints.first.as_ref().map(|first| {
        format!(
            "the stream is damaged: the decoder complained {} times, first: {first}",
            found.complaints.count
        )
    });
    let ended = looked.err().or(found.failure).map(|error| error.to_string());
    Probe {
        codec: found.encoded.as_deref().or(found.raw.as_deref()).and_then(codec),
        width: side("width"),
        height: side("height"),
        rotation: Orientation::degrees(found.orientation),
        frames: found.frames,
        duration_s: found.duration.map(|time| time.nseconds() as f64 / 1e9),
        error: ended.or(complaint),
        ..Probe::nothing(path)
    }
}

/// A codec's name in FFmpeg's words.
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
