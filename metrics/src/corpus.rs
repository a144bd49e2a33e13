//! The videos to score, each with one hypothesis and its references, in a fixed order.
//!
//! The order matters: the tokeniser reads the captions as one text, so a caption's context includes the next
//! caption, and floating-point means depend on the order.

use std::collections::{BTreeMap, HashSet};

use crate::{Error, ptb};

/// One video with the caption of a system and those of annotators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Video {
    /// The data set's name for the video.
    pub id: String,
    /// The caption to score. If empty, it scores 0.
    pub hypothesis: String,
    /// The captions it is scored against, at least one.
    pub references: Vec<String>,
}

/// Videos with distinct ids, each with at least one reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corpus {
    videos: Vec<Video>,
}

impl Corpus {
    /// Checks the videos and keeps their order.
    ///
    /// # Errors
    /// [`Error::EmptyCorpus`], [`Error::DuplicateVideo`], [`Error::NoReferences`].
    pub fn new(videos: Vec<Video>) -> Result<Self, Error> {
        if videos.is_empty() {
            return Err(Error::EmptyCorpus);
        }
        let mut seen = HashSet::with_capacity(videos.len());
        for video in &videos {
            if !seen.insert(video.id.as_str()) {
                return Err(Error::DuplicateVideo { id: video.id.clone() });
            }
            if video.references.is_empty() {
                return Err(Error::NoReferences { id: video.id.clone() });
            }
        }
        Ok(Self { videos })
    }

    /// The videos in their order.
    pub fn videos(&self) -> &[Video] {
        &self.videos
    }

    /// How many videos there are, at least one.
    #[allow(clippy::len_without_is_empty)] // a corpus is never empty
    pub fn len(&self) -> usize {
        self.videos.len()
    }
}

/// A corpus whose captions are tokenised: lower-case words separated by single spaces, punctuation dropped.
///
/// BLEU, ROUGE-L, CIDEr and METEOR are defined on this form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokenized {
    corpus: Corpus,
    deleted: BTreeMap<char, usize>,
}

impl Tokenized {
    /// Tokenises as coco-caption does: all hypotheses in one run, all references in another, each in order.
    ///
    /// # Errors
    /// [`Error::LineEnd`], naming the video and the caption.
    pub fn of(corpus: &Corpus) -> Result<Self, Error> {
        for video in corpus.videos() {
            let captions = std::iter::once(&video.hypothesis).chain(&video.references);
            for (place, caption) in captions.enumerate() {
                if let Some(character) = ptb::line_end(caption) {
                    let which = if place == 0 { "the hypothesis" } else { &format!("reference {place}") };
                    let place = format!("{which} of video {:?}", video.id);
                    return Err(Error::LineEnd { place, character });
                }
            }
        }
        let hypotheses: Vec<&str> = corpus.videos().iter().map(|video| video.hypothesis.as_str()).collect();
        let references: Vec<&str> =
            corpus.videos().iter().flat_map(|video| &video.references).map(String::as_str).collect();
        let (hypotheses, references) =
            rayon::join(|| ptb::tokenize_all(&hypotheses), || ptb::tokenize_all(&references));
        let (hypotheses, references) = (hypotheses?, references?);

        let mut deleted = hypotheses.deleted;
        for (character, count) in references.deleted {
            *deleted.entry(character).or_insert(0) += count;
        }
        let mut rest = references.captions.into_iter();
        let videos = corpus.videos().iter().zip(hypotheses.captions).map(|(video, hypothesis)| Video {
            id: video.id.clone(),
            hypothesis,
            references: rest.by_ref().take(video.references.len()).collect(),
        });
        Ok(Self { corpus: Corpus { videos: videos.collect() }, deleted })
    }

    /// Takes tokenised captions.
    pub fn assume_tokenized(corpus: Corpus) -> Self {
        Self { corpus, deleted: BTreeMap::new() }
    }

    /// The videos in their order, captions tokenised.
    pub fn videos(&self) -> &[Video] {
        self.corpus.videos()
    }

    /// Characters that the reference deletes, such as emoji, with their counts.
    pub fn deleted(&self) -> &BTreeMap<char, usize> {
        &self.deleted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn video(id: &str, references: &[&str]) -> Video {
        Video {
            id: id.into(),
            hypothesis: "a dog".into(),
            references: references.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_corpus_without_a_score_is_an_error() {
        assert!(matches!(Corpus::new(vec![]), Err(Error::EmptyCorpus)));
        let twice = Corpus::new(vec![video("v1", &["a"]), video("v1", &["b"])]);
        assert!(matches!(twice, Err(Error::DuplicateVideo { id }) if id == "v1"));
        let none = Corpus::new(vec![video("v1", &["a"]), video("v2", &[])]);
        assert!(matches!(none, Err(Error::NoReferences { id }) if id == "v2"));
    }
}
