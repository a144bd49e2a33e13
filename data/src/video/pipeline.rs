//! Common parts of all GStreamer pipelines: start, errors, detection of stalls, and stopping on every path.

use super::convert::Orientation;
use super::libav::Watch;
use crate::error::{Error, Result};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// The longest time without a new frame before decoding is stopped. Some damaged files make GStreamer wait
/// forever without an error; intact files on a busy machine stay below this.
pub const STALL_LIMIT: Duration = Duration::from_secs(6);

/// Interval at which the bus is read while no frame arrives.
const POLL: gst::ClockTime = gst::ClockTime::from_mseconds(20);

/// A pipeline that stops when it is dropped.
pub(crate) struct Running {
    pub(crate) pipeline: gst::Pipeline,
    /// Time without progress after which the pipeline fails.
    pub(crate) patience: Duration,
    /// What the decoders write into the log.
    pub(crate) watch: Arc<Watch>,
    /// Stop when a decoder loses a picture after a gap in the frame numbers.
    pub(crate) stop_at_gap: bool,
    path: PathBuf,
    orientation: Orientation,
    missing: Option<Error>,
    failure: Option<Error>,
    warnings: Warnings,
}

/// A decoder's warnings about damage that it skipped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Warnings {
    /// Their number.
    pub(crate) count: usize,
    /// The first one.
    pub(crate) first: Option<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // A failure to stop cannot be reported from here; GStreamer keeps the pipeline.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// Initialises GStreamer, once per process.
pub(crate) fn initialise() -> Result<()> {
    static STARTED: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let start = || {
        gst::init().map_err(|error| error.to_string())?;
        prefer_ffmpeg();
        Ok(())
    };
    STARTED.get_or_init(start).clone().map_err(|reason| Error::MissingPlugin {
        needed: format!("its own core ({reason})"),
        package: "gstreamer1.0-plugins-base".into(),
        path: None,
    })
}

/// GStreamer's own decoders that give other pictures than FFmpeg's, and FFmpeg's: they ignore the range of
/// JPEG and the colours that VP9's frames state, and mix up RGB. The parser leads to such a decoder alone.
const REPLACED: [(&str, &str); 4] = [
    ("jpegdec", "avdec_mjpeg"),
    ("vp9dec", "avdec_vp9"),
    ("openjpegdec", "avdec_jpeg2000"),
    ("jpeg2000parse", "avdec_jpeg2000"),
];

/// Prefers FFmpeg's decoders in [`REPLACED`], and the parser that one of them needs.
fn prefer_ffmpeg() {
    for name in REPLACED.iter().map(|(_, name)| *name).chain(["jpegparse"]) {
        if let Some(factory) = gst::ElementFactory::find(name) {
            factory.set_rank(gst::Rank::PRIMARY + 1);
        }
    }
}

/// Whether another installed decoder is used in place of an element for a stream.
pub(super) fn is_replaced(name: &str, caps: &gst::Caps) -> bool {
    let accepts = |by| gst::ElementFactory::find(by).is_some_and(|by| by.can_sink_all_caps(caps));
    REPLACED.iter().any(|(own, by)| *own == name && accepts(by))
}

/// Makes the C library keep memory that one clip's decoder frees for the next clip. Returning it to the
/// system takes a twentieth of a clip's decoding time.
///
/// This changes `malloc` of the whole process, so only a program's `main` should call it, once, before it
/// decodes. With glibc, each thread then keeps up to 32 MiB, in blocks of at most 4 MiB.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code)]
    // SAFETY: `mallopt` takes the C library's lock; any value is valid, and a refused one changes nothing.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 4 << 20);
    }
}

/// Makes an element; the error names the package that contains it.
pub(crate) fn element(factory: &'static str, path: &Path) -> Result<gst::Element> {
    initialise()?;
    gst::ElementFactory::make(factory).build().map_err(|_| missing_element(factory, path))
}

/// Checks that an element is installed; the error names the package that contains it.
pub(crate) fn check_element(factory: &str, path: &Path) -> Result<()> {
    initialise()?;
    match gst::ElementFactory::find(factory) {
        Some(_) => Ok(()),
        None => Err(missing_element(factory, path)),
    }
}

fn missing_element(factory: &str, path: &Path) -> Error {
    Error::MissingPlugin {
        needed: format!("element \"{factory}\""),
        package: package_of(factory).into(),
        path: Some(path.to_path_buf()),
    }
}

