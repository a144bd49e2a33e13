//! The tiny world in memory: made on demand, decoded once, cached by content.

use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::Context;
use data::datasets::synthetic::{World, WorldConfig};
use data::datasets::{Clip, Split, VideoSet};
use data::loader::FrameStore;
use data::progress::Progress;
use data::video::FrameRequest;
use indicatif::{ProgressBar, ProgressStyle};

use crate::config::RunConfig;

/// A world with the frames that a configuration asks for.
pub struct LoadedWorld {
    /// The world on disk.
    pub world: World,
    videos: VideoSet,
    frames: [FrameStore; 3],
}

impl LoadedWorld {
    /// Opens or makes the world in `cache`, and decodes the chosen frames of every clip at the model's size.
    ///
    /// # Errors
    /// When files cannot be written or read, or a clip cannot be decoded.
    pub fn load(config: &RunConfig, size: usize, cache: &Path) -> anyhow::Result<Self> {
        let world = make(&config.world, cache)?;
        let videos = world.videos()?;
        let request = FrameRequest {
            sampling: config.frames.sampling,
            ..FrameRequest::uniform(config.frames.count, size as u32)
        };
        let shown = Shown::default();
        let decode = |split| {
            FrameStore::of_clips(&videos.split(split), &request, Some(cache), &|progress| {
                shown.update(progress);
            })
            .with_context(|| format!("cannot read the {split} clips of the tiny world"))
        };
        let frames = [decode(Split::Train)?, decode(Split::Validate)?, decode(Split::Test)?];
        shown.finish();
        Ok(Self { world, videos, frames })
    }

    /// The clips of a split, in the frames' order.
    pub fn clips(&self, split: Split) -> Vec<&Clip> {
        self.videos.split(split)
    }

    /// The frames of a split.
    pub fn frames(&self, split: Split) -> &FrameStore {
        let [train, validate, test] = &self.frames;
        match split {
            Split::Train => train,
            Split::Validate => validate,
            Split::Test => test,
        }
    }
}

/// Opens the world of a configuration in the cache, or makes it there.
///
/// # Errors
/// When files cannot be written or read.
pub fn make(config: &WorldConfig, cache: &Path) -> anyhow::Result<World> {
    let shown = Shown::default();
    let world = World::open_or_make(config, cache, &|progress| shown.update(progress))
        .with_context(|| format!("cannot make the tiny world in {}", cache.display()))?;
    shown.finish();
    Ok(world)
}

/// Makes a world in a folder of its own.
///
/// # Errors
/// When files cannot be written.
pub fn synthesize(config: &WorldConfig, out: &Path) -> anyhow::Result<World> {
    let shown = Shown::default();
    let world = data::datasets::synthetic::synthesize(config, out, &|progress| shown.update(progress))
        .with_context(|| format!("cannot make the tiny world in {}", out.display()))?;
    shown.finish();
    Ok(world)
}

/// A progress bar a stage on a terminal; a line at each stage's end elsewhere.
#[derive(Default)]
pub struct Shown(Mutex<Option<Stage>>);

struct Stage {
    name: &'static str,
    bar: ProgressBar,
    started: Instant,
    total: usize,
}

impl Shown {
    /// Takes news of a stage, from any thread.
    pub fn update(&self, progress: Progress) {
        let mut stage = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if stage.as_ref().is_none_or(|stage| stage.name != progress.stage) {
            finish(stage.take());
            let style = ProgressStyle::with_template("{msg:<18} {wide_bar} {pos}/{len} {elapsed}");
            let bar = ProgressBar::new(progress.total as u64).with_message(progress.stage);
            let bar = style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style));
            let (name, total) = (progress.stage, progress.total);
            *stage = Some(Stage { name, bar, started: Instant::now(), total });
        }
        if let Some(stage) = stage.as_mut() {
            stage.total = stage.total.max(progress.total);
            stage.bar.set_length(stage.total as u64);
            stage.bar.set_position(stage.bar.position().max(progress.done as u64));
        }
    }

    /// Ends the last stage.
    pub fn finish(&self) {
        finish(self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take());
    }
}

fn finish(stage: Option<Stage>) {
    if let Some(Stage { name, bar, started, total }) = stage {
        bar.finish_and_clear();
        eprintln!("{name}: {total} in {:.1} s", started.elapsed().as_secs_f64());
    }
}
