//! What a run is made of, typed. A profile (how large) and an ablation (what varies) are TOML files; a variant's
//! settings and the command line's `--set` are merged over the profile, and only the result is given a type.

mod faults;
mod load;
mod suggest;

pub use load::{
    Ablation, Profile, Resolved, Variant, ablations, choices, dataset_sets, find_ablation, merge_sets,
    profiles, resolve, resolve_all, resolve_plain, single, study_sets,
};
pub use suggest::nearest;

use std::path::PathBuf;

use data::augment::Augment;
use data::preprocess::{Preprocess, Resizing};
use data::sampling::Sampling;
use data::tiny_world::WorldConfig;
use data::video::FrameRequest;
use model::generate::GenerateConfig;
use model::lora::LoraConfig;
use model::{Fusion, Temporal};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use toml::Table;
use train::TrainConfig;
use train::scst::ScstConfig;

use crate::answering::AnswerConfig;
use crate::clips::DatasetConfig;

/// Everything that decides what one run computes, its seed aside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Pretrained model: a folder in Hugging Face's layout, or a repository's name, whose folder is then
    /// `checkpoints/NAME`. A relative path counts from the working directory, then from the project's own folder.
    pub checkpoint: PathBuf,
    /// A pretraining whose checkpoint takes that one's place, made the first time that it is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretraining: Option<PretrainingChoice>,
    /// Whose recipe, where the paper's text and its code differ.
    #[serde(default, skip_serializing_if = "Recipe::is_paper")]
    pub recipe: Recipe,
    /// Which of several equal runs this is: each draws other random numbers from the same seed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub replica: u64,
    /// What the checkpoint leaves open.
    #[serde(default)]
    pub model: ModelChanges,
    /// The tiny world.
    #[serde(default)]
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
    /// Answering questions, which then takes the place of captioning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answering: Option<AnswerConfig>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A pretraining by its name, and what is changed of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainingChoice {
    /// A pretraining's name, or the path of a TOML file.
    pub name: String,
    /// Settings laid over it.
    #[serde(default, skip_serializing_if = "Table::is_empty")]
    pub set: Table,
}

impl PretrainingChoice {
    /// The settings as `key=value`.
    pub fn sets(&self) -> Vec<String> {
        fn flatten(table: &Table, start: &str, sets: &mut Vec<String>) {
            for (key, value) in table {
                match value {
                    toml::Value::Table(inner) => flatten(inner, &format!("{start}{key}."), sets),
                    value => sets.push(format!("{start}{key}={value}")),
                }
            }
        }
        let mut sets = Vec::new();
        flatten(&self.set, "", &mut sets);
        sets
    }
}

/// Whose recipe. A file's `recipes.released` is laid over what is beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recipe {
    /// As the paper states it.
    #[default]
    Paper,
    /// As the authors' code has it.
    Released,
}

impl Recipe {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Paper, Self::Released];

    /// Its name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Paper => "paper",
            Self::Released => "released",
        }
    }

    fn is_paper(&self) -> bool {
        *self == Self::Paper
    }
}

/// What frozen weights are kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrozenType {
    /// Four bytes.
    #[default]
    F32,
    /// Two bytes, where the device has them.
    Bf16,
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
    /// What a wholly frozen ViT and a language model whose own weights are frozen are kept in.
    pub frozen_type: FrozenType,
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
        FrameRequest {
            sampling: self.sampling,
            resizing: self.resizing,
            ..FrameRequest::uniform(self.count, size)
        }
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
#[serde(default, deny_unknown_fields)]
pub struct EvaluateConfig {
    /// Videos at a time.
    pub batch_size: usize,
    /// Most tokens of a caption, its end counted; longer ones are cut in training too.
    pub max_new_tokens: usize,
    /// Fewest tokens of a caption.
    pub min_new_tokens: usize,
    /// Beams; 1 is greedy search.
    pub num_beams: usize,
    /// Power of the length that a sequence's score is divided by.
    pub length_penalty: f64,
    /// Divides the scores of tokens that were written before.
    pub repetition_penalty: f64,
    /// What the language model reads behind the video, in training too.
    pub prompt: String,
}

impl Default for EvaluateConfig {
    fn default() -> Self {
        let GenerateConfig {
            max_new_tokens,
            min_new_tokens,
            num_beams,
            length_penalty,
            repetition_penalty,
            ..
        } = GenerateConfig::default();
        Self {
            batch_size: 32,
            max_new_tokens,
            min_new_tokens,
            num_beams,
            length_penalty,
            repetition_penalty,
            prompt: String::new(),
        }
    }
}

impl RunConfig {
    /// As TOML.
    ///
    /// # Errors
    /// When a value has no TOML form, which no configuration read from TOML has.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }

    /// Whether any stage trains a parameter.
    pub fn trains(&self, name: &str) -> bool {
        let later = self.scst.as_ref().map(|scst| &scst.train);
        [Some(&self.train), later].into_iter().flatten().any(|train| train.parameters.trains(name))
    }

    /// The seed of what a run draws: another in each replica.
    pub fn drawn_seed(&self, seed: u64) -> u64 {
        seed.wrapping_add(self.replica << 32)
    }

    /// Names what a run with this configuration and seed computes: 16 hexadecimal digits. Where in a cache the checkpoint
    /// of its pretraining lies does not matter.
    pub fn hash(&self, seed: u64) -> String {
        let mut named = self.clone();
        if named.pretraining.is_some() {
            named.checkpoint = PathBuf::new();
        }
        let text = named.to_toml().unwrap_or_default();
        hex(&Sha256::new().chain_update(text).chain_update(seed.to_le_bytes()).finalize())
    }
}

/// The first 16 hexadecimal digits of a digest.
pub fn hex(digest: &[u8]) -> String {
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
