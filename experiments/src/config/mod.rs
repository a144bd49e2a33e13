//! What a run is made of, typed. A profile (how large) and an ablation (what varies) are TOML files; a variant's
//! settings and the command line's `--set` are merged over the profile, and only the result is given a type.

mod load;
mod suggest;

pub use load::{
    Ablation, Profile, Variant, ablations, choices, find_ablation, merge_sets, profiles, resolve,
};
pub use suggest::nearest;

use std::path::PathBuf;

use data::datasets::synthetic::WorldConfig;
use data::sampling::Sampling;
use model::{Fusion, Temporal};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use train::TrainConfig;

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
    /// Frames of a video.
    pub frames: FrameConfig,
    /// Training.
    pub train: TrainConfig,
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
}

/// Which frames a model sees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrameConfig {
    /// Frames a video.
    pub count: usize,
    /// Which ones.
    pub sampling: Sampling,
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
