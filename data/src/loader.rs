//! Frames in memory and clips in order: what a training loop draws its batches from.

use crate::datasets::Clip;
use crate::datasets::pairs::PairSet;
use crate::error::{Error, Result};
use crate::preprocess;
use crate::progress::{Counter, OnProgress};
use crate::random::Draws;
use crate::store::{digest_file, hex, write_whole};
use crate::video::{self, FrameRequest, Frames};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::path::Path;

/// Changes whenever the same file and request would give other frames.
const READER: u32 = 1;

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
                let own = FrameRequest { seed: Draws::new(request.seed, &clip.id, 0).seed(), ..*request };
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
            for shard in pairs.shards() {
                digest_file(&mut key, "", shard)?;
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

/// One thing to train on: a clip, one of its captions, and a seed for whatever is random about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// The clip's index in its split.
    pub clip: usize,
    /// The caption's index in the clip.
    pub caption: usize,
    /// Differs for each clip and epoch.
    pub seed: u64,
}

/// An epoch's items in order. It follows from (seed, epoch) alone, so a position in it is all that a resumed run needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch {
    items: Vec<Item>,
}

impl Epoch {
    /// Each clip once, in random order, with one of its captions, each as likely.
    ///
    /// `captions` holds the number of captions of each clip; a clip without one is left out, since nothing can be
    /// learned from it.
    #[must_use]
    pub fn shuffled(captions: &[usize], seed: u64, epoch: u64) -> Self {
        let mut items: Vec<Item> = captions
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(clip, &count)| {
                let mut draws =
                    Draws::new(Draws::new(seed, "epoch: item", epoch).seed(), "clip", clip as u64);
                Item { clip, caption: draws.below(count), seed: draws.seed() }
            })
            .collect();
        Draws::new(seed, "epoch: order", epoch).shuffle(&mut items);
        Self { items }
    }

    /// The items from batch `first` on, `batch` at a time, the last batch perhaps smaller.
    ///
    /// # Panics
    /// Never: a batch of 0 counts as 1.
    pub fn batches_from(&self, batch: usize, first: usize) -> impl Iterator<Item = &[Item]> {
        self.items.chunks(batch.max(1)).skip(first)
    }

    /// The items, `batch` at a time, the last batch perhaps smaller.
    pub fn batches(&self, batch: usize) -> impl Iterator<Item = &[Item]> {
        self.batches_from(batch, 0)
    }

    /// Every item in order.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        &self.items
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_epoch_holds_each_clip_once() {
        let captions: Vec<usize> = (0..50).map(|clip| clip % 4).collect();
        let epoch = Epoch::shuffled(&captions, 1, 0);
        let mut clips: Vec<usize> = epoch.items().iter().map(|item| item.clip).collect();
        assert!(epoch.items().iter().all(|item| item.caption < captions[item.clip]));
        clips.sort_unstable();
        let expected: Vec<usize> = (0..50).filter(|clip| captions[*clip] > 0).collect();
        assert_eq!(clips, expected);
    }

    #[test]
    fn epochs_differ_and_seeds_differ() {
        let captions = [20; 40];
        let order = |seed, epoch| Epoch::shuffled(&captions, seed, epoch);
        assert_eq!(order(1, 2), order(1, 2));
        assert_ne!(order(1, 2), order(1, 3));
        assert_ne!(order(1, 2), order(2, 2));
        // A clip's caption follows from (seed, epoch, clip), not from where it stands.
        let one = Epoch::shuffled(&captions[..10], 1, 2);
        for item in one.items() {
            assert!(order(1, 2).items().contains(item));
        }
    }

    #[test]
    fn every_caption_has_its_turn() {
        let mut counts = [0; 5];
        for epoch in 0..1000 {
            counts[Epoch::shuffled(&[5], 3, epoch).items()[0].caption] += 1;
        }
        assert!(counts.iter().all(|count| (140..260).contains(count)), "{counts:?}");
    }

    proptest! {
        #[test]
        fn a_resumed_epoch_goes_on_where_it_stopped(clips in 0usize..60, batch in 0usize..9, done in 0usize..70) {
            let epoch = Epoch::shuffled(&vec![3; clips], 0, 0);
            let all: Vec<&[Item]> = epoch.batches(batch).collect();
            let rest: Vec<&[Item]> = epoch.batches_from(batch, done).collect();
            prop_assert_eq!(&all[done.min(all.len())..], &rest[..]);
        }
    }
}
