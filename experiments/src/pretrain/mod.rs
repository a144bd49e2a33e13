//! Pretraining BLIP-2: the language model reads, the Q-Former learns to read images (first stage), and then to tell the
//! frozen language model what it reads (second stage). Two things are as the tiny world has them and not as in the paper: its
//! language model is trained here too, as no published one knows nothing but this world, and so is its ViT, in the first
//! stage, as there is no CLIP of it.

mod examples;
mod pairs;
mod stages;

pub use examples::{PairCaptions, PairTexts, Sentences};
pub use pairs::{Pairs, PairsConfig};

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use data::tiny_world::WorldConfig;
use model::Blip2Config;
use model::lm::LanguageModelConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use train::{Selection, TrainConfig, files};

use crate::ablation::Ended;
use crate::cli::PretrainArguments;
use crate::config::{EvaluateConfig, choices, hex, merge_sets};
use crate::lock::FolderLock;
use crate::pretrained::{TOKENIZER_FILE, find_checkpoint, weights_hash};
use crate::provenance::{self, Named, Provenance};
use crate::run::Session;
use stages::{Folders, Pretrained, Stages};

const PRETRAININGS: &[(&str, &str)] = &[
    ("tiny", include_str!("../../configs/pretrain/tiny.toml")),
    ("smoke", include_str!("../../configs/pretrain/smoke.toml")),
];

/// A pretraining's runs, by their folders' names.
const STAGES: [&str; 3] = ["text", "first_stage", "second_stage"];

/// Everything that decides what a pretraining computes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainConfig {
    /// Decides initial weights, order and draws.
    pub seed: u64,
    /// A checkpoint whose ViT, language model and tokenizer are taken: then no language model is trained, and the Q-Former
    /// is what is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<PathBuf>,
    /// Sizes of the model; the size of the vocabulary is that of the words there are. Those of a ViT and a language model
    /// that are taken from a checkpoint are the checkpoint's.
    pub model: Blip2Config,
    /// The tiny world.
    pub world: WorldConfig,
    /// What the language model reads.
    pub sentences: SentencesConfig,
    /// What both stages see.
    #[serde(default)]
    pub pairs: PairsConfig,
    /// The language model on sentences.
    pub text: TrainConfig,
    /// The Q-Former on pairs.
    pub first_stage: FirstStageConfig,
    /// The Q-Former through the language model.
    pub second_stage: SecondStageConfig,
    /// Writing captions of held-out images.
    pub evaluate: EvaluateConfig,
}

/// What the language model reads before it sees anything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SentencesConfig {
    /// Sentences of the tiny world.
    pub count: usize,
    /// Sentences with a question that each answers.
    pub questions: usize,
    /// Probability that a word of a sentence is shown to the encoder.
    pub keep: f64,
    /// Probability that a sentence's first part is given, and its second to be written.
    pub prefix_probability: f64,
}

/// The first stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirstStageConfig {
    /// Width in which images and texts are compared.
    pub embed_dim: usize,
    /// What similarities are divided by, at first.
    pub temperature: f64,
    /// Label smoothing of contrast and generation.
    pub label_smoothing: f64,
    /// Most tokens of a text, class and end counted; a longer one is cut.
    pub max_tokens: usize,
    /// BERT's tokenizer, or another with a class token; one of the words there are where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
    /// Training.
    pub train: TrainConfig,
}

/// The second stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecondStageConfig {
    /// Whether captions are split, their first part read by the encoder and the rest written: for T5 only.
    pub prefix: bool,
    /// Share of the captions that stay whole all the same.
    #[serde(default)]
    pub whole: f64,
    /// Training.
    pub train: TrainConfig,
}

impl PretrainConfig {
    /// Refuses what would only be found out when a stage begins.
    fn check(&self) -> anyhow::Result<()> {
        let shares = [
            ("sentences.keep", self.sentences.keep),
            ("sentences.prefix_probability", self.sentences.prefix_probability),
            ("second_stage.whole", self.second_stage.whole),
        ];
        for (key, share) in shares {
            ensure!((0.0..=1.0).contains(&share), "{key} is {share}, expected 0 to 1");
        }
        ensure!(
            self.sentences.count > 0,
            "sentences.count is 0: the language model would have nothing to read"
        );
        let is_t5 = matches!(self.model.text_config, LanguageModelConfig::T5(_));
        ensure!(
            is_t5 || !self.second_stage.prefix,
            "second_stage.prefix is for T5, whose encoder reads the first part; a decoder alone learns whole captions: \
             set it to false"
        );
        for (key, train) in [("text", &self.text), ("first_stage.train", &self.first_stage.train)] {
            ensure!(
                train.select == Selection::loss(),
                "{key}.select is \"{}\", but only the loss is measured there: set it to \"loss\"",
                train.select
            );
        }
        Ok(())
    }

