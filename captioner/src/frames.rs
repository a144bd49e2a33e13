//! Frames of a split: from memory, from a cache on disk, or decoded again each epoch.

use std::borrow::Cow;
use std::path::Path;

use data::augment::Augment;
use data::datasets::Clip;
use data::frames::FrameStore;
use data::preprocess::Preprocess;
use data::progress::OnProgress;
use data::random::RandomStream;
use data::video::{FrameRequest, decode};

use crate::settings::{FrameConfig, Storage};

/// The frames of a split.
pub enum FrameSource {
    /// Decoded once, in memory or on disk.
    Stored(FrameStore),
    /// Decoded on every access, other frames each epoch.
    Live(LiveFrames),
}

/// Clips whose frames are drawn again each epoch.
pub struct LiveFrames {
    ids: Vec<String>,
    clips: Vec<Clip>,
    request: FrameRequest,
    preprocess: Preprocess,
    augment: Option<Augment>,
}

impl FrameSource {
    /// The frames of `clips`, resized to `size` pixels. With `trains`, frames are sampled and augmented each
    /// epoch where the configuration says so.
    ///
    /// # Errors
    /// The first clip that cannot be decoded; a cache that cannot be written; an invalid augmentation.
    pub fn open(
        clips: &[&Clip],
        config: &FrameConfig,
        size: usize,
        trains: bool,
        cache: &Path,
        on_progress: OnProgress<'_>,
    ) -> data::Result<Self> {
        let request = config.request(size as u32);
        if trains && config.varies() {
            if let Some(augment) = &config.augment {
                augment.validate()?;
            }
            return Ok(Self::Live(LiveFrames {
                ids: clips.iter().map(|clip| clip.id.clone()).collect(),
                clips: clips.iter().map(|&clip| clip.clone()).collect(),
                request: FrameRequest {
                    sampling: config.train_sampling.unwrap_or(config.sampling),
                    // crops are cut from whole frames
                    size: config.augment.is_none().then_some(size as u32),
                    ..request
                },
                preprocess: config.preprocess(size),
                augment: config.augment.clone(),
            }));
        }
        let folder = cache.join("frames");
        Ok(Self::Stored(match config.storage {
            Storage::Memory => FrameStore::of_clips(clips, &request, Some(&folder), on_progress)?,
            Storage::Disk => FrameStore::on_disk(clips, &request, &folder, on_progress)?,
        }))
    }

    /// Clip ids, in order.
    pub fn ids(&self) -> &[String] {
        match self {
            Self::Stored(store) => store.ids(),
            Self::Live(live) => &live.ids,
        }
    }

    /// Whether frames differ between epochs.
    pub fn varies(&self) -> bool {
        matches!(self, Self::Live(_))
    }

    /// Frames of a clip in an epoch.
    ///
    /// # Shapes
    /// - output: `[f, size, size, 3]`
    ///
    /// # Errors
    /// When the file cannot be decoded any more.
    pub fn pixels(&self, epoch: usize, item: usize) -> data::Result<Cow<'_, [u8]>> {
        match self {
            Self::Stored(store) => Ok(Cow::Borrowed(store.clip(item))),
            Self::Live(live) => live.pixels(epoch, item).map(Cow::Owned),
        }
    }
}

impl LiveFrames {
    fn pixels(&self, epoch: usize, item: usize) -> data::Result<Vec<u8>> {
        let clip = &self.clips[item];
        let mut random =
            RandomStream::new(self.request.seed, &format!("frames of {} in training", clip.id), epoch as u64);
        let frames = decode(&clip.path, &FrameRequest { seed: random.seed(), ..self.request })?;
        match &self.augment {
            None => Ok(frames.data),
            Some(augment) => {
                let crop = augment.draw(frames.height, frames.width, random.seed());
                Ok(crop.apply(&frames, &self.preprocess)?.data)
            }
        }
    }
}