/// Puts elements into a pipeline.
pub(crate) fn start(path: &Path, elements: &[&gst::Element]) -> Result<Running> {
    let pipeline = gst::Pipeline::new();
    pipeline.add_many(elements.iter().copied()).map_err(|error| Error::video(path, error.to_string()))?;
    Ok(Running {
        pipeline,
        patience: STALL_LIMIT,
        watch: Arc::default(),
        stop_at_gap: false,
        path: path.to_path_buf(),
        orientation: Orientation::Upright,
        missing: None,
        failure: None,
        warnings: Warnings::default(),
    })
}

impl Running {
    /// Starts the pipeline. If it refuses, the reason is on the bus.
    pub(crate) fn play(&mut self) -> Result<()> {
        if self.pipeline.set_state(gst::State::Playing).is_err() {
            self.read_bus();
            return Err(self.take_failure().unwrap_or_else(|| {
                Error::video(&self.path, "GStreamer refused to start and gave no reason")
            }));
        }
        Ok(())
    }

    /// The next sample; `None` at the end of the stream.
    ///
    /// # Errors
    /// An error on the bus, or [`Error::Stalled`] after `patience` without a sample and without `progress`.
    pub(crate) fn next(
        &mut self,
        sink: &gst_app::AppSink,
        progress: impl Fn() -> usize,
    ) -> Result<Option<gst::Sample>> {
        let mut since = (Instant::now(), progress());
        loop {
            if let Some(sample) = sink.try_pull_sample(POLL) {
                return Ok(Some(sample));
            }
            self.read_bus();
            if let Some(failure) = self.take_failure() {
                return Err(failure);
            }
            if sink.is_eos() {
                return Ok(None);
            }
            self.check_progress(&mut since, progress())?;
        }
    }

    /// Waits for the end of a stream whose samples another element takes.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub(crate) fn finish(&mut self, progress: impl Fn() -> usize) -> Result<()> {
        let Some(bus) = self.pipeline.bus() else {
            return Err(Error::video(&self.path, "the pipeline has no bus"));
        };
        let mut since = (Instant::now(), progress());
        loop {
            if let Some(message) = bus.timed_pop(POLL) {
                if message.type_() == gst::MessageType::Eos {
                    return Ok(());
                }
                self.note(&message);
            }
            if let Some(failure) = self.take_failure() {
                return Err(failure);
            }
            self.check_progress(&mut since, progress())?;
        }
    }

    /// Fails after `patience` without progress; `since` holds the time and amount of the last progress.
    fn check_progress(&self, since: &mut (Instant, usize), done: usize) -> Result<()> {
        if done != since.1 {
            *since = (Instant::now(), done);
        } else if since.0.elapsed() > self.patience {
            return Err(Error::Stalled {
                path: self.path.clone(),
                frames: done,
                seconds: self.patience.as_secs(),
            });
        }
        Ok(())
    }

    /// The stream's orientation; known after the first frame.
    pub(crate) fn orientation(&mut self) -> Orientation {
        self.read_bus();
        self.orientation
    }

    /// The decoder's warnings so far.
    pub(crate) fn warnings(&mut self) -> Warnings {
        self.read_bus();
        self.warnings.clone()
    }

    /// Reads all messages on the bus.
    fn read_bus(&mut self) {
        let Some(bus) = self.pipeline.bus() else { return };
        while let Some(message) = bus.pop() {
            self.note(&message);
        }
    }

    fn note(&mut self, message: &gst::Message) {
        match message.view() {
            gst::MessageView::Tag(tag) => {
                if let Some(value) = tag.tags().get::<gst::tags::ImageOrientation>()
                    && let Some(orientation) = Orientation::from_tag(value.get())
                {
                    self.orientation = orientation;
                }
            }
            gst::MessageView::Element(element) => {
                if let Some(structure) = element.structure()
                    && structure.name() == "missing-plugin"
                {
                    self.missing.get_or_insert(missing_plugin(structure, &self.path));
                }
            }
            gst::MessageView::Warning(warning) if warning.error().matches(gst::StreamError::Decode) => {
                self.warnings.count += 1;
                let sentence = warning.error().to_string();
                self.warnings.first.get_or_insert(sentence.trim_end_matches('.').to_string());
            }
            gst::MessageView::Error(error) => {
                let reason = reason(error);
                self.failure.get_or_insert_with(|| Error::video(&self.path, reason));
            }
            _ => {}
        }
    }

    /// The first error, or the missing plug-in or pixel format that caused it.
    fn take_failure(&mut self) -> Option<Error> {
        if self.stop_at_gap && self.watch.has_gap() {
            return Some(Error::video(&self.path, "pictures are missing before one that refers to them"));
        }
        // If the demuxer has passed on all packets before, no error follows.
        if self.watch.has_unknown_format() {
            return Some(self.unknown_format());
        }
        let failure = self.failure.take()?;
        Some(self.missing.take().unwrap_or(failure))
    }

    /// The error of a pixel format that GStreamer does not know.
    fn unknown_format(&self) -> Error {
        let name = self.watch.unknown_format().map_or_else(String::new, |name| format!(" {name}"));
        Error::Video {
            path: self.path.clone(),
            reason: format!("GStreamer does not know its pixel format{name}"),
            next: "convert it (ffmpeg -i FILE -pix_fmt yuv420p NEW.mp4) or leave the clip out".into(),
        }
    }

    /// The missing plug-in, where a stream ended without an error because of it.
    pub(crate) fn take_missing(&mut self) -> Option<Error> {
        self.read_bus();
        self.missing.take()
    }
}