    /// Refuses pairs that this configuration cannot be trained on.
    fn check_pairs(&self, pairs: &Pairs) -> anyhow::Result<()> {
        let parts = [
            ("first_stage.train.batch_size", self.first_stage.train.batch_size, pairs.train.pairs.len()),
            ("evaluate.batch_size", self.evaluate.batch_size, pairs.held_out.pairs.len()),
        ];
        for (key, batch_size, count) in parts {
            ensure!(
                batch_size >= 2,
                "{key} is {batch_size}: a pair alone has nothing that it could be told from"
            );
            ensure!(
                count % batch_size != 1,
                "of {count} pairs {key} = {batch_size} leaves one alone in the last batch, with nothing that it could \
                 be told from: change it, pairs.count or pairs.held_out"
            );
        }
        ensure!(
            pairs.world.is_some() || self.second_stage.train.select == Selection::loss(),
            "second_stage.train.select is \"{}\", which is known of the tiny world's images only: set it to \"loss\"",
            self.second_stage.train.select
        );
        Ok(())
    }
}

/// A pretraining by its name, or by the path of a TOML file of one's own, with settings changed.
///
/// # Errors
/// When there is none of that name, or a key or value is not known or cannot be.
pub fn find(name: &str, sets: &[String]) -> anyhow::Result<PretrainConfig> {
    let built_in = PRETRAININGS.iter().find(|(known, _)| *known == name);
    let text = match built_in {
        Some((_, text)) => (*text).to_owned(),
        None if name.ends_with(".toml") => {
            std::fs::read_to_string(name).with_context(|| format!("cannot read the pretraining {name}"))?
        }
        None => {
            let known: Vec<&str> = PRETRAININGS.iter().map(|(known, _)| *known).collect();
            bail!(
                "there is no pretraining \"{name}\"{}",
                choices(name, &known, "experiments pretrain --help")
            )
        }
    };
    let mut config: PretrainConfig = merge_sets(&text, sets, name)?;
    if let Some(start) = &config.start {
        let sizes = model::checkpoint::load_config(&find_checkpoint(start)?)?;
        config.model.qformer_config.encoder_hidden_size = sizes.vision_config.hidden_size;
        config.model.vision_config = sizes.vision_config;
        config.model.text_config = sizes.text_config;
    }
    config.check().with_context(|| format!("pretraining {name}"))?;
    Ok(config)
}

/// Runs all stages and writes the checkpoint.
///
/// # Errors
/// When anything fails; what was saved stays.
pub fn run(
    name: &str,
    config: &PretrainConfig,
    arguments: &PretrainArguments,
    session: &Session,
) -> anyhow::Result<Ended> {
    let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or("own");
    let folder = arguments.folders.runs.join(format!("pretrain-{stem}"));
    if folder.exists() && !arguments.resume {
        bail!("{} holds an earlier pretraining; --resume goes on with it, or move it away", folder.display());
    }
    let cache = &arguments.folders.cache;
    let pairs = open_pairs(config, cache)?;
    let _lock = FolderLock::or_fail(&folder)?;
    files::replace(&folder.join("config.toml"), toml::to_string_pretty(config)?.as_bytes())?;
    let [text, first_stage, second_stage] = STAGES.map(|stage| folder.join(stage));
    let folders = Folders { text, first_stage, second_stage };
    let named = named(config, &pairs)?;
    let Some(made) = Stages::new(config, session, &pairs, &named, &folders, cache)?.run()? else {
        return Ok(Ended::Interrupted);
    };
    save(&made, &Provenance::gather(&session.device_word, named), &arguments.out)?;
    let metrics = &made.metrics;
    let stages = [
        ("sentences", &metrics.text),
        ("pairs, first stage", &metrics.first_stage),
        ("images, second stage", &metrics.second_stage),
    ];
    for (what, metrics) in stages.into_iter().filter(|(_, metrics)| metrics.iter().next().is_some()) {
        println!("\nheld-out {what}:");
        for (name, value) in metrics.iter() {
            println!("  {name:<10} {value:.3}");
        }
    }
    println!("\ncheckpoint: {}", arguments.out.display());
    Ok(Ended::Finished)
}

