//! Decodes a file from its first frame and counts frames: correct for every file, whatever its timestamps.

use super::colour::{self, Stated};
use super::convert::{Orientation, Rgb, ToRgb};
use super::decodebin::{self, Shown};
use super::edits::{self, Edit};
use super::libav::{Naming, Threads, Watch};
use super::{Frames, Running, Target, arrange, limits, pipeline, start};
use crate::error::{Error, Result};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Decoded bytes that a clip may keep in memory while its length is unknown. A ten-second clip of MSR-VTT has
/// a third of this; longer clips are decoded twice instead.
const KEPT_BYTES: usize = 96 << 20;

/// The chosen frames. If all frames fit in [`KEPT_BYTES`], the file is decoded once; otherwise once to count
/// frames and once more up to the last chosen frame. Only chosen frames are converted.
pub(super) fn decode(path: &Path, target: Target, choose: &dyn Fn(usize) -> Vec<usize>) -> Result<Frames> {
    attempt(path, |threads, watch| decode_once(path, target, choose, threads, watch))
}

/// Runs `read` with one decoding thread, and again with two where the decoder lost pictures after a gap in
/// the frame numbers. A failure for want of a pixel format is repeated in order to name it.
fn attempt<T>(path: &Path, read: impl Fn(Threads, &Arc<Watch>) -> Result<T>) -> Result<T> {
    let watch = Arc::default();
    let mut result = read(Threads::One, &watch);
    if watch.has_gap() {
        result = read(Threads::TwoOfPictures, &Arc::default());
    }
    match result {
        Err(_) if watch.has_unknown_format() => {
            let naming = Naming::new();
            let watch = Arc::new(Watch::naming(&naming));
            let mut reader = Reader::open(path, Wanted::These(Vec::new()), Threads::One, &watch)?;
            reader.next().and(result)
        }
        result => result,
    }
}

fn decode_once(
    path: &Path,
    target: Target,
    choose: &dyn Fn(usize) -> Vec<usize>,
    threads: Threads,
    watch: &Arc<Watch>,
) -> Result<Frames> {
    let mut reader = Reader::open(path, Wanted::All, threads, watch)?;
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
        return Err(reader.no_frames(path));
    }
    let indices = choose(total);
    let mut wanted = indices.clone();
    wanted.dedup();
    if kept.len() < total {
        drop(reader);
        let frames = collect(path, target, &wanted, threads, watch)?;
        return arrange(path, &indices, &frames, target.resizing);
    }
    let orientation = reader.running.orientation();
    let mut to_rgb = ToRgb::new(target);
    let convert = |&index: &usize| {
        let sample = kept.get(index).ok_or_else(|| Error::video(path, format!("has no frame {index}")))?;
        Ok((index, to_rgb.convert(path, sample, orientation)?))
    };
    let frames: Vec<(usize, Rgb)> = wanted.iter().map(convert).collect::<Result<_>>()?;
    arrange(path, &indices, &frames, target.resizing)
}

/// The wanted frames as RGB; `wanted` is in ascending order.
fn collect(
    path: &Path,
    target: Target,
    wanted: &[usize],
    threads: Threads,
    watch: &Arc<Watch>,
) -> Result<Vec<(usize, Rgb)>> {
    let mut reader = Reader::open(path, Wanted::These(wanted.to_vec()), threads, watch)?;
    let mut to_rgb = ToRgb::new(target);
    let mut frames = Vec::with_capacity(wanted.len());
    for &index in wanted {
        let Some(sample) = reader.next()? else { break };
        let orientation = reader.running.orientation();
        frames.push((index, to_rgb.convert(path, &sample, orientation)?));
    }
    Ok(frames)
}

/// The planes of the wanted frames in the decoder's format, rows without padding.
#[cfg(test)]
pub(super) fn native_frames(path: &Path, wanted: &[usize]) -> Result<Vec<(usize, Vec<Vec<u8>>)>> {
    attempt(path, |threads, watch| native_frames_once(path, wanted, threads, watch))
}

