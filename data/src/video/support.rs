//! What the installed GStreamer decodes.

use gst::prelude::*;
use gstreamer as gst;
use serde::Serialize;

use super::packets::decoder_for;
use super::pipeline::initialise;
use crate::error::Result;

/// The codecs of video data sets, by their names and GStreamer's descriptions.
const CODECS: [(&str, &str); 7] = [
    ("H.264", "video/x-h264, stream-format=avc, alignment=au"),
    ("H.265", "video/x-h265, stream-format=hvc1, alignment=au"),
    ("VP8", "video/x-vp8"),
    ("VP9", "video/x-vp9"),
    ("AV1", "video/x-av1, stream-format=obu-stream, alignment=tu"),
    ("MPEG-4", "video/mpeg, mpegversion=4, systemstream=false, parsed=true"),
    ("MPEG-2", "video/mpeg, mpegversion=2, systemstream=false, parsed=true"),
];

/// GStreamer and its decoders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Support {
    /// GStreamer's version.
    pub version: String,
    /// Each codec, and the decoder that would be used; none where none is installed.
    pub decoders: Vec<(&'static str, Option<String>)>,
}

/// Asks GStreamer which codecs it decodes.
///
/// # Errors
/// When GStreamer does not start.
pub fn support() -> Result<Support> {
    initialise()?;
    let (major, minor, micro, _) = gst::version();
    let decoder = |(codec, description): (&'static str, &str)| {
        let caps = description.parse::<gst::Caps>().ok();
        (codec, caps.and_then(|caps| Some(decoder_for(&caps)?.name().to_string())))
    };
    Ok(Support {
        version: format!("{major}.{minor}.{micro}"),
        decoders: CODECS.into_iter().map(decoder).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The plug-ins that `scripts/setup.sh` installs decode all of them.
    #[test]
    fn every_codec_of_the_data_sets_has_a_decoder() {
        let support = support().unwrap();
        assert!(support.version.starts_with("1."), "{}", support.version);
        for (codec, decoder) in &support.decoders {
            assert!(decoder.is_some(), "{codec} has none");
        }
        assert_eq!(support.decoders[0].1.as_deref(), Some("avdec_h264"), "FFmpeg's, as PyAV's");
    }
}