/// The checkpoint of a pretraining, made in a cache folder the first time it is asked for and found there later; nothing
/// when it was interrupted, and then the next call goes on. Its name is made of configuration and pairs, and it appears
/// whole or not at all. The language model of pretrainings that differ in their images only is trained once, and so is the
/// first stage of those that differ in their language models only.
///
/// # Errors
/// When anything fails; what was saved stays.
pub fn checkpoint(
    config: &PretrainConfig,
    session: &Session,
    cache: &Path,
) -> anyhow::Result<Option<PathBuf>> {
    let pairs = open_pairs(config, cache)?;
    let named = named(config, &pairs)?;
    let finished = cache.join(format!("pretrained-{}", named.config_hash));
    let is_finished = || finished.join(provenance::FILE).is_file();
    if is_finished() {
        return Ok(Some(finished));
    }
    let _lock = FolderLock::wait(&cache.join("pretraining"))?;
    if is_finished() {
        return Ok(Some(finished)); // by the process that was waited for
    }
    let work = cache.join(format!("pretraining-{}", named.config_hash));
    let shared = |stage: &str, settings: Value| {
        cache.join(format!("pretraining-{stage}-{}", hex(&Sha256::digest(settings.to_string()))))
    };
    let folders = Folders {
        text: shared(STAGES[0], stages::text_settings(config, &pairs)),
        first_stage: shared(STAGES[1], stages::first_settings(config, &pairs, &named)),
        second_stage: work.clone(),
    };
    let Some(made) = Stages::new(config, session, &pairs, &named, &folders, cache)?.run()? else {
        return Ok(None);
    };
    let whole = work.join("checkpoint");
    save(&made, &Provenance::gather(&session.device_word, named), &whole)?;
    std::fs::rename(&whole, &finished).with_context(|| {
        format!("cannot move the checkpoint {} to {}", whole.display(), finished.display())
    })?;
    std::fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    Ok(Some(finished))
}

fn open_pairs(config: &PretrainConfig, cache: &Path) -> anyhow::Result<Pairs> {
    config.check()?;
    let pairs = Pairs::open(&config.pairs, &config.world, cache)?;
    config.check_pairs(&pairs)?;
    Ok(pairs)
}

/// Names what a pretraining computes with: its pairs, the files of the checkpoint that it starts from, and what its
/// configuration makes of them.
fn named(config: &PretrainConfig, pairs: &Pairs) -> anyhow::Result<Named> {
    let start = config.start.as_ref().map(|start| weights_hash(&find_checkpoint(start)?)).transpose()?;
    Ok(Named {
        config_hash: hash(config, &pairs.hash, start.as_deref())?,
        data_hash: pairs.hash.clone(),
        weights_hash: start,
        seed: config.seed,
    })
}

/// Names what a configuration makes of pairs and of a checkpoint of these hashes: 16 hexadecimal digits.
fn hash(config: &PretrainConfig, pairs: &str, start: Option<&str>) -> anyhow::Result<String> {
    let text = toml::to_string_pretty(config)?;
    let digest = Sha256::new().chain_update(text).chain_update(pairs).chain_update(start.unwrap_or_default());
    Ok(hex(&digest.finalize()))
}

/// What the stages measured, beside a checkpoint.
pub(crate) const METRICS_FILE: &str = "pretraining.json";

