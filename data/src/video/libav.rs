//! Settings of gst-libav's decoders, and what they say only in GStreamer's log.
//!
//! Three of their faults matter here. With direct rendering they read beyond their buffers where GStreamer
//! has no name for the pixel format, and the program ends. With one thread they lose pictures after a gap in
//! H.264's frame numbers. The pixel format that they cannot pass on is named nowhere but in the log.

use gstreamer as gst;
use gstreamer::prelude::*;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

/// The threads of one decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Threads {
    /// One: decoding one clip per core is faster than decoding one clip with several threads.
    One,
    /// Two, which decode successive pictures. Then gst-libav survives gaps in H.264's frame numbers.
    TwoOfPictures,
}

/// What the decoders of one pipeline have written into the log.
#[derive(Debug)]
pub(crate) struct Watch {
    gap: AtomicBool,
    unknown_format: AtomicBool,
    /// A [`Naming`] is held all the time, so that each number in the log is read.
    is_naming: bool,
    /// libavutil's number of the format; [`NO_FORMAT`] before it is known.
    format: AtomicI32,
}

/// libavutil's number of no pixel format.
const NO_FORMAT: i32 = -1;

impl Default for Watch {
    fn default() -> Self {
        Self {
            gap: AtomicBool::new(false),
            unknown_format: AtomicBool::new(false),
            is_naming: false,
            format: AtomicI32::new(NO_FORMAT),
        }
    }
}

impl Watch {
    /// One that reads the pixel format's number.
    pub(super) fn naming(_naming: &Naming) -> Self {
        Self { is_naming: true, ..Self::default() }
    }

    /// Whether a decoder lost a picture after a gap in the frame numbers.
    pub(super) fn has_gap(&self) -> bool {
        self.gap.load(Ordering::Relaxed)
    }

    /// Whether a decoder's pixel format has no name in GStreamer.
    pub(super) fn has_unknown_format(&self) -> bool {
        self.unknown_format.load(Ordering::Relaxed)
    }

    /// The name of that format in FFmpeg; only a watch made by [`Self::naming`] knows it.
    pub(super) fn unknown_format(&self) -> Option<String> {
        match self.format.load(Ordering::Relaxed) {
            NO_FORMAT => None,
            number => Some(format_name(number).unwrap_or_else(|| format!("number {number} of libavutil"))),
        }
    }
}

/// Prepares a new decoder of any plug-in; `watch` receives what it logs.
pub(super) fn prepare(decoder: &gst::Element, threads: Threads, watch: &Arc<Watch>) {
    if decoder.has_property("max-threads") {
        decoder.set_property("max-threads", if threads == Threads::One { 1i32 } else { 2 });
    }
    if threads == Threads::TwoOfPictures && decoder.has_property("thread-type") {
        decoder.set_property_from_str("thread-type", "frame");
    }
    // As in FFmpeg: pictures before the stream has recovered from a cut are not shown.
    if decoder.has_property("output-corrupt") {
        decoder.set_property("output-corrupt", false);
    }
    if decoder.has_property("direct-rendering") {
        listen();
        register(&decoder.name(), watch);
        // Where pictures are missing, FFmpeg shows its own cleared memory, not what GStreamer's buffers held.
        decoder.set_property("direct-rendering", false);
        if threads == Threads::One
            && let Some(pad) = decoder.static_pad("sink")
        {
            choose_rendering(&pad);
        }
    }
}

/// Allows direct rendering, which saves a copy of each picture, only for streams whose pixel format GStreamer
/// certainly knows.
fn choose_rendering(pad: &gst::Pad) {
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |pad, info| {
        if let Some(event) = info.event()
            && let gst::EventView::Caps(caps) = event.view()
            && let Some(decoder) = pad.parent_element()
        {
            decoder.set_property("direct-rendering", is_common_format(caps.caps()));
        }
        gst::PadProbeReturn::Ok
    });
}

