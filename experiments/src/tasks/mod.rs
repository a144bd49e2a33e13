//! The tasks that a model can be trained for: captioning, and answering questions about videos. A [`Task`] is
//! built once from the configuration and supplies everything that depends on it: data, prompts, training
//! examples, scorers, baselines and the clips of the report. A further task is a further file here and a line
//! in [`of`].

mod answer_scorer;
mod caption_scorer;
mod captioning;
mod clips;
mod question_answering;

use std::sync::Arc;

use captioner::{Checkpoint, Context, Videos};
use data::datasets::{Split, VideoSet};
use data::tiny_world::{World, WorldConfig};
use train::{Examples, Validation};

use crate::config::RunConfig;
use crate::records::{Baselines, TestClip};

pub(crate) use caption_scorer::PictureScorer;
pub(crate) use clips::Clips;

use captioning::Captioning;
use question_answering::QuestionAnswering;

/// What a model is trained for.
pub(crate) trait Task: Send + Sync {
    /// The name, as caches and messages have it.
    fn name(&self) -> &'static str;

    /// The clips of the tiny world, annotated for this task.
    fn videos(&self, world: &World) -> data::Result<VideoSet>;

    /// Training examples of each clip of the tiny world in an epoch; none for one example of each clip.
    fn examples_per_clip(&self, world: &WorldConfig) -> Option<usize>;

    /// Lengths of prompt and target, for estimates.
    fn text_lengths(&self) -> TextLengths;

    /// Prompt and generation settings for a checkpoint.
    fn context(&self, checkpoint: &Checkpoint) -> anyhow::Result<Context>;

    /// Training examples; `seed` draws among the captions of a clip.
    fn training(&self, inputs: Inputs<'_>, seed: u64) -> anyhow::Result<Arc<dyn Examples>>;

    /// A split with its scorer.
    fn evaluation(&self, inputs: Inputs<'_>) -> anyhow::Result<Validation>;

    /// Scores on the test split that need no model.
    fn baselines(&self, clips: &Clips) -> anyhow::Result<Baselines>;

    /// The test clips as the report shows them.
    fn test_clips(&self, clips: &Clips) -> Vec<TestClip>;
}

/// A split as a model reads it.
pub(crate) struct Inputs<'a> {
    pub clips: &'a Clips,
    pub split: Split,
    pub videos: Videos,
    pub context: &'a Context,
}

/// Estimated lengths of the texts of an example, tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TextLengths {
    pub prompt: usize,
    /// The generated text, at most.
    pub target: usize,
}

impl TextLengths {
    /// Estimates a prompt by its words, because its tokenizer may not be installed yet.
    fn new(prompt: &str, target: usize) -> Self {
        Self { prompt: prompt.split_whitespace().count(), target }
    }
}

/// The task of a configuration.
pub(crate) fn of(config: &RunConfig) -> Arc<dyn Task> {
    match &config.answering {
        None => Arc::new(Captioning::new(config)),
        Some(answering) => Arc::new(QuestionAnswering::new(answering, config)),
    }
}
