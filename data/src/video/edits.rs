//! The edit list of an MP4 or QuickTime file: the part of a track that is shown. FFmpeg decodes from the key
//! frame before it and shows the pictures whose time lies inside. GStreamer's demuxer stops at the first
//! packet after the end, though pictures inside may follow in decoding order, and shows a picture that lies
//! partly before. Therefore the demuxer is given a list without an end, and pictures are chosen here.

use gstreamer as gst;
use gstreamer::prelude::*;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

/// The only edit of a video track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    /// Where the file holds the edit's duration.
    pub(super) place: Range<u64>,
    /// How long pictures are shown.
    length: gst::ClockTime,
    /// The duration of the whole file by its header.
    pub(super) movie: gst::ClockTime,
}

impl Edit {
    /// Whether a picture is shown. `start` is the time at which the demuxer lets the edit begin.
    pub(super) fn shows(&self, pts: gst::ClockTime, start: gst::ClockTime) -> bool {
        /// Times are rounded down to nanoseconds; no track has pictures that are closer than this.
        const ROUNDING: gst::ClockTime = gst::ClockTime::from_nseconds(500);
        pts >= start && pts + ROUNDING < start + self.length
    }

    /// Replaces the duration by zero, "to the end", in a part of the file that begins at `offset`.
    pub(super) fn open_end(&self, offset: u64, part: &mut [u8]) {
        let end = offset + part.len() as u64;
        let (from, to) = (self.place.start.clamp(offset, end), self.place.end.clamp(offset, end));
        part[(from - offset) as usize..(to - offset) as usize].fill(0);
    }
}

/// The edit of a file's first video track. `None` where there is no edit list or more than one edit, where
/// the file is fragmented (FFmpeg shows all pictures then), and where the header cannot be parsed.
pub(super) fn of_file(file: &mut File) -> Option<Edit> {
    let (header, offset) = header_of(file)?;
    of_header(&header, offset)
}

/// Whether the header describes the colours of a stream (box `colr`).
pub(super) fn states_colours(file: &mut File) -> bool {
    header_of(file).is_some_and(|(header, _)| header.windows(4).any(|name| name == b"colr"))
}

/// The content of the box `moov`, and where it begins.
fn header_of(file: &mut File) -> Option<(Vec<u8>, u64)> {
    const MAX_HEADER: u64 = 64 << 20; // an hour of video has some hundred KiB
    let length = file.metadata().ok()?.len();
    let mut at = 0;
    while at + 8 <= length {
        let mut head = [0; 16];
        file.seek(SeekFrom::Start(at)).ok()?;
        let read = file.read(&mut head).ok()?;
        let (name, body, size) = box_header(&head[..read])?;
        let end = if size == 0 { length } else { at.checked_add(size)?.min(length) };
        let start = at + body as u64;
        if name == *b"moov" {
            let size = end.checked_sub(start).filter(|&size| size <= MAX_HEADER)?;
            let mut content = vec![0; usize::try_from(size).ok()?];
            file.seek(SeekFrom::Start(start)).ok()?;
            file.read_exact(&mut content).ok()?;
            return Some((content, start));
        }
        at = end;
    }
    None
}

/// The edit in the content of the box `moov`, which begins at `offset` of the file.
fn of_header(moov: &[u8], offset: u64) -> Option<Edit> {
    let is_fragmented = child(moov, b"mvex").is_some();
    let header = &moov[child(moov, b"mvhd")?];
    let (scale, duration) = scale_and_duration(header)?;
    if is_fragmented || duration == 0 {
        return None;
    }
    let track = children(moov).filter(|(name, _)| name == b"trak").map(|(_, range)| range).find(|track| {
        descend(&moov[track.clone()], &[b"mdia", b"hdlr"])
            .is_some_and(|handler| moov[track.clone()][handler].get(8..12) == Some(b"vide"))
    })?;
    let bytes = &moov[track.clone()];
    let media = descend(bytes, &[b"mdia", b"mdhd"])?;
    let (media_scale, _) = scale_and_duration(&bytes[media])?;
    let list = descend(bytes, &[b"edts", b"elst"])?;
    let (field, edit_duration) = only_edit(&bytes[list.clone()])?;
    // FFmpeg rounds the duration to the track's own unit.
    let in_media = rescale(edit_duration, media_scale, scale)?;
    let start = offset + (track.start + list.start + field.start) as u64;
    Some(Edit {
        place: start..start + field.len() as u64,
        length: gst::ClockTime::SECOND.mul_div_floor(in_media, u64::from(media_scale))?,
        movie: gst::ClockTime::SECOND.mul_div_floor(duration, u64::from(scale))?,
    })
}

/// The place and value of the duration in an edit list of one edit, which an empty one may precede.
fn only_edit(list: &[u8]) -> Option<(Range<usize>, u64)> {
    let wide = *list.first()? == 1;
    let size = if wide { 20 } else { 12 };
    let count = u32::from_be_bytes(list.get(4..8)?.try_into().ok()?);
    let entry = |index: usize| {
        let bytes = list.get(8 + index * size..8 + (index + 1) * size)?;
        Some(if wide {
            let duration = u64::from_be_bytes(bytes[..8].try_into().ok()?);
            (duration, i64::from_be_bytes(bytes[8..16].try_into().ok()?))
        } else {
            let duration = u32::from_be_bytes(bytes[..4].try_into().ok()?);
            (u64::from(duration), i64::from(i32::from_be_bytes(bytes[4..8].try_into().ok()?)))
        })
    };
    let is_empty = |index| entry(index).is_some_and(|(_, start)| start == -1);
    let index = match count {
        1 => 0,
        2 if is_empty(0) => 1,
        _ => return None,
    };
    let (duration, start) = entry(index)?;
    let at = 8 + index * size;
    (duration > 0 && start >= 0).then_some((at..at + if wide { 8 } else { 4 }, duration))
}

