//! The quick way to a few frames: read the packets without decoding, work out which of them the chosen frames
//! need, and feed the decoder only those. Used where packets tell all there is to know; everything else is
//! decoded from the start, see [`super::sequential`].

use super::container::Container;
use super::convert::{Rgb, ToRgb};
use super::{Frames, arrange, bitstream, pipeline, sequential, start};
use crate::error::{Error, Result};
use bitstream::Shown;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Compressed bytes that one clip may keep in memory; a longer one is decoded from the start.
const KEPT_BYTES: usize = 64 << 20;

/// A standstill that ends this attempt. Decoding from the start, which then follows, has a limit of its own.
const PATIENCE: Duration = Duration::from_secs(2);

/// A compressed frame, in decoding order.
struct Packet {
    buffer: gst::Buffer,
    pts: gst::ClockTime,
    /// Decoding can start here: nothing from here on refers to anything before.
    restart: bool,
    /// Nothing refers to it.
    disposable: bool,
    shown: bool,
}

/// A video stream's packets.
struct Stream {
    caps: gst::Caps,
    packets: Vec<Packet>,
    /// The shown packets in the order of display.
    display: Vec<usize>,
    orientation: super::Orientation,
}

/// The chosen frames; `None` where this way cannot be sure of finding exactly these.
pub(super) fn decode(
    path: &Path,
    container: Container,
    size: Option<u32>,
    choose: &dyn Fn(usize) -> Vec<usize>,
) -> Result<Option<Frames>> {
    let Some(stream) = demux(path, container)? else { return Ok(None) };
    let Some(decoder) = decoder_for(&stream.caps) else { return Ok(None) };
    let indices = choose(stream.display.len());
    let wanted: BTreeSet<usize> = indices.iter().copied().collect();
    let times: BTreeMap<gst::ClockTime, usize> =
        wanted.iter().map(|&index| (stream.packets[stream.display[index]].pts, index)).collect();
    let mut pictures = feed(path, size, &stream, &decoder, &times)?;
    if pictures.len() < wanted.len() {
        return Ok(None);
    }
    pictures.sort_by_key(|(index, _)| *index);
    arrange(path, &indices, &pictures).map(Some)
}

/// The number of frames that the packets promise, where they can be trusted.
#[cfg(test)]
pub(super) fn promised(path: &Path, container: Container) -> Result<Option<usize>> {
    Ok(demux(path, container)?.map(|stream| stream.display.len()))
}

/// Reads every packet of the first video stream. `None` where timestamps are missing, doubled or cut up by
/// several segments, where the format changes, or where the codec is not one whose packets we can read.
fn demux(path: &Path, container: Container) -> Result<Option<Stream>> {
    let factory = match container {
        Container::Mp4 => "qtdemux",
        Container::Matroska => "matroskademux",
        Container::Other => return Ok(None),
    };
    let source = pipeline::element("filesrc", path)?;
    source.set_property("location", path);
    let demuxer = pipeline::element(factory, path)?;
    let collected = Arc::new(Mutex::new(Collected::default()));
    let sink = collecting_sink(Arc::clone(&collected));
    let mut running = start(path, &[&source, &demuxer, sink.upcast_ref()])?;
    source.link(&demuxer).map_err(|error| Error::video(path, error.to_string()))?;
    link_video(&demuxer, &sink);
    running.patience = PATIENCE;
    running.play()?;
    // An error here may be one that the other way reports better, or does not have at all.
    let ended = running.finish(|| lock(&collected).packets.len());
    let orientation = running.orientation();
    drop(running);

    let Collected { caps: Some(caps), packets, doubtful: false, .. } = std::mem::take(&mut *lock(&collected))
    else {
        return Ok(None);
    };
    let mut display: Vec<usize> = (0..packets.len()).filter(|&at| packets[at].shown).collect();
    display.sort_by_key(|&at| packets[at].pts);
    let doubled = display.windows(2).any(|pair| packets[pair[0]].pts == packets[pair[1]].pts);
    let starts_whole = packets.first().is_some_and(|first| first.restart);
    let sure = ended.is_ok() && !doubled && starts_whole && !display.is_empty();
    Ok(sure.then_some(Stream { caps, packets, display, orientation }))
}

