//! Checks a file before decoding: existence, kind and completeness. GStreamer stalls without an error in some
//! of these cases and returns fewer frames of a truncated file; here they are errors.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// The decoder of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An image or animation: the `image` crate.
    Still,
    /// Anything else: GStreamer.
    Video(Container),
}

/// The container format of a video.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Container {
    /// MP4, QuickTime and related formats.
    Mp4,
    /// Matroska and WebM.
    Matroska,
    /// Any other, detected by GStreamer.
    Other,
}

/// Detects the kind of a file.
///
/// # Errors
/// A file that is missing, a directory, unreadable, empty, or shorter than its header declares.
pub(crate) fn inspect(path: &Path) -> Result<Kind> {
    let next = "check the path and the file's extension";
    let metadata = std::fs::metadata(path).map_err(Error::open("read the video", path, "video", next))?;
    if metadata.is_dir() {
        return Err(Error::video(path, "it is a directory"));
    }
    let length = metadata.len();
    if length == 0 {
        return Err(Error::video(path, "the file is empty (0 bytes)"));
    }
    let mut file = File::open(path).map_err(Error::io("open the video", path))?;
    let mut head = Vec::with_capacity(64);
    file.by_ref().take(64).read_to_end(&mut head).map_err(Error::io("read the video", path))?;
    match head.as_slice() {
        // Motion JPEG without a container starts like an image.
        [0xFF, 0xD8, 0xFF, ..] if has_extension(path, &["mjpeg", "mjpg"]) => {}
        [b'G', b'I', b'F', b'8', ..] | [0xFF, 0xD8, 0xFF, ..] | [0x89, b'P', b'N', b'G', ..] => {
            return Ok(Kind::Still);
        }
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => return Ok(Kind::Still),
        [b'B', b'M', ..] if has_extension(path, &["bmp"]) => return Ok(Kind::Still),
        [_, _, _, _, kind @ ..] if MP4_BEGINNINGS.iter().any(|begin| kind.starts_with(begin.as_bytes())) => {
            whole_mp4(&mut file, path, length)?;
            return Ok(Kind::Video(Container::Mp4));
        }
        [0x1A, 0x45, 0xDF, 0xA3, ..] => {
            whole_matroska(&mut file, path, length)?;
            return Ok(Kind::Video(Container::Matroska));
        }
        [b'R', b'I', b'F', b'F', a, b, c, d, ..] => {
            let size = u32::from_le_bytes([*a, *b, *c, *d]);
            // Writers that cannot seek back leave all bits set.
            if size != u32::MAX && u64::from(size) + 8 > length {
                return Err(truncated(path, u64::from(size) + 8, length));
            }
        }
        _ => {}
    }
    Ok(Kind::Video(Container::Other))
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let own = path.extension().map(|own| own.to_string_lossy().to_lowercase());
    own.is_some_and(|own| extensions.contains(&own.as_str()))
}

fn truncated(path: &Path, declared: u64, length: u64) -> Error {
    Error::Truncated { path: path.to_path_buf(), declared, length }
}

/// The boxes that an MP4 or QuickTime file may start with.
const MP4_BEGINNINGS: [&str; 7] = ["ftyp", "moov", "mdat", "wide", "free", "skip", "pnot"];

/// Checks that MP4's top-level boxes end within the file and include the index (`moov`) and the media data,
/// and that the stream is not encrypted: GStreamer returns no frames and no error then.
fn whole_mp4(file: &mut File, path: &Path, length: u64) -> Result<()> {
    let mut at = 0u64;
    let (mut index, mut media) = (false, false);
    while at + 8 <= length {
        let mut header = [0u8; 16];
        let read = seek_and_read(file, at, &mut header).map_err(Error::io("read the video", path))?;
        let size = match u64::from(u32::from_be_bytes([header[0], header[1], header[2], header[3]])) {
            0 => length - at, // to the end of the file
            1 if read == 16 => {
                let [.., a, b, c, d, e, f, g, h] = header;
                u64::from_be_bytes([a, b, c, d, e, f, g, h])
            }
            size => size,
        };
        media |= &header[4..8] == b"mdat";
        if size < 8 {
            break; // not a box: trailing bytes, which demuxers skip
        }
        let end = at.saturating_add(size);
        if end > length {
            return Err(truncated(path, end, length));
        }
        if &header[4..8] == b"moov" {
            index = true;
            if is_encrypted(file, at, size).map_err(Error::io("read the video", path))? {
                return Err(Error::video(path, "the video is encrypted"));
            }
        }
        at = end;
    }
    match (index, media) {
        (true, true) => Ok(()),
        (false, _) => Err(Error::video(path, "the MP4 file has no index (no moov box)")),
        (true, false) => Err(Error::video(path, "the MP4 file has no frames (no mdat box)")),
    }
}

