//! Prompts and generation: from a batch on the host to captions.

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};
use data::text::Tokenizer;
use model::generate::{GenerateConfig, Generated};
use model::{Blip2, Blip2Config, Prompt, PromptTokens};

use crate::CaptionerError;
use crate::host::{HostPrompts, HostVisual, device_of};

/// What captioning needs besides weights.
#[derive(Debug, Clone)]
pub struct Context {
    /// The model's sizes.
    pub config: Blip2Config,
    /// Text to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// The Q-Former's tokenizer, where the Q-Former reads text and the checkpoint has one.
    pub qformer_tokenizer: Option<Arc<Tokenizer>>,
    /// The prompt of every clip without its own.
    pub prompt: PromptIds,
    /// How captions are generated.
    pub generate: GenerateConfig,
}

/// Tokens of a prompt; empty by default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PromptIds {
    /// Read by the language model, after the video.
    pub text: Vec<u32>,
    /// Read by the Q-Former beside its queries (InstructBLIP).
    pub instruction: Vec<u32>,
}

impl PromptIds {
    /// Tokenizes a prompt. The end token is left out, as the caption follows; `qformer` is the tokenizer of a
    /// Q-Former that reads text.
    ///
    /// # Errors
    /// When a tokenizer fails on the prompt.
    pub fn new(prompt: &str, tokenizer: &Tokenizer, qformer: Option<&Tokenizer>) -> data::Result<Self> {
        let prompt = prompt.trim();
        if prompt.is_empty() {
            return Ok(Self::default());
        }
        let mut text = tokenizer.encode(prompt, usize::MAX)?;
        if text.last() == Some(&tokenizer.end()) {
            text.pop();
        }
        let instruction = qformer.map(|own| own.encode_as_published(prompt, usize::MAX));
        Ok(Self { text, instruction: instruction.transpose()?.unwrap_or_default() })
    }
}

/// A generated caption.
#[derive(Debug, Clone, PartialEq)]
pub struct Caption {
    /// The text.
    pub text: String,
    /// Its tokens, the end token included where one was generated.
    pub ids: Vec<u32>,
    /// Sum of the tokens' log-probabilities, in nats.
    pub log_probability: f32,
    /// What the captions of a clip are ordered by, see [`Generated::score`].
    pub score: f32,
}

impl Context {
    /// Rejects generation, after `frames` frames and the context's prompt, that would be longer than the
    /// language model's positions.
    ///
    /// # Errors
    /// With the lengths and the maximum.
    pub fn check_length(&self, frames: usize) -> Result<(), CaptionerError> {
        Ok(self.config.check_length(frames, self.prompt.text.len(), self.generate.max_new_tokens)?)
    }

    /// The rows' own prompts, or the context's for all `b` rows.
    pub fn prompt(&self, prompts: Option<HostPrompts>, b: usize, device: &Device) -> Prompt {
        if let Some(prompts) = prompts {
            return prompts.upload(device);
        }
        let expand = |ids: &[u32]| {
            let t = ids.len();
            let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
            let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, t]), &device.clone().inner());
            (t > 0).then(|| PromptTokens { ids: ids.expand([b, t]), mask: None })
        };
        let PromptIds { text, instruction } = &self.prompt;
        Prompt { text: expand(text), instruction: expand(instruction), streams: None }
    }

    /// Generates captions: `num_return_sequences` for each row, best first. `streams` names each row's stream
    /// of random numbers for sampling. The model must not be in training
    /// ([`Module::valid`](burn::module::Module::valid)).
    ///
    /// # Errors
    /// When the settings do not fit, the device or the tokenizer fails, or there is an instruction that the
    /// model cannot read.
    pub fn generate(
        &self,
        model: &Blip2,
        visual: HostVisual,
        prompts: Option<HostPrompts>,
        streams: Vec<u64>,
    ) -> Result<Vec<Vec<Caption>>, CaptionerError> {
        let device = device_of(model);
        let visual = match visual.joined() {
            Some((frames, rows)) => model.encode_repeated(frames.upload(&device), &rows)?,
            None => visual.upload(&device),
        };
        let prompt = self.prompt(prompts, visual.batch_size(), &device);
        let prompt = Prompt { streams: Some(streams), ..prompt };
        let generated = model.caption(visual, &prompt, &self.generate)?;
        let captions = generated.into_iter().map(|row| row.into_iter().map(|one| self.decode(one)).collect());
        Ok(captions.collect::<data::Result<_>>()?)
    }

    fn decode(&self, Generated { ids, log_probability, score }: Generated) -> data::Result<Caption> {
        Ok(Caption { text: self.tokenizer.decode(&ids)?, ids, log_probability, score })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_has_no_end_and_an_instruction_is_encoded_as_published() {
        let words = ["a", "video", "of"].map(str::to_owned);
        let tokenizer = Tokenizer::word_level(&words).unwrap();
        let prompt = PromptIds::new(" a video ", &tokenizer, Some(&tokenizer)).unwrap();
        assert_eq!(prompt.text, [3, 4]);
        assert_eq!(prompt.instruction, tokenizer.encode_as_published("a video", 9).unwrap());
        assert_eq!(PromptIds::new(" ", &tokenizer, Some(&tokenizer)).unwrap(), PromptIds::default());
    }
}
