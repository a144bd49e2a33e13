//! Sentences and image-text pairs as training examples.

use std::ops::Range;
use std::sync::Arc;

use captioner::{HostPrompts, HostTokens, Shown, Videos};
use data::random::RandomStream;
use data::text::{Family, QUESTION_PROMPT, Tokenizer, ask, clean_question};
use data::tiny_world::Exercise;
use train::{Batch, Examples, TrainError};

use crate::config::SentencesConfig;

/// The class token in a vocabulary of whole words. No text contains it, because brackets are separate tokens.
pub(super) const CLASS: &str = "[CLS]";

/// Training text of the language model, which prepares it to generate captions from the queries of the
/// Q-Former. The encoder reads some words, an end token and a prompt; the target is
///
/// - a sentence, from some of its words in random order;
/// - its second part, from such words and its first part;
/// - the answer to a question, from a sentence and the question in its prompt.
pub(super) struct Sentences {
    sentences: Vec<Vec<u32>>,
    /// Source and target of each exercise.
    exercises: Vec<(Vec<u32>, Vec<u32>)>,
    word_keep_probability: f64,
    prefix_probability: f64,
    seed: u64,
}

impl Sentences {
    /// Tokenises sentences and exercises.
    pub(super) fn new(
        sentences: &[String],
        exercises: &[Exercise],
        tokenizer: &Tokenizer,
        config: &SentencesConfig,
        seed: u64,
    ) -> data::Result<Self> {
        let SentencesConfig { max_tokens, word_keep_probability, prefix_probability, .. } = *config;
        let tokenized = sentences.iter().map(|sentence| tokenizer.encode(sentence, max_tokens));
        let exercise = |exercise: &Exercise| -> data::Result<(Vec<u32>, Vec<u32>)> {
            let mut source = tokenizer.encode(&exercise.sentence, max_tokens)?;
            let question = ask(QUESTION_PROMPT, &clean_question(&exercise.question));
            source.extend(tokenizer.encode_as_published(&question, max_tokens)?);
            Ok((source, tokenizer.encode(&exercise.answer, max_tokens)?))
        };
        Ok(Self {
            sentences: tokenized.collect::<data::Result<_>>()?,
            exercises: exercises.iter().map(exercise).collect::<data::Result<_>>()?,
            word_keep_probability,
            prefix_probability,
            seed,
        })
    }

    /// Source and target.
    fn example(&self, epoch: usize, item: usize) -> (Vec<u32>, Vec<u32>) {
        let Some(sentence) = self.sentences.get(item) else {
            return self.exercises[item - self.sentences.len()].clone();
        };
        let mut random = RandomStream::new(self.seed, &format!("words kept in epoch {epoch}"), item as u64);
        let (words, end) = sentence.split_at(sentence.len().saturating_sub(1));
        let mut source: Vec<u32> =
            words.iter().copied().filter(|_| random.chance(self.word_keep_probability)).collect();
        random.shuffle(&mut source);
        source.extend(end);
        let is_continued = random.chance(self.prefix_probability);
        match split_point(sentence, &mut random).filter(|_| is_continued) {
            None => (source, sentence.clone()),
            Some(place) => {
                source.extend(&sentence[..place]);
                (source, sentence[place..].to_vec())
            }
        }
    }
}

impl Examples for Sentences {
    fn len(&self) -> usize {
        self.sentences.len() + self.exercises.len()
    }

    fn batch(&self, epoch: usize, items: &[usize], own: Range<usize>) -> Result<Batch, TrainError> {
        let (sources, targets): (Vec<_>, Vec<_>) =
            items.iter().map(|&item| self.example(epoch, item)).unzip();
        let pad = |ids: &[Vec<u32>]| HostTokens::pad(ids).rows(&own);
        Ok(Batch::Text { source: pad(&sources), target: pad(&targets), items: items[own.clone()].to_vec() })
    }

    /// Length of the source. Exercises are read whole, so that they and sentences come in different batches.
    fn length(&self, _epoch: usize, item: usize) -> usize {
        match self.sentences.get(item) {
            Some(sentence) => (sentence.len() as f64 * self.word_keep_probability) as usize,
            None => self.exercises[item - self.sentences.len()].0.len(),
        }
    }
}

