//! The fast path to a few frames: reads the packets without decoding, finds those that the chosen frames
//! depend on, and decodes only these. Files whose packets do not describe the stream completely are decoded
//! from the start, see [`super::sequential`].

use super::colour::{self, Stated};
use super::container::Container;
use super::convert::{Rgb, ToRgb};
use super::edits::{self, Edit};
use super::libav::{self, Threads, Watch};
use super::{Frames, Target, arrange, bitstream, limits, pipeline, sequential, source, start};
use crate::error::{Error, Result};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Compressed bytes that a clip may keep in memory; longer clips are decoded from the start.
const KEPT_BYTES: usize = 64 << 20;

/// Time without progress after which this path fails. Decoding from the start follows.
const PATIENCE: Duration = Duration::from_secs(2);

/// A compressed frame, in decoding order.
struct Packet {
    buffer: gst::Buffer,
    pts: gst::ClockTime,
    /// Decoding can start here: no later packet refers to an earlier one.
    restart: bool,
    /// No other packet refers to it.
    disposable: bool,
    shown: bool,
}

/// A video stream's packets.
struct Stream {
    caps: gst::Caps,
    packets: Vec<Packet>,
    /// Indices of the shown packets, in display order.
    display: Vec<usize>,
    orientation: super::Orientation,
}

/// The chosen frames; `None` where this path cannot guarantee to find exactly these.
pub(super) fn decode(
    path: &Path,
    container: Container,
    target: Target,
    choose: &dyn Fn(usize) -> Vec<usize>,
) -> Result<Option<Frames>> {
    let Some(stream) = demux(path, container)? else { return Ok(None) };
    let decoder = decoder_for(&stream.caps).and_then(|factory| factory.create().build().ok());
    let Some(decoder) = decoder else { return Ok(None) };
    let indices = choose(stream.display.len());
    let wanted: BTreeSet<usize> = indices.iter().copied().collect();
    let times: BTreeMap<gst::ClockTime, usize> =
        wanted.iter().map(|&index| (stream.packets[stream.display[index]].pts, index)).collect();
    let mut pictures = feed(path, target, &stream, decoder, &times)?;
    pictures.sort_by_key(|(index, _)| *index);
    // A hidden picture may have the time of a shown one.
    if !pictures.iter().map(|(index, _)| index).eq(&wanted) {
        return Ok(None);
    }
    arrange(path, &indices, &pictures, target.resizing).map(Some)
}

/// The number of frames according to the packets, where they are reliable.
#[cfg(test)]
pub(super) fn promised(path: &Path, container: Container) -> Result<Option<usize>> {
    Ok(demux(path, container)?.map(|stream| stream.display.len()))
}

/// Reads every packet of the first video stream. `None` where timestamps are missing or equal, where there
/// are several segments, where the format changes, or where the codec's packets cannot be parsed.
fn demux(path: &Path, container: Container) -> Result<Option<Stream>> {
    let factory = match container {
        Container::Mp4 => "qtdemux",
        Container::Matroska => "matroskademux",
        Container::Other => return Ok(None),
    };
    let demuxer = pipeline::element(factory, path)?;
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    if file.metadata().map_err(Error::io("read", path))?.len() > KEPT_BYTES as u64 {
        return Ok(None);
    }
    let edit = edits::of_file(&mut file).filter(|_| container == Container::Mp4);
    let mut bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    if let Some(edit) = &edit {
        edit.open_end(0, &mut bytes);
    }
    let source = source::of_bytes(path, bytes)?;
    let collected = Arc::new(Mutex::new(Collected { edit, ..Collected::default() }));
    let sink = collecting_sink(Arc::clone(&collected));
    let mut running = start(path, &[&demuxer, sink.upcast_ref()])?;
    let input = demuxer.static_pad("sink").ok_or_else(|| Error::video(path, "the demuxer has no input"))?;
    source.link(&input).map_err(|error| Error::video(path, error.to_string()))?;
    link_video(&demuxer, &sink);
    running.patience = PATIENCE;
    running.play()?;
    // Decoding from the start reports an error better, or does not have it.
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

/// The packets that a demuxer has returned so far.
#[derive(Default)]
struct Collected {
    caps: Option<gst::Caps>,
    segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    /// What the file shows of the stream.
    edit: Option<Edit>,
    packets: Vec<Packet>,
    bytes: usize,
    /// The packets do not describe the stream completely; the rest was not read.
    doubtful: bool,
}

impl Collected {
    /// Adds a packet; `None` where the packets do not describe the stream completely.
    fn add(&mut self, sample: &gst::Sample) -> Option<()> {
        let buffer = sample.buffer_owned()?;
        let caps = sample.caps_owned()?;
        let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?.clone();
        self.bytes += buffer.size();
        let packet = packet(&caps, &segment, self.edit.as_ref(), buffer)?;
        let same = self.caps.get_or_insert_with(|| caps.clone()) == &caps
            && self.segment.get_or_insert_with(|| segment.clone()) == &segment;
        self.packets.push(packet);
        (same && self.bytes <= KEPT_BYTES).then_some(())
    }
}

/// No code panics in the middle of a change while it holds such a lock.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A sink that collects packets on the demuxer's thread: passing them on would take longer than reading.
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
            // If the pad cannot be linked, the sink gets no data, which is an error above.
            let _ = pad.link(&to);
        }
    });
}

