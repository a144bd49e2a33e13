//! Document frequencies of n-grams, counted or read from a file.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use crate::Error;
use crate::ngram::{FastMap, Gram, MAX_N, Vocabulary, gram, python_split};

/// The number of documents (videos) with each n-gram, counted once and read by every score.
///
/// Reading never adds an n-gram, unlike a Python `defaultdict`.
#[derive(Debug, Clone, Default)]
pub struct DocumentFrequencies {
    pub(crate) vocabulary: Vocabulary,
    pub(crate) numbers: FastMap<Gram, u32>,
    /// By the n-gram's number.
    pub(crate) counts: Vec<f64>,
    pub(crate) documents: f64,
    /// A word that every caption has at its end, in counting and in scoring.
    pub(crate) ending: Option<&'static str>,
}

impl DocumentFrequencies {
    /// Counts over videos: an n-gram counts once for each video any of whose tokenised references has it.
    pub fn from_references<R, S>(references_per_video: &[R]) -> Self
    where
        R: AsRef<[S]>,
        S: AsRef<str>,
    {
        Self::with_ending(references_per_video, None)
    }

    /// As [`DocumentFrequencies::from_references`], with one more word at the end of each caption.
    pub(crate) fn with_ending<R, S>(references_per_video: &[R], ending: Option<&'static str>) -> Self
    where
        R: AsRef<[S]>,
        S: AsRef<str>,
    {
        let documents = references_per_video.len() as f64;
        let mut frequencies = Self { documents, ending, ..Self::default() };
        let mut last_video: Vec<usize> = Vec::new();
        let mut words: Vec<u32> = Vec::new();
        for (video, references) in references_per_video.iter().enumerate() {
            for reference in references.as_ref() {
                words.clear();
                let ended = python_split(reference.as_ref()).chain(ending);
                words.extend(ended.map(|word| frequencies.vocabulary.intern(word)));
                for gram in (1..=MAX_N).flat_map(|n| words.windows(n)).map(gram) {
                    let number = frequencies.number(gram) as usize;
                    if number == last_video.len() {
                        last_video.push(usize::MAX);
                    }
                    if last_video[number] != video {
                        last_video[number] = video;
                        frequencies.counts[number] += 1.0;
                    }
                }
            }
        }
        frequencies
    }

    /// The number of an n-gram. A new one gets a number and the count 0.
    fn number(&mut self, gram: Gram) -> u32 {
        let next = self.counts.len() as u32;
        let number = *self.numbers.entry(gram).or_insert(next);
        if number == next {
            self.counts.push(0.0);
        }
        number
    }

    /// The weight of one occurrence of the n-gram.
    pub(crate) fn weight(&self, gram: Gram) -> f64 {
        let count = self.numbers.get(&gram).map_or(0.0, |&number| self.counts[number as usize]);
        idf(self.documents, count)
    }
}

/// The weight of one occurrence of an n-gram that `count` of the documents have.
pub(crate) fn idf(documents: f64, count: f64) -> f64 {
    documents.ln() - count.max(1.0).ln()
}

/// The file: the fields of the pickles that are shared for self-critical training, as JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FrequencyFile {
    /// The number of documents, not its logarithm.
    ref_len: f64,
    /// N-grams, their words joined by single spaces, and the number of documents with each.
    document_frequency: HashMap<String, f64>,
}

