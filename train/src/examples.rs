//! Videos as examples: with captions for training, without for evaluation.

use std::ops::Range;
use std::sync::Arc;

use captioner::{Context, HostTokens, Shown, Videos};
use data::loader::draw_caption;
use data::text::{Tokenizer, clean_caption};
use serde::{Deserialize, Serialize};

use crate::loader::Examples;
use crate::{Batch, TrainError};

/// Which captions of the training clips an epoch visits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptionUse {
    /// One caption per clip, drawn again each epoch.
    #[default]
    One,
    /// All captions, as in LAVIS.
    Every,
}

impl Examples for Videos {
    fn len(&self) -> usize {
        self.ids().len()
    }

    fn batch(&self, epoch: usize, items: &[usize], own: Range<usize>) -> Result<Batch, TrainError> {
        let items = &items[own];
        let visual = self.visual(epoch, &Shown::once(items))?;
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

/// Clips with target captions.
pub struct Captioned {
    videos: Videos,
    /// As published, clip by clip.
    captions: Vec<Vec<String>>,
    /// Clip and caption of each example with [`CaptionUse::Every`].
    every: Option<Vec<(usize, usize)>>,
    tokenizer: Arc<Tokenizer>,
    /// Whether the language model reads a prompt before the captions.
    has_prompt: bool,
    max_tokens: usize,
    seed: u64,
}

impl Captioned {
    /// Clips and their captions, which are tokenized batch by batch.
    ///
    /// # Errors
    /// When a clip has no caption, or the numbers of clips and lists of captions differ.
    pub fn new<'a>(
        videos: Videos,
        captions: impl Iterator<Item = &'a [String]>,
        used: CaptionUse,
        context: &Context,
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
        let (tokenizer, has_prompt) = (context.tokenizer.clone(), !context.prompt.text.is_empty());
        Ok(Self { videos, captions, every, tokenizer, has_prompt, max_tokens, seed })
    }

    /// Clip and caption of an example in an epoch.
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

    fn batch(&self, epoch: usize, items: &[usize], own: Range<usize>) -> Result<Batch, TrainError> {
        let places: Vec<(usize, usize)> = items.iter().map(|&item| self.place(epoch, item)).collect();
        let clips: Vec<usize> = places[own.clone()].iter().map(|(clip, _)| *clip).collect();
        // every caption draws its own view, as in LAVIS
        let shown = |&(clip, caption): &(usize, usize)| Shown {
            clip,
            example: if self.every.is_some() { caption } else { 0 },
        };
        let shown: Vec<Shown> = places[own.clone()].iter().map(shown).collect();
        let texts: Vec<String> =
            places.iter().map(|&(clip, caption)| self.captions[clip][caption].clone()).collect();
        let target = |text: &String| {
            let caption = clean_caption(text);
            if self.has_prompt {
                self.tokenizer.continuation(&caption, self.max_tokens)
            } else {
                self.tokenizer.target(&caption, self.max_tokens)
            }
        };
        let ids = texts.iter().map(target).collect::<data::Result<Vec<_>>>()?;
        Ok(Batch::Caption {
            visual: self.videos.visual(epoch, &shown)?,
            prompts: None,
            captions: Some(HostTokens::pad(&ids).rows(&own)),
            texts: texts[own.clone()].to_vec(),
            clips,
            items: items[own].to_vec(),
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

    /// In words: a good estimate of the number of tokens, and known without a tokenizer.
    fn length(&self, epoch: usize, item: usize) -> usize {
        let (clip, caption) = self.place(epoch, item);
        self.captions[clip][caption].split_whitespace().count()
    }
}
