//! CIDEr-D as the reward of self-critical training.
//!
//! Two presets that a report must never mix up. `standard` is the method as published: a generated caption is scored
//! against all references of its video, with document frequencies of the training set, and the end token counts as a word, so
//! that a caption cut short is worth less. `released` is what the paper's code does: the roles are swapped (the reference is scored against
//! the generated caption), the documents are the captions of the batch, and there is one reference.
//!
//! The reward knows no baseline: greedy, mean of the beams and leave-one-out are the learner's.

mod cache;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use cache::Cache;

use crate::Error;
use crate::cider::{CiderScorer, DocumentFrequencies};
use crate::ngram::{FastMap, Gram, MAX_N, Vocabulary, gram, gram_words};

/// The word that stands for the end of a caption.
const END: &str = "<eos>";

/// Who is scored against whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Roles {
    /// The generated caption is the hypothesis.
    Intended,
    /// The reference is the hypothesis and the generated caption its reference.
    Released,
}

/// Where document frequencies come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Idf {
    /// The captions of the batch that play the part of references.
    Batch,
    /// A file written by [`DocumentFrequencies::save`].
    Cached(PathBuf),
    /// The references of the training split, handed over when the reward is made.
    TrainingSplit,
}

/// How many references of a video count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReferenceChoice {
    /// The first.
    One,
    /// All.
    All,
}

/// What the reward is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardConfig {
    /// Who is scored against whom.
    pub roles: Roles,
    /// Where document frequencies come from.
    pub idf: Idf,
    /// How many references of a video count.
    pub references: ReferenceChoice,
    /// Whether the end of a caption counts as a word, on both sides and in the frequencies.
    pub end_token: bool,
}

impl RewardConfig {
    /// Self-critical training as published.
    pub fn standard() -> Self {
        Self {
            roles: Roles::Intended,
            idf: Idf::TrainingSplit,
            references: ReferenceChoice::All,
            end_token: true,
        }
    }

    /// The word put behind every caption.
    fn ending(&self) -> Option<&'static str> {
        self.end_token.then_some(END)
    }

    /// Self-critical training as the paper's code does it.
    pub fn released() -> Self {
        Self { roles: Roles::Released, idf: Idf::Batch, references: ReferenceChoice::One, end_token: false }
    }
}

/// Rewards for batches of generated captions.
#[derive(Debug, Clone)]
pub struct Reward {
    config: RewardConfig,
    /// With frequencies that last; without them each batch has its own.
    scorer: Option<CiderScorer>,
    prepared: Cache,
}

impl Reward {
    /// Makes the reward. `training` are the tokenised references of each training video, read for [`Idf::TrainingSplit`] only.
    ///
    /// # Errors
    /// [`Error::NoTrainingReferences`] when they are needed and empty; those of [`DocumentFrequencies::load`].
    pub fn new<R, S>(config: RewardConfig, training: &[R]) -> Result<Self, Error>
    where
        R: AsRef<[S]>,
        S: AsRef<str>,
    {
        let frequencies = match &config.idf {
            Idf::Batch => None,
            Idf::Cached(path) => Some(DocumentFrequencies::load(path)?),
            Idf::TrainingSplit if training.is_empty() => return Err(Error::NoTrainingReferences),
            Idf::TrainingSplit => Some(DocumentFrequencies::with_ending(training, config.ending())),
        };
        Ok(Self { config, scorer: frequencies.map(CiderScorer::new), prepared: Cache::default() })
    }

    /// What it computes.
    pub fn config(&self) -> &RewardConfig {
        &self.config
    }

    /// The reward of each generated caption, 0 to 10, against the references of its video; both tokenised. Captions of one
    /// video come with the same references each. Without references the reward is 0.
    pub fn rewards<C, R, S>(&self, generated: &[C], references: &[R]) -> Vec<f64>
    where
        C: AsRef<str> + Sync,
        R: AsRef<[S]> + Sync,
        S: AsRef<str> + Sync,
    {
        let ending = self.config.ending();
        let kept = |references: &'_ R| match self.config.references {
            ReferenceChoice::One => 1.min(references.as_ref().len()),
            ReferenceChoice::All => references.as_ref().len(),
        };
        let references: Vec<&[S]> =
            references.iter().map(|references| &references.as_ref()[..kept(references)]).collect();

