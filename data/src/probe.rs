//! What a video file holds, found out by decoding it whole.

use crate::error::Error;
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
    /// Degrees counter-clockwise that the file asks to be turned by for display, as FFmpeg counts them: -90, 0, 90, 180.
    pub rotation: i32,
    /// Frames that were decoded.
    pub frames: usize,
    /// Seconds, where the container tells.
    pub duration_s: Option<f64>,
    /// Why decoding ended early or never began.
    pub error: Option<String>,
}

/// Decodes a file whole and says what it holds. A file that cannot be decoded is described by `error`.
#[must_use]
pub fn probe(path: &Path) -> Probe {
    let nothing = Probe {
        path: path.display().to_string(),
        codec: None,
        width: None,
        height: None,
        rotation: 0,
        frames: 0,
        duration_s: None,
        error: None,
    };
    let looked = video::inspect(path);
    let refused = looked.as_ref().err().map(ToString::to_string);
    match looked {
        Err(error) if !matches!(error, Error::Truncated { .. }) => Probe { error: refused, ..nothing },
        Ok(Kind::Still) => match video::examine_still(path) {
            Err(error) => Probe { error: Some(error.to_string()), ..nothing },
            Ok((codec, width, height, frames, seconds)) => Probe {
                codec: Some(codec.into()),
                width: Some(width),
                height: Some(height),
                frames,
                duration_s: (seconds > 0.0).then_some(seconds),
                ..nothing
            },
        },
        // Of a file that is cut short we still tell what frames can be had.
        Err(_) | Ok(Kind::Video(_)) => {
            let patience = if refused.is_some() { STALL_LIMIT / 4 } else { STALL_LIMIT };
            let found = video::examine(path, patience);
            let side = |name: &str| {
                [&found.raw, &found.encoded].into_iter().flatten().find_map(|caps| {
                    let value = caps.structure(0)?.get::<i32>(name).ok()?;
                    u32::try_from(value).ok()
                })
            };
            Probe {
                codec: found.encoded.as_deref().and_then(codec),
                width: side("width"),
                height: side("height"),
                rotation: Orientation::degrees(found.orientation),
                frames: found.frames,
                duration_s: found.duration.map(|time| time.nseconds() as f64 / 1e9),
                error: refused.or(found.failure.map(|failure| failure.to_string())),
                ..nothing
            }
        }
    }
}

/// A codec's name in FFmpeg's words.
fn codec(caps: &gst::CapsRef) -> Option<String> {
    let structure = caps.structure(0)?;
    let version = |field: &str| structure.get::<i32>(field).unwrap_or(0);
    let name = match structure.name().as_str() {
        "video/x-raw" => return None,
        "video/x-h265" => "hevc",
        "video/mpeg" => match version("mpegversion") {
            1 => "mpeg1video",
            2 => "mpeg2video",
            _ => "mpeg4",
        },
        "video/x-divx" if version("divxversion") > 3 => "mpeg4",
        "video/x-xvid" => "mpeg4",
        "video/x-divx" | "video/x-msmpeg" => "msmpeg4",
        "video/x-wmv" => match version("wmvversion") {
            1 => "wmv1",
            2 => "wmv2",
            _ => "wmv3",
        },
        "video/x-flash-video" => "flv",
        "video/x-vp6-flash" => "vp6f",
        "image/jpeg" => "mjpeg",
        name => name.strip_prefix("video/x-").or_else(|| name.split('/').nth(1)).unwrap_or(name),
    };
    Some(name.to_string())
}
