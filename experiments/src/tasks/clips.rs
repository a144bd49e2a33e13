//! The clips of a run: those of the tiny world, which is made when it is needed, or those of a data set on
//! disk.

use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, bail, ensure};
use captioner::{FrameConfig, FrameSource, Videos};
use data::datasets::decodable::undecodable;
use data::datasets::{Clip, Split, VideoSet, open};
use data::format::thousands;
use data::tiny_world::scene::Scene;
use data::tiny_world::{World, WorldConfig};
use metrics::meteor::MeteorTables;
use model::Blip2;
use train::TrainConfig;

use super::Task;
use crate::config::{DatasetConfig, RunConfig};
use crate::runtime::{Caches, ProgressBars, Session, note, open_world};

/// Annotated clips with the frames of a configuration. The frames of a split are decoded when they are first
/// needed; views of training clips are drawn for each run, from its seed.
pub(crate) struct Clips {
    key: Key,
    world: Option<World>,
    set: VideoSet,
    hash: String,
    batch_size: usize,
    caches: Caches,
    /// As validation and test need them.
    frames: [OnceLock<Arc<FrameSource>>; 3],
    /// The training split as training needs it, where views do not depend on the run.
    trained: OnceLock<Arc<FrameSource>>,
}

/// Everything that decides which frames of which clips are read.
#[derive(Clone, PartialEq)]
struct Key {
    task: &'static str,
    world: WorldConfig,
    dataset: Option<DatasetConfig>,
    frames: FrameConfig,
    size: usize,
}

impl Key {
    fn of(config: &RunConfig, task: &dyn Task, size: usize) -> Self {
        let (world, dataset, frames) = (config.world.clone(), config.dataset.clone(), config.frames.clone());
        Self { task: task.name(), world, dataset, frames, size }
    }
}

impl Clips {
    /// Opens or makes the clips of a configuration, whose frames have `size` pixels a side: of all splits to
    /// train, or of the split that is `evaluated`. Clips that cannot be decoded are named and left out, as
    /// one damaged file must not end a run.
    pub(crate) fn open(
        config: &RunConfig,
        task: &dyn Task,
        size: usize,
        caches: &Caches,
        evaluated: Option<Split>,
    ) -> anyhow::Result<Self> {
        let (decoded, trained): ([OnceLock<Arc<FrameSource>>; 3], OnceLock<_>) = Default::default();
        let needed = evaluated.map_or(Split::ALL.to_vec(), |split| vec![split]);
        let (world, set, hash) = match &config.dataset {
            Some(dataset) => {
                let mut set = open(&dataset.place())?;
                set.notes.iter().for_each(|line| note(&format!("note: {line}")));
                for split in needed {
                    let is_trained_on = split == Split::Train && evaluated.is_none();
                    let place = if is_trained_on { &trained } else { &decoded[split as usize] };
                    let frames =
                        decode_or_leave_out(&mut set, split, is_trained_on, &config.frames, size, caches)?;
                    frames.map(|frames| place.get_or_init(|| Arc::new(frames)));
                }
                for split in Split::ALL {
                    note(&format!("{:<9} {}", split.name(), set.usage(split)));
                }
                // the folder of the decoded frames has the digests of the same files
                let hash = set.content_hash(&caches.folder().join("frames"))?;
                (None, set, hash)
            }
            None => {
                let world = open_world(&config.world, caches.folder())?;
                let (set, hash) = (task.videos(&world)?, world.hash().to_owned());
                (Some(world), set, hash)
            }
        };
        let (key, batch_size) = (Key::of(config, task, size), config.evaluate.batch_size);
        Ok(Self { key, world, set, hash, batch_size, caches: caches.clone(), frames: decoded, trained })
    }

    /// The same in all processes, which share what is to be decoded. The tiny world is made by the first.
    pub(crate) fn open_together(
        config: &RunConfig,
        task: &dyn Task,
        size: usize,
        session: &Session,
        evaluated: Option<Split>,
    ) -> anyhow::Result<Self> {
        let open = || Self::open(config, task, size, &session.caches, evaluated);
        if config.dataset.is_some() { session.agree(open()) } else { session.in_turn(open) }
    }

    /// Whether a configuration reads the same frames of the same clips.
    pub(crate) fn is_of(&self, config: &RunConfig, task: &dyn Task, size: usize) -> bool {
        self.key == Key::of(config, task, size)
    }

