//! From clips to rows: threads decode and hash clips ahead, while the model captions one batch after the
//! other.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use data::captioned::{CaptionedRow, Status};
use data::collection::{Collection, Place, Row};
use data::loader::{Order, Plan, Position, Prefetch};
use data::preprocess::Preprocess;
use data::random::RandomStream;
use data::video::{FrameRequest, decode};
use sha2::{Digest, Sha256};

use super::CollectionError;
use crate::{Captioner, hex};

/// Batches that are decoded ahead.
const AHEAD: usize = 2;

/// A clip as the model reads it, or why it cannot be decoded.
struct Decoded {
    pixels: Result<Vec<u8>, String>,
    sha256: Option<String>,
    seconds: f64,
}

impl Decoded {
    /// Of a clip that no thread decoded, which the loader rules out.
    fn none() -> Self {
        Self { pixels: Err("no thread decoded the clip".to_owned()), sha256: None, seconds: 0.0 }
    }
}

/// Captions batches, in order, and hands out the rows of each with their numbers. Memory holds the frames of
/// three batches at most.
pub(super) fn caption(
    captioner: &Captioner,
    collection: &Collection,
    batches: Vec<Vec<Row>>,
    mut on_batch: impl FnMut(Vec<(usize, CaptionedRow)>) -> Result<(), CollectionError>,
) -> Result<(), CollectionError> {
    let is_clip = |row: &&Row| row.place.is_ok() && collection.duplicate_of(row.index).is_none();
    let clips: Vec<Row> = batches.iter().flatten().filter(is_clip).cloned().collect();
    let preprocess = captioner.preprocess();
    let request = captioner.settings().frames.request(preprocess.size);
    let ahead = AHEAD * captioner.batch_size();
    let plan = Plan::new(clips.len(), 1, Order::Sequential);
    let decode = move |_: u64, items: &[usize]| {
        Ok::<_, data::Error>(decode_clip(&clips[items[0]], &request, &preprocess))
    };
    let prefetch = Prefetch { workers: data::threads().get().min(ahead), ahead };
    let start = Position { epoch: 1, batch: 0 };
    let mut decoded = plan.load(start, prefetch, Arc::new(decode)).map_err(crate::CaptionerError::from)?;
    for batch in batches {
        let mut rows = Vec::with_capacity(batch.len());
        let (mut pixels, mut streams, mut captioned) = (Vec::new(), Vec::new(), Vec::new());
        for row in batch {
            let Row { index, id, place, extra } = row;
            let (path, status, mut error) = match (place, collection.duplicate_of(index)) {
                (Err(reason), _) => (String::new(), Status::Malformed, Some(reason)),
                (Ok(place), Some(first)) => {
                    (place.shown(), Status::Duplicate, Some(format!("row {first} has the same id")))
                }
                (Ok(place), None) => (place.shown(), Status::Ok, None),
            };
            let stream = stream(&id);
            let mut row = CaptionedRow::new(id, path, extra, status);
            if status == Status::Ok {
                let clip = decoded.next().transpose().map_err(crate::CaptionerError::from)?;
                let clip = clip.unwrap_or_else(Decoded::none);
                (row.sha256, row.seconds) = (clip.sha256, clip.seconds);
                match clip.pixels {
                    Ok(own) => {
                        pixels.extend(own);
                        streams.push(stream);
                        captioned.push(rows.len());
                    }
                    Err(reason) => (row.status, error) = (Status::Failed, Some(reason)),
                }
            }
            row.error = error;
            rows.push((index, row));
        }
        let started = Instant::now();
        let each = 1.0 / captioned.len().max(1) as f64;
        let captions = captioner.generate(pixels, streams)?;
        let seconds = started.elapsed().as_secs_f64() * each;
        for (place, captions) in captioned.into_iter().zip(captions) {
            let (_, row) = &mut rows[place];
            row.frames = captioner.settings().frames.count as u32;
            row.seconds += seconds;
            for caption in captions {
                row.captions.push(caption.text);
                row.scores.push(caption.score);
                row.log_probabilities.push(caption.log_probability);
                row.tokens.push(caption.ids.len() as u32);
            }
        }
        for (_, row) in &mut rows {
            row.seconds = (row.seconds * 1e3).round() / 1e3;
        }
        on_batch(rows)?;
    }
    Ok(())
}

/// The stream of random numbers of a clip: samples depend on its id, and not on its place.
fn stream(id: &str) -> u64 {
    let digest = Sha256::digest(id.as_bytes());
    digest.iter().take(8).fold(0, |stream, byte| stream << 8 | u64::from(*byte))
}

fn decode_clip(row: &Row, request: &FrameRequest, preprocess: &Preprocess) -> Decoded {
    let started = Instant::now();
    let request = FrameRequest { seed: RandomStream::new(request.seed, &row.id, 0).seed(), ..*request };
    let (sha256, frames) = match &row.place {
        Ok(Place::File(path)) => read_file(path, &request),
        Ok(Place::Member { archive, name, offset, length }) => {
            read_member(archive, name, *offset..offset + length, &request)
        }
        Err(reason) => (None, Err(reason.clone())),
    };
    let pixels = frames.map(|frames| {
        let mut pixels = Vec::new();
        preprocess.channels_first(&frames.data, &mut pixels);
        pixels
    });
    Decoded { pixels, sha256, seconds: started.elapsed().as_secs_f64() }
}

/// The digest of a file, if it could be read, and its frames.
type Hashed = (Option<String>, Result<data::video::Frames, String>);

/// Hashes and decodes a file. One that changes meanwhile is being written.
fn read_file(path: &Path, request: &FrameRequest) -> Hashed {
    let state = || -> Option<(u64, SystemTime)> {
        let file = std::fs::metadata(path).ok()?;
        Some((file.len(), file.modified().ok()?))
    };
    let before = state();
    let sha256 = data::digest::sha256(path).ok().map(|digest| digest[..16].to_owned());
    let frames = decode(path, request).map_err(|error| error.to_string());
    if before.is_some() && state() != before {
        let reason = "the file changed while it was read, so that it is being written; --retry-failed captions it later";
        return (None, Err(format!("{reason}: {}", path.display())));
    }
    (sha256, frames)
}

/// Decodes a member of an archive from a temporary file.
fn read_member(archive: &Path, name: &str, bytes: std::ops::Range<u64>, request: &FrameRequest) -> Hashed {
    let unpack = || -> std::io::Result<(tempfile::TempPath, String)> {
        let mut file = File::open(archive)?;
        file.seek(SeekFrom::Start(bytes.start))?;
        let mut content = Vec::new();
        file.take(bytes.end - bytes.start).read_to_end(&mut content)?;
        let extension = Path::new(name).extension().unwrap_or_default().to_string_lossy();
        let mut clip = tempfile::Builder::new().suffix(&format!(".{extension}")).tempfile()?;
        clip.write_all(&content)?;
        Ok((clip.into_temp_path(), hex(&Sha256::digest(&content)[..8])))
    };
    match unpack() {
        Ok((path, sha256)) => {
            let shown = format!("{}/{name}", archive.display());
            let temporary = path.display().to_string();
            let readable = |error: data::Error| error.to_string().replace(&temporary, &shown);
            (Some(sha256), decode(&path, request).map_err(readable))
        }
        Err(error) => (None, Err(format!("could not read the clip: {error}: {}/{name}", archive.display()))),
    }
}
