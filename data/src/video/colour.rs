//! What the numbers of a decoded picture mean. GStreamer guesses what a stream does not state, from the
//! picture's size; FFmpeg does not, and neither do the readers built on it, so that models were trained on
//! its colours.

use super::pipeline;
use gstreamer as gst;
use gstreamer::glib;
use gstreamer::glib::translate::IntoGlib;
use gstreamer::prelude::*;
use gstreamer_video::{self as gst_video, VideoFormat};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The format of decoded pictures as FFmpeg understands it:
///
/// - Without a matrix, YUV is BT.601's, whatever the size; without a range it is limited.
/// - Grey has the full range, whatever the stream says, and no matrix.
/// - RGB has the full range.
///
/// Interlaced fields are one picture.
///
/// # Errors
/// Caps that describe no video.
pub(super) fn interpret(caps: &gst::CapsRef) -> std::result::Result<gst_video::VideoInfo, glib::BoolError> {
    use gst_video::{VideoColorMatrix as Matrix, VideoColorRange as Range};
    let declared = declared(caps);
    let mut whole = caps.to_owned();
    if let Some(structure) = whole.make_mut().structure_mut(0) {
        structure.remove_fields(["interlace-mode", "field-order", "colorimetry"]);
    }
    let info = gst_video::VideoInfo::from_caps(&whole)?;
    let known = |range: Range, otherwise| if range == Range::Unknown { otherwise } else { range };
    let (range, matrix) = match declared {
        _ if info.is_gray() => (Range::Range0_255, Matrix::Bt601),
        _ if info.is_rgb() => (Range::Range0_255, Matrix::Rgb),
        None => (Range::Range16_235, Matrix::Bt601),
        Some(declared) => {
            let matrix = match declared.matrix() {
                Matrix::Rgb if has_whole_planes(info.format()) => Matrix::Rgb,
                Matrix::Unknown | Matrix::Rgb => Matrix::Bt601,
                matrix => matrix,
            };
            (known(declared.range(), Range::Range16_235), matrix)
        }
    };
    // Neither curve nor primaries are converted, as in FFmpeg.
    let colorimetry = gst_video::VideoColorimetry::new(
        range,
        matrix,
        gst_video::VideoTransferFunction::Unknown,
        gst_video::VideoColorPrimaries::Unknown,
    );
    gst_video::VideoInfo::builder_from_info(&info).colorimetry(&colorimetry).build()
}

/// What an encoded stream states about its colours beside its pictures' caps.
#[derive(Debug, Default)]
pub(super) struct Stated {
    /// The stream's caps before it is decoded.
    pub(super) encoded: Mutex<Option<gst::Caps>>,
    /// The container describes the colours of a stream without a codec.
    pub(super) in_container: bool,
    /// AV1's sequence header says that all values are used.
    pub(super) full_range: AtomicBool,
}

impl Stated {
    /// The colorimetry of decoded pictures where GStreamer's caps have another one.
    fn corrected(&self, raw: &gst::CapsRef) -> Option<&'static str> {
        let encoded = self.encoded.lock().unwrap_or_else(PoisonError::into_inner);
        let name = encoded.as_ref()?.structure(0)?.name().as_str();
        match name {
            // VP8 is BT.601's whatever the container says.
            "video/x-vp8" => Some("2:4:0:0"),
            // Only AV1's decoder has no formats for RGB: elsewhere the container means something else.
            _ if name != "video/x-av1" && is_yuv_called_rgb(raw) => Some("2:4:0:0"),
            // Without a description in the container, qtdemux guesses from the size.
            "video/x-raw" if !self.in_container => Some("2:0:0:0"),
            "video/x-av1" if declared(raw).is_none() && self.full_range.load(Ordering::Relaxed) => {
                Some("1:0:0:0")
            }
            _ => None,
        }
    }
}

