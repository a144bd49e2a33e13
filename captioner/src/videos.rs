//! What a model sees of the clips of a split: frames, or cached features of a frozen ViT.

use std::path::Path;
use std::sync::Arc;

use data::frames::FrameStore;
use data::preprocess::Preprocess;
use data::progress::OnProgress;
use model::Blip2;

use crate::CaptionerError;
use crate::features::FeatureStore;
use crate::frames::FrameSource;
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
        Self::new(Arc::new(FrameSource::Stored(frames)), config, size)
    }

    /// Replaces the frames by ViT features, where the ViT is frozen (`trains` is false for all of its
    /// parameters) and the frames are the same in every epoch.
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
        if is_vit_trained || self.frames.varies() {
            return Ok(self);
        }
        let Self { frames, config, preprocess, .. } = &self;
        let features =
            FeatureStore::compute(frames, model, config, preprocess, batch_size, cache, on_progress)?;
        Ok(Self { features: Some(Arc::new(features)), ..self })
    }

    /// Clip ids, in order.
    pub fn ids(&self) -> &[String] {
        self.frames.ids()
    }

    /// The input of the model for some clips in an epoch.
    ///
    /// # Errors
    /// When a clip cannot be decoded, or has no features.
    pub fn visual(&self, epoch: usize, clips: &[usize]) -> data::Result<HostVisual> {
        let mut values = Vec::new();
        if let Some(features) = &self.features {
            for &clip in clips {
                features.read(clip, &mut values)?;
            }
            let [f, p, d] = features.shape();
            return Ok(HostVisual::Features { values, shape: [clips.len(), f, p, d] });
        }
        for &clip in clips {
            values.extend(self.preprocess.normalize(&self.frames.pixels(epoch, clip)?));
        }
        let size = self.preprocess.size as usize;
        let f = values.len() / (clips.len().max(1) * 3 * size * size);
        Ok(HostVisual::Frames { values, shape: [clips.len(), f, 3, size, size] })
    }
}
