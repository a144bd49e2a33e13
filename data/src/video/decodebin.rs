//! How decodebin is set up: which elements it may choose, how they are set, and which stream is decoded.

use super::colour::Stated;
use super::edits::{self, Edit};
use super::libav::{self, Threads, Watch};
use super::{bitstream, pipeline, source};
use crate::error::{Error, Result};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Links a file with decodebin, through a pad that opens the end of the file's edit where it has one.
pub(super) fn feed(
    path: &Path,
    pipeline: &gst::Pipeline,
    decodebin: &gst::Element,
    mut file: File,
) -> Result<(Option<gst::Pad>, Option<Edit>)> {
    let failed = |error: &dyn std::fmt::Display| Error::video(path, error.to_string());
    if let Some(edit) = edits::of_file(&mut file) {
        let source = source::of_file(path, file, edit.clone())?;
        let input = decodebin.static_pad("sink").ok_or_else(|| failed(&"decodebin has no input"))?;
        source.link(&input).map_err(|error| failed(&error))?;
        return Ok((Some(source), Some(edit)));
    }
    let source = pipeline::element("filesrc", path)?;
    source.set_property("location", path);
    pipeline.add(&source).map_err(|error| failed(&error))?;
    source.link(decodebin).map_err(|error| failed(&error))?;
    Ok((None, None))
}

/// The edit of a stream, and when the demuxer lets it begin.
#[derive(Clone)]
pub(super) struct Shown {
    pub(super) edit: Edit,
    pub(super) start: Arc<Mutex<gst::ClockTime>>,
}

impl Shown {
    /// Whether a decoded frame lies inside.
    pub(super) fn contains(&self, frame: &gst::BufferRef) -> bool {
        let start = *self.start.lock().unwrap_or_else(PoisonError::into_inner);
        frame.pts().is_none_or(|pts| self.edit.shows(pts, start))
    }
}

/// Prevents decodebin from decoding sound and subtitles, and stores the codec's caps.
pub(super) fn expose_undecoded_sound(decodebin: &gst::Element, stated: Arc<Stated>) {
    decodebin.connect("autoplug-continue", false, move |values| {
        let caps = values.get(2).and_then(|value| value.get::<gst::Caps>().ok());
        let name = caps
            .as_ref()
            .and_then(|caps| caps.structure(0))
            .map_or("", |structure| structure.name().as_str());
        let decode = !["audio/", "text/", "subpicture/"].iter().any(|kind| name.starts_with(kind));
        if ["video/", "image/"].iter().any(|kind| name.starts_with(kind))
            && let Ok(mut encoded) = stated.encoded.lock()
        {
            encoded.clone_from(&caps);
        }
        Some(decode.to_value())
    });
}

/// Links the first video stream that appears; demuxers accept that the other streams stay unlinked.
pub(super) fn link_first_video(decodebin: &gst::Element, sink: &gst_app::AppSink) -> Arc<AtomicBool> {
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

/// Configures the elements that decodebin adds.
pub(super) fn prepare_elements(
    pipeline: &gst::Pipeline,
    threads: Threads,
    watch: &Arc<Watch>,
    shown: Option<Shown>,
    stated: &Arc<Stated>,
) {
    let (watch, stated) = (Arc::clone(watch), Arc::clone(stated));
    pipeline.connect_deep_element_added(move |_, _, element| {
        libav::prepare(element, threads, &watch);
        let class = element.metadata("klass").unwrap_or_default();
        if class.contains("Decoder")
            && let Some(pad) = element.static_pad("sink")
        {
            open_segment(&pad, shown.clone());
            match element.factory().map(|factory| factory.name()).as_deref() {
                Some("av1dec") => read_range(&pad, Arc::clone(&stated)),
                Some("pngdec") => refuse_deep_png(&pad),
                _ => {}
            }
        }
    });
}

/// Removes the end of the segments at a pad. The headers of many files end before their last frames, which
/// FFmpeg, and therefore every other reader, decodes nevertheless. Where an edit chooses the frames, the
/// beginning is removed as well.
fn open_segment(pad: &gst::Pad, shown: Option<Shown>) {
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let Some(event) = info.event() else { return gst::PadProbeReturn::Ok };
        let gst::EventView::Segment(segment) = event.view() else { return gst::PadProbeReturn::Ok };
        let mut open = segment.segment().clone();
        if let Some(open) = open.downcast_mut::<gst::ClockTime>() {
            open.set_stop(gst::ClockTime::NONE);
            if let Some(shown) = &shown {
                let start = open.start().unwrap_or_default();
                *shown.start.lock().unwrap_or_else(PoisonError::into_inner) = start;
                open.set_start(gst::ClockTime::ZERO);
                open.set_time(gst::ClockTime::ZERO);
                open.set_position(gst::ClockTime::ZERO);
            }
        }
        let event = gst::event::Segment::builder(&open).seqnum(event.seqnum()).build();
        info.data = Some(gst::PadProbeData::Event(event));
        gst::PadProbeReturn::Ok
    });
}

