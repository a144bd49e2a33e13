//! Output of a frozen ViT for every clip of a split, computed once and stored in memory or on disk.

use std::ops::Range;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{FloatDType, Tensor, TensorData};
use data::features::{FeatureItem, FeatureKey, Features};
use data::preprocess::Preprocess;
use data::progress::OnProgress;
use model::Blip2;
use sha2::{Digest, Sha256};

use crate::CaptionerError;
use crate::checkpoint::hex;
use crate::frames::FrameSource;
use crate::host::device_of;
use crate::settings::{FrameConfig, Storage};

/// ViT features of every clip.
pub enum FeatureStore {
    /// In memory, in f32.
    Memory {
        /// Clip by clip.
        values: Vec<f32>,
        /// `[f, p, d]`
        shape: [usize; 3],
    },
    /// In memory-mapped files, in bf16.
    Disk(Features),
}

impl FeatureStore {
    /// Computes the features of a split, or opens them in the cache.
    ///
    /// # Errors
    /// When a clip cannot be decoded, the device fails, or the cache cannot be written.
    pub fn compute(
        source: &FrameSource,
        model: &Blip2,
        config: &FrameConfig,
        preprocess: &Preprocess,
        batch_size: usize,
        cache: &Path,
        on_progress: OnProgress<'_>,
    ) -> Result<Self, CaptionerError> {
        let batch_size = batch_size.max(1);
        let compute = |items| features(source, model, preprocess, items);
        let ids = source.ids();
        if config.storage == Storage::Memory {
            let (mut values, mut shape) = (Vec::new(), [0; 3]);
            for start in (0..ids.len()).step_by(batch_size) {
                let (features, each) = compute(start..ids.len().min(start + batch_size))?;
                values.extend(features);
                shape = each;
            }
            return Ok(Self::Memory { values, shape });
        }
        if ids.is_empty() {
            return Err(CaptionerError::NoClips);
        }
        let (preprocess, request) = (preprocess.clone(), config.request(preprocess.size));
        let key = FeatureKey { vision: vision_hash(model), preprocess, request };
        let item = |(item, id): (usize, &String)| -> data::Result<FeatureItem> {
            let content = hex(&Sha256::digest(source.pixels(0, item)?));
            Ok(FeatureItem { id: id.clone(), content })
        };
        let items = ids.iter().enumerate().map(item).collect::<data::Result<_>>()?;
        let (_, shape) = compute(0..1)?;
        let folder = cache.join("features");
        let compute = |items| Ok::<_, CaptionerError>(compute(items)?.0);
        let features =
            Features::open_or_compute(&folder, &key, items, shape, batch_size, on_progress, compute)?;
        Ok(Self::Disk(features))
    }

    /// `[f, p, d]`
    pub fn shape(&self) -> [usize; 3] {
        match self {
            Self::Memory { shape, .. } => *shape,
            Self::Disk(features) => features.shape(),
        }
    }

    /// Appends a clip's features to `out`.
    ///
    /// # Errors
    /// When the clip has none.
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

/// Features of some clips, one after the other, and their shape `[f, p, d]`.
fn features(
    source: &FrameSource,
    model: &Blip2,
    preprocess: &Preprocess,
    items: Range<usize>,
) -> Result<(Vec<f32>, [usize; 3]), CaptionerError> {
    let mut values = Vec::new();
    for item in items.clone() {
        values.extend(preprocess.normalize(&source.pixels(0, item)?));
    }
    let size = preprocess.size as usize;
    let f = values.len() / (items.len().max(1) * 3 * size * size);
    let frames = TensorData::new(values, [items.len(), f, 3, size, size]);
    let features = model.vision_features(Tensor::<5>::from_data(frames, &device_of(model).inner()));
    let [_, f, p, d] = features.dims();
    // a frozen ViT may compute in bf16
    let values = features.cast(FloatDType::F32).into_data().try_to_vec::<f32>();
    Ok((values.map_err(|error| CaptionerError::Features(format!("{error:?}")))?, [f, p, d]))
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