/// The length of a caption's first part: from one token to its half, the end token excluded; none where it
/// has fewer than two tokens.
fn split_point(caption: &[u32], random: &mut RandomStream) -> Option<usize> {
    let tokens = caption.len().saturating_sub(1);
    (tokens >= 2).then(|| 1 + random.below(tokens / 2))
}

/// Images and their texts for the first stage.
pub(super) struct PairTexts {
    images: Videos,
    captions: Vec<String>,
    tokenizer: Arc<Tokenizer>,
    class: u32,
    max_tokens: usize,
}

impl PairTexts {
    /// Joins images and captions, which the Q-Former's tokenizer reads.
    pub(super) fn new(
        images: Videos,
        captions: Vec<String>,
        tokenizer: Arc<Tokenizer>,
        max_tokens: usize,
    ) -> Result<Self, TrainError> {
        check_counts(&images, &captions)?;
        let no_class = || TrainError::Data(format!("the Q-Former's tokenizer has no {CLASS} token"));
        let class = tokenizer.id_of(CLASS).ok_or_else(no_class)?;
        Ok(Self { images, captions, tokenizer, class, max_tokens })
    }

    /// `[CLS] text [SEP]` of BERT's tokenizer, `[CLS] text </s>` of one of whole words.
    fn text(&self, item: usize) -> data::Result<Vec<u32>> {
        let caption = &self.captions[item];
        match self.tokenizer.family() {
            Family::Bert => self.tokenizer.encode_as_published(caption, self.max_tokens),
            _ => {
                let text = self.tokenizer.encode(caption, self.max_tokens.saturating_sub(1))?;
                Ok(std::iter::once(self.class).chain(text).collect())
            }
        }
    }
}

impl Examples for PairTexts {
    fn len(&self) -> usize {
        self.captions.len()
    }

    fn batch(&self, epoch: usize, items: &[usize], own: Range<usize>) -> Result<Batch, TrainError> {
        let texts = items.iter().map(|&item| self.text(item)).collect::<data::Result<Vec<_>>>();
        Ok(Batch::Pairs {
            visual: self.images.visual(epoch, &Shown::once(&items[own.clone()]))?,
            texts: HostTokens::pad(&texts?).rows(&own),
            items: items[own].to_vec(),
        })
    }

    fn name(&self, item: usize) -> String {
        self.images.ids()[item].clone()
    }

    fn length(&self, _epoch: usize, item: usize) -> usize {
        self.captions[item].split_whitespace().count()
    }
}

/// Images and their captions for the second stage.
pub(super) struct PairCaptions {
    images: Videos,
    captions: Vec<String>,
    tokenizer: Arc<Tokenizer>,
    max_tokens: usize,
    /// Probability that a caption is split; 0 in validation.
    split: f64,
    seed: u64,
}

impl PairCaptions {
    /// Joins images and captions. With probability `split` the encoder of the language model reads the first
    /// part of a caption after the queries, and the rest is the target.
    pub(super) fn new(
        images: Videos,
        captions: Vec<String>,
        tokenizer: Arc<Tokenizer>,
        max_tokens: usize,
        split: f64,
        seed: u64,
    ) -> Result<Self, TrainError> {
        check_counts(&images, &captions)?;
        Ok(Self { images, captions, tokenizer, max_tokens, split, seed })
    }

    /// Source and target.
    fn parts(&self, epoch: usize, item: usize) -> data::Result<(Vec<u32>, Vec<u32>)> {
        let mut caption = self.tokenizer.target(&self.captions[item], self.max_tokens)?;
        let mut random = RandomStream::new(self.seed, &format!("prefix in epoch {epoch}"), item as u64);
        let is_split = random.chance(self.split);
        Ok(match split_point(&caption, &mut random).filter(|_| is_split) {
            None => (Vec::new(), caption),
            Some(place) => {
                let rest = caption.split_off(place);
                (caption, rest)
            }
        })
    }
}