/// Makes decodebin skip replaced decoders, those that add transparency (they fail where the first picture has
/// none), and the MPEG-4 parser for streams that a demuxer has split into frames
/// already: the parser splits some of them again.
pub(super) fn skip_elements(decodebin: &gst::Element) {
    decodebin.connect("autoplug-select", false, |values| {
        let caps = values.get(2)?.get::<gst::Caps>().ok()?;
        let is_framed = caps.structure(0).is_some_and(|structure| structure.has_field("width"));
        let factory = values.get(3).and_then(|value| value.get::<gst::ElementFactory>().ok());
        let name = factory.map(|factory| factory.name()).unwrap_or_default();
        let is_parser = name == "mpeg4videoparse";
        const TRY: i32 = 0;
        const SKIP: i32 = 2;
        let is_alpha = name.contains("alphadecodebin");
        let choice = if is_alpha || is_framed && is_parser || pipeline::is_replaced(&name, &caps) {
            SKIP
        } else {
            TRY
        };
        let kind = gst::glib::Type::from_name("GstAutoplugSelectResult")?;
        gst::glib::EnumClass::with_type(kind)?.to_value(choice)
    });
}

/// Reads from AV1's packets what av1parse passes on only together with a matrix.
fn read_range(pad: &gst::Pad, stated: Arc<Stated>) {
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(packet) = info.buffer()
            && let Ok(packet) = packet.map_readable()
            && let Some(is_full) = bitstream::av1_full_range(&packet)
        {
            stated.full_range.store(is_full, Ordering::Relaxed);
        }
        gst::PadProbeReturn::Ok
    });
}

/// Stops at PNG pictures of 16-bit RGB without alpha: pngdec shifts their channels.
fn refuse_deep_png(pad: &gst::Pad) {
    pad.add_probe(gst::PadProbeType::BUFFER, |pad, info| {
        const DEPTH_AND_COLOUR: std::ops::Range<usize> = 24..26;
        const DEEP_RGB: [u8; 2] = [16, 2];
        let is_deep = info
            .buffer()
            .and_then(|packet| packet.map_readable().ok())
            .is_some_and(|packet| packet.get(DEPTH_AND_COLOUR).is_some_and(|fields| fields == DEEP_RGB));
        if is_deep {
            pipeline::refuse(pad, "GStreamer misreads its pixel format rgb48be");
            return gst::PadProbeReturn::Handled;
        }
        gst::PadProbeReturn::Ok
    });
}

/// Gives av1dec buffers for monochrome pictures whose rows have another length than those of the library's
/// chroma planes. Where both are equal, it copies the chroma planes over the picture.
pub(super) fn avoid_equal_rows(pad: &gst::Pad) {
    pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, |_, info| {
        let Some(query) = info.query_mut() else { return gst::PadProbeReturn::Ok };
        let gst::QueryViewMut::Allocation(query) = query.view_mut() else { return gst::PadProbeReturn::Ok };
        let (Some(caps), _) = query.get_owned() else { return gst::PadProbeReturn::Ok };
        let info = gst_video::VideoInfo::from_caps(&caps);
        let Some(info) = info.ok().filter(|info| info.format() == gst_video::VideoFormat::Gray8) else {
            return gst::PadProbeReturn::Ok;
        };
        if let Some(pool) = pool_of_odd_rows(&caps, &info) {
            query.add_allocation_pool(Some(&pool), info.size() as u32, 0, 0);
            query.add_allocation_meta::<gst_video::VideoMeta>(None);
            return gst::PadProbeReturn::Handled;
        }
        gst::PadProbeReturn::Ok
    });
}

/// A pool whose rows are no multiple of 16 bytes, as those of the AV1 library always are.
fn pool_of_odd_rows(caps: &gst::Caps, info: &gst_video::VideoInfo) -> Option<gst::BufferPool> {
    use gst_video::VideoBufferPoolConfig;
    let pool = gst_video::VideoBufferPool::new();
    let mut config = pool.config();
    config.set_params(Some(caps), info.size() as u32, 0, 0);
    config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META.as_str());
    config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_ALIGNMENT.as_str());
    let padding = if info.stride()[0] % 16 == 0 { 4 } else { 0 };
    config.set_video_alignment(&gst_video::VideoAlignment::new(0, 0, 0, padding, &[0; 4]));
    pool.set_config(config).ok()?;
    Some(pool.upcast())
}
