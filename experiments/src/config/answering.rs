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
    /// Prompts of training: each example draws one in each epoch, for language model and Q-Former, as in
    /// LAVIS's instruction tuning. Validation and test use `prompt`; without any, so does training.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<String>,
    /// Instruction that an InstructBLIP's Q-Former reads, with `{}` for the question; by default the prompt,
    /// as in LAVIS. An empty one is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
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
            templates: Vec::new(),
            instruction: None,
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
    /// Refuses a prompt or template without exactly one place for the question, and an instruction with
    /// several.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let places = |text: &str| text.matches("{}").count();
        let templates = self.templates.iter().map(|template| ("template", template));
        for (kind, prompt) in std::iter::once(("prompt", &self.prompt)).chain(templates) {
            let count = places(prompt);
            ensure!(
                count == 1,
                "the {kind} {prompt:?} has {count} places for the question; put one {{}} into it"
            );
        }
        if let Some(instruction) = &self.instruction {
            let count = places(instruction);
            ensure!(
                count <= 1,
                "the instruction {instruction:?} has {count} places for the question, expected one {{}} at most"
            );
        }
        Ok(())
    }
}
