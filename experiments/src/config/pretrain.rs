//! Settings of a pretraining.

use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use captioner::GenerationConfig;
use data::tiny_world::WorldConfig;
use model::Blip2Config;
use model::lm::LanguageModelConfig;
use serde::{Deserialize, Serialize};
use train::{SelectionMetric, TrainConfig};

use super::study::find_text;
use super::{EvaluateConfig, find_checkpoint, merge_sets};

const PRETRAININGS: &[(&str, &str)] = &[
    ("tiny", include_str!("../../configs/pretrain/tiny.toml")),
    ("smoke", include_str!("../../configs/pretrain/smoke.toml")),
];

/// Everything that decides the result of a pretraining.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PretrainConfig {
    /// Seed of initial weights, order of examples and random draws.
    pub seed: u64,
    /// A checkpoint whose ViT, language model and tokenizer are used: then no language model is trained, and
    /// only the Q-Former is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<PathBuf>,
    /// Sizes of the model. The size of the vocabulary is the number of words; a ViT and a language model from
    /// a checkpoint keep their sizes.
    pub model: Blip2Config,
    pub world: WorldConfig,
    /// Training text of the language model.
    pub sentences: SentencesConfig,
    /// Image-text pairs of both stages.
    #[serde(default)]
    pub pairs: PairsConfig,
    /// The language model on sentences.
    pub text: TrainConfig,
    pub first_stage: FirstStageConfig,
    /// The Q-Former through the language model.
    pub second_stage: SecondStageConfig,
    /// Generation of captions of held-out images.
    #[serde(default)]
    pub generate: GenerationConfig,
    #[serde(default)]
    pub evaluate: EvaluateConfig,
}

/// Training text of the language model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SentencesConfig {
    /// Sentences of the tiny world.
    pub count: usize,
    /// Sentences with a question that the sentence answers.
    pub questions: usize,
    /// Maximum tokens of a sentence; a longer one is cut.
    pub max_tokens: usize,
    /// Probability that the encoder reads a word of the sentence.
    pub word_keep_probability: f64,
    /// Probability that the first part of a sentence is given and the second is the target.
    pub prefix_probability: f64,
}

/// The first stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FirstStageConfig {
    /// Width of the embeddings of images and texts.
    pub embed_dim: usize,
    pub temperature: f64,
    /// Label smoothing of the ITC and ITG losses.
    pub label_smoothing: f64,
    /// Maximum tokens of a text including class and end token; a longer one is cut.
    pub max_tokens: usize,
    /// BERT's tokenizer, or another with a class token; by default a tokenizer of whole words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
    /// A BERT that the Q-Former starts from, as BLIP-2's does; then its sizes must be BERT's, and the
    /// tokenizer too. By default the Q-Former starts from random weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bert: Option<PathBuf>,
    pub train: TrainConfig,
}

/// The second stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SecondStageConfig {
    /// Whether captions are split: the encoder reads the first part, the rest is the target. For T5 only.
    pub prefix: bool,
    /// Share of the captions that stay whole then.
    #[serde(default)]
    pub whole: f64,
    /// Maximum tokens of a caption including its end token; a longer one is cut.
    pub max_tokens: usize,
    pub train: TrainConfig,
}

impl PretrainConfig {
    /// A pretraining by its name or by the path of a TOML file, with settings changed.
    pub(crate) fn find(name: &str, sets: &[String]) -> anyhow::Result<Self> {
        let text = find_text("pretraining", PRETRAININGS, name, "experiments pretrain --help")?;
        let mut config: Self = merge_sets(&text, sets, name)?;
        if let Some(start) = &config.start {
            let sizes = model::checkpoint::load_config(&find_checkpoint(start)?)?;
            config.model.qformer_config.encoder_hidden_size = sizes.vision_config.hidden_size;
            config.model.vision_config = sizes.vision_config;
            config.model.text_config = sizes.text_config;
        }
        config.check().with_context(|| format!("pretraining {name}"))?;
        Ok(config)
    }

