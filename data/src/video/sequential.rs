//! Decoding from the first frame on, counting: right for every file, however odd its timestamps.

use super::convert::{Orientation, Rgb, ToRgb};
use super::{Frames, Running, arrange, pipeline, start};
use crate::error::{Error, Result};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Decoded frames that one clip may keep in memory while its length is not known yet. A ten-second clip of
/// MSR-VTT has a third of this; a longer one is decoded twice instead.
const KEPT_BYTES: usize = 96 << 20;

/// The chosen frames: decoded once where all frames fit in [`KEPT_BYTES`], else once to count them and once
/// more, up to the last chosen one. Only chosen frames are converted.
pub(super) fn decode(path: &Path, size: Option<u32>, choose: &dyn Fn(usize) -> Vec<usize>) -> Result<Frames> {
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
        return arrange(path, &indices, &collect(path, size, &wanted)?);
    }
    let orientation = reader.running.orientation();
    let mut to_rgb = ToRgb::new(size);
    let convert = |&index: &usize| {
        let sample = kept.get(index).ok_or_else(|| Error::video(path, format!("has no frame {index}")))?;
        Ok((index, to_rgb.convert(path, sample, orientation)?))
    };
    let frames: Vec<(usize, Rgb)> = wanted.iter().map(convert).collect::<Result<_>>()?;
    arrange(path, &indices, &frames)
}

/// The wanted frames, which are in ascending order, as RGB.
fn collect(path: &Path, size: Option<u32>, wanted: &[usize]) -> Result<Vec<(usize, Rgb)>> {
    let mut reader = Reader::open(path, Wanted::These(wanted.to_vec()))?;
    let mut to_rgb = ToRgb::new(size);
    let mut frames = Vec::with_capacity(wanted.len());
    for &index in wanted {
        let Some(sample) = reader.next()? else { break };
        let orientation = reader.running.orientation();
        frames.push((index, to_rgb.convert(path, &sample, orientation)?));
    }
    Ok(frames)
}