/// Whether the pixel format of a stream is certainly one that GStreamer knows, for the codecs of most video.
fn is_common_format(caps: &gst::CapsRef) -> bool {
    let Some(structure) = caps.structure(0) else { return false };
    let text = |field: &str| structure.get::<&str>(field).ok();
    let number = |field: &str| structure.get::<i32>(field).unwrap_or(0);
    // Parsers add the values of the sequence header; a profile alone does not exclude monochrome.
    let is_420 = text("chroma-format").is_none_or(|chroma| chroma == "4:2:0");
    let depth = structure.get::<u32>("bit-depth-luma").ok();
    let same_depth = depth == structure.get::<u32>("bit-depth-chroma").ok();
    match structure.name().as_str() {
        "video/x-h264" => {
            is_420
                && same_depth
                && depth.is_none_or(|depth| depth == 8)
                && text("profile").is_some_and(|profile| H264_PROFILES.contains(&profile))
        }
        "video/x-h265" => {
            is_420
                && same_depth
                && depth.is_some_and(|depth| depth == 8 || depth == 10)
                && text("profile").is_some_and(|profile| ["main", "main-10"].contains(&profile))
        }
        "video/mpeg" => matches!(number("mpegversion"), 1 | 2 | 4),
        "video/x-wmv" => {
            text("format").is_none_or(|format| ["WMV1", "WMV2", "WMV3", "WVC1"].contains(&format))
        }
        "video/x-h263"
        | "video/x-divx"
        | "video/x-xvid"
        | "video/x-msmpeg"
        | "video/x-flash-video"
        | "video/x-pn-realvideo"
        | "video/x-vp6-flash" => true,
        _ => false,
    }
}

/// H.264's profiles of 8 bits and 4:2:0.
const H264_PROFILES: [&str; 7] =
    ["constrained-baseline", "baseline", "main", "extended", "high", "constrained-high", "progressive-high"];

/// The living decoders by name, which is unique in the process.
static WATCHES: Mutex<Option<HashMap<String, Weak<Watch>>>> = Mutex::new(None);

/// No code panics in the middle of a change while it holds this lock.
fn watches() -> MutexGuard<'static, Option<HashMap<String, Weak<Watch>>>> {
    WATCHES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn register(name: &str, watch: &Arc<Watch>) {
    let mut watches = watches();
    let watches = watches.get_or_insert_default();
    watches.retain(|_, watch| watch.strong_count() > 0);
    watches.insert(name.to_string(), Arc::downgrade(watch));
}

fn watch_of(name: &str) -> Option<Arc<Watch>> {
    watches().as_ref()?.get(name)?.upgrade()
}

thread_local! {
    /// The last pixel format that GStreamer did not know; the decoder's own message follows on this thread.
    static LAST_FORMAT: Cell<i32> = const { Cell::new(NO_FORMAT) };
}

/// gst-libav's log category, and the level that the user asked for.
static CATEGORY: OnceLock<Option<(gst::DebugCategory, gst::DebugLevel)>> = OnceLock::new();

/// Reads gst-libav's warnings from now on. They are rare, so this costs nothing for an intact stream.
fn listen() {
    CATEGORY.get_or_init(|| {
        let category = gst::DebugCategory::get("libav")?;
        let asked = category.threshold();
        // The default function prints whatever passes the threshold; ours prints what the user asked for.
        gst::log::remove_default_log_function();
        gst::log::add_log_function(move |from, level, file, function, line, object, message| {
            let is_ours = from == category;
            if is_ours && let Some(text) = message.get() {
                note(object.map(ToString::to_string), text.as_str());
            }
            if !is_ours || level <= asked {
                gst::log::log_default(from, level, file, function, line, object, message);
            }
        });
        category.set_threshold(asked.max(gst::DebugLevel::Warning));
        Some((category, asked))
    });
}

/// Stores a log message's meaning for the decoder that wrote it.
fn note(decoder: Option<String>, text: &str) {
    const UNKNOWN: &str = "Unknown pixel format ";
    if let Some(number) = text.strip_prefix(UNKNOWN) {
        LAST_FORMAT.set(number.trim().parse().unwrap_or(NO_FORMAT));
    }
    let is_gap = text.starts_with("Couldn't get codec frame");
    let is_unknown = text.starts_with("decoder requires a video format unsupported");
    if (is_gap || is_unknown)
        && let Some(watch) = decoder.and_then(|decoder| watch_of(&decoder))
    {
        watch.gap.fetch_or(is_gap, Ordering::Relaxed);
        watch.unknown_format.fetch_or(is_unknown, Ordering::Relaxed);
        // Without that, the last number may be one that was logged long before.
        if is_unknown && watch.is_naming {
            watch.format.store(LAST_FORMAT.replace(NO_FORMAT), Ordering::Relaxed);
        }
    }
}

/// While it is held, gst-libav logs the numbers of pixel formats. That is a dozen messages per picture, so it
/// is held only while a file is opened again that failed because of its format.
pub(super) struct Naming;

