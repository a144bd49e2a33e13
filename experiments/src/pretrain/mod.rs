//! Pretraining BLIP-2 in its stages: the language model is trained on sentences, the Q-Former on image-text
//! pairs (first stage), and then through the frozen language model (second stage). Two things differ from the
//! paper, because no published model is as small as the tiny world: its language model is trained here too,
//! and so is its ViT, in the first stage.

mod examples;
mod pairs;
mod stages;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use captioner::{TOKENIZER_FILE, hex, weights_hash};
use serde_json::Value;
use sha2::{Digest, Sha256};
use train::processes::{check_same, share_first};
use train::{SelectionMetric, files};

use crate::config::{PretrainConfig, find_checkpoint};
use crate::records::provenance::Identity;
use crate::records::{CONFIG, PROVENANCE, Provenance};
use crate::runtime::{FolderLock, Session, Status};
use pairs::Pairs;
use stages::{Folders, Pretrained, Stages};

/// Metrics of the stages, in a checkpoint's folder.
const METRICS_FILE: &str = "pretraining.json";

/// The folders of the stages.
const STAGES: [&str; 3] = ["text", "first_stage", "second_stage"];

/// Runs all stages and saves the checkpoint in `out`.
pub(crate) fn run(
    name: &str,
    config: &PretrainConfig,
    out: &Path,
    runs: &Path,
    resume: bool,
    session: &Session,
) -> anyhow::Result<Status> {
    let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or("own");
    let folder = runs.join(format!("pretrain-{stem}"));
    let is_free = (resume || !folder.exists()).then_some(()).with_context(|| {
        format!("{} holds an earlier pretraining; --resume continues it, or move it away", folder.display())
    });
    session.agree(is_free)?;
    let pairs = session.in_turn(|| open_pairs(config, session.caches.folder()))?;
    let _lock = session.first(|| FolderLock::or_fail(&folder))?;
    session.once(|| Ok(files::replace(&folder.join(CONFIG), toml::to_string_pretty(config)?.as_bytes())?))?;
    let [text, first_stage, second_stage] = STAGES.map(|stage| folder.join(stage));
    let folders = Folders { text, first_stage, second_stage };
    let identity = identity(config, &pairs)?;
    let Some(made) = Stages::new(config, session, &pairs, &identity, &folders)?.run()? else {
        return Ok(Status::Interrupted);
    };
    session.once(|| save(&made, &Provenance::of(&session.device_word, identity), out))?;
    if !session.is_first() {
        return Ok(Status::Finished);
    }
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
    println!("\ncheckpoint: {}", out.display());
    Ok(Status::Finished)
}

/// The checkpoint of a pretraining in the cache; it is made where it does not exist. None where it was
/// interrupted; the next call continues. Its name is a hash of configuration and pairs, and it appears
/// complete or not at all. Pretrainings that differ in their images only share the language model, and those
/// that differ in their language models only share the first stage.
pub(crate) fn checkpoint(config: &PretrainConfig, session: &Session) -> anyhow::Result<Option<PathBuf>> {
    let cache = session.caches.folder();
    let pairs = session.in_turn(|| open_pairs(config, cache))?;
    let identity = session.agree(identity(config, &pairs))?;
    check_same(&*session.processes, "the hash of the pretraining", &identity.config_hash)?;
    let finished = cache.join(format!("pretrained-{}", identity.config_hash));
    let is_finished = || share_first(&*session.processes, finished.join(PROVENANCE).is_file());
    if is_finished()? {
        return Ok(Some(finished));
    }
    let _lock = session.first(|| FolderLock::wait(&cache.join("pretraining")))?;
    if is_finished()? {
        return Ok(Some(finished)); // by the program that held the lock
    }
    let work = cache.join(format!("pretraining-{}", identity.config_hash));
    let shared = |stage: &str, settings: Value| {
        cache.join(format!("pretraining-{stage}-{}", hex(&Sha256::digest(settings.to_string()))))
    };
    let folders = Folders {
        text: shared(STAGES[0], stages::text_settings(config, &pairs)),
        first_stage: shared(STAGES[1], stages::first_settings(config, &pairs, &identity)),
        second_stage: work.clone(),
    };
    let Some(made) = Stages::new(config, session, &pairs, &identity, &folders)?.run()? else {
        return Ok(None);
    };
    session.once(|| {
        let complete = work.join("checkpoint");
        save(&made, &Provenance::of(&session.device_word, identity), &complete)?;
        std::fs::rename(&complete, &finished).with_context(|| {
            format!("cannot move the checkpoint {} to {}", complete.display(), finished.display())
        })?;
        std::fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))
    })?;
    Ok(Some(finished))
}

