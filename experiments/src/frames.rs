//! Where the frames of a split come from: memory, a cache on disk, or the files themselves; and what a frozen ViT makes
//! of them, computed once.

use std::borrow::Cow;
use std::path::Path;

use anyhow::{Context as _, ensure};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use data::augment::Augment;
use data::datasets::Clip;
use data::features::{FeatureItem, FeatureKey, Features};
use data::frames::FrameStore;
use data::preprocess::Preprocess;
use data::progress::OnProgress;
use data::random::RandomStream;
use data::video::{FrameRequest, decode};
use sha2::{Digest, Sha256};
use train::Captioner;

use crate::config::{FrameConfig, Keep, hex};

/// The frames of a split.
pub enum FrameSource {
    /// Decoded once, in memory or on disk.
    Stored(FrameStore),
    /// Read from the video files whenever they are asked for, each epoch other ones.
    Live(LiveFrames),
}

/// Clips that every epoch sees differently.
pub struct LiveFrames {
    ids: Vec<String>,
    clips: Vec<Clip>,
    request: FrameRequest,
    preprocess: Preprocess,
    augment: Option<Augment>,
}

impl FrameSource {
    /// The frames that a configuration asks for. `trains` says that they are learned from: then they may be drawn and
    /// varied anew each epoch.
    ///
    /// # Errors
    /// The first clip that cannot be decoded; a cache that cannot be written; an augmentation that cannot be.
    pub fn open(
        clips: &[&Clip],
        config: &FrameConfig,
        size: usize,
        trains: bool,
        cache: &Path,
        on_progress: OnProgress<'_>,
    ) -> anyhow::Result<Self> {
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
                    // a crop is cut out of the whole frame
                    size: config.augment.is_none().then_some(size as u32),
                    ..request
                },
                preprocess: config.preprocess(size),
                augment: config.augment.clone(),
            }));
        }
        let folder = cache.join("frames");
        let frames = match config.keep {
            Keep::Memory => FrameStore::of_clips(clips, &request, Some(&folder), on_progress)?,
            Keep::Disk => FrameStore::on_disk(clips, &request, &folder, on_progress)?,
        };
        Ok(Self::Stored(frames))
    }

    /// Names of the clips.
    pub fn ids(&self) -> &[String] {
        match self {
            Self::Stored(store) => store.ids(),
            Self::Live(live) => &live.ids,
        }
    }

    /// Whether every epoch sees other frames.
    pub fn varies(&self) -> bool {
        matches!(self, Self::Live(_))
    }

    /// A clip's frames in an epoch, `[f, size, size, 3]`.
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

/// What a frozen ViT makes of every clip.
pub enum FeatureStore {
    /// In memory, in f32.
    Memory {
        /// Clip by clip.
        values: Vec<f32>,
        /// `[f, p, d]`
        shape: [usize; 3],
    },
    /// In files that are mapped into memory, in bf16.
    Disk(Features),
}

impl FeatureStore {
    /// Computes the features of a split, or finds them in the cache.
    ///
    /// # Errors
    /// When a clip cannot be decoded, the device fails, or the cache cannot be written.
    pub fn of(
        source: &FrameSource,
        captioner: &Captioner,
        config: &FrameConfig,
        size: usize,
        batch_size: usize,
        cache: &Path,
        on_progress: OnProgress<'_>,
    ) -> anyhow::Result<Self> {
        let compute = Compute { source, captioner, preprocess: config.preprocess(size) };
        match config.keep {
            Keep::Memory => compute.in_memory(batch_size),
            Keep::Disk => {
                let key = FeatureKey {
                    vision: vision_hash(captioner),
                    preprocess: compute.preprocess.clone(),
                    request: config.request(size as u32),
                };
                compute.on_disk(&key, batch_size, &cache.join("features"), on_progress)
            }
        }
    }

    /// `[f, p, d]`
    pub fn shape(&self) -> [usize; 3] {
        match self {
            Self::Memory { shape, .. } => *shape,
            Self::Disk(features) => features.shape(),
        }
    }

    /// Puts a clip's features behind those in `out`.
    ///
    /// # Errors
    /// When there are none of that clip.
    pub fn read(&self, item: usize, out: &mut Vec<f32>) -> data::Result<()> {
        match self {
            Self::Memory { values, shape } => {
                let each: usize = shape.iter().product();
                out.extend_from_slice(&values[item * each..(item + 1) * each]);
                Ok(())
            }
            Self::Disk(features) => features.read(item, out),
        }
    }
}

struct Compute<'a> {
    source: &'a FrameSource,
    captioner: &'a Captioner,
    preprocess: Preprocess,
}

impl Compute<'_> {
    /// Features of some clips, one behind the other.
    fn features(&self, items: &[usize]) -> anyhow::Result<(Vec<f32>, [usize; 3])> {
        let mut values = Vec::new();
        for &item in items {
            values.extend(self.preprocess.normalize(&self.source.pixels(0, item)?));
        }
        let size = self.preprocess.size as usize;
        let f = values.len() / (items.len().max(1) * 3 * size * size);
        let (features, [_, f, p, d]) = self
            .captioner
            .features(values, [items.len(), f, 3, size, size])
            .map_err(|error| anyhow::anyhow!("{error:?}"))
            .context("cannot compute the frozen ViT's features")?;
        Ok((features, [f, p, d]))
    }

    fn in_memory(&self, batch_size: usize) -> anyhow::Result<FeatureStore> {
        let (mut values, mut shape) = (Vec::new(), [0; 3]);
        let items: Vec<usize> = (0..self.source.ids().len()).collect();
        for items in items.chunks(batch_size.max(1)) {
            let (features, each) = self.features(items)?;
            values.extend(features);
            shape = each;
        }
        Ok(FeatureStore::Memory { values, shape })
    }

    fn on_disk(
        &self,
        key: &FeatureKey,
        batch_size: usize,
        folder: &Path,
        on_progress: OnProgress<'_>,
    ) -> anyhow::Result<FeatureStore> {
        let ids = self.source.ids().to_vec();
        ensure!(!ids.is_empty(), "a split without clips has no features");
        let mut items = Vec::with_capacity(ids.len());
        for (item, id) in ids.iter().enumerate() {
            let content = hex(&Sha256::digest(self.source.pixels(0, item)?));
            items.push(FeatureItem { id: id.clone(), content });
        }
        let (_, shape) = self.features(&[0])?;
        let compute = |range: std::ops::Range<usize>| -> anyhow::Result<Vec<f32>> {
            Ok(self.features(&range.collect::<Vec<_>>())?.0)
        };
        let features =
            Features::open_or_compute(folder, key, items, shape, batch_size, on_progress, compute)?;
        Ok(FeatureStore::Disk(features))
    }
}

/// Names the weights of a ViT.
fn vision_hash(captioner: &Captioner) -> String {
    struct Weights(Sha256);
    impl ModuleVisitor for Weights {
        fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
            self.0.update(parameter.val().into_data().as_bytes());
        }
    }
    let mut weights = Weights(Sha256::new());
    captioner.blip2.vision_model.visit(&mut weights);
    hex(&weights.0.finalize())
}