impl Examples for PairCaptions {
    fn len(&self) -> usize {
        self.captions.len()
    }

    fn batch(&self, epoch: usize, items: &[usize], own: Range<usize>) -> Result<Batch, TrainError> {
        let parts = items.iter().map(|&item| self.parts(epoch, item)).collect::<data::Result<Vec<_>>>();
        let (prefixes, rests): (Vec<_>, Vec<_>) = parts?.into_iter().unzip();
        let reads = prefixes.iter().any(|prefix| !prefix.is_empty());
        let pad = |ids: &[Vec<u32>]| HostTokens::pad(ids).rows(&own);
        Ok(Batch::Caption {
            visual: self.images.visual(epoch, &Shown::once(&items[own.clone()]))?,
            prompts: reads.then(|| HostPrompts { text: Some(pad(&prefixes)), instruction: None }),
            captions: Some(pad(&rests)),
            texts: Vec::new(),
            clips: Vec::new(),
            items: items[own.clone()].to_vec(),
        })
    }

    fn name(&self, item: usize) -> String {
        self.images.ids()[item].clone()
    }

    fn length(&self, _epoch: usize, item: usize) -> usize {
        self.captions[item].split_whitespace().count()
    }
}

fn check_counts(images: &Videos, captions: &[String]) -> Result<(), TrainError> {
    let (images, captions) = (images.ids().len(), captions.len());
    match images == captions {
        true => Ok(()),
        false => Err(TrainError::Data(format!("{images} images have {captions} captions"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use data::datasets::pairs::load_table;
    use data::frames::FrameStore;
    use data::preprocess::Resizing;

    /// `[CLS]` is 9, `a` 3 and so on.
    fn tokenizer() -> Arc<Tokenizer> {
        Arc::new(Tokenizer::word_level(&["a", "b", "c", "d", "e", "f", CLASS].map(str::to_owned)).unwrap())
    }

    fn images(count: usize) -> Videos {
        let folder = tempfile::tempdir().unwrap();
        let pixel = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x09\x09\x09\x00\x00\x00\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00\x3b";
        let mut table = String::new();
        for i in 0..count {
            std::fs::write(folder.path().join(format!("{i}.gif")), pixel).unwrap();
            table.push_str(&format!("{{\"image\": \"{i}.gif\", \"caption\": \"a\"}}\n"));
        }
        let path = folder.path().join("pairs.jsonl");
        std::fs::write(&path, table).unwrap();
        let pairs = load_table(&path, folder.path()).unwrap();
        Videos::in_memory(FrameStore::of_pairs(&pairs, 4, Resizing::default(), None, &|_| {}).unwrap())
    }

    fn ids(tokens: &HostTokens) -> Vec<Vec<i64>> {
        let targets = tokens.clone().upload(&Device::flex());
        let [b, t] = targets.ids.dims();
        let (ids, mask) = (targets.ids.into_data(), targets.mask.into_data());
        let (ids, mask): (Vec<i64>, Vec<f32>) = (ids.iter().collect(), mask.iter().collect());
        (0..b)
            .map(|row| (0..t).filter(|at| mask[row * t + at] > 0.0).map(|at| ids[row * t + at]).collect())
            .collect()
    }

    #[test]
    fn the_class_token_comes_first_the_end_last_and_padding_does_not_count() {
        let captions = ["a b c", "d", "a b c d e f"].map(str::to_owned).to_vec();
        let texts = PairTexts::new(images(3), captions, tokenizer(), 5).unwrap();
        let Batch::Pairs { texts, items, .. } = texts.batch(1, &[1, 0, 2], 0..3).unwrap() else {
            panic!("pairs")
        };
        assert_eq!(ids(&texts), [vec![9, 6, 1], vec![9, 3, 4, 5, 1], vec![9, 3, 4, 5, 1]]);
        assert_eq!(items, [1, 0, 2]);
        assert!(PairTexts::new(images(2), vec!["a".into()], tokenizer(), 5).is_err(), "a caption is missing");
        let plain = Arc::new(Tokenizer::word_level(&["a".to_owned()]).unwrap());
        let error = PairTexts::new(images(1), vec!["a".into()], plain, 5).err().unwrap().to_string();
        assert!(error.contains("[CLS]"), "{error}");
    }

    fn captions(split: f64, seed: u64) -> PairCaptions {
        let captions = ["a b c d e f a", "a b", "c"].map(str::to_owned).to_vec();
        PairCaptions::new(images(3), captions, tokenizer(), 20, split, seed).unwrap()
    }

    #[test]
    fn a_caption_is_split_between_its_first_token_and_its_midpoint_and_nothing_is_lost() {
        let examples = captions(1.0, 3);
        let mut seen = std::collections::BTreeSet::new();
        for epoch in 0..60 {
            let (prefix, rest) = examples.parts(epoch, 0).unwrap();
            assert_eq!([prefix.clone(), rest].concat(), [3, 4, 5, 6, 7, 8, 3, 1]);
            seen.insert(prefix.len());
            assert_eq!(examples.parts(epoch, 1).unwrap(), (vec![3], vec![4, 1]));
            assert_eq!(examples.parts(epoch, 2).unwrap(), (vec![], vec![5, 1]), "one word cannot be split");
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [1, 2, 3], "of seven tokens");
    }

    #[test]
    fn splits_follow_from_seed_epoch_and_item_alone() {
        let all = |examples: &PairCaptions, epoch| examples.parts(epoch, 0).unwrap();
        let (one, same) = (captions(0.5, 3), captions(0.5, 3));
        assert!((0..40).all(|epoch| all(&one, epoch) == all(&same, epoch)));
        assert!((0..40).any(|epoch| all(&one, epoch) != all(&one, epoch + 1)));
        assert!((0..40).any(|epoch| all(&one, epoch) != all(&captions(0.5, 4), epoch)));
        let whole = (0..400).filter(|&epoch| all(&one, epoch).0.is_empty()).count();
        assert!((150..250).contains(&whole), "half of them stay whole: {whole}");
    }

    #[test]
    fn a_batch_reads_prefixes_and_writes_the_rest() {
        let Batch::Caption { prompts, captions: rests, .. } =
            captions(1.0, 3).batch(2, &[1, 2], 0..2).unwrap()
        else {
            panic!("captions")
        };
        assert_eq!(ids(&prompts.unwrap().text.unwrap()), [vec![3], vec![]]);
        assert_eq!(ids(&rests.unwrap()), [vec![4, 1], vec![5, 1]]);
        let Batch::Caption { prompts, .. } = captions(0.0, 3).batch(2, &[0, 1, 2], 0..3).unwrap() else {
            panic!("captions")
        };
        assert!(prompts.is_none(), "whole captions need none");
    }

    #[test]
    fn sentences_are_shuffled_continued_and_asked_about() {
        let exercise = Exercise { sentence: "a b".into(), question: "c".into(), answer: "d".into() };
        let sentences = vec!["a b c d e f".to_owned()];
        let read = |(word_keep_probability, prefix_probability)| {
            let config = SentencesConfig {
                count: 1,
                questions: 1,
                max_tokens: 20,
                word_keep_probability,
                prefix_probability,
            };
            Sentences::new(&sentences, std::slice::from_ref(&exercise), &tokenizer(), &config, 1).unwrap()
        };
        let all = read((1.0, 0.0));
        assert_eq!(all.len(), 2);
        let (mut source, target) = all.example(1, 0);
        assert_eq!((source.pop(), target), (Some(1), vec![3, 4, 5, 6, 7, 8, 1]));
        assert_ne!(source, [3, 4, 5, 6, 7, 8], "in another order");
        source.sort_unstable();
        assert_eq!(source, [3, 4, 5, 6, 7, 8]);
        let (source, answer) = all.example(1, 1);
        assert!(source.starts_with(&[3, 4, 1]) && source.contains(&5) && answer == [6, 1], "{source:?}");
        let (source, rest) = read((0.0, 1.0)).example(1, 0);
        assert_eq!(source[0], 1, "nothing is known");
        assert_eq!([&source[1..], &rest[..]].concat(), [3, 4, 5, 6, 7, 8, 1]);
    }
}
