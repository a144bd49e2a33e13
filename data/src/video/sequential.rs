//! Decoding from the first frame on, counting: right for every file, however odd its timestamps.

use super::convert::{Rgb, ToRgb};
use super::{Frames, Running, arrange, pipeline, start};
use crate::error::{Error, Result};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Decoded frames that one clip may keep in memory while its length is not known yet. A ten-second clip of MSR-VTT has a
/// third of this; a longer one is decoded twice instead.
const KEPT_BYTES: usize = 96 << 20;

/// The chosen frames: decoded once where all frames fit in [`KEPT_BYTES`], else once to count them and once more, up to
/// the last chosen one. Only chosen frames are converted.
pub(super) fn decode(path: &Path, choose: &dyn Fn(usize) -> Vec<usize>) -> Result<Frames> {
    let mut reader = Reader::open(path, Wanted::All)?;
    let mut kept = Vec::new();
    let mut bytes = 0;
    while let Some(sample) = reader.next()? {
        bytes += sample.buffer().map_or(0, gst::BufferRef::size);
        if bytes <= KEPT_BYTES {
            kept.push(sample);
        } else {
            kept = Vec::new();
            reader.only_count.store(true, Ordering::Relaxed);
        }
    }
    let total = reader.seen();
    if total == 0 {
        return Err(reader.nothing(path));
    }
    let indices = choose(total);
    let mut wanted = indices.clone();
    wanted.dedup();
    if kept.len() < total {
        drop(reader);
        return arrange(path, &indices, &collect(path, &wanted)?);
    }
    let orientation = reader.running.orientation();
    let mut to_rgb = ToRgb::default();
    let convert = |&index: &usize| {
        let sample = kept.get(index).ok_or_else(|| Error::video(path, format!("has no frame {index}")))?;
        Ok((index, to_rgb.convert(path, sample)?.turned(orientation)))
    };
    let frames: Vec<(usize, Rgb)> = wanted.iter().map(convert).collect::<Result<_>>()?;
    arrange(path, &indices, &frames)
}

/// The wanted frames, which are in ascending order, as RGB.
fn collect(path: &Path, wanted: &[usize]) -> Result<Vec<(usize, Rgb)>> {
    let mut reader = Reader::open(path, Wanted::These(wanted.to_vec()))?;
    let mut to_rgb = ToRgb::default();
    let mut frames = Vec::with_capacity(wanted.len());
    for &index in wanted {
        let Some(sample) = reader.next()? else { break };
        frames.push((index, to_rgb.convert(path, &sample)?));
    }
    let orientation = reader.running.orientation();
    Ok(frames.into_iter().map(|(index, rgb)| (index, rgb.turned(orientation))).collect())
}

/// Which frames come out of a reader.
enum Wanted {
    All,
    These(Vec<usize>),
}

/// `filesrc ! decodebin ! appsink`, of which only the wanted frames come out.
struct Reader {
    running: Running,
    sink: gst_app::AppSink,
    seen: Arc<AtomicUsize>,
    only_count: Arc<AtomicBool>,
    linked: Arc<AtomicBool>,
}

impl Reader {
    fn open(path: &Path, wanted: Wanted) -> Result<Self> {
        let source = pipeline::element("filesrc", path)?;
        source.set_property("location", path);
        let decodebin = pipeline::element("decodebin", path)?;
        expose_undecoded_sound(&decodebin);
        let sink = raw_sink();
        let seen = Arc::new(AtomicUsize::new(0));
        let only_count = Arc::new(AtomicBool::new(false));
        count_and_drop(&sink, Arc::clone(&seen), Arc::clone(&only_count), wanted);
        let mut running = start(path, &[&source, &decodebin, sink.upcast_ref()])?;
        source.link(&decodebin).map_err(|error| Error::video(path, error.to_string()))?;
        let linked = link_first_video(&decodebin, &sink);
        one_thread_each(&running.pipeline);
        let played = running.play();
        let reader = Self { running, sink, seen, only_count, linked };
        played.map(|()| reader)
    }

