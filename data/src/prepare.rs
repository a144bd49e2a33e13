//! Decoding every clip once, ahead of training: chosen frames, resized, in shards that training maps into memory.
//!
//! A folder of prepared frames can be made in several goes: finished shards are kept, and only those whose clips,
//! files or request changed are made again.

use crate::datasets::Clip;
use crate::error::{Error, Result};
use crate::progress::{Counter, OnProgress};
use crate::random::RandomStream;
use crate::shards::{Element, Header, Index, IndexEntry, Shard, Writer, is_finished, shard_name};
use crate::store::{digest_file, hex};
use crate::video::{self, FrameRequest};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const KIND: &str = "frames";

/// Changes whenever the same file and request would give other frames.
const READER: u32 = 2;

/// Clips of a shard: 256 clips of eight frames of 224 pixels are 308 MB.
pub const CLIPS_PER_SHARD: usize = 256;

/// What preparing did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Where the frames lie: a folder of its own for each request, so that requests don't disturb each other.
    pub folder: PathBuf,
    /// Clips that were decoded now.
    pub decoded: usize,
    /// Clips that an earlier run had decoded.
    pub kept: usize,
    /// Bytes of all frames.
    pub bytes: u64,
}

/// The folder below `out` that holds the frames of a request.
#[must_use]
pub fn folder(out: &Path, request: &FrameRequest) -> PathBuf {
    let mut key = Sha256::new();
    key.update(words(request));
    out.join(format!("{KIND}-{}", hex(key)))
}

/// What frames are made from, but for the clips, in words.
fn words(request: &FrameRequest) -> String {
    format!("reader {READER}, {request:?}")
}

/// Decodes the chosen frames of every clip into shards below `out`, on all cores, with no more than a clip a core in
/// memory. What an interrupted run has finished is kept.
///
/// # Errors
/// The first clip that cannot be decoded, with the rest of its shard undone; a request without a size; a folder that
/// cannot be written.
pub fn prepare(
    clips: &[&Clip],
    request: &FrameRequest,
    out: &Path,
    on_progress: OnProgress<'_>,
) -> Result<Prepared> {
    prepare_in_shards(clips, request, out, CLIPS_PER_SHARD, on_progress)
}

pub(crate) fn prepare_in_shards(
    clips: &[&Clip],
    request: &FrameRequest,
    out: &Path,
    per_shard: usize,
    on_progress: OnProgress<'_>,
) -> Result<Prepared> {
    let size = size_of(request)?;
    let folder = folder(out, request);
    let counter = Counter::new("preparing clips", clips.len(), on_progress);
    let mut entries = Vec::new();
    let mut prepared = Prepared { folder: folder.clone(), decoded: 0, kept: 0, bytes: 0 };
    for (number, clips) in clips.chunks(per_shard.max(1)).enumerate() {
        let header = Header {
            kind: KIND.into(),
            key: key_of(clips, request)?,
            element: Element::U8,
            shape: vec![request.frames, size, size, 3],
            ids: clips.iter().map(|clip| clip.id.clone()).collect(),
        };
        let file = shard_name(KIND, number);
        let path = folder.join(&file);
        if is_finished(&path, &header) {
            prepared.kept += clips.len();
            counter.add(clips.len());
        } else {
            let writer = Writer::create(&path, &header)?;
            clips.par_iter().enumerate().try_for_each(|(item, clip)| {
                writer.put(item, &video::decode(&clip.path, &request_of(clip, request))?.data)?;
                counter.add(1);
                Ok::<(), Error>(())
            })?;
            writer.finish()?;
            prepared.decoded += clips.len();
        }
        prepared.bytes += (header.each().unwrap_or(0) * clips.len()) as u64;
        entries.push(IndexEntry { file, key: header.key, items: clips.len() });
    }
    Index { kind: KIND.into(), made_from: words(request), shards: entries }.write(&folder)?;
    Ok(prepared)
}

fn size_of(request: &FrameRequest) -> Result<usize> {
    let expected = || "a number of pixels".to_owned();
    match request.size {
        Some(size) if size > 0 => Ok(size as usize),
        Some(_) => Err(Error::Setting { key: "size", expected: expected(), got: "0".into() }),
        None => Err(Error::Setting { key: "size", expected: expected(), got: "none".into() }),
    }
}

/// A clip's own draws follow from its id, as everywhere.
fn request_of(clip: &Clip, request: &FrameRequest) -> FrameRequest {
    FrameRequest { seed: RandomStream::new(request.seed, &clip.id, 0).seed(), ..*request }
}

fn key_of(clips: &[&Clip], request: &FrameRequest) -> Result<String> {
    let mut key = Sha256::new();
    key.update(words(request));
    for clip in clips {
        digest_file(&mut key, &clip.id, &clip.path)?;
    }
    Ok(hex(key))
}

/// Prepared frames, mapped into memory.
pub struct PreparedFrames {
    shards: Vec<Shard>,
    places: HashMap<String, (usize, usize)>,
    frames: usize,
    size: usize,
}

impl std::fmt::Debug for PreparedFrames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PreparedFrames [{}, {}, {}, {}, 3]", self.places.len(), self.frames, self.size, self.size)
    }
}

impl PreparedFrames {
    /// Opens the frames that [`prepare`] made for a request below `out`.
    ///
    /// # Errors
    /// There are none, preparing was interrupted, or a shard is broken.
    pub fn open(out: &Path, request: &FrameRequest) -> Result<Self> {
        let size = size_of(request)?;
        let folder = folder(out, request);
        let shards = Index::read(&folder)?.open(&folder, KIND)?;
        let mut places = HashMap::new();
        for (number, shard) in shards.iter().enumerate() {
            let Header { element, shape, ids, .. } = &shard.header;
            if (*element, shape.as_slice()) != (Element::U8, &[request.frames, size, size, 3]) {
                let reason = format!("expected {} frames of {size} pixels, got {shape:?}", request.frames);
                let path = folder.join(shard_name(KIND, number));
                return Err(Error::malformed("prepared data", &path, "shape", reason));
            }
            places.extend(ids.iter().enumerate().map(|(item, id)| (id.clone(), (number, item))));
        }
        Ok(Self { shards, places, frames: request.frames, size })
    }

    /// Reads everything and compares the hashes.
    ///
    /// # Errors
    /// A shard whose content changed.
    pub fn verify(&self) -> Result<()> {
        self.shards.iter().try_for_each(Shard::verify)
    }

    /// One clip's frames.
    ///
    /// # Shapes
    /// `[f, size, size, 3]`
    ///
    /// # Errors
    /// The clip was not prepared.
    pub fn clip(&self, id: &str) -> Result<&[u8]> {
        let (shard, item) = self.places.get(id).ok_or_else(|| Error::NotFound {
            what: "prepared clip",
            path: PathBuf::from(id),
            next: "the data set changed since `experiments data prepare`; run it again".into(),
        })?;
        Ok(self.shards[*shard].item(*item))
    }

    /// Number of clips.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Frames of each clip.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Side of a frame in pixels.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }
}
