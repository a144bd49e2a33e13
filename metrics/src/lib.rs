//! Caption metrics: captions in, scores out.
//!
//! Published results on MSR-VTT, MSVD and VATEX were computed with coco-caption: a Java tokeniser, a Java
//! METEOR and Python. This crate computes the same numbers without Java, quirks included, and CIDEr is also
//! the reward of self-critical training. Each module lists the quirks that it keeps.

pub mod bleu;
pub mod cider;
mod constant;
mod corpus;
mod error;
pub mod files;
mod frequencies;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod grams;
pub mod meteor;
mod ngram;
pub mod ptb;
pub mod reward;
pub mod rouge;
mod scores;
pub mod vqa;

pub use cider::{CiderScorer, PreparedReferences};
pub use constant::best_constant_caption;
pub use corpus::{Corpus, Tokenized, Video};
pub use error::Error;
pub use frequencies::DocumentFrequencies;
pub use ngram::python_split;
pub use ptb::{TokenizedCaptions, tokenize_all};
pub use reward::{Idf, ReferenceChoice, Reward, RewardConfig, Roles};
pub use scores::{Options, Scores, VideoScores, score, score_tokenized};