/// Whether an index describes an encrypted video stream: an `encv` sample entry.
fn is_encrypted(file: &mut File, at: u64, size: u64) -> std::io::Result<bool> {
    const MAX: u64 = 64 << 20; // the index of an hour of video has some hundred KiB
    file.seek(SeekFrom::Start(at))?;
    let mut index = Vec::new();
    Read::by_ref(file).take(size.min(MAX)).read_to_end(&mut index)?;
    Ok(index.windows(4).any(|name| name == b"encv"))
}

/// Checks that the segment of a Matroska or WebM file ends within the file, if its size is known, and has a
/// cluster.
fn whole_matroska(file: &mut File, path: &Path, length: u64) -> Result<()> {
    const SEGMENT: u32 = 0x1853_8067;
    const CLUSTER: u32 = 0x1F43_B675;
    let mut head = [0u8; 1024];
    let read = seek_and_read(file, 0, &mut head).map_err(Error::io("read the video", path))?;
    if let Some(reason) = foreign_document(&head[..read]) {
        return Err(Error::video(path, reason));
    }
    let mut at = 0;
    let mut in_segment = false;
    while let Some((id, content, size)) = element_at(file, at).map_err(Error::io("read the video", path))? {
        let end = size.map(|size| (at + content).saturating_add(size));
        match id {
            SEGMENT if !in_segment => {
                if let Some(end) = end.filter(|&end| end > length) {
                    return Err(truncated(path, end, length));
                }
                in_segment = true;
                at += content;
            }
            CLUSTER => return Ok(()),
            _ => match end {
                Some(end) if end < length => at = end,
                _ => break,
            },
        }
    }
    Err(Error::video(path, "the Matroska file has no frames (no cluster)"))
}

/// Why GStreamer cannot read a Matroska file's header; `None` where it can. Its demuxer then fails without an
/// error.
fn foreign_document(head: &[u8]) -> Option<String> {
    const TYPE: u32 = 0x4282;
    const READ_VERSION: u32 = 0x4285;
    let (_, start, end) = element(head)?;
    let mut rest = &head[start..end];
    while let Some((id, start, end)) = element(rest) {
        let value = &rest[start..end];
        if id == TYPE {
            let name = value.split(|&byte| byte == 0).next().unwrap_or_default();
            if !matches!(name, b"matroska" | b"webm") {
                let name = String::from_utf8_lossy(name);
                return Some(format!("the Matroska file's header is damaged: it holds a \"{name}\""));
            }
        }
        if id == READ_VERSION {
            let version = value.iter().fold(0u64, |version, &byte| version << 8 | u64::from(byte));
            if version > 2 {
                return Some(format!("the Matroska file is of version {version}, newer than 2"));
            }
        }
        rest = &rest[end..];
    }
    None
}

/// The element at an offset of the file: its id, the length of its header, and its size, if known.
fn element_at(file: &mut File, at: u64) -> std::io::Result<Option<(u32, u64, Option<u64>)>> {
    let mut head = [0u8; 12];
    let read = seek_and_read(file, at, &mut head)?;
    let head = &head[..read];
    let Some(id_length) = head.first().map(|first| first.leading_zeros() as usize + 1) else {
        return Ok(None);
    };
    if id_length > 4 {
        return Ok(None);
    }
    let Some((id, rest)) = head.split_at_checked(id_length) else { return Ok(None) };
    let id = id.iter().fold(0u32, |id, &byte| id << 8 | u32::from(byte));
    Ok(element_size(rest).map(|(size, used)| (id, (id_length + used) as u64, size)))
}

/// An EBML size and its length in bytes; `Some((None, _))` where the size is declared unknown.
fn element_size(bytes: &[u8]) -> Option<(Option<u64>, usize)> {
    let first = *bytes.first()?;
    let extra = first.leading_zeros() as usize;
    if extra >= 8 || bytes.len() <= extra {
        return None;
    }
    let mask = if extra == 7 { 0 } else { 0x7Fu8 >> extra };
    let mut value = u64::from(first & mask);
    let mut all_ones = first & mask == mask;
    for &byte in &bytes[1..=extra] {
        value = value << 8 | u64::from(byte);
        all_ones &= byte == 0xFF;
    }
    Some(((!all_ones).then_some(value), extra + 1))
}

