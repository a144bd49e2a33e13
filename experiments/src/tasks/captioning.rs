//! Captioning: a clip is described in a sentence.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use captioner::{Checkpoint, Context};
use data::datasets::{Split, VideoSet};
use data::tiny_world::{World, WorldConfig, chance_levels};
use metrics::best_constant_caption;
use train::{CaptionUse, Captioned, Examples, Metrics, Validation};

use super::caption_scorer::{CaptionScorer, chance_metrics};
use super::{Clips, Inputs, Task, TextLengths};
use crate::config::RunConfig;
use crate::records::{Baselines, TestClip};
use crate::runtime::note;

/// The configuration of a run that captions.
pub(super) struct Captioning {
    config: RunConfig,
}

impl Captioning {
    pub(super) fn new(config: &RunConfig) -> Self {
        Self { config: config.clone() }
    }

    /// Scores captions of a split; of the test split by every metric.
    fn scorer(clips: &Clips, split: Split) -> anyhow::Result<CaptionScorer> {
        let meteor = if split == Split::Test { clips.meteor_tables()? } else { None };
        Ok(CaptionScorer::new(clips.world(), &clips.split(split), split == Split::Test, meteor))
    }
}

impl Task for Captioning {
    fn name(&self) -> &'static str {
        "captioning"
    }

    fn videos(&self, world: &World) -> data::Result<VideoSet> {
        world.videos()
    }

    fn examples_per_clip(&self, world: &WorldConfig) -> Option<usize> {
        (self.config.captions == CaptionUse::Every).then_some(world.captions)
    }

    fn text_lengths(&self) -> TextLengths {
        TextLengths::new(&self.config.text.prompt, self.config.generate.max_new_tokens)
    }

    fn context(&self, checkpoint: &Checkpoint) -> anyhow::Result<Context> {
        let generate = self.config.generate.for_model(checkpoint.end_tokens.clone(), &checkpoint.constraints);
        if generate.encoder_no_repeat_ngram_size > 0 {
            note(&format!("note: {}", model::generate::NO_ENCODER_IDS));
        }
        let context = checkpoint.context(&self.config.text.prompt, generate)?;
        context.check_length(self.config.frames.count)?;
        Ok(context)
    }

    fn training(&self, inputs: Inputs<'_>, seed: u64) -> anyhow::Result<Arc<dyn Examples>> {
        let Inputs { clips, split, videos, context } = inputs;
        let training = clips.split(split);
        let captions = training.iter().map(|clip| clip.captions.as_slice());
        let (used, max_tokens) = (self.config.captions, self.config.text.max_tokens);
        Ok(Arc::new(Captioned::new(videos, captions, used, context, max_tokens, seed)?))
    }

    fn evaluation(&self, inputs: Inputs<'_>) -> anyhow::Result<Validation> {
        let Inputs { clips, split, videos, .. } = inputs;
        let scorer = Arc::new(Self::scorer(clips, split)?);
        Ok(Validation::of_videos(videos, split, scorer, self.config.evaluate.batch_size))
    }

    fn baselines(&self, clips: &Clips) -> anyhow::Result<Baselines> {
        let training = clips.split(Split::Train);
        let references: Vec<&[String]> = training.iter().map(|clip| clip.captions.as_slice()).collect();
        let (caption, _) =
            best_constant_caption(&references).context("the training split has no captions")?;
        let test = clips.split(Split::Test);
        ensure!(
            test.iter().any(|clip| !clip.captions.is_empty()),
            "the {} test clips of {} have no captions to score against; give a test split with captions \
             (`experiments evaluate --predictions FILE` captions such clips)",
            test.len(),
            clips.name()
        );
        let count = test.len();
        let constant = Self::scorer(clips, Split::Test)?.score(&vec![caption.clone(); count])?;
        let chance = clips
            .world()
            .map_or_else(Metrics::default, |world| chance_metrics(&chance_levels(world, Split::Test)));
        Ok(Baselines { constant_caption: caption, constant, chance })
    }

    fn test_clips(&self, clips: &Clips) -> Vec<TestClip> {
        let test = clips.split(Split::Test);
        test.into_iter().map(|clip| TestClip::captioned(clip, clips.scene(&clip.id))).collect()
    }
}
