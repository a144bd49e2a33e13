//! From a video to token ids: the model and the search together.

use crate::blip2::{Blip2, Prompt, Visual};
use crate::generate::{self, GenerateConfig, GenerateError, Generated, Request};
use crate::lm::{DeviceError, LanguageModel, Prefix};
use crate::qformer::NoTextPath;

/// Why no caption was written.
#[derive(Debug, thiserror::Error)]
pub enum CaptionError {
    /// There is an instruction that nothing can read.
    #[error(transparent)]
    Instruction(#[from] NoTextPath),
    /// The search failed.
    #[error(transparent)]
    Generate(#[from] GenerateError<DeviceError>),
}

impl Blip2 {
    /// Writes captions: for each video `num_return_sequences` of them, best first. Call it on a model in evaluation.
    ///
    /// # Errors
    /// When the settings do not fit, the device fails, or the model gives scores that are no numbers.
    pub fn caption(
        &self,
        visual: Visual,
        prompt: &Prompt,
        config: &GenerateConfig,
    ) -> Result<Vec<Vec<Generated>>, CaptionError> {
        self.write(self.prefix(visual, prompt)?, prompt.streams.as_deref(), config)
    }

    /// As [`caption`](Self::caption), from what the language model reads; `streams` are those of a [`Prompt`].
    ///
    /// # Errors
    /// When the settings do not fit, or the device fails.
    pub fn write(
        &self,
        prefix: Prefix,
        streams: Option<&[u64]>,
        config: &GenerateConfig,
    ) -> Result<Vec<Vec<Generated>>, CaptionError> {
        let [b, _, _] = prefix.embedded.dims();
        let stream = |row: usize| streams.and_then(|streams| streams.get(row)).copied().unwrap_or(row as u64);
        let prompts: Vec<_> =
            (0..b).map(|row| generate::Prompt { history: self.history(), stream: stream(row) }).collect();
        let mut decoding = self.language_model.decoding(prefix, config.max_new_tokens);
        let vocabulary = self.language_model.vocabulary_size();
        Ok(generate::generate(&mut decoding, Request { prompts: &prompts, vocabulary, config })?)
    }

    /// The tokens that a repetition penalty counts before the first new one. A prompt is not among them: it reaches the
    /// language model embedded, as in LAVIS, and `generate` of transformers then knows no tokens of it.
    fn history(&self) -> Vec<u32> {
        match &self.language_model {
            LanguageModel::T5(t5) => vec![t5.start_token()],
            LanguageModel::Opt(_) | LanguageModel::Llama(_) => Vec::new(),
        }
    }
}