impl Stated {
    /// Whether the bytes of a stream without a codec have the other order: QuickTime's 15-bit RGB.
    fn is_misread(&self, raw: &gst::CapsRef) -> bool {
        let encoded = self.encoded.lock().unwrap_or_else(PoisonError::into_inner);
        let name = encoded.as_ref().and_then(|caps| caps.structure(0)).map(|caps| caps.name().as_str());
        let format = raw.structure(0).and_then(|caps| caps.get::<&str>("format").ok());
        name == Some("video/x-raw") && matches!(format, Some("RGB15" | "RGB16"))
    }
}

/// Whether pictures of YUV are said to have RGB's matrix.
fn is_yuv_called_rgb(raw: &gst::CapsRef) -> bool {
    let is_yuv = gst_video::VideoInfo::from_caps(raw).is_ok_and(|info| info.is_yuv());
    is_yuv && declared(raw).is_some_and(|stated| stated.matrix() == gst_video::VideoColorMatrix::Rgb)
}

/// Writes what the stream states into the caps of the pictures that arrive at a pad.
pub(super) fn correct(pad: &gst::Pad, stated: Arc<Stated>) {
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |pad, info| {
        let Some(event) = info.event() else { return gst::PadProbeReturn::Ok };
        let gst::EventView::Caps(caps) = event.view() else { return gst::PadProbeReturn::Ok };
        if stated.is_misread(caps.caps()) {
            pipeline::refuse(pad, "GStreamer misreads its pixel format rgb555be");
            return gst::PadProbeReturn::Handled;
        }
        if let Some(colorimetry) = stated.corrected(caps.caps()) {
            let mut corrected = caps.caps_owned();
            corrected.make_mut().set("colorimetry", colorimetry);
            let event = gst::event::Caps::builder(&corrected).seqnum(event.seqnum()).build();
            info.data = Some(gst::PadProbeData::Event(event));
        }
        gst::PadProbeReturn::Ok
    });
}

/// The colorimetry that a stream states.
fn declared(caps: &gst::CapsRef) -> Option<gst_video::VideoColorimetry> {
    caps.structure(0)?.get::<&str>("colorimetry").ok()?.parse().ok()
}

/// The name of a stream's transfer function where its pictures are made for screens of high dynamic range.
/// They are converted like others, so that they look flat.
pub(crate) fn high_dynamic_range(caps: &gst::CapsRef) -> Option<&'static str> {
    // GStreamer's numbers; the names need bindings of a later version than the oldest supported one.
    const SMPTE_2084: i32 = 14;
    const ARIB_STD_B67: i32 = 15;
    match declared(caps)?.transfer().into_glib() {
        SMPTE_2084 => Some("PQ (SMPTE ST 2084)"),
        ARIB_STD_B67 => Some("HLG (ARIB STD-B67)"),
        _ => None,
    }
}

/// The transfer function of the first picture of high dynamic range that was converted since the last look.
static NOTED: Mutex<Option<&'static str>> = Mutex::new(None);

/// Remembers a picture of high dynamic range.
pub(super) fn note(caps: &gst::CapsRef) {
    if let Some(name) = high_dynamic_range(caps) {
        NOTED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(name);
    }
}

/// What [`note`] remembered, as a warning.
pub(super) fn take_warning() -> Option<String> {
    NOTED.lock().unwrap_or_else(PoisonError::into_inner).take().map(warning)
}

/// The warning about a transfer function.
pub(crate) fn warning(name: &str) -> String {
    format!(
        "made for screens of high dynamic range, {name}; its pictures look flat, they are not tone-mapped"
    )
}

/// Prints the first warning of a run.
pub(super) fn warn_once(path: &Path, warning: Option<String>) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if let Some(warning) = warning
        && !WARNED.swap(true, Ordering::Relaxed)
    {
        eprintln!("warning: {}: {warning} (`experiments data check` lists all such clips)", path.display());
    }
}

