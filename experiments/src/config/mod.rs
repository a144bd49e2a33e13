//! What a run is made of, typed. A profile (how large) and an ablation (what varies) are TOML files; a variant's
//! settings and the command line's `--set` are merged over the profile, and only the result is given a type.

mod load;
mod suggest;

pub use load::{
    Ablation, Profile, Variant, ablations, choices, find_ablation, merge_sets, profiles, resolve,
};
pub use suggest::nearest;

use std::path::PathBuf;

use data::augment::Augment;
use data::datasets::synthetic::WorldConfig;
use data::preprocess::{Preprocess, Resizing};
use data::sampling::Sampling;
use data::video::FrameRequest;
use model::lora::LoraConfig;
use model::{Fusion, Temporal};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use train::TrainConfig;
use train::scst::ScstConfig;

use crate::clips::DatasetConfig;

/// Everything that decides what one run computes, its seed aside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Pretrained model, a folder in Hugging Face's layout; a relative path counts from the working directory, then
    /// from the project's own folder.
    pub checkpoint: PathBuf,
    /// What the checkpoint leaves open.
    #[serde(default)]
    pub model: ModelChanges,
    /// The tiny world.
    pub world: WorldConfig,
    /// A data set on disk, which then takes the tiny world's place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<DatasetConfig>,
    /// Frames of a video.
    pub frames: FrameConfig,
    /// Which captions an epoch visits.
    #[serde(default)]
    pub captions: CaptionUse,
    /// Training.
    pub train: TrainConfig,
    /// Self-critical training, which then follows on the training above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scst: Option<ScstStage>,
    /// Writing captions.
    pub evaluate: EvaluateConfig,
}

/// How a checkpoint's model is used.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelChanges {
    /// How frames are joined.
    pub fusion: Fusion,
    /// Whether frames are told apart.
    pub temporal: Temporal,
    /// Dropout in Q-Former and language model, where it differs from the checkpoint's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    /// Height and width of the images, where they differ from the checkpoint's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_size: Option<usize>,
    /// Low-rank updates of the language model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
}

/// Self-critical training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScstStage {
    /// What is rewarded.
    pub reward: ScstConfig,
    /// How it is trained: what a file leaves out is as in the training before.
    pub train: TrainConfig,
}

/// Which captions of the training clips an epoch visits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptionUse {
    /// One of each clip, drawn anew each epoch.
    #[default]
    One,
    /// Each of them, as LAVIS does.
    Every,
}

/// Which frames a model sees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrameConfig {
    /// Frames a video.
    pub count: usize,
    /// Which ones.
    pub sampling: Sampling,
    /// Which ones in training, where they are others: drawn anew each epoch, from the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_sampling: Option<Sampling>,
    /// How training frames are cropped and mirrored; not at all by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub augment: Option<Augment>,
    /// Whose way of resizing.
    #[serde(default)]
    pub resizing: Resizing,
    /// Where decoded frames, and what a frozen ViT makes of them, are kept.
    #[serde(default)]
    pub keep: Keep,
}

impl FrameConfig {
    /// What is asked of every clip, but for what training draws anew.
    pub fn request(&self, size: u32) -> FrameRequest {
        FrameRequest { sampling: self.sampling, ..FrameRequest::uniform(self.count, size) }
    }

    /// How frames become the model's input.
    pub fn preprocess(&self, size: usize) -> Preprocess {
        Preprocess { resizing: self.resizing, ..Preprocess::new(size as u32) }
    }

    /// Whether training sees other frames each epoch.
    pub fn varies(&self) -> bool {
        self.augment.is_some() || self.train_sampling.is_some()
    }
}

/// Where decoded frames are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// In memory, features in f32: for what fits there.
    #[default]
    Memory,
    /// In the cache on disk, mapped into memory; features in bf16.
    Disk,
}

/// How captions are written in validation and test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluateConfig {
    /// Videos at a time.
    pub batch_size: usize,
    /// Most tokens of a caption, its end counted.
    pub max_new_tokens: usize,
}

impl RunConfig {
    /// As TOML.
    ///
    /// # Errors
    /// When a value has no TOML form, which no configuration read from TOML has.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }

    /// Names what a run with this configuration and seed computes: 16 hexadecimal digits.
    pub fn hash(&self, seed: u64) -> String {
        let text = self.to_toml().unwrap_or_default();
        hex(&Sha256::new().chain_update(text).chain_update(seed.to_le_bytes()).finalize())
    }
}

/// The first 16 hexadecimal digits of a digest.
pub fn hex(digest: &[u8]) -> String {
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
