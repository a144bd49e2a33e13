//! Clips, images and sentences as the learner's examples: host arrays made from what lies in memory.

use std::sync::Arc;

use anyhow::Context;
use data::datasets::Clip;
use data::loader::FrameStore;
use data::preprocess::Preprocess;
use data::random::Draws;
use data::text::{Tokenizer, clean_caption};
use train::{Batch, Captioner, Examples, HostTokens, HostVisual, TrainError};

/// Videos, or images as videos of one frame, with their captions.
pub struct Videos {
    frames: FrameStore,
    preprocess: Preprocess,
    /// Token ids of every caption of every video; none for evaluation.
    captions: Option<Vec<Vec<Vec<u32>>>>,
    /// Output of a frozen ViT, computed once.
    features: Option<Features>,
    seed: u64,
}

struct Features {
    values: Vec<f32>,
    /// `[f, p, d]`
    shape: [usize; 3],
}

impl Videos {
    /// Videos to be captioned.
    pub fn new(frames: FrameStore) -> Self {
        let preprocess = Preprocess::new(frames.size() as u32);
        Self { frames, preprocess, captions: None, features: None, seed: 0 }
    }

    /// Videos to learn from: each epoch draws one caption of each video.
    ///
    /// # Errors
    /// When the tokenizer fails on a caption.
    pub fn with_captions<'a>(
        mut self,
        captions: impl Iterator<Item = &'a [String]>,
        tokenizer: &Tokenizer,
        most_tokens: usize,
        seed: u64,
    ) -> data::Result<Self> {
        let encode = |caption: &String| tokenizer.encode(&clean_caption(caption), most_tokens);
        let encoded = captions.map(|captions| captions.iter().map(encode).collect::<data::Result<_>>());
        self.captions = Some(encoded.collect::<data::Result<_>>()?);
        self.seed = seed;
        Ok(self)
    }

    /// Runs a frozen ViT over every frame, once.
    ///
    /// # Errors
    /// When the device fails.
    pub fn with_features(mut self, captioner: &Captioner, batch_size: usize) -> anyhow::Result<Self> {
        let mut values = Vec::new();
        let mut each = [0; 3];
        let items: Vec<usize> = (0..self.frames.len()).collect();
        for items in items.chunks(batch_size.max(1)) {
            let (frames, shape) = self.frames(items);
            let (features, [_, f, p, d]) = captioner
                .features(frames, shape)
                .map_err(|error| anyhow::anyhow!("{error:?}"))
                .context("cannot compute the frozen ViT's features")?;
            values.extend(features);
            each = [f, p, d];
        }
        self.features = Some(Features { values, shape: each });
        Ok(self)
    }

    /// Names of the videos.
    pub fn ids(&self) -> &[String] {
        self.frames.ids()
    }

    fn frames(&self, items: &[usize]) -> (Vec<f32>, [usize; 5]) {
        let (f, size) = (self.frames.frames(), self.frames.size());
        let values =
            items.iter().flat_map(|&item| self.preprocess.normalize(self.frames.clip(item))).collect();
        (values, [items.len(), f, 3, size, size])
    }

    /// What is seen of some videos.
    pub fn visual(&self, items: &[usize]) -> HostVisual {
        match &self.features {
            None => {
                let (values, shape) = self.frames(items);
                HostVisual::Frames { values, shape }
            }
            Some(features) => {
                let [f, p, d] = features.shape;
                let each = f * p * d;
                let rows = items.iter().flat_map(|item| &features.values[item * each..(item + 1) * each]);
                HostVisual::Features { values: rows.copied().collect(), shape: [items.len(), f, p, d] }
            }
        }
    }
}

impl Examples for Videos {
    fn len(&self) -> usize {
        self.frames.len()
    }

    fn batch(&self, epoch: usize, items: &[usize]) -> Result<Batch, TrainError> {
        let captions = match &self.captions {
            None => None,
            Some(all) => {
                let mut drawn = Vec::with_capacity(items.len());
                for &item in items {
                    let mut draws = Draws::new(self.seed, &format!("caption in epoch {epoch}"), item as u64);
                    let id = &self.frames.ids()[item];
                    let caption = draws.pick(&all[item]);
                    drawn.push(
                        caption.ok_or_else(|| TrainError::Data(format!("{id} has no caption")))?.clone(),
                    );
                }
                Some(HostTokens::pad(&drawn))
            }
        };
        Ok(Batch::Caption { visual: self.visual(items), captions, items: items.to_vec() })
    }
}

/// Sentences for a language model to restore: the encoder reads some of a sentence's words in any order, the decoder
/// writes the sentence. So a frozen language model later turns what the queries say into a caption.
pub struct Sentences {
    tokenized: Vec<Vec<u32>>,
    /// Probability that a word is kept in the encoder's input.
    keep: f64,
    seed: u64,
}

impl Sentences {
    /// Tokenises sentences.
    ///
    /// # Errors
    /// When the tokenizer fails on a sentence.
    pub fn new(
        sentences: &[String],
        tokenizer: &Tokenizer,
        most_tokens: usize,
        keep: f64,
        seed: u64,
    ) -> data::Result<Self> {
        let tokenized = sentences.iter().map(|sentence| tokenizer.encode(sentence, most_tokens));
        Ok(Self { tokenized: tokenized.collect::<data::Result<_>>()?, keep, seed })
    }
}

impl Examples for Sentences {
    fn len(&self) -> usize {
        self.tokenized.len()
    }

    fn batch(&self, epoch: usize, items: &[usize]) -> Result<Batch, TrainError> {
        let (mut sources, mut targets) = (Vec::new(), Vec::new());
        for &item in items {
            let target = &self.tokenized[item];
            let mut draws = Draws::new(self.seed, &format!("words kept in epoch {epoch}"), item as u64);
            let (words, end) = target.split_at(target.len().saturating_sub(1));
            let mut source: Vec<u32> = words.iter().copied().filter(|_| draws.chance(self.keep)).collect();
            draws.shuffle(&mut source);
            source.extend(end);
            sources.push(source);
            targets.push(target.clone());
        }
        let (source, target) = (HostTokens::pad(&sources), HostTokens::pad(&targets));
        Ok(Batch::Text { source, target, items: items.to_vec() })
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
