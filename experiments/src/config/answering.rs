//! Settings of question answering.

use anyhow::ensure;
use data::text::QUESTION_PROMPT;
use model::generate::GenerateConfig;
use serde::{Deserialize, Serialize};

/// Prompts and answers. The defaults are those of LAVIS's evaluation of InstructBLIP on MSRVTT-QA.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AnswerConfig {
    /// Prompt that the language model reads after the video; `{}` is replaced by the question.
    pub prompt: String,
    /// Maximum tokens of a prompt; the end of a longer one is cut.
    pub max_prompt_tokens: usize,
    /// Maximum tokens of a training answer.
    pub max_answer_tokens: usize,
    /// Generation of answers. The end token is the tokenizer's.
    pub generate: GenerateConfig,
}

impl Default for AnswerConfig {
    fn default() -> Self {
        Self {
            prompt: QUESTION_PROMPT.to_owned(),
            max_prompt_tokens: 128,
            max_answer_tokens: 32,
            generate: GenerateConfig {
                num_beams: 5,
                max_new_tokens: 10,
                length_penalty: -1.0,
                ..GenerateConfig::default()
            },
        }
    }
}

impl AnswerConfig {
    /// Refuses a prompt without exactly one place for the question.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let places = self.prompt.matches("{}").count();
        ensure!(
            places == 1,
            "the prompt {:?} has {places} places for the question; put one {{}} into it",
            self.prompt
        );
        Ok(())
    }
}