    /// Name of the data set.
    pub(crate) fn name(&self) -> &str {
        &self.set.name
    }

    /// Hash of clips and annotations.
    pub(crate) fn hash(&self) -> &str {
        &self.hash
    }

    /// The tiny world, where the clips are of it.
    pub(crate) fn world(&self) -> Option<&World> {
        self.world.as_ref()
    }

    /// The content of a clip of the tiny world.
    pub(crate) fn scene(&self, id: &str) -> Option<&Scene> {
        Some(&self.world.as_ref()?.truth(id)?.scene)
    }

    /// The clips of a split, in the order of the frames.
    pub(crate) fn split(&self, split: Split) -> Vec<&Clip> {
        self.set.split(split)
    }

    /// METEOR's tables; none where they are not installed.
    pub(crate) fn meteor_tables(&self) -> Result<Option<MeteorTables>, metrics::Error> {
        match self.caches.meteor_tables(None) {
            Ok(tables) => Ok(Some(tables)),
            Err(metrics::Error::NoMeteorTables { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The input of a model for a split: frames, or the features of its ViT where `training` freezes it. With
    /// a `seed`, that of a run that trains on the split, clips have the views of training.
    pub(crate) fn videos(
        &self,
        split: Split,
        model: &Blip2,
        training: &TrainConfig,
        seed: Option<u64>,
    ) -> anyhow::Result<Videos> {
        let Key { frames, size, .. } = &self.key;
        let videos = Videos::new(self.frames(split, seed)?, frames.clone(), *size);
        let bars = ProgressBars::default();
        let trains = |name: &str| training.parameters.trains(name);
        let cache = self.caches.folder();
        Ok(videos
            .with_frozen_vit(model, trains, self.batch_size, cache, &|progress| bars.update(progress))?)
    }

    fn frames(&self, split: Split, seed: Option<u64>) -> anyhow::Result<Arc<FrameSource>> {
        let place = if seed.is_some() { &self.trained } else { &self.frames[split as usize] };
        if let Some(frames) = place.get() {
            return Ok(frames.clone());
        }
        let clips = self.split(split);
        ensure!(!clips.is_empty(), "{} has no clips in its split {split}", self.set.name);
        let bars = ProgressBars::default();
        let show = |progress| bars.update(progress);
        let Key { frames, size, .. } = &self.key;
        let is_drawn = seed.is_some() && frames.varies();
        let frames = FrameSource::open(&clips, frames, *size, seed, self.caches.folder(), &show)
            .with_context(|| format!("cannot read the {split} clips of {}", self.set.name))?;
        let frames = Arc::new(frames);
        // other runs draw other views
        Ok(if is_drawn { frames } else { place.get_or_init(|| frames).clone() })
    }
}

/// Decodes the clips of a split, where their frames are the same in every run. Clips that cannot be decoded
/// are named and left out of the set.
fn decode_or_leave_out(
    set: &mut VideoSet,
    split: Split,
    is_trained_on: bool,
    frames: &FrameConfig,
    size: usize,
    caches: &Caches,
) -> anyhow::Result<Option<FrameSource>> {
    let bars = ProgressBars::default();
    let show = |progress| bars.update(progress);
    let clips = set.split(split);
    if !(is_trained_on && frames.varies()) {
        // no rule of training draws, so that any seed gives the same frames
        let training = is_trained_on.then_some(0);
        let decoded = FrameSource::open(&clips, frames, size, training, caches.folder(), &show);
        if clips.is_empty() || decoded.is_ok() {
            return Ok(decoded.ok());
        }
    }
    let (request, folder) = (frames.request(size as u32), caches.folder().join("frames"));
    let found = undecodable(&clips, &request, &folder, &show)?;
    drop(bars);
    if found.len() == clips.len()
        && let Some(first) = found.first()
    {
        let (count, name) = (thousands(clips.len()), &set.name);
        bail!("none of the {count} {split} clips of {name} can be decoded, first: {}", first.error);
    }
    for clip in &found {
        note(&format!("warning: left out of {split}: {}: {}", clip.id, clip.error));
    }
    set.leave_out(found);
    Ok(None)
}

#[cfg(test)]
mod tests;