/// Parses one buffer; `None` where its role is unknown.
fn packet(
    caps: &gst::Caps,
    segment: &gst::FormattedSegment<gst::ClockTime>,
    edit: Option<&Edit>,
    buffer: gst::Buffer,
) -> Option<Packet> {
    let pts = buffer.pts()?;
    let known = {
        let data = buffer.map_readable().ok()?;
        bitstream::look(caps, &data)?
    };
    let is_delta = buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
    // Without a single edit, decoders skip frames that are hidden at the start by the same rule.
    let start = segment.start().unwrap_or_default();
    let inside = match (edit, buffer.duration()) {
        (Some(edit), _) => edit.shows(pts, start),
        (None, _) if pts >= start => true,
        (None, Some(duration)) => pts + duration > start,
        (None, None) => return None,
    };
    Some(Packet {
        pts,
        restart: !is_delta && known.restart,
        disposable: known.disposable,
        shown: inside && known.shown,
        buffer,
    })
}

/// The installed decoder of the highest rank that accepts these caps.
pub(super) fn decoder_for(caps: &gst::Caps) -> Option<&'static gst::ElementFactory> {
    decoders().iter().find(|factory| factory.can_sink_all_caps(caps))
}

/// The installed decoders, by descending rank. Bins are excluded: some have a high rank, match loosely and
/// then refuse the stream without an error. Listed once, because listing takes half a millisecond.
fn decoders() -> &'static [gst::ElementFactory] {
    static DECODERS: OnceLock<Vec<gst::ElementFactory>> = OnceLock::new();
    DECODERS.get_or_init(|| {
        let kinds = gst::ElementFactoryType::DECODER | gst::ElementFactoryType::MEDIA_VIDEO;
        let all = gst::ElementFactory::factories_with_type(kinds, gst::Rank::MARGINAL);
        let works_alone = |factory: &gst::ElementFactory| {
            let class = factory.metadata("klass").unwrap_or_default();
            !["Bin", "Hardware"].iter().any(|word| class.contains(word)) && !factory.name().contains("alpha")
        };
        let mut decoders: Vec<_> = all.into_iter().filter(works_alone).collect();
        decoders.sort_by_key(|factory| std::cmp::Reverse(i32::from(factory.rank())));
        decoders
    })
}

