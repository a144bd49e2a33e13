//! Prompts and generation: from a batch on the host to captions.

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};
use data::text::{Family, Tokenizer};
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
    /// Read by the language model in generation where there is no text: OPT's `</s>`, which begins every
    /// caption that it is trained on.
    pub start: Vec<u32>,
}

impl PromptIds {
    /// Tokenizes a prompt as published, as LAVIS does: T5's encoder reads `prompt </s>`, OPT and LLaMA read
    /// `</s> prompt` and `<s> prompt`, LLaMA its `<s>` without a prompt too; others as their tokenizer has
    /// it. `qformer` is the tokenizer of a
    /// Q-Former that reads text.
    ///
    /// # Errors
    /// When a tokenizer fails on the prompt.
    pub fn new(prompt: &str, tokenizer: &Tokenizer, qformer: Option<&Tokenizer>) -> data::Result<Self> {
        let prompt = prompt.trim();
        if prompt.is_empty() {
            return Ok(match tokenizer.family() {
                Family::Llama | Family::Gpt2 => {
                    Self { text: tokenizer.encode_as_published("", usize::MAX)?, ..Self::default() }
                }
                Family::Opt => {
                    Self { start: tokenizer.encode_as_published("", usize::MAX)?, ..Self::default() }
                }
                Family::Bert | Family::T5 | Family::Words => Self::default(),
            });
        }
        let text = tokenizer.encode_as_published(prompt, usize::MAX)?;
        let instruction = qformer.map(|own| own.encode_as_published(prompt, usize::MAX));
        Ok(Self { text, instruction: instruction.transpose()?.unwrap_or_default(), start: Vec::new() })
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
        let PromptIds { text, start, .. } = &self.prompt;
        Ok(self.config.check_length(frames, text.len() + start.len(), self.generate.max_new_tokens)?)
    }

    /// The rows' own prompts, or the context's for all `b` rows.
    pub fn prompt(&self, prompts: Option<HostPrompts>, b: usize, device: &Device) -> Prompt {
        if let Some(prompts) = prompts {
            return prompts.upload(device);
        }
        let PromptIds { text, instruction, .. } = &self.prompt;
        let expand = |ids: &[u32]| expand(ids, b, device);
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
        let b = visual.batch_size();
        let Prompt { text, instruction, .. } = self.prompt(prompts, b, &device);
        let text = text.or_else(|| expand(&self.prompt.start, b, &device));
        let prompt = Prompt { text, instruction, streams: Some(streams) };
        let generated = model.caption(visual, &prompt, &self.generate)?;
        let captions = generated.into_iter().map(|row| row.into_iter().map(|one| self.decode(one)).collect());
        Ok(captions.collect::<data::Result<_>>()?)
    }

    fn decode(&self, Generated { ids, log_probability, score }: Generated) -> data::Result<Caption> {
        Ok(Caption { text: self.tokenizer.decode(&ids)?, ids, log_probability, score })
    }
}

/// The same tokens for all `b` rows; none where there are none.
fn expand(ids: &[u32], b: usize, device: &Device) -> Option<PromptTokens> {
    let t = ids.len();
    let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, t]), &device.clone().inner());
    (t > 0).then(|| PromptTokens { ids: ids.expand([b, t]), mask: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tokenizer of letters in the layout of a family, with its special tokens around a text.
    fn tokenizer(model: &serde_json::Value, before: Option<&str>, after: Option<&str>) -> Tokenizer {
        let token = |name: &str| serde_json::json!({"SpecialToken": {"id": name, "type_id": 0}});
        let text = serde_json::json!({"Sequence": {"id": "A", "type_id": 0}});
        let single: Vec<_> =
            before.map(token).into_iter().chain([text.clone()]).chain(after.map(token)).collect();
        let special =
            |name: &str| (name.to_owned(), serde_json::json!({"id": name, "ids": [1], "tokens": [name]}));
        let special: serde_json::Map<_, _> = before.into_iter().chain(after).map(special).collect();
        let tokenizer = serde_json::json!({
            "version": "1.0", "model": model,
            "post_processor": {
                "type": "TemplateProcessing", "single": single, "pair": [text], "special_tokens": special,
            },
        });
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        Tokenizer::open(directory.path()).unwrap()
    }

    /// Orders of LAVIS's models: `blip2_t5`, `blip2_opt`, `blip2_vicuna_instruct`.
    #[test]
    fn a_prompt_has_the_special_tokens_of_its_language_model_and_llama_begins_without_one_too() {
        let vocabulary =
            |first: [&str; 2]| serde_json::json!({"a": 2, "b": 3, first[0]: 0, first[1]: 1, "Ċ": 4});
        let bpe = |vocabulary, byte_fallback: bool| serde_json::json!({"type": "BPE", "vocab": vocabulary, "merges": [], "byte_fallback": byte_fallback});
        let ids = |tokenizer: &Tokenizer, prompt: &str| PromptIds::new(prompt, tokenizer, None).unwrap();

        let opt = tokenizer(&bpe(vocabulary(["<pad>", "</s>"]), false), Some("</s>"), None);
        assert_eq!(ids(&opt, "ab"), PromptIds { text: vec![1, 2, 3], ..PromptIds::default() });
        assert_eq!(ids(&opt, ""), PromptIds { start: vec![1], ..PromptIds::default() });

        let llama = tokenizer(&bpe(vocabulary(["</s>", "<s>"]), true), Some("<s>"), None);
        assert_eq!(ids(&llama, "ab"), PromptIds { text: vec![1, 2, 3], ..PromptIds::default() });
        assert_eq!(ids(&llama, ""), PromptIds { text: vec![1], ..PromptIds::default() });

        let pieces = [("<pad>", 0.0), ("</s>", 0.0), ("a", -1.0), ("b", -1.0)];
        let unigram = serde_json::json!({"type": "Unigram", "unk_id": 0, "vocab": pieces});
        let t5 = tokenizer(&unigram, None, Some("</s>"));
        assert_eq!(ids(&t5, "ab"), PromptIds { text: vec![2, 3, 1], ..PromptIds::default() });
        assert_eq!(ids(&t5, ""), PromptIds::default());
    }

    #[test]
    fn an_instruction_is_encoded_as_published() {
        let words = ["a", "video", "of"].map(str::to_owned);
        let tokenizer = Tokenizer::word_level(&words).unwrap();
        let prompt = PromptIds::new(" a video ", &tokenizer, Some(&tokenizer)).unwrap();
        assert_eq!(prompt.text, [3, 4]);
        assert_eq!(prompt.instruction, tokenizer.encode_as_published("a video", 9).unwrap());
        assert_eq!(PromptIds::new(" ", &tokenizer, Some(&tokenizer)).unwrap(), PromptIds::default());
    }
}
