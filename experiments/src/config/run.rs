//! The configuration of a run.

use std::path::PathBuf;

use captioner::{FrameConfig, GenerationConfig, Overrides, TextConfig, hex};
use data::tiny_world::WorldConfig;
use model::lora::LoraConfig;
use model::{Fusion, Temporal};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use toml::Table;
use train::scst::ScstConfig;
use train::{CaptionUse, TrainConfig};

use super::{AnswerConfig, DatasetConfig, flatten};

/// Everything that decides the result of a run except its seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunConfig {
    /// Pretrained model: a folder in Hugging Face's layout, or the name of a repository, whose folder is then
    /// `checkpoints/NAME`. A relative path is searched in the working directory, then in the project's
    /// folder.
    pub checkpoint: PathBuf,
    /// A pretraining whose checkpoint replaces that one; it runs when its checkpoint is needed for the first
    /// time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretraining: Option<PretrainingChoice>,
    /// Hyper-parameters of the paper or of its released code.
    #[serde(default, skip_serializing_if = "Recipe::is_paper")]
    pub recipe: Recipe,
    /// Number of a repetition: each draws other random numbers from the same seed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub replica: u64,
    /// Changes of the checkpoint's model.
    #[serde(default)]
    pub model: ModelChanges,
    #[serde(default)]
    pub world: WorldConfig,
    /// A data set on disk; it replaces the tiny world.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<DatasetConfig>,
    pub frames: FrameConfig,
    /// The captions of an epoch.
    #[serde(default)]
    pub captions: CaptionUse,
    #[serde(default)]
    pub text: TextConfig,
    /// Generation of captions in validation and test.
    #[serde(default)]
    pub generate: GenerationConfig,
    pub train: TrainConfig,
    /// Self-critical training after the training above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scst: Option<ScstStage>,
    #[serde(default)]
    pub evaluate: EvaluateConfig,
    /// Question answering; it replaces captioning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answering: Option<AnswerConfig>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A pretraining and changes of its settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PretrainingChoice {
    /// A pretraining's name, or the path of a TOML file.
    pub name: String,
    /// Settings that replace its own.
    #[serde(default, skip_serializing_if = "Table::is_empty")]
    pub set: Table,
}

impl PretrainingChoice {
    /// The settings as `key=value`.
    pub(crate) fn sets(&self) -> Vec<String> {
        flatten(&self.set).into_iter().map(|(key, value)| format!("{key}={value}")).collect()
    }
}

/// Hyper-parameters of the paper or of its released code. A table `recipes.released` replaces the settings
/// beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Recipe {
    #[default]
    Paper,
    /// As in the authors' code.
    Released,
}

impl Recipe {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Paper, Self::Released];

    /// Its name in files and on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Paper => "paper",
            Self::Released => "released",
        }
    }

    fn is_paper(&self) -> bool {
        *self == Self::Paper
    }
}

/// Number type of frozen weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FrozenType {
    /// 4 bytes.
    #[default]
    F32,
    /// 2 bytes.
    Bf16,
}

/// Changes of a checkpoint's model. What is not given stays as the checkpoint says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ModelChanges {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fusion: Option<Fusion>,
    /// Temporal embedding of the frames.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temporal: Option<Temporal>,
    /// Dropout in Q-Former and language model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    /// Height and width of the images, pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_size: Option<usize>,
    /// Number type of a wholly frozen ViT, and of a language model whose own weights are frozen.
    pub frozen_type: FrozenType,
    /// Low-rank updates of the language model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
}

/// Self-critical training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScstStage {
    pub reward: ScstConfig,
    /// Training; a file's missing settings are those of the training before.
    pub train: TrainConfig,
}

/// Validation and test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct EvaluateConfig {
    pub batch_size: usize,
}

impl Default for EvaluateConfig {
    fn default() -> Self {
        Self { batch_size: 32 }
    }
}

impl RunConfig {
    /// As TOML.
    pub(crate) fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }

    /// Training of the last stage.
    pub(crate) fn last_stage(&self) -> &TrainConfig {
        self.scst.as_ref().map_or(&self.train, |scst| &scst.train)
    }

    /// Changes of the checkpoint's model, with the dropout of a stage.
    pub(crate) fn overrides(&self, dropout: Option<f64>) -> Overrides {
        let ModelChanges { fusion, temporal, image_size, lora, .. } = self.model.clone();
        Overrides { fusion, temporal, image_size, lora, dropout, frames: self.frames.count }
    }

    /// Whether any stage trains a parameter.
    pub(crate) fn trains(&self, name: &str) -> bool {
        let later = self.scst.as_ref().map(|scst| &scst.train);
        [Some(&self.train), later].into_iter().flatten().any(|train| train.parameters.trains(name))
    }

    /// The seed of all random draws, which differs between replicas.
    pub(crate) fn drawn_seed(&self, seed: u64) -> u64 {
        seed.wrapping_add(self.replica << 32)
    }

    /// Hash of this configuration and a seed: 16 hexadecimal digits. The place of a pretraining's checkpoint
    /// in the cache has no influence.
    pub(crate) fn hash(&self, seed: u64) -> Result<String, toml::ser::Error> {
        let mut named = self.clone();
        if named.pretraining.is_some() {
            named.checkpoint = PathBuf::new();
        }
        let text = named.to_toml()?;
        Ok(hex(&Sha256::new().chain_update(text).chain_update(seed.to_le_bytes()).finalize()))
    }
}
