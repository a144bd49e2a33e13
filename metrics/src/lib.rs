//! Caption metrics: captions in, scores out.
//!
//! Every published number on MSR-VTT, MSVD and VATEX was computed with coco-caption: a Java tokenizer, a Java METEOR
//! and Python. This crate gives those numbers without Java, quirks included, and the same code is the reward of
//! self-critical training. Where a quirk is kept, the module that keeps it says so.

pub mod bleu;
pub mod cider;
mod constant;
mod corpus;
mod error;
pub mod files;
mod grams;
pub mod meteor;
mod ngram;
pub mod ptb;
pub mod reward;
pub mod rouge;
mod scores;
pub mod vqa;

pub use cider::{CiderScorer, DocumentFrequencies, PreparedReferences, corpus_cider};
pub use constant::best_constant_caption;
pub use corpus::{Corpus, Tokenized, Video};
pub use error::Error;
pub use ngram::python_split;
pub use ptb::{TokenizedCaptions, tokenize_all};
pub use reward::{Idf, ReferenceChoice, Reward, RewardConfig, Roles};
pub use scores::{Options, Scores, VideoScores, score, score_tokenized};
