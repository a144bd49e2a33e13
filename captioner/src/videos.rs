//! What a model sees of the clips of a split: frames, or cached features of a frozen ViT.

use std::path::Path;
use std::sync::Arc;

use data::frames::FrameStore;
use data::preprocess::Preprocess;
use data::progress::OnProgress;
use model::Blip2;

use crate::CaptionerError;
use crate::features::FeatureStore;
use crate::frames::{FrameSource, Shown, StoredFrames};
use crate::host::HostVisual;
use crate::settings::FrameConfig;

/// The clips of a split; images are clips of one frame.
#[derive(Clone)]
pub struct Videos {
    frames: Arc<FrameSource>,
    config: FrameConfig,
    preprocess: Preprocess,
    features: Option<Arc<FeatureStore>>,
}

impl Videos {
    /// Frames read as `config` says, of `size` pixels.
    pub fn new(frames: Arc<FrameSource>, config: FrameConfig, size: usize) -> Self {
        let preprocess = config.preprocess(size);
        Self { frames, config, preprocess, features: None }
    }

    /// Images in memory, as clips of one frame.
    pub fn in_memory(frames: FrameStore) -> Self {
        let size = frames.size();
        let config = FrameConfig { count: 1, ..FrameConfig::default() };
        Self::new(Arc::new(FrameSource::Stored(StoredFrames::of(frames))), config, size)
    }

    /// Replaces stored frames by ViT features, where the ViT is frozen (`trains` is false for all of its
    /// parameters). Frames that are drawn for every example stay frames.
    ///
    /// # Errors
    /// As [`FeatureStore::compute`].
    pub fn with_frozen_vit(
        self,
        model: &Blip2,
        trains: impl Fn(&str) -> bool,
        batch_size: usize,
        cache: &Path,
        on_progress: OnProgress<'_>,
    ) -> Result<Self, CaptionerError> {
        let names = model::parameters::names(model);
        let is_vit_trained = names.iter().any(|name| name.starts_with("vision_model.") && trains(name));
        let FrameSource::Stored(stored) = &*self.frames else { return Ok(self) };
        if is_vit_trained {
            return Ok(self);
        }
        let Self { config, preprocess, .. } = &self;
        let frames = stored.store();
        let features =
            FeatureStore::compute(frames, model, config, preprocess, batch_size, cache, on_progress)?;
        Ok(Self { features: Some(Arc::new(features)), ..self })
    }

    /// Clip ids, in order.
    pub fn ids(&self) -> &[String] {
        self.frames.ids()
    }

    /// The input of the model for some examples in an epoch, counted from 1.
    ///
    /// # Errors
    /// When a clip cannot be decoded, or has no features.
    pub fn visual(&self, epoch: usize, examples: &[Shown]) -> data::Result<HostVisual> {
        if let (Some(features), FrameSource::Stored(stored)) = (&self.features, &*self.frames) {
            let items: Vec<usize> = examples.iter().map(|&shown| stored.item(epoch, shown)).collect();
            return features.visual(&items);
        }
        let mut bytes = Vec::new();
        for &shown in examples {
            self.preprocess.channels_first(&self.frames.pixels(epoch, shown)?, &mut bytes);
        }
        Ok(HostVisual::pixels(bytes, examples.len(), &self.preprocess))
    }
}
