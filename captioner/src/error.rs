//! Errors of this crate.

use std::path::PathBuf;

use data::loader::LoadError;
use model::InputError;
use model::blip2::CaptionError;
use model::checkpoint::CheckpointError;
use model::generate::ConfigError;

/// Why a checkpoint could not be opened, or a clip not be captioned.
#[derive(Debug, thiserror::Error)]
pub enum CaptionerError {
    /// Weights or sizes cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The language model's tokenizer is missing or broken.
    #[error("the checkpoint's tokenizer cannot be read")]
    Tokenizer(#[source] data::Error),
    /// The Q-Former's tokenizer is missing or broken, and there is a prompt.
    #[error(
        "the Q-Former reads the prompt too, and its tokenizer ({}/) cannot be read",
        crate::checkpoint::QFORMER_TOKENIZER
    )]
    QFormerTokenizer(#[source] data::Error),
    /// The tokenizer has tokens without an embedding.
    #[error(
        "the tokenizer in {} has {tokens} tokens, the language model {rows}: it is another model's; put the right \
         tokenizer there",
        directory.display()
    )]
    ForeignTokenizer {
        /// Tokens of the tokenizer.
        tokens: usize,
        /// Rows of the language model's embedding.
        rows: usize,
        /// The checkpoint.
        directory: PathBuf,
    },
    /// The Q-Former's tokenizer has tokens without an embedding.
    #[error(
        "the tokenizer in {} has {tokens} tokens, the Q-Former {rows}: it is another model's; put the right tokenizer \
         there",
        directory.display()
    )]
    ForeignQFormerTokenizer {
        /// Tokens of the tokenizer.
        tokens: usize,
        /// Rows of the Q-Former's embedding.
        rows: usize,
        /// The tokenizer's folder.
        directory: PathBuf,
    },
    /// The checkpoint's saved settings are not valid.
    #[error("damaged settings of a checkpoint: {reason}: {}", path.display())]
    Settings {
        /// The parser's message.
        reason: String,
        /// The file.
        path: PathBuf,
    },
    /// The file system refused a read.
    #[error("cannot read the checkpoint {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The generation settings do not fit each other.
    #[error(transparent)]
    Generation(#[from] ConfigError),
    /// The model cannot read the prompt, or the sequence is too long for it.
    #[error(transparent)]
    Input(#[from] InputError),
    /// Generation failed.
    #[error("no caption can be generated: {0}")]
    Caption(#[from] CaptionError),
    /// The ViT's output could not be read back.
    #[error("cannot compute the frozen ViT's features: {0}")]
    Features(String),
    /// Features of a split without clips were requested.
    #[error("a split without clips has no features")]
    NoClips,
    /// A clip, a tokenizer or a cache failed.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// A decoder thread failed.
    #[error(transparent)]
    Decoder(#[from] LoadError<data::Error>),
}
