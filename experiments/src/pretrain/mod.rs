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
use data::datasets::synthetic::WorldConfig;
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

/// A pretraining's runs, by their folders' names.
const STAGES: [&str; 3] = ["text", "first_stage", "second_stage"];

/// Refuses pairs that a configuration cannot be trained on.
fn check_pairs(config: &PretrainConfig, pairs: &Pairs) -> anyhow::Result<()> {
    let parts = [
        ("first_stage.train.batch_size", config.first_stage.train.batch_size, pairs.train.pairs.len()),
        ("evaluate.batch_size", config.evaluate.batch_size, pairs.held_out.pairs.len()),
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
        pairs.world.is_some() || config.second_stage.train.select == Selection::loss(),
        "second_stage.train.select is \"{}\", which is known of the tiny world's images only: set it to \"loss\"",
        config.second_stage.train.select
    );
    Ok(())
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

}
