//! A checkpoint directory: weights, sizes, tokenizers and end tokens.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use data::text::Tokenizer;
use model::checkpoint::{self, Constraints, Precision};
use model::generate::GenerateConfig;
use model::lm::LanguageModelConfig;
use model::{Blip2, Blip2Config, InputError};

pub use model::checkpoint::{QFORMER_TOKENIZER, hex, weights_hash};

use crate::{CaptionerError, Change, Context, Overrides, PromptIds};

/// File of the language model's tokenizer.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// A loaded checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    /// Sizes, overrides applied.
    pub config: Blip2Config,
    /// Weights, without autodiff.
    pub model: Blip2,
    /// The language model's tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// The Q-Former's tokenizer, where the Q-Former reads text and the checkpoint has one.
    pub qformer_tokenizer: Option<Arc<Tokenizer>>,
    /// Tokens that end a caption.
    pub end_tokens: Vec<u32>,
    /// Tokens that the checkpoint's `generation_config.json` excludes or forces.
    pub constraints: Constraints,
    /// Values that the overrides changed.
    pub changes: Vec<Change>,
    directory: PathBuf,
}

impl Checkpoint {
    /// Loads a checkpoint onto a device.
    ///
    /// # Errors
    /// When a file is missing or damaged, a tensor does not fit, or the tokenizer belongs to another model.
    pub fn open(
        directory: &Path,
        overrides: &Overrides,
        precision: Precision,
        device: &Device,
    ) -> Result<Self, CaptionerError> {
        let mut changes = Vec::new();
        let adapt = |config: &mut Blip2Config| changes = overrides.apply(config);
        let (config, model) = checkpoint::load_in(directory, adapt, precision, device)?;
        let tokenizer = Arc::new(open_tokenizer(directory, &config)?);
        let end_tokens = end_tokens(directory, &config, &tokenizer)?;
        let constraints = Constraints::of_checkpoint(directory)?;
        // without one only prompts are rejected: the model works without
        let has_own = config.qformer_config.reads_text && directory.join(QFORMER_TOKENIZER).is_dir();
        let qformer_tokenizer =
            has_own.then(|| open_qformer_tokenizer(directory, &config)).transpose()?.map(Arc::new);
        let directory = directory.to_owned();
        Ok(Self { config, model, tokenizer, qformer_tokenizer, end_tokens, constraints, changes, directory })
    }

    /// What captioning with a prompt and these settings needs besides weights.
    ///
    /// # Errors
    /// When the settings do not fit each other, a tokenizer fails on the prompt, or the Q-Former reads text
    /// and the checkpoint has no tokenizer for it, or fewer positions than the prompt has tokens.
    pub fn context(&self, prompt: &str, generate: GenerateConfig) -> Result<Context, CaptionerError> {
        generate.validate()?;
        let qformer = self.qformer_tokenizer.as_deref();
        if self.config.qformer_config.reads_text && qformer.is_none() && !prompt.trim().is_empty() {
            open_qformer_tokenizer(&self.directory, &self.config)?;
        }
        let prompt = PromptIds::new(prompt, &self.tokenizer, qformer)?;
        let positions = self.config.qformer_config.max_position_embeddings;
        let tokens = prompt.instruction.len();
        if tokens > positions {
            return Err(InputError::QFormerText { tokens, positions }.into());
        }
        let (tokenizer, qformer_tokenizer) = (self.tokenizer.clone(), self.qformer_tokenizer.clone());
        Ok(Context { config: self.config.clone(), tokenizer, qformer_tokenizer, prompt, generate })
    }
}

/// The tokens that end a caption: those of the checkpoint's `generation_config.json` or `config.json`, and
/// for T5 the end token of its tokenizer.
///
/// # Errors
/// When `generation_config.json` is damaged.
pub fn end_tokens(
    directory: &Path,
    config: &Blip2Config,
    tokenizer: &Tokenizer,
) -> Result<Vec<u32>, CaptionerError> {
    let mut ends = checkpoint::end_tokens(directory, config)?;
    if matches!(config.text_config, LanguageModelConfig::T5(_)) && !ends.contains(&tokenizer.end()) {
        ends.push(tokenizer.end());
    }
    Ok(ends)
}

/// Reads the language model's tokenizer, in any layout that [`Tokenizer::open`] supports.
///
/// # Errors
/// When there is none, or it belongs to another model.
pub fn open_tokenizer(directory: &Path, config: &Blip2Config) -> Result<Tokenizer, CaptionerError> {
    let tokenizer = Tokenizer::open(directory).map_err(CaptionerError::Tokenizer)?;
    check_tokenizer(&tokenizer, config, directory)?;
    Ok(match checkpoint::end_tokens(directory, config)?.first() {
        Some(&end) => tokenizer.ending_with(end),
        None => tokenizer,
    })
}

/// Reads the Q-Former's tokenizer, in any layout that [`Tokenizer::open`] supports.
///
/// # Errors
/// When there is none, or it belongs to another model.
pub fn open_qformer_tokenizer(directory: &Path, config: &Blip2Config) -> Result<Tokenizer, CaptionerError> {
    let directory = directory.join(QFORMER_TOKENIZER);
    let tokenizer = Tokenizer::open(&directory).map_err(CaptionerError::QFormerTokenizer)?;
    let (tokens, rows) = (tokenizer.vocabulary_size(), config.qformer_config.vocab_size);
    if tokens > rows {
        return Err(CaptionerError::ForeignQFormerTokenizer { tokens, rows, directory });
    }
    Ok(tokenizer)
}

/// Rejects a tokenizer with more tokens than the language model has embeddings.
///
/// # Errors
/// With both numbers.
pub fn check_tokenizer(
    tokenizer: &Tokenizer,
    config: &Blip2Config,
    directory: &Path,
) -> Result<(), CaptionerError> {
    let (tokens, rows) = (tokenizer.vocabulary_size(), config.text_config.vocabulary_size());
    if tokens > rows {
        return Err(CaptionerError::ForeignTokenizer { tokens, rows, directory: directory.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SETTINGS_FILE;

    #[test]
    fn a_checkpoint_is_identified_by_its_files_and_not_by_how_it_was_made() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let hash = || weights_hash(folder.path()).unwrap();
        write("config.json", "{}");
        write("model.safetensors", "weights");
        let before = hash();
        write("provenance.json", "today");
        write(SETTINGS_FILE, "[frames]");
        std::fs::create_dir(folder.path().join("logs")).unwrap();
        assert_eq!(hash(), before);
        std::fs::create_dir(folder.path().join(QFORMER_TOKENIZER)).unwrap();
        write("qformer_tokenizer/vocab.txt", "[UNK]");
        assert_ne!(hash(), before, "a tokenizer decides what the model reads");
        std::fs::remove_dir_all(folder.path().join(QFORMER_TOKENIZER)).unwrap();
        assert_eq!(hash(), before);
        write("model.safetensors", "weights!");
        assert_ne!(hash(), before);
        assert!(weights_hash(&folder.path().join("absent")).unwrap_err().to_string().contains("absent"));
    }

    #[test]
    fn a_tokenizer_of_another_model_is_rejected_with_both_numbers() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments/checkpoints/tiny");
        let mut config = checkpoint::load_config(&directory).unwrap();
        open_tokenizer(&directory, &config).unwrap();
        config.text_config.set_vocabulary_size(7);
        let error = open_tokenizer(&directory, &config).unwrap_err().to_string();
        assert!(error.contains("the language model 7"), "{error}");
    }
}