fn save(made: &Pretrained, provenance: &Provenance, out: &Path) -> anyhow::Result<()> {
    model::checkpoint::save(&made.model, &made.config, out)?;
    made.tokenizer.save(&out.join(TOKENIZER_FILE))?;
    files::replace_json(&out.join(METRICS_FILE), &made.metrics)?;
    Ok(files::replace_json(&out.join(provenance::FILE), provenance)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pretraining_is_valid_and_misspellings_are_answered() {
        for (name, _) in PRETRAININGS {
            find(name, &[]).unwrap();
        }
        assert!(find("tinny", &[]).unwrap_err().to_string().contains("tiny"));
        let error = find("tiny", &["second_stage.train.epoch=1".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("did you mean \"epochs\"?"), "{error}");
    }

    fn session() -> Session {
        Session {
            device: burn::tensor::Device::flex(),
            device_word: "cpu".to_owned(),
            stop: std::sync::Arc::default(),
            dashboard: train::dashboard::Dashboard::Silent,
        }
    }

    #[test]
    fn a_checkpoint_is_made_once_and_goes_on_where_it_was_stopped() {
        let cache = tempfile::tempdir().unwrap();
        let (config, session) = (find("smoke", &[]).unwrap(), session());
        session.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(checkpoint(&config, &session, cache.path()).unwrap(), None, "stopped");
        session.stop.store(false, std::sync::atomic::Ordering::Relaxed);
        let made = checkpoint(&config, &session, cache.path()).unwrap().unwrap();
        let written = || std::fs::metadata(made.join("model.safetensors")).unwrap().modified().unwrap();
        let before = written();
        assert_eq!(checkpoint(&config, &session, cache.path()).unwrap().unwrap(), made);
        assert_eq!(written(), before, "not made again");

        let half = find("smoke", &["pairs.share=0.5".to_owned()]).unwrap();
        let other = checkpoint(&half, &session, cache.path()).unwrap().unwrap();
        assert_ne!(other, made);
        let weights = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
        assert!(weights(&other) != weights(&made), "half of the pairs teach something else");
        let mut names: Vec<String> = std::fs::read_dir(cache.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("pretrain"))
            .collect();
        names.sort();
        let count = |start: &str| names.iter().filter(|name| name.starts_with(start)).count();
        assert_eq!((count("pretrained-"), count("pretraining-text-")), (2, 1), "{names:?}");
        assert_eq!((count("pretraining-first_stage-"), names.len()), (2, 5), "{names:?}");

        let smaller = find("smoke", &["model.text_config.d_model=32".to_owned()]).unwrap();
        checkpoint(&smaller, &session, cache.path()).unwrap().unwrap();
        let again = std::fs::read_dir(cache.path())
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok());
        let first_stages = again.filter(|name| name.starts_with("pretraining-first_stage-")).count();
        assert_eq!(first_stages, 2, "another language model reads the same images");
    }

    #[test]
    fn another_checkpoint_under_the_same_path_is_another_pretraining() {
        let folder = tempfile::tempdir().unwrap();
        let start = PretrainConfig { start: Some(folder.path().to_owned()), ..find("smoke", &[]).unwrap() };
        let cache = tempfile::tempdir().unwrap();
        let pairs = Pairs::open(&start.pairs, &start.world, cache.path()).unwrap();
        let names = || {
            let named = named(&start, &pairs).unwrap();
            (stages::first_settings(&start, &pairs, &named), named.config_hash)
        };
        std::fs::write(folder.path().join("model.safetensors"), "weights").unwrap();
        let before = names();
        assert_eq!(names(), before);
        std::fs::write(folder.path().join("model.safetensors"), "others!").unwrap();
        let after = names();
        assert!(after.0 != before.0 && after.1 != before.1);
    }

    /// `experiments/checkpoints/tiny` is what studies take for the outcome of this configuration.
    #[test]
    fn the_checkpoint_that_comes_with_the_project_is_the_pretraining_tinys() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoints/tiny").join(provenance::FILE);
        let provenance: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let data = provenance["data_hash"].as_str().unwrap();
        assert_eq!(provenance["config_hash"], hash(&find("tiny", &[]).unwrap(), data, None).unwrap());
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused_with_the_key() {
        let message = |set: &str| format!("{:#}", find("tiny", &[set.to_owned()]).unwrap_err());
        assert!(message("sentences.keep=1.5").contains("sentences.keep is 1.5"));
        assert!(message("sentences.count=0").contains("sentences.count"));
        assert!(message("first_stage.train.select=cider").contains("first_stage.train.select"));
        assert!(message("text.select=shape").contains("text.select"));
        let mut config = find("tiny", &[]).unwrap();
        config.model.text_config = LanguageModelConfig::Opt(model::lm::opt::OptConfig::default());
        assert!(config.check().unwrap_err().to_string().contains("second_stage.prefix is for T5"));
        config.second_stage.prefix = false;
        config.check().unwrap();
    }
}