    /// Refuses settings that would fail only when a stage begins.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let shares = [
            ("sentences.word_keep_probability", self.sentences.word_keep_probability),
            ("sentences.prefix_probability", self.sentences.prefix_probability),
            ("second_stage.whole", self.second_stage.whole),
        ];
        for (key, share) in shares {
            ensure!((0.0..=1.0).contains(&share), "{key} is {share}, expected 0 to 1");
        }
        ensure!(
            self.sentences.count > 0,
            "sentences.count is 0: the language model would have no training text"
        );
        let is_t5 = matches!(self.model.text_config, LanguageModelConfig::T5(_));
        ensure!(
            is_t5 || !self.second_stage.prefix,
            "second_stage.prefix is for T5, whose encoder reads the first part; a decoder alone learns whole captions: \
             set it to false"
        );
        for (key, train) in [("text", &self.text), ("first_stage.train", &self.first_stage.train)] {
            ensure!(
                train.select == SelectionMetric::loss(),
                "{key}.select is \"{}\", but only the loss is measured there: set it to \"loss\"",
                train.select
            );
        }
        Ok(())
    }
}

/// Image-text pairs; those of the tiny world where neither shards nor a table is given.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PairsConfig {
    /// Webdataset shards: `folder/start*.tar`, or one tar file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shards: Option<PathBuf>,
    /// A table of image files and captions (CSV, TSV, JSON or JSON lines).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<PathBuf>,
    /// Folder of the table's images; the table's folder where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<PathBuf>,
    /// Number of the user's pairs, the last ones, that are held out of training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out: Option<usize>,
    /// Share of the training pairs that is used, the first ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// Number of training pairs that are used, the first ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
}

impl PairsConfig {
    /// Whether the pairs are the user's.
    pub(crate) fn is_own(&self) -> bool {
        self.shards.is_some() || self.table.is_some()
    }

    /// The number of training pairs that are used, of all.
    pub(crate) fn chosen(&self, all: usize) -> anyhow::Result<usize> {
        let chosen = match (self.share, self.count) {
            (None, None) => all,
            (Some(_), Some(_)) => {
                bail!("pairs.share and pairs.count set the same thing twice; give one of them")
            }
            (Some(share), None) => {
                ensure!(
                    share > 0.0 && share <= 1.0,
                    "pairs.share is {share}, expected more than 0 and at most 1"
                );
                (all as f64 * share).round() as usize
            }
            (None, Some(count)) => {
                ensure!(count > 0, "pairs.count is 0, expected at least 2");
                ensure!(count <= all, "pairs.count is {count}, but there are {all} pairs to learn from");
                count
            }
        };
        ensure!(
            chosen >= 2,
            "{chosen} of {all} pairs would be learned from; telling pairs apart takes at least 2"
        );
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pretraining_is_valid_and_misspellings_are_answered() {
        for (name, _) in PRETRAININGS {
            PretrainConfig::find(name, &[]).unwrap();
        }
        assert!(PretrainConfig::find("tinny", &[]).unwrap_err().to_string().contains("tiny"));
        let error =
            PretrainConfig::find("tiny", &["second_stage.train.epoch=1".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("did you mean \"epochs\"?"), "{error}");
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused_with_the_key() {
        let message =
            |set: &str| format!("{:#}", PretrainConfig::find("tiny", &[set.to_owned()]).unwrap_err());
        assert!(
            message("sentences.word_keep_probability=1.5").contains("sentences.word_keep_probability is 1.5")
        );
        assert!(message("sentences.count=0").contains("sentences.count"));
        assert!(message("first_stage.train.select=cider").contains("first_stage.train.select"));
        assert!(message("text.select=shape").contains("text.select"));
        let mut config = PretrainConfig::find("tiny", &[]).unwrap();
        config.model.text_config = LanguageModelConfig::Opt(model::lm::opt::OptConfig::default());
        assert!(config.check().unwrap_err().to_string().contains("second_stage.prefix is for T5"));
        config.second_stage.prefix = false;
        config.check().unwrap();
    }
}
