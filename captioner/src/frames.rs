//! Frames of a split: stored in memory or on disk, or drawn from the video files for each example.

use std::borrow::Cow;
use std::path::Path;

use data::datasets::Clip;
use data::frames::FrameStore;
use data::progress::OnProgress;
use data::views::ViewRequest;

use crate::settings::{FrameConfig, Storage};

/// The frames of a split.
pub enum FrameSource {
    /// Decoded once.
    Stored(StoredFrames),
    /// Decoded on every access: each example draws a new view in each epoch.
    Live(LiveFrames),
}

/// What an example shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// Index of the clip in the split.
    pub clip: usize,
    /// Number of the example among those of the clip: its captions, or its questions.
    pub example: usize,
}

impl Shown {
    /// Clips with one example each.
    pub fn once(clips: &[usize]) -> Vec<Self> {
        clips.iter().map(|&clip| Self { clip, example: 0 }).collect()
    }
}

/// A fixed number of views of every clip; one where nothing is drawn.
pub struct StoredFrames {
    store: FrameStore,
    ids: Vec<String>,
    views: usize,
}

/// Clips whose views are drawn when they are asked for.
pub struct LiveFrames {
    ids: Vec<String>,
    clips: Vec<Clip>,
    views: ViewRequest,
}

impl FrameSource {
    /// The frames of `clips`, resized to `size` pixels. With `training`, the seed of a run, they are chosen
    /// and drawn as training needs them. Without it they are the same for all runs.
    ///
    /// # Errors
    /// The first clip that cannot be decoded; a cache that cannot be written; an invalid augmentation.
    pub fn open(
        clips: &[&Clip],
        config: &FrameConfig,
        size: usize,
        training: Option<u64>,
        cache: &Path,
        on_progress: OnProgress<'_>,
    ) -> data::Result<Self> {
        let size = size as u32;
        let ids = || clips.iter().map(|clip| clip.id.clone()).collect();
        let folder = cache.join("frames");
        let request = match training {
            Some(seed) if config.varies() => {
                let views = config.training(size, seed);
                views.check()?;
                let Some(count) = config.stored_views() else {
                    let clips = clips.iter().map(|&clip| clip.clone()).collect();
                    return Ok(Self::Live(LiveFrames { ids: ids(), clips, views }));
                };
                let store = match config.storage {
                    Storage::Memory => {
                        FrameStore::of_views(clips, &views, count, Some(&folder), on_progress)?
                    }
                    Storage::Disk => FrameStore::views_on_disk(clips, &views, count, &folder, on_progress)?,
                };
                return Ok(Self::Stored(StoredFrames { store, ids: ids(), views: count }));
            }
            // no rule draws, so the seed has no effect
            Some(_) => config.training(size, 0).request,
            None => config.request(size),
        };
        let store = match config.storage {
            Storage::Memory => FrameStore::of_clips(clips, &request, Some(&folder), on_progress)?,
            Storage::Disk => FrameStore::on_disk(clips, &request, &folder, on_progress)?,
        };
        Ok(Self::Stored(StoredFrames::of(store)))
    }

    /// Clip ids, in order.
    pub fn ids(&self) -> &[String] {
        match self {
            Self::Stored(stored) => &stored.ids,
            Self::Live(live) => &live.ids,
        }
    }

    /// Frames of an example in an epoch, counted from 1.
    ///
    /// # Shapes
    /// - output: `[f, size, size, 3]`
    ///
    /// # Errors
    /// When the file cannot be decoded any more.
    pub fn pixels(&self, epoch: usize, shown: Shown) -> data::Result<Cow<'_, [u8]>> {
        match self {
            Self::Stored(stored) => Ok(Cow::Borrowed(stored.store.clip(stored.item(epoch, shown)))),
            Self::Live(LiveFrames { clips, views, .. }) => {
                let frames = views.draw(&clips[shown.clip], epoch as u64, shown.example as u64)?;
                Ok(Cow::Owned(frames.data))
            }
        }
    }
}

impl StoredFrames {
    /// One view of every clip.
    pub fn of(store: FrameStore) -> Self {
        Self { ids: store.ids().to_vec(), store, views: 1 }
    }

    /// All views of all clips, clip by clip.
    pub fn store(&self) -> &FrameStore {
        &self.store
    }

    /// The view, as its index in [`Self::store`], of an example in an epoch. The examples of a clip have
    /// different views as far as there are enough, and each goes through all of them, epoch by epoch.
    pub fn item(&self, epoch: usize, shown: Shown) -> usize {
        shown.clip * self.views + (epoch + shown.example) % self.views
    }
}