/// Stops the pipeline of a pad's element with an error.
pub(super) fn refuse(pad: &gst::Pad, reason: &str) {
    if let Some(element) = pad.parent_element() {
        let error = &gst::StreamError::WrongType;
        let message = gst::ErrorMessage::new(error, Some(reason), None, file!(), "refuse", line!());
        element.post_error_message(message);
    }
}

/// GStreamer's message, with the part of its debug text that is not a source location.
fn reason(error: &gst::message::Error) -> String {
    let sentence = error.error().to_string();
    let detail = error.debug().and_then(|debug| {
        let detail = debug.rsplit('\n').next().unwrap_or_default().trim().to_string();
        (!detail.is_empty() && ![".c(", ".rs("].iter().any(|place| detail.contains(place))).then_some(detail)
    });
    let sentence = sentence.trim_end_matches('.');
    match detail {
        Some(detail) => format!("{sentence} ({})", detail.trim_end_matches('.')),
        None => sentence.to_string(),
    }
}

/// The error of a stream that no installed element decodes. It names a package only where that package is not
/// installed.
fn missing_plugin(structure: &gst::StructureRef, path: &Path) -> Error {
    let name = structure.get::<&str>("name").unwrap_or("an unnamed format");
    let caps = structure.get::<gst::Caps>("detail").ok();
    let detail = caps
        .as_ref()
        .and_then(|caps| caps.structure(0).map(|caps| caps.name().to_string()))
        .or_else(|| structure.get::<&str>("detail").ok().map(str::to_string))
        .unwrap_or_default();
    let codec = caps.as_deref().and_then(|caps| caps.structure(0)).and_then(unmapped_codec);
    let package = package_of(&detail);
    if codec.is_none() && !is_installed(package) {
        return Error::MissingPlugin {
            needed: format!("{name} ({detail})"),
            package: package.into(),
            path: Some(path.to_path_buf()),
        };
    }
    let reason = match codec {
        Some(codec) => format!("GStreamer's demuxer does not pass on its codec, {codec}"),
        None => format!("GStreamer has no decoder for its codec, {name} ({detail})"),
    };
    Error::Video {
        path: path.to_path_buf(),
        reason,
        next: "convert it (ffmpeg -i FILE -c:v libx264 -pix_fmt yuv420p NEW.mp4) or leave the clip out"
            .into(),
    }
}

/// The codec of caps that a demuxer makes for codecs which it does not know; `None` for other caps. FFmpeg
/// has decoders for many of them.
fn unmapped_codec(caps: &gst::StructureRef) -> Option<String> {
    let code = match caps.name().as_str() {
        "video/x-avi-unknown" => {
            let code = caps.get::<i32>("fourcc").unwrap_or(0).to_le_bytes();
            String::from_utf8_lossy(&code).into_owned()
        }
        "video/x-unknown" => {
            let code = caps.get::<&str>("fourcc").or_else(|_| caps.get::<&str>("codec-id"));
            code.unwrap_or("without a name").to_string()
        }
        name => name.strip_prefix("video/x-gst-fourcc-")?.to_string(),
    };
    let code: String = code.chars().filter(|letter| !letter.is_control()).collect();
    let name = CODECS.iter().find(|(begin, _)| code.starts_with(begin)).map(|(_, name)| *name);
    Some(name.map_or_else(|| format!("\"{code}\""), |name| format!("{name} (\"{code}\")")))
}