/// What came out of a demuxer so far.
#[derive(Default)]
struct Collected {
    caps: Option<gst::Caps>,
    segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    packets: Vec<Packet>,
    bytes: usize,
    /// There is something that packets do not tell; the rest was not read.
    doubtful: bool,
}

impl Collected {
    /// Adds a packet; `None` where the stream is not one that packets tell all about.
    fn add(&mut self, sample: &gst::Sample) -> Option<()> {
        let buffer = sample.buffer_owned()?;
        let caps = sample.caps_owned()?;
        let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?.clone();
        self.bytes += buffer.size();
        let packet = packet(&caps, &segment, buffer)?;
        let same = self.caps.get_or_insert_with(|| caps.clone()) == &caps
            && self.segment.get_or_insert_with(|| segment.clone()) == &segment;
        self.packets.push(packet);
        (same && self.bytes <= KEPT_BYTES).then_some(())
    }
}

/// Nothing that holds this lock can panic half way through a change.
fn lock(collected: &Mutex<Collected>) -> MutexGuard<'_, Collected> {
    collected.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A sink that collects packets on the demuxer's own thread: handing each to ours would take longer than
/// reading it.
fn collecting_sink(collected: Arc<Mutex<Collected>>) -> gst_app::AppSink {
    let callbacks = gst_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.try_pull_sample(gst::ClockTime::ZERO).ok_or(gst::FlowError::Eos)?;
            let mut collected = lock(&collected);
            match collected.add(&sample) {
                Some(()) => Ok(gst::FlowSuccess::Ok),
                None => {
                    collected.doubtful = true;
                    Err(gst::FlowError::Eos)
                }
            }
        })
        .build();
    let sink = gst_app::AppSink::builder().sync(false).callbacks(callbacks).build();
    sink.set_enable_last_sample(false);
    sink.set_drop_out_of_segment(false); // a hidden packet may be needed by a shown one
    sink
}

/// Links the demuxer's first video stream; sound stays unlinked.
fn link_video(demuxer: &gst::Element, sink: &gst_app::AppSink) {
    let sink = sink.downgrade();
    demuxer.connect_pad_added(move |_, pad| {
        if pad.name().starts_with("video")
            && let Some(to) = sink.upgrade().and_then(|sink| sink.static_pad("sink"))
            && !to.is_linked()
        {
            // A pad that cannot be linked leaves the sink without data, which ends in an error above.
            let _ = pad.link(&to);
        }
    });
}

/// What one buffer is; `None` where that cannot be told.
fn packet(
    caps: &gst::Caps,
    segment: &gst::FormattedSegment<gst::ClockTime>,
    buffer: gst::Buffer,
) -> Option<Packet> {
    let pts = buffer.pts()?;
    let known = {
        let data = buffer.map_readable().ok()?;
        bitstream::look(caps, &data)?
    };
    let is_delta = buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
    // Decoders leave out what an edit list hides at the start, by this same rule.
    let inside = match buffer.duration() {
        _ if segment.start().is_none_or(|start| pts >= start) => true,
        Some(duration) => segment.start().is_none_or(|start| pts + duration > start),
        None => return None,
    };
    Some(Packet {
        pts,
        restart: !is_delta && known.restart,
        disposable: known.disposable,
        shown: inside && known.shown == Shown::Yes,
        buffer,
    })
}

/// The installed decoder of the highest rank that takes these caps as they are. Bins are left out: some rank
/// high and match loosely, then refuse the stream in silence.
fn decoder_for(caps: &gst::Caps) -> Option<gst::Element> {
    let mut factories: Vec<gst::ElementFactory> = gst::ElementFactory::factories_with_type(
        gst::ElementFactoryType::DECODER | gst::ElementFactoryType::MEDIA_VIDEO,
        gst::Rank::MARGINAL,
    )
    .into_iter()
    .filter(|factory| {
        let class = factory.metadata("klass").unwrap_or_default();
        factory.can_sink_all_caps(caps)
            && !["Bin", "Hardware"].iter().any(|word| class.contains(word))
            && !factory.name().contains("alpha")
    })
    .collect();
    factories.sort_by_key(|factory| std::cmp::Reverse(i32::from(factory.rank())));
    factories.first().and_then(|factory| factory.create().build().ok())
}