#[cfg(test)]
fn native_frames_once(
    path: &Path,
    wanted: &[usize],
    threads: Threads,
    watch: &Arc<Watch>,
) -> Result<Vec<(usize, Vec<Vec<u8>>)>> {
    use gstreamer_video::{self as gst_video, prelude::*};
    let mut reader = Reader::open(path, Wanted::These(wanted.to_vec()), threads, watch)?;
    let mut frames = Vec::new();
    for &index in wanted {
        let Some(sample) = reader.next()? else { break };
        let info = gst_video::VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
        let frame =
            gst_video::VideoFrameRef::from_buffer_ref_readable(sample.buffer().unwrap(), &info).unwrap();
        let planes = (0..frame.n_planes())
            .map(|plane| {
                let component =
                    (0..info.n_components()).find(|&c| info.comp_plane(c as u8) == plane).unwrap();
                let row =
                    info.comp_width(component as u8) as usize * info.comp_pstride(component as u8) as usize;
                let rows = info.comp_height(component as u8) as usize;
                let stride = frame.plane_stride()[plane as usize] as usize;
                let data = frame.plane_data(plane).unwrap();
                data.chunks(stride).take(rows).flat_map(|line| line[..row].to_vec()).collect()
            })
            .collect();
        frames.push((index, planes));
    }
    Ok(frames)
}

/// The result of decoding a file completely.
#[derive(Debug, Default)]
pub(crate) struct Examined {
    /// Caps of the encoded stream.
    pub(crate) encoded: Option<gst::Caps>,
    /// Caps of the decoded frames.
    pub(crate) raw: Option<gst::Caps>,
    pub(crate) orientation: Orientation,
    pub(crate) frames: usize,
    pub(crate) duration: Option<gst::ClockTime>,
    /// Why decoding ended early.
    pub(crate) failure: Option<Error>,
    /// Warnings about damage that the decoder skipped.
    pub(crate) warnings: pipeline::Warnings,
    /// The transfer function of pictures of high dynamic range.
    pub(crate) high_dynamic_range: Option<&'static str>,
}

/// Decodes a file to its end without keeping frames; fails after `patience` without a new frame.
pub(crate) fn examine(path: &Path, patience: Duration) -> Examined {
    // What was found is returned together with the failure.
    let mut found = Examined::default();
    let last = std::cell::RefCell::new(&mut found);
    let result = attempt(path, |threads, watch| {
        let mut examined = examine_once(path, patience, threads, watch);
        let failure = examined.failure.take();
        **last.borrow_mut() = examined;
        failure.map_or(Ok(()), Err)
    });
    found.failure = result.err();
    found
}

fn examine_once(path: &Path, patience: Duration, threads: Threads, watch: &Arc<Watch>) -> Examined {
    let mut reader = match Reader::open(path, Wanted::These(vec![0]), threads, watch) {
        Ok(reader) => reader,
        Err(failure) => return Examined { failure: Some(failure), ..Examined::default() },
    };
    reader.running.patience = patience;
    // A picture that cannot be converted cannot be used either.
    let mut converted = Ok(());
    let ended = reader.next().and_then(|first| match first {
        Some(first) => {
            let own_size = Target { size: None, resizing: super::Resizing::Blip };
            converted = ToRgb::new(own_size).convert(path, &first, Orientation::Upright).map(|_| ());
            reader.next()
        }
        None => Ok(None),
    });
    let frames = reader.seen();
    let encoded = reader.stated.encoded.lock().ok().and_then(|caps| caps.clone());
    let raw = reader.sink.static_pad("sink").and_then(|pad| pad.current_caps());
    Examined {
        high_dynamic_range: raw.as_deref().and_then(colour::high_dynamic_range),
        encoded,
        raw,
        orientation: reader.running.orientation(),
        frames,
        duration: match &reader.edit {
            Some(edit) => Some(edit.movie),
            None => reader.running.pipeline.query_duration::<gst::ClockTime>(),
        },
        warnings: reader.running.warnings(),
        failure: match ended {
            Ok(_) if frames == 0 => Some(reader.no_frames(path)),
            Ok(_) => converted.err(),
            Err(failure) => Some(failure),
        },
    }
}

/// The frames that a reader returns.
enum Wanted {
    All,
    These(Vec<usize>),
}

/// The pipeline `filesrc ! decodebin ! appsink`, which returns only the wanted frames.
struct Reader {
    running: Running,
    /// The edit by which frames are chosen here, and not by the demuxer.
    edit: Option<Edit>,
    /// In place of `filesrc`, where there is an edit. A link does not keep its other end alive.
    _source: Option<gst::Pad>,
    sink: gst_app::AppSink,
    seen: Arc<AtomicUsize>,
    only_count: Arc<AtomicBool>,
    linked: Arc<AtomicBool>,
    stated: Arc<Stated>,
}