/// Codecs that demuxers do not know, by the beginning of their code.
const CODECS: [(&str, &str); 14] = [
    ("AVd", "DNxHD or DNxHR"),
    ("ULY", "UT Video"),
    ("ULH", "UT Video"),
    ("ULR", "UT Video"),
    ("UQ", "UT Video"),
    ("UM", "UT Video"),
    ("M8", "MagicYUV"),
    ("M0", "MagicYUV"),
    ("MAGY", "MagicYUV"),
    ("FFVH", "FFVHUFF"),
    ("v410", "uncompressed 4:4:4 of 10 bits"),
    ("v408", "uncompressed 4:4:4 with alpha"),
    ("Hap", "Hap"),
    ("SNOW", "Snow"),
];

/// Whether a package is installed, judged by one of its elements.
fn is_installed(package: &str) -> bool {
    let element = match package {
        "gstreamer1.0-plugins-good" => "avidemux",
        "gstreamer1.0-plugins-bad" => "h264parse",
        "gstreamer1.0-plugins-ugly" => "asfdemux",
        "gstreamer1.0-plugins-base" => "decodebin",
        "gstreamer1.0-libav" => "avdec_mpeg4",
        _ => return true,
    };
    gst::ElementFactory::find(element).is_some()
}

/// The Debian and Ubuntu package with an element, or with the plug-in for a media type.
fn package_of(wanted: &str) -> &'static str {
    const GOOD: &str = "gstreamer1.0-plugins-good";
    const BAD: &str = "gstreamer1.0-plugins-bad";
    const UGLY: &str = "gstreamer1.0-plugins-ugly";
    const LIBAV: &str = "gstreamer1.0-libav";
    match wanted {
        "video/x-vp8" | "video/x-vp9" | "video/x-matroska" | "video/webm" | "video/quicktime"
        | "video/x-msvideo" | "video/x-flv" | "vp8enc" | "vp8dec" | "vp9enc" | "webmmux" | "avimux"
        | "qtmux" | "mp4mux" | "jpegenc" | "matroskamux" | "matroskademux" | "qtdemux" | "avidemux" => GOOD,
        "video/mpegts" | "video/x-av1" | "h264parse" | "h265parse" | "mpegvideoparse" | "openh264enc" => BAD,
        "video/x-ms-asf" | "application/vnd.rn-realmedia" | "video/x-pn-realvideo" | "x264enc" => UGLY,
        "appsrc" | "appsink" | "decodebin" | "parsebin" | "videoconvert" | "theoraenc" | "oggmux" => {
            "gstreamer1.0-plugins-base"
        }
        "filesrc" | "filesink" | "typefind" => "libgstreamer1.0-0",
        _ => LIBAV,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_codec_that_a_demuxer_does_not_know_is_named() {
        initialise().unwrap();
        let message = |caps: &str| {
            let caps: gst::Caps = caps.parse().unwrap();
            let structure = gst::Structure::builder("missing-plugin")
                .field("name", "some decoder")
                .field("detail", caps)
                .build();
            missing_plugin(&structure, Path::new("clip.avi")).to_string()
        };
        assert!(message("video/x-avi-unknown, fourcc=(int)811158613").contains("UT Video (\"ULY0\")"));
        let magic = "video/x-unknown, codec-id=(string)V_MS/VFW/FOURCC, fourcc=(string)M8Y0";
        assert!(message(magic).contains("MagicYUV"));
        assert!(message("video/x-gst-fourcc-AVdh, width=(int)256").contains("DNxHR"));
        assert!(message("video/x-unknown, codec-id=(string)V_OTHER").contains("V_OTHER"));
        for caps in ["video/x-gst-fourcc-v410", "video/x-nothing-known"] {
            let message = message(caps);
            assert!(!message.contains("install") && message.contains("ffmpeg -i"), "{message}");
        }
    }

    #[test]
    fn a_missing_element_names_its_package() {
        let error = element("rsvgnothing", Path::new("clip.mp4")).unwrap_err().to_string();
        assert!(error.contains("rsvgnothing") && error.contains("gstreamer1.0-libav"), "{error}");
    }
}
