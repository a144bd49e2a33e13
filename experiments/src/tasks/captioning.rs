//! Captioning: a clip is described in a sentence.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use captioner::{Checkpoint, Context, GenerationConfig, HostTokens, TextConfig, Videos};
use data::datasets::synthetic::{World, WorldConfig, chance_levels};
use data::datasets::{Split, VideoSet};
use data::loader::draw_caption;
use data::text::{Tokenizer, clean_caption};
use metrics::best_constant_caption;
use train::dashboard::Metrics;
use train::{Batch, Examples, TrainError, Validation};

use super::caption_scorer::{CaptionScorer, chance_metrics};
use super::{Clips, Task, TextLengths};
use crate::config::{CaptionUse, EvaluateConfig, RunConfig};
use crate::records::{Baselines, TestClip};

/// The settings of captioning.
pub(super) struct Captioning {
    text: TextConfig,
    generate: GenerationConfig,
    captions: CaptionUse,
    evaluate: EvaluateConfig,
}

impl Captioning {
    pub(super) fn new(config: &RunConfig) -> Self {
        let (text, generate) = (config.text.clone(), config.generate.clone());
        Self { text, generate, captions: config.captions, evaluate: config.evaluate.clone() }
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
        (self.captions == CaptionUse::Every).then_some(world.captions)
    }

    fn text_lengths(&self) -> TextLengths {
        TextLengths::new(&self.text.prompt, self.generate.max_new_tokens)
    }

    fn context(&self, checkpoint: &Checkpoint) -> anyhow::Result<Context> {
        let generate = self.generate.with_end_tokens(checkpoint.end_tokens.clone());
        generate.validate()?;
        Ok(Context {
            config: checkpoint.config.clone(),
            tokenizer: checkpoint.tokenizer.clone(),
            prompt: checkpoint.prompt(&self.text.prompt)?,
            generate,
        })
    }

    fn training(
        &self,
        clips: &Clips,
        videos: Videos,
        context: &Context,
        seed: u64,
    ) -> anyhow::Result<Arc<dyn Examples>> {
        let captions = clips.split(Split::Train).into_iter().map(|clip| clip.captions.clone()).collect();
        let tokenizer = context.tokenizer.clone();
        let examples =
            Captioned::new(videos, captions, self.captions, tokenizer, self.text.max_tokens, seed)?;
        Ok(Arc::new(examples))
    }

    fn evaluation(
        &self,
        clips: &Clips,
        split: Split,
        videos: Videos,
        _context: &Context,
    ) -> anyhow::Result<Validation> {
        Ok(Validation {
            split,
            ids: videos.ids().to_vec(),
            scorer: Some(Arc::new(Self::scorer(clips, split)?)),
            batch_size: self.evaluate.batch_size,
            examples: Arc::new(Uncaptioned(videos)),
        })
    }

    fn baselines(&self, clips: &Clips) -> anyhow::Result<Baselines> {
        let training = clips.split(Split::Train);
        let references: Vec<&[String]> = training.iter().map(|clip| clip.captions.as_slice()).collect();
        let (caption, _) =
            best_constant_caption(&references).context("the training split has no captions")?;
        let count = clips.split(Split::Test).len();
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

/// Clips without captions, to be captioned.
struct Uncaptioned(Videos);

impl Examples for Uncaptioned {
    fn len(&self) -> usize {
        self.0.ids().len()
    }

    fn batch(&self, epoch: usize, items: &[usize]) -> Result<Batch, TrainError> {
        Ok(Batch::Caption {
            visual: self.0.visual(epoch, items)?,
            prompts: None,
            captions: None,
            texts: Vec::new(),
            clips: items.to_vec(),
            items: items.to_vec(),
        })
    }

    fn name(&self, item: usize) -> String {
        self.0.ids()[item].clone()
    }
}

/// Clips with captions to learn.
pub struct Captioned {
    videos: Videos,
    /// The published captions of each clip.
    captions: Vec<Vec<String>>,
    /// Clip and caption of each example, where an epoch has every caption; otherwise it draws one of each clip.
    every: Option<Vec<(usize, usize)>>,
    tokenizer: Arc<Tokenizer>,
    max_tokens: usize,
    seed: u64,
}

impl Captioned {
    /// Joins clips and their captions, which are tokenised with their batch.
    ///
    /// # Errors
    /// When a clip has no caption, or there are not as many lists of captions as clips.
    pub fn new(
        videos: Videos,
        captions: Vec<Vec<String>>,
        used: CaptionUse,
        tokenizer: Arc<Tokenizer>,
        max_tokens: usize,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let (clips, lists) = (videos.ids().len(), captions.len());
        ensure!(clips == lists, "{clips} clips have {lists} lists of captions");
        if let Some(clip) = captions.iter().position(Vec::is_empty) {
            anyhow::bail!("{} has no caption", videos.ids()[clip]);
        }
        let every = (used == CaptionUse::Every).then(|| {
            let of_clip = |(clip, all): (usize, &Vec<String>)| (0..all.len()).map(move |caption| (clip, caption));
            captions.iter().enumerate().flat_map(of_clip).collect()
        });
        Ok(Self { videos, captions, every, tokenizer, max_tokens, seed })
    }

    /// The clip of an example, and its caption in an epoch.
    fn place(&self, epoch: usize, item: usize) -> (usize, usize) {
        match &self.every {
            Some(places) => places[item],
            None => {
                let drawn = draw_caption(self.seed, epoch as u64, item, self.captions[item].len());
                (item, drawn.map_or(0, |(caption, _)| caption))
            }
        }
    }
}

impl Examples for Captioned {
    fn len(&self) -> usize {
        self.every.as_ref().map_or(self.captions.len(), Vec::len)
    }

    fn batch(&self, epoch: usize, items: &[usize]) -> Result<Batch, TrainError> {
        let places: Vec<(usize, usize)> = items.iter().map(|&item| self.place(epoch, item)).collect();
        let clips: Vec<usize> = places.iter().map(|(clip, _)| *clip).collect();
        let texts: Vec<String> =
            places.iter().map(|&(clip, caption)| self.captions[clip][caption].clone()).collect();
        let target = |text: &String| self.tokenizer.target(&clean_caption(text), self.max_tokens);
        let ids = texts.iter().map(target).collect::<data::Result<Vec<_>>>()?;
        Ok(Batch::Caption {
            visual: self.videos.visual(epoch, &clips)?,
            prompts: None,
            captions: Some(HostTokens::pad(&ids)),
            texts,
            clips,
            items: items.to_vec(),
        })
    }

    fn name(&self, item: usize) -> String {
        match &self.every {
            Some(places) => {
                let (clip, caption) = places[item];
                format!("{} with caption {}", self.videos.ids()[clip], caption + 1)
            }
            None => self.videos.ids()[item].clone(),
        }
    }

    /// Words, which are near enough to tokens for grouping captions by length and need no tokenizer.
    fn length(&self, epoch: usize, item: usize) -> usize {
        let (clip, caption) = self.place(epoch, item);
        self.captions[clip][caption].split_whitespace().count()
    }
}