/// The pairs of a pretraining; refuses those that it cannot be trained on.
fn open_pairs(config: &PretrainConfig, cache: &Path) -> anyhow::Result<Pairs> {
    config.check()?;
    let pairs = Pairs::open(&config.pairs, &config.world, cache)?;
    let parts = [
        ("first_stage.train.batch_size", config.first_stage.train.batch_size, pairs.train.pairs.len()),
        ("evaluate.batch_size", config.evaluate.batch_size, pairs.held_out.pairs.len()),
    ];
    for (key, batch_size, count) in parts {
        ensure!(
            batch_size >= 2,
            "{key} is {batch_size}: a single pair has no other pair to be compared with"
        );
        ensure!(
            count % batch_size != 1,
            "of {count} pairs {key} = {batch_size} leaves one alone in the last batch, without another pair to be \
             compared with: change it, pairs.count or pairs.held_out"
        );
    }
    ensure!(
        pairs.world.is_some() || config.second_stage.train.select == SelectionMetric::loss(),
        "second_stage.train.select is \"{}\", which exists for the tiny world's images only: set it to \"loss\"",
        config.second_stage.train.select
    );
    Ok(pairs)
}

/// Hashes of the pairs, of the weights that the pretraining starts from, and of both with the configuration.
fn identity(config: &PretrainConfig, pairs: &Pairs) -> anyhow::Result<Identity> {
    let start = config.start.as_ref().map(|start| anyhow::Ok(weights_hash(&find_checkpoint(start)?)?));
    let bert = config.first_stage.bert.as_ref().map(|bert| weights_hash(bert));
    let weights_hash = match (start.transpose()?, bert.transpose()?) {
        (Some(start), Some(bert)) => Some(hex(&Sha256::digest(start + &bert))),
        (start, bert) => start.or(bert),
    };
    let data_hash = pairs.hash.clone();
    let config_hash = hash(config, &data_hash, weights_hash.as_deref())?;
    Ok(Identity { config_hash, data_hash, weights_hash, seed: config.seed })
}

fn hash(config: &PretrainConfig, pairs: &str, start: Option<&str>) -> anyhow::Result<String> {
    let text = toml::to_string_pretty(config)?;
    let digest = Sha256::new().chain_update(text).chain_update(pairs).chain_update(start.unwrap_or_default());
    Ok(hex(&digest.finalize()))
}

fn save(made: &Pretrained, provenance: &Provenance, out: &Path) -> anyhow::Result<()> {
    model::checkpoint::save(&made.model, &made.config, out)?;
    made.tokenizer.save(&out.join(TOKENIZER_FILE))?;
    files::replace_json(&out.join(METRICS_FILE), &made.metrics)?;
    Ok(files::replace_json(&out.join(PROVENANCE), provenance)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(cache: &Path) -> Session {
        Session::with_cache(cache)
    }

    #[test]
    fn a_checkpoint_is_made_once_and_goes_on_where_it_was_stopped() {
        let cache = tempfile::tempdir().unwrap();
        let (config, session) = (PretrainConfig::find("smoke", &[]).unwrap(), session(cache.path()));
        session.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(checkpoint(&config, &session).unwrap(), None, "stopped");
        session.stop.store(false, std::sync::atomic::Ordering::Relaxed);
        let made = checkpoint(&config, &session).unwrap().unwrap();
        let written = || std::fs::metadata(made.join("model.safetensors")).unwrap().modified().unwrap();
        let before = written();
        assert_eq!(checkpoint(&config, &session).unwrap().unwrap(), made);
        assert_eq!(written(), before, "not made again");

        let half = PretrainConfig::find("smoke", &["pairs.share=0.5".to_owned()]).unwrap();
        let other = checkpoint(&half, &session).unwrap().unwrap();
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

        let smaller = PretrainConfig::find("smoke", &["model.text_config.d_model=32".to_owned()]).unwrap();
        checkpoint(&smaller, &session).unwrap().unwrap();
        let again = std::fs::read_dir(cache.path())
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok());
        let first_stages = again.filter(|name| name.starts_with("pretraining-first_stage-")).count();
        assert_eq!(first_stages, 2, "another language model reads the same images");
    }

    #[test]
    fn another_checkpoint_under_the_same_path_is_another_pretraining() {
        let folder = tempfile::tempdir().unwrap();
        let start = PretrainConfig {
            start: Some(folder.path().to_owned()),
            ..PretrainConfig::find("smoke", &[]).unwrap()
        };
        let cache = tempfile::tempdir().unwrap();
        let pairs = Pairs::open(&start.pairs, &start.world, cache.path()).unwrap();
        let names = || {
            let identity = identity(&start, &pairs).unwrap();
            (stages::first_settings(&start, &pairs, &identity), identity.config_hash)
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
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoints/tiny").join(PROVENANCE);
        let provenance: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let data = provenance["data_hash"].as_str().unwrap();
        assert_eq!(
            provenance["config_hash"],
            hash(&PretrainConfig::find("tiny", &[]).unwrap(), data, None).unwrap()
        );
    }
}
