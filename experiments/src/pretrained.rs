//! A pretrained model, loaded and used as a run's configuration says.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use burn::tensor::{Device, FloatDType};
use data::text::Tokenizer;
use data::tiny_world::vocabulary;
use model::checkpoint::Precision;
use model::generate::GenerateConfig;
use model::lm::LanguageModelConfig;
use model::presets::Preset;
use model::{Blip2, Blip2Config};
use sha2::{Digest, Sha256};
use train::Context;

use crate::config::{FrozenType, PretrainingChoice, RunConfig, hex};
use crate::{pretrain, provenance};

/// A pretrained model, loaded.
pub struct Pretrained {
    /// Sizes, with the configuration's changes.
    pub config: Blip2Config,
    /// Weights, on a plain device.
    pub model: Blip2,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Tokens that end a caption.
    pub ends: Vec<u32>,
}

/// File of a tokenizer in a checkpoint.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

impl Pretrained {
    /// Reads the checkpoint that a configuration names.
    ///
    /// # Errors
    /// When it is not there or not whole.
    pub fn load(config: &RunConfig, device: &Device) -> anyhow::Result<Self> {
        Self::load_from(&find_checkpoint(&config.checkpoint)?, config, config.model.dropout, device)
    }

    /// Height and width of the images that a configuration's model takes, without reading its weights.
    ///
    /// # Errors
    /// When the checkpoint is not there, or says nothing of a model.
    pub fn image_size_of(config: &RunConfig) -> anyhow::Result<usize> {
        let checkpoint = model::checkpoint::load_config(&find_checkpoint(&config.checkpoint)?)?;
        Ok(config.model.image_size.unwrap_or(checkpoint.vision_config.image_size))
    }

    /// The sizes of a configuration's model, also where its checkpoint is not there: then they are those of its pretraining,
    /// or of the published model that its name implies.
    ///
    /// # Errors
    /// When the checkpoint is not there and its name implies nothing, or what is changed of the sizes makes no model.
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
        adapt(&mut sizes, config, config.model.dropout);
        sizes.check().map_err(|reason| anyhow::anyhow!("{named}, changed as configured: {reason}"))?;
        Ok(sizes)
    }

    /// Reads a checkpoint, used as a configuration says; `dropout` changes its rates where one is given.
    ///
    /// # Errors
    /// When it is not there or not whole.
    pub fn load_from(
        directory: &Path,
        config: &RunConfig,
        dropout: Option<f64>,
        device: &Device,
    ) -> anyhow::Result<Self> {
        let mut sizes = model::checkpoint::load_config(directory)?;
        adapt(&mut sizes, config, dropout);
        let precision = precision(config, &sizes, device);
        let changes = |blip2: &mut Blip2Config| adapt(blip2, config, dropout);
        let (blip2_config, model) = model::checkpoint::load_in(directory, changes, precision, device)?;
        let tokenizer = Arc::new(open_tokenizer(directory, &blip2_config)?);
        let ends = end_tokens(directory, &blip2_config, &tokenizer)?;
        Ok(Self { config: blip2_config, model, tokenizer, ends })
    }

    /// Side of the images that the model takes.
    pub fn image_size(&self) -> usize {
        self.config.vision_config.image_size
    }

    /// What a captioner of this model needs besides weights.
    ///
    /// # Errors
    /// When the prompt cannot be tokenised, or the settings of writing do not fit each other.
    pub fn context(&self, config: &RunConfig) -> anyhow::Result<Context> {
        let evaluate = &config.evaluate;
        let generate = GenerateConfig {
            max_new_tokens: evaluate.max_new_tokens,
            min_new_tokens: evaluate.min_new_tokens,
            num_beams: evaluate.num_beams,
            length_penalty: evaluate.length_penalty,
            repetition_penalty: evaluate.repetition_penalty,
            end_tokens: self.ends.clone(),
            ..GenerateConfig::default()
        };
        // every question is a prompt of its own
        let (prompt, generate) = match &config.answering {
            None => (prompt_tokens(&self.tokenizer, &evaluate.prompt)?, generate),
            Some(answering) => (Vec::new(), answering.generate(&self.tokenizer)),
        };
        generate.validate()?;
        Ok(Context {
            config: self.config.clone(),
            tokenizer: self.tokenizer.clone(),
            prompt,
            generate,
            label_smoothing: config.train.label_smoothing,
        })
    }
}

/// Changes a checkpoint's sizes as a configuration says.
fn adapt(blip2: &mut Blip2Config, config: &RunConfig, dropout: Option<f64>) {
    blip2.fusion = config.model.fusion;
    blip2.temporal = config.model.temporal;
    blip2.max_frames = blip2.max_frames.max(config.frames.count);
    if let Some(size) = config.model.image_size {
        blip2.vision_config.image_size = size;
    }
    if config.model.lora.is_some() {
        blip2.lora.clone_from(&config.model.lora);
    }
    if let Some(dropout) = dropout {
        blip2.set_dropout(dropout);
    }
}