/// Whether a format has three whole planes. AV1's decoder calls RGB so.
fn has_whole_planes(format: VideoFormat) -> bool {
    matches!(format, VideoFormat::Y444 | VideoFormat::Y44410le | VideoFormat::Y44412le)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn colours(format: &str, colorimetry: Option<&str>) -> String {
        gst::init().unwrap();
        let mut caps: gst::Caps =
            format!("video/x-raw, format={format}, width=1920, height=1080, framerate=25/1").parse().unwrap();
        if let Some(colorimetry) = colorimetry {
            caps.make_mut().set("colorimetry", colorimetry);
        }
        let colorimetry = interpret(&caps).unwrap().colorimetry();
        format!("{:?} {:?}", colorimetry.range(), colorimetry.matrix())
    }

    #[test]
    fn what_a_stream_does_not_state_is_as_in_ffmpeg() {
        assert_eq!(colours("I420", None), "Range16_235 Bt601");
        assert_eq!(colours("I420", Some("2:0:0:0")), "Range16_235 Bt601");
        assert_eq!(colours("I420", Some("1:0:0:0")), "Range0_255 Bt601");
        assert_eq!(colours("I420", Some("0:3:0:0")), "Range16_235 Bt709");
        assert_eq!(colours("I420", Some("sRGB")), "Range0_255 Bt601");
        assert_eq!(colours("I420_10LE", Some("bt2020")), "Range16_235 Bt2020");
    }

    #[test]
    fn monochrome_and_rgb_have_the_full_range() {
        assert_eq!(colours("GRAY8", None), "Range0_255 Bt601");
        assert_eq!(colours("GRAY8", Some("2:0:0:0")), "Range0_255 Bt601");
        assert_eq!(colours("GRAY16_BE", Some("bt709")), "Range0_255 Bt601");
        assert_eq!(colours("RGB", Some("2:0:0:0")), "Range0_255 Rgb");
        assert_eq!(colours("GBR_10LE", None), "Range0_255 Rgb");
        assert_eq!(colours("Y444", Some("sRGB")), "Range0_255 Rgb");
    }

    #[test]
    fn what_only_the_encoded_stream_states_is_added() {
        gst::init().unwrap();
        let raw: gst::Caps = "video/x-raw, format=I420, colorimetry=bt709".parse().unwrap();
        let bare: gst::Caps = "video/x-raw, format=I420".parse().unwrap();
        let stated = |name: &str, in_container, full_range| Stated {
            encoded: Mutex::new(Some(gst::Caps::new_empty_simple(name))),
            in_container,
            full_range: AtomicBool::new(full_range),
        };
        assert_eq!(stated("video/x-vp8", false, false).corrected(&raw), Some("2:4:0:0"));
        assert_eq!(stated("video/x-raw", false, false).corrected(&raw), Some("2:0:0:0"));
        assert_eq!(stated("video/x-raw", true, false).corrected(&raw), None);
        assert_eq!(stated("video/x-av1", false, true).corrected(&bare), Some("1:0:0:0"));
        assert_eq!(stated("video/x-av1", false, true).corrected(&raw), None);
        assert_eq!(stated("video/x-av1", false, false).corrected(&bare), None);
        assert_eq!(stated("video/x-h264", false, true).corrected(&raw), None);
        let planes = "video/x-raw, format=Y444, width=2, height=2, framerate=1/1, colorimetry=sRGB";
        let planes: gst::Caps = planes.parse().unwrap();
        assert_eq!(stated("image/x-j2c", false, false).corrected(&planes), Some("2:4:0:0"));
        assert_eq!(stated("video/x-av1", false, false).corrected(&planes), None);
    }

    #[test]
    fn high_dynamic_range_is_known_by_its_transfer_function() {
        gst::init().unwrap();
        let name = |colorimetry: &str| {
            let caps = gst::Caps::builder("video/x-h265").field("colorimetry", colorimetry).build();
            high_dynamic_range(&caps)
        };
        assert!(name("bt2100-pq").unwrap().starts_with("PQ"));
        assert!(name("bt2100-hlg").unwrap().starts_with("HLG"));
        assert!(name("2:6:14:7").unwrap().starts_with("PQ"));
        assert_eq!(name("bt2020"), None);
        assert_eq!(name("bt709"), None);
    }
}