impl Reader {
    fn open(path: &Path, wanted: Wanted, threads: Threads, watch: &Arc<Watch>) -> Result<Self> {
        let bin = pipeline::element("decodebin", path)?;
        let mut file = File::open(path).map_err(Error::io("open the video", path))?;
        let in_container = edits::states_colours(&mut file);
        let stated = Arc::new(Stated { in_container, ..Stated::default() });
        decodebin::expose_undecoded_sound(&bin, Arc::clone(&stated));
        let sink = raw_sink();
        let seen = Arc::new(AtomicUsize::new(0));
        let only_count = Arc::new(AtomicBool::new(false));
        let mut running = start(path, &[&bin, sink.upcast_ref()])?;
        running.watch = Arc::clone(watch);
        running.stop_at_gap = threads == Threads::One;
        let (source, edit) = decodebin::feed(path, &running.pipeline, &bin, file)?;
        let shown = edit.clone().map(|edit| Shown { edit, start: Arc::default() });
        count_and_drop(&sink, Arc::clone(&seen), Arc::clone(&only_count), wanted, shown.clone());
        if let Some(pad) = sink.static_pad("sink") {
            colour::correct(&pad, Arc::clone(&stated));
            decodebin::avoid_equal_rows(&pad);
        }
        let linked = decodebin::link_first_video(&bin, &sink);
        decodebin::skip_elements(&bin);
        decodebin::prepare_elements(&running.pipeline, threads, watch, shown, &stated);
        let played = running.play();
        let reader = Self { running, edit, _source: source, sink, seen, only_count, linked, stated };
        played.map(|()| reader)
    }

    fn next(&mut self) -> Result<Option<gst::Sample>> {
        let seen = &self.seen;
        let next = self.running.next(&self.sink, || seen.load(Ordering::Relaxed));
        match next {
            // A demuxer without a linked stream fails with this: the file has no video stream.
            Err(Error::Video { reason, path, .. })
                if reason.contains("not-linked") && !self.linked.load(Ordering::Relaxed) =>
            {
                Err(self.no_frames(&path))
            }
            next => next,
        }
    }

    /// Number of frames decoded so far.
    fn seen(&self) -> usize {
        self.seen.load(Ordering::Relaxed)
    }

    /// Why the file has no frames.
    fn no_frames(&mut self, path: &Path) -> Error {
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

/// A sink for frames in the decoder's format: converting every frame would be slow.
pub(super) fn raw_sink() -> gst_app::AppSink {
    let sink = gst_app::AppSink::builder()
        .sync(false)
        .max_buffers(4)
        .caps(&gst::Caps::new_empty_simple("video/x-raw"))
        .build();
    sink.set_drop_out_of_segment(false); // the decoder has dropped them already
    sink.set_qos(false); // otherwise the decoder skips late frames
    sink.set_enable_last_sample(false);
    sink
}

/// Stops a stream whose pictures are larger than the limit.
pub(super) fn refuse_huge(pad: &gst::Pad) {
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |pad, info| {
        let Some(event) = info.event() else { return gst::PadProbeReturn::Ok };
        let gst::EventView::Caps(caps) = event.view() else { return gst::PadProbeReturn::Ok };
        let side = |name| caps.caps().structure(0).and_then(|s| s.get::<i32>(name).ok()).unwrap_or(0);
        let (width, height) = (side("width"), side("height"));
        let most = limits::limits().pixels.get();
        if u64::from(width.unsigned_abs()) * u64::from(height.unsigned_abs()) <= most {
            return gst::PadProbeReturn::Ok;
        }
        let reason = format!("its pictures are {width} x {height}, more than {most} pixels (--clip-pixels)");
        pipeline::refuse(pad, &reason);
        gst::PadProbeReturn::Handled
    });
}

/// Whether a frame was decoded from missing references, or only for the sake of others.
pub(super) fn is_unusable(frame: &gst::BufferRef) -> bool {
    frame.flags().intersects(gst::BufferFlags::CORRUPTED | gst::BufferFlags::DECODE_ONLY)
}

/// Counts frames at the sink and drops all but the wanted ones.
fn count_and_drop(
    sink: &gst_app::AppSink,
    seen: Arc<AtomicUsize>,
    only_count: Arc<AtomicBool>,
    wanted: Wanted,
    shown: Option<Shown>,
) {
    let Some(pad) = sink.static_pad("sink") else { return };
    refuse_huge(&pad);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(frame) = info.buffer()
            && (is_unusable(frame) || shown.as_ref().is_some_and(|shown| !shown.contains(frame)))
        {
            return gst::PadProbeReturn::Handled;
        }
        let index = seen.fetch_add(1, Ordering::Relaxed);
        limits::note_progress();
        let is_wanted = match &wanted {
            Wanted::All => !only_count.load(Ordering::Relaxed),
            Wanted::These(indices) => indices.binary_search(&index).is_ok(),
        };
        if is_wanted {
            gst::PadProbeReturn::Ok
        } else {
            // `Drop` makes GStreamer 1.22 warn about each buffer; `Handled` drops it without a warning.
            gst::PadProbeReturn::Handled
        }
    });
}