/// The planes of the wanted frames as the decoder gives them, rows without padding.
#[cfg(test)]
pub(super) fn native_frames(path: &Path, wanted: &[usize]) -> Result<Vec<(usize, Vec<Vec<u8>>)>> {
    use gstreamer_video::{self as gst_video, prelude::*};
    let mut reader = Reader::open(path, Wanted::These(wanted.to_vec()))?;
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

/// What decoding a whole file tells about it.
#[derive(Debug, Default)]
pub(crate) struct Examined {
    /// The codec's caps.
    pub(crate) encoded: Option<gst::Caps>,
    /// The decoded frames' caps.
    pub(crate) raw: Option<gst::Caps>,
    pub(crate) orientation: Orientation,
    pub(crate) frames: usize,
    pub(crate) duration: Option<gst::ClockTime>,
    /// What ended decoding before the file's end.
    pub(crate) failure: Option<Error>,
    /// Damage that the decoder got over.
    pub(crate) complaints: pipeline::Complaints,
}

/// Decodes a file to its end without keeping a frame; gives up after `patience` without a new one.
pub(crate) fn examine(path: &Path, patience: Duration) -> Examined {
    let mut reader = match Reader::open(path, Wanted::These(Vec::new())) {
        Ok(reader) => reader,
        Err(failure) => return Examined { failure: Some(failure), ..Examined::default() },
    };
    reader.running.patience = patience;
    let ended = reader.next();
    let frames = reader.seen();
    Examined {
        encoded: reader.encoded.lock().ok().and_then(|caps| caps.clone()),
        raw: reader.sink.static_pad("sink").and_then(|pad| pad.current_caps()),
        orientation: reader.running.orientation(),
        frames,
        duration: reader.running.pipeline.query_duration::<gst::ClockTime>(),
        complaints: reader.running.complaints(),
        failure: match ended {
            Ok(_) if frames == 0 => Some(reader.nothing(path)),
            Ok(_) => None,
            Err(failure) => Some(failure),
        },
    }
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
    encoded: Arc<Mutex<Option<gst::Caps>>>,
}

impl Reader {
    fn open(path: &Path, wanted: Wanted) -> Result<Self> {
        let source = pipeline::element("filesrc", path)?;
        source.set_property("location", path);
        let decodebin = pipeline::element("decodebin", path)?;
        let encoded = Arc::new(Mutex::new(None));
        expose_undecoded_sound(&decodebin, Arc::clone(&encoded));
        let sink = raw_sink();
        let seen = Arc::new(AtomicUsize::new(0));
        let only_count = Arc::new(AtomicBool::new(false));
        count_and_drop(&sink, Arc::clone(&seen), Arc::clone(&only_count), wanted);
        let mut running = start(path, &[&source, &decodebin, sink.upcast_ref()])?;
        source.link(&decodebin).map_err(|error| Error::video(path, error.to_string()))?;
        let linked = link_first_video(&decodebin, &sink);
        skip_needless_parser(&decodebin);
        prepare_elements(&running.pipeline);
        let played = running.play();
        let reader = Self { running, sink, seen, only_count, linked, encoded };
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

/// A sink that takes frames in the decoder's own format: converting every frame is what makes naive readers
/// slow.
pub(super) fn raw_sink() -> gst_app::AppSink {
    let sink = gst_app::AppSink::builder()
        .sync(false)
        .max_buffers(4)
        .caps(&gst::Caps::new_empty_simple("video/x-raw"))
        .build();
    sink.set_drop_out_of_segment(false); // the decoder has dropped what is to be dropped
    sink.set_qos(false); // late frames would be left out by the decoder
    sink.set_enable_last_sample(false);
    sink
}

/// Pixels of the largest picture that is decoded, 8K video's. A damaged header can ask for pictures that no
/// machine can hold, and a decoder keeps a dozen of them.
const MOST_PIXELS: i64 = 8192 * 4320;

/// Stops a stream whose pictures are larger than [`MOST_PIXELS`].
pub(super) fn refuse_huge(pad: &gst::Pad) {
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |pad, info| {
        let Some(event) = info.event() else { return gst::PadProbeReturn::Ok };
        let gst::EventView::Caps(caps) = event.view() else { return gst::PadProbeReturn::Ok };
        let side = |name| caps.caps().structure(0).and_then(|s| s.get::<i32>(name).ok()).unwrap_or(0);
        let (width, height) = (side("width"), side("height"));
        if i64::from(width) * i64::from(height) <= MOST_PIXELS {
            return gst::PadProbeReturn::Ok;
        }
        if let Some(element) = pad.parent_element() {
            let reason = format!("its pictures are {width} x {height}, more than {MOST_PIXELS} pixels");
            element.post_error_message(gst::ErrorMessage::new(
                &gst::StreamError::WrongType,
                Some(&reason),
                None,
                file!(),
                "refuse_huge",
                line!(),
            ));
        }
        gst::PadProbeReturn::Handled
    });
}

/// Counts frames where they reach the sink and lets only the wanted ones in.
fn count_and_drop(
    sink: &gst_app::AppSink,
    seen: Arc<AtomicUsize>,
    only_count: Arc<AtomicBool>,
    wanted: Wanted,
) {
    let Some(pad) = sink.static_pad("sink") else { return };
    refuse_huge(&pad);
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

/// Keeps decodebin from decoding sound and subtitles, which nobody hears here, and notes the last video
/// format that it had to take apart: the codec's.
fn expose_undecoded_sound(decodebin: &gst::Element, encoded: Arc<Mutex<Option<gst::Caps>>>) {
    decodebin.connect("autoplug-continue", false, move |values| {
        let caps = values.get(2).and_then(|value| value.get::<gst::Caps>().ok());
        let name = caps
            .as_ref()
            .and_then(|caps| caps.structure(0))
            .map_or("", |structure| structure.name().as_str());
        let decode = !["audio/", "text/", "subpicture/"].iter().any(|kind| name.starts_with(kind));
        if ["video/", "image/"].iter().any(|kind| name.starts_with(kind))
            && let Ok(mut encoded) = encoded.lock()
        {
            encoded.clone_from(&caps);
        }
        Some(decode.to_value())
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

/// Sets up whatever decodebin adds. One thread a decoder: clips are decoded side by side, one a core, which
/// beats any number of threads within one.
fn prepare_elements(pipeline: &gst::Pipeline) {
    pipeline.connect_deep_element_added(|_, _, element| {
        if element.has_property("max-threads") {
            element.set_property("max-threads", 1i32);
        }
        let class = element.metadata("klass").unwrap_or_default();
        if class.contains("Decoder")
            && let Some(pad) = element.static_pad("sink")
        {
            open_segment_end(&pad);
        }
    });
}

/// Takes the end off the segments that reach a pad. Many files' headers end before their last frames, which
/// FFmpeg, and so every other reader, shows nevertheless.
fn open_segment_end(pad: &gst::Pad) {
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |_, info| {
        let Some(event) = info.event() else { return gst::PadProbeReturn::Ok };
        let gst::EventView::Segment(segment) = event.view() else { return gst::PadProbeReturn::Ok };
        let mut open = segment.segment().clone();
        if let Some(open) = open.downcast_mut::<gst::ClockTime>() {
            open.set_stop(gst::ClockTime::NONE);
        }
        let event = gst::event::Segment::builder(&open).seqnum(event.seqnum()).build();
        info.data = Some(gst::PadProbeData::Event(event));
        gst::PadProbeReturn::Ok
    });
}

/// Has decodebin leave out the MPEG-4 parser for streams that a demuxer has already cut into frames: it makes
/// two of some.
fn skip_needless_parser(decodebin: &gst::Element) {
    decodebin.connect("autoplug-select", false, |values| {
        let is_framed = values
            .get(2)
            .and_then(|value| value.get::<gst::Caps>().ok())
            .is_some_and(|caps| caps.structure(0).is_some_and(|structure| structure.has_field("width")));
        let factory = values.get(3).and_then(|value| value.get::<gst::ElementFactory>().ok());
        let is_parser = factory.is_some_and(|factory| factory.name() == "mpeg4videoparse");
        const TRY: i32 = 0;
        const SKIP: i32 = 2;
        let choice = if is_framed && is_parser { SKIP } else { TRY };
        let kind = gst::glib::Type::from_name("GstAutoplugSelectResult")?;
        gst::glib::EnumClass::with_type(kind)?.to_value(choice)
    });
}
