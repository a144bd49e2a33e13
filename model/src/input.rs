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
    /// Rejects a text after a prefix that is longer than the positions of a language model; `None` is no
    /// limit. The last token of a text is scored and not read, so it needs no position.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blip2::tests::tiny;
    use crate::blip2::{Blip2Config, CaptionError, Prompt, PromptTokens, Visual};
    use crate::fusion::Fusion;
    use crate::generate::GenerateConfig;
    use crate::lm::{LanguageModelConfig, llama, opt};
    use crate::qformer::QFormerConfig;
    use burn::tensor::{Device, Int, Tensor};

    fn frames(count: usize, size: usize) -> Visual {
        Visual::Frames(Tensor::ones([1, count, 3, size, size], &Device::flex()))
    }

    fn tokens(count: usize) -> Tensor<2, Int> {
        Tensor::ones([1, count], &Device::flex())
    }

    /// Twenty positions, three queries a frame.
    #[test]
    fn the_positions_of_a_decoder_are_the_maximum_for_scoring_and_for_generation() {
        let llama = llama::LlamaConfig { max_position_embeddings: 20, ..llama::tests::tiny() };
        for text_config in [LanguageModelConfig::Opt(opt::tests::tiny()), LanguageModelConfig::Llama(llama)] {
            let config = Blip2Config { text_config, ..tiny(Fusion::ConcatQueries) };
            let model = config.init(&Device::flex());
            for (count, prompt, most) in [(4, 0, 9), (2, 5, 10), (6, 2, 1)] {
                let text = Prompt::text(tokens(prompt));
                let text = if prompt == 0 { Prompt::default() } else { text };
                let score = |new| model.logits(frames(count, 8), &text, tokens(new)).map(|_| ());
                let generate = |new| {
                    let settings = GenerateConfig { max_new_tokens: new, ..GenerateConfig::default() };
                    model.caption(frames(count, 8), &text, &settings).map(|rows| rows[0][0].ids.len())
                };
                let expected =
                    InputError::TooLong { prefix: 3 * count + prompt, new: most + 1, positions: 20 };
                assert_eq!(score(most), Ok(()));
                assert_eq!(score(most + 1), Err(expected));
                assert_eq!(generate(most).unwrap(), most);
                assert!(
                    matches!(generate(most + 1), Err(CaptionError::Input(error)) if error == expected),
                    "{count} frames"
                );
                assert_eq!(config.check_length(count, prompt, most), Ok(()));
                assert_eq!(config.check_length(count, prompt, most + 1), Err(expected));
                assert!(expected.to_string().contains("maximum of 20"));
            }
            assert!(config.check_length(usize::MAX, usize::MAX, usize::MAX).is_err());
        }
        assert_eq!(tiny(Fusion::ConcatQueries).check_length(1000, 1000, 100_000), Ok(()), "T5 has none");
    }

    #[test]
    fn an_instruction_has_at_most_the_positions_of_the_qformer() {
        let qformer_config = QFormerConfig {
            reads_text: true,
            vocab_size: 11,
            max_position_embeddings: 6,
            ..tiny(Fusion::Concat).qformer_config
        };
        let model = Blip2Config { qformer_config, ..tiny(Fusion::Concat) }.init(&Device::flex());
        let prefix = |count| {
            let instruction = Some(PromptTokens { ids: tokens(count), mask: None });
            let prompt = Prompt { instruction, ..Prompt::default() };
            model.prefix(frames(1, 8), &prompt).map(|_| ())
        };
        assert_eq!(prefix(6), Ok(()));
        assert_eq!(prefix(7), Err(InputError::QFormerText { tokens: 7, positions: 6 }));
    }

    #[test]
    fn frames_of_another_size_are_an_error_with_both_numbers() {
        let model = tiny(Fusion::Concat).init(&Device::flex());
        let prefix = |size| model.prefix(frames(2, size), &Prompt::default()).map(|_| ());
        assert_eq!(prefix(8), Ok(()));
        for size in [4, 9, 12] {
            let error = prefix(size).unwrap_err();
            assert!(matches!(error, InputError::FrameSize { expected: 5, .. }), "{error}");
        }
    }
}
