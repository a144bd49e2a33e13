//! Frames in memory: every clip's chosen frames, or every image, decoded once.

use crate::datasets::Clip;
use crate::datasets::pairs::PairSet;
use crate::error::{Error, Result};
use crate::preprocess;
use crate::progress::{Counter, OnProgress};
use crate::random::RandomStream;
use crate::store::{digest_file, hex, write_whole};
use crate::video::{self, FrameRequest, Frames};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::path::Path;

/// Changes whenever the same file and request would give other frames.
const READER: u32 = 3;

/// Every clip's chosen frames, or every image, decoded and resized once.
#[derive(Clone, PartialEq, Eq)]
pub struct FrameStore {
    ids: Vec<String>,
    frames: usize,
    size: usize,
    data: Vec<u8>,
}

impl std::fmt::Debug for FrameStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FrameStore [{}, {}, {}, {}, 3]", self.ids.len(), self.frames, self.size, self.size)
    }
}

impl FrameStore {
    /// Decodes and resizes the chosen frames of clips, in parallel, one clip a thread.
    ///
    /// With a `cache` directory the result is kept there, under a name made from the request and the files' content,
    /// and read from there next time.
    ///
    /// # Errors
    /// The first clip that cannot be decoded; a request without a size; a cache that cannot be written.
    pub fn of_clips(
        clips: &[&Clip],
        request: &FrameRequest,
        cache: Option<&Path>,
        on_progress: OnProgress<'_>,
    ) -> Result<Self> {
        let Some(size) = request.size else {
            return Err(Error::Setting {
                key: "size",
                expected: "a number of pixels".into(),
                got: "none".into(),
            });
        };
        let ids = clips.iter().map(|clip| clip.id.clone()).collect();
        let store = Self { ids, frames: request.frames, size: size as usize, data: Vec::new() };
        let key = || {
            let mut key = Sha256::new();
            key.update(format!("clips {READER} {request:?}"));
            for clip in clips {
                digest_file(&mut key, &clip.id, &clip.path)?;
            }
            Ok(hex(key))
        };
        store.cached(cache, key, |data| {
            let counter = Counter::new("decoding clips", clips.len(), on_progress);
            data.par_chunks_exact_mut(store.bytes_each()).zip(clips).try_for_each(|(place, clip)| {
                let own =
                    FrameRequest { seed: RandomStream::new(request.seed, &clip.id, 0).seed(), ..*request };
                place.copy_from_slice(&video::decode(&clip.path, &own)?.data);
                counter.add(1);
                Ok(())
            })
        })
    }

    /// Decodes and resizes every image of a set of pairs; a store with one frame each.
    ///
    /// # Errors
    /// The first image that cannot be decoded; a cache that cannot be written.
    pub fn of_pairs(
        pairs: &PairSet,
        size: u32,
        cache: Option<&Path>,
        on_progress: OnProgress<'_>,
    ) -> Result<Self> {
        let ids = pairs.pairs.iter().map(|pair| pair.id.clone()).collect();
        let store = Self { ids, frames: 1, size: size as usize, data: Vec::new() };
        let key = || {
            let mut key = Sha256::new();
            key.update(format!("pairs {READER} {size}"));
            for file in pairs.files() {
                digest_file(&mut key, "", file)?;
            }
            Ok(hex(key))
        };
        store.cached(cache, key, |data| {
            let counter = Counter::new("decoding images", pairs.pairs.len(), on_progress);
            data.par_chunks_exact_mut(store.bytes_each()).zip(&pairs.pairs).try_for_each(|(place, pair)| {
                let image = image::load_from_memory(&pairs.image_bytes(pair)?)
                    .map_err(|error| Error::video(&pairs.place(pair), error.to_string()))?
                    .into_rgb8();
                let (width, height) = (image.width() as usize, image.height() as usize);
                let frame = Frames { count: 1, height, width, data: image.into_raw() };
                place.copy_from_slice(&preprocess::resize(&frame, size)?.data);
                counter.add(1);
                Ok(())
            })
        })
    }

    /// One clip's frames.
    ///
    /// # Shapes
    /// returns `[f, size, size, 3]`; empty where there is no such clip
    #[must_use]
    pub fn clip(&self, index: usize) -> &[u8] {
        let each = self.bytes_each();
        self.data.get(index * each..(index + 1) * each).unwrap_or_default()
    }

    /// Number of clips or images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The clips' names, in the order of [`Self::clip`].
    #[must_use]
    pub fn ids(&self) -> &[String] {
        &self.ids
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

    fn bytes_each(&self) -> usize {
        self.frames * self.size * self.size * 3
    }

    /// Reads the data from the cache, or makes it and puts it there.
    fn cached(
        &self,
        cache: Option<&Path>,
        key: impl Fn() -> Result<String>,
        make: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<Self> {
        let path = match cache {
            Some(cache) => Some(cache.join(format!("frames-{}.u8", key()?))),
            None => None,
        };
        let bytes = self.ids.len() * self.bytes_each();
        if let Some(path) = path.as_ref().filter(|path| path.is_file()) {
            let data = std::fs::read(path).map_err(Error::io("read the cached frames", path))?;
            // The name tells the content, so only a file that something else cut short can have another length.
            if data.len() == bytes {
                return Ok(Self { data, ..self.clone() });
            }
        }
        let mut data = vec![0; bytes];
        make(&mut data)?;
        if let Some(path) = &path {
            write_whole(path, &data)?;
        }
        Ok(Self { data, ..self.clone() })
    }
}
