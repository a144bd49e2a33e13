//! CIDEr-D as the reward of self-critical training.
//!
//! There are two presets. `standard` is the published method: a generated caption is scored against all
//! references of its video, with document frequencies of the training set, and the end token counts as a
//! word, so that a truncated caption scores less. `released` is the paper's code: the roles are swapped (the
//! reference is scored against the generated caption), the documents are the captions of the batch, and there
//! is one reference.
//!
//! Baselines (greedy caption, mean, leave-one-out) are not part of the reward.

mod cache;

use std::path::PathBuf;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use cache::Cache;

use crate::Error;
use crate::cider::CiderScorer;
use crate::frequencies::DocumentFrequencies;

/// The word for the end of a caption.
const END: &str = "<eos>";

/// Which caption is scored against which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Roles {
    /// The generated caption is the hypothesis.
    Intended,
    /// The reference is the hypothesis and the generated caption its reference.
    Released,
}

/// The source of the document frequencies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Idf {
    /// The captions of the batch that serve as references.
    Batch,
    /// A file of [`DocumentFrequencies::load`].
    Cached(PathBuf),
    /// The references of the training split, an argument of [`Reward::new`].
    TrainingSplit,
}

/// Which references of a video count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReferenceChoice {
    /// The first.
    One,
    /// All.
    All,
}

/// Settings of a [`Reward`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardConfig {
    /// Which caption is scored against which.
    pub roles: Roles,
    /// The source of the document frequencies.
    pub idf: Idf,
    /// Which references of a video count.
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

    /// The word appended to every caption.
    fn ending(&self) -> Option<&'static str> {
        self.end_token.then_some(END)
    }

    /// Self-critical training as in the paper's code.
    pub fn released() -> Self {
        Self { roles: Roles::Released, idf: Idf::Batch, references: ReferenceChoice::One, end_token: false }
    }
}

/// Rewards for batches of generated captions.
#[derive(Debug, Clone)]
pub struct Reward {
    config: RewardConfig,
    /// With fixed frequencies; `None` if each batch has its own.
    scorer: Option<CiderScorer>,
    prepared: Cache,
}

impl Reward {
    /// Makes the reward. `training` holds the tokenised references of each training video, used by
    /// [`Idf::TrainingSplit`].
    ///
    /// # Errors
    /// [`Error::NoTrainingReferences`] if they are needed and empty; those of [`DocumentFrequencies::load`].
    pub fn new<R, S>(config: RewardConfig, training: &[R]) -> Result<Self, Error>
    where
        R: AsRef<[S]>,
        S: AsRef<str>,
    {
        let frequencies = match &config.idf {
            Idf::Batch => None,
            Idf::Cached(path) => {
                Some(DocumentFrequencies { ending: config.ending(), ..DocumentFrequencies::load(path)? })
            }
            Idf::TrainingSplit if training.is_empty() => return Err(Error::NoTrainingReferences),
            Idf::TrainingSplit => Some(DocumentFrequencies::with_ending(training, config.ending())),
        };
        Ok(Self { config, scorer: frequencies.map(CiderScorer::new), prepared: Cache::default() })
    }

    /// The settings.
    pub fn config(&self) -> &RewardConfig {
        &self.config
    }

    /// The reward of each generated caption, 0 to 10, against the references of its video, given for each
    /// caption; both tokenised. Without references the reward is 0.
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
        let (scorer, is_fixed) = match &self.scorer {
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
                    let prepare = || scorer.prepare(references);
                    if is_fixed {
                        let entry = self.prepared.get(references, prepare);
                        scorer.score(caption.as_ref(), &entry.prepared)
                    } else {
                        scorer.score(caption.as_ref(), &prepare())
                    }
                }
                Roles::Released => {
                    let prepared = scorer.prepare(&[caption]);
                    let scores =
                        references.iter().map(|reference| scorer.score(reference.as_ref(), &prepared));
                    if references.is_empty() { 0.0 } else { scores.sum::<f64>() / references.len() as f64 }
                }
            })
            .collect()
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
    fn training_references_must_be_there() {
        let missing = Reward::new::<[&str; 0], &str>(RewardConfig::standard(), &[]);
        assert!(matches!(missing, Err(Error::NoTrainingReferences)));
    }
}