/// Units per second and duration in a box `mvhd` or `mdhd`.
fn scale_and_duration(header: &[u8]) -> Option<(u32, u64)> {
    let number = |at: usize| Some(u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?));
    let (scale, duration) = match *header.first()? {
        1 => (number(20)?, u64::from(number(24)?) << 32 | u64::from(number(28)?)),
        _ => (number(12)?, u64::from(number(16)?)),
    };
    (scale > 0).then_some((scale, duration))
}

/// A number of 1/`from` seconds as the nearest number of 1/`to` seconds.
fn rescale(value: u64, to: u32, from: u32) -> Option<u64> {
    let exact = u128::from(value) * u128::from(to) + u128::from(from / 2);
    u64::try_from(exact / u128::from(from)).ok()
}

/// Name, length of the header, and size of a box; a size of 0 means "to the end".
fn box_header(bytes: &[u8]) -> Option<([u8; 4], usize, u64)> {
    let size = u64::from(u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?));
    let name = bytes.get(4..8)?.try_into().ok()?;
    let (body, size) = match size {
        1 => (16, u64::from_be_bytes(bytes.get(8..16)?.try_into().ok()?)),
        size => (8, size),
    };
    (size == 0 || size >= body as u64).then_some((name, body, size))
}

/// The boxes inside a box: name, and range of the content.
fn children(bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], Range<usize>)> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (name, body, size) = box_header(bytes.get(at..)?)?;
        let size = if size == 0 { usize::MAX } else { usize::try_from(size).unwrap_or(usize::MAX) };
        let range = at + body..at.saturating_add(size).min(bytes.len());
        at = range.end;
        (range.start <= range.end).then_some((name, range))
    })
}

/// The range of the first child of that name.
fn child(bytes: &[u8], wanted: &[u8; 4]) -> Option<Range<usize>> {
    children(bytes).find(|(name, _)| name == wanted).map(|(_, range)| range)
}

/// The range of a descendant, given by the names on the way to it.
fn descend(bytes: &[u8], names: &[&[u8; 4]]) -> Option<Range<usize>> {
    names.iter().try_fold(0..bytes.len(), |outer, name| {
        let inner = child(&bytes[outer.clone()], name)?;
        Some(outer.start + inner.start..outer.start + inner.end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn boxed(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
        [&(content.len() as u32 + 8).to_be_bytes(), name.as_slice(), content].concat()
    }

    fn numbers(values: &[u32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_be_bytes()).collect()
    }

    /// A header with a video track of 12,800 units per second and these edits, in 1/1000 s.
    fn header(edits: &[(u32, i32)], extra: &[u8]) -> Vec<u8> {
        let entries: Vec<u8> =
            edits.iter().flat_map(|&(duration, start)| numbers(&[duration, start as u32, 1 << 16])).collect();
        let list = boxed(b"elst", &[numbers(&[0, edits.len() as u32]), entries].concat());
        let handler = boxed(b"hdlr", &[numbers(&[0, 0]), b"vide".to_vec(), vec![0; 12]].concat());
        let media = boxed(b"mdia", &[boxed(b"mdhd", &numbers(&[0, 0, 0, 12_800, 50_000])), handler].concat());
        let track = boxed(b"trak", &[boxed(b"edts", &list), media].concat());
        let movie = boxed(b"mvhd", &numbers(&[0, 0, 0, 1000, 1900]));
        boxed(b"moov", &[movie, track, extra.to_vec()].concat())
    }

    fn edit(bytes: &[u8]) -> Option<Edit> {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, bytes).unwrap();
        of_file(&mut file)
    }

    #[test]
    fn a_single_edit_shows_the_pictures_inside_it() {
        let ms = gst::ClockTime::from_mseconds;
        for edits in [vec![(1900, 1024)], vec![(80, -1), (1900, 1024)]] {
            let bytes = [boxed(b"ftyp", b"isom"), header(&edits, &[])].concat();
            let edit = edit(&bytes).unwrap();
            let mut part = bytes[20..].to_vec();
            assert_eq!(&bytes[edit.place.start as usize..edit.place.end as usize], 1900u32.to_be_bytes());
            edit.open_end(20, &mut part);
            assert!(part[edit.place.start as usize - 20..][..4] == [0; 4]);
            assert_eq!(part.iter().zip(&bytes[20..]).filter(|(a, b)| a != b).count(), 2);
            assert_eq!(edit.movie, ms(1900));
            let start = ms(80);
            assert!(!edit.shows(ms(79), start) && edit.shows(ms(80), start));
            assert!(edit.shows(ms(1979), start) && !edit.shows(ms(1980), start));
        }
    }

    #[test]
    fn other_lists_are_left_to_the_demuxer() {
        assert_eq!(edit(&header(&[(900, 0), (1000, 20_000)], &[])), None);
        assert_eq!(edit(&header(&[(0, 1024)], &[])), None);
        assert_eq!(edit(&header(&[], &[])), None);
        assert_eq!(edit(&header(&[(1900, 0)], &boxed(b"mvex", &[]))), None);
        assert_eq!(edit(b"no box"), None);
    }

    proptest! {
        #[test]
        fn damaged_headers_are_parsed_without_a_panic(place in 0usize..200, value: u8, cut in 0usize..200) {
            let mut bytes = header(&[(80, -1), (1900, 1024)], &[]);
            let length = bytes.len();
            bytes[place % length] = value;
            bytes.truncate(length - cut % length);
            let _ = edit(&bytes);
        }
    }
}
