//! The list of videos to score: one hypothesis and its references each, in a fixed order.
//!
//! The order matters twice: the tokeniser sees the captions as one text, so the context of a caption is the next
//! one, and floating-point means are taken in this order.

use std::collections::HashSet;

use crate::Error;

/// One video: what was said about it by a system, and by people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Video {
    /// The data set's name for the video.
    pub id: String,
    /// The one caption to be scored. May be empty: it then scores 0.
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
/// BLEU, ROUGE-L, CIDEr and METEOR are defined on this form. It comes from [`crate::tokenize_all`], or from a caller
/// who did the tokenisation elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokenized {
    corpus: Corpus,
}

impl Tokenized {
    /// Takes captions that are tokenised already, as they are.
    pub fn assume_tokenized(corpus: Corpus) -> Self {
        Self { corpus }
    }

    /// The videos in their order, captions tokenised.
    pub fn videos(&self) -> &[Video] {
        self.corpus.videos()
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
    fn refuses_what_has_no_score() {
        assert!(matches!(Corpus::new(vec![]), Err(Error::EmptyCorpus)));
        let twice = Corpus::new(vec![video("v1", &["a"]), video("v1", &["b"])]);
        assert!(matches!(twice, Err(Error::DuplicateVideo { id }) if id == "v1"));
        let none = Corpus::new(vec![video("v1", &["a"]), video("v2", &[])]);
        assert!(matches!(none, Err(Error::NoReferences { id }) if id == "v2"));
    }
}
