//! A pretrained model, loaded and used as a run's configuration says.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;
use burn::tensor::Device;
use data::text::Tokenizer;
use model::generate::GenerateConfig;
use model::{Blip2, Blip2Config};
use train::Context;

use crate::config::RunConfig;

/// A pretrained model, loaded.
pub struct Pretrained {
    /// Sizes, with the configuration's changes.
    pub config: Blip2Config,
    /// Weights, on a plain device.
    pub model: Blip2,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
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
        let adapt = |blip2: &mut Blip2Config| {
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
        };
        let (blip2_config, model) = model::checkpoint::load(directory, adapt, device)?;
        let tokenizer = Arc::new(Tokenizer::from_file(&directory.join(TOKENIZER_FILE))?);
        check_tokenizer(&tokenizer, &blip2_config, directory)?;
        Ok(Self { config: blip2_config, model, tokenizer })
    }

    /// Side of the images that the model takes.
    pub fn image_size(&self) -> usize {
        self.config.vision_config.image_size
    }

    /// What a captioner of this model needs besides weights.
    pub fn context(&self, config: &RunConfig) -> Context {
        Context {
            config: self.config.clone(),
            tokenizer: self.tokenizer.clone(),
            prompt: Vec::new(),
            generate: GenerateConfig {
                max_new_tokens: config.evaluate.max_new_tokens,
                end_tokens: vec![self.tokenizer.end()],
                ..GenerateConfig::default()
            },
            label_smoothing: config.train.label_smoothing,
        }
    }
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

/// A path as it is, or inside the project's own folder.
fn find_checkpoint(path: &Path) -> anyhow::Result<PathBuf> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let places = [path.to_owned(), project.join(path)];
    match places.iter().find(|place| place.is_dir()) {
        Some(place) => Ok(place.clone()),
        None => bail!(
            "there is no checkpoint {}; make the tiny one with `experiments pretrain tiny --out {}`",
            path.display(),
            path.display()
        ),
    }
}