        let batch;
        let (scorer, is_lasting) = match &self.scorer {
            Some(scorer) => (scorer, true),
            None => {
                let frequencies = match self.config.roles {
                    Roles::Intended => DocumentFrequencies::with_ending(&references, ending),
                    Roles::Released => {
                        let documents: Vec<[&str; 1]> =
                            generated.iter().map(|caption| [caption.as_ref()]).collect();
                        DocumentFrequencies::with_ending(&documents, ending)
                    }
                };
                batch = CiderScorer::new(frequencies);
                (&batch, false)
            }
        };
        generated
            .par_iter()
            .zip(references)
            .map(|(caption, references)| match self.config.roles {
                Roles::Intended => {
                    let prepare = || scorer.prepare_with_ending(references, ending);
                    if is_lasting {
                        let entry = self.prepared.get(references, prepare);
                        scorer.score_with_ending(caption.as_ref(), ending, &entry.prepared)
                    } else {
                        scorer.score_with_ending(caption.as_ref(), ending, &prepare())
                    }
                }
                Roles::Released => {
                    let prepared = scorer.prepare_with_ending(&[caption], ending);
                    let scores = references
                        .iter()
                        .map(|reference| scorer.score_with_ending(reference.as_ref(), ending, &prepared));
                    if references.is_empty() { 0.0 } else { scores.sum::<f64>() / references.len() as f64 }
                }
            })
            .collect()
    }
}

/// The file of frequencies: the fields of the pickles that self-critical training shares, as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FrequencyFile {
    /// How many documents were counted; its logarithm is taken when it is used.
    ref_len: f64,
    /// Words joined by single spaces, and in how many documents they occur in this order.
    document_frequency: HashMap<String, f64>,
}

impl DocumentFrequencies {
    /// Writes the frequencies as JSON: `{"ref_len": .., "document_frequency": {"a man": 12, ..}}`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let words = self.vocabulary.words();
        let name = |gram: Gram| {
            let numbers = gram_words(gram).into_iter();
            numbers.filter_map(|number| words.get(number as usize).copied()).collect::<Vec<_>>().join(" ")
        };
        // Sorted, so that equal frequencies are equal files.
        let sorted: std::collections::BTreeMap<String, f64> =
            self.numbers.iter().map(|(&gram, &number)| (name(gram), self.counts[number as usize])).collect();
        let value = serde_json::json!({ "ref_len": self.documents, "document_frequency": sorted });
        std::fs::write(path, value.to_string()).map_err(|error| Error::io(path, error))
    }

    /// Reads what [`DocumentFrequencies::save`] wrote, or a shared pickle that `scripts/document_frequencies.py` converted.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Malformed`] for another kind of file, a number that is not one, or an n-gram of more than
    /// four words.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|error| Error::io(path, error))?;
        let expected = "{\"ref_len\": .., \"document_frequency\": {\"a man\": 12, ..}}";
        let file: FrequencyFile = serde_json::from_str(&text)
            .map_err(|error| Error::malformed(path, "the file", expected, &error.to_string()))?;
        if !(file.ref_len >= 1.0 && file.ref_len.is_finite()) {
            let got = file.ref_len.to_string();
            return Err(Error::malformed(path, "\"ref_len\"", "a number of documents of at least 1", &got));
        }
        let mut frequencies = Self {
            vocabulary: Vocabulary::default(),
            numbers: FastMap::default(),
            counts: Vec::new(),
            documents: file.ref_len,
        };
        for (name, count) in file.document_frequency {
            let numbers: Vec<u32> = name.split(' ').map(|word| frequencies.vocabulary.intern(word)).collect();
            if numbers.len() > MAX_N {
                let expected = format!("at most {MAX_N} words");
                return Err(Error::malformed(
                    path,
                    &format!("{name:?}"),
                    &expected,
                    &numbers.len().to_string(),
                ));
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

    /// The distinct n-grams counted.
    pub fn distinct(&self) -> usize {
        self.numbers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAINING: [[&str; 2]; 3] = [
        ["a man plays a guitar", "a man sings"],
        ["a dog runs", "the dog is fast"],
        ["two cats", "cats sleep"],
    ];

    #[test]
    fn frequencies_survive_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("df.json");
        let frequencies = DocumentFrequencies::from_references(&TRAINING);
        frequencies.save(&path).unwrap();
        let read = DocumentFrequencies::load(&path).unwrap();
        assert_eq!(read.documents(), 3.0);
        assert_eq!(read.distinct(), frequencies.distinct());
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
    fn a_caption_cut_short_is_worth_less_with_the_end_token() {
        let reward = |end_token| {
            let config = RewardConfig { end_token, ..RewardConfig::standard() };
            let reward = Reward::new(config, &TRAINING).unwrap();
            reward.rewards(&["a man plays a"], &[["a man plays a guitar"]])[0]
        };
        assert!(reward(true) < reward(false));
        let standard = Reward::new(RewardConfig::standard(), &TRAINING).unwrap();
        assert_eq!(standard.rewards(&["a man plays a"], &[["a man plays a guitar"]]), [reward(true)]);
    }

    #[test]
    fn looking_up_adds_nothing() {
        let frequencies = DocumentFrequencies::from_references(&TRAINING);
        let before = frequencies.distinct();
        let scorer = CiderScorer::new(frequencies);
        scorer.score("quaggas quiver", &scorer.prepare(&["zebras zigzag"]));
        assert_eq!(scorer.frequencies().distinct(), before);
    }

    #[test]
    fn training_references_must_be_there() {
        let missing = Reward::new::<[&str; 0], &str>(RewardConfig::standard(), &[]);
        assert!(matches!(missing, Err(Error::NoTrainingReferences)));
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
