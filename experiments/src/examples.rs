//! Clips, images and sentences as the learner's examples: host arrays made of what lies in memory or on disk.

use std::sync::Arc;

use data::datasets::{Clip, Split};
use data::loader::{FrameStore, draw_caption};
use data::preprocess::Preprocess;
use data::text::{Tokenizer, clean_caption};
use train::{Batch, Examples, HostTokens, HostVisual, Scorer, TrainError, Validation};

use crate::config::CaptionUse;
use crate::frames::{FeatureStore, FrameSource};

/// What is seen of the clips, or images as clips of one frame, of a split.
#[derive(Clone)]
pub struct Videos {
    frames: Arc<FrameSource>,
    preprocess: Preprocess,
    /// Output of a frozen ViT, computed once.
    features: Option<Arc<FeatureStore>>,
}

impl Videos {
    /// The frames themselves.
    pub fn new(frames: Arc<FrameSource>, preprocess: Preprocess) -> Self {
        Self { frames, preprocess, features: None }
    }

    /// Images, or clips, that lie in memory.
    pub fn in_memory(frames: FrameStore) -> Self {
        let preprocess = Preprocess::new(frames.size() as u32);
        Self::new(Arc::new(FrameSource::Memory(frames)), preprocess)
    }

    /// What a frozen ViT made of the frames, in their place.
    #[must_use]
    pub fn with_features(self, features: Arc<FeatureStore>) -> Self {
        Self { features: Some(features), ..self }
    }

    /// Names of the clips.
    pub fn ids(&self) -> &[String] {
        self.frames.ids()
    }

    /// Where the frames come from.
    pub fn frames(&self) -> &FrameSource {
        &self.frames
    }

    /// The clips as a split that a model is measured on.
    pub fn validation(self, split: Split, judge: Arc<dyn Scorer>, batch_size: usize) -> Validation {
        Validation { split, ids: self.ids().to_vec(), examples: share(self), scorer: Some(judge), batch_size }
    }

    /// What is seen of some clips in an epoch.
    ///
    /// # Errors
    /// When a clip cannot be decoded, or has no features.
    pub fn visual(&self, epoch: usize, clips: &[usize]) -> Result<HostVisual, TrainError> {
        let mut values = Vec::new();
        if let Some(features) = &self.features {
            for &clip in clips {
                features.read(clip, &mut values)?;
            }
            let [f, p, d] = features.shape();
            return Ok(HostVisual::Features { values, shape: [clips.len(), f, p, d] });
        }
        for &clip in clips {
            values.extend(self.preprocess.normalize(&self.frames.pixels(epoch, clip)?));
        }
        let size = self.preprocess.size as usize;
        let f = values.len() / (clips.len().max(1) * 3 * size * size);
        Ok(HostVisual::Frames { values, shape: [clips.len(), f, 3, size, size] })
    }
}

impl Examples for Videos {
    fn len(&self) -> usize {
        self.ids().len()
    }

    fn batch(&self, epoch: usize, items: &[usize]) -> Result<Batch, TrainError> {
        let visual = self.visual(epoch, items)?;
        Ok(Batch::Caption {
            visual,
            prompts: None,
            captions: None,
            texts: Vec::new(),
            clips: items.to_vec(),
            items: items.to_vec(),
        })
    }

    fn name(&self, item: usize) -> String {
        self.ids()[item].clone()
    }
}

/// Clips with captions to learn.
pub struct Captioned {
    videos: Videos,
    /// As published, clip by clip.
    captions: Vec<Vec<String>>,
    /// Clip and caption of each example, where every caption is one; else each epoch draws one of every clip.
    every: Option<Vec<(usize, usize)>>,
    tokenizer: Arc<Tokenizer>,
    max_tokens: usize,
    seed: u64,
}

impl Captioned {
    /// Joins clips and their captions, which become tokens when their batch is made.
    ///
    /// # Errors
    /// When a clip has no caption, or there is another number of them than of clips.
    pub fn new<'a>(
        videos: Videos,
        captions: impl Iterator<Item = &'a [String]>,
        used: CaptionUse,
        tokenizer: Arc<Tokenizer>,
        max_tokens: usize,
        seed: u64,
    ) -> Result<Self, TrainError> {
        let captions: Vec<Vec<String>> = captions.map(<[String]>::to_vec).collect();
        let (clips, lists) = (videos.ids().len(), captions.len());
        if clips != lists {
            return Err(TrainError::Data(format!("{clips} clips have {lists} lists of captions")));
        }
        if let Some(place) = captions.iter().position(Vec::is_empty) {
            return Err(TrainError::Data(format!("{} has no caption", videos.ids()[place])));
        }
        let every = match used {
            CaptionUse::One => None,
            CaptionUse::Every => {
                let of_clip =
                    |(clip, all): (usize, &Vec<String>)| (0..all.len()).map(move |caption| (clip, caption));
                Some(captions.iter().enumerate().flat_map(of_clip).collect())
            }
        };
        Ok(Self { videos, captions, every, tokenizer, max_tokens, seed })
    }

    /// The clip of an example, and the caption that it has in an epoch.
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

    /// In words: near enough to tokens for putting captions of similar length together, and known without a tokenizer.
    fn length(&self, epoch: usize, item: usize) -> usize {
        let (clip, caption) = self.place(epoch, item);
        self.captions[clip][caption].split_whitespace().count()
    }
}

/// The captions of clips, in order.
pub fn captions<'a>(clips: &'a [&'a Clip]) -> impl Iterator<Item = &'a [String]> {
    clips.iter().map(|clip| clip.captions.as_slice())
}

/// Shares examples with a loader.
pub fn share<E: Examples + 'static>(examples: E) -> Arc<dyn Examples> {
    Arc::new(examples)
}
