//! Inputs that a model cannot read.

/// Why a model cannot read an input. It is checked before anything is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// A Q-Former without text path got text.
    #[error("this Q-Former was made without a text path (`reads_text` in qformer_config)")]
    NoTextPath,
    /// The sequence of a language model is longer than its positions.
    #[error(
        "{} tokens ({prefix} of video and prompt, {new} of text) are more than the language model's maximum of {positions} \
         (max_position_embeddings): use fewer new tokens, a shorter prompt, or fewer frames where their queries are \
         concatenated",
        prefix + new
    )]
    TooLong {
        /// Tokens before the text: queries and prompt.
        prefix: usize,
        /// Tokens of the text, given or to generate.
        new: usize,
        /// Positions of the language model.
        positions: usize,
    },
    /// A text is longer than the Q-Former's positions.
    #[error(
        "a text of {tokens} tokens is longer than the Q-Former's maximum of {positions} (max_position_embeddings): use a \
         shorter prompt"
    )]
    QFormerText {
        /// Tokens of the text, with those that mark its start and end.
        tokens: usize,
        /// Positions of the Q-Former's text.
        positions: usize,
    },
    /// Frames of another size than the ViT's.
    #[error("frames of {height}x{width} pixels make {found} tokens, the ViT has positions for {expected}")]
    FrameSize {
        /// Of the frames.
        height: usize,
        /// Of the frames.
        width: usize,
        /// Tokens of such a frame.
        found: usize,
        /// Tokens that the ViT has positions for.
        expected: usize,
    },
}

impl InputError {
    /// Rejects a text after a prefix that is longer than the positions of a language model; `None` is no limit.
    /// The last token of a text is scored and not read, so it needs no position.
    ///
    /// # Errors
    /// [`InputError::TooLong`].
    pub(crate) fn check_length(prefix: usize, new: usize, positions: Option<usize>) -> Result<(), Self> {
        match positions {
            Some(positions) if prefix.saturating_add(new) > positions.saturating_add(1) => {
                Err(Self::TooLong { prefix, new, positions })
            }
            _ => Ok(()),
        }
    }
}
