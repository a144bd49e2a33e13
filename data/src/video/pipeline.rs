//! What every GStreamer pipeline here needs: starting it, hearing its errors, noticing that it stands still,
//! and stopping it on every path.

use super::convert::Orientation;
use crate::error::{Error, Result};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long decoding may go on without a new frame before it is given up. Some damaged files make GStreamer
/// wait for ever without a word; healthy files on a busy machine stay under this.
pub const STALL_LIMIT: Duration = Duration::from_secs(6);

/// How often we look at the bus while no frame comes.
const POLL: gst::ClockTime = gst::ClockTime::from_mseconds(20);

/// A pipeline that is stopped when it goes out of scope.
pub(crate) struct Running {
    pub(crate) pipeline: gst::Pipeline,
    /// Give up after this long without progress.
    pub(crate) patience: Duration,
    path: PathBuf,
    orientation: Orientation,
    missing: Option<Error>,
    failure: Option<Error>,
    complaints: Complaints,
}

/// What a decoder had to say about damage that it got over.
#[derive(Clone, Debug, Default)]
pub(crate) struct Complaints {
    /// How often it did.
    pub(crate) count: usize,
    /// Its first sentence.
    pub(crate) first: Option<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // A pipeline that refuses to stop is left to GStreamer: there is nobody to report it to.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// Starts GStreamer itself, once per process.
pub(crate) fn initialise() -> Result<()> {
    static STARTED: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let start = || {
        keep_freed_memory();
        gst::init().map_err(|error| error.to_string())
    };
    STARTED.get_or_init(start).clone().map_err(|reason| Error::MissingPlugin {
        needed: format!("its own core ({reason})"),
        package: "gstreamer1.0-plugins-base".into(),
        path: None,
    })
}

/// Has the C library keep what one clip's decoder frees for the next one's. It would give frames back to the
/// system and ask for them again, page by page, which takes a twentieth of a clip's time. Each thread may keep
/// 32 MiB; pictures of more than 4 MiB are given back as before.
fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code)]
    // SAFETY: the C library takes its own lock; any value is valid, and a refused one changes nothing.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 4 << 20);
    }
}

/// Makes an element, or names the package that has it.
pub(crate) fn element(factory: &'static str, path: &Path) -> Result<gst::Element> {
    initialise()?;
    gst::ElementFactory::make(factory).build().map_err(|_| missing_element(factory, path))
}

/// Checks that an element is installed, or names the package that has it.
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

/// The encoders among `names` that are installed; tests and `doctor` ask.
///
/// # Errors
/// GStreamer itself does not start.
pub fn available_encoders<'a>(names: &[&'a str]) -> Result<Vec<&'a str>> {
    initialise()?;
    Ok(names.iter().copied().filter(|name| gst::ElementFactory::find(name).is_some()).collect())
}

/// Puts elements into a running pipeline.
pub(crate) fn start(path: &Path, elements: &[&gst::Element]) -> Result<Running> {
    let pipeline = gst::Pipeline::new();
    pipeline.add_many(elements.iter().copied()).map_err(|error| Error::video(path, error.to_string()))?;
    Ok(Running {
        pipeline,
        patience: STALL_LIMIT,
        path: path.to_path_buf(),
        orientation: Orientation::Upright,
        missing: None,
        failure: None,
        complaints: Complaints::default(),
    })
}

impl Running {
    /// Sets it going. A refusal is explained by the bus, so we only read that.
    pub(crate) fn play(&mut self) -> Result<()> {
        if self.pipeline.set_state(gst::State::Playing).is_err() {
            self.listen();
            return Err(self.take_failure().unwrap_or_else(|| {
                Error::video(&self.path, "GStreamer refused to start and gave no reason")
            }));
        }
        Ok(())
    }

    /// The next sample, `None` at the end of the stream.
    ///
    /// # Errors
    /// What the bus says, or [`Error::Stalled`] after `patience` without a sample or any `progress`.
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
            self.listen();
            if let Some(failure) = self.take_failure() {
                return Err(failure);
            }
            if sink.is_eos() {
                return Ok(None);
            }
            self.check_progress(&mut since, progress())?;
        }
    }

    /// Waits for the end of a stream whose samples are taken or written by somebody else.
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
                self.hear(&message);
            }
            if let Some(failure) = self.take_failure() {
                return Err(failure);
            }
            self.check_progress(&mut since, progress())?;
        }
    }

    /// Gives up where nothing was done for as long as `patience`, `since` being when how much was done.
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

    /// How the stream asks to be turned; known once frames came.
    pub(crate) fn orientation(&mut self) -> Orientation {
        self.listen();
        self.orientation
    }

    /// What the decoder said about damage so far.
    pub(crate) fn complaints(&mut self) -> Complaints {
        self.listen();
        self.complaints.clone()
    }

    /// Reads everything on the bus.
    fn listen(&mut self) {
        let Some(bus) = self.pipeline.bus() else { return };
        while let Some(message) = bus.pop() {
            self.hear(&message);
        }
    }

    fn hear(&mut self, message: &gst::Message) {
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
                self.complaints.count += 1;
                let sentence = warning.error().to_string();
                self.complaints.first.get_or_insert(sentence.trim_end_matches('.').to_string());
            }
            gst::MessageView::Error(error) => {
                let reason = reason(error);
                self.failure.get_or_insert_with(|| Error::video(&self.path, reason));
            }
            _ => {}
        }
    }

    /// The first error; a missing plug-in explains those that follow from it.
    fn take_failure(&mut self) -> Option<Error> {
        let failure = self.failure.take()?;
        Some(self.missing.take().unwrap_or(failure))
    }

    /// The missing plug-in, where the stream ended for want of one without an error.
    pub(crate) fn take_missing(&mut self) -> Option<Error> {
        self.listen();
        self.missing.take()
    }
}

/// GStreamer's sentence, with the part of its debug text that says more than the source line.
fn reason(error: &gst::message::Error) -> String {
    let sentence = error.error().to_string();
    let detail = error.debug().and_then(|debug| {
        let detail = debug.rsplit('\n').next().unwrap_or_default().trim().to_string();
        (!detail.is_empty() && !detail.contains(".c(")).then_some(detail)
    });
    let sentence = sentence.trim_end_matches('.');
    match detail {
        Some(detail) => format!("{sentence} ({})", detail.trim_end_matches('.')),
        None => sentence.to_string(),
    }
}

fn missing_plugin(structure: &gst::StructureRef, path: &Path) -> Error {
    let name = structure.get::<&str>("name").unwrap_or("an unnamed format");
    let detail = structure
        .get::<gst::Caps>("detail")
        .ok()
        .and_then(|caps| caps.structure(0).map(|caps| caps.name().to_string()))
        .or_else(|| structure.get::<&str>("detail").ok().map(str::to_string))
        .unwrap_or_default();
    Error::MissingPlugin {
        needed: format!("{name} ({detail})"),
        package: package_of(&detail).into(),
        path: Some(path.to_path_buf()),
    }
}

/// The Debian and Ubuntu package with an element, or with what handles a media type.
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
    fn a_missing_element_names_its_package() {
        let error = element("rsvgnothing", Path::new("clip.mp4")).unwrap_err().to_string();
        assert!(error.contains("rsvgnothing") && error.contains("gstreamer1.0-libav"), "{error}");
    }
}