/// Number of [`Naming`]s.
static NAMINGS: Mutex<usize> = Mutex::new(0);

impl Naming {
    pub(super) fn new() -> Self {
        Self::count(|namings| namings + 1);
        Self
    }

    fn count(change: impl Fn(usize) -> usize) {
        let mut namings = NAMINGS.lock().unwrap_or_else(PoisonError::into_inner);
        *namings = change(*namings);
        let Some(Some((category, asked))) = CATEGORY.get() else { return };
        let least = if *namings > 0 { gst::DebugLevel::Debug } else { gst::DebugLevel::Warning };
        category.set_threshold((*asked).max(least));
    }
}

impl Drop for Naming {
    fn drop(&mut self) {
        Self::count(|namings| namings.saturating_sub(1));
    }
}

/// A pixel format's name in the libavutil that gst-libav has loaded.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn format_name(number: i32) -> Option<String> {
    use std::ffi::{CStr, CString, c_char, c_int};
    // The list may be incomplete while another thread maps memory.
    const ATTEMPTS: usize = 20;
    let path = (0..ATTEMPTS).find_map(|_| {
        let maps = std::fs::read("/proc/self/maps").ok()?;
        String::from_utf8_lossy(&maps).lines().find_map(|line| {
            let path = &line[line.find('/')?..];
            path.rsplit('/').next()?.starts_with("libavutil.so").then(|| path.to_string())
        })
    })?;
    let path = CString::new(path).ok()?;
    // SAFETY: the library is loaded already and is never unloaded (GStreamer keeps its plug-ins); the symbol
    // has had this type in every version of libavutil; it returns a constant string or a null pointer.
    unsafe {
        let library = libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
        if library.is_null() {
            return None;
        }
        let symbol = libc::dlsym(library, c"av_get_pix_fmt_name".as_ptr());
        if symbol.is_null() {
            return None;
        }
        let name_of: extern "C" fn(c_int) -> *const c_char = std::mem::transmute(symbol);
        let name = name_of(number);
        (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}

/// Elsewhere the number must do.
#[cfg(not(target_os = "linux"))]
fn format_name(_number: i32) -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_common(caps: &str) -> bool {
        gst::init().unwrap();
        is_common_format(&caps.parse::<gst::Caps>().unwrap())
    }

    #[test]
    fn direct_rendering_needs_a_format_that_gstreamer_certainly_knows() {
        assert!(is_common("video/x-h264, profile=(string)high"));
        assert!(is_common(
            "video/x-h264, profile=main, chroma-format=4:2:0, bit-depth-luma=(uint)8, bit-depth-chroma=(uint)8"
        ));
        assert!(is_common(
            "video/x-h265, profile=main-10, chroma-format=4:2:0, bit-depth-luma=(uint)10, bit-depth-chroma=(uint)10"
        ));
        assert!(is_common("video/mpeg, mpegversion=2"));
        assert!(!is_common("video/x-h264"));
        assert!(!is_common("video/x-h264, profile=high-10"));
        assert!(!is_common("video/x-h264, profile=high, chroma-format=4:0:0"));
        assert!(!is_common("video/x-h264, profile=high, bit-depth-luma=(uint)9, bit-depth-chroma=(uint)9"));
        assert!(!is_common("video/x-h265, profile=main-10"));
        assert!(!is_common("video/x-h265, profile=monochrome-12"));
        assert!(!is_common("video/x-ffv, ffvversion=1"));
    }

    #[test]
    fn a_log_message_is_stored_for_its_decoder_alone() {
        let (one, other) = (Arc::new(Watch::naming(&Naming::new())), Arc::new(Watch::default()));
        register("avdec_test-1", &one);
        register("avdec_test-2", &other);
        note(None, "Unknown pixel format 79");
        note(Some("avdec_test-1".into()), "decoder requires a video format unsupported by GStreamer");
        assert!(one.has_unknown_format() && !one.has_gap());
        assert!(one.unknown_format().is_some_and(|name| name.contains("79") || !name.is_empty()));
        note(Some("avdec_test-2".into()), "Couldn't get codec frame !");
        assert!(other.has_gap() && !other.has_unknown_format());
        note(None, "Unknown pixel format 79");
        note(Some("avdec_test-2".into()), "decoder requires a video format unsupported by GStreamer");
        assert!(other.has_unknown_format() && other.unknown_format().is_none());
    }
}