/// The first element of `bytes`: its id, and start and end of its content; an unknown size ends with `bytes`.
pub(super) fn element(bytes: &[u8]) -> Option<(u32, usize, usize)> {
    let id_length = bytes.first()?.leading_zeros() as usize + 1;
    if id_length > 4 {
        return None;
    }
    let id = bytes.get(..id_length)?.iter().fold(0u32, |id, &byte| id << 8 | u32::from(byte));
    let (size, used) = element_size(bytes.get(id_length..)?)?;
    let content = id_length + used;
    let size = size.and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX);
    Some((id, content, content.saturating_add(size).min(bytes.len())))
}

/// Fills the buffer from an offset of the file; returns the number of bytes read.
fn seek_and_read(file: &mut File, at: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
    file.seek(SeekFrom::Start(at))?;
    let mut done = 0;
    while done < buffer.len() {
        match file.read(&mut buffer[done..])? {
            0 => break,
            read => done += read,
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn inspect_bytes(bytes: &[u8]) -> Result<Kind> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        inspect(file.path())
    }

    #[test]
    fn missing_empty_and_directory_are_named() {
        let message = |path: &Path| inspect(path).unwrap_err().to_string();
        assert!(message(Path::new("no/such.mp4")).contains("no video there"));
        assert!(message(&std::env::temp_dir()).contains("directory"));
        assert!(inspect_bytes(b"").unwrap_err().to_string().contains("empty"));
    }

    #[test]
    fn mp4_needs_whole_boxes_and_an_index() {
        let mut file = vec![0, 0, 0, 16];
        file.extend_from_slice(b"ftypisom\0\0\0\0");
        assert!(inspect_bytes(&file).unwrap_err().to_string().contains("no index"));
        file.extend_from_slice(&[0, 0, 0, 12]);
        file.extend_from_slice(b"moov");
        assert!(inspect_bytes(&file).unwrap_err().to_string().contains("cut short"));
        file.extend_from_slice(&[0; 4]);
        assert!(inspect_bytes(&file).unwrap_err().to_string().contains("no frames"));
        file.extend_from_slice(b"\0\0\0\x08mdat");
        assert_eq!(inspect_bytes(&file).unwrap(), Kind::Video(Container::Mp4));
        file[28..32].copy_from_slice(b"encv");
        assert!(inspect_bytes(&file).is_err());
    }

    #[test]
    fn a_matroska_header_must_name_a_known_document() {
        let header = |name: &[u8], version: u8| {
            let mut fields = vec![0x42, 0x86, 0x81, 1, 0x42, 0x82, 0x80 | name.len() as u8];
            fields.extend_from_slice(name);
            fields.extend_from_slice(&[0x42, 0x85, 0x81, version]);
            [&[0x1A, 0x45, 0xDF, 0xA3, 0x80 | fields.len() as u8], fields.as_slice()].concat()
        };
        assert_eq!(foreign_document(&header(b"webm", 2)), None);
        assert_eq!(foreign_document(&header(b"matroska\0\0", 1)), None);
        assert!(foreign_document(&header(b"0000", 2)).unwrap().contains("0000"));
        assert!(foreign_document(&header(b"webm", 48)).unwrap().contains("version 48"));
        assert_eq!(foreign_document(&[0x1A, 0x45, 0xDF, 0xA3]), None);
    }

    #[test]
    fn ebml_sizes() {
        assert_eq!(element_size(&[0x81]), Some((Some(1), 1)));
        assert_eq!(element_size(&[0xFF]), Some((None, 1)));
        assert_eq!(element_size(&[0x40, 0x02]), Some((Some(2), 2)));
        assert_eq!(element_size(&[0x01, 0, 0, 0, 0, 0, 1, 0]), Some((Some(256), 8)));
        assert_eq!(element_size(&[0x40]), None);
        assert_eq!(element_size(&[0x00]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_at_without_a_panic(
            head in prop::sample::select(vec![
                b"\x1A\x45\xDF\xA3".to_vec(), b"\0\0\0\x10ftyp".to_vec(), b"RIFF".to_vec(), b"GIF8".to_vec(), vec![],
            ]),
            tail in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let bytes: Vec<u8> = head.into_iter().chain(tail).collect();
            let _ = inspect_bytes(&bytes);
        }
    }
}