/// The type of the ViT's and of the language model's weights. What any stage trains stays in f32, and so do the low-rank
/// updates of a frozen language model.
fn precision(config: &RunConfig, sizes: &Blip2Config, device: &Device) -> Precision {
    if config.model.frozen_type == FrozenType::F32 {
        return Precision::default();
    }
    // no weight is allocated: parameters are drawn when they are first read
    let names = model::parameters::names(&sizes.init(device));
    let of = |part: &str| {
        let mut own = names.iter().filter(|name| name.starts_with(part) && !name.contains(".lora."));
        if own.any(|name| config.trains(name)) { FloatDType::F32 } else { FloatDType::BF16 }
    };
    Precision { vision_model: of("vision_model."), language_model: of("language_model.") }
}

/// The sizes of what a pretraining on the tiny world's words makes.
fn sizes_of_pretraining(choice: &PretrainingChoice) -> anyhow::Result<Blip2Config> {
    let config = pretrain::find(&choice.name, &choice.sets())?;
    let mut sizes = config.model;
    if config.start.is_none() {
        sizes.text_config.set_vocabulary_size(Tokenizer::word_level(&vocabulary())?.vocabulary_size());
    }
    Ok(sizes)
}

/// A prompt's tokens; its end is left out, as it goes on.
///
/// # Errors
/// When the tokenizer fails on it.
pub fn prompt_tokens(tokenizer: &Tokenizer, words: &str) -> data::Result<Vec<u32>> {
    if words.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut ids = tokenizer.encode(words.trim(), usize::MAX)?;
    if ids.last() == Some(&tokenizer.end()) {
        ids.pop();
    }
    Ok(ids)
}

/// What ends a caption: as the checkpoint says, and for a T5 its tokenizer's end.
///
/// # Errors
/// When the checkpoint's `generation_config.json` is damaged.
pub fn end_tokens(directory: &Path, config: &Blip2Config, tokenizer: &Tokenizer) -> anyhow::Result<Vec<u32>> {
    let mut ends = model::checkpoint::end_tokens(directory, config)?;
    if matches!(config.text_config, LanguageModelConfig::T5(_)) && !ends.contains(&tokenizer.end()) {
        ends.push(tokenizer.end());
    }
    Ok(ends)
}

/// The checkpoint's tokenizer: `tokenizer.json`, or the files that the language model's own library reads.
///
/// # Errors
/// When there is none, or it is another model's.
pub fn open_tokenizer(directory: &Path, config: &Blip2Config) -> anyhow::Result<Tokenizer> {
    let path = directory.join(TOKENIZER_FILE);
    let path = if path.is_file() { path } else { directory.to_owned() };
    let tokenizer = Tokenizer::from_file(&path).context("the checkpoint's tokenizer cannot be read")?;
    check_tokenizer(&tokenizer, config, directory)?;
    Ok(tokenizer)
}

/// Refuses a tokenizer that has tokens the language model has no embedding for.
///
/// # Errors
/// With both numbers.
pub fn check_tokenizer(tokenizer: &Tokenizer, config: &Blip2Config, directory: &Path) -> anyhow::Result<()> {
    let (tokens, rows) = (tokenizer.vocabulary_size(), config.text_config.vocabulary_size());
    if tokens > rows {
        bail!(
            "the tokenizer in {} has {tokens} tokens, the language model {rows}: it is another model's; put the right \
             tokenizer there",
            directory.display()
        );
    }
    Ok(())
}

/// Names the files of a checkpoint: weights, sizes, tokenizer. What tells how it was made is left out.
pub(crate) fn weights_hash(directory: &Path) -> anyhow::Result<String> {
    let told = || format!("cannot read the checkpoint {}", directory.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).with_context(told)? {
        let entry = entry.with_context(told)?;
        let is_of_the_model =
            ![provenance::FILE, pretrain::METRICS_FILE].iter().any(|name| entry.file_name() == *name);
        if is_of_the_model && entry.path().is_file() {
            names.push(entry.file_name());
        }
    }
    names.sort();
    let mut hash = Sha256::new();
    for name in names {
        hash.update(name.as_encoded_bytes());
        let file = fs::File::open(directory.join(&name)).with_context(told)?;
        hash.update(file.metadata().with_context(told)?.len().to_le_bytes());
        let mut file = BufReader::with_capacity(1 << 20, file);
        loop {
            let bytes = file.fill_buf().with_context(told)?;
            if bytes.is_empty() {
                break;
            }
            hash.update(bytes);
            let count = bytes.len();
            file.consume(count);
        }
    }
    Ok(hex(&hash.finalize()))
}

/// The folder of a checkpoint: the path as it is, or inside the project's own folder; of a repository's name also
/// `checkpoints/NAME`, where the command that the error names puts it.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_named_by_its_files_and_not_by_how_it_was_made() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let hash = || weights_hash(folder.path()).unwrap();
        write("config.json", "{}");
        write("model.safetensors", "weights");
        let before = hash();
        write("provenance.json", "today");
        fs::create_dir(folder.path().join("logs")).unwrap();
        assert_eq!(hash(), before);
        write("model.safetensors", "weights!");
        assert_ne!(hash(), before);
        assert!(weights_hash(&folder.path().join("absent")).unwrap_err().to_string().contains("absent"));
    }
}