impl DocumentFrequencies {
    /// Reads `{"ref_len": .., "document_frequency": {"a man": 12, ..}}`, which
    /// `scripts/document_frequencies.py` makes from shared pickles.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] for another format, a count out of range, or an n-gram of more
    /// than four words.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|error| Error::io(path, error))?;
        let expected = "{\"ref_len\": .., \"document_frequency\": {\"a man\": 12, ..}}";
        let file: FrequencyFile = serde_json::from_str(&text)
            .map_err(|error| Error::malformed(path, "the file", expected, &error.to_string()))?;
        if !(file.ref_len >= 1.0 && file.ref_len.is_finite()) {
            let got = file.ref_len.to_string();
            return Err(Error::malformed(path, "\"ref_len\"", "a number of documents of at least 1", &got));
        }
        let mut frequencies = Self { documents: file.ref_len, ..Self::default() };
        for (name, count) in file.document_frequency {
            let numbers: Vec<u32> = name.split(' ').map(|word| frequencies.vocabulary.intern(word)).collect();
            if numbers.len() > MAX_N {
                let expected = format!("at most {MAX_N} words");
                let got = numbers.len().to_string();
                return Err(Error::malformed(path, &format!("{name:?}"), &expected, &got));
            }
            if !(0.0..=file.ref_len).contains(&count) {
                let expected = format!("a count between 0 and the {} documents", file.ref_len);
                return Err(Error::malformed(path, &format!("{name:?}"), &expected, &count.to_string()));
            }
            let number = frequencies.number(gram(&numbers));
            frequencies.counts[number as usize] = count;
        }
        Ok(frequencies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reward::{Idf, Reward, RewardConfig};
    use std::collections::HashSet;

    const TRAINING: [[&str; 2]; 3] = [
        ["a man plays a guitar", "a man sings"],
        ["a dog runs", "the dog is fast"],
        ["two cats", "cats sleep"],
    ];

    impl DocumentFrequencies {
        fn count(&self, words: &[&str]) -> f64 {
            let numbers: Option<Vec<u32>> = words.iter().map(|word| self.vocabulary.get(word)).collect();
            let number = numbers.and_then(|numbers| self.numbers.get(&gram(&numbers)));
            number.map_or(0.0, |&number| self.counts[number as usize])
        }
    }

    #[test]
    fn an_ngram_counts_once_for_a_video() {
        let frequencies = DocumentFrequencies::from_references(&TRAINING);
        assert_eq!(frequencies.count(&["a"]), 2.0, "two videos of three");
        assert_eq!(frequencies.count(&["a", "man"]), 1.0, "in both references of one video");
        assert_eq!(frequencies.count(&["a", "cow"]), 0.0);
        assert_eq!(frequencies.count(&["cow"]), 0.0);
    }

    #[test]
    fn frequencies_of_a_file_are_those_of_its_captions() {
        let mut counts: HashMap<String, u32> = HashMap::new();
        for video in TRAINING {
            let mut grams = HashSet::new();
            for words in video.map(|caption| caption.split(' ').collect::<Vec<_>>()) {
                grams.extend((1..=MAX_N).flat_map(|n| words.windows(n)).map(|gram| gram.join(" ")));
            }
            grams.into_iter().for_each(|gram| *counts.entry(gram).or_default() += 1);
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("df.json");
        let file = serde_json::json!({ "ref_len": 3, "document_frequency": counts });
        std::fs::write(&path, file.to_string()).unwrap();
        let read = DocumentFrequencies::load(&path).unwrap();
        assert_eq!(read.documents, 3.0);
        assert_eq!(read.counts.len(), DocumentFrequencies::from_references(&TRAINING).counts.len());
        assert_eq!(read.count(&["a", "man"]), 1.0);
        assert_eq!(read.count(&["a"]), 2.0);

        let config = RewardConfig { idf: Idf::Cached(path), end_token: false, ..RewardConfig::standard() };
        let cached = Reward::new::<[&str; 0], &str>(config, &[]).unwrap();
        let config = RewardConfig { end_token: false, ..RewardConfig::standard() };
        let direct = Reward::new(config, &TRAINING).unwrap();
        let generated = ["a man runs", "cats sleep", "zebras"];
        assert_eq!(cached.rewards(&generated, &TRAINING), direct.rewards(&generated, &TRAINING));
    }

    #[test]
    fn damaged_files_are_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("df.json");
        for (text, words) in [
            ("{", "the file"),
            ("{\"ref_len\": 0, \"document_frequency\": {}}", "ref_len"),
            ("{\"ref_len\": 2, \"document_frequency\": {\"a b c d e\": 1}}", "a b c d e"),
            ("{\"ref_len\": 2, \"document_frequency\": {\"a\": 3}}", "between 0 and the 2"),
            ("{\"ref_len\": 2, \"document_frequency\": {\"a\": -1}}", "between 0 and the 2"),
        ] {
            std::fs::write(&path, text).unwrap();
            let message = DocumentFrequencies::load(&path).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }
}