/// Which packets the wanted ones need: from the restart before each up to itself, without those that nothing
/// needs.
fn needed(stream: &Stream, wanted: &BTreeSet<usize>) -> Vec<bool> {
    let mut needed = vec![false; stream.packets.len()];
    let mut done = 0; // packets below are decided
    for &at in wanted {
        let pts = stream.packets[at].pts;
        // A packet shown before the restart that precedes it may refer further back.
        let from = (0..=at)
            .rev()
            .find(|&start| stream.packets[start].restart && stream.packets[start].pts <= pts)
            .unwrap_or(0);
        for (place, packet) in stream.packets.iter().enumerate().take(at + 1).skip(from.max(done)) {
            needed[place] = !packet.disposable || place == at;
        }
        done = done.max(at + 1);
    }
    needed
}

/// Decodes the needed packets and converts the frames whose times are wanted.
fn feed(
    path: &Path,
    size: Option<u32>,
    stream: &Stream,
    decoder: &gst::Element,
    times: &BTreeMap<gst::ClockTime, usize>,
) -> Result<Vec<(usize, Rgb)>> {
    if decoder.has_property("max-threads") {
        decoder.set_property("max-threads", 1i32);
    }
    let source = gst_app::AppSrc::builder().format(gst::Format::Time).caps(&stream.caps).max_bytes(0).build();
    let sink = sequential::raw_sink();
    let seen = Arc::new(AtomicUsize::new(0));
    keep_times(&sink, Arc::clone(&seen), times.keys().copied().collect());
    let mut running = start(path, &[source.upcast_ref(), decoder, sink.upcast_ref()])?;
    gst::Element::link_many([source.upcast_ref(), decoder, sink.upcast_ref()])
        .map_err(|error| Error::video(path, error.to_string()))?;
    running.patience = PATIENCE;
    running.play()?;
    let wanted: BTreeSet<usize> = times.values().map(|&index| stream.display[index]).collect();
    for (packet, _) in stream.packets.iter().zip(needed(stream, &wanted)).filter(|(_, needed)| *needed) {
        if source.push_buffer(packet.buffer.clone()).is_err() {
            break; // the pipeline stopped; the bus says why
        }
    }
    // Refused only where the pipeline has stopped, which the bus tells as well.
    let _ = source.end_of_stream();

    let mut to_rgb = ToRgb::new(size);
    let mut pictures = Vec::with_capacity(times.len());
    // Whatever goes wrong here, decoding from the start either goes right or explains it better. We wait for
    // the end, which is near because nothing was fed beyond the last wanted frame, so that no complaint is
    // missed.
    while let Ok(Some(sample)) = running.next(&sink, || seen.load(Ordering::Relaxed)) {
        if let Some(&index) = sample.buffer().and_then(|buffer| buffer.pts()).and_then(|pts| times.get(&pts))
        {
            pictures.push((index, to_rgb.convert(path, &sample, stream.orientation)?));
        }
    }
    if running.complaints().count > 0 {
        pictures.clear(); // what a damaged stream shows depends on what the decoder has seen before
    }
    Ok(pictures)
}

/// Lets only frames of the wanted times into the sink.
fn keep_times(sink: &gst_app::AppSink, seen: Arc<AtomicUsize>, times: BTreeSet<gst::ClockTime>) {
    let Some(pad) = sink.static_pad("sink") else { return };
    sequential::refuse_huge(&pad);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        seen.fetch_add(1, Ordering::Relaxed);
        match info.buffer().and_then(|buffer| buffer.pts()) {
            Some(pts) if times.contains(&pts) => gst::PadProbeReturn::Ok,
            _ => gst::PadProbeReturn::Handled, // not `Drop`, see the sequential reader
        }
    });
}
