//! The checkpoint of a configuration: its folder, its sizes, and opening it with the configuration's changes.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use burn::tensor::{Device, FloatDType};
use captioner::Checkpoint;
use data::text::Tokenizer;
use data::tiny_world::vocabulary;
use model::Blip2Config;
use model::checkpoint::Precision;
use model::presets::Preset;

use super::{FrozenType, PretrainConfig, PretrainingChoice, RunConfig};
use crate::runtime::note;

/// The folder of a checkpoint: the path itself or in the project's folder; for the name of a repository also
/// `checkpoints/NAME`, which is where `experiments import` puts it.
pub(crate) fn find_checkpoint(path: &Path) -> anyhow::Result<PathBuf> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let name = path.file_name().map(Path::new).filter(|_| path.components().count() == 2);
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
            "there is no checkpoint {shown} in {own}; `experiments import {shown} --out {own}` gets it",
            own = own.display()
        ),
        (Some(_), _) => bail!(
            "there is no checkpoint {shown}; `experiments import SOURCE --out {shown}` makes one of your files"
        ),
        (None, _) => bail!(
            "there is no checkpoint {shown}; make the tiny one with `experiments pretrain tiny --out {shown}`"
        ),
    }
}

/// Height and width of the images of a configuration's model, pixels. Its weights are not read.
pub(crate) fn image_size(config: &RunConfig) -> anyhow::Result<usize> {
    let checkpoint = model::checkpoint::load_config(&find_checkpoint(&config.checkpoint)?)?;
    Ok(config.model.image_size.unwrap_or(checkpoint.vision_config.image_size))
}

/// The sizes of a configuration's model. Where its checkpoint does not exist, they are those of its
/// pretraining, or of the published model of that name.
pub(crate) fn sizes(config: &RunConfig) -> anyhow::Result<Blip2Config> {
    let named = config.checkpoint.to_string_lossy();
    let mut sizes = match (&config.pretraining, find_checkpoint(&config.checkpoint)) {
        (Some(pretraining), _) => sizes_of_pretraining(pretraining)?,
        (None, Ok(directory)) => model::checkpoint::load_config(&directory)?,
        (None, Err(absent)) => Preset::from_name(&named).ok_or(absent)?.config(),
    };
    config.overrides(config.model.dropout).apply(&mut sizes);
    sizes.check().map_err(|reason| anyhow::anyhow!("{named}, changed as configured: {reason}"))?;
    Ok(sizes)
}

/// Opens a checkpoint with the changes of a configuration and the dropout of a stage.
pub(crate) fn open_checkpoint(
    directory: &Path,
    config: &RunConfig,
    dropout: Option<f64>,
    device: &Device,
) -> anyhow::Result<Checkpoint> {
    let mut sizes = model::checkpoint::load_config(directory)?;
    config.overrides(dropout).apply(&mut sizes);
    let precision = precision(config, &sizes, device);
    if config.model.frozen_type == FrozenType::Bf16 && !device.supports_dtype(FloatDType::BF16) {
        note(&format!("the device has no bf16: {precision:?}"));
    }
    open_checkpoint_in(directory, config, dropout, precision, device)
}

/// [`open_checkpoint`] with other number types than the configuration's.
pub(crate) fn open_checkpoint_in(
    directory: &Path,
    config: &RunConfig,
    dropout: Option<f64>,
    precision: Precision,
    device: &Device,
) -> anyhow::Result<Checkpoint> {
    Checkpoint::open(directory, &config.overrides(dropout), precision, device)
        .with_context(|| format!("checkpoint {}", directory.display()))
}

/// The number types of ViT and language model: of two bytes as far as the device has them. Weights that any
/// stage trains are f32, and so are low-rank updates of a frozen language model.
fn precision(config: &RunConfig, sizes: &Blip2Config, device: &Device) -> Precision {
    if config.model.frozen_type == FrozenType::F32 {
        return Precision::default();
    }
    // no weight is allocated: parameters are initialised when they are first read
    let names = model::parameters::names(&sizes.init(device));
    let half = Precision::half(device, &sizes.text_config);
    let of = |part: &str, half: FloatDType| {
        let mut own = names.iter().filter(|name| name.starts_with(part) && !name.contains(".lora."));
        if own.any(|name| config.trains(name)) { FloatDType::F32 } else { half }
    };
    Precision {
        int8: false,
        vision_model: of("vision_model.", half.vision_model),
        language_model: of("language_model.", half.language_model),
    }
}

/// The sizes of a pretraining's model; its vocabulary is that of the tiny world.
fn sizes_of_pretraining(choice: &PretrainingChoice) -> anyhow::Result<Blip2Config> {
    let config = PretrainConfig::find(&choice.name, &choice.sets())?;
    let mut sizes = config.model;
    if config.start.is_none() {
        sizes.text_config.set_vocabulary_size(Tokenizer::word_level(&vocabulary())?.vocabulary_size());
    }
    Ok(sizes)
}
