//! The checkpoint of a run's configuration: where it is, its sizes, its weights.

use std::path::{Path, PathBuf};

use anyhow::bail;
use burn::tensor::{Device, FloatDType};
use captioner::{Checkpoint, Context, Overrides};
use data::text::Tokenizer;
use data::tiny_world::vocabulary;
use model::Blip2Config;
use model::checkpoint::Precision;
use model::presets::Preset;

use crate::config::{FrozenType, PretrainingChoice, RunConfig};
use crate::pretrain;

/// Loads the checkpoint of a configuration.
///
/// # Errors
/// When a file is missing or damaged.
pub fn load(config: &RunConfig, device: &Device) -> anyhow::Result<Checkpoint> {
    load_from(&find_checkpoint(&config.checkpoint)?, config, config.model.dropout, device)
}

/// Loads a checkpoint with a configuration's changes; `dropout` replaces the checkpoint's rates.
///
/// # Errors
/// When a file is missing or damaged.
pub fn load_from(
    directory: &Path,
    config: &RunConfig,
    dropout: Option<f64>,
    device: &Device,
) -> anyhow::Result<Checkpoint> {
    let overrides = Overrides { dropout, ..config.overrides() };
    let mut sizes = model::checkpoint::load_config(directory)?;
    overrides.apply(&mut sizes);
    Ok(Checkpoint::open(directory, &overrides, precision(config, &sizes, device), device)?)
}

/// What captioning, or answering, with a checkpoint needs besides weights.
///
/// # Errors
/// When the prompt cannot be tokenized, or the generation settings do not fit each other.
pub fn context(checkpoint: &Checkpoint, config: &RunConfig) -> anyhow::Result<Context> {
    // every question is a prompt of its own
    Ok(match &config.answering {
        None => {
            let generate = config.generation().with_end_tokens(checkpoint.end_tokens.clone());
            checkpoint.context(&config.evaluate.prompt, generate)?
        }
        Some(answering) => checkpoint.context("", answering.generate(&checkpoint.tokenizer))?,
    })
}

/// Height and width of the images that a configuration's model reads, without loading its weights.
///
/// # Errors
/// When the checkpoint is missing, or its configuration is damaged.
pub fn image_size_of(config: &RunConfig) -> anyhow::Result<usize> {
    let checkpoint = model::checkpoint::load_config(&find_checkpoint(&config.checkpoint)?)?;
    Ok(config.model.image_size.unwrap_or(checkpoint.vision_config.image_size))
}

/// The sizes of a configuration's model. Without a checkpoint they are those of its pretraining, or of the
/// published model with its name.
///
/// # Errors
/// When the checkpoint is missing and its name is not that of a published model, or the changed sizes are not
/// valid.
pub fn sizes_of(config: &RunConfig) -> anyhow::Result<Blip2Config> {
    let named = config.checkpoint.to_string_lossy();
    let mut sizes = match (&config.pretraining, find_checkpoint(&config.checkpoint)) {
        (Some(pretraining), _) => sizes_of_pretraining(pretraining)?,
        (None, Ok(directory)) => model::checkpoint::load_config(&directory)?,
        (None, Err(absent)) => match Preset::from_name(&named) {
            Some(preset) => preset.config(),
            None => return Err(absent),
        },
    };
    config.overrides().apply(&mut sizes);
    sizes.check().map_err(|reason| anyhow::anyhow!("{named}, changed as configured: {reason}"))?;
    Ok(sizes)
}

/// The types of the ViT's and of the language model's weights. What any stage trains is f32, and so are the
/// low-rank updates of a frozen language model.
fn precision(config: &RunConfig, sizes: &Blip2Config, device: &Device) -> Precision {
    if config.model.frozen_type == FrozenType::F32 {
        return Precision::default();
    }
    // allocates no weight: parameters are initialised when they are first read
    let names = model::parameters::names(&sizes.init(device));
    let of = |part: &str| {
        let mut own = names.iter().filter(|name| name.starts_with(part) && !name.contains(".lora."));
        if own.any(|name| config.trains(name)) { FloatDType::F32 } else { FloatDType::BF16 }
    };
    Precision { vision_model: of("vision_model."), language_model: of("language_model.") }
}

/// The sizes of a pretraining's model, with the vocabulary of the tiny world.
fn sizes_of_pretraining(choice: &PretrainingChoice) -> anyhow::Result<Blip2Config> {
    let config = pretrain::find(&choice.name, &choice.sets())?;
    let mut sizes = config.model;
    if config.start.is_none() {
        sizes.text_config.set_vocabulary_size(Tokenizer::word_level(&vocabulary())?.vocabulary_size());
    }
    Ok(sizes)
}

/// The folder of a checkpoint: the path as it is, or inside the project's own folder; of a repository's name
/// also `checkpoints/NAME`, where the command that the error names puts it.
pub(crate) fn find_checkpoint(path: &Path) -> anyhow::Result<PathBuf> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let words: Vec<_> = path.components().collect();
    let name = path.file_name().map(Path::new).filter(|_| words.len() == 2);
    let own = name.map(|name| Path::new("checkpoints").join(name));
    let places = [Some(path.to_owned()), Some(project.join(path)), own.clone()];
    if let Some(place) = places.into_iter().flatten().find(|place| place.is_dir()) {
        return Ok(place);
    }
    let shown = path.display();
    match (Preset::from_name(&path.to_string_lossy()), own) {
        (Some(Preset::Blip2Vicuna7B), _) => bail!(
            "there is no checkpoint {shown}, and none is published: pretrain BLIP-2's second stage on Vicuna-7B, and put it there \
             with `experiments import`"
        ),
        (Some(_), Some(own)) if !path.starts_with("checkpoints") => bail!(
            "there is no checkpoint {shown} in {}; `experiments import {shown} --out {}` gets it",
            own.display(),
            own.display()
        ),
        (Some(_), _) => {
            bail!(
                "there is no checkpoint {shown}; `experiments import SOURCE --out {shown}` makes one of your files"
            )
        }
        (None, _) => bail!(
            "there is no checkpoint {shown}; make the tiny one with `experiments pretrain tiny --out {shown}`"
        ),
    }
}