    fn next(&mut self) -> Result<Option<gst::Sample>> {
        let seen = &self.seen;
        let next = self.running.next(&self.sink, || seen.load(Ordering::Relaxed));
        match next {
            // A demuxer none of whose streams anybody takes stops with this: the file has no video stream.
            Err(Error::Video { reason, path, .. })
                if reason.contains("not-linked") && !self.linked.load(Ordering::Relaxed) =>
            {
                Err(self.nothing(&path))
            }
            next => next,
        }
    }

    /// Frames decoded so far, kept or not.
    fn seen(&self) -> usize {
        self.seen.load(Ordering::Relaxed)
    }

    /// Why there is not a single frame.
    fn nothing(&mut self, path: &Path) -> Error {
        if let Some(missing) = self.running.take_missing() {
            return missing;
        }
        let found = if self.linked.load(Ordering::Relaxed) {
            "a video stream without frames"
        } else {
            "no video stream"
        };
        Error::video(path, format!("the file holds {found}"))
    }
}

/// A sink that takes frames in the decoder's own format: converting every frame is what makes naive readers slow.
fn raw_sink() -> gst_app::AppSink {
    let sink = gst_app::AppSink::builder()
        .sync(false)
        .max_buffers(4)
        .caps(&gst::Caps::new_empty_simple("video/x-raw"))
        .build();
    sink.set_qos(false); // late frames would be left out by the decoder
    sink.set_enable_last_sample(false);
    sink
}

/// Counts frames where they reach the sink and lets only the wanted ones in.
fn count_and_drop(
    sink: &gst_app::AppSink,
    seen: Arc<AtomicUsize>,
    only_count: Arc<AtomicBool>,
    wanted: Wanted,
) {
    let Some(pad) = sink.static_pad("sink") else { return };
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let index = seen.fetch_add(1, Ordering::Relaxed);
        let is_wanted = match &wanted {
            Wanted::All => !only_count.load(Ordering::Relaxed),
            Wanted::These(indices) => indices.binary_search(&index).is_ok(),
        };
        if is_wanted {
            gst::PadProbeReturn::Ok
        } else {
            // `Drop` makes GStreamer 1.22 complain about each buffer; `Handled` drops it in silence.
            gst::PadProbeReturn::Handled
        }
    });
}

/// Keeps decodebin from decoding sound and subtitles, which nobody hears here.
fn expose_undecoded_sound(decodebin: &gst::Element) {
    decodebin.connect("autoplug-continue", false, |values| {
        let name = values
            .get(2)
            .and_then(|value| value.get::<gst::Caps>().ok())
            .and_then(|caps| caps.structure(0).map(|caps| caps.name().to_string()))
            .unwrap_or_default();
        Some((!["audio/", "text/", "subpicture/"].iter().any(|kind| name.starts_with(kind))).to_value())
    });
}

/// Links the first video stream that appears; the rest stays unlinked, which demuxers bear.
fn link_first_video(decodebin: &gst::Element, sink: &gst_app::AppSink) -> Arc<AtomicBool> {
    let linked = Arc::new(AtomicBool::new(false));
    let (sink, done) = (sink.downgrade(), Arc::clone(&linked));
    decodebin.connect_pad_added(move |_, pad| {
        let is_video = pad
            .current_caps()
            .or_else(|| Some(pad.query_caps(None)))
            .and_then(|caps| caps.structure(0).map(|caps| caps.name().starts_with("video/x-raw")))
            .unwrap_or(false);
        if is_video
            && !done.load(Ordering::Relaxed)
            && let Some(to) = sink.upgrade().and_then(|sink| sink.static_pad("sink"))
            && pad.link(&to).is_ok()
        {
            done.store(true, Ordering::Relaxed);
        }
    });
    linked
}

/// One thread a decoder: clips are decoded side by side, one a core, which beats any number of threads within one.
fn one_thread_each(pipeline: &gst::Pipeline) {
    pipeline.connect_deep_element_added(|_, _, element| {
        if element.has_property("max-threads") {
            element.set_property("max-threads", 1i32);
        }
    });
}
