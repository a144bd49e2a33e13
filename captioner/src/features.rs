//! Output of a frozen ViT for every stored view of a split, computed once and kept in memory or on disk.

use std::ops::Range;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{FloatDType, Tensor};
use data::features::{FeatureItem, FeatureKey, Features};
use data::frames::FrameStore;
use data::preprocess::Preprocess;
use data::progress::OnProgress;
use model::{Blip2, Visual, device};
use sha2::{Digest, Sha256};

use crate::CaptionerError;
use crate::checkpoint::hex;
use crate::host::{HostVisual, device_of};
use crate::settings::{FrameConfig, Storage};

/// ViT features of every clip, or of every stored view.
pub enum FeatureStore {
    /// In memory, in f32.
    Memory {
        /// Item by item.
        values: Vec<f32>,
        /// `[f, p, d]`
        shape: [usize; 3],
    },
    /// In memory-mapped files, in bf16.
    Disk(Features),
}

impl FeatureStore {
    /// Computes the features of stored frames, or opens them in the cache.
    ///
    /// # Errors
    /// When the device fails, or the cache cannot be written.
    pub fn compute(
        frames: &FrameStore,
        model: &Blip2,
        config: &FrameConfig,
        preprocess: &Preprocess,
        batch_size: usize,
        cache: &Path,
        on_progress: OnProgress<'_>,
    ) -> Result<Self, CaptionerError> {
        let batch_size = batch_size.max(1);
        let [p, d] = model.vision_model.output_size();
        let shape = [config.count, p, d];
        let compute = |items| features(frames, model, preprocess, items);
        let ids = frames.ids();
        if config.storage == Storage::Memory {
            let mut values = Vec::new();
            for start in (0..ids.len()).step_by(batch_size) {
                values.extend(compute(start..ids.len().min(start + batch_size))?);
            }
            return Ok(Self::Memory { values, shape });
        }
        if ids.is_empty() {
            return Err(CaptionerError::NoClips);
        }
        // the content of an item names its frames, whichever rule chose them
        let (preprocess, request) = (preprocess.clone(), config.request(preprocess.size));
        let key = FeatureKey { vision: vision_hash(model), preprocess, request };
        let item = |(item, id): (usize, &String)| {
            let content = hex(&Sha256::digest(frames.clip(item)));
            FeatureItem { id: id.clone(), content }
        };
        let items = ids.iter().enumerate().map(item).collect();
        let folder = cache.join("features");
        let features =
            Features::open_or_compute(&folder, &key, items, shape, batch_size, on_progress, compute)?;
        Ok(Self::Disk(features))
    }

    /// The features of some items.
    ///
    /// # Errors
    /// When an item has none.
    pub fn visual(&self, items: &[usize]) -> data::Result<HostVisual> {
        match self {
            Self::Memory { values: all, shape: shape @ [f, p, d] } => {
                let each: usize = shape.iter().product();
                let of = |&item: &usize| &all[item * each..(item + 1) * each];
                let values = items.iter().flat_map(of).copied().collect();
                Ok(HostVisual::Features { values, shape: [items.len(), *f, *p, *d] })
            }
            Self::Disk(features) => {
                let mut values = Vec::new();
                items.iter().try_for_each(|&item| features.read(item, &mut values))?;
                let [f, p, d] = features.shape();
                Ok(HostVisual::HalfFeatures { values, shape: [items.len(), f, p, d] })
            }
        }
    }
}

/// Features of some items, one after the other.
///
/// # Shapes
/// - output: `[b, f, p, d]`
fn features(
    frames: &FrameStore,
    model: &Blip2,
    preprocess: &Preprocess,
    items: Range<usize>,
) -> Result<Vec<f32>, CaptionerError> {
    let mut bytes = Vec::new();
    for item in items.clone() {
        preprocess.channels_first(frames.clip(item), &mut bytes);
    }
    let visual = HostVisual::pixels(bytes, items.len(), preprocess).upload(&device_of(model));
    let features = match visual {
        Visual::Frames(frames) => model.vision_features(frames),
        Visual::Features(features) => features,
    };
    // a frozen ViT may compute in bf16
    device::values(features.cast(FloatDType::F32))
        .map_err(|error| CaptionerError::Features(error.to_string()))
}

/// Hash of a ViT's weights.
fn vision_hash(model: &Blip2) -> String {
    struct Weights(Sha256);
    impl ModuleVisitor for Weights {
        fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
            self.0.update(parameter.val().into_data().as_bytes());
        }
    }
    let mut weights = Weights(Sha256::new());
    model.vision_model.visit(&mut weights);
    hex(&weights.0.finalize())
}