/// Whether each packet is needed for the wanted ones: those from the restart before a wanted packet up to the
/// packet, without disposable packets.
fn needed(stream: &Stream, wanted: &BTreeSet<usize>) -> Vec<bool> {
    let mut needed = vec![false; stream.packets.len()];
    let mut done = 0; // packets below are decided
    for &at in wanted {
        let pts = stream.packets[at].pts;
        // A packet that is displayed before the preceding restart may refer to earlier packets.
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
///
/// Returns no frames if the decoder warns about the stream, because its output then depends on the packets
/// before. Decoding from the start either succeeds or reports the error better.
fn feed(
    path: &Path,
    target: Target,
    stream: &Stream,
    decoder: gst::Element,
    times: &BTreeMap<gst::ClockTime, usize>,
) -> Result<Vec<(usize, Rgb)>> {
    let Some(decoding) = Decoding::start(decoder, &stream.caps, times) else { return Ok(Vec::new()) };
    let wanted: BTreeSet<usize> = times.values().map(|&index| stream.display[index]).collect();
    let needed = needed(stream, &wanted);
    let mut fed = stream.packets.iter().zip(needed).filter(|(_, needed)| *needed).map(|(packet, _)| packet);
    let mut to_rgb = ToRgb::new(target);
    let mut pictures = Vec::with_capacity(times.len());
    let mut flows = true;
    while flows {
        flows = match fed.next() {
            Some(packet) => decoding.input.push(packet.buffer.clone()).is_ok(),
            None => {
                decoding.input.push_event(gst::event::Eos::new());
                false
            }
        };
        for (index, sample) in decoding.take() {
            pictures.push((index, to_rgb.convert(path, &sample, stream.orientation)?));
        }
    }
    if decoding.has_warnings() {
        pictures.clear();
    }
    Ok(pictures)
}

/// A decoder that runs on the calling thread. A pipeline, with a queue and a thread per clip, would take a
/// twentieth of a clip's decoding time.
struct Decoding {
    decoder: gst::Element,
    bus: gst::Bus,
    input: gst::Pad,
    /// A link does not keep its other end alive.
    _output: gst::Pad,
    frames: Arc<Mutex<Vec<(usize, gst::Sample)>>>,
    watch: Arc<Watch>,
}

impl Decoding {
    /// Starts a decoder that keeps the frames of the wanted times; `None` where it refuses.
    fn start(
        decoder: gst::Element,
        caps: &gst::Caps,
        times: &BTreeMap<gst::ClockTime, usize>,
    ) -> Option<Self> {
        let watch = Arc::default();
        libav::prepare(&decoder, Threads::One, &watch);
        let frames = Arc::new(Mutex::new(Vec::new()));
        let output = keeping_pad(caps.clone(), Arc::clone(&frames), times.clone());
        let input = gst::Pad::builder(gst::PadDirection::Src).build();
        input.set_active(true).ok()?;
        input.link(&decoder.static_pad("sink")?).ok()?;
        decoder.static_pad("src")?.link(&output).ok()?;
        let bus = gst::Bus::new();
        decoder.set_bus(Some(&bus));
        let decoding = Self { decoder, bus, input, _output: output, frames, watch };
        decoding.decoder.set_state(gst::State::Playing).ok()?;
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        let begun = decoding.input.push_event(gst::event::StreamStart::new("packets"))
            && decoding.input.push_event(gst::event::Caps::new(caps))
            && decoding.input.push_event(gst::event::Segment::new(&segment));
        begun.then_some(decoding)
    }

    /// The frames since the last call.
    fn take(&self) -> Vec<(usize, gst::Sample)> {
        std::mem::take(&mut lock(&self.frames))
    }

    /// Whether the decoder has sent warnings or errors, or has lost pictures.
    fn has_warnings(&self) -> bool {
        let is_warning = |message: &gst::Message| {
            matches!(message.type_(), gst::MessageType::Warning | gst::MessageType::Error)
        };
        self.watch.has_gap() || std::iter::from_fn(|| self.bus.pop()).any(|message| is_warning(&message))
    }
}

impl Drop for Decoding {
    fn drop(&mut self) {
        // A failure to stop cannot be reported from here; GStreamer keeps the decoder.
        let _ = self.decoder.set_state(gst::State::Null);
        self.decoder.set_bus(None);
    }
}

/// A pad that keeps decoded frames of the wanted times and drops the others.
fn keeping_pad(
    caps: gst::Caps,
    frames: Arc<Mutex<Vec<(usize, gst::Sample)>>>,
    times: BTreeMap<gst::ClockTime, usize>,
) -> gst::Pad {
    let output = gst::Pad::builder(gst::PadDirection::Sink)
        .chain_function(move |pad, _, buffer| {
            limits::note_progress();
            if let Some(&index) = buffer.pts().and_then(|pts| times.get(&pts))
                && !sequential::is_unusable(&buffer)
            {
                let caps = pad.current_caps().ok_or(gst::FlowError::NotNegotiated)?;
                lock(&frames).push((index, gst::Sample::builder().buffer(&buffer).caps(&caps).build()));
            }
            Ok(gst::FlowSuccess::Ok)
        })
        .build();
    sequential::refuse_huge(&output);
    colour::correct(&output, Arc::new(Stated { encoded: Mutex::new(Some(caps)), ..Stated::default() }));
    // An inactive pad refuses all buffers, so that no frames are returned.
    let _ = output.set_active(true);
    output
}
